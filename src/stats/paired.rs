//! Two runs on the same samples: how far apart they are, and whether that is more than chance.

use super::bootstrap::{Clusters, Resampling, percentile_interval, percentile_p_value};
use super::tail::{coin_p_value, normal_p_value};

/// A difference of means of the same samples, `current` less `baseline`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedDifference {
    /// Mean of the differences, in their unit.
    pub difference: f64,
    /// 95 % percentile interval of the cluster bootstrap; none with fewer than two clusters.
    pub interval: Option<[f64; 2]>,
    /// Two-sided p-value of no difference, from the same replicates; at least 2 / (replicates + 1).
    pub p_value: Option<f64>,
    /// Number of samples.
    pub n: usize,
    /// Number of distinct clusters.
    pub clusters: usize,
}

/// Mean of `current` less that of `baseline`, with an interval and a p-value that allow for dependence within clusters.
///
/// Position by position the slices hold both values and the cluster of a sample. Clusters are drawn with replacement,
/// and a replicate is the mean over all samples in the drawn ones. The p-value is the level at which the percentile
/// interval ends at 0. None without samples, for slices of different lengths, and where a value is not finite.
pub fn paired_difference(
    baseline: &[f64],
    current: &[f64],
    clusters: &[u32],
    resampling: Resampling,
) -> Option<PairedDifference> {
    let n = baseline.len();
    let finite = baseline.iter().chain(current).all(|value| value.is_finite());
    if n == 0 || current.len() != n || clusters.len() != n || !finite {
        return None;
    }
    let clusters = Clusters::new(clusters);
    let differences = clusters.sums(|sample| current[sample] - baseline[sample]);
    let sizes = clusters.sums(|_| 1.0);
    let replicate = |drawn: &[u32]| {
        let sum =
            |values: &[f64]| values.iter().zip(drawn).map(|(value, &times)| value * f64::from(times)).sum::<f64>();
        Some(sum(&differences) / sum(&sizes))
    };
    let values = resampling.sorted_values(clusters.count, replicate);
    Some(PairedDifference {
        difference: differences.iter().sum::<f64>() / n as f64,
        interval: values.as_deref().map(percentile_interval),
        p_value: values.as_deref().map(percentile_p_value),
        n,
        clusters: clusters.count,
    })
}

/// McNemar's test of two runs that are right or wrong on the same samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disagreement {
    /// Samples that only the baseline has right.
    pub baseline_only: u64,
    /// Samples that only the current run has right.
    pub current_only: u64,
    /// Exact two-sided binomial p-value; 1 where the runs never disagree.
    pub exact_p_value: f64,
    /// Chi-square with one degree of freedom and continuity correction; none where the runs never disagree.
    pub chi_square: Option<f64>,
    /// Its p-value.
    pub chi_square_p_value: Option<f64>,
}

/// Whether two runs are right equally often, judged by the samples on which only one of them is.
///
/// McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages"; the
/// correction, (|b - c| - 1)^2 / (b + c), is that of Edwards 1948 and never goes past 0. Both p-values take the samples
/// to be independent: where several share an image, [`paired_difference`] is the sounder test. None for slices of
/// different lengths.
pub fn mcnemar(baseline: &[bool], current: &[bool]) -> Option<Disagreement> {
    if baseline.len() != current.len() {
        return None;
    }
    let count = |only: [bool; 2]| baseline.iter().zip(current).filter(|(a, b)| [**a, **b] == only).count() as u64;
    let (baseline_only, current_only) = (count([true, false]), count([false, true]));
    let differing = baseline_only + current_only;
    let excess = baseline_only.abs_diff(current_only).saturating_sub(1) as f64;
    let chi_square = (differing > 0).then(|| excess * excess / differing as f64);
    Some(Disagreement {
        baseline_only,
        current_only,
        exact_p_value: coin_p_value(baseline_only.min(current_only), differing)?,
        chi_square,
        // A chi-square with one degree of freedom is the square of a standard normal number.
        chi_square_p_value: chi_square.map(|chi_square| normal_p_value(chi_square.sqrt())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLING: Resampling = Resampling { replicates: 500, seed: 3 };

    #[test]
    fn a_difference_needs_pairs_and_its_interval_clusters() {
        let difference =
            |current: &[f64], clusters: &[u32]| paired_difference(&[0.0, 1.0], current, clusters, RESAMPLING);
        let one = difference(&[0.5, 1.0], &[4, 4]).unwrap();
        assert_eq!((one.difference, one.interval, one.p_value, one.clusters), (0.25, None, None, 1));
        assert_eq!((difference(&[0.5], &[1, 2]), difference(&[0.5, 1.0], &[1])), (None, None));
        assert_eq!((difference(&[f64::NAN, 1.0], &[1, 2]), paired_difference(&[], &[], &[], RESAMPLING)), (None, None));
    }

    #[test]
    fn a_run_does_not_differ_from_itself() {
        let values = [0.0, 1.0, 0.3, 0.6];
        let same = paired_difference(&values, &values, &[0, 1, 1, 2], RESAMPLING).unwrap();
        assert_eq!((same.difference, same.interval, same.p_value), (0.0, Some([0.0, 0.0]), Some(1.0)));
    }

    #[test]
    fn runs_that_never_disagree_are_alike() {
        let alike = mcnemar(&[true, false], &[true, false]).unwrap();
        assert_eq!((alike.exact_p_value, alike.chi_square, alike.chi_square_p_value), (1.0, None, None));
        let balanced = mcnemar(&[true, false], &[false, true]).unwrap();
        assert_eq!(
            (balanced.exact_p_value, balanced.chi_square, balanced.chi_square_p_value),
            (1.0, Some(0.0), Some(1.0))
        );
        assert_eq!(mcnemar(&[true], &[]), None);
    }
}
