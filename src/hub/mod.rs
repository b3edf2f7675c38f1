//! Models and datasets of the Hugging Face Hub as verified local files.
//!
//! Files lie in the cache folder of Python's huggingface_hub and in its layout, so that both share them:
//! `models--org--name/blobs/<fingerprint>` are the files, `snapshots/<commit>/<path>` links to them, and
//! `refs/<branch>` the commit that a branch was last. A file appears under its fingerprint when all its bytes have come
//! and have that fingerprint; until then it is `<fingerprint>.incomplete`, and any later process goes on with it.
//!
//! A whole commit that is in the cache is used without a request. A branch or tag costs one request, which also tells
//! the size and fingerprint of every file; offline it is what it was last.

mod failure;
mod lock;
mod repository;
mod transfer;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use serde::Deserialize;
use ureq::http::header::AUTHORIZATION;
use ureq::{Agent, ResponseExt};

pub use lock::{Lock, LockedFile};
pub use repository::{Repository, RepositoryKind};

use crate::error::{Error, Result};
use failure::Wanted;
use lock::{Fingerprint, is_inside, sha256};
use repository::{
    ADAPTER_SETTINGS, ADAPTER_WEIGHTS, CONFIG, IMAGE_SETTINGS, INDEX, Index, TOKENIZER, WEIGHTS, files_of_model,
    has_shards, is_commit, is_hex,
};
use transfer::{Failure, Source, ask, receive};

/// Where the Hub is, unless told otherwise.
const ENDPOINT: &str = "https://huggingface.co";
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
/// A list of files is not longer; that of a repository with 100,000 files has 30 MB.
const LIST_LIMIT: u64 = 256 << 20;
/// Files of less bytes are checked each time they are used.
const SMALL: u64 = 16 << 20;
/// What to do about files of a dataset that are missing offline.
pub const SAME_ONLINE: &str = "where there is a network, the same command gets it without --offline and HF_HUB_OFFLINE";

/// The secret that tells the Hub who asks. It is never part of a message.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes the text without white space around it; none of an empty text.
    ///
    /// # Errors
    /// Characters that no token has.
    pub fn new(text: &str) -> Result<Option<Self>> {
        match text.trim() {
            "" => Ok(None),
            text if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(Self(text.to_owned()))),
            _ => Err(Error::input("the token of the Hub has characters that no token has")
                .hint("set HF_TOKEN to the text that begins with `hf_`")),
        }
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What is going on.
#[derive(Debug)]
pub enum Event<'a> {
    /// So many of so many bytes have come, over all files; the total is not known of every server.
    Received {
        /// The file that comes.
        file: &'a str,
        /// Bytes that are here.
        done: u64,
        /// Bytes that there will be.
        total: Option<u64>,
    },
    /// So many of so many bytes are checked, over all files.
    Checked {
        /// The file that is read.
        file: &'a str,
        /// Bytes that were read.
        done: u64,
        /// Bytes to read.
        total: u64,
    },
    /// Nothing happens for so many seconds; 0 where it is not known for how long.
    Waiting {
        /// Why.
        reason: &'a str,
        /// Seconds until the next attempt.
        seconds: u64,
    },
}

/// What decides where files come from and go to.
#[derive(Debug)]
pub struct Settings {
    /// The cache folder, the one that huggingface_hub calls `HF_HUB_CACHE`.
    pub cache: PathBuf,
    /// Address of the Hub, if it is not the public one.
    pub endpoint: Option<String>,
    /// Who asks.
    pub token: Option<Token>,
    /// Whether to use what is here only, and to open no connection.
    pub offline: bool,
}

/// The Hub with its cache.
pub struct Hub {
    endpoint: String,
    folder: PathBuf,
    token: Option<Token>,
    offline: bool,
    cache: Cache,
    api: Api,
    agent: Agent,
}

/// Which files of a dataset are wanted, by their paths; all, where none is stated.
type Selection<'a> = Option<&'a dyn Fn(&str) -> bool>;

