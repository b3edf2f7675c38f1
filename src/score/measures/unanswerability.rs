//! Telling questions that cannot be answered (VizWiz).

use super::{Evidence, Figure};
use crate::error::{Error, Result};
use crate::score::normalise;

/// The answer that says so, and the part of the questions for which it is right.
const UNANSWERABLE: &str = "unanswerable";

/// Average precision and F1 with unanswerable questions as the positive class. Models that answer in words alone call a
/// question unanswerable by exactly that answer, after normalisation.
pub(super) fn unanswerability(evidence: &Evidence) -> Result<Vec<Figure>> {
    let parts = evidence.parts()?;
    let part = parts.names.iter().position(|name| &**name == UNANSWERABLE);
    let part = part.ok_or_else(|| Error::internal(format!("no part of the questions is named `{UNANSWERABLE}`")))?;
    let positive: Vec<bool> = parts.of.iter().map(|of| *of as usize == part).collect();
    let said: Vec<bool> = evidence.answers.iter().map(|answer| normalise::vizwiz(answer) == UNANSWERABLE).collect();
    let confidence: Vec<f64> = said.iter().map(|said| f64::from(u8::from(*said))).collect();
    let figure = |name: &str, value: Option<f64>| Figure {
        name: name.to_owned(),
        n: positive.len(),
        value: value.map(|value| 100.0 * value),
        interval: None,
    };
    Ok(vec![figure("average precision", average_precision(&confidence, &positive)), figure("F1", f1(&said, &positive))])
}

/// Average precision, 0 to 1: the precision at each distinct confidence, from the highest on, weighted by the recall
/// gained there; none without positives.
///
/// As scikit-learn's `average_precision_score`, which neither interpolates nor breaks ties.
pub fn average_precision(confidence: &[f64], positive: &[bool]) -> Option<f64> {
    let total = positive.iter().filter(|positive| **positive).count();
    let mut order: Vec<usize> = (0..confidence.len().min(positive.len())).collect();
    order.sort_by(|left, right| confidence[*right].total_cmp(&confidence[*left]));
    let (mut found, mut seen, mut sum) = (0, 0, 0.0);
    for tied in order.chunk_by(|left, right| confidence[*left] == confidence[*right]) {
        let gained = tied.iter().filter(|question| positive[**question]).count();
        (found, seen) = (found + gained, seen + tied.len());
        sum += gained as f64 / total as f64 * (found as f64 / seen as f64);
    }
    (total > 0).then_some(sum)
}

/// F1, 0 to 1: twice the hits by the number of claims plus that of positives; none where there are neither.
pub fn f1(claimed: &[bool], positive: &[bool]) -> Option<f64> {
    let hits = claimed.iter().zip(positive).filter(|(claimed, positive)| **claimed && **positive).count();
    let claims = claimed.iter().chain(positive).filter(|holds| **holds).count();
    (claims > 0).then(|| 2.0 * hits as f64 / claims as f64)
}
