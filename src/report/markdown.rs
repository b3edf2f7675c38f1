//! Markdown tables whose source reads as a table too.

/// The head of a column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub text: &'a str,
    /// Whether its cells stand to the right.
    pub number: bool,
}

/// The cells, row by row, under the heads, padded to the width of their column.
pub(super) fn markdown(heads: &[Head], rows: &[Vec<String>]) -> String {
    let mut text = vec![String::new(); rows.len() + 2];
    for (index, Head { text: head, number }) in heads.iter().enumerate() {
        let cell =
            |row: &Vec<String>| row.get(index).map_or_else(String::new, |cell| one_line(cell).replace('|', "\\|"));
        let cells: Vec<String> = rows.iter().map(cell).collect();
        let width = cells.iter().map(|cell| cell.chars().count()).fold(head.chars().count(), usize::max);
        let pad = |cell: &str| if *number { format!("| {cell:>width$} ") } else { format!("| {cell:<width$} ") };
        let rule = if *number { format!("|{}:", "-".repeat(width + 1)) } else { format!("|{}", "-".repeat(width + 2)) };
        let column = [pad(head), rule].into_iter().chain(cells.iter().map(|cell| pad(cell)));
        text.iter_mut().zip(column).for_each(|(line, cell)| line.push_str(&cell));
    }
    text.iter().map(|line| format!("{line}|\n")).collect()
}

/// What stands for a value that there is none of.
pub(super) fn unknown() -> String {
    "-".to_owned()
}

/// A number with two decimals; what rounds to zero has no sign.
pub(super) fn two_decimals(value: f64) -> String {
    let text = format!("{value:.2}");
    if text == "-0.00" { text[1..].to_owned() } else { text }
}

/// A percentage with two decimals.
pub(super) fn percent(value: Option<f64>) -> String {
    value.map_or_else(unknown, two_decimals)
}

/// An interval of percentages.
pub(super) fn interval(bounds: Option<[f64; 2]>) -> String {
    bounds.map_or_else(unknown, |[low, high]| format!("{} to {}", two_decimals(low), two_decimals(high)))
}

/// A value with its interval, if it has one.
pub(super) fn with_interval(value: f64, bounds: Option<[f64; 2]>) -> String {
    let bounds = bounds.map_or_else(String::new, |_| format!(" ({})", interval(bounds)));
    two_decimals(value) + &bounds
}

/// A p-value with three decimals.
pub(super) fn p_value(value: Option<f64>) -> String {
    match value {
        None => unknown(),
        Some(value) if value < 0.001 => "< 0.001".to_owned(),
        Some(value) => format!("{value:.3}"),
    }
}

/// A text of somebody else in which nothing is Markdown or HTML, on one line.
pub(super) fn plain(text: &str) -> String {
    escaped(&one_line(text))
}

/// The words of a text with a space between any two.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|letter: char| letter.is_whitespace() || letter.is_control());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A text with the signs that mean something to Markdown or HTML escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    let mut before = None;
    while let Some(letter) = letters.next() {
        let alphanumeric = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // Within a word it means nothing.
            '_' if alphanumeric(before) && alphanumeric(letters.peek().copied()) => out.push(letter),
            '\\' | '`' | '*' | '_' | '[' | ']' | '~' => out.extend(['\\', letter]),
            _ => out.push(letter),
        }
        before = Some(letter);
    }
    out
}

/// A text as code, on one line.
pub(super) fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', "'").replace(char::is_control, "'"))
}
