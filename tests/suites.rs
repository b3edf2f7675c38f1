//! Suites: what manifests can have wrong, the columns and averages of their tables, and runs of a whole suite.

use std::fs;
use std::path::Path;
use std::process::Output;

use digrap_bench::error::Error;
use digrap_bench::suite::{SHIFTS, SUITES, Suite};
use serde_json::Value;

use crate::support::{fixture, link, program_at};

/// A manifest that is right.
const RIGHT: &str = r#"about = "Two sets"

[prompt]
evaluation = "question-answer"
training = "bare"
zero-shot = "answer-en"

[answer]
decode = "beam:3"
max-new-tokens = 7

[[dataset]]
name = "vqav2"
shift = "none"

[[dataset]]
name = "textvqa"
label = "Text"
shift = "far"
metric = "lavis"

[[dataset]]
name = "cv-vqa"
shift = "vision"

[[dataset]]
name = "vizwiz"
shift = "far"

[[group]]
name = "near"
members = ["cv-vqa"]

[[group]]
name = "all"
label = "avg."
members = ["near", "textvqa"]
"#;

/// Loads the manifest in a folder of its own; what goes wrong, with the folder left out.
fn load(files: &[(&str, &str)]) -> Result<Suite, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let told = |error: Error| {
        let hint = error.next_step().map_or_else(String::new, |hint| format!("; {hint}"));
        format!("{error}{hint}").replace(&format!("{}/", folder.path().display()), "")
    };
    Suite::load(folder.path().join(files[0].0).to_str().unwrap()).map_err(told)
}

#[test]
fn a_manifest_becomes_a_suite() {
    let suite = load(&[("own.toml", RIGHT)]).unwrap();
    assert_eq!((suite.name.as_str(), suite.about.as_str()), ("own", "Two sets"));
    let prompts = [suite.evaluation, suite.training, suite.zero_shot].map(|prompt| prompt.name);
    assert_eq!(prompts, ["question-answer", "bare", "answer-en"]);
    assert!(suite.decoding.strategy.to_string().starts_with("beam:3 ") && suite.decoding.max_new_tokens == 7);
    let metrics: Vec<&str> = suite.datasets.iter().map(|dataset| dataset.metric.name).collect();
    assert_eq!((metrics[1], suite.datasets[0].row.metric), ("lavis", metrics[0]));
    assert_eq!(suite.in_distribution().row.name, "vqav2");
    assert_eq!(suite.groups[1].datasets, ["cv-vqa", "textvqa"]);
    let columns = suite.columns();
    let columns: Vec<_> = columns.iter().map(|column| (column.label.as_str(), column.shift)).collect();
    let expected = [
        ("vqav2", Some("none")),
        ("cv-vqa", Some("vision")),
        ("near", None),
        ("Text", Some("far")),
        ("avg.", None),
        ("vizwiz", Some("far")),
    ];
    assert_eq!(columns, expected);
}

