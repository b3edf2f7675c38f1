//! Takes models, answers and training runs out of a store, with what nothing else refers to.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{SettingsId, Store, TrainingRunId};
use crate::error::{Error, Result};

/// What is to be taken out of a store.
#[derive(Debug, Clone, Default)]
pub struct Removal<'a> {
    /// Models by name, with the answers and distances that no other model shares.
    pub models: Vec<&'a str>,
    /// Answers that no model has.
    pub answers: Vec<SettingsId>,
    /// Training runs with their curves.
    pub training_runs: Vec<TrainingRunId>,
}

/// How much was taken out of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// Models.
    pub models: usize,
    /// Training runs.
    pub training_runs: usize,
    /// Answers.
    pub answers: usize,
    /// Distances of questions.
    pub distances: usize,
    /// Points of curves.
    pub points: usize,
}

impl Store {
    /// Removes all that is named or, on an error, nothing. The rows of settings stay, so that none of their numbers is ever
    /// given to others: a process that still holds one may write under it, and what it writes is then listed again.
    ///
    /// # Errors
    /// Input error for something that is not in the store, and for answers that a model has. The store cannot be written.
    pub fn remove(&mut self, removal: &Removal) -> Result<Removed> {
        let path = self.path.clone();
        let failed = |cause| super::failure(&path, "write to", cause);
        let unknown = |what: String| {
            Error::input(format!("the store `{}` has no {what}", path.display()))
                .hint("`digrap-bench runs list` shows all of them")
        };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut removed = Removed::default();
        for name in &removal.models {
            if !remove_model(&transaction, name, &mut removed).map_err(failed)? {
                return Err(unknown(format!("model `{name}`")));
            }
        }
        for SettingsId(id) in &removal.answers {
            let answers = remove_answers(&transaction, *id).map_err(failed)?;
            removed.answers += answers.ok_or_else(|| unknown(format!("answers:{id} without a model")))?;
        }
        for TrainingRunId(id) in &removal.training_runs {
            let points = transaction.execute("DELETE FROM training_curve WHERE run = ?1", [id]).map_err(failed)?;
            if points == 0 {
                return Err(unknown(format!("training run {id}")));
            }
            removed.points += points;
            removed.training_runs += 1;
        }
        transaction.commit().map_err(failed)?;
        Ok(removed)
    }
}

/// Whether there was such a model.
fn remove_model(connection: &Connection, name: &str, removed: &mut Removed) -> rusqlite::Result<bool> {
    let find = "SELECT answers, distances FROM model WHERE name = ?1";
    let columns = |row: &rusqlite::Row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?));
    let Some((answers, distances)) = connection.query_row(find, [name], columns).optional()? else {
        return Ok(false);
    };
    removed.models += connection.execute("DELETE FROM model WHERE name = ?1", [name])?;
    if let Some(id) = answers {
        removed.answers += remove_answers(connection, id)?.unwrap_or(0);
    }
    if let Some(id) = distances
        && !is_shared(connection, "distances", id)?
    {
        removed.distances += connection.execute("DELETE FROM distance WHERE settings = ?1", params![id])?;
    }
    Ok(true)
}

/// The number of answers that were removed with what is known of their questions; none where a model has them, or where
/// neither is there.
fn remove_answers(connection: &Connection, id: i64) -> rusqlite::Result<Option<usize>> {
    if is_shared(connection, "answers", id)? {
        return Ok(None);
    }
    let answers = connection.execute("DELETE FROM answer WHERE settings = ?1", params![id])?;
    let sets = connection.execute("DELETE FROM question_set WHERE settings = ?1", params![id])?;
    Ok((answers + sets > 0).then_some(answers))
}

/// Whether a model refers to the settings.
fn is_shared(connection: &Connection, column: &str, id: i64) -> rusqlite::Result<bool> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM model WHERE {column} = ?1)");
    connection.query_row(&sql, [id], |row| row.get(0))
}
