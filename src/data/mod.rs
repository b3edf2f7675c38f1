//! Questions, annotations and images on disk, whatever their format, as one [`Dataset`].

pub mod image;

use std::fmt;

/// Identifier of a question or an image: a number in the COCO family, text elsewhere.
///
/// `7` and `"7"` are different identifiers, as they are in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// An integer identifier.
    Number(i64),
    /// A textual identifier.
    Text(Box<str>),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// One question about one image. The pair of its identifiers is unique within a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Identifier of the question; may repeat with other images (IV-VQA, CV-VQA).
    pub question_id: Id,
    /// Identifier of the image.
    pub image_id: Id,
    /// The question as asked, untouched.
    pub text: Box<str>,
}
