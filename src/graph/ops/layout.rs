//! Operators that move elements without computing with them.

use super::dims::{
    broadcast_dims, compatible, count, derived, merged, normalise_axes, normalise_axis, remaining, without_axes,
};
use super::product::transposed_product;
use super::{Attributes, Case, Dim, Gradient, Op, Site, Type, Use, expand_like, one};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Builder, Node, Value};
use crate::tensor::Tensor;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Transpose", shape: transpose, gradient: Gradient::Rule(transpose_gradient), cases: transpose_cases },
    Op { name: "Reshape", shape: reshape, gradient: Gradient::Rule(restore), cases: reshape_cases },
    Op { name: "Flatten", shape: flatten, gradient: Gradient::Rule(restore), cases: flatten_cases },
    Op { name: "Squeeze", shape: squeeze, gradient: Gradient::Rule(squeeze_gradient), cases: squeeze_cases },
    Op { name: "Unsqueeze", shape: unsqueeze, gradient: Gradient::Rule(unsqueeze_gradient), cases: unsqueeze_cases },
    Op { name: "Expand", shape: expand, gradient: Gradient::Rule(expand_gradient), cases: expand_cases },
    Op { name: "Tile", shape: tile, gradient: Gradient::Rule(tile_gradient), cases: tile_cases },
    Op { name: "Concat", shape: concat, gradient: Gradient::Rule(concat_gradient), cases: concat_cases },
    Op { name: "Split", shape: split, gradient: Gradient::Rule(split_gradient), cases: split_cases },
    Op { name: "Trilu", shape: super::same, gradient: Gradient::Rule(trilu_gradient), cases: trilu_cases },
    Op { name: "DepthToSpace", shape: to_space, gradient: Gradient::Rule(to_space_gradient), cases: to_space_cases },
    Op { name: "SpaceToDepth", shape: to_depth, gradient: Gradient::Rule(to_depth_gradient), cases: to_depth_cases },
];

/// The node that makes a value; none for inputs and constants.
pub(super) fn producer(builder: &Builder, value: Value) -> Option<&Node> {
    builder.nodes().iter().rev().find(|node| node.outputs.contains(&value))
}

/// The permutation of a `Transpose`, counted from the front.
fn permutation(attributes: Attributes, rank: usize) -> Result<Vec<usize>> {
    match attributes.int_list("perm") {
        Some(axes) => normalise_axes(axes, rank),
        None => Ok((0..rank).rev().collect()),
    }
}

/// The permutation that swaps the last two dimensions.
fn swap(rank: usize) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    axes
}

/// `value`, of at least two dimensions, with the last two swapped; what it was before where they are swapped already.
pub(super) fn transposed(builder: &mut Builder, value: Value) -> Result<Value> {
    let rank = builder.ty(value)?.dims.len();
    if let Some(node) = producer(builder, value).filter(|node| node.op == "Transpose")
        && permutation(node.attributes(), rank)? == swap(rank)
        && let Some(Some(before)) = node.inputs.first()
    {
        return Ok(*before);
    }
    builder.transpose(value, &swap(rank).into_iter().map(|axis| axis as i64).collect::<Vec<_>>())
}

/// `value` in the shape of `like`, which has as many elements.
pub(super) fn reshape_like(builder: &mut Builder, value: Value, like: Value) -> Result<Value> {
    let ty = Type { dtype: builder.ty(value)?.dtype, dims: builder.ty(like)?.dims.clone() };
    let sizes: Option<Vec<i64>> = ty.dims.iter().map(fixed).collect();
    let shape = match sizes {
        Some(sizes) => builder.ints(&sizes)?,
        None => builder.op("Shape", &[like], &[])?,
    };
    let reshaped = builder.op("Reshape", &[value, shape], &[("allowzero", Attribute::Int(1))])?;
    builder.assume(reshaped, ty);
    Ok(reshaped)
}

/// A size that is known.
pub(super) fn fixed(dim: &Dim) -> Option<i64> {
    match dim {
        Dim::Fixed(size) => Some(*size as i64),
        _ => None,
    }
}

/// All elements in one dimension.
pub(super) fn flat(builder: &mut Builder, value: Value) -> Result<Value> {
    builder.reshape(value, &[-1])
}

