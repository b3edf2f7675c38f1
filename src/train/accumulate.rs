//! The first half of a training step: the sums of loss and gradients over micro-batches.

use super::update::number;
use super::{Batch, Parameter, Parameters, Task};
use crate::error::{Error, Result};
use crate::graph::{Builder, Dim, Graph, Type, Value, gradients};
use crate::runtime::{DeviceTensor, Runtime, Session, SessionOptions};
use crate::tensor::{DType, Tensor};

const LOSS: &str = "loss";

/// Runs the forward pass and the way back.
pub(super) struct Accumulator {
    runtime: Runtime,
    session: Session,
    /// Names of the inputs that batches have to give.
    fed: Vec<String>,
    gradients: Vec<String>,
    /// Names of the sums so far, each with the zero that it starts with; none where a step has one micro-batch.
    sums: Vec<(String, DeviceTensor)>,
}

/// A training graph and the parameters that the loss depends on.
pub(super) struct TrainingGraph {
    graph: Graph,
    /// Positions of those parameters.
    pub reached: Vec<usize>,
    summed: bool,
}

/// Sums over the micro-batches of a step.
#[derive(Default)]
pub(super) struct Sums {
    /// Of the losses of all supervised tokens.
    pub loss: f64,
    /// Supervised tokens.
    pub count: u64,
    /// Samples.
    pub samples: u64,
    /// By parameter that the loss depends on.
    pub gradients: Vec<DeviceTensor>,
}

impl TrainingGraph {
    /// Adds the way back to the forward pass of `task`, and the sums so far where a step has several micro-batches.
    pub(super) fn new(task: &Task, accumulation: u64) -> Result<Self> {
        Self::of(&task.graph, task, accumulation)
    }

    /// The same for the graph without dropout, in single batches; none where there is no such graph.
    pub(super) fn for_evaluation(task: &Task) -> Result<Option<Self>> {
        task.evaluation.as_ref().map(|graph| Self::of(graph, task, 1)).transpose()
    }

    fn of(graph: &Graph, task: &Task, accumulation: u64) -> Result<Self> {
        let mut forward = graph.clone();
        let named = |name: &str| forward.inputs.iter().copied().find(|input| forward.name_of(*input) == name);
        let wanted: Vec<Value> = task
            .parameters
            .iter()
            .map(|Parameter { name, .. }| {
                named(name).ok_or_else(|| Error::internal(format!("the graph has no input `{name}`")))
            })
            .collect::<Result<_>>()?;
        let loss = forward.outputs.iter().copied().find(|output| forward.name_of(*output) == LOSS);
        let loss = loss.ok_or_else(|| Error::internal(format!("the graph has no output `{LOSS}`")))?;
        forward.outputs = vec![loss];
        let mut builder = Builder::resume(forward);
        let found = gradients(&mut builder, loss, &wanted, &task.recomputed)?;
        let mut reached = Vec::new();
        for (index, (Parameter { name, start, .. }, gradient)) in task.parameters.iter().zip(found).enumerate() {
            let Some(gradient) = gradient else { continue };
            let gradient = match accumulation {
                1 => gradient,
                _ => {
                    // Its sizes are open: the first micro-batch adds to a single zero.
                    let ty = Type::new(DType::F32, vec![Dim::Unknown; start.shape().len()]);
                    let sum = builder.input(&format!("sum/{name}"), ty)?;
                    builder.add(sum, gradient)?
                }
            };
            builder.output(&format!("gradient/{name}"), gradient)?;
            reached.push(index);
        }
        if reached.is_empty() {
            return Err(Error::input("nothing to train: the loss depends on no trained parameter")
                .hint("choose other parameters"));
        }
        Ok(Self { graph: builder.finish(), reached, summed: accumulation > 1 })
    }
}

impl Accumulator {
    /// Prepares `graph` for the device.
    pub(super) fn new(runtime: &Runtime, options: &SessionOptions, task: &Task, graph: &TrainingGraph) -> Result<Self> {
        let session = Session::new(runtime, &graph.graph, &task.folder, options)?;
        let (mut gradients, mut sums) = (Vec::new(), Vec::new());
        for Parameter { name, start, .. } in graph.reached.iter().map(|index| &task.parameters[*index]) {
            gradients.push(format!("gradient/{name}"));
            if graph.summed {
                let zero = Tensor::new(vec![1; start.shape().len()], vec![0f32])?;
                sums.push((format!("sum/{name}"), runtime.tensor(zero)?));
            }
        }
        let is_parameter = |name: &&str| task.parameters.iter().any(|parameter| parameter.name == *name);
        let is_sum = |name: &&str| sums.iter().any(|(sum, _)| sum == name);
        let inputs = session.inputs().iter().map(String::as_str);
        let fed = inputs.filter(|name| !is_parameter(name) && !is_sum(name)).map(str::to_owned).collect();
        Ok(Self { runtime: runtime.clone(), session, fed, gradients, sums })
    }

    /// Adds a micro-batch to `sums`; returns its own loss.
    pub(super) fn add(&mut self, batch: Batch, parameters: &Parameters, sums: &mut Sums) -> Result<f64> {
        sums.count += batch.count as u64;
        sums.samples += batch.samples as u64;
        let mut tensors = Vec::with_capacity(batch.inputs.len());
        for (name, tensor) in batch.inputs {
            tensors.push((name, self.runtime.tensor(tensor)?));
        }
        self.check(tensors.iter().map(|(name, _)| name.as_str()))?;
        let mut inputs: Vec<(&str, &DeviceTensor)> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        inputs.extend(parameters.iter().map(|(name, tensor)| (name, tensor.as_ref())));
        let so_far = |(index, (name, zero))| (name, sums.gradients.get(index).unwrap_or(zero));
        inputs.extend(self.sums.iter().map(|(name, zero)| (name.as_str(), zero)).enumerate().map(so_far));
        let device: Vec<&str> = self.gradients.iter().map(String::as_str).collect();
        let mut outputs = self.session.run(&inputs, &device, &[LOSS])?;
        let loss = outputs.pop().ok_or_else(|| Error::internal("the training graph gave no loss"))?;
        let loss = number(&loss)?;
        sums.loss += loss;
        sums.gradients = outputs;
        Ok(loss)
    }

    /// Compares the inputs of a batch with those of the graph.
    fn check<'b>(&self, given: impl Iterator<Item = &'b str> + Clone) -> Result<()> {
        if let Some(missing) = self.fed.iter().find(|name| !given.clone().any(|other| other == *name)) {
            return Err(Error::internal(format!("the batch lacks the input `{missing}`")));
        }
        match given.clone().find(|name| !self.fed.iter().any(|fed| fed == name)) {
            Some(other) => Err(Error::internal(format!("the training graph has no input `{other}`"))),
            None => Ok(()),
        }
    }
}