/// What is replaced in [`RIGHT`], by what, and what is then wrong.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "about = ",
        "abuot = ",
        "`own.toml`, line 1: unknown key `abuot`, expected one of `about`, `extends`, `metric`, `prompt`, `answer`, \
         `dataset`, `group`",
    ),
    (
        "training = \"bare\"",
        "trainnig = \"bare\"",
        "`own.toml`, line 5: unknown key `trainnig`, expected one of `evaluation`, `training`, `zero-shot`",
    ),
    ("training = \"bare\"\n", "", "`own.toml`, line 1: no `training` prompt is stated"),
    (
        "\"answer-en\"",
        "\"answer-eng\"",
        "`own.toml`, line 6: unknown prompt `answer-eng`; did you mean `answer-en`? known: bare, answer-en, \
         question-answer, question-short-answer",
    ),
    ("\"beam:3\"", "\"beam:0\"", "`own.toml`, line 9: "),
    ("max-new-tokens = 7", "max-new-tokens = 0", "`own.toml`, line 10: an answer has at least one token"),
    ("max-new-tokens = 7", "max-new-tokens = -1", "`own.toml`, line 10: invalid value: integer `-1`, expected usize"),
    ("\"vqav2\"", "\"vqa2\"", "`own.toml`, line 13: unknown dataset `vqa2`; did you mean `vqav2`? known: "),
    (
        "shift = \"vision\"",
        "shift = \"visual\"",
        "`own.toml`, line 24: unknown shift `visual`; known: none, vision, question, answer, \
         multimodal, adversarial, far",
    ),
    ("shift = \"vision\"\n", "", "`own.toml`, line 22: missing field `shift`"),
    ("\"lavis\"", "\"lvais\"", "`own.toml`, line 20: unknown metric `lvais`; did you mean `lavis`? known: "),
    ("\"textvqa\"\nlabel", "\"vqav2\"\nlabel", "`own.toml`, line 17: the dataset `vqav2` is named twice"),
    (
        "shift = \"none\"",
        "shift = \"far\"",
        "`own.toml`, line 13: no dataset has the shift `none`, so none is in distribution",
    ),
    (
        "shift = \"vision\"",
        "shift = \"none\"",
        "`own.toml`, line 23: a second dataset has no shift: only one is in distribution",
    ),
    ("name = \"all\"", "name = \"near\"", "`own.toml`, line 35: two datasets or groups are named `near`"),
    ("name = \"all\"", "name = \"vizwiz\"", "`own.toml`, line 35: two datasets or groups are named `vizwiz`"),
    ("[\"cv-vqa\"]", "[]", "`own.toml`, line 32: the group `near` is empty"),
    (
        "[\"near\", \"textvqa\"]",
        "[\"near\",\n\"ok-vqa\"]",
        "`own.toml`, line 38: unknown member `ok-vqa` of the group `all`; members are datasets and groups of the same \
         suite",
    ),
    ("[\"cv-vqa\"]", "[\"all\"]", "`own.toml`, line 37: the group `near` contains itself"),
    ("[\"cv-vqa\"]", "[\"near\"]", "`own.toml`, line 32: the group `near` contains itself"),
    ("\"textvqa\"]", "\"cv-vqa\"]", "`own.toml`, line 37: `cv-vqa` is in the group `all` twice"),
    (
        "[\"cv-vqa\"]",
        "[\"cv-vqa\",\n\"vqav2\"]",
        "`own.toml`, line 33: `vqav2` is in distribution, and the group `near` averages shifted sets; leave it out: it \
         has a column of its own",
    ),
    (
        "label = \"Text\"",
        "label = \"vqav2\"",
        "`own.toml`, line 18: two columns have the head `vqav2`; give one of them another `label`",
    ),
    (
        "\"Text\"",
        "\"cv-vqa\"",
        "`own.toml`, line 23: two columns have the head `cv-vqa`; give one of them another `label`",
    ),
    ("\"avg.\"", "\"Text\"", "`own.toml`, line 36: two columns have the head `Text`; give one of them another `label`"),
    ("\"avg.\"", "\"near\"", "`own.toml`, line 36: two columns have the head `near`; give one of them another `label`"),
    ("[[dataset]]", "[[dataset]", "`own.toml`, line 12: "),
];

#[test]
fn what_is_wrong_with_a_manifest_is_told_with_its_line() {
    for (from, to, expected) in WRONG {
        assert!(RIGHT.contains(from), "{from}");
        let told = load(&[("own.toml", &RIGHT.replacen(from, to, 1))]).unwrap_err();
        let whole = !expected.ends_with([' ', ':']);
        assert!(
            if whole { told == *expected } else { told.starts_with(expected) },
            "{from} -> {to}:\n{told}\n{expected}"
        );
    }
    let told = load(&[("own.toml", "about = \"nothing\"")]).unwrap_err();
    assert_eq!(told, "`own.toml`, line 1: no dataset is stated");
}

#[test]
fn a_suite_extends_another() {
    let base = ("base.toml", RIGHT);
    let own = "extends = \"base.toml\"\nmetric = \"simple\"\n[prompt]\nevaluation = \"bare\"\n";
    let suite = load(&[("own.toml", own), base]).unwrap();
    let prompts = [suite.evaluation, suite.zero_shot].map(|prompt| prompt.name);
    assert_eq!((prompts, suite.name.as_str(), suite.about.as_str()), (["bare", "answer-en"], "own", "Two sets"));
    // The metric of a dataset is nearer to it than that for all.
    let metrics: Vec<&str> = suite.datasets.iter().map(|dataset| dataset.metric.name).collect();
    assert_eq!(metrics, ["simple", "lavis", "simple", "simple"]);
    let known = load(&[("own.toml", "extends = \"vqa\"\n[[group]]\nname = \"one\"\nmembers = [\"advqa\"]")]).unwrap();
    assert_eq!((known.datasets.len(), known.groups.len()), (10, 1));
    let told = load(&[("own.toml", "\nextends = \"vqa2\"")]).unwrap_err();
    let expected = "`own.toml`, line 2: unknown suite `vqa2`; did you mean `vqa`? known: vqa, vqa-parity, miniature; \
                    or give a file that ends in .toml";
    assert_eq!(told, expected);
    let told = load(&[("own.toml", "extends = \"other.toml\"")]).unwrap_err();
    assert_eq!(told, "`own.toml`, line 1: cannot read the suite `other.toml`");
    let told = load(&[("own.toml", own), ("base.toml", &RIGHT.replace("\"far\"", "\"fra\""))]).unwrap_err();
    assert!(told.starts_with("`base.toml`, line 19: unknown shift `fra`"), "{told}");
}

