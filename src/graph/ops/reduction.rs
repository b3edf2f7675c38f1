//! Sums, means, extremes and searches along axes.

use super::arithmetic::{keep, versus_zero, without_zeros};
use super::dims::{count, derived, normalise_axes, without_axes};
use super::{Attribute, Case, Dim, Gradient, Op, Site, Type, Use, expand_like, one, same};
use crate::error::{Error, Result};
use crate::graph::{Builder, Value};
use crate::tensor::{DType, Tensor};

const POSITION: Gradient = Gradient::Zero { why: "positions do not change with the values" };

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op {
        name: "ReduceSum",
        shape: reduce,
        gradient: Gradient::Rule(sum),
        cases: || {
            let mut cases = sums("");
            cases.push(Case::new().input("batch,tokens").int("noop_with_empty_axes", 1));
            cases
        },
    },
    Op { name: "ReduceMean", shape: reduce, gradient: Gradient::Rule(mean), cases: || sums("") },
    Op { name: "ReduceMax", shape: reduce, gradient: Gradient::Rule(extreme), cases: || sums("~") },
    Op { name: "ReduceMin", shape: reduce, gradient: Gradient::Rule(extreme), cases: || sums("~") },
    Op {
        name: "ReduceProd",
        shape: reduce,
        gradient: Gradient::Rule(product),
        // Few factors: a product of many random numbers leaves the range in which differences are exact.
        cases: || {
            vec![
                Case::new().input("~:batch,tokens,4").ints(&[-1]),
                Case::new().input("+:batch,4").ints(&[1]).int("keepdims", 0).unknown(),
            ]
        },
    },
    Op { name: "ReduceL1", shape: reduce, gradient: Gradient::Rule(absolute_sum), cases: || sums("~") },
    Op { name: "ReduceL2", shape: reduce, gradient: Gradient::Rule(norm), cases: || sums("") },
    Op { name: "ReduceSumSquare", shape: reduce, gradient: Gradient::Rule(square_sum), cases: || sums("") },
    Op { name: "ReduceLogSum", shape: reduce, gradient: Gradient::Rule(log_sum), cases: || sums("+") },
    Op { name: "ReduceLogSumExp", shape: reduce, gradient: Gradient::Rule(log_sum_exp), cases: || sums("") },
    Op {
        name: "CumSum",
        shape: same,
        gradient: Gradient::Rule(running_sum),
        cases: || {
            let data = |axis: i64| Case::new().input("batch,tokens,4").constant(Tensor::scalar(axis));
            vec![data(1), data(-1).int("exclusive", 1), data(0).int("reverse", 1).unknown()]
        },
    },
    Op { name: "ArgMax", shape: arg_extreme, gradient: POSITION, cases: searches },
    Op { name: "ArgMin", shape: arg_extreme, gradient: POSITION, cases: searches },
    Op {
        name: "TopK",
        shape: top_k,
        gradient: Gradient::Rule(top_values),
        cases: || {
            vec![
                Case::new().input("~:batch,tokens,4").ints(&[2]).int("axis", 1),
                Case::new().input("~:batch,4").ints(&[3]).int("largest", 0).unknown(),
            ]
        },
    },
    Op { name: "NonZero", shape: non_zero, gradient: POSITION, cases: || vec![Case::new().input("b:batch,tokens,4")] },
];

/// Over one axis, several, all of them, with and without the axis left in place, over unknown sizes.
fn sums(filling: &str) -> Vec<Case> {
    let input = |dims: &str| match filling {
        "" => Case::new().input(dims),
        kind => Case::new().input(&format!("{kind}:{dims}")),
    };
    vec![
        input("batch,tokens,4").ints(&[1, -1]),
        input("batch,tokens,4").ints(&[0]).int("keepdims", 0),
        input("batch,tokens,4").ints(&[2, 1]).int("keepdims", 0).unknown(),
        input("batch,4"),
        input("batch,4").int("keepdims", 0),
    ]
}

fn searches() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,4").int("axis", -1).int("keepdims", 0),
        Case::new().input("batch,tokens").unknown(),
    ]
}

fn non_zero(site: &Site) -> Result<Vec<Type>> {
    one(DType::I64, vec![Dim::Fixed(site.input(0)?.dims.len()), Dim::Unknown])
}

