//! The public VQA datasets as their authors lay them out: what is read of each, where images are found, and what damaged
//! copies say. The records are invented; `fixtures/datasets/make_datasets.py` writes them.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};

use digrap_bench::data::{DATASETS, Dataset, Id, State, find_dataset, results, vqa_json};
use digrap_bench::error::{Error, Kind, Result};
use digrap_bench::score::{ScoreOptions, find_metric, score};
use serde_json::{Value, json};

use crate::support::{fixture, program_at};

fn folder(name: &str) -> PathBuf {
    fixture("datasets").join(name)
}

/// The evaluated part of a dataset, from a folder below `fixtures/datasets`.
fn loaded(name: &str, below: &str) -> Dataset {
    (find_dataset(name).unwrap().load)(&folder(below)).unwrap_or_else(|error| panic!("{name} in {below}: {error:?}"))
}

/// Every evaluated part in every layout: dataset, folder, its questions and images, and the identifiers of the first.
const LAYOUTS: &[(&str, &str, usize, usize, [&str; 2])] = &[
    ("vqav2", "vqav2", 12, 6, ["42000", "42"]),
    ("vqav2-test-dev", "vqav2-test-dev", 8, 2, ["1000", "1"]),
    ("iv-vqa", "iv-vqa", 8, 8, ["42001", "\"000000000042_000000000047\""]),
    ("cv-vqa", "cv-vqa", 8, 8, ["74001", "\"000000000074_000001066001\""]),
    ("vqa-rephrasings", "vqa-rephrasings", 12, 3, ["42000", "42"]),
    ("vqa-cp-v2", "vqa-cp-v2", 10, 5, ["42000", "42"]),
    ("vqa-ce", "vqa-ce", 5, 5, ["42000", "42"]),
    ("advqa", "advqa", 8, 4, ["42005", "42"]),
    ("textvqa", "textvqa", 8, 8, ["34602", "\"000a9c4e7d2b000f\""]),
    ("vizwiz", "vizwiz", 8, 8, ["\"VizWiz_val_00000000.jpg\"", "\"VizWiz_val_00000000.jpg\""]),
    ("ok-vqa", "ok-vqa", 8, 5, ["425", "42"]),
    ("vqav2", "combined/vqav2", 12, 6, ["42000", "\"val2014/COCO_val2014_000000000042.jpg\""]),
    ("vqa-cp-v2", "combined/vqa-cp-v2", 10, 5, ["42000", "\"val2014/COCO_val2014_000000000042.jpg\""]),
    ("vqav2", "hub/vqav2", 12, 6, ["42000", "42"]),
    ("vqav2", "hub-text", 12, 6, ["42000", "42"]),
    ("vqav2-test-dev", "hub/vqav2-test-dev", 8, 2, ["1000", "1"]),
    ("textvqa", "hub/textvqa", 8, 8, ["34602", "\"000a9c4e7d2b000f\""]),
    ("vizwiz", "hub/vizwiz", 8, 8, ["\"VizWiz_val_00000000.jpg\"", "\"VizWiz_val_00000000.jpg\""]),
    ("ok-vqa", "hub/ok-vqa", 8, 8, ["425", "425"]),
];

fn images_of(dataset: &Dataset) -> BTreeSet<&Id> {
    dataset.questions.iter().map(|question| &question.image_id).collect()
}

#[test]
fn every_layout_is_read() {
    for (name, below, questions, images, [question_id, image_id]) in LAYOUTS {
        let dataset = loaded(name, below);
        assert_eq!((&*dataset.name, dataset.questions.len()), (*name, *questions), "{below}");
        assert_eq!(images_of(&dataset).len(), *images, "{below}");
        let first = &dataset.questions[0];
        assert_eq!([first.question_id.to_json(), first.image_id.to_json()], [*question_id, *image_id], "{below}");
        let expected = (*name != "vqav2-test-dev").then_some(*questions);
        assert_eq!(dataset.references.as_ref().map(|references| references.len()), expected, "{below}");
        if let Some(references) = &dataset.references {
            assert!((0..*questions).all(|question| references.answers(question).len() == 10), "{below}");
        }
        let portion = dataset.portion();
        let row = find_dataset(name).unwrap();
        assert_eq!(portion.is_some(), row.n.is_some(), "{below}");
        if let Some(portion) = portion {
            // The Hub's copy of OK-VQA does not tell which questions share an image.
            let certain = *below != "hub/ok-vqa";
            let images = certain.then_some(*images);
            assert_eq!((portion.questions, portion.of_questions), (*questions, row.n), "{below}");
            assert_eq!((portion.images, portion.of_images), (images, row.images.filter(|_| certain)), "{below}");
        }
    }
}

/// A combined list of VQA-CE is what is evaluated, also where VQAv2's own files are beside it.
#[test]
fn a_combined_list_of_counterexamples_is_not_the_whole_of_vqav2() {
    let copy = Copy::of(&["vqav2", "coco"]);
    let records: Value =
        serde_json::from_slice(&fs::read(folder("combined/vqav2/combined_data.json")).unwrap()).unwrap();
    fs::create_dir(copy.path("vqa-ce")).unwrap();
    let counterexamples = json!([records[1], records[4], records[7]]);
    fs::write(copy.path("vqa-ce/combined_data.json"), counterexamples.to_string()).unwrap();
    let dataset = copy.load("vqa-ce", "vqa-ce").unwrap();
    let asked: Vec<Value> = dataset
        .questions
        .iter()
        .map(|question| json!([question.question_id.to_json(), question.image_id.to_string(), question.text]))
        .collect();
    let expected = counterexamples.as_array().unwrap().iter();
    let expected: Vec<Value> =
        expected.map(|one| json!([one["question_id"].to_string(), one["image"], one["question"]])).collect();
    assert_eq!((&*dataset.name, asked), ("vqa-ce", expected));
    dataset.images.decode(&dataset.questions[0].image_id).unwrap();
}

