//! `train`: fine-tunes a model on a dataset.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use digrap_bench::data::{find_dataset, vqa_json};
use digrap_bench::error::{Error, Result};
use digrap_bench::hub::Lock;
use digrap_bench::model::text::Prompt;
use digrap_bench::model::training::{Lora, Parameters};
use digrap_bench::runtime::{self, Device};
use digrap_bench::store;
use digrap_bench::suite::{
    Length, ModelSource, PlannedDataset, Sampling, Suite, TrainingPlan, TrainingReport, Trial, Tuning, TuningReport,
    Validation, train_model, tune,
};
use digrap_bench::tensor::DType;
use digrap_bench::train::{self, Anchor, ChosenMethod, Method, Optimizer, Schedule, Selection};
use serde::Serialize;

use super::known;
use super::machine::{Folders, folders, search_path};
use super::source::{self, HubArgs, Sources};
use super::train_display::{Display, Pace};

/// Arguments of `train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Model to start from: a folder (config.json, *.safetensors, tokenizer.json), or a name on the Hub such as
    /// `org/name` or `org/name@revision`
    #[arg(long, value_name = "MODEL", required_unless_present = "from_scratch")]
    model: Option<PathBuf>,
    /// Folder with config.json, tokenizer.json and preprocessor_config.json, to start from random weights
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    from_scratch: Option<PathBuf>,
    /// A known dataset, whose training part is used
    #[arg(long, value_name = "NAME", group = "known", required_unless_present_any = ["suite", "questions"])]
    dataset: Option<String>,
    /// A suite, a known one or a TOML file: the training part of its set in distribution, with its prompt for training
    #[arg(long, value_name = "NAME|FILE", group = "known")]
    suite: Option<String>,
    /// Folder of the known dataset, or the one that has a folder for each dataset of the suite [default: that
    /// of the user's data]
    #[arg(long, value_name = "DIR", requires = "known")]
    root: Option<PathBuf>,
    /// Question file in the official VQA format, for a set of your own
    #[arg(
        long,
        value_name = "FILE",
        requires_all = ["annotations", "images"],
        conflicts_with = "known"
    )]
    questions: Option<PathBuf>,
    /// Annotation file in the official VQA format
    #[arg(long, value_name = "FILE", requires = "questions")]
    annotations: Option<PathBuf>,
    /// Folder of the images
    #[arg(long, value_name = "DIR", requires = "questions")]
    images: Option<PathBuf>,
    /// File names of the images, such as `{image_id}.png` [default: COCO_{data_subtype}_{image_id:012}.jpg]
    #[arg(long, value_name = "TEMPLATE", requires = "questions")]
    image_name: Option<String>,
    /// Folder of the run, which becomes a model for `vqa --model`; the same command continues a killed run
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// Fine-tuning method; `list methods` shows all
    #[arg(long, value_name = "NAME", default_value = "vanilla")]
    method: String,
    /// Settings of the method, such as `mu=0.5`; `list methods` shows all
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// Values to try for a setting of the method or for learning_rate, such as `mu=0.01,0.1,1`; several sweeps make a
    /// grid. The best by validation accuracy becomes the output
    #[arg(long, value_name = "KEY=VALUES", num_args = 1..)]
    sweep: Vec<String>,
    /// Folder of a run whose validation accuracy is to be matched within 0.1 points, by the strength of the method (see
    /// `list methods`): trains up to 12 times, first with what --set says
    #[arg(long, value_name = "RUN", conflicts_with = "sweep")]
    match_id: Option<PathBuf>,
    /// What deviations are measured from: the weights at the start, or the origin [default: start; with --lora origin]
    #[arg(long, value_name = "WHAT", value_enum)]
    anchor: Option<AnchorName>,
    /// Name patterns of trained tensors that have no anchor, such as a fresh head
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    exclude: Vec<String>,
    /// What trains: all, head, norms+head (normalisation layers and head), or name patterns such as `*layers.1.*`
    /// [default: what the method trains, else all; with --lora only the LoRA matrices]
    #[arg(long, value_name = "WHAT", num_args = 1..)]
    trainable: Vec<String>,
    /// Train LoRA matrices, such as `r=8,alpha=16,dropout=0.05,targets=q_proj+v_proj`
    #[arg(long, value_name = "SPEC")]
    lora: Option<String>,
    /// How each question is put to the model; `list prompts` shows all [default: the suite's for training, else bare]
    #[arg(long, value_name = "PRESET")]
    prompt: Option<String>,

    /// Questions per micro-batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Micro-batches per optimiser step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    gradient_accumulation_steps: u32,
    /// Passes over the training questions
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    num_train_epochs: u32,
    /// Optimiser steps, instead of epochs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_steps: Option<u64>,
    /// Optimiser that the method builds on
    #[arg(long, value_name = "NAME", value_enum, default_value_t = OptimizerName::Adamw)]
    optim: OptimizerName,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    learning_rate: f64,
    /// How the learning rate changes: lavis is linear warm-up, then a cosine that moves from epoch to epoch
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ScheduleName::Lavis)]
    lr_scheduler_type: ScheduleName,
    /// Steps of the warm-up (micro-batches for lavis)
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup_steps: u64,
    /// Learning rate that the warm-up of lavis starts with [default: the highest one, as in LAVIS]
    #[arg(long, value_name = "RATE")]
    warmup_lr: Option<f64>,
    /// Learning rate that a cosine ends with
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    min_lr: f64,
    /// Decoupled for adamw, part of the gradient for sgd
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    weight_decay: f64,
    /// Decay rate of AdamW's first moment
    #[arg(long, value_name = "X", default_value_t = 0.9)]
    adam_beta1: f64,
    /// Decay rate of AdamW's second moment
    #[arg(long, value_name = "X", default_value_t = 0.999)]
    adam_beta2: f64,
    /// Added to the root of AdamW's second moment
    #[arg(long, value_name = "X", default_value_t = 1e-8)]
    adam_epsilon: f64,
    /// Momentum of sgd, in Nesterov's form
    #[arg(long, value_name = "X", default_value_t = 0.9)]
    momentum: f64,
    /// Upper bound of the norm of all gradients together [default: none]
    #[arg(long, value_name = "X")]
    max_grad_norm: Option<f64>,
    /// Sampling weights by answer type, which may change at given steps, such as `yes/no=0.2;600:yes/no=1`
    /// [default: every question once per epoch]
    #[arg(long, value_name = "SPEC")]
    sampling: Option<String>,

    /// What selects the checkpoint: held-out images of the training set, nothing, or the reported set (parity with
    /// published numbers only; tables mark it)
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = ValidationName::HeldOut)]
    validation: ValidationName,
    /// Share of the training images that are held out [default: the dataset's own, 0.05 for a set of your own]
    #[arg(long, value_name = "X")]
    validation_share: Option<f64>,
    /// Optimiser steps between checkpoints, beside those after each epoch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    save_steps: Option<u64>,
    /// Seed of the order, of the held-out images, of dropout and of new weights
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Compute layers once more on the way back instead of keeping their results: less memory, more time
    #[arg(long)]
    recompute: bool,
    /// Where to compute: cpu, cuda or cuda:I
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Compute dtype: f32, f16 or bf16; trained weights and moments are f32
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    dtype: String,
    /// Threads of the CPU [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// File that holds the training curves [default: OUTPUT/store.sqlite]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OptimizerName {
    Adamw,
    Sgd,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AnchorName {
    Start,
    Origin,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScheduleName {
    Lavis,
    Cosine,
    Linear,
    Constant,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ValidationName {
    HeldOut,
    Reported,
    None,
}

/// How questions are put, where neither the arguments nor a suite say.
const PROMPT: &str = "bare";

/// Share of held-out images where the dataset has none of its own.
const VALIDATION_SHARE: f64 = 0.05;

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Document<R> {
    #[serde(flatten)]
    report: R,
    pace: Pace,
}

/// Trains and prints a summary, or the JSON document.
pub fn run(args: &TrainArgs, json: bool) -> Result<()> {
    let folders = folders()?;
    let (plan, locks) = plan(args, &folders)?;
    let tuning = tuning(args)?;
    let runtime = runtime::load(&runtime::locate(&search_path(&folders))?, plan.threads)?;
    let mut display = Display::default();
    let mut show = |event| display.show(&event);
    let Some(tuning) = tuning else {
        let report = train_model(&plan, &runtime, &mut show)?;
        source::write_locks(&plan.output, &locks)?;
        let pace = display.finish();
        return if json {
            super::print_json(&Document { report, pace })
        } else {
            super::print(&summary(&report, &pace))
        };
    };
    let report = tune(&plan, &tuning, &runtime, &mut show)?;
    source::write_locks(&plan.output, &locks)?;
    let pace = display.finish();
    let text = table(&report) + &summary(&report.chosen, &pace);
    if json { super::print_json(&Document { report, pace }) } else { super::print(&text) }
}

fn tuning(args: &TrainArgs) -> Result<Option<Tuning>> {
    let sweeps = args.sweep.iter().map(|text| text.parse()).collect::<Result<Vec<_>>>()?;
    Ok(match &args.match_id {
        Some(run) => Some(Tuning::Match(run.clone())),
        None if sweeps.is_empty() => None,
        None => Some(Tuning::Grid(sweeps)),
    })
}

/// The runs with their accuracies; the chosen one is marked.
fn table(report: &TuningReport) -> String {
    let width = report.trials.iter().map(|trial| trial.name.len()).max().unwrap_or(0);
    let lines = report.trials.iter().map(|Trial { name, accuracy }| {
        let mark = if *name == report.chosen_trial { "  chosen" } else { "" };
        format!("{name:<width$}  {accuracy:6.2} %{mark}\n")
    });
    let target = report.target.map_or_else(String::new, |target| format!("to match: {target:.2} %\n"));
    lines.collect::<String>() + &target
}

fn plan(args: &TrainArgs, folders: &Folders) -> Result<(TrainingPlan, Vec<Lock>)> {
    let device: Device = args.device.parse()?;
    let suite = args.suite.as_deref().map(Suite::load).transpose()?;
    let known = known(args, suite.as_ref());
    let questions = questions(args, known.as_ref())?;
    let method = method(args)?;
    let (parameters, lora) = trained(args, method.method)?;
    let (validation, dtype) = (validation(args, known.as_ref())?, dtype(&args.dtype, device)?);
    let prompt = match (&args.prompt, &suite) {
        (None, Some(suite)) => suite.training,
        (given, _) => Prompt::find(given.as_deref().unwrap_or(PROMPT))?,
    };
    let sampling = args.sampling.as_deref().map_or_else(|| Ok(Sampling::default()), str::parse)?;
    // Comes last, as it may have to fetch the model.
    let Sources { mut models, locks } = source::models(args.model.as_slice(), &args.hub, folders)?;
    let start =
        models.pop().unwrap_or_else(|| ModelSource::folder(args.from_scratch.as_deref().unwrap_or(Path::new(""))));
    let plan = TrainingPlan {
        model: start.folder,
        base: start.base,
        from_scratch: args.from_scratch.is_some(),
        validation,
        questions: Arc::new(questions),
        prompt,
        parameters,
        lora,
        sampling,
        batch_size: args.batch_size as usize,
        accumulation: u64::from(args.gradient_accumulation_steps),
        length: args.max_steps.map_or(Length::Epochs(args.num_train_epochs.into()), Length::Steps),
        method,
        anchor: args.anchor.map(|anchor| match anchor {
            AnchorName::Start => Anchor::Start,
            AnchorName::Origin => Anchor::Origin,
        }),
        exclude: args.exclude.clone(),
        optimizer: optimizer(args),
        learning_rate: args.learning_rate,
        schedule: schedule(args),
        clip: args.max_grad_norm,
        save_every: args.save_steps,
        seed: args.seed,
        recompute: args.recompute,
        dtype,
        device,
        threads: args.threads.map_or_else(super::vqa::available_threads, usize::from),
        output: args.output.clone(),
        phases: args.output.clone(),
        store: args.store.clone().unwrap_or_else(|| args.output.join(store::FILE_NAME)),
        scratch: folders.cache.join("converted"),
    };
    Ok((plan, locks))
}

/// A known dataset and its folder, where one is given.
type KnownDataset = (String, Option<PathBuf>);

/// The dataset that is named, or that of the suite which is in distribution.
fn known(args: &TrainArgs, suite: Option<&Suite>) -> Option<KnownDataset> {
    match (suite, &args.dataset) {
        (Some(suite), _) => {
            let name = suite.in_distribution().row.name;
            Some((name.to_owned(), args.root.as_ref().map(|root| root.join(name))))
        }
        (None, Some(name)) => Some((name.clone(), args.root.clone())),
        (None, None) => None,
    }
}

fn questions(args: &TrainArgs, known: Option<&KnownDataset>) -> Result<PlannedDataset> {
    if let Some((name, root)) = known {
        return known::training(name, root.as_deref());
    }
    let Some(questions) = &args.questions else { return Err(Error::internal("neither a dataset nor questions")) };
    let files = vqa_json::Files {
        questions,
        annotations: args.annotations.as_deref(),
        images: args.images.as_deref(),
        image_name: args.image_name.as_deref(),
    };
    known::custom(files, None)
}

fn validation(args: &TrainArgs, known: Option<&KnownDataset>) -> Result<Validation> {
    let of_dataset = || known.map(|(name, _)| find_dataset(name)).transpose();
    match args.validation {
        ValidationName::None => Ok(Validation::None),
        ValidationName::HeldOut => {
            let own = of_dataset()?.map_or(VALIDATION_SHARE, |row| row.validation_share);
            match args.validation_share.unwrap_or(own) {
                share if share > 0.0 && share < 1.0 => Ok(Validation::HeldOut(share)),
                share => Err(Error::input(format!("a share of {share} of the images cannot be held out"))
                    .hint("give a number between 0 and 1, or --validation none")),
            }
        }
        ValidationName::Reported => match known {
            Some((name, root)) => Ok(Validation::Reported(Arc::new(known::dataset(name, root.as_deref(), None)?))),
            None => Err(Error::input("a set of your own has no reported part").hint("use --validation held-out")),
        },
    }
}

fn method(args: &TrainArgs) -> Result<ChosenMethod> {
    let pair = |text: &'_ String| match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => Err(Error::input(format!("`{text}` is no setting"))
            .hint("write --set name=value; `list methods` shows what can be set")),
    };
    let pairs = args.set.iter().map(pair).collect::<Result<Vec<_>>>()?;
    let given: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    ChosenMethod::new(train::find(&args.method)?, &given)
}

