//! Pooling: maxima and means of windows.

use super::convolution::{Slide, slides, spatial_shape, spread};
use super::layout::{reshape_like, zeros_like};
use super::{Attribute, Builder, Case, Dim, Gradient, Op, Site, Tensor, Type, Use, Value, expand_like, one};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "MaxPool", shape: max_pool, gradient: Gradient::Rule(max_gradient), cases: max_cases },
    Op { name: "AveragePool", shape: average_pool, gradient: Gradient::Rule(average_gradient), cases: average_cases },
    Op {
        name: "GlobalMaxPool",
        shape: global_pool,
        gradient: Gradient::Rule(global_max_gradient),
        cases: || vec![Case::new().input("~:batch,3,4,3"), Case::new().input("~:batch,4,tokens").unknown()],
    },
    Op {
        name: "GlobalAveragePool",
        shape: global_pool,
        gradient: Gradient::Rule(global_mean_gradient),
        cases: || vec![Case::new().input("batch,3,16,15"), Case::new().input("batch,3,tokens").unknown()],
    },
];

/// Windows of several kinds over an image of `fill`ed numbers.
fn pooled(fill: &str) -> Vec<Case> {
    let image =
        |dims: &str, kernel: &[i64]| Case::new().input(&format!("{fill}{dims}")).int_list("kernel_shape", kernel);
    vec![
        image("batch,3,16,15", &[3, 3]).int_list("strides", &[2, 2]).int_list("pads", &[1, 1, 1, 1]),
        image("batch,3,9,10", &[3, 2]).int_list("strides", &[2, 3]).int_list("pads", &[1, 0, 0, 1]).int("ceil_mode", 1),
        image("batch,3,10,9", &[2, 3]).int_list("dilations", &[3, 2]),
        image("batch,3,10", &[3]).int_list("strides", &[2]).with("auto_pad", Attribute::Text("SAME_UPPER".to_owned())),
        image("batch,3,tokens", &[3]).int_list("pads", &[1, 1]),
        image("batch,3,tokens,past", &[2, 2]).int_list("strides", &[3, 2]).int_list("pads", &[1, 0, 0, 1]).unknown(),
    ]
}

fn max_cases() -> Vec<Case> {
    pooled("~:")
}

fn average_cases() -> Vec<Case> {
    let padded = |case: Case| case.int("count_include_pad", 1);
    pooled("").into_iter().chain(pooled("").into_iter().map(padded)).collect()
}

/// How the window moves over each spatial axis of an input.
fn windows(attributes: super::Attributes, input: &Type) -> Result<Vec<Slide>> {
    let kernel = attributes.int_list("kernel_shape").ok_or_else(|| Error::internal("`kernel_shape` is missing"))?;
    if input.dims.len() < 3 || kernel.len() != input.dims.len() - 2 {
        return Err(Error::internal(format!("windows of {kernel:?} do not fit {input}")));
    }
    slides(attributes, &input.dims[2..], kernel)
}

fn average_pool(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let mut dims = input.dims[..2.min(input.dims.len())].to_vec();
    for (slide, size) in windows(site.attributes, input)?.iter().zip(&input.dims[2..]) {
        dims.push(slide.windows(size)?);
    }
    one(input.dtype, dims)
}

fn max_pool(site: &Site) -> Result<Vec<Type>> {
    let mut types = average_pool(site)?;
    if site.outputs > 1 {
        types.push(Type { dtype: DType::I64, dims: types[0].dims.clone() });
    }
    Ok(types)
}

/// Adds `updates` to zeros of the shape of `x`, at `indices` along the last axis of `x` reshaped to `shape`.
fn scatter(builder: &mut Builder, x: Value, shape: &[i64], indices: Value, updates: Value) -> Result<Value> {
    let flat = builder.reshape(x, shape)?;
    let zeros = zeros_like(builder, flat)?;
    let (indices, updates) = (builder.reshape(indices, shape)?, builder.reshape(updates, shape)?);
    let attributes =
        [("axis", Attribute::Int(shape.len() as i64 - 1)), ("reduction", Attribute::Text("add".to_owned()))];
    let sums = builder.op("ScatterElements", &[zeros, indices, updates], &attributes)?;
    reshape_like(builder, sums, x)
}

/// The gradient of each window belongs to its largest element, which the operator's second result points at as a position
/// in the whole tensor.
fn max_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    if site.attributes().int("storage_order").unwrap_or(0) != 0 {
        return Err(Error::input("`MaxPool` that counts positions by columns (`storage_order` 1) is not supported"));
    }
    let (gradient, indices) = (site.gradient()?, builder.optional_output(site.node, 1)?);
    Ok(vec![Some(scatter(builder, site.input(0)?, &[-1], indices, gradient)?)])
}

/// The gradient of each mean, divided by the number of its elements, is added to each of these.
fn average_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let x = site.input(0)?;
    let x_type = builder.ty(x)?.clone();
    let mut slides = windows(site.attributes(), &x_type)?;
    let share = shares(builder, site, &slides)?;
    for (slide, size) in slides.iter_mut().zip(&x_type.dims[2..]) {
        let (before, after) = slide.pads()?;
        // A window may end past the padding.
        if let (Dim::Fixed(count), Dim::Fixed(size)) = (slide.windows(size)?, size) {
            let end = (count as i64 - 1) * slide.stride + slide.reach();
            slide.pads = Some((before, after.max(end - before - *size as i64)));
        }
    }
    let shape = spatial_shape(builder, share)?;
    let leading = builder.ints(&[-1, 1])?;
    let shape = builder.concat(&[leading, shape], 0)?;
    let dims = [Dim::Unknown, Dim::Fixed(1)].into_iter().chain(builder.ty(share)?.dims[2..].iter().cloned());
    let channels = Type::new(x_type.dtype, dims.collect::<Vec<_>>());
    let share = builder.op("Reshape", &[share, shape], &[])?;
    builder.assume(share, channels);
    let one = builder.float(1.0, x_type.dtype)?;
    let kernel: Vec<i64> = [1, 1].into_iter().chain(slides.iter().map(|slide| slide.kernel)).collect();
    let kernel = builder.ints(&kernel)?;
    let kernel = builder.op("Expand", &[one, kernel], &[])?;
    let sums = spread(builder, (share, kernel), x, &slides, 1)?;
    Ok(vec![Some(reshape_like(builder, sums, x)?)])
}

