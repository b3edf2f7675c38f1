//! The graph of one stage of a method for one kind of tensor, while it is being written.

use super::optimizer::Optimizer;
use super::setting::{Chosen, ChosenMethod};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Builder, Dim, Graph, Type, Value};
use crate::tensor::DType;

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The matrix of a layer, or anything that is not one of the others.
    Weight,
    /// The factors of a normalisation layer.
    NormScale,
    /// What a layer adds.
    Bias,
}

/// What a method measures the deviation of a tensor from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anchor {
    /// The values before the first step, which are kept: pre-trained weights.
    Start,
    /// Zeros: the deviation is the tensor itself, and nothing is kept. So it is with LoRA matrices.
    Origin,
    /// Nothing. A fresh head has no pre-trained values to stay close to.
    None,
}

/// What makes the updates of two tensors the same graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub rank: usize,
    pub role: Role,
    pub anchor: Anchor,
}

/// A number that is the same for all tensors of a step, computed on the host in double precision.
#[derive(Debug, Clone, Copy)]
pub struct Scalar {
    /// Its name, unique among those of a method and its optimiser.
    pub name: &'static str,
    /// Its value at a step.
    pub at: fn(&Moment) -> f64,
}

/// An optimiser step as [`Scalar`]s see it.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Number of the step, from 1.
    pub number: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// What makes the sums of gradients the gradient of the mean loss, clipped if that is asked for.
    pub factor: f64,
    /// What turns gradients into steps.
    pub optimizer: &'a Optimizer,
}

/// Where an input of a stage comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Parameter,
    Gradient,
    Anchor,
    Step(Scalar),
    Number(&'static str),
    State(usize),
}

/// Where an output of a stage goes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Parameter,
    Number(&'static str),
    State(usize),
    /// A state that is the parameter itself, which takes no copy.
    Alias(usize),
}

/// A stage: its graph, and what its inputs and outputs are.
pub(super) struct Stage {
    pub graph: Graph,
    pub inputs: Vec<(String, Source)>,
    pub outputs: Vec<(String, Target)>,
}

/// A stage of a method for one tensor, while its graph is being written. All tensors are f32.
pub struct Site<'a> {
    /// Takes the nodes.
    pub builder: &'a mut Builder,
    chosen: &'a ChosenMethod,
    optimizer: &'a Optimizer,
    kind: Kind,
    /// Names of all that is kept of such a tensor, over all stages.
    states: &'a mut Vec<&'static str>,
    inputs: Vec<(String, Source, Value)>,
    outputs: Vec<(Target, Value)>,
    /// Values that are used more than once.
    gradient: Option<Value>,
    deviation: Option<Value>,
}

/// Emits a stage; returns the new parameter, if it is one that makes it.
pub(super) type Emit<'e> = &'e dyn Fn(&mut Site) -> Result<Option<Value>>;

impl Stage {
    /// Lets `emit` write the stage for tensors of `kind`.
    pub(super) fn new(
        (chosen, optimizer, kind): (&ChosenMethod, &Optimizer, Kind),
        states: &mut Vec<&'static str>,
        emit: Emit,
    ) -> Result<Self> {
        let mut builder = Builder::new("update");
        let mut site = Site {
            builder: &mut builder,
            chosen,
            optimizer,
            kind,
            states,
            inputs: Vec::new(),
            outputs: Vec::new(),
            gradient: None,
            deviation: None,
        };
        if let Some(parameter) = emit(&mut site)? {
            site.outputs.insert(0, (Target::Parameter, parameter));
        }
        let Site { inputs, outputs: found, .. } = site;
        let parameter = inputs.iter().find(|(_, source, _)| matches!(source, Source::Parameter));
        let parameter = parameter.map(|(.., value)| *value);
        let mut outputs = Vec::with_capacity(found.len());
        for (target, value) in found {
            // Stages of equal graphs share a session, so that a name says all about where an output goes to.
            let name = match target {
                Target::Parameter => "output/parameter".to_owned(),
                Target::Number(number) => format!("output/number/{number}"),
                Target::State(index) | Target::Alias(index) => format!("output/state/{index}"),
            };
            match target {
                Target::State(index) if Some(value) == parameter => outputs.push((name, Target::Alias(index))),
                _ => {
                    builder.output(&name, value)?;
                    outputs.push((name, target));
                }
            }
        }
        let inputs = inputs.into_iter().map(|(name, source, _)| (name, source)).collect();
        Ok(Self { graph: builder.finish(), inputs, outputs })
    }

