//! Selective Projection Decay (Tian et al. 2024): after a step against which the gradient pulls back, the deviation shrinks.

use super::norms;
use crate::error::Result;
use crate::graph::Value;
use crate::train::method::{Method, PLAIN, Step};
use crate::train::numbers::Numbers;
use crate::train::setting::{NOT_NEGATIVE, Setting, Values};
use crate::train::site::Site;

/// The row. Where descent would bring the tensor back (`<g, theta - theta_0> > 0`), the step's growth of the deviation is
/// taken back `lambda` times; not multiplied by the learning rate.
pub(crate) const SPD: Method = Method {
    name: "spd",
    about: "shrinks the growth of the deviation where descent points back to the anchor (Tian et al. 2024)",
    settings: &[
        Setting {
            name: "lambda",
            about: "how many times the growth of the deviation is taken back",
            values: Values::Number { default: 0.5, range: NOT_NEGATIVE },
        },
        Setting {
            name: "norm",
            about: "what measures the deviation: the whole tensor's L2 norm, or the L1 norm of each row",
            values: Values::Word(&["l2", "mars"]),
        },
    ],
    strength: Some("lambda"),
    anchored: true,
    recorded: &["ratio"],
    decide,
    update,
    rests: Some(|numbers| numbers.get("pull") == 0.0),
    ..PLAIN
};

fn decide(step: &Step, tensors: &mut [&mut Numbers]) -> Result<()> {
    let lambda = step.method.number("lambda")?;
    for numbers in tensors {
        numbers.set("pull", if numbers.get("dot") > 0.0 { lambda } else { 0.0 });
        numbers.set("ratio", 0.0);
    }
    Ok(())
}

fn update(site: &mut Site) -> Result<Value> {
    let before = site.deviation()?;
    let stepped = site.base_step()?;
    let after = site.deviation_of(stepped)?;
    let (before, size) = (norms(site, before)?, norms(site, after)?);
    let growth = site.builder.op("Sub", &[size, before], &[])?;
    // A deviation of zero has not grown.
    let tiny = site.builder.scalar(f32::MIN_POSITIVE)?;
    let size = site.builder.op("Max", &[size, tiny], &[])?;
    let ratio = site.builder.op("Div", &[growth, size], &[])?;
    let (zero, one) = (site.builder.scalar(0f32)?, site.builder.scalar(1f32)?);
    let ratio = super::clamped(site, ratio, zero, one)?;
    let pull = site.number("pull")?;
    let greatest = if site.is_chosen("norm", "l2")? { ratio } else { site.extreme("ReduceMax", ratio)? };
    site.set_number("ratio", greatest);
    let share = site.builder.mul(ratio, pull)?;
    let back = site.builder.mul(after, share)?;
    site.builder.op("Sub", &[stepped, back], &[])
}
