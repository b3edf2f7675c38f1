//! The folder of a run: its settings, metrics and checkpoints, so that a killed run goes on where it was.
//!
//! ```text
//! settings.json          what decides the result; written once
//! metrics.jsonl          one line per step, one per epoch with means by tensor, one per validation
//! checkpoint/<step>/     parameters.safetensors, state.safetensors, numbers.json, best.safetensors, checkpoint.json
//! ```
//!
//! A checkpoint is written under a hidden name, brought to the disk and then renamed; only then the one before it is
//! removed. Whatever is there under a number is therefore whole, and the highest number counts.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use safetensors::tensor::{Dtype, TensorView, View};
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::numbers::Numbers;
use crate::error::{Error, Result};
use crate::runtime::DeviceTensor;
use crate::tensor::{DType, Tensor};

/// Name of the file of a run's folder that says what decides its result.
pub const SETTINGS: &str = "settings.json";
const METRICS: &str = "metrics.jsonl";
const CHECKPOINTS: &str = "checkpoint";
const PARTIAL: &str = ".partial";
const PARAMETERS: &str = "parameters.safetensors";
const STATE: &str = "state.safetensors";
const NUMBERS: &str = "numbers.json";
const BEST: &str = "best.safetensors";
const ABOUT: &str = "checkpoint.json";

/// How long to wait for the lock of a run, and between two tries.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The folder of a run that this process has for itself.
pub(super) struct RunFolder {
    path: PathBuf,
    settings: String,
    /// Locked, which keeps other processes out.
    metrics: File,
    metrics_length: u64,
}

/// The validation with the highest score so far; of equal ones the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps before it.
    pub step: u64,
    /// The epoch it ended, from 0.
    pub epoch: u64,
    /// Its score.
    pub score: f64,
}

/// Where a run stands, beside its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Steps done.
    pub step: u64,
    /// The best validation.
    pub best: Option<Best>,
    metrics_length: u64,
    settings: String,
}

/// A checkpoint on the disk. Its tensors are read by name.
pub(super) struct Checkpoint {
    /// Where the run stands in it.
    pub standing: Standing,
    folder: PathBuf,
}

/// Tensors to be written, by name.
pub(super) type Named<'a> = Vec<(String, &'a DeviceTensor)>;

/// What a checkpoint holds.
pub(super) struct Kept<'a> {
    pub parameters: Named<'a>,
    /// What method and optimiser keep from step to step.
    pub state: Named<'a>,
    /// Numbers and sums by parameter.
    pub numbers: BTreeMap<String, [Numbers; 2]>,
}

