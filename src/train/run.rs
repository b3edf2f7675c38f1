//! The loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::accumulate::{Accumulator, Sums, TrainingGraph};
use super::loader::Loader;
use super::method::{Method, Search, Step};
use super::numbers::Numbers;
use super::run_folder::{Best, Checkpoint, Kept, Named, RunFolder, START_ANEW};
use super::site::{Anchor, Kind, Moment};
use super::update::{GRADIENT_SQUARES, Item, PARAMETER_SQUARES, Pass, RECORDED, Slot, Updater, complete, is_anchored};
use super::{Batches, Event, Outcome, Parameter, Parameters, Progress, Settings, Task};
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
    /// Where methods that learn on validation batches take those from, counted from 0.
    pub validation_batches: Option<&'a dyn Batches>,
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
/// Input error if the folder is of other settings, where the loss, a gradient or a parameter to be kept is not finite,
/// and where a checkpoint cannot be written; the checkpoints before it stay as they are. Whatever `batches` and `validate` return.
pub fn train(run: &Run, task: Task, validate: &mut Validate, on_event: &mut dyn FnMut(Event)) -> Result<Outcome> {
    let settings = run.settings;
    settings.check()?;
    let (folder, saved) = RunFolder::open(run.folder, &settings.deciding())?;
    let shape = |Parameter { name, start, .. }: &Parameter| (name.clone(), start.shape().to_vec());
    let shapes = task.parameters.iter().map(shape).collect();
    if let Some(finished) = saved.as_ref().filter(|saved| saved.standing.step >= settings.steps) {
        return outcome(finished, shapes);
    }
    let mut training = Training::new(run, task, folder, saved, on_event)?;
    on_event(Event::Started);
    let micro_step = |step: u64| step * settings.accumulation;
    let ahead = 2 * settings.workers.max(1) as u64;
    let loader = Loader::new(run.batches, micro_step(training.step), micro_step(settings.steps), ahead);
    let finished = match validation_loader(run, training.step)? {
        None => {
            let around = Surroundings { loader: &loader, validation_loader: None, validate, on_event };
            loader.during(settings.workers, || training.finish(around))?
        }
        Some(other) => {
            let around = Surroundings { loader: &loader, validation_loader: Some(&other), validate, on_event };
            other.during(1, || loader.during(settings.workers, || training.finish(around)))?
        }
    };
    outcome(&finished, shapes)
}

/// Makes the validation batches of the steps that are left, if the method learns on such.
fn validation_loader<'a>(run: &Run<'a>, done: u64) -> Result<Option<Loader<'a>>> {
    let method = &run.settings.method;
    let Some(search) = method.method.search else { return Ok(None) };
    let batches = run.validation_batches.ok_or_else(|| {
        Error::input(format!("{} learns on validation batches, and there are none", method.method.name))
            .hint("hold questions out of training")
    })?;
    let taken = |steps: u64| -> Result<u64> {
        let rounds = |number| (search.rounds)(&Step { method, number, learning_rate: 0.0, factor: 1.0, round: 0 });
        (1..=steps).map(rounds).sum()
    };
    Ok(Some(Loader::new(batches, taken(done)?, taken(run.settings.steps)?, 2)))
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
    /// For methods that learn on validation batches, where that takes another graph.
    evaluation: Option<Accumulator>,
    updater: Updater,
    parameters: Parameters,
    /// Positions of the parameters that the loss depends on, and what belongs to each.
    reached: Vec<usize>,
    slots: Vec<Slot>,
    folder: RunFolder,
    saved: Option<Checkpoint>,
    step: u64,
    best: Option<Best>,
}

/// What a step was, for the error of one that went wrong.
struct Taken {
    number: u64,
    learning_rate: f64,
    ids: Vec<String>,
}