/// A repository at one commit, on disk.
#[derive(Debug)]
pub struct Snapshot {
    /// The folder with its files.
    pub folder: PathBuf,
    /// What is in it.
    pub lock: Lock,
}

/// What the Hub tells of a repository.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    size: Option<u64>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: String,
    size: u64,
}

/// A file at a commit, as the Hub tells it.
struct Entry {
    path: String,
    size: u64,
    fingerprint: Fingerprint,
}

impl Listing {
    /// The files by path.
    fn entries(self) -> Result<Vec<Entry>> {
        if !is_commit(&self.sha) {
            return Err(strange(&format!("commit `{}`", self.sha)));
        }
        let entry = |Sibling { rfilename: path, blob_id, size, lfs }: Sibling| {
            let told = match lfs {
                Some(LargeFile { sha256, size }) if is_hex(&sha256, 64) => Some((size, sha256)),
                Some(_) => None,
                None => size.zip(blob_id.filter(|id| is_commit(id))),
            };
            match told.and_then(|(size, name)| Some((size, Fingerprint::of_name(&name)?))) {
                Some((size, fingerprint)) if is_inside(&path) => Ok(Entry { path, size, fingerprint }),
                _ => Err(strange(&format!("file `{path}`"))),
            }
        };
        let mut entries = self.siblings.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }
}

fn strange(what: &str) -> Error {
    Error::input(format!("the server lists the {what} without a size and a hash that can be checked"))
        .hint("check HF_ENDPOINT: the server does not speak as the Hub does")
}

