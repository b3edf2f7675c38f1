//! The loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::accumulate::{Accumulator, Sums, TrainingGraph};
use super::loader::Loader;
use super::run_folder::{Best, Checkpoint, Named, RunFolder, START_ANEW};
use super::update::{State, Step, Updater};
use super::{Batches, Event, Outcome, Parameters, Progress, Settings, Task};
use crate::error::{Error, Result};
use crate::runtime::{DeviceTensor, Runtime, SessionOptions};
use crate::tensor::Tensor;

/// How many ids an error names.
const NAMED_IDS: usize = 32;

/// Where and how to train.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The loaded runtime.
    pub runtime: &'a Runtime,
    /// How the session of the training graph is set up.
    pub options: &'a SessionOptions,
    /// How to train.
    pub settings: &'a Settings,
    /// Where batches come from.
    pub batches: &'a dyn Batches,
    /// The folder of the run: settings, metrics, checkpoints.
    pub folder: &'a Path,
}

/// Validates the parameters at the end of an epoch: a score, higher is better, or none where there is nothing to
/// validate on.
pub type Validate<'a> = dyn FnMut(u64, &Parameters) -> Result<Option<f64>> + 'a;

/// Trains `task`, from the newest checkpoint of the run's folder if there is one. A run that is finished does nothing.
///
/// On a CPU, with the same number of threads, a run that was killed ends with the same bytes as one that was not.
///
/// # Errors
///
/// Input error if the folder is of other settings, where the loss or a gradient is not finite, and where a checkpoint
/// cannot be written; the checkpoints before it stay as they are. Whatever `batches` and `validate` return.
pub fn train(run: &Run, task: Task, validate: &mut Validate, on_event: &mut dyn FnMut(Event)) -> Result<Outcome> {
    let settings = run.settings;
    settings.check()?;
    let (folder, saved) = RunFolder::open(run.folder, &settings.deciding())?;
    let shapes = task.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();
    if let Some(finished) = saved.as_ref().filter(|saved| saved.standing.step >= settings.steps) {
        return outcome(finished, shapes);
    }
    let mut training = Training::new(run, task, folder, saved, on_event)?;
    on_event(Event::Started);
    let micro_step = |step: u64| step * settings.accumulation;
    let ahead = 2 * settings.workers.max(1) as u64;
    let loader = Loader::new(run.batches, micro_step(training.step), micro_step(settings.steps), ahead);
    let around = Surroundings { loader: &loader, validate, on_event };
    let finished = loader.during(settings.workers, || training.finish(around))?;
    outcome(&finished, shapes)
}

/// The chosen parameters of a finished run.
fn outcome(checkpoint: &Checkpoint, shapes: Vec<(String, Vec<usize>)>) -> Result<Outcome> {
    let mut stored = checkpoint.chosen()?;
    let chosen = shapes.into_iter().map(|(name, shape)| {
        let tensor = take(&mut stored, &name, &shape)?;
        Ok((name, tensor))
    });
    let parameters = chosen.collect::<Result<_>>()?;
    Ok(Outcome { steps: checkpoint.standing.step, best: checkpoint.standing.best, parameters })
}

/// A run between two steps.
struct Training<'a> {
    settings: &'a Settings,
    accumulator: Accumulator,
    updater: Updater,
    parameters: Parameters,
    /// Positions of the parameters that the loss depends on, and what is kept of each.
    reached: Vec<usize>,
    states: Vec<State>,
    folder: RunFolder,
    saved: Option<Checkpoint>,
    step: u64,
    best: Option<Best>,
}

/// Where a training takes its batches, its scores and its audience from.
struct Surroundings<'a, 'b> {
    loader: &'a Loader<'b>,
    validate: &'a mut Validate<'b>,
    on_event: &'a mut dyn FnMut(Event),
}

