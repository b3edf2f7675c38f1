//! Composes the other rooms: questions, model, store and metric become answers, and answers become scores.
//!
//! Raw answers are the record. They are committed batch by batch, so a run that was killed goes on where it stopped;
//! results files, scores and tables are derived from them.

mod answering;
mod batches;
mod curves;
mod evaluation;
mod manifest;
mod measuring;
mod overview;
mod paper;
mod plan;
mod sampling;
mod schedule;
mod subject;
mod task;
mod training;
mod tuning;

pub use answering::{Event, Pace};
pub use evaluation::{Evaluation, ModelSource, Plan, PlannedDataset, PlannedModel, evaluate};
pub use manifest::{Group, KnownSuite, SHIFTS, SUITES, Shift, Suite, SuiteDataset};
pub use measuring::measure_alone;
pub use overview::{Column, Overview, OverviewRow};
pub use paper::{PAPER_SETS, PaperCorrelation, PaperCorrelations, PaperSet, ReportedCorrelation, paper_correlations};
pub use plan::{Length, TrainingPlan, Validation};
pub use sampling::Sampling;
pub use training::{TrainingEvent, TrainingReport, train_model};
pub use tuning::{Sweep, Trial, Tuning, TuningReport, tune};
