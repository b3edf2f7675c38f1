//! `vqa`: evaluates models on questions about images.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use digrap_bench::data::{WholeFile, vqa_json};
use digrap_bench::error::{Error, Result};
use digrap_bench::hub::Lock;
use digrap_bench::model::decoding::{Decoding, Strategy};
use digrap_bench::model::text::Prompt;
use digrap_bench::report::{self, Conditions, Row};
use digrap_bench::runtime::{self, Device, Runtime};
use digrap_bench::shift::use_threads;
use digrap_bench::store;
use digrap_bench::suite::{
    Evaluation, Event, Overview, Plan, PlannedDataset, PlannedModel, Shard, Suite, answer_shard, evaluate,
    prepare_folder,
};
use digrap_bench::tensor::DType;
use serde::Serialize;

use super::features;
use super::kernels;
use super::known;
use super::machine::{Folders, folders, search_path};
use super::progress::Stages;
use super::shards;
use super::source::{self, HubArgs};

/// Arguments of `vqa`.
#[derive(Debug, Args)]
pub struct VqaArgs {
    /// Model folder in the Hub's layout (config.json, *.safetensors, tokenizer.json), or a name on the Hub such as
    /// `org/name` or `org/name@revision`; several are evaluated in turn
    #[arg(long, value_name = "MODEL", required_unless_present = "zero_shot", num_args = 1..)]
    model: Vec<PathBuf>,
    /// A model that was not fine-tuned, which gets a row and a prompt of its own in the suite
    #[arg(long, value_name = "MODEL", requires = "suite", conflicts_with_all = ["dataset", "questions"], num_args = 1..)]
    zero_shot: Vec<PathBuf>,
    /// A suite of datasets with prompts, metrics and averages: a known one (`list suites`), or a TOML file
    #[arg(long, value_name = "NAME|FILE", group = "known")]
    suite: Option<String>,
    /// A known dataset; several are evaluated in turn
    #[arg(long, value_name = "NAME", num_args = 1.., group = "known", required_unless_present_any = ["suite", "questions"])]
    dataset: Vec<String>,
    /// Folder of the known dataset, or the one that has a folder for each of several or of the suite [default: that of
    /// the user's data]
    #[arg(long, value_name = "DIR", requires = "known")]
    root: Option<PathBuf>,
    /// Question file in the official VQA format, for a set of your own
    #[arg(long, value_name = "FILE", requires = "images", conflicts_with = "known")]
    questions: Option<PathBuf>,
    /// Annotation file in the official VQA format; without it answers are written but not scored
    #[arg(long, value_name = "FILE", requires = "questions")]
    annotations: Option<PathBuf>,
    /// Folder of the images
    #[arg(long, value_name = "DIR", requires = "questions")]
    images: Option<PathBuf>,
    /// File names of the images, such as `{image_id}.png` [default: COCO_{data_subtype}_{image_id:012}.jpg]
    #[arg(long, value_name = "TEMPLATE", requires = "questions")]
    image_name: Option<String>,
    /// How each question is put to the model; `list prompts` shows all. Google's PaliGemma checkpoints were
    /// trained with prompts such as `answer en {question}`: `answer-en` is what they expect [default: the suite's,
    /// else bare]
    #[arg(long, value_name = "PRESET")]
    prompt: Option<String>,
    /// How to compute accuracy [default: the suite's, else the dataset's own, official-2021 for a set of your own]
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Search for the answer: greedy or beam:K [default: the suite's, else greedy]
    #[arg(long, value_name = "SEARCH")]
    decode: Option<String>,
    /// Upper bound of the generated tokens [default: the suite's, else 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: Option<u32>,
    /// Questions per call of the model, or `auto`
    #[arg(long, value_name = "N", default_value = "auto")]
    batch_size: String,
    /// Answer only the first N questions of each dataset; table.md and run.json say so
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Where to compute: cpu, cuda or cuda:I
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Compute dtype: auto, f32, f16 or bf16
    #[arg(long, value_name = "DTYPE", default_value = "auto")]
    dtype: String,
    /// Threads of the CPU [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Folder for <dataset>.results.json, run.json and table.md
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// File that keeps the answers [default: store.sqlite in the output folder, else in the user's data folder]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Answer only the questions about the images that fall to part I of N, and keep them in a store of their own; `runs
    /// import` folds the stores of all parts into one. `1/1` is all [default: by torchrun's, MPI's and Slurm's variables]
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Measure as well how far each dataset of the suite has shifted: distances of image, question, both, and both with
    /// the answer from those that the dataset in distribution is trained on (`shift` has settings for that)
    #[arg(long, requires = "suite")]
    shift: bool,
    /// Measure distances from the fit in this file, which `shift --save-fit` has written
    #[arg(long, value_name = "FILE", requires = "shift")]
    fit: Option<PathBuf>,
    /// Folder for the features, as <dataset>.<vision|question|joint|answer>.npy
    #[arg(long, value_name = "DIR", requires = "shift")]
    features_output: Option<PathBuf>,
    #[command(flatten)]
    hub: HubArgs,
}

/// Name of a set of one's own, in tables and file names.
pub const CUSTOM: &str = "custom";

/// How questions are put, where neither the arguments nor a suite say.
const PROMPT: &str = "bare";

/// How answers are searched for, where neither the arguments nor a suite say.
const DECODING: Decoding = Decoding { strategy: Strategy::Greedy, max_new_tokens: 20 };

/// What `--json` prints and `run.json` holds.
#[derive(Serialize)]
struct Run<'a> {
    program_version: &'static str,
    /// Only so many questions of each dataset were asked, the first ones; none where all were.
    limit: Option<usize>,
    /// The table of the suite.
    #[serde(skip_serializing_if = "Option::is_none")]
    suite: Option<Overview>,
    /// What was given by hand and so is not as the suite says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    overrides: Vec<String>,
    evaluations: &'a [Evaluation],
}

