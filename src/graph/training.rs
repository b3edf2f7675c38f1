//! The training graph of a model: its own nodes, a loss and the loss's gradients as one ONNX graph, which any ONNX
//! Runtime can run.

use std::collections::HashSet;
use std::str::FromStr;

use serde::Serialize;

use super::{Attribute, Builder, Dim, Graph, OPSET, Type, Value, gradients, is_standard, upgrade};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// Labels with this number count for nothing in a cross-entropy, as by default in PyTorch.
pub const IGNORED_LABEL: i64 = -100;

/// Names that an error lists at most.
const LISTED: usize = 8;

/// What is minimised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// A value of the graph, by its name.
    Value(String),
    /// The mean cross-entropy between the softmax of a value over its last axis and the new input `labels`.
    CrossEntropy {
        /// Name of the value, whose last axis is that of the classes.
        logits: String,
    },
}

impl FromStr for Loss {
    type Err = Error;

    /// `cross-entropy:LOGITS`, or the name of a value.
    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("cross-entropy:") {
            Some("") => Err(Error::input("`cross-entropy:` does not say what the logits are")
                .hint("write `cross-entropy:` and the name of the logits, e.g. `cross-entropy:logits`")),
            Some(logits) => Ok(Self::CrossEntropy { logits: logits.to_owned() }),
            None => Ok(Self::Value(text.to_owned())),
        }
    }
}

/// What a training graph consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrainingReport {
    /// Number of nodes.
    pub nodes: usize,
    /// Names of the inputs that are no weights: those of the model, then `labels` where there are any.
    pub inputs: Vec<String>,
    /// Names of the outputs that are no gradients: those of the model, then `loss`.
    pub outputs: Vec<String>,
    /// Names of the weights. Each is an input, and its gradient is the output `grad/<weight>`.
    pub weights: Vec<String>,
    /// Number of elements of all weights.
    pub parameters: usize,
    /// Number of initialisers that stay in the graph.
    pub constants: usize,
    /// Initialisers that would be weights if the loss depended on them.
    pub independent: Vec<String>,
}

/// Adds a loss and its gradients to the graph of a model.
///
/// The gradients are those with respect to the initialisers whose names match one of the patterns `wrt` (`*` stands for
/// any characters). Without patterns they are those with respect to all floating-point initialisers that the loss
/// depends on, except those without dimensions, those that were `Constant` nodes and the running statistics of
/// `BatchNormalization`, which are no parameters.
///
/// The inputs of the result are those of `graph`, `labels` for a cross-entropy (`i64`, the shape of the logits without
/// their last axis, [`IGNORED_LABEL`] where there is no label), and the weights under their names; its outputs are those
/// of `graph`, `loss`, and `grad/<weight>` for each weight.
///
/// # Errors
///
/// Input errors: a graph of another opset; a loss that is not there or not one number; logits without a class axis; a
/// pattern that matches nothing or matches a weight that the loss does not depend on; an operator without a row that a
/// gradient would have to cross; a name that is taken.
pub fn training_graph(graph: Graph, loss: &Loss, wrt: &[String]) -> Result<(Graph, TrainingReport)> {
    if graph.opset() != Some(OPSET) {
        let opset = graph.opset().map_or_else(|| "no standard operators".to_owned(), |opset| format!("opset {opset}"));
        return Err(Error::input(format!("the model uses {opset}"))
            .hint(format!("export it with opset {} to {OPSET}", upgrade::OLDEST)));
    }
    let chosen = if wrt.is_empty() { parameters(&graph) } else { matching(&graph, wrt)? };
    let mut builder = Builder::resume(graph);
    builder.enter("loss");
    let loss = emit_loss(&mut builder, loss)?;
    builder.leave();
    // Only what is fed is a variable to the rules; what is constant they may compute with.
    let mut held = builder.release(&chosen)?;
    builder.enter("gradients");
    let found = gradients(&mut builder, loss, &chosen, &[])?;
    builder.leave();
    let pairs: Vec<(Value, Value)> =
        chosen.iter().zip(found).filter_map(|(weight, found)| Some((*weight, found?))).collect();
    held.retain(|(weight, _)| !pairs.iter().any(|(with, _)| with == weight));
    let without: Vec<Value> = held.iter().map(|(weight, _)| *weight).collect();
    let independent = named(&without, builder.graph());
    if !wrt.is_empty() && !independent.is_empty() {
        return Err(Error::input(format!("the loss does not depend on {}", list(&independent))));
    }
    builder.retain(held);
    finish(builder, loss, &pairs, independent)
}

