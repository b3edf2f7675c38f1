//! Methods through the program: one command trains, leaves a model that evaluates, and tells what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use digrap_bench::train::{METHODS, Merge, Method, Selection};
use serde_json::{Value, json};

use crate::support::fixture;
use crate::training::{Moment, Set, Tensors, curves, files, floats, json_file, kill, printed, tensors, tiny};

/// Options of a run of five steps in one epoch.
const RUN: &[&str] =
    &["--validation-share=0.25", "--batch-size=4", "--max-steps=5", "--learning-rate=0.01", "--threads=1"];
const LORA: &str = "--lora=r=4,targets=q_proj+v_proj";
const HEAD: &str = "language_model.model.embed_tokens.weight";
const WEIGHTS: &str = "model.safetensors";
const MATRICES: &str = "adapter_model.safetensors";

/// Trains from the small fixture; the report.
fn train(set: &Set, output: &str, options: &[&str]) -> Value {
    let (model, output) = (tiny(), format!("--output={output}"));
    set.train(&[RUN, &[model.as_str(), &output], options].concat())
}

fn start() -> Tensors {
    tensors(&fixture("models/paligemma-tiny-a").join(WEIGHTS))
}

/// Names of the tensors that differ.
fn changed(one: &Tensors, other: &Tensors) -> BTreeSet<String> {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    one.iter().filter(|(name, bytes)| other[*name] != **bytes).map(|(name, _)| name.clone()).collect()
}

/// The phase before the last one, by the name of its folder and its method.
fn first_phase(method: &Method) -> Option<(&'static str, &'static str)> {
    match method.merge {
        Some(Merge::Interpolate) => Some(("fine-tuned", "vanilla")),
        None => method.probes_first.then_some(("linear-probe", "linear-probe")),
    }
}

fn check_report(set: &Set, method: &Method, output: &str, report: &Value) {
    let name = method.name;
    let mut written = json_file(&set.path(output).join("report.json"));
    written["output"] = json!(output);
    assert_eq!(&written, report, "{name}");
    let settings: serde_json::Map<String, Value> =
        method.settings.iter().map(|setting| (setting.name.to_owned(), json!(setting.values.default()))).collect();
    assert_eq!(report["settings"], Value::Object(settings), "{name}");
    let expected = json!([name, 42, 5, 60, 20, "held-out", 0.01]);
    let keys = ["method", "seed", "steps", "training_questions", "validation_questions", "validation", "learning_rate"];
    assert_eq!(json!(keys.map(|key| report[key].clone())), expected, "{name}");
    assert!(report["accuracy"].is_number() && report["best"][1] == 5, "{name}: {report}");
    let folder = set.path(output);
    if let Some((phase, first)) = first_phase(method) {
        let report = json_file(&folder.join(phase).join("report.json"));
        assert_eq!((&report["method"], &report["steps"]), (&json!(first), &json!(5)));
    }
    let phases: Vec<&str> =
        ["linear-probe", "fine-tuned"].into_iter().filter(|phase| folder.join(phase).exists()).collect();
    assert_eq!(phases, first_phase(method).map(|(phase, _)| phase).into_iter().collect::<Vec<_>>(), "{name}");
}

/// Evaluates models on the questions that were held out of all of them: the accuracies that they reported.
fn check_evaluations(set: &Set, models: &[(String, Value)]) {
    let held_out = set.held_out(&models[0].0);
    set.write_questions("held-out", |image| held_out.contains(image));
    for (output, _) in models {
        let folder = set.path(output);
        let list = if folder.join("validation_images.json").exists() { folder } else { folder.join("fine-tuned") };
        assert_eq!(json_file(&list.join("validation_images.json")), json!(held_out), "{output}");
    }
    let mut command = set.program("vqa", "held-out");
    command.args(["--max-new-tokens=20", "--output=evaluation", "--threads=1"]);
    for (output, _) in models {
        command.args(["--model", output]);
    }
    let evaluated = printed(&command.output().unwrap());
    let evaluations = evaluated["evaluations"].as_array().unwrap();
    assert_eq!(evaluations.len(), models.len());
    for (evaluation, (output, report)) in evaluations.iter().zip(models) {
        assert_eq!((&evaluation["n"], &evaluation["accuracy"]), (&json!(20), &report["accuracy"]), "{output}");
    }
    assert!(models.iter().any(|(_, report)| report["accuracy"].as_f64() > Some(0.0)), "nothing was learnt");
}

