//! The command line as a user meets it: exit codes, what goes to which stream, and what an error says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use digrap_bench::data::DATASETS;
use digrap_bench::graph::Graph;
use digrap_bench::model::{FAMILIES, text::PROMPTS};
use digrap_bench::score::METRICS;
use digrap_bench::train::METHODS;
use serde_json::{Value, json as json_value};

use crate::support::{easy_vqa, fixture, link, program_at};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_digrap-bench"))
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

/// One `error:` line and one `hint:` line on standard error, the given exit code, and no panic.
#[track_caller]
fn assert_fails(output: &Output, code: i32, message: &str) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert_eq!(errors.matches("error: ").count(), 1, "{errors}");
    assert!(errors.contains(message), "{errors}");
    assert!(errors.contains("hint: "), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn usage_errors_are_exit_code_2_and_leave_standard_output_alone() {
    for arguments in [vec![], vec!["evaluate"], vec!["doctor", "--fast"], vec!["list", "flags"]] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(text(&output.stderr).contains("--help"), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let version = run(&["--version"]);
    assert_eq!(text(&version.stdout), concat!("digrap-bench ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(text(&help.stdout).contains("Exit codes: 0 done; 1 a comparison fails; 2 wrong arguments or input"));
}

#[test]
fn doctor_finds_what_the_set_up_installed() {
    for arguments in [["doctor", "--json"], ["--json", "doctor"]] {
        let output = run(&arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report = json(&output);
        assert_eq!(report["ready"], true);
        let value = |name: &str| {
            let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
            assert_eq!(check["state"], "ok", "{check}");
            check["value"].as_str().unwrap().to_owned()
        };
        assert!(value("ONNX Runtime").starts_with("1."));
        assert!(value("providers").contains("CPUExecutionProvider"));
        assert!(value("linear algebra").contains("OpenBLAS"));
    }
    let plain = run(&["doctor"]);
    assert!(text(&plain.stdout).contains("ok       ONNX Runtime"));
}

/// The value of the line about ONNX Runtime.
fn runtime_line(output: &Output) -> String {
    let report = json(output);
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "ONNX Runtime").unwrap();
    check["value"].as_str().unwrap().to_owned()
}

#[test]
fn doctor_finds_python_packages_and_system_libraries_without_running_python() {
    let line = runtime_line(&run(&["doctor", "--json"]));
    let installed = Path::new(line.split_once(" at ").unwrap().1.rsplit_once(" (found by").unwrap().0);
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let place = |below: &str| {
        let place = home.join(below);
        fs::create_dir_all(&place).unwrap();
        std::os::unix::fs::symlink(installed, place.join(installed.file_name().unwrap())).unwrap();
    };
    let doctor = |variable: &str, value: &Path| {
        let mut command = program();
        for name in
            ["ORT_DYLIB_PATH", "XDG_CACHE_HOME", "XDG_DATA_HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PYENV_VERSION"]
        {
            command.env_remove(name);
        }
        command.env("PATH", "").env("HOME", home.join("nobody")).env(variable, value).args(["doctor", "--json"]);
        runtime_line(&command.output().unwrap())
    };
    place("venv/lib/python3.12/site-packages/onnxruntime/capi");
    assert!(doctor("VIRTUAL_ENV", &home.join("venv")).ends_with("(found by: Python package)"));
    place("user/.local/lib/python3.9/site-packages/onnxruntime/capi");
    assert!(doctor("HOME", &home.join("user")).ends_with("(found by: Python package)"));
    place("pyenv/versions/3.11.7/lib/python3.11/site-packages/onnxruntime/capi");
    fs::create_dir(home.join("pyenv/shims")).unwrap();
    fs::write(home.join("pyenv/shims/python3"), "#!/bin/sh\nexit 1\n").unwrap();
    fs::write(home.join("pyenv/version"), "3.11.7\n").unwrap();
    assert!(doctor("PATH", &home.join("pyenv/shims")).ends_with("(found by: Python package)"));
    place("libraries");
    assert!(doctor("LD_LIBRARY_PATH", &home.join("libraries")).ends_with("(found by: system)"));
}

#[test]
fn doctor_fails_with_the_way_out_where_there_is_no_usable_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let own = fs::read(env!("CARGO_BIN_EXE_digrap-bench")).unwrap();
    let cases = [
        (folder.path().join("absent.so"), "cannot find the ONNX Runtime library"),
        (folder.path().to_owned(), "cannot load the ONNX Runtime library"),
        (write("empty.so", b""), "cannot load the ONNX Runtime library"),
        (write("text.so", &[b'a'; 4096]), "cannot load the ONNX Runtime library"),
        (write("half.so", &own[..own.len() / 2]), "cannot load the ONNX Runtime library"),
        (write("program.so", &own), "cannot load the ONNX Runtime library"),
    ];
    for (library, reason) in cases {
        let output = program().args(["doctor", "--json"]).env("ORT_DYLIB_PATH", &library).output().unwrap();
        assert_fails(&output, 2, "error: this machine cannot run an evaluation: ONNX Runtime\n");
        let report = json(&output);
        assert_eq!(report["ready"], false);
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["state"] == "missing").unwrap();
        assert!(check["value"].as_str().unwrap().contains(reason), "{check}");
        assert!(check["hint"].as_str().unwrap().contains("make setup"), "{check}");
    }
}

#[test]
fn list_shows_every_row_of_every_registry() {
    let (plain, lists) = (run(&["list"]), json(&run(&["list", "--json"])));
    let names = |registry: &str| {
        let rows = lists[registry].as_array().unwrap();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("datasets"), DATASETS.iter().map(|row| row.name).collect::<Vec<_>>());
    assert_eq!(names("metrics"), METRICS.iter().map(|row| row.name).collect::<Vec<_>>());
    assert_eq!(names("models"), FAMILIES.iter().map(|row| row.name).collect::<Vec<_>>());
    assert_eq!(names("prompts"), PROMPTS.iter().map(|row| row.name).collect::<Vec<_>>());
    for name in ["datasets", "measures", "metrics", "models", "prompts"].iter().flat_map(|registry| names(registry)) {
        assert!(text(&plain.stdout).contains(&format!("  {name} ")), "{name}");
    }
    let facts = METRICS.iter().map(|row| ("source", row.source));
    let facts = facts.chain(DATASETS.iter().flat_map(|row| [("licence", row.licence), ("obtain", row.obtain)]));
    for (name, fact) in facts {
        let line = format!("{name}: {fact}");
        assert!(text(&plain.stdout).lines().any(|shown| shown.trim_start() == line), "{line}");
    }
    let one = json(&run(&["list", "metrics", "--json"]));
    assert_eq!(one.as_object().unwrap().keys().collect::<Vec<_>>(), ["metrics"]);
}

/// What can be set about a method is read off `list methods`, in a terminal of 120 columns.
#[test]
fn list_shows_the_settings_of_methods() {
    let (plain, lists) = (run(&["list", "methods"]), json(&run(&["list", "methods", "--json"])));
    let (plain, rows) = (text(&plain.stdout), lists["methods"].as_array().unwrap());
    assert_eq!(rows.len(), METHODS.len());
    assert!(plain.lines().all(|line| line.chars().count() <= 120), "{plain}");
    let mut rest = plain.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
    for (row, method) in rows.iter().zip(METHODS) {
        let mut described = format!("{} {}", method.name, method.about);
        if method.anchored {
            described.push_str(" holds an anchor (--anchor, --exclude)");
        }
        if let Some(strength) = method.strength {
            described.push_str(&format!(" its strength is {strength} (--match-id)"));
        }
        assert_eq!(row["anchored"], method.anchored);
        assert_eq!(row["strength"], serde_json::json!(method.strength));
        assert_eq!(row["settings"].as_array().unwrap().len(), method.settings.len());
        for (entry, setting) in row["settings"].as_array().unwrap().iter().zip(method.settings) {
            let (name, about, values) = (setting.name, setting.about, setting.values.to_string());
            let default = setting.values.default();
            assert_eq!(*entry, json_value!({"name": name, "about": about, "values": values, "default": default}));
            described.push_str(&format!(" {name}: {values} [default: {default}]; {about}"));
        }
        for (name, idle) in method.overrides {
            described.push_str(&format!(" {name} goes without {}", idle.join(", ")));
        }
        assert!(rest.starts_with(&described), "{described}\nbut\n{rest}");
        rest = rest.split_off(described.len()).trim_start().to_owned();
    }
    assert!(rest.is_empty(), "{rest}");
    let selection = |name: &str| &rows.iter().find(|row| row["name"] == name).unwrap()["selection"];
    assert_eq!(["digrap", "linear-probe", "partial-fusion"].map(selection), ["chosen", "head", "norms+head"]);
}

#[test]
fn a_closed_standard_output_is_quiet_and_a_full_one_is_an_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = program().arg("list").stdout(writer).output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    if let Ok(full) = fs::File::options().write(true).open("/dev/full") {
        let output = program().arg("list").stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).starts_with("error: cannot write the results to standard output\ncaused by: "));
    }
}

