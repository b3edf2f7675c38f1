//! Fine-tuning methods: how a gradient becomes a new parameter, one row per method.
//!
//! A step of a method has three parts. `measure` emits nodes that take numbers of each tensor, such as an inner product;
//! `decide` turns the numbers of all tensors into those that the update needs, such as a projection strength, in double
//! precision on the host; `update` emits the nodes that make the new tensor. A method has the parts that it needs, and
//! takes the others from [`PLAIN`]. Its row in [`METHODS`] is all that the loop, the command line and `list methods` know
//! of it. This is a row and its function, for L1-SP, the pull towards the pre-trained weights by the sign of the deviation:
//!
//! ```
//! use digrap_bench::error::Result;
//! use digrap_bench::graph::Value;
//! use digrap_bench::train::{Method, NOT_NEGATIVE, PLAIN, Setting, Site, Values};
//!
//! pub static L1_SP: Method = Method {
//!     name: "l1-sp",
//!     about: "gradient plus a constant pull towards the anchor",
//!     settings: &[Setting {
//!         name: "lambda",
//!         about: "size of the pull",
//!         values: Values::Number { default: 0.001, range: NOT_NEGATIVE },
//!     }],
//!     anchored: true,
//!     update: l1_sp,
//!     ..PLAIN
//! };
//!
//! fn l1_sp(site: &mut Site) -> Result<Value> {
//!     let (parameter, gradient, deviation) = (site.parameter()?, site.gradient()?, site.deviation()?);
//!     let sign = site.builder.op("Sign", &[deviation], &[])?;
//!     let pull = site.builder.scale(sign, site.setting("lambda")?)?;
//!     let pulled = site.builder.add(gradient, pull)?;
//!     site.base(parameter, pulled)
//! }
//! ```

use super::numbers::Numbers;
use super::rules::{digrap, ftp, l2_sp, mars, pcgrad, spd, tpgm};
use super::setting::{ChosenMethod, Setting, Values};
use super::site::Site;
use crate::error::Result;
use crate::graph::Value;

/// One fine-tuning method.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What can be set about it.
    pub settings: &'static [Setting],
    /// Settings that leave others without effect once they are not at their default, with those others.
    pub overrides: &'static [(&'static str, &'static [&'static str])],
    /// The setting that holds tensors closer to their anchors the greater it is, if there is one: what a search for an
    /// in-distribution accuracy turns.
    pub strength: Option<&'static str>,
    /// What trains.
    pub selection: Selection,
    /// Whether the run starts from the head that a linear probe has found.
    pub probes_first: bool,
    /// Whether it holds an anchor of each tensor. Then `dot`, `gradient_squares` and `deviation_squares` are measured,
    /// and cosine, conflicts and distance are recorded.
    pub anchored: bool,
    /// Whether the last step's tensor is kept under [`LAST`] until the numbers of a step are taken; `product_with_last` is
    /// then measured too, that of the gradient sum with the deviation of then.
    pub remembers: bool,
    /// Numbers that are recorded beside those.
    pub recorded: &'static [&'static str],
    /// Emits what takes numbers of one anchored tensor before any of them changes.
    pub measure: fn(&mut Site) -> Result<()>,
    /// Turns the numbers of all anchored tensors into those that the update asks for.
    pub decide: fn(&Step, &mut [&mut Numbers]) -> Result<()>,
    /// Emits the update of one tensor; returns the new parameter.
    pub update: fn(&mut Site) -> Result<Value>,
    /// Whether the numbers of an anchored tensor make `update` the optimiser's own step, which is then taken instead.
    pub rests: Option<fn(&Numbers) -> bool>,
    /// The update of a tensor without an anchor.
    pub unanchored: fn(&mut Site) -> Result<Value>,
    /// What is learnt from validation batches after the update.
    pub search: Option<Search>,
    /// What is done with the start and the end of a run.
    pub merge: Option<Merge>,
}

/// What a method trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// What was chosen.
    Chosen,
    /// The head.
    Head,
    /// Normalisation layers and the head.
    NormsAndHead,
}

