//! The SigLIP image tower and the projector: pixels to the embeddings that the text decoder reads, or to means of the
//! tower's hidden states.

use super::Emitter;
use super::config::{Gelu, Vision};
use crate::error::Result;
use crate::graph::{Attribute, Builder, Dim, Graph, Type, Value};
use crate::model::features::Layer;
use crate::tensor::DType;

/// Input `pixel_values` f32 `[images, channels, size, size]`; output `image_features` `[images, patches, hidden]` in
/// the compute dtype, projected to the width `hidden` of the text decoder.
pub(super) fn graph(config: &Vision, hidden: usize, mut emitter: Emitter) -> Result<Graph> {
    let features = features(&mut emitter, config, hidden)?;
    emitter.finish(&[("image_features".to_owned(), features)])
}

/// Input as in [`graph`]; output `features` f32 `[images, width]`: the mean over patches of a hidden state of the tower.
pub(super) fn mean(config: &Vision, layer: Layer, mut emitter: Emitter) -> Result<Graph> {
    let (depth, normed) = (layer.depth(config.num_hidden_layers)?, layer == Layer::Last);
    let x = layers(&mut emitter, config, depth)?;
    let x = if normed { layer_norm(&mut emitter, config, "vision.post_layernorm", x)? } else { x };
    let patches = (config.image_size / config.patch_size).pow(2);
    let x = emitter.reshape(x, &[-1, patches as i64, config.hidden_size as i64])?;
    let mean = emitter.mean(x, 1)?;
    emitter.finish(&[("features".to_owned(), mean)])
}

/// Declares the input `pixel_values` and returns the features of [`graph`].
pub(super) fn features(emitter: &mut Emitter, config: &Vision, hidden: usize) -> Result<Value> {
    let x = layers(emitter, config, config.num_hidden_layers)?;
    let x = layer_norm(emitter, config, "vision.post_layernorm", x)?;
    let features = emitter.linear(x, "projector.linear", [hidden, config.hidden_size], true)?;
    let patches = (config.image_size / config.patch_size).pow(2);
    emitter.reshape(features, &[-1, patches as i64, hidden as i64])
}

/// Declares the input `pixel_values` and returns what leaves the first `depth` layers, `[images * patches, width]`.
fn layers(emitter: &mut Emitter, config: &Vision, depth: usize) -> Result<Value> {
    let size = Dim::Fixed(config.image_size);
    let pixels = Type::new(DType::F32, [Dim::from("images"), config.num_channels.into(), size.clone(), size]);
    let pixels = emitter.input("pixel_values", pixels)?;
    let pixels = emitter.compute(pixels)?;
    let mut x = embed(emitter, config, pixels)?;
    for layer in 0..depth {
        let name = scope(layer);
        x = emitter.scoped(&name, |emitter| encoder_layer(emitter, config, &name, x))?;
    }
    Ok(x)
}

/// Name of a layer, and scope of its nodes.
pub(super) fn scope(layer: usize) -> String {
    format!("vision.encoder.layers.{layer}")
}

/// Embedded patches with their positions, as rows of `[images * patches, width]`.
fn embed(emitter: &mut Emitter, config: &Vision, pixels: Value) -> Result<Value> {
    let (width, patch, channels) = (config.hidden_size, config.patch_size, config.num_channels);
    let grid = config.image_size / patch;
    let name = "vision.embeddings.patch_embedding";
    let weight = emitter.get(&format!("{name}.weight"), &[width, channels, patch, patch])?;
    let bias = emitter.get(&format!("{name}.bias"), &[width])?;
    let embedded = embed_patches(emitter, pixels, [grid, patch, channels, width], [weight, bias])?;
    let embedded = emitter.reshape(embedded, &[-1, (grid * grid) as i64, width as i64])?;
    let positions = emitter.get("vision.embeddings.position_embedding.weight", &[grid * grid, width])?;
    let embedded = emitter.add(embedded, positions)?;
    emitter.reshape(embedded, &[-1, width as i64])
}

