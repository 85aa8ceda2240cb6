//! Carrying out writes, alone and in transactions.
//!
//! A transaction is decided wholly before its first write: all compares, nested ones too, look at the state before it,
//! then every operation on the path that was taken is checked against that same state; only then the operations run, in
//! order, and nothing in them can fail any more. Both decisions rest on replicated state alone (what is compacted is
//! replicated, too), so every replica takes the same one, whether or not it has anybody to answer: reads of a
//! transaction are skipped where nobody listens.

use std::cmp::Ordering;

use bytes::{Bytes, BytesMut};
use synod_core::Audience;

use crate::arena::{At, Rev};
use crate::error::OpError;
use crate::lease::Leases;
use crate::mvcc::{Change, Mvcc};
use crate::op::{
    Compare, CompareResult, CompareTarget, DeleteRange, DeleteReply, Put, PutReply, RangeReply, RangeRequest,
    Txn, TxnOp, TxnOpReply, TxnReply,
};
use crate::record::{KeyValue, KvList, put_element};
use crate::view::{NO_END, View};

/// What a put costs against the quota beside its key and value.
const PUT_COST_BYTES: u64 = 256;

impl Put {
    /// What this may add to the store at most, for the quota.
    #[must_use]
    pub fn cost(&self) -> u64 {
        PUT_COST_BYTES + self.key.len() as u64 + self.value.len() as u64
    }

    fn must_exist(&self) -> bool {
        self.flags.ignore_value || self.flags.ignore_lease
    }
}

impl Txn {
    /// What the costlier branch may add to the store at most, for the quota.
    #[must_use]
    pub fn cost(&self) -> u64 {
        let cost = |ops: &[TxnOp]| {
            let each = ops.iter().map(|op| match op {
                TxnOp::Put(put) => put.cost(),
                TxnOp::Txn(txn) => txn.cost(),
                TxnOp::Range(_) | TxnOp::DeleteRange(_) | TxnOp::Empty => 0,
            });
            each.sum::<u64>()
        };
        cost(&self.success).max(cost(&self.failure))
    }
}

/// The branches that a transaction and those in it take, in the order of their running.
#[derive(Debug, Default)]
pub(crate) struct Path(Vec<bool>);

/// Decides the branches of a transaction.
pub(crate) fn decide(view: &View, txn: &Txn) -> Path {
    fn walk(view: &View, txn: &Txn, path: &mut Path) {
        let holds = txn.compare.iter().all(|compare| compare_holds(view, compare));
        path.0.push(holds);
        for op in txn.branch(holds) {
            if let TxnOp::Txn(inner) = op {
                walk(view, inner, path);
            }
        }
    }
    let mut path = Path::default();
    walk(view, txn, &mut path);
    path
}

impl Txn {
    fn branch(&self, holds: bool) -> &[TxnOp] {
        if holds { &self.success } else { &self.failure }
    }
}

fn compare_holds(view: &View, compare: &Compare) -> bool {
    if compare.range_end.is_empty() {
        let record = view.live(&compare.key);
        return pair_satisfies(compare, record.map(|record| record.pair()));
    }
    let mut any = false;
    for at in view.live_span(&compare.key, &compare.range_end) {
        any = true;
        if !pair_satisfies(compare, Some(view.arena.record(at).pair())) {
            return false;
        }
    }
    // An interval without keys is judged like a key that does not exist.
    any || pair_satisfies(compare, None)
}

fn pair_satisfies(compare: &Compare, pair: Option<KeyValue<'_>>) -> bool {
    let missing = pair.is_none();
    let pair = pair.unwrap_or_default();
    let order = match &compare.target {
        CompareTarget::Version(given) => pair.version.cmp(given),
        CompareTarget::Create(given) => pair.create.cmp(given),
        CompareTarget::Mod(given) => pair.modified.cmp(given),
        CompareTarget::Lease(given) => pair.lease.cmp(given),
        CompareTarget::Value(_) if missing => return false,
        CompareTarget::Value(given) => pair.value.cmp(&given[..]),
    };
    match compare.result {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::NotEqual => order != Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
        CompareResult::Unknown => true,
    }
}

/// Checks a put that stands alone: the lease first, then the key.
pub(crate) fn check_put(view: &View, leases: &Leases, put: &Put) -> Result<(), OpError> {
    if put.lease != 0 && leases.get(put.lease).is_none() {
        return Err(OpError::LeaseNotFound);
    }
    if put.must_exist() && view.live(&put.key).is_none() {
        return Err(OpError::KeyNotFound);
    }
    Ok(())
}

