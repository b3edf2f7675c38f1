//! Directional Gradient Projection (Huang et al., ICLR 2025).
//!
//! Where descent leads away from the anchor, the gradient loses a part of its component along the deviation. Equation
//! numbers are those of the paper. `g` is the gradient, `d` the deviation `theta - theta_0`, both of one tensor.

use super::{TINY, pulled};
use crate::error::Result;
use crate::graph::Value;
use crate::train::method::{LAST, Method, PLAIN, Step};
use crate::train::numbers::Numbers;
use crate::train::setting::{Chosen, NOT_NEGATIVE, Setting, Values};
use crate::train::site::Site;

/// The row. Per tensor, with the projection `P = <g, d> / |d|^2 d` (Eq. 3) and the projection strength `omega` (Eq. 4),
/// a step goes along `g - omega P` where `<g, d> < 0`, else along `g`. That is L2-SP with the strength `lambda = -omega
/// <g, d> / |d|^2` (Eq. 5). `omega` starts at 0 and follows the derivative of the loss by it (Eq. 8), before it is used.
pub(crate) const DIGRAP: Method = Method {
    name: "digrap",
    about: "projects gradients that lead away from the anchor, with a learnt strength per tensor (DiGraP, ICLR 2025)",
    settings: &[
        Setting {
            name: "mu",
            about: "learning rate of the projection strength",
            values: Values::Number { default: 0.5, range: NOT_NEGATIVE },
        },
        Setting {
            name: "normalisation",
            about: "of the derivative by the projection strength: cosine of the tensors, sum over the cosines of rows, none",
            values: Values::Word(&["cos", "row_cos", "raw"]),
        },
        Setting {
            name: "gated",
            about: "true lets the projection strength rest after a step that projected nothing, the exact derivative",
            values: Values::Word(&["false", "true"]),
        },
        Setting {
            name: "omega",
            about: "a projection strength that stays as it is",
            values: Values::WordOr { word: "trained", range: [0.0, 1.0] },
        },
        Setting {
            name: "kappa",
            about: "the greatest projection strength",
            values: Values::Number { default: 1.0, range: NOT_NEGATIVE },
        },
    ],
    overrides: &[("omega", &["mu", "normalisation", "gated", "kappa"])],
    anchored: true,
    remembers: true,
    recorded: &["omega", "lambda"],
    measure,
    decide,
    update: |site| {
        let (deviation, lambda) = (site.deviation()?, site.number("lambda")?);
        pulled(site, deviation, lambda)
    },
    rests: Some(|numbers| numbers.get("lambda") == 0.0),
    ..PLAIN
};

/// The gradient along the rows of the last step's deviation, of which its projection is a multiple.
fn measure(site: &mut Site) -> Result<()> {
    if site.is_chosen("omega", "trained")? && site.is_chosen("normalisation", "row_cos")? && site.rank() >= 2 {
        let (gradient, last) = (site.gradient_sum()?, site.state(LAST)?);
        let last = site.deviation_of(last)?;
        let cosines = row_cosines(site, gradient, last)?;
        site.set_number("row_cosines", cosines);
    }
    Ok(())
}

/// The sum over rows of the cosines between two tensors, 0 for a row of zeros.
fn row_cosines(site: &mut Site, one: Value, other: Value) -> Result<Value> {
    let products = site.builder.mul(one, other)?;
    let mut cosines = site.row_sums(products)?;
    for tensor in [one, other] {
        let squares = site.builder.mul(tensor, tensor)?;
        let squares = site.row_sums(squares)?;
        let norms = site.builder.op("Sqrt", &[squares], &[])?;
        let tiny = site.builder.scalar(1e-12f32)?;
        let norms = site.builder.op("Max", &[norms, tiny], &[])?;
        cosines = site.builder.op("Div", &[cosines, norms], &[])?;
    }
    site.sum(cosines)
}

fn decide(step: &Step, tensors: &mut [&mut Numbers]) -> Result<()> {
    for numbers in tensors {
        let omega = match step.method.chosen("omega")? {
            Chosen::Number(omega) => omega,
            Chosen::Word(_) => trained(step, numbers)?,
        };
        numbers.set("omega", omega);
        let (dot, squares) = (numbers.get("dot"), numbers.get("deviation_squares"));
        numbers.set("lambda", if dot < 0.0 && squares > 0.0 { -omega * dot / squares } else { 0.0 });
        numbers.set("last_dot", dot);
        numbers.set("last_squares", squares);
        numbers.set("last_rate", step.learning_rate);
    }
    Ok(())
}

/// The projection strength after a step of Adam along its derivative. Without a gate that is taken as if every step had
/// projected, as in Algorithm 1.
fn trained(step: &Step, numbers: &mut Numbers) -> Result<f64> {
    let omega = numbers.get("omega");
    if step.number == 1 {
        return Ok(omega);
    }
    let rests = step.method.word("gated")? == "true" && numbers.get("last_dot") >= 0.0;
    let slope = if rests { 0.0 } else { slope(step, numbers)? };
    numbers.set("slope", slope);
    let moved = omega - step.method.number("mu")? * numbers.adam(slope, step.number);
    Ok(moved.clamp(0.0, step.method.number("kappa")?))
}

/// The derivative of this step's loss by the last step's projection strength, in the chosen normalisation. Where gradients
/// are clipped, it is that of the clipped one, as all that a method sees.
fn slope(step: &Step, numbers: &Numbers) -> Result<f64> {
    let (dot, squares) = (numbers.get("last_dot"), numbers.get("last_squares"));
    let product = numbers.get("product_with_last") * step.factor;
    if step.method.word("normalisation")? == "raw" {
        return Ok(numbers.get("last_rate") * dot / (squares + TINY) * product);
    }
    let sign = if dot == 0.0 { 0.0 } else { dot.signum() };
    if let Some(cosines) = numbers.known("row_cosines") {
        return Ok(sign * cosines);
    }
    let size = (numbers.get("gradient_squares") * squares).sqrt();
    Ok(if size > 0.0 { sign * product / size } else { 0.0 })
}
