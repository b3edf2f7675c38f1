//! The miniature world: pictures of coloured objects and signs, made from a seed, and ten sets of questions about them
//! that are shifted as the public sets of visual questions are.
//!
//! Every picture, question and answer follows from (world version, seed, set, key) alone, in any order and on any
//! thread. Pictures are drawn when they are read; nothing but questions is kept in memory.
//!
//! | set | as | shift |
//! |---|---|---|
//! | `miniature` | VQAv2 | none: eight kinds of questions, two templates each, about three to seven objects on a plain background; answers have priors |
//! | `miniature-iv` | IV-VQA | an object is removed that the question is not about |
//! | `miniature-cv` | CV-VQA | one of the counted objects is removed, and the answers are one less |
//! | `miniature-rephrasings` | VQA-Rephrasings | three rephrasings of each question, in words that training lacks |
//! | `miniature-cp` | VQA-CP | other priors of answers to each type of question |
//! | `miniature-ce` | VQA-CE | questions whose shortcuts mislead |
//! | `miniature-adv` | AdVQA | compositional questions that most of some recorded models fail |
//! | `miniature-text` | TextVQA | signs whose words are to be read |
//! | `miniature-viz` | VizWiz | blur, darkness, noise and covered parts; questions without an answer |
//! | `miniature-ok` | OK-VQA | facts that no picture shows: materials of shapes, homes of colours |
//!
//! A *strength* from 0 to 1 says which share of the keys is shifted. At strength 0 a set holds the questions that it was
//! made from, under the same keys, so that what a shift costs is a paired difference.
//!
//! `miniature-broad` is what a base model learns from: every look, kind of question and wording, with signs, facts,
//! damage and patterns. Its pictures and those to train on come from other branches of random numbers than all that is
//! evaluated.

mod annotators;
mod dice;
mod drawing;
pub mod files;
mod font;
mod queries;
mod scene;
mod selection;
mod sets;
mod wording;

use std::path::Path;
use std::sync::Arc;

pub use annotators::{ANSWERS, Answer};
pub use drawing::PIXELS;
pub use queries::{Line, Query, QueryKind, Side, UNANSWERABLE};
pub use scene::{Background, Cell, Color, Damage, GRID, Look, Object, SIGN_WORDS, Scene, Shape, Sign, Size};
pub use selection::{SELECTIONS, Selection};
pub use sets::{Asked, Drawn, SETS, Set, VERSION};

use super::image::RgbImage;
use super::{Dataset, DatasetRow, Id, ImageSource, Question, Relations};
use crate::error::{Error, Result, find_row};
use crate::score::{AnswerId, References};

/// The seed of the world that [`super::DATASETS`] hold.
pub const SEED: u64 = 1;

impl Drawn {
    /// The set of this name in [`SETS`].
    ///
    /// # Errors
    /// An unknown name; the hint lists all. A selected set for another seed than [`SEED`].
    pub fn find(name: &str, seed: u64, strength: f64) -> Result<Self> {
        let set = find_row(SETS, "set of the miniature world", name, |set| vec![set.name])?;
        if set.is_selected() && seed != SEED {
            return Err(Error::input(format!("the questions of `{name}` are selected for seed {SEED} alone"))
                .hint("leave --seed out, or name the sets to write with --set"));
        }
        Ok(Self { set, seed, strength })
    }

