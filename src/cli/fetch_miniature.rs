//! `fetch miniature`: writes the sets of the miniature world as the official VQA files.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::Args;
use digrap_bench::data::DATASETS;
use digrap_bench::data::miniature::{Drawn, SEED, SETS, Set, files};
use digrap_bench::error::{Error, Result};
use serde::Serialize;

use super::progress::Progress;

/// Arguments of `fetch miniature`.
#[derive(Debug, Args)]
#[command(next_help_heading = "The miniature world as files (fetch miniature)")]
pub struct MiniatureArgs {
    /// Folder that gets a folder for each set, with questions.json, annotations.json and images
    #[arg(long, value_name = "DIR", conflicts_with_all = ["root", "verify"])]
    output: Option<PathBuf>,
    /// Sets to write [default: those that are evaluated; `miniature-training` and `miniature-broad-training` by name]
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

/// A set that was written.
#[derive(Debug, Serialize)]
struct Written {
    set: &'static str,
    questions: PathBuf,
    annotations: PathBuf,
    images: PathBuf,
    image_name: &'static str,
}

/// Writes the sets and prints how to evaluate them, or where they are as JSON.
pub fn run(args: &MiniatureArgs, output: &Path, json: bool) -> Result<()> {
    if !(0.0..=1.0).contains(&args.strength) {
        return Err(Error::input(format!("a strength cannot be {}", args.strength)).hint("it is between 0 and 1"));
    }
    let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let is_evaluated = |set: &&Set| DATASETS.iter().any(|row| row.name == set.name);
    let chosen: Vec<Drawn> = match args.set.as_slice() {
        [] => {
            let all = SETS.iter().filter(is_evaluated).filter(|set| args.seed == SEED || !set.is_selected());
            all.map(|set| Drawn::find(set.name, args.seed, args.strength)).collect::<Result<_>>()?
        }
        names => names.iter().map(|name| Drawn::find(name, args.seed, args.strength)).collect::<Result<_>>()?,
    };
    let mut progress = Progress::resumed(chosen.len() as u64, 0, "sets");
    let mut written = Vec::new();
    for (done, drawn) in (0..).zip(&chosen) {
        progress.set(done, drawn.set.name);
        let folder = output.join(drawn.set.name);
        drawn.write(&folder, threads)?;
        written.push(Written {
            set: drawn.set.name,
            questions: folder.join(files::QUESTIONS),
            annotations: folder.join(files::ANNOTATIONS),
            images: folder.join(files::IMAGES),
            image_name: files::IMAGE_NAME,
        });
    }
    progress.finish();
    if json { super::print_json(&written) } else { super::print(&written.iter().map(command).collect::<String>()) }
}

/// How to evaluate a set.
fn command(Written { questions, annotations, images, image_name, .. }: &Written) -> String {
    format!(
        "digrap-bench vqa --model M --questions {} --annotations {} --images {} --image-name '{image_name}'\n",
        questions.display(),
        annotations.display(),
        images.display(),
    )
}
