//! A Gaussian of a reference, and Mahalanobis distances from it.

use std::fmt;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use ndarray_linalg::QRInto;

use super::blas::eigenvectors;
use super::block::{Block, samples};
use super::moments::{Moments, difference};
use crate::error::{Error, Result, find_row};

/// What a distance is measured from.
#[derive(Debug, PartialEq, Eq)]
pub struct Variant {
    /// The name on the command line.
    pub name: &'static str,
    /// What it computes, in one line.
    pub about: &'static str,
    /// Whether it needs the classes of the reference's samples.
    pub needs_labels: bool,
    form: Form,
}

#[derive(Debug, PartialEq, Eq)]
enum Form {
    Marginal,
    ClassConditional,
    Relative,
}

/// Every variant, the default first.
pub static VARIANTS: &[Variant] = &[
    Variant {
        name: "marginal",
        about: "distance from the mean of all samples, with their covariance",
        needs_labels: false,
        form: Form::Marginal,
    },
    Variant {
        name: "class-conditional",
        about: "distance from the nearest class mean, with the covariance within classes (Lee et al. 2018)",
        needs_labels: true,
        form: Form::ClassConditional,
    },
    Variant {
        name: "relative",
        about: "squared class-conditional less squared marginal distance, no root, below 0 near a class (Ren et al. 2021)",
        needs_labels: true,
        form: Form::Relative,
    },
];

/// The variant with this name.
///
/// # Errors
/// Input error that names all variants.
pub fn find_variant(name: &str) -> Result<&'static Variant> {
    find_row(VARIANTS, "variant", name, |variant| vec![variant.name])
}

/// What is added to the covariance before it is inverted: it becomes `(1 - s) C + s trace(C) / dimension I`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shrinkage {
    /// Nothing, as in the paper.
    None,
    /// [`Moments::ledoit_wolf`].
    LedoitWolf,
    /// This intensity, from 0 to 1.
    Fixed(f64),
}

/// How a Gaussian is made of moments.
#[derive(Debug, Clone, Copy)]
pub struct GaussianOptions {
    /// What distances are measured from.
    pub variant: &'static Variant,
    /// Directions whose variance is at most this part of the largest are left out; none for [`default_rtol`].
    pub rtol: Option<f64>,
    /// Shrinkage of the covariance; of that within classes where the variant has one, and of both where it has two.
    pub shrinkage: Shrinkage,
}

impl GaussianOptions {
    /// Refuses what no moments can be used with.
    ///
    /// # Errors
    /// Input error for a cut-off or a shrinkage outside of 0 to 1, and for [`Shrinkage::LedoitWolf`] of a covariance within
    /// classes, whose fourth powers are not known.
    pub fn check(&self) -> Result<()> {
        if let Some(rtol) = self.rtol.filter(|rtol| !(0.0..1.0).contains(rtol)) {
            return Err(Error::input(format!("the relative cut-off is {rtol}; it is from 0 to below 1")));
        }
        match self.shrinkage {
            Shrinkage::Fixed(value) if !(0.0..=1.0).contains(&value) => {
                Err(Error::input(format!("the shrinkage is {value}; it is from 0 to 1")))
            }
            Shrinkage::LedoitWolf if self.variant.needs_labels => {
                let message = "Ledoit and Wolf's shrinkage is known for the covariance of all samples only";
                Err(Error::input(message).hint(format!("give `{}` a number", self.variant.name)))
            }
            _ => Ok(()),
        }
    }
}

impl Default for GaussianOptions {
    fn default() -> Self {
        Self { variant: &VARIANTS[0], rtol: None, shrinkage: Shrinkage::None }
    }
}

/// The relative cut-off of `torch.linalg.pinv` for a matrix in single precision: dimension times 2^-23.
///
/// The paper's code inverts a float32 covariance with it. Here the covariance has double precision; the cut-off is kept
/// since it decides which directions count, and with that the level of all distances: their mean square on the reference
/// is the number of directions.
pub fn default_rtol(dimension: usize) -> f64 {
    dimension as f64 * f64::from(f32::EPSILON)
}

/// A mean and the pseudo-inverse of a covariance, ready to measure distances.
///
/// The covariance has the divisor n - 1, also within classes (Lee et al. and Ren et al. divide by n: their squared
/// distances are n / (n - 1) times these). Nothing is added to its diagonal but shrinkage; the paper's code adds 1e-8.
#[derive(Debug, Clone)]
pub struct Gaussian {
    /// Number of samples of the reference.
    pub n: u64,
    /// What distances are measured from.
    pub variant: &'static Variant,
    /// The relative cut-off that was used.
    pub rtol: f64,
    /// The intensity of shrinkage that was used.
    pub shrinkage: f64,
    mean: Vec<f64>,
    whitening: Whitening,
    /// Means of the classes, less the mean and whitened, `[classes, rank]`.
    classes: Option<Array2<f64>>,
    /// That of all samples, where the variant compares with it.
    marginal: Option<Whitening>,
}

