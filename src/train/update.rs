//! Gradients to new parameters, tensor by tensor on the device.
//!
//! One session serves all tensors of a rank, whatever their sizes. Each tensor is replaced before the next one is
//! looked at, so that old and new values are there for one tensor at a time and not for the whole model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::method::{Method, Moment, Scalar, UpdatePlan, UpdateSite};
use super::optimizer::Optimizer;
use crate::error::{Error, Result};
use crate::graph::{Builder, Dim, Graph, Type};
use crate::runtime::{Device, DeviceTensor, Runtime, Session, SessionOptions, Sharing};
use crate::tensor::{DType, Tensor};

/// What a method keeps of one tensor from step to step, in the order of the update's states.
pub(super) type State = Vec<Arc<DeviceTensor>>;

/// Runs updates.
pub(super) struct Updater {
    runtime: Runtime,
    optimizer: Optimizer,
    sessions: BTreeMap<usize, RankSessions>,
}

struct RankSessions {
    norm: Session,
    update: Session,
    names: Names,
}

/// Names of inputs and outputs of an update graph.
struct Names {
    scalars: Vec<(Scalar, String)>,
    states: Vec<StateNames>,
    reports: Vec<(&'static str, String)>,
}

struct StateNames {
    name: &'static str,
    before: String,
    after: String,
}

/// What one step does to all tensors.
pub(super) struct Step {
    /// Its number, from 1.
    pub number: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// What the sums of gradients are multiplied by.
    pub factor: f64,
}

impl Updater {
    /// Prepares the updates of tensors with these numbers of dimensions. All sessions share the threads of the runtime.
    pub(super) fn new(
        runtime: &Runtime,
        device: Device,
        method: &Method,
        optimizer: Optimizer,
        ranks: impl IntoIterator<Item = usize>,
    ) -> Result<Self> {
        let options = SessionOptions { device, sharing: Sharing::Operators };
        let mut sessions = BTreeMap::new();
        for rank in ranks {
            if sessions.contains_key(&rank) {
                continue;
            }
            let session = |graph: &Graph| Session::new(runtime, graph, Path::new("."), &options);
            let (graph, names) = update_graph(method, &optimizer, rank)?;
            sessions.insert(rank, RankSessions { norm: session(&norm_graph(rank)?)?, update: session(&graph)?, names });
        }
        Ok(Self { runtime: runtime.clone(), optimizer, sessions })
    }

    /// Names of what the update keeps of a tensor with `rank` dimensions.
    pub(super) fn states(&self, rank: usize) -> Result<Vec<&'static str>> {
        let sessions = self.sessions.get(&rank).ok_or_else(|| no_session(rank))?;
        Ok(sessions.names.states.iter().map(|state| state.name).collect())
    }

    /// What is kept of a tensor before the first step.
    pub(super) fn fresh_state(&self, tensor: &DeviceTensor) -> Result<State> {
        let shape = tensor.shape();
        let size = shape.iter().product();
        let zeros = || Ok(Arc::new(self.runtime.tensor(Tensor::new(shape.clone(), vec![0f32; size])?)?));
        self.states(shape.len())?.iter().map(|_| zeros()).collect()
    }

    /// The Euclidean norm of all gradients together, as `torch.nn.utils.clip_grad_norm_` takes it.
    pub(super) fn norm(&mut self, gradients: &[DeviceTensor]) -> Result<f64> {
        let mut sum = 0.0;
        for gradient in gradients {
            let rank = gradient.shape().len();
            let sessions = self.sessions.get_mut(&rank).ok_or_else(|| no_session(rank))?;
            let outputs = sessions.norm.run(&[("gradient", gradient)], &[], &["squares"])?;
            sum += number(&outputs[0])?;
        }
        Ok(sum.sqrt())
    }

    /// Replaces tensors and what is kept of them, each by its gradient; returns the means of what the method reports.
    pub(super) fn apply<'t>(
        &mut self,
        step: &Step,
        tensors: impl Iterator<Item = (&'t mut Arc<DeviceTensor>, &'t mut State, DeviceTensor)>,
    ) -> Result<BTreeMap<&'static str, f64>> {
        let scalars = self.scalars(step)?;
        let factor = self.runtime.tensor(Tensor::scalar(step.factor as f32))?;
        let mut reports: BTreeMap<&'static str, (f64, f64)> = BTreeMap::new();
        for (tensor, state, gradient) in tensors {
            let rank = tensor.shape().len();
            let sessions = self.sessions.get_mut(&rank).ok_or_else(|| no_session(rank))?;
            for (name, value) in sessions.replace(tensor, state, &gradient, &factor, &scalars)? {
                let (sum, count) = reports.entry(name).or_default();
                (*sum, *count) = (*sum + value, *count + 1.0);
            }
        }
        Ok(reports.into_iter().map(|(name, (sum, count))| (name, sum / count)).collect())
    }

    fn scalars(&self, step: &Step) -> Result<BTreeMap<&'static str, DeviceTensor>> {
        let moment = Moment { number: step.number, learning_rate: step.learning_rate, optimizer: &self.optimizer };
        let mut scalars = BTreeMap::new();
        for (scalar, _) in self.sessions.values().flat_map(|sessions| &sessions.names.scalars) {
            if !scalars.contains_key(scalar.name) {
                let value = (scalar.at)(&moment) as f32;
                scalars.insert(scalar.name, self.runtime.tensor(Tensor::scalar(value))?);
            }
        }
        Ok(scalars)
    }
}

