//! Which questions a training step draws: a pure function of seed and step.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::random::Random;

/// How often questions are drawn by the type of their answer, as `WeightedRandomSampler` of PyTorch weighs samples; the
/// weights may change at given steps. Without weights every question is drawn once per epoch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sampling {
    phases: Vec<Phase>,
}

#[derive(Debug, Clone, PartialEq)]
struct Phase {
    /// The first optimiser step of the phase.
    start: u64,
    /// Weights by answer type; 1 for the others.
    weights: Vec<(String, f64)>,
}

impl FromStr for Sampling {
    type Err = Error;

    /// Reads phases such as `yes/no=0.2;600:yes/no=1`: weights by answer type, from a step on.
    fn from_str(text: &str) -> Result<Self> {
        let mut phases: Vec<Phase> = Vec::new();
        for part in text.split(';') {
            let phase = parse_phase(part, phases.is_empty()).ok_or_else(|| {
                Error::input(format!("`{part}` is no phase of sampling weights"))
                    .hint("write TYPE=WEIGHT,... and for later phases STEP:TYPE=WEIGHT,..., such as `yes/no=0.2;600:yes/no=1`")
            })?;
            if phases.last().is_some_and(|last| last.start >= phase.start) {
                return Err(Error::input(format!("the phases of `{text}` are not in order of their steps")));
            }
            phases.push(phase);
        }
        Ok(Self { phases })
    }
}

impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = |phase: &Phase| {
            let weights: Vec<String> = phase.weights.iter().map(|(name, weight)| format!("{name}={weight}")).collect();
            format!("{}:{}", phase.start, weights.join(","))
        };
        f.write_str(&self.phases.iter().map(phase).collect::<Vec<_>>().join(";"))
    }
}

fn parse_phase(text: &str, first: bool) -> Option<Phase> {
    let (start, list) = match text.split_once(':') {
        Some((start, list)) => (start.trim().parse().ok()?, list),
        None if first => (0, text),
        None => return None,
    };
    let weight = |part: &str| {
        let (name, weight) = part.split_once('=')?;
        let weight: f64 = weight.trim().parse().ok()?;
        (weight >= 0.0 && weight.is_finite()).then(|| (name.trim().to_owned(), weight))
    };
    let weights: Vec<(String, f64)> = list.split(',').map(weight).collect::<Option<_>>()?;
    let repeats = |(index, (name, _)): (usize, &(String, f64))| weights[..index].iter().any(|(known, _)| known == name);
    let distinct = !weights.iter().enumerate().any(repeats);
    distinct.then_some(Phase { start, weights })
}

/// Draws the questions of each batch.
pub(super) struct Sampler {
    random: Random,
    batch_size: usize,
    accumulation: u64,
    phases: Vec<Groups>,
    count: usize,
    /// The epoch whose order was made last, and the order.
    order: Mutex<(u64, Arc<[u32]>)>,
}

/// The questions of a phase by equal weight.
struct Groups {
    start: u64,
    /// Cumulative weights of the groups, and their questions.
    groups: Vec<(f64, Vec<u32>)>,
}

impl Sampler {
    /// # Errors
    /// Input error where a type does not occur or no question has a weight.
    pub(super) fn new(
        dataset: &Dataset,
        sampling: &Sampling,
        seed: u64,
        batch_size: usize,
        accumulation: u64,
    ) -> Result<Self> {
        let phases = sampling.phases.iter().map(|phase| Groups::of(dataset, phase)).collect::<Result<_>>()?;
        let random = Random::new(seed).name("order");
        let count = dataset.questions.len();
        let order = Mutex::new((u64::MAX, Arc::from([])));
        Ok(Self { random, batch_size, accumulation, phases, count, order })
    }

    /// Optimiser steps until every question could have been drawn once.
    pub(super) fn steps_per_epoch(&self) -> u64 {
        self.batches_per_epoch().div_ceil(self.accumulation)
    }

