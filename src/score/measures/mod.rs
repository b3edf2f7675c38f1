//! What datasets measure beside accuracy: each made to show one weakness, each with a figure of its own for it.
//!
//! A measure reads answers, scores and how questions belong together; where these come from is not its concern.

mod consensus;
mod flips;
mod parts;
mod unanswerability;

use serde::{Deserialize, Serialize};

use super::References;
use super::summary::{Group, group};
use crate::error::{Error, Result, find_row};

pub use unanswerability::{average_precision, f1};

/// One native measure of a dataset. Adding a measure is adding a row to [`MEASURES`].
#[derive(Debug)]
pub struct Measure {
    /// Name in rows of datasets and in results.
    pub name: &'static str,
    /// One sentence for `list measures`.
    pub about: &'static str,
    /// The evaluator or paper that defines it.
    pub source: &'static str,
    /// What it needs beside answers, scores and references.
    pub needs: Needs,
    figures: fn(&Evidence) -> Result<Vec<Figure>>,
}

/// What a measure needs beside the answers, scores and references of the questions it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The `parts` of [`Evidence`].
    Parts,
    /// The `parts` of [`Evidence`] of the questions of the original dataset, and the answers to these in place of its own.
    PartsOfOriginals,
    /// The `groups` of [`Evidence`].
    Groups,
    /// The `originals` of [`Evidence`].
    Originals,
}

/// Every measure.
pub static MEASURES: &[Measure] = &[
    Measure {
        name: "flips",
        about: "answers that change with an edit of the image that should change none, by what was right before and after",
        source: "AgarwalVedika/CausalVQA, flip_accuracy_cal_iv_vqa.ipynb",
        needs: Needs::Originals,
        figures: flips::flips,
    },
    Measure {
        name: "count-flips",
        about: "counts that do not fall by one where one counted thing is taken out of the image",
        source: "AgarwalVedika/CausalVQA, flip_accuracy_cal_cv_vqa.ipynb",
        needs: Needs::Originals,
        figures: flips::count_flips,
    },
    Measure {
        name: "consensus",
        about: "CS(k): share of k-subsets of a question and its three rephrasings whose members are all answered",
        source: "Shah et al. 2019, Cycle-Consistency for Robust Visual Question Answering, equation 3",
        needs: Needs::Groups,
        figures: consensus::consensus,
    },
    Measure {
        name: "shortcuts",
        about: "accuracy where mined shortcuts mislead (counterexamples), where they help (easy), where none fires (hard)",
        source: "cdancette/detect-shortcuts; Dancette et al. 2021, Beyond Question-Based Biases",
        needs: Needs::PartsOfOriginals,
        figures: parts::accuracies,
    },
    Measure {
        name: "seen-images",
        about: "accuracy by the split of the image: those of train2014 are in VQAv2's training set",
        source: "Agrawal et al. 2018, Don't Just Assume; Look and Answer (the field `coco_split` of its files)",
        needs: Needs::Parts,
        figures: parts::accuracies,
    },
    Measure {
        name: "unanswerability",
        about: "average precision and F1 of the answer `unanswerable` for questions that cannot be answered",
        source: "VizWiz API, vqaEvaluation/vqaEval.py (vizwiz.org)",
        needs: Needs::Parts,
        figures: unanswerability::unanswerability,
    },
];

/// The measure with this name.
///
/// # Errors
/// An unknown name; the hint lists all.
pub fn find_measure(name: &str) -> Result<&'static Measure> {
    find_row(MEASURES, "measure", name, |measure| vec![measure.name])
}

/// What measures are computed from; all lists but those of [`Originals`] have one entry per question.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Predicted answers.
    pub answers: &'a [&'a str],
    /// Accuracy of each answer, 0 to 1.
    pub scores: &'a [f64],
    /// Human answers.
    pub references: &'a References,
    /// Number of what each question stands and falls with, such as its image; any numbering will do.
    pub clusters: &'a [u32],
    /// The part that each question belongs to.
    pub parts: Option<Parts<'a>>,
    /// The group that each question belongs to.
    pub groups: Option<Groups<'a>>,
    /// The original of each question.
    pub originals: Option<Originals<'a>>,
}

/// Parts that questions fall into.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The part of each question, as a position in `names`.
    pub of: &'a [u32],
    /// Names of the parts.
    pub names: &'a [Box<str>],
}

/// Groups of one original question and its variants.
#[derive(Debug, Clone, Copy)]
pub struct Groups<'a> {
    /// The number of each question's group; any numbering will do.
    pub of: &'a [u32],
    /// Whether the question is the original of its group.
    pub original: &'a [bool],
}

