//! The pass over the training questions that makes the reference of distances. It survives being killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::answering::Event;
use super::distances::{Facts, FeatureFiles, MODALITIES, facts_of};
use super::pipeline::{self, Features, Pass, Subject, Wanted};
use super::schedule::Schedule;
use crate::data::{Dataset, fit_file};
use crate::error::{Error, Result};
use crate::shift::fits::Fits;
use crate::shift::{self, Moments};

/// Time between two records of how far the pass has come.
const RECORD_EVERY: Duration = Duration::from_secs(60);

/// Questions whose moments are gathered before they are merged with those before: fixed, so that a pass that was broken off
/// ends with the bytes it would have come to.
const SEGMENT: usize = 1 << 14;

/// Fact that tells how many windows of the schedule are in an unfinished fit, and what the schedule was made for.
const WINDOWS: &str = "windows";

/// Fits the features of all questions of the pass, or reads the fit that `file` holds already. A pass that was broken off
/// goes on from its last record.
///
/// # Errors
/// An image or a question that cannot be read, a file that cannot be written.
pub(super) fn fit<S: Subject>(
    pass: &Pass,
    replicas: &mut [S],
    (file, facts): (&Path, &Facts),
    features: Option<FeatureFiles>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Fits> {
    if file.is_file() && features.is_none() {
        let known = fit_file::load(file)?;
        if facts_of(&known) == *facts {
            return Ok(known);
        }
    }
    let schedule = pipeline::schedule(pass, replicas)?;
    let mut fitting = Fitting::begin(pass, &schedule, (file, facts), features);
    let wanted = vec![Wanted::FEATURES; pass.dataset.questions.len()];
    let start = fitting.next.0;
    on_event(fitting.event());
    pipeline::run(pass, replicas, &schedule, (&wanted, start), &mut |batch| {
        fitting.take(batch.place, batch.features)?;
        on_event(fitting.event());
        Ok(())
    })?;
    fitting.finish()
}

/// A fit on its way.
struct Fitting<'a> {
    pass: &'a Pass<'a>,
    schedule: &'a Schedule,
    file: &'a Path,
    facts: &'a Facts,
    /// Files of the features, if they are wanted.
    features: Option<FeatureFiles>,
    /// The moments of earlier segments, in the order of [`MODALITIES`]; none before the first features.
    moments: [Option<Moments>; 4],
    /// Those of the segment so far.
    segment: [Option<shift::Fitting>; 4],
    /// Questions of the segment so far.
    gathered: usize,
    /// Numbers of the answer types that tell classes apart.
    classes: Vec<i64>,
    /// The batch that is added next: batches are added in order, so that the same questions give the same bytes.
    next: (usize, usize),
    waiting: BTreeMap<(usize, usize), Features>,
    done: usize,
    recorded: Instant,
    /// Time between two records.
    record_every: Duration,
}

impl<'a> Fitting<'a> {
    fn begin(
        pass: &'a Pass,
        schedule: &'a Schedule,
        (file, facts): (&'a Path, &'a Facts),
        features: Option<FeatureFiles>,
    ) -> Self {
        let mut fitting = Self {
            pass,
            schedule,
            file,
            facts,
            features,
            moments: Default::default(),
            segment: Default::default(),
            gathered: 0,
            classes: answer_types(pass.dataset),
            next: (0, 0),
            waiting: BTreeMap::new(),
            done: 0,
            recorded: Instant::now(),
            record_every: RECORD_EVERY,
        };
        // Files of features are written from the first question on.
        if fitting.features.is_none() {
            fitting.go_on();
        }
        fitting
    }

    /// Takes up the last record of this fit, if there is one.
    fn go_on(&mut self) {
        let Ok(mut record) = fit_file::load(&self.record()) else { return };
        let mut facts = facts_of(&record);
        let told = facts.remove(WINDOWS);
        let windows = told.as_deref().and_then(|told| told.strip_suffix(&self.schedule_kind())?.parse::<usize>().ok());
        let Some(windows) = windows.filter(|_| facts == *self.facts) else { return };
        for (modality, moments) in MODALITIES.iter().zip(&mut self.moments) {
            *moments = record.remove(modality.name);
        }
        self.next = (windows, 0);
        self.done = self.schedule.windows.iter().take(windows).map(ExactSizeIterator::len).sum();
    }

    /// What windows depend on besides the questions.
    fn schedule_kind(&self) -> String {
        format!(" of {}, batches of {}", self.schedule.windows.len(), self.pass.batch_size)
    }

