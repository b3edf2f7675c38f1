//! The operators that models are built from: one row per operator with its shape rule.
//!
//! Source of every rule: the ONNX operator specification at opset 23.

mod shapes;

use super::{Attribute, Dim, Type};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// One ONNX operator.
pub struct Op {
    /// Its name in the ONNX specification.
    pub name: &'static str,
    /// Types of its results, from a use of it.
    pub shape: fn(&Site) -> Result<Vec<Type>>,
}

/// A use of an operator: the types of its inputs, those inputs that are constants, and its attributes.
pub struct Site<'a> {
    /// Name of the operator.
    pub op: &'a str,
    /// Types of the inputs; `None` where an optional input is left out.
    pub inputs: Vec<Option<&'a Type>>,
    /// Values of the inputs that are constants inside the graph.
    pub constants: Vec<Option<&'a Tensor>>,
    /// Attributes by name.
    pub attributes: &'a [(String, Attribute)],
}

impl<'a> Site<'a> {
    /// Type of a required input.
    pub fn input(&self, index: usize) -> Result<&'a Type> {
        self.inputs
            .get(index)
            .copied()
            .flatten()
            .ok_or_else(|| Error::internal(format!("`{}` lacks input {index}", self.op)))
    }

    /// Values of an integer input that must be a constant.
    pub fn ints(&self, index: usize) -> Result<&'a [i64]> {
        let constant = self.constants.get(index).copied().flatten();
        constant
            .ok_or_else(|| Error::internal(format!("input {index} of `{}` is not a constant", self.op)))?
            .values::<i64>()
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attributes.iter().find(|(key, _)| key == name).and_then(|(_, value)| match value {
            Attribute::Int(value) => Some(*value),
            _ => None,
        })
    }

    /// An attribute that is a list of integers.
    pub fn int_list(&self, name: &str) -> Option<&'a [i64]> {
        self.attributes.iter().find(|(key, _)| key == name).and_then(|(_, value)| match value {
            Attribute::Ints(values) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// The axis attribute, counted from the front of `rank` dimensions.
    pub fn axis(&self, rank: usize, default: i64) -> Result<usize> {
        normalise_axis(self.int("axis").unwrap_or(default), rank)
    }
}

/// An axis counted from the front; negative ones count from the back.
pub(super) fn normalise_axis(axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(from_front) {
        Ok(index) if index < rank => Ok(index),
        _ => Err(Error::internal(format!("axis {axis} is outside of {rank} dimensions"))),
    }
}

/// The row of an operator.
pub fn find(name: &str) -> Option<&'static Op> {
    OPS.iter().find(|op| op.name == name)
}

/// Every operator with a shape rule, by kind and name.
pub static OPS: &[Op] = &[
    Op { name: "Add", shape: shapes::broadcast },
    Op { name: "Sub", shape: shapes::broadcast },
    Op { name: "Mul", shape: shapes::broadcast },
    Op { name: "Div", shape: shapes::broadcast },
    Op { name: "Pow", shape: shapes::broadcast },
    Op { name: "Max", shape: shapes::broadcast },
    Op { name: "Min", shape: shapes::broadcast },
    Op { name: "And", shape: shapes::broadcast },
    Op { name: "Or", shape: shapes::broadcast },
    Op { name: "Equal", shape: shapes::comparison },
    Op { name: "Less", shape: shapes::comparison },
    Op { name: "LessOrEqual", shape: shapes::comparison },
    Op { name: "Greater", shape: shapes::comparison },
    Op { name: "GreaterOrEqual", shape: shapes::comparison },
    Op { name: "Where", shape: shapes::select },
    Op { name: "Identity", shape: shapes::same },
    Op { name: "Neg", shape: shapes::same },
    Op { name: "Not", shape: shapes::same },
    Op { name: "Exp", shape: shapes::same },
    Op { name: "Log", shape: shapes::same },
    Op { name: "Sqrt", shape: shapes::same },
    Op { name: "Reciprocal", shape: shapes::same },
    Op { name: "Sin", shape: shapes::same },
    Op { name: "Cos", shape: shapes::same },
    Op { name: "Tanh", shape: shapes::same },
    Op { name: "Sigmoid", shape: shapes::same },
    Op { name: "Erf", shape: shapes::same },
    Op { name: "Relu", shape: shapes::same },
    Op { name: "Gelu", shape: shapes::same },
    Op { name: "Softmax", shape: shapes::same },
    Op { name: "LogSoftmax", shape: shapes::same },
    Op { name: "RMSNormalization", shape: shapes::same },
    Op { name: "LayerNormalization", shape: shapes::same },
    Op { name: "RotaryEmbedding", shape: shapes::same },
    Op { name: "Cast", shape: shapes::cast },
    Op { name: "MatMul", shape: shapes::matmul },
    Op { name: "Conv", shape: shapes::conv },
    Op { name: "ReduceSum", shape: shapes::reduce },
    Op { name: "ReduceMean", shape: shapes::reduce },
    Op { name: "ReduceMax", shape: shapes::reduce },
    Op { name: "ReduceLogSumExp", shape: shapes::reduce },
    Op { name: "ArgMax", shape: shapes::arg_max },
    Op { name: "TopK", shape: shapes::top_k },
    Op { name: "Transpose", shape: shapes::transpose },
    Op { name: "Reshape", shape: shapes::reshape },
    Op { name: "Squeeze", shape: shapes::squeeze },
    Op { name: "Unsqueeze", shape: shapes::unsqueeze },
    Op { name: "Concat", shape: shapes::concat },
    Op { name: "Slice", shape: shapes::slice },
    Op { name: "Gather", shape: shapes::gather },
    Op { name: "Shape", shape: shapes::shape_of },
];

/// A symbol for a size that is computed from others.
fn derived(text: String) -> Dim {
    Dim::from(text.as_str())
}

/// The type with dtype `dtype` and these dimensions, as the only result.
fn one(dtype: DType, dims: Vec<Dim>) -> Result<Vec<Type>> {
    Ok(vec![Type { dtype, dims }])
}
