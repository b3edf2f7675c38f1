//! Models and encoders made ready to run over datasets, with the settings their results are filed under.

use sha2::{Digest, Sha256};

use super::answering::{Event, Filing, Pace, find_out_all};
use super::distances::{
    Measuring, Reference, ShiftPlan, facts, fit_beside, read_fit, reference_of, reference_sample, reference_settings,
};
use super::evaluation::{Plan, PlannedModel};
use super::fitting::fit;
use super::pipeline::{Pass, Subject};
use crate::data::Dataset;
use crate::data::image::stamp;
use crate::error::{Error, Result};
use crate::model::encoder::{Encoder, EncoderCheckpoint, EncoderOptions, Reader};
use crate::model::text::Prompt;
use crate::model::training::Trained;
use crate::model::weights::{Placement, Weights};
use crate::model::{Checkpoint, Loading, Model, hex};
use crate::runtime::{Device, Runtime, SessionOptions, Sharing};
use crate::store::{AnswerSettings, SettingsId, Store};
use crate::tensor::DType;

/// Models whose weights take up to this many bytes in the compute dtype run as replicas, one per thread, each with a
/// rearranged copy of the weights; of larger ones there is one, whose operators use all threads and whose weights stay
/// in the mapped file. The size alone decides, so that equal runs on different machines compute alike.
const REPLICA_LIMIT: u64 = 256 << 20;

/// Upper bound of the rearranged weights of all replicas. Their number changes no answer.
const REPLICAS_LIMIT: u64 = 4 << 30;

/// Batch sizes that are chosen where none is given, for models below and above the limit.
const BATCH_SIZES: [usize; 2] = [64, 16];

/// How a checkpoint is run.
pub(super) struct Execution {
    pub dtype: DType,
    pub sharing: Sharing,
    pub replicas: usize,
    pub batch_size: usize,
}

impl Execution {
    fn of(plan: &Plan, checkpoint: &Checkpoint) -> Self {
        let dtype = dtype_of(plan, checkpoint);
        let chosen = Self::chosen(plan.device, dtype, plan.threads, &checkpoint.weights);
        Self { batch_size: plan.batch_size.unwrap_or(chosen.batch_size), ..chosen }
    }

    /// What the size of the weights asks for.
    pub(super) fn chosen(device: Device, dtype: DType, threads: usize, weights: &Weights) -> Self {
        let bytes = weights.size() / weights.dtype().size() as u64 * dtype.size() as u64;
        let small = bytes <= REPLICA_LIMIT;
        let (sharing, replicas) = match device {
            Device::Cpu if small => (Sharing::Replicas, threads.min((REPLICAS_LIMIT / bytes.max(1)) as usize)),
            _ => (Sharing::Operators, 1),
        };
        let batch_size = BATCH_SIZES[usize::from(!small)];
        Self { dtype, sharing, replicas, batch_size }
    }
}

/// A model or an encoder, and the settings its answers are filed under.
pub(super) struct Loaded<S> {
    /// As many as there are threads, or one whose operators use all threads.
    pub replicas: Vec<S>,
    pub settings: AnswerSettings,
    /// Number of the settings, where answers are asked for.
    pub answers: Option<SettingsId>,
    pub prompt: &'static Prompt,
    pub batch_size: usize,
}

