//! Every on-disk format as it should be, and damaged copies with their exact error text.

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};

use digrap_bench::data::{Dataset, Id, easy_vqa, find_dataset, results, vqa_json};
use digrap_bench::error::{Error, Kind, Result};
use digrap_bench::score::{METRICS, ScoreOptions, score};
use tempfile::TempDir;

const QUESTIONS: &str = r#"{"info":{"year":2017},"data_subtype":"val2014","questions":[
    {"image_id":42,"question":"What color is the \"cup\"?","question_id":42001},
    {"question_id":42000,"image_id":42,"question":"Is it full?"}]}"#;
const ANNOTATIONS: &str = r#"{"annotations":[
    {"question_id":42000,"image_id":42,"question_type":"is it","answer_type":"yes/no","multiple_choice_answer":"yes",
     "answers":[{"answer":"yes","answer_confidence":"yes","answer_id":1},{"answer_id":2,"answer":"no","answer_confidence":"maybe"}]},
    {"question_id":42001,"image_id":42,"question_type":"what color is the","answer_type":"other",
     "answers":[{"answer":"caf\u00e9 red","answer_confidence":"yes","answer_id":1}]}],"license":{}}"#;

/// A folder with files of the given names and texts.
struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Result<Dataset> {
        let (questions, annotations, images) = (self.path("q.json"), self.path("a.json"), self.path("images"));
        let annotations = annotations.exists().then_some(&*annotations);
        vqa_json::load(vqa_json::Files { questions: &questions, annotations, images: Some(&images), image_name: None })
    }

    /// The message and its first cause, with the folder's name taken out.
    fn told(&self, error: &Error) -> String {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}").replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn loaded(questions: &str, annotations: &str) -> Dataset {
    Folder::new(&[("q.json", questions), ("a.json", annotations)]).load().unwrap()
}

fn refused(questions: &str, annotations: &str) -> (Kind, String) {
    let folder = Folder::new(&[("q.json", questions), ("a.json", annotations)]);
    let error = folder.load().unwrap_err();
    (error.kind(), folder.told(&error))
}

#[test]
fn official_files_are_read_in_question_order() {
    let folder = Folder::new(&[("q.json", QUESTIONS), ("a.json", ANNOTATIONS)]);
    let dataset = folder.load().unwrap();
    let texts: Vec<&str> = dataset.questions.iter().map(|question| &*question.text).collect();
    assert_eq!(texts, ["What color is the \"cup\"?", "Is it full?"]);
    let references = dataset.references.unwrap();
    let answers: Vec<Vec<_>> =
        (0..2).map(|q| references.answers(q).map(|a| (a.text, a.confidence)).collect()).collect();
    assert_eq!(answers, [vec![("café red", Some("yes"))], vec![("yes", Some("yes")), ("no", Some("maybe"))]]);
    assert_eq!((references.answer_type(0), references.question_type(1)), (Some("other"), Some("is it")));
    let expected = folder.path("images/COCO_val2014_000000000042.jpg");
    let error = dataset.images.identity(&Id::Number(42)).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read the image `{}`", expected.display()));
    assert_eq!(dataset.name, "q");
}

#[test]
fn bare_lists_plain_answers_and_textual_identifiers_are_read() {
    let questions =
        r#"[{"question_id":"a","image_id":"x","question":"?"},{"question_id":"a","image_id":"y","question":"?"}]"#;
    let annotations = r#"[{"question_id":"a","image_id":"y","answers":["no","No"]},
        {"question_id":"a","image_id":"x","answer_type":null,"answers":["yes"],"coco_split":"val2014"}]"#;
    let dataset = loaded(questions, annotations);
    let references = dataset.references.as_ref().unwrap();
    assert_eq!(references.answers(1).map(|answer| answer.text).collect::<Vec<_>>(), ["no", "No"]);
    assert_eq!((references.answer_type(0), references.question_type(0)), (None, None));
    assert!(dataset.question_ids_repeat());
    assert!(dataset.images.check(&Id::Number(1)).unwrap_err().to_string().contains("no file name is known"));
}

