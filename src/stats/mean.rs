//! Means of values that come in clusters, and means that demand every value.

use serde::Serialize;

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean of values that come in clusters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Plain mean of the values, in their unit.
    pub mean: f64,
    /// Cluster-robust standard error of the mean; none with fewer than two clusters.
    pub standard_error: Option<f64>,
    /// 95 % interval, not clamped to the values' range; none with fewer than two clusters.
    pub interval: Option<[f64; 2]>,
    /// Number of values.
    pub n: usize,
    /// Number of distinct clusters.
    pub clusters: usize,
}

impl Estimate {
    /// 95 % interval of a mean of values from 0 to 1, within that range; none with fewer than two clusters.
    ///
    /// Where all values are 0, or all are 1, Student's interval has no width, however few they are. The exact one of Clopper
    /// and Pearson stands in its place, which takes each cluster as one trial: exact where clusters are of one size.
    pub fn share_interval(&self) -> Option<[f64; 2]> {
        let reach = 1.0 - 0.025_f64.powf(1.0 / self.clusters as f64);
        match self.interval? {
            [0.0, 0.0] => Some([0.0, reach]),
            [1.0, 1.0] => Some([1.0 - reach, 1.0]),
            interval => Some(interval.map(|bound| bound.clamp(0.0, 1.0))),
        }
    }
}

/// Mean of `values` with a 95 % interval that allows for dependence within clusters; none without values.
///
/// `clusters` names the cluster of each value. The variance is the cluster-robust (sandwich) one of a regression on a
/// constant, G / (G - 1) * sum over clusters of (sum of residuals)^2 / n^2 (Cameron and Miller 2015, "A Practitioner's
/// Guide to Cluster-Robust Inference", equations 11 and 12 with one regressor), and the interval is Student's with
/// G - 1 degrees of freedom. With one value a cluster this is the ordinary t interval.
///
/// Slices of different lengths are cut to the shorter one.
pub fn clustered_mean(values: &[f64], clusters: &[u32]) -> Option<Estimate> {
    let n = values.len().min(clusters.len());
    if n == 0 {
        return None;
    }
    let mean = values[..n].iter().sum::<f64>() / n as f64;
    let (squares, count) = squared_residual_sums(&values[..n], &clusters[..n], mean);
    let mut estimate = Estimate { mean, standard_error: None, interval: None, n, clusters: count };
    if count > 1 {
        let free = count as f64 - 1.0;
        let error = (count as f64 / free * squares).sqrt() / n as f64;
        estimate.standard_error = Some(error);
        estimate.interval = StudentsT::new(0.0, 1.0, free).ok().map(|student| {
            let reach = student.inverse_cdf(0.975) * error;
            [mean - reach, mean + reach]
        });
    }
    Some(estimate)
}

/// Plain mean of values that are all there; none where one is missing, or all are.
pub fn complete_mean(values: &[Option<f64>]) -> Option<f64> {
    let known: Vec<f64> = values.iter().copied().collect::<Option<_>>()?;
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

/// Sample standard deviation (n - 1 in the denominator), in the unit of the values; none with fewer than two.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt())
}

/// Sum over clusters of the squared sum of residuals, and the number of clusters.
fn squared_residual_sums(values: &[f64], clusters: &[u32], mean: f64) -> (f64, usize) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&index| clusters[index]);
    let mut squares = 0.0;
    let mut count = 0;
    for members in order.chunk_by(|&left, &right| clusters[left] == clusters[right]) {
        let sum: f64 = members.iter().map(|&index| values[index] - mean).sum();
        squares += sum * sum;
        count += 1;
    }
    (squares, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.binomtest(n, n).proportion_ci(method="exact")` of SciPy 1.17.1.
    #[test]
    fn shares_that_are_all_alike_have_exact_intervals() {
        for (n, low) in [(2_u32, 0.15811388300839305), (12, 0.7353515306029488), (50, 0.9288782635357954)] {
            let clusters: Vec<u32> = (0..n).collect();
            let of =
                |value: f64| clustered_mean(&vec![value; n as usize], &clusters).unwrap().share_interval().unwrap();
            let ([from, to], [none, most]) = (of(1.0), of(0.0));
            assert!((from - low).abs() < 1e-12 && (most - (1.0 - low)).abs() < 1e-12, "{n}: {from} {most}");
            assert_eq!((to, none), (1.0, 0.0));
        }
        assert_eq!(clustered_mean(&[1.0, 1.0], &[3, 3]).unwrap().share_interval(), None);
        let wide = clustered_mean(&[0.0, 1.0], &[0, 1]).unwrap();
        assert_eq!((wide.share_interval(), wide.interval.unwrap()[0] < 0.0), (Some([0.0, 1.0]), true));
    }

    #[test]
    fn no_values_give_no_estimate_and_one_cluster_no_interval() {
        assert_eq!(clustered_mean(&[], &[]), None);
        let estimate = clustered_mean(&[0.25, 0.75], &[3, 3]).unwrap();
        assert_eq!((estimate.mean, estimate.standard_error, estimate.interval), (0.5, None, None));
        assert_eq!((estimate.n, estimate.clusters), (2, 1));
    }

    #[test]
    fn nothing_is_averaged_over_what_happens_to_exist() {
        assert_eq!(complete_mean(&[Some(1.0), Some(2.0), Some(6.0)]), Some(3.0));
        assert_eq!((complete_mean(&[Some(1.0), None]), complete_mean(&[])), (None, None));
    }

    #[test]
    fn a_deviation_needs_two_values() {
        assert_eq!((deviation(&[]), deviation(&[3.0])), (None, None));
        assert_eq!(deviation(&[1.0, 2.0, 3.0, 4.0]), Some((5.0_f64 / 3.0).sqrt()));
    }

    #[test]
    fn single_values_give_the_ordinary_t_interval() {
        let estimate = clustered_mean(&[1.0, 2.0, 3.0, 4.0], &[9, 2, 5, 7]).unwrap();
        // t(0.975, 3) = 3.182446305 and the standard error is sqrt(5/3) / 2.
        let reach = 3.182_446_305_284_263 * (5.0_f64 / 3.0).sqrt() / 2.0;
        let [low, high] = estimate.interval.unwrap();
        assert!((low - (2.5 - reach)).abs() < 1e-9 && (high - (2.5 + reach)).abs() < 1e-9);
    }

    #[test]
    fn repeating_every_value_within_its_cluster_changes_nothing() {
        let once = clustered_mean(&[0.0, 0.3, 1.0], &[0, 1, 2]).unwrap();
        let twice = clustered_mean(&[0.0, 0.0, 0.3, 0.3, 1.0, 1.0], &[0, 0, 1, 1, 2, 2]).unwrap();
        assert!((once.standard_error.unwrap() - twice.standard_error.unwrap()).abs() < 1e-12);
        assert_eq!(twice.n, 6);
    }
}