fn reduce(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let rank = input.dims.len();
    let keep = site.int("keepdims").unwrap_or(1) != 0;
    let axes = match (site.optional(1), site.int_list("axes")) {
        (Some(_), _) if site.constant(1).is_none() && keep => return one(input.dtype, vec![Dim::Unknown; rank]),
        (Some(_), _) => site.ints(1)?,
        (None, axes) => axes.unwrap_or_default(),
    };
    let axes = match axes {
        [] if site.int("noop_with_empty_axes") == Some(1) => return same(site),
        [] => (0..rank).collect(),
        axes => normalise_axes(axes, rank)?,
    };
    one(input.dtype, without_axes(&input.dims, &axes, keep))
}

/// A value of the result's shape, with the axes that were summed over as dimensions of size one.
fn with_axes(builder: &mut Builder, site: &Use, value: Value) -> Result<Value> {
    let rank = builder.ty(site.input(0)?)?.dims.len();
    if site.attributes().int("keepdims") != Some(0) || builder.ty(value)?.dims.len() == rank {
        return Ok(value);
    }
    let axes = match (site.optional(1), site.attributes().int_list("axes")) {
        (Some(axes), _) => builder.inline(axes).map(|axes| axes.values::<i64>().map(<[i64]>::to_vec)).transpose()?,
        (None, axes) => Some(axes.unwrap_or_default().to_vec()),
    };
    match axes {
        Some(axes) if axes.is_empty() => builder.unsqueeze(value, &(0..rank as i64).collect::<Vec<_>>()),
        Some(axes) => builder.unsqueeze(value, &axes),
        None => Err(Error::internal("axes that are not known cannot be put back")),
    }
}

/// The gradient and the result, both with the axes that were summed over.
fn gradient_and_result(builder: &mut Builder, site: &Use) -> Result<(Value, Value)> {
    let gradient = with_axes(builder, site, site.gradient()?)?;
    Ok((gradient, with_axes(builder, site, site.output(0)?)?))
}

/// `d sum(x) = dx`.
fn sum(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = with_axes(builder, site, site.gradient()?)?;
    Ok(vec![Some(expand_like(builder, gradient, site.input(0)?)?), None])
}

/// `d mean(x) = dx / n`.
fn mean(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, gradient) = (site.input(0)?, with_axes(builder, site, site.gradient()?)?);
    let part = divided_by_count(builder, gradient, x, site.output(0)?)?;
    Ok(vec![Some(expand_like(builder, part, x)?), None])
}

/// `value` divided by the number of elements of `all` that there are to each element of `reduced`.
pub(super) fn divided_by_count(builder: &mut Builder, value: Value, all: Value, reduced: Value) -> Result<Value> {
    let (from, to) = (count(&builder.ty(all)?.dims), count(&builder.ty(reduced)?.dims));
    if let (Some((from, from_symbols)), Some((to, to_symbols))) = (from, to)
        && from_symbols == to_symbols
        && from > 0
    {
        return builder.scale(value, to as f32 / from as f32);
    }
    // In double precision, as half precision ends at 65,504; a ratio, as there may be no element at all.
    let size = |builder: &mut Builder, value: Value| {
        let shape = builder.op("Shape", &[value], &[])?;
        let size = builder.op("ReduceProd", &[shape], &[("keepdims", Attribute::Int(0))])?;
        builder.cast(size, DType::F64)
    };
    let (to, from) = (size(builder, reduced)?, size(builder, all)?);
    let ratio = builder.op("Div", &[to, from], &[])?;
    let dtype = builder.ty(value)?.dtype;
    let ratio = builder.cast(ratio, dtype)?;
    builder.mul(value, ratio)
}

/// The gradient goes to the extreme; elements that tie share it equally, as in PyTorch's `amax`.
fn extreme(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (gradient, result) = gradient_and_result(builder, site)?;
    let chosen = builder.op("Equal", &[site.input(0)?, result], &[])?;
    let ones = as_numbers(builder, chosen, gradient)?;
    let ties = sum_again(builder, site, ones)?;
    let part = builder.op("Div", &[gradient, ties], &[])?;
    Ok(vec![Some(builder.mul(ones, part)?), None])
}

/// Truth values as 0 and 1 in the dtype of `like`.
fn as_numbers(builder: &mut Builder, truths: Value, like: Value) -> Result<Value> {
    let dtype = builder.ty(like)?.dtype;
    builder.cast(truths, dtype)
}

/// The sum of `value` over the axes of the node, which stay as dimensions of size one.
fn sum_again(builder: &mut Builder, site: &Use, value: Value) -> Result<Value> {
    let axes = match (site.optional(1), site.attributes().int_list("axes")) {
        (None, Some(axes)) => Some(builder.ints(axes)?),
        (axes, _) => axes,
    };
    let noop = site.attributes().int("noop_with_empty_axes").unwrap_or(0);
    let inputs: Vec<Value> = [Some(value), axes].into_iter().flatten().collect();
    builder.op("ReduceSum", &inputs, &[("noop_with_empty_axes", Attribute::Int(noop))])
}

