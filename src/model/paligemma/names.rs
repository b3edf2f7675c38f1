//! The two spellings of PaliGemma's tensor names.
//!
//! Graph builders write `vision.`, `projector.`, `text.` and `head.weight`; checkpoints of transformers before 5 write
//! `vision_tower.vision_model.`, `language_model.model.` and so on, later ones put `model.` in front and drop
//! `vision_model`.

use crate::model::training::Role;
use crate::model::weights::Weights;

/// Prefixes of the parts in one checkpoint.
pub(super) struct Names {
    vision: &'static str,
    projector: &'static str,
    text: &'static str,
    /// The name of the output matrix: its own, or that of the embedding it is tied to.
    head: String,
}

const VISION: &[&str] =
    &["model.vision_tower.vision_model.", "model.vision_tower.", "vision_tower.vision_model.", "vision_tower."];
const PROJECTOR: &[&str] = &["model.multi_modal_projector.", "multi_modal_projector."];
const TEXT: &[&str] =
    &["model.language_model.model.", "model.language_model.", "language_model.model.", "language_model."];
const HEAD: &[&str] = &["lm_head.weight", "language_model.lm_head.weight", "model.language_model.lm_head.weight"];

impl Names {
    /// The spelling that the tensors of this checkpoint have.
    pub(super) fn of(weights: &Weights) -> Self {
        let pick = |prefixes: &[&'static str], probe: &str| {
            let found = prefixes.iter().find(|prefix| weights.contains(&format!("{prefix}{probe}")));
            *found.unwrap_or(&prefixes[prefixes.len() - 1])
        };
        let text = pick(TEXT, "embed_tokens.weight");
        let own = HEAD.iter().find(|name| weights.contains(name));
        Self {
            vision: pick(VISION, "embeddings.patch_embedding.weight"),
            projector: pick(PROJECTOR, "linear.weight"),
            text,
            head: own.map_or_else(|| format!("{text}embed_tokens.weight"), |name| (*name).to_owned()),
        }
    }

    /// What the parameter with this name in the checkpoint is for.
    pub(super) fn role(&self, stored: &str) -> Role {
        match stored {
            _ if stored == self.head => Role::Head,
            _ if stored.contains("norm") => Role::Norm,
            _ => Role::Inner,
        }
    }

    /// The name in the checkpoint for one of the graph builders' names.
    pub(super) fn stored(&self, name: &str) -> String {
        match name.split_once('.') {
            Some(("vision", rest)) => format!("{}{rest}", self.vision),
            Some(("projector", rest)) => format!("{}{rest}", self.projector),
            Some(("text", rest)) => format!("{}{rest}", self.text),
            _ => self.head.clone(),
        }
    }
}

/// The path of a module in transformers 5, which adapters name, by the graph builders' name.
pub(super) fn module(name: &str) -> String {
    match name.split_once('.') {
        Some(("vision", rest)) => format!("model.vision_tower.{rest}"),
        Some(("projector", rest)) => format!("model.multi_modal_projector.{rest}"),
        Some(("text", rest)) => format!("model.language_model.{rest}"),
        _ => "lm_head".to_owned(),
    }
}
