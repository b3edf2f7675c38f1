//! Normalisation layers.

use super::arithmetic::offset;
use super::dims::count;
use super::layout::reshape_like;
use super::reduction::divided_by_count;
use super::{Attribute, Case, Dim, Gradient, Op, Site, Type, Use, expand_like, same};
use crate::error::{Error, Result};
use crate::graph::protobuf::dtype_from_onnx;
use crate::graph::{Builder, Value};
use crate::tensor::DType;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op {
        name: "LayerNormalization",
        shape: layer_types,
        gradient: Gradient::Rule(layer),
        cases: || {
            vec![
                Case::new().input("batch,tokens,8").input("8").input("8"),
                Case::new().input("batch,tokens,8").input("8"),
                Case::new().input("batch,3,4").input("3,4").input("4").int("axis", -2),
                Case::new().input("batch,4").input("4").input("4").unknown(),
                Case::new().input("batch,4").input("4").with("epsilon", Attribute::Float(0.25)),
            ]
        },
    },
    Op {
        name: "RMSNormalization",
        shape: same,
        gradient: Gradient::Rule(root_mean_square),
        cases: || {
            vec![
                Case::new().input("batch,tokens,8").input("8"),
                Case::new().input("batch,3,4").input("3,4").int("axis", 1),
                Case::new().input("batch,4").input("4").unknown(),
                Case::new().input("batch,4").input("4").with("epsilon", Attribute::Float(0.25)),
            ]
        },
    },
    Op {
        name: "BatchNormalization",
        shape: batch_types,
        gradient: Gradient::Rule(batch),
        cases: || {
            let data = |dims: &str| Case::new().input(dims).input("3").input("3").input("3").input("+:3");
            vec![
                data("batch,3,4,tokens"),
                data("batch,3").with("epsilon", Attribute::Float(0.25)),
                data("batch,3,4,tokens").int("training_mode", 1),
                data("batch,3,tokens").int("training_mode", 1).with("momentum", Attribute::Float(0.25)).unknown(),
            ]
        },
    },
    Op {
        name: "InstanceNormalization",
        shape: same,
        gradient: Gradient::Rule(grouped),
        cases: || {
            vec![
                Case::new().input("batch,3,4,tokens").input("3").input("3"),
                Case::new().input("batch,3,tokens").input("3").input("3").unknown(),
            ]
        },
    },
    Op {
        name: "GroupNormalization",
        shape: same,
        gradient: Gradient::Rule(grouped),
        // In single precision, the default, no differences can be taken in double precision.
        cases: || {
            let data = |dims: &str| Case::new().input(dims).input("4").input("4").int("stash_type", 11);
            vec![
                data("batch,4,2,tokens").int("num_groups", 2),
                data("batch,4,tokens").int("num_groups", 2).unknown(),
                data("batch,4,tokens").int("num_groups", 1),
            ]
        },
    },
];

const EPSILON: f32 = 1e-5;

/// Mean and inverse standard deviation are optional results.
fn layer_types(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let axis = site.axis(input.dims.len(), -1)?;
    let mut dims = input.dims.clone();
    dims[axis..].fill(Dim::Fixed(1));
    let statistics = Type { dtype: stash_type(input.dtype, site.int("stash_type"))?, dims };
    let types = [input.clone(), statistics.clone(), statistics];
    Ok(types.into_iter().take(site.outputs.max(1)).collect())
}

/// With `training_mode = 1` the operator has all its results, as ONNX Runtime demands, else only the first.
fn batch_types(site: &Site) -> Result<Vec<Type>> {
    let mut types = same(site)?;
    if site.int("training_mode") == Some(1) {
        types.extend([site.input(3)?.clone(), site.input(4)?.clone()]);
    }
    Ok(types)
}

/// The dtype that a layer is computed in, single precision unless it says otherwise; double precision stays.
fn stash_type(input: DType, stash: Option<i64>) -> Result<DType> {
    match input {
        DType::F64 => Ok(input),
        _ => dtype_from_onnx(stash.unwrap_or(1)),
    }
}

