//! Every operator row against ONNX Runtime: the inferred shape is the shape it computes, and the gradient is the central
//! difference of what it computes.

use std::collections::HashMap;
use std::path::Path;

use digrap_bench::error::Result;
use digrap_bench::graph::ops::{Case, CaseInput, Filling, Gradient, OPS, Op, Rule, Use};
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
    /// The rule to check in place of the row's, over inputs that are not broadcast.
    rule: Option<Rule>,
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
        Self { op, case, dtype, fed, rule: None }
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
        let mut results = builder.node(self.op, &inputs, &attributes)?;
        let node = builder.nodes().last().unwrap().clone();
        for index in results.len()..self.case.results {
            results.push(builder.optional_output(&node, index)?);
        }
        Ok((results, floats))
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
    let node = builder.nodes().last().unwrap().clone();
    let (mut loss, mut number, mut seeds) = (None, 0, Vec::new());
    for result in results {
        let ty = builder.ty(result)?.clone();
        seeds.push(None);
        if ty.dtype.is_float() {
            let weights = builder.input(&format!("w{number}"), ty)?;
            seeds[number] = Some(weights);
            let weighted = builder.mul(result, weights)?;
            let part = builder.op("ReduceSum", &[weighted], &[("keepdims", Attribute::Int(0))])?;
            loss = Some(loss.map_or(Ok(part), |loss| builder.add(loss, part))?);
            number += 1;
        }
    }
    let loss = loss.unwrap();
    let found = match trial.rule {
        None => gradients(&mut builder, loss, &floats, &[])?,
        Some(rule) => rule(&mut builder, &Use { node: &node, gradients: &seeds })?,
    };
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

/// Whether the row's rule, or `rule` in its place, gives the differences: in double precision where ONNX Runtime has the
/// kernels, else in single precision.
fn check_gradient(op: &'static str, case: &Case, rule: Option<Rule>) -> std::result::Result<(), String> {
    let sizes = HashMap::from(SMALL);
    let attempt = |dtype, tolerance| {
        let trial = Trial { rule, ..Trial::new(op, case, dtype, &sizes) };
        directional(&trial).map(|found| (found, tolerance))
    };
    let attempt = attempt(DType::F64, 1e-6)
        .or_else(|_| attempt(DType::F32, 2e-2))
        .map_err(|error| format!("{op} over {:?}: {error:?}", case.inputs))?;
    let ((analytic, numeric), tolerance) = attempt;
    if (analytic - numeric).abs() <= tolerance * numeric.abs().max(1.0) {
        return Ok(());
    }
    Err(format!("{op} over {:?}: {analytic} by the rule, {numeric} by differences", case.inputs))
}