pub(super) fn load_model(
    plan: &Plan,
    runtime: &Runtime,
    (checkpoint, planned): (&Checkpoint, &PlannedModel),
    store: &mut Store,
    on_event: &mut dyn FnMut(Event),
) -> Result<Loaded<Model>> {
    let execution = Execution::of(plan, checkpoint);
    let total = checkpoint.weights.size();
    let mut tell = |event| {
        if total > REPLICA_LIMIT {
            on_event(event);
        }
    };
    let mut on_converted = |done| tell(Event::Converted { done, total });
    let placement = Placement::new(&checkpoint.weights, execution.dtype, &plan.scratch, &mut on_converted)?;
    let session = SessionOptions { device: plan.device, sharing: execution.sharing };
    let features = plan.shift.as_ref().map(|shift| shift.layers);
    let loading = Loading { session, replicas: execution.replicas, features };
    let replicas = Model::load(checkpoint, placement, &Trained::default(), runtime, &loading)?;
    let model = replicas.first().ok_or_else(|| Error::internal("no replica of the model was made"))?;
    model.check_decoding(&plan.decoding)?;
    let mut done = 0;
    let weights = weights_digest(&checkpoint.weights, store, &mut |bytes| {
        done += bytes;
        tell(Event::Hashed { done, total });
    })?;
    let configuration = checkpoint.configuration_digest()?;
    let prompt = planned.prompt;
    let (tokenizer, preprocessing) = (model.text().digest().to_owned(), model.images().describe());
    let made = Made { weights, configuration, tokenizer, preprocessing };
    let settings = settings(plan, runtime, &execution, prompt, made);
    let answers = if plan.answers { Some(store.settings(&settings)?) } else { None };
    Ok(Loaded { replicas, settings, answers, prompt, batch_size: execution.batch_size })
}

pub(super) fn load_encoder(
    plan: &Plan,
    runtime: &Runtime,
    checkpoint: &EncoderCheckpoint,
    store: &mut Store,
) -> Result<Loaded<Encoder>> {
    let shift = plan.shift.as_ref().ok_or_else(|| Error::internal("an encoder has features alone"))?;
    let chosen = Execution::chosen(plan.device, DType::F32, plan.threads, checkpoint.weights());
    let execution = Execution { batch_size: plan.batch_size.unwrap_or(chosen.batch_size), ..chosen };
    let options = EncoderOptions {
        session: SessionOptions { device: plan.device, sharing: execution.sharing },
        layer: shift.layers.of(checkpoint.modality()),
        scratch: plan.scratch.clone(),
    };
    let replicas = Encoder::load(checkpoint, runtime, &options, execution.replicas)?;
    let encoder = replicas.first().ok_or_else(|| Error::internal("no replica of the encoder was made"))?;
    let weights = weights_digest(checkpoint.weights(), store, &mut |_| ())?;
    let (tokenizer, preprocessing) = match encoder.reader() {
        Reader::Images(images) => (String::new(), images.describe()),
        Reader::Texts(texts) => (texts.digest().to_owned(), String::new()),
    };
    let configuration = checkpoint.configuration_digest().to_owned();
    let made = Made { weights, configuration, tokenizer, preprocessing };
    let settings = settings(plan, runtime, &execution, shift.prompt, made);
    Ok(Loaded { replicas, settings, answers: None, prompt: shift.prompt, batch_size: execution.batch_size })
}

impl<S: Subject> Loaded<S> {
    pub(super) fn find_out(
        &mut self,
        plan: &Plan,
        runtime: &Runtime,
        (dataset, distances): (&Dataset, Option<&Measuring>),
        store: &mut Store,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Pace> {
        let pass = self.pass(plan, dataset);
        let features = plan.shift.as_ref().and_then(|shift| shift.files_for(dataset));
        let filing = Filing { answers: self.answers, distances, features };
        find_out_all(&pass, &mut self.replicas, runtime.activity(), (store, filing), on_event)
    }

    fn pass<'a>(&self, plan: &Plan, dataset: &'a Dataset) -> Pass<'a> {
        Pass {
            dataset,
            prompt: self.prompt,
            answers: plan.answers,
            feature_prompt: plan.shift.as_ref().map_or(self.prompt, |shift| shift.prompt),
            decoding: plan.decoding,
            batch_size: self.batch_size,
            threads: plan.threads,
        }
    }

    /// The reference that distances are measured from, fitted where it is not known yet.
    pub(super) fn measuring(
        &mut self,
        plan: &Plan,
        shift: &ShiftPlan,
        runtime: &Runtime,
        store: &mut Store,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Measuring> {
        let mut settings = shift.settings(&self.settings);
        let fits = match &shift.reference {
            Reference::Fit(path) => {
                let fits = read_fit(path, &settings)?;
                settings.reference = reference_of(&fits);
                fits
            }
            Reference::Questions(dataset, file) => {
                settings.reference = reference_settings(dataset)?;
                let facts = facts(&settings)?;
                let file = file.clone().unwrap_or_else(|| fit_beside(store.path(), &facts));
                let pass = self.pass(plan, dataset);
                fit(&pass, &mut self.replicas, (&file, &facts), shift.files_for(dataset), on_event)?
            }
        };
        let measuring = Measuring::new(&fits, shift, &settings, store)?;
        for (modality, deficiency) in measuring.deficiencies() {
            on_event(Event::Deficient { modality, deficiency });
        }
        if let Reference::Questions(dataset, _) = &shift.reference {
            let sample = reference_sample(dataset);
            let pass = self.pass(plan, &sample);
            let filing = Filing { distances: Some(&measuring), ..Filing::default() };
            find_out_all(&pass, &mut self.replicas, runtime.activity(), (store, filing), on_event)?;
        }
        Ok(measuring)
    }
}

