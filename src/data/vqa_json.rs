//! The VQA family's JSON: a file of questions and one of annotations, or one file that holds both.
//!
//! Lists may be wrapped in an object (VQAv2: `questions` and `annotations`, TextVQA: `data`) or be bare (VQA-CP, VizWiz,
//! the "combined" lists of LAVIS). Answers are objects with `answer` and optionally `answer_confidence` and `answer_id`, or
//! plain strings; without an annotation file, the questions' own `answers` (`answer` in combined lists) are the references.
//!
//! Where records name their `image` and have no identifiers (VizWiz), the path is the image's identifier and its last part
//! the question's. `coco_split` (VQA-CP) says which COCO folder an image is in. Unknown fields are ignored,
//! `multiple_choice_answer` among them: CV-VQA leaves it stale.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::image_folder::Names;
use super::json::{self, Identifier, OptionalText, Place, RawId, Records, Text};
use super::{Dataset, Id, ImageFolder, ImageName, Question, Relations};
use crate::error::{Error, Result};
use crate::score::{AnswerId, Builder, References};

/// The files of a dataset in the official layout.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// Question file.
    pub questions: &'a Path,
    /// Annotation file; without it the references are the answers in the question file, if it has any.
    pub annotations: Option<&'a Path>,
    /// Folder of the images; the current folder where nobody will open them.
    pub images: Option<&'a Path>,
    /// Template of the image file names; without it those that the records name, else
    /// `COCO_{data_subtype}_{image_id:012}.jpg` of the question file.
    pub image_name: Option<&'a str>,
}

/// Loads a dataset; questions keep the order of their file and references follow it.
///
/// # Errors
/// Unreadable or damaged files, with record and field; duplicate keys; questions without annotation and annotations
/// without question, with their number and the first one; a bad `image_name`.
pub fn load(files: Files<'_>) -> Result<Dataset> {
    let given_name = files.image_name.map(str::parse::<ImageName>).transpose()?;
    let content = read(files.questions, files.annotations)?;
    let name = files.questions.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let names = given_name.map(Names::Pattern).unwrap_or(content.names);
    let images = Arc::new(ImageFolder::among(vec![files.images.map_or_else(PathBuf::new, Path::to_owned)], names));
    let Content { questions, references, relations, .. } = content;
    Ok(Dataset { name, questions, references, relations, images })
}

/// What the files of a dataset say.
pub(super) struct Content {
    pub questions: Vec<Question>,
    pub references: Option<References>,
    pub relations: Relations,
    pub names: Names,
}

/// Reads the files of a dataset.
///
/// # Errors
/// As [`load`].
pub(super) fn read(questions: &Path, annotations: Option<&Path>) -> Result<Content> {
    let (asked, annotated) = std::thread::scope(|scope| {
        let annotated = annotations.map(|path| scope.spawn(move || read_annotations(path)));
        let asked = read_questions(questions, annotations.is_none());
        let annotated = annotated.map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        (asked, annotated)
    });
    let mut content = asked?;
    check_unique(questions, content.questions.iter().map(|question| (&question.question_id, &question.image_id)))?;
    if let (Some((keys, references)), Some(path)) = (annotated.transpose()?, annotations) {
        content.references = Some(align(questions, &content.questions, path, &keys, references)?);
    }
    Ok(content)
}

type Keys = Vec<(Id, Id)>;

fn read_questions(path: &Path, with_answers: bool) -> Result<Content> {
    let bytes = json::map(path)?;
    let mut records = QuestionRecords { with_answers, ..QuestionRecords::default() };
    let data_subtype = json::read(path, &bytes, &mut records)?;
    if records.questions.is_empty() {
        return Err(Error::input(format!("`{}` holds no questions", path.display())));
    }
    records.finish(data_subtype.as_deref()).map_err(|error| error.within(format!("cannot read `{}`", path.display())))
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

/// The questions of a file, and what it tells of them besides.
#[derive(Default)]
struct QuestionRecords {
    questions: Vec<Question>,
    /// Whether the answers of records are read.
    with_answers: bool,
    builder: Builder,
    answered: usize,
    originals: Vec<Option<Id>>,
    parts: Vec<u32>,
    part_names: Vec<Box<str>>,
    /// Files of the images of which records name one.
    listed: HashMap<Id, Box<str>>,
}

/// The fields of one question.
#[derive(Default)]
struct Fields<'de> {
    question_id: Option<RawId<'de>>,
    image_id: Option<RawId<'de>>,
    question: Option<Cow<'de, str>>,
    image: Option<Cow<'de, str>>,
    coco_split: Option<Cow<'de, str>>,
    answerable: Option<bool>,
    rephrasing_of: Option<RawId<'de>>,
    answer_type: Option<Cow<'de, str>>,
    question_type: Option<Cow<'de, str>>,
    answered: bool,
}

