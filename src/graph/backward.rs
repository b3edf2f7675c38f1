//! Reverse-mode differentiation: adds the gradients of a loss to its graph, as ordinary nodes.
//!
//! One walk over the nodes, last to first. What concerns every operator is done here and in no rule: contributions are
//! summed, gradients of broadcast inputs are summed back to their size, and rules are asked only where a gradient has to
//! pass.

use std::collections::{HashMap, HashSet};

use super::ops::{self, Gradient, Op, Use};
use super::{Attribute, Builder, Dim, Node, Type, Value, is_standard};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Adds to the graph the gradients of `loss`, which has one element, with respect to each of `wanted`; `None` for those
/// that the loss does not depend on.
///
/// The nodes of each scope in `recomputed` (a prefix of node names, see [`Builder::enter`]) are computed once more on the
/// way back, so that their results need not be kept meanwhile. The gradients are the same to the bit.
///
/// # Errors
///
/// Input error naming operator and node where a gradient would have to cross an operator without a row.
pub fn gradients(
    builder: &mut Builder,
    loss: Value,
    wanted: &[Value],
    recomputed: &[String],
) -> Result<Vec<Option<Value>>> {
    let nodes = builder.nodes().to_vec();
    let dependent = dependents(builder, &nodes, wanted)?;
    let captured = builder.captured();
    let segments = segments(&nodes, recomputed);
    let mut walk = Walk { builder, dependent, captured, gradients: HashMap::new(), segments };
    let seed = seed(walk.builder, loss)?;
    walk.gradients.insert(loss, seed);
    for node in nodes.iter().rev() {
        walk.cross(node)?;
    }
    Ok(wanted.iter().map(|value| walk.gradients.get(value).copied()).collect())
}

/// The floating-point values that depend on `wanted`, themselves included.
fn dependents(builder: &Builder, nodes: &[Node], wanted: &[Value]) -> Result<HashSet<Value>> {
    let mut dependent: HashSet<Value> = wanted.iter().copied().collect();
    let captured = builder.captured();
    for node in nodes {
        let fed = reads(node, &captured).any(|input| dependent.contains(input));
        let crossed = !row_of(node).is_some_and(|row| matches!(row.gradient, Gradient::Zero { .. }));
        if fed && crossed {
            // Where nothing is known of a result it may carry a gradient.
            dependent.extend(
                node.outputs.iter().filter(|output| builder.ty(**output).map_or(true, |ty| ty.dtype.is_float())),
            );
        }
    }
    Ok(dependent)
}

/// What a node reads, through its sub-graphs too.
fn reads<'a>(node: &'a Node, captured: &'a HashMap<Value, Vec<Value>>) -> impl Iterator<Item = &'a Value> {
    let inside = node.outputs.first().and_then(|output| captured.get(output));
    node.inputs.iter().flatten().chain(inside.into_iter().flatten())
}

fn row_of(node: &Node) -> Option<&'static Op> {
    ops::find(&node.op).filter(|_| is_standard(&node.domain))
}

/// The gradient of the loss with respect to itself.
fn seed(builder: &mut Builder, loss: Value) -> Result<Value> {
    let ty = builder.ty(loss)?.clone();
    if !ty.dtype.is_float() || ty.dims.iter().any(|dim| *dim != Dim::Fixed(1)) {
        return Err(Error::input(format!("the loss `{}` is {ty}, not one number", builder.name_of(loss)))
            .hint("reduce it to its sum or mean"));
    }
    let one = builder.float(1.0, ty.dtype)?;
    let shape: Vec<i64> = vec![1; ty.dims.len()];
    if shape.is_empty() { Ok(one) } else { builder.reshape(one, &shape) }
}

/// A part of the graph that is computed once more on the way back.
struct Segment {
    nodes: Vec<Node>,
    /// The values that are computed again, by those of the forward pass; empty until the way back reaches the segment.
    again: HashMap<Value, Value>,
}

fn segments(nodes: &[Node], scopes: &[String]) -> Vec<Segment> {
    let within = |scope: &String| {
        let prefix = format!("{scope}/");
        nodes.iter().filter(|node| node.name.starts_with(&prefix)).cloned().collect()
    };
    scopes.iter().map(|scope| Segment { nodes: within(scope), again: HashMap::new() }).collect()
}

