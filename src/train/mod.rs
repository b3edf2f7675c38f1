//! Fine-tuning on stock ONNX Runtime: gradients and updates are graphs, and all that changes stays on the device.
//!
//! A step is two kinds of graphs. The training graph gives the sum of the loss over supervised tokens and the sums of
//! its gradients; they are divided by the number of tokens of the *whole* step in the update, so that a step gives the
//! same whether its samples come in one batch or in several. The update graph, one tensor at a time, is what a
//! [`Method`] emits.
//!
//! The loop knows no dataset and no metric: batches come from [`Batches`], validation is a callback. It knows no method
//! by name either.

mod accumulate;
mod loader;
mod method;
mod numbers;
mod optimizer;
mod products;
mod rules;
mod run;
mod run_folder;
mod schedule;
mod setting;
mod site;
mod update;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use method::{LAST, LINEAR_PROBE, METHODS, Merge, Method, PLAIN, Search, Selection, Step, find};
pub use numbers::Numbers;
pub use optimizer::Optimizer;
pub use run::{Run, Validate, train};
pub use run_folder::{Best, SETTINGS, has_checkpoint, metrics, state_settings};
pub use schedule::{Position, Schedule};
pub use setting::{Chosen, ChosenMethod, NOT_NEGATIVE, Setting, Values};
pub use site::{Anchor, Moment, Role, Scalar, Site};

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::runtime::{DeviceTensor, Runtime};
use crate::tensor::{DType, Tensor};

/// What is trained.
#[derive(Debug, Clone)]
pub struct Task {
    /// The forward pass. Trained parameters are f32 inputs under their names, the other inputs are fed by batches. Its
    /// output `loss` is one f32 number: the sum over the batch's supervised tokens.
    pub graph: Graph,
    /// Where its external initialisers lie.
    pub folder: PathBuf,
    /// The same without dropout, for methods that learn on validation batches; none where there is no dropout.
    pub evaluation: Option<Graph>,
    /// The trained parameters.
    pub parameters: Vec<Parameter>,
    /// Scopes of the graph that are computed once more on the way back, see [`crate::graph::gradients`].
    pub recomputed: Vec<String>,
}

/// A trained parameter.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name, also that of the graph's input.
    pub name: String,
    /// Its value before the first step, in f32.
    pub start: Tensor,
    /// What it is for.
    pub role: Role,
    /// What methods that hold an anchor measure it from.
    pub anchor: Anchor,
}

/// What the training graph is fed with at once.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Tensors by the names of the graph's inputs.
    pub inputs: Vec<(String, Tensor)>,
    /// Supervised tokens, which the loss is a mean over.
    pub count: usize,
    /// Samples.
    pub samples: usize,
    /// What to call the samples in a message.
    pub ids: Vec<String>,
}

/// Where batches come from.
pub trait Batches: Send + Sync {
    /// The micro-batch of this number, counted over all epochs from 0; a step takes [`Settings::accumulation`] of them
    /// in a row. Must depend on the number alone. Called ahead of its use, from several threads.
    fn batch(&self, micro_step: u64) -> Result<Batch>;
}

/// How to train. All but the last two decide the result, and a run goes on only with the same.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What else decides the result, as far as the caller knows: weights, data, seed, number of threads and so on.
    pub subject: serde_json::Map<String, serde_json::Value>,
    /// How gradients become steps beside the optimiser.
    pub method: ChosenMethod,
    /// How gradients become steps.
    pub optimizer: Optimizer,
    /// The highest learning rate of the run.
    pub learning_rate: f64,
    /// How it changes.
    pub schedule: Schedule,
    /// Optimiser steps of an epoch, after which is validation.
    pub steps_per_epoch: u64,
    /// Optimiser steps of the run.
    pub steps: u64,
    /// Micro-batches of a step.
    pub accumulation: u64,
    /// The greatest norm of all gradients together; longer ones are shortened to it.
    pub clip: Option<f64>,
    /// Steps between checkpoints beside those at the end of each epoch.
    pub save_every: Option<u64>,
    /// Threads that make batches ahead.
    pub workers: usize,
}

