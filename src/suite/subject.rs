//! What a run is about, as far as it decides the result.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::evaluation::PlannedDataset;
use super::loading::weights_digest;
use super::plan::{TrainingPlan, Validation};
use super::sampling::split_by_image;
use crate::data::{Dataset, Id, WholeFile};
use crate::error::{Error, Result};
use crate::model::{Checkpoint, Model, hex};
use crate::runtime::Runtime;
use crate::store::Store;
use crate::train::{self, Anchor};

/// File within a run's folder that lists the images of the validation questions.
const VALIDATION_IMAGES: &str = "validation_images.json";

/// What a run is about, as far as it decides the result.
pub(super) struct Subject {
    /// Positions of the questions to train on.
    pub training: Vec<usize>,
    pub validation: Option<Arc<PlannedDataset>>,
    /// SHA-256 over the questions that select the checkpoint.
    pub validation_digest: Option<String>,
    pub facts: Map<String, Value>,
}

impl Subject {
    pub(super) fn new(
        plan: &TrainingPlan,
        checkpoint: &Checkpoint,
        runtime: &Runtime,
        store: &mut Store,
    ) -> Result<Self> {
        let dataset = &plan.questions.dataset;
        let (training, validation) = split(plan);
        if training.is_empty() || validation.as_ref().is_some_and(|set| set.dataset.questions.is_empty()) {
            return Err(Error::input(format!("`{}` is too small to hold images out for validation", dataset.name))
                .hint("train on more images, or without validation: --validation none"));
        }
        let weights = weights_digest(&checkpoint.weights, store, &mut |_| ())?;
        let mut facts = Map::new();
        let validation_digest = validation.as_ref().map(|set| question_digest(&set.dataset));
        for (key, value) in [
            ("weights", json!(weights)),
            ("from_scratch", json!(initialised(plan)?)),
            ("configuration", json!(checkpoint.configuration_digest()?)),
            ("dataset", json!(dataset.name)),
            ("questions", json!(question_digest(dataset))),
            ("validation", json!(plan.validation.name())),
            ("validation_share", json!(plan.validation.share())),
            ("validation_questions", json!(validation_digest)),
            ("prompt", json!(plan.prompt.template)),
            ("parameters", json!(plan.parameters.to_string())),
            ("anchor", json!(anchor(plan))),
            ("exclude", json!(plan.exclude)),
            ("lora", json!(plan.lora.as_ref().map(ToString::to_string))),
            ("sampling", json!(plan.sampling.to_string())),
            ("batch_size", json!(plan.batch_size)),
            ("seed", json!(plan.seed)),
            ("dtype", json!(plan.dtype.name())),
            ("device", json!(plan.device.to_string())),
            ("threads", json!(plan.threads)),
            ("runtime_version", json!(runtime.info.version)),
            ("program_version", json!(env!("CARGO_PKG_VERSION"))),
        ] {
            facts.insert(key.to_owned(), value);
        }
        Ok(Self { training, validation, validation_digest, facts })
    }

    /// Adds how the model's inputs are made of questions and images.
    pub(super) fn add_inputs(&mut self, model: &Model) {
        self.facts.insert("tokenizer".to_owned(), json!(model.text().digest()));
        self.facts.insert("preprocessing".to_owned(), json!(model.images().describe()));
    }

    /// Writes the identifiers of the held-out images into the folder of a run that has no checkpoint yet.
    pub(super) fn record_validation_images(&self, plan: &TrainingPlan) -> Result<()> {
        let path = plan.output.join(VALIDATION_IMAGES);
        if train::has_checkpoint(&plan.output) {
            return Ok(());
        }
        let (Validation::HeldOut(_), Some(set)) = (&plan.validation, &self.validation) else {
            // An attempt that came to no checkpoint may have left one.
            let _ = std::fs::remove_file(&path);
            return Ok(());
        };
        let images: BTreeSet<&Id> = set.dataset.questions.iter().map(|question| &question.image_id).collect();
        let list: Vec<String> = images.into_iter().map(Id::to_json).collect();
        write_whole(&path, &format!("[\n  {}\n]\n", list.join(",\n  ")))
    }
}

/// Positions of the questions to train on, and the questions that select the checkpoint.
fn split(plan: &TrainingPlan) -> (Vec<usize>, Option<Arc<PlannedDataset>>) {
    let dataset = &plan.questions.dataset;
    let all = (0..dataset.questions.len()).collect();
    match &plan.validation {
        Validation::HeldOut(share) => {
            let (training, held_out) = split_by_image(dataset, *share, plan.seed);
            let held_out =
                PlannedDataset { dataset: dataset.select(&held_out), metric: plan.questions.metric, row: None };
            (training, Some(Arc::new(held_out)))
        }
        Validation::Reported(set) => (all, Some(Arc::clone(set))),
        Validation::None => (all, None),
    }
}

/// SHA-256 over the questions that select the checkpoint, if there are any.
pub(super) fn validation_digest(plan: &TrainingPlan) -> Option<String> {
    split(plan).1.map(|set| question_digest(&set.dataset))
}

/// What deviations are measured from, for a method that measures them.
fn anchor(plan: &TrainingPlan) -> Option<&'static str> {
    plan.method.method.anchored.then(|| match plan.anchor() {
        Anchor::Start => "start",
        Anchor::Origin => "origin",
        Anchor::None => "none",
    })
}

/// SHA-256 of the configuration that random weights are drawn for, if they are.
fn initialised(plan: &TrainingPlan) -> Result<Option<String>> {
    if !plan.from_scratch {
        return Ok(None);
    }
    let path = plan.model.join("config.json");
    let bytes = std::fs::read(&path)
        .map_err(|cause| Error::input(format!("cannot read `{}`", path.display())).caused_by(cause))?;
    Ok(Some(hex(&Sha256::digest(bytes))))
}

/// SHA-256 over identifiers, texts, answers and answer types of all questions.
pub(super) fn question_digest(dataset: &Dataset) -> String {
    let mut hash = Sha256::new();
    for (index, question) in dataset.questions.iter().enumerate() {
        let (question_id, image_id) = question.key();
        let answers = dataset.references.iter().flat_map(|references| references.answers(index));
        let answers: Vec<&str> = answers.map(|answer| answer.text).collect();
        let kind = dataset.references.as_ref().and_then(|references| references.answer_type(index));
        hash.update(json!([question_id, image_id, question.text, answers, kind]).to_string());
    }
    hex(&hash.finalize())
}

/// Writes a file that is there whole or not at all.
pub(super) fn write_whole(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut file = WholeFile::create(path)?;
        file.write_all(text.as_bytes())?;
        file.finish()
    };
    write().map_err(|cause| Error::input(format!("cannot write `{}`", path.display())).caused_by(cause))
}
