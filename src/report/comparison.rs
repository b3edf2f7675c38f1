//! Comparisons of two runs, and baselines that were written, as Markdown for a terminal, a job summary or a pull request.

use super::CLUSTERED;
use super::markdown::{
    Head, code, escaped, interval, markdown, one_line, p_value, percent, plain, two_decimals, unknown,
};
use crate::suite::{Blessed, Comparison, DatasetComparison, Differing, Flip, Flips, Outcome, POWER, Side};

/// Longest text of a question or an answer that is shown.
const SHOWN: usize = 80;

/// The verdict, the datasets, what else differs, and the first questions whose score has changed.
pub fn comparison(comparison: &Comparison) -> String {
    let Comparison { verdict, level, baseline, current, differing, notes, datasets, .. } = comparison;
    let mut text = format!(
        "## {}\n\n{}Baseline: {}. Current: {}.\n\n{}\n{}\n",
        verdict.line(),
        failures(datasets),
        side(baseline),
        side(current),
        table(datasets),
        about(*level, datasets)
    );
    notes.iter().for_each(|note| text += &format!("\nNote: {note}.\n"));
    text += "\n### What differs\n\n";
    text += &match differing.is_empty() {
        true => "Weights, settings and versions are the same.\n".to_owned(),
        false => settings(differing),
    };
    text + &flips(datasets)
}

/// What stands in the place of a comparison that was refused, for these reasons.
pub fn refused_comparison(reasons: &[String]) -> String {
    let lines: String = reasons.iter().map(|reason| format!("- {}\n", plain(reason))).collect();
    format!("## NOT COMPARED\n\n{lines}")
}

fn failures(datasets: &[DatasetComparison]) -> String {
    let failing = datasets.iter().filter(|one| !one.failures.is_empty());
    let told: String = failing.map(|one| format!("- {}: {}\n", one.dataset, one.failures.join(", and "))).collect();
    if told.is_empty() { told } else { told + "\n" }
}

fn side(Side { source, model, .. }: &Side) -> String {
    format!("{} ({})", code(source), plain(model))
}

const HEADS: [(&str, bool); 12] = [
    ("dataset", false),
    ("n", true),
    ("images", true),
    ("baseline %", true),
    ("current %", true),
    ("difference", true),
    ("95 % interval", true),
    ("p", true),
    ("p (Holm)", true),
    ("detectable", true),
    ("lost / gained", true),
    ("verdict", false),
];

fn table(datasets: &[DatasetComparison]) -> String {
    let cells = |one: &DatasetComparison| {
        vec![
            one.dataset.clone(),
            one.n.to_string(),
            one.images.to_string(),
            two_decimals(one.baseline.accuracy),
            two_decimals(one.current.accuracy),
            signed(one.difference),
            interval(one.interval),
            p_value(Some(one.drop_p_value)),
            p_value(Some(one.drop_p_value_holm)),
            percent(one.detectable_drop),
            format!("{} / {}", one.lost.count, one.gained.count),
            outcome(one.outcome).to_owned(),
        ]
    };
    grid(&HEADS, &datasets.iter().map(cells).collect::<Vec<_>>())
}

fn grid(heads: &[(&str, bool)], rows: &[Vec<String>]) -> String {
    let heads: Vec<Head> = heads.iter().map(|(text, number)| Head { text, number: *number }).collect();
    markdown(&heads, rows)
}

/// What a difference means, in words.
pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Fails => "FAIL",
        Outcome::TolerableDrop => "pass (tolerated drop)",
        Outcome::NoChange => "pass",
        Outcome::Better => "pass (better)",
    }
}

fn signed(value: f64) -> String {
    let text = two_decimals(value);
    if text.starts_with('-') || text == "0.00" { text } else { format!("+{text}") }
}

fn about(level: f64, datasets: &[DatasetComparison]) -> String {
    let mut metrics: Vec<&str> = datasets.iter().map(|one| one.metric.as_str()).collect();
    metrics.sort_unstable();
    metrics.dedup();
    let exact = match datasets.iter().all(|one| one.exact) {
        true => "Exact",
        false => "Exact (normal where clusters are many)",
    };
    let power = 100.0 * POWER;
    format!(
        "Differences in points, current less baseline. {CLUSTERED}. {exact} one-sided sign-flip test for a drop, signs \
         flipped cluster by cluster; level {level} for all datasets together (Holm). Detectable: the drop that would be \
         found in {power} of 100 cases; - where too few scores have changed to tell, and too few for any drop to be \
         significant. Metric: {}.",
        metrics.join(", ")
    )
}