    fn batches_per_epoch(&self) -> u64 {
        self.count.div_ceil(self.batch_size) as u64
    }

    /// Positions of the questions of a batch.
    pub(super) fn batch(&self, micro_step: u64) -> Vec<usize> {
        let phase = self.phases.iter().rev().find(|phase| phase.start <= micro_step / self.accumulation);
        match phase {
            Some(groups) => {
                let random = self.random.name("weighted").number(micro_step);
                (0..self.batch_size as u64).map(|index| groups.draw(random, index)).collect()
            }
            None => {
                // The last step of an epoch is filled up with its first questions.
                let length = self.steps_per_epoch() * self.accumulation;
                let (epoch, at) = (micro_step / length, micro_step % length % self.batches_per_epoch());
                let order = self.order_of(epoch);
                let start = at as usize * self.batch_size;
                let end = (start + self.batch_size).min(self.count);
                order[start..end].iter().map(|position| *position as usize).collect()
            }
        }
    }

    fn order_of(&self, epoch: u64) -> Arc<[u32]> {
        let mut known = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != epoch {
            *known = (epoch, self.random.number(epoch).permutation(self.count).into());
        }
        Arc::clone(&known.1)
    }
}

impl Groups {
    fn of(dataset: &Dataset, phase: &Phase) -> Result<Self> {
        let references = dataset.references.as_ref();
        let type_of =
            |question: usize| references.and_then(|references| references.answer_type(question)).unwrap_or("");
        let mut groups: Vec<(f64, Vec<u32>)> = Vec::new();
        let mut named: Vec<Vec<u32>> = vec![Vec::new(); phase.weights.len()];
        let mut rest = Vec::new();
        for question in 0..dataset.questions.len() {
            match phase.weights.iter().position(|(name, _)| name == type_of(question)) {
                Some(group) => named[group].push(question as u32),
                None => rest.push(question as u32),
            }
        }
        let mut total = 0.0;
        for ((name, weight), questions) in phase.weights.iter().zip(named) {
            if questions.is_empty() {
                let known: BTreeSet<&str> =
                    (0..dataset.questions.len()).map(type_of).filter(|name| !name.is_empty()).collect();
                let known: Vec<&str> = known.into_iter().collect();
                return Err(Error::input(format!("no training question has the answer type `{name}`")).hint(
                    match known.as_slice() {
                        [] => "the annotations state no `answer_type`; train without sampling weights".to_owned(),
                        known => format!("known: {}", known.join(", ")),
                    },
                ));
            }
            total += weight * questions.len() as f64;
            groups.push((total, questions));
        }
        total += rest.len() as f64;
        groups.push((total, rest));
        if total > 0.0 {
            Ok(Self { start: phase.start, groups })
        } else {
            Err(Error::input("all sampling weights are 0"))
        }
    }

    fn draw(&self, random: Random, index: u64) -> usize {
        let total = self.groups.last().map_or(0.0, |(total, _)| *total);
        let at = random.uniform(2 * index) * total;
        let fits = |(end, questions): &&(f64, Vec<u32>)| at < *end && !questions.is_empty();
        let last = || self.groups.iter().rev().find(|(_, questions)| !questions.is_empty());
        let group = self.groups.iter().find(fits).or_else(last);
        group.map_or(0, |(_, questions)| questions[random.below(2 * index + 1, questions.len())] as usize)
    }
}

