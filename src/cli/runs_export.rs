//! `runs export`: answers, curves and results of a store for other tools.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use digrap_bench::data::WholeFile;
use digrap_bench::error::{Error, Result};
use digrap_bench::report::{LogChoice, Logged, LostAnswers, event_files, mlflow_files, tracked_runs, write_log};
use digrap_bench::store::{FILE_NAME, Store, store_files};
use digrap_bench::suite::{PlannedDataset, Suite};
use indicatif::HumanCount;
use serde_json::json;

use super::known;
use super::runs::{ANSWERS, chosen_store, counted};
use super::vqa::{create_output, shorten, write_whole};

/// Arguments of `runs export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Store, or an output folder of `vqa` with one [default: that of the user's data]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Models whose answers or results are written [default: all]
    #[arg(long, value_name = "NAME", num_args = 1..)]
    model: Vec<String>,
    /// Write what a suite's files add to the answers (questions, human answers, scores, distances), and leave out answers to
    /// other datasets: a known suite (`list suites`), or a TOML file
    #[arg(long, value_name = "NAME|FILE", group = "known")]
    suite: Option<String>,
    /// The same for known datasets
    #[arg(long, value_name = "NAME", num_args = 1.., group = "known")]
    dataset: Vec<String>,
    /// Folder of the known dataset, or the one that has a folder for each of several or of the suite [default: that of
    /// the user's data]
    #[arg(long, value_name = "DIR", requires = "known")]
    root: Option<PathBuf>,
    /// Only the first N questions of each dataset, where only they were asked
    #[arg(long, value_name = "N", requires = "known", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// What is written: a line of JSON for each answer, event files for each training run, or MLflow's plain files
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// File of the answers, or folder of the other formats
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// Write what can be read of a damaged store, and end with exit code 3 where answers are lost
    #[arg(long, conflicts_with = "known")]
    rescue: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Jsonl,
    Tensorboard,
    Mlflow,
}

/// Writes the files and says what is in them.
pub fn run(args: &ExportArgs, json: bool) -> Result<()> {
    let path = chosen_store(args.store.as_ref())?;
    refuse_store(&path, &args.output)?;
    refuse_without_effect(args)?;
    if args.rescue {
        return rescue(args, &path, json);
    }
    let store = Store::open_to_read(&path)?;
    let datasets = datasets(args)?;
    let files = match args.format {
        Format::Jsonl => return export_answers(args, &store, datasets.as_deref(), json),
        Format::Tensorboard => event_files(&store)?,
        Format::Mlflow => match tracked_runs(&store, &args.model, datasets.as_deref())? {
            runs if runs.is_empty() => Vec::new(),
            runs => mlflow_files(&runs).into_iter().map(|(path, text)| (path, text.into_bytes())).collect(),
        },
    };
    if files.is_empty() {
        return Err(no_training_runs(&path));
    }
    files.iter().try_for_each(|(file, _)| refuse_store(&path, &args.output.join(file)))?;
    write_files(args, &files, json)
}

/// Writes what can be read of a damaged store, whose files stay as they are.
fn rescue(args: &ExportArgs, path: &Path, json: bool) -> Result<()> {
    if args.format != Format::Jsonl {
        return Err(Error::input("only answers can be saved from a damaged store").hint("use --format jsonl"));
    }
    let scratch = tempfile::tempdir().map_err(|cause| {
        Error::input("cannot create a folder for a copy of the store")
            .caused_by(cause)
            .hint("set TMPDIR to a folder that is writable")
    })?;
    export_answers(args, &Store::open_to_rescue(path, scratch.path())?, None, json)
}

/// Refuses choices among models that a format holds nothing of.
fn refuse_without_effect(args: &ExportArgs) -> Result<()> {
    let of_answers = args.suite.is_some() || !args.dataset.is_empty();
    let format = match args.format {
        Format::Tensorboard => "tensorboard",
        Format::Mlflow if !of_answers => "mlflow",
        Format::Mlflow | Format::Jsonl => return Ok(()),
    };
    let given = [
        ("--model", !args.model.is_empty()),
        ("--suite", args.suite.is_some()),
        ("--dataset", !args.dataset.is_empty()),
    ];
    let Some((name, _)) = given.into_iter().find(|(_, given)| *given) else { return Ok(()) };
    let hint = match args.format {
        Format::Tensorboard => "leave it out, or use --format jsonl or mlflow",
        _ => "leave it out, or add --suite or --dataset, whose results of models are written too",
    };
    Err(Error::input(format!("{name} has no effect with --format {format}: only training runs are written")).hint(hint))
}

