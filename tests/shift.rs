//! Mahalanobis distances: against NumPy, PyTorch and scikit-learn, the identities they must keep, and their files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use digrap_bench::data::{fit_file, npy};
use digrap_bench::error::{Error, Kind, Result};
use digrap_bench::shift::fits::{self, Fits};
use digrap_bench::shift::{
    Fitting, Gaussian, GaussianOptions, LEVELS, Moments, Quantiles, Shrinkage, Sign, VARIANTS, find_variant, summarise,
};
use serde::Deserialize;

use crate::support::{Random, fixture, fixture_json};

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<Case>,
    formats: BTreeMap<String, Vec<Vec<f64>>>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    runs: Vec<Run>,
    ledoit_wolf: Option<Shrunk>,
    float32_rank: Option<usize>,
    quantiles: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Run {
    variant: String,
    rtol: Option<f64>,
    rank: usize,
    distances: Vec<f64>,
}

#[derive(Deserialize)]
struct Shrunk {
    intensity: f64,
    distances: Vec<f64>,
}

fn recorded() -> Recorded {
    serde_json::from_value(fixture_json("shift/distances.json")).unwrap()
}

impl Case {
    fn moments(&self) -> Moments {
        let labels = fixture(&format!("shift/{}.labels.npy", self.name));
        let labels = labels.exists().then(|| npy::read_labels(&labels).unwrap());
        fitted(&self.rows("reference"), self.dimension(), labels.as_deref())
    }

    fn rows(&self, part: &str) -> Vec<f64> {
        read(&fixture(&format!("shift/{}.{part}.npy", self.name))).unwrap()
    }

    fn dimension(&self) -> usize {
        npy::Reader::open(&fixture(&format!("shift/{}.test.npy", self.name))).unwrap().columns()
    }
}

fn read(path: &Path) -> Result<Vec<f64>> {
    let mut reader = npy::Reader::open(path)?;
    let mut rows = Vec::new();
    while let Some(more) = reader.next_rows()? {
        rows.extend_from_slice(more);
    }
    assert_eq!(rows.len() as u64, reader.rows() * reader.columns() as u64);
    Ok(rows)
}

fn fitted(rows: &[f64], dimension: usize, labels: Option<&[i64]>) -> Moments {
    let mut fitting = Fitting::new(dimension);
    match labels {
        Some(labels) => fitting.add_labelled(rows, labels).unwrap(),
        None => fitting.add(rows).unwrap(),
    }
    fitting.finish(BTreeMap::new()).unwrap()
}

fn plain(moments: &Moments) -> Gaussian {
    Gaussian::new(moments, GaussianOptions::default()).unwrap()
}

/// `n` samples of `dimension` features that depend on each other, of which the later ones lie elsewhere.
fn samples(n: usize, dimension: usize, seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let mixing: Vec<f64> = (0..dimension * dimension).map(|_| random.normal()).collect();
    let row = |at: usize, random: &mut Random| {
        let free: Vec<f64> = (0..dimension).map(|_| random.normal()).collect();
        let mix = |to: usize| (0..dimension).map(|from| free[from] * mixing[from * dimension + to]).sum::<f64>();
        (0..dimension).map(|to| mix(to) + (to + 5 * at / n) as f64).collect::<Vec<_>>()
    };
    (0..n).flat_map(|at| row(at, &mut random)).collect()
}

fn close(left: &[f64], right: &[f64], tolerance: f64) -> bool {
    let scale = right.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    left.len() == right.len() && left.iter().zip(right).all(|(l, r)| (l - r).abs() <= tolerance * scale)
}

/// As `close`, with the tolerance relative to each value.
fn close_each(left: &[f64], right: &[f64], tolerance: f64) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(l, r)| (l - r).abs() <= tolerance * r.abs())
}

fn mean_square(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64
}

fn scatter(moments: &Moments) -> Vec<f64> {
    moments.scatter.iter().copied().collect()
}

#[track_caller]
fn message<T>(result: Result<T>) -> String {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), Kind::Input, "{error:?}");
    chain(&error)
}

/// The messages of an error and its causes of this library.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[test]
fn distances_and_ranks_are_those_of_numpy_and_pytorch() {
    for case in recorded().cases {
        let (moments, test) = (case.moments(), case.rows("test"));
        for Run { variant, rtol, rank, distances } in &case.runs {
            let options =
                GaussianOptions { variant: find_variant(variant).unwrap(), rtol: *rtol, ..GaussianOptions::default() };
            let gaussian = Gaussian::new(&moments, options).unwrap();
            let name = format!("{} {variant} {rtol:?}", case.name);
            assert_eq!(gaussian.rank(), *rank, "{name}");
            let found = gaussian.distances(&test).unwrap();
            assert!(close_each(&found, distances, 1e-5), "{name}: {found:?}, not {distances:?}");
            assert_eq!(gaussian.deficiency().is_some(), *rank < case.dimension(), "{name}");
        }
    }
}