/// A step as methods see it when they decide.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The method with its settings.
    pub method: &'a ChosenMethod,
    /// Its number, from 1.
    pub number: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// What makes a number that is linear in [`Site::gradient_sum`] one of the gradient of the mean loss.
    pub factor: f64,
    /// In a search: rounds that are done.
    pub round: u64,
}

/// How numbers of tensors are learnt on validation batches after an update, before the step is done.
///
/// The tensors are then those of the update. Each round takes the gradient of the loss of a validation batch where
/// `project` puts them; when all rounds are done they are moved there.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// Rounds in a step.
    pub rounds: fn(&Step) -> Result<u64>,
    /// Emits the tensor as the numbers say: a trial, and in the end the new parameter.
    pub project: fn(&mut Site) -> Result<Value>,
    /// Emits what takes numbers of the gradient at the trial.
    pub measure: fn(&mut Site) -> Result<()>,
    /// Turns the numbers of all tensors into those of the next trial: once before the first and once after each.
    pub decide: fn(&Step, &mut [&mut Numbers]) -> Result<()>,
}

/// What becomes of start and end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// An interpolation between the two (WiSE-FT). The share of the end is the setting `alpha_finetuned`; under LoRA the
    /// setting `space` says whether the merged weights are interpolated or the factors.
    Interpolate,
}

/// The state that holds the tensor of the last step, if the method remembers it.
pub const LAST: &str = "last";

/// A method that takes the optimiser's own step, for the parts that another does not need.
pub const PLAIN: Method = Method {
    name: "vanilla",
    about: "the optimiser's own step",
    settings: &[],
    overrides: &[],
    strength: None,
    selection: Selection::Chosen,
    probes_first: false,
    anchored: false,
    remembers: false,
    recorded: &[],
    measure: |_| Ok(()),
    decide: |_, _| Ok(()),
    update: |site| site.base_step(),
    rests: None,
    unanchored: |site| site.base_step(),
    search: None,
    merge: None,
};

/// The head alone.
pub const LINEAR_PROBE: Method = Method {
    name: "linear-probe",
    about: "trains the head alone (a tied one through both of its uses)",
    selection: Selection::Head,
    ..PLAIN
};

/// Every method.
pub static METHODS: &[Method] = &[
    PLAIN,
    LINEAR_PROBE,
    Method {
        name: "partial-fusion",
        about: "trains the normalisation layers and the head",
        selection: Selection::NormsAndHead,
        ..PLAIN
    },
    Method {
        name: "lp-ft",
        about: "linear probe, then fine-tuning from its head for as many steps (Kumar et al. 2022)",
        probes_first: true,
        ..PLAIN
    },
    Method { name: "lp-ft-c", about: "LP-FT whose second stage is L2-SP", probes_first: true, ..l2_sp::L2_SP },
    l2_sp::L2_SP,
    mars::PENALTY,
    mars::CONSTRAINT,
    Method {
        name: "wise-ft",
        about: "fine-tuning, then interpolation with the weights it started from (Wortsman et al. 2022)",
        settings: &[
            Setting {
                name: "alpha_finetuned",
                about: "share of the fine-tuned weights: 0 is where the run started, 1 where it ended",
                values: Values::Number { default: 0.5, range: [0.0, 1.0] },
            },
            Setting {
                name: "space",
                about: "what is interpolated under LoRA: the merged weights, or each factor with its initial values",
                values: Values::Word(&["merged", "factors"]),
            },
        ],
        merge: Some(Merge::Interpolate),
        ..PLAIN
    },
    tpgm::TPGM,
    tpgm::CONTROLLED,
    ftp::FTP,
    spd::SPD,
    pcgrad::PCGRAD,
    digrap::DIGRAP,
];

/// The method of this name.
///
/// # Errors
///
/// Input error that names all methods and the nearest one.
pub fn find(name: &str) -> Result<&'static Method> {
    crate::error::find_row(METHODS, "method", name, |method| vec![method.name])
}
