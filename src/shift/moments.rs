//! Streaming moments of features: everything that a Gaussian is fitted with, in space that does not grow with the data.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView1, Axis, s};

use super::blas::{add_outer_products, symmetric_product};
use super::block::{Block, samples};
use crate::error::{Error, Result};

/// Count and mean of the samples of one class.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// Number of samples, at least 1.
    pub n: u64,
    /// Mean, `[dimension]`.
    pub mean: Vec<f64>,
}

/// Moments of samples about their mean, all in double precision.
///
/// They are kept, not what is derived from them: cut-off, shrinkage and [variant](super::VARIANTS) are chosen when a
/// [`Gaussian`](super::Gaussian) is made of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Number of samples.
    pub n: u64,
    /// Mean, `[dimension]`.
    pub mean: Vec<f64>,
    /// Sum of `y y^T`, `[dimension, dimension]`, where `y` is a sample less the mean; only the lower triangle counts.
    pub scatter: Array2<f64>,
    /// Sum of `|y|^2 y`, `[dimension]`: what it takes to move `quartic` to another mean.
    pub cubic: Vec<f64>,
    /// Sum of `|y|^4`, which Ledoit and Wolf's shrinkage asks for.
    pub quartic: f64,
    /// The classes by label; empty where samples have no labels.
    pub classes: BTreeMap<i64, Class>,
    /// What the samples are, in the caller's words.
    pub about: BTreeMap<String, String>,
}

impl Moments {
    /// Those of no samples.
    pub(super) fn none(dimension: usize) -> Self {
        Self {
            n: 0,
            mean: vec![0.0; dimension],
            scatter: Array2::zeros((dimension, dimension)),
            cubic: vec![0.0; dimension],
            quartic: 0.0,
            classes: BTreeMap::new(),
            about: BTreeMap::new(),
        }
    }

    /// Number of features.
    pub fn dimension(&self) -> usize {
        self.mean.len()
    }

    /// Adds the samples of another set, as if both had been one: equal to rounding, whatever the shards (Chan, Golub and
    /// LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances"). `about` stays.
    ///
    /// # Errors
    /// Input error for another number of features, or where the samples of only one of the two have labels.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.dimension() != other.dimension() {
            let (own, others) = (self.dimension(), other.dimension());
            return Err(Error::input(format!("moments of {own} and of {others} features cannot be merged")));
        }
        if self.n > 0 && other.n > 0 && self.classes.is_empty() != other.classes.is_empty() {
            return Err(Error::input("moments with labels and moments without cannot be merged"));
        }
        if other.n == 0 {
            return Ok(());
        }
        let (own, others) = (self.n as f64, other.n as f64);
        let apart: Vec<f64> = difference(&other.mean, &self.mean);
        let scaled = |factor: f64| apart.iter().map(|value| value * factor).collect::<Vec<f64>>();
        let share = others / (own + others);
        let moved = other.about(&scaled(1.0 - share), &[])?;
        let (cubic, quartic) = self.about(&scaled(-share), &[])?;
        self.cubic = cubic.iter().zip(&moved.0).map(|(own, others)| own + others).collect();
        self.quartic = quartic + moved.1;
        self.scatter += &other.scatter;
        add_outer_products(&mut self.scatter, own * share, ArrayView1::from(&apart).insert_axis(Axis(0)))?;
        self.mean.iter_mut().zip(scaled(share)).for_each(|(mean, step)| *mean += step);
        self.n += other.n;
        for (label, class) in &other.classes {
            self.classes.entry(*label).and_modify(|own| own.merge(class)).or_insert_with(|| class.clone());
        }
        Ok(())
    }

    /// `cubic` and `quartic` of samples that are moved by `step`. `sum` is that of the samples; empty where it is zero.
    fn about(&self, step: &[f64], sum: &[f64]) -> Result<(Vec<f64>, f64)> {
        let n = self.n as f64;
        let turned = symmetric_product(&self.scatter, step)?;
        let (length, trace, along) = (dot(step, step), self.scatter.diag().sum(), dot(sum, step));
        let quartic = self.quartic
            + 4.0 * dot(&self.cubic, step)
            + 2.0 * length * trace
            + 4.0 * dot(step, &turned)
            + 4.0 * length * along
            + n * length * length;
        let mut cubic = self.cubic.clone();
        for (index, value) in cubic.iter_mut().enumerate() {
            let offset = sum.get(index).map_or(0.0, |sum| length * sum);
            *value += (trace + 2.0 * along + n * length) * step[index] + 2.0 * turned[index] + offset;
        }
        Ok((cubic, quartic))
    }

    /// Scatter about the means of the classes instead of that of all: the total less what is between the classes. Where
    /// these are far apart beside their width, digits are lost in proportion.
    pub(super) fn within_classes(&self) -> Result<Array2<f64>> {
        let mut between = Array2::zeros((self.classes.len(), self.dimension()));
        for (mut row, class) in between.rows_mut().into_iter().zip(self.classes.values()) {
            let root = (class.n as f64).sqrt();
            row.iter_mut().zip(difference(&class.mean, &self.mean)).for_each(|(to, value)| *to = root * value);
        }
        let mut scatter = self.scatter.clone();
        add_outer_products(&mut scatter, -1.0, between.view())?;
        Ok(scatter)
    }

    /// Ledoit and Wolf's intensity of shrinkage towards a multiple of the identity (2004, "A well-conditioned estimator
    /// for large-dimensional covariance matrices", lemma 3.4), as `sklearn.covariance.ledoit_wolf_shrinkage` computes
    /// it: exact, since the sum of fourth powers it needs is streamed with the rest.
    pub fn ledoit_wolf(&self) -> f64 {
        let (n, dimension) = (self.n as f64, self.dimension() as f64);
        let squares = squared_norm(&self.scatter) / (n * n);
        let trace = self.scatter.diag().sum() / n;
        let spread = (self.quartic / n - squares) / n;
        let distance = squares - trace * trace / dimension;
        if distance > 0.0 { (spread / distance).clamp(0.0, 1.0) } else { 0.0 }
    }
}

