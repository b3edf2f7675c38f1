//! Every operator row against ONNX Runtime: the inferred shape is the shape it computes, and the gradient is the central
//! difference of what it computes.

use std::collections::HashMap;
use std::path::Path;

use digrap_bench::error::Result;
use digrap_bench::graph::ops::{Case, CaseInput, Filling, Gradient, OPS, Op};
use digrap_bench::graph::{Attribute, Builder, Dim, Graph, Type, Value, gradients};
use digrap_bench::runtime::{DeviceTensor, Session};
use digrap_bench::tensor::{DType, Tensor};

use crate::support::{Random, runtime, session_options, shared_operators};

/// Sizes of the symbols that inputs are declared with.
const SMALL: [(&str, usize); 3] = [("batch", 2), ("tokens", 5), ("past", 3)];
/// Large enough for the runtime to split the work between threads.
const LARGE: [(&str, usize); 3] = [("batch", 48), ("tokens", 130), ("past", 67)];
/// Elements of the largest input that counts as large.
const LARGE_ELEMENTS: usize = 20_000;
/// Runs whose bytes are compared.
const REPETITIONS: usize = 20;

fn rows() -> impl Iterator<Item = &'static Op> {
    OPS.iter().flat_map(|rows| rows.iter())
}

/// A case with sizes and values, in one precision.
struct Trial<'a> {
    op: &'static str,
    case: &'a Case,
    dtype: DType,
    /// Values of the fed inputs, in double precision if they are floats.
    fed: Vec<Tensor>,
}

/// The number that a dimension stands for, derived ones such as `2*tokens` and `past+2` included.
fn size(dim: &Dim, sizes: &HashMap<&str, usize>) -> usize {
    let factor = |text: &str| text.parse().unwrap_or_else(|_| sizes[text]);
    dim.to_string().split('+').map(|term| term.split('*').map(factor).product::<usize>()).sum()
}

fn filled(values: Filling, shape: Vec<usize>, random: &mut Random) -> Tensor {
    let count: usize = shape.iter().product();
    match values {
        Filling::Below(bound) => Tensor::new(shape, (0..count).map(|_| random.below(bound) as i64).collect::<Vec<_>>()),
        Filling::Truth => Tensor::new(shape, (0..count).map(|_| random.below(2) == 0).collect::<Vec<_>>()),
        Filling::Normal => Tensor::new(shape, (0..count).map(|_| random.normal()).collect::<Vec<f64>>()),
        Filling::Positive => Tensor::new(shape, (0..count).map(|_| 0.5 + 1.5 * random.uniform()).collect::<Vec<f64>>()),
        Filling::Distinct => {
            let mut values: Vec<f64> =
                (0..count).map(|index| (index as f64 + 0.5) / count as f64 * 4.0 - 2.0).collect();
            random.shuffle(&mut values);
            Tensor::new(shape, values)
        }
    }
    .unwrap()
}

impl<'a> Trial<'a> {
    fn new(op: &'static str, case: &'a Case, dtype: DType, sizes: &HashMap<&str, usize>) -> Self {
        let mut random = Random::new(7);
        let mut fed = Vec::new();
        for input in case.inputs.iter().flatten() {
            if let CaseInput::Fed { ty, values } = input {
                let shape = ty.dims.iter().map(|dim| size(dim, sizes)).collect();
                fed.push(filled(*values, shape, &mut random));
            }
        }
        Self { op, case, dtype, fed }
    }

