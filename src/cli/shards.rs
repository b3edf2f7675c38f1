//! `vqa` in several processes: which part falls to this one, and what it says of it.

use std::path::{Path, PathBuf};

use digrap_bench::error::Result;
use digrap_bench::hub::Lock;
use digrap_bench::suite::{Shard, ShardPart};
use indicatif::HumanCount;
use serde_json::json;

use super::progress::Progress;
use super::vqa::create_output;
use super::{machine, source};

/// The part that the arguments name, else the one that the environment does; none where the process answers all.
pub fn chosen(given: Option<&str>) -> Result<Option<Shard>> {
    let shard = match given {
        Some(text) => Some(text.parse()?),
        None => machine::shard()?.map(|(shard, told)| {
            Progress::say(None, &format!("shard {shard} by {told}; --shard 1/1 answers all questions"));
            shard
        }),
    };
    Ok(shard.filter(|shard: &Shard| shard.count() > 1))
}

/// The store of a shard, beside that of the whole.
pub fn store_of(whole: &Path, shard: Shard) -> PathBuf {
    beside(whole, &format!("{}-of-{}", shard.index(), shard.count()))
}

/// Whether a file has the name of a shard's store.
pub fn is_shard(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').any(|part| {
        part.split_once("-of-")
            .is_some_and(|(index, count)| index.parse::<usize>().is_ok() && count.parse::<usize>().is_ok())
    })
}

fn beside(whole: &Path, part: &str) -> PathBuf {
    let extension = whole.extension().map_or_else(String::new, |extension| format!(".{}", extension.to_string_lossy()));
    let stem = whole.file_stem().map_or_else(|| "store".into(), |stem| stem.to_string_lossy());
    whole.with_file_name(format!("{stem}.{part}{extension}"))
}

/// Writes what was used of the Hub, which is the same for all shards.
pub fn keep_locks(output: &Path, locks: &[Lock]) -> Result<()> {
    create_output(output)?;
    source::write_locks(output, locks)
}

/// Says what was answered and how the shards become one store.
pub fn print(shard: Shard, parts: &[ShardPart], [whole, own]: [&Path; 2], json: bool) -> Result<()> {
    let count = shard.count();
    if json {
        return super::print_json(&json!({"shard": shard.index(), "shards": count, "store": own, "parts": parts}));
    }
    let (answered, of) = parts.iter().fold((0, 0), |(answered, of), part| (answered + part.answered, of + part.of));
    let number = |count: usize| HumanCount(count as u64);
    let mut text = format!("shard {shard}: {} of {} questions answered\n", number(answered), number(of));
    for part in parts.iter().filter(|_| parts.len() > 1) {
        text += &format!("  {} on {}: {} of {}\n", part.model, part.dataset, number(part.answered), number(part.of));
    }
    let all = beside(whole, &format!("*-of-{count}"));
    text += &format!(
        "`digrap-bench runs import {} --store {}` folds the shards\n\
         then the same command with --shard 1/1 gives the tables: where paths, sizes or times of images differ from those that \
         a shard saw, it asks anew\n\
         `digrap-bench leaderboard --store {}` makes tables of the folded answers as they are, without the model\n",
        all.display(),
        whole.display(),
        whole.display()
    );
    super::print(&text)
}
