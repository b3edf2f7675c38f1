//! Losses over class labels.

use super::activation::through_log_softmax;
use super::arithmetic::drop_where;
use super::dims::without_axes;
use super::layout::zeros_like;
use super::{Attribute, Case, Gradient, Op, Site, Type, Use, expand_like};
use crate::error::{Error, Result};
use crate::graph::{Builder, Value};
use crate::tensor::{DType, Tensor};

/// The rows of this file. Classes are axis 1; labels have the other axes. Weights of classes carry no gradient.
pub(super) const ROWS: &[Op] = &[
    Op {
        name: "SoftmaxCrossEntropyLoss",
        shape: cross_entropy_types,
        gradient: Gradient::Rule(cross_entropy),
        cases: || {
            let mut cases = uses();
            cases.push(Case::new().input("batch,5,tokens").input("i5:batch,tokens").results(2));
            cases
        },
    },
    Op { name: "NegativeLogLikelihoodLoss", shape: loss_type, gradient: Gradient::Rule(likelihood), cases: uses },
];

fn uses() -> Vec<Case> {
    let scores = || Case::new().input("batch,5,tokens").input("i5:batch,tokens");
    let weights = || Tensor::vector(vec![0.5f32, 2.0, 1.0, 0.25, 3.0]);
    let reduced = |case: Case, how: &str| case.with("reduction", Attribute::Text(how.to_owned()));
    vec![
        scores(),
        reduced(scores(), "sum"),
        reduced(scores().constant(weights()), "none").int("ignore_index", 2),
        scores().constant(weights()).int("ignore_index", 0),
        Case::new().input("batch,5,3,tokens").input("i5:batch,3,tokens").int("ignore_index", 4).unknown(),
        Case::new().input("tokens,5").input("i5:tokens").constant(weights()),
    ]
}

fn reduction<'a>(site: &super::Attributes<'a>) -> &'a str {
    site.text("reduction").unwrap_or("mean")
}

fn loss_type(site: &Site) -> Result<Vec<Type>> {
    let (scores, labels) = (site.input(0)?, site.input(1)?);
    let without = without_axes(&scores.dims, &[1], false);
    if without.len() != labels.dims.len() || labels.dtype.is_float() {
        return Err(Error::internal(format!("labels are {labels} for scores {scores}")));
    }
    let dims = if reduction(site) == "none" { without } else { Vec::new() };
    Ok(vec![Type { dtype: scores.dtype, dims }])
}

/// The logarithms of the probabilities are an optional second result.
fn cross_entropy_types(site: &Site) -> Result<Vec<Type>> {
    let mut types = loss_type(site)?;
    if site.outputs > 1 {
        types.push(site.input(0)?.clone());
    }
    Ok(types)
}

/// Labels with a class in place of each ignored one, and by how much the logarithm of a label's probability counts: zero
/// where it is ignored.
struct Labels {
    classes: Value,
    gradient: Value,
}

/// The loss is minus the sum over labels of weight times logarithm, divided by the sum of weights for the mean.
fn labels(builder: &mut Builder, site: &Use, loss: Value) -> Result<Labels> {
    let (scores, labels) = (site.input(0)?, builder.cast(site.input(1)?, DType::I64)?);
    let dtype = builder.ty(scores)?.dtype;
    let ignored = match site.attributes().int("ignore_index") {
        Some(index) => {
            let index = builder.scalar(index)?;
            Some(builder.op("Equal", &[labels, index], &[])?)
        }
        None => None,
    };
    let classes = match ignored {
        Some(ignored) => {
            let zero = builder.scalar(0i64)?;
            builder.op("Where", &[ignored, zero, labels], &[])?
        }
        None => labels,
    };
    let mut weights = match site.optional(2) {
        Some(weights) => builder.gather(weights, classes, 0)?,
        None => {
            let one = builder.float(1.0, dtype)?;
            expand_like(builder, one, labels)?
        }
    };
    if let Some(ignored) = ignored {
        weights = drop_where(builder, ignored, weights)?;
    }
    let mut gradient = builder.op("Neg", &[loss], &[])?;
    if reduction(&site.attributes()) == "mean" {
        let total = builder.op("ReduceSum", &[weights], &[("keepdims", Attribute::Int(0))])?;
        gradient = builder.op("Div", &[gradient, total], &[])?;
    }
    Ok(Labels { classes, gradient: builder.mul(weights, gradient)? })
}

/// `values` plus the gradient of each label at its class: a class appears once per label, so no two threads meet there.
fn plus_at_classes(builder: &mut Builder, values: Value, labels: &Labels) -> Result<Value> {
    let classes = builder.unsqueeze(labels.classes, &[1])?;
    let updates = builder.unsqueeze(labels.gradient, &[1])?;
    let attributes = [("axis", Attribute::Int(1)), ("reduction", Attribute::Text("add".to_owned()))];
    builder.op("ScatterElements", &[values, classes, updates], &attributes)
}

/// The gradient goes to the logarithm of each label's probability.
fn likelihood(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let labels = labels(builder, site, site.gradient()?)?;
    let zeros = zeros_like(builder, site.input(0)?)?;
    Ok(vec![Some(plus_at_classes(builder, zeros, &labels)?), None, None])
}

/// With `p` the softmax and `t` the gradient of a label's logarithm: `dx = t (one-hot - p)`, to which the gradient of the
/// second result adds what passes a `LogSoftmax`.
fn cross_entropy(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let logarithms = builder.optional_output(site.node, 1)?;
    let direct = match site.gradients.get(1).copied().flatten() {
        Some(gradient) => Some(through_log_softmax(builder, logarithms, gradient, 1)?),
        None => None,
    };
    let Some(loss) = site.gradients[0] else { return Ok(vec![direct, None, None]) };
    let labels = labels(builder, site, loss)?;
    let softmax = builder.op("Exp", &[logarithms], &[])?;
    let factor = builder.op("Neg", &[labels.gradient], &[])?;
    let factor = builder.unsqueeze(factor, &[1])?;
    let spread = builder.mul(softmax, factor)?;
    let through_loss = plus_at_classes(builder, spread, &labels)?;
    let by_scores = direct.map_or(Ok(through_loss), |direct| builder.add(direct, through_loss))?;
    Ok(vec![Some(by_scores), None, None])
}
