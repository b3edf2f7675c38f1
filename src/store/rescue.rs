//! Reads what can be read of a damaged store.

use rusqlite::{ErrorCode, params};

use super::{SettingsId, Store, StoredAnswer};
use crate::error::Result;

/// What was read of the answers to one dataset under one settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rescued {
    /// The answers, in the order of the identifiers as text.
    pub answers: Vec<StoredAnswer>,
    /// Where others were, if the store is damaged there.
    pub lost: Option<LostRange>,
}

/// A range that cannot be read, between two answers that can: question and image of each, as JSON texts. None is before the
/// first answer, or behind the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// The last answer before it.
    pub after: Option<(String, String)>,
    /// The first answer behind it.
    pub before: Option<(String, String)>,
}

impl Store {
    /// The answers to a dataset's questions as far as the pages that hold them are whole: from the first one on up to the
    /// first fault, and from the last one back to a fault.
    ///
    /// # Errors
    /// The store cannot be read for another reason than damage.
    pub fn rescue(&self, settings: SettingsId, dataset: &str) -> Result<Rescued> {
        let mut rescued = Rescued::default();
        let mut answers = Vec::new();
        if self.read_until_fault(settings, dataset, Direction::Forwards, &mut answers)? {
            return Ok(Rescued { answers, lost: None });
        }
        let after = answers.last().map(key);
        let mut behind = Vec::new();
        self.read_until_fault(settings, dataset, Direction::Backwards(after.clone()), &mut behind)?;
        behind.reverse();
        rescued.lost = Some(LostRange { after, before: behind.first().map(key) });
        rescued.answers = answers;
        rescued.answers.extend(behind);
        Ok(rescued)
    }

    /// Appends answers until there are no more, which is true, or until a fault, which is false.
    fn read_until_fault(
        &self,
        settings: SettingsId,
        dataset: &str,
        direction: Direction,
        answers: &mut Vec<StoredAnswer>,
    ) -> Result<bool> {
        let forwards = matches!(direction, Direction::Forwards);
        let order = if forwards { "question, image" } else { "question DESC, image DESC" };
        let sql = format!(
            "SELECT question, image, content, answer FROM answer
             WHERE settings = ?1 AND dataset = (SELECT id FROM dataset WHERE name = ?2) ORDER BY {order}"
        );
        let mut read = || {
            let mut all = self.connection.prepare(&sql)?;
            let mut rows = all.query(params![settings.0, dataset])?;
            while let Some(row) = rows.next()? {
                let content = row.get::<_, i64>(2)?.cast_unsigned();
                let answer =
                    StoredAnswer { question_id: row.get(0)?, image_id: row.get(1)?, content, answer: row.get(3)? };
                // A page that was overwritten by one of this store may read well and stand in no order.
                let ordered = answers.last().is_none_or(|last| (key(last) < key(&answer)) == forwards);
                let met = matches!(&direction, Direction::Backwards(Some(end)) if key(&answer) <= *end);
                if !ordered || met {
                    return Ok(false);
                }
                answers.push(answer);
            }
            Ok(true)
        };
        match read() {
            Err(cause) if is_damage(&cause) => Ok(false),
            outcome => outcome.map_err(|cause| self.failure("read", cause)),
        }
    }
}

enum Direction {
    Forwards,
    /// Down to this key, which was met from the other side.
    Backwards(Option<(String, String)>),
}

fn key(answer: &StoredAnswer) -> (String, String) {
    (answer.question_id.clone(), answer.image_id.clone())
}

/// Whether the error tells of a damaged page, or of a value that nobody has written.
fn is_damage(cause: &rusqlite::Error) -> bool {
    matches!(cause.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            cause,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..)
        )
}
