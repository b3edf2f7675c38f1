//! Fine-tuning methods: trajectories of an independent implementation, and what each promises of every step.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use digrap_bench::error::{Error, Result};
use digrap_bench::graph::{Attribute, Builder, Dim, Graph, Type, Value};
use digrap_bench::model::interpolation::{Space, interpolate};
use digrap_bench::runtime::{Device, SessionOptions, Sharing};
use digrap_bench::tensor::{DType, Tensor};
use digrap_bench::train::{
    self, Anchor, Batch, Batches, ChosenMethod, METHODS, Method, Optimizer, PLAIN, Parameter, Role, Run, Schedule,
    Settings, Task,
};
use serde_json::Value as Json;

use crate::support::{fixture_json, runtime};
use crate::train::{numbers, optimizer};

const SGD: Optimizer = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
const ADAMW: Optimizer = Optimizer::AdamW { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };

type Tensors = BTreeMap<String, Vec<f64>>;

/// Quadratic losses `H / 2 (theta - T)^2 + N_t theta` of training and validation, as `fixtures/train/make_methods.py`
/// describes them.
#[derive(Clone)]
struct Problem {
    learning_rate: f64,
    parameters: Vec<Parameter>,
    training: Quadratic,
    validation: Quadratic,
}

#[derive(Clone)]
struct Quadratic {
    curvature: Tensors,
    target: Tensors,
    /// By step.
    noise: Vec<Tensors>,
}

fn named(value: &Json) -> Tensors {
    value.as_object().unwrap().iter().map(|(name, values)| (name.clone(), numbers(values))).collect()
}

fn steps(value: &Json) -> Vec<Tensors> {
    value.as_array().unwrap().iter().map(named).collect()
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

impl Problem {
    fn recorded(name: &str, anchor: Anchor) -> Self {
        let recorded = &fixture_json("train/methods.json")["problems"][name];
        let tensors = recorded["tensors"].as_array().unwrap();
        let parameter = |tensor: &Json| {
            let shape: Vec<usize> = numbers(&tensor["shape"]).into_iter().map(|size| size as usize).collect();
            let role = match tensor["role"].as_str().unwrap() {
                "norm" => Role::NormScale,
                "bias" => Role::Bias,
                _ => Role::Weight,
            };
            Parameter {
                name: tensor["name"].as_str().unwrap().to_owned(),
                start: Tensor::new(shape, single(&numbers(&tensor["start"]))).unwrap(),
                role,
                anchor: if tensor["anchored"] == true { anchor } else { Anchor::None },
            }
        };
        let of = |key: &str| -> Tensors {
            let pair = |tensor: &Json| (tensor["name"].as_str().unwrap().to_owned(), numbers(&tensor[key]));
            tensors.iter().map(pair).collect()
        };
        let validation = &recorded["validation"];
        Self {
            learning_rate: recorded["learning_rate"].as_f64().unwrap(),
            parameters: tensors.iter().map(parameter).collect(),
            training: Quadratic { curvature: of("curvature"), target: of("target"), noise: steps(&recorded["noise"]) },
            validation: Quadratic {
                curvature: named(&validation["curvature"]),
                target: named(&validation["target"]),
                noise: steps(&validation["noise"]),
            },
        }
    }

    fn graph(&self) -> Graph {
        let mut builder = Builder::new("quadratic");
        let mut loss: Option<Value> = None;
        for Parameter { name, start, .. } in &self.parameters {
            let ty = Type::new(DType::F32, start.shape().iter().map(|size| Dim::Fixed(*size)).collect::<Vec<_>>());
            let inputs = [name.clone(), format!("curvature/{name}"), format!("target/{name}"), format!("noise/{name}")];
            let [theta, curvature, target, noise] = inputs.map(|input| builder.input(&input, ty.clone()).unwrap());
            let difference = builder.op("Sub", &[theta, target], &[]).unwrap();
            let square = builder.mul(difference, difference).unwrap();
            let square = builder.mul(square, curvature).unwrap();
            let square = builder.scale(square, 0.5).unwrap();
            let product = builder.mul(noise, theta).unwrap();
            let sum = builder.add(square, product).unwrap();
            let flat = builder.reshape(sum, &[-1]).unwrap();
            let axes = builder.ints(&[0]).unwrap();
            let sum = builder.op("ReduceSum", &[flat, axes], &[("keepdims", Attribute::Int(0))]).unwrap();
            loss = Some(match loss {
                Some(loss) => builder.add(loss, sum).unwrap(),
                None => sum,
            });
        }
        builder.output("loss", loss.unwrap()).unwrap();
        builder.finish()
    }

    fn task(&self) -> Task {
        let (graph, parameters) = (self.graph(), self.parameters.clone());
        Task { graph, folder: ".".into(), evaluation: None, parameters, recomputed: Vec::new() }
    }

    /// The start values.
    fn start(&self) -> Tensors {
        let values = |parameter: &Parameter| floats(&parameter.start);
        self.parameters.iter().map(|parameter| (parameter.name.clone(), values(parameter))).collect()
    }

    /// The gradient at a step, from 0, where the tensors are `theta`.
    fn gradient(&self, step: usize, theta: &Tensors) -> Tensors {
        let Quadratic { curvature, target, noise } = &self.training;
        let of = |(name, values): (&String, &Vec<f64>)| {
            let parts = values.iter().zip(&curvature[name]).zip(&target[name]).zip(&noise[step][name]);
            (name.clone(), parts.map(|(((theta, h), target), noise)| h * (theta - target) + noise).collect())
        };
        theta.iter().map(of).collect()
    }
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    tensor.values::<f32>().unwrap().iter().map(|value| f64::from(*value)).collect()
}

/// Batches of a quadratic loss, of which number `n` is that of step `step(n)`.
struct Numbered<'a> {
    problem: &'a Problem,
    quadratic: &'a Quadratic,
    step: &'a (dyn Fn(u64) -> usize + Sync + Send),
    /// Times that the loss is scaled, and counted.
    count: usize,
    /// The number of the first batch that cannot be made.
    fails_at: u64,
}

