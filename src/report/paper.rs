//! A page about the paper's own correlations between accuracy and shift.

use super::markdown::{Head, interval, markdown, p_value, two_decimals, unknown};
use crate::stats::{COEFFICIENTS, Correlation};

/// How the accuracy of a method goes with a shift over a set of datasets.
#[derive(Debug, Clone, Copy)]
pub struct CorrelationRow<'a> {
    /// Name of the shift.
    pub shift: &'a str,
    /// Name of the set.
    pub set: &'a str,
    /// Name of the method.
    pub method: &'a str,
    /// One for each of [`COEFFICIENTS`].
    pub coefficients: &'a [Option<Correlation>],
}

/// A correlation that a text reports.
#[derive(Debug, Clone, Copy)]
pub struct ReportedRow<'a> {
    /// Name of the shift.
    pub shift: &'a str,
    /// From -1 to 1.
    pub coefficient: f64,
}

/// So many sets, from the first on, have tables of their own.
const IN_FULL: usize = 2;

/// The page, in Markdown: for each shift a table of every set, in the order of the rows, and what the text reports
/// beside what was computed over the first set. Coefficients have two decimals.
pub fn paper_correlations(rows: &[CorrelationRow], reported: &[ReportedRow]) -> String {
    let (shifts, sets) = (distinct(rows, |row| row.shift), distinct(rows, |row| row.set));
    let section = |shift: &&str| {
        let rows: Vec<CorrelationRow> = rows.iter().filter(|row| row.shift == *shift).copied().collect();
        let in_full = sets.iter().take(IN_FULL).map(|set| in_full(&rows, set));
        format!("\n## {shift}\n{}{}", in_full.collect::<String>(), in_short(&rows, &sets[IN_FULL.min(sets.len())..]))
    };
    let sections: String = shifts.iter().map(section).collect();
    let beside = sets.first().map_or_else(String::new, |set| beside_reported(rows, set, reported));
    format!("{TITLE}{beside}{sections}")
}

const TITLE: &str = "\
# Shift and accuracy in the paper's Table 3

Correlations over datasets between a method's accuracy and the negative distance: positive where accuracy falls as the
shift grows. P-values are two-sided and not adjusted for their number. They and the intervals take the datasets to be
independent draws, which several sets on the same images are not.
";

const REPORTED: &str = "\
The text reports one number for each of these shifts. They are not reproducible from Table 3: no method has both, with
any coefficient and over any set below.
";

fn distinct<'a>(rows: &[CorrelationRow<'a>], name: fn(&CorrelationRow<'a>) -> &'a str) -> Vec<&'a str> {
    let mut names = Vec::new();
    rows.iter().map(name).for_each(|name| {
        if !names.contains(&name) {
            names.push(name)
        }
    });
    names
}

fn labels() -> String {
    let labels: Vec<&str> = COEFFICIENTS.iter().map(|row| row.label).collect();
    labels.join(", ")
}

/// The table of a set: coefficients with their p-values, and the interval of the first one.
fn in_full(rows: &[CorrelationRow], set: &str) -> String {
    let mut heads = vec![Head { text: "method", number: false }];
    heads.extend(COEFFICIENTS.iter().flat_map(|row| [row.label, "p"]).map(|text| Head { text, number: true }));
    heads.insert(3, Head { text: "95 % interval", number: true });
    let cells = |row: &CorrelationRow| {
        let with_p_value = |correlation: &Option<Correlation>| {
            [coefficient(correlation), p_value(correlation.map(|correlation| correlation.p_value))]
        };
        let mut cells = vec![row.method.to_owned()];
        cells.extend(row.coefficients.iter().flat_map(with_p_value));
        let first = row.coefficients.first().copied().flatten();
        cells.insert(cells.len().min(3), interval(first.and_then(|correlation| correlation.interval)));
        cells
    };
    let rows: Vec<Vec<String>> = rows.iter().filter(|row| row.set == set).map(cells).collect();
    format!("\n### {set}\n\n{}", markdown(&heads, &rows))
}

