//! ONNX Runtime: the library, sessions and device tensors. The only room that names `ort`.

pub mod library;