/// The paper's code inverts a float32 covariance with PyTorch's default cut-off.
#[test]
fn the_default_cut_off_keeps_as_many_directions_as_pytorch_in_float32() {
    let ranks =
        recorded().cases.into_iter().filter_map(|case| Some((plain(&case.moments()).rank(), case.float32_rank?)));
    let ranks: Vec<(usize, usize)> = ranks.collect();
    assert!(ranks.len() > 1 && ranks.iter().all(|(own, torch)| own == torch), "{ranks:?}");
}

#[test]
fn ledoit_wolf_is_that_of_scikit_learn() {
    let cases =
        recorded().cases.into_iter().filter_map(|case| Some((case.moments(), case.rows("test"), case.ledoit_wolf?)));
    for (moments, test, Shrunk { intensity, distances }) in cases {
        assert!((moments.ledoit_wolf() - intensity).abs() < 1e-9, "{} {intensity}", moments.ledoit_wolf());
        let fixed = Shrinkage::Fixed(intensity);
        for shrinkage in [Shrinkage::LedoitWolf, fixed] {
            let options = GaussianOptions { shrinkage, rtol: Some(1e-15), ..GaussianOptions::default() };
            let found = Gaussian::new(&moments, options).unwrap().distances(&test).unwrap();
            assert!(close_each(&found, &distances, 1e-5), "{found:?}, not {distances:?}");
        }
    }
}

#[test]
fn quantiles_are_those_of_numpy() {
    for case in recorded().cases {
        let found = Quantiles::of(&case.runs[0].distances).unwrap();
        for ((name, _), value) in LEVELS.iter().zip(found.0) {
            assert!((value - case.quantiles[*name]).abs() < 1e-9, "{} {name}", case.name);
        }
    }
    assert_eq!(Quantiles::of(&[]), None);
}

#[test]
fn a_summary_has_the_mean_its_interval_and_the_rank() {
    let gaussian = plain(&fitted(&samples(50, 3, 1), 3, None));
    let mut distances = vec![1.0, 2.0, 3.0, 6.0];
    let summary = summarise(&distances, None, &gaussian).unwrap();
    assert_eq!((summary.n, summary.dimension, summary.rank, summary.shift), (4, 3, 3, 3.0));
    let [low, high] = summary.interval.unwrap();
    let [wide_low, wide_high] = summarise(&distances, Some(&[1, 1, 2, 2]), &gaussian).unwrap().interval.unwrap();
    assert!(wide_low < low && high < wide_high && (low + high - 6.0).abs() < 1e-12);
    Sign::Negative.apply(&mut distances);
    let score = summarise(&distances, None, &gaussian).unwrap();
    assert_eq!((score.shift, score.interval), (-3.0, Some([-high, -low])));
    assert_eq!([score.quantiles.0[0], score.quantiles.0[8]], [-6.0, -1.0]);
    assert!(summarise(&[], None, &gaussian).is_none());
}

#[test]
fn an_affine_map_of_all_features_changes_no_distance_at_full_rank() {
    let dimension = 4;
    let (reference, test) = (samples(60, dimension, 2), samples(9, dimension, 3));
    let map = samples(dimension, dimension, 4);
    let mapped = |rows: &[f64]| -> Vec<f64> {
        let to = |row: &[f64], to: usize| {
            row.iter().enumerate().map(|(from, value)| value * map[from * dimension + to]).sum::<f64>()
        };
        rows.chunks(dimension)
            .flat_map(|row| (0..dimension).map(|column| to(row, column) - 7.0).collect::<Vec<_>>())
            .collect()
    };
    let gaussian = |rows: &[f64]| {
        let options = GaussianOptions { rtol: Some(0.0), ..GaussianOptions::default() };
        Gaussian::new(&fitted(rows, dimension, None), options).unwrap()
    };
    let expected = gaussian(&reference).distances(&test).unwrap();
    let found = gaussian(&mapped(&reference)).distances(&mapped(&test)).unwrap();
    assert!(close_each(&found, &expected, 1e-9), "{found:?}, not {expected:?}");
}