#[test]
fn every_method_trains_weights_from_one_command() {
    let set = Set::new();
    let start = start();
    let mut models = Vec::new();
    for method in METHODS {
        let report = train(&set, method.name, &["--method", method.name]);
        check_report(&set, method, method.name, &report);
        // The bias of keys changes no attention: what a gradient has for it is rounding, which methods may take back.
        let mut changed = changed(&set.tensors(&format!("{}/{WEIGHTS}", method.name)), &start);
        changed.retain(|name| !name.ends_with("k_proj.bias"));
        let expected = start.keys().filter(|name| match method.selection {
            Selection::Chosen => !name.ends_with("k_proj.bias"),
            Selection::Head => *name == HEAD,
            Selection::NormsAndHead => *name == HEAD || name.contains("norm"),
        });
        assert!(changed == expected.cloned().collect(), "{}: {changed:?}", method.name);
        models.push((method.name.to_owned(), report));
    }
    check_evaluations(&set, &models);
    let distinct: BTreeSet<Vec<u8>> =
        METHODS.iter().map(|method| set.tensors(&format!("{}/{WEIGHTS}", method.name))[HEAD].clone()).collect();
    assert_eq!(distinct.len(), METHODS.len(), "two methods do the same");
}

#[test]
fn every_method_trains_matrices_from_one_command() {
    let set = Set::new();
    let mut models = Vec::new();
    for method in METHODS.iter().filter(|method| method.selection == Selection::Chosen) {
        let report = train(&set, method.name, &["--method", method.name, LORA]);
        check_report(&set, method, method.name, &report);
        assert!(set.path(method.name).join("adapter_config.json").is_file() && report["trained_parameters"] == 3840);
        let matrices = set.tensors(&format!("{}/{MATRICES}", method.name));
        let up = matrices.iter().filter(|(name, _)| name.ends_with(".lora_B.weight"));
        assert!(up.clone().count() == 12 && up.clone().all(|(_, bytes)| floats(bytes).iter().any(|b| *b != 0.0)));
        models.push((method.name.to_owned(), report));
    }
    assert_eq!(models.len(), METHODS.len() - 2);
    check_evaluations(&set, &models);
}

/// A step over all questions, and the loss after it: as the run sees it in its second step, and as another sees it that
/// starts from the saved model, where both uses of the tied matrix are read from one tensor.
#[test]
fn a_tied_head_trains_in_both_of_its_uses() {
    let set = Set::new();
    let common = ["--method=linear-probe", "--validation=none", "--batch-size=80", "--threads=1"];
    let rate = ["--learning-rate=0.01", "--lr-scheduler-type=constant"];
    let losses = |output: &str, model: &str, steps: &str| -> Vec<f64> {
        let (output_option, model) = (format!("--output={output}"), format!("--model={model}"));
        set.train(&[&common[..], &rate, &[&output_option, &model, "--max-steps", steps]].concat());
        set.metrics(output).iter().filter_map(|line| line["loss"].as_f64()).collect()
    };
    let tiny = fixture("models/paligemma-tiny-a").display().to_string();
    let (both, first) = (losses("both", &tiny, "2"), losses("first", &tiny, "1"));
    let second = losses("second", "first", "1");
    assert_eq!((both.len(), both[0]), (2, first[0]));
    assert!((both[1] - second[0]).abs() < 1e-5 * second[0], "{both:?} {second:?}");
    assert!(both[1] < 0.95 * both[0], "{both:?}");
    let trained = set.tensors(&format!("first/{WEIGHTS}"));
    assert_eq!(changed(&trained, &start()), BTreeSet::from([HEAD.to_owned()]));
}

/// `(one + other) / 2` in f32.
fn midpoint(one: &[u8], other: &[u8]) -> Vec<f64> {
    let pairs = floats(one).into_iter().zip(floats(other));
    pairs.map(|(one, other)| f64::from((0.5 * one + 0.5 * other) as f32)).collect()
}

fn interpolate(set: &Set, output: &str, share: &str, options: &[&str]) -> Value {
    let share = format!("alpha_finetuned={share}");
    train(set, output, &[&["--method=wise-ft", "--set", &share], options].concat())
}

