//! Activations and softmax.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use super::arithmetic::{drop_where, keep, offset, versus_zero};
use super::{Attribute, Case, Gradient, Op, Use, same};
use crate::error::Result;
use crate::graph::{Builder, Value};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Tanh", shape: same, gradient: Gradient::Rule(tanh), cases: any },
    Op { name: "Sigmoid", shape: same, gradient: Gradient::Rule(sigmoid), cases: any },
    Op { name: "Softplus", shape: same, gradient: Gradient::Rule(softplus), cases: any },
    Op { name: "Erf", shape: same, gradient: Gradient::Rule(erf), cases: any },
    Op { name: "Relu", shape: same, gradient: Gradient::Rule(relu), cases: nonzero },
    Op { name: "LeakyRelu", shape: same, gradient: Gradient::Rule(leaky_relu), cases: with_alpha },
    Op { name: "Elu", shape: same, gradient: Gradient::Rule(elu), cases: with_alpha },
    Op {
        name: "PRelu",
        shape: same,
        gradient: Gradient::Rule(parametric_relu),
        cases: || {
            vec![
                Case::new().input("~:batch,4,tokens").input("4,1"),
                Case::new().input("~:batch,tokens").input("1").unknown(),
            ]
        },
    },
    Op {
        name: "HardSigmoid",
        shape: same,
        gradient: Gradient::Rule(hard_sigmoid),
        cases: || {
            let data = || Case::new().input("~:batch,tokens,4");
            vec![data(), data().with("alpha", Attribute::Float(0.75)).with("beta", Attribute::Float(0.375))]
        },
    },
    Op { name: "HardSwish", shape: same, gradient: Gradient::Rule(hard_swish), cases: any },
    Op {
        name: "Gelu",
        shape: same,
        gradient: Gradient::Rule(gelu),
        cases: || {
            let data = || Case::new().input("batch,tokens,4");
            vec![data(), data().with("approximate", Attribute::Text("tanh".to_owned()))]
        },
    },
    Op { name: "Softmax", shape: same, gradient: Gradient::Rule(softmax), cases: along_axes },
    Op { name: "LogSoftmax", shape: same, gradient: Gradient::Rule(log_softmax), cases: along_axes },
];

fn any() -> Vec<Case> {
    vec![Case::new().input("batch,tokens,4")]
}

fn nonzero() -> Vec<Case> {
    vec![Case::new().input("~:batch,tokens,4")]
}

fn with_alpha() -> Vec<Case> {
    let data = || Case::new().input("~:batch,tokens,4");
    vec![data(), data().with("alpha", Attribute::Float(0.25))]
}

fn along_axes() -> Vec<Case> {
    vec![
        Case::new().input("batch,4,tokens"),
        Case::new().input("batch,4,tokens").int("axis", 1),
        Case::new().input("batch,tokens").int("axis", 0).unknown(),
    ]
}

/// `d tanh(x) = (1 - y^2) dx`.
fn tanh(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (y, gradient) = (site.output(0)?, site.gradient()?);
    let square = builder.mul(y, y)?;
    let less = builder.mul(gradient, square)?;
    Ok(vec![Some(builder.op("Sub", &[gradient, less], &[])?)])
}

/// `d sigmoid(x) = y (1 - y) dx`.
fn sigmoid(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let y = site.output(0)?;
    let product = builder.mul(site.gradient()?, y)?;
    let less = builder.mul(product, y)?;
    Ok(vec![Some(builder.op("Sub", &[product, less], &[])?)])
}

/// `d log(1 + exp(x)) = sigmoid(x) dx`.
fn softplus(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let slope = builder.op("Sigmoid", &[site.input(0)?], &[])?;
    Ok(vec![Some(builder.mul(site.gradient()?, slope)?)])
}

/// `d erf(x) = 2 / sqrt(pi) exp(-x^2) dx`.
fn erf(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let x = site.input(0)?;
    let square = builder.mul(x, x)?;
    let bell = builder.op("Neg", &[square], &[])?;
    let bell = builder.op("Exp", &[bell], &[])?;
    let slope = builder.scale(bell, FRAC_2_SQRT_PI)?;
    Ok(vec![Some(builder.mul(site.gradient()?, slope)?)])
}

/// The gradient where `x` is positive, so none at zero, as in PyTorch.
fn relu(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let positive = versus_zero(builder, "Greater", site.output(0)?)?;
    Ok(vec![Some(keep(builder, positive, site.gradient()?)?)])
}

/// The gradient where `x` is positive, elsewhere `alpha` times it.
fn leaky_relu(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = site.gradient()?;
    let positive = versus_zero(builder, "Greater", site.input(0)?)?;
    let flat = builder.scale(gradient, site.attributes().float("alpha").unwrap_or(0.01))?;
    Ok(vec![Some(builder.op("Where", &[positive, gradient, flat], &[])?)])
}

/// The gradient where `x` is positive, elsewhere `alpha exp(x) = y + alpha` times it.
fn elu(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = site.gradient()?;
    let positive = versus_zero(builder, "Greater", site.input(0)?)?;
    let slope = offset(builder, site.output(0)?, site.attributes().float("alpha").unwrap_or(1.0))?;
    let curved = builder.mul(gradient, slope)?;
    Ok(vec![Some(builder.op("Where", &[positive, gradient, curved], &[])?)])
}

