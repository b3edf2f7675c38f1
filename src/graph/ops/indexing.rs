//! Operators that pick or place elements by index.

use super::layout::{collect, element_numbers, flat, sizes, zeros_like};
use super::{Case, Dim, Gradient, Op, Site, Type, Use, one, same};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Builder, Value};
use crate::tensor::Tensor;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Gather", shape: gather, gradient: Gradient::Rule(gather_gradient), cases: gather_cases },
    Op {
        name: "GatherElements",
        shape: gather_elements,
        gradient: Gradient::Rule(gather_elements_gradient),
        cases: gather_elements_cases,
    },
    Op { name: "GatherND", shape: gather_nd, gradient: Gradient::Rule(gather_nd_gradient), cases: gather_nd_cases },
    Op {
        name: "ScatterElements",
        shape: same,
        gradient: Gradient::Rule(scatter_elements_gradient),
        cases: scatter_elements_cases,
    },
    Op { name: "ScatterND", shape: same, gradient: Gradient::Rule(scatter_nd_gradient), cases: scatter_nd_cases },
    Op { name: "OneHot", shape: one_hot, gradient: Gradient::Rule(one_hot_gradient), cases: one_hot_cases },
];

fn gather_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,4").input("i2:3,past").int("axis", 0),
        Case::new().input("17,32").input("i17:batch,tokens"),
        Case::new().input("batch,tokens,4").input("i4:past").int("axis", -1),
        Case::new().input("batch,tokens,4").constant(Tensor::scalar(-1i64)).int("axis", 1),
        Case::new().input("batch,tokens,4").ints(&[-1, 0, -1]).int("axis", 1).unknown(),
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

/// The rows of the gradient are added up at their indices. `ScatterElements` adds in the order of the indices, so every
/// run gives the same bytes. With 3,000 indices on two threads it took 2 ms where a product with one-hot rows took 73 ms
/// (table `[1700, 128]`), and 171 ms against 497 ms (`[20000, 512]`).
fn gather_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, indices, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let rank = builder.ty(x)?.dims.len();
    let axis = site.attributes().axis(rank, 0)?;
    let indices = flat(builder, indices)?;
    // The dimensions of the indices become one, in the place of the axis.
    let count = builder.op("Shape", &[indices], &[])?;
    let (before, after) = (sizes(builder, x, 0, axis)?, sizes(builder, x, axis + 1, rank)?);
    let shape = builder.concat(&[before, count, after], 0)?;
    let rows = builder.op("Reshape", &[gradient, shape], &[("allowzero", Attribute::Int(1))])?;
    let others: Vec<i64> = (0..rank as i64).filter(|other| *other != axis as i64).collect();
    let indices = if others.is_empty() { indices } else { builder.unsqueeze(indices, &others)? };
    let indices = builder.op("Expand", &[indices, shape], &[])?;
    Ok(vec![Some(add_at(builder, x, indices, rows, axis)?), None])
}

/// Zeros in the shape of `like`, with `rows` added at `indices` along an axis.
pub(super) fn add_at(builder: &mut Builder, like: Value, indices: Value, rows: Value, axis: usize) -> Result<Value> {
    let zeros = zeros_like(builder, like, rows)?;
    let attributes = [("axis", Attribute::Int(axis as i64)), ("reduction", Attribute::Text("add".to_owned()))];
    builder.op("ScatterElements", &[zeros, indices, rows], &attributes)
}

fn gather_elements_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,4").input("i2:batch,tokens,3").int("axis", 0),
        Case::new().input("batch,tokens,4").input("i4:batch,tokens,7").int("axis", -1).unknown(),
    ]
}

fn gather_elements(site: &Site) -> Result<Vec<Type>> {
    one(site.input(0)?.dtype, site.input(1)?.dims.clone())
}

fn gather_elements_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, indices, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let axis = site.attributes().axis(builder.ty(x)?.dims.len(), 0)?;
    Ok(vec![Some(add_at(builder, x, indices, gradient, axis)?), None])
}

fn gather_nd_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,4").input("i2:tokens,2"),
        Case::new().input("batch,tokens,4").input("i4:batch,past,2").int("batch_dims", 1),
        Case::new().input("batch,tokens,4").constant(Tensor::vector(vec![1i64, -1])).unknown(),
    ]
}

fn gather_nd(site: &Site) -> Result<Vec<Type>> {
    let (input, indices) = (site.input(0)?, site.input(1)?);
    let batch = site.int("batch_dims").unwrap_or(0).max(0) as usize;
    let depth = match indices.dims.split_last() {
        Some((Dim::Fixed(depth), _)) if batch + depth <= input.dims.len() => *depth,
        _ => return Err(Error::internal(format!("which dimensions of {input} are indexed by {indices} is not known"))),
    };
    let mut dims = indices.dims[..indices.dims.len() - 1].to_vec();
    dims.extend_from_slice(&input.dims[batch + depth..]);
    one(input.dtype, dims)
}

