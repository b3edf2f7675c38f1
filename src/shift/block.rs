//! Rows on their way into a matrix product: double precision, less an origin, so many that the product runs at speed.

use std::panic::resume_unwind;

use ndarray::ArrayView2;

use super::blas::threads;
use super::moments::dot;
use crate::error::{Error, Result};

/// Rows of a block. A product with as many rows reads a covariance of 2,048 features in a small part of its time.
const ROWS: usize = 4096;

/// Rows that one thread takes at a time. Fixed, so that sums over them do not depend on the number of threads.
pub(super) const PART: usize = 128;

/// Numbers that are worth the start of threads.
const WORTHWHILE: usize = 1 << 18;

/// The last rows, less an origin.
#[derive(Debug)]
pub(super) struct Block {
    origin: Vec<f64>,
    /// `[ROWS, dimension]`; grows to that with the first block and stays. What is behind the rows that are held means
    /// nothing.
    space: Vec<f64>,
    /// Squared length of each row that is held.
    squares: Vec<f64>,
    seen: u64,
    first: bool,
}

impl Block {
    pub(super) fn new(dimension: usize) -> Self {
        Self { origin: vec![0.0; dimension], space: Vec::new(), squares: Vec::new(), seen: 0, first: true }
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
        let rows = self.space.chunks_exact_mut(step.len().max(1));
        for (row, square) in rows.zip(&mut self.squares) {
            row.iter_mut().zip(step).for_each(|(value, step)| *value -= step);
            *square = dot(row, row);
        }
    }

    /// Adds rows until the block is full; returns how many. Their lengths less the origin must be finite: of others none
    /// is added.
    pub(super) fn fill<T: Copy + Into<f64> + Sync>(&mut self, rows: &[T]) -> Result<usize> {
        let dimension = self.origin.len().max(1);
        let held = self.squares.len();
        let start = held * dimension;
        let count = (rows.len() / dimension).min(ROWS - held);
        let rows = &rows[..count * dimension];
        if self.space.len() < start + rows.len() {
            self.space.reserve_exact(ROWS * dimension - self.space.len());
            self.space.resize(start + rows.len(), 0.0);
        }
        self.squares.resize(held + count, 0.0);
        let (to, squares) = (&mut self.space[start..start + rows.len()], &mut self.squares[held..]);
        let parts = to.chunks_mut(PART * dimension).zip(squares.chunks_mut(PART)).zip(rows.chunks(PART * dimension));
        let origin = &self.origin;
        side_by_side(parts.collect(), rows.len(), |((to, squares), rows)| centre(rows, origin, to, squares));
        let bad = self.squares[held..].iter().position(|square| !square.is_finite());
        if let Some(bad) = bad {
            self.squares.truncate(held);
            return Err(not_finite(&rows[bad * dimension..(bad + 1) * dimension], self.seen + bad as u64));
        }
        self.seen += count as u64;
        Ok(count)
    }

    /// Rows ever added.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    pub(super) fn is_full(&self) -> bool {
        self.squares.len() >= ROWS
    }

    /// Rows that the block holds.
    pub(super) fn len(&self) -> usize {
        self.squares.len()
    }

    /// What `sum` makes of each part of the block, from its rows and their squared lengths, in their order.
    pub(super) fn parts<S: Send>(&self, sum: impl Fn(&[f64], &[f64]) -> S + Sync) -> Vec<S> {
        let dimension = self.origin.len().max(1);
        let rows = self.held();
        let parts = rows.chunks(PART * dimension).zip(self.squares.chunks(PART)).collect();
        side_by_side(parts, rows.len(), |(rows, squares)| sum(rows, squares))
    }

    /// Whether no block has been cleared yet.
    pub(super) fn is_first(&self) -> bool {
        self.first
    }

    /// The rows less the origin, `[n, dimension]`.
    pub(super) fn rows(&self) -> Result<ArrayView2<'_, f64>> {
        ArrayView2::from_shape((self.len(), self.origin.len()), self.held())
            .map_err(|cause| Error::internal("a block of rows with gaps").caused_by(cause))
    }

    fn held(&self) -> &[f64] {
        &self.space[..self.len() * self.origin.len()]
    }

    pub(super) fn clear(&mut self) {
        self.squares.clear();
        self.first = false;
    }
}

/// Rows less the origin, and their squared lengths.
fn centre<T: Copy + Into<f64>>(rows: &[T], origin: &[f64], to: &mut [f64], squares: &mut [f64]) {
    let dimension = origin.len().max(1);
    let rows = rows.chunks_exact(dimension).zip(to.chunks_exact_mut(dimension)).zip(squares);
    for ((row, to), square) in rows {
        for ((to, value), origin) in to.iter_mut().zip(row).zip(origin) {
            *to = (*value).into() - origin;
        }
        *square = dot(to, to);
    }
}

fn not_finite<T: Copy + Into<f64>>(row: &[T], sample: u64) -> Error {
    let column = row.iter().position(|&value| !value.into().is_finite());
    let what = column
        .map_or("its length is not finite".to_owned(), |column| format!("feature {column} is {}", row[column].into()));
    Error::input(format!("sample {sample}: {what}")).hint("samples and features count from 0")
}

/// What `work` makes of each part, in their order, on as many threads as the products have where there are enough numbers.
fn side_by_side<P: Send, S: Send>(parts: Vec<P>, numbers: usize, work: impl Fn(P) -> S + Sync) -> Vec<S> {
    let share = parts.len().div_ceil(threads()).max(1);
    if numbers < WORTHWHILE || share >= parts.len() {
        return parts.into_iter().map(work).collect();
    }
    let (mut parts, mut shares) = (parts.into_iter(), Vec::new());
    while parts.len() > 0 {
        shares.push(parts.by_ref().take(share).collect::<Vec<P>>());
    }
    std::thread::scope(|scope| {
        let work = &work;
        let run = |share: Vec<P>| scope.spawn(move || share.into_iter().map(work).collect::<Vec<S>>());
        let running: Vec<_> = shares.into_iter().map(run).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Number of samples in so many numbers.
pub(super) fn samples(numbers: usize, dimension: usize) -> Result<usize> {
    if dimension == 0 || !numbers.is_multiple_of(dimension) {
        return Err(Error::input(format!("{numbers} numbers are no samples of {dimension} features")));
    }
    Ok(numbers / dimension)
}
