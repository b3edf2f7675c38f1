//! The leaderboard of a suite as Markdown, CSV and LaTeX.

use std::collections::BTreeSet;
use std::ops::Range;

use super::markdown::{Head, code, interval, markdown, one_line, plain, two_decimals, unknown};
use super::overview::{column_heads, in_parts, modality_label};
use super::{marks, named_model};
use crate::error::{Error, Result};
use crate::suite::{Cell, Column, Entry, EntryRun, EntryShift, Leaderboard, LeftOut, PaperRow};

/// Characters of a digest that are shown.
const DIGEST: usize = 12;

/// The leaderboard as a Markdown page: the table, how sure its numbers are, how far the datasets have shifted, and where it
/// all comes from.
pub fn leaderboard(board: &Leaderboard) -> String {
    let mut page = format!("# Leaderboard: {}\n\n", board.suite);
    if let Some(limit) = board.limit {
        page += &format!("First {limit} questions of each dataset only.\n\n");
    }
    page += &format!("{}\n{}", in_parts(&board.columns, |range| accuracies(board, range)), legend(board));
    page += &format!("\n## Counts and intervals\n\n{}\n{INTERVALS}\n", counts(board));
    if let Some(shifts) = shifts(board) {
        page += &format!("\n## Shift\n\n{shifts}\n{SHIFTS}\n");
    }
    page + &left_out(&board.left_out) + &format!("\n## Where the numbers come from\n\n{}", provenance(board))
}

pub(super) const INTERVALS: &str = "\
95 % intervals over questions, clustered by image (in the known sets of edits by the question that was edited), of the models as they are; of several runs, of their mean. They say \
nothing about training with another seed, which ± does.";

pub(super) const SHIFTS: &str =
    "Mean Mahalanobis distances from the training set in the features of each model, without unit.";

/// Accuracies in some of the columns, with those of the paper below.
fn accuracies(board: &Leaderboard, range: Range<usize>) -> String {
    let columns = &board.columns[range.clone()];
    let (mut heads, mut shifts) = column_heads(columns);
    let changes = if range.end == board.columns.len() { changes(board) } else { Vec::new() };
    let titles: Vec<String> = changes.iter().map(|at| format!("{} Δ %", board.columns[*at].label)).collect();
    heads.extend(titles.iter().map(|text| Head { text, number: true }));
    shifts.resize(heads.len(), String::new());
    let mut lines = vec![shifts];
    for entry in &board.entries {
        let name = named_model(&entry.name, entry.zero_shot, entry.selected_on_reported);
        let cells = entry.cells[range.clone()].iter().map(|cell| cell.as_ref().map_or_else(unknown, marked));
        let changes = changes.iter().map(|at| change(entry.cells[*at].as_ref()));
        lines.push(std::iter::once(name).chain(cells).chain(changes).collect());
    }
    for row in board.paper.iter().filter(|row| !row.is_shift) {
        lines.push(paper_line(row, range.clone(), heads.len()));
    }
    markdown(&heads, &lines)
}

/// The columns whose change against vanilla is told: in distribution and the last average, as in the paper.
pub(super) fn changes(board: &Leaderboard) -> Vec<usize> {
    let told =
        |at: &usize| board.entries.iter().any(|entry| entry.cells[*at].is_some_and(|cell| cell.change.is_some()));
    let last = board.columns.iter().rposition(|column| !column.average_of.is_empty());
    std::iter::once(0).chain(last).filter(told).collect()
}

pub(super) fn change(cell: Option<&Cell>) -> String {
    cell.and_then(|cell| cell.change).map_or_else(unknown, |change| format!("{change:+.2}"))
}

/// An accuracy with its spread, the best one bold, the second one underlined.
fn marked(cell: &Cell) -> String {
    let text = with_spread(cell);
    match cell.rank {
        Some(1) => format!("**{text}**"),
        Some(_) => format!("<u>{text}</u>"),
        None => text,
    }
}

fn with_spread(cell: &Cell) -> String {
    let spread = cell.spread.map_or_else(String::new, |spread| format!(" ± {spread:.2}"));
    two_decimals(cell.accuracy) + &spread
}

