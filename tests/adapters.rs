//! LoRA adapters in PEFT's format: read, written, put on a base model, merged; and damaged ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use digrap_bench::error::Error;
use digrap_bench::model::adapter::{ALL_LINEAR, Adapter, initial_matrices, matches, select};
use digrap_bench::model::training::{Lora, Role, TrainedTensor};
use digrap_bench::model::{Checkpoint, saving};
use digrap_bench::tensor::Tensor;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::fixture;

const MODELS: [&str; 2] = ["paligemma-tiny-a", "paligemma2-tiny"];

fn adapter_folder(model: &str) -> PathBuf {
    fixture(&format!("gradients/{model}-adapter"))
}

fn model_folder(model: &str) -> PathBuf {
    fixture(&format!("models/{model}"))
}

/// Where results stay for `fixtures/check_written.py`.
fn written(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("written").join(name)
}

#[test]
fn adapters_are_written_as_peft_writes_them() {
    for model in MODELS {
        let folder = adapter_folder(model);
        let target = written(&format!("{model}-adapter"));
        Adapter::read(&folder).unwrap().write(&target).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            let [ours, theirs] = [&target, &folder].map(|folder| fs::read(folder.join(file)).unwrap());
            assert!(ours == theirs, "{model}: {file} differs");
        }
        assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
    }
}

#[test]
fn new_adapters_have_the_settings_that_peft_writes() {
    let theirs = Adapter::read(&adapter_folder("paligemma2-tiny")).unwrap();
    let targets = ["q_proj", "v_proj", "fc1", "gate_proj"].map(str::to_owned).to_vec();
    let lora = Lora { rank: 4, alpha: 8.0, dropout: 0.0, targets };
    let config = Checkpoint::open(&model_folder("paligemma2-tiny")).unwrap().config;
    let ours = Adapter::new(&lora, &config, Some("paligemma2-tiny".to_owned()), theirs.tensors.clone());
    assert_eq!(ours, theirs);
    assert_eq!((ours.scale(), ours.lora().rank), (2.0, 4));
}

#[test]
fn an_adapter_opens_on_its_base_model() {
    let root = TempDir::new().unwrap();
    let copy = root.path().join("adapters/one");
    fs::create_dir_all(&copy).unwrap();
    let mut settings: Value =
        serde_json::from_slice(&fs::read(adapter_folder("paligemma-tiny-a").join("adapter_config.json")).unwrap())
            .unwrap();
    fs::copy(
        adapter_folder("paligemma-tiny-a").join("adapter_model.safetensors"),
        copy.join("adapter_model.safetensors"),
    )
    .unwrap();
    std::os::unix::fs::symlink(model_folder("paligemma-tiny-a"), root.path().join("base")).unwrap();
    let absolute = model_folder("paligemma-tiny-a").display().to_string();
    for base in ["../../base", absolute.as_str()] {
        settings["base_model_name_or_path"] = json!(base);
        fs::write(copy.join("adapter_config.json"), settings.to_string()).unwrap();
        let checkpoint = Checkpoint::open(&copy).unwrap();
        assert_eq!(checkpoint.folder, copy);
        assert_eq!(checkpoint.adapter.as_ref().unwrap().layers().len(), 18);
        let plain = Checkpoint::open(&model_folder("paligemma-tiny-a")).unwrap();
        assert_ne!(checkpoint.configuration_digest().unwrap(), plain.configuration_digest().unwrap());
    }
    settings["base_model_name_or_path"] = json!("google/paligemma-3b-pt-224");
    fs::write(copy.join("adapter_config.json"), settings.to_string()).unwrap();
    let error = Checkpoint::open(&copy).err().unwrap();
    assert!(error.to_string().starts_with("the base model `google/paligemma-3b-pt-224` of the adapter"), "{error}");
    assert_eq!(error.next_step(), Some("give the folder of the base model"));
    assert!(Checkpoint::open_on(&copy, Some(&model_folder("paligemma-tiny-a"))).unwrap().adapter.is_some());
    let base = root.path().join("base");
    let error = Checkpoint::open_on(&base, Some(&base)).err().unwrap();
    assert!(error.to_string().contains("is no adapter"), "{error}");
}

#[test]
fn paths_of_older_versions_are_understood() {
    let root = TempDir::new().unwrap();
    let adapter = Adapter::read(&adapter_folder("paligemma-tiny-a")).unwrap();
    let older = |name: &String| {
        name.replace("model.model.language_model.", "model.language_model.model.")
            .replace("model.model.vision_tower.", "model.vision_tower.vision_model.")
    };
    let mut renamed = adapter.clone();
    renamed.tensors = adapter.tensors.iter().map(|(name, tensor)| (older(name), tensor.clone())).collect();
    renamed.write(root.path()).unwrap();
    let opened = Checkpoint::open_on(root.path(), Some(&model_folder("paligemma-tiny-a"))).unwrap();
    assert_eq!(opened.adapter.unwrap(), adapter);
}

