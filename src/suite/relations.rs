//! How shift goes with accuracy over datasets, and how distances go with each other and with wrong answers over questions.

use super::distances::{MODALITIES, Modality};
use super::stored::{StoredDataset, StoredRun};
use crate::stats::{
    COEFFICIENTS, ClusteredCorrelation, Correlation, Discrimination, Estimate, Histogram, Line, Resampling,
    clustered_mean, discrimination, histogram, holm, least_squares,
};
use crate::store::Distances;

/// Below this score an answer counts as wrong.
const WRONG_BELOW: f64 = 0.5;

/// Draws of clusters for the intervals of correlations.
const RESAMPLING: Resampling = Resampling { replicates: 1_000, seed: 42 };

/// How accuracy goes with the shift of one modality over the datasets of a suite.
#[derive(Debug, Clone)]
pub struct ShiftAndAccuracy {
    /// Name of the modality.
    pub modality: &'static str,
    /// The datasets with both, by position in the suite: mean distance and accuracy in percent.
    pub points: Vec<(usize, f64, f64)>,
    /// Of distance and accuracy, coefficient by coefficient of [`COEFFICIENTS`]: negative where accuracy falls as the shift
    /// grows.
    pub coefficients: Vec<Option<Correlation>>,
    /// Accuracy by distance.
    pub line: Option<Line>,
}

impl ShiftAndAccuracy {
    /// Pearson's coefficient.
    pub fn pearson(&self) -> Option<Correlation> {
        let place = COEFFICIENTS.iter().position(|row| row.name == PEARSON)?;
        *self.coefficients.get(place)?
    }
}

/// Name of the coefficient that figures tell.
const PEARSON: &str = "pearson";

/// How distances go with each other and with wrong answers over the questions of one dataset.
#[derive(Debug, Clone)]
pub struct DistanceRelations {
    /// Position of the dataset in the suite.
    pub position: usize,
    /// The mean distance of each modality, in the order of [`MODALITIES`].
    pub shifts: Vec<Option<Estimate>>,
    /// Pearson's coefficient of the distances of image and joint (Fig. 6b of the paper).
    pub vision_joint: Option<ClusteredCorrelation>,
    /// Pearson's coefficient of the distances of question and joint (Fig. 6a of the paper).
    pub question_joint: Option<ClusteredCorrelation>,
    /// How well the distance of each modality tells wrong answers, those of less than half the score, from others.
    pub wrong_answers: Vec<Option<Discrimination>>,
}

/// P-values of Pearson's coefficients, adjusted for all of these by Holm's method; none where there is no coefficient.
pub fn adjusted_p_values(relations: &[&ShiftAndAccuracy]) -> Vec<Option<f64>> {
    let p_value = |one: &&ShiftAndAccuracy| one.pearson().map(|pearson| pearson.p_value);
    let raw: Vec<Option<f64>> = relations.iter().map(p_value).collect();
    let known: Vec<f64> = raw.iter().flatten().copied().collect();
    let mut adjusted = holm(&known).unwrap_or_default().into_iter();
    raw.iter().map(|raw| raw.and_then(|_| adjusted.next())).collect()
}

/// How the distances of one modality are spread.
#[derive(Debug, Clone)]
pub struct DistanceSpread {
    /// Those of training questions, where they are known.
    pub training: Option<Histogram>,
    /// Those of each dataset, by position in the suite.
    pub datasets: Vec<(usize, Histogram)>,
}

/// Bins of a histogram.
const BINS: usize = 50;

/// How the distances of a run are spread in one modality.
pub fn distance_spread(run: &StoredRun, modality: &Modality) -> DistanceSpread {
    let spread = |distances: &[Distances]| {
        histogram(&distances.iter().filter_map(modality.distance).collect::<Vec<f64>>(), BINS)
    };
    let datasets = run.datasets.iter();
    DistanceSpread {
        training: spread(&run.reference),
        datasets: datasets.filter_map(|dataset| Some((dataset.position, spread(&dataset.distances)?))).collect(),
    }
}

/// Accuracy by shift, modality by modality, over the datasets of a run that have both.
pub fn shift_and_accuracy(run: &StoredRun) -> Vec<ShiftAndAccuracy> {
    let of_modality = |modality: &'static Modality| {
        let point = |dataset: &StoredDataset| {
            let accuracy = dataset.summary.as_ref()?.accuracy?;
            Some((dataset.position, mean_distance(dataset, modality)?.mean, accuracy))
        };
        let points: Vec<(usize, f64, f64)> = run.datasets.iter().filter_map(point).collect();
        let (shifts, accuracies): (Vec<f64>, Vec<f64>) = points.iter().map(|(_, x, y)| (*x, *y)).unzip();
        let coefficients = COEFFICIENTS.iter().map(|row| (row.correlate)(&shifts, &accuracies)).collect();
        let line = least_squares(&shifts, &accuracies);
        (!points.is_empty()).then_some(ShiftAndAccuracy { modality: modality.name, points, coefficients, line })
    };
    MODALITIES.iter().filter_map(of_modality).collect()
}

/// The relations within each dataset of a run whose distances were measured.
pub fn distance_relations(run: &StoredRun) -> Vec<DistanceRelations> {
    let measured = run.datasets.iter().filter(|dataset| !dataset.distances.is_empty());
    measured.map(relations_within).collect()
}

fn relations_within(dataset: &StoredDataset) -> DistanceRelations {
    DistanceRelations {
        position: dataset.position,
        shifts: MODALITIES.iter().map(|modality| mean_distance(dataset, modality)).collect(),
        vision_joint: with_joint(dataset, |distances| distances.vision),
        question_joint: with_joint(dataset, |distances| distances.question),
        wrong_answers: MODALITIES.iter().map(|modality| wrong_answers(dataset, modality)).collect(),
    }
}

/// Pearson's coefficient of a distance with the joint one.
fn with_joint(dataset: &StoredDataset, distance: fn(&Distances) -> Option<f64>) -> Option<ClusteredCorrelation> {
    let measured = dataset.distances.iter().zip(&dataset.clusters);
    let pairs: Vec<(f64, f64, u32)> =
        measured.filter_map(|(one, cluster)| Some((distance(one)?, one.joint?, *cluster))).collect();
    let clusters: Vec<u32> = pairs.iter().map(|pair| pair.2).collect();
    let (first, second): (Vec<f64>, Vec<f64>) = pairs.into_iter().map(|pair| (pair.0, pair.1)).unzip();
    let row = COEFFICIENTS.iter().find(|row| row.name == PEARSON)?;
    row.clustered(&first, &second, &clusters, RESAMPLING)
}

pub(super) fn mean_distance(dataset: &StoredDataset, modality: &Modality) -> Option<Estimate> {
    let (values, clusters) = modality.measured(&dataset.distances, &dataset.clusters);
    clustered_mean(&values, &clusters)
}

fn wrong_answers(dataset: &StoredDataset, modality: &Modality) -> Option<Discrimination> {
    let scored = dataset.distances.iter().zip(&dataset.scores).zip(&dataset.clusters);
    let scored = scored.filter_map(|((one, score), cluster)| {
        let distance = (modality.distance)(one)?;
        Some((distance, (*score < WRONG_BELOW, *cluster)))
    });
    let (values, rest): (Vec<f64>, Vec<(bool, u32)>) = scored.unzip();
    let (wrong, clusters): (Vec<bool>, Vec<u32>) = rest.into_iter().unzip();
    discrimination(&values, &wrong, &clusters)
}
