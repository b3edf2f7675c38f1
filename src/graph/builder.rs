//! Emits nodes and infers the type of each result, so that a wrong graph fails where it is written.

use std::collections::{HashMap, HashSet};

use super::ops::{self, Site};
use super::{Attribute, Graph, Initializer, Node, Type, Value};
use crate::error::{Error, Result};
use crate::tensor::{DType, Element, Tensor};

/// Builds one [`Graph`] node by node.
///
/// Node names are the current scope (the module path of the checkpoint) plus the operator and a number.
pub struct Builder {
    graph: Graph,
    scope: Vec<String>,
    names: HashSet<String>,
    parameters: HashMap<String, Value>,
    /// Positions of values among the initialisers.
    stored: HashMap<Value, usize>,
    /// What the nodes of a foreign graph read through their sub-graphs.
    captured: HashMap<Value, Vec<Value>>,
}

impl Builder {
    /// An empty graph with this name.
    pub fn new(name: &str) -> Self {
        Self::resume(Graph::new(name))
    }

    /// Goes on with a finished graph.
    pub fn resume(graph: Graph) -> Self {
        let names = graph.values.iter().map(|value| value.name.clone()).collect();
        let stored = graph.initializers.iter().map(|(value, _)| (graph.name_of(*value).to_owned(), *value));
        let (parameters, captured) = (stored.collect(), graph.captured());
        let mut builder = Self { graph, scope: Vec::new(), names, parameters, stored: HashMap::new(), captured };
        builder.index();
        builder
    }

    fn index(&mut self) {
        self.stored = self.graph.initializers.iter().zip(0..).map(|((value, _), at)| (*value, at)).collect();
    }

    /// Emits the nodes that follow under `scope` in node names, until [`Builder::leave`].
    pub fn enter(&mut self, scope: &str) {
        self.scope.push(scope.to_owned());
    }

    /// Ends the innermost scope.
    pub fn leave(&mut self) {
        self.scope.pop();
    }

    /// Declares an input of the graph.
    pub fn input(&mut self, name: &str, ty: Type) -> Result<Value> {
        let value = self.named(name, Some(ty))?;
        self.graph.inputs.push(value);
        Ok(value)
    }

    /// The parameter of this name, declared on first use as the given initialiser.
    pub fn parameter(&mut self, name: &str, ty: &Type, place: impl FnOnce() -> Result<Initializer>) -> Result<Value> {
        if let Some(value) = self.parameters.get(name) {
            return Ok(*value);
        }
        let value = self.named(name, Some(ty.clone()))?;
        self.store(value, place()?);
        self.parameters.insert(name.to_owned(), value);
        Ok(value)
    }

    /// The input of this name, declared on first use; also whether this was the first.
    pub fn shared_input(&mut self, name: &str, ty: &Type) -> Result<(Value, bool)> {
        if let Some(value) = self.parameters.get(name) {
            return Ok((*value, false));
        }
        let value = self.input(name, ty.clone())?;
        self.parameters.insert(name.to_owned(), value);
        Ok((value, true))
    }

    /// A constant inside the graph.
    pub fn constant(&mut self, tensor: Tensor) -> Result<Value> {
        let name = self.fresh("constant");
        let value = self.named(&name, Some(Type::of(&tensor)))?;
        self.store(value, Initializer::Inline(tensor));
        Ok(value)
    }

    fn store(&mut self, value: Value, initializer: Initializer) {
        self.stored.insert(value, self.graph.initializers.len());
        self.graph.initializers.push((value, initializer));
    }