/// Evaluates, writes the output folder and prints the table, or the JSON document.
pub fn run(args: &VqaArgs, json: bool) -> Result<()> {
    let shard = shards::chosen(args.shard.as_deref())?;
    if args.shift {
        kernels::choose()?;
    }
    let folders = folders()?;
    let suite = args.suite.as_deref().map(Suite::load).transpose()?;
    let (mut plan, locks) = plan(args, suite.as_ref(), &folders)?;
    plan.limit = shorten(&mut plan.datasets, args.limit);
    if plan.shift.is_some() {
        use_threads(plan.threads);
    }
    let runtime = runtime::load(&runtime::locate(&search_path(&folders))?, plan.threads)?;
    if let Some(shard) = shard {
        return run_shard((plan, locks), shard, &runtime, json);
    }
    let mut display = Display::default();
    let evaluations = evaluate(&plan, &runtime, &mut |model, event| display.show(model, event))?;
    display.finish();
    let run = Run {
        program_version: env!("CARGO_PKG_VERSION"),
        limit: plan.limit,
        suite: suite.as_ref().map(|suite| suite.overview(&evaluations)),
        overrides: suite.as_ref().map_or_else(Vec::new, |_| overrides(args)),
        evaluations: &evaluations,
    };
    let overview = run.suite.as_ref().map_or_else(String::new, |suite| overview(suite, &run.overrides));
    let table = table(&plan, &evaluations) + &features::table(&evaluations);
    if let Some(output) = &plan.output {
        let document = serde_json::to_string_pretty(&run)
            .map_err(|cause| Error::internal("cannot write the run as JSON").caused_by(cause))?;
        write_whole(&output.join("run.json"), &(document + "\n"))?;
        write_whole(&output.join("table.md"), &(overview.clone() + &table))?;
        source::write_locks(output, &locks)?;
    }
    if json {
        return super::print_json(&run);
    }
    // A terminal shows the end, where the averages belong.
    let gap = if overview.is_empty() { "" } else { "\n" };
    super::print(&(table + gap + overview.trim_end_matches('\n') + gap))
}

/// Answers what falls to a shard, into a store of its own, and says how the shards are folded.
fn run_shard((mut plan, locks): (Plan, Vec<Lock>), shard: Shard, runtime: &Runtime, json: bool) -> Result<()> {
    let own = shards::store_of(&plan.store, shard);
    let whole = std::mem::replace(&mut plan.store, own);
    let mut display = Display::default();
    let parts = answer_shard(&plan, shard, runtime, &mut |model, event| display.show(model, event))?;
    display.finish();
    if let Some(output) = &plan.output {
        shards::keep_locks(output, &locks)?;
    }
    shards::print(shard, &parts, [&whole, &plan.store], json)
}