    /// The node over inputs `x0`, `x1`, ...; returns its results and the floating-point inputs.
    fn emit(&self, builder: &mut Builder) -> Result<(Vec<Value>, Vec<Value>)> {
        let (mut inputs, mut floats, mut number) = (Vec::new(), Vec::new(), 0);
        for input in &self.case.inputs {
            inputs.push(match input {
                None => None,
                Some(CaseInput::Constant(tensor)) => Some(builder.constant(self.cast(tensor))?),
                Some(CaseInput::Fed { ty, .. }) => {
                    let dtype = if ty.dtype.is_float() { self.dtype } else { ty.dtype };
                    let dims = match self.case.unknown {
                        true => vec![Dim::Unknown; ty.dims.len()],
                        false => ty.dims.clone(),
                    };
                    let value = builder.input(&format!("x{number}"), Type::new(dtype, dims))?;
                    number += 1;
                    if dtype.is_float() {
                        floats.push(value);
                    }
                    Some(value)
                }
            });
        }
        let attributes: Vec<(&str, Attribute)> =
            self.case.attributes.iter().map(|(name, value)| (*name, value.clone())).collect();
        Ok((builder.node(self.op, &inputs, &attributes)?, floats))
    }

    fn cast(&self, tensor: &Tensor) -> Tensor {
        match (tensor.values::<f64>(), self.dtype) {
            (Ok(values), DType::F32) => {
                Tensor::new(tensor.shape(), values.iter().map(|value| *value as f32).collect()).unwrap()
            }
            _ => match (tensor.values::<f32>(), self.dtype) {
                (Ok(values), DType::F64) => {
                    Tensor::new(tensor.shape(), values.iter().map(|value| f64::from(*value)).collect()).unwrap()
                }
                _ => tensor.clone(),
            },
        }
    }

    /// The inputs of a graph by name: `x0`, `x1`, ... from `fed`, `w0`, `w1`, ... from `weights`.
    fn device_inputs(&self, fed: &[Tensor], weights: &[Tensor]) -> Vec<(String, DeviceTensor)> {
        let named =
            names('x', fed.len()).into_iter().zip(fed).chain(names('w', weights.len()).into_iter().zip(weights));
        named.map(|(name, tensor)| (name, runtime().tensor(self.cast(tensor)).unwrap())).collect()
    }

    /// Random weights of the floating-point results.
    fn weights(&self, random: &mut Random) -> Result<Vec<Tensor>> {
        let mut builder = Builder::new(self.op);
        let (results, _) = self.emit(&mut builder)?;
        let outputs = names('y', results.len());
        let float: Vec<bool> = results.iter().map(|result| builder.ty(*result).unwrap().dtype.is_float()).collect();
        for (name, result) in outputs.iter().zip(&results) {
            builder.output(name, *result)?;
        }
        let found = run(&mut session(&builder.finish())?, &self.device_inputs(&self.fed, &[]), &outputs)?;
        let weighted = found.iter().zip(float).filter(|(_, float)| *float);
        Ok(weighted.map(|(result, _)| filled(Filling::Normal, result.shape(), random)).collect())
    }
}

fn session(graph: &Graph) -> Result<Session> {
    Session::new(&runtime(), graph, Path::new("."), &session_options())
}

