//! What a plan trains, as the loop takes it: the graph of the loss, start values, roles and anchors of its tensors.

use super::plan::TrainingPlan;
use crate::error::{Error, Result};
use crate::graph::matches_pattern;
use crate::model::Checkpoint;
use crate::model::adapter::{self, Adapter};
use crate::model::training::{Collation, Lora, Role, Trained, TrainedTensor, TrainingGraph};
use crate::model::weights::{ConvertedWeights, Placement};
use crate::train::{self, Anchor, Parameter};

/// What the loop trains, and how batches are laid out for it.
pub(super) struct Prepared {
    pub task: train::Task,
    pub collation: Collation,
    /// Mapped when the loop makes its session.
    pub converted: Option<ConvertedWeights>,
}

impl Prepared {
    /// # Errors
    /// Input error for a pattern that matches nothing, and for an anchored method that all tensors are excluded from.
    pub(super) fn new(plan: &TrainingPlan, checkpoint: &Checkpoint, trained: &Trained) -> Result<Self> {
        let mut ignore = |_| ();
        let mut placement = Placement::new(&checkpoint.weights, plan.dtype, &plan.scratch, &mut ignore)?;
        let graph = checkpoint.training_graph(&mut placement, trained)?;
        let evaluation = match plan.method.method.search {
            Some(_) if !graph.masks.is_empty() => Some(evaluation_graph(checkpoint, &mut placement, trained)?),
            _ => None,
        };
        let (folder, converted) = placement.finish()?;
        let parameters = parameters(plan, checkpoint, &graph.trained)?;
        let TrainingGraph { graph, masks, image_tokens, layers, .. } = graph;
        let dropout = plan.lora.as_ref().map_or(0.0, |lora| lora.dropout);
        let collation = Collation { image_tokens, masks: masks.into(), dropout };
        let recomputed = if plan.recompute { layers } else { Vec::new() };
        let task = train::Task { graph, folder, evaluation, parameters, recomputed };
        Ok(Self { task, collation, converted })
    }
}

/// Refuses what [`Prepared::new`] would, without reading a tensor.
///
/// # Errors
/// As there.
pub(super) fn check_trained(plan: &TrainingPlan, checkpoint: &Checkpoint) -> Result<()> {
    let trained = Trained { parameters: plan.parameters.clone(), adapter: adapted(plan, checkpoint)? };
    let mut ignore = |_| ();
    let mut placement = Placement::checked(&checkpoint.weights, plan.dtype, &mut ignore);
    let graph = checkpoint.training_graph(&mut placement, &trained)?;
    check_selection(plan, checkpoint, &graph.trained)
}

/// The graph without dropout.
fn evaluation_graph(
    checkpoint: &Checkpoint,
    placement: &mut Placement,
    trained: &Trained,
) -> Result<crate::graph::Graph> {
    let adapter = trained.adapter.as_ref().map(|lora| Lora { dropout: 0.0, ..lora.clone() });
    let trained = Trained { parameters: trained.parameters.clone(), adapter };
    Ok(checkpoint.training_graph(placement, &trained)?.graph)
}

/// All that trains, with its value before the first step: that of the checkpoint or of its adapter, else of a new adapter.
fn parameters(plan: &TrainingPlan, checkpoint: &Checkpoint, trained: &[TrainedTensor]) -> Result<Vec<Parameter>> {
    check_selection(plan, checkpoint, trained)?;
    let new = adapter::initial_matrices(trained, plan.seed)?;
    let known = checkpoint.adapter.as_ref().map(|adapter| &adapter.tensors);
    let value = |TrainedTensor { name, shape, .. }: &TrainedTensor| match known.and_then(|tensors| tensors.get(name)) {
        Some(tensor) => Ok(tensor.clone()),
        None => new.get(name).cloned().map_or_else(|| checkpoint.weights.values(name, shape), Ok),
    };
    let parameter = |tensor: &TrainedTensor| {
        let (name, role) = (tensor.name.clone(), role(tensor));
        Ok(Parameter { start: value(tensor)?, role, anchor: plan.anchor_of(&name), name })
    };
    trained.iter().map(parameter).collect()
}

/// What a tensor is for, as methods tell tensors apart.
fn role(tensor: &TrainedTensor) -> train::Role {
    match tensor.role {
        _ if tensor.name.ends_with(".bias") => train::Role::Bias,
        Role::Norm => train::Role::NormScale,
        Role::Head | Role::Inner => train::Role::Weight,
    }
}

/// The LoRA matrices to train, with targets that each name a layer. Training goes on with an adapter only as it is.
pub(super) fn adapted(plan: &TrainingPlan, checkpoint: &Checkpoint) -> Result<Option<Lora>> {
    let select = |lora: &Lora| {
        let targets = adapter::select(&lora.targets, &checkpoint.linear_layers())?;
        Ok(Lora { targets, ..lora.clone() })
    };
    let chosen = plan.lora.as_ref().map(select).transpose()?;
    let Some(start) = checkpoint.adapter.as_ref().map(Adapter::lora) else { return Ok(chosen) };
    let layers = |lora: &Lora| -> Vec<String> {
        let layers = checkpoint.linear_layers().into_iter().map(|layer| layer.path);
        layers.filter(|layer| lora.includes(layer)).collect()
    };
    let goes_on =
        |lora: &Lora| lora.rank == start.rank && lora.scale() == start.scale() && layers(lora) == layers(&start);
    if chosen.as_ref().is_some_and(goes_on) {
        return Ok(chosen);
    }
    let (rank, alpha) = (start.rank, start.alpha);
    Err(Error::input(format!("`{}` is an adapter of other settings", checkpoint.folder.display())).hint(format!(
        "go on with it by --lora with r={rank}, alpha={alpha} and its layers, or merge it first: `digrap-bench export`"
    )))
}

/// Refuses patterns that select nothing, and a method that is left without an anchor.
fn check_selection(plan: &TrainingPlan, checkpoint: &Checkpoint, trained: &[TrainedTensor]) -> Result<()> {
    let matches = |pattern: &str| trained.iter().any(|tensor| matches_pattern(pattern, &tensor.name));
    let excluded = plan.exclude.iter().map(String::as_str).find(|pattern| !matches(pattern));
    let unmatched = plan.parameters.unmatched(trained).map(|pattern| (pattern, "parameter of the model"));
    if let Some((pattern, what)) = unmatched.or(excluded.map(|pattern| (pattern, "trained parameter"))) {
        let all: Vec<&str> = match what {
            "trained parameter" => trained.iter().map(|tensor| tensor.name.as_str()).collect(),
            _ => checkpoint.weights.names(),
        };
        return Err(Error::input(format!("the pattern `{pattern}` matches no {what}")).hint(format!(
            "parameters are named {}, ...; `*` stands for any text",
            all[..all.len().min(3)].join(", ")
        )));
    }
    let anchored = |tensor: &TrainedTensor| plan.anchor_of(&tensor.name) != Anchor::None;
    if plan.method.method.anchored && !trained.iter().any(anchored) {
        let method = plan.method.method.name;
        return Err(Error::input(format!("{method} holds tensors to anchors, and every trained tensor is excluded"))
            .hint("exclude less, or use --method vanilla"));
    }
    Ok(())
}