/// The files of edited images have the names of VQAv2's.
#[test]
fn original_images_are_no_edited_ones() {
    let copy = Copy::of(&["vqav2", "coco"]);
    for name in ["iv-vqa", "cv-vqa"] {
        let expected = format!(
            "`{name}` has the image 42, which is no edited one (hint: the file is VQAv2's: give the folder of the dataset itself)"
        );
        assert_eq!(copy.told(&copy.load(name, "vqav2").unwrap_err()), expected);
    }
}

/// One folder for several datasets has a folder for each.
#[test]
fn several_datasets_have_a_folder_each_below_the_root() {
    let home = tempfile::tempdir().unwrap();
    copy_folder(&folder("vqav2"), &home.path().join("all/vqav2"));
    let mut command = program_at(home.path());
    command.arg("vqa").arg("--model").arg(fixture("models/paligemma-tiny-a"));
    command.args(["--dataset", "vqav2", "iv-vqa", "--threads", "1"]).arg("--root").arg(home.path().join("all"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let place = home.path().join("all/iv-vqa");
    let expected = format!("iv-vqa has no `{QUESTIONS}` below `{}`", place.display());
    assert!(said.contains(&expected), "{said}");
}

/// Every image is found, and differs from the others.
#[test]
fn every_image_is_found() {
    for (name, below, _, images, _) in LAYOUTS.iter().filter(|(_, below, ..)| !below.starts_with("combined")) {
        let dataset = loaded(name, below);
        let pixels: BTreeSet<Vec<u8>> = images_of(&dataset)
            .into_iter()
            .map(|image_id| {
                dataset.images.check(image_id).unwrap();
                dataset.images.decode(image_id).unwrap_or_else(|error| panic!("{below}: {error:?}")).into_raw()
            })
            .collect();
        // The Hub's copy of OK-VQA does not tell which questions share an image.
        assert_eq!(pixels.len(), if *below == "hub/ok-vqa" { 5 } else { *images }, "{below}");
        let identities: BTreeSet<Vec<u8>> =
            images_of(&dataset).into_iter().map(|image_id| dataset.images.identity(image_id).unwrap()).collect();
        assert_eq!(identities.len(), *images, "{below}");
    }
}

/// The official pair of files that says what a dataset says.
fn official(dataset: &Dataset) -> [Value; 2] {
    let id = |id: &Id| serde_json::from_str::<Value>(&id.to_json()).unwrap();
    let questions = dataset.questions.iter().map(|question| {
        json!({"question_id": id(&question.question_id), "image_id": id(&question.image_id), "question": question.text})
    });
    let references = dataset.references.as_ref().unwrap();
    let annotations = dataset.questions.iter().enumerate().map(|(at, question)| {
        let answers: Vec<Value> = references
            .answers(at)
            .enumerate()
            .map(|(number, answer)| {
                let mut fields = json!({"answer": answer.text, "answer_id": number});
                if let Some(confidence) = answer.confidence {
                    fields["answer_confidence"] = json!(confidence);
                }
                fields
            })
            .collect();
        json!({"question_id": id(&question.question_id), "image_id": id(&question.image_id), "answers": answers,
            "answer_type": references.answer_type(at), "question_type": references.question_type(at)})
    });
    [json!({"questions": questions.collect::<Vec<_>>()}), json!({"annotations": annotations.collect::<Vec<_>>()})]
}

/// What human answers say, without the identifiers that only some files give them.
fn said(dataset: &Dataset) -> Vec<Value> {
    let references = dataset.references.as_ref().unwrap();
    let of = |at| {
        let answers: Vec<_> = references.answers(at).map(|answer| json!([answer.text, answer.confidence])).collect();
        json!([answers, references.answer_type(at), references.question_type(at)])
    };
    (0..references.len()).map(of).collect()
}

/// Accuracies of a mix of right, half right and wrong answers.
fn scores(dataset: &Dataset) -> (Vec<String>, Vec<f64>) {
    let references = dataset.references.as_ref().unwrap();
    let answer = |at: usize| match at % 3 {
        0 => references.answers(at).next().unwrap().text.to_owned(),
        1 => references.answers(at).last().unwrap().text.to_uppercase(),
        _ => format!("nothing like \"{at}\""),
    };
    let answers: Vec<String> = (0..references.len()).map(answer).collect();
    let metric = find_metric(find_dataset(&dataset.name).unwrap().metric).unwrap();
    let scores = score(metric, ScoreOptions::default(), &answers, references).unwrap();
    (answers, scores)
}

#[test]
fn results_and_official_files_written_of_a_dataset_read_back_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    for (name, below, ..) in LAYOUTS.iter().filter(|(name, ..)| *name != "vqav2-test-dev") {
        let dataset = loaded(name, below);
        let (answers, accuracies) = scores(&dataset);
        let mut writer = results::Writer::create(&path("results.json"), &dataset).unwrap();
        for (question, answer) in dataset.questions.iter().zip(&answers) {
            writer.write(question, answer).unwrap();
        }
        writer.finish().unwrap();
        let [questions, annotations] = official(&dataset);
        fs::write(path("q.json"), questions.to_string()).unwrap();
        fs::write(path("a.json"), annotations.to_string()).unwrap();
        let files = vqa_json::Files {
            questions: &path("q.json"),
            annotations: Some(&path("a.json")),
            images: None,
            image_name: None,
        };
        let mut again = vqa_json::load(files).unwrap();
        again.name = (*name).to_owned();
        assert_eq!(again.questions, dataset.questions, "{below}");
        assert_eq!(said(&again), said(&dataset), "{below}");
        let read = results::load(&path("results.json"), &again).unwrap();
        assert!(read.iter().map(|answer| &**answer).eq(answers.iter().map(String::as_str)), "{below}");
        let metric = find_metric(find_dataset(name).unwrap().metric).unwrap();
        let scored = score(metric, ScoreOptions::default(), &read, again.references.as_ref().unwrap()).unwrap();
        assert_eq!(scored, accuracies, "{below}");
        assert!(accuracies.iter().any(|accuracy| *accuracy > 0.0) && accuracies.contains(&0.0), "{below}");
    }
}

#[test]
fn relations_tell_originals_and_parts() {
    let originals = |name: &str| -> Vec<String> {
        let originals = loaded(name, name).relations.originals;
        originals.iter().map(|one| one.as_ref().map_or_else(|| "-".to_owned(), Id::to_json)).collect()
    };
    assert_eq!(originals("iv-vqa"), ["42001", "42001", "42001", "73001", "73001", "74001", "74001", "74001"]);
    assert_eq!(originals("cv-vqa")[4..], ["42002", "42002", "133001", "133001"]);
    let groups = ["42000", "420001", "73000"].iter().flat_map(|original| ["-", original, original, original]);
    assert!(originals("vqa-rephrasings").iter().eq(groups.collect::<Vec<_>>()));
    assert!(originals("vqav2").is_empty());
    let parts = |name: &str, below: &str| {
        let relations = loaded(name, below).relations;
        let names: Vec<String> = relations.part_names.iter().map(|name| name.to_string()).collect();
        (relations.parts, names.join(" "))
    };
    let split = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1];
    for below in ["vqa-cp-v2", "combined/vqa-cp-v2"] {
        assert_eq!(parts("vqa-cp-v2", below), (split.to_vec(), "val2014 train2014".to_owned()), "{below}");
    }
    let answerable = [0, 0, 1, 0, 0, 1, 0, 1];
    assert_eq!(parts("vizwiz", "vizwiz"), (answerable.to_vec(), "answerable unanswerable".to_owned()));
    assert_eq!(parts("advqa", "advqa"), (vec![], String::new()));
    let chosen = loaded("vqa-cp-v2", "vqa-cp-v2").select(&[9, 0]);
    assert_eq!(chosen.relations.parts, [1, 0]);
}

