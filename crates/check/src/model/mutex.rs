//! A mutex with fencing: acquire may answer a token, and tokens grow with every acquisition.
//!
//! The holder is not checked to be the releaser: a lock that lets another client release it is still a mutex to those
//! who acquire. A release of a free mutex is refused by the model.

use super::Model;
use crate::history::{Call, Reply};

/// One mutex, free at first.
pub struct Mutex;

/// Free or held, and the last token given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lock {
    /// Nobody holds it.
    Free(i64),
    /// Somebody does.
    Held(i64),
}

impl Model for Mutex {
    type Call = Call;
    type Reply = Reply;
    type State = Lock;

    fn initial(&self) -> Lock {
        Lock::Free(i64::MIN)
    }

    fn step(&self, state: &Lock, call: &Call, reply: Option<&Reply>) -> Option<Lock> {
        match (state, call) {
            (Lock::Free(last), Call::Acquire) => match reply {
                Some(Reply::Number(token)) => (token > last).then_some(Lock::Held(*token)),
                Some(Reply::Flag(false)) => None,
                _ => Some(Lock::Held(*last)),
            },
            // Tried and told that it is taken.
            (Lock::Held(_), Call::Acquire) => (reply == Some(&Reply::Flag(false))).then_some(*state),
            (Lock::Held(last), Call::Release) => Some(Lock::Free(*last)),
            _ => None,
        }
    }

    fn reads_only(&self, call: &Call, reply: Option<&Reply>) -> bool {
        matches!((call, reply), (Call::Acquire, Some(Reply::Flag(false))))
    }
}
