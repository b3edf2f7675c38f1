//! Training: the same steps as PyTorch, runs that go on after any end, errors that keep what was reached.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use digrap_bench::error::{Error, Result};
use digrap_bench::graph::{Attribute, Builder, Dim, Graph, Type, Value};
use digrap_bench::runtime::{Device, SessionOptions, Sharing};
use digrap_bench::tensor::{DType, Tensor};
use digrap_bench::train::{
    self, Batch, Batches, Event, METHODS, Method, Optimizer, Outcome, Parameters, Position, Run, Schedule, Settings,
    Task,
};
use serde_json::{Value as Json, json};

use crate::support::{fixture_json, runtime};

const SAMPLES: usize = 12;

fn numbers(value: &Json) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn single(value: &Json) -> Vec<f32> {
    numbers(value).into_iter().map(|number| number as f32).collect()
}

fn sum(builder: &mut Builder, value: Value, axes: &[i64]) -> Value {
    let axes = builder.ints(axes).unwrap();
    builder.op("ReduceSum", &[value, axes], &[("keepdims", Attribute::Int(0))]).unwrap()
}

/// The sum of squared errors of the model that `fixtures/train/make_optimizers.py` describes.
fn regression(shapes: &serde_json::Map<String, Json>) -> Graph {
    let mut builder = Builder::new("regression");
    let ty = |dims: &[Dim]| Type::new(DType::F32, dims);
    let mut parameter = |name: &str| {
        let dims: Vec<Dim> = numbers(&shapes[name]).into_iter().map(|size| Dim::Fixed(size as usize)).collect();
        builder.input(name, ty(&dims)).unwrap()
    };
    let [weight, bias, scale] = ["layer.weight", "layer.bias", "scale"].map(&mut parameter);
    let [head, offset] = ["head.weight", "head.bias"].map(&mut parameter);
    let x = builder.input("x", ty(&["batch".into(), 1.into(), 5.into()])).unwrap();
    let y = builder.input("y", ty(&["batch".into()])).unwrap();
    builder.enter("layer");
    let products = builder.mul(x, weight).unwrap();
    let hidden = sum(&mut builder, products, &[-1]);
    let hidden = builder.add(hidden, bias).unwrap();
    let squares = builder.mul(hidden, hidden).unwrap();
    builder.leave();
    let scaled = builder.mul(squares, scale).unwrap();
    let weighted = builder.mul(scaled, head).unwrap();
    let output = sum(&mut builder, weighted, &[-1]);
    let output = builder.add(output, offset).unwrap();
    let error = builder.op("Sub", &[output, y], &[]).unwrap();
    let squares = builder.mul(error, error).unwrap();
    let loss = sum(&mut builder, squares, &[0, 1]);
    builder.output("loss", loss).unwrap();
    builder.finish()
}

fn task(recorded: &Json) -> Task {
    let shapes = recorded["shapes"].as_object().unwrap();
    // Of the vector first, so that tensors of unlike shapes follow each other.
    let parameters = ["layer.bias", "layer.weight", "head.bias", "scale", "head.weight"].map(|name| {
        let shape: Vec<usize> = numbers(&shapes[name]).into_iter().map(|size| size as usize).collect();
        (name.to_owned(), Tensor::new(shape, single(&recorded["start"][name])).unwrap())
    });
    Task { graph: regression(shapes), folder: ".".into(), parameters: parameters.into(), recomputed: Vec::new() }
}

/// The recorded batches, each in parts of these sizes; goes wrong at one micro-step.
struct Recorded {
    steps: Vec<(Vec<f32>, Vec<f32>)>,
    parts: Vec<usize>,
    fails_at: u64,
    poisoned: Option<u64>,
    made: AtomicU64,
}

impl Recorded {
    fn new(recorded: &Json, parts: &[usize]) -> Self {
        let steps = recorded["batches"].as_array().unwrap().iter();
        Self {
            steps: steps.map(|batch| (single(&batch["x"]), single(&batch["y"]))).collect(),
            parts: parts.to_vec(),
            fails_at: u64::MAX,
            poisoned: None,
            made: AtomicU64::new(0),
        }
    }
}

