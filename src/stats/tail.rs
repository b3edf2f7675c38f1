//! P-values, and the normal distribution.

use std::f64::consts::SQRT_2;

use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::beta::checked_beta_reg;
use statrs::function::erf::erfc;

/// The normal distribution's quantile of 0.975.
pub(super) const NORMAL: f64 = 1.959_963_984_540_054;

/// How often the size of a standard normal number reaches that of `z`.
pub(super) fn normal_p_value(z: f64) -> f64 {
    erfc(z.abs() / SQRT_2)
}

/// How often Pearson's coefficient of `n` pairs of independent normal numbers, n > 2, reaches the size of
/// `coefficient`.
///
/// Student's t with n - 2 degrees of freedom of `coefficient * sqrt((n - 2) / (1 - coefficient^2))`, written as the
/// incomplete beta function that it is.
pub(super) fn correlation_p_value(coefficient: f64, n: usize) -> Option<f64> {
    checked_beta_reg((n as f64 - 2.0) / 2.0, 0.5, (1.0 - coefficient) * (1.0 + coefficient)).ok()
}

/// How often a standard normal number is not above `z`.
pub(super) fn normal_share_below(z: f64) -> f64 {
    erfc(-z / SQRT_2) / 2.0
}

/// The number that standard normal numbers are not above with a probability between 0 and 1; else none.
pub(super) fn normal_quantile(probability: f64) -> Option<f64> {
    let within = probability > 0.0 && probability < 1.0;
    within.then(|| Normal::standard().inverse_cdf(probability))
}
