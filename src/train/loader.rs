//! Batches made ahead of the device on worker threads, handed out in order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Batch, Batches};
use crate::error::{Error, Result};

/// Hands out the batches of a range of micro-steps.
pub(super) struct Loader<'a> {
    batches: &'a dyn Batches,
    end: u64,
    ahead: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The next micro-step that a worker begins.
    begun: u64,
    /// The next micro-step to be handed out.
    wanted: u64,
    ready: BTreeMap<u64, Result<Batch>>,
    /// Nobody takes batches any more, or a worker has panicked.
    over: bool,
}

impl<'a> Loader<'a> {
    /// Batches of the micro-steps from `start` to before `end`, at most `ahead` of them ready or in the making.
    pub(super) fn new(batches: &'a dyn Batches, start: u64, end: u64, ahead: u64) -> Self {
        let state = State { begun: start, wanted: start, ready: BTreeMap::new(), over: false };
        Self { batches, end, ahead: ahead.max(1), state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Runs `consume` while `workers` threads make batches.
    pub(super) fn during<T>(&self, workers: usize, consume: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            for _ in 0..workers.max(1) {
                scope.spawn(|| {
                    let _end = End(self);
                    self.work();
                });
            }
            let _end = End(self);
            consume()
        })
    }

    /// The next batch. Waits until it is there.
    pub(super) fn next(&self) -> Result<Batch> {
        let mut state = self.lock();
        let wanted = state.wanted;
        loop {
            if let Some(batch) = state.ready.remove(&wanted) {
                state.wanted += 1;
                self.changed.notify_all();
                return batch;
            }
            if state.over || wanted >= self.end {
                return Err(Error::internal(format!("nobody makes the batch of micro-step {wanted}")));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        while let Some(micro_step) = self.begin() {
            let batch = self.batches.batch(micro_step);
            self.lock().ready.insert(micro_step, batch);
            self.changed.notify_all();
        }
    }

    /// The next micro-step to make, as soon as there is room; none when all are made or nobody wants more.
    fn begin(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if state.over || state.begun >= self.end {
                return None;
            }
            if state.begun < state.wanted + self.ahead {
                state.begun += 1;
                return Some(state.begun - 1);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the work when the consumer is done, however that is, and when a worker panics.
struct End<'a, 'b>(&'a Loader<'b>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        // A worker that has nothing left to begin leaves the others to their work.
        if std::thread::panicking() || state.begun < self.0.end {
            state.over = true;
        }
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    /// Batches whose sizes are their numbers; every third takes longer.
    struct Numbered {
        begun: AtomicU64,
    }

    impl Batches for Numbered {
        fn batch(&self, micro_step: u64) -> Result<Batch> {
            self.begun.fetch_max(micro_step + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(if micro_step.is_multiple_of(3) { 4 } else { 0 }));
            match micro_step {
                13 => Err(Error::input("the image of question 13 is damaged")),
                99 => panic!("a defect"),
                _ => Ok(Batch { inputs: Vec::new(), count: 1, samples: micro_step as usize, ids: Vec::new() }),
            }
        }
    }

    #[test]
    fn batches_come_in_order_and_not_further_ahead_than_allowed() {
        let batches = Numbered { begun: AtomicU64::new(0) };
        let loader = Loader::new(&batches, 14, 50, 5);
        loader.during(3, || {
            for expected in 14..50 {
                assert_eq!(loader.next().unwrap().samples, expected as usize);
                assert!(batches.begun.load(Ordering::SeqCst) <= expected + 1 + 5);
            }
            assert!(loader.next().is_err());
        });
    }

    #[test]
    fn errors_come_at_their_turn_and_an_early_end_stops_the_workers() {
        let batches = Numbered { begun: AtomicU64::new(0) };
        let loader = Loader::new(&batches, 10, u64::MAX, 4);
        let error = loader.during(2, || (10..).map(|_| loader.next()).find_map(Result::err).unwrap());
        assert_eq!(error.to_string(), "the image of question 13 is damaged");
    }

    #[test]
    fn a_panic_of_a_worker_does_not_leave_the_consumer_waiting() {
        let batches = Numbered { begun: AtomicU64::new(0) };
        let loader = Loader::new(&batches, 98, 120, 1);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            loader.during(1, || {
                assert_eq!(loader.next().unwrap().samples, 98);
                assert!(loader.next().is_err());
            });
        }));
        assert!(result.is_err(), "the panic goes on");
    }
}