impl Hub {
    /// The Hub by these settings. Nothing is read or asked yet.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(settings: Settings) -> Result<Self> {
        let Settings { cache: folder, endpoint, token, offline } = settings;
        let endpoint = endpoint.unwrap_or_else(|| ENDPOINT.to_owned()).trim_end_matches('/').to_owned();
        if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            return Err(Error::input(format!("the address `{endpoint}` of the Hub is no web address"))
                .hint(format!("set HF_ENDPOINT to one such as {ENDPOINT}, or not at all")));
        }
        let agent = Agent::config_builder().user_agent(USER_AGENT).build().into();
        let cache = Cache::new(folder.clone());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(endpoint.clone())
            .with_token(token.as_ref().map(|token| token.0.clone()))
            .with_progress(false)
            .with_user_agent(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|cause| Error::internal("cannot set up requests to the Hub").caused_by(cause))?;
        Ok(Self { endpoint, folder, token, offline, cache, api, agent })
    }

    /// Whether no connection may be opened.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The repository on disk, fetched as far as it is not there: of a model what is needed to run it, of a dataset
    /// everything.
    ///
    /// # Errors
    ///
    /// Input error that says what to do: no such repository, revision or file; no access; no network; offline and not
    /// in the cache; no space; bytes that are not those of the Hub's list.
    pub fn snapshot(&self, repository: &Repository, on_event: &mut dyn FnMut(Event)) -> Result<Snapshot> {
        if self.offline {
            return self.cached(repository, None);
        }
        if repository.is_pinned()
            && let Some(folder) = self.snapshot_folder(repository)
            && is_whole_model(repository, &folder)
            && let Ok(lock) = self.lock_of(repository, &folder, None)
        {
            return Ok(Snapshot { folder, lock });
        }
        self.fetch(repository, self.listing(repository, on_event)?, None, on_event)
    }

    /// The files of a repository that are wanted, at the commit that the revision is now, fetched as far as they are not
    /// there; offline those that are there, at least one.
    ///
    /// # Errors
    /// As [`Hub::snapshot`]; also no such file.
    pub fn files(
        &self,
        repository: &Repository,
        is_wanted: &dyn Fn(&str) -> bool,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Snapshot> {
        if self.offline {
            return self.cached(repository, Some(is_wanted));
        }
        let mut listing = self.listing(repository, on_event)?;
        listing.siblings.retain(|file| is_wanted(&file.rfilename));
        if listing.siblings.is_empty() {
            return Err(Error::input(format!("the {} `{repository}` has no file that is wanted", repository.kind))
                .hint("leave --from-hub out"));
        }
        self.fetch(repository, listing, Some(is_wanted), on_event)
    }

    /// What the cache has, without a request.
    fn cached(&self, repository: &Repository, selection: Selection) -> Result<Snapshot> {
        let missing = |what: String| {
            let how = match selection {
                None => format!(
                    "`digrap-bench fetch {} {repository}` gets it where there is a network; then leave out --offline and HF_HUB_OFFLINE",
                    repository.kind
                ),
                Some(_) => SAME_ONLINE.to_owned(),
            };
            Error::input(format!("offline, and {what} in the cache `{}`", self.folder.display())).hint(how)
        };
        let Some(folder) = self.snapshot_folder(repository) else {
            return Err(missing(format!("`{repository}` is not")));
        };
        if repository.kind == RepositoryKind::Model
            && let Some(file) = missing_weights(&folder)
        {
            return Err(missing(format!("`{file}` of `{repository}` is not")));
        }
        let lock = self.lock_of(repository, &folder, selection)?;
        match lock.files.as_slice() {
            [] if selection.is_some() => Err(missing(format!("no file that is wanted of `{repository}` is"))),
            _ => Ok(Snapshot { lock, folder }),
        }
    }

    /// The folder of the commit that the revision is, or was last, where the cache has one.
    fn snapshot_folder(&self, repository: &Repository) -> Option<PathBuf> {
        let commit = match repository.is_pinned() {
            true => repository.revision().to_owned(),
            false => self.known_commit(repository)?,
        };
        Some(self.cache_of(repository).pointer_path(&commit)).filter(|folder| folder.is_dir())
    }

    /// The commit that the branch or tag was last.
    fn known_commit(&self, repository: &Repository) -> Option<String> {
        let path = self.folder.join(repo(repository).folder_name()).join("refs").join(repository.revision());
        let commit = fs::read_to_string(path).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    fn cache_of(&self, repository: &Repository) -> CacheRepo {
        self.cache.repo(repo(repository))
    }

    /// What is in the folder of a commit. Small files are checked against their names in the cache.
    fn lock_of(&self, repository: &Repository, folder: &Path, selection: Selection) -> Result<Lock> {
        let unreadable =
            |path: &Path, cause| Error::input(format!("cannot read `{}`", path.display())).caused_by(cause);
        let all = files_below(folder).map_err(|cause| unreadable(folder, cause))?;
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let index = match repository.kind {
            RepositoryKind::Model if has_shards(&all) => Some(read_index(&folder.join(INDEX))?),
            _ => None,
        };
        let files = match repository.kind {
            RepositoryKind::Model => files_of_model(&all, index.as_ref()),
            RepositoryKind::Dataset => {
                all.into_iter().filter(|path| selection.is_none_or(|is_wanted| is_wanted(path))).collect()
            }
        };
        let locked = |path: &str| {
            let file = folder.join(path);
            locked_file(path, &file)
                .map_err(|cause| unreadable(&file, cause))?
                .ok_or_else(|| self.damaged(repository, &file))
        };
        let commit = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Lock {
            kind: repository.kind,
            repository: repository.id.clone(),
            revision: repository.revision().to_owned(),
            commit,
            files: files.into_iter().map(locked).collect::<Result<_>>()?,
        })
    }

    fn damaged(&self, repository: &Repository, file: &Path) -> Error {
        Error::input(format!("`{}` does not have the bytes that `{repository}` has on the Hub", file.display()))
            .hint(format!("`digrap-bench fetch {} {repository}` fetches it again, without --offline", repository.kind))
    }

    fn fetch(
        &self,
        repository: &Repository,
        listing: Listing,
        selection: Selection,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Snapshot> {
        let commit = listing.sha.clone();
        let entries = listing.entries()?;
        let pinned = repository.at(&commit);
        let cache = self.cache_of(repository);
        let folder = cache.pointer_path(&commit);
        let wanted = self.wanted(&pinned, &entries, on_event)?;
        let total = wanted.iter().map(|entry| entry.size).sum();
        let mut before = 0;
        for entry in &wanted {
            let mut report = |event: Event| {
                on_event(match event {
                    Event::Received { file, done, .. } => {
                        Event::Received { file, done: before + done, total: Some(total) }
                    }
                    other => other,
                });
            };
            self.bring(&pinned, entry, &mut report)?;
            before += entry.size;
        }
        // The configuration comes last: a folder that has it has all the rest.
        let (last, first): (Vec<&Entry>, Vec<&Entry>) =
            wanted.iter().partition(|entry| [CONFIG, ADAPTER_SETTINGS].contains(&entry.path.as_str()));
        for entry in first.into_iter().chain(last) {
            link(&cache, &folder, entry).map_err(|(path, cause)| self.unwritable(&path, cause))?;
        }
        if !repository.is_pinned() && self.known_commit(repository).as_ref() != Some(&commit) {
            cache.create_ref(&commit).map_err(|cause| self.unwritable(&self.folder, cause))?;
        }
        Ok(Snapshot { lock: self.lock_of(repository, &folder, selection)?, folder })
    }

    fn unwritable(&self, path: &Path, cause: io::Error) -> Error {
        failure::unwritable(path, cause, "set HF_HUB_CACHE to a folder elsewhere")
    }

    /// Commit, files, sizes and fingerprints: the one request that a revision costs.
    fn listing(&self, repository: &Repository, on_event: &mut dyn FnMut(Event)) -> Result<Listing> {
        let refused = |failure| self.refused(repository, None, failure);
        let request = || self.api.repo(repo(repository)).info_request().query("blobs", "true");
        let mut response = ask(&request, on_event).map_err(refused)?;
        // A redirection to the new name of a repository may leave the query out.
        if response.get_uri().query().is_none() {
            let address = response.get_uri().to_string();
            let request = || {
                let request = self.agent.get(&address).query("blobs", "true");
                let token = self.token.iter().filter(|_| address.starts_with(&format!("{}/", self.endpoint)));
                token.fold(request, |request, token| request.header(AUTHORIZATION, token.bearer()))
            };
            response = ask(&request, on_event).map_err(refused)?;
        }
        response.into_body().with_config().limit(LIST_LIMIT).read_json().map_err(|cause| match cause {
            ureq::Error::Json(cause) => Error::input(format!("`{}` answers otherwise than the Hub", self.endpoint))
                .caused_by(cause)
                .hint("check HF_ENDPOINT"),
            cause => refused(Failure::Network(Box::new(cause))),
        })
    }

    fn refused(&self, repository: &Repository, file: Option<&str>, failure: Failure) -> Error {
        let wanted = Wanted { endpoint: &self.endpoint, repository, file, has_token: self.token.is_some() };
        wanted.error(failure)
    }

    /// Of all files those to fetch.
    fn wanted<'a>(
        &self,
        pinned: &Repository,
        entries: &'a [Entry],
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Vec<&'a Entry>> {
        if pinned.kind == RepositoryKind::Dataset {
            return Ok(entries.iter().collect());
        }
        let all: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        let index = match entries.iter().find(|entry| entry.path == INDEX).filter(|_| has_shards(&all)) {
            Some(entry) => Some(read_index(&self.bring(pinned, entry, on_event)?)?),
            None => None,
        };
        let names = files_of_model(&all, index.as_ref());
        if !names.iter().any(|name| name.ends_with(".safetensors")) {
            return Err(Error::input(format!("the model `{pinned}` has no weights in safetensors")).hint(
                "other formats are not read; look for a revision with safetensors on its page, or save it so with transformers",
            ));
        }
        let find = |name: &&str| {
            entries.iter().find(|entry| entry.path == **name).ok_or_else(|| {
                Error::input(format!("`{INDEX}` of `{pinned}` names `{name}`, which is not in the repository"))
                    .hint("choose another revision")
            })
        };
        names.iter().map(find).collect()
    }

    /// The file in the cache, fetched unless it is there.
    fn bring(&self, pinned: &Repository, entry: &Entry, on_event: &mut dyn FnMut(Event)) -> Result<PathBuf> {
        let blob = self.cache_of(pinned).blob_path(entry.fingerprint.text());
        let unwritable = |cause| self.unwritable(&blob, cause);
        if is_right(&blob, entry) {
            return Ok(blob);
        }
        create_parent(&blob).map_err(unwritable)?;
        let _lock = self.lock_blob(pinned, entry, on_event).map_err(unwritable)?;
        // Another process may have fetched it meanwhile.
        if is_right(&blob, entry) {
            return Ok(blob);
        }
        let mut part = blob.clone().into_os_string();
        part.push(".incomplete");
        let part = PathBuf::from(part);
        let url = self.api.repo(repo(pinned)).url(&percent_encoded(&entry.path));
        let source = Source { url: &url, token: self.token.as_ref(), size: Some(entry.size), version: None };
        receive(&self.agent, &source, &part, &entry.path, on_event)
            .map_err(|failure| self.refused(pinned, Some(&entry.path), failure))?;
        check(&part, entry, on_event).map_err(unwritable)?.map_err(|found| {
            // Where it cannot be removed, the next attempt finds the same and says so.
            let _ = fs::remove_file(&part);
            Error::input(format!(
                "`{}` of `{pinned}` has come with other bytes than the Hub lists: its hash is {found}, not {}",
                entry.path,
                entry.fingerprint.text()
            ))
            .hint("it was removed; run the same command again. If that does not help, something on the way changes downloads: look at HTTPS_PROXY and HF_ENDPOINT")
        })?;
        fs::rename(&part, &blob).map_err(unwritable)?;
        Ok(blob)
    }

    /// Waits until no other process fetches the file. It is the lock that huggingface_hub takes.
    fn lock_blob(&self, pinned: &Repository, entry: &Entry, on_event: &mut dyn FnMut(Event)) -> io::Result<File> {
        let name = format!("{}.lock", entry.fingerprint.text());
        let path = self.folder.join(".locks").join(repo(pinned).folder_name()).join(name);
        lock_file(&path, &entry.path, on_event)
    }

    /// Waits until no other process downloads a file to this place, or to one with the same name of a lock: `turn` is that
    /// file. Who has it removes it when its work is done.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn take_turn(&self, turn: &Path, name: &str, on_event: &mut dyn FnMut(Event)) -> Result<File> {
        lock_file(turn, name, on_event).map_err(|cause| not_placed(turn, cause))
    }

    /// Reads every byte of the files that the lock lists. A file with other bytes is removed from the cache.
    ///
    /// # Errors
    /// A file is missing, or is not the one that was locked.
    pub fn verify(&self, lock: &Lock, on_event: &mut dyn FnMut(Event)) -> Result<()> {
        let repository = lock.pinned()?;
        let folder = self.cache_of(&repository).pointer_path(&lock.commit);
        let hint = format!("`digrap-bench fetch {} {repository}` fetches it", repository.kind);
        let total = lock.files.iter().map(|file| file.size).sum();
        let mut done = 0;
        for LockedFile { path, size, sha256: expected } in &lock.files {
            let file = folder.join(path);
            let is_size = fs::metadata(&file).map(|found| found.len() == *size);
            let Ok(is_size) = is_size else {
                return Err(Error::incomplete(format!(
                    "`{path}` of `{repository}` is not in the cache `{}`",
                    self.folder.display()
                ))
                .hint(hint));
            };
            let mut on_bytes = |count| {
                done += count;
                on_event(Event::Checked { file: path, done, total });
            };
            let found = sha256(&file, &mut on_bytes)
                .map_err(|cause| Error::input(format!("cannot read `{}`", file.display())).caused_by(cause))?;
            if !is_size || found != *expected {
                let blob = file.canonicalize().unwrap_or_else(|_| file.clone());
                // Where it cannot be removed, it is found again.
                let _ = fs::remove_file(blob);
                return Err(Error::incomplete(format!(
                    "`{path}` of `{repository}` was not the file that was used: its hash was {found}, not {expected}"
                ))
                .hint(format!("it was removed from the cache; {hint}")));
            }
        }
        Ok(())
    }

    /// Downloads a file from anywhere, beside its place until it is whole; a broken download goes on. Nothing tells
    /// whether the bytes are right, but that they are all of one version.
    ///
    /// # Errors
    /// Input error that says what to do.
    pub fn download(&self, url: &str, target: &Path, on_event: &mut dyn FnMut(Event)) -> Result<()> {
        self.check_online(target)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let [part, version] = ["part", "version"].map(|end| target.with_file_name(format!(".{name}.{end}")));
        create_parent(target).map_err(|cause| not_placed(target, cause))?;
        let source = Source { url, token: None, size: None, version: Some(&version) };
        receive(&self.agent, &source, &part, &name, on_event)
            .map_err(|failure| failure::not_downloaded(url, failure, &not_placed))?;
        fs::rename(&part, target).and_then(|()| fs::remove_file(&version)).map_err(|cause| not_placed(target, cause))
    }

    /// Refuses offline to go on without this file.
    ///
    /// # Errors
    /// No connection may be opened.
    pub fn check_online(&self, file: &Path) -> Result<()> {
        match self.offline {
            true => Err(Error::input(format!("offline, and `{}` is not here", file.display()))
                .hint("leave out --offline and HF_HUB_OFFLINE where there is a network")),
            false => Ok(()),
        }
    }
}

