//! Brings what other stores and files hold into one store: everything or nothing, and nothing twice.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

use super::contents::{USED_DISTANCE_SETTINGS, USED_RUNS, USED_SETTINGS};
use super::{
    AnswerSettings, FILE_NAME, Maker, QuestionSet, SettingsId, Store, StoredAnswer, create_folder, dataset_number,
    failure, text_number,
};
use crate::error::{Error, Result};

/// How much of something was brought in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// What the store did not have.
    pub new: usize,
    /// What it had already, alike.
    pub known: usize,
}

impl Tally {
    fn count(&mut self, new: bool) {
        let counter = if new { &mut self.new } else { &mut self.known };
        *counter += 1;
    }
}

/// How much was brought into a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Folded {
    /// Models.
    pub models: Tally,
    /// Answers.
    pub answers: Tally,
    /// Distances of questions.
    pub distances: Tally,
    /// Points of training curves.
    pub points: Tally,
}

/// A model on its way into a store: [`super::StoredModel`] with settings as they are in the store that takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldedModel {
    /// Name in reports.
    pub name: String,
    /// Digest of the weights and of what says how they are used.
    pub weights: String,
    /// What it was trained with.
    pub training: Option<String>,
    /// What made its last results, as JSON text.
    pub made_by: Option<String>,
    /// Whether it was evaluated as one that was not fine-tuned.
    pub zero_shot: bool,
    /// Whether a reported set selected its weights.
    pub selected_on_reported: bool,
    /// Settings of its answers, as JSON text.
    pub answers: Option<String>,
    /// Settings of its distances, as JSON text.
    pub distances: Option<String>,
}

/// A store that is being filled.
pub struct Fold<'a> {
    transaction: Transaction<'a>,
    path: &'a Path,
    /// What is being brought in, for messages.
    source: PathBuf,
    folded: Folded,
    conflicts: usize,
    first_conflict: Option<Conflict>,
}

/// Something that differs from what the store has.
struct Conflict {
    told: String,
    /// What it belongs to, as `runs rm` names it, where that is known.
    of: Option<String>,
}

/// The upper half of an answer's fingerprint is of the question's text.
const QUESTION_BITS: u32 = 32;

const ANSWER: &str = "SELECT content, answer FROM answer
    WHERE settings = ?1 AND dataset = ?2 AND question = ?3 AND image = ?4";

const NEW_ANSWER: &str = "INSERT OR IGNORE INTO answer (settings, dataset, question, image, content, answer)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const DISTANCE: &str = "SELECT vision, question, joint, answer FROM distance
    WHERE settings = ?1 AND dataset = ?2 AND question_id = ?3 AND image_id = ?4";

const NEW_DISTANCE: &str = "INSERT OR IGNORE INTO distance
    (settings, dataset, question_id, image_id, content, vision, question, joint, answer)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

const NEW_POINT: &str = "INSERT OR IGNORE INTO training_curve (run, series, step, value) VALUES (?1, ?2, ?3, ?4)";

