//! Activations and softmax.

use super::{Case, OPEN, Op, same};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Tanh", shape: same, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op { name: "Sigmoid", shape: same, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op { name: "Erf", shape: same, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op { name: "Relu", shape: same, gradient: OPEN, cases: || vec![Case::new().input("~:batch,tokens,4")] },
    Op { name: "Gelu", shape: same, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op { name: "Softmax", shape: same, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens")] },
    Op { name: "LogSoftmax", shape: same, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens")] },
];