    /// The set as every other dataset.
    ///
    /// # Errors
    /// None but for a failure of the program.
    pub fn dataset(&self) -> Result<Dataset> {
        let asked = self.questions();
        let mut references = References::builder();
        let mut questions = Vec::with_capacity(asked.len());
        let mut relations = Relations::default();
        let tells_originals = asked.iter().any(|question| question.original.is_some());
        let mut part_names: Vec<Box<str>> = Vec::new();
        for question in asked {
            for (number, Answer { text, confidence }) in (1..).zip(&question.answers) {
                references.answer(text, Some(confidence), Some(AnswerId::Number(number)))?;
            }
            references.end_question(Some(question.answer_type), Some(question.question_type()))?;
            if tells_originals {
                relations.originals.push(question.original);
            }
            if let Some(part) = question.part {
                let known = part_names.iter().position(|name| **name == *part);
                relations.parts.push(known.unwrap_or(part_names.len()) as u32);
                if known.is_none() {
                    part_names.push(part.into());
                }
            }
            let (question_id, image_id) = (question.question_id, question.image_id);
            questions.push(Question { question_id, image_id, text: question.text.into() });
        }
        relations.part_names = part_names;
        let name = self.set.name.to_owned();
        Ok(Dataset { name, questions, references: Some(references.finish()), relations, images: Arc::new(*self) })
    }
}

impl ImageSource for Drawn {
    fn check(&self, image_id: &Id) -> Result<()> {
        self.picture(image_id).map(drop)
    }

    fn identity(&self, image_id: &Id) -> Result<Vec<u8>> {
        self.check(image_id)?;
        let Self { set, seed, strength } = self;
        let text = format!("miniature {VERSION} {seed} {} {strength} {}", set.name, image_id.to_json());
        Ok(text.into_bytes())
    }

    fn decode(&self, image_id: &Id) -> Result<RgbImage> {
        let picture = self.picture(image_id)?;
        drawing::draw(&picture.scene, picture.random)
    }
}

/// The rows of [`super::DATASETS`].
pub(super) const ROWS: [DatasetRow; 11] = [
    DatasetRow {
        load_training: Some(|_| load("miniature-training")),
        ..row("miniature", [2400, 600], "a few kinds of plain questions about plain pictures", |_| load("miniature"))
    },
    DatasetRow {
        original: Some("miniature"),
        measures: &["flips"],
        ..row("miniature-iv", [976, 824], "an object removed that the question is not about", |_| load("miniature-iv"))
    },
    DatasetRow {
        original: Some("miniature"),
        measures: &["count-flips"],
        ..row("miniature-cv", [571, 559], "one of the counted objects removed", |_| load("miniature-cv"))
    },
    DatasetRow {
        measures: &["consensus"],
        ..row("miniature-rephrasings", [1200, 300], "questions and three rephrasings of each", |_| {
            load("miniature-rephrasings")
        })
    },
    row("miniature-cp", [1000, 541], "other priors of answers to each type of question", |_| load("miniature-cp")),
    row("miniature-ce", [1000, 592], "questions that only mislead those who take shortcuts", |_| load("miniature-ce")),
    row("miniature-adv", [1000, 537], "harder questions, which most of three other models fail", |_| {
        load("miniature-adv")
    }),
    row("miniature-text", [700, 700], "signs whose words are to be read", |_| load("miniature-text")),
    DatasetRow {
        measures: &["unanswerability"],
        ..row("miniature-viz", [800, 400], "bad photographs, and questions without an answer", |_| {
            load("miniature-viz")
        })
    },
    row("miniature-ok", [800, 400], "questions about facts that no picture shows", |_| load("miniature-ok")),
    DatasetRow {
        load_training: Some(|_| load("miniature-broad-training")),
        validation_share: 0.004,
        ..row("miniature-broad", [1150, 400], "pictures and questions of every kind, for a base model", |_| {
            load("miniature-broad")
        })
    },
];

const fn row(
    name: &'static str,
    [n, images]: [usize; 2],
    about: &'static str,
    load: fn(&Path) -> Result<Dataset>,
) -> DatasetRow {
    DatasetRow {
        name,
        about,
        licence: "MIT OR Apache-2.0",
        metric: "official-2021",
        n: Some(n),
        images: Some(images),
        obtain: "nothing is needed: the program makes it; `digrap-bench fetch miniature --output DIR` writes it",
        files: &[],
        hub: &[],
        original: None,
        measures: &[],
        load,
        load_training: None,
        validation_share: 0.1,
    }
}

fn load(name: &str) -> Result<Dataset> {
    Drawn::find(name, SEED, 1.0)?.dataset()
}
