//! `export`: models as ONNX files.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use digrap_bench::data::WholeFile;
use digrap_bench::error::{Error, Result};
use digrap_bench::graph::{Graph, Initializer, Loss, TrainingReport, training_graph};

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// ONNX model of opset 13 to 23, e.g. from PyTorch's exporters
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Add a loss and its gradients: weights become inputs, `loss` and `grad/<weight>` outputs
    #[arg(long, requires = "loss")]
    gradients: bool,
    /// What is minimised: a value of the model, or `cross-entropy:LOGITS` with the new input `labels`
    #[arg(long, value_name = "NAME", requires = "gradients")]
    loss: Option<String>,
    /// Weights to differentiate, `*` for any characters [default: all that the loss depends on]
    #[arg(long, value_name = "PATTERN", num_args = 1.., requires = "gradients")]
    wrt: Vec<String>,
    /// File to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Writes the file and prints what is in it.
pub fn run(args: &ExportArgs, json: bool) -> Result<()> {
    let Some(loss) = args.loss.as_deref().filter(|_| args.gradients) else {
        return Err(Error::input("nothing is to be changed about the model")
            .hint("give --gradients and --loss to make a training graph of it"));
    };
    let loss: Loss = loss.parse()?;
    if args.model.is_dir() {
        return Err(
            Error::input(format!("the model `{}` is a folder", args.model.display())).hint("give an `.onnx` file")
        );
    }
    let (graph, report) = training_graph(Graph::load(&args.model)?, &loss, &args.wrt)
        .map_err(|error| error.within(format!("cannot make a training graph of `{}`", args.model.display())))?;
    write(&graph, args)?;
    if json { super::print_json(&report) } else { super::print(&table(&report)) }
}

fn write(graph: &Graph, args: &ExportArgs) -> Result<()> {
    let folder = |path: &Path| std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
    let refers = graph.initializers.iter().any(|(_, place)| matches!(place, Initializer::External { .. }));
    if refers && folder(&args.model) != folder(&args.output) {
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
