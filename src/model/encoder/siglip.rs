//! SigLIP image towers: alone, beside a text tower, or within a PaliGemma checkpoint, before its projector.
//!
//! The tower is the one that PaliGemma answers with, an adapter's matrices included.

use super::{EncoderCheckpoint, EncoderFamily, EncoderGraph, Layer, Modality, Reads};
use crate::error::Result;
use crate::model::training::Trained;
use crate::model::weights::Placement;
use crate::model::{paligemma, vision};

/// The row of [`super::ENCODERS`].
pub(super) const FAMILY: EncoderFamily = EncoderFamily {
    name: "siglip",
    about: "SigLIP image tower, its own or that of a PaliGemma checkpoint: mean over the patches",
    model_types: &["siglip_vision_model", "siglip", "paligemma"],
    modality: Modality::Image,
    graph,
};

fn graph(
    source: &EncoderCheckpoint,
    placement: &mut Placement,
    trained: &Trained,
    layer: Layer,
) -> Result<EncoderGraph> {
    let settings = source.config.get("vision_config").unwrap_or(&source.config);
    let tower = paligemma::tower(settings).map_err(|error| source.in_config(error))?;
    Ok(EncoderGraph {
        graph: paligemma::tower_features(&tower, placement, trained, layer)?,
        dimension: tower.hidden_size,
        reads: Reads::Pixels { size: tower.image_size, processor: &vision::SIGLIP },
    })
}
