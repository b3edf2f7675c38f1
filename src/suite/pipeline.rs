//! Runs a model over the questions of a dataset: answers, features, or both in one pass.
//!
//! Two kinds of threads: some prepare images and prompts ahead of time, and each replica of the model runs on a thread that
//! does nothing else. The calling thread takes the finished batches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::schedule::{Schedule, Window};
use crate::data::{Dataset, Id, Question};
use crate::error::{Error, Result};
use crate::model::decoding::Decoding;
use crate::model::text::{Prompt, TextProcessor};
use crate::model::vision::ImageProcessor;
use crate::model::{Model, Request};
use crate::runtime::DeviceTensor;
use crate::tensor::Tensor;

/// A pass over a dataset: how it is asked.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    /// The questions and their images.
    pub dataset: &'a Dataset,
    /// How each is put to the model.
    pub prompt: &'static Prompt,
    /// How each is put for its features.
    pub feature_prompt: &'static Prompt,
    /// How answers are searched for.
    pub decoding: Decoding,
    /// Questions per call of the model.
    pub batch_size: usize,
    /// Threads that prepare images and prompts; they sleep while they are ahead.
    pub threads: usize,
}

/// What a pass is to find out about a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub answer: bool,
    pub features: bool,
}

impl Wanted {
    pub(super) const ANSWER: Self = Self { answer: true, features: false };
    pub(super) const FEATURES: Self = Self { answer: false, features: true };

    fn any(self) -> bool {
        self.answer || self.features
    }
}

/// What is found out about a batch.
pub(super) struct Batch {
    /// Number of its window, and of the batch in it: the order of [`Schedule`].
    pub place: (usize, usize),
    /// Position of each answered question and its tokens.
    pub answers: Vec<(usize, Vec<u32>)>,
    pub features: Features,
    pub started: Instant,
    pub finished: Instant,
}

/// Features of the questions of a batch, a row each.
#[derive(Debug, Default)]
pub(super) struct Features {
    /// Positions of the questions.
    pub questions: Vec<usize>,
    pub vision: Vec<f32>,
    pub question: Vec<f32>,
    pub joint: Vec<f32>,
    /// Joint features of question and answer, for those of `questions` that have a human answer.
    pub answer: Vec<f32>,
    /// Their places in `questions`.
    pub answered: Vec<usize>,
}

/// The first replica.
pub(super) fn first(replicas: &[Model]) -> Result<&Model> {
    replicas.first().ok_or_else(|| Error::internal("there is no model to ask"))
}

/// The order of a pass.
pub(super) fn schedule(pass: &Pass, replicas: &[Model]) -> Result<Schedule> {
    Ok(Schedule::new(pass.dataset, pass.batch_size, first(replicas)?.image_tokens()))
}

/// Finds out what is wanted of each question, from window number `start` on; `on_batch` takes each finished batch on the
/// calling thread, in any order.
///
/// # Errors
/// The first error of a thread or of `on_batch`.
pub(super) fn run(
    pass: &Pass,
    replicas: &mut [Model],
    schedule: &Schedule,
    (wanted, start): (&[Wanted], usize),
    on_batch: &mut dyn FnMut(Batch) -> Result<()>,
) -> Result<()> {
    let model = first(replicas)?;
    let (text, images) = (model.text().clone(), model.images().clone());
    let next = AtomicUsize::new(start);
    let preparation = Preparation { pass, schedule, wanted, text: &text, images: &images, next };
    let (windows, prepared) = sync_channel(1);
    let (finished, batches) = sync_channel(2 * replicas.len());
    // The replicas own the receiver together: when the last of them stops, so does the preparation.
    let prepared = Arc::new(Mutex::new(prepared));
    std::thread::scope(|scope| {
        for _ in 0..pass.threads.max(1) {
            let (preparation, windows) = (&preparation, windows.clone());
            scope.spawn(move || preparation.send_windows(&windows));
        }
        drop(windows);
        for model in replicas {
            let (prepared, finished) = (Arc::clone(&prepared), finished.clone());
            scope.spawn(move || run_windows(pass, model, &prepared, &finished));
        }
        drop((finished, prepared));
        batches.into_iter().try_for_each(|batch| on_batch(batch?))
    })
}

/// Computes what an answer depends on besides the settings: the text of the question and the identity of its image.
#[derive(Default)]
pub(super) struct Fingerprint<'a> {
    /// The last image and the hash of its file's identity; questions on one image come side by side.
    last: Option<(&'a Id, Sha256)>,
}