impl Batches for Numbered<'_> {
    fn batch(&self, number: u64) -> Result<Batch> {
        if number >= self.fails_at {
            return Err(Error::input("the image of a question is damaged"));
        }
        let Quadratic { curvature, target, noise } = self.quadratic;
        let noise = &noise[(self.step)(number) % noise.len()];
        let mut inputs = Vec::new();
        for Parameter { name, start, .. } in &self.problem.parameters {
            let scaled = |values: &[f64]| values.iter().map(|value| value * self.count as f64).collect::<Vec<_>>();
            for (kind, values) in [
                ("curvature", scaled(&curvature[name])),
                ("target", target[name].clone()),
                ("noise", scaled(&noise[name])),
            ] {
                inputs.push((format!("{kind}/{name}"), Tensor::new(start.shape().to_vec(), single(&values))?));
            }
        }
        Ok(Batch { inputs, count: self.count, samples: 1, ids: vec![number.to_string()] })
    }
}

/// What a run came to.
struct Told {
    /// After each step.
    parameters: Vec<Tensors>,
    /// By tensor after each step.
    recorded: Vec<BTreeMap<String, BTreeMap<String, f64>>>,
    /// The numbers of each tensor after each step but the last.
    numbers: Vec<Json>,
}

fn chosen(method: &str, settings: &[(&str, &str)]) -> ChosenMethod {
    ChosenMethod::new(train::find(method).unwrap(), settings).unwrap()
}

fn settings(problem: &Problem, method: ChosenMethod, optimizer: Optimizer, steps: u64) -> Settings {
    Settings {
        subject: serde_json::Map::new(),
        method,
        optimizer,
        learning_rate: problem.learning_rate,
        schedule: Schedule::Constant,
        steps_per_epoch: 1,
        steps,
        accumulation: 1,
        clip: None,
        save_every: None,
        workers: 1,
    }
}

/// Trains in `folder` through the loop, with an epoch per step.
fn run_in(folder: &Path, problem: &Problem, settings: &Settings) -> Told {
    attempt(folder, problem, settings, HOW).unwrap()
}

/// How a run is made, beside its settings.
#[derive(Clone, Copy)]
struct How {
    /// Times that the loss is scaled, and counted.
    count: usize,
    /// The number of the first batch that cannot be made.
    fails_at: u64,
    /// As models are run that do not fit into memory twice.
    mapped: bool,
}

const HOW: How = How { count: 1, fails_at: u64::MAX, mapped: false };

