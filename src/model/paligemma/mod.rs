//! PaliGemma and PaliGemma 2: a SigLIP image tower, a linear projector and a Gemma or Gemma 2 decoder.
//!
//! Source of every rule: the PaliGemma, Siglip, Gemma and Gemma2 classes of transformers 5.24, whose outputs are the
//! fixtures of `tests/parity.rs`.

mod config;
mod decoder;
mod initial;
mod names;
mod vision;

use std::ops::{Deref, DerefMut};

use crate::error::{Error, Result};
use crate::graph::{Builder, Dim, Graph, Type, Value};
use crate::model::features::{FeatureGraphs, FeatureLayers, Layer};
use crate::model::training::{Lora, Mask, MaskedRows, Trained, TrainedTensor, TrainingGraph};
use crate::model::weights::Placement;
use crate::model::{Blueprint, Checkpoint, Family, PromptForm};
use crate::tensor::DType;

use config::Config;
use names::Names;
pub(super) use vision::embed_patches;

/// The row of [`crate::model::FAMILIES`].
pub(super) const FAMILY: Family = Family {
    name: "paligemma",
    about: "PaliGemma and PaliGemma 2 (SigLIP image tower, Gemma or Gemma 2 text decoder)",
    model_types: &["paligemma"],
    blueprint,
    features,
    training,
    linear_layers: names::linear_layers,
    current_module: names::current_module,
    initial: initial::tensors,
};

/// A configuration whose parts are checked.
struct Parts {
    vision: config::Vision,
    text: config::Decoder,
    image_token: Option<u32>,
    image_tokens: usize,
}

fn parts(checkpoint: &Checkpoint) -> Result<Parts> {
    let path = checkpoint.base_folder.join("config.json");
    parts_of(&checkpoint.config).map_err(|error| error.within(format!("cannot use `{}`", path.display())))
}

fn parts_of(config: &serde_json::Value) -> Result<Parts> {
    let config: Config = serde_json::from_value(config.clone())
        .map_err(|cause| Error::input("it is no PaliGemma configuration").caused_by(cause))?;
    let text = config.text_config.decoder()?;
    config.vision_config.check()?;
    let grid = config.vision_config.image_size / config.vision_config.patch_size;
    Ok(Parts { text, image_token: config.image_token(), image_tokens: grid * grid, vision: config.vision_config })
}

fn blueprint(checkpoint: &Checkpoint, placement: &mut Placement, trained: &Trained) -> Result<Blueprint> {
    let Parts { vision, text, image_token, image_tokens } = parts(checkpoint)?;
    let names = Names::of(placement.weights());
    Ok(Blueprint {
        vision: vision::graph(&vision, text.hidden, Emitter::new("vision", placement, &names, trained))?,
        prefill: decoder::prefill(&text, image_tokens, Emitter::new("prefill", placement, &names, trained))?,
        decode: decoder::decode(&text, Emitter::new("decode", placement, &names, trained))?,
        layers: text.layers,
        image_size: vision.image_size,
        image_tokens,
        positions: text.positions,
        vocabulary: text.vocabulary,
        prompt: PromptForm {
            image_token: "<image>",
            image_token_id: image_token,
            before: "<bos>",
            after: "\n",
            numbered_tokens: &[("loc", 1024, 4), ("seg", 128, 3)],
        },
    })
}

fn features(
    checkpoint: &Checkpoint,
    placement: &mut Placement,
    trained: &Trained,
    layers: FeatureLayers,
) -> Result<FeatureGraphs> {
    let Parts { text, image_tokens, .. } = parts(checkpoint)?;
    let names = Names::of(placement.weights());
    let mut graph = |name, given, layer| {
        let emitter = Emitter::new(name, placement, &names, trained);
        decoder::features(&text, image_tokens, (given, layer), emitter)
    };
    Ok(FeatureGraphs {
        vision: graph("vision_features", decoder::Given::Image, layers.vision)?,
        question: graph("question_features", decoder::Given::Text, layers.language)?,
        joint: graph("joint_features", decoder::Given::ImageAndText, layers.language)?,
    })
}

/// The settings of a SigLIP image tower, checked.
///
/// # Errors
/// Input error that tells what does not fit.
pub(super) fn tower(config: &serde_json::Value) -> Result<config::Vision> {
    let config: config::Vision = serde_json::from_value(config.clone())
        .map_err(|cause| Error::input("it is no configuration of a SigLIP image tower").caused_by(cause))?;
    config.check()?;
    Ok(config)
}

/// The graph of the mean over patches of a hidden state: `pixel_values` f32 `[images, channels, size, size]` to
/// `features` f32 `[images, width]`.
///
/// # Errors
/// Input error naming the tensor that does not fit, or for a layer that is not there.
pub(super) fn tower_features(
    config: &config::Vision,
    placement: &mut Placement,
    trained: &Trained,
    layer: Layer,
) -> Result<Graph> {
    let names = Names::of_tower(placement.weights());
    vision::mean(config, layer, Emitter::new("encoder", placement, &names, trained))
}

fn training(checkpoint: &Checkpoint, placement: &mut Placement, trained: &Trained) -> Result<TrainingGraph> {
    let Parts { vision, text, image_tokens, .. } = parts(checkpoint)?;
    let names = Names::of(placement.weights());
    let mut emitter = Emitter::new("loss", placement, &names, trained);
    emitter.drops = true;
    let features = vision::features(&mut emitter, &vision, text.hidden)?;
    let loss = decoder::loss(&mut emitter, &text, image_tokens, features)?;
    let scopes = (0..vision.num_hidden_layers).map(vision::scope);
    let layers = scopes.chain((0..text.layers).map(decoder::scope)).collect();
    let trained = std::mem::take(&mut emitter.tensors);
    let masks = std::mem::take(&mut emitter.masks);
    let graph = emitter.finish(&[("loss".to_owned(), loss)])?;
    Ok(TrainingGraph { graph, trained, masks, image_tokens, layers })
}

