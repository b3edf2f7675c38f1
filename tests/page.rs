//! The page in a browser: opened from disk, filtered, searched and read with mouse and keyboard. With `SCREENSHOTS=folder`
//! in the environment, pictures of it are left there for a look.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use digrap_bench::data::image::RgbImage;
use digrap_bench::data::{Dataset, Id, ImageSource, Question, Relations};
use digrap_bench::error::{Error, Result};
use digrap_bench::report::page::{Page, PageEvent, write_page};
use digrap_bench::score::{METRICS, References, ScoreOptions, score};
use digrap_bench::store::{Distances, Maker};
use digrap_bench::suite::{
    Cell, Column, Entry, EntryRun, EntryShift, Leaderboard, LeaderboardDataset, PaperRow, SHIFTS, SampleSet,
    SampledModel, SampledResults, Samples,
};
use serde_json::{Value, json};

use crate::chromium::Browser;
use crate::support::{Random, fixture, program_at};

const MODELS: [(&str, bool); 3] = [("base", true), ("fine-tuned", false), ("digrap mu=0.5", false)];

/// The model that the explorer shows first: the first that was fine-tuned.
const SHOWN: usize = 1;

const TYPES: [&str; 3] = ["yes/no", "number", "other"];

/// Pictures of colours; of every seventh there is none.
#[derive(Debug)]
struct Pictures;

impl ImageSource for Pictures {
    fn check(&self, _: &Id) -> Result<()> {
        Ok(())
    }

    fn identity(&self, image_id: &Id) -> Result<Vec<u8>> {
        Ok(image_id.to_json().into_bytes())
    }

    fn decode(&self, image_id: &Id) -> Result<RgbImage> {
        let Id::Number(number) = image_id else {
            return Err(Error::input("no number"));
        };
        if number % 7 == 3 {
            return Err(Error::input("the file is empty"));
        }
        let side = if number % 2 == 0 { 64 } else { 320 };
        let colour = |step: i64| ((number * step + 60) % 200) as u8;
        let mut image = RgbImage::new(side, side * 3 / 4);
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            let lit = (x / (side / 8) + y / (side / 8)) % 2 == 0;
            pixel.0 = if lit { [colour(37), colour(91), colour(53)] } else { [225, 230, 235] };
        }
        Ok(image)
    }
}

/// A dataset with made-up answers of people and models.
struct MadeSet {
    dataset: Dataset,
    label: &'static str,
    /// By model.
    answers: Vec<Vec<String>>,
    scores: Vec<Vec<f64>>,
    distances: Vec<Vec<Distances>>,
}

struct Made(Vec<MadeSet>);

const THINGS: [&str; 12] = [
    "umbrella",
    "cat",
    "street sign",
    "bus",
    "banana",
    "Äpfel",
    "tennis racket",
    "dog",
    "laptop",
    "cup",
    "kite",
    "horse",
];
const WORDS: [&str; 10] = ["yes", "no", "Yes", "2", "3", "red", "blue", "on the left", "tennis", "nothing at all"];

/// A question of each kind, its answer type, and where among [`WORDS`] its answers are.
fn question(random: &mut Random) -> (String, Option<&'static str>, std::ops::Range<usize>) {
    let thing = THINGS[random.below(THINGS.len())];
    match random.below(4) {
        0 => (format!("Is there a {thing}?"), Some(TYPES[0]), 0..3),
        1 => (format!("How many {thing}s are in the picture?"), Some(TYPES[1]), 3..5),
        2 => (format!("What is next to the {thing}?"), Some(TYPES[2]), 5..10),
        _ => (format!("Why is the {thing} here,\nand not elsewhere?"), None, 5..10),
    }
}

