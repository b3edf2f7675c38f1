//! Exported model folders and training graphs, as another program would run them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use digrap_bench::data::image::decode;
use digrap_bench::graph::{Graph, Initializer};
use digrap_bench::model::decoding::{Decoding, Strategy};
use digrap_bench::model::export::{GRAPHS, WEIGHTS, export, export_training_graph};
use digrap_bench::model::training::Trained;
use digrap_bench::model::weights::Placement;
use digrap_bench::model::{Checkpoint, Model, Request};
use digrap_bench::runtime::{DeviceTensor, Session};
use digrap_bench::tensor::{DType, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::model_gradients::{Recorded, batch};
use crate::support::{fixture, fixture_json, loading, runtime, session_options};

fn base(model: &str) -> Checkpoint {
    Checkpoint::open(&fixture(&format!("models/{model}"))).unwrap()
}

fn adapted(model: &str) -> Checkpoint {
    let adapter = fixture(&format!("gradients/{model}-adapter"));
    Checkpoint::open_on(&adapter, Some(&fixture(&format!("models/{model}")))).unwrap()
}

fn load(folder: &Path, dtype: DType) -> Model {
    let (checkpoint, scratch) = (Checkpoint::open(folder).unwrap(), tempfile::tempdir().unwrap());
    let mut ignore = |_| ();
    let placement = Placement::new(&checkpoint.weights, dtype, scratch.path(), &mut ignore).unwrap();
    Model::load(&checkpoint, placement, &Trained::default(), &runtime(), &loading(session_options(), 1))
        .unwrap()
        .remove(0)
}

fn session(path: &Path) -> Session {
    Session::new(&runtime(), &Graph::load(path).unwrap(), path.parent().unwrap(), &session_options()).unwrap()
}

fn ints<const N: usize>(shape: [usize; N], values: impl IntoIterator<Item = i64>) -> DeviceTensor {
    runtime().tensor(Tensor::new(shape, values.into_iter().collect::<Vec<_>>()).unwrap()).unwrap()
}

/// The three graphs of an exported folder and what their outputs are called.
struct Exported {
    vision: Session,
    prefill: Session,
    decode: Session,
    present: Vec<String>,
}

impl Exported {
    fn open(folder: &Path) -> Self {
        let path = |name: &str| folder.join(GRAPHS).join(format!("{name}.onnx"));
        let graph = Graph::load(&path("decode")).unwrap();
        let outputs = graph.outputs.iter().map(|value| graph.name_of(*value).to_owned());
        Self {
            vision: session(&path("vision_encoder")),
            prefill: session(&path("prefill")),
            decode: session(&path("decode")),
            present: outputs.filter(|name| name.starts_with("present_")).collect(),
        }
    }

    /// The logits after a prompt and so many tokens of a greedy search.
    fn answer(&mut self, pixels: Tensor, prompt: &[u32], length: usize) -> (Vec<f32>, Vec<u32>) {
        let pixels = runtime().tensor(pixels).unwrap();
        let features = self.vision.run(&[("pixel_values", &pixels)], &["image_features"], &[]).unwrap().remove(0);
        let image = features.shape()[1] as i64;
        let last = image + prompt.len() as i64;
        let ids = ints([1, prompt.len()], prompt.iter().map(|token| i64::from(*token)));
        let (positions, one) = (ints([1, prompt.len()], image + 1..=last), ints([1], [1]));
        let first_row = ints([1], [0]);
        let inputs = [
            ("image_features", &features),
            ("image_rows", &first_row),
            ("input_ids", &ids),
            ("positions", &positions),
            ("top_k", &one),
        ];
        let present: Vec<&str> = self.present.iter().map(String::as_str).collect();
        let past: Vec<String> = self.present.iter().map(|name| name.replace("present", "past")).collect();
        let mut cache = self.prefill.run(&inputs, &present, &["tokens", "logits"]).unwrap();
        let logits = cache.pop().unwrap().values::<f32>().unwrap().to_vec();
        let mut tokens = vec![cache.pop().unwrap().values::<i64>().unwrap()[0]];
        while tokens.len() < length {
            let token = ints([1], tokens[tokens.len() - 1..].iter().copied());
            let keys = last + tokens.len() as i64;
            let keys = ints([1, keys as usize], 1..=keys);
            let mut inputs =
                vec![("rows", &first_row), ("token_ids", &token), ("key_positions", &keys), ("top_k", &one)];
            inputs.extend(past.iter().map(String::as_str).zip(&cache));
            let mut next = self.decode.run(&inputs, &present, &["tokens"]).unwrap();
            tokens.push(next.pop().unwrap().values::<i64>().unwrap()[0]);
            cache = next;
        }
        (logits, tokens.into_iter().map(|token| token as u32).collect())
    }
}

/// Some questions of a fixture with the answers of transformers, or of PEFT's adapted model.
fn questions(model: &str, adapted: bool) -> Vec<(String, String, Value)> {
    let records = fixture_json(&format!("parity/{model}.json"))["records"].take();
    let records = records.as_array().unwrap();
    let answers = match adapted {
        true => fixture_json(&format!("gradients/{model}.json"))["adapter_greedy"].take(),
        false => records.iter().step_by(10).take(6).cloned().collect(),
    };
    let question = |answer: &Value| {
        let record = &records[answer["question_id"].as_u64().unwrap() as usize];
        let text = |key: &str| record[key].as_str().unwrap().to_owned();
        (text("image"), text("question"), answer["greedy"].clone())
    };
    answers.as_array().unwrap().iter().take(6).map(question).collect()
}

/// Exports a model twice, the second time in place of the first, and compares the graphs with the exported model and, in
/// f32, with recorded answers.
fn check_graphs(checkpoint: &Checkpoint, name: &str, dtype: DType) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("exported");
    let mut bytes = 0;
    let first = export(checkpoint, dtype, &folder, &mut |more| bytes += more).unwrap();
    assert!(bytes >= checkpoint.weights.size(), "{name}: {bytes}");
    assert_eq!(export(checkpoint, dtype, &folder, &mut |_| ()).unwrap(), first);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    let (mut exported, mut model) = (Exported::open(&folder), load(&folder, dtype));
    let decoding = Decoding { strategy: Strategy::Greedy, max_new_tokens: 12 };
    for (image, question, answer) in questions(name, checkpoint.adapter.is_some()) {
        let mut pixels = vec![0.0; model.images().output_len()];
        model.images().process(&decode(&fixture(&format!("images/{image}"))).unwrap(), &mut pixels).unwrap();
        let (height, width) = model.images().size();
        let pixels = Tensor::new([1, 3, height, width], pixels).unwrap();
        let tokens = model.text().encode(&question).unwrap();
        let features = model.image_features(pixels.clone()).unwrap();
        let request = [Request { tokens: tokens.clone(), image: 0 }];
        let expected = model.generate_with(&features, &request, &decoding, true).unwrap();
        let (logits, found) = exported.answer(pixels, &tokens, expected.tokens[0].len());
        assert_eq!(found, expected.tokens[0], "{name}: {question}");
        assert!(logits == expected.first_logits.unwrap(), "{name}: logits after {question}");
        if dtype == DType::F32 {
            assert_eq!(serde_json::json!(found), answer, "{name}: {question}");
        }
    }
}

