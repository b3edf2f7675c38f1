//! The leaderboard: trained and untrained models in the columns of a suite, seeds of one method together.

mod grouping;
mod selection;

use std::collections::BTreeMap;

use serde::Serialize;

use self::grouping::{Group, grouped, seed, shown, trained_with, vanilla_of};
pub use self::selection::{LeftOut, Selection};
use self::selection::{arrange, column_named, left_out, select};
use super::distances::MODALITIES;
use super::evaluation::PlannedDataset;
use super::manifest::Suite;
use super::overview::{Column, cells};
use super::paper::{PaperRow, paper_rows};
use super::relations::mean_distance;
use super::stored::{StoredDataset, StoredRun};
use crate::error::{Error, Result};
use crate::stats::{clustered_mean, complete_mean, deviation};
use crate::store::{AnswerSettings, Maker};

/// Models in the columns of a suite, and the paper's rows beside them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Leaderboard {
    /// Name of the suite.
    pub suite: String,
    /// Only so many questions of each dataset, the first ones; none where all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The dataset in distribution first, then each group: its datasets by shift, and their average.
    pub columns: Vec<Column>,
    /// What the columns of datasets hold.
    pub datasets: Vec<LeaderboardDataset>,
    /// Measured rows.
    pub entries: Vec<Entry>,
    /// Rows that the paper prints for the same datasets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paper: Vec<PaperRow>,
    /// Stored results that are not shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// A dataset of a leaderboard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeaderboardDataset {
    /// Name.
    pub name: String,
    /// Questions.
    pub n: usize,
    /// Distinct images.
    pub images: usize,
    /// Digest of the questions and their human answers.
    pub digest: String,
    /// Name of the metric.
    pub metric: &'static str,
}

/// A row: a model, or runs that differ in their seeds alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The method with the settings that tell it from others, or the name of the model.
    pub name: String,
    /// The method, if a run of this program trained the model.
    pub method: Option<String>,
    /// Whether it was evaluated as one that was not fine-tuned.
    pub zero_shot: bool,
    /// Whether a reported set selected the weights of any of its runs.
    pub selected_on_reported: bool,
    /// Its models.
    pub runs: Vec<EntryRun>,
    /// Accuracies, column by column; none where one of the runs or one of the averaged datasets has none.
    pub cells: Vec<Option<Cell>>,
    /// How far the datasets have shifted, modality by modality, where that was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shifts: Vec<EntryShift>,
}

/// A model of an entry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntryRun {
    /// The name of the entry, with the seed where it has several runs.
    pub label: String,
    /// Name of the model in its store.
    pub model: String,
    /// Seed of its training.
    pub seed: Option<u64>,
    /// Digest of the weights, with that of what says how they are used.
    pub weights: String,
    /// What decided its answers.
    pub settings: Option<AnswerSettings>,
    /// What made its results.
    pub made_by: Option<Maker>,
    /// Position among the stored runs that the leaderboard was made of.
    #[serde(skip)]
    pub stored: usize,
}

/// An accuracy in percent, and what is to be known of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cell {
    /// Mean over the runs of the entry.
    pub accuracy: f64,
    /// Standard deviation over the runs; none of a single one.
    pub spread: Option<f64>,
    /// Questions; none of an average.
    pub n: Option<usize>,
    /// 95 % interval of the mean over questions, in clusters, of the runs as they are; none of an average.
    pub interval: Option<[f64; 2]>,
    /// Change against the vanilla row, in percent of its accuracy.
    pub change: Option<f64>,
    /// 1 for the best of the column, 2 for the second; equal ones share it. None of further ones and of models that a
    /// reported set selected.
    pub rank: Option<usize>,
}

/// How far datasets have shifted in one modality.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntryShift {
    /// Name of the modality.
    pub modality: &'static str,
    /// In how many of the entry's runs it was measured.
    pub runs: usize,
    /// Mean distances without unit, column by column, mean over these runs.
    pub cells: Vec<Option<f64>>,
}