fn attempt(folder: &Path, problem: &Problem, settings: &Settings, how: How) -> Result<Told> {
    let How { count, fails_at, mapped } = how;
    let whole = |name: &str| settings.method.number(name).unwrap_or(1.0) as usize;
    let (every, iterations) = (whole("every"), whole("iterations"));
    let one_each = |number: u64| number as usize;
    let of_search = |number: u64| number as usize / iterations * every;
    let training = Numbered { problem, quadratic: &problem.training, step: &one_each, count, fails_at };
    let validation = Numbered { problem, quadratic: &problem.validation, step: &of_search, count, fails_at: u64::MAX };
    let runtime = runtime();
    let options = SessionOptions { device: Device::Cpu, sharing: Sharing::Training { threads: 2, mapped } };
    let run = Run {
        runtime: &runtime,
        options: &options,
        settings,
        batches: &training,
        validation_batches: Some(&validation),
        folder,
    };
    let (mut parameters, mut kept) = (Vec::new(), Vec::new());
    let mut validate = |_: u64, now: &train::Parameters| {
        let values = now.iter().map(|(name, tensor)| Ok((name.to_owned(), floats(&tensor.to_host()?))));
        parameters.push(values.collect::<Result<Tensors>>()?);
        Ok(None)
    };
    train::train(&run, problem.task(), &mut validate, &mut |event| {
        if let train::Event::Saved { step } = event
            && step < settings.steps
        {
            let path = folder.join(format!("checkpoint/{step}/numbers.json"));
            kept.push(serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap());
        }
    })?;
    let metrics = train::metrics(folder).unwrap();
    let tensors = metrics.iter().filter_map(|line| line.get("tensors"));
    let recorded = tensors.map(|tensors| serde_json::from_value(tensors.clone()).unwrap()).collect();
    Ok(Told { parameters, recorded, numbers: kept })
}

fn run(problem: &Problem, method: ChosenMethod, optimizer: Optimizer, steps: u64) -> Told {
    let folder = tempfile::tempdir().unwrap();
    run_in(folder.path(), problem, &settings(problem, method, optimizer, steps))
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

fn difference(one: &[f64], other: &[f64]) -> Vec<f64> {
    one.iter().zip(other).map(|(one, other)| one - other).collect()
}

fn norm(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

/// The greatest difference relative to the greater of 1 and the expected number.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    pairs.map(|(found, expected)| (found - expected).abs() / expected.abs().max(1.0)).fold(0.0, f64::max)
}

/// All methods, with every setting of theirs, on tensors of 0, 1, 2 and 4 dimensions.
#[test]
fn recorded_trajectories_are_followed() {
    let recorded = fixture_json("train/methods.json");
    for run_of in recorded["runs"].as_array().unwrap() {
        let (name, method) = (run_of["problem"].as_str().unwrap(), run_of["method"].as_str().unwrap());
        let anchor = if run_of["anchor"] == "origin" { Anchor::Origin } else { Anchor::Start };
        let given = run_of["settings"].as_object().unwrap();
        let given: Vec<(&str, &str)> =
            given.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let expected = run_of["parameters"].as_object().unwrap();
        let length = expected.values().next().unwrap().as_array().unwrap().len();
        let problem = Problem::recorded(name, anchor);
        let settings = settings(&problem, chosen(method, &given), optimizer(&run_of["optimizer"]), length as u64);
        let [told, mapped] = [false, true].map(|mapped| {
            let folder = tempfile::tempdir().unwrap();
            attempt(folder.path(), &problem, &settings, How { mapped, ..HOW }).unwrap()
        });
        for (name, values) in told.parameters.last().unwrap() {
            assert!(distance(&mapped.parameters.last().unwrap()[name], values) < 1e-6, "{method} {name}");
        }
        let what = format!("{method} {given:?} {} {anchor:?}", run_of["optimizer"]);
        for (tensor, trajectory) in expected {
            for (step, expected) in trajectory.as_array().unwrap().iter().enumerate() {
                let off = distance(&told.parameters[step][tensor], &numbers(expected));
                assert!(off <= 1e-6, "{what}: {tensor} is {off} off after step {}", step + 1);
            }
        }
        // A lambda is the quotient of two inner products that rounding reaches.
        let tolerance = |series: &str| match (&run_of["in_table"], series) {
            (Json::Bool(true), _) => 1e-6,
            (_, "lambda") => 1e-5,
            _ => 3e-6,
        };
        for (series, tensors) in run_of["reports"].as_object().unwrap() {
            for (tensor, values) in tensors.as_object().unwrap() {
                for (step, expected) in numbers(values).into_iter().enumerate() {
                    let off = distance(&[told.recorded[step][tensor][series]], &[expected]);
                    assert!(off <= tolerance(series), "{what}: {series} of {tensor} is {off} off at step {}", step + 1);
                }
            }
        }
    }
}

const MOMENTUM: Optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.0 };

