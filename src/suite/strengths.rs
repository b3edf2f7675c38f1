//! The projection strengths of stored training runs: over steps, and per layer over epochs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::run_names::names;
use crate::error::{Error, Result};
use crate::stats::{Band, bands};
use crate::store::{Store, TrainingRunId};

/// Series of the projection strength; that of one tensor has the tensor's name after a `/`.
const STRENGTH: &str = "omega";

/// Points of a curve that are shown at most.
const BANDS: usize = 200;

/// What comes before the number of a layer in the name of a tensor.
const LAYERS: &str = ".layers.";

/// The projection strengths of one run.
#[derive(Debug, Clone)]
pub struct StoredStrengths {
    /// The method and the settings in which runs of the store differ.
    pub name: String,
    /// The method.
    pub method: Option<String>,
    /// The mean over all tensors, by optimiser step.
    pub by_step: Vec<Band>,
    /// The mean over the tensors of a layer, epoch by epoch.
    pub by_layer: Vec<LayerStrength>,
}

/// The projection strength of one layer after one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerStrength {
    /// Where the layer is.
    pub tower: Tower,
    /// Its number there, from 0.
    pub layer: usize,
    /// Epochs done, from 1.
    pub epoch: usize,
    /// Mean over the layer's tensors.
    pub strength: f64,
}

/// A stack of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tower {
    /// What reads images.
    Vision,
    /// What reads and writes text.
    Language,
}

impl Tower {
    /// What it is.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vision => "vision tower",
            Self::Language => "language decoder",
        }
    }
}

impl StoredStrengths {
    /// For each epoch its number and the strength of each layer of a tower.
    pub fn epochs_of(&self, tower: Tower) -> Vec<(usize, Vec<(usize, f64)>)> {
        let mut epochs: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
        for row in self.by_layer.iter().filter(|row| row.tower == tower) {
            epochs.entry(row.epoch).or_default().push((row.layer, row.strength));
        }
        epochs.into_iter().collect()
    }
}

/// The projection strengths of every run of these stores that recorded them.
///
/// # Errors
/// A store cannot be read.
pub fn stored_strengths(stores: &[Store]) -> Result<Vec<StoredStrengths>> {
    let mut found = Vec::new();
    let mut settings = Vec::new();
    let mut runs = Vec::new();
    for store in stores {
        runs.extend(store.training_runs()?.into_iter().map(|(run, json)| (store, run, json)));
    }
    for (store, run, json) in runs {
        let by_step = store.curve(run, STRENGTH)?;
        if by_step.is_empty() {
            continue;
        }
        let by_step = bands(&by_step.iter().map(|(step, value)| (*step as f64, *value)).collect::<Vec<_>>(), BANDS);
        let value: Value = serde_json::from_str(&json).map_err(|cause| {
            Error::internal("the settings of a training run in the store are damaged").caused_by(cause)
        })?;
        let method = value["method"].as_str().map(str::to_owned);
        settings.push(value);
        found.push(StoredStrengths { name: String::new(), method, by_step, by_layer: by_layer(store, run)? });
    }
    for (strengths, name) in found.iter_mut().zip(names(&settings)) {
        strengths.name = name;
    }
    Ok(found)
}

fn by_layer(store: &Store, run: TrainingRunId) -> Result<Vec<LayerStrength>> {
    let mut sums: BTreeMap<(usize, Tower, usize), (f64, usize)> = BTreeMap::new();
    for series in store.series(run)? {
        let Some((tower, layer)) = series.strip_prefix(STRENGTH).and_then(|name| place(name.strip_prefix('/')?)) else {
            continue;
        };
        for (epoch, (_, strength)) in (1..).zip(store.curve(run, &series)?) {
            let (sum, count) = sums.entry((epoch, tower, layer)).or_default();
            *sum += strength;
            *count += 1;
        }
    }
    let mean = |((epoch, tower, layer), (sum, count)): (_, (f64, usize))| LayerStrength {
        tower,
        layer,
        epoch,
        strength: sum / count as f64,
    };
    Ok(sums.into_iter().map(mean).collect())
}

/// The tower and the layer that a tensor belongs to, by its name in a checkpoint.
fn place(tensor: &str) -> Option<(Tower, usize)> {
    let (before, after) = tensor.split_once(LAYERS)?;
    let layer = after.split('.').next()?.parse().ok()?;
    let tower = if before.contains("vision") { Tower::Vision } else { Tower::Language };
    Some((tower, layer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_placed_by_name() {
        let vision = "model.vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight";
        assert_eq!(place(vision), Some((Tower::Vision, 3)));
        assert_eq!(place("model.language_model.layers.11.mlp.up_proj.weight"), Some((Tower::Language, 11)));
        assert_eq!(place("model.multi_modal_projector.linear.weight"), None);
    }
}
