//! What `vqa` and `shift` have in common: how features are taken, and the table of distances.

use std::path::Path;

use digrap_bench::error::Result;
use digrap_bench::model::features::FeatureLayers;
use digrap_bench::model::text::Prompt;
use digrap_bench::report::{self, DatasetShifts};
use digrap_bench::shift::GaussianOptions;
use digrap_bench::suite::{Evaluation, MODALITIES, Modality, ModalityShift, Reference, ShiftPlan, Suite};

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

/// The mean distances of every evaluation with their intervals; nothing where none were measured.
pub fn table(evaluations: &[Evaluation]) -> String {
    let rows: Vec<DatasetShifts> =
        evaluations.iter().filter(|evaluation| !evaluation.shifts.is_empty()).map(row).collect();
    let Some(first) = evaluations.iter().find(|evaluation| !evaluation.shifts.is_empty()) else {
        return String::new();
    };
    let heads: Vec<&str> = MODALITIES.iter().map(|modality| modality.label).collect();
    let rank =
        |shift: &ModalityShift| format!("{} {} of {}", shift.modality, shift.summary.rank, shift.summary.dimension);
    let ranks = first.shifts.iter().map(rank).collect::<Vec<_>>().join(", ");
    let table = report::dataset_shifts(&heads, &rows);
    format!("\n{table}\n{ABOUT}\nDirections that count: {ranks}.\n")
}

/// What a table of distances shows.
pub const ABOUT: &str =
    "Mean Mahalanobis distances from the training set, without unit. 95 % intervals clustered by image.";

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
