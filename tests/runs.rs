//! Stored runs: stores brought together, shards folded, answers exported and read back, damaged stores saved.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use digrap_bench::store::{
    AnswerSettings, CurvePoint, Distances, Fold, Folded, Maker, QuestionSet, Removal, Store, StoredAnswer,
    StoredDistances, StoredModel, Tally, fold_into,
};
use serde_json::{Value, json};

use crate::migrations::old_store;
use crate::support::{answer_settings, distance_settings, fixture, program_at};

fn settings(prompt: &str) -> AnswerSettings {
    AnswerSettings { prompt: prompt.to_owned(), ..answer_settings() }
}

fn answers(numbers: std::ops::Range<usize>) -> Vec<StoredAnswer> {
    let answer = |number: usize| StoredAnswer {
        question_id: number.to_string(),
        image_id: format!("\"image {}\"", number / 3),
        content: u64::MAX - number as u64,
        answer: format!("answer {number}"),
    };
    numbers.map(answer).collect()
}

/// A store with some of a model's answers to 100 questions, a distance and a curve.
fn store(folder: &Path, name: &str, numbers: std::ops::Range<usize>) -> PathBuf {
    let path = folder.join(name);
    let mut store = Store::open(&path).unwrap();
    let id = store.settings(&settings("{q}")).unwrap();
    let set = QuestionSet { dataset: "vqa".into(), digest: "digest".into(), n: 100 };
    store.record_questions(id, &set).unwrap();
    store.commit(id, "vqa", &answers(numbers.clone())).unwrap();
    let distances = store.distance_settings(&distance_settings(&answer_settings().weights)).unwrap();
    let measured = StoredDistances {
        question_id: numbers.start.to_string(),
        image_id: "1".into(),
        content: 5,
        distances: Distances { vision: Some(0.1 + 0.2), ..Distances::default() },
    };
    store.commit_distances(distances, "vqa", &[measured]).unwrap();
    store
        .record_model(&StoredModel {
            name: "tuned".into(),
            weights: "0123456789abcdef c".into(),
            training: Some(r#"{"method":"digrap","subject":{"seed":3}}"#.into()),
            made_by: Some(Maker { version: "0.1.0".into(), commit: None, command: format!("vqa --store {name}") }),
            zero_shot: false,
            selected_on_reported: false,
            answers: Some(id),
            distances: Some(distances),
        })
        .unwrap();
    let run = store.training_run(r#"{"method":"digrap","steps":9,"subject":{"seed":3}}"#).unwrap();
    let point = |series: &str, step, value| CurvePoint { series: series.into(), step, value };
    store.record_curve(run, &[point("loss", 1, 0.5), point("loss", 2, 0.25), point("validation", 2, 61.5)]).unwrap();
    path
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program_at(folder).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

#[track_caller]
fn refused(folder: &Path, arguments: &[&str], code: i32, message: &str) {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    let told = text(&output.stderr).replace(&format!("{}/", folder.canonicalize().unwrap().display()), "");
    let told = told.replace(&format!("{}/", folder.display()), "");
    assert!(told.contains(message), "{arguments:?}: {told}\nlacks {message}");
    assert!(told.contains("hint: "), "{told}");
}

fn listed(folder: &Path, store: &str) -> Value {
    let document: Value = serde_json::from_str(&done(folder, &["runs", "list", "--json", "--store", store])).unwrap();
    document["stores"][0].clone()
}

#[test]
fn stores_are_folded_once_however_often() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = [store(folder.path(), "one", 0..60), store(folder.path(), "two", 40..100)];
    let mut whole = Store::open(folder.path().join("whole")).unwrap();
    let mut fold = |path: &Path| {
        let source = Store::open_to_read(path).unwrap();
        whole.fold(&mut |fold| fold.store(&source)).unwrap()
    };
    let tally = |new, known| Tally { new, known };
    let first = Folded { models: tally(1, 0), answers: tally(60, 0), distances: tally(1, 0), points: tally(3, 0) };
    assert_eq!(fold(&one), first);
    let second = Folded { models: tally(0, 1), answers: tally(40, 20), distances: tally(1, 0), points: tally(0, 3) };
    assert_eq!(fold(&two), second);
    let again = Folded { models: tally(0, 1), answers: tally(0, 60), distances: tally(0, 1), points: tally(0, 3) };
    assert_eq!(fold(&one), again);
    let model = &whole.models().unwrap()[0];
    let mut found = Vec::new();
    whole
        .for_each_answer(model.answers.unwrap(), "vqa", |question, image, content, answer| {
            let (question_id, image_id, answer) = (question.to_owned(), image.to_owned(), answer.to_owned());
            found.push(StoredAnswer { question_id, image_id, content, answer });
            Ok(())
        })
        .unwrap();
    found.sort_by_key(|answer| answer.question_id.parse::<usize>().unwrap());
    assert_eq!(found, answers(0..100));
    let distances = whole.distances(model.distances.unwrap(), "vqa", "40", "1").unwrap().unwrap();
    assert_eq!(distances, (5, Distances { vision: Some(0.1 + 0.2), ..Distances::default() }));
    let (run, _) = whole.training_runs().unwrap()[0];
    assert_eq!(whole.curve(run, "loss").unwrap(), [(1, 0.5), (2, 0.25)]);
    assert_eq!(whole.question_sets(model.answers.unwrap()).unwrap()[0].n, 100);
}

/// What differs under one key stops the import, and nothing of it stays.
#[test]
fn conflicts_stop_an_import() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), "one", 0..60);
    let change = |name: &str, change: &dyn Fn(&mut Store, StoredModel)| {
        let mut store = Store::open(store(folder.path(), name, 50..100)).unwrap();
        let model = store.models().unwrap()[0].clone();
        change(&mut store, model);
    };
    change("answers", &|store, model| {
        let mut other = answers(55..58);
        other.iter_mut().for_each(|answer| answer.answer = "other".into());
        store.commit(model.answers.unwrap(), "vqa", &other).unwrap();
    });
    change("weights", &|store, model| store.record_model(&StoredModel { weights: "ff c".into(), ..model }).unwrap());
    change("prompt", &|store, model| {
        let answers = Some(store.settings(&settings("answer en {q}")).unwrap());
        store.record_model(&StoredModel { answers, ..model }).unwrap();
    });
    change("zero-shot", &|store, model| store.record_model(&StoredModel { zero_shot: true, ..model }).unwrap());
    change("measured", &|store, model| {
        let distances = Some(store.distance_settings(&distance_settings("ff")).unwrap());
        store.record_model(&StoredModel { distances, ..model }).unwrap();
    });
    change("distances", &|store, model| {
        let distances = Distances { vision: Some(0.5), ..Distances::default() };
        let other = StoredDistances { question_id: "0".into(), image_id: "1".into(), content: 5, distances };
        store.commit_distances(model.distances.unwrap(), "vqa", &[other]).unwrap();
    });
    change("wording", &|store, model| {
        let other = answers(55..56).into_iter().map(|answer| StoredAnswer { content: 5, ..answer });
        store.commit(model.answers.unwrap(), "vqa", &other.collect::<Vec<_>>()).unwrap();
    });
    change("curve", &|store, _| {
        let (run, _) = store.training_runs().unwrap()[0];
        store.record_curve(run, &[CurvePoint { series: "loss".into(), step: 2, value: 0.5 }]).unwrap();
    });
    let cases = [
        (
            "answers",
            "3 conflicts, the first: question 55 about image \"image 18\" of `vqa` has the answer `answer 55`, and \
             `other` in `answers`",
        ),
        ("weights", "nothing was imported into `whole`: the model `tuned` of `weights` has other weights\n"),
        ("prompt", "the model `tuned` of `prompt` answered under other settings (prompt)\n"),
        ("zero-shot", "the model `tuned` of `zero-shot` is marked as zero-shot on one side alone\n"),
        ("measured", "the model `tuned` of `measured` was measured under other settings (features)\n"),
        ("distances", "question 0 about image 1 of `vqa` has other distances in `distances`\n"),
        ("distances", ": `digrap-bench runs rm tuned --store distances`\n"),
        (
            "wording",
            "question 55 about image \"image 18\" of `vqa` has the same answer to another wording in `wording`\n",
        ),
        ("curve", "`loss` at step 2 of a training run is 0.25, and 0.5 in training:1 of `curve`\n"),
        ("curve", "`digrap-bench runs rm training:1 --store curve`\n"),
        ("answers", "`digrap-bench runs rm tuned --store answers`\n"),
    ];
    for (name, message) in cases {
        refused(folder.path(), &["runs", "import", "one", name, "--store", "whole"], 3, message);
        assert!(!folder.path().join("whole").exists(), "{name} left a store");
    }
    done(folder.path(), &["runs", "import", "one", "--store", "whole"]);
    let before = listed(folder.path(), "whole");
    refused(folder.path(), &["runs", "import", "answers", "--store", "whole"], 3, "3 conflicts");
    assert_eq!(listed(folder.path(), "whole"), before);
}

