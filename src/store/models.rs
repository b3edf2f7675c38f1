//! Which models a store has results of, under the names they have in reports.

use rusqlite::{OptionalExtension, params};

use super::{DistanceSettings, DistanceSettingsId, SettingsId, Store};
use crate::error::{Error, Result};

/// A model and the settings its last results are filed under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredModel {
    /// Name in reports.
    pub name: String,
    /// Whether it was evaluated as one that was not fine-tuned.
    pub zero_shot: bool,
    /// Whether a reported set selected its weights.
    pub selected_on_reported: bool,
    /// Those of its answers, if it has answered.
    pub answers: Option<SettingsId>,
    /// Those of its distances, if they were measured.
    pub distances: Option<DistanceSettingsId>,
}

const UPSERT: &str = "INSERT INTO model (name, zero_shot, selected_on_reported, answers, distances)
    VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (name) DO UPDATE SET zero_shot = ?2, selected_on_reported = ?3,
        answers = coalesce(?4, answers), distances = coalesce(?5, distances)";

impl Store {
    /// Records under which settings the results of a model are filed, in place of what was recorded under its name before;
    /// settings that are not given stay.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn record_model(&mut self, model: &StoredModel) -> Result<()> {
        let StoredModel { name, zero_shot, selected_on_reported, answers, distances } = model;
        let (answers, distances) = (answers.map(|id| id.0), distances.map(|id| id.0));
        self.connection
            .execute(UPSERT, params![name, zero_shot, selected_on_reported, answers, distances])
            .map_err(|cause| self.failure("write to", cause))?;
        Ok(())
    }

    /// Every model, in the order in which they were first recorded.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn models(&self) -> Result<Vec<StoredModel>> {
        let select = || {
            let mut all = self.connection.prepare_cached(
                "SELECT name, zero_shot, selected_on_reported, answers, distances FROM model ORDER BY id",
            )?;
            let rows = all.query_map([], |row| {
                Ok(StoredModel {
                    name: row.get(0)?,
                    zero_shot: row.get(1)?,
                    selected_on_reported: row.get(2)?,
                    answers: row.get::<_, Option<i64>>(3)?.map(SettingsId),
                    distances: row.get::<_, Option<i64>>(4)?.map(DistanceSettingsId),
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<StoredModel>>>()
        };
        select().map_err(|cause| self.failure("read", cause))
    }

    /// What a model's distances were measured with.
    ///
    /// # Errors
    /// The store cannot be read, or holds no such settings.
    pub fn settings_of_distances(&self, id: DistanceSettingsId) -> Result<DistanceSettings> {
        let select = || {
            let mut one = self.connection.prepare_cached("SELECT json FROM distance_settings WHERE id = ?1")?;
            one.query_row([id.0], |row| row.get::<_, String>(0)).optional()
        };
        let json = select().map_err(|cause| self.failure("read", cause))?;
        let json = json.ok_or_else(|| Error::internal("the settings of distances are not in this store"))?;
        serde_json::from_str(&json)
            .map_err(|cause| Error::internal("the settings of distances in the store are damaged").caused_by(cause))
    }
}
