//! P-values of several tests, adjusted for their number.
//!
//! An adjusted p-value is the smallest level at which the method rejects that hypothesis.

/// P-values adjusted by Holm's method, in the order given; rejecting those below a level keeps the probability of any
/// false rejection below that level, however the tests depend on each other.
///
/// Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure". None where a number is not within 0 to 1.
pub fn holm(p_values: &[f64]) -> Option<Vec<f64>> {
    let (order, count) = (ascending(p_values)?, p_values.len());
    let mut adjusted = vec![0.0; count];
    let mut largest: f64 = 0.0;
    for (rank, &test) in order.iter().enumerate() {
        largest = largest.max((count - rank) as f64 * p_values[test]).min(1.0);
        adjusted[test] = largest;
    }
    Some(adjusted)
}

/// The tests in the order of their p-values.
fn ascending(p_values: &[f64]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&left, &right| p_values[left].total_cmp(&p_values[right]));
    p_values.iter().all(|p_value| (0.0..=1.0).contains(p_value)).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_p_value_is_refused() {
        for wrong in [f64::NAN, -0.1, 1.1] {
            assert_eq!(holm(&[0.5, wrong]), None);
        }
        assert_eq!(holm(&[]), Some(vec![]));
    }

    #[test]
    fn adjusted_values_keep_the_order_and_are_no_smaller() {
        let p_values = [0.3, 0.001, 0.02, 0.02, 0.9, 0.004];
        let adjusted = holm(&p_values).unwrap();
        for (left, right) in (0..6).flat_map(|left| (0..6).map(move |right| (left, right))) {
            assert!(p_values[left] > p_values[right] || adjusted[left] <= adjusted[right], "{adjusted:?}");
        }
        assert!(p_values.iter().zip(&adjusted).all(|(p_value, adjusted)| p_value <= adjusted && *adjusted <= 1.0));
    }
}