/// Adds the gradients of a loss that is a value of the graph, with respect to inputs of the graph.
///
/// The inputs of the result are those of `graph`; its outputs are those of `graph`, `loss`, and `grad/<input>` for each
/// of `weights` that the loss depends on.
///
/// # Errors
///
/// As [`training_graph`]; internal error where one of `weights` is no input.
pub fn input_gradients(graph: Graph, loss: &str, weights: &[&str]) -> Result<(Graph, TrainingReport)> {
    let find = |name: &&str| {
        let found = graph.inputs.iter().find(|input| graph.name_of(**input) == *name);
        found.copied().ok_or_else(|| Error::internal(format!("the graph has no input `{name}`")))
    };
    let chosen = weights.iter().map(find).collect::<Result<Vec<_>>>()?;
    let loss = find_scalar(&graph, loss)?;
    let mut builder = Builder::resume(graph);
    builder.enter("gradients");
    let found = gradients(&mut builder, loss, &chosen, &[])?;
    builder.leave();
    let (with, without): (Vec<_>, Vec<_>) = chosen.into_iter().zip(found).partition(|(_, found)| found.is_some());
    let without: Vec<Value> = without.into_iter().map(|(weight, _)| weight).collect();
    let independent = named(&without, builder.graph());
    let pairs: Vec<(Value, Value)> = with.into_iter().filter_map(|(weight, found)| Some((weight, found?))).collect();
    finish(builder, loss, &pairs, independent)
}

/// Hands out the loss and the gradients, and describes the graph.
fn finish(
    mut builder: Builder,
    loss: Value,
    pairs: &[(Value, Value)],
    independent: Vec<String>,
) -> Result<(Graph, TrainingReport)> {
    if pairs.is_empty() {
        return Err(Error::input("the loss depends on no weight of the model"));
    }
    hand_out(&mut builder, loss, pairs)?;
    let graph = builder.finish();
    let weights: Vec<Value> = pairs.iter().map(|(weight, _)| *weight).collect();
    let others: Vec<Value> = graph.inputs.iter().copied().filter(|input| !weights.contains(input)).collect();
    let report = TrainingReport {
        nodes: graph.nodes.len(),
        inputs: named(&others, &graph),
        outputs: named(&graph.outputs[..graph.outputs.len() - weights.len()], &graph),
        parameters: weights.iter().map(|weight| elements(&graph, *weight)).sum(),
        weights: named(&weights, &graph),
        constants: graph.initializers.len(),
        independent,
    };
    Ok((graph, report))
}

fn named(values: &[Value], graph: &Graph) -> Vec<String> {
    values.iter().map(|value| graph.name_of(*value).to_owned()).collect()
}

/// Turns the loss and the gradients into outputs.
fn hand_out(builder: &mut Builder, loss: Value, pairs: &[(Value, Value)]) -> Result<()> {
    let is_output = builder.graph().outputs.contains(&loss);
    if builder.name_of(loss) != "loss" {
        free(builder, "loss")?;
    }
    if !is_output || builder.name_of(loss) != "loss" {
        builder.output("loss", loss)?;
    }
    for (weight, gradient) in pairs {
        let name = format!("grad/{}", builder.name_of(*weight));
        free(builder, &name)?;
        builder.output(&name, *gradient)?;
    }
    Ok(())
}

/// Makes a name free, which an inner value of the model may have.
fn free(builder: &mut Builder, name: &str) -> Result<()> {
    if !builder.is_taken(name) {
        return Ok(());
    }
    let graph = builder.graph();
    let inner = graph.find(name).filter(|value| {
        graph.nodes.iter().any(|node| node.outputs.contains(value))
            && !graph.outputs.contains(value)
            && !builder.captured().values().any(|values| values.contains(value))
    });
    match inner {
        Some(value) => builder.vacate(value),
        None => Err(Error::input(format!("the training graph needs the name `{name}`, which the model uses"))
            .hint("rename that input, output or initialiser of the model")),
    }
}

fn elements(graph: &Graph, value: Value) -> usize {
    let sizes = graph.type_of(value).into_iter().flat_map(|ty| &ty.dims);
    sizes.map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).product()
}

