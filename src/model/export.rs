//! Checkpoints as ONNX files: the graphs that answer, and the graph of the loss with its gradients.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::saving::fill_whole;
use super::training::{Parameters, Role, Trained, TrainedTensor};
use super::weights::Placement;
use super::{Checkpoint, MODEL_FOLDER, adapter};
use crate::data::{WholeFile, WholeFolder, write_error};
use crate::error::{Error, Result};
use crate::graph::{Graph, Initializer, TrainingReport, Value, input_gradients};
use crate::tensor::DType;

/// Folder of the graphs within an exported model.
pub const GRAPHS: &str = "onnx";
/// Name of the file beside the graphs that holds their weights.
pub const WEIGHTS: &str = "weights.bin";
/// The output of a training graph that is minimised.
pub const LOSS: &str = "loss";

/// One graph of an exported model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportedGraph {
    /// The file, relative to the exported folder.
    pub file: String,
    /// Number of nodes.
    pub nodes: usize,
    /// Name, element type and dimensions of each input, such as `positions: i64[batch,text]`.
    pub inputs: Vec<String>,
    /// The same of each output.
    pub outputs: Vec<String>,
}

impl Checkpoint {
    /// The graphs that answer, by name, in the order in which they run: `vision_encoder` (once for an image),
    /// `prefill` (once for a prompt), `decode` (once for each further token). The matrices of the checkpoint's adapter
    /// are inputs.
    ///
    /// # Errors
    /// Input error naming the file and the tensor or key that do not fit.
    pub fn graphs(&self, placement: &mut Placement) -> Result<Vec<(&'static str, Graph)>> {
        let trained = Trained { adapter: self.adapter.as_ref().map(adapter::Adapter::lora), ..Trained::default() };
        let blueprint = (self.family.blueprint)(self, placement, &trained)?;
        Ok(vec![("vision_encoder", blueprint.vision), ("prefill", blueprint.prefill), ("decode", blueprint.decode)])
    }
}

