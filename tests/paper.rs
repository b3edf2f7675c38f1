//! The paper's derived cells, recomputed from its raw cells by the averages that suites use.
//!
//! Printed numbers have at most two decimals and a mean has at most nine of them, so that a mean in double precision is
//! nearer than 1e-9 to the exact one, and ties can be told.

use std::collections::BTreeMap;
use std::path::Path;

use digrap_bench::stats::complete_mean;
use serde::Deserialize;

#[derive(Deserialize)]
struct Paper {
    known_errors: Vec<KnownError>,
    tables: Vec<Table>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct KnownError {
    table: String,
    row: String,
    column: String,
}

#[derive(Deserialize)]
struct Table {
    number: String,
    columns: Vec<Column>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    domain: String,
    kind: String,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    printed: Vec<String>,
}

/// How a printed cell agrees with what its row gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Agreement {
    Digits,
    FromPrintedAverages,
    WithinRoundingOfInputs,
    None,
}

/// A number that may have been rounded: what is printed, and the bounds of what it was.
#[derive(Clone, Copy)]
struct Rounded {
    value: f64,
    low: f64,
    high: f64,
}

fn decimals(printed: &str) -> i32 {
    printed.split_once('.').map_or(0, |(_, after)| after.len() as i32)
}

fn read(printed: &str) -> Option<Rounded> {
    let value: f64 = printed.parse().ok()?;
    let half = 0.5 * 10f64.powi(-decimals(printed));
    Some(Rounded { value, low: value - half, high: value + half })
}

/// Half-up, away from zero, to the decimals of what is printed.
fn prints_as(value: f64, printed: &str) -> bool {
    let scale = 10f64.powi(decimals(printed));
    let rounded = (value.abs() * scale + 0.5 + 1e-9).floor().copysign(value) / scale;
    (rounded - printed.parse::<f64>().unwrap()).abs() < 1e-9
}

fn change(of: f64, from: f64) -> f64 {
    100.0 * (of - from) / from
}

impl Table {
    fn row(&self, name: &str) -> &Row {
        self.rows.iter().find(|row| row.name == name).unwrap()
    }

    /// The raw cells of a row in a domain; all but those in distribution for `OOD`.
    fn raw(&self, row: &Row, domain: &str) -> Vec<Option<Rounded>> {
        let chosen = |column: &Column| {
            column.kind == "raw" && (column.domain == domain || (domain == "OOD" && column.domain != "ID"))
        };
        let cells = self.columns.iter().zip(&row.printed).filter(|(column, _)| chosen(column));
        cells.map(|(_, printed)| read(printed)).collect()
    }

    fn average(&self, row: &Row, domain: &str) -> Rounded {
        let cells = self.raw(row, domain);
        let mean = |part: fn(Rounded) -> f64| {
            complete_mean(&cells.iter().map(|cell| cell.map(part)).collect::<Vec<_>>()).unwrap()
        };
        Rounded { value: mean(|cell| cell.value), low: mean(|cell| cell.low), high: mean(|cell| cell.high) }
    }

    fn printed_average(&self, row: &Row) -> f64 {
        let at = self.columns.iter().position(|column| column.name == "OOD Avg.").unwrap();
        row.printed[at].parse().unwrap()
    }

    /// What a derived cell should be, and for changes of averages what the printed averages give.
    fn derived(&self, row: &Row, column: &Column) -> (Rounded, Option<f64>) {
        let Some(domain) = column.name.strip_suffix(" delta %") else {
            return (self.average(row, &column.domain), None);
        };
        let base = self.row("Vanilla FT");
        let (now, then) = (self.average(row, domain), self.average(base, domain));
        if row.name == base.name {
            return (Rounded { value: 0.0, low: 0.0, high: 0.0 }, None);
        }
        let bounds = Rounded {
            value: change(now.value, then.value),
            low: change(now.low, then.high),
            high: change(now.high, then.low),
        };
        let printed = || change(self.printed_average(row), self.printed_average(base));
        (bounds, (domain == "OOD").then(printed))
    }
}

fn agreement(printed: &str, derived: Rounded, from_printed: Option<f64>) -> Agreement {
    let cell = read(printed).unwrap();
    match from_printed {
        _ if prints_as(derived.value, printed) => Agreement::Digits,
        Some(value) if prints_as(value, printed) => Agreement::FromPrintedAverages,
        _ if cell.low <= derived.high + 1e-9 && cell.high >= derived.low - 1e-9 => Agreement::WithinRoundingOfInputs,
        _ => Agreement::None,
    }
}

#[test]
fn derived_cells_follow_from_raw_ones() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/paper/tables.json");
    let paper: Paper = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut counts: BTreeMap<Agreement, usize> = BTreeMap::new();
    let mut errors = Vec::new();
    for table in &paper.tables {
        for row in &table.rows {
            for (column, printed) in table.columns.iter().zip(&row.printed) {
                if column.kind != "derived" || printed == "-" {
                    continue;
                }
                let (derived, from_printed) = table.derived(row, column);
                let agreement = agreement(printed, derived, from_printed);
                *counts.entry(agreement).or_default() += 1;
                if agreement == Agreement::None {
                    let [table, row, column] = [&table.number, &row.name, &column.name].map(String::clone);
                    errors.push(KnownError { table, row, column });
                }
            }
        }
    }
    let expected = [
        (Agreement::Digits, 139),
        (Agreement::FromPrintedAverages, 10),
        (Agreement::WithinRoundingOfInputs, 23),
        (Agreement::None, 2),
    ];
    assert_eq!(counts, expected.into());
    assert_eq!(errors, paper.known_errors);
}

#[test]
fn ties_go_up_and_bounds_are_kept() {
    // Vanilla FT of Table 6: the mean of the six near cells is exactly 60.065, printed 60.07.
    assert!(prints_as(60.065, "60.07") && !prints_as(60.065, "60.06") && prints_as(-22.905, "-22.91"));
    let derived = Rounded { value: 31.9133, low: 31.9083, high: 31.9183 };
    assert_eq!(agreement("31.98", derived, None), Agreement::None);
    assert_eq!(agreement("31.92", derived, None), Agreement::WithinRoundingOfInputs);
}
