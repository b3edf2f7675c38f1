//! What a store holds, model by model and run by run: names, settings and counts, no scores.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::error::Result;
use crate::store::{AnswerSettings, DistanceSettings, Maker, SettingsId, Store, StoredModel};

/// What a store holds.
#[derive(Debug, Clone, Serialize)]
pub struct StoreListing {
    /// The evaluated models; answers that no model has come last, without a name: those of a run that was stopped before its
    /// end, and those that a model of the same name has given under other settings before.
    pub models: Vec<ListedModel>,
    /// Training runs, in the order in which they began.
    pub training_runs: Vec<ListedTraining>,
}

/// What is stored about one model.
#[derive(Debug, Clone, Serialize)]
pub struct ListedModel {
    /// Name in reports; none of answers that no model has.
    pub name: Option<String>,
    /// The number of its answers in the store, if there are answers. Those that no model has are named by it.
    pub answers: Option<i64>,
    /// Digest of the weights and of what says how they are used.
    pub weights: String,
    /// Whether it was evaluated as one that was not fine-tuned.
    pub zero_shot: bool,
    /// Whether a reported set selected its weights.
    pub selected_on_reported: bool,
    /// The method that trained it, if a run of this program did.
    pub method: Option<String>,
    /// The seed of that run.
    pub seed: Option<u64>,
    /// What made its last results.
    pub made_by: Option<Maker>,
    /// What decided its answers, if there are answers.
    pub settings: Option<AnswerSettings>,
    /// What its distances were measured with, if they were.
    pub distances: Option<DistanceSettings>,
    /// Datasets with answers or distances, by name.
    pub datasets: Vec<ListedDataset>,
}

/// What is stored about one model on one dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ListedDataset {
    /// Name of the dataset.
    pub dataset: String,
    /// Questions with an answer.
    pub answers: usize,
    /// Questions that were asked, those of the largest set where several were; none where an older program has asked.
    pub n: Option<usize>,
    /// Digest of these questions.
    pub digest: Option<String>,
    /// Sets of that size, which hold different questions.
    pub sets: usize,
    /// Questions with distances.
    pub distances: usize,
}

/// Whether what was asked is answered, as far as counting tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerState {
    /// There are as many answers as questions.
    Complete,
    /// Questions have no answer.
    Incomplete,
    /// An older program has asked, and has not told how many questions.
    Unknown,
    /// Different sets of one size were asked, such as a dataset before and after a change.
    SeveralSets,
    /// There are more answers than questions, so that some are to others.
    MoreAnswers,
}

impl AnswerState {
    /// The state in words.
    pub fn told(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Unknown => "unknown",
            Self::SeveralSets => "several sets",
            Self::MoreAnswers => "more answers than questions",
        }
    }
}

impl ListedDataset {
    /// Whether every question that was asked has an answer; none where nothing was asked.
    pub fn state(&self) -> Option<AnswerState> {
        let Some(n) = self.n else { return (self.answers > 0).then_some(AnswerState::Unknown) };
        Some(match self.answers {
            answers if answers < n => AnswerState::Incomplete,
            _ if self.sets > 1 => AnswerState::SeveralSets,
            answers if answers > n => AnswerState::MoreAnswers,
            _ => AnswerState::Complete,
        })
    }
}

/// A training run.
#[derive(Debug, Clone, Serialize)]
pub struct ListedTraining {
    /// Its number in the store.
    pub number: i64,
    /// Name of the method.
    pub method: Option<String>,
    /// The seed.
    pub seed: Option<u64>,
    /// Steps that it was to take.
    pub planned_steps: Option<u64>,
    /// Steps whose numbers are stored.
    pub steps: u64,
    /// The loss at the last of these that has one.
    pub last_loss: Option<f64>,
    /// The last accuracy on the questions that select its checkpoint, in percent.
    pub last_validation: Option<f64>,
    /// What decides its result.
    pub settings: Value,
}

