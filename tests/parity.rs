//! Models against the outputs of transformers (`fixtures/parity`, recorded by `fixtures/make_parity.py`).

use std::collections::HashMap;

use digrap_bench::model::decoding::{Beam, Decoding, EarlyStopping, Strategy};
use digrap_bench::model::training::Trained;
use digrap_bench::model::weights::Placement;
use digrap_bench::model::{Checkpoint, Model, Request};
use digrap_bench::runtime::DeviceTensor;
use digrap_bench::tensor::{DType, Tensor};
use serde::Deserialize;

use digrap_bench::runtime::{SessionOptions, Sharing};

use crate::support::{fixture, fixture_json, loading, runtime, session_options};

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

fn model(name: &str, dtype: DType, session: SessionOptions) -> Model {
    let checkpoint = Checkpoint::open(&fixture(&format!("models/{name}"))).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut ignore = |_| ();
    let placement = Placement::new(&checkpoint.weights, dtype, scratch.path(), &mut ignore).unwrap();
    let model =
        Model::load(&checkpoint, placement, &Trained::default(), &runtime(), &loading(session, 1)).unwrap().remove(0);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "converted weights are left behind");
    model
}

fn case(name: &str) -> Case {
    case_of(name, model(name, DType::F32, session_options()))
}

fn case_of(name: &str, model: Model) -> Case {
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
    let features = case.model.image_features(case.pixels.clone()).unwrap();
    check_greedy(name, &mut case, &features);
    let standard = Beam { beams: 5, length_penalty: 1.0, early_stopping: EarlyStopping::Heuristic };
    let answers = beam_answers(&mut case, &features, standard);
    for (record, tokens) in case.recorded.records.iter().zip(&answers) {
        if record.beam5_stable && record.beam5_gap >= TIE {
            assert_eq!(*tokens, record.beam5, "{name}: beam-5 answer to {:?}", record.question);
        }
    }
    let decided = case.recorded.records.iter().filter(|record| record.beam5_stable && record.beam5_gap >= TIE).count();
    assert!(decided >= 150, "{name}: only {decided} beam searches are decided");
    for (length_penalty, stopping) in [(0.5, EarlyStopping::Always), (2.0, EarlyStopping::Never)] {
        let settings = Beam { beams: 5, length_penalty, early_stopping: stopping };
        check_variant(name, &beam_answers(&mut case, &features, settings), &case.recorded.records, length_penalty);
    }
}

fn check_greedy(name: &str, case: &mut Case, features: &DeviceTensor) {
    let greedy = Decoding { strategy: Strategy::Greedy, max_new_tokens: case.recorded.max_new_tokens };
    let generation = case.model.generate_with(features, &case.requests, &greedy, true).unwrap();
    let logits = generation.first_logits.unwrap();
    assert_eq!(logits.len(), case.requests.len() * case.vocabulary);
    assert!(case.logits.len() >= 200 * case.vocabulary);
    let worst = logits.iter().zip(&case.logits).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
    assert!(worst <= 1e-4, "{name}: first logits differ by {worst}");
    for (record, tokens) in case.recorded.records.iter().zip(&generation.tokens) {
        if record.greedy_margin >= TIE {
            assert_eq!(*tokens, record.greedy, "{name}: greedy answer to {:?}", record.question);
            assert_eq!(case.model.text().decode(tokens).unwrap(), record.greedy_text);
        }
    }
}

fn beam_answers(case: &mut Case, features: &DeviceTensor, beam: Beam) -> Vec<Vec<u32>> {
    let decoding = Decoding { strategy: Strategy::Beam(beam), max_new_tokens: case.recorded.max_new_tokens };
    case.model.generate(features, &case.requests, &decoding).unwrap()
}

/// Scores of variants are divided by up to the square of the length, so a smaller difference decides.
const VARIANT_TIE: f32 = 1e-4;

