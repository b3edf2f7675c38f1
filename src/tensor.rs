//! Host tensors: dtype, shape, data in row-major order.

use std::fmt;

use half::{bf16, f16};

use crate::error::{Error, Result};

/// Element type of a tensor, in ONNX and safetensors alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE double precision.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single-precision number.
    BF16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 8-bit unsigned integer.
    U8,
    /// Truth value in one byte.
    Bool,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether arithmetic on it is floating point.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Its short name: `f32`, `bf16`, `i64`, ...
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::U8 => "u8",
            Self::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The elements of a [`Tensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Elements of [`DType::F64`].
    F64(Vec<f64>),
    /// Elements of [`DType::F32`].
    F32(Vec<f32>),
    /// Elements of [`DType::F16`].
    F16(Vec<f16>),
    /// Elements of [`DType::BF16`].
    BF16(Vec<bf16>),
    /// Elements of [`DType::I64`].
    I64(Vec<i64>),
    /// Elements of [`DType::I32`].
    I32(Vec<i32>),
    /// Elements of [`DType::U8`].
    U8(Vec<u8>),
    /// Elements of [`DType::Bool`].
    Bool(Vec<bool>),
}

/// A Rust type that is the element of a tensor.
pub trait Element: Copy + Sized {
    /// The dtype it stands for.
    const DTYPE: DType;
    /// Wraps a vector of elements.
    fn wrap(values: Vec<Self>) -> Data;
    /// The elements, if the data is of this type.
    fn view(data: &Data) -> Option<&[Self]>;
}

macro_rules! element {
    ($($rust:ty => $variant:ident),*) => {$(
        impl Element for $rust {
            const DTYPE: DType = DType::$variant;
            fn wrap(values: Vec<Self>) -> Data {
                Data::$variant(values)
            }
            fn view(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$variant(values) => Some(values),
                    _ => None,
                }
            }
        }
    )*};
}
element!(f64 => F64, f32 => F32, f16 => F16, bf16 => BF16, i64 => I64, i32 => I32, u8 => U8, bool => Bool);

/// A dense tensor in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// A tensor of this shape over these elements; their number must agree.
    pub fn new<T: Element>(shape: impl Into<Vec<usize>>, values: Vec<T>) -> Result<Self> {
        let shape = shape.into();
        if shape.iter().product::<usize>() != values.len() {
            return Err(Error::internal(format!("{} elements do not fill a tensor of shape {shape:?}", values.len())));
        }
        Ok(Self { shape, data: T::wrap(values) })
    }

    /// A tensor without dimensions.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self { shape: Vec::new(), data: T::wrap(vec![value]) }
    }

    /// A tensor of one dimension.
    pub fn vector<T: Element>(values: Vec<T>) -> Self {
        Self { shape: vec![values.len()], data: T::wrap(values) }
    }

    /// A tensor from the little-endian bytes of its elements.
    pub fn from_bytes(dtype: DType, shape: impl Into<Vec<usize>>, bytes: &[u8]) -> Result<Self> {
        let shape = shape.into();
        if shape.iter().product::<usize>() * dtype.size() != bytes.len() {
            return Err(Error::internal(format!(
                "{} bytes do not fill a {dtype} tensor of shape {shape:?}",
                bytes.len()
            )));
        }
        let data = match dtype {
            DType::F64 => Data::F64(read(bytes, f64::from_le_bytes)),
            DType::F32 => Data::F32(read(bytes, f32::from_le_bytes)),
            DType::F16 => Data::F16(read(bytes, f16::from_le_bytes)),
            DType::BF16 => Data::BF16(read(bytes, bf16::from_le_bytes)),
            DType::I64 => Data::I64(read(bytes, i64::from_le_bytes)),
            DType::I32 => Data::I32(read(bytes, i32::from_le_bytes)),
            DType::U8 => Data::U8(bytes.to_vec()),
            DType::Bool => Data::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
        };
        Ok(Self { shape, data })
    }

    /// Its elements as little-endian bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::BF16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::U8(values) => values.clone(),
            Data::Bool(values) => values.iter().map(|value| u8::from(*value)).collect(),
        }
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F64(_) => DType::F64,
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::I64(_) => DType::I64,
            Data::I32(_) => DType::I32,
            Data::U8(_) => DType::U8,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Its dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its data with the element type as a variant.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Its data, without the shape.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// Its elements, which must be of type `T`.
    pub fn values<T: Element>(&self) -> Result<&[T]> {
        T::view(&self.data)
            .ok_or_else(|| Error::internal(format!("a tensor of {} was read as {}", self.dtype(), T::DTYPE)))
    }
}

fn read<const N: usize, T>(bytes: &[u8], parse: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| parse(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_for_every_dtype() {
        let tensors = [
            Tensor::vector(vec![1.5f64, -2.0]),
            Tensor::vector(vec![1.5f32, -2.0]),
            Tensor::vector(vec![f16::from_f32(1.5)]),
            Tensor::vector(vec![bf16::from_f32(1.5)]),
            Tensor::vector(vec![i64::MIN, 7]),
            Tensor::vector(vec![-3i32]),
            Tensor::vector(vec![200u8]),
            Tensor::vector(vec![true, false]),
        ];
        for tensor in tensors {
            let back = Tensor::from_bytes(tensor.dtype(), tensor.shape(), &tensor.to_bytes()).unwrap();
            assert_eq!(back, tensor);
        }
    }

    #[test]
    fn shapes_and_types_are_checked() {
        assert!(Tensor::new([2, 3], vec![0f32; 5]).is_err());
        assert!(Tensor::from_bytes(DType::F32, [2], &[0; 7]).is_err());
        assert!(Tensor::scalar(1f32).values::<i64>().is_err());
    }
}
