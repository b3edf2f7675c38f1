//! The paper's own correlations: how accuracy goes with shift over the datasets of its Table 3.
//!
//! The paper is "Directional Gradient Projection for Robust Fine-Tuning of Foundation Models" (ICLR 2025).

use serde::{Deserialize, Serialize, Serializer};

use super::overview;
use super::sweeps::Sweeps;
use crate::error::{Error, Result};
use crate::stats::{COEFFICIENTS, Correlation, complete_mean};

/// What Table 3 gives, beside what the text reports.
#[derive(Debug, Clone, Serialize)]
pub struct PaperCorrelations {
    /// Shift by shift, set by set, method by method.
    pub correlations: Vec<PaperCorrelation>,
    /// What the text reports; no method has both, with any coefficient and over any set.
    pub reported: Vec<ReportedCorrelation>,
}

/// How the accuracy of a method goes with a shift over a set of datasets.
#[derive(Debug, Clone, Serialize)]
pub struct PaperCorrelation {
    /// Row of distances in Table 3.
    pub shift: String,
    /// Columns of Table 3; its name in records.
    #[serde(serialize_with = "set_name")]
    pub set: &'static PaperSet,
    /// Row of accuracies in Table 3.
    pub method: String,
    /// Accuracy with the *negative* distance, coefficient by coefficient of [`COEFFICIENTS`]: positive where accuracy
    /// falls as the shift grows.
    #[serde(serialize_with = "by_name")]
    pub coefficients: Vec<Option<Correlation>>,
}

/// A correlation that the paper's text reports.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ReportedCorrelation {
    /// Row of distances in Table 3.
    pub shift: &'static str,
    /// To the digits of the text.
    pub coefficient: f64,
}

/// Datasets of Table 3 that a correlation is taken over.
#[derive(Debug)]
pub struct PaperSet {
    /// Name in records.
    pub name: &'static str,
    /// Name in tables.
    pub label: &'static str,
    holds: fn(&Column) -> bool,
}

/// Every set.
pub static PAPER_SETS: &[PaperSet] = &[
    PaperSet { name: "all", label: "ten datasets", holds: |column| column.raw() },
    PaperSet { name: "ood", label: "nine OOD", holds: |column| column.raw() && column.domain != ID },
    PaperSet { name: "near", label: "six near OOD", holds: |column| column.raw() && column.domain == NEAR },
    PaperSet { name: "id-near", label: "ID and six near OOD", holds: |column| column.raw() && column.domain != FAR },
    PaperSet { name: "id-far", label: "ID and three far OOD", holds: |column| column.raw() && column.domain != NEAR },
    PaperSet { name: "all-averages", label: "ten datasets and three averages", holds: |_| true },
];

static REPORTED: &[ReportedCorrelation] = &[
    ReportedCorrelation { shift: "Vision Shift", coefficient: 0.83 },
    ReportedCorrelation { shift: "Joint Shift", coefficient: 0.80 },
];

const ID: &str = "ID";
const NEAR: &str = "Near OOD";
const FAR: &str = "Far OOD";

/// Every correlation between a row of accuracies and a row of distances of Table 3.
///
/// # Errors
/// A defect of the tables that are part of this program.
pub fn paper_correlations() -> Result<PaperCorrelations> {
    let table = table_3()?;
    let mut correlations = Vec::new();
    for shift in table.rows_of("shift_score") {
        for set in PAPER_SETS {
            let distances = table.cells(shift, set)?;
            let nearness: Vec<f64> = distances.iter().map(|distance| -distance).collect();
            for method in table.rows_of("method") {
                let accuracies = table.cells(method, set)?;
                let coefficients = COEFFICIENTS.iter().map(|row| (row.correlate)(&nearness, &accuracies)).collect();
                let (shift, method) = (shift.name.clone(), method.name.clone());
                correlations.push(PaperCorrelation { shift, set, method, coefficients });
            }
        }
    }
    Ok(PaperCorrelations { correlations, reported: REPORTED.to_vec() })
}

fn set_name<S: Serializer>(set: &PaperSet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(set.name)
}

