//! `compare`: whether a model has become worse than a baseline; and the writing of baselines.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use digrap_bench::data::vqa_json;
use digrap_bench::error::{Error, Result};
use digrap_bench::report;
use digrap_bench::suite::{Comparison, PlannedDataset, Run, Suite, Thresholds, bless, compare};

use super::known;
use super::machine::step_summary;
use super::vqa::{CUSTOM, create_output, shorten, write_whole};

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// What to compare with: a folder written by --bless, an output folder of `vqa` or a store; PATH#MODEL where a store has
    /// several models
    #[arg(long, value_name = "RUN")]
    baseline: String,
    /// What is judged: an output folder of `vqa` or a store; PATH#MODEL where a store has several models
    #[arg(long, value_name = "RUN")]
    current: String,
    /// A known suite (`list suites`), or a TOML file: all its datasets are compared
    #[arg(long, value_name = "NAME|FILE", required_unless_present_any = ["dataset", "questions"],
        conflicts_with_all = ["dataset", "questions"])]
    suite: Option<String>,
    /// A known dataset; several may be named
    #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with = "questions")]
    dataset: Vec<String>,
    /// Folder of the known dataset; for several, and for a suite, it has one folder for each [default: that of the user's
    /// data]
    #[arg(long, value_name = "DIR", conflicts_with = "questions")]
    root: Option<PathBuf>,
    /// Question file of a set of your own, in the official VQA format
    #[arg(long, value_name = "FILE", requires = "annotations")]
    questions: Option<PathBuf>,
    /// Annotation file in the official VQA format
    #[arg(long, value_name = "FILE", requires = "questions")]
    annotations: Option<PathBuf>,
    /// Only the first N questions of each dataset, where only they were asked
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// How to compute accuracy [default: the suite's, else the dataset's own, official-2021 for a set of your own]
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// TOML file with `level`, `tolerated-drop`, `max-drop` and `min-accuracy`, and the last three in [dataset.NAME] tables
    /// [default: level 0.05, no drop tolerated]
    #[arg(long, value_name = "FILE")]
    thresholds: Option<PathBuf>,
    /// How many questions whose score fell, and of those whose score rose, to show of each dataset
    #[arg(long, value_name = "N", default_value_t = 5)]
    examples: usize,
    /// Folder for comparison.md, comparison.json and junit.xml
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Compare nothing, but write the answers of the current run to the folder of the baseline
    #[arg(long, conflicts_with_all = ["thresholds", "output", "examples"])]
    bless: bool,
}

/// Files of `--output`.
const REPORTS: [&str; 3] = ["comparison.md", "comparison.json", "junit.xml"];

/// Compares, or writes a baseline; prints the Markdown or the JSON document, and says how to exit.
pub fn run(args: &CompareArgs, json: bool) -> Result<ExitCode> {
    if args.bless {
        return write_baseline(args, json).map(|()| ExitCode::SUCCESS);
    }
    args.output.as_deref().map_or(Ok(()), clear_reports)?;
    let comparison = compared(args).inspect_err(|refusal| tell_refusal(args, refusal))?;
    let text = report::comparison(&comparison);
    // The verdict comes first, and one that fails stays what it is where something cannot be written.
    let printed = if json { super::print_json(&comparison) } else { super::print(&text) };
    summarise(&text);
    let written = args.output.as_deref().map_or(Ok(()), |output| write(output, &comparison, &text));
    match (printed.and(written), comparison.verdict.exit_code()) {
        (Err(error), 0) => return Err(error),
        (Err(error), _) => super::warn(&error),
        (Ok(()), _) => {}
    }
    Ok(ExitCode::from(comparison.verdict.exit_code()))
}

/// Makes the folder for reports, without those of an earlier comparison, whose verdict is not to be taken for this one's.
fn clear_reports(output: &Path) -> Result<()> {
    create_output(output)?;
    let remove = |name: &&str| match std::fs::remove_file(output.join(name)) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            Err(Error::input(format!("cannot remove the earlier `{}`", output.join(name).display()))
                .caused_by(cause)
                .hint("remove it, or choose another --output"))
        }
        _ => Ok(()),
    };
    // All are tried before the first failure is told.
    let removed: Vec<Result<()>> = REPORTS.iter().map(remove).collect();
    removed.into_iter().collect()
}

