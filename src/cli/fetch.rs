//! `fetch`: downloads models and datasets, and checks what was used of the Hub.

use std::path::{Path, PathBuf};

use clap::Args;
use digrap_bench::data::fetching::{self, FetchEvent, FileState};
use digrap_bench::data::{DatasetRow, find_dataset};
use digrap_bench::error::{Error, Result};
use digrap_bench::hub::{Hub, Lock, Repository};
use serde::Serialize;

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
    /// Check that the files which a run has used are in the cache, byte by byte
    #[arg(long, value_name = "hub.lock.json", conflicts_with = "what")]
    verify: Option<PathBuf>,
    #[command(flatten)]
    hub: HubArgs,
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
    },
}

#[derive(Debug, Serialize)]
struct KnownFile {
    path: &'static str,
    state: &'static str,
}

/// Downloads what is named and prints where it is, or the JSON document.
pub fn run(args: &FetchArgs, json: bool) -> Result<()> {
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
            Wanted::Known(row) => fetch_known(row, &root_of(row, args.root.as_deref())?, &hub)?,
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
    if args.root.is_some() && !matches!(wanted.as_slice(), [Wanted::Known(_)]) {
        return Err(Error::input("--root is the folder of one known dataset")
            .hint("fetch one at a time; what comes from the Hub goes to its cache, HF_HUB_CACHE"));
    }
    Ok(wanted)
}

fn fetch_known(row: &'static DatasetRow, root: &Path, hub: &Hub) -> Result<Fetched> {
    let mut stages = Stages::default();
    let states = fetching::fetch(row.files, root, hub, &mut |event| match event {
        FetchEvent::Download(event) => source::show(&mut stages, row.name, &event),
        FetchEvent::Unpacked { archive, done, total } => {
            stages.set(&format!("unpacking {archive}"), "MB", done / 1_000_000, total / 1_000_000);
        }
    });
    stages.finish();
    let files = states?.into_iter().zip(row.files).map(|(state, file)| {
        let state = match state {
            FileState::Present => "present",
            FileState::Fetched => "fetched",
            FileState::ByHand => "missing",
        };
        KnownFile { path: file.path, state }
    });
    Ok(Fetched::Known { dataset: row.name, folder: root.to_owned(), files: files.collect() })
}

fn described(report: &Fetched) -> String {
    match report {
        Fetched::OnHub { folder, lock } => {
            let bytes: u64 = lock.files.iter().map(|file| file.size).sum();
            let (name, commit, count) = (&lock.repository, &lock.commit, lock.files.len());
            format!("{name}@{commit}: {count} files, {:.1} MB\n  {}\n", bytes as f64 / 1e6, folder.display())
        }
        Fetched::Known { dataset, folder, files } => {
            let lines =
                files.iter().map(|KnownFile { path, state }| format!("  {state}  {}\n", folder.join(path).display()));
            format!("{dataset}:\n{}", lines.collect::<String>())
        }
    }
}

/// What has to be got by hand makes the command fail, with how to get it.
fn complete(wanted: &Wanted, report: &Fetched) -> Result<()> {
    let (Wanted::Known(row), Fetched::Known { folder, files, .. }) = (wanted, report) else { return Ok(()) };
    if row.files.is_empty() {
        return Err(Error::incomplete(format!("`{}` has no public address", row.name)).hint(format!(
            "put it into `{}`: {}",
            folder.display(),
            row.obtain
        )));
    }
    match files.iter().filter(|file| file.state == "missing").count() {
        0 => Ok(()),
        missing => Err(Error::incomplete(format!(
            "{missing} of the {} files of `{}` have no public address and are not in `{}`",
            files.len(),
            row.name,
            folder.display()
        ))
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
