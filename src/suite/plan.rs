//! What to train and how, and what cannot be asked of a method.

use std::path::PathBuf;
use std::sync::Arc;

use super::evaluation::PlannedDataset;
use super::sampling::Sampling;
use crate::error::{Error, Result};
use crate::graph::matches_pattern;
use crate::model::text::Prompt;
use crate::model::training::{Lora, Parameters};
use crate::runtime::Device;
use crate::tensor::DType;
use crate::train::{Anchor, Chosen, ChosenMethod, Optimizer, Schedule, Selection};

/// What to train and how. Everything is checked before the first step.
#[derive(Debug, Clone)]
pub struct TrainingPlan {
    /// Model folder to start from; with `from_scratch`, settings files without weights.
    pub model: PathBuf,
    /// Folder of the base model, if `model` is an adapter whose own name for it is no folder here.
    pub base: Option<PathBuf>,
    /// Whether to start from random weights.
    pub from_scratch: bool,
    /// The questions to train on, with the metric of validation.
    pub questions: Arc<PlannedDataset>,
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
    pub method: ChosenMethod,
    /// What methods that hold an anchor measure deviations from, where it is not the usual: the origin for LoRA
    /// matrices, the start for other tensors.
    pub anchor: Option<Anchor>,
    /// Name patterns of tensors without an anchor, such as a fresh head.
    pub exclude: Vec<String>,
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
    /// Folder of what comes before, where a method has several phases; runs that share them have it in common.
    pub phases: PathBuf,
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
#[derive(Debug, Clone)]
pub enum Validation {
    /// A seeded share of the training images, which are not trained on.
    HeldOut(f64),
    /// A set that is reported, as the authors of the paper did: its numbers are then no test of the model.
    Reported(Arc<PlannedDataset>),
    /// Nothing: the last checkpoint is kept.
    None,
}

/// The name of [`Validation::Reported`].
pub(super) const REPORTED: &str = "reported";

impl Validation {
    /// Share of the images that is held out.
    pub(super) fn share(&self) -> Option<f64> {
        if let Self::HeldOut(share) = self { Some(*share) } else { None }
    }

    /// Its name in the records of a run.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::HeldOut(_) => "held-out",
            Self::Reported(_) => REPORTED,
            Self::None => "none",
        }
    }
}

impl TrainingPlan {
    /// What deviations of the tensor of this name are measured from.
    pub(super) fn anchor_of(&self, name: &str) -> Anchor {
        let excluded = self.exclude.iter().any(|pattern| matches_pattern(pattern, name));
        if excluded { Anchor::None } else { self.anchor() }
    }

    /// What deviations of tensors that are not excluded are measured from.
    pub(super) fn anchor(&self) -> Anchor {
        self.anchor.unwrap_or(if self.lora.is_some() { Anchor::Origin } else { Anchor::Start })
    }

    /// Whether the method holds tensors to their own start values, which have to be of a trained model.
    fn keeps_close_to_start(&self) -> bool {
        let method = self.method.method;
        method.merge.is_some() || method.anchored && self.anchor() != Anchor::Origin
    }

    /// # Errors
    /// Input error for what has no meaning together.
    pub(super) fn check(&self) -> Result<()> {
        let method = self.method.method;
        let name = method.name;
        let lora = self.lora.is_some();
        let factors = self.is_set("space", "factors");
        let refused = [
            (
                method.selection == Selection::Head && (lora || self.parameters != Parameters::Head),
                format!("{name} trains the head alone"),
                "leave out --trainable and --lora",
            ),
            (
                method.selection == Selection::NormsAndHead && (lora || self.parameters != Parameters::NormsAndHead),
                format!("{name} trains normalisation layers and the head alone"),
                "leave out --trainable and --lora",
            ),
            (
                method.probes_first && self.parameters == Parameters::Head,
                format!("{name} trains more than the head after its linear probe"),
                "leave out --trainable, or use --method linear-probe",
            ),
            (
                method.search.is_some() && matches!(self.validation, Validation::None),
                format!("{name} learns on held-out questions, and --validation none holds none out"),
                "use --validation held-out",
            ),
            (
                method.search.is_some() && matches!(self.validation, Validation::Reported(_)),
                format!("{name} learns on validation questions, and the reported ones would be no test any more"),
                "use --validation held-out",
            ),
            (
                self.from_scratch && self.keeps_close_to_start(),
                format!("{name} stays close to pre-trained weights, and random ones are none"),
                if method.merge.is_some() {
                    "start from a model: --model"
                } else {
                    "start from a model: --model, or measure from zero: --anchor origin"
                },
            ),
            (
                self.anchor.is_some() && !method.anchored,
                format!("{name} holds no anchor that could be chosen"),
                "leave out --anchor; `list methods` says which methods hold one",
            ),
            (
                !self.exclude.is_empty() && !method.anchored,
                format!("{name} holds no anchor that tensors could be excluded from"),
                "leave out --exclude; `list methods` says which methods hold one",
            ),
            (
                factors && !lora,
                format!("{name} interpolates factors only where there are LoRA matrices"),
                "leave out space=factors, or give --lora",
            ),
        ];
        match refused.into_iter().find(|(refuse, ..)| *refuse) {
            Some((_, what, next)) => Err(Error::input(what).hint(next)),
            None => Ok(()),
        }
    }

    /// Whether the method has a setting of this name, for which this word was chosen.
    pub(super) fn is_set(&self, setting: &str, word: &'static str) -> bool {
        self.method.settings().get(setting) == Some(&Chosen::Word(word))
    }
}
