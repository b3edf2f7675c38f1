//! Operators that arrange, repeat, join and divide tensors, and those that make tensors of sizes and numbers.

use super::dims::{
    broadcast_dims, compatible, count, derived, normalise_axes, normalise_axis, remaining, without_axes,
};
use super::product::transposed_product;
use super::{Attribute, Case, Dim, Gradient, Op, Site, Type, Use, expand_like, one};
use crate::error::{Error, Result};
use crate::graph::{Builder, Value};
use crate::tensor::{DType, Tensor};

const SIZES: Gradient = Gradient::Zero { why: "sizes do not change with the values" };
const NUMBERS: Gradient = Gradient::Zero { why: "its elements are given by sizes and constants" };

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Transpose", shape: transpose, gradient: Gradient::Rule(transpose_back), cases: transpose_cases },
    Op { name: "Reshape", shape: reshape, gradient: Gradient::Rule(reshape_back), cases: reshape_cases },
    Op {
        name: "Flatten",
        shape: flatten,
        gradient: Gradient::Rule(reshape_back),
        cases: || {
            let flat = |axis| Case::new().input("batch,tokens,4").int("axis", axis);
            vec![flat(-1), flat(0).unknown(), flat(3), Case::new().input("batch,tokens,4")]
        },
    },
    Op {
        name: "Squeeze",
        shape: squeeze,
        gradient: Gradient::Rule(reshape_back),
        cases: || {
            let input = || Case::new().input("batch,1,tokens,4,1");
            vec![input().ints(&[1, -1]), Case::new().input("1,3,1,2"), input().ints(&[-4]).unknown()]
        },
    },
    Op {
        name: "Unsqueeze",
        shape: unsqueeze,
        gradient: Gradient::Rule(reshape_back),
        cases: || {
            let input = || Case::new().input("batch,tokens,4");
            vec![input().ints(&[0, -1]), input().ints(&[2]).unknown()]
        },
    },
    Op {
        name: "Expand",
        shape: expand,
        gradient: Gradient::Rule(expand_back),
        cases: || {
            let input = || Case::new().input("batch,1,4");
            vec![input().ints(&[2, 1, 130, 1]), input().ints(&[3, 4]).unknown()]
        },
    },
    Op {
        name: "Tile",
        shape: tile,
        gradient: Gradient::Rule(tile_back),
        cases: || {
            let input = || Case::new().input("batch,tokens,4");
            vec![input().ints(&[1, 3, 2]), input().ints(&[2, 1, 1]).unknown()]
        },
    },
    Op { name: "Concat", shape: concat, gradient: Gradient::Rule(concat_back), cases: concat_cases },
    Op { name: "Split", shape: split, gradient: Gradient::Rule(split_back), cases: split_cases },
    Op {
        name: "Shape",
        shape: shape_of,
        gradient: SIZES,
        cases: || {
            let input = || Case::new().input("batch,tokens,4");
            vec![input(), input().int("start", -2), input().int("start", 1).int("end", -1).unknown()]
        },
    },
    Op { name: "Size", shape: size, gradient: SIZES, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op {
        name: "ConstantOfShape",
        shape: constant_of_shape,
        gradient: NUMBERS,
        cases: || {
            let truths = Attribute::Tensor(Tensor::vector(vec![true]));
            vec![Case::new().ints(&[2, 3]), Case::new().input("i4:3").with("value", truths)]
        },
    },
    Op {
        name: "Range",
        shape: range,
        gradient: NUMBERS,
        cases: || {
            let numbers =
                |values: [i64; 3]| values.iter().fold(Case::new(), |case, n| case.constant(Tensor::scalar(*n)));
            let one = || Tensor::scalar(1i64);
            vec![
                numbers([2, 9, 3]),
                numbers([9, 2, -3]),
                numbers([3, 3, 1]),
                Case::new().constant(Tensor::scalar(0i64)).input("i9:").constant(one()),
            ]
        },
    },
    Op {
        name: "Constant",
        shape: constant,
        gradient: NUMBERS,
        cases: || {
            vec![
                Case::new().with("value", Attribute::Tensor(Tensor::vector(vec![1.0f32, 2.0]))),
                Case::new().int("value_int", 3),
                Case::new().int_list("value_ints", &[3, 4]),
                Case::new().with("value_float", Attribute::Float(0.5)),
                Case::new().with("value_floats", Attribute::Floats(vec![0.5, 1.5, 2.5])),
            ]
        },
    },
];

