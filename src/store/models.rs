//! Which models a store has results of, under the names they have in reports.

use rusqlite::types::{ToSql, ToSqlOutput};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::{AnswerSettings, DistanceSettings, DistanceSettingsId, SettingsId, Store};
use crate::error::{Error, Result};

/// What made results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maker {
    /// Version of the program.
    pub version: String,
    /// The commit it was built from, if its build said so.
    pub commit: Option<String>,
    /// The command line, without the path of the program.
    pub command: String,
}

/// As JSON text.
impl ToSql for Maker {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let json = serde_json::to_string(self);
        json.map(ToSqlOutput::from).map_err(|cause| rusqlite::Error::ToSqlConversionFailure(cause.into()))
    }
}

/// A model and the settings its last results are filed under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredModel {
    /// Name in reports.
    pub name: String,
    /// Digest of the weights and of what says how they are used: a name may be given to another model later.
    pub weights: String,
    /// What it was trained with (the settings of its run as JSON text), if a run of this program made it.
    pub training: Option<String>,
    /// What made its last results; results that were all there already keep what made them.
    pub made_by: Option<Maker>,
    /// Whether it was evaluated as one that was not fine-tuned.
    pub zero_shot: bool,
    /// Whether a reported set selected its weights.
    pub selected_on_reported: bool,
    /// Those of its answers, if it has answered.
    pub answers: Option<SettingsId>,
    /// Those of its distances, if they were measured.
    pub distances: Option<DistanceSettingsId>,
}

const UPSERT: &str = "INSERT INTO model (name, weights, zero_shot, selected_on_reported, answers, distances, training,
        made_by)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (name) DO UPDATE SET
        zero_shot = iif(weights = ?2 AND ?5 IS NULL, zero_shot, ?3),
        selected_on_reported = ?4,
        answers = iif(weights = ?2, coalesce(?5, answers), ?5),
        distances = iif(weights = ?2, coalesce(?6, distances), ?6),
        weights = ?2,
        training = ?7,
        made_by = ?8";

const SELECT: &str =
    "SELECT name, weights, zero_shot, selected_on_reported, answers, distances, training, made_by FROM model";

impl Store {
    /// Records under which settings the results of a model are filed. Where its name stood for the same weights before,
    /// settings that are not given stay, and the mark of a zero-shot model changes with its answers alone; where it stood
    /// for others, nothing of these stays.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn record_model(&mut self, model: &StoredModel) -> Result<()> {
        write(&self.connection, model).map_err(|cause| self.failure("write to", cause))
    }

    /// Every model, in the order in which they were first recorded.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn models(&self) -> Result<Vec<StoredModel>> {
        let select = || {
            let mut all = self.connection.prepare_cached(&format!("{SELECT} ORDER BY id"))?;
            let rows = all.query_map([], model)?;
            rows.collect::<rusqlite::Result<Vec<StoredModel>>>()
        };
        select().map_err(|cause| self.failure("read", cause))
    }

    /// Whether there is any answer to a dataset's questions under these settings.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has_answers(&self, settings: SettingsId, dataset: &str) -> Result<bool> {
        self.has("answer", settings.0, dataset)
    }

    /// Whether there are distances of any question of a dataset under these settings.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has_distances(&self, settings: DistanceSettingsId, dataset: &str) -> Result<bool> {
        self.has("distance", settings.0, dataset)
    }

    fn has(&self, table: &str, settings: i64, dataset: &str) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM {table}
                WHERE settings = ?1 AND dataset = (SELECT id FROM dataset WHERE name = ?2))"
        );
        let select = || self.connection.prepare_cached(&sql)?.query_row(params![settings, dataset], |row| row.get(0));
        select().map_err(|cause| self.failure("read", cause))
    }

    /// What decided a model's answers.
    ///
    /// # Errors
    /// The store cannot be read, or holds no such settings.
    pub fn settings_of_answers(&self, id: SettingsId) -> Result<AnswerSettings> {
        self.settings_of("settings", "answers", id.0)
    }

    /// What a model's distances were measured with.
    ///
    /// # Errors
    /// The store cannot be read, or holds no such settings.
    pub fn settings_of_distances(&self, id: DistanceSettingsId) -> Result<DistanceSettings> {
        self.settings_of("distance_settings", "distances", id.0)
    }

    fn settings_of<T: serde::de::DeserializeOwned>(&self, table: &str, what: &str, id: i64) -> Result<T> {
        let select = || {
            let mut one = self.connection.prepare_cached(&format!("SELECT json FROM {table} WHERE id = ?1"))?;
            one.query_row([id], |row| row.get::<_, String>(0)).optional()
        };
        let json = select().map_err(|cause| self.failure("read", cause))?;
        let json = json.ok_or_else(|| Error::internal(format!("the settings of {what} are not in this store")))?;
        serde_json::from_str(&json).map_err(|cause| {
            Error::internal(format!("the settings of {what} in the store are damaged")).caused_by(cause)
        })
    }
}

/// See [`Store::record_model`].
pub(super) fn write(connection: &Connection, model: &StoredModel) -> rusqlite::Result<()> {
    let StoredModel { name, weights, training, made_by, zero_shot, selected_on_reported, answers, distances } = model;
    let (answers, distances) = (answers.map(|id| id.0), distances.map(|id| id.0));
    let row = params![name, weights, zero_shot, selected_on_reported, answers, distances, training, made_by];
    connection.execute(UPSERT, row).map(drop)
}

/// The model of this name.
pub(super) fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<StoredModel>> {
    connection.query_row(&format!("{SELECT} WHERE name = ?1"), [name], model).optional()
}

fn model(row: &Row) -> rusqlite::Result<StoredModel> {
    Ok(StoredModel {
        name: row.get(0)?,
        weights: row.get(1)?,
        training: row.get(6)?,
        made_by: row.get::<_, Option<String>>(7)?.and_then(|json| serde_json::from_str(&json).ok()),
        zero_shot: row.get(2)?,
        selected_on_reported: row.get(3)?,
        answers: row.get::<_, Option<i64>>(4)?.map(SettingsId),
        distances: row.get::<_, Option<i64>>(5)?.map(DistanceSettingsId),
    })
}
