//! The page of the leaderboard: the table whose cells open their samples, counts, shifts, figures and where it all comes from.

use super::DrawnFigure;
use crate::report::figure::escaped;
use crate::report::leaderboard::{
    ASK_THE_REST, DIGESTS, INTERVALS, PRINTED, RUN_COLUMNS, SHIFTS, change, changes, commands, differences,
    measured_runs, reasons_by_model, short,
};
use crate::report::markdown::{interval, two_decimals, unknown};
use crate::report::overview::modality_label;
use crate::suite::{self, Cell, Column, Entry, Leaderboard, LeaderboardDataset, PaperRow};

const TEMPLATE: &str = include_str!("index.html");

/// The page as HTML.
pub(super) fn index(board: &Leaderboard, figures: &[DrawnFigure]) -> String {
    let title = escaped(&format!("Leaderboard: {}", board.suite));
    let content = [
        format!("<h1>{title}</h1>\n"),
        accuracies(board),
        counts(board),
        shifts(board),
        left_out(board),
        drawn(figures),
        provenance(board),
    ];
    // What is filled in may hold the sign of a place itself.
    let part = |text: &'static str, place: &str| text.split_once(place).unwrap_or((text, ""));
    let (start, rest) = part(TEMPLATE, "{{title}}");
    let (middle, end) = part(rest, "{{content}}");
    format!("{start}{title}{middle}{}{end}", content.concat())
}

/// A table in the making. Texts are escaped as they come in.
struct Table {
    heads: String,
    bodies: String,
}

impl Table {
    fn new(heads: &[(String, Kind)]) -> Self {
        let head = |(text, kind): &(String, Kind)| {
            format!("<th scope=\"col\" class=\"{}\"><button type=\"button\">{text}</button></th>", kind.class())
        };
        Self { heads: heads.iter().map(head).collect(), bodies: String::new() }
    }

    fn body(&mut self, class: &str, rows: impl Iterator<Item = String>) {
        let rows: String = rows.collect();
        if !rows.is_empty() {
            self.bodies += &format!("<tbody class=\"{class}\">\n{rows}</tbody>\n");
        }
    }

    fn html(&self, id: &str, caption: &str) -> String {
        let Self { heads, bodies } = self;
        format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\">\
             <table id=\"{id}\" class=\"sortable\">\n<thead><tr>{heads}</tr></thead>\n{bodies}</table></div>\n"
        )
    }
}

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    /// A number that is an average.
    Average,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Average => "number average",
        }
    }

    fn of(column: &Column) -> Self {
        if column.average_of.is_empty() { Self::Number } else { Self::Average }
    }
}

fn number(kind: Kind, value: Option<f64>, html: &str) -> String {
    let value = value.map_or_else(String::new, |value| format!(" data-value=\"{value}\""));
    format!("<td class=\"{}\"{value}>{html}</td>", kind.class())
}

fn text(text: &str) -> String {
    format!("<td class=\"text\">{}</td>", escaped(text))
}

/// A row, with all that it is found by; its name is HTML.
fn row(names: &str, name: &str, cells: impl Iterator<Item = String>) -> String {
    let names = escaped(names);
    format!("<tr data-names=\"{names}\"><th scope=\"row\">{name}</th>{}</tr>\n", cells.collect::<String>())
}

fn column_heads(columns: &[Column]) -> Vec<(String, Kind)> {
    let head = |column: &Column| {
        let about = suite::SHIFTS.iter().find(|shift| Some(shift.name) == column.shift).map_or("", |shift| shift.about);
        let shift = column.shift.unwrap_or_default();
        let below = format!("<span class=\"shift\" title=\"{}\">{}</span>", escaped(about), escaped(shift));
        (format!("{}{below}", escaped(&column.label)), Kind::of(column))
    };
    std::iter::once(("model".to_owned(), Kind::Text)).chain(columns.iter().map(head)).collect()
}

