//! The official VQA layout: one JSON file of questions and one of annotations.
//!
//! Both may be wrapped in an object (VQAv2) or be a bare list (VQA-CP). Answers are objects with `answer` and optionally
//! `answer_confidence` and `answer_id`, or plain strings. Unknown fields are ignored, `multiple_choice_answer` among
//! them: CV-VQA leaves it stale.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::json::{self, Identifier, OptionalText, Place, RawId, Records, Text};
use super::{Dataset, Id, ImageFolder, ImageName, Question, Relations};
use crate::error::{Error, Result};
use crate::score::{AnswerId, Builder, References};

/// The files of a dataset in the official layout.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// Question file.
    pub questions: &'a Path,
    /// Annotation file; without it the dataset has no references.
    pub annotations: Option<&'a Path>,
    /// Folder of the images; the current folder where nobody will open them.
    pub images: Option<&'a Path>,
    /// Template of the image file names; without it `COCO_{data_subtype}_{image_id:012}.jpg` of the question file.
    pub image_name: Option<&'a str>,
}

/// Loads a dataset; questions keep the order of their file and references follow it.
///
/// # Errors
/// Unreadable or damaged files, with record and field; duplicate keys; questions without annotation and annotations
/// without question, with their number and the first one; a bad `image_name`.
pub fn load(files: Files<'_>) -> Result<Dataset> {
    let given_name = files.image_name.map(str::parse::<ImageName>).transpose()?;
    let (asked, annotated) = std::thread::scope(|scope| {
        let annotated = files.annotations.map(|path| scope.spawn(move || read_annotations(path)));
        let asked = read_questions(files.questions);
        let annotated = annotated.map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        (asked, annotated)
    });
    let (questions, data_subtype) = asked?;
    check_unique(files.questions, questions.iter().map(|question| (&question.question_id, &question.image_id)))?;
    let references = match (annotated.transpose()?, files.annotations) {
        (Some((keys, references)), Some(path)) => Some(align(files.questions, &questions, path, &keys, references)?),
        _ => None,
    };
    let known_name = given_name.or_else(|| data_subtype.as_deref().map(ImageName::coco));
    let name = files.questions.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let images = ImageFolder::new(files.images.unwrap_or(Path::new("")), known_name.unwrap_or_else(ImageName::unknown));
    Ok(Dataset { name, questions, references, relations: Relations::default(), images: Arc::new(images) })
}

type Keys = Vec<(Id, Id)>;

fn read_questions(path: &Path) -> Result<(Vec<Question>, Option<String>)> {
    let bytes = json::map(path)?;
    let mut records = QuestionRecords(Vec::new());
    let data_subtype = json::read(path, &bytes, &mut records)?;
    let mut questions = records.0;
    if questions.is_empty() {
        return Err(Error::input(format!("`{}` holds no questions", path.display())));
    }
    questions.shrink_to_fit();
    Ok((questions, data_subtype))
}

fn read_annotations(path: &Path) -> Result<(Keys, References)> {
    let bytes = json::map(path)?;
    let mut records = AnnotationRecords { keys: Vec::new(), builder: References::builder() };
    json::read(path, &bytes, &mut records)?;
    if records.keys.is_empty() {
        return Err(Error::input(format!("`{}` holds no annotations", path.display())));
    }
    check_unique(path, records.keys.iter().map(|(question_id, image_id)| (question_id, image_id)))?;
    Ok((records.keys, records.builder.finish()))
}

struct QuestionRecords(Vec<Question>);

impl<'de> Records<'de> for QuestionRecords {
    const LIST: &'static str = "questions";

    fn record<A: MapAccess<'de>>(&mut self, mut record: A, place: &mut Place) -> Result<(), A::Error> {
        let (mut question_id, mut image_id, mut text) = (None, None, None);
        while let Some(key) = record.next_key_seed(Text)? {
            match &*key {
                "question_id" => question_id = Some(field(&mut record, place, "question_id", Identifier)?),
                "image_id" => image_id = Some(field(&mut record, place, "image_id", Identifier)?),
                "question" => text = Some(field(&mut record, place, "question", Text)?),
                _ => drop(record.next_value::<IgnoredAny>()?),
            }
        }
        self.0.push(Question {
            question_id: question_id.ok_or_else(|| A::Error::missing_field("question_id"))?.into(),
            image_id: image_id.ok_or_else(|| A::Error::missing_field("image_id"))?.into(),
            text: text.ok_or_else(|| A::Error::missing_field("question"))?.into(),
        });
        Ok(())
    }
}

struct AnnotationRecords {
    keys: Keys,
    builder: Builder,
}

impl<'de> Records<'de> for AnnotationRecords {
    const LIST: &'static str = "annotations";

    fn record<A: MapAccess<'de>>(&mut self, mut record: A, place: &mut Place) -> Result<(), A::Error> {
        let (mut question_id, mut image_id, mut answers) = (None, None, None);
        let (mut answer_type, mut question_type) = (None, None);
        while let Some(key) = record.next_key_seed(Text)? {
            match &*key {
                "question_id" => question_id = Some(field(&mut record, place, "question_id", Identifier)?),
                "image_id" => image_id = Some(field(&mut record, place, "image_id", Identifier)?),
                "answer_type" => answer_type = field(&mut record, place, "answer_type", OptionalText)?,
                "question_type" => question_type = field(&mut record, place, "question_type", OptionalText)?,
                "answers" if answers.is_some() => return Err(A::Error::duplicate_field("answers")),
                "answers" => {
                    place.field = Some("answers");
                    answers = Some(record.next_value_seed(Answers { builder: &mut self.builder, place: &mut *place })?);
                    place.field = None;
                }
                _ => drop(record.next_value::<IgnoredAny>()?),
            }
        }
        let question_id = question_id.ok_or_else(|| A::Error::missing_field("question_id"))?;
        let image_id = image_id.ok_or_else(|| A::Error::missing_field("image_id"))?;
        answers.ok_or_else(|| A::Error::missing_field("answers"))?;
        place.field = Some("answers");
        self.builder.end_question(answer_type.as_deref(), question_type.as_deref()).map_err(A::Error::custom)?;
        self.keys.push((question_id.into(), image_id.into()));
        Ok(())
    }
}

