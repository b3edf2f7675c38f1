//! What `vqa` and `shift` have in common: how features are taken, and the table of distances.

use std::path::Path;

use digrap_bench::error::Result;
use digrap_bench::model::features::FeatureLayers;
use digrap_bench::model::text::Prompt;
use digrap_bench::report::{self, DatasetShifts};
use digrap_bench::shift::GaussianOptions;
use digrap_bench::store::{DistanceSettings, FeatureSettings};
use digrap_bench::suite::{Evaluation, MODALITIES, Modality, ModalityShift, Reference, ShiftPlan, Suite};
use indicatif::HumanCount;

use super::known;

/// How questions are put for their features: as in the paper, without a template.
pub const PROMPT: &str = "bare";

/// Distances as in the paper, from the questions that the suite's dataset in distribution is trained on or from a fit.
pub fn default_plan(
    suite: &Suite,
    root: Option<&Path>,
    fit: Option<&Path>,
    features_output: Option<&Path>,
) -> Result<ShiftPlan> {
    Ok(ShiftPlan {
        reference: reference(suite, root, fit)?,
        layers: FeatureLayers::default(),
        prompt: Prompt::find(PROMPT)?,
        gaussian: GaussianOptions::default(),
        features_output: features_output.map(Path::to_owned),
    })
}

/// The fit, or else the training part of the suite's dataset in distribution.
pub fn reference(suite: &Suite, root: Option<&Path>, fit: Option<&Path>) -> Result<Reference> {
    if let Some(fit) = fit {
        return Ok(Reference::Fit(fit.to_owned()));
    }
    let name = suite.in_distribution().row.name;
    let training = known::training(name, root.map(|root| root.join(name)).as_deref())?;
    Ok(Reference::Questions(Box::new(training.dataset), None))
}

/// The mean distances of every evaluation with their intervals, and what they were measured with; nothing where none were
/// measured.
pub fn table(evaluations: &[Evaluation]) -> String {
    let measured: Vec<&Evaluation> = evaluations.iter().filter(|evaluation| !evaluation.shifts.is_empty()).collect();
    if measured.is_empty() {
        return String::new();
    }
    let rows: Vec<DatasetShifts> = measured.iter().map(|evaluation| row(evaluation)).collect();
    let heads: Vec<&str> = MODALITIES.iter().map(|modality| modality.label).collect();
    let table = report::dataset_shifts(&heads, &rows);
    let mut told: Vec<&str> = Vec::new();
    let mut lines = String::new();
    for evaluation in measured {
        if told.contains(&&*evaluation.model) {
            continue;
        }
        told.push(&evaluation.model);
        let rank =
            |shift: &ModalityShift| format!("{} {} of {}", shift.modality, shift.summary.rank, shift.summary.dimension);
        let ranks = evaluation.shifts.iter().map(rank).collect::<Vec<_>>().join(", ");
        let settings = evaluation.distances.as_ref().map_or_else(String::new, measured_with);
        lines += &format!("- {}: {settings}; directions that count: {ranks}\n", evaluation.model);
    }
    format!("\n{table}\n{ABOUT}\n\n{lines}")
}

/// What a table of distances shows.
pub const ABOUT: &str = "\
Mean distances from the training set, without unit. 95 % intervals clustered by image (in the known sets of edits by the question that was edited).";

/// What distances were measured with, in a line.
pub fn measured_with(settings: &DistanceSettings) -> String {
    let DistanceSettings { features, reference, estimator } = settings;
    let FeatureSettings { vision_layer, language_layer, prompt, dtype, .. } = features;
    let n = HumanCount(reference.n as u64);
    format!(
        "from {n} questions of {}; hidden states: {vision_layer} (image), {language_layer} (text); prompt `{prompt}`; \
         {estimator}; {dtype}",
        reference.dataset
    )
}

fn row(evaluation: &Evaluation) -> DatasetShifts<'_> {
    let shift = |modality: &Modality| {
        let shift = evaluation.shifts.iter().find(|shift| shift.modality == modality.name)?;
        Some((shift.summary.shift, shift.summary.interval))
    };
    DatasetShifts {
        model: &evaluation.model,
        zero_shot: evaluation.zero_shot,
        dataset: &evaluation.dataset,
        n: evaluation.shifts.iter().map(|shift| shift.summary.n).max().unwrap_or(0),
        shifts: MODALITIES.iter().map(shift).collect(),
    }
}