    /// Turns initialisers into inputs of the graph, in this order and under their names, which are fed from then on.
    /// Returns what they held, in the order of the file.
    ///
    /// # Errors
    ///
    /// Internal error where one is no initialiser of floating-point numbers.
    pub fn release(&mut self, weights: &[Value]) -> Result<Vec<(Value, Initializer)>> {
        for weight in weights {
            let ty = self.ty(*weight)?;
            if !self.stored.contains_key(weight) || !ty.dtype.is_float() {
                let name = self.name_of(*weight);
                return Err(Error::internal(format!("`{name}`, {ty}, is no initialiser of floating-point numbers")));
            }
        }
        let released: HashSet<Value> = weights.iter().copied().collect();
        let all = std::mem::take(&mut self.graph.initializers);
        let (held, kept) = all.into_iter().partition(|(value, _)| released.contains(value));
        self.graph.initializers = kept;
        self.graph.inputs.extend_from_slice(weights);
        self.index();
        Ok(held)
    }

    /// Undoes [`Builder::release`] for these initialisers.
    pub(super) fn retain(&mut self, weights: Vec<(Value, Initializer)>) {
        self.graph.inputs.retain(|input| !weights.iter().any(|(weight, _)| weight == input));
        self.graph.initializers.extend(weights);
        self.index();
    }

    /// A constant without dimensions.
    pub fn scalar<T: Element>(&mut self, value: T) -> Result<Value> {
        self.constant(Tensor::scalar(value))
    }

    /// A constant number of a floating-point dtype, without dimensions.
    pub fn float(&mut self, value: f32, dtype: DType) -> Result<Value> {
        match dtype {
            DType::F32 => self.scalar(value),
            DType::F64 => self.scalar(f64::from(value)),
            DType::F16 => self.scalar(half::f16::from_f32(value)),
            DType::BF16 => self.scalar(half::bf16::from_f32(value)),
            _ => Err(Error::internal(format!("{dtype} is no floating-point type"))),
        }
    }

    /// A constant vector of integers, as shapes and axes are given.
    pub fn ints(&mut self, values: &[i64]) -> Result<Value> {
        self.constant(Tensor::vector(values.to_vec()))
    }

    /// Emits a node of an operator with one result.
    pub fn op(&mut self, op: &str, inputs: &[Value], attributes: &[(&str, Attribute)]) -> Result<Value> {
        let inputs: Vec<Option<Value>> = inputs.iter().copied().map(Some).collect();
        Ok(self.node(op, &inputs, attributes)?[0])
    }

    /// Emits a node of an operator; returns all its results but those that are optional.
    pub fn node(&mut self, op: &str, inputs: &[Option<Value>], attributes: &[(&str, Attribute)]) -> Result<Vec<Value>> {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (name, op, domain) = (self.fresh(op), op.to_owned(), String::new());
        self.push(Node { name, op, domain, inputs: inputs.to_vec(), outputs: Vec::new(), attributes }, 1)
    }

    /// Emits a node like an earlier one over other inputs; returns as many results as that one has.
    pub fn repeat(&mut self, node: &Node, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
        let name = self.fresh(&format!("again/{}", node.name));
        let count = node.outputs.len();
        self.push(Node { name, inputs: inputs.to_vec(), outputs: Vec::new(), ..node.clone() }, count)
    }

    /// The result number `index` of a node of this graph, which is asked for from now on if it is optional and was not
    /// so far.
    pub fn optional_output(&mut self, node: &Node, index: usize) -> Result<Value> {
        let found = self.graph.nodes.iter().rposition(|other| other.outputs.first() == node.outputs.first());
        let at = found.ok_or_else(|| Error::internal(format!("node `{}` is not in the graph", node.name)))?;
        if let Some(output) = self.graph.nodes[at].outputs.get(index) {
            return Ok(*output);
        }
        let node = self.graph.nodes[at].clone();
        let types = self.infer(&node, index + 1)?;
        for (number, ty) in types.into_iter().enumerate().skip(node.outputs.len()) {
            let output = self.named(&format!("{}.{number}", node.name), Some(ty))?;
            self.graph.nodes[at].outputs.push(output);
        }
        let output = self.graph.nodes[at].outputs.get(index).copied();
        output.ok_or_else(|| Error::internal(format!("`{}` has no output {index}", node.op)))
    }