/// Axes from `axis` to the last.
fn axes_from(builder: &Builder, site: &Use) -> Result<Vec<i64>> {
    let rank = builder.ty(site.input(0)?)?.dims.len();
    let axis = site.attributes().axis(rank, -1)?;
    Ok((axis as i64..rank as i64).collect())
}

fn epsilon(site: &Use) -> f32 {
    site.attributes().float("epsilon").unwrap_or(EPSILON)
}

fn sum(builder: &mut Builder, value: Value, axes: &[i64], keep: bool) -> Result<Value> {
    let axes = builder.ints(axes)?;
    builder.op("ReduceSum", &[value, axes], &[("keepdims", Attribute::Int(i64::from(keep)))])
}

fn average(builder: &mut Builder, value: Value, axes: &[i64], keep: bool) -> Result<Value> {
    let sum = sum(builder, value, axes, keep)?;
    divided_by_count(builder, sum, value, sum)
}

fn centred(builder: &mut Builder, value: Value, axes: &[i64]) -> Result<Value> {
    let mean = average(builder, value, axes, true)?;
    builder.op("Sub", &[value, mean], &[])
}

/// `1 / sqrt(mean(x^2) + epsilon)`.
fn inverse_root(builder: &mut Builder, x: Value, axes: &[i64], keep: bool, epsilon: f32) -> Result<Value> {
    let square = builder.mul(x, x)?;
    let mean = average(builder, square, axes, keep)?;
    inverse_deviation(builder, mean, epsilon)
}

fn inverse_deviation(builder: &mut Builder, variance: Value, epsilon: f32) -> Result<Value> {
    let variance = offset(builder, variance, epsilon)?;
    let deviation = builder.op("Sqrt", &[variance], &[])?;
    builder.op("Reciprocal", &[deviation], &[])
}

/// With `r = 1 / sqrt(mean(x^2) + epsilon)` the gradient of `x r`: `r dy - x r^3 mean(x dy)`.
fn through_root(builder: &mut Builder, x: Value, inverse: Value, gradient: Value, axes: &[i64]) -> Result<Value> {
    let product = builder.mul(gradient, x)?;
    let along = average(builder, product, axes, true)?;
    let square = builder.mul(inverse, inverse)?;
    let cube = builder.mul(square, inverse)?;
    let factor = builder.mul(along, cube)?;
    let direct = builder.mul(gradient, inverse)?;
    let less = builder.mul(x, factor)?;
    builder.op("Sub", &[direct, less], &[])
}

/// With `c = x - mean(x)` and `r` the inverse deviation: `dc = r dz - c r^3 mean(c dz)` and `dx = dc - mean(dc)`, where
/// `dz` is the gradient times the weight. As `c` has the mean zero, `dz` may be centred in place of `dc`.
fn layer(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    if site.gradients[1..].iter().any(Option::is_some) {
        return Err(Error::input("the loss depends on its mean or deviation").hint("use only its first result"));
    }
    let (x, weight, axes) = (site.input(0)?, site.input(1)?, axes_from(builder, site)?);
    let (mean, inverse) = (builder.optional_output(site.node, 1)?, builder.optional_output(site.node, 2)?);
    let dtype = builder.ty(mean)?.dtype;
    let (wide, gradient) = (builder.cast(x, dtype)?, builder.cast(site.gradient()?, dtype)?);
    let centre = builder.op("Sub", &[wide, mean], &[])?;
    let scaled = times(builder, gradient, weight)?;
    let scaled = centred(builder, scaled, &axes)?;
    let by_data = through_root(builder, centre, inverse, scaled, &axes)?;
    let product = builder.mul(gradient, centre)?;
    let by_weight = row_product(builder, inverse, product, weight)?;
    let by_bias = match site.optional(2) {
        Some(bias) => {
            let one = builder.float(1.0, dtype)?;
            let ones = expand_like(builder, one, inverse)?;
            Some(row_product(builder, ones, gradient, bias)?)
        }
        None => None,
    };
    Ok(vec![Some(like(builder, by_data, x)?), Some(by_weight), by_bias])
}