/// The sizes `from..to` of a value as a vector.
pub(super) fn sizes(builder: &mut Builder, value: Value, from: usize, to: usize) -> Result<Value> {
    builder.op("Shape", &[value], &[("start", Attribute::Int(from as i64)), ("end", Attribute::Int(to as i64))])
}

/// Zeros with dtype and shape of `like`. They are made when `after` is there: where the shape is constant the runtime
/// would otherwise keep them with the graph, and those of an embedding table take gigabytes.
pub(super) fn zeros_like(builder: &mut Builder, like: Value, after: Value) -> Result<Value> {
    let dtype = builder.ty(like)?.dtype;
    let size = builder.op("Size", &[after], &[])?;
    let nothing = builder.scalar(0i64)?;
    let zero = builder.mul(size, nothing)?;
    let zero = builder.cast(zero, dtype)?;
    expand_like(builder, zero, like)
}

/// The number of each element of `value`, in its shape. What an operator makes of these numbers tells where each element
/// of its result comes from.
pub(super) fn element_numbers(builder: &mut Builder, value: Value) -> Result<Value> {
    let (zero, one) = (builder.scalar(0i64)?, builder.scalar(1i64)?);
    let size = builder.op("Size", &[value], &[])?;
    let numbers = builder.op("Range", &[zero, size, one], &[])?;
    reshape_like(builder, numbers, value)
}

/// Adds the elements of `gradient` up at those elements of `like` that `numbers` name.
pub(super) fn collect(builder: &mut Builder, gradient: Value, numbers: Value, like: Value) -> Result<Value> {
    let zeros = zeros_like(builder, like, gradient)?;
    let (zeros, numbers) = (flat(builder, zeros)?, flat(builder, numbers)?);
    let gradient = flat(builder, gradient)?;
    let attributes = [("axis", Attribute::Int(0)), ("reduction", Attribute::Text("add".to_owned()))];
    let sums = builder.op("ScatterElements", &[zeros, numbers, gradient], &attributes)?;
    reshape_like(builder, sums, like)
}

/// The gradient of an operator that keeps number and order of the elements.
fn restore(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(reshape_like(builder, site.gradient()?, site.input(0)?)?), None])
}

fn transpose_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,4").int_list("perm", &[2, 0, 1]),
        Case::new().input("batch,tokens,4"),
        Case::new().input("batch,tokens,4").int_list("perm", &[1, 2, 0]).unknown(),
    ]
}

fn transpose(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let axes = permutation(site.attributes, input.dims.len())?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if sorted != (0..input.dims.len()).collect::<Vec<_>>() {
        return Err(Error::internal(format!("{axes:?} is no permutation of the dimensions of {input}")));
    }
    one(input.dtype, axes.iter().map(|axis| input.dims[*axis].clone()).collect())
}

fn transpose_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, gradient) = (site.input(0)?, site.gradient()?);
    let rank = builder.ty(x)?.dims.len();
    let axes = permutation(site.attributes(), rank)?;
    if rank == 2
        && axes == swap(2)
        && let Some(product) = transposed_product(builder, gradient)?
    {
        return Ok(vec![Some(product)]);
    }
    let mut inverse = vec![0; rank];
    for (to, from) in axes.into_iter().enumerate() {
        inverse[from] = to as i64;
    }
    Ok(vec![Some(builder.transpose(gradient, &inverse)?)])
}

fn reshape_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,6").ints(&[0, 0, 2, 3]),
        Case::new().input("batch,tokens,6").ints(&[-1]),
        Case::new().input("batch,tokens,6").ints(&[-1, 3]).unknown(),
        Case::new().input("4,6").ints(&[8, 3]).int("allowzero", 1),
    ]
}

fn reshape(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let Some(wanted) = site.constant(1) else {
        return match site.input(1)?.dims.as_slice() {
            [Dim::Fixed(rank)] => one(input.dtype, vec![Dim::Unknown; *rank]),
            _ => Err(Error::internal("the number of dimensions to reshape to is not known")),
        };
    };
    let wanted = wanted.values::<i64>()?;
    let literal = site.int("allowzero").unwrap_or(0) != 0;
    let mut dims = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (index, size) in wanted.iter().enumerate() {
        dims.push(match size {
            0 if !literal => {
                input.dims.get(index).cloned().ok_or_else(|| Error::internal(format!("{input} to {wanted:?}")))?
            }
            -1 => {
                open = Some(index);
                Dim::Fixed(1)
            }
            size => Dim::Fixed(*size as usize),
        });
    }
    if let Some(index) = open {
        dims[index] = remaining(&input.dims, &dims)?;
    } else if let (Some((from, symbols)), Some((to, others))) = (count(&input.dims), count(&dims))
        && symbols.is_empty()
        && others.is_empty()
        && from != to
    {
        return Err(Error::internal(format!("{input} has another number of elements than {wanted:?}")));
    }
    one(input.dtype, dims)
}

