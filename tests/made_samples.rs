//! Made-up datasets, with what people and models said about them and how far they lie, for pages that browsers open.

use std::path::Path;
use std::sync::Arc;

use digrap_bench::data::image::RgbImage;
use digrap_bench::data::{Dataset, Id, ImageSource, Question, Relations};
use digrap_bench::error::{Error, Result};
use digrap_bench::report::page::{Page, PageEvent, write_page};
use digrap_bench::score::{METRICS, References, ScoreOptions, score};
use digrap_bench::store::{Distances, Maker};
use digrap_bench::suite::{
    Cell, Column, Entry, EntryRun, EntryShift, Leaderboard, LeaderboardDataset, LeftOut, PaperRow, SHIFTS, SampleSet,
    SampledModel, SampledResults, Samples,
};

use crate::support::Random;

pub const MODELS: [(&str, bool); 3] = [("base", true), ("fine-tuned", false), ("digrap mu=0.5", false)];

/// The model that the explorer shows first: the first that was fine-tuned.
pub const SHOWN: usize = 1;

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
            return Err(Error::input("the file is empty").caused_by(std::io::Error::other("no bytes")));
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
pub struct MadeSet {
    pub dataset: Dataset,
    pub label: &'static str,
    /// By model.
    pub answers: Vec<Vec<String>>,
    pub scores: Vec<Vec<f64>>,
    pub distances: Vec<Vec<Distances>>,
}

/// Datasets that the same models have answered.
pub struct Made {
    pub sets: Vec<MadeSet>,
    /// Names, and whether they were not fine-tuned.
    pub models: Vec<(String, bool)>,
}

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

pub fn made_set(name: &str, label: &'static str, models: usize, size: usize, seed: u64) -> MadeSet {
    let mut random = Random::new(seed);
    let mut references = References::builder();
    let mut questions = Vec::new();
    let mut answers = vec![Vec::new(); models];
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
    let distances = (0..models).map(|_| (0..size).map(&mut of_question).collect()).collect();
    let (relations, images) = (Relations::default(), Arc::new(Pictures));
    let dataset = Dataset { name: name.to_owned(), questions, references: Some(references), relations, images };
    MadeSet { dataset, label, answers, scores, distances }
}

