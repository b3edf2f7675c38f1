//! ONNX protobuf, the subset of `onnx.proto` (IR version 10) that graphs need. Unknown fields are skipped.

use std::collections::HashMap;

use prost::Message;

use super::ops::{self, Site};
use super::{Attribute, Dim, Graph, Initializer, Node, Type, Value};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

const IR_VERSION: i64 = 10;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, optional, tag = "1")]
    ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    producer_name: Option<String>,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, optional, tag = "1")]
    domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    version: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "13")]
    value_info: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    name: Option<String>,
    #[prost(string, optional, tag = "4")]
    op_type: Option<String>,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
    #[prost(string, optional, tag = "7")]
    domain: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(float, optional, tag = "2")]
    f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    s: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    t: Option<TensorProto>,
    #[prost(float, repeated, tag = "7")]
    floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, optional, tag = "20")]
    r#type: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    data_type: Option<i32>,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(string, optional, tag = "8")]
    name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "9")]
    raw_data: Option<Vec<u8>>,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringStringEntryProto>,
    #[prost(int32, optional, tag = "14")]
    data_location: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, optional, tag = "1")]
    key: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorTypeProto {
    #[prost(int32, optional, tag = "1")]
    elem_type: Option<i32>,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
struct DimensionProto {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

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
            value_info: Vec::new(),
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
        };
        model.encode_to_vec()
    }

    /// Reads the bytes of an `.onnx` file. Operators without a row load too; the types of their results are then
    /// known only where the file states them.
    pub fn from_onnx(bytes: &[u8]) -> Result<Self> {
        let model = ModelProto::decode(bytes).map_err(|cause| Error::input("not an ONNX model").caused_by(cause))?;
        let proto = model.graph.ok_or_else(|| Error::input("the ONNX model holds no graph"))?;
        let mut graph = Graph::new(proto.name.as_deref().unwrap_or("graph"));
        graph.opsets = model
            .opset_import
            .into_iter()
            .map(|opset| (opset.domain.unwrap_or_default(), opset.version.unwrap_or(1)))
            .collect();
        Reader { graph, values: HashMap::new() }.read(proto)
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

fn fixed_dims(ty: &Type) -> Vec<i64> {
    ty.dims.iter().map(|dim| if let Dim::Fixed(size) = dim { *size as i64 } else { 0 }).collect()
}

fn encode_dim(dim: &Dim) -> DimensionProto {
    match dim {
        Dim::Fixed(size) => DimensionProto { dim_value: Some(*size as i64), dim_param: None },
        Dim::Symbol(name) => DimensionProto { dim_value: None, dim_param: Some(name.to_string()) },
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

fn encode_attribute(name: &str, attribute: &Attribute) -> AttributeProto {
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
    });
    proto
}

struct Reader {
    graph: Graph,
    values: HashMap<String, Value>,
}

impl Reader {
    fn read(mut self, proto: GraphProto) -> Result<Graph> {
        let stated: HashMap<String, Type> = proto
            .value_info
            .iter()
            .chain(&proto.output)
            .filter_map(|info| Some((info.name.clone()?, decode_type(info)?)))
            .collect();
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
        for (index, node) in proto.node.into_iter().enumerate() {
            self.read_node(index, node, &stated)?;
        }
        for info in &proto.output {
            let name = info.name.as_deref().unwrap_or_default();
            let value = self.values.get(name).copied();
            self.graph.outputs.push(value.ok_or_else(|| Error::input(format!("no node makes the output `{name}`")))?);
        }
        Ok(self.graph)
    }

    fn declare(&mut self, name: String, ty: Option<Type>) -> Value {
        let value = self.graph.add_value(name.clone(), ty);
        self.values.insert(name, value);
        value
    }

    fn read_initializer(&mut self, tensor: TensorProto) -> Result<()> {
        let name = tensor.name.clone().unwrap_or_default();
        let within = |error: Error| error.within(format!("cannot read the initialiser `{name}`"));
        let (ty, initializer) = decode_initializer(tensor).map_err(within)?;
        let value = self.declare(name.clone(), Some(ty));
        self.graph.initializers.push((value, initializer));
        Ok(())
    }

    fn read_node(&mut self, index: usize, proto: NodeProto, stated: &HashMap<String, Type>) -> Result<()> {
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
        let attributes = proto
            .attribute
            .into_iter()
            .filter_map(|proto| decode_attribute(proto).transpose())
            .collect::<Result<Vec<_>>>()
            .map_err(|error| error.within(format!("cannot read the attributes of node `{name}`")))?;
        let inferred = self.infer(&op, &inputs, &attributes);
        let outputs = proto.output.into_iter().enumerate().map(|(at, output)| {
            let ty =
                inferred.as_ref().and_then(|types| types.get(at).cloned()).or_else(|| stated.get(&output).cloned());
            self.declare(output, ty)
        });
        let outputs = outputs.collect();
        self.graph.nodes.push(Node { name, op, domain: proto.domain.unwrap_or_default(), inputs, outputs, attributes });
        Ok(())
    }

    fn infer(&self, op: &str, inputs: &[Option<Value>], attributes: &[(String, Attribute)]) -> Option<Vec<Type>> {
        let row = ops::find(op)?;
        let mut types = Vec::with_capacity(inputs.len());
        for input in inputs {
            types.push(match input {
                Some(value) => Some(self.graph.type_of(*value)?),
                None => None,
            });
        }
        let constants = inputs.iter().map(|input| {
            let (_, initializer) = self.graph.initializers.iter().find(|(value, _)| Some(*value) == *input)?;
            match initializer {
                Initializer::Inline(tensor) => Some(tensor),
                Initializer::External { .. } => None,
            }
        });
        (row.shape)(&Site { op, inputs: types, constants: constants.collect(), attributes }).ok()
    }
}

fn decode_type(info: &ValueInfoProto) -> Option<Type> {
    let tensor = info.r#type.as_ref()?.tensor_type.as_ref()?;
    let dtype = dtype_from_onnx(i64::from(tensor.elem_type?)).ok()?;
    let name = info.name.as_deref().unwrap_or_default();
    let dims =
        tensor.shape.as_ref()?.dim.iter().enumerate().map(|(index, dim)| match (dim.dim_value, &dim.dim_param) {
            (Some(size), _) => Dim::Fixed(size.max(0) as usize),
            (None, Some(symbol)) => Dim::from(symbol.as_str()),
            (None, None) => Dim::from(format!("{name}.{index}").as_str()),
        });
    Some(Type { dtype, dims: dims.collect() })
}

fn decode_initializer(proto: TensorProto) -> Result<(Type, Initializer)> {
    if proto.data_location != Some(EXTERNAL) {
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

fn decode_attribute(proto: AttributeProto) -> Result<Option<(String, Attribute)>> {
    let name = proto.name.unwrap_or_default();
    let attribute = match proto.r#type {
        Some(kind) if kind == KINDS[0] => proto.f.map(Attribute::Float),
        Some(kind) if kind == KINDS[1] => proto.i.map(Attribute::Int),
        Some(kind) if kind == KINDS[2] => {
            proto.s.map(|text| Attribute::Text(String::from_utf8_lossy(&text).into_owned()))
        }
        Some(kind) if kind == KINDS[3] => proto.t.map(decode_tensor).transpose()?.map(Attribute::Tensor),
        Some(kind) if kind == KINDS[4] => Some(Attribute::Floats(proto.floats)),
        Some(kind) if kind == KINDS[5] => Some(Attribute::Ints(proto.ints)),
        // Sub-graphs and other kinds belong to operators without a row; nothing here reads them.
        _ => return Err(Error::input(format!("attribute `{name}` is of a kind that is not supported"))),
    };
    Ok(attribute.map(|attribute| (name, attribute)))
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

    #[test]
    fn wrong_shapes_fail_where_they_are_written() {
        let mut builder = Builder::new("wrong");
        let x = builder.input("x", Type::new(DType::F32, [Dim::from(2), Dim::from(4)])).unwrap();
        let error = builder.scoped("layer", |builder| builder.matmul(x, x)).unwrap_err();
        assert!(error.to_string().starts_with("cannot emit `MatMul` (node `layer/MatMul_"), "{error}");
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(Graph::from_onnx(b"not a model").unwrap_err().to_string(), "not an ONNX model");
    }
}
