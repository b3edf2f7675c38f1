//! From prompts and image features to generated tokens: batches, positions, the cache of keys and values.

use super::decoding::{Candidates, Continuation, Decoding, Search};
use super::{Model, with_trained};
use crate::error::{Error, Result};
use crate::runtime::DeviceTensor;
use crate::tensor::Tensor;

/// Positions of padding are masked.
const PADDING: i64 = 0;

/// One prompt about one image.
#[derive(Debug, Clone)]
pub struct Request {
    /// Tokens of the prompt, from [`super::text::TextProcessor::encode`].
    pub tokens: Vec<u32>,
    /// Row of the image in the features that go with the batch.
    pub image: usize,
}

/// The answers to a batch.
#[derive(Debug)]
pub struct Generation {
    /// Generated tokens of each request, with the end token if it was reached.
    pub tokens: Vec<Vec<u32>>,
    /// Logits of the first generated token, `[requests, vocabulary]`, if asked for.
    pub first_logits: Option<Vec<f32>>,
}

/// A prompt whose search goes on: its place in the batch and its rows of the last step.
struct Running {
    request: usize,
    search: Search,
    rows: std::ops::Range<usize>,
}

/// What one call of a decoder graph gives back.
struct Step {
    cache: Vec<DeviceTensor>,
    tokens: Vec<i64>,
    scores: Vec<f32>,
    first_logits: Option<Vec<f32>>,
}

impl Step {
    fn candidates(&self, rows: std::ops::Range<usize>, count: usize) -> Vec<Candidates<'_>> {
        let part = |row: usize| row * count..(row + 1) * count;
        rows.map(|row| Candidates { tokens: &self.tokens[part(row)], scores: &self.scores[part(row)] }).collect()
    }
}

impl Model {
    /// Answers a batch of requests about `features`. Neither the order nor the size of the batch changes an answer,
    /// except where two tokens are equally probable to rounding.
    pub fn generate(
        &mut self,
        features: &DeviceTensor,
        requests: &[Request],
        decoding: &Decoding,
    ) -> Result<Vec<Vec<u32>>> {
        Ok(self.generate_with(features, requests, decoding, false)?.tokens)
    }

    /// As [`Model::generate`]; also hands out the logits of the first step on request.
    pub fn generate_with(
        &mut self,
        features: &DeviceTensor,
        requests: &[Request],
        decoding: &Decoding,
        first_logits: bool,
    ) -> Result<Generation> {
        let mut tokens = vec![Vec::new(); requests.len()];
        if requests.is_empty() {
            return Ok(Generation { tokens, first_logits: None });
        }
        let count = decoding.strategy.candidates(self.end_tokens.len());
        let names = CacheNames::new(self.layers);
        let width = requests.iter().map(|request| request.tokens.len()).max().unwrap_or(0);
        let mut step = self.run_prefill(features, requests, count, &names, first_logits)?;
        let first_logits = step.first_logits.take();
        let mut running: Vec<Running> = (0..requests.len())
            .map(|row| Running { request: row, search: Search::new(decoding, &self.end_tokens), rows: row..row + 1 })
            .collect();
        for generated in 1.. {
            let (still, next) = advance(running, &step, count, &mut tokens);
            running = still;
            if running.is_empty() {
                break;
            }
            let keys = self.key_positions(&running, requests, width, generated);
            step = self.run_decode(&step, next, keys, count, &names)?;
        }
        Ok(Generation { tokens, first_logits })
    }

    fn run_prefill(
        &mut self,
        features: &DeviceTensor,
        requests: &[Request],
        count: usize,
        names: &CacheNames,
        first_logits: bool,
    ) -> Result<Step> {
        let (ids, positions) = self.prompt_inputs(requests.iter().map(|request| request.tokens.as_slice()))?;
        let rows = requests.iter().map(|request| request.image as i64).collect::<Vec<_>>();
        let (rows, top_k) = (self.int_vector(rows)?, self.int_vector(vec![count as i64])?);
        let inputs = vec![
            ("image_features", features),
            ("image_rows", &rows),
            ("input_ids", &ids),
            ("positions", &positions),
            ("top_k", &top_k),
        ];
        let host: &[&str] = if first_logits { &["tokens", "scores", "logits"] } else { &["tokens", "scores"] };
        let inputs = with_trained(&self.trained, &self.prefill, inputs);
        let outputs = self.prefill.run(&inputs, &names.present(), host)?;
        step_of(outputs, names.layers, first_logits)
    }