#[test]
fn exported_graphs_answer_as_their_model_does() {
    check_graphs(&base("paligemma-tiny-a"), "paligemma-tiny-a", DType::F32);
    check_graphs(&base("paligemma-tiny-b"), "paligemma-tiny-b", DType::F32);
    check_graphs(&adapted("paligemma2-tiny"), "paligemma2-tiny", DType::F32);
    check_graphs(&base("paligemma2-tiny"), "paligemma2-tiny", DType::F16);
}

/// Every tensor lies once in the one file, and next to nothing else does.
#[test]
fn the_graphs_share_their_weights() {
    let (checkpoint, root) = (base("paligemma-tiny-a"), tempfile::tempdir().unwrap());
    let graphs = export(&checkpoint, DType::F32, &root.path().join("m"), &mut |_| ()).unwrap();
    let names = ["onnx/vision_encoder.onnx", "onnx/prefill.onnx", "onnx/decode.onnx"];
    assert!(graphs.iter().map(|graph| graph.file.as_str()).eq(names));
    let mut places = BTreeMap::new();
    for name in names {
        let graph = Graph::load(&root.path().join("m").join(name)).unwrap();
        for (value, initializer) in &graph.initializers {
            let Initializer::External { file, offset, length } = initializer else { continue };
            assert_eq!(file, WEIGHTS);
            let place = (*offset, *length);
            assert_eq!(*places.entry(graph.name_of(*value).to_owned()).or_insert(place), place);
        }
    }
    assert!(places.keys().eq(checkpoint.weights.names()));
    let bytes = fs::read(root.path().join("m").join(GRAPHS).join(WEIGHTS)).unwrap();
    for (name, (offset, length)) in &places {
        let stored = checkpoint.weights.stored(name).unwrap();
        assert!(bytes[*offset as usize..(offset + length) as usize] == *stored.bytes, "{name}");
    }
    let padding = 64 * places.len() as u64;
    assert!((checkpoint.weights.size()..checkpoint.weights.size() + padding).contains(&(bytes.len() as u64)));
}