/// The floating-point initialisers that a file holds.
fn stored(graph: &Graph) -> impl Iterator<Item = Value> {
    let float = |value: Value| graph.type_of(value).is_some_and(|ty| ty.dtype.is_float());
    let values = graph.initializers.iter().map(|(value, _)| *value);
    values.filter(move |value| float(*value) && !graph.literals.contains(value))
}

/// The initialisers that are parameters of a model.
fn parameters(graph: &Graph) -> Vec<Value> {
    let statistics = running_statistics(graph);
    let has_dims = |value: &Value| graph.type_of(*value).is_some_and(|ty| !ty.dims.is_empty());
    stored(graph).filter(|value| has_dims(value) && !statistics.contains(value)).collect()
}

/// The values that give `BatchNormalization` its mean and variance, by way of operators that compute nothing.
fn running_statistics(graph: &Graph) -> HashSet<Value> {
    const MOVES: [&str; 7] = ["Cast", "CastLike", "Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze"];
    let mut statistics = HashSet::new();
    for node in graph.nodes.iter().rev().filter(|node| is_standard(&node.domain)) {
        let inputs = match node.op.as_str() {
            "BatchNormalization" => node.inputs.get(3..5),
            op if MOVES.contains(&op) && node.outputs.iter().any(|output| statistics.contains(output)) => {
                node.inputs.get(..1)
            }
            _ => None,
        };
        statistics.extend(inputs.into_iter().flatten().flatten());
    }
    statistics
}

