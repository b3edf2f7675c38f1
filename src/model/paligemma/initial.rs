//! The tensors of a new PaliGemma, drawn as `PaliGemmaForConditionalGeneration(config)` of transformers 5.24 draws them,
//! under the names that `save_pretrained` writes.
//!
//! Each sub-model initialises its own modules (`_init_weights` of the Siglip, Gemma and Gemma2 classes); the projector
//! and an output matrix of its own follow the general rule of `PreTrainedModel`.

use serde::Deserialize;

use super::config::{Decoder, Vision};
use super::parts_of;
use crate::error::{Error, Result};
use crate::model::initialisation::{Distribution, InitialTensor};

/// The keys that only initialisation reads.
#[derive(Deserialize)]
struct Settings {
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    text_config: TextSettings,
    vision_config: VisionSettings,
}

#[derive(Deserialize)]
struct TextSettings {
    initializer_range: Option<f64>,
    #[serde(default = "padding_row")]
    pad_token_id: Option<usize>,
}

#[derive(Deserialize)]
struct VisionSettings {
    vision_use_head: Option<bool>,
}

fn yes() -> bool {
    true
}

/// The default of Gemma's configuration classes; `null` means none.
fn padding_row() -> Option<usize> {
    Some(0)
}

const DEFAULT_RANGE: f64 = 0.02;
const ZERO: Distribution = Distribution::Constant(0.0);
const ONE: Distribution = Distribution::Constant(1.0);
/// Of the biases in the vision tower's feed-forward layers.
const BIAS: Distribution = Distribution::Normal { spread: 1e-6 };
/// Standard deviation of a standard normal variable that is cut off at 2.
const CUT_SPREAD: f64 = 0.879_625_661_034_239_8;
/// Where `trunc_normal_` cuts: absolute values, not standard deviations.
const CUT: f64 = 2.0;

/// Collects tensors.
#[derive(Default)]
struct Tensors(Vec<InitialTensor>);

impl Tensors {
    fn add(&mut self, name: String, shape: &[usize], distribution: Distribution) {
        self.0.push(InitialTensor { name, shape: shape.to_vec(), distribution, zero_row: None });
    }

    /// A layer norm of the vision tower.
    fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), &[width], ONE);
        self.add(format!("{name}.bias"), &[width], ZERO);
    }

    /// A linear layer of the vision tower, `[outputs, inputs]`.
    fn xavier(&mut self, name: &str, size: [usize; 2], bias: Distribution) {
        self.add(format!("{name}.weight"), &size, Distribution::xavier_uniform(size));
        self.add(format!("{name}.bias"), &size[..1], bias);
    }
}

/// All tensors of a model with this `config.json`.
pub(super) fn tensors(config: &serde_json::Value) -> Result<Vec<InitialTensor>> {
    let parts = parts_of(config)?;
    let settings: Settings = serde_json::from_value(config.clone())
        .map_err(|cause| Error::input("it is no PaliGemma configuration").caused_by(cause))?;
    if settings.vision_config.vision_use_head == Some(true) {
        return Err(Error::input("`vision_use_head` asks for a pooling head, which the model does not use")
            .hint("set it to false in vision_config"));
    }
    // Zero means the default too.
    let range = settings.text_config.initializer_range.filter(|range| *range != 0.0).unwrap_or(DEFAULT_RANGE);
    let normal = Distribution::Normal { spread: range };
    let mut tensors = Tensors::default();
    vision(&mut tensors, &parts.vision);
    let size = [parts.text.hidden, parts.vision.hidden_size];
    tensors.add("multi_modal_projector.linear.weight".to_owned(), &size, normal);
    tensors.add("multi_modal_projector.linear.bias".to_owned(), &size[..1], ZERO);
    let embedding = [parts.text.vocabulary, parts.text.hidden];
    tensors.0.push(InitialTensor {
        name: "language_model.model.embed_tokens.weight".to_owned(),
        shape: embedding.to_vec(),
        distribution: normal,
        zero_row: settings.text_config.pad_token_id,
    });
    text(&mut tensors, &parts.text, normal);
    if !settings.tie_word_embeddings {
        tensors.add("language_model.lm_head.weight".to_owned(), &embedding, normal);
    }
    Ok(tensors.0)
}

fn vision(tensors: &mut Tensors, config: &Vision) {
    let (width, inner, patch) = (config.hidden_size, config.intermediate_size, config.patch_size);
    let inputs = config.num_channels * patch * patch;
    let name = "vision_tower.embeddings.patch_embedding";
    // `lecun_normal_` widens the distribution for a cut at two standard deviations, although it cuts at 2.
    let lecun = Distribution::TruncatedNormal { spread: (inputs as f64).sqrt().recip() / CUT_SPREAD, limit: CUT };
    tensors.add(format!("{name}.weight"), &[width, config.num_channels, patch, patch], lecun);
    tensors.add(format!("{name}.bias"), &[width], ZERO);
    let positions = (config.image_size / patch).pow(2);
    let normal = Distribution::Normal { spread: (width as f64).sqrt().recip() };
    tensors.add("vision_tower.embeddings.position_embedding.weight".to_owned(), &[positions, width], normal);
    for layer in 0..config.num_hidden_layers {
        let name = format!("vision_tower.encoder.layers.{layer}");
        tensors.norm(&format!("{name}.layer_norm1"), width);
        for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            tensors.xavier(&format!("{name}.self_attn.{part}"), [width, width], ZERO);
        }
        tensors.norm(&format!("{name}.layer_norm2"), width);
        tensors.xavier(&format!("{name}.mlp.fc1"), [inner, width], BIAS);
        tensors.xavier(&format!("{name}.mlp.fc2"), [width, inner], BIAS);
    }
    tensors.norm("vision_tower.post_layernorm", width);
}

/// The decoder's layers and its last norm; norms start at zero, as they multiply by one plus their weight.
fn text(tensors: &mut Tensors, config: &Decoder, normal: Distribution) {
    let (width, inner) = (config.hidden, config.intermediate);
    let (queries, keys) = (config.heads * config.head_size, config.key_value_heads * config.head_size);
    let matrices = [
        ("self_attn.q_proj", [queries, width]),
        ("self_attn.k_proj", [keys, width]),
        ("self_attn.v_proj", [keys, width]),
        ("self_attn.o_proj", [width, queries]),
        ("mlp.gate_proj", [inner, width]),
        ("mlp.up_proj", [inner, width]),
        ("mlp.down_proj", [width, inner]),
    ];
    let norms: &[&str] = match config.second_generation {
        false => &["input_layernorm", "post_attention_layernorm"],
        true => {
            &["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]
        }
    };
    for layer in 0..config.layers {
        let name = format!("language_model.model.layers.{layer}");
        for (part, size) in matrices {
            tensors.add(format!("{name}.{part}.weight"), &size, normal);
        }
        for part in norms {
            tensors.add(format!("{name}.{part}.weight"), &[width], ZERO);
        }
    }
    tensors.add("language_model.model.norm.weight".to_owned(), &[width], ZERO);
}