#[test]
fn targets_select_as_in_peft() {
    let layers = Checkpoint::open(&model_folder("paligemma2-tiny")).unwrap().linear_layers();
    let names = |targets: &[&str]| targets.iter().map(|target| (*target).to_owned()).collect::<Vec<_>>();
    let count = |targets: &[&str]| layers.iter().filter(|layer| matches(&names(targets), &layer.path)).count();
    // 3 layers of the vision tower with 6 matrices, 5 of the decoder with 7, and the projector.
    assert_eq!(layers.len(), 3 * 6 + 5 * 7 + 1);
    assert_eq!((count(&["q_proj"]), count(&["proj"]), count(&["self_attn.o_proj", "fc1"])), (8, 0, 8));
    assert_eq!(select(&names(&[ALL_LINEAR]), &layers).unwrap().len(), layers.len());
    assert_eq!(select(&names(&["v_proj"]), &layers).unwrap(), ["v_proj"]);
    let error = select(&names(&["q_proj", "q_porj"]), &layers).unwrap_err();
    assert_eq!(error.to_string(), "the LoRA target `q_porj` matches no linear layer of the model");
    let known = "down_proj, fc1, fc2, gate_proj, k_proj, linear, o_proj, out_proj, q_proj, up_proj, v_proj";
    assert_eq!(error.next_step().unwrap(), format!("the layers are named {known}; `all-linear` means all"));
}

#[test]
fn new_matrices_change_nothing_yet() {
    let tensor = |matrix: &str, shape: [usize; 2]| TrainedTensor {
        name: format!("base_model.model.model.x.{matrix}.weight"),
        shape: shape.to_vec(),
        role: Role::Inner,
    };
    let tensors = [tensor("lora_A", [64, 100]), tensor("lora_B", [30, 64])];
    let drawn = initial_matrices(&tensors, 5).unwrap();
    let values = |tensor: &TrainedTensor| drawn[&tensor.name].values::<f32>().unwrap().to_vec();
    assert!(values(&tensors[1]).iter().all(|value| *value == 0.0));
    let (down, bound) = (values(&tensors[0]), 0.1);
    let square = down.iter().map(|value| value * value).sum::<f32>() / down.len() as f32;
    // The variance of a uniform distribution, within six standard errors.
    assert!((square / (bound * bound / 3.0) - 1.0).abs() < 6.0 * (0.8f32 / 6400.0).sqrt(), "{square}");
    assert!(down.iter().all(|value| value.abs() <= bound));
    assert_ne!(initial_matrices(&tensors, 6).unwrap(), drawn);
}

