//! Uses of operators that tests check rows with: inputs in a compact notation, and attributes.

use super::Attribute;
use crate::graph::{Dim, Type};
use crate::tensor::{DType, Tensor};

/// One use of an operator. Tests compare the inferred shapes and the gradients with what ONNX Runtime computes, once
/// with small and once with large sizes for the symbols.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// Inputs in the order of the operator; `None` where an optional one is left out.
    pub inputs: Vec<Option<CaseInput>>,
    /// Attributes by name.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Whether the inputs are declared without any size, as in files that state none.
    pub unknown: bool,
    /// Number of results asked for where more than the required ones are.
    pub results: usize,
}

/// One input of a [`Case`].
#[derive(Debug, Clone)]
pub enum CaseInput {
    /// A constant inside the graph.
    Constant(Tensor),
    /// An input of the graph.
    Fed {
        /// Its type; symbols are `batch`, `tokens` and `past`.
        ty: Type,
        /// What it is filled with.
        values: Filling,
    },
}

/// What an input is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// Standard normal numbers.
    Normal,
    /// Numbers between 0.5 and 2.
    Positive,
    /// Numbers of both signs that differ from each other and from zero by more than a difference quotient moves them.
    Distinct,
    /// Integers from 0 to below this bound.
    Below(usize),
    /// Truth values.
    Truth,
}

impl Case {
    /// A use without inputs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an input such as `batch,4` of normal numbers. The filling is chosen by what stands before a colon: `+` for
    /// positive, `~` for distinct numbers, `b` for truth values, `i7` for integers below 7.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        let (kind, dims) = text.split_once(':').unwrap_or(("", text));
        let values = match kind.split_at(usize::from(!kind.is_empty())) {
            ("+", _) => Filling::Positive,
            ("~", _) => Filling::Distinct,
            ("b", _) => Filling::Truth,
            ("i", bound) => Filling::Below(bound.parse().unwrap_or(1)),
            _ => Filling::Normal,
        };
        let dtype = match values {
            Filling::Truth => DType::Bool,
            Filling::Below(_) => DType::I64,
            _ => DType::F32,
        };
        let dim = |part: &str| part.parse::<usize>().map_or_else(|_| Dim::from(part), Dim::from);
        let dims: Vec<Dim> = dims.split(',').filter(|part| !part.is_empty()).map(dim).collect();
        self.inputs.push(Some(CaseInput::Fed { ty: Type::new(dtype, dims), values }));
        self
    }

    /// Adds a constant vector of integers.
    #[must_use]
    pub fn ints(self, values: &[i64]) -> Self {
        self.constant(Tensor::vector(values.to_vec()))
    }

    /// Adds a constant.
    #[must_use]
    pub fn constant(mut self, tensor: Tensor) -> Self {
        self.inputs.push(Some(CaseInput::Constant(tensor)));
        self
    }

    /// Leaves an optional input out.
    #[must_use]
    pub fn omit(mut self) -> Self {
        self.inputs.push(None);
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Attribute) -> Self {
        self.attributes.push((name, value));
        self
    }

    /// Adds an integer attribute.
    #[must_use]
    pub fn int(self, name: &'static str, value: i64) -> Self {
        self.with(name, Attribute::Int(value))
    }

    /// Adds an attribute that is a list of integers.
    #[must_use]
    pub fn int_list(self, name: &'static str, values: &[i64]) -> Self {
        self.with(name, Attribute::Ints(values.to_vec()))
    }

    /// Asks for this many results, optional ones among them.
    #[must_use]
    pub fn results(mut self, count: usize) -> Self {
        self.results = count;
        self
    }

    /// Declares the fed inputs without any size.
    #[must_use]
    pub fn unknown(mut self) -> Self {
        self.unknown = true;
        self
    }
}
