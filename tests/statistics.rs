//! Correlations, discrimination, paired tests and adjusted p-values against SciPy, statsmodels, scikit-learn and NumPy
//! (`fixtures/stats/`), how often intervals hold what they should, and the correlations of the paper's Table 3.

use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::{PI, SQRT_2};

use digrap_bench::random::Random;
use digrap_bench::report::{self, CorrelationRow, ReportedRow};
use digrap_bench::stats::{COEFFICIENTS, Correlation, Resampling, clustered_mean, discrimination, holm, sign_flip};
use digrap_bench::suite::{PaperCorrelation, PaperCorrelations, paper_correlations};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::support::fixture_json;

#[derive(Deserialize)]
struct Expected {
    coefficient: f64,
    p_value: f64,
    interval: Option<[f64; 2]>,
}

/// A part of what the reference implementations say.
fn recorded<T: DeserializeOwned>(part: &str) -> Vec<T> {
    let cases: Vec<T> = serde_json::from_value(fixture_json("stats/statistics.json")[part].clone()).unwrap();
    assert!(!cases.is_empty());
    cases
}

fn assert_close(ours: f64, theirs: f64, what: &str) {
    assert!((ours - theirs).abs() <= 1e-6 * theirs.abs().max(1e-6), "{what}: {ours}, not {theirs}");
}

fn assert_correlations(name: &str, first: &[f64], second: &[f64], expected: &[Expected]) {
    assert_eq!(expected.len(), COEFFICIENTS.len());
    for (row, expected) in COEFFICIENTS.iter().zip(expected) {
        let what = format!("{name}, {}", row.name);
        let ours = (row.correlate)(first, second).unwrap();
        assert!((ours.coefficient - expected.coefficient).abs() < 1e-12, "{what}: {}", ours.coefficient);
        assert_close(ours.p_value, expected.p_value, &what);
        assert_eq!((ours.interval.is_some(), ours.n), (expected.interval.is_some(), first.len()), "{what}");
        for (ours, theirs) in ours.interval.iter().flatten().zip(expected.interval.iter().flatten()) {
            assert_close(*ours, *theirs, &what);
        }
    }
}

#[test]
fn correlations_equal_those_of_scipy() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        first: Vec<f64>,
        second: Vec<f64>,
        expected: Vec<Expected>,
    }
    for case in recorded::<Case>("correlations") {
        assert_correlations(&case.name, &case.first, &case.second, &case.expected);
        assert_correlations(&format!("{}, sides changed", case.name), &case.second, &case.first, &case.expected);
    }
}

/// The pairs of `long_sample` in the script.
fn long_sample(n: usize, levels: f64) -> (Vec<f64>, Vec<f64>) {
    let mut state: u64 = 1;
    let mut noise = || {
        state = (1_103_515_245 * state + 12_345) % (1 << 31);
        state as f64 / f64::from(1u32 << 31)
    };
    let pair = |_| {
        let (x, noise) = (noise(), noise());
        ((x * levels).floor(), ((0.02 * x + noise) * levels).floor())
    };
    (0..n).map(pair).unzip()
}

#[test]
fn long_samples_equal_those_of_scipy() {
    #[derive(Deserialize)]
    struct Case {
        n: usize,
        levels: f64,
        expected: Vec<Expected>,
    }
    for Case { n, levels, expected } in recorded::<Case>("long") {
        let (first, second) = long_sample(n, levels);
        assert_correlations(&format!("{n} pairs at {levels} levels"), &first, &second, &expected);
    }
}

/// A percentile interval of NumPy's, and its Monte Carlo standard errors.
#[derive(Deserialize)]
struct Resampled {
    interval: [f64; 2],
    error: [f64; 2],
}

/// Ours have as many replicates as NumPy's, so that the difference has an error of sqrt(2) times as much. Five of
/// these.
fn assert_within_monte_carlo_error(ours: Option<[f64; 2]>, theirs: &Resampled, what: &str) {
    let ours = ours.unwrap();
    for end in [0, 1] {
        let difference = (ours[end] - theirs.interval[end]).abs();
        assert!(difference < 5.0 * 2f64.sqrt() * theirs.error[end], "{what}: {ours:?}, not {:?}", theirs.interval);
    }
}

const AS_RECORDED: Resampling = Resampling { replicates: 4000, seed: 1 };

