//! What is known of the changes that nobody was told of, for filling gaps in the revisions.
//!
//! A revision that no reply claims was made by an operation of unknown outcome, or by a lease that ran out. Later answers
//! and watch events may show what it changed, which narrows down who made it; the order inside a process narrows it, too.

use hashbrown::HashMap;

use super::revisions::Ranked;
use crate::etcd::*;
use crate::history::{Call, History, Key, Operation, Reply as AnyReply, Value};

/// By revision, what was seen of its changes.
pub(super) type Sightings = HashMap<i64, Vec<Seen>, foldhash::fast::FixedState>;

/// What someone saw of the change at a revision.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    key: Key,
    /// `None`: it was deleted.
    pub(super) value: Option<Value>,
}

/// For each operation of unknown outcome the last revision that its process was answered with before it.
pub(super) fn floors(history: &History, ranked: &[Ranked], unknown: &[u32]) -> Vec<i64> {
    if unknown.is_empty() {
        return Vec::new();
    }
    let mut by_position: Vec<(u32, i64)> = ranked.iter().map(|at| (at.operation, at.revision)).collect();
    by_position.sort_unstable();
    let mut highest = vec![0i64; history.processes.len()];
    let mut answered = by_position.into_iter().peekable();
    let floor = |&operation: &u32| {
        while let Some((before, revision)) = answered.next_if(|(position, _)| *position < operation) {
            let slot = &mut highest[history.operations[before as usize].process.0 as usize];
            *slot = (*slot).max(revision);
        }
        highest[history.operations[operation as usize].process.0 as usize]
    };
    unknown.iter().map(floor).collect()
}

/// What answers and watch events say about the changes at each revision.
pub(super) fn sightings(history: &History) -> Sightings {
    let mut seen = Sightings::default();
    let mut note = |pairs: &[KeyValue]| {
        for pair in pairs.iter().filter(|pair| pair.modified > 0) {
            seen.entry(pair.modified).or_default().push(Seen { key: pair.key, value: Some(pair.value) });
        }
    };
    for operation in &history.operations {
        let Some(AnyReply::Etcd(reply)) = operation.reply() else { continue };
        match &reply.body {
            ReplyBody::Range(range) => note(&range.pairs),
            ReplyBody::Txn { replies, .. } => {
                for reply in replies {
                    if let TxnReply::Range(range) = reply {
                        note(&range.pairs);
                    }
                }
            }
            _ => {}
        }
    }
    for stream in &history.watches {
        for event in stream.responses.iter().flat_map(|response| &response.events) {
            let value = match event.change {
                Change::Put(value) => Some(value),
                Change::Delete => None,
            };
            seen.entry(event.revision).or_default().push(Seen { key: event.key, value });
        }
    }
    seen
}

/// Whether an operation of unknown outcome can have made the changes seen.
pub(super) fn could_have(operation: &Operation, seen: Option<&Vec<Seen>>) -> bool {
    let (Call::Etcd(request), Some(seen)) = (&operation.call, seen) else { return true };
    let puts = |put: &Put, seen: &Seen| put.key == seen.key && Some(put.value) == seen.value;
    seen.iter().all(|seen| match &**request {
        Request::Put(put) => puts(put, seen),
        Request::Delete(_) | Request::LeaseRevoke { .. } => seen.value.is_none(),
        Request::Txn(txn) => txn.then.iter().chain(&txn.otherwise).any(|op| match op {
            TxnOp::Put(put) => puts(put, seen),
            TxnOp::Delete(_) => seen.value.is_none(),
            TxnOp::Range(_) => false,
        }),
        _ => false,
    })
}
