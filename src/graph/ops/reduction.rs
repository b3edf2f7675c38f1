//! Sums, means, extremes and searches along axes.

use super::dims::{derived, normalise_axes, without_axes};
use super::{Case, Dim, Gradient, OPEN, Op, Site, Type, Use, expand_like, one};
use crate::error::Result;
use crate::graph::{Builder, Value};
use crate::tensor::DType;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op {
        name: "ReduceSum",
        shape: reduce,
        gradient: Gradient::Rule(repeat),
        cases: || vec![Case::new().input("batch,tokens,4").ints(&[1, -1]), Case::new().input("batch,tokens,4")],
    },
    Op {
        name: "ReduceMean",
        shape: reduce,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,tokens,4").ints(&[0]).int("keepdims", 0)],
    },
    Op {
        name: "ReduceMax",
        shape: reduce,
        gradient: OPEN,
        cases: || vec![Case::new().input("~:batch,tokens,4").ints(&[-1]).int("keepdims", 0)],
    },
    Op {
        name: "ReduceLogSumExp",
        shape: reduce,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,tokens,4").ints(&[-1])],
    },
    Op {
        name: "ArgMax",
        shape: arg_max,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,tokens").int("axis", -1).int("keepdims", 0)],
    },
    Op {
        name: "TopK",
        shape: top_k,
        gradient: OPEN,
        cases: || vec![Case::new().input("~:batch,tokens").ints(&[2]).int("axis", 1)],
    },
    Op {
        name: "NonZero",
        shape: non_zero,
        gradient: Gradient::Zero { why: "positions do not change with the values" },
        cases: || vec![Case::new().input("b:batch,tokens,4")],
    },
];

fn non_zero(site: &Site) -> Result<Vec<Type>> {
    one(DType::I64, vec![Dim::Fixed(site.input(0)?.dims.len()), Dim::Unknown])
}

fn reduce(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let rank = input.dims.len();
    let keep = site.int("keepdims").unwrap_or(1) != 0;
    let axes: Vec<usize> = match site.inputs.get(1).copied().flatten() {
        Some(_) if site.constant(1).is_none() && keep => return one(input.dtype, vec![Dim::Unknown; rank]),
        Some(_) => normalise_axes(site.ints(1)?, rank)?,
        None => (0..rank).collect(),
    };
    one(input.dtype, without_axes(&input.dims, &axes, keep))
}

/// `d sum(x) / dx = 1`: the gradient of a sum belongs to each of its terms.
fn repeat(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, mut gradient) = (site.input(0)?, site.gradient()?);
    if site.attributes().int("keepdims") == Some(0) {
        let rank = builder.ty(x)?.dims.len() as i64;
        let axes = match site.optional(1) {
            Some(axes) => axes,
            None => builder.ints(&(0..rank).collect::<Vec<_>>())?,
        };
        gradient = builder.op("Unsqueeze", &[gradient, axes], &[])?;
    }
    Ok(vec![Some(expand_like(builder, gradient, x)?), None])
}

fn arg_max(site: &Site) -> Result<Vec<Type>> {
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
