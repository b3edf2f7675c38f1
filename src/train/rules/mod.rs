//! The rules of the methods that are more than the optimiser's step.

pub(super) mod digrap;
pub(super) mod ftp;
pub(super) mod l2_sp;
pub(super) mod mars;
pub(super) mod pcgrad;
pub(super) mod spd;
pub(super) mod tpgm;

use super::site::Site;
use crate::error::Result;
use crate::graph::{Attribute, Value};

/// Added to norms that are divided by, as in the authors' code of TPGM, FTP and DiGraP.
const TINY: f64 = 1e-8;

/// The step along `gradient + strength * deviation`.
fn pulled(site: &mut Site, deviation: Value, strength: Value) -> Result<Value> {
    let (parameter, gradient) = (site.parameter()?, site.gradient()?);
    let pull = site.builder.mul(deviation, strength)?;
    let gradient = site.builder.add(gradient, pull)?;
    site.base(parameter, gradient)
}

/// `value` kept between two values without dimensions.
fn clamped(site: &mut Site, value: Value, least: Value, most: Value) -> Result<Value> {
    let value = site.builder.op("Max", &[value, least], &[])?;
    site.builder.op("Min", &[value, most], &[])
}

/// `deviation` with each row shortened so that its norm is at most `radius`: `clip(radius / norms, 0, 1) * deviation`.
fn shortened(site: &mut Site, deviation: Value, radius: Value, norms: Value) -> Result<Value> {
    let ratio = site.builder.op("Div", &[radius, norms], &[])?;
    let one = site.builder.scalar(1f32)?;
    let ratio = site.builder.op("Min", &[ratio, one], &[])?;
    site.builder.mul(deviation, ratio)
}

/// Norms that can be divided by.
fn guarded(site: &mut Site, norms: Value) -> Result<Value> {
    let tiny = site.builder.scalar(TINY as f32)?;
    site.builder.add(norms, tiny)
}

/// `values` as f32 numbers that are 1 where they are true.
fn indicator(site: &mut Site, values: Value) -> Result<Value> {
    site.builder.op("Cast", &[values], &[("to", Attribute::Int(1))])
}

/// One L1 norm per row, or the whole tensor's L2 norm without dimensions, as the setting `norm` says.
fn norms(site: &mut Site, deviation: Value) -> Result<Value> {
    if site.is_chosen("norm", "mars")? {
        return site.row_norms(deviation);
    }
    let squares = site.squares(deviation)?;
    site.builder.op("Sqrt", &[squares], &[])
}
