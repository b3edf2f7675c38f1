//! Raw answers in SQLite: what a model said, under which settings, and nothing derived from it; how far each question lay
//! from a reference; and the curves of training runs.
//!
//! The only room that names rusqlite. A store is one file with a write-ahead log beside it. A batch that
//! [`Store::commit`] has accepted survives the death of the process at any later moment; after a power
//! failure the newest batches may be missing, the file is never damaged. Several processes may write to one
//! store: they take turns. Scores and tables are computed elsewhere and never kept in place of answers.

mod answers;
mod contents;
mod curves;
mod digests;
mod distances;
mod folding;
mod models;
mod questions;
mod removal;
mod rescue;
mod schema;

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use crate::error::{Error, Result};
pub use answers::{AnswerSettings, SettingsId, StoredAnswer};
pub use curves::{CurvePoint, TrainingRunId};
pub use distances::{
    DistanceSettings, DistanceSettingsId, Distances, FeatureSettings, ReferenceSettings, StoredDistances,
};
pub use folding::{Fold, Folded, Tally, fold_into};
pub use models::{Maker, StoredModel};
pub use questions::QuestionSet;
pub use removal::{Removal, Removed};
pub use rescue::{LostRange, Readable, Rescued};

/// How long a process waits for its turn. A turn is one batch, which takes milliseconds, or one [`Store::fold`], which is a
/// single transaction and may take longer.
const BUSY_LIMIT: Duration = Duration::from_secs(60);

/// What every SQLite 3 file, and so every store, begins with (<https://www.sqlite.org/fileformat2.html>, section 1.3).
pub const FILE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Name of the store in the output folder of a run, and in the user's data folder.
pub const FILE_NAME: &str = "store.sqlite";

/// An open store.
///
/// Can be moved to another thread; threads that write at the same time open the file once each.
pub struct Store {
    connection: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens the store in the file `path`, which is created with its folders if it does not exist.
    ///
    /// # Errors
    /// The folder or file cannot be created or written; the file belongs to another program, is damaged, or
    /// was written by a newer version of this program. Such a file is left as it is.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = std::path::absolute(path.as_ref()).map_err(|cause| {
            Error::input(format!("`{}` cannot name a store", path.as_ref().display())).caused_by(cause)
        })?;
        create_folder(&path)?;
        refuse_other_formats(&path)?;
        // No URI flag: a name such as `file:x?mode=memory` is a name.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags);
        let connection = opened.map_err(|cause| failure(&path, "open", cause))?;
        let mut store = Self { connection, path };
        store.prepare()?;
        Ok(store)
    }

    /// Opens an existing store for reading alone, so that nothing of it has to be writable. One that an older program has made
    /// is brought up to date first, which writes to it.
    ///
    /// # Errors
    /// There is no such file; see [`Store::open`].
    pub fn open_to_read(path: impl AsRef<Path>) -> Result<Self> {
        let path = existing(path.as_ref())?;
        // A connection that could write removes the log beside the store when it ends; one that could not leaves it there.
        let opened = open_existing(&path, OpenFlags::SQLITE_OPEN_READ_WRITE);
        let (connection, state) = opened.map_err(|cause| failure(&path, "read", cause))?;
        state.check(&path)?;
        if state.outdated() {
            drop(connection);
            return Self::open(&path);
        }
        connection.pragma_update(None, "query_only", true).map_err(|cause| failure(&path, "read", cause))?;
        Ok(Self { connection, path })
    }

    /// Opens an existing store for reading and leaves its files as they are: of one that an older program has made, a copy in
    /// the file `copy` is brought up to date, and of one whose log somebody has left, a copy is read.
    ///
    /// # Errors
    /// As [`Store::open_to_read`]; `copy` cannot be written.
    pub fn open_unchanged(path: impl AsRef<Path>, copy: &Path) -> Result<Self> {
        let path = existing(path.as_ref())?;
        // Whoever uses a log keeps its index beside it. Where there is none, a reader would make one and leave it.
        let in_use = beside(&path, "-shm").exists();
        if !in_use && has_content(&path, "-wal") {
            copy_files(&path, copy)?;
            let copied = Self::open(copy).map_err(|error| error.within(format!("cannot read `{}`", path.display())))?;
            return Ok(Self { connection: copied.connection, path });
        }
        // A connection that could write removes the log that it has made when it ends, if nobody else has come to use it.
        let at_rest = !in_use && !has_log(&path);
        let access = if at_rest { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        let (connection, state) = open_existing(&path, access).map_err(|cause| failure(&path, "read", cause))?;
        state.check(&path)?;
        let mut store = Self { connection, path };
        if state.outdated() {
            let copied = store.connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()]);
            copied.map_err(|cause| store.failure("copy", cause))?;
            store.connection = Self::open(copy)?.connection;
        }
        let kept = store.connection.pragma_update(None, "query_only", true);
        kept.map_err(|cause| store.failure("read", cause))?;
        Ok(store)
    }

    /// Opens an existing store to read what can be read of it, and never writes to its files: of one that has a log, that an
    /// older program has made, or that was cut off, a copy in the folder `scratch` is opened.
    ///
    /// # Errors
    /// As [`Store::open_to_read`]; the copy cannot be written.
    pub fn open_to_rescue(path: impl AsRef<Path>, scratch: &Path) -> Result<Self> {
        let path = existing(path.as_ref())?;
        let length = length_before_cut(&path);
        if !has_log(&path) && length.is_none() {
            let opened = state_of(open_at_rest(&path));
            let (connection, state) = opened.map_err(|cause| failure(&path, "read", cause))?;
            state.check(&path)?;
            if !state.outdated() {
                return Ok(Self { connection, path });
            }
        }
        let copy = scratch.join("copy.sqlite");
        copy_files(&path, &copy)?;
        if let Some(length) = length {
            // SQLite opens no file that is shorter than it says itself; pages of zeros are damaged ones.
            let lengthened = fs::OpenOptions::new().write(true).open(&copy).and_then(|file| file.set_len(length));
            lengthened.map_err(|cause| copy_error(&path, cause))?;
        }
        let copied = Self::open(&copy).map_err(|error| error.within(format!("cannot read `{}`", path.display())))?;
        Ok(Self { connection: copied.connection, path })
    }

    fn prepare(&mut self) -> Result<()> {
        self.connection.busy_timeout(BUSY_LIMIT).map_err(|cause| self.failure("open", cause))?;
        let state = schema::State::of(&mut self.connection).map_err(|cause| self.failure("open", cause))?;
        state.check(&self.path)?;
        if self.connection.is_readonly("main").map_err(|cause| self.failure("open", cause))? {
            return Err(Error::input(format!("the store `{}` is not writable", self.path.display()))
                .hint("change the permissions of the file, or use another --store"));
        }
        choose_journal(&self.connection).map_err(|cause| self.failure("open", cause))?;
        let migrated = schema::migrate(&mut self.connection);
        migrated.map_err(|cause| self.failure("create", cause))
    }

    /// The file this store is kept in, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn number_of(&self, table: &str, json: &str) -> Result<i64> {
        text_number(&self.connection, table, json).map_err(|cause| self.failure("write to", cause))
    }

    fn failure(&self, verb: &str, cause: rusqlite::Error) -> Error {
        failure(&self.path, verb, cause)
    }
}

