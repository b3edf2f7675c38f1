//! Fine-tuning methods: how a gradient becomes a new parameter, one row per method, by increasing complexity.

use super::optimizer::Optimizer;
use crate::error::{Error, Result};
use crate::graph::{Builder, Dim, Type, Value};
use crate::tensor::DType;

/// One fine-tuning method.
#[derive(Debug)]
pub struct Method {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Emits the update of one tensor; returns the new parameter.
    pub update: fn(&mut UpdateSite) -> Result<Value>,
}

/// Every method.
pub static METHODS: &[Method] = &[Method {
    name: "vanilla",
    about: "the optimiser's own step",
    update: |site| site.base(site.parameter, site.gradient),
}];

/// The method of this name.
///
/// # Errors
///
/// Input error that names all methods and the nearest one.
pub fn find(name: &str) -> Result<&'static Method> {
    crate::error::find_row(METHODS, "method", name, |method| vec![method.name])
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
    /// What turns gradients into steps.
    pub optimizer: &'a Optimizer,
}

/// The update of one tensor while its graph is being written. All tensors are f32.
pub struct UpdateSite<'a> {
    /// Takes the nodes.
    pub builder: &'a mut Builder,
    /// The tensor before the step.
    pub parameter: Value,
    /// Gradient of the mean loss, clipped if that is asked for.
    pub gradient: Value,
    optimizer: &'a Optimizer,
    ty: Type,
    pub(super) plan: UpdatePlan,
}

/// What an update graph wants beside parameter and gradient, and what it gives beside the new parameter.
#[derive(Debug, Default)]
pub(super) struct UpdatePlan {
    /// Numbers by step.
    pub scalars: Vec<(Scalar, Value)>,
    /// Tensors that a step hands to the next one, with their values before and after it. They start as zeros.
    pub states: Vec<(&'static str, Value, Option<Value>)>,
    /// Numbers to report, averaged over the tensors.
    pub reports: Vec<(&'static str, Value)>,
}

impl<'a> UpdateSite<'a> {
    /// Declares the parameter and the gradient's sum and factor; tensors have `rank` dimensions.
    pub(super) fn new(builder: &'a mut Builder, optimizer: &'a Optimizer, rank: usize) -> Result<Self> {
        let dims: Vec<Dim> = (0..rank).map(|axis| Dim::from(format!("size_{axis}").as_str())).collect();
        let ty = Type::new(DType::F32, dims);
        let parameter = builder.input("parameter", ty.clone())?;
        let sum = builder.input("gradient", ty.clone())?;
        let factor = builder.input("factor", Type::new(DType::F32, []))?;
        let gradient = builder.mul(sum, factor)?;
        Ok(Self { builder, parameter, gradient, optimizer, ty, plan: UpdatePlan::default() })
    }

    /// The optimiser's step from `parameter` along `gradient`: the new parameter. To be emitted once.
    pub fn base(&mut self, parameter: Value, gradient: Value) -> Result<Value> {
        let optimizer = self.optimizer;
        optimizer.step(self, parameter, gradient)
    }

    /// A number of the step.
    pub fn scalar(&mut self, scalar: Scalar) -> Result<Value> {
        if let Some((_, value)) = self.plan.scalars.iter().find(|(known, _)| known.name == scalar.name) {
            return Ok(*value);
        }
        let value = self.builder.input(&format!("scalar/{}", scalar.name), Type::new(DType::F32, []))?;
        self.plan.scalars.push((scalar, value));
        Ok(value)
    }

    /// What the last step kept under `name`: a tensor of the parameter's shape, zeros at the first step.
    pub fn state(&mut self, name: &'static str) -> Result<Value> {
        let value = self.builder.input(&format!("state/{name}"), self.ty.clone())?;
        self.plan.states.push((name, value, None));
        Ok(value)
    }

    /// Keeps `value` under `name` for the next step.
    ///
    /// # Errors
    ///
    /// Internal error if no state of this name was asked for.
    pub fn keep(&mut self, name: &str, value: Value) -> Result<()> {
        let state = self.plan.states.iter_mut().find(|(known, ..)| *known == name);
        let (.., next) = state.ok_or_else(|| Error::internal(format!("the update has no state `{name}`")))?;
        *next = Some(value);
        Ok(())
    }

    /// Reports a number without dimensions; the run's metrics hold its mean over the tensors.
    pub fn report(&mut self, name: &'static str, value: Value) {
        self.plan.reports.push((name, value));
    }
}
