//! Writes model folders in the Hub's layout, which transformers and [`Checkpoint::open`] read.
//!
//! Tensors that were trained or merged are written in f32, all others as they are stored. As soon as one became wider
//! `config.json` states float32: transformers loads every tensor in the dtype stated there, so that narrower ones are
//! widened, which is exact, and none is rounded.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::adapter::{self, Adapter};
use super::export::{GRAPHS, WEIGHTS};
use super::tensor_file::{self, Merged, Source};
use super::weights::{INDEX, SINGLE};
use super::{CONFIG, Checkpoint, DTYPE_KEYS, GENERATION, MODEL_FOLDER, read_json};
use crate::data::{WholeFolder, write_error};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Files of a folder that belong to the tokenizer; the first is the one that has to be there.
pub(super) const TEXT_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
];
/// Files of a folder that say how images are prepared.
pub(super) const IMAGE_FILES: &[&str] = &["processor_config.json", "preprocessor_config.json"];

/// Whether a model's or an adapter's folder may hold this file or, with a `/` at the end, this folder.
pub(super) fn is_of_model(path: &str) -> bool {
    let own = [CONFIG, GENERATION, SINGLE, INDEX, adapter::SETTINGS, adapter::MATRICES];
    let shard = || path.starts_with("model-") && path.ends_with(".safetensors") && !path.contains('/');
    let graph = |file: &str| file.is_empty() || file == WEIGHTS || (file.ends_with(".onnx") && !file.contains('/'));
    let exported = || path.strip_prefix(GRAPHS).and_then(|below| below.strip_prefix('/')).is_some_and(graph);
    [&own[..], TEXT_FILES, IMAGE_FILES].iter().any(|names| names.contains(&path)) || shard() || exported()
}

/// Bytes of the tensors of one file; a larger model is cut into several.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Writes a checkpoint with other values for the tensors in `trained`, by their names there, and without its adapter.
/// The folder appears whole, and replaces an older one; `on_bytes` hears of every further piece that is written.
///
/// # Errors
///
/// Input error naming the folder or file that cannot be written; an older folder stays as it was. Internal error for a
/// trained tensor that the checkpoint does not hold in that shape.
pub fn save_checkpoint(
    base: &Checkpoint,
    trained: &BTreeMap<String, Tensor>,
    folder: &Path,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut tensors = stored(base);
    for (name, tensor) in trained {
        let known = tensors.get_mut(name.as_str()).filter(|source| source.shape() == tensor.shape());
        let Some(source) = known else {
            let folder = base.base_folder.display();
            return Err(Error::internal(format!("`{folder}` has no tensor `{name}` of shape {:?}", tensor.shape())));
        };
        *source = Source::Values(tensor);
    }
    save(&Files::of(base), base.config.clone(), &tensors, folder, SHARD_BYTES, on_bytes)
}

/// Writes a checkpoint with its adapter merged into the weights: `W + scale * B A`, computed in f32.
///
/// # Errors
/// As [`save_checkpoint`]; input error if it has no adapter.
pub fn save_merged(checkpoint: &Checkpoint, folder: &Path, on_bytes: &mut dyn FnMut(u64)) -> Result<()> {
    let Some(adapter) = &checkpoint.adapter else {
        return Err(Error::input(format!("`{}` has no adapter to merge", checkpoint.folder.display()))
            .hint("it can be used as it is"));
    };
    let tensors = merged(checkpoint, adapter);
    save(&Files::of(checkpoint), checkpoint.config.clone(), &tensors, folder, SHARD_BYTES, on_bytes)
}

/// Writes the files of a checkpoint, with its adapter merged if it has one, into an empty folder.
pub(super) fn fill_whole(checkpoint: &Checkpoint, folder: &Path, on_bytes: &mut dyn FnMut(u64)) -> Result<()> {
    let tensors = checkpoint.adapter.as_ref().map_or_else(|| stored(checkpoint), |adapter| merged(checkpoint, adapter));
    fill(&Files::of(checkpoint), checkpoint.config.clone(), &tensors, folder, SHARD_BYTES, on_bytes)
}

