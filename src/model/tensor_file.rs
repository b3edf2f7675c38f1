//! Writes safetensors files tensor by tensor, so that a model is never in memory as a whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use ndarray::ArrayView2;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::weights::StoredTensor;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// The header is padded to a multiple of this many bytes, as the safetensors crate does.
const ALIGNMENT: usize = 8;

/// Where the elements of a tensor to write come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// A file, unchanged.
    Stored(StoredTensor<'a>),
    /// Memory.
    Values(&'a Tensor),
    /// A weight and the LoRA matrices beside it.
    Merged(Merged<'a>),
}

/// `W + scale * B A`, in f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merged<'a> {
    /// `W`, `[outputs, inputs]`, floats.
    pub weight: StoredTensor<'a>,
    /// `A`, f32 `[rank, inputs]`.
    pub down: &'a Tensor,
    /// `B`, f32 `[outputs, rank]`.
    pub up: &'a Tensor,
    /// The factor.
    pub scale: f32,
}

impl Merged<'_> {
    fn values(&self) -> Result<Tensor> {
        merged(&self.weight.to_f32()?, self.down, self.up, self.scale)
    }
}

/// `W + scale * B A` for `W` `[outputs, inputs]`, `A` `[rank, inputs]` and `B` `[outputs, rank]`, all in f32.
///
/// # Errors
/// Internal error for other shapes or dtypes.
pub fn merged(weight: &Tensor, down: &Tensor, up: &Tensor, scale: f32) -> Result<Tensor> {
    let (w, a, b) = (matrix(weight)?, matrix(down)?, matrix(up)?);
    if b.ncols() != a.nrows() || w.dim() != (b.nrows(), a.ncols()) {
        let shapes = [weight, down, up].map(Tensor::shape);
        return Err(Error::internal(format!("matrices of shapes {shapes:?} cannot be merged")));
    }
    let mut product = b.dot(&a);
    product.zip_mut_with(&w, |change, weight| *change = weight + scale * *change);
    Tensor::new(weight.shape(), product.into_raw_vec_and_offset().0)
}

fn matrix(tensor: &Tensor) -> Result<ArrayView2<'_, f32>> {
    let [rows, columns] = tensor.shape() else {
        return Err(Error::internal(format!("a tensor of shape {:?} is no matrix", tensor.shape())));
    };
    ArrayView2::from_shape((*rows, *columns), tensor.values::<f32>()?)
        .map_err(|cause| Error::internal("a matrix with gaps").caused_by(cause))
}

impl<'a> Source<'a> {
    pub(super) fn dtype(&self) -> DType {
        match self {
            Self::Stored(tensor) => tensor.dtype,
            Self::Values(tensor) => tensor.dtype(),
            Self::Merged(_) => DType::F32,
        }
    }

    pub(super) fn shape(&self) -> &'a [usize] {
        match self {
            Self::Stored(tensor) => tensor.shape,
            Self::Values(tensor) => tensor.shape(),
            Self::Merged(merged) => merged.weight.shape,
        }
    }

    /// Number of elements.
    pub(super) fn count(&self) -> usize {
        self.shape().iter().product()
    }

    /// Bytes it takes.
    pub(super) fn length(&self) -> usize {
        self.count() * self.dtype().size()
    }

    fn bytes(&self) -> Result<Cow<'a, [u8]>> {
        Ok(match self {
            Self::Stored(tensor) => Cow::Borrowed(tensor.bytes),
            Self::Values(tensor) => Cow::Owned(tensor.to_bytes()),
            Self::Merged(merged) => Cow::Owned(merged.values()?.to_bytes()),
        })
    }
}

/// Writes one file in the layout of the safetensors crate: the widest dtypes first, then by name; the metadata is what
/// transformers and PEFT ask for, `{"format": "pt"}`. `on_bytes` hears of every further piece that is written.
///
/// # Errors
/// Input error naming the file where it cannot be written.
pub(super) fn write(path: &Path, tensors: &[(&str, Source)], on_bytes: &mut dyn FnMut(u64)) -> Result<()> {
    let failed = |cause: std::io::Error| crate::data::write_error(path, cause);
    let mut tensors = tensors.to_vec();
    tensors.sort_by(|(left_name, left), (right_name, right)| {
        stored_dtype(right.dtype()).cmp(&stored_dtype(left.dtype())).then(left_name.cmp(right_name))
    });
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    let header = header(&tensors)?;
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(&header).map_err(failed)?;
    for (_, source) in &tensors {
        file.write_all(&source.bytes()?).map_err(failed)?;
        on_bytes(source.length() as u64);
    }
    file.flush().map_err(failed)
}

fn header(tensors: &[(&str, Source)]) -> Result<Vec<u8>> {
    let mut end = 0;
    let entries = tensors.iter().map(|(name, source)| {
        let start = end;
        end += source.length();
        let info = TensorInfo {
            dtype: stored_dtype(source.dtype()),
            shape: source.shape().to_vec(),
            data_offsets: (start, end),
        };
        ((*name).to_owned(), info)
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let invalid = |cause| Error::internal("the tensors make no safetensors header").caused_by(cause);
    let metadata = Metadata::new(Some(format), entries.collect()).map_err(invalid)?;
    let mut header = serde_json::to_vec(&metadata)
        .map_err(|cause| Error::internal("the tensors make no safetensors header").caused_by(cause))?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    Ok(header)
}

fn stored_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[[1, 2, 3], [4, 5, 6]] + 2 * [[1], [-1]] [[1, 0, -2]]`, by hand.
    #[test]
    fn matrices_are_merged_in_f32() {
        let tensor = |shape: [usize; 2], values: &[f32]| Tensor::new(shape, values.to_vec()).unwrap();
        let weight = tensor([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let (down, up) = (tensor([1, 3], &[1.0, 0.0, -2.0]), tensor([2, 1], &[1.0, -1.0]));
        let expected = tensor([2, 3], &[3.0, 2.0, -1.0, 2.0, 5.0, 10.0]);
        assert_eq!(merged(&weight, &down, &up, 2.0).unwrap(), expected);
        assert!(merged(&weight, &up, &down, 2.0).is_err());
    }

    #[test]
    fn files_are_those_of_the_safetensors_crate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let wide = Tensor::new([2, 1], vec![1.0f32, -2.5]).unwrap();
        let narrow = Tensor::vector(vec![half::f16::from_f32(0.5)]);
        let mut heard = 0;
        let sources = [("b", Source::Values(&narrow)), ("z", Source::Values(&wide)), ("a", Source::Values(&narrow))];
        write(&path, &sources, &mut |bytes| heard += bytes).unwrap();
        let bytes = [&wide, &narrow].map(Tensor::to_bytes);
        let view =
            |dtype, shape: &[usize], bytes| safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
        let views = [
            ("a", view(Dtype::F16, &[1], &bytes[1])),
            ("b", view(Dtype::F16, &[1], &bytes[1])),
            ("z", view(Dtype::F32, &[2, 1], &bytes[0])),
        ];
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let expected = safetensors::serialize(views, Some(format)).unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), heard), (expected, 12));
    }
}
