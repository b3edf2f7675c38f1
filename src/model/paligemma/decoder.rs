//! The Gemma and Gemma 2 text decoder as two graphs: the whole prompt at once, then one token at a time.
//!
//! A row of the prompt is laid out as image tokens, padding, text tokens; positions count from 1 and skip the
//! padding, whose position is 0. Keys are masked by position, so padding changes nothing.

use super::config::Decoder;
use super::vision::gelu;
use super::{Parameters, finish};
use crate::error::Result;
use crate::graph::{Attribute, Builder, Dim, Graph, Type, Value};
use crate::tensor::{DType, Tensor};

/// The graph of the prompt, in which every token sees every other one.
///
/// Inputs: `image_features` `[images, image tokens, hidden]`, `image_rows` i64 `[batch]` (which image belongs to each
/// row), `input_ids` and `positions` i64 `[batch, text]`, `top_k` i64 `[1]`.
/// Outputs: `tokens` i64 and `scores` f32 `[batch, top_k]` (most probable next tokens and their log-probabilities),
/// `logits` f32 `[batch, vocabulary]`, `present_key_i` and `present_value_i` `[batch, kv heads, tokens, head size]`.
pub(super) fn prefill(config: &Decoder, image_tokens: usize, parameters: &mut Parameters) -> Result<Graph> {
    let mut builder = Builder::new("prefill");
    let dtype = parameters.dtype();
    let features = Type::new(dtype, [Dim::from("images"), image_tokens.into(), config.hidden.into()]);
    let features = builder.input("image_features", features)?;
    let rows = builder.input("image_rows", Type::new(DType::I64, [Dim::from("batch")]))?;
    let text = Type::new(DType::I64, [Dim::from("batch"), Dim::from("text")]);
    let input_ids = builder.input("input_ids", text.clone())?;
    let text_positions = builder.input("positions", text)?;
    let top_k = builder.input("top_k", Type::new(DType::I64, [Dim::from(1)]))?;

    let image = builder.gather(features, rows, 0)?;
    let text = embed(&mut builder, parameters, config, input_ids)?;
    let x = builder.concat(&[image, text], 1)?;
    let positions = with_image_positions(&mut builder, text_positions, image_tokens)?;
    let rotary = rotary(&mut builder, config, positions, dtype)?;
    let mask = prefix_mask(&mut builder, positions, dtype)?;
    let run = Run { config, past: None, rotary, masks: vec![mask; config.layers] };
    let (last, mut outputs) = layers(&mut builder, parameters, &run, x)?;
    head(&mut builder, parameters, config, last, top_k, &mut outputs)?;
    finish(builder, &outputs.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>())
}

/// The graph of one generated token per row.
///
/// Inputs: `rows` i64 `[batch]` (which row of the previous call each row continues: drops finished rows, reorders
/// beams), `token_ids` i64 `[batch]`, `key_positions` i64 `[batch, past + 1]` with the new token last, `top_k` i64 `[1]`,
/// `past_key_i`, `past_value_i`. Outputs as in [`prefill`].
pub(super) fn decode(config: &Decoder, parameters: &mut Parameters) -> Result<Graph> {
    let mut builder = Builder::new("decode");
    let dtype = parameters.dtype();
    let rows = builder.input("rows", Type::new(DType::I64, [Dim::from("batch")]))?;
    let tokens = builder.input("token_ids", Type::new(DType::I64, [Dim::from("batch")]))?;
    let key_positions = Type::new(DType::I64, [Dim::from("batch"), Dim::from("past+1")]);
    let key_positions = builder.input("key_positions", key_positions)?;
    let top_k = builder.input("top_k", Type::new(DType::I64, [Dim::from(1)]))?;
    let cache = Type::new(
        dtype,
        [Dim::from("rows"), config.key_value_heads.into(), Dim::from("past"), config.head_size.into()],
    );
    let mut past = Vec::with_capacity(config.layers);
    for layer in 0..config.layers {
        let key = builder.input(&format!("past_key_{layer}"), cache.clone())?;
        let value = builder.input(&format!("past_value_{layer}"), cache.clone())?;
        past.push((builder.gather(key, rows, 0)?, builder.gather(value, rows, 0)?));
    }

    let tokens = builder.unsqueeze(tokens, &[1])?;
    let x = embed(&mut builder, parameters, config, tokens)?;
    let position = builder.slice(key_positions, 1, -1, i64::MAX)?;
    let rotary = rotary(&mut builder, config, position, dtype)?;
    let masks = decode_masks(&mut builder, config, key_positions, position, dtype)?;
    let run = Run { config, past: Some(past), rotary, masks };
    let (last, mut outputs) = layers(&mut builder, parameters, &run, x)?;
    head(&mut builder, parameters, config, last, top_k, &mut outputs)?;
    finish(builder, &outputs.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>())
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
    /// What is added to the scores of each layer, `[batch, 1, 1, keys]`.
    masks: Vec<Value>,
}