/// The weights belong beside the graph, wherever a link leads.
#[test]
fn a_training_graph_is_written_where_a_link_leads() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("away")).unwrap();
    fs::write(folder.path().join("away/train.onnx"), "an older one").unwrap();
    let link = folder.path().join("link.onnx");
    std::os::unix::fs::symlink("away/train.onnx", &link).unwrap();
    let wrt = ["*q_proj.weight".to_owned()];
    export_training_graph(&base("paligemma-tiny-a"), &wrt, DType::F32, &link).unwrap();
    assert!(link.is_symlink());
    let mut names: Vec<_> =
        fs::read_dir(folder.path().join("away")).unwrap().map(|one| one.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["train.onnx", "train.onnx.data"]);
    Graph::load(&link.canonicalize().unwrap()).unwrap();
}

/// Runs an exported training graph on the recorded batch, and compares the loss and every gradient that it has and that
/// is recorded. Returns the names of its weights.
fn check_training(checkpoint: &Checkpoint, model: &str, wrt: &[&str], frozen: bool) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("train.onnx");
    let wrt: Vec<String> = wrt.iter().map(|pattern| (*pattern).to_owned()).collect();
    let report = export_training_graph(checkpoint, &wrt, DType::F32, &output).unwrap();
    assert_eq!(folder.path().join("train.onnx.data").is_file(), frozen);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1 + usize::from(frozen));
    let (facts, recorded) = (fixture_json(&format!("gradients/{model}.json")), Recorded::read(model));
    let adapter = checkpoint.adapter.as_ref();
    let (file, loss) = match adapter {
        Some(_) => (format!("gradients/{model}-adapter-gradients.safetensors"), &facts["lora"]["loss_sum"]),
        None => (format!("gradients/{model}.safetensors"), &facts["loss_sum"]),
    };
    let value = |name: &String| match adapter {
        Some(adapter) => adapter.tensors[name].clone(),
        None => checkpoint.weights.stored(name).unwrap().to_f32().unwrap(),
    };
    let mut inputs = batch(model, &recorded);
    assert_eq!(report.inputs, inputs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    inputs.extend(report.weights.iter().map(|name| (name.clone(), value(name))));
    let fed: Vec<(&str, DeviceTensor)> =
        inputs.iter().map(|(name, tensor)| (name.as_str(), runtime().tensor(tensor.clone()).unwrap())).collect();
    let fed: Vec<(&str, &DeviceTensor)> = fed.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let gradients: Vec<String> = report.weights.iter().map(|name| format!("grad/{name}")).collect();
    let outputs: Vec<&str> = ["loss"].into_iter().chain(gradients.iter().map(String::as_str)).collect();
    let found = session(&output).run(&fed, &[], &outputs).unwrap();
    let (ours, loss) = (f64::from(found[0].values::<f32>().unwrap()[0]), loss.as_f64().unwrap());
    assert!((ours - loss).abs() < 1e-5 * loss, "{ours}, not {loss}");
    let bytes = fs::read(fixture(&file)).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    for (name, found) in report.weights.iter().zip(&found[1..]) {
        let vanishing = facts["vanishing"].as_array().unwrap().contains(&Value::from(name.as_str()));
        if vanishing || expected.tensor(&format!("{name}.rows")).is_ok() {
            continue;
        }
        let theirs = expected.tensor(name).unwrap();
        let theirs = theirs.data().as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
        // The recorded gradients are those of the mean.
        let ours = found.values::<f32>().unwrap().iter().map(|value| f64::from(*value));
        let ours = ours.map(|value| value / recorded.supervised_tokens as f64);
        let size: f64 = theirs.clone().map(|value| value * value).sum();
        let difference: f64 = ours.zip(theirs).map(|(a, b)| (a - b).powi(2)).sum();
        assert!(difference.sqrt() < 1e-4 * size.sqrt(), "{name}: {}", (difference / size).sqrt());
    }
    report.weights
}

#[test]
fn exported_training_graphs_have_the_recorded_gradients() {
    let plain = base("paligemma-tiny-a");
    let all = check_training(&plain, "paligemma-tiny-a", &[], false);
    assert_eq!(all.len(), plain.weights.names().len());
    let some = check_training(&plain, "paligemma-tiny-a", &["*q_proj.weight", "*.mlp.*"], true);
    assert!(some.iter().all(|name| name.ends_with("q_proj.weight") || name.contains(".mlp.")) && some.len() > 12);
    let adapted = adapted("paligemma2-tiny");
    let matrices = check_training(&adapted, "paligemma2-tiny", &[], true);
    assert_eq!(matrices.len(), adapted.adapter.as_ref().unwrap().tensors.len());
    let half = check_training(&adapted, "paligemma2-tiny", &["*lora_B.weight"], true);
    assert_eq!(2 * half.len(), matrices.len());
}
