//! How far a set of features has moved away from a reference. The only room that names `ndarray-linalg` and `cblas-sys`.
//!
//! [`Fitting`] takes the reference's features and ends as [`Moments`], which [`fits`] keeps. [`Gaussian`] is made of
//! moments; [`Scoring`] takes a set's features and ends as their Mahalanobis distances, which [`summarise`] sums up.
//! Where features come from is not known here.

mod blas;
mod block;
pub mod fits;
mod gaussian;
mod moments;
mod summary;

pub use blas::{Blas, blas, use_threads};
pub use gaussian::{
    Deficiency, Gaussian, GaussianOptions, Scoring, Shrinkage, VARIANTS, Variant, default_rtol, find_variant,
};
pub use moments::{Class, Fitting, Moments};
pub use summary::{LEVELS, Quantiles, Sign, Summary, summarise};
