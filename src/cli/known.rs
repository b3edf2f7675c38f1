//! The questions that the arguments of `vqa` and `score` name, with the metric to score them by.

use std::path::{Path, PathBuf};

use digrap_bench::data::{DatasetRow, find_dataset, vqa_json};
use digrap_bench::error::{Error, Result};
use digrap_bench::score::find_metric;
use digrap_bench::suite::{PlannedDataset, Suite, SuiteDataset};

/// The metric of a set of one's own, where none is named.
const CUSTOM_METRIC: &str = "official-2021";

/// A known dataset, from its folder or else from where `make setup` puts it; its own metric where none is named.
pub fn dataset(name: &str, root: Option<&Path>, metric: Option<&str>) -> Result<PlannedDataset> {
    let row = find_dataset(name)?;
    let metric = find_metric(metric.unwrap_or(row.metric))?;
    Ok(PlannedDataset { dataset: (row.load)(&root_of(row, root)?)?, metric, row: Some(row) })
}

/// Several known datasets; `root` has a folder for each, or is the folder of a single one.
pub fn datasets(names: &[String], root: Option<&Path>, metric: Option<&str>) -> Result<Vec<PlannedDataset>> {
    let several = names.len() > 1;
    let root_of = |name: &str| root.map(|root| if several { root.join(name) } else { root.to_owned() });
    names.iter().map(|name| dataset(name, root_of(name).as_deref(), metric)).collect()
}

/// The datasets of a suite with the metrics that it states, or with one for all. `root` has a folder for each.
pub fn suite(suite: &Suite, root: Option<&Path>, metric: Option<&str>) -> Result<Vec<PlannedDataset>> {
    let needs_files = suite.datasets.iter().any(|dataset| needs_files(dataset.row));
    let base = match root {
        Some(root) => root.to_owned(),
        None if needs_files => default_base()?,
        None => PathBuf::new(),
    };
    suite.check_present(&base)?;
    let metric = metric.map(find_metric).transpose()?;
    let load = |SuiteDataset { row, metric: own, .. }: &SuiteDataset| {
        let dataset = (row.load)(&base.join(row.name))?;
        Ok(PlannedDataset { dataset, metric: metric.unwrap_or(own), row: Some(row) })
    };
    suite.datasets.iter().map(load).collect()
}

/// The training part of a known dataset.
pub fn training(name: &str, root: Option<&Path>) -> Result<PlannedDataset> {
    let row = find_dataset(name)?;
    let load = row.load_training.ok_or_else(|| {
        Error::input(format!("`{name}` has no part to train on"))
            .hint("`digrap-bench list datasets` shows which have one")
    })?;
    let dataset = load(&root_of(row, root)?)?;
    Ok(PlannedDataset { dataset, metric: find_metric(row.metric)?, row: Some(row) })
}

/// The folder of a known dataset.
pub fn root_of(row: &DatasetRow, root: Option<&Path>) -> Result<PathBuf> {
    match root {
        Some(root) => Ok(root.to_owned()),
        None if needs_files(row) => Ok(default_base()?.join(row.name)),
        None => Ok(PathBuf::new()),
    }
}

/// Whether a dataset is read from a folder; the others are computed.
fn needs_files(row: &DatasetRow) -> bool {
    !row.files.is_empty() || !row.hub.is_empty()
}

/// The folder that has one for each dataset, where the arguments name none.
fn default_base() -> Result<PathBuf> {
    let folders = super::machine::folders();
    let folders = folders.map_err(|error| error.hint("set it, or name the folder of the datasets with --root"))?;
    Ok(folders.data.join("datasets"))
}

/// A set of one's own in the official format.
pub fn custom(files: vqa_json::Files, metric: Option<&str>) -> Result<PlannedDataset> {
    let metric = find_metric(metric.unwrap_or(CUSTOM_METRIC))?;
    Ok(PlannedDataset { dataset: vqa_json::load(files)?, metric, row: None })
}
