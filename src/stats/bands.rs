//! Long series in short.

/// Neighbouring points of a series as one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// Mean of their places.
    pub x: f64,
    /// Mean of their values.
    pub mean: f64,
    /// Least and greatest of their values.
    pub range: [f64; 2],
}

/// A series in at most so many groups of neighbours of one size, but for the last; none where no groups are asked for.
pub fn bands(points: &[(f64, f64)], most: usize) -> Vec<Band> {
    let size = points.len().div_ceil(most.max(1)).max(1);
    let band = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        let (x, sum) = points.iter().fold((0.0, 0.0), |(x, sum), point| (x + point.0, sum + point.1));
        let low = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let high = points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
        Band { x: x / n, mean: sum / n, range: [low, high] }
    };
    if most == 0 { Vec::new() } else { points.chunks(size).map(band).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one() {
        let points = [(1.0, 4.0), (2.0, 2.0), (3.0, 9.0)];
        let first = Band { x: 1.5, mean: 3.0, range: [2.0, 4.0] };
        assert_eq!(bands(&points, 2), [first, Band { x: 3.0, mean: 9.0, range: [9.0, 9.0] }]);
        assert_eq!(bands(&points, 9).len(), 3);
        assert_eq!(bands(&points, 0), []);
        assert_eq!(bands(&[], 2), []);
    }
}
