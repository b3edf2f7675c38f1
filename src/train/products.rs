//! Inner products of one tensor's gradient and deviation, in a single pass over host memory.

/// Elements of a vector of sums.
const LANES: usize = 16;

/// Blocks of lanes that are summed in single precision, before the sums are added up in double precision.
const BLOCKS: usize = 128;

/// What is measured of an anchored tensor, beside its own elements and those of its gradient.
pub(super) struct Operands<'a> {
    /// The summed gradient `g`.
    pub gradient: &'a [f32],
    /// The tensor.
    pub parameter: &'a [f32],
    /// What its deviation `d` is measured from; the origin where there is nothing.
    pub anchor: Option<&'a [f32]>,
    /// The tensor at the last step, with a deviation of its own.
    pub last: Option<&'a [f32]>,
}

/// `<g, g>`.
pub(super) fn squares(gradient: &[f32]) -> f64 {
    sums([gradient], |[g]| [g * g])[0]
}

/// `<g, g>`, `<g, d>`, `<d, d>` and the product of `g` with the last deviation, 0 where there is none.
pub(super) fn products(operands: &Operands) -> [f64; 4] {
    let Operands { gradient, parameter, .. } = *operands;
    match (operands.anchor, operands.last) {
        (Some(anchor), Some(last)) => sums([gradient, parameter, anchor, last], |[g, theta, anchor, last]| {
            let d = theta - anchor;
            [g * g, g * d, d * d, g * (last - anchor)]
        }),
        (None, Some(last)) => sums([gradient, parameter, last], |[g, d, last]| [g * g, g * d, d * d, g * last]),
        (Some(anchor), None) => sums([gradient, parameter, anchor], |[g, theta, anchor]| {
            let d = theta - anchor;
            [g * g, g * d, d * d, 0.0]
        }),
        (None, None) => sums([gradient, parameter], |[g, d]| [g * g, g * d, d * d, 0.0]),
    }
}

/// Sums of terms over the elements of tensors of one length; what is beyond the shortest is left out.
fn sums<const N: usize, const M: usize>(tensors: [&[f32]; N], terms: impl Fn([f32; N]) -> [f32; M]) -> [f64; M] {
    let parts = tensors.map(<[f32]>::as_chunks::<LANES>);
    let blocks = parts.iter().map(|(blocks, _)| blocks.len()).min().unwrap_or(0);
    let mut totals = [0.0; M];
    let mut start = 0;
    while start < blocks {
        let end = (start + BLOCKS).min(blocks);
        let mut lanes = [[0f32; LANES]; M];
        let views = parts.map(|(blocks, _)| &blocks[start..end]);
        for index in 0..end - start {
            let elements = views.map(|view| &view[index]);
            for lane in 0..LANES {
                let found = terms(elements.map(|block| block[lane]));
                for (sum, term) in lanes.iter_mut().zip(found) {
                    sum[lane] += term;
                }
            }
        }
        for (total, lanes) in totals.iter_mut().zip(lanes) {
            *total += lanes.iter().copied().map(f64::from).sum::<f64>();
        }
        start = end;
    }
    let rest = parts.iter().map(|(_, rest)| rest.len()).min().unwrap_or(0);
    for index in 0..rest {
        let found = terms(parts.map(|(_, rest)| rest[index]));
        totals.iter_mut().zip(found).for_each(|(total, term)| *total += f64::from(term));
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn products_are_those_of_double_precision() {
        let random = Random::new(3);
        for length in [0, 1, 15, 16, 17, 2_048, 5_000] {
            let draw = |name: &str| -> Vec<f32> {
                (0..length).map(|index| (random.name(name).uniform(index as u64) - 0.5) as f32).collect()
            };
            let [gradient, parameter, anchor, last] = ["g", "p", "a", "l"].map(draw);
            let zeros = vec![0f32; length];
            for (with_anchor, with_last) in [(true, true), (true, false), (false, true), (false, false)] {
                let operands = Operands {
                    gradient: &gradient,
                    parameter: &parameter,
                    anchor: with_anchor.then_some(&anchor[..]),
                    last: with_last.then_some(&last[..]),
                };
                let from = if with_anchor { &anchor } else { &zeros };
                let deviation = |tensor: &[f32]| -> Vec<f64> {
                    tensor.iter().zip(from).map(|(value, anchor)| f64::from(*value) - f64::from(*anchor)).collect()
                };
                let dot = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(x, y)| x * y).sum::<f64>();
                let g: Vec<f64> = gradient.iter().copied().map(f64::from).collect();
                let (d, l) = (deviation(&parameter), deviation(&last));
                let product = if with_last { dot(&g, &l) } else { 0.0 };
                let expected = [dot(&g, &g), dot(&g, &d), dot(&d, &d), product];
                for (found, expected) in products(&operands).into_iter().zip(expected) {
                    assert!((found - expected).abs() <= 1e-6 * (length as f64).max(1.0), "{found} {expected}");
                }
                assert_eq!(squares(&gradient), products(&operands)[0]);
            }
        }
    }
}
