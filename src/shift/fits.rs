//! Moments in a file: what a reference was fitted with, to be used again.
//!
//! The file is a safetensors file that may hold several fits by name. Of each it has `<name>/mean` `[d]`,
//! `<name>/scatter` `[d, d]`, `<name>/cubic` `[d]` in f64 and, with classes, `<name>/class_means` `[c, d]` in f64,
//! `<name>/class_labels` and `<name>/class_sizes` `[c]` in i64; see [`Moments`] for what they are. Its metadata has
//! `format`, `version` and `fits`: a JSON map from names to `n`, `quartic` and `about`.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use ndarray::Array2;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::moments::{Class, Moments};
use crate::error::{Error, Result};

/// Fits by name.
pub type Fits = BTreeMap<String, Moments>;

const FORMAT: &str = "digrap-bench moments";
const VERSION: &str = "1";
/// The header is padded to a multiple of this many bytes, as the safetensors crate does.
const ALIGNMENT: usize = 8;

/// What the metadata says of a fit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    n: u64,
    quartic: f64,
    about: BTreeMap<String, String>,
}

/// Writes the fits tensor by tensor.
///
/// # Errors
/// A failed write, or an internal error where the header cannot be made.
pub fn write(fits: &Fits, file: &mut impl Write) -> Result<()> {
    let failed = |cause: io::Error| Error::input("cannot write the moments").caused_by(cause);
    let header = header(fits)?;
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(&header).map_err(failed)?;
    for moments in fits.values() {
        write_tensors(moments, file).map_err(failed)?;
    }
    Ok(())
}

/// Tensors of a fit in the order of the file.
fn layout(moments: &Moments) -> Vec<(&'static str, Dtype, Vec<usize>)> {
    let (dimension, classes) = (moments.dimension(), moments.classes.len());
    let mut tensors = vec![
        ("mean", Dtype::F64, vec![dimension]),
        ("scatter", Dtype::F64, vec![dimension, dimension]),
        ("cubic", Dtype::F64, vec![dimension]),
    ];
    if classes > 0 {
        tensors.push(("class_means", Dtype::F64, vec![classes, dimension]));
        tensors.push(("class_labels", Dtype::I64, vec![classes]));
        tensors.push(("class_sizes", Dtype::I64, vec![classes]));
    }
    tensors
}

