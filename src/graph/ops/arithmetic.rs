//! Elementwise arithmetic.

use super::dims::broadcast_dims;
use super::{Case, Gradient, Op, Site, Type, Use, one, same};
use crate::error::{Error, Result};
use crate::graph::{Builder, Value};
use crate::tensor::{DType, Data, Tensor};

const STEP: Gradient = Gradient::Zero { why: "a step function: its slope is zero wherever it has one" };

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Add", shape: broadcast, gradient: Gradient::Rule(share), cases: pairs },
    Op { name: "Sub", shape: broadcast, gradient: Gradient::Rule(subtract), cases: pairs },
    Op { name: "Mul", shape: broadcast, gradient: Gradient::Rule(multiply), cases: pairs },
    Op {
        name: "Div",
        shape: broadcast,
        gradient: Gradient::Rule(divide),
        cases: || {
            vec![
                Case::new().input("batch,tokens,4").input("+:batch,1,4"),
                Case::new().input("4").input("+:batch,tokens,1"),
                Case::new().input("batch,1").input("+:batch,tokens").unknown(),
            ]
        },
    },
    Op { name: "Pow", shape: power_type, gradient: Gradient::Rule(power), cases: powers },
    Op {
        name: "Mod",
        shape: broadcast,
        gradient: Gradient::Rule(remainder),
        cases: || vec![Case::new().input("batch,tokens,4").input("+:tokens,1").int("fmod", 1)],
    },
    Op { name: "Max", shape: broadcast, gradient: Gradient::Rule(extreme), cases: extremes },
    Op { name: "Min", shape: broadcast, gradient: Gradient::Rule(extreme), cases: extremes },
    Op { name: "Sum", shape: broadcast, gradient: Gradient::Rule(share), cases: several },
    Op { name: "Mean", shape: broadcast, gradient: Gradient::Rule(mean), cases: several },
    Op {
        name: "Clip",
        shape: same,
        gradient: Gradient::Rule(clip),
        cases: || {
            let number = |value: f32| Tensor::scalar(value);
            vec![
                Case::new().input("~:batch,tokens,4").constant(number(-1.0)).constant(number(1.0)),
                Case::new().input("~:batch,tokens,4").omit().input(""),
                Case::new().input("~:batch,tokens").input("").unknown(),
            ]
        },
    },
    Op {
        name: "Where",
        shape: select,
        gradient: Gradient::Rule(choose),
        cases: || {
            vec![
                Case::new().input("b:batch,1,tokens").input("4,1").input("1"),
                Case::new().input("b:tokens").input("batch,tokens").input("").unknown(),
            ]
        },
    },
    Op { name: "Identity", shape: same, gradient: Gradient::Rule(pass), cases: any },
    Op { name: "Neg", shape: same, gradient: Gradient::Rule(negate), cases: any },
    Op { name: "Abs", shape: same, gradient: Gradient::Rule(absolute), cases: nonzero },
    Op { name: "Exp", shape: same, gradient: Gradient::Rule(exponential), cases: any },
    Op { name: "Log", shape: same, gradient: Gradient::Rule(logarithm), cases: positive },
    Op { name: "Sqrt", shape: same, gradient: Gradient::Rule(square_root), cases: positive },
    Op { name: "Reciprocal", shape: same, gradient: Gradient::Rule(reciprocal), cases: positive },
    Op { name: "Sin", shape: same, gradient: Gradient::Rule(sine), cases: any },
    Op { name: "Cos", shape: same, gradient: Gradient::Rule(cosine), cases: any },
    Op { name: "Sign", shape: same, gradient: STEP, cases: nonzero },
    Op { name: "Floor", shape: same, gradient: STEP, cases: any },
    Op { name: "Ceil", shape: same, gradient: STEP, cases: any },
    Op { name: "Round", shape: same, gradient: STEP, cases: any },
    Op {
        name: "Cast",
        shape: cast,
        gradient: Gradient::Rule(cast_back),
        cases: || vec![Case::new().input("batch,tokens,4").int("to", 1), Case::new().input("tokens").int("to", 11)],
    },
    Op {
        name: "Dropout",
        shape: dropout,
        gradient: Gradient::Rule(drop),
        // Which elements are dropped differs from run to run, so these drop none.
        cases: || {
            let data = || Case::new().input("batch,tokens,4");
            vec![data(), data().constant(Tensor::scalar(0f32)).constant(Tensor::scalar(true))]
        },
    },
];

fn any() -> Vec<Case> {
    vec![Case::new().input("batch,tokens,4")]
}

fn positive() -> Vec<Case> {
    vec![Case::new().input("+:batch,tokens,4")]
}

fn nonzero() -> Vec<Case> {
    vec![Case::new().input("~:batch,tokens,4")]
}

