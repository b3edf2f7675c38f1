//! What a store holds about the datasets of a suite, scored anew: no model is needed.

use super::distances::{distances, name_of_reference};
use super::evaluation::{Answers, PlannedDataset, question_set};
use super::subject::question_digest;
use crate::data::Dataset;
use crate::error::{Error, Kind, Result};
use crate::score::{ScoreOptions, Summary, score, summarise};
use crate::store::{AnswerSettings, DistanceSettings, Distances, QuestionSet, SettingsId, Store, StoredModel};

/// Everything that is stored about one model.
pub struct StoredRun {
    /// The model.
    pub model: StoredModel,
    /// What decided its answers, where there are answers.
    pub answer_settings: Option<AnswerSettings>,
    /// What its distances were measured with, where they were.
    pub settings: Option<DistanceSettings>,
    /// Distances of questions of the reference itself; empty where they were not measured.
    pub reference: Vec<Distances>,
    /// In the order of the suite; those that it has results of.
    pub datasets: Vec<StoredDataset>,
    /// Why results are not among them, answers or distances: they are of other questions than those of the dataset, or of
    /// some of them only.
    pub left_out: Vec<Error>,
}

impl StoredRun {
    /// This run, if none of its datasets is left out.
    ///
    /// # Errors
    /// Why the first one is.
    pub fn complete(mut self) -> Result<Self> {
        if self.left_out.is_empty() {
            return Ok(self);
        }
        Err(self.left_out.swap_remove(0).within(format!("the results of `{}` cannot be shown", self.model.name)))
    }
}

/// What is stored about a model on one dataset.
pub struct StoredDataset {
    /// Position in the suite.
    pub position: usize,
    /// Digest of its questions.
    pub questions: String,
    /// What the model said to each question; none where it was not asked.
    pub answers: Option<Answers>,
    /// Accuracy, where there are answers.
    pub summary: Option<Summary>,
    /// Score of each answer, from 0 to 1; empty where there are none.
    pub scores: Vec<f64>,
    /// Distances of each question; empty where they were not measured.
    pub distances: Vec<Distances>,
    /// Number of what each question stands and falls with ([`Dataset::clusters`]).
    pub clusters: Vec<u32>,
}

/// What a store holds about these datasets, model by model; those that were not fine-tuned first.
///
/// # Errors
/// The store cannot be read.
pub fn stored_runs(store: &Store, datasets: &[PlannedDataset]) -> Result<Vec<StoredRun>> {
    let mut models = store.models()?;
    models.sort_by_key(|model| !model.zero_shot);
    let mut runs = Vec::new();
    for model in models {
        let run = stored_run(store, &model, datasets)?;
        if !run.datasets.is_empty() || !run.left_out.is_empty() {
            runs.push(run);
        }
    }
    Ok(runs)
}

fn stored_run(store: &Store, model: &StoredModel, datasets: &[PlannedDataset]) -> Result<StoredRun> {
    let answer_settings = model.answers.map(|id| store.settings_of_answers(id)).transpose()?;
    let settings = model.distances.map(|id| store.settings_of_distances(id)).transpose()?;
    let reference = match (model.distances, &settings) {
        (Some(id), Some(settings)) => store.all_distances(id, &name_of_reference(&settings.reference.dataset))?,
        _ => Vec::new(),
    };
    let (mut stored, mut left_out) = (Vec::new(), Vec::new());
    for (position, planned) in datasets.iter().enumerate() {
        stored.extend(stored_dataset(store, model, (position, planned), &mut left_out)?);
    }
    Ok(StoredRun { model: model.clone(), answer_settings, settings, reference, datasets: stored, left_out })
}

fn stored_dataset(
    store: &Store,
    model: &StoredModel,
    (position, planned): (usize, &PlannedDataset),
    left_out: &mut Vec<Error>,
) -> Result<Option<StoredDataset>> {
    let dataset = &planned.dataset;
    let name = dataset.name.as_str();
    let answered = |id| Ok::<_, Error>(store.has_answers(id, name)?.then_some(id));
    let measured = |id| Ok::<_, Error>(store.has_distances(id, name)?.then_some(id));
    let answers = model.answers.map(answered).transpose()?.flatten();
    let measured = model.distances.map(measured).transpose()?.flatten();
    let answers = answers.map(|id| or_left_out(stored_answers(store, id, dataset), left_out)).transpose()?.flatten();
    let measured = measured.map(|id| or_left_out(distances(store, id, dataset), left_out)).transpose()?.flatten();
    if answers.is_none() && measured.is_none() {
        return Ok(None);
    }
    let (summary, scores) = match &answers {
        Some(answers) => scored(planned, answers)?,
        None => (None, Vec::new()),
    };
    let (questions, clusters) = (question_digest(dataset), dataset.clusters());
    let distances = measured.unwrap_or_default();
    Ok(Some(StoredDataset { position, questions, answers, summary, scores, distances, clusters }))
}

/// What was found, or none where it is not complete, for the reason that is kept.
fn or_left_out<T>(found: Result<T>, left_out: &mut Vec<Error>) -> Result<Option<T>> {
    match found {
        Err(error) if error.kind() == Kind::Incomplete => {
            left_out.push(error);
            Ok(None)
        }
        found => found.map(Some),
    }
}

/// The answers to these questions.
///
/// # Errors
/// The store cannot be read; others than these questions were asked, or some have no answer.
pub(super) fn stored_answers(store: &Store, id: SettingsId, dataset: &Dataset) -> Result<Answers> {
    let asked = question_set(dataset);
    if !store.question_sets(id)?.contains(&asked) {
        let QuestionSet { dataset, n, .. } = asked;
        return Err(Error::incomplete(format!("the answers were not given to these {n} questions of `{dataset}`")).hint(
            "`digrap-bench vqa` with the questions as they are now asks what has changed; with answers to the first N alone, give --limit N",
        ));
    }
    Answers::collect(store, id, dataset)
}

fn scored(planned: &PlannedDataset, answers: &Answers) -> Result<(Option<Summary>, Vec<f64>)> {
    let PlannedDataset { dataset: Dataset { references: Some(references), .. }, metric, .. } = planned else {
        return Ok((None, Vec::new()));
    };
    let scores = score(metric, ScoreOptions::default(), &answers.texts(), references)?;
    let summary = summarise(metric, &scores, references, &planned.dataset.clusters())?;
    Ok((Some(summary), scores))
}
