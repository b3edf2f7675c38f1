//! Fine-tuning on a dataset: questions become batches, held-out images select the checkpoint, the result is a model
//! folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::answering::{Answering, answers};
use super::batches::QuestionBatches;
use super::evaluation::{Execution, PlannedDataset, weights_digest};
use super::sampling::{Sampling, split_by_image};
use crate::data::{Dataset, Id, WholeFile};
use crate::error::{Error, Result};
use crate::model::adapter::Adapter;
use crate::model::decoding::{Decoding, Strategy};
use crate::model::initialisation::initialise;
use crate::model::text::Prompt;
use crate::model::training::{Collation, Lora, Parameters, Trained, TrainedTensor};
use crate::model::weights::{ConvertedWeights, Placement};
use crate::model::{Checkpoint, Model, TrainedValues, adapter, hex, saving};
use crate::runtime::{Device, Runtime, SessionOptions, Sharing};
use crate::score::{ScoreOptions, score, summarise};
use crate::store::{CurvePoint, Store, TrainingRunId};
use crate::tensor::{DType, Tensor};
use crate::train::{self, Optimizer, Schedule, Settings};

/// Upper bound of the tokens of an answer in validation.
const VALIDATION_TOKENS: usize = 20;

/// Questions per call in validation; it changes no answer in f32.
const VALIDATION_BATCH: usize = 64;

/// Folder within a run's folder of the random weights that it starts from.
const START: &str = "start";

/// Folder within a run's folder in which the model is made.
const MODEL: &str = ".model";

/// File within a run's folder that lists the images of the validation questions.
const VALIDATION_IMAGES: &str = "validation_images.json";

/// Points that are handed to the store together.
const POINTS: usize = 1_000;

/// What to train and how. Everything is checked before the first step.
pub struct TrainingPlan {
    /// Model folder to start from; with `from_scratch`, settings files without weights.
    pub model: PathBuf,
    /// Whether to start from random weights.
    pub from_scratch: bool,
    /// The questions to train on, with the metric of validation.
    pub questions: PlannedDataset,
    /// What selects the checkpoint.
    pub validation: Validation,
    /// How each question is put.
    pub prompt: &'static Prompt,
    /// Which parameters of the checkpoint train.
    pub parameters: Parameters,
    /// LoRA matrices to train.
    pub lora: Option<Lora>,
    /// How often questions are drawn.
    pub sampling: Sampling,
    /// Questions per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per step.
    pub accumulation: u64,
    /// Length of the run.
    pub length: Length,
    /// How gradients become steps.
    pub method: &'static train::Method,
    /// The optimiser that the method builds on.
    pub optimizer: Optimizer,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How it changes.
    pub schedule: Schedule,
    /// Upper bound of the gradient's norm.
    pub clip: Option<f64>,
    /// Steps between checkpoints, beside those at the end of each epoch.
    pub save_every: Option<u64>,
    /// Seed of the order, of the held-out images, of dropout and of new matrices.
    pub seed: u64,
    /// Whether layers are computed once more on the way back, to save memory.
    pub recompute: bool,
    /// Where graphs run.
    pub device: Device,
    /// Compute dtype.
    pub dtype: DType,
    /// Threads of the CPU.
    pub threads: usize,
    /// Folder of the run; ends as a model folder.
    pub output: PathBuf,
    /// File of the store.
    pub store: PathBuf,
    /// Folder for weights that have to be converted.
    pub scratch: PathBuf,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Passes over the training questions.
    Epochs(u64),
    /// Optimiser steps.
    Steps(u64),
}

/// What selects the checkpoint.
pub enum Validation {
    /// A seeded share of the training images, which are not trained on.
    HeldOut(f64),
    /// A set that is reported, as the authors of the paper did: its numbers are then no test of the model.
    Reported(Box<PlannedDataset>),
    /// Nothing: the last checkpoint is kept.
    None,
}

/// The name of [`Validation::Reported`].
const REPORTED: &str = "reported";

impl Validation {
    /// Share of the images that is held out.
    fn share(&self) -> Option<f64> {
        if let Self::HeldOut(share) = self { Some(*share) } else { None }
    }

    /// Its name in the records of a run.
    fn name(&self) -> &'static str {
        match self {
            Self::HeldOut(_) => "held-out",
            Self::Reported(_) => REPORTED,
            Self::None => "none",
        }
    }
}

