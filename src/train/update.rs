//! Gradients to new parameters, tensor by tensor on the device.
//!
//! One session serves all tensors of a kind, whatever their sizes. Each tensor is replaced before the next one is looked
//! at, so that old and new values are there for a few tensors at a time and not for the whole model. Where a session per
//! thread is worth it, the threads take the tensors in turn; no number depends on which thread took which.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::method::{self, LAST, Method};
use super::numbers::Numbers;
use super::optimizer::Optimizer;
use super::products::{Operands, products, squares};
use super::setting::ChosenMethod;
use super::site::{Anchor, Kind, Moment, Site, Source, Stage, Target};
use crate::error::{Error, Result};
use crate::graph::Value;
use crate::runtime::{DeviceTensor, Runtime, Session, SessionOptions, Sharing};
use crate::tensor::Tensor;

/// What belongs to a trained tensor beside its values.
pub(super) struct Slot {
    pub kind: Kind,
    /// The values before the first step, if they are the anchor.
    pub anchor: Option<Arc<DeviceTensor>>,
    /// What the method and its optimiser keep, in the order of [`Updater::states`].
    pub states: Vec<Arc<DeviceTensor>>,
    pub numbers: Numbers,
    /// Sums of what is recorded, over the steps of the epoch.
    pub sums: Numbers,
}

/// A trained tensor in a pass.
pub(super) struct Item<'t> {
    pub slot: &'t mut Slot,
    pub tensor: &'t mut Arc<DeviceTensor>,
    pub gradient: Option<Arc<DeviceTensor>>,
}

/// A pass over the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pass {
    /// Takes numbers of tensors and their gradients.
    Measure,
    /// Replaces the tensors.
    Update,
    /// The same by the optimiser's own step.
    Plain,
    /// Puts the tensors where the numbers of a search say.
    Project,
    /// Takes numbers of the gradients at a trial of a search.
    MeasureTrial,
    /// Takes the squares of the tensors themselves.
    Check,
}

/// Runs passes.
pub(super) struct Updater {
    runtime: Runtime,
    /// Whether the numbers that every method has are taken by plain code. In a graph they are a pass over the tensor for
    /// each operation, and for small tensors most of the time goes into setting a session off.
    on_host: bool,
    method: &'static Method,
    states: BTreeMap<Kind, Vec<&'static str>>,
    workers: Vec<Worker>,
    /// Which of a worker's sessions runs a pass over a kind. Kinds that a method does not tell apart share one.
    chosen: BTreeMap<(Pass, Kind), usize>,
    /// The graphs of these sessions, and where their states lie.
    graphs: Vec<(Vec<u8>, Vec<usize>)>,
    /// Numbers by step that the graphs ask for.
    scalars: Vec<super::site::Scalar>,
}

/// The sessions of one thread.
type Worker = Vec<Prepared>;

struct Prepared {
    session: Session,
    inputs: Vec<(String, Source)>,
    outputs: Vec<(String, Target)>,
}

impl Updater {
    /// Prepares the passes over tensors of these kinds, for as many threads as `options` has entries.
    pub(super) fn new(
        runtime: &Runtime,
        options: &[SessionOptions],
        chosen: &ChosenMethod,
        optimizer: &Optimizer,
        kinds: impl IntoIterator<Item = Kind>,
    ) -> Result<Self> {
        let on_host = options.iter().all(|options| options.sharing == Sharing::Updates { shared: false });
        let mut updater = Self {
            runtime: runtime.clone(),
            on_host,
            method: chosen.method,
            states: BTreeMap::new(),
            workers: options.iter().map(|_| Worker::new()).collect(),
            chosen: BTreeMap::new(),
            graphs: Vec::new(),
            scalars: Vec::new(),
        };
        for kind in kinds {
            if updater.states.contains_key(&kind) {
                continue;
            }
            let mut states = Vec::new();
            if chosen.method.remembers && is_anchored(chosen.method, kind) {
                states.push(LAST);
            }
            for pass in passes(chosen.method) {
                let emit = |site: &mut Site| emit(chosen, (pass, on_host), kind, site);
                let stage = Stage::new((chosen, optimizer, kind), &mut states, &emit)?;
                updater.prepare((pass, kind), &stage, options)?;
            }
            updater.states.insert(kind, states);
        }
        Ok(updater)
    }