fn flatten_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,4"),
        Case::new().input("batch,tokens,4").int("axis", -1),
        Case::new().input("batch,tokens,4").int("axis", 0).unknown(),
    ]
}

fn flatten(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let rank = input.dims.len();
    let axis = match site.int("axis").unwrap_or(1) {
        axis if axis == rank as i64 => rank,
        axis => normalise_axis(axis, rank)?,
    };
    let size = |dims: &[Dim]| remaining(dims, &[]);
    one(input.dtype, vec![size(&input.dims[..axis])?, size(&input.dims[axis..])?])
}

fn squeeze_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,1,tokens,4,1").ints(&[1, -1]),
        Case::new().input("1,20,1,7"),
        Case::new().input("batch,1,4,1").ints(&[1]).unknown(),
    ]
}

fn squeeze(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    if site.optional(1).is_none() {
        let dims: Vec<Dim> = input.dims.iter().filter(|dim| **dim != Dim::Fixed(1)).cloned().collect();
        return match dims.iter().all(|dim| fixed(dim).is_some()) {
            true => one(input.dtype, dims),
            false => Err(Error::internal(format!("which dimensions of {input} are of size 1 is not known"))),
        };
    }
    let axes = normalise_axes(site.ints(1)?, input.dims.len())?;
    if axes.iter().any(|axis| matches!(input.dims[*axis], Dim::Fixed(size) if size != 1)) {
        return Err(Error::internal(format!("axes {axes:?} of {input} are not all of size 1")));
    }
    one(input.dtype, without_axes(&input.dims, &axes, false))
}

fn squeeze_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let Some(axes) = site.optional(1) else { return restore(builder, site) };
    Ok(vec![Some(builder.op("Unsqueeze", &[site.gradient()?, axes], &[])?), None])
}

fn unsqueeze_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,4").ints(&[0, -1]),
        Case::new().input("batch,tokens,4").ints(&[2, 1]).unknown(),
    ]
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
    one(input.dtype, dims)
}

fn unsqueeze_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(builder.op("Squeeze", &[site.gradient()?, site.input(1)?], &[])?), None])
}

fn expand_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,1,4").ints(&[2, 1, 3, 1]),
        Case::new().input("batch,1,tokens").ints(&[7, 1]),
        Case::new().input("batch,1,4").ints(&[2, 1, 3, 1]).unknown(),
    ]
}

fn expand(site: &Site) -> Result<Vec<Type>> {
    let (input, shape) = (site.input(0)?, site.input(1)?);
    if let Some(sizes) = site.constant(1) {
        let sizes: Vec<Dim> = sizes.values::<i64>()?.iter().map(|size| Dim::Fixed(*size as usize)).collect();
        return one(input.dtype, broadcast_dims(&input.dims, &sizes)?);
    }
    match shape.dims.as_slice() {
        [Dim::Fixed(rank)] => one(input.dtype, vec![Dim::Unknown; input.dims.len().max(*rank)]),
        _ => Err(Error::internal("the number of dimensions to expand to is not known")),
    }
}

/// Each copy has its share: the driver sums over the copies.
fn expand_gradient(_: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(site.gradient()?), None])
}

fn tile_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,4").ints(&[1, 2, 3]),
        Case::new().input("batch,tokens,4").ints(&[2, 1, 2]).unknown(),
    ]
}

fn tile(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let Some(repeats) = site.constant(1) else { return one(input.dtype, vec![Dim::Unknown; input.dims.len()]) };
    let times = |(dim, times): (&Dim, &i64)| match (dim, times) {
        (dim, 1) => dim.clone(),
        (Dim::Fixed(size), times) => Dim::Fixed(size * *times as usize),
        (Dim::Symbol(name), times) if !name.contains('+') => derived(format!("{times}*{name}")),
        _ => Dim::Unknown,
    };
    one(input.dtype, input.dims.iter().zip(repeats.values::<i64>()?).map(times).collect())
}

