//! What a check may spend, and who it tells how far it is.
//!
//! The checker knows no clock: time, cancellation and progress come in through [`Watcher`], which the command line
//! implements with a real clock and tests with none. A check asks [`Budget::over`] every few thousand steps. At a
//! limit the verdict is unknown and names the limit; nothing is ever guessed.

use std::time::Duration;

use crate::verdict::Limit;

/// The outside of a check: a clock, a place to report progress to, a way to stop.
pub trait Watcher: Sync {
    /// Time since some fixed moment.
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    /// `done` of `all` steps of `phase` are behind us. Called from any thread, not too often.
    fn progress(&self, phase: &str, done: u64, all: u64) {
        let _ = (phase, done, all);
    }

    /// Whether someone wants to stop.
    fn cancelled(&self) -> bool {
        false
    }
}

/// No clock, nobody watching.
pub struct Nobody;

impl Watcher for Nobody {}

/// The limits of one check. Share one among all levels of a history.
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    /// Search steps for each level and key (a step places one operation).
    pub steps_max: u64,
    /// Bytes for remembered search states, over all threads.
    pub memory_max: usize,
    /// When to stop, in the watcher's time.
    pub deadline: Option<Duration>,
    /// Threads for checks that can use several.
    pub threads: usize,
    /// The outside.
    pub watcher: &'a dyn Watcher,
}

/// How many steps a search may do between two looks at the clock.
pub const STEPS_BETWEEN_LOOKS: u64 = 4096;

impl Default for Budget<'static> {
    fn default() -> Budget<'static> {
        Budget { steps_max: 200_000_000, memory_max: 1 << 30, deadline: None, threads: 1, watcher: &Nobody }
    }
}

impl Budget<'_> {
    /// The limit that `steps` done and `memory` bytes held are over, if any.
    pub fn over(&self, steps: u64, memory: usize) -> Option<Limit> {
        if steps > self.steps_max {
            Some(Limit::Steps)
        } else if memory > self.memory_max {
            Some(Limit::Memory)
        } else if self.deadline.is_some_and(|deadline| self.watcher.now() >= deadline) {
            Some(Limit::Time)
        } else if self.watcher.cancelled() {
            Some(Limit::Cancelled)
        } else {
            None
        }
    }
}