#[test]
fn an_import_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), "one", 0..60);
    store(folder.path(), "two", 60..100);
    let told = done(folder.path(), &["runs", "import", "one", "--store", "whole"]);
    let expected = "imported: 1 model, 60 answers, 1 question's distances, 3 points of curves\n\
                    tuned on vqa: 60 of 100, incomplete\n";
    assert_eq!(told, expected);
    let incomplete = ["runs", "import", "one", "--store", "whole", "--complete"];
    refused(
        folder.path(),
        &incomplete,
        3,
        "1 of 1 sets of questions are not known to be complete: tuned on vqa (incomplete)",
    );
    let complete = ["runs", "import", "two", "--store", "whole", "--complete", "--json"];
    let document: Value = serde_json::from_str(&done(folder.path(), &complete)).unwrap();
    assert_eq!(document["imported"]["answers"], json!({"new": 40, "known": 0}));
    let row = json!({"model": "tuned", "dataset": "vqa", "answers": 100, "n": 100, "complete": true,
        "state": "complete"});
    assert_eq!(document["completeness"], json!([row]));
    refused(folder.path(), &["runs", "import", "one", "--store", "one"], 2, "`one` is the store to import into");
}

/// Stores of every version come together, and their own files stay as they are.
#[test]
fn old_stores_are_imported_as_copies() {
    let folder = tempfile::tempdir().unwrap();
    for version in 1..=3 {
        let path = old_store(folder.path(), version);
        let before = fs::read(&path).unwrap();
        let whole = format!("whole-{version}");
        done(folder.path(), &["runs", "import", path.to_str().unwrap(), "--store", &whole]);
        assert_eq!(fs::read(&path).unwrap(), before, "version {version} has changed");
        let listing = listed(folder.path(), &whole);
        assert_eq!(listing["models"][0]["datasets"][0]["answers"], 2, "{listing}");
        assert_eq!(listing["models"][0]["datasets"][0]["n"], Value::Null);
        assert_eq!(listing["training_runs"].as_array().unwrap().len(), usize::from(version >= 2));
    }
}

#[test]
fn every_verb_refuses_a_store_of_a_newer_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = store(folder.path(), "new", 0..10);
    // `user_version` in the file format.
    let mut bytes = fs::read(&path).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    std::os::unix::fs::symlink(fixture("models/miniature-pt"), folder.path().join("model")).unwrap();
    let train = ["train", "--model", "model", "--suite", "miniature", "--max-steps", "1", "--output", "run"];
    let verbs: [&[&str]; 13] = [
        &["runs", "list", "--store", "new"],
        &["runs", "list", "--check", "--store", "new"],
        &["runs", "show", "tuned", "--store", "new"],
        &["runs", "rm", "tuned", "--store", "new"],
        &["runs", "export", "--store", "new", "--format", "jsonl", "--output", "x", "--rescue"],
        &["runs", "export", "--store", "new", "--format", "mlflow", "--output", "x"],
        &["runs", "import", "new", "--store", "whole"],
        &["figures", "--store", "new", "--suite", "miniature", "--output", "page"],
        &["leaderboard", "--store", "new", "--suite", "miniature"],
        &["compare", "--baseline", "new", "--current", "new", "--suite", "miniature"],
        &["compare", "--baseline", "new", "--current", "new", "--suite", "miniature", "--bless"],
        &["vqa", "--model", "model", "--suite", "miniature", "--limit", "1", "--store", "new"],
        &[&train[..], &["--store", "new"]].concat(),
    ];
    for arguments in verbs {
        refused(folder.path(), arguments, 2, "the store `new` has version 99, this program reads up to version 4");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{arguments:?}");
    }
    assert!(!folder.path().join("x").exists() && !folder.path().join("whole").exists());
}

