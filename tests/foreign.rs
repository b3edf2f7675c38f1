//! ONNX files of other programs: they load, compute what they computed, and have the gradients that PyTorch recorded.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use digrap_bench::error::{Kind, Result};
use digrap_bench::graph::{Builder, Dim, Graph, Initializer, Loss, OPSET, Type, training_graph};
use digrap_bench::runtime::{DeviceTensor, Session};
use digrap_bench::tensor::{DType, Tensor};
use serde_json::Value;

use crate::support::{fixture, fixture_json, runtime, session_options};

const MODELS: [&str; 4] = ["bert", "vit", "resnet-eval", "resnet-train"];
/// Largest difference of a logit or a running statistic.
const TOLERANCE: f64 = 1e-4;
/// Norm of a gradient that is zero but for rounding.
const VANISHING: f64 = 1e-5;

/// What is recorded about the files of one model.
struct Recorded {
    facts: Value,
    tensors: HashMap<String, Tensor>,
}

impl Recorded {
    fn of(model: &str) -> Self {
        let bytes = fs::read(fixture(&format!("foreign/{model}.safetensors"))).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |view: &safetensors::tensor::TensorView| {
            let dtype = if view.dtype() == safetensors::Dtype::I64 { DType::I64 } else { DType::F32 };
            Tensor::from_bytes(dtype, view.shape(), view.data()).unwrap()
        };
        let tensors = file.tensors().into_iter().map(|(name, view)| (name, tensor(&view))).collect();
        Self { facts: fixture_json(&format!("foreign/{model}.json")), tensors }
    }

    fn files(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.facts["files"].as_object().unwrap().iter()
    }

    /// The inputs of the model.
    fn inputs(&self) -> Vec<(String, Tensor)> {
        let named =
            |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix("input.")?.to_owned(), tensor.clone()));
        self.tensors.iter().filter_map(named).collect()
    }

    fn vanishes(&self, gradient: &str) -> bool {
        self.facts["vanishing"].as_array().unwrap().iter().any(|name| name == gradient)
    }
}

fn load(file: &str) -> Graph {
    Graph::load(&fixture(&format!("foreign/{file}"))).unwrap()
}

fn cross_entropy() -> Loss {
    Loss::CrossEntropy { logits: "logits".to_owned() }
}

fn run(graph: &Graph, inputs: &[(String, Tensor)], outputs: &[&str]) -> Result<Vec<DeviceTensor>> {
    let runtime = runtime();
    let mut session = Session::new(&runtime, graph, Path::new("."), &session_options())?;
    let tensors: Vec<DeviceTensor> =
        inputs.iter().map(|(_, tensor)| runtime.tensor(tensor.clone())).collect::<Result<_>>()?;
    let named: Vec<(&str, &DeviceTensor)> =
        inputs.iter().zip(&tensors).map(|((name, _), tensor)| (name.as_str(), tensor)).collect();
    session.run(&named, &[], outputs)
}

/// The initialisers of a graph.
fn weights(graph: &Graph) -> HashMap<String, Tensor> {
    let inline = graph.initializers.iter().filter_map(|(value, place)| match place {
        Initializer::Inline(tensor) => Some((graph.name_of(*value).to_owned(), tensor.clone())),
        Initializer::External { .. } => None,
    });
    inline.collect()
}

/// The norm of the difference and that of the expected tensor.
fn norms(found: &DeviceTensor, expected: &Tensor) -> (f64, f64) {
    assert_eq!(found.shape(), expected.shape());
    let pairs = || found.values::<f32>().unwrap().iter().zip(expected.values::<f32>().unwrap());
    let difference: f64 = pairs().map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let norm: f64 = pairs().map(|(_, b)| f64::from(*b).powi(2)).sum();
    (difference.sqrt(), norm.sqrt())
}

fn farthest(found: &DeviceTensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let pairs = found.values::<f32>().unwrap().iter().zip(expected.values::<f32>().unwrap());
    pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).fold(0.0, f64::max)
}

/// Outputs of a file with the tensors that are expected of them.
fn expectations<'a>(recorded: &'a Recorded, facts: &'a Value) -> Vec<(&'a str, &'a Tensor)> {
    let statistics = facts["statistics"].as_object();
    let statistics = statistics.into_iter().flatten().map(|(output, name)| (output.as_str(), name.as_str().unwrap()));
    let named = [("logits", "logits")].into_iter().chain(statistics);
    named.map(|(output, name)| (output, &recorded.tensors[name])).collect()
}

