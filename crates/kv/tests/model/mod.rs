//! The store as one would write it without a thought for speed: what the real one is compared with.

use std::collections::BTreeMap;

use synod_kv::OpError;
use synod_kv::op::{
    Compare, CompareResult, CompareTarget, Content, DeleteRange, Op, Put, RangeRequest, SortOrder,
    SortTarget, Txn, TxnOp,
};

pub(crate) type Key = Vec<u8>;

/// A pair as it was at some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: Key,
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) value: Vec<u8>,
    pub(crate) lease: i64,
}

/// A change: the pair that was put, or nothing for a deletion.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) main: i64,
    pub(crate) sub: i64,
    pub(crate) key: Key,
    pub(crate) pair: Option<Pair>,
    /// What the key was before the write.
    pub(crate) before: Option<Pair>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// Everything that ever happened, compacted or not.
    pub(crate) changes: Vec<Change>,
    pub(crate) leases: BTreeMap<i64, i64>,
}

/// What a step of a transaction, or an operation, gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Range { revision: i64, pairs: Vec<Pair>, more: bool, count: i64 },
    Put { revision: i64, before: Option<Pair> },
    Delete { revision: i64, deleted: i64, before: Vec<Pair> },
    Txn { succeeded: bool, answers: Vec<Answer> },
    Done,
}

pub(crate) fn inside(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        b"" => key == start,
        b"\0" => key >= start,
        end => key >= start && key < end,
    }
}

impl Model {
    pub(crate) fn new() -> Model {
        Model { revision: 1, compacted: -1, changes: Vec::new(), leases: BTreeMap::new() }
    }

    /// All keys that exist at a revision.
    pub(crate) fn at(&self, revision: i64) -> BTreeMap<Key, Pair> {
        let mut pairs = BTreeMap::new();
        for change in self.changes.iter().filter(|change| change.main <= revision) {
            match &change.pair {
                Some(pair) => drop(pairs.insert(change.key.clone(), pair.clone())),
                None => drop(pairs.remove(&change.key)),
            }
        }
        pairs
    }

    pub(crate) fn resolve(&self, revision: i64) -> Result<i64, OpError> {
        if revision <= 0 {
            Ok(self.revision)
        } else if revision > self.revision {
            Err(OpError::FutureRevision)
        } else if revision < self.compacted {
            Err(OpError::Compacted)
        } else {
            Ok(revision)
        }
    }

    pub(crate) fn range(&self, request: &RangeRequest, revision: i64, now: i64) -> Answer {
        let mut pairs: Vec<Pair> = self.at(revision).into_values().collect();
        pairs.retain(|pair| inside(&pair.key, &request.key, &request.range_end));
        let count = pairs.len() as i64;
        if request.content == Content::CountOnly {
            return Answer::Range { revision: now, pairs: vec![], more: false, count };
        }
        let below = |value: i64, max: i64| max == 0 || value <= max;
        let above = |value: i64, min: i64| min == 0 || value >= min;
        pairs.retain(|pair| {
            below(pair.modified, request.max_mod_revision)
                && above(pair.modified, request.min_mod_revision)
                && below(pair.create, request.max_create_revision)
                && above(pair.create, request.min_create_revision)
        });
        let order = |a: &Pair, b: &Pair| match request.sort_target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create.cmp(&b.create),
            SortTarget::Mod => a.modified.cmp(&b.modified),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        match request.sort_order {
            SortOrder::Descend => pairs.sort_by(|a, b| order(b, a)),
            _ => pairs.sort_by(order),
        }
        let more = request.limit > 0 && count > 0 && pairs.len() as i64 > request.limit;
        if more {
            pairs.truncate(request.limit as usize);
        }
        if request.content == Content::KeysOnly {
            pairs.iter_mut().for_each(|pair| pair.value.clear());
        }
        Answer::Range { revision: now, pairs, more, count }
    }

