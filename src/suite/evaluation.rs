//! A validated plan and its execution: every model on every dataset.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::answering::{Answering, Event, Pace, answer_all};
use super::measuring::{self, Answered, Link};
use super::training::selected_on_reported;
use crate::data::image::stamp;
use crate::data::{Dataset, DatasetRow, Portion, results};
use crate::error::{Error, Result};
use crate::model::decoding::Decoding;
use crate::model::text::Prompt;
use crate::model::training::Trained;
use crate::model::weights::Placement;
use crate::model::{Checkpoint, Loading, Model, hex};
use crate::runtime::{Device, Runtime, SessionOptions, Sharing};
use crate::score::{Measurement, Metric, ScoreOptions, Summary, score, summarise};
use crate::store::{AnswerSettings, SettingsId, Store};
use crate::tensor::DType;

/// Models whose weights take up to this many bytes in the compute dtype run as replicas, one per thread, each with a
/// rearranged copy of the weights; of larger ones there is one, whose operators use all threads and whose weights stay
/// in the mapped file. The size alone decides, so that equal runs on different machines compute alike.
const REPLICA_LIMIT: u64 = 256 << 20;

/// Upper bound of the rearranged weights of all replicas. Their number changes no answer.
const REPLICAS_LIMIT: u64 = 4 << 30;

/// Batch sizes that are chosen where none is given, for models below and above the limit.
const BATCH_SIZES: [usize; 2] = [64, 16];

/// What to evaluate and how. Everything is checked before the first question is asked.
pub struct Plan {
    /// The models.
    pub models: Vec<PlannedModel>,
    /// Datasets, loaded.
    pub datasets: Vec<PlannedDataset>,
    /// Number of questions that are asked of each dataset, from the first on; none where all are.
    pub limit: Option<usize>,
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
    /// What decided the answers besides the questions.
    pub settings: AnswerSettings,
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
    let open = |model: &PlannedModel| Checkpoint::open_on(&model.source.folder, model.source.base.as_deref());
    let checkpoints = plan.models.iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut folders = Vec::new();
    for (checkpoint, model) in checkpoints.iter().zip(&plan.models) {
        check_dtype(plan.device, dtype_of(plan, checkpoint))?;
        folders.push(output_folder(plan, &model.source.name)?);
    }
    let mut store = Store::open(&plan.store)?;
    let mut evaluations = Vec::new();
    for ((checkpoint, folder), model) in checkpoints.iter().zip(&folders).zip(&plan.models) {
        let name = &model.source.name;
        let mut loaded =
            LoadedModel::new(plan, runtime, (checkpoint, model), &mut store, &mut |event| on_event(name, event))
                .map_err(|error| error.within(format!("cannot load the model `{}`", checkpoint.folder.display())))?;
        let mut answers = Vec::new();
        for planned in &plan.datasets {
            let mut report = |event: Event| on_event(name, event);
            let pace = loaded.answer(plan, runtime, &planned.dataset, &mut store, &mut report)?;
            let collected = collect(&store, loaded.id, &planned.dataset)?;
            if let Some(folder) = folder {
                write_results(folder, &planned.dataset, &collected.texts())?;
            }
            answers.push((collected, pace));
        }
        let texts: Vec<Vec<&str>> = answers.iter().map(|(collected, _)| collected.texts()).collect();
        let answered: Vec<Answered> =
            plan.datasets.iter().zip(&texts).map(|(planned, answers)| Answered { planned, answers }).collect();
        for (position, planned) in plan.datasets.iter().enumerate() {
            let (summary, measures) = scored(&answered, position, &links[position])?;
            evaluations.push(Evaluation {
                model: name.clone(),
                zero_shot: model.zero_shot,
                dataset: planned.dataset.name.clone(),
                settings: loaded.settings.clone(),
                batch_size: loaded.batch_size,
                selected_on_reported: selected_on_reported(&checkpoint.folder),
                portion: planned.dataset.portion(),
                summary,
                measures,
                pace: answers[position].1,
            });
        }
    }
    Ok(evaluations)
}

