//! The nine watch guarantees and lease timing, over recorded watch streams.
//!
//! etcd promises of a watch that its events are ordered, unique, reliable, atomic, resumable and bookmarkable
//! (etcd's "API guarantees"), and its robustness suite checks besides that the filter, the previous value and the mark
//! of creation are right. A stream is held against itself and against *the record*: every change that any stream or any
//! reply names, by revision and key. What nobody recorded cannot be missed, so a verdict of "holds" is relative to the
//! record. Lease timing: a lease does not end before its time to live has passed since its last renewal was asked for
//! (times must be nanoseconds for this), and is not renewed after it was revoked. Left out: how late a lease may end,
//! which etcd does not bound.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use crate::etcd::*;
use crate::history::{Call, Datum, History, Key, Operation, Outcome, Reply as AnyReply, Time, Value};
use crate::verdict::{Evidence, Verdict};

/// The verdict on one guarantee.
#[derive(Clone, Debug)]
pub struct WatchFinding {
    /// The guarantee's name.
    pub guarantee: &'static str,
    /// Whether it holds; evidence names positions of operations, and the reason the streams and revisions.
    pub verdict: Verdict,
}

/// The guarantees' names, in the order of the findings; `lease-timing` comes last, where leases were recorded.
pub const GUARANTEES: [&str; 9] =
    ["ordered", "unique", "atomic", "reliable", "resumable", "bookmarkable", "filter", "previous", "created"];

/// Every finding; none where neither streams nor leases were recorded.
pub fn check(history: &History) -> Vec<WatchFinding> {
    let mut findings = Vec::new();
    if !history.watches.is_empty() {
        let record = Record::of(history);
        for guarantee in GUARANTEES {
            let broken = history.watches.iter().find_map(|stream| record.broken(guarantee, stream));
            findings.push(WatchFinding { guarantee, verdict: verdict(broken) });
        }
    }
    let leased = |operation: &Operation| matches!(&operation.call, Call::Etcd(request) if matches!(**request, Request::LeaseGrant { .. }));
    if history.operations.iter().any(leased) {
        findings.push(WatchFinding { guarantee: "lease-timing", verdict: lease_timing(history) });
    }
    findings
}

fn verdict(broken: Option<String>) -> Verdict {
    match broken {
        None => Verdict::holds(),
        Some(reason) => Verdict::Violated(Evidence { reason, ..Evidence::default() }),
    }
}

/// Every change that anyone named: by revision, then by key name.
struct Record<'a> {
    history: &'a History,
    changes: BTreeMap<i64, Vec<(Key, Change)>>,
    /// Two accounts of one change that differ.
    disputed: Option<String>,
    /// The revisions at which each key changed, ascending.
    of_key: HashMap<Key, Vec<(i64, Change)>, foldhash::fast::FixedState>,
    /// Whether anything was compacted: then a previous value may rightly be missing.
    compacted: bool,
    /// Revisions without a gap, from the first to the last of each run. Within a gap a write whose answer was lost, and that no stream told
    /// of, may have changed any key.
    runs: Vec<(i64, i64)>,
}

/// An event of a stream with where it stood.
struct Delivered<'a> {
    response: usize,
    event: &'a WatchEvent,
}

fn delivered(stream: &WatchStream) -> impl Iterator<Item = Delivered<'_>> {
    let responses = stream.responses.iter().enumerate();
    responses.flat_map(|(response, at)| at.events.iter().map(move |event| Delivered { response, event }))
}

