//! `fetch miniature`: writes the sets of the miniature world as the official VQA files.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::Args;
use digrap_bench::data::miniature::{Drawn, SEED, SETS, files};
use digrap_bench::error::{Error, Result};

/// Arguments of `fetch miniature`.
#[derive(Debug, Args)]
#[command(next_help_heading = "The miniature world as files (fetch miniature)")]
pub struct MiniatureArgs {
    /// Folder that gets a folder for each set, with questions.json, annotations.json and images
    #[arg(long, value_name = "DIR", conflicts_with_all = ["root", "verify"])]
    output: Option<PathBuf>,
    /// Sets to write [default: all but the pools]
    #[arg(long, value_name = "NAME", num_args = 1.., requires = "output")]
    set: Vec<String>,
    /// Seed of the world; the known datasets have that of the default
    #[arg(long, value_name = "N", default_value_t = SEED, requires = "output")]
    seed: u64,
    /// Share of the questions that is shifted, from 0 to 1; 0 gives the unshifted questions that a set was made from
    #[arg(long, value_name = "X", default_value_t = 1.0, requires = "output")]
    strength: f64,
}

impl MiniatureArgs {
    /// The folder to write to, if what is fetched is the miniature world.
    ///
    /// # Errors
    /// Input error where one of the two is given without the other.
    pub fn folder(&self, what: &[String]) -> Result<Option<&Path>> {
        let named = matches!(what, [name] if name == WORLD);
        match &self.output {
            Some(_) if !named => Err(Error::input("--output is for the miniature world alone")
                .hint("`fetch miniature --output DIR`; known datasets go to --root")),
            None if named => {
                Err(Error::input("the program makes the miniature world itself: there is nothing to fetch")
                    .hint("add --output DIR to write its sets as official VQA files"))
            }
            folder => Ok(folder.as_deref()),
        }
    }
}

/// What `fetch` calls all sets together.
const WORLD: &str = "miniature";

/// Writes the sets and prints how to evaluate one of them.
pub fn run(args: &MiniatureArgs, output: &Path) -> Result<()> {
    if !(0.0..=1.0).contains(&args.strength) {
        return Err(Error::input(format!("a strength cannot be {}", args.strength)).hint("it is between 0 and 1"));
    }
    let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let all: Vec<&str> = SETS.iter().map(|set| set.name).filter(|name| !name.ends_with("pool")).collect();
    let chosen = if args.set.is_empty() { all } else { args.set.iter().map(String::as_str).collect() };
    for name in &chosen {
        Drawn::find(name, args.seed, args.strength)?.write(&output.join(name), threads)?;
    }
    let folder = output.join(chosen.first().unwrap_or(&""));
    super::print(&format!(
        "digrap-bench vqa --model M --questions {} --annotations {} --images {} --image-name '{}'\n",
        folder.join(files::QUESTIONS).display(),
        folder.join(files::ANNOTATIONS).display(),
        folder.join(files::IMAGES).display(),
        files::IMAGE_NAME,
    ))
}