impl<'de> Records<'de> for QuestionRecords {
    const LISTS: &'static [&'static str] = &["questions", "data"];

    fn record<A: MapAccess<'de>>(&mut self, mut record: A, place: &mut Place) -> Result<(), A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = record.next_key_seed(Text)? {
            match &*key {
                "question_id" => fields.question_id = Some(field(&mut record, place, "question_id", Identifier)?),
                "image_id" => fields.image_id = Some(field(&mut record, place, "image_id", Identifier)?),
                "question" => fields.question = Some(field(&mut record, place, "question", Text)?),
                "image" => fields.image = Some(field(&mut record, place, "image", Text)?),
                "coco_split" => fields.coco_split = Some(field(&mut record, place, "coco_split", Text)?),
                "answerable" => fields.answerable = Some(field(&mut record, place, "answerable", ZeroOrOne)?),
                "rephrasing_of" => fields.rephrasing_of = Some(field(&mut record, place, "rephrasing_of", Identifier)?),
                "answer_type" => fields.answer_type = field(&mut record, place, "answer_type", OptionalText)?,
                "question_type" => fields.question_type = field(&mut record, place, "question_type", OptionalText)?,
                "answers" | "answer" if self.with_answers => {
                    if fields.answered {
                        return Err(A::Error::duplicate_field("answers"));
                    }
                    place.field = Some(if key == "answers" { "answers" } else { "answer" });
                    record.next_value_seed(Answers { builder: &mut self.builder, place: &mut *place })?;
                    place.field = None;
                    fields.answered = true;
                }
                _ => drop(record.next_value::<IgnoredAny>()?),
            }
        }
        self.add(fields, place)
    }
}

impl QuestionRecords {
    fn add<E: serde::de::Error>(&mut self, fields: Fields, place: &mut Place) -> Result<(), E> {
        let Fields { question_id, image_id, question, image, .. } = fields;
        let file = image.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
        let question_id = question_id.map(Id::from).or_else(|| file.map(|file| Id::Text(file.into())));
        let question_id = question_id.ok_or_else(|| E::missing_field("question_id"))?;
        let image_id = image_id.map(Id::from).or_else(|| image.as_deref().map(|path| Id::Text(path.into())));
        let image_id = image_id.ok_or_else(|| E::missing_field("image_id"))?;
        let question = question.ok_or_else(|| E::missing_field("question"))?;
        let split = fields.coco_split.as_deref();
        let coco = || Some(format!("{0}/{1}", split?, ImageName::coco(split?).of(&image_id)).into());
        if let Some(file) = image.map(|path| path.into_owned().into_boxed_str()).or_else(coco)
            && let Some(other) = self.listed.insert(image_id.clone(), file)
            && other != self.listed[&image_id]
        {
            let file = &self.listed[&image_id];
            return Err(E::custom(format_args!("image {} is `{file}` here and `{other}` before", image_id.to_json())));
        }
        if fields.answered {
            place.field = Some("answers");
            let (answer_type, question_type) = (fields.answer_type.as_deref(), fields.question_type.as_deref());
            self.builder.end_question(answer_type, question_type).map_err(E::custom)?;
            place.field = None;
            self.answered += 1;
        }
        let answerable = fields.answerable.map(|answerable| if answerable { ANSWERABLE } else { UNANSWERABLE });
        if let Some(part) = split.or(answerable) {
            let known = self.part_names.iter().position(|name| **name == *part);
            self.parts.push(known.unwrap_or(self.part_names.len()) as u32);
            if known.is_none() {
                self.part_names.push(part.into());
            }
        }
        self.originals.push(fields.rephrasing_of.map(Id::from));
        self.questions.push(Question { question_id, image_id, text: question.into() });
        Ok(())
    }

    fn finish(mut self, data_subtype: Option<&str>) -> Result<Content> {
        self.questions.shrink_to_fit();
        let count = self.questions.len();
        for (have, what) in [(self.answered, "answers"), (self.parts.len(), "`coco_split` or `answerable`")] {
            if have != 0 && have != count {
                return Err(Error::input(format!("only {have} of {count} questions have {what}")));
            }
        }
        let known = self.originals.iter().any(Option::is_some);
        let originals = if known { self.originals } else { Vec::new() };
        let relations = Relations { originals, parts: self.parts, part_names: self.part_names, ..Relations::default() };
        let names = if self.listed.is_empty() {
            Names::Pattern(data_subtype.map_or_else(ImageName::unknown, ImageName::coco))
        } else if self.listed.iter().all(|(image_id, file)| matches!(image_id, Id::Text(id) if id == file)) {
            Names::Pattern("{image_id}".parse()?)
        } else {
            Names::Listed(self.listed)
        };
        let references = (self.answered > 0).then(|| self.builder.finish());
        Ok(Content { questions: self.questions, references, relations, names })
    }
}

/// Names of the parts that `answerable` tells.
pub(super) const ANSWERABLE: &str = "answerable";
pub(super) const UNANSWERABLE: &str = "unanswerable";

/// 0 or 1, as false or true.
struct ZeroOrOne;

impl<'de> DeserializeSeed<'de> for ZeroOrOne {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, number: D) -> Result<bool, D::Error> {
        match Identifier.deserialize(number)? {
            RawId::Number(number @ (0 | 1)) => Ok(number == 1),
            _ => Err(D::Error::custom("expected 0 or 1")),
        }
    }
}

struct AnnotationRecords {
    keys: Keys,
    builder: Builder,
}

impl<'de> Records<'de> for AnnotationRecords {
    const LISTS: &'static [&'static str] = &["annotations"];

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

pub(super) fn check_unique<'a>(path: &Path, keys: impl ExactSizeIterator<Item = (&'a Id, &'a Id)>) -> Result<()> {
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
