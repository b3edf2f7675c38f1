//! `config.json` of a PaliGemma or PaliGemma 2 checkpoint, with the defaults of transformers' configuration classes.

use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};

/// `PaliGemmaConfig`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Config {
    pub vision_config: Vision,
    pub text_config: Text,
    image_token_index: Option<u32>,
    image_token_id: Option<u32>,
}

impl Config {
    /// Number of the token that stands for an image patch; files carry it under either name, or both.
    pub(super) fn image_token(&self) -> Option<u32> {
        self.image_token_index.or(self.image_token_id)
    }
}

/// `SiglipVisionConfig`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Vision {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f32,
}

impl Default for Vision {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 16,
            hidden_act: GELU_TANH.to_owned(),
            layer_norm_eps: 1e-6,
        }
    }
}

/// Larger sides are taken for a damaged file.
const LARGEST_IMAGE: usize = 1 << 14;

impl Vision {
    /// Checks that the numbers fit together.
    pub(super) fn check(&self) -> Result<()> {
        let named = |error: Error| error.within("cannot use `hidden_act` of the image tower");
        Gelu::parse(&self.hidden_act).map_err(named)?;
        let (size, patch) = (self.image_size, self.patch_size);
        if size > LARGEST_IMAGE {
            return Err(Error::input(format!("images of {size} pixels are larger than {LARGEST_IMAGE}")));
        }
        if self.num_channels != 3 {
            return Err(Error::input(format!("images have 3 channels, not {}", self.num_channels)));
        }
        if size == 0 || patch == 0 || !size.is_multiple_of(patch) {
            return Err(Error::input(format!("images of {size} pixels do not divide into patches of {patch}")));
        }
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(Error::input(format!("the vision width {width} does not divide into {heads} heads")));
        }
        Ok(())
    }
}

/// The parts of `GemmaConfig` and `Gemma2Config`; what a file leaves out differs between the two.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Text {
    pub model_type: String,
    pub hidden_size: Option<usize>,
    pub intermediate_size: Option<usize>,
    pub num_hidden_layers: Option<usize>,
    pub num_attention_heads: Option<usize>,
    pub num_key_value_heads: Option<usize>,
    #[serde(default = "head_dim")]
    pub head_dim: usize,
    #[serde(default = "vocab_size")]
    pub vocab_size: usize,
    #[serde(default = "max_position_embeddings")]
    pub max_position_embeddings: usize,
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f32,
    pub rope_theta: Option<f64>,
    pub rope_parameters: Option<Rope>,
    pub rope_scaling: Option<serde_json::Value>,
    pub hidden_act: Option<String>,
    pub hidden_activation: Option<String>,
    #[serde(default)]
    pub attention_bias: bool,
    pub use_bidirectional_attention: Option<bool>,
    pub query_pre_attn_scalar: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    pub sliding_window: Option<Option<usize>>,
    #[serde(default, deserialize_with = "present")]
    pub attn_logit_softcapping: Option<Option<f32>>,
    #[serde(default, deserialize_with = "present")]
    pub final_logit_softcapping: Option<Option<f32>>,
    pub layer_types: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Rope {
    pub rope_theta: Option<f64>,
    pub rope_type: Option<String>,
}

const GELU_TANH: &str = "gelu_pytorch_tanh";

fn head_dim() -> usize {
    256
}

fn vocab_size() -> usize {
    256_000
}

fn max_position_embeddings() -> usize {
    8192
}

fn rms_norm_eps() -> f32 {
    1e-6
}

/// Tells `null` (which switches a feature off) from a key that is left out (which means the default).
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// What the text decoder's graph depends on.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    pub second_generation: bool,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub key_value_heads: usize,
    pub head_size: usize,
    pub vocabulary: usize,
    pub positions: usize,
    pub epsilon: f32,
    pub rope_theta: f64,
    pub gelu: Gelu,
    /// Factor of the attention scores.
    pub scale: f32,
    pub attention_cap: Option<f32>,
    pub logit_cap: Option<f32>,
    /// Per layer the window of keys that a generated token sees, if limited; one size for all that are.
    pub windows: Vec<Option<usize>>,
}

/// The two forms of the GELU activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gelu {
    Tanh,
    Erf,
}

impl Gelu {
    pub(super) fn parse(name: &str) -> Result<Self> {
        match name {
            GELU_TANH | "gelu_new" | "gelu_fast" => Ok(Self::Tanh),
            "gelu" => Ok(Self::Erf),
            _ => Err(Error::input(format!("the activation `{name}` is not supported"))
                .hint("known: gelu_pytorch_tanh, gelu")),
        }
    }
}

impl Text {
    /// Fills in what the file leaves out and checks that the numbers fit together.
    pub(super) fn decoder(&self) -> Result<Decoder> {
        let second = self.second_generation()?;
        let pick =
            |stated: Option<usize>, gemma: usize, gemma2: usize| stated.unwrap_or([gemma, gemma2][usize::from(second)]);
        let layers = pick(self.num_hidden_layers, 28, 26);
        let heads = pick(self.num_attention_heads, 16, 8);
        let key_value_heads = pick(self.num_key_value_heads, 16, 4);
        self.check(layers, heads, key_value_heads)?;
        let scalar = if second { self.query_pre_attn_scalar.unwrap_or(256.0) } else { self.head_dim as f64 };
        let capped = |stated: Option<Option<f32>>, default: f32| stated.unwrap_or(Some(default)).filter(|_| second);
        Ok(Decoder {
            second_generation: second,
            hidden: pick(self.hidden_size, 3072, 2304),
            intermediate: pick(self.intermediate_size, 24576, 9216),
            layers,
            heads,
            key_value_heads,
            head_size: self.head_dim,
            vocabulary: self.vocab_size,
            positions: self.max_position_embeddings,
            epsilon: self.rms_norm_eps,
            rope_theta: self.rope_theta()?,
            gelu: self.gelu(second)?,
            scale: scalar.powf(-0.5) as f32,
            attention_cap: capped(self.attn_logit_softcapping, 50.0),
            logit_cap: capped(self.final_logit_softcapping, 30.0),
            windows: self.windows(layers, second)?,
        })
    }

