//! The straight line through points that is closest to them.

use serde::Serialize;

/// `y = intercept + slope * x`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Line {
    /// `y` where `x` is 0.
    pub intercept: f64,
    /// Change of `y` where `x` grows by 1.
    pub slope: f64,
}

impl Line {
    /// `y` at `x`.
    pub fn at(&self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

/// The line with the least sum of squared differences in `y`; none for fewer than two points, for slices of different
/// lengths, where a value is not finite, and where all `x` are equal.
pub fn least_squares(x: &[f64], y: &[f64]) -> Option<Line> {
    let n = x.len() as f64;
    let finite = x.iter().chain(y).all(|value| value.is_finite());
    if x.len() != y.len() || x.len() < 2 || !finite {
        return None;
    }
    let (middle, level) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let squares: f64 = x.iter().map(|x| (x - middle).powi(2)).sum();
    let products: f64 = x.iter().zip(y).map(|(x, y)| (x - middle) * (y - level)).sum();
    let slope = products / squares;
    (squares > 0.0).then_some(Line { intercept: level - slope * middle, slope })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_through_points_is_the_one_of_numpy() {
        // numpy.polyfit([1, 2, 4, 7], [3, 2.5, 4, 1], 1)
        let line = least_squares(&[1.0, 2.0, 4.0, 7.0], &[3.0, 2.5, 4.0, 1.0]).unwrap();
        assert!((line.slope - -0.273_809_523_809_523_8).abs() < 1e-14, "{line:?}");
        assert!((line.intercept - 3.583_333_333_333_333).abs() < 1e-14, "{line:?}");
        assert!((line.at(2.0) - 3.035_714_285_714_286).abs() < 1e-14);
        assert_eq!(least_squares(&[1.0, 1.0], &[2.0, 3.0]), None);
        assert_eq!(least_squares(&[1.0], &[2.0]), None);
        assert_eq!(least_squares(&[1.0, f64::NAN], &[2.0, 3.0]), None);
    }
}