fn field<'de, A: MapAccess<'de>, S: DeserializeSeed<'de>>(
    record: &mut A,
    place: &mut Place,
    name: &'static str,
    seed: S,
) -> Result<S::Value, A::Error> {
    place.field = Some(name);
    let value = record.next_value_seed(seed)?;
    place.field = None;
    Ok(value)
}

/// The `answers` of one annotation.
struct Answers<'a> {
    builder: &'a mut Builder,
    place: &'a mut Place,
}

impl<'de> DeserializeSeed<'de> for Answers<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, answers: D) -> Result<(), D::Error> {
        answers.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Answers<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of answers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut answers: A) -> Result<(), A::Error> {
        for item in 0.. {
            self.place.item = Some(item);
            if answers.next_element_seed(Answer(&mut *self.builder))?.is_none() {
                break;
            }
        }
        self.place.item = None;
        Ok(())
    }
}

/// One human answer: an object or a plain string.
struct Answer<'a>(&'a mut Builder);

impl<'de> DeserializeSeed<'de> for Answer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, answer: D) -> Result<(), D::Error> {
        answer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Answer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or an object with the string `answer`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.answer(text, None, None).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut answer: A) -> Result<(), A::Error> {
        let (mut text, mut confidence, mut id): (Option<Cow<'de, str>>, _, _) = (None, None, None);
        while let Some(key) = answer.next_key_seed(Text)? {
            match &*key {
                "answer" => text = Some(answer.next_value_seed(Text)?),
                "answer_confidence" => confidence = answer.next_value_seed(OptionalText)?,
                "answer_id" => id = Some(answer.next_value_seed(Identifier)?),
                _ => drop(answer.next_value::<IgnoredAny>()?),
            }
        }
        let text = text.ok_or_else(|| A::Error::missing_field("answer"))?;
        let id = id.map(|id| match id {
            RawId::Number(number) => AnswerId::Number(number),
            RawId::Text(text) => AnswerId::Text(text),
        });
        self.0.answer(&text, confidence.as_deref(), id).map_err(A::Error::custom)
    }
}

fn check_unique<'a>(path: &Path, keys: impl ExactSizeIterator<Item = (&'a Id, &'a Id)>) -> Result<()> {
    let mut seen = HashSet::with_capacity(keys.len());
    let mut first = None;
    let mut count = 0;
    for key in keys {
        if !seen.insert(key) {
            count += 1;
            first = first.or(Some(key));
        }
    }
    first.map_or(Ok(()), |(question_id, image_id)| {
        let path = path.display();
        let message = format!("{count} duplicate records in `{path}`, first: {}", name(question_id, image_id));
        Err(Error::incomplete(message).hint("a question and its image make a key, which occurs once"))
    })
}

/// A key in error messages, in which `7` and `"7"` differ.
fn name(question_id: &Id, image_id: &Id) -> String {
    format!("question {}, image {}", question_id.to_json(), image_id.to_json())
}

/// The references in the order of the questions.
fn align(
    question_file: &Path,
    questions: &[Question],
    annotation_file: &Path,
    keys: &[(Id, Id)],
    references: References,
) -> Result<References> {
    let key_of = |question: &Question| (question.question_id.clone(), question.image_id.clone());
    let same = |(question, key): (&Question, &(Id, Id))| question.question_id == key.0 && question.image_id == key.1;
    if questions.len() == keys.len() && questions.iter().zip(keys).all(same) {
        return Ok(references);
    }
    let positions: HashMap<&(Id, Id), usize> = keys.iter().enumerate().map(|(position, key)| (key, position)).collect();
    let order: Vec<usize> = questions.iter().filter_map(|question| positions.get(&key_of(question)).copied()).collect();
    if order.len() == questions.len() && order.len() == keys.len() {
        return Ok(references.select(&order));
    }
    let mut complaints = Vec::new();
    let without: Vec<&Question> = questions.iter().filter(|one| !positions.contains_key(&key_of(one))).collect();
    if let Some(first) = without.first() {
        let (count, first) = (without.len(), name(&first.question_id, &first.image_id));
        complaints.push(format!("{count} questions have no annotation, first: {first}"));
    }
    let asked: HashSet<(&Id, &Id)> = questions.iter().map(|one| (&one.question_id, &one.image_id)).collect();
    let unasked: Vec<&(Id, Id)> = keys.iter().filter(|key| !asked.contains(&(&key.0, &key.1))).collect();
    if let Some((question_id, image_id)) = unasked.first() {
        let (count, first) = (unasked.len(), name(question_id, image_id));
        complaints.push(format!("{count} annotations have no question, first: {first}"));
    }
    let (asked_in, answered_in) = (question_file.display(), annotation_file.display());
    let message = format!("`{asked_in}` and `{answered_in}` do not belong together: {}", complaints.join("; "));
    let hint = "take both files from the same release and split; `7` and `\"7\"` are different identifiers";
    Err(Error::incomplete(message).hint(hint))
}
