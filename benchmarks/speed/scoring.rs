//! Loading and scoring as many questions as VQAv2 val has, each with ten answers, from a fixed seed.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use digrap_bench::data::{Dataset, results, vqa_json};
use digrap_bench::score::{METRICS, ScoreOptions, find_metric, score, summarise};
use divan::counter::ItemsCount;
use tempfile::TempDir;

const WORDS: [&str; 24] = [
    "yes",
    "no",
    "red",
    "The dog",
    "two",
    "2",
    "none",
    "t-shirt",
    "U.S.A.",
    "can't",
    "cant",
    "black and white",
    "1,000",
    "left",
    "a cat",
    "water",
    "blue",
    "Yes",
    "tennis racket",
    "on table",
    "white",
    "right",
    "3:50",
    "wood",
];

struct Files {
    folder: TempDir,
    count: usize,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self) -> Dataset {
        let (questions, annotations) = (self.path("questions.json"), self.path("annotations.json"));
        let annotations = Some(&*annotations);
        let files = vqa_json::Files { questions: &questions, annotations, images: None, image_name: None };
        vqa_json::load(files).expect("the generated files are sound")
    }
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let files = Files { folder: TempDir::new().expect("a temporary folder"), count: crate::size(214_354, 300) };
    write_files(&files);
    files
});

static DATASET: LazyLock<Dataset> = LazyLock::new(|| FILES.load());

static ANSWERS: LazyLock<Vec<Box<str>>> =
    LazyLock::new(|| results::load(&FILES.path("results.json"), &DATASET).expect("the generated results are sound"));

/// A linear congruential generator (Knuth's MMIX constants): the benchmark needs repeatable, not good, numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    /// An answer: common words often, about one in thirty unlike any other.
    fn answer(&mut self) -> String {
        let word = WORDS[self.below(WORDS.len())];
        if self.below(30) == 0 { format!("{word} {}", self.below(1 << 20)) } else { word.to_owned() }
    }
}

fn write_files(files: &Files) {
    let mut numbers = Numbers(1);
    let mut questions = String::from(r#"{"data_subtype":"val2014","questions":["#);
    let mut annotations = String::from(r#"{"annotations":["#);
    let mut results = String::from("[");
    for index in 0..files.count {
        let (comma, image) = (if index == 0 { "" } else { "," }, index / 5);
        let usual = numbers.answer();
        let answers = (1..=10).map(|number| {
            let text = if numbers.below(3) == 0 { numbers.answer() } else { usual.clone() };
            format!(r#"{{"answer": "{text}", "answer_confidence": "yes", "answer_id": {number}}}"#)
        });
        let answers = answers.collect::<Vec<_>>().join(", ");
        let (kind, prefix) = (["yes/no", "number", "other"][index % 3], index % 65);
        let _ = write!(
            questions,
            r#"{comma}{{"image_id": {image}, "question": "What is number {index}?", "question_id": {index}}}"#
        );
        let _ = write!(
            annotations,
            r#"{comma}{{"question_type": "what {prefix}", "multiple_choice_answer": "{usual}", "answers": [{answers}], "image_id": {image}, "answer_type": "{kind}", "question_id": {index}}}"#
        );
        let predicted = if numbers.below(2) == 0 { usual } else { numbers.answer() };
        let _ = write!(results, r#"{comma}{{"question_id": {index}, "answer": "{predicted}"}}"#);
    }
    for (name, text, end) in
        [("questions.json", questions, "]}"), ("annotations.json", annotations, "]}"), ("results.json", results, "]")]
    {
        fs::write(files.path(name), text + end).expect("the temporary folder can be written to");
    }
}

#[divan::bench(sample_count = 10)]
fn load_official_files(bencher: divan::Bencher<'_, '_>) {
    let files = &*FILES;
    bencher.counter(ItemsCount::new(files.count)).bench(|| files.load());
}

#[divan::bench(sample_count = 10)]
fn load_results(bencher: divan::Bencher<'_, '_>) {
    let (path, dataset) = (FILES.path("results.json"), &*DATASET);
    bencher.counter(ItemsCount::new(FILES.count)).bench(|| results::load(&path, dataset));
}

#[divan::bench(sample_count = 10, args = METRICS.iter().map(|metric| metric.name))]
fn score_answers(bencher: divan::Bencher<'_, '_>, name: &str) {
    let metric = find_metric(name).expect("a name of the slice");
    let (references, answers) = (DATASET.references.as_ref().expect("answers were loaded"), &*ANSWERS);
    bencher.counter(ItemsCount::new(FILES.count)).bench(|| score(metric, ScoreOptions::default(), answers, references));
}

#[divan::bench(sample_count = 10)]
fn summarise_scores(bencher: divan::Bencher<'_, '_>) {
    let (references, clusters) = (DATASET.references.as_ref().expect("answers were loaded"), DATASET.clusters());
    let scores = score(&METRICS[0], ScoreOptions::default(), &ANSWERS, references).expect("one answer a question");
    bencher.counter(ItemsCount::new(FILES.count)).bench(|| summarise(&METRICS[0], &scores, references, &clusters));
}
