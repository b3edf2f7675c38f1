//! What a store holds, counted, and whether it is whole.

use rusqlite::params;

use super::{DistanceSettingsId, SettingsId, Store};
use crate::error::Result;

/// Faults that [`Store::faults`] lists at most.
const FAULTS: u32 = 20;

/// Settings (`one`) that something refers to. A number stays with its settings when what referred to it is removed: another
/// process may still write under that number.
pub(super) const USED_SETTINGS: &str = "EXISTS (SELECT 1 FROM answer WHERE answer.settings = one.id)
    OR EXISTS (SELECT 1 FROM question_set WHERE question_set.settings = one.id)
    OR EXISTS (SELECT 1 FROM model WHERE model.answers = one.id)";

/// The same for settings of distances.
pub(super) const USED_DISTANCE_SETTINGS: &str = "EXISTS (SELECT 1 FROM distance WHERE distance.settings = one.id)
    OR EXISTS (SELECT 1 FROM model WHERE model.distances = one.id)";

/// The same for training runs.
pub(super) const USED_RUNS: &str = "EXISTS (SELECT 1 FROM training_curve WHERE training_curve.run = one.id)";

impl Store {
    /// What is wrong with the pages of the file, in SQLite's words, at most 20 lines; nothing of a store that is whole. Reads
    /// all of it.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn faults(&self) -> Result<Vec<String>> {
        let select = || {
            let mut check = self.connection.prepare(&format!("PRAGMA integrity_check({FAULTS})"))?;
            let lines = check.query_map([], |row| row.get::<_, String>(0))?;
            lines.collect::<rusqlite::Result<Vec<String>>>()
        };
        let mut lines = select().map_err(|cause| self.failure("read", cause))?;
        lines.retain(|line| line != "ok");
        Ok(lines)
    }

    /// All settings that answers were given under or questions were asked under, in the order in which they came.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn all_settings(&self) -> Result<Vec<SettingsId>> {
        let select = || {
            let sql = format!("SELECT id FROM settings AS one WHERE {USED_SETTINGS} ORDER BY id");
            let mut all = self.connection.prepare_cached(&sql)?;
            all.query_map([], |row| row.get(0).map(SettingsId))?.collect::<rusqlite::Result<Vec<_>>>()
        };
        select().map_err(|cause| self.failure("read", cause))
    }

    /// The names of all datasets with answers or distances, in the order in which they came.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn dataset_names(&self) -> Result<Vec<String>> {
        let select = || {
            let mut all = self.connection.prepare_cached("SELECT name FROM dataset ORDER BY id")?;
            all.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<_>>>()
        };
        select().map_err(|cause| self.failure("read", cause))
    }

    /// Datasets with answers under these settings, by name, and how many.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn answer_counts(&self, settings: SettingsId) -> Result<Vec<(String, usize)>> {
        self.counts("answer", settings.0)
    }

    /// Datasets with distances under these settings, by name, and of how many questions.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn distance_counts(&self, settings: DistanceSettingsId) -> Result<Vec<(String, usize)>> {
        self.counts("distance", settings.0)
    }

    fn counts(&self, table: &str, settings: i64) -> Result<Vec<(String, usize)>> {
        // Dataset by dataset, each of which is a range of the primary key.
        let sql = format!(
            "SELECT name, (SELECT count(*) FROM {table} WHERE settings = ?1 AND dataset = dataset.id) AS n
             FROM dataset ORDER BY name"
        );
        let select = || {
            let mut all = self.connection.prepare_cached(&sql)?;
            let rows = all.query_map(params![settings], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize)))?;
            rows.collect::<rusqlite::Result<Vec<(String, usize)>>>()
        };
        let mut counts = select().map_err(|cause| self.failure("read", cause))?;
        counts.retain(|(_, count)| *count > 0);
        Ok(counts)
    }
}
