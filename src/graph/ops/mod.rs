//! The operators that models are built from: one row per operator with its shape rule, its gradient and the cases that
//! check both.
//!
//! Source of every rule: the ONNX operator specification at opset 23. A gradient rule emits ordinary nodes; that the
//! gradient of a broadcast input is summed back to its size, that contributions add up and that nodes nobody needs go
//! away is the driver's business ([`super::gradients`]), so no rule mentions it.

mod activation;
mod arithmetic;
mod attention;
mod case;
mod comparison;
mod convolution;
pub(super) mod dims;
mod indexing;
mod layout;
mod loss;
mod normalisation;
mod pooling;
mod product;
mod reduction;
mod window;

use std::ops::Deref;

pub use case::{Case, CaseInput, Filling};
pub(super) use dims::normalise_axis;

use super::{Attribute, Builder, Dim, Node, Type, Value};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// One ONNX operator.
pub struct Op {
    /// Its name in the ONNX specification.
    pub name: &'static str,
    /// Types of its results, from a use of it.
    pub shape: fn(&Site) -> Result<Vec<Type>>,
    /// How a gradient crosses it.
    pub gradient: Gradient,
    /// Uses of it that tests check both rules with.
    pub cases: fn() -> Vec<Case>,
}

/// How a gradient crosses an operator.
#[derive(Clone, Copy)]
pub enum Gradient {
    /// The vector-Jacobian product as nodes.
    Rule(Rule),
    /// No gradient crosses it.
    Zero {
        /// Why that is right.
        why: &'static str,
    },
}

/// Emits the gradients of an operator's inputs, one per input; `None` where an input has none, such as an index. A
/// gradient has the dtype of its input, and its shape or one that its input was broadcast to.
pub type Rule = fn(&mut Builder, &Use) -> Result<Vec<Option<Value>>>;

/// A node that a gradient has to cross. Its attributes and values are those of the forward pass.
pub struct Use<'a> {
    /// The node.
    pub node: &'a Node,
    /// Gradients of its outputs, in their order; `None` where the loss does not depend on one.
    pub gradients: &'a [Option<Value>],
}

impl Use<'_> {
    /// A required input.
    pub fn input(&self, index: usize) -> Result<Value> {
        self.optional(index).ok_or_else(|| {
            Error::internal(format!("`{}` (node `{}`) lacks input {index}", self.node.op, self.node.name))
        })
    }

    /// An optional input.
    pub fn optional(&self, index: usize) -> Option<Value> {
        self.node.inputs.get(index).copied().flatten()
    }

    /// An output.
    pub fn output(&self, index: usize) -> Result<Value> {
        let output = self.node.outputs.get(index).copied();
        output.ok_or_else(|| {
            Error::internal(format!("`{}` (node `{}`) lacks output {index}", self.node.op, self.node.name))
        })
    }

    /// The gradient of the first output.
    pub fn gradient(&self) -> Result<Value> {
        self.gradients.first().copied().flatten().ok_or_else(|| {
            Error::internal(format!(
                "only a later output of `{}` (node `{}`) has a gradient",
                self.node.op, self.node.name
            ))
        })
    }

    /// Its attributes.
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes(&self.node.attributes)
    }
}

/// Attributes of a node, read by name.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [(String, Attribute)]);

impl<'a> Attributes<'a> {
    fn get(&self, name: &str) -> Option<&'a Attribute> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Attribute::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// A floating-point attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.get(name) {
            Some(Attribute::Float(value)) => Some(*value),
            _ => None,
        }
    }

    /// A textual attribute.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        match self.get(name) {
            Some(Attribute::Text(value)) => Some(value),
            _ => None,
        }
    }

    /// An attribute that is a list of integers.
    pub fn int_list(&self, name: &str) -> Option<&'a [i64]> {
        match self.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// An attribute that is a tensor.
    pub fn tensor(&self, name: &str) -> Option<&'a Tensor> {
        match self.get(name) {
            Some(Attribute::Tensor(value)) => Some(value),
            _ => None,
        }
    }

    /// The `axis` attribute, counted from the front of `rank` dimensions.
    pub fn axis(&self, rank: usize, default: i64) -> Result<usize> {
        normalise_axis(self.int("axis").unwrap_or(default), rank)
    }
}

/// A use of an operator as its shape rule sees it: types of inputs, inputs that are constants, attributes.
pub struct Site<'a> {
    /// Name of the operator.
    pub op: &'a str,
    /// Types of the inputs; `None` where an optional input is left out.
    pub inputs: Vec<Option<&'a Type>>,
    /// Values of the inputs that are constants inside the graph.
    pub constants: Vec<Option<&'a Tensor>>,
    /// Its attributes.
    pub attributes: Attributes<'a>,
    /// Number of results that the use asks for.
    pub outputs: usize,
}

impl<'a> Deref for Site<'a> {
    type Target = Attributes<'a>;

    fn deref(&self) -> &Attributes<'a> {
        &self.attributes
    }
}

impl<'a> Site<'a> {
    /// Type of a required input.
    pub fn input(&self, index: usize) -> Result<&'a Type> {
        self.optional(index).ok_or_else(|| Error::internal(format!("`{}` lacks input {index}", self.op)))
    }

    /// Type of an optional input.
    pub fn optional(&self, index: usize) -> Option<&'a Type> {
        self.inputs.get(index).copied().flatten()
    }

    /// Values of an integer input that must be a constant.
    pub fn ints(&self, index: usize) -> Result<&'a [i64]> {
        self.constant(index)
            .ok_or_else(|| Error::internal(format!("input {index} of `{}` is not a constant", self.op)))?
            .values::<i64>()
    }

    /// Value of an input that is a constant.
    pub fn constant(&self, index: usize) -> Option<&'a Tensor> {
        self.constants.get(index).copied().flatten()
    }
}

/// The row of an operator.
pub fn find(name: &str) -> Option<&'static Op> {
    OPS.iter().flat_map(|rows| rows.iter()).find(|op| op.name == name)
}

/// Every operator with a row, by kind.
pub static OPS: &[&[Op]] = &[
    arithmetic::ROWS,
    comparison::ROWS,
    activation::ROWS,
    reduction::ROWS,
    product::ROWS,
    normalisation::ROWS,
    loss::ROWS,
    attention::ROWS,
    convolution::ROWS,
    pooling::ROWS,
    layout::ROWS,
    window::ROWS,
    indexing::ROWS,
];

/// The type with dtype `dtype` and these dimensions, as the only result.
fn one(dtype: DType, dims: Vec<Dim>) -> Result<Vec<Type>> {
    Ok(vec![Type { dtype, dims }])
}

/// The shape rule of operators whose result is like their first input.
fn same(site: &Site) -> Result<Vec<Type>> {
    Ok(vec![site.input(0)?.clone()])
}

/// `value` repeated to the shape of `like`.
fn expand_like(builder: &mut Builder, value: Value, like: Value) -> Result<Value> {
    let ty = Type { dtype: builder.ty(value)?.dtype, dims: builder.ty(like)?.dims.clone() };
    let shape = builder.op("Shape", &[like], &[])?;
    let expanded = builder.op("Expand", &[value, shape], &[])?;
    builder.assume(expanded, ty);
    Ok(expanded)
}
