//! Gets the files of a dataset that anybody can download; the others have to be put there by hand.
//!
//! What is there is left alone. A file or folder appears whole; a broken download goes on.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{Packing, SourceFile, find};
use crate::error::{Error, Result};
use crate::hub::{self, Hub};

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

/// Whether the file, or the folder with something in it, is where [`super::find`] looks for it: below `root`, or in a folder
/// that several datasets share. Two copies are one too many, and none is lacking.
pub fn is_present(file: &SourceFile, root: &Path) -> bool {
    let holds_something = |path: PathBuf| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    find(root, file).map_or(true, |found| found.is_some_and(|path| path.is_file() || holds_something(path)))
}

/// Downloads and unpacks the files that are not below `root` yet; their states position by position.
///
/// # Errors
/// Input error that says what to do: a failed download, a damaged archive, a full disk.
pub fn fetch(
    files: &[SourceFile],
    root: &Path,
    hub: &Hub,
    on_event: &mut dyn FnMut(FetchEvent),
) -> Result<Vec<FileState>> {
    let mut states = Vec::new();
    for file in files {
        states.push(match file.url {
            // One archive may have brought several files.
            _ if is_present(file, root) => states_before(&states, files, file),
            None => FileState::ByHand,
            Some(url) => {
                let absent: Vec<&SourceFile> =
                    files.iter().filter(|other| other.url == Some(url) && !is_present(other, root)).collect();
                fetch_one(file, url, &absent, root, hub, on_event)?;
                FileState::Fetched
            }
        });
    }
    Ok(states)
}

/// Fetched, if the address of a present file was fetched for one before it.
fn states_before(states: &[FileState], files: &[SourceFile], file: &SourceFile) -> FileState {
    let came_along =
        states.iter().zip(files).any(|(state, other)| *state == FileState::Fetched && other.url == file.url);
    if came_along { FileState::Fetched } else { FileState::Present }
}

fn fetch_one(
    file: &SourceFile,
    url: &str,
    absent: &[&SourceFile],
    root: &Path,
    hub: &Hub,
    on_event: &mut dyn FnMut(FetchEvent),
) -> Result<()> {
    let mut on_download = |event: hub::Event| on_event(FetchEvent::Download(event));
    if file.packing == Packing::Plain {
        return hub.download(url, &root.join(file.path), &mut on_download);
    }
    let name = url.split(['?', '#']).next().and_then(|address| address.rsplit('/').next()).unwrap_or("archive");
    let archive = root.join(format!(".{name}"));
    if !archive.is_file() {
        hub.download(url, &archive, &mut on_download)?;
    }
    let mut targets: Vec<Target> = absent.iter().map(|file| Target::new(&root.join(file.path))).collect();
    let mut on_bytes = |done, total| on_event(FetchEvent::Unpacked { archive: name, done, total });
    let unpacked = match file.packing {
        Packing::Zip => unpack_zip(&archive, &mut targets, &mut on_bytes),
        _ => unpack_tar(&archive, &mut targets, &mut on_bytes),
    };
    unpacked.and_then(|()| targets.iter().try_for_each(Target::finish)).map_err(|cause| {
        let damaged = matches!(
            cause.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
        );
        let hint = if damaged {
            // Where it cannot be removed, it is found damaged again.
            let _ = fs::remove_file(&archive);
            "the archive was removed; run the same command again"
        } else {
            "run the same command again when that is mended, perhaps with another --root"
        };
        Error::input(format!("cannot unpack `{url}` to `{}`", root.display())).caused_by(cause).hint(hint)
    })?;
    fs::remove_file(&archive)
        .map_err(|cause| Error::input(format!("cannot remove `{}`", archive.display())).caused_by(cause))
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

    fn finish(&self) -> io::Result<()> {
        if !self.hidden.exists() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the archive has no `{}`", self.name)));
        }
        fs::rename(&self.hidden, &self.path)
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
            io::copy(bytes, &mut File::create(path)?)?;
            return Ok(());
        }
    }
    Ok(())
}

fn unpack_zip(archive: &Path, targets: &mut [Target], on_bytes: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    targets.iter().try_for_each(Target::clear)?;
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

fn unpack_tar(archive: &Path, targets: &mut [Target], on_bytes: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    targets.iter().try_for_each(Target::clear)?;
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
