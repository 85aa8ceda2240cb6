//! A queue for one thread: whoever pushes wakes it only when it sleeps.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The queue.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    work: Condvar,
}

struct State<T> {
    jobs: Vec<T>,
    asleep: bool,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { jobs: Vec::new(), asleep: false, closed: false };
        Queue { state: Mutex::new(state), work: Condvar::new() }
    }
}

/// What a wait ended with.
pub(super) enum Woken {
    /// There are jobs.
    Work,
    /// Nothing came for a while.
    Idle,
    /// Nothing will come any more.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn push(&self, job: T) {
        self.append(&mut vec![job]);
    }

    /// Takes all of `jobs`.
    pub(super) fn append(&self, jobs: &mut Vec<T>) {
        if jobs.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        state.jobs.append(jobs);
        let asleep = state.asleep;
        // Whoever is woken wants the lock.
        drop(state);
        if asleep {
            self.work.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
    }

    /// Waits for jobs and takes all of them.
    pub(super) fn take(&self, jobs: &mut Vec<T>, patience: Option<Duration>) -> Woken {
        let mut state = self.state.lock();
        while state.jobs.is_empty() {
            if state.closed {
                return Woken::Closed;
            }
            state.asleep = true;
            let idle = match patience {
                Some(patience) => self.work.wait_for(&mut state, patience).timed_out(),
                None => {
                    self.work.wait(&mut state);
                    false
                }
            };
            state.asleep = false;
            if idle && state.jobs.is_empty() && !state.closed {
                return Woken::Idle;
            }
        }
        std::mem::swap(&mut state.jobs, jobs);
        Woken::Work
    }
}