fn deviations(problem: &Problem, theta: &Tensors) -> Tensors {
    let start = problem.start();
    theta.iter().map(|(name, values)| (name.clone(), difference(values, &start[name]))).collect()
}

fn anchored(problem: &Problem) -> impl Iterator<Item = &Parameter> {
    problem.parameters.iter().filter(|parameter| parameter.anchor != Anchor::None)
}

/// The sums of magnitudes of the rows.
fn row_norms(parameter: &Parameter, values: &[f64]) -> Vec<f64> {
    let shape = parameter.start.shape();
    let rows = if shape.len() < 2 { 1 } else { shape[0] };
    values.chunks(values.len() / rows).map(|row| row.iter().map(|value| value.abs()).sum()).collect()
}

#[test]
fn no_projection_is_vanilla_bit_for_bit() {
    for anchor in [Anchor::Start, Anchor::Origin] {
        let problem = Problem::recorded("tensors", anchor);
        for optimizer in [SGD, MOMENTUM, ADAMW] {
            let vanilla = run(&problem, chosen("vanilla", &[]), optimizer, 20).parameters;
            let digrap =
                |settings: &[(&str, &str)]| run(&problem, chosen("digrap", settings), optimizer, 20).parameters;
            assert!(digrap(&[("omega", "0")]) == vanilla);
            assert!(digrap(&[("mu", "0")]) == vanilla);
            assert!(digrap(&[("mu", "0.5")]) != vanilla);
            for (method, neutral) in
                [("l2-sp", "lambda"), ("mars-sp", "lambda"), ("spd", "lambda"), ("pcgrad", "lambda")]
            {
                let mut neutral = vec![(neutral, "0")];
                if train::find(method).unwrap().settings.iter().any(|setting| setting.name == "beta") {
                    neutral.push(("beta", "0"));
                }
                let parameters = run(&problem, chosen(method, &neutral), optimizer, 20).parameters;
                for (name, values) in vanilla.last().unwrap() {
                    assert!(distance(&parameters.last().unwrap()[name], values) < 1e-6, "{method} {name}");
                }
            }
        }
    }
}

/// What a step of plain descent went along is taken from where it led to.
#[test]
fn steps_go_along_the_projected_gradient() {
    let problem = Problem::recorded("tensors", Anchor::Start);
    for (settings, full) in [([("omega", "1")], true), ([("mu", "0.5")], false)] {
        let told = run(&problem, chosen("digrap", &settings), SGD, 20);
        let (mut conflicts, mut projected) = (0, 0);
        for step in 1..20 {
            let (before, after) = (&told.parameters[step - 1], &told.parameters[step]);
            let (gradients, deviations) = (problem.gradient(step, before), deviations(&problem, before));
            for Parameter { name, .. } in anchored(&problem) {
                let (gradient, deviation) = (&gradients[name], &deviations[name]);
                let along: Vec<f64> =
                    difference(&before[name], &after[name]).iter().map(|step| step / problem.learning_rate).collect();
                let recorded = &told.recorded[step][name];
                // Equation 5.
                let pulled: Vec<f64> =
                    gradient.iter().zip(deviation).map(|(g, d)| g + recorded["lambda"] * d).collect();
                let size = norm(gradient).max(1.0);
                assert!(norm(&difference(&along, &pulled)) <= 2e-5 * size, "{name} at step {step}");
                assert!((0.0..=1.0).contains(&recorded["omega"]), "{recorded:?}");
                let product = dot(gradient, deviation);
                assert!((product / (norm(gradient) * norm(deviation)) - recorded["cosine"]).abs() < 1e-5);
                assert!((norm(deviation) - recorded["distance"]).abs() < 1e-5);
                assert_eq!(recorded["conflict"], if product < 0.0 { 1.0 } else { 0.0 });
                let expected =
                    if product < 0.0 { -recorded["omega"] * product / dot(deviation, deviation) } else { 0.0 };
                assert!((recorded["lambda"] - expected).abs() <= 1e-4 * expected.max(1e-2), "{name} at step {step}");
                if product < 0.0 {
                    conflicts += 1;
                    projected += usize::from(recorded["lambda"] > 0.0);
                    let left = dot(&along, deviation) / (size * norm(deviation));
                    assert!(!full || left.abs() < 1e-4, "{name} at step {step} goes along its deviation by {left}");
                }
            }
        }
        assert!(conflicts > 20 && projected > 5, "{conflicts} conflicts, {projected} projections");
    }
}

