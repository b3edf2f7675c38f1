//! Model folders that are written: unchanged, with trained tensors, with a merged adapter, from scratch.
//!
//! Results stay below the target folder for `fixtures/check_written.py`, which loads them in transformers and PEFT.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use digrap_bench::model::decoding::{Decoding, Strategy};
use digrap_bench::model::initialisation::initialise;
use digrap_bench::model::saving::{save_checkpoint, save_merged, save_new};
use digrap_bench::model::training::Trained;
use digrap_bench::model::weights::Placement;
use digrap_bench::model::{Checkpoint, Model, Request};
use digrap_bench::tensor::{DType, Tensor};
use serde_json::Value;

use crate::support::{fixture, fixture_json, loading, runtime, session_options};

fn model_folder(model: &str) -> PathBuf {
    fixture(&format!("models/{model}"))
}

fn written(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("written").join(name)
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_unchanged_model_is_copied_exactly() {
    for model in ["paligemma-tiny-a", "paligemma-tiny-b", "paligemma2-tiny", "paligemma-easy-vqa"] {
        let base = Checkpoint::open(&model_folder(model)).unwrap();
        let target = written(&format!("{model}-unchanged"));
        let mut bytes = 0;
        save_checkpoint(&base, &BTreeMap::new(), &target, &mut |more| bytes += more).unwrap();
        let copy = Checkpoint::open(&target).unwrap();
        assert_eq!((bytes, &copy.config), (base.weights.size(), &base.config));
        assert_eq!(copy.weights.names(), base.weights.names());
        for name in base.weights.names() {
            let [ours, theirs] = [&copy, &base].map(|checkpoint| checkpoint.weights.stored(name).unwrap());
            assert_eq!((ours.dtype, ours.shape, ours.bytes), (theirs.dtype, theirs.shape, theirs.bytes), "{name}");
        }
        let settings =
            |folder: &Path| files(folder).into_iter().filter(|name| !name.starts_with("model")).collect::<Vec<_>>();
        assert_eq!(settings(&target), settings(&base.folder));
        for name in settings(&target).iter().filter(|name| *name != "config.json") {
            assert_eq!(fs::read(target.join(name)).unwrap(), fs::read(base.folder.join(name)).unwrap(), "{name}");
        }
    }
}

#[test]
fn trained_tensors_are_f32_and_the_rest_stays() {
    let base = Checkpoint::open(&model_folder("paligemma-easy-vqa")).unwrap();
    let name = "language_model.model.norm.weight";
    let values = Tensor::vector((0..128).map(|index| 1.0 + index as f32 / 3.0).collect());
    let trained = BTreeMap::from([(name.to_owned(), values.clone())]);
    let target = written("partly-trained");
    save_checkpoint(&base, &trained, &target, &mut |_| ()).unwrap();
    let copy = Checkpoint::open(&target).unwrap();
    assert_eq!(copy.weights.stored(name).unwrap().to_f32().unwrap(), values);
    assert_eq!(copy.weights.stored(name).unwrap().dtype, DType::F32);
    let narrow = |name: &&&str| copy.weights.stored(name).unwrap().dtype == DType::F16;
    assert_eq!(copy.weights.names().iter().filter(narrow).count(), base.weights.names().len() - 1);
    assert_eq!((copy.config["dtype"].as_str(), base.dtype(), copy.dtype()), (Some("float32"), DType::F16, DType::F32));
}

#[test]
fn a_failed_save_leaves_the_older_folder() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("model");
    let base = Checkpoint::open(&model_folder("paligemma2-tiny")).unwrap();
    save_checkpoint(&base, &BTreeMap::new(), &target, &mut |_| ()).unwrap();
    let before = fs::read(target.join("model.safetensors")).unwrap();
    for (name, shape) in [("language_model.model.norm.weight", 47), ("no.such.tensor", 48)] {
        let trained = BTreeMap::from([(name.to_owned(), Tensor::vector(vec![0f32; shape]))]);
        let error = save_checkpoint(&base, &trained, &target, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains(&format!("has no tensor `{name}` of shape [{shape}]")), "{error}");
    }
    assert_eq!(
        (files(root.path()), fs::read(target.join("model.safetensors")).unwrap()),
        (vec!["model".to_owned()], before)
    );
    let error = save_checkpoint(&base, &BTreeMap::new(), &target.join("config.json"), &mut |_| ()).unwrap_err();
    assert!(error.to_string().ends_with("config.json` is no folder"), "{error}");
    let error = save_checkpoint(&base, &BTreeMap::new(), &target.join("config.json/new"), &mut |_| ()).unwrap_err();
    assert!(error.to_string().starts_with("cannot write"), "{error}");
}

fn load(checkpoint: &Checkpoint) -> Model {
    let scratch = tempfile::tempdir().unwrap();
    let mut ignore = |_| ();
    let placement = Placement::new(&checkpoint.weights, DType::F32, scratch.path(), &mut ignore).unwrap();
    Model::load(checkpoint, placement, &Trained::default(), &runtime(), &loading(session_options(), 1))
        .unwrap()
        .remove(0)
}

/// The greedy answers of PEFT's adapted model, by the adapter beside the weights and merged into them.
#[test]
fn adapted_and_merged_models_answer_as_peft_does() {
    for name in ["paligemma-tiny-a", "paligemma2-tiny"] {
        let adapter = fixture(&format!("gradients/{name}-adapter"));
        let adapted = Checkpoint::open_on(&adapter, Some(&model_folder(name))).unwrap();
        let target = written(&format!("{name}-merged"));
        save_merged(&adapted, &target, &mut |_| ()).unwrap();
        check_answers(name, load(&adapted));
        check_answers(name, load(&Checkpoint::open(&target).unwrap()));
    }
}