fn gather_nd_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, indices) = (site.input(0)?, site.input(1)?);
    let batch = site.attributes().int("batch_dims").unwrap_or(0);
    let numbers = element_numbers(builder, x)?;
    let numbers = builder.op("GatherND", &[numbers, indices], &[("batch_dims", Attribute::Int(batch))])?;
    Ok(vec![Some(collect(builder, site.gradient()?, numbers, x)?), None])
}

/// How a scatter treats what was there.
#[derive(PartialEq)]
enum Placing {
    Replace,
    Add,
}

fn placing(site: &Use) -> Result<Placing> {
    match site.attributes().text("reduction").unwrap_or("none") {
        "none" => Ok(Placing::Replace),
        "add" => Ok(Placing::Add),
        other => Err(Error::input(format!("no gradient for the reduction `{other}`"))),
    }
}

fn scatter_elements_cases() -> Vec<Case> {
    let positions = Tensor::new(vec![2, 3], vec![1i64, 0, -1, 0, -2, 1]);
    let mut cases = vec![
        Case::new()
            .input("batch,tokens,4")
            .input("i4:batch,tokens,7")
            .input("batch,tokens,7")
            .int("axis", 2)
            .with("reduction", Attribute::Text("add".to_owned())),
    ];
    if let Ok(positions) = positions {
        cases.push(Case::new().input("3,8").constant(positions).input("2,3"));
    }
    cases
}

fn scatter_elements_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, indices, updates, gradient) = (site.input(0)?, site.input(1)?, site.input(2)?, site.gradient()?);
    let axis = [("axis", Attribute::Int(site.attributes().axis(builder.ty(x)?.dims.len(), 0)? as i64))];
    let placed = builder.op("GatherElements", &[gradient, indices], &axis)?;
    let kept = match placing(site)? {
        Placing::Add => gradient,
        Placing::Replace => {
            let zeros = zeros_like(builder, updates, gradient)?;
            builder.op("ScatterElements", &[gradient, indices, zeros], &axis)?
        }
    };
    Ok(vec![Some(kept), None, Some(placed)])
}

fn scatter_nd_cases() -> Vec<Case> {
    let rows = || Tensor::new(vec![2, 1], vec![1i64, 0]);
    let elements = || Tensor::new(vec![3, 2], vec![1i64, 3, 0, 0, -1, 1]);
    let mut cases = Vec::new();
    if let (Ok(rows), Ok(elements)) = (rows(), elements()) {
        cases.push(Case::new().input("2,tokens,100").constant(rows).input("2,tokens,100"));
        cases.push(Case::new().input("batch,tokens,4").constant(elements).input("3,4").unknown());
    }
    cases
}

fn scatter_nd_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (indices, updates, gradient) = (site.input(1)?, site.input(2)?, site.gradient()?);
    let placed = builder.op("GatherND", &[gradient, indices], &[])?;
    let kept = match placing(site)? {
        Placing::Add => gradient,
        Placing::Replace => {
            let zeros = zeros_like(builder, updates, gradient)?;
            builder.op("ScatterND", &[gradient, indices, zeros], &[])?
        }
    };
    Ok(vec![Some(kept), None, Some(placed)])
}

fn one_hot_cases() -> Vec<Case> {
    let depth = || Tensor::scalar(4i64);
    vec![
        Case::new().input("i4:batch,tokens").constant(depth()).input("2"),
        Case::new().input("i4:batch,tokens").constant(depth()).input("2").int("axis", 1).unknown(),
    ]
}

fn one_hot(site: &Site) -> Result<Vec<Type>> {
    let (indices, values) = (site.input(0)?, site.input(2)?);
    let axis = site.axis(indices.dims.len() + 1, -1)?;
    let depth = site.constant(1).and_then(|depth| depth.values::<i64>().ok()?.first().copied());
    let mut dims = indices.dims.clone();
    dims.insert(axis, depth.map_or(Dim::Unknown, |depth| Dim::Fixed(depth as usize)));
    one(values.dtype, dims)
}

/// The gradient of the value inside is the sum over the marked positions; that of the value outside is the rest.
fn one_hot_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (indices, depth, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let ty = builder.ty(gradient)?.clone();
    let axis = site.attributes().axis(ty.dims.len(), -1)?;
    let (zero, one) = (builder.float(0.0, ty.dtype)?, builder.float(1.0, ty.dtype)?);
    let (zero, one) = (builder.unsqueeze(zero, &[0])?, builder.unsqueeze(one, &[0])?);
    let values = builder.concat(&[zero, one], 0)?;
    let marks = builder.op("OneHot", &[indices, depth, values], &[("axis", Attribute::Int(axis as i64))])?;
    let marked = builder.mul(gradient, marks)?;
    let mut sum = |value| {
        let sum = builder.op("ReduceSum", &[value], &[("keepdims", Attribute::Int(0))])?;
        builder.reshape(sum, &[1])
    };
    let (all, inside) = (sum(gradient)?, sum(marked)?);
    let outside = builder.op("Sub", &[all, inside], &[])?;
    Ok(vec![None, None, Some(builder.concat(&[outside, inside], 0)?)])
}
