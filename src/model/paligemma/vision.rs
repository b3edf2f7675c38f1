//! The SigLIP image tower and the projector: pixels to the embeddings that the text decoder reads.

use super::config::{Gelu, Vision};
use super::{Parameters, finish};
use crate::error::Result;
use crate::graph::{Attribute, Builder, Dim, Graph, Type, Value};
use crate::tensor::DType;

/// Input `pixel_values` f32 `[images, channels, size, size]`; output `image_features` `[images, patches, hidden]` in
/// the compute dtype, projected to the width `hidden` of the text decoder.
pub(super) fn graph(config: &Vision, hidden: usize, parameters: &mut Parameters) -> Result<Graph> {
    let mut builder = Builder::new("vision");
    let size = Dim::Fixed(config.image_size);
    let pixels = Type::new(DType::F32, [Dim::from("images"), config.num_channels.into(), size.clone(), size]);
    let pixels = builder.input("pixel_values", pixels)?;
    let pixels = builder.cast(pixels, parameters.dtype())?;
    let mut x = embed(&mut builder, parameters, config, pixels)?;
    for layer in 0..config.num_hidden_layers {
        let name = format!("vision.encoder.layers.{layer}");
        x = builder.scoped(&name, |builder| encoder_layer(builder, parameters, config, &name, x))?;
    }
    let x = layer_norm(&mut builder, parameters, config, "vision.post_layernorm", x)?;
    let features = parameters.linear(&mut builder, x, "projector.linear", [hidden, config.hidden_size], true)?;
    let patches = (config.image_size / config.patch_size).pow(2);
    let features = builder.reshape(features, &[-1, patches as i64, hidden as i64])?;
    finish(builder, &[("image_features", features)])
}

/// Patches times the convolution's weight, as rows of `[images * patches, width]`: patches do not overlap, so the
/// convolution is one matrix product, which is faster.
fn embed(builder: &mut Builder, parameters: &mut Parameters, config: &Vision, pixels: Value) -> Result<Value> {
    let (width, patch, channels) = (config.hidden_size, config.patch_size, config.num_channels);
    let grid = config.image_size / patch;
    let (side, edge, size) = (grid as i64, patch as i64, (channels * patch * patch) as i64);
    let cut = builder.reshape(pixels, &[0, 0, side, edge, side, edge])?;
    let cut = builder.transpose(cut, &[0, 2, 4, 1, 3, 5])?;
    let cut = builder.reshape(cut, &[-1, size])?;
    let name = "vision.embeddings.patch_embedding";
    let weight = parameters.get(builder, &format!("{name}.weight"), &[width, channels, patch, patch])?;
    let weight = builder.reshape(weight, &[width as i64, size])?;
    let weight = builder.transpose(weight, &[1, 0])?;
    let embedded = builder.matmul(cut, weight)?;
    let bias = parameters.get(builder, &format!("{name}.bias"), &[width])?;
    let embedded = builder.add(embedded, bias)?;
    let embedded = builder.reshape(embedded, &[-1, side * side, width as i64])?;
    let positions = parameters.get(builder, "vision.embeddings.position_embedding.weight", &[grid * grid, width])?;
    let embedded = builder.add(embedded, positions)?;
    builder.reshape(embedded, &[-1, width as i64])
}

fn encoder_layer(
    builder: &mut Builder,
    parameters: &mut Parameters,
    config: &Vision,
    name: &str,
    x: Value,
) -> Result<Value> {
    let normed = layer_norm(builder, parameters, config, &format!("{name}.layer_norm1"), x)?;
    let attended = attention(builder, parameters, config, &format!("{name}.self_attn"), normed)?;
    let x = builder.add(x, attended)?;
    let normed = layer_norm(builder, parameters, config, &format!("{name}.layer_norm2"), x)?;
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let wide = parameters.linear(builder, normed, &format!("{name}.mlp.fc1"), [inner, width], true)?;
    let wide = gelu(builder, wide, Gelu::parse(&config.hidden_act)?)?;
    let narrow = parameters.linear(builder, wide, &format!("{name}.mlp.fc2"), [width, inner], true)?;
    builder.add(x, narrow)
}

fn attention(
    builder: &mut Builder,
    parameters: &mut Parameters,
    config: &Vision,
    name: &str,
    x: Value,
) -> Result<Value> {
    let (width, heads) = (config.hidden_size, config.num_attention_heads);
    let head_size = width / heads;
    let patches = (config.image_size / config.patch_size).pow(2);
    let split = [-1, patches as i64, heads as i64, head_size as i64];
    let mut projected = |builder: &mut Builder, part: &str, order: &[i64]| {
        let value = parameters.linear(builder, x, &format!("{name}.{part}_proj"), [width, width], true)?;
        let value = builder.reshape(value, &split)?;
        builder.transpose(value, order)
    };
    let query = projected(builder, "q", &[0, 2, 1, 3])?;
    let key = projected(builder, "k", &[0, 2, 3, 1])?;
    let value = projected(builder, "v", &[0, 2, 1, 3])?;
    let scores = builder.matmul(query, key)?;
    let scores = builder.scale(scores, (head_size as f64).powf(-0.5) as f32)?;
    let dtype = parameters.dtype();
    let scores = builder.cast(scores, DType::F32)?;
    let weights = builder.softmax(scores)?;
    let weights = builder.cast(weights, dtype)?;
    let context = builder.matmul(weights, value)?;
    let context = builder.transpose(context, &[0, 2, 1, 3])?;
    let context = builder.reshape(context, &[-1, width as i64])?;
    parameters.linear(builder, context, &format!("{name}.out_proj"), [width, width], true)
}

fn layer_norm(
    builder: &mut Builder,
    parameters: &mut Parameters,
    config: &Vision,
    name: &str,
    x: Value,
) -> Result<Value> {
    let weight = parameters.get(builder, &format!("{name}.weight"), &[config.hidden_size])?;
    let bias = parameters.get(builder, &format!("{name}.bias"), &[config.hidden_size])?;
    let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(config.layer_norm_eps))];
    builder.op("LayerNormalization", &[x, weight, bias], &attributes)
}

/// The activation, in the form the checkpoint names.
pub(super) fn gelu(builder: &mut Builder, x: Value, form: Gelu) -> Result<Value> {
    let approximate = match form {
        Gelu::Tanh => "tanh",
        Gelu::Erf => "none",
    };
    builder.op("Gelu", &[x], &[("approximate", Attribute::Text(approximate.to_owned()))])
}