/// A rephrasing's identifier can be that of another original: the image tells them apart.
#[test]
fn identifiers_that_repeat_are_kept_apart_by_their_images() {
    let rephrasings = loaded("vqa-rephrasings", "vqa-rephrasings");
    let same: Vec<_> = rephrasings.questions.iter().filter(|one| one.question_id == Id::Number(420_001)).collect();
    assert_eq!(same.len(), 2);
    assert!(same[0].image_id != same[1].image_id && rephrasings.question_ids_repeat());
    let edited = loaded("iv-vqa", "iv-vqa");
    assert!(edited.question_ids_repeat());
    assert_eq!(edited.image_numbers(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn kinds_of_counterexamples_cover_the_whole_of_vqav2() {
    let dataset = loaded("vqa-ce", "vqa-ce");
    let ids: Vec<String> = dataset.questions.iter().map(|question| question.question_id.to_json()).collect();
    assert_eq!(ids, ["42000", "73000", "74000", "133000", "581929000"], "in the order of VQAv2");
    let relations = &dataset.relations;
    assert_eq!(
        relations.part_names.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["counterexamples", "easy", "hard"]
    );
    assert_eq!(relations.parts, [0; 5]);
    let kinds: Vec<(String, u32)> =
        relations.parts_of_originals.iter().map(|(question_id, kind)| (question_id.to_json(), *kind)).collect();
    let all = loaded("vqav2", "vqav2").questions;
    assert!(kinds.iter().map(|(id, _)| id.clone()).eq(all.iter().map(|question| question.question_id.to_json())));
    let kinds: Vec<u32> = kinds.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [0, 1, 1, 0, 1, 0, 2, 1, 0, 2, 1, 0]);
    assert_eq!(dataset.limit(2).relations.parts_of_originals.len(), 12);
}

#[test]
fn training_parts_are_other_questions_on_other_images() {
    let expected = [("vqav2", 8), ("vqa-cp-v2", 8), ("textvqa", 8), ("vizwiz", 8), ("ok-vqa", 2)];
    for (name, count) in expected {
        let load = find_dataset(name).unwrap().load_training.unwrap();
        let dataset = load(&folder(name)).unwrap();
        assert_eq!((&*dataset.name, dataset.questions.len()), (name, count));
        let evaluated = loaded(name, name);
        let known: BTreeSet<(&Id, &Id)> =
            evaluated.questions.iter().map(|one| (&one.question_id, &one.image_id)).collect();
        assert!(dataset.questions.iter().all(|one| !known.contains(&(&one.question_id, &one.image_id))), "{name}");
        if name != "vizwiz" {
            dataset.images.decode(&dataset.questions[0].image_id).unwrap();
        }
    }
    let with_training: Vec<&str> =
        DATASETS.iter().filter(|row| row.load_training.is_some()).map(|row| row.name).collect();
    for name in ["iv-vqa", "cv-vqa"] {
        assert!(with_training.contains(&name));
    }
    for name in ["vqav2-test-dev", "vqa-rephrasings", "vqa-ce", "advqa"] {
        assert!(!with_training.contains(&name));
    }
}

/// Accuracies that follow from the counts of the answers by hand.
#[test]
fn own_metrics_score_as_worked_out_by_hand() {
    let rows: &[(&str, usize, &str, f64)] = &[
        // Seven of ten said so; each of the three others sees seven.
        ("vqav2", 0, "red", 1.0),
        // Two of ten: each of these sees one other, the eight see two: (2 * 1/3 + 8 * 2/3) / 10.
        ("vqav2", 2, "three", 0.6),
        // Nothing is normalised where all ten agree.
        ("vqav2", 1, "Yes", 0.0),
        ("vqav2", 5, "The plate.", 1.0),
        // The multiple-choice answer still says 4.
        ("cv-vqa", 0, "3", 1.0),
        ("cv-vqa", 0, "4", 0.0),
        // Five annotators doubled: none, one and two or more of them.
        ("ok-vqa", 0, "coffee", 0.0),
        ("ok-vqa", 0, "herb", 0.6),
        ("ok-vqa", 2, "fast", 1.0),
        ("ok-vqa", 0, "tea leav", 1.0),
        ("ok-vqa", 0, "tea leaves", 0.0),
        // EvalAI drops commas and full stops of both sides.
        ("textvqa", 0, "STOP!", 1.0),
        ("textvqa", 3, "Exit left", 1.0),
        // VizWiz takes human answers as they are.
        ("vizwiz", 6, "the left", 0.9),
        ("vizwiz", 0, "Soup can.", 1.0),
        ("advqa", 1, "one", 1.0),
    ];
    for (name, question, answer, expected) in rows {
        let dataset = loaded(name, name);
        let mut answers = vec!["x"; dataset.questions.len()];
        answers[*question] = answer;
        let metric = find_metric(find_dataset(name).unwrap().metric).unwrap();
        let scores = score(metric, ScoreOptions::default(), &answers, dataset.references.as_ref().unwrap()).unwrap();
        assert!((scores[*question] - expected).abs() < 1e-12, "{name} {question} {answer}: {}", scores[*question]);
    }
}

/// The Hub's copies say what the official files say, but for what they leave out.
#[test]
fn parquet_files_say_what_official_files_say() {
    let same = [("vqav2", "hub/vqav2"), ("vqav2", "hub-text"), ("textvqa", "hub/textvqa"), ("vizwiz", "hub/vizwiz")];
    for (name, below) in same {
        let [official, copy] = [name, below].map(|below| loaded(name, below));
        assert_eq!(copy.questions, official.questions, "{below}");
        assert_eq!((&copy.relations, &copy.name), (&official.relations, &official.name), "{below}");
        let [left, right] = [&copy, &official].map(|dataset| dataset.references.as_ref().unwrap());
        for question in 0..left.len() {
            assert!(left.answers(question).map(|a| a.text).eq(right.answers(question).map(|a| a.text)), "{below}");
            assert_eq!(left.answer_type(question), right.answer_type(question), "{below}");
            assert_eq!(left.question_type(question), right.question_type(question), "{below}");
        }
        if name == "vqav2" {
            assert_eq!(said(&copy), said(&official));
        }
        for image_id in images_of(&official) {
            assert_eq!(copy.images.decode(image_id).unwrap(), official.images.decode(image_id).unwrap(), "{below}");
        }
    }
    let training = (find_dataset("vqav2").unwrap().load_training.unwrap())(&folder("hub-text")).unwrap();
    let official = (find_dataset("vqav2").unwrap().load_training.unwrap())(&folder("vqav2")).unwrap();
    assert_eq!((training.questions.len(), said(&training)), (8, said(&official)));
    training.images.decode(&training.questions[0].image_id).unwrap();
    let ok = loaded("ok-vqa", "hub/ok-vqa");
    assert_eq!(ok.references.unwrap().answers(0).next().unwrap().text, "tea leaves");
}

#[test]
fn images_in_parquet_are_read_by_several_threads_at_once() {
    let dataset = loaded("vqav2", "hub/vqav2");
    let expected = loaded("vqav2", "vqav2");
    let ids: Vec<&Id> = images_of(&dataset).into_iter().collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (ids, images, expected) = (&ids, &dataset.images, &expected.images);
            scope.spawn(move || {
                for step in 0..60 {
                    let image_id = ids[(step * (thread + 1) + thread) % ids.len()];
                    assert_eq!(images.decode(image_id).unwrap(), expected.decode(image_id).unwrap());
                }
            });
        }
    });
}

