//! `shift` with a model or with encoders: features of a suite's datasets, measured from those of its training set.

use std::path::PathBuf;

use clap::Args;
use digrap_bench::data::Dataset;
use digrap_bench::error::{Error, Result};
use digrap_bench::model::decoding::{Decoding, Strategy};
use digrap_bench::model::features::{FeatureLayers, Layer};
use digrap_bench::model::text::Prompt;
use digrap_bench::runtime;
use digrap_bench::shift::{GaussianOptions, use_threads};
use digrap_bench::store;
use digrap_bench::suite::{Evaluation, ModelSource, Plan, PlannedModel, Reference, ShiftPlan, Suite, evaluate};
use serde::Serialize;

use super::features;
use super::known;
use super::machine::{Folders, folders, search_path};
use super::source::{self, HubArgs};
use super::vqa::{Display, available_threads, parse_batch_size, parse_dtype, shorten, write_whole};

/// The arguments for features in files.
const FILES: [&str; 2] = ["reference", "test"];

/// Whose features are measured, and of which questions.
#[derive(Debug, Args)]
#[command(next_help_heading = "Features of models")]
pub struct ModelArgs {
    /// Model whose features of a suite's datasets are measured, as in `vqa`; several one after the other
    #[arg(long, value_name = "MODEL", requires = "suite", num_args = 1.., conflicts_with_all = ["reference", "test", "sign"])]
    pub model: Vec<PathBuf>,
    /// Encoder of images or of texts alone (ViT, SigLIP, BERT), or a model whose image tower is taken
    #[arg(long, value_name = "DIR", requires = "suite", num_args = 1.., conflicts_with_all = ["reference", "test", "sign"])]
    pub encoder: Vec<PathBuf>,
    /// The suite: a known one (`list suites`), or a TOML file
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["reference", "test", "labels", "fit_name"])]
    pub suite: Option<String>,
    /// Folder with one folder for each dataset of the suite [default: that of the user's data]
    #[arg(long, value_name = "DIR", requires = "suite", conflicts_with_all = FILES)]
    root: Option<PathBuf>,
    /// Hidden state that features are means of: `last`, or a number from 0, which enters the first layer
    #[arg(long, value_name = "LAYER", default_value = "last", requires = "suite", conflicts_with_all = FILES)]
    layer: Layer,
    /// The same for the image alone, or for an encoder of images [default: that of --layer]
    #[arg(long, value_name = "LAYER", requires = "suite", conflicts_with_all = FILES)]
    vision_layer: Option<Layer>,
    /// How each question is put; `list prompts` shows all
    #[arg(long, value_name = "PRESET", default_value = features::PROMPT, requires = "suite", conflicts_with_all = FILES)]
    prompt: String,
    /// Fit the reference on so many training questions only, drawn by a seed
    #[arg(long, value_name = "N", requires = "suite", conflicts_with_all = ["reference", "test", "fit"], value_parser = at_least_two)]
    reference_limit: Option<u64>,
    /// Measure only the first N questions of each dataset
    #[arg(long, value_name = "N", requires = "suite", conflicts_with_all = FILES, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Folder for the features, as <dataset>.<vision|question|joint|answer>.npy, those of the training set among them
    #[arg(long, value_name = "DIR", requires = "suite", conflicts_with_all = FILES)]
    features_output: Option<PathBuf>,
    /// File that keeps the distances [default: store.sqlite in the output folder, else in the user's data folder]
    #[arg(long, value_name = "FILE", requires = "suite", conflicts_with_all = FILES)]
    store: Option<PathBuf>,
    /// Questions per call of the model, or `auto`
    #[arg(long, value_name = "N", default_value = "auto", requires = "suite", conflicts_with_all = FILES)]
    batch_size: String,
    /// Where to compute: cpu, cuda or cuda:I
    #[arg(long, value_name = "DEVICE", default_value = "cpu", requires = "suite", conflicts_with_all = FILES)]
    device: String,
    /// Compute dtype of models: auto, f32, f16 or bf16
    #[arg(long, value_name = "DTYPE", default_value = "auto", requires = "suite", conflicts_with_all = FILES)]
    dtype: String,
    /// Threads of the CPU [default: all]
    #[arg(long, value_name = "N", requires = "suite", conflicts_with_all = FILES, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    #[command(flatten)]
    hub: HubArgs,
}

fn at_least_two(text: &str) -> std::result::Result<u64, &'static str> {
    text.parse().ok().filter(|count| *count >= 2).ok_or("a covariance needs 2 questions or more")
}