fn pairs() -> Vec<Case> {
    vec![
        Case::new().input("batch,1,4").input("tokens,4"),
        Case::new().input("batch,tokens").input("tokens").unknown(),
        Case::new().input("").input("batch,1"),
    ]
}

fn several() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,4").input("4").input("batch,1,1"),
        Case::new().input("batch").input("").unknown(),
        Case::new().input("batch,4"),
    ]
}

fn extremes() -> Vec<Case> {
    vec![
        Case::new().input("~:batch,tokens,4").input("4"),
        Case::new().input("batch,4").input("batch,1").input("").unknown(),
        Case::new().input("batch,4"),
    ]
}

fn powers() -> Vec<Case> {
    let to = |base: &str, exponent: f32| Case::new().input(base).constant(Tensor::scalar(exponent));
    vec![
        Case::new().input("+:batch,tokens,4").input("1"),
        Case::new().input("+:4").input("batch,tokens,1").unknown(),
        to("batch,4", 2.0),
        to("batch,4", 3.0),
        to("batch,4", 1.0),
        to("batch,4", 0.0),
        to("+:batch,4", 0.5),
        to("+:batch,4", -1.5),
    ]
}

pub(super) fn broadcast(site: &Site) -> Result<Vec<Type>> {
    let first = site.input(0)?;
    let mut dims = first.dims.clone();
    for index in 1..site.inputs.len() {
        let other = site.input(index)?;
        if other.dtype != first.dtype {
            return Err(Error::internal(format!("inputs are {first} and {other}")));
        }
        dims = broadcast_dims(&dims, &other.dims)?;
    }
    one(first.dtype, dims)
}

/// The exponent may have another dtype than the base.
fn power_type(site: &Site) -> Result<Vec<Type>> {
    let base = site.input(0)?;
    one(base.dtype, broadcast_dims(&base.dims, &site.input(1)?.dims)?)
}

fn select(site: &Site) -> Result<Vec<Type>> {
    let (condition, yes, no) = (site.input(0)?, site.input(1)?, site.input(2)?);
    if condition.dtype != DType::Bool || yes.dtype != no.dtype {
        return Err(Error::internal(format!("inputs are {condition}, {yes} and {no}")));
    }
    one(yes.dtype, broadcast_dims(&condition.dims, &broadcast_dims(&yes.dims, &no.dims)?)?)
}

fn cast(site: &Site) -> Result<Vec<Type>> {
    let to = site.int("to").ok_or_else(|| Error::internal("`Cast` lacks its attribute `to`"))?;
    one(crate::graph::protobuf::dtype_from_onnx(to)?, site.input(0)?.dims.clone())
}

fn dropout(site: &Site) -> Result<Vec<Type>> {
    let data = site.input(0)?.clone();
    let mask = Type { dtype: DType::Bool, dims: data.dims.clone() };
    Ok([data, mask].into_iter().take(site.outputs.max(1)).collect())
}

/// The sum of `value` and a number.
pub(super) fn offset(builder: &mut Builder, value: Value, number: f32) -> Result<Value> {
    let dtype = builder.ty(value)?.dtype;
    let number = builder.float(number, dtype)?;
    builder.add(value, number)
}

/// `value` where `condition` holds and zero elsewhere.
pub(super) fn keep(builder: &mut Builder, condition: Value, value: Value) -> Result<Value> {
    let dtype = builder.ty(value)?.dtype;
    let zero = builder.float(0.0, dtype)?;
    builder.op("Where", &[condition, value, zero], &[])
}

/// `value` where `condition` does not hold and zero elsewhere.
pub(super) fn drop_where(builder: &mut Builder, condition: Value, value: Value) -> Result<Value> {
    let dtype = builder.ty(value)?.dtype;
    let zero = builder.float(0.0, dtype)?;
    builder.op("Where", &[condition, zero, value], &[])
}

/// Whether each element compares to zero in this way: `Equal`, `Greater`, ...
pub(super) fn versus_zero(builder: &mut Builder, comparison: &str, value: Value) -> Result<Value> {
    let dtype = builder.ty(value)?.dtype;
    let zero = builder.float(0.0, dtype)?;
    builder.op(comparison, &[value, zero], &[])
}

/// `value` with 1 in place of each zero.
pub(super) fn without_zeros(builder: &mut Builder, value: Value) -> Result<Value> {
    let dtype = builder.ty(value)?.dtype;
    let (one, zeros) = (builder.float(1.0, dtype)?, versus_zero(builder, "Equal", value)?);
    builder.op("Where", &[zeros, one, value], &[])
}

/// `d(a + b + ...) = da + db + ...`.
fn share(_: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(site.gradient()?); site.node.inputs.len()])
}

