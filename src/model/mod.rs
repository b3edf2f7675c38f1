//! Model families as graph builders, preprocessing, decoding.
//!
//! A [`Model`] is a folder in the Hub's layout made ready to answer: `config.json` picks the family, the family emits
//! three graphs (image tower, prompt, one token), and the weights stay in their files.

pub mod adapter;
pub mod decoding;
pub mod encoder;
pub mod export;
pub mod features;
mod generation;
pub mod initialisation;
pub mod interpolation;
mod paligemma;
mod resample;
pub mod saving;
mod tensor_file;
pub mod text;
pub mod training;
pub mod vision;
pub mod weights;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

pub use generation::{Generation, Request};
pub use tensor_file::merged;

use crate::data::FolderKind;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::runtime::{DeviceTensor, Runtime, Session, SessionOptions};
use crate::tensor::{DType, Tensor};
use adapter::{Adapter, LinearLayer};
use decoding::Decoding;
use features::{FeatureGraphs, FeatureLayers, FeatureSessions};
use initialisation::InitialTensor;
use text::{PromptForm, TextLimits, TextProcessor};
use training::{Trained, TrainingGraph};
use vision::ImageProcessor;
use weights::{Placement, Weights};

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";

/// What this program or the Hub's libraries have written, so that it may be replaced.
const MODEL_FOLDER: FolderKind = FolderKind {
    what: "a model or an adapter",
    marks: &[CONFIG, adapter::SETTINGS],
    holds: saving::is_of_model,
    synced: true,
};
/// Keys of `config.json` that state a dtype, the newer first.
const DTYPE_KEYS: [&str; 2] = ["dtype", "torch_dtype"];

/// A model family.
pub struct Family {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Values of `model_type` in `config.json` that mean this family.
    pub model_types: &'static [&'static str],
    /// Emits the graphs that answer, for a checkpoint.
    blueprint: fn(&Checkpoint, &mut Placement, &Trained) -> Result<Blueprint>,
    /// Emits the graphs of its features.
    features: fn(&Checkpoint, &mut Placement, &Trained, FeatureLayers) -> Result<FeatureGraphs>,
    /// Emits the graph of the loss.
    training: fn(&Checkpoint, &mut Placement, &Trained) -> Result<TrainingGraph>,
    /// The layers that adapters can change.
    linear_layers: fn(&Weights) -> Vec<LinearLayer>,
    /// The path of a module in transformers 5 by the one it has in any version.
    current_module: fn(&str) -> Option<String>,
    /// The tensors of a new model by its `config.json`.
    initial: fn(&serde_json::Value) -> Result<Vec<InitialTensor>>,
}

/// Every model family.
pub static FAMILIES: &[Family] = &[paligemma::FAMILY];

/// A checkpoint folder whose `config.json` is read and whose weights are mapped; or an adapter's folder with that of its
/// base model.
pub struct Checkpoint {
    /// The folder.
    pub folder: PathBuf,
    /// The folder of `config.json` and the weights: the same, or that of the adapter's base model.
    pub base_folder: PathBuf,
    /// `config.json`.
    pub config: serde_json::Value,
    /// The tensors.
    pub weights: Weights,
    /// The family that `model_type` names.
    pub family: &'static Family,
    /// The adapter on top of them.
    pub adapter: Option<Adapter>,
}

