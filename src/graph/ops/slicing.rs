//! Operators that cut off or add elements at the ends of dimensions.

use super::dims::{derived, normalise_axes};
use super::layout::{collect, element_numbers, fixed, sizes};
use super::{Case, Dim, Gradient, Op, Site, Type, Use, one};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Builder, Value};
use crate::tensor::{DType, Tensor};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Slice", shape: slice, gradient: Gradient::Rule(slice_gradient), cases: slice_cases },
    Op { name: "Pad", shape: pad, gradient: Gradient::Rule(pad_gradient), cases: pad_cases },
];

fn slice_cases() -> Vec<Case> {
    let case = |dims: &str| Case::new().input(dims);
    vec![
        case("batch,tokens,8").ints(&[-1]).ints(&[i64::MAX]).ints(&[1]),
        case("batch,tokens,8").ints(&[1, 0]).ints(&[-2, 1]).ints(&[-1, 1]),
        case("batch,tokens,8").ints(&[-1]).ints(&[i64::MIN]).ints(&[2]).ints(&[-3]),
        case("batch,tokens,8").ints(&[6, 0]).ints(&[1, 9]).ints(&[2, -2]).ints(&[-2, 1]).unknown(),
        case("batch,tokens,8").ints(&[1, -3, -3]).ints(&[2, 100, -1]).unknown(),
        case("9,tokens,8").input("i3:1").input("i9:1").ints(&[0]),
        case("9,tokens,8").input("i3:1").ints(&[9]).ints(&[0]).ints(&[2]),
    ]
}

/// The axes of a `Slice` or `Pad` over `rank` dimensions, of which input `index` names some.
fn axes(constant: Option<&Tensor>, given: bool, number: Option<usize>, rank: usize) -> Result<Vec<usize>> {
    match (constant, given, number) {
        (Some(axes), ..) => match axes.values::<i32>() {
            Ok(axes) => normalise_axes(&axes.iter().map(|axis| i64::from(*axis)).collect::<Vec<_>>(), rank),
            Err(_) => normalise_axes(axes.values::<i64>()?, rank),
        },
        (None, false, Some(number)) if number <= rank => Ok((0..number).collect()),
        _ => Err(Error::input("the axes are not constants of the graph")),
    }
}

/// The number of elements of a vector.
fn length(ty: &Type) -> Option<usize> {
    match ty.dims.as_slice() {
        [Dim::Fixed(length)] => Some(*length),
        _ => None,
    }
}

fn integers(tensor: &Tensor) -> Result<Vec<i64>> {
    match tensor.values::<i32>() {
        Ok(values) => Ok(values.iter().map(|value| i64::from(*value)).collect()),
        Err(_) => Ok(tensor.values::<i64>()?.to_vec()),
    }
}

fn slice(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let (rank, constant) = (input.dims.len(), |index| site.constant(index).map(integers).transpose());
    let number = length(site.input(1)?);
    let Ok(axes) = axes(site.constant(3), site.optional(3).is_some(), number, rank) else {
        return one(input.dtype, vec![Dim::Unknown; rank]);
    };
    let steps = if site.optional(4).is_some() { constant(4)? } else { Some(vec![1; axes.len()]) };
    let (starts, ends) = (constant(1)?, constant(2)?);
    let mut dims = input.dims.clone();
    for (index, axis) in axes.into_iter().enumerate() {
        let at = |values: &Option<Vec<i64>>| values.as_ref().and_then(|values| values.get(index).copied());
        dims[axis] = match (at(&starts), at(&ends), at(&steps)) {
            (Some(start), Some(end), Some(step)) => cut(&dims[axis], start, end, step),
            _ => Dim::Unknown,
        };
    }
    one(input.dtype, dims)
}