/// How a checkpoint is run.
pub(super) struct Execution {
    pub dtype: DType,
    pub sharing: Sharing,
    pub replicas: usize,
    pub batch_size: usize,
}

impl Execution {
    fn of(plan: &Plan, checkpoint: &Checkpoint) -> Self {
        let dtype = dtype_of(plan, checkpoint);
        let chosen = Self::chosen(plan.device, dtype, plan.threads, checkpoint);
        Self { batch_size: plan.batch_size.unwrap_or(chosen.batch_size), ..chosen }
    }

    /// What the size of the checkpoint asks for.
    pub(super) fn chosen(device: Device, dtype: DType, threads: usize, checkpoint: &Checkpoint) -> Self {
        let bytes = checkpoint.weights.size() / checkpoint.weights.dtype().size() as u64 * dtype.size() as u64;
        let small = bytes <= REPLICA_LIMIT;
        let (sharing, replicas) = match device {
            Device::Cpu if small => (Sharing::Replicas, threads.min((REPLICAS_LIMIT / bytes.max(1)) as usize)),
            _ => (Sharing::Operators, 1),
        };
        let batch_size = BATCH_SIZES[usize::from(!small)];
        Self { dtype, sharing, replicas, batch_size }
    }
}

/// A model and the settings its answers are filed under.
struct LoadedModel {
    /// As many as there are threads, or one whose operators use all threads.
    replicas: Vec<Model>,
    settings: AnswerSettings,
    id: SettingsId,
    prompt: &'static Prompt,
    batch_size: usize,
}

impl LoadedModel {
    fn new(
        plan: &Plan,
        runtime: &Runtime,
        (checkpoint, planned): (&Checkpoint, &PlannedModel),
        store: &mut Store,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let execution = Execution::of(plan, checkpoint);
        let total = checkpoint.weights.size();
        let mut tell = |event| {
            if total > REPLICA_LIMIT {
                on_event(event);
            }
        };
        let mut on_converted = |done| tell(Event::Converted { done, total });
        let placement = Placement::new(&checkpoint.weights, execution.dtype, &plan.scratch, &mut on_converted)?;
        let session = SessionOptions { device: plan.device, sharing: execution.sharing };
        let loading = Loading { session, replicas: execution.replicas, features: None };
        let replicas = Model::load(checkpoint, placement, &Trained::default(), runtime, &loading)?;
        let model = replicas.first().ok_or_else(|| Error::internal("no replica of the model was made"))?;
        model.check_decoding(&plan.decoding)?;
        let mut done = 0;
        let weights = weights_digest(checkpoint, store, &mut |bytes| {
            done += bytes;
            tell(Event::Hashed { done, total });
        })?;
        let configuration = checkpoint.configuration_digest()?;
        let prompt = planned.prompt;
        let settings = settings(plan, runtime, &execution, (model, prompt), [weights, configuration]);
        let id = store.settings(&settings)?;
        Ok(Self { replicas, settings, id, prompt, batch_size: execution.batch_size })
    }