impl Made {
    /// Three datasets of a size, answered by [`MODELS`].
    pub fn new(size: usize) -> Self {
        let sets = [("in-distribution", "ID"), ("counterfactual vision", "CV"), ("far/away", "Far")];
        let set = |((name, label), seed): (&(&str, &'static str), u64)| made_set(name, label, MODELS.len(), size, seed);
        Self::of(sets.iter().zip(1..).map(set).collect())
    }

    /// Datasets that [`MODELS`] and further ones have answered.
    pub fn of(sets: Vec<MadeSet>) -> Self {
        let known = MODELS.map(|(name, zero_shot)| (name.to_owned(), zero_shot)).into_iter();
        let more = (MODELS.len()..).map(|number| (format!("model {number}"), false));
        let models = known.chain(more).take(sets[0].answers.len()).collect();
        Self { sets, models }
    }

    pub fn samples(&self) -> Samples<'_> {
        let sets = self.sets.iter().enumerate().map(|(at, made)| SampleSet {
            dataset: &made.dataset,
            label: made.label,
            shift: &SHIFTS[at % SHIFTS.len()],
            metric: METRICS[0].name,
            results: made.results(),
        });
        let models = self.models.iter().map(|(name, zero_shot)| SampledModel { name, zero_shot: *zero_shot });
        Samples { models: models.collect(), sets: sets.collect(), limit: None }
    }

    /// The accuracies of the same models, with an average that some have.
    pub fn board(&self) -> Leaderboard {
        let column = |name: &str, label: &str, shift, average_of: &[&str]| Column {
            name: name.to_owned(),
            label: label.to_owned(),
            shift,
            average_of: average_of.iter().map(|name| (*name).to_owned()).collect(),
        };
        let sets = self.sets.iter().zip(SHIFTS.iter().cycle());
        let mut columns: Vec<Column> =
            sets.map(|(set, shift)| column(&set.dataset.name, set.label, Some(shift.name), &[])).collect();
        columns.push(column("all", "avg.", None, &["any"]));
        let entry = |(model, (name, zero_shot)): (usize, &(String, bool))| {
            let mut cells: Vec<Option<Cell>> = self.sets.iter().map(|set| Some(set.cell(model))).collect();
            cells.push(cells[0].filter(|_| !zero_shot).map(|cell| Cell { n: None, interval: None, ..cell }));
            Entry {
                name: name.clone(),
                method: name.split_once(' ').map(|(method, _)| method.to_owned()),
                zero_shot: *zero_shot,
                selected_on_reported: model == 2,
                runs: vec![run_named(name)],
                shifts: vec![EntryShift { modality: "joint", runs: 1, cells: vec![Some(25.0); cells.len()] }],
                cells,
            }
        };
        Leaderboard {
            suite: "made up".to_owned(),
            limit: Some(7),
            datasets: self.sets.iter().map(MadeSet::described).collect(),
            entries: self.models.iter().enumerate().map(entry).collect(),
            paper: vec![PaperRow {
                name: "Vanilla FT".to_owned(),
                is_shift: false,
                cells: (0..columns.len()).map(|at| (at != 1).then_some(99.5)).collect(),
            }],
            columns,
            left_out: vec![LeftOut {
                model: self.models[0].0.clone(),
                reason: "question 7 of <b>made</b> has no answer".to_owned(),
            }],
        }
    }

    /// Writes the page and returns what was told meanwhile.
    pub fn write(&self, folder: &Path, images: bool) -> Vec<String> {
        let mut told = Vec::new();
        let page = Page { board: &self.board(), figures: &[], samples: &self.samples(), images };
        write_page(&page, folder, &mut |event: PageEvent| told.push(format!("{event:?}"))).unwrap();
        told
    }

    /// The samples for which something holds, in their order.
    pub fn that(&self, holds: impl Fn(&MadeSet, usize) -> bool) -> Vec<(usize, usize)> {
        let all = self.sets.iter().enumerate().flat_map(|(set, made)| (0..made.len()).map(move |at| (set, at)));
        all.filter(|(set, at)| holds(&self.sets[*set], *at)).collect()
    }

    pub fn question(&self, (set, at): (usize, usize)) -> &str {
        &self.sets[set].dataset.questions[at].text
    }
}

impl MadeSet {
    fn results(&self) -> Vec<SampledResults<'_>> {
        let clusters = self.dataset.clusters();
        let of = |model: usize| {
            let answers = self.answers[model].iter().map(String::as_str).collect();
            SampledResults::new(model, answers, &self.scores[model], &self.distances[model], &clusters)
        };
        (0..self.answers.len()).map(of).collect()
    }

    pub fn cell(&self, model: usize) -> Cell {
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

    pub fn len(&self) -> usize {
        self.dataset.questions.len()
    }

    pub fn references(&self) -> &References {
        self.dataset.references.as_ref().unwrap()
    }

    pub fn right(&self, at: usize) -> usize {
        self.scores.iter().filter(|scores| scores[at] >= 0.5).count()
    }

    /// Whether the question, an answer of a model or one of people has this in it.
    pub fn says(&self, at: usize, text: &str) -> bool {
        let people = self.references().answers(at).any(|answer| answer.text.to_lowercase().contains(text));
        let models = self.answers.iter().any(|said| said[at].to_lowercase().contains(text));
        people || models || self.dataset.questions[at].text.to_lowercase().contains(text)
    }
}

pub fn run_named(name: &str) -> EntryRun {
    let (label, model, weights) = (name.to_owned(), name.to_owned(), "fedcba9876543210".to_owned());
    let command = format!("digrap-bench vqa --model '{name}'");
    let made_by = Some(Maker { version: "0.1.0".to_owned(), commit: None, command });
    EntryRun { label, model, seed: None, weights, settings: None, made_by, stored: 0 }
}