/// `d mean(a, b, ...) = (da + db + ...) / n`.
fn mean(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let count = site.node.inputs.len();
    Ok(vec![Some(builder.scale(site.gradient()?, 1.0 / count as f32)?); count])
}

/// `d(a - b) = da - db`.
fn subtract(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = site.gradient()?;
    Ok(vec![Some(gradient), Some(builder.op("Neg", &[gradient], &[])?)])
}

/// `d(a b) = b da + a db`.
fn multiply(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (a, b, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    Ok(vec![Some(builder.mul(gradient, b)?), Some(builder.mul(gradient, a)?)])
}

/// `d(a / b) = da / b - (a / b) db / b`.
fn divide(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let by_dividend = builder.op("Div", &[site.gradient()?, site.input(1)?], &[])?;
    let product = builder.mul(by_dividend, site.output(0)?)?;
    Ok(vec![Some(by_dividend), Some(builder.op("Neg", &[product], &[])?)])
}

/// `d a^b = b a^(b - 1) da + a^b log(a) db`; zero by `a` where `b` is zero, and by `b` where `a` is zero.
fn power(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (base, exponent) = (site.input(0)?, site.input(1)?);
    let by_base = power_by_base(builder, site)?;
    if !builder.ty(exponent)?.dtype.is_float() {
        return Ok(vec![Some(by_base), None]);
    }
    let base = without_zeros(builder, base)?;
    let logarithm = builder.op("Log", &[base], &[])?;
    let slope = builder.mul(site.output(0)?, logarithm)?;
    let by_exponent = builder.mul(site.gradient()?, slope)?;
    let dtype = builder.ty(exponent)?.dtype;
    Ok(vec![Some(by_base), Some(builder.cast(by_exponent, dtype)?)])
}

fn power_by_base(builder: &mut Builder, site: &Use) -> Result<Value> {
    let (base, exponent, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    // The common exponents need no second power, which is slow, and the root must not become 0 * infinity.
    match number(builder, exponent) {
        Some(1.0) => return Ok(gradient),
        Some(2.0) => {
            let twice = builder.scale(base, 2.0)?;
            return builder.mul(gradient, twice);
        }
        Some(0.5) => return half_over_root(builder, gradient, site.output(0)?),
        _ => {}
    }
    let dtype = builder.ty(base)?.dtype;
    let exponent = builder.cast(exponent, dtype)?;
    let lower = offset(builder, exponent, -1.0)?;
    let lower = builder.op("Pow", &[base, lower], &[])?;
    let slope = builder.mul(exponent, lower)?;
    // At base and exponent zero the product above is 0 * infinity.
    let constant = versus_zero(builder, "Equal", exponent)?;
    let slope = drop_where(builder, constant, slope)?;
    builder.mul(gradient, slope)
}

/// The value of a constant with one element.
fn number(builder: &Builder, value: Value) -> Option<f64> {
    match builder.inline(value)?.data() {
        Data::F64(values) => <[f64; 1]>::try_from(values.as_slice()).ok().map(|[value]| value),
        Data::F32(values) => <[f32; 1]>::try_from(values.as_slice()).ok().map(|[value]| f64::from(value)),
        Data::F16(values) => <[half::f16; 1]>::try_from(values.as_slice()).ok().map(|[value]| value.to_f64()),
        Data::BF16(values) => <[half::bf16; 1]>::try_from(values.as_slice()).ok().map(|[value]| value.to_f64()),
        Data::I64(values) => <[i64; 1]>::try_from(values.as_slice()).ok().map(|[value]| value as f64),
        Data::I32(values) => <[i32; 1]>::try_from(values.as_slice()).ok().map(|[value]| f64::from(value)),
        Data::U8(_) | Data::Bool(_) => None,
    }
}

/// With `a mod b = a - n b` for an integer `n`: `d(a mod b) = da - n db`. Floats have it with `fmod = 1` only.
fn remainder(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (a, b, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let multiple = builder.op("Sub", &[a, site.output(0)?], &[])?;
    let times = builder.op("Div", &[multiple, b], &[])?;
    let times = builder.op("Round", &[times], &[])?;
    let product = builder.mul(gradient, times)?;
    Ok(vec![Some(gradient), Some(builder.op("Neg", &[product], &[])?)])
}

/// The gradient goes to the input that is the extreme; inputs that tie share it equally, as in PyTorch's `maximum`.
fn extreme(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (result, gradient) = (site.output(0)?, site.gradient()?);
    let dtype = builder.ty(result)?.dtype;
    let mut chosen = Vec::new();
    for index in 0..site.node.inputs.len() {
        let equal = builder.op("Equal", &[site.input(index)?, result], &[])?;
        chosen.push(builder.cast(equal, dtype)?);
    }
    let ties = builder.op("Sum", &chosen, &[])?;
    let part = builder.op("Div", &[gradient, ties], &[])?;
    chosen.into_iter().map(|chosen| builder.mul(part, chosen).map(Some)).collect()
}

/// The gradient goes to the data within the bounds, and to the bound that is reached or passed, as in PyTorch's
/// `hardtanh`. Where the bounds are the wrong way round the result is the upper one.
fn clip(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, lower, upper) = (site.input(0)?, site.optional(1), site.optional(2));
    let (mut by_data, mut bounds) = (site.gradient()?, vec![None; 2]);
    if let Some(upper) = upper {
        let reached = match lower {
            Some(lower) => builder.op("Max", &[x, lower], &[])?,
            None => x,
        };
        let above = builder.op("GreaterOrEqual", &[reached, upper], &[])?;
        bounds[1] = Some(keep(builder, above, by_data)?);
        by_data = drop_where(builder, above, by_data)?;
    }
    if let Some(lower) = lower {
        let below = builder.op("LessOrEqual", &[x, lower], &[])?;
        bounds[0] = Some(keep(builder, below, by_data)?);
        by_data = drop_where(builder, below, by_data)?;
    }
    Ok(vec![Some(by_data), bounds[0], bounds[1]])
}

/// The gradient goes to the input that is chosen.
fn choose(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (condition, gradient) = (site.input(0)?, site.gradient()?);
    Ok(vec![None, Some(keep(builder, condition, gradient)?), Some(drop_where(builder, condition, gradient)?)])
}

/// The gradient as it is.
fn pass(_: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(site.gradient()?)])
}

