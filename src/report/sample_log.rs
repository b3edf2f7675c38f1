//! Answers as JSON lines: a head that says under which settings they were given and by which models, then an object for each
//! answer.
//!
//! The same answers are the same bytes, whatever order they came in: settings are numbered in the order of their texts, and
//! models, datasets, questions and images follow their names. Without a suite the file holds all that the store knows of its
//! answers, and [`read_log`] brings it into another store.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::score::References;
use crate::store::{
    AnswerSettings, Distances, Fold, LostRange, Maker, QuestionSet, Readable, Rescued, SettingsId, Store, StoredAnswer,
    StoredModel,
};
use crate::suite::{PlannedDataset, StoredDataset, StoredRun, stored_runs};

/// Version of the form of the lines.
const FORMAT: u32 = 1;

/// What goes into a log.
#[derive(Clone, Copy, Default)]
pub struct LogChoice<'a> {
    /// Models by name; all of them where none is named.
    pub models: &'a [String],
    /// Datasets whose questions, human answers, scores and distances are written too. Those of others are left out then.
    pub datasets: Option<&'a [PlannedDataset]>,
    /// Whether what can be read of a damaged store is written.
    pub rescue: bool,
}

/// What went into a log.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Logged {
    /// Number of answers.
    pub answers: usize,
    /// Ranges that could not be read.
    pub lost: Vec<LostAnswers>,
    /// What else could not be read, in words.
    pub unreadable: Vec<String>,
}

/// A range of answers that could not be read.
#[derive(Debug, Clone, Serialize)]
pub struct LostAnswers {
    /// Name of the model, if that is known.
    pub model: Option<String>,
    /// Name of the dataset.
    pub dataset: String,
    /// Answers to it that could be read.
    pub saved: usize,
    /// Question and image of the last answer before the range.
    pub after: Option<(String, String)>,
    /// Question and image of the first answer behind it.
    pub before: Option<(String, String)>,
}

/// What the head of every format has.
#[derive(Deserialize)]
struct FormatLine {
    #[serde(rename = "digrap-bench")]
    head: FormatOnly,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct HeadLine {
    #[serde(rename = "digrap-bench")]
    head: Head,
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    program_version: String,
    settings: BTreeMap<usize, AnswerSettings>,
    models: Vec<HeadModel>,
    question_sets: Vec<HeadQuestions>,
}

#[derive(Serialize, Deserialize)]
struct HeadModel {
    name: String,
    weights: String,
    /// JSON text.
    training: Option<String>,
    made_by: Option<Maker>,
    zero_shot: bool,
    selected_on_reported: bool,
    settings: Option<usize>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct HeadQuestions {
    settings: usize,
    dataset: String,
    digest: String,
    n: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    model: Option<&'a str>,
    settings: usize,
    dataset: &'a str,
    question_id: Value,
    image_id: Value,
    answer: &'a str,
    content: String,
    #[serde(flatten)]
    sample: Option<Sample<'a>>,
}

/// What the files of a dataset add to an answer.
#[derive(Serialize)]
struct Sample<'a> {
    question: &'a str,
    human_answers: Vec<&'a str>,
    answer_type: Option<&'a str>,
    /// From 0 to 1.
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distances: Option<SampleDistances>,
}

#[derive(Serialize)]
struct SampleDistances {
    vision: Option<f64>,
    question: Option<f64>,
    joint: Option<f64>,
    answer: Option<f64>,
}

#[derive(Deserialize)]
struct ReadLine {
    settings: usize,
    dataset: String,
    question_id: Value,
    image_id: Value,
    answer: String,
    content: String,
}

/// Writes the answers of a store to `out`; messages name it as `path`.
///
/// # Errors
/// A model that is not in the store; the store cannot be read, or is damaged where `rescue` is not set; with datasets,
/// answers to some of a dataset's questions alone; a failed write to `out`.
pub fn write_log(store: &Store, choice: &LogChoice, (path, out): (&Path, &mut dyn Write)) -> Result<Logged> {
    let mut writer = LogWriter::new(store, choice, (path, out))?;
    writer.line(&HeadLine { head: writer.head()? })?;
    match choice.datasets {
        Some(datasets) => writer.samples(datasets)?,
        None => writer.answers()?,
    }
    Ok(writer.logged)
}

struct LogWriter<'a> {
    store: &'a Store,
    choice: &'a LogChoice<'a>,
    /// Those that are written, by name.
    models: Vec<StoredModel>,
    /// Those that are written, by number in the log.
    settings: Vec<(SettingsId, AnswerSettings)>,
    /// Names of all datasets, sorted.
    datasets: Vec<String>,
    path: &'a Path,
    out: &'a mut dyn Write,
    logged: Logged,
}

