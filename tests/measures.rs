//! What datasets measure beside accuracy: against published counts, scikit-learn, and values worked out by hand.

use std::collections::BTreeMap;

use digrap_bench::score::{
    AnswerId, Evidence, Figure, Groups, Originals, Parts, References, average_precision, f1, find_measure,
};
use serde::Deserialize;

use crate::support::fixture_json;

/// Ten equal answers to each question.
fn references<'a>(answers: impl IntoIterator<Item = &'a str>) -> References {
    let mut builder = References::builder();
    for answer in answers {
        for number in 1..=10 {
            builder.answer(answer, Some("yes"), Some(AnswerId::Number(number))).unwrap();
        }
        builder.end_question(None, None).unwrap();
    }
    builder.finish()
}

fn by_name(figures: &[Figure]) -> BTreeMap<&str, &Figure> {
    figures.iter().map(|figure| (figure.name.as_str(), figure)).collect()
}

#[track_caller]
fn assert_figure(figures: &[Figure], name: &str, n: usize, value: f64) {
    let figure = by_name(figures)[name];
    let found = figure.value.unwrap();
    assert!(figure.n == n && (found - value).abs() < 1e-9, "{name}: {found} of {}, not {value} of {n}", figure.n);
}

/// Figures of a measure of edits. `pairs` has the original's number, its answer and the edit's answer; `truth` the human
/// answer before and after an edit.
fn flips(measure: &str, pairs: &[(usize, &str, &str)], truth: [&str; 2]) -> Vec<Figure> {
    let count = pairs.iter().map(|pair| pair.0).max().unwrap() + 1;
    let mut before = vec![""; count];
    pairs.iter().for_each(|(original, answer, _)| before[*original] = answer);
    let of: Vec<usize> = pairs.iter().map(|pair| pair.0).collect();
    let answers: Vec<&str> = pairs.iter().map(|pair| pair.2).collect();
    let (after_truth, before_truth) = (references(pairs.iter().map(|_| truth[1])), references(vec![truth[0]; count]));
    let clusters: Vec<u32> = (0..count as u32).collect();
    let evidence = Evidence {
        answers: &answers,
        scores: &vec![0.0; answers.len()],
        references: &after_truth,
        clusters: &vec![0; answers.len()],
        parts: None,
        groups: None,
        originals: Some(Originals { of: &of, answers: &before, references: &before_truth, clusters: &clusters }),
    };
    find_measure(measure).unwrap().figures(&evidence).unwrap()
}

/// The counts that the notebook of IV-VQA prints for SNMN: 108,239 edits of 45,076 questions.
#[test]
fn flips_of_snmn_on_iv_vqa_are_the_published_ones() {
    let classes = [(2758, "x", "a"), (3084, "a", "x"), (1217, "x", "y"), (67755, "a", "a"), (33425, "x", "x")];
    let mut pairs = Vec::new();
    for (count, before, after) in classes {
        for _ in 0..count {
            pairs.push((pairs.len(), before, after));
        }
    }
    let figures = flips("flips", &pairs, ["a", "a"]);
    let printed = [
        ("flips", "6.522"),
        ("flips, wrong to right", "2.548"),
        ("flips, right to wrong", "2.849"),
        ("flips, wrong to wrong", "1.124"),
        ("flips, right to right", "0.000"),
        ("no flip, right", "62.598"),
        ("no flip, wrong", "30.881"),
        ("accuracy original, once per edit", "65.447"),
        ("accuracy edited", "65.146"),
    ];
    for (name, value) in printed {
        let figure = by_name(&figures)[name];
        assert_eq!((figure.n, format!("{:.3}", figure.value.unwrap())), (108_239, value.to_owned()), "{name}");
    }
    let sum: f64 = figures[1..7].iter().map(|figure| figure.value.unwrap()).sum();
    assert!((sum - 100.0).abs() < 1e-9);
    assert_figure(&figures, "flips", 108_239, 100.0 * 7059.0 / 108_239.0);
    // One edit to an image here: the interval of a plain share, with 1.95999 = t(0.975, 108238).
    let share = 7059.0 / 108_239.0;
    let reach = 1.959_99 * f64::sqrt(share * (1.0 - share) / 108_238.0);
    let [low, high] = by_name(&figures)["flips"].interval.unwrap();
    assert!((low - 100.0 * (share - reach)).abs() < 1e-4 && (high - 100.0 * (share + reach)).abs() < 1e-4);
}

