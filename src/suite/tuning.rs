//! Several runs of one method: the settings that are best on in-distribution validation, or as good there as another run.
//!
//! Nothing but validation accuracy is looked at, so that numbers out of distribution stay a test. Every run keeps its
//! folder below the output and its curves in the store; the output becomes the chosen model.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::plan::{TrainingPlan, Validation};
use super::subject::{validation_digest, write_whole};
use super::training::{REPORT, TrainingEvent, TrainingReport, check_start, claim_empty, files_of_model, train_model};
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::train::{METHODS, Schedule};

/// File within the output that lists the runs.
const TRIALS: &str = "trials.json";

/// The key that stands for the highest learning rate, which is no setting of a method.
const LEARNING_RATE: &str = "learning_rate";

/// How far a matched accuracy may be from its target, in points.
const TOLERANCE: f64 = 0.1;

/// Runs that a search for a strength takes at most.
const SEARCH_RUNS: usize = 12;

/// Factor from one strength to the next as long as all are on one side of the target.
const SEARCH_FACTOR: f64 = 10.0;

/// Values to try for one setting of the method, or for the learning rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// Name of the setting, or `learning_rate`.
    pub key: String,
    /// The values, as they are set.
    pub values: Vec<String>,
}

impl FromStr for Sweep {
    type Err = Error;

    /// Reads a text such as `mu=0.01,0.1,1`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::input(format!("`{text}` is no sweep")).hint("write key=value,value such as mu=0.01,0.1,1");
        let (key, values) = text.split_once('=').ok_or_else(wrong)?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        if key.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong());
        }
        Ok(Self { key: key.trim().to_owned(), values })
    }
}

/// How settings are chosen.
#[derive(Debug, Clone)]
pub enum Tuning {
    /// All combinations of these values, by the highest validation accuracy; of equal ones the first.
    Grid(Vec<Sweep>),
    /// The strength of the method with which validation accuracy is that of the run in this folder, within 0.1 points.
    Match(PathBuf),
}

/// One of several runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// Name of its folder below the output: what was set.
    pub name: String,
    /// Validation accuracy in percent.
    pub accuracy: f64,
}

/// The end of several runs.
#[derive(Debug, Clone, Serialize)]
pub struct TuningReport {
    /// The chosen run; its folder is the output.
    #[serde(flatten)]
    pub chosen: TrainingReport,
    /// Name of the chosen run.
    pub chosen_trial: String,
    /// The accuracy to match, in percent.
    pub target: Option<f64>,
    /// All runs, in their order.
    pub trials: Vec<Trial>,
}

/// Trains with one setting after the other, and makes the output the chosen model. Runs that are finished are not
/// repeated.
///
/// # Errors
/// As [`train_model`]. Input error before the first run for settings that the method does not take, without validation,
/// for a run to match that was validated on other questions or is not finished, and for a method without a strength;
/// afterwards if no strength matches: the runs are kept.
pub fn tune(
    plan: &TrainingPlan,
    tuning: &Tuning,
    runtime: &Runtime,
    on_event: &mut dyn FnMut(TrainingEvent),
) -> Result<TuningReport> {
    plan.check()?;
    check_start(plan)?;
    let name = plan.validation.name();
    if !matches!(plan.validation, Validation::HeldOut(_)) {
        return Err(Error::input(format!("settings are chosen on held-out images, and --validation is {name}"))
            .hint("use --validation held-out"));
    }
    let mut runs = Runs { plan, runtime, on_event, finished: Vec::new() };
    let (chosen, target) = match tuning {
        Tuning::Grid(sweeps) => (runs.grid(sweeps)?, None),
        Tuning::Match(folder) => {
            let strength = strength(plan)?;
            let target = target(plan, folder)?;
            (runs.matching(strength, target)?, Some(target))
        }
    };
    runs.report(chosen, target)
}

/// The setting that is searched to match an accuracy.
fn strength(plan: &TrainingPlan) -> Result<&'static str> {
    let method = plan.method.method;
    method.strength.ok_or_else(|| {
        let others = METHODS.iter().filter(|method| method.strength.is_some()).map(|method| method.name);
        Error::input(format!("{} has no strength that an accuracy could be matched by", method.name))
            .hint(format!("those that have one are {}", others.collect::<Vec<_>>().join(", ")))
    })
}

