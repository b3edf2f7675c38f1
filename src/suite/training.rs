//! Fine-tuning on a dataset: questions become batches, held-out images select the checkpoint, the result is a model
//! folder.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::answering::answers;
use super::batches::QuestionBatches;
use super::curves::Curves;
use super::loading::Execution;
use super::pipeline::Pass;
use super::plan::{Length, REPORTED, TrainingPlan};
use super::sampling::{Sampler, Sampling};
use super::subject::{Subject, write_whole};
use super::task::{Prepared, adapted, check_trained};
use crate::error::{Error, Result};
use crate::model::adapter::Adapter;
use crate::model::decoding::{Decoding, Strategy};
use crate::model::initialisation::initialise;
use crate::model::interpolation::{Space, interpolate};
use crate::model::training::{Parameters, Trained};
use crate::model::weights::Placement;
use crate::model::{Checkpoint, Loading, Model, TrainedValues, saving};
use crate::runtime::{DeviceTensor, Runtime, SessionOptions, Sharing};
use crate::score::{ScoreOptions, score, summarise};
use crate::store::{CurvePoint, Store};
use crate::tensor::Tensor;
use crate::train::{self, Batches, Chosen, ChosenMethod, LINEAR_PROBE, Merge, PLAIN, Parameter, Selection, Settings};

/// Upper bound of the tokens of an answer in validation.
const VALIDATION_TOKENS: usize = 20;

/// Questions per call in validation; it changes no answer in f32.
const VALIDATION_BATCH: usize = 64;

/// Folder within a run's folder of the random weights that it starts from.
const START: &str = "start";

/// Folder within a run's folder in which the model is made.
const MODEL: &str = ".model";

/// Folder of the linear probe that comes before fine-tuning.
const PROBE: &str = "linear-probe";

/// Folder of the fine-tuned model that is interpolated.
const FINE_TUNED: &str = "fine-tuned";

/// File within a run's folder that says how it ended.
pub(super) const REPORT: &str = "report.json";

/// What happens while a model is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainingEvent {
    /// A part begins, of those that are more than one.
    Begins(String),
    /// The loop tells something.
    Loop(train::Event),
}

/// The end of a run.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TrainingReport {
    /// The folder of the run, which is a model.
    pub output: PathBuf,
    /// The method.
    pub method: &'static str,
    /// Its settings.
    pub settings: BTreeMap<&'static str, Chosen>,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The seed.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// Numbers that train.
    pub trained_parameters: usize,
    /// Questions that were trained on.
    pub training_questions: usize,
    /// Questions that select the checkpoint.
    pub validation_questions: usize,
    /// SHA-256 over these.
    pub validation_digest: Option<String>,
    /// What these are.
    pub validation: &'static str,
    /// Accuracy of the model on them, in percent.
    pub accuracy: Option<f64>,
    /// Accuracy in percent of the checkpoint that was kept, and the steps before it.
    pub best: Option<(f64, u64)>,
}

/// Trains, and writes the model folder.
///
/// # Errors
///
/// Input errors before the first step for all that can be known then: files, names, answers without tokens, what has no
/// meaning with the method, a run folder of other settings. Later: a damaged image, a loss that is not finite, a full
/// disk; the last checkpoint stays.
pub fn train_model(
    plan: &TrainingPlan,
    runtime: &Runtime,
    on_event: &mut dyn FnMut(TrainingEvent),
) -> Result<TrainingReport> {
    plan.check()?;
    check_start(plan)?;
    let method = plan.method.method;
    if !method.probes_first && method.merge.is_none() {
        return train_once(plan, runtime, on_event);
    }
    claim_output(plan)?;
    check_last_phase(plan)?;
    let first = first_phase(plan)?;
    let [name, next] = match method.merge {
        Some(_) => ["fine-tuning", "interpolation with the start"],
        None => ["linear probe", "fine-tuning from its head"],
    };
    on_event(TrainingEvent::Begins(name.to_owned()));
    let done = train_once(&first, runtime, on_event)?;
    on_event(TrainingEvent::Begins(next.to_owned()));
    match method.merge {
        Some(Merge::Interpolate) => interpolate_with_start(plan, &done, runtime),
        None => {
            let second = TrainingPlan { model: first.output, from_scratch: false, ..plan.clone() };
            train_once(&second, runtime, on_event)
        }
    }
}

