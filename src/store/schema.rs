//! The tables of a store, and whether a file is a store that this program may write to.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::{Error, Result};

/// Marks a file as ours (`application_id`): the letters `DgBn`.
const APPLICATION_ID: i32 = 0x4467_426e;

/// Entry `i` turns a store of version `i` into one of version `i + 1`; entries are only ever appended.
///
/// Settings and data set names are kept once and answers refer to them by number, so that an answer costs
/// little more than its text. The primary keys are the order on disk.
const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE settings (
        id INTEGER PRIMARY KEY,
        json TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE dataset (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE answer (
        settings INTEGER NOT NULL REFERENCES settings,
        dataset INTEGER NOT NULL REFERENCES dataset,
        question TEXT NOT NULL,
        image TEXT NOT NULL,
        content INTEGER NOT NULL,
        answer TEXT NOT NULL,
        PRIMARY KEY (settings, dataset, question, image)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE file_digest (
        path BLOB PRIMARY KEY NOT NULL,
        size INTEGER NOT NULL,
        modified_ns INTEGER NOT NULL,
        digest TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE training_run (
        id INTEGER PRIMARY KEY,
        json TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE training_curve (
        run INTEGER NOT NULL REFERENCES training_run,
        series TEXT NOT NULL,
        step INTEGER NOT NULL,
        value REAL NOT NULL,
        PRIMARY KEY (run, series, step)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE distance_settings (
        id INTEGER PRIMARY KEY,
        json TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE distance (
        settings INTEGER NOT NULL REFERENCES distance_settings,
        dataset INTEGER NOT NULL REFERENCES dataset,
        question_id TEXT NOT NULL,
        image_id TEXT NOT NULL,
        content INTEGER NOT NULL,
        vision REAL,
        question REAL,
        joint REAL,
        answer REAL,
        PRIMARY KEY (settings, dataset, question_id, image_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE model (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        weights TEXT NOT NULL,
        zero_shot INTEGER NOT NULL,
        selected_on_reported INTEGER NOT NULL,
        answers INTEGER REFERENCES settings,
        distances INTEGER REFERENCES distance_settings
    ) STRICT;
",
    "
    CREATE TABLE question_set (
        settings INTEGER NOT NULL REFERENCES settings,
        dataset INTEGER NOT NULL REFERENCES dataset,
        digest TEXT NOT NULL,
        n INTEGER NOT NULL,
        PRIMARY KEY (settings, dataset, digest)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE model ADD COLUMN training TEXT;
    ALTER TABLE model ADD COLUMN made_by TEXT;
",
];

const VERSION: usize = MIGRATIONS.len();

/// What a file says about itself.
pub(super) struct State {
    application: i32,
    version: usize,
    tables: usize,
}

impl State {
    /// The state at one moment: another process may be creating the tables meanwhile.
    pub(super) fn of(connection: &mut Connection) -> rusqlite::Result<Self> {
        Self::read(&*connection.transaction()?)
    }

    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0));
        Ok(Self {
            application: number("PRAGMA application_id")?,
            version: usize::try_from(number("PRAGMA user_version")?).unwrap_or(usize::MAX),
            tables: usize::try_from(number("SELECT count(*) FROM sqlite_schema")?).unwrap_or(usize::MAX),
        })
    }

    /// Whether an older program has made the store.
    pub(super) fn outdated(&self) -> bool {
        self.version < VERSION
    }

    /// Refuses other programs' databases and stores from the future.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let empty = self.application == 0 && self.version == 0 && self.tables == 0;
        if self.application != APPLICATION_ID && !empty {
            return Err(Error::input(format!("`{}` is a SQLite file of another program", path.display()))
                .hint("use another --store"));
        }
        if self.version > VERSION {
            return Err(Error::input(format!(
                "the store `{}` has version {}, this program reads up to version {VERSION}",
                path.display(),
                self.version
            ))
            .hint("update the program, or use another --store"));
        }
        Ok(())
    }
}

/// Brings a checked store to the current version; two processes may do so at once.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    if State::read(connection)?.version >= VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read again: while this process waited for its turn, the other one may have migrated.
    let version = State::read(&transaction)?.version;
    for step in MIGRATIONS.iter().skip(version) {
        transaction.execute_batch(step)?;
    }
    if version < VERSION {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION as i64)?;
    }
    transaction.commit()
}
