//! Comparisons and logic, whose results are truth values.

use super::{Case, Gradient, Op, Site, Type, arithmetic, one, same};
use crate::error::Result;
use crate::tensor::DType;

const TRUTH: Gradient = Gradient::Zero { why: "a truth value has no derivative" };

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "And", shape: arithmetic::broadcast, gradient: TRUTH, cases: truths },
    Op { name: "Or", shape: arithmetic::broadcast, gradient: TRUTH, cases: truths },
    Op { name: "Xor", shape: arithmetic::broadcast, gradient: TRUTH, cases: truths },
    Op { name: "Not", shape: same, gradient: TRUTH, cases: || vec![Case::new().input("b:batch,tokens,4")] },
    Op {
        name: "Equal",
        shape: comparison,
        gradient: TRUTH,
        cases: || {
            let mut cases = orders();
            cases.push(Case::new().input("b:batch,4").input("b:4"));
            cases
        },
    },
    Op { name: "Less", shape: comparison, gradient: TRUTH, cases: orders },
    Op { name: "LessOrEqual", shape: comparison, gradient: TRUTH, cases: orders },
    Op { name: "Greater", shape: comparison, gradient: TRUTH, cases: orders },
    Op { name: "GreaterOrEqual", shape: comparison, gradient: TRUTH, cases: orders },
    Op { name: "IsNaN", shape: test, gradient: TRUTH, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op { name: "IsInf", shape: test, gradient: TRUTH, cases: || vec![Case::new().input("batch,tokens,4").unknown()] },
];

fn truths() -> Vec<Case> {
    vec![Case::new().input("b:batch,tokens,4").input("b:4"), Case::new().input("b:batch,1").input("b:tokens").unknown()]
}

fn orders() -> Vec<Case> {
    vec![
        Case::new().input("batch,tokens,4").input("4"),
        Case::new().input("i9:batch,1").input("i9:1,tokens"),
        Case::new().input("batch,tokens").input("").unknown(),
    ]
}

fn comparison(site: &Site) -> Result<Vec<Type>> {
    let types = arithmetic::broadcast(site)?;
    Ok(types.into_iter().map(|ty| Type { dtype: DType::Bool, ..ty }).collect())
}

fn test(site: &Site) -> Result<Vec<Type>> {
    one(DType::Bool, site.input(0)?.dims.clone())
}