/// `value` in the shape of `like`, which has as many elements.
pub(super) fn reshape_like(builder: &mut Builder, value: Value, like: Value) -> Result<Value> {
    let dims = builder.ty(like)?.dims.clone();
    let shape = builder.op("Shape", &[like], &[])?;
    let ty = Type { dtype: builder.ty(value)?.dtype, dims };
    // A size of zero is meant here, not the size of `value`.
    let reshaped = builder.op("Reshape", &[value, shape], &[("allowzero", Attribute::Int(1))])?;
    builder.assume(reshaped, ty);
    Ok(reshaped)
}

/// The gradient of an operator that keeps the elements in their order.
fn reshape_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(reshape_like(builder, site.gradient()?, site.input(0)?)?), None])
}

fn transpose_cases() -> Vec<Case> {
    let input = || Case::new().input("batch,tokens,4");
    vec![input().int_list("perm", &[2, 0, 1]), input(), Case::new().input("tokens,256").int_list("perm", &[1, 0])]
}

/// The dimension of the input that each dimension of the result is.
fn permutation(attribute: Option<&[i64]>, rank: usize) -> Result<Vec<usize>> {
    let Some(order) = attribute else { return Ok((0..rank).rev().collect()) };
    let axes = normalise_axes(order, rank)?;
    match (0..rank).all(|axis| axes.contains(&axis)) && axes.len() == rank {
        true => Ok(axes),
        false => Err(Error::internal(format!("{order:?} is no permutation of {rank} dimensions"))),
    }
}

fn transpose(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let order = permutation(site.int_list("perm"), input.dims.len())?;
    one(input.dtype, order.into_iter().map(|axis| input.dims[axis].clone()).collect())
}

/// The inverse permutation.
fn transpose_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = site.gradient()?;
    let order = permutation(site.attributes().int_list("perm"), builder.ty(gradient)?.dims.len())?;
    if order == [1, 0]
        && let Some(product) = transposed_product(builder, gradient)?
    {
        return Ok(vec![Some(product)]);
    }
    let mut inverse = vec![0; order.len()];
    for (to, from) in (0i64..).zip(order) {
        inverse[from] = to;
    }
    Ok(vec![Some(builder.transpose(gradient, &inverse)?)])
}

fn reshape_cases() -> Vec<Case> {
    let input = || Case::new().input("batch,tokens,6");
    vec![
        input().ints(&[0, 0, 2, 3]),
        input().ints(&[-1]),
        input().ints(&[0, -1]).unknown(),
        Case::new().input("4,6").ints(&[3, -1, 2]).int("allowzero", 1),
    ]
}

fn reshape(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let Some(wanted) = site.constant(1) else {
        return one(input.dtype, unknown_sizes(site.input(1)?)?);
    };
    let wanted = wanted.values::<i64>()?;
    let keep_zero = site.int("allowzero").unwrap_or(0) != 0;
    let mut dims = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (index, size) in wanted.iter().enumerate() {
        dims.push(match size {
            0 if !keep_zero => {
                input.dims.get(index).cloned().ok_or_else(|| Error::internal(format!("{input} to {wanted:?}")))?
            }
            -1 => {
                open = Some(index);
                Dim::Fixed(1)
            }
            size => Dim::Fixed(*size as usize),
        });
    }
    match open {
        Some(index) => dims[index] = remaining(&input.dims, &dims)?,
        None if contradict(&input.dims, &dims) => {
            return Err(Error::internal(format!("{input} has another number of elements than {wanted:?}")));
        }
        None => {}
    }
    one(input.dtype, dims)
}

/// Whether the numbers of elements differ for certain: names may turn out to be any number, unless both sides have the
/// same.
fn contradict(a: &[Dim], b: &[Dim]) -> bool {
    let (Some((a, names)), Some((b, others))) = (count(a), count(b)) else { return false };
    names == others && a != b
}