/// Writes a new model: `tensors` and the settings files of the folder `configuration`, which holds no weights.
///
/// # Errors
/// As [`save_checkpoint`]; input error for a `config.json` that cannot be read.
pub fn save_new(
    configuration: &Path,
    tensors: &BTreeMap<String, Tensor>,
    folder: &Path,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<()> {
    let config = read_json(&configuration.join(CONFIG))?;
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), Source::Values(tensor))).collect();
    let files = Files { base: configuration, text: configuration, image: configuration };
    save(&files, config, &tensors, folder, SHARD_BYTES, on_bytes)
}

/// The folders that settings files are copied from.
struct Files<'a> {
    base: &'a Path,
    text: &'a Path,
    image: &'a Path,
}

impl<'a> Files<'a> {
    fn of(checkpoint: &'a Checkpoint) -> Self {
        Self { base: &checkpoint.base_folder, text: checkpoint.text_folder(), image: checkpoint.image_folder() }
    }

    fn copy(&self, target: &Path) -> Result<()> {
        let groups = [(self.base, [GENERATION].as_slice()), (self.text, TEXT_FILES), (self.image, IMAGE_FILES)];
        for (folder, names) in groups {
            for (path, name) in names.iter().map(|name| (folder.join(name), name)).filter(|(path, _)| path.is_file()) {
                let bytes = std::fs::read(&path)
                    .map_err(|cause| Error::input(format!("cannot read `{}`", path.display())).caused_by(cause))?;
                let copy = target.join(name);
                std::fs::write(&copy, bytes).map_err(|cause| write_error(&copy, cause))?;
            }
        }
        Ok(())
    }
}

type Sources<'a> = BTreeMap<&'a str, Source<'a>>;

fn stored(checkpoint: &Checkpoint) -> Sources<'_> {
    let weights = &checkpoint.weights;
    let names = weights.names().into_iter();
    names.filter_map(|name| Some((name, Source::Stored(weights.stored(name)?)))).collect()
}

fn merged<'a>(checkpoint: &'a Checkpoint, adapter: &'a Adapter) -> Sources<'a> {
    let mut tensors = stored(checkpoint);
    for layer in checkpoint.linear_layers() {
        let Some((down, up)) = adapter.matrices(&layer.path) else { continue };
        let Some(source) = tensors.get_mut(layer.weight.as_str()) else { continue };
        if let Source::Stored(weight) = *source {
            *source = Source::Merged(Merged { weight, down, up, scale: adapter.scale() });
        }
    }
    tensors
}

