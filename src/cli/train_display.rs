//! What `train` shows while it runs, and how fast it went.

use std::time::Instant;

use digrap_bench::suite::TrainingEvent;
use digrap_bench::train::{self, Event};
use serde::Serialize;

use super::machine::{forget_peak, resident_mib};
use super::progress::Progress;

/// How fast this process trained. None of it decides a result.
#[derive(Debug, Serialize)]
pub struct Pace {
    /// Steps of this process.
    pub steps: usize,
    /// Median time from step to step, in seconds.
    pub median_step_s: Option<f64>,
    /// Samples of all steps over their time.
    pub samples_per_second: Option<f64>,
    /// Peak of resident memory since the first step began, above what was resident then, in MiB.
    pub peak_memory_mib: Option<f64>,
}

/// A bar over the steps, with loss and learning rate, and a line for each validation.
#[derive(Default)]
pub struct Display {
    progress: Option<Progress>,
    /// When the last event came, and the seconds and samples of each step.
    last: Option<Instant>,
    steps: Vec<(f64, f64)>,
    /// Resident memory before the first step of the run, in MiB.
    resident: Option<f64>,
    /// What earlier runs took above that at most.
    peak: Option<f64>,
}

impl Display {
    /// Shows an event.
    pub fn show(&mut self, event: &TrainingEvent) {
        match event {
            TrainingEvent::Begins(part) => {
                self.end_bar();
                self.say(part);
            }
            TrainingEvent::Loop(event) => self.show_loop(event),
        }
    }

    fn show_loop(&mut self, event: &Event) {
        let now = Instant::now();
        match event {
            Event::Started => {
                self.peak = self.peak_above_start();
                forget_peak();
                self.resident = resident_mib().map(|[now, _]| now);
            }
            Event::Unreached { parameters } => {
                let named = parameters.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = if parameters.len() > 3 { ", ..." } else { "" };
                let count = parameters.len();
                self.say(&format!("{count} parameters do not change the loss and stay as they are: {named}{more}"));
            }
            Event::Resumed { step } => self.say(&format!("going on after step {step}")),
            Event::Stepped(stepped) => {
                let second = self.last.map(|last| (now.duration_since(last).as_secs_f64(), stepped.samples as f64));
                self.steps.extend(second);
                self.draw(stepped);
            }
            Event::Validated { step, epoch, score, best } => {
                let mark = if *best { ", the best so far" } else { "" };
                self.say(&format!("epoch {}: validation {score:.2} % after step {step}{mark}", epoch + 1));
            }
            _ => {}
        }
        self.last = Some(Instant::now());
    }

    fn draw(&mut self, stepped: &train::Progress) {
        let recent = &self.steps[self.steps.len().saturating_sub(20)..];
        let rate = samples_per_second(recent).unwrap_or(0.0);
        let progress = self.progress.get_or_insert_with(|| Progress::resumed(stepped.steps, stepped.step - 1, "steps"));
        let train::Progress { step, loss, learning_rate, .. } = stepped;
        progress.set(*step, &format!("loss {loss:.4}, learning rate {learning_rate:.2e}, {rate:.0} samples/s"));
    }

    fn say(&self, text: &str) {
        Progress::say(self.progress.as_ref(), text);
    }

    /// What all runs so far took above their starts at most, in MiB.
    fn peak_above_start(&self) -> Option<f64> {
        let above = resident_mib().zip(self.resident).map(|([_, peak], before)| (peak - before).max(0.0));
        above.into_iter().chain(self.peak).reduce(f64::max)
    }

    fn end_bar(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
        self.last = None;
    }

    /// Ends the bar.
    pub fn finish(mut self) -> Pace {
        self.end_bar();
        Pace {
            steps: self.steps.len(),
            median_step_s: median(self.steps.iter().map(|(seconds, _)| *seconds).collect()),
            samples_per_second: samples_per_second(&self.steps),
            peak_memory_mib: self.peak_above_start(),
        }
    }
}

fn samples_per_second(steps: &[(f64, f64)]) -> Option<f64> {
    let (seconds, samples) = steps.iter().fold((0.0, 0.0), |sum, step| (sum.0 + step.0, sum.1 + step.1));
    (seconds > 0.0).then(|| samples / seconds)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
