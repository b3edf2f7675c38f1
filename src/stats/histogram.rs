//! How values are spread.

/// A density that is constant between two edges.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// In ascending order, equally far apart, from the least to the greatest value.
    pub edges: Vec<f64>,
    /// One fewer than edges; together with the widths they make 1.
    pub densities: Vec<f64>,
}

/// The histogram of values in so many bins, as `numpy.histogram(values, bins, density=True)`; none without values or
/// bins, and where a value is not finite. Values that are all equal stand in the middle of a width of 1.
pub fn histogram(values: &[f64], bins: usize) -> Option<Histogram> {
    let least = values.iter().copied().reduce(f64::min)?;
    let greatest = values.iter().copied().reduce(f64::max)?;
    if bins == 0 || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let (low, high) = if least < greatest { (least, greatest) } else { (least - 0.5, least + 0.5) };
    let width = (high - low) / bins as f64;
    let mut counts = vec![0u64; bins];
    for value in values {
        let bin = ((value - low) / width) as usize;
        counts[bin.min(bins - 1)] += 1;
    }
    let total = values.len() as f64 * width;
    Some(Histogram {
        edges: (0..=bins).map(|edge| low + edge as f64 * width).collect(),
        densities: counts.iter().map(|count| *count as f64 / total).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn densities_are_those_of_numpy() {
        // numpy.histogram([1, 2, 2, 3, 9], bins=4, density=True)
        let found = histogram(&[1.0, 2.0, 2.0, 3.0, 9.0], 4).unwrap();
        assert_eq!(found.edges, [1.0, 3.0, 5.0, 7.0, 9.0]);
        assert_eq!(found.densities, [0.3, 0.1, 0.0, 0.1]);
        let equal = histogram(&[2.0, 2.0], 2).unwrap();
        assert_eq!((equal.edges, equal.densities), (vec![1.5, 2.0, 2.5], vec![0.0, 2.0]));
        assert_eq!(histogram(&[], 2), None);
        assert_eq!(histogram(&[f64::NAN], 2), None);
        assert_eq!(histogram(&[1.0], 0), None);
    }
}