fn repo(repository: &Repository) -> Repo {
    let kind = match repository.kind {
        RepositoryKind::Model => RepoType::Model,
        RepositoryKind::Dataset => RepoType::Dataset,
    };
    Repo::with_revision(repository.id.clone(), kind, repository.revision().to_owned())
}

/// Waits until no other process has locked this file, which is made if it is not there.
fn lock_file(path: &Path, name: &str, on_event: &mut dyn FnMut(Event)) -> io::Result<File> {
    create_parent(path)?;
    loop {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                on_event(Event::Waiting { reason: &format!("another process fetches `{name}`"), seconds: 0 });
                file.lock()?;
            }
            // Some network file systems have no locks; hash or length finds what two writers have spoilt.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        // Whoever had it may have removed it, and a third process may have made another.
        let held = file.metadata()?;
        if fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino())) {
            return Ok(file);
        }
    }
}

/// The message for what cannot be written to the folder of a dataset.
fn not_placed(path: &Path, cause: io::Error) -> Error {
    failure::unwritable(path, cause, "give another folder with --root")
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// A path as part of an address.
fn percent_encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn read_index(path: &Path) -> Result<Index> {
    let within = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::input(format!("cannot read `{}`", path.display())).caused_by(cause).hint("choose another revision")
    };
    let bytes = fs::read(path).map_err(|cause| within(cause.into()))?;
    serde_json::from_slice(&bytes).map_err(|cause| within(cause.into()))
}

