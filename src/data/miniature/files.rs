//! Writes sets as the official VQA files, for any other tool.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{ANSWERS, Asked, Drawn, UNANSWERABLE, VERSION};
use crate::data::{Id, ImageSource};
use crate::error::{Error, Result};

/// Name of the question file in the folder of a set.
pub const QUESTIONS: &str = "questions.json";
/// Name of the annotation file.
pub const ANNOTATIONS: &str = "annotations.json";
/// Name of the folder of the images.
pub const IMAGES: &str = "images";
/// How images are named, for [`crate::data::ImageName`].
pub const IMAGE_NAME: &str = "miniature_{image_id:012}.png";

impl Drawn {
    /// Writes the questions, annotations and images of the set into a folder, which is made. `threads` draw at once.
    /// Beside the official fields, questions have `rephrasing_of` and annotations `answerable` where the set has them.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path, threads: NonZero<usize>) -> Result<()> {
        let images = folder.join(IMAGES);
        fs::create_dir_all(&images).map_err(|cause| cannot_write(&images, cause))?;
        let asked = self.questions();
        let info = json!({
            "description": "The miniature world of digrap-bench", "version": VERSION, "seed": self.seed,
            "strength": self.strength,
        });
        let whole = |name: &str, records: Vec<Value>| {
            json!({
                "info": info, "data_type": "miniature", "data_subtype": self.set.name, "task_type": "Open-Ended",
                "license": {"name": "MIT OR Apache-2.0"}, name: records,
            })
        };
        write_json(&folder.join(QUESTIONS), &whole("questions", asked.iter().map(question).collect()))?;
        write_json(&folder.join(ANNOTATIONS), &whole("annotations", asked.iter().map(annotation).collect()))?;
        let pictures: BTreeSet<&Id> = asked.iter().map(|question| &question.image_id).collect();
        self.write_images(&images, &pictures.into_iter().collect::<Vec<_>>(), threads)
    }

    fn write_images(&self, folder: &Path, pictures: &[&Id], threads: NonZero<usize>) -> Result<()> {
        let next = AtomicUsize::new(0);
        let draw_all = || -> Result<()> {
            while let Some(id) = pictures.get(next.fetch_add(1, Ordering::Relaxed)) {
                let path = folder.join(image_name(id));
                self.decode(id)?.save(&path).map_err(|cause| cannot_write(&path, cause))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.get()).map(|_| scope.spawn(draw_all)).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }
}

fn image_name(id: &Id) -> String {
    match id {
        Id::Number(number) => format!("miniature_{number:012}.png"),
        Id::Text(text) => format!("miniature_{text}.png"),
    }
}

fn cannot_write(path: &Path, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::input(format!("cannot write `{}`", path.display())).caused_by(cause).hint("choose another folder")
}

fn write_json(path: &Path, document: &Value) -> Result<()> {
    fs::write(path, document.to_string() + "\n").map_err(|cause| cannot_write(path, cause))
}

fn json_id(id: &Id) -> Value {
    match id {
        Id::Number(number) => json!(number),
        Id::Text(text) => json!(text),
    }
}

fn question(asked: &Asked) -> Value {
    let mut record = json!({
        "question_id": json_id(&asked.question_id), "image_id": json_id(&asked.image_id), "question": asked.text,
    });
    if let Some(original) = asked.original.as_ref().filter(|original| **original != asked.question_id) {
        record["rephrasing_of"] = json_id(original);
    }
    record
}

fn annotation(asked: &Asked) -> Value {
    let answer = |(number, answer): (usize, &super::Answer)| json!({"answer": answer.text, "answer_confidence": answer.confidence, "answer_id": number});
    json!({
        "question_id": json_id(&asked.question_id), "image_id": json_id(&asked.image_id),
        "question_type": asked.question_type(), "answer_type": asked.answer_type,
        "multiple_choice_answer": asked.common_answer(), "answerable": u8::from(asked.answer_type != UNANSWERABLE),
        "answers": (1..=ANSWERS).zip(&asked.answers).map(answer).collect::<Vec<_>>(),
    })
}
