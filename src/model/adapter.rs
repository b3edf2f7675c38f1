//! LoRA adapters in the format of PEFT 0.21: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! The matrices that are there decide which layers are adapted. `target_modules` and the other keys that merely selected
//! them are kept as they are, so that PEFT selects the same layers again; keys that change what is computed are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::tensor_file::{self, Source};
use super::training::{Lora, TrainedTensor};
use super::weights::Weights;
use super::{MODEL_FOLDER, initialisation, read_json};
use crate::data::{WholeFolder, write_error};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Name of the settings file, which also tells an adapter's folder from a model's.
pub(super) const SETTINGS: &str = "adapter_config.json";
/// Name of the file with the matrices.
pub(super) const MATRICES: &str = "adapter_model.safetensors";
/// What PEFT puts in front of the paths of modules.
const PREFIX: &str = "base_model.model.";
const DOWN: &str = ".lora_A.weight";
const UP: &str = ".lora_B.weight";
/// PEFT's name for all linear layers but the one that makes logits.
pub const ALL_LINEAR: &str = "all-linear";

/// Whether this is the name of a matrix `B`.
pub(super) fn is_up(name: &str) -> bool {
    name.ends_with(UP)
}

/// A linear layer of a model that an adapter can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearLayer {
    /// Its path in transformers 5, such as `model.language_model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// Name of its weight in the checkpoint.
    pub weight: String,
    /// Outputs and inputs.
    pub size: [usize; 2],
}

/// A LoRA adapter: `x W^T + scale * (x A^T) B^T` in place of `x W^T`.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Rows of every `A` and columns of every `B`.
    pub rank: usize,
    /// The product is scaled by `alpha / rank`, or by `alpha / sqrt(rank)` if [`Adapter::rank_stabilised`].
    pub alpha: f64,
    /// Share of the input's elements that are removed while training.
    pub dropout: f32,
    /// Whether the scale falls with the root of the rank (rsLoRA).
    pub rank_stabilised: bool,
    /// Folder or Hub name of the base model.
    pub base: Option<String>,
    /// The matrices in f32 by their names in the file: `base_model.model.<layer>.lora_A.weight` `[rank, inputs]` and
    /// `.lora_B.weight` `[outputs, rank]`.
    pub tensors: BTreeMap<String, Tensor>,
    /// The other keys of `adapter_config.json`.
    settings: Map<String, Value>,
}

impl Adapter {
    /// An adapter for a model that `config` (its `config.json`) describes and that lies in `base`.
    pub fn new(lora: &Lora, config: &Value, base: Option<String>, tensors: BTreeMap<String, Tensor>) -> Self {
        let mut settings = default_settings();
        settings.insert("target_modules".to_owned(), json!(lora.targets));
        if let (Some(class), Some(family)) = (config["architectures"][0].as_str(), config["model_type"].as_str()) {
            let library = format!("transformers.models.{family}.modeling_{family}");
            settings.insert("auto_mapping".to_owned(), json!({"base_model_class": class, "parent_library": library}));
        }
        Self {
            rank: lora.rank,
            alpha: f64::from(lora.alpha),
            dropout: lora.dropout,
            rank_stabilised: false,
            base,
            tensors,
            settings,
        }
    }