/// The end of a run.
#[derive(Debug, serde::Serialize)]
pub struct TrainingReport {
    /// The folder of the run, which is a model.
    pub output: PathBuf,
    /// Optimiser steps.
    pub steps: u64,
    /// Numbers that train.
    pub trained_parameters: usize,
    /// Questions that were trained on.
    pub training_questions: usize,
    /// Questions that select the checkpoint.
    pub validation_questions: usize,
    /// What these are.
    pub validation: &'static str,
    /// Accuracy in percent of the checkpoint that was kept, and the steps before it.
    pub best: Option<(f64, u64)>,
}

/// Trains, and writes the model folder.
///
/// # Errors
///
/// Input errors before the first step for all that can be known then: files, names, answers without tokens, a run folder of
/// other settings. Later: a damaged image, a loss that is not finite, a full disk; the last checkpoint stays.
pub fn train_model(
    plan: &TrainingPlan,
    runtime: &Runtime,
    on_event: &mut dyn FnMut(train::Event),
) -> Result<TrainingReport> {
    claim_output(&plan.output)?;
    let checkpoint = Checkpoint::open(&start_folder(plan)?)?;
    let mut store = Store::open(&plan.store)?;
    let mut subject = Subject::new(plan, &checkpoint, runtime, &mut store)?;
    let trained = Trained { parameters: plan.parameters.clone(), adapter: adapted(plan, &checkpoint)? };
    // The session of the loop maps converted weights when it is made, which the loop does.
    let (task, collation, _converted) = task(plan, &checkpoint, &trained)?;
    let mut replicas = replicas(plan, &checkpoint, &trained, runtime)?;
    let first = replicas.first().ok_or_else(|| Error::internal("no replica of the model was made"))?;
    subject.add_inputs(first);
    let training = plan.questions.dataset.select(&subject.training);
    let source = QuestionBatches::new(plan, &training, first, collation)?;
    let settings = settings(plan, &source, &subject);
    let run_id = store.training_run(&settings.deciding().to_string())?;
    let trained_parameters = task.parameters.iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>()).sum();
    subject.record_validation_images(plan)?;
    let mut curves = Curves { store, run: run_id, points: Vec::new() };
    let execution = Execution::chosen(plan.device, plan.dtype, plan.threads, &checkpoint);
    let sharing = Sharing::Training { threads: plan.threads, mapped: execution.sharing == Sharing::Operators };
    let options = SessionOptions { device: plan.device, sharing };
    let run = train::Run { runtime, options: &options, settings: &settings, batches: &source, folder: &plan.output };
    let mut validate = |_, parameters: &train::Parameters| validate(plan, &subject, &mut replicas, parameters);
    let outcome = train::train(&run, task, &mut validate, &mut |event| {
        curves.take(&event);
        on_event(event);
    })?;
    curves.complete(&plan.output)?;
    write_model(plan, &checkpoint, trained.adapter.as_ref(), outcome.parameters)?;
    Ok(TrainingReport {
        output: plan.output.clone(),
        steps: outcome.steps,
        trained_parameters,
        training_questions: training.questions.len(),
        validation_questions: subject.validation.as_ref().map_or(0, |set| set.dataset.questions.len()),
        validation: plan.validation.name(),
        best: outcome.best.map(|best| (best.score, best.step)),
    })
}

