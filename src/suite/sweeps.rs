//! Accuracies by the value of one hyper-parameter.

use std::collections::BTreeMap;

use super::manifest::Suite;
use super::stored::StoredRun;
use crate::stats::complete_mean;

/// How accuracy goes with a hyper-parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweeps {
    /// What was trained and evaluated.
    pub title: String,
    /// The hyper-parameter.
    pub parameter: String,
    /// Its values, in ascending order.
    pub values: Vec<f64>,
    /// Lines of accuracies in percent, each with its name.
    pub series: Vec<(String, Vec<Option<f64>>)>,
}

/// The sweeps among evaluated models: those whose names are one setting with numbers, such as `mu=0.01` and `mu=0.1`, as
/// `train --sweep` names its runs.
pub fn stored_sweeps(suite: &Suite, runs: &[&StoredRun]) -> Vec<Sweeps> {
    let mut sweeps: BTreeMap<&str, Vec<(f64, &StoredRun)>> = BTreeMap::new();
    for run in runs {
        let setting = run.model.name.split_once('=');
        if let Some((key, Ok(value))) = setting.map(|(key, value)| (key, value.parse::<f64>())) {
            sweeps.entry(key).or_default().push((value, run));
        }
    }
    let of_several = sweeps.into_iter().filter(|(_, runs)| runs.len() > 1);
    of_several.map(|(key, runs)| sweep(suite, key, runs)).collect()
}

fn sweep(suite: &Suite, key: &str, mut runs: Vec<(f64, &StoredRun)>) -> Sweeps {
    runs.sort_by(|one, other| one.0.total_cmp(&other.0));
    let accuracy = |run: &StoredRun, name: &str| {
        let position = suite.datasets.iter().position(|dataset| dataset.row.name == name)?;
        run.datasets.iter().find(|dataset| dataset.position == position)?.summary.as_ref()?.accuracy
    };
    let in_distribution = suite.in_distribution();
    let own = (in_distribution.label.clone(), vec![in_distribution.row.name.to_owned()]);
    let groups = suite.groups.iter().map(|group| (group.label.clone(), group.datasets.clone()));
    let line = |(label, datasets): (String, Vec<String>)| {
        let mean = |(_, run): &(f64, &StoredRun)| {
            complete_mean(&datasets.iter().map(|name| accuracy(run, name)).collect::<Vec<_>>())
        };
        (label, runs.iter().map(mean).collect())
    };
    Sweeps {
        title: suite.name.clone(),
        parameter: key.to_owned(),
        values: runs.iter().map(|(value, _)| *value).collect(),
        series: std::iter::once(own).chain(groups).map(line).collect(),
    }
}
