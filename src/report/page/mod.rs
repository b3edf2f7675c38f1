//! A folder that a browser opens from disk: a page with tables and figures, and an explorer of single samples.
//!
//! Nothing in it names an address outside of the folder. Equal results give equal bytes.

mod images;
mod leaderboard;
mod samples;
mod script;

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::data::{FolderKind, WholeFolder, write_error};
use crate::error::Result;
use crate::report::FileNames;
use crate::report::figure::Figure;
use crate::suite::{Leaderboard, SampleSet, Samples};

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
        /// Identifier of the first of them.
        first: &'a str,
        /// Why that one could not be read.
        cause: &'a str,
    },
}

/// The files that are the same in every page.
const ASSETS: [(&str, &str); 7] = [
    ("explorer.html", include_str!("explorer.html")),
    ("assets/page.css", include_str!("page.css")),
    ("assets/leaderboard.js", include_str!("leaderboard.js")),
    ("assets/samples.js", include_str!("samples.js")),
    ("assets/state.js", include_str!("state.js")),
    ("assets/detail.js", include_str!("detail.js")),
    ("assets/explorer.js", include_str!("explorer.js")),
];

/// Comes last, so that every folder that has it is a page.
const CATALOGUE: &str = "catalogue";

const PAGE_FOLDER: FolderKind =
    FolderKind { what: "an earlier page", marks: &["data/catalogue.js"], holds: is_of_page, synced: false };

/// Whether a page may hold this file or, with a `/` at the end, this folder.
fn is_of_page(path: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && name == plain_name(name);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_image = |file: &str| file.rsplit_once('.').is_some_and(|(number, _)| is_number(number));
    let numbered =
        |file: &str| ["model-", "samples-"].iter().any(|kind| file.strip_prefix(kind).is_some_and(is_number));
    let is_data = |file: &str| file.strip_suffix(".js").is_some_and(|name| name == "questions" || numbered(name));
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["index.html"] | ["assets" | "data" | "figures" | "images", ""] | ["data", "catalogue.js"] => true,
        ["data" | "images", set, ""] => is_name(set),
        ["data", set, file] => is_name(set) && is_data(file),
        ["figures", file] => file.strip_suffix(".svg").is_some_and(is_name),
        ["images", set, file] => is_name(set) && is_image(file),
        _ => ASSETS.iter().any(|(asset, _)| *asset == path),
    }
}

/// Writes a page as a folder, which takes the place of an earlier page in one step; nothing of that one stays.
///
/// # Errors
/// Input error if the folder cannot be written, or if there is something that is neither a page nor empty, or a page with
/// something else in it; all of which stays as it is.
pub fn write_page(page: &Page, folder: impl AsRef<Path>, on_event: &mut dyn FnMut(PageEvent)) -> Result<()> {
    let whole = WholeFolder::create(folder.as_ref(), &PAGE_FOLDER)?;
    let output = Folder { root: whole.path(), shown: folder.as_ref() };
    for (name, text) in ASSETS {
        output.write(name, text.as_bytes())?;
    }
    let mut names = FileNames::default();
    let mut figures = Vec::new();
    for (name, figure) in page.figures {
        let (name, svg) = (names.unique(&plain_name(name)), figure.svg()?);
        output.write(&format!("figures/{name}.svg"), svg.as_bytes())?;
        figures.push(DrawnFigure { name, svg });
    }
    output.write("index.html", leaderboard::index(page.board, &figures).as_bytes())?;
    let mut names = FileNames::default();
    let mut about = Vec::new();
    for set in &page.samples.sets {
        let name = names.unique(&plain_name(&set.dataset.name));
        about.push(write_set(&SetFolder { page: &output, name: &name }, set, page.images, on_event)?);
    }
    output.write_data(CATALOGUE, &samples::catalogue(page, about))?;
    whole.finish()
}

/// A figure of the page.
struct DrawnFigure {
    /// Name of its file without ending.
    name: String,
    svg: String,
}

/// Writes a dataset and returns what the catalogue says of it.
fn write_set(folder: &SetFolder, set: &SampleSet, images: bool, on_event: &mut dyn FnMut(PageEvent)) -> Result<Value> {
    let image_files = match images {
        true => images::write(folder, set.dataset, on_event)?,
        false => vec![images::NO_FILE; set.dataset.image_count()],
    };
    samples::write(folder, set, &image_files, on_event)
}

/// A name in small letters of ASCII that needs no escapes in addresses.
fn plain_name(name: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    name.to_ascii_lowercase().chars().map(plain).collect()
}

/// The folder of a page.
struct Folder<'a> {
    /// Where it is written.
    root: &'a Path,
    /// Where it will be, as messages tell it.
    shown: &'a Path,
}

impl Folder<'_> {
    /// Writes a value where the page's scripts ask for it.
    fn write_data(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.write(&format!("data/{name}.js"), script::script(name, value)?.as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|cause| write_error(&self.shown.join(name), cause))
    }
}

/// Where a page has the files of a dataset.
struct SetFolder<'a> {
    page: &'a Folder<'a>,
    name: &'a str,
}

impl SetFolder<'_> {
    fn write_data(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.page.write_data(&format!("{}/{name}", self.name), value)
    }

    fn write_image(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.page.write(&format!("images/{}/{name}", self.name), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_differ() {
        let mut names = FileNames::default();
        let given = ["vqav2", "a b/é", "VQAv2", "../..", "a-b--"].map(|name| names.unique(&plain_name(name)));
        assert_eq!(given, ["vqav2", "a-b--", "vqav2-2", "-----", "a-b---2"]);
    }
}
