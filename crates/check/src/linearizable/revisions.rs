//! Linearizability of etcd's store, guided by the revisions in its replies: near n log n.
//!
//! Every reply's header says at which revision the store stood, and every change has a revision of its own. So the order
//! of changes is given, reads belong after the change of their revision and before the next, and it only remains to
//! replay the store in that order, comparing every reply, and to look whether real time agrees. What revisions do not
//! say is who made a change that nobody was told of: a revision that no reply claims is filled with an operation of
//! unknown outcome (or with a lease that ran out), first with those that later answers or watch events name, else by
//! trying, within the budget. A read that asked for a member's own view (serializable) is judged like any other: what
//! counts is what clients got, and one that was old makes the history not linearizable. Reads of a past revision are
//! compared with the contents then.

use super::gaps::{Sightings, could_have, floors, sightings};
use crate::budget::{Budget, STEPS_BETWEEN_LOOKS};
use crate::etcd::*;
use crate::history::{Call, History, NEVER, Outcome, Reply as AnyReply, Time};
use crate::model::store::{Changes, Entry, Mismatch, Names, Origin, Slot, Store, agrees, changes};
use crate::verdict::{Edge, Evidence, Exhausted, Verdict, Why, Witness};

/// An operation with a known place in the order.
#[derive(Clone, Copy)]
pub(super) struct Ranked {
    pub(super) revision: i64,
    /// 0: this operation made the revision. 1: it may have. 2: it found the store at it.
    part: u8,
    pub(super) operation: u32,
}

const MADE: u8 = 0;
const MAY_HAVE_MADE: u8 = 1;
const FOUND: u8 = 2;

/// A moment of the replay at which a choice was made, to come back to.
struct Choice {
    group: usize,
    revision: i64,
    store: Store,
    history_length: usize,
    order_length: usize,
    used_length: usize,
    /// Candidates not tried yet.
    left: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
enum Candidate {
    /// An operation of unknown outcome.
    Operation(u32),
    /// A lease that ran out.
    Expiry(i64),
}

/// Which order between operations binds besides the revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binds {
    /// Real time: linearizability.
    RealTime,
    /// Each process's own order: sequential consistency.
    Session,
}

/// The verdict, or `None` if replies carry no revisions and the search must decide.
pub fn check(history: &History, part: &[u32], binds: Binds, budget: &Budget<'_>) -> Option<Verdict> {
    let mut ranked = Vec::with_capacity(part.len());
    let mut unknown = Vec::new();
    let mut old_reads = Vec::new();
    for &i in part {
        let operation = &history.operations[i as usize];
        let Call::Etcd(request) = &operation.call else { return None };
        match &operation.outcome {
            Outcome::Failed => {}
            Outcome::Unknown if changes(request) == Changes::Never => {}
            Outcome::Unknown => unknown.push(i),
            Outcome::Ok(AnyReply::Etcd(reply)) => {
                if matches!(
                    reply.body,
                    ReplyBody::LeaseRefused | ReplyBody::Compacted | ReplyBody::FutureRevision
                ) {
                    // A refusal carries no revision and changes nothing; only its absence from the order is lost.
                    continue;
                }
                if reply.revision <= 0 {
                    if matches!(**request, Request::Range(ref range) if range.revision > 0) {
                        old_reads.push(i);
                        continue;
                    }
                    return None;
                }
                ranked.push(Ranked { revision: reply.revision, part: part_of(request, reply), operation: i });
            }
            Outcome::Ok(_) => return None,
        }
    }
    let operations = &history.operations;
    ranked.sort_unstable_by_key(|at| {
        (at.revision, at.part, operations[at.operation as usize].invoked, at.operation)
    });
    Some(Replay::new(history, ranked, unknown, old_reads, binds).run(budget))
}

/// How the store began: fresh, unless the first revisions are higher than anything that this history can have made.
pub fn origin(history: &History) -> Origin {
    let mut first = i64::MAX;
    let mut unknown = 0;
    for operation in &history.operations {
        let Call::Etcd(request) = &operation.call else { continue };
        match &operation.outcome {
            Outcome::Ok(AnyReply::Etcd(reply)) if reply.revision > 0 => {
                first = first.min(reply.revision - i64::from(part_of(request, reply) == MADE));
            }
            Outcome::Unknown if changes(request) != Changes::Never => unknown += 1,
            _ => {}
        }
    }
    if first == i64::MAX || first <= 1 + unknown { Origin::Fresh } else { Origin::Unknown(first) }
}

