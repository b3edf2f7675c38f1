//! Stores that earlier versions of this program made, as the SQL that made them.

use std::fs;
use std::path::{Path, PathBuf};

use digrap_bench::store::{AnswerSettings, Store};
use rusqlite::Connection;

/// The tables of version 1, 2 and 3: each version has those of the one before too.
const TABLES: [&str; 3] = [
    "CREATE TABLE settings (id INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE dataset (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE answer (settings INTEGER NOT NULL REFERENCES settings, dataset INTEGER NOT NULL REFERENCES dataset,
        question TEXT NOT NULL, image TEXT NOT NULL, content INTEGER NOT NULL, answer TEXT NOT NULL,
        PRIMARY KEY (settings, dataset, question, image)) STRICT, WITHOUT ROWID;
    CREATE TABLE file_digest (path BLOB PRIMARY KEY NOT NULL, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL,
        digest TEXT NOT NULL) STRICT, WITHOUT ROWID;
    PRAGMA application_id = 1147617902;",
    "CREATE TABLE training_run (id INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE training_curve (run INTEGER NOT NULL REFERENCES training_run, series TEXT NOT NULL,
        step INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (run, series, step)) STRICT, WITHOUT ROWID;",
    "CREATE TABLE distance_settings (id INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE distance (settings INTEGER NOT NULL REFERENCES distance_settings,
        dataset INTEGER NOT NULL REFERENCES dataset, question_id TEXT NOT NULL, image_id TEXT NOT NULL,
        content INTEGER NOT NULL, vision REAL, question REAL, joint REAL, answer REAL,
        PRIMARY KEY (settings, dataset, question_id, image_id)) STRICT, WITHOUT ROWID;
    CREATE TABLE model (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, weights TEXT NOT NULL,
        zero_shot INTEGER NOT NULL, selected_on_reported INTEGER NOT NULL, answers INTEGER REFERENCES settings,
        distances INTEGER REFERENCES distance_settings) STRICT;",
];

/// What is in each of these tables, by version.
const ROWS: [&str; 3] = [
    r#"INSERT INTO settings VALUES (7, '{"weights":"w","configuration":"c","tokenizer":"t","prompt":"{q}",
"decoding":"greedy","max_new_tokens":20,"dtype":"f32","provider":"cpu","runtime_version":"1.31.0",
"preprocessing":"p","program_version":"0.1.0"}');
    INSERT INTO dataset VALUES (3, 'easy-vqa');
    INSERT INTO answer VALUES (7, 3, '1', '"a"', -2, 'red'), (7, 3, '2', '"a"', 5, '');
    INSERT INTO file_digest VALUES (CAST('/weights' AS BLOB), 10, 20, 'abc');"#,
    r#"INSERT INTO training_run VALUES (4, '{"method":"digrap","subject":{"seed":3}}');
    INSERT INTO training_curve VALUES (4, 'loss', 1, 0.5), (4, 'loss', 2, 0.25);"#,
    r#"INSERT INTO distance_settings VALUES (2, '{"features":{"weights":"w","configuration":"c","tokenizer":"t",
"prompt":"{q}","vision_layer":"last","language_layer":"last","dtype":"f32","provider":"cpu","runtime_version":"1",
"preprocessing":"p","program_version":"0"},"reference":{"dataset":"train","questions":"d","n":3},"estimator":"e"}');
    INSERT INTO distance VALUES (2, 3, '1', '"a"', -2, 1.5, NULL, 2.5, NULL);
    INSERT INTO model VALUES (1, 'tuned', 'w c', 0, 1, 7, 2);"#,
];

/// A store of version 1, 2 or 3 in this folder, at rest.
pub fn old_store(folder: &Path, version: usize) -> PathBuf {
    let path = folder.join(format!("version-{version}.sqlite"));
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    for statements in TABLES[..version].iter().chain(&ROWS[..version]) {
        connection.execute_batch(statements).unwrap();
    }
    connection.pragma_update(None, "user_version", version as i64).unwrap();
    path
}

fn version_of(path: &Path) -> u32 {
    // `user_version` in the file format (https://www.sqlite.org/fileformat2.html, section 1.3).
    u32::from_be_bytes(fs::read(path).unwrap()[60..64].try_into().unwrap())
}

#[test]
fn stores_of_every_version_are_brought_forward() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path().join("new")).unwrap());
    let newest = version_of(&folder.path().join("new"));
    for version in 1..=TABLES.len() {
        let path = old_store(folder.path(), version);
        assert_eq!(version_of(&path), version as u32);
        let mut store = Store::open(&path).unwrap();
        let id = store.all_settings().unwrap()[0];
        let settings: AnswerSettings = store.settings_of_answers(id).unwrap();
        assert_eq!((settings.weights.as_str(), settings.max_new_tokens), ("w", 20));
        assert_eq!(store.answer(id, "easy-vqa", "1", "\"a\"").unwrap(), Some((u64::MAX - 1, "red".to_owned())));
        assert_eq!(store.answer(id, "easy-vqa", "2", "\"a\"").unwrap(), Some((5, String::new())));
        assert_eq!(store.digest(Path::new("/weights"), 10, 20).unwrap().as_deref(), Some("abc"));
        let runs = store.training_runs().unwrap();
        assert_eq!(runs.len(), usize::from(version >= 2), "version {version}");
        for (run, settings) in runs {
            assert_eq!(settings, r#"{"method":"digrap","subject":{"seed":3}}"#);
            assert_eq!(store.curve(run, "loss").unwrap(), [(1, 0.5), (2, 0.25)]);
        }
        let models = store.models().unwrap();
        assert_eq!(models.len(), usize::from(version >= 3), "version {version}");
        for model in models {
            assert_eq!((model.name.as_str(), model.selected_on_reported, model.answers), ("tuned", true, Some(id)));
            let distances = store.distances(model.distances.unwrap(), "easy-vqa", "1", "\"a\"").unwrap().unwrap().1;
            assert_eq!((distances.vision, distances.question, distances.joint), (Some(1.5), None, Some(2.5)));
        }
        assert_eq!(store.faults().unwrap(), [""; 0]);
        // What is new is there too.
        let run = store.training_run("{}").unwrap();
        assert_eq!(store.curve(run, "loss").unwrap(), []);
        assert_eq!(store.question_sets(id).unwrap(), []);
        drop(store);
        assert_eq!(version_of(&path), newest, "version {version}");
    }
}
