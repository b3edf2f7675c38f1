//! Answers every question of a dataset that the store holds no answer to.
//!
//! Three kinds of threads: some prepare images and prompts ahead of time, each replica of the model runs on a thread that
//! does nothing else, and the calling thread commits each batch and reports progress.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::schedule::{Schedule, Window};
use crate::data::{Dataset, Id, Question};
use crate::error::{Error, Result};
use crate::model::decoding::Decoding;
use crate::model::text::{Prompt, TextProcessor};
use crate::model::vision::ImageProcessor;
use crate::model::{Model, Request};
use crate::runtime::{Activity, CallTime};
use crate::store::{SettingsId, Store, StoredAnswer};
use crate::tensor::Tensor;

/// What is to be answered and how.
pub(super) struct Answering<'a> {
    /// The questions and their images.
    pub dataset: &'a Dataset,
    /// How each is put to the model.
    pub prompt: &'static Prompt,
    /// How answers are searched for.
    pub decoding: Decoding,
    /// Questions per call of the model.
    pub batch_size: usize,
    /// Threads that prepare images and prompts; they sleep while they are ahead.
    pub threads: usize,
}

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
        let mut fields = serializer.serialize_struct("Pace", 9)?;
        fields.serialize_field("answered", &self.answered)?;
        fields.serialize_field("reused", &self.reused)?;
        fields.serialize_field("replicas", &self.replicas)?;
        fields.serialize_field("wall_s", &self.wall.as_secs_f64())?;
        fields.serialize_field("busy_s", &self.calls.busy.as_secs_f64())?;
        fields.serialize_field("work_s", &self.calls.work.as_secs_f64())?;
        fields.serialize_field("questions_per_second", &self.per_wall(self.answered as f64))?;
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

/// Answers what is missing under these settings; returns when every question has an answer in the store.
///
/// # Errors
///
/// Input error for a missing image before anything is computed, for a damaged one when its turn comes. Batches
/// answered before an error stay in the store.
pub(super) fn answer_all(
    plan: &Answering,
    replicas: &mut [Model],
    activity: &Activity,
    (store, settings): (&mut Store, SettingsId),
    on_event: &mut dyn FnMut(Event),
) -> Result<Pace> {
    let schedule = schedule(plan, replicas)?;
    let open = open_questions(plan, &schedule, (store, settings))?;
    let (before, count) = (activity.time(), replicas.len());
    let text = Arc::clone(text_of(replicas)?);
    let mut writer = Writer::new(plan, &text, (store, settings), &open);
    on_event(writer.event());
    answer_open(plan, replicas, &schedule, &open, &mut |batch| {
        writer.commit(batch)?;
        on_event(writer.event());
        Ok(())
    })?;
    let after = activity.time();
    let calls = CallTime { busy: after.busy - before.busy, work: after.work - before.work };
    Ok(writer.pace(count, calls))
}

/// Answers every question; returns the answers in the order of the questions and keeps nothing.
///
/// # Errors
/// As [`answer_all`].
pub(super) fn answers(plan: &Answering, replicas: &mut [Model]) -> Result<Vec<String>> {
    let schedule = schedule(plan, replicas)?;
    let text = Arc::clone(text_of(replicas)?);
    let mut answers = vec![String::new(); plan.dataset.questions.len()];
    let open = vec![Some(0); answers.len()];
    answer_open(plan, replicas, &schedule, &open, &mut |batch| {
        for (index, _, tokens) in &batch.answers {
            answers[*index] = text.decode(tokens)?;
        }
        Ok(())
    })?;
    Ok(answers)
}

fn text_of(replicas: &[Model]) -> Result<&Arc<TextProcessor>> {
    replicas.first().map(Model::text).ok_or_else(|| Error::internal("there is no model to answer with"))
}

fn schedule(plan: &Answering, replicas: &[Model]) -> Result<Schedule> {
    let first = replicas.first().ok_or_else(|| Error::internal("there is no model to answer with"))?;
    Ok(Schedule::new(plan.dataset, plan.batch_size, first.image_tokens()))
}