/// As of [`leaky_relu`]; where `x` is not positive the slope has the gradient `x dy`.
fn parametric_relu(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, slope, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let positive = versus_zero(builder, "Greater", x)?;
    let flat = builder.mul(gradient, slope)?;
    let by_data = builder.op("Where", &[positive, gradient, flat], &[])?;
    let product = builder.mul(gradient, x)?;
    Ok(vec![Some(by_data), Some(drop_where(builder, positive, product)?)])
}

/// `alpha` times the gradient where the result is neither 0 nor 1.
fn hard_sigmoid(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let inside = between_zero_and_one(builder, site.output(0)?)?;
    let gradient = builder.scale(site.gradient()?, site.attributes().float("alpha").unwrap_or(0.2))?;
    Ok(vec![Some(keep(builder, inside, gradient)?)])
}

/// With `h` the hard sigmoid of slope 1/6: `d(x h) = (h + x / 6) dx` where `h` is neither 0 nor 1, else `h dx`.
fn hard_swish(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let x = site.input(0)?;
    let slope = [("alpha", Attribute::Float(1.0 / 6.0)), ("beta", Attribute::Float(0.5))];
    let gate = builder.op("HardSigmoid", &[x], &slope)?;
    let inside = between_zero_and_one(builder, gate)?;
    let rise = builder.scale(x, 1.0 / 6.0)?;
    let rise = keep(builder, inside, rise)?;
    let slope = builder.add(gate, rise)?;
    Ok(vec![Some(builder.mul(site.gradient()?, slope)?)])
}

fn between_zero_and_one(builder: &mut Builder, value: Value) -> Result<Value> {
    let dtype = builder.ty(value)?.dtype;
    let one = builder.float(1.0, dtype)?;
    let (above, below) = (versus_zero(builder, "Greater", value)?, builder.op("Less", &[value, one], &[])?);
    builder.op("And", &[above, below], &[])
}

/// Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016: the exact form or, with `approximate = "tanh"`, theirs.
fn gelu(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let slope = match site.attributes().text("approximate") {
        Some("tanh") => gelu_tanh_slope(builder, site.input(0)?, site.output(0)?)?,
        _ => gelu_slope(builder, site.input(0)?)?,
    };
    Ok(vec![Some(builder.mul(site.gradient()?, slope)?)])
}

/// `Phi(x) + x phi(x)` with the standard normal distribution and its density.
fn gelu_slope(builder: &mut Builder, x: Value) -> Result<Value> {
    let scaled = builder.scale(x, FRAC_1_SQRT_2)?;
    let cumulated = builder.op("Erf", &[scaled], &[])?;
    let cumulated = builder.scale(cumulated, 0.5)?;
    let cumulated = offset(builder, cumulated, 0.5)?;
    let square = builder.mul(scaled, scaled)?;
    let bell = builder.op("Neg", &[square], &[])?;
    let bell = builder.op("Exp", &[bell], &[])?;
    let bell = builder.scale(bell, FRAC_2_SQRT_PI / 2.0 * FRAC_1_SQRT_2)?;
    let bell = builder.mul(x, bell)?;
    builder.add(cumulated, bell)
}

/// With `s = sigmoid(x u)`, `u = c + k x^2`, `c = 2 sqrt(2 / pi)` and `k = 0.044715 c`, the tanh form is `x s` and its
/// slope `s + y (1 - s) (c + 3 k x^2)`: one exponential where the definition has a hyperbolic tangent and its square.
fn gelu_tanh_slope(builder: &mut Builder, x: Value, y: Value) -> Result<Value> {
    let c = 2.0 * (2.0 / PI).sqrt();
    let k = 0.044_715 * c;
    let square = builder.mul(x, x)?;
    let inner = builder.scale(square, k)?;
    let inner = offset(builder, inner, c)?;
    let inner = builder.mul(x, inner)?;
    let gate = builder.op("Sigmoid", &[inner], &[])?;
    let outer = builder.scale(square, 3.0 * k)?;
    let outer = offset(builder, outer, c)?;
    let closed = builder.mul(y, gate)?;
    let closed = builder.op("Sub", &[y, closed], &[])?;
    let change = builder.mul(closed, outer)?;
    builder.add(gate, change)
}

/// `dx = y (dy - sum(y dy))` along the axis.
fn softmax(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let y = site.output(0)?;
    let product = builder.mul(site.gradient()?, y)?;
    let sum = sum_along(builder, product, site.attributes().int("axis").unwrap_or(-1))?;
    let less = builder.mul(y, sum)?;
    Ok(vec![Some(builder.op("Sub", &[product, less], &[])?)])
}

/// `dx = dy - exp(y) sum(dy)` along the axis.
fn log_softmax(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let axis = site.attributes().int("axis").unwrap_or(-1);
    Ok(vec![Some(through_log_softmax(builder, site.output(0)?, site.gradient()?, axis)?)])
}

/// The gradient of what the logarithm of a softmax along `axis`, `y`, was taken of.
pub(super) fn through_log_softmax(builder: &mut Builder, y: Value, gradient: Value, axis: i64) -> Result<Value> {
    let sum = sum_along(builder, gradient, axis)?;
    let softmax = builder.op("Exp", &[y], &[])?;
    let less = builder.mul(softmax, sum)?;
    builder.op("Sub", &[gradient, less], &[])
}

fn sum_along(builder: &mut Builder, value: Value, axis: i64) -> Result<Value> {
    let axes = builder.ints(&[axis])?;
    builder.op("ReduceSum", &[value, axes], &[])
}