fn header(fits: &Fits) -> Result<Vec<u8>> {
    let entry = |moments: &Moments| Entry { n: moments.n, quartic: moments.quartic, about: moments.about.clone() };
    let entries: BTreeMap<&String, Entry> = fits.iter().map(|(name, moments)| (name, entry(moments))).collect();
    let invalid = |cause| Error::internal("the moments make no safetensors header").caused_by(cause);
    let texts = [("format", FORMAT.to_owned()), ("version", VERSION.to_owned())];
    let entries = serde_json::to_string(&entries)
        .map_err(|cause| Error::internal("the moments make no metadata").caused_by(cause))?;
    let texts = texts.into_iter().chain([("fits", entries)]).map(|(key, text)| (key.to_owned(), text));
    let mut end = 0;
    let tensors = fits.iter().flat_map(|(name, moments)| layout(moments).into_iter().map(move |row| (name, row)));
    let tensors = tensors.map(|(name, (part, dtype, shape))| {
        let start = end;
        end += 8 * shape.iter().product::<usize>();
        (format!("{name}/{part}"), TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let metadata = Metadata::new(Some(texts.collect()), tensors.collect()).map_err(invalid)?;
    // As a value, its keys are sorted: the metadata is a map without order.
    let mut header = serde_json::to_value(&metadata)
        .and_then(|metadata| serde_json::to_vec(&metadata))
        .map_err(|cause| Error::internal("the moments make no safetensors header").caused_by(cause))?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    Ok(header)
}

fn write_tensors(moments: &Moments, file: &mut impl Write) -> io::Result<()> {
    write_floats(file, moments.mean.iter().copied())?;
    // Whole, so that other programs find the matrix that they expect.
    for row in 0..moments.dimension() {
        let column = |column: usize| moments.scatter[[row.max(column), row.min(column)]];
        write_floats(file, (0..moments.dimension()).map(column))?;
    }
    write_floats(file, moments.cubic.iter().copied())?;
    for class in moments.classes.values() {
        write_floats(file, class.mean.iter().copied())?;
    }
    moments.classes.keys().try_for_each(|label| file.write_all(&label.to_le_bytes()))?;
    moments.classes.values().try_for_each(|class| file.write_all(&class.n.to_le_bytes()))
}

fn write_floats(file: &mut impl Write, values: impl Iterator<Item = f64>) -> io::Result<()> {
    let bytes: Vec<u8> = values.flat_map(f64::to_le_bytes).collect();
    file.write_all(&bytes)
}

/// Reads the fits of a file that [`write()`] has made.
///
/// # Errors
/// Input error that says what is damaged or missing.
pub fn read(bytes: &[u8]) -> Result<Fits> {
    let damaged = |cause| Error::input("this is no whole safetensors file").caused_by(cause);
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let entries = entries(metadata.metadata().as_ref())?;
    let fit = |(name, entry): (String, Entry)| {
        let moments = Reading { name: &name, tensors: &tensors }
            .moments(entry)
            .map_err(|error| error.within(format!("the moments of `{name}` are damaged")))?;
        Ok((name, moments))
    };
    entries.into_iter().map(fit).collect()
}

fn entries(metadata: Option<&HashMap<String, String>>) -> Result<BTreeMap<String, Entry>> {
    let text = |key: &str| metadata.and_then(|metadata| metadata.get(key)).map(String::as_str);
    if text("format") != Some(FORMAT) {
        let hint = "`shift --reference FILE --save-fit FILE` writes such files";
        return Err(Error::input("this safetensors file holds no moments of features").hint(hint));
    }
    if text("version") != Some(VERSION) {
        let version = text("version").unwrap_or("unknown");
        return Err(Error::input(format!("moments of version {version}; this program reads version {VERSION}")));
    }
    serde_json::from_str(text("fits").unwrap_or_default())
        .map_err(|cause| Error::input("the list of fits in the metadata is damaged").caused_by(cause))
}

/// Looks for the tensors of one fit.
struct Reading<'a> {
    name: &'a str,
    tensors: &'a SafeTensors<'a>,
}

impl Reading<'_> {
    fn moments(&self, entry: Entry) -> Result<Moments> {
        let Entry { n, quartic, about } = entry;
        let dimension = self.shape("mean").first().copied().unwrap_or(0);
        let mean = self.floats("mean", &[dimension])?;
        let scatter = lower_triangle(self.floats("scatter", &[dimension, dimension])?, dimension)?;
        let cubic = self.floats("cubic", &[dimension])?;
        let classes = self.classes(n, dimension)?;
        Ok(Moments { n, mean, scatter, cubic, quartic, classes, about })
    }

    fn classes(&self, n: u64, dimension: usize) -> Result<BTreeMap<i64, Class>> {
        let [count] = self.shape("class_labels")[..] else { return Ok(BTreeMap::new()) };
        let (labels, sizes) = (self.integers("class_labels", count)?, self.integers("class_sizes", count)?);
        let means = self.floats("class_means", &[count, dimension])?;
        let sizes: Vec<u64> = sizes.into_iter().filter_map(|size| u64::try_from(size).ok()).collect();
        let sum = sizes.iter().try_fold(0, |sum: u64, size| sum.checked_add(*size));
        if sizes.len() != count || sizes.contains(&0) || sum != Some(n) {
            return Err(Error::input(format!("the sizes of the classes do not add up to {n} samples")));
        }
        let means = means.chunks_exact(dimension.max(1)).map(<[f64]>::to_vec);
        let classes = sizes.into_iter().zip(means).map(|(n, mean)| Class { n, mean });
        let classes: BTreeMap<i64, Class> = labels.into_iter().zip(classes).collect();
        if classes.len() != count {
            return Err(Error::input("two classes have the same label"));
        }
        Ok(classes)
    }

    /// The dimensions of a tensor; none where it is missing.
    fn shape(&self, part: &str) -> Vec<usize> {
        self.tensors.tensor(&self.named(part)).map_or_else(|_| Vec::new(), |tensor| tensor.shape().to_vec())
    }

    fn floats(&self, part: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let values: Vec<f64> = self.words(part, Dtype::F64, shape)?.map(f64::from_le_bytes).collect();
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(Error::input(format!("element {at} of `{part}` is {}", values[at]))),
            None => Ok(values),
        }
    }

    fn integers(&self, part: &str, count: usize) -> Result<Vec<i64>> {
        Ok(self.words(part, Dtype::I64, &[count])?.map(i64::from_le_bytes).collect())
    }

    /// The elements of a tensor that must have this dtype and shape.
    fn words(&self, part: &str, dtype: Dtype, shape: &[usize]) -> Result<impl Iterator<Item = [u8; 8]>> {
        let tensor = self
            .tensors
            .tensor(&self.named(part))
            .map_err(|cause| Error::input(format!("there is no tensor `{part}`")).caused_by(cause))?;
        if (tensor.dtype(), tensor.shape()) != (dtype, shape) {
            let (found, own) = (tensor.dtype(), tensor.shape());
            return Err(Error::input(format!("`{part}` is {found:?} {own:?}, not {dtype:?} {shape:?}")));
        }
        Ok(tensor.data().as_chunks::<8>().0.iter().copied())
    }

    fn named(&self, part: &str) -> String {
        format!("{}/{part}", self.name)
    }
}

/// The lower triangle of a matrix that must be symmetric.
fn lower_triangle(values: Vec<f64>, dimension: usize) -> Result<Array2<f64>> {
    let mut matrix = Array2::from_shape_vec((dimension, dimension), values)
        .map_err(|cause| Error::internal("a scatter matrix of another size").caused_by(cause))?;
    for row in 0..dimension {
        if matrix[[row, row]] < 0.0 {
            return Err(Error::input(format!("`scatter` is negative at {row}")));
        }
        for column in row + 1..dimension {
            if matrix[[row, column]] != matrix[[column, row]] {
                return Err(Error::input(format!("`scatter` is not symmetric at {row}, {column}")));
            }
            matrix[[row, column]] = 0.0;
        }
    }
    Ok(matrix)
}
