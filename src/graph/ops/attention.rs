//! Attention and rotary position embeddings.

use super::{Case, OPEN, Op, same};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[Op {
    name: "RotaryEmbedding",
    shape: same,
    gradient: OPEN,
    cases: || vec![Case::new().input("batch,3,tokens,4").input("batch,tokens,2").input("batch,tokens,2")],
}];
