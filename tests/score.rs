//! Every metric against the published evaluators (fixtures/score).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use digrap_bench::score::{
    AnswerId, METRICS, Metric, References, ScoreOptions, find_metric, normalise, score, summarise,
};
use digrap_bench::stats::clustered_mean;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Golden {
    records: Vec<Record>,
    accuracies: BTreeMap<String, Vec<Option<f64>>>,
    printed: BTreeMap<String, Printed>,
    normalised: Vec<[String; 5]>,
}

#[derive(Deserialize)]
struct Record {
    image_id: u32,
    question_type: String,
    answer_type: String,
    answers: Vec<Answer>,
    prediction: String,
}

#[derive(Deserialize)]
struct Answer {
    answer: String,
    answer_confidence: String,
    answer_id: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    overall: f64,
    #[serde(default)]
    per_question_type: BTreeMap<String, f64>,
    #[serde(default)]
    per_answer_type: BTreeMap<String, f64>,
}

fn fixture<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/score").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn references<'a>(records: impl IntoIterator<Item = &'a Record>) -> References {
    let mut builder = References::builder();
    for record in records {
        for answer in &record.answers {
            let id = answer.answer_id.map(AnswerId::Number);
            builder.answer(&answer.answer, Some(&answer.answer_confidence), id).unwrap();
        }
        builder.end_question(Some(&record.answer_type), Some(&record.question_type)).unwrap();
    }
    builder.finish()
}

/// Evaluators that leave out equal answer objects, not the current one alone.
fn compares_objects(metric: &Metric) -> bool {
    ["official-2021", "lavis", "lmms-eval-vqav2"].contains(&metric.name)
}

#[test]
fn every_metric_equals_its_evaluator() {
    let golden: Golden = fixture("golden.json");
    let references = references(&golden.records);
    let predictions: Vec<&str> = golden.records.iter().map(|record| &*record.prediction).collect();
    for metric in METRICS.iter().filter(|metric| metric.name != "simple") {
        let options = ScoreOptions { dict_equality: compares_objects(metric) };
        let ours = score(metric, options, &predictions, &references).unwrap();
        let theirs = &golden.accuracies[metric.name];
        let mut partial = 0;
        for ((record, ours), theirs) in golden.records.iter().zip(ours).zip(theirs) {
            let Some(theirs) = theirs else { continue };
            let answers: Vec<&str> = record.answers.iter().map(|answer| &*answer.answer).collect();
            let (name, prediction) = (metric.name, &record.prediction);
            assert!((ours - theirs).abs() < 1e-12, "{name}: {ours}, not {theirs}: {prediction:?} of {answers:?}");
            partial += usize::from(ours > 0.0 && ours < 1.0);
        }
        assert!(partial > 40, "{}: only {partial} partial scores were compared", metric.name);
    }
}

#[test]
fn every_normaliser_equals_its_evaluator() {
    let golden: Golden = fixture("golden.json");
    assert!(golden.normalised.len() > 400);
    for [text, official, evalai, lmms_eval, vizwiz] in &golden.normalised {
        assert_eq!(&normalise::official(text), official, "official of {text:?}");
        assert_eq!(&normalise::evalai(text), evalai, "evalai of {text:?}");
        assert_eq!(&normalise::lmms_eval(text), lmms_eval, "lmms-eval of {text:?}");
        assert_eq!(&normalise::vizwiz(text), vizwiz, "vizwiz of {text:?}");
    }
}

#[test]
fn leaving_out_by_index_is_the_same_where_answers_have_identifiers() {
    let golden: Golden = fixture("golden.json");
    let identified = |record: &&Record| record.answers.iter().all(|answer| answer.answer_id.is_some());
    let records: Vec<&Record> = golden.records.iter().filter(identified).collect();
    let references = references(records.iter().copied());
    let predictions: Vec<&str> = records.iter().map(|record| &*record.prediction).collect();
    for metric in METRICS {
        let by = |dict_equality| score(metric, ScoreOptions { dict_equality }, &predictions, &references).unwrap();
        assert_eq!(by(true), by(false), "{}", metric.name);
    }
    assert!(records.len() > 300);
}

#[test]
fn totals_round_to_what_the_evaluators_print() {
    let golden: Golden = fixture("golden.json");
    let references = references(&golden.records);
    let predictions: Vec<&str> = golden.records.iter().map(|record| &*record.prediction).collect();
    let images: Vec<u32> = golden.records.iter().map(|record| record.image_id).collect();
    let rounded = |accuracy: Option<f64>| format!("{:.2}", accuracy.unwrap()).parse::<f64>().unwrap();
    for (name, printed) in &golden.printed {
        let metric = find_metric(name).unwrap();
        let options = ScoreOptions { dict_equality: compares_objects(metric) };
        let scores = score(metric, options, &predictions, &references).unwrap();
        let summary = summarise(metric, &scores, &references, &images).unwrap();
        assert_eq!(rounded(summary.accuracy), printed.overall, "{name}");
        for (groups, printed) in [
            (&summary.by_answer_type, &printed.per_answer_type),
            (&summary.by_question_type, &printed.per_question_type),
        ] {
            for (group, accuracy) in printed {
                assert_eq!(rounded(groups[group].accuracy), *accuracy, "{name}, {group}");
            }
        }
        let [low, high] = summary.interval.unwrap();
        assert!(low < summary.accuracy.unwrap() && summary.accuracy.unwrap() < high && summary.clusters == 97);
    }
}

#[derive(Deserialize)]
struct Interval {
    values: Vec<f64>,
    clusters: Vec<u32>,
    mean: f64,
    standard_error: f64,
    interval: [f64; 2],
}

#[test]
fn clustered_intervals_equal_the_sandwich_formula() {
    let cases: Vec<Interval> = fixture("intervals.json");
    assert!(!cases.is_empty());
    for case in cases {
        let estimate = clustered_mean(&case.values, &case.clusters).unwrap();
        let close = |ours: f64, theirs: f64| (ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0);
        let [low, high] = estimate.interval.unwrap();
        let n = case.values.len();
        assert!(close(estimate.mean, case.mean) && close(estimate.standard_error.unwrap(), case.standard_error), "{n}");
        assert!(close(low, case.interval[0]) && close(high, case.interval[1]), "{n}: {low} to {high}");
    }
}