/// The name of a row, with what marks it.
fn name_of(entry: &Entry) -> String {
    let runs = entry.runs.len();
    name_with(entry, &if runs > 1 { format!("{runs} runs") } else { String::new() })
}

/// The name of an entry, with what is to be known of its runs.
fn name_with(entry: &Entry, runs: &str) -> String {
    let mut name = escaped(&entry.name);
    if entry.zero_shot {
        name += " <span class=\"muted\">zero-shot</span>";
    }
    if entry.selected_on_reported {
        name += " <abbr title=\"A reported set selected the weights: no test, no rank\">(!)</abbr>";
    }
    if !runs.is_empty() {
        name += &format!(" <span class=\"muted\">{runs}</span>");
    }
    name
}

/// All that a row is looked for by.
fn names_of(entry: &Entry) -> String {
    let runs = entry.runs.iter().flat_map(|run| [run.label.as_str(), run.model.as_str()]);
    let zero_shot = entry.zero_shot.then_some("zero-shot");
    let names = [entry.name.as_str(), entry.method.as_deref().unwrap_or_default()].into_iter().chain(zero_shot);
    names.chain(runs).collect::<Vec<_>>().join(" ")
}

fn accuracies(board: &Leaderboard) -> String {
    let mut heads = column_heads(&board.columns);
    let changes = changes(board);
    heads.extend(changes.iter().map(|at| (format!("{} Δ %", escaped(&board.columns[*at].label)), Kind::Number)));
    let mut table = Table::new(&heads);
    let measured = board.entries.iter().map(|entry| {
        let cells = board.columns.iter().zip(&entry.cells).map(|(column, cell)| accuracy(entry, column, cell.as_ref()));
        let changes = changes.iter().map(|at| {
            let cell = entry.cells[*at].as_ref();
            number(Kind::Number, cell.and_then(|cell| cell.change), &change(cell))
        });
        row(&names_of(entry), &name_of(entry), cells.chain(changes))
    });
    table.body("measured", measured);
    let papers = board.paper.iter().filter(|row| !row.is_shift);
    table.body("paper", papers.map(|row| paper_row(board, row, changes.len())));
    let limit =
        board.limit.map_or_else(String::new, |limit| format!("<p>First {limit} questions of each dataset only.</p>\n"));
    format!("{limit}{FILTER}{}{}", table.html("board", "Accuracies"), legend(board))
}

const FILTER: &str = "\
<form class=\"find\" role=\"search\" hidden><label><span>Find models and methods</span>\
<input type=\"search\" id=\"filter\" autocomplete=\"off\" spellcheck=\"false\"></label><p id=\"rows\" role=\"status\"></p></form>\n";

/// A cell; that of a dataset opens its samples as the entry's first run answered them.
fn accuracy(entry: &Entry, column: &Column, cell: Option<&Cell>) -> String {
    let Some(cell) = cell else { return number(Kind::of(column), None, &unknown()) };
    let text = two_decimals(cell.accuracy);
    let text = match cell.rank {
        Some(1) => format!("<strong>{text}</strong>"),
        Some(_) => format!("<u>{text}</u>"),
        None => text,
    };
    let html = match entry.runs.first().filter(|_| column.average_of.is_empty()) {
        Some(run) => {
            let n = cell.n.map_or_else(String::new, |n| format!("{n} questions"));
            let interval = cell.interval.map(|_| format!(", 95 % interval {}", interval(cell.interval)));
            let address = format!("explorer.html#dataset={}&model={}", encoded(&column.name), encoded(&run.label));
            let title = escaped(&format!("{n}{}", interval.unwrap_or_default()));
            format!("<a href=\"{}\" title=\"{title}\">{text}</a>", escaped(&address))
        }
        None => text,
    };
    number(Kind::of(column), Some(cell.accuracy), &(html + &spread(cell)))
}

fn spread(cell: &Cell) -> String {
    cell.spread.map_or_else(String::new, |spread| format!(" <small>± {spread:.2}</small>"))
}

