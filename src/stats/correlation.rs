//! Coefficients of correlation, each with its p-value and interval: of independent pairs, and of pairs in clusters.

use serde::Serialize;

use super::bootstrap::{Clusters, Resampling, percentile_interval};
use super::rank::Levels;
use super::tail::{NORMAL, correlation_p_value, normal_p_value};

/// A coefficient of correlation. Adding one is adding a row to [`COEFFICIENTS`].
#[derive(Debug)]
pub struct Coefficient {
    /// Name in records.
    pub name: &'static str,
    /// Name in texts and tables.
    pub label: &'static str,
    /// The coefficient of independent pairs, position by position; see the functions in the table.
    pub correlate: fn(&[f64], &[f64]) -> Option<Correlation>,
    resampled: for<'a> fn(&'a [f64], &'a [f64], &'a Clusters) -> Resampled<'a>,
}

/// The coefficient of the clusters that were drawn, from how often each was.
type Resampled<'a> = Box<dyn Fn(&[u32]) -> Option<f64> + 'a>;

/// Every coefficient.
pub static COEFFICIENTS: &[Coefficient] = &[
    Coefficient { name: "pearson", label: "Pearson", correlate: pearson, resampled: resampled_pearson },
    Coefficient { name: "spearman", label: "Spearman", correlate: spearman, resampled: resampled_spearman },
    Coefficient { name: "kendall", label: "Kendall", correlate: kendall, resampled: resampled_kendall },
];

/// A correlation of independent pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Correlation {
    /// From -1 to 1.
    pub coefficient: f64,
    /// Two-sided p-value of no correlation.
    pub p_value: f64,
    /// 95 % interval, symmetric on the scale of Fisher's z; none for a coefficient of -1 or 1, whose z is infinite, and
    /// for too few pairs: three, and four for Kendall's.
    pub interval: Option<[f64; 2]>,
    /// Number of pairs.
    pub n: usize,
}

/// A correlation of pairs in clusters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClusteredCorrelation {
    /// From -1 to 1; that of independent pairs.
    pub coefficient: f64,
    /// 95 % percentile interval of the cluster bootstrap; none where a replicate has no coefficient.
    pub interval: Option<[f64; 2]>,
    /// Number of pairs.
    pub n: usize,
    /// Number of distinct clusters.
    pub clusters: usize,
}

impl Coefficient {
    /// The coefficient with an interval that allows for dependence within clusters, from whole clusters drawn with
    /// replacement.
    ///
    /// `clusters` names the cluster of each pair. Every replicate's coefficient is that of the drawn pairs; ranks are
    /// those among them, since the ranks of the whole sample would leave out how the ranks themselves vary. A replicate
    /// takes time in the number of clusters for Pearson's coefficient, of pairs for Spearman's, and Kendall's sorts the
    /// pairs.
    ///
    /// None where there is no coefficient (see [`pearson`]), and for slices of different lengths.
    pub fn clustered(
        &self,
        first: &[f64],
        second: &[f64],
        clusters: &[u32],
        resampling: Resampling,
    ) -> Option<ClusteredCorrelation> {
        let Correlation { coefficient, n, .. } = (self.correlate)(first, second)?;
        if clusters.len() != n {
            return None;
        }
        let clusters = Clusters::new(clusters);
        let values = resampling.sorted_values(clusters.count, (self.resampled)(first, second, &clusters));
        let interval = values.as_deref().map(percentile_interval);
        Some(ClusteredCorrelation { coefficient, interval, n, clusters: clusters.count })
    }
}

/// Pearson's product-moment coefficient.
///
/// The p-value is exact for independent normal pairs, as in SciPy's `pearsonr`; the standard error of Fisher's z is
/// 1 / sqrt(n - 3). None with fewer than three pairs, for slices of different lengths, where a value is not finite, and
/// where either side is constant.
pub fn pearson(first: &[f64], second: &[f64]) -> Option<Correlation> {
    let n = comparable(first, second)?;
    let (first, second) = (centred(first), centred(second));
    let coefficient = Moments::of(first.into_iter().zip(second).map(|pair| (1.0, pair))).correlation()?;
    let interval = fisher_interval(coefficient, 1.0, n as f64 - 3.0);
    Some(Correlation { coefficient, p_value: correlation_p_value(coefficient, n)?, interval, n })
}

