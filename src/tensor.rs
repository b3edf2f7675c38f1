//! Host tensors: dtype, shape, bytes.
