//! L2-SP (Li, Grandvalet and Davoine 2018): a spring between each tensor and its anchor.

use super::pulled;
use crate::error::Result;
use crate::graph::Value;
use crate::train::method::{Method, PLAIN};
use crate::train::setting::{NOT_NEGATIVE, Setting, Values};
use crate::train::site::Site;

/// The row. With LoRA, whose anchor is the origin, it is weight decay.
pub(crate) const L2_SP: Method = Method {
    name: "l2-sp",
    about: "gradient plus lambda times the deviation from the anchor",
    settings: &[
        Setting {
            name: "lambda",
            about: "strength of the pull towards the anchor",
            values: Values::Number { default: 0.1, range: NOT_NEGATIVE },
        },
        Setting {
            name: "beta",
            about: "strength of the pull towards zero of tensors without an anchor",
            values: Values::Number { default: 0.01, range: NOT_NEGATIVE },
        },
        Setting {
            name: "form",
            about: "whether the pull is part of the gradient, or shrinks the deviation beside the step as AdamW decays",
            values: Values::Word(&["coupled", "decoupled"]),
        },
    ],
    strength: Some("lambda"),
    anchored: true,
    recorded: &["lambda"],
    decide: |step, tensors| {
        let lambda = step.method.number("lambda")?;
        tensors.iter_mut().for_each(|numbers| numbers.set("lambda", lambda));
        Ok(())
    },
    update: |site| {
        let deviation = site.deviation()?;
        pull(site, deviation, "lambda")
    },
    unanchored: |site| {
        let parameter = site.parameter()?;
        pull(site, parameter, "beta")
    },
    ..PLAIN
};

fn pull(site: &mut Site, deviation: Value, strength: &str) -> Result<Value> {
    let strength = site.setting(strength)?;
    let strength = site.builder.scalar(strength)?;
    if site.is_chosen("form", "coupled")? {
        return pulled(site, deviation, strength);
    }
    let (parameter, gradient) = (site.parameter()?, site.gradient()?);
    let rate = site.scalar(crate::train::optimizer::LEARNING_RATE)?;
    let rate = site.builder.mul(rate, strength)?;
    let pull = site.builder.mul(deviation, rate)?;
    let shrunk = site.builder.op("Sub", &[parameter, pull], &[])?;
    site.base(shrunk, gradient)
}
