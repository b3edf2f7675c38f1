//! Which runs make a row of the leaderboard, what it is called, and which row it is compared with.

use serde_json::Value;

use super::super::run_names::{numbered, told};
use super::super::stored::StoredRun;
use crate::store::AnswerSettings;

/// Name of the method that the others are compared with.
const VANILLA: &str = "vanilla";

/// Marks a row of which results are left out.
const INCOMPLETE: &str = " (incomplete)";

/// Settings of a training run that differ from seed to seed.
const SEEDED: [&str; 5] = ["seed", "questions", "validation_questions", "threads", "runtime_version"];

/// The runs that have something to show, with their positions.
pub(super) fn shown(runs: &[StoredRun]) -> impl Iterator<Item = (usize, &StoredRun)> {
    runs.iter().enumerate().filter(|(_, run)| has_row(run))
}

/// Whether a run has a row: an accuracy, or distances where no accuracy is left out.
pub(super) fn has_row(run: &StoredRun) -> bool {
    let scored = run.datasets.iter().any(|dataset| dataset.summary.is_some());
    scored || (run.left_out.is_empty() && !run.datasets.is_empty())
}

/// Runs that differ in their seeds alone, and were asked alike. A seed that comes again is in another one, and so is each run
/// of which results are left out, so that means over seeds are means over the same ones in every column.
pub(super) struct Group {
    /// The method with the settings that tell it from others, or the name of the model.
    pub name: String,
    asked: Option<Asked>,
    /// What they have in common; none of a model that no run of this program trained.
    settings: Option<Value>,
    /// Whether they were evaluated as ones that were not fine-tuned.
    pub zero_shot: bool,
    /// Whether results of its only run are left out.
    incomplete: bool,
    /// Positions among the stored runs.
    pub runs: Vec<usize>,
}

impl Group {
    /// The method that trained them.
    pub fn method(&self) -> Option<&str> {
        self.settings.as_ref()?["method"].as_str()
    }
}

/// How questions were put and answers searched for.
#[derive(PartialEq)]
struct Asked {
    prompt: String,
    search: (String, usize),
    computed: (String, String),
    preprocessing: String,
}

impl Asked {
    fn of(run: &StoredRun) -> Option<Self> {
        let AnswerSettings { prompt, decoding, max_new_tokens, dtype, provider, preprocessing, .. } =
            run.answer_settings.clone()?;
        Some(Self { prompt, search: (decoding, max_new_tokens), computed: (dtype, provider), preprocessing })
    }
}

/// The groups of the runs that have something to show.
pub(super) fn grouped(runs: &[StoredRun]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let seed = |run: usize| trained_with(&runs[run]).as_ref().and_then(seed);
    for (position, run) in shown(runs) {
        let settings = trained_with(run).map(without_seeds);
        let (zero_shot, asked, incomplete) = (run.model.zero_shot, Asked::of(run), !run.left_out.is_empty());
        let fits = |group: &&mut Group| {
            settings.is_some()
                && !(group.incomplete || incomplete)
                && group.settings == settings
                && (group.zero_shot, &group.asked) == (zero_shot, &asked)
                && group.runs.iter().all(|other| seed(*other) != seed(position))
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.runs.push(position),
            None => {
                let name = run.model.name.clone();
                groups.push(Group { name, asked, settings, zero_shot, incomplete, runs: vec![position] });
            }
        }
    }
    for group in &mut groups {
        group.runs.sort_by_key(|run| (seed(*run), *run));
    }
    name_groups(&mut groups);
    groups
}

/// The settings of the training run.
pub(super) fn trained_with(run: &StoredRun) -> Option<Value> {
    serde_json::from_str(run.model.training.as_deref()?).ok()
}

/// The seed of these settings.
pub(super) fn seed(settings: &Value) -> Option<u64> {
    settings["subject"]["seed"].as_u64()
}

fn without_seeds(mut settings: Value) -> Value {
    // Random weights to start from are drawn from the seed.
    let drawn = !settings["subject"]["from_scratch"].is_null();
    if let Some(subject) = settings["subject"].as_object_mut() {
        SEEDED.iter().for_each(|name| drop(subject.remove(*name)));
        if drawn {
            subject.remove("weights");
        }
    }
    if let Some(settings) = settings.as_object_mut() {
        // They follow from the number of training questions, which held-out images decide.
        settings.remove("steps_per_epoch");
    }
    settings
}

fn name_groups(groups: &mut [Group]) {
    let settings: Vec<Value> = groups.iter().filter_map(|group| group.settings.clone()).collect();
    let trained = groups.iter_mut().filter(|group| group.settings.is_some());
    trained.zip(told(&settings)).for_each(|(group, name)| group.name = name);
    groups.iter_mut().filter(|group| group.incomplete).for_each(|group| group.name += INCOMPLETE);
    let names = numbered(groups.iter().map(|group| group.name.clone()).collect());
    groups.iter_mut().zip(names).for_each(|(group, name)| group.name = name);
}

/// The vanilla row that a fine-tuned group is compared with: the one whose settings differ in the method alone, or else the
/// only one that started from the same weights and trained on the same dataset.
pub(super) fn vanilla_of(group: &Group, groups: &[Group]) -> Option<usize> {
    let settings = group.settings.as_ref()?;
    let vanillas = || {
        let vanilla = |(_, one): &(usize, &Group)| one.method() == Some(VANILLA) && one.asked == group.asked;
        groups.iter().enumerate().filter(vanilla).filter_map(|(position, one)| Some((position, one.settings.as_ref()?)))
    };
    let start = |settings: &Value| ["weights", "dataset"].map(|name| settings["subject"][name].clone());
    let alike = vanillas().find(|(_, vanilla)| but_method(vanilla) == but_method(settings));
    let mut same_start = vanillas().filter(|(_, vanilla)| start(vanilla) == start(settings));
    let only = same_start.next().filter(|_| same_start.next().is_none());
    alike.or(only).map(|(position, _)| position)
}

fn but_method(settings: &Value) -> Value {
    let mut settings = settings.clone();
    if let Some(fields) = settings.as_object_mut() {
        ["method", "method_settings", "steps"].iter().for_each(|name| drop(fields.remove(*name)));
    }
    if let Some(subject) = settings["subject"].as_object_mut() {
        ["anchor", "exclude"].iter().for_each(|name| drop(subject.remove(*name)));
    }
    settings
}
