//! Runs a model or an encoder over the questions of a dataset: answers, features, or both in one pass.
//!
//! Two kinds of threads: some prepare images and prompts ahead of time, and each replica runs on a thread that does nothing
//! else. The calling thread takes the finished batches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::schedule::{Schedule, Window};
use crate::data::{Dataset, Id, Question};
use crate::error::{Error, Result};
use crate::model::decoding::Decoding;
use crate::model::encoder::{Encoder, Reader};
use crate::model::text::{Prompt, SentenceProcessor, TextProcessor};
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
    /// Whether answers are asked for; where not, `prompt` means nothing.
    pub answers: bool,
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
    /// How many questions it has.
    pub questions: usize,
    /// Position of each answered question and its tokens.
    pub answers: Vec<(usize, Vec<u32>)>,
    /// Of the questions they were wanted of.
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
    /// Their places in `questions`, in ascending order.
    pub answered: Vec<usize>,
}

/// What is run over a dataset: a model, or an encoder of images or texts.
pub(super) trait Subject: Send {
    /// What is known of the images of a window.
    type Images;

    /// What turns questions and images into what it takes.
    fn readers(&self) -> Readers;

    /// Tokens, or patches, that one image becomes.
    fn patches(&self) -> usize;

    /// Looks at the images of a window, which are none for an encoder of texts.
    fn look(&mut self, pixels: Option<Tensor>) -> Result<Self::Images>;

    /// The tokens of answers.
    fn answer(&mut self, images: &Self::Images, requests: &[Request], decoding: &Decoding) -> Result<Vec<Vec<u32>>>;

    /// The features of questions, of which `with_answers` have an answer.
    fn features(
        &mut self,
        images: &mut Self::Images,
        questions: &[Request],
        with_answers: &[Request],
    ) -> Result<SubjectFeatures>;
}

/// Features of a list of questions, a row each; empty where a subject has none.
#[derive(Default)]
pub(super) struct SubjectFeatures {
    vision: Vec<f32>,
    question: Vec<f32>,
    joint: Vec<f32>,
    answer: Vec<f32>,
}

/// What turns questions and images into what a subject takes.
pub(super) struct Readers {
    pub images: Option<Arc<ImageProcessor>>,
    pub text: TextReader,
}

/// What turns a question into tokens.
pub(super) enum TextReader {
    /// As a prompt.
    Prompts(Arc<TextProcessor>),
    /// As it is.
    Sentences(Arc<SentenceProcessor>),
    /// Nothing does, where only images are looked at.
    None,
}

impl TextReader {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Prompts(text_processor) => text_processor.encode(text),
            Self::Sentences(sentences) => sentences.encode(text),
            Self::None => Ok(Vec::new()),
        }
    }

    /// Whether questions are put as prompts, which may hold an answer too.
    fn reads_prompts(&self) -> bool {
        matches!(self, Self::Prompts(_))
    }

    /// The answer that tokens spell.
    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String> {
        match self {
            Self::Prompts(text_processor) => text_processor.decode(tokens),
            Self::Sentences(_) | Self::None => Err(Error::internal("an encoder gives no answers")),
        }
    }
}

impl Subject for Model {
    /// Those of the image tower, and the mean over each image's tokens once it is known.
    type Images = (DeviceTensor, Option<Vec<f32>>);

    fn readers(&self) -> Readers {
        Readers { images: Some(Arc::clone(self.images())), text: TextReader::Prompts(Arc::clone(self.text())) }
    }

    fn patches(&self) -> usize {
        self.image_tokens()
    }

    fn look(&mut self, pixels: Option<Tensor>) -> Result<Self::Images> {
        let pixels = pixels.ok_or_else(|| Error::internal("a model was given no images"))?;
        Ok((self.image_features(pixels)?, None))
    }

    fn answer(&mut self, images: &Self::Images, requests: &[Request], decoding: &Decoding) -> Result<Vec<Vec<u32>>> {
        self.generate(&images.0, requests, decoding)
    }

    fn features(
        &mut self,
        (images, vision): &mut Self::Images,
        questions: &[Request],
        with_answers: &[Request],
    ) -> Result<SubjectFeatures> {
        let of_images = match vision {
            Some(known) => known,
            None => vision.insert(self.vision_features(images)?),
        };
        let vision = rows_of_images(of_images, images.shape().first().copied().unwrap_or(0), questions);
        let tokens: Vec<Vec<u32>> = questions.iter().map(|request| request.tokens.clone()).collect();
        Ok(SubjectFeatures {
            vision,
            question: self.question_features(&tokens)?,
            joint: self.joint_features(images, questions)?,
            answer: if with_answers.is_empty() { Vec::new() } else { self.joint_features(images, with_answers)? },
        })
    }
}

impl Subject for Encoder {
    /// How many there are, and their features.
    type Images = (usize, Vec<f32>);

    fn readers(&self) -> Readers {
        match self.reader() {
            Reader::Images(images) => Readers { images: Some(Arc::clone(images)), text: TextReader::None },
            Reader::Texts(texts) => Readers { images: None, text: TextReader::Sentences(Arc::clone(texts)) },
        }
    }

