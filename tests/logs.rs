//! Logs for other tools: the bytes that their own writers would have written, and files as they expect them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

use digrap_bench::report::{TrackedRun, event_file, event_files, mlflow_files};
use digrap_bench::store::{CurvePoint, Store};
use serde_json::json;

use crate::support::fixture;

fn point(series: &str, step: u64, value: f64) -> CurvePoint {
    CurvePoint { series: series.to_owned(), step, value }
}

/// The numbers of `fixtures/logs/make_logs.py`, in another order.
fn curves() -> Vec<CurvePoint> {
    vec![
        point("loss", 0, 2.5),
        point("loss", 1 << 40, 1e30),
        point("loss", 1, 0.1),
        point("loss", 300, -1.5e-30),
        point("learning_rate", 1, 1e-4),
        point("omega/vision.layers.0.q_proj", 0, 0.0),
        point("validation", 300, 66.25),
    ]
}

#[test]
fn event_files_are_those_of_tensorboard() {
    assert_eq!(event_file(&curves()), fs::read(fixture("logs/curves.tfevents")).unwrap());
    // A run without points is a file that says its version.
    assert_eq!(event_file(&[]).len(), 8 + 4 + 15 + 4);
}

#[test]
fn runs_of_mlflow_are_plain_files() {
    let run = |name: &str| TrackedRun {
        name: name.to_owned(),
        settings: json!({"method": {"name": "digrap", "mu": 0.5}, "seed": 1, "targets": ["q", "v"], "lora": null}),
        metrics: vec![
            point("omega/a.b", 2, 0.25),
            point("omega", 2, 0.5),
            point("loss", 2, 1e-7),
            point("loss", 1, 3.0),
        ],
    };
    let files = mlflow_files(&[run("it's one"), run("two")]);
    let by_path: BTreeMap<String, &str> =
        files.iter().map(|(path, text)| (path.to_str().unwrap().to_owned(), &**text)).collect();
    assert_eq!(by_path.len(), files.len(), "a file is written twice");
    assert!(by_path["0/meta.yaml"].contains("experiment_id: '0'\n"));
    let ids: Vec<&str> = by_path.keys().filter_map(|path| path.strip_suffix("/params/seed")).collect();
    assert_eq!(ids.len(), 2);
    let named = |name: &str| {
        let tagged = |id: &&&str| by_path[&format!("{id}/tags/mlflow.runName")] == name;
        *ids.iter().find(tagged).unwrap()
    };
    let file = |name: &str| by_path[&format!("{}/{name}", named("it's one"))];
    assert!(file("meta.yaml").contains("run_name: 'it''s one'\n"), "{}", file("meta.yaml"));
    assert!(file("meta.yaml").contains(&format!("run_id: {}\n", &named("it's one")[2..])));
    assert!(file("artifacts/settings.json").contains("\"mu\": 0.5"));
    assert_eq!(file("params/method.name"), "digrap");
    assert_eq!(file("params/method.mu"), "0.5");
    assert_eq!(file("params/targets"), "[\"q\",\"v\"]");
    assert_eq!(file("metrics/loss"), "1 3 1\n2 0.0000001 2\n");
    // The mean over tensors is a file, so that those of tensors lie elsewhere.
    assert_eq!(file("metrics/omega"), "2 0.5 2\n");
    assert_eq!(file("metrics/tensors/omega/a.b"), "2 0.25 2\n");
    assert_eq!(mlflow_files(&[run("it's one"), run("two")]), files);
}

#[test]
fn names_lead_to_no_other_folder() {
    let names = ["/etc/a", "../../b", "c//d", "..", "e/."];
    let settings = names.iter().map(|name| (name.to_string(), json!(1))).collect();
    let metrics = names.iter().map(|name| point(name, 1, 0.5)).collect();
    let run = TrackedRun { name: "../run".to_owned(), settings: serde_json::Value::Object(settings), metrics };
    let files = mlflow_files(&[run]);
    let down = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    assert!(files.iter().all(|(path, _)| path.starts_with("0") && down(path)), "{files:?}");
    let has = |end: &&str| assert!(files.iter().any(|(path, _)| path.ends_with(end)), "no {end}: {files:?}");
    ["metrics/_/etc/a", "metrics/tensors/_/_/b", "metrics/c/_/d", "metrics/e/_", "params/_etc_a", "params/_"]
        .iter()
        .for_each(has);

    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path().join("store")).unwrap();
    let run = store.training_run(r#"{"method":"/../../x"}"#).unwrap();
    store.record_curve(run, &curves()).unwrap();
    let (path, bytes) = event_files(&store).unwrap().remove(0);
    assert!(path.starts_with("1-_.._.._x") && down(&path), "{}", path.display());
    assert_eq!(bytes, event_file(&curves()));
}