/// The derivative that the projection strength follows, against the loss at two strengths beside it.
#[test]
fn the_raw_derivative_is_that_of_the_loss_through_a_step() {
    let problem = Problem::recorded("tensors", Anchor::Start);
    let given = [("normalisation", "raw"), ("gated", "true"), ("mu", "0.5")];
    let schedule = Schedule::Linear { warmup: 3 };
    let settings = Settings { schedule, ..settings(&problem, chosen("digrap", &given), SGD, 20) };
    let folder = tempfile::tempdir().unwrap();
    let told = run_in(folder.path(), &problem, &settings);
    let metrics = train::metrics(folder.path()).unwrap();
    let rates: Vec<f64> = metrics.iter().filter_map(|line| line.get("learning_rate")?.as_f64()).collect();
    let mut compared = 0;
    for step in 2..18 {
        let (before, after) = (&told.parameters[step - 1], &told.parameters[step]);
        let (gradients, deviations) = (problem.gradient(step, before), deviations(&problem, before));
        let slopes = &told.numbers[step + 1];
        for Parameter { name, .. } in anchored(&problem) {
            let (gradient, deviation) = (&gradients[name], &deviations[name]);
            let product = dot(gradient, deviation).min(0.0);
            let projection: Vec<f64> = deviation.iter().map(|d| product / dot(deviation, deviation) * d).collect();
            let loss = |change: f64| {
                let moved = after[name].iter().zip(&projection);
                let moved: Vec<f64> = moved.map(|(theta, p)| theta + rates[step] * change * p).collect();
                let Quadratic { curvature, target, noise } = &problem.training;
                let parts = moved.iter().zip(&curvature[name]).zip(&target[name]).zip(&noise[step + 1][name]);
                parts.map(|(((x, h), t), n)| h / 2.0 * (x - t) * (x - t) + n * x).sum::<f64>()
            };
            let expected = (loss(1e-3) - loss(-1e-3)) / 2e-3;
            let slope = slopes[name][0]["slope"].as_f64().unwrap();
            // The projection divides by the squares of the deviation plus 1e-8.
            let tolerance = 1e-4 * expected.abs().max(1e-2) + 1.1e-8 / dot(deviation, deviation) * expected.abs();
            assert!((slope - expected).abs() <= tolerance, "{name}: {slope} against {expected}");
            compared += usize::from(expected != 0.0);
        }
    }
    assert!(compared > 20, "only {compared} derivatives are not zero");
}

/// Without a gradient nothing moves, and nothing is divided by the deviation of zero.
#[test]
fn tensors_at_their_anchors_stay_there() {
    for anchor in [Anchor::Start, Anchor::Origin] {
        let mut problem = Problem::recorded("tensors", anchor);
        for parameter in &mut problem.parameters {
            if anchor == Anchor::Origin || parameter.anchor == Anchor::None {
                let zeros = vec![0f32; floats(&parameter.start).len()];
                parameter.start = Tensor::new(parameter.start.shape().to_vec(), zeros).unwrap();
            }
        }
        for quadratic in [&mut problem.training, &mut problem.validation] {
            quadratic.target = problem.parameters.iter().map(|p| (p.name.clone(), floats(&p.start))).collect();
            quadratic.noise.iter_mut().flat_map(BTreeMap::values_mut).for_each(|values| values.fill(0.0));
        }
        for method in METHODS {
            for optimizer in [SGD, ADAMW] {
                let told = run(&problem, chosen(method.name, &[]), optimizer, 3);
                assert_eq!(told.parameters.last().unwrap(), &problem.start(), "{}", method.name);
                let mut all = told.recorded.iter().flat_map(BTreeMap::values).flat_map(BTreeMap::values);
                assert!(all.all(|number| number.is_finite()), "{}: {:?}", method.name, told.recorded);
            }
        }
    }
}