#[test]
fn parquet_files_count_as_the_dataset() {
    let copy = Copy::of(&["hub", "hub-text", "coco"]);
    let presence = |name: &str, below: &str| find_dataset(name).unwrap().presence(&copy.path(below)).unwrap();
    for name in ["vqav2", "vqav2-test-dev", "textvqa", "vizwiz", "ok-vqa"] {
        let presence = presence(name, &format!("hub/{name}"));
        assert_eq!((presence.state, presence.missing.len()), (State::Present, 0), "{name}");
    }
    // Texts alone leave the images to COCO, of which there are too few.
    let texts = presence("vqav2", "hub-text");
    assert_eq!(texts.missing, [(copy.path("coco/val2014"), "6 of 40504 images".to_owned())]);
    assert!(texts.missing_for_training.is_empty());
    fs::remove_file(copy.path("hub/textvqa/data/validation-00001-of-00003-0123456789abcdef.parquet")).unwrap();
    let incomplete = presence("textvqa", "hub/textvqa");
    let missing = copy.path("hub/textvqa/data/validation-00001-of-00003.parquet");
    assert_eq!((incomplete.state, incomplete.missing), (State::Incomplete, vec![(missing, "missing".to_owned())]));
}

const VALIDATION: &str = "hub/vqav2/data/validation-00000-of-00002.parquet";