    fn patches(&self) -> usize {
        1
    }

    fn look(&mut self, pixels: Option<Tensor>) -> Result<Self::Images> {
        let Some(pixels) = pixels else { return Ok((0, Vec::new())) };
        let count = pixels.shape().first().copied().unwrap_or(0);
        Ok((count, self.images(pixels)?))
    }

    fn answer(&mut self, _: &Self::Images, _: &[Request], _: &Decoding) -> Result<Vec<Vec<u32>>> {
        Ok(Vec::new())
    }

    fn features(
        &mut self,
        (count, of_images): &mut Self::Images,
        questions: &[Request],
        _: &[Request],
    ) -> Result<SubjectFeatures> {
        let mut features = SubjectFeatures::default();
        match self.reader() {
            Reader::Images(_) => features.vision = rows_of_images(of_images, *count, questions),
            Reader::Texts(_) => {
                let tokens: Vec<Vec<u32>> = questions.iter().map(|request| request.tokens.clone()).collect();
                features.question = self.texts(&tokens)?;
            }
        }
        Ok(features)
    }
}

/// The features of each question's image.
fn rows_of_images(features: &[f32], images: usize, questions: &[Request]) -> Vec<f32> {
    let width = features.len() / images.max(1);
    questions
        .iter()
        .flat_map(|request| &features[request.image * width..(request.image + 1) * width])
        .copied()
        .collect()
}

/// The first replica.
pub(super) fn first<S: Subject>(replicas: &[S]) -> Result<&S> {
    replicas.first().ok_or_else(|| Error::internal("there is nothing to run over the questions"))
}

/// The order of a pass.
pub(super) fn schedule<S: Subject>(pass: &Pass, replicas: &[S]) -> Result<Schedule> {
    Ok(Schedule::new(pass.dataset, pass.batch_size, first(replicas)?.patches()))
}

/// Finds out what is wanted of each question, from window number `start` on; `on_batch` takes each finished batch on the
/// calling thread, in any order.
///
/// # Errors
/// The first error of a thread or of `on_batch`.
pub(super) fn run<S: Subject>(
    pass: &Pass,
    replicas: &mut [S],
    schedule: &Schedule,
    (wanted, start): (&[Wanted], usize),
    on_batch: &mut dyn FnMut(Batch) -> Result<()>,
) -> Result<()> {
    let readers = first(replicas)?.readers();
    let preparation = Preparation { pass, schedule, wanted, readers: &readers, next: AtomicUsize::new(start) };
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
        for subject in replicas {
            let (prepared, finished) = (Arc::clone(&prepared), finished.clone());
            scope.spawn(move || run_windows(pass, subject, &prepared, &finished));
        }
        drop((finished, prepared));
        batches.into_iter().try_for_each(|batch| on_batch(batch?))
    })
}

/// Computes what an answer depends on besides the settings: the upper half is of the text of the question, the lower one of the
/// identity of its image. What reads stored answers without the images can tell by the upper half whether they were given to
/// the same question.
#[derive(Default)]
pub(super) struct Fingerprint<'a> {
    /// The last image and the half of its file's identity; questions on one image come side by side.
    last: Option<(&'a Id, u64)>,
}

impl<'a> Fingerprint<'a> {
    pub(super) fn of(&mut self, dataset: &'a Dataset, question: &'a Question) -> Result<u64> {
        let image = match self.last {
            Some((image, half)) if *image == question.image_id => half,
            _ => {
                let identity = dataset.images.identity(&question.image_id);
                let identity = identity.map_err(|error| unaskable(dataset, question, error))?;
                first_bytes(Sha256::new_with_prefix(identity)) & u64::from(u32::MAX)
            }
        };
        self.last = Some((&question.image_id, image));
        Ok(Self::of_text(question) | image)
    }

    /// That of the text alone, for what sees no images.
    pub(super) fn of_text(question: &Question) -> u64 {
        first_bytes(Sha256::new_with_prefix(question.text.as_bytes())) << 32
    }

    /// Whether a fingerprint is one of this question's text, whatever the image.
    pub(super) fn is_of_text(content: u64, question: &Question) -> bool {
        content >> 32 == Self::of_text(question) >> 32
    }
}