/// Answers the questions that have a fingerprint in `open`; `on_batch` takes each finished batch on the calling thread.
fn answer_open(
    plan: &Answering,
    replicas: &mut [Model],
    schedule: &Schedule,
    open: &[Option<u64>],
    on_batch: &mut dyn FnMut(Batch) -> Result<()>,
) -> Result<()> {
    let Some(first) = replicas.first() else { return Ok(()) };
    let (text, images) = (first.text().clone(), first.images().clone());
    let next = AtomicUsize::new(0);
    let preparation = Preparation { plan, schedule, open, text: &text, images: &images, next };
    let (windows, prepared) = sync_channel(1);
    let (answers, batches) = sync_channel(2 * replicas.len());
    // The replicas own the receiver together: when the last of them stops, so does the preparation.
    let prepared = Arc::new(Mutex::new(prepared));
    std::thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            let (preparation, windows) = (&preparation, windows.clone());
            scope.spawn(move || preparation.send_windows(&windows));
        }
        drop(windows);
        for model in replicas {
            let prepared = Arc::clone(&prepared);
            let answers = answers.clone();
            scope.spawn(move || run_windows(plan, model, &prepared, &answers));
        }
        drop((answers, prepared));
        batches.into_iter().try_for_each(|batch| on_batch(batch?))
    })
}

/// The fingerprints of the questions that have no answer in the store, or one to another text or image; none of the
/// others. Taken before anything is computed: an image that changes later makes its answers out of date.
fn open_questions(
    plan: &Answering,
    schedule: &Schedule,
    (store, settings): (&Store, SettingsId),
) -> Result<Vec<Option<u64>>> {
    let questions = &plan.dataset.questions;
    let mut open = vec![None; questions.len()];
    let mut fingerprint = Fingerprint::default();
    for index in schedule.order.iter().map(|index| *index as usize) {
        let question = &questions[index];
        let content = fingerprint.of(plan.dataset, question)?;
        let (question_id, image_id) = question.key();
        let known = store.answer(settings, &plan.dataset.name, &question_id, &image_id)?;
        open[index] = Some(content).filter(|content| known.is_none_or(|(stored, _)| stored != *content));
    }
    Ok(open)
}

/// Computes what an answer depends on besides the settings: the text of the question and the identity of its image.
#[derive(Default)]
struct Fingerprint<'a> {
    /// The last image and the hash of its file's identity; questions on one image come side by side.
    last: Option<(&'a Id, Sha256)>,
}

impl<'a> Fingerprint<'a> {
    fn of(&mut self, dataset: &'a Dataset, question: &'a Question) -> Result<u64> {
        let hash = match &self.last {
            Some((image, hash)) if **image == question.image_id => hash.clone(),
            _ => {
                let identity = dataset.images.identity(&question.image_id);
                Sha256::new_with_prefix(identity.map_err(|error| unaskable(dataset, question, error))?)
            }
        };
        let digest = hash.clone().chain_update(question.text.as_bytes()).finalize();
        self.last = Some((&question.image_id, hash));
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Ok(u64::from_le_bytes(first))
    }
}

fn unaskable(dataset: &Dataset, question: &Question, error: Error) -> Error {
    error.within(format!("question {} of `{}` cannot be asked", question.question_id, dataset.name))
}

/// A window ready for the model.
struct PreparedWindow {
    pixels: Tensor,
    questions: Vec<PreparedQuestion>,
}

struct PreparedQuestion {
    index: usize,
    content: u64,
    request: Request,
}

/// What is needed to prepare windows.
struct Preparation<'a> {
    plan: &'a Answering<'a>,
    schedule: &'a Schedule,
    open: &'a [Option<u64>],
    text: &'a TextProcessor,
    images: &'a ImageProcessor,
    /// The window that is prepared next.
    next: AtomicUsize,
}

impl Preparation<'_> {
    /// Prepares one window after the other until none is left or nobody listens.
    fn send_windows(&self, windows: &SyncSender<Result<PreparedWindow>>) {
        while let Some(window) = self.schedule.windows.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let open = self.schedule.questions(window).any(|question| self.open[question].is_some());
            if open && windows.send(self.prepare(window)).is_err() {
                return;
            }
        }
    }

    fn prepare(&self, window: &Window) -> Result<PreparedWindow> {
        let dataset = self.plan.dataset;
        let size = self.images.output_len();
        let (mut pixels, mut count) = (Vec::new(), 0);
        let mut last_image = None;
        let mut questions = Vec::with_capacity(window.len());
        for index in self.schedule.questions(window) {
            let question = &dataset.questions[index];
            let within = |error: Error| unaskable(dataset, question, error);
            // All images of a window are computed even if only some are needed, so that a continued run computes
            // the same batch of images.
            if last_image != Some(&question.image_id) {
                let image = dataset.images.decode(&question.image_id).map_err(within)?;
                pixels.resize(pixels.len() + size, 0.0);
                self.images.process(&image, &mut pixels[count * size..]).map_err(within)?;
                last_image = Some(&question.image_id);
                count += 1;
            }
            if let Some(content) = self.open[index] {
                let tokens = self.text.encode(&self.plan.prompt.fill(&question.text)).map_err(within)?;
                questions.push(PreparedQuestion { index, content, request: Request { tokens, image: count - 1 } });
            }
        }
        questions.sort_by_key(|question| question.request.tokens.len());
        let (height, width) = self.images.size();
        let channels = size / (height * width);
        Ok(PreparedWindow { pixels: Tensor::new([count, channels, height, width], pixels)?, questions })
    }
}

