//! etcd's store: keys with versions under one revision, transactions, ranges, leases, compaction.
//!
//! "A store's revision is a 64-bit counter, incremented on each modification of the key space"; every reply carries it.
//! A key remembers the revision that created it, the one that last wrote it, and how often it was written since. What a
//! recorded reply does not say (a number of -1, a missing body) is not judged. A lease that nobody was seen to grant is
//! taken to exist; one that was revoked is gone. Contents that were there before the history began are
//! [`Slot::Unknown`] and become known at the first read. Left out: auth, and the order of replies (the importers sort).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::Model;
use crate::etcd::*;
use crate::history::{Call, History, Key, Reply as AnyReply, Value};

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Nobody has read or written it in this history, and it may have been there before.
    Unknown,
    /// No such key.
    Absent,
    /// A value.
    Present(Entry),
}

/// A key's value and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// The revision that created it.
    pub create: i64,
    /// The revision that last wrote it.
    pub modified: i64,
    /// How often it was written since it was created.
    pub version: i64,
    /// Its lease, or 0.
    pub lease: i64,
}

/// The order of key names, which ranges follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Names {
    /// For each key its rank.
    rank: Vec<u32>,
    /// For each rank the key.
    key: Vec<Key>,
}

impl Names {
    /// Sorts the keys of a history by name.
    pub fn new(history: &History) -> Names {
        let texts: Vec<String> =
            (0..history.keys.len()).map(|i| history.keys.get(i as u32).to_string()).collect();
        let mut key: Vec<Key> = (0..history.keys.len() as u32).map(Key).collect();
        key.sort_by(|a, b| texts[a.0 as usize].as_bytes().cmp(texts[b.0 as usize].as_bytes()));
        let mut rank = vec![0; key.len()];
        for (at, key) in key.iter().enumerate() {
            rank[key.0 as usize] = at as u32;
        }
        Names { rank, key }
    }

    fn range(&self, from: Key, end: RangeEnd) -> std::ops::Range<usize> {
        let start = self.rank[from.0 as usize] as usize;
        match end {
            RangeEnd::Single => start..start + 1,
            RangeEnd::Until(key) => start..(self.rank[key.0 as usize] as usize).max(start),
            RangeEnd::Open => start..self.key.len(),
        }
    }
}

/// Whether the store was empty when the history began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// At revision 1, without keys.
    Fresh,
    /// At this revision, with contents that are not known.
    Unknown(i64),
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The current revision.
    pub revision: i64,
    /// By rank of the key.
    slots: Vec<Slot>,
    /// Leases that were granted (or used) and are alive: true; revoked: false.
    leases: BTreeMap<i64, bool>,
    /// Reads below this revision are refused.
    pub compacted: i64,
}

/// That a reply is not what the store would have answered, and what it would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(pub String);

type Checked = Result<(), Mismatch>;

fn mismatch<T>(what: impl FnOnce() -> String) -> Result<T, Mismatch> {
    Err(Mismatch(what()))
}

impl Store {
    /// The store at the beginning.
    pub fn new(names: &Names, origin: Origin) -> Store {
        let (revision, slot) = match origin {
            Origin::Fresh => (1, Slot::Absent),
            Origin::Unknown(revision) => (revision, Slot::Unknown),
        };
        Store { revision, slots: vec![slot; names.key.len()], leases: BTreeMap::new(), compacted: 0 }
    }