/// Whether an answered request made the revision it names.
fn part_of(request: &Request, reply: &Reply) -> u8 {
    match (request, &reply.body) {
        (Request::Put(_), _) => MADE,
        (Request::Delete(_), ReplyBody::Deleted(0)) => FOUND,
        (Request::Delete(_), ReplyBody::Deleted(n)) if *n > 0 => MADE,
        (Request::Txn(txn), ReplyBody::Txn { succeeded, replies }) => {
            let branch = match succeeded {
                Some(true) => &txn.then,
                Some(false) => &txn.otherwise,
                None => return if changes(request) == Changes::Never { FOUND } else { MAY_HAVE_MADE },
            };
            let mut part = FOUND;
            for (i, operation) in branch.iter().enumerate() {
                match (operation, replies.get(i)) {
                    (TxnOp::Put(_), _) => return MADE,
                    (TxnOp::Delete(_), Some(TxnReply::Deleted(0))) | (TxnOp::Range(_), _) => {}
                    (TxnOp::Delete(_), Some(TxnReply::Deleted(n))) if *n > 0 => return MADE,
                    (TxnOp::Delete(_), _) => part = MAY_HAVE_MADE,
                }
            }
            part
        }
        (Request::Delete(_) | Request::Txn(_) | Request::LeaseRevoke { .. }, _) => MAY_HAVE_MADE,
        _ => FOUND,
    }
}

struct Replay<'a> {
    history: &'a History,
    names: Names,
    ranked: Vec<Ranked>,
    /// Where each revision's operations begin and end in `ranked`.
    groups: Vec<(i64, usize, usize)>,
    unknown: Vec<u32>,
    old_reads: Vec<u32>,
    binds: Binds,
    /// For each operation of unknown outcome the last revision that its process had seen before it.
    floors: Vec<i64>,
    /// For each position in `ranked` the earliest completion from there on.
    earliest: Vec<Time>,
    seen: Sightings,
    /// What each key held from which revision on, when old reads need it: by key, then by revision.
    versions: Vec<(u32, i64, Option<Entry>)>,
    /// Whether anyone asks about the past.
    past: bool,
    order: Vec<u32>,
    used: Vec<u32>,
    steps: u64,
}