/// Makes the folder of the run, and refuses one with a model that no run has made: a finished run would replace it.
fn claim_output(folder: &Path) -> Result<()> {
    if train::has_checkpoint(folder) {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(|cause| {
        Error::input(format!("cannot make the run folder `{}`", folder.display()))
            .caused_by(cause)
            .hint("use another --output")
    })?;
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    let is_of_model = |name: &&String| {
        ["config.json", "adapter_config.json"].contains(&name.as_str()) || name.ends_with(".safetensors")
    };
    match names.iter().find(is_of_model) {
        None => Ok(()),
        Some(name) => Err(Error::input(format!(
            "`{}` holds a model (`{name}`) without a checkpoint of a run, which would replace it",
            folder.display()
        ))
        .hint("use another --output")),
    }
}

/// The folder of the weights to start from; random ones are drawn from the seed and kept in the run's folder.
fn start_folder(plan: &TrainingPlan) -> Result<PathBuf> {
    if !plan.from_scratch {
        return Ok(plan.model.clone());
    }
    if !plan.model.join("config.json").is_file() {
        return Err(Error::input(format!("there is no `{}` to start from", plan.model.join("config.json").display()))
            .hint("random weights need a folder with config.json, tokenizer.json and preprocessor_config.json"));
    }
    let folder = plan.output.join(START);
    // What a run without a checkpoint has left may be of another seed.
    if !train::has_checkpoint(&plan.output) {
        let tensors = initialise(&plan.model, plan.seed)?;
        saving::save_new(&plan.model, &tensors, &folder, &mut |_| ())?;
    }
    Ok(folder)
}

/// Whether the folder is that of a run whose checkpoint a reported set selected.
pub(super) fn selected_on_reported(folder: &Path) -> bool {
    let settings = std::fs::read(folder.join(train::SETTINGS)).ok();
    let settings: Option<Value> = settings.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    settings.is_some_and(|settings| settings["subject"]["validation"] == REPORTED)
}

/// What a run is about, as far as it decides the result.
struct Subject {
    /// Positions of the questions to train on.
    training: Vec<usize>,
    validation: Option<PlannedDataset>,
    facts: Map<String, Value>,
}

impl Subject {
    fn new(plan: &TrainingPlan, checkpoint: &Checkpoint, runtime: &Runtime, store: &mut Store) -> Result<Self> {
        let dataset = &plan.questions.dataset;
        let all = || (0..dataset.questions.len()).collect();
        let (training, validation) = match &plan.validation {
            Validation::HeldOut(share) => {
                let (training, held_out) = split_by_image(dataset, *share, plan.seed);
                (training, Some(PlannedDataset { dataset: dataset.select(&held_out), metric: plan.questions.metric }))
            }
            Validation::Reported(set) => {
                (all(), Some(PlannedDataset { dataset: set.dataset.clone(), metric: set.metric }))
            }
            Validation::None => (all(), None),
        };
        if training.is_empty() || validation.as_ref().is_some_and(|set| set.dataset.questions.is_empty()) {
            return Err(Error::input(format!("`{}` is too small to hold images out for validation", dataset.name))
                .hint("train on more images, or without validation: --validation none"));
        }
        let weights = weights_digest(checkpoint, store, &mut |_| ())?;
        let mut facts = Map::new();
        let held_out = validation.as_ref().map(|set| question_digest(&set.dataset));
        for (key, value) in [
            ("weights", json!(weights)),
            ("from_scratch", json!(initialised(plan)?)),
            ("configuration", json!(checkpoint.configuration_digest()?)),
            ("dataset", json!(dataset.name)),
            ("questions", json!(question_digest(dataset))),
            ("validation", json!(plan.validation.name())),
            ("validation_share", json!(plan.validation.share())),
            ("validation_questions", json!(held_out)),
            ("prompt", json!(plan.prompt.template)),
            ("parameters", json!(plan.parameters.to_string())),
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
        Ok(Self { training, validation, facts })
    }

    /// Adds how the model's inputs are made of questions and images.
    fn add_inputs(&mut self, model: &Model) {
        self.facts.insert("tokenizer".to_owned(), json!(model.text().digest()));
        self.facts.insert("preprocessing".to_owned(), json!(model.images().describe()));
    }

    /// Writes the identifiers of the held-out images into the folder of a run that has no checkpoint yet.
    fn record_validation_images(&self, plan: &TrainingPlan) -> Result<()> {
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
        let write = || {
            let mut file = WholeFile::create(&path)?;
            writeln!(file, "[\n  {}\n]", list.join(",\n  "))?;
            file.finish()
        };
        write().map_err(|cause| Error::input(format!("cannot write `{}`", path.display())).caused_by(cause))
    }
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
fn question_digest(dataset: &Dataset) -> String {
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

fn settings(plan: &TrainingPlan, source: &QuestionBatches, subject: &Subject) -> Settings {
    let steps_per_epoch = source.sampler.steps_per_epoch();
    let subject = subject.facts.clone();
    let steps = match plan.length {
        Length::Epochs(epochs) => epochs * steps_per_epoch,
        Length::Steps(steps) => steps,
    };
    Settings {
        subject,
        method: plan.method,
        optimizer: plan.optimizer,
        learning_rate: plan.learning_rate,
        schedule: plan.schedule,
        steps_per_epoch,
        steps,
        accumulation: plan.accumulation,
        clip: plan.clip,
        save_every: plan.save_every,
        workers: plan.threads,
    }
}

/// The graph of the loss with start values of all that trains, and how batches are laid out for it.
fn task(
    plan: &TrainingPlan,
    checkpoint: &Checkpoint,
    trained: &Trained,
) -> Result<(train::Task, Collation, Option<ConvertedWeights>)> {
    let mut ignore = |_| ();
    let mut placement = Placement::new(&checkpoint.weights, plan.dtype, &plan.scratch, &mut ignore)?;
    let graph = checkpoint.training_graph(&mut placement, trained)?;
    let (folder, converted) = placement.finish()?;
    check_selection(plan, checkpoint, &graph.trained)?;
    let parameters = start_values(checkpoint, &graph.trained, plan.seed)?;
    let collation = Collation {
        image_tokens: graph.image_tokens,
        masks: graph.masks.into(),
        dropout: plan.lora.as_ref().map_or(0.0, |lora| lora.dropout),
    };
    let recomputed = if plan.recompute { graph.layers } else { Vec::new() };
    Ok((train::Task { graph: graph.graph, folder, parameters, recomputed }, collation, converted))
}

/// Values of all that trains before the first step: those of the checkpoint or of its adapter, else of a new adapter.
fn start_values(checkpoint: &Checkpoint, trained: &[TrainedTensor], seed: u64) -> Result<Vec<(String, Tensor)>> {
    let new = adapter::initial_matrices(trained, seed)?;
    let known = checkpoint.adapter.as_ref().map(|adapter| &adapter.tensors);
    let value = |TrainedTensor { name, shape }: &TrainedTensor| match known.and_then(|tensors| tensors.get(name)) {
        Some(tensor) => Ok(tensor.clone()),
        None => new.get(name).cloned().map_or_else(|| checkpoint.weights.values(name, shape), Ok),
    };
    trained.iter().map(|tensor| Ok((tensor.name.clone(), value(tensor)?))).collect()
}

/// The LoRA matrices to train, with targets that each name a layer. Training goes on with an adapter only as it is.
fn adapted(plan: &TrainingPlan, checkpoint: &Checkpoint) -> Result<Option<Lora>> {
    let select = |lora: &Lora| {
        let targets = adapter::select(&lora.targets, &checkpoint.linear_layers())?;
        Ok(Lora { targets, ..lora.clone() })
    };
    let chosen = plan.lora.as_ref().map(select).transpose()?;
    let Some(start) = checkpoint.adapter.as_ref().map(Adapter::lora) else { return Ok(chosen) };
    let layers = |lora: &Lora| -> Vec<String> {
        let layers = checkpoint.linear_layers().into_iter().map(|layer| layer.path);
        layers.filter(|layer| lora.includes(layer)).collect()
    };
    let goes_on =
        |lora: &Lora| lora.rank == start.rank && lora.scale() == start.scale() && layers(lora) == layers(&start);
    if chosen.as_ref().is_some_and(goes_on) {
        return Ok(chosen);
    }
    let (rank, alpha) = (start.rank, start.alpha);
    Err(Error::input(format!("`{}` is an adapter of other settings", checkpoint.folder.display())).hint(format!(
        "go on with it by --lora with r={rank}, alpha={alpha} and its layers, or merge it first: `digrap-bench export`"
    )))
}

/// Refuses patterns that select nothing.
fn check_selection(plan: &TrainingPlan, checkpoint: &Checkpoint, trained: &[TrainedTensor]) -> Result<()> {
    if let Some(pattern) = plan.parameters.unmatched(trained) {
        let names: Vec<&str> = checkpoint.weights.names().into_iter().take(3).collect();
        return Err(Error::input(format!("the pattern `{pattern}` matches no parameter of the model"))
            .hint(format!("parameters are named {}, ...; `*` stands for any text", names.join(", "))));
    }
    Ok(())
}

/// Models that answer the validation questions with the parameters of the moment.
fn replicas(plan: &TrainingPlan, checkpoint: &Checkpoint, trained: &Trained, runtime: &Runtime) -> Result<Vec<Model>> {
    let mut ignore = |_| ();
    let placement = Placement::new(&checkpoint.weights, plan.dtype, &plan.scratch, &mut ignore)?;
    let execution = Execution::chosen(plan.device, plan.dtype, plan.threads, checkpoint);
    let options = SessionOptions { device: plan.device, sharing: execution.sharing };
    Model::load(checkpoint, placement, trained, runtime, &options, execution.replicas)
}

/// Accuracy in percent on the validation questions.
fn validate(
    plan: &TrainingPlan,
    subject: &Subject,
    replicas: &mut [Model],
    parameters: &train::Parameters,
) -> Result<Option<f64>> {
    let Some(set) = &subject.validation else { return Ok(None) };
    let Some(references) = &set.dataset.references else { return Ok(None) };
    let values: TrainedValues =
        Arc::new(parameters.iter().map(|(name, tensor)| (name.to_owned(), Arc::clone(tensor))).collect());
    for replica in replicas.iter_mut() {
        replica.set_trained(Arc::clone(&values));
    }
    let answering = Answering {
        dataset: &set.dataset,
        prompt: plan.prompt,
        decoding: Decoding { strategy: Strategy::Greedy, max_new_tokens: VALIDATION_TOKENS },
        batch_size: VALIDATION_BATCH,
        threads: plan.threads,
    };
    let answers = answers(&answering, replicas)?;
    let scores = score(set.metric, ScoreOptions::default(), &answers, references)?;
    Ok(summarise(set.metric, &scores, references, &set.dataset.clusters())?.accuracy)
}

/// Makes the folder of the run a model: the checkpoint with the trained tensors, or an adapter beside it. `config.json`
/// (`adapter_config.json`) comes last, so that a folder that has it is whole.
fn write_model(
    plan: &TrainingPlan,
    checkpoint: &Checkpoint,
    lora: Option<&Lora>,
    parameters: Vec<(String, Tensor)>,
) -> Result<()> {
    let folder = plan.output.join(MODEL);
    let last = if lora.is_some() { "adapter_config.json" } else { "config.json" };
    if plan.output.join(last).is_file() {
        // All but an empty folder was done.
        let _ = std::fs::remove_dir(&folder);
        return Ok(());
    }
    let tensors: BTreeMap<String, Tensor> = parameters.into_iter().collect();
    match lora {
        None => saving::save_checkpoint(checkpoint, &tensors, &folder, &mut |_| ())?,
        Some(lora) => {
            let base = std::path::absolute(&checkpoint.base_folder).unwrap_or_else(|_| checkpoint.base_folder.clone());
            let base = base.to_string_lossy().into_owned();
            Adapter::new(lora, &checkpoint.config, Some(base), tensors).write(&folder)?;
        }
    }
    let cannot = |cause| {
        Error::input(format!("cannot write the model to `{}`", plan.output.display()))
            .caused_by(cause)
            .hint("the run is finished; make room and give the same command again")
    };
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>())
        .map_err(cannot)?;
    names.sort_by_key(|name| name == last);
    for name in names {
        std::fs::rename(folder.join(&name), plan.output.join(&name)).map_err(cannot)?;
    }
    std::fs::remove_dir(&folder).map_err(cannot)
}

/// Gathers the points of curves and hands them to the store now and then.
struct Curves {
    store: Store,
    run: TrainingRunId,
    points: Vec<CurvePoint>,
}

impl Curves {
    fn take(&mut self, event: &train::Event) {
        let point = |series: &str, step, value| CurvePoint { series: series.to_owned(), step, value };
        match event {
            train::Event::Stepped(progress) => {
                self.points.extend([
                    point("loss", progress.step, progress.loss),
                    point("learning_rate", progress.step, progress.learning_rate),
                    point("gradient_norm", progress.step, progress.gradient_norm),
                ]);
                self.points.extend(progress.reports.iter().map(|(name, value)| point(name, progress.step, *value)));
            }
            train::Event::Validated { step, score, .. } => self.points.push(point("validation", *step, *score)),
            _ => {}
        }
        let due = matches!(event, train::Event::Validated { .. } | train::Event::Saved { .. });
        // What the store does not take now, it is given again; at the end a failure counts.
        if (due || self.points.len() >= POINTS) && self.store.record_curve(self.run, &self.points).is_ok() {
            self.points.clear();
        }
    }

    /// Hands over all points of the run: a process that was killed took some with it.
    fn complete(&mut self, folder: &Path) -> Result<()> {
        let mut points = Vec::new();
        for line in train::metrics(folder)? {
            let Some(step) = line.get("step").and_then(Value::as_u64) else { continue };
            let series = line.iter().filter(|(name, _)| !["step", "epoch", "samples"].contains(&name.as_str()));
            let numbers = series.filter_map(|(name, value)| Some((name, value.as_f64()?)));
            points.extend(numbers.map(|(series, value)| CurvePoint { series: series.clone(), step, value }));
        }
        self.store.record_curve(self.run, &points)
    }
}