/// Changes the bytes of a file.
fn rewrite(copy: &Copy, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(copy.path(file)).unwrap();
    change(&mut bytes);
    fs::write(copy.path(file), bytes).unwrap();
}

/// Where some bytes begin.
fn position(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).unwrap()
}

/// Damages of parquet files, and what loading or, where that goes well, the first image says.
const PARQUET_DAMAGES: &[Damage] = &[
    (
        "vqav2",
        |copy| fs::remove_file(copy.path(VALIDATION)).unwrap(),
        "1 of the 2 files of the split `validation` are missing, first: `hub/vqav2/data/validation-00000-of-00002.parquet` (hint: download all files of the split into one folder)",
    ),
    (
        "vqav2",
        |copy| copy_file(copy, VALIDATION, "00000-of-00002", "00000-of-00002-1a2b"),
        "`hub/vqav2/data/validation-00000-of-00002-1a2b.parquet` and `hub/vqav2/data/validation-00000-of-00002.parquet` are of two copies of one split (hint: leave the files of one copy in the folder)",
    ),
    (
        "vqav2",
        |copy| copy_file(copy, VALIDATION, "00000-of-00002", "00001-of-00002"),
        "7 duplicate records in `hub/vqav2/data`, first: question 42000, image 42 (hint: a question and its image make a key, which occurs once)",
    ),
    (
        "vqav2",
        |copy| copy_file(copy, VALIDATION, "of-00002", "of-00005"),
        "`hub/vqav2/data/validation-00000-of-00002.parquet` and `hub/vqav2/data/validation-00000-of-00005.parquet` are of two copies of one split (hint: leave the files of one copy in the folder)",
    ),
    (
        "vqav2",
        |copy| rewrite(copy, VALIDATION, |bytes| bytes.truncate(bytes.len() / 2)),
        "cannot read `hub/vqav2/data/validation-00000-of-00002.parquet`: the parquet data are damaged: Parquet error: Invalid Parquet file. Corrupt footer",
    ),
    (
        "vqav2",
        |copy| rewrite(copy, VALIDATION, Vec::clear),
        "cannot read `hub/vqav2/data/validation-00000-of-00002.parquet`: the parquet data are damaged: EOF: Parquet file too small. Size is 0 but need 8",
    ),
    (
        "vqav2",
        |copy| rewrite(copy, VALIDATION, |bytes| bytes[4..24].fill(0xff)),
        "cannot read `hub/vqav2/data/validation-00000-of-00002.parquet`: its column `question_type`: the parquet data are damaged: Parquet error: Unexpected struct field type 15",
    ),
    (
        "vqav2",
        |copy| {
            rewrite(copy, VALIDATION, |bytes| {
                let start = position(bytes, b"what color is the");
                bytes[start - 6..start].fill(0xff);
            });
        },
        "cannot read `hub/vqav2/data/validation-00000-of-00002.parquet`: its column `question_type`: the parquet data are damaged: External: snappy: corrupt input (invalid header): snappy: corrupt input (invalid header)",
    ),
    (
        "vqav2",
        |copy| {
            rewrite(copy, VALIDATION, |bytes| {
                let start = position(bytes, &[0xff, 0xd8, 0xff, 0xe0]);
                bytes[start..start + 40].fill(0);
            });
        },
        "cannot decode the image `42`, row 0 of `hub/vqav2/data/validation-00000-of-00002.parquet`: it is not a JPEG, PNG, GIF, BMP or WebP file",
    ),
    (
        "vqav2",
        |copy| {
            rewrite(copy, VALIDATION, |bytes| {
                let start = position(bytes, &[0xff, 0xd8, 0xff, 0xe0]);
                bytes[start - 24..start].fill(0xff);
            });
        },
        "cannot decode the image `42`, row 0 of `hub/vqav2/data/validation-00000-of-00002.parquet`: the parquet data are damaged: Parquet error: Unexpected struct field type 15",
    ),
    (
        "vqav2",
        |copy| {
            rewrite(copy, VALIDATION, |bytes| {
                while let Some(at) = bytes.windows(11).position(|window| window == b"question_id") {
                    bytes[at..at + 11].copy_from_slice(b"question_no");
                }
            });
        },
        "cannot read `hub/vqav2/data/validation-00000-of-00002.parquet`: it has no column `question_id`",
    ),
];

fn copy_file(copy: &Copy, file: &str, from: &str, to: &str) {
    fs::copy(copy.path(file), copy.path(&file.replace(from, to))).unwrap();
}