/// The accuracy of a finished run on the questions that the plan is validated on.
fn target(plan: &TrainingPlan, folder: &Path) -> Result<f64> {
    #[derive(Deserialize)]
    struct Ended {
        accuracy: Option<f64>,
        validation_digest: Option<String>,
    }
    let path = folder.join(REPORT);
    let unreadable = || Error::input(format!("there is no finished run to match in `{}`", folder.display()));
    let hint = format!("give the --output of a `train` command, which holds `{REPORT}`");
    let bytes = fs::read(&path).map_err(|cause| unreadable().caused_by(cause).hint(hint.clone()))?;
    let ended: Ended = serde_json::from_slice(&bytes).map_err(|cause| unreadable().caused_by(cause).hint(hint))?;
    if ended.validation_digest != validation_digest(plan) {
        return Err(Error::input(format!("the run in `{}` was validated on other questions", folder.display()))
            .hint("use its dataset, --seed, --validation and --validation-share"));
    }
    ended.accuracy.ok_or_else(|| {
        Error::input(format!("the run in `{}` has no validation accuracy", folder.display()))
            .hint("match a run that was trained with --validation held-out")
    })
}

/// A name of what is set, and the plan with it.
type Variant = (String, TrainingPlan);

/// The plan with other values, in a folder of its own.
fn variant(plan: &TrainingPlan, values: &[(&str, &str)]) -> Result<Variant> {
    let name = |values: &[(&str, &str)]| {
        let pairs: Vec<String> = values.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    };
    let mut changed = plan.clone();
    for (key, value) in values {
        if *key == LEARNING_RATE {
            let rate = value.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0);
            changed.learning_rate = rate.ok_or_else(|| {
                Error::input(format!("`{LEARNING_RATE}` cannot be `{value}`")).hint("it is a number of at least 0")
            })?;
            // A warm-up that starts with the highest rate does so in every run.
            if let Schedule::Lavis { start, .. } = &mut changed.schedule
                && *start == plan.learning_rate
            {
                *start = changed.learning_rate;
            }
        } else {
            changed.method = changed.method.with(key, value)?;
        }
    }
    // What comes before the method's own phase depends on none of its settings.
    let shared: Vec<_> = values.iter().copied().filter(|(key, _)| *key == LEARNING_RATE).collect();
    changed.phases = plan.phases.join(name(&shared));
    changed.output = plan.output.join(name(values));
    changed.check()?;
    Ok((name(values), changed))
}

/// Runs that are done, and what it takes to do more.
struct Runs<'a> {
    plan: &'a TrainingPlan,
    runtime: &'a Runtime,
    on_event: &'a mut dyn FnMut(TrainingEvent),
    finished: Vec<(String, TrainingReport, f64)>,
}

