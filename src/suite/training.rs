//! Fine-tuning on a dataset: questions become batches, held-out images select the checkpoint, the result is a model
//! folder.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::answering::{Answering, answers};
use super::evaluation::{Execution, PlannedDataset, weights_digest};
use super::sampling::{Sampler, Sampling, split_by_image};
use crate::data::image::decode;
use crate::data::{Dataset, Question};
use crate::error::{Error, Result};
use crate::model::adapter::Adapter;
use crate::model::decoding::{Decoding, Strategy};
use crate::model::initialisation::initialise;
use crate::model::text::{Prompt, TextProcessor};
use crate::model::training::{Collation, Example, Lora, Parameters, Trained, TrainedTensor};
use crate::model::vision::ImageProcessor;
use crate::model::weights::{ConvertedWeights, Placement};
use crate::model::{Checkpoint, Model, TrainedValues, adapter, hex, saving};
use crate::random::Random;
use crate::runtime::{Device, Runtime, SessionOptions, Sharing};
use crate::score::{ScoreOptions, score, summarise};
use crate::store::{CurvePoint, Store, TrainingRunId};
use crate::tensor::{DType, Tensor};
use crate::train::{self, Batch, Batches, Optimizer, Schedule, Settings};

/// Upper bound of the tokens of an answer in validation.
const VALIDATION_TOKENS: usize = 20;

/// Questions per call in validation; it changes no answer in f32.
const VALIDATION_BATCH: usize = 64;

/// Folder within a run's folder of the random weights that it starts from.
const START: &str = "start";

/// Folder within a run's folder in which the model is made.
const MODEL: &str = ".model";

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