/// What a model or an encoder is made of: digests, and how images are read.
struct Made {
    weights: String,
    configuration: String,
    tokenizer: String,
    preprocessing: String,
}

/// What decides an answer besides the question and the image.
fn settings(plan: &Plan, runtime: &Runtime, execution: &Execution, prompt: &Prompt, made: Made) -> AnswerSettings {
    let Made { weights, configuration, tokenizer, preprocessing } = made;
    let provider = match (plan.device, execution.sharing) {
        (Device::Cpu, Sharing::Replicas) => "cpu",
        (Device::Cpu, Sharing::Operators | Sharing::Training { .. } | Sharing::Updates { .. }) => "cpu, shared weights",
        (Device::Cuda(_), _) => "cuda",
    };
    AnswerSettings {
        weights,
        configuration,
        tokenizer,
        prompt: prompt.template.to_owned(),
        decoding: plan.decoding.strategy.to_string(),
        max_new_tokens: plan.decoding.max_new_tokens,
        dtype: execution.dtype.name().to_owned(),
        provider: provider.to_owned(),
        runtime_version: runtime.info.version.clone(),
        preprocessing,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

pub(super) fn dtype_of(plan: &Plan, checkpoint: &Checkpoint) -> DType {
    let stored = checkpoint.dtype();
    plan.dtype.unwrap_or(if plan.device == Device::Cpu { DType::F32 } else { stored })
}

pub(super) fn check_dtype(device: Device, dtype: DType) -> Result<()> {
    match (device, dtype) {
        (Device::Cpu, DType::BF16) => Err(Error::input("ONNX Runtime has no bf16 matrix product on the CPU")
            .hint("use --dtype f32, or --device cuda")),
        _ => Ok(()),
    }
}

/// SHA-256 of the weights: that of the file, or over those of all files. Each is remembered by the store as long as size
/// and time of the file stay.
pub(super) fn weights_digest(weights: &Weights, store: &mut Store, on_bytes: &mut dyn FnMut(u64)) -> Result<String> {
    let mut digests = Vec::new();
    for (index, file) in weights.files().enumerate() {
        let stamp = stamp(file)?;
        let path = std::path::absolute(file)
            .map_err(|cause| Error::input(format!("`{}` cannot name a file", file.display())).caused_by(cause))?;
        digests.push(match store.digest(&path, stamp.size, stamp.modified_ns)? {
            Some(known) => known,
            None => {
                let digest = weights.digest(index, on_bytes);
                store.remember_digest(&path, stamp.size, stamp.modified_ns, &digest)?;
                digest
            }
        });
    }
    Ok(match digests.as_slice() {
        [only] => only.clone(),
        several => hex(&Sha256::digest(several.join("\n"))),
    })
}
