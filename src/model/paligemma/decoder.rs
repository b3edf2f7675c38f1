//! The Gemma and Gemma 2 text decoder: the whole prompt at once, one token at a time, and the loss of given answers.
//!
//! A row of the prompt is laid out as image tokens, padding, text tokens; positions count from 1 and skip the
//! padding, whose position is 0. Keys are masked by position, so padding changes nothing.

use super::Emitter;
use super::config::Decoder;
use super::vision::gelu;
use crate::error::Result;
use crate::graph::{Attribute, Dim, Graph, IGNORED_LABEL, Type, Value};
use crate::model::features::Layer;
use crate::tensor::{DType, Tensor};

/// The graph of the prompt, in which every token sees every other one.
///
/// Inputs: `image_features` `[images, image tokens, hidden]`, `image_rows` i64 `[batch]` (which image belongs to each
/// row), `input_ids` and `positions` i64 `[batch, text]`, `top_k` i64 `[1]`.
/// Outputs: `tokens` i64 and `scores` f32 `[batch, top_k]` (most probable next tokens and their log-probabilities),
/// `logits` f32 `[batch, vocabulary]`, `present_key_i` and `present_value_i` `[batch, kv heads, tokens, head size]`.
pub(super) fn prefill(config: &Decoder, image_tokens: usize, mut emitter: Emitter) -> Result<Graph> {
    let features = Type::new(emitter.dtype(), [Dim::from("images"), image_tokens.into(), config.hidden.into()]);
    let features = emitter.input("image_features", features)?;
    let rows = emitter.input("image_rows", Type::new(DType::I64, [Dim::from("batch")]))?;
    let text = Type::new(DType::I64, [Dim::from("batch"), Dim::from("text")]);
    let input_ids = emitter.input("input_ids", text.clone())?;
    let text_positions = emitter.input("positions", text)?;
    let top_k = emitter.input("top_k", Type::new(DType::I64, [Dim::from(1)]))?;

    let image = emitter.gather(features, rows, 0)?;
    let text = embed(&mut emitter, config, input_ids)?;
    let x = emitter.concat(&[image, text], 1)?;
    let positions = with_image_positions(&mut emitter, text_positions, image_tokens)?;
    let rotary = rotary(&mut emitter, config, positions)?;
    let mask = prefix_mask(&mut emitter, positions)?;
    let run = Run { config, past: None, rotary, masks: vec![mask; config.layers], read: Read::LastToken };
    let (last, cache) = layers(&mut emitter, &run, x)?;
    let next = head(&mut emitter, config, last, top_k)?;
    emitter.finish(&[cache, next].concat())
}

/// The loss of the answers to a batch: the sum of the cross-entropies of their tokens, from image features
/// `[images, image tokens, hidden]`.
///
/// Inputs besides those of [`prefill`]: `prompt_ends` i64 `[batch, 1]` (the last position of each prompt; later tokens see
/// earlier ones only), `answer_columns` i64 `[answer]` (the columns, counted with the image tokens, whose next token counts),
/// `labels` i64 `[batch, answer]` (the next tokens; [`IGNORED_LABEL`] where none counts).
pub(super) fn loss(emitter: &mut Emitter, config: &Decoder, image_tokens: usize, features: Value) -> Result<Value> {
    let rows = emitter.input("image_rows", Type::new(DType::I64, [Dim::from("batch")]))?;
    let text = Type::new(DType::I64, [Dim::from("batch"), Dim::from("text")]);
    let input_ids = emitter.input("input_ids", text.clone())?;
    let text_positions = emitter.input("positions", text)?;
    let prompt_ends = emitter.input("prompt_ends", Type::new(DType::I64, [Dim::from("batch"), Dim::from(1)]))?;
    let columns = emitter.input("answer_columns", Type::new(DType::I64, [Dim::from("answer")]))?;
    let labels = emitter.input("labels", Type::new(DType::I64, [Dim::from("batch"), Dim::from("answer")]))?;

    let image = rows_of_images(emitter, features, rows, image_tokens * config.hidden)?;
    let image = emitter.reshape(image, &[-1, image_tokens as i64, config.hidden as i64])?;
    let text = embed(emitter, config, input_ids)?;
    let x = emitter.concat(&[image, text], 1)?;
    let positions = with_image_positions(emitter, text_positions, image_tokens)?;
    let rotary = rotary(emitter, config, positions)?;
    let masks = training_masks(emitter, config, positions, prompt_ends, columns)?;
    let run = Run { config, past: None, rotary, masks, read: Read::Columns(columns) };
    let (hidden, _) = layers(emitter, &run, x)?;
    let hidden = emitter.reshape(hidden, &[-1, config.hidden as i64])?;
    let logits = logits(emitter, config, hidden)?;
    let labels = emitter.reshape(labels, &[-1])?;
    let attributes =
        [("reduction", Attribute::Text("sum".to_owned())), ("ignore_index", Attribute::Int(IGNORED_LABEL))];
    emitter.op("SoftmaxCrossEntropyLoss", &[logits, labels], &attributes)
}

