//! A validated plan and its execution: every model on every dataset.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::answering::{Event, Pace};
use super::distances::{Measuring, ModalityShift, ShiftPlan};
use super::loading::{Loaded, check_dtype, dtype_of, load_encoder, load_model};
use super::measuring::{self, Answered, Link};
use super::pipeline::{Fingerprint, Subject};
use super::subject::question_digest;
use super::training::{selected_on_reported, training_settings};
use crate::data::{Dataset, DatasetRow, Portion, results};
use crate::error::{Error, Result};
use crate::model::Checkpoint;
use crate::model::decoding::Decoding;
use crate::model::encoder::EncoderCheckpoint;
use crate::model::text::Prompt;
use crate::runtime::{Device, Runtime};
use crate::score::{Measurement, Metric, ScoreOptions, Summary, score, summarise};
use crate::store::{AnswerSettings, DistanceSettings, Maker, QuestionSet, SettingsId, Store, StoredModel};
use crate::tensor::DType;

/// What to evaluate and how. Everything is checked before the first question is asked.
pub struct Plan {
    /// The models.
    pub models: Vec<PlannedModel>,
    /// Encoders of images or texts alone, which have features but give no answers.
    pub encoders: Vec<ModelSource>,
    /// Datasets, loaded.
    pub datasets: Vec<PlannedDataset>,
    /// Number of questions that are asked of each dataset, from the first on; none where all are.
    pub limit: Option<usize>,
    /// Whether questions are answered; features alone are looked at where not.
    pub answers: bool,
    /// How shift is measured, if it is.
    pub shift: Option<ShiftPlan>,
    /// How answers are searched for.
    pub decoding: Decoding,
    /// Questions per call of the model; chosen by the size of the model where not given.
    pub batch_size: Option<usize>,
    /// Where graphs run.
    pub device: Device,
    /// Compute dtype; f32 on the CPU and that of the checkpoint elsewhere, where not given.
    pub dtype: Option<DType>,
    /// Threads of the CPU to use.
    pub threads: usize,
    /// File of the store.
    pub store: PathBuf,
    /// Folder for results files, if wanted.
    pub output: Option<PathBuf>,
    /// Folder for weights that have to be converted.
    pub scratch: PathBuf,
    /// What makes the results.
    pub maker: Maker,
}

/// Where a model is.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// Name in reports and of its folder of results.
    pub name: String,
    /// Folder in the Hub's layout.
    pub folder: PathBuf,
    /// Folder of the base model, if the folder is an adapter whose own name for it is no folder here.
    pub base: Option<PathBuf>,
}

impl ModelSource {
    /// A folder under its own name.
    pub fn folder(folder: &Path) -> Self {
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let name = absolute.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
        Self { name, folder: folder.to_owned(), base: None }
    }
}

/// A model and how questions are put to it.
#[derive(Debug, Clone)]
pub struct PlannedModel {
    /// Where it is.
    pub source: ModelSource,
    /// How each question is put.
    pub prompt: &'static Prompt,
    /// Whether it is evaluated as one that was not fine-tuned.
    pub zero_shot: bool,
}

/// A dataset and its metric.
#[derive(Debug)]
pub struct PlannedDataset {
    /// Questions, references and images.
    pub dataset: Dataset,
    /// How answers are scored.
    pub metric: &'static Metric,
    /// What is known of the dataset; nothing of a set of one's own.
    pub row: Option<&'static DatasetRow>,
}

/// One model on one dataset.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Evaluation {
    /// Name of the model.
    pub model: String,
    /// Whether it was evaluated as one that was not fine-tuned.
    pub zero_shot: bool,
    /// Name of the dataset.
    pub dataset: String,
    /// What decided the answers besides the questions, if there are answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<AnswerSettings>,
    /// What distances were measured with, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distances: Option<DistanceSettings>,
    /// Questions per call of the model.
    pub batch_size: usize,
    /// Whether a reported set selected the model's weights while it was trained.
    pub selected_on_reported: bool,
    /// How much of the dataset was evaluated, where that was not the whole or the dataset is another one than its row says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portion: Option<Portion>,
    /// Accuracy, if the dataset has references.
    #[serde(flatten)]
    pub summary: Option<Summary>,
    /// The dataset's own measures beside accuracy.
    pub measures: Vec<Measurement>,
    /// How far the dataset has shifted in each modality, where that was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shifts: Vec<ModalityShift>,
    /// How the run went.
    pub pace: Pace,
}