#[test]
fn a_suite_that_extends_itself_is_refused() {
    let told = load(&[("own.toml", "extends = \"own.toml\"")]).unwrap_err();
    assert_eq!(told, "`own.toml`, line 1: `own.toml` extends itself this way");
    let told = load(&[("own.toml", "extends = \"b.toml\""), ("b.toml", "\nextends = \"./own.toml\"")]).unwrap_err();
    assert_eq!(told, "`b.toml`, line 2: `./own.toml` extends itself this way");
}

#[test]
fn every_known_suite_has_the_columns_of_the_paper() {
    for known in SUITES {
        let suite = Suite::load(known.name).unwrap();
        assert!(!suite.about.is_empty());
        let columns = suite.columns();
        let shifts: Vec<&str> = columns.iter().map(|column| column.shift.unwrap_or("average")).collect();
        let expected = "none vision vision question answer multimodal adversarial average far far far average average";
        assert_eq!(shifts.join(" "), expected, "{}", known.name);
        let averaged: Vec<usize> = [7, 11, 12].map(|column: usize| columns[column].average_of.len()).into();
        assert_eq!(averaged, [6, 3, 9]);
    }
    let used =
        |shift: &str| SUITES.iter().all(|suite| suite.manifest.contains(shift) || suite.manifest.contains("extends"));
    assert!(SHIFTS.iter().all(|shift| used(shift.name)));
    let parity = Suite::load("vqa-parity").unwrap();
    assert!(parity.datasets.iter().all(|dataset| dataset.metric.name == "lavis"));
    assert_eq!((parity.evaluation.name, parity.training.name), ("question-answer", "bare"));
    let official = Suite::load("vqa").unwrap();
    assert!(official.datasets.iter().all(|dataset| dataset.metric.name == dataset.row.metric));
}

