//! New models: the values that tensors have before any training.

use std::collections::BTreeMap;
use std::path::Path;

use super::{family_of, read_json};
use crate::error::{Error, Result};
use crate::random::Random;
use crate::tensor::Tensor;

/// What the elements of a tensor are drawn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// All the same.
    Constant(f64),
    /// Normal around zero.
    Normal {
        /// Standard deviation.
        spread: f64,
    },
    /// Normal around zero, drawn again where the absolute value is above the limit.
    TruncatedNormal {
        /// Standard deviation before values are cut off.
        spread: f64,
        /// Largest absolute value.
        limit: f64,
    },
    /// Uniform between `-bound` and `bound`.
    Uniform {
        /// Largest absolute value.
        bound: f64,
    },
}

impl Distribution {
    /// Xavier's uniform distribution for a matrix `[outputs, inputs]` (Glorot and Bengio 2010, eq. 16).
    pub fn xavier_uniform([outputs, inputs]: [usize; 2]) -> Self {
        Self::Uniform { bound: (6.0 / (inputs + outputs) as f64).sqrt() }
    }

    /// A tensor in f32 whose elements depend on its name, the seed and their position alone.
    ///
    /// # Errors
    /// None but those of a shape that is too large.
    pub fn draw(self, shape: &[usize], name: &str, seed: u64) -> Result<Tensor> {
        let random = Random::new(seed).name(name);
        let count: usize = shape.iter().product();
        let values = (0..count as u64).map(|index| self.element(random, index) as f32);
        Tensor::new(shape, values.collect::<Vec<f32>>())
    }

    fn element(self, random: Random, index: u64) -> f64 {
        match self {
            Self::Constant(value) => value,
            Self::Uniform { bound } => bound * (2.0 * random.uniform(index) - 1.0),
            Self::Normal { spread } => spread * random.normal(index),
            Self::TruncatedNormal { spread, limit } => {
                let mut draws = (0..).map(|attempt| spread * random.number(attempt).normal(index));
                draws.find(|value| value.abs() <= limit).unwrap_or(0.0)
            }
        }
    }
}

/// A tensor of a new model.
#[derive(Debug, Clone, PartialEq)]
pub struct InitialTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Where its elements come from.
    pub distribution: Distribution,
    /// Row of a matrix that is zero: the embedding of the padding token.
    pub zero_row: Option<usize>,
}

/// All tensors of a new model in f32, by their names in a checkpoint that transformers 5 writes. `folder` holds its
/// `config.json`; see [`super::saving::save_new`] for making a checkpoint of both.
///
/// # Errors
/// Input error naming the file and what is wrong with it.
pub fn initialise(folder: &Path, seed: u64) -> Result<BTreeMap<String, Tensor>> {
    let path = folder.join("config.json");
    let within = |error: Error| error.within(format!("cannot use `{}`", path.display()));
    let config = read_json(&path)?;
    let family = family_of(&config).map_err(within)?;
    let tensors = (family.initial)(&config).map_err(within)?;
    tensors.iter().map(|tensor| Ok((tensor.name.clone(), tensor.values(seed)?))).collect()
}

impl InitialTensor {
    fn values(&self, seed: u64) -> Result<Tensor> {
        let tensor = self.distribution.draw(&self.shape, &self.name, seed)?;
        let Some(row) = self.zero_row else { return Ok(tensor) };
        let width = self.shape.last().copied().unwrap_or(0);
        let mut values = tensor.values::<f32>()?.to_vec();
        if let Some(row) = values.chunks_mut(width.max(1)).nth(row) {
            row.fill(0.0);
        }
        Tensor::new(self.shape.as_slice(), values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_depend_on_seed_name_and_position_alone() {
        let normal = Distribution::Normal { spread: 1.0 };
        let long = normal.draw(&[64], "a.weight", 1).unwrap();
        let short = normal.draw(&[2, 3], "a.weight", 1).unwrap();
        assert_eq!(short.values::<f32>().unwrap(), &long.values::<f32>().unwrap()[..6]);
        assert_ne!(normal.draw(&[64], "a.weight", 2).unwrap(), long);
        assert_ne!(normal.draw(&[64], "b.weight", 1).unwrap(), long);
    }

    /// Mean, variance and kurtosis of 200,000 elements, within six standard errors.
    #[test]
    fn moments_are_those_of_the_distributions() {
        let truncated = Distribution::TruncatedNormal { spread: 1.0, limit: 1.0 };
        // Of a standard normal cut off at 1, with c = 2 phi(1) / (2 Phi(1) - 1): variance 1 - c, fourth moment 3 - 4 c.
        let rows = [
            (Distribution::Normal { spread: 1.0 }, 1.0f64, 3.0f64),
            (Distribution::Uniform { bound: 1.0 }, 1.0 / 3.0, 1.8),
            (truncated, 0.291_125, 1.940_9),
        ];
        for (distribution, variance, kurtosis) in rows {
            let drawn = distribution.draw(&[200_000], "x", 3).unwrap();
            let values: Vec<f64> = drawn.values::<f32>().unwrap().iter().map(|value| f64::from(*value)).collect();
            let count = values.len() as f64;
            let moment = |power: i32| values.iter().map(|value| value.powi(power)).sum::<f64>() / count;
            let error = 6.0 / count.sqrt();
            assert!(moment(1).abs() < error * variance.sqrt(), "{distribution:?}");
            assert!((moment(2) / variance - 1.0).abs() < error * (kurtosis - 1.0).sqrt(), "{distribution:?}");
            assert!((moment(4) / moment(2).powi(2) - kurtosis).abs() < 0.07, "{distribution:?}");
        }
        let largest = truncated.draw(&[100_000], "x", 4).unwrap();
        assert!(largest.values::<f32>().unwrap().iter().all(|value| value.abs() <= 1.0));
    }
}