type Outputs = Vec<(String, Value)>;

/// All layers and the last norm; returns the hidden state of the last token `[batch, 1, hidden]` and the cache.
fn layers(builder: &mut Builder, parameters: &mut Parameters, run: &Run, x: Value) -> Result<(Value, Outputs)> {
    let mut x = x;
    let mut outputs = Vec::with_capacity(2 * run.config.layers);
    for layer in 0..run.config.layers {
        let name = format!("text.layers.{layer}");
        let (next, key, value) = builder.scoped(&name, |builder| decoder_layer(builder, parameters, run, layer, x))?;
        x = next;
        outputs.push((format!("present_key_{layer}"), key));
        outputs.push((format!("present_value_{layer}"), value));
    }
    Ok((rms_norm(builder, parameters, run.config, "text.norm", x)?, outputs))
}

fn decoder_layer(
    builder: &mut Builder,
    parameters: &mut Parameters,
    run: &Run,
    layer: usize,
    x: Value,
) -> Result<(Value, Value, Value)> {
    let config = run.config;
    let name = format!("text.layers.{layer}");
    let second = config.second_generation;
    let normed = rms_norm(builder, parameters, config, &format!("{name}.input_layernorm"), x)?;
    let (attended, key, value) = attention(builder, parameters, run, layer, normed)?;
    let attended = match second {
        true => rms_norm(builder, parameters, config, &format!("{name}.post_attention_layernorm"), attended)?,
        false => attended,
    };
    // Only the last token of the last layer is read, so the rest of it need not be computed.
    let x = if layer + 1 == config.layers { builder.slice(x, 1, -1, i64::MAX)? } else { x };
    let x = builder.add(x, attended)?;
    let before = if second { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
    let normed = rms_norm(builder, parameters, config, &format!("{name}.{before}"), x)?;
    let fed = feed_forward(builder, parameters, config, &format!("{name}.mlp"), normed)?;
    let fed = match second {
        true => rms_norm(builder, parameters, config, &format!("{name}.post_feedforward_layernorm"), fed)?,
        false => fed,
    };
    Ok((builder.add(x, fed)?, key, value))
}

fn feed_forward(
    builder: &mut Builder,
    parameters: &mut Parameters,
    config: &Decoder,
    name: &str,
    x: Value,
) -> Result<Value> {
    let (width, inner) = (config.hidden, config.intermediate);
    let gate = parameters.linear(builder, x, &format!("{name}.gate_proj"), [inner, width], false)?;
    let gate = gelu(builder, gate, config.gelu)?;
    let up = parameters.linear(builder, x, &format!("{name}.up_proj"), [inner, width], false)?;
    let product = builder.mul(gate, up)?;
    parameters.linear(builder, product, &format!("{name}.down_proj"), [width, inner], false)
}

/// Grouped-query attention; returns its result and the keys and values of all tokens so far.
fn attention(
    builder: &mut Builder,
    parameters: &mut Parameters,
    run: &Run,
    layer: usize,
    x: Value,
) -> Result<(Value, Value, Value)> {
    let config = run.config;
    let name = format!("text.layers.{layer}.self_attn");
    let (mut key, mut value) = new_keys(builder, parameters, run, &name, x)?;
    if let Some(past) = &run.past {
        key = builder.concat(&[past[layer].0, key], 2)?;
        value = builder.concat(&[past[layer].1, value], 2)?;
    }
    let query = queries(builder, parameters, run, layer, x)?;
    let transposed = builder.transpose(key, &[0, 1, 3, 2])?;
    let scores = builder.matmul(query, transposed)?;
    let scores = builder.scale(scores, config.scale)?;
    let scores = soft_cap(builder, scores, config.attention_cap)?;
    let scores = builder.add(scores, run.masks[layer])?;
    let scores = builder.cast(scores, DType::F32)?;
    let weights = builder.softmax(scores)?;
    let weights = builder.cast(weights, parameters.dtype())?;
    let context = builder.matmul(weights, value)?;
    let (groups, head_size) = (config.heads / config.key_value_heads, config.head_size as i64);
    let context = builder.reshape(context, &[0, 0, groups as i64, -1, head_size])?;
    let context = builder.transpose(context, &[0, 3, 1, 2, 4])?;
    let width = config.heads * config.head_size;
    let context = builder.reshape(context, &[0, 0, width as i64])?;
    let output = parameters.linear(builder, context, &format!("{name}.o_proj"), [config.hidden, width], false)?;
    Ok((output, key, value))
}

/// Keys and values of the tokens in `x`, `[batch, kv heads, tokens, head size]`.
fn new_keys(
    builder: &mut Builder,
    parameters: &mut Parameters,
    run: &Run,
    name: &str,
    x: Value,
) -> Result<(Value, Value)> {
    let config = run.config;
    let size = [config.key_value_heads * config.head_size, config.hidden];
    let split = [0, 0, config.key_value_heads as i64, config.head_size as i64];
    let mut projected = |builder: &mut Builder, part: &str| {
        let value = parameters.linear(builder, x, &format!("{name}.{part}_proj"), size, false)?;
        let value = builder.reshape(value, &split)?;
        builder.transpose(value, &[0, 2, 1, 3])
    };
    let key = projected(builder, "k")?;
    let value = projected(builder, "v")?;
    Ok((rotate(builder, key, run.rotary)?, value))
}

/// Queries grouped by the key-value head they share, `[batch, kv heads, group * tokens, head size]`.
fn queries(builder: &mut Builder, parameters: &mut Parameters, run: &Run, layer: usize, x: Value) -> Result<Value> {
    let config = run.config;
    let (heads, head_size) = (config.heads as i64, config.head_size as i64);
    let kv_heads = config.key_value_heads as i64;
    let (x, rotary) = if layer + 1 == config.layers { last_only(builder, run, x)? } else { (x, run.rotary) };
    let name = format!("text.layers.{layer}.self_attn.q_proj");
    let query = parameters.linear(builder, x, &name, [config.heads * config.head_size, config.hidden], false)?;
    let query = builder.reshape(query, &[0, 0, heads, head_size])?;
    let query = builder.transpose(query, &[0, 2, 1, 3])?;
    let query = rotate(builder, query, rotary)?;
    builder.reshape(query, &[0, kv_heads, -1, head_size])
}

fn last_only(builder: &mut Builder, run: &Run, x: Value) -> Result<(Value, Rotary)> {
    let mut last = |value| builder.slice(value, 1, -1, i64::MAX);
    let rotary = Rotary { cosines: last(run.rotary.cosines)?, sines: last(run.rotary.sines)? };
    Ok((last(x)?, rotary))
}

/// Token embeddings scaled by the square root of their width.
fn embed(builder: &mut Builder, parameters: &mut Parameters, config: &Decoder, ids: Value) -> Result<Value> {
    let table = parameters.get(builder, "text.embed_tokens.weight", &[config.vocabulary, config.hidden])?;
    let rows = builder.gather(table, ids, 0)?;
    builder.scale(rows, (config.hidden as f64).sqrt() as f32)
}

/// The next token's logits, their `top_k` and its log-probabilities, all in f32.
fn head(
    builder: &mut Builder,
    parameters: &mut Parameters,
    config: &Decoder,
    last: Value,
    top_k: Value,
    outputs: &mut Outputs,
) -> Result<()> {
    let last = builder.reshape(last, &[0, config.hidden as i64])?;
    let logits = parameters.linear(builder, last, "head.weight", [config.vocabulary, config.hidden], false)?;
    let logits = soft_cap(builder, logits, config.logit_cap)?;
    let logits = builder.cast(logits, DType::F32)?;
    let best = builder.node("TopK", &[Some(logits), Some(top_k)], &[("axis", Attribute::Int(-1))])?;
    let total = log_sum_exp(builder, logits)?;
    let scores = builder.op("Sub", &[best[0], total], &[])?;
    outputs.push(("tokens".to_owned(), best[1]));
    outputs.push(("scores".to_owned(), scores));
    outputs.push(("logits".to_owned(), logits));
    Ok(())
}

/// The logarithm of the sum of exponentials over the last axis. Written out, it runs on vectorised kernels, which
/// `ReduceLogSumExp` does not have on the CPU.
fn log_sum_exp(builder: &mut Builder, x: Value) -> Result<Value> {
    let axes = builder.ints(&[-1])?;
    let highest = builder.op("ReduceMax", &[x, axes], &[])?;
    let shifted = builder.op("Sub", &[x, highest], &[])?;
    let powers = builder.op("Exp", &[shifted], &[])?;
    let sum = builder.op("ReduceSum", &[powers, axes], &[])?;
    let logarithm = builder.op("Log", &[sum], &[])?;
    builder.add(logarithm, highest)
}

/// RMS norm with Gemma's `1 + weight`, computed in f32.
fn rms_norm(
    builder: &mut Builder,
    parameters: &mut Parameters,
    config: &Decoder,
    name: &str,
    x: Value,
) -> Result<Value> {
    let weight = parameters.get(builder, &format!("{name}.weight"), &[config.hidden])?;
    let weight = builder.cast(weight, DType::F32)?;
    let one = builder.float(1.0, DType::F32)?;
    let scale = builder.add(weight, one)?;
    let x = builder.cast(x, DType::F32)?;
    let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(config.epsilon))];
    let normed = builder.op("RMSNormalization", &[x, scale], &attributes)?;
    builder.cast(normed, parameters.dtype())
}

