//! Tables of how shift goes with accuracy, and distances with each other and with wrong answers.

use super::markdown::{Head, markdown, p_value, unknown, with_interval};
use crate::stats::{COEFFICIENTS, ClusteredCorrelation, Correlation, Discrimination};

/// How accuracy goes with the shift of one modality over datasets.
#[derive(Debug, Clone)]
pub struct ShiftAccuracyRow<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// The modality, such as `vision shift`.
    pub label: &'a str,
    /// One for each of [`COEFFICIENTS`].
    pub coefficients: &'a [Option<Correlation>],
    /// P-value of Pearson's coefficient, adjusted for all rows.
    pub adjusted: Option<f64>,
}

/// A Markdown table of coefficients with their intervals and p-values.
pub fn shift_accuracy(rows: &[ShiftAccuracyRow]) -> String {
    let number = |text| Head { text, number: true };
    let text = |text| Head { text, number: false };
    let coefficients = COEFFICIENTS.iter().flat_map(|row| [number(row.label), number("p")]);
    let heads: Vec<Head> = [text("model"), text("shift"), number("n")]
        .into_iter()
        .chain(coefficients)
        .chain([number("p of Pearson, Holm")])
        .collect();
    let cells = |row: &ShiftAccuracyRow| {
        let n = row.coefficients.iter().flatten().next().map_or_else(unknown, |one| one.n.to_string());
        let coefficients = row.coefficients.iter().flat_map(|one| match one {
            Some(one) => [with_interval(one.coefficient, one.interval), p_value(Some(one.p_value))],
            None => [unknown(), unknown()],
        });
        let names = [row.model.to_owned(), row.label.to_owned(), n];
        names.into_iter().chain(coefficients).chain([p_value(row.adjusted)]).collect()
    };
    markdown(&heads, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// How distances of one dataset go with each other and with wrong answers.
#[derive(Debug, Clone)]
pub struct DistanceRelationRow<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Name of the dataset.
    pub dataset: &'a str,
    /// Pearson's coefficient of the distances of image and joint.
    pub vision_joint: Option<ClusteredCorrelation>,
    /// Pearson's coefficient of the distances of question and joint.
    pub question_joint: Option<ClusteredCorrelation>,
    /// How well the distances of each modality tell wrong answers.
    pub wrong_answers: &'a [Option<Discrimination>],
}

impl DistanceRelationRow<'_> {
    /// Whether there is anything to tell.
    pub fn tells(&self) -> bool {
        self.vision_joint.is_some() || self.question_joint.is_some() || self.wrong_answers.iter().any(Option::is_some)
    }
}

/// A Markdown table with a line per model and dataset; `modalities` are the names of the columns of wrong answers.
pub fn distance_relations(modalities: &[&str], rows: &[DistanceRelationRow]) -> String {
    // Without answers, or with features of one kind, whole columns would be empty.
    let told = |at: &usize| rows.iter().any(|row| row.wrong_answers.get(*at).is_some_and(Option::is_some));
    let told: Vec<usize> = (0..modalities.len()).filter(told).collect();
    let areas: Vec<String> = told.iter().map(|at| format!("AUROC {}", modalities[*at])).collect();
    let heads =
        [("model", false), ("dataset", false), ("n", true), ("r question, joint", true), ("r image, joint", true)];
    let heads = heads.into_iter().chain(areas.iter().map(|name| (name.as_str(), true)));
    let heads: Vec<Head> = heads.map(|(text, number)| Head { text, number }).collect();
    let correlation = |one: Option<ClusteredCorrelation>| {
        one.map_or_else(unknown, |one| with_interval(one.coefficient, one.interval))
    };
    let cells = |row: &DistanceRelationRow| {
        let scored = row.wrong_answers.iter().flatten().map(|one| one.positives + one.negatives).max();
        let n = row.vision_joint.or(row.question_joint).map(|one| one.n).or(scored);
        let n = n.map_or_else(unknown, |n| n.to_string());
        let area = |at: &usize| row.wrong_answers.get(*at).copied().flatten();
        let areas =
            told.iter().map(area).map(|one| one.map_or_else(unknown, |one| with_interval(one.area, one.interval)));
        let names = [row.model.to_owned(), row.dataset.to_owned(), n];
        names.into_iter().chain([correlation(row.question_joint), correlation(row.vision_joint)]).chain(areas).collect()
    };
    markdown(&heads, &rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_have_intervals_and_p_values() {
        let one = Correlation { coefficient: -0.7379, p_value: 0.0148, interval: Some([-0.933, -0.2]), n: 10 };
        let coefficients = [Some(one), Some(Correlation { p_value: 1e-6, interval: None, ..one }), None];
        let row =
            ShiftAccuracyRow { model: "m", label: "vision shift", coefficients: &coefficients, adjusted: Some(0.059) };
        let expected = "\
| model | shift        |  n |                Pearson |     p | Spearman |       p | Kendall | p | p of Pearson, Holm |
|-------|--------------|---:|-----------------------:|------:|---------:|--------:|--------:|--:|-------------------:|
| m     | vision shift | 10 | -0.74 (-0.93 to -0.20) | 0.015 |    -0.74 | < 0.001 |       - | - |              0.059 |
";
        assert_eq!(shift_accuracy(&[row]), expected);
    }
}