/// Refuses what only the last phase would find.
fn check_last_phase(plan: &TrainingPlan) -> Result<()> {
    let known = std::fs::read(plan.output.join(train::SETTINGS)).ok();
    let known: Option<Value> = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let name = plan.method.method.name;
    if let Some(other) =
        known.and_then(|known| known["method"].as_str().filter(|other| *other != name).map(str::to_owned))
    {
        return Err(Error::input(format!("the run in `{}` is of {other}, not of {name}", plan.output.display()))
            .hint("use another --output"));
    }
    if plan.from_scratch {
        return Ok(());
    }
    check_trained(plan, &Checkpoint::open_on(&plan.model, plan.base.as_deref())?)
}

/// Refuses to start from an adapter where the method trains weights of a checkpoint, or needs matrices that are new.
pub(super) fn check_start(plan: &TrainingPlan) -> Result<()> {
    let method = plan.method.method;
    let of_weights = method.probes_first || method.selection != Selection::Chosen;
    let merges = method.merge.is_some() && !plan.is_set("space", "factors");
    if plan.from_scratch
        || !(of_weights || merges)
        || Checkpoint::open_on(&plan.model, plan.base.as_deref())?.adapter.is_none()
    {
        return Ok(());
    }
    let why = if of_weights { "trains weights of a checkpoint" } else { "interpolates products of new LoRA matrices" };
    let other = if of_weights { "" } else { ", or set space=factors" };
    Err(Error::input(format!("{} {why}, and `{}` is an adapter", method.name, plan.model.display()))
        .hint(format!("merge it into its base model first: `digrap-bench export`{other}")))
}

/// The linear probe of a method that goes on from one, the plain fine-tuning of one that interpolates.
fn first_phase(plan: &TrainingPlan) -> Result<TrainingPlan> {
    let probes = plan.method.method.probes_first;
    let (method, folder) = if probes { (&LINEAR_PROBE, PROBE) } else { (&PLAIN, FINE_TUNED) };
    let mut first = TrainingPlan {
        method: ChosenMethod::new(method, &[])?,
        anchor: None,
        exclude: Vec::new(),
        output: plan.phases.join(folder),
        ..plan.clone()
    };
    if probes {
        (first.parameters, first.lora) = (Parameters::Head, None);
    }
    Ok(first)
}

/// What a run needs before its first step.
struct Stage<'a> {
    plan: &'a TrainingPlan,
    checkpoint: Checkpoint,
    subject: Subject,
    trained: Trained,
    /// Numbers that train.
    trained_parameters: usize,
    /// Models that answer the validation questions.
    replicas: Vec<Model>,
}

impl<'a> Stage<'a> {
    fn new(plan: &'a TrainingPlan, runtime: &Runtime, store: &mut Store) -> Result<(Self, Prepared)> {
        let checkpoint = Checkpoint::open_on(&start_folder(plan)?, plan.base.as_deref())?;
        let mut subject = Subject::new(plan, &checkpoint, runtime, store)?;
        let trained = Trained { parameters: plan.parameters.clone(), adapter: adapted(plan, &checkpoint)? };
        let prepared = Prepared::new(plan, &checkpoint, &trained)?;
        let replicas = replicas(plan, &checkpoint, &trained, runtime)?;
        let first = replicas.first().ok_or_else(|| Error::internal("no replica of the model was made"))?;
        subject.add_inputs(first);
        let count = |parameter: &Parameter| parameter.start.shape().iter().product::<usize>();
        let trained_parameters = prepared.task.parameters.iter().map(count).sum();
        Ok((Self { plan, checkpoint, subject, trained, trained_parameters, replicas }, prepared))
    }

    fn settings(&self, sampler: &Sampler) -> Settings {
        let (plan, steps_per_epoch) = (self.plan, sampler.steps_per_epoch());
        Settings {
            subject: self.subject.facts.clone(),
            method: plan.method.clone(),
            optimizer: plan.optimizer,
            learning_rate: plan.learning_rate,
            schedule: plan.schedule,
            steps_per_epoch,
            steps: match plan.length {
                Length::Epochs(epochs) => epochs * steps_per_epoch,
                Length::Steps(steps) => steps,
            },
            accumulation: plan.accumulation,
            clip: plan.clip,
            save_every: plan.save_every,
            workers: plan.threads,
        }
    }

    fn session_options(&self) -> SessionOptions {
        let plan = self.plan;
        let execution = Execution::chosen(plan.device, plan.dtype, plan.threads, &self.checkpoint.weights);
        let sharing = Sharing::Training { threads: plan.threads, mapped: execution.sharing == Sharing::Operators };
        SessionOptions { device: plan.device, sharing }
    }