fn write_baseline(args: &CompareArgs, json: bool) -> Result<()> {
    let (suite, planned) = planned(args)?;
    let suite = suite.as_ref().map(|suite| suite.name.as_str());
    let blessed = bless(Path::new(&args.baseline), suite, &Run::open(&args.current)?, &planned)?;
    if json { super::print_json(&blessed) } else { super::print(&report::blessed(&blessed)) }
}

fn compared(args: &CompareArgs) -> Result<Comparison> {
    let (_, planned) = planned(args)?;
    let names: Vec<&str> = planned.iter().map(|one| one.dataset.name.as_str()).collect();
    let thresholds = match &args.thresholds {
        Some(path) => Thresholds::load(path, &names)?,
        None => Thresholds::strict(names.len()),
    };
    let [current, baseline] = [Run::open(&args.current)?, Run::open(&args.baseline)?];
    compare(&planned, [&baseline, &current], &thresholds, args.examples)
}

fn planned(args: &CompareArgs) -> Result<(Option<Suite>, Vec<PlannedDataset>)> {
    let suite = args.suite.as_deref().map(Suite::load).transpose()?;
    let mut planned = datasets(args, suite.as_ref())?;
    shorten(&mut planned, args.limit);
    Ok((suite, planned))
}

/// Tells what reads the reports of a job that nothing was compared. An earlier verdict does not stay.
fn tell_refusal(args: &CompareArgs, refusal: &Error) {
    let reasons = super::lines(refusal);
    let text = report::refused_comparison(&reasons);
    summarise(&text);
    let Some(output) = &args.output else { return };
    let [markdown, _, junit] = REPORTS;
    if let Err(error) = write_all(output, &[(markdown, text), (junit, report::refused_junit(&reasons))]) {
        super::warn(&error);
    }
}

fn datasets(args: &CompareArgs, suite: Option<&Suite>) -> Result<Vec<PlannedDataset>> {
    let (metric, root) = (args.metric.as_deref(), args.root.as_deref());
    if let Some(suite) = suite {
        return known::suite(suite, root, metric);
    }
    let Some(questions) = &args.questions else {
        return known::datasets(&args.dataset, root, metric);
    };
    let annotations = args.annotations.as_deref();
    let mut custom = known::custom(vqa_json::Files { questions, annotations, images: None, image_name: None }, metric)?;
    custom.dataset.name = CUSTOM.to_owned();
    Ok(vec![custom])
}

fn write(output: &Path, comparison: &Comparison, text: &str) -> Result<()> {
    let document = serde_json::to_string_pretty(comparison)
        .map_err(|cause| Error::internal("cannot write the comparison as JSON").caused_by(cause))?;
    let texts = [text.to_owned(), document + "\n", report::junit(comparison)];
    let files: Vec<(&str, String)> = REPORTS.into_iter().zip(texts).collect();
    write_all(output, &files)
}

/// Writes each file, whether or not another can be written; the error is that of the first that cannot.
fn write_all(output: &Path, files: &[(&str, String)]) -> Result<()> {
    let written: Vec<Result<()>> = files.iter().map(|(name, text)| write_whole(&output.join(name), text)).collect();
    written.into_iter().collect()
}

/// Adds to the file whose Markdown GitHub shows with a job. Other steps write to it too. What is said and how the program
/// exits does not depend on it.
fn summarise(text: &str) {
    let Some(summary) = step_summary() else { return };
    let file = OpenOptions::new().create(true).append(true).open(&summary);
    if let Err(cause) = file.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes())) {
        let what = format!("cannot write `{}`, which GITHUB_STEP_SUMMARY names", summary.display());
        super::warn(&Error::input(what).caused_by(cause));
    }
}