/// Evaluates every model of the plan on every dataset.
///
/// # Errors
///
/// See [`Error`]: input errors name the model, the dataset and the record. Answers given before an error stay in the
/// store, and the same plan goes on from there.
pub fn evaluate(plan: &Plan, runtime: &Runtime, on_event: &mut dyn FnMut(&str, Event)) -> Result<Vec<Evaluation>> {
    check_names(plan)?;
    let links = measuring::links(plan)?;
    let encoders =
        plan.encoders.iter().map(|source| EncoderCheckpoint::open(&source.folder)).collect::<Result<Vec<_>>>()?;
    let open = |model: &PlannedModel| Checkpoint::open_on(&model.source.folder, model.source.base.as_deref());
    let checkpoints = plan.models.iter().map(open).collect::<Result<Vec<_>>>()?;
    if let Some(folder) = plan.shift.as_ref().and_then(|shift| shift.features_output.as_deref()) {
        if plan.models.len() + plan.encoders.len() > 1 {
            return Err(Error::input("features of several models would have the same files")
                .hint("write those of one model at a time"));
        }
        prepare_folder(folder, "--features-output")?;
    }
    let mut folders = Vec::new();
    for (checkpoint, model) in checkpoints.iter().zip(&plan.models) {
        check_dtype(plan.device, dtype_of(plan, checkpoint))?;
        folders.push(output_folder(plan, &model.source.name)?);
    }
    let mut store = Store::open(&plan.store)?;
    let mut evaluations = Vec::new();
    for ((checkpoint, folder), model) in checkpoints.iter().zip(&folders).zip(&plan.models) {
        let subject = (checkpoint, model, folder.as_deref());
        let mut report = |event: Event| on_event(&model.source.name, event);
        evaluations.extend(evaluate_model(plan, runtime, subject, &links, &mut store, &mut report)?);
    }
    for (encoder, source) in encoders.iter().zip(&plan.encoders) {
        let mut report = |event: Event| on_event(&source.name, event);
        let loaded = load_encoder(plan, runtime, encoder, &mut store)
            .map_err(|error| error.within(format!("cannot load the encoder `{}`", source.folder.display())))?;
        let named = Named {
            name: &source.name,
            training: None,
            zero_shot: false,
            selected_on_reported: false,
            folder: None,
            distances: None,
        };
        evaluations.extend(evaluate_loaded(plan, runtime, (named, loaded), &links, &mut store, &mut report)?);
    }
    Ok(evaluations)
}

/// What results are told of.
pub(super) struct Named<'a> {
    name: &'a str,
    /// Settings of the run that trained the model.
    training: Option<String>,
    zero_shot: bool,
    selected_on_reported: bool,
    /// Folder of the results files.
    folder: Option<&'a Path>,
    /// What distances are measured with, once that is known.
    distances: Option<DistanceSettings>,
}

fn evaluate_model(
    plan: &Plan,
    runtime: &Runtime,
    (checkpoint, model, folder): (&Checkpoint, &PlannedModel, Option<&Path>),
    links: &[Link],
    store: &mut Store,
    on_event: &mut dyn FnMut(Event),
) -> Result<Vec<Evaluation>> {
    let within = |error: Error| error.within(format!("cannot load the model `{}`", checkpoint.folder.display()));
    let loaded = load_model(plan, runtime, (checkpoint, model), store, on_event).map_err(within)?;
    let named = named(checkpoint, model, folder);
    evaluate_loaded(plan, runtime, (named, loaded), links, store, on_event)
}

pub(super) fn named<'a>(checkpoint: &Checkpoint, model: &'a PlannedModel, folder: Option<&'a Path>) -> Named<'a> {
    Named {
        name: &model.source.name,
        training: training_settings(&checkpoint.folder).map(|settings| settings.to_string()),
        zero_shot: model.zero_shot,
        selected_on_reported: selected_on_reported(&checkpoint.folder),
        folder,
        distances: None,
    }
}

