//! `score`: the accuracy of a results file.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use digrap_bench::data::{Dataset, find_dataset, results, vqa_json};
use digrap_bench::error::{Error, Result};
use digrap_bench::score::{Group, Metric, ScoreOptions, Summary, find_metric, score, summarise};

/// Arguments of `score`.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// A known dataset, in place of `--questions` and `--annotations`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["questions", "annotations"])]
    dataset: Option<String>,
    /// Folder of the known dataset [default: where `make setup` puts it]
    #[arg(long, value_name = "DIR", requires = "dataset")]
    root: Option<PathBuf>,
    /// Question file in the official VQA format
    #[arg(long, value_name = "FILE", required_unless_present = "dataset")]
    questions: Option<PathBuf>,
    /// Annotation file in the official VQA format
    #[arg(long, value_name = "FILE", required_unless_present = "dataset")]
    annotations: Option<PathBuf>,
    /// Results to score: [{"question_id": ..., "answer": "..."}, ...]
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
    /// How to compute accuracy [default: the dataset's own, else official-2021]
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Leave out equal answer objects together, as the official code and LAVIS do (matters without `answer_id`)
    #[arg(long)]
    dict_equality: bool,
}

/// Scores the results and prints the table, or the JSON document.
pub fn run(args: &ScoreArgs, json: bool) -> Result<()> {
    let (metric, dataset) = load(args)?;
    let references = dataset.references.as_ref().ok_or_else(|| Error::input("the dataset has no human answers"))?;
    let answers = results::load(&args.results, &dataset)?;
    let options = ScoreOptions { dict_equality: args.dict_equality };
    let scores = score(metric, options, &answers, references)?;
    let summary = summarise(metric, &scores, references, &dataset.clusters())?;
    if json { super::print_json(&summary) } else { super::print(&table(&summary)) }
}

fn load(args: &ScoreArgs) -> Result<(&'static Metric, Dataset)> {
    let named = args.metric.as_deref().map(find_metric).transpose()?;
    if let Some(name) = &args.dataset {
        let row = find_dataset(name)?;
        let metric = named.map_or_else(|| find_metric(row.metric), Ok)?;
        let root = match &args.root {
            Some(root) => root.clone(),
            None => super::machine::folders()?.data.join("datasets").join(row.name),
        };
        return Ok((metric, (row.load)(&root)?));
    }
    let metric = named.map_or_else(|| find_metric("official-2021"), Ok)?;
    let questions = args.questions.as_deref().ok_or_else(|| Error::input("neither --dataset nor --questions given"))?;
    let files = vqa_json::Files { questions, annotations: args.annotations.as_deref(), images: None, image_name: None };
    Ok((metric, vqa_json::load(files)?))
}

/// One line a group: name, count, accuracy and 95 % interval in percent.
fn table(summary: &Summary) -> String {
    let Summary { n, accuracy, interval, .. } = *summary;
    let named = |(name, group): (&String, &Group)| (name.clone(), *group);
    let sections = [
        (format!("accuracy ({})", summary.metric), vec![("all".to_owned(), Group { n, accuracy, interval })]),
        ("by answer type".to_owned(), summary.by_answer_type.iter().map(named).collect()),
        ("by question type".to_owned(), summary.by_question_type.iter().map(named).collect()),
    ];
    let names = sections.iter().flat_map(|(title, rows)| rows.iter().map(|(name, _)| name).chain([title]));
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (title, rows) in sections.iter().filter(|(_, rows)| !rows.is_empty()) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{title:<width$} {:>9} {:>7}  95 % interval", "n", "%");
        for (name, Group { n, accuracy, interval }) in rows {
            let accuracy = accuracy.map_or_else(|| "-".to_owned(), |accuracy| format!("{accuracy:.2}"));
            let interval = interval.map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:.2} to {high:.2}"));
            let _ = writeln!(text, "{name:<width$} {n:>9} {accuracy:>7}  {interval}");
        }
    }
    let _ = writeln!(text, "intervals clustered by image ({} images)", summary.clusters);
    text
}
