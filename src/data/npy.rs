//! Feature matrices and labels in NumPy's `.npy` files, read and written row by row, never held as a whole.
//!
//! The format is that of NumPy's `numpy.lib.format`, versions 1 to 3: a magic text, the version, the length of a header,
//! the header (a Python dictionary of `descr`, `fortran_order` and `shape`), and the elements.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;

use super::WholeFile;
use crate::error::{Error, Result};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Elements begin at a multiple of this many bytes, as in files that NumPy writes.
const ALIGNMENT: usize = 64;
/// A longer header is damage: that of an array of numbers has about 100 bytes.
const LONGEST_HEADER: usize = 1 << 16;
/// Bytes of elements that are read at once.
const READ_BYTES: usize = 1 << 20;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// Type of the elements as NumPy spells it, such as `<f4`.
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

/// Features `[rows, columns]` of a file, in double precision.
#[derive(Debug)]
pub struct Reader {
    elements: Elements,
    columns: usize,
    format: Format,
    block: Vec<f64>,
}

#[derive(Debug, Clone, Copy)]
enum Format {
    F16,
    F32,
    F64,
}

/// The elements of a file, row by row.
#[derive(Debug)]
struct Elements {
    file: BufReader<File>,
    path: PathBuf,
    rows: u64,
    left: u64,
    row_bytes: usize,
    bytes: Vec<u8>,
}

impl Reader {
    /// Opens a file of little-endian f16, f32 or f64 with two dimensions, rows being samples.
    ///
    /// # Errors
    /// Input error where it cannot be read, is damaged, cut off or longer than it says, or holds something else.
    pub fn open(path: &Path) -> Result<Self> {
        let within = |error: Error| error.within(format!("cannot read features from `{}`", path.display()));
        let (header, file, length) = open(path).map_err(within)?;
        let format = Format::of(&header.descr).map_err(within)?;
        let (rows, columns) = matrix_shape(&header).map_err(within)?;
        let elements = Elements::new((file, path), rows, columns.saturating_mul(format.size()), length);
        Ok(Self { elements: elements.map_err(within)?, columns, format, block: Vec::new() })
    }

    /// Number of samples.
    pub fn rows(&self) -> u64 {
        self.elements.rows
    }

    /// Number of features of a sample.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The next rows, one after the other, about a megabyte; none after the last.
    ///
    /// # Errors
    /// Input error where the file cannot be read.
    pub fn next_rows(&mut self) -> Result<Option<&[f64]>> {
        let Self { elements, format, block, .. } = self;
        let Some(bytes) = elements.next()? else { return Ok(None) };
        block.clear();
        match format {
            Format::F16 => block.extend(bytes.as_chunks::<2>().0.iter().map(|&b| f64::from(f16::from_le_bytes(b)))),
            Format::F32 => block.extend(bytes.as_chunks::<4>().0.iter().map(|&b| f64::from(f32::from_le_bytes(b)))),
            Format::F64 => block.extend(bytes.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b))),
        }
        Ok(Some(block))
    }
}

impl Format {
    fn of(descr: &str) -> Result<Self> {
        match descr {
            "<f2" => Ok(Self::F16),
            "<f4" => Ok(Self::F32),
            "<f8" => Ok(Self::F64),
            _ => Err(Error::input(format!("its elements are `{descr}`, not floats in little-endian order"))
                .hint("`numpy.save(file, array.astype(\"<f4\"))` writes what is read here")),
        }
    }

