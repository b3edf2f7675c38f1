//! Distances of questions and images from the reference that a model's features of its training set make.
//!
//! Section 7.3 of the paper: mean and covariance of the features of all training questions, then the Mahalanobis distance
//! of each question of a test set; the shift of a set is the mean of its distances.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::pipeline::{Features, Fingerprint, common_answer, first_bytes};
use super::subject::question_digest;
use crate::data::{Dataset, Question};
use crate::data::{fit_file, npy};
use crate::error::{Error, Result};
use crate::model::features::FeatureLayers;
use crate::model::hex;
use crate::model::text::Prompt;
use crate::shift::fits::Fits;
use crate::shift::{Deficiency, Gaussian, GaussianOptions, Shrinkage, Summary, summarise};
use crate::store::{
    AnswerSettings, DistanceSettings, DistanceSettingsId, Distances, FeatureSettings, ReferenceSettings, Store,
    StoredDistances,
};

/// What a distance is of.
pub struct Modality {
    /// Name of its files, fits and JSON keys.
    pub name: &'static str,
    /// Name in tables.
    pub label: &'static str,
    /// What its features are.
    pub about: &'static str,
    /// Whether only questions with a human answer have such features.
    pub(super) partial: bool,
    /// The features among those of a batch.
    pub(super) features: fn(&Features) -> &[f32],
    /// The distance among those of a question.
    pub distance: fn(&Distances) -> Option<f64>,
}

/// Every modality.
pub static MODALITIES: [Modality; 4] = [
    Modality {
        name: "vision",
        label: "vision shift",
        about: "the image alone: mean over the image tokens of a prompt whose text is masked",
        partial: false,
        features: |features| &features.vision,
        distance: |distances| distances.vision,
    },
    Modality {
        name: "question",
        label: "question shift",
        about: "the question alone: mean over the text tokens of a prompt whose image is masked",
        partial: false,
        features: |features| &features.question,
        distance: |distances| distances.question,
    },
    Modality {
        name: "joint",
        label: "joint shift",
        about: "image and question: the mean of the means over image tokens and text tokens",
        partial: false,
        features: |features| &features.joint,
        distance: |distances| distances.joint,
    },
    Modality {
        name: "answer",
        label: "joint shift with answers",
        about: "image, question and answer: as joint, of `question : answer` with the answer that most people gave",
        partial: true,
        features: |features| &features.answer,
        distance: |distances| distances.answer,
    },
];

impl Modality {
    /// The distances of those questions that have one, each with its cluster.
    pub(super) fn measured(&self, distances: &[Distances], clusters: &[u32]) -> (Vec<f64>, Vec<u32>) {
        let measured = distances.iter().zip(clusters);
        measured.filter_map(|(one, cluster)| Some(((self.distance)(one)?, *cluster))).unzip()
    }
}

/// How shift is measured.
#[derive(Debug)]
pub struct ShiftPlan {
    /// What distances are measured from.
    pub reference: Reference,
    /// The hidden states that features are taken from.
    pub layers: FeatureLayers,
    /// How questions are put for their features.
    pub prompt: &'static Prompt,
    /// How moments become distances.
    pub gaussian: GaussianOptions,
    /// Folder for features as .npy files, if wanted: `<dataset>.<modality>.npy`, rows in the order of the questions.
    pub features_output: Option<PathBuf>,
}

impl ShiftPlan {
    /// What features and distances depend on, with the reference left open.
    pub(super) fn settings(&self, answers: &AnswerSettings) -> DistanceSettings {
        let AnswerSettings {
            weights,
            configuration,
            tokenizer,
            dtype,
            provider,
            runtime_version,
            preprocessing,
            program_version,
            ..
        } = answers.clone();
        let features = FeatureSettings {
            weights,
            configuration,
            tokenizer,
            prompt: self.prompt.template.to_owned(),
            vision_layer: self.layers.vision.to_string(),
            language_layer: self.layers.language.to_string(),
            dtype,
            provider,
            runtime_version,
            preprocessing,
            program_version,
        };
        DistanceSettings { features, reference: ReferenceSettings::default(), estimator: self.estimator() }
    }

