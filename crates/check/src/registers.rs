//! A history of etcd's store seen as one register for each key, so that the levels below linearizability can be judged.
//!
//! The causal checkers and the session guarantees ask which write a read saw. In etcd's store the answer says so: a pair
//! carries the revision that wrote it, and a reply's header tells what an absent key was absent at. So a put writes its
//! revision, a deletion writes a tombstone of its revision, and a read reads one or the other. A transaction is cut into
//! its operations on single keys, a range into reads of the keys that it returned: what is violated then is violated,
//! but that all took effect at once is not judged, and [`Registers::cut`] says that this happened.

use hashbrown::HashMap;

use crate::etcd::*;
use crate::history::{
    Call, Clock, Datum, History, Key, ModelKind, NEVER, Operation, Outcome, Reply as AnyReply, Value,
};

/// The registers, and where each of their operations comes from.
pub struct Registers {
    /// Reads and writes only.
    pub history: History,
    /// For each operation the position of its origin.
    pub origin: Vec<u32>,
    /// How many operations were cut or left out: with any, what holds for the registers need not hold for the store.
    pub cut: usize,
}

/// What is known of a key's past: each change with its revision, ascending.
type Past = HashMap<Key, Vec<(i64, Change)>, foldhash::fast::FixedState>;

/// The registers of a history of etcd's store; `None` for other models.
pub fn of(history: &History) -> Option<Registers> {
    if history.model != ModelKind::Etcd {
        return None;
    }
    let mut registers = History::empty(history.name.clone(), history.format, ModelKind::Register);
    registers.keys = history.keys.clone();
    registers.processes = history.processes.clone();
    registers.clock = history.clock;
    let mut cutter = Cutter { past: past(history), registers, origin: Vec::new(), cut: 0 };
    for (i, operation) in history.operations.iter().enumerate() {
        cutter.operation(i as u32, operation);
    }
    debug_assert!(
        cutter.registers.clock == Clock::PerProcess
            || cutter.registers.operations.is_sorted_by_key(|at| at.invoked)
    );
    Some(Registers { history: cutter.registers, origin: cutter.origin, cut: cutter.cut })
}

