//! Things that wait until the disk has caught up with them.

use std::collections::VecDeque;

use crate::types::Lsn;

/// A queue of values, each tied to the record that must be durable before the value may go on.
///
/// Invariant: the marks never decrease from front to back, because records are written in order.
#[derive(Debug)]
pub struct Awaiting<T> {
    queue: VecDeque<(Lsn, T)>,
}

impl<T> Default for Awaiting<T> {
    fn default() -> Self {
        Awaiting { queue: VecDeque::new() }
    }
}

impl<T> Awaiting<T> {
    /// Lets `value` wait until every record up to `mark` is durable.
    pub fn push(&mut self, mark: Lsn, value: T) {
        assert!(
            self.queue.back().is_none_or(|(last, _)| *last <= mark),
            "records are written in order, so nothing may wait for an older record than what came before it"
        );
        self.queue.push_back((mark, value));
    }

    /// The next value whose records are all durable.
    pub fn pop(&mut self, durable: Lsn) -> Option<T> {
        match self.queue.front() {
            Some((mark, _)) if *mark <= durable => self.queue.pop_front().map(|(_, value)| value),
            _ => None,
        }
    }

    /// Forgets all that waits: what it promised is no longer so.
    pub fn clear(&mut self) {
        self.queue.clear();
    }

    /// How many values wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