/// Positions of the questions to train on and of those to validate on: the questions about a seeded share of the images.
pub(super) fn split_by_image(dataset: &Dataset, share: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let images = dataset.image_numbers();
    let count = images.iter().max().map_or(0, |last| *last as usize + 1);
    let held_out = ((count as f64 * share).round() as usize).min(count.saturating_sub(1));
    let order = Random::new(seed).name("validation").permutation(count);
    let mut chosen = vec![false; count];
    for image in &order[..held_out] {
        chosen[*image as usize] = true;
    }
    (0..images.len()).partition(|question| !chosen[images[*question] as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Id, ImageFolder, ImageName, Question, Relations};
    use crate::score::References;

    fn dataset(count: usize) -> Dataset {
        let mut references = References::builder();
        for index in 0..count {
            references.answer("a", None, None).unwrap();
            references.end_question(Some(["yes/no", "other", "number"][index % 3]), None).unwrap();
        }
        let question = |index: usize| Question {
            question_id: Id::Number(index as i64),
            image_id: Id::Number(index as i64 / 4),
            text: "q".into(),
        };
        Dataset {
            name: "set".to_owned(),
            questions: (0..count).map(question).collect(),
            references: Some(references.finish()),
            relations: Relations::default(),
            images: Arc::new(ImageFolder::new("", ImageName::unknown())),
        }
    }

    #[test]
    fn without_weights_an_epoch_draws_every_question_once() {
        let sampler = Sampler::new(&dataset(100), &Sampling::default(), 3, 8, 1).unwrap();
        assert_eq!(sampler.batches_per_epoch(), 13);
        let epoch = |first: u64| (first..first + 13).flat_map(|step| sampler.batch(step)).collect::<Vec<_>>();
        let (one, two) = (epoch(0), epoch(13));
        assert_ne!(one, two);
        for mut epoch in [one, two] {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..100).collect::<Vec<_>>());
        }
        assert_eq!(sampler.batch(5), Sampler::new(&dataset(100), &Sampling::default(), 3, 8, 1).unwrap().batch(5));
    }

    #[test]
    fn weights_hold_from_their_step_on() {
        let sampling: Sampling = "yes/no=0,number=0.5;10:other=0".parse().unwrap();
        let sampler = Sampler::new(&dataset(300), &sampling, 3, 64, 2).unwrap();
        let share = |steps: std::ops::Range<u64>, kind: usize| {
            let drawn: Vec<usize> = steps.flat_map(|step| sampler.batch(step)).collect();
            drawn.iter().filter(|question| *question % 3 == kind).count() as f64 / drawn.len() as f64
        };
        assert_eq!(share(0..20, 0), 0.0);
        assert!((share(0..20, 1) - 2.0 / 3.0).abs() < 0.07);
        assert_eq!(share(20..40, 1), 0.0);
        assert!((share(20..40, 0) - 0.5).abs() < 0.07);
    }

    #[test]
    fn wrong_weights_are_refused() {
        for (text, message) in [
            ("yes", "`yes` is no phase of sampling weights"),
            ("a=1;b=2", "`b=2` is no phase of sampling weights"),
            ("a=-1", "`a=-1` is no phase of sampling weights"),
            ("a=1,a=2", "`a=1,a=2` is no phase of sampling weights"),
            ("5:a=1;5:a=2", "the phases of `5:a=1;5:a=2` are not in order of their steps"),
        ] {
            assert_eq!(text.parse::<Sampling>().unwrap_err().to_string(), message);
        }
        let refused = |text: &str| Sampler::new(&dataset(9), &text.parse().unwrap(), 0, 2, 1).err().unwrap();
        let unknown = refused("colour=2");
        assert_eq!(unknown.to_string(), "no training question has the answer type `colour`");
        assert_eq!(unknown.next_step(), Some("known: number, other, yes/no"));
        assert_eq!(refused("yes/no=0,other=0,number=0").to_string(), "all sampling weights are 0");
    }

    #[test]
    fn images_are_held_out_whole() {
        let dataset = dataset(400);
        let (training, validation) = split_by_image(&dataset, 0.1, 5);
        assert_eq!((training.len(), validation.len()), (360, 40));
        let images = dataset.image_numbers();
        assert!(validation.iter().all(|held| training.iter().all(|kept| images[*kept] != images[*held])));
        assert_ne!(split_by_image(&dataset, 0.1, 6).1, validation);
    }
}
