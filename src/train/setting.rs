//! Settings of methods: what may be set, and what was set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::method::Method;
use crate::error::{Error, Result, find_row};

/// Something that can be set about a method, as `--set name=value`.
#[derive(Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it can be.
    pub values: Values,
}

/// What a setting can be, with its default.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// A number within bounds that belong to the range.
    Number {
        /// Where nothing is set.
        default: f64,
        /// The lowest and the highest.
        range: [f64; 2],
    },
    /// A whole number from 1.
    Count {
        /// Where nothing is set.
        default: u32,
    },
    /// One of several words; the first where nothing is set.
    Word(&'static [&'static str]),
    /// A word, where nothing is set, or a number within bounds.
    WordOr {
        /// The word.
        word: &'static str,
        /// The lowest and the highest number.
        range: [f64; 2],
    },
}

/// Numbers from 0 on.
pub const NOT_NEGATIVE: [f64; 2] = [0.0, f64::MAX];

impl Values {
    /// What the setting is where nothing is set.
    pub fn default(&self) -> Chosen {
        match *self {
            Self::Number { default, .. } => Chosen::Number(default),
            Self::Count { default } => Chosen::Number(f64::from(default)),
            Self::Word(words) => Chosen::Word(words.first().copied().unwrap_or_default()),
            Self::WordOr { word, .. } => Chosen::Word(word),
        }
    }

    fn read(&self, text: &str) -> Option<Chosen> {
        let number = |range: [f64; 2]| {
            text.parse().ok().filter(|number| (range[0]..=range[1]).contains(number)).map(Chosen::Number)
        };
        match *self {
            Self::Number { range, .. } => number(range),
            Self::Count { .. } => text.parse().ok().filter(|count: &u32| *count > 0).map(|n| Chosen::Number(n.into())),
            Self::Word(words) => words.iter().find(|word| **word == text).map(|word| Chosen::Word(word)),
            Self::WordOr { word, .. } if word == text => Some(Chosen::Word(word)),
            Self::WordOr { range, .. } => number(range),
        }
    }
}

/// What the setting can be, in words: `a number from 0 to 1`.
impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = |[least, most]: [f64; 2]| match most {
            f64::MAX => format!("a number of at least {least}"),
            _ => format!("a number from {least} to {most}"),
        };
        match *self {
            Self::Number { range, .. } => f.write_str(&bounds(range)),
            Self::Count { .. } => f.write_str("a whole number of at least 1"),
            Self::Word(words) => f.write_str(&words.join(" or ")),
            Self::WordOr { word, range } => write!(f, "{word} or {}", bounds(range)),
        }
    }
}

/// What was chosen for a setting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Chosen {
    /// A number.
    Number(#[serde(serialize_with = "shortest")] f64),
    /// A word.
    Word(&'static str),
}

/// Whole numbers without a fraction.
fn shortest<S: serde::Serializer>(number: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    const EXACT: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return serializer.serialize_i64(*number as i64);
    }
    serializer.serialize_f64(*number)
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// A method with all of its settings.
#[derive(Debug, Clone)]
pub struct ChosenMethod {
    /// The method.
    pub method: &'static Method,
    settings: BTreeMap<&'static str, Chosen>,
    /// Those that are not there by default.
    given: BTreeSet<&'static str>,
}

impl ChosenMethod {
    /// A method with these settings, and the defaults of the others.
    ///
    /// # Errors
    /// Input error for a setting that the method does not have, a value out of its range, one set twice, or one that has no
    /// effect beside another.
    pub fn new(method: &'static Method, given: &[(&str, &str)]) -> Result<Self> {
        let mut settings: BTreeMap<_, _> =
            method.settings.iter().map(|setting| (setting.name, setting.values.default())).collect();
        let mut set = BTreeSet::new();
        for (index, (name, text)) in given.iter().enumerate() {
            if method.settings.is_empty() {
                return Err(Error::input(format!("{} has no settings, such as `{name}`", method.name))
                    .hint("`list methods` shows those of each method"));
            }
            let what = format!("setting of {}", method.name);
            let setting = find_row(method.settings, &what, name, |setting| vec![setting.name])?;
            if given[..index].iter().any(|(other, _)| other == name) {
                return Err(Error::input(format!("`{name}` is set twice")).hint("give it once"));
            }
            let value = setting.values.read(text).ok_or_else(|| {
                Error::input(format!("`{name}` of {} cannot be `{text}`", method.name))
                    .hint(format!("it is {}; {}", setting.values, setting.about))
            })?;
            settings.insert(setting.name, value);
            set.insert(setting.name);
        }
        Self { method, settings, given: set }.checked()
    }

    /// The same with another value of one setting, checked as by [`ChosenMethod::new`].
    ///
    /// # Errors
    /// As there.
    pub fn with(&self, name: &str, text: &str) -> Result<Self> {
        let one = Self::new(self.method, &[(name, text)])?;
        let mut changed = self.clone();
        changed.settings.extend(one.settings.into_iter().filter(|(setting, _)| *setting == name));
        changed.given.extend(one.given);
        changed.checked()
    }

    /// Refuses a setting that was given and has no effect, as its value would be read as that of the run.
    fn checked(self) -> Result<Self> {
        for (name, idle) in self.method.overrides {
            let Setting { about, values, .. } = find_row(self.method.settings, "setting", name, |one| vec![one.name])?;
            let (value, default) = (self.chosen(name)?, values.default());
            let idle: Vec<&str> = self.given.iter().copied().filter(|given| idle.contains(given)).collect();
            if value != default && !idle.is_empty() {
                let (method, idle) = (self.method.name, idle.join("`, `"));
                return Err(Error::input(format!("{method} does not use `{idle}` where `{name}` is {value}, {about}"))
                    .hint(format!("leave out `{idle}`, or leave `{name}` at {default}")));
            }
        }
        Ok(self)
    }

    /// All settings by name.
    pub fn settings(&self) -> &BTreeMap<&'static str, Chosen> {
        &self.settings
    }

    /// What was chosen for a setting.
    ///
    /// # Errors
    /// Internal error if the method has none of this name.
    pub fn chosen(&self, name: &str) -> Result<Chosen> {
        self.settings.get(name).copied().ok_or_else(|| missing(self.method, name))
    }

    /// The number that was chosen for a setting.
    ///
    /// # Errors
    /// Internal error if it is none.
    pub fn number(&self, name: &str) -> Result<f64> {
        match self.chosen(name)? {
            Chosen::Number(number) => Ok(number),
            Chosen::Word(_) => Err(missing(self.method, name)),
        }
    }

    /// The word that was chosen for a setting.
    ///
    /// # Errors
    /// Internal error if it is none.
    pub fn word(&self, name: &str) -> Result<&'static str> {
        match self.chosen(name)? {
            Chosen::Word(word) => Ok(word),
            Chosen::Number(_) => Err(missing(self.method, name)),
        }
    }
}

/// `digrap (mu=0.5, ...)`: the method with its settings.
impl fmt::Display for ChosenMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.method.name)?;
        let settings: Vec<String> = self.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if settings.is_empty() { Ok(()) } else { write!(f, " ({})", settings.join(", ")) }
    }
}

fn missing(method: &Method, name: &str) -> Error {
    Error::internal(format!("{} asks for a setting `{name}` that its row does not have in this form", method.name))
}