#[test]
fn clustered_correlations_equal_those_of_numpy() {
    #[derive(Deserialize)]
    struct Case {
        clusters: Vec<u32>,
        first: Vec<f64>,
        second: Vec<f64>,
        intervals: Vec<Resampled>,
    }
    for case in recorded::<Case>("clustered") {
        for (row, theirs) in COEFFICIENTS.iter().zip(&case.intervals) {
            let ours = row.clustered(&case.first, &case.second, &case.clusters, AS_RECORDED).unwrap();
            assert_within_monte_carlo_error(ours.interval, theirs, row.name);
        }
    }
}

#[test]
fn areas_equal_those_of_scikit_learn_and_errors_obuchowskis() {
    #[derive(Deserialize)]
    struct Case {
        clusters: Vec<u32>,
        scores: Vec<f64>,
        outcomes: Vec<u8>,
        area: f64,
        standard_error: f64,
        interval: [f64; 2],
    }
    for case in recorded::<Case>("areas") {
        let outcomes: Vec<bool> = case.outcomes.iter().map(|outcome| *outcome == 1).collect();
        let ours = discrimination(&case.scores, &outcomes, &case.clusters).unwrap();
        let what = format!("{} samples", outcomes.len());
        assert_close(ours.area, case.area, &what);
        assert_close(ours.standard_error.unwrap(), case.standard_error, &what);
        ours.interval.unwrap().iter().zip(case.interval).for_each(|(ours, theirs)| assert_close(*ours, theirs, &what));
    }
}

/// With samples that are right or wrong, one a cluster, the sign-flip test is McNemar's.
#[test]
fn sign_flips_of_right_and_wrong_are_mcnemars_test() {
    #[derive(Deserialize)]
    struct Case {
        baseline_only: u32,
        current_only: u32,
        exact: f64,
        drop: f64,
    }
    for case in recorded::<Case>("mcnemar") {
        let times = [(0.0, 150), (-1.0, case.baseline_only), (1.0, case.current_only)];
        let differences: Vec<f64> =
            times.iter().flat_map(|(difference, times)| (0..*times).map(|_| *difference)).collect();
        let clusters: Vec<u32> = (0..differences.len() as u32).collect();
        let ours = sign_flip(&differences, &clusters).unwrap();
        let what = format!("{} and {}", case.baseline_only, case.current_only);
        assert_eq!(ours.differing, (case.baseline_only + case.current_only) as usize, "{what}");
        assert_eq!(ours.exact, ours.differing < 7000, "{what}");
        // Of so many differences the distribution is normal to the third digit of a p-value.
        let close = |ours: f64, theirs: f64| (ours / theirs - 1.0).abs() < 1e-3;
        let same = |value: f64, theirs: f64| match ours.exact {
            true => assert_close(value, theirs, &what),
            false => assert!(close(value, theirs), "{what}: {value}, not {theirs}"),
        };
        same(ours.drop_p_value, case.drop);
        same(ours.p_value, case.exact);
    }
}

#[test]
fn sign_flips_of_clusters_equal_scipys_permutation_test() {
    #[derive(Deserialize)]
    struct Case {
        clusters: Vec<u32>,
        thirtieths: Vec<i32>,
        drop: f64,
        p_value: f64,
    }
    for case in recorded::<Case>("sign_flips") {
        let differences: Vec<f64> = case.thirtieths.iter().map(|difference| f64::from(*difference) / 30.0).collect();
        let ours = sign_flip(&differences, &case.clusters).unwrap();
        assert!(ours.exact);
        assert_close(ours.drop_p_value, case.drop, "drop");
        assert_close(ours.p_value, case.p_value, "two-sided");
        // The other order of runs, in which gains are losses.
        let turned: Vec<f64> = differences.iter().map(|difference| -difference).collect();
        let turned = sign_flip(&turned, &case.clusters).unwrap();
        assert_close(turned.p_value, case.p_value, "turned");
        assert!(ours.drop_p_value + turned.drop_p_value > 1.0, "what is observed counts on both sides");
    }
}

