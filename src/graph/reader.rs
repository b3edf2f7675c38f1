//! Makes a [`Graph`] of a decoded file: nodes in the form of [`OPSET`], constants as initialisers, types of values.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use super::folding::{self, Inputs, Items};
use super::messages::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use super::ops::dims;
use super::protobuf::{decode_attribute, decode_initializer, decode_type, onnx_dtype};
use super::{Attribute, Dim, Graph, Initializer, Node, OPSET, Type, Value, is_standard, subgraph, upgrade};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The largest integer initialiser of another file that is taken into the graph, in bytes: shapes and axes, which types
/// depend on.
const LARGEST_SHAPE: u64 = 1 << 16;

impl Graph {
    /// Reads an `.onnx` file and checks that the files with its weights are there. Weights in other files stay there;
    /// their places are relative to the folder of `path`.
    ///
    /// # Errors
    ///
    /// Those of [`Graph::from_onnx`]; input errors where a file cannot be read or is too short, or where a place leaves
    /// the folder.
    pub fn load(path: &Path) -> Result<Self> {
        let within = |error: Error| error.within(format!("cannot read the model `{}`", path.display()));
        let read = || {
            let bytes = fs::read(path).map_err(|cause| {
                Error::input(format!("cannot read the model `{}`", path.display())).caused_by(cause)
            })?;
            let mut model = ModelProto::decode_bytes(&bytes).map_err(within)?;
            drop(bytes);
            let folder = path.parent().unwrap_or(Path::new(""));
            for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
                take_shapes_in(tensor, folder).map_err(within)?;
            }
            read(model).map_err(within)
        };
        read()
    }
}

/// Checks the place of an initialiser that lies in another file, and takes it into the graph if it is a small one of
/// integers.
fn take_shapes_in(tensor: &mut TensorProto, folder: &Path) -> Result<()> {
    let name = tensor.name.clone().unwrap_or_default();
    let within = |error: Error| error.within(format!("cannot read the initialiser `{name}`"));
    if !tensor.is_external() {
        return Ok(());
    }
    let (ty, initializer) = decode_initializer(tensor.clone()).map_err(within)?;
    let Initializer::External { file, offset, length } = initializer else { return Ok(()) };
    if !Path::new(&file).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(within(Error::input(format!("its data lies in `{file}`, outside of the model's folder"))));
    }
    let path = folder.join(&file);
    let within = |cause: std::io::Error| {
        let error = Error::input(format!("cannot read the data of the initialiser `{name}` in `{}`", path.display()));
        error.caused_by(cause)
    };
    let mut data = File::open(&path).map_err(within)?;
    if data.metadata().map_err(within)?.len() < offset.saturating_add(length) {
        return Err(Error::input(format!("`{}` ends before the data of the initialiser `{name}`", path.display()))
            .hint("export the model again, or copy the whole file"));
    }
    if !ty.dtype.is_float() && length <= LARGEST_SHAPE {
        let mut bytes = vec![0; length as usize];
        data.seek(SeekFrom::Start(offset)).and_then(|_| data.read_exact(&mut bytes)).map_err(within)?;
        tensor.raw_data = Some(bytes);
        tensor.data_location = None;
        tensor.external_data.clear();
    }
    Ok(())
}

/// The graph of a decoded file.
pub(super) fn read(model: ModelProto) -> Result<Graph> {
    let proto = model.graph.ok_or_else(|| Error::input("the ONNX model holds no graph"))?;
    let mut graph = Graph::new(proto.name.as_deref().unwrap_or("graph"));
    graph.functions = model.functions;
    graph.opsets = model
        .opset_import
        .into_iter()
        .map(|opset| (opset.domain.unwrap_or_default(), opset.version.unwrap_or(1)))
        .collect();
    let opset = graph.opset();
    if let Some(older) = opset.filter(|opset| (upgrade::OLDEST..OPSET).contains(opset)) {
        for (domain, version) in &mut graph.opsets {
            if is_standard(domain) && *version == older {
                *version = OPSET;
            }
        }
    }
    let reader = Reader {
        graph,
        opset: opset.unwrap_or(OPSET),
        values: HashMap::new(),
        constants: HashMap::new(),
        items: HashMap::new(),
        stated: HashMap::new(),
        kept: HashSet::new(),
    };
    reader.read(proto)
}

struct Reader {
    graph: Graph,
    /// The operator set that nodes are in.
    opset: i64,
    values: HashMap<String, Value>,
    /// Positions of constants among the initialisers.
    constants: HashMap<Value, usize>,
    /// Elements of values that shapes are computed with.
    items: HashMap<Value, Items>,
    /// Types that the file states.
    stated: HashMap<String, Type>,
    /// Names that have to stay: those of outputs and those that sub-graphs read.
    kept: HashSet<String>,
}