/// A row of the paper, in italics.
fn paper_line(row: &PaperRow, range: Range<usize>, width: usize) -> Vec<String> {
    let cells = row.cells[range].iter().map(|cell| cell.map_or_else(unknown, |value| format!("*{value:.2}*")));
    let mut line: Vec<String> = std::iter::once(format!("*{} (paper)*", row.name)).chain(cells).collect();
    line.resize(width, String::new());
    line
}

fn legend(board: &Leaderboard) -> String {
    let all = || board.entries.iter();
    let cells = || all().flat_map(|entry| entry.cells.iter().flatten());
    let mut lines = vec![
        "Accuracy in percent; averages are plain means over datasets. **Best** and <u>second</u> of the measured rows."
            .to_owned(),
    ];
    if cells().any(|cell| cell.spread.is_some()) {
        lines.push("±: standard deviation over seeds.".to_owned());
    }
    if cells().any(|cell| cell.change.is_some()) {
        lines.push("Δ %: change against vanilla fine-tuning, in percent of its accuracy.".to_owned());
    }
    if all().any(|entry| entry.selected_on_reported) {
        lines.push("(!) A reported set selected the weights: these numbers are no test, and have no rank.".to_owned());
    }
    if !board.paper.is_empty() {
        lines.push(format!("*Italics*: {PRINTED}"));
    }
    lines
        .extend(differences(board).map(|kinds| {
            format!("**Not alike:** fine-tuned rows differ in {kinds}; see where the numbers come from.")
        }));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

pub(super) const PRINTED: &str = "\
as printed in Table 3 of the DiGraP paper (PaliGemma-3B with LoRA), with its own checkpoints, evaluator and \
prompts. They are not measured here and have no rank.";

/// What makes measured rows hard to compare.
pub(super) fn differences(board: &Leaderboard) -> Option<String> {
    let settings = || board.entries.iter().filter(|entry| !entry.zero_shot).flat_map(|entry| &entry.runs);
    let settings = || settings().filter_map(|run| run.settings.as_ref());
    let prompts: BTreeSet<&str> = settings().map(|one| one.prompt.as_str()).collect();
    let decodings: BTreeSet<(&str, usize)> =
        settings().map(|one| (one.decoding.as_str(), one.max_new_tokens)).collect();
    let kinds = [("prompts", prompts.len()), ("decoding", decodings.len())];
    let differ: Vec<&str> = kinds.iter().filter(|(_, count)| *count > 1).map(|(name, _)| *name).collect();
    (!differ.is_empty()).then(|| differ.join(" and "))
}

fn counts(board: &Leaderboard) -> String {
    let seeds = board.entries.iter().any(|entry| entry.runs.len() > 1);
    let mut heads = vec![Head { text: "model", number: false }, Head { text: "dataset", number: false }];
    heads.extend(["n", "accuracy %", "95 % interval"].map(|text| Head { text, number: true }));
    heads.extend(seeds.then_some(Head { text: "runs", number: true }));
    let mut lines = Vec::new();
    for entry in &board.entries {
        for (column, cell) in board.columns.iter().zip(&entry.cells) {
            let Some((cell, n)) = cell.and_then(|cell| Some((cell, cell.n?))) else { continue };
            let name = named_model(&entry.name, entry.zero_shot, entry.selected_on_reported);
            let mut line = vec![name, column.label.clone(), n.to_string(), with_spread(&cell), interval(cell.interval)];
            line.extend(seeds.then(|| entry.runs.len().to_string()));
            lines.push(line);
        }
    }
    markdown(&heads, &lines)
}

fn shifts(board: &Leaderboard) -> Option<String> {
    let papers = || board.paper.iter().filter(|row| row.is_shift);
    if board.entries.iter().all(|entry| entry.shifts.is_empty()) && papers().next().is_none() {
        return None;
    }
    Some(in_parts(&board.columns, |range| {
        let (heads, shifts) = column_heads(&board.columns[range.clone()]);
        let mut lines = vec![shifts];
        for entry in &board.entries {
            for shift in &entry.shifts {
                let runs = measured_runs(shift, entry).map_or_else(String::new, |runs| format!(" ({runs})"));
                let name = format!("{}, {}{runs}", modality_label(shift.modality), plain(&entry.name));
                let cells = shift.cells[range.clone()].iter().map(|cell| cell.map_or_else(unknown, two_decimals));
                lines.push(std::iter::once(name).chain(cells).collect());
            }
        }
        lines.extend(papers().map(|row| paper_line(row, range.clone(), heads.len())));
        markdown(&heads, &lines)
    }))
}

/// Stored results that are not shown, and why; empty where there are none.
pub fn left_out(left_out: &[LeftOut]) -> String {
    let line = |(model, reasons): (&str, String)| {
        // Names stand between the signs of code, which are to stay.
        format!("- {}: {}\n", plain(model), plain(&reasons).replace("\\`", "`"))
    };
    match left_out.is_empty() {
        true => String::new(),
        false => format!(
            "\n## Left out\n\n{}\n{ASK_THE_REST}\n",
            reasons_by_model(left_out).into_iter().map(line).collect::<String>()
        ),
    }
}

/// Most reasons of one model that are told.
const REASONS: usize = 3;

/// Each model of which results are left out, with the first reasons.
pub(super) fn reasons_by_model(left_out: &[LeftOut]) -> Vec<(&str, String)> {
    let of_model = |of: &[LeftOut]| {
        let told: Vec<&str> = of.iter().take(REASONS).map(|one| one.reason.as_str()).collect();
        let more = match of.len().saturating_sub(REASONS) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        told.join("; ") + &more
    };
    left_out.chunk_by(|one, next| one.model == next.model).map(|of| (of[0].model.as_str(), of_model(of))).collect()
}

pub(super) const ASK_THE_REST: &str = "\
These results are not of all of a dataset's questions as they are now. `digrap-bench vqa` with the same store asks what is \
missing, with `--shift` for distances; where the first N questions alone were asked, give `--limit N`.";

/// In how many of an entry's runs a shift was measured, where not in all.
pub(super) fn measured_runs(shift: &EntryShift, entry: &Entry) -> Option<String> {
    let (measured, all) = (shift.runs, entry.runs.len());
    (measured < all).then(|| format!("{measured} of {all} runs"))
}

fn provenance(board: &Leaderboard) -> String {
    let datasets = ["dataset", "metric"].map(|text| Head { text, number: false });
    let numbers = ["questions", "images"].map(|text| Head { text, number: true });
    let digest = Head { text: "digest", number: false };
    let heads: Vec<Head> = datasets.into_iter().chain(numbers).chain([digest]).collect();
    let line = |one: &crate::suite::LeaderboardDataset| {
        let texts = [one.name.clone(), one.metric.to_owned(), one.n.to_string(), one.images.to_string()];
        texts.into_iter().chain([short(&one.digest)]).collect()
    };
    let datasets = markdown(&heads, &board.datasets.iter().map(line).collect::<Vec<_>>());
    let runs = || board.entries.iter().flat_map(|entry| &entry.runs);
    let mut heads: Vec<Head> = RUN_COLUMNS.iter().map(|(text, _)| Head { text, number: false }).collect();
    heads[1].number = true;
    let line = |run: &EntryRun| RUN_COLUMNS.iter().map(|(_, cell)| cell(run)).collect();
    let models = markdown(&heads, &runs().map(line).collect::<Vec<_>>());
    let commands: String = commands(board).iter().map(|command| format!("    {command}\n")).collect();
    let commands = if commands.is_empty() { String::new() } else { format!("\nCommands:\n\n{commands}") };
    format!("{datasets}\n{models}\n{DIGESTS}\n{commands}")
}

/// The command lines that made the results, each once.
pub(super) fn commands(board: &Leaderboard) -> Vec<&str> {
    let mut commands: Vec<&str> = Vec::new();
    let runs = board.entries.iter().flat_map(|entry| &entry.runs);
    for command in runs.filter_map(|run| Some(run.made_by.as_ref()?.command.as_str())) {
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    commands
}

pub(super) const DIGESTS: &str = "\
Digests are the beginnings of SHA-256: of a dataset's questions, identifiers and human answers; of a model's weights, and of \
the files that say how they are used, adapters among them. The commit is that of the program.";

/// A column of the models, and what it says of one.
pub(super) type RunColumn = (&'static str, fn(&EntryRun) -> String);

pub(super) const RUN_COLUMNS: [RunColumn; 8] = [
    ("model", |run| run.label.clone()),
    ("seed", |run| run.seed.map_or_else(unknown, |seed| seed.to_string())),
    ("weights and use", |run| digests(&run.weights)),
    ("prompt", |run| setting(run, |settings| code(&settings.prompt))),
    ("decoding", |run| setting(run, |settings| format!("{}, {} tokens", settings.decoding, settings.max_new_tokens))),
    ("dtype", |run| setting(run, |settings| format!("{}, {}", settings.dtype, settings.provider))),
    ("ONNX Runtime", |run| setting(run, |settings| settings.runtime_version.clone())),
    ("program", |run| {
        run.made_by.as_ref().map_or_else(unknown, |maker| {
            let commit = maker.commit.as_ref().map_or_else(String::new, |commit| format!(" ({commit})"));
            format!("{}{commit}", maker.version)
        })
    }),
];

fn setting(run: &EntryRun, value: fn(&crate::store::AnswerSettings) -> String) -> String {
    run.settings.as_ref().map_or_else(unknown, value)
}

pub(super) fn short(digest: &str) -> String {
    digest.chars().take(DIGEST).collect()
}

/// The beginnings of several digests.
pub(super) fn digests(texts: &str) -> String {
    texts.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

/// One line for each model and column, measured and printed ones alike, for spreadsheets and data frames.
///
/// # Errors
/// None but defects.
pub fn leaderboard_csv(board: &Leaderboard) -> Result<String> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::internal("cannot write the leaderboard as CSV").caused_by(cause)
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |line: Vec<String>| writer.write_record(line).map_err(|cause| failed(cause.into()));
    write(CSV.iter().map(|name| (*name).to_owned()).collect())?;
    for entry in &board.entries {
        for (column, cell) in board.columns.iter().zip(&entry.cells) {
            if let Some(cell) = cell {
                write(csv_line(board, entry, column, cell))?;
            }
        }
    }
    for row in board.paper.iter().filter(|row| !row.is_shift) {
        for (column, accuracy) in board.columns.iter().zip(&row.cells) {
            let Some(accuracy) = accuracy else { continue };
            let texts = ["paper", &board.suite, &row.name, "", "", "0", &column.name, column.shift.unwrap_or_default()];
            let empty = std::iter::repeat_n(String::new(), CSV.len() - texts.len() - 1);
            write(texts.map(str::to_owned).into_iter().chain([accuracy.to_string()]).chain(empty).collect())?;
        }
    }
    let bytes = writer.into_inner().map_err(|cause| failed(cause.to_string().into()))?;
    String::from_utf8(bytes).map_err(|cause| failed(cause.into()))
}

const CSV: [&str; 20] = [
    "source",
    "suite",
    "model",
    "method",
    "zero_shot",
    "runs",
    "column",
    "shift",
    "accuracy",
    "spread",
    "n",
    "interval_low",
    "interval_high",
    "change_percent",
    "rank",
    "metric",
    "questions",
    "weights",
    "prompt",
    "decoding",
];

fn csv_line(board: &Leaderboard, entry: &Entry, column: &Column, cell: &Cell) -> Vec<String> {
    fn number<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
    }
    let method = entry.method.as_deref().unwrap_or_default();
    let zero_shot = if entry.zero_shot { "true" } else { "false" };
    let texts = ["measured", &board.suite, &entry.name, method, zero_shot].map(str::to_owned).into_iter();
    let heads = [entry.runs.len().to_string(), column.name.clone(), column.shift.unwrap_or_default().to_owned()];
    let [low, high] = cell.interval.map_or([None; 2], |bounds| bounds.map(Some));
    let numbers = [number(Some(cell.accuracy)), number(cell.spread), number(cell.n), number(low), number(high)];
    let compared = [number(cell.change), number(cell.rank)];
    texts.chain(heads).chain(numbers).chain(compared).chain(csv_provenance(board, entry, column)).collect()
}

/// Metric and questions of the column, weights of the runs, and how they were asked.
fn csv_provenance(board: &Leaderboard, entry: &Entry, column: &Column) -> [String; 5] {
    let dataset = board.datasets.iter().find(|dataset| dataset.name == column.name);
    let [metric, digest] = dataset.map_or([""; 2], |dataset| [dataset.metric, &dataset.digest]);
    let weights: Vec<String> = entry.runs.iter().map(|run| digests(&run.weights)).collect();
    let settings = entry.runs.first().and_then(|run| run.settings.as_ref());
    let [prompt, decoding] = settings.map_or([""; 2], |settings| [&settings.prompt, &settings.decoding]);
    [metric.to_owned(), short(digest), weights.join(", "), prompt.to_owned(), decoding.to_owned()]
}

/// The table for a paper, with the commands of the package booktabs; where its numbers come from stands in comments.
pub fn leaderboard_latex(board: &Leaderboard) -> String {
    let columns = &board.columns;
    let heads = |texts: Vec<String>| format!(" & {} \\\\\n", texts.join(" & "));
    let labels = heads(columns.iter().map(|column| latex(&column.label)).collect());
    let shifts = heads(columns.iter().map(|column| latex(column.shift.unwrap_or_default())).collect());
    let mut rows = String::new();
    for entry in &board.entries {
        let cells = entry.cells.iter().map(|cell| cell.as_ref().map_or_else(|| "--".to_owned(), latex_cell));
        let name = latex(&entry.name) + &marks(entry.zero_shot, entry.selected_on_reported);
        rows += &format!("{name} & {} \\\\\n", cells.collect::<Vec<_>>().join(" & "));
    }
    let papers: Vec<&PaperRow> = board.paper.iter().filter(|row| !row.is_shift).collect();
    if !papers.is_empty() {
        rows += "\\midrule\n";
    }
    for row in papers {
        let cells = row
            .cells
            .iter()
            .map(|cell| cell.map_or_else(|| "--".to_owned(), |value| format!("\\textit{{{value:.2}}}")));
        rows += &format!("\\textit{{{} (paper)}} & {} \\\\\n", latex(&row.name), cells.collect::<Vec<_>>().join(" & "));
    }
    let alignment = "r".repeat(columns.len());
    let comment = |line: &str| format!("% {line}").trim_end().to_owned() + "\n";
    let left_out = left_out(&board.left_out).replace("## ", "");
    let comments: String = (left_out.trim_start().to_owned() + &provenance(board)).lines().map(comment).collect();
    format!(
        "{comments}\\begin{{tabular}}{{l{alignment}}}\n\\toprule\n{labels}{shifts}\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}\n"
    )
}

fn latex_cell(cell: &Cell) -> String {
    let spread = cell.spread.map_or_else(String::new, |spread| format!(" $\\pm$ {spread:.2}"));
    let text = two_decimals(cell.accuracy) + &spread;
    match cell.rank {
        Some(1) => format!("\\textbf{{{text}}}"),
        Some(_) => format!("\\underline{{{text}}}"),
        None => text,
    }
}

/// A text with the signs that mean something to LaTeX escaped.
fn latex(text: &str) -> String {
    let escaped = |letter: char| match letter {
        '\\' => "\\textbackslash{}".to_owned(),
        '~' => "\\textasciitilde{}".to_owned(),
        '^' => "\\textasciicircum{}".to_owned(),
        '<' => "\\textless{}".to_owned(),
        '>' => "\\textgreater{}".to_owned(),
        '|' => "\\textbar{}".to_owned(),
        '&' | '%' | '$' | '#' | '_' | '{' | '}' => format!("\\{letter}"),
        other => other.to_string(),
    };
    let text = one_line(text);
    // Behind the end of a row these would begin an argument.
    let guard = if text.starts_with(['[', '*']) { "{}" } else { "" };
    guard.to_owned() + &text.chars().map(escaped).collect::<String>()
}