#[test]
fn on_the_reference_the_mean_square_is_the_rank() {
    for case in recorded().cases {
        let (moments, reference) = (case.moments(), case.rows("reference"));
        for rtol in [None, Some(0.05), Some(0.5)] {
            let gaussian = Gaussian::new(&moments, GaussianOptions { rtol, ..GaussianOptions::default() }).unwrap();
            let (n, square) = (moments.n as f64, mean_square(&gaussian.distances(&reference).unwrap()));
            let expected = gaussian.rank() as f64 * (n - 1.0) / n;
            assert!((square / expected - 1.0).abs() < 1e-6, "{} {rtol:?}: {square}, not {expected}", case.name);
        }
    }
}

#[test]
fn the_mean_has_no_distance() {
    for case in recorded().cases {
        let moments = case.moments();
        assert_eq!(plain(&moments).distances(&moments.mean).unwrap(), [0.0], "{}", case.name);
    }
}

/// With `t` the mean of a set less that of the reference, a step `s` of all its samples raises the mean of the squared
/// distances by `s' P s + 2 s' P t`. On the reference `t` is zero, and what is left is the squared distance of the mean
/// plus `s` from the mean.
#[test]
fn a_step_of_all_samples_adds_its_own_square() {
    let dimension = 5;
    let (reference, test) = (samples(90, dimension, 5), samples(40, dimension, 6));
    let moments = fitted(&reference, dimension, None);
    let gaussian = plain(&moments);
    let step = [0.5, -1.0, 0.25, 2.0, -0.125];
    let moved = |rows: &[f64], times: f64| -> Vec<f64> {
        rows.iter().enumerate().map(|(at, value)| value + times * step[at % dimension]).collect()
    };
    let square = |rows: &[f64]| mean_square(&gaussian.distances(rows).unwrap());
    let own = square(&moved(&moments.mean, 1.0));
    assert!((square(&moved(&reference, 1.0)) - square(&reference) - own).abs() < 1e-9);
    // s' P t from the polarisation of three squares.
    let mean = fitted(&test, dimension, None).mean;
    let cross = (square(&moved(&mean, 1.0)) - square(&mean) - own) / 2.0;
    let risen = square(&moved(&test, 1.0)) - square(&test);
    assert!((risen - own - 2.0 * cross).abs() < 1e-9 && cross.abs() > 1e-3, "{risen} {own} {cross}");
}

/// More samples than a block holds, so that calls and blocks end at different samples.
#[test]
fn how_samples_are_cut_into_calls_changes_no_bit() {
    let (n, dimension) = (2500, 3);
    let rows = samples(n, dimension, 7);
    let labels: Vec<i64> = (0..n as i64).map(|at| at % 3).collect();
    let whole = fitted(&rows, dimension, Some(&labels));
    for count in [1, 7, 1024, 2048] {
        let mut fitting = Fitting::new(dimension);
        for (rows, labels) in rows.chunks(count * dimension).zip(labels.chunks(count)) {
            fitting.add_labelled(rows, labels).unwrap();
        }
        assert_eq!(fitting.finish(BTreeMap::new()).unwrap(), whole, "{count}");
    }
}

/// Against sums in two passes, the first of which gives the means.
#[test]
fn moments_are_those_of_two_passes() {
    let (n, dimension) = (2500, 3);
    // Far from zero, where sums of plain squares would lose all digits.
    let rows: Vec<f64> = samples(n, dimension, 8).iter().map(|value| value + 1e6).collect();
    let found = fitted(&rows, dimension, None);
    let mut mean = vec![0.0; dimension];
    rows.chunks(dimension)
        .for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += (value - 1e6) / n as f64));
    mean.iter_mut().for_each(|mean| *mean += 1e6);
    let (mut squares, mut cubic, mut quartic) = (vec![0.0; dimension * dimension], vec![0.0; dimension], 0.0);
    for row in rows.chunks(dimension) {
        let row: Vec<f64> = row.iter().zip(&mean).map(|(value, mean)| value - mean).collect();
        let square: f64 = row.iter().map(|value| value * value).sum();
        quartic += square * square;
        for at in 0..dimension {
            cubic[at] += square * row[at];
            (0..=at).for_each(|other| squares[at * dimension + other] += row[at] * row[other]);
        }
    }
    assert!(close_each(&found.mean, &mean, 1e-14) && close(&scatter(&found), &squares, 1e-9));
    assert!(close(&found.cubic, &cubic, 1e-7) && close_each(&[found.quartic], &[quartic], 1e-9));
}

