//! Names of repositories on the Hub, and which of their files a model needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The branch that is meant where no revision is given.
const DEFAULT_BRANCH: &str = "main";
pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
pub(super) const ADAPTER_SETTINGS: &str = "adapter_config.json";
pub(super) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const IMAGE_SETTINGS: [&str; 2] = ["processor_config.json", "preprocessor_config.json"];

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepositoryKind {
    /// A model.
    Model,
    /// Records of a dataset.
    Dataset,
}

impl fmt::Display for RepositoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        })
    }
}

/// A repository on the Hub at one of its revisions. Its text is `org/name` or `org/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// What it holds.
    pub kind: RepositoryKind,
    /// Its name, `org/name`.
    pub id: String,
    /// Branch, tag or commit, as it was given.
    pub revision: Option<String>,
}

impl Repository {
    /// The dataset repository of this name instead of the model.
    #[must_use]
    pub fn dataset(self) -> Self {
        Self { kind: RepositoryKind::Dataset, ..self }
    }

    /// The same repository at this revision.
    #[must_use]
    pub fn at(&self, revision: &str) -> Self {
        Self { revision: Some(revision.to_owned()), ..self.clone() }
    }

    /// Branch, tag or commit; `main` where none was given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_BRANCH)
    }

    /// Whether the revision is a whole commit, which never changes.
    pub fn is_pinned(&self) -> bool {
        is_commit(self.revision())
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

impl FromStr for Repository {
    type Err = Error;

    /// A model repository.
    fn from_str(text: &str) -> Result<Self> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let is_id =
            matches!(id.split('/').collect::<Vec<_>>().as_slice(), [owner, name] if is_name(owner) && is_name(name));
        if !is_id || !revision.is_none_or(is_revision) {
            return Err(Error::input(format!("`{text}` is no name on the Hub"))
                .hint("write `org/name`, or `org/name@revision` with a branch, a tag or a commit"));
        }
        Ok(Self { kind: RepositoryKind::Model, id: id.to_owned(), revision: revision.map(str::to_owned) })
    }
}

/// The Hub's rule for the two parts of a name.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: char| "-.".contains(c);
    (1..=96).contains(&text.len())
        && text.chars().all(allowed)
        && !text.starts_with(edge)
        && !text.ends_with(edge)
        && !text.contains("--")
        && !text.contains("..")
}

/// A name of a git reference that is also a path below the folder of references.
fn is_revision(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./+=".contains(c);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    text.chars().all(allowed) && !text.contains("..") && text.split('/').all(part)
}

pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

pub(super) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The part of `model.safetensors.index.json` that names the files.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    pub(super) fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

/// Whether the weights are those that an index names. One file with all of them comes first, as it does where weights
/// are loaded.
pub(super) fn has_shards(all: &[&str]) -> bool {
    all.contains(&INDEX) && !all.contains(&WEIGHTS)
}

/// The files that a model needs, of all that there are. With an index these are the shards it names, even such as are
/// not there.
pub(super) fn files_of_model<'a>(all: &[&'a str], index: Option<&'a Index>) -> BTreeSet<&'a str> {
    let mut files: BTreeSet<&str> = all.iter().copied().filter(|name| is_setting(name)).collect();
    match index {
        Some(index) => {
            files.insert(INDEX);
            files.extend(index.shards());
        }
        None => files.extend(all.iter().filter(|name| [WEIGHTS, ADAPTER_WEIGHTS].contains(name))),
    }
    files
}

/// Files beside the weights: configuration, tokenizer, image and text settings.
fn is_setting(name: &str) -> bool {
    const NAMES: &[&str] = &[
        CONFIG,
        "generation_config.json",
        ADAPTER_SETTINGS,
        IMAGE_SETTINGS[0],
        IMAGE_SETTINGS[1],
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.json",
        "chat_template.jinja",
    ];
    NAMES.contains(&name) || (name.starts_with("tokenizer") && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_an_owner_and_perhaps_a_revision() {
        let parsed: Repository = "google/paligemma-3b-pt-224@refs/pr/2".parse().unwrap();
        assert_eq!((parsed.id.as_str(), parsed.revision()), ("google/paligemma-3b-pt-224", "refs/pr/2"));
        assert_eq!(parsed.to_string(), "google/paligemma-3b-pt-224@refs/pr/2");
        let parsed: Repository = "org/tiny_1.5".parse().unwrap();
        assert_eq!(
            (parsed.revision(), parsed.is_pinned(), parsed.to_string().as_str()),
            ("main", false, "org/tiny_1.5")
        );
        assert!(parsed.at(&"0123456789abcdef".repeat(3)[..40]).is_pinned());
        for wrong in [
            "tiny",
            "a/b/c",
            "/tiny",
            "org/",
            "org/..",
            "../x",
            "./x",
            "a b/c",
            "org/a--b",
            "org/x@",
            "org/x@../y",
            "org/x@a//b",
            "org/x@a b",
            "org/x@/etc",
            "~/x",
        ] {
            let error = wrong.parse::<Repository>().unwrap_err();
            assert_eq!(error.to_string(), format!("`{wrong}` is no name on the Hub"));
        }
    }

    #[test]
    fn a_model_needs_its_settings_and_the_weights_of_its_index() {
        let all = [
            "README.md",
            "config.json",
            "model.safetensors.index.json",
            "a-1.safetensors",
            "a-2.safetensors",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
            "tokenizer.model",
            "onnx/tokenizer.json",
            "model.gguf",
            "processor_config.json",
        ];
        let index: Index =
            serde_json::from_str(r#"{"weight_map": {"x": "a-1.safetensors", "y": "a-2.safetensors"}}"#).unwrap();
        let expected = [
            "a-1.safetensors",
            "a-2.safetensors",
            "config.json",
            "model.safetensors.index.json",
            "processor_config.json",
            "tokenizer.json",
            "tokenizer.model",
        ];
        assert_eq!(files_of_model(&all, Some(&index)), expected.into());
        let single = ["adapter_config.json", "adapter_model.safetensors", "optimizer.bin", "training_args.bin"];
        assert_eq!(files_of_model(&single, None), single[..2].iter().copied().collect());
    }
}
