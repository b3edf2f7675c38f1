//! Trainable Projected Gradient Method (Tian et al. 2023): each step ends in a ball around the anchor whose radius is
//! learnt on validation batches.

use super::{TINY, guarded, indicator, norms, shortened};
use crate::error::Result;
use crate::graph::Value;
use crate::train::method::{Method, PLAIN, Search, Step};
use crate::train::numbers::Numbers;
use crate::train::setting::{NOT_NEGATIVE, Setting, Values};
use crate::train::site::Site;

const NORM: Setting = Setting {
    name: "norm",
    about: "what the radius bounds: the L1 norm of each row, or the whole tensor's L2 norm",
    values: Values::Word(&["mars", "l2"]),
};
const RADIUS_RATE: Setting = Setting {
    name: "radius_rate",
    about: "learning rate of the radii",
    values: Values::Number { default: 1e-2, range: NOT_NEGATIVE },
};
const EVERY: Setting = Setting {
    name: "every",
    about: "steps from one search for radii to the next; in between the last ones hold",
    values: Values::Count { default: 1 },
};
const ITERATIONS: Setting =
    Setting { name: "iterations", about: "validation batches of a search", values: Values::Count { default: 1 } };

/// The row.
pub(crate) const TPGM: Method = Method {
    name: "tpgm",
    about: "projects each step into a ball around the anchor, with a radius learnt on validation batches",
    settings: &[NORM, RADIUS_RATE, EVERY, ITERATIONS],
    anchored: true,
    recorded: &["radius"],
    update: |site| {
        let stepped = site.base_step()?;
        let deviation = site.deviation_of(stepped)?;
        let norms = norms(site, deviation)?;
        let whole = site.is_chosen("norm", "l2")?;
        for (name, op) in [("least_norm", "ReduceMin"), ("greatest_norm", "ReduceMax")] {
            let extreme = if whole { norms } else { site.extreme(op, norms)? };
            site.set_number(name, extreme);
        }
        Ok(stepped)
    },
    search: Some(Search { rounds, project, measure, decide }),
    ..PLAIN
};

/// The same with a price on radii, so that its accuracy can be brought to that of another method.
pub(crate) const CONTROLLED: Method = Method {
    name: "tpgm-c",
    about: "TPGM with rho times the relative radius added to the validation loss",
    settings: &[
        NORM,
        RADIUS_RATE,
        EVERY,
        ITERATIONS,
        Setting {
            name: "rho",
            about: "price of a radius, relative to the greatest norm",
            values: Values::Number { default: 0.001, range: NOT_NEGATIVE },
        },
    ],
    strength: Some("rho"),
    ..TPGM
};

fn rounds(step: &Step) -> Result<u64> {
    let every = step.method.number("every")? as u64;
    let searches = (step.number - 1).is_multiple_of(every);
    Ok(if searches { step.method.number("iterations")? as u64 } else { 0 })
}

fn project(site: &mut Site) -> Result<Value> {
    let deviation = site.deviation()?;
    let norms = norms(site, deviation)?;
    let (norms, radius) = (guarded(site, norms)?, site.number("radius")?);
    let deviation = shortened(site, deviation, radius, norms)?;
    site.from_anchor(deviation)
}

/// The derivative of the validation loss by the radius, over the rows that it shortens.
fn measure(site: &mut Site) -> Result<()> {
    let (gradient, deviation) = (site.gradient_sum()?, site.deviation()?);
    let norms = norms(site, deviation)?;
    let (norms, radius) = (guarded(site, norms)?, site.number("radius")?);
    let products = site.builder.mul(gradient, deviation)?;
    let whole = site.is_chosen("norm", "l2")?;
    let products = if whole { site.sum(products)? } else { site.row_sums(products)? };
    let shortened = site.builder.op("LessOrEqual", &[radius, norms], &[])?;
    let shortened = indicator(site, shortened)?;
    let products = site.builder.mul(products, shortened)?;
    let quotients = site.builder.op("Div", &[products, norms], &[])?;
    let slope = if whole { quotients } else { site.sum(quotients)? };
    site.set_number("radius_gradient", slope);
    Ok(())
}

fn decide(step: &Step, tensors: &mut [&mut Numbers]) -> Result<()> {
    let rate = step.method.number("radius_rate")?;
    let price = step.method.settings().contains_key("rho").then(|| step.method.number("rho")).transpose()?;
    for numbers in tensors {
        let greatest = numbers.get("greatest_norm");
        if step.round > 0 {
            let mut slope = numbers.get("radius_gradient") * step.factor;
            if greatest > 0.0 {
                slope += price.unwrap_or(0.0) / greatest;
            }
            let searches = numbers.get("searches") + 1.0;
            numbers.set("searches", searches);
            let moved = numbers.get("radius") - rate * numbers.adam(slope, searches as u64);
            numbers.set("radius", moved);
        } else if greatest > 0.0 && numbers.known("has_moved").is_none() {
            numbers.set("has_moved", 1.0);
            numbers.set("radius", numbers.get("least_norm") / 2.0);
        }
        // 0 for a tensor that has not moved.
        numbers.set("radius", numbers.get("radius").max(TINY).min(greatest));
    }
    Ok(())
}
