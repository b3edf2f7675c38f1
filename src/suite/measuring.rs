//! What the measures of a dataset need: how its questions belong together, and to those of the dataset that they were
//! made from.

use std::collections::HashMap;

use super::evaluation::{Plan, PlannedDataset};
use crate::data::{Dataset, Id};
use crate::error::{Error, Result};
use crate::score::{
    Evidence, Groups, Measure, Measurement, Needs, Originals, Parts, ScoreOptions, find_measure, score,
};

/// Where the questions of a dataset have their originals.
pub(super) enum Link {
    /// No measure asks.
    Unused,
    /// They are not there; says what is needed.
    Missing(String),
    /// In this dataset of the plan, at these positions.
    Found { dataset: usize, positions: Vec<usize> },
}

/// A dataset with the answers of a model.
#[derive(Clone, Copy)]
pub(super) struct Answered<'a> {
    pub planned: &'a PlannedDataset,
    pub answers: &'a [&'a str],
}

/// The measures of a dataset; none for a set of one's own.
pub fn measures(planned: &PlannedDataset) -> Result<Vec<&'static Measure>> {
    planned.row.map_or(&[][..], |row| row.measures).iter().map(|name| find_measure(name)).collect()
}

/// Finds the originals of every dataset's questions, where a measure asks for them.
///
/// # Errors
/// Questions whose original is not in its dataset: how many, and the first.
pub(super) fn links(plan: &Plan) -> Result<Vec<Link>> {
    plan.datasets.iter().map(|planned| link(planned, plan)).collect()
}

fn link(planned: &PlannedDataset, plan: &Plan) -> Result<Link> {
    let asks = |measure: &&Measure| matches!(measure.needs, Needs::Originals | Needs::PartsOfOriginals);
    if !measures(planned)?.iter().any(asks) {
        return Ok(Link::Unused);
    }
    let name = planned.row.and_then(|row| row.original).ok_or_else(|| {
        Error::internal(format!("a measure of `{}` asks for the dataset it was made from", planned.dataset.name))
    })?;
    let Some(dataset) = plan.datasets.iter().position(|other| other.dataset.name == name) else {
        return Ok(Link::Missing(format!("needs {name} in the same run")));
    };
    let original = &plan.datasets[dataset].dataset;
    if original.references.is_none() {
        return Ok(Link::Missing(format!("needs human answers to {name}")));
    }
    match positions(&planned.dataset, original) {
        Ok(positions) => Ok(Link::Found { dataset, positions }),
        Err(_) if plan.limit.is_some() => Ok(Link::Missing(format!("needs all questions of {name}"))),
        Err(error) => Err(error),
    }
}

/// The position in `original` of what each question of `dataset` was made from.
fn positions(dataset: &Dataset, original: &Dataset) -> Result<Vec<usize>> {
    let known: HashMap<&Id, usize> =
        original.questions.iter().enumerate().map(|(position, question)| (&question.question_id, position)).collect();
    let found: Vec<Option<usize>> =
        (0..dataset.questions.len()).map(|at| known.get(made_from(dataset, at)).copied()).collect();
    let missing = found.iter().filter(|position| position.is_none()).count();
    match found.iter().position(Option::is_none) {
        None => Ok(found.into_iter().flatten().collect()),
        Some(first) => {
            let (id, name) = (made_from(dataset, first).to_json(), &original.name);
            let first = dataset.questions[first].question_id.to_json();
            let message = format!(
                "{missing} questions of `{}` have no original in `{name}` (first: question {first}, made from question {id})",
                dataset.name
            );
            Err(Error::incomplete(message)
                .hint(format!("evaluate the release of `{name}` that `{}` was made from", dataset.name)))
        }
    }
}

/// The identifier of the question that this one was made from: its own, where the dataset does not tell another.
fn made_from(dataset: &Dataset, question: usize) -> &Id {
    let told = dataset.relations.originals.get(question).and_then(Option::as_ref);
    told.unwrap_or(&dataset.questions[question].question_id)
}