/// As LoRA matrices are held: from an anchor at the origin, with and without a copy of it.
#[test]
fn the_origin_as_anchor_needs_no_copy() {
    let with = |anchor: Anchor| {
        let mut problem = Problem::recorded("tensors", anchor);
        for parameter in &mut problem.parameters {
            let zeros = vec![0f32; floats(&parameter.start).len()];
            parameter.start = Tensor::new(parameter.start.shape().to_vec(), zeros).unwrap();
        }
        problem
    };
    let (kept, none) = (with(Anchor::Start), with(Anchor::Origin));
    for method in METHODS {
        for optimizer in [MOMENTUM, ADAMW] {
            let told = [&kept, &none].map(|problem| run(problem, chosen(method.name, &[]), optimizer, 20));
            assert!(told[0].parameters == told[1].parameters, "{}", method.name);
            assert!(told[0].recorded == told[1].recorded, "{}", method.name);
        }
    }
}

#[test]
fn projections_end_inside_their_balls() {
    let problem = Problem::recorded("tensors", Anchor::Start);
    for optimizer in [SGD, ADAMW] {
        for (method, settings) in [
            ("mars-pgm", vec![("radius", "0.2")]),
            ("ftp", vec![]),
            ("ftp", vec![("k", "0")]),
            ("tpgm", vec![]),
            ("tpgm", vec![("norm", "l2")]),
        ] {
            let told = run(&problem, chosen(method, &settings), optimizer, 20);
            let mut shortened = 0;
            for (theta, recorded) in told.parameters.iter().zip(&told.recorded) {
                let deviations = deviations(&problem, theta);
                for parameter in anchored(&problem).filter(|p| p.role == Role::Weight) {
                    let deviation = &deviations[&parameter.name];
                    let norms = match settings.as_slice() {
                        [("norm", "l2")] => vec![norm(deviation)],
                        _ => row_norms(parameter, deviation),
                    };
                    let radius = recorded[&parameter.name].get("radius").copied().unwrap_or(0.2);
                    let greatest = norms.into_iter().fold(0.0, f64::max);
                    assert!(greatest <= radius + 2e-6, "{method} {settings:?}: {greatest} over {radius}");
                    shortened += usize::from(greatest > 0.99 * radius);
                }
            }
            assert!(shortened > 10, "{method} {settings:?}");
        }
        let (free, vanilla) =
            (chosen("mars-pgm", &[("radius", "1e6"), ("head_radius", "1e6")]), chosen("vanilla", &[]));
        let [free, vanilla] = [free, vanilla].map(|method| run(&problem, method, optimizer, 20).parameters);
        for (name, values) in free.last().unwrap() {
            assert!(distance(values, &vanilla.last().unwrap()[name]) < 1e-6, "{name}");
        }
    }
}

#[test]
fn gradient_surgery_is_that_of_its_vectors() {
    for case in fixture_json("train/methods.json")["pcgrad"].as_array().unwrap() {
        let [task, pull, sum] = ["a", "b", "sum"].map(|name| numbers(&case[name]));
        let zeros = vec![0.0; pull.len()];
        let one = |values: &[f64]| Tensors::from([("x".to_owned(), values.to_vec())]);
        let quadratic = Quadratic { curvature: one(&zeros), target: one(&zeros), noise: vec![one(&task)] };
        let parameter = Parameter {
            name: "x".to_owned(),
            start: Tensor::vector(single(&pull)),
            role: Role::Weight,
            anchor: Anchor::Origin,
        };
        let problem = Problem {
            learning_rate: 1.0,
            parameters: vec![parameter],
            training: quadratic.clone(),
            validation: quadratic,
        };
        let told = run(&problem, chosen("pcgrad", &[("lambda", "1")]), SGD, 1);
        assert!(distance(&difference(&pull, &told.parameters[0]["x"]), &sum) < 1e-6, "{case}");
    }
}