    /// Reads a folder that PEFT or [`Adapter::write`] has written.
    ///
    /// # Errors
    ///
    /// Input error naming the file and the key or tensor: another method than LoRA, an option that changes what is
    /// computed, a damaged file, a matrix without its other half or of another rank, targets that name no matrix.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(SETTINGS);
        let within = |error: Error| error.within(format!("cannot use `{}`", path.display()));
        let mut adapter = Self::from_settings(read_json(&path)?).map_err(within)?;
        let path = folder.join(MATRICES);
        let within = |error: Error| error.within(format!("cannot use `{}`", path.display()));
        if !path.is_file() {
            return Err(Error::input(format!("the adapter `{}` has no `{MATRICES}`", folder.display()))
                .hint("save the adapter again with PEFT, as safetensors"));
        }
        let file = Weights::open_file(folder, MATRICES)?;
        for name in file.names() {
            let Some(stored) = file.stored(name) else { continue };
            let values = stored
                .to_f32()
                .map_err(|_| within(Error::input(format!("the tensor `{name}` holds {}, not floats", stored.dtype))))?;
            adapter.tensors.insert(name.to_owned(), values);
        }
        adapter.check_matrices().map_err(within)?;
        adapter.check_targets().map_err(within)?;
        Ok(adapter)
    }

    fn from_settings(stated: Map<String, Value>) -> Result<Self> {
        let kind: String = field(&stated, "peft_type")?.unwrap_or_default();
        if kind != "LORA" {
            return Err(Error::input(format!("`peft_type` is `{kind}`")).hint("only LORA adapters are supported"));
        }
        for (key, value) in &stated {
            check_setting(key, value)?;
        }
        let mut settings = default_settings();
        settings.extend(stated);
        let rank = field(&settings, "r")?.unwrap_or(8);
        let dropout: f32 = field(&settings, "lora_dropout")?.unwrap_or(0.0);
        let alpha: f64 = field(&settings, "lora_alpha")?.unwrap_or(8.0);
        if rank == 0 || !alpha.is_finite() || !(0.0..1.0).contains(&dropout) {
            return Err(Error::input(format!(
                "`r` {rank}, `lora_alpha` {alpha} and `lora_dropout` {dropout} are no LoRA"
            ))
            .hint("the rank is at least 1, the dropout at least 0 and below 1"));
        }
        let rank_stabilised = field(&settings, "use_rslora")?.unwrap_or(false);
        let base = field(&settings, "base_model_name_or_path")?.filter(|base: &String| !base.is_empty());
        settings.insert("inference_mode".to_owned(), json!(true));
        settings.retain(|key, _| !COVERED.contains(&key.as_str()));
        Ok(Self { rank, alpha, dropout, rank_stabilised, base, tensors: BTreeMap::new(), settings })
    }

    fn check_matrices(&self) -> Result<()> {
        let again = |error: Error| error.hint("the file is damaged or of another method; save the adapter again");
        if self.tensors.is_empty() {
            return Err(again(Error::input("it holds no matrices")));
        }
        for (name, tensor) in &self.tensors {
            let Some((layer, down)) = split(name) else {
                return Err(again(Error::input(format!("the tensor `{name}` is no LoRA matrix of a linear layer"))));
            };
            let other = matrix_name(layer, if down { UP } else { DOWN });
            if !self.tensors.contains_key(&other) {
                return Err(again(Error::input(format!("it holds `{name}` without `{other}`"))));
            }
            let rank = tensor.shape().get(usize::from(!down)).copied();
            if tensor.shape().len() != 2 || rank != Some(self.rank) {
                return Err(again(Error::input(format!(
                    "the tensor `{name}` has shape {:?}, but `r` in `{SETTINGS}` is {}",
                    tensor.shape(),
                    self.rank
                ))));
            }
        }
        Ok(())
    }

    /// PEFT ignores matrices that `target_modules` does not select. A text is a regular expression, which only PEFT
    /// reads.
    fn check_targets(&self) -> Result<()> {
        if !self.settings.get("target_modules").is_some_and(Value::is_array) {
            return Ok(());
        }
        let targets: Vec<String> = field(&self.settings, "target_modules")?.unwrap_or_default();
        match self.layers().into_iter().find(|layer| !matches(&targets, layer)) {
            Some(layer) => Err(Error::input(format!(
                "it holds matrices of `{layer}`, which `target_modules` in `{SETTINGS}` does not select"
            ))
            .hint(format!("it selects {}", targets.join(", ")))),
            None => Ok(()),
        }
    }

    /// Fits the adapter to a model with these layers: `current` turns the paths of older versions into theirs.
    ///
    /// # Errors
    /// Input error naming the tensor that belongs to no layer or to one of another size.
    pub(super) fn fit(&mut self, layers: &[LinearLayer], current: fn(&str) -> Option<String>) -> Result<()> {
        let sizes: BTreeMap<&str, [usize; 2]> = layers.iter().map(|layer| (layer.path.as_str(), layer.size)).collect();
        let mut fitted = BTreeMap::new();
        for (name, tensor) in std::mem::take(&mut self.tensors) {
            let Some((path, down)) = split(&name) else { continue };
            let path = current(path).unwrap_or_else(|| path.to_owned());
            let Some([outputs, inputs]) = sizes.get(path.as_str()) else {
                return Err(Error::input(format!("the tensor `{name}` belongs to no linear layer of the base model"))
                    .hint("the adapter and the base model must belong together"));
            };
            let shape = if down { [self.rank, *inputs] } else { [*outputs, self.rank] };
            if tensor.shape() != shape {
                return Err(Error::input(format!(
                    "the tensor `{name}` has shape {:?}, but the layer of the base model asks for {shape:?}",
                    tensor.shape()
                ))
                .hint("the adapter and the base model must belong together"));
            }
            fitted.insert(matrix_name(&path, if down { DOWN } else { UP }), tensor);
        }
        self.tensors = fitted;
        Ok(())
    }

    /// What the product of the matrices is scaled by.
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        (self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }) as f32
    }

    /// The paths of the adapted layers.
    pub fn layers(&self) -> BTreeSet<&str> {
        self.tensors.keys().filter_map(|name| split(name)).map(|(layer, _)| layer).collect()
    }

    /// What a graph needs to know; the targets are the paths of the adapted layers.
    pub fn lora(&self) -> Lora {
        let targets = self.layers().into_iter().map(str::to_owned).collect();
        let stabilised = if self.rank_stabilised { (self.rank as f64).sqrt() } else { 1.0 };
        Lora { rank: self.rank, alpha: (self.alpha * stabilised) as f32, dropout: self.dropout, targets }
    }

    /// The matrices `A` and `B` of a layer, if it is adapted.
    pub fn matrices(&self, layer: &str) -> Option<(&Tensor, &Tensor)> {
        let matrix = |suffix| self.tensors.get(&matrix_name(layer, suffix));
        matrix(DOWN).zip(matrix(UP))
    }

    /// Writes a folder that `peft.PeftModel.from_pretrained` reads; it appears whole, and replaces an older one.
    ///
    /// # Errors
    /// Input error naming the folder that cannot be written; an older one stays as it was.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let whole = WholeFolder::create(folder, &MODEL_FOLDER)?;
        let path = whole.path().join(SETTINGS);
        std::fs::write(&path, self.settings_text()?).map_err(|cause| write_error(folder, cause))?;
        let tensors: Vec<(&str, Source)> =
            self.tensors.iter().map(|(name, tensor)| (name.as_str(), Source::Values(tensor))).collect();
        tensor_file::write(&whole.path().join(MATRICES), &tensors, &mut |_| ())?;
        whole.finish()
    }

    fn settings_text(&self) -> Result<String> {
        let mut settings = self.settings.clone();
        let whole = self.alpha.fract() == 0.0 && self.alpha.abs() < 1e15;
        let alpha = if whole { json!(self.alpha as i64) } else { json!(self.alpha) };
        // The shortest digits that mean the same f32, not those of its value in f64.
        let dropout: f64 = self.dropout.to_string().parse().unwrap_or_else(|_| f64::from(self.dropout));
        for (key, value) in [
            ("r", json!(self.rank)),
            ("lora_alpha", alpha),
            ("lora_dropout", json!(dropout)),
            ("use_rslora", json!(self.rank_stabilised)),
            ("base_model_name_or_path", json!(self.base)),
        ] {
            settings.insert(key.to_owned(), value);
        }
        serde_json::to_string_pretty(&settings)
            .map_err(|cause| Error::internal("the settings of an adapter are no JSON").caused_by(cause))
    }
}