/// Where the write-ahead log of a store at rest cannot be made, as in a folder that is not writable, there is none to read
/// either.
fn open_existing(path: &Path, access: OpenFlags) -> rusqlite::Result<(Connection, schema::State)> {
    let opened = state_of(Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX));
    match opened {
        Err(cause)
            if matches!(cause.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                && !has_log(path) =>
        {
            state_of(open_at_rest(path))
        }
        opened => opened,
    }
}

fn state_of(connection: rusqlite::Result<Connection>) -> rusqlite::Result<(Connection, schema::State)> {
    let mut connection = connection?;
    connection.busy_timeout(BUSY_LIMIT)?;
    let state = schema::State::of(&mut connection)?;
    Ok((connection, state))
}

/// Opens a file that nobody writes to: nothing is locked, and no log is looked for or made.
fn open_at_rest(path: &Path) -> rusqlite::Result<Connection> {
    let name = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{name}?immutable=1"), flags)
}

/// Whether a log beside the file has something that the file may lack.
fn has_log(path: &Path) -> bool {
    has_content(path, "-wal") || has_content(path, "-journal")
}

fn has_content(path: &Path, suffix: &str) -> bool {
    fs::metadata(beside(path, suffix)).is_ok_and(|file| file.len() > 0)
}

/// The length that a file says it has, where it is shorter: page size and number of pages, where the program that has
/// written last knew of it (<https://www.sqlite.org/fileformat2.html>, section 1.3).
fn length_before_cut(path: &Path) -> Option<u64> {
    let mut header = [0; 100];
    let mut file = fs::File::open(path).ok()?;
    file.read_exact(&mut header).ok()?;
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 1 << 16,
        size => u64::from(size),
    };
    let length = page * u64::from(number(28));
    let is_valid = number(24) == number(92);
    (is_valid && file.metadata().ok()?.len() < length).then_some(length)
}

/// Copies a store with its log.
fn copy_files(path: &Path, copy: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-journal"] {
        let (from, to) = (beside(path, suffix), beside(copy, suffix));
        let copied = if from.is_file() { fs::copy(&from, &to).map(drop) } else { Ok(()) };
        copied.map_err(|cause| copy_error(&from, cause))?;
    }
    Ok(())
}

fn copy_error(from: &Path, cause: std::io::Error) -> Error {
    Error::input(format!("cannot copy `{}`, to read the copy", from.display()))
        .caused_by(cause)
        .hint("free some space in the folder for temporary files, or set TMPDIR to another one")
}

