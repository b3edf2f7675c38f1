//! The whole way from a checkpoint to a table, on easy-VQA: against the recorded answers of transformers, and against
//! itself where nothing may change.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{easy_vqa, fixture, fixture_json, link, program_at};

/// What `fixtures/record_easy_vqa.py` recorded.
#[derive(Deserialize)]
struct Recorded {
    accuracy: f64,
    accuracy_yes_no: f64,
    accuracy_other: f64,
    shuffled_images_accuracy: f64,
    records: Vec<(i64, String, f64)>,
}

fn recorded() -> Recorded {
    serde_json::from_value(fixture_json("parity/paligemma-easy-vqa.json")).unwrap()
}

/// Evaluates the easy-VQA checkpoint; the outcome as `--json` prints it.
fn vqa(home: &Path, arguments: &[&str]) -> Value {
    let model = fixture("models/paligemma-easy-vqa");
    let output = program_at(home).arg("vqa").arg("--model").arg(model).args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    run["evaluations"][0].clone()
}

/// The answers of a results file by question.
fn answers(path: &Path) -> BTreeMap<i64, String> {
    let records: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let record =
        |record: &Value| (record["question_id"].as_i64().unwrap(), record["answer"].as_str().unwrap().to_owned());
    records.iter().map(record).collect()
}

#[track_caller]
fn assert_same(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap();
    assert!((value - expected).abs() < 1e-9, "{value}, not {expected}");
}

#[test]
fn answers_to_easy_vqa_equal_those_of_transformers() {
    let home = tempfile::tempdir().unwrap();
    let root = easy_vqa();
    let arguments = ["--dataset", "easy-vqa", "--root", root.to_str().unwrap(), "--output", "output"];
    let evaluation = vqa(home.path(), &arguments);
    let recorded = recorded();
    let answers = answers(&home.path().join("output/easy-vqa.results.json"));
    assert_eq!((answers.len(), recorded.records.len()), (9673, 9673));
    let different: Vec<_> = recorded.records.iter().filter(|(id, answer, _)| answers[id] != *answer).collect();
    assert!(different.is_empty(), "{} answers differ, first: {:?}", different.len(), different[0]);
    assert_same(&evaluation["accuracy"], recorded.accuracy);
    assert_same(&evaluation["by_answer_type"]["yes/no"]["accuracy"], recorded.accuracy_yes_no);
    assert_same(&evaluation["by_answer_type"]["other"]["accuracy"], recorded.accuracy_other);
    assert_eq!((&evaluation["n"], &evaluation["clusters"]), (&json!(9673), &json!(1000)));
    let official = fixture_json("score/easy_vqa.json");
    assert_eq!(printed(&evaluation["accuracy"]), official["overall"].to_string());
    for kind in ["yes/no", "other"] {
        let accuracy = &evaluation["by_answer_type"][kind]["accuracy"];
        assert_eq!(printed(accuracy), official["perAnswerType"][kind].to_string());
    }
}

/// As the official evaluator prints an accuracy.
fn printed(accuracy: &Value) -> String {
    format!("{:.2}", accuracy.as_f64().unwrap())
}

/// The run ends, although hundreds of windows are still to be prepared when the error comes.
#[test]
fn a_damaged_image_in_a_long_set_ends_the_run_and_keeps_what_was_answered() {
    let home = tempfile::tempdir().unwrap();
    let (from, to) = (easy_vqa().join("test"), home.path().join("set/test"));
    fs::create_dir_all(to.join("images")).unwrap();
    link(&from.join("questions.json"), &to.join("questions.json"));
    for image in 0..fs::read_dir(from.join("images")).unwrap().count() {
        let target = to.join(format!("images/{image}.png"));
        match image {
            100 => fs::write(target, b"not an image").unwrap(),
            _ => link(&from.join(format!("images/{image}.png")), &target),
        }
    }
    let model = fixture("models/paligemma-easy-vqa");
    let arguments = ["--dataset", "easy-vqa", "--root", "set", "--batch-size", "2", "--output", "output"];
    let output = program_at(home.path()).arg("vqa").arg("--model").arg(model).args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("images/100.png"), "{told}");
    assert!(!home.path().join("output/easy-vqa.results.json").exists());
    link(&from.join("images/100.png"), &home.path().join("whole.png"));
    fs::rename(home.path().join("whole.png"), to.join("images/100.png")).unwrap();
    let evaluation = vqa(home.path(), &arguments);
    assert!(evaluation["pace"]["reused"].as_u64().unwrap() > 0);
}

