//! Baselines: folders with the answers of one model, small enough to be committed beside the code they guard.
//!
//! `<dataset>.results.json` has the answers in the official results format, and `baseline.json`, written last, what they
//! are answers to and what they scored. The same run gives the same bytes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::evaluation::{PlannedDataset, question_set, write_results};
use super::difference::{Accuracy, scored_by};
use super::run::{Place, Run, same_place, told};
use crate::data::{Dataset, WholeFile, results};
use crate::error::{Error, Result};
use crate::model::hex;
use crate::store::{AnswerSettings, QuestionSet};

/// The file that makes a folder a baseline.
pub(super) const HEADER: &str = "baseline.json";

/// Version of the format. It rises with a change that older programs would misread.
const FORMAT: u32 = 1;

/// What `baseline.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    format: u32,
    /// Name of the suite, where it was one.
    pub suite: Option<String>,
    /// Name of the model.
    pub model: String,
    /// What decided its answers besides the questions.
    pub settings: AnswerSettings,
    /// Each dataset.
    pub datasets: Vec<BaselineDataset>,
    #[serde(skip)]
    pub(super) questions: Vec<QuestionSet>,
}

/// A dataset of a baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineDataset {
    /// Name of the dataset.
    pub dataset: String,
    /// Number of questions.
    pub n: usize,
    /// Digest of questions and human answers.
    pub questions: String,
    /// Name of the metric.
    pub metric: String,
    /// What the answers scored by it when they were written.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// SHA-256 of the results file.
    pub results: String,
}

/// A baseline that has been written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Blessed {
    /// Its folder, as it was named.
    pub folder: String,
    /// The baseline that was there before.
    pub replaced: Option<Baseline>,
    /// The baseline that is there now.
    pub baseline: Baseline,
}

impl Baseline {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(HEADER);
        let wrong =
            |what: String| Error::input(what).hint("restore it, or remove the folder and write it anew with --bless");
        let text = fs::read_to_string(&path)
            .map_err(|cause| wrong(format!("cannot read the baseline `{}`", path.display())).caused_by(cause))?;
        // The version comes first: what follows depends on it.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let damaged = |cause| wrong(format!("the baseline `{}` is damaged", path.display())).caused_by(cause);
        let Version { format } = serde_json::from_str(&text).map_err(damaged)?;
        if format != FORMAT {
            let what =
                format!("the baseline `{}` has format {format}, this program reads format {FORMAT}", path.display());
            return Err(
                Error::input(what).hint("update the program, or remove the folder and write it anew with --bless")
            );
        }
        let mut baseline: Self = serde_json::from_str(&text).map_err(damaged)?;
        baseline.questions = baseline.datasets.iter().map(BaselineDataset::question_set).collect();
        Ok(baseline)
    }

    /// The answers to a dataset, from a results file that is as it was written.
    pub(super) fn answers(&self, folder: &Path, dataset: &Dataset) -> Result<Vec<Box<str>>> {
        let name = &dataset.name;
        let recorded = self.datasets.iter().find(|one| one.dataset == *name).ok_or_else(|| {
            Error::incomplete(format!("the baseline `{}` has no answers to `{name}`", folder.display()))
        })?;
        let path = results_file(folder, name);
        if digest(&path)? != recorded.results {
            return Err(Error::input(format!("`{}` is not as it was written", path.display()))
                .hint("restore the file: a baseline changes by `compare --bless` alone"));
        }
        results::load(&path, dataset)
    }
}

impl BaselineDataset {
    fn question_set(&self) -> QuestionSet {
        QuestionSet { dataset: self.dataset.clone(), digest: self.questions.clone(), n: self.n }
    }
}

fn results_file(folder: &Path, dataset: &str) -> PathBuf {
    folder.join(format!("{dataset}.results.json"))
}

fn digest(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|cause| {
        Error::input(format!("cannot read `{}`", path.display())).caused_by(cause).hint("restore it")
    })?;
    Ok(hex(&Sha256::digest(bytes)))
}

