//! Measures how robust visual question answering models are when images, questions or answers shift
//! away from the training data.
//!
//! # The rooms
//!
//! Each room names only rooms of the levels above it; `tests/architecture.rs` holds the map to that.
//!
//! | level | room | owns |
//! |---|---|---|
//! | 0 | [`error`] | the one error type |
//! | 1 | [`tensor`] | host tensors: dtype, shape, bytes |
//! | 1 | [`stats`] | intervals (the only room that names statrs) |
//! | 2 | [`graph`] | ONNX as a value: typed builder, shape rules, protobuf (the only room that names prost); runs nothing |
//! | 2 | [`score`] | answer normalisers and metrics: strings and numbers in, numbers out |
//! | 2 | [`store`] | raw answers in SQLite (the only room that names rusqlite) |
//! | 2 | [`shift`] | distance of features from a reference (the only room that names ndarray-linalg) |
//! | 3 | [`runtime`] | sessions and device tensors (the only room that names ort) |
//! | 3 | [`data`] | questions, annotations, images on disk |
//! | 4 | [`model`] | model families as graph builders, preprocessing, decoding (the only room that names tokenizers and safetensors) |
//! | 5 | [`suite`] | composes the others: a validated plan and its execution |
//! | 5 | [`report`] | tables from scores (names only error, score, stats, store and data) |
//!
//! The binary (`src/main.rs`, `src/cli/`) comes last: it alone prints, draws progress and exits, and
//! is the only room that names clap and indicatif.

pub mod data;
pub mod error;
pub mod graph;
pub mod model;
pub mod report;
pub mod runtime;
pub mod score;
pub mod shift;
pub mod stats;
pub mod store;
pub mod suite;
pub mod tensor;