impl<'a> Replay<'a> {
    fn new(
        history: &'a History,
        ranked: Vec<Ranked>,
        unknown: Vec<u32>,
        old_reads: Vec<u32>,
        binds: Binds,
    ) -> Self {
        let floors = floors(history, &ranked, &unknown);
        let mut groups: Vec<(i64, usize, usize)> = Vec::new();
        for (i, at) in ranked.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if group.0 == at.revision => group.2 = i + 1,
                _ => groups.push((at.revision, i, i + 1)),
            }
        }
        let mut earliest = vec![NEVER; ranked.len() + 1];
        for (i, at) in ranked.iter().enumerate().rev() {
            earliest[i] = earliest[i + 1].min(history.operations[at.operation as usize].completed);
        }
        let past = !old_reads.is_empty()
            || ranked.iter().any(|at| match &history.operations[at.operation as usize].call {
                Call::Etcd(request) => matches!(&**request, Request::Range(range) if range.revision > 0),
                _ => false,
            });
        let seen = if unknown.is_empty() { Sightings::default() } else { sightings(history) };
        Replay {
            history,
            names: Names::new(history),
            ranked,
            groups,
            unknown,
            old_reads,
            binds,
            floors,
            earliest,
            seen,
            versions: Vec::new(),
            past,
            order: Vec::new(),
            used: Vec::new(),
            steps: 0,
        }
    }

    fn run(mut self, budget: &Budget<'_>) -> Verdict {
        let out_of_order = match self.binds {
            Binds::RealTime => self.real_time(),
            Binds::Session => self.sessions(),
        };
        if let Some(evidence) = out_of_order {
            return Verdict::Violated(evidence);
        }
        let origin = origin(self.history);
        let mut store = Store::new(&self.names, origin);
        let mut choices: Vec<Choice> = Vec::new();
        let mut group = 0;
        let mut first_failure: Option<Evidence> = None;
        let mut looked = 0;
        while group < self.groups.len() {
            if self.steps >= looked + STEPS_BETWEEN_LOOKS {
                looked = self.steps;
                let memory = choices.len() * self.history.keys.len() * size_of::<Slot>();
                if let Some(limit) = budget.over(self.steps, memory) {
                    let progress = format!("replayed up to revision {}", store.revision);
                    return Verdict::Unknown(Exhausted { limit, progress });
                }
                budget.watcher.progress("revisions", group as u64, self.groups.len() as u64);
            }
            let step = self.replay_group(&mut store, group, &mut choices);
            match step {
                Ok(()) => group += 1,
                Err(evidence) => {
                    first_failure.get_or_insert(evidence);
                    let Some(back) = self.back(&mut store, &mut choices) else {
                        return Verdict::Violated(first_failure.unwrap_or_default());
                    };
                    group = back;
                }
            }
        }
        match self.judge_old_reads(origin) {
            Some(evidence) => Verdict::Violated(evidence),
            None => Verdict::Holds(Witness { order: self.order }),
        }
    }

    /// Real time against the order that the revisions give; independent of who filled the gaps.
    fn real_time(&self) -> Option<Evidence> {
        let mut latest: Option<u32> = None;
        for at in &self.ranked {
            let operation = &self.history.operations[at.operation as usize];
            if let Some(before) = latest {
                let earlier = &self.history.operations[before as usize];
                if operation.precedes(earlier) {
                    let mut operations = vec![before, at.operation];
                    operations.sort_unstable();
                    return Some(Evidence {
                        operations,
                        cycle: vec![
                            Edge { before, after: at.operation, why: Why::Revision },
                            Edge { before: at.operation, after: before, why: Why::RealTime },
                        ],
                        reason: format!(
                            "a reply of revision {} was complete before an operation began that revisions put before it",
                            at.revision
                        ),
                        key: None,
                        sufficient: true,
                    });
                }
                if operation.invoked > earlier.invoked {
                    latest = Some(at.operation);
                }
            } else {
                latest = Some(at.operation);
            }
        }
        None
    }

    /// Each process's order against the order that the revisions give.
    fn sessions(&self) -> Option<Evidence> {
        let mut last: Vec<Option<u32>> = vec![None; self.history.processes.len()];
        for at in &self.ranked {
            let operation = &self.history.operations[at.operation as usize];
            let slot = &mut last[operation.process.0 as usize];
            // Positions follow invocation, and so each session.
            if let Some(before) = slot.filter(|before| *before > at.operation) {
                return Some(Evidence {
                    operations: vec![at.operation, before],
                    cycle: vec![
                        Edge { before, after: at.operation, why: Why::Revision },
                        Edge { before: at.operation, after: before, why: Why::Session },
                    ],
                    reason: format!(
                        "a process was answered at revision {} after a later one",
                        self.revision_of(before)
                    ),
                    key: None,
                    sufficient: true,
                });
            }
            *slot = Some(at.operation);
        }
        None
    }

    fn revision_of(&self, operation: u32) -> i64 {
        match self.history.operations[operation as usize].reply() {
            Some(AnyReply::Etcd(reply)) => reply.revision,
            _ => 0,
        }
    }

    /// Replays everything at one revision, filling the gap before it first.
    fn replay_group(
        &mut self,
        store: &mut Store,
        group: usize,
        choices: &mut Vec<Choice>,
    ) -> Result<(), Evidence> {
        let (revision, start, end) = self.groups[group];
        let maker = self.maker(store, group);
        let known = i64::from(maker.is_some());
        while store.revision < revision - known {
            self.fill(store, group, choices)?;
        }
        if let Some(maker) = maker {
            self.place(store, maker)?;
        }
        for i in start..end {
            let operation = self.ranked[i].operation;
            if Some(operation) != maker {
                if self.ranked[i].part == MADE {
                    let other = maker.unwrap_or(operation);
                    let mut operations = vec![other.min(operation), other.max(operation)];
                    operations.dedup();
                    let reason = format!("two operations each say that they made revision {revision}");
                    return Err(Evidence { operations, reason, sufficient: true, ..Evidence::default() });
                }
                self.place(store, operation)?;
            }
        }
        Ok(())
    }

    /// The answered operation that made a group's revision, if one did.
    fn maker(&self, store: &Store, group: usize) -> Option<u32> {
        let (revision, start, end) = self.groups[group];
        let first = self.ranked[start];
        if first.part == MADE {
            return Some(first.operation);
        }
        if store.revision >= revision {
            return None;
        }
        // Of those that may have made it, one that would from the revision before. Only when we stand there can we tell.
        let candidates = self.ranked[start..end].iter().take_while(|at| at.part == MAY_HAVE_MADE);
        if store.revision == revision - 1 {
            let mut found = None;
            for at in candidates {
                let mut after = store.clone();
                if self.apply(&mut after, at.operation).is_ok() {
                    found = Some(at.operation);
                    break;
                }
            }
            return found;
        }
        None
    }

    fn apply(&self, store: &mut Store, operation: u32) -> Result<(), Mismatch> {
        let operation = &self.history.operations[operation as usize];
        let Call::Etcd(request) = &operation.call else { return Ok(()) };
        let reply = match operation.reply() {
            Some(AnyReply::Etcd(reply)) => Some(&**reply),
            _ => None,
        };
        store.apply(&self.names, request, reply)
    }

    fn place(&mut self, store: &mut Store, operation: u32) -> Result<(), Evidence> {
        self.steps += 1;
        let before = store.revision;
        self.apply(store, operation).map_err(|mismatch| self.evidence(operation, mismatch))?;
        if self.past {
            if let Call::Etcd(request) = &self.history.operations[operation as usize].call
                && let Request::Range(range) = &**request
                && range.revision > 0
                && range.revision < store.revision
                && let Some(AnyReply::Etcd(reply)) = self.history.operations[operation as usize].reply()
                && let ReplyBody::Range(pairs) = &reply.body
            {
                self.range_at(range.revision, range, pairs)
                    .map_err(|mismatch| self.evidence(operation, mismatch))?;
            }
            if store.revision > before {
                self.remember(store, operation);
            }
        }
        self.order.push(operation);
        Ok(())
    }

    /// Notes what a change left behind, for reads of the past.
    fn remember(&mut self, store: &Store, operation: u32) {
        let Call::Etcd(request) = &self.history.operations[operation as usize].call else { return };
        let single = match &**request {
            Request::Put(put) => Some(put.key),
            Request::Delete(range) if range.end == RangeEnd::Single => Some(range.key),
            _ => None,
        };
        let entry = |slot| match slot {
            Slot::Present(entry) => Some(entry),
            Slot::Absent | Slot::Unknown => None,
        };
        match single {
            Some(key) => self.versions.push((key.0, store.revision, entry(store.slot(&self.names, key)))),
            None => {
                let changed: Vec<_> = store
                    .slots(&self.names)
                    .map(|(key, slot)| (key.0, store.revision, entry(slot)))
                    .collect();
                self.versions.extend(changed);
            }
        }
    }

    /// Compares a read of the past with what was remembered; keys that were never changed are not judged.
    fn range_at(&self, revision: i64, range: &Range, reply: &RangeReply) -> Result<(), Mismatch> {
        if range.end != RangeEnd::Single {
            return Ok(());
        }
        let found = self.versions.iter().rev().find(|(key, at, _)| *key == range.key.0 && *at <= revision);
        match (found, reply.pairs.first()) {
            (Some((_, _, Some(entry))), Some(pair)) => agrees(entry, pair),
            (Some((_, at, Some(_))), None) => {
                Err(Mismatch(format!("a key written at revision {at} is missing at {revision}")))
            }
            (Some((_, at, None)), Some(_)) => {
                Err(Mismatch(format!("a key deleted at revision {at} is answered at {revision}")))
            }
            _ => Ok(()),
        }
    }

    fn evidence(&self, operation: u32, mismatch: Mismatch) -> Evidence {
        // The last operations before it that the order holds, for context: who wrote what it should have seen.
        let mut operations: Vec<u32> = self.order.iter().rev().take(1).copied().chain([operation]).collect();
        operations.sort_unstable();
        operations.dedup();
        let at = &self.history.operations[operation as usize];
        let reason =
            format!("the reply to the operation of line {} (id {}) is wrong: {}", at.line, at.id, mismatch.0);
        Evidence { operations, reason, ..Evidence::default() }
    }

    /// Makes one revision that no reply claims.
    fn fill(&mut self, store: &mut Store, group: usize, choices: &mut Vec<Choice>) -> Result<(), Evidence> {
        let revision = store.revision + 1;
        let (_, start, _) = self.groups[group];
        let bound = self.earliest[start];
        let mut left: Vec<Candidate> = Vec::new();
        let seen = self.seen.get(&revision);
        for (&operation, &floor) in self.unknown.iter().zip(&self.floors) {
            let at = &self.history.operations[operation as usize];
            let in_order = match self.binds {
                Binds::RealTime => at.invoked <= bound,
                Binds::Session => floor < revision,
            };
            if in_order && !self.used.contains(&operation) && could_have(at, seen) {
                left.push(Candidate::Operation(operation));
            }
        }
        if seen.is_none_or(|seen| seen.iter().all(|seen| seen.value.is_none())) {
            left.extend(store.expirable().into_iter().map(Candidate::Expiry));
        }
        // The last is tried first: those called soonest.
        left.reverse();
        let operation = self.ranked[start].operation;
        if let [Candidate::Operation(only)] = left[..] {
            // No choice, nothing to come back to.
            if self.apply(store, only).is_ok() && store.revision == revision {
                self.fills(store, only);
                return Ok(());
            }
            left.clear();
        }
        choices.push(Choice {
            group,
            revision,
            store: store.clone(),
            history_length: self.versions.len(),
            order_length: self.order.len(),
            used_length: self.used.len(),
            left,
        });
        match self.take(store, choices) {
            true => Ok(()),
            false => {
                let reason = format!(
                    "revision {revision} must have been made by someone, but no operation of unknown outcome can have made it"
                );
                Err(Evidence { operations: vec![operation], reason, ..Evidence::default() })
            }
        }
    }

    /// An operation of unknown outcome turns out to have made the revision that the store is at now.
    fn fills(&mut self, store: &Store, operation: u32) {
        self.used.push(operation);
        self.order.push(operation);
        if self.past {
            self.remember(store, operation);
        }
    }

    /// Tries the next candidate of the last choice that works.
    fn take(&mut self, store: &mut Store, choices: &mut [Choice]) -> bool {
        let Some(choice) = choices.last_mut() else { return false };
        while let Some(candidate) = choice.left.pop() {
            self.steps += 1;
            store.clone_from(&choice.store);
            match candidate {
                Candidate::Operation(operation) => {
                    if self.apply(store, operation).is_ok() && store.revision == choice.revision {
                        self.fills(store, operation);
                        return true;
                    }
                }
                Candidate::Expiry(lease) => {
                    store.revoke(lease);
                    if store.revision == choice.revision {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Goes back to the last choice with something left to try; the group to go on from.
    fn back(&mut self, store: &mut Store, choices: &mut Vec<Choice>) -> Option<usize> {
        while let Some(choice) = choices.last() {
            self.order.truncate(choice.order_length);
            self.versions.truncate(choice.history_length);
            self.used.truncate(choice.used_length);
            let group = choice.group;
            if self.take(store, choices) {
                return Some(group);
            }
            choices.pop();
        }
        None
    }

    /// Reads of the past, against what the store held at the revision they name.
    fn judge_old_reads(&mut self, origin: Origin) -> Option<Evidence> {
        for &operation in &self.old_reads {
            let at = &self.history.operations[operation as usize];
            let (Call::Etcd(request), Some(AnyReply::Etcd(reply))) = (&at.call, at.reply()) else { continue };
            let (Request::Range(range), ReplyBody::Range(pairs)) = (&**request, &reply.body) else {
                continue;
            };
            let revision = if range.revision > 0 { range.revision } else { reply.revision };
            if revision <= 0 || origin != Origin::Fresh {
                continue;
            }
            if let Err(mismatch) = self.range_at(revision, range, pairs) {
                return Some(self.evidence(operation, mismatch));
            }
        }
        None
    }
}