/// Makes a run the baseline in a folder: a new one, an empty one, or one that holds a baseline, which is replaced.
///
/// # Errors
/// A folder that holds something else; a run that has no answers to the questions at hand; a failed write. What was there
/// stays until all answers have been read and scored.
pub fn bless(folder: &Path, suite: Option<&str>, run: &Run, planned: &[PlannedDataset]) -> Result<Blessed> {
    let replaced = replaceable(folder)?;
    if let Place::Baseline(own, _) = &run.place
        && same_place(own, folder)
    {
        return Err(
            Error::input(format!("`{}` is the baseline itself", run.source)).hint("give another run as --current")
        );
    }
    let mut datasets = Vec::new();
    for one in planned {
        run.asked(&one.dataset).map_err(|asked| not_asked(run, &one.dataset, &asked))?;
        let answers = run.answers(&one.dataset)?;
        datasets.push((one, scored_by(one, &answers)?, answers));
    }
    fs::create_dir_all(folder)
        .map_err(|cause| Error::input(format!("cannot create the folder `{}`", folder.display())).caused_by(cause))?;
    let mut written = Vec::new();
    for (PlannedDataset { dataset, metric, .. }, accuracy, answers) in datasets {
        write_results(folder, dataset, &answers.iter().map(|answer| &**answer).collect::<Vec<_>>())?;
        let QuestionSet { dataset: name, digest: questions, n } = question_set(dataset);
        let results = digest(&results_file(folder, &name))?;
        written.push(BaselineDataset {
            dataset: name,
            n,
            questions,
            metric: metric.name.to_owned(),
            accuracy,
            results,
        });
    }
    let (model, settings) = (run.model.clone(), run.settings.clone());
    let suite = suite.map(str::to_owned);
    let baseline = Baseline { format: FORMAT, suite, model, settings, datasets: written, questions: Vec::new() };
    write_header(&folder.join(HEADER), &baseline)?;
    remove_left_over(folder, replaced.as_ref(), &baseline)?;
    Ok(Blessed { folder: folder.display().to_string(), replaced, baseline })
}

fn not_asked(run: &Run, dataset: &Dataset, asked: &str) -> Error {
    let (source, name, at_hand) = (&run.source, &dataset.name, told(&question_set(dataset)));
    Error::incomplete(format!(
        "`{source}` cannot become a baseline: questions of `{name}`: {asked} there, {at_hand} here"
    ))
    .hint("evaluate the model on the questions as they are here, or give --limit N as it was given then")
}

/// The baseline in a folder that can be written to.
fn replaceable(folder: &Path) -> Result<Option<Baseline>> {
    if folder.join(HEADER).is_file() {
        return Baseline::read(folder).map(Some).map_err(|error| {
            error.hint("restore it, update the program, or remove the folder and write the baseline anew with --bless")
        });
    }
    let empty = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !folder.exists(),
    };
    match empty {
        true => Ok(None),
        false => Err(Error::input(format!("`{}` is no baseline, and not empty", folder.display()))
            .hint("give --bless a --baseline of its own: a folder that holds one, or a new one")),
    }
}

fn write_header(path: &Path, baseline: &Baseline) -> Result<()> {
    let text = serde_json::to_string_pretty(baseline)
        .map_err(|cause| Error::internal("cannot write a baseline as JSON").caused_by(cause))?;
    let write = || {
        let mut file = WholeFile::create(path)?;
        file.write_all((text + "\n").as_bytes())?;
        file.finish()
    };
    write().map_err(|cause| Error::input(format!("cannot write `{}`", path.display())).caused_by(cause))
}

/// Removes the results of datasets that the baseline had before and has no more.
fn remove_left_over(folder: &Path, replaced: Option<&Baseline>, now: &Baseline) -> Result<()> {
    let names = |baseline: &Baseline| -> BTreeSet<String> {
        baseline.datasets.iter().map(|dataset| dataset.dataset.clone()).collect()
    };
    for name in replaced.map(names).unwrap_or_default().difference(&names(now)) {
        let path = results_file(folder, name);
        // A name is one of a file here, whatever the old baseline says.
        if !name.contains('/') && path.is_file() {
            fs::remove_file(&path)
                .map_err(|cause| Error::input(format!("cannot remove `{}`", path.display())).caused_by(cause))?;
        }
    }
    Ok(())
}