/// The size that is left of one.
fn cut(dim: &Dim, start: i64, end: i64, step: i64) -> Dim {
    match dim {
        Dim::Fixed(size) => {
            let size = *size as i64;
            let from_front = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
            let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
            let start = from_front(start).clamp(low.max(0).min(high), high);
            let distance = (from_front(end).clamp(low, high) - start) * step.signum();
            Dim::Fixed((distance.max(0) as u64).div_ceil(step.unsigned_abs()) as usize)
        }
        dim if start == 0 && end == i64::MAX && step == 1 => dim.clone(),
        Dim::Unknown => Dim::Unknown,
        // A named dimension is not empty.
        Dim::Symbol(_) if step == 1 && ((start, end) == (0, 1) || (start == -1 && end == i64::MAX)) => Dim::Fixed(1),
        Dim::Symbol(name) if step == 1 => derived(format!("{name}[{start}:{end}]")),
        Dim::Symbol(_) => Dim::Unknown,
    }
}

/// A contiguous piece is put back between zeros; elements at other steps are put back by their numbers.
fn slice_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, gradient) = (site.input(0)?, site.gradient()?);
    let rank = builder.ty(x)?.dims.len();
    let contiguous = match site.optional(4) {
        Some(steps) => {
            builder.inline(steps).map(integers).transpose()?.is_some_and(|all| all.iter().all(|one| *one == 1))
        }
        None => true,
    };
    let number = length(builder.ty(site.input(1)?)?);
    let given = site.optional(3);
    let axes = axes(given.and_then(|axes| builder.inline(axes)), given.is_some(), number, rank);
    if let (true, Ok(axes)) = (contiguous, axes) {
        return Ok(vec![Some(put_back(builder, x, gradient, site.input(1)?, &axes)?)]);
    }
    let numbers = element_numbers(builder, x)?;
    let mut inputs = site.node.inputs.clone();
    inputs[0] = Some(numbers);
    let numbers = builder.node("Slice", &inputs, &[])?[0];
    Ok(vec![Some(collect(builder, gradient, numbers, x)?)])
}

/// `piece` with zeros around it, as it lay in `whole` from `starts` on.
fn put_back(builder: &mut Builder, whole: Value, piece: Value, starts: Value, axes: &[usize]) -> Result<Value> {
    let (whole_ty, piece_ty) = (builder.ty(whole)?.clone(), builder.ty(piece)?.clone());
    let size = |ty: &Type| axes.iter().map(|axis| fixed(&ty.dims[*axis])).collect::<Option<Vec<i64>>>();
    let constant = builder.inline(starts).map(integers).transpose()?;
    let pads = match (constant, size(&whole_ty), size(&piece_ty)) {
        (Some(starts), Some(whole), Some(piece)) => {
            let before = |(start, size): (&i64, &i64)| {
                (if *start < 0 { start.saturating_add(*size) } else { *start }).clamp(0, *size)
            };
            let before: Vec<i64> = starts.iter().zip(&whole).map(before).collect();
            let after =
                before.iter().zip(whole.iter().zip(&piece)).map(|(before, (whole, piece))| whole - piece - before);
            let after: Vec<i64> = after.collect();
            builder.ints(&[before, after].concat())?
        }
        _ => margins(builder, whole, piece, starts, axes)?,
    };
    let zero = builder.float(0.0, whole_ty.dtype)?;
    let axes = builder.ints(&axes.iter().map(|axis| *axis as i64).collect::<Vec<_>>())?;
    let padded = builder.op("Pad", &[piece, pads, zero, axes], &[])?;
    builder.assume(padded, whole_ty);
    Ok(padded)
}

