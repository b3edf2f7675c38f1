//! Encoders that see images only or texts only, for features from which distances between datasets are measured.
//!
//! A feature is the mean of a hidden state over all tokens of its image or text: the class token and the patches of a
//! ViT, the patches of a SigLIP tower, `[CLS]`, text and `[SEP]` of a BERT. The paper leaves open whether the class token
//! counts in the mean of a ViT; here it does, as `[CLS]` does.
//!
//! Everything is computed in f32, whatever a checkpoint is stored in. Neither the size of a batch nor padding changes a
//! feature beyond rounding.

mod bert;
mod siglip;
mod transformer;
mod vit;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::adapter::Adapter;
use super::features::Layer;
use super::text::SentenceProcessor;
use super::training::Trained;
use super::vision::{ImageProcessor, ProcessorKind};
use super::weights::{Placement, Weights};
use super::{CONFIG, Checkpoint, TrainedValues, adapter_values, check_image_size, hex, read_json, with_trained};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::runtime::{DeviceTensor, Runtime, Session, SessionOptions};
use crate::tensor::{DType, Tensor};

/// What an encoder sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    /// Images only.
    Image,
    /// Texts only.
    Text,
}

/// A family of encoders.
pub struct EncoderFamily {
    /// Its name.
    pub name: &'static str,
    /// What it is, and what its features are means of.
    pub about: &'static str,
    /// Values of `model_type` in `config.json` that mean this family.
    pub model_types: &'static [&'static str],
    /// What it sees.
    pub modality: Modality,
    graph: fn(&EncoderCheckpoint, &mut Placement, &Trained, Layer) -> Result<EncoderGraph>,
}

/// Every family of encoders.
pub static ENCODERS: &[EncoderFamily] = &[vit::FAMILY, siglip::FAMILY, bert::FAMILY];

/// How an encoder is loaded.
#[derive(Debug, Clone)]
pub struct EncoderOptions {
    /// How its graph runs.
    pub session: SessionOptions,
    /// The hidden state that features are means of.
    pub layer: Layer,
    /// Folder for weights that are not stored in f32, which are converted.
    pub scratch: PathBuf,
}

/// What a family makes of a checkpoint.
struct EncoderGraph {
    /// `pixel_values` f32 `[images, 3, size, size]`, or `input_ids`, `position_ids` and `attention_mask` i64
    /// `[texts, tokens]`, to `features` f32 `[rows, dimension]`.
    graph: Graph,
    dimension: usize,
    reads: Reads,
}

/// What has to become of an image or a text.
enum Reads {
    /// Pixels in a square of this side; the processor where the settings name none.
    Pixels { size: usize, processor: &'static ProcessorKind },
    /// No more than so many tokens, of those that there are.
    Tokens { vocabulary: usize, positions: usize },
}

/// A checkpoint's folder, whose `config.json` is read and whose weights are mapped.
pub struct EncoderCheckpoint {
    family: &'static EncoderFamily,
    /// SHA-256 over the files that say how the weights are used.
    configuration: String,
    /// The folder of `config.json` and the weights.
    folder: PathBuf,
    config: serde_json::Value,
    weights: Weights,
    /// The adapter on top of them, if the folder is one's.
    adapter: Option<Adapter>,
    image_folder: PathBuf,
    text_folder: PathBuf,
}

impl EncoderCheckpoint {
    /// Opens an encoder's folder in the Hub's layout, or that of a vision-language model or of its adapter, whose image
    /// tower is an encoder.
    ///
    /// # Errors
    /// Input error naming the file: no such folder, no encoder, damaged or missing files.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        if !path.is_file() {
            // The folder of an adapter, or none that can be used, which is told there.
            return Self::of(Checkpoint::open(folder)?);
        }
        let config: serde_json::Value = read_json(&path)?;
        let family = family_of(&config, folder)?;
        let configuration = hex(&Sha256::digest(config.to_string()));
        let (folder, weights) = (folder.to_owned(), Weights::open(folder)?);
        let (image_folder, text_folder) = (folder.clone(), folder.clone());
        Ok(Self { family, configuration, folder, config, weights, adapter: None, image_folder, text_folder })
    }

    fn of(checkpoint: Checkpoint) -> Result<Self> {
        let family = family_of(&checkpoint.config, &checkpoint.base_folder)?;
        let configuration = checkpoint.configuration_digest()?;
        let (image_folder, text_folder) = (checkpoint.image_folder().to_owned(), checkpoint.text_folder().to_owned());
        let Checkpoint { base_folder: folder, config, weights, adapter, .. } = checkpoint;
        Ok(Self { family, configuration, folder, config, weights, adapter, image_folder, text_folder })
    }

    /// What the encoder sees.
    pub fn modality(&self) -> Modality {
        self.family.modality
    }

    /// The tensors.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// SHA-256 over what says how the weights are used, as hexadecimal text.
    pub fn configuration_digest(&self) -> &str {
        &self.configuration
    }

    /// Says of an error that it lies in `config.json`.
    fn in_config(&self, error: Error) -> Error {
        error.within(format!("cannot use `{}`", self.folder.join(CONFIG).display()))
    }
}

fn family_of(config: &serde_json::Value, folder: &Path) -> Result<&'static EncoderFamily> {
    let stated = config.get("model_type").and_then(serde_json::Value::as_str).unwrap_or_default();
    ENCODERS.iter().find(|family| family.model_types.contains(&stated)).ok_or_else(|| {
        let known: Vec<&str> = ENCODERS.iter().flat_map(|family| family.model_types).copied().collect();
        let cause = Error::input(format!("`model_type` is `{stated}`, which is no encoder"));
        let path = folder.join(CONFIG);
        cause.hint(format!("known: {}", known.join(", "))).within(format!("cannot use `{}`", path.display()))
    })
}