impl Class {
    fn merge(&mut self, other: &Self) {
        let share = other.n as f64 / (self.n + other.n) as f64;
        self.mean.iter_mut().zip(&other.mean).for_each(|(own, others)| *own += share * (others - *own));
        self.n += other.n;
    }
}

/// Takes samples one block after the other and ends as their [`Moments`].
///
/// The mean of the first block of samples is taken off all samples, and what it is off the mean of all is accounted for
/// at the end. That loses no more than log10(samples / 1,024) of sixteen digits, in whatever direction and whatever the
/// order of the samples: where the first block lies apart from the others, that alone makes a variance of its share of
/// the samples times the squared offset.
#[derive(Debug)]
pub struct Fitting {
    block: Block,
    /// Of the samples less the block's origin, not about their mean; means of classes are less the origin, too.
    sums: Moments,
    /// Sum of the samples less the origin.
    sum: Vec<f64>,
    labelled: bool,
    /// Those of the samples in the block.
    labels: Vec<i64>,
}

impl Fitting {
    /// For samples of so many features.
    pub fn new(dimension: usize) -> Self {
        let (block, sums) = (Block::summing(dimension), Moments::none(dimension));
        Self { block, sums, sum: vec![0.0; dimension], labelled: false, labels: Vec::new() }
    }

    /// Number of features.
    pub fn dimension(&self) -> usize {
        self.sum.len()
    }

    /// Adds samples, `[n, dimension]` row by row, f32 or f64. How they are cut into calls changes no bit.
    ///
    /// # Errors
    /// Input error for rows of another length or numbers that are not finite, with the row counted over all calls.
    pub fn add<T: Copy + Into<f64> + Sync>(&mut self, rows: &[T]) -> Result<()> {
        self.add_rows(rows, None)
    }

    /// As [`add`](Self::add), with the class of each sample.
    ///
    /// # Errors
    /// As `add`; also for another number of labels, and after samples without labels.
    pub fn add_labelled<T: Copy + Into<f64> + Sync>(&mut self, rows: &[T], labels: &[i64]) -> Result<()> {
        self.add_rows(rows, Some(labels))
    }