/// `cap * tanh(x / cap)`, which bounds scores smoothly.
fn soft_cap(builder: &mut Builder, x: Value, cap: Option<f32>) -> Result<Value> {
    let Some(cap) = cap else { return Ok(x) };
    let dtype = builder.ty(x)?.dtype;
    let divisor = builder.float(cap, dtype)?;
    let x = builder.op("Div", &[x, divisor], &[])?;
    let x = builder.op("Tanh", &[x], &[])?;
    builder.scale(x, cap)
}

fn rotary(builder: &mut Builder, config: &Decoder, positions: Value, dtype: DType) -> Result<Rotary> {
    let half = config.head_size / 2;
    let frequency = |index: usize| 1.0 / (config.rope_theta as f32).powf((2 * index) as f32 / config.head_size as f32);
    let frequencies = builder.constant(Tensor::vector((0..half).map(frequency).collect::<Vec<f32>>()))?;
    let positions = builder.cast(positions, DType::F32)?;
    let positions = builder.unsqueeze(positions, &[2])?;
    let angles = builder.mul(positions, frequencies)?;
    let cosines = builder.op("Cos", &[angles], &[])?;
    let sines = builder.op("Sin", &[angles], &[])?;
    Ok(Rotary { cosines: builder.cast(cosines, dtype)?, sines: builder.cast(sines, dtype)? })
}

