//! The numbers of a training run, step by step, on their way into the store.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::Result;
use crate::store::{CurvePoint, Store, TrainingRunId};
use crate::train;

/// Points that are handed to the store together.
const POINTS: usize = 1_000;

/// Gathers the points of curves and hands them to the store now and then.
pub(super) struct Curves {
    store: Store,
    run: TrainingRunId,
    points: Vec<CurvePoint>,
}

impl Curves {
    pub(super) fn new(store: Store, run: TrainingRunId) -> Self {
        Self { store, run, points: Vec::new() }
    }

    /// Takes what an event tells.
    pub(super) fn take(&mut self, event: &train::Event) {
        match event {
            train::Event::Stepped(progress) => {
                let own = [
                    ("loss", progress.loss),
                    ("learning_rate", progress.learning_rate),
                    ("gradient_norm", progress.gradient_norm),
                ];
                let recorded = progress.recorded.iter().map(|(name, value)| (*name, *value));
                self.points
                    .extend(own.into_iter().chain(recorded).map(|(name, value)| point(name, progress.step, value)));
            }
            train::Event::Validated { step, score, .. } => self.points.push(point("validation", *step, *score)),
            _ => {}
        }
        let due = matches!(event, train::Event::Validated { .. } | train::Event::Saved { .. });
        // What the store does not take now, it is given again; at the end a failure counts.
        if (due || self.points.len() >= POINTS) && self.store.record_curve(self.run, &self.points).is_ok() {
            self.points.clear();
        }
    }

    /// Hands over all points of the run in `folder`: a process that was killed took some with it, and the means by tensor
    /// are only there.
    pub(super) fn complete(mut self, folder: &Path) -> Result<()> {
        let points: Vec<CurvePoint> = train::metrics(folder)?.iter().flat_map(points).collect();
        self.store.record_curve(self.run, &points)
    }
}

/// The points that a line of the metrics holds; a number of one tensor is in the series `<number>/<tensor>`.
fn points(line: &Map<String, Value>) -> Vec<CurvePoint> {
    let Some(step) = line.get("step").and_then(Value::as_u64) else { return Vec::new() };
    let numbers = |map: &Map<String, Value>, suffix: &str| -> Vec<CurvePoint> {
        let series = map.iter().filter(|(name, _)| !["step", "epoch", "samples"].contains(&name.as_str()));
        let numbers = series.filter_map(|(name, value)| Some((name, value.as_f64()?)));
        numbers.map(|(name, value)| point(&format!("{name}{suffix}"), step, value)).collect()
    };
    let mut points = numbers(line, "");
    for (tensor, values) in line.get("tensors").and_then(Value::as_object).into_iter().flatten() {
        points.extend(values.as_object().into_iter().flat_map(|values| numbers(values, &format!("/{tensor}"))));
    }
    points
}

fn point(series: &str, step: u64, value: f64) -> CurvePoint {
    CurvePoint { series: series.to_owned(), step, value }
}
