//! `runs`: what stores hold, and stores brought together.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use digrap_bench::error::{Error, Result};
use digrap_bench::report::{self, read_log};
use digrap_bench::store::{FILE_MAGIC, FILE_NAME, Folded, Removal, Removed, Store, Tally, fold_into, store_file};
use digrap_bench::suite::{AnswerState, ListedDataset, ListedModel, ListedTraining, StoreListing, stored_listing};
use indicatif::HumanCount;
use serde::Serialize;
use serde_json::json;

use super::machine::folders;
use super::runs_export::{self, ExportArgs};
use super::shards::is_shard;

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
    /// Stores, or output folders of `vqa` with one [default: that of the user's data]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    store: Vec<PathBuf>,
    /// Read every page of the files and say what is wrong
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// A model, answers without a model such as `answers:1`, or a training run such as `training:1`
    #[arg(value_name = "NAME")]
    name: String,
    /// Store, or an output folder of `vqa` with one [default: that of the user's data]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Read every page of the file first and say what is wrong
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct RmArgs {
    /// Models, answers without a model such as `answers:1`, and training runs such as `training:1`
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Store, or an output folder of `vqa` with one [default: that of the user's data]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// Stores, and files of `runs export --format jsonl`
    #[arg(value_name = "FROM", required = true)]
    from: Vec<PathBuf>,
    /// Store to import into, which is created where there is none; others who write to it wait until the import has ended
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// End with exit code 3 where a question that was asked has no answer, or where that cannot be told
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
    given.map_or_else(|| Ok(folders()?.data.join(FILE_NAME)), |path| Ok(path.clone()))
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
    if args.check {
        check(&store)?;
    }
    match found(&stored_listing(&store)?, &args.name) {
        Some(Found::Model(model)) if json => super::print_json(model),
        Some(Found::Model(model)) => super::print(&report::model_page(model)),
        Some(Found::Training(run)) if json => super::print_json(run),
        Some(Found::Training(run)) => super::print(&report::training_page(run)),
        None => Err(unknown_run(&path, &args.name)),
    }
}

/// What a name of `runs list` stands for.
enum Found<'a> {
    Model(&'a ListedModel),
    Training(&'a ListedTraining),
}

fn found<'a>(listing: &'a StoreListing, name: &str) -> Option<Found<'a>> {
    let number = |kind: &str| name.strip_prefix(kind).and_then(|number| number.parse::<i64>().ok());
    let (answers, training) = (number("answers:"), number("training:"));
    let unnamed = |model: &&ListedModel| model.name.is_none() && answers.is_some() && model.answers == answers;
    let named = listing.models.iter().find(|model| model.name.as_deref() == Some(name));
    let model = named.or_else(|| listing.models.iter().find(unnamed)).map(Found::Model);
    let run = || listing.training_runs.iter().find(|run| Some(run.number) == training).map(Found::Training);
    model.or_else(run)
}

fn unknown_run(path: &Path, name: &str) -> Error {
    Error::input(format!("the store `{}` has neither a model nor a training run `{name}`", path.display()))
        .hint("`digrap-bench runs list` shows all of them; training runs are named as `training:1`")
}

fn remove(args: &RmArgs, json: bool) -> Result<()> {
    let path = chosen_store(args.store.as_ref())?;
    // A store that is not there is not created to remove something from it.
    let known = Store::open_to_read(&path)?;
    let (listing, answers, runs) = (stored_listing(&known)?, known.all_settings()?, known.training_runs()?);
    drop(known);
    let mut removal = Removal::default();
    for name in &args.names {
        match found(&listing, name) {
            Some(Found::Model(ListedModel { name: Some(_), .. })) => removal.models.push(name),
            Some(Found::Model(model)) => {
                removal.answers.extend(answers.iter().filter(|id| Some(id.number()) == model.answers));
            }
            Some(Found::Training(run)) => {
                let numbered = runs.iter().filter(|(id, _)| id.number() == run.number);
                removal.training_runs.extend(numbered.map(|(id, _)| *id));
            }
            None => return Err(unknown_run(&path, name)),
        }
    }
    let removed = Store::open(store_file(&path))?.remove(&removal)?;
    if json {
        return super::print_json(&json!({"store": path, "removed": removed}));
    }
    let Removed { models, training_runs, answers, distances, points } = removed;
    let counts = [
        (models, MODELS),
        (answers, ANSWERS),
        (distances, DISTANCES),
        (training_runs, ["training run", "training runs"]),
        (points, POINTS),
    ];
    let told = counts.iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> = told.map(|(count, what)| counted(*count, *what)).collect();
    super::print(&format!("removed from `{}`: {}\n", path.display(), told.join(", ")))
}

