//! Tables and figures from scores. Computes no statistic of its own.

mod comparison;
mod distances;
pub mod figure;
mod file_names;
mod junit;
mod leaderboard;
mod markdown;
mod mlflow;
mod overview;
pub mod page;
mod paper;
mod plots;
mod relations;
mod runs;
mod sample_log;
mod shift;
mod tensorboard;

pub use self::comparison::{blessed, comparison, refused_comparison};
pub use self::distances::{DatasetShifts, dataset_shifts};
pub use self::file_names::FileNames;
pub use self::junit::{junit, refused_junit};
pub use self::leaderboard::{leaderboard, leaderboard_csv, leaderboard_latex, left_out};
use self::markdown::{Head, interval, markdown, percent, plain, unknown};
pub use self::mlflow::{TrackedRun, mlflow_files, tracked_runs};
pub use self::overview::overview;
pub use self::paper::{CorrelationRow, ReportedRow, paper_correlations};
pub use self::plots::{
    CorrelationMaps, DistanceHistograms, SensitivityPlot, ShiftPlot, TowerStrengths, correlation_maps,
    distance_histograms, sensitivity, shift_against_accuracy, strength_over_steps, strength_per_layer,
};
pub use self::relations::{DistanceRelationRow, ShiftAccuracyRow, distance_relations, shift_accuracy};
pub use self::runs::{model_page, runs, training_page};
pub use self::sample_log::{LogChoice, Logged, LostAnswers, read_log, write_log};
pub use self::shift::{ShiftRow, shift_table};
pub use self::tensorboard::{event_file, event_files};
use crate::data::Portion;
use crate::score::{Figure, Group, Measurement, Summary};

/// How intervals take the dependence between questions into account.
const CLUSTERED: &str = "\
Intervals clustered by image, in the known sets of edits by the question that was edited";

/// One measured result.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Whether the model was evaluated as one that was not fine-tuned.
    pub zero_shot: bool,
    /// Name of the dataset.
    pub dataset: &'a str,
    /// Its accuracy, if the dataset has references.
    pub summary: Option<&'a Summary>,
    /// The dataset's own measures.
    pub measures: &'a [Measurement],
    /// Questions answered.
    pub n: usize,
    /// Whether a reported set selected the model's weights, so that its numbers there are no test.
    pub selected_on_reported: bool,
}

/// What was the same for all rows of a table, told below it.
#[derive(Debug, Clone, Copy)]
pub struct Conditions<'a> {
    /// Prompt with `{q}` for the question; none where no model was fine-tuned.
    pub prompt: Option<&'a str>,
    /// That for models that were not fine-tuned, where there are any.
    pub zero_shot_prompt: Option<&'a str>,
    /// Search for the answer.
    pub decoding: &'a str,
    /// Number of questions that were asked of each dataset, from the first on; none where all were.
    pub limit: Option<usize>,
}

/// A Markdown table with one line for all questions of a row and one per answer type, in percent with two decimals.
/// It has a column of metrics where they differ.
pub fn table(rows: &[Row], conditions: Conditions) -> String {
    let mut metrics: Vec<&str> = Vec::new();
    for summary in rows.iter().filter_map(|row| row.summary) {
        if !metrics.contains(&&*summary.metric) {
            metrics.push(&summary.metric);
        }
    }
    let lines: Vec<Line> = rows.iter().flat_map(lines_of).collect();
    let columns = [&MODEL, &DATASET]
        .into_iter()
        .chain((metrics.len() > 1).then_some(&METRIC))
        .chain([&ANSWERS])
        .chain(&NUMBERS)
        .collect::<Vec<_>>();
    let metric = if metrics.is_empty() { "none (no human answers)".to_owned() } else { metrics.join(", ") };
    let Conditions { decoding, limit, .. } = conditions;
    let prompts = [("Prompt", conditions.prompt), ("Zero-shot prompt", conditions.zero_shot_prompt)];
    let prompts = prompts.into_iter().filter_map(|(name, prompt)| Some(format!("{name}: `{}`. ", prompt?)));
    let prompts: String = prompts.collect();
    let limit = limit.map_or_else(String::new, |count| format!("First {count} questions only. "));
    let table = grid(&columns, &lines);
    let selected = match rows.iter().any(|row| row.selected_on_reported) {
        true => "(!) A reported set selected the weights of this model: its numbers are no test.\n",
        false => "",
    };
    let measured = measured(rows);
    format!("{table}{measured}\n{selected}{limit}Metric: {metric}. {prompts}Decoding: {decoding}. {CLUSTERED}.\n")
}

