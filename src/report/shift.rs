//! The table of shifts.

use super::markdown::{Head, interval, markdown};

/// How far a set of samples lies from a reference.
#[derive(Debug, Clone)]
pub struct ShiftRow {
    /// Name of the set.
    pub name: String,
    /// Number of samples.
    pub n: usize,
    /// Mean distance.
    pub shift: f64,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// Quantiles of the distances with their names, the same for all rows.
    pub quantiles: Vec<(&'static str, f64)>,
}

/// A Markdown table with a line for each set, numbers with two decimals.
pub fn shift_table(rows: &[ShiftRow]) -> String {
    let names = rows.first().map_or(&[][..], |row| &row.quantiles).iter().map(|(name, _)| *name);
    let first = Head { text: "test", number: false };
    let numbers = ["n", "shift", "95 % interval"].into_iter().chain(names);
    let heads: Vec<Head> = [first].into_iter().chain(numbers.map(|text| Head { text, number: true })).collect();
    let cells = |row: &ShiftRow| {
        let start = [row.name.clone(), row.n.to_string(), format!("{:.2}", row.shift), interval(row.interval)];
        start.into_iter().chain(row.quantiles.iter().map(|(_, value)| format!("{value:.2}"))).collect()
    };
    markdown(&heads, &rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_a_line_with_its_quantiles() {
        let quantiles = vec![("min", 1.0), ("0.5", 27.836), ("max", 103.25)];
        let row = ShiftRow { name: "vqav2".into(), n: 4, shift: 27.84, interval: Some([27.0, 28.125]), quantiles };
        let one = ShiftRow { name: "one".into(), n: 1, interval: None, ..row.clone() };
        let expected = "\
| test  | n | shift |  95 % interval |  min |   0.5 |    max |
|-------|--:|------:|---------------:|-----:|------:|-------:|
| vqav2 | 4 | 27.84 | 27.00 to 28.12 | 1.00 | 27.84 | 103.25 |
| one   | 1 | 27.84 |              - | 1.00 | 27.84 | 103.25 |
";
        assert_eq!(shift_table(&[row, one]), expected);
    }
}
