//! `shift`: Mahalanobis distance of features from a reference, both in files, or of a model (`shift_models`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use digrap_bench::data::{fit_file, npy};
use digrap_bench::error::{Error, Result};
use digrap_bench::report::{ShiftRow, shift_table};
use digrap_bench::shift::fits::Fits;
use digrap_bench::shift::{
    Fitting, Gaussian, GaussianOptions, LEVELS, Moments, Scoring, Shrinkage, Sign, Summary, find_variant, summarise,
};
use indicatif::HumanCount;
use serde::Serialize;

use super::kernels;
use super::progress::Progress;
use super::shift_models::{self, Common, ModelArgs};

/// Work that takes less is not worth a display.
const PATIENCE: Duration = Duration::from_secs(2);
/// Name of the only fit in a file that this verb writes.
const FIT: &str = "features";

/// Arguments of `shift`.
#[derive(Debug, Args)]
pub struct ShiftArgs {
    #[command(flatten)]
    reference: ReferenceArgs,
    /// Features to measure, a `.npy` file [samples, features] each
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present_any = ["save_fit", "suite"])]
    test: Vec<PathBuf>,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    measure: MeasureArgs,
    /// Folder for the results. Of files: the distance of each sample, `<name>.distances.npy` for each test. Of models:
    /// shift.json, shift.md and the store
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Where the reference comes from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Features in files")]
struct ReferenceArgs {
    /// Features of the reference: a `.npy` file [samples, features] of f16, f32 or f64
    #[arg(long, value_name = "FILE", required_unless_present_any = ["fit", "suite"], conflicts_with = "fit")]
    reference: Option<PathBuf>,
    /// Class of each sample of the reference: a `.npy` file of integers
    #[arg(long, value_name = "FILE", requires = "reference")]
    labels: Option<PathBuf>,
    /// File to keep the moments of the reference in, that of a model's training questions too
    #[arg(long, value_name = "FILE", conflicts_with = "fit")]
    save_fit: Option<PathBuf>,
    /// File of an earlier --save-fit, in place of --reference or of a model's training questions
    #[arg(long, value_name = "FILE")]
    fit: Option<PathBuf>,
    /// Which fit of the file [default: the only one]
    #[arg(long, value_name = "NAME", requires = "fit")]
    fit_name: Option<String>,
}

/// How distances are measured.
#[derive(Debug, Args)]
#[command(next_help_heading = "Distances")]
struct MeasureArgs {
    /// Leave out directions with at most this part of the largest variance [default: features x 2^-23]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    rtol: Option<f64>,
    /// Shrink the covariance towards a multiple of the identity: none, ledoit-wolf, or a number from 0 to 1
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = shrinkage)]
    shrinkage: Shrinkage,
    /// What distances are measured from (`list variants`): marginal, class-conditional or relative. The classes of a suite
    /// are the answer types of its training questions
    #[arg(long, value_name = "NAME", default_value = "marginal")]
    variant: String,
    /// positive for distances, negative for scores as the paper's code stores them
    #[arg(long, value_name = "SIGN", default_value = "positive", value_parser = sign)]
    sign: Sign,
}

impl MeasureArgs {
    fn options(&self) -> Result<GaussianOptions> {
        let variant = find_variant(&self.variant)?;
        let options = GaussianOptions { variant, rtol: self.rtol, shrinkage: self.shrinkage };
        options.check()?;
        Ok(options)
    }
}

fn shrinkage(text: &str) -> std::result::Result<Shrinkage, &'static str> {
    match text {
        "none" => Ok(Shrinkage::None),
        "ledoit-wolf" => Ok(Shrinkage::LedoitWolf),
        _ => text.parse().map(Shrinkage::Fixed).map_err(|_| "it is `none`, `ledoit-wolf` or a number from 0 to 1"),
    }
}

fn sign(text: &str) -> std::result::Result<Sign, &'static str> {
    match text {
        "positive" => Ok(Sign::Positive),
        "negative" => Ok(Sign::Negative),
        _ => Err("it is `positive` or `negative`"),
    }
}

/// What is said of the reference.
#[derive(Debug, Serialize)]
struct Reference {
    n: u64,
    dimension: usize,
    rank: usize,
    rtol: f64,
    shrinkage: f64,
    variant: &'static str,
    sign: &'static str,
    about: BTreeMap<String, String>,
}

