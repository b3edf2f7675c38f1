//! Two-sided p-values and the normal quantile.

use std::f64::consts::SQRT_2;

use statrs::distribution::{Binomial, DiscreteCDF};
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

/// How often `n` throws of a coin are as uneven as `fewer` of one side, or more so.
pub(super) fn coin_p_value(fewer: u64, n: u64) -> Option<f64> {
    Some((2.0 * Binomial::new(0.5, n).ok()?.cdf(fewer)).min(1.0))
}