impl Reader {
    fn read(mut self, proto: GraphProto) -> Result<Graph> {
        for tensor in proto.initializer {
            self.read_initializer(tensor)?;
        }
        for info in &proto.input {
            let name = info.name.clone().unwrap_or_default();
            if !self.values.contains_key(&name) {
                let value = self.declare(name, decode_type(info));
                self.graph.inputs.push(value);
            }
        }
        self.read_stated(proto.value_info.iter().chain(&proto.output));
        self.kept = proto.output.iter().filter_map(|info| info.name.clone()).collect();
        for (index, node) in proto.node.into_iter().enumerate() {
            self.read_node(index, node)?;
        }
        for info in &proto.output {
            let name = info.name.as_deref().unwrap_or_default();
            let value = self.values.get(name).copied();
            self.graph.outputs.push(value.ok_or_else(|| Error::input(format!("no node makes the output `{name}`")))?);
        }
        Ok(self.graph)
    }

    /// Notes the types that the file states. Names of sizes count only where they are those of inputs: a file may name
    /// one size in several ways.
    fn read_stated<'a>(&mut self, stated: impl Iterator<Item = &'a ValueInfoProto>) {
        let inputs = self.graph.inputs.iter().filter_map(|value| self.graph.type_of(*value));
        let names: HashSet<String> = inputs
            .flat_map(|ty| &ty.dims)
            .filter_map(|dim| if let Dim::Symbol(name) = dim { Some(name.to_string()) } else { None })
            .collect();
        let known = |dim: Dim| match &dim {
            Dim::Symbol(text) => {
                let product = text.split('*').all(|factor| factor.parse::<usize>().is_ok() || names.contains(factor));
                if product { dims::remaining(&[dim], &[]).unwrap_or(Dim::Unknown) } else { Dim::Unknown }
            }
            _ => dim,
        };
        for info in stated {
            if let (Some(name), Some(Type { dtype, dims })) = (info.name.clone(), decode_type(info)) {
                self.stated.insert(name, Type { dtype, dims: dims.into_iter().map(known).collect() });
            }
        }
    }

    fn declare(&mut self, name: String, ty: Option<Type>) -> Value {
        let value = self.graph.add_value(name.clone(), ty);
        if !name.is_empty() {
            self.values.insert(name, value);
        }
        value
    }

    fn read_initializer(&mut self, tensor: TensorProto) -> Result<()> {
        let name = tensor.name.clone().unwrap_or_default();
        let (ty, initializer) = decode_initializer(tensor)
            .map_err(|error| error.within(format!("cannot read the initialiser `{name}`")))?;
        self.add_initializer(name, ty, initializer);
        Ok(())
    }

    fn add_initializer(&mut self, name: String, ty: Type, initializer: Initializer) -> Value {
        let value = self.declare(name, Some(ty));
        if let Initializer::Inline(tensor) = &initializer
            && let Some(items) = Items::of(tensor)
        {
            self.items.insert(value, items);
        }
        self.constants.insert(value, self.graph.initializers.len());
        self.graph.initializers.push((value, initializer));
        value
    }

    fn add_constant(&mut self, name: String, tensor: Tensor) -> Value {
        let value = self.add_initializer(name, Type::of(&tensor), Initializer::Inline(tensor));
        self.graph.literals.insert(value);
        value
    }

    fn read_node(&mut self, index: usize, proto: NodeProto) -> Result<()> {
        let op = proto.op_type.unwrap_or_default();
        let name = proto.name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("{op}_{index}"));
        let mut inputs = Vec::with_capacity(proto.input.len());
        for input in proto.input {
            let value = self.values.get(&input).copied();
            if value.is_none() && !input.is_empty() {
                return Err(Error::input(format!("node `{name}` reads `{input}`, which nothing before it makes")));
            }
            inputs.push(value);
        }
        let attributes = proto.attribute.into_iter().map(decode_attribute).collect::<Result<Vec<_>>>();
        let attributes =
            attributes.map_err(|error| error.within(format!("cannot read the attributes of node `{name}`")))?;
        let domain = proto.domain.unwrap_or_default();
        let mut node = Node { name, op, domain, inputs, outputs: Vec::new(), attributes };
        let mut outputs = proto.output;
        self.bring_forward(&mut node, &mut outputs)?;
        self.kept.extend(subgraph::captured(&node.attributes));
        self.place(node, outputs);
        Ok(())
    }

    fn bring_forward(&mut self, node: &mut Node, outputs: &mut Vec<String>) -> Result<()> {
        if !is_standard(&node.domain) || self.opset < upgrade::OLDEST {
            return Ok(());
        }
        let mut form = upgrade::Form {
            op: &node.op,
            inputs: &node.inputs,
            outputs,
            attributes: &mut node.attributes,
            added: Vec::new(),
        };
        upgrade::bring_forward(self.opset, &mut form)
            .map_err(|error| error.within(format!("cannot read `{}` (node `{}`)", node.op, node.name)))?;
        for (position, tensor) in form.added {
            let name = self.unused(&format!("{}/input_{position}", node.name));
            let value = self.add_constant(name, tensor);
            node.inputs.resize(node.inputs.len().max(position + 1), None);
            node.inputs[position] = Some(value);
        }
        Ok(())
    }

    /// A name that no value has so far and that the file states no type for.
    fn unused(&self, name: &str) -> String {
        let taken = |name: &str| self.values.contains_key(name) || self.stated.contains_key(name);
        let mut number = 0;
        let mut free = name.to_owned();
        while taken(&free) {
            number += 1;
            free = format!("{name}_{number}");
        }
        free
    }

    /// Adds a node to the graph, or a constant in place of it.
    fn place(&mut self, mut node: Node, outputs: Vec<String>) {
        self.settle_cast(&mut node);
        if let [output] = outputs.as_slice()
            && is_standard(&node.domain)
            && !self.kept.contains(output)
        {
            if let Some(tensor) = folding::constant(&node) {
                self.add_constant(output.clone(), tensor);
                return;
            }
            if let ("Identity", [Some(input)]) = (node.op.as_str(), node.inputs.as_slice())
                && self.constants.contains_key(input)
            {
                self.values.insert(output.clone(), *input);
                return;
            }
        }
        let (items, sized) = self.fold(&node);
        if let (Some(tensor), [output]) = (items.as_ref().and_then(Items::tensor), outputs.as_slice())
            && !self.kept.contains(output)
        {
            self.add_constant(output.clone(), tensor);
            return;
        }
        let mut types = self.types(&node, outputs.len());
        if let (Some(sized), Some(first)) = (sized, types.first_mut()) {
            *first = Some(sized);
        }
        for (name, ty) in outputs.into_iter().zip(types) {
            let ty = merge(ty, self.stated.get(&name));
            let value = self.declare(name, ty);
            node.outputs.push(value);
        }
        if let (Some(items), Some(output)) = (items, node.outputs.first()) {
            self.items.insert(*output, items);
        }
        self.graph.nodes.push(node);
    }

    /// Writes `CastLike` as `Cast` where the element type to cast to is known.
    fn settle_cast(&self, node: &mut Node) {
        if let ("CastLike", [Some(_), Some(like)]) = (node.op.as_str(), node.inputs.as_slice())
            && is_standard(&node.domain)
            && let Some(ty) = self.graph.type_of(*like)
        {
            "Cast".clone_into(&mut node.op);
            node.attributes.push(("to".to_owned(), Attribute::Int(onnx_dtype(ty.dtype))));
            node.inputs.truncate(1);
        }
    }

    /// What is known of a result that is a shape, or that has one.
    fn fold(&self, node: &Node) -> (Option<Items>, Option<Type>) {
        if !is_standard(&node.domain) || self.graph.opset() != Some(OPSET) {
            return (None, None);
        }
        let inputs = Inputs {
            types: node.inputs.iter().map(|input| input.and_then(|value| self.graph.type_of(value))).collect(),
            items: node.inputs.iter().map(|input| input.and_then(|value| self.items.get(&value).cloned())).collect(),
        };
        (folding::evaluate(node, &inputs), folding::shaped(node, &inputs))
    }

    fn types(&self, node: &Node, outputs: usize) -> Vec<Option<Type>> {
        let constant = |value: Value| match &self.graph.initializers[*self.constants.get(&value)?].1 {
            Initializer::Inline(tensor) => Some(tensor),
            Initializer::External { .. } => None,
        };
        let inferred = self.graph.infer(node, outputs, constant).unwrap_or_default();
        let mut types: Vec<Option<Type>> = inferred.into_iter().map(Some).collect();
        types.resize(outputs, None);
        types
    }
}

/// What a shape rule says, with the file's word for the sizes that it leaves open.
fn merge(inferred: Option<Type>, stated: Option<&Type>) -> Option<Type> {
    let (Some(mut ty), Some(stated)) = (inferred.clone(), stated) else { return inferred.or(stated.cloned()) };
    if ty.dims.len() == stated.dims.len() {
        for (dim, stated) in ty.dims.iter_mut().zip(&stated.dims) {
            if *dim == Dim::Unknown {
                *dim = stated.clone();
            }
        }
    }
    Some(ty)
}