    /// Positions of the states that go in and come out.
    pub(super) fn places(&self) -> Vec<usize> {
        let taken = self.inputs.iter().filter_map(|(_, source)| match source {
            Source::State(index) => Some(*index),
            _ => None,
        });
        let made = self.outputs.iter().filter_map(|(_, target)| match target {
            Target::State(index) | Target::Alias(index) => Some(*index),
            _ => None,
        });
        taken.chain(made).collect()
    }
}

impl Site<'_> {
    /// The tensor before the stage.
    pub fn parameter(&mut self) -> Result<Value> {
        let ty = self.ty();
        self.input("parameter".to_owned(), ty, Source::Parameter)
    }

    /// The gradient of the summed loss, as it comes from the device.
    pub fn gradient_sum(&mut self) -> Result<Value> {
        let ty = self.ty();
        self.input("gradient".to_owned(), ty, Source::Gradient)
    }

    /// The gradient of the mean loss, clipped if that is asked for. Known in the update.
    pub fn gradient(&mut self) -> Result<Value> {
        if let Some(gradient) = self.gradient {
            return Ok(gradient);
        }
        let (sum, factor) = (self.gradient_sum()?, self.scalar(FACTOR)?);
        let gradient = self.builder.mul(sum, factor)?;
        self.gradient = Some(gradient);
        Ok(gradient)
    }

    /// The optimiser's step from `parameter` along `gradient`: the new parameter. To be emitted once.
    pub fn base(&mut self, parameter: Value, gradient: Value) -> Result<Value> {
        let optimizer = self.optimizer;
        optimizer.step(self, parameter, gradient)
    }

    /// The optimiser's step from the tensor along its gradient.
    pub fn base_step(&mut self) -> Result<Value> {
        let (parameter, gradient) = (self.parameter()?, self.gradient()?);
        self.base(parameter, gradient)
    }

    /// How far the tensor is from its anchor, element by element (`theta - theta_0`).
    ///
    /// # Errors
    /// Internal error where it has no anchor.
    pub fn deviation(&mut self) -> Result<Value> {
        if let Some(deviation) = self.deviation {
            return Ok(deviation);
        }
        let parameter = self.parameter()?;
        let deviation = self.deviation_of(parameter)?;
        self.deviation = Some(deviation);
        Ok(deviation)
    }

    /// How far `tensor`, which stands in the place of the parameter, is from the anchor.
    ///
    /// # Errors
    /// As [`Site::deviation`].
    pub fn deviation_of(&mut self, tensor: Value) -> Result<Value> {
        match self.kind.anchor {
            Anchor::Start => {
                let anchor = self.anchor()?;
                self.builder.op("Sub", &[tensor, anchor], &[])
            }
            Anchor::Origin => Ok(tensor),
            Anchor::None => Err(Error::internal("a tensor without an anchor has no deviation")),
        }
    }

    /// The anchor plus a deviation.
    ///
    /// # Errors
    /// As [`Site::deviation`].
    pub fn from_anchor(&mut self, deviation: Value) -> Result<Value> {
        match self.kind.anchor {
            Anchor::Start => {
                let anchor = self.anchor()?;
                self.builder.add(anchor, deviation)
            }
            Anchor::Origin => Ok(deviation),
            Anchor::None => Err(Error::internal("a tensor without an anchor has no deviation")),
        }
    }

    fn anchor(&mut self) -> Result<Value> {
        let ty = self.ty();
        self.input("anchor".to_owned(), ty, Source::Anchor)
    }

    /// What the tensor is for.
    pub fn role(&self) -> Role {
        self.kind.role
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.kind.rank
    }

    /// The number that was chosen for a setting of the method.
    pub fn setting(&self, name: &str) -> Result<f32> {
        Ok(self.chosen.number(name)? as f32)
    }

    /// Whether this word was chosen for a setting of the method.
    pub fn is_chosen(&self, name: &str, word: &'static str) -> Result<bool> {
        Ok(self.chosen.chosen(name)? == Chosen::Word(word))
    }

    /// A number of the step.
    pub fn scalar(&mut self, scalar: Scalar) -> Result<Value> {
        self.input(format!("step/{}", scalar.name), single(), Source::Step(scalar))
    }

    /// One of the tensor's [`super::Numbers`].
    pub fn number(&mut self, name: &'static str) -> Result<Value> {
        self.input(format!("number/{name}"), single(), Source::Number(name))
    }

    /// Makes a value without dimensions one of the tensor's [`super::Numbers`].
    pub fn set_number(&mut self, name: &'static str, value: Value) {
        self.outputs.push((Target::Number(name), value));
    }

    /// What the last step kept under `name`: a tensor of the parameter's shape, zeros at the first step.
    pub fn state(&mut self, name: &'static str) -> Result<Value> {
        let (index, ty) = (self.index_of(name), self.ty());
        self.input(format!("state/{name}"), ty, Source::State(index))
    }

    /// Keeps `value` under `name` for the stages and steps to come.
    pub fn keep(&mut self, name: &'static str, value: Value) {
        let index = self.index_of(name);
        self.outputs.push((Target::State(index), value));
    }

    fn index_of(&mut self, name: &'static str) -> usize {
        self.states.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.states.push(name);
            self.states.len() - 1
        })
    }

    fn input(&mut self, name: String, ty: Type, source: Source) -> Result<Value> {
        if let Some((.., value)) = self.inputs.iter().find(|(known, ..)| *known == name) {
            return Ok(*value);
        }
        let value = self.builder.input(&name, ty)?;
        self.inputs.push((name, source, value));
        Ok(value)
    }

    fn ty(&self) -> Type {
        let dims: Vec<Dim> = (0..self.kind.rank).map(|axis| Dim::from(format!("size_{axis}").as_str())).collect();
        Type::new(DType::F32, dims)
    }
}

