//! Weights between two models of the same form (WiSE-FT, Wortsman et al. 2022).

use super::adapter::is_up;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What is interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Each tensor.
    Tensors,
    /// The products of LoRA matrices, and so the merged weights. The products of the start are zero, so that the share of
    /// the end multiplies `B` and leaves `A` as it is.
    Products,
}

/// `(1 - share) start + share end` of the tensor `name`, in double precision: `start` for a share of 0, `end` for 1.
///
/// # Errors
/// Input error for products if those of the start are not zero. Internal error for tensors of different shapes or dtypes.
pub fn interpolate(space: Space, share: f64, name: &str, start: &Tensor, end: &Tensor) -> Result<Tensor> {
    let (before, after) = (start.values::<f32>()?, end.values::<f32>()?);
    if start.shape() != end.shape() {
        return Err(Error::internal(format!("`{name}` is of two shapes")));
    }
    let between = |[start, end]: [f32; 2]| ((1.0 - share) * f64::from(start) + share * f64::from(end)) as f32;
    let pairs = before.iter().zip(after).map(|(start, end)| [*start, *end]);
    let values = match space {
        Space::Tensors => pairs.map(between).collect(),
        Space::Products if !is_up(name) => after.to_vec(),
        Space::Products if before.iter().all(|start| *start == 0.0) => pairs.map(between).collect(),
        Space::Products => {
            return Err(Error::input(format!("the LoRA matrix `{name}` is not zero at the start")).hint(
                "merge the adapter that training goes on with first (`digrap-bench export`), or set space=factors",
            ));
        }
    };
    Tensor::new(start.shape().to_vec(), values)
}