/// What the arguments for files and for models have in common.
pub struct Common<'a> {
    /// How moments become distances.
    pub gaussian: GaussianOptions,
    /// The fit to measure from.
    pub fit: Option<&'a PathBuf>,
    /// The file to keep the fit in.
    pub save_fit: Option<&'a PathBuf>,
    /// Folder of `shift.json` and `shift.md`.
    pub output: Option<&'a PathBuf>,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    program_version: &'static str,
    suite: &'a str,
    evaluations: &'a [Evaluation],
}

/// Measures every model and encoder, and prints the table or the JSON document.
pub fn run(args: &ModelArgs, common: &Common, json: bool) -> Result<()> {
    let Some(name) = &args.suite else { return Err(Error::internal("a model without a suite")) };
    if args.model.is_empty() && args.encoder.is_empty() {
        return Err(Error::input("neither --model nor --encoder given").hint("say whose features are to be measured"));
    }
    let (suite, folders) = (Suite::load(name)?, folders()?);
    let plan = plan(args, common, &suite, &folders)?;
    use_threads(plan.threads);
    let runtime = runtime::load(&runtime::locate(&search_path(&folders))?, plan.threads)?;
    let mut display = Display::default();
    let evaluations = evaluate(&plan, &runtime, &mut |model, event| display.show(model, event))?;
    display.finish();
    let document =
        Document { program_version: env!("CARGO_PKG_VERSION"), suite: &suite.name, evaluations: &evaluations };
    let table = features::table(&evaluations).trim_start().to_owned();
    if let Some(output) = common.output {
        let text = serde_json::to_string_pretty(&document)
            .map_err(|cause| Error::internal("cannot write the distances as JSON").caused_by(cause))?;
        write_whole(&output.join("shift.json"), text + "\n")?;
        write_whole(&output.join("shift.md"), &table)?;
    }
    if json { super::print_json(&document) } else { super::print(&table) }
}

fn plan(args: &ModelArgs, common: &Common, suite: &Suite, folders: &Folders) -> Result<Plan> {
    if args.model.len() + args.encoder.len() > 1 && (common.fit.is_some() || common.save_fit.is_some()) {
        return Err(Error::input("a fit belongs to one model").hint("measure models with fits one after the other"));
    }
    let mut datasets = known::suite(suite, args.root.as_deref(), None)?;
    let limit = shorten(&mut datasets, args.limit);
    let (prompt, device) = (Prompt::find(&args.prompt)?, args.device.parse()?);
    let shift = ShiftPlan {
        reference: reference(args, common, suite)?,
        layers: FeatureLayers { vision: args.vision_layer.unwrap_or(args.layer), language: args.layer },
        prompt,
        gaussian: common.gaussian,
        features_output: args.features_output.clone(),
    };
    let store = match (&args.store, common.output) {
        (Some(store), _) => store.clone(),
        (None, Some(output)) => output.join(store::FILE_NAME),
        (None, None) => folders.data.join(store::FILE_NAME),
    };
    let sources = source::models(&args.model, &args.hub, folders)?;
    let models = sources.models.into_iter().map(|source| PlannedModel { source, prompt, zero_shot: false });
    Ok(Plan {
        models: models.collect(),
        encoders: args.encoder.iter().map(|folder| ModelSource::folder(folder)).collect(),
        datasets,
        limit,
        answers: false,
        shift: Some(shift),
        decoding: Decoding { strategy: Strategy::Greedy, max_new_tokens: 1 },
        batch_size: parse_batch_size(&args.batch_size)?,
        device,
        dtype: parse_dtype(&args.dtype)?,
        threads: args.threads.map_or_else(available_threads, usize::from),
        store,
        output: None,
        scratch: folders.cache.join("converted"),
        maker: super::maker(),
    })
}

fn reference(args: &ModelArgs, common: &Common, suite: &Suite) -> Result<Reference> {
    let reference = features::reference(suite, args.root.as_deref(), common.fit.map(PathBuf::as_path))?;
    Ok(match reference {
        Reference::Questions(dataset, _) => {
            let dataset: Dataset = match args.reference_limit.and_then(|limit| usize::try_from(limit).ok()) {
                Some(limit) => dataset.sample(limit),
                None => *dataset,
            };
            Reference::Questions(Box::new(dataset), common.save_fit.cloned())
        }
        fit => fit,
    })
}
