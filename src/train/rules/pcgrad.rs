//! PCGrad (Yu et al. 2020) on two objectives: the task, and staying close to the anchor.

use crate::error::Result;
use crate::graph::Value;
use crate::train::method::{Method, PLAIN, Step};
use crate::train::numbers::Numbers;
use crate::train::setting::{NOT_NEGATIVE, Setting, Values};
use crate::train::site::Site;

/// The row. The gradients `g` of the task and `lambda (theta - theta_0)` of L2-SP are compared over all tensors together;
/// where they conflict, each loses its part along the other; the sum of both is stepped along.
pub(crate) const PCGRAD: Method = Method {
    name: "pcgrad",
    about: "gradient surgery between the task and the distance to the anchor, over all tensors together",
    settings: &[Setting {
        name: "lambda",
        about: "weight of the distance to the anchor",
        values: Values::Number { default: 0.1, range: NOT_NEGATIVE },
    }],
    strength: Some("lambda"),
    anchored: true,
    recorded: &["lambda"],
    decide,
    update,
    ..PLAIN
};

fn decide(step: &Step, tensors: &mut [&mut Numbers]) -> Result<()> {
    let total = |name: &str, tensors: &[&mut Numbers]| tensors.iter().map(|numbers| numbers.get(name)).sum::<f64>();
    let lambda = step.method.number("lambda")?;
    // An objective without weight has no gradient that could conflict.
    let conflict = if lambda > 0.0 { total("dot", tensors).min(0.0) } else { 0.0 };
    let share = |squares: f64| if squares > 0.0 { conflict / squares } else { 0.0 };
    let of_gradient = 1.0 - lambda * share(total("gradient_squares", tensors));
    let of_deviation = lambda - share(total("deviation_squares", tensors));
    for numbers in tensors {
        numbers.set("gradient_factor", of_gradient);
        numbers.set("deviation_factor", of_deviation);
        numbers.set("lambda", of_deviation / of_gradient);
    }
    Ok(())
}

fn update(site: &mut Site) -> Result<Value> {
    let (parameter, gradient, deviation) = (site.parameter()?, site.gradient()?, site.deviation()?);
    let (of_gradient, of_deviation) = (site.number("gradient_factor")?, site.number("deviation_factor")?);
    let task = site.builder.mul(gradient, of_gradient)?;
    let anchor = site.builder.mul(deviation, of_deviation)?;
    let sum = site.builder.add(task, anchor)?;
    site.base(parameter, sum)
}