/// The measures of the dataset at `position`, from its answers and those to its originals.
pub(super) fn measure(answered: &[Answered], position: usize, link: &Link, scores: &[f64]) -> Result<Vec<Measurement>> {
    let Answered { planned, answers } = answered[position];
    let Some(references) = &planned.dataset.references else { return Ok(Vec::new()) };
    let clusters = planned.dataset.clusters();
    let evidence =
        Evidence { answers, scores, references, clusters: &clusters, parts: None, groups: None, originals: None };
    let measurement = |measure: &&'static Measure| match (measure.needs, link) {
        (Needs::Parts | Needs::Groups, _) => of_dataset(measure, &planned.dataset, evidence),
        (_, Link::Found { dataset, positions }) => {
            let original = answered[*dataset];
            match measure.needs {
                Needs::PartsOfOriginals => of_original(measure, planned, original),
                _ => with_original(measure, evidence, original, positions),
            }
        }
        (_, Link::Missing(what)) => Ok(measure.lacks(what)),
        (_, Link::Unused) => {
            Err(Error::internal(format!("nobody looked for the originals of `{}`", planned.dataset.name)))
        }
    };
    measures(planned)?.iter().map(measurement).collect()
}

/// What the dataset alone is enough for. Without its original, what needs that says so.
pub fn measure_alone(planned: &PlannedDataset, answers: &[&str], scores: &[f64]) -> Result<Vec<Measurement>> {
    let original = planned.row.and_then(|row| row.original).unwrap_or("the original dataset");
    let link = Link::Missing(format!("needs the answers to {original}, which `vqa` has with both datasets in one run"));
    measure(&[Answered { planned, answers }], 0, &link, scores)
}

fn of_dataset(measure: &Measure, dataset: &Dataset, evidence: Evidence) -> Result<Measurement> {
    let relations = &dataset.relations;
    if measure.needs == Needs::Parts {
        if relations.parts.is_empty() {
            return Ok(measure.lacks("needs the part of each question, which the files do not tell"));
        }
        let parts = Parts { of: &relations.parts, names: &relations.part_names };
        return measure.measurement(&Evidence { parts: Some(parts), ..evidence });
    }
    if relations.originals.is_empty() {
        return Ok(measure.lacks("needs the original of each question, which the files do not tell"));
    }
    let mut numbers: HashMap<&Id, u32> = HashMap::new();
    let of: Vec<u32> = (0..relations.originals.len())
        .map(|question| {
            let next = numbers.len() as u32;
            *numbers.entry(made_from(dataset, question)).or_insert(next)
        })
        .collect();
    let original: Vec<bool> = relations.originals.iter().map(Option::is_none).collect();
    measure.measurement(&Evidence { groups: Some(Groups { of: &of, original: &original }), ..evidence })
}

fn with_original(
    measure: &Measure,
    evidence: Evidence,
    original: Answered,
    positions: &[usize],
) -> Result<Measurement> {
    let Some(references) = &original.planned.dataset.references else {
        return Ok(measure.lacks("needs human answers"));
    };
    let clusters = original.planned.dataset.clusters();
    let originals = Originals { of: positions, answers: original.answers, references, clusters: &clusters };
    measure.measurement(&Evidence { originals: Some(originals), ..evidence })
}

