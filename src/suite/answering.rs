//! Finds out about every question of a dataset what the store does not know: its answer, its distances, or both.

use std::time::{Duration, Instant};

use super::distances::{FeatureFiles, Measuring, with_answer};
use super::pipeline::{self, Batch, Fingerprint, Pass, Readers, Subject, TextReader, Wanted};
use super::schedule::Schedule;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::runtime::{Activity, CallTime};
use crate::shift::Deficiency;
use crate::store::{SettingsId, Store, StoredAnswer};

/// What happens during a long run.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// So many of so many bytes of weights are converted to the compute dtype. Told for large models only.
    Converted {
        /// Bytes of the checkpoint so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// So many of so many bytes of weights are hashed. Told for large models only.
    Hashed {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// So many of so many questions have gone into the reference that distances are measured from.
    Fitted {
        /// Name of the dataset.
        dataset: &'a str,
        /// Questions so far.
        done: usize,
        /// Questions in all.
        total: usize,
    },
    /// Not all directions of the reference count in a modality, which decides the level of its distances.
    Deficient {
        /// Name of the modality.
        modality: &'static str,
        /// Which do.
        deficiency: Deficiency,
    },
    /// So many of so many questions have distances. Told where no answers are asked for.
    Measured {
        /// Name of the dataset.
        dataset: &'a str,
        /// Questions with distances so far.
        done: usize,
        /// Questions in all.
        total: usize,
    },
    /// So many of so many questions have an answer.
    Answered {
        /// Name of the dataset.
        dataset: &'a str,
        /// Questions with an answer so far.
        done: usize,
        /// Questions in all.
        total: usize,
    },
}

/// How a run went. As JSON it also holds `questions_per_second`, `idle_share` and `utilisation`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Questions answered by this run.
    pub answered: usize,
    /// Questions whose answer was in the store.
    pub reused: usize,
    /// Questions whose distances were measured by this run.
    pub measured: usize,
    /// Replicas of the model that answered side by side.
    pub replicas: usize,
    /// Time from the first to the last call of ONNX Runtime.
    pub wall: Duration,
    /// Time inside such calls.
    pub calls: CallTime,
}

impl serde::Serialize for Pace {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("Pace", 10)?;
        fields.serialize_field("answered", &self.answered)?;
        fields.serialize_field("reused", &self.reused)?;
        fields.serialize_field("measured", &self.measured)?;
        fields.serialize_field("replicas", &self.replicas)?;
        fields.serialize_field("wall_s", &self.wall.as_secs_f64())?;
        fields.serialize_field("busy_s", &self.calls.busy.as_secs_f64())?;
        fields.serialize_field("work_s", &self.calls.work.as_secs_f64())?;
        fields.serialize_field("questions_per_second", &self.per_wall(self.answered.max(self.measured) as f64))?;
        fields.serialize_field("idle_share", &self.idle_share())?;
        fields.serialize_field("utilisation", &self.utilisation())?;
        fields.end()
    }
}

impl Pace {
    /// The share of the time between the first and the last call in which none was running.
    pub fn idle_share(&self) -> Option<f64> {
        self.per_wall(self.calls.busy.as_secs_f64()).map(|busy| 1.0 - busy)
    }

    /// The share of that time that a replica was in a call, on average.
    pub fn utilisation(&self) -> Option<f64> {
        self.per_wall(self.calls.work.as_secs_f64() / self.replicas.max(1) as f64)
    }

    fn per_wall(&self, amount: f64) -> Option<f64> {
        (self.wall > Duration::ZERO).then(|| amount / self.wall.as_secs_f64())
    }
}

/// Where the results of a pass are filed.
#[derive(Default)]
pub(super) struct Filing<'a> {
    /// Settings of the answers, if answers are asked for.
    pub answers: Option<SettingsId>,
    /// What distances are measured with, if they are.
    pub distances: Option<&'a Measuring>,
    /// Files of the features, if they are wanted.
    pub features: Option<FeatureFiles>,
}

/// Finds out what is missing under these settings; returns when every question has what is asked for in the store.
///
/// # Errors
///
/// Input error for a missing image before anything is computed, for a damaged one when its turn comes. Batches
/// finished before an error stay in the store.
pub(super) fn find_out_all<S: Subject>(
    pass: &Pass,
    replicas: &mut [S],
    activity: &Activity,
    (store, filing): (&mut Store, Filing),
    on_event: &mut dyn FnMut(Event),
) -> Result<Pace> {
    let schedule = pipeline::schedule(pass, replicas)?;
    let Readers { images, text } = pipeline::first(replicas)?.readers();
    let open = Open::of(pass, &schedule, images.is_some(), (store, &filing))?;
    let (before, count) = (activity.time(), replicas.len());
    let mut writer = Writer::new(pass, &text, (store, filing), &open);
    on_event(writer.event());
    pipeline::run(pass, replicas, &schedule, (&open.wanted, 0), &mut |batch| {
        writer.commit(batch)?;
        on_event(writer.event());
        Ok(())
    })?;
    let after = activity.time();
    let calls = CallTime { busy: after.busy - before.busy, work: after.work - before.work };
    writer.finish(count, calls)
}

