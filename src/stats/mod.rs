//! Estimates with their uncertainty, tests of differences, correlations (the only room that names statrs).
//!
//! Where no value can be had (too few samples, a constant, not a number) there is none; nothing here returns NaN.
//! Intervals are 95 % intervals, and p-values are two-sided unless they say otherwise.

mod bands;
mod bootstrap;
mod correlation;
mod discrimination;
mod histogram;
mod line;
mod many;
mod mean;
mod paired;
mod rank;
mod tail;

pub use bands::{Band, bands};
pub use bootstrap::{Resampling, quantile};
pub use correlation::{COEFFICIENTS, ClusteredCorrelation, Coefficient, Correlation, kendall, pearson, spearman};
pub use discrimination::{Discrimination, discrimination};
pub use histogram::{Histogram, histogram};
pub use line::{Line, least_squares};
pub use many::holm;
pub use mean::{Estimate, clustered_mean, complete_mean, deviation};
pub use paired::{SignFlip, detectable_difference, sign_flip};
