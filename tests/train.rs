//! Training: the same steps as PyTorch, runs that go on after any end, errors that keep what was reached.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use digrap_bench::error::{Error, Result};
use digrap_bench::graph::{Attribute, Builder, Dim, Graph, Type, Value};
use digrap_bench::runtime::{Device, SessionOptions, Sharing};
use digrap_bench::tensor::{DType, Tensor};
use digrap_bench::train::{
    self, Anchor, Batch, Batches, ChosenMethod, Event, Optimizer, Outcome, Parameter, Parameters, Position, Role, Run,
    Schedule, Settings, Task,
};
use serde_json::{Value as Json, json};

use crate::support::{fixture_json, runtime};

const SAMPLES: usize = 12;

/// The numbers of a list.
pub fn numbers(value: &Json) -> Vec<f64> {
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
        let start = Tensor::new(shape, single(&recorded["start"][name])).unwrap();
        Parameter { name: name.to_owned(), start, role: Role::Weight, anchor: Anchor::Start }
    });
    let (graph, parameters) = (regression(shapes), parameters.into());
    Task { graph, folder: ".".into(), evaluation: None, parameters, recomputed: Vec::new() }
}

/// The recorded batches, each in parts of these sizes; goes wrong at one micro-step.
struct Recorded {
    steps: Vec<(Vec<f32>, Vec<f32>)>,
    parts: Vec<usize>,
    fails_at: u64,
    poisoned: Option<u64>,
    supervised: bool,
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
            supervised: true,
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
        Ok(Batch {
            inputs: inputs.into(),
            count: if self.supervised { rows.len() } else { 0 },
            samples: rows.len(),
            ids,
        })
    }
}

fn options() -> SessionOptions {
    SessionOptions { device: Device::Cpu, sharing: Sharing::Training { threads: 2, mapped: false } }
}