    fn add_rows<T: Copy + Into<f64> + Sync>(&mut self, rows: &[T], labels: Option<&[i64]>) -> Result<()> {
        let count = samples(rows.len(), self.dimension())?;
        if labels.is_some_and(|labels| labels.len() != count) {
            let labels = labels.map_or(0, <[i64]>::len);
            return Err(Error::input(format!("{count} samples have {labels} labels")));
        }
        if self.block.seen() > 0 && count > 0 && self.labelled != labels.is_some() {
            return Err(Error::input("some samples have a label and some have none"));
        }
        self.labelled = labels.is_some();
        let (mut rows, mut labels) = (rows, labels.unwrap_or_default());
        while !rows.is_empty() {
            if self.block.seen() == 0 {
                self.block.set_origin(&rows[..self.dimension()]);
            }
            let count = self.block.fill(rows)?;
            rows = &rows[count * self.dimension()..];
            if self.labelled {
                self.labels.extend_from_slice(&labels[..count]);
                labels = &labels[count..];
            }
            if self.block.is_full() {
                self.take_block()?;
            }
        }
        Ok(())
    }

    fn take_block(&mut self) -> Result<()> {
        if self.block.is_first() {
            self.centre_first_block();
        }
        for part in self.block.sums() {
            self.sums.quartic += part.quartic;
            add(&mut self.sums.cubic, &part.cubic);
            add(&mut self.sum, &part.sum);
        }
        self.sums.n += self.block.len() as u64;
        let rows = self.block.rows()?;
        for (row, label) in rows.rows().into_iter().zip(self.labels.drain(..)) {
            let class = self.sums.classes.entry(label);
            let class = class.or_insert_with(|| Class { n: 0, mean: vec![0.0; row.len()] });
            class.n += 1;
            let share = 1.0 / class.n as f64;
            class.mean.iter_mut().zip(&row).for_each(|(mean, value)| *mean += share * (value - *mean));
        }
        add_outer_products(&mut self.sums.scatter, 1.0, rows)?;
        self.block.clear();
        Ok(())
    }

    /// Moves the origin from the first sample to the mean of the first block. The first sample comes before, so that
    /// features that are constant have a variance of exactly zero.
    fn centre_first_block(&mut self) {
        let share = 1.0 / self.block.len().max(1) as f64;
        let mut mean = vec![0.0; self.dimension()];
        for part in self.block.sums() {
            add(&mut mean, &part.sum);
        }
        mean.iter_mut().for_each(|value| *value *= share);
        self.block.move_origin(&mean);
    }

    /// The moments of all samples, with what the caller says about them.
    ///
    /// # Errors
    /// Internal error of the linear algebra library's wrappers.
    pub fn finish(mut self, about: BTreeMap<String, String>) -> Result<Moments> {
        self.take_block()?;
        let n = self.sums.n.max(1) as f64;
        let offset: Vec<f64> = self.sum.iter().map(|sum| sum / n).collect();
        let back: Vec<f64> = offset.iter().map(|value| -value).collect();
        let (cubic, quartic) = self.sums.about(&back, &self.sum)?;
        let mut moments = Moments { cubic, quartic, about, ..self.sums };
        add_outer_products(&mut moments.scatter, -n, ArrayView1::from(&offset).insert_axis(Axis(0)))?;
        let origin = self.block.origin();
        moments.mean = origin.iter().zip(&offset).map(|(origin, offset)| origin + offset).collect();
        for class in moments.classes.values_mut() {
            class.mean.iter_mut().zip(origin).for_each(|(mean, origin)| *mean += origin);
        }
        Ok(moments)
    }
}

fn add(to: &mut [f64], values: &[f64]) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += value);
}

/// Sum of the squared elements of the symmetric matrix that has this lower triangle.
fn squared_norm(lower: &Array2<f64>) -> f64 {
    let below = |row: usize| lower.slice(s![row, ..row]);
    (0..lower.nrows()).map(|row| 2.0 * below(row).dot(&below(row)) + lower[[row, row]].powi(2)).sum()
}

/// Inner product of vectors of one length; zero where one is empty.
pub(super) fn dot(left: &[f64], right: &[f64]) -> f64 {
    if left.len() == right.len() { ArrayView1::from(left).dot(&ArrayView1::from(right)) } else { 0.0 }
}

/// The elements of the first vector less those of the second.
pub(super) fn difference(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(left, right)| left - right).collect()
}