/// The file whose name has something more at its end.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The number of a JSON text in a table of texts, which is given to it on the first call. Waits for its turn only when there
/// is something to write.
fn text_number(connection: &Connection, table: &str, json: &str) -> rusqlite::Result<i64> {
    let find = || {
        let mut select = connection.prepare_cached(&format!("SELECT id FROM {table} WHERE json = ?1"))?;
        select.query_row([json], |row| row.get::<_, i64>(0)).optional()
    };
    if let Some(id) = find()? {
        return Ok(id);
    }
    connection.execute(&format!("INSERT OR IGNORE INTO {table} (json) VALUES (?1)"), [json])?;
    find()?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// The number of a dataset, which is given to it on the first call.
fn dataset_number(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.prepare_cached("INSERT OR IGNORE INTO dataset (name) VALUES (?1)")?.execute([name])?;
    connection.prepare_cached("SELECT id FROM dataset WHERE name = ?1")?.query_row([name], |row| row.get(0))
}

/// The store that a path names: itself, or the store in an output folder of a run.
pub fn store_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() }
}

/// The files of the store that a path names: itself, and what SQLite keeps beside it at times. Links to the store are followed.
pub fn store_files(path: &Path) -> [PathBuf; 4] {
    let path = store_file(path);
    let path = path.canonicalize().unwrap_or(path);
    ["", "-wal", "-shm", "-journal"].map(|suffix| beside(&path, suffix))
}

/// The absolute path of a file that may be a store.
fn existing(path: &Path) -> Result<PathBuf> {
    let hint = format!("`digrap-bench vqa --output DIR` keeps one in DIR/{FILE_NAME}");
    let file = store_file(path);
    let problem = match fs::metadata(&file) {
        Ok(found) if found.is_file() && found.len() > 0 => None,
        Ok(found) if found.is_file() => Some(format!("`{}` is empty: no store", file.display())),
        Ok(_) => Some(format!("`{}` is no file, and so no store", file.display())),
        Err(_) if path.is_dir() => Some(format!("the folder `{}` has no {FILE_NAME}", path.display())),
        Err(_) => Some(format!("there is no store `{}`", path.display())),
    };
    if let Some(problem) = problem {
        return Err(Error::input(problem).hint(hint));
    }
    let path = file;
    // SQLite keeps the log beside the file itself, wherever a link to it lies.
    let path = path
        .canonicalize()
        .map_err(|cause| Error::input(format!("`{}` cannot name a store", path.display())).caused_by(cause))?;
    refuse_other_formats(&path)?;
    Ok(path)
}

fn create_folder(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(|cause| {
        Error::input(format!("cannot create the folder `{}` of the store", folder.display()))
            .caused_by(cause)
            .hint("use another --store")
    })
}

/// SQLite itself would notice too, but only after it has looked for a journal to roll back into the file.
fn refuse_other_formats(path: &Path) -> Result<()> {
    let unreadable = |cause: std::io::Error| {
        let error = Error::input(format!("cannot read the store `{}`", path.display()));
        error.caused_by(cause).hint("use another --store")
    };
    let mut start = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(FILE_MAGIC.len() as u64).read_to_end(&mut start).map_err(unreadable)?,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(unreadable(cause)),
    };
    // An empty file is a store that another process is just creating.
    if start.is_empty() || start == FILE_MAGIC {
        return Ok(());
    }
    Err(Error::input(format!("`{}` is not a SQLite file", path.display())).hint("use another --store"))
}

/// Write-ahead log where the file system can share memory between processes, else a rollback journal, which
/// needs full synchronisation to survive a power failure undamaged.
fn choose_journal(connection: &Connection) -> rusqlite::Result<()> {
    let started = Instant::now();
    let mode = loop {
        // The switch does not honour the busy timeout while another process makes it as well.
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)) {
            Err(cause) if is_busy(&cause) && started.elapsed() < BUSY_LIMIT => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => break other?,
        }
    };
    connection.pragma_update(None, "synchronous", if mode == "wal" { "NORMAL" } else { "FULL" })
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn failure(path: &Path, verb: &str, cause: rusqlite::Error) -> Error {
    let path = path.display();
    let error = match cause.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::input(format!("the store `{path}` is damaged"))
                .hint("restore it from a copy, save what can be read with `digrap-bench runs export --rescue --store ... --format jsonl --output ...`, or use another --store")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::input(format!(
            "cannot {verb} the store `{path}`: another process has kept it locked for {} s",
            BUSY_LIMIT.as_secs()
        ))
        .hint("stop the other process, or use another --store"),
        Some(ErrorCode::DiskFull) => Error::input(format!("cannot {verb} the store `{path}`: the disk is full"))
            .hint("free some space and run the same command again; what was committed is kept"),
        Some(
            ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure,
        ) => Error::input(format!("cannot {verb} the store `{path}`"))
            .hint("check that the file and its folder are writable, or use another --store"),
        _ => Error::internal(format!("cannot {verb} the store `{path}`")),
    };
    error.caused_by(cause)
}
