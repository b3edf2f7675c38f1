//! `list`: the registries, as the library holds them.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::{Args, ValueEnum};
use digrap_bench::data::{DATASETS, DatasetRow, Presence, State};
use digrap_bench::error::Result;
use digrap_bench::model::{FAMILIES, encoder::ENCODERS, text::PROMPTS};
use digrap_bench::score::{MEASURES, METRICS};
use digrap_bench::shift::VARIANTS;
use digrap_bench::suite::{MODALITIES, SUITES, Suite};
use digrap_bench::train::{METHODS, Method, Selection, Setting};
use serde::Serialize;
use serde_json::{Value, json};

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
    Encoders,
    Measures,
    Methods,
    Metrics,
    Modalities,
    Models,
    Prompts,
    Suites,
    Variants,
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
    facts: BTreeMap<&'static str, Value>,
    /// Further lines of the table.
    #[serde(skip)]
    lines: Vec<String>,
}

/// A setting of a method.
#[derive(Debug, Serialize)]
struct SettingEntry {
    name: &'static str,
    about: &'static str,
    /// What it can be, in words.
    values: String,
    /// A number or a word.
    default: Value,
}

/// Columns that descriptions of settings are broken to fit in.
const COLUMNS: usize = 120;

/// Prints one registry or all.
pub fn run(args: &ListArgs, json: bool) -> Result<()> {
    let chosen: Vec<Registry> = args.registry.map_or_else(|| Registry::value_variants().to_vec(), |one| vec![one]);
    let lists: BTreeMap<Registry, Vec<Entry>> =
        chosen.into_iter().map(|registry| Ok((registry, entries(registry)?))).collect::<Result<_>>()?;
    if json { super::print_json(&lists) } else { super::print(&table(&lists)) }
}

fn entries(registry: Registry) -> Result<Vec<Entry>> {
    Ok(match registry {
        Registry::Datasets => DATASETS.iter().map(dataset).collect::<Result<_>>()?,
        Registry::Encoders => ENCODERS
            .iter()
            .map(|row| Entry {
                facts: [("model_types", json!(row.model_types.join(", ")))].into(),
                ..entry(row.name, row.about)
            })
            .collect(),
        Registry::Measures => MEASURES
            .iter()
            .map(|row| Entry {
                facts: [("source", json!(row.source))].into(),
                lines: vec![format!("source: {}", row.source)],
                ..entry(row.name, row.about)
            })
            .collect(),
        Registry::Methods => METHODS.iter().map(method).collect(),
        Registry::Metrics => METRICS
            .iter()
            .map(|row| Entry {
                aliases: row.aliases,
                facts: [("source", json!(row.source))].into(),
                lines: vec![format!("source: {}", row.source)],
                ..entry(row.name, row.about)
            })
            .collect(),
        Registry::Modalities => MODALITIES.iter().map(|row| entry(row.name, row.about)).collect(),
        Registry::Models => FAMILIES
            .iter()
            .map(|row| Entry {
                facts: [("model_types", json!(row.model_types.join(", ")))].into(),
                ..entry(row.name, row.about)
            })
            .collect(),
        Registry::Prompts => PROMPTS.iter().map(|row| entry(row.name, row.template)).collect(),
        Registry::Suites => SUITES.iter().map(|row| suite(row.name)).collect::<Result<_>>()?,
        Registry::Variants => VARIANTS.iter().map(|row| entry(row.name, row.about)).collect(),
    })
}

fn entry(name: &'static str, about: &str) -> Entry {
    Entry { name, about: about.to_owned(), aliases: &[], facts: BTreeMap::new(), lines: Vec::new() }
}

