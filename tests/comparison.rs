//! The gate: how often it fails where nothing has changed, how often it finds a drop, and what a user sees of it.
//!
//! Simulations change answers, which are strings, and leave scoring, test and verdict to the library.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use digrap_bench::data::image::RgbImage;
use digrap_bench::data::{Dataset, Id, ImageSource, Question, Relations};
use digrap_bench::error::{Error, Result};
use digrap_bench::random::Random;
use digrap_bench::report;
use digrap_bench::score::{References, find_metric};
use digrap_bench::store::{AnswerSettings, Store, StoredAnswer};
use digrap_bench::suite::{
    AnsweredTwice, Comparison, DatasetComparison, Differing, Limits, Outcome, PlannedDataset, Side, Thresholds,
    compare_answers, verdict,
};
use serde_json::Value;

use crate::support::{answer_settings, fixture, program_at};

/// No picture is looked at.
#[derive(Debug)]
struct NoImages;

impl ImageSource for NoImages {
    fn check(&self, _: &Id) -> Result<()> {
        Ok(())
    }

    fn identity(&self, _: &Id) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn decode(&self, _: &Id) -> Result<RgbImage> {
        Err(Error::input("there are no images"))
    }
}

/// Questions about images, so many about each, whose right answer is `red`: most people gave it, or three of ten did.
fn dataset(name: &str, n: usize, per_image: usize) -> PlannedDataset {
    let mut references = References::builder();
    for question in 0..n {
        let right = if question % 5 < 3 { 8 } else { 3 };
        for person in 0..10 {
            let other = ["crimson", "rose", "dark red"][person % 3];
            references.answer(if person < right { "red" } else { other }, None, None).unwrap();
        }
        references.end_question(Some("other"), None).unwrap();
    }
    let question = |question: usize| Question {
        question_id: Id::Number(question as i64),
        image_id: Id::Number((question / per_image) as i64),
        text: "what colour is it?".into(),
    };
    let dataset = Dataset {
        name: name.to_owned(),
        questions: (0..n).map(question).collect(),
        references: Some(references.finish()),
        relations: Relations::default(),
        images: Arc::new(NoImages),
    };
    PlannedDataset { dataset, metric: find_metric("official-2021").unwrap(), row: None }
}

/// What is said to one question in both runs.
#[derive(Clone, Copy)]
struct Said {
    right_before: bool,
    right_now: bool,
}

/// Answers of both runs, unit by unit: a unit is one question, or all questions of an image, which flip together.
fn answers(n: usize, unit: usize, said: impl Fn(u64) -> Said) -> [Vec<Box<str>>; 2] {
    let text =
        |right: bool, question: usize| -> Box<str> { if right { "Red." } else { ["blue", "no"][question % 2] }.into() };
    let of = |question: usize| said((question / unit) as u64);
    [
        (0..n).map(|question| text(of(question).right_before, question)).collect(),
        (0..n).map(|question| text(of(question).right_now, question)).collect(),
    ]
}

/// Six in a hundred units are answered by chance, anew in each run; the others always alike.
fn unchanged(random: Random) -> impl Fn(u64) -> Said {
    move |unit| {
        let random = random.number(unit);
        if random.uniform(0) < 0.06 {
            return Said { right_before: random.uniform(1) < 0.5, right_now: random.uniform(2) < 0.5 };
        }
        let right = random.uniform(1) < 0.7;
        Said { right_before: right, right_now: right }
    }
}

/// Four in a hundred units are lost, two gained.
fn dropped(random: Random) -> impl Fn(u64) -> Said {
    move |unit| {
        let random = random.number(unit);
        let right = random.uniform(1) < 0.7;
        match random.uniform(0) {
            change if change < 0.04 => Said { right_before: true, right_now: false },
            change if change < 0.06 => Said { right_before: false, right_now: true },
            _ => Said { right_before: right, right_now: right },
        }
    }
}

fn judged(planned: &[PlannedDataset], answers: &[[Vec<Box<str>>; 2]]) -> Vec<DatasetComparison> {
    let pairs = planned.iter().zip(answers);
    let answered: Vec<AnsweredTwice> =
        pairs.map(|(planned, [baseline, current])| AnsweredTwice { planned, baseline, current }).collect();
    compare_answers(&answered, &Thresholds::strict(planned.len()), 0).unwrap()
}