/// Whether the folder of a commit has a whole model, as far as its files tell.
fn is_whole_model(repository: &Repository, folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    repository.kind == RepositoryKind::Model
        && missing_weights(folder).is_none()
        && (!has(CONFIG) || (has(TOKENIZER) && IMAGE_SETTINGS.iter().any(|name| has(name))))
}

/// The first file without which there is no model, or no adapter.
fn missing_weights(folder: &Path) -> Option<String> {
    let missing = |name: &str| (!folder.join(name).is_file()).then(|| name.to_owned());
    if missing(CONFIG).is_some() && missing(ADAPTER_SETTINGS).is_none() {
        return missing(ADAPTER_WEIGHTS);
    }
    if missing(CONFIG).is_some() || missing(WEIGHTS).is_none() {
        return missing(CONFIG);
    }
    match read_index(&folder.join(INDEX)) {
        Ok(index) => index.shards().into_iter().find_map(missing),
        Err(_) => Some(WEIGHTS.to_owned()),
    }
}

/// Paths of all files, relative to the folder.
fn files_below(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(folder.join(&inner))? {
            let path = inner.join(entry?.file_name());
            if folder.join(&path).is_dir() {
                folders.push(path);
            } else if let Some(path) = path.to_str() {
                files.insert(path.to_owned());
            }
        }
    }
    Ok(files)
}

