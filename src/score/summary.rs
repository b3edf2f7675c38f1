//! Accuracy over a set of questions and its parts, each with its count and interval.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Metric, References};
use crate::error::{Error, Result};
use crate::stats::clustered_mean;

/// Accuracy over a set of questions, in percent and unrounded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the metric.
    pub metric: String,
    /// Number of questions.
    pub n: usize,
    /// Mean accuracy in percent; none for an empty set.
    pub accuracy: Option<f64>,
    /// 95 % interval of `accuracy` over clusters, within 0 to 100; none with fewer than two of them.
    pub interval: Option<[f64; 2]>,
    /// Number of distinct clusters.
    pub clusters: usize,
    /// The same for each `answer_type`; questions without one are in none. AdVQA's `numbers` counts as `number`.
    pub by_answer_type: BTreeMap<String, Group>,
    /// The same for each `question_type`; questions without one are in none.
    pub by_question_type: BTreeMap<String, Group>,
}

/// Accuracy over the questions of one type, in percent and unrounded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Number of questions.
    pub n: usize,
    /// Mean accuracy in percent; none for an empty set.
    pub accuracy: Option<f64>,
    /// 95 % interval of `accuracy` over clusters, within 0 to 100; none with fewer than two of them.
    pub interval: Option<[f64; 2]>,
}

/// Summarises per-question accuracies (0 to 1): overall, by answer type and by question type.
///
/// `clusters` has the number of each question's image, or of another group of questions that stand and fall together; any
/// numbering will do. Sums run in the order of the questions, as in the official evaluator, so that equal input gives equal
/// bytes.
///
/// # Errors
/// Slices of different lengths.
pub fn summarise(metric: &Metric, scores: &[f64], references: &References, clusters: &[u32]) -> Result<Summary> {
    if scores.len() != references.len() || scores.len() != clusters.len() {
        let (scores, questions, clusters) = (scores.len(), references.len(), clusters.len());
        return Err(Error::internal(format!("{scores} scores and {clusters} clusters for {questions} questions")));
    }
    let everything: Vec<usize> = (0..scores.len()).collect();
    let (all, distinct) = group(scores, clusters, &everything);
    Ok(Summary {
        metric: metric.name.to_owned(),
        n: all.n,
        accuracy: all.accuracy,
        interval: all.interval,
        clusters: distinct,
        by_answer_type: by_name(scores, clusters, |question| grouped_type(references, question)),
        by_question_type: by_name(scores, clusters, |question| references.question_type(question)),
    })
}

/// The `answer_type` under which a question is grouped: AdVQA's `numbers` counts as `number`.
pub fn grouped_type(references: &References, question: usize) -> Option<&str> {
    match references.answer_type(question) {
        Some("numbers") => Some("number"),
        name => name,
    }
}

fn by_name<'a>(
    scores: &[f64],
    clusters: &[u32],
    name_of: impl Fn(usize) -> Option<&'a str>,
) -> BTreeMap<String, Group> {
    let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for question in 0..scores.len() {
        if let Some(name) = name_of(question) {
            members.entry(name).or_default().push(question);
        }
    }
    members.into_iter().map(|(name, members)| (name.to_owned(), group(scores, clusters, &members).0)).collect()
}

pub(super) fn group(scores: &[f64], clusters: &[u32], members: &[usize]) -> (Group, usize) {
    let values: Vec<f64> = members.iter().map(|&member| scores[member]).collect();
    let clusters: Vec<u32> = members.iter().map(|&member| clusters[member]).collect();
    let Some(estimate) = clustered_mean(&values, &clusters) else {
        return (Group { n: 0, accuracy: None, interval: None }, 0);
    };
    // The evaluators multiply before they divide, which matters to the last bit.
    let accuracy = 100.0 * values.iter().sum::<f64>() / values.len() as f64;
    let interval = estimate.share_interval().map(|bounds| bounds.map(|bound| 100.0 * bound));
    (Group { n: values.len(), accuracy: Some(accuracy), interval }, estimate.clusters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::METRICS;

    fn references(types: &[Option<&str>]) -> References {
        let mut builder = References::builder();
        for answer_type in types {
            builder.answer("x", None, None).unwrap();
            builder.end_question(*answer_type, Some("what")).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn groups_carry_their_counts() {
        let references = references(&[Some("number"), Some("numbers"), Some("other"), None]);
        let summary = summarise(&METRICS[0], &[1.0, 0.0, 0.3, 0.9], &references, &[0, 1, 0, 1]).unwrap();
        assert_eq!((summary.n, summary.clusters, summary.accuracy), (4, 2, Some(55.00000000000001)));
        let parts: Vec<_> =
            summary.by_answer_type.iter().map(|(name, part)| (&**name, part.n, part.accuracy)).collect();
        assert_eq!(parts, [("number", 2, Some(50.0)), ("other", 1, Some(30.0))]);
        assert_eq!(summary.by_answer_type["other"].interval, None);
        assert_eq!(summary.by_question_type["what"].n, 4);
        assert_eq!(summary.interval, Some([0.0, 100.0]));
    }

    #[test]
    fn nothing_gives_no_value() {
        let summary = summarise(&METRICS[0], &[], &References::default(), &[]).unwrap();
        assert_eq!((summary.n, summary.accuracy, summary.interval, summary.clusters), (0, None, None, 0));
        let json = serde_json::to_value(&summary).unwrap();
        assert!(json["accuracy"].is_null() && json["by_answer_type"].as_object().unwrap().is_empty());
    }
}
