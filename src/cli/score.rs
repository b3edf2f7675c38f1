//! `score`: the accuracy of a results file.

use std::path::PathBuf;

use clap::Args;
use digrap_bench::data::{results, vqa_json};
use digrap_bench::error::{Error, Result};
use digrap_bench::report;
use digrap_bench::score::{Measurement, ScoreOptions, Summary, score, summarise};
use digrap_bench::suite::{PlannedDataset, measure_alone};
use serde::Serialize;

use super::known;

/// Arguments of `score`.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// A known dataset, in place of `--questions` and `--annotations`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["questions", "annotations"])]
    dataset: Option<String>,
    /// Folder of the known dataset [default: that of the user's data]
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

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    summary: Summary,
    measures: Vec<Measurement>,
}

/// Scores the results and prints the table, or the JSON document.
pub fn run(args: &ScoreArgs, json: bool) -> Result<()> {
    let planned = load(args)?;
    let PlannedDataset { dataset, metric, .. } = &planned;
    let references = dataset.references.as_ref().ok_or_else(|| Error::input("the dataset has no human answers"))?;
    let answers = results::load(&args.results, dataset)?;
    let options = ScoreOptions { dict_equality: args.dict_equality };
    let scores = score(metric, options, &answers, references)?;
    let summary = summarise(metric, &scores, references, &dataset.clusters())?;
    let answers: Vec<&str> = answers.iter().map(|answer| &**answer).collect();
    let measures = measure_alone(&planned, &answers, &scores)?;
    if json {
        return super::print_json(&Document { summary, measures });
    }
    let portion = dataset.portion().map_or_else(String::new, |portion| report::portion(&dataset.name, portion));
    super::print(&(report::breakdown(&dataset.name, &summary, &measures) + &portion))
}

fn load(args: &ScoreArgs) -> Result<PlannedDataset> {
    let metric = args.metric.as_deref();
    if let Some(name) = &args.dataset {
        return known::dataset(name, args.root.as_deref(), metric);
    }
    let questions = args.questions.as_deref().ok_or_else(|| Error::input("neither --dataset nor --questions given"))?;
    let files = vqa_json::Files { questions, annotations: args.annotations.as_deref(), images: None, image_name: None };
    known::custom(files, metric)
}