#[test]
fn gradients_are_central_differences() {
    let mut failures = Vec::new();
    for row in rows().filter(|row| matches!(row.gradient, Gradient::Rule(_))) {
        failures.extend((row.cases)().iter().filter_map(|case| check_gradient(row.name, case, None).err()));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
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

/// The gradient as it is, whatever the operator.
fn nothing_done(_: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![site.gradients[0]; site.node.inputs.len()])
}

/// The gradient times the output: for a softmax its first term only.
fn times_output(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    Ok(vec![Some(builder.mul(site.gradient()?, site.output(0)?)?)])
}

/// The gradient times the input of the same number, which is the wrong one for a product.
fn times_input(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let gradient = site.gradient()?;
    (0..site.node.inputs.len()).map(|index| builder.mul(gradient, site.input(index)?).map(Some)).collect()
}

/// The check fails for rules that lack a term, a factor or a sign, or take the wrong input, and only for these.
#[test]
fn a_wrong_rule_is_caught() {
    let one = || Case::new().input("batch,tokens,4");
    let two = || one().input("+:batch,tokens,4");
    let wrong: [(&'static str, Case, Rule); 5] = [
        ("Softmax", one(), times_output),
        ("Erf", one(), nothing_done),
        ("Sub", two(), nothing_done),
        ("Mul", two(), times_input),
        ("Div", two(), times_input),
    ];
    for (op, case, rule) in wrong {
        let Gradient::Rule(right) = rows().find(|row| row.name == op).unwrap().gradient else { panic!("{op}") };
        check_gradient(op, &case, Some(right)).unwrap();
        let error = check_gradient(op, &case, Some(rule)).unwrap_err();
        assert!(error.contains("by the rule"), "{error}");
    }
}

/// In training the elements that `Dropout` kept have the scale of the gradient, the others none. Differences cannot show
/// it, as each run drops others.
#[test]
fn dropout_hands_the_gradient_to_what_it_kept() {
    let case = Case::new().input("+:batch,tokens,4").constant(Tensor::scalar(0.25f32)).constant(Tensor::scalar(true));
    let trial = Trial::new("Dropout", &case, DType::F32, &HashMap::from(LARGE));
    let mut builder = Builder::new("dropout");
    let (results, floats) = trial.emit(&mut builder).unwrap();
    let loss = builder.op("ReduceSum", &results, &[("keepdims", Attribute::Int(0))]).unwrap();
    let gradient = gradients(&mut builder, loss, &floats, &[]).unwrap()[0].unwrap();
    builder.output("y", results[0]).unwrap();
    builder.output("g", gradient).unwrap();
    let outputs = ["y".to_owned(), "g".to_owned()];
    let inputs = trial.device_inputs(&trial.fed, &[]);
    let found = run(&mut session(&builder.finish()).unwrap(), &inputs, &outputs).unwrap();
    let (results, gradients, data) = (doubles(&found[0]), doubles(&found[1]), trial.fed[0].values::<f64>().unwrap());
    for ((result, gradient), data) in results.iter().zip(&gradients).zip(data) {
        assert!((result - gradient * data).abs() < 1e-5, "{result} of {data}: {gradient}");
        assert!(*gradient == 0.0 || (gradient - 1.0 / 0.75).abs() < 1e-6, "{gradient}");
    }
    let kept = gradients.iter().filter(|gradient| **gradient != 0.0).count() as f64 / data.len() as f64;
    assert!((kept - 0.75).abs() < 0.02, "{kept} of the elements are kept");
}

/// The gradients of the sum of an operator's results at `fed` vectors and constants.
fn gradients_at(op: &'static str, case: &Case, fed: &[&[f64]]) -> Vec<Vec<f64>> {
    let fed = fed.iter().map(|values| Tensor::vector(values.to_vec())).collect();
    let trial = Trial { op, case, dtype: DType::F64, fed, rule: None };
    let (graph, outputs) = differentiated(&trial).unwrap();
    let result = trial.weights(&mut Random::new(1)).unwrap();
    let ones: Vec<Tensor> = result
        .iter()
        .map(|result| Tensor::new(result.shape(), vec![1.0; result.shape().iter().product()]).unwrap())
        .collect();
    let found = run(&mut session(&graph).unwrap(), &trial.device_inputs(&trial.fed, &ones), &outputs).unwrap();
    found.iter().map(doubles).collect()
}

/// Where no difference can be taken: gradients at ties, at zero and at bounds are those of PyTorch 2.
#[test]
fn gradients_at_corners_are_those_of_pytorch() {
    let (one, two) = (|| Case::new().input("4"), || Case::new().input("4").input("4"));
    let number = |value: f32| Tensor::scalar(value);
    let halves = gradients_at("Max", &two(), &[&[1.0, 2.0, 3.0, 0.0], &[1.0, 1.0, 4.0, 0.0]]);
    assert_eq!(halves, [[0.5, 1.0, 0.0, 0.5], [0.5, 0.0, 1.0, 0.5]]);
    let powers = gradients_at("Pow", &two(), &[&[0.0, 0.0, -2.0, 0.0], &[0.0, 1.0, 0.0, 2.0]]);
    assert_eq!(powers[0], [0.0, 1.0, 0.0, 0.0]);
    assert_eq!([powers[1][0], powers[1][1], powers[1][3]], [0.0; 3]);
    let square = one().constant(number(2.0));
    assert_eq!(gradients_at("Pow", &square, &[&[0.0, -3.0, 1.0, 2.0]])[0], [0.0, -6.0, 2.0, 4.0]);
    let root = one().constant(number(0.5));
    assert_eq!(gradients_at("Pow", &root, &[&[0.0, 0.25, 1.0, 4.0]])[0], [f64::INFINITY, 1.0, 0.5, 0.25]);
    let clip = one().constant(number(-1.0)).constant(number(1.0));
    assert_eq!(gradients_at("Clip", &clip, &[&[-1.0, 1.0, 0.5, -2.0]])[0], [0.0, 0.0, 1.0, 0.0]);
    for (op, at, expected) in [
        ("Relu", [0.0, -1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]),
        ("Abs", [0.0, -1.0, 1.0, 0.0], [0.0, -1.0, 1.0, 0.0]),
        ("ReduceMax", [1.0, 3.0, 3.0, 0.0], [0.0, 0.5, 0.5, 0.0]),
        ("ReduceMin", [1.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]),
        ("ReduceProd", [2.0, 0.0, 3.0, 5.0], [0.0, 30.0, 0.0, 0.0]),
        ("ReduceProd", [2.0, 0.0, 0.0, 5.0], [0.0; 4]),
        ("ReduceL1", [0.0, -2.0, 1.0, 0.0], [0.0, -1.0, 1.0, 0.0]),
        ("ReduceL2", [0.0; 4], [0.0; 4]),
    ] {
        assert_eq!(gradients_at(op, &one(), &[&at])[0], expected, "{op} at {at:?}");
    }
}
