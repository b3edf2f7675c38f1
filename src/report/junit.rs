//! Comparisons as a JUnit XML file, which CI systems show: a test case for each dataset.

use super::comparison::outcome;
use super::figure::escaped;
use super::markdown::p_value;
use crate::suite::{Comparison, DatasetComparison};

/// The comparison as JUnit XML. A failure has the words of the verdict.
pub fn junit(comparison: &Comparison) -> String {
    let Comparison { verdict, baseline, current, datasets, .. } = comparison;
    let failures = datasets.iter().filter(|one| !one.failures.is_empty()).count();
    let counts = format!("tests=\"{}\" failures=\"{failures}\"", datasets.len());
    let cases: String = datasets.iter().map(case).collect();
    let told = format!("{}\nbaseline: {}\ncurrent: {}", verdict.line(), baseline.source, current.source);
    let told = format!("<system-out>{}</system-out>\n", escaped(&told));
    suite(&format!("{counts} errors=\"0\""), &(cases + &told))
}

/// What stands in the place of a comparison that was refused, for these reasons.
pub fn refused_junit(reasons: &[String]) -> String {
    let [message, all] = [reasons.first().cloned().unwrap_or_default(), reasons.join("\n")];
    let error = format!("<error type=\"refusal\" message=\"{}\">{}</error>\n", escaped(&message), escaped(&all));
    let case = format!("<testcase classname=\"digrap-bench.compare\" name=\"comparison\">\n{error}</testcase>\n");
    suite("tests=\"1\" failures=\"0\" errors=\"1\"", &case)
}

fn suite(counts: &str, content: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n<testsuite name=\"digrap-bench compare\" {counts} \
         skipped=\"0\">\n{content}</testsuite>\n</testsuites>\n"
    )
}

fn case(one: &DatasetComparison) -> String {
    let told = format!(
        "{}: {} questions, {:.2} % in the baseline, {:.2} % now, {:+.2} points, p {} (Holm {}), {} lost, {} gained",
        outcome(one.outcome),
        one.n,
        one.baseline.accuracy,
        one.current.accuracy,
        one.difference,
        p_value(Some(one.drop_p_value)),
        p_value(Some(one.drop_p_value_holm)),
        one.lost.count,
        one.gained.count
    );
    let failure = match one.failures.is_empty() {
        true => String::new(),
        false => {
            let message = escaped(&one.failures.join(", and "));
            format!("<failure type=\"regression\" message=\"{message}\">{}</failure>\n", escaped(&told))
        }
    };
    format!(
        "<testcase classname=\"digrap-bench.compare\" name=\"{}\">\n{failure}<system-out>{}</system-out>\n</testcase>\n",
        escaped(&one.dataset),
        escaped(&told)
    )
}