/// Every image is exchanged for another one, as in the recording.
#[test]
fn answers_come_from_the_images() {
    const SHIFT: usize = 137;
    let home = tempfile::tempdir().unwrap();
    let (from, to) = (easy_vqa().join("test"), home.path().join("set/test"));
    fs::create_dir_all(to.join("images")).unwrap();
    link(&from.join("questions.json"), &to.join("questions.json"));
    let count = fs::read_dir(from.join("images")).unwrap().count();
    for image in 0..count {
        let other = (image + SHIFT) % count;
        link(&from.join(format!("images/{other}.png")), &to.join(format!("images/{image}.png")));
    }
    let evaluation = vqa(home.path(), &["--dataset", "easy-vqa", "--root", "set"]);
    let recorded = recorded();
    assert_same(&evaluation["accuracy"], recorded.shuffled_images_accuracy);
    assert!(recorded.accuracy - evaluation["accuracy"].as_f64().unwrap() >= 20.0);
}

/// Positions in an order that looks arbitrary and is always the same.
fn scattered(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|position| (*position as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    order
}

/// The first questions of easy-VQA in the official format, in scattered orders.
fn write_official_files(home: &Path, count: usize) {
    let text = fs::read(easy_vqa().join("test/questions.json")).unwrap();
    let records: Vec<(String, String, i64)> = serde_json::from_slice(&text).unwrap();
    let question = |position: &usize| {
        let (question, _, image) = &records[*position];
        json!({"question_id": position, "image_id": image, "question": question})
    };
    let annotation = |position: &usize| {
        let (_, answer, image) = &records[*position];
        let answers: Vec<Value> = (1..=10).map(|id| json!({"answer": answer, "answer_id": id})).collect();
        json!({"question_id": position, "image_id": image, "answers": answers, "answer_type": "any"})
    };
    let order = scattered(count);
    let questions: Vec<Value> = order.iter().map(question).collect();
    let annotations: Vec<Value> = order.iter().rev().map(annotation).collect();
    fs::write(home.join("questions.json"), json!({"questions": questions}).to_string()).unwrap();
    fs::write(home.join("annotations.json"), json!({"annotations": annotations}).to_string()).unwrap();
}

#[test]
fn answers_depend_neither_on_batches_nor_on_order() {
    const COUNT: usize = 600;
    let home = tempfile::tempdir().unwrap();
    let root = easy_vqa();
    let limit = COUNT.to_string();
    let named = ["--dataset", "easy-vqa", "--root", root.to_str().unwrap(), "--limit", &limit];
    vqa(home.path(), &[&named[..], &["--batch-size", "64", "--output", "named"]].concat());
    let expected = answers(&home.path().join("named/easy-vqa.results.json"));
    assert_eq!(expected.len(), COUNT);
    write_official_files(home.path(), COUNT);
    let images = root.join("test/images");
    let files = ["--questions=questions.json", "--annotations=annotations.json"];
    let own = [files[0], files[1], "--image-name={image_id}.png", "--images", images.to_str().unwrap()];
    for batch_size in ["1", "7", "64"] {
        let output = format!("own-{batch_size}");
        let arguments = [&own[..], &["--batch-size", batch_size, "--output", &output]].concat();
        let evaluation = vqa(home.path(), &arguments);
        assert_eq!(evaluation["pace"]["answered"], COUNT, "batches of {batch_size} were not asked for");
        let results = home.path().join(output).join("custom.results.json");
        assert_eq!(answers(&results), expected, "batches of {batch_size}");
        let score =
            program_at(home.path()).arg("score").args(files).arg("--results").arg(&results).arg("--json").output();
        let score: Value = serde_json::from_slice(&score.unwrap().stdout).unwrap();
        for key in ["metric", "n", "accuracy", "interval", "clusters", "by_answer_type"] {
            assert_eq!(score[key], evaluation[key], "{key}");
            assert!(!score[key].is_null(), "{key}");
        }
    }
}
