//! Operators that move elements without computing with them.

use super::dims::{broadcast_dims, compatible, count, derived, normalise_axis, remaining, without_axes};
use super::{Case, Dim, OPEN, Op, Site, Type, one};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op {
        name: "Transpose",
        shape: transpose,
        gradient: OPEN,
        cases: || {
            vec![Case::new().input("batch,tokens,4").int_list("perm", &[2, 0, 1]), Case::new().input("batch,tokens,4")]
        },
    },
    Op {
        name: "Reshape",
        shape: reshape,
        gradient: OPEN,
        cases: || {
            vec![
                Case::new().input("batch,tokens,6").ints(&[0, 0, 2, 3]),
                Case::new().input("batch,tokens,6").ints(&[-1]),
            ]
        },
    },
    Op {
        name: "Squeeze",
        shape: squeeze,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,1,4,1").ints(&[1, -1])],
    },
    Op {
        name: "Unsqueeze",
        shape: unsqueeze,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,tokens,4").ints(&[0, -1])],
    },
    Op {
        name: "Concat",
        shape: concat,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,past,4").input("batch,2,4").int("axis", 1)],
    },
    Op {
        name: "Slice",
        shape: slice,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,tokens,8").ints(&[-1]).ints(&[i64::MAX]).ints(&[1])],
    },
    Op { name: "Shape", shape: shape_of, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op {
        name: "Expand",
        shape: expand,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,1,4").ints(&[2, 1, 3, 1])],
    },
];

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

fn transpose(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let rank = input.dims.len();
    let permutation: Vec<i64> = site.int_list("perm").map_or_else(|| (0..rank as i64).rev().collect(), <[i64]>::to_vec);
    let mut seen = vec![false; rank];
    let mut dims = Vec::with_capacity(rank);
    for axis in &permutation {
        let axis = normalise_axis(*axis, rank)?;
        seen[axis] = true;
        dims.push(input.dims[axis].clone());
    }
    if permutation.len() != rank || seen.contains(&false) {
        return Err(Error::internal(format!("{permutation:?} is no permutation of the dimensions of {input}")));
    }
    one(input.dtype, dims)
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
    let mut dims = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (index, size) in wanted.iter().enumerate() {
        dims.push(match size {
            0 => input.dims.get(index).cloned().ok_or_else(|| Error::internal(format!("{input} to {wanted:?}")))?,
            -1 => {
                open = Some(index);
                Dim::Fixed(1)
            }
            size => Dim::Fixed(*size as usize),
        });
    }
    match open {
        Some(index) => dims[index] = remaining(&input.dims, &dims)?,
        None if count(&input.dims).is_some() && count(&input.dims) != count(&dims) => {
            return Err(Error::internal(format!("{input} has another number of elements than {wanted:?}")));
        }
        None => {}
    }
    one(input.dtype, dims)
}

fn squeeze(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let axes: Vec<usize> =
        site.ints(1)?.iter().map(|axis| normalise_axis(*axis, input.dims.len())).collect::<Result<_>>()?;
    if axes.iter().any(|axis| matches!(input.dims[*axis], Dim::Fixed(size) if size != 1)) {
        return Err(Error::internal(format!("axes {axes:?} of {input} are not all of size 1")));
    }
    one(input.dtype, without_axes(&input.dims, &axes, false))
}

fn unsqueeze(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let rank = input.dims.len() + site.ints(1)?.len();
    let axes: Vec<usize> = site.ints(1)?.iter().map(|axis| normalise_axis(*axis, rank)).collect::<Result<_>>()?;
    let mut rest = input.dims.iter();
    let mut dims = Vec::with_capacity(rank);
    for axis in 0..rank {
        let kept = if axes.contains(&axis) { Some(Dim::Fixed(1)) } else { rest.next().cloned() };
        dims.push(kept.ok_or_else(|| Error::internal(format!("axes {axes:?} repeat")))?);
    }
    one(input.dtype, dims)
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
        dims[axis] = match (&dims[axis], &other.dims[axis]) {
            (Dim::Fixed(a), Dim::Fixed(b)) => Dim::Fixed(a + b),
            (Dim::Unknown, _) | (_, Dim::Unknown) => Dim::Unknown,
            (a, b) => derived(format!("{a}+{b}")),
        };
    }
    one(first.dtype, dims)
}

fn slice(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let (starts, ends, axes) = (site.ints(1)?, site.ints(2)?, site.ints(3)?);
    let mut dims = input.dims.clone();
    for ((start, end), axis) in starts.iter().zip(ends).zip(axes) {
        let axis = normalise_axis(*axis, dims.len())?;
        dims[axis] = match &dims[axis] {
            Dim::Fixed(size) => {
                let size = *size as i64;
                let clamp = |at: i64| if at < 0 { (at + size).max(0) } else { at.min(size) };
                Dim::Fixed((clamp(*end) - clamp(*start)).max(0) as usize)
            }
            Dim::Symbol(_) if *start < 0 && *end == i64::MAX => Dim::Fixed(start.unsigned_abs() as usize),
            Dim::Symbol(_) if *start >= 0 && *end >= 0 && *end != i64::MAX => Dim::Fixed((end - start) as usize),
            Dim::Symbol(name) => derived(format!("{name}[{start}:{end}]")),
            Dim::Unknown => Dim::Unknown,
        };
    }
    one(input.dtype, dims)
}

fn shape_of(site: &Site) -> Result<Vec<Type>> {
    one(DType::I64, vec![Dim::Fixed(site.input(0)?.dims.len())])
}