#[test]
fn edits_are_also_counted_by_their_original() {
    // Original 0 is answered right, and after one of its two edits; 1 is wrong, and right after both; 2 right always.
    let pairs = [(0, "a", "a"), (0, "a", " b\n"), (1, "x", "a"), (1, "x", "a"), (2, "a", "a")];
    let figures = flips("flips", &pairs, ["a", "a"]);
    assert_figure(&figures, "flips", 5, 60.0);
    assert_figure(&figures, "flips, right to wrong", 5, 20.0);
    assert_figure(&figures, "flips, wrong to right", 5, 40.0);
    assert_figure(&figures, "accuracy original, once per edit", 5, 60.0);
    assert_figure(&figures, "accuracy edited", 5, 80.0);
    assert_figure(&figures, "accuracy original", 3, 200.0 / 3.0);
    assert_figure(&figures, "accuracy edited, worst case", 3, 200.0 / 3.0);
    assert_figure(&figures, "accuracy edited, best case", 3, 100.0);
    // All edited images have the number 0: with an interval, clusters are the images before.
    assert_eq!(by_name(&figures)["flips"].interval, Some([0.0, 100.0]));
}

#[test]
fn counts_are_consistent_where_they_fall_by_one() {
    let pairs = [
        (0, "3", "2"),    // consistent and right
        (0, "3", "3"),    // right, then wrong
        (1, "4", "2"),    // wrong, then right
        (2, "5", "4"),    // consistent and wrong
        (3, "7", "9"),    // wrong and flipped
        (4, "3", "many"), // no integer
        (5, "many", "2"), // the answer before is no integer: a flip
        (6, "3", "02"),   // not how an integer is written
    ];
    let figures = flips("count-flips", &pairs, ["3", "2"]);
    let expected = [
        ("flips", 4.0),
        ("flips, wrong to right", 2.0),
        ("flips, right to wrong", 1.0),
        ("flips, wrong to wrong", 1.0),
        ("flips, right to right", 0.0),
        ("no flip, right", 1.0),
        ("no flip, wrong", 1.0),
        ("not an integer", 2.0),
        ("accuracy original, once per edit", 4.0),
        ("accuracy edited", 3.0),
    ];
    for (name, count) in expected {
        assert_figure(&figures, name, 8, 12.5 * count);
    }
    assert_figure(&figures, "accuracy original", 7, 300.0 / 7.0);
    assert_figure(&figures, "accuracy edited, worst case", 7, 200.0 / 7.0);
    assert_figure(&figures, "accuracy edited, best case", 7, 300.0 / 7.0);
}

