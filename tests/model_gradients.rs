//! Gradients of whole models against PyTorch's (fixtures of `make_gradients.py`).

use std::collections::HashMap;
use std::sync::Arc;

use digrap_bench::data::image::decode;
use digrap_bench::error::Result;
use digrap_bench::graph::{Builder, Graph, gradients};
use digrap_bench::model::Checkpoint;
use digrap_bench::model::training::{Collation, Example, Lora, Parameters, Trained, TrainedTensor, TrainingGraph};
use digrap_bench::model::vision::ImageProcessor;
use digrap_bench::model::weights::Placement;
use digrap_bench::runtime::{DeviceTensor, Session};
use digrap_bench::tensor::{DType, Tensor};
use digrap_bench::train::{
    Anchor, Batch, Batches, ChosenMethod, Event, Optimizer, Parameter, Role, Run, Schedule, Settings, Task, find, train,
};
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::support::{fixture, fixture_json, runtime, shared_operators};

#[derive(Deserialize)]
pub struct Recorded {
    examples: Vec<RecordedExample>,
    pub loss_sum: f64,
    pub supervised_tokens: usize,
    gradient_norms: HashMap<String, f64>,
    vanishing: Vec<String>,
    lora: RecordedLora,
}

#[derive(Deserialize)]
struct RecordedExample {
    image: String,
    prompt_ids: Vec<u32>,
    answer_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct RecordedLora {
    r: usize,
    lora_alpha: f32,
    target_modules: Vec<String>,
    loss_sum: f64,
}

impl Recorded {
    pub fn read(model: &str) -> Self {
        serde_json::from_value(fixture_json(&format!("gradients/{model}.json"))).unwrap()
    }