fn run(session: &mut Session, inputs: &[(String, DeviceTensor)], outputs: &[String]) -> Result<Vec<DeviceTensor>> {
    let inputs: Vec<(&str, &DeviceTensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    session.run(&inputs, &[], &outputs.iter().map(String::as_str).collect::<Vec<_>>())
}

fn doubles(tensor: &DeviceTensor) -> Vec<f64> {
    tensor
        .values::<f64>()
        .map(<[f64]>::to_vec)
        .unwrap_or_else(|_| tensor.values::<f32>().unwrap().iter().map(|value| f64::from(*value)).collect())
}

fn names(letter: char, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{letter}{index}")).collect()
}

fn check_shapes(row: &'static Op, case: &Case, sizes: &HashMap<&str, usize>) {
    let trial = Trial::new(row.name, case, DType::F32, sizes);
    let mut builder = Builder::new(row.name);
    let (results, _) = trial.emit(&mut builder).unwrap();
    let types: Vec<Type> = results.iter().map(|result| builder.ty(*result).unwrap().clone()).collect();
    for (name, result) in names('y', results.len()).iter().zip(&results) {
        builder.output(name, *result).unwrap();
    }
    let outputs = names('y', results.len());
    let found = run(&mut session(&builder.finish()).unwrap(), &trial.device_inputs(&trial.fed, &[]), &outputs);
    let found = found.unwrap_or_else(|error| panic!("{} over {:?}: {error:?}", row.name, case.inputs));
    for (found, ty) in found.iter().zip(types) {
        assert_eq!(found.shape().len(), ty.dims.len(), "{} over {:?}: {ty}", row.name, case.inputs);
        for (found, dim) in found.shape().into_iter().zip(&ty.dims) {
            let expected = if *dim == Dim::Unknown { found } else { size(dim, sizes) };
            assert_eq!(found, expected, "{} over {:?}: {ty}", row.name, case.inputs);
        }
    }
}

#[test]
fn inferred_shapes_are_what_onnx_runtime_computes() {
    let sizes = HashMap::from(SMALL);
    for row in rows() {
        let cases = (row.cases)();
        assert!(!cases.is_empty(), "`{}` has no case", row.name);
        for case in &cases {
            check_shapes(row, case, &sizes);
        }
    }
}

/// The loss, which is the sum over all floating-point results times the inputs `w0`, `w1`, ..., and the gradients `g0`,
/// `g1`, ...; also the names of the gradients.
fn differentiated(trial: &Trial) -> Result<(Graph, Vec<String>)> {
    let mut builder = Builder::new(trial.op);
    let (results, floats) = trial.emit(&mut builder)?;
    let (mut loss, mut number) = (None, 0);
    for result in results {
        let ty = builder.ty(result)?.clone();
        if ty.dtype.is_float() {
            let weights = builder.input(&format!("w{number}"), ty)?;
            let weighted = builder.mul(result, weights)?;
            let part = builder.op("ReduceSum", &[weighted], &[("keepdims", Attribute::Int(0))])?;
            loss = Some(loss.map_or(Ok(part), |loss| builder.add(loss, part))?);
            number += 1;
        }
    }
    let loss = loss.unwrap();
    let found = gradients(&mut builder, loss, &floats, &[])?;
    let outputs = names('g', found.len());
    for (name, gradient) in outputs.iter().zip(found) {
        let gradient = gradient.unwrap_or_else(|| panic!("{}: `{name}` is missing", trial.op));
        builder.output(name, gradient)?;
    }
    builder.output("loss", loss)?;
    Ok((builder.finish(), outputs))
}

/// The derivative of the loss along one random direction, by the gradients and by a central difference.
fn directional(trial: &Trial) -> Result<(f64, f64)> {
    let mut random = Random::new(11);
    let weights = trial.weights(&mut random)?;
    let (graph, mut outputs) = differentiated(trial)?;
    let mut session = session(&graph)?;
    let found = run(&mut session, &trial.device_inputs(&trial.fed, &weights), &outputs)?;
    let is_float = |tensor: &&Tensor| tensor.dtype().is_float();
    let directions: Vec<Vec<f64>> = trial
        .fed
        .iter()
        .filter(is_float)
        .map(|tensor| (0..tensor.shape().iter().product()).map(|_| random.normal()).collect())
        .collect();
    for (gradient, tensor) in found.iter().zip(trial.fed.iter().filter(is_float)) {
        assert_eq!(gradient.shape(), tensor.shape(), "{}: shape of a gradient", trial.op);
    }
    let product = |(gradient, direction): (&DeviceTensor, &Vec<f64>)| {
        doubles(gradient).iter().zip(direction).map(|(a, b)| a * b).sum::<f64>()
    };
    let analytic = found.iter().zip(&directions).map(product).sum();
    let step = if trial.dtype == DType::F64 { 1e-5 } else { 2e-3 };
    outputs = vec!["loss".to_owned()];
    let mut loss_at = |sign: f64| -> Result<f64> {
        let mut direction = directions.iter();
        let moved: Vec<Tensor> = trial
            .fed
            .iter()
            .map(|tensor| match tensor.values::<f64>() {
                Ok(values) => {
                    let moves = direction.next().unwrap();
                    let values = values.iter().zip(moves).map(|(value, by)| value + sign * step * by).collect();
                    Tensor::new(tensor.shape(), values).unwrap()
                }
                Err(_) => tensor.clone(),
            })
            .collect();
        Ok(doubles(&run(&mut session, &trial.device_inputs(&moved, &weights), &outputs)?[0])[0])
    };
    Ok((analytic, (loss_at(1.0)? - loss_at(-1.0)?) / (2.0 * step)))
}

/// In double precision where ONNX Runtime has the kernels, else in single precision.
fn check_gradient(op: &'static str, case: &Case) -> std::result::Result<(), String> {
    let sizes = HashMap::from(SMALL);
    let attempt = directional(&Trial::new(op, case, DType::F64, &sizes)).map(|found| (found, 1e-6));
    let attempt = attempt
        .or_else(|_| directional(&Trial::new(op, case, DType::F32, &sizes)).map(|found| (found, 2e-2)))
        .map_err(|error| format!("{op} over {:?}: {error:?}", case.inputs))?;
    let ((analytic, numeric), tolerance) = attempt;
    if (analytic - numeric).abs() <= tolerance * numeric.abs().max(1.0) {
        return Ok(());
    }
    Err(format!("{op} over {:?}: {analytic} by the rule, {numeric} by differences", case.inputs))
}

#[test]
fn gradients_are_central_differences() {
    for row in rows().filter(|row| matches!(row.gradient, Gradient::Rule(_))) {
        for case in (row.cases)() {
            check_gradient(row.name, &case).unwrap();
        }
    }
}

/// What a test on tiny tensors cannot see: work that is split between threads gives the same bytes on each run, and they
/// are those of one thread to rounding.
#[test]
fn large_gradients_are_the_same_on_every_run() {
    let sizes = HashMap::from(LARGE);
    for row in rows().filter(|row| matches!(row.gradient, Gradient::Rule(_))) {
        let cases = (row.cases)();
        let elements = cases.iter().map(|case| check_large(&Trial::new(row.name, case, DType::F32, &sizes))).max();
        assert!(elements >= Some(LARGE_ELEMENTS), "{}: the largest case has {elements:?} elements", row.name);
    }
}

/// Returns the elements of the largest input or result; runs the case only if they are many.
fn check_large(trial: &Trial) -> usize {
    let weights = trial.weights(&mut Random::new(11)).unwrap();
    let tensors = trial.fed.iter().chain(&weights);
    let elements = tensors.map(|tensor| tensor.shape().iter().product::<usize>()).max().unwrap_or(0);
    if elements < LARGE_ELEMENTS {
        return elements;
    }
    let (graph, outputs) = differentiated(trial).unwrap();
    let inputs = trial.device_inputs(&trial.fed, &weights);
    let alone = run(&mut session(&graph).unwrap(), &inputs, &outputs).unwrap();
    let mut shared = Session::new(&runtime(), &graph, Path::new("."), &shared_operators()).unwrap();
    let first: Vec<Vec<f64>> = run(&mut shared, &inputs, &outputs).unwrap().iter().map(doubles).collect();
    for (one, many) in alone.iter().map(doubles).zip(&first) {
        let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let difference: Vec<f64> = one.iter().zip(many).map(|(a, b)| a - b).collect();
        assert!(norm(&difference) <= 1e-4 * norm(&one), "{}: threads change the gradient", trial.op);
    }
    for _ in 1..REPETITIONS {
        let again: Vec<Vec<f64>> = run(&mut shared, &inputs, &outputs).unwrap().iter().map(doubles).collect();
        assert!(again == first, "{}: two runs differ", trial.op);
    }
    elements
}

/// A rule that is wrong is caught: twice the gradient of every row but those of zero.
#[test]
fn a_wrong_rule_is_caught() {
    let case = Case::new().input("batch,4").input("4");
    let trial = Trial::new("Mul", &case, DType::F64, &HashMap::from(SMALL));
    let (analytic, numeric) = directional(&trial).unwrap();
    assert!((analytic - numeric).abs() < 1e-6 * numeric.abs().max(1.0));
    assert!((2.0 * analytic - numeric).abs() > 1e-2 * numeric.abs().max(1.0));
}