impl Checkpoint {
    /// Opens a folder in the Hub's layout, or the folder of a LoRA adapter that PEFT has written.
    ///
    /// # Errors
    ///
    /// Input error naming the file: no such folder, unknown family, damaged or missing files, a base model that is not
    /// there.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_on(folder, None)
    }

    /// As [`Checkpoint::open`], with the folder of an adapter's base model, if it is not the one that the adapter names.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; also a base model for a folder that is no adapter.
    pub fn open_on(folder: &Path, base: Option<&Path>) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::input(format!("there is no model folder `{}`", folder.display()))
                .hint("give a folder in the Hub's layout: config.json, *.safetensors, tokenizer.json, preprocessor_config.json"));
        }
        if folder.join(adapter::SETTINGS).is_file() && !folder.join(CONFIG).is_file() {
            return Self::open_adapter(folder, base);
        }
        match base {
            None => Self::open_whole(folder),
            Some(base) => {
                let (folder, base) = (folder.display(), base.display());
                Err(Error::input(format!("`{folder}` is no adapter, so that it cannot be put on `{base}`"))
                    .hint("leave the base model out"))
            }
        }
    }

    fn open_whole(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let config: serde_json::Value = read_json(&path)?;
        let family = family_of(&config).map_err(|error| error.within(format!("cannot use `{}`", path.display())))?;
        let weights = Weights::open(folder)?;
        let folder = folder.to_owned();
        Ok(Self { base_folder: folder.clone(), folder, config, weights, family, adapter: None })
    }

    fn open_adapter(folder: &Path, base: Option<&Path>) -> Result<Self> {
        let mut adapter = Adapter::read(folder)?;
        let base = match base {
            Some(base) => base.to_owned(),
            None => base_folder(folder, adapter.base.as_deref())?,
        };
        let within = |error: Error| error.within(format!("cannot open the base model of `{}`", folder.display()));
        let checkpoint = Self::open_whole(&base).map_err(within)?;
        let path = folder.join(adapter::MATRICES);
        let within = |error: Error| error.within(format!("cannot put `{}` on `{}`", path.display(), base.display()));
        adapter.fit(&checkpoint.linear_layers(), checkpoint.family.current_module).map_err(within)?;
        Ok(Self { folder: folder.to_owned(), adapter: Some(adapter), ..checkpoint })
    }

    /// The layers that adapters can change.
    pub fn linear_layers(&self) -> Vec<LinearLayer> {
        (self.family.linear_layers)(&self.weights)
    }

    /// The dtype that transformers loads the weights in: what `config.json` states or, without that, what most are
    /// stored in. The two differ where a part was trained in f32.
    pub fn dtype(&self) -> DType {
        let stated = DTYPE_KEYS.iter().find_map(|key| self.config.get(key)?.as_str());
        match stated.map(|name| name.trim_start_matches("torch.")) {
            Some("float32") => DType::F32,
            Some("float16") => DType::F16,
            Some("bfloat16") => DType::BF16,
            _ => self.weights.dtype(),
        }
    }

    /// The folder of the tokenizer: that of an adapter has it or not.
    fn text_folder(&self) -> &Path {
        self.folder_with(&saving::TEXT_FILES[..1])
    }

    /// The folder of the image settings.
    fn image_folder(&self) -> &Path {
        self.folder_with(saving::IMAGE_FILES)
    }

    fn folder_with(&self, files: &[&str]) -> &Path {
        let here = files.iter().any(|file| self.folder.join(file).is_file());
        if here { &self.folder } else { &self.base_folder }
    }

    /// SHA-256 over `config.json` and, where there are such files, `generation_config.json` and those of the adapter, as
    /// hexadecimal text.
    ///
    /// # Errors
    /// Input error naming the file that cannot be read.
    pub fn configuration_digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let base = [CONFIG, GENERATION].map(|name| self.base_folder.join(name));
        let adapter = [adapter::SETTINGS, adapter::MATRICES].map(|name| self.folder.join(name));
        for path in base.into_iter().chain(adapter.into_iter().filter(|_| self.adapter.is_some())) {
            match std::fs::read(&path) {
                Ok(bytes) => hash.update(Sha256::digest(bytes)),
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
                Err(cause) => {
                    return Err(Error::input(format!("cannot read `{}`", path.display())).caused_by(cause));
                }
            }
        }
        Ok(hex(&hash.finalize()))
    }

    /// The tokens that end an answer: those of `generation_config.json`, else those of `config.json`.
    fn end_tokens(&self) -> Result<Vec<u32>> {
        let path = self.base_folder.join(GENERATION);
        let stated = if path.is_file() { end_tokens_in(&read_json(&path)?) } else { Vec::new() };
        let text = self.config.get("text_config").map(end_tokens_in).unwrap_or_default();
        [stated, end_tokens_in(&self.config), text].into_iter().find(|tokens| !tokens.is_empty()).ok_or_else(|| {
            Error::input(format!(
                "no end token (eos_token_id) in the configuration files of `{}`",
                self.base_folder.display()
            ))
            .hint("state it in generation_config.json")
        })
    }
}

/// The name on the Hub that the adapter in a folder gives its base model; none of a whole model, or if the name is a
/// folder here. What is wrong with the adapter is told where it is opened.
pub fn missing_base(folder: &Path) -> Option<String> {
    let path = folder.join(adapter::SETTINGS);
    if folder.join(CONFIG).is_file() || !path.is_file() {
        return None;
    }
    let settings: serde_json::Value = read_json(&path).ok()?;
    let stated = settings["base_model_name_or_path"].as_str().filter(|name| !name.is_empty());
    stated.filter(|_| base_folder(folder, stated).is_err()).map(str::to_owned)
}

/// The folder of an adapter's base model, which the adapter names as PEFT does: a path from here or from itself, or a
/// name on the Hub.
fn base_folder(adapter: &Path, stated: Option<&str>) -> Result<PathBuf> {
    let hint = "give the folder of the base model";
    let Some(stated) = stated else {
        return Err(Error::input(format!("the adapter `{}` names no base model", adapter.display())).hint(hint));
    };
    let places = [adapter.join(stated), PathBuf::from(stated)];
    places.into_iter().find(|place| place.join(CONFIG).is_file()).ok_or_else(|| {
        Error::input(format!("the base model `{stated}` of the adapter `{}` is no folder here", adapter.display()))
            .hint(hint)
    })
}

