//! `runs`: what stores hold, and stores brought together.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use digrap_bench::error::{Error, Result};
use digrap_bench::report::{self, read_log};
use digrap_bench::store::{Folded, Removed, Store, Tally, TrainingRunId};
use digrap_bench::suite::{ListedDataset, ListedModel, StoreListing, stored_listing};
use indicatif::HumanCount;
use serde::Serialize;
use serde_json::json;

use super::machine::folders;
use super::runs_export::{self, ExportArgs};

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    #[command(subcommand)]
    verb: RunsVerb,
}

#[derive(Debug, Subcommand)]
enum RunsVerb {
    /// Evaluated models and training runs, with counts
    List(ListArgs),
    /// All that is known of one model or training run
    Show(ShowArgs),
    /// Remove models, with answers and distances that no other model shares, and training runs
    Rm(RmArgs),
    /// Write answers as JSON lines, or curves and results for TensorBoard and MLflow
    Export(Box<ExportArgs>),
    /// Bring other stores and exported answers into one store: everything or nothing
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Stores [default: that of the user's data]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    store: Vec<PathBuf>,
    /// Read every page of the files and say what is wrong
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// A model, or a training run such as `training:1`
    #[arg(value_name = "NAME")]
    name: String,
    /// Store [default: that of the user's data]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RmArgs {
    /// Models, and training runs such as `training:1`
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Store [default: that of the user's data]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// Stores, and files of `runs export --format jsonl`
    #[arg(value_name = "FROM", required = true)]
    from: Vec<PathBuf>,
    /// Store to import into, which is created where there is none
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// End with exit code 3 where a question that was asked has no answer
    #[arg(long)]
    complete: bool,
}

/// Runs the verb that is given.
pub fn run(args: &RunsArgs, json: bool) -> Result<()> {
    match &args.verb {
        RunsVerb::List(args) => list(args, json),
        RunsVerb::Show(args) => show(args, json),
        RunsVerb::Rm(args) => remove(args, json),
        RunsVerb::Export(args) => runs_export::run(args, json),
        RunsVerb::Import(args) => import(args, json),
    }
}

/// The store that is given, else that of the user's data.
pub fn chosen_store(given: Option<&PathBuf>) -> Result<PathBuf> {
    given.map_or_else(|| Ok(folders()?.data.join("store.sqlite")), |path| Ok(path.clone()))
}

#[derive(Serialize)]
struct ListedStore<'a> {
    store: &'a Path,
    #[serde(flatten)]
    listing: StoreListing,
}

fn list(args: &ListArgs, json: bool) -> Result<()> {
    let paths = if args.store.is_empty() { vec![chosen_store(None)?] } else { args.store.clone() };
    let mut stores = Vec::new();
    for path in &paths {
        let store = Store::open_to_read(path)?;
        if args.check {
            check(&store)?;
        }
        stores.push(ListedStore { store: path, listing: stored_listing(&store)? });
    }
    if json {
        return super::print_json(&json!({ "stores": stores }));
    }
    let title = |path: &Path| if stores.len() > 1 { format!("{}\n\n", path.display()) } else { String::new() };
    let texts: Vec<String> = stores.iter().map(|one| title(one.store) + &report::runs(&one.listing)).collect();
    let whole = if args.check { "\nEvery page is whole.\n" } else { "" };
    super::print(&(texts.join("\n") + whole))
}

/// Refuses a store with damaged pages.
fn check(store: &Store) -> Result<()> {
    let faults = store.faults()?;
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::input(format!("the store `{}` is damaged", store.path().display()))
        .caused_by(faults.join("; "))
        .hint("`digrap-bench runs export --rescue --store ... --format jsonl --output ...` saves what can be read"))
}

fn show(args: &ShowArgs, json: bool) -> Result<()> {
    let path = chosen_store(args.store.as_ref())?;
    let store = Store::open_to_read(&path)?;
    check(&store)?;
    let listing = stored_listing(&store)?;
    if let Some(model) = listing.models.iter().find(|model| model.name.as_ref() == Some(&args.name)) {
        return if json { super::print_json(model) } else { super::print(&report::model_page(model)) };
    }
    let number = training_number(&args.name);
    match listing.training_runs.iter().find(|run| Some(run.number) == number) {
        Some(run) if json => super::print_json(run),
        Some(run) => super::print(&report::training_page(run)),
        None => Err(unknown_run(&path, &args.name)),
    }
}

fn unknown_run(path: &Path, name: &str) -> Error {
    Error::input(format!("the store `{}` has neither a model nor a training run `{name}`", path.display()))
        .hint("`digrap-bench runs list` shows all of them; training runs are named as `training:1`")
}

/// The number of a training run that is named as `training:1`.
fn training_number(name: &str) -> Option<i64> {
    name.strip_prefix("training:")?.parse().ok()
}

