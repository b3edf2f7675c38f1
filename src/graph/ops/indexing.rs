//! Operators that pick or place elements by index.

use super::layout::zeros_like;
use super::window::{integers, scattered};
use super::{Attribute, Case, Dim, Gradient, Op, Site, Type, Use, expand_like, one, same};
use crate::error::{Error, Result};
use crate::graph::{Builder, Value};
use crate::tensor::Tensor;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Gather", shape: gather, gradient: Gradient::Rule(gather_back), cases: gather_cases },
    Op {
        name: "GatherElements",
        shape: gather_elements,
        gradient: Gradient::Rule(gather_elements_back),
        cases: || {
            let input = || Case::new().input("batch,tokens,4");
            let one = Tensor::new([1, 1, 3], vec![-1i64, 2, 2]);
            let fewer = one.map_or_else(|_| input(), |indices| input().constant(indices).int("axis", -1));
            vec![input().input("i5:batch,tokens,4").int("axis", 1), input().input("i2:3,tokens,4").unknown(), fewer]
        },
    },
    Op { name: "GatherND", shape: gather_nd, gradient: Gradient::Rule(gather_nd_back), cases: gather_nd_cases },
    Op {
        name: "ScatterElements",
        shape: same,
        gradient: Gradient::Rule(scatter_elements_back),
        cases: scatter_elements_cases,
    },
    Op { name: "ScatterND", shape: same, gradient: Gradient::Rule(scatter_nd_back), cases: scatter_nd_cases },
    Op {
        name: "OneHot",
        shape: one_hot,
        gradient: Gradient::Rule(one_hot_back),
        cases: || {
            let indices = || Case::new().input("i7:batch,tokens");
            vec![
                indices().constant(Tensor::scalar(7i64)).input("2"),
                indices().ints(&[4]).input("2").int("axis", 1).unknown(),
            ]
        },
    },
];

fn gather_cases() -> Vec<Case> {
    let input = || Case::new().input("batch,tokens,4");
    vec![
        Case::new().input("tokens,64").input("i5:batch,past"),
        input().input("i2:3,past").int("axis", 0),
        input().input("i5:past").int("axis", 1).unknown(),
        input().input("i4:2,past").int("axis", -1).unknown(),
        input().ints(&[-1, 0, -1]).int("axis", 1),
        input().constant(Tensor::scalar(-2i64)).int("axis", 1),
    ]
}

fn gather(site: &Site) -> Result<Vec<Type>> {
    let (input, indices) = (site.input(0)?, site.input(1)?);
    let axis = site.axis(input.dims.len(), 0)?;
    let mut dims = input.dims[..axis].to_vec();
    dims.extend_from_slice(&indices.dims);
    dims.extend_from_slice(&input.dims[axis + 1..]);
    one(input.dtype, dims)
}

/// Each picked slice's gradient is added to where it was picked. `ScatterElements` adds in the order of the indices, so
/// repeated ones give the same sum on every run; `ScatterND` does not.
fn gather_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, indices, mut gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let dims = builder.ty(x)?.dims.clone();
    let axis = site.attributes().axis(dims.len(), 0)?;
    let mut picked = indices;
    if builder.ty(indices)?.dims.len() != 1 {
        picked = builder.reshape(indices, &[-1])?;
        gradient = along_one_axis(builder, x, picked, gradient, axis)?;
    }
    let others: Vec<i64> = (0..dims.len()).filter(|other| *other != axis).map(|other| other as i64).collect();
    let column = if others.is_empty() { picked } else { builder.unsqueeze(picked, &others)? };
    let places = expand_like(builder, column, gradient)?;
    Ok(vec![Some(added(builder, x, [places, gradient], axis)?), None])
}

