//! Operators that pick or place elements by index.

use super::{Case, OPEN, Op, Site, Type, one};
use crate::error::Result;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[Op {
    name: "Gather",
    shape: gather,
    gradient: OPEN,
    cases: || vec![Case::new().input("batch,tokens,4").input("i2:3,past").int("axis", 0)],
}];

fn gather(site: &Site) -> Result<Vec<Type>> {
    let (input, indices) = (site.input(0)?, site.input(1)?);
    let axis = site.axis(input.dims.len(), 0)?;
    let mut dims = input.dims[..axis].to_vec();
    dims.extend_from_slice(&indices.dims);
    dims.extend_from_slice(&input.dims[axis + 1..]);
    one(input.dtype, dims)
}