/// Spearman's coefficient: Pearson's of the mid-ranks.
///
/// The p-value is that of Pearson's coefficient, as in SciPy's `spearmanr`; the standard error of Fisher's z is
/// sqrt((1 + r^2 / 2) / (n - 3)) (Bonett and Wright 2000, "Sample size requirements for estimating Pearson, Kendall and
/// Spearman correlations"). None where [`pearson`] has none.
pub fn spearman(first: &[f64], second: &[f64]) -> Option<Correlation> {
    let n = comparable(first, second)?;
    let coefficient = rank_correlation([&Levels::new(first), &Levels::new(second)], &vec![1; n])?;
    let interval = fisher_interval(coefficient, 1.0 + coefficient * coefficient / 2.0, n as f64 - 3.0);
    Some(Correlation { coefficient, p_value: correlation_p_value(coefficient, n)?, interval, n })
}

/// Kendall's tau-b, in the time of sorting (Knight 1966, "A Computer Method for Calculating Kendall's Tau with
/// Ungrouped Data").
///
/// Without ties, the p-value is exact for up to 33 pairs, and for more of them if at most one pair of pairs is
/// discordant, or concordant; otherwise it is that of a normal distribution whose variance allows for ties (Kendall
/// 1970, "Rank Correlation Methods"), as in SciPy's `kendalltau`. The variance of Fisher's z is 0.437 / (n - 4)
/// (Fieller, Hartley and Pearson 1957, "Tests for rank correlation coefficients I"). None where [`pearson`] has none.
pub fn kendall(first: &[f64], second: &[f64]) -> Option<Correlation> {
    let n = comparable(first, second)?;
    let order = Order::new(first, second);
    let concordance = order.concordance(&vec![1; n]);
    let coefficient = concordance.tau()?;
    let minority = concordance.discordant.min(concordance.pairs - concordance.discordant);
    let untied = concordance.tied_first == 0 && concordance.tied_second == 0;
    let p_value = match untied && (n <= 33 || minority <= 1) {
        true => exact_kendall_p_value(n, minority as usize),
        false => normal_p_value(concordance.excess() / order.variance().sqrt()),
    };
    Some(Correlation { coefficient, p_value, interval: fisher_interval(coefficient, 0.437, n as f64 - 4.0), n })
}

fn resampled_pearson<'a>(first: &'a [f64], second: &'a [f64], clusters: &'a Clusters) -> Resampled<'a> {
    let (first, second) = (centred(first), centred(second));
    let mut moments = vec![Moments::default(); clusters.count];
    for (pair, &cluster) in first.into_iter().zip(second).zip(&clusters.of) {
        moments[cluster as usize].add(1.0, Moments::of([(1.0, pair)]));
    }
    Box::new(move |drawn| {
        let mut sum = Moments::default();
        moments.iter().zip(drawn).for_each(|(moments, &times)| sum.add(f64::from(times), *moments));
        sum.correlation()
    })
}

fn resampled_spearman<'a>(first: &'a [f64], second: &'a [f64], clusters: &'a Clusters) -> Resampled<'a> {
    let levels = [Levels::new(first), Levels::new(second)];
    Box::new(move |drawn| rank_correlation([&levels[0], &levels[1]], &clusters.times(drawn)))
}

fn resampled_kendall<'a>(first: &'a [f64], second: &'a [f64], clusters: &'a Clusters) -> Resampled<'a> {
    let order = Order::new(first, second);
    Box::new(move |drawn| order.concordance(&clusters.times(drawn)).tau())
}

/// The number of pairs, if they can be correlated.
fn comparable(first: &[f64], second: &[f64]) -> Option<usize> {
    let varies = |values: &[f64]| values.iter().any(|value| *value != values[0]);
    let finite = first.iter().chain(second).all(|value| value.is_finite());
    let sound = first.len() == second.len() && first.len() > 2 && finite && varies(first) && varies(second);
    sound.then_some(first.len())
}

/// The 95 % interval of a coefficient whose Fisher's z has the variance `numerator / degrees`.
fn fisher_interval(coefficient: f64, numerator: f64, degrees: f64) -> Option<[f64; 2]> {
    let reach = NORMAL * (numerator / degrees).sqrt();
    let z = coefficient.atanh();
    (degrees > 0.0 && z.is_finite()).then(|| [(z - reach).tanh(), (z + reach).tanh()])
}

/// Deviations from the mean, in units of the largest of them, so that no square is too large or too small for a number.
fn centred(values: &[f64]) -> Vec<f64> {
    let largest = |values: &[f64]| values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let scale = largest(values);
    let mean = values.iter().map(|value| value / scale).sum::<f64>() / values.len() as f64;
    let deviations: Vec<f64> = values.iter().map(|value| value / scale - mean).collect();
    let scale = largest(&deviations);
    deviations.iter().map(|value| value / scale).collect()
}