/// With the copies of each dimension in a dimension of their own, their gradients are summed.
fn tile_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, repeats, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let ty = builder.ty(x)?.clone();
    let shape = builder.op("Shape", &[x], &[])?;
    let (repeats, shape) = (builder.unsqueeze(repeats, &[1])?, builder.unsqueeze(shape, &[1])?);
    let pairs = builder.concat(&[repeats, shape], 1)?;
    let pairs = flat(builder, pairs)?;
    let apart = builder.op("Reshape", &[gradient, pairs], &[])?;
    let axes: Vec<i64> = (0..ty.dims.len() as i64).map(|axis| 2 * axis).collect();
    let axes = builder.ints(&axes)?;
    let sum = builder.op("ReduceSum", &[apart, axes], &[("keepdims", Attribute::Int(0))])?;
    builder.assume(sum, ty);
    Ok(vec![Some(sum), None])
}

fn concat_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,past,4").input("batch,2,4").int("axis", 1),
        Case::new().input("batch,tokens,4").input("batch,tokens,3").input("batch,tokens,2").int("axis", -1),
        Case::new().input("batch,past,4").input("batch,2,4").int("axis", 1).unknown(),
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
        for (at, dim) in dims.iter_mut().enumerate() {
            *dim = if at == axis { sum(dim, &other.dims[at]) } else { merged(dim, &other.dims[at]) };
        }
    }
    one(first.dtype, dims)
}

pub(super) fn sum(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Fixed(a), Dim::Fixed(b)) => Dim::Fixed(a + b),
        (Dim::Fixed(0), other) | (other, Dim::Fixed(0)) => other.clone(),
        (Dim::Unknown, _) | (_, Dim::Unknown) => Dim::Unknown,
        // A product of sums and a sum of products would read the same.
        (Dim::Symbol(name), _) | (_, Dim::Symbol(name)) if name.contains('*') => Dim::Unknown,
        (a, b) => derived(format!("{a}+{b}")),
    }
}

fn concat_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = site.gradient()?;
    let axis = site.attributes().axis(builder.ty(gradient)?.dims.len(), 0)?;
    let parts: Vec<Value> = site.node.inputs.iter().flatten().copied().collect();
    let mut known = Vec::with_capacity(parts.len());
    for part in &parts {
        known.push(fixed(&builder.ty(*part)?.dims[axis]));
    }
    let lengths = match known.into_iter().collect::<Option<Vec<_>>>() {
        Some(lengths) => builder.ints(&lengths)?,
        None => {
            let lengths = parts.iter().map(|part| sizes(builder, *part, axis, axis + 1)).collect::<Result<Vec<_>>>()?;
            builder.concat(&lengths, 0)?
        }
    };
    let attributes = [("axis", Attribute::Int(axis as i64))];
    let gradients = builder.node("Split", &[Some(gradient), Some(lengths)], &attributes)?;
    for (gradient, part) in gradients.iter().zip(&parts) {
        let ty = builder.ty(*part)?.clone();
        builder.assume(*gradient, ty);
    }
    Ok(gradients.into_iter().map(Some).collect())
}

fn split_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,6").ints(&[1, 3, 2]).int("axis", -1),
        Case::new().input("batch,tokens,7").int("axis", 2).int("num_outputs", 3),
        Case::new().input("batch,tokens,6").int("axis", 1).int("num_outputs", 2),
        Case::new().input("batch,tokens,6").ints(&[2, 4]).int("axis", 2).unknown(),
    ]
}

fn split(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let axis = site.axis(input.dims.len(), 0)?;
    let lengths: Vec<Dim> = if let Some(lengths) = site.constant(1) {
        lengths.values::<i64>()?.iter().map(|length| Dim::Fixed(*length as usize)).collect()
    } else if let Some(lengths) = site.optional(1) {
        match lengths.dims.as_slice() {
            [Dim::Fixed(parts)] => vec![Dim::Unknown; *parts],
            _ => vec![Dim::Unknown; site.outputs],
        }
    } else {
        let parts = site.int("num_outputs").map_or(site.outputs, |parts| parts as usize);
        match &input.dims[axis] {
            Dim::Fixed(size) => {
                let length = size.div_ceil(parts);
                let at = |part: usize| (part * length).min(*size);
                (0..parts).map(|part| Dim::Fixed(at(part + 1) - at(part))).collect()
            }
            dim if parts == 1 => vec![dim.clone()],
            _ => vec![Dim::Unknown; parts],
        }
    };
    let part = |length: Dim| {
        let mut dims = input.dims.clone();
        dims[axis] = length;
        Type { dtype: input.dtype, dims }
    };
    Ok(lengths.into_iter().map(part).collect())
}

