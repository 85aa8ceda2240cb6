//! A counter: increments, which may answer the number after them, and reads.

use super::{Model, is_read};
use crate::history::{Call, Reply};

/// One counter.
pub struct Counter {
    /// The number before anything happened.
    pub initial: i64,
}

impl Model for Counter {
    type Call = Call;
    type Reply = Reply;
    type State = i64;

    fn initial(&self) -> i64 {
        self.initial
    }

    fn step(&self, state: &i64, call: &Call, reply: Option<&Reply>) -> Option<i64> {
        let after = match call {
            Call::Read => *state,
            Call::Increment(by) => state.checked_add(*by)?,
            _ => return None,
        };
        match reply {
            Some(Reply::Number(said)) => (*said == after).then_some(after),
            _ => Some(after),
        }
    }

    fn reads_only(&self, call: &Call, reply: Option<&Reply>) -> bool {
        is_read(call, reply)
    }
}