    /// Leases that are alive and hold keys: those that may expire and so change the revision.
    pub fn expirable(&self) -> Vec<i64> {
        let mut found: Vec<i64> = self
            .slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Present(entry) if entry.lease != 0 => Some(entry.lease),
                _ => None,
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Does what `request` asks and compares with `reply`, as far as it was recorded. After a mismatch the store is of no further use.
    pub fn apply(&mut self, names: &Names, request: &Request, reply: Option<&Reply>) -> Checked {
        let body = reply.map(|reply| &reply.body);
        match (request, body) {
            (Request::Range(range), body) => self.range_or_refuse(names, range, body)?,
            (Request::Put(put), Some(ReplyBody::LeaseRefused)) => {
                if self.leases.get(&put.lease) == Some(&true) {
                    return mismatch(|| format!("the lease {} was refused, but is there", put.lease));
                }
            }
            (Request::Put(put), _) => {
                self.put(names, put, self.revision + 1, reply.is_some())?;
                self.revision += 1;
            }
            (Request::Delete(range), body) => {
                let removed = self.delete(names, range);
                if let Some(ReplyBody::Deleted(said)) = body
                    && *said != UNRECORDED
                    && *said != removed
                {
                    return mismatch(|| format!("it says {said} keys deleted, but there were {removed}"));
                }
                self.revision += i64::from(removed > 0);
            }
            (
                Request::Txn(_),
                Some(ReplyBody::LeaseRefused | ReplyBody::Compacted | ReplyBody::FutureRevision),
            ) => {}
            (Request::Txn(txn), body) => self.txn(names, txn, body)?,
            (Request::LeaseGrant { id, .. }, Some(ReplyBody::LeaseRefused)) => {
                if self.leases.get(id) == Some(&false) {
                    return mismatch(|| format!("lease {id} was refused as existing, but had been revoked"));
                }
            }
            (Request::LeaseGrant { id, .. }, _) => {
                self.leases.insert(*id, true);
            }
            (Request::LeaseRevoke { id }, Some(ReplyBody::LeaseRefused)) => {
                // Revoked by someone else or expired: if any keys hang on it still, it was not.
                if self.expirable().contains(id) {
                    return mismatch(|| format!("lease {id} was refused as missing, but keys hang on it"));
                }
            }
            (Request::LeaseRevoke { id }, _) => self.revoke(*id),
            (Request::LeaseKeepAlive { .. } | Request::Other, _) => {}
            (Request::Compact { revision }, Some(ReplyBody::Compacted)) => {
                if *revision > self.compacted && self.compacted != 0 {
                    return mismatch(|| {
                        format!("compaction at {revision} refused, but only {} was compacted", self.compacted)
                    });
                }
            }
            (Request::Compact { .. }, Some(ReplyBody::FutureRevision)) => {}
            (Request::Compact { revision }, _) => self.compacted = self.compacted.max(*revision),
        }
        match reply {
            // A refusal carries no header.
            Some(reply) if reply.revision > 0 && reply.revision != self.revision => mismatch(|| {
                format!("it says revision {}, but the store is at {}", reply.revision, self.revision)
            }),
            _ => Ok(()),
        }
    }

    /// A lease ends: its keys are deleted at one revision.
    pub fn revoke(&mut self, lease: i64) {
        self.leases.insert(lease, false);
        let mut removed = false;
        for slot in &mut self.slots {
            if matches!(slot, Slot::Present(entry) if entry.lease == lease) {
                *slot = Slot::Absent;
                removed = true;
            }
        }
        self.revision += i64::from(removed);
    }

    fn range_or_refuse(&mut self, names: &Names, range: &Range, body: Option<&ReplyBody>) -> Checked {
        match body {
            Some(ReplyBody::FutureRevision) if range.revision <= self.revision => mismatch(|| {
                format!(
                    "revision {} was refused as future, but the store is at {}",
                    range.revision, self.revision
                )
            }),
            Some(ReplyBody::Range(reply)) if range.revision == 0 || range.revision == self.revision => {
                self.range(names, range, reply)
            }
            Some(ReplyBody::Range(_)) if range.revision > self.revision => mismatch(|| {
                format!("revision {} was answered, but the store is at {}", range.revision, self.revision)
            }),
            // Older revisions are judged by who remembers them.
            _ => Ok(()),
        }
    }

    /// Compares a read's answer with the current contents.
    pub fn range(&mut self, names: &Names, range: &Range, reply: &RangeReply) -> Checked {
        let ranks = names.range(range.key, range.end);
        let limit = if range.limit > 0 { range.limit } else { i64::MAX };
        let whole = (reply.pairs.len() as i64) < limit;
        let mut said = reply.pairs.iter().peekable();
        let mut count = 0;
        for rank in ranks {
            let pair = said.next_if(|pair| pair.key == names.key[rank]);
            match (self.slots[rank], pair) {
                (Slot::Present(entry), Some(pair)) => {
                    count += 1;
                    agrees(&entry, pair)?;
                }
                (Slot::Present(entry), None) => {
                    count += 1;
                    if count <= limit {
                        return mismatch(|| {
                            format!("a key written at revision {} is missing", entry.modified)
                        });
                    }
                }
                (Slot::Absent, Some(_)) => return mismatch(|| "a key is answered that was not there".into()),
                (Slot::Unknown, Some(pair)) => {
                    count += 1;
                    self.slots[rank] = Slot::Present(adopted(pair));
                }
                (Slot::Unknown, None) if whole => self.slots[rank] = Slot::Absent,
                (Slot::Unknown, None) => count = i64::MIN / 2,
                (Slot::Absent, None) => {}
            }
        }
        if let Some(extra) = said.next() {
            return mismatch(|| {
                format!(
                    "a key is answered twice, out of order or out of range (modified at {})",
                    extra.modified
                )
            });
        }
        if reply.count != UNRECORDED && count >= 0 && reply.count != count {
            return mismatch(|| format!("it says {} keys, but there were {count}", reply.count));
        }
        Ok(())
    }

    fn put(&mut self, names: &Names, put: &Put, revision: i64, must_have_lease: bool) -> Checked {
        if put.lease != 0 && self.leases.get(&put.lease) == Some(&false) {
            if must_have_lease {
                return mismatch(|| {
                    format!("it was attached to lease {}, which had been revoked", put.lease)
                });
            }
            return Ok(());
        }
        let slot = &mut self.slots[names.rank[put.key.0 as usize] as usize];
        let (create, version) = match slot {
            Slot::Present(entry) => {
                (entry.create, if entry.version > 0 { entry.version + 1 } else { UNRECORDED })
            }
            Slot::Absent => (revision, 1),
            Slot::Unknown => (UNRECORDED, UNRECORDED),
        };
        *slot =
            Slot::Present(Entry { value: put.value, create, modified: revision, version, lease: put.lease });
        Ok(())
    }

    fn delete(&mut self, names: &Names, range: &DeleteRange) -> i64 {
        let mut removed = 0;
        for slot in &mut self.slots[names.range(range.key, range.end)] {
            removed += i64::from(matches!(slot, Slot::Present(_)));
            *slot = Slot::Absent;
        }
        removed
    }

    fn txn(&mut self, names: &Names, txn: &Txn, body: Option<&ReplyBody>) -> Checked {
        let (said, replies) = match body {
            Some(ReplyBody::Txn { succeeded, replies }) => (*succeeded, &replies[..]),
            _ => (None, &[][..]),
        };
        let mut holds = Some(true);
        for compare in &txn.compares {
            match self.compare(names, compare) {
                Some(true) => {}
                Some(false) => holds = Some(false),
                None => holds = holds.and_then(|holds| if holds { None } else { Some(false) }),
            }
        }
        if let (Some(said), Some(holds)) = (said, holds)
            && said != holds
        {
            let (said, holds) = (word(said), word(holds));
            return mismatch(|| format!("it says that the comparison {said}, but it {holds}"));
        }
        let branch = if holds.or(said).unwrap_or(false) { &txn.then } else { &txn.otherwise };
        let revision = self.revision + 1;
        let mut changed = false;
        for (i, operation) in branch.iter().enumerate() {
            match (operation, replies.get(i)) {
                (TxnOp::Range(range), Some(TxnReply::Range(reply))) => self.range(names, range, reply)?,
                (TxnOp::Range(_), _) => {}
                (TxnOp::Put(put), _) => {
                    self.put(names, put, revision, body.is_some())?;
                    changed = true;
                }
                (TxnOp::Delete(range), reply) => {
                    let removed = self.delete(names, range);
                    if let Some(TxnReply::Deleted(said)) = reply
                        && *said != UNRECORDED
                        && *said != removed
                    {
                        return mismatch(|| format!("it says {said} keys deleted, but there were {removed}"));
                    }
                    changed |= removed > 0;
                }
            }
        }
        self.revision += i64::from(changed);
        Ok(())
    }

    /// Whether a comparison holds; `None` where the contents are not known.
    fn compare(&self, names: &Names, compare: &Compare) -> Option<bool> {
        let slot = &self.slots[names.rank[compare.key.0 as usize] as usize];
        let number = |of: fn(&Entry) -> i64| match slot {
            Slot::Unknown => None,
            Slot::Absent => Some(0),
            Slot::Present(entry) => Some(of(entry)).filter(|number| *number != UNRECORDED),
        };
        let (ours, theirs) = match compare.target {
            CompareTarget::Version(n) => (number(|entry| entry.version)?, n),
            CompareTarget::Create(n) => (number(|entry| entry.create)?, n),
            CompareTarget::Mod(n) => (number(|entry| entry.modified)?, n),
            CompareTarget::Lease(n) => (number(|entry| entry.lease)?, n),
            CompareTarget::Value(value) => {
                return match (slot, compare.result) {
                    (Slot::Unknown, _) => None,
                    (Slot::Absent, _) => Some(false),
                    (Slot::Present(entry), CompareResult::Equal) => Some(entry.value == value),
                    (Slot::Present(entry), CompareResult::NotEqual) => Some(entry.value != value),
                    // Interned values know no order.
                    (Slot::Present(_), CompareResult::Greater | CompareResult::Less) => None,
                };
            }
        };
        let order = ours.cmp(&theirs);
        Some(match compare.result {
            CompareResult::Equal => order == Ordering::Equal,
            CompareResult::NotEqual => order != Ordering::Equal,
            CompareResult::Greater => order == Ordering::Greater,
            CompareResult::Less => order == Ordering::Less,
        })
    }

    /// What a key holds now.
    pub fn slot(&self, names: &Names, key: Key) -> Slot {
        self.slots[names.rank[key.0 as usize] as usize]
    }

    /// All keys with what they hold, by name.
    pub fn slots<'a>(&'a self, names: &'a Names) -> impl Iterator<Item = (Key, Slot)> + 'a {
        names.key.iter().copied().zip(self.slots.iter().copied())
    }
}

fn word(holds: bool) -> &'static str {
    if holds { "held" } else { "did not hold" }
}

