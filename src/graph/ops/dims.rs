//! Arithmetic on dimensions that shape rules share.

use super::Dim;
use crate::error::{Error, Result};

/// A symbol for a size that is computed from others.
pub(super) fn derived(text: String) -> Dim {
    Dim::from(text.as_str())
}

/// An axis counted from the front; negative ones count from the back.
pub(in crate::graph) fn normalise_axis(axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(from_front) {
        Ok(index) if index < rank => Ok(index),
        _ => Err(Error::internal(format!("axis {axis} is outside of {rank} dimensions"))),
    }
}

/// Several axes counted from the front.
pub(super) fn normalise_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    axes.iter().map(|axis| normalise_axis(*axis, rank)).collect()
}

/// The dimensions of an elementwise operation over both.
pub(in crate::graph) fn broadcast_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], index: usize| match (index + dims.len()).checked_sub(rank) {
        Some(index) => dims[index].clone(),
        None => Dim::Fixed(1),
    };
    (0..rank)
        .map(|index| match (at(a, index), at(b, index)) {
            (x, y) if x == y => Ok(x),
            (Dim::Fixed(1), other) | (other, Dim::Fixed(1)) => Ok(other),
            // The unknown size can only be this one or 1.
            (Dim::Unknown, Dim::Fixed(size)) | (Dim::Fixed(size), Dim::Unknown) => Ok(Dim::Fixed(size)),
            (Dim::Unknown, _) | (_, Dim::Unknown) => Ok(Dim::Unknown),
            (x, y) => Err(Error::internal(format!("dimensions {x} and {y} do not broadcast"))),
        })
        .collect()
}

/// Whether two sizes can be the same.
pub(super) fn compatible(a: &Dim, b: &Dim) -> bool {
    a == b || matches!((a, b), (Dim::Unknown, _) | (_, Dim::Unknown))
}

/// The dimensions without some axes, or with 1 in their place.
pub(super) fn without_axes(dims: &[Dim], axes: &[usize], keep: bool) -> Vec<Dim> {
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

/// Number of elements as a number and the sorted unknown factors; `None` where a size is not known at all.
///
/// A derived size such as `2*text` counts as the number 2 and the factor `text`.
pub(super) fn count(dims: &[Dim]) -> Option<(usize, Vec<String>)> {
    let (mut fixed, mut symbols) = (1, Vec::new());
    for dim in dims {
        match dim {
            Dim::Fixed(size) => fixed *= size,
            Dim::Unknown => return None,
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
    Some((fixed, symbols))
}

/// The size of the one open dimension when `from` is reshaped to `to`.
pub(in crate::graph) fn remaining(from: &[Dim], to: &[Dim]) -> Result<Dim> {
    let (Some((from_size, mut symbols)), Some((to_size, used))) = (count(from), count(to)) else {
        return Ok(Dim::Unknown);
    };
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
