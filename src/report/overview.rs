//! The table of a suite: one row per model, one column per dataset and per average.

use std::ops::Range;

use super::markdown::{Head, markdown, percent};
use super::named_model;
use crate::suite::{Column, MODALITIES, Overview};

/// Lines that are longer are broken between columns.
const WIDTH: usize = 120;

/// The suite's table in percent with two decimals, with the shift of each dataset under its head, and distances below. Where
/// it is wider than 120 columns, the datasets after an average begin a table of their own.
pub fn overview(overview: &Overview) -> String {
    in_parts(&overview.columns, |range| part(overview, range))
}

/// What `part` makes of all columns, or where that is too wide, of the columns up to each average.
pub(super) fn in_parts(columns: &[Column], part: impl Fn(Range<usize>) -> String) -> String {
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

/// The heads of these columns, after one for the rows' names, and the line of shifts below them.
pub(super) fn column_heads(columns: &[Column]) -> (Vec<Head<'_>>, Vec<String>) {
    let mut heads = vec![Head { text: "model", number: false }];
    heads.extend(columns.iter().map(|column| Head { text: &column.label, number: true }));
    let shifts = columns.iter().map(|column| column.shift.unwrap_or_default().to_owned());
    (heads, std::iter::once("shift".to_owned()).chain(shifts).collect())
}

fn part(overview: &Overview, range: Range<usize>) -> String {
    let (heads, shifts) = column_heads(&overview.columns[range.clone()]);
    let mut lines = vec![shifts];
    let numbers = |cells: &[Option<f64>]| cells[range.clone()].iter().map(|cell| percent(*cell)).collect::<Vec<_>>();
    for row in &overview.rows {
        let model = named_model(&row.model, row.zero_shot, row.selected_on_reported);
        lines.push(std::iter::once(model).chain(numbers(&row.cells)).collect());
    }
    let several = overview.shifts.iter().any(|shift| shift.model != overview.shifts[0].model);
    for shift in &overview.shifts {
        let of = if several { format!(", {}", shift.model) } else { String::new() };
        let label = format!("{}{of}", modality_label(shift.modality));
        lines.push(std::iter::once(label).chain(numbers(&shift.cells)).collect());
    }
    markdown(&heads, &lines)
}

/// The name of a modality in tables.
pub(super) fn modality_label(name: &str) -> &str {
    MODALITIES.iter().find(|row| row.name == name).map_or(name, |row| row.label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{OverviewRow, OverviewShift};

    fn example(model: &str) -> Overview {
        let column = |label: &str, shift| Column {
            name: label.to_lowercase(),
            label: label.to_owned(),
            shift,
            average_of: Vec::new(),
        };
        let cells = vec![Some(86.291), Some(50.0), Some(50.0), None, None, None];
        let row = |model: &str, zero_shot, selected_on_reported| OverviewRow {
            model: model.to_owned(),
            zero_shot,
            selected_on_reported,
            cells: cells.clone(),
        };
        Overview {
            suite: "own".to_owned(),
            columns: vec![
                column("VQAv2", Some("none")),
                column("IV-VQA", Some("vision")),
                column("near avg.", None),
                column("VizWiz", Some("far")),
                column("far avg.", None),
                column("OOD avg.", None),
            ],
            rows: vec![row("base", true, false), row(model, false, true)],
            shifts: Vec::new(),
        }
    }

    #[test]
    fn a_suite_has_a_row_per_model() {
        let expected = "\
| model            | VQAv2 | IV-VQA | near avg. | VizWiz | far avg. | OOD avg. |
|------------------|------:|-------:|----------:|-------:|---------:|---------:|
| shift            |  none | vision |           |    far |          |          |
| base (zero-shot) | 86.29 |  50.00 |     50.00 |      - |        - |        - |
| tuned (!)        | 86.29 |  50.00 |     50.00 |      - |        - |        - |
";
        let mut suite = example("tuned");
        assert_eq!(overview(&suite), expected);
        let shift = |model: &str| OverviewShift {
            model: model.to_owned(),
            modality: "vision",
            cells: suite.rows[0].cells.clone(),
        };
        suite.shifts = vec![shift("base"), shift("tuned")];
        let last = overview(&suite).lines().last().unwrap().replace(' ', "");
        assert_eq!(last, "|visionshift,tuned|86.29|50.00|50.00|-|-|-|");
        suite.shifts.pop();
        assert!(overview(&suite).lines().last().unwrap().starts_with("| vision shift "));
    }

    #[test]
    fn a_wide_suite_is_broken_after_an_average() {
        let text = overview(&example(&"m".repeat(70)));
        let heads: Vec<String> =
            text.lines().filter(|line| line.contains("| model")).map(|line| line.replace(' ', "")).collect();
        assert_eq!(heads, ["|model|VQAv2|IV-VQA|nearavg.|", "|model|VizWiz|faravg.|OODavg.|"]);
        assert!(text.contains("|\n\n| model"), "{text}");
    }
}