fn adopted(pair: &KeyValue) -> Entry {
    Entry {
        value: pair.value,
        create: pair.create,
        modified: pair.modified,
        version: pair.version,
        lease: pair.lease.max(0),
    }
}

/// Whether a pair that was answered is the entry, as far as both are recorded.
pub fn agrees(entry: &Entry, pair: &KeyValue) -> Checked {
    let differs = |ours: i64, said: i64| ours != UNRECORDED && said != UNRECORDED && ours != said;
    if entry.value != pair.value {
        return mismatch(|| {
            format!(
                "it answers a value of revision {}, but the key was last written at {}",
                shown(pair.modified),
                entry.modified
            )
        });
    }
    if differs(entry.modified, pair.modified) {
        return mismatch(|| {
            format!("it says modified at {}, but that was at {}", pair.modified, entry.modified)
        });
    }
    if differs(entry.create, pair.create) {
        return mismatch(|| format!("it says created at {}, but that was at {}", pair.create, entry.create));
    }
    if differs(entry.version, pair.version) {
        return mismatch(|| format!("it says version {}, but it was {}", pair.version, entry.version));
    }
    if differs(entry.lease, pair.lease) {
        return mismatch(|| format!("it says lease {}, but it was {}", pair.lease, entry.lease));
    }
    Ok(())
}