/// `R` with `R^T R` the pseudo-inverse of a covariance.
#[derive(Debug, Clone)]
struct Whitening {
    /// `[rank, dimension]`, zero below the diagonal.
    triangle: Array2<f64>,
}

/// A covariance that has fewer directions than features.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deficiency {
    /// Directions that count.
    pub rank: usize,
    /// Features.
    pub dimension: usize,
    /// Samples of the reference.
    pub n: u64,
    /// The relative cut-off.
    pub rtol: f64,
}

impl fmt::Display for Deficiency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, dimension, n, rtol } = self;
        write!(
            f,
            "{rank} of {dimension} directions have more than {rtol:.3e} of the largest variance; only they count"
        )?;
        if *n <= *dimension as u64 {
            write!(f, " ({n} samples have {} directions at most)", n.saturating_sub(1))?;
        }
        Ok(())
    }
}

impl Gaussian {
    /// Fits a Gaussian.
    ///
    /// # Errors
    /// Input error with fewer than two samples, with constant features, without labels where the variant needs them,
    /// for a cut-off or a shrinkage outside of 0 to 1, and for [`Shrinkage::LedoitWolf`] of a covariance within classes,
    /// whose fourth powers are not known.
    pub fn new(moments: &Moments, options: GaussianOptions) -> Result<Self> {
        let GaussianOptions { variant, .. } = options;
        let rtol = options.rtol.unwrap_or_else(|| default_rtol(moments.dimension()));
        options.check()?;
        check(moments, variant)?;
        let shrinkage = match options.shrinkage {
            Shrinkage::None => 0.0,
            Shrinkage::Fixed(intensity) => intensity,
            Shrinkage::LedoitWolf => moments.ledoit_wolf(),
        };
        let invert = |scatter: Array2<f64>| Whitening::new(covariance(scatter, moments.n, shrinkage), moments, rtol);
        let whole = || invert(moments.scatter.clone());
        let (whitening, marginal) = match variant.form {
            Form::Marginal => (whole()?, None),
            Form::ClassConditional => (invert(moments.within_classes()?)?, None),
            Form::Relative => (invert(moments.within_classes()?)?, Some(whole()?)),
        };
        let classes = if variant.needs_labels { Some(whitening.class_means(moments)) } else { None };
        let (n, mean) = (moments.n, moments.mean.clone());
        Ok(Self { n, variant, rtol, shrinkage, mean, whitening, classes, marginal })
    }

    /// Number of features.
    pub fn dimension(&self) -> usize {
        self.mean.len()
    }

    /// Number of directions that count: the rank of the pseudo-inverse, within classes where the variant has them.
    pub fn rank(&self) -> usize {
        self.whitening.triangle.nrows()
    }

    /// What is to be told where not all directions count.
    pub fn deficiency(&self) -> Option<Deficiency> {
        let (rank, dimension) = (self.rank(), self.dimension());
        (rank < dimension).then_some(Deficiency { rank, dimension, n: self.n, rtol: self.rtol })
    }

    /// Distances of samples, `[n, dimension]` row by row, in standard deviations; see [`VARIANTS`] for `relative`.
    ///
    /// # Errors
    /// Input error for rows of another length or numbers that are not finite.
    pub fn distances<T: Copy + Into<f64> + Sync>(&self, rows: &[T]) -> Result<Vec<f64>> {
        let mut scoring = Scoring::new(self);
        scoring.add(rows)?;
        scoring.finish()
    }

    /// Distances of samples less the mean.
    fn measure(&self, centred: ArrayView2<f64>) -> Vec<f64> {
        let white = self.whitening.apply(centred);
        let squares = match &self.classes {
            None => squared_lengths(&white),
            Some(classes) => nearest(&white, classes),
        };
        match &self.marginal {
            None => squares.into_iter().map(f64::sqrt).collect(),
            Some(marginal) => difference(&squares, &squared_lengths(&marginal.apply(centred))),
        }
    }
}

fn check(moments: &Moments, variant: &Variant) -> Result<()> {
    if moments.n < 2 {
        return Err(Error::input(format!("a covariance needs 2 samples or more, not {}", moments.n)));
    }
    if variant.needs_labels && moments.classes.is_empty() {
        let message = format!("the samples of the reference have no labels, which `{}` needs", variant.name);
        return Err(Error::input(message));
    }
    Ok(())
}

/// Lower triangle of the covariance that has this scatter.
fn covariance(mut scatter: Array2<f64>, n: u64, shrinkage: f64) -> Array2<f64> {
    let free = n.saturating_sub(1).max(1) as f64;
    let even = shrinkage * scatter.diag().sum() / scatter.nrows() as f64 / free;
    scatter *= (1.0 - shrinkage) / free;
    scatter.diag_mut().iter_mut().for_each(|value| *value += even);
    scatter
}

