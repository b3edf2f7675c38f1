//! The questions that the arguments of `vqa` and `score` name, with the metric to score them by.

use std::path::Path;

use digrap_bench::data::{find_dataset, vqa_json};
use digrap_bench::error::Result;
use digrap_bench::score::find_metric;
use digrap_bench::suite::PlannedDataset;

/// The metric of a set of one's own, where none is named.
const CUSTOM_METRIC: &str = "official-2021";

/// A known dataset, from its folder or else from where `make setup` puts it; its own metric where none is named.
pub fn dataset(name: &str, root: Option<&Path>, metric: Option<&str>) -> Result<PlannedDataset> {
    let row = find_dataset(name)?;
    let metric = find_metric(metric.unwrap_or(row.metric))?;
    let root = match root {
        Some(root) => root.to_owned(),
        None => super::machine::folders()?.data.join("datasets").join(row.name),
    };
    Ok(PlannedDataset { dataset: (row.load)(&root)?, metric })
}

/// A set of one's own in the official format.
pub fn custom(files: vqa_json::Files, metric: Option<&str>) -> Result<PlannedDataset> {
    let metric = find_metric(metric.unwrap_or(CUSTOM_METRIC))?;
    Ok(PlannedDataset { dataset: vqa_json::load(files)?, metric })
}
