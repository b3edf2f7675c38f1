//! The table of a suite: the accuracy of every model on every dataset, and the averages of groups.

use serde::Serialize;

use super::distances::{MODALITIES, Modality};
use super::evaluation::Evaluation;
use super::manifest::{SHIFTS, Suite, SuiteDataset};
use crate::stats::complete_mean;

/// Every model of a run in the columns of a suite.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// Name of the suite.
    pub suite: String,
    /// The dataset in distribution first, then each group: its datasets by shift, and their average.
    pub columns: Vec<Column>,
    /// One row per model.
    pub rows: Vec<OverviewRow>,
    /// One row per model and modality, where shift was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shifts: Vec<OverviewShift>,
}

/// How far the datasets have shifted for a model, in one modality.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverviewShift {
    /// Name of the model.
    pub model: String,
    /// Name of the modality.
    pub modality: &'static str,
    /// Mean distances without unit, column by column; an average is that of the means of its datasets.
    pub cells: Vec<Option<f64>>,
}

/// A dataset or an average.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// Name of the dataset or of the group.
    pub name: String,
    /// Head in tables.
    pub label: String,
    /// How the dataset has shifted; none for an average.
    pub shift: Option<&'static str>,
    /// The datasets that are averaged; empty for a dataset.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub average_of: Vec<String>,
}

/// A model in the columns of the suite.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverviewRow {
    /// Name of the model.
    pub model: String,
    /// Whether it was evaluated without fine-tuning, with the prompt for that.
    pub zero_shot: bool,
    /// Whether a reported set selected its weights.
    pub selected_on_reported: bool,
    /// Percent, unrounded, column by column; an average only where every one of its datasets has an accuracy.
    pub cells: Vec<Option<f64>>,
}

impl Suite {
    /// The columns of the suite's table.
    pub fn columns(&self) -> Vec<Column> {
        let mut columns = vec![of_dataset(self.in_distribution())];
        for group in &self.groups {
            let new = |dataset: &&SuiteDataset| {
                group.listed.iter().any(|name| name == dataset.row.name)
                    && columns.iter().all(|column| column.name != dataset.row.name)
            };
            let mut datasets: Vec<&SuiteDataset> = self.datasets.iter().filter(new).collect();
            datasets.sort_by_key(|dataset| SHIFTS.iter().position(|shift| shift == dataset.shift));
            columns.extend(datasets.into_iter().map(of_dataset));
            let (name, label) = (group.name.clone(), group.label.clone());
            columns.push(Column { name, label, shift: None, average_of: group.datasets.clone() });
        }
        let left_over = |dataset: &&SuiteDataset| columns.iter().all(|column| column.name != dataset.row.name);
        let left_over: Vec<Column> = self.datasets.iter().filter(left_over).map(of_dataset).collect();
        columns.extend(left_over);
        columns
    }

    /// The models of a run in the suite's columns; those without fine-tuning first.
    pub fn overview(&self, evaluations: &[Evaluation]) -> Overview {
        let columns = self.columns();
        let mut rows: Vec<OverviewRow> = Vec::new();
        for Evaluation { model, zero_shot, selected_on_reported, .. } in evaluations {
            if rows.iter().any(|row| row.model == *model) {
                continue;
            }
            let accuracy = |dataset: &str| {
                let evaluation = evaluations.iter().find(|one| one.model == *model && one.dataset == dataset)?;
                evaluation.summary.as_ref()?.accuracy
            };
            rows.push(OverviewRow {
                model: model.clone(),
                zero_shot: *zero_shot,
                selected_on_reported: *selected_on_reported,
                cells: cells(&columns, accuracy),
            });
        }
        rows.sort_by_key(|row| !row.zero_shot);
        let shifts = rows.iter().flat_map(|row| shifts(&columns, &row.model, evaluations)).collect();
        Overview { suite: self.name.clone(), columns, rows, shifts }
    }
}

/// The numbers of datasets and their averages, column by column.
pub(super) fn cells(columns: &[Column], of_dataset: impl Fn(&str) -> Option<f64>) -> Vec<Option<f64>> {
    let cell = |column: &Column| match column.average_of.as_slice() {
        [] => of_dataset(&column.name),
        datasets => complete_mean(&datasets.iter().map(|dataset| of_dataset(dataset)).collect::<Vec<_>>()),
    };
    columns.iter().map(cell).collect()
}

/// A row for each modality that was measured.
fn shifts(columns: &[Column], model: &str, evaluations: &[Evaluation]) -> Vec<OverviewShift> {
    let row = |modality: &'static Modality| {
        let shift = |dataset: &str| {
            let evaluation = evaluations.iter().find(|one| one.model == model && one.dataset == dataset)?;
            evaluation.shifts.iter().find(|shift| shift.modality == modality.name).map(|shift| shift.summary.shift)
        };
        let cells = cells(columns, shift);
        let row = OverviewShift { model: model.to_owned(), modality: modality.name, cells };
        row.cells.iter().any(Option::is_some).then_some(row)
    };
    MODALITIES.iter().filter_map(row).collect()
}

fn of_dataset(dataset: &SuiteDataset) -> Column {
    let SuiteDataset { row, label, shift, .. } = dataset;
    Column { name: row.name.to_owned(), label: label.clone(), shift: Some(shift.name), average_of: Vec::new() }
}
