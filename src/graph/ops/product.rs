//! Matrix products.

use super::dims::{broadcast_dims, compatible};
use super::layout::{producer, transposed};
use super::{Case, Dim, Gradient, Op, Site, Type, Use, one};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Builder, Value};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "MatMul", shape: matmul, gradient: Gradient::Rule(matmul_gradient), cases: matmul_cases },
    Op { name: "Gemm", shape: gemm, gradient: Gradient::Rule(gemm_gradient), cases: gemm_cases },
];

fn matmul_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,3,tokens,4").input("4,6"),
        Case::new().input("batch,3,tokens,4").input("batch,1,4,past"),
        Case::new().input("tokens,4").input("batch,3,4,past"),
        Case::new().input("tokens,4").input("4,6"),
        Case::new().input("4").input("batch,4,6"),
        Case::new().input("batch,tokens,4").input("4"),
        Case::new().input("tokens").input("tokens"),
        Case::new().input("batch,3,tokens,4").input("3,4,6").unknown(),
        Case::new().input("batch,tokens,4").input("4,6").unknown(),
    ]
}

fn gemm_cases() -> Vec<Case> {
    let case = || Case::new().with("alpha", Attribute::Float(0.5)).with("beta", Attribute::Float(2.0));
    vec![
        case().input("tokens,batch").input("batch,200").input("200"),
        case().input("tokens,batch").input("7,batch").input("tokens,1").int("transB", 1),
        case().input("batch,tokens").input("batch,7").input("1,7").int("transA", 1),
        case().input("batch,tokens").input("7,batch").input("").int("transA", 1).int("transB", 1),
        case().input("tokens,4").input("4,6"),
        case().input("tokens,4").input("4,6").input("6").unknown(),
    ]
}

/// As `numpy.matmul`: a vector on the left is a row, one on the right is a column, and neither appears in the result.
fn matmul(site: &Site) -> Result<Vec<Type>> {
    let (a, b) = (site.input(0)?, site.input(1)?);
    let mut left = a.dims.clone();
    let mut right = b.dims.clone();
    if left.len() == 1 {
        left.insert(0, Dim::Fixed(1));
    }
    if right.len() == 1 {
        right.push(Dim::Fixed(1));
    }
    let fits = a.dtype == b.dtype && left.len() >= 2 && right.len() >= 2;
    if !fits || !compatible(&left[left.len() - 1], &right[right.len() - 2]) {
        return Err(Error::internal(format!("{a} cannot be multiplied by {b}")));
    }
    let mut dims = broadcast_dims(&left[..left.len() - 2], &right[..right.len() - 2])?;
    if a.dims.len() > 1 {
        dims.push(left[left.len() - 2].clone());
    }
    if b.dims.len() > 1 {
        dims.push(right[right.len() - 1].clone());
    }
    one(a.dtype, dims)
}

/// `dA = dY B^T`, `dB = A^T dY`, with vectors as rows and columns meanwhile.
fn matmul_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (a, b, mut gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let vector = |builder: &Builder, value| Ok::<_, Error>(builder.ty(value)?.dims.len() == 1);
    let (row, column) = (vector(builder, a)?, vector(builder, b)?);
    let left = if row { builder.unsqueeze(a, &[0])? } else { a };
    let right = if column { builder.unsqueeze(b, &[1])? } else { b };
    if column {
        gradient = builder.unsqueeze(gradient, &[-1])?;
    }
    if row {
        gradient = builder.unsqueeze(gradient, &[-2])?;
    }
    let (mut left, mut right) = factor_gradients(builder, left, right, gradient)?;
    if row {
        let axis = builder.ints(&[-2])?;
        left = builder.op("Squeeze", &[left, axis], &[])?;
    }
    if column {
        let axis = builder.ints(&[-1])?;
        right = builder.op("Squeeze", &[right, axis], &[])?;
    }
    Ok(vec![Some(left), Some(right)])
}

/// The gradients of both factors, which have at least two dimensions each.
fn factor_gradients(builder: &mut Builder, a: Value, b: Value, gradient: Value) -> Result<(Value, Value)> {
    let right = transposed(builder, b)?;
    let left = builder.matmul(gradient, right)?;
    if builder.ty(b)?.dims.len() > 2 || builder.ty(a)?.dims.len() == 2 {
        let a = transposed(builder, a)?;
        return Ok((left, builder.matmul(a, gradient)?));
    }
    // One product over all rows sums over the batch as well, and far faster than products that are summed afterwards.
    let rows = |builder: &mut Builder, value| builder.op("Flatten", &[value], &[("axis", Attribute::Int(-1))]);
    let (a, gradient) = (rows(builder, a)?, rows(builder, gradient)?);
    let a = transposed(builder, a)?;
    Ok((left, builder.matmul(a, gradient)?))
}