/// Whether one of the targets selects a layer: it is its path or the last parts of it (`check_target_module_exists` of
/// PEFT).
pub fn matches(targets: &[String], layer: &str) -> bool {
    let selects = |target: &String| {
        layer.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    targets.iter().any(selects)
}

/// The targets with [`ALL_LINEAR`] spelt out.
///
/// # Errors
/// Input error for a target that selects no layer.
pub fn select(targets: &[String], layers: &[LinearLayer]) -> Result<Vec<String>> {
    if targets == [ALL_LINEAR] {
        return Ok(layers.iter().map(|layer| layer.path.clone()).collect());
    }
    let selects_nothing = |target: &&String| !layers.iter().any(|layer| matches(&[(*target).clone()], &layer.path));
    match targets.iter().find(selects_nothing) {
        Some(target) => {
            let last = |layer: &LinearLayer| layer.path.rsplit('.').next().unwrap_or(&layer.path).to_owned();
            let known: BTreeSet<String> = layers.iter().map(last).collect();
            let known: Vec<String> = known.into_iter().collect();
            Err(Error::input(format!("the LoRA target `{target}` matches no linear layer of the model"))
                .hint(format!("the layers are named {}; `{ALL_LINEAR}` means all", known.join(", "))))
        }
        None => Ok(targets.to_vec()),
    }
}

/// Matrices of a new adapter: `A` uniform within `1 / sqrt(inputs)`, `B` zero, so that the model starts as it was
/// (`reset_lora_parameters` of PEFT). Other tensors are left out.
pub fn initial_matrices(tensors: &[TrainedTensor], seed: u64) -> Result<BTreeMap<String, Tensor>> {
    let mut matrices = BTreeMap::new();
    for TrainedTensor { name, shape, .. } in tensors {
        let (Some((_, down)), [_, inputs]) = (split(name), shape.as_slice()) else { continue };
        let bound = (*inputs as f64).sqrt().recip();
        let distribution = if down {
            initialisation::Distribution::Uniform { bound }
        } else {
            initialisation::Distribution::Constant(0.0)
        };
        matrices.insert(name.clone(), distribution.draw(shape, name, seed)?);
    }
    Ok(matrices)
}

/// The layer that a matrix belongs to, and whether it is the one that comes first.
fn split(name: &str) -> Option<(&str, bool)> {
    let path = name.strip_prefix(PREFIX)?;
    let down = path.strip_suffix(DOWN).map(|layer| (layer, true));
    down.or_else(|| path.strip_suffix(UP).map(|layer| (layer, false)))
}

fn matrix_name(layer: &str, suffix: &str) -> String {
    format!("{PREFIX}{layer}{suffix}")
}

/// The value of a key that may be missing or null.
fn field<T: DeserializeOwned>(settings: &Map<String, Value>, key: &str) -> Result<Option<T>> {
    match settings.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|cause| {
            Error::input(format!("the key `{key}` has an unusable value"))
                .caused_by(cause)
                .hint("save the adapter again with PEFT")
        }),
    }
}

