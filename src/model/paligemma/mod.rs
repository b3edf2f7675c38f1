//! PaliGemma and PaliGemma 2: a SigLIP image tower, a linear projector and a Gemma or Gemma 2 decoder.
//!
//! Source of every rule: the PaliGemma, Siglip, Gemma and Gemma2 classes of transformers 5.24, whose outputs are the
//! fixtures of `tests/parity.rs`.

mod config;
mod decoder;
mod names;
mod vision;

use std::ops::{Deref, DerefMut};

use crate::error::{Error, Result};
use crate::graph::{Builder, Dim, Graph, Type, Value};
use crate::model::weights::Placement;
use crate::model::{Blueprint, Checkpoint, Family, PromptForm};
use crate::tensor::DType;

use config::Config;
use names::Names;

/// The row of [`crate::model::FAMILIES`].
pub(super) const FAMILY: Family = Family {
    name: "paligemma",
    about: "PaliGemma and PaliGemma 2 (SigLIP image tower, Gemma or Gemma 2 text decoder)",
    model_types: &["paligemma"],
    blueprint,
};

fn blueprint(checkpoint: &Checkpoint, placement: &mut Placement) -> Result<Blueprint> {
    let within =
        |error: Error| error.within(format!("cannot use `{}`", checkpoint.folder.join("config.json").display()));
    let config: Config = serde_json::from_value(checkpoint.config.clone())
        .map_err(|cause| within(Error::input("it is no PaliGemma configuration").caused_by(cause)))?;
    let text = config.text_config.decoder().map_err(within)?;
    config.vision_config.check().map_err(within)?;
    let grid = config.vision_config.image_size / config.vision_config.patch_size;
    let names = Names::of(placement.weights());
    Ok(Blueprint {
        vision: vision::graph(&config.vision_config, text.hidden, Emitter::new("vision", placement, &names))?,
        prefill: decoder::prefill(&text, grid * grid, Emitter::new("prefill", placement, &names))?,
        decode: decoder::decode(&text, Emitter::new("decode", placement, &names))?,
        layers: text.layers,
        image_size: config.vision_config.image_size,
        image_tokens: grid * grid,
        positions: text.positions,
        vocabulary: text.vocabulary,
        prompt: PromptForm {
            image_token: "<image>",
            image_token_id: config.image_token(),
            before: "<bos>",
            after: "\n",
            numbered_tokens: &[("loc", 1024, 4), ("seg", 128, 3)],
        },
    })
}

/// Emits one graph over the parameters of a checkpoint, under the names they have there.
pub(super) struct Emitter<'a, 'w> {
    builder: Builder,
    placement: &'a mut Placement<'w>,
    names: &'a Names,
}

impl<'a, 'w> Emitter<'a, 'w> {
    fn new(graph: &str, placement: &'a mut Placement<'w>, names: &'a Names) -> Self {
        Self { builder: Builder::new(graph), placement, names }
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

    /// The parameter whose name is `name` in [`Names`]' spelling.
    fn get(&mut self, name: &str, dims: &[usize]) -> Result<Value> {
        let ty = Type::new(self.dtype(), dims.iter().copied().map(Dim::Fixed).collect::<Vec<_>>());
        let stored = self.names.stored(name);
        self.builder.parameter(&stored, &ty, || self.placement.place(&stored, &ty))
    }

    /// `x W^T + b` with a weight of shape `[outputs, inputs]`, the bias where there is one.
    fn linear(&mut self, x: Value, name: &str, size: [usize; 2], bias: bool) -> Result<Value> {
        let weight = self.get(&format!("{name}.weight"), &size)?;
        let transposed = self.transpose(weight, &[1, 0])?;
        let product = self.matmul(x, transposed)?;
        if !bias {
            return Ok(product);
        }
        let bias = self.get(&format!("{name}.bias"), &size[..1])?;
        self.add(product, bias)
    }

    /// The graph with these outputs.
    fn finish(mut self, outputs: &[(String, Value)]) -> Result<Graph> {
        for (name, value) in outputs {
            self.output(name, *value)?;
        }
        Ok(self.builder.finish())
    }
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