    fn size(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

fn matrix_shape(header: &Header) -> Result<(u64, usize)> {
    let [rows, columns] = header.shape[..] else {
        let message = format!("its shape is {:?}, not [samples, features]", header.shape);
        return Err(Error::input(message).hint("`array.reshape(len(array), -1)` makes rows of an array"));
    };
    // A matrix of one row or column lies the same way in both orders.
    if header.fortran_order && rows > 1 && columns > 1 {
        let hint = "`numpy.save(file, numpy.ascontiguousarray(array))` writes rows";
        return Err(Error::input("its elements lie column by column (`fortran_order`)").hint(hint));
    }
    match usize::try_from(columns) {
        Ok(columns) if columns > 0 => Ok((rows, columns)),
        _ => Err(Error::input(format!("its samples have {columns} features"))),
    }
}

impl Elements {
    /// `length` is that of the elements in the file.
    fn new((file, path): (BufReader<File>, &Path), rows: u64, row_bytes: usize, length: u64) -> Result<Self> {
        let expected = u128::from(rows) * row_bytes as u128;
        if u128::from(length) != expected {
            let what = if u128::from(length) < expected { "is cut off" } else { "has a rest" };
            return Err(Error::input(format!("it {what}: {rows} rows take {expected} bytes, {length} are there")));
        }
        Ok(Self { file, path: path.to_owned(), rows, left: rows, row_bytes, bytes: Vec::new() })
    }

    fn next(&mut self) -> Result<Option<&[u8]>> {
        let count = self.left.min((READ_BYTES / self.row_bytes).max(1) as u64);
        if count == 0 {
            return Ok(None);
        }
        // At most `READ_BYTES`, or one row.
        self.bytes.resize(count as usize * self.row_bytes, 0);
        self.file.read_exact(&mut self.bytes).map_err(|cause| {
            let row = self.rows - self.left;
            Error::input(format!("cannot read row {row} of `{}`", self.path.display())).caused_by(cause)
        })?;
        self.left -= count;
        Ok(Some(&self.bytes))
    }
}

/// Reads a file of labels: integers with one dimension.
///
/// # Errors
/// Input error where it cannot be read, is damaged, or holds something else.
pub fn read_labels(path: &Path) -> Result<Vec<i64>> {
    labels(path).map_err(|error| error.within(format!("cannot read labels from `{}`", path.display())))
}

fn labels(path: &Path) -> Result<Vec<i64>> {
    let (header, file, length) = open(path)?;
    let (signed, size) = match &*header.descr {
        "|i1" => (true, 1),
        "|u1" => (false, 1),
        "<i2" => (true, 2),
        "<u2" => (false, 2),
        "<i4" => (true, 4),
        "<u4" => (false, 4),
        "<i8" => (true, 8),
        descr => return Err(Error::input(format!("its elements are `{descr}`, not integers of up to 64 bits"))),
    };
    let [count] = header.shape[..] else {
        return Err(Error::input(format!("its shape is {:?}, not [samples]", header.shape)));
    };
    let mut elements = Elements::new((file, path), count, size, length)?;
    let mut labels = Vec::new();
    while let Some(bytes) = elements.next()? {
        labels.extend(bytes.chunks_exact(size).map(|bytes| integer(bytes, signed)));
    }
    Ok(labels)
}

/// A little-endian integer of up to eight bytes.
fn integer(bytes: &[u8], signed: bool) -> i64 {
    let negative = signed && bytes.last().is_some_and(|last| *last >= 128);
    let mut whole = [if negative { 255 } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(whole)
}

/// The header of a file, the file at its elements, and how many bytes of elements there are.
fn open(path: &Path) -> Result<(Header, BufReader<File>, u64)> {
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::UnexpectedEof => Error::input("its header is cut off"),
        _ => Error::input("the file cannot be read").caused_by(cause),
    };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(failed)?;
    if !start.starts_with(MAGIC) {
        return Err(
            Error::input("it is no `.npy` file").hint("`numpy.save` writes them; of `.npz` files take one array")
        );
    }
    let length = match start[6] {
        1 => {
            let mut length = [0; 2];
            file.read_exact(&mut length).map_err(failed)?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            file.read_exact(&mut length).map_err(failed)?;
            u32::from_le_bytes(length) as usize
        }
        version => return Err(Error::input(format!("its format has version {version}; 1 to 3 are known"))),
    };
    if length > LONGEST_HEADER {
        return Err(Error::input(format!("its header has {length} bytes")));
    }
    let mut header = vec![0; length];
    file.read_exact(&mut header).map_err(failed)?;
    let header = String::from_utf8_lossy(&header);
    let header = parse(&header).ok_or_else(|| Error::input(format!("its header is damaged: `{}`", header.trim())))?;
    let begin = file.stream_position().map_err(failed)?;
    let end = file.get_ref().metadata().map_err(failed)?.len();
    Ok((header, file, end.saturating_sub(begin)))
}

/// The header's dictionary, whose three keys come in any order.
fn parse(text: &str) -> Option<Header> {
    let mut rest = text.trim().strip_prefix('{')?.trim_start();
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.starts_with('}') {
        let (key, after) = quoted(rest)?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" => {
                // A list of fields, as structured arrays have, is kept as it is.
                let (found, after) = quoted(value).or_else(|| value.split_at_checked(value.find(']')? + 1))?;
                descr = Some(found.to_owned());
                after
            }
            "fortran_order" => {
                let (found, after) = boolean(value)?;
                fortran_order = Some(found);
                after
            }
            "shape" => {
                let (found, after) = value.strip_prefix('(')?.split_once(')')?;
                shape = Some(tuple(found)?);
                after
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').map_or(rest, str::trim_start);
    }
    (rest == "}").then_some(Header { descr: descr?, fortran_order: fortran_order?, shape: shape? })
}

/// A string in single or double quotes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|first| ['\'', '"'].contains(first))?;
    text[1..].split_once(quote)
}

fn boolean(text: &str) -> Option<(bool, &str)> {
    let after = |word| text.strip_prefix(word);
    after("True").map(|rest| (true, rest)).or_else(|| Some((false, after("False")?)))
}

fn tuple(text: &str) -> Option<Vec<u64>> {
    let text = text.trim();
    let text = text.strip_suffix(',').unwrap_or(text);
    if text.is_empty() { Some(Vec::new()) } else { text.split(',').map(|size| size.trim().parse().ok()).collect() }
}

/// Writes an f32 matrix whose rows come in any order; the file appears when all are there.
#[derive(Debug)]
pub struct Writer {
    file: WholeFile,
    path: PathBuf,
    columns: usize,
    begin: u64,
    /// Which rows are there.
    written: Vec<bool>,
    /// The row that the file is at.
    at: usize,
}

impl Writer {
    /// Begins the file of a matrix `[rows, columns]`.
    ///
    /// # Errors
    /// Input error where its folder cannot be written to.
    pub fn create(path: &Path, [rows, columns]: [usize; 2]) -> Result<Self> {
        let failed = |cause| write_error(path, cause);
        let mut file = WholeFile::create(path).map_err(failed)?;
        let header = header("<f4", &format!("({rows}, {columns})"));
        file.write_all(&header).map_err(failed)?;
        let begin = header.len() as u64;
        Ok(Self { file, path: path.to_owned(), columns, begin, written: vec![false; rows], at: 0 })
    }