/// Where a training takes its batches, its scores and its audience from.
struct Surroundings<'a, 'b> {
    loader: &'a Loader<'b>,
    validation_loader: Option<&'a Loader<'b>>,
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
        let settings = run.settings;
        let graph = TrainingGraph::new(&task, settings.accumulation)?;
        let accumulator = Accumulator::new(run.runtime, run.options, &task, &graph)?;
        let evaluation = match (settings.method.method.search, TrainingGraph::for_evaluation(&task)?) {
            (Some(_), Some(graph)) => Some(Accumulator::new(run.runtime, run.options, &task, &graph)?),
            _ => None,
        };
        let others = (0..task.parameters.len()).filter(|index| !graph.reached.contains(index));
        let unreached: Vec<String> = others.map(|index| task.parameters[index].name.clone()).collect();
        if !unreached.is_empty() {
            on_event(Event::Unreached { parameters: unreached });
        }
        let kinds: Vec<Kind> = graph.reached.iter().map(|index| kind(&task.parameters[*index])).collect();
        let options = run.options.for_updates();
        let updater =
            Updater::new(run.runtime, &options, &settings.method, &settings.optimizer, kinds.iter().copied())?;
        // Where they are anchors, the start values stay on the device beside those that a checkpoint replaces them with.
        let anchors: Vec<bool> = kinds
            .iter()
            .map(|kind| is_anchored(settings.method.method, *kind) && kind.anchor == Anchor::Start)
            .collect();
        let (mut step, mut best) = (0, None);
        let mut start = BTreeMap::new();
        if let Some(checkpoint) = &saved {
            (step, best) = (checkpoint.standing.step, checkpoint.standing.best);
            let mut stored = checkpoint.parameters()?;
            for (index, Parameter { name, start: tensor, .. }) in task.parameters.iter_mut().enumerate() {
                let value = take(&mut stored, name, tensor.shape())?;
                start.insert(index, std::mem::replace(tensor, value));
            }
            on_event(Event::Resumed { step });
        }
        let named = task.parameters.into_iter().map(|parameter| (parameter.name, parameter.start)).collect();
        let parameters = Parameters::new(run.runtime, named)?;
        let mut slots = Vec::with_capacity(kinds.len());
        for ((index, kind), anchored) in graph.reached.iter().zip(kinds).zip(anchors) {
            let tensor = &parameters.tensors[*index];
            let anchor = match start.remove(index) {
                _ if !anchored => None,
                Some(before) => Some(Arc::new(run.runtime.tensor(before)?)),
                None => Some(Arc::clone(tensor)),
            };
            let states = updater.fresh_states(kind, tensor)?;
            slots.push(Slot { kind, anchor, states, numbers: Numbers::default(), sums: Numbers::default() });
        }
        let reached = graph.reached;
        let mut training =
            Self { settings, accumulator, evaluation, updater, parameters, reached, slots, folder, saved, step, best };
        training.restore(run.runtime)?;
        Ok(training)
    }

    /// Takes what belongs to each parameter from the checkpoint.
    fn restore(&mut self, runtime: &Runtime) -> Result<()> {
        let Some(saved) = &self.saved else { return Ok(()) };
        let (mut stored, mut numbers) = (saved.state()?, saved.numbers()?);
        for (index, slot) in self.reached.iter().zip(&mut self.slots) {
            let (name, shape) = (&self.parameters.names[*index], self.parameters.tensors[*index].shape());
            for (state, place) in self.updater.states(slot.kind)?.iter().zip(&mut slot.states) {
                *place = Arc::new(runtime.tensor(take(&mut stored, &state_name(state, name), &shape)?)?);
            }
            [slot.numbers, slot.sums] = numbers.remove(name).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes the steps that are left; returns the last checkpoint.
    fn finish(&mut self, mut around: Surroundings) -> Result<Checkpoint> {
        while self.step < self.settings.steps {
            let taken = self.take_step(&mut around)?;
            let epoch_ends = self.step.is_multiple_of(self.settings.steps_per_epoch);
            let ends = epoch_ends || self.step == self.settings.steps;
            let saves = ends || self.settings.save_every.is_some_and(|every| self.step.is_multiple_of(every));
            if saves {
                self.check_parameters(&taken)?;
                self.check_numbers(&taken)?;
            }
            if ends {
                self.log_tensors()?;
                self.validate(&mut around)?;
            }
            if saves {
                self.save()?;
                (around.on_event)(Event::Saved { step: self.step });
            }
        }
        self.saved.take().ok_or_else(|| Error::internal("the run ended without a checkpoint"))
    }

    fn take_step(&mut self, around: &mut Surroundings) -> Result<Taken> {
        let position = self.settings.position(self.step);
        let learning_rate = self.settings.schedule.rate(self.settings.learning_rate, &position);
        let mut taken = Taken { number: self.step + 1, learning_rate, ids: Vec::new() };
        let sums = self.accumulate(&mut taken, around.loader)?;
        let mean = 1.0 / sums.count as f64;
        let mut moment =
            Moment { number: taken.number, learning_rate, factor: mean, optimizer: &self.settings.optimizer };
        let gradients: Vec<Arc<DeviceTensor>> = sums.gradients.into_iter().map(Arc::new).collect();
        self.pass(Pass::Measure, &moment, gradients.iter().cloned().map(Some))?;
        let gradient_norm = self.norm(GRADIENT_SQUARES) * mean;
        if !gradient_norm.is_finite() {
            return Err(self.diverged("norm of the gradients", gradient_norm, &taken));
        }
        // As `torch.nn.utils.clip_grad_norm_` does.
        moment.factor *= self.settings.clip.map_or(1.0, |most| (most / (gradient_norm + 1e-6)).min(1.0));
        let step = self.method_step(&moment, 0);
        for slot in &mut self.slots {
            complete(&step, is_anchored(step.method.method, slot.kind), &mut slot.numbers);
        }
        self.decide(self.settings.method.method.decide, &step)?;
        self.check_numbers(&taken)?;
        self.pass(Pass::Update, &moment, gradients.into_iter().map(Some))?;
        if let Some(search) = self.settings.method.method.search {
            self.search(search, &moment, around)?;
        }
        self.step += 1;
        let progress = Progress {
            step: self.step,
            steps: self.settings.steps,
            epoch: position.epoch(),
            loss: sums.loss * mean,
            learning_rate,
            gradient_norm,
            samples: sums.samples,
            recorded: self.record(),
        };
        self.folder.log(&record(&progress))?;
        (around.on_event)(Event::Stepped(progress));
        Ok(taken)
    }

    /// The sums of a step.
    fn accumulate(&mut self, taken: &mut Taken, loader: &Loader) -> Result<Sums> {
        let mut sums = Sums::default();
        for _ in 0..self.settings.accumulation {
            let mut batch = loader.next()?;
            let ids = std::mem::take(&mut batch.ids);
            let loss = self.accumulator.add(batch, &self.parameters, &mut sums)?;
            if !loss.is_finite() {
                let Taken { number, learning_rate, .. } = *taken;
                return Err(self.diverged("loss", loss, &Taken { number, learning_rate, ids }));
            }
            taken.ids.extend(ids);
        }
        if sums.count == 0 {
            return Err(Error::input(format!("nothing to learn from: step {} has no supervised token", taken.number))
                .caused_by(listed(&taken.ids)));
        }
        Ok(sums)
    }

    fn method_step(&self, moment: &Moment, round: u64) -> Step<'a> {
        let Moment { number, learning_rate, factor, .. } = *moment;
        Step { method: &self.settings.method, number, learning_rate, factor, round }
    }

    /// Lets the method decide on the numbers of all anchored tensors.
    fn decide(&mut self, decide: fn(&Step, &mut [&mut Numbers]) -> Result<()>, step: &Step) -> Result<()> {
        let anchored = self.slots.iter_mut().filter(|slot| is_anchored(step.method.method, slot.kind));
        let mut numbers: Vec<&mut Numbers> = anchored.map(|slot| &mut slot.numbers).collect();
        decide(step, &mut numbers)
    }

    /// Runs a pass over the parameters that the loss depends on.
    fn pass(
        &mut self,
        pass: Pass,
        moment: &Moment,
        gradients: impl Iterator<Item = Option<Arc<DeviceTensor>>>,
    ) -> Result<()> {
        let Self { updater, parameters, reached, slots, .. } = self;
        updater.run(pass, moment, items(&mut parameters.tensors, reached, slots, gradients))
    }

    /// Learns numbers of the tensors on validation batches, and puts the tensors where they say.
    fn search(&mut self, search: Search, moment: &Moment, around: &Surroundings) -> Result<()> {
        let rounds = (search.rounds)(&self.method_step(moment, 0))?;
        self.decide(search.decide, &self.method_step(moment, 0))?;
        for round in 1..=rounds {
            let mut trial = self.parameters.clone();
            let none = || std::iter::repeat_with(|| None);
            let Self { updater, reached, slots, .. } = self;
            updater.run(Pass::Project, moment, items(&mut trial.tensors, reached, slots, none()))?;
            let loader = around.validation_loader;
            let mut batch = loader.ok_or_else(|| Error::internal("a search without validation batches"))?.next()?;
            let ids = std::mem::take(&mut batch.ids);
            let mut sums = Sums::default();
            let accumulator = self.evaluation.as_mut().unwrap_or(&mut self.accumulator);
            let loss = accumulator.add(batch, &trial, &mut sums)?;
            drop(trial);
            let Moment { number, learning_rate, .. } = *moment;
            let taken = Taken { number, learning_rate, ids };
            if !loss.is_finite() {
                return Err(self.diverged("validation loss", loss, &taken));
            }
            self.pass(Pass::MeasureTrial, moment, sums.gradients.into_iter().map(Arc::new).map(Some))?;
            let factor = 1.0 / sums.count.max(1) as f64;
            self.decide(search.decide, &self.method_step(&Moment { factor, ..*moment }, round))?;
            self.check_numbers(&taken)?;
        }
        self.pass(Pass::Project, moment, std::iter::repeat_with(|| None))
    }

    /// The root of the sum of these numbers of all tensors.
    fn norm(&self, squares: &str) -> f64 {
        self.slots.iter().map(|slot| slot.numbers.get(squares)).sum::<f64>().sqrt()
    }

    /// The numbers of the method are numbers.
    fn check_numbers(&self, taken: &Taken) -> Result<()> {
        match self.slots.iter().find_map(|slot| slot.numbers.not_finite()) {
            Some((name, value)) => Err(self.diverged(&format!("number `{name}` of the method"), value, taken)),
            None => Ok(()),
        }
    }

    /// What is kept can be gone on with.
    fn check_parameters(&mut self, taken: &Taken) -> Result<()> {
        let Taken { number, learning_rate, .. } = *taken;
        let moment = Moment { number, learning_rate, factor: 1.0, optimizer: &self.settings.optimizer };
        self.pass(Pass::Check, &moment, std::iter::repeat_with(|| None))?;
        let norm = self.norm(PARAMETER_SQUARES);
        if norm.is_finite() { Ok(()) } else { Err(self.diverged("norm of the parameters", norm, taken)) }
    }

    /// Adds what the method records to the sums of the epoch; returns the means over the tensors.
    fn record(&mut self) -> BTreeMap<&'static str, f64> {
        let chosen = &self.settings.method;
        let anchored = self.slots.iter_mut().filter(|slot| is_anchored(chosen.method, slot.kind));
        let (mut means, mut count) = (BTreeMap::new(), 0.0);
        for slot in anchored {
            count += 1.0;
            for name in recorded(chosen.method) {
                let value = slot.numbers.get(name);
                slot.sums.set(name, slot.sums.get(name) + value);
                *means.entry(name).or_insert(0.0) += value;
            }
        }
        means.into_iter().map(|(name, sum)| (name, sum / count)).collect()
    }

    /// Writes the means over the steps of the epoch, tensor by tensor.
    fn log_tensors(&mut self) -> Result<()> {
        let epoch = self.settings.position(self.step - 1).epoch();
        let steps = (self.step - epoch * self.settings.steps_per_epoch) as f64;
        let mut tensors = serde_json::Map::new();
        for (index, slot) in self.reached.iter().zip(&mut self.slots) {
            let sums = std::mem::take(&mut slot.sums);
            if !is_anchored(self.settings.method.method, slot.kind) {
                continue;
            }
            let names = recorded(self.settings.method.method);
            let means = names.map(|name| (name.to_owned(), json!(sums.get(name) / steps)));
            tensors.insert(self.parameters.names[*index].clone(), Value::Object(means.collect()));
        }
        if tensors.is_empty() {
            return Ok(());
        }
        self.folder.log(&json!({"step": self.step, "epoch": epoch, "tensors": tensors}))
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
        let (mut state, mut numbers) = (Named::new(), BTreeMap::new());
        // Nothing comes after the last step, and the state is larger than the parameters.
        let continued = self.step < self.settings.steps;
        for (index, slot) in self.reached.iter().zip(&self.slots).filter(|_| continued) {
            let name = &self.parameters.names[*index];
            let states = self.updater.states(slot.kind)?.iter().zip(&slot.states);
            state.extend(states.map(|(part, kept)| (state_name(part, name), &**kept)));
            numbers.insert(name.clone(), [slot.numbers.clone(), slot.sums.clone()]);
        }
        let kept = Kept { parameters, state, numbers };
        let before = self.saved.as_ref();
        self.saved = Some(self.folder.save((self.step, self.best), &kept, before)?);
        Ok(())
    }

    fn diverged(&self, what: &str, value: f64, Taken { number, learning_rate, ids }: &Taken) -> Error {
        let saved = self.saved.as_ref().map(|checkpoint| checkpoint.standing.step);
        let kept = saved.map_or_else(String::new, |step| format!("; the checkpoint of step {step} is kept"));
        let after = if self.step == *number { "after" } else { "at" };
        Error::input(format!("the {what} is {value} {after} step {number}, with a learning rate of {learning_rate:?}"))
            .caused_by(listed(ids))
            .hint(format!("look at these samples, or use a lower learning rate or clipped gradients{kept}"))
    }
}

fn kind(parameter: &Parameter) -> Kind {
    Kind { rank: parameter.start.shape().len(), role: parameter.role, anchor: parameter.anchor }
}

/// The parameters that the loss depends on, with what belongs to each.
fn items<'t>(
    tensors: &'t mut [Arc<DeviceTensor>],
    reached: &[usize],
    slots: &'t mut [Slot],
    gradients: impl Iterator<Item = Option<Arc<DeviceTensor>>>,
) -> Vec<Item<'t>> {
    let mut reached = reached.iter().copied().peekable();
    let tensors = tensors.iter_mut().enumerate();
    let tensors = tensors.filter(|(index, _)| reached.next_if_eq(index).is_some()).map(|(_, tensor)| tensor);
    let tensors = tensors.zip(slots).zip(gradients);
    tensors.map(|((tensor, slot), gradient)| Item { slot, tensor, gradient }).collect()
}

/// What a method records of an anchored tensor.
fn recorded(method: &Method) -> impl Iterator<Item = &'static str> {
    method.recorded.iter().copied().chain(RECORDED)
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
    for (name, value) in &progress.recorded {
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
