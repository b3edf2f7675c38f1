//! What a comparison lets pass: a TOML file of one's own, or what is taken where there is none.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::super::toml_text::TomlText;
use crate::error::{Error, Result, find_row};

/// Level where none is stated.
const LEVEL: f64 = 0.05;

/// What a comparison lets pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// Probability, at most, of failing where no dataset has changed: for all datasets together.
    pub level: f64,
    /// Of each dataset that is compared, in their order.
    pub limits: Vec<Limits>,
}

/// What is let pass on one dataset.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Limits {
    /// Significant drops of accuracy up to this many points pass.
    pub tolerated_drop: f64,
    /// Drops of more points than this fail, whether significant or not.
    pub max_drop: Option<f64>,
    /// Accuracies below this percentage fail.
    pub min_accuracy: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    level: Option<Spanned<f64>>,
    tolerated_drop: Option<Spanned<f64>>,
    max_drop: Option<Spanned<f64>>,
    min_accuracy: Option<Spanned<f64>>,
    #[serde(default)]
    dataset: BTreeMap<Spanned<String>, Table>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    tolerated_drop: Option<Spanned<f64>>,
    max_drop: Option<Spanned<f64>>,
    min_accuracy: Option<Spanned<f64>>,
}

impl Thresholds {
    /// A level of 0.05, and no significant drop of any dataset.
    pub fn strict(datasets: usize) -> Self {
        Self { level: LEVEL, limits: vec![Limits::default(); datasets] }
    }

    /// Those of a file for these datasets. What the table of a dataset does not state is as at the top of the file.
    ///
    /// # Errors
    /// An unreadable file; with its line, an unknown key or dataset and a number out of range.
    pub fn load(path: &Path, datasets: &[&str]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|cause| {
            Error::input(format!("cannot read the thresholds `{}`", path.display())).caused_by(cause)
        })?;
        Self::parse(&TomlText { title: format!("`{}`", path.display()), text }, datasets)
    }

    fn parse(text: &TomlText, datasets: &[&str]) -> Result<Self> {
        let file: File = text.parse()?;
        let number = |stated: &Option<Spanned<f64>>, low: f64, high: f64| match stated {
            Some(value) if (low..=high).contains(value.get_ref()) => Ok(Some(*value.get_ref())),
            Some(value) => {
                Err(text.wrong(value.span().start, format!("{} is not from {low} to {high}", value.get_ref())))
            }
            None => Ok(None),
        };
        let limits = |tolerated: &_, max: &_, min: &_, outer: Limits| {
            Ok::<_, Error>(Limits {
                tolerated_drop: number(tolerated, 0.0, 100.0)?.unwrap_or(outer.tolerated_drop),
                max_drop: number(max, 0.0, 100.0)?.or(outer.max_drop),
                min_accuracy: number(min, 0.0, 100.0)?.or(outer.min_accuracy),
            })
        };
        // A level of 0 or 1 asks nothing: no drop is found, or each one is.
        let level = number(&file.level, 1e-9, 0.5)?.unwrap_or(LEVEL);
        let top = limits(&file.tolerated_drop, &file.max_drop, &file.min_accuracy, Limits::default())?;
        let mut thresholds = Self { level, limits: vec![top; datasets.len()] };
        for (name, Table { tolerated_drop, max_drop, min_accuracy }) in &file.dataset {
            let known = text.look_up(name, |name| find_row(datasets, "dataset", name, |name| vec![name]))?;
            let own = limits(tolerated_drop, max_drop, min_accuracy, top)?;
            let named = datasets.iter().zip(&mut thresholds.limits).filter(|(name, _)| *name == known);
            named.for_each(|(_, limits)| *limits = own);
        }
        Ok(thresholds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Thresholds> {
        Thresholds::parse(&TomlText { title: "`gate.toml`".to_owned(), text: text.to_owned() }, &["near", "far"])
    }

    #[test]
    fn a_dataset_states_what_is_other_than_at_the_top() {
        let thresholds = parse(
            "level = 0.01\ntolerated-drop = 0.5\nmax-drop = 3\n[dataset.far]\nmax-drop = 10\nmin-accuracy = 20.5\n",
        )
        .unwrap();
        let near = Limits { tolerated_drop: 0.5, max_drop: Some(3.0), min_accuracy: None };
        let far = Limits { max_drop: Some(10.0), min_accuracy: Some(20.5), ..near };
        assert_eq!(thresholds, Thresholds { level: 0.01, limits: vec![near, far] });
        assert_eq!(parse("").unwrap(), Thresholds::strict(2));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let told = |text| parse(text).unwrap_err().to_string();
        assert_eq!(told("\nmax-drop = -1"), "`gate.toml`, line 2: -1 is not from 0 to 100");
        assert_eq!(told("level = 0"), "`gate.toml`, line 1: 0 is not from 0.000000001 to 0.5");
        assert_eq!(told("level = nan"), "`gate.toml`, line 1: NaN is not from 0.000000001 to 0.5");
        assert_eq!(told("level = 0.1\n[dataset.fra]\n"), "`gate.toml`, line 2: unknown dataset `fra`");
        assert!(told("[dataset.far]\nmaxdrop = 1").starts_with("`gate.toml`, line 2: unknown key `maxdrop`"));
        assert!(told("max_drop = 1").starts_with("`gate.toml`, line 1: unknown key `max_drop`"));
        let hint = parse("[dataset.farr]\n").unwrap_err().next_step().map(str::to_owned);
        assert_eq!(hint.as_deref(), Some("did you mean `far`? known: near, far"));
    }
}