/// The first eight bytes of a digest as a number.
pub(super) fn first_bytes(hash: Sha256) -> u64 {
    let digest = hash.finalize();
    digest.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
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
    pixels: Option<Tensor>,
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
    readers: &'a Readers,
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
        let mut pixels = Pixels::new(self.readers.images.as_deref());
        let mut last_image = None;
        let mut questions = Vec::with_capacity(window.len());
        for index in self.schedule.questions(window) {
            let question = &dataset.questions[index];
            let within = |error: Error| unaskable(dataset, question, error);
            // All images of a window are computed even if only some are needed, so that a continued run computes
            // the same batch of images.
            if last_image != Some(&question.image_id) {
                pixels.add(dataset, &question.image_id).map_err(within)?;
                last_image = Some(&question.image_id);
            }
            if self.wanted[index].any() {
                questions.push(self.prepare_question(index, pixels.count - 1).map_err(within)?);
            }
        }
        questions.sort_by_key(|question| question.request.tokens.len());
        Ok(PreparedWindow { number, pixels: pixels.finish()?, questions })
    }

    fn prepare_question(&self, index: usize, image: usize) -> Result<PreparedQuestion> {
        let Pass { dataset, answers, prompt, feature_prompt, .. } = self.pass;
        let text = &dataset.questions[index].text;
        let request = |prompt: &str| Ok::<_, Error>(Request { tokens: self.readers.text.encode(prompt)?, image });
        let wanted = self.wanted[index];
        let features = || {
            let question = feature_prompt.fill(text);
            let answer = common_answer(dataset, index).filter(|_| self.readers.text.reads_prompts());
            let answer = answer.map(|answer| request(&format!("{question} : {answer}"))).transpose()?;
            Ok::<_, Error>(PreparedFeatures { question: request(&question)?, answer })
        };
        let features = wanted.features.then(features).transpose()?;
        let request = match &features {
            Some(features) if !answers => features.question.clone(),
            _ => request(&prompt.fill(text))?,
        };
        Ok(PreparedQuestion { index, wanted, request, features })
    }
}

/// The images of a window on their way into one tensor.
struct Pixels<'a> {
    /// None where images are not looked at.
    processor: Option<&'a ImageProcessor>,
    values: Vec<f32>,
    count: usize,
}

impl<'a> Pixels<'a> {
    fn new(processor: Option<&'a ImageProcessor>) -> Self {
        Self { processor, values: Vec::new(), count: 0 }
    }

    fn add(&mut self, dataset: &Dataset, image: &Id) -> Result<()> {
        self.count += 1;
        let Some(processor) = self.processor else { return Ok(()) };
        let (image, start) = (dataset.images.decode(image)?, self.values.len());
        self.values.resize(start + processor.output_len(), 0.0);
        processor.process(&image, &mut self.values[start..])
    }

    /// f32 `[images, channels, height, width]`.
    fn finish(self) -> Result<Option<Tensor>> {
        let Some(processor) = self.processor else { return Ok(None) };
        let (height, width) = processor.size();
        let channels = processor.output_len() / (height * width);
        Tensor::new([self.count, channels, height, width], self.values).map(Some)
    }
}

/// Runs a replica over one prepared window after the other.
fn run_windows<S: Subject>(
    pass: &Pass,
    subject: &mut S,
    prepared: &Mutex<Receiver<Result<PreparedWindow>>>,
    finished: &SyncSender<Result<Batch>>,
) {
    loop {
        let window = prepared.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(window) = window else { return };
        let done = window.and_then(|window| run_window(pass, subject, window, finished));
        if let Err(error) = done {
            // Where nobody listens, the error that ended the run is on its way already.
            let _ = finished.send(Err(error));
            return;
        }
    }
}

fn run_window<S: Subject>(
    pass: &Pass,
    subject: &mut S,
    window: PreparedWindow,
    finished: &SyncSender<Result<Batch>>,
) -> Result<()> {
    let mut started = Instant::now();
    let mut images = subject.look(window.pixels)?;
    for (number, questions) in window.questions.chunks(pass.batch_size).enumerate() {
        let answers = answer(pass, subject, &images, questions)?;
        let features = features(subject, &mut images, questions)?;
        let place = (window.number, number);
        let batch = Batch { place, questions: questions.len(), answers, features, started, finished: Instant::now() };
        started = batch.finished;
        if finished.send(Ok(batch)).is_err() {
            return Err(Error::internal("results can no longer be stored"));
        }
    }
    Ok(())
}

fn answer<S: Subject>(
    pass: &Pass,
    subject: &mut S,
    images: &S::Images,
    questions: &[PreparedQuestion],
) -> Result<Vec<(usize, Vec<u32>)>> {
    let open = || questions.iter().filter(|question| question.wanted.answer);
    let requests: Vec<Request> = open().map(|question| question.request.clone()).collect();
    let tokens = subject.answer(images, &requests, &pass.decoding)?;
    Ok(open().map(|question| question.index).zip(tokens).collect())
}

/// The features of the questions that they are wanted of.
fn features<S: Subject>(subject: &mut S, images: &mut S::Images, questions: &[PreparedQuestion]) -> Result<Features> {
    let open: Vec<(usize, &PreparedFeatures)> =
        questions.iter().filter_map(|question| Some((question.index, question.features.as_ref()?))).collect();
    if open.is_empty() {
        return Ok(Features::default());
    }
    let requests: Vec<Request> = open.iter().map(|(_, prepared)| prepared.question.clone()).collect();
    let answers = open.iter().enumerate().filter_map(|(place, (_, prepared))| Some((place, prepared.answer.clone()?)));
    let (answered, answers): (Vec<usize>, Vec<Request>) = answers.unzip();
    let SubjectFeatures { vision, question, joint, answer } = subject.features(images, &requests, &answers)?;
    let questions = open.iter().map(|(index, _)| *index).collect();
    Ok(Features { questions, vision, question, joint, answer, answered })
}