/// The gradient with one axis where the indices have several or none; the other sizes are those of `x`.
fn along_one_axis(builder: &mut Builder, x: Value, picked: Value, gradient: Value, axis: usize) -> Result<Value> {
    let ty = builder.ty(x)?.clone();
    let mut parts = Vec::new();
    if axis > 0 {
        parts.push(builder.op("Shape", &[x], &[("end", Attribute::Int(axis as i64))])?);
    }
    parts.push(builder.op("Shape", &[picked], &[])?);
    if axis + 1 < ty.dims.len() {
        parts.push(builder.op("Shape", &[x], &[("start", Attribute::Int(axis as i64 + 1))])?);
    }
    let shape = builder.concat(&parts, 0)?;
    let result = builder.op("Reshape", &[gradient, shape], &[("allowzero", Attribute::Int(1))])?;
    let mut dims = ty.dims;
    dims[axis] = builder.ty(picked)?.dims[0].clone();
    builder.assume(result, Type { dtype: ty.dtype, dims });
    Ok(result)
}

/// Zeros like `x` with values added at places along an axis. The zeros are computed from the number of values: those of
/// a table of known size would otherwise be folded into a constant as large as the table, which the session then keeps.
fn added(builder: &mut Builder, x: Value, [places, values]: [Value; 2], axis: usize) -> Result<Value> {
    let (count, nothing) = (builder.op("Size", &[values], &[])?, builder.scalar(0i64)?);
    let zero = builder.mul(count, nothing)?;
    let zero = builder.cast(zero, builder.ty(x)?.dtype)?;
    let zeros = expand_like(builder, zero, x)?;
    let attributes = [("axis", Attribute::Int(axis as i64)), ("reduction", Attribute::Text("add".to_owned()))];
    builder.op("ScatterElements", &[zeros, places, values], &attributes)
}

fn gather_elements(site: &Site) -> Result<Vec<Type>> {
    let (input, indices) = (site.input(0)?, site.input(1)?);
    if input.dims.len() != indices.dims.len() {
        return Err(Error::internal(format!("{input} and its indices {indices} differ in their dimensions")));
    }
    one(input.dtype, indices.dims.clone())
}

/// Each element's gradient is added to where it was picked.
fn gather_elements_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, indices, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let axis = site.attributes().axis(builder.ty(x)?.dims.len(), 0)?;
    Ok(vec![Some(added(builder, x, [indices, gradient], axis)?), None])
}

fn gather_nd_cases() -> Vec<Case> {
    let input = || Case::new().input("batch,tokens,4");
    let mut cases = vec![
        input().input("i2:past,2"),
        input().input("i2:past,7,1"),
        input().input("i2:past,3"),
        input().input("i4:batch,3,2").int("batch_dims", 1),
    ];
    if let Ok(places) = Tensor::new([3, 2], vec![0i64, 1, 1, -2, 0, 1]) {
        cases.push(input().constant(places).unknown());
    }
    cases
}

fn gather_nd(site: &Site) -> Result<Vec<Type>> {
    let (input, indices) = (site.input(0)?, site.input(1)?);
    let batch = usize::try_from(site.int("batch_dims").unwrap_or(0)).unwrap_or(usize::MAX);
    let Some((Dim::Fixed(depth), rest)) = indices.dims.split_last() else {
        return Err(Error::internal(format!("how many dimensions the indices {indices} have is not known")));
    };
    let kept = batch.checked_add(*depth).and_then(|first| input.dims.get(first..));
    let kept = kept.ok_or_else(|| Error::internal(format!("{input} has too few dimensions for {indices}")))?;
    one(input.dtype, [rest, kept].concat())
}

/// Each element's gradient is added to where it was picked.
fn gather_nd_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(scattered(builder, site)?), None])
}

/// Places that repeat only where values are added: else it is not defined which value stays.
fn scatter_elements_cases() -> Vec<Case> {
    let input = || Case::new().input("batch,tokens,4");
    let mut cases = vec![
        input().input("i5:batch,tokens,4").input("batch,tokens,4").int("axis", 1).with("reduction", add()),
        Case::new().input("tokens").ints(&[1, -1, 0]).input("3"),
    ];
    if let Ok(places) = Tensor::new([1, 2, 3], vec![0i64, 1, 2, 4, -5, 1]) {
        cases.push(input().constant(places).input("1,2,3").int("axis", 1).unknown());
    }
    cases
}