fn plan(args: &VqaArgs, suite: Option<&Suite>, folders: &Folders) -> Result<(Plan, Vec<Lock>)> {
    let device: Device = args.device.parse()?;
    let dtype = parse_dtype(&args.dtype)?;
    let batch_size = parse_batch_size(&args.batch_size)?;
    let store = match (&args.store, &args.output) {
        (Some(store), _) => store.clone(),
        (None, Some(output)) => output.join(store::FILE_NAME),
        (None, None) => folders.data.join(store::FILE_NAME),
    };
    let (decoding, datasets) = (decoding(args, suite)?, datasets(args, suite)?);
    let shift = suite.filter(|_| args.shift).map(|suite| {
        let root = args.root.as_deref();
        features::default_plan(suite, root, args.fit.as_deref(), args.features_output.as_deref())
    });
    let shift = shift.transpose()?;
    let (models, locks) = models(args, suite, folders)?;
    let plan = Plan {
        models,
        decoding,
        datasets,
        limit: None,
        encoders: Vec::new(),
        answers: true,
        shift,
        batch_size,
        device,
        dtype,
        threads: args.threads.map_or_else(available_threads, usize::from),
        store,
        output: args.output.clone(),
        scratch: folders.cache.join("converted"),
        maker: super::maker(),
    };
    Ok((plan, locks))
}

/// The models with their prompts, which are those given by hand, else the suite's; and what is used of the Hub for them.
fn models(args: &VqaArgs, suite: Option<&Suite>, folders: &Folders) -> Result<(Vec<PlannedModel>, Vec<Lock>)> {
    let given = args.prompt.as_deref().map(Prompt::find).transpose()?;
    let prompts = match (given, suite) {
        (Some(prompt), _) => [prompt; 2],
        (None, Some(suite)) => [suite.zero_shot, suite.evaluation],
        (None, None) => [Prompt::find(PROMPT)?; 2],
    };
    let sources = source::models(&[args.zero_shot.as_slice(), &args.model].concat(), &args.hub, folders)?;
    let planned = |(position, source)| {
        let zero_shot = position < args.zero_shot.len();
        PlannedModel { source, prompt: prompts[usize::from(!zero_shot)], zero_shot }
    };
    Ok((sources.models.into_iter().enumerate().map(planned).collect(), sources.locks))
}

fn decoding(args: &VqaArgs, suite: Option<&Suite>) -> Result<Decoding> {
    let stated = suite.map_or(DECODING, |suite| suite.decoding);
    let strategy = args.decode.as_deref().map_or(Ok(stated.strategy), str::parse)?;
    Ok(Decoding {
        strategy,
        max_new_tokens: args.max_new_tokens.map_or(stated.max_new_tokens, |tokens| tokens as usize),
    })
}

fn datasets(args: &VqaArgs, suite: Option<&Suite>) -> Result<Vec<PlannedDataset>> {
    let (metric, root) = (args.metric.as_deref(), args.root.as_deref());
    if let Some(suite) = suite {
        return known::suite(suite, root, metric);
    }
    let Some(questions) = &args.questions else {
        return known::datasets(&args.dataset, root, metric);
    };
    let files = vqa_json::Files {
        questions,
        annotations: args.annotations.as_deref(),
        images: args.images.as_deref(),
        image_name: args.image_name.as_deref(),
    };
    let mut custom = known::custom(files, metric)?;
    custom.dataset.name = CUSTOM.to_owned();
    Ok(vec![custom])
}

/// The arguments that replace what a suite says.
fn overrides(args: &VqaArgs) -> Vec<String> {
    let VqaArgs { prompt, metric, decode, max_new_tokens, .. } = args;
    let tokens = max_new_tokens.map(|tokens| tokens.to_string());
    let given = [("prompt", prompt), ("metric", metric), ("decode", decode), ("max-new-tokens", &tokens)];
    given.into_iter().filter_map(|(name, value)| Some(format!("--{name} {}", value.as_ref()?))).collect()
}

/// Leaves the first `limit` questions of each dataset; the limit, if questions were left out for it.
pub fn shorten(datasets: &mut Vec<PlannedDataset>, limit: Option<u64>) -> Option<usize> {
    let count = usize::try_from(limit?).unwrap_or(usize::MAX);
    let longer = datasets.iter().any(|planned| planned.dataset.questions.len() > count);
    *datasets = std::mem::take(datasets)
        .into_iter()
        .map(|planned| PlannedDataset { dataset: planned.dataset.limit(count), ..planned })
        .collect();
    longer.then_some(count)
}

