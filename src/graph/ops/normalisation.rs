//! Normalisation layers.

use super::{Case, OPEN, Op, same};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op {
        name: "RMSNormalization",
        shape: same,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,tokens,4").input("4")],
    },
    Op {
        name: "LayerNormalization",
        shape: same,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,tokens,4").input("4").input("4")],
    },
];
