//! Takes models and training runs out of a store, with what nothing else refers to.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Store, TrainingRunId};
use crate::error::{Error, Result};

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
    /// Removes models by name, with the answers and distances that no other model shares, and training runs with their
    /// curves: all of them or, on an error, none.
    ///
    /// # Errors
    /// Input error for a model or a run that is not in the store. The store cannot be written.
    pub fn remove(&mut self, models: &[&str], runs: &[TrainingRunId]) -> Result<Removed> {
        let path = self.path.clone();
        let failed = |cause| super::failure(&path, "write to", cause);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut removed = Removed::default();
        for name in models {
            if !remove_model(&transaction, name, &mut removed).map_err(failed)? {
                return Err(Error::input(format!("the store `{}` has no model `{name}`", path.display()))
                    .hint("`digrap-bench runs list` shows all of them"));
            }
        }
        for run in runs {
            removed.points +=
                transaction.execute("DELETE FROM training_curve WHERE run = ?1", [run.0]).map_err(failed)?;
            let deleted = transaction.execute("DELETE FROM training_run WHERE id = ?1", [run.0]).map_err(failed)?;
            if deleted == 0 {
                return Err(Error::input(format!("the store `{}` has no training run {}", path.display(), run.0))
                    .hint("`digrap-bench runs list` shows all of them"));
            }
            removed.training_runs += deleted;
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
    let shared = |column: &str, id: i64| {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM model WHERE {column} = ?1)");
        connection.query_row(&sql, [id], |row| row.get::<_, bool>(0))
    };
    if let Some(id) = answers
        && !shared("answers", id)?
    {
        removed.answers += connection.execute("DELETE FROM answer WHERE settings = ?1", params![id])?;
        connection.execute("DELETE FROM question_set WHERE settings = ?1", params![id])?;
        connection.execute("DELETE FROM settings WHERE id = ?1", params![id])?;
    }
    if let Some(id) = distances
        && !shared("distances", id)?
    {
        removed.distances += connection.execute("DELETE FROM distance WHERE settings = ?1", params![id])?;
        connection.execute("DELETE FROM distance_settings WHERE id = ?1", params![id])?;
    }
    Ok(true)
}