impl<'a> Training<'a> {
    fn new(
        run: &Run<'a>,
        mut task: Task,
        folder: RunFolder,
        saved: Option<Checkpoint>,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let graph = TrainingGraph::new(&task, run.settings.accumulation)?;
        let accumulator = Accumulator::new(run.runtime, run.options, &task, &graph)?;
        let others = (0..task.parameters.len()).filter(|index| !graph.reached.contains(index));
        let unreached: Vec<String> = others.map(|index| task.parameters[index].0.clone()).collect();
        if !unreached.is_empty() {
            on_event(Event::Unreached { parameters: unreached });
        }
        let Settings { method, optimizer, .. } = *run.settings;
        let ranks = graph.reached.iter().map(|index| task.parameters[*index].1.shape().len());
        let updater = Updater::new(run.runtime, run.options.device, method, optimizer, ranks)?;
        let (mut step, mut best) = (0, None);
        if let Some(checkpoint) = &saved {
            (step, best) = (checkpoint.standing.step, checkpoint.standing.best);
            let mut stored = checkpoint.parameters()?;
            for (name, tensor) in &mut task.parameters {
                *tensor = take(&mut stored, name, tensor.shape())?;
            }
            on_event(Event::Resumed { step });
        }
        let parameters = Parameters::new(run.runtime, task.parameters)?;
        let (reached, states) = (graph.reached, Vec::new());
        let mut training = Self {
            settings: run.settings,
            accumulator,
            updater,
            parameters,
            reached,
            states,
            folder,
            saved,
            step,
            best,
        };
        training.states = training.kept(run.runtime)?;
        Ok(training)
    }

    /// What is kept of each parameter: from the checkpoint, or fresh.
    fn kept(&self, runtime: &Runtime) -> Result<Vec<State>> {
        let mut stored = self.saved.as_ref().map(Checkpoint::state).transpose()?;
        let mut states = Vec::with_capacity(self.reached.len());
        for index in &self.reached {
            let (name, tensor) = (&self.parameters.names[*index], &self.parameters.tensors[*index]);
            let Some(stored) = &mut stored else {
                states.push(self.updater.fresh_state(tensor)?);
                continue;
            };
            let shape = tensor.shape();
            let names = self.updater.states(shape.len())?.into_iter();
            let state =
                names.map(|state| Ok(Arc::new(runtime.tensor(take(stored, &state_name(state, name), &shape)?)?)));
            states.push(state.collect::<Result<_>>()?);
        }
        Ok(states)
    }

    /// Takes the steps that are left; returns the last checkpoint.
    fn finish(&mut self, mut around: Surroundings) -> Result<Checkpoint> {
        while self.step < self.settings.steps {
            self.take_step(&mut around)?;
            let epoch_ends = self.step.is_multiple_of(self.settings.steps_per_epoch);
            let ends = epoch_ends || self.step == self.settings.steps;
            if ends {
                self.validate(&mut around)?;
            }
            if ends || self.settings.save_every.is_some_and(|every| self.step.is_multiple_of(every)) {
                self.save()?;
                (around.on_event)(Event::Saved { step: self.step });
            }
        }
        self.saved.take().ok_or_else(|| Error::internal("the run ended without a checkpoint"))
    }

    fn take_step(&mut self, around: &mut Surroundings) -> Result<()> {
        let position = self.settings.position(self.step);
        let learning_rate = self.settings.schedule.rate(self.settings.learning_rate, &position);
        let mut sums = Sums::default();
        let mut ids = Vec::new();
        for _ in 0..self.settings.accumulation {
            let mut batch = around.loader.next()?;
            let batch_ids = std::mem::take(&mut batch.ids);
            let loss = self.accumulator.add(batch, &self.parameters, &mut sums)?;
            if !loss.is_finite() {
                return Err(self.diverged("loss", loss, learning_rate, &batch_ids));
            }
            ids.extend(batch_ids);
        }
        if sums.count == 0 {
            return Err(Error::input(format!("nothing to learn from: step {} has no supervised token", self.step + 1))
                .caused_by(listed(&ids)));
        }
        let mean = 1.0 / sums.count as f64;
        let gradient_norm = self.updater.norm(&sums.gradients)? * mean;
        if !gradient_norm.is_finite() {
            return Err(self.diverged("norm of the gradients", gradient_norm, learning_rate, &ids));
        }
        // As `torch.nn.utils.clip_grad_norm_` does.
        let clipping = self.settings.clip.map_or(1.0, |most| (most / (gradient_norm + 1e-6)).min(1.0));
        let step = Step { number: self.step + 1, learning_rate, factor: mean * clipping };
        let reports = self.update(&step, sums.gradients)?;
        self.step += 1;
        let progress = Progress {
            step: self.step,
            steps: self.settings.steps,
            epoch: position.epoch(),
            loss: sums.loss * mean,
            learning_rate,
            gradient_norm,
            samples: sums.samples,
            reports,
        };
        self.folder.log(&record(&progress))?;
        (around.on_event)(Event::Stepped(progress));
        Ok(())
    }

