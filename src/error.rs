//! The one error of the library: what we were doing and to what, what caused it, and what to do next.
//!
//! A message is one lower-case sentence that names the file, record or tensor concerned. The chain of
//! causes is kept as sources, so that the binary can print `error:`, `caused by:` and `hint:` lines.

use std::fmt;

/// Result of every fallible function of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who has to act on an [`Error`]; decides the exit code of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The arguments, a file or the environment are wrong (exit code 2).
    Input,
    /// The input is well-formed but not comparable or not complete (exit code 3).
    Incomplete,
    /// A defect or a failure of the machine (exit code 4).
    Internal,
}

/// The library's error.
///
/// ```
/// use digrap_bench::error::Error;
/// let error = Error::input("unknown metric `vqa`").hint("`digrap-bench list metrics` shows all of them");
/// assert_eq!(error.to_string(), "unknown metric `vqa`");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    hint: Option<String>,
}

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), cause: None, hint: None }))
    }

    /// Wrong arguments, files or environment.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// Well-formed input that is not comparable or not complete.
    pub fn incomplete(message: impl Into<String>) -> Self {
        Self::new(Kind::Incomplete, message)
    }

    /// A defect of this program or a failure of the machine.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Adds the lower-level error that led to this one.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds the next step for the user.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Wraps this error in a message one level up; kind and hint stay.
    #[must_use]
    pub fn within(mut self, message: impl Into<String>) -> Self {
        let (kind, hint) = (self.0.kind, self.0.hint.take());
        let mut outer = Self::new(kind, message).caused_by(self);
        outer.0.hint = hint;
        outer
    }

    /// Who has to act.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The next step, if one is known.
    pub fn next_step(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|cause| cause.as_ref() as _)
    }
}

/// A text as one word of a command line, for hints that can be typed.
pub fn shell_word(text: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_./=:,+@%".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The row of a registry with this name, or an error that names all rows and the nearest one.
pub fn find_row<'a, T>(rows: &'a [T], what: &str, name: &str, names: impl Fn(&'a T) -> Vec<&'a str>) -> Result<&'a T> {
    if let Some(row) = rows.iter().find(|row| names(row).contains(&name)) {
        return Ok(row);
    }
    let all: Vec<&str> = rows.iter().flat_map(&names).collect();
    let nearest =
        all.iter().copied().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    let suggestion = match nearest {
        Some(near) if strsim::jaro_winkler(near, name) > 0.75 => {
            format!("did you mean `{near}`? known: {}", all.join(", "))
        }
        _ => format!("known: {}", all.join(", ")),
    };
    Err(Error::input(format!("unknown {what} `{name}`")).hint(suggestion))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_keeps_kind_hint_and_chain() {
        let inner = Error::incomplete("record 3: no answers").hint("add them");
        let outer = inner.within("cannot read `a.json`");
        assert_eq!(outer.kind(), Kind::Incomplete);
        assert_eq!(outer.next_step(), Some("add them"));
        assert_eq!(std::error::Error::source(&outer).unwrap().to_string(), "record 3: no answers");
    }

    #[test]
    fn words_of_a_shell_are_quoted_where_they_have_to_be() {
        let words = ["a/b-c_1.sqlite", "two words", "it's", "$HOME", ""].map(shell_word);
        assert_eq!(words, ["a/b-c_1.sqlite", "'two words'", r"'it'\''s'", "'$HOME'", "''"]);
    }

    #[test]
    fn unknown_rows_suggest_the_nearest() {
        let error = find_row(&["lavis", "vizwiz"], "metric", "lavsi", |row| vec![row]).unwrap_err();
        assert_eq!(error.to_string(), "unknown metric `lavsi`");
        assert_eq!(error.next_step(), Some("did you mean `lavis`? known: lavis, vizwiz"));
    }
}