#[test]
fn runs_are_listed_shown_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = store(folder.path(), "one", 0..60);
    {
        // A second model that shares the answers, and a run that was stopped.
        let mut store = Store::open(&path).unwrap();
        let model = store.models().unwrap()[0].clone();
        store.record_model(&StoredModel { name: "twin".into(), zero_shot: true, distances: None, ..model }).unwrap();
        let id = store.settings(&settings("stopped {q}")).unwrap();
        store.commit(id, "vqa", &answers(0..7)).unwrap();
    }
    let plain = done(folder.path(), &["runs", "list", "--check", "--store", "one"]);
    let expected = "\
| model     | zero-shot | weights and use | method | seed | prompt        | decoding | dtype | dataset | answers | asked | state      | distances |
|-----------|-----------|-----------------|--------|-----:|---------------|----------|-------|---------|--------:|------:|------------|----------:|
| tuned     | no        | 0123456789ab c  | digrap |    3 | `{q}`         | greedy   | f32   | vqa     |      60 |   100 | incomplete |         1 |
| twin      | yes       | 0123456789ab c  | digrap |    3 | `{q}`         | greedy   | f32   | vqa     |      60 |   100 | incomplete |         0 |
| answers:2 | -         | 0123456789ab c  | -      |    - | `stopped {q}` | greedy   | f32   | vqa     |       7 |     - | unknown    |         0 |

| training run | method | seed | steps | of | last loss | last validation |
|--------------|--------|-----:|------:|---:|----------:|----------------:|
| training:1   | digrap |    3 |     2 |  9 |    0.2500 |           61.50 |

Every page is whole.
";
    assert_eq!(plain, expected);
    let page = done(folder.path(), &["runs", "show", "tuned", "--store", "one"]);
    for line in ["weights: 0123456789abcdef c", "seed: 3", "  max_new_tokens: 20", "  reference.dataset: train"] {
        assert!(page.lines().any(|shown| shown == line), "{page}\nlacks {line}");
    }
    assert!(page.contains("| digest "), "{page}");
    let page = done(folder.path(), &["runs", "show", "training:1", "--store", "one"]);
    assert!(page.contains("  subject.seed: 3\n"), "{page}");
    let page = done(folder.path(), &["runs", "show", "answers:2", "--store", "one", "--check"]);
    assert!(page.starts_with("answers:2, which no model has\n") && page.contains("  prompt: stopped {q}\n"), "{page}");
    let told = done(folder.path(), &["runs", "rm", "twin", "training:1", "--store", "one"]);
    assert_eq!(told, "removed from `one`: 1 model, 1 training run, 3 points of curves\n");
    let unknown = ["runs", "rm", "tuned", "twin", "--store", "one"];
    refused(folder.path(), &unknown, 2, "the store `one` has neither a model nor a training run `twin`");
    let told = done(folder.path(), &["runs", "rm", "tuned", "--store", "one"]);
    assert_eq!(told, "removed from `one`: 1 model, 60 answers, 1 question's distances\n");
    let left = listed(folder.path(), "one");
    assert_eq!(left["models"].as_array().unwrap().len(), 1, "{left}");
    assert_eq!(left["models"][0]["datasets"][0]["answers"], 7);
    assert_eq!(left["training_runs"], json!([]));
    let gone = ["runs", "rm", "answers:1", "--store", "one"];
    refused(folder.path(), &gone, 2, "the store `one` has neither a model nor a training run `answers:1`");
    let told = done(folder.path(), &["runs", "rm", "answers:2", "--store", "one"]);
    assert_eq!(told, "removed from `one`: 7 answers\n");
    assert_eq!(listed(folder.path(), "one")["models"], json!([]));
    // What is left are numbers of settings, which are neither exported nor imported.
    done(folder.path(), &["runs", "export", "--store", "one", "--format", "jsonl", "--output", "left.jsonl"]);
    let head: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("left.jsonl")).unwrap()).unwrap();
    assert_eq!(head["digrap-bench"]["settings"], json!({}));
    let told = done(folder.path(), &["runs", "import", "one", "--store", "empty"]);
    assert_eq!(told, "imported: nothing, since nothing is stored there\n");
    refused(folder.path(), &["runs", "rm", "tuned", "--store", "none"], 2, "there is no store `none`");
    assert!(!folder.path().join("none").exists());
}

/// Exported answers are a store's answers: the same bytes again, whatever order they came in.
#[test]
fn exported_answers_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), "one", 0..60);
    store(folder.path(), "two", 60..100);
    let export = |store: &str, output: &str| {
        done(folder.path(), &["runs", "export", "--store", store, "--format", "jsonl", "--output", output]);
        fs::read_to_string(folder.path().join(output)).unwrap()
    };
    done(folder.path(), &["runs", "import", "one", "two", "--store", "whole"]);
    done(folder.path(), &["runs", "import", "two", "one", "--store", "turned"]);
    let whole = export("whole", "whole.jsonl");
    assert_eq!(export("turned", "turned.jsonl"), whole);
    export("one", "one.jsonl");
    done(folder.path(), &["runs", "import", "one.jsonl", "two", "--store", "mixed", "--complete"]);
    assert_eq!(export("mixed", "mixed.jsonl"), whole);
    assert_eq!(whole.lines().count(), 101);
    let line: Value = serde_json::from_str(whole.lines().nth(1).unwrap()).unwrap();
    let first = json!({"model": "tuned", "settings": 1, "dataset": "vqa", "question_id": 0, "image_id": "image 0",
        "answer": "answer 0", "content": "ffffffffffffffff"});
    assert_eq!(line, first);
    // A conflict with a file is told as one with a store.
    let changed = whole.replace("\"answer 7\"", "\"answer of another\"");
    fs::write(folder.path().join("changed.jsonl"), changed).unwrap();
    let arguments = ["runs", "import", "changed.jsonl", "--store", "mixed"];
    refused(folder.path(), &arguments, 3, "question 7 about image \"image 2\" of `vqa` has the answer `answer 7`");
}

