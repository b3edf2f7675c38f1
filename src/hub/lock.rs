//! What was used of the Hub, so that it can be fetched and checked again.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::repository::{Repository, RepositoryKind, is_commit, is_hex};
use crate::error::{Error, Result};

const BUFFER: usize = 1 << 20;

/// What was used of one repository: every file at one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// What the repository holds.
    pub kind: RepositoryKind,
    /// Its name, `org/name`.
    pub repository: String,
    /// Branch, tag or commit that was asked for.
    pub revision: String,
    /// The commit that this was.
    pub commit: String,
    /// The files by path.
    pub files: Vec<LockedFile>,
}

/// One file of a [`Lock`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedFile {
    /// Path within the repository.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its bytes, as hexadecimal text.
    pub sha256: String,
}

impl Lock {
    /// The repository at the commit.
    ///
    /// # Errors
    /// The lock does not name one, or a file outside of its folder.
    pub fn pinned(&self) -> Result<Repository> {
        let repository: Repository = format!("{}@{}", self.repository, self.commit).parse()?;
        if !is_commit(&self.commit) {
            return Err(Error::input(format!(
                "`{}` is locked to `{}`, which is no commit",
                self.repository, self.commit
            )));
        }
        if let Some(file) = self.files.iter().find(|file| !is_inside(&file.path)) {
            return Err(Error::input(format!(
                "`{}` is locked with the file `{}`, which is outside of it",
                self.repository, file.path
            )));
        }
        Ok(Repository { kind: self.kind, ..repository })
    }
}

/// Whether a path with `/` stays within the folder it starts from.
pub(super) fn is_inside(path: &str) -> bool {
    !path.is_empty() && !path.contains(['\\', '\0']) && path.split('/').all(|part| !["", ".", ".."].contains(&part))
}

/// What the bytes of a file must give; also the name of the file in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fingerprint {
    /// Of large files.
    Sha256(String),
    /// The name of a git object, of all other files.
    Git(String),
}

impl Fingerprint {
    /// The one that is the name of a file in the cache.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        match name.len() {
            64 if is_hex(name, 64) => Some(Self::Sha256(name.to_owned())),
            40 if is_hex(name, 40) => Some(Self::Git(name.to_owned())),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::Git(text) => text,
        }
    }

    /// That of the file instead.
    pub(super) fn same_of(&self, path: &Path, on_bytes: &mut dyn FnMut(u64)) -> io::Result<Self> {
        Ok(match self {
            Self::Sha256(_) => Self::Sha256(sha256(path, on_bytes)?),
            Self::Git(_) => {
                let header = format!("blob {}\0", std::fs::metadata(path)?.len());
                Self::Git(digest(Sha1::new_with_prefix(header), path, on_bytes)?)
            }
        })
    }
}

/// SHA-256 of a file as hexadecimal text; `on_bytes` hears of every further piece.
pub(super) fn sha256(path: &Path, on_bytes: &mut dyn FnMut(u64)) -> io::Result<String> {
    digest(Sha256::new(), path, on_bytes)
}

fn digest<D: Digest>(mut state: D, path: &Path, on_bytes: &mut dyn FnMut(u64)) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(state.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        state.update(&buffer[..count]);
        on_bytes(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_those_of_git_and_sha256sum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hello");
        std::fs::write(&path, "hello\n").unwrap();
        let mut bytes = 0;
        // `git hash-object hello` and `sha256sum hello`.
        for expected in [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            let expected = Fingerprint::of_name(expected).unwrap();
            assert_eq!(expected.same_of(&path, &mut |count| bytes += count).unwrap(), expected);
        }
        assert_eq!(bytes, 12);
        assert_eq!(Fingerprint::of_name("main"), None);
    }

    #[test]
    fn paths_stay_inside() {
        assert!(is_inside("a/b.json") && is_inside("..a"));
        for outside in ["", "/a", "a//b", "../a", "a/..", "./a", "a\\b"] {
            assert!(!is_inside(outside), "{outside}");
        }
    }
}
