//! ONNX graphs as values: typed nodes, a builder with shape rules, protobuf in and out. Runs nothing.
//!
//! Parameters carry the names of the checkpoint. A frozen parameter is an initialiser that may lie in another
//! file ([`Initializer::External`]), so that a graph over gigabytes of weights stays a few kilobytes.

mod backward;
mod builder;
mod folding;
mod messages;
pub mod ops;
mod protobuf;
mod reader;
mod subgraph;
mod training;
mod upgrade;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

pub use backward::gradients;
pub use builder::Builder;
pub use training::{IGNORED_LABEL, Loss, TrainingReport, input_gradients, matches_pattern, training_graph};

use crate::tensor::{DType, Tensor};
use ops::Attributes;

/// The ONNX opset that [`Builder`] emits: the first with `RMSNormalization` and `RotaryEmbedding`.
pub const OPSET: i64 = 23;

/// Handle of a value (an edge) of one [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

impl Value {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// One dimension: known, a named unknown that is the same wherever the name appears, or unknown.
///
/// Two unknown dimensions compare as equal, which says nothing about their sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A known size.
    Fixed(usize),
    /// An unknown size with a name.
    Symbol(Arc<str>),
    /// A size of which nothing is known.
    Unknown,
}

impl From<usize> for Dim {
    fn from(size: usize) -> Self {
        Self::Fixed(size)
    }
}

impl From<&str> for Dim {
    fn from(name: &str) -> Self {
        Self::Symbol(name.into())
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Symbol(name) => f.write_str(name),
            Self::Unknown => f.write_str("?"),
        }
    }
}

/// Element type and dimensions of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub dims: Vec<Dim>,
}

impl Type {
    /// A type from its parts; dimensions are numbers or names.
    pub fn new(dtype: DType, dims: impl Into<Vec<Dim>>) -> Self {
        Self { dtype, dims: dims.into() }
    }

    /// The type of a host tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self { dtype: tensor.dtype(), dims: tensor.shape().iter().map(|size| Dim::Fixed(*size)).collect() }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.dims.iter().map(ToString::to_string).collect();
        write!(f, "{}[{}]", self.dtype, dims.join(","))
    }
}

/// An attribute of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A single-precision number.
    Float(f32),
    /// A string.
    Text(String),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A list of single-precision numbers.
    Floats(Vec<f32>),
    /// A tensor.
    Tensor(Tensor),
    /// Anything else that a file has, such as the sub-graphs of `If` and `Loop`: the bytes of its `AttributeProto`,
    /// which are written back as they were read.
    Other(Vec<u8>),
}

/// One operation of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique name; the module path in the checkpoint where there is one.
    pub name: String,
    /// ONNX operator.
    pub op: String,
    /// ONNX operator domain; empty for the standard one.
    pub domain: String,
    /// Inputs in the order of the operator; `None` where an optional one is left out.
    pub inputs: Vec<Option<Value>>,
    /// Outputs in the order of the operator.
    pub outputs: Vec<Value>,
    /// Attributes by name.
    pub attributes: Vec<(String, Attribute)>,
}

impl Node {
    /// Its attributes, read by name.
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes(&self.attributes)
    }
}

/// Where the elements of an initialiser are.
#[derive(Debug, Clone, PartialEq)]
pub enum Initializer {
    /// Inside the graph.
    Inline(Tensor),
    /// In a file beside the graph: its name there, the offset of the first byte and the number of bytes.
    External {
        /// File name relative to the graph's folder.
        file: String,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
}

/// Whether a domain is that of the ONNX specification, which has two names.
fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

#[derive(Debug, Clone, PartialEq)]
struct ValueInfo {
    name: String,
    ty: Option<Type>,
}

/// An ONNX graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Name of the graph.
    pub name: String,
    /// Nodes in execution order.
    pub nodes: Vec<Node>,
    /// Values fed from outside.
    pub inputs: Vec<Value>,
    /// Values handed out.
    pub outputs: Vec<Value>,
    /// Constant values.
    pub initializers: Vec<(Value, Initializer)>,
    values: Vec<ValueInfo>,
    opsets: Vec<(String, i64)>,
    /// Each a `FunctionProto` of the file, as it was read.
    functions: Vec<Vec<u8>>,
    /// Initialisers that are no weights: they were made by `Constant` nodes, or follow from others.
    literals: HashSet<Value>,
}

impl Graph {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            initializers: Vec::new(),
            values: Vec::new(),
            opsets: vec![(String::new(), OPSET)],
            functions: Vec::new(),
            literals: HashSet::new(),
        }
    }

    /// Version of the standard operators, if the graph uses them.
    pub fn opset(&self) -> Option<i64> {
        self.opsets.iter().find(|(domain, _)| is_standard(domain)).map(|(_, version)| *version)
    }

    /// Values by name.
    fn named(&self) -> HashMap<&str, Value> {
        (0..).zip(&self.values).map(|(index, value)| (value.name.as_str(), Value(index))).collect()
    }

    /// The values that a node reads from outside its inputs, through its sub-graphs, by the node's first output.
    fn captured(&self) -> HashMap<Value, Vec<Value>> {
        let holds = |node: &&Node| node.attributes.iter().any(|(_, value)| matches!(value, Attribute::Other(_)));
        let mut captured = HashMap::new();
        if !self.nodes.iter().any(|node| holds(&node)) {
            return captured;
        }
        let named = self.named();
        for node in self.nodes.iter().filter(holds) {
            let names = subgraph::captured(&node.attributes);
            let values = names.iter().filter_map(|name| named.get(name.as_str()).copied());
            captured.extend(node.outputs.first().map(|output| (*output, values.collect())));
        }
        captured
    }

    fn add_value(&mut self, name: String, ty: Option<Type>) -> Value {
        self.values.push(ValueInfo { name, ty });
        Value((self.values.len() - 1) as u32)
    }

    /// Removes nodes and initialisers that no output depends on. Inputs stay.
    pub fn prune(&mut self) {
        let mut needed: HashSet<Value> = self.outputs.iter().copied().collect();
        let captured = self.captured();
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.outputs.iter().any(|output| needed.contains(output)) {
                needed.extend(node.inputs.iter().flatten());
                needed.extend(node.outputs.first().and_then(|output| captured.get(output)).into_iter().flatten());
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.initializers.retain(|(value, _)| needed.contains(value));
    }

    /// Name of a value.
    pub fn name_of(&self, value: Value) -> &str {
        &self.values[value.index()].name
    }

    /// Type of a value, where it is known (values made by unknown operators of foreign graphs are not).
    pub fn type_of(&self, value: Value) -> Option<&Type> {
        self.values[value.index()].ty.as_ref()
    }

    /// The value with this name.
    pub fn find(&self, name: &str) -> Option<Value> {
        self.values.iter().position(|value| value.name == name).map(|index| Value(index as u32))
    }
}