    fn answer(
        &mut self,
        plan: &Plan,
        runtime: &Runtime,
        dataset: &Dataset,
        store: &mut Store,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Pace> {
        let answering = Answering {
            dataset,
            prompt: self.prompt,
            decoding: plan.decoding,
            batch_size: self.batch_size,
            threads: plan.threads,
        };
        answer_all(&answering, &mut self.replicas, runtime.activity(), (store, self.id), on_event)
    }
}

/// What decides an answer besides the question and the image.
fn settings(
    plan: &Plan,
    runtime: &Runtime,
    execution: &Execution,
    (model, prompt): (&Model, &Prompt),
    [weights, configuration]: [String; 2],
) -> AnswerSettings {
    let provider = match (plan.device, execution.sharing) {
        (Device::Cpu, Sharing::Replicas) => "cpu",
        (Device::Cpu, Sharing::Operators | Sharing::Training { .. } | Sharing::Updates { .. }) => "cpu, shared weights",
        (Device::Cuda(_), _) => "cuda",
    };
    AnswerSettings {
        weights,
        configuration,
        tokenizer: model.text().digest().to_owned(),
        prompt: prompt.template.to_owned(),
        decoding: plan.decoding.strategy.to_string(),
        max_new_tokens: plan.decoding.max_new_tokens,
        dtype: execution.dtype.name().to_owned(),
        provider: provider.to_owned(),
        runtime_version: runtime.info.version.clone(),
        preprocessing: model.images().describe(),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The answers to a dataset's questions, in their order. Equal texts are kept once.
struct Answers {
    texts: Vec<Box<str>>,
    of_question: Vec<u32>,
}

impl Answers {
    fn texts(&self) -> Vec<&str> {
        self.of_question.iter().map(|text| &*self.texts[*text as usize]).collect()
    }
}

fn collect(store: &Store, settings: SettingsId, dataset: &Dataset) -> Result<Answers> {
    let mut known: HashMap<Box<str>, u32> = HashMap::new();
    let mut answers = Answers { texts: Vec::new(), of_question: Vec::with_capacity(dataset.questions.len()) };
    for question in &dataset.questions {
        let (question_id, image_id) = question.key();
        let (_, text) = store.answer(settings, &dataset.name, &question_id, &image_id)?.ok_or_else(|| {
            Error::incomplete(format!(
                "question {question_id} about image {image_id} of `{}` has no answer",
                dataset.name
            ))
        })?;
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

/// Accuracy and measures of the dataset at `position`, if it has references.
fn scored(answered: &[Answered], position: usize, link: &Link) -> Result<(Option<Summary>, Vec<Measurement>)> {
    let Answered { planned, answers } = answered[position];
    let Some(references) = &planned.dataset.references else { return Ok((None, Vec::new())) };
    let scores = score(planned.metric, ScoreOptions::default(), answers, references)?;
    let summary = summarise(planned.metric, &scores, references, &planned.dataset.clusters())?;
    Ok((Some(summary), measuring::measure(answered, position, link, &scores)?))
}

fn write_results(folder: &Path, dataset: &Dataset, answers: &[&str]) -> Result<()> {
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
    let unwritable = |cause: std::io::Error| {
        Error::input(format!("cannot write to the output folder `{}`", folder.display()))
            .caused_by(cause)
            .hint("choose another folder with --output")
    };
    std::fs::create_dir_all(&folder).map_err(unwritable)?;
    tempfile::tempfile_in(&folder).map_err(unwritable)?;
    Ok(Some(folder))
}

/// Models and datasets are told apart by name, in tables and in the output folder.
fn check_names(plan: &Plan) -> Result<()> {
    let models = plan.models.iter().map(|model| ("model", model.source.name.clone()));
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

fn dtype_of(plan: &Plan, checkpoint: &Checkpoint) -> DType {
    let stored = checkpoint.dtype();
    plan.dtype.unwrap_or(if plan.device == Device::Cpu { DType::F32 } else { stored })
}

fn check_dtype(device: Device, dtype: DType) -> Result<()> {
    match (device, dtype) {
        (Device::Cpu, DType::BF16) => Err(Error::input("ONNX Runtime has no bf16 matrix product on the CPU")
            .hint("use --dtype f32, or --device cuda")),
        _ => Ok(()),
    }
}

/// SHA-256 of the weights: that of the file, or over those of all files. Each is remembered by the store as long as size
/// and time of the file stay.
pub(super) fn weights_digest(
    checkpoint: &Checkpoint,
    store: &mut Store,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<String> {
    let mut digests = Vec::new();
    for (index, file) in checkpoint.weights.files().enumerate() {
        let stamp = stamp(file)?;
        let path = std::path::absolute(file)
            .map_err(|cause| Error::input(format!("`{}` cannot name a file", file.display())).caused_by(cause))?;
        digests.push(match store.digest(&path, stamp.size, stamp.modified_ns)? {
            Some(known) => known,
            None => {
                let digest = checkpoint.weights.digest(index, on_bytes);
                store.remember_digest(&path, stamp.size, stamp.modified_ns, &digest)?;
                digest
            }
        });
    }
    Ok(match digests.as_slice() {
        [only] => only.clone(),
        several => hex(&Sha256::digest(several.join("\n"))),
    })
}
