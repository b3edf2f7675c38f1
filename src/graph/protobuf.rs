//! Graphs as ONNX protobuf and back. Fields without a place in [`super::messages`] are skipped, except in attributes.

use std::collections::HashMap;

use prost::Message;

use super::messages::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::ops::{self, Site};
use super::{Attribute, Dim, Graph, Initializer, Node, OPSET, Type, Value, is_standard, reader};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

const IR_VERSION: i64 = 10;

const EXTERNAL: i32 = 1;
/// Attribute kinds of `AttributeProto.AttributeType`: float, int, string, tensor, floats, ints.
const KINDS: [i32; 6] = [1, 2, 3, 4, 6, 7];

/// The number of a dtype in `TensorProto.DataType`.
pub(super) fn onnx_dtype(dtype: DType) -> i64 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        DType::BF16 => 16,
    }
}

/// The dtype with this number in `TensorProto.DataType`.
pub(super) fn dtype_from_onnx(number: i64) -> Result<DType> {
    [DType::F32, DType::U8, DType::I32, DType::I64, DType::Bool, DType::F16, DType::F64, DType::BF16]
        .into_iter()
        .find(|dtype| onnx_dtype(*dtype) == number)
        .ok_or_else(|| Error::input(format!("ONNX element type {number} is not supported")))
}

impl Graph {
    /// The graph as the bytes of an `.onnx` file. External initialisers stay references.
    pub fn to_onnx(&self) -> Vec<u8> {
        let graph = GraphProto {
            node: self.nodes.iter().map(|node| self.encode_node(node)).collect(),
            name: Some(self.name.clone()),
            initializer: self
                .initializers
                .iter()
                .map(|(value, place)| self.encode_initializer(*value, place))
                .collect(),
            input: self.inputs.iter().map(|value| self.encode_value(*value)).collect(),
            output: self.outputs.iter().map(|value| self.encode_value(*value)).collect(),
            value_info: self.stated_values(),
        };
        let opset = |(domain, version): &(String, i64)| OperatorSetIdProto {
            domain: Some(domain.clone()),
            version: Some(*version),
        };
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some("digrap-bench".to_owned()),
            graph: Some(graph),
            opset_import: self.opsets.iter().map(opset).collect(),
            functions: self.functions.clone(),
        };
        model.encode_to_vec()
    }

    /// Reads the bytes of an `.onnx` file. Any operator and any attribute loads and is written back by
    /// [`Graph::to_onnx`].
    ///
    /// Nodes of opset 13 to 22 are brought into the form of opset [`OPSET`]; other opsets stay as they are. Constants,
    /// and what follows from constants by integer arithmetic, become initialisers. Where no shape rule says more (for
    /// operators without a row, and in a file of another opset), types are those that the file states.
    ///
    /// # Errors
    ///
    /// Input errors: no protobuf of a model; a node that reads what nothing before it makes; an initialiser that is
    /// damaged or of an element type without a [`DType`]; a node without a counterpart in opset [`OPSET`].
    pub fn from_onnx(bytes: &[u8]) -> Result<Self> {
        reader::read(ModelProto::decode_bytes(bytes)?)
    }

    fn encode_node(&self, node: &Node) -> NodeProto {
        let name = |value: Option<Value>| value.map_or_else(String::new, |value| self.name_of(value).to_owned());
        NodeProto {
            input: node.inputs.iter().map(|value| name(*value)).collect(),
            output: node.outputs.iter().map(|value| name(Some(*value))).collect(),
            name: Some(node.name.clone()),
            op_type: Some(node.op.clone()),
            attribute: node.attributes.iter().map(|(name, value)| encode_attribute(name, value)).collect(),
            domain: Some(node.domain.clone()),
        }
    }

    /// Types that reading the file could not infer, as a file states them.
    fn stated_values(&self) -> Vec<ValueInfoProto> {
        let mut stated = Vec::new();
        let constants: HashMap<Value, &Tensor> = self
            .initializers
            .iter()
            .filter_map(
                |(value, place)| if let Initializer::Inline(tensor) = place { Some((*value, tensor)) } else { None },
            )
            .collect();
        for node in &self.nodes {
            let inferred = self.infer(node, node.outputs.len(), |value| constants.get(&value).copied());
            let inferred = inferred.unwrap_or_default();
            for (at, output) in node.outputs.iter().enumerate() {
                let ty = self.type_of(*output);
                if ty.is_some() && ty != inferred.get(at) && !self.outputs.contains(output) {
                    stated.push(self.encode_value(*output));
                }
            }
        }
        stated
    }

    /// Types of a node's results, where its operator has a row for the opset of this graph and the types of its
    /// inputs are known. `constant` finds the constants inside the graph.
    pub(super) fn infer<'a>(
        &'a self,
        node: &Node,
        outputs: usize,
        constant: impl Fn(Value) -> Option<&'a Tensor>,
    ) -> Option<Vec<Type>> {
        let Node { domain, op, inputs, .. } = node;
        if !is_standard(domain) || self.opset() != Some(OPSET) {
            return None;
        }
        let row = ops::find(op)?;
        let mut types = Vec::with_capacity(inputs.len());
        for input in inputs {
            types.push(match input {
                Some(value) => Some(self.type_of(*value)?),
                None => None,
            });
        }
        let constants = inputs.iter().map(|input| input.and_then(&constant)).collect();
        (row.shape)(&Site { op, inputs: types, constants, attributes: node.attributes(), outputs }).ok()
    }

    fn encode_initializer(&self, value: Value, initializer: &Initializer) -> TensorProto {
        let name = Some(self.name_of(value).to_owned());
        match initializer {
            Initializer::Inline(tensor) => TensorProto { name, ..encode_tensor(tensor) },
            Initializer::External { file, offset, length } => {
                let ty = self.type_of(value);
                let entries =
                    [("location", file.clone()), ("offset", offset.to_string()), ("length", length.to_string())];
                TensorProto {
                    name,
                    dims: ty.map(fixed_dims).unwrap_or_default(),
                    data_type: ty.map(|ty| onnx_dtype(ty.dtype) as i32),
                    external_data: entries
                        .into_iter()
                        .map(|(key, value)| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) })
                        .collect(),
                    data_location: Some(EXTERNAL),
                    ..TensorProto::default()
                }
            }
        }
    }

    fn encode_value(&self, value: Value) -> ValueInfoProto {
        let ty = self.type_of(value).map(|ty| TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: Some(onnx_dtype(ty.dtype) as i32),
                shape: Some(TensorShapeProto { dim: ty.dims.iter().map(encode_dim).collect() }),
            }),
        });
        ValueInfoProto { name: Some(self.name_of(value).to_owned()), r#type: ty }
    }
}