/// The graph of one generated token per row.
///
/// Inputs: `rows` i64 `[batch]` (which row of the previous call each row continues: drops finished rows, reorders
/// beams), `token_ids` i64 `[batch]`, `key_positions` i64 `[batch, past + 1]` with the new token last, `top_k` i64 `[1]`,
/// `past_key_i`, `past_value_i`. Outputs as in [`prefill`].
pub(super) fn decode(config: &Decoder, mut emitter: Emitter) -> Result<Graph> {
    let rows = emitter.input("rows", Type::new(DType::I64, [Dim::from("batch")]))?;
    let tokens = emitter.input("token_ids", Type::new(DType::I64, [Dim::from("batch")]))?;
    let key_positions = Type::new(DType::I64, [Dim::from("batch"), Dim::from("past+1")]);
    let key_positions = emitter.input("key_positions", key_positions)?;
    let top_k = emitter.input("top_k", Type::new(DType::I64, [Dim::from(1)]))?;
    let cache = Type::new(
        emitter.dtype(),
        [Dim::from("rows"), config.key_value_heads.into(), Dim::from("past"), config.head_size.into()],
    );
    let mut past = Vec::with_capacity(config.layers);
    for layer in 0..config.layers {
        let key = emitter.input(&format!("past_key_{layer}"), cache.clone())?;
        let value = emitter.input(&format!("past_value_{layer}"), cache.clone())?;
        past.push((emitter.gather(key, rows, 0)?, emitter.gather(value, rows, 0)?));
    }

    let tokens = emitter.unsqueeze(tokens, &[1])?;
    let x = embed(&mut emitter, config, tokens)?;
    let position = emitter.slice(key_positions, 1, -1, i64::MAX)?;
    let rotary = rotary(&mut emitter, config, position)?;
    let masks = decode_masks(&mut emitter, config, key_positions, position)?;
    let run = Run { config, past: Some(past), rotary, masks, read: Read::LastToken };
    let (last, cache) = layers(&mut emitter, &run, x)?;
    let next = head(&mut emitter, config, last, top_k)?;
    emitter.finish(&[cache, next].concat())
}

/// What a graph of [`features`] is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Image,
    Text,
    ImageAndText,
}

/// The graph of a mean over tokens of the hidden state after `layer`, with the inputs and the output that
/// [`crate::model::features::FeatureGraphs`] tells. Image and text have equal weight where both are given.
pub(super) fn features(
    config: &Decoder,
    image_tokens: usize,
    (given, layer): (Given, Layer),
    mut emitter: Emitter,
) -> Result<Graph> {
    let (x, positions, weights) = given_tokens(&mut emitter, config, image_tokens, given)?;
    let rotary = rotary(&mut emitter, config, positions)?;
    let mask = prefix_mask(&mut emitter, positions)?;
    let depth = layer.depth(config.layers)?;
    let normed = depth == config.layers;
    let config = Decoder { layers: depth, ..config.clone() };
    let run = Run { config: &config, past: None, rotary, masks: vec![mask; depth], read: Read::All };
    let hidden = match normed {
        true => layers(&mut emitter, &run, x)?.0,
        false => stack(&mut emitter, &run, x)?.0,
    };
    let hidden = emitter.cast(hidden, DType::F32)?;
    let weights = emitter.unsqueeze(weights, &[1])?;
    let mean = emitter.matmul(weights, hidden)?;
    let mean = emitter.reshape(mean, &[0, config.hidden as i64])?;
    emitter.finish(&[("features".to_owned(), mean)])
}

