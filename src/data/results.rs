//! Results files of the official VQA format: `[{"question_id": 1, "answer": "red"}, ...]`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::{Error as _, IgnoredAny, MapAccess};

use super::json::{self, Identifier, Place, Records, Text};
use super::{Dataset, Id, Question, WholeFile};
use crate::error::{Error, Result};

/// Reads the answers of a results file, in the order of the dataset's questions.
///
/// A record with `image_id` is matched by both identifiers, one without by `question_id`, which must then name a
/// single question.
///
/// # Errors
/// A damaged file, with record and field; missing, duplicate and unknown records, with their number and the first one.
pub fn load(path: &Path, dataset: &Dataset) -> Result<Vec<Box<str>>> {
    let bytes = json::map(path)?;
    let mut records = ResultRecords(Vec::new());
    json::read(path, &bytes, &mut records)?;
    arrange(records.0, dataset).map_err(|error| {
        error.within(format!("results `{}` do not fit the questions of `{}`", path.display(), dataset.name))
    })
}

struct ResultRecord {
    question_id: Id,
    image_id: Option<Id>,
    answer: Box<str>,
}

struct ResultRecords(Vec<ResultRecord>);

impl<'de> Records<'de> for ResultRecords {
    const LISTS: &'static [&'static str] = &["results"];

    fn record<A: MapAccess<'de>>(&mut self, mut record: A, place: &mut Place) -> Result<(), A::Error> {
        let (mut question_id, mut image_id, mut answer): (_, _, Option<Cow<'de, str>>) = (None, None, None);
        while let Some(key) = record.next_key_seed(Text)? {
            match &*key {
                "question_id" => {
                    place.field = Some("question_id");
                    question_id = Some(record.next_value_seed(Identifier)?);
                }
                "image_id" => {
                    place.field = Some("image_id");
                    image_id = Some(record.next_value_seed(Identifier)?);
                }
                "answer" => {
                    place.field = Some("answer");
                    answer = Some(record.next_value_seed(Text)?);
                }
                _ => drop(record.next_value::<IgnoredAny>()?),
            }
            place.field = None;
        }
        self.0.push(ResultRecord {
            question_id: question_id.ok_or_else(|| A::Error::missing_field("question_id"))?.into(),
            image_id: image_id.map(Id::from),
            answer: answer.ok_or_else(|| A::Error::missing_field("answer"))?.into(),
        });
        Ok(())
    }
}

/// What is wrong with the identifiers of a results file: how many, and the first.
#[derive(Default)]
struct Complaint {
    count: usize,
    first: String,
}

impl Complaint {
    fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.count == 1 {
            self.first = name();
        }
    }
}

fn arrange(records: Vec<ResultRecord>, dataset: &Dataset) -> Result<Vec<Box<str>>> {
    let repeats = dataset.question_ids_repeat();
    let named = |question: &Question| name(&question.question_id, repeats.then_some(&question.image_id));
    let mut positions: HashMap<&Id, Vec<usize>> = HashMap::with_capacity(dataset.questions.len());
    for (position, question) in dataset.questions.iter().enumerate() {
        positions.entry(&question.question_id).or_default().push(position);
    }
    let mut answers: Vec<Option<Box<str>>> = vec![None; dataset.questions.len()];
    let [mut missing, mut duplicate, mut unknown, mut ambiguous] = [(); 4].map(|()| Complaint::default());
    for record in records {
        let same_id = positions.get(&record.question_id).map_or(&[][..], Vec::as_slice);
        let fits = |position: &usize| {
            record.image_id.as_ref().is_none_or(|image_id| *image_id == dataset.questions[*position].image_id)
        };
        let mut candidates = same_id.iter().copied().filter(fits);
        match (candidates.next(), candidates.next()) {
            (None, _) => unknown.add(|| name(&record.question_id, record.image_id.as_ref())),
            (Some(_), Some(_)) => ambiguous.add(|| name(&record.question_id, None)),
            (Some(position), None) if answers[position].is_some() => {
                duplicate.add(|| named(&dataset.questions[position]));
            }
            (Some(position), None) => answers[position] = Some(record.answer),
        }
    }
    for (question, _) in dataset.questions.iter().zip(&answers).filter(|(_, answer)| answer.is_none()) {
        missing.add(|| named(question));
    }
    let kinds =
        [(missing, "missing"), (duplicate, "duplicate"), (unknown, "unknown"), (ambiguous, "without `image_id`")];
    let wrong: Vec<String> = kinds
        .iter()
        .filter(|(complaint, _)| complaint.count > 0)
        .map(|(Complaint { count, first }, kind)| format!("{count} {kind} (first: {first})"))
        .collect();
    if wrong.is_empty() {
        return Ok(answers.into_iter().flatten().collect());
    }
    let error = Error::incomplete(format!("{} of {} questions", wrong.join(", "), dataset.questions.len()));
    Err(error.hint("answer every question once; `7` and `\"7\"` are different identifiers"))
}

fn name(question_id: &Id, image_id: Option<&Id>) -> String {
    match image_id {
        Some(image_id) => format!("question {}, image {}", question_id.to_json(), image_id.to_json()),
        None => format!("question {}", question_id.to_json()),
    }
}

/// Writes a results file answer by answer. The file appears, whole, with [`finish`](Self::finish).
#[derive(Debug)]
pub struct Writer {
    file: WholeFile,
    target: PathBuf,
    with_image_id: bool,
    empty: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    question_id: Value<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_id: Option<Value<'a>>,
    answer: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Number(i64),
    Text(&'a str),
}

impl<'a> From<&'a Id> for Value<'a> {
    fn from(id: &'a Id) -> Self {
        match id {
            Id::Number(number) => Self::Number(*number),
            Id::Text(text) => Self::Text(text),
        }
    }
}

impl Writer {
    /// Starts the results of a dataset; records carry `image_id` only if its question identifiers repeat.
    ///
    /// # Errors
    /// The folder of `target` cannot be written to.
    pub fn create(target: &Path, dataset: &Dataset) -> Result<Self> {
        let file = WholeFile::create(target).map_err(|error| failed(target, error))?;
        let with_image_id = dataset.question_ids_repeat();
        Ok(Self { file, target: target.to_owned(), with_image_id, empty: true })
    }

    /// Adds the answer to one question.
    ///
    /// # Errors
    /// A failed write.
    pub fn write(&mut self, question: &Question, answer: &str) -> Result<()> {
        let line = Line {
            question_id: (&question.question_id).into(),
            image_id: self.with_image_id.then(|| (&question.image_id).into()),
            answer,
        };
        let separator: &[u8] = if self.empty { b"[\n" } else { b",\n" };
        self.empty = false;
        self.file
            .write_all(separator)
            .and_then(|()| serde_json::to_writer(&mut self.file, &line).map_err(std::io::Error::from))
            .map_err(|error| failed(&self.target, error))
    }

    /// Completes the file and puts it in place in one step.
    ///
    /// # Errors
    /// A failed write or rename.
    pub fn finish(mut self) -> Result<()> {
        let end: &[u8] = if self.empty { b"[]\n" } else { b"\n]\n" };
        let written = self.file.write_all(end).and_then(|()| self.file.finish());
        written.map_err(|error| failed(&self.target, error))
    }
}

fn failed(target: &Path, error: std::io::Error) -> Error {
    Error::input(format!("cannot write `{}`", target.display())).caused_by(error)
}
