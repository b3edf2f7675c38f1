//! Tables from scores. Computes no statistic of its own.

use std::fmt::Write;

use crate::score::{Group, Summary};

/// One measured result.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Name of the dataset.
    pub dataset: &'a str,
    /// Its accuracy, if the dataset has references.
    pub summary: Option<&'a Summary>,
    /// Questions answered.
    pub n: usize,
}

/// What was the same for all rows of a table, told below it.
#[derive(Debug, Clone, Copy)]
pub struct Conditions<'a> {
    /// Prompt with `{q}` for the question.
    pub prompt: &'a str,
    /// Search for the answer.
    pub decoding: &'a str,
}

const HEAD: [&str; 6] = ["model", "dataset", "answers", "n", "accuracy %", "95 % interval"];

/// A Markdown table with one line for all questions of a row and one per answer type.
pub fn table(rows: &[Row], conditions: Conditions) -> String {
    let mut lines: Vec<[String; 6]> = vec![HEAD.map(str::to_owned)];
    for row in rows {
        lines.extend(lines_of(row));
    }
    let mut text = aligned(&lines);
    let mut metrics: Vec<&str> = rows.iter().filter_map(|row| row.summary).map(|summary| &*summary.metric).collect();
    metrics.dedup();
    let metric = if metrics.is_empty() { "none (no human answers)".to_owned() } else { metrics.join(", ") };
    let Conditions { prompt, decoding } = conditions;
    // Writing to a string does not fail.
    let _ =
        writeln!(text, "\nMetric: {metric}. Prompt: `{prompt}`. Decoding: {decoding}. Intervals clustered by image.");
    text
}

fn lines_of(row: &Row) -> Vec<[String; 6]> {
    let line = |answers: &str, group: Group| {
        let accuracy = group.accuracy.map_or_else(|| "-".to_owned(), |accuracy| format!("{accuracy:.2}"));
        let interval = group.interval.map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:.2} to {high:.2}"));
        let names = [row.model, row.dataset].map(str::to_owned);
        let [model, dataset] = names;
        [model, dataset, answers.to_owned(), group.n.to_string(), accuracy, interval]
    };
    let Some(summary) = row.summary else {
        return vec![line("all", Group { n: row.n, accuracy: None, interval: None })];
    };
    let all = Group { n: summary.n, accuracy: summary.accuracy, interval: summary.interval };
    let types = summary.by_answer_type.iter().map(|(name, group)| line(name, *group));
    std::iter::once(line("all", all)).chain(types).collect()
}

/// The lines as Markdown, padded so that the source reads as a table too; numbers to the right.
fn aligned(lines: &[[String; 6]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let number = |column: usize| column >= 3;
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            // Writing to a string does not fail.
            let _ = match number(column) {
                true => write!(text, "| {cell:>width$} "),
                false => write!(text, "| {cell:<width$} "),
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let (dashes, end) = if number(column) { (width + 1, ":") } else { (width + 2, "") };
                let _ = write!(text, "|{}{end}", "-".repeat(dashes));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_and_reads_as_text() {
        let group = Group { n: 3, accuracy: Some(66.666), interval: Some([10.0, 99.5]) };
        let summary = Summary {
            metric: "official-2021".into(),
            n: 4,
            accuracy: Some(50.0),
            interval: None,
            clusters: 1,
            by_answer_type: [("yes/no".to_owned(), group)].into(),
            by_question_type: Default::default(),
        };
        let row = Row { model: "m", dataset: "easy-vqa", summary: Some(&summary), n: 4 };
        let expected = "\
| model | dataset  | answers | n | accuracy % |  95 % interval |
|-------|----------|---------|--:|-----------:|---------------:|
| m     | easy-vqa | all     | 4 |      50.00 |              - |
| m     | easy-vqa | yes/no  | 3 |      66.67 | 10.00 to 99.50 |

Metric: official-2021. Prompt: `{q}`. Decoding: greedy. Intervals clustered by image.
";
        assert_eq!(table(&[row], Conditions { prompt: "{q}", decoding: "greedy" }), expected);
    }
}
