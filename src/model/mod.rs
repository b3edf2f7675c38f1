//! Model families, and what lies between an image or a question and the tensors they read.

mod resample;
pub mod vision;
