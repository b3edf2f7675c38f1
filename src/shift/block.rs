//! Rows on their way into a matrix product: double precision, less an origin, so many that the product runs at speed.

use std::panic::resume_unwind;

use ndarray::ArrayView2;

use super::blas::threads;
use super::moments::dot;
use crate::error::{Error, Result};

/// Rows of a block. A product with as many rows reads a covariance of 2,048 features in a small part of its time.
const ROWS: usize = 1024;

/// Rows that one thread takes at a time. Fixed, so that sums over them do not depend on the number of threads.
const PART: usize = 128;

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
    /// Of each part; empty where they are not asked for.
    sums: Vec<Sums>,
    seen: u64,
    first: bool,
}

impl Block {
    pub(super) fn new(dimension: usize) -> Self {
        Self {
            origin: vec![0.0; dimension],
            space: Vec::new(),
            squares: Vec::new(),
            sums: Vec::new(),
            seen: 0,
            first: true,
        }
    }

    /// A block that sums up its rows as they come, while they are at hand.
    pub(super) fn summing(dimension: usize) -> Self {
        Self { sums: vec![Sums::none(dimension); ROWS / PART], ..Self::new(dimension) }
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
        self.sum_up();
    }

    /// Sums up all rows that are held anew.
    fn sum_up(&mut self) {
        let dimension = self.origin.len().max(1);
        let rows = &self.space[..self.squares.len() * self.origin.len()];
        for ((sums, rows), squares) in
            self.sums.iter_mut().zip(rows.chunks(PART * dimension)).zip(self.squares.chunks(PART))
        {
            *sums = Sums::none(dimension);
            rows.chunks_exact(dimension).zip(squares).for_each(|(row, square)| sums.add(row, *square));
        }
    }

    /// The sums of the parts, in the order of their rows.
    pub(super) fn sums(&self) -> &[Sums] {
        &self.sums[..self.len().div_ceil(PART).min(self.sums.len())]
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
        let work = Work { rows, to: &mut self.space[start..start + rows.len()], squares: &mut self.squares[held..] };
        let parts = work.parts(held % PART, dimension, self.sums.get_mut(held / PART..).unwrap_or_default());
        let origin = &self.origin;
        side_by_side(parts, rows.len(), |(work, sums)| work.centre(origin, sums));
        let bad = self.squares[held..].iter().position(|square| !square.is_finite());
        if let Some(bad) = bad {
            self.squares.truncate(held);
            // What the rows that are refused have added is taken off with them.
            self.sum_up();
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
        self.sums.iter_mut().for_each(|sums| *sums = Sums::none(self.origin.len()));
        self.first = false;
    }
}

/// Sums over a part of a block.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    pub sum: Vec<f64>,
    /// Of the rows times their squared lengths.
    pub cubic: Vec<f64>,
    /// Of the squared squared lengths.
    pub quartic: f64,
}

impl Sums {
    fn none(dimension: usize) -> Self {
        Self { sum: vec![0.0; dimension], cubic: vec![0.0; dimension], quartic: 0.0 }
    }

    fn add(&mut self, row: &[f64], square: f64) {
        for ((cubic, sum), value) in self.cubic.iter_mut().zip(&mut self.sum).zip(row) {
            *cubic += square * value;
            *sum += value;
        }
        self.quartic += square * square;
    }
}

/// Rows on their way into a part of a block.
struct Work<'a, T> {
    rows: &'a [T],
    to: &'a mut [f64],
    squares: &'a mut [f64],
}

impl<'a, T: Copy + Into<f64>> Work<'a, T> {
    /// Cut where parts begin, each with its sums; `held` rows of the first part are there already.
    fn parts(self, held: usize, dimension: usize, sums: &'a mut [Sums]) -> Vec<(Self, Option<&'a mut Sums>)> {
        let Work { mut rows, mut to, mut squares } = self;
        let (mut parts, mut sums, mut length) = (Vec::new(), sums.iter_mut(), PART - held);
        while !squares.is_empty() {
            let count = length.min(squares.len());
            let (these, rest) = rows.split_at(count * dimension);
            let (to_these, to_rest) = to.split_at_mut(count * dimension);
            let (own, others) = squares.split_at_mut(count);
            parts.push((Work { rows: these, to: to_these, squares: own }, sums.next()));
            (rows, to, squares, length) = (rest, to_rest, others, PART);
        }
        parts
    }

    /// Rows less the origin, and their squared lengths.
    fn centre(self, origin: &[f64], mut sums: Option<&mut Sums>) {
        let dimension = origin.len().max(1);
        let rows = self.rows.chunks_exact(dimension).zip(self.to.chunks_exact_mut(dimension)).zip(self.squares);
        for ((row, to), square) in rows {
            for ((to, value), origin) in to.iter_mut().zip(row).zip(origin) {
                *to = (*value).into() - origin;
            }
            *square = dot(to, to);
            if let Some(sums) = sums.as_deref_mut() {
                sums.add(to, *square);
            }
        }
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
