//! The table of shifts: one line per model and dataset, one column per modality.

use super::markdown::{Head, markdown, unknown, with_interval};
use super::named_model;

/// How far a dataset has shifted for a model.
#[derive(Debug, Clone)]
pub struct DatasetShifts<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Whether it was evaluated as one that was not fine-tuned.
    pub zero_shot: bool,
    /// Name of the dataset.
    pub dataset: &'a str,
    /// Questions measured.
    pub n: usize,
    /// The mean distance of each modality and its 95 % interval.
    pub shifts: Vec<Option<(f64, Option<[f64; 2]>)>>,
}

/// A Markdown table of mean distances, which have no unit, with their 95 % intervals. It has a column of models where there
/// are several.
pub fn dataset_shifts(modalities: &[&str], rows: &[DatasetShifts]) -> String {
    let several = rows.iter().any(|row| row.model != rows[0].model);
    let models = several.then_some(("model", false)).into_iter();
    let heads = models.chain([("dataset", false), ("n", true)]).chain(modalities.iter().map(|name| (*name, true)));
    let heads: Vec<Head> = heads.map(|(text, number)| Head { text, number }).collect();
    let cells = |row: &DatasetShifts| {
        let model = several.then(|| named_model(row.model, row.zero_shot, false)).into_iter();
        let shifts =
            row.shifts.iter().map(|shift| shift.map_or_else(unknown, |(mean, interval)| with_interval(mean, interval)));
        model.chain([row.dataset.to_owned(), row.n.to_string()]).chain(shifts).collect()
    };
    markdown(&heads, &rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_where_there_are_several() {
        let row = |model, shifts| DatasetShifts { model, zero_shot: false, dataset: "far", n: 12, shifts };
        let one = row("a", vec![Some((27.841, Some([27.5, 28.004]))), None]);
        let expected = "\
| dataset |  n |                 vision | answer |
|---------|---:|-----------------------:|-------:|
| far     | 12 | 27.84 (27.50 to 28.00) |      - |
";
        assert_eq!(dataset_shifts(&["vision", "answer"], std::slice::from_ref(&one)), expected);
        let two = [one, row("b", vec![Some((1.0, None)), None])];
        assert!(dataset_shifts(&["vision", "answer"], &two).starts_with("| model | dataset |  n |"));
    }
}
