//! Rows on their way into a matrix product: double precision, less an origin, so many that the product runs at speed.

use ndarray::ArrayView2;

use super::moments::dot;
use crate::error::{Error, Result};

/// Rows of a block. A product with as many rows reads a covariance of 2,048 features in a small part of its time.
const ROWS: usize = 1024;

/// The last rows, less an origin.
#[derive(Debug)]
pub(super) struct Block {
    origin: Vec<f64>,
    /// `[ROWS, dimension]`; grows to that with the first block.
    rows: Vec<f64>,
    seen: u64,
    first: bool,
}

impl Block {
    pub(super) fn new(dimension: usize) -> Self {
        Self { origin: vec![0.0; dimension], rows: Vec::new(), seen: 0, first: true }
    }

    /// A block whose rows are taken relative to this point.
    pub(super) fn at(origin: &[f64]) -> Self {
        Self { origin: origin.to_vec(), ..Self::new(origin.len()) }
    }

    pub(super) fn origin(&self) -> &[f64] {
        &self.origin
    }

    pub(super) fn set_origin<T: Copy + Into<f64>>(&mut self, row: &[T]) {
        self.origin = row.iter().map(|&value| value.into()).collect();
    }

    /// Takes further `step` off the origin and all rows.
    pub(super) fn move_origin(&mut self, step: &[f64]) {
        self.origin.iter_mut().zip(step).for_each(|(origin, step)| *origin += step);
        for row in self.rows.chunks_exact_mut(step.len().max(1)) {
            row.iter_mut().zip(step).for_each(|(value, step)| *value -= step);
        }
    }

    /// Adds a row and returns its squared length less the origin, which must be finite.
    pub(super) fn push<T: Copy + Into<f64>>(&mut self, row: &[T]) -> Result<f64> {
        let start = self.rows.len();
        if start == 0 {
            self.rows.reserve_exact(ROWS * row.len());
        }
        self.rows.extend(row.iter().zip(&self.origin).map(|(&value, origin)| value.into() - origin));
        let added = &self.rows[start..];
        let square = dot(added, added);
        if !square.is_finite() {
            self.rows.truncate(start);
            let column = row.iter().position(|&value| !value.into().is_finite());
            let what = column.map_or("its length is not finite".to_owned(), |column| {
                format!("feature {column} is {}", row[column].into())
            });
            return Err(Error::input(format!("sample {}: {what}", self.seen)).hint("samples and features count from 0"));
        }
        self.seen += 1;
        Ok(square)
    }

    /// Rows ever added.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= ROWS * self.origin.len()
    }

    /// Whether no block has been cleared yet.
    pub(super) fn is_first(&self) -> bool {
        self.first
    }

    pub(super) fn last_row(&self) -> &[f64] {
        &self.rows[self.rows.len().saturating_sub(self.origin.len())..]
    }

    /// The rows less the origin, `[n, dimension]`.
    pub(super) fn rows(&self) -> Result<ArrayView2<'_, f64>> {
        let dimension = self.origin.len();
        let shape = (self.rows.len() / dimension.max(1), dimension);
        ArrayView2::from_shape(shape, &self.rows)
            .map_err(|cause| Error::internal("a block of rows with gaps").caused_by(cause))
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.first = false;
    }
}

/// Number of samples in so many numbers.
pub(super) fn samples(numbers: usize, dimension: usize) -> Result<usize> {
    if dimension == 0 || !numbers.is_multiple_of(dimension) {
        return Err(Error::input(format!("{numbers} numbers are no samples of {dimension} features")));
    }
    Ok(numbers / dimension)
}