/// Sums over weighted pairs.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    weight: f64,
    sums: [f64; 2],
    squares: [f64; 2],
    products: f64,
}

/// A variance that is smaller than this part of the mean square is what rounding leaves of none.
const NEGLIGIBLE: f64 = 1e-13;

impl Moments {
    /// Of pairs, each with its weight.
    fn of(pairs: impl IntoIterator<Item = (f64, (f64, f64))>) -> Self {
        let mut sum = Self::default();
        for (weight, (x, y)) in pairs {
            sum.add(weight, Self { weight: 1.0, sums: [x, y], squares: [x * x, y * y], products: x * y });
        }
        sum
    }

    fn add(&mut self, weight: f64, other: Self) {
        self.weight += weight * other.weight;
        for side in [0, 1] {
            self.sums[side] += weight * other.sums[side];
            self.squares[side] += weight * other.squares[side];
        }
        self.products += weight * other.products;
    }

    /// Pearson's coefficient; none where either side does not vary.
    fn correlation(&self) -> Option<f64> {
        let spread = |side: usize| self.squares[side] - self.sums[side] * self.sums[side] / self.weight;
        let varies = |side: usize| spread(side) > NEGLIGIBLE * self.squares[side];
        let covariance = self.products - self.sums[0] * self.sums[1] / self.weight;
        (varies(0) && varies(1)).then(|| (covariance / (spread(0) * spread(1)).sqrt()).clamp(-1.0, 1.0))
    }
}

/// Spearman's coefficient of pairs that count as often as `times` says.
fn rank_correlation(levels: [&Levels; 2], times: &[u32]) -> Option<f64> {
    let n: u64 = times.iter().map(|&times| u64::from(times)).sum();
    let mean = (n as f64 + 1.0) / 2.0;
    let ranks = levels.map(|levels| levels.mid_ranks(times));
    let rank = |side: usize, pair: usize| ranks[side][levels[side].of[pair] as usize] - mean;
    let pairs = times.iter().enumerate().filter(|(_, times)| **times > 0);
    Moments::of(pairs.map(|(pair, &times)| (f64::from(times), (rank(0, pair), rank(1, pair))))).correlation()
}

/// Pairs in the order of their first value, and of the second one among equal first ones.
struct Order {
    /// Both levels of a pair, and its position.
    pairs: Vec<[u32; 3]>,
    levels: [Levels; 2],
}

/// How the pairs of pairs agree in their order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Concordance {
    pairs: u64,
    discordant: u64,
    tied_first: u64,
    tied_second: u64,
    tied_both: u64,
}

impl Order {
    fn new(first: &[f64], second: &[f64]) -> Self {
        let levels = [Levels::new(first), Levels::new(second)];
        let both = levels[0].of.iter().zip(&levels[1].of);
        let mut pairs: Vec<[u32; 3]> = both.zip(0..).map(|((&first, &second), pair)| [first, second, pair]).collect();
        pairs.sort_unstable();
        Self { pairs, levels }
    }

    /// Of pairs that count as often as `times` says.
    fn concordance(&self, times: &[u32]) -> Concordance {
        let pairs_of = |size: u64| size * size.saturating_sub(1) / 2;
        let tied = |side: usize| self.levels[side].sizes(times).into_iter().map(pairs_of).sum();
        let size = |alike: &[[u32; 3]]| alike.iter().map(|[.., pair]| u64::from(times[*pair as usize])).sum();
        let alike = self.pairs.chunk_by(|a, b| a[..2] == b[..2]);
        let groups = alike.map(|pairs| (pairs[0][1], size(pairs)));
        let mut groups: Vec<(u32, u64)> = groups.filter(|(_, size)| *size > 0).collect();
        let mut spare = groups.clone();
        Concordance {
            pairs: pairs_of(groups.iter().map(|(_, size)| size).sum()),
            tied_first: tied(0),
            tied_second: tied(1),
            tied_both: groups.iter().map(|(_, size)| pairs_of(*size)).sum(),
            discordant: exchanges(&mut groups, &mut spare),
        }
    }

