//! Comparisons and logic, whose results are truth values.

use super::{Case, OPEN, Op, Site, Type, arithmetic, same};
use crate::error::Result;
use crate::tensor::DType;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op {
        name: "And",
        shape: arithmetic::broadcast,
        gradient: OPEN,
        cases: || vec![Case::new().input("b:batch,tokens,4").input("b:4")],
    },
    Op {
        name: "Or",
        shape: arithmetic::broadcast,
        gradient: OPEN,
        cases: || vec![Case::new().input("b:batch,tokens,4").input("b:4")],
    },
    Op { name: "Not", shape: same, gradient: OPEN, cases: || vec![Case::new().input("b:batch,tokens,4")] },
    Op {
        name: "Equal",
        shape: comparison,
        gradient: OPEN,
        cases: || vec![Case::new().input("i9:batch,tokens,4").input("i9:4")],
    },
    Op {
        name: "Less",
        shape: comparison,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,1").input("1,tokens")],
    },
    Op {
        name: "LessOrEqual",
        shape: comparison,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,tokens,4").input("4")],
    },
    Op {
        name: "Greater",
        shape: comparison,
        gradient: OPEN,
        cases: || vec![Case::new().input("i9:batch,1").input("i9:1,tokens")],
    },
    Op {
        name: "GreaterOrEqual",
        shape: comparison,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,tokens,4").input("4")],
    },
];

fn comparison(site: &Site) -> Result<Vec<Type>> {
    let types = arithmetic::broadcast(site)?;
    Ok(types.into_iter().map(|ty| Type { dtype: DType::Bool, ..ty }).collect())
}
