//! Ground truth of many questions, stored compactly.

use std::borrow::Cow;

use super::symbols::Symbols;
use crate::error::{Error, Result};

const NONE: u32 = u32::MAX;

/// One human answer as stored: eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    /// Symbol of the answer's text.
    pub(crate) text: u32,
    /// 0 without `answer_id`; else one more than the position of the question's first answer with this identifier.
    pub(crate) identity: u16,
    /// 0 without `answer_confidence`; else one more than its position in the table of confidences.
    pub(crate) confidence: u8,
}

/// `answer_id` of a human answer; only equality within one question is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerId<'a> {
    /// An integer, as in the official files.
    Number(i64),
    /// Any other identifier.
    Text(Cow<'a, str>),
}

/// One human answer, seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The answer, untouched.
    pub text: &'a str,
    /// `yes`, `maybe` or `no` in the VQA family.
    pub confidence: Option<&'a str>,
}

/// The human answers of many questions with their answer and question types.
///
/// Every distinct string is stored once; an answer takes 8 bytes and a question 16.
/// Questions are known by position, the order in which [`Builder::end_question`] closed them.
#[derive(Debug, Clone, Default)]
pub struct References {
    symbols: Symbols,
    confidences: Vec<Box<str>>,
    answers: Vec<Given>,
    questions: Vec<Entry>,
}

/// The answers of a question end where those of the next begin.
#[derive(Debug, Clone, Copy)]
struct Entry {
    end: usize,
    answer_type: u32,
    question_type: u32,
}

impl References {
    /// Starts an empty collection.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Number of questions.
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// Whether there are no questions.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// The human answers of a question, in file order.
    ///
    /// # Panics
    /// Like slices, for a position of [`len`](Self::len) or more; so do the other lookups.
    pub fn answers(&self, question: usize) -> impl ExactSizeIterator<Item = Reference<'_>> {
        self.given(question).iter().map(|given| Reference {
            text: self.symbols.get(given.text),
            confidence: given.confidence.checked_sub(1).map(|index| &*self.confidences[usize::from(index)]),
        })
    }

    /// `answer_type` of a question, as written in the file.
    pub fn answer_type(&self, question: usize) -> Option<&str> {
        self.name(self.questions[question].answer_type)
    }

    /// `question_type` of a question, as written in the file.
    pub fn question_type(&self, question: usize) -> Option<&str> {
        self.name(self.questions[question].question_type)
    }

    /// The questions at the given positions, in that order.
    ///
    /// # Panics
    /// For a position of [`len`](Self::len) or more.
    #[must_use]
    pub fn select(&self, positions: &[usize]) -> Self {
        let mut questions = Vec::with_capacity(positions.len());
        let mut answers = Vec::with_capacity(positions.iter().map(|&position| self.given(position).len()).sum());
        for &position in positions {
            answers.extend_from_slice(self.given(position));
            questions.push(Entry { end: answers.len(), ..self.questions[position] });
        }
        Self { symbols: self.symbols.clone(), confidences: self.confidences.clone(), answers, questions }
    }

    pub(crate) fn given(&self, question: usize) -> &[Given] {
        let start = if question == 0 { 0 } else { self.questions[question - 1].end };
        &self.answers[start..self.questions[question].end]
    }

    pub(crate) fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    fn name(&self, symbol: u32) -> Option<&str> {
        (symbol != NONE).then(|| self.symbols.get(symbol))
    }
}

/// Collects [`References`] answer by answer.
///
/// ```
/// # use digrap_bench::score::References;
/// let mut builder = References::builder();
/// builder.answer("red", Some("yes"), None)?;
/// builder.end_question(Some("other"), None)?;
/// let references = builder.finish();
/// assert_eq!(references.answers(0).next().map(|answer| answer.text), Some("red"));
/// # Ok::<(), digrap_bench::error::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Builder {
    built: References,
    identifiers: Vec<Option<AnswerId<'static>>>,
}