/// Writes a model folder, its adapter merged, with the graphs that answer in [`GRAPHS`]; their weights are in one file of
/// that folder, in `dtype`, which is also what the graphs compute in. The folder appears whole, and replaces an older
/// one. `on_bytes` hears of every further piece of the checkpoint that is written; each is written twice.
///
/// # Errors
///
/// Input error for a model that does not fit its configuration, for a folder that holds the model itself, or for a file
/// that cannot be written; an older folder stays as it was.
pub fn export(
    checkpoint: &Checkpoint,
    dtype: DType,
    folder: &Path,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Vec<ExportedGraph>> {
    refuse_own_folder(checkpoint, folder)?;
    checkpoint.graphs(&mut Placement::checked(&checkpoint.weights, dtype, &mut |_| ()))?;
    let whole = WholeFolder::create(folder, &MODEL_FOLDER)?;
    fill_whole(checkpoint, whole.path(), on_bytes)?;
    // What the graphs are made of is the folder as it was written, in which the adapter is merged.
    let written = Checkpoint::open(whole.path())?;
    let graphs = write_graphs(&written, dtype, &whole.path().join(GRAPHS), on_bytes)?;
    whole.finish()?;
    Ok(graphs)
}

/// Refuses a folder whose replacement would remove the model that is exported.
fn refuse_own_folder(checkpoint: &Checkpoint, folder: &Path) -> Result<()> {
    let Ok(target) = folder.canonicalize() else { return Ok(()) };
    for used in [&checkpoint.folder, &checkpoint.base_folder] {
        if used.canonicalize().is_ok_and(|real| real.starts_with(&target)) {
            let (folder, used) = (folder.display(), used.display());
            return Err(Error::input(format!(
                "writing `{folder}` would replace the model `{used}`, which is exported"
            ))
            .hint("choose another folder"));
        }
    }
    Ok(())
}

fn write_graphs(
    checkpoint: &Checkpoint,
    dtype: DType,
    folder: &Path,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Vec<ExportedGraph>> {
    fs::create_dir(folder).map_err(|cause| write_error(folder, cause))?;
    let mut before = 0;
    let mut on_placed = |done: u64| on_bytes(done - std::mem::replace(&mut before, done));
    let mut placement = Placement::written(&checkpoint.weights, dtype, &folder.join(WEIGHTS), &mut on_placed)?;
    let graphs = checkpoint.graphs(&mut placement)?;
    placement.finish()?;
    let mut exported = Vec::with_capacity(graphs.len());
    for (name, graph) in graphs {
        let file = format!("{name}.onnx");
        let path = folder.join(&file);
        fs::write(&path, graph.to_onnx()).map_err(|cause| write_error(&path, cause))?;
        exported.push(ExportedGraph {
            file: format!("{GRAPHS}/{file}"),
            nodes: graph.nodes.len(),
            inputs: typed(&graph, &graph.inputs),
            outputs: typed(&graph, &graph.outputs),
        });
    }
    Ok(exported)
}

fn typed(graph: &Graph, values: &[Value]) -> Vec<String> {
    let text = |value: &Value| {
        let ty = graph.type_of(*value).map_or_else(|| "?".to_owned(), ToString::to_string);
        format!("{}: {ty}", graph.name_of(*value))
    };
    values.iter().map(text).collect()
}

/// Writes the graph of the loss and its gradients as one file, computing in `dtype`.
///
/// Its inputs are those of [`Checkpoint::training_graph`], its outputs `loss` (the sum of the cross-entropies of all
/// answer tokens) and `grad/<weight>` for the weights that match one of the patterns `wrt`; without patterns these are
/// all weights or, if the checkpoint has an adapter, the adapter's matrices. They are inputs in f32. Other weights lie in
/// the file `<output>.data` beside it, if there are any.
///
/// # Errors
///
/// Input error for a model that does not fit its configuration, a pattern that matches nothing, a place that belongs to
/// the model, or a file that cannot be written.
pub fn export_training_graph(
    checkpoint: &Checkpoint,
    wrt: &[String],
    dtype: DType,
    output: &Path,
) -> Result<TrainingReport> {
    refuse_own_file(checkpoint, output)?;
    // The weights belong beside the file that a link leads to.
    let place = WholeFile::place(output).map_err(|cause| write_error(output, cause))?;
    let output = if output.is_symlink() { &place } else { output };
    let trained = trained(checkpoint, wrt);
    check_patterns(checkpoint, &trained, dtype)?;
    let failed = |cause| write_error(output, cause);
    let mut file = WholeFile::create(output).map_err(failed)?;
    let mut ignore = |_| ();
    let mut placement = Placement::written(&checkpoint.weights, dtype, &data_file(output), &mut ignore)?;
    let training = checkpoint.training_graph(&mut placement, &trained)?;
    let chosen: Vec<&str> = chosen(&training.trained, wrt).collect();
    let graph = with_fixed_matrices(checkpoint, training.graph, &chosen);
    let (graph, report) = input_gradients(graph, LOSS, &chosen)?;
    file.write_all(&graph.to_onnx()).map_err(failed)?;
    // An older graph must not be read with the weights of the new one.
    if output.is_file() {
        fs::remove_file(output).map_err(failed)?;
    }
    placement.finish()?;
    file.finish().map_err(failed)?;
    Ok(report)
}

/// The file of the weights that a training graph does not take as inputs.
fn data_file(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".data");
    name.into()
}

/// Refuses to write over the files of a model, which are all but those called `.onnx`.
fn refuse_own_file(checkpoint: &Checkpoint, output: &Path) -> Result<()> {
    let Ok(file) = output.canonicalize() else { return Ok(()) };
    let folders = [&checkpoint.folder, &checkpoint.base_folder].into_iter().filter_map(|used| used.canonicalize().ok());
    let inside = folders.into_iter().any(|used| file.parent() == Some(&used));
    if inside && output.extension().is_none_or(|extension| extension != "onnx") {
        return Err(Error::input(format!("`{}` is a file of the model", output.display()))
            .hint("choose another name, such as train.onnx"));
    }
    Ok(())
}

/// The tensors to take as inputs: those to differentiate, and all matrices of an adapter.
fn trained(checkpoint: &Checkpoint, wrt: &[String]) -> Trained {
    let parameters = match (wrt, &checkpoint.adapter) {
        ([], None) => Parameters::All,
        ([], Some(_)) => Parameters::None,
        (patterns, _) => Parameters::Matching(patterns.to_vec()),
    };
    Trained { parameters, adapter: checkpoint.adapter.as_ref().map(adapter::Adapter::lora) }
}

fn check_patterns(checkpoint: &Checkpoint, trained: &Trained, dtype: DType) -> Result<()> {
    let mut ignore = |_| ();
    let mut placement = Placement::checked(&checkpoint.weights, dtype, &mut ignore);
    let training = checkpoint.training_graph(&mut placement, trained)?;
    let Some(pattern) = trained.parameters.unmatched(&training.trained) else { return Ok(()) };
    let matrices = checkpoint.adapter.iter().flat_map(|adapter| adapter.tensors.keys().map(String::as_str));
    let names: Vec<&str> = matrices.take(2).chain(checkpoint.weights.names()).take(3).collect();
    Err(Error::input(format!("the pattern `{pattern}` matches no weight of the model"))
        .hint(format!("weights are named {}, ...; `*` stands for any text", names.join(", "))))
}

/// Names of the weights to differentiate.
fn chosen<'a>(trained: &'a [TrainedTensor], wrt: &[String]) -> impl Iterator<Item = &'a str> {
    let patterns = if wrt.is_empty() { Parameters::All } else { Parameters::Matching(wrt.to_vec()) };
    trained.iter().map(|tensor| tensor.name.as_str()).filter(move |name| patterns.include(name, Role::Inner))
}

/// The graph with the matrices of the adapter that are not `chosen` inside it.
fn with_fixed_matrices(checkpoint: &Checkpoint, mut graph: Graph, chosen: &[&str]) -> Graph {
    let mut fixed = HashSet::new();
    for (name, tensor) in checkpoint.adapter.iter().flat_map(|adapter| &adapter.tensors) {
        if let Some(value) = graph.find(name).filter(|_| !chosen.contains(&name.as_str())) {
            graph.initializers.push((value, Initializer::Inline(tensor.clone())));
            fixed.insert(value);
        }
    }
    graph.inputs.retain(|input| !fixed.contains(input));
    graph
}
