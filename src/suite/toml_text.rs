//! TOML files of one's own, whose errors name file and line.

use serde::de::DeserializeOwned;
use toml::Spanned;

use crate::error::{Error, Result};

/// The text of a TOML file.
#[derive(Debug)]
pub(super) struct TomlText {
    /// What errors call it.
    pub title: String,
    /// Its content.
    pub text: String,
}

impl TomlText {
    /// What the text says.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(&self.text).map_err(|error| {
            let message = error.message().trim_end().replace('\n', ", ").replace("unknown field", "unknown key");
            self.wrong(error.span().map_or(0, |span| span.start), message)
        })
    }

    /// What is wrong at a byte of the text.
    pub fn wrong(&self, at: usize, what: impl std::fmt::Display) -> Error {
        let line = self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        Error::input(format!("{}, line {line}: {what}", self.title))
    }

    /// The value that `find` has for a name in the text.
    pub fn look_up<T>(&self, name: &Spanned<String>, find: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        find(name.get_ref()).map_err(|error| {
            let (wrong, hint) = (self.wrong(name.span().start, &error), error.next_step().map(str::to_owned));
            hint.into_iter().fold(wrong.caused_by(error), Error::hint)
        })
    }
}