pub fn parse_dtype(text: &str) -> Result<Option<DType>> {
    match text {
        "auto" => Ok(None),
        "f32" | "float32" => Ok(Some(DType::F32)),
        "f16" | "float16" => Ok(Some(DType::F16)),
        "bf16" | "bfloat16" => Ok(Some(DType::BF16)),
        _ => Err(Error::input(format!("unknown dtype `{text}`")).hint("known: auto, f32, f16, bf16")),
    }
}

pub fn parse_batch_size(text: &str) -> Result<Option<usize>> {
    match text.parse() {
        Ok(size) if size >= 1 => Ok(Some(size)),
        _ if text == "auto" => Ok(None),
        _ => Err(Error::input(format!("the batch size `{text}` is neither `auto` nor a number of questions"))
            .hint("give a number from 1 on")),
    }
}

pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn overview(overview: &Overview, overrides: &[String]) -> String {
    let table = report::overview(overview);
    let distances =
        if overview.shifts.is_empty() { "" } else { " Shifts are mean distances from the training set, without unit." };
    let told = match overrides {
        [] => String::new(),
        given => format!("Not as the suite says, but by hand: {}.\n", given.join(", ")),
    };
    format!(
        "{table}\nAccuracy in percent.{distances} Averages are plain means over datasets. Suite: {}.\n{told}\n",
        overview.suite
    )
}

fn table(plan: &Plan, evaluations: &[Evaluation]) -> String {
    fn row(evaluation: &Evaluation) -> Row<'_> {
        let Evaluation { model, zero_shot, dataset, summary, measures, pace, selected_on_reported, .. } = evaluation;
        let n = pace.answered + pace.reused;
        let (zero_shot, selected_on_reported) = (*zero_shot, *selected_on_reported);
        Row { model, zero_shot, dataset, summary: summary.as_ref(), measures, n, selected_on_reported }
    }
    let prompt = |zero_shot| Some(plan.models.iter().find(|model| model.zero_shot == zero_shot)?.prompt.template);
    let decoding = plan.decoding.strategy.to_string();
    let conditions =
        Conditions { prompt: prompt(false), zero_shot_prompt: prompt(true), decoding: &decoding, limit: plan.limit };
    let mut table = report::table(&evaluations.iter().map(row).collect::<Vec<_>>(), conditions);
    let mut told: Vec<&str> = Vec::new();
    for Evaluation { dataset, portion, .. } in evaluations {
        if let Some(portion) = portion.filter(|_| !told.contains(&dataset.as_str())) {
            told.push(dataset);
            table += &report::portion(dataset, portion);
        }
    }
    table
}

/// Makes sure that files can be written to the folder that `--output` names.
pub fn create_output(folder: &Path) -> Result<()> {
    prepare_folder(folder, "--output")
}

pub fn write_whole(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let write = || {
        let mut file = WholeFile::create(path)?;
        file.write_all(content.as_ref())?;
        file.finish()
    };
    write().map_err(|cause| Error::input(format!("cannot write `{}`", path.display())).caused_by(cause))
}

/// One progress bar for each long piece of work.
#[derive(Default)]
pub struct Display {
    stages: Stages,
}

impl Display {
    pub fn show(&mut self, model: &str, event: Event) {
        const MEGABYTE: u64 = 1_000_000;
        match event {
            Event::Converted { done, total } => {
                let title = format!("converting the weights of {model}");
                self.stages.set(&title, "MB", done / MEGABYTE, total / MEGABYTE);
            }
            Event::Hashed { done, total } => {
                self.stages.set(&format!("hashing the weights of {model}"), "MB", done / MEGABYTE, total / MEGABYTE);
            }
            Event::Fitted { dataset, done, total } => {
                let title = format!("{model}: reference of {dataset}");
                self.stages.set(&title, "questions", done as u64, total as u64);
            }
            Event::Deficient { modality, deficiency } => {
                self.stages.say(&format!("warning: {model}, {modality} features: {deficiency}"));
            }
            Event::Measured { dataset, done, total } => {
                let title = format!("{model}: distances of {dataset}");
                self.stages.set(&title, "questions", done as u64, total as u64);
            }
            Event::Answered { dataset, done, total } => {
                self.stages.set(&format!("{model} on {dataset}"), "questions", done as u64, total as u64);
            }
        }
    }

    pub fn finish(&mut self) {
        self.stages.finish();
    }
}
