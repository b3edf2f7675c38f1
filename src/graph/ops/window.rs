//! Operators that cut tensors to a part or surround them.

use super::dims::{derived, normalise_axes};
use super::layout::{reshape_like, steps_between, zeros_like};
use super::{Attribute, Case, Dim, Gradient, Op, Site, Type, Use, one, same};
use crate::error::{Error, Result};
use crate::graph::{Builder, Value};
use crate::tensor::{DType, Tensor};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Slice", shape: slice, gradient: Gradient::Rule(slice_back), cases: slice_cases },
    Op { name: "Pad", shape: pad, gradient: Gradient::Rule(pad_back), cases: pad_cases },
    Op {
        name: "Trilu",
        shape: same,
        gradient: Gradient::Rule(trilu_back),
        cases: || {
            let input = || Case::new().input("batch,tokens,4");
            vec![input(), input().constant(Tensor::scalar(-1i64)).int("upper", 0).unknown()]
        },
    },
];

/// A bound from which on exporters mean the end of the axis.
const OPEN_END: i64 = i32::MAX as i64;

fn slice_cases() -> Vec<Case> {
    let input = || Case::new().input("batch,tokens,8");
    vec![
        input().ints(&[-1]).ints(&[i64::MAX]).ints(&[1]),
        input().ints(&[1, 0]).ints(&[-2, 3]).ints(&[-1, 1]),
        input().ints(&[0, 2]).ints(&[i64::MAX, 100]).ints(&[1, 2]),
        input().ints(&[-3]).ints(&[-1]).ints(&[1]).unknown(),
        input().ints(&[0, 1]).ints(&[1, 4]),
        input().ints(&[-1, 6]).ints(&[i64::MIN, 0]).ints(&[1, 2]).ints(&[-1, -2]).unknown(),
        input().ints(&[1]).ints(&[7]).ints(&[2]).ints(&[3]),
        input().input("i2:1").ints(&[4]).ints(&[1]),
        input().input("i2:2").ints(&[4, 5]).ints(&[-2, 2]).ints(&[1, 2]),
    ]
}

/// The values of an input that is a constant, of either integer type.
pub(super) fn integers(tensor: &Tensor) -> Result<Vec<i64>> {
    match tensor.values::<i32>() {
        Ok(values) => Ok(values.iter().map(|value| i64::from(*value)).collect()),
        Err(_) => Ok(tensor.values::<i64>()?.to_vec()),
    }
}

/// What `Slice` takes along one axis.
struct Cut {
    axis: usize,
    start: i64,
    end: i64,
    step: i64,
}

/// The cuts of a use; `None` where one of their inputs is no constant. `constant` gives the value of an input and whether
/// it is there.
fn cuts<'a>(rank: usize, constant: impl Fn(usize) -> (Option<&'a Tensor>, bool)) -> Result<Option<Vec<Cut>>> {
    let read = |index| match constant(index) {
        (None, true) => Ok(None),
        (None, false) => Ok(Some(None)),
        (Some(tensor), _) => integers(tensor).map(|values| Some(Some(values))),
    };
    let (Some(Some(starts)), Some(Some(ends)), Some(axes), Some(steps)) = (read(1)?, read(2)?, read(3)?, read(4)?)
    else {
        return Ok(None);
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    let counts = [ends.len(), axes.len(), steps.len()];
    if counts.iter().any(|count| *count != starts.len()) || steps.contains(&0) {
        return Err(Error::internal(format!("{starts:?}, {ends:?}, {axes:?} and {steps:?} are no cuts")));
    }
    let axes = normalise_axes(&axes, rank)?;
    let cut = |index: usize| Cut { axis: axes[index], start: starts[index], end: ends[index], step: steps[index] };
    Ok(Some((0..starts.len()).map(cut).collect()))
}

fn slice(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let constant = |index| (site.constant(index), site.optional(index).is_some());
    let Some(cuts) = cuts(input.dims.len(), constant)? else {
        return one(input.dtype, vec![Dim::Unknown; input.dims.len()]);
    };
    let mut dims = input.dims.clone();
    for cut in cuts {
        dims[cut.axis] = cut.length(&dims[cut.axis]);
    }
    one(input.dtype, dims)
}

impl Cut {
    /// The size of what is taken from an axis. A named size is taken to reach as far as the bounds do.
    fn length(&self, dim: &Dim) -> Dim {
        let Self { start, end, step, .. } = *self;
        match dim {
            Dim::Fixed(size) => {
                let (start, end) = (self.bound(start, *size as i64), self.bound(end, *size as i64));
                Dim::Fixed(steps_between(start, end, step))
            }
            Dim::Symbol(_) if step == 1 && start == 0 && end >= OPEN_END => dim.clone(),
            Dim::Symbol(_) if step == 1 && start < 0 && end >= OPEN_END => Dim::Fixed(start.unsigned_abs() as usize),
            Dim::Symbol(_) if step == 1 && start >= 0 && (0..OPEN_END).contains(&end) => {
                Dim::Fixed((end - start).max(0) as usize)
            }
            Dim::Symbol(name) if step == 1 => derived(format!("{name}[{start}:{end}]")),
            _ => Dim::Unknown,
        }
    }

    /// A bound within an axis of `size`, counted from the front; -1 is before the first element.
    fn bound(&self, at: i64, size: i64) -> i64 {
        let at = if at < 0 { at.saturating_add(size) } else { at };
        if self.step > 0 { at.clamp(0, size) } else { at.clamp(-1, size - 1) }
    }
}

/// Zeros around the gradient where whole ranges were taken; else each element's gradient goes to where it was.
fn slice_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let x = site.input(0)?;
    let dims = builder.ty(x)?.dims.clone();
    let steps = site.optional(4).map(|steps| builder.inline(steps).map(integers).transpose()).transpose()?;
    let gradient = match steps {
        None => surrounded(builder, site, &dims)?,
        Some(Some(steps)) if steps.iter().all(|step| *step == 1) => surrounded(builder, site, &dims)?,
        Some(_) => scattered(builder, site)?,
    };
    let mut gradients = vec![None; site.node.inputs.len()];
    gradients[0] = Some(gradient);
    Ok(gradients)
}