    /// Variance of the concordant less the discordant pairs if the two sides are independent.
    fn variance(&self) -> f64 {
        let sizes = [0, 1].map(|side: usize| self.levels[side].sizes(&vec![1; self.pairs.len()]));
        let sum = |side: usize, term: fn(f64) -> f64| sizes[side].iter().map(|size| term(*size as f64)).sum::<f64>();
        let pairs = |size: f64| size * (size - 1.0);
        let triples = |size: f64| size * (size - 1.0) * (size - 2.0);
        let untied = |size: f64| size * (size - 1.0) * (2.0 * size + 5.0);
        let n = self.pairs.len() as f64;
        (untied(n) - sum(0, untied) - sum(1, untied)) / 18.0
            + sum(0, pairs) * sum(1, pairs) / (2.0 * pairs(n))
            + sum(0, triples) * sum(1, triples) / (9.0 * triples(n))
    }
}

impl Concordance {
    /// Concordant pairs less discordant ones.
    fn excess(&self) -> f64 {
        let Self { pairs, discordant, tied_first, tied_second, tied_both } = *self;
        let untied = pairs + tied_both - tied_first - tied_second;
        untied as f64 - 2.0 * discordant as f64
    }

    /// Tau-b; none where either side does not vary.
    fn tau(&self) -> Option<f64> {
        let [first, second] = [self.tied_first, self.tied_second].map(|tied| (self.pairs - tied) as f64);
        (first > 0.0 && second > 0.0).then(|| (self.excess() / (first * second).sqrt()).clamp(-1.0, 1.0))
    }
}

/// Sorts levels, and sums over the pairs that change places the product of their sizes: a merge sort. `spare` is as
/// long.
fn exchanges(groups: &mut [(u32, u64)], spare: &mut [(u32, u64)]) -> u64 {
    let (half, count) = (groups.len() / 2, groups.len());
    if half == 0 {
        return 0;
    }
    let mut sum = exchanges(&mut groups[..half], spare) + exchanges(&mut groups[half..], spare);
    let left = &mut spare[..half];
    left.copy_from_slice(&groups[..half]);
    let mut waiting: u64 = left.iter().map(|(_, size)| size).sum();
    let (mut taken, mut right) = (0, half);
    while taken < half && right < count {
        let next = if left[taken].0 <= groups[right].0 {
            waiting -= left[taken].1;
            taken += 1;
            left[taken - 1]
        } else {
            sum += waiting * groups[right].1;
            right += 1;
            groups[right - 1]
        };
        groups[taken + right - half - 1] = next;
    }
    groups[taken + right - half..right].copy_from_slice(&left[taken..]);
    sum
}

