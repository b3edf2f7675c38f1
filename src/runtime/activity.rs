//! How long ONNX Runtime has been at work, over all sessions and threads.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Sums up the time of calls.
#[derive(Debug, Default)]
pub struct Activity(Mutex<State>);

/// Time of calls so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallTime {
    /// During which at least one call was running: calls that overlap count once.
    pub busy: Duration,
    /// Of all calls together: those that overlap count each.
    pub work: Duration,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    since: Option<Instant>,
    done: CallTime,
}

impl Activity {
    /// Time of the calls that have ended while no other was running, or of all where none is.
    pub fn time(&self) -> CallTime {
        self.lock().done
    }

    /// Makes a call and counts its time.
    pub(super) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        self.begin(start);
        let result = call();
        self.end(start);
        result
    }

    fn begin(&self, start: Instant) {
        let mut state = self.lock();
        state.running += 1;
        state.since.get_or_insert(start);
    }

    fn end(&self, start: Instant) {
        let mut state = self.lock();
        state.running -= 1;
        state.done.work += start.elapsed();
        if state.running == 0
            && let Some(since) = state.since.take()
        {
            state.done.busy += since.elapsed();
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
    fn overlapping_calls_are_busy_once_and_work_each() {
        let activity = Activity::default();
        let start = Instant::now();
        activity.during(|| {
            activity.during(|| std::thread::sleep(Duration::from_millis(20)));
            std::thread::sleep(Duration::from_millis(5));
        });
        let elapsed = start.elapsed();
        let CallTime { busy, work } = activity.time();
        assert!(busy >= Duration::from_millis(25) && busy <= elapsed);
        assert!(work >= Duration::from_millis(45) && work <= 2 * elapsed);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(activity.time(), CallTime { busy, work }, "nothing was running");
    }
}
