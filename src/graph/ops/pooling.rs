//! Pooling.

use super::convolution::{Window, cut_like, spread};
use super::layout::{collect, fixed, sizes};
use super::{Case, Dim, Gradient, Op, Site, Type, Use, expand_like, one};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Builder, Value};
use crate::tensor::DType;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "MaxPool", shape: pool, gradient: Gradient::Rule(max_pool_gradient), cases: max_pool_cases },
    Op { name: "AveragePool", shape: pool, gradient: Gradient::Rule(average_pool_gradient), cases: average_pool_cases },
    Op {
        name: "GlobalAveragePool",
        shape: global_pool,
        gradient: Gradient::Rule(global_average_gradient),
        cases: global_cases,
    },
    Op {
        name: "GlobalMaxPool",
        shape: global_pool,
        gradient: Gradient::Rule(global_max_gradient),
        cases: global_cases,
    },
];

fn max_pool_cases() -> Vec<Case> {
    let square = || Case::new().input("~:batch,4,12,10").int_list("kernel_shape", &[3, 3]);
    vec![
        square().int_list("strides", &[2, 2]).int_list("pads", &[1, 1, 1, 1]),
        square().int_list("strides", &[2, 3]).int("ceil_mode", 1),
        square().int_list("dilations", &[2, 1]).unknown(),
        Case::new().input("~:batch,4,tokens").int_list("kernel_shape", &[2]).int_list("strides", &[2]),
    ]
}

fn average_pool_cases() -> Vec<Case> {
    let square = || Case::new().input("batch,4,12,10").int_list("kernel_shape", &[3, 3]);
    let padded = || square().int_list("strides", &[2, 2]).int_list("pads", &[1, 0, 1, 1]);
    vec![
        padded(),
        padded().int("count_include_pad", 1),
        padded().int("ceil_mode", 1).unknown(),
        square().int_list("strides", &[2, 4]).int("ceil_mode", 1).int("count_include_pad", 1),
        square().int_list("strides", &[3, 3]),
        square().int_list("dilations", &[2, 1]),
        Case::new().input("batch,4,tokens").int_list("kernel_shape", &[2]),
    ]
}

fn global_cases() -> Vec<Case> {
    vec![Case::new().input("~:batch,4,12,10"), Case::new().input("~:batch,4,tokens").unknown()]
}

fn window(attributes: super::Attributes, input: &Type) -> Result<Window> {
    let kernel = attributes.int_list("kernel_shape");
    let kernel = kernel.ok_or_else(|| Error::internal("the attribute `kernel_shape` is missing"))?;
    Window::new(attributes, input, kernel.to_vec())
}

fn pool(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let window = window(site.attributes, input)?;
    let mut dims = input.dims[..2].to_vec();
    for (axis, size) in input.dims[2..].iter().enumerate() {
        dims.push(window.positions(axis, size)?);
    }
    let indices = Type { dtype: DType::I64, dims: dims.clone() };
    let mut types = one(input.dtype, dims)?;
    if site.outputs > 1 {
        types.push(indices);
    }
    Ok(types)
}

/// The gradients go to the largest elements, which the operator numbers over the whole input.
fn max_pool_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    if site.attributes().int("storage_order").unwrap_or(0) != 0 {
        return Err(Error::input("no gradient for indices in column-major order"));
    }
    let numbers = builder.optional_output(site.node, 1)?;
    Ok(vec![Some(collect(builder, site.gradient()?, numbers, site.input(0)?)?)])
}

/// Each gradient is spread evenly over the elements of its window. Channels are taken as part of the batch.
fn average_pool_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, gradient) = (site.input(0)?, site.gradient()?);
    let (ty, dtype) = (builder.ty(x)?.clone(), builder.ty(x)?.dtype);
    let window = window(site.attributes(), &ty)?;
    let share = match even(site, &window) {
        true => builder.scale(gradient, 1.0 / window.kernel.iter().product::<i64>() as f32)?,
        false => {
            let count = window_sizes(builder, site, &window)?;
            builder.op("Div", &[gradient, count], &[])?
        }
    };
    let ones = ones(builder, &window, dtype)?;
    let single = |builder: &mut Builder, value: Value| {
        let ty = builder.ty(value)?.clone();
        let (front, space) = (builder.ints(&[-1, 1])?, sizes(builder, value, 2, ty.dims.len())?);
        let shape = builder.concat(&[front, space], 0)?;
        let single = builder.op("Reshape", &[value, shape], &[])?;
        let mut dims = ty.dims;
        dims.splice(..2, [Dim::Unknown, Dim::Fixed(1)]);
        builder.assume(single, Type { dtype: ty.dtype, dims });
        Ok::<_, Error>(single)
    };
    let (share, like) = (single(builder, share)?, single(builder, x)?);
    let spread = spread(builder, share, ones, (&window, 1), like)?;
    Ok(vec![Some(super::layout::reshape_like(builder, spread, x)?)])
}