/// The gradient of each mean divided by the number of its elements.
fn shares(builder: &mut Builder, site: &Use, slides: &[Slide]) -> Result<Value> {
    let (x, mut gradient) = (site.input(0)?, site.gradient()?);
    let ty = builder.ty(x)?.clone();
    let padded = site.attributes().int("count_include_pad").unwrap_or(0) != 0;
    let unknown = |(slide, size): &(&Slide, &Dim)| !matches!(size, Dim::Fixed(_)) && (!padded || slide.ceil);
    if let Some((slide, _)) = slides.iter().zip(&ty.dims[2..]).find(unknown) {
        if slide.ceil {
            return Err(Error::input("`AveragePool` with `ceil_mode` over a size that is not known is not supported")
                .hint("export the model with fixed image sizes"));
        }
        let counts = element_counts(builder, site, slides)?;
        return builder.op("Div", &[gradient, counts], &[]);
    }
    for (axis, (slide, size)) in slides.iter().zip(&ty.dims[2..]).enumerate() {
        let factors = match size {
            Dim::Fixed(size) => axis_shares(slide, *size as i64, padded)?,
            _ => vec![1.0 / slide.kernel as f32],
        };
        let mut shape = vec![1; slides.len() - axis];
        shape[0] = factors.len();
        let factors = builder.constant(Tensor::new(shape, factors)?)?;
        let factors = builder.cast(factors, ty.dtype)?;
        gradient = builder.mul(gradient, factors)?;
    }
    Ok(gradient)
}

/// One over the number of elements that each window along an axis of `size` elements counts.
fn axis_shares(slide: &Slide, size: i64, padded: bool) -> Result<Vec<f32>> {
    let (before, after) = slide.pads()?;
    let (first, end) = if padded { (-before, size + after) } else { (0, size) };
    let Dim::Fixed(windows) = slide.windows(&Dim::Fixed(size as usize))? else { return Ok(Vec::new()) };
    let count = |window: i64| {
        let position = |tap: i64| window * slide.stride - before + tap * slide.dilation;
        (0..slide.kernel).filter(|tap| (first..end).contains(&position(*tap))).count()
    };
    Ok((0..windows as i64).map(|window| 1.0 / count(window) as f32).collect())
}

/// The number of elements that each window counts, padding aside: the window's size times the mean of ones and, for the
/// padding, zeros.
fn element_counts(builder: &mut Builder, site: &Use, slides: &[Slide]) -> Result<Value> {
    let x = site.input(0)?;
    let ty = builder.ty(x)?.clone();
    let (spatial, leading) = (spatial_shape(builder, x)?, builder.ints(&[1, 1])?);
    let shape = builder.concat(&[leading, spatial], 0)?;
    let one = builder.float(1.0, ty.dtype)?;
    let ones = builder.op("Expand", &[one, shape], &[])?;
    let dims = [Dim::Fixed(1), Dim::Fixed(1)].into_iter().chain(ty.dims[2..].iter().cloned());
    builder.assume(ones, Type::new(ty.dtype, dims.collect::<Vec<_>>()));
    let mut attributes: Vec<(&str, Attribute)> =
        site.node.attributes.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    attributes.retain(|(name, _)| *name != "count_include_pad");
    attributes.push(("count_include_pad", Attribute::Int(1)));
    let means = builder.op("AveragePool", &[ones], &attributes)?;
    builder.scale(means, slides.iter().map(|slide| slide.kernel as f32).product())
}

fn global_pool(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    if input.dims.len() < 3 {
        return Err(Error::internal(format!("{input} has no spatial dimensions")));
    }
    let kept = |(axis, dim): (usize, &Dim)| if axis < 2 { dim.clone() } else { Dim::Fixed(1) };
    one(input.dtype, input.dims.iter().enumerate().map(kept).collect())
}

/// The gradient belongs to the first of the largest elements.
fn global_max_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let x = site.input(0)?;
    let flat = builder.reshape(x, &[0, 0, -1])?;
    let largest = builder.op("ArgMax", &[flat], &[("axis", Attribute::Int(2)), ("keepdims", Attribute::Int(1))])?;
    Ok(vec![Some(scatter(builder, x, &[0, 0, -1], largest, site.gradient()?)?)])
}

/// The gradient of a mean belongs to its elements in equal parts.
fn global_mean_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, gradient) = (site.input(0)?, site.gradient()?);
    let dtype = builder.ty(x)?.dtype;
    let (all, means) = (builder.op("Size", &[x], &[])?, builder.op("Size", &[gradient], &[])?);
    let count = builder.op("Div", &[all, means], &[])?;
    let count = builder.cast(count, DType::F32)?;
    let share = builder.op("Reciprocal", &[count], &[])?;
    let share = builder.cast(share, dtype)?;
    let gradient = builder.mul(gradient, share)?;
    Ok(vec![Some(expand_like(builder, gradient, x)?)])
}