    fn prepare(&mut self, key: (Pass, Kind), stage: &Stage, options: &[SessionOptions]) -> Result<()> {
        for (_, source) in &stage.inputs {
            if let Source::Step(scalar) = source
                && self.scalars.iter().all(|known| known.name != scalar.name)
            {
                self.scalars.push(*scalar);
            }
        }
        // A pass that does nothing is none.
        if stage.outputs.is_empty() {
            return Ok(());
        }
        let graph = (stage.graph.to_onnx(), stage.places());
        let known = self.graphs.iter().position(|other| *other == graph);
        self.chosen.insert(key, known.unwrap_or(self.graphs.len()));
        if known.is_some() {
            return Ok(());
        }
        self.graphs.push(graph);
        for (worker, options) in self.workers.iter_mut().zip(options) {
            let session = Session::new(&self.runtime, &stage.graph, Path::new("."), options)?;
            let (inputs, outputs) = (stage.inputs.clone(), stage.outputs.clone());
            worker.push(Prepared { session, inputs, outputs });
        }
        Ok(())
    }

    /// Names of what is kept of a tensor of this kind.
    pub(super) fn states(&self, kind: Kind) -> Result<&[&'static str]> {
        self.states.get(&kind).map(Vec::as_slice).ok_or_else(|| Error::internal(format!("no update for {kind:?}")))
    }

    /// What is kept of a tensor before the first step.
    pub(super) fn fresh_states(&self, kind: Kind, tensor: &DeviceTensor) -> Result<Vec<Arc<DeviceTensor>>> {
        let shape = tensor.shape();
        let size = shape.iter().product();
        let zeros = || Ok(Arc::new(self.runtime.tensor(Tensor::new(shape.clone(), vec![0f32; size])?)?));
        self.states(kind)?.iter().map(|_| zeros()).collect()
    }

    /// Runs a pass over all tensors.
    pub(super) fn run(&mut self, pass: Pass, moment: &Moment, items: Vec<Item>) -> Result<()> {
        let mut scalars = BTreeMap::new();
        for scalar in &self.scalars {
            scalars.insert(scalar.name, self.runtime.tensor(Tensor::scalar((scalar.at)(moment) as f32))?);
        }
        // The largest first, so that no thread is left with one in the end.
        let mut items = items;
        items.sort_by_key(|item| std::cmp::Reverse(item.tensor.shape().iter().product::<usize>()));
        let items: Vec<Mutex<Option<Item>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
        let (next, runtime, chosen) = (AtomicUsize::new(0), &self.runtime, &self.chosen);
        let (method, on_host) = (self.method, self.on_host);
        let rests = |item: &Item| match method.rests {
            Some(rests) => is_anchored(method, item.slot.kind) && rests(&item.slot.numbers),
            None => false,
        };
        let work = |worker: &mut Worker| -> Result<()> {
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                let item = item.lock().unwrap_or_else(PoisonError::into_inner).take();
                let Some(mut item) = item else { continue };
                let measures = pass == Pass::Measure && on_host;
                if measures {
                    take_numbers(method, &mut item)?;
                }
                let pass = if pass == Pass::Update && rests(&item) { Pass::Plain } else { pass };
                if let Some(session) = chosen.get(&(pass, item.slot.kind)) {
                    let prepared = worker.get_mut(*session);
                    let prepared = prepared.ok_or_else(|| Error::internal("an update without session"))?;
                    prepared.run(runtime, &scalars, &mut item)?;
                }
                if measures && method.remembers && is_anchored(method, item.slot.kind) {
                    let tensor = Arc::clone(item.tensor);
                    item.slot.replace(0, Some(tensor))?;
                }
            }
            Ok(())
        };
        let [first, others @ ..] = self.workers.as_mut_slice() else {
            return Err(Error::internal("an update without workers"));
        };
        let work = &work;
        std::thread::scope(|scope| {
            let others: Vec<_> = others.iter_mut().map(|worker| scope.spawn(move || work(worker))).collect();
            let mut outcome = work(first);
            for other in others {
                let ended = other.join().unwrap_or_else(|_| Err(Error::internal("a thread of the update panicked")));
                outcome = outcome.and(ended);
            }
            outcome
        })
    }
}