/// The correlations as a map from the names of coefficients.
fn by_name<S: Serializer>(coefficients: &[Option<Correlation>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(COEFFICIENTS.iter().map(|row| row.name).zip(coefficients))
}

#[derive(Deserialize)]
struct Paper {
    tables: Vec<Table>,
}

#[derive(Deserialize)]
struct Table {
    number: String,
    about: String,
    columns: Vec<Column>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Column {
    #[serde(default)]
    name: String,
    /// Name of the dataset or average in suites.
    #[serde(default)]
    column: Option<String>,
    #[serde(default)]
    domain: String,
    kind: String,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    kind: String,
    printed: Vec<String>,
}

fn tables() -> Result<Vec<Table>> {
    let paper = serde_json::from_str(include_str!("../../benchmarks/paper/tables.json"));
    let paper: Paper =
        paper.map_err(|error| Error::internal("cannot read the tables of the paper").caused_by(error))?;
    Ok(paper.tables)
}

fn table_3() -> Result<Table> {
    let table = tables()?.into_iter().find(|table| table.number == "3");
    table.ok_or_else(|| Error::internal("the paper has no Table 3"))
}

/// How accuracy goes with the learning rate of the projection strength in the paper's Tables 4 and 11.
///
/// # Errors
/// A defect of the tables that are part of this program.
pub fn paper_sweeps() -> Result<Vec<Sweeps>> {
    let swept = |table: &Table| table.columns.iter().all(|column| column.domain == HYPER_PARAMETER);
    tables()?.iter().filter(|table| swept(table)).map(paper_sweep).collect()
}

/// Domain of the columns that are values of a hyper-parameter.
const HYPER_PARAMETER: &str = "hyper";

fn paper_sweep(table: &Table) -> Result<Sweeps> {
    let number = |text: &String| {
        let message = || format!("Table {} has `{text}` for a number", table.number);
        text.parse().map_err(|error: std::num::ParseFloatError| Error::internal(message()).caused_by(error))
    };
    let line = |row: &Row| {
        let accuracies = row.printed.iter().map(|text| number(text).map(Some)).collect::<Result<_>>()?;
        Ok((row.name.clone(), accuracies))
    };
    let (_, setting) = table.about.split_once(", ").unwrap_or(("", &table.about));
    Ok(Sweeps {
        title: format!("Table {}: {setting}", table.number),
        parameter: "learning rate of the projection strength".to_owned(),
        values: table.columns.iter().map(|column| number(&column.name)).collect::<Result<_>>()?,
        series: table.rows.iter().map(line).collect::<Result<_>>()?,
    })
}

/// A row of the paper's Table 3 in the columns of a suite.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PaperRow {
    /// Its name in the paper.
    pub name: String,
    /// Whether its cells are mean distances; accuracies in percent otherwise.
    pub is_shift: bool,
    /// As printed, column by column; none where the paper has no such column.
    pub cells: Vec<Option<f64>>,
}

/// The rows of Table 3 in these columns; none where the paper has no such datasets. An average is only shown where it is one
/// of the paper's over the same datasets.
///
/// # Errors
/// A defect of the tables that are part of this program.
pub(super) fn paper_rows(columns: &[overview::Column]) -> Result<Vec<PaperRow>> {
    let table = table_3()?;
    let place = |name: &str| table.columns.iter().position(|column| column.column.as_deref() == Some(name));
    let row = |row: &Row| {
        let number = |at: usize| table.number(row, at);
        let cell = |column: &overview::Column| {
            let Some(at) = place(&column.name) else { return Ok(None) };
            let printed = number(at)?;
            let members = column.average_of.iter().map(|name| place(name).map(number).transpose());
            let mean = complete_mean(&members.collect::<Result<Vec<_>>>()?);
            let same = column.average_of.is_empty() || mean.is_some_and(|mean| (mean - printed).abs() < ROUNDING);
            Ok(same.then_some(printed))
        };
        let cells = columns.iter().map(cell).collect::<Result<_>>()?;
        Ok(PaperRow { name: row.name.clone(), is_shift: row.kind == "shift_score", cells })
    };
    let mut rows = table.rows.iter().map(row).collect::<Result<Vec<PaperRow>>>()?;
    rows.retain(|row| row.cells.iter().any(Option::is_some));
    Ok(rows)
}

/// What a printed mean may be off by.
const ROUNDING: f64 = 0.011;

impl Table {
    /// The printed number of a row in a column.
    fn number(&self, row: &Row, column: usize) -> Result<f64> {
        let printed = &row.printed[column];
        let message = || format!("row `{}` of Table {} has `{printed}` for a number", row.name, self.number);
        printed.parse().map_err(|error: std::num::ParseFloatError| Error::internal(message()).caused_by(error))
    }

    fn rows_of(&self, kind: &str) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }

    /// The printed numbers of a row in the columns of a set.
    fn cells(&self, row: &Row, set: &PaperSet) -> Result<Vec<f64>> {
        let chosen = self.columns.iter().enumerate().filter(|(_, column)| (set.holds)(column));
        chosen.map(|(at, _)| self.number(row, at)).collect()
    }
}

impl Column {
    /// Whether it is a dataset's own and no average.
    fn raw(&self) -> bool {
        self.kind == "raw"
    }
}