    /// File that holds an unfinished fit.
    fn record(&self) -> PathBuf {
        self.file.with_extension("partial.safetensors")
    }

    fn take(&mut self, place: (usize, usize), features: Features) -> Result<()> {
        self.waiting.insert(place, features);
        while let Some(features) = self.waiting.remove(&self.next) {
            self.add(&features)?;
            let (window, batch) = self.next;
            let batches = self.schedule.windows[window].len().div_ceil(self.pass.batch_size);
            self.next = if batch + 1 < batches { (window, batch + 1) } else { (window + 1, 0) };
            if self.next.1 == 0 && self.gathered >= SEGMENT {
                self.end_segment()?;
            }
        }
        Ok(())
    }

    /// Merges the moments of the segment with those before, and records them now and then.
    fn end_segment(&mut self) -> Result<()> {
        for (segment, moments) in self.segment.iter_mut().zip(&mut self.moments) {
            let Some(segment) = segment.take() else { continue };
            let segment = segment.finish(BTreeMap::new())?;
            match moments {
                Some(moments) => moments.merge(&segment)?,
                None => *moments = Some(segment),
            }
        }
        self.gathered = 0;
        if self.recorded.elapsed() >= self.record_every {
            let windows = (WINDOWS.to_owned(), format!("{}{}", self.next.0, self.schedule_kind()));
            let facts = self.facts.clone().into_iter().chain([windows]).collect();
            save(&self.record(), &self.fits(&facts))?;
            self.recorded = Instant::now();
        }
        Ok(())
    }

    fn add(&mut self, features: &Features) -> Result<()> {
        let dataset = self.pass.dataset;
        let classes: Vec<i64> = features.questions.iter().map(|index| self.classes[*index]).collect();
        let of_answered: Vec<i64> = features.answered.iter().map(|place| classes[*place]).collect();
        for (modality, segment) in MODALITIES.iter().zip(&mut self.segment) {
            let rows = (modality.features)(features);
            let classes = if modality.partial { &of_answered } else { &classes };
            if rows.is_empty() {
                continue;
            }
            let segment = segment.get_or_insert_with(|| shift::Fitting::new(rows.len() / classes.len()));
            let within = |error: Error| {
                error.within(format!("the {} features of `{}` have no moments", modality.name, dataset.name))
            };
            segment.add_labelled(rows, classes).map_err(within)?;
        }
        self.gathered += features.questions.len();
        self.done += features.questions.len();
        self.features.as_mut().map_or(Ok(()), |files| files.write(features))
    }

    fn fits(&self, facts: &Facts) -> Fits {
        let named = MODALITIES.iter().zip(&self.moments).filter_map(|(modality, moments)| {
            let moments = Moments { about: facts.clone(), ..moments.clone()? };
            Some((modality.name.to_owned(), moments))
        });
        named.collect()
    }

    fn finish(mut self) -> Result<Fits> {
        self.end_segment()?;
        let (done, total) = (self.done, self.pass.dataset.questions.len());
        if done != total {
            return Err(Error::internal(format!("{done} of {total} questions are in the fit")));
        }
        self.features.take().map_or(Ok(()), FeatureFiles::finish)?;
        let fits = self.fits(self.facts);
        save(self.file, &fits)?;
        // What is left of the record is harmless: it is not read where the fit is there.
        let _ = std::fs::remove_file(self.record());
        Ok(fits)
    }

    fn event(&self) -> Event<'a> {
        let dataset = self.pass.dataset;
        Event::Fitted { dataset: &dataset.name, done: self.done, total: dataset.questions.len() }
    }
}

/// Writes fits to a file, with its folder.
fn save(path: &Path, fits: &Fits) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|cause| {
        Error::input(format!("cannot create the folder `{}` of a fit", folder.display())).caused_by(cause)
    })?;
    fit_file::save(path, fits)
}

