//! `select-miniature`: the list of the questions of a selected set of the miniature world.

use std::path::PathBuf;

use clap::Args;
use digrap_bench::data::miniature::Selection;
use digrap_bench::data::results;
use digrap_bench::error::Result;

/// Arguments of `select-miniature`.
#[derive(Debug, Args)]
pub struct SelectArgs {
    /// The selected set
    set: String,
    /// Answers of models to the questions of the pool, for the set that models select
    #[arg(long, value_name = "FILE", num_args = 1..)]
    results: Vec<PathBuf>,
}

/// Prints the identifiers of the set's questions, one a line.
pub fn run(args: &SelectArgs) -> Result<()> {
    let selection = Selection::find(&args.set)?;
    let pool = selection.pool()?.dataset()?;
    let answers = args.results.iter().map(|path| results::load(path, &pool)).collect::<Result<Vec<_>>>()?;
    super::print(&selection.list(&answers)?)
}