impl RunFolder {
    /// Opens the folder of a run, making it where it is not there, and finds the newest checkpoint.
    ///
    /// # Errors
    ///
    /// Input error if another process is at work in it, or if it holds a checkpoint of a run with other `settings`: the
    /// message names the first key that differs.
    pub(super) fn open(path: &Path, settings: &Value) -> Result<(Self, Option<Checkpoint>)> {
        let within = |cause| Error::input(format!("cannot use the run folder `{}`", path.display())).caused_by(cause);
        fs::create_dir_all(path.join(CHECKPOINTS)).map_err(within)?;
        let metrics = File::options().create(true).append(true).open(path.join(METRICS)).map_err(within)?;
        // Held as long as the file is open.
        lock(&metrics).map_err(|error| match error {
            TryLockError::WouldBlock => Error::input(format!("another process is training in `{}`", path.display()))
                .hint("wait for it, or use another --output"),
            TryLockError::Error(cause) => within(cause),
        })?;
        let text = format!("{settings:#}\n");
        let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let newest = newest(path)?;
        check_settings(path, settings, &text, newest.is_some())?;
        let checkpoint = newest.map(|folder| read_standing(folder, &digest)).transpose()?;
        let metrics_length = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.standing.metrics_length);
        cut(&metrics, &path.join(METRICS), metrics_length)?;
        Ok((Self { path: path.to_owned(), settings: digest, metrics, metrics_length }, checkpoint))
    }

    /// Adds a line to the metrics.
    pub(super) fn log(&mut self, record: &Value) -> Result<()> {
        let line = format!("{record}\n");
        self.metrics_length += line.len() as u64;
        self.metrics.write_all(line.as_bytes()).map_err(|cause| self.cannot_write(METRICS, cause))
    }

    /// Writes a checkpoint and removes those before it.
    ///
    /// The parameters are also the best ones where `best` is of this step, else those are taken over from `before`.
    pub(super) fn save(
        &mut self,
        (step, best): (u64, Option<Best>),
        kept: &Kept,
        before: Option<&Checkpoint>,
    ) -> Result<Checkpoint> {
        self.metrics.sync_data().map_err(|cause| self.cannot_write(METRICS, cause))?;
        let checkpoints = self.path.join(CHECKPOINTS);
        let (partial, folder) = (checkpoints.join(PARTIAL), checkpoints.join(step.to_string()));
        let standing = Standing { step, best, metrics_length: self.metrics_length, settings: self.settings.clone() };
        let before = before.map(|checkpoint| checkpoint.folder.as_path());
        let written = remove(&partial).and_then(|()| write(&partial, &standing, kept, before));
        let placed = written.and_then(|()| {
            fs::rename(&partial, &folder)?;
            File::open(&checkpoints)?.sync_all()
        });
        placed.map_err(|cause| {
            // What was written so far only takes room that is scarce now.
            let _ = remove(&partial);
            self.cannot_write(&format!("{CHECKPOINTS}/{step}"), cause)
        })?;
        for (_, other) in numbered(&checkpoints).into_iter().filter(|(number, _)| *number != step) {
            remove(&other).map_err(|cause| self.cannot_write(CHECKPOINTS, cause))?;
        }
        Ok(Checkpoint { standing, folder })
    }

    fn cannot_write(&self, what: &str, cause: io::Error) -> Error {
        let error = Error::input(format!("cannot write `{}`", self.path.join(what).display()));
        let kept = "the checkpoint before it is whole: the same command goes on from there";
        let hint = match cause.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                format!("make room on the disk; {kept}")
            }
            _ => kept.to_owned(),
        };
        error.caused_by(cause).hint(hint)
    }
}

impl Checkpoint {
    /// The parameters it stands for in the end: those of the best validation, or its own where there was none.
    pub(super) fn chosen(&self) -> Result<BTreeMap<String, Tensor>> {
        read(&self.folder.join(if self.standing.best.is_some() { BEST } else { PARAMETERS }))
    }

    /// Its own parameters.
    pub(super) fn parameters(&self) -> Result<BTreeMap<String, Tensor>> {
        read(&self.folder.join(PARAMETERS))
    }

    /// What method and optimiser kept.
    pub(super) fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        read(&self.folder.join(STATE))
    }

    /// Numbers and sums by parameter.
    pub(super) fn numbers(&self) -> Result<BTreeMap<String, [Numbers; 2]>> {
        let path = self.folder.join(NUMBERS);
        let within = || Error::input(format!("cannot read `{}`", path.display())).hint(START_ANEW);
        let bytes = fs::read(&path).map_err(|cause| within().caused_by(cause))?;
        serde_json::from_slice(&bytes).map_err(|cause| within().caused_by(cause))
    }
}

/// Locks a file, and waits a moment where it is locked: a process that was just killed, or a child that another thread is
/// starting, may have it open still.
fn lock(file: &File) -> std::result::Result<(), TryLockError> {
    let end = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(LOCK_PAUSE),
            outcome => return outcome,
        }
    }
}

/// Writes the settings of a run without a loop into its folder.
///
/// # Errors
/// Input error if the folder is of other settings and `is_done`, or cannot be written.
pub fn state_settings(folder: &Path, settings: &Value, is_done: bool) -> Result<()> {
    check_settings(folder, settings, &format!("{settings:#}\n"), is_done)
}

