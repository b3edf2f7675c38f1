//! ViT: a class token and patches through layers that norm what they read, and a norm behind the last one.
//!
//! Source: `ViTModel` of transformers 5.24.

use super::transformer::{Emitter, Settings, Sizes, Spelling};
use super::{EncoderCheckpoint, EncoderFamily, EncoderGraph, Layer, Modality, Reads};
use crate::error::{Error, Result};
use crate::graph::{Dim, Type, Value};
use crate::model::training::Trained;
use crate::model::weights::Placement;
use crate::model::{paligemma, vision};
use crate::tensor::DType;

/// The row of [`super::ENCODERS`].
pub(super) const FAMILY: EncoderFamily = EncoderFamily {
    name: "vit",
    about: "ViT: mean over the class token and the patches",
    model_types: &["vit"],
    modality: Modality::Image,
    graph,
};

/// The names of transformers 4, which are those on the Hub, and what transformers 5 calls the modules.
const SPELLING: Spelling = Spelling {
    prefix: "vit.",
    other: &[
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ],
};

/// Larger sides are taken for a damaged file.
const LARGEST_IMAGE: usize = 1 << 14;

/// `ViTConfig`.
struct Config {
    sizes: Sizes,
    image_size: usize,
    patch_size: usize,
    /// Whether queries, keys and values have biases.
    biases: bool,
}

impl Config {
    fn read(source: &EncoderCheckpoint) -> Result<Self> {
        let settings = Settings::of(source);
        let (image_size, patch_size) = (settings.number("image_size", 224)?, settings.number("patch_size", 16)?);
        if image_size > LARGEST_IMAGE {
            let message = format!("`image_size` {image_size} is larger than {LARGEST_IMAGE}");
            return Err(source.in_config(Error::input(message)));
        }
        if !image_size.is_multiple_of(patch_size) {
            let message =
                format!("`image_size` {image_size} does not divide into patches of `patch_size` {patch_size}");
            return Err(source.in_config(Error::input(message)));
        }
        settings.require("num_channels", &3.into())?;
        Ok(Self { sizes: Sizes::read(&settings)?, image_size, patch_size, biases: settings.flag("qkv_bias", true)? })
    }

    fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

fn graph(source: &EncoderCheckpoint, placement: &mut Placement, _: &Trained, layer: Layer) -> Result<EncoderGraph> {
    let config = Config::read(source)?;
    let (depth, normed) = (layer.depth(config.sizes.layers)?, layer == Layer::Last);
    let mut emitter = Emitter::new(placement, &config.sizes, &SPELLING);
    let mut x = embed(&mut emitter, &config)?;
    for layer in 0..depth {
        let name = format!("encoder.layer.{layer}");
        x = emitter.scoped(&name, |emitter| encoder_layer(emitter, &config, &name, x))?;
    }
    let x = if normed { emitter.layer_norm(x, "layernorm")? } else { x };
    let features = emitter.mean(x, 1)?;
    Ok(EncoderGraph {
        graph: emitter.finish(features)?,
        dimension: config.sizes.width,
        reads: Reads::Pixels { size: config.image_size, processor: &vision::VIT },
    })
}

/// The class token and the embedded patches with their positions, `[images, 1 + patches, width]`.
fn embed(emitter: &mut Emitter, config: &Config) -> Result<Value> {
    let (width, grid, patch) = (config.sizes.width, config.grid(), config.patch_size);
    let size = Dim::Fixed(config.image_size);
    let pixels =
        emitter.input("pixel_values", Type::new(DType::F32, [Dim::from("images"), 3.into(), size.clone(), size]))?;
    let name = "embeddings.patch_embeddings.projection";
    let weight = emitter.parameter(&format!("{name}.weight"), &[width, 3, patch, patch])?;
    let bias = emitter.parameter(&format!("{name}.bias"), &[width])?;
    let patches = paligemma::embed_patches(emitter, pixels, [grid, patch, 3, width], [weight, bias])?;
    let patches = emitter.reshape(patches, &[-1, (grid * grid) as i64, width as i64])?;
    let class = emitter.parameter("embeddings.cls_token", &[1, 1, width])?;
    // Adding zeros of the batch's height repeats the token without naming the batch size.
    let first = emitter.slice(patches, 1, 0, 1)?;
    let zeros = emitter.scale(first, 0.0)?;
    let class = emitter.add(zeros, class)?;
    let tokens = emitter.concat(&[class, patches], 1)?;
    let positions = emitter.parameter("embeddings.position_embeddings", &[1, grid * grid + 1, width])?;
    emitter.add(tokens, positions)
}

fn encoder_layer(emitter: &mut Emitter, config: &Config, name: &str, x: Value) -> Result<Value> {
    let normed = emitter.layer_norm(x, &format!("{name}.layernorm_before"))?;
    let attended = emitter.attention(normed, &format!("{name}.attention"), ("attention", config.biases), None)?;
    let x = emitter.add(x, attended)?;
    let normed = emitter.layer_norm(x, &format!("{name}.layernorm_after"))?;
    let fed = emitter.feed_forward(normed, name)?;
    emitter.add(x, fed)
}