fn paper_row(board: &Leaderboard, paper: &PaperRow, more: usize) -> String {
    let cells = board.columns.iter().zip(&paper.cells).map(|(column, cell)| {
        number(Kind::of(column), *cell, &cell.map_or_else(unknown, |value| format!("<em>{value:.2}</em>")))
    });
    let empty = std::iter::repeat_n(number(Kind::Number, None, ""), more);
    row(
        &format!("{} paper", paper.name),
        &format!("<em>{}</em> <span class=\"muted\">paper</span>", escaped(&paper.name)),
        cells.chain(empty),
    )
}

fn legend(board: &Leaderboard) -> String {
    let cells = || board.entries.iter().flat_map(|entry| entry.cells.iter().flatten());
    let mut lines = vec![
        "Accuracy in percent; averages are plain means over datasets. <strong>Best</strong> and <u>second</u> of the \
         measured rows. A cell of a dataset opens its samples."
            .to_owned(),
    ];
    if cells().any(|cell| cell.spread.is_some()) {
        lines.push("±: standard deviation over seeds.".to_owned());
    }
    if cells().any(|cell| cell.change.is_some()) {
        lines.push("Δ %: change against vanilla fine-tuning, in percent of its accuracy.".to_owned());
    }
    if board.entries.iter().any(|entry| entry.selected_on_reported) {
        lines.push("(!): a reported set selected the weights; these numbers are no test, and have no rank.".to_owned());
    }
    if !board.paper.is_empty() {
        lines.push(format!("<em>Italics</em>: {}", escaped(PRINTED)));
    }
    if let Some(kinds) = differences(board) {
        lines.push(format!("<strong>Not alike:</strong> fine-tuned rows differ in {}.", escaped(&kinds)));
    }
    let items: String = lines.iter().map(|line| format!("<li>{line}</li>\n")).collect();
    format!("<ul class=\"legend\">\n{items}</ul>\n")
}

fn section(title: &str, open: bool, html: &str) -> String {
    let open = if open { " open" } else { "" };
    format!("<details{open}><summary><h2>{title}</h2></summary>\n{html}</details>\n")
}

fn counts(board: &Leaderboard) -> String {
    let numbers = ["n", "accuracy %", "95 % interval", "runs"].map(|text| (text.to_owned(), Kind::Number));
    let texts = ["model", "dataset"].map(|text| (text.to_owned(), Kind::Text));
    let mut table = Table::new(&texts.into_iter().chain(numbers).collect::<Vec<_>>());
    let lines = board.entries.iter().flat_map(|entry| {
        let cells = board.columns.iter().zip(&entry.cells);
        cells.filter_map(move |(column, cell)| {
            let cell = cell.as_ref()?;
            let n = cell.n?;
            let cells = [
                text(&column.label),
                number(Kind::Number, Some(n as f64), &n.to_string()),
                number(Kind::Number, Some(cell.accuracy), &(two_decimals(cell.accuracy) + &spread(cell))),
                number(Kind::Number, cell.interval.map(|[low, _]| low), &interval(cell.interval)),
                number(Kind::Number, Some(entry.runs.len() as f64), &entry.runs.len().to_string()),
            ];
            Some(row(&names_of(entry), &name_of(entry), cells.into_iter()))
        })
    });
    table.body("measured", lines);
    let about = escaped(INTERVALS);
    section("Counts and intervals", false, &format!("{}<p>{about}</p>\n", table.html("counts", "Counts and intervals")))
}