    /// Writes one row; a row that is written again is replaced.
    ///
    /// # Errors
    /// Internal error for a row that is not of the matrix, input error where it cannot be written.
    pub fn write(&mut self, row: usize, values: &[f32]) -> Result<()> {
        if row >= self.written.len() || values.len() != self.columns {
            let (rows, columns, length) = (self.written.len(), self.columns, values.len());
            return Err(Error::internal(format!("row {row} of {length} features for a matrix [{rows}, {columns}]")));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let place = SeekFrom::Start(self.begin + row as u64 * bytes.len() as u64);
        // Seeking empties the buffer.
        let moved = if row == self.at { Ok(0) } else { self.file.seek(place) };
        moved.and_then(|_| self.file.write_all(&bytes)).map_err(|cause| write_error(&self.path, cause))?;
        self.written[row] = true;
        self.at = row + 1;
        Ok(())
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// Incomplete where rows are missing, input error where it cannot be written; nothing is left then.
    pub fn finish(self) -> Result<()> {
        let missing = self.written.iter().filter(|written| !**written).count();
        if let Some(first) = self.written.iter().position(|written| !written) {
            let (path, rows) = (self.path.display(), self.written.len());
            return Err(Error::incomplete(format!(
                "{missing} of {rows} rows of `{path}` are missing, first row {first}"
            )));
        }
        self.file.finish().map_err(|cause| write_error(&self.path, cause))
    }
}

/// Writes numbers as an f64 array of one dimension; the file appears whole or not at all.
///
/// # Errors
/// Input error where it cannot be written.
pub fn write_numbers(path: &Path, values: &[f64]) -> Result<()> {
    let write = || {
        let mut file = WholeFile::create(path)?;
        file.write_all(&header("<f8", &format!("({},)", values.len())))?;
        values.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))?;
        file.finish()
    };
    write().map_err(|cause| write_error(path, cause))
}

fn write_error(path: &Path, cause: io::Error) -> Error {
    Error::input(format!("cannot write `{}`", path.display())).caused_by(cause)
}

/// Everything before the elements, as `numpy.save` writes it.
fn header(descr: &str, shape: &str) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let start = MAGIC.len() + 4;
    let length = (start + text.len() + 1).next_multiple_of(ALIGNMENT) - start;
    let mut bytes = [MAGIC, &[1, 0]].concat();
    // Two sizes of up to 20 digits leave it far below 65,536.
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(start + length - 1, b' ');
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_python_writes_dictionaries() {
        let header = |descr: &str, fortran_order, shape: &[u64]| {
            Some(Header { descr: descr.to_owned(), fortran_order, shape: shape.to_vec() })
        };
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }          \n";
        assert_eq!(parse(text), header("<f4", false, &[3, 4]));
        assert_eq!(parse("{\"shape\":(5,),\"fortran_order\":True,\"descr\":\"<f8\"}"), header("<f8", true, &[5]));
        assert_eq!(parse("{'descr':'|u1', 'shape': (), 'fortran_order': False}"), header("|u1", false, &[]));
        let fields = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }";
        assert_eq!(parse(fields), header("[('a', '<f4')]", false, &[2]));
        let damaged = [
            "",
            "{",
            "{}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), ",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, -4), }",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (3, 4), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': 3, }",
            "{'descr': '<f4, 'fortran_order': False, 'shape': (3, 4), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), 'more': 1}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } {}",
            "{é",
        ];
        for text in damaged {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn integers_keep_their_sign() {
        assert_eq!([integer(&[255], true), integer(&[255], false)], [-1, 255]);
        assert_eq!([integer(&[0, 128], true), integer(&[1, 0, 0, 128], false)], [-32_768, 2_147_483_649]);
    }

    #[test]
    fn elements_begin_at_a_multiple_of_64_bytes() {
        for digits in 1..40 {
            let header = header("<f4", &"9".repeat(digits));
            assert_eq!((header.len() % ALIGNMENT, header.last()), (0, Some(&b'\n')));
        }
    }
}