/// The dimensions that a shape describes which is known only when the graph runs.
fn unknown_sizes(shape: &Type) -> Result<Vec<Dim>> {
    match shape.dims.as_slice() {
        [Dim::Fixed(rank)] => Ok(vec![Dim::Unknown; *rank]),
        _ => Err(Error::internal("the number of dimensions of the result is not known")),
    }
}

fn flatten(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let rank = input.dims.len();
    let axis = match site.int("axis").unwrap_or(1) {
        axis if usize::try_from(axis) == Ok(rank) => rank,
        axis => normalise_axis(axis, rank)?,
    };
    one(input.dtype, vec![remaining(&input.dims[..axis], &[])?, remaining(&input.dims[axis..], &[])?])
}

fn squeeze(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let lone = |dim: &Dim| *dim == Dim::Fixed(1);
    let axes = match site.optional(1) {
        Some(_) => normalise_axes(site.ints(1)?, input.dims.len())?,
        None if input.dims.iter().all(|dim| matches!(dim, Dim::Fixed(_))) => {
            (0..input.dims.len()).filter(|axis| lone(&input.dims[*axis])).collect()
        }
        None => return Err(Error::internal(format!("which dimensions of {input} have size 1 is not known"))),
    };
    if axes.iter().any(|axis| matches!(input.dims[*axis], Dim::Fixed(_)) && !lone(&input.dims[*axis])) {
        return Err(Error::internal(format!("axes {axes:?} of {input} are not all of size 1")));
    }
    one(input.dtype, without_axes(&input.dims, &axes, false))
}

fn unsqueeze(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let rank = input.dims.len() + site.ints(1)?.len();
    let axes = normalise_axes(site.ints(1)?, rank)?;
    let mut rest = input.dims.iter();
    let mut dims = Vec::with_capacity(rank);
    for axis in 0..rank {
        let kept = if axes.contains(&axis) { Some(Dim::Fixed(1)) } else { rest.next().cloned() };
        dims.push(kept.ok_or_else(|| Error::internal(format!("axes {axes:?} repeat")))?);
    }
    match rest.next() {
        None => one(input.dtype, dims),
        Some(_) => Err(Error::internal(format!("axes {axes:?} repeat"))),
    }
}

fn expand(site: &Site) -> Result<Vec<Type>> {
    let (input, shape) = (site.input(0)?, site.input(1)?);
    let Some(sizes) = site.constant(1) else {
        let rank = unknown_sizes(shape)?.len().max(input.dims.len());
        return one(input.dtype, vec![Dim::Unknown; rank]);
    };
    let sizes: Vec<Dim> = sizes.values::<i64>()?.iter().map(|size| Dim::Fixed(*size as usize)).collect();
    one(input.dtype, broadcast_dims(&input.dims, &sizes)?)
}

/// A repetition is what the driver sums over.
fn expand_back(_: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(site.gradient()?), None])
}

fn tile(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let Some(repeats) = site.constant(1) else { return one(input.dtype, vec![Dim::Unknown; input.dims.len()]) };
    let times = |(dim, repeats): (&Dim, &i64)| match (dim, repeats) {
        (dim, 1) => dim.clone(),
        (Dim::Fixed(size), repeats) => Dim::Fixed(size * *repeats as usize),
        (Dim::Symbol(name), repeats) if !name.contains(['+', '[']) => derived(format!("{repeats}*{name}")),
        _ => Dim::Unknown,
    };
    one(input.dtype, input.dims.iter().zip(repeats.values::<i64>()?).map(times).collect())
}

/// Sums over the copies, which are dimensions of their own between those of the input.
fn tile_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, repeats, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let ty = builder.ty(x)?.clone();
    let sizes = builder.op("Shape", &[x], &[])?;
    let (copies, sizes) = (builder.unsqueeze(repeats, &[1])?, builder.unsqueeze(sizes, &[1])?);
    let pairs = builder.concat(&[copies, sizes], 1)?;
    let shape = builder.reshape(pairs, &[2 * ty.dims.len() as i64])?;
    let apart = builder.op("Reshape", &[gradient, shape], &[("allowzero", Attribute::Int(1))])?;
    let axes = builder.ints(&(0..ty.dims.len() as i64).map(|axis| 2 * axis).collect::<Vec<_>>())?;
    let sum = builder.op("ReduceSum", &[apart, axes], &[("keepdims", Attribute::Int(0))])?;
    builder.assume(sum, ty);
    Ok(vec![Some(sum), None])
}