/// One measured set.
#[derive(Debug, Serialize)]
struct Measured {
    test: String,
    #[serde(flatten)]
    summary: Summary,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Document {
    reference: Reference,
    tests: Vec<Measured>,
}

/// Features of one set to measure.
struct Test {
    name: String,
    path: PathBuf,
    features: npy::Reader,
}

/// Fits the reference or reads its fit, measures all tests, and prints the table or the JSON document.
pub fn run(args: &ShiftArgs, json: bool) -> Result<()> {
    kernels::choose()?;
    let options = args.measure.options()?;
    args.reference.save_fit.as_deref().map_or(Ok(()), fit_file::check)?;
    if args.models.suite.is_some() {
        return shift_models::run(&args.models, &common(args, options)?, json);
    }
    let tests = open_tests(&args.test)?;
    prepare_output(args.output.as_deref(), &tests)?;
    let moments = moments(&args.reference, &tests)?;
    let gaussian = Gaussian::new(&moments, options)?;
    let about = moments.about;
    if let Some(deficiency) = gaussian.deficiency() {
        Progress::say(None, &format!("warning: {deficiency}"));
    }
    let sign = args.measure.sign;
    let measured = tests.into_iter().map(|test| measure(&gaussian, test, sign, args.output.as_deref()));
    let tests = measured.collect::<Result<_>>()?;
    show(&Document { reference: reference(&gaussian, sign, about), tests }, json)
}

fn common(args: &ShiftArgs, gaussian: GaussianOptions) -> Result<Common<'_>> {
    let ReferenceArgs { fit, save_fit, .. } = &args.reference;
    let (fit, save_fit, output) = (fit.as_ref(), save_fit.as_ref(), args.output.as_ref());
    prepare_output(args.output.as_deref(), &[])?;
    Ok(Common { gaussian, fit, save_fit, output })
}

/// Opens all files first, so that a missing one is told before the work begins.
fn open_tests(paths: &[PathBuf]) -> Result<Vec<Test>> {
    let open = |path: &PathBuf| {
        let features = npy::Reader::open(path)?;
        if features.rows() == 0 {
            return Err(Error::input(format!("`{}` has no samples", path.display())));
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Test { name, path: path.clone(), features })
    };
    paths.iter().map(open).collect()
}

fn prepare_output(folder: Option<&Path>, tests: &[Test]) -> Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    let mut names = BTreeSet::new();
    if let Some(twice) = tests.iter().find(|test| !names.insert(&test.name)) {
        return Err(Error::input(format!("two tests are named `{}`", twice.name))
            .hint("their distances would be in one file: rename one, or measure them one after the other"));
    }
    let failed = |cause| Error::input(format!("cannot make the folder `{}`", folder.display())).caused_by(cause);
    fs::create_dir_all(folder).map_err(failed)
}

/// The reference's moments, of as many features as the tests have.
fn moments(args: &ReferenceArgs, tests: &[Test]) -> Result<Moments> {
    match (&args.reference, &args.fit) {
        (Some(path), _) => {
            let features = npy::Reader::open(path)?;
            check_dimension(features.columns(), tests)?;
            fit(path, features, args)
        }
        (None, Some(path)) => {
            let moments = load(path, args.fit_name.as_deref())?;
            check_dimension(moments.dimension(), tests)?;
            Ok(moments)
        }
        (None, None) => Err(Error::input("neither --reference nor --fit given")),
    }
}

fn check_dimension(dimension: usize, tests: &[Test]) -> Result<()> {
    match tests.iter().find(|test| test.features.columns() != dimension) {
        Some(test) => {
            let (path, found) = (test.path.display(), test.features.columns());
            Err(Error::input(format!("`{path}` has {found} features, the reference has {dimension}")))
        }
        None => Ok(()),
    }
}

fn fit(path: &Path, features: npy::Reader, args: &ReferenceArgs) -> Result<Moments> {
    let labels = args.labels.as_deref().map(npy::read_labels).transpose()?;
    if let Some(labels) = labels.as_ref().filter(|labels| labels.len() as u64 != features.rows()) {
        let message = format!("{} labels for {} samples of the reference", labels.len(), features.rows());
        return Err(Error::input(message));
    }
    let mut fitting = Fitting::new(features.columns());
    let mut at = 0;
    walk(features, "reference", |rows| {
        let count = rows.len() / fitting.dimension();
        let result = match &labels {
            Some(labels) => fitting.add_labelled(rows, &labels[at..at + count]),
            None => fitting.add(rows),
        };
        at += count;
        result.map_err(|error| error.within(format!("cannot fit `{}`", path.display())))
    })?;
    let files = [("features", Some(path)), ("labels", args.labels.as_deref())];
    let about = files.into_iter().filter_map(|(what, path)| Some((what.to_owned(), path?.display().to_string())));
    let moments = fitting.finish(about.collect())?;
    let Some(target) = &args.save_fit else { return Ok(moments) };
    let mut fits = Fits::from([(FIT.to_owned(), moments)]);
    fit_file::save(target, &fits)?;
    fits.remove(FIT).ok_or_else(|| Error::internal("a fit was lost while it was written"))
}