    fn run_decode(
        &mut self,
        last: &Step,
        next: Vec<(usize, u32)>,
        key_positions: Vec<i64>,
        count: usize,
        names: &CacheNames,
    ) -> Result<Step> {
        let shape = [next.len(), key_positions.len() / next.len()];
        let rows = self.int_vector(next.iter().map(|(row, _)| *row as i64).collect())?;
        let tokens = self.int_vector(next.iter().map(|(_, token)| i64::from(*token)).collect())?;
        let (keys, top_k) = (self.int_tensor(shape, key_positions)?, self.int_vector(vec![count as i64])?);
        let mut inputs = vec![("rows", &rows), ("token_ids", &tokens), ("key_positions", &keys), ("top_k", &top_k)];
        inputs.extend(names.past.iter().map(String::as_str).zip(&last.cache));
        let inputs = with_trained(&self.trained, &self.decode, inputs);
        let outputs = self.decode.run(&inputs, &names.present(), &["tokens", "scores"])?;
        step_of(outputs, names.layers, false)
    }

    /// `input_ids` and `positions` of prompts, i64 `[prompts, longest]`, padded at the front.
    pub(super) fn prompt_inputs<'a>(
        &self,
        prompts: impl Iterator<Item = &'a [u32]> + Clone,
    ) -> Result<(DeviceTensor, DeviceTensor)> {
        let width = prompts.clone().map(<[u32]>::len).max().unwrap_or(0);
        let (mut ids, mut positions, mut count) = (Vec::new(), Vec::new(), 0);
        for tokens in prompts {
            let padding = width - tokens.len();
            ids.extend(std::iter::repeat_n(0, padding));
            ids.extend(tokens.iter().map(|token| i64::from(*token)));
            positions.extend(text_positions(self.image_tokens, padding, tokens.len()));
            count += 1;
        }
        Ok((self.int_tensor([count, width], ids)?, self.int_tensor([count, width], positions)?))
    }

    pub(super) fn int_vector(&self, values: Vec<i64>) -> Result<DeviceTensor> {
        self.runtime.tensor(Tensor::vector(values))
    }

    pub(super) fn int_tensor(&self, shape: [usize; 2], values: Vec<i64>) -> Result<DeviceTensor> {
        self.runtime.tensor(Tensor::new(shape, values)?)
    }

    /// Positions of all keys for each row to be computed: those of its prompt, then the generated tokens.
    fn key_positions(&self, running: &[Running], requests: &[Request], width: usize, generated: usize) -> Vec<i64> {
        let mut keys = Vec::new();
        for run in running {
            let length = requests[run.request].tokens.len();
            let last = (self.image_tokens + length) as i64;
            for _ in run.rows.clone() {
                keys.extend(1..=self.image_tokens as i64);
                keys.extend(text_positions(self.image_tokens, width - length, length));
                keys.extend(last + 1..=last + generated as i64);
            }
        }
        keys
    }
}

/// Names of the cache tensors, in the order of the layers.
struct CacheNames {
    layers: usize,
    past: Vec<String>,
    present: Vec<String>,
}

impl CacheNames {
    fn new(layers: usize) -> Self {
        let named = |side: &str| {
            (0..layers).flat_map(|layer| [format!("{side}_key_{layer}"), format!("{side}_value_{layer}")]).collect()
        };
        Self { layers, past: named("past"), present: named("present") }
    }

    fn present(&self) -> Vec<&str> {
        self.present.iter().map(String::as_str).collect()
    }
}

/// Feeds the candidates to each search; returns the searches that go on and their rows as (row of the last step,
/// token). Finished ones leave their tokens in `done`.
fn advance(
    running: Vec<Running>,
    step: &Step,
    count: usize,
    done: &mut [Vec<u32>],
) -> (Vec<Running>, Vec<(usize, u32)>) {
    let (mut still, mut next) = (Vec::with_capacity(running.len()), Vec::new());
    for mut run in running {
        let continuations = run.search.advance(&step.candidates(run.rows.clone(), count));
        if continuations.is_empty() {
            done[run.request] = run.search.into_tokens();
            continue;
        }
        let start = next.len();
        next.extend(continuations.iter().map(|Continuation { parent, token }| (run.rows.start + parent, *token)));
        still.push(Running { rows: start..next.len(), ..run });
    }
    (still, next)
}

fn text_positions(image_tokens: usize, padding: usize, length: usize) -> impl Iterator<Item = i64> {
    let first = image_tokens as i64 + 1;
    std::iter::repeat_n(PADDING, padding).chain(first..first + length as i64)
}

fn step_of(outputs: Vec<DeviceTensor>, layers: usize, with_logits: bool) -> Result<Step> {
    let mut cache = outputs;
    let host = cache.split_off(2 * layers);
    let [tokens, scores, rest @ ..] = host.as_slice() else {
        return Err(Error::internal("the decoder graph lacks an output"));
    };
    let first_logits = match rest.first() {
        Some(logits) if with_logits => Some(logits.values::<f32>()?.to_vec()),
        _ => None,
    };
    Ok(Step { cache, tokens: tokens.values::<i64>()?.to_vec(), scores: scores.values::<f32>()?.to_vec(), first_logits })
}