    /// How moments become distances, in words.
    fn estimator(&self) -> String {
        let GaussianOptions { variant, rtol, shrinkage } = self.gaussian;
        let rtol = rtol.map_or_else(|| "dimension * 2^-23".to_owned(), |rtol| format!("{rtol:?}"));
        let shrinkage = match shrinkage {
            Shrinkage::None => "none".to_owned(),
            Shrinkage::LedoitWolf => "ledoit-wolf".to_owned(),
            Shrinkage::Fixed(intensity) => format!("{intensity:?}"),
        };
        format!("{} distance, rtol {rtol}, shrinkage {shrinkage}", variant.name)
    }

    /// The files for the features of a dataset, if they are wanted.
    pub(super) fn files_for(&self, dataset: &Dataset) -> Option<FeatureFiles> {
        Some(FeatureFiles::new(self.features_output.as_deref()?, dataset))
    }
}

/// What distances are measured from.
#[derive(Debug)]
pub enum Reference {
    /// Training questions, with the file that is to hold their fit, if not one beside the store.
    Questions(Box<Dataset>, Option<PathBuf>),
    /// The fit in a file.
    Fit(PathBuf),
}

/// Questions of the reference whose own distances are kept, to be shown beside those of test sets.
const REFERENCE_SAMPLE: usize = 10_000;

/// Ending of the name under which distances of the reference itself are kept.
const OF_REFERENCE: &str = " (reference)";

/// Name under which the distances of the reference itself are kept.
pub(super) fn name_of_reference(dataset: &str) -> String {
    format!("{dataset}{OF_REFERENCE}")
}

/// A seeded choice of the reference's questions, in their order, under the name of its distances.
pub(super) fn reference_sample(reference: &Dataset) -> Dataset {
    Dataset { name: name_of_reference(&reference.name), ..reference.sample(REFERENCE_SAMPLE) }
}

/// What the fit of a reference depends on: questions, answers and images.
///
/// # Errors
/// An image that is not there.
pub(super) fn reference_settings(reference: &Dataset) -> Result<ReferenceSettings> {
    let mut hash = Sha256::new_with_prefix(question_digest(reference));
    let mut fingerprint = Fingerprint::default();
    for question in &reference.questions {
        hash.update(fingerprint.of(reference, question)?.to_le_bytes());
    }
    let (dataset, n) = (reference.name.clone(), reference.questions.len());
    Ok(ReferenceSettings { dataset, questions: hex(&hash.finalize()), n })
}

/// How far a dataset has shifted in one modality.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ModalityShift {
    /// Name of the modality.
    pub modality: &'static str,
    /// The mean of the distances and more.
    #[serde(flatten)]
    pub summary: Summary,
}

/// The distances of a dataset's questions, in their order.
///
/// # Errors
/// The store cannot be read, or lacks some.
pub(super) fn distances(store: &Store, id: DistanceSettingsId, dataset: &Dataset) -> Result<Vec<Distances>> {
    let of_question = |question: &Question| {
        let (question_id, image_id) = question.key();
        let known = store.distances(id, &dataset.name, &question_id, &image_id)?;
        let missing = || {
            let about = format!("question {question_id} about image {image_id} of `{}`", dataset.name);
            Error::incomplete(format!("{about} has no distance"))
        };
        Ok(known.ok_or_else(missing)?.1)
    };
    dataset.questions.iter().map(of_question).collect()
}

/// The fingerprint of a question, its image and the answer that features are taken with, from that of the first two.
pub(super) fn with_answer(dataset: &Dataset, question: usize, content: u64) -> u64 {
    let answer = common_answer(dataset, question).unwrap_or_default();
    first_bytes(Sha256::new_with_prefix(content.to_le_bytes()).chain_update(answer.as_bytes()))
}

/// The distances from one reference, with what they are filed under.
pub(super) struct Measuring {
    id: DistanceSettingsId,
    settings: DistanceSettings,
    /// In the order of [`MODALITIES`]; none where the reference has no such features.
    gaussians: Vec<Option<Gaussian>>,
}

impl Measuring {
    pub(super) fn new(fits: &Fits, plan: &ShiftPlan, settings: &DistanceSettings, store: &mut Store) -> Result<Self> {
        let gaussian = |modality: &Modality| {
            let moments = fits.get(modality.name);
            let gaussian = moments.map(|moments| Gaussian::new(moments, plan.gaussian)).transpose();
            gaussian.map_err(|error| error.within(format!("the {} features cannot be a reference", modality.name)))
        };
        let gaussians = MODALITIES.iter().map(gaussian).collect::<Result<_>>()?;
        Ok(Self { id: store.distance_settings(settings)?, settings: settings.clone(), gaussians })
    }