fn shifts(board: &Leaderboard) -> String {
    let papers = || board.paper.iter().filter(|row| row.is_shift);
    if board.entries.iter().all(|entry| entry.shifts.is_empty()) && papers().next().is_none() {
        return String::new();
    }
    let mut table = Table::new(&column_heads(&board.columns));
    let lines = board.entries.iter().flat_map(|entry| {
        entry.shifts.iter().map(|shift| {
            let name = measured_runs(shift, entry).map_or_else(|| name_of(entry), |runs| name_with(entry, &runs));
            let name = format!("{}, {name}", escaped(modality_label(shift.modality)));
            let cells = board
                .columns
                .iter()
                .zip(&shift.cells)
                .map(|(column, cell)| number(Kind::of(column), *cell, &cell.map_or_else(unknown, two_decimals)));
            row(&names_of(entry), &name, cells)
        })
    });
    table.body("measured", lines);
    table.body("paper", papers().map(|row| paper_row(board, row, 0)));
    section("Shift", true, &format!("{}<p>{}</p>\n", table.html("shifts", "Shifts"), escaped(SHIFTS)))
}

fn left_out(board: &Leaderboard) -> String {
    if board.left_out.is_empty() {
        return String::new();
    }
    let item = |(model, reasons): (&str, String)| format!("<li>{}: {}</li>\n", escaped(model), escaped(&reasons));
    let items: String = reasons_by_model(&board.left_out).into_iter().map(item).collect();
    section("Left out", true, &format!("<ul>\n{items}</ul>\n<p>{}</p>\n", escaped(ASK_THE_REST)))
}

/// Figures as parts of the document, so that their tooltips show. They have no identifiers, and name their classes after
/// what these mean.
fn drawn(figures: &[DrawnFigure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let figure = |DrawnFigure { name, svg }: &DrawnFigure| {
        // HTML knows the namespace; without it the document names no address outside.
        let svg = svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
        format!("<figure>\n{svg}<figcaption><a href=\"figures/{name}.svg\">SVG</a></figcaption></figure>\n")
    };
    let figures: String = figures.iter().map(figure).collect();
    section("Figures", true, &format!("<div class=\"figures\">\n{figures}</div>\n"))
}

fn provenance(board: &Leaderboard) -> String {
    let commands = commands(board);
    let commands = match commands.is_empty() {
        true => String::new(),
        false => format!("<pre><code>{}</code></pre>\n", escaped(&commands.join("\n"))),
    };
    let html = format!("{}{}<p>{}</p>\n{commands}", datasets(board), models(board), escaped(DIGESTS));
    section("Where the numbers come from", true, &html)
}

fn datasets(board: &Leaderboard) -> String {
    let kinds = [
        ("dataset", Kind::Text),
        ("metric", Kind::Text),
        ("questions", Kind::Number),
        ("images", Kind::Number),
        ("digest", Kind::Text),
    ];
    let mut table = Table::new(&kinds.map(|(text, kind)| (text.to_owned(), kind)));
    let line = |one: &LeaderboardDataset| {
        let count = |count: usize| number(Kind::Number, Some(count as f64), &count.to_string());
        let cells = [text(one.metric), count(one.n), count(one.images), text(&short(&one.digest))];
        format!("<tr><th scope=\"row\">{}</th>{}</tr>\n", escaped(&one.name), cells.concat())
    };
    table.body("measured", board.datasets.iter().map(line));
    table.html("datasets", "Datasets")
}

fn models(board: &Leaderboard) -> String {
    let heads = RUN_COLUMNS.iter().map(|(text, _)| ((*text).to_owned(), Kind::Text));
    let mut table = Table::new(&heads.collect::<Vec<_>>());
    let lines = board.entries.iter().flat_map(|entry| {
        entry.runs.iter().map(|run| {
            // Prompts come as code in Markdown.
            let cells = RUN_COLUMNS.iter().skip(1).map(|(_, cell)| text(cell(run).trim_matches('`')));
            row(&names_of(entry), &escaped(&run.label), cells)
        })
    });
    table.body("measured", lines);
    table.html("models", "Models")
}

/// A text as part of an address: what is not a letter, a digit or one of `-._~` as its bytes in UTF-8 (RFC 3986, section
/// 2.1).
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_any_name() {
        assert_eq!(encoded("a-b.c_d~0"), "a-b.c_d~0");
        assert_eq!(encoded("µ=0.1 & <\"#"), "%C2%B5%3D0.1%20%26%20%3C%22%23");
    }
}
