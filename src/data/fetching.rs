//! Gets the files of a dataset that anybody can download; the others have to be put there by hand.
//!
//! What is there is left alone. A file or folder appears whole; a broken download goes on.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::presence::{common_folder, find};
use super::shards::numbers;
use super::{HubCopy, Packing, SourceFile};
use crate::error::{Error, Result};
use crate::hub::{self, Hub, Lock, Repository};

/// What is going on.
#[derive(Debug)]
pub enum FetchEvent<'a> {
    /// A download.
    Download(hub::Event<'a>),
    /// So many of so many bytes of an archive are unpacked.
    Unpacked {
        /// The archive.
        archive: &'a str,
        /// Bytes that were read.
        done: u64,
        /// Bytes of the archive.
        total: u64,
    },
}

/// Whether a file of a dataset is here, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// It was there.
    Present,
    /// It has been downloaded.
    Fetched,
    /// It is not there, and has no public address.
    ByHand,
}

/// Where the files of a dataset go.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    /// The folder of the dataset.
    pub own: &'a Path,
    /// The folder that has a folder for each dataset, if files that serve several go to those of the datasets that they
    /// come from.
    pub all: Option<&'a Path>,
}

impl Folders<'_> {
    fn place(&self, file: &SourceFile) -> PathBuf {
        match self.all.zip(common_folder(file)) {
            Some((all, folder)) => all.join(folder).join(file.path),
            None => self.own.join(file.path),
        }
    }
}

/// Downloads and unpacks the files that are not there yet. Where each is or belongs, and its state, position by position.
///
/// # Errors
/// Input error that says what to do: a failed download, a damaged archive, a full disk.
pub fn fetch(
    files: &[&SourceFile],
    folders: Folders,
    hub: &Hub,
    on_event: &mut dyn FnMut(FetchEvent),
) -> Result<Vec<(PathBuf, FileState)>> {
    let mut states = Vec::new();
    // One archive may bring several files.
    let mut fetched = Vec::new();
    for file in files {
        let found = find(folders.own, file)?;
        states.push(match (found, file.url) {
            (Some(path), url) if fetched.contains(&url) => (path, FileState::Fetched),
            (Some(path), _) => (path, FileState::Present),
            (None, None) => (folders.place(file), FileState::ByHand),
            (None, Some(url)) => {
                let same: Vec<&SourceFile> = files.iter().copied().filter(|other| other.url == file.url).collect();
                let state = fetch_one(url, &same, folders, hub, on_event)?;
                if state == FileState::Fetched {
                    fetched.push(file.url);
                }
                (folders.place(file), state)
            }
        });
    }
    Ok(states)
}

/// Fetches a copy on the Hub to its cache, and links it into the folder of the dataset.
///
/// # Errors
/// Those of [`Hub::files`]; also a folder that cannot be written.
pub fn fetch_copy(copy: &HubCopy, root: &Path, hub: &Hub, on_event: &mut dyn FnMut(FetchEvent)) -> Result<Lock> {
    let repository: Repository = copy.repository.parse()?;
    let is_wanted = |path: &str| numbers(path.rsplit('/').next().unwrap_or(path), copy.split).is_some();
    let snapshot = hub.files(&repository.dataset(), &is_wanted, &mut |event| on_event(FetchEvent::Download(event)))?;
    check_whole(copy, &snapshot.lock, hub)?;
    let link = root.join(copy.repository.replace('/', "--"));
    let make = || {
        fs::create_dir_all(root)?;
        if fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink()) {
            fs::remove_file(&link)?;
        }
        std::os::unix::fs::symlink(std::path::absolute(&snapshot.folder)?, &link)
    };
    make().map_err(|cause| {
        Error::input(format!("cannot link the files of `{}` to `{}`", copy.repository, link.display())).caused_by(cause)
    })?;
    Ok(snapshot.lock)
}

