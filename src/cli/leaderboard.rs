//! `leaderboard`: the results that stores hold, as tables and a page; no model is needed.

use std::path::{Path, PathBuf};

use clap::Args;
use digrap_bench::error::{Error, Result};
use digrap_bench::report;
use digrap_bench::report::figure::Figure;
use digrap_bench::report::page::{Page, PageEvent, write_page};
use digrap_bench::store::Store;
use digrap_bench::suite::{
    Leaderboard, PlannedDataset, Selection, StoredRun, Suite, leaderboard, samples, stored_runs, stored_strengths,
};

use super::figures::{LabelledRun, suite_figures};
use super::known;
use super::progress::Stages;
use super::vqa::{create_output, shorten, write_whole};

/// Arguments of `leaderboard`.
#[derive(Debug, Args)]
pub struct LeaderboardArgs {
    /// Stores of evaluated models, or output folders of `vqa`
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    store: Vec<PathBuf>,
    /// The suite that they were evaluated on: a known one (`list suites`), or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    suite: String,
    /// Folder with one folder for each dataset of the suite [default: that of the user's data]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Only the first N questions of each dataset, where only they were asked
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only these rows, by the name of a row or of a model
    #[arg(long, value_name = "NAME", num_args = 1..)]
    model: Vec<String>,
    /// Only rows of these methods
    #[arg(long, value_name = "NAME", num_args = 1..)]
    method: Vec<String>,
    /// Sort by this column, a dataset or an average, the best first [default: by method]
    #[arg(long, value_name = "COLUMN")]
    sort: Option<String>,
    /// Folder for leaderboard.md, leaderboard.csv, leaderboard.json and leaderboard.tex
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Folder for a page that opens from disk: index.html with tables and figures, and an explorer of single samples
    #[arg(long, value_name = "DIR")]
    html: Option<PathBuf>,
    /// Leave the images out of the page
    #[arg(long, requires = "html")]
    no_images: bool,
}

/// Writes the output folder and prints the table, or the JSON document.
pub fn run(args: &LeaderboardArgs, json: bool) -> Result<()> {
    check_apart(args)?;
    let suite = Suite::load(&args.suite)?;
    let mut datasets = known::suite(&suite, args.root.as_deref(), None)?;
    let limit = shorten(&mut datasets, args.limit);
    let (runs, stores) = stored(&args.store, &datasets)?;
    let selection = Selection { models: unmarked(&args.model), methods: args.method.clone(), sort: args.sort.clone() };
    let board = Leaderboard { limit, ..leaderboard(&suite, &datasets, &runs, &selection)? };
    let page = report::leaderboard(&board);
    if let Some(output) = &args.output {
        write(output, &board, &page)?;
    }
    if let Some(html) = &args.html {
        let figures = figures(&suite, &board, &runs, &stores, &selection)?;
        let samples = samples(&suite, &datasets, &runs, &board);
        write_html(html, &Page { board: &board, figures: &figures, samples: &samples, images: !args.no_images })?;
    }
    if json { super::print_json(&board) } else { super::print(&page) }
}

/// Names as tables show them, without their marks.
fn unmarked(names: &[String]) -> Vec<String> {
    names.iter().map(|name| report::unmarked(name).to_owned()).collect()
}

/// Refuses a page that would take the place of what else is read or written.
fn check_apart(args: &LeaderboardArgs) -> Result<()> {
    let Some(html) = &args.html else { return Ok(()) };
    let absolute = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_default();
    let within = |path: &&PathBuf| absolute(path).starts_with(absolute(html));
    match args.store.iter().chain(&args.output).find(within) {
        Some(path) => {
            Err(Error::input(format!("`{}` lies in `{}`, which the page replaces", path.display(), html.display()))
                .hint("give --html a folder of its own"))
        }
        None => Ok(()),
    }
}

/// What the stores hold about the datasets.
fn stored(paths: &[PathBuf], datasets: &[PlannedDataset]) -> Result<(Vec<StoredRun>, Vec<Store>)> {
    let (mut runs, mut stores) = (Vec::new(), Vec::new());
    for path in paths {
        let store = Store::open_to_read(path)?;
        runs.extend(stored_runs(&store, datasets)?);
        stores.push(store);
    }
    Ok((runs, stores))
}

/// The figures of what the board shows, under its names.
fn figures(
    suite: &Suite,
    board: &Leaderboard,
    runs: &[StoredRun],
    stores: &[Store],
    selection: &Selection,
) -> Result<Vec<(String, Figure)>> {
    let shown = board.entries.iter().flat_map(|entry| &entry.runs);
    let labelled: Vec<LabelledRun> =
        shown.map(|run| LabelledRun { label: &run.label, run: &runs[run.stored] }).collect();
    let mut strengths = stored_strengths(stores)?;
    if !selection.models.is_empty() || !selection.methods.is_empty() {
        strengths.retain(|one| board.entries.iter().any(|entry| one.method.is_some() && entry.method == one.method));
    }
    Ok(suite_figures(suite, &labelled, &strengths))
}

fn write_html(folder: &Path, page: &Page) -> Result<()> {
    let mut stages = Stages::default();
    let count = |number: usize| number as u64;
    write_page(page, folder, &mut |event| match event {
        PageEvent::Images { dataset, done, total } => {
            stages.set(&format!("images of {dataset}"), "images", count(done), count(total));
        }
        PageEvent::Samples { dataset, done, total } => {
            stages.set(&format!("samples of {dataset}"), "samples", count(done), count(total));
        }
        PageEvent::Unreadable { dataset, images, first, cause } => {
            stages.say(&format!(
                "{images} images of {dataset} cannot be read and are not in the page, the first of them {first}: {cause}"
            ));
        }
    })?;
    stages.finish();
    Ok(())
}

fn write(output: &Path, board: &Leaderboard, page: &str) -> Result<()> {
    create_output(output)?;
    let json = serde_json::to_string_pretty(board)
        .map_err(|cause| Error::internal("cannot write the leaderboard as JSON").caused_by(cause))?;
    write_whole(&output.join("leaderboard.md"), page)?;
    write_whole(&output.join("leaderboard.json"), json + "\n")?;
    write_whole(&output.join("leaderboard.csv"), report::leaderboard_csv(board)?)?;
    write_whole(&output.join("leaderboard.tex"), report::leaderboard_latex(board))
}
