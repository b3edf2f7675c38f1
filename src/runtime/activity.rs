//! How long ONNX Runtime has been at work, over all sessions and threads.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Sums up the time during which at least one call was running.
#[derive(Debug, Default)]
pub struct Activity(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: usize,
    since: Option<Instant>,
    busy: Duration,
}

impl Activity {
    /// Time during which at least one call was running, up to now. Calls that overlap count once.
    pub fn busy(&self) -> Duration {
        let state = self.lock();
        state.busy + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Makes a call and counts its time.
    pub(super) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.begin();
        let result = call();
        self.end();
        result
    }

    fn begin(&self) {
        let mut state = self.lock();
        state.running += 1;
        state.since.get_or_insert_with(Instant::now);
    }

    fn end(&self) {
        let mut state = self.lock();
        state.running -= 1;
        if state.running == 0
            && let Some(since) = state.since.take()
        {
            state.busy += since.elapsed();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_calls_count_once() {
        let activity = Activity::default();
        let start = Instant::now();
        activity.during(|| {
            activity.during(|| std::thread::sleep(Duration::from_millis(20)));
            std::thread::sleep(Duration::from_millis(5));
        });
        let elapsed = start.elapsed();
        assert!(activity.busy() >= Duration::from_millis(25));
        assert!(activity.busy() <= elapsed);
        std::thread::sleep(Duration::from_millis(2));
        assert!(activity.busy() <= elapsed, "nothing was running");
    }
}
