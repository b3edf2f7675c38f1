//! Which questions a run is about, whether or not all of them have an answer yet.

use rusqlite::{Connection, params};

use super::{SettingsId, Store};
use crate::error::Result;

/// A set of questions that a model was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionSet {
    /// Name of the dataset.
    pub dataset: String,
    /// Digest of the questions, their identifiers and their human answers, in order.
    pub digest: String,
    /// How many there are.
    pub n: usize,
}

impl Store {
    /// Records which questions of a dataset are asked under these settings. Several sets of one dataset, such as the whole
    /// and its beginning, stand side by side.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn record_questions(&mut self, settings: SettingsId, set: &QuestionSet) -> Result<()> {
        insert(&self.connection, settings, set).map_err(|cause| self.failure("write to", cause))
    }

    /// The sets of questions that were asked under these settings, by dataset.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn question_sets(&self, settings: SettingsId) -> Result<Vec<QuestionSet>> {
        let select = || {
            let mut all = self.connection.prepare_cached(
                "SELECT dataset.name, digest, n FROM question_set JOIN dataset ON dataset.id = question_set.dataset
                 WHERE settings = ?1 ORDER BY dataset.name, n, digest",
            )?;
            let rows = all.query_map([settings.0], |row| {
                Ok(QuestionSet { dataset: row.get(0)?, digest: row.get(1)?, n: row.get::<_, i64>(2)? as usize })
            })?;
            rows.collect::<rusqlite::Result<Vec<QuestionSet>>>()
        };
        select().map_err(|cause| self.failure("read", cause))
    }
}

pub(super) fn insert(connection: &Connection, settings: SettingsId, set: &QuestionSet) -> rusqlite::Result<()> {
    let dataset = super::dataset_number(connection, &set.dataset)?;
    let mut insert = connection
        .prepare_cached("INSERT OR IGNORE INTO question_set (settings, dataset, digest, n) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute(params![settings.0, dataset, set.digest, set.n as i64]).map(drop)
}
