//! Which rows of the leaderboard are shown, in which order, and what is left out.

use serde::Serialize;

use super::super::overview::Column;
use super::super::stored::StoredRun;
use super::Entry;
use super::grouping::{has_row, trained_with};
use crate::error::{Error, Result, find_row};
use crate::train::METHODS;

/// Which rows are shown, and in which order.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names of models; all where there are none.
    pub models: Vec<String>,
    /// Names of methods; all where there are none.
    pub methods: Vec<String>,
    /// Name or head of the column to sort by, the best first; by method where there is none.
    pub sort: Option<String>,
}

impl Selection {
    /// Whether a run that has no row would be shown.
    fn takes(&self, run: &StoredRun) -> bool {
        (self.models.is_empty() || self.models.contains(&run.model.name))
            && (self.methods.is_empty() || method(run).is_some_and(|method| self.methods.contains(&method)))
    }
}

/// Results that are not of all of a dataset's questions as they are now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOut {
    /// Name of the model in its store.
    pub model: String,
    /// What is missing, and of which dataset.
    pub reason: String,
}

impl LeftOut {
    /// What is left out of a run.
    pub fn of(run: &StoredRun) -> Vec<Self> {
        let left_out = |reason: &Error| Self { model: run.model.name.clone(), reason: reason.to_string() };
        run.left_out.iter().map(left_out).collect()
    }
}

/// The method that trained a run.
fn method(run: &StoredRun) -> Option<String> {
    Some(trained_with(run)?["method"].as_str()?.to_owned())
}

/// Keeps the rows of the selection.
///
/// # Errors
/// What the selection names but is not there, and where no row is left.
pub(super) fn select(entries: &mut Vec<Entry>, selection: &Selection, runs: &[StoredRun]) -> Result<()> {
    let incomplete = || runs.iter().filter(|run| !run.left_out.is_empty() && selection.takes(run));
    for method in &selection.methods {
        find_row(METHODS, "method", method, |row| vec![row.name])?;
    }
    for name in &selection.models {
        if !entries.iter().any(|entry| is_named(entry, name)) {
            if let Some(run) = incomplete().find(|run| run.model.name == *name) {
                return Err(nothing_left(run));
            }
            let known: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
            return Err(Error::input(format!("no results of a model named `{name}`"))
                .hint(format!("there are: {}", known.join(", "))));
        }
    }
    let Selection { models, methods, .. } = selection;
    entries.retain(|entry| {
        let method = entry.method.as_deref();
        (models.is_empty() || models.iter().any(|name| is_named(entry, name)))
            && (methods.is_empty() || methods.iter().any(|name| method == Some(name)))
    });
    if let (true, Some(first)) = (entries.is_empty(), incomplete().next()) {
        return Err(nothing_left(first));
    }
    if entries.is_empty() {
        return Err(Error::incomplete("no results of this suite are left to show")
            .hint("`digrap-bench runs list` shows what a store holds"));
    }
    Ok(())
}

fn nothing_left(run: &StoredRun) -> Error {
    let reason = run.left_out.first().map(Error::to_string);
    Error::incomplete(format!("no results of `{}` can be shown", run.model.name))
        .caused_by(reason.unwrap_or_default())
        .hint("`digrap-bench vqa` with the same store asks what is missing; with answers to the first N questions alone, give --limit N")
}

/// What is left out of the runs that are shown, and of those that would be.
pub(super) fn left_out(runs: &[StoredRun], entries: &[Entry], selection: &Selection) -> Vec<LeftOut> {
    let shown = |position| entries.iter().flat_map(|entry| &entry.runs).any(|run| run.stored == position);
    // A row that was chosen by its name may lack a seed.
    let of_rows = |run: &StoredRun| {
        method(run).is_some_and(|method| entries.iter().any(|entry| entry.method.as_ref() == Some(&method)))
    };
    let would_be = |run: &StoredRun| !has_row(run) && (selection.takes(run) || of_rows(run));
    let chosen = runs.iter().enumerate().filter(|(position, run)| shown(*position) || would_be(run));
    chosen.flat_map(|(_, run)| LeftOut::of(run)).collect()
}

fn is_named(entry: &Entry, name: &str) -> bool {
    entry.name == name || entry.runs.iter().any(|run| run.model == name)
}

/// Position of the column with this name or head.
pub(super) fn column_named(columns: &[Column], name: &str) -> Result<usize> {
    let found = find_row(columns, "column", name, |column| vec![&column.name, &column.label])?;
    Ok(columns.iter().position(|column| column == found).unwrap_or_default())
}

/// Models that were not fine-tuned first, then by method and name; or by a column, the best first.
pub(super) fn arrange(entries: &mut [Entry], sort: Option<usize>) {
    let method = |entry: &Entry| METHODS.iter().position(|row| entry.method.as_deref() == Some(row.name));
    entries.sort_by(|one, other| {
        let key = |entry: &Entry| (!entry.zero_shot, method(entry).unwrap_or(METHODS.len()), entry.name.clone());
        key(one).cmp(&key(other))
    });
    if let Some(column) = sort {
        // Equal scores may be sums in another order, which differ in their last bits.
        let rounded = |accuracy: f64| (accuracy * 1e9).round();
        let accuracy = |entry: &Entry| entry.cells[column].map_or(f64::NEG_INFINITY, |cell| rounded(cell.accuracy));
        entries.sort_by(|one, other| accuracy(other).total_cmp(&accuracy(one)));
    }
}