/// Size and hash of a file in the folder of a commit; none if it is small and other than its name in the cache says.
fn locked_file(path: &str, file: &Path) -> io::Result<Option<LockedFile>> {
    let size = fs::metadata(file)?.len();
    let real = file.canonicalize()?;
    let stated = real.file_name().and_then(|name| Fingerprint::of_name(name.to_str()?));
    let sha256 = match stated {
        Some(Fingerprint::Sha256(stated)) if size >= SMALL => stated,
        Some(stated) if stated.same_of(file, &mut |_| ())? != stated => return Ok(None),
        _ => sha256(file, &mut |_| ())?,
    };
    Ok(Some(LockedFile { path: path.to_owned(), size, sha256 }))
}

/// Whether the file is in the cache; only small ones are read.
fn is_right(blob: &Path, entry: &Entry) -> bool {
    let is_size = fs::metadata(blob).is_ok_and(|found| found.len() == entry.size);
    let is_same = || entry.fingerprint.same_of(blob, &mut |_| ()).is_ok_and(|found| found == entry.fingerprint);
    is_size && (entry.size >= SMALL || is_same())
}

/// The hash that the file has in place of its own, if it has another.
fn check(part: &Path, entry: &Entry, on_event: &mut dyn FnMut(Event)) -> io::Result<Result<(), String>> {
    let mut done = 0;
    let mut on_bytes = |count| {
        done += count;
        if entry.size >= SMALL {
            on_event(Event::Checked { file: &entry.path, done, total: entry.size });
        }
    };
    let found = entry.fingerprint.same_of(part, &mut on_bytes)?;
    Ok(if found == entry.fingerprint { Ok(()) } else { Err(found.text().to_owned()) })
}

/// Makes the file of a commit a link to the file in the cache, or a copy where there are no links.
fn link(cache: &CacheRepo, folder: &Path, entry: &Entry) -> std::result::Result<(), (PathBuf, io::Error)> {
    let pointer = folder.join(&entry.path);
    let blob = cache.blob_path(entry.fingerprint.text());
    if pointer.canonicalize().ok().zip(blob.canonicalize().ok()).is_some_and(|(pointer, blob)| pointer == blob) {
        return Ok(());
    }
    let up = "../".repeat(entry.path.split('/').count() + 1);
    let target = format!("{up}blobs/{}", entry.fingerprint.text());
    // The link replaces another one in one step, since other processes may be making the same.
    let make = || {
        create_parent(&pointer)?;
        let place = pointer.parent().unwrap_or(folder);
        let made =
            tempfile::Builder::new().prefix(".link").make_in(place, |path| {
                match std::os::unix::fs::symlink(&target, path) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => fs::copy(&blob, path).map(drop),
                    other => other,
                }
            })?;
        made.into_temp_path().persist(&pointer).map_err(|error| error.error)
    };
    make().map_err(|cause| (pointer.clone(), cause))
}
