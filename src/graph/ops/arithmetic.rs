//! Elementwise arithmetic.

use super::dims::broadcast_dims;
use super::{Case, Gradient, OPEN, Op, Site, Type, Use, one, same};
use crate::error::{Error, Result};
use crate::graph::{Builder, Value};
use crate::tensor::DType;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op {
        name: "Add",
        shape: broadcast,
        gradient: Gradient::Rule(add),
        cases: || vec![Case::new().input("batch,1,4").input("tokens,4")],
    },
    Op {
        name: "Sub",
        shape: broadcast,
        gradient: Gradient::Rule(subtract),
        cases: || vec![Case::new().input("batch,1,4").input("tokens,4")],
    },
    Op {
        name: "Mul",
        shape: broadcast,
        gradient: Gradient::Rule(multiply),
        cases: || vec![Case::new().input("batch,1,4").input("tokens,4")],
    },
    Op {
        name: "Div",
        shape: broadcast,
        gradient: OPEN,
        cases: || vec![Case::new().input("batch,tokens,4").input("+:batch,1,4")],
    },
    Op {
        name: "Pow",
        shape: broadcast,
        gradient: OPEN,
        cases: || vec![Case::new().input("+:batch,tokens,4").input("1")],
    },
    Op {
        name: "Max",
        shape: broadcast,
        gradient: OPEN,
        cases: || vec![Case::new().input("~:batch,tokens,4").input("4")],
    },
    Op {
        name: "Min",
        shape: broadcast,
        gradient: OPEN,
        cases: || vec![Case::new().input("~:batch,tokens,4").input("4")],
    },
    Op {
        name: "Where",
        shape: select,
        gradient: OPEN,
        cases: || vec![Case::new().input("b:batch,1,tokens").input("4,1").input("1")],
    },
    Op {
        name: "Identity",
        shape: same,
        gradient: Gradient::Rule(pass),
        cases: || vec![Case::new().input("batch,tokens,4")],
    },
    Op {
        name: "Neg",
        shape: same,
        gradient: Gradient::Rule(negate),
        cases: || vec![Case::new().input("batch,tokens,4")],
    },
    Op { name: "Exp", shape: same, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op { name: "Log", shape: same, gradient: OPEN, cases: || vec![Case::new().input("+:batch,tokens,4")] },
    Op { name: "Sqrt", shape: same, gradient: OPEN, cases: || vec![Case::new().input("+:batch,tokens,4")] },
    Op { name: "Reciprocal", shape: same, gradient: OPEN, cases: || vec![Case::new().input("+:batch,tokens,4")] },
    Op { name: "Sin", shape: same, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op { name: "Cos", shape: same, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens,4")] },
    Op { name: "Cast", shape: cast, gradient: OPEN, cases: || vec![Case::new().input("batch,tokens,4").int("to", 10)] },
];

pub(super) fn broadcast(site: &Site) -> Result<Vec<Type>> {
    let first = site.input(0)?;
    let mut dims = first.dims.clone();
    for index in 1..site.inputs.len() {
        let other = site.input(index)?;
        if other.dtype != first.dtype {
            return Err(Error::internal(format!("inputs are {first} and {other}")));
        }
        dims = broadcast_dims(&dims, &other.dims)?;
    }
    one(first.dtype, dims)
}

fn select(site: &Site) -> Result<Vec<Type>> {
    let (condition, yes, no) = (site.input(0)?, site.input(1)?, site.input(2)?);
    if condition.dtype != DType::Bool || yes.dtype != no.dtype {
        return Err(Error::internal(format!("inputs are {condition}, {yes} and {no}")));
    }
    one(yes.dtype, broadcast_dims(&condition.dims, &broadcast_dims(&yes.dims, &no.dims)?)?)
}

fn cast(site: &Site) -> Result<Vec<Type>> {
    let to = site.int("to").ok_or_else(|| Error::internal("`Cast` lacks its attribute `to`"))?;
    one(crate::graph::protobuf::dtype_from_onnx(to)?, site.input(0)?.dims.clone())
}

/// `d(a + b) = da + db`.
fn add(_: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = site.gradient()?;
    Ok(vec![Some(gradient); 2])
}

/// `d(a - b) = da - db`.
fn subtract(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = site.gradient()?;
    Ok(vec![Some(gradient), Some(builder.op("Neg", &[gradient], &[])?)])
}

/// `d(a b) = b da + a db`.
fn multiply(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (a, b, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    Ok(vec![Some(builder.mul(gradient, b)?), Some(builder.mul(gradient, a)?)])
}

/// `d(-a) = -da`.
fn negate(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(builder.op("Neg", &[site.gradient()?], &[])?)])
}

fn pass(_: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(site.gradient()?)])
}