/// Sums over elements and rows. A row is what belongs to one index of the first dimension; tensors of fewer than two
/// dimensions are one row.
impl Site<'_> {
    /// The sum of all elements.
    pub fn sum(&mut self, tensor: Value) -> Result<Value> {
        self.reduce("ReduceSum", tensor, 0, false)
    }

    /// The sum of all squares.
    pub fn squares(&mut self, tensor: Value) -> Result<Value> {
        match self.kind.rank {
            0 => self.builder.mul(tensor, tensor),
            _ => self.reduce("ReduceSumSquare", tensor, 0, false),
        }
    }

    /// The inner product of two tensors.
    pub fn dot(&mut self, one: Value, other: Value) -> Result<Value> {
        let products = self.builder.mul(one, other)?;
        self.sum(products)
    }

    /// The least of all elements (`ReduceMin`) or the greatest (`ReduceMax`).
    pub fn extreme(&mut self, op: &str, tensor: Value) -> Result<Value> {
        self.reduce(op, tensor, 0, false)
    }

    /// The sum of each row, so shaped that it broadcasts against the tensor.
    pub fn row_sums(&mut self, tensor: Value) -> Result<Value> {
        let first = if self.kind.rank < 2 { 0 } else { 1 };
        self.reduce("ReduceSum", tensor, first, true)
    }

    /// The sum of the magnitudes of each row, the L1 norms; shaped as [`Site::row_sums`].
    pub fn row_norms(&mut self, tensor: Value) -> Result<Value> {
        let magnitudes = self.builder.op("Abs", &[tensor], &[])?;
        self.row_sums(magnitudes)
    }

    fn reduce(&mut self, op: &str, tensor: Value, first: i64, keep: bool) -> Result<Value> {
        if self.kind.rank == 0 {
            return Ok(tensor);
        }
        let axes = self.builder.ints(&(first..self.kind.rank as i64).collect::<Vec<_>>())?;
        self.builder.op(op, &[tensor, axes], &[("keepdims", Attribute::Int(i64::from(keep)))])
    }
}

fn single() -> Type {
    Type::new(DType::F32, [])
}

const FACTOR: Scalar = Scalar { name: "factor", at: |moment| moment.factor };