/// What a dataset is, and what of it is in its folder.
fn dataset(row: &DatasetRow) -> Result<Entry> {
    let root = super::known::root_of(row, None)?;
    let Presence { state, missing, missing_for_training } = row.presence(&root)?;
    let state = match state {
        State::Present => "present",
        State::Incomplete => "incomplete",
        State::Missing => "missing",
    };
    let count = |n: Option<usize>| n.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let mut lines = vec![
        format!("questions: {}, images: {}, metric: {}", count(row.n), count(row.images), row.metric),
        format!("licence: {}", row.licence),
        format!("obtain: {}", row.obtain),
        format!(
            "state: {state}{}",
            if row.files.is_empty() { String::new() } else { format!(" in {}", root.display()) }
        ),
    ];
    lines.extend(missing.iter().map(|(path, why)| format!("lacks: {} ({why})", path.display())));
    lines.extend(missing_for_training.iter().map(|path| format!("lacks for training: {}", path.display())));
    let lacks = missing.iter().map(|(path, why)| json!({"path": path, "why": why})).collect::<Vec<_>>();
    Ok(Entry {
        facts: [
            ("licence", json!(row.licence)),
            ("metric", json!(row.metric)),
            ("questions", json!(row.n)),
            ("images", json!(row.images)),
            ("obtain", json!(row.obtain)),
            ("original", json!(row.original)),
            ("measures", json!(row.measures)),
            ("state", json!(state)),
            ("folder", json!(root)),
            ("lacks", json!(lacks)),
            ("lacks_for_training", json!(missing_for_training)),
        ]
        .into(),
        lines,
        ..entry(row.name, row.about)
    })
}

fn suite(name: &'static str) -> Result<Entry> {
    let suite = Suite::load(name)?;
    let shifts: Vec<String> =
        suite.datasets.iter().map(|dataset| format!("{} ({})", dataset.row.name, dataset.shift.name)).collect();
    let prompts = [("evaluation", suite.evaluation), ("training", suite.training), ("zero-shot", suite.zero_shot)];
    let named: Vec<String> = prompts.iter().map(|(purpose, prompt)| format!("{} for {purpose}", prompt.name)).collect();
    let names: BTreeMap<&str, &str> = prompts.iter().map(|(purpose, prompt)| (*purpose, prompt.name)).collect();
    Ok(Entry {
        facts: [("datasets", json!(shifts)), ("prompts", json!(names))].into(),
        lines: vec![format!("datasets: {}", shifts.join(", ")), format!("prompts: {}", named.join(", "))],
        ..entry(name, &suite.about)
    })
}

fn method(row: &Method) -> Entry {
    let selection = match row.selection {
        Selection::Chosen => "chosen",
        Selection::Head => "head",
        Selection::NormsAndHead => "norms+head",
    };
    let setting = |Setting { name, about, values }: &'static Setting| SettingEntry {
        name,
        about,
        values: values.to_string(),
        default: json!(values.default()),
    };
    let settings: Vec<SettingEntry> = row.settings.iter().map(setting).collect();
    let anchor = row.anchored.then(|| "holds an anchor (--anchor, --exclude)".to_owned());
    let strength = row.strength.map(|strength| format!("its strength is {strength} (--match-id)"));
    let described = row
        .settings
        .iter()
        .map(|Setting { name, about, values }| format!("{name}: {values} [default: {}]; {about}", values.default()));
    let overriding = row.overrides.iter().map(|(name, idle)| format!("{name} goes without {}", idle.join(", ")));
    Entry {
        lines: anchor.into_iter().chain(strength).chain(described).chain(overriding).collect(),
        facts: [
            ("settings", json!(settings)),
            ("anchored", json!(row.anchored)),
            ("selection", json!(selection)),
            ("strength", json!(row.strength)),
        ]
        .into(),
        ..entry(row.name, row.about)
    }
}

/// Breaks a line at spaces where it would go beyond the columns left of `indent`; what goes on is indented by two more.
fn wrapped(line: &str, indent: usize) -> String {
    let mut text = String::new();
    let mut column = indent;
    for word in line.split(' ') {
        let length = word.chars().count();
        if column > indent && column + 1 + length > COLUMNS {
            text.push_str(&format!("\n{:1$}", "", indent + 2));
            column = indent + 2;
        } else if column > indent {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
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
            let about = wrapped(&format!("{}{aliases}", entry.about), width + 4);
            let _ = writeln!(text, "  {:<width$}  {about}", entry.name);
            for line in &entry.lines {
                let line = if *registry == Registry::Methods { wrapped(line, width + 4) } else { line.clone() };
                let _ = writeln!(text, "  {:<width$}  {line}", "");
            }
        }
    }
    text
}