/// The gradients of the parts, joined again; zeros for parts that the loss does not depend on.
fn split_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let x = site.input(0)?;
    let ty = builder.ty(x)?.clone();
    let axis = site.attributes().axis(ty.dims.len(), 0)?;
    let mut parts = Vec::with_capacity(site.gradients.len());
    for (index, gradient) in site.gradients.iter().enumerate() {
        parts.push(match gradient {
            Some(gradient) => *gradient,
            None => {
                let part = site.output(index)?;
                zeros_like(builder, part, part)?
            }
        });
    }
    let joined = builder.concat(&parts, axis as i64)?;
    builder.assume(joined, ty);
    Ok(vec![Some(joined), None])
}

fn trilu_cases() -> Vec<Case> {
    vec![Case::new().input("batch,tokens,4").int("upper", 0), Case::new().input("3,4,5").constant(Tensor::scalar(1i64))]
}

/// What was kept stays.
fn trilu_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let upper = site.attributes().int("upper").unwrap_or(1);
    let inputs: Vec<Option<Value>> = [Some(site.gradient()?), site.optional(1)].into_iter().collect();
    let kept = builder.node("Trilu", &inputs, &[("upper", Attribute::Int(upper))])?;
    Ok(vec![Some(kept[0]), None])
}

fn block_size(attributes: Attributes) -> Result<i64> {
    let size = attributes.int("blocksize").filter(|size| *size > 0);
    size.ok_or_else(|| Error::internal("the attribute `blocksize` is missing"))
}

fn to_space_cases() -> Vec<Case> {
    let crd = Attribute::Text("CRD".to_owned());
    vec![
        Case::new().input("batch,8,10,12").int("blocksize", 2),
        Case::new().input("batch,8,10,12").int("blocksize", 2).with("mode", crd),
    ]
}

/// `[batch, channel, height, width]` with sizes multiplied by the fractions.
fn rescaled(site: &Site, channels: (i64, i64), space: (i64, i64)) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    if input.dims.len() != 4 {
        return Err(Error::internal(format!("{input} has not four dimensions")));
    }
    let scaled = |(dim, (up, down)): (&Dim, (i64, i64))| match dim {
        Dim::Fixed(size) => Dim::Fixed(size * up as usize / down as usize),
        _ => Dim::Unknown,
    };
    let mut dims = vec![input.dims[0].clone()];
    dims.extend(input.dims[1..].iter().zip([channels, space, space]).map(scaled));
    one(input.dtype, dims)
}

fn to_space(site: &Site) -> Result<Vec<Type>> {
    let block = block_size(site.attributes)?;
    rescaled(site, (1, block * block), (block, 1))
}

/// `SpaceToDepth` undoes the mode `DCR`; in the mode `CRD` the channels come before the blocks.
fn to_space_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, gradient) = (site.input(0)?, site.gradient()?);
    let block = block_size(site.attributes())?;
    let mut back = builder.op("SpaceToDepth", &[gradient], &[("blocksize", Attribute::Int(block))])?;
    if site.attributes().text("mode") == Some("CRD") {
        let channels = fixed(&builder.ty(gradient)?.dims[1])
            .ok_or_else(|| Error::input("the number of channels of `DepthToSpace` is not known"))?;
        let apart = builder.reshape(back, &[0, block * block, channels, -1])?;
        back = builder.transpose(apart, &[0, 2, 1, 3])?;
    }
    Ok(vec![Some(reshape_like(builder, back, x)?)])
}

fn to_depth_cases() -> Vec<Case> {
    vec![Case::new().input("batch,3,12,18").int("blocksize", 2)]
}

fn to_depth(site: &Site) -> Result<Vec<Type>> {
    let block = block_size(site.attributes)?;
    rescaled(site, (block * block, 1), (1, block))
}

fn to_depth_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, block) = (site.input(0)?, block_size(site.attributes())?);
    let back = builder.op("DepthToSpace", &[site.gradient()?], &[("blocksize", Attribute::Int(block))])?;
    let ty = builder.ty(x)?.clone();
    builder.assume(back, ty);
    Ok(vec![Some(back)])
}