impl Builder {
    /// Adds one human answer to the question that is being collected.
    ///
    /// # Errors
    /// More than 65,534 answers to one question, or more than 254 distinct confidences in all.
    pub fn answer(&mut self, text: &str, confidence: Option<&str>, id: Option<AnswerId<'_>>) -> Result<()> {
        let text = self.built.symbols.intern(text);
        let confidence = confidence.map_or(Ok(0), |confidence| self.confidence(confidence))?;
        let identity = self.identity(id)?;
        self.built.answers.push(Given { text, identity, confidence });
        Ok(())
    }

    /// Closes the question that is being collected.
    ///
    /// # Errors
    /// A question without answers: no evaluator defines its accuracy.
    pub fn end_question(&mut self, answer_type: Option<&str>, question_type: Option<&str>) -> Result<()> {
        if self.identifiers.is_empty() {
            return Err(Error::input("no answers"));
        }
        self.identifiers.clear();
        let mut symbol = |name: Option<&str>| name.map_or(NONE, |name| self.built.symbols.intern(name));
        let (answer_type, question_type) = (symbol(answer_type), symbol(question_type));
        self.built.questions.push(Entry { end: self.built.answers.len(), answer_type, question_type });
        Ok(())
    }

    /// The finished collection, without spare memory.
    pub fn finish(mut self) -> References {
        self.built.symbols.shrink_to_fit();
        self.built.answers.shrink_to_fit();
        self.built.questions.shrink_to_fit();
        self.built
    }

    fn confidence(&mut self, confidence: &str) -> Result<u8> {
        let known = &mut self.built.confidences;
        let index = known.iter().position(|name| &**name == confidence).unwrap_or_else(|| {
            known.push(confidence.into());
            known.len() - 1
        });
        u8::try_from(index + 1).map_err(|_| Error::input("more than 254 distinct values of `answer_confidence`"))
    }

    fn identity(&mut self, id: Option<AnswerId<'_>>) -> Result<u16> {
        let position = self.identifiers.len();
        let first = match &id {
            None => None,
            Some(id) => Some(self.identifiers.iter().position(|known| known.as_ref() == Some(id)).unwrap_or(position)),
        };
        self.identifiers.push(id.map(|id| match id {
            AnswerId::Number(number) => AnswerId::Number(number),
            AnswerId::Text(text) => AnswerId::Text(Cow::Owned(text.into_owned())),
        }));
        let too_many = |_| Error::input("more than 65,534 answers to one question");
        u16::try_from(position + 1).and_then(|_| u16::try_from(first.map_or(0, |first| first + 1))).map_err(too_many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_questions() -> References {
        let mut builder = References::builder();
        for (text, id) in [("red", 7), ("blue", 8), ("red", 7)] {
            builder.answer(text, Some("maybe"), Some(AnswerId::Number(id))).unwrap();
        }
        builder.end_question(Some("other"), Some("what")).unwrap();
        builder.answer("yes", None, None).unwrap();
        builder.end_question(None, None).unwrap();
        builder.finish()
    }

    #[test]
    fn answers_and_types_come_back_as_given() {
        let references = two_questions();
        let texts: Vec<_> = references.answers(0).map(|answer| (answer.text, answer.confidence)).collect();
        assert_eq!(texts, [("red", Some("maybe")), ("blue", Some("maybe")), ("red", Some("maybe"))]);
        assert_eq!((references.answer_type(0), references.question_type(0)), (Some("other"), Some("what")));
        assert_eq!((references.answer_type(1), references.question_type(1)), (None, None));
        assert_eq!(references.given(0).iter().map(|given| given.identity).collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(references.given(1)[0].identity, 0);
    }

    #[test]
    fn selection_reorders_and_repeats() {
        let selected = two_questions().select(&[1, 0, 1]);
        let counts: Vec<_> = (0..3).map(|question| selected.answers(question).len()).collect();
        assert_eq!((counts, selected.answer_type(1)), (vec![1, 3, 1], Some("other")));
    }

    #[test]
    fn a_question_needs_answers() {
        let error = References::builder().end_question(None, None).unwrap_err();
        assert_eq!(error.to_string(), "no answers");
    }

    #[test]
    fn an_answer_takes_eight_bytes_and_a_question_sixteen() {
        assert_eq!((size_of::<Given>(), size_of::<Entry>()), (8, 16));
    }
}
