//! What of a dataset is on this disk, and where.
//!
//! A file is looked for below the dataset's own folder, under any leading folders, since archives bring long ones. COCO's
//! images and VQAv2's files, which several datasets are made on, are then looked for in `coco` and `vqav2` beside it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::shards::Split;
use super::{DatasetRow, HubCopy, Part, SourceFile, vqa_sets};
use crate::error::{Error, Result};

/// Files from here serve several datasets; each is fetched to the folder of the same position.
const COMMON_SOURCES: [&str; 2] = ["http://images.cocodataset.org/", "https://s3.amazonaws.com/cvmlp/vqa/"];

/// Folders beside that of a dataset that may hold such files.
const COMMON_FOLDERS: [&str; 2] = ["coco", "vqav2"];

/// Folders are searched down to this depth.
const DEEPEST: usize = 12;

/// How much of the evaluated part of a dataset is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of it.
    Present,
    /// Some files.
    Incomplete,
    /// Nothing.
    Missing,
}

/// What of a dataset is there, and what is not.
#[derive(Debug)]
pub struct Presence {
    /// How much of the evaluated part is there.
    pub state: State,
    /// What the evaluated part lacks: where each belongs, and what is wrong with it.
    pub missing: Vec<(PathBuf, String)>,
    /// What the part to train on lacks besides.
    pub missing_for_training: Vec<PathBuf>,
}

impl DatasetRow {
    /// What of this dataset is there, if `root` is its folder. A dataset without files is always there.
    ///
    /// # Errors
    /// A folder that cannot be read, or a file of which two copies lie equally deep.
    pub fn presence(&self, root: &Path) -> Result<Presence> {
        let mut presence = Presence { state: State::Present, missing: Vec::new(), missing_for_training: Vec::new() };
        let mut found = 0;
        for file in self.files {
            let path = find(root, file)?;
            let lacks = match (&path, self.images) {
                (None, _) => Some("missing".to_owned()),
                (Some(path), Some(images)) if path.is_dir() && file.part != Part::Training => {
                    let count = entries(path)?.len();
                    (count < images).then(|| format!("{count} of {images} images"))
                }
                _ => None,
            };
            found += usize::from(path.is_some() && file.part != Part::Training);
            let place = path.unwrap_or_else(|| root.join(file.path));
            match (lacks, file.part) {
                (None, _) => {}
                (Some(_), Part::Training) => presence.missing_for_training.push(place),
                (Some(lacks), Part::Evaluation | Part::Both) => presence.missing.push((place, lacks)),
            }
        }
        if vqa_sets::combined(root)?.is_some() {
            presence.missing.retain(|(path, _)| is_folder(path));
        }
        if !presence.missing.is_empty() {
            presence.state = if found == 0 { State::Missing } else { State::Incomplete };
        }
        for copy in self.hub {
            for folder in self.files.first().map(|file| places(root, file)).unwrap_or_default() {
                presence.count_in(copy, &folder)?;
            }
        }
        Ok(presence)
    }
}

impl Presence {
    /// Counts in what a folder has of a copy of the Hub, which stands in for files.
    fn count_in(&mut self, copy: &HubCopy, folder: &Path) -> Result<()> {
        let needed = match copy.part {
            Part::Training => !self.missing_for_training.is_empty(),
            Part::Evaluation | Part::Both => !self.missing.is_empty(),
        };
        let Some(split) = Split::find(folder, copy.split)?.filter(|_| needed) else { return Ok(()) };
        let told = |path: &PathBuf| {
            self.missing_for_training.contains(path) || self.missing.iter().any(|(one, _)| one == path)
        };
        let shards: Vec<PathBuf> = split.missing().into_iter().filter(|path| !told(path)).collect();
        let with_images = copy.images && split.holds_images();
        let stands_in =
            |path: &Path| path.extension().is_none_or(|kind| kind != "parquet") && (with_images || !is_folder(path));
        if copy.part == Part::Training {
            self.missing_for_training.retain(|path| !stands_in(path));
            self.missing_for_training.extend(shards);
        } else {
            self.missing.retain(|(path, _)| !stands_in(path));
            self.missing.extend(shards.into_iter().map(|path| (path, "missing".to_owned())));
            self.state = if self.missing.is_empty() { State::Present } else { State::Incomplete };
        }
        Ok(())
    }
}