#[test]
fn files_of_both_exporters_compute_what_they_computed() {
    for model in MODELS {
        let recorded = Recorded::of(model);
        for (file, facts) in recorded.files() {
            let graph = load(file);
            assert_eq!(graph.opset(), Some(OPSET), "{file}");
            assert!(graph.nodes.iter().all(|node| node.op != "Constant"), "{file}");
            let expected = expectations(&recorded, facts);
            let outputs: Vec<&str> = expected.iter().map(|(output, _)| *output).collect();
            let found = run(&graph, &recorded.inputs(), &outputs).unwrap();
            for (found, (output, expected)) in found.iter().zip(expected) {
                assert!(farthest(found, expected) < TOLERANCE, "{file}: {output}");
            }
        }
    }
}

#[test]
fn the_type_of_every_value_is_known() {
    let mut unknown = BTreeSet::new();
    for model in MODELS {
        for (file, _) in Recorded::of(model).files() {
            let graph = load(file);
            let is_known = |value: &digrap_bench::graph::Value| graph.type_of(*value).is_some();
            for node in graph.nodes.iter().filter(|node| node.inputs.iter().flatten().all(is_known)) {
                if !node.outputs.iter().all(|output| is_known(output) || graph.name_of(*output).is_empty()) {
                    unknown.insert(format!("{file}: `{}` (node `{}`)", node.op, node.name));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// The relative error of the worst gradient of a file.
fn worst_gradient(recorded: &Recorded, file: &str, facts: &Value) -> (f64, String) {
    let graph = load(file);
    let mut values = weights(&graph);
    let (graph, report) = training_graph(graph, &cross_entropy(), &[]).unwrap();
    let expected = facts["gradients"].as_object().unwrap();
    let names = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&mut report.weights.iter()), names(&mut expected.keys()), "{file}");
    assert_eq!(report.independent, [""; 0], "{file}");
    let mut inputs = recorded.inputs();
    inputs.push(("labels".to_owned(), recorded.tensors["labels"].clone()));
    inputs.extend(report.weights.iter().map(|name| (name.clone(), values.remove(name).unwrap())));
    let mut outputs = vec!["loss".to_owned()];
    outputs.extend(report.weights.iter().map(|name| format!("grad/{name}")));
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let found = run(&graph, &inputs, &outputs).unwrap_or_else(|error| panic!("{file}: {error:?}"));
    let loss = f64::from(found[0].values::<f32>().unwrap()[0]);
    assert!((loss - recorded.facts["loss"].as_f64().unwrap()).abs() < 1e-5, "{file}: {loss}");
    let mut worst = (0.0, String::new());
    for (found, name) in found[1..].iter().zip(&report.weights) {
        let gradient = expected[name].as_str().unwrap();
        let (difference, norm) = norms(found, &recorded.tensors[gradient]);
        if recorded.vanishes(gradient) {
            assert!(difference + norm < VANISHING, "{file}: {name}: {difference} of {norm}");
        } else if difference / norm > worst.0 {
            worst = (difference / norm, name.clone());
        }
    }
    worst
}

fn check_gradients(model: &str) {
    let recorded = Recorded::of(model);
    for (file, facts) in recorded.files() {
        let (error, name) = worst_gradient(&recorded, file, facts);
        println!("{file}: {error:.1e} ({name})");
        assert!(error < 1e-4, "{file}: {name}: {error}");
    }
}

#[test]
fn gradients_of_a_bert_are_those_of_pytorch() {
    check_gradients("bert");
}

#[test]
fn gradients_of_a_vit_are_those_of_pytorch() {
    check_gradients("vit");
}

#[test]
fn gradients_of_a_resnet_are_those_of_pytorch() {
    check_gradients("resnet-eval");
}

/// The statistics of the batch carry gradients too, and the running ones are handed out.
#[test]
fn gradients_of_a_resnet_in_training_mode_are_those_of_pytorch() {
    check_gradients("resnet-train");
    let recorded = Recorded::of("resnet-train");
    let file = "resnet-train-legacy-20-statistics.onnx";
    let graph = load(file);
    let values = weights(&graph);
    let (graph, report) = training_graph(graph, &cross_entropy(), &["classifier.*".to_owned()]).unwrap();
    assert_eq!(report.weights, ["classifier.weight", "classifier.bias"]);
    assert_eq!(report.parameters, 24 * 5 + 5);
    let mut inputs = recorded.inputs();
    inputs.push(("labels".to_owned(), recorded.tensors["labels"].clone()));
    inputs.extend(report.weights.iter().map(|name| (name.clone(), values[name].clone())));
    let facts = &recorded.facts["files"][file];
    let expected = expectations(&recorded, facts);
    assert_eq!(expected.len(), 1 + 2 * 9);
    let outputs: Vec<&str> = expected.iter().map(|(output, _)| *output).collect();
    assert_eq!(report.outputs.len(), outputs.len() + 1);
    for (found, (output, expected)) in run(&graph, &inputs, &outputs).unwrap().iter().zip(expected) {
        assert!(farthest(found, expected) < TOLERANCE, "{output}");
    }
}

/// A BERT in which the activation before the classifier is an operator that nobody knows.
fn with_an_unknown_operator() -> Graph {
    let mut graph = load("bert-legacy-17.onnx");
    let node = graph.nodes.iter_mut().find(|node| node.op == "Tanh").unwrap();
    node.op = "Unheard".to_owned();
    "activation".clone_into(&mut node.name);
    Graph::from_onnx(&graph.to_onnx()).unwrap()
}

#[test]
fn unknown_operators_fail_only_where_a_gradient_must_cross_them() {
    let wrt = |pattern: &str| training_graph(with_an_unknown_operator(), &cross_entropy(), &[pattern.to_owned()]);
    let (graph, report) = wrt("classifier.*").unwrap();
    assert_eq!(report.weights, ["classifier.weight", "classifier.bias"]);
    assert!(graph.nodes.iter().any(|node| node.op == "Unheard"));
    let error = wrt("bert.encoder.layer.0.*").unwrap_err();
    assert_eq!(error.to_string(), "cannot differentiate `Unheard` (node `activation`): no row in graph::ops");
    assert_eq!(error.kind(), Kind::Input);
}

/// `loss = mean((x w - y)^2)` with `w` in another file, which is where a `Reshape` of the product has its sizes as well.
fn regression() -> Graph {
    let mut builder = Builder::new("regression");
    let x = builder.input("x", Type::new(DType::F32, [Dim::from("rows"), 2.into()])).unwrap();
    let y = builder.input("labels", Type::new(DType::F32, [Dim::from("rows")])).unwrap();
    let place = |offset, length| Initializer::External { file: "weights.bin".to_owned(), offset, length };
    let w = builder.parameter("w", &Type::new(DType::F32, [2.into(), 1.into()]), || Ok(place(0, 8))).unwrap();
    let sizes = Type::new(DType::I64, [1.into()]);
    let sizes = builder.parameter("sizes", &sizes, || Ok(place(8, 8))).unwrap();
    let product = builder.matmul(x, w).unwrap();
    let flat = builder.op("Reshape", &[product, sizes], &[]).unwrap();
    let error = builder.op("Sub", &[flat, y], &[]).unwrap();
    let square = builder.mul(error, error).unwrap();
    let keep = [("keepdims", digrap_bench::graph::Attribute::Int(0))];
    let mean = builder.op("ReduceMean", &[square], &keep).unwrap();
    builder.output("error", mean).unwrap();
    builder.finish()
}

fn write_regression(folder: &Path) {
    fs::write(folder.join("model.onnx"), regression().to_onnx()).unwrap();
    let weights = [0.5f32, -1.0].map(f32::to_le_bytes).concat();
    fs::write(folder.join("weights.bin"), [weights, (-1i64).to_le_bytes().to_vec()].concat()).unwrap();
}

#[test]
fn weights_stay_in_their_files_and_shapes_do_not() {
    let folder = tempfile::tempdir().unwrap();
    write_regression(folder.path());
    let model = folder.path().join("model.onnx");
    let graph = Graph::load(&model).unwrap();
    let place = |graph: &Graph, name: &str| {
        let value = graph.find(name).unwrap();
        graph.initializers.iter().find(|(key, _)| *key == value).unwrap().1.clone()
    };
    assert!(matches!(place(&graph, "w"), Initializer::External { offset: 0, length: 8, .. }));
    assert_eq!(place(&graph, "sizes"), Initializer::Inline(Tensor::vector(vec![-1i64])));
    let (graph, report) = training_graph(graph, &Loss::Value("error".to_owned()), &[]).unwrap();
    assert_eq!(
        (report.inputs, report.outputs),
        (vec!["x".into(), "labels".into()], vec!["error".into(), "loss".into()])
    );
    let inputs = [
        ("x".to_owned(), Tensor::new([2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap()),
        ("labels".to_owned(), Tensor::vector(vec![0f32, 0.0])),
        ("w".to_owned(), Tensor::new([2, 1], vec![0.5f32, -1.0]).unwrap()),
    ];
    // Products are -1.5 and -2.5: the loss is (2.25 + 6.25) / 2, its gradient x^T times the products.
    let found = run(&graph, &inputs, &["loss", "error", "grad/w"]).unwrap();
    assert_eq!(found[0].values::<f32>().unwrap(), [4.25]);
    assert_eq!(found[1].values::<f32>().unwrap(), [4.25]);
    assert_eq!(found[2].values::<f32>().unwrap(), [-9.0, -13.0]);
    let short = folder.path().join("weights.bin");
    fs::write(&short, [0; 7]).unwrap();
    let error = Graph::load(&model).unwrap_err();
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        format!("`{}` ends before the data of the initialiser `w`", short.display())
    );
}

#[test]
fn names_that_the_training_graph_needs_are_left_to_inner_values_only() {
    let mut builder = Builder::new("taken");
    let x = builder.input("x", Type::new(DType::F32, [Dim::from("batch"), 3.into()])).unwrap();
    let w = Tensor::new([3, 4], (0..12).map(|value| value as f32 / 10.0).collect()).unwrap();
    let w = builder.parameter("w", &Type::of(&w), || Ok(Initializer::Inline(w.clone()))).unwrap();
    let hidden = builder.matmul(x, w).unwrap();
    let logits = builder.mul(hidden, hidden).unwrap();
    builder.output("loss", hidden).unwrap();
    builder.output("logits", logits).unwrap();
    let graph = builder.finish();
    let error = training_graph(graph.clone(), &cross_entropy(), &[]).unwrap_err();
    assert_eq!(error.to_string(), "the training graph needs the name `loss`, which the model uses");
    let mut inner = graph;
    inner.outputs.remove(0);
    let (graph, report) = training_graph(inner, &cross_entropy(), &[]).unwrap();
    assert_eq!(report.outputs, ["logits", "loss"]);
    assert_eq!(graph.type_of(graph.find("loss").unwrap()).unwrap().to_string(), "f32[]");
    // The result has an input and an output of the names that a second one would need.
    let again = Graph::from_onnx(&graph.to_onnx()).unwrap();
    let error = training_graph(again, &cross_entropy(), &[]).unwrap_err();
    assert_eq!(error.to_string(), "the training graph needs the name `labels`, which the model uses");
}

/// As in PyTorch: labels of -100 count for nothing, others have to be classes; tokens are rows like any others.
#[test]
fn labels_are_checked_when_the_graph_runs() {
    let mut builder = Builder::new("tokens");
    let x = builder.input("x", Type::new(DType::F32, [Dim::from("batch"), Dim::from("tokens"), 2.into()])).unwrap();
    let w = Tensor::new([2, 3], vec![1f32, 0.0, 0.0, 0.0, 1.0, 0.0]).unwrap();
    let value = builder.parameter("w", &Type::of(&w), || Ok(Initializer::Inline(w.clone()))).unwrap();
    let logits = builder.matmul(x, value).unwrap();
    builder.output("logits", logits).unwrap();
    let (graph, _) = training_graph(builder.finish(), &cross_entropy(), &[]).unwrap();
    let loss = |labels: [i64; 3]| {
        let inputs = [
            ("x".to_owned(), Tensor::new([1, 3, 2], vec![1f32, 0.0, 0.0, 2.0, 5.0, 7.0]).unwrap()),
            ("labels".to_owned(), Tensor::new([1, 3], labels.to_vec()).unwrap()),
            ("w".to_owned(), w.clone()),
        ];
        run(&graph, &inputs, &["loss", "grad/w"]).map(|found| found[0].values::<f32>().unwrap()[0])
    };
    let term = |logits: [f32; 3], label: usize| logits.map(f32::exp).iter().sum::<f32>().ln() - logits[label];
    let expected = (term([1.0, 0.0, 0.0], 2) + term([0.0, 2.0, 0.0], 1)) / 2.0;
    assert!((loss([2, 1, -100]).unwrap() - expected).abs() < 1e-6);
    assert!(loss([-100, -100, -100]).unwrap().is_nan());
    for wrong in [3, -1, -99] {
        assert!(loss([0, wrong, 1]).is_err(), "{wrong}");
    }
}