    /// Emits a node whose outputs are still to be named; `count` is the least number of them.
    fn push(&mut self, mut node: Node, count: usize) -> Result<Vec<Value>> {
        for (index, ty) in self.infer(&node, count)?.into_iter().enumerate() {
            let output = if index == 0 { node.name.clone() } else { format!("{}.{index}", node.name) };
            let output = self.named(&output, Some(ty))?;
            node.outputs.push(output);
        }
        let outputs = node.outputs.clone();
        self.graph.nodes.push(node);
        Ok(outputs)
    }

    /// Declares `value` an output of the graph under `name`.
    pub fn output(&mut self, name: &str, value: Value) -> Result<()> {
        let computed = self.graph.nodes.iter().any(|node| node.outputs.contains(&value));
        let inside = self.captured.values().any(|values| values.contains(&value));
        if computed && !inside && !self.graph.outputs.contains(&value) {
            self.rename(value, name)?;
            self.graph.outputs.push(value);
            return Ok(());
        }
        // An input, a parameter and what a sub-graph reads keep their names, as does a value that is handed out already.
        let copy = self.op("Identity", &[value], &[])?;
        self.output(name, copy)
    }

    /// Whether some value has this name.
    pub fn is_taken(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Type of a value.
    pub fn ty(&self, value: Value) -> Result<&Type> {
        self.graph.type_of(value).ok_or_else(|| {
            Error::input(format!("the type of `{}` is not known", self.graph.name_of(value)))
                .hint("let `onnx.shape_inference` add the types of values to the file")
        })
    }

    /// Name of a value.
    pub fn name_of(&self, value: Value) -> &str {
        self.graph.name_of(value)
    }

    /// The nodes so far.
    pub fn nodes(&self) -> &[Node] {
        &self.graph.nodes
    }

    /// The finished graph, without the nodes that no output depends on.
    pub fn finish(mut self) -> Graph {
        self.graph.prune();
        self.graph
    }

    /// States the type of a value where its author knows more than the shape rule.
    pub(super) fn assume(&mut self, value: Value, ty: Type) {
        self.graph.values[value.index()].ty = Some(ty);
    }

    fn infer(&self, node: &Node, outputs: usize) -> Result<Vec<Type>> {
        let Node { op, name, inputs, .. } = node;
        let row = ops::find(op).ok_or_else(|| Error::internal(format!("no row for operator `{op}` in graph::ops")))?;
        let types =
            inputs.iter().map(|input| input.map(|value| self.ty(value)).transpose()).collect::<Result<Vec<_>>>()?;
        let constants = inputs.iter().map(|input| input.and_then(|value| self.inline(value))).collect();
        let site = Site { op, inputs: types, constants, attributes: node.attributes(), outputs };
        (row.shape)(&site).map_err(|error| error.within(format!("cannot emit `{op}` (node `{name}`)")))
    }

    /// The value of a constant inside the graph.
    pub(super) fn inline(&self, value: Value) -> Option<&Tensor> {
        match &self.graph.initializers[*self.stored.get(&value)?].1 {
            Initializer::Inline(tensor) => Some(tensor),
            Initializer::External { .. } => None,
        }
    }

    fn named(&mut self, name: &str, ty: Option<Type>) -> Result<Value> {
        self.claim(name)?;
        Ok(self.graph.add_value(name.to_owned(), ty))
    }

    /// Takes a name for a value.
    fn claim(&mut self, name: &str) -> Result<()> {
        match self.names.insert(name.to_owned()) {
            true => Ok(()),
            false => Err(Error::internal(format!("the graph has two values named `{name}`"))),
        }
    }

    fn rename(&mut self, value: Value, name: &str) -> Result<()> {
        if self.name_of(value) == name {
            return Ok(());
        }
        self.claim(name)?;
        name.clone_into(&mut self.graph.values[value.index()].name);
        Ok(())
    }

    fn fresh(&self, what: &str) -> String {
        let mut prefix = self.scope.join("/");
        if !prefix.is_empty() {
            prefix.push('/');
        }
        // Only foreign graphs can have values that are named like this one.
        let mut names = (self.graph.values.len()..).map(|number| format!("{prefix}{what}_{number}"));
        names.find(|name| !self.names.contains(name)).unwrap_or(prefix)
    }

    /// What nodes read through their sub-graphs, by the first output of each.
    pub(super) fn captured(&self) -> HashMap<Value, Vec<Value>> {
        self.captured.clone()
    }

    /// The graph so far.
    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Gives an inner value another name, so that `name` is free.
    pub(super) fn vacate(&mut self, value: Value) -> Result<()> {
        let name = self.name_of(value).to_owned();
        let other = self.fresh(&name);
        self.rename(value, &other)?;
        self.names.remove(&name);
        Ok(())
    }
}

/// Shorthands for the operators that models are written with.
impl Builder {
    /// Elementwise sum with broadcasting.
    pub fn add(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op("Add", &[a, b], &[])
    }