fn evaluate_loaded<S: Subject>(
    plan: &Plan,
    runtime: &Runtime,
    (mut named, mut loaded): (Named, Loaded<S>),
    links: &[Link],
    store: &mut Store,
    on_event: &mut dyn FnMut(Event),
) -> Result<Vec<Evaluation>> {
    let measuring = plan.shift.as_ref().map(|shift| loaded.measuring(plan, shift, runtime, store, on_event));
    let measuring = measuring.transpose()?;
    named.distances = measuring.as_ref().map(|measuring| measuring.settings().clone());
    let mut found = Vec::new();
    for planned in &plan.datasets {
        if let Some(settings) = loaded.answers {
            store.record_questions(settings, &question_set(&planned.dataset))?;
        }
        let pace = loaded.find_out(plan, runtime, (&planned.dataset, measuring.as_ref()), store, on_event)?;
        found.push(Found::collect(&named, store, (loaded.answers, measuring.as_ref()), &planned.dataset, pace)?);
    }
    let paces: Vec<Pace> = found.iter().map(|one| one.pace).collect();
    record(plan, store, (&named, &loaded), (measuring.as_ref(), &paces))?;
    evaluations(plan, &named, &loaded, links, found)
}

/// Records under which settings the results of a model are filed.
pub(super) fn record<S>(
    plan: &Plan,
    store: &mut Store,
    (named, loaded): (&Named, &Loaded<S>),
    (measuring, paces): (Option<&Measuring>, &[Pace]),
) -> Result<()> {
    let computed = paces.iter().any(|pace| pace.answered + pace.measured > 0);
    let mut model = StoredModel {
        name: named.name.to_owned(),
        weights: format!("{} {}", loaded.settings.weights, loaded.settings.configuration),
        training: named.training.clone(),
        made_by: Some(plan.maker.clone()),
        zero_shot: named.zero_shot,
        selected_on_reported: named.selected_on_reported,
        answers: loaded.answers,
        distances: measuring.map(Measuring::id),
    };
    if !computed {
        // Results that were all there keep what made them.
        let same = |known: &StoredModel| {
            let answers = model.answers.is_none() || model.answers == known.answers;
            let distances = model.distances.is_none() || model.distances == known.distances;
            known.name == model.name && known.weights == model.weights && answers && distances
        };
        let known = store.models()?.into_iter().find(same);
        model.made_by = known.and_then(|known| known.made_by).or(model.made_by);
    }
    store.record_model(&model)
}

/// What was found out about a dataset.
struct Found {
    answers: Option<Answers>,
    shifts: Vec<ModalityShift>,
    pace: Pace,
}

impl Found {
    /// Reads it back from the store and writes the results file.
    fn collect(
        named: &Named,
        store: &Store,
        (answers, measuring): (Option<SettingsId>, Option<&Measuring>),
        dataset: &Dataset,
        pace: Pace,
    ) -> Result<Self> {
        let answers = answers.map(|id| Answers::collect(store, id, dataset)).transpose()?;
        if let (Some(folder), Some(answers)) = (named.folder, &answers) {
            write_results(folder, dataset, &answers.texts())?;
        }
        let shifts = measuring.map_or_else(|| Ok(Vec::new()), |measuring| measuring.shifts(store, dataset))?;
        Ok(Self { answers, shifts, pace })
    }
}

fn evaluations<S>(
    plan: &Plan,
    named: &Named,
    loaded: &Loaded<S>,
    links: &[Link],
    found: Vec<Found>,
) -> Result<Vec<Evaluation>> {
    let texts: Vec<Vec<&str>> =
        found.iter().map(|found| found.answers.as_ref().map_or_else(Vec::new, Answers::texts)).collect();
    let answered: Vec<Answered> =
        plan.datasets.iter().zip(&texts).map(|(planned, answers)| Answered { planned, answers }).collect();
    let mut evaluations = Vec::new();
    for (position, planned) in plan.datasets.iter().enumerate() {
        let (summary, measures) = match found[position].answers {
            Some(_) => scored(&answered, position, &links[position])?,
            None => (None, Vec::new()),
        };
        evaluations.push(Evaluation {
            model: named.name.to_owned(),
            zero_shot: named.zero_shot,
            dataset: planned.dataset.name.clone(),
            settings: loaded.answers.map(|_| loaded.settings.clone()),
            distances: named.distances.clone(),
            batch_size: loaded.batch_size,
            selected_on_reported: named.selected_on_reported,
            portion: planned.dataset.portion(),
            summary,
            measures,
            shifts: found[position].shifts.clone(),
            pace: found[position].pace,
        });
    }
    Ok(evaluations)
}

/// What a store records of the questions that are asked.
pub(super) fn question_set(dataset: &Dataset) -> QuestionSet {
    QuestionSet { dataset: dataset.name.clone(), digest: question_digest(dataset), n: dataset.questions.len() }
}