impl Runs<'_> {
    /// Trains one variant; returns its accuracy.
    fn train(&mut self, (name, plan): &Variant, which: &str) -> Result<f64> {
        (self.on_event)(TrainingEvent::Begins(format!("{name} ({which})")));
        let report = train_model(plan, self.runtime, self.on_event)
            .map_err(|error| error.within(format!("in the run with {name}")))?;
        let accuracy = report.accuracy.ok_or_else(|| Error::internal("a validated run has no accuracy"))?;
        self.finished.push((name.clone(), report, accuracy));
        Ok(accuracy)
    }

    /// All combinations; returns the position of the best run.
    fn grid(&mut self, sweeps: &[Sweep]) -> Result<usize> {
        let mut combinations: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
        for (index, Sweep { key, values }) in sweeps.iter().enumerate() {
            if let Some(value) = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value)) {
                return Err(
                    Error::input(format!("`{key}` is swept over {} twice", value.1)).hint("give each value once")
                );
            }
            if sweeps[..index].iter().any(|other| other.key == *key) {
                return Err(Error::input(format!("`{key}` is swept twice")).hint("give all of its values at once"));
            }
            let longer = |before: &Vec<_>| -> Vec<Vec<(&str, &str)>> {
                let with = |value| before.iter().copied().chain([(key.as_str(), value)]).collect();
                values.iter().map(|value| with(value.as_str())).collect()
            };
            combinations = combinations.iter().flat_map(longer).collect();
        }
        let variants = combinations.iter().map(|values| variant(self.plan, values)).collect::<Result<Vec<_>>>()?;
        self.claim()?;
        let (mut best, mut highest) = (0, f64::NEG_INFINITY);
        for (index, variant) in variants.iter().enumerate() {
            let accuracy = self.train(variant, &format!("run {} of {}", index + 1, variants.len()))?;
            if accuracy > highest {
                (best, highest) = (index, accuracy);
            }
        }
        Ok(best)
    }

    /// Searches along the logarithm of the strength; returns the position of the run that matches.
    fn matching(&mut self, strength: &str, target: f64) -> Result<usize> {
        let plan = self.plan;
        let first = plan.method.number(strength)?;
        if first == 0.0 {
            return Err(Error::input(format!("the search for {strength} cannot start at 0"))
                .hint(format!("give it a start: --set {strength}=0.1")));
        }
        self.claim()?;
        let mut next = first;
        let mut tried: Vec<(f64, f64)> = Vec::new();
        while tried.len() < SEARCH_RUNS && tried.iter().all(|(known, _)| *known != next) {
            let variant = variant(plan, &[(strength, &next.to_string())])?;
            let which = format!("run {}, to match {target:.2} %", tried.len() + 1);
            let off = self.train(&variant, &which)? - target;
            if off.abs() <= TOLERANCE + 1e-9 {
                return Ok(tried.len());
            }
            tried.push((next, off));
            next = rounded(next_strength(&tried));
        }
        self.write_trials(None, Some(target))?;
        Err(self.unmatched(strength, target))
    }

    fn unmatched(&self, strength: &str, target: f64) -> Error {
        let nearest = self.finished.iter().min_by(|one, other| {
            let distance = |run: &(String, TrainingReport, f64)| (run.2 - target).abs();
            distance(one).total_cmp(&distance(other))
        });
        let nearest = nearest.map_or_else(String::new, |(name, report, accuracy)| {
            format!("; the nearest is {accuracy:.2} % with {name} in `{}`", report.output.display())
        });
        let runs = self.finished.len();
        Error::input(format!("no {strength} of {runs} brings validation accuracy within {TOLERANCE} points of {target:.2} %{nearest}"))
            .hint("hold out more questions (--validation-share), which makes steps of accuracy smaller, or use the nearest run")
    }

    /// The output is an empty folder, or that of an earlier attempt.
    fn claim(&self) -> Result<()> {
        let folder = &self.plan.output;
        if folder.join(TRIALS).is_file() { Ok(()) } else { claim_empty(folder) }
    }

    /// Writes the list of the runs; returns it.
    fn write_trials(&self, chosen: Option<&str>, target: Option<f64>) -> Result<Vec<Trial>> {
        let trial =
            |(name, _, accuracy): &(String, TrainingReport, f64)| Trial { name: name.clone(), accuracy: *accuracy };
        let trials: Vec<Trial> = self.finished.iter().map(trial).collect();
        let list = serde_json::json!({"chosen": chosen, "target": target, "trials": trials});
        write_whole(&self.plan.output.join(TRIALS), &format!("{list:#}\n"))?;
        Ok(trials)
    }

    /// Makes the output the chosen model.
    fn report(self, chosen: usize, target: Option<f64>) -> Result<TuningReport> {
        let output = &self.plan.output;
        let chosen =
            self.finished.get(chosen).ok_or_else(|| Error::internal("the chosen run is none of those done"))?;
        let (chosen_trial, report, _) = chosen.clone();
        let trials = self.write_trials(Some(&chosen_trial), target)?;
        adopt(&report.output, output).map_err(|cause| {
            Error::input(format!("cannot write the model to `{}`", output.display()))
                .caused_by(cause)
                .hint("the runs are finished; make room and give the same command again")
        })?;
        let chosen = TrainingReport { output: output.clone(), ..report };
        Ok(TuningReport { chosen, chosen_trial, target, trials })
    }
}

