//! `export`: models as ONNX files.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use digrap_bench::data::WholeFile;
use digrap_bench::error::{Error, Result};
use digrap_bench::graph::{Graph, Initializer, Loss, TrainingReport, training_graph};
use digrap_bench::model::Checkpoint;
use digrap_bench::model::export::{self, ExportedGraph, GRAPHS, WEIGHTS};
use digrap_bench::suite::ModelSource;
use digrap_bench::tensor::DType;
use serde_json::json;

use super::machine::folders;
use super::progress::Progress;
use super::source::{self, HubArgs};

const MEGABYTE: u64 = 1_000_000;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Model or adapter folder in the Hub's layout, or a name on the Hub such as `org/name` or `org/name@revision`; with
    /// --gradients also an ONNX file of opset 13 to 23, e.g. from PyTorch's exporters
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Write a training graph: weights become inputs, `loss` and `grad/<weight>` outputs
    #[arg(long, requires = "loss")]
    gradients: bool,
    /// What is minimised. Of an ONNX file: a value of it, or `cross-entropy:LOGITS` with the new input `labels`. Of a
    /// folder: `loss`, the sum of the cross-entropies of all answer tokens of a batch
    #[arg(long, value_name = "NAME", requires = "gradients")]
    loss: Option<String>,
    /// Weights to differentiate, `*` for any characters [default: all that the loss depends on; of an adapter its
    /// matrices]
    #[arg(long, value_name = "PATTERN", num_args = 1.., requires = "gradients")]
    wrt: Vec<String>,
    /// What the graphs of a folder compute in, f32 or f16 [default: f32]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<String>,
    /// Folder to write, in place of an earlier model there; with --gradients the ONNX file to write
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    #[command(flatten)]
    hub: HubArgs,
}

/// Writes the files and prints what is in them.
pub fn run(args: &ExportArgs, json: bool) -> Result<()> {
    let loss = args.loss.as_deref().filter(|_| args.gradients);
    let sources = source::models(std::slice::from_ref(&args.model), &args.hub, &folders()?)?;
    match (sources.models.iter().find(|model| model.folder.is_dir()), loss) {
        (Some(model), None) => run_model(args, model, json),
        (Some(model), Some(loss)) => show_training(&train_folder(args, model, loss)?, json),
        (None, Some(loss)) => show_training(&train_file(args, loss)?, json),
        (None, None) => Err(Error::input("nothing is to be changed about the model")
            .hint("give --gradients and --loss to make a training graph of it")),
    }
}

/// A model folder with the graphs that answer.
fn run_model(args: &ExportArgs, model: &ModelSource, json: bool) -> Result<()> {
    let dtype = dtype(args)?;
    let within = |error: Error| error.within(format!("cannot export the model `{}`", args.model.display()));
    let checkpoint = Checkpoint::open_on(&model.folder, model.base.as_deref()).map_err(within)?;
    let mut progress = Progress::resumed(2 * checkpoint.weights.size() / MEGABYTE, 0, "MB");
    let mut done = 0;
    let mut on_bytes = |bytes| {
        done += bytes;
        progress.set(done / MEGABYTE, "writing");
    };
    let graphs = export::export(&checkpoint, dtype, &args.output, &mut on_bytes).map_err(within)?;
    progress.finish();
    if json {
        let folder = args.output.to_string_lossy();
        super::print_json(&json!({ "folder": folder, "dtype": dtype.name(), "graphs": graphs }))
    } else {
        super::print(&graphs_table(&graphs, dtype))
    }
}

/// The training graph of a folder.
fn train_folder(args: &ExportArgs, model: &ModelSource, loss: &str) -> Result<TrainingReport> {
    let within =
        |error: Error| error.within(format!("cannot make a training graph of the model `{}`", args.model.display()));
    if loss != export::LOSS {
        return Err(within(
            Error::input(format!("the model has no loss `{loss}`"))
                .hint(format!("use `{}`, the cross-entropies of all answer tokens of a batch", export::LOSS)),
        ));
    }
    let dtype = dtype(args)?;
    let checkpoint = Checkpoint::open_on(&model.folder, model.base.as_deref()).map_err(within)?;
    export::export_training_graph(&checkpoint, &args.wrt, dtype, &args.output).map_err(within)
}