/// As of [`layer`] without the mean.
fn root_mean_square(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, weight, axes) = (site.input(0)?, site.input(1)?, axes_from(builder, site)?);
    let dtype = stash_type(builder.ty(x)?.dtype, site.attributes().int("stash_type"))?;
    let (wide, gradient) = (builder.cast(x, dtype)?, builder.cast(site.gradient()?, dtype)?);
    let inverse = inverse_root(builder, wide, &axes, true, epsilon(site))?;
    let scaled = times(builder, gradient, weight)?;
    let by_data = through_root(builder, wide, inverse, scaled, &axes)?;
    let product = builder.mul(gradient, wide)?;
    let by_weight = row_product(builder, inverse, product, weight)?;
    Ok(vec![Some(like(builder, by_data, x)?), Some(by_weight)])
}

/// The product in the dtype of `value`.
fn times(builder: &mut Builder, value: Value, weight: Value) -> Result<Value> {
    let dtype = builder.ty(value)?.dtype;
    let weight = builder.cast(weight, dtype)?;
    builder.mul(value, weight)
}

/// `value` in the dtype of `other`.
fn like(builder: &mut Builder, value: Value, other: Value) -> Result<Value> {
    let dtype = builder.ty(other)?.dtype;
    builder.cast(value, dtype)
}

/// The sum over all rows of `values`, each times its number in `factors`: the gradient of `weight`, which is one row.
///
/// As the product of a row with a matrix, which on the CPU is two to three times as fast as `ReduceSum` over leading axes
/// (5632 x 512, two threads: 0.3 against 0.8 to 1.1 ms) and takes in the factors, else one more pass over the data.
fn row_product(builder: &mut Builder, factors: Value, values: Value, weight: Value) -> Result<Value> {
    let (dims, weight_dims) = (builder.ty(values)?.dims.clone(), builder.ty(weight)?.dims.clone());
    let rows = dims.strip_suffix(weight_dims.as_slice()).and_then(count);
    let sizes: Option<Vec<i64>> = weight_dims.iter().map(fixed).collect();
    let (Some(sizes), true) = (sizes, rows.is_some() && rows == count(&builder.ty(factors)?.dims)) else {
        let product = builder.mul(values, factors)?;
        return like(builder, product, weight);
    };
    let width = sizes.iter().product();
    let (row, rows) = (builder.reshape(factors, &[1, -1])?, builder.reshape(values, &[-1, width])?);
    let product = builder.matmul(row, rows)?;
    let product = builder.reshape(product, &sizes)?;
    like(builder, product, weight)
}

fn fixed(dim: &Dim) -> Option<i64> {
    match dim {
        Dim::Fixed(size) => Some(*size as i64),
        Dim::Symbol(_) | Dim::Unknown => None,
    }
}

/// Axes other than the channels, which are axis 1.
fn but_channels(builder: &Builder, x: Value) -> Result<Vec<i64>> {
    Ok((0..builder.ty(x)?.dims.len() as i64).filter(|axis| *axis != 1).collect())
}

/// One number per channel, in a shape that broadcasts over `x`.
fn per_channel(builder: &mut Builder, numbers: Value, x: Value) -> Result<Value> {
    match builder.ty(x)?.dims.len() as i64 {
        ..=2 => Ok(numbers),
        rank => builder.unsqueeze(numbers, &(1..rank - 1).collect::<Vec<_>>()),
    }
}

fn batch(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    match site.attributes().int("training_mode") {
        Some(1) => batch_in_training(builder, site),
        _ => batch_in_inference(builder, site),
    }
}

/// `y = w r (x - m) + b` with `r = 1 / sqrt(v + epsilon)`: by `v` it is `-w (x - m) r^3 / 2`.
fn batch_in_inference(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, weight, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let axes = but_channels(builder, x)?;
    let inverse = inverse_deviation(builder, site.input(4)?, epsilon(site))?;
    let factor = builder.mul(weight, inverse)?;
    let wide = per_channel(builder, factor, x)?;
    let by_data = builder.mul(gradient, wide)?;
    let by_bias = sum(builder, gradient, &axes, false)?;
    let mean = per_channel(builder, site.input(3)?, x)?;
    let centre = builder.op("Sub", &[x, mean], &[])?;
    let product = builder.mul(gradient, centre)?;
    let along = sum(builder, product, &axes, false)?;
    let by_weight = builder.mul(along, inverse)?;
    let by_mean = builder.mul(by_bias, factor)?;
    let by_mean = builder.op("Neg", &[by_mean], &[])?;
    let square = builder.mul(inverse, inverse)?;
    let by_variance = builder.mul(factor, square)?;
    let by_variance = builder.mul(by_variance, along)?;
    let by_variance = builder.scale(by_variance, -0.5)?;
    Ok(vec![Some(by_data), Some(by_weight), Some(by_bias), Some(by_mean), Some(by_variance)])
}

