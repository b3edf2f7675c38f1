//! Two runs on the same samples: whether one is lower by more than chance, and how much lower it would have to be.
//!
//! The test is Fisher's randomisation test for pairs (Fisher 1935, "The Design of Experiments", section 21): where nothing
//! has changed, each difference is as likely to have the other sign. Samples of one cluster keep their signs together, so
//! that it is the sum of a cluster that changes its sign (Winkler et al. 2014, "Permutation inference for the general
//! linear model", section on exchangeability blocks: whole-block sign flipping). With clusters of one sample that is right
//! or wrong it is McNemar's exact test. Intervals of differences are those of [`super::clustered_mean`].

use super::bootstrap::Clusters;
use super::tail::{normal_quantile, normal_share_below};

/// Differences of clusters are rounded to this part of a score. VQA scores are multiples of 1/30, or of 1/3, which stay as
/// they are; whatever the rounding, it is the same for both signs, so that the test stays exact.
const LATTICE: f64 = 3000.0;

/// Most additions for the exact distribution: a fraction of a second. There are at least thousands of clusters where it is
/// not enough, and the normal distribution is close.
const WORK_LIMIT: u64 = 50_000_000;

/// Whether differences of pairs are lower, or other, than chance lets expect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignFlip {
    /// One-sided: how often random signs give a sum as low as this one, or lower; 1 where no cluster differs.
    pub drop_p_value: f64,
    /// Two-sided: how often they give a sum as far from 0.
    pub p_value: f64,
    /// Number of clusters whose sum is not 0: the others tell nothing.
    pub differing: usize,
    /// Whether all signs were counted, rather than taken to be normal.
    pub exact: bool,
}

/// The sign-flip test of `differences`, with the cluster of each. The distribution over all signs is computed, none are
/// drawn; where that takes too long it is taken to be normal, with a correction for continuity.
///
/// None without samples, for slices of different lengths, and where a difference is not finite.
pub fn sign_flip(differences: &[f64], clusters: &[u32]) -> Option<SignFlip> {
    sign_flip_within(WORK_LIMIT, differences, clusters)
}

fn sign_flip_within(work_limit: u64, differences: &[f64], clusters: &[u32]) -> Option<SignFlip> {
    if differences.is_empty() || clusters.len() != differences.len() {
        return None;
    }
    if differences.iter().any(|difference| !difference.is_finite()) {
        return None;
    }
    let sums = Clusters::new(clusters).sums(|sample| differences[sample]);
    let mut steps: Vec<i64> = sums.iter().map(|sum| (sum * LATTICE).round() as i64).filter(|step| *step != 0).collect();
    let unit = steps.iter().fold(0, |unit, step| greatest_common_divisor(unit, step.unsigned_abs()));
    if steps.is_empty() {
        return Some(SignFlip { drop_p_value: 1.0, p_value: 1.0, differing: 0, exact: true });
    }
    steps.iter_mut().for_each(|step| *step /= unit as i64);
    let size: u64 = steps.iter().map(|step| step.unsigned_abs()).sum();
    let exact = size.saturating_mul(steps.len() as u64) <= work_limit;
    let share_below = if exact { counted_share(&steps, size as usize) } else { normal_share(&steps, size) };
    // What rises are the steps up; the distribution is the same on both sides of its middle.
    let risen: u64 = steps.iter().filter(|step| **step > 0).map(|step| step.unsigned_abs()).sum();
    Some(SignFlip {
        drop_p_value: share_below(risen).min(1.0),
        p_value: (2.0 * share_below(risen.min(size - risen))).min(1.0),
        differing: steps.len(),
        exact,
    })
}

fn greatest_common_divisor(left: u64, right: u64) -> u64 {
    if right == 0 { left } else { greatest_common_divisor(right, left % right) }
}

/// How often the steps that rise, each with probability one half, add up to a number or less.
fn counted_share(steps: &[i64], size: usize) -> Box<dyn Fn(u64) -> f64> {
    let mut shares = vec![0.0; size + 1];
    shares[0] = 1.0;
    let mut reached = 0;
    for step in steps.iter().map(|step| step.unsigned_abs() as usize) {
        reached += step;
        // From above, so that what is read has not been changed yet.
        for sum in (0..=reached).rev() {
            let risen = if sum >= step { shares[sum - step] } else { 0.0 };
            shares[sum] = 0.5 * (shares[sum] + risen);
        }
    }
    Box::new(move |sum| shares.iter().take(sum as usize + 1).sum())
}