fn made_set(name: &str, label: &'static str, size: usize, seed: u64) -> MadeSet {
    let mut random = Random::new(seed);
    let mut references = References::builder();
    let mut questions = Vec::new();
    let mut answers = vec![Vec::new(); MODELS.len()];
    for number in 0..size as i64 {
        let (text, answer_type, range) = question(&mut random);
        let word = |random: &mut Random| WORDS[range.start + random.below(range.len())];
        let usual = word(&mut random);
        for _ in 0..10 {
            let answer = if random.uniform() < 0.6 { usual } else { word(&mut random) };
            references.answer(answer, None, None).unwrap();
        }
        references.end_question(answer_type, None).unwrap();
        for said in &mut answers {
            let answer = if random.uniform() < 0.5 { usual } else { word(&mut random) };
            said.push(answer.to_owned());
        }
        let image_id = Id::Number(number / 3 % 60);
        questions.push(Question { question_id: Id::Number(1000 + number), image_id, text: text.into() });
    }
    let references = references.finish();
    let scores = answers.iter().map(|said| score(&METRICS[0], ScoreOptions::default(), said, &references).unwrap());
    let scores = scores.collect();
    let mut distance = |mean: f64| Some(mean + 3.0 * random.normal());
    // Of one question in fifty there is no joint distance.
    let mut of_question = |at: usize| Distances {
        vision: distance(20.0),
        question: distance(15.0),
        joint: distance(25.0).filter(|_| at % 50 != 7),
        answer: None,
    };
    let distances = (0..MODELS.len()).map(|_| (0..size).map(&mut of_question).collect()).collect();
    let (relations, images) = (Relations::default(), Arc::new(Pictures));
    let dataset = Dataset { name: name.to_owned(), questions, references: Some(references), relations, images };
    MadeSet { dataset, label, answers, scores, distances }
}

impl Made {
    fn new(size: usize) -> Self {
        let sets = [("in-distribution", "ID"), ("counterfactual vision", "CV"), ("far/away", "Far")];
        Self(sets.iter().zip(1..).map(|((name, label), seed)| made_set(name, label, size, seed)).collect())
    }

    fn samples(&self) -> Samples<'_> {
        let sets = self.0.iter().enumerate().map(|(at, made)| SampleSet {
            dataset: &made.dataset,
            label: made.label,
            shift: &SHIFTS[at % SHIFTS.len()],
            metric: METRICS[0].name,
            results: made.results(),
        });
        let sets = sets.collect();
        Samples { models: MODELS.map(|(name, zero_shot)| SampledModel { name, zero_shot }).to_vec(), sets }
    }

    /// The accuracies of the same models, with an average that some have.
    fn board(&self) -> Leaderboard {
        let column = |name: &str, label: &str, shift, average_of: &[&str]| Column {
            name: name.to_owned(),
            label: label.to_owned(),
            shift,
            average_of: average_of.iter().map(|name| (*name).to_owned()).collect(),
        };
        let sets = self.0.iter().zip(SHIFTS.iter().cycle());
        let mut columns: Vec<Column> =
            sets.map(|(set, shift)| column(&set.dataset.name, set.label, Some(shift.name), &[])).collect();
        columns.push(column("all", "avg.", None, &["any"]));
        let entry = |(model, (name, zero_shot)): (usize, &(&str, bool))| {
            let mut cells: Vec<Option<Cell>> = self.0.iter().map(|set| Some(set.cell(model))).collect();
            cells.push(cells[0].filter(|_| !zero_shot).map(|cell| Cell { n: None, interval: None, ..cell }));
            Entry {
                name: (*name).to_owned(),
                method: name.split_once(' ').map(|(method, _)| method.to_owned()),
                zero_shot: *zero_shot,
                selected_on_reported: model == 2,
                runs: vec![run_named(name)],
                shifts: vec![EntryShift { modality: "joint", cells: vec![Some(25.0); cells.len()] }],
                cells,
            }
        };
        Leaderboard {
            suite: "made up".to_owned(),
            limit: Some(7),
            datasets: self.0.iter().map(MadeSet::described).collect(),
            entries: MODELS.iter().enumerate().map(entry).collect(),
            paper: vec![PaperRow {
                name: "Vanilla FT".to_owned(),
                is_shift: false,
                cells: (0..columns.len()).map(|at| (at != 1).then_some(99.5)).collect(),
            }],
            columns,
        }
    }

    /// Writes the page and returns what was told meanwhile.
    fn write(&self, folder: &Path, images: bool) -> Vec<String> {
        let mut told = Vec::new();
        let page = Page { board: &self.board(), figures: &[], samples: &self.samples(), images };
        write_page(&page, folder, &mut |event: PageEvent| told.push(format!("{event:?}"))).unwrap();
        told
    }

    /// The samples for which something holds, in their order.
    fn that(&self, holds: impl Fn(&MadeSet, usize) -> bool) -> Vec<(usize, usize)> {
        let all = self.0.iter().enumerate().flat_map(|(set, made)| (0..made.len()).map(move |at| (set, at)));
        all.filter(|(set, at)| holds(&self.0[*set], *at)).collect()
    }

    fn question(&self, (set, at): (usize, usize)) -> &str {
        &self.0[set].dataset.questions[at].text
    }
}

