//! Models that arguments name by a folder or by a name on the Hub.

use std::path::{Path, PathBuf};

use clap::Args;
use digrap_bench::error::{Error, Result};
use digrap_bench::hub::{Event, Hub, Lock, Repository, Snapshot};
use digrap_bench::model::missing_base;
use digrap_bench::suite::ModelSource;
use serde::{Deserialize, Serialize};

use super::machine::{self, Folders};
use super::progress::Stages;
use super::vqa::write_whole;

/// File beside the results of a run that lists what was used of the Hub.
pub const LOCK_FILE: &str = "hub.lock.json";

/// How the verbs that may download do so.
#[derive(Debug, Args)]
pub struct HubArgs {
    /// Open no connection: use what is in the cache of the Hub only, as HF_HUB_OFFLINE=1 does
    #[arg(long)]
    pub offline: bool,
}

/// Models, and what is used of the Hub for them.
pub struct Sources {
    /// In the order they were named.
    pub models: Vec<ModelSource>,
    /// One for each repository.
    pub locks: Vec<Lock>,
}

impl Sources {
    /// Lists what is used of a repository, once.
    fn add(&mut self, lock: Lock) {
        if !self.locks.contains(&lock) {
            self.locks.push(lock);
        }
    }
}

/// The content of [`LOCK_FILE`].
#[derive(Debug, Serialize, Deserialize)]
pub struct LockFile {
    /// What was used of each repository.
    pub repositories: Vec<Lock>,
}

/// The models that these are; those on the Hub are fetched.
pub fn models(given: &[PathBuf], args: &HubArgs, folders: &Folders) -> Result<Sources> {
    let mut hub = None;
    let mut fetch = |repository: &Repository| {
        // Models in folders need no Hub, and no settings that it can be reached by.
        let hub = match &hub {
            Some(hub) => hub,
            None => hub.insert(machine::hub(folders, args.offline)?),
        };
        fetch(hub, repository)
    };
    let mut sources = Sources { models: Vec::new(), locks: Vec::new() };
    for given in given {
        let mut model = match on_hub(given) {
            Some(repository) => {
                let snapshot = fetch(&repository).map_err(|error| {
                    error.within(format!("`{}` is no folder here, and cannot be had from the Hub", given.display()))
                })?;
                sources.add(snapshot.lock);
                ModelSource { name: name_of(&repository), folder: snapshot.folder, base: None }
            }
            None => ModelSource::folder(given),
        };
        if let Some(base) = missing_base(&model.folder).and_then(|name| on_hub(Path::new(&name))) {
            let within =
                |error: Error| error.within(format!("the base model `{base}` of `{}` is not here", given.display()));
            let snapshot = fetch(&base).map_err(within)?;
            sources.add(snapshot.lock);
            model.base = Some(snapshot.folder);
        }
        sources.models.push(model);
    }
    Ok(sources)
}

/// What an argument is on the Hub, if it is nothing here. ONNX files have names with a `/` as well.
fn on_hub(given: &Path) -> Option<Repository> {
    let is_file_name = given.extension().is_some_and(|extension| extension == "onnx");
    if given.exists() || is_file_name { None } else { given.to_str()?.parse().ok() }
}

/// Name in tables and of folders: without the owner, with the revision if one was asked for.
fn name_of(repository: &Repository) -> String {
    let name = repository.id.split('/').next_back().unwrap_or(&repository.id);
    match &repository.revision {
        Some(revision) => format!("{name}@{}", revision.replace('/', "-")),
        None => name.to_owned(),
    }
}

/// The repository on disk, with progress.
pub fn fetch(hub: &Hub, repository: &Repository) -> Result<Snapshot> {
    let mut stages = Stages::default();
    let snapshot = hub.snapshot(repository, &mut |event| show(&mut stages, &repository.to_string(), &event));
    stages.finish();
    snapshot
}

/// Shows how far a download is.
pub fn show(stages: &mut Stages, what: &str, event: &Event) {
    let scale = |total: u64| if total < 10_000_000 { ("kB", 1_000) } else { ("MB", 1_000_000) };
    match event {
        Event::Received { done, total, .. } => {
            let (unit, factor) = scale(total.unwrap_or(u64::MAX));
            stages.set(&format!("fetching {what}"), unit, done / factor, total.unwrap_or(0) / factor);
        }
        Event::Checked { file, done, total } => {
            let (unit, factor) = scale(*total);
            stages.set(&format!("checking {file}"), unit, done / factor, total / factor);
        }
        Event::Waiting { reason, seconds: 0 } => stages.say(&format!("{reason}: waiting for it")),
        Event::Waiting { reason, seconds } => stages.say(&format!("{reason}: trying again in {seconds} s")),
    }
}

/// Writes what was used of the Hub beside the results of a run; one of an earlier run does not stay.
pub fn write_locks(output: &Path, locks: &[Lock]) -> Result<()> {
    let path = output.join(LOCK_FILE);
    if locks.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::input(format!("cannot remove `{}`", path.display())).caused_by(cause))
            }
            _ => Ok(()),
        };
    }
    let text = serde_json::to_string_pretty(&LockFile { repositories: locks.to_vec() })
        .map_err(|cause| Error::internal("cannot write the lock as JSON").caused_by(cause))?;
    write_whole(&path, &(text + "\n"))
}