fn trained(args: &TrainArgs, method: &Method) -> Result<(Parameters, Option<Lora>)> {
    let lora = args.lora.as_deref().map(str::parse::<Lora>).transpose()?;
    let parameters = match args.trainable.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] if lora.is_some() => Parameters::None,
        [] if method.selection == Selection::Head => Parameters::Head,
        [] if method.selection == Selection::NormsAndHead => Parameters::NormsAndHead,
        [] | ["all"] => Parameters::All,
        ["head"] => Parameters::Head,
        ["norms+head"] => Parameters::NormsAndHead,
        patterns => Parameters::Matching(patterns.iter().map(|pattern| (*pattern).to_owned()).collect()),
    };
    if lora.is_some() && parameters != Parameters::None {
        return Err(Error::input("--lora trains LoRA matrices alone, --trainable trains weights of the checkpoint")
            .hint("give one of them"));
    }
    Ok((parameters, lora))
}

fn optimizer(args: &TrainArgs) -> Optimizer {
    let weight_decay = args.weight_decay;
    match args.optim {
        OptimizerName::Adamw => {
            Optimizer::AdamW { betas: [args.adam_beta1, args.adam_beta2], eps: args.adam_epsilon, weight_decay }
        }
        OptimizerName::Sgd => Optimizer::Sgd { momentum: args.momentum, nesterov: args.momentum != 0.0, weight_decay },
    }
}