const NEW_MODEL: &str = "INSERT OR REPLACE INTO model
    (id, name, weights, zero_shot, selected_on_reported, answers, distances, training, made_by)
    VALUES ((SELECT id FROM model WHERE name = ?1), ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

impl Store {
    /// Hands an empty transaction to `fill` and keeps what it brought in.
    ///
    /// # Errors
    /// Incomplete, with nothing kept, where something differs from what the store has under the same key: the message
    /// counts the conflicts and names the first. The first error of `fill`; the store cannot be written.
    pub fn fold(&mut self, fill: &mut dyn FnMut(&mut Fold) -> Result<()>) -> Result<Folded> {
        let path = self.path.clone();
        let failed = |cause| failure(&path, "write to", cause);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut fold = Fold {
            transaction,
            path: &path,
            source: PathBuf::new(),
            folded: Folded::default(),
            conflicts: 0,
            first_conflict: None,
        };
        fill(&mut fold)?;
        let Fold { transaction, folded, conflicts, first_conflict, .. } = fold;
        if let Some(Conflict { told, of }) = first_conflict {
            let more = if conflicts == 1 { String::new() } else { format!("{conflicts} conflicts, the first: ") };
            let of = of.unwrap_or_else(|| "NAME".to_owned());
            return Err(Error::incomplete(format!("nothing was imported into `{}`: {more}{told}", path.display()))
                .hint(format!(
                    "import into a store of its own, or take one side out of its store first: `digrap-bench runs rm {of}`"
                )));
        }
        transaction.commit().map_err(failed)?;
        Ok(folded)
    }
}

/// Folds into the store in the file `path`. One that is not there yet appears when all is in it, and never in place of one
/// that another process has made meanwhile.
///
/// # Errors
/// As [`Store::open`] and [`Store::fold`]; another process has made the store meanwhile.
pub fn fold_into(path: &Path, fill: &mut dyn FnMut(&mut Fold) -> Result<()>) -> Result<Folded> {
    if path.exists() {
        return Store::open(path)?.fold(fill);
    }
    let absolute = std::path::absolute(path)
        .map_err(|cause| Error::input(format!("`{}` cannot name a store", path.display())).caused_by(cause))?;
    create_folder(&absolute)?;
    let unwritable = |cause: std::io::Error| {
        Error::input(format!("cannot create the store `{}`", path.display()))
            .caused_by(cause)
            .hint("check that the folder is writable, or use another --store")
    };
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    // Beside its place, so that it gets there by a change of its name; gone with all that is in it on an error.
    let making = tempfile::Builder::new().prefix(".import-").tempdir_in(folder).map_err(unwritable)?;
    let made = making.path().join(FILE_NAME);
    let mut store = Store::open(&made)?;
    store.path.clone_from(&absolute);
    let folded = store.fold(fill)?;
    drop(store);
    tempfile::TempPath::try_from_path(&made).map_err(unwritable)?.persist_noclobber(&absolute).map_err(|failed| {
        if failed.error.kind() == std::io::ErrorKind::AlreadyExists {
            return Error::input(format!(
                "nothing was imported: another process has made `{}` meanwhile",
                path.display()
            ))
            .hint("run the same command again, to import into what is there now");
        }
        unwritable(failed.error)
    })?;
    Ok(folded)
}

impl Fold<'_> {
    /// States what is brought in from now on.
    pub fn begin(&mut self, source: &Path) {
        source.clone_into(&mut self.source);
    }

    /// Everything that another store holds at one moment, whatever is written to it meanwhile; but for the digests of files,
    /// which hold on one machine alone.
    ///
    /// # Errors
    /// Either store fails.
    pub fn store(&mut self, source: &Store) -> Result<()> {
        self.begin(source.path());
        let one_moment = source.connection.unchecked_transaction().map_err(|cause| source.failure("read", cause))?;
        self.all(source)?;
        one_moment.commit().map_err(|cause| source.failure("read", cause))
    }

    fn all(&mut self, source: &Store) -> Result<()> {
        let settings = self.texts(source, "settings", USED_SETTINGS)?;
        let distance_settings = self.texts(source, "distance_settings", USED_DISTANCE_SETTINGS)?;
        let runs = self.texts(source, "training_run", USED_RUNS)?;
        let datasets = self.datasets(source)?;
        self.all_answers(source, &settings, &datasets)?;
        self.all_distances(source, &distance_settings, &datasets)?;
        self.all_points(source, &runs)?;
        for id in source.all_settings()? {
            for set in source.question_sets(id)? {
                self.question_set(SettingsId(mapped(source, &settings, id.0)?), &set)?;
            }
        }
        for model in source.models()? {
            let text = |table: &str, id: Option<i64>| id.map(|id| text_of(source, table, id)).transpose();
            self.model(&FoldedModel {
                answers: text("settings", model.answers.map(|id| id.0))?,
                distances: text("distance_settings", model.distances.map(|id| id.0))?,
                name: model.name,
                weights: model.weights,
                training: model.training,
                made_by: model.made_by.as_ref().map(made_by_text).transpose()?,
                zero_shot: model.zero_shot,
                selected_on_reported: model.selected_on_reported,
            })?;
        }
        Ok(())
    }

    /// The number of settings in the store that is filled.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn settings(&self, settings: &AnswerSettings) -> Result<SettingsId> {
        let json = serde_json::to_string(settings)
            .map_err(|cause| Error::internal("cannot write answer settings as JSON").caused_by(cause))?;
        self.number("settings", &json).map(SettingsId)
    }

    /// One answer.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn answer(&mut self, settings: SettingsId, dataset: &str, answer: &StoredAnswer) -> Result<()> {
        let number = dataset_number(&self.transaction, dataset).map_err(|cause| self.failure(cause))?;
        self.answer_of(settings.0, (number, dataset), answer)
    }

    /// Which questions were asked.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn question_set(&mut self, settings: SettingsId, set: &QuestionSet) -> Result<()> {
        super::questions::insert(&self.transaction, settings, set).map_err(|cause| self.failure(cause))
    }

    /// A model. What one side alone knows of it is kept.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn model(&mut self, model: &FoldedModel) -> Result<()> {
        let known = self.known_model(&model.name).map_err(|cause| self.failure(cause))?;
        if let Some(what) = known.as_ref().and_then(|known| difference(known, model)) {
            let (name, source) = (&model.name, self.source.display());
            let told = format!("the model `{name}` of `{source}` {what}");
            let of = Some(format!("{name} --store {source}"));
            self.conflict(|_| Conflict { told, of });
            return Ok(());
        }
        let known = known.as_ref();
        let number = |table, json: Option<&String>| json.map(|json| self.number(table, json)).transpose();
        let answers = number("settings", model.answers.as_ref().or(known.and_then(|known| known.answers.as_ref())))?;
        let distances =
            number("distance_settings", model.distances.as_ref().or(known.and_then(|known| known.distances.as_ref())))?;
        // Of two texts the lesser, so that the order of imports changes nothing.
        let lesser = |of: fn(&FoldedModel) -> Option<&String>| {
            let known = known.and_then(of);
            known.into_iter().chain(of(model)).min()
        };
        let training = lesser(|model| model.training.as_ref());
        let made_by = lesser(|model| model.made_by.as_ref());
        let reported = model.selected_on_reported || known.is_some_and(|known| known.selected_on_reported);
        let row = params![model.name, model.weights, model.zero_shot, reported, answers, distances, training, made_by];
        self.transaction.execute(NEW_MODEL, row).map_err(|cause| self.failure(cause))?;
        self.folded.models.count(known.is_none());
        Ok(())
    }

    fn known_model(&self, name: &str) -> rusqlite::Result<Option<FoldedModel>> {
        let sql = "SELECT name, weights, training, zero_shot, selected_on_reported,
                (SELECT json FROM settings WHERE id = answers), (SELECT json FROM distance_settings WHERE id = distances),
                made_by
            FROM model WHERE name = ?1";
        let model = |row: &rusqlite::Row| {
            Ok(FoldedModel {
                name: row.get(0)?,
                weights: row.get(1)?,
                training: row.get(2)?,
                zero_shot: row.get(3)?,
                selected_on_reported: row.get(4)?,
                answers: row.get(5)?,
                distances: row.get(6)?,
                made_by: row.get(7)?,
            })
        };
        self.transaction.query_row(sql, [name], model).optional()
    }

    /// The texts of a table of the source that something refers to, as numbers of the source and of the store that is filled.
    fn texts(&self, source: &Store, table: &str, used: &str) -> Result<HashMap<i64, i64>> {
        let select = || {
            let sql = format!("SELECT id, json FROM {table} AS one WHERE {used} ORDER BY id");
            let mut all = source.connection.prepare(&sql)?;
            let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(i64, String)>>>()
        };
        let texts = select().map_err(|cause| source.failure("read", cause))?;
        texts.into_iter().map(|(id, json)| Ok((id, self.number(table, &json)?))).collect()
    }

    /// The datasets of the source by their number there: number here, and name.
    fn datasets(&self, source: &Store) -> Result<HashMap<i64, (i64, String)>> {
        let select = || {
            let mut all = source.connection.prepare("SELECT id, name FROM dataset ORDER BY id")?;
            let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(i64, String)>>>()
        };
        let datasets = select().map_err(|cause| source.failure("read", cause))?;
        let number = |(id, name): (i64, String)| {
            let number = dataset_number(&self.transaction, &name).map_err(|cause| self.failure(cause))?;
            Ok((id, (number, name)))
        };
        datasets.into_iter().map(number).collect()
    }

    fn all_answers(
        &mut self,
        source: &Store,
        settings: &HashMap<i64, i64>,
        datasets: &HashMap<i64, (i64, String)>,
    ) -> Result<()> {
        let failed = |cause| source.failure("read", cause);
        let sql = "SELECT settings, dataset, question, image, content, answer FROM answer";
        let mut all = source.connection.prepare(sql).map_err(failed)?;
        let mut rows = all.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let answer = || {
                let content = row.get::<_, i64>(4)?.cast_unsigned();
                let answer =
                    StoredAnswer { question_id: row.get(2)?, image_id: row.get(3)?, content, answer: row.get(5)? };
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, answer))
            };
            let (of, dataset, answer) = answer().map_err(failed)?;
            let (number, name) = mapped(source, datasets, dataset)?;
            self.answer_of(mapped(source, settings, of)?, (number, &name), &answer)?;
        }
        Ok(())
    }

    fn answer_of(&mut self, settings: i64, (number, dataset): (i64, &str), answer: &StoredAnswer) -> Result<()> {
        let StoredAnswer { question_id, image_id, content, answer: text } = answer;
        let insert = || {
            let mut insert = self.transaction.prepare_cached(NEW_ANSWER)?;
            let row = params![settings, number, question_id, image_id, content.cast_signed(), text];
            if insert.execute(row)? > 0 {
                return Ok(None);
            }
            let mut select = self.transaction.prepare_cached(ANSWER)?;
            let known = |row: &rusqlite::Row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, String>(1)?));
            select.query_row(params![settings, number, question_id, image_id], known).map(Some)
        };
        let known = insert().map_err(|cause| self.failure(cause))?;
        let question = format_args!("question {question_id} about image {image_id} of `{dataset}`");
        let what = match &known {
            Some((_, known)) if known != text => format!("{question} has the answer `{known}`, and `{text}`"),
            Some((known, _)) if known >> QUESTION_BITS != content >> QUESTION_BITS => {
                format!("{question} has the same answer to another wording")
            }
            _ => {
                self.folded.answers.count(known.is_none());
                return Ok(());
            }
        };
        self.conflict(|fold| Conflict {
            told: format!("{what} in `{}`", fold.source.display()),
            of: fold.owner("answers", settings),
        });
        Ok(())
    }

    /// The model that has these answers or distances, as it is named to take it out of the store that is being read.
    fn owner(&self, column: &str, settings: i64) -> Option<String> {
        let sql = format!("SELECT name FROM model WHERE {column} = ?1 ORDER BY id LIMIT 1");
        let name: String = self.transaction.query_row(&sql, [settings], |row| row.get(0)).ok()?;
        Some(format!("{name} --store {}", self.source.display()))
    }

    fn all_distances(
        &mut self,
        source: &Store,
        settings: &HashMap<i64, i64>,
        datasets: &HashMap<i64, (i64, String)>,
    ) -> Result<()> {
        let failed = |cause| source.failure("read", cause);
        let sql =
            "SELECT settings, dataset, question_id, image_id, content, vision, question, joint, answer FROM distance";
        let mut all = source.connection.prepare(sql).map_err(failed)?;
        let mut rows = all.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let measured = |first: usize| -> rusqlite::Result<[Option<f64>; 4]> {
                Ok([row.get(first)?, row.get(first + 1)?, row.get(first + 2)?, row.get(first + 3)?])
            };
            let key = || Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
            let (of, dataset, question, image, content): (_, _, String, String, i64) = key().map_err(failed)?;
            let values = measured(5).map_err(failed)?;
            let (number, name) = mapped(source, datasets, dataset)?;
            let place = (mapped(source, settings, of)?, number);
            let known =
                self.distance_of(place, (&question, &image, content), values).map_err(|cause| self.failure(cause))?;
            match known {
                Some(known) if known != values => {
                    self.conflict(|fold| Conflict {
                        told: format!(
                            "question {question} about image {image} of `{name}` has other distances in `{}`",
                            fold.source.display()
                        ),
                        of: fold.owner("distances", place.0),
                    });
                }
                known => self.folded.distances.count(known.is_none()),
            }
        }
        Ok(())
    }

    /// The distances that were there already, if there were any.
    fn distance_of(
        &self,
        (settings, dataset): (i64, i64),
        (question, image, content): (&str, &str, i64),
        [vision, of_question, joint, answer]: [Option<f64>; 4],
    ) -> rusqlite::Result<Option<[Option<f64>; 4]>> {
        let mut insert = self.transaction.prepare_cached(NEW_DISTANCE)?;
        let row = params![settings, dataset, question, image, content, vision, of_question, joint, answer];
        if insert.execute(row)? > 0 {
            return Ok(None);
        }
        let mut select = self.transaction.prepare_cached(DISTANCE)?;
        select
            .query_row(params![settings, dataset, question, image], |row| {
                Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
            })
            .map(Some)
    }

    fn all_points(&mut self, source: &Store, runs: &HashMap<i64, i64>) -> Result<()> {
        let failed = |cause| source.failure("read", cause);
        let mut all =
            source.connection.prepare("SELECT run, series, step, value FROM training_curve").map_err(failed)?;
        let mut rows = all.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let point = || Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            let (run, series, step, value): (_, String, i64, f64) = point().map_err(failed)?;
            let (number, run) = (run, mapped(source, runs, run)?);
            let insert = || {
                let mut insert = self.transaction.prepare_cached(NEW_POINT)?;
                if insert.execute(params![run, series, step, value])? > 0 {
                    return Ok(None);
                }
                let sql = "SELECT value FROM training_curve WHERE run = ?1 AND series = ?2 AND step = ?3";
                let mut select = self.transaction.prepare_cached(sql)?;
                select.query_row(params![run, series, step], |row| row.get::<_, f64>(0)).map(Some)
            };
            match insert().map_err(|cause| self.failure(cause))? {
                Some(known) if known != value => {
                    let path = self.source.display().to_string();
                    self.conflict(|_| Conflict {
                        told: format!(
                            "`{series}` at step {step} of a training run is {known}, and {value} in training:{number} of \
                             `{path}`"
                        ),
                        of: Some(format!("training:{number} --store {path}")),
                    });
                }
                known => self.folded.points.count(known.is_none()),
            }
        }
        Ok(())
    }

    fn number(&self, table: &str, json: &str) -> Result<i64> {
        text_number(&self.transaction, table, json).map_err(|cause| self.failure(cause))
    }

    /// Counts a conflict, and keeps the first.
    fn conflict(&mut self, conflict: impl FnOnce(&Self) -> Conflict) {
        if self.first_conflict.is_none() {
            self.first_conflict = Some(conflict(self));
        }
        self.conflicts += 1;
    }

    fn failure(&self, cause: rusqlite::Error) -> Error {
        failure(self.path, "write to", cause)
    }
}