/// Refuses a copy of which files are missing, as their numbers tell.
fn check_whole(copy: &HubCopy, lock: &Lock, hub: &Hub) -> Result<()> {
    let number = |path: &str| numbers(path.rsplit('/').next().unwrap_or(path), copy.split);
    let found: BTreeSet<(usize, usize)> = lock.files.iter().filter_map(|file| number(&file.path)).collect();
    let counts: BTreeSet<usize> = found.iter().map(|(_, count)| *count).collect();
    let mut expected = counts.into_iter().flat_map(|count| (0..count).map(move |number| (number, count)));
    let Some((number, count)) = expected.find(|file| !found.contains(file)) else { return Ok(()) };
    let (repository, name) = (copy.repository, format!("{}-{number:05}-of-{count:05}.parquet", copy.split));
    Err(match hub.is_offline() {
        true => Error::input(format!("offline, and `{name}` of `{repository}` is not in the cache of the Hub"))
            .hint(hub::SAME_ONLINE),
        false => Error::input(format!("the dataset `{repository}` has no `{name}`")).hint("leave --from-hub out"),
    })
}

/// Downloads what is at an address, and brings from it those of the files that come from there and are not here. They
/// are present instead if another process has brought them meanwhile.
fn fetch_one(
    url: &str,
    files: &[&SourceFile],
    folders: Folders,
    hub: &Hub,
    on_event: &mut dyn FnMut(FetchEvent),
) -> Result<FileState> {
    let Some(first) = absent(files, folders)?.into_iter().next() else { return Ok(FileState::Present) };
    let name = url.split(['?', '#']).next().and_then(|address| address.rsplit('/').next()).unwrap_or("archive");
    let archive = first.with_file_name(format!(".{name}"));
    let packing = files.iter().map(|file| file.packing).find(|packing| *packing != Packing::Plain);
    let download = if packing.is_some() { &archive } else { &first };
    if !download.is_file() {
        hub.check_online(download)?;
    }
    let turn = first.with_file_name(format!(".{name}.lock"));
    let held = hub.take_turn(&turn, name, &mut |event| on_event(FetchEvent::Download(event)))?;
    let mut bring = || {
        let absent = absent(files, folders)?;
        if absent.is_empty() {
            return Ok(FileState::Present);
        }
        if !download.is_file() {
            hub.download(url, download, &mut |event| on_event(FetchEvent::Download(event)))?;
        }
        if let Some(packing) = packing {
            unpack(Archive { url, name, path: &archive, packing }, &absent, on_event)?;
        }
        Ok(FileState::Fetched)
    };
    let state = bring();
    // Where it cannot be removed, the next process takes it as it is.
    let _ = fs::remove_file(&turn);
    drop(held);
    state
}

/// Where those of the files belong that are not here.
fn absent(files: &[&SourceFile], folders: Folders) -> Result<Vec<PathBuf>> {
    let mut absent = Vec::new();
    for file in files {
        if find(folders.own, file)?.is_none() {
            absent.push(folders.place(file));
        }
    }
    Ok(absent)
}

/// An archive that has come.
struct Archive<'a> {
    url: &'a str,
    /// Its name there.
    name: &'a str,
    path: &'a Path,
    packing: Packing,
}