/// How much of `whole` lies before and after `piece`, computed when the graph runs.
fn margins(builder: &mut Builder, whole: Value, piece: Value, starts: Value, axes: &[usize]) -> Result<Value> {
    let along = |builder: &mut Builder, value| {
        let sizes = axes.iter().map(|axis| sizes(builder, value, *axis, axis + 1)).collect::<Result<Vec<_>>>()?;
        builder.concat(&sizes, 0)
    };
    let (whole, piece) = (along(builder, whole)?, along(builder, piece)?);
    let starts = builder.cast(starts, DType::I64)?;
    let zero = builder.scalar(0i64)?;
    let negative = builder.op("Less", &[starts, zero], &[])?;
    let from_back = builder.add(starts, whole)?;
    let before = builder.op("Where", &[negative, from_back, starts], &[])?;
    let before = builder.op("Max", &[before, zero], &[])?;
    let before = builder.op("Min", &[before, whole], &[])?;
    let rest = builder.op("Sub", &[whole, piece], &[])?;
    let after = builder.op("Sub", &[rest, before], &[])?;
    builder.concat(&[before, after], 0)
}

fn pad_cases() -> Vec<Case> {
    let mode = |mode: &str| Attribute::Text(mode.to_owned());
    vec![
        Case::new().input("batch,tokens,4").ints(&[0, 1, 2, 0, 3, 0]).input(""),
        Case::new().input("batch,tokens,4").ints(&[1, -1]).omit().ints(&[-1]),
        Case::new().input("batch,tokens,4").ints(&[0, 2, 1, 0, 1, 3]).with("mode", mode("reflect")),
        Case::new().input("batch,tokens,4").ints(&[0, 2, 1, 0, 1, 5]).with("mode", mode("edge")).unknown(),
        Case::new().input("batch,tokens,4").ints(&[0, 2, 1, 0, 1, 3]).with("mode", mode("wrap")),
    ]
}

fn pad(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let rank = input.dims.len();
    let number = length(site.input(1)?).map(|length| length / 2);
    let (Some(pads), Ok(axes)) = (site.constant(1), axes(site.constant(3), site.optional(3).is_some(), number, rank))
    else {
        return one(input.dtype, vec![Dim::Unknown; rank]);
    };
    let pads = pads.values::<i64>()?;
    if pads.len() != 2 * axes.len() {
        return Err(Error::internal(format!("{} pads for {} axes", pads.len(), axes.len())));
    }
    let mut dims = input.dims.clone();
    for (index, axis) in axes.iter().enumerate() {
        let more = pads[index] + pads[index + axes.len()];
        dims[*axis] = match &dims[*axis] {
            dim if more == 0 => dim.clone(),
            Dim::Fixed(size) => Dim::Fixed((*size as i64 + more).max(0) as usize),
            Dim::Symbol(name) if more > 0 && !name.contains('*') => derived(format!("{name}+{more}")),
            _ => Dim::Unknown,
        };
    }
    one(input.dtype, dims)
}

/// Zeros are cut off by padding with as many less than none; copied elements give their gradients to what they are
/// copies of.
fn pad_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, pads, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    if site.attributes().text("mode").is_some_and(|mode| mode != "constant") {
        let mut inputs = site.node.inputs.clone();
        inputs[0] = Some(element_numbers(builder, x)?);
        inputs.iter_mut().skip(2).take(1).for_each(|value| *value = None);
        let attributes: Vec<(&str, Attribute)> =
            site.node.attributes.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let numbers = builder.node("Pad", &inputs, &attributes)?[0];
        return Ok(vec![Some(collect(builder, gradient, numbers, x)?)]);
    }
    let ty = builder.ty(x)?.clone();
    let less = builder.op("Neg", &[pads], &[])?;
    let inner = builder.node("Pad", &[Some(gradient), Some(less), None, site.optional(3)], &[])?[0];
    builder.assume(inner, ty);
    let mut gradients = vec![Some(inner), None];
    if site.optional(2).is_some() {
        let attributes = [("keepdims", Attribute::Int(0))];
        let (all, inner) =
            (builder.op("ReduceSum", &[gradient], &attributes)?, builder.op("ReduceSum", &[inner], &attributes)?);
        gradients.push(Some(builder.op("Sub", &[all, inner], &[])?));
    }
    Ok(gradients)
}
