//! Encoders of images or texts against transformers (`fixtures/parity/encoders.*`, recorded by `fixtures/make_encoders.py`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use digrap_bench::error::{Error, Kind};
use digrap_bench::model::encoder::{ENCODERS, Encoder, EncoderCheckpoint, EncoderOptions, Modality, Reader};
use digrap_bench::model::features::Layer;
use digrap_bench::model::{Checkpoint, saving};
use digrap_bench::tensor::Tensor;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{fixture, fixture_json, runtime, session_options, shared_operators};

/// Largest difference between two ways to compute one feature.
const ROUNDING: f32 = 1e-5;

fn model(name: &str) -> PathBuf {
    fixture(&format!("models/{name}"))
}

fn try_load(folder: &Path, layer: Layer) -> Result<Encoder, Error> {
    let scratch = TempDir::new().unwrap();
    let options = EncoderOptions { session: session_options(), layer, scratch: scratch.path().to_owned() };
    let encoder = Encoder::load(&EncoderCheckpoint::open(folder)?, &runtime(), &options, 1)?.remove(0);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "converted weights are left behind");
    Ok(encoder)
}

fn load(folder: &Path, layer: Layer) -> Encoder {
    try_load(folder, layer).unwrap()
}

fn refusal(folder: &Path, layer: Layer) -> Error {
    try_load(folder, layer).err().unwrap()
}

/// The error and its causes as one line, without the name of the folder.
fn told(error: &Error, folder: &Path) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.replace(&folder.display().to_string(), "DIR")
}

struct Recorded {
    images: Vec<String>,
    texts: Vec<(String, Vec<u32>)>,
    features: BTreeMap<String, Vec<f32>>,
}