/// What is read is never what is written, under whatever name.
#[test]
fn an_export_does_not_replace_its_store() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), "one", 0..60);
    std::os::unix::fs::symlink("one", folder.path().join("link")).unwrap();
    std::os::unix::fs::symlink("one-wal", folder.path().join("link-wal")).unwrap();
    fs::create_dir_all(folder.path().join("logs/1-digrap")).unwrap();
    let event_file = "logs/1-digrap/events.out.tfevents.0.digrap-bench";
    std::os::unix::fs::symlink("../../one", folder.path().join(event_file)).unwrap();
    let before = fs::read(folder.path().join("one")).unwrap();
    let is_store = "is the store that is exported\n";
    let belongs = "belongs to the store that is exported\n";
    let cases: [(&str, &str, &[&str], &str); 8] = [
        ("one", "one", &[], is_store),
        ("link", "one", &[], is_store),
        ("one", "link", &[], is_store),
        ("one", "./link", &["--rescue"], is_store),
        ("one", "one-wal", &[], belongs),
        ("link", "one-journal", &["--rescue"], belongs),
        ("one", "link-wal", &[], belongs),
        ("one", "one", &["--suite", "miniature"], is_store),
    ];
    for (store, output, more, message) in cases {
        let export = ["runs", "export", "--store", store, "--format", "jsonl", "--output", output];
        refused(folder.path(), &[&export[..], more].concat(), 2, &format!("`{output}` {message}"));
    }
    let logs = ["runs", "export", "--store", "link", "--format", "tensorboard", "--output", "logs"];
    refused(folder.path(), &logs, 2, &format!("`{event_file}` {is_store}"));
    assert_eq!(fs::read(folder.path().join("one")).unwrap(), before);
    for name in ["one-wal", "one-journal"] {
        assert!(!folder.path().join(name).exists(), "{name} was written");
    }
    // Other files may lie in the store's folder, also through a link.
    done(folder.path(), &["runs", "export", "--store", "one", "--format", "mlflow", "--output", "."]);
}

/// The hint on a conflict is a command that can be typed, where one takes something out.
#[test]
fn the_way_out_of_a_conflict_can_be_typed() {
    let folder = tempfile::tempdir().unwrap();
    let model = |path: &Path, name: &str, weights: &str| {
        let mut store = Store::open(path).unwrap();
        let model = store.models().unwrap()[0].clone();
        store.record_model(&StoredModel { name: name.into(), weights: weights.into(), ..model }).unwrap();
    };
    model(&store(folder.path(), "one", 0..60), "a tuned one", "aa c");
    model(&store(folder.path(), "the other's", 0..60), "a tuned one", "bb c");
    let rm = |store: &str| format!("first: `digrap-bench runs rm 'a tuned one' --store {store}`\n");
    // The path is quoted with its folder, which `refused` leaves out.
    let output = run(folder.path(), &["runs", "import", "the other's", "--store", "one"]);
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr);
    assert!(told.contains("first: `digrap-bench runs rm 'a tuned one' --store '/"), "{told}");
    assert!(
        told.ends_with(
            r"/the other'\''s'`
"
        ),
        "{told}"
    );
    done(folder.path(), &["runs", "export", "--store", "the other's", "--format", "jsonl", "--output", "other.jsonl"]);
    done(folder.path(), &["runs", "export", "--store", "one", "--format", "jsonl", "--output", "one.jsonl"]);
    // Nothing can be taken out of a file, nor of a store that was not there before.
    refused(folder.path(), &["runs", "import", "other.jsonl", "--store", "one"], 3, &rm("one"));
    let both = ["runs", "import", "one.jsonl", "other.jsonl", "--store", "new"];
    refused(folder.path(), &both, 3, "a store of its own, or leave out one of the files that differ\n");
    done(folder.path(), &["runs", "rm", "a tuned one", "--store", "one"]);
    done(folder.path(), &["runs", "import", "other.jsonl", "--store", "one"]);
}

