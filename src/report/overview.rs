//! The table of a suite: one row per model, one column per dataset and per average.

use super::markdown::{Head, markdown, percent};
use super::named_model;

/// A column of a suite's table.
#[derive(Debug, Clone, Copy)]
pub struct SuiteColumn<'a> {
    /// Its head.
    pub label: &'a str,
    /// How the dataset has shifted; none for an average.
    pub shift: Option<&'a str>,
}

/// A model in a suite's table.
#[derive(Debug, Clone, Copy)]
pub struct SuiteRow<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Whether it was evaluated without fine-tuning.
    pub zero_shot: bool,
    /// Whether a reported set selected its weights.
    pub selected_on_reported: bool,
    /// Percent, column by column.
    pub cells: &'a [Option<f64>],
}

/// How far the datasets of a suite have shifted for a model, in one modality.
#[derive(Debug, Clone, Copy)]
pub struct ShiftCells<'a> {
    /// Name of the model, where there are several.
    pub model: Option<&'a str>,
    /// The modality, such as `vision shift`.
    pub label: &'a str,
    /// Mean distances without unit, column by column.
    pub cells: &'a [Option<f64>],
}

/// Lines that are longer are broken between columns.
const WIDTH: usize = 120;

/// The suite's table in percent with two decimals, with the shift of each dataset under its head, and distances below. Where
/// it is wider than 120 columns, the datasets after an average begin a table of their own.
pub fn overview(columns: &[SuiteColumn], rows: &[SuiteRow], shifts: &[ShiftCells]) -> String {
    let part = |range| part(columns, (rows, shifts), range);
    let whole = part(0..columns.len());
    if whole.lines().all(|line| line.chars().count() <= WIDTH) {
        return whole;
    }
    let begins = |at: &usize| columns[*at].shift.is_some() && columns[*at - 1].shift.is_none();
    let mut bounds: Vec<usize> = (1..columns.len()).filter(begins).collect();
    bounds.insert(0, 0);
    bounds.push(columns.len());
    let parts: Vec<String> = bounds.windows(2).map(|ends| part(ends[0]..ends[1])).collect();
    parts.join("\n")
}

fn part(
    columns: &[SuiteColumn],
    (rows, shifts): (&[SuiteRow], &[ShiftCells]),
    range: std::ops::Range<usize>,
) -> String {
    let mut heads = vec![Head { text: "model", number: false }];
    heads.extend(columns[range.clone()].iter().map(|column| Head { text: column.label, number: true }));
    let heads_of_shifts = columns[range.clone()].iter().map(|column| column.shift.unwrap_or_default().to_owned());
    let mut lines = vec![std::iter::once("shift".to_owned()).chain(heads_of_shifts).collect::<Vec<_>>()];
    for row in rows {
        let model = named_model(row.model, row.zero_shot, row.selected_on_reported);
        let cells = row.cells[range.clone()].iter().map(|cell| percent(*cell));
        lines.push(std::iter::once(model).chain(cells).collect());
    }
    for ShiftCells { model, label, cells } in shifts {
        let of = model.map_or_else(String::new, |model| format!(", {model}"));
        let cells = cells[range.clone()].iter().map(|cell| percent(*cell));
        lines.push(std::iter::once(format!("{label}{of}")).chain(cells).collect());
    }
    markdown(&heads, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [SuiteColumn; 6] = [
        SuiteColumn { label: "VQAv2", shift: Some("none") },
        SuiteColumn { label: "IV-VQA", shift: Some("vision") },
        SuiteColumn { label: "near avg.", shift: None },
        SuiteColumn { label: "VizWiz", shift: Some("far") },
        SuiteColumn { label: "far avg.", shift: None },
        SuiteColumn { label: "OOD avg.", shift: None },
    ];

    #[test]
    fn a_suite_has_a_row_per_model() {
        let cells = [Some(86.291), Some(50.0), Some(50.0), None, None, None];
        let row = SuiteRow { model: "base", zero_shot: true, selected_on_reported: false, cells: &cells };
        let tuned = SuiteRow { model: "tuned", zero_shot: false, selected_on_reported: true, ..row };
        let expected = "\
| model            | VQAv2 | IV-VQA | near avg. | VizWiz | far avg. | OOD avg. |
|------------------|------:|-------:|----------:|-------:|---------:|---------:|
| shift            |  none | vision |           |    far |          |          |
| base (zero-shot) | 86.29 |  50.00 |     50.00 |      - |        - |        - |
| tuned (!)        | 86.29 |  50.00 |     50.00 |      - |        - |        - |
";
        assert_eq!(overview(&COLUMNS, &[row, tuned], &[]), expected);
        let shift = ShiftCells { model: Some("tuned"), label: "vision shift", cells: &cells };
        let with_shift = overview(&COLUMNS, &[row, tuned], &[shift]);
        let last = with_shift.lines().last().unwrap().replace(' ', "");
        assert_eq!(last, "|visionshift,tuned|86.29|50.00|50.00|-|-|-|");
    }

    #[test]
    fn a_wide_suite_is_broken_after_an_average() {
        let name = "m".repeat(70);
        let cells = [Some(1.0); 6];
        let text = overview(
            &COLUMNS,
            &[SuiteRow { model: &name, zero_shot: false, selected_on_reported: false, cells: &cells }],
            &[],
        );
        let heads: Vec<String> =
            text.lines().filter(|line| line.contains("| model")).map(|line| line.replace(' ', "")).collect();
        assert_eq!(heads, ["|model|VQAv2|IV-VQA|nearavg.|", "|model|VizWiz|faravg.|OODavg.|"]);
        assert!(text.contains("|\n\n| model"), "{text}");
    }
}
