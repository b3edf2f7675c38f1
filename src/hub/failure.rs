//! What to do about a request that was in vain.

use std::io;
use std::path::Path;

use super::repository::{Repository, RepositoryKind};
use super::transfer::Failure;
use crate::error::Error;

/// What was asked for.
pub(super) struct Wanted<'a> {
    pub endpoint: &'a str,
    pub repository: &'a Repository,
    /// A file of the repository; none for the list of all.
    pub file: Option<&'a str>,
    pub has_token: bool,
}

impl Wanted<'_> {
    /// The message for the user.
    pub(super) fn error(&self, failure: Failure) -> Error {
        let Self { endpoint, .. } = self;
        match failure {
            Failure::Disk(path, cause) => unwritable(&path, cause, "set HF_HUB_CACHE to a folder elsewhere"),
            Failure::Network(cause) => Error::input(format!("{} from `{endpoint}`", self.cannot_get()))
                .caused_by(cause)
                .hint("check the network, HTTPS_PROXY and HF_ENDPOINT, then run the same command again; --offline uses what is in the cache"),
            Failure::Contradiction { what, may_pass } => {
                Error::input(format!("{} from `{endpoint}`", self.cannot_get())).caused_by(what).hint(match may_pass {
                    true => "run the same command again; it goes on with what has come",
                    false => "something on the way changes downloads: look at HTTPS_PROXY and HF_ENDPOINT",
                })
            }
            Failure::Status { status, code, message, wait } => self.refusal(status, &code, &message, wait),
        }
    }

    fn refusal(&self, status: u16, code: &str, message: &str, wait: Option<u64>) -> Error {
        let Self { endpoint, repository, file, has_token } = self;
        let Repository { kind, id, .. } = repository;
        let page = match kind {
            RepositoryKind::Model => format!("{endpoint}/{id}"),
            RepositoryKind::Dataset => format!("{endpoint}/datasets/{id}"),
        };
        let file = file.unwrap_or("list of files");
        match (status, code) {
            (401 | 403, "GatedRepo") => Error::input(format!(
                "the {kind} `{id}` is gated: only users who have accepted its licence get its files"
            ))
            .hint(match has_token {
                true => format!(
                    "accept the licence at {page} with the account of your token; some owners grant access by hand"
                ),
                false => format!(
                    "accept the licence at {page}, make a token at {endpoint}/settings/tokens and set HF_TOKEN to it"
                ),
            }),
            (401, _) if *has_token && message.contains("credentials") => {
                Error::input("the Hub does not know the token")
                    .hint(format!("make another at {endpoint}/settings/tokens and set HF_TOKEN to it"))
            }
            (404, "RevisionNotFound") => {
                Error::input(format!("the {kind} `{id}` has no revision `{}`", repository.revision()))
                    .hint(format!("{page}/tree/main lists branches and tags; a commit needs all its 40 digits"))
            }
            (404, "EntryNotFound") => Error::input(format!("`{repository}` has no file `{file}`"))
                .hint(format!("{page}/tree/{} lists its files", repository.revision())),
            (401 | 404, _) => Error::input(format!("the Hub has no {kind} `{id}`, or only for those who may see it"))
                .hint(match has_token {
                    true => {
                        "check the spelling; for a private repository, the token must be of an account that may read it"
                    }
                    false => "check the spelling; for a private repository, set HF_TOKEN",
                }),
            (403, _) if *has_token => Error::input(format!("the token may not read `{id}`"))
                .hint(format!("give it access at {endpoint}/settings/tokens")),
            (403, _) => Error::input(format!("{}: the server refuses (403)", self.cannot_get()))
                .hint("something on the way may refuse it: look at HTTPS_PROXY and HF_ENDPOINT"),
            (429, _) => Error::input(format!("{}: the Hub has had too many requests from here", self.cannot_get()))
                .hint(format!(
                    "run the same command again {}{}",
                    wait.map_or_else(|| "in a few minutes".to_owned(), |seconds| format!("in {seconds} s")),
                    if *has_token { "" } else { "; with a token in HF_TOKEN the Hub allows more" }
                )),
            (500.., _) => Error::input(format!("{}: the Hub fails with status {status}", self.cannot_get()))
                .hint("run the same command again later; it goes on with what has come"),
            _ => Error::input(format!("{}: the Hub answers with status {status}", self.cannot_get()))
                .hint("check HF_ENDPOINT"),
        }
    }

    fn cannot_get(&self) -> String {
        match self.file {
            Some(file) => format!("cannot get `{file}` of `{}`", self.repository),
            None => format!("cannot get the list of files of `{}`", self.repository),
        }
    }
}

/// The message for a file that any server has.
pub(super) fn not_downloaded(url: &str, failure: Failure, unwritable: &dyn Fn(&Path, io::Error) -> Error) -> Error {
    let error = Error::input(format!("cannot download `{url}`"));
    match failure {
        Failure::Disk(path, cause) => unwritable(&path, cause),
        Failure::Network(cause) => {
            error.caused_by(cause).hint("check the network and HTTPS_PROXY, then run the same command again")
        }
        Failure::Contradiction { what, .. } => {
            error.caused_by(what).hint("run the same command again; it goes on with what has come")
        }
        Failure::Status { status: status @ (429 | 500..), wait, .. } => {
            error.caused_by(format!("the server answers with status {status}")).hint(match wait {
                Some(seconds) => format!("run the same command again in {seconds} s"),
                None => "run the same command again later; it goes on with what has come".to_owned(),
            })
        }
        Failure::Status { status, .. } => error
            .caused_by(format!("the server answers with status {status}"))
            .hint("the file is no longer there: get it by hand, as `digrap-bench list datasets` says"),
    }
}

/// The message for a file that cannot be written.
pub(super) fn unwritable(path: &Path, cause: io::Error, elsewhere: &str) -> Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let hint = match cause.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            format!("make room or {elsewhere}; the same command goes on with what has come")
        }
        _ => elsewhere.to_owned(),
    };
    Error::input(format!("cannot write `{}`", path.display())).caused_by(cause).hint(hint)
}