impl Settings {
    /// What decides the result, as it is written into the run's folder.
    pub fn deciding(&self) -> serde_json::Value {
        serde_json::json!({
            "accumulation": self.accumulation,
            "clip": self.clip,
            "learning_rate": self.learning_rate,
            "method": self.method.method.name,
            "method_settings": self.method.settings(),
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "steps": self.steps,
            "steps_per_epoch": self.steps_per_epoch,
            "subject": self.subject,
        })
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::input(format!("cannot train with {what}")));
        let counts = [
            ("steps", self.steps),
            ("steps per epoch", self.steps_per_epoch),
            ("micro-batches per step", self.accumulation),
            ("steps between checkpoints", self.save_every.unwrap_or(1)),
        ];
        if let Some((what, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return wrong(&format!("0 {what}"));
        }
        let [optimizer, schedule] = [self.optimizer.numbers(), self.schedule.numbers()];
        let numbers = optimizer.into_iter().chain(schedule).chain([("learning rate", self.learning_rate)]);
        if let Some((what, number)) = numbers.into_iter().find(|(_, number)| !number.is_finite() || *number < 0.0) {
            return wrong(&format!("a {what} of {number}"));
        }
        if let Optimizer::AdamW { betas, eps, .. } = self.optimizer {
            if let Some(beta) = betas.iter().find(|beta| **beta >= 1.0) {
                return wrong(&format!("a decay rate of moments (beta) of {beta}"));
            }
            if eps == 0.0 {
                return wrong("an epsilon of 0, which divides by 0 where a gradient is 0");
            }
        }
        match self.clip {
            Some(clip) if clip.is_nan() || clip <= 0.0 => wrong(&format!("gradients clipped to a norm of {clip}")),
            _ => Ok(()),
        }
    }

    fn position(&self, step: u64) -> Position {
        let Self { steps, steps_per_epoch, accumulation, .. } = *self;
        Position { step, steps, steps_per_epoch, accumulation }
    }
}

/// The trained tensors on the device, in the order of [`Task::parameters`].
#[derive(Debug, Clone)]
pub struct Parameters {
    names: Arc<[String]>,
    tensors: Vec<Arc<DeviceTensor>>,
}

impl Parameters {
    /// Hands f32 tensors to the device.
    fn new(runtime: &Runtime, tensors: Vec<(String, Tensor)>) -> Result<Self> {
        let (mut names, mut handed) = (Vec::new(), Vec::new());
        for (name, tensor) in tensors {
            if tensor.dtype() != DType::F32 {
                return Err(Error::internal(format!("the parameter `{name}` is {}, not f32", tensor.dtype())));
            }
            names.push(name);
            handed.push(Arc::new(runtime.tensor(tensor)?));
        }
        Ok(Self { names: names.into(), tensors: handed })
    }

    /// All with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<DeviceTensor>)> {
        self.names.iter().map(String::as_str).zip(&self.tensors)
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<DeviceTensor>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor)
    }
}

/// What happens during a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The loss depends on none of these parameters, which stay as they are.
    Unreached {
        /// Their names.
        parameters: Vec<String>,
    },
    /// All sessions are made; the first step comes next.
    Started,
    /// The run goes on after a checkpoint.
    Resumed {
        /// Steps done before.
        step: u64,
    },
    /// A step is done.
    Stepped(Progress),
    /// The parameters have been validated.
    Validated {
        /// Steps before it.
        step: u64,
        /// The epoch it ended, from 0.
        epoch: u64,
        /// Its score.
        score: f64,
        /// Whether none was as high before.
        best: bool,
    },
    /// A checkpoint is on the disk.
    Saved {
        /// Steps done.
        step: u64,
    },
}

/// A step that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Its number, from 1.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Its epoch, from 0.
    pub epoch: u64,
    /// Mean loss of its supervised tokens.
    pub loss: f64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// The norm of all gradients together before clipping.
    pub gradient_norm: f64,
    /// Its samples.
    pub samples: u64,
    /// What the method records, as means over the anchored tensors.
    pub recorded: BTreeMap<&'static str, f64>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps done.
    pub steps: u64,
    /// The best validation, where there was one.
    pub best: Option<Best>,
    /// The parameters of the best validation, or the last ones where there was none, in the order of
    /// [`Task::parameters`].
    pub parameters: Vec<(String, Tensor)>,
}
