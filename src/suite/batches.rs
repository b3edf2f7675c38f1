//! Batches of questions to learn from: their answers as tokens, their images as pixels.

use std::collections::HashMap;
use std::sync::Arc;

use super::plan::TrainingPlan;
use super::sampling::Sampler;
use crate::data::{Dataset, Question};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::text::TextProcessor;
use crate::model::training::{Collation, Example};
use crate::model::vision::ImageProcessor;
use crate::random::Random;
use crate::tensor::Tensor;
use crate::train::{Batch, Batches};

/// Batches of questions to learn from.
pub(super) struct QuestionBatches<'a> {
    plan: &'a TrainingPlan,
    dataset: &'a Dataset,
    sampler: Sampler,
    text: Arc<TextProcessor>,
    images: Arc<ImageProcessor>,
    collation: Collation,
    /// Tokens of each question's answer.
    answers: Vec<Arc<[u32]>>,
}

impl<'a> QuestionBatches<'a> {
    /// # Errors
    /// Input error naming the question that cannot be trained on, as far as that shows without opening images.
    pub(super) fn new(
        plan: &'a TrainingPlan,
        dataset: &'a Dataset,
        model: &Model,
        collation: Collation,
        sampler: Sampler,
    ) -> Result<Self> {
        let answers = encoded_answers(dataset, model)?;
        for question in &dataset.questions {
            dataset.images.check(&question.image_id).map_err(|error| untrainable(dataset, question, error))?;
        }
        let (text, images) = (Arc::clone(model.text()), Arc::clone(model.images()));
        Ok(Self { plan, dataset, sampler, text, images, collation, answers })
    }

    /// Prompt and answer of a question about the image in row `image`.
    fn example(&self, position: usize, image: usize) -> Result<Example> {
        let question = &self.dataset.questions[position];
        let prompt = self.text.encode(&self.plan.prompt.fill(&question.text));
        let prompt = prompt.map_err(|error| untrainable(self.dataset, question, error))?;
        Ok(Example { prompt, answer: self.answers[position].to_vec(), image })
    }

    fn append_pixels(&self, position: usize, pixels: &mut Vec<f32>) -> Result<()> {
        let question = &self.dataset.questions[position];
        let within = |error: Error| untrainable(self.dataset, question, error);
        let image = self.dataset.images.decode(&question.image_id).map_err(within)?;
        let start = pixels.len();
        pixels.resize(start + self.images.output_len(), 0.0);
        self.images.process(&image, &mut pixels[start..]).map_err(within)
    }
}

impl Batches for QuestionBatches<'_> {
    fn batch(&self, micro_step: u64) -> Result<Batch> {
        let positions = self.sampler.batch(micro_step);
        let (mut pixels, mut rows, mut examples) = (Vec::new(), HashMap::new(), Vec::with_capacity(positions.len()));
        for position in &positions {
            let image_id = &self.dataset.questions[*position].image_id;
            let next = rows.len();
            let row = *rows.entry(image_id).or_insert(next);
            if row == next {
                self.append_pixels(*position, &mut pixels)?;
            }
            examples.push(self.example(*position, row)?);
        }
        let (height, width) = self.images.size();
        let channels = self.images.output_len() / (height * width);
        let pixels = Tensor::new([rows.len(), channels, height, width], pixels)?;
        let seed = Random::new(self.plan.seed).name("dropout").bits(micro_step);
        let (inputs, count) = self.collation.batch(&examples, pixels, seed)?;
        let ids = positions.iter().map(|position| self.dataset.questions[*position].question_id.to_string()).collect();
        Ok(Batch { inputs, count, samples: positions.len(), ids })
    }
}

/// Tokens of the answer to learn for each question: the most frequent one of its human answers, the first of several.
fn encoded_answers(dataset: &Dataset, model: &Model) -> Result<Vec<Arc<[u32]>>> {
    let references = dataset.references.as_ref().ok_or_else(|| {
        Error::input(format!("`{}` has no answers to train on", dataset.name)).hint("give an annotation file")
    })?;
    let mut known: HashMap<&str, Arc<[u32]>> = HashMap::new();
    let mut encoded = Vec::with_capacity(dataset.questions.len());
    for (position, question) in dataset.questions.iter().enumerate() {
        let answer = most_frequent(references.answers(position).map(|answer| answer.text));
        let answer = answer.ok_or_else(|| untrainable(dataset, question, Error::input("it has no answer")))?;
        let tokens = match known.get(answer) {
            Some(tokens) => Arc::clone(tokens),
            None => {
                let tokens: Arc<[u32]> =
                    model.encode_answer(answer).map_err(|error| untrainable(dataset, question, error))?.into();
                known.insert(answer, Arc::clone(&tokens));
                tokens
            }
        };
        encoded.push(tokens);
    }
    Ok(encoded)
}

fn most_frequent<'a>(answers: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for answer in answers {
        match counts.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, count)) => *count += 1,
            None => counts.push((answer, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(answer, _)| answer)
}

fn untrainable(dataset: &Dataset, question: &Question, error: Error) -> Error {
    error.within(format!("question {} of `{}` cannot be trained on", question.question_id, dataset.name))
}