#[test]
fn questions_alone_make_a_dataset_without_references() {
    let dataset = Folder::new(&[("q.json", QUESTIONS)]).load().unwrap();
    assert!(dataset.references.is_none() && dataset.questions.len() == 2);
}

#[test]
fn damaged_records_are_named() {
    let one = r#"[{"question_id":1,"image_id":2,"question":"?"}]"#;
    let rows = [
        (
            &QUESTIONS[..100],
            ANNOTATIONS,
            "cannot read `q.json`, at `questions[0].question`: EOF while parsing a string at line 2 column 39",
        ),
        (
            r#"{"questions":[{"question_id":1,"question":"?"}]}"#,
            ANNOTATIONS,
            "cannot read `q.json`, at `questions[0]`: missing field `image_id` at line 1 column 46",
        ),
        (
            r#"[{"question_id":1.5}]"#,
            ANNOTATIONS,
            "cannot read `q.json`, at `[0].question_id`: invalid type: floating point `1.5`, expected an integer or a string at line 1 column 19",
        ),
        (r#"{"list":[]}"#, ANNOTATIONS, "cannot read `q.json`: missing field `questions` at line 1 column 11"),
        (
            "7",
            ANNOTATIONS,
            "cannot read `q.json`: invalid type: integer `7`, expected a list of records, or an object that holds one as `questions` at line 1 column 1",
        ),
        ("", ANNOTATIONS, "cannot read `q.json`: EOF while parsing a value at line 1 column 0"),
        ("[]", ANNOTATIONS, "`q.json` holds no questions"),
        (
            "[[]]",
            ANNOTATIONS,
            "cannot read `q.json`, at `[0]`: invalid type: sequence, expected an object at line 1 column 1",
        ),
        ("[]]", ANNOTATIONS, "cannot read `q.json`: trailing characters at line 1 column 3"),
        (one, "[]", "`a.json` holds no annotations"),
        (
            one,
            r#"[{"question_id":1,"image_id":2,"answers":[]}]"#,
            "cannot read `a.json`, at `[0].answers`: no answers at line 1 column 44",
        ),
        (
            one,
            r#"[{"question_id":1,"image_id":2}]"#,
            "cannot read `a.json`, at `[0]`: missing field `answers` at line 1 column 31",
        ),
        (
            one,
            r#"[{"question_id":1,"image_id":2,"answers":[{"answer":"x"},{"answer":3}]}]"#,
            "cannot read `a.json`, at `[0].answers[1]`: invalid type: integer `3`, expected a string at line 1 column 68",
        ),
        (
            one,
            r#"[{"question_id":1,"image_id":2,"answers":["x",{"answer_id":3}]}]"#,
            "cannot read `a.json`, at `[0].answers[1]`: missing field `answer` at line 1 column 61",
        ),
        (
            one,
            r#"[{"answers":["x"],"answers":["x"]}]"#,
            "cannot read `a.json`, at `[0]`: duplicate field `answers` at line 1 column 27",
        ),
    ];
    for (questions, annotations, expected) in rows {
        assert_eq!(refused(questions, annotations), (Kind::Input, expected.to_owned()));
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let two = r#"[{"question_id":1,"image_id":2,"question":"?"},{"question_id":2,"image_id":2,"question":"?"}]"#;
    let annotation = |id: &str| format!(r#"{{"question_id":{id},"image_id":2,"answers":["x"]}}"#);
    let list = |ids: &[&str]| format!("[{}]", ids.iter().map(|id| annotation(id)).collect::<Vec<_>>().join(","));
    let rows = [
        (
            list(&["2"]),
            "`q.json` and `a.json` do not belong together: 1 questions have no annotation, first: question 1, image 2",
        ),
        (
            list(&["3", "2", "1", "4"]),
            "`q.json` and `a.json` do not belong together: 2 annotations have no question, first: question 3, image 2",
        ),
        (
            list(&["1", "\"2\""]),
            "`q.json` and `a.json` do not belong together: 1 questions have no annotation, first: question 2, image 2; 1 annotations have no question, first: question \"2\", image 2",
        ),
        (list(&["1", "2", "1", "1"]), "2 duplicate records in `a.json`, first: question 1, image 2"),
    ];
    for (annotations, expected) in rows {
        assert_eq!(refused(two, &annotations), (Kind::Incomplete, expected.to_owned()));
    }
    let twice = two.replace("\"question_id\":2", "\"question_id\":1");
    let (kind, message) = refused(&twice, ANNOTATIONS);
    assert_eq!((kind, &*message), (Kind::Incomplete, "1 duplicate records in `q.json`, first: question 1, image 2"));
}

#[test]
fn missing_files_are_named() {
    let folder = Folder::new(&[]);
    let error = folder.load().unwrap_err();
    assert_eq!(folder.told(&error), "cannot read `q.json`: No such file or directory (os error 2)");
}

fn three_questions(image_of_last: i64) -> Dataset {
    let questions = format!(
        r#"[{{"question_id":1,"image_id":7,"question":"?"}},{{"question_id":2,"image_id":7,"question":"?"}},
            {{"question_id":1,"image_id":{image_of_last},"question":"?"}}]"#
    );
    Folder::new(&[("q.json", &questions)]).load().unwrap()
}

#[test]
fn results_are_written_whole_and_read_back() {
    let folder = Folder::new(&[]);
    let target = folder.path("out.json");
    for (questions, expected) in [
        (2, r#"{"question_id":1,"answer":"a \"0\"\n"}"#),
        (3, r#"{"question_id":1,"image_id":7,"answer":"a \"0\"\n"}"#),
    ] {
        let dataset = three_questions(8).limit(questions);
        let mut writer = results::Writer::create(&target, &dataset).unwrap();
        for (position, question) in dataset.questions.iter().enumerate() {
            writer.write(question, &format!("a \"{position}\"\n")).unwrap();
        }
        let before = fs::read_to_string(&target).unwrap_or_default();
        assert!(!before.contains(expected), "nothing appears before the end");
        writer.finish().unwrap();
        assert!(fs::read_to_string(&target).unwrap().contains(expected));
        let answers = results::load(&target, &dataset).unwrap();
        let all: Vec<String> = (0..questions).map(|position| format!("a \"{position}\"\n")).collect();
        assert!(answers.iter().map(|answer| &**answer).eq(all.iter().map(String::as_str)));
    }
    let left: Vec<_> = fs::read_dir(folder.0.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file stays");
}

#[test]
fn an_unfinished_writer_leaves_nothing() {
    let folder = Folder::new(&[]);
    let dataset = three_questions(8);
    let mut writer = results::Writer::create(&folder.path("out.json"), &dataset).unwrap();
    writer.write(&dataset.questions[0], "x").unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 0);
    let error = results::Writer::create(&folder.path("none/out.json"), &dataset).unwrap_err();
    assert!(folder.told(&error).starts_with("cannot write `none/out.json`: No such file"));
}

#[test]
fn results_must_fit_the_questions() {
    let rows = [
        (2, r#"[{"question_id":2,"answer":"x"}]"#, "1 missing (first: question 1) of 2 questions"),
        (
            2,
            r#"[{"question_id":1,"answer":"x"},{"question_id":2,"answer":"x"},{"question_id":2,"answer":"y"},{"question_id":9,"answer":"y"}]"#,
            "1 duplicate (first: question 2), 1 unknown (first: question 9) of 2 questions",
        ),
        (
            2,
            r#"[{"question_id":"1","answer":"x"},{"question_id":2,"answer":"x"}]"#,
            "1 missing (first: question 1), 1 unknown (first: question \"1\") of 2 questions",
        ),
        (
            3,
            r#"[{"question_id":2,"answer":"x"},{"question_id":1,"answer":"x"},{"question_id":1,"image_id":8,"answer":"y"}]"#,
            "1 missing (first: question 1, image 7), 1 without `image_id` (first: question 1) of 3 questions",
        ),
        (
            3,
            r#"[{"question_id":2,"answer":"x"},{"question_id":1,"image_id":7,"answer":"x"},{"question_id":1,"image_id":9,"answer":"y"}]"#,
            "1 missing (first: question 1, image 8), 1 unknown (first: question 1, image 9) of 3 questions",
        ),
    ];
    for (questions, text, expected) in rows {
        let folder = Folder::new(&[("r.json", text)]);
        let error = results::load(&folder.path("r.json"), &three_questions(8).limit(questions)).unwrap_err();
        let expected = format!("results `r.json` do not fit the questions of `q`: {expected}");
        assert_eq!((error.kind(), folder.told(&error)), (Kind::Incomplete, expected));
    }
    let folder = Folder::new(&[("r.json", r#"[{"question_id":1,"answer":"x"},{"question_id":2,"answer":null}]"#)]);
    let error = results::load(&folder.path("r.json"), &three_questions(8)).unwrap_err();
    assert_eq!(
        folder.told(&error),
        "cannot read `r.json`, at `[1].answer`: invalid type: null, expected a string at line 1 column 62"
    );
}

const EASY: &str = r#"[["what is the red shape?","triangle",0],["is there a circle?","no",0],["color?","red",12]]"#;

#[test]
fn easy_vqa_is_found_in_all_its_places() {
    let row = find_dataset("easy-vqa").unwrap();
    for place in ["test", "data/test", "easy_vqa/data/test"] {
        let folder = Folder::new(&[(&format!("{place}/questions.json"), EASY)]);
        let dataset = (row.load)(folder.0.path()).unwrap();
        assert_eq!((dataset.name.as_str(), dataset.questions[2].question_id.clone()), ("easy-vqa", Id::Number(2)));
        let error = dataset.images.identity(&dataset.questions[2].image_id).unwrap_err();
        let expected = folder.path(place).join("images/12.png");
        assert_eq!(error.to_string(), format!("cannot read the image `{}`", expected.display()));
        assert_eq!(dataset.image_numbers(), [0, 0, 1]);
    }
}

#[test]
fn easy_vqa_scores_by_exact_match_under_every_metric() {
    let folder = Folder::new(&[("train/questions.json", EASY)]);
    let dataset = easy_vqa::load(folder.0.path(), "train").unwrap();
    let references = dataset.references.unwrap();
    assert_eq!((references.answer_type(0), references.answer_type(1)), (Some("other"), Some("yes/no")));
    assert_eq!(references.answers(0).len(), 10);
    for metric in METRICS {
        for dict_equality in [false, true] {
            let scores =
                score(metric, ScoreOptions { dict_equality }, &["triangle", "yes", "red"], &references).unwrap();
            assert_eq!(scores, [1.0, 0.0, 1.0], "{}", metric.name);
        }
    }
}

#[test]
fn an_absent_easy_vqa_says_how_to_get_it() {
    let folder = Folder::new(&[]);
    let error = easy_vqa::load(folder.0.path(), "test").unwrap_err();
    let expected = "holds no easy-VQA: no `test/questions.json`, there or in `data/`";
    assert!(error.to_string().ends_with(expected) && error.next_step().unwrap().contains("make demo"), "{error}");
    let folder = Folder::new(&[("test/questions.json", r#"[["what?","red"]]"#)]);
    let error = easy_vqa::load(folder.0.path(), "test").unwrap_err();
    let expected = "cannot read `test/questions.json`: expected a list of [question, answer, image number]: invalid length 2, expected a tuple of size 3 at line 1 column 16";
    assert_eq!(folder.told(&error), expected);
}

#[test]
fn a_folder_is_no_file() {
    let folder = Folder::new(&[("q.json/x", "")]);
    assert_eq!(folder.told(&folder.load().unwrap_err()), "cannot read `q.json`: it is a folder");
    assert!(Path::new(&folder.path("q.json")).is_dir());
}