/// Whether what belongs at a path is a folder of images rather than a file.
fn is_folder(path: &Path) -> bool {
    path.extension().is_none()
}

/// Where a file or folder of a dataset is, whose folder is `root`: in that, or where common files can be.
///
/// # Errors
/// A folder that cannot be read, or two copies that lie equally deep.
pub fn find(root: &Path, file: &SourceFile) -> Result<Option<PathBuf>> {
    for folder in places(root, file) {
        if let Some(path) = find_below(&folder, file.path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The folders that can hold a file, the dataset's own first.
pub(super) fn places(root: &Path, file: &SourceFile) -> Vec<PathBuf> {
    let common = common_folder(file).is_some();
    let beside = std::path::absolute(root).ok().and_then(|root| root.parent().map(Path::to_owned));
    let beside = beside.filter(|_| common);
    let folders = beside.iter().flat_map(|beside| COMMON_FOLDERS.map(|name| beside.join(name)));
    let own = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    std::iter::once(root.to_owned()).chain(folders.filter(|folder| *folder != own)).collect()
}

/// The folder beside that of a dataset which a file is fetched to, if it serves several datasets.
pub(super) fn common_folder(file: &SourceFile) -> Option<&'static str> {
    let source = |(source, _): &(&str, &str)| file.url.is_some_and(|url| url.starts_with(source));
    COMMON_SOURCES.into_iter().zip(COMMON_FOLDERS).find(source).map(|(_, folder)| folder)
}

/// What is at `path` below `root`, under any leading folders; the least deep one.
///
/// # Errors
/// A folder that cannot be read, or two that are equally deep.
pub(super) fn find_below(root: &Path, path: &str) -> Result<Option<PathBuf>> {
    level_by_level(root, DEEPEST, |level| {
        let mut found = level.iter().map(|folder| folder.join(path)).filter(|path| path.exists());
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => {
                let message = format!("`{}` and `{}` are both there", first.display(), second.display());
                Err(Error::input(message).hint("leave one of them below the folder of the dataset"))
            }
            (only, _) => Ok(only),
        }
    })
}

/// Looks in the folders of each level, `root` first, down to a depth, until `look` has found something.
///
/// # Errors
/// A folder that cannot be read, or the first error of `look`.
pub(super) fn level_by_level<T>(
    root: &Path,
    deepest: usize,
    mut look: impl FnMut(&[PathBuf]) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let mut level = vec![root.to_owned()];
    let mut seen = HashSet::new();
    for _ in 0..deepest {
        if let Some(found) = look(&level)? {
            return Ok(Some(found));
        }
        let mut next = Vec::new();
        for folder in level.iter().filter(|folder| folder.is_dir()) {
            // A link can lead back to a folder above it.
            if seen.insert(folder.canonicalize().unwrap_or_else(|_| folder.clone())) {
                next.extend(folders_in(folder)?);
            }
        }
        next.sort();
        level = next;
    }
    Ok(None)
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_folder = |entry: &fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
        Ok(kind) => kind.is_dir(),
        Err(_) => false,
    };
    Ok(entries(folder)?.into_iter().filter(is_folder).map(|entry| entry.path()).collect())
}

/// What a folder holds.
///
/// # Errors
/// A folder that cannot be read.
pub(super) fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let listed = fs::read_dir(folder).and_then(Iterator::collect);
    listed.map_err(|cause| Error::input(format!("cannot read the folder `{}`", folder.display())).caused_by(cause))
}
