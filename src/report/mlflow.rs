//! Runs as the plain files of MLflow's file store: `meta.yaml`, a file for each parameter and each tag, and for each metric one
//! with a line `time value step` for each point.
//!
//! Times are steps, in milliseconds since 1970, and a run's identifier is a digest of its name and settings, so that the
//! same runs are the same files. MLflow 3.17 opens such a folder where `MLFLOW_ALLOW_FILE_STORE=true` is set, and brings it
//! into a database with `mlflow migrate-filestore`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::sample_log::refuse_unknown;
use super::tensorboard::training_name;
use crate::error::{Error, Result};
use crate::store::{CurvePoint, Store};
use crate::suite::{PlannedDataset, StoredDataset, StoredRun, flattened, stored_runs};

/// The experiment that MLflow looks into where none is named.
const EXPERIMENT: &str = "0";

/// Longest value of a parameter that MLflow takes, in bytes.
const LONGEST_VALUE: usize = 6000;

/// A run on its way to MLflow.
#[derive(Debug, Clone)]
pub struct TrackedRun {
    /// Name.
    pub name: String,
    /// What decided its results: an object, whose entries become parameters.
    pub settings: Value,
    /// Its numbers.
    pub metrics: Vec<CurvePoint>,
}

/// The training runs of a store with their curves, and where datasets are given, models with their accuracies: those of these
/// names, or all where none is named.
///
/// # Errors
/// A model that is not in the store; the store cannot be read; answers to some of a dataset's questions alone.
pub fn tracked_runs(store: &Store, models: &[String], datasets: Option<&[PlannedDataset]>) -> Result<Vec<TrackedRun>> {
    refuse_unknown(store, &store.models()?, models)?;
    let mut tracked = Vec::new();
    for (run, settings) in store.training_runs()? {
        tracked.push(TrackedRun {
            name: format!("training:{}", training_name(run.number(), &settings)),
            settings: serde_json::from_str(&settings).unwrap_or_default(),
            metrics: store.curves(run)?,
        });
    }
    if let Some(datasets) = datasets {
        let chosen = |run: &StoredRun| models.is_empty() || models.contains(&run.model.name);
        for run in stored_runs(store, datasets)?.into_iter().filter(chosen) {
            tracked.push(tracked_model(&run.complete()?, datasets)?);
        }
    }
    Ok(tracked)
}

fn tracked_model(run: &StoredRun, datasets: &[PlannedDataset]) -> Result<TrackedRun> {
    let accuracy = |stored: &StoredDataset| {
        let value = stored.summary.as_ref()?.accuracy?;
        Some(CurvePoint { series: format!("accuracy/{}", datasets[stored.position].dataset.name), step: 0, value })
    };
    let settings = run.answer_settings.as_ref().map(serde_json::to_value).transpose();
    let settings =
        settings.map_err(|cause| Error::internal("cannot write answer settings as JSON").caused_by(cause))?;
    Ok(TrackedRun {
        name: run.model.name.clone(),
        settings: settings.unwrap_or_default(),
        metrics: run.datasets.iter().filter_map(accuracy).collect(),
    })
}

/// Every file of a file store with these runs, those without numbers left out: its path below the folder, and its text.
pub fn mlflow_files(runs: &[TrackedRun]) -> Vec<(PathBuf, String)> {
    let runs = runs.iter().filter(|run| !run.metrics.is_empty());
    let experiment = format!(
        "artifact_location: ./{EXPERIMENT}\ncreation_time: 0\nexperiment_id: '{EXPERIMENT}'\nlast_update_time: 0\n\
         lifecycle_stage: active\nname: Default\n"
    );
    let own = (Path::new(EXPERIMENT).join("meta.yaml"), experiment);
    std::iter::once(own).chain(runs.flat_map(run_files)).collect()
}

fn run_files(run: &TrackedRun) -> Vec<(PathBuf, String)> {
    let mut digest = Sha256::new();
    digest.update(format!("{}\n{}", run.name, run.settings));
    let id: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let folder = Path::new(EXPERIMENT).join(&id);
    let end = run.metrics.iter().map(|point| point.step).max().unwrap_or(0);
    let mut files = vec![(folder.join("meta.yaml"), meta(&run.name, &id, end))];
    // MLflow takes a folder without artifacts for something else.
    files.push((folder.join("artifacts/settings.json"), format!("{:#}\n", run.settings)));
    let parameter =
        |(name, value): (String, String)| (folder.join("params").join(permitted(&name.replace('/', "_"))), cut(&value));
    files.extend(flattened(&run.settings).into_iter().map(parameter));
    let tags =
        [("mlflow.runName", &*run.name), ("mlflow.source.name", "digrap-bench"), ("mlflow.source.type", "LOCAL")];
    files.extend(tags.map(|(name, value)| (folder.join("tags").join(name), value.to_owned())));
    files.extend(metric_files(&folder.join("metrics"), &run.metrics));
    files
}

fn meta(name: &str, id: &str, end: u64) -> String {
    let name = name.replace('\'', "''");
    format!(
        "artifact_uri: ./{EXPERIMENT}/{id}/artifacts\nend_time: {end}\nentry_point_name: ''\nexperiment_id: '{EXPERIMENT}'\n\
         lifecycle_stage: active\nrun_id: {id}\nrun_name: '{name}'\nsource_name: ''\nsource_type: 4\nsource_version: ''\n\
         start_time: 0\nstatus: 3\ntags: []\nuser_id: ''\n"
    )
}

/// The beginning of a value that is too long for a parameter.
fn cut(text: &str) -> String {
    let end = (0..=text.len().min(LONGEST_VALUE)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

/// A name in the signs that MLflow takes, which as a path leads nowhere but down.
fn permitted(name: &str) -> PathBuf {
    let sign = |sign: char| if sign.is_alphanumeric() || "_-. :".contains(sign) { sign } else { '_' };
    let part = |part: &str| match part {
        "" | "." | ".." => "_".to_owned(),
        part => part.chars().map(sign).collect(),
    };
    name.split('/').map(part).collect()
}

/// A metric is a file, so that the numbers of single tensors cannot lie below the mean of all: they lie below `tensors`.
fn metric_files(folder: &Path, points: &[CurvePoint]) -> Vec<(PathBuf, String)> {
    let mut points: Vec<&CurvePoint> = points.iter().collect();
    points.sort_by(|a, b| (&a.series, a.step).cmp(&(&b.series, b.step)));
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    let means: Vec<&str> = points.iter().map(|point| &*point.series).collect();
    for CurvePoint { series, step, value } in &points {
        let below_a_mean = series.split_once('/').is_some_and(|(mean, _)| means.binary_search(&mean).is_ok());
        let name = if below_a_mean { format!("tensors/{series}") } else { series.clone() };
        let path = folder.join(permitted(&name));
        let line = format!("{step} {value} {step}\n");
        match files.last_mut() {
            Some((last, text)) if *last == path => text.push_str(&line),
            _ => files.push((path, line)),
        }
    }
    files
}
