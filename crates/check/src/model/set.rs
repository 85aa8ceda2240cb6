//! A set: add, remove, and a read of all members in any order.

use super::{Model, is_read};
use crate::history::{Call, Reply, Value};

/// One set, empty at first.
pub struct Set;

impl Model for Set {
    type Call = Call;
    type Reply = Reply;
    /// Ascending.
    type State = Box<[Value]>;

    fn initial(&self) -> Box<[Value]> {
        Box::default()
    }

    fn step(&self, state: &Box<[Value]>, call: &Call, reply: Option<&Reply>) -> Option<Box<[Value]>> {
        match (call, reply) {
            (Call::Read, Some(Reply::Values(read))) => {
                let mut read = read.to_vec();
                read.sort_unstable();
                (*read == **state).then(|| state.clone())
            }
            (Call::Read, _) => Some(state.clone()),
            (Call::Add(value), reply) => {
                let at = state.binary_search(value);
                // A set that answers whether the element was new says so with a flag.
                if let Some(Reply::Flag(new)) = reply
                    && *new != at.is_err()
                {
                    return None;
                }
                Some(match at {
                    Ok(_) => state.clone(),
                    Err(at) => [&state[..at], &[*value], &state[at..]].concat().into(),
                })
            }
            (Call::Remove(value), reply) => {
                let at = state.binary_search(value);
                if let Some(Reply::Flag(there)) = reply
                    && *there != at.is_ok()
                {
                    return None;
                }
                Some(match at {
                    Ok(at) => [&state[..at], &state[at + 1..]].concat().into(),
                    Err(_) => state.clone(),
                })
            }
            _ => None,
        }
    }

    fn reads_only(&self, call: &Call, reply: Option<&Reply>) -> bool {
        is_read(call, reply)
    }
}