impl Prepared {
    fn run(&mut self, runtime: &Runtime, scalars: &BTreeMap<&str, DeviceTensor>, item: &mut Item) -> Result<()> {
        let Item { slot, tensor, gradient } = item;
        let mut numbers = Vec::new();
        for (name, source) in &self.inputs {
            if let Source::Number(number) = source {
                let value = slot.numbers.get(number) as f32;
                numbers.push((name.as_str(), runtime.tensor(Tensor::scalar(value))?));
            }
        }
        let mut inputs: Vec<(&str, &DeviceTensor)> = numbers.iter().map(|(name, tensor)| (*name, tensor)).collect();
        for (name, source) in &self.inputs {
            let found = match source {
                Source::Parameter => Some(&***tensor),
                Source::Gradient => gradient.as_deref(),
                Source::Anchor => slot.anchor.as_deref(),
                Source::Step(scalar) => scalars.get(scalar.name),
                Source::State(index) => slot.states.get(*index).map(|state| &**state),
                Source::Number(_) => continue,
            };
            inputs.push((name, found.ok_or_else(|| Error::internal(format!("an update lacks its input `{name}`")))?));
        }
        let named = |wanted: fn(&Target) -> bool| {
            let chosen = self.outputs.iter().filter(move |(_, target)| wanted(target));
            chosen.map(|(name, _)| name.as_str()).collect::<Vec<&str>>()
        };
        let device = named(|target| matches!(target, Target::Parameter | Target::State(_)));
        let host = named(|target| matches!(target, Target::Number(_)));
        let mut made = self.session.run(&inputs, &device, &host)?;
        let told = made.split_off(device.len());
        drop(inputs);
        let before = Arc::clone(tensor);
        let (mut made, mut told) = (made.into_iter().map(Arc::new), told.iter());
        for (_, target) in &self.outputs {
            match *target {
                Target::Alias(index) => slot.replace(index, Some(Arc::clone(&before)))?,
                Target::State(index) => slot.replace(index, made.next())?,
                Target::Parameter => **tensor = made.next().ok_or_else(lacking)?,
                Target::Number(name) => slot.numbers.set(name, number(told.next().ok_or_else(lacking)?)?),
            }
        }
        Ok(())
    }
}

impl Slot {
    fn replace(&mut self, index: usize, state: Option<Arc<DeviceTensor>>) -> Result<()> {
        let place = self.states.get_mut(index).ok_or_else(lacking)?;
        *place = state.ok_or_else(lacking)?;
        Ok(())
    }
}

fn lacking() -> Error {
    Error::internal("an update lacks one of its outputs")
}

/// The number that a tensor without dimensions holds.
pub(super) fn number(tensor: &DeviceTensor) -> Result<f64> {
    let first = tensor.values::<f32>()?.first().copied();
    first.map(f64::from).ok_or_else(|| Error::internal("a number has no elements"))
}

fn passes(method: &Method) -> Vec<Pass> {
    let mut passes = vec![Pass::Measure, Pass::Update, Pass::Check];
    passes.extend(method.rests.map(|_| Pass::Plain));
    if method.search.is_some() {
        passes.extend([Pass::Project, Pass::MeasureTrial]);
    }
    passes
}

/// Emits a pass over tensors of a kind.
fn emit(chosen: &ChosenMethod, (pass, on_host): (Pass, bool), kind: Kind, site: &mut Site) -> Result<Option<Value>> {
    let anchored = is_anchored(chosen.method, kind);
    let search = chosen.method.search.filter(|_| anchored);
    match (pass, search) {
        (Pass::Check, _) => {
            let parameter = site.parameter()?;
            let squares = site.squares(parameter)?;
            site.set_number(PARAMETER_SQUARES, squares);
            Ok(None)
        }
        (Pass::Measure, _) => {
            if !on_host {
                measure(chosen.method, anchored, site)?;
            }
            if anchored {
                (chosen.method.measure)(site)?;
            }
            Ok(None)
        }
        (Pass::Update, _) if anchored || !chosen.method.anchored => (chosen.method.update)(site).map(Some),
        (Pass::Update, _) => (chosen.method.unanchored)(site).map(Some),
        (Pass::Plain, _) => site.base_step().map(Some),
        (Pass::Project, Some(search)) => (search.project)(site).map(Some),
        (Pass::MeasureTrial, Some(search)) => (search.measure)(site).map(|()| None),
        (_, None) => Ok(None),
    }
}