const MODELS: [&str; 2] = ["model", "models"];
/// What answers are called, one and several.
pub const ANSWERS: [&str; 2] = ["answer", "answers"];
const DISTANCES: [&str; 2] = ["question's distances", "questions' distances"];
const POINTS: [&str; 2] = ["point of a curve", "points of curves"];

/// A count with what is counted, which has a name for one and a name for several.
pub fn counted(count: usize, [one, several]: [&str; 2]) -> String {
    format!("{} {}", HumanCount(count as u64), if count == 1 { one } else { several })
}

/// Whether what was asked is answered.
#[derive(Serialize)]
struct Completeness {
    model: Option<String>,
    dataset: String,
    answers: usize,
    n: Option<usize>,
    complete: bool,
    state: AnswerState,
}

fn import(args: &ImportArgs, json: bool) -> Result<()> {
    let folded = fold(args)?;
    let listing = Store::open_to_read(&args.store).and_then(|store| stored_listing(&store)).map_err(|error| {
        error.within(format!("all was imported into `{}`, which then could not be listed", args.store.display()))
    })?;
    let completeness: Vec<Completeness> = listing.models.iter().flat_map(completeness).collect();
    if json {
        super::print_json(&json!({"store": args.store, "imported": folded, "completeness": completeness}))?;
    } else {
        super::print(&told(&folded, &completeness, args.from.iter().any(|path| is_shard(path))))?;
    }
    if args.complete { refuse_incomplete(&completeness) } else { Ok(()) }
}

/// Refuses answers that are not known to be all.
fn refuse_incomplete(completeness: &[Completeness]) -> Result<()> {
    if completeness.is_empty() {
        return Err(Error::incomplete("no question was asked of any model, so that nothing is complete")
            .hint("import stores of `digrap-bench vqa`"));
    }
    let mut open = completeness.iter().filter(|row| !row.complete).peekable();
    let Some(first) = open.peek() else { return Ok(()) };
    let hint = match first.state {
        AnswerState::Unknown => {
            "`digrap-bench vqa --store ...` with the same model and datasets records what was asked"
        }
        AnswerState::SeveralSets | AnswerState::MoreAnswers => {
            "counting cannot tell whose answers these are: `digrap-bench leaderboard --store ...` says whether any is missing"
        }
        _ => "import the stores of the shards that are missing, or answer the rest: `digrap-bench vqa --store ...`",
    };
    let told: Vec<String> = open
        .clone()
        .map(|row| {
            let model = row.model.as_ref().map_or_else(String::new, |model| format!("{model} on "));
            format!("{model}{} ({})", row.dataset, row.state.told())
        })
        .collect();
    let sets = completeness.len();
    let message =
        format!("{} of {sets} sets of questions are not known to be complete: {}", open.count(), told.join(", "));
    Err(Error::incomplete(message).hint(hint))
}

