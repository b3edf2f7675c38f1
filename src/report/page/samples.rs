//! The data of the explorer: a catalogue, for each dataset the columns that filters need, and pages of what is shown of a
//! sample alone. `samples.js` reads them.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::script::column;
use super::{Page, PageEvent, SetFolder};
use crate::data::Dataset;
use crate::error::Result;
use crate::score::{References, grouped_type};
use crate::store::Distances;
use crate::suite::{MODALITIES, Modality, SampleSet, SampledModel, SampledResults};

/// Samples in one file of details.
const PAGE_LENGTH: usize = 250;

/// Steps of a score in its column; multiples of 1/30, the scores of the VQA metrics, are whole numbers of them.
const FULL: u8 = 240;

/// Stands for a type that a question has none of.
const NONE: u8 = u8::MAX;

/// What the explorer knows from the start; `datasets` is what [`write()`] returns.
pub(super) fn catalogue(page: &Page, datasets: Vec<Value>) -> Value {
    let modality = |modality: &Modality| json!({"name": modality.name, "label": modality.label});
    let model = |model: &SampledModel| json!({"name": model.name, "zero_shot": model.zero_shot});
    json!({
        "page_length": PAGE_LENGTH, "images": page.images, "limit": page.samples.limit,
        "modalities": MODALITIES.iter().map(modality).collect::<Vec<_>>(),
        "models": page.samples.models.iter().map(model).collect::<Vec<_>>(),
        "datasets": datasets,
    })
}

fn about_set(folder: &SetFolder, set: &SampleSet, types: &Types) -> Value {
    json!({
        "name": set.dataset.name, "label": set.label, "folder": folder.name, "size": set.dataset.questions.len(),
        "shift": set.shift.name, "shift_about": set.shift.about, "metric": set.metric, "types": types.names,
        "models": set.results.iter().map(about_results).collect::<Vec<_>>(),
    })
}

fn about_results(results: &SampledResults) -> Value {
    let shifts = results.shifts.iter().map(|shift| {
        shift.as_ref().map(|shift| json!({"mean": shift.mean, "interval": shift.interval})).unwrap_or_default()
    });
    json!({
        "model": results.model, "answers": !results.answers.is_empty(), "shifts": shifts.collect::<Vec<_>>(),
    })
}

/// Writes the columns and the details of a dataset, and returns what the catalogue says of it. `image_files` says of each
/// image what its file is.
pub(super) fn write(
    folder: &SetFolder,
    set: &SampleSet,
    image_files: &[u8],
    on_event: &mut dyn FnMut(PageEvent),
) -> Result<Value> {
    let references = set.dataset.references.as_ref();
    let types = Types::of(references);
    let mut texts = Texts::default();
    let people: Vec<Vec<(&str, usize)>> =
        (0..set.dataset.questions.len()).map(|question| answers_of_people(references, question)).collect();
    for results in &set.results {
        folder.write_data(&format!("model-{}", results.model), &model_columns(results, &mut texts))?;
    }
    let mut questions = question_columns(set.dataset, &people, texts);
    questions["types"] = types.column(people.len()).into();
    questions["image_files"] = column(image_files.iter().map(|file| file.to_le_bytes())).into();
    folder.write_data("questions", &questions)?;
    for (number, page) in people.chunks(PAGE_LENGTH).enumerate() {
        let start = number * PAGE_LENGTH;
        let details: Vec<Value> = page.iter().enumerate().map(|(at, people)| detail(set, start + at, people)).collect();
        folder.write_data(&format!("samples-{number}"), &details)?;
        let (done, total) = (start + page.len(), people.len());
        on_event(PageEvent::Samples { dataset: &set.dataset.name, done, total });
    }
    Ok(about_set(folder, set, &types))
}

/// The different answers of people with their counts, the most frequent first.
fn answers_of_people(references: Option<&References>, question: usize) -> Vec<(&str, usize)> {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for answer in references.into_iter().flat_map(|references| references.answers(question)) {
        match counted.iter_mut().find(|(text, _)| *text == answer.text) {
            Some((_, count)) => *count += 1,
            None => counted.push((answer.text, 1)),
        }
    }
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counted
}

/// Different answers, numbered in the order of their first use.
#[derive(Default)]
struct Texts<'a> {
    numbers: HashMap<&'a str, u32>,
    texts: Vec<&'a str>,
}