impl MadeSet {
    fn results(&self) -> Vec<SampledResults<'_>> {
        let clusters = self.dataset.clusters();
        let of = |model: usize| {
            let answers = self.answers[model].iter().map(String::as_str).collect();
            SampledResults::new(model, answers, &self.scores[model], &self.distances[model], &clusters)
        };
        (0..MODELS.len()).map(of).collect()
    }

    fn cell(&self, model: usize) -> Cell {
        let accuracy = 100.0 * self.scores[model].iter().sum::<f64>() / self.len() as f64;
        let interval = Some([accuracy - 1.0, accuracy + 1.0]);
        Cell { accuracy, spread: None, n: Some(self.len()), interval, change: None, rank: None }
    }

    fn described(&self) -> LeaderboardDataset {
        LeaderboardDataset {
            name: self.dataset.name.clone(),
            n: self.len(),
            images: 60,
            digest: "0123456789abcdef".to_owned(),
            metric: METRICS[0].name,
        }
    }

    fn len(&self) -> usize {
        self.dataset.questions.len()
    }

    fn references(&self) -> &References {
        self.dataset.references.as_ref().unwrap()
    }

    fn right(&self, at: usize) -> usize {
        self.scores.iter().filter(|scores| scores[at] >= 0.5).count()
    }

    /// Whether the question, an answer of a model or one of people has this in it.
    fn says(&self, at: usize, text: &str) -> bool {
        let people = self.references().answers(at).any(|answer| answer.text.to_lowercase().contains(text));
        let models = self.answers.iter().any(|said| said[at].to_lowercase().contains(text));
        people || models || self.dataset.questions[at].text.to_lowercase().contains(text)
    }
}

fn run_named(name: &str) -> EntryRun {
    let (label, model, weights) = (name.to_owned(), name.to_owned(), "fedcba9876543210".to_owned());
    let command = format!("digrap-bench vqa --model '{name}'");
    let made_by = Some(Maker { version: "0.1.0".to_owned(), commit: None, command });
    EntryRun { label, model, seed: None, weights, settings: None, made_by, stored: 0 }
}

const COUNT: &str = "document.getElementById('count').textContent";

fn grouped(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", grouped(number / 1000), number % 1000) }
}

/// The explorer in a browser, its samples read.
struct Explorer<'a> {
    made: &'a Made,
    folder: &'a Path,
    browser: Browser,
}

impl<'a> Explorer<'a> {
    fn open(made: &'a Made, folder: &'a Path, hash: &str) -> Self {
        let mut browser = Browser::start(1280, 900);
        browser.open(&folder.join("explorer.html"), hash);
        browser.wait_for("document.getElementById('samples') && !document.getElementById('samples').hidden");
        Self { made, folder, browser }
    }

    /// The list holds these samples: the count says so, and the rows of the first page are theirs.
    fn shows(&mut self, expected: &[(usize, usize)]) {
        let all: usize = self.made.0.iter().map(MadeSet::len).sum();
        let count = format!("{} of {} samples", grouped(expected.len()), grouped(all));
        assert_eq!(self.browser.text(COUNT), count);
        let rows =
            self.browser.value("[...document.querySelectorAll('#list .question')].map((row) => row.textContent)");
        let questions: Vec<&str> = expected.iter().take(100).map(|at| self.made.question(*at)).collect();
        assert_eq!(rows, json!(questions));
    }

    /// The sample that is open, as its question.
    fn open_question(&mut self) -> Value {
        self.browser.value("document.querySelector('#detail h1')?.textContent ?? null")
    }

    fn close(mut self) {
        self.browser.assert_quiet(self.folder);
    }
}

fn wait_for_question(explorer: &mut Explorer, at: (usize, usize)) {
    let question = json!(explorer.made.question(at));
    explorer.browser.wait_for(&format!("document.querySelector('#detail h1')?.textContent === {question}"));
}

