//! Matrix products.

use super::dims::{broadcast_dims, compatible};
use super::{Case, OPEN, Op, Site, Type, one};
use crate::error::{Error, Result};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[Op {
    name: "MatMul",
    shape: matmul,
    gradient: OPEN,
    cases: || {
        vec![
            Case::new().input("batch,3,tokens,4").input("4,6"),
            Case::new().input("batch,3,tokens,4").input("batch,1,4,past"),
        ]
    },
}];

fn matmul(site: &Site) -> Result<Vec<Type>> {
    let (a, b) = (site.input(0)?, site.input(1)?);
    let fits = a.dtype == b.dtype && a.dims.len() >= 2 && b.dims.len() >= 2;
    if !fits || !compatible(&a.dims[a.dims.len() - 1], &b.dims[b.dims.len() - 2]) {
        return Err(Error::internal(format!("{a} cannot be multiplied by {b}")));
    }
    let (rows, columns) = (a.dims[a.dims.len() - 2].clone(), b.dims[b.dims.len() - 1].clone());
    let mut dims = broadcast_dims(&a.dims[..a.dims.len() - 2], &b.dims[..b.dims.len() - 2])?;
    dims.extend([rows, columns]);
    one(a.dtype, dims)
}
