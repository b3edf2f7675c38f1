//! Maximum absolute row sums of the deviation (Gouk, Hospedales and Pontil 2021), as a penalty and as a constraint.

use super::{indicator, shortened};
use crate::error::Result;
use crate::graph::{Attribute, Value};
use crate::train::method::{Method, PLAIN};
use crate::train::setting::{NOT_NEGATIVE, Setting, Values};
use crate::train::site::{Role, Site};

/// `loss + lambda * sum over tensors of the greatest row sum`. The default is the middle of the authors' search range.
pub(crate) const PENALTY: Method = Method {
    name: "mars-sp",
    about: "gradient plus that of lambda times the greatest absolute row sum of the deviation",
    settings: &[
        Setting {
            name: "lambda",
            about: "strength of the penalty",
            values: Values::Number { default: 0.004, range: NOT_NEGATIVE },
        },
        Setting {
            name: "beta",
            about: "strength for tensors without an anchor, which are measured from zero",
            values: Values::Number { default: 0.004, range: NOT_NEGATIVE },
        },
    ],
    strength: Some("lambda"),
    anchored: true,
    update: |site| {
        let deviation = site.deviation()?;
        penalised(site, deviation, "lambda")
    },
    unanchored: |site| {
        let parameter = site.parameter()?;
        penalised(site, parameter, "beta")
    },
    ..PLAIN
};

/// Every row sum of the deviation is at most `radius`. The default is the middle of the authors' search range.
pub(crate) const CONSTRAINT: Method = Method {
    name: "mars-pgm",
    about: "after each step rows of the deviation are shortened to an absolute sum of at most radius",
    settings: &[
        Setting {
            name: "radius",
            about: "the greatest absolute row sum of a deviation",
            values: Values::Number { default: 7.4, range: NOT_NEGATIVE },
        },
        Setting {
            name: "head_radius",
            about: "the same for tensors without an anchor, which are measured from zero",
            values: Values::Number { default: 7.4, range: NOT_NEGATIVE },
        },
    ],
    anchored: true,
    update: |site| {
        let stepped = site.base_step()?;
        let deviation = site.deviation_of(stepped)?;
        match constrained(site, deviation, "radius")? {
            Some(shortened) => site.from_anchor(shortened),
            None => Ok(stepped),
        }
    },
    unanchored: |site| {
        let stepped = site.base_step()?;
        Ok(constrained(site, stepped, "head_radius")?.unwrap_or(stepped))
    },
    ..PLAIN
};

/// The step along the gradient and `strength * sign(deviation)` in the greatest row, the first of equal ones.
fn penalised(site: &mut Site, deviation: Value, strength: &str) -> Result<Value> {
    if site.role() == Role::Bias {
        return site.base_step();
    }
    let (parameter, gradient) = (site.parameter()?, site.gradient()?);
    let sign = site.builder.op("Sign", &[deviation], &[])?;
    let strength = site.setting(strength)?;
    let mut pull = site.builder.scale(sign, strength)?;
    if site.rank() >= 2 {
        let norms = site.row_norms(deviation)?;
        let chosen = greatest(site, norms)?;
        pull = site.builder.mul(pull, chosen)?;
    }
    let gradient = site.builder.add(gradient, pull)?;
    site.base(parameter, gradient)
}

/// 1 for the greatest of the rows, 0 for the others; shaped as `norms`.
fn greatest(site: &mut Site, norms: Value) -> Result<Value> {
    let first = site.builder.op("ArgMax", &[norms], &[("axis", Attribute::Int(0)), ("keepdims", Attribute::Int(1))])?;
    let shape = site.builder.op("Shape", &[norms], &[])?;
    let (zero, one) = (site.builder.scalar(0i64)?, site.builder.scalar(1i64)?);
    let count = site.builder.gather(shape, zero, 0)?;
    let rows = site.builder.op("Range", &[zero, count, one], &[])?;
    let rows = site.builder.op("Reshape", &[rows, shape], &[])?;
    let chosen = site.builder.op("Equal", &[rows, first], &[])?;
    indicator(site, chosen)
}

/// The deviation within the ball; none where the tensor is not constrained. The factors of a normalisation layer are a
/// diagonal matrix, so that each is a row of its own.
fn constrained(site: &mut Site, deviation: Value, radius: &str) -> Result<Option<Value>> {
    let radius = site.setting(radius)?;
    let most = site.builder.scalar(radius)?;
    match site.role() {
        Role::Bias => Ok(None),
        Role::NormScale => {
            let least = site.builder.scalar(-radius)?;
            super::clamped(site, deviation, least, most).map(Some)
        }
        Role::Weight => {
            let norms = site.row_norms(deviation)?;
            // A row of zeros stays one.
            let tiny = site.builder.scalar(f32::MIN_POSITIVE)?;
            let norms = site.builder.op("Max", &[norms, tiny], &[])?;
            shortened(site, deviation, most, norms).map(Some)
        }
    }
}