#[test]
fn merged_shards_are_the_whole() {
    let (n, dimension) = (2500, 4);
    let rows = samples(n, dimension, 9);
    let labels: Vec<i64> = (0..n as i64).map(|at| (at / 700) - 1).collect();
    let whole = fitted(&rows, dimension, Some(&labels));
    let part =
        |from: usize, to: usize| fitted(&rows[from * dimension..to * dimension], dimension, Some(&labels[from..to]));
    let shards = [part(0, 1), part(1, 1300), part(1300, 1301), part(1301, 2500), fitted(&[], dimension, Some(&[]))];
    for order in [[0, 1, 2, 3, 4], [4, 3, 1, 0, 2]] {
        let mut merged = shards[order[0]].clone();
        order[1..].iter().for_each(|&shard| merged.merge(&shards[shard]).unwrap());
        assert_eq!(merged.n, whole.n);
        assert!(close(&merged.mean, &whole.mean, 1e-12) && close(&scatter(&merged), &scatter(&whole), 1e-12));
        assert!(close(&merged.cubic, &whole.cubic, 1e-10) && close_each(&[merged.quartic], &[whole.quartic], 1e-10));
        assert_eq!(merged.classes.keys().collect::<Vec<_>>(), [&-1, &0, &1, &2]);
        for (own, other) in merged.classes.values().zip(whole.classes.values()) {
            assert!(own.n == other.n && close(&own.mean, &other.mean, 1e-12));
        }
    }
}

#[test]
fn moments_that_do_not_belong_together_are_not_merged() {
    let (narrow, wide) = (fitted(&[1.0, 2.0], 1, None), fitted(&[1.0, 2.0], 2, None));
    let text = message(narrow.clone().merge(&wide));
    assert_eq!(text, "moments of 1 and of 2 features cannot be merged");
    let labelled = fitted(&[1.0, 2.0], 1, Some(&[0, 1]));
    assert_eq!(message(labelled.clone().merge(&narrow)), "moments with labels and moments without cannot be merged");
}

#[test]
fn what_cannot_be_fitted_or_measured_is_refused_with_numbers() {
    let mut fitting = Fitting::new(2);
    fitting.add(&[0.0_f32, 1.0, 2.0, 4.0]).unwrap();
    assert_eq!(message(fitting.add(&[1.0_f32, 2.0, 3.0])), "3 numbers are no samples of 2 features");
    assert_eq!(message(fitting.add(&[5.0_f32, 6.0, 7.0, f32::NAN])), "sample 3: feature 1 is NaN");
    assert_eq!(message(fitting.add(&[f32::NEG_INFINITY, 6.0])), "sample 2: feature 0 is -inf");
    assert_eq!(message(fitting.add(&[1e300, -1e300])), "sample 2: its length is not finite");
    assert_eq!(message(fitting.add_labelled(&[1.0, 2.0], &[1, 2])), "1 samples have 2 labels");
    assert_eq!(message(fitting.add_labelled(&[1.0, 2.0], &[1])), "some samples have a label and some have none");
    assert_eq!(message(Fitting::new(0).add(&[1.0])), "1 numbers are no samples of 0 features");
    let gaussian = plain(&fitted(&samples(40, 2, 10), 2, None));
    assert_eq!(message(gaussian.distances(&[1.0, 2.0, 3.0, f64::INFINITY])), "sample 1: feature 1 is inf");
    assert_eq!(message(gaussian.distances(&[1.0_f32])), "1 numbers are no samples of 2 features");
}