/// Every change that a reply names: as its own, or as the last of a pair that was read.
fn past(history: &History) -> Past {
    let mut past = Past::default();
    let mut note = |key: Key, revision: i64, change: Change| {
        if revision > 0 {
            past.entry(key).or_default().push((revision, change));
        }
    };
    for operation in &history.operations {
        let (Call::Etcd(request), Some(AnyReply::Etcd(reply))) = (&operation.call, operation.reply()) else {
            continue;
        };
        match (&**request, &reply.body) {
            (Request::Put(put), ReplyBody::Nothing) => note(put.key, reply.revision, Change::Put(put.value)),
            (Request::Delete(range), ReplyBody::Deleted(1)) if range.end == RangeEnd::Single => {
                note(range.key, reply.revision, Change::Delete);
            }
            (Request::Range(_), ReplyBody::Range(range)) => {
                range.pairs.iter().for_each(|pair| note(pair.key, pair.modified, Change::Put(pair.value)));
            }
            (Request::Txn(txn), ReplyBody::Txn { succeeded: Some(succeeded), replies }) => {
                let branch = if *succeeded { &txn.then } else { &txn.otherwise };
                for (i, op) in branch.iter().enumerate() {
                    match (op, replies.get(i)) {
                        (TxnOp::Put(put), _) => note(put.key, reply.revision, Change::Put(put.value)),
                        (TxnOp::Delete(range), Some(TxnReply::Deleted(1)))
                            if range.end == RangeEnd::Single =>
                        {
                            note(range.key, reply.revision, Change::Delete);
                        }
                        (TxnOp::Range(_), Some(TxnReply::Range(range))) => {
                            range
                                .pairs
                                .iter()
                                .for_each(|pair| note(pair.key, pair.modified, Change::Put(pair.value)));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    for changes in past.values_mut() {
        changes.sort_unstable_by_key(|(revision, _)| *revision);
        changes.dedup();
    }
    past
}

struct Cutter {
    past: Past,
    registers: History,
    origin: Vec<u32>,
    cut: usize,
}

impl Cutter {
    fn emit(&mut self, i: u32, from: &Operation, key: Key, call: Call, outcome: Outcome) {
        let completed = if outcome == Outcome::Unknown { NEVER } else { from.completed };
        let Operation { process, invoked, id, line, .. } = *from;
        self.registers.operations.push(Operation {
            process,
            key,
            call,
            outcome,
            invoked,
            completed,
            id,
            line,
        });
        self.origin.push(i);
    }

    fn value(&mut self, datum: Datum) -> Value {
        Value(self.registers.values.intern(datum))
    }

    fn written_at(&mut self, revision: i64) -> Value {
        self.value(Datum::Int(revision))
    }

    fn deleted_at(&mut self, revision: i64) -> Value {
        self.value(Datum::text(format!("deleted at {revision}")))
    }

    fn operation(&mut self, i: u32, operation: &Operation) {
        let Call::Etcd(request) = &operation.call else { return };
        let reply = match operation.reply() {
            Some(AnyReply::Etcd(reply)) => Some(&**reply),
            _ => None,
        };
        match (&**request, reply) {
            _ if operation.outcome == Outcome::Failed => {}
            (Request::Put(put), None) => self.unknown_put(i, operation, put),
            (Request::Put(put), Some(reply)) => self.put(i, operation, put, reply.revision),
            (Request::Range(range), Some(Reply { revision, body: ReplyBody::Range(pairs) })) => {
                self.range(i, operation, range, pairs, *revision);
            }
            (Request::Delete(range), Some(Reply { revision, body: ReplyBody::Deleted(count) })) => {
                self.delete(i, operation, range, *count, *revision);
            }
            (
                Request::Txn(txn),
                Some(Reply { revision, body: ReplyBody::Txn { succeeded: Some(succeeded), replies } }),
            ) => {
                let branch = if *succeeded { &txn.then } else { &txn.otherwise };
                self.cut += usize::from(branch.len() > 1);
                for (at, op) in branch.iter().enumerate() {
                    match (op, replies.get(at)) {
                        (TxnOp::Put(put), _) => self.put(i, operation, put, *revision),
                        (TxnOp::Range(range), Some(TxnReply::Range(pairs))) => {
                            self.range(i, operation, range, pairs, *revision)
                        }
                        (TxnOp::Delete(range), Some(TxnReply::Deleted(count))) => {
                            self.delete(i, operation, range, *count, *revision)
                        }
                        _ => self.cut += 1,
                    }
                }
            }
            (Request::Txn(txn), None) => {
                for op in txn.then.iter().chain(&txn.otherwise) {
                    if let TxnOp::Put(put) = op {
                        self.unknown_put(i, operation, put);
                    }
                }
            }
            (
                Request::Other
                | Request::LeaseGrant { .. }
                | Request::LeaseKeepAlive { .. }
                | Request::Compact { .. },
                _,
            ) => {}
            // Revocations delete keys that only the store knows; reads of their absence are left out below.
            _ => self.cut += 1,
        }
    }

    fn put(&mut self, i: u32, from: &Operation, put: &Put, revision: i64) {
        if revision <= 0 {
            self.cut += 1;
            return;
        }
        let value = self.written_at(revision);
        self.emit(i, from, put.key, Call::Write(value), Outcome::Ok(AnyReply::Done));
    }

    /// A put that may have happened: if a pair with its value was read, that pair's revision says when.
    fn unknown_put(&mut self, i: u32, from: &Operation, put: &Put) {
        let seen = self
            .past
            .get(&put.key)
            .into_iter()
            .flatten()
            .find(|(_, change)| *change == Change::Put(put.value));
        let value = match seen.map(|(revision, _)| *revision) {
            Some(revision) => self.written_at(revision),
            None => self.value(Datum::text(format!("operation {i}"))),
        };
        self.emit(i, from, put.key, Call::Write(value), Outcome::Unknown);
    }

    fn range(&mut self, i: u32, from: &Operation, range: &Range, reply: &RangeReply, revision: i64) {
        // A read of the past says nothing about the present.
        if range.revision > 0 {
            return;
        }
        self.cut += usize::from(range.end != RangeEnd::Single);
        for pair in &reply.pairs {
            if pair.modified <= 0 {
                self.cut += 1;
                continue;
            }
            let value = self.written_at(pair.modified);
            self.emit(i, from, pair.key, Call::Read, Outcome::Ok(AnyReply::Value(value)));
        }
        if reply.pairs.is_empty() && range.end == RangeEnd::Single {
            self.absent(i, from, range.key, revision);
        }
    }

    fn delete(&mut self, i: u32, from: &Operation, range: &DeleteRange, count: i64, revision: i64) {
        match (range.end, count) {
            (RangeEnd::Single, 1) if revision > 0 => {
                let value = self.deleted_at(revision);
                self.emit(i, from, range.key, Call::Write(value), Outcome::Ok(AnyReply::Done));
            }
            (RangeEnd::Single, 0) => self.absent(i, from, range.key, revision),
            _ => self.cut += 1,
        }
    }

    /// The key was not there at this revision: never written, or since its last deletion.
    fn absent(&mut self, i: u32, from: &Operation, key: Key, revision: i64) {
        let past = self.past.get(&key).map_or(&[][..], Vec::as_slice);
        let last = past.partition_point(|(at, _)| *at <= revision).checked_sub(1).map(|at| past[at]);
        let value = match last {
            _ if revision <= 0 => None,
            None => Some(Value::NIL),
            Some((at, Change::Delete)) => Some(self.deleted_at(at)),
            // Somebody deleted it whose deletion we do not know: a lease, or an unknown outcome.
            Some((_, Change::Put(_))) => None,
        };
        match value {
            Some(value) => self.emit(i, from, key, Call::Read, Outcome::Ok(AnyReply::Value(value))),
            None => self.cut += 1,
        }
    }
}
