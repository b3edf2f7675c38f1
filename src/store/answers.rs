//! Answers and the settings they were given under.

use rusqlite::{OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::error::{Error, Result};

/// Everything that decides an answer, apart from the question and the image.
///
/// Two runs with equal settings share their answers. Kept in a store once, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AnswerSettings {
    /// Digest of the weights.
    pub weights: String,
    /// Digest of the files that say how the weights are used.
    pub configuration: String,
    /// Digest of the tokenizer.
    pub tokenizer: String,
    /// Template that turns a question into a prompt.
    pub prompt: String,
    /// Search for the answer, such as `greedy` or `beam:5`.
    pub decoding: String,
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Number format of weights and computation.
    pub dtype: String,
    /// Execution provider, such as `cpu`.
    pub provider: String,
    /// Version of ONNX Runtime.
    pub runtime_version: String,
    /// How an image becomes a tensor.
    pub preprocessing: String,
    /// Version of this program.
    pub program_version: String,
}

/// Number of an [`AnswerSettings`] within one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SettingsId(pub(super) i64);

impl SettingsId {
    /// The number by which people name answers that no model has.
    pub fn number(self) -> i64 {
        self.0
    }
}

/// One raw answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// JSON text of the question's identifier, so that `7` and `"7"` differ.
    pub question_id: String,
    /// JSON text of the image's identifier.
    pub image_id: String,
    /// Fingerprint of what was asked: the text of the question and the stamp of the image file. An answer
    /// whose fingerprint no longer holds is out of date.
    pub content: u64,
    /// What the model said, untouched.
    pub answer: String,
}

const INSERT: &str = "INSERT OR REPLACE INTO answer (settings, dataset, question, image, content, answer)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const SELECT_ONE: &str = "SELECT content, answer FROM answer
    WHERE settings = ?1 AND dataset = (SELECT id FROM dataset WHERE name = ?2) AND question = ?3 AND image = ?4";

const SELECT_ALL: &str = "SELECT question, image, content, answer FROM answer
    WHERE settings = ?1 AND dataset = (SELECT id FROM dataset WHERE name = ?2) ORDER BY question, image";

impl Store {
    /// The number of these settings in this store, which is given to them on the first call.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn settings(&mut self, settings: &AnswerSettings) -> Result<SettingsId> {
        let json = serde_json::to_string(settings)
            .map_err(|cause| Error::internal("cannot write answer settings as JSON").caused_by(cause))?;
        self.number_of("settings", &json).map(SettingsId)
    }

    /// Records a batch of answers: all of them or, on an error, none. An answer to the same question about
    /// the same image is replaced.
    ///
    /// # Errors
    /// The store cannot be written, or `settings` are not of this store.
    pub fn commit(&mut self, settings: SettingsId, dataset: &str, answers: &[StoredAnswer]) -> Result<()> {
        self.insert(settings, dataset, answers).map_err(|cause| self.failure("write to", cause))
    }

    fn insert(&mut self, settings: SettingsId, dataset: &str, answers: &[StoredAnswer]) -> rusqlite::Result<()> {
        // Immediate: a transaction that starts as a reader cannot wait for its turn to write.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let dataset = super::dataset_number(&transaction, dataset)?;
            let mut insert = transaction.prepare_cached(INSERT)?;
            for answer in answers {
                let StoredAnswer { question_id, image_id, content, answer } = answer;
                insert.execute(params![settings.0, dataset, question_id, image_id, content.cast_signed(), answer])?;
            }
        }
        transaction.commit()
    }

    /// The fingerprint and text of the answer to one question about one image, if there is one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn answer(
        &self,
        settings: SettingsId,
        dataset: &str,
        question_id: &str,
        image_id: &str,
    ) -> Result<Option<(u64, String)>> {
        let select = || {
            let mut one = self.connection.prepare_cached(SELECT_ONE)?;
            one.query_row(params![settings.0, dataset, question_id, image_id], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
            })
            .optional()
        };
        select().map_err(|cause| self.failure("read", cause))
    }

    /// Hands every answer to `visit` as (question identifier, image identifier, fingerprint, answer), in the
    /// order of the identifiers as text. Holds one answer at a time and sees one state of the store, whatever
    /// other processes write meanwhile.
    ///
    /// # Errors
    /// The store cannot be read, or the first error of `visit`.
    pub fn for_each_answer(
        &self,
        settings: SettingsId,
        dataset: &str,
        mut visit: impl FnMut(&str, &str, u64, &str) -> Result<()>,
    ) -> Result<()> {
        let failed = |cause| self.failure("read", cause);
        let mut all = self.connection.prepare_cached(SELECT_ALL).map_err(failed)?;
        let mut rows = all.query(params![settings.0, dataset]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let text = |column: usize| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
            let content = row.get::<_, i64>(2).map_err(failed)?.cast_unsigned();
            visit(text(0).map_err(failed)?, text(1).map_err(failed)?, content, text(3).map_err(failed)?)?;
        }
        Ok(())
    }
}