fn settings(differing: &[Differing]) -> String {
    let cells = |one: &Differing| vec![one.what.clone(), brief(&one.baseline), brief(&one.current)];
    grid(&[("", false), ("baseline", false), ("current", false)], &differing.iter().map(cells).collect::<Vec<_>>())
}

/// A digest by its beginning; other texts as they are.
fn brief(text: &str) -> String {
    let digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digest { code(&format!("{}...", &text[..12])) } else { code(text) }
}

fn flips(datasets: &[DatasetComparison]) -> String {
    let shown = |one: &&DatasetComparison| !one.lost.first.is_empty() || !one.gained.first.is_empty();
    let sections = datasets.iter().filter(shown).map(|one| {
        let rows: Vec<Vec<String>> = [("lost", &one.lost), ("gained", &one.gained)]
            .into_iter()
            .flat_map(|(direction, flips)| flips.first.iter().map(move |flip| cells(direction, flip)))
            .collect();
        let told = [count("lost", &one.lost), count("gained", &one.gained)].join(", ");
        format!("\n**{}**: {told}\n\n{}", one.dataset, grid(&FLIPS, &rows))
    });
    let sections: String = sections.collect();
    if sections.is_empty() { sections } else { format!("\n### Questions whose score has changed\n{sections}") }
}

const FLIPS: [(&str, bool); 8] = [
    ("", false),
    ("question", true),
    ("image", true),
    ("text", false),
    ("people", false),
    ("baseline", false),
    ("current", false),
    ("score", true),
];

fn count(direction: &str, Flips { count, first }: &Flips) -> String {
    let shown = if first.len() < *count { format!(" (first {})", first.len()) } else { String::new() };
    format!("{count} {direction}{shown}")
}

fn cells(direction: &str, flip: &Flip) -> Vec<String> {
    let [before, after] = flip.scores.map(two_decimals);
    let identifiers = [&flip.question_id, &flip.image_id].map(|json| identifier(json));
    let texts = [&flip.question, &flip.reference, &flip.answers[0], &flip.answers[1]].map(|text| beginning(text));
    std::iter::once(direction.to_owned())
        .chain(identifiers)
        .chain(texts)
        .chain([format!("{before} to {after}")])
        .collect()
}

/// The beginning of a question or an answer.
fn beginning(text: &str) -> String {
    let text = one_line(text);
    match text.chars().count() {
        0 => unknown(),
        count if count > SHOWN => silent(&(text.chars().take(SHOWN - 3).collect::<String>() + "...")),
        _ => silent(&text),
    }
}

/// An identifier from its JSON text.
fn identifier(json: &str) -> String {
    silent(&one_line(&serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())))
}

/// A text in which nothing is Markdown or HTML, and no name or number calls people or other issues.
fn silent(text: &str) -> String {
    escaped(text).replace('#', "&#35;").replace('@', "&#64;")
}

/// A baseline that was written, beside the one that it replaces.
pub fn blessed(Blessed { folder, replaced, baseline }: &Blessed) -> String {
    let model = plain(&baseline.model);
    let first = match replaced {
        Some(old) => {
            format!("{} is the baseline now, in {}; it was {} before.", model, code(folder), plain(&old.model))
        }
        None => format!("{model} is the baseline now, in {}; there was none before.", code(folder)),
    };
    let before = |name: &str| replaced.iter().flat_map(|old| &old.datasets).find(|one| one.dataset == name);
    let now = baseline.datasets.iter().map(|one| {
        let old = before(&one.dataset).map(|old| old.accuracy.accuracy);
        vec![one.dataset.clone(), one.n.to_string(), percent(old), two_decimals(one.accuracy.accuracy)]
    });
    let mut rows: Vec<Vec<String>> = now.collect();
    let kept = |name: &str| baseline.datasets.iter().any(|one| one.dataset == name);
    for old in replaced.iter().flat_map(|old| &old.datasets).filter(|old| !kept(&old.dataset)) {
        rows.push(vec![old.dataset.clone(), unknown(), two_decimals(old.accuracy.accuracy), unknown()]);
    }
    let heads = [("dataset", false), ("n", true), ("accuracy % before", true), ("now", true)];
    format!("{first}\n\n{}", grid(&heads, &rows))
}