    fn update(&mut self, step: &Step, gradients: Vec<DeviceTensor>) -> Result<BTreeMap<&'static str, f64>> {
        let mut reached = self.reached.iter().copied().peekable();
        let tensors = self.parameters.tensors.iter_mut().enumerate();
        let tensors = tensors.filter(|(index, _)| reached.next_if_eq(index).is_some()).map(|(_, tensor)| tensor);
        let tensors = tensors.zip(&mut self.states).zip(gradients);
        self.updater.apply(step, tensors.map(|((tensor, state), gradient)| (tensor, state, gradient)))
    }

    fn validate(&mut self, around: &mut Surroundings) -> Result<()> {
        let (step, epoch) = (self.step, self.settings.position(self.step - 1).epoch());
        let Some(score) = (around.validate)(epoch, &self.parameters)? else { return Ok(()) };
        if score.is_nan() {
            return Err(Error::internal(format!("the score of the validation after step {step} is no number")));
        }
        let best = self.best.is_none_or(|best| score > best.score);
        if best {
            self.best = Some(Best { step, epoch, score });
        }
        self.folder.log(&json!({"step": step, "epoch": epoch, "validation": score}))?;
        (around.on_event)(Event::Validated { step, epoch, score, best });
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        let parameters: Named = self.parameters.iter().map(|(name, tensor)| (name.to_owned(), &**tensor)).collect();
        let mut state = Named::new();
        // Nothing comes after the last step, and the state is larger than the parameters.
        let continued = self.step < self.settings.steps;
        for (index, kept) in self.reached.iter().zip(&self.states).filter(|_| continued) {
            let (name, tensor) = (&self.parameters.names[*index], &self.parameters.tensors[*index]);
            let names = self.updater.states(tensor.shape().len())?.into_iter();
            state.extend(names.zip(kept).map(|(part, kept)| (state_name(part, name), &**kept)));
        }
        let before = self.saved.as_ref();
        self.saved = Some(self.folder.save((self.step, self.best), &parameters, &state, before)?);
        Ok(())
    }

    fn diverged(&self, what: &str, value: f64, learning_rate: f64, ids: &[String]) -> Error {
        let (step, saved) = (self.step + 1, self.saved.as_ref().map(|checkpoint| checkpoint.standing.step));
        let kept = saved.map_or_else(String::new, |step| format!("; the checkpoint of step {step} is kept"));
        Error::input(format!("the {what} is {value} at step {step}, with a learning rate of {learning_rate}"))
            .caused_by(listed(ids))
            .hint(format!("look at these samples, or use a lower learning rate or clipped gradients{kept}"))
    }
}

fn state_name(state: &str, parameter: &str) -> String {
    format!("{state}/{parameter}")
}

fn listed(ids: &[String]) -> String {
    let mut text = format!("its samples are {}", ids[..ids.len().min(NAMED_IDS)].join(", "));
    if ids.len() > NAMED_IDS {
        text.push_str(&format!(" and {} more", ids.len() - NAMED_IDS));
    }
    text
}

/// A line of the metrics. It holds nothing that differs from run to run.
fn record(progress: &Progress) -> Value {
    let mut record = json!({
        "step": progress.step,
        "epoch": progress.epoch,
        "loss": progress.loss,
        "learning_rate": progress.learning_rate,
        "gradient_norm": progress.gradient_norm,
        "samples": progress.samples,
    });
    for (name, value) in &progress.reports {
        record[*name] = json!(value);
    }
    record
}

/// Takes a tensor of a checkpoint.
fn take(stored: &mut BTreeMap<String, Tensor>, name: &str, shape: &[usize]) -> Result<Tensor> {
    stored.remove(name).filter(|tensor| tensor.shape() == shape).ok_or_else(|| {
        Error::input(format!("the checkpoint has no tensor `{name}` of shape {shape:?}")).hint(START_ANEW)
    })
}
