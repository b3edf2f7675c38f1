//! Suites: which datasets belong together, how each has shifted, how questions are put, and what is averaged.
//!
//! A suite is a TOML file, one of the known ones or a file of one's own. It is checked as a whole before anything is
//! loaded, and what is wrong is told with file and line.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::toml_text::TomlText;
use crate::data::{DatasetRow, find_dataset};
use crate::error::{Error, Result, find_row};
use crate::model::decoding::{Decoding, Strategy};
use crate::model::text::Prompt;
use crate::score::{Metric, find_metric};

/// A known suite. Adding a suite is adding its file and a row to [`SUITES`].
#[derive(Debug)]
pub struct KnownSuite {
    /// Name on the command line.
    pub name: &'static str,
    /// Its manifest.
    pub manifest: &'static str,
}

/// Every known suite.
pub static SUITES: &[KnownSuite] = &[
    KnownSuite { name: "vqa", manifest: include_str!("../../benchmarks/suites/vqa.toml") },
    KnownSuite { name: "vqa-parity", manifest: include_str!("../../benchmarks/suites/vqa-parity.toml") },
    KnownSuite { name: "miniature", manifest: include_str!("../../benchmarks/suites/miniature.toml") },
];

/// How a dataset has shifted away from the one that models are trained on.
#[derive(Debug, PartialEq, Eq)]
pub struct Shift {
    /// Name in manifests and tables.
    pub name: &'static str,
    /// What is different.
    pub about: &'static str,
}

/// Every shift; the first is that of the set in distribution.
pub static SHIFTS: &[Shift] = &[
    Shift { name: "none", about: "in distribution" },
    Shift { name: "vision", about: "images changed, questions kept" },
    Shift { name: "question", about: "questions reworded" },
    Shift { name: "answer", about: "other priors of answers" },
    Shift { name: "multimodal", about: "shortcuts between image, question and answer that mislead" },
    Shift { name: "adversarial", about: "questions chosen because models failed them" },
    Shift { name: "far", about: "another task: reading, photos by blind people, outside knowledge" },
];

/// A suite that has been checked.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Name of the known suite, or stem of the file.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// How questions are put to fine-tuned models.
    pub evaluation: &'static Prompt,
    /// How questions are put while a model is trained.
    pub training: &'static Prompt,
    /// How questions are put to models that were not fine-tuned.
    pub zero_shot: &'static Prompt,
    /// How answers are searched for.
    pub decoding: Decoding,
    /// Its datasets, the one in distribution among them.
    pub datasets: Vec<SuiteDataset>,
    /// What is averaged, in the order of the columns.
    pub groups: Vec<Group>,
}

/// A dataset of a suite.
#[derive(Debug, Clone)]
pub struct SuiteDataset {
    /// The dataset.
    pub row: &'static DatasetRow,
    /// Head of its column.
    pub label: String,
    /// How it has shifted.
    pub shift: &'static Shift,
    /// How its answers are scored.
    pub metric: &'static Metric,
}

/// Datasets whose accuracies are averaged.
#[derive(Debug, Clone)]
pub struct Group {
    /// Name in the manifest.
    pub name: String,
    /// Head of the column of its average.
    pub label: String,
    /// Names of the datasets that it lists itself.
    pub listed: Vec<String>,
    /// Names of all its datasets, those of the groups that it lists included.
    pub datasets: Vec<String>,
}

impl Suite {
    /// The known suite of this name, or the suite in this file.
    ///
    /// # Errors
    /// An unknown name, an unreadable file, and everything that a manifest can have wrong.
    pub fn load(name: &str) -> Result<Self> {
        let layers = layers(Source::find(name, None)?)?;
        Resolved(&layers).suite()
    }

    /// The dataset in distribution.
    pub fn in_distribution(&self) -> &SuiteDataset {
        let of_none = |dataset: &&SuiteDataset| dataset.shift == &SHIFTS[0];
        // A suite without one is refused when it is loaded.
        self.datasets.iter().find(of_none).unwrap_or(&self.datasets[0])
    }
}

