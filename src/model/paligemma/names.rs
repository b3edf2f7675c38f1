//! The two spellings of PaliGemma's tensor names.
//!
//! Graph builders write `vision.`, `projector.`, `text.` and `head.weight`; checkpoints of transformers before 5 write
//! `vision_tower.vision_model.`, `language_model.model.` and so on, later ones put `model.` in front and drop
//! `vision_model`.

use crate::model::adapter::LinearLayer;
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
/// The tower of a PaliGemma checkpoint, of a SigLIP model, and of one that is nothing else.
const TOWER: &[&str] = &[VISION[0], VISION[1], VISION[2], VISION[3], "vision_model.", ""];
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

    /// The spelling of the tensors of an image tower, which may be all that the checkpoint holds.
    pub(super) fn of_tower(weights: &Weights) -> Self {
        let holds = |prefix: &&&'static str| weights.contains(&format!("{prefix}embeddings.patch_embedding.weight"));
        let vision = TOWER.iter().find(holds).copied().unwrap_or_default();
        Self { vision, projector: "", text: "", head: String::new() }
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

/// What the paths of modules begin with in transformers 5.
const MODULES: [(&str, &str, &[&str]); 3] = [
    ("vision", "model.vision_tower.", VISION),
    ("projector", "model.multi_modal_projector.", PROJECTOR),
    ("text", "model.language_model.", TEXT),
];

/// The path of a module in transformers 5, which adapters name, by the graph builders' name.
pub(super) fn module(name: &str) -> String {
    let (part, rest) = name.split_once('.').unwrap_or((name, ""));
    match MODULES.iter().find(|(known, ..)| *known == part) {
        Some((_, path, _)) => format!("{path}{rest}"),
        None => "lm_head".to_owned(),
    }
}

/// The path of a module in transformers 5 by the path it has in any version, or in the names of a checkpoint.
pub(super) fn current_module(path: &str) -> Option<String> {
    MODULES.iter().find_map(|(_, current, spellings)| {
        let rest = spellings.iter().find_map(|spelling| path.strip_prefix(spelling))?;
        Some(format!("{current}{rest}"))
    })
}

/// The linear layers, those that PEFT's `all-linear` means: without the output matrix.
pub(super) fn linear_layers(weights: &Weights) -> Vec<LinearLayer> {
    let layer = |stored: &str| {
        let path = current_module(stored.strip_suffix(".weight")?)?;
        let [outputs, inputs] = *weights.stored(stored)?.shape else { return None };
        let table = path.contains("embed") || path.contains("lm_head");
        (!table).then(|| LinearLayer { path, weight: stored.to_owned(), size: [outputs, inputs] })
    };
    weights.names().into_iter().filter_map(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_a_module_mean_the_same() {
        for path in ["model.language_model.model.", "model.language_model.", "language_model.model.", "language_model."]
        {
            let found = current_module(&format!("{path}layers.0.mlp.up_proj"));
            assert_eq!(found, Some(module("text.layers.0.mlp.up_proj")), "{path}");
        }
        for path in ["model.vision_tower.vision_model.", "vision_tower.vision_model.", "vision_tower."] {
            let found = current_module(&format!("{path}encoder.layers.1.mlp.fc1"));
            assert_eq!(found.as_deref(), Some("model.vision_tower.encoder.layers.1.mlp.fc1"), "{path}");
        }
        assert_eq!(module("projector.linear"), "model.multi_modal_projector.linear");
        assert_eq!(current_module("transformer.h.0.attn"), None);
    }
}
