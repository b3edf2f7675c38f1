//! The samples of every dataset with what each model said about them: what a page or a log shows one by one.

use super::distances::MODALITIES;
use super::evaluation::{Answers, PlannedDataset};
use super::leaderboard::Leaderboard;
use super::manifest::{Shift, Suite, SuiteDataset};
use super::stored::{StoredDataset, StoredRun};
use crate::data::Dataset;
use crate::stats::{Estimate, clustered_mean};
use crate::store::Distances;

/// Samples of several datasets.
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    /// The models, in the order of the leaderboard.
    pub models: Vec<SampledModel<'a>>,
    /// In the order of the suite; datasets without results are left out.
    pub sets: Vec<SampleSet<'a>>,
    /// Only so many questions of each dataset, the first ones; none where all are.
    pub limit: Option<usize>,
}

/// A model, or one of the runs of an entry of a leaderboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampledModel<'a> {
    /// Name in reports.
    pub name: &'a str,
    /// Whether it was evaluated as one that was not fine-tuned.
    pub zero_shot: bool,
}

/// A dataset with what each model made of it.
#[derive(Debug, Clone)]
pub struct SampleSet<'a> {
    /// The questions, human answers and images.
    pub dataset: &'a Dataset,
    /// Name in tables.
    pub label: &'a str,
    /// How it has shifted.
    pub shift: &'static Shift,
    /// Name of the metric of its scores.
    pub metric: &'a str,
    /// What is known of models.
    pub results: Vec<SampledResults<'a>>,
}

/// What is known of a model on a dataset. Lists are as long as the questions, or empty where nothing is known.
#[derive(Debug, Clone)]
pub struct SampledResults<'a> {
    /// Position of the model in [`Samples::models`].
    pub model: usize,
    /// What it said.
    pub answers: Vec<&'a str>,
    /// Scores from 0 to 1.
    pub scores: &'a [f64],
    /// Distances from the reference.
    pub distances: &'a [Distances],
    /// How far the dataset has shifted in each of [`MODALITIES`]: the mean of the distances.
    pub shifts: Vec<Option<Estimate>>,
}

impl<'a> SampledResults<'a> {
    /// What is known of the model at this position; `clusters` are those of the questions.
    pub fn new(
        model: usize,
        answers: Vec<&'a str>,
        scores: &'a [f64],
        distances: &'a [Distances],
        clusters: &[u32],
    ) -> Self {
        let shifts = MODALITIES.iter().map(|modality| {
            let (values, clusters) = modality.measured(distances, clusters);
            clustered_mean(&values, &clusters)
        });
        Self { model, answers, scores, distances, shifts: shifts.collect() }
    }
}

/// The samples of a suite's datasets with the results of the runs that are in a leaderboard of theirs, under the labels that
/// they have there.
pub fn samples<'a>(
    suite: &'a Suite,
    datasets: &'a [PlannedDataset],
    runs: &'a [StoredRun],
    board: &'a Leaderboard,
) -> Samples<'a> {
    let entries = || board.entries.iter().flat_map(|entry| entry.runs.iter().map(move |run| (entry, run)));
    let models = entries().map(|(entry, run)| SampledModel { name: &run.label, zero_shot: entry.zero_shot });
    let shown: Vec<&StoredRun> = entries().map(|(_, run)| &runs[run.stored]).collect();
    let set = |(position, (planned, known)): (usize, (&'a PlannedDataset, &'a SuiteDataset))| {
        let results = shown.iter().enumerate().filter_map(|(model, run)| results_at(model, run, position));
        let results: Vec<SampledResults> = results.collect();
        let (dataset, label, shift, metric) = (&planned.dataset, &known.label, known.shift, planned.metric.name);
        (!results.is_empty()).then_some(SampleSet { dataset, label, shift, metric, results })
    };
    let sets = datasets.iter().zip(&suite.datasets).enumerate();
    Samples { models: models.collect(), sets: sets.filter_map(set).collect(), limit: board.limit }
}

fn results_at<'a>(model: usize, run: &'a StoredRun, position: usize) -> Option<SampledResults<'a>> {
    let stored: &StoredDataset = run.datasets.iter().find(|dataset| dataset.position == position)?;
    let answers = stored.answers.as_ref().map(Answers::texts).unwrap_or_default();
    Some(SampledResults::new(model, answers, &stored.scores, &stored.distances, &stored.clusters))
}
