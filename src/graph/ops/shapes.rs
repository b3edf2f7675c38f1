//! Shape rules of the operators in [`super::OPS`].

use super::{Dim, Site, Type, derived, normalise_axis, one};
use crate::error::{Error, Result};
use crate::tensor::DType;

pub(super) fn same(site: &Site) -> Result<Vec<Type>> {
    Ok(vec![site.input(0)?.clone()])
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

pub(super) fn comparison(site: &Site) -> Result<Vec<Type>> {
    let types = broadcast(site)?;
    Ok(types.into_iter().map(|ty| Type { dtype: DType::Bool, ..ty }).collect())
}

pub(super) fn select(site: &Site) -> Result<Vec<Type>> {
    let (condition, yes, no) = (site.input(0)?, site.input(1)?, site.input(2)?);
    if condition.dtype != DType::Bool || yes.dtype != no.dtype {
        return Err(Error::internal(format!("inputs are {condition}, {yes} and {no}")));
    }
    one(yes.dtype, broadcast_dims(&condition.dims, &broadcast_dims(&yes.dims, &no.dims)?)?)
}

pub(super) fn cast(site: &Site) -> Result<Vec<Type>> {
    let to = site.int("to").ok_or_else(|| Error::internal("`Cast` lacks its attribute `to`"))?;
    one(crate::graph::protobuf::dtype_from_onnx(to)?, site.input(0)?.dims.clone())
}

pub(super) fn matmul(site: &Site) -> Result<Vec<Type>> {
    let (a, b) = (site.input(0)?, site.input(1)?);
    let fits = a.dtype == b.dtype && a.dims.len() >= 2 && b.dims.len() >= 2;
    if !fits || a.dims[a.dims.len() - 1] != b.dims[b.dims.len() - 2] {
        return Err(Error::internal(format!("{a} cannot be multiplied by {b}")));
    }
    let (rows, columns) = (a.dims[a.dims.len() - 2].clone(), b.dims[b.dims.len() - 1].clone());
    let mut dims = broadcast_dims(&a.dims[..a.dims.len() - 2], &b.dims[..b.dims.len() - 2])?;
    dims.extend([rows, columns]);
    one(a.dtype, dims)
}

pub(super) fn conv(site: &Site) -> Result<Vec<Type>> {
    let (input, weight) = (site.input(0)?, site.input(1)?);
    let spatial = input.dims.len().saturating_sub(2);
    if weight.dims.len() != input.dims.len() || spatial == 0 {
        return Err(Error::internal(format!("{input} cannot be convolved with {weight}")));
    }
    let strides = site.int_list("strides").map_or_else(|| vec![1; spatial], <[i64]>::to_vec);
    let dilations = site.int_list("dilations").map_or_else(|| vec![1; spatial], <[i64]>::to_vec);
    let pads = site.int_list("pads").map_or_else(|| vec![0; 2 * spatial], <[i64]>::to_vec);
    let mut dims = vec![input.dims[0].clone(), weight.dims[0].clone()];
    for axis in 0..spatial {
        let (Dim::Fixed(size), Dim::Fixed(kernel)) = (&input.dims[axis + 2], &weight.dims[axis + 2]) else {
            dims.push(derived(format!("conv({})", input.dims[axis + 2])));
            continue;
        };
        let reach = dilations[axis] * (*kernel as i64 - 1) + 1;
        let room = *size as i64 + pads[axis] + pads[axis + spatial] - reach;
        if room < 0 {
            return Err(Error::internal(format!("the kernel {weight} is larger than its input {input}")));
        }
        dims.push(Dim::Fixed((room / strides[axis] + 1) as usize));
    }
    one(input.dtype, dims)
}

pub(super) fn reduce(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let rank = input.dims.len();
    let axes: Vec<usize> = match site.inputs.get(1).copied().flatten() {
        Some(_) => site.ints(1)?.iter().map(|axis| normalise_axis(*axis, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    let keep = site.int("keepdims").unwrap_or(1) != 0;
    one(input.dtype, without_axes(&input.dims, &axes, keep))
}

pub(super) fn arg_max(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let axis = site.axis(input.dims.len(), 0)?;
    one(DType::I64, without_axes(&input.dims, &[axis], site.int("keepdims").unwrap_or(1) != 0))
}

pub(super) fn top_k(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let axis = site.axis(input.dims.len(), -1)?;
    let mut dims = input.dims.clone();
    dims[axis] = match site.ints(1) {
        Ok(count) => Dim::Fixed(count[0] as usize),
        Err(_) => derived("top_k".to_owned()),
    };
    Ok(vec![Type { dtype: input.dtype, dims: dims.clone() }, Type { dtype: DType::I64, dims }])
}

pub(super) fn transpose(site: &Site) -> Result<Vec<Type>> {
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

pub(super) fn reshape(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let wanted = site.ints(1)?;
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
        None if count(&input.dims) != count(&dims) => {
            return Err(Error::internal(format!("{input} has another number of elements than {wanted:?}")));
        }
        None => {}
    }
    one(input.dtype, dims)
}

pub(super) fn squeeze(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let axes: Vec<usize> =
        site.ints(1)?.iter().map(|axis| normalise_axis(*axis, input.dims.len())).collect::<Result<_>>()?;
    if axes.iter().any(|axis| matches!(input.dims[*axis], Dim::Fixed(size) if size != 1)) {
        return Err(Error::internal(format!("axes {axes:?} of {input} are not all of size 1")));
    }
    one(input.dtype, without_axes(&input.dims, &axes, false))
}

pub(super) fn unsqueeze(site: &Site) -> Result<Vec<Type>> {
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

pub(super) fn concat(site: &Site) -> Result<Vec<Type>> {
    let first = site.input(0)?;
    let axis = site.axis(first.dims.len(), 0)?;
    let mut dims = first.dims.clone();
    for index in 1..site.inputs.len() {
        let other = site.input(index)?;
        let fits = other.dtype == first.dtype
            && other.dims.len() == dims.len()
            && (0..dims.len()).all(|at| at == axis || other.dims[at] == dims[at]);
        if !fits {
            return Err(Error::internal(format!("{first} and {other} cannot be joined along axis {axis}")));
        }
        dims[axis] = match (&dims[axis], &other.dims[axis]) {
            (Dim::Fixed(a), Dim::Fixed(b)) => Dim::Fixed(a + b),
            (a, b) => derived(format!("{a}+{b}")),
        };
    }
    one(first.dtype, dims)
}

pub(super) fn slice(site: &Site) -> Result<Vec<Type>> {
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
        };
    }
    one(input.dtype, dims)
}

pub(super) fn gather(site: &Site) -> Result<Vec<Type>> {
    let (input, indices) = (site.input(0)?, site.input(1)?);
    let axis = site.axis(input.dims.len(), 0)?;
    let mut dims = input.dims[..axis].to_vec();
    dims.extend_from_slice(&indices.dims);
    dims.extend_from_slice(&input.dims[axis + 1..]);
    one(input.dtype, dims)
}

pub(super) fn shape_of(site: &Site) -> Result<Vec<Type>> {
    one(DType::I64, vec![Dim::Fixed(site.input(0)?.dims.len())])
}

fn broadcast_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], index: usize| match (index + dims.len()).checked_sub(rank) {
        Some(index) => dims[index].clone(),
        None => Dim::Fixed(1),
    };
    (0..rank)
        .map(|index| match (at(a, index), at(b, index)) {
            (x, y) if x == y => Ok(x),
            (Dim::Fixed(1), other) | (other, Dim::Fixed(1)) => Ok(other),
            (x, y) => Err(Error::internal(format!("dimensions {x} and {y} do not broadcast"))),
        })
        .collect()
}

fn without_axes(dims: &[Dim], axes: &[usize], keep: bool) -> Vec<Dim> {
    let mut result = Vec::with_capacity(dims.len());
    for (index, dim) in dims.iter().enumerate() {
        match (axes.contains(&index), keep) {
            (true, true) => result.push(Dim::Fixed(1)),
            (true, false) => {}
            (false, _) => result.push(dim.clone()),
        }
    }
    result
}

/// Number of elements as a number and the sorted unknown factors.
///
/// A derived size such as `2*text` counts as the number 2 and the factor `text`.
fn count(dims: &[Dim]) -> (usize, Vec<String>) {
    let (mut fixed, mut symbols) = (1, Vec::new());
    for dim in dims {
        match dim {
            Dim::Fixed(size) => fixed *= size,
            Dim::Symbol(name) => {
                for factor in name.split('*') {
                    match factor.parse::<usize>() {
                        Ok(size) => fixed *= size,
                        Err(_) => symbols.push(factor.to_owned()),
                    }
                }
            }
        }
    }
    symbols.sort();
    (fixed, symbols)
}

/// The size of the one open dimension when `from` is reshaped to `to`.
fn remaining(from: &[Dim], to: &[Dim]) -> Result<Dim> {
    let (from_size, mut symbols) = count(from);
    let (to_size, used) = count(to);
    for symbol in used {
        match symbols.iter().position(|other| *other == symbol) {
            Some(index) => drop(symbols.remove(index)),
            None => return Err(Error::internal(format!("`{symbol}` is not among the reshaped dimensions"))),
        }
    }
    if to_size == 0 || from_size % to_size != 0 {
        return Err(Error::internal(format!("{from_size} elements do not divide into {to_size}")));
    }
    Ok(match (from_size / to_size, symbols.as_slice()) {
        (ratio, []) => Dim::Fixed(ratio),
        (1, symbols) => derived(symbols.join("*")),
        (ratio, symbols) => derived(format!("{ratio}*{}", symbols.join("*"))),
    })
}