impl Recorded {
    fn read() -> Self {
        let record = fixture_json("parity/encoders.json");
        let images = serde_json::from_value(record["images"].clone()).unwrap();
        let texts = record["texts"].as_array().unwrap().iter();
        let texts = texts.map(|entry| {
            let ids = serde_json::from_value(entry["input_ids"].clone()).unwrap();
            (entry["text"].as_str().unwrap().to_owned(), ids)
        });
        let texts = texts.collect();
        let bytes = fs::read(fixture("parity/encoders.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let values = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let features = tensors.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect();
        Self { images, texts, features }
    }

    /// The hidden states that are recorded of a model.
    fn layers(&self, model: &str) -> Vec<(Layer, &[f32])> {
        let states = self.features.iter().filter_map(|(name, values)| {
            let layer = name.strip_prefix(&format!("{model}."))?;
            Some((layer.parse().unwrap(), values.as_slice()))
        });
        states.collect()
    }

    fn last(&self, model: &str) -> &[f32] {
        &self.features[&format!("{model}.last")]
    }

    /// Pixel values of some images, as the encoder's reader makes them.
    fn pixels(&self, encoder: &Encoder, images: impl IntoIterator<Item = usize>) -> Tensor {
        let Reader::Images(processor) = encoder.reader() else { panic!("it reads no images") };
        let mut values = Vec::new();
        for image in images {
            let path = fixture(&format!("images/{}", self.images[image]));
            let mut pixels = vec![0.0; processor.output_len()];
            processor.process(&digrap_bench::data::image::decode(&path).unwrap(), &mut pixels).unwrap();
            values.extend(pixels);
        }
        let (height, width) = processor.size();
        Tensor::new([values.len() / processor.output_len(), 3, height, width], values).unwrap()
    }

    fn of_images(&self, encoder: &mut Encoder) -> Vec<f32> {
        let pixels = self.pixels(encoder, 0..self.images.len());
        encoder.images(pixels).unwrap()
    }

    fn of_texts(&self, encoder: &mut Encoder) -> Vec<f32> {
        let tokens: Vec<Vec<u32>> = self.texts.iter().map(|(_, tokens)| tokens.clone()).collect();
        encoder.texts(&tokens).unwrap()
    }
}

fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().all(|value| value.is_finite()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn assert_near(what: &str, found: &[f32], expected: &[f32]) {
    let worst = difference(found, expected);
    assert!(worst <= ROUNDING, "{what}: features differ by {worst}");
}

#[test]
fn image_encoders_equal_transformers_in_every_hidden_state() {
    let recorded = Recorded::read();
    for (name, states, dimension) in [("vit-tiny", 4, 20), ("paligemma-tiny-a", 5, 36), ("paligemma-tiny-b", 3, 40)] {
        let layers = recorded.layers(name);
        assert_eq!(layers.len(), states, "{name}");
        for (layer, expected) in layers {
            let mut encoder = load(&model(name), layer);
            assert_eq!(encoder.dimension(), dimension);
            assert_near(&format!("{name}, {layer}"), &recorded.of_images(&mut encoder), expected);
        }
    }
}

#[test]
fn text_encoders_equal_transformers_in_every_hidden_state() {
    let recorded = Recorded::read();
    let layers = recorded.layers("bert-tiny");
    assert_eq!(layers.len(), 4);
    for (layer, expected) in layers {
        let mut encoder = load(&model("bert-tiny"), layer);
        assert_eq!(encoder.dimension(), 20);
        assert_near(&format!("bert-tiny, {layer}"), &recorded.of_texts(&mut encoder), expected);
    }
}

#[test]
fn texts_become_the_tokens_of_transformers() {
    let recorded = Recorded::read();
    let encoder = load(&model("bert-tiny"), Layer::Last);
    let Reader::Texts(processor) = encoder.reader() else { panic!("it reads no texts") };
    for (text, expected) in &recorded.texts {
        assert_eq!(processor.encode(text).unwrap(), *expected, "{text}");
    }
    // The last text is cut to all positions of the model, and still ends as texts do.
    let (_, cut) = recorded.texts.last().unwrap();
    assert_eq!((cut.len(), cut[0], cut[23]), (24, 2, 3));
    assert_eq!(processor.digest().len(), 64);
}

/// Every image and text alone, and pairs in either order, give what the whole batch gives.
#[test]
fn neither_the_size_nor_the_order_of_batches_changes_a_feature() {
    let recorded = Recorded::read();
    let mut encoder = load(&model("vit-tiny"), Layer::Last);
    let all = recorded.of_images(&mut encoder);
    let mut check = |images: &[usize]| {
        let pixels = recorded.pixels(&encoder, images.iter().copied());
        let expected: Vec<f32> = images.iter().flat_map(|image| all[20 * image..][..20].to_vec()).collect();
        assert_near(&format!("images {images:?}"), &encoder.images(pixels).unwrap(), &expected);
    };
    [&[0][..], &[1], &[2], &[3], &[0, 3], &[3, 0], &[2, 2, 1]].into_iter().for_each(&mut check);

    let mut encoder = load(&model("bert-tiny"), Layer::Last);
    let all = recorded.of_texts(&mut encoder);
    let mut check = |texts: &[usize]| {
        let tokens: Vec<Vec<u32>> = texts.iter().map(|text| recorded.texts[*text].1.clone()).collect();
        let expected: Vec<f32> = texts.iter().flat_map(|text| all[20 * text..][..20].to_vec()).collect();
        assert_near(&format!("texts {texts:?}"), &encoder.texts(&tokens).unwrap(), &expected);
    };
    (0..7).for_each(|text| check(&[text]));
    [&[2, 6][..], &[6, 2], &[1, 4, 1]].into_iter().for_each(&mut check);
}

#[test]
fn nothing_gives_no_features() {
    let mut encoder = load(&model("bert-tiny"), Layer::Last);
    assert!(encoder.texts(&[]).unwrap().is_empty());
    assert_eq!(encoder.texts(&[vec![2, 3], vec![]]).unwrap_err().kind(), Kind::Internal);
    assert!(encoder.images(Tensor::new([1, 3, 32, 32], vec![0.0f32; 3072]).unwrap()).is_err());
    let mut encoder = load(&model("vit-tiny"), Layer::Last);
    assert!(encoder.images(Tensor::new([0, 3, 32, 32], Vec::<f32>::new()).unwrap()).unwrap().is_empty());
    assert!(encoder.texts(&[vec![2, 3]]).is_err());
    assert!(encoder.images(Tensor::new([1, 3, 16, 16], vec![0.0f32; 768]).unwrap()).is_err());
}

#[test]
fn replicas_and_shared_weights_give_the_same_features() {
    let recorded = Recorded::read();
    let scratch = TempDir::new().unwrap();
    let options =
        EncoderOptions { session: shared_operators(), layer: Layer::Last, scratch: scratch.path().to_owned() };
    // Stored in bf16, so that the sessions map a converted copy.
    let mut replicas =
        Encoder::load(&EncoderCheckpoint::open(&model("paligemma-tiny-b")).unwrap(), &runtime(), &options, 2).unwrap();
    assert_eq!(replicas.len(), 2);
    for replica in &mut replicas {
        assert_near("shared", &recorded.of_images(replica), recorded.last("paligemma-tiny-b"));
    }
}

/// A copy of a folder with other names for its tensors and an edited `config.json`.
fn rewritten(name: &str, rename: impl Fn(&str) -> Option<String>, edit: impl Fn(&mut Value)) -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in fs::read_dir(model(name)).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let bytes = fs::read(copy.path().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let renamed = tensors.tensors().into_iter().filter_map(|(name, view)| Some((rename(&name)?, view)));
    safetensors::serialize_to_file(renamed, None, &copy.path().join("model.safetensors")).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(copy.path().join("config.json")).unwrap()).unwrap();
    edit(&mut config);
    fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    copy
}

fn edited(name: &str, edit: impl Fn(&mut Value)) -> TempDir {
    rewritten(name, |tensor| Some(tensor.to_owned()), edit)
}

#[test]
fn all_spellings_of_tensor_names_mean_the_same() {
    let recorded = Recorded::read();
    let modules = |tensor: &str| {
        let parts = [
            ("encoder.layer.", "layers."),
            ("attention.attention.query", "attention.q_proj"),
            ("attention.attention.key", "attention.k_proj"),
            ("attention.attention.value", "attention.v_proj"),
            ("attention.output.dense", "attention.o_proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        ];
        Some(parts.iter().fold(tensor.to_owned(), |name, (from, to)| name.replace(from, to)))
    };
    let bare = |tensor: &str| tensor.strip_prefix("vit.").map(str::to_owned);
    for copy in [
        rewritten("vit-tiny", bare, |_| ()),
        rewritten("vit-tiny", modules, |_| ()),
        rewritten("vit-tiny", |tensor| modules(&bare(tensor)?), |_| ()),
    ] {
        let found = recorded.of_images(&mut load(copy.path(), Layer::Last));
        assert_near("vit-tiny", &found, recorded.last("vit-tiny"));
    }
    let part = |tensor: &str| Some(format!("bert.{tensor}"));
    let old = |tensor: &str| {
        Some(tensor.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"))
    };
    for copy in [
        rewritten("bert-tiny", part, |_| ()),
        rewritten("bert-tiny", old, |_| ()),
        rewritten("bert-tiny", |tensor| old(&part(tensor)?), |_| ()),
    ] {
        let found = recorded.of_texts(&mut load(copy.path(), Layer::Last));
        assert_near("bert-tiny", &found, recorded.last("bert-tiny"));
    }
}

/// The tower of a PaliGemma checkpoint as a model of its own, and beside a text tower.
#[test]
fn a_siglip_tower_of_its_own_equals_the_one_in_paligemma() {
    let recorded = Recorded::read();
    let tower = |prefix: &'static str| {
        move |tensor: &str| {
            let rest = tensor.strip_prefix("vision_tower.vision_model.")?;
            Some(format!("{prefix}{rest}"))
        }
    };
    let alone = |config: &mut Value| {
        *config = config["vision_config"].clone();
        config["model_type"] = json!("siglip_vision_model");
    };
    let beside = |config: &mut Value| config["model_type"] = json!("siglip");
    for copy in [
        rewritten("paligemma-tiny-a", tower("vision_model."), alone),
        rewritten("paligemma-tiny-a", tower(""), alone),
        rewritten("paligemma-tiny-a", tower("vision_model."), beside),
    ] {
        let found = recorded.of_images(&mut load(copy.path(), Layer::Last));
        assert_near("siglip", &found, recorded.last("paligemma-tiny-a"));
    }
}

#[test]
fn an_adapter_changes_the_tower_as_its_merged_model_does() {
    let recorded = Recorded::read();
    let root = TempDir::new().unwrap();
    let source = fixture("gradients/paligemma-tiny-a-adapter");
    let settings = fs::read_to_string(source.join("adapter_config.json")).unwrap();
    let base = format!("\"base_model_name_or_path\": {}", json!(model("paligemma-tiny-a")));
    let named = settings.replace("\"base_model_name_or_path\": \"paligemma-tiny-a\"", &base);
    assert_ne!(named, settings);
    fs::write(root.path().join("adapter_config.json"), named).unwrap();
    fs::copy(source.join("adapter_model.safetensors"), root.path().join("adapter_model.safetensors")).unwrap();
    let merged = root.path().join("merged");
    saving::save_merged(&Checkpoint::open(root.path()).unwrap(), &merged, &mut |_| ()).unwrap();

    let adapted = recorded.of_images(&mut load(root.path(), Layer::Last));
    assert_near("adapter", &adapted, &recorded.of_images(&mut load(&merged, Layer::Last)));
    assert!(difference(&adapted, recorded.last("paligemma-tiny-a")) > 1e-3);
}

#[test]
fn every_activation_has_its_own_form() {
    let recorded = Recorded::read();
    let with = |activation: &str| {
        let copy = edited("bert-tiny", |config| config["hidden_act"] = json!(activation));
        recorded.of_texts(&mut load(copy.path(), Layer::Last))
    };
    let exact = with("gelu");
    assert_near("gelu", &exact, recorded.last("bert-tiny"));
    assert_eq!(with("gelu_new"), with("gelu_pytorch_tanh"));
    let tanh = difference(&with("gelu_new"), &exact);
    assert!((ROUNDING..1e-2).contains(&tanh), "the two forms of GELU are apart by {tanh}");
    assert!(difference(&with("relu"), &exact) > 0.05);
}

#[test]
fn queries_keys_and_values_may_have_no_biases() {
    let recorded = Recorded::read();
    let kept = |tensor: &str| {
        let dropped = tensor.contains("attention.attention") && tensor.ends_with("bias");
        (!dropped).then(|| tensor.to_owned())
    };
    let copy = rewritten("vit-tiny", kept, |config| config["qkv_bias"] = json!(false));
    assert!(difference(&recorded.of_images(&mut load(copy.path(), Layer::Last)), recorded.last("vit-tiny")) > 1e-3);
    let copy = rewritten("vit-tiny", kept, |_| ());
    let error = refusal(copy.path(), Layer::Last);
    let missing = "the checkpoint `DIR` lacks the tensor `vit.encoder.layer.0.attention.attention.query.bias`";
    assert_eq!(told(&error, copy.path()), missing);
}

#[test]
fn settings_that_are_not_supported_are_refused_by_file_and_key() {
    let cases = [
        ("vit-tiny", "hidden_act", json!("silu"), "`hidden_act` \"silu\" is not supported"),
        ("vit-tiny", "image_size", json!([32, 32]), "`image_size` [32,32] is not supported"),
        ("vit-tiny", "image_size", json!(30), "`image_size` 30 does not divide into patches of `patch_size` 8"),
        ("vit-tiny", "image_size", json!(1 << 20), "`image_size` 1048576 is larger than 16384"),
        ("vit-tiny", "patch_size", json!(0), "`patch_size` 0 is not supported"),
        ("vit-tiny", "num_channels", json!(1), "`num_channels` 1 is not supported"),
        ("vit-tiny", "qkv_bias", json!("yes"), "`qkv_bias` \"yes\" is not supported"),
        (
            "bert-tiny",
            "position_embedding_type",
            json!("relative_key"),
            "`position_embedding_type` \"relative_key\" is not supported",
        ),
        ("bert-tiny", "is_decoder", json!(true), "`is_decoder` true is not supported"),
        ("bert-tiny", "num_attention_heads", json!(3), "`hidden_size` 20 does not divide into `num_attention_heads` 3"),
        ("bert-tiny", "vocab_size", json!(-1), "`vocab_size` -1 is not supported"),
        ("bert-tiny", "layer_norm_eps", json!("small"), "`layer_norm_eps` \"small\" is not supported"),
        ("bert-tiny", "model_type", json!("gpt2"), "`model_type` is `gpt2`, which is no encoder"),
    ];
    for (name, key, value, expected) in cases {
        let copy = edited(name, |config| config[key] = value.clone());
        let error = refusal(copy.path(), Layer::Last);
        assert_eq!(error.kind(), Kind::Input);
        assert_eq!(told(&error, copy.path()), format!("cannot use `DIR/config.json`: {expected}"));
    }
    let copy = edited("paligemma-tiny-a", |config| config["vision_config"]["hidden_act"] = json!("relu"));
    let expected = "cannot use `DIR/config.json`: cannot use `hidden_act` of the image tower: \
                    the activation `relu` is not supported";
    assert_eq!(told(&refusal(copy.path(), Layer::Last), copy.path()), expected);
}

#[test]
fn settings_that_are_left_out_are_those_of_transformers() {
    let recorded = Recorded::read();
    let copy = edited("bert-tiny", |config| {
        for key in ["hidden_act", "layer_norm_eps", "type_vocab_size", "is_decoder"] {
            config.as_object_mut().unwrap().remove(key);
        }
        config["position_embedding_type"] = json!(null);
    });
    assert_near("defaults", &recorded.of_texts(&mut load(copy.path(), Layer::Last)), recorded.last("bert-tiny"));
    let copy = edited("vit-tiny", |config| config["image_size"] = json!(null));
    let expected = "the tensor `vit.embeddings.position_embeddings` in `DIR/model.safetensors` has shape [1, 17, 20], \
                    but config.json asks for [1, 785, 20]";
    assert_eq!(told(&refusal(copy.path(), Layer::Last), copy.path()), expected);
}

#[test]
fn hidden_states_that_are_not_there_are_refused() {
    for (name, layers) in [("vit-tiny", 2), ("bert-tiny", 2), ("paligemma-tiny-a", 3)] {
        let error = refusal(&model(name), Layer::Hidden(layers + 1));
        assert_eq!(error.to_string(), format!("there is no hidden state {}: there are {layers} layers", layers + 1));
        assert_eq!(error.next_step(), Some(&*format!("give a number from 0 to {layers}, or `last`")));
    }
    assert_eq!("last".parse::<Layer>().unwrap(), Layer::Last);
    assert_eq!("7".parse::<Layer>().unwrap(), Layer::Hidden(7));
    assert_eq!("first".parse::<Layer>().unwrap_err().to_string(), "`first` is no layer");
    assert_eq!([Layer::Last, Layer::Hidden(7)].map(|layer| layer.to_string()), ["last", "7"]);
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let lacking = |name: &str, file: &str| {
        let copy = edited(name, |_| ());
        fs::remove_file(copy.path().join(file)).unwrap();
        told(&refusal(copy.path(), Layer::Last), copy.path())
    };
    assert_eq!(lacking("vit-tiny", "preprocessor_config.json"), "no image settings in `DIR`");
    assert!(lacking("bert-tiny", "tokenizer.json").starts_with("cannot read the tokenizer `DIR/tokenizer.json`: "));
    let no_weights = "no weights in `DIR`: neither `model.safetensors` nor `model.safetensors.index.json` is there";
    assert_eq!(lacking("bert-tiny", "model.safetensors"), no_weights);
    let no_config = "cannot read `DIR/config.json`: No such file or directory (os error 2)";
    assert_eq!(lacking("bert-tiny", "config.json"), no_config);
    assert_eq!(told(&refusal(&model("none"), Layer::Last), &model("none")), "there is no model folder `DIR`");

    let copy = edited("vit-tiny", |_| ());
    let settings = json!({"image_processor_type": "ViTImageProcessor", "size": 16});
    fs::write(copy.path().join("preprocessor_config.json"), settings.to_string()).unwrap();
    let expected = "the image processor of `DIR` makes 16x16 pixels, but config.json asks for 32x32";
    assert_eq!(told(&refusal(copy.path(), Layer::Last), copy.path()), expected);
}

#[test]
fn tokens_that_the_model_does_not_know_are_refused() {
    let cut = |key: &str, table: &str, size: usize| {
        let copy = edited("bert-tiny", |config| config[key] = json!(size));
        let bytes = fs::read(copy.path().join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let shortened = tensors.tensors().into_iter().map(|(name, view)| match name.contains(table) {
            true => {
                let data = &view.data()[..size * 20 * 4];
                (name, safetensors::tensor::TensorView::new(view.dtype(), vec![size, 20], data).unwrap())
            }
            false => (name, view),
        });
        let target = copy.path().join("cut.safetensors");
        safetensors::serialize_to_file(shortened, None, &target).unwrap();
        fs::rename(target, copy.path().join("model.safetensors")).unwrap();
        copy
    };
    let copy = cut("vocab_size", "word_embeddings", 60);
    let encoder = load(copy.path(), Layer::Last);
    let Reader::Texts(processor) = encoder.reader() else { panic!("it reads no texts") };
    assert_eq!(processor.encode("a").unwrap().len(), 3);
    let error = processor.encode("What colour?").unwrap_err();
    assert_eq!(error.to_string(), "the text `What colour?` has token 70, but the model's vocabulary ends at 60");

    let copy = cut("max_position_embeddings", "position_embeddings", 2);
    let expected = "cannot read the tokenizer `DIR/tokenizer.json`: it puts 2 tokens around a text, but the model takes 2 \
                    in all";
    assert_eq!(told(&refusal(copy.path(), Layer::Last), copy.path()), expected);
    let copy = cut("max_position_embeddings", "position_embeddings", 3);
    let encoder = load(copy.path(), Layer::Last);
    let Reader::Texts(processor) = encoder.reader() else { panic!("it reads no texts") };
    assert_eq!(processor.encode("yes").unwrap(), [2, 29, 3]);
}

#[test]
fn a_text_without_tokens_is_refused() {
    let copy = edited("bert-tiny", |_| ());
    let path = copy.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["post_processor"] = json!(null);
    fs::write(&path, tokenizer.to_string()).unwrap();
    let encoder = load(copy.path(), Layer::Last);
    let Reader::Texts(processor) = encoder.reader() else { panic!("it reads no texts") };
    assert_eq!(processor.encode("a").unwrap().len(), 1);
    let error = processor.encode(" ").unwrap_err();
    assert_eq!(told(&error, copy.path()), "cannot split the text ` ` into tokens: it has no tokens");
}

/// Each family is named once, and what it says it sees is what its reader takes.
#[test]
fn families_say_what_they_see() {
    let types: Vec<&str> = ENCODERS.iter().flat_map(|family| family.model_types).copied().collect();
    assert_eq!(types.iter().collect::<BTreeSet<_>>().len(), types.len());
    let names: BTreeSet<&str> = ENCODERS.iter().map(|family| family.name).collect();
    assert_eq!(names.len(), ENCODERS.len());
    for name in ["vit-tiny", "bert-tiny", "paligemma2-tiny"] {
        let config = fixture_json(&format!("models/{name}/config.json"));
        let model_type = config["model_type"].as_str().unwrap();
        let family = ENCODERS.iter().find(|family| family.model_types.contains(&model_type)).unwrap();
        let reads = match load(&model(name), Layer::Last).reader() {
            Reader::Images(_) => Modality::Image,
            Reader::Texts(_) => Modality::Text,
        };
        assert_eq!(family.modality, reads, "{}", family.name);
    }
}