impl RankSessions {
    /// Replaces one tensor and what is kept of it; returns what the method reports.
    fn replace(
        &mut self,
        parameter: &mut Arc<DeviceTensor>,
        state: &mut State,
        gradient: &DeviceTensor,
        factor: &DeviceTensor,
        scalars: &BTreeMap<&'static str, DeviceTensor>,
    ) -> Result<Vec<(&'static str, f64)>> {
        let Names { scalars: wanted, states, reports } = &self.names;
        let mut inputs: Vec<(&str, &DeviceTensor)> =
            vec![("parameter", parameter.as_ref()), ("gradient", gradient), ("factor", factor)];
        inputs.extend(wanted.iter().filter_map(|(scalar, input)| Some((input.as_str(), scalars.get(scalar.name)?))));
        inputs.extend(states.iter().zip(state.iter()).map(|(names, tensor)| (names.before.as_str(), tensor.as_ref())));
        let mut device = vec!["next/parameter"];
        device.extend(states.iter().map(|names| names.after.as_str()));
        let host: Vec<&str> = reports.iter().map(|(_, output)| output.as_str()).collect();
        let mut outputs = self.update.run(&inputs, &device, &host)?;
        let told = outputs.split_off(device.len());
        let mut kept = outputs.into_iter().map(Arc::new);
        *parameter = kept.next().ok_or_else(|| Error::internal("the update gave no parameter"))?;
        *state = kept.collect();
        reports.iter().zip(&told).map(|((name, _), tensor)| Ok((*name, number(tensor)?))).collect()
    }
}

/// The number that a tensor without dimensions holds.
pub(super) fn number(tensor: &DeviceTensor) -> Result<f64> {
    let first = tensor.values::<f32>()?.first().copied();
    first.map(f64::from).ok_or_else(|| Error::internal("a number has no elements"))
}

fn no_session(rank: usize) -> Error {
    Error::internal(format!("no update was prepared for tensors of {rank} dimensions"))
}

/// (parameter, gradient sum, factor, scalars, state) -> (next parameter, next state, reports).
fn update_graph(method: &Method, optimizer: &Optimizer, rank: usize) -> Result<(Graph, Names)> {
    let mut builder = Builder::new("update");
    let mut site = UpdateSite::new(&mut builder, optimizer, rank)?;
    let parameter = (method.update)(&mut site)?;
    let UpdatePlan { scalars, states, reports } = site.plan;
    builder.output("next/parameter", parameter)?;
    let input = |builder: &Builder, value| builder.name_of(value).to_owned();
    let scalars = scalars.into_iter().map(|(scalar, value)| (scalar, input(&builder, value))).collect();
    let mut names = Names { scalars, states: Vec::new(), reports: Vec::new() };
    for (name, before, after) in states {
        let after_name = format!("next/state/{name}");
        builder.output(&after_name, after.unwrap_or(before))?;
        names.states.push(StateNames { name, before: input(&builder, before), after: after_name });
    }
    for (name, value) in reports {
        let output = format!("report/{name}");
        builder.output(&output, value)?;
        names.reports.push((name, output));
    }
    Ok((builder.finish(), names))
}

/// The sum of squares of a tensor.
fn norm_graph(rank: usize) -> Result<Graph> {
    let mut builder = Builder::new("gradient norm");
    let dims: Vec<Dim> = (0..rank).map(|axis| Dim::from(format!("size_{axis}").as_str())).collect();
    let gradient = builder.input("gradient", Type::new(DType::F32, dims))?;
    let squares = builder.mul(gradient, gradient)?;
    let axes = builder.ints(&(0..rank as i64).collect::<Vec<_>>())?;
    let sum = builder.op("ReduceSum", &[squares, axes], &[("keepdims", crate::graph::Attribute::Int(0))])?;
    builder.output("squares", sum)?;
    Ok(builder.finish())
}