/// The generated tokens of one batch, on the way to the store.
struct Batch {
    /// Position of each question, its fingerprint and its tokens.
    answers: Vec<(usize, u64, Vec<u32>)>,
    started: Instant,
    finished: Instant,
}

/// Runs a replica of the model over one prepared window after the other.
fn run_windows(
    plan: &Answering,
    model: &mut Model,
    prepared: &Mutex<Receiver<Result<PreparedWindow>>>,
    answers: &SyncSender<Result<Batch>>,
) {
    loop {
        let window = prepared.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(window) = window else { return };
        let done = window.and_then(|window| run_window(plan, model, window, answers));
        if let Err(error) = done {
            // Where nobody listens, the error that ended the run is on its way already.
            let _ = answers.send(Err(error));
            return;
        }
    }
}

fn run_window(
    plan: &Answering,
    model: &mut Model,
    window: PreparedWindow,
    answers: &SyncSender<Result<Batch>>,
) -> Result<()> {
    let mut started = Instant::now();
    let features = model.image_features(window.pixels)?;
    for batch in window.questions.chunks(plan.batch_size) {
        let requests: Vec<Request> = batch.iter().map(|question| question.request.clone()).collect();
        let tokens = model.generate(&features, &requests, &plan.decoding)?;
        let finished = Instant::now();
        let answered = batch.iter().zip(tokens).map(|(question, tokens)| (question.index, question.content, tokens));
        let batch = Batch { answers: answered.collect(), started, finished };
        if answers.send(Ok(batch)).is_err() {
            return Err(Error::internal("answers can no longer be stored"));
        }
        started = finished;
    }
    Ok(())
}

/// Commits batches and keeps count.
struct Writer<'a> {
    plan: &'a Answering<'a>,
    text: &'a TextProcessor,
    store: &'a mut Store,
    settings: SettingsId,
    pace: Pace,
    /// From the first call to the last.
    span: Option<(Instant, Instant)>,
}

impl<'a> Writer<'a> {
    fn new(
        plan: &'a Answering,
        text: &'a TextProcessor,
        (store, settings): (&'a mut Store, SettingsId),
        open: &[Option<u64>],
    ) -> Self {
        let reused = open.iter().filter(|open| open.is_none()).count();
        Self { plan, text, store, settings, pace: Pace { reused, ..Pace::default() }, span: None }
    }

    fn commit(&mut self, batch: Batch) -> Result<()> {
        let dataset = self.plan.dataset;
        let mut answers = Vec::with_capacity(batch.answers.len());
        for (index, content, tokens) in &batch.answers {
            let (question_id, image_id) = dataset.questions[*index].key();
            answers.push(StoredAnswer { question_id, image_id, content: *content, answer: self.text.decode(tokens)? });
        }
        self.store.commit(self.settings, &dataset.name, &answers)?;
        self.pace.answered += answers.len();
        let (first, last) = self.span.unwrap_or((batch.started, batch.finished));
        self.span = Some((first.min(batch.started), last.max(batch.finished)));
        Ok(())
    }

    fn event(&self) -> Event<'a> {
        let dataset = self.plan.dataset;
        let done = self.pace.reused + self.pace.answered;
        Event::Answered { dataset: &dataset.name, done, total: dataset.questions.len() }
    }

    fn pace(self, replicas: usize, calls: CallTime) -> Pace {
        let wall = self.span.map_or(Duration::ZERO, |(first, last)| last.duration_since(first));
        Pace { replicas, wall, calls, ..self.pace }
    }
}