impl<'a> LogWriter<'a> {
    fn new(store: &'a Store, choice: &'a LogChoice, (path, out): (&'a Path, &'a mut dyn Write)) -> Result<Self> {
        let mut readable = if choice.rescue { store.readable()? } else { all_of(store)? };
        let mut models = match store.models() {
            // Without the names of models their answers are still worth having.
            Err(_) if choice.rescue => {
                readable.lost.push("names of models".to_owned());
                Vec::new()
            }
            models => models?,
        };
        refuse_unknown(store, &models, choice.models)?;
        models.retain(|model| choice.models.is_empty() || choice.models.contains(&model.name));
        models.sort_by(|a, b| a.name.cmp(&b.name));
        let chosen =
            |id: &SettingsId| choice.models.is_empty() || models.iter().any(|model| model.answers == Some(*id));
        let Readable { mut settings, mut datasets, lost } = readable;
        settings.retain(|(id, _)| chosen(id));
        settings.sort_by_cached_key(|(_, settings)| serde_json::to_string(settings).unwrap_or_default());
        datasets.sort();
        let logged = Logged { unreadable: lost, ..Logged::default() };
        Ok(Self { store, choice, models, settings, datasets, path, out, logged })
    }

    /// The number that settings have in the log, from 1 on.
    fn number(&self, id: SettingsId) -> Option<usize> {
        self.settings.iter().position(|(other, _)| *other == id).map(|position| position + 1)
    }

    fn head(&self) -> Result<Head> {
        let model = |model: &StoredModel| HeadModel {
            name: model.name.clone(),
            weights: model.weights.clone(),
            training: model.training.clone(),
            made_by: model.made_by.clone(),
            zero_shot: model.zero_shot,
            selected_on_reported: model.selected_on_reported,
            settings: model.answers.and_then(|id| self.number(id)),
        };
        let mut question_sets = Vec::new();
        for (position, (id, _)) in self.settings.iter().enumerate() {
            let sets = match self.store.question_sets(*id) {
                Err(_) if self.choice.rescue => Vec::new(),
                sets => sets?,
            };
            let set = |QuestionSet { dataset, digest, n }| HeadQuestions { settings: position + 1, dataset, digest, n };
            let chosen = |set: &QuestionSet| {
                let datasets = self.choice.datasets;
                datasets.is_none_or(|all| all.iter().any(|planned| planned.dataset.name == set.dataset))
            };
            question_sets.extend(sets.into_iter().filter(chosen).map(set));
        }
        question_sets.sort();
        Ok(Head {
            format: FORMAT,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            settings: self.settings.iter().enumerate().map(|(at, (_, settings))| (at + 1, settings.clone())).collect(),
            models: self.models.iter().map(model).collect(),
            question_sets,
        })
    }

    /// Every answer, without what the files of datasets add.
    fn answers(&mut self) -> Result<()> {
        let datasets = std::mem::take(&mut self.datasets);
        for number in 1..=self.settings.len() {
            let id = self.settings[number - 1].0;
            let of_settings = self.models.iter().find(|model| model.answers == Some(id));
            let model = of_settings.map(|model| model.name.clone());
            for dataset in &datasets {
                let Rescued { answers, lost } = self.read(id, dataset)?;
                for LostRange { after, before } in lost {
                    let (model, dataset, saved) = (model.clone(), dataset.clone(), answers.len());
                    self.logged.lost.push(LostAnswers { model, dataset, saved, after, before });
                }
                for answer in &answers {
                    let line = line((model.as_deref(), number, dataset), answer, None)?;
                    self.line(&line)?;
                    self.logged.answers += 1;
                }
            }
        }
        Ok(())
    }

