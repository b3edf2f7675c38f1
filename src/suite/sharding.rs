//! A run that several processes share: each answers the questions about its images and keeps them in a store of its own.
//! Folding these stores gives the store of the whole.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::answering::Event;
use super::evaluation::{Plan, check_names, named, question_set, record};
use super::loading::{check_dtype, dtype_of, load_model};
use super::pipeline::first_bytes;
use crate::data::{Dataset, Id};
use crate::error::{Error, Result};
use crate::model::Checkpoint;
use crate::runtime::Runtime;
use crate::store::Store;

/// One part of a run that is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Part number `index`, from 1 on, of `count`.
    ///
    /// # Errors
    /// There is no such part.
    pub fn new(index: usize, count: usize) -> Result<Self> {
        if index == 0 || index > count {
            return Err(Error::input(format!("there is no shard {index} of {count}"))
                .hint("shards count from 1: the first of four is 1/4"));
        }
        Ok(Self { index, count })
    }

    /// Its number, from 1 on.
    pub fn index(self) -> usize {
        self.index
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.count
    }

    /// Why shift is not measured by shards.
    fn without_shift(self) -> Error {
        Error::input(format!("shard {self} cannot measure shift: distances are from a fit of all training questions"))
            .hint("measure it in one process, on the folded store: `digrap-bench vqa ... --shift --shard 1/1`")
    }

    /// The questions about images that fall to this shard. A digest of the image's identifier decides, so that all questions
    /// about an image fall to one shard and no shard has to know of the others.
    pub fn of(self, dataset: &Dataset) -> Dataset {
        let mine = |(position, image): (usize, &Id)| self.holds(image).then_some(position);
        let images = dataset.questions.iter().map(|question| &question.image_id).enumerate();
        dataset.select(&images.filter_map(mine).collect::<Vec<_>>())
    }

    fn holds(self, image: &Id) -> bool {
        let number = first_bytes(Sha256::new_with_prefix(image.to_json()));
        number % self.count as u64 == (self.index - 1) as u64
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        let (index, count) = numbers.ok_or_else(|| {
            Error::input(format!("`{text}` is no shard")).hint("shards are written as 1/4, 2/4, 3/4 and 4/4")
        })?;
        Self::new(index, count)
    }
}

/// What one shard has of a model's answers to a dataset.
#[derive(Debug, Clone, Serialize)]
pub struct ShardPart {
    /// Name of the model.
    pub model: String,
    /// Name of the dataset.
    pub dataset: String,
    /// Questions that fall to the shard, all of which have an answer.
    pub answered: usize,
    /// Questions of the whole dataset.
    pub of: usize,
}

/// Answers the questions that fall to a shard, for every model and dataset of the plan, and records the questions of the whole
/// datasets. Nothing is scored and no file but the store is written.
///
/// # Errors
/// As [`super::evaluate`]; a plan that measures shift.
pub fn answer_shard(
    plan: &Plan,
    shard: Shard,
    runtime: &Runtime,
    on_event: &mut dyn FnMut(&str, Event),
) -> Result<Vec<ShardPart>> {
    check_names(plan)?;
    if plan.shift.is_some() {
        return Err(shard.without_shift());
    }
    let open = |model: &super::PlannedModel| Checkpoint::open_on(&model.source.folder, model.source.base.as_deref());
    let checkpoints = plan.models.iter().map(open).collect::<Result<Vec<_>>>()?;
    checkpoints.iter().try_for_each(|checkpoint| check_dtype(plan.device, dtype_of(plan, checkpoint)))?;
    let mine: Vec<Dataset> = plan.datasets.iter().map(|planned| shard.of(&planned.dataset)).collect();
    let mut store = Store::open(&plan.store)?;
    let mut parts = Vec::new();
    for (checkpoint, model) in checkpoints.iter().zip(&plan.models) {
        let name = &model.source.name;
        let mut report = |event: Event| on_event(name, event);
        let within = |error: Error| error.within(format!("cannot load the model `{}`", checkpoint.folder.display()));
        let mut loaded = load_model(plan, runtime, (checkpoint, model), &mut store, &mut report).map_err(within)?;
        let mut paces = Vec::new();
        for (planned, mine) in plan.datasets.iter().zip(&mine) {
            if let Some(settings) = loaded.answers {
                store.record_questions(settings, &question_set(&planned.dataset))?;
            }
            let (answered, of) = (mine.questions.len(), planned.dataset.questions.len());
            if answered > 0 {
                paces.push(loaded.find_out(plan, runtime, (mine, None), &mut store, &mut report)?);
            }
            parts.push(ShardPart { model: name.clone(), dataset: planned.dataset.name.clone(), answered, of });
        }
        record(plan, &mut store, (&named(checkpoint, model, None), &loaded), (None, &paces))?;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_written_from_one_on() {
        let shard: Shard = "2/4".parse().unwrap();
        assert_eq!((shard.index(), shard.count(), shard.to_string()), (2, 4, "2/4".to_owned()));
        for text in ["0/4", "5/4", "1/0", "2", "a/4", "-1/4", ""] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_image_falls_to_one_shard_whatever_its_kind() {
        let ids = (0..1000).map(Id::Number).chain((0..1000).map(|number| Id::Text(number.to_string().into())));
        let mut counts = [0; 7];
        for id in ids {
            let holders: Vec<usize> = (1..=7).filter(|index| Shard { index: *index, count: 7 }.holds(&id)).collect();
            assert_eq!(holders.len(), 1);
            counts[holders[0] - 1] += 1;
        }
        assert!(counts.iter().all(|count| (220..350).contains(count)), "{counts:?}");
        // SHA-256 of `42` begins with 73475cb40a568e8d; as a little-endian number, modulo 5.
        assert!(Shard { index: 0x8d8e_560a_b45c_4773_usize % 5 + 1, count: 5 }.holds(&Id::Number(42)));
    }
}
