//! One dataset answered by two runs: scores, their difference, and what it means.

use serde::{Deserialize, Serialize};

use super::super::evaluation::PlannedDataset;
use super::super::pipeline::common_answer;
use super::thresholds::{Limits, Thresholds};
use crate::error::{Error, Result};
use crate::score::{ScoreOptions, Summary, score, summarise};
use crate::stats::{clustered_mean, detectable_difference, holm, sign_flip};

/// Probability with which a drop of [`DatasetComparison::detectable_drop`] is found.
pub const POWER: f64 = 0.8;

/// What two runs answered to the questions of a dataset, in their order.
#[derive(Debug, Clone)]
pub struct AnsweredTwice<'a> {
    /// The dataset and its metric.
    pub planned: &'a PlannedDataset,
    /// Answers of the baseline.
    pub baseline: &'a [Box<str>],
    /// Answers of the current run.
    pub current: &'a [Box<str>],
}

/// A dataset in two runs. Accuracies are in percent, differences in points, current less baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatasetComparison {
    /// Name of the dataset.
    pub dataset: String,
    /// Name of the metric of both.
    pub metric: String,
    /// Number of questions.
    pub n: usize,
    /// Number of distinct images.
    pub images: usize,
    /// The baseline.
    pub baseline: Accuracy,
    /// The current run.
    pub current: Accuracy,
    /// Mean of the differences of single questions.
    pub difference: f64,
    /// Its 95 % interval, clustered by what stands and falls together ([`crate::data::Dataset::clusters`]); none with
    /// fewer than two clusters.
    pub interval: Option<[f64; 2]>,
    /// P-value of a drop, one-sided: see [`sign_flip`].
    pub drop_p_value: f64,
    /// The same, adjusted by Holm's method for all datasets that are compared.
    pub drop_p_value_holm: f64,
    /// P-value of a change, two-sided.
    pub change_p_value: f64,
    /// The same, adjusted likewise.
    pub change_p_value_holm: f64,
    /// Whether p-values are exact, rather than from the normal distribution.
    pub exact: bool,
    /// The drop that would be found with a probability of [`POWER`], were it tested at the level divided by the number of
    /// datasets and the differences as varied as these; none where too few clusters differ for any drop to be found.
    pub detectable_drop: Option<f64>,
    /// Questions whose score fell.
    pub lost: Flips,
    /// Questions whose score rose.
    pub gained: Flips,
    /// What is let pass.
    pub limits: Limits,
    /// What the difference means.
    pub outcome: Outcome,
    /// Why it fails, in words; empty where it passes.
    pub failures: Vec<String>,
}

/// Accuracy of a run on a dataset, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Mean over the questions.
    pub accuracy: f64,
    /// Its 95 % interval over clusters; none with fewer than two of them.
    pub interval: Option<[f64; 2]>,
}

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A threshold is broken.
    Fails,
    /// A significant drop that is tolerated.
    TolerableDrop,
    /// No change is shown.
    NoChange,
    /// A significant gain.
    Better,
}

/// Questions whose score has changed in one direction.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Flips {
    /// Number of them all.
    pub count: usize,
    /// The first of them.
    pub first: Vec<Flip>,
}

/// A question whose score has changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flip {
    /// JSON text of the question's identifier.
    pub question_id: String,
    /// JSON text of the image's identifier.
    pub image_id: String,
    /// The question.
    pub question: String,
    /// The answer that most people gave.
    pub reference: String,
    /// Answers of baseline and current run.
    pub answers: [String; 2],
    /// Their scores, from 0 to 1.
    pub scores: [f64; 2],
}

/// Scores the answers of both runs and compares them, dataset by dataset; up to so many `examples` of questions whose score
/// fell, and of others whose score rose, are kept of each.
///
/// # Errors
/// A dataset without questions or human answers, and numbers of answers or thresholds that do not fit.
pub fn compare_answers(
    answered: &[AnsweredTwice],
    thresholds: &Thresholds,
    examples: usize,
) -> Result<Vec<DatasetComparison>> {
    if answered.is_empty() {
        return Err(Error::incomplete("there is nothing to compare").hint("name a suite or datasets"));
    }
    if answered.len() != thresholds.limits.len() {
        return Err(Error::internal("not as many thresholds as datasets"));
    }
    let level = thresholds.level / answered.len() as f64;
    let compared = answered.iter().zip(&thresholds.limits).map(|(one, limits)| compared(one, *limits, level, examples));
    let mut compared = compared.collect::<Result<Vec<_>>>()?;
    let adjusted = |p_value: fn(&DatasetComparison) -> f64, compared: &[DatasetComparison]| {
        holm(&compared.iter().map(p_value).collect::<Vec<_>>()).ok_or_else(|| Error::internal("no p-values"))
    };
    let drops = adjusted(|one| one.drop_p_value, &compared)?;
    let changes = adjusted(|one| one.change_p_value, &compared)?;
    for (one, (drop, change)) in compared.iter_mut().zip(drops.into_iter().zip(changes)) {
        (one.drop_p_value_holm, one.change_p_value_holm) = (drop, change);
        one.judge(thresholds.level);
    }
    Ok(compared)
}