#[test]
fn a_home_that_is_not_set_is_an_error_with_a_hint() {
    let unset = ["HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"];
    let mut command = program();
    for name in unset {
        command.env_remove(name);
    }
    assert_fails(&command.arg("doctor").output().unwrap(), 2, "error: the environment variable HOME is not set");
}

/// A set of two questions with ten answers each, and these results.
fn score(folder: &Path, results: &str, more: &[&str]) -> Output {
    let answers = |given: [&str; 10]| {
        let answers = given.iter().zip(1..).map(|(answer, id)| serde_json::json!({"answer": answer, "answer_id": id}));
        answers.collect::<Vec<_>>()
    };
    let two_of_ten = ["2", "2", "3", "3", "3", "3", "3", "3", "3", "3"];
    let questions = [(1, "what colour?"), (2, "how many?")]
        .map(|(id, text)| serde_json::json!({"question_id": id, "image_id": id + 6, "question": text}));
    let annotations = [(1, answers(["red"; 10]), "other"), (2, answers(two_of_ten), "number")].map(|(id, answers, kind)| {
        serde_json::json!({"question_id": id, "image_id": id + 6, "answers": answers, "answer_type": kind, "question_type": "what"})
    });
    fs::write(folder.join("questions.json"), serde_json::json!({"questions": questions}).to_string()).unwrap();
    fs::write(folder.join("annotations.json"), serde_json::json!({"annotations": annotations}).to_string()).unwrap();
    fs::write(folder.join("results.json"), results).unwrap();
    let files = ["--questions", "questions.json", "--annotations", "annotations.json", "--results", "results.json"];
    program().current_dir(folder).arg("score").args(files).args(more).output().unwrap()
}