/// A convolution over patches, as rows of `[images * patches, width]`: they do not overlap, so it is one matrix product,
/// which is faster.
pub(in crate::model) fn embed_patches(
    builder: &mut Builder,
    pixels: Value,
    [grid, patch, channels, width]: [usize; 4],
    [weight, bias]: [Value; 2],
) -> Result<Value> {
    let (side, edge, size) = (grid as i64, patch as i64, (channels * patch * patch) as i64);
    let cut = builder.reshape(pixels, &[0, 0, side, edge, side, edge])?;
    let cut = builder.transpose(cut, &[0, 2, 4, 1, 3, 5])?;
    let cut = builder.reshape(cut, &[-1, size])?;
    let weight = builder.reshape(weight, &[width as i64, size])?;
    let weight = builder.transpose(weight, &[1, 0])?;
    let embedded = builder.matmul(cut, weight)?;
    builder.add(embedded, bias)
}

fn encoder_layer(emitter: &mut Emitter, config: &Vision, name: &str, x: Value) -> Result<Value> {
    let normed = layer_norm(emitter, config, &format!("{name}.layer_norm1"), x)?;
    let attended = attention(emitter, config, &format!("{name}.self_attn"), normed)?;
    let x = emitter.add(x, attended)?;
    let normed = layer_norm(emitter, config, &format!("{name}.layer_norm2"), x)?;
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let wide = emitter.linear(normed, &format!("{name}.mlp.fc1"), [inner, width], true)?;
    let wide = gelu(emitter, wide, Gelu::parse(&config.hidden_act)?)?;
    let narrow = emitter.linear(wide, &format!("{name}.mlp.fc2"), [width, inner], true)?;
    emitter.add(x, narrow)
}

fn attention(emitter: &mut Emitter, config: &Vision, name: &str, x: Value) -> Result<Value> {
    let (width, heads) = (config.hidden_size, config.num_attention_heads);
    let head_size = width / heads;
    let patches = (config.image_size / config.patch_size).pow(2);
    let split = [-1, patches as i64, heads as i64, head_size as i64];
    let projected = |emitter: &mut Emitter, part: &str, order: &[i64]| {
        let value = emitter.linear(x, &format!("{name}.{part}_proj"), [width, width], true)?;
        let value = emitter.reshape(value, &split)?;
        emitter.transpose(value, order)
    };
    let query = projected(emitter, "q", &[0, 2, 1, 3])?;
    let key = projected(emitter, "k", &[0, 2, 3, 1])?;
    let value = projected(emitter, "v", &[0, 2, 1, 3])?;
    let scores = emitter.matmul(query, key)?;
    let scores = emitter.scale(scores, (head_size as f64).powf(-0.5) as f32)?;
    let scores = emitter.cast(scores, DType::F32)?;
    let weights = emitter.softmax(scores)?;
    let weights = emitter.compute(weights)?;
    let context = emitter.matmul(weights, value)?;
    let context = emitter.transpose(context, &[0, 2, 1, 3])?;
    let context = emitter.reshape(context, &[-1, width as i64])?;
    emitter.linear(context, &format!("{name}.out_proj"), [width, width], true)
}

fn layer_norm(emitter: &mut Emitter, config: &Vision, name: &str, x: Value) -> Result<Value> {
    let weight = emitter.get(&format!("{name}.weight"), &[config.hidden_size])?;
    let bias = emitter.get(&format!("{name}.bias"), &[config.hidden_size])?;
    let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(config.layer_norm_eps))];
    emitter.op("LayerNormalization", &[x, weight, bias], &attributes)
}

/// The activation, in the form the checkpoint names.
pub(super) fn gelu(emitter: &mut Emitter, x: Value, form: Gelu) -> Result<Value> {
    let approximate = match form {
        Gelu::Tanh => "tanh",
        Gelu::Erf => "none",
    };
    emitter.op("Gelu", &[x], &[("approximate", Attribute::Text(approximate.to_owned()))])
}