/// Emits one graph over the parameters of a checkpoint, under the names they have there.
pub(super) struct Emitter<'a, 'w> {
    builder: Builder,
    placement: &'a mut Placement<'w>,
    names: &'a Names,
    trained: &'a Trained,
    /// Whether inputs of LoRA matrices lose elements to dropout.
    drops: bool,
    /// The trained tensors so far.
    tensors: Vec<TrainedTensor>,
    masks: Vec<Mask>,
}

impl<'a, 'w> Emitter<'a, 'w> {
    fn new(graph: &str, placement: &'a mut Placement<'w>, names: &'a Names, trained: &'a Trained) -> Self {
        let builder = Builder::new(graph);
        Self { builder, placement, names, trained, drops: false, tensors: Vec::new(), masks: Vec::new() }
    }

    /// The compute dtype.
    fn dtype(&self) -> DType {
        self.placement.dtype()
    }

    /// Conversion to the compute dtype.
    fn compute(&mut self, x: Value) -> Result<Value> {
        let dtype = self.dtype();
        self.cast(x, dtype)
    }

    /// Emits the nodes of `body` under `scope` in node names.
    fn scoped<T>(&mut self, scope: &str, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.builder.enter(scope);
        let result = body(self);
        self.builder.leave();
        result
    }

    /// The parameter whose name is `name` in [`Names`]' spelling, in the compute dtype.
    fn get(&mut self, name: &str, dims: &[usize]) -> Result<Value> {
        let stored = self.names.stored(name);
        if self.trained.parameters.include(&stored, self.names.role(&stored)) {
            return self.trained_tensor(stored, dims);
        }
        let ty = Type::new(self.dtype(), fixed(dims));
        self.builder.parameter(&stored, &ty, || self.placement.place(&stored, &ty))
    }

    /// A tensor that trains: an input in f32, cast to the compute dtype.
    fn trained_tensor(&mut self, name: String, shape: &[usize]) -> Result<Value> {
        let (value, new) = self.builder.shared_input(&name, &Type::new(DType::F32, fixed(shape)))?;
        if new {
            let role = self.names.role(&name);
            self.tensors.push(TrainedTensor { name, shape: shape.to_vec(), role });
        }
        self.compute(value)
    }

    /// `x W^T + b` with a weight of shape `[outputs, inputs]`, the bias where there is one, and LoRA matrices beside `W`
    /// where the layer has them.
    fn linear(&mut self, x: Value, name: &str, size: [usize; 2], bias: bool) -> Result<Value> {
        let weight = self.get(&format!("{name}.weight"), &size)?;
        let transposed = self.transpose(weight, &[1, 0])?;
        let mut product = self.matmul(x, transposed)?;
        if bias {
            let bias = self.get(&format!("{name}.bias"), &size[..1])?;
            product = self.add(product, bias)?;
        }
        let module = names::module(name);
        match &self.trained.adapter {
            Some(lora) if lora.includes(&module) => {
                let update = self.lora(lora, x, &module, size)?;
                self.add(product, update)
            }
            _ => Ok(product),
        }
    }

    /// `scale * (dropout(x) A^T) B^T`.
    fn lora(&mut self, lora: &Lora, x: Value, module: &str, [outputs, inputs]: [usize; 2]) -> Result<Value> {
        let name = |matrix: &str| format!("base_model.model.{module}.{matrix}.weight");
        let down = self.trained_tensor(name("lora_A"), &[lora.rank, inputs])?;
        let up = self.trained_tensor(name("lora_B"), &[outputs, lora.rank])?;
        let x = if self.drops && lora.dropout > 0.0 { self.dropped(lora.dropout, x, module, inputs)? } else { x };
        let down = self.transpose(down, &[1, 0])?;
        let narrow = self.matmul(x, down)?;
        let narrow = self.scale(narrow, lora.scale())?;
        let up = self.transpose(up, &[1, 0])?;
        self.matmul(narrow, up)
    }

    /// `x` without the elements that a mask removes, scaled up to the same mean.
    fn dropped(&mut self, share: f32, x: Value, module: &str, width: usize) -> Result<Value> {
        let Type { dtype, dims } = self.ty(x)?.clone();
        let answer = |dim: &Dim| dim.to_string().split('*').any(|factor| factor == "answer");
        let rows = match (dims.len(), dims.iter().any(answer)) {
            (2, false) => MaskedRows::Patches,
            (2, true) => MaskedRows::FlatAnswer,
            (_, false) => MaskedRows::Tokens,
            (_, true) => MaskedRows::Answer,
        };
        let name = format!("keep/{module}");
        let mask = self.input(&name, Type::new(DType::Bool, dims))?;
        self.masks.push(Mask { name, rows, width });
        let mask = self.cast(mask, dtype)?;
        let mask = self.scale(mask, 1.0 / (1.0 - share))?;
        self.mul(x, mask)
    }

    /// The graph with these outputs.
    fn finish(mut self, outputs: &[(String, Value)]) -> Result<Graph> {
        for (name, value) in outputs {
            self.output(name, *value)?;
        }
        Ok(self.builder.finish())
    }
}

fn fixed(dims: &[usize]) -> Vec<Dim> {
    dims.iter().copied().map(Dim::Fixed).collect()
}

impl Deref for Emitter<'_, '_> {
    type Target = Builder;

    fn deref(&self) -> &Builder {
        &self.builder
    }
}

impl DerefMut for Emitter<'_, '_> {
    fn deref_mut(&mut self) -> &mut Builder {
        &mut self.builder
    }
}