fn schedule(args: &TrainArgs) -> Schedule {
    let (warmup, floor) = (args.warmup_steps, args.min_lr);
    match args.lr_scheduler_type {
        ScheduleName::Lavis => Schedule::Lavis { warmup, start: args.warmup_lr.unwrap_or(args.learning_rate), floor },
        ScheduleName::Cosine => Schedule::Cosine { warmup, floor },
        ScheduleName::Linear => Schedule::Linear { warmup },
        ScheduleName::Constant => Schedule::Constant,
    }
}

fn dtype(text: &str, device: Device) -> Result<DType> {
    match super::vqa::parse_dtype(text)?.unwrap_or(DType::F32) {
        dtype @ (DType::BF16 | DType::F16) if device == Device::Cpu => {
            Err(Error::input(format!("ONNX Runtime cannot train in {} on the CPU", dtype.name()))
                .hint("use --dtype f32, or --device cuda"))
        }
        dtype => Ok(dtype),
    }
}

fn summary(report: &TrainingReport, pace: &Pace) -> String {
    let TrainingReport { output, steps, trained_parameters, training_questions, validation_questions, .. } = report;
    let settings: Vec<String> = report.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut text = format!("{} {}", report.method, settings.join(" ")).trim_end().to_owned() + "\n";
    text += &format!("{steps} steps over {training_questions} questions, {trained_parameters} trained parameters\n");
    text += &match report.best {
        Some((score, step)) => format!(
            "best validation: {score:.2} % of {validation_questions} {} questions after step {step}\n",
            report.validation
        ),
        None => "no validation: the last step is kept\n".to_owned(),
    };
    if let Some((accuracy, _)) = report.accuracy.zip(report.best).filter(|(accuracy, best)| *accuracy != best.0) {
        text += &format!("the model between start and end: {accuracy:.2} %\n");
    }
    if let (Some(step), Some(rate), Some(memory)) = (pace.median_step_s, pace.samples_per_second, pace.peak_memory_mib)
    {
        text += &format!("{:.1} ms per step, {rate:.0} samples/s, {memory:.0} MiB above the start\n", 1000.0 * step);
    }
    text + &format!("model: {}\n", output.display())
}
