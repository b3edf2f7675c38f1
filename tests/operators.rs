//! Every operator row against ONNX Runtime: the inferred shape is the shape it computes.

use std::collections::HashMap;

use digrap_bench::error::Result;
use digrap_bench::graph::ops::OPS;
use digrap_bench::graph::{Attribute, Builder, Dim, Type, Value};
use digrap_bench::runtime::{DeviceTensor, Session};
use digrap_bench::tensor::{DType, Tensor};

use crate::support::{runtime, session_options};

/// Sizes of the symbols that inputs are declared with.
const SIZES: [(&str, usize); 3] = [("batch", 2), ("tokens", 5), ("past", 3)];

type Build = fn(&mut Builder, &[Value]) -> Result<Vec<Value>>;

struct Case {
    op: &'static str,
    /// Dimensions of the inputs as `batch,4`; floats unless the text starts with `i:` or `b:`.
    inputs: &'static [&'static str],
    build: Build,
}

fn one(value: Result<Value>) -> Result<Vec<Value>> {
    value.map(|value| vec![value])
}

macro_rules! plain {
    ($op:literal, $($input:literal),+) => {
        Case { op: $op, inputs: &[$($input),+], build: |builder, x| one(builder.op($op, x, &[])) }
    };
}

macro_rules! case {
    ($op:literal, [$($input:literal),+], $build:expr) => {
        Case { op: $op, inputs: &[$($input),+], build: $build }
    };
}

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

fn cases() -> Vec<Case> {
    vec![
        plain!("Add", "batch,1,4", "tokens,4"),
        plain!("Sub", "batch,4", "4"),
        plain!("Mul", "batch,tokens", "1,tokens"),
        plain!("Div", "batch,4", "batch,1"),
        plain!("Pow", "batch,4", "1"),
        plain!("Max", "batch,4", "4"),
        plain!("Min", "batch,4", "4"),
        plain!("And", "b:batch,4", "b:4"),
        plain!("Or", "b:batch,4", "b:4"),
        plain!("Equal", "i:batch,4", "i:4"),
        plain!("Less", "batch,1", "1,tokens"),
        plain!("LessOrEqual", "batch,4", "4"),
        plain!("Greater", "i:batch,1", "i:1,tokens"),
        plain!("GreaterOrEqual", "batch,4", "4"),
        plain!("Where", "b:batch,1,tokens", "4,1", "1"),
        plain!("Identity", "batch,4"),
        plain!("Neg", "batch,4"),
        plain!("Not", "b:batch,4"),
        plain!("Exp", "batch,4"),
        plain!("Log", "batch,4"),
        plain!("Sqrt", "batch,4"),
        plain!("Reciprocal", "batch,4"),
        plain!("Sin", "batch,4"),
        plain!("Cos", "batch,4"),
        plain!("Tanh", "batch,4"),
        plain!("Sigmoid", "batch,4"),
        plain!("Erf", "batch,4"),
        plain!("Relu", "batch,4"),
        plain!("Gelu", "batch,4"),
        plain!("Softmax", "batch,tokens"),
        plain!("LogSoftmax", "batch,tokens"),
        plain!("RMSNormalization", "batch,tokens,4", "4"),
        plain!("LayerNormalization", "batch,tokens,4", "4", "4"),
        plain!("RotaryEmbedding", "batch,3,tokens,4", "batch,tokens,2", "batch,tokens,2"),
        case!("Cast", ["batch,4"], |builder, x| one(builder.cast(x[0], DType::F16))),
        plain!("MatMul", "batch,3,tokens,4", "4,6"),
        plain!("MatMul", "batch,3,tokens,4", "batch,1,4,past"),
        case!("Conv", ["batch,3,9,10", "4,3,3,2", "4"], |builder, x| one(builder.op(
            "Conv",
            x,
            &[("strides", ints(&[2, 3])), ("pads", ints(&[1, 0, 2, 1])), ("dilations", ints(&[2, 1])),]
        ))),
        case!("ReduceSum", ["batch,tokens,4"], |builder, x| reduce(builder, "ReduceSum", x[0], &[1, -1], 1)),
        case!("ReduceMean", ["batch,tokens,4"], |builder, x| reduce(builder, "ReduceMean", x[0], &[0], 0)),
        case!("ReduceMax", ["batch,tokens,4"], |builder, x| reduce(builder, "ReduceMax", x[0], &[-1], 0)),
        case!("ReduceLogSumExp", ["batch,4"], |builder, x| reduce(builder, "ReduceLogSumExp", x[0], &[-1], 1)),
        plain!("ReduceSum", "batch,4"),
        case!("ArgMax", ["batch,tokens"], |builder, x| one(builder.op(
            "ArgMax",
            x,
            &[("axis", Attribute::Int(-1)), ("keepdims", Attribute::Int(0)),]
        ))),
        case!("TopK", ["batch,tokens"], |builder, x| {
            let count = builder.ints(&[2])?;
            builder.node("TopK", &[Some(x[0]), Some(count)], &[("axis", Attribute::Int(1))])
        }),
        case!("Transpose", ["batch,tokens,4"], |builder, x| one(builder.transpose(x[0], &[2, 0, 1]))),
        plain!("Transpose", "batch,tokens,4"),
        case!("Reshape", ["batch,tokens,6"], |builder, x| one(builder.reshape(x[0], &[0, 0, 2, 3]))),
        case!("Reshape", ["batch,2,tokens,3"], |builder, x| {
            // Two unknown sizes, taken apart again: the factor must survive the way there and back.
            let joined = builder.reshape(x[0], &[0, -1, 3])?;
            one(builder.reshape(joined, &[0, 2, -1, 3]))
        }),
        case!("Reshape", ["batch,tokens,6"], |builder, x| one(builder.reshape(x[0], &[-1]))),
        case!("Squeeze", ["batch,1,4,1"], |builder, x| {
            let axes = builder.ints(&[1, -1])?;
            one(builder.op("Squeeze", &[x[0], axes], &[]))
        }),
        case!("Unsqueeze", ["batch,4"], |builder, x| one(builder.unsqueeze(x[0], &[0, -1]))),
        case!("Concat", ["batch,past,4", "batch,2,4"], |builder, x| one(builder.concat(x, 1))),
        case!("Slice", ["batch,tokens,8"], |builder, x| {
            let last = builder.slice(x[0], 1, -1, i64::MAX)?;
            one(builder.slice(last, 2, 1, -2))
        }),
        case!("Gather", ["batch,tokens,4"], |builder, x| {
            let rows = builder.constant(Tensor::new([1, 3], vec![1i64, 0, 1])?)?;
            one(builder.gather(x[0], rows, 0))
        }),
        plain!("Shape", "batch,tokens,4"),
    ]
}