/// What turns an image or a text into what the encoder takes.
#[derive(Clone)]
pub enum Reader {
    /// Images to pixel values, for [`Encoder::images`].
    Images(Arc<ImageProcessor>),
    /// Texts to tokens, for [`Encoder::texts`].
    Texts(Arc<SentenceProcessor>),
}

impl Reader {
    fn open(source: &EncoderCheckpoint, reads: Reads) -> Result<Self> {
        match reads {
            Reads::Pixels { size, processor } => {
                let images = ImageProcessor::read_for(&source.image_folder, processor)?;
                check_image_size(&images, size, &source.image_folder)?;
                Ok(Self::Images(Arc::new(images)))
            }
            Reads::Tokens { vocabulary, positions } => {
                let texts = SentenceProcessor::open(&source.text_folder, vocabulary, positions)?;
                Ok(Self::Texts(Arc::new(texts)))
            }
        }
    }
}

/// An encoder ready to make features.
pub struct Encoder {
    runtime: Runtime,
    session: Session,
    trained: TrainedValues,
    reader: Reader,
    dimension: usize,
}

impl Encoder {
    /// Makes an encoder ready, `count` times over: each replica can run on a thread of its own.
    ///
    /// # Errors
    /// Input error naming the file and the tensor or key that do not fit, the layer or the device that is not there.
    pub fn load(
        source: &EncoderCheckpoint,
        runtime: &Runtime,
        options: &EncoderOptions,
        count: usize,
    ) -> Result<Vec<Self>> {
        let trained = Trained { adapter: source.adapter.as_ref().map(Adapter::lora), ..Trained::default() };
        let mut ignore = |_| ();
        let mut placement = Placement::new(&source.weights, DType::F32, &options.scratch, &mut ignore)?;
        let EncoderGraph { graph, dimension, reads } =
            (source.family.graph)(source, &mut placement, &trained, options.layer)?;
        let (weights, converted) = placement.finish()?;
        let reader = Reader::open(source, reads)?;
        let adapter = source.adapter.as_ref().map(|adapter| adapter_values(adapter, runtime)).transpose()?;
        let trained = adapter.unwrap_or_default();
        let replica = |_| {
            Ok(Self {
                runtime: runtime.clone(),
                session: Session::new(runtime, &graph, &weights, &options.session)?,
                trained: Arc::clone(&trained),
                reader: reader.clone(),
                dimension,
            })
        };
        let replicas = (0..count).map(replica).collect();
        // The sessions have mapped the converted weights; removing the name now means that a kill leaves nothing.
        drop(converted);
        replicas
    }

    /// What turns an image or a text into what this encoder takes.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Numbers in a feature.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Features of images, f32 `[images, dimension]`, from pixel values f32 `[images, 3, height, width]`.
    ///
    /// # Errors
    /// Internal error for an encoder of texts, or pixel values of another shape.
    pub fn images(&mut self, pixels: Tensor) -> Result<Vec<f32>> {
        let Reader::Images(_) = self.reader else {
            return Err(Error::internal("an encoder of texts takes no images"));
        };
        let pixels = self.runtime.tensor(pixels)?;
        self.features(vec![("pixel_values", &pixels)])
    }

    /// Features of texts, f32 `[texts, dimension]`, from tokens by [`SentenceProcessor::encode`]. Shorter texts are
    /// padded to the longest.
    ///
    /// # Errors
    /// Internal error for an encoder of images, or a text without tokens.
    pub fn texts(&mut self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        let Reader::Texts(_) = self.reader else {
            return Err(Error::internal("an encoder of images takes no texts"));
        };
        if texts.iter().any(Vec::is_empty) {
            return Err(Error::internal("a text without tokens has no feature"));
        }
        let width = texts.iter().map(Vec::len).max().unwrap_or(0);
        let ids = self.padded(texts, width, |_, token| i64::from(token))?;
        let positions = self.padded(texts, width, |position, _| position as i64)?;
        let mask = self.padded(texts, width, |_, _| 1)?;
        self.features(vec![("input_ids", &ids), ("position_ids", &positions), ("attention_mask", &mask)])
    }

    /// A number for each token, and 0 behind the last of each text, i64 `[texts, width]`.
    fn padded(&self, texts: &[Vec<u32>], width: usize, number: fn(usize, u32) -> i64) -> Result<DeviceTensor> {
        let mut numbers = vec![0; texts.len() * width];
        for (row, text) in numbers.chunks_exact_mut(width.max(1)).zip(texts) {
            for (position, (place, token)) in row.iter_mut().zip(text).enumerate() {
                *place = number(position, *token);
            }
        }
        self.runtime.tensor(Tensor::new([texts.len(), width], numbers)?)
    }

    fn features(&mut self, inputs: Vec<(&str, &DeviceTensor)>) -> Result<Vec<f32>> {
        if inputs.iter().any(|(_, value)| value.shape().first() == Some(&0)) {
            return Ok(Vec::new());
        }
        let inputs = with_trained(&self.trained, &self.session, inputs);
        let outputs = self.session.run(&inputs, &[], &["features"])?;
        let features = outputs.first().ok_or_else(|| Error::internal("the encoder has no result"))?;
        Ok(features.values::<f32>()?.to_vec())
    }
}