/// The derivative by one factor is the product of the others: with zeros among them it is not zero for the only zero.
fn product(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, gradient) = (site.input(0)?, with_axes(builder, site, site.gradient()?)?);
    let factors = without_zeros(builder, x)?;
    let mut inputs = site.node.inputs.clone();
    inputs[0] = Some(factors);
    let whole = builder.repeat(site.node, &inputs)?[0];
    let whole = with_axes(builder, site, whole)?;
    let zeros = versus_zero(builder, "Equal", x)?;
    let zeros = as_numbers(builder, zeros, x)?;
    let all_zeros = sum_again(builder, site, zeros)?;
    let no_other = builder.op("Equal", &[all_zeros, zeros], &[])?;
    let others = builder.op("Div", &[whole, factors], &[])?;
    let others = keep(builder, no_other, others)?;
    Ok(vec![Some(builder.mul(gradient, others)?), None])
}

/// `d sum |x| = sign(x) dx`.
fn absolute_sum(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = with_axes(builder, site, site.gradient()?)?;
    let sign = builder.op("Sign", &[site.input(0)?], &[])?;
    Ok(vec![Some(builder.mul(sign, gradient)?), None])
}

/// `d |x| = x / |x| dx`, and zero where all elements are, as in PyTorch.
fn norm(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (gradient, result) = gradient_and_result(builder, site)?;
    let divisor = without_zeros(builder, result)?;
    let part = builder.op("Div", &[gradient, divisor], &[])?;
    Ok(vec![Some(builder.mul(site.input(0)?, part)?), None])
}

/// `d sum(x^2) = 2 x dx`.
fn square_sum(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = with_axes(builder, site, site.gradient()?)?;
    let twice = builder.scale(gradient, 2.0)?;
    Ok(vec![Some(builder.mul(site.input(0)?, twice)?), None])
}

/// `d log(sum(x)) = dx / exp(y)`.
fn log_sum(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (gradient, result) = gradient_and_result(builder, site)?;
    let sum = builder.op("Exp", &[result], &[])?;
    let part = builder.op("Div", &[gradient, sum], &[])?;
    Ok(vec![Some(expand_like(builder, part, site.input(0)?)?), None])
}

/// `d log(sum(exp(x))) = exp(x - y) dx`.
fn log_sum_exp(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (gradient, result) = gradient_and_result(builder, site)?;
    let below = builder.op("Sub", &[site.input(0)?, result], &[])?;
    let share = builder.op("Exp", &[below], &[])?;
    Ok(vec![Some(builder.mul(share, gradient)?), None])
}

/// Each element is part of its own sum and of all later ones: the gradients are summed from the other end.
fn running_sum(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let flag = |name| site.attributes().int(name).unwrap_or(0);
    let attributes =
        [("exclusive", Attribute::Int(flag("exclusive"))), ("reverse", Attribute::Int(1 - flag("reverse")))];
    Ok(vec![Some(builder.op("CumSum", &[site.gradient()?, site.input(1)?], &attributes)?), None])
}

fn arg_extreme(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let axis = site.attributes.axis(input.dims.len(), 0)?;
    one(DType::I64, without_axes(&input.dims, &[axis], site.int("keepdims").unwrap_or(1) != 0))
}

fn top_k(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let axis = site.attributes.axis(input.dims.len(), -1)?;
    let mut dims = input.dims.clone();
    dims[axis] = match site.ints(1) {
        Ok(count) => Dim::Fixed(count[0] as usize),
        Err(_) => derived("top_k".to_owned()),
    };
    Ok(vec![Type { dtype: input.dtype, dims: dims.clone() }, Type { dtype: DType::I64, dims }])
}

/// The gradients go to where the values were found, each place once.
fn top_values(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, gradient) = (site.input(0)?, site.gradient()?);
    let axis = site.attributes().int("axis").unwrap_or(-1);
    let dtype = builder.ty(x)?.dtype;
    let zero = builder.float(0.0, dtype)?;
    let zeros = expand_like(builder, zero, x)?;
    let placed = [zeros, site.output(1)?, gradient];
    Ok(vec![Some(builder.op("ScatterElements", &placed, &[("axis", Attribute::Int(axis))])?), None])
}