impl ModelProto {
    /// The message in the bytes of an `.onnx` file.
    pub(super) fn decode_bytes(bytes: &[u8]) -> Result<Self> {
        Self::decode(bytes).map_err(|cause| Error::input("not an ONNX model").caused_by(cause))
    }
}

impl TensorProto {
    /// Whether its elements lie in another file.
    pub(super) fn is_external(&self) -> bool {
        self.data_location == Some(EXTERNAL)
    }
}

fn fixed_dims(ty: &Type) -> Vec<i64> {
    ty.dims.iter().map(|dim| if let Dim::Fixed(size) = dim { *size as i64 } else { 0 }).collect()
}

fn encode_dim(dim: &Dim) -> DimensionProto {
    match dim {
        Dim::Fixed(size) => DimensionProto { dim_value: Some(*size as i64), dim_param: None },
        Dim::Symbol(name) => DimensionProto { dim_value: None, dim_param: Some(name.to_string()) },
        Dim::Unknown => DimensionProto { dim_value: None, dim_param: None },
    }
}

fn encode_tensor(tensor: &Tensor) -> TensorProto {
    TensorProto {
        dims: tensor.shape().iter().map(|size| *size as i64).collect(),
        data_type: Some(onnx_dtype(tensor.dtype()) as i32),
        raw_data: Some(tensor.to_bytes()),
        ..TensorProto::default()
    }
}

