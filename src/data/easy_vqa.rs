//! easy-VQA as its PyPI package lays it out: `{train,test}/questions.json` and `{train,test}/images/{image_id}.png`.
//!
//! A question is a triple of text, answer and image number; its identifier is its position in the file. The single
//! answer stands for ten equal ones, so that VQA accuracy is exact match.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Dataset, DatasetRow, Id, ImageFolder, Packing, Part, Question, Relations, SourceFile, json};
use crate::error::{Error, Result};
use crate::score::{AnswerId, References};

/// The test part.
pub(super) const ROW: DatasetRow = DatasetRow {
    name: "easy-vqa",
    about: "easy-VQA, test part: 9,673 questions on 1,000 drawings of one coloured shape, 13 answers",
    licence: "MIT",
    metric: "official-2021",
    n: Some(9_673),
    images: Some(1_000),
    obtain: "`make demo` fetches it; or `pip download --no-deps easy-vqa==1.0` and unpack the archive",
    files: &[
        by_hand("test/questions.json", Part::Evaluation),
        by_hand("test/images", Part::Evaluation),
        by_hand("train/questions.json", Part::Training),
        by_hand("train/images", Part::Training),
    ],
    hub: &[],
    original: None,
    measures: &[],
    load: |root| load(root, "test"),
    load_training: Some(|root| load(root, "train")),
    validation_share: 0.1,
};

const fn by_hand(path: &'static str, part: Part) -> SourceFile {
    SourceFile { path, part, url: None, packing: Packing::Plain }
}

const HUMAN_ANSWERS: i64 = 10;

/// Loads `part` (`train` or `test`) from the folder that holds it, or from one that holds it as `data/` or
/// `easy_vqa/data/`.
///
/// # Errors
/// Missing or damaged files.
pub fn load(root: &Path, part: &str) -> Result<Dataset> {
    let folder = find(root, part)?;
    let path = folder.join("questions.json");
    let bytes = json::map(&path)?;
    let records: Vec<(Box<str>, Box<str>, i64)> = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("cannot read `{}`: expected a list of [question, answer, image number]", path.display());
        Error::input(message).caused_by(error)
    })?;
    if records.is_empty() {
        return Err(Error::input(format!("`{}` holds no questions", path.display())));
    }
    let mut builder = References::builder();
    let mut questions = Vec::with_capacity(records.len());
    for (position, (text, answer, image)) in (0..).zip(records) {
        for number in 1..=HUMAN_ANSWERS {
            builder.answer(&answer, Some("yes"), Some(AnswerId::Number(number)))?;
        }
        builder.end_question(Some(answer_type(&answer)), None)?;
        questions.push(Question { question_id: Id::Number(position), image_id: Id::Number(image), text });
    }
    let images = Arc::new(ImageFolder::new(folder.join("images"), "{image_id}.png".parse()?));
    let references = Some(builder.finish());
    Ok(Dataset { name: ROW.name.to_owned(), questions, references, relations: Relations::default(), images })
}

fn answer_type(answer: &str) -> &'static str {
    if matches!(answer, "yes" | "no") { "yes/no" } else { "other" }
}

fn find(root: &Path, part: &str) -> Result<PathBuf> {
    let candidates = ["", "data", "easy_vqa/data"].map(|below| root.join(below).join(part));
    candidates.into_iter().find(|folder| folder.join("questions.json").is_file()).ok_or_else(|| {
        let message =
            format!("`{}` holds no easy-VQA: no `{part}/questions.json`, there or in `data/`", root.display());
        Error::input(message).hint(ROW.obtain)
    })
}