fn save(
    files: &Files,
    config: Value,
    tensors: &Sources,
    folder: &Path,
    limit: u64,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<()> {
    let whole = WholeFolder::create(folder, &MODEL_FOLDER)?;
    fill(files, config, tensors, whole.path(), limit, on_bytes)?;
    whole.finish()
}

fn fill(
    files: &Files,
    mut config: Value,
    tensors: &Sources,
    folder: &Path,
    limit: u64,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<()> {
    files.copy(folder)?;
    if tensors.values().any(|source| !matches!(source, Source::Stored(_)) && source.dtype() == DType::F32) {
        state_float32(&mut config);
    }
    write_json(&folder.join(CONFIG), &config)?;
    write_weights(folder, tensors, limit, on_bytes)
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|cause| Error::internal("the settings are no JSON").caused_by(cause))?;
    std::fs::write(path, text + "\n").map_err(|cause| write_error(path, cause))
}

/// Sets every dtype that is stated, and states one.
fn state_float32(config: &mut Value) {
    let Some(entries) = config.as_object_mut() else { return };
    if !DTYPE_KEYS.iter().any(|key| entries.get(*key).is_some_and(Value::is_string)) {
        entries.insert(DTYPE_KEYS[0].to_owned(), Value::Null);
    }
    for (key, value) in entries {
        if DTYPE_KEYS.contains(&key.as_str()) {
            *value = json!("float32");
        } else if let Some(inner) = value.as_object_mut() {
            let stated =
                inner.iter_mut().filter(|(key, value)| DTYPE_KEYS.contains(&key.as_str()) && value.is_string());
            stated.for_each(|(_, value)| *value = json!("float32"));
        }
    }
}

fn write_weights(folder: &Path, tensors: &Sources, limit: u64, on_bytes: &mut dyn FnMut(u64)) -> Result<()> {
    let shards = shards(tensors, limit);
    if let [all] = shards.as_slice() {
        return tensor_file::write(&folder.join(SINGLE), all, on_bytes);
    }
    let mut places = BTreeMap::new();
    for (number, shard) in (1..).zip(&shards) {
        let name = format!("model-{number:05}-of-{:05}.safetensors", shards.len());
        tensor_file::write(&folder.join(&name), shard, on_bytes)?;
        places.extend(shard.iter().map(|(tensor, _)| (*tensor, name.clone())));
    }
    let count: usize = tensors.values().map(Source::count).sum();
    let size: usize = tensors.values().map(Source::length).sum();
    let index = json!({"metadata": {"total_parameters": count, "total_size": size}, "weight_map": places});
    write_json(&folder.join(INDEX), &index)
}

/// Cuts the tensors into files of at most `limit` bytes, or of one tensor.
fn shards<'a>(tensors: &Sources<'a>, limit: u64) -> Vec<Vec<(&'a str, Source<'a>)>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0;
    for (name, source) in tensors {
        let length = source.length() as u64;
        if size > 0 && size + length > limit {
            shards.push(Vec::new());
            size = 0;
        }
        size += length;
        if let Some(shard) = shards.last_mut() {
            shard.push((*name, *source));
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stated_dtype_becomes_float32() {
        let mut config = json!({"torch_dtype": "bfloat16", "hidden_size": 4, "text_config": {"dtype": "float16", "n": 1},
            "vision_config": {"torch_dtype": null}});
        state_float32(&mut config);
        let expected = json!({"torch_dtype": "float32", "hidden_size": 4, "text_config": {"dtype": "float32", "n": 1},
            "vision_config": {"torch_dtype": null}});
        assert_eq!(config, expected);
        let mut silent = json!({"text_config": {}});
        state_float32(&mut silent);
        assert_eq!(silent, json!({"dtype": "float32", "text_config": {}}));
    }

    /// The fixture's own shards and index were written by transformers.
    #[test]
    fn large_models_are_cut_as_transformers_cuts_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/paligemma-tiny-b");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let tensors = stored(&checkpoint);
        let target = tempfile::tempdir().unwrap();
        let limit = 250_000;
        let mut written = 0;
        write_weights(target.path(), &tensors, limit, &mut |bytes| written += bytes).unwrap();
        let index = |folder: &Path| read_json::<Value>(&folder.join(INDEX)).unwrap();
        let (ours, theirs) = (index(target.path()), index(&folder));
        assert_eq!((&ours["metadata"], written), (&theirs["metadata"], checkpoint.weights.size()));
        let names = |index: &Value| index["weight_map"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs));
        let copy = crate::model::weights::Weights::open(target.path()).unwrap();
        assert_eq!(copy.files().count(), 3);
        for (name, source) in &tensors {
            let Source::Stored(source) = source else { panic!("{name}") };
            let copy = copy.stored(name).unwrap();
            assert_eq!((copy.dtype, copy.shape, copy.bytes), (source.dtype, source.shape, source.bytes), "{name}");
        }
    }

    #[test]
    fn a_full_disk_is_one_error() {
        let tensor = Tensor::vector(vec![1.0f32; 4]);
        let error = tensor_file::write(Path::new("/dev/full"), &[("a", Source::Values(&tensor))], &mut |_| ());
        let error = error.unwrap_err();
        assert_eq!(format!("{error:?}"), "Input: cannot write `/dev/full`: No space left on device (os error 28)");
        assert_eq!(error.next_step(), Some("free some space there, or choose another folder"));
    }
}