    /// Makes the folder of the run a model: the checkpoint with the trained tensors, or an adapter beside it. `config.json`
    /// (`adapter_config.json`) comes last, so that a folder that has it is whole.
    fn write_model(&self, parameters: Vec<(String, Tensor)>) -> Result<()> {
        let Self { plan, checkpoint, .. } = self;
        let lora = self.trained.adapter.as_ref();
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
                let base =
                    std::path::absolute(&checkpoint.base_folder).unwrap_or_else(|_| checkpoint.base_folder.clone());
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

    /// Writes the report of a run that ended after so many steps.
    fn report(&self, steps: u64, accuracy: Option<f64>, best: Option<(f64, u64)>) -> Result<TrainingReport> {
        let Self { plan, subject, .. } = self;
        let report = TrainingReport {
            output: plan.output.clone(),
            method: plan.method.method.name,
            settings: plan.method.settings().clone(),
            learning_rate: plan.learning_rate,
            seed: plan.seed,
            steps,
            trained_parameters: self.trained_parameters,
            training_questions: subject.training.len(),
            validation_questions: subject.validation.as_ref().map_or(0, |set| set.dataset.questions.len()),
            validation_digest: subject.validation_digest.clone(),
            validation: plan.validation.name(),
            accuracy,
            best,
        };
        report.write()?;
        Ok(report)
    }
}

impl TrainingReport {
    /// Writes it into the folder of the run, without the name of that.
    fn write(&self) -> Result<()> {
        let path = self.output.join(REPORT);
        let mut document = serde_json::to_value(self).map_err(|cause| Error::internal("no JSON").caused_by(cause))?;
        document.as_object_mut().and_then(|fields| fields.remove("output"));
        let text = format!("{document:#}\n");
        match std::fs::read_to_string(&path) {
            Ok(known) if known == text => Ok(()),
            _ => write_whole(&path, &text),
        }
    }
}

/// One run of the loop.
fn train_once(
    plan: &TrainingPlan,
    runtime: &Runtime,
    on_event: &mut dyn FnMut(TrainingEvent),
) -> Result<TrainingReport> {
    claim_output(plan)?;
    let mut store = Store::open(&plan.store)?;
    let (mut stage, prepared) = Stage::new(plan, runtime, &mut store)?;
    let Prepared { task, collation, converted: _converted } = prepared;
    let model = stage.replicas.first().ok_or_else(|| Error::internal("no replica of the model was made"))?;
    let training = plan.questions.dataset.select(&stage.subject.training);
    let sampler = Sampler::new(&training, &plan.sampling, plan.seed, plan.batch_size, plan.accumulation)?;
    let settings = stage.settings(&sampler);
    let source = QuestionBatches::new(plan, &training, model, collation.clone(), sampler)?;
    let held_out = stage.subject.validation.as_ref().filter(|_| plan.method.method.search.is_some()).cloned();
    let validation_source = held_out.as_ref().map(|set| {
        let sampler = Sampler::new(&set.dataset, &Sampling::default(), plan.seed, plan.batch_size, 1)?;
        QuestionBatches::new(plan, &set.dataset, model, collation.without_dropout(), sampler)
    });
    let validation_source = validation_source.transpose()?;
    let run_id = store.training_run(&settings.deciding().to_string())?;
    stage.subject.record_validation_images(plan)?;
    let mut curves = Curves::new(store, run_id);
    let options = stage.session_options();
    let run = train::Run {
        runtime,
        options: &options,
        settings: &settings,
        batches: &source,
        validation_batches: validation_source.as_ref().map(|source| source as &dyn Batches),
        folder: &plan.output,
    };
    let mut validate = |_, parameters: &train::Parameters| {
        let values = parameters.iter().map(|(name, tensor)| (name.to_owned(), Arc::clone(tensor))).collect();
        validate(plan, &stage.subject, &mut stage.replicas, values)
    };
    let outcome = train::train(&run, task, &mut validate, &mut |event| {
        curves.take(&event);
        on_event(TrainingEvent::Loop(event));
    })?;
    curves.complete(&plan.output)?;
    stage.write_model(outcome.parameters)?;
    let best = outcome.best.map(|best| (best.score, best.step));
    stage.report(outcome.steps, best.map(|(score, _)| score), best)
}

/// Writes the model between the start and the fine-tuned one.
fn interpolate_with_start(plan: &TrainingPlan, tuned: &TrainingReport, runtime: &Runtime) -> Result<TrainingReport> {
    let mut store = Store::open(&plan.store)?;
    let (mut stage, prepared) = Stage::new(plan, runtime, &mut store)?;
    let training = plan.questions.dataset.select(&stage.subject.training);
    let sampler = Sampler::new(&training, &plan.sampling, plan.seed, plan.batch_size, plan.accumulation)?;
    let deciding = stage.settings(&sampler).deciding();
    train::state_settings(&plan.output, &deciding, !files_of_model(&plan.output).is_empty())?;
    let end = Checkpoint::open(&tuned.output)?;
    let space = match (&plan.lora, plan.is_set("space", "factors")) {
        (Some(_), false) => Space::Products,
        _ => Space::Tensors,
    };
    let share = plan.method.number("alpha_finetuned")?;
    let mut tensors = Vec::new();
    for Parameter { name, start, .. } in &prepared.task.parameters {
        let end = match &end.adapter {
            Some(adapter) => adapter.tensors.get(name).cloned(),
            None => Some(end.weights.values(name, start.shape())?),
        };
        let end = end.ok_or_else(|| {
            Error::input(format!("`{}` lacks the tensor `{name}`", tuned.output.display()))
                .hint("remove the folder; the same command makes it again")
        })?;
        tensors.push((name.clone(), interpolate(space, share, name, start, &end)?));
    }
    let values = tensors.iter().map(|(name, tensor)| Ok((name.clone(), Arc::new(runtime.tensor(tensor.clone())?))));
    let values = values.collect::<Result<_>>()?;
    let accuracy = validate(plan, &stage.subject, &mut stage.replicas, values)?;
    let run_id = store.training_run(&deciding.to_string())?;
    let point = |value| CurvePoint { series: "validation".to_owned(), step: tuned.steps, value };
    store.record_curve(run_id, &accuracy.map(point).into_iter().collect::<Vec<_>>())?;
    stage.write_model(tensors)?;
    stage.report(tuned.steps, accuracy, tuned.best)
}

/// Makes the folder of a run or finds it made by one.
fn claim_output(plan: &TrainingPlan) -> Result<()> {
    let folder = &plan.output;
    let merged = plan.method.method.merge.is_some() && folder.join(train::SETTINGS).is_file();
    if merged || train::has_checkpoint(folder) { Ok(()) } else { claim_empty(folder) }
}

/// Makes a folder for runs, and refuses one with a model that no run has made: a finished run would replace it.
pub(super) fn claim_empty(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|cause| {
        Error::input(format!("cannot make the run folder `{}`", folder.display()))
            .caused_by(cause)
            .hint("use another --output")
    })?;
    match files_of_model(folder).first() {
        None => Ok(()),
        Some(name) => Err(Error::input(format!(
            "`{}` holds a model (`{name}`) without a checkpoint of a run, which would replace it",
            folder.display()
        ))
        .hint("use another --output")),
    }
}