impl<'a> Fingerprint<'a> {
    pub(super) fn of(&mut self, dataset: &'a Dataset, question: &'a Question) -> Result<u64> {
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

/// The human answer that most gave, the first of them where several did as often.
pub(super) fn common_answer(dataset: &Dataset, question: usize) -> Option<&str> {
    let references = dataset.references.as_ref()?;
    let answers: Vec<&str> = references.answers(question).map(|answer| answer.text).collect();
    let count = |text: &str| answers.iter().filter(|other| **other == text).count();
    // The last of equals is taken, so that the first one comes last.
    answers.iter().rev().copied().max_by_key(|text| count(text))
}

/// A window ready for the model.
struct PreparedWindow {
    number: usize,
    pixels: Tensor,
    questions: Vec<PreparedQuestion>,
}

struct PreparedQuestion {
    index: usize,
    wanted: Wanted,
    request: Request,
    features: Option<PreparedFeatures>,
}

/// Tokens of the question, and of question and answer.
struct PreparedFeatures {
    question: Request,
    answer: Option<Request>,
}

/// What is needed to prepare windows.
struct Preparation<'a> {
    pass: &'a Pass<'a>,
    schedule: &'a Schedule,
    wanted: &'a [Wanted],
    text: &'a TextProcessor,
    images: &'a ImageProcessor,
    /// The window that is prepared next.
    next: AtomicUsize,
}

impl Preparation<'_> {
    /// Prepares one window after the other until none is left or nobody listens.
    fn send_windows(&self, windows: &SyncSender<Result<PreparedWindow>>) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(window) = self.schedule.windows.get(number) else { return };
            let wanted = self.schedule.questions(window).any(|question| self.wanted[question].any());
            if wanted && windows.send(self.prepare(number, window)).is_err() {
                return;
            }
        }
    }

    fn prepare(&self, number: usize, window: &Window) -> Result<PreparedWindow> {
        let dataset = self.pass.dataset;
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
            if self.wanted[index].any() {
                questions.push(self.prepare_question(index, count - 1).map_err(within)?);
            }
        }
        questions.sort_by_key(|question| question.request.tokens.len());
        let (height, width) = self.images.size();
        let channels = size / (height * width);
        Ok(PreparedWindow { number, pixels: Tensor::new([count, channels, height, width], pixels)?, questions })
    }

    fn prepare_question(&self, index: usize, image: usize) -> Result<PreparedQuestion> {
        let Pass { dataset, prompt, feature_prompt, .. } = self.pass;
        let text = &dataset.questions[index].text;
        let request = |prompt: &str| Ok::<_, Error>(Request { tokens: self.text.encode(prompt)?, image });
        let wanted = self.wanted[index];
        let features = || {
            let question = feature_prompt.fill(text);
            let with_answer = common_answer(dataset, index).map(|answer| format!("{question} : {answer}"));
            let answer = with_answer.map(|text| request(&text)).transpose()?;
            Ok::<_, Error>(PreparedFeatures { question: request(&question)?, answer })
        };
        let features = wanted.features.then(features).transpose()?;
        Ok(PreparedQuestion { index, wanted, request: request(&prompt.fill(text))?, features })
    }
}

/// Runs a replica of the model over one prepared window after the other.
fn run_windows(
    pass: &Pass,
    model: &mut Model,
    prepared: &Mutex<Receiver<Result<PreparedWindow>>>,
    finished: &SyncSender<Result<Batch>>,
) {
    loop {
        let window = prepared.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(window) = window else { return };
        let done = window.and_then(|window| run_window(pass, model, window, finished));
        if let Err(error) = done {
            // Where nobody listens, the error that ended the run is on its way already.
            let _ = finished.send(Err(error));
            return;
        }
    }
}

fn run_window(
    pass: &Pass,
    model: &mut Model,
    window: PreparedWindow,
    finished: &SyncSender<Result<Batch>>,
) -> Result<()> {
    let mut started = Instant::now();
    let images = model.image_features(window.pixels)?;
    let mut vision = None;
    for (number, questions) in window.questions.chunks(pass.batch_size).enumerate() {
        let answers = answer(pass, model, &images, questions)?;
        let features = features(model, (&images, &mut vision), questions)?;
        let place = (window.number, number);
        let batch = Batch { place, answers, features, started, finished: Instant::now() };
        started = batch.finished;
        if finished.send(Ok(batch)).is_err() {
            return Err(Error::internal("results can no longer be stored"));
        }
    }
    Ok(())
}

fn answer(
    pass: &Pass,
    model: &mut Model,
    images: &DeviceTensor,
    questions: &[PreparedQuestion],
) -> Result<Vec<(usize, Vec<u32>)>> {
    let open = || questions.iter().filter(|question| question.wanted.answer);
    let requests: Vec<Request> = open().map(|question| question.request.clone()).collect();
    let tokens = model.generate(images, &requests, &pass.decoding)?;
    Ok(open().map(|question| question.index).zip(tokens).collect())
}

/// The features of the questions that they are wanted of. Those of the images of a window are computed once, in `vision`.
fn features(
    model: &mut Model,
    (images, vision): (&DeviceTensor, &mut Option<Vec<f32>>),
    questions: &[PreparedQuestion],
) -> Result<Features> {
    let open: Vec<(usize, &PreparedFeatures)> =
        questions.iter().filter_map(|question| Some((question.index, question.features.as_ref()?))).collect();
    if open.is_empty() {
        return Ok(Features::default());
    }
    let requests: Vec<Request> = open.iter().map(|(_, prepared)| prepared.question.clone()).collect();
    let with_answers: Vec<(usize, Request)> =
        open.iter().enumerate().filter_map(|(place, (_, prepared))| Some((place, prepared.answer.clone()?))).collect();
    let (answered, answers): (Vec<usize>, Vec<Request>) = with_answers.into_iter().unzip();
    let of_images = match vision {
        Some(known) => known,
        None => vision.insert(model.vision_features(images)?),
    };
    let width = of_images.len() / images.shape().first().copied().unwrap_or(1).max(1);
    let row = |request: &Request| &of_images[request.image * width..(request.image + 1) * width];
    let tokens: Vec<Vec<u32>> = requests.iter().map(|request| request.tokens.clone()).collect();
    Ok(Features {
        questions: open.iter().map(|(index, _)| *index).collect(),
        vision: requests.iter().flat_map(row).copied().collect(),
        question: model.question_features(&tokens)?,
        joint: model.joint_features(images, &requests)?,
        answer: if answers.is_empty() { Vec::new() } else { model.joint_features(images, &answers)? },
        answered,
    })
}
