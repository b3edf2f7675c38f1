//! What a store holds, as tables.

use serde_json::Value;

use super::leaderboard::digests;
use super::{Head, markdown, percent, unknown};
use crate::store::Maker;
use crate::suite::{AnswerState, ListedDataset, ListedModel, ListedTraining, StoreListing, flattened};

/// The models with their datasets, a line each, and the training runs.
pub fn runs(listing: &StoreListing) -> String {
    let models = models_table(&listing.models);
    let runs = training_table(&listing.training_runs);
    match (listing.models.is_empty(), listing.training_runs.is_empty()) {
        (true, true) => "Nothing is stored.\n".to_owned(),
        (false, true) => models,
        (true, false) => runs,
        (false, false) => format!("{models}\n{runs}"),
    }
}

fn head(text: &str) -> Head<'_> {
    Head { text, number: false }
}

fn number(text: &str) -> Head<'_> {
    Head { text, number: true }
}

fn models_table(models: &[ListedModel]) -> String {
    let heads = [
        head("model"),
        head("zero-shot"),
        head("weights and use"),
        head("method"),
        number("seed"),
        head("prompt"),
        head("decoding"),
        head("dtype"),
        head("dataset"),
        number("answers"),
        number("asked"),
        head("state"),
        number("distances"),
    ];
    markdown(&heads, &models.iter().flat_map(model_rows).collect::<Vec<_>>())
}

/// The name by which `runs show` and `runs rm` take the model, or answers without one.
fn name(model: &ListedModel) -> String {
    let number = || format!("answers:{}", model.answers.unwrap_or_default());
    model.name.clone().unwrap_or_else(number)
}

fn model_rows(model: &ListedModel) -> Vec<Vec<String>> {
    let zero_shot = match (&model.name, model.zero_shot) {
        (None, _) => unknown(),
        (Some(_), true) => "yes".to_owned(),
        (Some(_), false) => "no".to_owned(),
    };
    let settings = model.settings.as_ref();
    let dtype = settings.map(|settings| &settings.dtype);
    let dtype = dtype.or(model.distances.as_ref().map(|settings| &settings.features.dtype));
    let first = [
        name(model),
        zero_shot,
        digests(&model.weights),
        model.method.clone().unwrap_or_else(unknown),
        model.seed.map_or_else(unknown, |seed| seed.to_string()),
        settings.map_or_else(unknown, |settings| format!("`{}`", settings.prompt)),
        settings.map_or_else(unknown, |settings| settings.decoding.clone()),
        dtype.cloned().unwrap_or_else(unknown),
    ];
    let row = |dataset: &ListedDataset| {
        let counts = [
            dataset.dataset.clone(),
            dataset.answers.to_string(),
            dataset.n.map_or_else(unknown, |n| n.to_string()),
            dataset.state().map_or_else(unknown, |state| AnswerState::told(state).to_owned()),
            dataset.distances.to_string(),
        ];
        first.iter().cloned().chain(counts).collect()
    };
    model.datasets.iter().map(row).collect()
}

fn training_table(runs: &[ListedTraining]) -> String {
    let heads = [
        head("training run"),
        head("method"),
        number("seed"),
        number("steps"),
        number("of"),
        number("last loss"),
        number("last validation"),
    ];
    let row = |run: &ListedTraining| {
        vec![
            format!("training:{}", run.number),
            run.method.clone().unwrap_or_else(unknown),
            run.seed.map_or_else(unknown, |seed| seed.to_string()),
            run.steps.to_string(),
            run.planned_steps.map_or_else(unknown, |steps| steps.to_string()),
            run.last_loss.map_or_else(unknown, |loss| format!("{loss:.4}")),
            percent(run.last_validation),
        ]
    };
    markdown(&heads, &runs.iter().map(row).collect::<Vec<_>>())
}

/// Everything about one model.
pub fn model_page(model: &ListedModel) -> String {
    let mut text = match &model.name {
        Some(name) => format!("model: {name}\nweights: {}\nzero-shot: {}\n", model.weights, model.zero_shot),
        None => format!("{}, which no model has\nweights: {}\n", name(model), model.weights),
    };
    if let Some(method) = &model.method {
        text += &format!("method: {method}\n");
    }
    if let Some(seed) = model.seed {
        text += &format!("seed: {seed}\n");
    }
    if model.selected_on_reported {
        text += "a reported set selected its weights\n";
    }
    if let Some(Maker { version, commit, command }) = &model.made_by {
        let commit = commit.as_ref().map_or_else(String::new, |commit| format!(" ({commit})"));
        text += &format!("made by: digrap-bench {version}{commit}, `{command}`\n");
    }
    let settings = [
        ("answers", model.settings.as_ref().map(serde_json::to_value)),
        ("distances", model.distances.as_ref().map(serde_json::to_value)),
    ];
    for (what, settings) in settings {
        if let Some(Ok(settings)) = settings {
            text += &format!("\nsettings of {what}:\n{}", facts(&settings));
        }
    }
    let heads =
        [head("dataset"), number("answers"), number("asked"), number("distances"), head("digest of the questions")];
    let row = |dataset: &ListedDataset| {
        vec![
            dataset.dataset.clone(),
            dataset.answers.to_string(),
            dataset.n.map_or_else(unknown, |n| n.to_string()),
            dataset.distances.to_string(),
            dataset.digest.clone().unwrap_or_else(unknown),
        ]
    };
    text + "\n" + &markdown(&heads, &model.datasets.iter().map(row).collect::<Vec<_>>())
}

/// Everything about one training run.
pub fn training_page(run: &ListedTraining) -> String {
    format!("{}\nsettings:\n{}", training_table(std::slice::from_ref(run)), facts(&run.settings))
}

fn facts(settings: &Value) -> String {
    flattened(settings).into_iter().map(|(name, value)| format!("  {name}: {value}\n")).collect()
}