fn fold(args: &ImportArgs) -> Result<Folded> {
    let scratch = tempfile::tempdir().map_err(|cause| {
        Error::input("cannot create a folder for copies of stores")
            .caused_by(cause)
            .hint("set TMPDIR to a folder that is writable")
    })?;
    let own = args.store.canonicalize().ok();
    let same = |path: &Path| store_file(path).canonicalize().ok().is_some_and(|path| own.as_ref() == Some(&path));
    // All files are looked at before the store is created.
    let sources = args.from.iter().enumerate().map(|(number, path)| {
        if same(path) {
            return Err(Error::input(format!("`{}` is the store to import into", path.display()))
                .hint("leave it out, or use another --store"));
        }
        Source::open(path, &scratch.path().join(format!("{number}.sqlite")))
    });
    let mut sources = sources.collect::<Result<Vec<_>>>()?;
    fold_into(&args.store, &mut |fold| {
        sources.iter_mut().try_for_each(|source| match source {
            Source::Store(source) => fold.store(source),
            Source::Log(path, log) => read_log((path, log), fold),
        })
    })
}

/// Something to import.
enum Source {
    Store(Box<Store>),
    /// A file, or a pipe, whose beginning is read once.
    Log(PathBuf, BufReader<File>),
}

impl Source {
    fn open(path: &Path, copy: &Path) -> Result<Self> {
        let file = store_file(path);
        let opened = File::open(&file).map(BufReader::new).and_then(|mut file| {
            let start = file.fill_buf()?.iter().take(FILE_MAGIC.len()).copied().collect::<Vec<u8>>();
            Ok((file, start))
        });
        match opened {
            Ok((log, start)) if start.first() == Some(&b'{') => Ok(Self::Log(path.to_owned(), log)),
            Ok((_, start)) if !start.is_empty() && !FILE_MAGIC.starts_with(&start) => {
                Err(Error::input(format!("`{}` is neither a store nor exported answers", path.display()))
                    .hint("give stores, and files that `digrap-bench runs export --format jsonl` has written"))
            }
            Ok((_, start)) if !file.is_file() => {
                let what =
                    if start.is_empty() { "gives nothing" } else { "is a store in a pipe, which cannot be read" };
                Err(Error::input(format!("`{}` {what}", path.display()))
                    .hint("give the file of the store; exported answers can come from a pipe too"))
            }
            _ => {
                let store = Store::open_unchanged(path, copy)?;
                check(&store)?;
                Ok(Self::Store(Box::new(store)))
            }
        }
    }
}

fn completeness(model: &ListedModel) -> impl Iterator<Item = Completeness> {
    let row = |dataset: &ListedDataset| {
        let state = dataset.state()?;
        Some(Completeness {
            model: model.name.clone(),
            dataset: dataset.dataset.clone(),
            answers: dataset.answers,
            n: dataset.n,
            complete: state == AnswerState::Complete,
            state,
        })
    };
    model.datasets.iter().filter_map(row)
}

fn told(folded: &Folded, completeness: &[Completeness], of_shards: bool) -> String {
    let Folded { models, answers, distances, points } = folded;
    let kinds = [(MODELS, models), (ANSWERS, answers), (DISTANCES, distances), (POINTS, points)];
    let count = |count: usize| HumanCount(count as u64);
    let tell = |(what, Tally { new, known }): &([&str; 2], &Tally)| {
        let verb = if *known == 1 { "was" } else { "were" };
        let known = if *known > 0 { format!(" ({} more {verb} there already)", count(*known)) } else { String::new() };
        counted(*new, *what) + &known
    };
    let some: Vec<String> = kinds.iter().filter(|(_, tally)| tally.new + tally.known > 0).map(tell).collect();
    let some = if some.is_empty() { "nothing, since nothing is stored there".to_owned() } else { some.join(", ") };
    let mut text = format!("imported: {some}\n");
    for Completeness { model, dataset, answers, n, state, .. } in completeness {
        let model = model.as_ref().map_or_else(String::new, |model| format!("{model} on "));
        let state = match state {
            AnswerState::Incomplete if of_shards => "incomplete: shard missing?",
            state => state.told(),
        };
        let n = n.map_or_else(|| "an unknown number".to_owned(), |n| count(n).to_string());
        text += &format!("{model}{dataset}: {} of {n}, {state}\n", count(*answers));
    }
    text
}