/// The training graph of an ONNX file.
fn train_file(args: &ExportArgs, loss: &str) -> Result<TrainingReport> {
    if args.dtype.is_some() {
        return Err(Error::input(format!("the ONNX file `{}` has its own dtypes", args.model.display()))
            .hint("leave --dtype out"));
    }
    let loss: Loss = loss.parse()?;
    if args.output.canonicalize().is_ok_and(|output| args.model.canonicalize().is_ok_and(|model| model == output)) {
        return Err(Error::input(format!("the output `{}` is the model itself", args.output.display()))
            .hint("write the training graph to another file"));
    }
    let (graph, report) = training_graph(Graph::load(&args.model)?, &loss, &args.wrt)
        .map_err(|error| error.within(format!("cannot make a training graph of `{}`", args.model.display())))?;
    write(&graph, args)?;
    Ok(report)
}

fn dtype(args: &ExportArgs) -> Result<DType> {
    match args.dtype.as_deref() {
        None | Some("f32") => Ok(DType::F32),
        Some("f16") => Ok(DType::F16),
        Some(other) => Err(Error::input(format!("unknown dtype `{other}` of an export")).hint("known: f32, f16")),
    }
}

fn write(graph: &Graph, args: &ExportArgs) -> Result<()> {
    let folder = |path: &Path| std::path::absolute(path).ok().and_then(|path| path.parent()?.canonicalize().ok());
    let place = WholeFile::place(&args.output).ok();
    let refers = graph.initializers.iter().any(|(_, place)| matches!(place, Initializer::External { .. }));
    if refers && folder(&args.model) != place.as_deref().and_then(folder) {
        return Err(Error::input(
            "the model keeps its weights in other files, which are found from its own folder only",
        )
        .hint("write the output to the model's folder"));
    }
    let within =
        |cause: std::io::Error| Error::input(format!("cannot write `{}`", args.output.display())).caused_by(cause);
    let mut file = WholeFile::create(&args.output).map_err(within)?;
    file.write_all(&graph.to_onnx()).map_err(within)?;
    file.finish().map_err(within)
}

fn graphs_table(graphs: &[ExportedGraph], dtype: DType) -> String {
    let mut text = String::from("| graph | nodes | inputs | outputs |\n|-------|------:|-------:|--------:|\n");
    for ExportedGraph { file, nodes, inputs, outputs } in graphs {
        text += &format!("| {file} | {nodes} | {} | {} |\n", inputs.len(), outputs.len());
    }
    text + &format!(
        "\nWeights of all graphs: {GRAPHS}/{WEIGHTS}, {}. `--json` lists inputs and outputs.\n",
        dtype.name()
    )
}

fn show_training(report: &TrainingReport, json: bool) -> Result<()> {
    if json { super::print_json(report) } else { super::print(&table(report)) }
}

fn table(report: &TrainingReport) -> String {
    let TrainingReport { nodes, inputs, outputs, weights, parameters, constants, independent } = report;
    let numbers =
        [("nodes", *nodes), ("weights", weights.len()), ("parameters", *parameters), ("constants", *constants)];
    let numbers = numbers.map(|(head, number)| (head, number.to_string(), true));
    let names = [("inputs", inputs.join(", "), false), ("outputs", outputs.join(", "), false)];
    let mut lines = ["|", "|", "|"].map(str::to_owned);
    for (head, cell, is_number) in numbers.into_iter().chain(names) {
        let width = head.len().max(cell.chars().count());
        let (dashes, end) = if is_number { (width + 1, ":") } else { (width + 2, "") };
        lines[1] += &format!("{}{end}|", "-".repeat(dashes));
        for (line, text) in [(0, head), (2, cell.as_str())] {
            let padded = if is_number { format!("{text:>width$}") } else { format!("{text:<width$}") };
            lines[line] += &format!(" {padded} |");
        }
    }
    let mut text =
        format!("{}\n\nEach weight is an input; its gradient is the output `grad/<weight>`.\n", lines.join("\n"));
    if !independent.is_empty() {
        text += &format!("The loss does not depend on: {}\n", independent.join(", "));
    }
    text
}