#[test]
fn a_gaussian_needs_samples_that_vary() {
    let build = |moments: &Moments| Gaussian::new(moments, GaussianOptions::default());
    let few = "a covariance needs 2 samples or more, not";
    assert_eq!(message(build(&fitted(&[], 2, None))), format!("{few} 0"));
    assert_eq!(message(build(&fitted(&[1.0, 2.0], 2, None))), format!("{few} 1"));
    let constant = "the features of the reference do not vary: there is no covariance to invert";
    // A tenth has no exact sum; more samples than a block holds.
    for n in [2, 1500] {
        assert_eq!(message(build(&fitted(&vec![0.1; 3 * n], 3, None))), constant, "{n}");
    }
    // Constant within classes, though not as a whole.
    let labels: Vec<i64> = (0..60).map(|at| at % 3).collect();
    let rows: Vec<f64> = labels.iter().flat_map(|&label| [0.1 * label as f64, 7.0 / (label + 3) as f64]).collect();
    let moments = fitted(&rows, 2, Some(&labels));
    let options = GaussianOptions { variant: find_variant("class-conditional").unwrap(), ..GaussianOptions::default() };
    assert_eq!(message(Gaussian::new(&moments, options)), constant);
    assert_eq!(plain(&moments).rank(), 2);
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let moments = fitted(&samples(30, 2, 11), 2, None);
    let build = |options| message(Gaussian::new(&moments, options));
    let plain = GaussianOptions::default();
    let cutoff = |rtol| build(GaussianOptions { rtol: Some(rtol), ..plain });
    assert_eq!(cutoff(-1e-9), "the relative cut-off is -0.000000001; it is from 0 to below 1");
    assert_eq!(cutoff(f64::NAN), "the relative cut-off is NaN; it is from 0 to below 1");
    let fixed = |value| build(GaussianOptions { shrinkage: Shrinkage::Fixed(value), ..plain });
    assert_eq!(fixed(1.5), "the shrinkage is 1.5; it is from 0 to 1");
    for variant in VARIANTS.iter().filter(|variant| variant.needs_labels) {
        let expected = format!("the samples of the reference have no labels, which `{}` needs", variant.name);
        assert_eq!(build(GaussianOptions { variant, ..plain }), expected);
    }
    let moments = fitted(&samples(30, 2, 11), 2, Some(&[0; 30]));
    let options = GaussianOptions { variant: &VARIANTS[1], shrinkage: Shrinkage::LedoitWolf, ..plain };
    let text = message(Gaussian::new(&moments, options));
    assert_eq!(text, "Ledoit and Wolf's shrinkage is known for the covariance of all samples only");
    let error = find_variant("realtive").unwrap_err();
    let hint = "did you mean `relative`? known: marginal, class-conditional, relative";
    assert_eq!(error.next_step(), Some(hint));
}

#[test]
fn missing_directions_are_told_with_numbers() {
    let few = plain(&fitted(&samples(4, 6, 12), 6, None)).deficiency().unwrap();
    let text = "3 of 6 directions have more than 7.153e-7 of the largest variance; only they count \
                (4 samples have 3 directions at most)";
    assert_eq!(few.to_string(), text);
    let moments = fitted(&samples(90, 2, 12), 2, None);
    let options = GaussianOptions { rtol: Some(0.99), ..GaussianOptions::default() };
    let cut = Gaussian::new(&moments, options).unwrap().deficiency().unwrap();
    assert_eq!(cut.to_string(), "1 of 2 directions have more than 9.900e-1 of the largest variance; only they count");
}

/// One class is the marginal variant, whose difference from itself is nothing.
#[test]
fn with_one_class_all_variants_are_one() {
    let rows = samples(50, 3, 13);
    let moments = fitted(&rows, 3, Some(&[5; 50]));
    let of = |name: &str| {
        let options = GaussianOptions { variant: find_variant(name).unwrap(), ..GaussianOptions::default() };
        Gaussian::new(&moments, options).unwrap().distances(&rows).unwrap()
    };
    assert!(close(&of("class-conditional"), &of("marginal"), 1e-9));
    assert!(of("relative").iter().all(|distance| distance.abs() < 1e-9));
}

/// Two fits, the second with classes.
fn two_fits() -> Fits {
    let mut vision = fitted(&samples(40, 3, 14), 3, None);
    vision.about.insert("model".to_owned(), "mini \"ft\"".to_owned());
    let joint = fitted(&samples(30, 2, 15), 2, Some(&(0..30).map(|at| at % 4 - 2).collect::<Vec<_>>()));
    Fits::from([("vision".to_owned(), vision), ("joint".to_owned(), joint)])
}

#[test]
fn fits_come_back_from_their_file_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fits.safetensors");
    let fits = two_fits();
    fit_file::save(&path, &fits).unwrap();
    assert_eq!(fit_file::load(&path).unwrap(), fits);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let bytes = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("vision/scatter").unwrap().shape(), [3, 3]);
    let text = message(fit_file::load(&folder.path().join("absent")));
    assert!(text.starts_with("cannot read `") && text.contains("No such file"), "{text}");
}

/// The file with a text of its header replaced by another one of the same length.
fn damaged(from: &str, to: &str) -> String {
    assert_eq!(from.len(), to.len());
    let mut bytes = Vec::new();
    fits::write(&two_fits(), &mut bytes).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("the text is there");
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    message(fits::read(&bytes))
}