fn check_variant(name: &str, answers: &[Vec<u32>], records: &[Record], length_penalty: f32) {
    let mut compared = 0;
    for (record, tokens) in records.iter().zip(answers) {
        let recorded = record.beam5_variants.iter().filter(|variant| variant.length_penalty == length_penalty);
        for variant in recorded.filter(|variant| variant.stable && variant.gap >= VARIANT_TIE) {
            compared += 1;
            assert_eq!(*tokens, variant.ids, "{name}: length penalty {length_penalty}, {:?}", record.question);
        }
    }
    assert!(compared >= 15, "{name}: only {compared} searches with length penalty {length_penalty} are decided");
}

/// Batches of 1, 7 and 64, in order and shuffled, give the same tokens.
fn check_batches(name: &str) {
    let mut case = case(name);
    let features = case.model.image_features(case.pixels.clone()).unwrap();
    for strategy in ["greedy", "beam:5"] {
        let decoding = Decoding { strategy: strategy.parse().unwrap(), max_new_tokens: case.recorded.max_new_tokens };
        let all = case.model.generate(&features, &case.requests, &decoding).unwrap();
        for size in [1, 7, 64] {
            // A stride that shares no factor with the number of requests visits each of them once.
            let count = case.requests.len();
            let stride = (1..count).rev().find(|stride| gcd(*stride, count) == 1 && *stride < count / 2).unwrap();
            let order: Vec<usize> = (0..count).map(|index| index * stride % count).collect();
            for batch in order.chunks(size) {
                let requests: Vec<Request> = batch.iter().map(|index| case.requests[*index].clone()).collect();
                let tokens = case.model.generate(&features, &requests, &decoding).unwrap();
                for (index, tokens) in batch.iter().zip(tokens) {
                    let record = &case.recorded.records[*index];
                    let decided = if strategy == "greedy" { record.greedy_margin } else { record.beam5_gap };
                    if decided >= TIE {
                        assert_eq!(
                            tokens, all[*index],
                            "{name}: {strategy} in batches of {size}, {:?}",
                            record.question
                        );
                    }
                }
            }
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[test]
fn neither_the_size_nor_the_order_of_batches_changes_an_answer() {
    check_batches("paligemma-tiny-a");
    check_batches("paligemma2-tiny");
}

#[test]
fn weights_shared_by_all_sessions_give_the_same_answers() {
    for name in ["paligemma-tiny-a", "paligemma-tiny-b"] {
        let shared = SessionOptions { sharing: Sharing::Operators, ..session_options() };
        let mut case = case_of(name, model(name, DType::F32, shared));
        let features = case.model.image_features(case.pixels.clone()).unwrap();
        check_greedy(name, &mut case, &features);
    }
}

/// The Hub's cache holds links to files elsewhere, whose names are hashes.
#[test]
fn a_snapshot_of_the_hub_cache_loads() {
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/0123abcd"));
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    let files = std::fs::read_dir(fixture("models/paligemma-tiny-a")).unwrap();
    for (number, file) in files.map(|file| file.unwrap()).enumerate() {
        std::fs::copy(file.path(), blobs.join(number.to_string())).unwrap();
        let target = std::path::Path::new("../../blobs").join(number.to_string());
        std::os::unix::fs::symlink(target, snapshot.join(file.file_name())).unwrap();
    }
    let checkpoint = Checkpoint::open(&snapshot).unwrap();
    let mut ignore = |_| ();
    let placement = Placement::new(&checkpoint.weights, DType::F32, cache.path(), &mut ignore).unwrap();
    let replicas =
        Model::load(&checkpoint, placement, &Trained::default(), &runtime(), &loading(session_options(), 2)).unwrap();
    assert_eq!(replicas.len(), 2);
}

#[test]
fn half_precision_stays_near_single_precision() {
    let name = "paligemma-tiny-a";
    let mut case = case_of(name, model(name, DType::F16, session_options()));
    let features = case.model.image_features(case.pixels.clone()).unwrap();
    let greedy = Decoding { strategy: Strategy::Greedy, max_new_tokens: 1 };
    let generation = case.model.generate_with(&features, &case.requests, &greedy, true).unwrap();
    let logits = generation.first_logits.unwrap();
    let worst = logits.iter().zip(&case.logits).map(|(half, single)| (half - single).abs()).fold(0.0, f32::max);
    assert!((1e-4..0.1).contains(&worst), "logits differ by {worst}");
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