    /// How far a dataset has shifted in each modality that was measured.
    ///
    /// # Errors
    /// The store cannot be read, or lacks distances.
    pub(super) fn shifts(&self, store: &Store, dataset: &Dataset) -> Result<Vec<ModalityShift>> {
        let distances = distances(store, self.id, dataset)?;
        let clusters = dataset.clusters();
        let mut shifts = Vec::new();
        for (modality, gaussian) in MODALITIES.iter().zip(&self.gaussians) {
            let Some(gaussian) = gaussian else { continue };
            let (values, clusters) = modality.measured(&distances, &clusters);
            if let Some(summary) = summarise(&values, Some(&clusters), gaussian) {
                shifts.push(ModalityShift { modality: modality.name, summary });
            }
        }
        Ok(shifts)
    }

    /// Number of the settings of these distances.
    pub(super) fn id(&self) -> DistanceSettingsId {
        self.id
    }

    /// What distances are measured with.
    pub(super) fn settings(&self) -> &DistanceSettings {
        &self.settings
    }

    /// The modalities in which not all directions of the reference count.
    pub(super) fn deficiencies(&self) -> impl Iterator<Item = (&'static str, Deficiency)> {
        let named = MODALITIES.iter().zip(&self.gaussians);
        named.filter_map(|(modality, gaussian)| Some((modality.name, gaussian.as_ref()?.deficiency()?)))
    }

    /// The fingerprint of a question whose distances are known.
    pub(super) fn known(&self, store: &Store, (dataset, question, image): (&str, &str, &str)) -> Result<Option<u64>> {
        Ok(store.distances(self.id, dataset, question, image)?.map(|(content, _)| content))
    }

    /// Measures a batch and files it.
    pub(super) fn commit(
        &self,
        store: &mut Store,
        dataset: &Dataset,
        contents: &[u64],
        features: &Features,
    ) -> Result<()> {
        let [vision, question, joint, answer] = self.measure(dataset, features)?;
        let stored = features.questions.iter().enumerate().map(|(place, index)| {
            let (question_id, image_id) = dataset.questions[*index].key();
            let of = |distances: &[f64]| distances.get(place).copied();
            let answered = features.answered.binary_search(&place).ok();
            let answer = answered.and_then(|place| answer.get(place).copied());
            let distances = Distances { vision: of(&vision), question: of(&question), joint: of(&joint), answer };
            let content = with_answer(dataset, *index, contents[*index]);
            StoredDistances { question_id, image_id, content, distances }
        });
        store.commit_distances(self.id, &dataset.name, &stored.collect::<Vec<_>>())
    }

    /// The distances of each modality, in the order of [`MODALITIES`]; empty where the reference has none.
    fn measure(&self, dataset: &Dataset, features: &Features) -> Result<[Vec<f64>; 4]> {
        let mut measured: [Vec<f64>; 4] = Default::default();
        for ((modality, gaussian), distances) in MODALITIES.iter().zip(&self.gaussians).zip(&mut measured) {
            if let Some(gaussian) = gaussian {
                let within = |error: Error| {
                    error.within(format!("the {} features of `{}` have no distance", modality.name, dataset.name))
                };
                *distances = gaussian.distances((modality.features)(features)).map_err(within)?;
            }
        }
        Ok(measured)
    }
}

/// The names and values that a fit is known by: what its features depend on, and what it was fitted on.
pub(super) fn facts(settings: &DistanceSettings) -> Result<Facts> {
    let value = serde_json::to_value((&settings.features, &settings.reference))
        .map_err(|cause| Error::internal("cannot write the settings of features as JSON").caused_by(cause))?;
    let parts = value.as_array().into_iter().flatten().zip(["", REFERENCE]);
    let named = parts.flat_map(|(part, prefix)| {
        let entries = part.as_object().into_iter().flatten();
        entries.map(move |(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (format!("{prefix}{name}"), text)
        })
    });
    Ok(named.collect())
}

/// What begins the names of facts about the questions of a reference.
const REFERENCE: &str = "reference.";

/// Names of facts with their values.
pub(super) type Facts = BTreeMap<String, String>;

/// The facts about fits that were made together.
pub(super) fn facts_of(fits: &Fits) -> Facts {
    fits.values().next().map(|moments| moments.about.clone()).unwrap_or_default()
}