/// Answers every question; returns the answers in the order of the questions and keeps nothing.
///
/// # Errors
/// As [`find_out_all`].
pub(super) fn answers(pass: &Pass, replicas: &mut [Model]) -> Result<Vec<String>> {
    let schedule = pipeline::schedule(pass, replicas)?;
    let text = pipeline::first(replicas)?.readers().text;
    let mut answers = vec![String::new(); pass.dataset.questions.len()];
    let wanted = vec![Wanted::ANSWER; answers.len()];
    pipeline::run(pass, replicas, &schedule, (&wanted, 0), &mut |batch| {
        for (index, tokens) in &batch.answers {
            answers[*index] = text.decode(tokens)?;
        }
        Ok(())
    })?;
    Ok(answers)
}

/// What the store does not know yet.
struct Open {
    wanted: Vec<Wanted>,
    /// The fingerprint of each question. Taken before anything is computed: an image that changes later makes its results
    /// out of date.
    contents: Vec<u64>,
}

impl Open {
    /// `images` tells whether images are looked at.
    fn of(pass: &Pass, schedule: &Schedule, images: bool, (store, filing): (&Store, &Filing)) -> Result<Self> {
        let Pass { dataset, .. } = pass;
        let count = dataset.questions.len();
        let mut open =
            Self { wanted: vec![Wanted { answer: false, features: false }; count], contents: vec![0; count] };
        let mut fingerprint = Fingerprint::default();
        for index in schedule.order.iter().map(|index| *index as usize) {
            let question = &dataset.questions[index];
            let content = if images { fingerprint.of(dataset, question)? } else { Fingerprint::of_text(question) };
            let (question_id, image_id) = question.key();
            let key = (dataset.name.as_str(), question_id.as_str(), image_id.as_str());
            let answered = |id| Ok::<_, Error>(store.answer(id, key.0, key.1, key.2)?.map(|(content, _)| content));
            let answer = filing.answers.map(answered).transpose()?;
            let distances = filing.distances.map(|measuring| measuring.known(store, key)).transpose()?;
            let answer = answer.is_some_and(|known| known != Some(content));
            let measured = distances.is_some_and(|known| known != Some(with_answer(dataset, index, content)));
            open.wanted[index] = Wanted { answer, features: measured || filing.features.is_some() };
            open.contents[index] = content;
        }
        Ok(open)
    }

    /// Questions about which everything is known.
    fn known(&self) -> usize {
        self.wanted.iter().filter(|wanted| !wanted.answer && !wanted.features).count()
    }
}

/// Commits batches and keeps count.
struct Writer<'a> {
    pass: &'a Pass<'a>,
    text: &'a TextReader,
    store: &'a mut Store,
    filing: Filing<'a>,
    open: &'a Open,
    /// Questions about which everything is known.
    done: usize,
    pace: Pace,
    /// From the first call to the last.
    span: Option<(Instant, Instant)>,
}

impl<'a> Writer<'a> {
    fn new(pass: &'a Pass, text: &'a TextReader, (store, filing): (&'a mut Store, Filing<'a>), open: &'a Open) -> Self {
        let reused = open.wanted.iter().filter(|wanted| !wanted.answer && filing.answers.is_some()).count();
        let pace = Pace { reused, ..Pace::default() };
        Self { pass, text, store, filing, open, done: open.known(), pace, span: None }
    }

    fn commit(&mut self, batch: Batch) -> Result<()> {
        let dataset = self.pass.dataset;
        let mut answers = Vec::with_capacity(batch.answers.len());
        for (index, tokens) in &batch.answers {
            let (question_id, image_id) = dataset.questions[*index].key();
            let (content, answer) = (self.open.contents[*index], self.text.decode(tokens)?);
            answers.push(StoredAnswer { question_id, image_id, content, answer });
        }
        if let Some(settings) = self.filing.answers.filter(|_| !answers.is_empty()) {
            self.store.commit(settings, &dataset.name, &answers)?;
        }
        if let Some(measuring) = self.filing.distances.filter(|_| !batch.features.questions.is_empty()) {
            measuring.commit(self.store, dataset, &self.open.contents, &batch.features)?;
            self.pace.measured += batch.features.questions.len();
        }
        if let Some(files) = &mut self.filing.features {
            files.write(&batch.features)?;
        }
        self.done += batch.questions;
        self.pace.answered += answers.len();
        let (first, last) = self.span.unwrap_or((batch.started, batch.finished));
        self.span = Some((first.min(batch.started), last.max(batch.finished)));
        Ok(())
    }

    fn event(&self) -> Event<'a> {
        let dataset = self.pass.dataset;
        let (dataset, done, total) = (dataset.name.as_str(), self.done, dataset.questions.len());
        match self.filing.answers {
            Some(_) => Event::Answered { dataset, done, total },
            None => Event::Measured { dataset, done, total },
        }
    }

    fn finish(self, replicas: usize, calls: CallTime) -> Result<Pace> {
        if let Some(files) = self.filing.features {
            files.finish()?;
        }
        let wall = self.span.map_or(Duration::ZERO, |(first, last)| last.duration_since(first));
        Ok(Pace { replicas, wall, calls, ..self.pace })
    }
}
