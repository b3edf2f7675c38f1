//! PaliGemma and PaliGemma 2: a SigLIP image tower, a linear projector and a Gemma or Gemma 2 decoder.
//!
//! Source of every rule: the PaliGemma, Siglip, Gemma and Gemma2 classes of transformers 5.24, whose outputs are the
//! fixtures of `tests/parity.rs`.

mod config;
mod decoder;
mod names;
mod vision;

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
    let mut parameters = Parameters { placement, names: &names };
    Ok(Blueprint {
        vision: vision::graph(&config.vision_config, text.hidden, &mut parameters)?,
        prefill: decoder::prefill(&text, grid * grid, &mut parameters)?,
        decode: decoder::decode(&text, &mut parameters)?,
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

/// Hands the parameters of a checkpoint to graphs, under the names they have there.
pub(super) struct Parameters<'a, 'w> {
    placement: &'a mut Placement<'w>,
    names: &'a Names,
}

impl Parameters<'_, '_> {
    /// The compute dtype.
    fn dtype(&self) -> DType {
        self.placement.dtype()
    }

    /// The parameter whose name is `name` in [`Names`]' spelling.
    fn get(&mut self, builder: &mut Builder, name: &str, dims: &[usize]) -> Result<Value> {
        let ty = Type::new(self.dtype(), dims.iter().copied().map(Dim::Fixed).collect::<Vec<_>>());
        let stored = self.names.stored(name);
        let placement = &mut *self.placement;
        builder.parameter(&stored, &ty, || placement.place(&stored, &ty))
    }

    /// `x W^T + b` with a weight of shape `[outputs, inputs]`, the bias where there is one.
    fn linear(&mut self, builder: &mut Builder, x: Value, name: &str, size: [usize; 2], bias: bool) -> Result<Value> {
        let weight = self.get(builder, &format!("{name}.weight"), &size)?;
        let transposed = builder.transpose(weight, &[1, 0])?;
        let product = builder.matmul(x, transposed)?;
        if !bias {
            return Ok(product);
        }
        let bias = self.get(builder, &format!("{name}.bias"), &size[..1])?;
        builder.add(product, bias)
    }
}

fn finish(builder: Builder, outputs: &[(&str, Value)]) -> Result<Graph> {
    let mut builder = builder;
    for (name, value) in outputs {
        builder.output(name, *value)?;
    }
    Ok(builder.finish())
}