#[test]
fn score_prints_a_table_or_one_json_document() {
    let folder = tempfile::tempdir().unwrap();
    let results = r#"[{"question_id": 1, "answer": "red"}, {"question_id": 2, "answer": "2"}]"#;
    let output = score(folder.path(), results, &["--json", "--dict_equality"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let document = json(&output);
    // Two of ten: 0.6 on average over leaving each of the ten answers out, (2 * 1/3 + 8 * 2/3) / 10.
    assert_eq!(document["n"], 2);
    assert!((document["accuracy"].as_f64().unwrap() - 80.0).abs() < 1e-9, "{document}");
    for key in ["metric", "by_answer_type", "by_question_type", "interval"] {
        assert!(!document[key].is_null(), "{key}");
    }
    let plain = score(folder.path(), results, &[]);
    let expected = "\
| dataset   | answers | questions | n | accuracy % |  95 % interval |
|-----------|---------|-----------|--:|-----------:|---------------:|
| questions | all     | all       | 2 |      80.00 | 0.00 to 100.00 |
| questions | number  | all       | 1 |      60.00 |              - |
| questions | other   | all       | 1 |     100.00 |              - |
| questions | all     | what      | 2 |      80.00 | 0.00 to 100.00 |

Metric: official-2021. Intervals clustered by image, in the known sets of edits by the question that was edited (2 clusters).
";
    assert_eq!(text(&plain.stdout), expected);
}

#[test]
fn export_prints_a_table_or_one_json_document() {
    let folder = tempfile::tempdir().unwrap();
    let export = |more: &[&str]| {
        let mut command = program();
        command.current_dir(folder.path()).arg("export").arg("--model").arg(fixture("foreign/vit-dynamo-23.onnx"));
        command.args(["--gradients", "--loss", "cross-entropy:logits", "--output", "train.onnx"]).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        output
    };
    let document = json(&export(&["--json", "--wrt", "classifier.*", "vit.embeddings.cls_token"]));
    let names = ["vit.embeddings.cls_token", "classifier.weight", "classifier.bias"];
    let weights: Vec<&str> =
        document["weights"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(weights.len(), names.len());
    assert!(names.iter().all(|name| weights.contains(name)), "{weights:?}");
    assert_eq!(document["parameters"], 32 + 32 * 5 + 5);
    assert_eq!(document["inputs"], serde_json::json!(["pixel_values", "labels"]));
    assert_eq!(document["outputs"], serde_json::json!(["logits", "loss"]));
    let plain = text(&export(&[]).stdout).to_owned();
    assert!(
        plain.starts_with("| nodes | weights | parameters | constants | inputs               | outputs      |\n"),
        "{plain}"
    );
    assert!(plain.contains("| pixel_values, labels | logits, loss |\n"), "{plain}");
    let written = Graph::load(&folder.path().join("train.onnx")).unwrap();
    let gradients = written.outputs.iter().filter(|value| written.name_of(**value).starts_with("grad/")).count();
    assert_eq!(written.inputs.len(), gradients + 2);
}

#[test]
fn score_tells_wrong_from_incomplete_input() {
    let folder = tempfile::tempdir().unwrap();
    let one = r#"[{"question_id": 1, "answer": "red"}]"#;
    assert_fails(&score(folder.path(), one, &["--metric", "lavsi"]), 2, "error: unknown metric `lavsi`");
    let missing = score(folder.path(), one, &[]);
    assert_eq!(missing.status.code(), Some(3), "{}", text(&missing.stderr));
    let damaged = score(folder.path(), &one[..20], &[]);
    assert_eq!(damaged.status.code(), Some(2), "{}", text(&damaged.stderr));
    assert!(text(&damaged.stderr).contains("caused by: "), "{}", text(&damaged.stderr));
}

/// The questions left out for `--limit` are told in the table and in the document; a limit that leaves out none is not.
#[test]
fn a_limited_run_says_so() {
    let home = tempfile::tempdir().unwrap();
    let three = r#"[["what shape is in the image?","circle",0],["is there a circle?","no",0],["what color?","red",0]]"#;
    fs::create_dir_all(home.path().join("set/test/images")).unwrap();
    fs::write(home.path().join("set/test/questions.json"), three).unwrap();
    link(&easy_vqa().join("test/images/0.png"), &home.path().join("set/test/images/0.png"));
    for (limit, told) in [("2", Some(2)), ("3", None)] {
        let mut command = program_at(home.path());
        command.arg("vqa").arg("--model").arg(fixture("models/paligemma-easy-vqa"));
        command.args(["--dataset", "easy-vqa", "--root", "set", "--output", "output", "--json", "--limit", limit]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let document = json(&output);
        assert_eq!(document["limit"], Value::from(told));
        assert_eq!(document["evaluations"][0]["n"].to_string(), limit);
        let table = fs::read_to_string(home.path().join("output/table.md")).unwrap();
        assert_eq!(table.contains("\nFirst 2 questions only. Metric: "), told.is_some(), "{table}");
    }
}

/// A download that fails leaves nothing behind, so that the next run starts afresh.
#[test]
fn a_failed_set_up_leaves_nothing_half_done() {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let python = programs.join("python3");
    // Says that pip is there, and fails to download.
    fs::write(&python, "#!/bin/sh\ncase \"$*\" in *--version*) exit 0 ;; esac\nexit 1\n").unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let (cache, data) = (folder.path().join("cache"), folder.path().join("data"));
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("setup/setup.sh"))
        .env("PATH", path)
        .env("XDG_CACHE_HOME", &cache)
        .env("XDG_DATA_HOME", &data)
        .env_remove("ORT_DYLIB_PATH")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_fails(&output, 2, "error: could not download the package pinned in onnxruntime.txt");
    assert_eq!(fs::read_dir(cache.join("digrap-bench")).unwrap().count(), 0);
    assert!(!data.exists());
}