/// Refuses to write in place of what is exported.
fn refuse_store(store: &Path, output: &Path) -> Result<()> {
    let Ok(place) = WholeFile::place(output) else { return Ok(()) };
    match store_files(store).into_iter().position(|file| file == place) {
        None => Ok(()),
        Some(0) => Err(Error::input(format!("`{}` is the store that is exported", output.display()))),
        Some(_) => Err(Error::input(format!("`{}` belongs to the store that is exported", output.display()))),
    }
    .map_err(|error| error.hint("choose another --output"))
}

fn no_training_runs(path: &Path) -> Error {
    Error::input(format!("the store `{}` holds no training runs", path.display()))
        .hint(format!("`digrap-bench train` keeps its curves in {FILE_NAME} of its output folder; --format mlflow with --suite or --dataset writes results of models"))
}

/// The datasets whose files add to what is written.
fn datasets(args: &ExportArgs) -> Result<Option<Vec<PlannedDataset>>> {
    let root = args.root.as_deref();
    let mut datasets = match &args.suite {
        Some(suite) => known::suite(&Suite::load(suite)?, root, None)?,
        None if args.dataset.is_empty() => return Ok(None),
        None => known::datasets(&args.dataset, root, None)?,
    };
    shorten(&mut datasets, args.limit);
    Ok(Some(datasets))
}

fn export_answers(args: &ExportArgs, store: &Store, datasets: Option<&[PlannedDataset]>, json: bool) -> Result<()> {
    let unwritable = |cause| {
        Error::input(format!("cannot write `{}`", args.output.display()))
            .caused_by(cause)
            .hint("choose another --output")
    };
    let place = WholeFile::place(&args.output).map_err(unwritable)?;
    place.parent().filter(|folder| !folder.exists()).map_or(Ok(()), std::fs::create_dir_all).map_err(unwritable)?;
    let mut file = WholeFile::create(&args.output).map_err(unwritable)?;
    let choice = LogChoice { models: &args.model, datasets, rescue: args.rescue };
    let Logged { answers, lost, unreadable } = write_log(store, &choice, (&args.output, &mut file))?;
    file.finish().map_err(unwritable)?;
    if json {
        super::print_json(&json!({"output": args.output, "answers": answers, "lost": lost, "unreadable": unreadable}))?;
    } else {
        super::print(&format!("{} in `{}`\n", counted(answers, ANSWERS), args.output.display()))?;
    }
    if lost.is_empty() && unreadable.is_empty() {
        return Ok(());
    }
    let ranges: Vec<String> = unreadable.into_iter().chain(lost.iter().map(range)).collect();
    Err(Error::incomplete(format!("answers of `{}` are lost: {}", store.path().display(), ranges.join("; ")))
        .hint("`digrap-bench runs import` brings the saved ones into a new store, and `vqa --store` with that one answers the rest anew"))
}

fn range(lost: &LostAnswers) -> String {
    let LostAnswers { model, dataset, saved, after, before } = lost;
    let mut text = model.as_ref().map_or_else(String::new, |model| format!("{model} on "));
    // Writing to a String cannot fail.
    let _ = write!(text, "{dataset} ({} saved), ", HumanCount(*saved as u64));
    let name = |(question, image): &(String, String)| format!("question {question} about image {image}");
    let _ = match (after, before) {
        (Some(after), Some(before)) => write!(text, "those between {} and {}", name(after), name(before)),
        (Some(after), None) => write!(text, "those behind {}", name(after)),
        (None, Some(before)) => write!(text, "those before {}", name(before)),
        (None, None) => write!(text, "all"),
    };
    text
}

fn write_files(args: &ExportArgs, files: &[(PathBuf, Vec<u8>)], json: bool) -> Result<()> {
    for (path, bytes) in files {
        let path = args.output.join(path);
        let folder = path.parent().unwrap_or(&args.output);
        create_output(folder)?;
        write_whole(&path, bytes)?;
    }
    if json {
        let paths: Vec<PathBuf> = files.iter().map(|(path, _)| args.output.join(path)).collect();
        return super::print_json(&json!({"output": args.output, "files": paths}));
    }
    super::print(&format!("{} in `{}`\n", counted(files.len(), ["file", "files"]), args.output.display()))
}
