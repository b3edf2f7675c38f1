//! `fetch`: downloads models and datasets, and checks what was used of the Hub.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use digrap_bench::data::fetching::{self, FetchEvent, FileState, Folders};
use digrap_bench::data::{DatasetRow, HubCopy, Part, SourceFile, find_dataset};
use digrap_bench::error::{Error, Result};
use digrap_bench::hub::{Hub, Lock, Repository};
use serde::Serialize;

use super::fetch_miniature::{self, MiniatureArgs};
use super::known::root_of;
use super::machine;
use super::progress::Stages;
use super::source::{self, HubArgs, LOCK_FILE, LockFile};

/// Arguments of `fetch`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without `model` or `dataset`, a name with a `/` is a model on the Hub and any other a known dataset."
)]
pub struct FetchArgs {
    /// `model ORG/NAME[@REVISION]...` on the Hub, or `dataset NAME...`: known ones, or ORG/NAME[@REVISION] on the Hub
    #[arg(value_name = "WHAT", required_unless_present = "verify")]
    what: Vec<String>,
    /// Folder of the known dataset [default: that of the user's data]
    #[arg(long, value_name = "DIR", requires = "what")]
    root: Option<PathBuf>,
    /// Only the files of one part of the known dataset [default: all]
    #[arg(long, value_name = "PART", value_enum, requires = "what")]
    part: Option<PartName>,
    /// The parquet files of the known dataset that the Hub has, instead of those of the authors
    #[arg(long, requires = "what")]
    from_hub: bool,
    /// Check that the files which a run has used are in the cache, byte by byte
    #[arg(long, value_name = "hub.lock.json", conflicts_with = "what")]
    verify: Option<PathBuf>,
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    miniature: MiniatureArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PartName {
    Evaluation,
    Training,
}

/// What to fetch.
enum Wanted {
    OnHub(Repository),
    Known(&'static DatasetRow),
}

/// One line of the report.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Fetched {
    OnHub {
        folder: PathBuf,
        #[serde(flatten)]
        lock: Lock,
    },
    Known {
        dataset: &'static str,
        folder: PathBuf,
        files: Vec<KnownFile>,
        repositories: Vec<Lock>,
    },
}

#[derive(Debug, Serialize)]
struct KnownFile {
    path: PathBuf,
    state: &'static str,
}

/// Downloads what is named and prints where it is, or the JSON document.
pub fn run(args: &FetchArgs, json: bool) -> Result<()> {
    if let Some(output) = args.miniature.folder(&args.what)? {
        return fetch_miniature::run(&args.miniature, output, json);
    }
    let hub = machine::hub(&machine::folders()?, args.hub.offline)?;
    if let Some(file) = &args.verify {
        return verify(file, &hub, json);
    }
    let wanted = wanted(args)?;
    let mut reports = Vec::new();
    for wanted in &wanted {
        reports.push(match wanted {
            Wanted::OnHub(repository) => {
                let snapshot = source::fetch(&hub, repository)?;
                Fetched::OnHub { folder: snapshot.folder, lock: snapshot.lock }
            }
            Wanted::Known(row) => fetch_known(row, args, &hub)?,
        });
    }
    if json {
        super::print_json(&reports)?;
    } else {
        super::print(&reports.iter().map(described).collect::<String>())?;
    }
    wanted.iter().zip(&reports).try_for_each(|(wanted, report)| complete(wanted, report))
}

fn wanted(args: &FetchArgs) -> Result<Vec<Wanted>> {
    let (kind, names) = match args.what.split_first() {
        Some((kind, names)) if ["model", "dataset"].contains(&kind.as_str()) => (Some(kind.as_str()), names),
        _ => (None, args.what.as_slice()),
    };
    let read = |name: &String| match kind {
        Some("model") => name.parse().map(Wanted::OnHub),
        None if name.contains('/') => name.parse().map(Wanted::OnHub),
        _ => match name.parse::<Repository>() {
            Ok(repository) => Ok(Wanted::OnHub(repository.dataset())),
            Err(_) => find_dataset(name).map(Wanted::Known),
        },
    };
    if names.is_empty() {
        return Err(Error::input("nothing is named that could be fetched")
            .hint("`fetch model org/name`, or `fetch dataset NAME`; `list datasets` shows the known ones"));
    }
    let wanted = names.iter().map(read).collect::<Result<Vec<_>>>()?;
    let of_datasets = args.part.is_some() || args.from_hub;
    if of_datasets && wanted.iter().any(|wanted| matches!(wanted, Wanted::OnHub(_))) {
        return Err(Error::input("--part and --from-hub are for known datasets")
            .hint("`list datasets` shows them; of a repository on the Hub everything is fetched"));
    }
    if args.root.is_some() && !matches!(wanted.as_slice(), [Wanted::Known(_)]) {
        return Err(Error::input("--root is the folder of one known dataset")
            .hint("fetch one at a time; what comes from the Hub goes to its cache, HF_HUB_CACHE"));
    }
    Ok(wanted)
}

fn fetch_known(row: &'static DatasetRow, args: &FetchArgs, hub: &Hub) -> Result<Fetched> {
    if row.files.is_empty() {
        return Err(Error::input(format!("`{}` has no files to fetch", row.name)).hint(row.obtain));
    }
    let root = root_of(row, args.root.as_deref())?;
    let is_chosen = |part: Part| match args.part {
        None => true,
        Some(PartName::Evaluation) => part != Part::Training,
        Some(PartName::Training) => part != Part::Evaluation,
    };
    let mut stages = Stages::default();
    let mut show = |event: FetchEvent| match event {
        FetchEvent::Download(event) => source::show(&mut stages, row.name, &event),
        FetchEvent::Unpacked { archive, done, total } => {
            stages.set(&format!("unpacking {archive}"), "MB", done / 1_000_000, total / 1_000_000);
        }
    };
    let mut repositories = Vec::new();
    let files = if args.from_hub {
        for copy in copies(row, &is_chosen)? {
            repositories.push(fetching::fetch_copy(copy, &root, hub, &mut show)?);
        }
        still_missing(row, &root, &is_chosen)?
    } else {
        let files: Vec<&SourceFile> = row.files.iter().filter(|file| is_chosen(file.part)).collect();
        // In a folder of the user's own are all files of the dataset.
        let all = root.parent().filter(|_| args.root.is_none());
        let states = fetching::fetch(&files, Folders { own: &root, all }, hub, &mut show)?;
        // Who has unpacked an archive by hand may have stopped halfway.
        let lacking = row.presence(&root)?.missing;
        let is_incomplete = |path: &Path| lacking.iter().any(|(lacking, _)| lacking == path);
        let named = |(path, state): (PathBuf, FileState)| match state {
            FileState::Present | FileState::Fetched if is_incomplete(&path) => KnownFile { path, state: INCOMPLETE },
            _ => KnownFile { path, state: name_of(state) },
        };
        states.into_iter().map(named).collect()
    };
    stages.finish();
    Ok(Fetched::Known { dataset: row.name, folder: root, files, repositories })
}

/// The first copy of each part; the copies with images come first.
fn copies(row: &'static DatasetRow, is_chosen: &dyn Fn(Part) -> bool) -> Result<Vec<&'static HubCopy>> {
    let mut copies: Vec<&HubCopy> = Vec::new();
    for copy in row.hub.iter().filter(|copy| is_chosen(copy.part)) {
        if !copies.iter().any(|other| other.part == copy.part) {
            copies.push(copy);
        }
    }
    if copies.is_empty() {
        return Err(
            Error::input(format!("the Hub has no copy of `{}` that is known", row.name)).hint("leave --from-hub out")
        );
    }
    Ok(copies)
}

/// What the copies of the Hub do not hold.
fn still_missing(row: &DatasetRow, root: &Path, is_chosen: &dyn Fn(Part) -> bool) -> Result<Vec<KnownFile>> {
    let presence = row.presence(root)?;
    let evaluation = presence.missing.into_iter().map(|(path, _)| path).filter(|_| is_chosen(Part::Evaluation));
    let training = presence.missing_for_training.into_iter().filter(|_| is_chosen(Part::Training));
    Ok(evaluation.chain(training).map(|path| KnownFile { path, state: name_of(FileState::ByHand) }).collect())
}

/// The state of a folder that has less images than belong there.
const INCOMPLETE: &str = "incomplete";

fn name_of(state: FileState) -> &'static str {
    match state {
        FileState::Present => "present",
        FileState::Fetched => "fetched",
        FileState::ByHand => "missing",
    }
}

fn described(report: &Fetched) -> String {
    match report {
        Fetched::OnHub { folder, lock } => {
            let bytes: u64 = lock.files.iter().map(|file| file.size).sum();
            let (name, commit, count) = (&lock.repository, &lock.commit, lock.files.len());
            format!("{name}@{commit}: {count} files, {:.1} MB\n  {}\n", bytes as f64 / 1e6, folder.display())
        }
        Fetched::Known { dataset, files, repositories, .. } => {
            let commit =
                |lock: &Lock| format!("  fetched  {}@{}, {} files\n", lock.repository, lock.commit, lock.files.len());
            let line = |KnownFile { path, state }: &KnownFile| format!("  {state}  {}\n", path.display());
            let lines = repositories.iter().map(commit).chain(files.iter().map(line));
            format!("{dataset}:\n{}", lines.collect::<String>())
        }
    }
}

/// What has to be got by hand makes the command fail, with how to get it.
fn complete(wanted: &Wanted, report: &Fetched) -> Result<()> {
    let (Wanted::Known(row), Fetched::Known { files, .. }) = (wanted, report) else { return Ok(()) };
    if let Some(file) = files.iter().find(|file| file.state == INCOMPLETE) {
        let path = file.path.display();
        return Err(Error::incomplete(format!("`{path}` of `{}` has less images than belong there", row.name))
            .hint(format!("remove or complete `{path}`")));
    }
    match files.iter().filter(|file| file.state == "missing").count() {
        0 => Ok(()),
        missing => Err(Error::incomplete(format!("{missing} files or folders of `{}` are not there yet", row.name))
            .hint(format!("put each where the list says; how to get them: {}", row.obtain))),
    }
}

fn verify(file: &Path, hub: &Hub, json: bool) -> Result<()> {
    let within = |error: Error| error.within(format!("cannot check `{}`", file.display()));
    let hint = format!("give the {LOCK_FILE} that a run has left in its --output");
    let text = std::fs::read_to_string(file)
        .map_err(|cause| within(Error::input("it cannot be read").caused_by(cause).hint(hint.as_str())))?;
    let LockFile { repositories } = serde_json::from_str(&text).map_err(|cause| {
        within(Error::input("it is no list of what was used of the Hub").caused_by(cause).hint(hint))
    })?;
    let mut stages = Stages::default();
    for lock in &repositories {
        hub.verify(lock, &mut |event| source::show(&mut stages, &lock.repository, &event)).map_err(within)?;
    }
    stages.finish();
    if json {
        return super::print_json(&LockFile { repositories });
    }
    let line = |lock: &Lock| format!("{}@{}: all {} files are right\n", lock.repository, lock.commit, lock.files.len());
    super::print(&repositories.iter().map(line).collect::<String>())
}
