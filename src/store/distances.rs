//! Distances of questions from a reference, and what they were measured with.

use rusqlite::{OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::error::{Error, Result};

/// Everything that decides a distance, apart from the question, the image and its answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DistanceSettings {
    /// What features depend on.
    pub features: FeatureSettings,
    /// The questions that the reference was fitted on.
    pub reference: ReferenceSettings,
    /// How the covariance was inverted and which distance was taken, such as `marginal, rtol 2.4e-4`.
    pub estimator: String,
}

/// Everything that decides a feature, apart from the question, the image and its answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FeatureSettings {
    /// Digest of the weights.
    pub weights: String,
    /// Digest of the files that say how the weights are used.
    pub configuration: String,
    /// Digest of the tokenizer.
    pub tokenizer: String,
    /// Template that turns a question into a prompt.
    pub prompt: String,
    /// Hidden state of the image alone.
    pub vision_layer: String,
    /// Hidden state of the question alone and of both.
    pub language_layer: String,
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

/// Which questions a reference was fitted on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReferenceSettings {
    /// Name of the dataset.
    pub dataset: String,
    /// Digest of the questions and their answers.
    pub questions: String,
    /// How many there are.
    pub n: usize,
}

/// Number of [`DistanceSettings`] within one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DistanceSettingsId(pub(super) i64);

/// The distances of one question from the reference, each without unit; none where there are no such features.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Distances {
    /// Of the image.
    pub vision: Option<f64>,
    /// Of the question.
    pub question: Option<f64>,
    /// Of both together.
    pub joint: Option<f64>,
    /// Of both and the answer, if people gave one.
    pub answer: Option<f64>,
}

/// Distances on their way into the store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDistances {
    /// JSON text of the question's identifier.
    pub question_id: String,
    /// JSON text of the image's identifier.
    pub image_id: String,
    /// Fingerprint of question, image and human answer.
    pub content: u64,
    /// The distances.
    pub distances: Distances,
}

const INSERT: &str = "INSERT OR REPLACE INTO distance
    (settings, dataset, question_id, image_id, content, vision, question, joint, answer)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

const SELECT_ONE: &str = "SELECT content, vision, question, joint, answer FROM distance
    WHERE settings = ?1 AND dataset = (SELECT id FROM dataset WHERE name = ?2) AND question_id = ?3 AND image_id = ?4";

const SELECT_ALL: &str = "SELECT vision, question, joint, answer FROM distance
    WHERE settings = ?1 AND dataset = (SELECT id FROM dataset WHERE name = ?2) ORDER BY question_id, image_id";

impl Store {
    /// The number of these settings in this store, which is given to them on the first call.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn distance_settings(&mut self, settings: &DistanceSettings) -> Result<DistanceSettingsId> {
        let json = serde_json::to_string(settings)
            .map_err(|cause| Error::internal("cannot write the settings of distances as JSON").caused_by(cause))?;
        self.number_of("distance_settings", &json).map(DistanceSettingsId)
    }

    /// Records the distances of a batch: all of them or, on an error, none. Those of the same question about the same
    /// image are replaced.
    ///
    /// # Errors
    /// The store cannot be written, or a distance is not a number.
    pub fn commit_distances(
        &mut self,
        settings: DistanceSettingsId,
        dataset: &str,
        batch: &[StoredDistances],
    ) -> Result<()> {
        self.insert_distances(settings, dataset, batch).map_err(|cause| self.failure("write to", cause))
    }

    fn insert_distances(
        &mut self,
        settings: DistanceSettingsId,
        dataset: &str,
        batch: &[StoredDistances],
    ) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let dataset = super::dataset_number(&transaction, dataset)?;
            let mut insert = transaction.prepare_cached(INSERT)?;
            for StoredDistances { question_id, image_id, content, distances } in batch {
                let Distances { vision, question, joint, answer } = distances;
                let content = content.cast_signed();
                let key = (settings.0, dataset, question_id, image_id, content);
                insert.execute(params![key.0, key.1, key.2, key.3, key.4, vision, question, joint, answer])?;
            }
        }
        transaction.commit()
    }

    /// The fingerprint and the distances of one question about one image, if they were measured.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn distances(
        &self,
        settings: DistanceSettingsId,
        dataset: &str,
        question_id: &str,
        image_id: &str,
    ) -> Result<Option<(u64, Distances)>> {
        let select = || {
            let mut one = self.connection.prepare_cached(SELECT_ONE)?;
            one.query_row(params![settings.0, dataset, question_id, image_id], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), measured(row, 1)?))
            })
            .optional()
        };
        select().map_err(|cause| self.failure("read", cause))
    }

    /// The distances of all questions of a dataset, in the order of their identifiers as text.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn all_distances(&self, settings: DistanceSettingsId, dataset: &str) -> Result<Vec<Distances>> {
        let select = || {
            let mut all = self.connection.prepare_cached(SELECT_ALL)?;
            let rows = all.query_map(params![settings.0, dataset], |row| measured(row, 0))?;
            rows.collect::<rusqlite::Result<Vec<Distances>>>()
        };
        select().map_err(|cause| self.failure("read", cause))
    }
}

/// The distances in four columns from this one on.
pub(super) fn measured(row: &rusqlite::Row, first: usize) -> rusqlite::Result<Distances> {
    let (vision, question) = (row.get(first)?, row.get(first + 1)?);
    Ok(Distances { vision, question, joint: row.get(first + 2)?, answer: row.get(first + 3)? })
}