fn encode_attribute(name: &str, attribute: &Attribute) -> Vec<u8> {
    let mut proto = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    proto.r#type = Some(match attribute {
        Attribute::Float(value) => {
            proto.f = Some(*value);
            KINDS[0]
        }
        Attribute::Int(value) => {
            proto.i = Some(*value);
            KINDS[1]
        }
        Attribute::Text(value) => {
            proto.s = Some(value.clone().into_bytes());
            KINDS[2]
        }
        Attribute::Tensor(value) => {
            proto.t = Some(encode_tensor(value));
            KINDS[3]
        }
        Attribute::Floats(values) => {
            proto.floats = values.clone();
            KINDS[4]
        }
        Attribute::Ints(values) => {
            proto.ints = values.clone();
            KINDS[5]
        }
        Attribute::Other(bytes) => return bytes.clone(),
    });
    proto.encode_to_vec()
}

pub(super) fn decode_type(info: &ValueInfoProto) -> Option<Type> {
    let tensor = info.r#type.as_ref()?.tensor_type.as_ref()?;
    let dtype = dtype_from_onnx(i64::from(tensor.elem_type?)).ok()?;
    let dims = tensor.shape.as_ref()?.dim.iter().map(|dim| match (dim.dim_value, &dim.dim_param) {
        (Some(size), _) => Dim::Fixed(size.max(0) as usize),
        (None, Some(symbol)) => Dim::from(symbol.as_str()),
        (None, None) => Dim::Unknown,
    });
    Some(Type { dtype, dims: dims.collect() })
}

pub(super) fn decode_initializer(proto: TensorProto) -> Result<(Type, Initializer)> {
    if !proto.is_external() {
        let tensor = decode_tensor(proto)?;
        return Ok((Type::of(&tensor), Initializer::Inline(tensor)));
    }
    let (dtype, shape) = head(&proto)?;
    let entry = |key: &str| {
        let found = proto.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
        found.and_then(|entry| entry.value.clone())
    };
    let number = |key: &str| entry(key).map(|text| text.parse::<u64>()).transpose();
    let bad = |cause| Error::input("the place of its external data is no number").caused_by(cause);
    let file = entry("location").ok_or_else(|| Error::input("external data without a file name"))?;
    let offset = number("offset").map_err(bad)?.unwrap_or(0);
    let length = number("length").map_err(bad)?.unwrap_or((shape.iter().product::<usize>() * dtype.size()) as u64);
    Ok((
        Type::new(dtype, shape.into_iter().map(Dim::Fixed).collect::<Vec<_>>()),
        Initializer::External { file, offset, length },
    ))
}

fn head(proto: &TensorProto) -> Result<(DType, Vec<usize>)> {
    let dtype = dtype_from_onnx(i64::from(proto.data_type.unwrap_or(0)))?;
    let negative = |_| Error::input("a negative dimension");
    let shape = proto.dims.iter().map(|size| usize::try_from(*size)).collect::<Result<_, _>>().map_err(negative)?;
    Ok((dtype, shape))
}

fn decode_tensor(proto: TensorProto) -> Result<Tensor> {
    let (dtype, shape) = head(&proto)?;
    if let Some(bytes) = &proto.raw_data {
        return Tensor::from_bytes(dtype, shape, bytes);
    }
    match dtype {
        DType::F32 => Tensor::new(shape, proto.float_data),
        DType::F64 => Tensor::new(shape, proto.double_data),
        DType::I64 => Tensor::new(shape, proto.int64_data),
        DType::I32 => Tensor::new(shape, proto.int32_data),
        DType::U8 => Tensor::new(shape, proto.int32_data.iter().map(|value| *value as u8).collect::<Vec<_>>()),
        DType::Bool => Tensor::new(shape, proto.int32_data.iter().map(|value| *value != 0).collect::<Vec<_>>()),
        DType::F16 | DType::BF16 => {
            let bytes: Vec<u8> = proto.int32_data.iter().flat_map(|value| (*value as u16).to_le_bytes()).collect();
            Tensor::from_bytes(dtype, shape, &bytes)
        }
    }
}