#[test]
fn interpolations_are_those_of_their_vectors() {
    for case in fixture_json("train/methods.json")["wise"].as_array().unwrap() {
        let share = case["alpha"].as_f64().unwrap();
        let tensor = |value: &Json| Tensor::vector(single(&numbers(value)));
        let between = |space: Space, name: &str, start: &Tensor, end: &Tensor| {
            floats(&interpolate(space, share, name, start, end).unwrap())
        };
        let (start, end) = (tensor(&case["full"]["start"]), tensor(&case["full"]["finetuned"]));
        let full = between(Space::Tensors, "weight", &start, &end);
        assert!(distance(&full, &numbers(&case["full"]["result"])) < 1e-7);
        assert!(share != 0.0 || full == floats(&start));
        assert!(share != 1.0 || full == floats(&end));
        let (down, up) = ("x.lora_A.weight", "x.lora_B.weight");
        let [start, a, b] = ["a0", "a", "b"].map(|name| tensor(&case[name]));
        let zeros = Tensor::vector(vec![0f32; floats(&b).len()]);
        let factors = [between(Space::Tensors, down, &start, &a), between(Space::Tensors, up, &zeros, &b)];
        assert!(distance(&factors[0], &numbers(&case["factors"]["a"])) < 1e-7);
        assert!(distance(&factors[1], &numbers(&case["factors"]["b"])) < 1e-7);
        let [a, b] = [between(Space::Products, down, &start, &a), between(Space::Products, up, &zeros, &b)];
        let delta = numbers(&case["merged_delta"]);
        let (scale, rank) = (case["scale"].as_f64().unwrap(), a.len() * b.len() / delta.len());
        let rank = (rank as f64).sqrt() as usize;
        let columns = a.len() / rank;
        for (index, expected) in delta.iter().enumerate() {
            let (row, column) = (index / columns, index % columns);
            let found: f64 = (0..rank).map(|k| b[row * rank + k] * a[k * columns + column]).sum();
            assert!((scale * found - expected).abs() < 1e-6, "{share}: {found} against {expected}");
        }
        let refused = interpolate(Space::Products, 0.5, up, &Tensor::vector(vec![1f32]), &Tensor::vector(vec![1f32]));
        assert!(refused.unwrap_err().to_string().contains("is not zero at the start"));
    }
}

/// The state of every method is in the checkpoint.
#[test]
fn runs_that_break_off_go_on_with_the_same_bytes() {
    let searches: &[(&str, &str)] = &[("every", "3"), ("iterations", "2")];
    let methods = METHODS.iter().map(|method| (method, &[][..])).chain([(train::find("tpgm").unwrap(), searches)]);
    for (method, given) in methods {
        let problem = Problem::recorded("tensors", Anchor::Start);
        let settings = Settings { steps_per_epoch: 3, ..settings(&problem, chosen(method.name, given), ADAMW, 14) };
        let [whole, broken] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        run_in(whole.path(), &problem, &settings);
        for fails_at in [5, 11] {
            assert!(attempt(broken.path(), &problem, &settings, How { fails_at, ..HOW }).is_err());
        }
        run_in(broken.path(), &problem, &settings);
        for file in ["metrics.jsonl", "checkpoint/14/parameters.safetensors"] {
            let bytes = [&whole, &broken].map(|folder| fs::read(folder.path().join(file)).unwrap());
            assert!(bytes[0] == bytes[1], "{} {file}", method.name);
        }
    }
}

/// Losses are summed over tokens; methods see gradients of the mean.
#[test]
fn methods_see_the_mean_loss() {
    for method in METHODS {
        let problem = Problem::recorded("tensors", Anchor::Start);
        let settings = settings(&problem, chosen(method.name, &[]), MOMENTUM, 20);
        let [one, four] = [1, 4].map(|count| {
            let folder = tempfile::tempdir().unwrap();
            attempt(folder.path(), &problem, &settings, How { count, ..HOW }).unwrap().parameters
        });
        for (name, values) in one.last().unwrap() {
            assert!(distance(&four.last().unwrap()[name], values) < 1e-5, "{} {name}", method.name);
        }
    }
}

/// A method with state, a scalar and a number of its own: the sum of all gradients so far is what it follows.
static AVERAGING: Method = Method {
    name: "averaging",
    about: "follows the sum of all gradients",
    anchored: true,
    recorded: &["number"],
    update: |site| {
        let (old, gradient, parameter) = (site.state("total")?, site.gradient()?, site.parameter()?);
        let total = site.builder.add(old, gradient)?;
        site.keep("total", total);
        let number = site.scalar(train::Scalar { name: "number", at: |moment| moment.number as f64 })?;
        site.set_number("number", number);
        site.base(parameter, total)
    },
    ..PLAIN
};