    /// Carries out an operation that has passed validation.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<Answer, OpError> {
        match op {
            Op::Put(put) => {
                if put.lease != 0 && !self.leases.contains_key(&put.lease) {
                    return Err(OpError::LeaseNotFound);
                }
                self.write(|write| write.put(put))
            }
            Op::DeleteRange(delete) => self.write(|write| Ok(write.delete(delete))),
            Op::Txn(txn) => {
                let before = self.clone();
                self.write(|write| write.txn(&before, txn))
            }
            Op::Compact { revision } => {
                if *revision <= self.compacted {
                    return Err(OpError::Compacted);
                }
                if *revision > self.revision {
                    return Err(OpError::FutureRevision);
                }
                self.compacted = *revision;
                Ok(Answer::Done)
            }
            Op::LeaseGrant { id, ttl } => {
                if self.leases.contains_key(id) {
                    return Err(OpError::LeaseExists);
                }
                self.leases.insert(*id, *ttl);
                Ok(Answer::Done)
            }
            Op::LeaseRevoke { id } => {
                if self.leases.remove(id).is_none() {
                    return Err(OpError::LeaseNotFound);
                }
                let keys: Vec<Key> = self
                    .at(self.revision)
                    .into_values()
                    .filter(|pair| pair.lease == *id)
                    .map(|pair| pair.key)
                    .collect();
                self.write(|write| {
                    for key in keys {
                        write.delete(&DeleteRange { key: key.into(), ..DeleteRange::default() });
                    }
                    Ok(Answer::Done)
                })
            }
            other => panic!("the model does not know {other:?}"),
        }
    }

    /// Works on a copy, which becomes the model only if nothing failed.
    fn write(&mut self, work: impl FnOnce(&mut Write) -> Result<Answer, OpError>) -> Result<Answer, OpError> {
        let main = self.revision + 1;
        let mut write = Write { model: self.clone(), main, sub: 0 };
        let answer = work(&mut write)?;
        if write.sub > 0 {
            *self = write.model;
            self.revision = main;
        }
        Ok(answer)
    }

    /// etcd's hash, over everything kept, straight from its description.
    pub(crate) fn hash_kv(&self, until: i64) -> u32 {
        let mut bytes = b"key".to_vec();
        let present = self.at(until);
        let kept = self.at(self.compacted);
        for (i, change) in self.changes.iter().enumerate() {
            if change.main > until {
                break;
            }
            if change.main <= self.compacted {
                let latest = |limit: i64| {
                    let last = self.changes.iter().rposition(|it| it.key == change.key && it.main <= limit);
                    last == Some(i) && change.pair.is_some()
                };
                let counts = if present.is_empty() { latest(self.compacted) } else { latest(until) };
                if !counts || (present.is_empty() && !kept.contains_key(&change.key)) {
                    continue;
                }
            }
            bytes.extend_from_slice(&(change.main as u64).to_be_bytes());
            bytes.push(b'_');
            bytes.extend_from_slice(&(change.sub as u64).to_be_bytes());
            let pair = match &change.pair {
                Some(pair) => pair.clone(),
                None => {
                    bytes.push(b't');
                    Pair { key: change.key.clone(), ..Pair::default() }
                }
            };
            let number = |bytes: &mut Vec<u8>, tag: u8, mut value: u64| {
                if value == 0 {
                    return;
                }
                bytes.push(tag);
                while value >= 128 {
                    bytes.push(value as u8 | 128);
                    value >>= 7;
                }
                bytes.push(value as u8);
            };
            number(&mut bytes, 0x0a, pair.key.len() as u64);
            bytes.extend_from_slice(&pair.key);
            number(&mut bytes, 0x10, pair.create as u64);
            number(&mut bytes, 0x18, pair.modified as u64);
            number(&mut bytes, 0x20, pair.version as u64);
            number(&mut bytes, 0x2a, pair.value.len() as u64);
            bytes.extend_from_slice(&pair.value);
            number(&mut bytes, 0x30, pair.lease as u64);
        }
        crc32c::crc32c(&bytes)
    }
}

