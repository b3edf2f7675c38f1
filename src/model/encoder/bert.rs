//! BERT: tokens through layers that norm what they give.
//!
//! Source: `BertModel` of transformers 5.24.

use serde_json::json;

use super::transformer::{Emitter, Settings, Sizes, Spelling};
use super::{EncoderCheckpoint, EncoderFamily, EncoderGraph, Layer, Modality, Reads};
use crate::error::Result;
use crate::graph::{Dim, Type, Value};
use crate::model::training::Trained;
use crate::model::weights::Placement;
use crate::tensor::DType;

/// The row of [`super::ENCODERS`].
pub(super) const FAMILY: EncoderFamily = EncoderFamily {
    name: "bert",
    about: "BERT: mean over all tokens of a text, [CLS] and [SEP] included",
    model_types: &["bert"],
    modality: Modality::Text,
    graph,
};

/// The names of transformers, and those that TensorFlow gave to norms.
const SPELLING: Spelling = Spelling {
    prefix: "bert.",
    other: &[("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")],
};

/// `BertConfig`.
struct Config {
    sizes: Sizes,
    vocabulary: usize,
    positions: usize,
    /// Kinds of text, of which only the first is used.
    types: usize,
}

impl Config {
    fn read(source: &EncoderCheckpoint) -> Result<Self> {
        let settings = Settings::of(source);
        settings.require("position_embedding_type", &json!("absolute"))?;
        settings.require("is_decoder", &json!(false))?;
        Ok(Self {
            sizes: Sizes::read(&settings)?,
            vocabulary: settings.number("vocab_size", 30522)?,
            positions: settings.number("max_position_embeddings", 512)?,
            types: settings.number("type_vocab_size", 2)?,
        })
    }
}

fn graph(source: &EncoderCheckpoint, placement: &mut Placement, _: &Trained, layer: Layer) -> Result<EncoderGraph> {
    let config = Config::read(source)?;
    let depth = layer.depth(config.sizes.layers)?;
    let mut emitter = Emitter::new(placement, &config.sizes, &SPELLING);
    let tokens = Type::new(DType::I64, [Dim::from("texts"), Dim::from("tokens")]);
    let mut x = embed(&mut emitter, &config, &tokens)?;
    let real = emitter.input("attention_mask", tokens)?;
    let mask = hiding_mask(&mut emitter, real)?;
    for layer in 0..depth {
        let name = format!("encoder.layer.{layer}");
        x = emitter.scoped(&name, |emitter| encoder_layer(emitter, &name, x, mask))?;
    }
    let features = mean_of_real(&mut emitter, config.sizes.width, x, real)?;
    Ok(EncoderGraph {
        graph: emitter.finish(features)?,
        dimension: config.sizes.width,
        reads: Reads::Tokens { vocabulary: config.vocabulary, positions: config.positions },
    })
}

/// The embedded tokens, `[texts, tokens, width]`.
fn embed(emitter: &mut Emitter, config: &Config, tokens: &Type) -> Result<Value> {
    let width = config.sizes.width;
    let ids = emitter.input("input_ids", tokens.clone())?;
    let positions = emitter.input("position_ids", tokens.clone())?;
    let rows = |emitter: &mut Emitter, table: &str, size: usize, ids: Value| {
        let table = emitter.parameter(&format!("embeddings.{table}_embeddings.weight"), &[size, width])?;
        emitter.gather(table, ids, 0)
    };
    let words = rows(emitter, "word", config.vocabulary, ids)?;
    let first = emitter.ints(&[0])?;
    let kind = rows(emitter, "token_type", config.types, first)?;
    let places = rows(emitter, "position", config.positions, positions)?;
    let x = emitter.add(words, kind)?;
    let x = emitter.add(x, places)?;
    emitter.layer_norm(x, "embeddings.LayerNorm")
}

fn encoder_layer(emitter: &mut Emitter, name: &str, x: Value, mask: Value) -> Result<Value> {
    let attended = emitter.attention(x, &format!("{name}.attention"), ("self", true), Some(mask))?;
    let x = emitter.add(x, attended)?;
    let x = emitter.layer_norm(x, &format!("{name}.attention.output.LayerNorm"))?;
    let fed = emitter.feed_forward(x, name)?;
    let x = emitter.add(x, fed)?;
    emitter.layer_norm(x, &format!("{name}.output.LayerNorm"))
}

/// What is added to attention scores: the lowest number where a key is padding, else 0; f32 `[texts, 1, 1, tokens]`.
fn hiding_mask(emitter: &mut Emitter, real: Value) -> Result<Value> {
    let visible = emitter.cast(real, DType::Bool)?;
    let (open, closed) = (emitter.scalar(0.0f32)?, emitter.scalar(f32::MIN)?);
    let mask = emitter.op("Where", &[visible, open, closed], &[])?;
    emitter.unsqueeze(mask, &[1, 2])
}

/// The mean over the tokens that are no padding, `[texts, width]`.
fn mean_of_real(emitter: &mut Emitter, width: usize, x: Value, real: Value) -> Result<Value> {
    let real = emitter.cast(real, DType::F32)?;
    let axes = emitter.ints(&[-1])?;
    let count = emitter.op("ReduceSum", &[real, axes], &[])?;
    let shares = emitter.op("Div", &[real, count], &[])?;
    let shares = emitter.unsqueeze(shares, &[1])?;
    let mean = emitter.matmul(shares, x)?;
    emitter.reshape(mean, &[0, width as i64])
}
