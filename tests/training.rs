//! `train` through the program: runs that are killed, what trains, what selects the checkpoint, what a run leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{easy_vqa, fixture, link, program_at};

/// Images of the set, four questions each. A quarter of the images is held out.
const IMAGES: [&str; 20] = [
    "black",
    "column_1x50",
    "edges_97x61",
    "exact_56",
    "exact_64",
    "gray16",
    "gray_alpha",
    "gray_noise",
    "gray_ramp",
    "noise_33x47",
    "palette",
    "palette_2",
    "photo_120x90",
    "photo_300x200",
    "photo_90x120",
    "rgb16",
    "rgba_fade",
    "rgba_noise",
    "stripes_111x64",
    "tiny_5x9",
];
const QUESTIONS: [&str; 4] = ["what is it?", "is it red?", "how many shapes are there?", "what color is the shape?"];
const ANSWERS: [&str; 5] = ["circle", "yes", "no", "blue", "red"];

/// Options of a run of 30 steps in two epochs.
const RUN: &[&str] =
    &["--validation-share=0.25", "--batch-size=4", "--num-train-epochs=2", "--save-steps=3", "--threads=2"];

/// A set of questions, and runs on it. The program runs in its folder.
pub struct Set {
    home: tempfile::TempDir,
}

impl Set {
    pub fn new() -> Self {
        let set = Self { home: tempfile::tempdir().unwrap() };
        set.write_questions("set", |_| true);
        fs::create_dir(set.path("images")).unwrap();
        for name in IMAGES {
            let file = format!("{name}.png");
            fs::copy(fixture("images").join(&file), set.path("images").join(&file)).unwrap();
        }
        set
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes `<name>.questions.json` and `<name>.annotations.json` with the questions about these images.
    pub fn write_questions(&self, name: &str, includes: impl Fn(&str) -> bool) {
        let pairs = IMAGES.iter().enumerate().flat_map(|(image, name)| {
            QUESTIONS.iter().enumerate().map(move |(question, text)| (image, *name, question, *text))
        });
        let (mut questions, mut annotations) = (Vec::new(), Vec::new());
        for (image, image_id, question, text) in pairs.filter(|(_, name, ..)| includes(name)) {
            let question_id = image * QUESTIONS.len() + question;
            let answer = ANSWERS[(3 * image + question) % ANSWERS.len()];
            let kind = if ["yes", "no"].contains(&answer) { "yes/no" } else { "other" };
            let answers: Vec<Value> = (1..=10).map(|number| json!({"answer": answer, "answer_id": number})).collect();
            questions.push(json!({"question_id": question_id, "image_id": image_id, "question": text}));
            annotations.push(json!({
                "question_id": question_id, "image_id": image_id, "answer_type": kind, "answers": answers
            }));
        }
        let write = |part: &str, records: Vec<Value>| {
            fs::write(self.path(&format!("{name}.{part}.json")), json!({part: records}).to_string()).unwrap();
        };
        write("questions", questions);
        write("annotations", annotations);
    }

    pub fn program(&self, verb: &str, questions: &str) -> Command {
        let mut command = program_at(self.home.path());
        command.args([verb, "--json", "--images=images", "--image-name={image_id}.png"]);
        command.args([format!("--questions={questions}.questions.json"), "--annotations".to_owned()]);
        command.arg(format!("{questions}.annotations.json"));
        command
    }

    pub fn training(&self, options: &[&str]) -> Command {
        let mut command = self.program("train", "set");
        command.args(options);
        command
    }

    /// Trains; the report without how fast it went.
    pub fn train(&self, options: &[&str]) -> Value {
        let mut report = printed(&self.training(options).output().unwrap());
        report.as_object_mut().unwrap().remove("pace").unwrap();
        report
    }

    pub fn settings(&self, output: &str) -> Value {
        json_file(&self.path(output).join("settings.json"))
    }

    pub fn metrics(&self, output: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(output).join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn tensors(&self, file: &str) -> Tensors {
        tensors(&self.path(file))
    }

    pub fn held_out(&self, output: &str) -> BTreeSet<String> {
        let list = json_file(&self.path(output).join("validation_images.json"));
        list.as_array().unwrap().iter().map(|image| image.as_str().unwrap().to_owned()).collect()
    }
}

pub fn printed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub type Tensors = BTreeMap<String, Vec<u8>>;

pub fn tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

pub fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
}

pub fn tiny() -> String {
    format!("--model={}", fixture("models/paligemma-tiny-a").display())
}

fn small() -> String {
    format!("--from-scratch={}", fixture("models/paligemma-small").display())
}

/// All files of a folder but the store, with their contents.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for path in fs::read_dir(current).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap() != "store.sqlite" {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The curves in a store: series, step, value.
pub fn curves(store: &Path) -> Vec<(String, i64, f64)> {
    let connection = rusqlite::Connection::open(store).unwrap();
    let mut select =
        connection.prepare("SELECT series, step, value FROM training_curve ORDER BY series, step").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// When a run is killed.
pub enum Moment {
    /// This part of the time that a finished run takes, which only loads.
    Loading(f64),
    /// As soon as there is this file or folder.
    There(&'static str),
    /// As soon as there is a checkpoint of this step or a later one.
    Saved(u64),
    /// As soon as the metrics hold this.
    Logged(&'static str),
}

impl Moment {
    fn has_come(&self, output: &Path, since: Instant, loading: Duration) -> bool {
        match self {
            Self::Loading(part) => since.elapsed() >= loading.mul_f64(*part),
            Self::There(name) => output.join(name).exists(),
            Self::Saved(step) => checkpoints(output).iter().any(|saved| saved >= step),
            Self::Logged(part) => {
                fs::read_to_string(output.join("metrics.jsonl")).is_ok_and(|text| text.contains(part))
            }
        }
    }
}

/// In the order in which a run comes to them, from one kill to the next.
const MOMENTS: &[Moment] = &[
    Moment::Loading(0.3),
    Moment::Loading(0.9),
    Moment::There("checkpoint/.partial"),
    Moment::Saved(6),
    Moment::Logged("\"step\":11}"),
    Moment::Logged("\"step\":15}"),
    Moment::Logged("\"validation\":"),
    Moment::Saved(21),
    Moment::Saved(27),
    Moment::Saved(30),
    Moment::There("..model.tmp"),
    Moment::There(".model"),
];

fn checkpoints(output: &Path) -> Vec<u64> {
    let entries = fs::read_dir(output.join("checkpoint")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether the run was still going on when its moment came.
pub fn kill(mut command: Command, output: &Path, moment: &Moment, loading: Duration) -> bool {
    let since = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while child.try_wait().unwrap().is_none() && !moment.has_come(output, since, loading) {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap().signal() == Some(9)
}

/// Kills runs with these options until all moments have come, and compares the end with that of a calm run.
fn check_killed(options: &[&str], model: &str) {
    let set = Set::new();
    let options = |output: &str| {
        let given = [RUN, options].concat().into_iter().map(str::to_owned);
        given.chain([format!("--output={output}")]).collect::<Vec<_>>()
    };
    let command = |output: &str| set.training(&options(output).iter().map(String::as_str).collect::<Vec<_>>());
    let calm = printed(&command("calm").output().unwrap());
    assert_eq!(
        (&calm["steps"], &calm["training_questions"], &calm["validation_questions"]),
        (&json!(30), &json!(60), &json!(20))
    );
    let start = Instant::now();
    printed(&command("calm").output().unwrap());
    let loading = start.elapsed();
    let output = set.path("killed");
    let mut kills = 0;
    for moment in MOMENTS {
        // A run that was faster writes its model once more.
        let _ = fs::remove_file(output.join(model));
        kills += usize::from(kill(command("killed"), &output, moment, loading));
    }
    assert!(kills >= 8, "only {kills} runs were met before their end");
    assert_eq!(printed(&command("killed").output().unwrap())["best"], calm["best"]);
    let (ours, theirs) = (files(&output), files(&set.path("calm")));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, bytes) in &ours {
        assert!(*bytes == theirs[name], "{} differs", name.display());
    }
    let [ours, theirs] = ["killed", "calm"].map(|output| curves(&set.path(output).join("store.sqlite")));
    assert_eq!((ours.len(), ours.iter().filter(|(series, ..)| series == "validation").count()), (92, 2));
    assert_eq!(ours, theirs);
    assert_eq!(checkpoints(&output), [30]);
    assert_eq!(fs::read_dir(set.path("digrap-bench/converted")).map_or(0, Iterator::count), 0);
}

#[test]
fn a_killed_run_ends_as_one_that_was_not() {
    check_killed(&[&small()], "config.json");
}

#[test]
fn a_killed_run_with_dropout_ends_as_one_that_was_not() {
    let lora = "--lora=r=4,alpha=8,dropout=0.1,targets=q_proj+v_proj";
    check_killed(&[&tiny(), lora], "adapter_config.json");
}

/// Evaluates a run on its held-out questions: the accuracy that selected the checkpoint.
fn check_evaluation(set: &Set, report: &Value, output: &str) {
    let held_out = set.held_out(output);
    assert_eq!(held_out.len(), 5);
    set.write_questions("held-out", |image| held_out.contains(image));
    let mut command = set.program("vqa", "held-out");
    let evaluated =
        printed(&command.args(["--max-new-tokens=20", "--output=evaluation", "--model", output]).output().unwrap());
    let evaluation = &evaluated["evaluations"][0];
    assert_eq!((&evaluation["n"], &evaluation["accuracy"]), (&json!(20), &report["best"][0]));
}

#[test]
fn a_finished_run_evaluates_and_does_nothing_again() {
    let set = Set::new();
    let lora = "--lora=r=4,targets=all-linear";
    for (output, options) in [("full", vec![small()]), ("adapter", vec![tiny(), lora.to_owned()])] {
        let output_option = format!("--output={output}");
        let rate = "--learning-rate=0.003";
        let options: Vec<&str> = RUN
            .iter()
            .copied()
            .chain(options.iter().map(String::as_str))
            .chain([output_option.as_str(), rate])
            .collect();
        let report = set.train(&options);
        check_evaluation(&set, &report, output);
        let stamps = || -> BTreeMap<PathBuf, _> {
            let names = files(&set.path(output)).into_keys();
            names
                .map(|name| (name.clone(), fs::metadata(set.path(output).join(name)).unwrap().modified().unwrap()))
                .collect()
        };
        let before = stamps();
        assert_eq!(set.train(&options), report);
        assert_eq!(stamps(), before);
    }
}

#[test]
fn only_what_is_chosen_trains() {
    let set = Set::new();
    let start = tensors(&fixture("models/paligemma-tiny-a").join("model.safetensors"));
    let is_head = |name: &str| name == "language_model.model.embed_tokens.weight";
    let is_norm = |name: &str| name.contains("norm");
    type Chosen<'a> = (&'a [&'a str], &'a dyn Fn(&str) -> bool);
    let choices: [Chosen; 4] = [
        (&["head"], &is_head),
        (&["norms+head"], &|name| is_head(name) || is_norm(name)),
        (&["*layers.1.*", "multi_modal_projector.linear.bias"], &|name| {
            name.contains("layers.1.") || name == "multi_modal_projector.linear.bias"
        }),
        (&["all"], &|_| true),
    ];
    for (index, (patterns, chosen)) in choices.into_iter().enumerate() {
        let (model, output) = (tiny(), format!("--output={index}"));
        let options = [model.as_str(), &output, "--validation=none", "--max-steps=2", "--threads=1", "--trainable"];
        let report = set.train(&[&options[..], patterns].concat());
        let trained = set.tensors(&format!("{index}/model.safetensors"));
        assert_eq!(trained.keys().collect::<Vec<_>>(), start.keys().collect::<Vec<_>>());
        let wrong: Vec<_> = start.iter().filter(|(name, bytes)| (trained[*name] != **bytes) != chosen(name)).collect();
        assert!(wrong.is_empty(), "{patterns:?}: {:?}", wrong.iter().map(|(name, _)| name).collect::<Vec<_>>());
        let numbers: usize = start.iter().filter(|(name, _)| chosen(name)).map(|(_, bytes)| bytes.len() / 4).sum();
        assert_eq!(report["trained_parameters"], numbers);
    }
}

#[test]
fn recomputation_gives_the_same_bytes() {
    let set = Set::new();
    let model = small();
    for (output, more) in [("--output=kept", None), ("--output=again", Some("--recompute"))] {
        let options = [model.as_str(), output, "--validation=none", "--max-steps=4", "--threads=2"];
        set.train(&options.into_iter().chain(more).collect::<Vec<_>>());
    }
    assert!(set.tensors("kept/model.safetensors") == set.tensors("again/model.safetensors"));
    assert_eq!(set.metrics("kept"), set.metrics("again"));
}

#[test]
fn accumulated_batches_equal_a_large_one() {
    let set = Set::new();
    let model = small();
    let common = [
        model.as_str(),
        "--validation=none",
        "--max-steps=10",
        "--optim=sgd",
        "--learning-rate=0.02",
        "--lr-scheduler-type=constant",
    ];
    set.train(&[&common[..], &["--output=large", "--batch-size=8"]].concat());
    set.train(&[&common[..], &["--output=parts", "--batch-size=4", "--gradient-accumulation-steps=2"]].concat());
    let start = set.tensors("large/start/model.safetensors");
    let (large, parts) = (set.tensors("large/model.safetensors"), set.tensors("parts/model.safetensors"));
    let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let difference =
        |one: &[f64], other: &[f64]| norm(&one.iter().zip(other).map(|(one, other)| one - other).collect::<Vec<_>>());
    let mut moved = 0.0_f64;
    for (name, bytes) in &large {
        let [start, large, parts] = [&start[name], bytes, &parts[name]].map(|bytes| floats(bytes));
        let relative = difference(&large, &parts) / norm(&large).max(1e-3);
        assert!(relative < 1e-5, "{name}: {relative:e}");
        moved = moved.max(difference(&large, &start) / norm(&large).max(1e-3));
    }
    assert!(moved > 1e-2, "hardly anything has changed: {moved:e}");
    for (large, parts) in set.metrics("large").iter().zip(set.metrics("parts")) {
        let [one, other] = [large, &parts].map(|line| line["loss"].as_f64().unwrap());
        assert!((one - other).abs() < 1e-5 * one, "{large} {parts}");
        assert_eq!(large["samples"], 8);
    }
}

/// The first questions of both parts of easy-VQA.
pub fn few_of_easy_vqa(root: &Path, [training, test]: [usize; 2]) -> Vec<i64> {
    let mut images = Vec::new();
    for (part, count) in [("train", training), ("test", test)] {
        let (from, to) = (easy_vqa().join(part), root.join(part));
        fs::create_dir_all(to.join("images")).unwrap();
        let records: Vec<(String, String, i64)> =
            serde_json::from_slice(&fs::read(from.join("questions.json")).unwrap()).unwrap();
        let records = &records[..count];
        fs::write(to.join("questions.json"), json!(records).to_string()).unwrap();
        for image in records.iter().map(|(_, _, image)| *image).collect::<BTreeSet<_>>() {
            let name = format!("images/{image}.png");
            link(&from.join(&name), &to.join(&name));
        }
        if part == "train" {
            images = records.iter().map(|(_, _, image)| *image).collect();
        }
    }
    images
}

fn train_on_easy_vqa(set: &Set, options: &[&str]) -> Output {
    let mut command = program_at(set.home.path());
    let model = small();
    let common = ["train", "--json", "--dataset=easy-vqa", "--root=easy", "--batch-size=8", "--threads=2", &model];
    command.args(common).args(options).output().unwrap()
}

#[test]
fn held_out_images_are_a_seeded_share_that_no_step_sees() {
    let set = Set::new();
    let images = few_of_easy_vqa(&set.path("easy"), [300, 20]);
    let count = images.iter().collect::<BTreeSet<_>>().len();
    let held_out = |output: &str| -> BTreeSet<i64> {
        let list = json_file(&set.path(output).join("validation_images.json"));
        list.as_array().unwrap().iter().map(|image| image.as_i64().unwrap()).collect()
    };
    let mut chosen = Vec::new();
    for (output, seed) in [("first", "--seed=1"), ("second", "--seed=1"), ("third", "--seed=2")] {
        let report = printed(&train_on_easy_vqa(&set, &["--max-steps=1", seed, &format!("--output={output}")]));
        let held_out = held_out(output);
        assert_eq!(held_out.len(), (0.1 * count as f64).round() as usize);
        let about = images.iter().filter(|image| held_out.contains(image)).count();
        assert_eq!(report["validation_questions"], about);
        assert_eq!(report["training_questions"], images.len() - about);
        assert_eq!(report["validation"], "held-out");
        chosen.push(held_out);
    }
    assert_eq!(chosen[0], chosen[1]);
    assert_ne!(chosen[0], chosen[2]);
    // None of them is opened before the validation, in which they cannot be.
    for image in &chosen[0] {
        let file = set.path("easy/train/images").join(format!("{image}.png"));
        fs::remove_file(&file).unwrap();
        fs::write(&file, "no image").unwrap();
    }
    let output = train_on_easy_vqa(&set, &["--seed=1", "--output=damaged"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    let kept = images.iter().filter(|image| !chosen[0].contains(image)).count();
    assert_eq!(set.metrics("damaged").len(), kept.div_ceil(8), "{told}");
    assert!(chosen[0].iter().any(|image| told.contains(&format!("/{image}.png`"))), "{told}");
}

#[test]
fn what_selects_the_checkpoint_is_recorded() {
    let set = Set::new();
    few_of_easy_vqa(&set.path("easy"), [40, 20]);
    for (option, name, training, validation) in
        [("--validation=none", "none", 40, 0), ("--validation=reported", "reported", 40, 20)]
    {
        let output = format!("--output={name}");
        let report = printed(&train_on_easy_vqa(&set, &["--max-steps=2", option, &output]));
        assert_eq!(report["validation"], name);
        assert_eq!(
            (&report["training_questions"], &report["validation_questions"]),
            (&json!(training), &json!(validation))
        );
        assert_eq!(set.settings(name)["subject"]["validation"], name);
        assert_eq!(report["best"].is_null(), name == "none");
        let validations = set.metrics(name).iter().filter(|line| line.get("validation").is_some()).count();
        assert_eq!(validations, usize::from(name == "reported"));
        assert!(!set.path(name).join("validation_images.json").exists());
    }
}

#[test]
fn a_mended_image_lets_a_run_go_on() {
    let set = Set::new();
    let model = tiny();
    let common = [model.as_str(), "--validation=none", "--batch-size=4", "--num-train-epochs=1", "--save-steps=1"];
    let common = [&common[..], &["--threads=1"]].concat();
    set.train(&[&common[..], &["--output=calm"]].concat());
    let image = set.path("images/photo_120x90.png");
    let bytes = fs::read(&image).unwrap();
    fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    let options = [&common[..], &["--output=stopped"]].concat();
    let output = set.training(&options).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("of `set.questions` cannot be trained on") && told.contains("images/photo_120x90.png"),
        "{told}"
    );
    let steps = set.metrics("stopped").len();
    assert!((1..20).contains(&steps), "{steps}");
    assert!(set.path(&format!("stopped/checkpoint/{steps}")).is_dir() && !set.path("stopped/config.json").exists());
    fs::write(&image, &bytes).unwrap();
    set.train(&options);
    assert!(files(&set.path("stopped")) == files(&set.path("calm")));
}

/// A run without a checkpoint begins anew with the settings of the moment, its random weights included.
#[test]
fn an_early_end_binds_to_no_seed() {
    let set = Set::new();
    let model = small();
    let options = |seed: &'static str, output: &'static str| {
        [model.clone(), seed.to_owned(), output.to_owned(), "--validation=none".to_owned(), "--max-steps=1".to_owned()]
    };
    let train = |options: [String; 5]| set.training(&options.each_ref().map(String::as_str)).output().unwrap();
    let image = set.path("images/photo_120x90.png");
    for name in IMAGES {
        fs::rename(set.path("images").join(format!("{name}.png")), set.path("images").join(name)).unwrap();
    }
    assert_eq!(train(options("--seed=1", "--output=early")).status.code(), Some(2));
    assert!(set.path("early/start/model.safetensors").is_file() && !image.exists());
    for name in IMAGES {
        fs::rename(set.path("images").join(name), set.path("images").join(format!("{name}.png"))).unwrap();
    }
    printed(&train(options("--seed=2", "--output=early")));
    printed(&train(options("--seed=2", "--output=fresh")));
    assert!(files(&set.path("early")) == files(&set.path("fresh")));
}

/// Files of the model that change after a run has begun are told, whether it starts from weights or from none.
#[test]
fn a_run_goes_on_with_the_same_files_only() {
    let set = Set::new();
    for (fixed, option) in [("paligemma-tiny-a", "--model=model"), ("paligemma-small", "--from-scratch=model")] {
        let folder = set.path("model");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        for entry in fs::read_dir(fixture("models").join(fixed)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        let output = format!("--output={fixed}");
        let options = [option, &output, "--validation=none", "--max-steps=1"];
        set.train(&options);
        let before = files(&set.path(fixed));
        let changes: &[_] = match option {
            "--model=model" => &[
                ("config.json", "\n}", " }", "subject.configuration"),
                ("tokenizer.json", "\n}", " }", "subject.tokenizer"),
                ("preprocessor_config.json", "0.5", "0.4", "subject.preprocessing"),
            ],
            _ => &[("config.json", "\n}", " }", "subject.from_scratch")],
        };
        for (name, from, to, setting) in changes {
            let text = fs::read_to_string(folder.join(name)).unwrap();
            let changed = text.trim_end().replacen(from, to, 1);
            assert_ne!(changed, text.trim_end());
            fs::write(folder.join(name), changed).unwrap();
            let output = set.training(&options).output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            let expected = format!("error: the run in `{fixed}` has other settings: `{setting}` was ");
            assert!(output.status.code() == Some(2) && told.starts_with(&expected), "{name}: {told}");
            fs::write(folder.join(name), text).unwrap();
        }
        set.train(&options);
        assert!(files(&set.path(fixed)) == before);
    }
}