/// A number for the answer type of each question; one for all where types are unknown.
fn answer_types(dataset: &Dataset) -> Vec<i64> {
    let mut names: Vec<Option<&str>> = Vec::new();
    let mut number_of = |name| match names.iter().position(|known| *known == name) {
        Some(number) => number as i64,
        None => {
            names.push(name);
            names.len() as i64 - 1
        }
    };
    let types = dataset.references.as_ref();
    (0..dataset.questions.len()).map(|index| number_of(types.and_then(|types| types.answer_type(index)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::data::{Id, ImageFolder, ImageName, Question, Relations};
    use crate::model::decoding::{Decoding, Strategy};
    use crate::model::text::PROMPTS;
    use crate::random::Random;

    const COUNT: usize = SEGMENT + 9_000;

    fn dataset() -> Dataset {
        let question = |index: usize| Question {
            question_id: Id::Number(index as i64),
            image_id: Id::Number(index as i64 / 3),
            text: "q".into(),
        };
        Dataset {
            name: "set".to_owned(),
            questions: (0..COUNT).map(question).collect(),
            references: None,
            relations: Relations::default(),
            images: Arc::new(ImageFolder::new("", ImageName::unknown())),
        }
    }

    fn pass(dataset: &Dataset) -> Pass<'_> {
        let decoding = Decoding { strategy: Strategy::Greedy, max_new_tokens: 1 };
        let (prompt, feature_prompt) = (&PROMPTS[0], &PROMPTS[0]);
        Pass { dataset, prompt, answers: false, feature_prompt, decoding, batch_size: 64, threads: 1 }
    }

    /// The batches of a pass from a window on, with features that follow from the question alone.
    fn batches(pass: &Pass, schedule: &Schedule, start: usize) -> Vec<((usize, usize), Features)> {
        let feature = |name: &str, index: usize| Random::new(7).name(name).normal(index as u64) as f32;
        let row = |name: &str, questions: &[usize]| -> Vec<f32> {
            questions.iter().flat_map(|index| [0, 1, 2].map(|at| feature(name, 3 * index + at))).collect()
        };
        let mut batches = Vec::new();
        for (window, range) in schedule.windows.iter().enumerate().skip(start) {
            let questions: Vec<usize> = schedule.questions(range).collect();
            for (batch, questions) in questions.chunks(pass.batch_size).enumerate() {
                let features = Features {
                    questions: questions.to_vec(),
                    vision: row("vision", questions),
                    question: row("question", questions),
                    joint: row("joint", questions),
                    answer: Vec::new(),
                    answered: Vec::new(),
                };
                batches.push(((window, batch), features));
            }
        }
        batches
    }

    #[test]
    fn a_fit_that_was_broken_off_ends_with_the_same_bytes_in_any_order_of_batches() {
        let (dataset, folder) = (dataset(), tempfile::tempdir().unwrap());
        let pass = pass(&dataset);
        let schedule = Schedule::new(&dataset, pass.batch_size, 16);
        let facts = Facts::from([("weights".to_owned(), "w".to_owned())]);
        let whole = folder.path().join("whole.safetensors");
        let mut fitting = Fitting::begin(&pass, &schedule, (&whole, &facts), None);
        for (place, features) in batches(&pass, &schedule, 0) {
            fitting.take(place, features).unwrap();
        }
        let moments = fitting.finish().unwrap()["vision"].clone();
        assert_eq!((moments.n, moments.dimension()), (COUNT as u64, 3));

        let broken = folder.path().join("broken.safetensors");
        let mut fitting = Fitting::begin(&pass, &schedule, (&broken, &facts), None);
        fitting.record_every = Duration::ZERO;
        let all = batches(&pass, &schedule, 0);
        let reached = all.len() * 3 / 4;
        for pair in all.into_iter().take(reached).collect::<Vec<_>>().chunks_mut(2) {
            // Two replicas seldom finish in order.
            for (place, features) in pair.iter_mut().rev() {
                fitting.take(*place, std::mem::take(features)).unwrap();
            }
        }
        drop(fitting);
        let larger = Pass { batch_size: 128, ..pass };
        let windows = Schedule::new(&dataset, larger.batch_size, 16);
        assert_eq!(Fitting::begin(&larger, &windows, (&broken, &facts), None).next, (0, 0), "these are other windows");
        let mut fitting = Fitting::begin(&pass, &schedule, (&broken, &facts), None);
        assert!(fitting.done >= SEGMENT && fitting.next.0 > 0, "nothing of {} questions was kept", fitting.done);
        for (place, features) in batches(&pass, &schedule, fitting.next.0) {
            fitting.take(place, features).unwrap();
        }
        fitting.finish().unwrap();
        let same = std::fs::read(&whole).unwrap() == std::fs::read(&broken).unwrap();
        assert!(same, "the two files differ");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the record of the broken pass is left");

        let other = Facts::from([("weights".to_owned(), "v".to_owned())]);
        std::fs::rename(&whole, folder.path().join("broken.partial.safetensors")).unwrap();
        assert_eq!(Fitting::begin(&pass, &schedule, (&broken, &other), None).next, (0, 0));
    }
}