/// Whether the method holds a tensor of this kind to an anchor.
pub(super) fn is_anchored(method: &Method, kind: Kind) -> bool {
    method.anchored && kind.anchor != Anchor::None
}

/// The squares of every gradient are measured: a run stops at one that is not finite before anything has changed.
fn measure(method: &Method, anchored: bool, site: &mut Site) -> Result<()> {
    let gradient = site.gradient_sum()?;
    let squares = site.squares(gradient)?;
    site.set_number(GRADIENT_SQUARES, squares);
    if anchored {
        let deviation = site.deviation()?;
        let product = site.dot(gradient, deviation)?;
        site.set_number(DOT, product);
        let squares = site.squares(deviation)?;
        site.set_number(DEVIATION_SQUARES, squares);
        if method.remembers {
            let (last, parameter) = (site.state(LAST)?, site.parameter()?);
            let last = site.deviation_of(last)?;
            let product = site.dot(gradient, last)?;
            site.set_number(PRODUCT_WITH_LAST, product);
            site.keep(LAST, parameter);
        }
    }
    Ok(())
}

/// The same for tensors in host memory.
fn take_numbers(method: &Method, item: &mut Item) -> Result<()> {
    let Item { slot, tensor, gradient } = item;
    let gradient = gradient.as_ref().ok_or_else(lacking)?.values::<f32>()?;
    if !is_anchored(method, slot.kind) {
        slot.numbers.set(GRADIENT_SQUARES, squares(gradient));
        return Ok(());
    }
    let last = if method.remembers { slot.states.first() } else { None };
    let operands = Operands {
        gradient,
        parameter: tensor.values()?,
        anchor: slot.anchor.as_ref().map(|anchor| anchor.values()).transpose()?,
        last: last.map(|last| last.values()).transpose()?,
    };
    let names = [GRADIENT_SQUARES, DOT, DEVIATION_SQUARES, PRODUCT_WITH_LAST];
    for (name, number) in names.into_iter().zip(products(&operands)) {
        slot.numbers.set(name, number);
    }
    Ok(())
}

/// Sum of the squares of the gradient: of the summed loss after [`Pass::Measure`], of the mean loss after [`complete`].
pub(super) const GRADIENT_SQUARES: &str = "gradient_squares";
/// Sum of the squares of the tensor, after [`Pass::Check`].
pub(super) const PARAMETER_SQUARES: &str = "parameter_squares";
const DOT: &str = "dot";
const PRODUCT_WITH_LAST: &str = "product_with_last";
const DEVIATION_SQUARES: &str = "deviation_squares";

/// Makes numbers of the summed loss those of the mean loss, and adds what is recorded of every anchored tensor.
pub(super) fn complete(step: &method::Step, anchored: bool, numbers: &mut Numbers) {
    let gradient_squares = numbers.get(GRADIENT_SQUARES) * step.factor * step.factor;
    numbers.set(GRADIENT_SQUARES, gradient_squares);
    if !anchored {
        return;
    }
    let (dot, squares) = (numbers.get(DOT) * step.factor, numbers.get(DEVIATION_SQUARES));
    numbers.set(DOT, dot);
    let size = (gradient_squares * squares).sqrt();
    numbers.set("cosine", if size > 0.0 { dot / size } else { 0.0 });
    numbers.set("conflict", if dot < 0.0 { 1.0 } else { 0.0 });
    numbers.set("distance", squares.sqrt());
}

/// What is recorded of every anchored tensor.
pub(super) const RECORDED: [&str; 3] = ["cosine", "conflict", "distance"];