/// The comparison of one dataset, its p-values not adjusted yet.
fn compared(answered: &AnsweredTwice, limits: Limits, level: f64, examples: usize) -> Result<DatasetComparison> {
    let AnsweredTwice { planned, baseline, current } = answered;
    let name = &planned.dataset.name;
    let clusters = planned.dataset.clusters();
    let [(before, old), (after, new)] = [scored(planned, baseline, &clusters)?, scored(planned, current, &clusters)?];
    let differences: Vec<f64> = new.iter().zip(&old).map(|(new, old)| difference(*new, *old)).collect();
    let (test, mean) = (sign_flip(&differences, &clusters), clustered_mean(&differences, &clusters));
    let (Some(test), Some(mean)) = (test, mean) else {
        return Err(Error::incomplete(format!("`{name}` has no questions to compare")));
    };
    // Random signs of too few clusters are never as rare as the level asks for.
    let testable = test.differing as f64 >= -level.log2();
    let error = mean.standard_error.filter(|_| testable);
    let detectable = error.and_then(|error| detectable_difference(error, level, POWER));
    let flips = |fell: bool| {
        let changed = |question: &usize| if fell { differences[*question] < 0.0 } else { differences[*question] > 0.0 };
        let questions: Vec<usize> = (0..differences.len()).filter(changed).collect();
        let first = questions.iter().take(examples).map(|question| flip(answered, *question, [&old, &new])).collect();
        Flips { count: questions.len(), first }
    };
    Ok(DatasetComparison {
        dataset: name.clone(),
        metric: planned.metric.name.to_owned(),
        n: mean.n,
        images: planned.dataset.image_count(),
        baseline: accuracy(name, &before)?,
        current: accuracy(name, &after)?,
        difference: 100.0 * mean.mean,
        interval: mean.interval.map(|bounds| bounds.map(|bound| 100.0 * bound)),
        drop_p_value: test.drop_p_value,
        drop_p_value_holm: test.drop_p_value,
        change_p_value: test.p_value,
        change_p_value_holm: test.p_value,
        exact: test.exact,
        detectable_drop: detectable.map(|drop| 100.0 * drop),
        lost: flips(true),
        gained: flips(false),
        limits,
        outcome: Outcome::NoChange,
        failures: Vec::new(),
    })
}

fn scored(planned: &PlannedDataset, answers: &[Box<str>], clusters: &[u32]) -> Result<(Summary, Vec<f64>)> {
    let references = planned.dataset.references.as_ref().ok_or_else(|| {
        Error::input(format!("`{}` has no human answers to score by", planned.dataset.name))
            .hint("leave it out: name the other datasets with --dataset, or in a suite of your own")
    })?;
    let scores = score(planned.metric, ScoreOptions::default(), answers, references)?;
    Ok((summarise(planned.metric, &scores, references, clusters)?, scores))
}

/// Accuracy of a run's answers to a dataset.
pub(super) fn scored_by(planned: &PlannedDataset, answers: &[Box<str>]) -> Result<Accuracy> {
    let (summary, _) = scored(planned, answers, &planned.dataset.clusters())?;
    accuracy(&planned.dataset.name, &summary)
}

fn accuracy(dataset: &str, summary: &Summary) -> Result<Accuracy> {
    let accuracy = summary.accuracy.ok_or_else(|| Error::incomplete(format!("`{dataset}` has no questions")))?;
    Ok(Accuracy { accuracy, interval: summary.interval })
}

fn flip(answered: &AnsweredTwice, position: usize, [old, new]: [&[f64]; 2]) -> Flip {
    let dataset = &answered.planned.dataset;
    let question = &dataset.questions[position];
    let (question_id, image_id) = question.key();
    Flip {
        question_id,
        image_id,
        question: question.text.to_string(),
        reference: common_answer(dataset, position).unwrap_or_default().to_owned(),
        answers: [answered.baseline, answered.current].map(|answers| answers[position].to_string()),
        scores: [old[position], new[position]],
    }
}

/// Differences below this are errors of rounding, of scores (equal ones may be sums in another order) and of points.
const ROUNDING: f64 = 1e-9;

fn difference(new: f64, old: f64) -> f64 {
    if (new - old).abs() < ROUNDING { 0.0 } else { new - old }
}

impl DatasetComparison {
    /// Decides what the difference means.
    fn judge(&mut self, level: f64) {
        let Self { difference, limits: Limits { tolerated_drop, max_drop, min_accuracy }, .. } = *self;
        let (drop, accuracy) = (-difference, self.current.accuracy);
        let significant = self.drop_p_value_holm <= level && drop > 0.0;
        let mut failures = Vec::new();
        if significant && drop > tolerated_drop + ROUNDING {
            let p_value = self.drop_p_value_holm;
            let p_value = if p_value < 0.001 { "< 0.001".to_owned() } else { format!("{p_value:.3}") };
            let more = if tolerated_drop > 0.0 {
                format!(", more than the tolerated {tolerated_drop}")
            } else {
                String::new()
            };
            failures.push(format!("accuracy fell by {drop:.2} points{more} (p {p_value} after Holm)"));
        }
        if let Some(most) = max_drop.filter(|most| drop > most + ROUNDING) {
            failures.push(format!("accuracy fell by {drop:.2} points, more than max-drop = {most}"));
        }
        if let Some(least) = min_accuracy.filter(|least| accuracy < least - ROUNDING) {
            failures.push(format!("accuracy is {accuracy:.2} %, below min-accuracy = {least}"));
        }
        self.outcome = match failures.is_empty() {
            false => Outcome::Fails,
            true if significant => Outcome::TolerableDrop,
            true if self.change_p_value_holm <= level && difference > 0.0 => Outcome::Better,
            true => Outcome::NoChange,
        };
        self.failures = failures;
    }
}