#[test]
fn filters_select_what_the_samples_say() {
    let (made, folder) = (Made::new(400), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    explorer.shows(&made.that(|_, _| true));
    explorer.browser.choose("[name=dataset]", "far/away");
    explorer.shows(&made.that(|set, _| set.label == "Far"));
    explorer.browser.choose("[name=type]", "number");
    explorer.shows(&made.that(|set, at| set.label == "Far" && set.references().answer_type(at) == Some("number")));
    explorer.browser.choose("[name=dataset]", "");
    explorer.browser.choose("[name=type]", "");
    for (outcome, holds) in OUTCOMES {
        explorer.browser.choose("[name=outcome]", outcome);
        explorer.shows(&made.that(|set, at| holds(set.scores[SHOWN][at])));
    }
    explorer.browser.choose("[name=model]", "2");
    explorer.shows(&made.that(|set, at| OUTCOMES[3].1(set.scores[2][at])));
    explorer.browser.click("#reset");
    explorer.shows(&made.that(|_, _| true));
    explorer.browser.choose("[name=agreement]", "disagree");
    explorer.shows(&made.that(|set, at| (1..MODELS.len()).contains(&set.right(at))));
    explorer.browser.choose("[name=agreement]", "differ");
    let spelt = |set: &MadeSet, model: usize, at: usize| set.answers[model][at].to_lowercase();
    explorer.shows(&made.that(|set, at| (1..MODELS.len()).any(|model| spelt(set, model, at) != spelt(set, 0, at))));
    explorer.browser.choose("[name=agreement]", "wrong");
    explorer.shows(&made.that(|set, at| set.right(at) == 0));
    explorer.browser.choose("[name=agreement]", "right");
    explorer.shows(&made.that(|set, at| set.right(at) == MODELS.len()));
    explorer.close();
}

/// A value of the filter, and the scores that it keeps.
type Outcome = (&'static str, fn(f64) -> bool);

/// The outcomes in the order in which they are offered.
const OUTCOMES: [Outcome; 4] = [
    ("wrong", |score| score < 0.5),
    ("right", |score| score >= 0.5),
    ("none", |score| score == 0.0),
    ("part", |score| score > 0.0 && score < 1.0),
];

#[test]
fn a_search_finds_questions_and_answers() {
    let (made, folder) = (Made::new(300), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    explorer.browser.press("/");
    explorer.browser.write("TENNIS");
    explorer.shows(&made.that(|set, at| set.says(at, "tennis")));
    explorer.browser.write(" racket");
    explorer.shows(&made.that(|set, at| set.says(at, "tennis") && set.says(at, "racket")));
    for (text, phrase) in [("\"next to the cat\"", "next to the cat"), ("äpfel", "äpfel"), ("nowhere said", "nowhere")]
    {
        explorer.browser.value("document.querySelector('[name=text]').select()");
        explorer.browser.write(text);
        explorer.shows_or_nothing(&made.that(|set, at| set.says(at, phrase)));
    }
    explorer.browser.click(".nothing button");
    explorer.shows(&made.that(|_, _| true));
    explorer.close();
}

impl Explorer<'_> {
    fn shows_or_nothing(&mut self, expected: &[(usize, usize)]) {
        self.shows(expected);
        let told = self.browser.value("document.querySelector('.nothing') !== null");
        assert_eq!(told, json!(expected.is_empty()));
    }
}

#[test]
fn distances_limit_and_order_the_list() {
    let (made, folder) = (Made::new(300), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    // The columns of the page hold single precision.
    let joint =
        |made: &Made, (set, at): (usize, usize)| made.0[set].distances[SHOWN][at].joint.map(|distance| distance as f32);
    explorer.browser.choose("[name=order]", "farthest");
    let mut expected = made.that(|_, _| true);
    // Stable, and those without a distance last.
    expected.sort_by(|a, b| joint(&made, *b).unwrap_or(-1.0).total_cmp(&joint(&made, *a).unwrap_or(-1.0)));
    explorer.shows(&expected);
    explorer.browser.choose("[name=order]", "nearest");
    expected.sort();
    expected.sort_by(|a, b| joint(&made, *a).unwrap_or(99.0).total_cmp(&joint(&made, *b).unwrap_or(99.0)));
    explorer.shows(&expected);
    explorer.browser.click("[name=from]");
    explorer.browser.write("25.5");
    explorer.browser.click("[name=to]");
    explorer.browser.write("27");
    expected.retain(|at| joint(&made, *at).is_some_and(|distance| (25.5..=27.0).contains(&distance)));
    explorer.shows(&expected);
    explorer.browser.choose("[name=distance]", "vision:digrap mu=0.5");
    let vision = |(set, at): (usize, usize)| made.0[set].distances[2][at].vision.unwrap() as f32;
    expected = made.that(|_, _| true);
    expected.retain(|at| (25.5..=27.0).contains(&vision(*at)));
    expected.sort_by(|a, b| vision(*a).total_cmp(&vision(*b)));
    explorer.shows(&expected);
    explorer.close();
}

#[test]
fn scores_order_the_list() {
    let (made, folder) = (Made::new(300), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "#order=worst");
    let score = |(set, at): (usize, usize)| made.0[set].scores[SHOWN][at];
    let mut expected = made.that(|_, _| true);
    expected.sort_by(|a, b| score(*a).total_cmp(&score(*b)));
    explorer.shows(&expected);
    explorer.browser.choose("[name=order]", "best");
    expected.sort();
    expected.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    explorer.shows(&expected);
    explorer.close();
}

#[test]
fn a_link_opens_a_sample_and_back_returns() {
    let (made, folder) = (Made::new(300), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "#dataset=far%2Faway&outcome=wrong&sample=far%2Faway/137");
    wait_for_question(&mut explorer, (2, 137));
    explorer.shows(&made.that(|set, at| set.label == "Far" && set.scores[SHOWN][at] < 0.5));
    let set = &made.0[2];
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    set.references().answers(137).for_each(|answer| *counts.entry(answer.text).or_default() += 1);
    let people = explorer.browser.value(
        "Object.fromEntries([...document.querySelectorAll('.people li')].map((line) => \
         [line.querySelector('.said').textContent, parseInt(line.querySelector('.muted').textContent)]))",
    );
    assert_eq!(people, json!(counts));
    let models = explorer.browser.value(
        "[...document.querySelectorAll('#detail table')[0].querySelectorAll('tbody tr')].map((line) => \
         [line.querySelector('.said').textContent, line.querySelector('.number').textContent])",
    );
    let expected = (0..MODELS.len()).map(|model| (&set.answers[model][137], told_score(set.scores[model][137])));
    assert_eq!(models, json!(expected.collect::<Vec<_>>()));
    let distances = explorer.browser.value(
        "[...document.querySelectorAll('#detail table')[1].querySelectorAll('tbody tr')].map((line) => \
         line.querySelectorAll('td')[1].textContent)",
    );
    let expected = set.distances.iter().flat_map(|distances| {
        let Distances { vision, question, joint, .. } = distances[137];
        [vision, question, joint].map(|distance| format!("{:.2}", distance.unwrap()))
    });
    assert_eq!(distances, json!(expected.collect::<Vec<_>>()));
    // Another one, by a click, and back.
    let listed = made.that(|set, at| set.label == "Far" && set.scores[SHOWN][at] < 0.5);
    explorer.browser.click("#list li:nth-child(2) a");
    wait_for_question(&mut explorer, listed[1]);
    explorer.browser.back();
    wait_for_question(&mut explorer, (2, 137));
    explorer.close();
}

/// A score as the explorer tells it.
fn told_score(score: f64) -> String {
    format!("{} {:.2}", if score < 0.5 { "✗" } else { "✓" }, 100.0 * score)
}

#[test]
fn keys_move_open_and_close() {
    let (made, folder) = (Made::new(200), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    for key in ["j", "ArrowDown", "j", "k"] {
        explorer.browser.press(key);
    }
    assert_eq!(explorer.open_question(), Value::Null);
    explorer.browser.press("Enter");
    // The first key shows where the cursor is.
    wait_for_question(&mut explorer, (0, 1));
    explorer.browser.press("j");
    wait_for_question(&mut explorer, (0, 2));
    explorer.browser.press("ArrowUp");
    wait_for_question(&mut explorer, (0, 1));
    explorer.browser.press("Escape");
    assert_eq!(explorer.open_question(), Value::Null);
    explorer.browser.press("?");
    assert_eq!(explorer.browser.value("document.getElementById('help').open"), json!(true));
    explorer.browser.press("j");
    explorer.browser.press("Escape");
    assert_eq!(explorer.browser.value("document.getElementById('help').open"), json!(false));
    explorer.browser.press("/");
    explorer.browser.write("jk?");
    assert_eq!(explorer.browser.text("document.querySelector('[name=text]').value"), "jk?");
    explorer.browser.press("Escape");
    assert_eq!(explorer.browser.text("document.activeElement.tagName"), "BODY");
    explorer.close();
}

#[test]
fn keys_turn_pages() {
    let (made, folder) = (Made::new(70), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "#sample=counterfactual+vision/29");
    wait_for_question(&mut explorer, (1, 29));
    assert_eq!(explorer.browser.text("document.getElementById('page').textContent"), "1–100");
    explorer.browser.press("j");
    wait_for_question(&mut explorer, (1, 30));
    assert_eq!(explorer.browser.text("document.getElementById('page').textContent"), "101–200");
    explorer.browser.click("#next-page");
    assert_eq!(explorer.browser.text("document.getElementById('page').textContent"), "201–210");
    explorer.close();
}

#[test]
fn images_are_small_files_and_missing_ones_are_told() {
    let (made, folder) = (Made::new(120), tempfile::tempdir().unwrap());
    let told = made.write(folder.path(), true);
    assert!(told.contains(&r#"Unreadable { dataset: "far/away", images: 6 }"#.to_owned()), "{told:?}");
    let names: Vec<String> = fs::read_dir(folder.path().join("images/far-away"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 40 - 6, "{names:?}");
    assert!(names.contains(&"0.png".to_owned()) && names.contains(&"1.jpg".to_owned()), "{names:?}");
    let mut explorer = Explorer::open(&made, folder.path(), "#sample=far%2Faway/3");
    explorer.browser.wait_for("document.querySelector('.picture img')?.naturalWidth === 256");
    explorer.browser.open(&folder.path().join("explorer.html"), "#sample=far%2Faway/9");
    explorer.browser.wait_for("document.querySelector('.picture.missing')?.textContent.includes('could not be read')");
    explorer.close();
}

#[test]
fn light_dark_wide_and_narrow_windows_are_legible() {
    let (made, folder) = (Made::new(200), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "#outcome=wrong");
    let ground = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(explorer.browser.text(ground), "rgb(255, 255, 255)");
    explorer.browser.screenshot("explorer-light-list");
    explorer.browser.press("j");
    explorer.browser.press("Enter");
    explorer.browser.wait_for("document.querySelector('#detail h1') !== null");
    explorer.browser.screenshot("explorer-light");
    explorer.browser.prefer("dark");
    assert_eq!(explorer.browser.text(ground), "rgb(13, 17, 23)");
    explorer.browser.screenshot("explorer-dark");
    for width in [360, 800, 1280] {
        explorer.browser.resize(width, 800);
        let wide = explorer.browser.value("document.documentElement.scrollWidth");
        assert!(wide.as_u64().unwrap() <= u64::from(width), "{wide} pixels in a window of {width}");
        explorer.browser.screenshot(&format!("explorer-dark-{width}"));
    }
    explorer.browser.resize(360, 800);
    explorer.browser.press("Escape");
    assert_eq!(explorer.browser.value("document.querySelector('[name=type]').checkVisibility()"), json!(false));
    explorer.browser.click("#more");
    assert_eq!(explorer.browser.value("document.querySelector('[name=type]').checkVisibility()"), json!(true));
    explorer.browser.screenshot("explorer-narrow-list");
    explorer.close();
}

#[test]
fn hostile_texts_do_no_harm() {
    let attack = "</script><img src=x onerror=\"window.harmed=1\"><!--\u{2028}'`${window.harmed=1}&amp;\u{2029}\\";
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made(vec![made_set(attack, "ID", 20, 1)]);
    let set = &mut made.0[0];
    set.dataset.questions[4].text = attack.into();
    let mut references = References::builder();
    for _ in 0..20 {
        references.answer(attack, Some(attack), None).unwrap();
        references.answer("__proto__", None, None).unwrap();
        references.end_question(Some(attack), Some(attack)).unwrap();
    }
    set.dataset.references = Some(references.finish());
    set.answers[1] = vec![attack.to_owned(); 20];
    let mut samples = made.samples();
    samples.models[1].name = attack;
    let mut board = made.board();
    board.suite = "{{content}}<script>window.harmed = 1</script>".to_owned();
    board.entries[1] = Entry { name: attack.to_owned(), runs: vec![run_named(attack)], ..board.entries[1].clone() };
    let page = Page { board: &board, figures: &[], samples: &samples, images: true };
    write_page(&page, folder.path(), &mut |_| {}).unwrap();
    let data = fs::read_dir(folder.path().join("data")).unwrap().count();
    assert_eq!(data, 2, "a folder and the catalogue");
    let mut explorer = Explorer::open(&made, folder.path(), "");
    explorer.browser.press("/");
    explorer.browser.write("onerror");
    assert_eq!(explorer.browser.text(COUNT), "20 of 20 samples");
    for step in 0..5 {
        explorer.browser.press(if step == 0 { "Enter" } else { "j" });
    }
    explorer.browser.press("Enter");
    wait_for_question(&mut explorer, (0, 4));
    let said =
        explorer.browser.value("[...document.querySelectorAll('#detail .said')].map((text) => text.textContent)");
    assert_eq!(said.as_array().unwrap().iter().filter(|text| **text == json!(attack)).count(), 2, "{said}");
    assert_eq!(explorer.browser.value("window.harmed ?? null"), Value::Null);
    explorer.browser.open(&folder.path().join("index.html"), "");
    assert_eq!(
        explorer.browser.text("document.querySelector('h1').textContent"),
        format!("Leaderboard: {}", board.suite)
    );
    explorer.browser.click("#board tbody tr:nth-child(2) td a");
    explorer.browser.wait_for("document.getElementById('samples') && !document.getElementById('samples').hidden");
    assert_eq!(explorer.browser.text("document.querySelector('[name=dataset]').value"), attack);
    assert_eq!(explorer.browser.value("window.harmed ?? null"), Value::Null);
    explorer.close();
}

#[test]
fn the_leaderboard_sorts_finds_and_opens_samples() {
    let (made, folder) = (Made::new(200), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut browser = Browser::start(1280, 900);
    browser.open(&folder.path().join("index.html"), "");
    browser.screenshot("leaderboard-light");
    let names = "[...document.querySelectorAll('#board tbody.measured th')].filter((name) => name.checkVisibility())\
                 .map((name) => name.firstChild.textContent.trim())";
    let by = |set: usize| {
        let mut models: Vec<usize> = (0..MODELS.len()).collect();
        models.sort_by(|one, other| made.0[set].cell(*other).accuracy.total_cmp(&made.0[set].cell(*one).accuracy));
        models.into_iter().map(|model| MODELS[model].0).collect::<Vec<_>>()
    };
    let given = MODELS.map(|(name, _)| name);
    assert_eq!(browser.value(names), json!(given));
    browser.click("#board thead th:nth-child(3) button");
    assert_eq!(browser.value(names), json!(by(1)));
    browser.click("#board thead th:nth-child(3) button");
    assert_eq!(browser.value(names), json!(by(1).into_iter().rev().collect::<Vec<_>>()));
    browser.click("#board thead th:nth-child(3) button");
    assert_eq!(browser.value(names), json!(given));
    // A row without the average is last whichever way the others go.
    browser.click("#board thead th:nth-child(5) button");
    browser.click("#board thead th:nth-child(5) button");
    assert_eq!(browser.value(names).as_array().unwrap().last(), Some(&json!("base")));
    let last = browser.text("[...document.querySelectorAll('#board tbody tr')].at(-1).textContent");
    assert!(last.starts_with("Vanilla FT"), "{last}");
    browser.click("#filter");
    browser.write("digrap");
    assert_eq!(browser.value(names), json!(["digrap mu=0.5"]));
    assert_eq!(browser.text("document.getElementById('rows').textContent"), "1 of 4 rows");
    browser.prefer("dark");
    browser.screenshot("leaderboard-dark");
    for width in [360, 800] {
        browser.resize(width, 800);
        let wide = browser.value("document.documentElement.scrollWidth");
        assert!(wide.as_u64().unwrap() <= u64::from(width), "{wide} pixels in a window of {width}");
        browser.screenshot(&format!("leaderboard-dark-{width}"));
    }
    browser.resize(1280, 900);
    browser.click("#board tbody.measured tr:not([hidden]) td:nth-child(4) a");
    let mut explorer = Explorer { made: &made, folder: folder.path(), browser };
    explorer.browser.wait_for("document.getElementById('samples') && !document.getElementById('samples').hidden");
    explorer.shows(&made.that(|set, _| set.label == "Far"));
    assert_eq!(explorer.browser.text("document.querySelector('[name=model]').value"), "2");
    explorer.close();
}

#[test]
fn the_same_samples_give_the_same_bytes() {
    let made = Made::new(300);
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    made.write(first.path(), true);
    made.write(second.path(), true);
    made.write(second.path(), true);
    let files = files_below(first.path());
    assert!(files.len() > 100, "{}", files.len());
    assert!(files == files_below(second.path()));
    let addresses = files.iter().filter(|(_, bytes)| String::from_utf8_lossy(bytes).contains("://"));
    assert_eq!(addresses.map(|(name, _)| name).collect::<Vec<_>>(), [""; 0], "files that name addresses outside");
}

/// Names and contents of all files.
fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).unwrap().map(|entry| entry.unwrap()) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// An input, what is given to it, and the samples that are kept then.
type Step = (&'static str, &'static str, fn(&MadeSet, usize) -> bool);

/// Measures what filters take: how long it is from the event of an input until the list is rendered. With `PAGE_SAMPLES=N`
/// in the environment there are N samples, and the times are printed as rows of a table and have to be below 200 ms; by default
/// few, and what the list shows is checked alone.
#[test]
fn filters_of_many_samples() {
    let asked = std::env::var("PAGE_SAMPLES").ok().map(|count| count.parse::<usize>().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let sets = (1..=10).map(|seed| made_set(&format!("set-{seed}"), "set", asked.unwrap_or(3000) / 10, seed));
    let made = Made(sets.collect());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    if let Some(samples) = asked {
        println!(
            "| {samples} | opening the page | | {:.0} |",
            explorer.browser.value("performance.now()").as_f64().unwrap()
        );
    }
    explorer.shows(&made.that(|_, _| true));
    let steps: [Step; 10] = [
        ("type", "number", |set, at| set.references().answer_type(at) == Some("number")),
        ("type", "", |_, _| true),
        ("outcome", "wrong", |set, at| set.scores[SHOWN][at] < 0.5),
        ("outcome", "any", |_, _| true),
        ("agreement", "disagree", |set, at| (1..MODELS.len()).contains(&set.right(at))),
        ("agreement", "any", |_, _| true),
        ("text", "t", |set, at| set.says(at, "t")),
        ("text", "tennis next umbrella", |set, at| {
            ["tennis", "next", "umbrella"].iter().all(|word| set.says(at, word))
        }),
        ("text", "", |_, _| true),
        ("order", "farthest", |_, _| true),
    ];
    for (name, value, holds) in steps {
        let taken = explorer.browser.value(&format!(
            "(() => {{ const input = document.querySelector('[name={name}]'); input.value = '{value}'; \
             const start = performance.now(); input.dispatchEvent(new Event('input', {{ bubbles: true }})); \
             document.body.getBoundingClientRect(); return performance.now() - start; }})()"
        ));
        let taken = taken.as_f64().unwrap();
        if let Some(samples) = asked {
            println!("| {samples} | {name} | `{value}` | {taken:.0} |");
            assert!(taken < 200.0, "{name} {value:?} took {taken} ms");
        }
        let mut expected = made.that(holds);
        if value == "farthest" {
            let joint = |(set, at): (usize, usize)| made.0[set].distances[SHOWN][at].joint.unwrap_or(-1.0) as f32;
            expected.sort_by(|one, other| joint(*other).total_cmp(&joint(*one)));
        }
        explorer.shows(&expected);
    }
    explorer.close();
}

/// From a run to the page: what is shown one by one adds up to what the run told.
#[test]
fn a_store_becomes_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = program_at(folder.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let [tuned, base] = ["miniature-ft", "miniature-pt"].map(|name| fixture(&format!("models/{name}")));
    let models = ["--model", tuned.to_str().unwrap(), "--zero-shot", base.to_str().unwrap()];
    let suite = ["--suite", "miniature", "--limit", "24", "--json"];
    let evaluated = run(&[&["vqa", "--store", "store.sqlite"][..], &models, &suite].concat());
    let shift = ["shift", "--store", "store.sqlite", "--reference-limit", "200"];
    run(&[&shift[..], &models[..2], &suite].concat());
    run(&[&["leaderboard", "--store", "store.sqlite", "--html", "page"][..], &suite].concat());
    let page = folder.path().join("page");
    let mut browser = Browser::start(1400, 1000);
    browser.open(&page.join("index.html"), "");
    browser.wait_for("[...document.images].every((image) => image.loading === 'lazy' || image.naturalWidth > 0)");
    assert!(browser.value("document.images.length").as_u64().unwrap() > 3);
    browser.screenshot("miniature-leaderboard");
    browser.prefer("dark");
    browser.screenshot("miniature-leaderboard-dark");
    let table = browser.text("document.querySelector('#board tbody').textContent");
    browser.open(&page.join("explorer.html"), "#dataset=miniature-viz&sample=miniature-viz/5");
    browser.wait_for("document.querySelector('#detail h1') !== null");
    assert_eq!(browser.text(COUNT), "24 of 240 samples");
    browser.wait_for("document.querySelector('.picture img')?.naturalWidth > 0");
    browser.screenshot("miniature-sample-dark");
    browser.prefer("light");
    browser.screenshot("miniature-sample");
    for evaluation in evaluated["evaluations"].as_array().unwrap() {
        let accuracy = evaluation["accuracy"].as_f64().unwrap();
        assert!(table.contains(&format!("{accuracy:.2}")), "{accuracy} is not in {table}");
        let told = browser.value(&format!(
            "(async () => {{ const dataset = samples.datasets.findIndex((one) => one.about.name === {}); \
             const model = samples.catalogue.models.findIndex((one) => one.name === {}); let sum = 0; \
             for (let sample = 0; sample < 24; sample += 1) \
             sum += (await samples.detail(samples.bases[dataset] + sample)).scores[model]; return sum / 24; }})()",
            evaluation["dataset"], evaluation["model"]
        ));
        assert!((100.0 * told.as_f64().unwrap() - accuracy).abs() < 1e-9, "{told} is not {accuracy} %");
    }
    browser.assert_quiet(&page);
}