    /// Elementwise product with broadcasting.
    pub fn mul(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op("Mul", &[a, b], &[])
    }

    /// Product with a number.
    pub fn scale(&mut self, a: Value, factor: f32) -> Result<Value> {
        let dtype = self.ty(a)?.dtype;
        let factor = self.float(factor, dtype)?;
        self.mul(a, factor)
    }

    /// Matrix product over the last two dimensions.
    pub fn matmul(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op("MatMul", &[a, b], &[])
    }

    /// Reorders dimensions.
    pub fn transpose(&mut self, a: Value, permutation: &[i64]) -> Result<Value> {
        self.op("Transpose", &[a], &[("perm", Attribute::Ints(permutation.to_vec()))])
    }

    /// Changes the shape; 0 keeps a dimension, -1 is inferred.
    pub fn reshape(&mut self, a: Value, shape: &[i64]) -> Result<Value> {
        let shape = self.ints(shape)?;
        self.op("Reshape", &[a, shape], &[])
    }

    /// Inserts dimensions of size one.
    pub fn unsqueeze(&mut self, a: Value, axes: &[i64]) -> Result<Value> {
        let axes = self.ints(axes)?;
        self.op("Unsqueeze", &[a, axes], &[])
    }

    /// Joins values along an axis.
    pub fn concat(&mut self, values: &[Value], axis: i64) -> Result<Value> {
        self.op("Concat", values, &[("axis", Attribute::Int(axis))])
    }

    /// Rows of `a` along `axis`.
    pub fn gather(&mut self, a: Value, indices: Value, axis: i64) -> Result<Value> {
        self.op("Gather", &[a, indices], &[("axis", Attribute::Int(axis))])
    }

    /// The mean along an axis, which goes.
    pub fn mean(&mut self, a: Value, axis: i64) -> Result<Value> {
        let axes = self.ints(&[axis])?;
        self.op("ReduceMean", &[a, axes], &[("keepdims", Attribute::Int(0))])
    }

    /// The half-open range `start..end` of `axis`.
    pub fn slice(&mut self, a: Value, axis: i64, start: i64, end: i64) -> Result<Value> {
        let (start, end, axis) = (self.ints(&[start])?, self.ints(&[end])?, self.ints(&[axis])?);
        self.op("Slice", &[a, start, end, axis], &[])
    }

    /// Conversion to another element type; nothing where it already has that type.
    pub fn cast(&mut self, a: Value, dtype: DType) -> Result<Value> {
        if self.ty(a)?.dtype == dtype {
            return Ok(a);
        }
        self.op("Cast", &[a], &[("to", Attribute::Int(super::protobuf::onnx_dtype(dtype)))])
    }

    /// Softmax over the last axis.
    pub fn softmax(&mut self, a: Value) -> Result<Value> {
        self.op("Softmax", &[a], &[("axis", Attribute::Int(-1))])
    }
}