/// What reads makes no store of a file without content; what writes may.
#[test]
fn an_empty_file_is_no_store_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    let verbs: [&[&str]; 9] = [
        &["runs", "list", "--store", "empty"],
        &["runs", "list", "--check", "--store", "empty"],
        &["runs", "show", "tuned", "--store", "empty"],
        &["runs", "rm", "tuned", "--store", "empty"],
        &["runs", "export", "--store", "empty", "--format", "jsonl", "--output", "x"],
        &["runs", "export", "--store", "empty", "--format", "jsonl", "--output", "x", "--rescue"],
        &["runs", "import", "empty", "--store", "whole"],
        &["leaderboard", "--store", "empty", "--suite", "miniature"],
        &["compare", "--baseline", "empty", "--current", "empty", "--suite", "miniature"],
    ];
    for arguments in verbs {
        refused(folder.path(), arguments, 2, "`empty` is empty: no store\n");
        assert_eq!(fs::read(&empty).unwrap(), b"", "{arguments:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    store(folder.path(), "one", 0..60);
    done(folder.path(), &["runs", "import", "one", "--store", "empty"]);
    assert_eq!(listed(folder.path(), "empty")["models"][0]["name"], "tuned");
}

/// An output folder of `vqa` stands for the store in it.
#[test]
fn a_folder_names_the_store_in_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["results", "nothing"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let path = store(&folder.path().join("results"), "store.sqlite", 0..60);
    assert_eq!(listed(folder.path(), "results")["models"][0]["name"], "tuned");
    done(folder.path(), &["runs", "show", "tuned", "--store", "results/"]);
    let export = ["runs", "export", "--store", "results", "--format", "jsonl", "--output"];
    for more in [&["new/folders/saved"][..], &["saved", "--rescue"]] {
        assert!(done(folder.path(), &[&export[..], more].concat()).starts_with("60 answers in `"));
    }
    let own = [&export[..], &["results/store.sqlite"]].concat();
    refused(folder.path(), &own, 2, "`results/store.sqlite` is the store that is exported\n");
    done(folder.path(), &["runs", "import", "results", "--store", "whole"]);
    let own = ["runs", "import", "results", "--store", "results/store.sqlite"];
    refused(folder.path(), &own, 2, "`results` is the store to import into\n");
    refused(folder.path(), &["runs", "list", "--store", "nothing"], 2, "the folder `nothing` has no store.sqlite\n");
    let leaderboard = ["leaderboard", "--store", "nothing", "--suite", "miniature"];
    refused(folder.path(), &leaderboard, 2, "the folder `nothing` has no store.sqlite\n");
    done(folder.path(), &["runs", "rm", "tuned", "--store", "results"]);
    assert_eq!(Store::open(path).unwrap().models().unwrap(), []);
}

/// Exported answers can come through a pipe, which is read once.
#[test]
fn answers_are_imported_from_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), "one", 0..60);
    done(folder.path(), &["runs", "export", "--store", "one", "--format", "jsonl", "--output", "saved"]);
    let import = |from: &str, store: &str| {
        let mut command = program_at(folder.path());
        command.args(["runs", "import", "/proc/self/fd/0", "--store", store]).stdin(std::process::Stdio::piped());
        let mut command =
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        // A program that does not want it all closes the pipe.
        let _ =
            std::io::Write::write_all(&mut command.stdin.take().unwrap(), &fs::read(folder.path().join(from)).unwrap());
        command.wait_with_output().unwrap()
    };
    let output = import("saved", "whole");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "imported: 1 model, 60 answers\ntuned on vqa: 60 of 100, incomplete\n");
    fs::write(folder.path().join("empty"), "").unwrap();
    fs::write(folder.path().join("other"), "other").unwrap();
    for (from, message) in [
        ("one", "is a store in a pipe, which cannot be read\nhint: give the file of the store"),
        ("empty", "gives nothing\n"),
        ("other", "is neither a store nor exported answers\n"),
    ] {
        let output = import(from, "not");
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(message), "{}", text(&output.stderr));
        assert!(!folder.path().join("not").exists());
    }
}

/// An import makes no file beside what it reads, and takes none away from those who use it.
#[test]
fn an_import_leaves_the_folder_of_its_source_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let stores = folder.path().join("stores");
    fs::create_dir(&stores).unwrap();
    let path = store(&stores, "store", 0..60);
    let before = files(&stores);
    assert_eq!(before.len(), 1, "a store at rest is one file");
    done(folder.path(), &["runs", "import", "stores/store", "--store", "rest"]);
    assert!(files(&stores) == before, "{:?}", fs::read_dir(&stores).unwrap().collect::<Vec<_>>());
    // In use: what lies in the log alone is read, and the log stays.
    let mut open = Store::open(&path).unwrap();
    let id = open.all_settings().unwrap()[0];
    open.commit(id, "vqa", &answers(60..70)).unwrap();
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let in_use = files(&stores);
    assert_eq!(in_use.len(), 3);
    let told = done(folder.path(), &["runs", "import", "stores/store", "--store", "used"]);
    assert!(told.starts_with("imported: 1 model, 70 answers, "), "{told}");
    assert_eq!(names(&files(&stores)), names(&in_use));
    // The log of a process that was killed, as it is after its machine has started again.
    let left = folder.path().join("left");
    fs::create_dir(&left).unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(format!("{}{suffix}", path.display()), left.join(format!("store{suffix}"))).unwrap();
    }
    let before = files(&left);
    let told = done(folder.path(), &["runs", "import", "left/store", "--store", "killed"]);
    assert!(told.starts_with("imported: 1 model, 70 answers, "), "{told}");
    assert!(files(&left) == before, "{:?}", fs::read_dir(&left).unwrap().collect::<Vec<_>>());
    open.commit(id, "vqa", &answers(70..71)).unwrap();
}

/// Counts that do not show that everything has an answer are no proof of it.
#[test]
fn completeness_is_not_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let change = |name: &str, change: &dyn Fn(&mut Store)| {
        change(&mut Store::open(store(folder.path(), name, 0..100)).unwrap());
        name.to_owned()
    };
    let several = change("several", &|store| {
        let id = store.models().unwrap()[0].answers.unwrap();
        let other = QuestionSet { dataset: "vqa".into(), digest: "other".into(), n: 100 };
        store.record_questions(id, &other).unwrap();
    });
    let more = change("more", &|store| {
        let id = store.models().unwrap()[0].answers.unwrap();
        store.commit(id, "vqa", &answers(100..101)).unwrap();
    });
    let part = change("part", &|store| {
        let id = store.models().unwrap()[0].answers.unwrap();
        let beginning = QuestionSet { dataset: "vqa".into(), digest: "beginning".into(), n: 10 };
        store.record_questions(id, &beginning).unwrap();
    });
    let curves = change("curves", &|store| {
        store.remove(&Removal { models: vec!["tuned"], ..Removal::default() }).unwrap();
    });
    let old = old_store(folder.path(), 3);
    let import =
        |from: &str| ["runs", "import", from, "--store", &format!("{from}-whole"), "--complete"].map(str::to_owned);
    let not_known = |state: &str| format!("1 of 1 sets of questions are not known to be complete: tuned on {state}");
    let cases = [
        (&*several, not_known("vqa (several sets)")),
        (&more, not_known("vqa (more answers than questions)")),
        (old.to_str().unwrap(), not_known("easy-vqa (unknown)")),
        (&curves, "no question was asked of any model, so that nothing is complete".to_owned()),
    ];
    for (from, message) in &cases {
        let arguments = import(from);
        refused(folder.path(), &arguments.each_ref().map(|argument| &**argument), 3, message);
    }
    // A part of the questions beside the whole is none of these.
    done(folder.path(), &import(&part).each_ref().map(|argument| &**argument));
}