/// Names of the files in a folder that only models have.
pub(super) fn files_of_model(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let is_of_model = |name: &String| {
        ["config.json", "adapter_config.json"].contains(&name.as_str()) || name.ends_with(".safetensors")
    };
    let mut names: Vec<String> = names.filter(is_of_model).collect();
    names.sort();
    names
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
    training_settings(folder).is_some_and(|settings| settings["subject"]["validation"] == REPORTED)
}

/// The settings of the run that the folder is of, if it is one.
pub(super) fn training_settings(folder: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(folder.join(train::SETTINGS)).ok()?).ok()
}

/// Models that answer the validation questions with the parameters of the moment.
fn replicas(plan: &TrainingPlan, checkpoint: &Checkpoint, trained: &Trained, runtime: &Runtime) -> Result<Vec<Model>> {
    let mut ignore = |_| ();
    let placement = Placement::new(&checkpoint.weights, plan.dtype, &plan.scratch, &mut ignore)?;
    let execution = Execution::chosen(plan.device, plan.dtype, plan.threads, &checkpoint.weights);
    let session = SessionOptions { device: plan.device, sharing: execution.sharing };
    let loading = Loading { session, replicas: execution.replicas, features: None };
    Model::load(checkpoint, placement, trained, runtime, &loading)
}

/// Accuracy in percent on the validation questions.
fn validate(
    plan: &TrainingPlan,
    subject: &Subject,
    replicas: &mut [Model],
    values: HashMap<String, Arc<DeviceTensor>>,
) -> Result<Option<f64>> {
    let Some(set) = &subject.validation else { return Ok(None) };
    let Some(references) = &set.dataset.references else { return Ok(None) };
    let values: TrainedValues = Arc::new(values);
    for replica in replicas.iter_mut() {
        replica.set_trained(Arc::clone(&values));
    }
    let pass = Pass {
        dataset: &set.dataset,
        prompt: plan.prompt,
        answers: true,
        feature_prompt: plan.prompt,
        decoding: Decoding { strategy: Strategy::Greedy, max_new_tokens: VALIDATION_TOKENS },
        batch_size: VALIDATION_BATCH,
        threads: plan.threads,
    };
    let answers = answers(&pass, replicas)?;
    let scores = score(set.metric, ScoreOptions::default(), &answers, references)?;
    Ok(summarise(set.metric, &scores, references, &set.dataset.clusters())?.accuracy)
}