/// How often n untied pairs have at most `minority` pairs of pairs in the rarer of the two orders, where all orders are
/// equally likely: the share of permutations with that many inversions, at either end.
fn exact_kendall_p_value(n: usize, minority: usize) -> f64 {
    let mut shares = vec![0.0; minority + 1];
    shares[0] = 1.0;
    // An i-th element adds 0 to i - 1 inversions, so that each new share is the mean of a window of i old ones.
    for element in 2..=n {
        let mut window = 0.0;
        let old = shares.clone();
        for inversions in 0..=minority {
            window += old[inversions];
            window -= if inversions >= element { old[inversions - element] } else { 0.0 };
            shares[inversions] = window / element as f64;
        }
    }
    (2.0 * shares.iter().sum::<f64>()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Pairs in clusters, with ties on the second side.
    fn sample(n: usize, seed: u64) -> (Vec<f64>, Vec<f64>, Vec<u32>) {
        let random = Random::new(seed);
        let first: Vec<f64> = (0..n as u64).map(|index| random.normal(index)).collect();
        let second = (0..n).map(|index| (2.0 * first[index] + random.number(1).normal(index as u64)).round()).collect();
        (first, second, (0..n).map(|index| random.number(2).below(index as u64, n / 3) as u32).collect())
    }

    #[test]
    fn what_cannot_be_correlated_has_no_coefficient() {
        let line = [1.0, 2.0, 3.0, 4.0];
        for Coefficient { name, correlate, .. } in COEFFICIENTS {
            for other in [[f64::NAN, 1.0, 2.0, 3.0], [f64::INFINITY, 1.0, 2.0, 3.0], [0.1; 4], [0.0; 4]] {
                assert_eq!((correlate(&line, &other), correlate(&other, &line)), (None, None), "{name} {other:?}");
            }
            assert_eq!((correlate(&line[..2], &line[2..]), correlate(&[], &[])), (None, None), "{name}");
            assert_eq!(correlate(&line, &line[1..]), None, "{name}");
        }
    }

    #[test]
    fn numbers_of_any_size_are_correlated() {
        let shape = [1.0, 2.0, 4.0, 3.0];
        for (scale, shift) in [(1e-300, 0.0), (1e300, 0.0), (1.0, 1e9), (5e-324, 0.0)] {
            for Coefficient { name, correlate, .. } in COEFFICIENTS {
                let moved = correlate(&shape.map(|value| value * scale + shift), &shape).unwrap();
                let expected = correlate(&shape, &shape).unwrap();
                assert!((moved.coefficient - expected.coefficient).abs() < 1e-6, "{name} {scale}: {moved:?}");
            }
        }
    }

    #[test]
    fn a_line_has_a_coefficient_of_one_and_no_interval() {
        let line = [1.0, 2.0, 3.0, 4.0, 5.0, 7.0];
        for Coefficient { name, correlate, .. } in COEFFICIENTS {
            let (up, down) = (correlate(&line, &line).unwrap(), correlate(&line, &line.map(|value| -value)).unwrap());
            assert_eq!((up.coefficient, up.interval, down.coefficient), (1.0, None, -1.0), "{name}");
            assert_eq!(up.p_value, down.p_value, "{name}");
        }
    }

    /// Kendall's counts by their definition, over all pairs of pairs.
    #[test]
    fn concordance_is_that_of_all_pairs_of_pairs() {
        let (first, second, _) = sample(150, 5);
        let first: Vec<f64> = first.iter().map(|value| (value * 2.0).round()).collect();
        let mut counted = Concordance { pairs: 0, discordant: 0, tied_first: 0, tied_second: 0, tied_both: 0 };
        for (a, b) in (0..150).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let (x, y) = (first[a] - first[b], second[a] - second[b]);
            counted.pairs += 1;
            counted.discordant += u64::from(x * y < 0.0);
            counted.tied_first += u64::from(x == 0.0);
            counted.tied_second += u64::from(y == 0.0);
            counted.tied_both += u64::from(x == 0.0 && y == 0.0);
        }
        assert_eq!(Order::new(&first, &second).concordance(&[1; 150]), counted);
    }

    #[test]
    fn exact_p_values_count_permutations() {
        // Of the 24 permutations of four, 1, 3, 5, 6, 5, 3 and 1 have 0 to 6 inversions.
        for (minority, both_ends) in [(0, 2.0), (1, 8.0), (2, 18.0), (3, 24.0)] {
            assert!((exact_kendall_p_value(4, minority) - both_ends / 24.0).abs() < 1e-12, "{minority}");
        }
        assert_eq!(exact_kendall_p_value(200_000, 1), 0.0);
    }

    /// What a replicate says of the clusters that were drawn is what their pairs, written out, give.
    #[test]
    fn replicates_are_the_coefficients_of_the_drawn_pairs() {
        let (first, second, names) = sample(90, 7);
        let clusters = Clusters::new(&names);
        let drawn: Vec<u32> = (0..clusters.count as u32).map(|cluster| (cluster * 7 + 2) % 4).collect();
        let copies = |values: &[f64]| -> Vec<f64> {
            let times = clusters.times(&drawn);
            values.iter().zip(times).flat_map(|(value, times)| vec![*value; times as usize]).collect()
        };
        for Coefficient { name, correlate, resampled, .. } in COEFFICIENTS {
            let ours = resampled(&first, &second, &clusters)(&drawn).unwrap();
            let written_out = correlate(&copies(&first), &copies(&second)).unwrap();
            assert!((ours - written_out.coefficient).abs() < 1e-12, "{name}: {ours}");
            let constant = vec![0.3; 90];
            assert_eq!(resampled(&constant, &second, &clusters)(&drawn), None, "{name}");
        }
    }

    #[test]
    fn intervals_in_clusters_need_clusters() {
        let (first, second, names) = sample(60, 2);
        let resampling = Resampling { replicates: 200, seed: 1 };
        for row in COEFFICIENTS {
            let clustered = row.clustered(&first, &second, &names, resampling).unwrap();
            let [low, high] = clustered.interval.unwrap();
            assert!(low < clustered.coefficient && clustered.coefficient < high, "{}: {clustered:?}", row.name);
            assert_eq!(clustered.coefficient, (row.correlate)(&first, &second).unwrap().coefficient);
            assert_eq!(row.clustered(&first, &second, &names[1..], resampling), None);
            let one = row.clustered(&first, &second, &[3; 60], resampling).unwrap();
            assert_eq!((one.interval, one.n, one.clusters), (None, 60, 1));
        }
    }
}
