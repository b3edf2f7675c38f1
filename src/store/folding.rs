//! Brings what other stores and files hold into one store: everything or nothing, and nothing twice.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::types::ToSql;
use rusqlite::{Row, Transaction, TransactionBehavior, params};

use super::contents::{USED_DISTANCE_SETTINGS, USED_RUNS, USED_SETTINGS};
use super::distances::measured;
use super::{
    AnswerSettings, CurvePoint, DistanceSettingsId, Distances, FILE_NAME, QuestionSet, SettingsId, Store, StoredAnswer,
    StoredDistances, StoredModel, create_folder, dataset_number, failure, models, text_number,
};
use crate::error::{Error, Result, shell_word};

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

/// A store that is being filled.
pub struct Fold<'a> {
    transaction: Transaction<'a>,
    path: &'a Path,
    /// What is being brought in, for messages.
    source: PathBuf,
    /// Whether that is a store.
    from_store: bool,
    folded: Folded,
    conflicts: usize,
    first_conflict: Option<Conflict>,
}

/// Something that differs from what the store has.
struct Conflict {
    told: String,
    /// What it belongs to, as `runs rm` names it, where that is known.
    of: Option<String>,
    /// The store that it can be taken out of; none where no side of it is in one.
    store: Option<PathBuf>,
}

impl Conflict {
    fn way_out(&self) -> String {
        let Some(store) = &self.store else {
            return "import into a store of its own, or leave out one of the files that differ".to_owned();
        };
        let of = self.of.as_deref().map_or_else(|| "NAME".to_owned(), shell_word);
        let store = shell_word(&store.to_string_lossy());
        format!(
            "import into a store of its own, or take one side out of its store first: `digrap-bench runs rm {of} --store \
             {store}`"
        )
    }
}

/// The upper half of an answer's fingerprint is of the question's text.
const QUESTION_BITS: u32 = 32;

/// How a row comes into a table.
struct Table {
    /// Leaves a row of the same key as it is.
    insert: &'static str,
    /// What such a row holds besides its key, which the first parameters of `insert` are.
    select: &'static str,
}

const ANSWER: Table = Table {
    insert: "INSERT OR IGNORE INTO answer (settings, dataset, question, image, content, answer)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    select: "SELECT content, answer FROM answer WHERE settings = ?1 AND dataset = ?2 AND question = ?3 AND image = ?4",
};

const DISTANCE: Table = Table {
    insert: "INSERT OR IGNORE INTO distance
        (settings, dataset, question_id, image_id, content, vision, question, joint, answer)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    select: "SELECT vision, question, joint, answer FROM distance
        WHERE settings = ?1 AND dataset = ?2 AND question_id = ?3 AND image_id = ?4",
};

