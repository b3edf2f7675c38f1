//! A folder that a browser opens from disk: a page with tables and figures, and an explorer of single samples.
//!
//! Nothing in it names an address outside of the folder. Equal results give equal bytes.

mod images;
mod leaderboard;
mod samples;
mod script;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::data::WholeFile;
use crate::error::{Error, Result};
use crate::report::figure::Figure;
use crate::suite::{Leaderboard, Samples};

/// What a page holds.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The tables that it begins with.
    pub board: &'a Leaderboard,
    /// Figures with their file names, without ending.
    pub figures: &'a [(String, Figure)],
    /// The samples of its explorer; its models are the runs of the leaderboard.
    pub samples: &'a Samples<'a>,
    /// Whether images are copied, reduced to at most 256 pixels.
    pub images: bool,
}

/// How far writing a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageEvent<'a> {
    /// So many images of a dataset are done.
    Images {
        /// Name of the dataset.
        dataset: &'a str,
        /// Images so far.
        done: usize,
        /// Images in all.
        total: usize,
    },
    /// So many samples of a dataset are written.
    Samples {
        /// Name of the dataset.
        dataset: &'a str,
        /// Samples so far.
        done: usize,
        /// Samples in all.
        total: usize,
    },
    /// So many images of a dataset could not be read and are not in the page.
    Unreadable {
        /// Name of the dataset.
        dataset: &'a str,
        /// Number of images.
        images: usize,
    },
}

/// The files that are the same in every page.
const ASSETS: [(&str, &str); 5] = [
    ("explorer.html", include_str!("explorer.html")),
    ("assets/page.css", include_str!("page.css")),
    ("assets/leaderboard.js", include_str!("leaderboard.js")),
    ("assets/samples.js", include_str!("samples.js")),
    ("assets/explorer.js", include_str!("explorer.js")),
];

/// Writes a page into a folder, which is made. Files of an earlier page are replaced.
///
/// # Errors
/// A file that cannot be written.
pub fn write_page(page: &Page, folder: impl Into<PathBuf>, on_event: &mut dyn FnMut(PageEvent)) -> Result<()> {
    let output = Folder { root: folder.into() };
    for (name, text) in ASSETS {
        output.write(name, text.as_bytes())?;
    }
    for (name, figure) in page.figures {
        output.write(&format!("figures/{name}.svg"), figure.svg()?.as_bytes())?;
    }
    output.write("index.html", leaderboard::index(page.board, page.figures).as_bytes())?;
    let Page { samples, images, .. } = *page;
    let folders = folder_names(samples.sets.iter().map(|set| set.dataset.name.as_str()));
    for (set, folder) in samples.sets.iter().zip(&folders) {
        let image_files = match images {
            true => images::write(&output, (set.dataset, folder), on_event)?,
            false => {
                vec![images::NO_FILE; set.dataset.clusters().into_iter().max().map_or(0, |last| last as usize + 1)]
            }
        };
        let missing = image_files.iter().filter(|file| **file == images::NO_FILE).count();
        if images && missing > 0 {
            on_event(PageEvent::Unreadable { dataset: &set.dataset.name, images: missing });
        }
        samples::write(&output, (set, folder), &image_files, on_event)?;
    }
    output.write_data("catalogue", &samples::catalogue(samples, &folders, images))
}

/// Names of folders that need no escapes in addresses and differ whatever the file system takes for equal.
fn folder_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut taken = HashSet::new();
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let mut unique = |name: &str| {
        let base: String = name.to_ascii_lowercase().chars().map(plain).collect();
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        names.find(|name| taken.insert(name.clone())).unwrap_or(base)
    };
    names.map(&mut unique).collect()
}

/// The folder of a page.
struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Writes a value where the page's scripts ask for it.
    fn write_data(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.write(&format!("data/{name}.js"), script::script(name, value)?.as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let write = || {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = WholeFile::create(&path)?;
            file.write_all(bytes)?;
            file.finish()
        };
        write().map_err(|cause: std::io::Error| {
            Error::input(format!("cannot write `{}`", path.display())).caused_by(cause).hint("choose another folder")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_plain_and_differ() {
        let names = ["vqav2", "a b/é", "VQAv2", "../..", "a-b--"];
        assert_eq!(folder_names(names.into_iter()), ["vqav2", "a-b--", "vqav2-2", "-----", "a-b---2"]);
    }
}