/// Compares the settings with those of the folder, which has them from now on. Only a run with a checkpoint has
/// something to lose to other settings.
fn check_settings(folder: &Path, settings: &Value, text: &str, has_checkpoint: bool) -> Result<()> {
    let path = folder.join(SETTINGS);
    let unreadable = || Error::input(format!("cannot read `{}`", path.display()));
    match fs::read_to_string(&path) {
        Ok(known) if known == text => return Ok(()),
        Ok(known) if has_checkpoint => {
            let known: Value =
                serde_json::from_str(&known).map_err(|cause| unreadable().caused_by(cause).hint(OTHER_FOLDER))?;
            let difference = first_difference("", &known, settings).unwrap_or_else(|| "their form".to_owned());
            let folder = folder.display();
            return Err(
                Error::input(format!("the run in `{folder}` has other settings: {difference}")).hint(OTHER_FOLDER)
            );
        }
        Err(cause) if has_checkpoint => return Err(unreadable().caused_by(cause).hint(OTHER_FOLDER)),
        _ => {}
    }
    let hidden = folder.join(format!(".{SETTINGS}.tmp"));
    let written = fs::write(&hidden, text).and_then(|()| File::open(&hidden)?.sync_all());
    let placed = written.and_then(|()| fs::rename(&hidden, &path));
    placed.map_err(|cause| Error::input(format!("cannot write `{}`", path.display())).caused_by(cause))
}

/// Whether the folder of a run holds a checkpoint, so that the same command goes on with it.
pub fn has_checkpoint(folder: &Path) -> bool {
    !numbered(&folder.join(CHECKPOINTS)).is_empty()
}

/// The lines of the metrics of a run: one object per step (`step`, `epoch`, `loss`, `learning_rate`, `gradient_norm`,
/// `samples` and what the method records, as means over tensors), one per epoch (`step`, `epoch` and `tensors`: what the
/// method records by tensor, as means over steps) and one per validation (`step`, `epoch`, `validation`). Cosine, conflict
/// and distance are those before a step.
///
/// # Errors
/// Input error if they cannot be read.
pub fn metrics(folder: &Path) -> Result<Vec<Map<String, Value>>> {
    let path = folder.join(METRICS);
    let within = || Error::input(format!("cannot read `{}`", path.display()));
    let text = fs::read_to_string(&path).map_err(|cause| within().caused_by(cause))?;
    text.lines().map(|line| serde_json::from_str(line).map_err(|cause| within().caused_by(cause))).collect()
}

/// What to do about a checkpoint that cannot be used.
pub(super) const START_ANEW: &str = "remove the run folder, or use another --output";
const OTHER_FOLDER: &str = "use another --output, or the same settings to go on with this run";

/// The first key, in alphabetical order, whose values differ, with both.
fn first_difference(key: &str, known: &Value, given: &Value) -> Option<String> {
    if known == given {
        return None;
    }
    let (Value::Object(one), Value::Object(other)) = (known, given) else {
        return Some(format!("`{key}` was {known} and is {given} now"));
    };
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    keys.into_iter().find_map(|name| {
        let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        let value = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or(Value::Null);
        first_difference(&path, &value(one), &value(other))
    })
}

/// The folder of the newest checkpoint, after what a killed run has left beside it has been removed.
fn newest(folder: &Path) -> Result<Option<PathBuf>> {
    let checkpoints = folder.join(CHECKPOINTS);
    let mut all = numbered(&checkpoints);
    all.sort();
    let newest = all.pop().map(|(_, path)| path);
    for path in all.into_iter().map(|(_, path)| path).chain([checkpoints.join(PARTIAL)]) {
        remove(&path).map_err(|cause| Error::input(format!("cannot remove `{}`", path.display())).caused_by(cause))?;
    }
    Ok(newest)
}

/// Reads where the run stands in a checkpoint.
fn read_standing(folder: PathBuf, settings: &str) -> Result<Checkpoint> {
    let unreadable = || Error::input(format!("cannot read the checkpoint `{}`", folder.display())).hint(START_ANEW);
    let text = fs::read_to_string(folder.join(ABOUT)).map_err(|cause| unreadable().caused_by(cause))?;
    let standing: Standing = serde_json::from_str(&text).map_err(|cause| unreadable().caused_by(cause))?;
    if standing.settings != settings {
        let folder = folder.display();
        return Err(Error::input(format!("the checkpoint `{folder}` is of other settings")).hint(START_ANEW));
    }
    Ok(Checkpoint { standing, folder })
}