/// Through the statistics of the batch, and from the running ones, which are `momentum` times the old ones and the rest
/// times those of the batch; the variance is that of the population in both places, in ONNX Runtime as in the
/// specification.
///
/// With `c = x - mean(x)`, `r` the inverse deviation and `n` numbers per channel: `dx = w r (dy - mean(dy)) + k c + l`
/// with `k = -w r^3 mean(c dy) + 2 (1 - momentum) dv / n` and `l = (1 - momentum) dm / n`.
fn batch_in_training(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, weight) = (site.input(0)?, site.input(1)?);
    let axes = but_channels(builder, x)?;
    let momentum = site.attributes().float("momentum").unwrap_or(0.9);
    let centre = centred(builder, x, &axes)?;
    let mut result = vec![None; 5];
    let mut by_data = Vec::new();
    if let Some(gradient) = site.gradients[0] {
        let inverse = inverse_root(builder, centre, &axes, true, epsilon(site))?;
        let wide = per_channel(builder, weight, x)?;
        let scaled = builder.mul(gradient, wide)?;
        let scaled = centred(builder, scaled, &axes)?;
        by_data.push(through_root(builder, centre, inverse, scaled, &axes)?);
        let product = builder.mul(gradient, centre)?;
        let along = sum(builder, product, &axes, true)?;
        let by_weight = builder.mul(along, inverse)?;
        result[1] = Some(builder.reshape(by_weight, &[-1])?);
        result[2] = Some(sum(builder, gradient, &axes, false)?);
    }
    for (index, slope) in [(1, None), (2, Some(centre))] {
        let Some(gradient) = site.gradients.get(index).copied().flatten() else { continue };
        result[index + 2] = Some(builder.scale(gradient, momentum)?);
        let wide = per_channel(builder, gradient, x)?;
        let part = divided_by_count(builder, wide, x, gradient)?;
        let part = builder.scale(part, (1.0 - momentum) * index as f32)?;
        by_data.push(match slope {
            Some(slope) => builder.mul(slope, part)?,
            None => expand_like(builder, part, x)?,
        });
    }
    result[0] = Some(builder.op("Sum", &by_data, &[])?);
    Ok(result)
}

/// Statistics over groups of channels of one sample: all channels of a group, or single ones (instances).
fn grouped(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, weight) = (site.input(0)?, site.input(1)?);
    let groups = site.attributes().int("num_groups").unwrap_or(0);
    let flat = |builder: &mut Builder, value: Value| builder.reshape(value, &[0, groups, -1]);
    let (axes, channels) = ([2], but_channels(builder, x)?);
    let dtype = stash_type(builder.ty(x)?.dtype, site.attributes().int("stash_type"))?;
    let (wide, gradient) = (builder.cast(x, dtype)?, builder.cast(site.gradient()?, dtype)?);
    let centre = flat(builder, wide)?;
    let centre = centred(builder, centre, &axes)?;
    let inverse = inverse_root(builder, centre, &axes, true, epsilon(site))?;
    let channel_weight = per_channel(builder, weight, x)?;
    let scaled = times(builder, gradient, channel_weight)?;
    let scaled = flat(builder, scaled)?;
    let scaled = centred(builder, scaled, &axes)?;
    let by_data = through_root(builder, centre, inverse, scaled, &axes)?;
    let by_data = reshape_like(builder, by_data, x)?;
    let normal = builder.mul(centre, inverse)?;
    let normal = reshape_like(builder, normal, x)?;
    let product = builder.mul(gradient, normal)?;
    let by_weight = sum(builder, product, &channels, false)?;
    let by_bias = sum(builder, gradient, &channels, false)?;
    let results = [by_data, by_weight, by_bias].into_iter();
    results.map(|result| like(builder, result, x).map(Some)).collect()
}
