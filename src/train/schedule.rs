//! Learning rates as pure functions of the position in a run.

use serde::Serialize;

/// How the learning rate changes over a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Schedule {
    /// The peak all the time.
    Constant,
    /// Up from 0 over the warm-up, then down to 0 at the last step: `get_linear_schedule_with_warmup` of transformers.
    Linear {
        /// Optimiser steps of the warm-up.
        warmup: u64,
    },
    /// Up from 0 over the warm-up, then half a cosine down to `floor`: `get_cosine_with_min_lr_schedule_with_warmup` of
    /// transformers, which is `get_cosine_schedule_with_warmup` where `floor` is 0.
    Cosine {
        /// Optimiser steps of the warm-up.
        warmup: u64,
        /// The learning rate it ends with.
        floor: f64,
    },
    /// Within the first epoch linearly from `start` to the peak; then half a cosine down to `floor` that moves from
    /// epoch to epoch only: `linear_warmup_cosine_lr` of LAVIS, which sets the rate before each micro-batch, so that a
    /// step has the rate of its last one. With `start` at the peak it is PyTorch's `CosineAnnealingLR`, stepped once
    /// per epoch.
    Lavis {
        /// Micro-batches of the warm-up.
        warmup: u64,
        /// The learning rate it starts with.
        start: f64,
        /// The learning rate that the cosine goes down to.
        floor: f64,
    },
}

/// Where in a run an optimiser step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Optimiser steps before it.
    pub step: u64,
    /// Optimiser steps of the run.
    pub steps: u64,
    /// Optimiser steps of an epoch.
    pub steps_per_epoch: u64,
    /// Micro-batches of a step.
    pub accumulation: u64,
}

impl Position {
    /// The epoch it is in, from 0.
    pub fn epoch(&self) -> u64 {
        self.step / self.steps_per_epoch
    }

    /// Number of epochs of the run, the last of which may be shorter.
    pub fn epochs(&self) -> u64 {
        self.steps.div_ceil(self.steps_per_epoch)
    }

    /// Index of its last micro-batch within the epoch.
    fn last_micro_batch(&self) -> u64 {
        (self.step % self.steps_per_epoch + 1) * self.accumulation - 1
    }

    /// Share of the part after the warm-up that lies behind it.
    fn progress(&self, warmup: u64) -> f64 {
        (self.step - warmup) as f64 / (self.steps.saturating_sub(warmup)).max(1) as f64
    }
}

impl Schedule {
    /// Its learning rates beside the peak.
    pub(super) fn numbers(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Self::Constant | Self::Linear { .. } => Vec::new(),
            Self::Cosine { floor, .. } => vec![("final learning rate", floor)],
            Self::Lavis { start, floor, .. } => {
                vec![("first learning rate", start), ("final learning rate", floor)]
            }
        }
    }

    /// The learning rate of the step at `position`, where `peak` is the highest of the run.
    pub fn rate(&self, peak: f64, position: &Position) -> f64 {
        match *self {
            Self::Constant => peak,
            Self::Linear { warmup } | Self::Cosine { warmup, .. } if position.step < warmup => {
                peak * (position.step as f64 / warmup as f64)
            }
            Self::Linear { warmup } => peak * (1.0 - position.progress(warmup)).max(0.0),
            Self::Cosine { warmup, floor } => descent(peak, floor, position.progress(warmup)),
            Self::Lavis { warmup, start, .. } if position.epoch() == 0 => {
                let share = position.last_micro_batch() as f64 / warmup.max(1) as f64;
                peak.min(start + (peak - start) * share)
            }
            Self::Lavis { floor, .. } => descent(peak, floor, position.epoch() as f64 / position.epochs() as f64),
        }
    }
}

/// Half a cosine from `peak` to `floor`.
fn descent(peak: f64, floor: f64, progress: f64) -> f64 {
    floor + (peak - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}