/// The gradient of a slice of whole ranges.
fn surrounded(builder: &mut Builder, site: &Use, dims: &[Dim]) -> Result<Value> {
    let gradient = site.gradient()?;
    let known = |index| {
        let input = site.optional(index);
        (input.and_then(|value| builder.inline(value)), input.is_some())
    };
    let constant = cuts(dims.len(), known)?.and_then(|cuts| fixed_pads(&cuts, dims));
    let (pads, axes) = match constant {
        Some((pads, axes)) => (builder.ints(&pads)?, builder.ints(&axes)?),
        None => computed_pads(builder, site)?,
    };
    let ty = Type { dtype: builder.ty(gradient)?.dtype, dims: dims.to_vec() };
    let padded = builder.node("Pad", &[Some(gradient), Some(pads), None, Some(axes)], &[])?[0];
    builder.assume(padded, ty);
    Ok(padded)
}

/// Elements before and after each range, and the axes, where the sizes are known.
fn fixed_pads(cuts: &[Cut], dims: &[Dim]) -> Option<(Vec<i64>, Vec<i64>)> {
    let (mut before, mut after, mut axes) = (Vec::new(), Vec::new(), Vec::new());
    for cut in cuts {
        let Dim::Fixed(size) = dims[cut.axis] else { return None };
        let size = size as i64;
        let start = cut.bound(cut.start, size);
        before.push(start);
        after.push(size - cut.bound(cut.end, size).max(start));
        axes.push(cut.axis as i64);
    }
    before.extend(after);
    Some((before, axes))
}

/// Elements before and after each range, and the axes, from the sizes when the graph runs.
fn computed_pads(builder: &mut Builder, site: &Use) -> Result<(Value, Value)> {
    let starts = site.input(1)?;
    let axes = match (site.optional(3), builder.ty(starts)?.dims.as_slice()) {
        (Some(axes), _) => builder.cast(axes, DType::I64)?,
        (None, [Dim::Fixed(count)]) => builder.ints(&(0..*count as i64).collect::<Vec<_>>())?,
        _ => return Err(Error::internal("how many axes are cut is not known")),
    };
    let sizes_of = |builder: &mut Builder, value| {
        let shape = builder.op("Shape", &[value], &[])?;
        builder.gather(shape, axes, 0)
    };
    let sizes = sizes_of(builder, site.input(0)?)?;
    let lengths = sizes_of(builder, site.gradient()?)?;
    let starts = builder.cast(starts, DType::I64)?;
    let zero = builder.scalar(0i64)?;
    let negative = builder.op("Less", &[starts, zero], &[])?;
    let from_back = builder.add(starts, sizes)?;
    let before = builder.op("Where", &[negative, from_back, starts], &[])?;
    let before = builder.op("Max", &[before, zero], &[])?;
    let before = builder.op("Min", &[before, sizes], &[])?;
    let rest = builder.op("Sub", &[sizes, before], &[])?;
    let after = builder.op("Sub", &[rest, lengths], &[])?;
    Ok((builder.concat(&[before, after], 0)?, axes))
}