/// Brings from an archive what belongs at these paths, and removes it.
fn unpack(archive: Archive, absent: &[PathBuf], on_event: &mut dyn FnMut(FetchEvent)) -> Result<()> {
    let Archive { url, name, path: archive, packing } = archive;
    let targets: Vec<Target> = absent.iter().map(|path| Target::new(path)).collect();
    let mut on_bytes = |done, total| on_event(FetchEvent::Unpacked { archive: name, done, total });
    let unpacked = targets.iter().try_for_each(Target::clear).and_then(|()| match packing {
        Packing::Zip => unpack_zip(archive, &targets, &mut on_bytes),
        _ => unpack_tar(archive, &targets, &mut on_bytes),
    });
    let shown = archive.display();
    unpacked.map_err(|cause| {
        let damaged =
            matches!(cause.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof);
        let hint = if damaged {
            // Where it cannot be removed, it is found damaged again.
            let _ = fs::remove_file(archive);
            "the archive was removed; run the same command again"
        } else if cause.kind() == ErrorKind::AlreadyExists {
            "unpack it by hand"
        } else {
            "run the same command again when that is mended"
        };
        Error::input(format!("cannot unpack `{shown}`, which came from `{url}`")).caused_by(cause).hint(hint)
    })?;
    if let Some(target) = targets.iter().find(|target| !target.hidden.exists()) {
        return Err(Error::input(format!("`{shown}`, which came from `{url}`, has no `{}`", target.name))
            .hint(format!("unpack it by hand, so that there is `{}`", target.path.display())));
    }
    let placed = targets.iter().try_for_each(|target| fs::rename(&target.hidden, &target.path));
    placed
        .and_then(|()| fs::remove_file(archive))
        .map_err(|cause| Error::input(format!("cannot move what `{shown}` holds to its place")).caused_by(cause))
}

/// A file or folder that an archive has under its own name, below any folders.
struct Target {
    path: PathBuf,
    name: String,
    /// Where it grows.
    hidden: PathBuf,
}

impl Target {
    fn new(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { path: path.to_owned(), hidden: path.with_file_name(format!(".{name}.unpacking")), name }
    }

    /// Removes what a killed process has left.
    fn clear(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.hidden) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.hidden),
            Ok(_) => fs::remove_file(&self.hidden),
            Err(_) => Ok(()),
        }
    }

    /// Where an entry of the archive goes to, if it belongs here.
    fn place(&self, entry: &str) -> io::Result<Option<PathBuf>> {
        let mut parts = entry.split('/').skip_while(|part| *part != self.name);
        if parts.next().is_none() {
            return Ok(None);
        }
        let rest: Vec<&str> = parts.collect();
        if rest.iter().any(|part| ["", ".", ".."].contains(part)) {
            let what = format!("the archive has an entry `{entry}`, which leaves its folder");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(Some(rest.iter().fold(self.hidden.clone(), |path, part| path.join(part))))
    }
}

/// Writes an entry of an archive to the target that it belongs to, if there is one.
fn unpack_entry(entry: &str, bytes: &mut dyn Read, targets: &[Target]) -> io::Result<()> {
    // What macOS adds to archives has the names of the files themselves.
    if entry.starts_with("__MACOSX/") {
        return Ok(());
    }
    for target in targets {
        if let Some(path) = target.place(entry)? {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut file = File::create_new(path).map_err(|cause| match cause.kind() {
                ErrorKind::AlreadyExists => {
                    let what = format!("the archive has two files for one place, the second is `{entry}`");
                    io::Error::new(ErrorKind::AlreadyExists, what)
                }
                _ => cause,
            })?;
            io::copy(bytes, &mut file)?;
            return Ok(());
        }
    }
    Ok(())
}

fn unpack_zip(archive: &Path, targets: &[Target], on_bytes: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    let file = File::open(archive)?;
    let total = file.metadata()?.len();
    let mut zip = zip::ZipArchive::new(BufReader::new(file))?;
    let mut done = 0;
    for position in 0..zip.len() {
        let mut entry = zip.by_index(position)?;
        done += entry.compressed_size();
        if entry.is_file() {
            let name = entry.name()?.into_owned();
            unpack_entry(&name, &mut entry, targets)?;
        }
        on_bytes(done, total);
    }
    Ok(())
}

fn unpack_tar(archive: &Path, targets: &[Target], on_bytes: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    let file = File::open(archive)?;
    let total = file.metadata()?.len();
    let mut position = file.try_clone()?;
    let mut tar = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
    for entry in tar.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            unpack_entry(&name, &mut entry, targets)?;
        }
        on_bytes(io::Seek::stream_position(&mut position)?, total);
    }
    Ok(())
}