#[test]
fn adjusted_p_values_equal_those_of_statsmodels() {
    #[derive(Deserialize)]
    struct Case {
        p_values: Vec<f64>,
        holm: Vec<f64>,
    }
    for case in recorded::<Case>("adjusted") {
        let ours = holm(&case.p_values).unwrap();
        assert_eq!(ours.len(), case.holm.len());
        ours.iter().zip(case.holm).for_each(|(ours, theirs)| assert_close(*ours, theirs, "adjusted"));
    }
}

/// Fifty clusters of six normal pairs each, whose parts in common have twice the deviation of their own ones. The sides
/// have the same mean, and `CORRELATED` of their variance in common.
struct World {
    first: Vec<f64>,
    second: Vec<f64>,
    clusters: Vec<u32>,
}

const CORRELATED: f64 = 0.6;

impl World {
    fn draw(seed: u64) -> Self {
        let random = Random::new(seed).name("statistics");
        let side =
            |name: &str, pair: u64| 2.0 * random.name(name).normal(pair / 6) + random.name(name).normal(1000 + pair);
        let first: Vec<f64> = (0..300).map(|pair| side("first", pair)).collect();
        let rest = (1.0 - CORRELATED * CORRELATED).sqrt();
        let second =
            (0u64..).zip(&first).map(|(pair, first)| CORRELATED * first + rest * side("second", pair)).collect();
        Self { first, second, clusters: (0..300).map(|pair| pair / 6).collect() }
    }
}

/// In how many of 200 worlds an interval holds a value, where clusters are known and where each pair counts as one.
fn coverage(truth: f64, interval: impl Fn(&World, &[u32]) -> Option<[f64; 2]>) -> [f64; 2] {
    let alone: Vec<u32> = (0..300).collect();
    let holds = |interval: Option<[f64; 2]>| interval.is_some_and(|[low, high]| low <= truth && truth <= high);
    let mut counts = [0.0; 2];
    for world in (0..200).map(World::draw) {
        counts[0] += f64::from(u8::from(holds(interval(&world, &world.clusters))));
        counts[1] += f64::from(u8::from(holds(interval(&world, &alone))));
    }
    counts.map(|count| count / 200.0)
}

/// Of 200 intervals at 95 %, 190 hold the truth, give or take 3; those of few clusters a few less. Intervals that take
/// the pairs of a cluster to be independent are too narrow.
fn assert_covers([clustered, alone]: [f64; 2], what: &str) {
    assert!((0.89..=0.985).contains(&clustered), "{what}: {clustered}");
    assert!(alone < 0.80, "{what}: {alone} without clusters");
}

/// The true values for normal pairs are those of Kendall 1970, "Rank Correlation Methods"; the area is the probability
/// of an octant.
#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    let resampling = Resampling { replicates: 300, seed: 5 };
    let difference = |world: &World, clusters: &[u32]| {
        let differences: Vec<f64> =
            world.first.iter().zip(&world.second).map(|(first, second)| first - second).collect();
        clustered_mean(&differences, clusters).unwrap().interval
    };
    assert_covers(coverage(0.0, difference), "difference");
    let truths = [CORRELATED, 6.0 / PI * (CORRELATED / 2.0).asin(), 2.0 / PI * CORRELATED.asin()];
    for (row, truth) in COEFFICIENTS.iter().zip(truths) {
        let correlation = |world: &World, clusters: &[u32]| {
            row.clustered(&world.first, &world.second, clusters, resampling).unwrap().interval
        };
        assert_covers(coverage(truth, correlation), row.name);
    }
    let area = |world: &World, clusters: &[u32]| {
        let outcomes: Vec<bool> = world.second.iter().map(|value| *value > 0.0).collect();
        discrimination(&world.first, &outcomes, clusters).unwrap().interval
    };
    assert_covers(coverage(0.5 + 2.0 / PI * (CORRELATED / SQRT_2).asin(), area), "area");
}

#[test]
fn a_seed_decides_every_draw() {
    let World { first, second, clusters } = World::draw(1);
    for row in COEFFICIENTS {
        let interval = |seed| row.clustered(&first, &second, &clusters, Resampling { replicates: 100, seed }).unwrap();
        assert_eq!(interval(3), interval(3));
        assert_ne!(interval(3), interval(4));
    }
}

/// Shift, set, method: three coefficients and their p-values.
type Table3 = BTreeMap<String, BTreeMap<String, BTreeMap<String, [f64; 6]>>>;