/// A Markdown table of one summary: one line for all questions, one per answer type and one per question type, in
/// percent with two decimals; then one of the dataset's measures.
pub fn breakdown(dataset: &str, summary: &Summary, measures: &[Measurement]) -> String {
    let row = Row {
        model: "",
        zero_shot: false,
        dataset,
        summary: Some(summary),
        measures,
        n: summary.n,
        selected_on_reported: false,
    };
    let mut lines = lines_of(&row);
    let types = summary.by_question_type.iter();
    lines.extend(types.map(|(name, group)| Line { row, answers: ALL, questions: name, group: *group }));
    let columns = [&DATASET, &ANSWERS]
        .into_iter()
        .chain((!summary.by_question_type.is_empty()).then_some(&QUESTIONS))
        .chain(&NUMBERS)
        .collect::<Vec<_>>();
    let Summary { metric, clusters, .. } = summary;
    let table = grid(&columns, &lines);
    let clusters = if *clusters == 1 { "1 cluster".to_owned() } else { format!("{clusters} clusters") };
    let measured = measured(&[row]);
    format!("{table}{measured}\nMetric: {metric}. {CLUSTERED} ({clusters}).\n")
}

/// The line below a table that says how much of a dataset was evaluated.
pub fn portion(dataset: &str, portion: Portion) -> String {
    let part = |count: usize, whole: Option<usize>, what| match whole {
        Some(whole) => format!("{} of {} {what}", grouped(count), grouped(whole)),
        None => format!("{} {what}", grouped(count)),
    };
    let questions = part(portion.questions, portion.of_questions, "questions");
    let images = portion.images.map(|count| format!(", {}", part(count, portion.of_images, "images")));
    format!("{dataset}: {questions}{}.\n", images.unwrap_or_default())
}

/// A number with a comma before every third digit from the end.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let comma = |at: usize| if at > 0 && (digits.len() - at).is_multiple_of(3) { "," } else { "" };
    digits.char_indices().map(|(at, digit)| format!("{}{digit}", comma(at))).collect()
}

/// Marks a model whose weights a reported set selected.
const MARK: &str = " (!)";

/// Marks a model that was not fine-tuned.
const ZERO_SHOT: &str = " (zero-shot)";

/// The name of a model in Markdown, with its marks.
fn named_model(model: &str, zero_shot: bool, selected_on_reported: bool) -> String {
    plain(model) + &marks(zero_shot, selected_on_reported)
}

/// The name of a model without the marks that tables add to it.
pub fn unmarked(name: &str) -> &str {
    let name = name.strip_suffix(MARK).unwrap_or(name);
    name.strip_suffix(ZERO_SHOT).unwrap_or(name)
}

fn marks(zero_shot: bool, selected_on_reported: bool) -> String {
    let marks = [(zero_shot, ZERO_SHOT), (selected_on_reported, MARK)];
    marks.into_iter().filter(|(marked, _)| *marked).map(|(_, mark)| mark).collect()
}

/// What stands for every answer type, or question type.
const ALL: &str = "all";

/// A group of the questions of a row.
struct Line<'a> {
    row: Row<'a>,
    /// Answer type.
    answers: &'a str,
    /// Question type.
    questions: &'a str,
    group: Group,
}

struct Column {
    head: &'static str,
    number: bool,
    cell: fn(&Line) -> String,
}

const MODEL: Column = Column {
    head: "model",
    number: false,
    cell: |line| named_model(line.row.model, line.row.zero_shot, line.row.selected_on_reported),
};
const DATASET: Column = Column { head: "dataset", number: false, cell: |line| line.row.dataset.to_owned() };
const METRIC: Column = Column {
    head: "metric",
    number: false,
    cell: |line| line.row.summary.map_or_else(unknown, |summary| summary.metric.clone()),
};
const ANSWERS: Column = Column { head: "answers", number: false, cell: |line| line.answers.to_owned() };
const QUESTIONS: Column = Column { head: "questions", number: false, cell: |line| line.questions.to_owned() };
const NUMBERS: [Column; 3] = [
    Column { head: "n", number: true, cell: |line| line.group.n.to_string() },
    Column { head: "accuracy %", number: true, cell: |line| percent(line.group.accuracy) },
    Column { head: "95 % interval", number: true, cell: |line| interval(line.group.interval) },
];