/// Checks every operation on a transaction's path against the state before it.
pub(crate) fn check(view: &View, leases: &Leases, txn: &Txn, path: &Path) -> Result<(), OpError> {
    /// A delete without an upper end may stand beside a put of a key that it deletes; such a put finds no earlier pair.
    fn walk<'a>(
        view: &View,
        leases: &Leases,
        txn: &'a Txn,
        branches: &mut impl Iterator<Item = bool>,
        deleted: &mut Vec<&'a DeleteRange>,
    ) -> Result<(), OpError> {
        for op in txn.branch(branches.next().unwrap_or(false)) {
            match op {
                TxnOp::Range(range) => drop(view.resolve(range.revision)?),
                TxnOp::DeleteRange(delete) => deleted.push(delete),
                TxnOp::Txn(inner) => walk(view, leases, inner, branches, deleted)?,
                TxnOp::Empty => return Err(OpError::KeyNotFound),
                TxnOp::Put(put) => {
                    if put.must_exist() && view.live(&put.key).is_none() {
                        return Err(OpError::KeyNotFound);
                    }
                    if put.lease != 0 && leases.get(put.lease).is_none() {
                        return Err(OpError::LeaseNotFound);
                    }
                    if put.must_exist() && deleted.iter().any(|delete| delete.covers(&put.key)) {
                        return Err(OpError::KeyNotFound);
                    }
                }
            }
        }
        Ok(())
    }
    walk(view, leases, txn, &mut path.0.iter().copied(), &mut Vec::new())
}

impl DeleteRange {
    fn covers(&self, key: &[u8]) -> bool {
        match &self.range_end[..] {
            [] => self.key == key,
            NO_END => self.key <= key,
            end => self.key <= key && key < end,
        }
    }
}