/// What makes two models of one name different ones, in words.
fn difference(known: &FoldedModel, other: &FoldedModel) -> Option<String> {
    if known.weights != other.weights {
        return Some("has other weights".to_owned());
    }
    if known.zero_shot != other.zero_shot {
        return Some("is marked as zero-shot on one side alone".to_owned());
    }
    let settings = [("answered", &known.answers, &other.answers), ("was measured", &known.distances, &other.distances)];
    settings.into_iter().find_map(|(verb, known, other)| {
        let (known, other) = (known.as_ref()?, other.as_ref()?);
        (known != other).then(|| format!("{verb} under other settings ({})", differing(known, other)))
    })
}

/// The entries in which two JSON objects differ.
fn differing(known: &str, other: &str) -> String {
    let fields = |text: &str| {
        let fields: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(text);
        fields.unwrap_or_default()
    };
    let (known, other) = (fields(known), fields(other));
    let names = known.iter().filter(|(name, value)| other.get(*name) != Some(*value)).map(|(name, _)| name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

fn made_by_text(maker: &Maker) -> Result<String> {
    serde_json::to_string(maker)
        .map_err(|cause| Error::internal("cannot write as JSON what made the results").caused_by(cause))
}

/// The number of a row here by its number in the source; there is one, since the source refers to it.
fn mapped<T: Clone>(source: &Store, numbers: &HashMap<i64, T>, id: i64) -> Result<T> {
    numbers.get(&id).cloned().ok_or_else(|| {
        Error::input(format!("the store `{}` refers to a row {id} that it does not have", source.path().display()))
            .hint("save what can be read with `digrap-bench runs export --rescue --store ... --format jsonl --output ...`")
    })
}

fn text_of(source: &Store, table: &str, id: i64) -> Result<String> {
    let sql = format!("SELECT json FROM {table} WHERE id = ?1");
    source.connection.query_row(&sql, [id], |row| row.get(0)).map_err(|cause| source.failure("read", cause))
}