/// What another process has made meanwhile stays, whatever becomes of the import.
#[test]
fn an_import_leaves_the_store_of_another_process_alone() {
    let folder = tempfile::tempdir().unwrap();
    let source = Store::open(store(folder.path(), "one", 0..60)).unwrap();
    let path = folder.path().join("whole");
    let mut fill = |fold: &mut Fold| {
        fold.store(&source)?;
        if !path.exists() {
            store(folder.path(), "whole", 90..95);
        }
        Ok(())
    };
    let error = fold_into(&path, &mut fill).unwrap_err();
    assert!(error.to_string().starts_with("nothing was imported: another process has made `"), "{error}");
    let count = || Store::open(&path).unwrap().answer_counts(source.all_settings().unwrap()[0]).unwrap();
    assert_eq!(count(), [("vqa".to_owned(), 5)]);
    assert_eq!(fold_into(&path, &mut fill).unwrap().answers, Tally { new: 60, known: 0 });
    assert_eq!(count(), [("vqa".to_owned(), 65)]);
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.starts_with('.')), "something is left beside the store");
}

/// A process that still holds the number of removed settings writes under no other ones.
#[test]
fn numbers_of_settings_are_never_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = store(folder.path(), "one", 0..10);
    let mut running = Store::open(&path).unwrap();
    let held = running.settings(&settings("{q}")).unwrap();
    let (run, _) = running.training_runs().unwrap()[0];
    done(folder.path(), &["runs", "rm", "tuned", "training:1", "--store", "one"]);
    let mut other = Store::open(&path).unwrap();
    let new = other.settings(&settings("new {q}")).unwrap();
    assert_ne!(new, held);
    let new_run = other.training_run("{}").unwrap();
    assert_ne!(new_run, run);
    assert_eq!(other.training_runs().unwrap(), []);
    running.commit(held, "vqa", &answers(10..12)).unwrap();
    running.record_curve(run, &[CurvePoint { series: "loss".into(), step: 3, value: 0.125 }]).unwrap();
    assert_eq!(other.answer_counts(new).unwrap(), []);
    assert_eq!(other.answer_counts(held).unwrap(), [("vqa".to_owned(), 2)]);
    assert_eq!(other.settings_of_answers(held).unwrap(), settings("{q}"));
    assert_eq!(other.curves(new_run).unwrap(), []);
}

/// Every file of a folder with its bytes.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    files.sort();
    files
}

/// A store of 20,000 answers whose bytes are changed, in a folder of its own; and what a rescue into another folder says.
fn rescued_after(change: impl FnOnce(&mut Vec<u8>)) -> (Output, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    let path = store(&damaged, "store", 0..100);
    let mut store = Store::open(&path).unwrap();
    let id = store.models().unwrap()[0].answers.unwrap();
    store.commit(id, "vqa", &answers(100..20_000)).unwrap();
    let second = store.settings(&settings("second {q}")).unwrap();
    store.commit(second, "vqa", &answers(0..10)).unwrap();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, &bytes).unwrap();
    let before = files(&damaged);
    let export = ["runs", "export", "--store", "damaged/store", "--format", "jsonl", "--rescue", "--output", "saved"];
    let output = run(folder.path(), &export);
    assert!(files(&damaged) == before, "a rescue has changed the store, or has left something beside it");
    let saved = fs::read_to_string(folder.path().join("saved")).unwrap_or_default();
    let lines = saved.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    (output, lines)
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
}

#[test]
fn a_damaged_identifier_is_one_lost_answer() {
    let (output, saved) = rescued_after(|bytes| replace(bytes, b"6000\"image 2000\"", b"6000'image 2000\""));
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    let range = "tuned on vqa (19,999 saved), those between question 600 about image \"image 200\" and question 6001 about \
                 image \"image 2000\"";
    assert!(told.contains(range), "{told}");
    assert_eq!(saved.len(), 19_999 + 10);
    // One that is an identifier still, but at the wrong place.
    let (output, saved) = rescued_after(|bytes| replace(bytes, b"6000\"image 2000\"", b"9000\"image 2000\""));
    assert!(text(&output.stderr).contains(range), "{}", text(&output.stderr));
    assert_eq!(saved.len(), 19_999 + 10);
}

#[test]
fn answers_under_damaged_settings_are_lost_alone() {
    let (output, saved) =
        rescued_after(|bytes| replace(bytes, b"\"prompt\":\"{q}\",\"dec", b"\"prompt\":'{q}\",\"dec"));
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("are lost: the settings of answers:1, with all answers under them\n"), "{told}");
    assert_eq!(saved.len(), 10);
}

/// What lies before the place where a file was cut off is saved.
#[test]
fn answers_before_a_cut_are_saved() {
    let (output, saved) = rescued_after(|bytes| bytes.truncate(bytes.len() * 2 / 3 + 100));
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("tuned on vqa (") && told.contains(" saved), "), "{told}");
    assert!(saved.len() > 5_000 && saved.len() < 19_000, "{} saved", saved.len());
    for line in saved {
        assert_eq!(line["answer"], format!("answer {}", line["question_id"]));
    }
}

/// What lies between damaged places is found by seeking into the gap.
#[test]
fn answers_between_damaged_places_are_saved() {
    let (output, saved) = rescued_after(|bytes| {
        let page = u16::from_be_bytes(bytes[16..18].try_into().unwrap()) as usize;
        for part in 1..=5 {
            // A leaf of a table that is ordered by its key, https://www.sqlite.org/fileformat2.html, section 1.6.
            let mut at = bytes.len() * part / 6 / page * page;
            while bytes[at] != 0x0a {
                at += page;
            }
            bytes[at..at + page].fill(0xff);
        }
    });
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert_eq!(told.matches("those between question ").count(), 5, "{told}");
    assert!(saved.len() > 19_000 && saved.len() < 20_010, "{} saved", saved.len());
    let mut keys: Vec<String> =
        saved.iter().map(|line| format!("{} {}", line["settings"], line["question_id"])).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), saved.len(), "an answer is saved twice");
    for line in saved {
        assert_eq!(line["answer"], format!("answer {}", line["question_id"]));
    }
}