fn add() -> Attribute {
    Attribute::Text("add".to_owned())
}

/// What `reduction` says of values that are placed.
enum Placed {
    Replacing,
    Adding,
}

fn placed(site: &Use) -> Result<Placed> {
    match site.attributes().text("reduction").unwrap_or("none") {
        "none" => Ok(Placed::Replacing),
        "add" => Ok(Placed::Adding),
        other => Err(Error::input(format!("there is no gradient of `{}` with reduction `{other}`", site.node.op))
            .hint("values that are placed or added can be differentiated")),
    }
}

/// The gradients of the input and of the placed values: the former's is lost where a value took its place, the latter's
/// is picked by `pick` from where they went.
fn scatter_back(builder: &mut Builder, site: &Use, pick: &str) -> Result<Vec<Option<Value>>> {
    let (indices, updates, gradient) = (site.input(1)?, site.input(2)?, site.gradient()?);
    let axis = site.attributes().int("axis").map(|axis| ("axis", Attribute::Int(axis)));
    let axis: Vec<(&str, Attribute)> = axis.into_iter().collect();
    let of_input = match placed(site)? {
        Placed::Adding => gradient,
        Placed::Replacing => {
            let zeros = zeros_like(builder, updates)?;
            builder.op(&site.node.op, &[gradient, indices, zeros], &axis)?
        }
    };
    let of_updates = builder.op(pick, &[gradient, indices], &axis)?;
    let ty = builder.ty(updates)?.clone();
    builder.assume(of_updates, ty);
    Ok(vec![Some(of_input), None, Some(of_updates)])
}

fn scatter_elements_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    scatter_back(builder, site, "GatherElements")
}

fn scatter_nd_cases() -> Vec<Case> {
    let input = || Case::new().input("batch,tokens,4");
    let Ok(places) = Tensor::new([3, 2], vec![0i64, 1, 1, -2, 0, -1]) else { return Vec::new() };
    vec![
        input().constant(places.clone()).input("3,4"),
        input().constant(places.clone()).input("3,4").unknown(),
        input().constant(places).input("3,4").with("reduction", add()),
    ]
}

fn scatter_nd_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    scatter_back(builder, site, "GatherND")
}

fn one_hot(site: &Site) -> Result<Vec<Type>> {
    let (indices, values) = (site.input(0)?, site.input(2)?);
    let axis = site.axis(indices.dims.len() + 1, -1)?;
    let depth = site.constant(1).and_then(|depth| integers(depth).ok()?.first().copied());
    let mut dims = indices.dims.clone();
    dims.insert(axis, depth.map_or(Dim::Unknown, |depth| Dim::Fixed(depth.max(0) as usize)));
    one(values.dtype, dims)
}

/// The value of the chosen places has the sum of the gradient over them, the other value the rest of the sum.
fn one_hot_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (values, gradient) = (site.input(2)?, site.gradient()?);
    let dtype = builder.ty(values)?.dtype;
    let places = builder.ints(&[0, 1])?;
    let mut inputs = site.node.inputs.clone();
    inputs[2] = Some(builder.cast(places, dtype)?);
    let chosen = builder.repeat(site.node, &inputs)?[0];
    let chosen = builder.mul(gradient, chosen)?;
    let attributes = [("keepdims", Attribute::Int(0))];
    let on = builder.op("ReduceSum", &[chosen], &attributes)?;
    let all = builder.op("ReduceSum", &[gradient], &attributes)?;
    let off = builder.op("Sub", &[all, on], &[])?;
    let (off, on) = (builder.unsqueeze(off, &[0])?, builder.unsqueeze(on, &[0])?);
    Ok(vec![None, None, Some(builder.concat(&[off, on], 0)?)])
}