#[test]
fn interpolated_weights_lie_between_start_and_end() {
    let set = Set::new();
    let start = start();
    let plain = train(&set, "plain", &["--method=vanilla"]);
    let end = set.tensors(&format!("plain/{WEIGHTS}"));
    for share in ["0", "0.5", "1"] {
        let report = interpolate(&set, share, share, &[]);
        assert!(set.tensors(&format!("{share}/fine-tuned/{WEIGHTS}")) == end);
        assert_eq!(report["best"], plain["best"]);
        assert_eq!(set.settings(share)["method_settings"]["alpha_finetuned"], share.parse::<f64>().unwrap());
    }
    assert!(set.tensors(&format!("0/{WEIGHTS}")) == start);
    assert!(set.tensors(&format!("1/{WEIGHTS}")) == end);
    for (name, bytes) in set.tensors(&format!("0.5/{WEIGHTS}")) {
        assert_eq!(floats(&bytes), midpoint(&start[&name], &end[&name]), "{name}");
    }
    assert_eq!(json_file(&set.path("1/report.json"))["accuracy"], plain["accuracy"]);
}

#[test]
fn interpolated_matrices_scale_the_product_or_lie_between() {
    let set = Set::new();
    let factors = "--set=space=factors";
    interpolate(&set, "merged", "0.5", &[LORA]);
    interpolate(&set, "factors", "0.5", &[LORA, factors]);
    interpolate(&set, "start", "0", &[LORA, factors]);
    let [merged, factors, start, end] =
        ["merged", "factors", "start", "merged/fine-tuned"].map(|run| set.tensors(&format!("{run}/{MATRICES}")));
    assert!(set.tensors(&format!("factors/fine-tuned/{MATRICES}")) == end);
    for (name, end) in &end {
        let (start, half) = (&start[name], midpoint(&start[name], end));
        assert!(floats(&factors[name]) == half && *start != *end, "{name}");
        if name.ends_with(".lora_B.weight") {
            assert!(floats(start).iter().all(|number| *number == 0.0) && floats(&merged[name]) == half, "{name}");
        } else {
            assert!(merged[name] == *end, "{name}");
        }
    }
}

/// When each file of a folder was written.
fn stamps(folder: &Path) -> Vec<(PathBuf, SystemTime)> {
    let stamp = |name: PathBuf| (name.clone(), fs::metadata(folder.join(name)).unwrap().modified().unwrap());
    files(folder).into_keys().map(stamp).collect()
}

#[test]
fn finished_phases_do_nothing_again_and_keep_their_settings() {
    let set = Set::new();
    for (method, setting) in [("wise-ft", "alpha_finetuned"), ("lp-ft-c", "lambda")] {
        let method_option = format!("--method={method}");
        let report = train(&set, method, &[&method_option]);
        let (before, kept) = (stamps(&set.path(method)), curves(&set.path(method).join("store.sqlite")));
        assert_eq!(train(&set, method, &[&method_option]), report);
        let (model, output, other) = (tiny(), format!("--output={method}"), format!("--set={setting}=0.25"));
        let refused = set.training(&[RUN, &[&model, &output, &method_option, &other]].concat()).output().unwrap();
        let told = String::from_utf8(refused.stderr).unwrap();
        let expected = format!("the run in `{method}` has other settings: `method_settings.{setting}` was ");
        assert!(refused.status.code() == Some(2) && told.contains(&expected), "{told}");
        assert_eq!(stamps(&set.path(method)), before);
        assert_eq!(curves(&set.path(method).join("store.sqlite")), kept);
    }
}

#[test]
fn killed_phases_end_as_those_that_were_not() {
    let set = Set::new();
    let moments: [(&str, &[Moment]); 2] = [
        ("lp-ft-c", &[Moment::There("linear-probe/report.json"), Moment::Saved(2)]),
        ("wise-ft", &[Moment::There("fine-tuned/checkpoint/3"), Moment::There("fine-tuned/report.json")]),
    ];
    for (method, moments) in moments {
        let [calm, killed] = ["calm", "killed"].map(|state| format!("{method}-{state}"));
        let options = ["--save-steps=1", "--method", method];
        let report = train(&set, &calm, &options);
        let (model, output, folder) = (tiny(), format!("--output={killed}"), set.path(&killed));
        let mut kills = 0;
        for moment in moments {
            let command = set.training(&[RUN, &[&model, &output], &options].concat());
            kills += usize::from(kill(command, &folder, moment, Duration::ZERO));
        }
        assert!(kills >= moments.len() / 2, "only {kills} runs of {method} were met before their end");
        let continued = train(&set, &killed, &options);
        assert_eq!((&continued["accuracy"], &continued["best"]), (&report["accuracy"], &report["best"]));
        let (ours, theirs) = (files(&folder), files(&set.path(&calm)));
        let differing: BTreeSet<_> = ours.iter().chain(&theirs).map(|(name, _)| name).collect();
        let differing = differing.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
        assert_eq!(differing.collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "{method}");
        let [ours, theirs] = [folder, set.path(&calm)].map(|folder| curves(&folder.join("store.sqlite")));
        assert!(ours == theirs && !ours.is_empty(), "{method}");
    }
}