#[test]
fn settings_of_plain_lora_are_kept() {
    let root = TempDir::new().unwrap();
    let source = adapter_folder("paligemma2-tiny");
    fs::copy(source.join("adapter_model.safetensors"), root.path().join("adapter_model.safetensors")).unwrap();
    let mut settings: Value = serde_json::from_slice(&fs::read(source.join("adapter_config.json")).unwrap()).unwrap();
    for (key, value) in [
        ("target_modules", json!(r".*\.(q_proj|v_proj|fc1|gate_proj)")),
        ("use_rslora", json!(true)),
        ("lora_alpha", json!(2.5)),
        ("lora_dropout", json!(0.05)),
        ("exclude_modules", json!(["lm_head"])),
        ("init_lora_weights", json!("gaussian")),
        ("layers_to_transform", json!([0, 1])),
    ] {
        settings[key] = value;
    }
    fs::write(root.path().join("adapter_config.json"), settings.to_string()).unwrap();
    let adapter = Adapter::read(root.path()).unwrap();
    // rsLoRA divides by the root of the rank, 4.
    assert_eq!((adapter.scale(), adapter.lora().scale(), adapter.dropout), (1.25, 1.25, 0.05));
    let copy = root.path().join("copy");
    adapter.write(&copy).unwrap();
    let written: Value = serde_json::from_slice(&fs::read(copy.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(written, settings);
}

#[test]
fn merging_needs_an_adapter() {
    let checkpoint = Checkpoint::open(&model_folder("paligemma-tiny-a")).unwrap();
    let root = TempDir::new().unwrap();
    let error = saving::save_merged(&checkpoint, &root.path().join("merged"), &mut |_| ()).unwrap_err();
    assert!(error.to_string().ends_with("has no adapter to merge"), "{error}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

/// A copy of a fixture's adapter, changed, and what opening it says.
fn refused(change: impl FnOnce(&Path)) -> String {
    let root = TempDir::new().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(adapter_folder("paligemma-tiny-a").join(file), root.path().join(file)).unwrap();
    }
    change(root.path());
    let error: Error = Checkpoint::open_on(root.path(), Some(&model_folder("paligemma-tiny-a"))).err().unwrap();
    assert!(error.next_step().is_some(), "{error:?}");
    let told = format!("{error:?}").replace(&format!("{}/", root.path().display()), "");
    told.replace(&root.path().display().to_string(), "DIR").replace(&fixture("models").display().to_string(), "MODELS")
}

fn with_setting(key: &str, value: Value) -> String {
    refused(|folder| {
        let path = folder.join("adapter_config.json");
        let mut settings: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        settings[key] = value;
        fs::write(path, settings.to_string()).unwrap();
    })
}

fn with_tensors(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> String {
    refused(|folder| {
        let mut adapter = Adapter::read(folder).unwrap();
        change(&mut adapter.tensors);
        adapter.write(folder).unwrap();
    })
}

#[test]
fn settings_that_are_not_plain_lora_are_refused() {
    let option = |key: &str, value: &str| {
        format!("Input: cannot use `adapter_config.json`: the option `{key}` with the value {value} is not supported")
    };
    for (key, value) in [
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("bias", json!("all")),
        ("rank_pattern", json!({"q_proj": 2})),
        ("alpha_pattern", json!({"q_proj": 2})),
        ("trainable_token_indices", json!([3])),
        ("init_lora_weights", json!("pissa")),
        ("some_new_option", json!(3)),
    ] {
        assert_eq!(with_setting(key, value.clone()), option(key, &value.to_string()));
    }
    let settings = "Input: cannot use `adapter_config.json`: ";
    assert_eq!(with_setting("peft_type", json!("IA3")), format!("{settings}`peft_type` is `IA3`"));
    assert_eq!(
        with_setting("r", json!(0)),
        format!("{settings}`r` 0, `lora_alpha` 8 and `lora_dropout` 0 are no LoRA")
    );
    assert!(with_setting("r", json!("four")).starts_with(&format!("{settings}the key `r` has an unusable value")));
}

#[test]
fn damaged_adapters_are_refused() {
    const FIRST: &str = "base_model.model.model.language_model.layers.0.mlp.gate_proj";
    let matrices = "Input: cannot use `adapter_model.safetensors`: ";
    let truncated = refused(|folder| {
        let path = folder.join("adapter_model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 4]).unwrap();
    });
    assert!(truncated.starts_with("Input: cannot read the weights `adapter_model.safetensors`: "), "{truncated}");
    let missing = refused(|folder| fs::remove_file(folder.join("adapter_model.safetensors")).unwrap());
    assert_eq!(missing, "Input: the adapter `DIR` has no `adapter_model.safetensors`");
    let unpaired = with_tensors(|tensors| drop(tensors.remove(&format!("{FIRST}.lora_B.weight"))));
    assert_eq!(unpaired, format!("{matrices}it holds `{FIRST}.lora_A.weight` without `{FIRST}.lora_B.weight`"));
    let rank = with_setting("r", json!(3));
    let expected = format!(
        "{matrices}the tensor `{FIRST}.lora_A.weight` has shape [4, 48], but `r` in `adapter_config.json` is 3"
    );
    assert_eq!(rank, expected);
    let foreign = with_tensors(|tensors| {
        let tensor = tensors.values().next().unwrap().clone();
        tensors.insert("base_model.model.lm_head.weight".to_owned(), tensor);
    });
    let expected =
        format!("{matrices}the tensor `base_model.model.lm_head.weight` is no LoRA matrix of a linear layer");
    assert_eq!(foreign, expected);
    assert_eq!(with_tensors(BTreeMap::clear), format!("{matrices}it holds no matrices"));
}

#[test]
fn adapters_of_other_layers_are_refused() {
    let layer = "model.language_model.layers.0.mlp.gate_proj";
    let unselected = with_setting("target_modules", json!(["q_proj", "v_proj", "fc1"]));
    let expected = format!(
        "Input: cannot use `adapter_model.safetensors`: it holds matrices of `{layer}`, which `target_modules` in \
         `adapter_config.json` does not select"
    );
    assert_eq!(unselected, expected);
    let base = "Input: cannot put `adapter_model.safetensors` on `MODELS/paligemma-tiny-a`: ";
    let shape = with_tensors(|tensors| {
        let name = format!("base_model.model.{layer}.lora_B.weight");
        tensors.insert(name, Tensor::new([7, 4], vec![0f32; 28]).unwrap());
    });
    let expected = format!(
        "{base}the tensor `base_model.model.{layer}.lora_B.weight` has shape [7, 4], but the layer of the base model \
         asks for [140, 4]"
    );
    assert_eq!(shape, expected);
    let unknown = with_tensors(|tensors| {
        let deeper = |name: &String| name.replace("layers.0", "layers.9");
        *tensors = tensors.iter().map(|(name, tensor)| (deeper(name), tensor.clone())).collect();
    });
    let name = format!("base_model.model.{}.lora_A.weight", layer.replace("layers.0", "layers.9"));
    assert_eq!(unknown, format!("{base}the tensor `{name}` belongs to no linear layer of the base model"));
}
