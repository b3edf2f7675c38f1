//! Models against the outputs of transformers (`fixtures/parity`, recorded by `fixtures/make_parity.py`).

use std::collections::HashMap;

use digrap_bench::model::decoding::{Beam, Decoding, EarlyStopping, Strategy};
use digrap_bench::model::{Checkpoint, Model, ModelOptions, Request};
use digrap_bench::tensor::{DType, Tensor};
use serde::Deserialize;

use crate::support::{fixture, fixture_json, runtime, session_options};

/// Where two tokens or answers are closer than this, either is right.
const TIE: f32 = 0.01;

#[derive(Deserialize)]
struct Recorded {
    max_new_tokens: usize,
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    question: String,
    image: String,
    input_ids: Vec<u32>,
    greedy: Vec<u32>,
    greedy_text: String,
    greedy_margin: f32,
    beam5: Vec<u32>,
    beam5_gap: f32,
    beam5_stable: bool,
    #[serde(default)]
    beam5_variants: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    length_penalty: f32,
    early_stopping: serde_json::Value,
    ids: Vec<u32>,
    gap: f32,
    stable: bool,
}

struct Case {
    model: Model,
    recorded: Recorded,
    logits: Vec<f32>,
    vocabulary: usize,
    pixels: Tensor,
    requests: Vec<Request>,
}

fn model(name: &str, dtype: DType) -> Model {
    let checkpoint = Checkpoint::open(&fixture(&format!("models/{name}"))).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let options = ModelOptions { session: session_options(), dtype, scratch: scratch.path().to_owned() };
    Model::load(&checkpoint, &runtime(), &options).unwrap()
}

fn case(name: &str) -> Case {
    let model = model(name, DType::F32);
    let recorded: Recorded = serde_json::from_value(fixture_json(&format!("parity/{name}.json"))).unwrap();
    let bytes = std::fs::read(fixture(&format!("parity/{name}.safetensors"))).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor("first_logits").unwrap();
    let logits = Tensor::from_bytes(DType::F32, view.shape(), view.data()).unwrap();
    let mut images: HashMap<&str, usize> = HashMap::new();
    let mut pixels = Vec::new();
    let mut requests = Vec::new();
    for record in &recorded.records {
        let next = images.len();
        let image = *images.entry(&record.image).or_insert_with(|| {
            pixels.extend(pixel_values(&model, &record.image));
            next
        });
        let tokens = model.text().encode(&record.question).unwrap();
        assert_eq!(tokens, record.input_ids, "tokens of {:?}", record.question);
        requests.push(Request { tokens, image });
    }
    let size = model.images().size();
    let pixels = Tensor::new([images.len(), 3, size.0, size.1], pixels).unwrap();
    let vocabulary = logits.shape()[1];
    Case { model, vocabulary, logits: logits.values::<f32>().unwrap().to_vec(), pixels, requests, recorded }
}

fn pixel_values(model: &Model, image: &str) -> Vec<f32> {
    let decoded = digrap_bench::data::image::decode(&fixture(&format!("images/{image}"))).unwrap();
    let mut pixels = vec![0.0; model.images().output_len()];
    model.images().process(&decoded, &mut pixels).unwrap();
    pixels
}

fn check_model(name: &str) {
    let mut case = case(name);
    assert!(case.requests.len() >= 200);
    let features = case.model.image_features(case.pixels.clone()).unwrap();
    let greedy = Decoding { strategy: Strategy::Greedy, max_new_tokens: case.recorded.max_new_tokens };
    let generation = case.model.generate_with(&features, &case.requests, &greedy, true).unwrap();
    let logits = generation.first_logits.unwrap();
    if std::env::var_os("DEBUG_PARITY").is_some() {
        for (index, (ours, theirs)) in logits.chunks(case.vocabulary).zip(case.logits.chunks(case.vocabulary)).enumerate() {
            let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            if worst > 1e-4 { println!("{name} {} {worst} {:?}", case.recorded.records[index].image, case.recorded.records[index].question); }
        }
    }
    let worst = logits.iter().zip(&case.logits).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
    assert!(worst <= 1e-4, "{name}: first logits differ by {worst}");
    assert_eq!(logits.len(), case.requests.len() * case.vocabulary);
    for (record, tokens) in case.recorded.records.iter().zip(&generation.tokens) {
        if record.greedy_margin >= TIE {
            assert_eq!(*tokens, record.greedy, "{name}: greedy answer to {:?}", record.question);
            assert_eq!(case.model.text().decode(tokens).unwrap(), record.greedy_text);
        }
    }
    let beam = Decoding { strategy: "beam:5".parse().unwrap(), ..greedy };
    let answers = case.model.generate(&features, &case.requests, &beam).unwrap();
    let mut decided = 0;
    for (record, tokens) in case.recorded.records.iter().zip(&answers) {
        if record.beam5_stable && record.beam5_gap >= TIE {
            decided += 1;
            assert_eq!(*tokens, record.beam5, "{name}: beam-5 answer to {:?}", record.question);
        }
    }
    assert!(decided >= 150, "{name}: only {decided} beam searches are decided");
}

#[test]
fn paligemma_with_old_names_equals_transformers() {
    check_model("paligemma-tiny-a");
}

#[test]
fn paligemma_sharded_in_bf16_equals_transformers() {
    check_model("paligemma-tiny-b");
}

#[test]
fn paligemma2_with_caps_and_windows_equals_transformers() {
    check_model("paligemma2-tiny");
}