impl Validation {
    /// Its name in the records of a run.
    fn name(&self) -> &'static str {
        match self {
            Self::HeldOut(_) => "held-out",
            Self::Reported(_) => "reported",
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
    let checkpoint = Checkpoint::open(&start_folder(plan)?)?;
    let mut store = Store::open(&plan.store)?;
    let subject = Subject::new(plan, &checkpoint, runtime, &mut store)?;
    let trained = Trained { parameters: plan.parameters.clone(), adapter: plan.lora.clone() };
    // The session of the loop maps converted weights when it is made, which the loop does.
    let (task, collation, _converted) = task(plan, &checkpoint, &trained)?;
    let mut replicas = replicas(plan, &checkpoint, &trained, runtime)?;
    let first = replicas.first().ok_or_else(|| Error::internal("no replica of the model was made"))?;
    let training = plan.questions.dataset.select(&subject.training);
    let source = QuestionBatches::new(plan, &training, first, collation)?;
    let settings = settings(plan, &source.sampler, &subject);
    let run_id = store.training_run(&subject.json(&settings).to_string())?;
    let trained_parameters = task.parameters.iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>()).sum();
    let mut curves = Curves { store, run: run_id, points: Vec::new(), failed: None };
    let execution = Execution::chosen(plan.device, plan.dtype, plan.threads, &checkpoint);
    let sharing = Sharing::Training { threads: plan.threads, mapped: execution.sharing == Sharing::Operators };
    let options = SessionOptions { device: plan.device, sharing };
    let run = train::Run { runtime, options: &options, settings: &settings, batches: &source, folder: &plan.output };
    let mut validate = |_, parameters: &train::Parameters| validate(plan, &subject, &mut replicas, parameters);
    let outcome = train::train(&run, task, &mut validate, &mut |event| {
        curves.take(&event);
        on_event(event);
    })?;
    curves.flush()?;
    write_model(plan, &checkpoint, outcome.parameters)?;
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

/// The folder of the weights to start from; random ones are drawn from the seed on first use and kept in the run's folder.
fn start_folder(plan: &TrainingPlan) -> Result<PathBuf> {
    if !plan.from_scratch {
        return Ok(plan.model.clone());
    }
    let folder = plan.output.join(START);
    if !folder.join("config.json").is_file() {
        let tensors = initialise(&plan.model, plan.seed)?;
        saving::save_new(&plan.model, &tensors, &folder, &mut |_| ())?;
    }
    Ok(folder)
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
            ("configuration", json!(checkpoint.configuration_digest()?)),
            ("dataset", json!(dataset.name)),
            ("questions", json!(question_digest(dataset))),
            ("validation", json!(plan.validation.name())),
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

    fn json(&self, settings: &Settings) -> Value {
        let mut facts = self.facts.clone();
        facts.insert("method".to_owned(), json!(settings.method.name));
        facts.insert("learning_rate".to_owned(), json!(settings.learning_rate));
        facts.insert("steps".to_owned(), json!(settings.steps));
        Value::Object(facts)
    }
}

/// SHA-256 over identifiers, texts and answers of all questions.
fn question_digest(dataset: &Dataset) -> String {
    let mut hash = Sha256::new();
    for (index, question) in dataset.questions.iter().enumerate() {
        let (question_id, image_id) = question.key();
        let answers = dataset.references.iter().flat_map(|references| references.answers(index));
        let answers: Vec<&str> = answers.map(|answer| answer.text).collect();
        hash.update(json!([question_id, image_id, question.text, answers]).to_string());
    }
    hex(&hash.finalize())
}

fn settings(plan: &TrainingPlan, sampler: &Sampler, subject: &Subject) -> Settings {
    let steps_per_epoch = sampler.batches_per_epoch().div_ceil(plan.accumulation);
    let steps = match plan.length {
        Length::Epochs(epochs) => epochs * steps_per_epoch,
        Length::Steps(steps) => steps,
    };
    Settings {
        subject: subject.facts.clone(),
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

/// Refuses a choice that selects nothing.
fn check_selection(plan: &TrainingPlan, checkpoint: &Checkpoint, trained: &[TrainedTensor]) -> Result<()> {
    if let Some(lora) = &plan.lora {
        adapter::select(&lora.targets, &checkpoint.linear_layers())?;
    }
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
fn write_model(plan: &TrainingPlan, checkpoint: &Checkpoint, parameters: Vec<(String, Tensor)>) -> Result<()> {
    let folder = plan.output.join(MODEL);
    let tensors: BTreeMap<String, Tensor> = parameters.into_iter().collect();
    match &plan.lora {
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
    names.sort_by_key(|name| name == "config.json" || name == "adapter_config.json");
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
    /// The first failure of the store, which ends the run at the next chance.
    failed: Option<Error>,
}

impl Curves {
    fn take(&mut self, event: &train::Event) {
        let point = |series: &str, step, value| CurvePoint { series: series.to_owned(), step, value };
        match event {
            train::Event::Stepped(progress) => self.points.extend([
                point("loss", progress.step, progress.loss),
                point("learning_rate", progress.step, progress.learning_rate),
                point("gradient_norm", progress.step, progress.gradient_norm),
            ]),
            train::Event::Validated { step, score, .. } => self.points.push(point("validation", *step, *score)),
            _ => {}
        }
        let due = matches!(event, train::Event::Validated { .. } | train::Event::Saved { .. });
        if (due || self.points.len() >= POINTS) && self.failed.is_none() {
            self.failed = self.flush().err();
        }
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.store.record_curve(self.run, &self.points)?;
        self.points.clear();
        Ok(())
    }
}

/// Batches of training questions.
struct QuestionBatches<'a> {
    plan: &'a TrainingPlan,
    dataset: &'a Dataset,
    sampler: Sampler,
    text: Arc<TextProcessor>,
    images: Arc<ImageProcessor>,
    collation: Collation,
    /// Tokens of each question's answer.
    answers: Vec<Arc<[u32]>>,
}

impl<'a> QuestionBatches<'a> {
    fn new(plan: &'a TrainingPlan, dataset: &'a Dataset, model: &Model, collation: Collation) -> Result<Self> {
        let sampler = Sampler::new(dataset, &plan.sampling, plan.seed, plan.batch_size, plan.accumulation)?;
        let answers = encoded_answers(dataset, model)?;
        for question in &dataset.questions {
            dataset.images.path(&question.image_id).map_err(|error| untrainable(dataset, question, error))?;
        }
        let (text, images) = (Arc::clone(model.text()), Arc::clone(model.images()));
        Ok(Self { plan, dataset, sampler, text, images, collation, answers })
    }

    /// Prompt and answer of a question about the image in row `image`.
    fn example(&self, position: usize, image: usize) -> Result<Example> {
        let question = &self.dataset.questions[position];
        let prompt = self.text.encode(&self.plan.prompt.fill(&question.text));
        let prompt = prompt.map_err(|error| untrainable(self.dataset, question, error))?;
        Ok(Example { prompt, answer: self.answers[position].to_vec(), image })
    }

    fn append_pixels(&self, position: usize, pixels: &mut Vec<f32>) -> Result<()> {
        let question = &self.dataset.questions[position];
        let within = |error: Error| untrainable(self.dataset, question, error);
        let image = self.dataset.images.path(&question.image_id).and_then(|path| decode(&path)).map_err(within)?;
        let start = pixels.len();
        pixels.resize(start + self.images.output_len(), 0.0);
        self.images.process(&image, &mut pixels[start..]).map_err(within)
    }
}

impl Batches for QuestionBatches<'_> {
    fn batch(&self, micro_step: u64) -> Result<Batch> {
        let positions = self.sampler.batch(micro_step);
        let (mut pixels, mut rows, mut examples) = (Vec::new(), HashMap::new(), Vec::with_capacity(positions.len()));
        for position in &positions {
            let image_id = &self.dataset.questions[*position].image_id;
            let next = rows.len();
            let row = *rows.entry(image_id).or_insert(next);
            if row == next {
                self.append_pixels(*position, &mut pixels)?;
            }
            examples.push(self.example(*position, row)?);
        }
        let (height, width) = self.images.size();
        let channels = self.images.output_len() / (height * width);
        let pixels = Tensor::new([rows.len(), channels, height, width], pixels)?;
        let seed = Random::new(self.plan.seed).name("dropout").bits(micro_step);
        let (inputs, count) = self.collation.batch(&examples, pixels, seed)?;
        let ids = positions.iter().map(|position| self.dataset.questions[*position].question_id.to_string()).collect();
        Ok(Batch { inputs, count, samples: positions.len(), ids })
    }
}

/// Tokens of the answer to learn for each question: the most frequent one of its human answers, the first of several.
fn encoded_answers(dataset: &Dataset, model: &Model) -> Result<Vec<Arc<[u32]>>> {
    let references = dataset.references.as_ref().ok_or_else(|| {
        Error::input(format!("`{}` has no answers to train on", dataset.name)).hint("give an annotation file")
    })?;
    let mut known: HashMap<&str, Arc<[u32]>> = HashMap::new();
    let mut encoded = Vec::with_capacity(dataset.questions.len());
    for (position, question) in dataset.questions.iter().enumerate() {
        let answer = most_frequent(references.answers(position).map(|answer| answer.text));
        let answer = answer.ok_or_else(|| untrainable(dataset, question, Error::input("it has no answer")))?;
        let tokens = match known.get(answer) {
            Some(tokens) => Arc::clone(tokens),
            None => {
                let tokens: Arc<[u32]> =
                    model.encode_answer(answer).map_err(|error| untrainable(dataset, question, error))?.into();
                known.insert(answer, Arc::clone(&tokens));
                tokens
            }
        };
        encoded.push(tokens);
    }
    Ok(encoded)
}

fn most_frequent<'a>(answers: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for answer in answers {
        match counts.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, count)) => *count += 1,
            None => counts.push((answer, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(answer, _)| answer)
}

fn untrainable(dataset: &Dataset, question: &Question, error: Error) -> Error {
    error.within(format!("question {} of `{}` cannot be trained on", question.question_id, dataset.name))
}