/// Keys that the fields of an adapter hold.
const COVERED: &[&str] = &["r", "lora_alpha", "lora_dropout", "use_rslora", "base_model_name_or_path"];

/// Other keys that select layers or document the training; any value is fine.
const FREE: &[&str] = &[
    "auto_mapping",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "megatron_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
];

/// Refuses what changes the computation beyond plain LoRA: an option PEFT has that is not switched off, or one that is
/// not known here and not empty.
fn check_setting(key: &str, value: &Value) -> Result<()> {
    let off = match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => (key, text.as_str()) == ("bias", "none"),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    };
    // Others, such as `pissa`, also change the weights of the base model when PEFT loads the adapter.
    let plain = |text: &str| ["gaussian", "orthogonal", "eva"].contains(&text);
    let plain_start = key == "init_lora_weights" && (value.is_boolean() || value.as_str().is_some_and(plain));
    if off || plain_start || FREE.contains(&key) || COVERED.contains(&key) {
        return Ok(());
    }
    Err(Error::input(format!("the option `{key}` with the value {value} is not supported"))
        .hint("merge the adapter into its base model with PEFT (`merge_and_unload`) and use the result"))
}

/// `LoraConfig()` of PEFT 0.21, without the covered keys.
fn default_settings() -> Map<String, Value> {
    let nothing = [
        "alora_invocation_tokens",
        "arrow_config",
        "auto_mapping",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "kasa_config",
        "layer_replication",
        "layers_pattern",
        "layers_to_transform",
        "lora_ga_config",
        "megatron_config",
        "modules_to_save",
        "monteclora_config",
        "revision",
        "target_modules",
        "target_parameters",
        "task_type",
        "trainable_token_indices",
        "use_bdlora",
        "velora_config",
    ];
    let off = ["ensure_weight_tying", "fan_in_fan_out", "lora_bias", "use_dora", "use_qalora"];
    let stated = [
        ("alpha_pattern", json!({})),
        ("bias", json!("none")),
        ("inference_mode", json!(true)),
        ("init_lora_weights", json!(true)),
        ("loftq_config", json!({})),
        ("megatron_core", json!("megatron.core")),
        ("peft_type", json!("LORA")),
        ("peft_version", json!("0.21.2")),
        ("qalora_group_size", json!(16)),
        ("rank_pattern", json!({})),
    ];
    let rows = nothing.map(|key| (key, Value::Null)).into_iter().chain(off.map(|key| (key, json!(false))));
    rows.chain(stated).map(|(key, value)| (key.to_owned(), value)).collect()
}