/// One write in progress: all its changes get the same main revision.
pub(crate) struct Writer<'a> {
    mvcc: &'a mut Mvcc,
    leases: &'a mut Leases,
    changes: &'a mut Vec<Change>,
    audience: Audience,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(
        mvcc: &'a mut Mvcc,
        leases: &'a mut Leases,
        changes: &'a mut Vec<Change>,
        audience: Audience,
    ) -> Writer<'a> {
        assert!(changes.is_empty(), "one write at a time");
        Writer { mvcc, leases, changes, audience }
    }

    /// The revision that this write gets.
    pub(crate) fn next_revision(&self) -> i64 {
        self.mvcc.view.revision + 1
    }

    /// The keys that exist and that a request spans.
    pub(crate) fn live_keys(&self, delete: &DeleteRange) -> impl Iterator<Item = &[u8]> {
        let view = &self.mvcc.view;
        view.live_span(&delete.key, &delete.range_end).map(|at| view.arena.record(at).key())
    }

    /// Reads a range as it is in the middle of this write.
    pub(crate) fn range(&self, range: &RangeRequest) -> RangeReply {
        let now = self.now();
        self.mvcc.view.range_reply(range, now, now)
    }

    /// The store's revision as the operations of this write see it.
    pub(crate) fn now(&self) -> i64 {
        self.mvcc.view.revision + i64::from(!self.changes.is_empty())
    }

    fn next(&self) -> Rev {
        let sub =
            u32::try_from(self.changes.len()).expect("fewer changes than four thousand million in one write");
        Rev { main: self.mvcc.view.revision + 1, sub }
    }

    fn wants(&self, prev_kv: bool) -> bool {
        prev_kv && self.audience == Audience::Client
    }

    fn encoded(&self, at: At) -> &[u8] {
        self.mvcc.view.arena.record(at).kv
    }

    /// Sets a key; the put was checked.
    pub(crate) fn put(&mut self, put: &Put) -> PutReply {
        let rev = self.next();
        let mut kept = Bytes::new();
        let mut pair = KeyValue { key: &put.key, value: &put.value, lease: put.lease, ..KeyValue::default() };
        if put.must_exist()
            && let Some(before) = self.mvcc.view.live(&put.key)
        {
            if put.flags.ignore_value {
                kept = Bytes::copy_from_slice(before.pair().value);
            }
            if put.flags.ignore_lease {
                pair.lease = before.pair().lease;
            }
        }
        if put.flags.ignore_value {
            pair.value = &kept;
        }
        let change = self.mvcc.put(rev, pair);
        let before = change.before.map(|at| self.mvcc.view.arena.record(at));
        self.leases.attach(&put.key, before.map_or(0, |record| record.lease()), pair.lease);
        self.changes.push(change);
        let prev_kv = change.before.filter(|_| self.wants(put.flags.prev_kv));
        PutReply { revision: rev.main, prev_kv: prev_kv.map(|at| Bytes::copy_from_slice(self.encoded(at))) }
    }

    /// Deletes what a request spans.
    pub(crate) fn delete_range(&mut self, delete: &DeleteRange) -> DeleteReply {
        let first = self.changes.len();
        if delete.range_end.is_empty() {
            self.delete(&delete.key);
        } else {
            let doomed: Vec<At> = self.mvcc.view.live_span(&delete.key, &delete.range_end).collect();
            let mut key = Vec::new();
            for at in doomed {
                key.clear();
                key.extend_from_slice(self.mvcc.view.arena.record(at).key());
                self.delete(&key);
            }
        }
        self.deleted(first, delete.prev_kv)
    }

    /// Deletes those of these keys that exist.
    pub(crate) fn delete_keys(&mut self, keys: &[Bytes], prev_kv: bool) -> DeleteReply {
        let first = self.changes.len();
        keys.iter().for_each(|key| self.delete(key));
        self.deleted(first, prev_kv)
    }

    /// What the deletions since the change of this number come to.
    fn deleted(&self, first: usize, prev_kv: bool) -> DeleteReply {
        let gone = &self.changes[first..];
        let mut prev_kvs = KvList::default();
        if self.wants(prev_kv) {
            let mut out = BytesMut::new();
            for change in gone {
                let before = change.before.expect("a deletion has something before it");
                put_element(&mut out, KvList::DELETE_PREV_KVS, self.encoded(before));
            }
            prev_kvs = KvList::new(out, gone.len());
        }
        DeleteReply { revision: self.now(), deleted: gone.len() as i64, prev_kvs }
    }

    /// Deletes one key, if it exists.
    pub(crate) fn delete(&mut self, key: &[u8]) {
        let rev = self.next();
        let Some(change) = self.mvcc.delete(rev, key) else { return };
        let before = change.before.expect("a deletion has something before it");
        let lease = self.mvcc.view.arena.record(before).lease();
        self.leases.attach(key, lease, 0);
        self.changes.push(change);
    }

    /// Runs a transaction that was decided and checked.
    pub(crate) fn txn(&mut self, txn: &Txn, path: &Path) -> TxnReply {
        let mut reply = self.txn_level(txn, &mut path.0.iter().copied());
        reply.revision = self.now();
        reply
    }

    fn txn_level(&mut self, txn: &Txn, branches: &mut impl Iterator<Item = bool>) -> TxnReply {
        let succeeded = branches.next().unwrap_or(false);
        let ops = txn.branch(succeeded);
        let listened = self.audience == Audience::Client;
        let mut responses = Vec::with_capacity(if listened { ops.len() } else { 0 });
        for op in ops {
            let response = match op {
                TxnOp::Put(put) => TxnOpReply::Put(self.put(put)),
                TxnOp::DeleteRange(delete) => TxnOpReply::DeleteRange(self.delete_range(delete)),
                TxnOp::Txn(inner) => TxnOpReply::Txn(self.txn_level(inner, branches)),
                TxnOp::Range(range) if listened => {
                    let now = self.now();
                    let revision = if range.revision > 0 { range.revision } else { now };
                    TxnOpReply::Range(self.mvcc.view.range_reply(range, revision, now))
                }
                TxnOp::Range(_) | TxnOp::Empty => continue,
            };
            if listened {
                responses.push(response);
            }
        }
        TxnReply { revision: 0, succeeded, responses }
    }
}

/// Runs a transaction that only reads.
pub(crate) fn read(view: &View, txn: &Txn) -> Result<TxnReply, OpError> {
    let holds = txn.compare.iter().all(|compare| compare_holds(view, compare));
    let mut responses = Vec::new();
    for op in txn.branch(holds) {
        let TxnOp::Range(range) = op else { return Err(OpError::Malformed) };
        responses.push(TxnOpReply::Range(view.range(range)?));
    }
    Ok(TxnReply { revision: view.revision, succeeded: holds, responses })
}