impl<'a> Texts<'a> {
    fn number(&mut self, text: &'a str) -> u32 {
        *self.numbers.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() as u32 - 1
        })
    }
}

/// The answer types of a dataset, in the order of their first use.
struct Types<'a> {
    names: Vec<&'a str>,
    of_question: Vec<u8>,
}

impl<'a> Types<'a> {
    fn of(references: Option<&'a References>) -> Self {
        let mut types = Self { names: Vec::new(), of_question: Vec::new() };
        let Some(references) = references else { return types };
        for question in 0..references.len() {
            let number = grouped_type(references, question).map_or(NONE, |name| types.number(name));
            types.of_question.push(number);
        }
        types
    }

    /// The type of each of so many questions.
    fn column(&self, questions: usize) -> String {
        column((0..questions).map(|question| [self.of_question.get(question).copied().unwrap_or(NONE)]))
    }

    /// Datasets have a handful of types; those beyond what a byte can tell apart count as none.
    fn number(&mut self, name: &'a str) -> u8 {
        let place = self.names.iter().position(|known| *known == name).unwrap_or(self.names.len());
        match u8::try_from(place) {
            Ok(NONE) | Err(_) => NONE,
            Ok(number) => {
                if place == self.names.len() {
                    self.names.push(name);
                }
                number
            }
        }
    }
}

fn question_columns<'a>(dataset: &Dataset, people: &[Vec<(&'a str, usize)>], mut texts: Texts<'a>) -> Value {
    let said: Vec<u32> = people.iter().flatten().map(|(text, _)| texts.number(text)).collect();
    let ends = people.iter().scan(0_u32, |end, answers| {
        *end += answers.len() as u32;
        Some(*end)
    });
    json!({
        "questions": dataset.questions.iter().map(|question| &*question.text).collect::<Vec<_>>(),
        "answers": texts.texts,
        "images": column(dataset.image_numbers().into_iter().map(u32::to_le_bytes)),
        "people": column(said.into_iter().map(u32::to_le_bytes)),
        "people_ends": column(ends.map(u32::to_le_bytes)),
    })
}

fn model_columns<'a>(results: &SampledResults<'a>, texts: &mut Texts<'a>) -> Value {
    let SampledResults { answers, scores, distances, shifts, .. } = results;
    let numbers: Vec<u32> = answers.iter().map(|text| texts.number(text)).collect();
    let distances = MODALITIES.iter().zip(shifts).map(|(modality, shift)| {
        let distance = |distances: &Distances| (modality.distance)(distances).map_or(f32::NAN, |value| value as f32);
        shift.as_ref().map(|_| column(distances.iter().map(|one| distance(one).to_le_bytes())))
    });
    json!({
        "answers": (!numbers.is_empty()).then(|| column(numbers.into_iter().map(u32::to_le_bytes))),
        "scores": (!scores.is_empty()).then(|| column(scores.iter().map(|score| [steps(*score)]))),
        "distances": distances.collect::<Vec<_>>(),
    })
}

/// A score in steps of 1/240. No score becomes one that is full, nothing, or on the other side of a half by rounding.
fn steps(score: f64) -> u8 {
    let nearest = (score * f64::from(FULL)).round().clamp(0.0, f64::from(FULL)) as u8;
    match score {
        score if score.is_nan() || score <= 0.0 => 0,
        score if score >= 1.0 => FULL,
        score if score < 0.5 => nearest.clamp(1, FULL / 2 - 1),
        _ => nearest.clamp(FULL / 2, FULL - 1),
    }
}

fn detail(set: &SampleSet, sample: usize, people: &[(&str, usize)]) -> Value {
    let question = &set.dataset.questions[sample];
    json!({
        "question_id": question.question_id.to_string(), "image_id": question.image_id.to_string(), "people": people,
        "scores": set.results.iter().map(|results| results.scores.get(sample)).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_their_side() {
        for thirtieth in 0..=30_u32 {
            assert_eq!(u32::from(steps(f64::from(thirtieth) / 30.0)), thirtieth * 8);
        }
        assert_eq!([f64::NAN, -0.1, 1.1].map(steps), [0, 0, 240]);
        assert_eq!([1e-9, 0.499_999, 0.5, 0.999_999].map(steps), [1, 119, 120, 239]);
    }
}