impl Whitening {
    /// Of the covariance with this lower triangle, which was computed from these moments.
    ///
    /// With eigenvalues l and eigenvectors v, `P = sum of v v^T / l` over the kept ones is `W W^T`, and with `W^T = Q R`
    /// also `R^T R`. `R` is used since products skip its zeros.
    fn new(covariance: Array2<f64>, moments: &Moments, rtol: f64) -> Result<Self> {
        let (values, mut vectors) = eigenvectors(covariance)?;
        let largest = values.last().copied().unwrap_or(0.0);
        if largest <= rounding(moments) {
            return Err(Error::input("the features of the reference do not vary: there is no covariance to invert"));
        }
        let dropped = values.iter().take_while(|value| **value <= (rtol * largest).max(0.0)).count();
        vectors.slice_axis_inplace(Axis(0), (dropped..).into());
        for (mut vector, value) in vectors.rows_mut().into_iter().zip(&values[dropped..]) {
            vector *= 1.0 / value.sqrt();
        }
        let triangle = vectors.qr_into().map(|(_, triangle)| Self { triangle });
        triangle.map_err(|cause| Error::internal("a covariance cannot be made a triangle").caused_by(cause))
    }

    /// Rows `[n, dimension]` become `[n, rank]`, whose squared lengths are those of the pseudo-inverse.
    fn apply(&self, rows: ArrayView2<f64>) -> Array2<f64> {
        let rank = self.triangle.nrows();
        let mut white = Array2::zeros((rows.nrows(), rank));
        for start in (0..rank).step_by(STRIP) {
            let end = rank.min(start + STRIP);
            let strip = self.triangle.slice(s![start..end, start..]);
            let mut target = white.slice_mut(s![.., start..end]);
            ndarray::linalg::general_mat_mul(1.0, &rows.slice(s![.., start..]), &strip.t(), 0.0, &mut target);
        }
        white
    }

    fn class_means(&self, moments: &Moments) -> Array2<f64> {
        let mut centred = Array2::zeros((moments.classes.len(), moments.dimension()));
        for (mut row, class) in centred.rows_mut().into_iter().zip(moments.classes.values()) {
            row.assign(&ArrayView1::from(&difference(&class.mean, &moments.mean)));
        }
        self.apply(centred.view())
    }
}

/// Variance that may be nothing but rounding: that which remains of all variance where one part is taken off the other.
fn rounding(moments: &Moments) -> f64 {
    let free = moments.n.saturating_sub(1).max(1) as f64;
    moments.scatter.diag().sum() / free * moments.dimension() as f64 * f64::EPSILON
}

/// Rows of a triangle that are multiplied at once: wide enough for a fast product, narrow enough to skip most zeros.
const STRIP: usize = 256;

fn squared_lengths(rows: &Array2<f64>) -> Vec<f64> {
    rows.rows().into_iter().map(|row| row.dot(&row)).collect()
}

/// Squared distance of each row `[n, rank]` from the nearest point `[classes, rank]`.
fn nearest(rows: &Array2<f64>, points: &Array2<f64>) -> Vec<f64> {
    let halves: Array1<f64> = squared_lengths(points).into_iter().map(|square| square / 2.0).collect();
    let products = rows.dot(&points.t());
    let square = |(row, products): (ArrayView1<f64>, ArrayView1<f64>)| {
        let closeness = |class: &usize| products[*class] - halves[*class];
        let class = (0..halves.len()).max_by(|left, right| closeness(left).total_cmp(&closeness(right)))?;
        // The products find the nearest point; near it, the difference of large squares would lose digits.
        let apart = &row - &points.row(class);
        Some(apart.dot(&apart))
    };
    rows.rows().into_iter().zip(products.rows()).filter_map(square).collect()
}

/// Takes samples one block after the other and ends as their distances.
#[derive(Debug)]
pub struct Scoring<'a> {
    gaussian: &'a Gaussian,
    block: Block,
    distances: Vec<f64>,
}

impl<'a> Scoring<'a> {
    /// Distances from this Gaussian.
    pub fn new(gaussian: &'a Gaussian) -> Self {
        Self { gaussian, block: Block::at(&gaussian.mean), distances: Vec::new() }
    }

    /// Adds samples, `[n, dimension]` row by row, f32 or f64.
    ///
    /// # Errors
    /// Input error for rows of another length or numbers that are not finite, with the row counted over all calls.
    pub fn add<T: Copy + Into<f64> + Sync>(&mut self, rows: &[T]) -> Result<()> {
        samples(rows.len(), self.gaussian.dimension())?;
        let mut rows = rows;
        while !rows.is_empty() {
            let count = self.block.fill(rows)?;
            rows = &rows[count * self.gaussian.dimension()..];
            if self.block.is_full() {
                self.take_block()?;
            }
        }
        Ok(())
    }

    fn take_block(&mut self) -> Result<()> {
        self.distances.extend(self.gaussian.measure(self.block.rows()?));
        self.block.clear();
        Ok(())
    }

    /// The distances in the order of the samples.
    ///
    /// # Errors
    /// Internal error of the linear algebra library's wrappers.
    pub fn finish(mut self) -> Result<Vec<f64>> {
        self.take_block()?;
        Ok(self.distances)
    }
}
