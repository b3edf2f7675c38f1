//! The cluster bootstrap: whole clusters are drawn with replacement, so that what depends within them stays together.
//!
//! Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8; Field and Welsh 2007,
//! "Bootstrapping clustered data" (there: the randomised cluster bootstrap). A statistic is told how often each cluster
//! was drawn, so that it can be computed from sums per cluster.

use crate::random::Random;

/// How samples are drawn again. The same numbers give the same draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resampling {
    /// Number of samples that are drawn; 1,000 or more for an interval.
    pub replicates: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Resampling {
    /// The statistic's values in ascending order. The statistic gets how often each of the clusters was drawn.
    ///
    /// None with fewer than two clusters, without replicates, and where a replicate has no value: an interval of those
    /// that have one would be too narrow, and so few distinct clusters or values are too few for a bootstrap.
    pub(super) fn sorted_values(self, clusters: usize, statistic: impl Fn(&[u32]) -> Option<f64>) -> Option<Vec<f64>> {
        if clusters < 2 || self.replicates == 0 {
            return None;
        }
        let draws = Random::new(self.seed).name("bootstrap");
        let replicate = |number| statistic(&drawn(draws.number(number), clusters));
        let mut values = (0..self.replicates as u64).map(replicate).collect::<Option<Vec<f64>>>()?;
        values.sort_unstable_by(f64::total_cmp);
        Some(values)
    }
}

/// How often each cluster comes up in as many draws as there are clusters.
fn drawn(draws: Random, clusters: usize) -> Vec<u32> {
    let mut times = vec![0; clusters];
    (0..clusters as u64).for_each(|draw| times[draws.below(draw, clusters)] += 1);
    times
}

/// The percentile interval: the quantiles of 0.025 and 0.975. There is at least one value.
pub(super) fn percentile_interval(sorted: &[f64]) -> [f64; 2] {
    [0.025, 0.975].map(|share| quantile(sorted, share))
}

/// The quantile of a share from 0 to 1 of values in ascending order, linear between neighbours (type 7 of Hyndman and Fan
/// 1996, "Sample Quantiles in Statistical Packages", as in NumPy).
///
/// # Panics
/// Like slices, without values.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

/// The cluster of each sample, as numbers from 0 in the order of the names.
#[derive(Debug)]
pub(super) struct Clusters {
    pub of: Vec<u32>,
    pub count: usize,
}

impl Clusters {
    pub fn new(names: &[u32]) -> Self {
        let mut distinct = names.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let number = |name: &u32| distinct.partition_point(|other| other < name) as u32;
        Self { of: names.iter().map(number).collect(), count: distinct.len() }
    }

    /// Sum over the samples of each cluster.
    pub fn sums(&self, value: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.count];
        self.of.iter().enumerate().for_each(|(sample, &cluster)| sums[cluster as usize] += value(sample));
        sums
    }

    /// How often each sample counts where its cluster counts as often as `drawn` says.
    pub fn times(&self, drawn: &[u32]) -> Vec<u32> {
        self.of.iter().map(|&cluster| drawn[cluster as usize]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_drawn_with_replacement_and_alike_for_a_seed() {
        let sums = |seed| {
            let total = |drawn: &[u32]| Some(f64::from(drawn.iter().sum::<u32>()) + f64::from(drawn[0]) / 100.0);
            Resampling { replicates: 2000, seed }.sorted_values(4, total).unwrap()
        };
        let values = sums(1);
        assert_eq!((values[0], *values.last().unwrap()), (4.0, 4.04));
        // The count of one cluster is binomial (4, 1/4): its mean is 1, with a standard error of 0.019.
        let mean = values.iter().map(|value| (value - 4.0) * 100.0).sum::<f64>() / 2000.0;
        assert!((mean - 1.0).abs() < 0.1, "{mean}");
        assert_eq!((values == sums(1), values == sums(2)), (true, false));
    }

    #[test]
    fn there_is_no_interval_where_a_replicate_has_no_value() {
        let resampling = Resampling { replicates: 100, seed: 0 };
        assert_eq!(resampling.sorted_values(3, |drawn| (drawn[0] > 0).then_some(1.0)), None);
        assert_eq!(resampling.sorted_values(1, |_| Some(1.0)), None);
        assert_eq!(Resampling { replicates: 0, seed: 0 }.sorted_values(3, |_| Some(1.0)), None);
        assert_eq!(resampling.sorted_values(3, |_| Some(1.0)), Some(vec![1.0; 100]));
    }

    #[test]
    fn quantiles_are_linear_between_neighbours() {
        let close = |ours: [f64; 2], [low, high]: [f64; 2]| (ours[0] - low).abs() + (ours[1] - high).abs() < 1e-12;
        assert!(close(percentile_interval(&[1.0, 2.0, 4.0]), [1.05, 3.9]));
        assert!(close(percentile_interval(&[7.0]), [7.0, 7.0]));
    }

    #[test]
    fn samples_count_as_often_as_their_cluster() {
        let clusters = Clusters::new(&[70, 5, 70, 900]);
        assert_eq!((clusters.of.as_slice(), clusters.count), ([1, 0, 1, 2].as_slice(), 3));
        assert_eq!(clusters.sums(|sample| sample as f64), [1.0, 2.0, 3.0]);
        assert_eq!(clusters.times(&[0, 2, 1]), [2, 0, 2, 1]);
    }
}