#[test]
fn damaged_fits_say_what_is_wrong() {
    let of_vision = "the moments of `vision` are damaged: ";
    assert_eq!(
        damaged("digrap-bench moments", "digrap-bench nothing"),
        "this safetensors file holds no moments of features"
    );
    assert_eq!(damaged(r#""version":"1""#, r#""version":"7""#), "moments of version 7; this program reads version 1");
    let text = damaged(r#"\"n\":40"#, r#"\"n\":-4"#);
    assert!(text.starts_with("the list of fits in the metadata is damaged: invalid value: integer `-4`"), "{text}");
    let text = damaged("vision/cubic", "vision/cubes");
    assert!(text.starts_with(&format!("{of_vision}there is no tensor `cubic`")), "{text}");
    let text = damaged("[3,3]", "[9,1]");
    assert_eq!(text, format!("{of_vision}`scatter` is F64 [9, 1], not F64 [3, 3]"));
    let text = damaged(r#"\"n\":30"#, r#"\"n\":31"#);
    assert_eq!(text, "the moments of `joint` are damaged: the sizes of the classes do not add up to 31 samples");
    let mut bytes = Vec::new();
    fits::write(&two_fits(), &mut bytes).unwrap();
    assert!(message(fits::read(&bytes[..bytes.len() - 1])).starts_with("this is no whole safetensors file: "));
    for cut in 0..bytes.len() {
        assert!(fits::read(&bytes[..cut]).is_err(), "{cut}");
    }
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let scatter = tensors.tensor("vision/scatter").unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
    let with = |element: usize, value: f64| {
        let mut bytes = bytes.clone();
        bytes[scatter + 8 * element..][..8].copy_from_slice(&value.to_le_bytes());
        message(fits::read(&bytes))
    };
    assert_eq!(with(1, f64::NAN), format!("{of_vision}element 1 of `scatter` is NaN"));
    assert_eq!(with(1, 0.5), format!("{of_vision}`scatter` is not symmetric at 0, 1"));
    assert_eq!(with(4, -1.0), format!("{of_vision}`scatter` is negative at 1"));
}

#[test]
fn files_of_numpy_are_read() {
    let formats = recorded().formats;
    let open = |name: &str| read(&fixture(&format!("shift/npy/{name}.npy"))).unwrap();
    for (name, values) in
        [("little-f2", "f2"), ("little-f4", "f4"), ("little-f8", "f8"), ("version-2", "f4"), ("version-3", "f4")]
    {
        assert_eq!(open(name), formats[values].concat(), "{name}");
    }
    assert_eq!(open("one-column"), formats["f4"].iter().map(|row| row[0]).collect::<Vec<_>>());
    assert!(open("no-rows").is_empty());
    for (name, last) in [("i1", -1), ("u1", 255), ("i2", -1), ("u2", 255), ("i4", -1), ("u4", 255), ("i8", -1)] {
        let labels = npy::read_labels(&fixture(&format!("shift/npy/labels-{name}.npy"))).unwrap();
        assert_eq!(labels, [0, 1, 100, last], "{name}");
    }
}

#[test]
fn other_arrays_are_refused_with_the_way_out() {
    let refused = |name: &str| {
        let path = fixture(&format!("shift/npy/{name}.npy"));
        let text = message(read(&path));
        text.strip_prefix(&format!("cannot read features from `{}`: ", path.display())).unwrap().to_owned()
    };
    assert_eq!(refused("big-f4"), "its elements are `>f4`, not floats in little-endian order");
    assert_eq!(refused("integers"), "its elements are `<i8`, not floats in little-endian order");
    let fields = refused("fields");
    assert_eq!(fields, "its elements are `[('a', '<f4'), ('b', '<f4')]`, not floats in little-endian order");
    assert_eq!(refused("columns"), "its elements lie column by column (`fortran_order`)");
    assert_eq!(refused("vector"), "its shape is [3], not [samples, features]");
    assert_eq!(refused("no-columns"), "its samples have 0 features");
    let path = fixture("shift/npy/little-f4.npy");
    let text = message(npy::read_labels(&path));
    assert!(text.ends_with("its elements are `<f4`, not integers of up to 64 bits"), "{text}");
    let text = message(npy::read_labels(&fixture("shift/npy/integers.npy")));
    assert!(text.ends_with("its shape is [3, 2], not [samples]"), "{text}");
}

#[test]
fn damaged_arrays_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let whole = fs::read(fixture("shift/npy/little-f4.npy")).unwrap();
    let with = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let text = message(read(&path));
        text.strip_prefix(&format!("cannot read features from `{}`: ", path.display())).unwrap().to_owned()
    };
    for cut in 0..128 {
        assert_eq!(with(&whole[..cut]), "its header is cut off", "{cut}");
    }
    for cut in 128..whole.len() {
        let expected = format!("it is cut off: 3 rows take 24 bytes, {} are there", cut - 128);
        assert_eq!(with(&whole[..cut]), expected);
    }
    assert_eq!(with(&[&whole[..], b"x"].concat()), "it has a rest: 3 rows take 24 bytes, 25 are there");
    assert_eq!(with(b"PK\x03\x04 and so on"), "it is no `.npy` file");
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        with(&bytes)
    };
    assert_eq!(changed(6, 4), "its format has version 4; 1 to 3 are known");
    assert_eq!(changed(9, 255), "its header is cut off");
    assert!(changed(10, b'[').starts_with("its header is damaged: `['descr'"));
    assert!(with(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{").starts_with("its header has 4294967295 bytes"));
    let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 4611686018427387904), }";
    let bytes = [b"\x93NUMPY\x01\x00".as_slice(), &(huge.len() as u16).to_le_bytes(), huge.as_bytes()].concat();
    assert!(with(&bytes).starts_with("it is cut off: 18446744073709551615 rows take "), "{}", with(&bytes));
}

#[test]
fn rows_are_written_in_any_order_and_the_file_is_that_of_numpy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let rows: Vec<Vec<f32>> =
        recorded().formats["f4"].iter().map(|row| row.iter().map(|&value| value as f32).collect()).collect();
    let mut writer = npy::Writer::create(&path, [3, 2]).unwrap();
    for row in [2, 0, 1, 2] {
        writer.write(row, &rows[row]).unwrap();
        assert!(!path.exists());
    }
    assert_eq!(writer.write(3, &rows[0]).unwrap_err().kind(), Kind::Internal);
    assert_eq!(writer.write(0, &[1.0]).unwrap_err().kind(), Kind::Internal);
    writer.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(fixture("shift/npy/little-f4.npy")).unwrap());
    npy::write_numbers(&path, &[0.5, -2.0]).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!((bytes.len(), &bytes[128..136]), (144, &0.5_f64.to_le_bytes()[..]));
}

