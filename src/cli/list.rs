//! `list`: the registries, as the library holds them.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::{Args, ValueEnum};
use digrap_bench::data::DATASETS;
use digrap_bench::error::Result;
use digrap_bench::model::{FAMILIES, text::PROMPTS};
use digrap_bench::score::METRICS;
use digrap_bench::train::METHODS;
use serde::Serialize;

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// One registry [default: all]
    registry: Option<Registry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Registry {
    Datasets,
    Methods,
    Metrics,
    Models,
    Prompts,
}

/// One row of a registry, as far as all of them have it.
#[derive(Debug, Serialize)]
struct Entry {
    name: &'static str,
    about: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    aliases: &'static [&'static str],
    /// Further facts by name.
    #[serde(flatten)]
    facts: BTreeMap<&'static str, String>,
    /// Those of them that the table shows, each on a line of its own.
    #[serde(skip)]
    shown: &'static [&'static str],
}

/// Prints one registry or all.
pub fn run(args: &ListArgs, json: bool) -> Result<()> {
    let chosen: Vec<Registry> = args.registry.map_or_else(|| Registry::value_variants().to_vec(), |one| vec![one]);
    let lists: BTreeMap<Registry, Vec<Entry>> =
        chosen.into_iter().map(|registry| (registry, entries(registry))).collect();
    if json { super::print_json(&lists) } else { super::print(&table(&lists)) }
}

fn entries(registry: Registry) -> Vec<Entry> {
    match registry {
        Registry::Datasets => DATASETS
            .iter()
            .map(|row| {
                let facts = [
                    ("licence", row.licence.to_owned()),
                    ("metric", row.metric.to_owned()),
                    ("questions", row.n.to_string()),
                    ("obtain", row.obtain.to_owned()),
                ];
                let shown = &["licence", "obtain"];
                Entry { name: row.name, about: row.about.to_owned(), aliases: &[], facts: facts.into(), shown }
            })
            .collect(),
        Registry::Methods => METHODS
            .iter()
            .map(|row| Entry {
                name: row.name,
                about: row.about.to_owned(),
                aliases: &[],
                facts: BTreeMap::new(),
                shown: &[],
            })
            .collect(),
        Registry::Metrics => METRICS
            .iter()
            .map(|row| Entry {
                name: row.name,
                about: row.about.to_owned(),
                aliases: row.aliases,
                facts: [("source", row.source.to_owned())].into(),
                shown: &["source"],
            })
            .collect(),
        Registry::Models => FAMILIES
            .iter()
            .map(|row| Entry {
                name: row.name,
                about: row.about.to_owned(),
                aliases: &[],
                facts: [("model_types", row.model_types.join(", "))].into(),
                shown: &[],
            })
            .collect(),
        Registry::Prompts => PROMPTS
            .iter()
            .map(|row| Entry {
                name: row.name,
                about: row.template.to_owned(),
                aliases: &[],
                facts: BTreeMap::new(),
                shown: &[],
            })
            .collect(),
    }
}

fn table(lists: &BTreeMap<Registry, Vec<Entry>>) -> String {
    let width = lists.values().flatten().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (registry, entries) in lists {
        let separator = if text.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{separator}{}",
            registry.to_possible_value().map_or(String::new(), |v| v.get_name().to_owned())
        );
        for entry in entries {
            let aliases =
                if entry.aliases.is_empty() { String::new() } else { format!(" (also: {})", entry.aliases.join(", ")) };
            let _ = writeln!(text, "  {:<width$}  {}{aliases}", entry.name, entry.about);
            for fact in entry.shown {
                let _ = writeln!(text, "  {:<width$}  {fact}: {}", "", entry.facts[fact]);
            }
        }
    }
    text
}