/// Of stores that older programs have made, and of those with a log, a copy is read.
#[test]
fn a_rescue_leaves_every_file_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let stores = folder.path().join("stores");
    fs::create_dir(&stores).unwrap();
    let old = old_store(&stores, 2);
    let open = Store::open(store(&stores, "open", 0..60)).unwrap();
    let mut open_too = Store::open(open.path()).unwrap();
    let id = open.all_settings().unwrap()[0];
    open_too.commit(id, "vqa", &answers(60..70)).unwrap();
    let before = files(&stores);
    for (path, count) in [(old.as_path(), 2), (open.path(), 70)] {
        let store = path.to_str().unwrap();
        let told = done(
            folder.path(),
            &["runs", "export", "--store", store, "--format", "jsonl", "--rescue", "--output", "saved"],
        );
        assert_eq!(told, format!("{count} answers in `saved`\n"));
    }
    assert!(files(&stores) == before, "a rescue has changed a store");
}

/// Two pages in the middle are overwritten: what lies before and behind is saved.
#[test]
fn what_is_readable_of_a_damaged_store_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = store(folder.path(), "one", 0..100);
    {
        let mut store = Store::open(&path).unwrap();
        let id = store.models().unwrap()[0].answers.unwrap();
        store.commit(id, "vqa", &answers(100..20_000)).unwrap();
        store.commit(id, "whole", &answers(0..10)).unwrap();
    }
    assert!(!folder.path().join("one-wal").exists());
    let mut bytes = fs::read(&path).unwrap();
    let page = u16::from_be_bytes(bytes[16..18].try_into().unwrap()) as usize;
    let middle = bytes.len() / 2 / page * page;
    bytes[middle..middle + 2 * page].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let damaged = "the store `one` is damaged";
    refused(folder.path(), &["runs", "list", "--check", "--store", "one"], 2, damaged);
    refused(folder.path(), &["runs", "show", "tuned", "--check", "--store", "one"], 2, damaged);
    refused(folder.path(), &["runs", "import", "one", "--store", "other"], 2, damaged);
    assert!(!folder.path().join("other").exists());
    let export = ["runs", "export", "--store", "one", "--format", "jsonl", "--output", "saved.jsonl"];
    refused(folder.path(), &export, 2, damaged);
    assert!(!folder.path().join("saved.jsonl").exists());
    let rescue = [&export[..], &["--rescue"]].concat();
    let output = run(folder.path(), &rescue);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("are lost: tuned on vqa (") && told.contains(" saved), those between question "), "{told}");
    let saved = fs::read_to_string(folder.path().join("saved.jsonl")).unwrap();
    let count = saved.lines().count() - 1;
    assert_eq!(text(&output.stdout), format!("{},{:03} answers in `saved.jsonl`\n", count / 1000, count % 1000));
    // Two pages hold few of 20,000 answers, and the other dataset has all of its ten.
    assert!(count > 19_000 && count < 20_010, "{count} saved");
    let of_whole = saved.lines().filter(|line| line.contains("\"dataset\":\"whole\"")).count();
    assert_eq!(of_whole, 10);
    done(folder.path(), &["runs", "import", "saved.jsonl", "--store", "new"]);
    let listing = listed(folder.path(), "new");
    let answers = &listing["models"][0]["datasets"];
    assert_eq!(answers[0]["answers"].as_u64().unwrap() + answers[1]["answers"].as_u64().unwrap(), count as u64);
    let store = Store::open(folder.path().join("new")).unwrap();
    let id = store.models().unwrap()[0].answers.unwrap();
    store
        .for_each_answer(id, "vqa", |question, _, content, answer| {
            let number: u64 = question.parse().unwrap();
            assert_eq!((content, answer), (u64::MAX - number, &*format!("answer {number}")));
            Ok(())
        })
        .unwrap();
}

#[test]
fn curves_and_results_are_exported_for_other_tools() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), "one", 0..60);
    let export = |format: &str| {
        done(folder.path(), &["runs", "export", "--store", "one", "--format", format, "--output", format]);
    };
    export("tensorboard");
    let event_file = folder.path().join("tensorboard/1-digrap/events.out.tfevents.0.digrap-bench");
    let events = fs::read(&event_file).unwrap();
    assert!(events.windows(10).any(|window| window == b"validation"));
    export("mlflow");
    let experiment = folder.path().join("mlflow/0");
    let run = fs::read_dir(&experiment).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    assert_eq!(fs::read_to_string(run.join("params/method")).unwrap(), "digrap");
    assert_eq!(fs::read_to_string(run.join("params/subject.seed")).unwrap(), "3");
    assert_eq!(fs::read_to_string(run.join("metrics/loss")).unwrap(), "1 0.5 1\n2 0.25 2\n");
    assert_eq!(fs::read_to_string(run.join("tags/mlflow.runName")).unwrap(), "training:1-digrap");
    export("tensorboard");
    assert_eq!(fs::read(&event_file).unwrap(), events);
    let only = "only training runs are written\n";
    let cases: [(&str, &[&str], &str); 6] = [
        ("tensorboard", &["--model", "tuned"], only),
        ("tensorboard", &["--suite", "miniature", "--limit", "60"], only),
        ("tensorboard", &["--dataset", "miniature-viz"], only),
        ("mlflow", &["--model", "tuned"], only),
        ("mlflow", &["--model", "other", "--suite", "miniature"], "the store `one` has no model `other`\n"),
        ("jsonl", &["--model", "other"], "the store `one` has no model `other`\n"),
    ];
    for (format, more, message) in cases {
        let export = ["runs", "export", "--store", "one", "--format", format, "--output", "other"];
        refused(folder.path(), &[&export[..], more].concat(), 2, message);
    }
    assert!(!folder.path().join("other").exists());
}

