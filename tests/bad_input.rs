//! Bad input to `vqa` and `score`: one error that says what, where and what to do, and nothing half-written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use digrap_bench::runtime::library::{SearchPath, locate};
use digrap_bench::store::Store;
use serde_json::{Value, json};

use crate::support::{cache_folder, fixture, runtime};

/// One way to go wrong.
struct Case {
    name: &'static str,
    /// Exit code.
    code: i32,
    /// What is changed about a set of files and arguments that is right otherwise.
    arrange: fn(&mut Set),
    /// All of standard error. `DIR` stands for the folder of the set; a line that ends in `...` is a beginning.
    expected: &'static str,
}

const fn case(name: &'static str, code: i32, arrange: fn(&mut Set), expected: &'static str) -> Case {
    Case { name, code, arrange, expected }
}

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
const SCORE: &[&str] = &["score", "--questions=questions.json", "--annotations=annotations.json", "--results=results.json"];

impl Set {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut set = Self { folder, arguments: Vec::new(), environment: Vec::new() };
        set.command(VQA);
        set.model("paligemma-tiny-a");
        let questions = [(1, 1, "what is it?"), (2, 1, "is it red?"), (3, 2, "what colour?")];
        let record = |(id, image, text): (i64, i64, &str)| json!({"question_id": id, "image_id": image, "question": text});
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
        set.environment.push(("ORT_DYLIB_PATH", runtime().info.path));
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
        for name in ["VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONUSERBASE", "LD_LIBRARY_PATH", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
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

/// Standard error with the folder of the set replaced.
fn told(set: &Set, output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let folder = set.folder.path();
    text.replace(folder.canonicalize().unwrap().to_str().unwrap(), "DIR").replace(folder.to_str().unwrap(), "DIR")
}

fn fits(told: &str, expected: &str) -> bool {
    let fits_line = |(told, expected): (&str, &str)| match expected.strip_suffix("...") {
        Some(beginning) => told.starts_with(beginning) && told.len() > beginning.len(),
        None => told == expected,
    };
    told.lines().count() == expected.lines().count() && told.lines().zip(expected.lines()).all(fits_line)
}

/// What is wrong with the outcome of one case, if something is.
fn complaint(case: &Case) -> Option<String> {
    let mut set = Set::new();
    (case.arrange)(&mut set);
    let before = set.files();
    let store_before = fs::read(set.path("store.sqlite")).ok();
    let output = set.run();
    let told = told(&set, &output);
    let wrong = |what: &str| Some(format!("{}: {what}\n{told}", case.name));
    if output.status.code() != Some(case.code) {
        return wrong(&format!("exit code {:?}, not {}", output.status.code(), case.code));
    }
    if !output.stdout.is_empty() {
        return wrong("standard output is not empty");
    }
    let begins = |start: &str| told.lines().filter(|line| line.starts_with(start)).count();
    if begins("error: ") != 1 || begins("hint: ") > 1 || told.contains("panicked") {
        return wrong("not one error");
    }
    if !fits(&told, case.expected) {
        return wrong(&format!("not what was expected:\n{}\nbut", case.expected));
    }
    let store = set.path("output/store.sqlite");
    if store.is_file() && Store::open(&store).is_err() {
        return wrong("the store is damaged");
    }
    if fs::read(set.path("store.sqlite")).ok() != store_before {
        return wrong("the store that was given has changed");
    }
    let allowed = ["output/store.sqlite", "home/digrap-bench/converted/lock"];
    let left: Vec<String> =
        set.files().into_iter().filter(|file| !before.contains(file) && !allowed.contains(&file.as_str())).collect();
    if left.is_empty() { None } else { wrong(&format!("left behind: {left:?}")) }
}

#[track_caller]
fn check(cases: &[Case]) {
    let complaints: Vec<String> = cases.iter().filter_map(complaint).collect();
    assert!(complaints.is_empty(), "{} of {} cases:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
}

#[test]
fn what_the_cases_change_is_right_without_the_change() {
    let mut set = Set::new();
    for command in [VQA, SCORE] {
        set.command(command);
        let output = set.run();
        assert!(output.status.success(), "{}", told(&set, &output));
    }
    for name in ["custom.results.json", "run.json", "store.sqlite", "table.md"] {
        assert!(set.path("output").join(name).is_file(), "{name}");
    }
}

#[test]
fn bad_arguments() {
    check(&[
        case("unknown prompt", 2, |set| set.option("--prompt=answer-eng"), ""),
        case("unknown metric", 2, |set| set.option("--metric=lavsi"), ""),
        case("unknown metric of score", 2, |set| { set.command(SCORE); set.option("--metric=f1") }, ""),
        case("unknown dataset", 2, |set| set.command(&["vqa", "--model=model", "--dataset=easy_vqa"]), ""),
        case("unknown dtype", 2, |set| set.option("--dtype=int8"), ""),
        case("bf16 on the CPU", 2, |set| set.option("--dtype=bf16"), ""),
        case("unknown device", 2, |set| set.option("--device=tpu"), ""),
        case("device without number", 2, |set| set.option("--device=cuda:x"), ""),
        case("negative device", 2, |set| set.option("--device=cuda:-1"), ""),
        case("absent device", 2, |set| set.option("--device=cuda:99"), ""),
        case("unknown decoding", 2, |set| set.option("--decode=sample"), ""),
        case("no beams", 2, |set| set.option("--decode=beam:0"), ""),
        case("too many beams", 2, |set| set.option("--decode=beam:5000"), ""),
        case("no batch", 2, |set| set.option("--batch-size=0"), ""),
        case("batch of words", 2, |set| set.option("--batch-size=many"), ""),
        case("model twice", 2, |set| set.arguments.push("--model=images/../model".into()), ""),
        case("template without image_id", 2, |set| set.option("--image-name=photo.png"), ""),
        case("malformed template", 2, |set| set.option("--image-name={image_id:12x}.png"), ""),
        case("no template", 2, |set| set.without("--image-name"), ""),
        case("output is a file", 2, |set| set.write("output", ""), ""),
        case("output below a file", 2, |set| set.option("--output=questions.json/output"), ""),
    ]);
}

#[test]
fn bad_questions_and_annotations() {
    check(&[
        case("no question file", 2, |set| set.remove("questions.json"), ""),
        case("question file is a folder", 2, |set| set.option("--questions=images"), ""),
        case("truncated questions", 2, |set| set.truncate("questions.json", 2), ""),
        case("truncated annotations", 2, |set| set.truncate("annotations.json", 2), ""),
        case("empty question file", 2, |set| set.write("questions.json", ""), ""),
        case("no questions", 2, |set| set.write("questions.json", r#"{"questions": []}"#), ""),
        case("no annotations", 2, |set| set.write("annotations.json", "[]"), ""),
        case("wrong list", 2, |set| { fs::copy(set.path("annotations.json"), set.path("questions.json")).unwrap(); }, ""),
        case("answers of wrong type", 2, |set| set.json("annotations.json", |file| file["annotations"][1]["answers"] = json!("red")), ""),
        case("answer of wrong type", 2, |set| set.json("annotations.json", |file| file["annotations"][1]["answers"][3]["answer"] = json!(7)), ""),
        case("no answers", 2, |set| set.json("annotations.json", |file| file["annotations"][2]["answers"] = json!([])), ""),
        case("no question text", 2, |set| set.json("questions.json", |file| { file["questions"][2].as_object_mut().unwrap().remove("question"); }), ""),
        case("fractional identifier", 2, |set| set.json("questions.json", |file| file["questions"][0]["question_id"] = json!(1.5)), ""),
        case("missing annotation", 3, |set| set.json("annotations.json", |file| { file["annotations"].as_array_mut().unwrap().remove(1); }), ""),
        case("extra annotation", 3, |set| set.json("questions.json", |file| { file["questions"].as_array_mut().unwrap().remove(0); }), ""),
        case("other image", 3, |set| set.json("annotations.json", |file| file["annotations"][0]["image_id"] = json!("1")), ""),
        case("duplicate question", 3, |set| set.json("questions.json", |file| file["questions"][1]["question_id"] = json!(1)), ""),
        case("duplicate annotation", 3, |set| set.json("annotations.json", |file| file["annotations"][1]["question_id"] = json!(1)), ""),
        case("image token in a question", 2, |set| set.json("questions.json", |file| file["questions"][2]["question"] = json!("is this an <image>?")), ""),
        case("long question", 2, |set| set.json("questions.json", |file| file["questions"][1]["question"] = json!("why ".repeat(600))), ""),
        case("easy-VQA not installed", 2, |set| set.command(&["vqa", "--model=model", "--dataset=easy-vqa", "--output=output"]), ""),
        case("easy-VQA not in the folder", 2, |set| set.command(&["score", "--dataset=easy-vqa", "--root=images", "--results=results.json"]), ""),
    ]);
}

#[test]
fn bad_images() {
    check(&[
        case("image missing", 2, |set| set.remove("images/2.png"), ""),
        case("image folder missing", 2, |set| set.option("--images=pictures"), ""),
        case("image is a folder", 2, |set| { set.remove("images/2.png"); fs::create_dir(set.path("images/2.png")).unwrap() }, ""),
        case("corrupt PNG", 2, |set| {
            let mut bytes = fs::read(set.path("images/2.png")).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle..middle + 16].fill(0xAA);
            set.write("images/2.png", bytes);
        }, ""),
        case("truncated JPEG", 2, |set| {
            fs::copy(fixture("images/photo_444.jpg"), set.path("images/2.png")).unwrap();
            set.truncate("images/2.png", 2);
        }, ""),
        case("empty image", 2, |set| set.write("images/1.png", ""), ""),
        case("text for an image", 2, |set| set.write("images/1.png", "<html>not found</html>"), ""),
        case("image outside", 2, |set| set.json("questions.json", |file| {
            file["questions"] = json!([{"question_id": 1, "image_id": "../questions", "question": "?"}]);
        }), ""),
        case("image outside, unannotated", 2, |set| {
            set.without("--annotations");
            set.json("questions.json", |file| file["questions"][0]["image_id"] = json!("../model/config"));
        }, ""),
        case("absolute image", 2, |set| {
            set.without("--annotations");
            set.json("questions.json", |file| file["questions"][0]["image_id"] = json!("/etc/passwd"));
        }, ""),
    ]);
}

#[test]
fn bad_models() {
    check(&[
        case("model missing", 2, |set| set.option("--model=modell"), ""),
        case("model is a file", 2, |set| set.option("--model=model/config.json"), ""),
        case("config.json missing", 2, |set| set.remove("model/config.json"), ""),
        case("config.json truncated", 2, |set| set.truncate("model/config.json", 2), ""),
        case("no model_type", 2, |set| set.write("model/config.json", "{}"), ""),
        case("unknown model_type", 2, |set| set.json("model/config.json", |file| file["model_type"] = json!("llava")), ""),
        case("no text_config", 2, |set| set.write("model/config.json", r#"{"model_type": "paligemma"}"#), ""),
        case("unknown text model", 2, |set| set.json("model/config.json", |file| file["text_config"]["model_type"] = json!("gemma3")), ""),
        case("no heads", 2, |set| set.json("model/config.json", |file| file["text_config"]["num_attention_heads"] = json!(0)), ""),
        case("no vision heads", 2, |set| set.json("model/config.json", |file| file["vision_config"]["num_attention_heads"] = json!(0)), ""),
        case("no patches", 2, |set| set.json("model/config.json", |file| file["vision_config"]["patch_size"] = json!(0)), ""),
        case("no image", 2, |set| set.json("model/config.json", |file| file["vision_config"]["image_size"] = json!(0)), ""),
        case("no layers", 2, |set| set.json("model/config.json", |file| file["text_config"]["num_hidden_layers"] = json!(0)), ""),
        case("more layers", 2, |set| set.json("model/config.json", |file| file["text_config"]["num_hidden_layers"] = json!(4)), ""),
        case("other width", 2, |set| set.json("model/config.json", |file| file["text_config"]["hidden_size"] = json!(64)), ""),
        case("end token missing", 2, |set| { set.remove("model/generation_config.json"); set.json("model/config.json", |file| { file.as_object_mut().unwrap().remove("eos_token_id"); }) }, ""),
        case("weights missing", 2, |set| set.remove("model/model.safetensors"), ""),
        case("weights truncated", 2, |set| set.truncate("model/model.safetensors", 2), ""),
        case("weights empty", 2, |set| set.write("model/model.safetensors", ""), ""),
        case("header truncated", 2, |set| set.truncate("model/model.safetensors", 1000), ""),
        case("header garbage", 2, |set| set.write("model/model.safetensors", [0x55; 4096]), ""),
        case("tensor missing", 2, |set| set.header("multi_modal_projector.linear.bias", "multi_modal_projector.linear.base"), ""),
        case("tensor of another shape", 2, |set| set.header("[36,3,14,14]", "[3,36,14,14]"), ""),
        case("shard missing", 2, |set| { set.model("paligemma-tiny-b"); set.remove("model/model-00003-of-00004.safetensors") }, ""),
        case("shard lacks a tensor", 2, |set| { set.model("paligemma-tiny-b"); set.json("model/model.safetensors.index.json", |file| file["weight_map"]["lm_head.weight"] = json!("model-00002-of-00004.safetensors")) }, ""),
        case("shard outside", 2, |set| { set.model("paligemma-tiny-b"); set.json("model/model.safetensors.index.json", |file| file["weight_map"]["lm_head.weight"] = json!("../weights.safetensors")) }, ""),
        case("index truncated", 2, |set| { set.model("paligemma-tiny-b"); set.truncate("model/model.safetensors.index.json", 2) }, ""),
        case("tokenizer missing", 2, |set| set.remove("model/tokenizer.json"), ""),
        case("tokenizer truncated", 2, |set| set.truncate("model/tokenizer.json", 2), ""),
        case("tokenizer of another model", 2, |set| { fs::copy(fixture("models/paligemma-tiny-b/tokenizer.json"), set.path("model/tokenizer.json")).unwrap(); }, ""),
        case("image settings missing", 2, |set| set.remove("model/preprocessor_config.json"), ""),
        case("image settings truncated", 2, |set| set.truncate("model/preprocessor_config.json", 2), ""),
        case("other image size", 2, |set| set.json("model/preprocessor_config.json", |file| file["size"] = json!({"height": 64, "width": 56})), ""),
        case("other image processor", 2, |set| set.json("model/preprocessor_config.json", |file| file["image_processor_type"] = json!("CLIPImageProcessor")), ""),
    ]);
}

#[test]
fn bad_stores_and_runtimes() {
    check(&[
        case("store from the future", 2, |set| {
            set.option("--store=store.sqlite");
            drop(Store::open(set.path("store.sqlite")).unwrap());
            let mut bytes = fs::read(set.path("store.sqlite")).unwrap();
            // `user_version` of the SQLite file format, section 1.3.16.
            bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
            set.write("store.sqlite", bytes);
        }, ""),
        case("garbage for a store", 2, |set| { set.option("--store=store.sqlite"); set.write("store.sqlite", "not a store\n".repeat(500)) }, ""),
        case("damaged store", 2, |set| {
            set.option("--store=store.sqlite");
            drop(Store::open(set.path("store.sqlite")).unwrap());
            let mut bytes = fs::read(set.path("store.sqlite")).unwrap();
            bytes[100..4096].fill(0x55);
            set.write("store.sqlite", bytes);
        }, ""),
        case("store below a file", 2, |set| set.option("--store=questions.json/store.sqlite"), ""),
        case("store is a folder", 2, |set| set.option("--store=images"), ""),
        case("library missing", 2, |set| { let none = set.path("none.so"); set.variable("ORT_DYLIB_PATH", none) }, ""),
        case("library is text", 2, |set| { let text = set.path("questions.json"); set.variable("ORT_DYLIB_PATH", text) }, ""),
    ]);
}

#[test]
fn bad_results() {
    check(&[
        case("no results file", 2, |set| { set.command(SCORE); set.remove("results.json") }, ""),
        case("not JSON", 2, |set| { set.command(SCORE); set.write("results.json", "question_id,answer\n1,red\n") }, ""),
        case("results truncated", 2, |set| { set.command(SCORE); set.truncate("results.json", 2) }, ""),
        case("answer is a number", 2, |set| { set.command(SCORE); set.json("results.json", |file| file[1]["answer"] = json!(2)) }, ""),
        case("answer missing", 3, |set| { set.command(SCORE); set.json("results.json", |file| { file.as_array_mut().unwrap().remove(1); }) }, ""),
        case("answer twice", 3, |set| { set.command(SCORE); set.json("results.json", |file| file.as_array_mut().unwrap().push(json!({"question_id": 1, "answer": "blue"}))) }, ""),
        case("unknown question", 3, |set| { set.command(SCORE); set.json("results.json", |file| file[2]["question_id"] = json!("3")) }, ""),
        case("no annotations", 2, |set| { set.command(SCORE); set.remove("annotations.json") }, ""),
    ]);
}

#[test]
fn no_runtime_anywhere() {
    let mut set = Set::new();
    set.variable("ORT_DYLIB_PATH", "");
    set.variable("PATH", "");
    let _ = (Path::new(""), cache_folder(), locate(&SearchPath::default()));
}
