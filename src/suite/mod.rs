//! Composes the other rooms: questions, model, store and metric become answers, and answers become scores.
//!
//! Raw answers are the record. They are committed batch by batch, so a run that was killed goes on where it stopped;
//! results files, scores and tables are derived from them.

mod answering;
mod batches;
mod comparison;
mod curves;
mod distances;
mod evaluation;
mod fitting;
mod leaderboard;
mod listing;
mod loading;
mod manifest;
mod measuring;
mod overview;
mod paper;
mod pipeline;
mod plan;
mod relations;
mod run_names;
mod samples;
mod sampling;
mod schedule;
mod sharding;
mod stored;
mod strengths;
mod subject;
mod sweeps;
mod task;
mod toml_text;
mod training;
mod tuning;

pub use answering::{Event, Pace};
pub use comparison::{
    Accuracy, AnsweredTwice, Baseline, BaselineDataset, Blessed, Comparison, DatasetComparison, Differing, Flip, Flips,
    Limits, Outcome, POWER, Run, Side, Thresholds, Verdict, bless, compare, compare_answers, verdict,
};
pub use distances::{MODALITIES, Modality, ModalityShift, Reference, ShiftPlan};
pub use evaluation::{Answers, Evaluation, ModelSource, Plan, PlannedDataset, PlannedModel, evaluate, prepare_folder};
pub use leaderboard::{
    Cell, Entry, EntryRun, EntryShift, Leaderboard, LeaderboardDataset, LeftOut, Selection, leaderboard,
};
pub use listing::{AnswerState, ListedDataset, ListedModel, ListedTraining, StoreListing, stored_listing};
pub use manifest::{Group, KnownSuite, SHIFTS, SUITES, Shift, Suite, SuiteDataset};
pub use measuring::measure_alone;
pub use overview::{Column, Overview, OverviewRow, OverviewShift};
pub use paper::{
    PAPER_SETS, PaperCorrelation, PaperCorrelations, PaperRow, PaperSet, ReportedCorrelation, paper_correlations,
    paper_sweeps,
};
pub use plan::{Length, TrainingPlan, Validation};
pub use relations::{
    DistanceRelations, DistanceSpread, ShiftAndAccuracy, adjusted_p_values, distance_relations, distance_spread,
    shift_and_accuracy,
};
pub use run_names::flattened;
pub use samples::{SampleSet, SampledModel, SampledResults, Samples, samples};
pub use sampling::Sampling;
pub use sharding::{Shard, ShardPart, answer_shard};
pub use stored::{StoredDataset, StoredRun, stored_runs};
pub use strengths::{LayerStrength, StoredStrengths, Tower, stored_strengths};
pub use sweeps::{Sweeps, stored_sweeps};
pub use training::{TrainingEvent, TrainingReport, train_model};
pub use tuning::{Sweep, Trial, Tuning, TuningReport, tune};