/// What enters the first layer, its positions, and how much each token counts in the mean, f32 `[rows, tokens]`.
fn given_tokens(
    emitter: &mut Emitter,
    config: &Decoder,
    image_tokens: usize,
    given: Given,
) -> Result<(Value, Value, Value)> {
    let image = Type::new(emitter.dtype(), [Dim::from("images"), image_tokens.into(), config.hidden.into()]);
    let text = Type::new(DType::I64, [Dim::from("batch"), Dim::from("text")]);
    if given == Given::Image {
        let x = emitter.input("image_features", image)?;
        let positions = Type::new(DType::I64, [Dim::from("images"), image_tokens.into()]);
        let positions = emitter.input("positions", positions)?;
        return Ok((x, positions, shares(emitter, positions)?));
    }
    let image = match given {
        Given::ImageAndText => {
            let features = emitter.input("image_features", image)?;
            let rows = emitter.input("image_rows", Type::new(DType::I64, [Dim::from("batch")]))?;
            Some(emitter.gather(features, rows, 0)?)
        }
        _ => None,
    };
    let input_ids = emitter.input("input_ids", text.clone())?;
    let text_positions = emitter.input("positions", text)?;
    let x = embed(emitter, config, input_ids)?;
    let weights = shares(emitter, text_positions)?;
    let Some(image) = image else { return Ok((x, text_positions, weights)) };
    let x = emitter.concat(&[image, x], 1)?;
    let positions = with_image_positions(emitter, text_positions, image_tokens)?;
    let image_weights = emitter.slice(positions, 1, 0, image_tokens as i64)?;
    let image_weights = shares(emitter, image_weights)?;
    let weights = emitter.concat(&[image_weights, weights], 1)?;
    Ok((x, positions, emitter.scale(weights, 0.5)?))
}

/// One divided by the number of tokens in the row for each token that has a position, 0 for padding, f32 `[rows, tokens]`.
fn shares(emitter: &mut Emitter, positions: Value) -> Result<Value> {
    let one = emitter.scalar(1i64)?;
    let real = emitter.op("GreaterOrEqual", &[positions, one], &[])?;
    let real = emitter.cast(real, DType::F32)?;
    let axes = emitter.ints(&[-1])?;
    let count = emitter.op("ReduceSum", &[real, axes], &[])?;
    emitter.op("Div", &[real, count], &[])
}

/// The features of each row's image, `[batch, size]`: a product with a matrix that has a single 1 in each row, whose
/// gradient is a product too. That of picking rows adds them up one number after the other.
fn rows_of_images(emitter: &mut Emitter, features: Value, rows: Value, size: usize) -> Result<Value> {
    let flat = emitter.reshape(features, &[-1, size as i64])?;
    let first = emitter.scalar(0i64)?;
    let one = emitter.scalar(1i64)?;
    let count = emitter.op("Shape", &[features], &[("start", Attribute::Int(0)), ("end", Attribute::Int(1))])?;
    let count = emitter.reshape(count, &[])?;
    let numbers = emitter.op("Range", &[first, count, one], &[])?;
    let rows = emitter.unsqueeze(rows, &[1])?;
    let same = emitter.op("Equal", &[rows, numbers], &[])?;
    let chosen = emitter.compute(same)?;
    emitter.matmul(chosen, flat)
}

/// Cosines and sines of the rotary embedding, `[batch, tokens, head size / 2]` each.
#[derive(Clone, Copy)]
struct Rotary {
    cosines: Value,
    sines: Value,
}

/// What every layer of one graph shares.
struct Run<'a> {
    config: &'a Decoder,
    /// Keys and values of earlier tokens, per layer.
    past: Option<Vec<(Value, Value)>>,
    /// For the tokens in this graph's input.
    rotary: Rotary,
    /// What is added to the scores of each layer: `[batch, 1, 1, keys]`, or with a row for each of its queries.
    masks: Vec<Value>,
    /// The tokens whose hidden state after the last layer is read; nothing else of that layer is computed.
    read: Read,
}

/// Tokens of a row.
#[derive(Clone, Copy)]
enum Read {
    LastToken,
    All,
    /// Those in the columns, i64 `[columns]`.
    Columns(Value),
}