fn reduce(builder: &mut Builder, op: &str, x: Value, axes: &[i64], keep: i64) -> Result<Vec<Value>> {
    let axes = builder.ints(axes)?;
    one(builder.op(op, &[x, axes], &[("keepdims", Attribute::Int(keep))]))
}

fn declared(text: &str) -> (DType, Vec<Dim>) {
    let (dtype, dims) = match text.split_once(':') {
        Some(("i", dims)) => (DType::I64, dims),
        Some((_, dims)) => (DType::Bool, dims),
        None => (DType::F32, text),
    };
    let dim = |part: &str| part.parse::<usize>().map_or_else(|_| Dim::from(part), Dim::from);
    (dtype, dims.split(',').map(dim).collect())
}

/// The number that a dimension stands for, derived ones such as `2*tokens` and `past+2` included.
fn size(dim: &Dim, sizes: &HashMap<&str, usize>) -> usize {
    let factor = |text: &str| text.parse().unwrap_or_else(|_| sizes[text]);
    dim.to_string().split('+').map(|term| term.split('*').map(factor).product::<usize>()).sum()
}

fn filled(dtype: DType, shape: Vec<usize>) -> Tensor {
    let count = shape.iter().product();
    match dtype {
        DType::I64 => Tensor::new(shape, (0..count).map(|index| index as i64).collect()),
        DType::Bool => Tensor::new(shape, (0..count).map(|index| index % 2 == 0).collect()),
        _ => Tensor::new(shape, (0..count).map(|index| 0.5 + index as f32 / 8.0).collect()),
    }
    .unwrap()
}

fn check(case: &Case, sizes: &HashMap<&str, usize>) {
    let mut builder = Builder::new(case.op);
    let (mut values, mut fed) = (Vec::new(), Vec::new());
    for (index, text) in case.inputs.iter().enumerate() {
        let (dtype, dims) = declared(text);
        let shape = dims.iter().map(|dim| size(dim, sizes)).collect();
        let name = format!("x{index}");
        values.push(builder.input(&name, Type::new(dtype, dims)).unwrap());
        fed.push((name, runtime().tensor(filled(dtype, shape)).unwrap()));
    }
    let results = (case.build)(&mut builder, &values).unwrap();
    let mut expected = Vec::new();
    for (index, result) in results.iter().enumerate() {
        let dims = &builder.ty(*result).unwrap().dims;
        expected.push(dims.iter().map(|dim| size(dim, sizes)).collect::<Vec<_>>());
        builder.output(&format!("y{index}"), *result).unwrap();
    }
    let graph = builder.finish();
    let mut session = Session::new(&runtime(), &graph, std::path::Path::new("."), &session_options()).unwrap();
    let inputs: Vec<(&str, &DeviceTensor)> = fed.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let names: Vec<String> = (0..results.len()).map(|index| format!("y{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outputs = session.run(&inputs, &[], &names).unwrap();
    let found: Vec<Vec<usize>> = outputs.iter().map(DeviceTensor::shape).collect();
    assert_eq!(found, expected, "{} over {:?}", case.op, case.inputs);
}

#[test]
fn inferred_shapes_are_what_onnx_runtime_computes() {
    let sizes = HashMap::from(SIZES);
    let cases = cases();
    for row in OPS {
        assert!(cases.iter().any(|case| case.op == row.name), "`{}` has no case", row.name);
    }
    for case in &cases {
        check(case, &sizes);
    }
}
