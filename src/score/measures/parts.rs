//! Accuracy by the part of the dataset that questions belong to (VQA-CE, VQA-CP).

use super::{Evidence, Figure};
use crate::error::Result;
use crate::score::summary::group;

/// Accuracy over all questions and over those of each part.
pub(super) fn accuracies(evidence: &Evidence) -> Result<Vec<Figure>> {
    let parts = evidence.parts()?;
    let mut figures = vec![Figure::mean("accuracy", evidence.scores, evidence.clusters)];
    for (part, name) in (0..).zip(parts.names) {
        let members: Vec<usize> = (0..parts.of.len()).filter(|question| parts.of[*question] == part).collect();
        figures.push(Figure::named(format!("accuracy {name}"), group(evidence.scores, evidence.clusters, &members).0));
    }
    Ok(figures)
}