impl Batches for Recorded {
    fn batch(&self, micro_step: u64) -> Result<Batch> {
        self.made.fetch_add(1, Ordering::SeqCst);
        if micro_step >= self.fails_at {
            return Err(Error::input("the image of a question is damaged"));
        }
        let (step, part) = (micro_step as usize / self.parts.len(), micro_step as usize % self.parts.len());
        let start = self.parts[..part].iter().sum::<usize>();
        let rows = start..start + self.parts[part];
        let (x, y) = &self.steps[step % self.steps.len()];
        let mut x = x[rows.start * 5..rows.end * 5].to_vec();
        if self.poisoned == Some(micro_step) {
            x[3] = f32::INFINITY;
        }
        let inputs = [
            ("x".to_owned(), Tensor::new([rows.len(), 1, 5], x)?),
            ("y".to_owned(), Tensor::vector(y[rows.clone()].to_vec())),
        ];
        let ids = rows.clone().map(|row| format!("q{}", step * SAMPLES + row)).collect();
        Ok(Batch { inputs: inputs.into(), count: rows.len(), samples: rows.len(), ids })
    }
}

fn options() -> SessionOptions {
    SessionOptions { device: Device::Cpu, sharing: Sharing::Training(2) }
}

fn settings(optimizer: Optimizer) -> Settings {
    Settings {
        subject: json!({"weights": "regression", "seed": 7}).as_object().unwrap().clone(),
        method: train::find("vanilla").unwrap(),
        optimizer,
        learning_rate: 0.02,
        schedule: Schedule::Cosine { warmup: 4, floor: 0.0 },
        steps_per_epoch: 8,
        steps: 20,
        accumulation: 1,
        clip: None,
        save_every: None,
        workers: 2,
    }
}

const ADAMW: Optimizer = Optimizer::AdamW { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 };

fn optimizer(recorded: &Json) -> Optimizer {
    let number = |name: &str| recorded[name].as_f64().unwrap();
    match recorded["name"].as_str().unwrap() {
        "adamw" => {
            let betas = numbers(&recorded["betas"]);
            Optimizer::AdamW { betas: [betas[0], betas[1]], eps: number("eps"), weight_decay: number("weight_decay") }
        }
        _ => Optimizer::Sgd {
            momentum: number("momentum"),
            nesterov: recorded["nesterov"].as_bool().unwrap(),
            weight_decay: number("weight_decay"),
        },
    }
}

/// A run and all that it told.
fn run(task: Task, settings: &Settings, batches: &Recorded, folder: &Path) -> (Result<Outcome>, Vec<Event>) {
    validated(task, settings, batches, folder, &mut |_, _| Ok(None))
}

fn validated(
    task: Task,
    settings: &Settings,
    batches: &Recorded,
    folder: &Path,
    validate: &mut train::Validate,
) -> (Result<Outcome>, Vec<Event>) {
    let runtime = runtime();
    let run = Run { runtime: &runtime, options: &options(), settings, batches, folder };
    let mut events = Vec::new();
    let outcome = train::train(&run, task, validate, &mut |event| events.push(event));
    (outcome, events)
}

fn losses(events: &[Event]) -> Vec<f64> {
    let steps = events.iter().filter_map(|event| match event {
        Event::Stepped(progress) => Some(progress.loss),
        _ => None,
    });
    steps.collect()
}

fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied())
}

fn double(tensor: &Tensor) -> Vec<f64> {
    tensor.values::<f32>().unwrap().iter().map(|value| f64::from(*value)).collect()
}

#[test]
fn optimisers_take_the_steps_of_pytorch() {
    let recorded = fixture_json("train/optimizers.json");
    for known in recorded["runs"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            learning_rate: known["learning_rate"].as_f64().unwrap(),
            clip: known["clip"].as_f64(),
            ..settings(optimizer(&known["optimizer"]))
        };
        let batches = Recorded::new(&recorded, &[SAMPLES]);
        let (outcome, events) = run(task(&recorded), &settings, &batches, folder.path());
        let what = format!("{} clip {}", known["optimizer"], known["clip"]);
        let curve = distance(&losses(&events), &numbers(&known["losses"]));
        assert!(curve < 2e-6, "{what}: losses {curve}");
        let norms = events.iter().filter_map(|event| match event {
            Event::Stepped(progress) => Some(progress.gradient_norm),
            _ => None,
        });
        let norms = distance(&norms.collect::<Vec<_>>(), &numbers(&known["norms"]));
        assert!(norms < 2e-6, "{what}: norms {norms}");
        for (name, tensor) in outcome.unwrap().parameters {
            let off = distance(&double(&tensor), &numbers(&known["parameters"][&name]));
            assert!(off < 2e-6, "{what}: `{name}` {off}");
        }
    }
}