impl Read {
    /// These tokens of `x`, `[batch, tokens, ...]`.
    fn of(self, emitter: &mut Emitter, x: Value) -> Result<Value> {
        match self {
            Self::LastToken => emitter.slice(x, 1, -1, i64::MAX),
            Self::All => Ok(x),
            Self::Columns(columns) => emitter.gather(x, columns, 1),
        }
    }
}

type Outputs = Vec<(String, Value)>;

/// All layers and the last norm; returns the hidden states that are read, `[batch, read, hidden]`, and the cache.
fn layers(emitter: &mut Emitter, run: &Run, x: Value) -> Result<(Value, Outputs)> {
    let (x, cache) = stack(emitter, run, x)?;
    Ok((rms_norm(emitter, run.config, "text.norm", x)?, cache))
}

/// All layers; returns as [`layers`], before the last norm.
fn stack(emitter: &mut Emitter, run: &Run, x: Value) -> Result<(Value, Outputs)> {
    let mut x = x;
    let mut outputs = Vec::with_capacity(2 * run.config.layers);
    for layer in 0..run.config.layers {
        let name = scope(layer);
        let (next, key, value) = emitter.scoped(&name, |emitter| decoder_layer(emitter, run, layer, x))?;
        x = next;
        outputs.push((format!("present_key_{layer}"), key));
        outputs.push((format!("present_value_{layer}"), value));
    }
    Ok((x, outputs))
}

/// Name of a layer, and scope of its nodes.
pub(super) fn scope(layer: usize) -> String {
    format!("text.layers.{layer}")
}