/// Where to look next, from strengths with how far their accuracies are above the target. Between two neighbours on
/// either side of it, at the mean of their logarithms; else beyond the end that is nearer to it. After one run greater
/// strength is taken to lower accuracy.
fn next_strength(tried: &[(f64, f64)]) -> f64 {
    let mut sorted = tried.to_vec();
    sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
    let around = sorted.windows(2).find(|pair| (pair[0].1 < 0.0) != (pair[1].1 < 0.0));
    match (around, sorted.as_slice()) {
        (Some(pair), _) => (pair[0].0 * pair[1].0).sqrt(),
        (None, [only]) if only.1 < 0.0 => only.0 / SEARCH_FACTOR,
        (None, [weakest, .., strongest]) if goes_down(weakest.1, strongest.1, tried.len()) => weakest.0 / SEARCH_FACTOR,
        (None, [.., strongest]) => strongest.0 * SEARCH_FACTOR,
        (None, []) => 1.0,
    }
}

/// Whether a search goes on below the weakest strength. Where both ends are equally far from the target it turns around
/// each time, so that no plateau leads it away.
fn goes_down(weakest: f64, strongest: f64, tried: usize) -> bool {
    if weakest == strongest { tried.is_multiple_of(2) } else { weakest.abs() < strongest.abs() }
}

/// Three significant digits of a number.
fn rounded(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

/// Gives the files of the model in `from` a second name in `to`, in place of an older model there. The settings come
/// last, so that a folder that has them is whole.
fn adopt(from: &Path, to: &Path) -> io::Result<()> {
    const LAST: [&str; 2] = ["config.json", "adapter_config.json"];
    let mut older = files_of_model(to);
    older.sort_by_key(|name| !LAST.contains(&name.as_str()));
    older.iter().try_for_each(|name| fs::remove_file(to.join(name)))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != "metrics.jsonl" {
            names.push(entry.file_name());
        }
    }
    names.sort_by_key(|name| LAST.iter().any(|last| name == last));
    for name in names {
        let (file, copy) = (from.join(&name), to.join(&name));
        if copy.exists() {
            fs::remove_file(&copy)?;
        }
        fs::hard_link(&file, &copy).or_else(|_| fs::copy(&file, &copy).map(drop))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_read_and_refused() {
        let sweep: Sweep = "mu=0.01, 0.1,1".parse().unwrap();
        assert_eq!(sweep, Sweep { key: "mu".to_owned(), values: ["0.01", "0.1", "1"].map(str::to_owned).into() });
        for text in ["mu", "mu=", "=1", "mu=1,,2"] {
            assert_eq!(text.parse::<Sweep>().unwrap_err().to_string(), format!("`{text}` is no sweep"));
        }
    }

    #[test]
    fn strengths_have_three_digits() {
        assert_eq!([0.031_622_7, 1e-7, 123_456.0, 10.0].map(rounded), [0.0316, 1e-7, 123_000.0, 10.0]);
    }

    /// Accuracies that fall with the strength, that rise with it, and that jump.
    #[test]
    fn searches_come_to_the_target() {
        let falling = |strength: f64| 90.0 - 10.0 * (strength.ln() + 2.0).tanh();
        let rising = |strength: f64| 170.0 - falling(strength);
        let step = |strength: f64| if strength < 3e-4 { 80.0 } else { 70.0 };
        let late_step = |strength: f64| if strength < 500.0 { 80.0 } else { 70.0 };
        let jumping = |strength: f64| (falling(strength) / 0.15).round() * 0.15;
        for (accuracy, target) in [
            (&falling as &dyn Fn(f64) -> f64, 88.0),
            (&falling, 99.5),
            (&rising, 71.3),
            (&jumping, 93.3),
            (&step, 80.0),
            (&late_step, 70.0),
        ] {
            let mut tried = vec![(0.1, accuracy(0.1) - target)];
            while tried.iter().all(|(_, off)| off.abs() > TOLERANCE) && tried.len() < SEARCH_RUNS {
                let next = rounded(next_strength(&tried));
                tried.push((next, accuracy(next) - target));
            }
            assert!(tried.last().unwrap().1.abs() <= TOLERANCE, "{target}: {tried:?}");
        }
    }
}