impl Suite {
    /// Refuses to go on without the files of every dataset; `base` has a folder for each.
    ///
    /// # Errors
    /// All datasets that are missing, or not whole, and how to get them.
    pub fn check_present(&self, base: &Path) -> Result<()> {
        let mut lacking = Vec::new();
        let mut advice = Vec::new();
        for SuiteDataset { row, .. } in &self.datasets {
            let folder = base.join(row.name);
            // A part of the images is told below the table and does not stop a run.
            let absent = row.presence(&folder)?.missing.into_iter().map(|(path, _)| path).filter(|path| !path.exists());
            let absent: Vec<PathBuf> = absent.collect();
            let Some(first) = absent.first() else { continue };
            let more = if absent.len() > 1 { format!(" and {} more", absent.len() - 1) } else { String::new() };
            lacking.push(row.name);
            advice.push(format!("{}: {} (missing: `{}`{more})", row.name, row.obtain, first.display()));
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let count = format!("{} of the {} datasets", lacking.len(), self.datasets.len());
        let what =
            format!("{count} of the suite `{}` are not in `{}`: {}", self.name, base.display(), lacking.join(", "));
        Err(Error::input(what).hint(format!(
            "get each one (`fetch NAME --part evaluation` leaves out what is for training alone):\n  {}",
            advice.join("\n  ")
        )))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Manifest {
    about: Option<String>,
    extends: Option<Spanned<String>>,
    metric: Option<Spanned<String>>,
    #[serde(default)]
    prompt: PromptTable,
    #[serde(default)]
    answer: AnswerTable,
    #[serde(default)]
    dataset: Vec<DatasetTable>,
    #[serde(default)]
    group: Vec<GroupTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PromptTable {
    evaluation: Option<Spanned<String>>,
    training: Option<Spanned<String>>,
    zero_shot: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AnswerTable {
    decode: Option<Spanned<String>>,
    max_new_tokens: Option<Spanned<usize>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DatasetTable {
    name: Spanned<String>,
    label: Option<Spanned<String>>,
    shift: Spanned<String>,
    metric: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct GroupTable {
    name: Spanned<String>,
    label: Option<Spanned<String>>,
    members: Spanned<Vec<Spanned<String>>>,
}

/// The text of a manifest and where it is from.
#[derive(Debug)]
struct Source {
    text: TomlText,
    /// What the suite is called.
    stem: String,
    /// The folder of its file, and the file; neither for a known suite.
    file: Option<[PathBuf; 2]>,
}

impl Source {
    /// A known suite, or a file below `folder`.
    fn find(name: &str, folder: Option<&Path>) -> Result<Self> {
        if !name.ends_with(".toml") {
            let known = find_row(SUITES, "suite", name, |suite| vec![suite.name]).map_err(|error| {
                let known = error.next_step().unwrap_or_default().to_owned();
                error.hint(format!("{known}; or give a file that ends in .toml"))
            })?;
            let text = TomlText { title: format!("the suite `{name}`"), text: known.manifest.to_owned() };
            return Ok(Self { text, stem: known.name.to_owned(), file: None });
        }
        let path = folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
        let cannot = |cause: std::io::Error| {
            Error::input(format!("cannot read the suite `{}`", path.display())).caused_by(cause)
        };
        let text = std::fs::read_to_string(&path).map_err(cannot)?;
        let whole = path.canonicalize().map_err(cannot)?;
        let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let text = TomlText { title: format!("`{}`", path.display()), text };
        Ok(Self { text, stem, file: Some([folder, whole]) })
    }

    fn is(&self, other: &Self) -> bool {
        match (&self.file, &other.file) {
            (Some([_, file]), Some([_, other])) => file == other,
            (None, None) => self.stem == other.stem,
            _ => false,
        }
    }
}

/// A manifest, with what it does not state in the layers after it.
struct Layer {
    source: Source,
    manifest: Manifest,
}

/// The manifest, the one that it extends, and so on.
fn layers(first: Source) -> Result<Vec<Layer>> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut next = Some(first);
    while let Some(source) = next.take() {
        let manifest: Manifest = source.text.parse()?;
        let base = manifest.extends.as_ref().map(|name| {
            let folder = source.file.as_ref().map(|[folder, _]| folder.as_path());
            source.text.look_up(name, |name| Source::find(name, folder))
        });
        let extended = manifest.extends.as_ref().map_or(0, |name| name.span().start);
        layers.push(Layer { source, manifest });
        next = base.transpose()?;
        if let (Some(base), Some(last)) = (&next, layers.last())
            && layers.iter().any(|layer| layer.source.is(base))
        {
            return Err(last.source.text.wrong(extended, format!("{} extends itself this way", base.text.title)));
        }
    }
    Ok(layers)
}

/// What the layers say together: of each value, the first layer that states it.
struct Resolved<'a>(&'a [Layer]);

impl<'a> Resolved<'a> {
    fn suite(&self) -> Result<Suite> {
        let top = self.top()?;
        let mut heads = HashSet::new();
        let datasets = self.datasets(&mut heads)?;
        Ok(Suite {
            name: top.source.stem.clone(),
            about: self.0.iter().find_map(|layer| layer.manifest.about.clone()).unwrap_or_default(),
            evaluation: self.prompt("evaluation", |prompt| prompt.evaluation.as_ref())?,
            training: self.prompt("training", |prompt| prompt.training.as_ref())?,
            zero_shot: self.prompt("zero-shot", |prompt| prompt.zero_shot.as_ref())?,
            decoding: self.decoding()?,
            groups: self.groups(&datasets, &mut heads)?,
            datasets,
        })
    }

    fn top(&self) -> Result<&'a Layer> {
        self.0.first().ok_or_else(|| Error::internal("a suite without a manifest"))
    }

    fn first<T>(&self, of: impl Fn(&'a Manifest) -> Option<T>) -> Option<(&'a Source, T)> {
        self.0.iter().find_map(|layer| Some((&layer.source, of(&layer.manifest)?)))
    }

    fn stated<T>(&self, what: &str, of: impl Fn(&'a Manifest) -> Option<T>) -> Result<(&'a Source, T)> {
        match self.first(of) {
            Some(found) => Ok(found),
            None => Err(self.top()?.source.text.wrong(0, format!("no {what} is stated"))),
        }
    }

    fn prompt(&self, name: &str, of: fn(&PromptTable) -> Option<&Spanned<String>>) -> Result<&'static Prompt> {
        let (source, prompt) = self.stated(&format!("`{name}` prompt"), |manifest| of(&manifest.prompt))?;
        source.text.look_up(prompt, Prompt::find)
    }

    fn decoding(&self) -> Result<Decoding> {
        let (source, decode) = self.stated("`decode`", |manifest| manifest.answer.decode.as_ref())?;
        let strategy = source.text.look_up(decode, str::parse::<Strategy>)?;
        let (source, tokens) = self.stated("`max-new-tokens`", |manifest| manifest.answer.max_new_tokens.as_ref())?;
        match *tokens.get_ref() {
            0 => Err(source.text.wrong(tokens.span().start, "an answer has at least one token")),
            max_new_tokens => Ok(Decoding { strategy, max_new_tokens }),
        }
    }

    fn datasets(&self, heads: &mut HashSet<&'a str>) -> Result<Vec<SuiteDataset>> {
        let (source, tables) =
            self.stated("dataset", |manifest| Some(&manifest.dataset).filter(|tables| !tables.is_empty()))?;
        let for_all = self.first(|manifest| manifest.metric.as_ref());
        let mut datasets = Vec::new();
        let mut seen = HashSet::new();
        for DatasetTable { name, label, shift, metric } in tables {
            if !seen.insert(name.get_ref()) {
                return Err(source
                    .text
                    .wrong(name.span().start, format!("the dataset `{}` is named twice", name.get_ref())));
            }
            let row = source.text.look_up(name, find_dataset)?;
            let shift = source.text.look_up(shift, |name| find_row(SHIFTS, "shift", name, |shift| vec![shift.name]))?;
            if shift == &SHIFTS[0] && datasets.iter().any(|dataset: &SuiteDataset| dataset.shift == shift) {
                return Err(source
                    .text
                    .wrong(name.span().start, "a second dataset has no shift: only one is in distribution"));
            }
            let metric = match (metric, for_all) {
                (Some(metric), _) => source.text.look_up(metric, find_metric)?,
                (None, Some((source, metric))) => source.text.look_up(metric, find_metric)?,
                (None, None) => find_metric(row.metric)?,
            };
            let label = head(source, label.as_ref().unwrap_or(name), heads)?;
            datasets.push(SuiteDataset { row, label, shift, metric });
        }
        if datasets.iter().all(|dataset| dataset.shift != &SHIFTS[0]) {
            let first = tables.first().map_or(0, |table| table.name.span().start);
            return Err(source.text.wrong(first, "no dataset has the shift `none`, so none is in distribution"));
        }
        Ok(datasets)
    }

    fn groups(&self, datasets: &[SuiteDataset], heads: &mut HashSet<&'a str>) -> Result<Vec<Group>> {
        let found = self.first(|manifest| Some(&manifest.group).filter(|groups| !groups.is_empty()));
        let Some((source, tables)) = found else { return Ok(Vec::new()) };
        let groups = Groups { source, tables, datasets };
        let mut seen: HashSet<&str> = datasets.iter().map(|dataset| dataset.row.name).collect();
        tables
            .iter()
            .map(|table| {
                let name = table.name.get_ref();
                if !seen.insert(name) {
                    let what = format!("two datasets or groups are named `{name}`");
                    return Err(source.text.wrong(table.name.span().start, what));
                }
                let label = head(source, table.label.as_ref().unwrap_or(&table.name), heads)?;
                groups.group(table, label)
            })
            .collect()
    }
}

/// The head of a column, which no other one has.
fn head<'a>(source: &Source, label: &'a Spanned<String>, heads: &mut HashSet<&'a str>) -> Result<String> {
    if !heads.insert(label.get_ref()) {
        return Err(source
            .text
            .wrong(label.span().start, format!("two columns have the head `{}`", label.get_ref()))
            .hint("give one of them another `label`"));
    }
    Ok(label.get_ref().clone())
}

/// The groups of a manifest and the datasets that they can list.
struct Groups<'a> {
    source: &'a Source,
    tables: &'a [GroupTable],
    datasets: &'a [SuiteDataset],
}

impl<'a> Groups<'a> {
    fn group(&self, table: &'a GroupTable, label: String) -> Result<Group> {
        let mut datasets: Vec<String> = Vec::new();
        self.collect(table, &mut Vec::new(), &mut datasets)?;
        let listed = table.members.get_ref().iter().map(|member| member.get_ref().clone());
        let listed = listed.filter(|member| self.dataset(member).is_some()).collect();
        Ok(Group { name: table.name.get_ref().clone(), label, listed, datasets })
    }

    fn dataset(&self, name: &str) -> Option<&SuiteDataset> {
        self.datasets.iter().find(|dataset| dataset.row.name == name)
    }

    /// Adds the datasets of a group; `within` has the groups around it.
    fn collect(&self, table: &'a GroupTable, within: &mut Vec<&'a str>, datasets: &mut Vec<String>) -> Result<()> {
        let name = table.name.get_ref();
        if table.members.get_ref().is_empty() {
            return Err(self.source.text.wrong(table.members.span().start, format!("the group `{name}` is empty")));
        }
        within.push(name);
        for member in table.members.get_ref() {
            let wrong = |what: String| self.source.text.wrong(member.span().start, what);
            let member = member.get_ref();
            if let Some(dataset) = self.dataset(member) {
                if dataset.shift == &SHIFTS[0] {
                    return Err(wrong(format!(
                        "`{member}` is in distribution, and the group `{name}` averages shifted sets"
                    ))
                    .hint("leave it out: it has a column of its own"));
                }
                if datasets.contains(member) {
                    return Err(wrong(format!("`{member}` is in the group `{}` twice", within[0])));
                }
                datasets.push(member.clone());
                continue;
            }
            if within.contains(&member.as_str()) {
                return Err(wrong(format!("the group `{member}` contains itself")));
            }
            let group = self.tables.iter().find(|table| table.name.get_ref() == member);
            let group = group.ok_or_else(|| {
                wrong(format!("unknown member `{member}` of the group `{name}`"))
                    .hint("members are datasets and groups of the same suite")
            })?;
            self.collect(group, within, datasets)?;
        }
        within.pop();
        Ok(())
    }
}
