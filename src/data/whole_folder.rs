//! Folders that appear whole, in one step, or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes a folder under the hidden name `.<name>.tmp` beside it and puts it in its place with [`finish`](Self::finish).
///
/// Readers see the old folder or the new one. The hidden name is always the same and locked by its writer; what a killed
/// process has left is removed by the next.
#[derive(Debug)]
pub(crate) struct WholeFolder {
    hidden: PathBuf,
    target: PathBuf,
    _locked: File,
    synced: bool,
    finished: bool,
}

/// What a folder is, so that only its like is replaced.
#[derive(Debug)]
pub(crate) struct FolderKind {
    /// In words, with article.
    pub what: &'static str,
    /// Files one of which every such folder has.
    pub marks: &'static [&'static str],
    /// Whether such a folder may hold this: the path of a file below it, or that of a folder with a `/` at its end.
    pub holds: fn(&str) -> bool,
    /// Whether its files are on the disk before it takes its place, which takes long where there are many.
    pub synced: bool,
}

impl WholeFolder {
    /// Begins the folder that will be `target`; the folders above it are made.
    ///
    /// # Errors
    /// Input error if it cannot be written, if another process is writing it, or if there is something that is neither
    /// of this kind nor empty, or that holds something else besides, which would be lost.
    pub(crate) fn create(target: &Path, kind: &FolderKind) -> Result<Self> {
        let failed = |cause| write_error(target, cause);
        // A link stays, and what it leads to is replaced.
        let target = match target.canonicalize() {
            Ok(real) => real,
            Err(_) => std::path::absolute(target).map_err(failed)?,
        };
        check_replaceable(&target, kind)?;
        let (Some(name), Some(parent)) = (target.file_name(), target.parent()) else {
            return Err(failed(io::ErrorKind::InvalidFilename.into()));
        };
        fs::create_dir_all(parent).map_err(failed)?;
        let mut hidden_name = OsString::from(".");
        hidden_name.push(name);
        hidden_name.push(".tmp");
        let hidden = target.with_file_name(hidden_name);
        let locked = acquire(&hidden).map_err(failed)?;
        Ok(Self { hidden, target, _locked: locked, synced: kind.synced, finished: false })
    }

    /// Where the files of the folder are written meanwhile.
    pub(crate) fn path(&self) -> &Path {
        &self.hidden
    }

    /// Puts the folder in its place.
    ///
    /// # Errors
    /// Input error; nothing is left then, and an older folder stays as it was.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.put_in_place().map_err(|cause| write_error(&self.target, cause))?;
        self.finished = true;
        Ok(())
    }

    fn put_in_place(&self) -> io::Result<()> {
        if self.synced {
            sync(&self.hidden)?;
        }
        if !self.target.exists() {
            fs::rename(&self.hidden, &self.target)?;
        } else if exchange(&self.hidden, &self.target).is_ok() {
            // The new folder is in place; what stays of the old one is removed by the next writer.
            let _ = fs::remove_dir_all(&self.hidden);
        } else {
            replace(&self.hidden, &self.target)?;
        }
        self.target.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }
}

impl Drop for WholeFolder {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody is left to tell where even that fails; the next writer clears the folder.
            let _ = fs::remove_dir_all(&self.hidden);
        }
    }
}

/// The error of a file or folder that cannot be written.
pub(crate) fn write_error(path: &Path, cause: io::Error) -> Error {
    Error::input(format!("cannot write `{}`", path.display()))
        .caused_by(cause)
        .hint("free some space there, or choose another folder")
}

fn check_replaceable(target: &Path, kind: &FolderKind) -> Result<()> {
    let Ok(mut entries) = fs::read_dir(target) else {
        return match target.exists() {
            true => Err(Error::input(format!("`{}` is no folder", target.display())).hint("choose another name")),
            false => Ok(()),
        };
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let (folder, what) = (target.display(), kind.what);
    if !kind.marks.iter().any(|mark| target.join(mark).is_file()) {
        return Err(Error::input(format!("the folder `{folder}` holds something else than {what}"))
            .hint("choose another name, or empty it"));
    }
    match foreign(target, "", kind).map_err(|cause| write_error(target, cause))? {
        None => Ok(()),
        Some(other) => Err(Error::input(format!("the folder `{folder}` holds `{other}`, which is no part of {what}"))
            .hint("choose another name, or move it elsewhere: the whole folder is replaced")),
    }
}

/// The first path below a folder, in the order of names, that is nothing such a folder holds.
fn foreign(folder: &Path, above: &str, kind: &FolderKind) -> io::Result<Option<String>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let mut path = format!("{above}{}", entry.file_name().to_string_lossy());
        let is_folder = entry.file_type()?.is_dir();
        if is_folder {
            path.push('/');
        }
        let found = match (kind.holds)(&path) {
            false => Some(path),
            true if is_folder => foreign(&entry.path(), &path, kind)?,
            true => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Makes `path` an empty folder that belongs to this process alone.
fn acquire(path: &Path) -> io::Result<File> {
    loop {
        fs::create_dir_all(path)?;
        let folder = File::open(path)?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process is writing it"));
            }
            // Some network file systems have no locks.
            Err(fs::TryLockError::Error(cause)) if cause.kind() == io::ErrorKind::Unsupported => {}
            Err(fs::TryLockError::Error(cause)) => return Err(cause),
        }
        // The process that had the lock may have renamed or removed the folder meanwhile.
        let same = fs::metadata(path).and_then(|now| Ok((now.dev(), now.ino(), folder.metadata()?)));
        if same.is_ok_and(|(device, inode, own)| (device, inode) == (own.dev(), own.ino())) {
            clear(path)?;
            return Ok(folder);
        }
    }
}

