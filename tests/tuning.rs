//! Sweeps and matched strengths through the program: what is chosen, what is kept, what is refused.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::training::{Set, curves, json_file, printed, tiny};

const RUN: &[&str] = &["--validation-share=0.25", "--batch-size=4", "--max-steps=5", "--threads=1"];
const WEIGHTS: &str = "model.safetensors";

fn train(set: &Set, output: &str, options: &[&str]) -> Value {
    let (model, output) = (tiny(), format!("--output={output}"));
    set.train(&[RUN, &[model.as_str(), &output], options].concat())
}

/// What a refused command says.
fn refused(set: &Set, options: &[&str]) -> String {
    let model = tiny();
    let output = set.training(&[RUN, &[model.as_str(), "--output=refused"], options].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    text[text.find("error:").unwrap()..].to_owned()
}

#[test]
fn a_sweep_becomes_its_best_run_and_keeps_all() {
    let set = Set::new();
    let sweep = ["--method=digrap", "--sweep", "mu=0.1,0.5", "learning_rate=0.01,0.003,0"];
    let report = train(&set, "sweep", &sweep);
    let trials = report["trials"].as_array().unwrap();
    let names: Vec<&str> = trials.iter().map(|trial| trial["name"].as_str().unwrap()).collect();
    let rates = ["0.01", "0.003", "0"];
    let expected: Vec<String> =
        ["0.1", "0.5"].iter().flat_map(|mu| rates.map(|rate| format!("mu={mu},learning_rate={rate}"))).collect();
    assert_eq!(names, expected);
    for trial in trials {
        let folder = set.path("sweep").join(trial["name"].as_str().unwrap());
        assert_eq!(json_file(&folder.join("report.json"))["accuracy"], trial["accuracy"]);
    }
    let accuracy = |trial: &Value| trial["accuracy"].as_f64().unwrap();
    let highest = trials.iter().map(accuracy).fold(0.0, f64::max);
    let best = trials.iter().find(|trial| accuracy(trial) == highest).unwrap();
    assert_eq!((&report["chosen_trial"], &report["accuracy"]), (&best["name"], &best["accuracy"]));
    assert!(trials.iter().any(|trial| accuracy(trial) < highest), "all settings are equal: {trials:?}");
    let chosen = format!("sweep/{}", best["name"].as_str().unwrap());
    for file in [WEIGHTS, "config.json", "settings.json", "report.json", "tokenizer.json"] {
        let [output, run] = ["sweep", &chosen].map(|folder| fs::read(set.path(folder).join(file)).unwrap());
        assert!(output == run, "{file}");
    }
    // A run of a sweep is the run that one command makes.
    train(&set, "alone", &["--method=digrap", "--set=mu=0.5", "--learning-rate=0.003"]);
    let alone = set.tensors(&format!("alone/{WEIGHTS}"));
    assert!(alone == set.tensors(&format!("sweep/mu=0.5,learning_rate=0.003/{WEIGHTS}")));
    let losses = curves(&set.path("sweep/store.sqlite")).into_iter().filter(|(name, ..)| name == "loss").count();
    assert_eq!(losses, 5 * trials.len());
    let stamp = || fs::metadata(set.path("sweep/mu=0.1,learning_rate=0.01/model.safetensors")).unwrap().modified();
    let before = stamp().unwrap();
    assert_eq!(train(&set, "sweep", &sweep), report);
    assert_eq!(stamp().unwrap(), before);
    let evaluated = printed(&set.program("vqa", "set").args(["--model=sweep", "--output=answers"]).output().unwrap());
    assert_eq!(evaluated["evaluations"][0]["n"], 80);
}

#[test]
fn a_sweep_of_interpolations_fine_tunes_once() {
    let set = Set::new();
    let sweep = ["--method=wise-ft", "--learning-rate=0.01", "--sweep=alpha_finetuned=0,0.5,1"];
    let report = train(&set, "sweep", &sweep);
    let folders: BTreeSet<String> = fs::read_dir(set.path("sweep"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let expected = ["alpha_finetuned=0", "alpha_finetuned=0.5", "alpha_finetuned=1", "fine-tuned"];
    assert_eq!(folders, expected.map(str::to_owned).into());
    assert!(
        set.tensors("sweep/alpha_finetuned=1/model.safetensors") == set.tensors("sweep/fine-tuned/model.safetensors")
    );
    assert_eq!(report["trials"][2]["accuracy"], json_file(&set.path("sweep/fine-tuned/report.json"))["accuracy"]);
}

#[test]
fn a_strength_is_searched_until_accuracies_match() {
    let set = Set::new();
    let options = ["--method=l2-sp", "--learning-rate=0.01"];
    train(&set, "reference", &["--method=vanilla", "--learning-rate=0.01"]);
    let report = train(&set, "matched", &[&options[..], &["--match-id=reference"]].concat());
    let target = json_file(&set.path("reference/report.json"))["accuracy"].as_f64().unwrap();
    assert_eq!(report["target"], json!(target));
    assert!((report["accuracy"].as_f64().unwrap() - target).abs() <= 0.1, "{report}");
    let strength = report["settings"]["lambda"].as_f64().unwrap();
    assert_eq!(report["chosen_trial"], json!(format!("lambda={strength}")));
    assert_eq!(report["trials"].as_array().unwrap().last().unwrap()["name"], report["chosen_trial"]);

    // Of 20 questions no accuracy is near this one.
    let path = set.path("reference/report.json");
    let mut changed = json_file(&path);
    changed["accuracy"] = json!(33.3);
    fs::write(&path, changed.to_string()).unwrap();
    let text = refused(&set, &[&options[..], &["--match-id=reference"]].concat());
    assert!(
        text.starts_with("error: no lambda of 12 brings validation accuracy within 0.1 points of 33.30 %"),
        "{text}"
    );
    assert!(text.contains("the nearest is ") && text.contains("hint: hold out more questions"), "{text}");
    let runs = fs::read_dir(set.path("refused")).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert_eq!(runs.count(), 12);
}

#[test]
fn tunings_without_meaning_are_refused_before_anything_runs() {
    let set = Set::new();
    train(&set, "reference", &["--lora=r=4,targets=q_proj"]);
    fs::create_dir(set.path("empty")).unwrap();
    for (options, message) in [
        (["--method=digrap", "--sweep=mu"], "`mu` is no sweep"),
        (["--method=digrap", "--sweep=mu=1,-1"], "`mu` of digrap cannot be `-1`"),
        (["--method=digrap", "--sweep=nu=1,2"], "unknown setting of digrap `nu`"),
        (["--method=digrap", "--sweep=learning_rate=1e-3,fast"], "`learning_rate` cannot be `fast`"),
        (["--method=vanilla", "--match-id=reference"], "vanilla has no strength that an accuracy could be matched by"),
        (["--method=l2-sp", "--match-id=empty"], "there is no finished run to match in `empty`"),
    ] {
        let text = refused(&set, &options);
        assert!(text.starts_with(&format!("error: {message}")) && text.contains("hint: "), "{text}");
        assert!(!set.path("refused").exists(), "{message}");
    }
    let text = refused(&set, &["--method=digrap", "--sweep", "mu=1", "mu=2"]);
    assert!(text.starts_with("error: `mu` is swept twice"), "{text}");
    let text = refused(&set, &["--method=digrap", "--set=omega=0.5", "--sweep=mu=1,2"]);
    assert!(text.starts_with("error: digrap does not use `mu` where `omega` is 0.5, "), "{text}");
    let text = refused(&set, &["--method=digrap", "--validation=none", "--sweep=mu=1,2"]);
    assert!(text.starts_with("error: settings are chosen on held-out images"), "{text}");
    let text = refused(&set, &["--method=l2-sp", "--seed=1", "--match-id=reference"]);
    assert!(text.starts_with("error: the run in `reference` was validated on other questions"), "{text}");
}

/// What a method trains or interpolates is not in an adapter.
#[test]
fn methods_of_weights_start_from_no_adapter() {
    let set = Set::new();
    let adapter = "--lora=r=4,targets=q_proj";
    train(&set, "adapter", &[adapter]);
    for (options, message) in [
        (&["--method=linear-probe"][..], "linear-probe trains weights of a checkpoint, and `adapter` is an adapter"),
        (&["--method=lp-ft", adapter], "lp-ft trains weights of a checkpoint, and `adapter` is an adapter"),
        (
            &["--method=wise-ft", adapter],
            "wise-ft interpolates products of new LoRA matrices, and `adapter` is an adapter",
        ),
    ] {
        let output = set.training(&[RUN, &["--model=adapter", "--output=refused"], options].concat()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with(&format!("error: {message}\n")), "{text}");
        assert!(!set.path("refused").exists());
    }
    let factors = ["--model=adapter", "--output=factors", "--method=wise-ft", "--set=space=factors", adapter];
    assert!(set.train(&[RUN, &factors].concat())["accuracy"].is_number());
}