/// `d(-x) = -dx`.
fn negate(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(builder.op("Neg", &[site.gradient()?], &[])?)])
}

/// `d |x| = sign(x) dx`, which is zero at zero.
fn absolute(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let sign = builder.op("Sign", &[site.input(0)?], &[])?;
    Ok(vec![Some(builder.mul(site.gradient()?, sign)?)])
}

/// `d exp(x) = exp(x) dx`.
fn exponential(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(builder.mul(site.gradient()?, site.output(0)?)?)])
}

/// `d log(x) = dx / x`.
fn logarithm(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(builder.op("Div", &[site.gradient()?, site.input(0)?], &[])?)])
}

/// `d sqrt(x) = dx / (2 sqrt(x))`.
fn square_root(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(half_over_root(builder, site.gradient()?, site.output(0)?)?)])
}

fn half_over_root(builder: &mut Builder, gradient: Value, root: Value) -> Result<Value> {
    let ratio = builder.op("Div", &[gradient, root], &[])?;
    builder.scale(ratio, 0.5)
}

/// `d(1 / x) = -dx / x^2`.
fn reciprocal(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let result = site.output(0)?;
    let square = builder.mul(result, result)?;
    let product = builder.mul(site.gradient()?, square)?;
    Ok(vec![Some(builder.op("Neg", &[product], &[])?)])
}

/// `d sin(x) = cos(x) dx`.
fn sine(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let slope = builder.op("Cos", &[site.input(0)?], &[])?;
    Ok(vec![Some(builder.mul(site.gradient()?, slope)?)])
}

/// `d cos(x) = -sin(x) dx`.
fn cosine(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let sine = builder.op("Sin", &[site.input(0)?], &[])?;
    let product = builder.mul(site.gradient()?, sine)?;
    Ok(vec![Some(builder.op("Neg", &[product], &[])?)])
}

/// The gradient in the dtype of the input. Between integers and floats no gradient passes.
fn cast_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let dtype = builder.ty(site.input(0)?)?.dtype;
    match dtype.is_float() {
        true => Ok(vec![Some(builder.cast(site.gradient()?, dtype)?)]),
        false => Ok(vec![None]),
    }
}

/// `d(x mask / (1 - ratio)) = mask dx / (1 - ratio)` with the mask of the forward pass; the identity in inference.
fn drop(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = site.gradient()?;
    let training = match site.optional(2) {
        Some(training) if builder.inline(training).is_none_or(|tensor| *tensor.data() == Data::Bool(vec![true])) => {
            training
        }
        _ => return Ok(vec![Some(gradient), None, None]),
    };
    let dtype = builder.ty(gradient)?.dtype;
    let ratio = match site.optional(1) {
        Some(ratio) => builder.cast(ratio, dtype)?,
        None => builder.float(0.5, dtype)?,
    };
    let one = builder.float(1.0, dtype)?;
    let kept = builder.op("Sub", &[one, ratio], &[])?;
    let kept = builder.op("Where", &[training, kept, one], &[])?;
    let scaled = builder.op("Div", &[gradient, kept], &[])?;
    let mask = builder.optional_output(site.node, 1)?;
    Ok(vec![Some(keep(builder, mask, scaled)?), None, None])
}
