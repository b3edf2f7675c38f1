//! Bad input to `vqa`, `score`, `export`, `train` and `compare`: one error that says what, where and what to do, and nothing half-written.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use digrap_bench::graph::{Graph, Initializer};
use digrap_bench::store::{Store, StoredModel};
use serde_json::{Value, json};

use crate::support::{fixture, forget_surroundings, library, runtime};
use crate::training::few_of_easy_vqa;

/// Name of a case, and what is changed about a set of files and arguments that is right otherwise.
type Case = (&'static str, fn(&mut Set));

/// What the cases say, by name.
const EXPECTED: &str = include_str!("bad_input.txt");

/// A model, three questions about two images, their annotations and results, and arguments to evaluate them. The
/// program runs in their folder.
struct Set {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
}

const VQA: &[&str] = &[
    "vqa",
    "--model=model",
    "--questions=questions.json",
    "--annotations=annotations.json",
    "--images=images",
    "--image-name={image_id}.png",
    "--output=output",
    "--threads=1",
];
const SCORE: &[&str] =
    &["score", "--questions=questions.json", "--annotations=annotations.json", "--results=results.json"];

const EXPORT: &[&str] =
    &["export", "--model=model.onnx", "--gradients", "--loss=cross-entropy:logits", "--output=train.onnx"];

const EXPORT_MODEL: &[&str] = &["export", "--model=model", "--output=exported"];
const EXPORT_LOSS: &[&str] = &["export", "--model=model", "--gradients", "--loss=loss", "--output=train.onnx"];

const TRAIN: &[&str] = &[
    "train",
    "--model=model",
    "--questions=questions.json",
    "--annotations=annotations.json",
    "--images=images",
    "--image-name={image_id}.png",
    "--output=output",
    "--validation=none",
    "--batch-size=1",
    "--max-steps=3",
    "--save-steps=1",
    "--threads=1",
];

const COMPARE: &[&str] =
    &["compare", "--baseline=base", "--current=run", "--questions=questions.json", "--annotations=annotations.json"];

/// What a run that stops on the way leaves, beside its checkpoints.
const RUN: &[&str] = &["output/metrics.jsonl", "output/settings.json", "output/store.sqlite"];

impl Set {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut set = Self { folder, arguments: Vec::new(), environment: Vec::new() };
        set.command(VQA);
        set.model("paligemma-tiny-a");
        let questions = [(1, 1, "what is it?"), (2, 1, "is it red?"), (3, 2, "what colour?")];
        let record =
            |(id, image, text): (i64, i64, &str)| json!({"question_id": id, "image_id": image, "question": text});
        set.write_json("questions.json", &json!({"questions": questions.map(record)}));
        let record = |(id, image, _)| {
            let answers: Vec<Value> = (1..=10).map(|number| json!({"answer": "red", "answer_id": number})).collect();
            json!({"question_id": id, "image_id": image, "answers": answers})
        };
        set.write_json("annotations.json", &json!({"annotations": questions.map(record)}));
        let record = |(id, _, _)| json!({"question_id": id, "answer": "red"});
        set.write_json("results.json", &json!(questions.map(record)));
        fs::create_dir(set.path("images")).unwrap();
        fs::copy(fixture("images/exact_56.png"), set.path("images/1.png")).unwrap();
        fs::copy(fixture("images/palette.png"), set.path("images/2.png")).unwrap();
        for name in ["HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            set.environment.push((name, set.path("home")));
        }
        set.environment.push(("ORT_DYLIB_PATH", library().path));
        set
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// Gives an option another value.
    fn option(&mut self, option: &str) {
        let name = option.split_once('=').unwrap().0;
        self.without(name);
        self.arguments.push(option.to_owned());
    }

    fn without(&mut self, name: &str) {
        self.arguments.retain(|argument| argument.split('=').next() != Some(name));
    }

    fn variable(&mut self, name: &'static str, value: impl Into<PathBuf>) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.into()));
    }

    /// Puts a copy of a fixture in place of the model.
    fn model(&mut self, name: &str) {
        let model = self.path("model");
        let _ = fs::remove_dir_all(&model);
        fs::create_dir(&model).unwrap();
        for entry in fs::read_dir(fixture("models").join(name)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
        }
    }

    /// Puts a foreign model in place and exports a training graph of it.
    fn export(&mut self, name: &str) {
        fs::copy(fixture("foreign").join(name), self.path("model.onnx")).unwrap();
        self.command(EXPORT);
    }

    /// Exports a training graph of a BERT whose pooled output is computed by an operator of this name.
    fn export_with(&mut self, operator: &str) {
        self.export(BERT);
        let mut graph = Graph::load(&self.path("model.onnx")).unwrap();
        let node = graph.nodes.iter_mut().find(|node| node.op == "Tanh").unwrap();
        operator.clone_into(&mut node.op);
        self.write("model.onnx", graph.to_onnx());
    }

    /// Puts a run and the baseline made of it in place, and compares them.
    fn compare(&mut self) {
        for (name, bytes) in run_and_baseline() {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            self.write(name, bytes);
        }
        self.command(COMPARE);
    }

    /// Compares the run with a baseline whose first file says something else.
    fn compare_with(&mut self, change: fn(&mut Value)) {
        self.compare();
        self.json("base/baseline.json", change);
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn write_json(&self, name: &str, value: &Value) {
        self.write(name, serde_json::to_string_pretty(value).unwrap());
    }

    /// Changes a JSON file.
    fn json(&self, name: &str, change: fn(&mut Value)) {
        let mut value = serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap();
        change(&mut value);
        self.write_json(name, &value);
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Keeps only the first part of a file.
    fn truncate(&self, name: &str, divisor: usize) {
        let bytes = fs::read(self.path(name)).unwrap();
        self.write(name, &bytes[..bytes.len() / divisor]);
    }

    /// Changes the header of the model's safetensors file, which keeps its length.
    fn header(&self, from: &str, to: &str) {
        let mut bytes = fs::read(self.path("model/model.safetensors")).unwrap();
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        assert_eq!(from.len(), to.len());
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        self.write("model/model.safetensors", bytes);
    }

    fn run(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_digrap-bench"));
        command.current_dir(self.folder.path()).args(&self.arguments);
        for name in [
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "PYTHONUSERBASE",
            "LD_LIBRARY_PATH",
            "RUST_BACKTRACE",
            "ORT_DISABLE_TELEMETRY",
        ] {
            command.env_remove(name);
        }
        forget_surroundings(&mut command);
        command.envs(self.environment.iter().cloned()).output().unwrap()
    }

    /// Relative names of all files.
    fn files(&self) -> Vec<String> {
        let mut folders = vec![self.folder.path().to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(self.folder.path()).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }
}

/// Names and bytes of a run's store and of the baseline made of it.
fn run_and_baseline() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut set = Set::new();
        set.option("--output=run");
        assert!(set.run().status.success());
        set.command(COMPARE);
        set.arguments.push("--bless".into());
        let output = set.run();
        assert!(output.status.success(), "{}", told(&set, &output));
        let kept = |name: &String| name == "run/store.sqlite" || name.starts_with("base/");
        set.files().into_iter().filter(kept).map(|name| (name.clone(), fs::read(set.path(&name)).unwrap())).collect()
    })
}

/// Standard error with the folder of the set replaced.
fn told(set: &Set, output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let folder = set.folder.path();
    text.replace(folder.canonicalize().unwrap().to_str().unwrap(), "DIR").replace(folder.to_str().unwrap(), "DIR")
}

/// Exit code and lines that a case should end with.
fn expected(name: &str) -> (i32, Vec<&'static str>) {
    let start = format!("\n== {name}: exit code ");
    let (_, found) = EXPECTED.split_once(&start).unwrap_or_else(|| panic!("bad_input.txt has no case `{name}`"));
    let (code, lines) = found.split_once('\n').unwrap();
    (code.parse().unwrap(), lines.lines().take_while(|line| !line.is_empty()).collect())
}

fn fits(told: &str, expected: &[&str]) -> bool {
    let fits_line = |(told, expected): (&str, &&str)| match expected.strip_suffix("...") {
        Some(beginning) => told.starts_with(beginning) && told.len() > beginning.len(),
        None => told == *expected,
    };
    told.lines().count() == expected.len() && told.lines().zip(expected).all(fits_line)
}

/// What is wrong with the outcome of one case, if something is.
fn complaint((name, arrange): &Case) -> Option<String> {
    let (code, lines) = expected(name);
    let mut set = Set::new();
    arrange(&mut set);
    let before = set.files();
    let store_before = fs::read(set.path("store.sqlite")).ok();
    let output = set.run();
    let told = told(&set, &output);
    let wrong = |what: &str| Some(format!("{name}: {what}\n{told}"));
    if output.status.code() != Some(code) {
        return wrong(&format!("exit code {:?}, not {code}", output.status.code()));
    }
    if !output.stdout.is_empty() {
        return wrong("standard output is not empty");
    }
    let begins = |start: &str| told.lines().filter(|line| line.starts_with(start)).count();
    if begins("error: ") != 1 || begins("hint: ") > 1 || told.contains("panicked") {
        return wrong("not one error");
    }
    if !fits(&told, &lines) {
        return wrong(&format!("not what was expected:\n{}\nbut", lines.join("\n")));
    }
    let store = set.path("output/store.sqlite");
    if store.is_file() && Store::open(&store).is_err() {
        return wrong("the store is damaged");
    }
    if fs::read(set.path("store.sqlite")).ok() != store_before {
        return wrong("the store that was given has changed");
    }
    let whole = |file: &str| RUN.contains(&file) || (file.starts_with("output/checkpoint/") && !file.contains("/."));
    let left: Vec<String> = set.files().into_iter().filter(|file| !before.contains(file) && !whole(file)).collect();
    if left.is_empty() { None } else { wrong(&format!("left behind: {left:?}")) }
}

#[track_caller]
fn check(cases: &[Case]) {
    let complaints: Vec<String> = cases.iter().filter_map(complaint).collect();
    assert!(complaints.is_empty(), "{} of {} cases:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
}

#[test]
fn every_expectation_belongs_to_a_case() {
    let names: Vec<&str> =
        [ARGUMENTS, QUESTIONS, IMAGES, MODELS, STORES, RESULTS, EXPORTS, TRAININGS, METHODS, RUNS, COMPARISONS]
            .concat()
            .iter()
            .map(|case| case.0)
            .collect();
    let expected: Vec<&str> =
        EXPECTED.lines().filter_map(|line| Some(line.strip_prefix("== ")?.split_once(": exit code ")?.0)).collect();
    assert_eq!(names, expected);
    assert!(names.len() > 80);
}

#[test]
fn what_the_cases_change_is_right_without_the_change() {
    let mut set = Set::new();
    set.export(BERT);
    set.compare();
    for command in [VQA, SCORE, EXPORT, EXPORT_MODEL, EXPORT_LOSS, TRAIN, COMPARE] {
        set.command(command);
        if command == TRAIN {
            set.option("--output=trained");
        }
        let output = set.run();
        assert!(output.status.success(), "{}", told(&set, &output));
    }
    for name in ["custom.results.json", "run.json", "store.sqlite", "table.md"] {
        assert!(set.path("output").join(name).is_file(), "{name}");
    }
    for name in [
        "train.onnx",
        "exported/model.safetensors",
        "exported/onnx/decode.onnx",
        "exported/onnx/weights.bin",
        "trained/model.safetensors",
    ] {
        assert!(set.path(name).is_file(), "{name}");
    }
}

const ARGUMENTS: &[Case] = &[
    ("unknown prompt", |set| set.option("--prompt=answer-eng")),
    ("unknown metric", |set| set.option("--metric=lavsi")),
    ("unknown metric of score", |set| {
        set.command(SCORE);
        set.option("--metric=f1")
    }),
    ("unknown dataset", |set| set.command(&["vqa", "--model=model", "--dataset=easy_vqa"])),
    ("unknown dtype", |set| set.option("--dtype=int8")),
    ("bf16 on the CPU", |set| set.option("--dtype=bf16")),
    ("unknown device", |set| set.option("--device=tpu")),
    ("device without number", |set| set.option("--device=cuda:x")),
    ("negative device", |set| set.option("--device=cuda:-1")),
    ("unknown decoding", |set| set.option("--decode=sample")),
    ("no beams", |set| set.option("--decode=beam:0")),
    ("too many beams", |set| set.option("--decode=beam:5000")),
    ("beams beyond counting", |set| set.option("--decode=beam:18446744073709551615")),
    ("no batch", |set| set.option("--batch-size=0")),
    ("batch of words", |set| set.option("--batch-size=many")),
    ("model twice", |set| set.arguments.push("--model=images/../model".into())),
    ("template without image_id", |set| set.option("--image-name=photo.png")),
    ("malformed template", |set| set.option("--image-name={image_id:12x}.png")),
    ("no template", |set| set.without("--image-name")),
    ("output is a file", |set| set.write("output", "")),
    ("output below a file", |set| set.option("--output=questions.json/output")),
];

#[test]
fn bad_arguments() {
    check(ARGUMENTS);
}

const QUESTIONS: &[Case] = &[
    ("no question file", |set| set.remove("questions.json")),
    ("question file is a folder", |set| set.option("--questions=images")),
    ("truncated questions", |set| set.truncate("questions.json", 2)),
    ("truncated annotations", |set| set.truncate("annotations.json", 2)),
    ("empty question file", |set| set.write("questions.json", "")),
    ("no questions", |set| set.write("questions.json", r#"{"questions": []}"#)),
    ("no annotations", |set| set.write("annotations.json", "[]")),
    ("wrong list", |set| {
        fs::copy(set.path("annotations.json"), set.path("questions.json")).unwrap();
    }),
    ("answers of wrong type", |set| {
        set.json("annotations.json", |file| file["annotations"][1]["answers"] = json!("red"))
    }),
    ("answer of wrong type", |set| {
        set.json("annotations.json", |file| file["annotations"][1]["answers"][3]["answer"] = json!(7))
    }),
    ("no answers", |set| set.json("annotations.json", |file| file["annotations"][2]["answers"] = json!([]))),
    ("no question text", |set| {
        set.json("questions.json", |file| {
            file["questions"][2].as_object_mut().unwrap().remove("question");
        })
    }),
    ("fractional identifier", |set| {
        set.json("questions.json", |file| file["questions"][0]["question_id"] = json!(1.5))
    }),
    ("missing annotation", |set| {
        set.json("annotations.json", |file| {
            file["annotations"].as_array_mut().unwrap().remove(1);
        })
    }),
    ("extra annotation", |set| {
        set.json("questions.json", |file| {
            file["questions"].as_array_mut().unwrap().remove(0);
        })
    }),
    ("other image", |set| set.json("annotations.json", |file| file["annotations"][0]["image_id"] = json!("1"))),
    ("duplicate question", |set| set.json("questions.json", |file| file["questions"][1]["question_id"] = json!(1))),
    ("duplicate annotation", |set| {
        set.json("annotations.json", |file| file["annotations"][1]["question_id"] = json!(1))
    }),
    ("image token in a question", |set| {
        set.json("questions.json", |file| file["questions"][2]["question"] = json!("is this an <image>?"))
    }),
    ("long question", |set| {
        set.json("questions.json", |file| file["questions"][1]["question"] = json!("why ".repeat(600)))
    }),
    ("easy-VQA not installed", |set| set.command(&["vqa", "--model=model", "--dataset=easy-vqa", "--output=output"])),
    ("easy-VQA not in the folder", |set| {
        set.command(&["score", "--dataset=easy-vqa", "--root=images", "--results=results.json"])
    }),
];

#[test]
fn bad_questions_and_annotations() {
    check(QUESTIONS);
}

const IMAGES: &[Case] = &[
    ("image missing", |set| set.remove("images/2.png")),
    ("image folder missing", |set| set.option("--images=pictures")),
    ("image is a folder", |set| {
        set.remove("images/2.png");
        fs::create_dir(set.path("images/2.png")).unwrap()
    }),
    ("corrupt PNG", |set| {
        let mut bytes = fs::read(set.path("images/2.png")).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 16].fill(0xAA);
        set.write("images/2.png", bytes);
    }),
    ("truncated JPEG", |set| {
        fs::copy(fixture("images/photo_444.jpg"), set.path("images/2.png")).unwrap();
        set.truncate("images/2.png", 2);
    }),
    ("empty image", |set| set.write("images/1.png", "")),
    ("text for an image", |set| set.write("images/1.png", "<html>not found</html>")),
    ("image outside", |set| {
        set.without("--annotations");
        set.json("questions.json", |file| file["questions"][0]["image_id"] = json!("../model/config"));
    }),
    ("absolute image", |set| {
        set.without("--annotations");
        set.json("questions.json", |file| file["questions"][0]["image_id"] = json!("/etc/passwd"));
    }),
];

#[test]
fn bad_images() {
    check(IMAGES);
}

const MODELS: &[Case] = &[
    ("model missing", |set| set.option("--model=modell")),
    ("model is a file", |set| set.option("--model=model/config.json")),
    ("config.json missing", |set| set.remove("model/config.json")),
    ("config.json truncated", |set| set.truncate("model/config.json", 2)),
    ("no model_type", |set| set.write("model/config.json", "{}")),
    ("unknown model_type", |set| set.json("model/config.json", |file| file["model_type"] = json!("llava"))),
    ("no text_config", |set| set.write("model/config.json", r#"{"model_type": "paligemma"}"#)),
    ("unknown text model", |set| {
        set.json("model/config.json", |file| file["text_config"]["model_type"] = json!("gemma3"))
    }),
    ("no heads", |set| set.json("model/config.json", |file| file["text_config"]["num_attention_heads"] = json!(0))),
    ("no vision heads", |set| {
        set.json("model/config.json", |file| file["vision_config"]["num_attention_heads"] = json!(0))
    }),
    ("no patches", |set| set.json("model/config.json", |file| file["vision_config"]["patch_size"] = json!(0))),
    ("no image", |set| set.json("model/config.json", |file| file["vision_config"]["image_size"] = json!(0))),
    ("no layers", |set| set.json("model/config.json", |file| file["text_config"]["num_hidden_layers"] = json!(0))),
    ("more layers", |set| set.json("model/config.json", |file| file["text_config"]["num_hidden_layers"] = json!(4))),
    ("other width", |set| set.json("model/config.json", |file| file["text_config"]["hidden_size"] = json!(64))),
    ("end token missing", |set| {
        set.remove("model/generation_config.json");
        set.json("model/config.json", |file| {
            file.as_object_mut().unwrap().remove("eos_token_id");
        })
    }),
    ("weights missing", |set| set.remove("model/model.safetensors")),
    ("weights truncated", |set| set.truncate("model/model.safetensors", 2)),
    ("weights empty", |set| set.write("model/model.safetensors", "")),
    ("header truncated", |set| set.truncate("model/model.safetensors", 1000)),
    ("header garbage", |set| set.write("model/model.safetensors", [0x55; 4096])),
    ("tensor missing", |set| set.header("multi_modal_projector.linear.bias", "multi_modal_projector.linear.base")),
    ("tensor of another shape", |set| set.header("[36,3,14,14]", "[3,36,14,14]")),
    ("tensor of integers", |set| {
        let (floats, integers) =
            ("\"dtype\":\"F32\",\"shape\":[36,3,14,14]", "\"dtype\":\"I32\",\"shape\":[36,3,14,14]");
        set.header(floats, integers)
    }),
    ("images of four channels", |set| {
        set.json("model/config.json", |file| file["vision_config"]["num_channels"] = json!(4))
    }),
    ("images beyond counting", |set| {
        set.json("model/config.json", |file| file["vision_config"]["image_size"] = json!(1u64 << 40))
    }),
    ("shard missing", |set| {
        set.model("paligemma-tiny-b");
        set.remove("model/model-00003-of-00004.safetensors")
    }),
    ("shard lacks a tensor", |set| {
        set.model("paligemma-tiny-b");
        set.json("model/model.safetensors.index.json", |file| {
            file["weight_map"]["lm_head.weight"] = json!("model-00002-of-00004.safetensors")
        })
    }),
    ("shard outside", |set| {
        set.model("paligemma-tiny-b");
        set.json("model/model.safetensors.index.json", |file| {
            file["weight_map"]["lm_head.weight"] = json!("../weights.safetensors")
        })
    }),
    ("index truncated", |set| {
        set.model("paligemma-tiny-b");
        set.truncate("model/model.safetensors.index.json", 2)
    }),
    ("tokenizer missing", |set| set.remove("model/tokenizer.json")),
    ("tokenizer truncated", |set| set.truncate("model/tokenizer.json", 2)),
    ("other image token", |set| set.json("model/config.json", |file| file["image_token_index"] = json!(641))),
    ("small vocabulary", |set| set.json("model/config.json", |file| file["text_config"]["vocab_size"] = json!(1000))),
    ("image settings missing", |set| set.remove("model/preprocessor_config.json")),
    ("image settings truncated", |set| set.truncate("model/preprocessor_config.json", 2)),
    ("other image size", |set| {
        set.json("model/preprocessor_config.json", |file| file["size"] = json!({"height": 64, "width": 56}))
    }),
    ("other image processor", |set| {
        set.json("model/preprocessor_config.json", |file| file["image_processor_type"] = json!("CLIPImageProcessor"))
    }),
];

#[test]
fn bad_models() {
    check(MODELS);
}

const STORES: &[Case] = &[
    ("store from the future", |set| {
        set.option("--store=store.sqlite");
        drop(Store::open(set.path("store.sqlite")).unwrap());
        let mut bytes = fs::read(set.path("store.sqlite")).unwrap();
        // `user_version` of the SQLite file format, section 1.3.16.
        bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
        set.write("store.sqlite", bytes);
    }),
    ("garbage for a store", |set| {
        set.option("--store=store.sqlite");
        set.write("store.sqlite", "not a store\n".repeat(500))
    }),
    ("damaged store", |set| {
        set.option("--store=store.sqlite");
        drop(Store::open(set.path("store.sqlite")).unwrap());
        let mut bytes = fs::read(set.path("store.sqlite")).unwrap();
        bytes[100..4096].fill(0x55);
        set.write("store.sqlite", bytes);
    }),
    ("store below a file", |set| set.option("--store=questions.json/store.sqlite")),
    ("store is a folder", |set| set.option("--store=images")),
    ("library missing", |set| {
        let none = set.path("none.so");
        set.variable("ORT_DYLIB_PATH", none)
    }),
    ("library is text", |set| {
        let text = set.path("questions.json");
        set.variable("ORT_DYLIB_PATH", text)
    }),
];

#[test]
fn bad_stores_and_runtimes() {
    check(STORES);
}

const RESULTS: &[Case] = &[
    ("no results file", |set| {
        set.command(SCORE);
        set.remove("results.json")
    }),
    ("not JSON", |set| {
        set.command(SCORE);
        set.write("results.json", "question_id,answer\n1,red\n")
    }),
    ("results truncated", |set| {
        set.command(SCORE);
        set.truncate("results.json", 2)
    }),
    ("answer is a number", |set| {
        set.command(SCORE);
        set.json("results.json", |file| file[1]["answer"] = json!(2))
    }),
    ("answer missing", |set| {
        set.command(SCORE);
        set.json("results.json", |file| {
            file.as_array_mut().unwrap().remove(1);
        })
    }),
    ("answer twice", |set| {
        set.command(SCORE);
        set.json("results.json", |file| file.as_array_mut().unwrap().push(json!({"question_id": 1, "answer": "blue"})))
    }),
    ("unknown question", |set| {
        set.command(SCORE);
        set.json("results.json", |file| file[2]["question_id"] = json!("3"))
    }),
    ("annotations missing", |set| {
        set.command(SCORE);
        set.remove("annotations.json")
    }),
];

#[test]
fn bad_results() {
    check(RESULTS);
}

/// Only the libraries of the system are left to be found. Where there is one, it is used.
const BERT: &str = "bert-legacy-17.onnx";
const RESNET: &str = "resnet-train-legacy-20-statistics.onnx";

const EXPORTS: &[Case] = &[
    ("no change asked for", |set| set.command(&["export", "--model=model.onnx", "--output=train.onnx"])),
    ("no name of logits", |set| {
        set.export(BERT);
        set.option("--loss=cross-entropy:")
    }),
    ("no ONNX file", |set| {
        set.export(BERT);
        set.remove("model.onnx")
    }),
    ("text for an ONNX file", |set| {
        set.export(BERT);
        set.write("model.onnx", "<html>not found</html>")
    }),
    ("truncated ONNX file", |set| {
        set.export(BERT);
        set.truncate("model.onnx", 2)
    }),
    ("weights in a missing file", |set| {
        set.export(BERT);
        let mut graph = Graph::load(&set.path("model.onnx")).unwrap();
        graph.initializers[0].1 = Initializer::External { file: "model.data".to_owned(), offset: 0, length: 4 };
        set.write("model.onnx", graph.to_onnx())
    }),
    ("weights in another folder", |set| {
        set.export(BERT);
        let mut graph = Graph::load(&set.path("model.onnx")).unwrap();
        graph.initializers[0].1 = Initializer::External { file: "../model.data".to_owned(), offset: 0, length: 4 };
        set.write("model.onnx", graph.to_onnx())
    }),
    ("unknown loss", |set| {
        set.export(BERT);
        set.option("--loss=total")
    }),
    ("loss of many numbers", |set| {
        set.export(BERT);
        set.option("--loss=logits")
    }),
    ("unknown logits", |set| {
        set.export(BERT);
        set.option("--loss=cross-entropy:scores")
    }),
    ("integers for logits", |set| {
        set.export(BERT);
        set.option("--loss=cross-entropy:input_ids")
    }),
    ("pattern without match", |set| {
        set.export(BERT);
        set.option("--wrt=encoder.*")
    }),
    ("weight off the loss", |set| {
        set.export(RESNET);
        set.option("--wrt=bn.running_*")
    }),
    ("operator without a row", |set| set.export_with("Unheard")),
    ("training graph below a file", |set| {
        set.export(BERT);
        set.option("--output=questions.json/train.onnx")
    }),
    ("training graph over its own ONNX file", |set| {
        set.export(BERT);
        set.option("--output=images/../model.onnx")
    }),
    ("dtype of an ONNX file", |set| {
        set.export(BERT);
        set.arguments.push("--dtype=f16".into())
    }),
    ("export onto its own model", |set| {
        set.command(EXPORT_MODEL);
        set.option("--output=images/../model")
    }),
    ("export onto other files", |set| {
        set.command(EXPORT_MODEL);
        set.option("--output=images")
    }),
    ("export onto a file", |set| {
        set.command(EXPORT_MODEL);
        set.option("--output=questions.json")
    }),
    ("export below a file", |set| {
        set.command(EXPORT_MODEL);
        set.option("--output=questions.json/exported")
    }),
    ("export in an unknown dtype", |set| {
        set.command(EXPORT_MODEL);
        set.arguments.push("--dtype=int8".into())
    }),
    ("export of weights that do not fit", |set| {
        set.command(EXPORT_MODEL);
        set.json("model/config.json", |file| file["text_config"]["hidden_size"] = json!(64))
    }),
    ("unknown loss of a checkpoint", |set| {
        set.command(EXPORT_LOSS);
        set.option("--loss=cross-entropy:logits")
    }),
    ("pattern without match in a checkpoint", |set| {
        set.command(EXPORT_LOSS);
        set.arguments.extend(["--wrt", "*q_proj*", "encoder.*"].map(str::to_owned))
    }),
    ("training graph of a checkpoint below a file", |set| {
        set.command(EXPORT_LOSS);
        set.option("--output=questions.json/train.onnx")
    }),
    ("training graph over a file of the model", |set| {
        set.command(EXPORT_LOSS);
        set.option("--output=model/model.safetensors")
    }),
];

#[test]
fn bad_exports() {
    check(EXPORTS);
}

/// A training with one option changed.
fn train(set: &mut Set, option: &str) {
    set.command(TRAIN);
    set.option(option);
}

const TRAININGS: &[Case] = &[
    ("unknown method", |set| train(set, "--method=vanila")),
    ("LoRA without a rank", |set| train(set, "--lora=alpha=8,targets=q_proj")),
    ("LoRA without targets", |set| train(set, "--lora=r=4")),
    ("LoRA of rank 0", |set| train(set, "--lora=r=0,targets=q_proj")),
    ("unknown setting of LoRA", |set| train(set, "--lora=r=4,bias=all,targets=q_proj")),
    ("LoRA target without match", |set| train(set, "--lora=r=4,targets=q_proj+query")),
    ("LoRA and weights", |set| {
        train(set, "--lora=r=4,targets=q_proj");
        set.option("--trainable=head")
    }),
    ("trained pattern without match", |set| train(set, "--trainable=*layers.9.*")),
    ("malformed sampling", |set| train(set, "--sampling=yes/no")),
    ("type of answer twice", |set| train(set, "--sampling=other=1,other=2")),
    ("unknown type of answer", |set| train(set, "--sampling=colour=2")),
    ("negative learning rate", |set| {
        train(set, "--learning-rate=-0.1");
        set.option("--lr-scheduler-type=constant")
    }),
    ("training in bf16 on the CPU", |set| train(set, "--dtype=bf16")),
    ("training in f16 on the CPU", |set| train(set, "--dtype=f16")),
    ("all images held out", |set| {
        train(set, "--validation=held-out");
        set.option("--validation-share=1")
    }),
    ("no images held out", |set| {
        train(set, "--validation=held-out");
        set.option("--validation-share=0")
    }),
    ("too few images to hold some out", |set| train(set, "--validation=held-out")),
    ("no reported part", |set| train(set, "--validation=reported")),
    ("easy-VQA to train on not in the folder", |set| {
        set.command(&["train", "--model=model", "--dataset=easy-vqa", "--root=images", "--output=output"])
    }),
    ("nothing to start from", |set| {
        train(set, "--from-scratch=images");
        set.without("--model")
    }),
    ("question to train on without annotation", |set| {
        train(set, "--seed=1");
        set.json("annotations.json", |file| {
            file["annotations"].as_array_mut().unwrap().remove(1);
        })
    }),
    ("empty answer to learn", |set| {
        train(set, "--seed=1");
        set.json("annotations.json", |file| file["annotations"][1]["answers"] = json!([{"answer": "", "answer_id": 1}]))
    }),
    ("answer beyond the vocabulary", |set| {
        train(set, "--seed=1");
        set.json("annotations.json", |file| {
            file["annotations"][1]["answers"] = json!([{"answer": "zebra", "answer_id": 1}])
        });
        set.json("model/tokenizer.json", |file| {
            let mut token = file["added_tokens"][0].clone();
            token["content"] = json!("zebra");
            token["id"] = json!(1793);
            token["special"] = json!(false);
            file["added_tokens"].as_array_mut().unwrap().push(token);
        })
    }),
    ("image token in a question to train on", |set| {
        train(set, "--seed=1");
        set.json("questions.json", |file| file["questions"][2]["question"] = json!("is this an <image>?"))
    }),
    ("damaged image to train on", |set| {
        train(set, "--seed=1");
        set.truncate("images/1.png", 2);
    }),
    ("image to train on missing", |set| {
        train(set, "--seed=1");
        set.remove("images/2.png");
    }),
    ("loss that is not finite", |set| {
        train(set, "--learning-rate=1e30");
        set.option("--lr-scheduler-type=constant");
        set.without("--save-steps")
    }),
    ("weights that are not finite", |set| {
        train(set, "--learning-rate=1e30");
        set.option("--warmup-steps=1");
        set.option("--warmup-lr=0.001")
    }),
    ("run of other settings", |set| {
        train(set, "--seed=1");
        assert!(set.run().status.success());
        set.option("--seed=2")
    }),
    ("run in the folder of its model", |set| train(set, "--output=model")),
    ("run in the folder of an adapter", |set| {
        train(set, "--output=adapter");
        fs::create_dir(set.path("adapter")).unwrap();
        set.write("adapter/adapter_config.json", "{}")
    }),
    ("run output is a file", |set| {
        set.command(TRAIN);
        set.write("output", "")
    }),
    ("run output below a file", |set| train(set, "--output=questions.json/output")),
    ("garbage for a store of curves", |set| {
        train(set, "--store=store.sqlite");
        set.write("store.sqlite", "not a store\n".repeat(500))
    }),
];

#[test]
fn bad_trainings() {
    check(TRAININGS);
}

/// Trains with a method and further options.
fn method(set: &mut Set, name: &str, options: &[&str]) {
    train(set, &format!("--method={name}"));
    set.arguments.extend(options.iter().map(|option| (*option).to_owned()));
}

const METHODS: &[Case] = &[
    ("linear probe with LoRA", |set| method(set, "linear-probe", &["--lora=r=4,targets=q_proj"])),
    ("linear probe of more than the head", |set| method(set, "linear-probe", &["--trainable=all"])),
    ("partial fusion with LoRA", |set| method(set, "partial-fusion", &["--lora=r=4,targets=q_proj"])),
    ("partial fusion of the head alone", |set| method(set, "partial-fusion", &["--trainable=head"])),
    ("linear probe before training the head alone", |set| method(set, "lp-ft", &["--trainable=head"])),
    ("search for radii without held-out questions", |set| method(set, "tpgm", &[])),
    ("search for radii on the reported questions", |set| {
        few_of_easy_vqa(&set.path("easy"), [8, 8]);
        set.command(&["train", "--model=model", "--dataset=easy-vqa", "--root=easy", "--output=output"]);
        set.option("--method=tpgm");
        set.option("--validation=reported")
    }),
    ("anchored method from random weights", |set| {
        method(set, "digrap", &["--from-scratch=model"]);
        set.without("--model")
    }),
    ("interpolation with random weights", |set| {
        method(set, "wise-ft", &["--from-scratch=model"]);
        set.without("--model")
    }),
    ("anchor of a method without one", |set| method(set, "vanilla", &["--anchor=start"])),
    ("exclusion from no anchor", |set| method(set, "wise-ft", &["--exclude=*norm*"])),
    ("factors without LoRA", |set| method(set, "wise-ft", &["--set=space=factors"])),
    ("setting without value", |set| method(set, "digrap", &["--set=mu"])),
    ("unknown setting", |set| method(set, "digrap", &["--set=nu=1"])),
    ("setting of a method without any", |set| method(set, "vanilla", &["--set=mu=1"])),
    ("setting twice", |set| method(set, "digrap", &["--set", "mu=1", "mu=2"])),
    ("negative setting", |set| method(set, "digrap", &["--set=mu=-1"])),
    ("setting that is no number", |set| method(set, "digrap", &["--set=kappa=nan"])),
    ("setting beyond its range", |set| method(set, "wise-ft", &["--set=alpha_finetuned=2"])),
    ("count of zero", |set| method(set, "tpgm", &["--set=every=0"])),
    ("neither word nor number", |set| method(set, "digrap", &["--set=omega=learnt"])),
    ("settings without effect", |set| method(set, "digrap", &["--set", "mu=0.5", "omega=0.25", "gated=true"])),
    ("everything excluded", |set| method(set, "l2-sp", &["--exclude=*"])),
    ("excluded pattern without match", |set| method(set, "l2-sp", &["--exclude=*.lm_head.*"])),
    ("excluded pattern without match under LoRA", |set| {
        method(set, "digrap", &["--lora=r=4,targets=q_proj", "--exclude=*embed_tokens*"])
    }),
    ("merged run of another share", |set| {
        method(set, "wise-ft", &["--set=alpha_finetuned=0.5"]);
        assert!(set.run().status.success());
        set.option("--set=alpha_finetuned=0.25")
    }),
];

#[test]
fn bad_methods() {
    check(METHODS);
}

/// A verb about stored runs, and a store that holds none.
fn runs(set: &mut Set, arguments: &[&str]) {
    drop(Store::open(set.path("store.sqlite")).unwrap());
    // A store that was read has an empty log beside it.
    drop(Store::open_to_read(set.path("store.sqlite")).unwrap());
    set.command(&[&["runs"], arguments].concat());
}

const RUNS: &[Case] = &[
    ("no store to list", |set| runs(set, &["list", "--store=none.sqlite"])),
    ("unknown run to show", |set| runs(set, &["show", "model", "--store=store.sqlite"])),
    ("unknown run to remove", |set| runs(set, &["rm", "training:1", "--store=store.sqlite"])),
    ("unknown model to export", |set| {
        runs(set, &["export", "--store=store.sqlite", "--model=model", "--format=jsonl", "--output=answers.jsonl"])
    }),
    ("no curves to export", |set| {
        runs(set, &["export", "--store=store.sqlite", "--format=tensorboard", "--output=logs"])
    }),
    ("curves saved from damage", |set| {
        runs(set, &["export", "--store=store.sqlite", "--format=mlflow", "--output=logs", "--rescue"])
    }),
    ("answers exported below a file", |set| {
        runs(set, &["export", "--store=store.sqlite", "--format=jsonl", "--output=questions.json/answers.jsonl"])
    }),
    ("nothing to import", |set| runs(set, &["import", "none.sqlite", "--store=new.sqlite"])),
    ("results in place of a store", |set| runs(set, &["import", "results.json", "--store=new.sqlite"])),
    ("questions in place of answers", |set| runs(set, &["import", "questions.json", "--store=new.sqlite"])),
    ("exported answers of a newer program", |set| {
        let head = json!({"digrap-bench": {"format": 9, "settings": ["of another form"]}});
        set.write("answers.jsonl", head.to_string());
        runs(set, &["import", "answers.jsonl", "--store=new.sqlite"])
    }),
    ("exported answer under unknown settings", |set| {
        let head = json!({"digrap-bench": {"format": 1, "program_version": "0", "settings": {}, "models": [],
            "question_sets": []}});
        let answer =
            json!({"settings": 1, "dataset": "a", "question_id": 1, "image_id": 1, "answer": "", "content": "0"});
        set.write("answers.jsonl", format!("{head}\n{answer}\n"));
        runs(set, &["import", "answers.jsonl", "--store=new.sqlite"])
    }),
    ("malformed shard", |set| set.option("--shard=4")),
    ("shard that is not there", |set| set.option("--shard=0/4")),
    ("malformed number of a process", |set| {
        set.variable("RANK", "first");
        set.variable("WORLD_SIZE", "4")
    }),
];

#[test]
fn bad_runs() {
    check(RUNS);
}

#[test]
fn no_runtime_anywhere() {
    let mut set = Set::new();
    set.variable("ORT_DYLIB_PATH", "");
    set.variable("PATH", "");
    set.command(&["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&set.run().stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().any(|check| check["name"] == "ONNX Runtime" && check["state"] == "ok");
    set.command(VQA);
    let output = set.run();
    let told = told(&set, &output);
    if found {
        assert!(output.status.success(), "{told}");
        return;
    }
    let expected = "error: cannot find the ONNX Runtime library
hint: run `make setup`, or set ORT_DYLIB_PATH to a libonnxruntime of version 1.24 or later
";
    assert_eq!((output.status.code(), told.as_str()), (Some(2), expected));
    assert!(!set.path("output").exists() && output.stdout.is_empty());
}

/// A run on the CPU in place of the GPU would be noticed too late.
#[test]
fn a_gpu_that_is_not_there_is_never_replaced() {
    let mut set = Set::new();
    let with_cuda = runtime().info.providers.iter().any(|provider| provider == "CUDAExecutionProvider");
    set.option(if with_cuda { "--device=cuda:99" } else { "--device=cuda" });
    let output = set.run();
    let told = told(&set, &output);
    let number = if with_cuda { 99 } else { 0 };
    let expected = [
        "error: cannot load the model `model`",
        &format!("caused by: the CUDA provider cannot use GPU {number}"),
        "caused by: ...",
        "hint: install `onnxruntime-gpu` and point ORT_DYLIB_PATH at its library, or use `--device cpu`; ...",
    ];
    assert!(fits(&told, &expected), "{told}");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty() && !set.path("output/custom.results.json").exists());
}

/// The parser of arguments has its own words, which name the option.
#[test]
fn usage_errors_name_the_option() {
    let rows: [(&[&str], &str); 8] = [
        (&["vqa", "--dataset=easy-vqa"], "--model <MODEL>..."),
        (&["vqa", "--model=model"], "--dataset <NAME>..."),
        (&["vqa", "--model=model", "--dataset=easy-vqa", "--limit=0"], "'--limit <N>'"),
        (&["vqa", "--model=model", "--questions=questions.json"], "--images <DIR>"),
        (&["vqa", "--model=model", "--suite=vqa", "--dataset=easy-vqa"], "'--suite <NAME|FILE>'"),
        (
            &["vqa", "--model=model", "--suite=vqa", "--questions=questions.json", "--images=images"],
            "'--questions <FILE>'",
        ),
        (&["vqa", "--zero-shot=model", "--dataset=easy-vqa"], "'--zero-shot <MODEL>...'"),
        (&["score", "--questions=questions.json", "--annotations=annotations.json"], "--results <FILE>"),
    ];
    let mut set = Set::new();
    for (arguments, option) in rows {
        set.command(arguments);
        let output = set.run();
        let told = told(&set, &output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.starts_with("error: ") && told.contains(option) && output.stdout.is_empty(), "{told}");
    }
}

const COMPARISONS: &[Case] = &[
    ("no run to compare", |set| {
        set.compare();
        set.option("--current=nothing")
    }),
    ("folder without a run", |set| {
        set.compare();
        set.option("--baseline=images")
    }),
    ("several models to compare", |set| {
        set.compare();
        let mut store = Store::open(set.path("run/store.sqlite")).unwrap();
        let first = store.models().unwrap().remove(0);
        store.record_model(&StoredModel { name: "second".into(), ..first }).unwrap();
    }),
    ("unknown model to compare", |set| {
        set.compare();
        set.option("--current=run#modle")
    }),
    ("other model of a baseline", |set| {
        set.compare();
        set.option("--baseline=base#modle")
    }),
    ("other prompt and decoding", |set| {
        set.compare_with(|file| {
            file["settings"]["prompt"] = json!("answer en {q}");
            file["settings"]["decoding"] = json!("beam:5");
            file["settings"]["max_new_tokens"] = json!(10);
        })
    }),
    ("other metric", |set| {
        set.compare();
        set.option("--metric=lavis")
    }),
    ("other questions here", |set| {
        set.compare();
        set.json("questions.json", |file| file["questions"][1]["question"] = json!("is it blue?"))
    }),
    ("fewer questions here", |set| {
        set.compare();
        set.option("--limit=2")
    }),
    ("other questions in the baseline", |set| {
        set.compare_with(|file| {
            file["datasets"][0]["questions"] = json!("0123456789abcdef");
            file["datasets"][0]["n"] = json!(4);
        })
    }),
    ("dataset that one run lacks", |set| set.compare_with(|file| file["datasets"] = json!([]))),
    ("dataset left out", |set| {
        set.compare_with(|file| {
            let mut other = file["datasets"][0].clone();
            other["dataset"] = json!("other");
            file["datasets"].as_array_mut().unwrap().push(other);
        })
    }),
    ("answers missing", |set| {
        set.compare();
        let whole = Store::open_to_read(set.path("run/store.sqlite")).unwrap();
        let model = whole.models().unwrap().remove(0);
        let id = model.answers.unwrap();
        let mut store = Store::open(set.path("part.sqlite")).unwrap();
        let part = store.settings(&whole.settings_of_answers(id).unwrap()).unwrap();
        store.record_questions(part, &whole.question_sets(id).unwrap()[0]).unwrap();
        store.record_model(&StoredModel { answers: Some(part), ..model }).unwrap();
        set.option("--current=part.sqlite")
    }),
    ("store without answers", |set| {
        set.compare();
        drop(Store::open(set.path("empty.sqlite")).unwrap());
        set.option("--current=empty.sqlite")
    }),
    ("changed results of a baseline", |set| {
        set.compare();
        set.write("base/custom.results.json", r#"[{"question_id": 1, "answer": "red"}]"#)
    }),
    ("no results of a baseline", |set| {
        set.compare();
        set.remove("base/custom.results.json")
    }),
    ("baseline truncated", |set| {
        set.compare();
        set.truncate("base/baseline.json", 2)
    }),
    ("baseline from the future", |set| set.compare_with(|file| *file = json!({"format": 2, "other": []}))),
    ("no thresholds", |set| {
        set.compare();
        set.option("--thresholds=gate.toml")
    }),
    ("unknown threshold", |set| {
        set.compare();
        set.write("gate.toml", "level = 0.05\n\n[dataset.custom]\nmaximal-drop = 1\n");
        set.option("--thresholds=gate.toml")
    }),
    ("threshold of another dataset", |set| {
        set.compare();
        set.write("gate.toml", "max-drop = 1\n[dataset.costum]\nmax-drop = 2\n");
        set.option("--thresholds=gate.toml")
    }),
    ("threshold out of range", |set| {
        set.compare();
        set.write("gate.toml", "tolerated-drop = -1\n");
        set.option("--thresholds=gate.toml")
    }),
    ("baseline over a run", |set| {
        set.compare();
        set.option("--baseline=run");
        set.arguments.push("--bless".into())
    }),
    ("baseline over itself", |set| {
        set.compare();
        set.option("--current=base");
        set.arguments.push("--bless".into())
    }),
    ("baseline of other questions", |set| {
        set.compare();
        set.option("--limit=2");
        set.arguments.push("--bless".into())
    }),
    ("report below a file", |set| {
        set.compare();
        set.option("--output=questions.json/report")
    }),
];

#[test]
fn bad_comparisons() {
    check(COMPARISONS);
}