#[test]
fn damaged_parquet_files_say_what_is_wrong() {
    let mut complaints = Vec::new();
    for (name, damage, expected) in PARQUET_DAMAGES {
        let copy = Copy::of(&["hub"]);
        damage(&copy);
        let outcome = copy.load(name, &format!("hub/{name}"));
        let outcome = outcome.and_then(|dataset| dataset.images.decode(&dataset.questions[0].image_id).map(drop));
        let told = outcome.map_or_else(|error| copy.told(&error), |()| "nothing".to_owned());
        if told != *expected {
            complaints.push(format!("{told}\nbut should be\n{expected}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

/// A copy of folders below `fixtures/datasets` that a test may damage.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(folders: &[&str]) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        for name in folders {
            copy_folder(&folder(name), &copy.path(name));
        }
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, name: &str, below: &str) -> Result<Dataset> {
        (find_dataset(name).unwrap().load)(&self.path(below))
    }

    /// Replaces the first `from` in a file.
    fn replace(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(self.path(file), text.replacen(from, to, 1)).unwrap();
    }

    /// The message and its causes, with the folder's name taken out, and the hint.
    fn told(&self, error: &Error) -> String {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text += &error.next_step().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

const QUESTIONS: &str = "v2_OpenEnded_mscoco_val2014_questions.json";
const ANNOTATIONS: &str = "v2_mscoco_val2014_annotations.json";

/// A damage: dataset, what is done to a copy of its folder, and what loading says.
type Damage = (&'static str, fn(&Copy), &'static str);

const DAMAGES: &[Damage] = &[
    (
        "vqav2",
        |copy| fs::remove_file(copy.path("vqav2").join(ANNOTATIONS)).unwrap(),
        "vqav2 has no `v2_mscoco_val2014_annotations.json`, neither below `vqav2` nor below `coco` (hint: `digrap-bench fetch vqav2`, or unpack the files of visualqa.org/download.html)",
    ),
    (
        "vqav2",
        |copy| {
            let text = fs::read_to_string(copy.path("vqav2").join(QUESTIONS)).unwrap();
            fs::write(copy.path("vqav2").join(QUESTIONS), &text[..400]).unwrap();
        },
        "cannot read `vqav2/v2_OpenEnded_mscoco_val2014_questions.json`, at `questions[2].question`: EOF while parsing a string at line 1 column 400",
    ),
    (
        "vqav2",
        |copy| copy.replace(&format!("vqav2/{ANNOTATIONS}"), "\"image_id\":42,", "\"image_id\":43,"),
        "`vqav2/v2_OpenEnded_mscoco_val2014_questions.json` and `vqav2/v2_mscoco_val2014_annotations.json` do not belong together: 1 questions have no annotation, first: question 42000, image 42; 1 annotations have no question, first: question 42000, image 43 (hint: take both files from the same release and split; `7` and `\"7\"` are different identifiers)",
    ),
    (
        "iv-vqa",
        |copy| {
            let folder = copy.path("iv-vqa/volume/user/edits/annotations");
            copy_folder(&folder, &copy.path("iv-vqa/volume/user/edits/older"));
        },
        "`iv-vqa/volume/user/edits/annotations/v2_OpenEnded_mscoco_val2014_questions.json` and `iv-vqa/volume/user/edits/older/v2_OpenEnded_mscoco_val2014_questions.json` are both there (hint: leave one of them below the folder of the dataset)",
    ),
    (
        "iv-vqa",
        |copy| {
            copy.replace(
                &format!("iv-vqa/volume/user/edits/annotations/{QUESTIONS}"),
                "000000000042_000000000050",
                "000000000042_000000000047",
            );
        },
        "1 duplicate records in `iv-vqa/volume/user/edits/annotations/v2_OpenEnded_mscoco_val2014_questions.json`, first: question 42001, image \"000000000042_000000000047\" (hint: a question and its image make a key, which occurs once)",
    ),
    (
        "vqa-rephrasings",
        |copy| {
            let file = "vqa-rephrasings/v2_OpenEnded_mscoco_valrep2014_humans_og_questions.json";
            copy.replace(file, "\"rephrasing_of\":42000", "\"rephrasing_of\":null");
        },
        "cannot read `vqa-rephrasings/v2_OpenEnded_mscoco_valrep2014_humans_og_questions.json`, at `questions[1].rephrasing_of`: invalid type: null, expected an integer or a string at line 1 column 379",
    ),
    (
        "vqa-cp-v2",
        |copy| copy.replace("vqa-cp-v2/vqacp_v2_test_questions.json", "\"coco_split\":\"val2014\",", ""),
        "cannot read `vqa-cp-v2/vqacp_v2_test_questions.json`: only 9 of 10 questions have `coco_split` or `answerable`",
    ),
    (
        "vqa-cp-v2",
        |copy| {
            copy.replace(
                "vqa-cp-v2/vqacp_v2_test_questions.json",
                "\"coco_split\":\"val2014\"",
                "\"coco_split\":\"train2014\"",
            )
        },
        "cannot read `vqa-cp-v2/vqacp_v2_test_questions.json`, at `[1]`: image 42 is `val2014/COCO_val2014_000000000042.jpg` here and `train2014/COCO_train2014_000000000042.jpg` before at line 1 column 190",
    ),
    (
        "vqa-ce",
        |copy| fs::remove_file(copy.path("vqa-ce/hard.json")).unwrap(),
        "vqa-ce has no `hard.json` below `vqa-ce` (hint: `digrap-bench fetch vqa-ce`, or download the files of github.com/cdancette/detect-shortcuts/releases; VQAv2's files can be in the folder of vqav2)",
    ),
    (
        "vqa-ce",
        |copy| fs::remove_file(copy.path("vqav2").join(QUESTIONS)).unwrap(),
        "vqa-ce has no `v2_OpenEnded_mscoco_val2014_questions.json`, neither below `vqa-ce` nor below `coco` nor below `vqav2` (hint: `digrap-bench fetch vqa-ce`, or download the files of github.com/cdancette/detect-shortcuts/releases; VQAv2's files can be in the folder of vqav2)",
    ),
    (
        "vqa-ce",
        |copy| fs::write(copy.path("vqa-ce/hard.json"), "[133001,42000]").unwrap(),
        "`vqa-ce/hard.json`: question 42000 is listed twice (hint: take all files whole, from one release)",
    ),
    (
        "vqa-ce",
        |copy| fs::write(copy.path("vqa-ce/hard.json"), "[1]").unwrap(),
        "`vqa-ce/hard.json`: question 1 is no validation question of VQAv2 (hint: take all files whole, from one release)",
    ),
    (
        "vqa-ce",
        |copy| fs::write(copy.path("vqa-ce/counterexamples.json"), "{\"42000\": 1}").unwrap(),
        "cannot read `vqa-ce/counterexamples.json`: expected a list of question identifiers: invalid type: map, expected a sequence at line 1 column 0",
    ),
    (
        "textvqa",
        |copy| copy.replace("textvqa/TextVQA_0.5.1_val.json", "\"answers\":[\"stop\"", "\"answers\":[7"),
        "cannot read `textvqa/TextVQA_0.5.1_val.json`, at `data[0].answers[0]`: invalid type: integer `7`, expected a string, or an object with the string `answer` at line 1 column 333",
    ),
    (
        "textvqa",
        |copy| copy.replace("textvqa/TextVQA_0.5.1_val.json", "\"answers\":[\"stop\"", "\"no_answers\":[\"stop\""),
        "cannot read `textvqa/TextVQA_0.5.1_val.json`: only 7 of 8 questions have answers",
    ),
    (
        "textvqa",
        |copy| copy.replace("textvqa/TextVQA_0.5.1_val.json", "\"data\":", "\"records\":"),
        "cannot read `textvqa/TextVQA_0.5.1_val.json`: missing field `questions` at line 1 column 3972",
    ),
    (
        "vizwiz",
        |copy| copy.replace("vizwiz/Annotations/val.json", "\"answerable\":1", "\"answerable\":2"),
        "cannot read `vizwiz/Annotations/val.json`, at `[0].answerable`: expected 0 or 1 at line 1 column 583",
    ),
    (
        "vizwiz",
        |copy| copy.replace("vizwiz/Annotations/val.json", "\"image\":", "\"picture\":"),
        "cannot read `vizwiz/Annotations/val.json`, at `[0]`: missing field `question_id` at line 1 column 585",
    ),
    (
        "ok-vqa",
        |copy| {
            copy.replace("ok-vqa/mscoco_val2014_annotations.json", "\"answer\":\"tea leav\"", "\"stem\":\"tea leav\"")
        },
        "cannot read `ok-vqa/mscoco_val2014_annotations.json`, at `annotations[0].answers[0]`: missing field `answer` at line 1 column 451",
    ),
];

#[test]
fn damaged_copies_say_what_is_wrong() {
    let mut complaints = Vec::new();
    for (name, damage, expected) in DAMAGES {
        let copy = Copy::of(&[name, "vqav2", "coco"]);
        damage(&copy);
        let error = copy.load(name, name).map(|_| ()).unwrap_err();
        let told = copy.told(&error);
        if told != *expected || error.kind() == Kind::Internal {
            complaints.push(format!("{told}\nbut should be\n{expected}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

#[test]
fn an_empty_folder_says_how_to_get_the_dataset() {
    let copy = Copy::of(&[]);
    for row in DATASETS.iter().filter(|row| !row.files.is_empty()) {
        let error = copy.load(row.name, row.name).unwrap_err();
        assert_eq!((error.kind(), error.next_step()), (Kind::Input, Some(row.obtain)), "{}", row.name);
    }
}

/// A dataset's own folder comes first, then those that several datasets share.
#[test]
fn images_are_looked_for_in_the_own_folder_first() {
    let copy = Copy::of(&["ok-vqa"]);
    let dataset = copy.load("ok-vqa", "ok-vqa").unwrap();
    let first = &dataset.questions[0].image_id;
    let name = "val2014/COCO_val2014_000000000042.jpg";
    let error = dataset.images.decode(first).unwrap_err();
    let expected = format!("cannot find the image `{name}`, neither in `ok-vqa` nor in `coco` nor in `vqav2`");
    assert!(copy.told(&error).starts_with(&expected), "{}", copy.told(&error));
    let put = |place: &str, image: u32| {
        let target = copy.path(place).join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(folder(&format!("coco/val2014/COCO_val2014_{image:012}.jpg")), target).unwrap();
        let dataset = copy.load("ok-vqa", "ok-vqa").unwrap();
        dataset.images.decode(first).unwrap().into_raw()
    };
    let [third, second, own] =
        [("vqav2", 74), ("coco", 73), ("ok-vqa/images", 133)].map(|(place, image)| put(place, image));
    assert!(third != second && second != own && third != own);
    // An image that the own folder lacks is taken from the next one.
    let other = folder("coco/val2014/COCO_val2014_000000000073.jpg");
    fs::copy(&other, copy.path("coco/val2014/COCO_val2014_000000000073.jpg")).unwrap();
    let dataset = copy.load("ok-vqa", "ok-vqa").unwrap();
    let pixels = digrap_bench::data::image::decode(&other).unwrap();
    assert_eq!(dataset.images.decode(&Id::Number(73)).unwrap(), pixels);
}

#[test]
fn a_dataset_is_present_incomplete_or_missing() {
    let copy = Copy::of(&["coco", "vqav2", "vizwiz", "vqa-rephrasings", "iv-vqa", "textvqa"]);
    let presence = |name: &str| find_dataset(name).unwrap().presence(&copy.path(name)).unwrap();
    let state = |name: &str| presence(name).state;
    assert_eq!(state("vqa-rephrasings"), State::Present);
    assert_eq!((state("iv-vqa"), state("textvqa")), (State::Present, State::Present));
    // Its folder of images is there, but holds too few.
    let vqav2 = presence("vqav2");
    assert_eq!(vqav2.state, State::Incomplete);
    assert_eq!(vqav2.missing, [(copy.path("coco/val2014"), "6 of 40504 images".to_owned())]);
    assert!(vqav2.missing_for_training.is_empty());
    let iv = presence("iv-vqa").missing_for_training;
    assert_eq!(iv[2], copy.path("iv-vqa/train2014"));
    let missing = presence("ok-vqa").missing;
    assert_eq!(missing[1], (copy.path("ok-vqa/mscoco_val2014_annotations.json"), "missing".to_owned()));
    assert_eq!(state("advqa"), State::Incomplete, "its images are COCO's");
    fs::remove_dir_all(copy.path("coco")).unwrap();
    assert_eq!((state("advqa"), state("vqa-rephrasings")), (State::Missing, State::Incomplete));
    let moved = copy.path("textvqa/anywhere/below");
    fs::create_dir_all(&moved).unwrap();
    fs::rename(copy.path("textvqa/train_images"), moved.join("train_images")).unwrap();
    assert_eq!(state("textvqa"), State::Present);
}

/// `list datasets` in a home that has some of them.
#[test]
fn list_tells_what_is_there_and_what_is_not() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("digrap-bench/datasets");
    for name in ["coco", "vqa-rephrasings"] {
        copy_folder(&folder(name), &root.join(name));
    }
    let list = |arguments: &[&str]| {
        let output = program_at(home.path()).args(["list", "datasets"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let document: Value = serde_json::from_str(&list(&["--json"])).unwrap();
    let rows = document["datasets"].as_array().unwrap();
    let of = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    let folder_of = |name: &str| root.canonicalize().unwrap_or_else(|_| root.clone()).join(name);
    assert_eq!((&of("vqa-rephrasings")["state"], &of("textvqa")["state"]), (&json!("present"), &json!("missing")));
    assert_eq!(of("iv-vqa")["questions"], json!(null));
    assert_eq!((&of("vqav2")["questions"], &of("vqav2")["images"]), (&json!(214_354), &json!(40_504)));
    assert_eq!(of("iv-vqa")["original"], "vqav2");
    assert_eq!(of("vqa-rephrasings")["measures"], json!(["consensus"]));
    let lacks = &of("textvqa")["lacks"][0];
    assert_eq!(lacks["path"], json!(folder_of("textvqa").join("TextVQA_0.5.1_val.json")));
    assert_eq!(lacks["why"], "missing");
    let plain = list(&[]);
    for line in [
        format!("state: present in {}", folder_of("vqa-rephrasings").display()),
        format!("lacks: {} (missing)", folder_of("textvqa").join("train_images").display()),
        "questions: unknown, images: unknown, metric: official-2021".to_owned(),
        "questions: 214354, images: 40504, metric: official-2021".to_owned(),
    ] {
        assert!(plain.lines().any(|shown| shown.trim_start() == line), "{line}\n{plain}");
    }
}

/// An evaluation of a part says so, in the table and in the document.
#[test]
fn a_part_of_a_dataset_is_told() {
    let home = tempfile::tempdir().unwrap();
    let mut command = program_at(home.path());
    command.arg("vqa").arg("--model").arg(fixture("models/paligemma-tiny-a")).args(["--dataset", "iv-vqa", "advqa"]);
    command.args(["--threads", "1", "--output", "output", "--max-new-tokens", "2", "--json"]);
    let root = home.path().join("digrap-bench/datasets");
    for name in ["coco", "iv-vqa", "advqa"] {
        copy_folder(&folder(name), &root.join(name));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    let portions: Vec<&Value> =
        run["evaluations"].as_array().unwrap().iter().map(|evaluation| &evaluation["portion"]).collect();
    let expected = json!({"questions": 8, "of_questions": 10_000, "images": 4, "of_images": 5_000});
    assert_eq!(portions, [&Value::Null, &expected]);
    let table = fs::read_to_string(home.path().join("output/table.md")).unwrap();
    assert!(table.ends_with("\nadvqa: 8 of 10,000 questions, 4 of 5,000 images.\n"), "{table}");
    assert!(!table.contains("iv-vqa: 8 of"), "its numbers are unknown");
    let results = |name: &str| fs::read_to_string(home.path().join(format!("output/{name}.results.json"))).unwrap();
    let read = results::load(&home.path().join("output/iv-vqa.results.json"), &loaded("iv-vqa", "iv-vqa")).unwrap();
    assert_eq!((read.len(), results("iv-vqa").matches("image_id").count()), (8, 8));
    assert!(!results("advqa").contains("image_id"));
}

/// A combined list is read as a set of one's own too; so are lists with inline answers and files named by records.
#[test]
fn lists_with_answers_are_read_without_an_annotation_file() {
    let load = |questions: &str, images: Option<&Path>| {
        let questions = folder(questions);
        vqa_json::load(vqa_json::Files { questions: &questions, annotations: None, images, image_name: None }).unwrap()
    };
    let images = folder("coco");
    let combined = load("combined/vqav2/combined_data.json", Some(&images));
    let official = loaded("vqav2", "vqav2");
    assert_eq!(combined.questions.len(), official.questions.len());
    for (at, (one, other)) in combined.questions.iter().zip(&official.questions).enumerate() {
        assert_eq!((&one.question_id, &one.text), (&other.question_id, &other.text));
        assert_eq!(combined.images.decode(&one.image_id).unwrap(), official.images.decode(&other.image_id).unwrap());
        let [left, right] = [&combined, &official].map(|dataset| dataset.references.as_ref().unwrap());
        assert!(left.answers(at).map(|a| a.text).eq(right.answers(at).map(|a| a.text)));
        assert_eq!(left.answer_type(at), None);
    }
    let vizwiz = load("vizwiz/Annotations/val.json", Some(&folder("vizwiz/val")));
    assert_eq!(vizwiz.questions, loaded("vizwiz", "vizwiz").questions);
    vizwiz.images.decode(&vizwiz.questions[0].image_id).unwrap();
    let test = load("vizwiz/Annotations/test.json", None);
    assert!(test.references.is_none() && test.questions.len() == 8);
    let split = load("vqa-cp-v2/vqacp_v2_test_questions.json", Some(&images));
    split.questions.iter().for_each(|question| drop(split.images.decode(&question.image_id).unwrap()));
}