/// The answers to a dataset's questions, in their order. Equal texts are kept once.
#[derive(Debug, Default)]
pub struct Answers {
    texts: Vec<Box<str>>,
    of_question: Vec<u32>,
}

impl Answers {
    pub(super) fn collect(store: &Store, settings: SettingsId, dataset: &Dataset) -> Result<Self> {
        let mut known: HashMap<Box<str>, u32> = HashMap::new();
        let mut answers = Self { texts: Vec::new(), of_question: Vec::with_capacity(dataset.questions.len()) };
        for question in &dataset.questions {
            let (question_id, image_id) = question.key();
            let lacks = |what: &str| {
                let about = format!("question {question_id} about image {image_id} of `{}`", dataset.name);
                Error::incomplete(format!("{about} {what}"))
                    .hint("run the same `digrap-bench vqa` again: it goes on where it stopped")
            };
            let stored = store.answer(settings, &dataset.name, &question_id, &image_id)?;
            let (content, text) = stored.ok_or_else(|| lacks("has no answer"))?;
            if !Fingerprint::is_of_text(content, question) {
                return Err(lacks("was answered when it had another text"));
            }
            let text: Box<str> = text.into();
            let number = match known.get(&text) {
                Some(number) => *number,
                None => {
                    let number = answers.texts.len() as u32;
                    answers.texts.push(text.clone());
                    known.insert(text, number);
                    number
                }
            };
            answers.of_question.push(number);
        }
        Ok(answers)
    }

    /// As the model gave them, question by question.
    pub fn texts(&self) -> Vec<&str> {
        self.of_question.iter().map(|text| &*self.texts[*text as usize]).collect()
    }
}

/// Accuracy and measures of the dataset at `position`, if it has references.
fn scored(answered: &[Answered], position: usize, link: &Link) -> Result<(Option<Summary>, Vec<Measurement>)> {
    let Answered { planned, answers } = answered[position];
    let Some(references) = &planned.dataset.references else { return Ok((None, Vec::new())) };
    let scores = score(planned.metric, ScoreOptions::default(), answers, references)?;
    let summary = summarise(planned.metric, &scores, references, &planned.dataset.clusters())?;
    Ok((Some(summary), measuring::measure(answered, position, link, &scores)?))
}

pub(super) fn write_results(folder: &Path, dataset: &Dataset, answers: &[&str]) -> Result<()> {
    let mut writer = results::Writer::create(&folder.join(format!("{}.results.json", dataset.name)), dataset)?;
    for (question, answer) in dataset.questions.iter().zip(answers) {
        writer.write(question, answer)?;
    }
    writer.finish()
}

/// Folder of a model's results files: the output folder itself, or one below it where there are several models.
fn output_folder(plan: &Plan, model: &str) -> Result<Option<PathBuf>> {
    let Some(output) = &plan.output else { return Ok(None) };
    let folder = if plan.models.len() == 1 { output.clone() } else { output.join(model) };
    prepare_folder(&folder, "--output")?;
    Ok(Some(folder))
}

/// Makes sure that files can be written to a folder, which an argument has named.
///
/// # Errors
/// It cannot be made, or nothing can be written to it; the next step is to give another one by the argument.
pub fn prepare_folder(folder: &Path, argument: &str) -> Result<()> {
    let unwritable = |cause: std::io::Error| {
        Error::input(format!("cannot write to the output folder `{}`", folder.display()))
            .caused_by(cause)
            .hint(format!("choose another folder with {argument}"))
    };
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    tempfile::tempfile_in(folder).map_err(unwritable)?;
    Ok(())
}

/// Models and datasets are told apart by name, in tables and in the output folder.
pub(super) fn check_names(plan: &Plan) -> Result<()> {
    let encoders = plan.encoders.iter().map(|source| ("model", source.name.clone()));
    let models = plan.models.iter().map(|model| ("model", model.source.name.clone())).chain(encoders);
    let datasets = plan.datasets.iter().map(|planned| ("dataset", planned.dataset.name.clone()));
    let mut seen = HashSet::new();
    for named in models.chain(datasets) {
        if !seen.insert(named.clone()) {
            let (kind, name) = named;
            return Err(Error::input(format!("two {kind}s are named `{name}`"))
                .hint("give each one once, or evaluate them in runs of their own"));
        }
    }
    Ok(())
}