/// All questions of a row, then those of each answer type.
fn lines_of<'a>(row: &Row<'a>) -> Vec<Line<'a>> {
    let line = |answers, group| Line { row: *row, answers, questions: ALL, group };
    let Some(summary) = row.summary else {
        return vec![line(ALL, Group { n: row.n, accuracy: None, interval: None })];
    };
    let all = Group { n: summary.n, accuracy: summary.accuracy, interval: summary.interval };
    let types = summary.by_answer_type.iter().map(|(name, group)| line(name, *group));
    std::iter::once(line(ALL, all)).chain(types).collect()
}

/// The lines under the columns.
fn grid(columns: &[&Column], lines: &[Line]) -> String {
    let heads: Vec<Head> = columns.iter().map(|column| Head { text: column.head, number: column.number }).collect();
    let cells = |line: &Line| columns.iter().map(|column| (column.cell)(line)).collect();
    markdown(&heads, &lines.iter().map(cells).collect::<Vec<_>>())
}

/// The measures of all rows in a table of their own, and a line for each that lacks something; nothing where there are
/// none. It has a column of models where one is named.
fn measured(rows: &[Row]) -> String {
    let all = || rows.iter().flat_map(|row| row.measures.iter().map(move |measurement| (row, measurement)));
    let models = rows.iter().any(|row| !row.model.is_empty());
    let named = |row: &Row| {
        let model = models.then(|| named_model(row.model, row.zero_shot, row.selected_on_reported));
        model.into_iter().chain([row.dataset.to_owned()])
    };
    let cells = |(row, measurement, figure): (&Row, &Measurement, &Figure)| {
        let texts = [measurement.measure.to_owned(), figure.name.clone(), figure.n.to_string()];
        named(row).chain(texts).chain([percent(figure.value), interval(figure.interval)]).collect()
    };
    let figures =
        all().flat_map(|(row, measurement)| measurement.figures.iter().map(move |figure| (row, measurement, figure)));
    let lines: Vec<Vec<String>> = figures.map(cells).collect();
    let heads = models.then_some(("model", false)).into_iter().chain(MEASURED);
    let heads: Vec<Head> = heads.map(|(text, number)| Head { text, number }).collect();
    let table = if lines.is_empty() { String::new() } else { format!("\n{}", markdown(&heads, &lines)) };
    let lacking = all().filter_map(|(row, measurement)| {
        let missing = measurement.missing.as_deref()?;
        Some(format!("{}: {} {missing}.\n", row.dataset, measurement.measure))
    });
    let mut said: Vec<String> = Vec::new();
    lacking.for_each(|line| {
        if !said.contains(&line) {
            said.push(line)
        }
    });
    let gap = if said.is_empty() { "" } else { "\n" };
    format!("{table}{gap}{}", said.concat())
}