/// One table of all other sets, with the coefficients of a cell one after the other.
fn in_short(rows: &[CorrelationRow], sets: &[&str]) -> String {
    if sets.is_empty() {
        return String::new();
    }
    let mut heads = vec![Head { text: "method", number: false }];
    heads.extend(sets.iter().map(|text| Head { text, number: true }));
    let cell = |method: &str, set: &str| {
        let row = rows.iter().find(|row| row.method == method && row.set == set);
        let texts = |row: &CorrelationRow| row.coefficients.iter().map(coefficient).collect::<Vec<_>>().join(" / ");
        row.map_or_else(unknown, texts)
    };
    let line = |method: &str| {
        let cells = sets.iter().map(|set| cell(method, set));
        std::iter::once(method.to_owned()).chain(cells).collect()
    };
    let lines: Vec<Vec<String>> = distinct(rows, |row| row.method).into_iter().map(line).collect();
    format!("\n### Other sets ({})\n\n{}", labels().replace(", ", " / "), markdown(&heads, &lines))
}

/// The reported numbers, and below them every method's first coefficient over a set.
fn beside_reported(rows: &[CorrelationRow], set: &str, reported: &[ReportedRow]) -> String {
    let mut heads = vec![Head { text: "", number: false }];
    heads.extend(reported.iter().map(|row| Head { text: row.shift, number: true }));
    let mut lines = vec![vec!["reported, not reproducible from Table 3".to_owned()]];
    lines[0].extend(reported.iter().map(|row| format!("{:.2}", row.coefficient)));
    let first = COEFFICIENTS.first().map_or("", |row| row.label);
    let computed = |method: &str, shift: &str| {
        let row = rows.iter().find(|row| row.method == method && row.shift == shift && row.set == set);
        row.and_then(|row| row.coefficients.first()).map_or_else(unknown, coefficient)
    };
    for method in distinct(rows, |row| row.method) {
        let cells = reported.iter().map(|row| computed(method, row.shift));
        lines.push(std::iter::once(method.to_owned()).chain(cells).collect());
    }
    format!("\n## Reported in the text\n\n{REPORTED}\n{}\nComputed: {first}, {set}.\n", markdown(&heads, &lines))
}

fn coefficient(correlation: &Option<Correlation>) -> String {
    correlation.map_or_else(unknown, |correlation| two_decimals(correlation.coefficient))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_number_and_what_is_reported() {
        let correlation = |coefficient, p_value, interval| Some(Correlation { coefficient, p_value, interval, n: 4 });
        let strong = [correlation(0.8349, 0.0004, Some([0.1, 0.95])), correlation(1.0, 0.04, None), None];
        let weak = [correlation(-0.1, 0.8, Some([-0.7, 0.6])); 3];
        let row = |set, method, coefficients| CorrelationRow { shift: "Vision", set, method, coefficients };
        let rows =
            [row("ten", "A", &strong[..]), row("ten", "B", &weak), row("nine", "A", &weak), row("six", "A", &strong)];
        let text = paper_correlations(&rows, &[ReportedRow { shift: "Vision", coefficient: 0.8 }]);
        let expected = "\
## Reported in the text

The text reports one number for each of these shifts. They are not reproducible from Table 3: no method has both, with
any coefficient and over any set below.

|                                         | Vision |
|-----------------------------------------|-------:|
| reported, not reproducible from Table 3 |   0.80 |
| A                                       |   0.83 |
| B                                       |  -0.10 |

Computed: Pearson, ten.

## Vision

### ten

| method | Pearson |       p | 95 % interval | Spearman |     p | Kendall |     p |
|--------|--------:|--------:|--------------:|---------:|------:|--------:|------:|
| A      |    0.83 | < 0.001 |  0.10 to 0.95 |     1.00 | 0.040 |       - |     - |
| B      |   -0.10 |   0.800 | -0.70 to 0.60 |    -0.10 | 0.800 |   -0.10 | 0.800 |

### nine

| method | Pearson |     p | 95 % interval | Spearman |     p | Kendall |     p |
|--------|--------:|------:|--------------:|---------:|------:|--------:|------:|
| A      |   -0.10 | 0.800 | -0.70 to 0.60 |    -0.10 | 0.800 |   -0.10 | 0.800 |

### Other sets (Pearson / Spearman / Kendall)

| method |             six |
|--------|----------------:|
| A      | 0.83 / 1.00 / - |
| B      |               - |
";
        assert!(text.ends_with(expected), "{text}");
    }
}