fn decoder_layer(emitter: &mut Emitter, run: &Run, layer: usize, x: Value) -> Result<(Value, Value, Value)> {
    let config = run.config;
    let name = scope(layer);
    let second = config.second_generation;
    let normed = rms_norm(emitter, config, &format!("{name}.input_layernorm"), x)?;
    let (attended, key, value) = attention(emitter, run, layer, normed)?;
    let attended = match second {
        true => rms_norm(emitter, config, &format!("{name}.post_attention_layernorm"), attended)?,
        false => attended,
    };
    let x = if layer + 1 == config.layers { run.read.of(emitter, x)? } else { x };
    let x = emitter.add(x, attended)?;
    let before = if second { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
    let normed = rms_norm(emitter, config, &format!("{name}.{before}"), x)?;
    let fed = feed_forward(emitter, config, &format!("{name}.mlp"), normed)?;
    let fed = match second {
        true => rms_norm(emitter, config, &format!("{name}.post_feedforward_layernorm"), fed)?,
        false => fed,
    };
    Ok((emitter.add(x, fed)?, key, value))
}

fn feed_forward(emitter: &mut Emitter, config: &Decoder, name: &str, x: Value) -> Result<Value> {
    let (width, inner) = (config.hidden, config.intermediate);
    let gate = emitter.linear(x, &format!("{name}.gate_proj"), [inner, width], false)?;
    let gate = gelu(emitter, gate, config.gelu)?;
    let up = emitter.linear(x, &format!("{name}.up_proj"), [inner, width], false)?;
    let product = emitter.mul(gate, up)?;
    emitter.linear(product, &format!("{name}.down_proj"), [width, inner], false)
}

/// Grouped-query attention; returns its result and the keys and values of all tokens so far.
fn attention(emitter: &mut Emitter, run: &Run, layer: usize, x: Value) -> Result<(Value, Value, Value)> {
    let config = run.config;
    let name = format!("text.layers.{layer}.self_attn");
    let (mut key, mut value) = new_keys(emitter, run, &name, x)?;
    if let Some(past) = &run.past {
        key = emitter.concat(&[past[layer].0, key], 2)?;
        value = emitter.concat(&[past[layer].1, value], 2)?;
    }
    let query = queries(emitter, run, layer, x)?;
    let transposed = emitter.transpose(key, &[0, 1, 3, 2])?;
    let scores = emitter.matmul(query, transposed)?;
    let scores = emitter.scale(scores, config.scale)?;
    let scores = soft_cap(emitter, scores, config.attention_cap)?;
    let scores = emitter.add(scores, run.masks[layer])?;
    let scores = emitter.cast(scores, DType::F32)?;
    let weights = emitter.softmax(scores)?;
    let weights = emitter.compute(weights)?;
    let context = emitter.matmul(weights, value)?;
    let (groups, head_size) = (config.heads / config.key_value_heads, config.head_size as i64);
    let context = emitter.reshape(context, &[0, 0, groups as i64, -1, head_size])?;
    let context = emitter.transpose(context, &[0, 3, 1, 2, 4])?;
    let width = config.heads * config.head_size;
    let context = emitter.reshape(context, &[0, 0, width as i64])?;
    let output = emitter.linear(context, &format!("{name}.o_proj"), [config.hidden, width], false)?;
    Ok((output, key, value))
}

/// Keys and values of the tokens in `x`, `[batch, kv heads, tokens, head size]`.
fn new_keys(emitter: &mut Emitter, run: &Run, name: &str, x: Value) -> Result<(Value, Value)> {
    let config = run.config;
    let size = [config.key_value_heads * config.head_size, config.hidden];
    let split = [0, 0, config.key_value_heads as i64, config.head_size as i64];
    let projected = |emitter: &mut Emitter, part: &str| {
        let value = emitter.linear(x, &format!("{name}.{part}_proj"), size, false)?;
        let value = emitter.reshape(value, &split)?;
        emitter.transpose(value, &[0, 2, 1, 3])
    };
    let key = projected(emitter, "k")?;
    let value = projected(emitter, "v")?;
    Ok((rotate(emitter, key, run.rotary)?, value))
}

/// Queries grouped by the key-value head they share, `[batch, kv heads, group * tokens, head size]`.
fn queries(emitter: &mut Emitter, run: &Run, layer: usize, x: Value) -> Result<Value> {
    let config = run.config;
    let (heads, head_size) = (config.heads as i64, config.head_size as i64);
    let kv_heads = config.key_value_heads as i64;
    let (x, rotary) = if layer + 1 == config.layers { read_only(emitter, run, x)? } else { (x, run.rotary) };
    let name = format!("text.layers.{layer}.self_attn.q_proj");
    let query = emitter.linear(x, &name, [config.heads * config.head_size, config.hidden], false)?;
    let query = emitter.reshape(query, &[0, 0, heads, head_size])?;
    let query = emitter.transpose(query, &[0, 2, 1, 3])?;
    let query = rotate(emitter, query, rotary)?;
    emitter.reshape(query, &[0, kv_heads, -1, head_size])
}

fn read_only(emitter: &mut Emitter, run: &Run, x: Value) -> Result<(Value, Rotary)> {
    let mut read = |value| run.read.of(emitter, value);
    let rotary = Rotary { cosines: read(run.rotary.cosines)?, sines: read(run.rotary.sines)? };
    Ok((read(x)?, rotary))
}

/// Token embeddings scaled by the square root of their width.
fn embed(emitter: &mut Emitter, config: &Decoder, ids: Value) -> Result<Value> {
    let table = emitter.get("text.embed_tokens.weight", &[config.vocabulary, config.hidden])?;
    let rows = emitter.gather(table, ids, 0)?;
    emitter.scale(rows, (config.hidden as f64).sqrt() as f32)
}

/// The next token's logits, their `top_k` and its log-probabilities, all in f32.
fn head(emitter: &mut Emitter, config: &Decoder, last: Value, top_k: Value) -> Result<Outputs> {
    let last = emitter.reshape(last, &[0, config.hidden as i64])?;
    let logits = logits(emitter, config, last)?;
    let best = emitter.node("TopK", &[Some(logits), Some(top_k)], &[("axis", Attribute::Int(-1))])?;
    let total = log_sum_exp(emitter, logits)?;
    let scores = emitter.op("Sub", &[best[0], total], &[])?;
    let named = [("tokens", best[1]), ("scores", scores), ("logits", logits)];
    Ok(named.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Logits f32 `[rows, vocabulary]` of hidden states `[rows, hidden]`.
fn logits(emitter: &mut Emitter, config: &Decoder, hidden: Value) -> Result<Value> {
    let logits = emitter.linear(hidden, "head", [config.vocabulary, config.hidden], false)?;
    let logits = soft_cap(emitter, logits, config.logit_cap)?;
    emitter.cast(logits, DType::F32)
}

/// The logarithm of the sum of exponentials over the last axis. Written out, it runs on vectorised kernels, which
/// `ReduceLogSumExp` does not have on the CPU.
fn log_sum_exp(emitter: &mut Emitter, x: Value) -> Result<Value> {
    let axes = emitter.ints(&[-1])?;
    let highest = emitter.op("ReduceMax", &[x, axes], &[])?;
    let shifted = emitter.op("Sub", &[x, highest], &[])?;
    let powers = emitter.op("Exp", &[shifted], &[])?;
    let sum = emitter.op("ReduceSum", &[powers, axes], &[])?;
    let logarithm = emitter.op("Log", &[sum], &[])?;
    emitter.add(logarithm, highest)
}

/// RMS norm with Gemma's `1 + weight`, computed in f32.
fn rms_norm(emitter: &mut Emitter, config: &Decoder, name: &str, x: Value) -> Result<Value> {
    let weight = emitter.get(&format!("{name}.weight"), &[config.hidden])?;
    let weight = emitter.cast(weight, DType::F32)?;
    let one = emitter.float(1.0, DType::F32)?;
    let scale = emitter.add(weight, one)?;
    let x = emitter.cast(x, DType::F32)?;
    let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(config.epsilon))];
    let normed = emitter.op("RMSNormalization", &[x, scale], &attributes)?;
    emitter.compute(normed)
}

/// `cap * tanh(x / cap)`, which bounds scores smoothly.
fn soft_cap(emitter: &mut Emitter, x: Value, cap: Option<f32>) -> Result<Value> {
    let Some(cap) = cap else { return Ok(x) };
    let dtype = emitter.ty(x)?.dtype;
    let divisor = emitter.float(cap, dtype)?;
    let x = emitter.op("Div", &[x, divisor], &[])?;
    let x = emitter.op("Tanh", &[x], &[])?;
    emitter.scale(x, cap)
}

fn rotary(emitter: &mut Emitter, config: &Decoder, positions: Value) -> Result<Rotary> {
    let half = config.head_size / 2;
    let frequency = |index: usize| 1.0 / (config.rope_theta as f32).powf((2 * index) as f32 / config.head_size as f32);
    let frequencies = emitter.constant(Tensor::vector((0..half).map(frequency).collect::<Vec<f32>>()))?;
    let positions = emitter.cast(positions, DType::F32)?;
    let positions = emitter.unsqueeze(positions, &[2])?;
    let angles = emitter.mul(positions, frequencies)?;
    let cosines = emitter.op("Cos", &[angles], &[])?;
    let sines = emitter.op("Sin", &[angles], &[])?;
    Ok(Rotary { cosines: emitter.compute(cosines)?, sines: emitter.compute(sines)? })
}

fn rotate(emitter: &mut Emitter, x: Value, rotary: Rotary) -> Result<Value> {
    emitter.op("RotaryEmbedding", &[x, rotary.cosines, rotary.sines], &[("interleaved", Attribute::Int(0))])
}

/// Positions of a whole row: image tokens count from 1, then come those of the text.
fn with_image_positions(emitter: &mut Emitter, text: Value, image_tokens: usize) -> Result<Value> {
    let image: Vec<i64> = (1..=image_tokens as i64).collect();
    let image = emitter.constant(Tensor::new([1, image_tokens], image)?)?;
    // Adding zeros of the batch's height repeats the row without naming the batch size.
    let first = emitter.slice(text, 1, 0, 1)?;
    let zero = emitter.scalar(0i64)?;
    let zeros = emitter.mul(first, zero)?;
    let image = emitter.add(zeros, image)?;
    emitter.concat(&[image, text], 1)
}

fn prefix_mask(emitter: &mut Emitter, positions: Value) -> Result<Value> {
    let one = emitter.scalar(1i64)?;
    let visible = emitter.op("GreaterOrEqual", &[positions, one], &[])?;
    additive(emitter, visible)
}

/// The masks of a generated token: all that has a position, and within the window in the layers that have one.
fn decode_masks(emitter: &mut Emitter, config: &Decoder, keys: Value, query: Value) -> Result<Vec<Value>> {
    let one = emitter.scalar(1i64)?;
    let visible = emitter.op("GreaterOrEqual", &[keys, one], &[])?;
    let full = additive(emitter, visible)?;
    let Some(size) = config.windows.iter().flatten().next() else {
        return Ok(vec![full; config.layers]);
    };
    let reach = emitter.scalar(*size as i64)?;
    let oldest = emitter.op("Sub", &[query, reach], &[])?;
    let near = emitter.op("Greater", &[keys, oldest], &[])?;
    let near = emitter.op("And", &[near, visible], &[])?;
    let windowed = additive(emitter, near)?;
    Ok(config.windows.iter().map(|window| if window.is_some() { windowed } else { full }).collect())
}

/// The masks of whole rows: prompts see all of themselves, answers what stands before them, and in the layers that have a
/// window answers see no further than it. A row for each query of each group, `[batch, 1, group * queries, keys]`.
fn training_masks(
    emitter: &mut Emitter,
    config: &Decoder,
    positions: Value,
    prompt_ends: Value,
    columns: Value,
) -> Result<Vec<Value>> {
    let keys = emitter.unsqueeze(positions, &[1])?;
    let ends = emitter.unsqueeze(prompt_ends, &[2])?;
    let read = emitter.gather(positions, columns, 1)?;
    let mut masks: Vec<(usize, Option<usize>, Value)> = Vec::new();
    let mut of_layers = Vec::with_capacity(config.layers);
    for (layer, window) in config.windows.iter().enumerate() {
        let kind = usize::from(layer + 1 == config.layers);
        let known = masks.iter().find(|(other, size, _)| *other == kind && size == window).map(|(_, _, mask)| *mask);
        let mask = match known {
            Some(mask) => mask,
            None => {
                let queries = emitter.unsqueeze([positions, read][kind], &[2])?;
                let visible = visible(emitter, *window, [queries, keys, ends])?;
                let mask = grouped(emitter, config, visible)?;
                masks.push((kind, *window, mask));
                mask
            }
        };
        of_layers.push(mask);
    }
    Ok(of_layers)
}

/// Which keys a query sees, from their positions `[batch, queries, 1]` and `[batch, 1, keys]` and the last positions of the
/// prompts `[batch, 1, 1]`.
fn visible(emitter: &mut Emitter, window: Option<usize>, [queries, keys, ends]: [Value; 3]) -> Result<Value> {
    let one = emitter.scalar(1i64)?;
    let real = emitter.op("GreaterOrEqual", &[keys, one], &[])?;
    let Some(window) = window else {
        let reach = emitter.op("Max", &[queries, ends], &[])?;
        let reached = emitter.op("LessOrEqual", &[keys, reach], &[])?;
        return emitter.op("And", &[reached, real], &[]);
    };
    let prompt_query = emitter.op("LessOrEqual", &[queries, ends], &[])?;
    let prompt_key = emitter.op("LessOrEqual", &[keys, ends], &[])?;
    let prompt = emitter.op("And", &[prompt_query, prompt_key], &[])?;
    let before = emitter.op("LessOrEqual", &[keys, queries], &[])?;
    let size = emitter.scalar(window as i64)?;
    let oldest = emitter.op("Sub", &[queries, size], &[])?;
    let near = emitter.op("Greater", &[keys, oldest], &[])?;
    let near = emitter.op("And", &[before, near], &[])?;
    let either = emitter.op("Or", &[prompt, near], &[])?;
    emitter.op("And", &[either, real], &[])
}

/// A mask `[batch, queries, keys]` for the queries of each group, which come one group after the other.
fn grouped(emitter: &mut Emitter, config: &Decoder, visible: Value) -> Result<Value> {
    let mask = lowest_where_hidden(emitter, visible)?;
    let mask = emitter.unsqueeze(mask, &[1])?;
    let groups = config.heads / config.key_value_heads;
    if groups == 1 { Ok(mask) } else { emitter.concat(&vec![mask; groups], 2) }
}

/// 0 where visible, the lowest number of the dtype elsewhere, `[batch, 1, 1, keys]`.
fn additive(emitter: &mut Emitter, visible: Value) -> Result<Value> {
    let mask = lowest_where_hidden(emitter, visible)?;
    emitter.unsqueeze(mask, &[1, 2])
}

/// 0 where visible, the lowest number of the dtype elsewhere.
fn lowest_where_hidden(emitter: &mut Emitter, visible: Value) -> Result<Value> {
    let dtype = emitter.dtype();
    let lowest = match dtype {
        DType::F16 => f32::from(half::f16::MIN),
        DType::BF16 => f32::from(half::bf16::MIN),
        _ => f32::MIN,
    };
    let open = emitter.float(0.0, dtype)?;
    let closed = emitter.float(lowest, dtype)?;
    emitter.op("Where", &[visible, open, closed], &[])
}
