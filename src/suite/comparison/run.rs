//! One side of a comparison: the answers of one model, from a store or a baseline.

use std::path::{Path, PathBuf};

use super::super::evaluation::question_set;
use super::super::stored::stored_answers;
use super::baseline::{Baseline, BaselineDataset, HEADER};
use crate::data::Dataset;
use crate::error::{Error, Result, find_row};
use crate::store::{AnswerSettings, FILE_NAME, QuestionSet, SettingsId, Store, StoredModel};

/// The answers of one model to datasets.
pub struct Run {
    /// As it was named.
    pub source: String,
    /// Name of the model.
    pub model: String,
    /// What decided the answers besides the questions.
    pub settings: AnswerSettings,
    pub(super) place: Place,
}

pub(super) enum Place {
    /// A store, the settings the answers are filed under there, and the sets of questions that were asked.
    Store(Store, SettingsId, Vec<QuestionSet>),
    /// The folder of a baseline.
    Baseline(PathBuf, Box<Baseline>),
}

impl Run {
    /// The run that a path names: an output folder of `vqa`, a store, or the folder of a baseline. `PATH#MODEL` is one of
    /// several models in a store.
    ///
    /// # Errors
    /// Nothing is there, or nothing that holds answers; several models, of which none is named; an unreadable store or
    /// baseline.
    pub fn open(named: &str) -> Result<Self> {
        let whole = Path::new(named);
        let (path, model) = match named.rsplit_once('#') {
            Some((path, model)) if !whole.exists() => (Path::new(path), Some(model)),
            _ => (whole, None),
        };
        if path.is_file() {
            return Self::stored(named, path, model);
        }
        if path.join(HEADER).is_file() {
            return Self::baseline(named, path, model);
        }
        if path.join(FILE_NAME).is_file() {
            return Self::stored(named, &path.join(FILE_NAME), model);
        }
        let what = match path.is_dir() {
            true => format!("`{}` has neither {FILE_NAME} nor {HEADER}", path.display()),
            false => format!("there is no run `{}`", path.display()),
        };
        Err(Error::input(what).hint("give an output folder of `vqa`, a store or the folder of a baseline"))
    }

    fn stored(named: &str, path: &Path, model: Option<&str>) -> Result<Self> {
        let store = Store::open_to_read(path)?;
        let mut models = store.models()?;
        models.retain(|model| model.answers.is_some());
        let StoredModel { name, answers, .. } = chosen(path, &models, model)?;
        let id = answers.ok_or_else(|| Error::internal(format!("`{name}` has no answers")))?;
        let (settings, sets) = (store.settings_of_answers(id)?, store.question_sets(id)?);
        let (source, model) = (named.to_owned(), name.clone());
        Ok(Self { source, model, settings, place: Place::Store(store, id, sets) })
    }

    fn baseline(named: &str, path: &Path, model: Option<&str>) -> Result<Self> {
        let baseline = Baseline::read(path)?;
        if let Some(other) = model.filter(|model| *model != baseline.model) {
            return Err(Error::input(format!(
                "the baseline `{}` is of `{}`, not of `{other}`",
                path.display(),
                baseline.model
            ))
            .hint("name it without a model"));
        }
        let (model, settings) = (baseline.model.clone(), baseline.settings.clone());
        Ok(Self {
            source: named.to_owned(),
            model,
            settings,
            place: Place::Baseline(path.to_owned(), Box::new(baseline)),
        })
    }

    /// Whether the other one is the same answers in the same place.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Place::Store(store, id, _), Place::Store(others, other, _)) => {
                id == other && same_place(store.path(), others.path())
            }
            (Place::Baseline(folder, _), Place::Baseline(other, _)) => same_place(folder, other),
            _ => false,
        }
    }

    /// The set of questions of a dataset that answers are there for: the one at hand, where it is one of several.
    pub(super) fn questions(&self, at_hand: &QuestionSet) -> Option<&QuestionSet> {
        let sets = match &self.place {
            Place::Store(_, _, sets) => sets,
            Place::Baseline(_, baseline) => &baseline.questions,
        };
        let mut of_dataset = sets.iter().filter(|set| set.dataset == at_hand.dataset);
        sets.iter().find(|set| *set == at_hand).or_else(|| of_dataset.next_back())
    }

    /// The answers to the questions of a dataset, in their order.
    pub(super) fn answers(&self, dataset: &Dataset) -> Result<Vec<Box<str>>> {
        match &self.place {
            Place::Store(store, id, _) => {
                let within = |error: Error| error.within(format!("`{}` cannot be compared", self.source));
                let answers = stored_answers(store, *id, dataset).map_err(within)?;
                Ok(answers.texts().into_iter().map(Box::from).collect())
            }
            Place::Baseline(folder, baseline) => baseline.answers(folder, dataset),
        }
    }

    /// What a baseline records of a dataset; nothing of other runs.
    pub(super) fn recorded(&self, dataset: &str) -> Option<&BaselineDataset> {
        match &self.place {
            Place::Store(..) => None,
            Place::Baseline(_, baseline) => baseline.datasets.iter().find(|one| one.dataset == dataset),
        }
    }

    /// Whether the questions at hand are those that were asked, and if not, what was asked.
    pub(super) fn asked(&self, dataset: &Dataset) -> Result<(), String> {
        let at_hand = question_set(dataset);
        match self.questions(&at_hand) {
            Some(asked) if *asked == at_hand => Ok(()),
            Some(asked) => Err(told(asked)),
            None => Err("none".to_owned()),
        }
    }
}

/// Whether two paths name one file or folder that is there.
pub(super) fn same_place(left: &Path, right: &Path) -> bool {
    matches!((left.canonicalize(), right.canonicalize()), (Ok(left), Ok(right)) if left == right)
}

/// A set of questions in words: their number, and the beginning of their digest.
pub(super) fn told(set: &QuestionSet) -> String {
    format!("{} ({}...)", set.n, set.digest.get(..8).unwrap_or(&set.digest))
}

fn chosen<'a>(path: &Path, models: &'a [StoredModel], named: Option<&str>) -> Result<&'a StoredModel> {
    let path = path.display();
    match (models, named) {
        ([], _) => Err(Error::incomplete(format!("the store `{path}` has no model that has answered"))
            .hint("run `digrap-bench vqa` with it to the end")),
        (_, Some(name)) => find_row(models, "model", name, |model| vec![&model.name])
            .map_err(|error| error.within(format!("cannot choose a model of the store `{path}`"))),
        ([only], None) => Ok(only),
        (several, None) => {
            let names: Vec<&str> = several.iter().map(|model| model.name.as_str()).collect();
            Err(Error::input(format!("the store `{path}` has answers of {} models: {}", names.len(), names.join(", ")))
                .hint(format!("name one of them, such as `{path}#{}`", names[0])))
        }
    }
}