impl<'a> Record<'a> {
    fn of(history: &'a History) -> Record<'a> {
        let mut record = Record {
            history,
            changes: BTreeMap::new(),
            disputed: None,
            of_key: HashMap::default(),
            compacted: false,
            runs: Vec::new(),
        };
        for stream in &history.watches {
            for Delivered { event, .. } in delivered(stream) {
                record.note(event.revision, event.key, event.change);
            }
        }
        for operation in &history.operations {
            record.note_operation(operation);
        }
        for (revision, changes) in &record.changes {
            match record.runs.last_mut() {
                Some((_, last)) if *last + 1 == *revision => *last = *revision,
                _ => record.runs.push((*revision, *revision)),
            }
            for (key, change) in changes {
                record.of_key.entry(*key).or_default().push((*revision, *change));
            }
        }
        record
    }

    fn note(&mut self, revision: i64, key: Key, change: Change) {
        let known = self.changes.entry(revision).or_default();
        match known.iter().find(|(other, _)| *other == key) {
            None => known.push((key, change)),
            // A transaction may put a key once only, so two accounts of one change must agree.
            Some((_, other)) if *other != change => {
                let name = self.history.key(key);
                self.disputed.get_or_insert_with(|| {
                    format!("the change of {name} at revision {revision} is told in two ways")
                });
            }
            Some(_) => {}
        }
    }

    /// What an answered request surely changed.
    fn note_operation(&mut self, operation: &Operation) {
        let Call::Etcd(request) = &operation.call else { return };
        self.compacted |=
            matches!(**request, Request::Compact { .. }) && operation.outcome != Outcome::Failed;
        let Some(AnyReply::Etcd(reply)) = operation.reply() else { return };
        if reply.revision <= 0 {
            return;
        }
        match (&**request, &reply.body) {
            (Request::Put(put), ReplyBody::Nothing) => {
                self.note(reply.revision, put.key, Change::Put(put.value))
            }
            (Request::Delete(range), ReplyBody::Deleted(1)) if range.end == RangeEnd::Single => {
                self.note(reply.revision, range.key, Change::Delete);
            }
            (Request::Txn(txn), ReplyBody::Txn { succeeded: Some(succeeded), replies }) => {
                let branch = if *succeeded { &txn.then } else { &txn.otherwise };
                for (i, operation) in branch.iter().enumerate() {
                    match (operation, replies.get(i)) {
                        (TxnOp::Put(put), _) => self.note(reply.revision, put.key, Change::Put(put.value)),
                        (TxnOp::Delete(range), Some(TxnReply::Deleted(1)))
                            if range.end == RangeEnd::Single =>
                        {
                            self.note(reply.revision, range.key, Change::Delete);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// How a stream breaks a guarantee, if it does.
    fn broken(&self, guarantee: &str, stream: &WatchStream) -> Option<String> {
        let found = match guarantee {
            "ordered" => ordered(stream),
            "unique" => self.unique(stream),
            "atomic" => atomic(stream),
            "reliable" => self.disputed.clone().or_else(|| self.reliable(stream)),
            "resumable" => self.resumable(stream),
            "bookmarkable" => self.bookmarkable(stream),
            "filter" => self.filter(stream),
            "previous" => self.previous(stream),
            "created" => self.created(stream),
            _ => None,
        };
        found.map(|reason| format!("stream of client {}, line {}: {reason}", stream.client, stream.line))
    }

    fn inside(&self, key: Key, stream: &WatchStream) -> bool {
        let name = |key: Key| match self.history.key(key) {
            Datum::Text(text) => text.as_bytes(),
            _ => b"",
        };
        match stream.end {
            RangeEnd::Single => key == stream.key,
            RangeEnd::Until(end) => name(stream.key) <= name(key) && name(key) < name(end),
            RangeEnd::Open => name(stream.key) <= name(key),
        }
    }

    /// The recorded changes of a stream's range at revisions `from..=to`.
    fn due(&self, stream: &WatchStream, from: i64, to: i64) -> impl Iterator<Item = (i64, Key)> {
        let changes = (from <= to).then(|| self.changes.range(from..=to));
        let all = changes.into_iter().flatten();
        let inside: Vec<(i64, Key)> = all
            .flat_map(|(revision, changes)| changes.iter().map(|(key, _)| (*revision, *key)))
            .filter(|(_, key)| self.inside(*key, stream))
            .collect();
        inside.into_iter()
    }

    fn unique(&self, stream: &WatchStream) -> Option<String> {
        let mut seen = HashSet::new();
        let twice = delivered(stream).find(|at| !seen.insert((at.event.revision, at.event.key)))?;
        Some(format!(
            "the change of {} at revision {} came twice",
            self.history.key(twice.event.key),
            twice.event.revision
        ))
    }

    /// Nothing between the first and the last event is missing.
    fn reliable(&self, stream: &WatchStream) -> Option<String> {
        let seen: HashSet<(i64, Key)> =
            delivered(stream).map(|at| (at.event.revision, at.event.key)).collect();
        let first = delivered(stream).map(|at| at.event.revision).min()?;
        let last = delivered(stream).map(|at| at.event.revision).max()?;
        let (revision, key) = self.due(stream, first, last).find(|due| !seen.contains(due))?;
        Some(format!(
            "the change of {} at revision {revision} is missing between {first} and {last}",
            self.history.key(key)
        ))
    }

    /// A stream that starts at a revision begins with the first change from there on.
    fn resumable(&self, stream: &WatchStream) -> Option<String> {
        if stream.revision <= 0 {
            return None;
        }
        let first = delivered(stream).next()?.event.revision;
        let (revision, key) = self.due(stream, stream.revision, first - 1).next()?;
        Some(format!(
            "it was to begin at revision {}, but began with {first}: the change of {} at {revision} is missing",
            stream.revision,
            self.history.key(key)
        ))
    }

    /// After a progress notification nothing up to its revision comes any more, and nothing up to it is missing.
    fn bookmarkable(&self, stream: &WatchStream) -> Option<String> {
        let mut promised = 0;
        let mut seen: HashSet<(i64, Key)> = HashSet::new();
        let mut from = (stream.revision > 0).then_some(stream.revision);
        for response in &stream.responses {
            for event in &response.events {
                if event.revision <= promised {
                    let revision = event.revision;
                    return Some(format!(
                        "an event of revision {revision} came after progress {promised} was notified"
                    ));
                }
                seen.insert((event.revision, event.key));
                from.get_or_insert(event.revision);
            }
            if response.kind == ResponseKind::Progress {
                let begin = from.unwrap_or(response.revision + 1);
                if let Some((revision, key)) = self
                    .due(stream, begin.max(promised + 1), response.revision)
                    .find(|due| !seen.contains(due))
                {
                    let (name, progress) = (self.history.key(key), response.revision);
                    return Some(format!(
                        "progress {progress} was notified before the change of {name} at {revision} had come"
                    ));
                }
                promised = promised.max(response.revision);
                from.get_or_insert(response.revision + 1);
            }
        }
        None
    }

    fn filter(&self, stream: &WatchStream) -> Option<String> {
        let wrong = delivered(stream).find(|at| {
            !self.inside(at.event.key, stream) || (stream.revision > 0 && at.event.revision < stream.revision)
        })?;
        Some(format!(
            "an event of {} at revision {} is not in what was asked for",
            self.history.key(wrong.event.key),
            wrong.event.revision
        ))
    }

    /// The last recorded change of a key before a revision.
    fn before(&self, key: Key, revision: i64) -> Option<(i64, Change)> {
        let changes = self.of_key.get(&key)?;
        let at = changes.partition_point(|(at, _)| *at < revision);
        at.checked_sub(1).map(|at| changes[at])
    }

    /// Whether somebody named every revision between the two: then nothing can have changed a key in between that is not in the record.
    fn is_whole(&self, from: i64, to: i64) -> bool {
        let place = self.runs.partition_point(|(_, last)| *last < to);
        self.runs.get(place).is_some_and(|(first, _)| *first <= from)
    }

    fn previous(&self, stream: &WatchStream) -> Option<String> {
        if stream.previous == Previous::NotWanted {
            return None;
        }
        delivered(stream).find_map(|at| {
            let event = at.event;
            let (name, revision) = (self.history.key(event.key), event.revision);
            let before = self.before(event.key, revision);
            let said: Option<(Value, i64)> =
                event.previous.as_ref().and_then(Option::as_ref).map(|pair| (pair.value, pair.modified));
            match (said, before) {
                // Newer than anything known: right, if there is a gap in which it can have been written.
                (Some((_, modified)), Some((at, _))) if modified > at && !self.is_whole(at, revision) => None,
                (Some(_), Some((at, Change::Delete))) => {
                    Some(format!("the event of {name} at {revision} has a previous value, but the key was deleted at {at}"))
                }
                (Some((value, modified)), Some((at, Change::Put(was)))) => {
                    (value != was || (modified > 0 && modified != at)).then(|| {
                        format!("the event of {name} at {revision} has a previous value of revision {modified}, but the last was of {at}")
                    })
                }
                (None, Some((at, Change::Put(_)))) if !self.compacted && self.is_whole(at, revision) => {
                    Some(format!("the event of {name} at {revision} has no previous value, but there was one of {at}"))
                }
                _ => None,
            }
        })
    }

    fn created(&self, stream: &WatchStream) -> Option<String> {
        delivered(stream).find_map(|at| {
            let event = at.event;
            let (name, revision) = (self.history.key(event.key), event.revision);
            let before = self.before(event.key, revision).filter(|(at, _)| self.is_whole(*at, revision));
            match (event.change, event.created?, before?) {
                (Change::Put(_), true, (at, Change::Put(_))) => Some(format!(
                    "the event of {name} at {revision} says created, but it was there since {at}"
                )),
                (Change::Put(_), false, (at, Change::Delete)) => Some(format!(
                    "the event of {name} at {revision} does not say created, but it was deleted at {at}"
                )),
                _ => None,
            }
        })
    }
}

fn ordered(stream: &WatchStream) -> Option<String> {
    let mut last = 0;
    delivered(stream).find_map(|at| {
        let back = at.event.revision < last;
        let said =
            back.then(|| format!("an event of revision {} came after one of {last}", at.event.revision));
        last = last.max(at.event.revision);
        said
    })
}

/// One revision's events come in one response.
fn atomic(stream: &WatchStream) -> Option<String> {
    let mut last: Option<(i64, usize)> = None;
    delivered(stream).find_map(|at| {
        let split =
            last.is_some_and(|(revision, response)| revision == at.event.revision && response != at.response);
        last = Some((at.event.revision, at.response));
        split.then(|| format!("the events of revision {} came in two responses", at.event.revision))
    })
}

const NANOSECONDS: i64 = 1_000_000_000;

/// A lease does not end early, and is not renewed once it was revoked.
fn lease_timing(history: &History) -> Verdict {
    let mut leases: BTreeMap<i64, Lease> = BTreeMap::new();
    for (i, operation) in history.operations.iter().enumerate() {
        let Call::Etcd(request) = &operation.call else { continue };
        let refused =
            matches!(operation.reply(), Some(AnyReply::Etcd(reply)) if reply.body == ReplyBody::LeaseRefused);
        match **request {
            Request::LeaseGrant { id, ttl } if operation.is_ok() && !refused => {
                let lease = leases.entry(id).or_default();
                lease.ttl = ttl;
                lease.renewed.push(i as u32);
            }
            Request::LeaseKeepAlive { id } if operation.is_ok() && !refused => {
                leases.entry(id).or_default().renewed.push(i as u32)
            }
            Request::LeaseRevoke { id } if operation.outcome != Outcome::Failed => {
                leases.entry(id).or_default().revoked.push(i as u32);
            }
            _ => {}
        }
    }
    let deletions = unexplained_deletions(history);
    for (id, lease) in &leases {
        let deletion = deletions.get(id).copied();
        if let Some(evidence) =
            renewed_after_revoke(history, *id, lease).or_else(|| ended_early(history, *id, lease, deletion))
        {
            return Verdict::Violated(evidence);
        }
    }
    Verdict::holds()
}

#[derive(Default)]
struct Lease {
    ttl: i64,
    /// Grants and keep-alives that succeeded.
    renewed: Vec<u32>,
    /// Revocations that may have taken effect.
    revoked: Vec<u32>,
}

fn renewed_after_revoke(history: &History, id: i64, lease: &Lease) -> Option<Evidence> {
    let at = |i: u32| &history.operations[i as usize];
    let revoked =
        lease.revoked.iter().copied().filter(|&i| at(i).is_ok()).min_by_key(|&i| at(i).completed)?;
    let renewed = lease.renewed.iter().copied().find(|&i| at(revoked).precedes(at(i)))?;
    // An id may be granted again after it was revoked.
    let grant = |i: u32| matches!(&at(i).call, Call::Etcd(request) if matches!(**request, Request::LeaseGrant { .. }));
    if lease.renewed.iter().any(|&i| grant(i) && at(i).completed > at(revoked).invoked) {
        return None;
    }
    let reason = format!("lease {id} was renewed after it had been revoked");
    Some(Evidence {
        operations: vec![revoked.min(renewed), revoked.max(renewed)],
        reason,
        sufficient: true,
        ..Evidence::default()
    })
}

/// A key of the lease was seen deleted, by nobody, before the lease can have run out.
fn ended_early(history: &History, id: i64, lease: &Lease, deletion: Option<Deletion>) -> Option<Evidence> {
    if lease.ttl <= 0 || !lease.revoked.is_empty() {
        return None;
    }
    let at = |i: u32| &history.operations[i as usize];
    let last = lease.renewed.iter().copied().max_by_key(|&i| at(i).invoked)?;
    let runs_out = at(last).invoked.saturating_add(lease.ttl.saturating_mul(NANOSECONDS));
    let (key, revision, time) = deletion?;
    if time >= runs_out {
        return None;
    }
    let name = history.key(key);
    let reason = format!(
        "lease {id} was renewed at {} for {} s, but its key {name} was gone at {time} (revision {revision}), {} ns too early",
        at(last).invoked,
        lease.ttl,
        runs_out - time
    );
    Some(Evidence { operations: vec![last], reason, ..Evidence::default() })
}

/// Of which key, at which revision, and when it was heard of.
type Deletion = (Key, i64, Time);

/// By whom a key can have been removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was put under this lease, and by nobody else: only the lease's end removes it.
    HangsOn(i64),
    /// Somebody else put or removed it, too.
    Open,
}

/// For each lease the first deletion, seen by a watch, of a key that hung on it and that no request can have deleted. One pass over the
/// history for all leases together: a long life has as many leases as it has days and more.
fn unexplained_deletions(history: &History) -> HashMap<i64, Deletion> {
    let mut fates: HashMap<Key, Fate> = HashMap::new();
    let mut deletions: HashMap<i64, Deletion> = HashMap::new();
    for operation in history.operations.iter().filter(|operation| operation.outcome != Outcome::Failed) {
        let Call::Etcd(request) = &operation.call else { continue };
        let mut touch = |key: Key, lease: i64| {
            let fate = if lease == 0 { Fate::Open } else { Fate::HangsOn(lease) };
            let known = fates.entry(key).or_insert(fate);
            if *known != fate {
                *known = Fate::Open;
            }
        };
        match &**request {
            Request::Put(one) => touch(one.key, one.lease),
            // Ranges would need the names; any removal rules its first key out, and a range all keys.
            Request::Delete(range) if range.end == RangeEnd::Single => touch(range.key, 0),
            Request::Delete(_) => return deletions,
            Request::Txn(txn) => {
                for op in txn.then.iter().chain(&txn.otherwise) {
                    match op {
                        TxnOp::Put(one) => touch(one.key, one.lease),
                        TxnOp::Delete(range) => touch(range.key, 0),
                        TxnOp::Range(_) => {}
                    }
                }
            }
            _ => {}
        }
    }
    for response in history.watches.iter().flat_map(|stream| &stream.responses) {
        for event in response.events.iter().filter(|event| event.change == Change::Delete) {
            let Some(Fate::HangsOn(lease)) = fates.get(&event.key) else { continue };
            let earliest = deletions.entry(*lease).or_insert((event.key, event.revision, response.time));
            if response.time < earliest.2 {
                *earliest = (event.key, event.revision, response.time);
            }
        }
    }
    deletions
}