/// The questions that others were made from.
#[derive(Debug, Clone, Copy)]
pub struct Originals<'a> {
    /// For each question the position of its original in the lists below.
    pub of: &'a [usize],
    /// Answers to the originals by the same model.
    pub answers: &'a [&'a str],
    /// Human answers to the originals.
    pub references: &'a References,
    /// Number of each original's image; any numbering will do.
    pub clusters: &'a [u32],
}

/// One figure of a measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// Number of questions, or of groups of questions, that it is about.
    pub n: usize,
    /// Percent, unrounded; none for no questions.
    pub value: Option<f64>,
    /// 95 % interval of `value` over clusters, within 0 to 100; none with fewer than two of them, and for what is no
    /// mean over questions.
    pub interval: Option<[f64; 2]>,
}

/// What came of a measure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Name of the measure.
    pub measure: &'static str,
    /// What it needs that was not there; then it has no figures.
    pub missing: Option<String>,
    /// Its figures.
    pub figures: Vec<Figure>,
}

impl Figure {
    /// The mean of values from 0 to 1.
    fn mean(name: impl Into<String>, values: &[f64], clusters: &[u32]) -> Self {
        let everything: Vec<usize> = (0..values.len()).collect();
        Self::named(name, group(values, clusters, &everything).0)
    }

    /// The share of what holds.
    fn share(name: impl Into<String>, holds: impl Iterator<Item = bool>, clusters: &[u32]) -> Self {
        let values: Vec<f64> = holds.map(|holds| f64::from(u8::from(holds))).collect();
        Self::mean(name, &values, clusters)
    }

    fn named(name: impl Into<String>, Group { n, accuracy, interval }: Group) -> Self {
        Self { name: name.into(), n, value: accuracy, interval }
    }
}

impl Measure {
    /// The figures of this measure.
    ///
    /// # Errors
    /// Evidence that lacks what the measure needs, or whose lists have different lengths.
    pub fn figures(&self, evidence: &Evidence) -> Result<Vec<Figure>> {
        evidence.check()?;
        (self.figures)(evidence)
    }

    /// The outcome with what is missing instead of figures.
    pub fn lacks(&self, missing: impl Into<String>) -> Measurement {
        Measurement { measure: self.name, missing: Some(missing.into()), figures: Vec::new() }
    }

    /// The outcome with its figures.
    ///
    /// # Errors
    /// As [`figures`](Self::figures).
    pub fn measurement(&self, evidence: &Evidence) -> Result<Measurement> {
        Ok(Measurement { measure: self.name, missing: None, figures: self.figures(evidence)? })
    }
}

impl<'a> Evidence<'a> {
    fn check(&self) -> Result<()> {
        let n = self.answers.len();
        let mut lengths = vec![self.scores.len(), self.references.len(), self.clusters.len()];
        lengths.extend(self.parts.map(|parts| parts.of.len()));
        lengths.extend(self.groups.iter().flat_map(|groups| [groups.of.len(), groups.original.len()]));
        lengths.extend(self.originals.map(|originals| originals.of.len()));
        let originals_fit = self.originals.is_none_or(|originals| {
            let count = originals.answers.len();
            let fits = originals.references.len() == count && originals.clusters.len() == count;
            fits && originals.of.iter().all(|original| *original < count)
        });
        if originals_fit && lengths.iter().all(|length| *length == n) {
            return Ok(());
        }
        Err(Error::internal(format!("a measure of {n} answers was given lists of {lengths:?}")))
    }

    fn parts(&self) -> Result<Parts<'a>> {
        self.parts.ok_or_else(|| lacking("parts"))
    }

    fn groups(&self) -> Result<Groups<'a>> {
        self.groups.ok_or_else(|| lacking("groups"))
    }

    fn originals(&self) -> Result<Originals<'a>> {
        self.originals.ok_or_else(|| lacking("originals"))
    }
}

fn lacking(what: &str) -> Error {
    Error::internal(format!("a measure was given no {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for row in MEASURES {
            assert_eq!(find_measure(row.name).unwrap().about, row.about);
        }
        assert_eq!(
            find_measure("flip").unwrap_err().next_step().unwrap().split('?').next(),
            Some("did you mean `flips`")
        );
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        let references = References::default();
        let evidence = Evidence {
            answers: &["x"],
            scores: &[1.0],
            references: &references,
            clusters: &[0],
            parts: None,
            groups: None,
            originals: None,
        };
        for measure in MEASURES {
            let error = measure.figures(&evidence).unwrap_err();
            assert_eq!(error.to_string(), "a measure of 1 answers was given lists of [1, 0, 1]");
        }
    }
}
