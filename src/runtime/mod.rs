//! ONNX Runtime: the library, sessions and device tensors. The only room that names `ort`.

mod activity;
pub mod library;
mod session;

pub use activity::{Activity, CallTime};
pub use library::{Runtime, load, locate};
pub use session::{Device, DeviceTensor, Session, SessionOptions, Sharing};