/// The leaderboard of stored runs.
///
/// # Errors
/// The same results twice, nothing that can be shown, and what the selection names but is not there.
pub fn leaderboard(
    suite: &Suite,
    datasets: &[PlannedDataset],
    runs: &[StoredRun],
    selection: &Selection,
) -> Result<Leaderboard> {
    check_distinct(runs)?;
    let columns = suite.columns();
    let sort = selection.sort.as_deref().map(|name| column_named(&columns, name)).transpose()?;
    let groups = grouped(runs);
    let mut entries: Vec<Entry> = groups.iter().map(|group| entry(suite, &columns, runs, group)).collect();
    let vanillas: Vec<Option<usize>> = groups.iter().map(|group| vanilla_of(group, &groups)).collect();
    compare(&mut entries, &vanillas);
    select(&mut entries, selection, runs)?;
    arrange(&mut entries, sort);
    rank(&mut entries);
    Ok(Leaderboard {
        suite: suite.name.clone(),
        limit: None,
        datasets: leaderboard_datasets(datasets, runs),
        paper: paper_rows(&columns)?,
        left_out: left_out(runs, &entries, selection),
        columns,
        entries,
    })
}

fn leaderboard_datasets(datasets: &[PlannedDataset], runs: &[StoredRun]) -> Vec<LeaderboardDataset> {
    let known = |position| runs.iter().flat_map(|run| &run.datasets).find(|one| one.position == position);
    let row = |(position, planned): (usize, &PlannedDataset)| {
        let stored: &StoredDataset = known(position)?;
        Some(LeaderboardDataset {
            name: planned.dataset.name.clone(),
            n: planned.dataset.questions.len(),
            images: planned.dataset.image_count(),
            digest: stored.questions.clone(),
            metric: planned.metric.name,
        })
    };
    datasets.iter().enumerate().filter_map(row).collect()
}

/// Refuses to count one model twice.
fn check_distinct(runs: &[StoredRun]) -> Result<()> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for run in shown(runs).map(|(_, run)| run) {
        let key = format!("{} {:?}", run.model.weights, run.answer_settings);
        if let Some(other) = seen.insert(key, &run.model.name) {
            return Err(Error::input(format!(
                "`{other}` and `{}` are the same model under the same settings",
                run.model.name
            ))
            .hint("give one of the stores, or remove one with `digrap-bench runs rm`"));
        }
    }
    Ok(())
}

fn entry(suite: &Suite, columns: &[Column], runs: &[StoredRun], group: &Group) -> Entry {
    let members: Vec<&StoredRun> = group.runs.iter().map(|run| &runs[*run]).collect();
    let of_run = |run: &StoredRun| cells(columns, |name| stored(suite, run, name)?.summary.as_ref()?.accuracy);
    let by_run: Vec<Vec<Option<f64>>> = members.iter().map(|run| of_run(run)).collect();
    let cell = |(at, column): (usize, &Column)| {
        let accuracies: Vec<Option<f64>> = by_run.iter().map(|cells| cells[at]).collect();
        let accuracy = complete_mean(&accuracies)?;
        let spread = deviation(&accuracies.iter().flatten().copied().collect::<Vec<_>>());
        let over_questions =
            column.average_of.is_empty().then(|| over_questions(suite, &members, &column.name)).flatten();
        let (n, interval) = over_questions.map_or((None, None), |(n, interval)| (Some(n), interval));
        Some(Cell { accuracy, spread, n, interval, change: None, rank: None })
    };
    Entry {
        name: group.name.clone(),
        method: group.method().map(str::to_owned),
        zero_shot: group.zero_shot,
        selected_on_reported: members.iter().any(|run| run.model.selected_on_reported),
        runs: entry_runs(runs, group),
        cells: columns.iter().enumerate().map(cell).collect(),
        shifts: shifts(suite, columns, &members),
    }
}

fn stored<'a>(suite: &Suite, run: &'a StoredRun, dataset: &str) -> Option<&'a StoredDataset> {
    let position = suite.datasets.iter().position(|one| one.row.name == dataset)?;
    run.datasets.iter().find(|one| one.position == position)
}