fn concat_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,past,8").input("batch,2,8").int("axis", 1),
        Case::new().input("batch,past,2").input("batch,past,3").input("batch,past,1").int("axis", -1).unknown(),
        Case::new().input("2,4").input("3,4").int("axis", 0),
    ]
}

fn concat(site: &Site) -> Result<Vec<Type>> {
    let first = site.input(0)?;
    let axis = site.axis(first.dims.len(), 0)?;
    let mut dims = first.dims.clone();
    for index in 1..site.inputs.len() {
        let other = site.input(index)?;
        let fits = other.dtype == first.dtype
            && other.dims.len() == dims.len()
            && (0..dims.len()).all(|at| at == axis || compatible(&other.dims[at], &dims[at]));
        if !fits {
            return Err(Error::internal(format!("{first} and {other} cannot be joined along axis {axis}")));
        }
    }
    let sizes: Vec<&Dim> = site.inputs.iter().flatten().map(|ty| &ty.dims[axis]).collect();
    dims[axis] = joined(&sizes);
    one(first.dtype, dims)
}

/// The size of several dimensions end to end; equal ones multiply, as they do where shapes are changed.
fn joined(sizes: &[&Dim]) -> Dim {
    match sizes {
        sizes if sizes.contains(&&Dim::Unknown) => Dim::Unknown,
        [Dim::Symbol(one), rest @ ..] if !rest.is_empty() && rest.iter().all(|size| *size == sizes[0]) => {
            derived(format!("{}*{one}", sizes.len()))
        }
        sizes => sizes[1..].iter().fold(sizes[0].clone(), |sum, size| match (&sum, size) {
            (Dim::Fixed(a), Dim::Fixed(b)) => Dim::Fixed(a + b),
            (a, b) => derived(format!("{a}+{b}")),
        }),
    }
}

/// Each input's gradient is the part of the whole where the input went.
fn concat_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = site.gradient()?;
    let axis = site.attributes().axis(builder.ty(gradient)?.dims.len(), 0)?;
    let axes = builder.ints(&[axis as i64])?;
    let mut start = builder.ints(&[0])?;
    let mut parts = Vec::with_capacity(site.node.inputs.len());
    for index in 0..site.node.inputs.len() {
        let x = site.input(index)?;
        let ty = builder.ty(x)?.clone();
        let size = match ty.dims[axis] {
            Dim::Fixed(size) => builder.ints(&[size as i64])?,
            _ => {
                let bounds = [("start", Attribute::Int(axis as i64)), ("end", Attribute::Int(axis as i64 + 1))];
                builder.op("Shape", &[x], &bounds)?
            }
        };
        let end = builder.add(start, size)?;
        let part = builder.op("Slice", &[gradient, start, end, axes], &[])?;
        builder.assume(part, ty);
        parts.push(Some(part));
        start = end;
    }
    Ok(parts)
}

fn split_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,8").ints(&[3, 1, 4]).int("axis", -1),
        Case::new().input("batch,5,4").int("axis", 1).int("num_outputs", 2),
        Case::new().input("batch,tokens").int("axis", 1).int("num_outputs", 2).unknown(),
    ]
}

fn split(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let axis = site.axis(input.dims.len(), 0)?;
    let sizes: Vec<Dim> = match (site.constant(1), site.int("num_outputs"), &input.dims[axis]) {
        (Some(sizes), ..) => sizes.values::<i64>()?.iter().map(|size| Dim::Fixed(*size as usize)).collect(),
        (None, Some(parts), Dim::Fixed(size)) if parts > 0 => equal_parts(*size, parts as usize),
        (None, Some(parts), _) if parts > 0 => vec![Dim::Unknown; parts as usize],
        // How many parts a use without either attribute or constant has is known where it asks for all of them.
        _ if site.outputs > 1 => vec![Dim::Unknown; site.outputs],
        _ => return Err(Error::internal("into how many parts it is to be divided is not known")),
    };
    let part = |size| {
        let mut dims = input.dims.clone();
        dims[axis] = size;
        Type { dtype: input.dtype, dims }
    };
    Ok(sizes.into_iter().map(part).collect())
}