fn load(path: &Path, name: Option<&str>) -> Result<Moments> {
    let mut fits = fit_file::load(path)?;
    let names: Vec<String> = fits.keys().cloned().collect();
    let name = match (name, &names[..]) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, _) => {
            let message = format!("`{}` holds {} fits", path.display(), names.len());
            return Err(Error::input(message).hint(format!("choose with --fit-name: {}", names.join(", "))));
        }
    };
    let unknown = || Error::input(format!("`{}` holds no fit `{name}`", path.display()));
    fits.remove(name).ok_or_else(|| unknown().hint(format!("it holds: {}", names.join(", "))))
}

fn measure(gaussian: &Gaussian, test: Test, sign: Sign, output: Option<&Path>) -> Result<Measured> {
    let Test { name, path, features } = test;
    let within = |error: Error| error.within(format!("cannot measure `{}`", path.display()));
    let mut scoring = Scoring::new(gaussian);
    walk(features, &name, |rows| scoring.add(rows).map_err(within))?;
    let mut distances = scoring.finish()?;
    sign.apply(&mut distances);
    if let Some(folder) = output {
        npy::write_numbers(&folder.join(format!("{name}.distances.npy")), &distances)?;
    }
    let summary = summarise(&distances, None, gaussian).ok_or_else(|| Error::internal("no distances"))?;
    Ok(Measured { test: name, summary })
}

/// Hands over all rows of a file; where that takes long, it is told how far it is.
fn walk(mut features: npy::Reader, what: &str, mut take: impl FnMut(&[f64]) -> Result<()>) -> Result<()> {
    let (start, total, columns) = (Instant::now(), features.rows(), features.columns());
    let (mut done, mut progress) = (0, None);
    while let Some(rows) = features.next_rows()? {
        take(rows)?;
        done += (rows.len() / columns) as u64;
        if progress.is_none() && start.elapsed() > PATIENCE {
            progress = Some(Progress::resumed(total, done, "samples"));
        }
        if let Some(progress) = &mut progress {
            progress.set(done, what);
        }
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(())
}

fn reference(gaussian: &Gaussian, sign: Sign, about: BTreeMap<String, String>) -> Reference {
    Reference {
        n: gaussian.n,
        dimension: gaussian.dimension(),
        rank: gaussian.rank(),
        rtol: gaussian.rtol,
        shrinkage: gaussian.shrinkage,
        variant: gaussian.variant.name,
        sign: if sign == Sign::Positive { "positive" } else { "negative" },
        about,
    }
}

fn show(document: &Document, json: bool) -> Result<()> {
    if json {
        return super::print_json(document);
    }
    let row = |Measured { test, summary }: &Measured| ShiftRow {
        name: test.clone(),
        n: summary.n,
        shift: summary.shift,
        interval: summary.interval,
        quantiles: LEVELS.map(|(name, _)| name).into_iter().zip(summary.quantiles.0).collect(),
    };
    let rows: Vec<ShiftRow> = document.tests.iter().map(row).collect();
    let table = if rows.is_empty() { String::new() } else { shift_table(&rows) + "\n" };
    super::print(&(table + &conditions(&document.reference)))
}

/// The line below the table.
fn conditions(reference: &Reference) -> String {
    let Reference { n, dimension, rank, rtol, shrinkage, variant, sign, .. } = reference;
    let (n, dimension, rank) = (HumanCount(*n), HumanCount(*dimension as u64), HumanCount(*rank as u64));
    let shrunk = if *shrinkage > 0.0 { format!(" Shrinkage: {shrinkage:.4}.") } else { String::new() };
    format!(
        "Reference: {n} samples, {dimension} features, rank {rank} (cut-off {rtol:.3e}). Distance: {variant}, \
         {sign}.{shrunk}\n"
    )
}