/// The number of questions, and the interval of the mean over them of the mean over runs.
fn over_questions(suite: &Suite, members: &[&StoredRun], dataset: &str) -> Option<(usize, Option<[f64; 2]>)> {
    let of_runs: Vec<&StoredDataset> = members.iter().map(|run| stored(suite, run, dataset)).collect::<Option<_>>()?;
    let first = of_runs.first()?;
    let mean = |question: usize| {
        of_runs.iter().map(|run| run.scores.get(question).copied().unwrap_or_default()).sum::<f64>()
            / of_runs.len() as f64
    };
    let means: Vec<f64> = (0..first.scores.len()).map(mean).collect();
    let estimate = clustered_mean(&means, &first.clusters)?;
    let percent = |bounds: [f64; 2]| bounds.map(|bound| 100.0 * bound);
    Some((estimate.n, estimate.share_interval().map(percent)))
}

fn entry_runs(runs: &[StoredRun], group: &Group) -> Vec<EntryRun> {
    let run = |position: &usize| {
        let StoredRun { model, answer_settings, .. } = &runs[*position];
        let seed = trained_with(&runs[*position]).as_ref().and_then(seed);
        let told = seed.filter(|_| group.runs.len() > 1).map_or_else(String::new, |seed| format!(", seed {seed}"));
        EntryRun {
            label: format!("{}{told}", group.name),
            model: model.name.clone(),
            seed,
            weights: model.weights.clone(),
            settings: answer_settings.clone(),
            made_by: model.made_by.clone(),
            stored: *position,
        }
    };
    group.runs.iter().map(run).collect()
}

fn shifts(suite: &Suite, columns: &[Column], members: &[&StoredRun]) -> Vec<EntryShift> {
    let mut rows = Vec::new();
    for modality in &MODALITIES {
        let of_run = |run: &StoredRun| {
            cells(columns, |name| mean_distance(stored(suite, run, name)?, modality).map(|estimate| estimate.mean))
        };
        let mut by_run: Vec<Vec<Option<f64>>> = members.iter().map(|run| of_run(run)).collect();
        by_run.retain(|cells| cells.iter().any(Option::is_some));
        let mean = |at: usize| complete_mean(&by_run.iter().map(|cells| cells[at]).collect::<Vec<_>>());
        if !by_run.is_empty() {
            let cells = (0..columns.len()).map(mean).collect();
            rows.push(EntryShift { modality: modality.name, runs: by_run.len(), cells });
        }
    }
    rows
}

fn compare(entries: &mut [Entry], vanillas: &[Option<usize>]) {
    let accuracies: Vec<Vec<Option<f64>>> =
        entries.iter().map(|entry| entry.cells.iter().map(|cell| cell.map(|cell| cell.accuracy)).collect()).collect();
    for (position, entry) in entries.iter_mut().enumerate() {
        let Some(vanilla) = vanillas[position].filter(|vanilla| *vanilla != position) else { continue };
        for (cell, vanilla) in entry.cells.iter_mut().zip(&accuracies[vanilla]) {
            if let (Some(cell), Some(vanilla)) = (cell, vanilla.filter(|vanilla| *vanilla > 0.0)) {
                cell.change = Some(100.0 * (cell.accuracy - vanilla) / vanilla);
            }
        }
    }
}

/// Whether two accuracies in percent are the same one: equal scores may be sums in another order.
fn alike(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

fn rank(entries: &mut [Entry]) {
    let columns = entries.first().map_or(0, |entry| entry.cells.len());
    for column in 0..columns {
        let counts = |entry: &&mut Entry| !entry.selected_on_reported;
        let mut values: Vec<f64> = entries
            .iter_mut()
            .filter(counts)
            .filter_map(|entry| entry.cells[column].map(|cell| cell.accuracy))
            .collect();
        values.sort_by(|one, other| other.total_cmp(one));
        values.dedup_by(|one, other| alike(*one, *other));
        for entry in entries.iter_mut().filter(counts) {
            if let Some(cell) = &mut entry.cells[column] {
                let place = values.iter().position(|value| alike(*value, cell.accuracy));
                cell.rank = place.map(|place| place + 1).filter(|rank| *rank <= 2);
            }
        }
    }
}