/// Parts of one size; the last is smaller where the size does not divide.
fn equal_parts(size: usize, parts: usize) -> Vec<Dim> {
    let each = size.div_ceil(parts);
    (0..parts).map(|index| Dim::Fixed(size.saturating_sub(index * each).min(each))).collect()
}

/// The gradients of the parts in their order, zeros for those that the loss does not depend on.
fn split_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let x = site.input(0)?;
    let ty = builder.ty(x)?.clone();
    let axis = site.attributes().axis(ty.dims.len(), 0)?;
    let mut parts = Vec::with_capacity(site.gradients.len());
    for (index, gradient) in site.gradients.iter().enumerate() {
        parts.push(match gradient {
            Some(gradient) => *gradient,
            None => zeros_like(builder, site.output(index)?)?,
        });
    }
    let whole = builder.concat(&parts, axis as i64)?;
    builder.assume(whole, ty);
    Ok(vec![Some(whole), None])
}

/// Zeros in the shape of `like`.
pub(super) fn zeros_like(builder: &mut Builder, like: Value) -> Result<Value> {
    let dtype = builder.ty(like)?.dtype;
    let zero = builder.float(0.0, dtype)?;
    expand_like(builder, zero, like)
}

fn shape_of(site: &Site) -> Result<Vec<Type>> {
    let rank = site.input(0)?.dims.len() as i64;
    let bound = |name, default: i64| {
        let at = site.int(name).unwrap_or(default);
        (if at < 0 { at + rank } else { at }).clamp(0, rank)
    };
    let sizes = (bound("end", rank) - bound("start", 0)).max(0);
    one(DType::I64, vec![Dim::Fixed(sizes as usize)])
}

fn size(_: &Site) -> Result<Vec<Type>> {
    one(DType::I64, Vec::new())
}

fn constant_of_shape(site: &Site) -> Result<Vec<Type>> {
    let dtype = site.tensor("value").map_or(DType::F32, Tensor::dtype);
    let dims = match site.constant(0) {
        Some(sizes) => sizes.values::<i64>()?.iter().map(|size| Dim::Fixed(*size as usize)).collect(),
        None => unknown_sizes(site.input(0)?)?,
    };
    one(dtype, dims)
}

fn range(site: &Site) -> Result<Vec<Type>> {
    let dtype = site.input(0)?.dtype;
    let bound = |index| site.constant(index).and_then(|tensor| tensor.values::<i64>().ok()?.first().copied());
    let length = match (bound(0), bound(1), bound(2)) {
        (Some(start), Some(end), Some(step)) if step != 0 => Dim::Fixed(steps_between(start, end, step)),
        _ => Dim::Unknown,
    };
    one(dtype, vec![length])
}

/// Number of steps from `start` that stay before `end`; `step` is not zero.
pub(super) fn steps_between(start: i64, end: i64, step: i64) -> usize {
    let distance = if step > 0 { end.saturating_sub(start) } else { start.saturating_sub(end) };
    usize::try_from(distance).map_or(0, |distance| distance.div_ceil(step.unsigned_abs() as usize))
}

fn constant(site: &Site) -> Result<Vec<Type>> {
    for (name, attribute) in site.attributes.0 {
        let (dtype, dims) = match (name.as_str(), attribute) {
            ("value", Attribute::Tensor(tensor)) => return Ok(vec![Type::of(tensor)]),
            ("value_int", Attribute::Int(_)) => (DType::I64, Vec::new()),
            ("value_float", Attribute::Float(_)) => (DType::F32, Vec::new()),
            ("value_ints", Attribute::Ints(values)) => (DType::I64, vec![Dim::Fixed(values.len())]),
            ("value_floats", Attribute::Floats(values)) => (DType::F32, vec![Dim::Fixed(values.len())]),
            _ => continue,
        };
        return one(dtype, dims);
    }
    Err(Error::internal("`Constant` has no value of a kind that is known: a tensor, numbers or a list of numbers"))
}