struct Write {
    model: Model,
    main: i64,
    sub: i64,
}

impl Write {
    fn now(&self) -> i64 {
        if self.sub > 0 { self.main } else { self.main - 1 }
    }

    fn push(&mut self, key: &[u8], pair: Option<Pair>) {
        let before = self.model.at(self.main - 1).remove(key);
        self.model.changes.push(Change { main: self.main, sub: self.sub, key: key.to_vec(), pair, before });
        self.sub += 1;
    }

    fn put(&mut self, put: &Put) -> Result<Answer, OpError> {
        let before = self.model.at(self.main).remove(&put.key[..]);
        if (put.flags.ignore_value || put.flags.ignore_lease) && before.is_none() {
            return Err(OpError::KeyNotFound);
        }
        let old = before.clone().unwrap_or_default();
        let pair = Pair {
            key: put.key.to_vec(),
            create: if before.is_some() { old.create } else { self.main },
            modified: self.main,
            version: old.version + 1,
            value: if put.flags.ignore_value { old.value } else { put.value.to_vec() },
            lease: if put.flags.ignore_lease { old.lease } else { put.lease },
        };
        self.push(&put.key, Some(pair));
        Ok(Answer::Put { revision: self.main, before: before.filter(|_| put.flags.prev_kv) })
    }

    fn delete(&mut self, delete: &DeleteRange) -> Answer {
        let mut gone: Vec<Pair> = self.model.at(self.main).into_values().collect();
        gone.retain(|pair| inside(&pair.key, &delete.key, &delete.range_end));
        for pair in &gone {
            self.push(&pair.key, None);
        }
        let deleted = gone.len() as i64;
        if !delete.prev_kv {
            gone.clear();
        }
        Answer::Delete { revision: self.now(), deleted, before: gone }
    }

    fn txn(&mut self, before: &Model, txn: &Txn) -> Result<Answer, OpError> {
        let succeeded = txn.compare.iter().all(|compare| holds(before, compare));
        let mut answers = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            answers.push(match op {
                TxnOp::Range(range) => {
                    let now = self.now();
                    // The revision is judged by the state before the transaction, the present is read with its writes.
                    let revision = if range.revision > 0 { before.resolve(range.revision)? } else { now };
                    self.model.range(range, revision, now)
                }
                TxnOp::Put(put) => {
                    let exists = before.at(before.revision).contains_key(&put.key[..]);
                    if (put.flags.ignore_value || put.flags.ignore_lease) && !exists {
                        return Err(OpError::KeyNotFound);
                    }
                    if put.lease != 0 && !before.leases.contains_key(&put.lease) {
                        return Err(OpError::LeaseNotFound);
                    }
                    self.put(put)?
                }
                TxnOp::DeleteRange(delete) => self.delete(delete),
                TxnOp::Txn(inner) => self.txn(before, inner)?,
                TxnOp::Empty => return Err(OpError::KeyNotFound),
            });
        }
        Ok(Answer::Txn { succeeded, answers })
    }
}

fn holds(model: &Model, compare: &Compare) -> bool {
    let mut pairs: Vec<Option<Pair>> = model
        .at(model.revision)
        .into_values()
        .filter(|pair| inside(&pair.key, &compare.key, &compare.range_end))
        .map(Some)
        .collect();
    if pairs.is_empty() {
        pairs.push(None);
    }
    pairs.into_iter().all(|pair| {
        let missing = pair.is_none();
        let pair = pair.unwrap_or_default();
        let order = match &compare.target {
            CompareTarget::Version(given) => pair.version.cmp(given),
            CompareTarget::Create(given) => pair.create.cmp(given),
            CompareTarget::Mod(given) => pair.modified.cmp(given),
            CompareTarget::Lease(given) => pair.lease.cmp(given),
            CompareTarget::Value(given) => match missing {
                true => return false,
                false => pair.value.cmp(&given.to_vec()),
            },
        };
        match compare.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::NotEqual => order.is_ne(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::Unknown => true,
        }
    })
}
