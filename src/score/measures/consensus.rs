//! Consensus among the answers to a question and its rephrasings (VQA-Rephrasings).

use std::collections::BTreeMap;

use super::{Evidence, Figure};
use crate::error::Result;

/// Members of a group: the original and its rephrasings.
const MEMBERS: usize = 4;

/// CS(1) to CS(4) over complete groups, and the accuracy on originals and on rephrasings.
///
/// CS(k) is the share of subsets of k members in which every accuracy is above zero: with c such members of four,
/// C(c, k) / C(4, k).
pub(super) fn consensus(evidence: &Evidence) -> Result<Vec<Figure>> {
    let groups = evidence.groups()?;
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (question, group) in groups.of.iter().enumerate() {
        members.entry(*group).or_default().push(question);
    }
    let originals = |members: &[usize]| members.iter().filter(|member| groups.original[**member]).count();
    let is_complete = |members: &&Vec<usize>| members.len() == MEMBERS && originals(members) == 1;
    let complete: Vec<&Vec<usize>> = members.values().filter(is_complete).collect();
    let clusters: Vec<u32> = complete.iter().map(|members| evidence.clusters[members[0]]).collect();
    let answered = |members: &&Vec<usize>| members.iter().filter(|member| evidence.scores[**member] > 0.0).count();
    let answered: Vec<usize> = complete.iter().map(answered).collect();
    let mut figures: Vec<Figure> = (1..=MEMBERS)
        .map(|k| {
            let values: Vec<f64> = answered.iter().map(|c| subsets(*c, k) / subsets(MEMBERS, k)).collect();
            Figure::mean(format!("CS({k})"), &values, &clusters)
        })
        .collect();
    for (name, original) in [("accuracy originals", true), ("accuracy rephrasings", false)] {
        let chosen = (0..evidence.scores.len()).filter(|question| groups.original[*question] == original);
        let (scores, clusters): (Vec<f64>, Vec<u32>) =
            chosen.map(|question| (evidence.scores[question], evidence.clusters[question])).unzip();
        figures.push(Figure::mean(name, &scores, &clusters));
    }
    Ok(figures)
}

/// The number of subsets of `k` of `n` things.
fn subsets(n: usize, k: usize) -> f64 {
    (0..k).fold(1.0, |product, taken| product * (n as f64 - taken as f64) / (taken as f64 + 1.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_counted() {
        let rows = [[0.0; 4], [1.0, 0.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0], [3.0, 3.0, 1.0, 0.0], [4.0, 6.0, 4.0, 1.0]];
        for (n, row) in rows.iter().enumerate() {
            assert_eq!([1, 2, 3, 4].map(|k| subsets(n, k)), *row, "of {n}");
        }
    }
}