/// Whether every window has all its elements.
fn even(site: &Use, window: &Window) -> bool {
    let padded = window.pads.iter().any(|pad| *pad != 0);
    let counted = site.attributes().int("count_include_pad").unwrap_or(0) != 0;
    !window.ceil && (counted || !padded)
}

/// A kernel of ones for one channel.
fn ones(builder: &mut Builder, window: &Window, dtype: DType) -> Result<Value> {
    let one = builder.float(1.0, dtype)?;
    let shape: Vec<i64> = [1, 1].into_iter().chain(window.kernel.iter().copied()).collect();
    let shape = builder.ints(&shape)?;
    builder.op("Expand", &[one, shape], &[])
}

/// The number of elements of each window: a field of ones is convolved with ones.
fn window_sizes(builder: &mut Builder, site: &Use, window: &Window) -> Result<Value> {
    let (x, result) = (site.input(0)?, site.output(0)?);
    let (axes, dtype) = (window.axes(), builder.ty(x)?.dtype);
    let mut window = Window { ceil: false, ..window.clone() };
    let mut space = sizes(builder, x, 2, axes + 2)?;
    if site.attributes().int("count_include_pad").unwrap_or(0) != 0 {
        let margins: Vec<i64> = (0..axes).map(|axis| window.pads[axis] + window.pads[axis + axes]).collect();
        let margins = builder.ints(&margins)?;
        space = builder.add(space, margins)?;
        window.pads = vec![0; 2 * axes];
    }
    if site.attributes().int("ceil_mode").unwrap_or(0) != 0 {
        for axis in 0..axes {
            window.pads[axis + axes] += window.strides[axis] - 1;
        }
    }
    let front = builder.ints(&[1, 1])?;
    let shape = builder.concat(&[front, space], 0)?;
    let one = builder.float(1.0, dtype)?;
    let field = builder.op("Expand", &[one, shape], &[])?;
    let mut dims = vec![Dim::Fixed(1); 2];
    dims.extend(vec![Dim::Unknown; axes]);
    builder.assume(field, Type { dtype, dims: dims.clone() });
    let ones = ones(builder, &window, dtype)?;
    let counts = builder.op("Conv", &[field, ones], &window.attributes())?;
    let counts = cut_like(builder, counts, result)?;
    dims.splice(2.., builder.ty(result)?.dims[2..].to_vec());
    builder.assume(counts, Type { dtype, dims });
    Ok(counts)
}

fn global_pool(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    let mut dims = input.dims.clone();
    dims.iter_mut().skip(2).for_each(|dim| *dim = Dim::Fixed(1));
    one(input.dtype, dims)
}

/// Each element has an equal share.
fn global_average_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, gradient) = (site.input(0)?, site.gradient()?);
    let ty = builder.ty(x)?.clone();
    let share = match ty.dims[2..].iter().map(fixed).product::<Option<i64>>() {
        Some(elements) => builder.scale(gradient, 1.0 / elements as f32)?,
        None => {
            let (all, means) = (builder.op("Size", &[x], &[])?, builder.op("Size", &[gradient], &[])?);
            let elements = builder.op("Div", &[all, means], &[])?;
            let elements = builder.cast(elements, ty.dtype)?;
            builder.op("Div", &[gradient, elements], &[])?
        }
    };
    Ok(vec![Some(expand_like(builder, share, x)?)])
}

/// The largest elements have the gradient, equal ones a share each.
fn global_max_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, largest, gradient) = (site.input(0)?, site.output(0)?, site.gradient()?);
    let ty = builder.ty(x)?.clone();
    let marks = builder.op("Equal", &[x, largest], &[])?;
    let marks = builder.cast(marks, ty.dtype)?;
    let axes = builder.ints(&(2..ty.dims.len() as i64).collect::<Vec<_>>())?;
    let number = builder.op("ReduceSum", &[marks, axes], &[("keepdims", Attribute::Int(1))])?;
    let share = builder.op("Div", &[gradient, number], &[])?;
    Ok(vec![Some(builder.mul(marks, share)?)])
}