/// `(A B)^T = B^T A^T` where `product` is a product of two matrices. A weight that is transposed before it is multiplied
/// gets its gradient in its own layout in this way, and no large matrix is transposed.
pub(super) fn transposed_product(builder: &mut Builder, product: Value) -> Result<Option<Value>> {
    let Some(node) = producer(builder, product).filter(|node| node.op == "MatMul") else { return Ok(None) };
    let (Some(Some(a)), Some(Some(b))) = (node.inputs.first().copied(), node.inputs.get(1).copied()) else {
        return Ok(None);
    };
    if builder.ty(a)?.dims.len() != 2 || builder.ty(b)?.dims.len() != 2 {
        return Ok(None);
    }
    let (left, right) = (transposed(builder, b)?, transposed(builder, a)?);
    builder.matmul(left, right).map(Some)
}

fn gemm(site: &Site) -> Result<Vec<Type>> {
    let (a, b) = (site.input(0)?, site.input(1)?);
    let matrices = a.dims.len() == 2 && b.dims.len() == 2;
    let flag = |name| usize::from(site.int(name).unwrap_or(0) != 0);
    let (across, down) = (flag("transA"), flag("transB"));
    if !matrices || a.dtype != b.dtype || !compatible(&a.dims[1 - across], &b.dims[down]) {
        return Err(Error::internal(format!("{a} cannot be multiplied by {b}")));
    }
    let dims = vec![a.dims[across].clone(), b.dims[1 - down].clone()];
    if let Some(c) = site.optional(2) {
        broadcast_dims(&c.dims, &dims)?;
    }
    one(a.dtype, dims)
}

/// `Y = alpha A' B' + beta C`: `dA' = alpha dY B'^T`, `dB' = alpha A'^T dY`, `dC = beta dY`.
fn gemm_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (a, b, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let flag = |name| i64::from(site.attributes().int(name).unwrap_or(0) != 0);
    let (across, down) = (flag("transA"), flag("transB"));
    let alpha = site.attributes().float("alpha").unwrap_or(1.0);
    let mut product = |left: (Value, i64), right: (Value, i64)| {
        let attributes = [
            ("alpha", Attribute::Float(alpha)),
            ("transA", Attribute::Int(left.1)),
            ("transB", Attribute::Int(right.1)),
        ];
        builder.op("Gemm", &[left.0, right.0], &attributes)
    };
    let left = match across {
        0 => product((gradient, 0), (b, 1 - down))?,
        _ => product((b, down), (gradient, 1))?,
    };
    let right = match down {
        0 => product((a, 1 - across), (gradient, 0))?,
        _ => product((gradient, 1), (a, across))?,
    };
    let bias = match site.optional(2) {
        Some(bias) => Some(bias_gradient(builder, site, bias)?),
        None => None,
    };
    Ok(vec![Some(left), Some(right), bias])
}

/// `beta dY`, summed over the rows as a product with ones where there is one bias per column: on two threads three times
/// as fast as `ReduceSum` at `[5000, 512]`.
fn bias_gradient(builder: &mut Builder, site: &Use, bias: Value) -> Result<Value> {
    let gradient = site.gradient()?;
    let beta = site.attributes().float("beta").unwrap_or(1.0);
    let columns = &builder.ty(gradient)?.dims[1];
    let leading = match builder.ty(bias)?.dims.as_slice() {
        [own] if own == columns && *own != Dim::Unknown => Some(0),
        [Dim::Fixed(1), own] if own == columns && *own != Dim::Unknown => Some(1),
        _ => None,
    };
    let Some(leading) = leading else {
        return if beta == 1.0 { Ok(gradient) } else { builder.scale(gradient, beta) };
    };
    let dtype = builder.ty(gradient)?.dtype;
    let one = builder.float(beta, dtype)?;
    let shape = builder.op("Shape", &[gradient], &[("end", Attribute::Int(1))])?;
    let ones = builder.op("Expand", &[one, shape], &[])?;
    let ones = if leading == 1 { builder.unsqueeze(ones, &[0])? } else { ones };
    builder.matmul(ones, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Type, gradients};
    use crate::tensor::DType;

    /// The weight of a linear layer gets its gradient as one product in its own layout.
    #[test]
    fn a_transposed_weight_costs_no_transposed_gradient() {
        let mut builder = Builder::new("linear");
        let dims = |text: &[&str]| text.iter().map(|dim| Dim::from(*dim)).collect::<Vec<_>>();
        let x = builder.input("x", Type::new(DType::F32, dims(&["batch", "tokens", "width"]))).unwrap();
        let weight = builder.input("weight", Type::new(DType::F32, dims(&["out", "width"]))).unwrap();
        let columns = builder.transpose(weight, &[1, 0]).unwrap();
        let y = builder.matmul(x, columns).unwrap();
        let loss = builder.op("ReduceSum", &[y], &[("keepdims", Attribute::Int(0))]).unwrap();
        let found = gradients(&mut builder, loss, &[x, weight], &[]).unwrap();
        let made_by = |value: Value| producer(&builder, value).unwrap();
        let rows = |value: Value| made_by(value).op == "Flatten";
        let [Some(of_y), Some(of_x)] = made_by(found[1].unwrap()).inputs[..] else { panic!("no product") };
        let [Some(flat_y)] = made_by(of_y).inputs[..] else { panic!("no transposed gradient") };
        assert!(rows(of_x) && rows(flat_y));
        assert_eq!(made_by(found[0].unwrap()).inputs[1], Some(weight));
    }
}