/// The checkpoints in a folder with their steps.
fn numbered(checkpoints: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(checkpoints).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect()
}

/// Removes a folder, if it is there.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// Cuts the metrics back to what they were at the last checkpoint.
fn cut(metrics: &File, path: &Path, length: u64) -> Result<()> {
    let within = |cause: io::Error| Error::input(format!("cannot write `{}`", path.display())).caused_by(cause);
    let found = metrics.metadata().map_err(within)?.len();
    if found < length {
        let path = path.display();
        return Err(Error::incomplete(format!("`{path}` has {found} bytes, {length} at the last checkpoint"))
            .hint("put the whole file back, or use another --output"));
    }
    if found == length { Ok(()) } else { metrics.set_len(length).map_err(within) }
}

fn write(folder: &Path, standing: &Standing, kept: &Kept, before: Option<&Path>) -> io::Result<()> {
    fs::create_dir(folder)?;
    write_tensors(&folder.join(PARAMETERS), &kept.parameters)?;
    write_tensors(&folder.join(STATE), &kept.state)?;
    write_json(&folder.join(NUMBERS), &kept.numbers)?;
    if let Some(best) = standing.best {
        let file = match before {
            Some(before) if best.step != standing.step => before.join(BEST),
            _ => folder.join(PARAMETERS),
        };
        link(&file, &folder.join(BEST))?;
    }
    write_json(&folder.join(ABOUT), standing)?;
    File::open(folder)?.sync_all()
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(serde_json::to_string_pretty(value)?.as_bytes())?;
    file.sync_all()
}

/// Gives a file a second name, or copies it where a disk has no such thing.
fn link(file: &Path, name: &Path) -> io::Result<()> {
    fs::hard_link(file, name).or_else(|_| {
        fs::copy(file, name)?;
        File::open(name)?.sync_all()
    })
}

fn write_tensors(path: &Path, tensors: &Named) -> io::Result<()> {
    let failure = RefCell::new(None);
    let stored = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), Stored { shape: tensor.shape(), tensor, failure: &failure }));
    safetensors::serialize_to_file(stored, None, path).map_err(|error| match error {
        SafeTensorError::IoError(cause) => cause,
        other => io::Error::other(other),
    })?;
    match failure.into_inner() {
        Some(error) => Err(io::Error::other(error)),
        None => File::open(path)?.sync_all(),
    }
}

/// An f32 tensor that is fetched from the device when the file has come to it, so that one copy exists at a time.
struct Stored<'a> {
    shape: Vec<usize>,
    tensor: &'a DeviceTensor,
    failure: &'a RefCell<Option<Error>>,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let tensor = self.tensor.to_host().unwrap_or_else(|error| {
            self.failure.replace(Some(error));
            Tensor::vector(vec![0f32; self.data_len() / DType::F32.size()])
        });
        Cow::Owned(tensor.to_bytes())
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * DType::F32.size()
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let within = || Error::input(format!("cannot read `{}`", path.display())).hint(START_ANEW);
    let bytes = fs::read(path).map_err(|cause| within().caused_by(cause))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|cause| within().caused_by(cause))?;
    let tensor =
        |(name, view): (String, TensorView)| Ok((name, Tensor::from_bytes(DType::F32, view.shape(), view.data())?));
    file.tensors().into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// A score that came back a little lower would take an equal one after it for better.
    #[test]
    fn scores_come_back_as_they_were() {
        let random = Random::new(7);
        for index in 0..10_000 {
            let best = Best { step: 1, epoch: 0, score: 100.0 * random.uniform(index) };
            let back: Best = serde_json::from_str(&serde_json::to_string_pretty(&best).unwrap()).unwrap();
            assert_eq!(back, best);
        }
    }
}