fn remove(args: &RmArgs, json: bool) -> Result<()> {
    let path = chosen_store(args.store.as_ref())?;
    // A store that is not there is not created to remove something from it.
    let known = Store::open_to_read(&path)?;
    let (named, all) = (known.models()?, known.training_runs()?);
    drop(known);
    let (mut models, mut runs): (Vec<&str>, Vec<TrainingRunId>) = (Vec::new(), Vec::new());
    for name in &args.names {
        let number = training_number(name);
        match all.iter().find(|(run, _)| Some(run.number()) == number) {
            _ if named.iter().any(|model| model.name == *name) => models.push(name),
            Some((run, _)) => runs.push(*run),
            None => return Err(unknown_run(&path, name)),
        }
    }
    let removed = Store::open(&path)?.remove(&models, &runs)?;
    if json {
        return super::print_json(&json!({"store": path, "removed": removed}));
    }
    let Removed { models, training_runs, answers, distances, points } = removed;
    let counts = [
        (models, "models"),
        (answers, "answers"),
        (distances, "questions' distances"),
        (training_runs, "training runs"),
        (points, "points of curves"),
    ];
    let told = counts.iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> = told.map(|(count, what)| format!("{} {what}", HumanCount(*count as u64))).collect();
    super::print(&format!("removed from `{}`: {}\n", path.display(), told.join(", ")))
}

/// Whether what was asked is answered.
#[derive(Serialize)]
struct Completeness {
    model: Option<String>,
    dataset: String,
    answers: usize,
    n: usize,
    complete: bool,
}

fn import(args: &ImportArgs, json: bool) -> Result<()> {
    let existed = args.store.exists();
    let outcome = fold(args);
    if outcome.is_err() && !existed {
        // What an import that failed has created; where that cannot be removed either, it is an empty store.
        for suffix in ["", "-wal", "-shm"] {
            let mut name = args.store.clone().into_os_string();
            name.push(suffix);
            let _ = std::fs::remove_file(name);
        }
    }
    let (folded, listing) = outcome?;
    let completeness: Vec<Completeness> = listing.models.iter().flat_map(completeness).collect();
    if json {
        super::print_json(&json!({"store": args.store, "imported": folded, "completeness": completeness}))?;
    } else {
        super::print(&told(&folded, &completeness))?;
    }
    let missing = completeness.iter().filter(|row| !row.complete).count();
    if args.complete && missing > 0 {
        return Err(Error::incomplete(format!("{missing} of {} sets of questions lack answers", completeness.len()))
            .hint(
                "import the stores of the shards that are missing, or answer the rest: `digrap-bench vqa --store ...`",
            ));
    }
    Ok(())
}

fn fold(args: &ImportArgs) -> Result<(Folded, StoreListing)> {
    let scratch = tempfile::tempdir()
        .map_err(|cause| Error::internal("cannot create a folder for copies of stores").caused_by(cause))?;
    let same = |path: &Path| path.canonicalize().ok().is_some_and(|path| args.store.canonicalize().ok() == Some(path));
    // All files are looked at before the store is created.
    let sources = args.from.iter().enumerate().map(|(number, path)| {
        if same(path) {
            return Err(Error::input(format!("`{}` is the store to import into", path.display()))
                .hint("leave it out, or use another --store"));
        }
        Source::open(path, &scratch.path().join(format!("{number}.sqlite")))
    });
    let sources = sources.collect::<Result<Vec<_>>>()?;
    let mut store = Store::open(&args.store)?;
    let folded = store.fold(&mut |fold| {
        sources.iter().try_for_each(|source| match source {
            Source::Store(source) => fold.store(source),
            Source::Log(path) => read_log(path, fold),
        })
    })?;
    let listing = stored_listing(&store)?;
    Ok((folded, listing))
}

/// What every store begins with.
const STORE_START: &[u8] = b"SQLite format 3\0";

/// Something to import.
enum Source {
    Store(Box<Store>),
    Log(PathBuf),
}

impl Source {
    fn open(path: &Path, copy: &Path) -> Result<Self> {
        let mut start = Vec::new();
        let read = File::open(path).and_then(|file| file.take(STORE_START.len() as u64).read_to_end(&mut start));
        match read {
            Ok(_) if start.first() == Some(&b'{') => Ok(Self::Log(path.to_owned())),
            Ok(_) if !start.is_empty() && start != STORE_START => {
                Err(Error::input(format!("`{}` is neither a store nor exported answers", path.display()))
                    .hint("give stores, and files that `digrap-bench runs export --format jsonl` has written"))
            }
            _ => Ok(Self::Store(Box::new(Store::open_unchanged(path, copy)?))),
        }
    }
}

fn completeness(model: &ListedModel) -> impl Iterator<Item = Completeness> {
    let row = |dataset: &ListedDataset| {
        Some(Completeness {
            model: model.name.clone(),
            dataset: dataset.dataset.clone(),
            answers: dataset.answers,
            n: dataset.n?,
            complete: dataset.complete()?,
        })
    };
    model.datasets.iter().filter_map(row)
}

fn told(folded: &Folded, completeness: &[Completeness]) -> String {
    let Folded { models, answers, distances, points } = folded;
    let kinds =
        [("models", models), ("answers", answers), ("questions' distances", distances), ("points of curves", points)];
    let count = |count: usize| HumanCount(count as u64);
    let tell = |(what, Tally { new, known }): &(&str, &Tally)| {
        let known = if *known > 0 { format!(" ({} more were there already)", count(*known)) } else { String::new() };
        format!("{} {what}{known}", count(*new))
    };
    let some = kinds.iter().filter(|(_, tally)| tally.new + tally.known > 0);
    let mut text = format!("imported: {}\n", some.map(tell).collect::<Vec<_>>().join(", "));
    for Completeness { model, dataset, answers, n, complete } in completeness {
        let model = model.as_ref().map_or_else(String::new, |model| format!("{model} on "));
        let state = if *complete { " complete" } else { ": shard missing?" };
        text += &format!("{model}{dataset}: {} of {}{state}\n", count(*answers), count(*n));
    }
    text
}
