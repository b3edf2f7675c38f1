//! The features that shift is measured from, against those of transformers (`fixtures/parity/features-*`, recorded by
//! `fixtures/make_features.py`).

use digrap_bench::model::features::{FeatureLayers, Layer};
use digrap_bench::model::training::Trained;
use digrap_bench::model::weights::Placement;
use digrap_bench::model::{Checkpoint, Loading, Model, Request};
use digrap_bench::runtime::SessionOptions;
use digrap_bench::tensor::{DType, Tensor};
use serde::Deserialize;

use crate::support::{fixture, fixture_json, runtime, session_options, shared_operators};

#[derive(Deserialize)]
struct Recorded {
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    image: String,
    question: String,
    answer: String,
    input_ids: Vec<u32>,
    answer_input_ids: Vec<u32>,
}

/// Of the largest value, in f32.
const ROUNDING: f32 = 2e-5;

fn load(name: &str, layer: Layer, session: SessionOptions) -> Model {
    let checkpoint = Checkpoint::open(&fixture(&format!("models/{name}"))).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut ignore = |_| ();
    let placement = Placement::new(&checkpoint.weights, DType::F32, scratch.path(), &mut ignore).unwrap();
    let features = Some(FeatureLayers { vision: layer, language: layer });
    let loading = Loading { session, replicas: 1, features };
    Model::load(&checkpoint, placement, &Trained::default(), &runtime(), &loading).unwrap().remove(0)
}

/// The features in the order image, question, joint, answer, each `[records, hidden]`.
fn features(model: &mut Model, records: &[Record]) -> [Vec<f32>; 4] {
    let size = model.images().output_len();
    let mut pixels = vec![0.0; size * records.len()];
    for (record, pixels) in records.iter().zip(pixels.chunks_mut(size)) {
        let image = digrap_bench::data::image::decode(&fixture(&format!("images/{}", record.image))).unwrap();
        model.images().process(&image, pixels).unwrap();
    }
    let (height, width) = model.images().size();
    let images = model.image_features(Tensor::new([records.len(), 3, height, width], pixels).unwrap()).unwrap();
    let request =
        |model: &Model, (image, text): (usize, &str)| Request { tokens: model.text().encode(text).unwrap(), image };
    let questions: Vec<Request> =
        records.iter().enumerate().map(|(image, record)| request(model, (image, &record.question))).collect();
    let texts: Vec<String> = records.iter().map(|record| format!("{} : {}", record.question, record.answer)).collect();
    let answers: Vec<Request> = texts.iter().enumerate().map(|(image, text)| request(model, (image, text))).collect();
    for (request, expected) in questions.iter().zip(records.iter().map(|record| &record.input_ids)) {
        assert_eq!(request.tokens, *expected);
    }
    for (request, expected) in answers.iter().zip(records.iter().map(|record| &record.answer_input_ids)) {
        assert_eq!(request.tokens, *expected);
    }
    let prompts: Vec<Vec<u32>> = questions.iter().map(|request| request.tokens.clone()).collect();
    [
        model.vision_features(&images).unwrap(),
        model.question_features(&prompts).unwrap(),
        model.joint_features(&images, &questions).unwrap(),
        model.joint_features(&images, &answers).unwrap(),
    ]
}

fn check(name: &str, session: &SessionOptions) {
    let recorded: Recorded = serde_json::from_value(fixture_json(&format!("parity/features-{name}.json"))).unwrap();
    let bytes = std::fs::read(fixture(&format!("parity/features-{name}.safetensors"))).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (layer, recorded_as) in [(Layer::Last, "last"), (Layer::Hidden(0), "0"), (Layer::Hidden(1), "1")] {
        let mut model = load(name, layer, session.clone());
        let found = features(&mut model, &recorded.records);
        for (found, feature) in found.iter().zip(["image", "question", "joint", "answer"]) {
            let view = tensors.tensor(&format!("{feature}.{recorded_as}")).unwrap();
            let expected = Tensor::from_bytes(DType::F32, view.shape(), view.data()).unwrap();
            let expected = expected.values::<f32>().unwrap();
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= ROUNDING * largest,
                    "{name}, {feature}, layer {recorded_as}: {found} for {expected}"
                );
            }
        }
    }
}

#[test]
fn features_are_those_of_transformers() {
    for name in ["paligemma-tiny-a", "paligemma-tiny-b", "paligemma2-tiny"] {
        check(name, &session_options());
    }
    check("paligemma2-tiny", &shared_operators());
}

#[test]
fn padding_and_company_change_no_feature() {
    let recorded: Recorded = serde_json::from_value(fixture_json("parity/features-paligemma2-tiny.json")).unwrap();
    let mut model = load("paligemma2-tiny", Layer::Last, session_options());
    let together = features(&mut model, &recorded.records);
    for (index, record) in recorded.records.iter().enumerate() {
        let alone = features(&mut model, std::slice::from_ref(record));
        for (together, alone) in together.iter().zip(&alone) {
            let width = alone.len();
            let row = &together[index * width..(index + 1) * width];
            let largest = row.iter().fold(0f32, |most, value| most.max(value.abs()));
            assert!(row.iter().zip(alone).all(|(x, y)| (x - y).abs() <= ROUNDING * largest), "record {index}");
        }
    }
}

#[test]
fn a_layer_that_is_not_there_is_told() {
    let checkpoint = Checkpoint::open(&fixture("models/paligemma-tiny-a")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut ignore = |_| ();
    let placement = Placement::new(&checkpoint.weights, DType::F32, scratch.path(), &mut ignore).unwrap();
    let features = Some(FeatureLayers { vision: Layer::Last, language: Layer::Hidden(99) });
    let loading = Loading { session: session_options(), replicas: 1, features };
    let error = match Model::load(&checkpoint, placement, &Trained::default(), &runtime(), &loading) {
        Ok(_) => panic!("there is no hidden state 99"),
        Err(error) => error,
    };
    assert!(error.to_string().starts_with("there is no hidden state 99: there are "), "{error}");
    let hint = "last".parse::<Layer>().map(|_| "7x".parse::<Layer>().unwrap_err()).unwrap();
    assert_eq!(hint.to_string(), "`7x` is no layer");
}
