//! Training curves: numbers by run, series and step.

use rusqlite::{TransactionBehavior, params};

use super::Store;
use super::contents::USED_RUNS;
use crate::error::Result;

/// The number of a training run in one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingRunId(pub(super) i64);

impl TrainingRunId {
    /// The number by which people name the run.
    pub fn number(self) -> i64 {
        self.0
    }
}

/// One point of a curve.
#[derive(Debug, Clone, PartialEq)]
pub struct CurvePoint {
    /// What is measured: `loss`, `learning_rate`, `validation`, ...
    pub series: String,
    /// Optimiser steps done.
    pub step: u64,
    /// The number.
    pub value: f64,
}

const INSERT: &str = "INSERT OR REPLACE INTO training_curve (run, series, step, value) VALUES (?1, ?2, ?3, ?4)";

impl Store {
    /// The number of the run with these settings (JSON text), which is given to it on the first call.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn training_run(&mut self, json: &str) -> Result<TrainingRunId> {
        self.number_of("training_run", json).map(TrainingRunId)
    }

    /// Records points of a run, all of them or, on an error, none; a point of the same series and step is replaced.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn record_curve(&mut self, run: TrainingRunId, points: &[CurvePoint]) -> Result<()> {
        let mut insert = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut insert = transaction.prepare_cached(INSERT)?;
                for CurvePoint { series, step, value } in points {
                    insert.execute(params![run.0, series, step.cast_signed(), value])?;
                }
            }
            transaction.commit()
        };
        insert().map_err(|cause| self.failure("write to", cause))
    }

    /// The points of one series of a run, by step.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn curve(&self, run: TrainingRunId, series: &str) -> Result<Vec<(u64, f64)>> {
        let select = || {
            let mut all = self.connection.prepare_cached(
                "SELECT step, value FROM training_curve WHERE run = ?1 AND series = ?2 ORDER BY step",
            )?;
            let rows =
                all.query_map(params![run.0, series], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(u64, f64)>>>()
        };
        select().map_err(|cause| self.failure("read", cause))
    }

    /// Every point of a run, by series and step.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn curves(&self, run: TrainingRunId) -> Result<Vec<CurvePoint>> {
        let select = || {
            let mut all = self.connection.prepare_cached(
                "SELECT series, step, value FROM training_curve WHERE run = ?1 ORDER BY series, step",
            )?;
            let rows = all.query_map([run.0], |row| {
                Ok(CurvePoint { series: row.get(0)?, step: row.get::<_, i64>(1)?.cast_unsigned(), value: row.get(2)? })
            })?;
            rows.collect::<rusqlite::Result<Vec<CurvePoint>>>()
        };
        select().map_err(|cause| self.failure("read", cause))
    }

    /// Every training run that has a point of a curve, with its settings (JSON text), in the order in which they began.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn training_runs(&self) -> Result<Vec<(TrainingRunId, String)>> {
        let select = || {
            let sql = format!("SELECT id, json FROM training_run AS one WHERE {USED_RUNS} ORDER BY id");
            let mut all = self.connection.prepare_cached(&sql)?;
            let rows = all.query_map([], |row| Ok((TrainingRunId(row.get(0)?), row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        select().map_err(|cause| self.failure("read", cause))
    }

    /// Names of the series of a run.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn series(&self, run: TrainingRunId) -> Result<Vec<String>> {
        let select = || {
            let mut all = self
                .connection
                .prepare_cached("SELECT DISTINCT series FROM training_curve WHERE run = ?1 ORDER BY series")?;
            let rows = all.query_map([run.0], |row| row.get(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        };
        select().map_err(|cause| self.failure("read", cause))
    }
}