    fn read(&self, id: SettingsId, dataset: &str) -> Result<Rescued> {
        if self.choice.rescue {
            return self.store.rescue(id, dataset);
        }
        let mut answers = Vec::new();
        self.store.for_each_answer(id, dataset, |question_id, image_id, content, answer| {
            let (question_id, image_id) = (question_id.to_owned(), image_id.to_owned());
            answers.push(StoredAnswer { question_id, image_id, content, answer: answer.to_owned() });
            Ok(())
        })?;
        Ok(Rescued { answers, lost: Vec::new() })
    }

    /// The answers to these datasets, in the order of their questions.
    fn samples(&mut self, datasets: &[PlannedDataset]) -> Result<()> {
        let chosen = stored_runs(self.store, datasets)?.into_iter().filter(|run| self.models.contains(&run.model));
        let mut runs = chosen.map(StoredRun::complete).collect::<Result<Vec<_>>>()?;
        runs.sort_by(|a, b| a.model.name.cmp(&b.model.name));
        for run in &runs {
            let Some(id) = run.model.answers else { continue };
            let Some(number) = self.number(id) else { continue };
            for stored in &run.datasets {
                let dataset = &datasets[stored.position].dataset;
                for (at, question) in dataset.questions.iter().enumerate() {
                    let (question_id, image_id) = question.key();
                    let known = self.store.answer(id, &dataset.name, &question_id, &image_id)?;
                    let Some((content, answer)) = known else { continue };
                    let answer = StoredAnswer { question_id, image_id, content, answer };
                    let sample = sample(&question.text, dataset.references.as_ref(), (at, stored));
                    let line = line((Some(&run.model.name), number, &dataset.name), &answer, Some(sample))?;
                    self.line(&line)?;
                    self.logged.answers += 1;
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(line)
            .map_err(|cause| Error::internal("cannot write an answer as JSON").caused_by(cause))?;
        writeln!(self.out, "{text}").map_err(|cause| {
            Error::input(format!("cannot write `{}`", self.path.display()))
                .caused_by(cause)
                .hint("free some space, or choose another --output")
        })
    }
}

/// Refuses a name that is none of these models of a store.
pub(super) fn refuse_unknown(store: &Store, models: &[StoredModel], names: &[String]) -> Result<()> {
    match names.iter().find(|name| models.iter().all(|model| model.name != **name)) {
        Some(name) => Err(Error::input(format!("the store `{}` has no model `{name}`", store.path().display()))
            .hint("`digrap-bench runs list` shows all of them")),
        None => Ok(()),
    }
}

/// Of a store that is not damaged.
fn all_of(store: &Store) -> Result<Readable> {
    let settings = store.all_settings()?.into_iter().map(|id| Ok((id, store.settings_of_answers(id)?)));
    Ok(Readable { settings: settings.collect::<Result<_>>()?, datasets: store.dataset_names()?, lost: Vec::new() })
}

fn line<'a>(
    (model, settings, dataset): (Option<&'a str>, usize, &'a str),
    stored: &'a StoredAnswer,
    sample: Option<Sample<'a>>,
) -> Result<Line<'a>> {
    let id = |json: &str| {
        serde_json::from_str(json).map_err(|cause| {
            Error::input(format!("`{json}`, which the store has for a question or image, is no identifier"))
                .caused_by(cause)
                .hint("the store is damaged: --rescue saves what can be read")
        })
    };
    Ok(Line {
        model,
        settings,
        dataset,
        question_id: id(&stored.question_id)?,
        image_id: id(&stored.image_id)?,
        answer: &stored.answer,
        content: format!("{:016x}", stored.content),
        sample,
    })
}

fn sample<'a>(
    question: &'a str,
    references: Option<&'a References>,
    (at, stored): (usize, &StoredDataset),
) -> Sample<'a> {
    let human_answers = references.into_iter().flat_map(|references| references.answers(at));
    let distances = stored.distances.get(at).map(|distances| {
        let Distances { vision, question, joint, answer } = *distances;
        SampleDistances { vision, question, joint, answer }
    });
    Sample {
        question,
        human_answers: human_answers.map(|answer| answer.text).collect(),
        answer_type: references.and_then(|references| references.answer_type(at)),
        score: stored.scores.get(at).copied(),
        distances,
    }
}