    pub fn lora(&self) -> Lora {
        let RecordedLora { r, lora_alpha, target_modules, .. } = &self.lora;
        Lora { rank: *r, alpha: *lora_alpha, dropout: 0.0, targets: target_modules.clone() }
    }
}

/// The recorded batch as inputs of the training graph of a model with so many image tokens.
pub fn batch(model: &str, recorded: &Recorded) -> Vec<(String, Tensor)> {
    let processor = ImageProcessor::read(&fixture(&format!("models/{model}"))).unwrap();
    let mut names: Vec<&str> = recorded.examples.iter().map(|example| example.image.as_str()).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    let (height, width) = processor.size();
    let size = processor.output_len();
    let mut pixels = vec![0f32; names.len() * size];
    for (name, out) in names.iter().zip(pixels.chunks_mut(size)) {
        let image = decode(&fixture(&format!("images/{name}"))).unwrap();
        processor.process(&image, out).unwrap();
    }
    let examples: Vec<Example> = recorded
        .examples
        .iter()
        .map(|example| Example {
            prompt: example.prompt_ids.clone(),
            answer: example.answer_ids.clone(),
            image: names.iter().position(|name| *name == example.image).unwrap(),
        })
        .collect();
    let collation = Collation { image_tokens: 16, masks: Arc::new([]), dropout: 0.0 };
    let pixels = Tensor::new([names.len(), 3, height, width], pixels).unwrap();
    let (inputs, count) = collation.batch(&examples, pixels, 0).unwrap();
    assert_eq!(count, recorded.supervised_tokens);
    inputs
}

/// The training graph of a fixture with gradients as outputs `grad/<name>`.
fn differentiated(checkpoint: &Checkpoint, trained: &Trained, recomputed: bool) -> (Graph, TrainingGraph) {
    let mut ignore = |_| ();
    let scratch = tempfile::tempdir().unwrap();
    let mut placement = Placement::new(&checkpoint.weights, DType::F32, scratch.path(), &mut ignore).unwrap();
    let training = checkpoint.training_graph(&mut placement, trained).unwrap();
    let mut builder = Builder::resume(training.graph.clone());
    let find = |name: &str| training.graph.find(name).unwrap();
    let wanted: Vec<_> = training.trained.iter().map(|tensor| find(&tensor.name)).collect();
    let layers: &[String] = if recomputed { &training.layers } else { &[] };
    let found = gradients(&mut builder, find("loss"), &wanted, layers).unwrap();
    for (tensor, gradient) in training.trained.iter().zip(found) {
        let gradient = gradient.unwrap_or_else(|| panic!("{} has no gradient", tensor.name));
        builder.output(&format!("grad/{}", tensor.name), gradient).unwrap();
    }
    (builder.finish(), training)
}

fn run(graph: &Graph, inputs: &[(String, Tensor)], outputs: &[String]) -> Vec<DeviceTensor> {
    let mut session = Session::new(&runtime(), graph, std::path::Path::new("/"), &shared_operators()).unwrap();
    let fed: Vec<(&str, DeviceTensor)> =
        inputs.iter().map(|(name, tensor)| (name.as_str(), runtime().tensor(tensor.clone()).unwrap())).collect();
    let fed: Vec<(&str, &DeviceTensor)> = fed.iter().map(|(name, tensor)| (*name, tensor)).collect();
    session.run(&fed, &[], &outputs.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
}

fn floats(tensors: &SafeTensors, name: &str) -> Vec<f64> {
    let view = tensors.tensor(name).unwrap_or_else(|_| panic!("no `{name}` is recorded"));
    view.data().as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Shape and elements by name.
type Named = HashMap<String, (Vec<usize>, Vec<f32>)>;

/// The summed loss, and its gradients by name.
fn gradients_of(
    checkpoint: &Checkpoint,
    trained: &Trained,
    inputs: &[(String, Tensor)],
    values: impl Fn(&str, &[usize]) -> Tensor,
    recomputed: bool,
) -> (f64, Named) {
    let (graph, training) = differentiated(checkpoint, trained, recomputed);
    let mut inputs = inputs.to_vec();
    let mut outputs = vec!["loss".to_owned()];
    for tensor in &training.trained {
        inputs.push((tensor.name.clone(), values(&tensor.name, &tensor.shape)));
        outputs.push(format!("grad/{}", tensor.name));
    }
    let found = run(&graph, &inputs, &outputs);
    let loss = f64::from(found[0].values::<f32>().unwrap()[0]);
    let named = training.trained.iter().zip(&found[1..]);
    (
        loss,
        named
            .map(|(tensor, value)| (tensor.name.clone(), (value.shape(), value.values::<f32>().unwrap().to_vec())))
            .collect(),
    )
}

fn check(name: &str, found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "{name}");
    let difference: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    let error = norm(&difference) / norm(expected);
    assert!(error <= 1e-4, "{name}: relative error {error:e}");
    error
}

fn check_full(model: &str) {
    let checkpoint = Checkpoint::open(&fixture(&format!("models/{model}"))).unwrap();
    let recorded = Recorded::read(model);
    let bytes = std::fs::read(fixture(&format!("gradients/{model}.safetensors"))).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let trained = Trained { parameters: Parameters::All, adapter: None };
    let inputs = batch(model, &recorded);
    let values = |name: &str, shape: &[usize]| checkpoint.weights.values(name, shape).unwrap();
    let (loss, found) = gradients_of(&checkpoint, &trained, &inputs, values, false);
    assert!((loss - recorded.loss_sum).abs() < 1e-5 * recorded.loss_sum, "{loss} against {}", recorded.loss_sum);
    assert_eq!(found.len(), recorded.gradient_norms.len());
    let count = recorded.supervised_tokens as f64;
    for (name, norm_recorded) in &recorded.gradient_norms {
        let (shape, values) = &found[name];
        let mean: Vec<f64> = values.iter().map(|value| f64::from(*value) / count).collect();
        if recorded.vanishing.contains(name) {
            assert!(norm(&mean) < 1e-5, "{name} does not vanish");
            continue;
        }
        match expected.tensor(&format!("{name}.rows")) {
            Ok(rows) => {
                let rows = rows.data().as_chunks::<8>().0.iter().map(|row| i64::from_le_bytes(*row) as usize);
                let picked: Vec<f64> =
                    rows.flat_map(|row| mean[row * shape[1]..(row + 1) * shape[1]].to_vec()).collect();
                check(name, &picked, &floats(&expected, name));
                assert!((norm(&mean) - norm_recorded).abs() < 1e-4 * norm_recorded, "{name}: norm");
            }
            Err(_) => {
                check(name, &mean, &floats(&expected, name));
            }
        }
    }
    let (again_loss, again) = gradients_of(&checkpoint, &trained, &inputs, values, true);
    assert_eq!(again_loss, loss);
    assert!(again == found, "recomputation changes the gradients");
}

fn check_lora(model: &str) {
    let checkpoint = Checkpoint::open(&fixture(&format!("models/{model}"))).unwrap();
    let recorded = Recorded::read(model);
    let read = |file: &str| std::fs::read(fixture(&format!("gradients/{file}"))).unwrap();
    let (adapter, gradients) = (
        read(&format!("{model}-adapter/adapter_model.safetensors")),
        read(&format!("{model}-adapter-gradients.safetensors")),
    );
    let adapter = SafeTensors::deserialize(&adapter).unwrap();
    let expected = SafeTensors::deserialize(&gradients).unwrap();
    let trained = Trained { parameters: Parameters::None, adapter: Some(recorded.lora()) };
    let values = |name: &str, shape: &[usize]| {
        Tensor::new(shape, floats(&adapter, name).iter().map(|value| *value as f32).collect()).unwrap()
    };
    let (loss, found) = gradients_of(&checkpoint, &trained, &batch(model, &recorded), values, false);
    assert!((loss - recorded.lora.loss_sum).abs() < 1e-5 * recorded.lora.loss_sum, "{loss}");
    assert_eq!(found.len(), expected.len());
    for (name, (_, values)) in &found {
        let mean: Vec<f64> = values.iter().map(|value| f64::from(*value) / recorded.supervised_tokens as f64).collect();
        check(name, &mean, &floats(&expected, name));
    }
}

#[test]
fn every_gradient_of_paligemma_is_that_of_pytorch() {
    check_full("paligemma-tiny-a");
}

#[test]
fn every_gradient_of_paligemma_2_is_that_of_pytorch() {
    check_full("paligemma2-tiny");
}

#[test]
fn lora_gradients_are_those_of_peft() {
    check_lora("paligemma-tiny-a");
    check_lora("paligemma2-tiny");
}

#[derive(Deserialize)]
struct Curve {
    optimizer: String,
    settings: CurveSettings,
    losses: Vec<f64>,
    norms_after: HashMap<String, f64>,
}

#[derive(Deserialize)]
struct CurveSettings {
    lr: f64,
    weight_decay: f64,
    #[serde(default)]
    betas: [f64; 2],
    #[serde(default)]
    eps: f64,
    #[serde(default)]
    momentum: f64,
}

impl Curve {
    fn optimizer(&self) -> Optimizer {
        let CurveSettings { weight_decay, betas, eps, momentum, .. } = self.settings;
        match self.optimizer.as_str() {
            "AdamW" => Optimizer::AdamW { betas, eps, weight_decay },
            _ => Optimizer::Sgd { momentum, nesterov: true, weight_decay },
        }
    }
}

/// The same batch at each step.
struct Same {
    inputs: Vec<(String, Tensor)>,
    count: usize,
}

impl Batches for Same {
    fn batch(&self, _: u64) -> Result<Batch> {
        Ok(Batch { inputs: self.inputs.clone(), count: self.count, samples: 5, ids: Vec::new() })
    }
}

/// Trains a fixture as PyTorch did and compares all losses, and the norms of the parameters afterwards.
fn follow(model: &str, curve: &str, adapter: bool) {
    let checkpoint = Checkpoint::open(&fixture(&format!("models/{model}"))).unwrap();
    let recorded = Recorded::read(model);
    let curve: Curve = serde_json::from_value(fixture_json(&format!("gradients/{model}.json"))[curve].clone()).unwrap();
    let trained = match adapter {
        true => Trained { parameters: Parameters::None, adapter: Some(recorded.lora()) },
        false => Trained { parameters: Parameters::All, adapter: None },
    };
    let mut ignore = |_| ();
    let scratch = tempfile::tempdir().unwrap();
    let mut placement = Placement::new(&checkpoint.weights, DType::F32, scratch.path(), &mut ignore).unwrap();
    let graph = checkpoint.training_graph(&mut placement, &trained).unwrap();
    let bytes = adapter
        .then(|| std::fs::read(fixture(&format!("gradients/{model}-adapter/adapter_model.safetensors"))).unwrap());
    let start = bytes.as_ref().map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let value = |tensor: &TrainedTensor| match &start {
        Some(start) => {
            let values = floats(start, &tensor.name).iter().map(|value| *value as f32).collect();
            Tensor::new(tensor.shape.clone(), values).unwrap()
        }
        None => checkpoint.weights.values(&tensor.name, &tensor.shape).unwrap(),
    };
    let parameter = |tensor: &TrainedTensor| Parameter {
        name: tensor.name.clone(),
        start: value(tensor),
        role: Role::Weight,
        anchor: Anchor::Start,
    };
    let parameters = graph.trained.iter().map(parameter).collect();
    let task = Task { graph: graph.graph, folder: "/".into(), evaluation: None, parameters, recomputed: Vec::new() };
    let settings = Settings {
        subject: serde_json::Map::new(),
        method: ChosenMethod::new(find("vanilla").unwrap(), &[]).unwrap(),
        optimizer: curve.optimizer(),
        learning_rate: curve.settings.lr,
        schedule: Schedule::Constant,
        steps_per_epoch: 20,
        steps: 20,
        accumulation: 1,
        clip: None,
        save_every: None,
        workers: 1,
    };
    let batches = Same { inputs: batch(model, &recorded), count: recorded.supervised_tokens };
    let (runtime, options, folder) = (runtime(), shared_operators(), tempfile::tempdir().unwrap());
    let run = Run {
        runtime: &runtime,
        options: &options,
        settings: &settings,
        batches: &batches,
        validation_batches: None,
        folder: folder.path(),
    };
    let mut losses = Vec::new();
    let outcome = train(&run, task, &mut |_, _| Ok(None), &mut |event| {
        if let Event::Stepped(progress) = event {
            losses.push(progress.loss);
        }
    })
    .unwrap();
    assert_eq!(losses.len(), curve.losses.len());
    for (step, (found, expected)) in losses.iter().zip(&curve.losses).enumerate() {
        assert!(
            (found - expected).abs() <= 1e-4 * expected.max(1.0),
            "{model} step {step}: {found} against {expected}"
        );
    }
    for (name, tensor) in outcome.parameters {
        if recorded.vanishing.contains(&name) {
            // Adam makes steps of rounding noise there.
            continue;
        }
        let found = norm(&tensor.values::<f32>().unwrap().iter().map(|value| f64::from(*value)).collect::<Vec<_>>());
        let expected = curve.norms_after[&name];
        assert!((found - expected).abs() <= 1e-3 * expected.max(0.1), "{model} {name}: {found} against {expected}");
    }
}

#[test]
fn twenty_steps_of_adamw_follow_pytorch() {
    follow("paligemma-tiny-a", "adamw_curve", false);
    follow("paligemma2-tiny", "adamw_curve", false);
}

#[test]
fn twenty_steps_of_sgd_follow_pytorch() {
    follow("paligemma-tiny-a", "sgd_curve", false);
    follow("paligemma2-tiny", "sgd_curve", false);
}

#[test]
fn twenty_steps_of_lora_follow_peft() {
    follow("paligemma-tiny-a", "lora_adamw_curve", true);
    follow("paligemma2-tiny", "lora_adamw_curve", true);
}