/// The facts about features that a fit is compared by, those first that tell most.
const COMPARED: [&str; 11] = [
    "weights",
    "vision_layer",
    "language_layer",
    "prompt",
    "dtype",
    "tokenizer",
    "configuration",
    "preprocessing",
    "provider",
    "runtime_version",
    "program_version",
];

/// Reads a fit that was made by the same features.
///
/// # Errors
/// A damaged file, or one of other features; the message names the first that differs.
pub(super) fn read_fit(path: &Path, settings: &DistanceSettings) -> Result<Fits> {
    let fits = fit_file::load(path)?;
    let (wanted, known) = (facts(settings)?, facts_of(&fits));
    let differs = |name: &&&str| known.get(**name) != wanted.get(**name);
    match COMPARED.iter().find(differs) {
        None => Ok(fits),
        Some(name) if !known.contains_key(*name) => {
            Err(Error::input(format!("`{}` was not made from the features of a model", path.display()))
                .hint("make a fit with `shift --model ... --suite ... --save-fit FILE`"))
        }
        Some(name) => {
            let short =
                |facts: &Facts| facts.get(*name).map_or_else(String::new, |fact| fact.chars().take(16).collect());
            let (found, value) = (short(&known), short(&wanted));
            Err(Error::input(format!(
                "`{}` is a fit of other features: {name} is {found}, but {value} here",
                path.display()
            ))
            .hint("measure with the model and the settings it was made with, or leave out --fit"))
        }
    }
}

/// What a fit that was read says of its questions.
pub(super) fn reference_of(fits: &Fits) -> ReferenceSettings {
    let facts = facts_of(fits);
    let fact = |name: &str| facts.get(&format!("{REFERENCE}{name}")).cloned().unwrap_or_default();
    ReferenceSettings {
        dataset: fact("dataset"),
        questions: fact("questions"),
        n: fact("n").parse().unwrap_or_default(),
    }
}

/// The file beside a store that holds the fit with these facts.
pub(super) fn fit_beside(store: &Path, facts: &Facts) -> PathBuf {
    let mut hash = Sha256::new();
    for (name, value) in facts {
        hash.update(format!("{name}={value}\n"));
    }
    let digest = hex(&hash.finalize());
    store.with_extension("fits").join(format!("{}.safetensors", &digest[..16]))
}

/// Features on their way into files: `<dataset>.<modality>.npy`, f32 `[questions, dimension]`, with a row of NaN where a
/// question has no such features.
pub(super) struct FeatureFiles {
    folder: PathBuf,
    dataset: String,
    rows: usize,
    /// Whether any of the questions has answers.
    answers: bool,
    /// In the order of [`MODALITIES`]; none before the first features.
    files: [Option<npy::Writer>; 4],
}

impl FeatureFiles {
    pub(super) fn new(folder: &Path, dataset: &Dataset) -> Self {
        let (folder, name) = (folder.to_owned(), dataset.name.clone());
        let (rows, answers) = (dataset.questions.len(), dataset.references.is_some());
        Self { folder, dataset: name, rows, answers, files: Default::default() }
    }

    /// Writes the features of a batch.
    pub(super) fn write(&mut self, features: &Features) -> Result<()> {
        for (modality, file) in MODALITIES.iter().zip(&mut self.files) {
            let values = (modality.features)(features);
            let partial = modality.partial;
            let width = if partial { &features.joint } else { values }.len().checked_div(features.questions.len());
            let Some(width) = width.filter(|width| *width > 0 && (!partial || self.answers)) else { continue };
            let file = match file {
                Some(file) => file,
                None => {
                    let path = self.folder.join(format!("{}.{}.npy", self.dataset, modality.name));
                    file.insert(npy::Writer::create(&path, [self.rows, width])?)
                }
            };
            let missing = vec![f32::NAN; width];
            for (place, question) in features.questions.iter().enumerate() {
                let row = if partial { features.answered.binary_search(&place).ok() } else { Some(place) };
                let row = row.and_then(|row| values.get(row * width..(row + 1) * width));
                file.write(*question, row.unwrap_or(&missing))?;
            }
        }
        Ok(())
    }

    /// Puts the files in their place.
    pub(super) fn finish(self) -> Result<()> {
        self.files.into_iter().flatten().try_for_each(npy::Writer::finish)
    }
}