fn settings(optimizer: Optimizer) -> Settings {
    Settings {
        subject: json!({"weights": "regression", "seed": 7}).as_object().unwrap().clone(),
        method: ChosenMethod::new(train::find("vanilla").unwrap(), &[]).unwrap(),
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

/// A recorded optimiser.
pub fn optimizer(recorded: &Json) -> Optimizer {
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
    let options = options();
    let run = Run { runtime: &runtime, options: &options, settings, batches, validation_batches: None, folder };
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

#[test]
fn schedules_give_the_rates_of_transformers_and_lavis() {
    let recorded = fixture_json("train/schedules.json");
    for case in recorded["cases"].as_array().unwrap() {
        let (known, number) = (&case["schedule"], |name: &str| case[name].as_u64().unwrap());
        let (warmup, floor) =
            (known["warmup"].as_u64().unwrap_or_default(), known["floor"].as_f64().unwrap_or_default());
        let schedule = match known["name"].as_str().unwrap() {
            "constant" => Schedule::Constant,
            "linear" => Schedule::Linear { warmup },
            "cosine" => Schedule::Cosine { warmup, floor },
            _ => Schedule::Lavis { warmup, floor, start: known["start"].as_f64().unwrap() },
        };
        let (steps, steps_per_epoch, accumulation) =
            (number("steps"), number("steps_per_epoch"), number("accumulation"));
        let peak = case["peak"].as_f64().unwrap();
        for (step, expected) in (0..steps).zip(numbers(&case["rates"])) {
            let rate = schedule.rate(peak, &Position { step, steps, steps_per_epoch, accumulation });
            assert!((rate - expected).abs() <= 1e-15, "{known}: step {step}: {rate}, not {expected}");
        }
    }
}

#[test]
fn splitting_a_step_into_micro_batches_changes_nothing_but_rounding() {
    let recorded = fixture_json("train/optimizers.json");
    let train = |parts: &[usize]| {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { accumulation: parts.len() as u64, clip: Some(3.0), ..settings(ADAMW) };
        let (outcome, events) = run(task(&recorded), &settings, &Recorded::new(&recorded, parts), folder.path());
        (losses(&events), outcome.unwrap().parameters)
    };
    let (whole_losses, whole) = train(&[SAMPLES]);
    let (split_losses, split) = train(&[5, 1, 6]);
    assert!(distance(&split_losses, &whole_losses) < 1e-6);
    for ((name, split), (_, whole)) in split.iter().zip(&whole) {
        let off = distance(&double(split), &double(whole));
        assert!(off < 2e-6, "`{name}` {off}");
    }
}

#[test]
fn recomputation_changes_no_bit() {
    let recorded = fixture_json("train/optimizers.json");
    let train = |scopes: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let recomputed = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let task = Task { recomputed, ..task(&recorded) };
        run(task, &settings(ADAMW), &Recorded::new(&recorded, &[SAMPLES]), folder.path()).0.unwrap()
    };
    assert_eq!(train(&["layer"]), train(&[]));
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.push((name, fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Checkpoints every third step, epochs of 8, the second and third of which score alike.
fn with_checkpoints() -> Settings {
    Settings { save_every: Some(3), ..settings(ADAMW) }
}

fn score(epoch: u64, parameters: &Parameters) -> Result<Option<f64>> {
    assert_eq!(parameters.get("scale").unwrap().shape(), [1, 1, 4]);
    Ok(Some([0.5, 0.75, 0.75][epoch as usize]))
}

#[test]
fn a_run_that_stopped_anywhere_ends_with_the_same_bytes() {
    let recorded = fixture_json("train/optimizers.json");
    let reference = tempfile::tempdir().unwrap();
    let good = Recorded::new(&recorded, &[SAMPLES]);
    let settings = with_checkpoints();
    let (outcome, events) = validated(task(&recorded), &settings, &good, reference.path(), &mut score);
    let outcome = outcome.unwrap();
    let best = outcome.best.unwrap();
    assert_eq!((outcome.steps, best.step, best.epoch, best.score), (20, 16, 1, 0.75));
    let saved: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Saved { step } => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(saved, [3, 6, 8, 9, 12, 15, 16, 18, 20]);
    let expected = files(reference.path());
    let expected_names: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        expected_names,
        [
            "checkpoint/20/best.safetensors",
            "checkpoint/20/checkpoint.json",
            "checkpoint/20/numbers.json",
            "checkpoint/20/parameters.safetensors",
            "checkpoint/20/state.safetensors",
            "metrics.jsonl",
            "settings.json"
        ]
    );
    for fails_at in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let bad = Recorded { fails_at, ..Recorded::new(&recorded, &[SAMPLES]) };
        let (error, _) = validated(task(&recorded), &settings, &bad, folder.path(), &mut score);
        assert_eq!(error.unwrap_err().to_string(), "the image of a question is damaged");
        let (resumed, events) = validated(task(&recorded), &settings, &good, folder.path(), &mut score);
        assert_eq!(resumed.unwrap(), outcome, "stopped at {fails_at}");
        let last = saved.iter().copied().filter(|step| *step <= fails_at).max();
        let expected_event = last.map(|step| Event::Resumed { step });
        assert_eq!(events.iter().find(|event| matches!(event, Event::Resumed { .. })).cloned(), expected_event);
        assert!(files(folder.path()) == expected, "stopped at {fails_at}");
    }
}

#[test]
fn what_a_killed_run_leaves_is_cleared_away() {
    let recorded = fixture_json("train/optimizers.json");
    let (reference, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let good = Recorded::new(&recorded, &[SAMPLES]);
    let settings = with_checkpoints();
    validated(task(&recorded), &settings, &good, reference.path(), &mut score).0.unwrap();
    let bad = Recorded { fails_at: 11, ..Recorded::new(&recorded, &[SAMPLES]) };
    validated(task(&recorded), &settings, &bad, folder.path(), &mut score).0.unwrap_err();
    let checkpoints = folder.path().join("checkpoint");
    assert_eq!(names(&checkpoints), ["9"]);
    // Killed while the one before was being removed, then while the next one was being written.
    fs::create_dir(checkpoints.join("8")).unwrap();
    fs::copy(checkpoints.join("9/state.safetensors"), checkpoints.join("8/state.safetensors")).unwrap();
    fs::create_dir(checkpoints.join(".partial")).unwrap();
    fs::write(checkpoints.join(".partial/parameters.safetensors"), "half").unwrap();
    let metrics = folder.path().join("metrics.jsonl");
    let mut written = fs::read(&metrics).unwrap();
    written.extend(b"{\"step\":10,\"epo");
    fs::write(&metrics, written).unwrap();
    validated(task(&recorded), &settings, &good, folder.path(), &mut score).0.unwrap();
    assert!(files(folder.path()) == files(reference.path()));
    // Metrics that were cut by someone else cannot be mended.
    let length = fs::metadata(&metrics).unwrap().len();
    fs::write(&metrics, "{}\n").unwrap();
    let (error, _) = run(task(&recorded), &settings, &good, folder.path());
    let expected = format!("metrics.jsonl` has 3 bytes, {length} at the last checkpoint");
    assert!(error.unwrap_err().to_string().ends_with(&expected));
}

#[test]
fn a_finished_run_does_nothing() {
    let recorded = fixture_json("train/optimizers.json");
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = run(task(&recorded), &settings(ADAMW), &Recorded::new(&recorded, &[SAMPLES]), folder.path());
    let batches = Recorded::new(&recorded, &[SAMPLES]);
    let before = files(folder.path());
    let (second, events) = run(task(&recorded), &settings(ADAMW), &batches, folder.path());
    assert_eq!(second.unwrap(), first.unwrap());
    assert_eq!((batches.made.load(Ordering::SeqCst), events.len()), (0, 0));
    assert!(files(folder.path()) == before);
}

#[test]
fn metrics_are_one_line_per_step_and_validation() {
    let recorded = fixture_json("train/optimizers.json");
    let folder = tempfile::tempdir().unwrap();
    let batches = Recorded::new(&recorded, &[7, 5]);
    let settings = Settings { accumulation: 2, ..settings(ADAMW) };
    validated(task(&recorded), &settings, &batches, folder.path(), &mut score).0.unwrap();
    let text = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 23);
    assert_eq!(lines[8], json!({"step": 8, "epoch": 0, "validation": 0.5}));
    assert_eq!(lines[22], json!({"step": 20, "epoch": 2, "validation": 0.75}));
    let keys: Vec<&String> = lines[9].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["epoch", "gradient_norm", "learning_rate", "loss", "samples", "step"]);
    assert_eq!((&lines[9]["step"], &lines[9]["epoch"], &lines[9]["samples"]), (&json!(9), &json!(1), &json!(12)));
}

fn chain(error: &Error) -> String {
    format!("{error:?}; {}", error.next_step().unwrap_or("no hint"))
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint() {
    let recorded = fixture_json("train/optimizers.json");
    let folder = tempfile::tempdir().unwrap();
    let parts = [8, 4];
    let settings = Settings { accumulation: 2, ..with_checkpoints() };
    let bad = Recorded { poisoned: Some(21), ..Recorded::new(&recorded, &parts) };
    let (error, events) = run(task(&recorded), &settings, &bad, folder.path());
    assert_eq!(
        chain(&error.unwrap_err()),
        "Input: the loss is NaN at step 11, with a learning rate of 0.0138268343236509: \
         its samples are q128, q129, q130, q131; \
         look at these samples, or use a lower learning rate or clipped gradients; the checkpoint of step 9 is kept"
    );
    assert_eq!(losses(&events).len(), 10);
    assert_eq!(names(&folder.path().join("checkpoint")), ["9"]);
    let (outcome, _) = run(task(&recorded), &settings, &Recorded::new(&recorded, &parts), folder.path());
    assert_eq!(outcome.unwrap().steps, 20);
}

/// The loss is 0, but the square of its gradient is too large for single precision.
#[test]
fn a_gradient_that_is_not_finite_changes_no_parameter() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = Builder::new("overflow");
    let weight = builder.input("weight", Type::new(DType::F32, [2.into()])).unwrap();
    let scale = builder.input("x", Type::new(DType::F32, ["batch".into(), 2.into()])).unwrap();
    let small = builder.mul(scale, weight).unwrap();
    let large = builder.scale(small, 3e30).unwrap();
    let loss = sum(&mut builder, large, &[0, 1]);
    builder.output("loss", loss).unwrap();
    let start = Tensor::vector(vec![0f32, 0.0]);
    let parameter = Parameter { name: "weight".to_owned(), start, role: Role::Weight, anchor: Anchor::Start };
    let (graph, parameters) = (builder.finish(), vec![parameter]);
    let task = Task { graph, folder: ".".into(), evaluation: None, parameters, recomputed: Vec::new() };
    struct Huge;
    impl Batches for Huge {
        fn batch(&self, _: u64) -> Result<Batch> {
            let inputs = vec![("x".to_owned(), Tensor::new([1, 2], vec![1e9f32, 1.0])?)];
            Ok(Batch { inputs, count: 1, samples: 1, ids: (0..40).map(|id| id.to_string()).collect() })
        }
    }
    let runtime = runtime();
    let settings = settings(ADAMW);
    let run = Run {
        runtime: &runtime,
        options: &options(),
        settings: &settings,
        batches: &Huge,
        validation_batches: None,
        folder: folder.path(),
    };
    let error = train::train(&run, task, &mut |_, _| Ok(None), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "the norm of the gradients is inf at step 1, with a learning rate of 0.0");
    assert!(chain(&error).contains("29, 30, 31 and 8 more; look at"), "{error:?}");
}

#[test]
fn a_run_goes_on_with_the_same_settings_only() {
    let recorded = fixture_json("train/optimizers.json");
    let folder = tempfile::tempdir().unwrap();
    let batches = Recorded { fails_at: 9, ..Recorded::new(&recorded, &[SAMPLES]) };
    let first = with_checkpoints();
    run(task(&recorded), &first, &batches, folder.path()).0.unwrap_err();
    let before = files(folder.path());
    let refused = |settings: Settings| {
        let error = run(task(&recorded), &settings, &batches, folder.path()).0.unwrap_err();
        assert_eq!(error.next_step(), Some("use another --output, or the same settings to go on with this run"));
        error.to_string().split_once("has other settings: ").unwrap().1.to_owned()
    };
    let faster = Settings { learning_rate: 0.5, steps: 30, ..first.clone() };
    assert_eq!(refused(faster), "`learning_rate` was 0.02 and is 0.5 now");
    let subject = json!({"weights": "regression", "seed": 8}).as_object().unwrap().clone();
    assert_eq!(refused(Settings { subject, ..first.clone() }), "`subject.seed` was 7 and is 8 now");
    let plain = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.1 };
    let optimizer = Settings { optimizer: plain, ..first.clone() };
    assert_eq!(refused(optimizer), "`optimizer.betas` was [0.9,0.95] and is null now");
    assert!(files(folder.path()) == before);
    // A run without a checkpoint has nothing to lose.
    let early = tempfile::tempdir().unwrap();
    let at_once = Recorded { fails_at: 1, ..Recorded::new(&recorded, &[SAMPLES]) };
    run(task(&recorded), &settings(plain), &at_once, early.path()).0.unwrap_err();
    assert_eq!(names(&early.path().join("checkpoint")), [""; 0]);
    let good = Recorded::new(&recorded, &[SAMPLES]);
    assert_eq!(run(task(&recorded), &first, &good, early.path()).0.unwrap().steps, 20);
    // What does not decide the result may change.
    let often = Settings { save_every: None, workers: 1, ..first };
    assert_eq!(run(task(&recorded), &often, &good, folder.path()).0.unwrap().steps, 20);
}

#[test]
fn a_run_folder_is_for_one_process() {
    let recorded = fixture_json("train/optimizers.json");
    let folder = tempfile::tempdir().unwrap();
    let batches = Recorded::new(&recorded, &[SAMPLES]);
    let mut second = None;
    let (outcome, _) = validated(task(&recorded), &settings(ADAMW), &batches, folder.path(), &mut |_, _| {
        second = Some(run(task(&recorded), &settings(ADAMW), &batches, folder.path()).0.unwrap_err());
        Ok(None)
    });
    outcome.unwrap();
    assert!(second.unwrap().to_string().starts_with("another process is training in `"));
}

#[test]
fn a_full_disk_is_one_error_and_the_checkpoint_before_it_is_whole() {
    const FOLDER: &str = "DIGRAP_TEST_FULL_DISK";
    let recorded = fixture_json("train/optimizers.json");
    let large = || {
        let mut task = task(&recorded);
        let mut builder = Builder::resume(task.graph);
        builder.input("ballast", Type::new(DType::F32, [4096.into()])).unwrap();
        task.graph = builder.finish();
        let start = Tensor::vector(vec![0.5f32; 4096]);
        let (role, anchor) = (Role::Weight, Anchor::Start);
        task.parameters.push(Parameter { name: "ballast".to_owned(), start, role, anchor });
        task
    };
    let good = Recorded::new(&recorded, &[SAMPLES]);
    if let Some(folder) = std::env::var_os(FOLDER) {
        let (error, _) = run(large(), &with_checkpoints(), &good, Path::new(&folder));
        let error = error.unwrap_err();
        assert!(error.to_string().ends_with("/checkpoint/12`"), "{error:?}");
        assert!(error.next_step().unwrap().starts_with("make room on the disk; the checkpoint before it"), "{error:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bad = Recorded { fails_at: 10, ..Recorded::new(&recorded, &[SAMPLES]) };
    let (_, events) = run(large(), &with_checkpoints(), &bad, folder.path());
    assert_eq!(events[0], Event::Unreached { parameters: vec!["ballast".to_owned()] });
    let checkpoints = folder.path().join("checkpoint");
    let before = files(&checkpoints);
    // A process whose files cannot grow beyond 8 to 16 kilobytes, which depends on the shell's unit.
    let limited = "trap '' XFSZ; ulimit -f 16; exec \"$0\" --exact \"$1\"";
    let this = "train::a_full_disk_is_one_error_and_the_checkpoint_before_it_is_whole";
    let mut shell = std::process::Command::new("sh");
    let child = shell.arg("-c").arg(limited).arg(std::env::current_exe().unwrap()).arg(this).env(FOLDER, folder.path());
    let child = child.output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
    assert!(files(&checkpoints) == before);
    let outcome = run(large(), &with_checkpoints(), &good, folder.path()).0.unwrap();
    let (name, ballast) = outcome.parameters.last().unwrap();
    assert_eq!((name.as_str(), ballast), ("ballast", &Tensor::vector(vec![0.5f32; 4096])));
}

#[test]
fn wrong_settings_and_batches_are_errors() {
    let recorded = fixture_json("train/optimizers.json");
    let fail = |settings: Settings, batches: &Recorded| {
        let folder = tempfile::tempdir().unwrap();
        run(task(&recorded), &settings, batches, folder.path()).0.unwrap_err().to_string()
    };
    let good = Recorded::new(&recorded, &[SAMPLES]);
    let adamw = |beta: f64, eps: f64| Optimizer::AdamW { betas: [0.9, beta], eps, weight_decay: 0.0 };
    let refused = [
        (Settings { steps: 0, ..settings(ADAMW) }, "0 steps"),
        (Settings { steps_per_epoch: 0, ..settings(ADAMW) }, "0 steps per epoch"),
        (Settings { accumulation: 0, ..settings(ADAMW) }, "0 micro-batches per step"),
        (Settings { save_every: Some(0), ..settings(ADAMW) }, "0 steps between checkpoints"),
        (Settings { learning_rate: f64::NAN, ..settings(ADAMW) }, "a learning rate of NaN"),
        (settings(adamw(0.9, 0.0)), "an epsilon of 0, which divides by 0 where a gradient is 0"),
        (settings(adamw(1.0, 1e-8)), "a decay rate of moments (beta) of 1"),
        (settings(adamw(0.9, -1.0)), "a number added to roots (epsilon) of -1"),
        (
            Settings { schedule: Schedule::Cosine { warmup: 0, floor: -0.5 }, ..settings(ADAMW) },
            "a final learning rate of -0.5",
        ),
        (Settings { clip: Some(0.0), ..settings(ADAMW) }, "gradients clipped to a norm of 0"),
    ];
    for (settings, what) in refused {
        assert_eq!(fail(settings, &good), format!("cannot train with {what}"));
    }
    let empty = fail(settings(ADAMW), &Recorded { supervised: false, ..Recorded::new(&recorded, &[SAMPLES]) });
    assert_eq!(empty, "nothing to learn from: step 1 has no supervised token");
    assert_eq!(
        train::find("vanila").unwrap_err().next_step().map(|step| step.starts_with("did you mean `vanilla`?")),
        Some(true)
    );
}