/// Runs the program on the invented datasets below `fixtures/datasets`.
fn program(home: &Path, arguments: &[&str]) -> Output {
    let root = fixture("datasets");
    program_at(home).args(arguments).args(["--threads", "1", "--root"]).arg(root).output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn one_command_evaluates_a_whole_suite() {
    let home = tempfile::tempdir().unwrap();
    let (base, tuned) = (fixture("models/paligemma-tiny-a"), fixture("models/paligemma-easy-vqa"));
    let [base, tuned] = [&base, &tuned].map(|folder| folder.to_str().unwrap());
    let arguments = ["vqa", "--suite", "vqa", "--model", tuned, "--zero-shot", base, "--output", "out", "--json"];
    let output = program(home.path(), &arguments);
    assert!(output.status.success(), "{}", said(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    let evaluations = run["evaluations"].as_array().unwrap();
    assert_eq!(evaluations.len(), 20);
    let of = |model: &str, dataset: &str| {
        evaluations.iter().find(|one| one["model"] == model && one["dataset"] == dataset).unwrap()
    };
    let rows = run["suite"]["rows"].as_array().unwrap();
    let models: Vec<_> = rows.iter().map(|row| (row["model"].as_str().unwrap(), row["zero_shot"].as_bool())).collect();
    assert_eq!(models, [("paligemma-tiny-a", Some(true)), ("paligemma-easy-vqa", Some(false))]);
    for ((model, _), row) in models.iter().zip(rows) {
        let accuracy = |dataset: &&str| of(model, dataset)["accuracy"].as_f64().unwrap();
        let near = ["iv-vqa", "cv-vqa", "vqa-rephrasings", "vqa-cp-v2", "vqa-ce", "advqa"];
        let far = ["textvqa", "vizwiz", "ok-vqa"];
        let mean = |datasets: &[&str]| datasets.iter().map(accuracy).sum::<f64>() / datasets.len() as f64;
        let near_cells = near.iter().map(accuracy).chain([mean(&near)]);
        let far_cells = far.iter().map(accuracy).chain([mean(&far), mean(&[&near[..], &far].concat())]);
        let expected: Vec<f64> = std::iter::once(accuracy(&"vqav2")).chain(near_cells).chain(far_cells).collect();
        let cells: Vec<f64> = row["cells"].as_array().unwrap().iter().map(|cell| cell.as_f64().unwrap()).collect();
        assert!(cells.iter().zip(&expected).all(|(cell, expected)| (cell - expected).abs() < 1e-9), "{model}");
        assert_eq!(cells.len(), expected.len());
    }
    assert_eq!(of("paligemma-tiny-a", "vqav2")["settings"]["prompt"], "answer en {q}");
    assert_eq!(of("paligemma-easy-vqa", "vqav2")["settings"]["prompt"], "{q}");
    for (dataset, measure, figure) in [
        ("iv-vqa", "flips", "flips"),
        ("cv-vqa", "count-flips", "not an integer"),
        ("vqa-rephrasings", "consensus", "CS(4)"),
        ("vqa-cp-v2", "seen-images", "accuracy val2014"),
        ("vqa-ce", "shortcuts", "accuracy easy"),
        ("vizwiz", "unanswerability", "F1"),
    ] {
        let measured = &of("paligemma-easy-vqa", dataset)["measures"][0];
        assert_eq!((&measured["measure"], &measured["missing"]), (&measure.into(), &Value::Null));
        let figures = measured["figures"].as_array().unwrap();
        let found = figures.iter().find(|one| one["name"] == figure).unwrap_or_else(|| panic!("{dataset}: {measured}"));
        assert!(found["n"].as_u64().unwrap() > 0 && found["value"].is_f64(), "{dataset}: {found}");
    }
    let table = fs::read_to_string(home.path().join("out/table.md")).unwrap();
    let first: Vec<&str> = table.lines().take(3).collect();
    assert!(first[0].starts_with("| model ") && first[0].contains("| near avg. |"), "{table}");
    assert!(first[2].starts_with("| shift ") && first[2].contains("| adversarial |"), "{table}");
    assert!(table.lines().take_while(|line| !line.contains("| dataset")).all(|line| line.chars().count() <= 120));
    assert!(table.contains("\n| paligemma-tiny-a (zero-shot) |"), "{table}");
    assert!(table.contains("Prompt: `{q}`. Zero-shot prompt: `answer en {q}`. Decoding: greedy."), "{table}");
}

#[test]
fn what_is_given_by_hand_is_told() {
    let home = tempfile::tempdir().unwrap();
    let manifest = RIGHT.replace("[[dataset]]\nname = \"cv-vqa\"", "[[dataset]]\nname = \"advqa\"");
    fs::write(home.path().join("own.toml"), manifest.replace("[\"cv-vqa\"]", "[\"advqa\"]")).unwrap();
    let model = fixture("models/paligemma-easy-vqa");
    let given = ["--metric", "simple", "--prompt", "bare", "--decode", "greedy", "--limit", "3"];
    let arguments = [&["vqa", "--suite", "own.toml", "--model", model.to_str().unwrap()], &given[..]].concat();
    let output = program(home.path(), &arguments);
    let table = said(&output.stdout);
    assert!(output.status.success(), "{}", said(&output.stderr));
    let told = "Not as the suite says, but by hand: --prompt bare, --metric simple, --decode greedy.";
    assert!(table.contains(told) && table.contains("Suite: own."), "{table}");
    assert!(table.contains("First 3 questions only. Metric: simple. Prompt: `{q}`. Decoding: greedy."), "{table}");
}

#[test]
fn datasets_that_are_missing_are_listed_before_anything_runs() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("data")).unwrap();
    for name in ["vqav2", "advqa", "coco"] {
        link_folder(&fixture("datasets").join(name), &home.path().join("data").join(name));
    }
    let arguments = ["vqa", "--suite", "vqa", "--model", "no-such-model", "--root", "data"];
    let output = program_at(home.path()).args(arguments).output().unwrap();
    let told = said(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    let first = "error: 8 of the 10 datasets of the suite `vqa` are not in `data`: iv-vqa, cv-vqa, vqa-rephrasings, \
                 vqa-cp-v2, vqa-ce, textvqa, vizwiz, ok-vqa\nhint: get each one (`fetch NAME --part evaluation` \
                 leaves out what is for training alone):\n  iv-vqa: ";
    assert!(told.starts_with(first), "{told}");
    assert_eq!(told.lines().count(), 10, "{told}");
}

fn link_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { link_folder(&entry.path(), &target) } else { link(&entry.path(), &target) }
    }
}

#[test]
fn training_on_a_suite_takes_its_set_in_distribution_and_its_prompt() {
    let home = tempfile::tempdir().unwrap();
    let model = fixture("models/paligemma-tiny-a");
    let arguments = ["train", "--suite", "vqa-parity", "--output", "run", "--max-steps", "1", "--batch-size", "2"];
    let more = ["--validation", "none", "--json", "--model", model.to_str().unwrap()];
    let output = program(home.path(), &[&arguments[..], &more].concat());
    assert!(output.status.success(), "{}", said(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["training_questions"].as_u64().unwrap() >= 8, "{report}");
    let settings = fs::read_to_string(home.path().join("run/settings.json")).unwrap();
    assert!(settings.contains("\"prompt\": \"{q}\""), "{settings}");
}
