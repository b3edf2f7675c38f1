//! Shift of a model over a suite: features, distances, the reference that is kept, and figures from the store alone.

use std::fs;
use std::path::Path;
use std::process::Output;

use digrap_bench::data::npy;
use digrap_bench::shift::{Fitting, Gaussian, GaussianOptions};
use digrap_bench::store::{CurvePoint, Store};
use serde_json::Value;

use crate::support::{fixture, program_at};

/// Two datasets of the miniature world, one far from the other's training set.
const SUITE: &str = r#"about = "Two sets"

[prompt]
evaluation = "bare"
training = "bare"
zero-shot = "bare"

[answer]
decode = "greedy"
max-new-tokens = 20

[[dataset]]
name = "miniature"
label = "ID"
shift = "none"

[[dataset]]
name = "miniature-viz"
label = "Viz & co"
shift = "far"

[[group]]
name = "ood"
label = "OOD avg."
members = ["miniature-viz"]
"#;

const LIMIT: &str = "150";

fn run(folder: &Path, arguments: &[&str]) -> Output {
    fs::write(folder.join("own.toml"), SUITE).unwrap();
    let mut program = program_at(folder);
    program.current_dir(folder).args(arguments);
    program.output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn model() -> String {
    fixture("models/miniature-ft").display().to_string()
}

/// The mean distance of a dataset in a modality, of a run.
fn shift(run: &Value, dataset: &str, modality: &str) -> f64 {
    let evaluations = run["evaluations"].as_array().unwrap();
    let evaluation = evaluations.iter().find(|one| one["dataset"] == dataset).unwrap();
    let shifts = evaluation["shifts"].as_array().unwrap();
    shifts.iter().find(|shift| shift["modality"] == modality).unwrap()["shift"].as_f64().unwrap()
}

fn rows(path: &Path) -> (usize, Vec<f64>) {
    let mut reader = npy::Reader::open(path).unwrap();
    let (columns, mut rows) = (reader.columns(), Vec::new());
    while let Some(some) = reader.next_rows().unwrap() {
        rows.extend_from_slice(some);
    }
    (columns, rows)
}

/// Compares mean distances with those of the features in the folder `features`, in numbers of training and test questions.
fn check_against_features(at: &Path, run: &Value, modality: &str, [training, questions]: [usize; 2]) {
    let (dimension, reference) = rows(&at.join(format!("features/miniature-training.{modality}.npy")));
    assert_eq!(reference.len(), training * dimension);
    let mut fitting = Fitting::new(dimension);
    fitting.add(&reference).unwrap();
    let moments = fitting.finish(Default::default()).unwrap();
    let gaussian = Gaussian::new(&moments, GaussianOptions::default()).unwrap();
    for dataset in ["miniature", "miniature-viz"] {
        let (_, features) = rows(&at.join(format!("features/{dataset}.{modality}.npy")));
        let distances = gaussian.distances(&features).unwrap();
        assert_eq!(distances.len(), questions);
        let mean = distances.iter().sum::<f64>() / questions as f64;
        let found = shift(run, dataset, modality);
        assert!((found - mean).abs() <= 1e-9 * mean, "{dataset}, {modality}: {found} for {mean}");
    }
}

#[test]
fn distances_are_those_of_the_features_that_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = model();
    let arguments = ["shift", "--model", &model, "--suite", "own.toml", "--limit", LIMIT, "--reference-limit", "900"];
    let more = ["--features-output", "features", "--output", "out", "--save-fit", "fit.safetensors", "--json"];
    let output = run(at, &[&arguments[..], &more].concat());
    let run_of_model = json(&output);
    let warning = "warning: miniature-ft, question features: ";
    assert!(told(&output).contains(warning), "96 directions of 128 count: {}", told(&output));
    for modality in ["vision", "question", "joint", "answer"] {
        check_against_features(at, &run_of_model, modality, [900, 150]);
    }
    let far = shift(&run_of_model, "miniature-viz", "vision") / shift(&run_of_model, "miniature", "vision");
    assert!(far > 1.5, "photos that were spoilt are {far} times as far as others");

    // The verb on files alone, as `shift` prints it for NumPy's files.
    let files =
        ["shift", "--reference", "features/miniature-training.joint.npy", "--test", "features/miniature-viz.joint.npy"];
    let of_files = json(&run(at, &[&files[..], &["--json"]].concat()));
    let found = of_files["tests"][0]["shift"].as_f64().unwrap();
    assert!((found / shift(&run_of_model, "miniature-viz", "joint") - 1.0).abs() < 1e-9);

    // The fit that was kept serves `vqa`, and no other model.
    let vqa =
        ["vqa", "--suite", "own.toml", "--limit", LIMIT, "--shift", "--fit", "fit.safetensors", "--json", "--model"];
    let answered = json(&run(at, &[&vqa[..], &[&model, "--output", "answers"]].concat()));
    assert_eq!(shift(&answered, "miniature-viz", "vision"), shift(&run_of_model, "miniature-viz", "vision"));
    let cells = &answered["suite"]["shifts"][0]["cells"];
    assert_eq!(cells[2], cells[1], "the mean over one dataset is its own");
    let base = fixture("models/miniature-pt").display().to_string();
    let refused = run(at, &[&vqa[..], &[&base, "--output", "other"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    let told = told(&refused);
    assert!(told.contains("`fit.safetensors` is a fit of other features: configuration is "), "{told}");
    assert!(
        told.contains("hint: measure with the model and the settings it was made with, or leave out --fit"),
        "{told}"
    );
}

#[test]
fn what_is_known_is_not_computed_again_and_figures_need_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    copy_folder(&fixture("models/miniature-pt"), &at.join("own"));
    let fit = ["shift", "--suite", "own.toml", "--model", "own", "--reference-limit", "500", "--limit", "20"];
    json(&run(at, &[&fit[..], &["--save-fit", "fit.safetensors", "--output", "fit", "--json"]].concat()));
    let answers = ["vqa", "--suite", "own.toml", "--model", "own", "--limit", LIMIT, "--output", "run", "--json"];
    let first = json(&run(at, &answers));
    assert_eq!(first["evaluations"][0]["pace"]["answered"], 150);
    let with_shift = [&answers[..], &["--shift", "--fit", "fit.safetensors"]].concat();
    let second = json(&run(at, &with_shift));
    assert_eq!(second["evaluations"][0]["pace"]["answered"], 0, "answers are known");
    assert_eq!(second["evaluations"][0]["accuracy"], first["evaluations"][0]["accuracy"]);
    assert_eq!(second["evaluations"][0]["pace"]["measured"], 150);
    let third = json(&run(at, &with_shift));
    assert_eq!(third["evaluations"][0]["pace"]["measured"], 0, "distances are known");
    assert_eq!(second["evaluations"][1]["shifts"], third["evaluations"][1]["shifts"]);
    // A sweep needs no distances.
    for value in ["mu=0.1", "mu=1"] {
        copy_folder(&at.join("own"), &at.join(value));
    }
    let sweep = ["vqa", "--suite", "own.toml", "--limit", "20", "--store", "sweep.sqlite", "--json", "--model"];
    json(&run(at, &[&sweep[..], &["mu=0.1", "mu=1"]].concat()));
    let drawn = ["figures", "--suite", "own.toml", "--store", "sweep.sqlite", "--limit", "20", "--output", "sweep"];
    assert!(run(at, &drawn).status.success());
    assert!(fs::read_to_string(at.join("sweep/sensitivity.svg")).unwrap().contains("OOD avg."));

    // Questions beyond the limit have no results: that is told, and not averaged over.
    fs::remove_dir_all(at.join("own")).unwrap();
    let figures = ["figures", "--suite", "own.toml", "--store", "run/store.sqlite", "--output", "page"];
    let incomplete = run(at, &figures);
    assert_eq!(incomplete.status.code(), Some(3), "{}", told(&incomplete));
    assert!(told(&incomplete).contains("the results of `own` cannot be shown"), "{}", told(&incomplete));

    let figures = [&figures[..], &["--limit", LIMIT]].concat();
    let drawn = run(at, &figures);
    assert!(drawn.status.success(), "{}", told(&drawn));
    let page = fs::read_to_string(at.join("page/README.md")).unwrap();
    assert!(page.contains("| Viz & co |"), "{page}");
    for name in ["shift-accuracy-own", "correlations", "distances-vision-own", "distances-answer-own"] {
        assert!(page.contains(&format!("({name}.svg)")), "{page}");
        let svg = fs::read_to_string(at.join(format!("page/{name}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("prefers-color-scheme"), "{name}");
        assert!(fs::read(at.join(format!("page/{name}.png"))).unwrap().starts_with(b"\x89PNG"));
    }
    let numbers: Value = serde_json::from_slice(&fs::read(at.join("page/numbers.json")).unwrap()).unwrap();
    let own = &numbers["models"][0];
    assert_eq!((&own["model"], &own["measured_with"]["reference"]["n"]), (&"own".into(), &500.into()));
    let mean = own["datasets"]["miniature-viz"]["shifts"]["vision"]["mean"].as_f64().unwrap();
    assert_eq!(mean, shift(&second, "miniature-viz", "vision"));
    let again = [&figures[..6], &["again", "--limit", LIMIT]].concat();
    assert_eq!(again[5], "--output");
    assert!(run(at, &again).status.success());
    for entry in fs::read_dir(at.join("page")).unwrap().map(|entry| entry.unwrap().file_name()) {
        let both = ["page", "again"].map(|name| fs::read(at.join(name).join(&entry)).unwrap());
        assert!(both[0] == both[1], "{entry:?} differs when it is drawn again");
    }
}

#[test]
fn encoders_of_images_and_of_texts_have_one_modality() {
    let folder = tempfile::tempdir().unwrap();
    for (encoder, modality) in [("vit-tiny", "vision"), ("bert-tiny", "question")] {
        let path = fixture(&format!("models/{encoder}")).display().to_string();
        let arguments =
            ["shift", "--suite", "own.toml", "--limit", "60", "--reference-limit", "300", "--output", "out"];
        let more = ["--json", "--features-output", "features", "--encoder", &path];
        let measured = json(&run(folder.path(), &[&arguments[..], &more].concat()));
        for evaluation in measured["evaluations"].as_array().unwrap() {
            assert_eq!(evaluation["shifts"].as_array().unwrap().len(), 1, "{encoder}");
        }
        check_against_features(folder.path(), &measured, modality, [300, 60]);
    }
}

#[test]
fn projection_strengths_of_a_training_run_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path().join("store.sqlite")).unwrap();
    let run_id = store.training_run(r#"{"method":"digrap","method_settings":{"mu":0.5}}"#).unwrap();
    let point = |series: &str, step: u64, value: f64| CurvePoint { series: series.to_owned(), step, value };
    let tensors =
        ["model.vision_tower.encoder.layers.1.mlp.fc1.weight", "model.language_model.layers.0.mlp.up_proj.weight"];
    let mut points: Vec<CurvePoint> = (1..=50).map(|step| point("omega", step, step as f64 / 50.0)).collect();
    for (at, tensor) in tensors.iter().enumerate() {
        points.extend([25, 50].map(|step| point(&format!("omega/{tensor}"), step, 0.25 * (at as f64 + 1.0))));
    }
    store.record_curve(run_id, &points).unwrap();
    drop(store);
    let drawn = run(folder.path(), &["figures", "--suite", "own.toml", "--store", "store.sqlite", "--output", "page"]);
    assert!(drawn.status.success(), "{}", told(&drawn));
    let steps = fs::read_to_string(folder.path().join("page/strength-steps.svg")).unwrap();
    assert!(steps.contains("optimiser step") && steps.contains("digrap"), "{steps}");
    let layers = fs::read_to_string(folder.path().join("page/strength-layers-1.svg")).unwrap();
    for told in ["vision tower", "language decoder", "epoch"] {
        assert!(layers.contains(told), "{told}");
    }
}

#[test]
fn the_papers_page_says_what_is_not_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run(folder.path(), &["figures", "--paper", "--output", "page"]).status.success());
    let page = fs::read_to_string(folder.path().join("page/README.md")).unwrap();
    assert!(page.contains("not reproducible from Table 3") && page.contains("0.83") && page.contains("0.80"), "{page}");
    assert!(fs::read_to_string(folder.path().join("page/sensitivity.svg")).unwrap().contains("Table 11"));
}

#[test]
fn wrong_arguments_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let cases: [(&[&str], &str); 9] = [
        (&["shift", "--reference", "a", "--test", "b", "--layer", "3"], "cannot be used with"),
        (&["shift", "--model", &model, "--suite", "own.toml", "--rtol", "-1"], "error: the relative cut-off is -1; "),
        (
            &["shift", "--model", &model, "--suite", "own.toml", "--save-fit", "none/f"],
            "error: cannot write `none/f`\ncaused by: ",
        ),
        (&["shift", "--model", &model], "--suite <NAME|FILE>"),
        (&["shift", "--model", &model, "--suite", "own.toml", "--layer", "x"], "`x` is no layer"),
        (
            &["shift", "--model", &model, &model, "--suite", "own.toml", "--save-fit", "f"],
            "error: a fit belongs to one model",
        ),
        (
            &["shift", "--model", &model, "--suite", "own.toml", "--layer", "99", "--store", "s"],
            "there is no hidden state 99: there are ",
        ),
        (&["figures", "--suite", "own.toml", "--store", "none", "--output", "p"], "error: there is no store `none`"),
        (&["shift", "--suite", "own.toml"], "error: neither --model nor --encoder given"),
    ];
    for (arguments, expected) in cases {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", told(&output));
        assert!(told(&output).contains(expected), "{arguments:?}: {}", told(&output));
    }
}