/// Curves by series.
fn series(set: &Set, output: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
    let mut series = BTreeMap::new();
    for (name, step, value) in curves(&set.path(output).join("store.sqlite")) {
        series.entry(name).or_insert_with(Vec::new).push((step, value));
    }
    series
}

/// Epochs of three steps: the second one is cut short.
const EPOCHS: &str = "--gradient-accumulation-steps=5";
const PLAIN_SERIES: [&str; 4] = ["gradient_norm", "learning_rate", "loss", "validation"];

#[test]
fn a_method_with_an_anchor_leaves_its_curves() {
    let set = Set::new();
    train(&set, "vanilla", &["--method=vanilla", EPOCHS]);
    assert_eq!(series(&set, "vanilla").keys().collect::<Vec<_>>(), PLAIN_SERIES);
    train(&set, "digrap", &["--method=digrap", EPOCHS, "--exclude", "*embed_tokens*", "*norm*"]);
    let mut curves = series(&set, "digrap");
    assert!(PLAIN_SERIES.iter().all(|name| curves.remove(*name).is_some()));
    let start = start();
    let anchored: Vec<&String> =
        start.keys().filter(|name| !name.contains("embed_tokens") && !name.contains("norm")).collect();
    for number in ["omega", "lambda", "cosine", "conflict", "distance"] {
        let steps = curves.remove(number).unwrap();
        assert_eq!(steps.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 2, 3, 4, 5], "{number}");
        let tensors: Vec<_> = anchored.iter().map(|name| curves.remove(&format!("{number}/{name}")).unwrap()).collect();
        for (epoch, range) in [0..3, 3..5].into_iter().enumerate() {
            let end = range.end as i64;
            assert!(tensors.iter().all(|points| points.len() == 2 && points[epoch].0 == end), "{number}");
            let by_tensor = tensors.iter().map(|points| points[epoch].1).sum::<f64>() / tensors.len() as f64;
            let by_step = steps[range.clone()].iter().map(|(_, value)| value).sum::<f64>() / range.len() as f64;
            assert!((by_tensor - by_step).abs() <= 1e-9 * by_step.abs().max(1e-12), "{number}: {by_tensor} {by_step}");
        }
        let within = |value: f64| match number {
            "cosine" => (-1.0..=1.0).contains(&value),
            "omega" | "conflict" => (0.0..=1.0).contains(&value),
            _ => value >= 0.0,
        };
        assert!(steps.iter().all(|(_, value)| within(*value)), "{number}: {steps:?}");
        assert!(steps.iter().any(|(_, value)| *value != 0.0), "{number} is always 0");
    }
    assert!(curves.is_empty(), "{:?}", curves.keys());
}

#[test]
fn anchors_and_exclusions_decide_the_result() {
    let set = Set::new();
    let runs: [(&str, &[&str], Value); 4] = [
        ("default", &[], json!(["origin", []])),
        ("origin", &["--anchor=origin"], json!(["origin", []])),
        ("start", &["--anchor=start"], json!(["start", []])),
        ("excluded", &["--exclude", "*lora_A*"], json!(["origin", ["*lora_A*"]])),
    ];
    for (output, options, facts) in &runs {
        train(&set, output, &[&["--method=ftp", LORA], *options].concat());
        let subject = &set.settings(output)["subject"];
        assert_eq!(json!([subject["anchor"], subject["exclude"]]), *facts, "{output}");
    }
    let [default, origin, start, excluded] = runs.map(|(output, ..)| set.tensors(&format!("{output}/{MATRICES}")));
    assert!(default == origin);
    let down = |tensors: &Tensors, other: &Tensors| {
        changed(tensors, other).iter().filter(|name| name.ends_with(".lora_A.weight")).count()
    };
    assert_eq!([down(&default, &start), down(&default, &excluded), down(&start, &excluded)], [12, 12, 12]);
    train(&set, "vanilla", &[LORA]);
    assert_eq!(set.settings("vanilla")["subject"]["anchor"], Value::Null);
}