pub(super) fn decode_attribute(bytes: Vec<u8>) -> Result<(String, Attribute)> {
    let proto = AttributeProto::decode(&*bytes)
        .map_err(|cause| Error::input("an attribute is no ONNX attribute").caused_by(cause))?;
    let name = proto.name.clone().unwrap_or_default();
    let other = || Attribute::Other(bytes.clone());
    let kind = KINDS.iter().position(|kind| Some(*kind) == proto.r#type);
    // Writers of proto3 leave zeros and empty strings out.
    let attribute = match kind {
        Some(0) => Attribute::Float(proto.f.unwrap_or(0.0)),
        Some(1) => Attribute::Int(proto.i.unwrap_or(0)),
        Some(2) => String::from_utf8(proto.s.unwrap_or_default()).map_or_else(|_| other(), Attribute::Text),
        Some(3) => match proto.t {
            Some(tensor) if has_elements_here(&tensor) => Attribute::Tensor(
                decode_tensor(tensor).map_err(|error| error.within(format!("cannot read the tensor `{name}`")))?,
            ),
            _ => other(),
        },
        Some(4) => Attribute::Floats(proto.floats),
        Some(5) => Attribute::Ints(proto.ints),
        _ => other(),
    };
    Ok((name, attribute))
}

/// Whether a tensor is of a known element type and not in another file.
fn has_elements_here(proto: &TensorProto) -> bool {
    let dtype = dtype_from_onnx(i64::from(proto.data_type.unwrap_or(0)));
    dtype.is_ok() && !proto.is_external()
}

#[cfg(test)]
mod tests {
    use super::super::Builder;
    use super::*;

    fn small() -> Graph {
        let mut builder = Builder::new("small");
        let x = builder.input("x", Type::new(DType::F32, [Dim::from("batch"), Dim::from(4)])).unwrap();
        let place = || Ok(Initializer::External { file: "model.safetensors".into(), offset: 64, length: 48 });
        let weight =
            builder.parameter("linear.weight", &Type::new(DType::F32, [Dim::from(4), Dim::from(3)]), place).unwrap();
        let product = builder.matmul(x, weight).unwrap();
        let scaled = builder.scale(product, 0.5).unwrap();
        let flat = builder.reshape(scaled, &[-1]).unwrap();
        builder.output("y", flat).unwrap();
        builder.finish()
    }

    #[test]
    fn bytes_round_trip() {
        let graph = small();
        let bytes = graph.to_onnx();
        let back = Graph::from_onnx(&bytes).unwrap();
        assert_eq!(back.to_onnx(), bytes);
        let weight = back.find("linear.weight").unwrap();
        assert_eq!(back.type_of(weight).unwrap().to_string(), "f32[4,3]");
        assert_eq!(back.type_of(back.outputs[0]).unwrap().to_string(), "f32[3*batch]");
    }

    /// A file with one node that turns `x`, `f32[2]`, into `y` by way of `z`, which is stated to be `f32[7]`.
    fn file(opset: i64, node: NodeProto) -> Vec<u8> {
        let info = |name: &str, size: i64| {
            let dim = vec![DimensionProto { dim_value: Some(size), dim_param: None }];
            let tensor_type = Some(TensorTypeProto { elem_type: Some(1), shape: Some(TensorShapeProto { dim }) });
            ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type }) }
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let first = NodeProto { input: names(&["x"]), output: names(&["z"]), ..node };
        let last = NodeProto {
            input: names(&["z"]),
            output: names(&["y"]),
            op_type: Some("Unheard".into()),
            ..NodeProto::default()
        };
        let graph = GraphProto {
            node: vec![first, last],
            input: vec![info("x", 2)],
            output: vec![info("y", 3)],
            value_info: vec![info("z", 7)],
            ..GraphProto::default()
        };
        let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(opset) }];
        ModelProto { graph: Some(graph), opset_import, ..ModelProto::default() }.encode_to_vec()
    }

    fn node(op: &str, domain: &str, attribute: Vec<Vec<u8>>) -> NodeProto {
        NodeProto { op_type: Some(op.into()), domain: Some(domain.into()), attribute, ..NodeProto::default() }
    }

    fn attribute(name: &str, kind: i32) -> AttributeProto {
        AttributeProto { name: Some(name.into()), r#type: Some(kind), ..AttributeProto::default() }
    }

    #[test]
    fn attributes_without_a_variant_are_written_back() {
        const GRAPH: i32 = 5;
        let branch = {
            let mut bytes = attribute("then_branch", GRAPH).encode_to_vec();
            let graph = GraphProto { name: Some("branch".into()), ..GraphProto::default() };
            prost::encoding::message::encode(6, &graph, &mut bytes);
            bytes
        };
        let strings = TensorProto { data_type: Some(8), ..TensorProto::default() };
        let strings = AttributeProto { t: Some(strings), ..attribute("words", 4) }.encode_to_vec();
        let bytes_of_no_text = AttributeProto { s: Some(vec![0xff]), ..attribute("blob", 3) }.encode_to_vec();
        let kept = vec![branch, strings, bytes_of_no_text];
        let graph = Graph::from_onnx(&file(OPSET, node("If", "", kept.clone()))).unwrap();
        let names = ["then_branch", "words", "blob"].map(str::to_owned);
        let expected: Vec<_> = names.into_iter().zip(kept.iter().cloned().map(Attribute::Other)).collect();
        assert_eq!(graph.nodes[0].attributes, expected);
        let written = ModelProto::decode(&*graph.to_onnx()).unwrap().graph.unwrap();
        assert_eq!(written.node[0].attribute, kept);
        assert_eq!(Graph::from_onnx(&graph.to_onnx()).unwrap(), graph);
    }

    #[test]
    fn values_that_proto3_leaves_out_are_zero_or_empty() {
        let kinds = [("f", 1), ("i", 2), ("s", 3), ("floats", 6), ("ints", 7)];
        let attributes = kinds.map(|(name, kind)| attribute(name, kind).encode_to_vec()).to_vec();
        let graph = Graph::from_onnx(&file(OPSET, node("Unheard", "", attributes))).unwrap();
        let values: Vec<&Attribute> = graph.nodes[0].attributes.iter().map(|(_, value)| value).collect();
        let expected = [
            Attribute::Float(0.0),
            Attribute::Int(0),
            Attribute::Text(String::new()),
            Attribute::Floats(vec![]),
            Attribute::Ints(vec![]),
        ];
        assert_eq!(values, expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn shape_rules_are_for_their_opset_and_domain_and_stated_types_for_the_rest() {
        let cases = [
            (OPSET, "Exp", "", "f32[2]"),
            (OPSET, "Exp", "ai.onnx", "f32[2]"),
            (OPSET, "Exp", "elsewhere", "f32[7]"),
            (OPSET, "Unheard", "", "f32[7]"),
            (OPSET - 1, "Exp", "", "f32[2]"),
            (12, "Exp", "", "f32[7]"),
            (OPSET + 1, "Exp", "", "f32[7]"),
        ];
        for (opset, op, domain, expected) in cases {
            let graph = Graph::from_onnx(&file(opset, node(op, domain, vec![]))).unwrap();
            let again = Graph::from_onnx(&graph.to_onnx()).unwrap();
            for graph in [graph, again] {
                let ty = graph.type_of(graph.find("z").unwrap()).unwrap();
                assert_eq!(ty.to_string(), expected, "{op} of `{domain}` {opset}");
            }
        }
    }

    #[test]
    fn what_is_inferred_is_not_stated() {
        let written = ModelProto::decode(&*small().to_onnx()).unwrap().graph.unwrap();
        assert_eq!(written.value_info, []);
    }

    #[test]
    fn wrong_shapes_fail_where_they_are_written() {
        let mut builder = Builder::new("wrong");
        let x = builder.input("x", Type::new(DType::F32, [Dim::from(2), Dim::from(4)])).unwrap();
        builder.enter("layer");
        let error = builder.matmul(x, x).unwrap_err();
        assert!(error.to_string().starts_with("cannot emit `MatMul` (node `layer/MatMul_"), "{error}");
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(Graph::from_onnx(b"not a model").unwrap_err().to_string(), "not an ONNX model");
    }
}