/// The initialisers whose names match one of the patterns, in the order of the file.
fn matching(graph: &Graph, patterns: &[String]) -> Result<Vec<Value>> {
    let weights: Vec<(Value, &str)> = stored(graph).map(|value| (value, graph.name_of(value))).collect();
    for pattern in patterns {
        if !weights.iter().any(|(_, name)| matches_pattern(pattern, name)) {
            let names: Vec<&str> = weights.iter().map(|(_, name)| *name).collect();
            return Err(Error::input(format!("no floating-point initialiser of the model matches `{pattern}`"))
                .hint(if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", list(&names)) }));
        }
    }
    let matched = weights.iter().filter(|(_, name)| patterns.iter().any(|pattern| matches_pattern(pattern, name)));
    Ok(matched.map(|(value, _)| *value).collect())
}

/// Whether a name matches a pattern, in which `*` stands for any characters.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(inner) = name.strip_prefix(first).and_then(|name| name.strip_suffix(last)) else { return false };
    let mut left = Some(inner);
    for part in middle.split('*') {
        left = left.and_then(|left| left.split_once(part)).map(|(_, after)| after);
    }
    left.is_some()
}

/// Up to eight names.
fn list<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<String> = names.iter().take(LISTED).map(|name| format!("`{}`", name.as_ref())).collect();
    let more = if names.len() > LISTED { format!(" and {} more", names.len() - LISTED) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn emit_loss(builder: &mut Builder, loss: &Loss) -> Result<Value> {
    match loss {
        Loss::Value(name) => find_scalar(builder.graph(), name),
        Loss::CrossEntropy { logits } => {
            let logits = find_logits(builder.graph(), logits)?;
            let ty = builder.ty(logits)?.clone();
            free(builder, "labels")?;
            let dims = ty.dims[..ty.dims.len() - 1].to_vec();
            let labels = builder.input("labels", Type::new(DType::I64, dims))?;
            cross_entropy(builder, logits, labels)
        }
    }
}

/// The value of this name, which has one element.
fn find_scalar(graph: &Graph, name: &str) -> Result<Value> {
    let one = |ty: &Type| ty.dtype.is_float() && ty.dims.iter().all(|dim| *dim == Dim::Fixed(1));
    let hint = || {
        let made = graph.nodes.iter().flat_map(|node| node.outputs.iter().copied());
        let mut found: Vec<Value> = made.filter(|value| graph.type_of(*value).is_some_and(one)).collect();
        found.sort_by_key(|value| !graph.outputs.contains(value));
        let names: Vec<&str> = found.into_iter().map(|value| graph.name_of(value)).collect();
        match names.as_slice() {
            [] => "no value of the model is one number; use `cross-entropy:` and the name of the logits".to_owned(),
            names => format!("values that are one number: {}", list(names)),
        }
    };
    let value =
        graph.find(name).ok_or_else(|| Error::input(format!("the model has no value `{name}`")).hint(hint()))?;
    match graph.type_of(value) {
        Some(ty) if one(ty) => Ok(value),
        Some(ty) => Err(Error::input(format!("`{name}` is {ty}, which is not one number")).hint(hint())),
        None => Err(Error::input(format!("whether `{name}` is one number is not known")).hint(hint())),
    }
}

/// The value of this name, whose last axis is that of the classes.
fn find_logits(graph: &Graph, name: &str) -> Result<Value> {
    let fits = |ty: &Type| ty.dtype.is_float() && ty.dims.len() > 1;
    let hint = || {
        let outputs = graph.outputs.iter().filter(|value| graph.type_of(**value).is_some_and(fits));
        let names: Vec<&str> = outputs.map(|value| graph.name_of(*value)).collect();
        match names.as_slice() {
            [] => "no output of the model has a batch axis and a class axis".to_owned(),
            names => format!("outputs that can be logits: {}", list(names)),
        }
    };
    let value =
        graph.find(name).ok_or_else(|| Error::input(format!("the model has no value `{name}`")).hint(hint()))?;
    match graph.type_of(value) {
        Some(ty) if fits(ty) => Ok(value),
        Some(ty) => Err(Error::input(format!(
            "`{name}` is {ty}, not a floating-point value with a class axis behind a batch axis"
        ))
        .hint(hint())),
        None => Err(Error::input(format!("the dimensions of `{name}` are not known")).hint(hint())),
    }
}

/// Mean over the labels that are not [`IGNORED_LABEL`] of the negated logarithm of the softmax at the label, in `f32`
/// (in `f64` where the logits are). It is not a number where all are ignored, and ONNX Runtime refuses labels outside of
/// the classes; both as in PyTorch's `cross_entropy`.
fn cross_entropy(builder: &mut Builder, logits: Value, labels: Value) -> Result<Value> {
    let dtype = if builder.ty(logits)?.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let logits = builder.cast(logits, dtype)?;
    let log_softmax = builder.op("LogSoftmax", &[logits], &[("axis", Attribute::Int(-1))])?;
    let (ignored, zero, beyond) =
        (builder.scalar(IGNORED_LABEL)?, builder.scalar(0i64)?, builder.scalar(i64::from(i32::MAX))?);
    let is_ignored = builder.op("Equal", &[labels, ignored], &[])?;
    let labels = builder.op("Where", &[is_ignored, zero, labels], &[])?;
    // To the operator that picks them, negative ones would count from the last class.
    let is_negative = builder.op("Less", &[labels, zero], &[])?;
    let labels = builder.op("Where", &[is_negative, beyond, labels], &[])?;
    let index = builder.unsqueeze(labels, &[-1])?;
    let picked = builder.op("GatherElements", &[log_softmax, index], &[("axis", Attribute::Int(-1))])?;
    let last = builder.ints(&[-1])?;
    let picked = builder.op("Squeeze", &[picked, last], &[])?;
    let (one, none) = (builder.float(1.0, dtype)?, builder.float(0.0, dtype)?);
    let counts = builder.op("Where", &[is_ignored, none, one], &[])?;
    let counted = builder.op("Where", &[is_ignored, none, picked], &[])?;
    let sum = builder.op("ReduceSum", &[counted], &[("keepdims", Attribute::Int(0))])?;
    let count = builder.op("ReduceSum", &[counts], &[("keepdims", Attribute::Int(0))])?;
    let mean = builder.op("Div", &[sum, count], &[])?;
    builder.op("Neg", &[mean], &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, name, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("*", "", true),
            ("*.weight", "a.weight", true),
            ("*.weight", "a.weights", false),
            ("layer.*.bias", "layer.0.bias", true),
            ("layer.*.bias", "layer.bias", false),
            ("*norm*", "a.layernorm.weight", true),
            ("a*b*c*d", "a-b-c-d", true),
            ("a*b*c*d", "a-c-b-d", false),
            ("ab*ba", "aba", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn losses_are_read() {
        assert_eq!("total".parse::<Loss>().unwrap(), Loss::Value("total".to_owned()));
        let logits = "out:0".to_owned();
        assert_eq!("cross-entropy:out:0".parse::<Loss>().unwrap(), Loss::CrossEntropy { logits });
        assert!("cross-entropy:".parse::<Loss>().is_err());
    }
}