/// The gradient of an operator that picks elements: what it picks of the elements' numbers says where each of them was.
/// Elements that were picked more than once have the sum, always added in the same order.
pub(super) fn scattered(builder: &mut Builder, site: &Use) -> Result<Value> {
    let (x, gradient) = (site.input(0)?, site.gradient()?);
    let (zero, step) = (builder.scalar(0i64)?, builder.scalar(1i64)?);
    let size = builder.op("Size", &[x], &[])?;
    let numbers = builder.op("Range", &[zero, size, step], &[])?;
    let numbers = reshape_like(builder, numbers, x)?;
    let mut inputs = site.node.inputs.clone();
    inputs[0] = Some(numbers);
    let places = builder.repeat(site.node, &inputs)?[0];
    let zeros = zeros_like(builder, x)?;
    let [zeros, places, values] =
        [builder.reshape(zeros, &[-1])?, builder.reshape(places, &[-1])?, builder.reshape(gradient, &[-1])?];
    let placed =
        builder.op("ScatterElements", &[zeros, places, values], &[("reduction", Attribute::Text("add".to_owned()))])?;
    reshape_like(builder, placed, x)
}

fn pad_cases() -> Vec<Case> {
    let input = || Case::new().input("batch,tokens,4");
    vec![
        input().ints(&[0, 2, 0, 0, 1, 3]),
        input().ints(&[0, -1, 1, 0, 2, -2]).input(""),
        input().ints(&[1, 2, 3, 0]).constant(Tensor::scalar(0.5f32)).ints(&[-1, 1]).unknown(),
        input().input("i3:6"),
    ]
}

fn pad(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let rank = input.dims.len();
    let axes = match (site.optional(3), site.constant(3)) {
        (Some(_), None) => None,
        (_, Some(axes)) => Some(normalise_axes(&integers(axes)?, rank)?),
        (None, None) => Some((0..rank).collect()),
    };
    let (Some(pads), Some(axes)) = (site.constant(1), axes) else {
        return one(input.dtype, vec![Dim::Unknown; rank]);
    };
    let pads = pads.values::<i64>()?;
    if pads.len() != 2 * axes.len() {
        return Err(Error::internal(format!("{} numbers to pad {} axes with", pads.len(), axes.len())));
    }
    let mut dims = input.dims.clone();
    for (index, axis) in axes.iter().enumerate() {
        dims[*axis] = padded(&dims[*axis], pads[index] + pads[index + axes.len()]);
    }
    one(input.dtype, dims)
}

fn padded(dim: &Dim, by: i64) -> Dim {
    match dim {
        Dim::Fixed(size) => Dim::Fixed((*size as i64 + by).max(0) as usize),
        Dim::Symbol(_) if by == 0 => dim.clone(),
        Dim::Symbol(name) if by > 0 => derived(format!("{name}+{by}")),
        _ => Dim::Unknown,
    }
}

/// The reverse is to pad by the negative amounts: what was added is cut off, and where elements were cut off are zeros.
fn pad_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, pads, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    if let Some(mode) = site.attributes().text("mode").filter(|mode| *mode != "constant") {
        return Err(Error::input(format!("there is no gradient of `Pad` in mode `{mode}`"))
            .hint("only padding with a constant number can be differentiated"));
    }
    let ty = builder.ty(x)?.clone();
    let back = match builder.inline(pads).map(integers).transpose()? {
        Some(pads) => builder.ints(&pads.iter().map(|pad| -pad).collect::<Vec<_>>())?,
        None => builder.op("Neg", &[pads], &[])?,
    };
    let kept = builder.node("Pad", &[Some(gradient), Some(back), None, site.optional(3)], &[])?[0];
    builder.assume(kept, ty);
    let of_number = match site.optional(2) {
        Some(number) if builder.inline(number).is_none() => Some(around(builder, gradient, kept)?),
        _ => None,
    };
    Ok(vec![Some(kept), None, of_number, None])
}

/// The sum of a gradient without that of its part `kept`.
fn around(builder: &mut Builder, gradient: Value, kept: Value) -> Result<Value> {
    let attributes = [("keepdims", Attribute::Int(0))];
    let all = builder.op("ReduceSum", &[gradient], &attributes)?;
    let kept = builder.op("ReduceSum", &[kept], &attributes)?;
    builder.op("Sub", &[all, kept], &[])
}

/// The same triangle of the gradient.
fn trilu_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let mut inputs = site.node.inputs.clone();
    inputs[0] = Some(site.gradient()?);
    Ok(vec![Some(builder.repeat(site.node, &inputs)?[0]), None])
}

#[cfg(test)]
mod tests {
    use crate::graph::{Builder, gradients};

    use super::*;

    #[test]
    fn a_mode_of_padding_without_gradient_is_named() {
        let mut builder = Builder::new("pad");
        let x = builder.input("x", Type::new(DType::F32, [Dim::Fixed(3)])).unwrap();
        let pads = builder.ints(&[1, 1]).unwrap();
        let padded = builder.op("Pad", &[x, pads], &[("mode", Attribute::Text("reflect".to_owned()))]).unwrap();
        let loss = builder.op("ReduceSum", &[padded], &[("keepdims", Attribute::Int(0))]).unwrap();
        let message = format!("{:?}", gradients(&mut builder, loss, &[x], &[]).unwrap_err());
        assert!(message.contains("`reflect`") && message.contains("Pad"), "{message}");
    }
}