fn family_of(config: &serde_json::Value) -> Result<&'static Family> {
    let model_type = config
        .get("model_type")
        .and_then(serde_json::Value::as_str)
        .ok_or_else(|| Error::input("it has no `model_type`").hint("a model is a folder in the Hub's layout"))?;
    FAMILIES.iter().find(|family| family.model_types.contains(&model_type)).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().flat_map(|family| family.model_types).copied().collect();
        Error::input(format!("the model type `{model_type}` is not supported"))
            .hint(format!("known: {}", known.join(", ")))
    })
}

fn end_tokens_in(config: &serde_json::Value) -> Vec<u32> {
    let number = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match config.get("eos_token_id") {
        Some(serde_json::Value::Array(ids)) => ids.iter().filter_map(number).collect(),
        Some(id) => number(id).into_iter().collect(),
        None => Vec::new(),
    }
}

/// What a family makes of a checkpoint.
pub struct Blueprint {
    /// `pixel_values` to `image_features`.
    pub vision: Graph,
    /// The prompt to the first token.
    pub prefill: Graph,
    /// One token to the next.
    pub decode: Graph,
    /// Layers that hold keys and values.
    pub layers: usize,
    /// Height and width of images in pixels.
    pub image_size: usize,
    /// Tokens that stand for one image.
    pub image_tokens: usize,
    /// Tokens of image, prompt and answer together that the model was made for.
    pub positions: usize,
    /// Number of tokens the model knows.
    pub vocabulary: usize,
    /// What surrounds a prompt.
    pub prompt: PromptForm,
}

/// The values of the tensors that a model's graphs take as inputs, by name.
pub type TrainedValues = Arc<HashMap<String, Arc<DeviceTensor>>>;

/// How a model is loaded.
#[derive(Debug, Clone)]
pub struct Loading {
    /// How its graphs run.
    pub session: SessionOptions,
    /// Replicas, each of which can answer on a thread of its own.
    pub replicas: usize,
    /// The hidden states that features are taken from, if any are.
    pub features: Option<FeatureLayers>,
}

/// A model ready to answer questions about images.
pub struct Model {
    runtime: Runtime,
    trained: TrainedValues,
    vision: Session,
    prefill: Session,
    decode: Session,
    features: Option<FeatureSessions>,
    text: Arc<TextProcessor>,
    images: Arc<ImageProcessor>,
    end_tokens: Vec<u32>,
    layers: usize,
    image_tokens: usize,
}

impl Model {
    /// Emits the graphs of a checkpoint over weights placed for a compute dtype and prepares them on a device, as often
    /// as there are to be replicas. What `trained` names has to be supplied by [`Model::set_trained`] before the first
    /// call; where it names no adapter, that of the checkpoint is put on.
    ///
    /// # Errors
    ///
    /// Input error naming the file and the tensor or key that do not fit, the layer or the device that is not there.
    pub fn load(
        checkpoint: &Checkpoint,
        mut placement: Placement,
        trained: &Trained,
        runtime: &Runtime,
        loading: &Loading,
    ) -> Result<Vec<Self>> {
        let (trained, values) = with_adapter(checkpoint, trained, runtime)?;
        let blueprint = (checkpoint.family.blueprint)(checkpoint, &mut placement, &trained)?;
        let emit = |layers| (checkpoint.family.features)(checkpoint, &mut placement, &trained, layers);
        let features = loading.features.map(emit).transpose()?;
        let (folder, converted) = placement.finish()?;
        let session = |graph: &Graph| Session::new(runtime, graph, &folder, &loading.session);
        let images = Arc::new(ImageProcessor::read(checkpoint.image_folder())?);
        let limits = TextLimits {
            vocabulary: blueprint.vocabulary,
            prompt_tokens: blueprint.positions.saturating_sub(blueprint.image_tokens + 1),
        };
        check_image_size(&images, blueprint.image_size, checkpoint.image_folder())?;
        let text = TextProcessor::open(checkpoint.text_folder(), blueprint.prompt, limits)?;
        let text = Arc::new(text);
        let end_tokens = checkpoint.end_tokens()?;
        let replica = |_| {
            Ok(Self {
                runtime: runtime.clone(),
                trained: Arc::clone(&values),
                vision: session(&blueprint.vision)?,
                prefill: session(&blueprint.prefill)?,
                decode: session(&blueprint.decode)?,
                features: features.as_ref().map(|graphs| FeatureSessions::new(graphs, session)).transpose()?,
                text: Arc::clone(&text),
                images: Arc::clone(&images),
                end_tokens: end_tokens.clone(),
                layers: blueprint.layers,
                image_tokens: blueprint.image_tokens,
            })
        };
        let replicas = (0..loading.replicas).map(replica).collect();
        // The sessions have mapped the converted weights; removing the name now means that a kill leaves nothing.
        drop(converted);
        replicas
    }