fn rotate(builder: &mut Builder, x: Value, rotary: Rotary) -> Result<Value> {
    builder.op("RotaryEmbedding", &[x, rotary.cosines, rotary.sines], &[("interleaved", Attribute::Int(0))])
}

/// Positions of a whole row: image tokens count from 1, then come those of the text.
fn with_image_positions(builder: &mut Builder, text: Value, image_tokens: usize) -> Result<Value> {
    let image: Vec<i64> = (1..=image_tokens as i64).collect();
    let image = builder.constant(Tensor::new([1, image_tokens], image)?)?;
    // Adding zeros of the batch's height repeats the row without naming the batch size.
    let first = builder.slice(text, 1, 0, 1)?;
    let zero = builder.scalar(0i64)?;
    let zeros = builder.mul(first, zero)?;
    let image = builder.add(zeros, image)?;
    builder.concat(&[image, text], 1)
}

fn prefix_mask(builder: &mut Builder, positions: Value, dtype: DType) -> Result<Value> {
    let one = builder.scalar(1i64)?;
    let visible = builder.op("GreaterOrEqual", &[positions, one], &[])?;
    additive(builder, visible, dtype)
}

/// The masks of a generated token: all that has a position, and within the window of layers that have one.
fn decode_masks(
    builder: &mut Builder,
    config: &Decoder,
    keys: Value,
    query: Value,
    dtype: DType,
) -> Result<Vec<Value>> {
    let one = builder.scalar(1i64)?;
    let visible = builder.op("GreaterOrEqual", &[keys, one], &[])?;
    let full = additive(builder, visible, dtype)?;
    let mut known: Vec<(usize, Value)> = Vec::new();
    let mut windows = Vec::with_capacity(config.layers);
    for window in &config.windows {
        windows.push(match window {
            None => full,
            Some(size) => match known.iter().find(|(other, _)| other == size) {
                Some((_, mask)) => *mask,
                None => {
                    let reach = builder.scalar(*size as i64)?;
                    let oldest = builder.op("Sub", &[query, reach], &[])?;
                    let near = builder.op("Greater", &[keys, oldest], &[])?;
                    let near = builder.op("And", &[near, visible], &[])?;
                    let mask = additive(builder, near, dtype)?;
                    known.push((*size, mask));
                    mask
                }
            },
        });
    }
    Ok(windows)
}

/// 0 where visible, the lowest number of the dtype elsewhere, `[batch, 1, 1, keys]`.
fn additive(builder: &mut Builder, visible: Value, dtype: DType) -> Result<Value> {
    let lowest = match dtype {
        DType::F16 => f32::from(half::f16::MIN),
        DType::BF16 => f32::from(half::bf16::MIN),
        _ => f32::MIN,
    };
    let open = builder.float(0.0, dtype)?;
    let closed = builder.float(lowest, dtype)?;
    let mask = builder.op("Where", &[visible, open, closed], &[])?;
    builder.unsqueeze(mask, &[1, 2])
}