/// The columns of [`measured`], and whether they are numbers.
const MEASURED: [(&str, bool); 6] = [
    ("dataset", false),
    ("measure", false),
    ("figure", false),
    ("n", true),
    ("value %", true),
    ("95 % interval", true),
];

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: Conditions =
        Conditions { prompt: Some("{q}"), zero_shot_prompt: None, decoding: "greedy", limit: None };

    fn summary(metric: &str) -> Summary {
        let group = Group { n: 3, accuracy: Some(66.666), interval: Some([10.0, 99.5]) };
        Summary {
            metric: metric.into(),
            n: 4,
            accuracy: Some(50.0),
            interval: None,
            clusters: 1,
            by_answer_type: [("yes/no".to_owned(), group)].into(),
            by_question_type: Default::default(),
        }
    }

    fn row<'a>(model: &'a str, summary: Option<&'a Summary>) -> Row<'a> {
        Row { model, zero_shot: false, dataset: "easy-vqa", summary, measures: &[], n: 4, selected_on_reported: false }
    }

    #[test]
    fn a_table_is_markdown_and_reads_as_text() {
        let summary = summary("official-2021");
        let expected = "\
| model | dataset  | answers | n | accuracy % |  95 % interval |
|-------|----------|---------|--:|-----------:|---------------:|
| m     | easy-vqa | all     | 4 |      50.00 |              - |
| m     | easy-vqa | yes/no  | 3 |      66.67 | 10.00 to 99.50 |

Metric: official-2021. Prompt: `{q}`. Decoding: greedy. Intervals clustered by image, in the known sets of edits by the question that was edited.
";
        assert_eq!(table(&[row("m", Some(&summary))], GREEDY), expected);
    }

    #[test]
    fn different_metrics_have_a_column_and_are_named_once() {
        let (first, second) = (summary("lavis"), summary("simple"));
        let rows = [Some(&first), Some(&second), Some(&first), None].map(|summary| row("a|b", summary));
        let text = table(&rows, Conditions { limit: Some(4), ..GREEDY });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| model | dataset  | metric | answers | n | accuracy % |  95 % interval |");
        assert_eq!(lines[4], "| a\\|b  | easy-vqa | simple | all     | 4 |      50.00 |              - |");
        assert_eq!(lines[8], "| a\\|b  | easy-vqa | -      | all     | 4 |          - |              - |");
        assert!(text.contains("\nFirst 4 questions only. Metric: lavis, simple. Prompt: "), "{text}");
        assert!(!table(&[row("m", Some(&first)), row("m", Some(&first))], GREEDY).contains("| metric |"));
        assert!(table(&[row("m", None)], GREEDY).contains("\nMetric: none (no human answers). "));
    }

    #[test]
    fn a_breakdown_has_question_types_where_there_are_any() {
        let mut summary = summary("simple");
        let group = Group { n: 1, accuracy: Some(100.0), interval: None };
        summary.by_question_type = [("is it".to_owned(), group)].into();
        let expected = "\
| dataset | answers | questions | n | accuracy % |  95 % interval |
|---------|---------|-----------|--:|-----------:|---------------:|
| own     | all     | all       | 4 |      50.00 |              - |
| own     | yes/no  | all       | 3 |      66.67 | 10.00 to 99.50 |
| own     | all     | is it     | 1 |     100.00 |              - |

Metric: simple. Intervals clustered by image, in the known sets of edits by the question that was edited (1 cluster).
";
        assert_eq!(breakdown("own", &summary, &[]), expected);
        summary.by_question_type.clear();
        assert!(breakdown("own", &summary, &[]).starts_with("| dataset | answers | n | accuracy % |"));
    }

    #[test]
    fn measures_have_a_table_and_say_what_they_lack() {
        let figure = |name: &str, value, interval| Figure { name: name.to_owned(), n: 8, value, interval };
        let measures = [
            Measurement {
                measure: "consensus",
                missing: None,
                figures: vec![figure("CS(1)", Some(87.5), Some([80.0, 90.125])), figure("CS(2)", None, None)],
            },
            Measurement { measure: "flips", missing: Some("needs vqav2 in the same run".to_owned()), figures: vec![] },
        ];
        let measured_rows =
            [Row { measures: &measures, ..row("m", None) }, Row { measures: &measures[1..], ..row("k", None) }];
        let expected = "
| model | dataset  | measure   | figure | n | value % |  95 % interval |
|-------|----------|-----------|--------|--:|--------:|---------------:|
| m     | easy-vqa | consensus | CS(1)  | 8 |   87.50 | 80.00 to 90.12 |
| m     | easy-vqa | consensus | CS(2)  | 8 |       - |              - |

easy-vqa: flips needs vqav2 in the same run.
";
        assert_eq!(measured(&measured_rows), expected);
        assert!(table(&measured_rows, GREEDY).contains(expected));
        let alone = breakdown("own", &summary("simple"), &measures);
        assert!(alone.contains("\n| dataset | measure   | figure | n |"), "{alone}");
    }

    #[test]
    fn a_portion_is_told_with_what_it_is_of() {
        let one = Portion { questions: 500, of_questions: Some(214_354), images: Some(87), of_images: None };
        assert_eq!(portion("vqav2", one), "vqav2: 500 of 214,354 questions, 87 images.\n");
        let uncertain = Portion { images: None, ..one };
        assert_eq!(portion("vqav2", uncertain), "vqav2: 500 of 214,354 questions.\n");
        assert_eq!([0, 12, 999, 1000, 1_234_567].map(grouped), ["0", "12", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_model_that_a_reported_set_selected_is_marked() {
        let row = Row {
            model: "m",
            zero_shot: false,
            dataset: "d",
            summary: None,
            measures: &[],
            n: 4,
            selected_on_reported: true,
        };
        let text =
            table(&[row], Conditions { prompt: Some("{q}"), zero_shot_prompt: None, decoding: "greedy", limit: None });
        assert!(text.contains("| m (!) |"), "{text}");
        assert!(
            text.contains("(!) A reported set selected the weights of this model: its numbers are no test."),
            "{text}"
        );
    }
}
