//! The samples of every dataset with what each model said about them: what a page or a log shows one by one.

use super::distances::MODALITIES;
use super::evaluation::{Answers, PlannedDataset};
use super::manifest::{Shift, Suite};
use super::stored::{StoredDataset, StoredRun};
use crate::data::Dataset;
use crate::stats::{Estimate, clustered_mean};
use crate::store::Distances;

/// Samples of several datasets.
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    /// The models that any of the datasets has results of.
    pub models: Vec<SampledModel<'a>>,
    /// In the order of the suite; datasets without results are left out.
    pub sets: Vec<SampleSet<'a>>,
}

/// A model that has answered or was measured.
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
    /// How it has shifted, where a suite says so.
    pub shift: Option<&'static Shift>,
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
    /// What is known of the model at this position; `clusters` numbers the images of the questions.
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

/// The samples of these datasets with the results of these runs. Labels and shifts are those of the suite, whose datasets
/// these are; without one a dataset's label is its name.
pub fn samples<'a>(runs: &'a [StoredRun], datasets: &'a [PlannedDataset], suite: Option<&'a Suite>) -> Samples<'a> {
    let models = runs.iter().map(|run| SampledModel { name: &run.model.name, zero_shot: run.model.zero_shot });
    let set = |(position, planned): (usize, &'a PlannedDataset)| {
        let results: Vec<SampledResults> = runs.iter().enumerate().filter_map(|at| results_at(at, position)).collect();
        let known = suite.and_then(|suite| suite.datasets.get(position));
        (!results.is_empty()).then(|| SampleSet {
            dataset: &planned.dataset,
            label: known.map_or(&planned.dataset.name, |dataset| &dataset.label),
            shift: known.map(|dataset| dataset.shift),
            metric: planned.metric.name,
            results,
        })
    };
    Samples { models: models.collect(), sets: datasets.iter().enumerate().filter_map(set).collect() }
}

fn results_at<'a>((model, run): (usize, &'a StoredRun), position: usize) -> Option<SampledResults<'a>> {
    let stored: &StoredDataset = run.datasets.iter().find(|dataset| dataset.position == position)?;
    let answers = stored.answers.as_ref().map(Answers::texts).unwrap_or_default();
    Some(SampledResults::new(model, answers, &stored.scores, &stored.distances, &stored.clusters))
}