fn fails(compared: &[DatasetComparison]) -> bool {
    verdict(compared).exit_code() == 1
}

/// Shown whether the test passes or not.
fn tell(text: fmt::Arguments) {
    std::io::stderr().lock().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// Ten datasets: with one question about each image or several, in some of which the questions of an image flip together.
const TEN: [(usize, usize, bool); 10] = [
    (500, 1, false),
    (480, 1, false),
    (450, 5, true),
    (400, 4, true),
    (440, 2, false),
    (500, 5, false),
    (420, 3, true),
    (460, 1, false),
    (480, 8, true),
    (500, 2, true),
];

fn ten() -> Vec<PlannedDataset> {
    TEN.iter().enumerate().map(|(at, (n, per_image, _))| dataset(&format!("set-{at}"), *n, *per_image)).collect()
}

fn ten_unchanged(random: Random) -> Vec<[Vec<Box<str>>; 2]> {
    let one = |(at, (n, per_image, together)): (u64, &(usize, usize, bool))| {
        answers(*n, if *together { *per_image } else { 1 }, unchanged(random.number(at)))
    };
    (0..).zip(&TEN).map(one).collect()
}

/// At a family-wise level of 5 %, 50 of 1,000 comparisons without any change may fail, and 64 are two standard errors more.
/// The test is exact and discrete, so that fewer do.
#[test]
fn without_a_change_few_comparisons_fail() {
    let (planned, random) = (ten(), Random::new(7).name("no change"));
    let failed = (0..1000).filter(|run| fails(&judged(&planned, &ten_unchanged(random.number(*run))))).count();
    tell(format_args!("gate, no change: {failed} of 1000 comparisons of ten datasets fail"));
    assert!((5..=64).contains(&failed), "{failed}");
}

/// Share of comparisons that find a drop in the first dataset.
fn power(runs: u64, planned: &[PlannedDataset], change: impl Fn(Random) -> Vec<[Vec<Box<str>>; 2]>) -> f64 {
    let random = Random::new(11).name("drop");
    let found = |run: &u64| {
        let compared = judged(planned, &change(random.number(*run)));
        assert_eq!(compared[0].outcome == Outcome::Fails, compared[0].drop_p_value_holm <= 0.05);
        compared[0].outcome == Outcome::Fails
    };
    (0..runs).filter(found).count() as f64 / runs as f64
}

#[test]
fn a_planted_drop_is_found() {
    const N: usize = 2000;
    let alone = power(400, &[dataset("alone", N, 1)], |random| vec![answers(N, 1, dropped(random))]);
    tell(format_args!(
        "gate, 4 % lost and 2 % gained of 2,000 questions on 2,000 images: found in {:.1} %",
        100.0 * alone
    ));
    assert!(alone >= 0.9, "{alone}");

    let mut planned = ten();
    planned[0] = dataset("dropped", N, 1);
    let among_ten = power(200, &planned, |random| {
        let mut ten = ten_unchanged(random.name("others"));
        ten[0] = answers(N, 1, dropped(random));
        ten
    });
    tell(format_args!("gate, the same in one of ten datasets: found in {:.1} %", 100.0 * among_ten));
    assert!((0.7..0.97).contains(&among_ten), "{among_ten}");

    let fives = [dataset("fives", N, 5)];
    let independent = power(400, &fives, |random| vec![answers(N, 1, dropped(random))]);
    let together = power(400, &fives, |random| vec![answers(N, 5, dropped(random))]);
    tell(format_args!(
        "gate, the same with five questions on each of 400 images: found in {:.1} %, and where those of an image flip \
         together in {:.1} %",
        100.0 * independent,
        100.0 * together
    ));
    assert!(independent > 0.85, "{independent}");
    assert!((0.2..0.65).contains(&together), "{together}");
}

/// A test that takes questions of one image for independent finds changes where there are none; this one does not.
#[test]
fn questions_that_flip_together_count_once() {
    let (random, fives) = (Random::new(3).name("together"), [dataset("fives", 1000, 5)]);
    let alone = [dataset("alone", 1000, 1)];
    let count = |planned: &[PlannedDataset]| {
        let said = |run| [answers(1000, 5, unchanged(random.number(run)))];
        (0..300).filter(|run| fails(&judged(planned, &said(*run)))).count()
    };
    let (clustered, unclustered) = (count(&fives), count(&alone));
    assert!(clustered <= 24, "{clustered} of 300 fail at 5 %");
    assert!(unclustered >= 30, "{unclustered} of 300 fail without clusters");
}

/// What a comparison says of one dataset, in numbers that can be counted by hand.
#[test]
fn a_comparison_counts_what_has_changed() {
    let planned = [dataset("hand", 20, 2)];
    let mut said = answers(20, 1, |_| Said { right_before: true, right_now: true });
    // Question 3 has three answers `red` of ten, so that `red` scores 0.9; question 5 has eight.
    (said[1][3], said[1][5], said[0][8]) = ("blue".into(), "Crimson".into(), "".into());
    let answered = [AnsweredTwice { planned: &planned[0], baseline: &said[0], current: &said[1] }];
    let one = compare_answers(&answered, &Thresholds::strict(1), 1).unwrap().remove(0);
    assert_eq!((one.n, one.images, one.lost.count, one.gained.count), (20, 10, 2, 1));
    let flip = &one.lost.first[0];
    assert_eq!((flip.question_id.as_str(), flip.image_id.as_str(), flip.reference.as_str()), ("3", "1", "red"));
    assert_eq!(flip.answers, ["Red.", "blue"]);
    assert!((flip.scores[0] - 0.9).abs() < 1e-12 && flip.scores[1] == 0.0, "{flip:?}");
    // Of 20 scores: 0.9 lost, 1 - 0.3 lost (one person said `crimson`), 0.9 gained.
    assert!((one.difference + 100.0 * 0.7 / 20.0).abs() < 1e-9, "{}", one.difference);
    assert_eq!(one.gained.first.len() + one.lost.first.len(), 2);
    assert_eq!((one.outcome, one.failures.len()), (Outcome::NoChange, 0));
}

fn side(source: &str, weights: &str) -> Side {
    let settings = AnswerSettings { weights: weights.to_owned(), ..answer_settings() };
    Side { source: source.to_owned(), model: "m_1\u{1}".to_owned(), settings }
}

/// Two questions lost and one gained of twenty, with a threshold that this breaks.
fn by_hand() -> Comparison {
    let planned = [dataset("hand", 20, 2)];
    let mut said = answers(20, 1, |_| Said { right_before: true, right_now: true });
    (said[1][3], said[1][5], said[0][8]) = ("a|b\n`c` <i>".into(), "x".repeat(200).into(), "".into());
    let answered = [AnsweredTwice { planned: &planned[0], baseline: &said[0], current: &said[1] }];
    let limits = vec![Limits { max_drop: Some(1.0), ..Limits::default() }];
    let datasets = compare_answers(&answered, &Thresholds { level: 0.05, limits }, 1).unwrap();
    let verdict = verdict(&datasets);
    let [baseline, current] = [side("base", &"0f".repeat(32)), side("run\u{7}<&\"", "new")];
    let differing = Differing {
        what: "weights".to_owned(),
        baseline: baseline.settings.weights.clone(),
        current: current.settings.weights.clone(),
    };
    let passes = verdict.exit_code() == 0;
    Comparison { verdict, passes, level: 0.05, baseline, current, differing: vec![differing], notes: vec![], datasets }
}

#[test]
fn a_comparison_is_markdown() {
    let expected = "\
## FAIL: 1 of 1 dataset: hand

- hand: accuracy fell by 5.00 points, more than max-drop = 1

Baseline: `base` (m_1). Current: `run'<&\"` (m_1).

| dataset |  n | images | baseline % | current % | difference |   95 % interval |     p | p (Holm) | detectable | lost / gained | verdict |
|---------|---:|-------:|-----------:|----------:|-----------:|----------------:|------:|---------:|-----------:|--------------:|---------|
| hand    | 20 |     10 |      91.50 |     86.50 |      -5.00 | -23.93 to 13.93 | 0.375 |    0.375 |          - |         2 / 1 | FAIL    |
";
    let text = report::comparison(&by_hand());
    assert!(text.starts_with(expected), "{text}");
    let tail = "\
### What differs

|         | baseline          | current |
|---------|-------------------|---------|
| weights | `0f0f0f0f0f0f...` | `new`   |

### Questions whose score has changed

**hand**: 2 lost (first 1), 1 gained

|        | question | image | text               | people | baseline | current              |        score |
|--------|---------:|------:|--------------------|--------|----------|----------------------|-------------:|
| lost   |        3 |     1 | what colour is it? | red    | Red.     | a\\|b \\`c\\` &lt;i&gt; | 0.90 to 0.00 |
| gained |        8 |     4 | what colour is it? | red    | -        | Red.                 | 0.00 to 0.90 |
";
    assert!(text.ends_with(tail), "{text}");
}

#[test]
fn a_comparison_is_a_file_of_junit() {
    let text = report::junit(&by_hand());
    let expected = "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites tests=\"1\" failures=\"1\" errors=\"0\">
<testsuite name=\"digrap-bench compare\" tests=\"1\" failures=\"1\" errors=\"0\" skipped=\"0\">
<testcase classname=\"digrap-bench.compare\" name=\"hand\">
<failure type=\"regression\" message=\"accuracy fell by 5.00 points, more than max-drop = 1\">FAIL: 20 questions, ";
    assert!(text.starts_with(expected), "{text}");
    let told = "FAIL: 1 of 1 dataset: hand\nbaseline: base\ncurrent: run\u{fffd}&lt;&amp;&quot;";
    assert!(text.ends_with(&format!("<system-out>{told}</system-out>\n</testsuite>\n</testsuites>\n")), "{text}");
}

/// A home, a run of the miniature model on two datasets, and a baseline made of it.
struct Gate {
    home: tempfile::TempDir,
}

const QUESTIONS: [&str; 5] = ["--dataset", "miniature", "miniature-ok", "--limit", "300"];

impl Gate {
    fn new() -> Self {
        let gate = Self { home: tempfile::tempdir().unwrap() };
        let model = fixture("models/miniature-ft");
        let output =
            gate.run(&[&["vqa", "--model", model.to_str().unwrap(), "--output", "run"], &QUESTIONS[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let output = gate.compare("run", &["--bless"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(
            text(&output.stdout).starts_with("miniature-ft is the baseline now, in `base`; there was none before.")
        );
        gate
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = program_at(self.home.path());
        command.env_remove("GITHUB_STEP_SUMMARY").args(arguments).output().unwrap()
    }

    fn compare(&self, current: &str, more: &[&str]) -> Output {
        self.run(&[&["compare", "--baseline", "base", "--current", current], &QUESTIONS[..], more].concat())
    }

    /// A copy of the run's store, in which a share of the answers to a dataset is another one.
    fn altered(&self, name: &str, dataset: &str, share: f64, seed: u64) {
        fs::copy(self.path("run/store.sqlite"), self.path(name)).unwrap();
        let mut store = Store::open(self.path(name)).unwrap();
        let settings = store.models().unwrap()[0].answers.unwrap();
        let (random, mut number, mut changed) = (Random::new(seed), 0, Vec::new());
        let visit = |question: &str, image: &str, content, _: &str| {
            number += 1;
            if random.uniform(number) < share {
                let (question_id, image_id) = (question.to_owned(), image.to_owned());
                changed.push(StoredAnswer { question_id, image_id, content, answer: "<b>`other`|\n@x".to_owned() });
            }
            Ok(())
        };
        store.for_each_answer(settings, dataset, visit).unwrap();
        assert!(changed.len() > 3);
        store.commit(settings, dataset, &changed).unwrap();
    }

    fn files(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.path(folder)).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut files: Vec<_> = entries.map(|path| (name(&path), fs::read(&path).unwrap())).collect();
        files.sort();
        files
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_gate_exits_as_it_says() {
    let gate = Gate::new();
    let blessed = gate.files("base");
    let names: Vec<&str> = blessed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["baseline.json", "miniature-ok.results.json", "miniature.results.json"]);
    let results = fs::read(gate.path("run/miniature.results.json")).unwrap();
    assert!(blessed.contains(&("miniature.results.json".to_owned(), results)));

    let same = gate.compare("run", &[]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stderr));
    assert!(text(&same.stdout).starts_with("## PASS: no significant drop on 2 datasets\n"));
    assert!(text(&same.stdout).contains("### What differs\n\nWeights, settings and versions are the same."));

    gate.altered("worse.sqlite", "miniature", 0.08, 5);
    let worse = gate.compare("worse.sqlite", &["--output", "report", "--examples", "2"]);
    assert_eq!(worse.status.code(), Some(1), "{}", text(&worse.stderr));
    let told = text(&worse.stdout);
    assert!(told.starts_with("## FAIL: 1 of 2 datasets: miniature\n\n- miniature: accuracy fell by "), "{told}");
    // What a model says is shown, but is no Markdown, no HTML and no other cell.
    assert!(told.contains("&lt;b&gt;\\`other\\`\\| &#64;x"), "{told}");
    assert!(told.contains("lost (first 2), 0 gained"), "{told}");
    assert_eq!(fs::read_to_string(gate.path("report/comparison.md")).unwrap(), told);
    let document: Value = serde_json::from_slice(&fs::read(gate.path("report/comparison.json")).unwrap()).unwrap();
    assert_eq!(
        (&document["verdict"], &document["passes"]),
        (&"FAIL: 1 of 2 datasets: miniature".into(), &false.into())
    );
    assert_eq!(
        (&document["datasets"][0]["outcome"], &document["datasets"][1]["outcome"]),
        (&"fails".into(), &"no-change".into())
    );
    assert!(document["datasets"][0]["detectable_drop"].as_f64().unwrap() > 0.0);
    assert_eq!(document["datasets"][1]["detectable_drop"], Value::Null);
    let junit = fs::read_to_string(gate.path("report/junit.xml")).unwrap();
    assert!(
        junit.contains("<testsuites tests=\"2\" failures=\"1\" errors=\"0\">")
            && junit.matches("<failure ").count() == 1,
        "{junit}"
    );

    let printed = gate.compare("worse.sqlite", &["--json", "--examples", "2"]);
    assert_eq!(
        (printed.status.code(), printed.stdout),
        (Some(1), fs::read(gate.path("report/comparison.json")).unwrap())
    );
    assert_eq!(gate.files("base"), blessed, "a baseline changes by --bless alone");
}

#[test]
fn thresholds_decide_what_passes() {
    let gate = Gate::new();
    gate.altered("worse.sqlite", "miniature", 0.08, 5);
    let with = |thresholds: &str, current: &str| {
        fs::write(gate.path("gate.toml"), thresholds).unwrap();
        let output = gate.compare(current, &["--thresholds", "gate.toml"]);
        (output.status.code().unwrap(), text(&output.stdout).lines().next().unwrap_or_default().to_owned())
    };
    let tolerated = "## PASS: of 2 datasets, drops that are tolerated on miniature".to_owned();
    assert_eq!(with("[dataset.miniature]\ntolerated-drop = 20\n", "worse.sqlite"), (0, tolerated));
    let fails = "## FAIL: 1 of 2 datasets: miniature".to_owned();
    assert_eq!(
        with("tolerated-drop = 0.5\n[dataset.miniature-ok]\ntolerated-drop = 20\n", "worse.sqlite"),
        (1, fails.clone())
    );
    assert_eq!(with("tolerated-drop = 20\nmax-drop = 1\n", "worse.sqlite"), (1, fails));
    let low = "## FAIL: 1 of 2 datasets: miniature-ok".to_owned();
    assert_eq!(with("[dataset.miniature-ok]\nmin-accuracy = 99\n", "run"), (1, low));
    // Few answers are another: no drop is shown, unless any drop counts.
    gate.altered("slightly.sqlite", "miniature", 0.03, 12);
    let strict = with("max-drop = 0.01\n", "slightly.sqlite");
    assert_eq!((with("level = 0.0001\n", "slightly.sqlite").0, strict.0), (0, 1));
}

#[test]
fn the_example_of_thresholds_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/ci/gate.toml");
    let thresholds = Thresholds::load(&path, &["miniature", "other"]).unwrap();
    let [first, second] = [0, 1].map(|at| thresholds.limits[at]);
    assert_eq!((thresholds.level, first.tolerated_drop, second.tolerated_drop), (0.05, 0.0, 0.5));
    assert_eq!((first.max_drop, second.min_accuracy), (Some(5.0), None));
}

#[test]
fn a_new_baseline_says_what_it_replaces() {
    let gate = Gate::new();
    let blessed = gate.files("base");
    gate.altered("worse.sqlite", "miniature", 0.08, 5);
    let output = gate.compare("worse.sqlite", &["--bless"]);
    let told = text(&output.stdout);
    assert!(told.starts_with("miniature-ft is the baseline now, in `base`; it was miniature-ft before.\n"), "{told}");
    assert_ne!(gate.files("base"), blessed);
    assert_eq!(gate.compare("worse.sqlite", &[]).status.code(), Some(0));
    let better = gate.compare("run", &[]);
    assert!(text(&better.stdout).contains("| pass (better) |"), "{}", text(&better.stdout));
    // The same run gives the same bytes, and a baseline of fewer datasets keeps no answers to others.
    gate.compare("run", &["--bless"]);
    assert_eq!(gate.files("base"), blessed);
    let alone = ["compare", "--baseline=base", "--current=run", "--dataset=miniature", "--limit=300", "--bless"];
    assert!(gate.run(&alone).status.success());
    assert_eq!(gate.files("base").len(), 2);
}

#[test]
fn github_shows_the_comparison_with_the_job() {
    let gate = Gate::new();
    fs::write(gate.path("summary.md"), "# Another step\n").unwrap();
    let arguments = [&["compare", "--baseline", "run", "--current", "base"], &QUESTIONS[..]].concat();
    let output = command_with_summary(&gate, "summary.md").args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let summary = fs::read_to_string(gate.path("summary.md")).unwrap();
    assert_eq!(summary, format!("# Another step\n{}\n", text(&output.stdout)));
    // The verdict does not depend on it.
    gate.altered("worse.sqlite", "miniature", 0.08, 5);
    let arguments = [&["compare", "--baseline", "run", "--current", "worse.sqlite"], &QUESTIONS[..]].concat();
    let output = command_with_summary(&gate, "nowhere/summary.md").args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("## FAIL: 1 of 2 datasets: miniature\n"));
    let warned = "warning: cannot write `nowhere/summary.md`, which GITHUB_STEP_SUMMARY names\ncaused by: ";
    assert!(text(&output.stderr).starts_with(warned), "{}", text(&output.stderr));
}

fn command_with_summary(gate: &Gate, summary: &str) -> Command {
    let mut command = program_at(gate.home.path());
    command.env("GITHUB_STEP_SUMMARY", summary);
    command
}

#[test]
fn a_refusal_takes_the_place_of_an_earlier_verdict() {
    let gate = Gate::new();
    let arguments = |current| {
        let first = ["compare", "--output", "report", "--baseline", "run", "--current", current];
        [&first[..], &QUESTIONS[..]].concat()
    };
    assert!(gate.run(&arguments("base")).status.success());
    assert!(fs::read_to_string(gate.path("report/junit.xml")).unwrap().contains("failures=\"0\" errors=\"0\""));
    let refused = command_with_summary(&gate, "summary.md").args(arguments("<nothing>")).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    let files: Vec<String> = gate.files("report").into_iter().map(|(name, _)| name).collect();
    assert_eq!(files, ["comparison.md", "junit.xml"]);
    let told = fs::read_to_string(gate.path("report/comparison.md")).unwrap();
    assert!(told.starts_with("## NOT COMPARED\n\n- ") && told.contains("&lt;nothing&gt;"), "{told}");
    assert_eq!(fs::read_to_string(gate.path("summary.md")).unwrap(), told + "\n");
    let junit = fs::read_to_string(gate.path("report/junit.xml")).unwrap();
    assert!(junit.contains("<testsuites tests=\"1\" failures=\"0\" errors=\"1\">"), "{junit}");
    assert!(junit.contains("<error type=\"refusal\" message=\"") && junit.contains("&lt;nothing&gt;"), "{junit}");
    // Nor does one stay where another report is in the way.
    assert!(gate.run(&arguments("base")).status.success());
    fs::remove_file(gate.path("report/comparison.md")).unwrap();
    fs::create_dir(gate.path("report/comparison.md")).unwrap();
    let stopped = gate.run(&arguments("base"));
    assert_eq!(stopped.status.code(), Some(2), "{}", text(&stopped.stderr));
    assert!(text(&stopped.stderr).starts_with("error: cannot remove the earlier `report/comparison.md`\n"));
    assert!(!gate.path("report/junit.xml").exists() && !gate.path("report/comparison.json").exists());
}

#[test]
fn edits_of_one_question_stand_and_fall_together() {
    // Two questions about image 1, an edit of the first with image 2, another with image 3; then one alone.
    let PlannedDataset { mut dataset, .. } = dataset("iv-vqa", 5, 1);
    for (question, (id, image)) in dataset.questions.iter_mut().zip([(7, 1), (8, 1), (7, 2), (7, 3), (9, 4)]) {
        (question.question_id, question.image_id) = (Id::Number(id), Id::Number(image));
    }
    assert_eq!(dataset.clusters(), [0, 0, 0, 0, 4]);
    // Identifiers of a set of one's own may count the questions of each image.
    dataset.name = "custom".to_owned();
    assert_eq!(dataset.clusters(), [0, 0, 2, 3, 4]);
    // Rephrasings name the question they were made from.
    for (question, id) in dataset.questions.iter_mut().zip(1..) {
        (question.question_id, question.image_id) = (Id::Number(id), Id::Number(id));
    }
    dataset.relations.originals = vec![None, Some(Id::Number(1)), None, Some(Id::Number(3)), Some(Id::Number(1))];
    assert_eq!(dataset.clusters(), [0, 0, 2, 2, 0]);
}

#[test]
fn nothing_cannot_pass_and_few_flips_detect_nothing() {
    assert!(compare_answers(&[], &Thresholds::strict(0), 0).is_err());
    let planned = [dataset("few", 100, 1)];
    let differing = |changed: u64| {
        let said = move |unit| Said { right_before: true, right_now: unit >= changed };
        judged(&planned, &[answers(100, 1, said)]).remove(0)
    };
    // Of signs of four images one in 16 is as low: never below 5 %.
    let four = differing(4);
    assert_eq!((four.drop_p_value, four.detectable_drop), (0.0625, None));
    let five = differing(5);
    assert!(five.drop_p_value == 0.03125 && five.detectable_drop.is_some(), "{five:?}");
}

/// The committed answers of `miniature-ft`, and the same with so many in a hundred of one dataset's changed by a seed.
fn altered(share: f64, folder: &Path) -> std::path::PathBuf {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/miniature/answers.jsonl");
    let random = Random::new(11);
    let mut lines = Vec::new();
    for (number, line) in fs::read_to_string(committed).unwrap().lines().enumerate() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        let hit = record["dataset"] == "miniature-rephrasings" && random.uniform(number as u64) < share;
        if hit {
            record["answer"] = Value::from("a wrong answer");
        }
        lines.push(if hit { record.to_string() } else { line.to_owned() });
    }
    let path = folder.join("answers.jsonl");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

#[test]
fn the_committed_baseline_passes_its_own_answers_and_fails_a_seeded_regression() {
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports/baseline");
    for (share, code, told) in
        [(0.0, 0, "PASS: no significant drop on 10 datasets"), (0.03, 1, "FAIL: 1 of 10 datasets: ")]
    {
        let home = tempfile::tempdir().unwrap();
        let log = altered(share, home.path());
        let imported = program_at(home.path()).args(["runs", "import", "--store", "store.sqlite"]).arg(log).output();
        assert!(imported.unwrap().status.success());
        let compared = program_at(home.path())
            .args(["compare", "--suite", "miniature", "--current", "store.sqlite#miniature-ft", "--baseline"])
            .arg(&baseline)
            .output()
            .unwrap();
        let text = text(&compared.stdout);
        assert_eq!(compared.status.code(), Some(code), "{text}\n{}", String::from_utf8_lossy(&compared.stderr));
        assert!(text.contains(told), "{text}");
    }
}