#[test]
fn the_papers_correlations_equal_those_of_scipy() {
    let expected: Table3 = serde_json::from_value(fixture_json("stats/paper_correlations.json")).unwrap();
    let computed = paper_correlations().unwrap().correlations;
    assert_eq!(computed.len(), 126);
    let mut compared = 0;
    for row in &computed {
        let expected = expected[&row.shift][row.set.name][&row.method];
        for (at, (coefficient, ours)) in COEFFICIENTS.iter().zip(&row.coefficients).enumerate() {
            let Correlation { coefficient: ours, p_value, .. } = ours.unwrap();
            let what = format!("{} {} {} {}", row.shift, row.set.name, row.method, coefficient.name);
            assert!((ours - expected[at]).abs() <= 0.500_001e-6, "{what}: {ours}");
            assert!((p_value - expected[at + 3]).abs() <= 0.51e-5 * expected[at + 3], "{what}: {p_value}");
            compared += 1;
        }
    }
    assert_eq!(compared, 126 * 3);
    let named: BTreeSet<_> = computed.iter().map(|row| (&row.shift, row.set.name, &row.method)).collect();
    assert_eq!(named.len(), 126);
}

#[test]
fn nothing_in_table_3_gives_both_reported_correlations() {
    let PaperCorrelations { correlations, reported } = paper_correlations().unwrap();
    let prints_as = |at: usize, of: &Option<Correlation>| {
        of.is_some_and(|of| format!("{:.2}", of.coefficient) == format!("{:.2}", reported[at].coefficient))
    };
    assert_eq!(reported.len(), 2);
    for image in correlations.iter().filter(|row| row.shift == reported[0].shift) {
        let same = |row: &&PaperCorrelation| {
            row.shift == reported[1].shift && row.set.name == image.set.name && row.method == image.method
        };
        let joint = correlations.iter().find(same).unwrap();
        let both = image.coefficients.iter().zip(&joint.coefficients).any(|(a, b)| prints_as(0, a) && prints_as(1, b));
        assert!(!both, "{} {}", image.set.name, image.method);
    }
}

fn row_of(row: &PaperCorrelation) -> CorrelationRow<'_> {
    let PaperCorrelation { shift, set, method, coefficients } = row;
    CorrelationRow { shift, set: set.label, method, coefficients }
}

#[test]
fn the_papers_correlations_are_a_page() {
    let PaperCorrelations { correlations, reported } = paper_correlations().unwrap();
    let rows: Vec<CorrelationRow> = correlations.iter().map(row_of).collect();
    let reported: Vec<ReportedRow> =
        reported.iter().map(|row| ReportedRow { shift: row.shift, coefficient: row.coefficient }).collect();
    let text = report::paper_correlations(&rows, &reported);
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    let expected = [
        "| reported, not reproducible from Table 3 |         0.83 |        0.80 |",
        "| Vanilla FT                              |         0.74 |        0.78 |",
        "| Vanilla FT   |    0.74 | 0.015 |  0.20 to 0.93 |     0.76 | 0.011 |    0.64 | 0.009 |",
        "| FTP          | 0.36 / 0.09 / 0.07 |  0.36 / 0.25 / 0.24 |   0.83 / 1.00 / 1.00 |              0.79 / 0.71 / 0.59 |",
    ];
    expected.iter().for_each(|line| assert!(text.lines().any(|other| other == *line), "{line}\n{text}"));
    // Two tables of seven methods for each of three shifts in full, one in short, and the one beside the reported
    // numbers.
    assert_eq!(text.lines().filter(|line| line.starts_with("| DiGraP ")).count(), 3 * 3 + 1);
}

/// Coefficients stand under their names, and sets under theirs.
#[test]
fn the_papers_correlations_are_a_record() {
    let record = serde_json::to_value(paper_correlations().unwrap()).unwrap();
    let first = &record["correlations"][0];
    assert_eq!(
        (&first["shift"], &first["set"], &first["method"]),
        (&"Vision Shift".into(), &"all".into(), &"Zero-Shot".into())
    );
    assert_eq!(first["coefficients"]["kendall"]["n"], 10);
    assert_eq!(first["coefficients"]["pearson"]["interval"].as_array().unwrap().len(), 2);
    assert_eq!(record["reported"][1]["coefficient"], 0.8);
}