fn shown(number: i64) -> String {
    if number == UNRECORDED { "unknown number".into() } else { number.to_string() }
}

/// The store as a model for the search, for histories without revisions.
pub struct StoreModel<'a> {
    /// The order of key names.
    pub names: &'a Names,
    /// How it began.
    pub origin: Origin,
}

impl Model for StoreModel<'_> {
    type Call = Call;
    type Reply = AnyReply;
    type State = Store;

    fn initial(&self) -> Store {
        Store::new(self.names, self.origin)
    }

    fn step(&self, state: &Store, call: &Call, reply: Option<&AnyReply>) -> Option<Store> {
        let Call::Etcd(request) = call else { return None };
        let reply = match reply {
            Some(AnyReply::Etcd(reply)) => Some(&**reply),
            _ => None,
        };
        let mut after = state.clone();
        after.apply(self.names, request, reply).ok().map(|()| after)
    }

    fn reads_only(&self, call: &Call, _: Option<&AnyReply>) -> bool {
        matches!(call, Call::Etcd(request) if changes(request) == Changes::Never)
    }
}

/// Whether a request can change the store's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// No request like it does.
    Never,
    /// It may, by what it finds.
    Perhaps,
    /// It surely does, if it takes effect.
    Surely,
}

/// Whether a request, as it stands, changes the store. (A lease grant changes the store, but not its revision: perhaps.)
pub fn changes(request: &Request) -> Changes {
    match request {
        Request::Put(_) => Changes::Surely,
        Request::Range(_) | Request::Other | Request::LeaseKeepAlive { .. } => Changes::Never,
        Request::Txn(txn)
            if txn.then.iter().chain(&txn.otherwise).all(|op| matches!(op, TxnOp::Range(_))) =>
        {
            Changes::Never
        }
        Request::Delete(_) | Request::Txn(_) | Request::LeaseGrant { .. } | Request::LeaseRevoke { .. } => {
            Changes::Perhaps
        }
        Request::Compact { .. } => Changes::Perhaps,
    }
}
