//! How well a score tells samples with a property from those without it.

use serde::Serialize;

use super::bootstrap::Clusters;
use super::rank::Levels;
use super::tail::NORMAL;

/// The area under the ROC curve of a score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Discrimination {
    /// Probability that a positive sample has the higher score of a pair with a negative one, where a tie counts half:
    /// 0.5 for a score that says nothing.
    pub area: f64,
    /// Cluster-robust standard error; none with fewer than two clusters of either outcome, and where the score never
    /// errs.
    pub standard_error: Option<f64>,
    /// 95 % interval, within 0 and 1; none where there is no standard error.
    pub interval: Option<[f64; 2]>,
    /// Number of samples whose outcome is true.
    pub positives: usize,
    /// Number of the others.
    pub negatives: usize,
    /// Number of distinct clusters.
    pub clusters: usize,
}

/// Area under the ROC curve of `scores` for the true among `outcomes`, with an interval that allows for dependence
/// within clusters.
///
/// The area is the Mann-Whitney statistic, from mid-ranks. Its variance is that of Obuchowski 1997, "Nonparametric
/// Analysis of Clustered ROC Curve Data": the components of DeLong, DeLong and Clarke-Pearson 1988 are summed within
/// each cluster, where positive and negative samples may stand together. With one sample a cluster it is DeLong's. The
/// interval is normal for the logit of the area, which keeps it within 0 and 1 (Pepe 2003, "The Statistical Evaluation
/// of Medical Tests for Classification and Prediction"). Time is that of sorting.
///
/// None without positives or negatives, for slices of different lengths, and where a score is not finite.
pub fn discrimination(scores: &[f64], outcomes: &[bool], clusters: &[u32]) -> Option<Discrimination> {
    let positives = outcomes.iter().filter(|outcome| **outcome).count();
    let negatives = outcomes.len() - positives;
    let paired = scores.len() == outcomes.len() && clusters.len() == outcomes.len();
    if !paired || positives == 0 || negatives == 0 || !scores.iter().all(|score| score.is_finite()) {
        return None;
    }
    let shares = shares_beaten(scores, outcomes, [negatives, positives]);
    let positive_shares = shares.iter().zip(outcomes).filter(|(_, outcome)| **outcome).map(|(share, _)| share);
    let area = positive_shares.sum::<f64>() / positives as f64;
    let clusters = Clusters::new(clusters);
    let variance = clustered_variance(&shares, outcomes, area, &clusters).filter(|variance| *variance > 0.0);
    let standard_error = variance.map(f64::sqrt);
    let interval = standard_error.map(|error| logit_interval(area, error));
    Some(Discrimination { area, standard_error, interval, positives, negatives, clusters: clusters.count })
}

/// For each positive sample the share of the negatives below it, for each negative the share of the positives above it;
/// ties count half. `others` has the number of negatives and that of positives.
fn shares_beaten(scores: &[f64], outcomes: &[bool], others: [usize; 2]) -> Vec<f64> {
    let levels = Levels::new(scores);
    let among =
        |outcome: bool| levels.mid_ranks(&outcomes.iter().map(|o| u32::from(*o == outcome)).collect::<Vec<_>>());
    let (all, within) = (levels.mid_ranks(&vec![1; scores.len()]), [among(false), among(true)]);
    let share = |(&level, &outcome): (&u32, &bool)| {
        let level = level as usize;
        let below = all[level] - within[usize::from(outcome)][level];
        if outcome { below / others[0] as f64 } else { 1.0 - below / others[1] as f64 }
    };
    levels.of.iter().zip(outcomes).map(share).collect()
}

/// Obuchowski's variance of the area; none with fewer than two clusters of either outcome.
fn clustered_variance(shares: &[f64], outcomes: &[bool], area: f64, clusters: &Clusters) -> Option<f64> {
    let within = |outcome: bool, value: &dyn Fn(usize) -> f64| {
        clusters.sums(|sample| if outcomes[sample] == outcome { value(sample) } else { 0.0 })
    };
    let [positive, negative] = [true, false].map(|outcome| {
        let sizes = within(outcome, &|_| 1.0);
        let total: f64 = sizes.iter().sum();
        let deviations = within(outcome, &|sample| (shares[sample] - area) / total);
        (deviations, sizes.iter().filter(|size| **size > 0.0).count())
    });
    if positive.1 < 2 || negative.1 < 2 {
        return None;
    }
    let product = |left: &[f64], right: &[f64]| left.iter().zip(right).map(|(a, b)| a * b).sum::<f64>();
    let factor = |count: usize| count as f64 / (count as f64 - 1.0);
    Some(
        factor(positive.1) * product(&positive.0, &positive.0)
            + factor(negative.1) * product(&negative.0, &negative.0)
            + 2.0 * factor(clusters.count) * product(&positive.0, &negative.0),
    )
}

fn logit_interval(area: f64, standard_error: f64) -> [f64; 2] {
    let spread = area * (1.0 - area);
    let (logit, reach) = ((area / (1.0 - area)).ln(), NORMAL * standard_error / spread);
    [logit - reach, logit + reach].map(|end| 1.0 / (1.0 + (-end).exp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_needs_both_outcomes_and_its_error_two_clusters_of_each() {
        assert_eq!(discrimination(&[1.0, 2.0], &[true, true], &[0, 1]), None);
        assert_eq!(discrimination(&[1.0, f64::NAN], &[true, false], &[0, 1]), None);
        assert_eq!((discrimination(&[1.0], &[true, false], &[0, 1]), discrimination(&[], &[], &[])), (None, None));
        let few = discrimination(&[1.0, 2.0, 1.0], &[false, true, true], &[0, 1, 1]).unwrap();
        assert_eq!((few.area, few.standard_error, few.interval), (0.75, None, None));
        assert_eq!((few.positives, few.negatives, few.clusters), (2, 1, 2));
    }

    #[test]
    fn a_score_that_never_errs_has_no_interval() {
        let perfect = discrimination(&[1.0, 2.0, 3.0, 4.0], &[false, false, true, true], &[0, 1, 2, 3]).unwrap();
        assert_eq!((perfect.area, perfect.standard_error, perfect.interval), (1.0, None, None));
    }

    #[test]
    fn turning_the_score_mirrors_area_and_interval() {
        let scores = [0.3, 0.1, 0.3, 0.8, 0.5, 0.2, 0.9, 0.4];
        let outcomes = [true, false, false, true, false, false, true, true];
        let clusters = [0, 0, 1, 2, 2, 3, 4, 5];
        let up = discrimination(&scores, &outcomes, &clusters).unwrap();
        let down = discrimination(&scores.map(|score| -score), &outcomes, &clusters).unwrap();
        assert!((up.area + down.area - 1.0).abs() < 1e-12);
        let ([low, _], [_, high]) = (up.interval.unwrap(), down.interval.unwrap());
        assert!((low + high - 1.0).abs() < 1e-12 && low > 0.0 && high < 1.0);
    }
}
