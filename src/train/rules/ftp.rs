//! Fast Trainable Projection (Tian et al. 2023): each step ends in a ball around the anchor whose radius is learnt from
//! training gradients.

use super::{TINY, clamped, guarded, shortened};
use crate::error::Result;
use crate::graph::Value;
use crate::train::method::{Method, PLAIN, Step};
use crate::train::numbers::Numbers;
use crate::train::setting::{Setting, Values};
use crate::train::site::Site;

/// The row: with SGD it is SGDP, with AdamW AdamP.
pub(crate) const FTP: Method = Method {
    name: "ftp",
    about: "projects each step into a ball around the anchor, with a radius learnt from training gradients",
    settings: &[Setting {
        name: "k",
        about: "factor of gradients that shrink the radius: 1 holds closest to the anchor, with 0 it never shrinks",
        values: Values::Number { default: 1.0, range: [0.0, 1.0] },
    }],
    anchored: true,
    recorded: &["radius"],
    measure,
    decide,
    update,
    ..PLAIN
};

/// Rate of the Adam that learns radii; fixed in the authors' code.
const RATE: f64 = 1e-2;

/// The derivative of the loss by the radius of the last step, `sum over rows of <g, c> / n`.
fn measure(site: &mut Site) -> Result<()> {
    let (gradient, before) = (site.gradient_sum()?, site.state("projected")?);
    let norms = norms(site, before)?;
    let products = site.builder.mul(gradient, before)?;
    let products = site.row_sums(products)?;
    let quotients = site.builder.op("Div", &[products, norms], &[])?;
    let sum = site.sum(quotients)?;
    site.set_number("radius_gradient", sum);
    Ok(())
}

fn decide(step: &Step, tensors: &mut [&mut Numbers]) -> Result<()> {
    let k = step.method.number("k")?;
    for numbers in tensors {
        if step.number == 1 {
            numbers.set("radius", TINY);
            continue;
        }
        let slope = numbers.get("radius_gradient") * step.factor;
        let slope = if slope > 0.0 { k * slope } else { slope };
        let moved = numbers.get("radius") - RATE * numbers.adam(slope, step.number);
        numbers.set("radius", moved);
    }
    Ok(())
}

fn update(site: &mut Site) -> Result<Value> {
    let stepped = site.base_step()?;
    let deviation = site.deviation_of(stepped)?;
    site.keep("projected", deviation);
    let norms = norms(site, deviation)?;
    let (radius, tiny) = (site.number("radius")?, site.builder.scalar(TINY as f32)?);
    let greatest = site.extreme("ReduceMax", norms)?;
    let radius = clamped(site, radius, tiny, greatest)?;
    site.set_number("radius", radius);
    let deviation = shortened(site, deviation, radius, norms)?;
    site.from_anchor(deviation)
}

fn norms(site: &mut Site, deviation: Value) -> Result<Value> {
    let norms = site.row_norms(deviation)?;
    guarded(site, norms)
}
