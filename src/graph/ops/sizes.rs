//! Operators that make sizes, ranges and constants.

use super::{Case, Dim, Gradient, Op, Site, Type, one};
use crate::error::{Error, Result};
use crate::graph::Attribute;
use crate::tensor::{DType, Tensor};

const SIZES: Gradient = Gradient::Zero { why: "sizes do not change with the values" };
const COUNTED: Gradient = Gradient::Zero { why: "it is made of integers, or the same for every input" };

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Shape", shape: shape_of, gradient: SIZES, cases: shape_cases },
    Op { name: "Size", shape: size_of, gradient: SIZES, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op { name: "ConstantOfShape", shape: constant_of_shape, gradient: SIZES, cases: constant_of_shape_cases },
    Op { name: "Range", shape: range, gradient: COUNTED, cases: range_cases },
    Op { name: "Constant", shape: constant, gradient: COUNTED, cases: constant_cases },
];

fn shape_cases() -> Vec<Case> {
    vec![Case::new().input("batch,tokens,4"), Case::new().input("batch,tokens,4").int("start", -2).int("end", 2)]
}

fn shape_of(site: &Site) -> Result<Vec<Type>> {
    let rank = site.input(0)?.dims.len() as i64;
    let at = |name: &str, default: i64| {
        let at = site.int(name).unwrap_or(default);
        (if at < 0 { at + rank } else { at }).clamp(0, rank)
    };
    one(DType::I64, vec![Dim::Fixed((at("end", rank) - at("start", 0)).max(0) as usize)])
}

fn size_of(_: &Site) -> Result<Vec<Type>> {
    one(DType::I64, Vec::new())
}

fn constant_of_shape_cases() -> Vec<Case> {
    vec![
        Case::new().ints(&[2, 3]),
        Case::new().ints(&[4]).with("value", Attribute::Tensor(Tensor::vector(vec![7i64]))),
        Case::new().ints(&[]),
    ]
}

fn constant_of_shape(site: &Site) -> Result<Vec<Type>> {
    let dtype = site.tensor("value").map_or(DType::F32, Tensor::dtype);
    if let Some(shape) = site.constant(0) {
        return one(dtype, shape.values::<i64>()?.iter().map(|size| Dim::Fixed(*size as usize)).collect());
    }
    match site.input(0)?.dims.as_slice() {
        [Dim::Fixed(rank)] => one(dtype, vec![Dim::Unknown; *rank]),
        _ => Err(Error::internal("the number of dimensions to make is not known")),
    }
}

fn range_cases() -> Vec<Case> {
    let number = Tensor::scalar::<i64>;
    vec![
        Case::new().constant(number(7)).constant(number(-2)).constant(number(-2)),
        Case::new().input("i1:").input("i9:").constant(number(1)),
    ]
}

fn range(site: &Site) -> Result<Vec<Type>> {
    let mut known = Vec::with_capacity(3);
    for index in 0..3 {
        known.push(site.constant(index).and_then(|value| value.values::<i64>().ok()?.first().copied()));
    }
    let length = match known.as_slice() {
        [Some(start), Some(limit), Some(step)] if *step != 0 => {
            let (distance, step) = if *step > 0 { (limit - start, *step) } else { (start - limit, -step) };
            Dim::Fixed((distance.max(0) as u64).div_ceil(step as u64) as usize)
        }
        _ => Dim::Unknown,
    };
    one(site.input(0)?.dtype, vec![length])
}

fn constant_cases() -> Vec<Case> {
    vec![
        Case::new().with("value", Attribute::Tensor(Tensor::vector(vec![1i64, 2]))),
        Case::new().with("value_float", Attribute::Float(1.5)),
        Case::new().int_list("value_ints", &[1, 2, 3]),
    ]
}

fn constant(site: &Site) -> Result<Vec<Type>> {
    let (dtype, dims) = match site.attributes.0.iter().find(|(name, _)| name.starts_with("value")) {
        Some((_, Attribute::Tensor(tensor))) => return Ok(vec![Type::of(tensor)]),
        Some((_, Attribute::Int(_))) => (DType::I64, vec![]),
        Some((_, Attribute::Float(_))) => (DType::F32, vec![]),
        Some((_, Attribute::Ints(values))) => (DType::I64, vec![Dim::Fixed(values.len())]),
        Some((_, Attribute::Floats(values))) => (DType::F32, vec![Dim::Fixed(values.len())]),
        _ => return Err(Error::input("its value is neither a dense tensor nor numbers")),
    };
    one(dtype, dims)
}
