//! Convolution and pooling.

use super::dims::derived;
use super::{Case, Dim, OPEN, Op, Site, Type, one};
use crate::error::{Error, Result};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[Op {
    name: "Conv",
    shape: conv,
    gradient: OPEN,
    cases: || {
        vec![
            Case::new()
                .input("batch,3,9,10")
                .input("4,3,3,2")
                .input("4")
                .int_list("strides", &[2, 3])
                .int_list("pads", &[1, 0, 2, 1])
                .int_list("dilations", &[2, 1]),
        ]
    },
}];

fn conv(site: &Site) -> Result<Vec<Type>> {
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