#[test]
fn a_file_without_all_rows_does_not_appear() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let mut writer = npy::Writer::create(&path, [3, 1]).unwrap();
    writer.write(2, &[1.0]).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), Kind::Incomplete);
    assert_eq!(error.to_string(), format!("2 of 3 rows of `{}` are missing, first row 0", path.display()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(
        message(npy::Writer::create(&folder.path().join("no/a.npy"), [1, 1]).map(drop)).starts_with("cannot write `")
    );
}

fn shift(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_digrap-bench"));
    command.current_dir(folder).arg("shift");
    for argument in arguments {
        match argument.strip_prefix("fixture:") {
            Some(name) => command.arg(fixture(&format!("shift/{name}.npy"))),
            None => command.arg(argument),
        };
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn document(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_verb_prints_a_table_or_one_json_document() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["--reference", "fixture:full.reference", "--test", "fixture:full.test", "fixture:full.reference"];
    let plain = shift(folder.path(), &files);
    let expected = "\
| test           |  n | shift | 95 % interval |  min | 0.01 | 0.05 | 0.25 |  0.5 | 0.75 | 0.95 | 0.99 |  max |
";
    assert!(text(&plain.stdout).starts_with(expected), "{}", text(&plain.stdout));
    let last = "\nReference: 80 samples, 6 features, rank 6 (cut-off 7.153e-7). Distance: marginal, positive.\n";
    assert!(text(&plain.stdout).ends_with(last) && plain.stderr.is_empty(), "{}", text(&plain.stdout));
    let output = document(&shift(folder.path(), &[&files[..], &["--json"]].concat()));
    let reference = &output["reference"];
    assert_eq!((&reference["n"], &reference["dimension"], &reference["rank"]), (&80.into(), &6.into(), &6.into()));
    assert_eq!((&reference["rtol"], &reference["variant"]), (&(6.0 * 2f64.powi(-23)).into(), &"marginal".into()));
    let case = recorded().cases.remove(0);
    let test = &output["tests"][0];
    let mean = case.runs[0].distances.iter().sum::<f64>() / 12.0;
    assert!((test["shift"].as_f64().unwrap() / mean - 1.0).abs() < 1e-9 && test["n"] == 12 && test["rank"] == 6);
    assert!((test["quantiles"]["0.95"].as_f64().unwrap() - case.quantiles["0.95"]).abs() < 1e-9);
    assert!(test["interval"][0].as_f64().unwrap() < mean && test["test"] == "full.test");
}

#[test]
fn a_kept_fit_gives_the_same_distances_and_leaves_the_choices_open() {
    let folder = tempfile::tempdir().unwrap();
    let saved = [
        "--reference",
        "fixture:labelled.reference",
        "--labels",
        "fixture:labelled.labels",
        "--save-fit",
        "fit.safetensors",
    ];
    let test = ["--test", "fixture:labelled.test", "--output", "out"];
    assert!(shift(folder.path(), &saved).status.success());
    let read = || fs::read(folder.path().join("out/labelled.test.distances.npy")).unwrap();
    let case = recorded().cases.into_iter().find(|case| case.name == "labelled").unwrap();
    for run in &case.runs {
        let variant = ["--variant", &run.variant];
        let direct = document(&shift(folder.path(), &[&saved[..4], &test, &variant, &["--json"]].concat()));
        let distances = read();
        let kept = document(&shift(
            folder.path(),
            &[&["--fit", "fit.safetensors"], &test[..], &variant, &["--json"]].concat(),
        ));
        assert_eq!((direct, &distances), (kept, &read()));
        let values: Vec<f64> =
            distances[128..].as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
        assert!(close_each(&values, &run.distances, 1e-5), "{}", run.variant);
    }
    let negative = [&["--fit", "fit.safetensors", "--fit-name", "features", "--sign", "negative"], &test[..]].concat();
    let scores = document(&shift(folder.path(), &[&negative[..], &["--json", "--shrinkage", "ledoit-wolf"]].concat()));
    assert!(scores["tests"][0]["shift"].as_f64().unwrap() < 0.0 && scores["reference"]["sign"] == "negative");
    let intensity = scores["reference"]["shrinkage"].as_f64().unwrap();
    assert!((intensity - case.ledoit_wolf.unwrap().intensity).abs() < 1e-9);
}

#[test]
fn the_verb_warns_of_missing_directions_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let output = shift(folder.path(), &["--reference", "fixture:few.reference", "--test", "fixture:few.test"]);
    let expected = "warning: 6 of 12 directions have more than 1.431e-6 of the largest variance; only they count \
                    (7 samples have 6 directions at most)\n";
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), expected));
}