#[test]
fn methods_have_state_scalars_and_numbers_of_their_own() {
    let problem = Problem::recorded("table", Anchor::Start);
    let momentum = Optimizer::Sgd { momentum: 1.0, nesterov: false, weight_decay: 0.0 };
    let told = run(&problem, ChosenMethod::new(&AVERAGING, &[]).unwrap(), SGD, 5);
    // Momentum that forgets nothing is the same sum.
    assert_eq!(told.parameters, run(&problem, chosen("vanilla", &[]), momentum, 5).parameters);
    assert_eq!(told.recorded[4]["weight"]["number"], 5.0);
}

#[test]
fn nonsense_settings_are_refused() {
    for (method, name, value, message) in [
        ("digrap", "mu", "-1", "`mu` of digrap cannot be `-1`: it is a number of at least 0"),
        ("digrap", "mu", "NaN", "`mu` of digrap cannot be `NaN`: it is a number of at least 0"),
        ("digrap", "omega", "1.5", "`omega` of digrap cannot be `1.5`: it is trained or a number from 0 to 1"),
        ("digrap", "gated", "yes", "`gated` of digrap cannot be `yes`: it is false or true"),
        ("digrap", "m", "1", "unknown setting of digrap `m`"),
        (
            "wise-ft",
            "alpha_finetuned",
            "1.1",
            "`alpha_finetuned` of wise-ft cannot be `1.1`: it is a number from 0 to 1",
        ),
        ("tpgm", "every", "0", "`every` of tpgm cannot be `0`: it is a whole number of at least 1"),
        ("vanilla", "mu", "1", "vanilla has no settings, such as `mu`: `list methods` shows those of each method"),
    ] {
        let error = ChosenMethod::new(train::find(method).unwrap(), &[(name, value)]).unwrap_err();
        let text = format!("{error}: {}", error.next_step().unwrap_or_default());
        assert!(text.starts_with(message), "{text}");
    }
    let twice = ChosenMethod::new(train::find("ftp").unwrap(), &[("k", "1"), ("k", "0")]);
    assert_eq!(twice.unwrap_err().to_string(), "`k` is set twice");
    let digrap = |given: &[(&str, &str)]| ChosenMethod::new(train::find("digrap").unwrap(), given);
    for name in ["mu", "normalisation", "gated", "kappa"] {
        let value = digrap(&[]).unwrap().chosen(name).unwrap().to_string();
        let told =
            format!("digrap does not use `{name}` where `omega` is 0.5, a projection strength that stays as it is");
        // Also a value that would be there anyway, and whichever comes first.
        let fixed = digrap(&[("omega", "0.5")]).unwrap();
        let errors = [digrap(&[(name, &value), ("omega", "0.5")]), fixed.with(name, &value)];
        assert_eq!(errors.map(|error| error.unwrap_err().to_string()), [told.clone(), told]);
        let trained = digrap(&[("omega", "trained"), (name, &value)]).unwrap();
        assert!(trained.with("omega", "0").is_err() && trained.with("omega", "trained").is_ok());
    }
    let problem = Problem::recorded("table", Anchor::Start);
    let settings = settings(&problem, chosen("tpgm", &[]), SGD, 1);
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let one_each = |number: u64| number as usize;
    let batches =
        Numbered { problem: &problem, quadratic: &problem.training, step: &one_each, count: 1, fails_at: u64::MAX };
    let options = SessionOptions { device: Device::Cpu, sharing: Sharing::Training { threads: 1, mapped: false } };
    let run = Run {
        runtime: &runtime,
        options: &options,
        settings: &settings,
        batches: &batches,
        validation_batches: None,
        folder: folder.path(),
    };
    let error = train::train(&run, problem.task(), &mut |_, _| Ok(None), &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "tpgm learns on validation batches, and there are none");
}

/// A radius that is no number would be one of zero from then on.
#[test]
fn a_search_stops_at_numbers_that_are_none() {
    let mut problem = Problem::recorded("table", Anchor::Start);
    problem.validation.noise[2].get_mut("weight").unwrap()[1] = f64::INFINITY;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&problem, chosen("tpgm", &[]), SGD, 5);
    let Err(error) = attempt(folder.path(), &problem, &settings, HOW) else { panic!("nothing was noticed") };
    assert!(error.to_string().starts_with("the validation loss is -inf at step 3"), "{error}");
    assert!(error.next_step().unwrap().ends_with("the checkpoint of step 2 is kept"), "{error:?}");
}