struct Walk<'a> {
    builder: &'a mut Builder,
    dependent: HashSet<Value>,
    /// What nodes read through their sub-graphs.
    captured: HashMap<Value, Vec<Value>>,
    /// Sums of the contributions so far.
    gradients: HashMap<Value, Value>,
    segments: Vec<Segment>,
}

impl Walk<'_> {
    /// Carries the gradients of a node's outputs to its inputs.
    fn cross(&mut self, node: &Node) -> Result<()> {
        let outputs: Vec<Option<Value>> =
            node.outputs.iter().map(|output| self.gradients.get(output).copied()).collect();
        let reached = outputs.iter().any(Option::is_some);
        if !reached || !reads(node, &self.captured).any(|input| self.dependent.contains(input)) {
            return Ok(());
        }
        let within = |error: Error| error.within(format!("cannot differentiate `{}` (node `{}`)", node.op, node.name));
        let row = row_of(node).ok_or_else(|| {
            Error::input(format!("cannot differentiate `{}` (node `{}`): no row in graph::ops", node.op, node.name))
                .hint("choose weights that the loss reaches without crossing it")
        })?;
        let Gradient::Rule(rule) = row.gradient else { return Ok(()) };
        let computed = self.recompute(node, &outputs).map_err(within)?;
        let site = Use { node: computed.as_ref().unwrap_or(node), gradients: &outputs };
        let contributions = rule(self.builder, &site).map_err(within)?;
        for (input, contribution) in node.inputs.iter().zip(contributions) {
            if let (Some(input), Some(contribution)) = (input, contribution)
                && self.dependent.contains(input)
            {
                self.add(*input, contribution).map_err(within)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, input: Value, contribution: Value) -> Result<()> {
        let contribution = sum_to(self.builder, contribution, input)?;
        let sum = match self.gradients.get(&input) {
            Some(so_far) => self.builder.add(*so_far, contribution)?,
            None => contribution,
        };
        self.gradients.insert(input, sum);
        Ok(())
    }

    /// The node over values that are computed again, where it lies in a segment.
    fn recompute(&mut self, node: &Node, outputs: &[Option<Value>]) -> Result<Option<Node>> {
        let Some(segment) =
            self.segments.iter_mut().find(|segment| segment.nodes.iter().any(|one| one.name == node.name))
        else {
            return Ok(None);
        };
        if segment.again.is_empty() {
            let gradient = outputs.iter().flatten().next();
            let gradient = *gradient.ok_or_else(|| Error::internal("no gradient reaches the segment"))?;
            segment.again = compute_again(self.builder, &segment.nodes, gradient)?;
        }
        let again = |value: &Value| segment.again.get(value).copied().unwrap_or(*value);
        Ok(Some(Node {
            inputs: node.inputs.iter().map(|input| input.as_ref().map(again)).collect(),
            outputs: node.outputs.iter().map(again).collect(),
            ..node.clone()
        }))
    }
}

/// Emits the nodes of a segment once more. What they read from before the segment is tied to `gradient`: it is there only
/// when the way back has come so far, so the runtime can neither merge the two computations nor start the second early.
fn compute_again(builder: &mut Builder, nodes: &[Node], gradient: Value) -> Result<HashMap<Value, Value>> {
    let inside: HashSet<Value> = nodes.iter().flat_map(|node| node.outputs.iter().copied()).collect();
    let made: HashSet<Value> = builder.nodes().iter().flat_map(|node| node.outputs.iter().copied()).collect();
    let mut again: HashMap<Value, Value> = HashMap::new();
    for input in nodes.iter().flat_map(|node| node.inputs.iter().flatten()) {
        if made.contains(input) && !inside.contains(input) && !again.contains_key(input) {
            let tied = tie(builder, *input, gradient)?;
            again.insert(*input, tied);
        }
    }
    for node in nodes {
        let inputs: Vec<Option<Value>> =
            node.inputs.iter().map(|input| input.map(|value| again.get(&value).copied().unwrap_or(value))).collect();
        let outputs = builder.repeat(node, &inputs)?;
        again.extend(node.outputs.iter().copied().zip(outputs));
    }
    Ok(again)
}

/// `value`, but not before `gradient` is there: its shape is computed with zero times a size of the gradient.
fn tie(builder: &mut Builder, value: Value, gradient: Value) -> Result<Value> {
    let ty = builder.ty(value)?.clone();
    let shape = builder.op("Shape", &[value], &[])?;
    let gradient_shape = builder.op("Shape", &[gradient], &[])?;
    let size = builder.op("ReduceSum", &[gradient_shape], &[("keepdims", Attribute::Int(0))])?;
    let zero = builder.scalar(0i64)?;
    let nothing = builder.mul(size, zero)?;
    let shape = builder.add(shape, nothing)?;
    let tied = builder.op("Reshape", &[value, shape], &[])?;
    builder.assume(tied, ty);
    Ok(tied)
}

/// Sums a gradient over the axes along which `input` was repeated to the gradient's shape.
fn sum_to(builder: &mut Builder, gradient: Value, input: Value) -> Result<Value> {
    let (from, to) = (builder.ty(gradient)?.clone(), builder.ty(input)?.clone());
    if from.dtype != to.dtype {
        return Err(Error::internal(format!("its gradient is {from}, but the input is {to}")));
    }
    let Some(leading) = from.dims.len().checked_sub(to.dims.len()) else {
        return Err(Error::internal(format!("its gradient is {from}, but the input is {to}")));
    };
    let mut gradient = gradient;
    if leading > 0 {
        gradient = sum_rows(builder, gradient, &from.dims[leading..], leading)?;
    }
    let pairs = || from.dims[leading..].iter().zip(&to.dims);
    let repeated = |(from, to): (&Dim, &Dim)| *to == Dim::Fixed(1) && *from != Dim::Fixed(1);
    let axes: Vec<i64> = (0..).zip(pairs()).filter(|(_, pair)| repeated(*pair)).map(|(axis, _)| axis).collect();
    if !axes.is_empty() {
        gradient = sum(builder, gradient, &axes, 1)?;
    }
    let decided = |(from, to): (&Dim, &Dim)| matches!(to, Dim::Fixed(_)) || (from == to && *to != Dim::Unknown);
    if !pairs().all(decided) {
        gradient = sum_to_shape(builder, gradient, input)?;
    }
    builder.assume(gradient, to);
    Ok(gradient)
}

/// Sums over the first axes. Where the rest has a known size it is a product of a row of ones with a matrix, which on the
/// CPU takes a third of the time of `ReduceSum` (5000 x 512, two threads: 0.17 against 0.55 ms).
fn sum_rows(builder: &mut Builder, gradient: Value, rest: &[Dim], leading: usize) -> Result<Value> {
    let size = |dim: &Dim| if let Dim::Fixed(size) = dim { Some(*size as i64) } else { None };
    let sizes: Option<Vec<i64>> = rest.iter().map(size).collect();
    let Some(sizes) = sizes.filter(|sizes| !sizes.is_empty()) else {
        let axes: Vec<i64> = (0..leading as i64).collect();
        return sum(builder, gradient, &axes, 0);
    };
    let rows = builder.reshape(gradient, &[-1, sizes.iter().product()])?;
    let count = builder.op("Shape", &[rows], &[("start", Attribute::Int(0)), ("end", Attribute::Int(1))])?;
    let one = builder.ints(&[1])?;
    let shape = builder.concat(&[one, count], 0)?;
    let dtype = builder.ty(gradient)?.dtype;
    let one = builder.float(1.0, dtype)?;
    let ones = builder.op("Expand", &[one, shape], &[])?;
    let dims = vec![Dim::Fixed(1), builder.ty(rows)?.dims[0].clone()];
    builder.assume(ones, Type { dtype, dims });
    let product = builder.matmul(ones, rows)?;
    builder.reshape(product, &sizes)
}

fn sum(builder: &mut Builder, value: Value, axes: &[i64], keep: i64) -> Result<Value> {
    let axes = builder.ints(axes)?;
    builder.op("ReduceSum", &[value, axes], &[("keepdims", Attribute::Int(keep))])
}

/// Sums over the axes whose sizes turn out to differ when the graph runs.
fn sum_to_shape(builder: &mut Builder, gradient: Value, input: Value) -> Result<Value> {
    let from = builder.op("Shape", &[gradient], &[])?;
    let to = builder.op("Shape", &[input], &[])?;
    let same = builder.op("Equal", &[from, to], &[])?;
    let differ = builder.op("Not", &[same], &[])?;
    let axes = builder.op("NonZero", &[differ], &[])?;
    let flat = builder.constant(Tensor::vector(vec![-1i64]))?;
    let axes = builder.op("Reshape", &[axes, flat], &[])?;
    let attributes = [("keepdims", Attribute::Int(1)), ("noop_with_empty_axes", Attribute::Int(1))];
    builder.op("ReduceSum", &[gradient, axes], &attributes)
}