/// Three shards of a suite, folded, are the run of one process: the same table, the same answers, none given anew.
#[test]
fn shards_of_a_run_are_the_run() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(fixture("models/miniature-pt"), folder.path().join("model")).unwrap();
    fn vqa<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["vqa", "--model", "model", "--suite", "miniature", "--limit", "60", "--threads", "1"], more].concat()
    }
    let shift = vqa(&["--shard", "1/3", "--shift"]);
    refused(folder.path(), &shift, 2, "shard 1/3 cannot measure shift");
    let mut answered = 0;
    for index in 1..=3 {
        let shard = format!("{index}/3");
        let told = done(folder.path(), &vqa(&["--output", "shards", "--shard", &shard]));
        let first = told.lines().next().unwrap();
        assert!(first.starts_with(&format!("shard {shard}: ")), "{told}");
        assert!(first.ends_with(" of 600 questions answered"), "{told}");
        answered += first.split(' ').nth(2).unwrap().parse::<usize>().unwrap();
        assert!(told.contains("`digrap-bench runs import shards/store.*-of-3.sqlite --store shards/store.sqlite`"));
    }
    assert_eq!(answered, 600);
    let mut files: Vec<String> = fs::read_dir(folder.path().join("shards"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let stores: Vec<String> = (1..=3).map(|index| format!("store.{index}-of-3.sqlite")).collect();
    assert_eq!(files, stores);
    let stores: Vec<String> = stores.iter().map(|store| format!("shards/{store}")).collect();
    let import = |stores: &[String]| {
        let mut command = program_at(folder.path());
        command.args(["runs", "import"]).args(stores).args(["--store", "shards/store.sqlite", "--complete"]);
        command.output().unwrap()
    };
    let output = import(&stores[..2]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(" of 60, incomplete: shard missing?\n"), "{}", text(&output.stdout));
    let output = import(&stores);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).matches(": 60 of 60, complete\n").count(), 10, "{}", text(&output.stdout));
    let folded = done(folder.path(), &vqa(&["--output", "shards", "--json"]));
    let folded: Value = serde_json::from_str(&folded).unwrap();
    for evaluation in folded["evaluations"].as_array().unwrap() {
        assert_eq!((&evaluation["pace"]["answered"], &evaluation["pace"]["reused"]), (&json!(0), &json!(60)));
    }
    done(folder.path(), &vqa(&["--output", "one"]));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("shards/table.md"), read("one/table.md"));
    let set = "miniature-viz.results.json";
    assert_eq!(read(&format!("shards/{set}")), read(&format!("one/{set}")));
    // With the files of the suite, answers come with questions and scores.
    let export = ["runs", "export", "--store", "one/store.sqlite", "--format", "jsonl", "--output", "samples.jsonl"];
    done(folder.path(), &[&export[..], &["--suite", "miniature", "--limit", "60"]].concat());
    let samples: Vec<Value> =
        read("samples.jsonl").lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(samples.len(), 600);
    let of_set: Vec<&Value> = samples.iter().filter(|sample| sample["dataset"] == "miniature-viz").collect();
    let scores: f64 = of_set.iter().map(|sample| sample["score"].as_f64().unwrap()).sum();
    let evaluation = folded["evaluations"].as_array().unwrap().iter().find(|one| one["dataset"] == "miniature-viz");
    let accuracy = evaluation.unwrap()["accuracy"].as_f64().unwrap();
    assert!((scores / 60.0 * 100.0 - accuracy).abs() < 1e-9, "{scores} against {accuracy}");
    assert_eq!(of_set[0]["human_answers"].as_array().unwrap().len(), 10);
    assert!(of_set[0]["question"].as_str().unwrap().contains(' '), "{}", of_set[0]);
    done(folder.path(), &["runs", "import", "samples.jsonl", "--store", "again.sqlite", "--complete"]);
    // What is left out is not missing.
    let one = ["--dataset", "miniature-viz", "--limit", "60"];
    done(folder.path(), &[&export[..], &one].concat());
    let told = done(folder.path(), &["runs", "import", "samples.jsonl", "--store", "viz.sqlite", "--complete"]);
    assert!(told.ends_with("60 answers\nmodel on miniature-viz: 60 of 60, complete\n"), "{told}");
    // Nothing of the suite lies in a folder, so that none is asked for.
    let without_home = |suite: &str| {
        let mut leaderboard = program_at(folder.path());
        leaderboard.args(["leaderboard", "--store", "one", "--suite", suite, "--limit", "60"]);
        leaderboard.env_remove("HOME").env_remove("XDG_DATA_HOME").env_remove("XDG_CACHE_HOME").output().unwrap()
    };
    let output = without_home("miniature");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = without_home("vqa");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("hint: set it, or name the folder of the datasets with --root\n"));
}

/// What launched a process says which part is its own; the argument has the last word.
#[test]
fn a_launcher_chooses_the_shard() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(fixture("models/miniature-pt"), folder.path().join("model")).unwrap();
    let vqa = |environment: &[(&str, &str)], more: &[&str]| {
        let mut command = program_at(folder.path());
        command.args(["vqa", "--model", "model", "--suite", "miniature", "--limit", "5", "--threads", "1"]);
        command.args(["--store", "answers.sqlite"]).args(more).envs(environment.iter().copied());
        command.output().unwrap()
    };
    let slurm = [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")];
    let output = vqa(&slurm, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("shard 2/2: "), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("shard 2/2 by SLURM_PROCID; --shard 1/1 answers all questions\n"));
    assert!(folder.path().join("answers.2-of-2.sqlite").is_file());
    assert!(!folder.path().join("answers.sqlite").exists());
    // The batch script has a number too, but srun has not started it.
    let output = vqa(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "2")], &[]);
    assert!(text(&output.stdout).starts_with("| model "), "{}", text(&output.stderr));
    let output = vqa(&slurm, &["--shard", "1/1"]);
    assert!(text(&output.stdout).starts_with("| model "), "{}", text(&output.stderr));
    let output = vqa(&[("RANK", "x"), ("WORLD_SIZE", "2")], &[]);
    assert_eq!(output.status.code(), Some(2));
    let output = vqa(&[("RANK", "5"), ("WORLD_SIZE", "2")], &[]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "\
error: the environment variables RANK=5 and WORLD_SIZE=2 choose no part of the questions
caused by: there is no shard 6 of 2
hint: RANK counts from 0 and is less than WORLD_SIZE; unset both, or say which part to answer: --shard 1/1 is all of it
";
    assert_eq!(text(&output.stderr), expected);
}