    /// Whether it is Gemma 2 and not Gemma 1.
    fn second_generation(&self) -> Result<bool> {
        match self.model_type.as_str() {
            "gemma" => Ok(false),
            "gemma2" => Ok(true),
            other => {
                Err(Error::input(format!("the text model `{other}` is not supported")).hint("known: gemma, gemma2"))
            }
        }
    }

    fn check(&self, layers: usize, heads: usize, key_value_heads: usize) -> Result<()> {
        if layers == 0 {
            return Err(Error::input("a text model without layers is not supported"));
        }
        if key_value_heads == 0 || !heads.is_multiple_of(key_value_heads) || !self.head_dim.is_multiple_of(2) {
            let size = self.head_dim;
            return Err(Error::input(format!(
                "{heads} heads of size {size} over {key_value_heads} key-value heads do not fit together"
            )));
        }
        if self.attention_bias {
            return Err(Error::input("biases in the text model's attention are not supported by this family"));
        }
        if self.use_bidirectional_attention == Some(false) {
            return Err(Error::input("a prompt that is read in one direction only is not supported by this family"));
        }
        Ok(())
    }

    /// Gemma 1's `gelu` is a legacy name of the tanh form (`GemmaConfig.__post_init__` of transformers).
    fn gelu(&self, second: bool) -> Result<Gelu> {
        match (second, self.hidden_act.as_deref(), self.hidden_activation.as_deref()) {
            (false, Some("gelu") | None, _) | (true, _, None) => Ok(Gelu::Tanh),
            (false, Some(name), _) | (true, _, Some(name)) => Gelu::parse(name),
        }
    }

    fn rope_theta(&self) -> Result<f64> {
        let kind = self.rope_parameters.as_ref().and_then(|rope| rope.rope_type.as_deref()).unwrap_or("default");
        if kind != "default" || self.rope_scaling.as_ref().is_some_and(|scaling| !scaling.is_null()) {
            return Err(Error::input("scaled rotary embeddings are not supported by this family"));
        }
        let stated = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        Ok(stated.or(self.rope_theta).unwrap_or(10_000.0))
    }

    fn windows(&self, layers: usize, second: bool) -> Result<Vec<Option<usize>>> {
        let window = if second { self.sliding_window.unwrap_or(Some(4096)) } else { None };
        let Some(types) = &self.layer_types else {
            return Ok((0..layers).map(|layer| window.filter(|_| layer % 2 == 0)).collect());
        };
        if types.len() != layers {
            return Err(Error::input(format!("layer_types has {} entries for {layers} layers", types.len())));
        }
        Ok(types.iter().map(|kind| window.filter(|_| kind == "sliding_attention")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(text: serde_json::Value) -> Result<Decoder> {
        serde_json::from_value::<Text>(text).unwrap().decoder()
    }

    /// What `google/paligemma-3b-pt-224` and `google/paligemma2-3b-pt-224` leave out is filled in.
    #[test]
    fn defaults_are_those_of_transformers() {
        let gemma = decoder(serde_json::json!({
            "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8,
            "num_hidden_layers": 18, "num_image_tokens": 256, "num_key_value_heads": 1, "torch_dtype": "float32",
            "vocab_size": 257216
        }));
        let gemma = gemma.unwrap();
        assert_eq!((gemma.head_size, gemma.rope_theta, gemma.scale), (256, 10_000.0, 0.0625));
        assert_eq!((gemma.attention_cap, gemma.logit_cap, gemma.gelu), (None, None, Gelu::Tanh));
        assert_eq!(gemma.windows, [None; 18]);
        let gemma2 = decoder(serde_json::json!({"model_type": "gemma2", "query_pre_attn_scalar": 144})).unwrap();
        assert_eq!((gemma2.hidden, gemma2.layers, gemma2.key_value_heads), (2304, 26, 4));
        assert_eq!((gemma2.attention_cap, gemma2.logit_cap), (Some(50.0), Some(30.0)));
        assert_eq!((gemma2.windows[0], gemma2.windows[1]), (Some(4096), None));
        assert!((gemma2.scale - 1.0 / 12.0).abs() < 1e-7);
    }

    #[test]
    fn null_switches_a_cap_off_and_gelu_means_tanh_in_gemma_alone() {
        let capless = serde_json::json!({"model_type": "gemma2", "attn_logit_softcapping": null});
        assert_eq!(decoder(capless).unwrap().attention_cap, None);
        let legacy = serde_json::json!({"model_type": "gemma", "hidden_act": "gelu"});
        assert_eq!(decoder(legacy).unwrap().gelu, Gelu::Tanh);
        let exact = serde_json::json!({"model_type": "gemma2", "hidden_activation": "gelu"});
        assert_eq!(decoder(exact).unwrap().gelu, Gelu::Erf);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (key, value) in [
            ("attention_bias", serde_json::json!(true)),
            ("use_bidirectional_attention", serde_json::json!(false)),
            ("num_hidden_layers", serde_json::json!(0)),
            ("num_key_value_heads", serde_json::json!(3)),
            ("rope_scaling", serde_json::json!({"type": "linear"})),
            ("model_type", serde_json::json!("llama")),
        ] {
            let mut config = serde_json::json!({"model_type": "gemma", "use_bidirectional_attention": true});
            config[key] = value;
            assert!(decoder(config).is_err(), "{key}");
        }
    }
}
