//! What the distances of a set of samples come down to.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::stats::{clustered_mean, quantile};

/// Which way distances point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Distances: more is further away. Printed in the paper's tables.
    Positive,
    /// Scores, as the paper's code stores them: more is closer.
    Negative,
}

impl Sign {
    /// Turns distances into what they are to be told as.
    pub fn apply(self, distances: &mut [f64]) {
        if self == Self::Negative {
            distances.iter_mut().for_each(|distance| *distance = -*distance);
        }
    }
}

/// The distances of a set of samples, summed up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Number of samples.
    pub n: usize,
    /// Number of features.
    pub dimension: usize,
    /// Number of directions that count.
    pub rank: usize,
    /// Mean of the distances.
    pub shift: f64,
    /// Its 95 % interval; none with one sample or cluster.
    pub interval: Option<[f64; 2]>,
    /// Quantiles of the distances.
    pub quantiles: Quantiles,
}

/// Names of the quantiles that are told, and where they lie.
pub const LEVELS: [(&str, f64); 9] = [
    ("min", 0.0),
    ("0.01", 0.01),
    ("0.05", 0.05),
    ("0.25", 0.25),
    ("0.5", 0.5),
    ("0.75", 0.75),
    ("0.95", 0.95),
    ("0.99", 0.99),
    ("max", 1.0),
];

/// The quantiles at [`LEVELS`], between two values in proportion, as `numpy.quantile` has them. A map in JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantiles(pub [f64; 9]);

impl Quantiles {
    /// Of values in any order; none without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        (!sorted.is_empty()).then(|| Self(LEVELS.map(|(_, level)| quantile(&sorted, level))))
    }
}

impl Serialize for Quantiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(LEVELS.len()))?;
        for ((name, _), value) in LEVELS.iter().zip(self.0) {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

/// Sums up the distances of samples from a [`Gaussian`](super::Gaussian); none without samples.
///
/// `clusters` names the cluster of each sample, such as its image; without it each sample is its own.
pub fn summarise(distances: &[f64], clusters: Option<&[u32]>, gaussian: &super::Gaussian) -> Option<Summary> {
    let own: Vec<u32> = if clusters.is_some() { Vec::new() } else { (0..).take(distances.len()).collect() };
    let estimate = clustered_mean(distances, clusters.unwrap_or(&own))?;
    Some(Summary {
        n: estimate.n,
        dimension: gaussian.dimension(),
        rank: gaussian.rank(),
        shift: estimate.mean,
        interval: estimate.interval,
        quantiles: Quantiles::of(distances)?,
    })
}