const POINT: Table = Table {
    insert: "INSERT OR IGNORE INTO training_curve (run, series, step, value) VALUES (?1, ?2, ?3, ?4)",
    select: "SELECT value FROM training_curve WHERE run = ?1 AND series = ?2 AND step = ?3",
};

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
            from_store: false,
            folded: Folded::default(),
            conflicts: 0,
            first_conflict: None,
        };
        fill(&mut fold)?;
        let Fold { transaction, folded, conflicts, first_conflict, .. } = fold;
        if let Some(conflict) = first_conflict {
            let more = if conflicts == 1 { String::new() } else { format!("{conflicts} conflicts, the first: ") };
            let what = format!("nothing was imported into `{}`: {more}{}", path.display(), conflict.told);
            return Err(Error::incomplete(what).hint(conflict.way_out()));
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
    /// States that what is brought in from now on comes from this file, which is no store.
    pub fn begin(&mut self, source: &Path) {
        source.clone_into(&mut self.source);
        self.from_store = false;
    }

    /// Everything that another store holds at one moment, whatever is written to it meanwhile; but for the digests of files,
    /// which hold on one machine alone.
    ///
    /// # Errors
    /// Either store fails.
    pub fn store(&mut self, source: &Store) -> Result<()> {
        self.begin(source.path());
        self.from_store = true;
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
                self.question_set(SettingsId(*mapped(source, &settings, id.0)?), &set)?;
            }
        }
        for model in source.models()? {
            let answers = model.answers.map(|id| mapped(source, &settings, id.0)).transpose()?;
            let distances = model.distances.map(|id| mapped(source, &distance_settings, id.0)).transpose()?;
            self.model(&StoredModel {
                answers: answers.copied().map(SettingsId),
                distances: distances.copied().map(DistanceSettingsId),
                ..model
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

    /// A model, with the numbers of its settings in the store that is filled. What one side alone knows of it is kept.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn model(&mut self, model: &StoredModel) -> Result<()> {
        let known = models::find(&self.transaction, &model.name).map_err(|cause| self.failure(cause))?;
        let different = known.as_ref().map_or(Ok(None), |known| self.difference(known, model));
        if let Some(what) = different.map_err(|cause| self.failure(cause))? {
            let (name, source) = (&model.name, self.source.display());
            let told = format!("the model `{name}` of `{source}` {what}");
            let of = Some(name.clone());
            self.conflict(|fold| Conflict { told, of, store: fold.store_to_change() });
            return Ok(());
        }
        self.folded.models.count(known.is_none());
        let united = known.map_or_else(|| model.clone(), |known| united(&known, model));
        models::write(&self.transaction, &united).map_err(|cause| self.failure(cause))
    }

    /// What makes two models of one name different ones, in words.
    fn difference(&self, known: &StoredModel, other: &StoredModel) -> rusqlite::Result<Option<String>> {
        if known.weights != other.weights {
            return Ok(Some("has other weights".to_owned()));
        }
        if known.zero_shot != other.zero_shot {
            return Ok(Some("is marked as zero-shot on one side alone".to_owned()));
        }
        let numbers = |model: &StoredModel| [model.answers.map(|id| id.0), model.distances.map(|id| id.0)];
        let tables = [("answered", "settings"), ("was measured", "distance_settings")];
        for ((verb, table), pair) in tables.into_iter().zip(numbers(known).into_iter().zip(numbers(other))) {
            if let (Some(known), Some(other)) = pair
                && known != other
            {
                let sql = format!("SELECT json FROM {table} WHERE id = ?1");
                let text = |id| self.transaction.query_row(&sql, [id], |row| row.get::<_, String>(0));
                return Ok(Some(format!("{verb} under other settings ({})", differing(&text(known)?, &text(other)?))));
            }
        }
        Ok(None)
    }

    /// The texts of a table of the source that something refers to, as numbers of the source and of the store that is filled.
    fn texts(&self, source: &Store, table: &str, used: &str) -> Result<HashMap<i64, i64>> {
        let sql = format!("SELECT id, json FROM {table} AS one WHERE {used} ORDER BY id");
        let mut numbers = HashMap::new();
        each_row(source, &sql, numbered_text, |(id, json)| {
            numbers.insert(id, self.number(table, &json)?);
            Ok(())
        })?;
        Ok(numbers)
    }

    /// The datasets of the source by their number there: number here, and name.
    fn datasets(&self, source: &Store) -> Result<HashMap<i64, (i64, String)>> {
        let mut datasets = HashMap::new();
        each_row(source, "SELECT id, name FROM dataset ORDER BY id", numbered_text, |(id, name)| {
            let number = dataset_number(&self.transaction, &name).map_err(|cause| self.failure(cause))?;
            datasets.insert(id, (number, name));
            Ok(())
        })?;
        Ok(datasets)
    }

    fn all_answers(
        &mut self,
        source: &Store,
        settings: &HashMap<i64, i64>,
        datasets: &HashMap<i64, (i64, String)>,
    ) -> Result<()> {
        let sql = "SELECT settings, dataset, question, image, content, answer FROM answer";
        let read = |row: &Row| {
            let content = row.get::<_, i64>(4)?.cast_unsigned();
            let answer = StoredAnswer { question_id: row.get(2)?, image_id: row.get(3)?, content, answer: row.get(5)? };
            Ok((row.get(0)?, row.get(1)?, answer))
        };
        each_row(source, sql, read, |(of, dataset, answer)| {
            let (number, name) = mapped(source, datasets, dataset)?;
            self.answer_of(*mapped(source, settings, of)?, (*number, name), &answer)
        })
    }

    fn answer_of(&mut self, settings: i64, (number, dataset): (i64, &str), answer: &StoredAnswer) -> Result<()> {
        let StoredAnswer { question_id, image_id, content, answer: text } = answer;
        let row = params![settings, number, question_id, image_id, content.cast_signed(), text];
        let known = |row: &Row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, String>(1)?));
        let known = self.put(&ANSWER, row, known)?;
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
            store: fold.store_to_change(),
        });
        Ok(())
    }

    /// The store that one side of a conflict can be taken out of: the one that is being read, else the one that is filled,
    /// where it was there before.
    fn store_to_change(&self) -> Option<PathBuf> {
        if self.from_store { Some(self.source.clone()) } else { self.path.exists().then(|| self.path.to_owned()) }
    }

    /// The model that has these answers or distances.
    fn owner(&self, column: &str, settings: i64) -> Option<String> {
        let sql = format!("SELECT name FROM model WHERE {column} = ?1 ORDER BY id LIMIT 1");
        self.transaction.query_row(&sql, [settings], |row| row.get(0)).ok()
    }

    fn all_distances(
        &mut self,
        source: &Store,
        settings: &HashMap<i64, i64>,
        datasets: &HashMap<i64, (i64, String)>,
    ) -> Result<()> {
        let sql =
            "SELECT settings, dataset, question_id, image_id, content, vision, question, joint, answer FROM distance";
        let read = |row: &Row| {
            let (content, distances) = (row.get::<_, i64>(4)?.cast_unsigned(), measured(row, 5)?);
            let stored = StoredDistances { question_id: row.get(2)?, image_id: row.get(3)?, content, distances };
            Ok((row.get(0)?, row.get(1)?, stored))
        };
        each_row(source, sql, read, |(of, dataset, stored)| {
            let (number, name) = mapped(source, datasets, dataset)?;
            self.distances_of(*mapped(source, settings, of)?, (*number, name), &stored)
        })
    }

    fn distances_of(&mut self, settings: i64, (number, name): (i64, &str), stored: &StoredDistances) -> Result<()> {
        let StoredDistances { question_id, image_id, content, distances } = stored;
        let Distances { vision, question, joint, answer } = distances;
        let content = content.cast_signed();
        let row = params![settings, number, question_id, image_id, content, vision, question, joint, answer];
        match self.put(&DISTANCE, row, |row| measured(row, 0))? {
            Some(known) if known != *distances => self.conflict(|fold| Conflict {
                told: format!(
                    "question {question_id} about image {image_id} of `{name}` has other distances in `{}`",
                    fold.source.display()
                ),
                of: fold.owner("distances", settings),
                store: fold.store_to_change(),
            }),
            known => self.folded.distances.count(known.is_none()),
        }
        Ok(())
    }

    fn all_points(&mut self, source: &Store, runs: &HashMap<i64, i64>) -> Result<()> {
        let read = |row: &Row| {
            let step = row.get::<_, i64>(2)?.cast_unsigned();
            Ok((row.get(0)?, CurvePoint { series: row.get(1)?, step, value: row.get(3)? }))
        };
        each_row(source, "SELECT run, series, step, value FROM training_curve", read, |(number, point)| {
            let CurvePoint { series, step, value } = point;
            let row = params![mapped(source, runs, number)?, series, step.cast_signed(), value];
            match self.put(&POINT, row, |row| row.get::<_, f64>(0))? {
                Some(known) if known != value => self.conflict(|fold| {
                    let told = format!(
                        "`{series}` at step {step} of a training run is {known}, and {value} in training:{number} of \
                         `{}`",
                        fold.source.display()
                    );
                    Conflict { told, of: Some(format!("training:{number}")), store: fold.store_to_change() }
                }),
                known => self.folded.points.count(known.is_none()),
            }
            Ok(())
        })
    }

    /// Puts a row into a table; what is there under its key instead, if there is something.
    fn put<T>(
        &self,
        table: &Table,
        row: &[&dyn ToSql],
        read: impl FnOnce(&Row) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let put = || {
            if self.transaction.prepare_cached(table.insert)?.execute(row)? > 0 {
                return Ok(None);
            }
            let mut select = self.transaction.prepare_cached(table.select)?;
            let key = &row[..select.parameter_count()];
            select.query_row(key, read).map(Some)
        };
        put().map_err(|cause| self.failure(cause))
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

/// Hands every row of the source to `take`, one at a time.
fn each_row<T>(
    source: &Store,
    sql: &str,
    read: impl Fn(&Row) -> rusqlite::Result<T>,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let failed = |cause| source.failure("read", cause);
    let mut all = source.connection.prepare(sql).map_err(failed)?;
    let mut rows = all.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        take(read(row).map_err(failed)?)?;
    }
    Ok(())
}

fn numbered_text(row: &Row) -> rusqlite::Result<(i64, String)> {
    Ok((row.get(0)?, row.get(1)?))
}

/// What both sides know of a model that does not differ. Of two texts the lesser, so that the order of imports changes
/// nothing.
fn united(known: &StoredModel, other: &StoredModel) -> StoredModel {
    let made_by = known.made_by.iter().chain(&other.made_by);
    StoredModel {
        training: known.training.iter().chain(&other.training).min().cloned(),
        made_by: made_by.min_by_key(|maker| serde_json::to_string(maker).ok()).cloned(),
        selected_on_reported: known.selected_on_reported || other.selected_on_reported,
        answers: other.answers.or(known.answers),
        distances: other.distances.or(known.distances),
        ..known.clone()
    }
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

/// What a number of the source stands for here; there is something, since the source refers to it.
fn mapped<'a, T>(source: &Store, numbers: &'a HashMap<i64, T>, id: i64) -> Result<&'a T> {
    numbers.get(&id).ok_or_else(|| {
        Error::input(format!("the store `{}` refers to a row {id} that it does not have", source.path().display()))
            .hint("save what can be read with `digrap-bench runs export --rescue --store ... --format jsonl --output ...`")
    })
}
