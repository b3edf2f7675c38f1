//! The steps that methods are built on, as nodes of an update graph.

use serde::Serialize;

use super::site::{Moment, Scalar, Site};
use crate::error::Result;
use crate::graph::Value;

/// Turns a gradient into a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Optimizer {
    /// Adam with decoupled weight decay, as `torch.optim.AdamW` (Loshchilov and Hutter 2019).
    AdamW {
        /// Decay rates of the two moments.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
        /// The weights shrink by this times the learning rate.
        weight_decay: f64,
    },
    /// Gradient descent with momentum, as `torch.optim.SGD` without dampening.
    Sgd {
        /// How much of the last step is added to the next one; 0 keeps no state.
        momentum: f64,
        /// Whether the gradient is added once more on top of the momentum (Nesterov's form).
        nesterov: bool,
        /// Multiple of the weights that is added to the gradient.
        weight_decay: f64,
    },
}

impl Optimizer {
    /// Its numbers, none of which may be negative, with what to call them.
    pub(super) fn numbers(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Self::AdamW { betas: [first, second], eps, weight_decay } => vec![
                ("decay rate of moments (beta)", first),
                ("decay rate of moments (beta)", second),
                ("number added to roots (epsilon)", eps),
                ("weight decay", weight_decay),
            ],
            Self::Sgd { momentum, weight_decay, .. } => vec![("momentum", momentum), ("weight decay", weight_decay)],
        }
    }

    /// Emits one step from `parameter` along `gradient`; returns the new parameter.
    pub(super) fn step(&self, site: &mut Site, parameter: Value, gradient: Value) -> Result<Value> {
        match *self {
            Self::AdamW { betas, weight_decay, .. } => adamw(site, parameter, gradient, betas, weight_decay),
            Self::Sgd { momentum, nesterov, weight_decay } => {
                let gradient = match weight_decay {
                    0.0 => gradient,
                    _ => {
                        let pull = site.builder.scale(parameter, weight_decay as f32)?;
                        site.builder.add(gradient, pull)?
                    }
                };
                let direction = match momentum {
                    0.0 => gradient,
                    _ => momentum_direction(site, gradient, momentum as f32, nesterov)?,
                };
                let rate = site.scalar(LEARNING_RATE)?;
                let step = site.builder.mul(direction, rate)?;
                site.builder.op("Sub", &[parameter, step], &[])
            }
        }
    }
}

/// The learning rate of the step.
pub(super) const LEARNING_RATE: Scalar = Scalar { name: "learning_rate", at: |moment| moment.learning_rate };

/// Factor of a parameter under decoupled decay.
const KEPT: Scalar = Scalar {
    name: "kept",
    at: |moment| match moment.optimizer {
        Optimizer::AdamW { weight_decay, .. } => 1.0 - moment.learning_rate * weight_decay,
        Optimizer::Sgd { .. } => 1.0,
    },
};

/// AdamW divides by `sqrt(v / c2) + eps`, where `c2` corrects the bias of the second moment. Here both sides of the
/// fraction are multiplied by `sqrt(c2)`, which saves a pass over the tensor.
const ADAM_RATE: Scalar = Scalar {
    name: "adam_rate",
    at: |moment| {
        let [first, second] = corrections(moment);
        moment.learning_rate / first * second.sqrt()
    },
};

const ADAM_EPS: Scalar = Scalar {
    name: "adam_eps",
    at: |moment| match moment.optimizer {
        Optimizer::AdamW { eps, .. } => eps * corrections(moment)[1].sqrt(),
        Optimizer::Sgd { .. } => 0.0,
    },
};

/// `1 - beta^t` for both moments.
fn corrections(moment: &Moment) -> [f64; 2] {
    match moment.optimizer {
        Optimizer::AdamW { betas, .. } => betas.map(|beta| 1.0 - beta.powf(moment.number as f64)),
        Optimizer::Sgd { .. } => [1.0; 2],
    }
}

fn adamw(site: &mut Site, parameter: Value, gradient: Value, betas: [f64; 2], weight_decay: f64) -> Result<Value> {
    let (old_first, old_second) = (site.state("first_moment")?, site.state("second_moment")?);
    let first = blend(site, old_first, gradient, betas[0])?;
    let square = site.builder.mul(gradient, gradient)?;
    let second = blend(site, old_second, square, betas[1])?;
    site.keep("first_moment", first);
    site.keep("second_moment", second);
    let kept = match weight_decay {
        0.0 => parameter,
        _ => {
            let factor = site.scalar(KEPT)?;
            site.builder.mul(parameter, factor)?
        }
    };
    let (rate, eps) = (site.scalar(ADAM_RATE)?, site.scalar(ADAM_EPS)?);
    let root = site.builder.op("Sqrt", &[second], &[])?;
    let size = site.builder.add(root, eps)?;
    let direction = site.builder.op("Div", &[first, size], &[])?;
    let step = site.builder.mul(direction, rate)?;
    site.builder.op("Sub", &[kept, step], &[])
}

/// `beta old + (1 - beta) new`.
fn blend(site: &mut Site, old: Value, new: Value, beta: f64) -> Result<Value> {
    let (old, new) = (site.builder.scale(old, beta as f32)?, site.builder.scale(new, (1.0 - beta) as f32)?);
    site.builder.add(old, new)
}

/// PyTorch starts the buffer with the first gradient, which is what a buffer of zeros gives.
fn momentum_direction(site: &mut Site, gradient: Value, momentum: f32, nesterov: bool) -> Result<Value> {
    let old = site.state("momentum")?;
    let old = site.builder.scale(old, momentum)?;
    let buffer = site.builder.add(old, gradient)?;
    site.keep("momentum", buffer);
    if !nesterov {
        return Ok(buffer);
    }
    let ahead = site.builder.scale(buffer, momentum)?;
    site.builder.add(gradient, ahead)
}