/// Waits until all of a folder is on the disk.
fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => sync(&entry.path())?,
            false => File::open(entry.path())?.sync_all()?,
        }
    }
    File::open(folder)?.sync_all()
}

fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Swaps two folders in one step.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let name = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (one, other) = (name(one)?, name(other)?);
    // SAFETY: both names are C strings that outlive the call, which reads nothing else of ours.
    let status = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Replaces `target` where two folders cannot be swapped: between the two steps it lies under the name `.<name>.old`.
fn replace(hidden: &Path, target: &Path) -> io::Result<()> {
    let old = hidden.with_extension("old");
    fs::rename(target, &old)?;
    if let Err(cause) = fs::rename(hidden, target) {
        fs::rename(&old, target)?;
        return Err(cause);
    }
    fs::remove_dir_all(&old)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: FolderKind = FolderKind {
        what: "a model",
        marks: &["config.json"],
        holds: |path| ["config.json", "a.txt", "b.txt", "graphs/", "graphs/one"].contains(&path),
        synced: true,
    };

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn folders_appear_whole_and_replace_their_like_alone() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("runs/model");
        for round in ["a.txt", "b.txt"] {
            let folder = WholeFolder::create(&target, &MODEL).unwrap();
            fs::write(folder.path().join("config.json"), "{}").unwrap();
            fs::write(folder.path().join(round), round).unwrap();
            assert!(!target.join(round).exists());
            assert!(format!("{:?}", WholeFolder::create(&target, &MODEL).unwrap_err()).contains("another process"));
            folder.finish().unwrap();
            assert_eq!(names(&target), [round, "config.json"]);
        }
        assert_eq!(names(target.parent().unwrap()), ["model"]);
        fs::create_dir(target.join("graphs")).unwrap();
        fs::write(target.join("graphs/one"), "one").unwrap();
        drop(WholeFolder::create(&target, &MODEL).unwrap());
        for other in ["notes", "graphs/two", "a folder/"] {
            match other.strip_suffix('/') {
                Some(folder) => fs::create_dir(target.join(folder)).unwrap(),
                None => fs::write(target.join(other), "mine").unwrap(),
            }
            let error = WholeFolder::create(&target, &MODEL).unwrap_err().to_string();
            assert!(error.ends_with(&format!("holds `{other}`, which is no part of a model")), "{error}");
            assert!(target.join(other).exists());
            match other.strip_suffix('/') {
                Some(folder) => fs::remove_dir(target.join(folder)).unwrap(),
                None => fs::remove_file(target.join(other)).unwrap(),
            }
        }
        assert_eq!(names(target.parent().unwrap()), ["model"]);
        fs::remove_file(target.join("config.json")).unwrap();
        let error = WholeFolder::create(&target, &MODEL).unwrap_err();
        assert!(error.to_string().contains("holds something else than a model"), "{error}");
    }

    #[test]
    fn an_unfinished_folder_leaves_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("model");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("config.json"), "old").unwrap();
        fs::create_dir(root.path().join(".model.tmp")).unwrap();
        fs::write(root.path().join(".model.tmp/left"), "by a killed process").unwrap();
        let folder = WholeFolder::create(&target, &MODEL).unwrap();
        assert!(names(folder.path()).is_empty());
        fs::write(folder.path().join("config.json"), "new").unwrap();
        drop(folder);
        assert_eq!(
            (names(root.path()), fs::read_to_string(target.join("config.json")).unwrap()),
            (vec!["model".to_owned()], "old".to_owned())
        );
    }

    #[test]
    fn folders_are_replaced_without_a_swap_too() {
        let root = tempfile::tempdir().unwrap();
        let [hidden, target] = [".model.tmp", "model"].map(|name| root.path().join(name));
        for (folder, text) in [(&hidden, "new"), (&target, "old")] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("config.json"), text).unwrap();
        }
        replace(&hidden, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("config.json")).unwrap(), "new");
        assert_eq!(names(root.path()), ["model"]);
    }
}