#[test]
fn consensus_counts_subsets_that_are_all_answered() {
    // Four complete groups with 4, 3, 2 and 0 members above zero, each in any order; one group lacks a member.
    let scores = [1.0, 0.3, 0.6, 1.0, 0.0, 0.3, 0.9, 1.0, 1.0, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
    let groups: Vec<u32> = (0..19).map(|question| question / 4).collect();
    let original: Vec<bool> = (0..19).map(|question| question % 4 == 0).collect();
    let references = references(vec!["a"; 19]);
    let evidence = Evidence {
        answers: &[""; 19],
        scores: &scores,
        references: &references,
        clusters: &groups,
        parts: None,
        groups: Some(Groups { of: &groups, original: &original }),
        originals: None,
    };
    let figures = find_measure("consensus").unwrap().figures(&evidence).unwrap();
    // C(c, k) / C(4, k) for c = 4, 3, 2, 0.
    assert_figure(&figures, "CS(1)", 4, 100.0 * (1.0 + 3.0 / 4.0 + 2.0 / 4.0) / 4.0);
    assert_figure(&figures, "CS(2)", 4, 100.0 * (1.0 + 3.0 / 6.0 + 1.0 / 6.0) / 4.0);
    assert_figure(&figures, "CS(3)", 4, 100.0 * (1.0 + 1.0 / 4.0) / 4.0);
    assert_figure(&figures, "CS(4)", 4, 25.0);
    assert_figure(&figures, "accuracy originals", 5, 100.0 * (1.0 + 0.0 + 1.0 + 0.0 + 1.0) / 5.0);
    let others = [0.3, 0.6, 1.0, 0.3, 0.9, 1.0, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0];
    assert_figure(&figures, "accuracy rephrasings", 14, 100.0 * others.iter().sum::<f64>() / 14.0);
    assert!(figures.iter().all(|figure| figure.interval.is_some()));
}

#[test]
fn parts_have_an_accuracy_each() {
    let names: Vec<Box<str>> = ["counterexamples", "easy", "hard"].map(Box::from).into();
    let references = references(vec!["a"; 5]);
    let evidence = Evidence {
        answers: &[""; 5],
        scores: &[0.0, 1.0, 0.6, 0.9, 0.3],
        references: &references,
        clusters: &[0, 0, 1, 2, 2],
        parts: Some(Parts { of: &[0, 1, 1, 1, 0], names: &names }),
        groups: None,
        originals: None,
    };
    for measure in ["shortcuts", "seen-images"] {
        let figures = find_measure(measure).unwrap().figures(&evidence).unwrap();
        assert_figure(&figures, "accuracy", 5, 56.0);
        assert_figure(&figures, "accuracy counterexamples", 2, 15.0);
        assert_figure(&figures, "accuracy easy", 3, 250.0 / 3.0);
        let empty = by_name(&figures)["accuracy hard"];
        assert_eq!((empty.n, empty.value, empty.interval), (0, None, None));
    }
}

#[derive(Deserialize)]
struct Unanswerability {
    confidence: Vec<f64>,
    positive: Vec<bool>,
    average_precision: f64,
    f1: f64,
}

#[test]
fn average_precision_and_f1_equal_those_of_scikit_learn() {
    let cases: Vec<Unanswerability> = serde_json::from_value(fixture_json("score/unanswerability.json")).unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let n = case.positive.len();
        let ours = average_precision(&case.confidence, &case.positive).unwrap();
        assert!((ours - case.average_precision).abs() < 1e-12, "{n}: {ours}, not {}", case.average_precision);
        let claimed: Vec<bool> = case.confidence.iter().map(|confidence| *confidence > 0.5).collect();
        let ours = f1(&claimed, &case.positive).unwrap();
        assert!((ours - case.f1).abs() < 1e-12, "{n}: {ours}, not {}", case.f1);
    }
    assert_eq!((average_precision(&[0.5], &[false]), f1(&[false], &[false])), (None, None));
}

#[test]
fn unanswerable_is_what_an_answer_says_after_normalisation() {
    let names: Vec<Box<str>> = ["answerable", "unanswerable"].map(Box::from).into();
    let references = references(vec!["a"; 5]);
    let evidence = Evidence {
        answers: &["The unanswerable.", "Unanswerable", "unanswerable", "red", "unsuitable"],
        scores: &[0.0; 5],
        references: &references,
        clusters: &[0, 1, 2, 3, 4],
        parts: Some(Parts { of: &[1, 1, 0, 1, 0], names: &names }),
        groups: None,
        originals: None,
    };
    let figures = find_measure("unanswerability").unwrap().figures(&evidence).unwrap();
    // Claims: three, two of them right, of three. Precision 2/3 at recall 2/3; then 3/5 at recall 1.
    assert_figure(&figures, "average precision", 5, 100.0 * (2.0 / 3.0 * 2.0 / 3.0 + 1.0 / 3.0 * 3.0 / 5.0));
    assert_figure(&figures, "F1", 5, 200.0 / 3.0);
}