/// Lists what a store holds.
///
/// # Errors
/// The store cannot be read.
pub fn stored_listing(store: &Store) -> Result<StoreListing> {
    let named = store.models()?;
    let mut models = named.iter().map(|model| listed_model(store, model)).collect::<Result<Vec<_>>>()?;
    for id in store.all_settings()? {
        let unnamed = named.iter().all(|model| model.answers != Some(id));
        let datasets = listed_datasets(store, Some(id), None)?;
        if unnamed && !datasets.is_empty() {
            let settings = store.settings_of_answers(id)?;
            models.push(ListedModel {
                name: None,
                answers: Some(id.number()),
                weights: format!("{} {}", settings.weights, settings.configuration),
                zero_shot: false,
                selected_on_reported: false,
                method: None,
                seed: None,
                made_by: None,
                settings: Some(settings),
                distances: None,
                datasets,
            });
        }
    }
    let runs = store.training_runs()?;
    let training_runs = runs.into_iter().map(|(run, json)| {
        let settings: Value = serde_json::from_str(&json).unwrap_or(Value::String(json));
        let last = |series: &str| Ok::<_, crate::error::Error>(store.curve(run, series)?.last().copied());
        let loss = last("loss")?;
        let validation = last("validation")?;
        Ok(ListedTraining {
            number: run.number(),
            method: settings["method"].as_str().map(str::to_owned),
            seed: settings["subject"]["seed"].as_u64(),
            planned_steps: settings["steps"].as_u64(),
            steps: loss.into_iter().chain(validation).map(|(step, _)| step).max().unwrap_or(0),
            last_loss: loss.map(|(_, value)| value),
            last_validation: validation.map(|(_, value)| value),
            settings,
        })
    });
    Ok(StoreListing { models, training_runs: training_runs.collect::<Result<_>>()? })
}

fn listed_model(store: &Store, model: &StoredModel) -> Result<ListedModel> {
    let training: Option<Value> = model.training.as_deref().and_then(|json| serde_json::from_str(json).ok());
    let of_training = |pointer: &str| training.as_ref().and_then(|settings| settings.pointer(pointer));
    let distance_counts = model.distances.map(|id| store.distance_counts(id)).transpose()?;
    Ok(ListedModel {
        name: Some(model.name.clone()),
        answers: model.answers.map(SettingsId::number),
        weights: model.weights.clone(),
        zero_shot: model.zero_shot,
        selected_on_reported: model.selected_on_reported,
        method: of_training("/method").and_then(Value::as_str).map(str::to_owned),
        seed: of_training("/subject/seed").and_then(Value::as_u64),
        made_by: model.made_by.clone(),
        settings: model.answers.map(|id| store.settings_of_answers(id)).transpose()?,
        distances: model.distances.map(|id| store.settings_of_distances(id)).transpose()?,
        datasets: listed_datasets(store, model.answers, distance_counts)?,
    })
}

fn listed_datasets(
    store: &Store,
    answers: Option<SettingsId>,
    distances: Option<Vec<(String, usize)>>,
) -> Result<Vec<ListedDataset>> {
    let mut found: BTreeMap<String, ListedDataset> = BTreeMap::new();
    let mut entry = |dataset: String, change: &mut dyn FnMut(&mut ListedDataset)| {
        change(found.entry(dataset.clone()).or_insert_with(|| ListedDataset { dataset, ..ListedDataset::default() }));
    };
    if let Some(id) = answers {
        for (dataset, count) in store.answer_counts(id)? {
            entry(dataset, &mut |listed| listed.answers = count);
        }
        // In the order of their sizes, so that the largest stays.
        for set in store.question_sets(id)? {
            entry(set.dataset, &mut |listed| {
                listed.sets = if listed.n == Some(set.n) { listed.sets + 1 } else { 1 };
                listed.n = Some(set.n);
                listed.digest = Some(set.digest.clone());
            });
        }
    }
    for (dataset, count) in distances.into_iter().flatten() {
        entry(dataset, &mut |listed| listed.distances = count);
    }
    Ok(found.into_values().collect())
}