/// Brings a log into a store that is being filled; messages name it as `path`.
///
/// # Errors
/// Input error for a file that is no log, with the line. The store cannot be written.
pub fn read_log((path, log): (&Path, &mut dyn BufRead), fold: &mut Fold) -> Result<()> {
    let unreadable = |cause| {
        Error::input(format!("cannot read `{}`", path.display()))
            .caused_by(cause)
            .hint("check that it is a whole file of `digrap-bench runs export --format jsonl`")
    };
    let damaged = |line: usize, what: &str| {
        Error::input(format!("line {line} of `{}` {what}", path.display()))
            .hint("`digrap-bench runs export --format jsonl` writes such files")
    };
    let mut lines = log.lines();
    let first = lines.next().transpose().map_err(unreadable)?.unwrap_or_default();
    let no_head = |cause| damaged(1, "is no head of exported answers").caused_by(cause);
    // The rest of the head may be another one in another format.
    let FormatLine { head: FormatOnly { format } } = serde_json::from_str(&first).map_err(no_head)?;
    if format > FORMAT {
        let what = format!("has format {format}, this program reads up to format {FORMAT}");
        return Err(damaged(1, &what).hint("update the program"));
    }
    let HeadLine { head } = serde_json::from_str(&first).map_err(no_head)?;
    fold.begin(path);
    let settings = fold_head(&head, fold)?;
    for (number, line) in (2..).zip(lines) {
        let line = line.map_err(unreadable)?;
        let line: ReadLine =
            serde_json::from_str(&line).map_err(|cause| damaged(number, "is no answer").caused_by(cause))?;
        let id = *settings.get(&line.settings).ok_or_else(|| damaged(number, "names settings that the head lacks"))?;
        let [question_id, image_id] = [line.question_id, line.image_id].map(|id| match id {
            Value::Number(_) | Value::String(_) => Ok(id.to_string()),
            _ => Err(damaged(number, "has an identifier that is neither a number nor a text")),
        });
        let content = u64::from_str_radix(&line.content, 16)
            .map_err(|cause| damaged(number, "has a `content` that is no fingerprint").caused_by(cause))?;
        let answer = StoredAnswer { question_id: question_id?, image_id: image_id?, content, answer: line.answer };
        fold.answer(id, &line.dataset, &answer)?;
    }
    Ok(())
}

/// The settings of the head by their numbers there.
fn fold_head(head: &Head, fold: &mut Fold) -> Result<BTreeMap<usize, SettingsId>> {
    let mut settings = BTreeMap::new();
    for (number, of_answers) in &head.settings {
        settings.insert(*number, fold.settings(of_answers)?);
    }
    for HeadQuestions { settings: number, dataset, digest, n } in &head.question_sets {
        let set = QuestionSet { dataset: dataset.clone(), digest: digest.clone(), n: *n };
        if let Some(id) = settings.get(number) {
            fold.question_set(*id, &set)?;
        }
    }
    for model in &head.models {
        fold.model(&StoredModel {
            name: model.name.clone(),
            weights: model.weights.clone(),
            training: model.training.clone(),
            made_by: model.made_by.clone(),
            zero_shot: model.zero_shot,
            selected_on_reported: model.selected_on_reported,
            answers: model.settings.and_then(|number| settings.get(&number).copied()),
            distances: None,
        })?;
    }
    Ok(settings)
}