/// Over all questions of the original dataset, in the parts that the dataset tells of them.
fn of_original(measure: &Measure, planned: &PlannedDataset, original: Answered) -> Result<Measurement> {
    let Some(references) = &original.planned.dataset.references else {
        return Ok(measure.lacks("needs human answers"));
    };
    let relations = &planned.dataset.relations;
    let known: HashMap<&Id, u32> = relations.parts_of_originals.iter().map(|(id, part)| (id, *part)).collect();
    let questions = &original.planned.dataset.questions;
    let parts: Option<Vec<u32>> = questions.iter().map(|question| known.get(&question.question_id).copied()).collect();
    let Some(parts) = parts else {
        return Ok(measure.lacks("needs the part of each original question, which the files do not tell"));
    };
    let scores = score(planned.metric, ScoreOptions::default(), original.answers, references)?;
    let clusters = original.planned.dataset.clusters();
    measure.measurement(&Evidence {
        answers: original.answers,
        scores: &scores,
        references,
        clusters: &clusters,
        parts: Some(Parts { of: &parts, names: &relations.part_names }),
        groups: None,
        originals: None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::data::{DatasetRow, ImageFolder, ImageName, Question, Relations, find_dataset};
    use crate::model::decoding::{Decoding, Strategy};
    use crate::runtime::Device;
    use crate::score::{AnswerId, Figure, METRICS, References};
    use crate::store::Maker;

    /// A dataset of questions with these numbers about images of the same numbers, ten equal answers to each.
    fn planned(name: &'static str, questions: &[(i64, &str)], row: Option<DatasetRow>) -> PlannedDataset {
        let mut builder = References::builder();
        for (_, answer) in questions {
            (1..=10).for_each(|number| builder.answer(answer, None, Some(AnswerId::Number(number))).unwrap());
            builder.end_question(None, None).unwrap();
        }
        let question = |(id, _): &(i64, &str)| {
            let image_id = Id::Text(format!("{name} {id}").into());
            Question { question_id: Id::Number(*id), image_id, text: "what?".into() }
        };
        let dataset = Dataset {
            name: name.to_owned(),
            questions: questions.iter().map(question).collect(),
            references: Some(builder.finish()),
            relations: Relations::default(),
            images: Arc::new(ImageFolder::new("", ImageName::unknown())),
        };
        PlannedDataset { dataset, metric: &METRICS[0], row: row.map(|row| &*Box::leak(Box::new(row))) }
    }

    fn row(name: &'static str, measures: &'static [&'static str]) -> DatasetRow {
        DatasetRow { name, original: Some("whole"), measures, ..*find_dataset("easy-vqa").unwrap() }
    }

    fn plan(datasets: Vec<PlannedDataset>) -> Plan {
        Plan {
            models: Vec::new(),
            datasets,
            limit: None,
            encoders: Vec::new(),
            answers: true,
            shift: None,
            decoding: Decoding { strategy: Strategy::Greedy, max_new_tokens: 1 },
            batch_size: None,
            device: Device::Cpu,
            dtype: None,
            threads: 1,
            store: Path::new("").into(),
            output: None,
            scratch: Path::new("").into(),
            maker: Maker { version: String::new(), commit: None, command: String::new() },
        }
    }

    const WHOLE: [(i64, &str); 3] = [(1, "a"), (2, "b"), (3, "c")];

    /// Measures of the last dataset from these answers to all.
    fn outcome(plan: &Plan, answers: &[&[&str]]) -> Vec<Measurement> {
        let links = links(plan).unwrap();
        let answered: Vec<Answered> =
            plan.datasets.iter().zip(answers).map(|(planned, answers)| Answered { planned, answers }).collect();
        let last = answered.len() - 1;
        let Answered { planned, answers } = answered[last];
        let references = planned.dataset.references.as_ref().unwrap();
        let scores = score(planned.metric, ScoreOptions::default(), answers, references).unwrap();
        measure(&answered, last, &links[last], &scores).unwrap()
    }

    #[track_caller]
    fn assert_figure(measurement: &Measurement, name: &str, n: usize, value: f64) {
        let figure: &Figure = measurement.figures.iter().find(|figure| figure.name == name).unwrap();
        assert_eq!((figure.n, figure.value), (n, Some(value)), "{name}");
    }

    #[test]
    fn edits_are_paired_with_their_originals() {
        let mut edited = planned("edited", &[(20, "b"), (30, "c"), (2, "b")], Some(row("edited", &["flips"])));
        edited.dataset.relations.originals = vec![Some(Id::Number(2)), Some(Id::Number(3)), None];
        let plan = plan(vec![planned("whole", &WHOLE, None), edited]);
        let measured = outcome(&plan, &[&["a", "b", "x"], &["b", "c", "x"]]);
        assert_eq!((measured.len(), &measured[0].missing), (1, &None));
        // Question 20: right twice; 30: wrong, then right; 2 tells no other original than itself: right, then wrong.
        assert_figure(&measured[0], "flips", 3, 100.0 * 2.0 / 3.0);
        assert_figure(&measured[0], "accuracy original", 2, 50.0);
    }

    #[test]
    fn a_question_without_its_original_is_an_error_before_anything_runs() {
        let edited = || planned("edited", &[(2, "b"), (7, "b"), (8, "b")], Some(row("edited", &["flips"])));
        let mut plan = plan(vec![planned("whole", &WHOLE, None), edited()]);
        let error = links(&plan).err().unwrap();
        let expected = "2 questions of `edited` have no original in `whole` (first: question 7, made from question 7)";
        assert_eq!(error.to_string(), expected);
        plan.limit = Some(3);
        let measured = outcome(&plan, &[&["", "", ""], &["", "", ""]]);
        assert_eq!(measured[0].missing.as_deref(), Some("needs all questions of whole"));
        plan.datasets.remove(0);
        let measured = outcome(&plan, &[&["", "", ""]]);
        assert_eq!(measured[0].missing.as_deref(), Some("needs whole in the same run"));
        assert!(measured[0].figures.is_empty());
    }

    #[test]
    fn shortcuts_are_measured_over_all_originals() {
        let mut counterexamples = planned("mislead", &[(3, "c")], Some(row("mislead", &["shortcuts"])));
        let relations = &mut counterexamples.dataset.relations;
        relations.part_names = vec!["counterexamples".into(), "easy".into()];
        relations.parts_of_originals = [(1, 1), (2, 1), (3, 0)].map(|(id, part)| (Id::Number(id), part)).into();
        let mut plan = plan(vec![planned("whole", &WHOLE, None), counterexamples]);
        let measured = outcome(&plan, &[&["a", "x", "x"], &["c"]]);
        assert_figure(&measured[0], "accuracy", 3, 100.0 / 3.0);
        assert_figure(&measured[0], "accuracy counterexamples", 1, 0.0);
        assert_figure(&measured[0], "accuracy easy", 2, 50.0);
        plan.datasets[1].dataset.relations.parts_of_originals.pop();
        let measured = outcome(&plan, &[&["a", "x", "x"], &["c"]]);
        let missing = "needs the part of each original question, which the files do not tell";
        assert_eq!(measured[0].missing.as_deref(), Some(missing));
    }

    #[test]
    fn groups_and_parts_come_from_the_dataset_alone() {
        let questions: Vec<(i64, &str)> = (0..4).map(|number| (number, "a")).collect();
        let mut reworded = planned("reworded", &questions, Some(row("reworded", &["consensus", "seen-images"])));
        let answers = ["a", "a", "x", "a"];
        let alone = measure_alone(&reworded, &answers, &[1.0, 1.0, 0.0, 1.0]).unwrap();
        let lacks = alone.iter().filter(|measurement| measurement.missing.is_some()).count();
        assert_eq!(lacks, 2);
        reworded.dataset.relations.originals =
            vec![None, Some(Id::Number(0)), Some(Id::Number(0)), Some(Id::Number(0))];
        reworded.dataset.relations.parts = vec![0, 1, 1, 0];
        reworded.dataset.relations.part_names = vec!["seen".into(), "new".into()];
        let measured = measure_alone(&reworded, &answers, &[1.0, 1.0, 0.0, 1.0]).unwrap();
        assert_figure(&measured[0], "CS(2)", 1, 50.0);
        assert_figure(&measured[0], "accuracy rephrasings", 3, 100.0 * 2.0 / 3.0);
        assert_figure(&measured[1], "accuracy new", 2, 50.0);
        let unpaired = planned("edited", &[(1, "a")], Some(row("edited", &["flips"])));
        let measured = measure_alone(&unpaired, &["a"], &[1.0]).unwrap();
        assert_eq!(
            measured[0].missing.as_deref(),
            Some("needs the answers to whole, which `vqa` has with both datasets in one run")
        );
    }
}