    /// Supplies the values of trained tensors, from now on.
    pub fn set_trained(&mut self, values: TrainedValues) {
        self.trained = values;
    }

    /// Checks that the model has enough tokens to choose from.
    ///
    /// # Errors
    /// Input error naming the search.
    pub fn check_decoding(&self, decoding: &Decoding) -> Result<()> {
        let wanted = decoding.strategy.candidates(self.end_tokens.len());
        let known = self.text.limits().vocabulary;
        if wanted <= known {
            return Ok(());
        }
        let search = decoding.strategy;
        Err(Error::input(format!("`{search}` compares {wanted} tokens at each step, but the model knows only {known}"))
            .hint("use fewer beams"))
    }

    /// Tokens that stand for one image.
    pub fn image_tokens(&self) -> usize {
        self.image_tokens
    }

    /// Tokens of an answer to learn, with the token that ends it.
    ///
    /// # Errors
    /// Input error for an answer without tokens, or with one that the model does not know.
    pub fn encode_answer(&self, answer: &str) -> Result<Vec<u32>> {
        let end = self.end_tokens.first().ok_or_else(|| Error::internal("the model has no end token"))?;
        self.text.encode_answer(answer, *end)
    }

    /// Its prompts and tokens.
    pub fn text(&self) -> &Arc<TextProcessor> {
        &self.text
    }

    /// Its image preprocessing.
    pub fn images(&self) -> &Arc<ImageProcessor> {
        &self.images
    }

    /// Features of preprocessed images, `pixel_values` f32 `[images, channels, height, width]`, left on the device.
    pub fn image_features(&mut self, pixel_values: Tensor) -> Result<DeviceTensor> {
        let pixels = self.runtime.tensor(pixel_values)?;
        let inputs = with_trained(&self.trained, &self.vision, vec![("pixel_values", &pixels)]);
        let mut outputs = self.vision.run(&inputs, &["image_features"], &[])?;
        outputs.pop().ok_or_else(|| Error::internal("the image tower has no result"))
    }
}

/// What a model's graphs take as inputs if the checkpoint's own adapter is one of them, and its values.
fn with_adapter(checkpoint: &Checkpoint, trained: &Trained, runtime: &Runtime) -> Result<(Trained, TrainedValues)> {
    let (None, Some(adapter)) = (&trained.adapter, &checkpoint.adapter) else {
        return Ok((trained.clone(), TrainedValues::default()));
    };
    Ok((Trained { adapter: Some(adapter.lora()), ..trained.clone() }, adapter_values(adapter, runtime)?))
}

fn adapter_values(adapter: &Adapter, runtime: &Runtime) -> Result<TrainedValues> {
    let value = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), Arc::new(runtime.tensor(tensor.clone())?)));
    Ok(Arc::new(adapter.tensors.iter().map(value).collect::<Result<HashMap<_, _>>>()?))
}

/// The inputs of a session with the trained tensors that it takes.
fn with_trained<'a>(
    trained: &'a HashMap<String, Arc<DeviceTensor>>,
    session: &Session,
    mut inputs: Vec<(&'a str, &'a DeviceTensor)>,
) -> Vec<(&'a str, &'a DeviceTensor)> {
    let taken = session.inputs().iter().filter_map(|name| trained.get_key_value(name));
    inputs.extend(taken.map(|(name, value)| (name.as_str(), &**value)));
    inputs
}

impl Checkpoint {
    /// Emits the graph of the loss over weights placed for a compute dtype.
    ///
    /// # Errors
    /// Input error naming the file and the tensor or key that do not fit.
    pub fn training_graph(&self, placement: &mut Placement, trained: &Trained) -> Result<TrainingGraph> {
        (self.family.training)(self, placement, trained)
    }
}

fn check_image_size(images: &ImageProcessor, size: usize, folder: &Path) -> Result<()> {
    if images.size() == (size, size) {
        return Ok(());
    }
    let (height, width) = images.size();
    Err(Error::input(format!(
        "the image processor of `{}` makes {height}x{width} pixels, but config.json asks for {size}x{size}",
        folder.display()
    ))
    .hint("preprocessor_config.json and config.json must belong together"))
}

/// Reads a JSON file into a value of the caller's type.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let cannot = || Error::input(format!("cannot read `{}`", path.display()));
    let bytes = std::fs::read(path).map_err(|cause| cannot().caused_by(cause).hint("fetch the checkpoint again"))?;
    serde_json::from_slice(&bytes)
        .map_err(|cause| cannot().caused_by(cause).hint("the file is damaged; fetch the checkpoint again"))
}

/// Bytes as hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