fn check_answers(name: &str, mut model: Model) {
    let records = fixture_json(&format!("parity/{name}.json"))["records"].take();
    let recorded = fixture_json(&format!("gradients/{name}.json"))["adapter_greedy"].take();
    let mut changed = 0;
    for answer in recorded.as_array().unwrap() {
        let record = &records[answer["question_id"].as_u64().unwrap() as usize];
        let image = fixture("images").join(record["image"].as_str().unwrap());
        let decoded = digrap_bench::data::image::decode(&image).unwrap();
        let mut pixels = vec![0.0; model.images().output_len()];
        model.images().process(&decoded, &mut pixels).unwrap();
        let (height, width) = model.images().size();
        let features = model.image_features(Tensor::new([1, 3, height, width], pixels).unwrap()).unwrap();
        let tokens = model.text().encode(record["question"].as_str().unwrap()).unwrap();
        let decoding = Decoding { strategy: Strategy::Greedy, max_new_tokens: 12 };
        let found = model.generate(&features, &[Request { tokens, image: 0 }], &decoding).unwrap();
        assert_eq!(serde_json::json!(found[0]), answer["greedy"], "{name}: {answer}");
        changed += usize::from(answer["greedy"] != record["greedy"]);
    }
    assert!(changed > 0, "{name}: the adapter changes no answer");
}

/// A folder with the settings files of a fixture and no weights.
fn configuration(model: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in files(&model_folder(model)).iter().filter(|name| !name.starts_with("model")) {
        fs::copy(model_folder(model).join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// Shapes and moments that transformers gives new models, within five standard errors of either sample.
#[test]
fn new_models_are_drawn_as_in_transformers() {
    let recorded = fixture_json("train/initialisation.json");
    let seeds = recorded["seeds"].as_f64().unwrap();
    for model in ["paligemma-easy-vqa", "paligemma2-tiny"] {
        let drawn = initialise(configuration(model).path(), 7).unwrap();
        let rows = recorded[model].as_object().unwrap();
        assert!(drawn.keys().eq(rows.keys()), "{model}: other tensors");
        for (name, tensor) in &drawn {
            check_moments(&format!("{model}: {name}"), tensor, &rows[name], seeds);
        }
    }
}

fn check_moments(name: &str, tensor: &Tensor, recorded: &Value, seeds: f64) {
    assert_eq!(serde_json::json!(tensor.shape()), recorded["shape"], "{name}");
    let number = |key: &str| recorded[key].as_f64().unwrap();
    let values: Vec<f64> = tensor.values::<f32>().unwrap().iter().map(|value| f64::from(*value)).collect();
    if number("min") == number("max") {
        assert!(values.iter().all(|value| *value == number("min")), "{name}");
        return;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let moment = |power: i32| values.iter().map(|value| (value - mean).powi(power)).sum::<f64>() / count;
    let error = 5.0 * ((1.0 + seeds.recip()) / count).sqrt();
    let (spread, kurtosis) = (number("std"), number("kurtosis"));
    assert!((mean - number("mean")).abs() <= error * spread, "{name}: mean {mean}");
    let ratio = moment(2).sqrt() / spread;
    assert!((ratio - 1.0).abs() <= error * ((kurtosis - 1.0) / 4.0).sqrt(), "{name}: {ratio} of the deviation");
    let found = moment(4) / moment(2).powi(2);
    assert!((found - kurtosis).abs() <= error * 24f64.sqrt(), "{name}: kurtosis {found}, not {kurtosis}");
    let width = *tensor.shape().last().unwrap();
    let zero = values.chunks(width).enumerate().filter(|(_, row)| row.iter().all(|value| *value == 0.0));
    let zero: Vec<usize> = zero.map(|(row, _)| row).collect();
    let expected = recorded["zero_rows"].as_array().unwrap();
    assert!(expected.iter().map(|row| row.as_u64().unwrap() as usize).eq(zero), "{name}");
}

#[test]
fn a_new_model_is_a_checkpoint_like_any_other() {
    let folder = configuration("paligemma-easy-vqa");
    let tensors = initialise(folder.path(), 1).unwrap();
    let target = written("from-scratch");
    save_new(folder.path(), &tensors, &target, &mut |_| ()).unwrap();
    let [new, trained] = [target, model_folder("paligemma-easy-vqa")].map(|folder| Checkpoint::open(&folder).unwrap());
    assert_eq!(new.weights.names(), trained.weights.names());
    for name in new.weights.names() {
        let [ours, theirs] = [&new, &trained].map(|checkpoint| checkpoint.weights.stored(name).unwrap());
        assert_eq!((ours.shape, ours.dtype), (theirs.shape, DType::F32), "{name}");
    }
    assert_eq!(new.config["dtype"], "float32");
    assert_eq!(initialise(folder.path(), 1).unwrap(), tensors);
    assert_ne!(initialise(folder.path(), 2).unwrap(), tensors);
}

#[test]
fn a_configuration_that_makes_no_model_is_refused() {
    for (key, value, expected) in [
        ("vision_config", serde_json::json!({"vision_use_head": true}), "`vision_use_head` asks for a pooling head"),
        ("model_type", serde_json::json!("llama"), "the model type `llama` is not supported"),
        ("text_config", serde_json::json!(3), "it is no PaliGemma configuration"),
    ] {
        let folder = configuration("paligemma-easy-vqa");
        let path = folder.path().join("config.json");
        let mut config = json(&path);
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        let told = format!("{:?}", initialise(folder.path(), 1).unwrap_err());
        assert!(told.starts_with("Input: cannot use `") && told.contains(expected), "{told}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(initialise(empty.path(), 1).unwrap_err().to_string().starts_with("cannot read `"));
}
