//! ONNX Runtime: the library, sessions and device tensors. The only room that names `ort`.

pub mod library;
mod session;

pub use library::{Runtime, load, locate};
pub use session::{Device, DeviceTensor, Session, SessionOptions};