#[test]
fn the_verb_refuses_wrong_input_before_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let failing = |arguments: &[&str], message: &str| {
        let output = shift(folder.path(), arguments);
        let errors = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{errors}");
        assert!(errors.contains(message) && !errors.contains("panicked"), "{errors}");
        assert!(!folder.path().join("fit").exists());
    };
    let reference = ["--reference", "fixture:full.reference", "--save-fit", "fit"];
    let with = |more: &[&'static str]| [&reference[..], more].concat();
    failing(&with(&["--test", "absent.npy"]), "error: cannot read features from `absent.npy`\ncaused by: ");
    failing(&with(&["--test", "fixture:few.test"]), "has 12 features, the reference has 6\n");
    failing(&with(&["--test", "fixture:npy/no-rows"]), "no-rows.npy` has no samples\n");
    failing(&with(&["--test", "fixture:full.test", "--labels", "fixture:labelled.labels"]), "90 labels for 80 samples");
    failing(&with(&["--test", "fixture:full.test", "--variant", "near"]), "error: unknown variant `near`\nhint: ");
    failing(&with(&["--test", "fixture:full.test", "--shrinkage", "lw"]), "it is `none`, `ledoit-wolf` or a number");
    let twice = ["--test", "fixture:full.test", "fixture:full.test", "--output", "out"];
    failing(&with(&twice), "two tests are named `full.test`\nhint: ");
    failing(&["--test", "fixture:full.test"], "--reference <FILE>");
    failing(&["--fit", "fixture:full.test", "--test", "fixture:full.test"], "this is no whole safetensors file");
    fit_file::save(&folder.path().join("two"), &two_fits()).unwrap();
    let fit = ["--fit", "two", "--test", "fixture:full.test"];
    failing(&fit, "`two` holds 2 fits\nhint: choose with --fit-name: joint, vision\n");
    failing(
        &[&fit[..], &["--fit-name", "image"]].concat(),
        "`two` holds no fit `image`\nhint: it holds: joint, vision\n",
    );
    failing(&[&fit[..], &["--fit-name", "vision"]].concat(), "has 6 features, the reference has 3\n");
}