/// The same where the sum is taken to be normal; the correction is half a step of one.
fn normal_share(steps: &[i64], size: u64) -> Box<dyn Fn(u64) -> f64> {
    let deviation = steps.iter().map(|step| (*step as f64).powi(2)).sum::<f64>().sqrt() / 2.0;
    Box::new(move |sum| normal_share_below((sum as f64 + 0.5 - size as f64 / 2.0) / deviation))
}

/// The least difference that a one-sided test at a level finds with a probability, the power, where differences vary as
/// their standard error says: the sum of both normal quantiles, times that error (Bloom 1995, "Minimum Detectable
/// Effects").
///
/// None without variation, and for a level or power that is not between 0 and 1.
pub fn detectable_difference(standard_error: f64, level: f64, power: f64) -> Option<f64> {
    let reach = normal_quantile(1.0 - level)? + normal_quantile(power)?;
    (standard_error > 0.0).then_some(reach * standard_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_test_without_pairs() {
        assert_eq!((sign_flip(&[], &[]), sign_flip(&[1.0], &[])), (None, None));
        assert_eq!(sign_flip(&[f64::NAN, 1.0], &[1, 2]), None);
    }

    #[test]
    fn a_run_does_not_differ_from_itself() {
        let alike = SignFlip { drop_p_value: 1.0, p_value: 1.0, differing: 0, exact: true };
        assert_eq!(sign_flip(&[0.0, 0.0, 0.0], &[1, 1, 2]), Some(alike));
        // What is lost and gained within one image is no difference of images.
        assert_eq!(sign_flip(&[-0.3, 0.3, 0.0], &[1, 1, 2]), Some(alike));
    }

    #[test]
    fn signs_are_those_of_clusters() {
        // Four losses: 1 of 16 signs is as low; on two images, 1 of 4.
        let alone = sign_flip(&[-1.0; 4], &[1, 2, 3, 4]).unwrap();
        assert_eq!((alone.drop_p_value, alone.p_value, alone.differing), (0.0625, 0.125, 4));
        let together = sign_flip(&[-1.0; 4], &[1, 1, 2, 2]).unwrap();
        assert_eq!((together.drop_p_value, together.p_value, together.differing), (0.25, 0.5, 2));
        let gained = sign_flip(&[1.0; 4], &[1, 2, 3, 4]).unwrap();
        assert_eq!((gained.drop_p_value, gained.p_value), (1.0, 0.125));
    }

    #[test]
    fn many_clusters_are_nearly_normal() {
        let differences: Vec<f64> =
            (0..600u32).map(|sample| f64::from(sample % 7) * 0.1 * if sample % 9 < 5 { -1.0 } else { 1.0 }).collect();
        let clusters: Vec<u32> = (0..600).map(|sample| sample / 2).collect();
        let counted = sign_flip(&differences, &clusters).unwrap();
        let normal = sign_flip_within(0, &differences, &clusters).unwrap();
        assert!(counted.exact && !normal.exact, "{counted:?}");
        assert!((0.001..0.2).contains(&counted.drop_p_value), "{counted:?}");
        assert!((counted.drop_p_value - normal.drop_p_value).abs() < 2e-4, "{counted:?} {normal:?}");
        assert!((counted.p_value - normal.p_value).abs() < 4e-4, "{counted:?} {normal:?}");
    }

    #[test]
    fn a_detectable_difference_needs_variation() {
        // 1.6448536 + 0.8416212
        assert!((detectable_difference(2.0, 0.05, 0.8).unwrap() - 4.972_949_6).abs() < 1e-6);
        assert!(detectable_difference(2.0, 0.005, 0.8) > detectable_difference(2.0, 0.05, 0.8));
        assert_eq!((detectable_difference(0.0, 0.05, 0.8), detectable_difference(1.0, 0.0, 0.8)), (None, None));
    }
}
