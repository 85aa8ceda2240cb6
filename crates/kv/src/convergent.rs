//! Converging without one order: every replica applies in an order of its own, and all end up with the same keys.
//!
//! Under causal broadcast two replicas may apply two concurrent puts of a key in either order. So each write carries a mark,
//! its hybrid logical clock and its origin, and a key holds the write with the greatest mark: the last writer wins. A write that
//! loses is delivered, counts as a revision, and changes nothing. This is what makes causal consistency *convergent* (CCv;
//! Bouajjani et al., POPL'17): without it replicas that saw concurrent writes in different orders would differ for ever.
//!
//! Deletions are writes, too. A deleted key keeps its mark, and a deleted range leaves a mark on the whole range, or a put that
//! is older, but comes later, would bring back what was deleted.
//!
//! **Memory is bounded by the floor.** The protocol says with each delivery below which clock nothing can come here any more
//! ([`Stamp::floor`]). A mark at or below it decides nothing, because whatever is still to come is greater: it is dropped, be
//! it a live key's or a deleted one's. So marks are kept for what was written lately, and all of them are gone
//! when everybody has heard of everything. What a member that is away holds up counts against the quota.
//!
//! **Revisions belong to the replica.** Each command that is delivered counts one, whether it wins or loses. So a revision
//! never goes back at a replica, and replicas that delivered the same have the same number; but before that, the same number at two replicas
//! means different states. A snapshot of another replica brings that one's history: the own one ends, and
//! watchers are told that it was compacted.
//!
//! What needs one order is refused by [`Op::needs_one_order`], which looks at the request alone: a replica must not refuse
//! what another carries out, so nothing here depends on the state that a command meets.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use synod_core::{Audience, Command, Index, NodeId, Stamp, Vector, Wire};

use crate::arena::mix;
use crate::error::OpError;
use crate::op::{
    DeleteRange, DeleteReply, Op, OpReply, Put, PutReply, Reply, Txn, TxnOp, TxnOpReply, TxnReply,
};
use crate::store::Store;
use crate::txn::Writer;
use crate::view::NO_END;

/// When something was written, and where: what decides which of two writes is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) clock: u64,
    pub(crate) origin: NodeId,
}

impl Mark {
    fn of(stamp: &Stamp) -> Mark {
        Mark { clock: stamp.clock, origin: stamp.origin }
    }
}

/// A range that was deleted as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) key: Bytes,
    pub(crate) range_end: Bytes,
    pub(crate) mark: Mark,
}

impl Swept {
    fn covers(&self, key: &[u8]) -> bool {
        self.key <= key && (self.range_end == NO_END || key < &self.range_end[..])
    }

    fn contains(&self, other: &Swept) -> bool {
        let reaches =
            self.range_end == NO_END || other.range_end != NO_END && other.range_end <= self.range_end;
        self.key <= other.key && reaches
    }
}

/// What a convergent store knows beside the keys.
///
/// Invariant: every mark in `keys` and `ranges` has a clock above `floor`, and `ages` holds exactly those of `keys`.
#[derive(Clone, Debug)]
pub(crate) struct Convergent {
    /// Whose history this is.
    pub(crate) node: NodeId,
    /// What was delivered, by origin.
    pub(crate) vector: Vector,
    /// How many commands were in it: with the first revision they add up to the store's.
    pub(crate) commands: Vector,
    pub(crate) floor: u64,
    pub(crate) keys: HashMap<Bytes, Mark, FixedState>,
    ages: BTreeSet<(Mark, Bytes)>,
    pub(crate) ranges: Vec<Swept>,
    /// When members' attributes were written last; one small entry for each member that ever was.
    pub(crate) members: BTreeMap<u64, Mark>,
    bytes: u64,
}

/// What a mark costs, roughly: two entries that share the key.
const MARK_BYTES: u64 = 128;

impl Convergent {
    pub(crate) fn new(node: NodeId) -> Convergent {
        Convergent {
            node,
            vector: Vector::default(),
            commands: Vector::default(),
            floor: 0,
            keys: HashMap::default(),
            ages: BTreeSet::new(),
            ranges: Vec::new(),
            members: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// What the marks cost in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes + self.ranges.iter().map(|range| MARK_BYTES + range.key.len() as u64).sum::<u64>()
    }

    /// The mark of whatever decided last about a key; none when that is at or below the floor.
    pub(crate) fn mark(&self, key: &[u8]) -> Option<Mark> {
        let own = self.keys.get(key).copied();
        self.ranges.iter().filter(|range| range.covers(key)).map(|range| range.mark).chain(own).max()
    }

    /// Whether a write wins against what is there; two writes of one command go by their order in it.
    fn wins(&self, key: &[u8], mark: Mark) -> bool {
        self.mark(key).is_none_or(|known| mark >= known)
    }

    pub(crate) fn note(&mut self, key: Bytes, mark: Mark) {
        if mark.clock <= self.floor {
            return;
        }
        if let Some(before) = self.keys.insert(key.clone(), mark) {
            self.ages.remove(&(before, key.clone()));
        } else {
            self.bytes += MARK_BYTES + key.len() as u64;
        }
        self.ages.insert((mark, key));
    }

    pub(crate) fn sweep(&mut self, swept: Swept) {
        if swept.mark.clock > self.floor {
            self.ranges.retain(|older| !(swept.contains(older) && swept.mark >= older.mark));
            self.ranges.push(swept);
        }
    }

    /// Nothing at or below this clock can come any more.
    pub(crate) fn raise_floor(&mut self, floor: u64) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        while let Some((mark, key)) = self.ages.pop_first() {
            if mark.clock > floor {
                self.ages.insert((mark, key));
                break;
            }
            self.bytes -= MARK_BYTES + key.len() as u64;
            self.keys.remove(&key);
        }
        self.ranges.retain(|range| range.mark.clock > floor);
    }
}

/// Why something is refused: each is a sentence for people.
mod sentences {
    pub(super) const COMPARES: &str =
        "causal broadcast has no single order of writes: a transaction cannot compare before it writes";
    pub(super) const IGNORE: &str = "causal broadcast has no single order of writes: a put cannot keep a value or lease that other replicas may not have";
    pub(super) const LEASES: &str = "causal broadcast has no leader whose clock could end a lease, and no single order in which it would end";
    pub(super) const ALARMS: &str = "causal broadcast has no single order: each member refuses writes by its own quota, and there is no alarm to raise or lower";
    pub(super) const WISHES: &str = "causal broadcast has no single order of writes: replicas asked for the same would not answer the same";
    pub(super) const REVISION: &str = "under causal broadcast revisions belong to one replica: a transaction that others carry out, too, cannot read at one";
}

impl Op {
    /// Why this cannot be carried out where there is no single order of writes; looks at nothing but the request.
    ///
    /// # Errors
    /// [`OpError::NeedsOneOrder`] with a sentence.
    pub fn needs_one_order(&self) -> Result<(), OpError> {
        let no = |sentence| Err(OpError::NeedsOneOrder(sentence));
        match self {
            Op::Put(put) => put_needs_one_order(put),
            Op::Txn(txn) => txn_needs_one_order(txn),
            Op::LeaseGrant { .. } | Op::LeaseRevoke { .. } | Op::LeaseCheckpoint { .. } => {
                no(sentences::LEASES)
            }
            Op::Alarm(_) => no(sentences::ALARMS),
            Op::Once(_) => no(sentences::WISHES),
            Op::DeleteRange(_)
            | Op::Compact { .. }
            | Op::MemberPublish { .. }
            | Op::MemberForget { .. }
            | Op::SetQuota { .. } => Ok(()),
        }
    }
}

fn put_needs_one_order(put: &Put) -> Result<(), OpError> {
    if put.lease != 0 {
        return Err(OpError::NeedsOneOrder(sentences::LEASES));
    }
    if put.flags.ignore_value || put.flags.ignore_lease {
        return Err(OpError::NeedsOneOrder(sentences::IGNORE));
    }
    Ok(())
}

fn txn_needs_one_order(txn: &Txn) -> Result<(), OpError> {
    if !txn.compare.is_empty() {
        return Err(OpError::NeedsOneOrder(sentences::COMPARES));
    }
    // Without compares it is always this branch.
    for op in &txn.success {
        match op {
            TxnOp::Put(put) => put_needs_one_order(put)?,
            TxnOp::Txn(inner) => txn_needs_one_order(inner)?,
            TxnOp::Range(range) if range.revision > 0 => {
                return Err(OpError::NeedsOneOrder(sentences::REVISION));
            }
            TxnOp::Empty => return Err(OpError::KeyNotFound),
            TxnOp::Range(_) | TxnOp::DeleteRange(_) => {}
        }
    }
    Ok(())
}

impl Store {
    /// An empty store that converges with others of its kind, whatever order each of them applies in; `node` is the
    /// replica that it belongs to.
    #[must_use]
    pub fn convergent(node: NodeId) -> Store {
        let mut store = Store::new();
        store.convergent = Some(Convergent::new(node));
        store
    }

    /// What a convergent store has applied, by origin: what session tokens are made of. None for one with a total order.
    #[must_use]
    pub fn vector(&self) -> Option<&Vector> {
        self.convergent.as_ref().map(|convergent| &convergent.vector)
    }

    /// Below which clock nothing may come any more, as the last delivery said: what comes all the same may win where it should not.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.convergent.as_ref().map_or(0, |convergent| convergent.floor)
    }

    /// How many marks are kept, of keys and of ranges, to decide against writes that are still to come.
    #[must_use]
    pub fn marks_held(&self) -> usize {
        self.convergent.as_ref().map_or(0, |convergent| convergent.keys.len() + convergent.ranges.len())
    }

    /// Whether there is room for an operation; asked where a command is taken from its client, because what is once
    /// cast is carried out everywhere.
    ///
    /// # Errors
    /// [`OpError::NoSpace`] at the quota.
    pub(crate) fn check_room(&self, op: &Op) -> Result<(), OpError> {
        if self.is_over_quota(op) { Err(OpError::NoSpace) } else { Ok(()) }
    }

    /// A digest of what the keys hold, which says nothing of how they came to hold it: equal for replicas that have
    /// delivered the same in different orders. Looks at everything.
    #[must_use]
    pub fn contents_digest(&self) -> u64 {
        let view = &self.mvcc.view;
        let mut sum = 0;
        for at in view.live_span(&[], NO_END) {
            let pair = view.arena.record(at).pair();
            for part in [pair.key, pair.value] {
                sum = mix(sum ^ u64::from(crc32c::crc32c(part)) << 32 ^ part.len() as u64);
            }
        }
        for (node, attributes) in &self.members {
            sum = mix(sum ^ node);
            sum = mix(sum ^ u64::from(crc32c::crc32c(&attributes.to_bytes())));
        }
        sum
    }

    /// A delivery has come.
    pub(crate) fn take_stamp(&mut self, stamp: &Stamp) {
        let convergent = self.convergent.as_mut().expect("only a convergent store takes stamps");
        let known = convergent.vector.get(stamp.origin);
        assert_eq!(
            stamp.number,
            known + 1,
            "deliveries of {:?} come in their order, without gaps",
            stamp.origin
        );
        convergent.vector.raise(stamp.origin, stamp.number);
        convergent.raise_floor(stamp.floor);
    }

    /// Carries out a delivered command: what wins is written, what loses counts.
    pub(crate) fn apply_stamped_command(
        &mut self,
        at: Index,
        stamp: &Stamp,
        command: &Command,
        audience: Audience,
    ) -> Reply {
        assert!(at >= self.applied, "positions ascend: {at:?} after {:?}", self.applied);
        self.applied = at;
        let convergent = self.convergent.as_mut().expect("only a convergent store takes stamps");
        let mark = Mark::of(stamp);
        debug_assert!(mark.clock > convergent.floor, "nothing comes at or below the floor: {mark:?}");
        let commands = convergent.commands.get(stamp.origin) + 1;
        convergent.commands.raise(stamp.origin, commands);
        let is_own = stamp.origin == convergent.node;
        let result = match Op::decode_all(command.payload.clone()) {
            Ok(op) => {
                let sound = op.validate(usize::MAX).and_then(|()| op.needs_one_order());
                match sound {
                    Ok(()) => self.converge(&op, mark, is_own, audience),
                    Err(error) => self.count(Err(error)),
                }
            }
            Err(_) => self.count(Err(OpError::Malformed)),
        };
        let result = match audience {
            Audience::Client => result,
            Audience::Nobody => result.map(|_| OpReply::Silent),
        };
        Reply { revision: self.revision(), result }
    }

    /// A revision without a change.
    fn count<R>(&mut self, result: R) -> R {
        self.write_stamped(Audience::Nobody, |_, _| result)
    }

    fn converge(
        &mut self,
        op: &Op,
        mark: Mark,
        is_own: bool,
        audience: Audience,
    ) -> Result<OpReply, OpError> {
        match op {
            Op::Put(put) => Ok(OpReply::Put(
                self.write_stamped(audience, |writer, convergent| convergent.put(writer, put, mark)),
            )),
            Op::DeleteRange(delete) => Ok(OpReply::DeleteRange(
                self.write_stamped(audience, |writer, convergent| convergent.delete(writer, delete, mark)),
            )),
            Op::Txn(txn) => Ok(OpReply::Txn(self.write_stamped(audience, |writer, convergent| {
                let mut reply = convergent.txn(writer, txn, mark, audience);
                reply.revision = writer.next_revision();
                reply
            }))),
            // The history that is given up is the replica's own: nobody else's clients meant theirs.
            Op::Compact { revision } if is_own => {
                self.count(());
                self.compact(*revision)
            }
            Op::Compact { .. } => self.count(Ok(OpReply::Compact)),
            Op::MemberPublish { node, attributes } => {
                if self.is_latest(*node, mark) {
                    self.members.insert(*node, attributes.clone());
                }
                self.count(Ok(OpReply::Done))
            }
            Op::MemberForget { node } => {
                if self.is_latest(*node, mark) {
                    self.members.remove(node);
                }
                self.count(Ok(OpReply::Done))
            }
            // So is the quota: a replica refuses writes by its own.
            Op::SetQuota { bytes } => {
                self.quota = if is_own { *bytes } else { self.quota };
                self.count(Ok(OpReply::Done))
            }
            Op::LeaseGrant { .. }
            | Op::LeaseRevoke { .. }
            | Op::LeaseCheckpoint { .. }
            | Op::Alarm(_)
            | Op::Once(_) => {
                unreachable!("it was refused by `needs_one_order`")
            }
        }
    }

    fn is_latest(&mut self, member: u64, mark: Mark) -> bool {
        let convergent = self.convergent.as_mut().expect("only a convergent store takes stamps");
        let latest = convergent.members.get(&member).is_none_or(|known| mark > *known);
        if latest {
            convergent.members.insert(member, mark);
        }
        latest
    }
}

impl Convergent {
    fn put(&mut self, writer: &mut Writer<'_>, put: &Put, mark: Mark) -> PutReply {
        if !self.wins(&put.key, mark) {
            return PutReply { revision: writer.next_revision(), prev_kv: None };
        }
        self.note(Bytes::copy_from_slice(&put.key), mark);
        writer.put(put)
    }

    fn delete(&mut self, writer: &mut Writer<'_>, delete: &DeleteRange, mark: Mark) -> DeleteReply {
        let mut doomed: Vec<Bytes> = Vec::new();
        if delete.range_end.is_empty() {
            if self.wins(&delete.key, mark) {
                let key = Bytes::copy_from_slice(&delete.key);
                self.note(key.clone(), mark);
                doomed.push(key);
            }
        } else {
            doomed.extend(
                writer.live_keys(delete).filter(|key| self.wins(key, mark)).map(Bytes::copy_from_slice),
            );
            let (key, range_end) = (&delete.key, &delete.range_end);
            let (key, range_end) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(range_end));
            self.sweep(Swept { key, range_end, mark });
        }
        let mut reply = writer.delete_keys(&doomed, delete.prev_kv);
        reply.revision = writer.next_revision();
        reply
    }

    fn txn(&mut self, writer: &mut Writer<'_>, txn: &Txn, mark: Mark, audience: Audience) -> TxnReply {
        let listened = audience == Audience::Client;
        let mut responses = Vec::new();
        for op in &txn.success {
            let response = match op {
                TxnOp::Put(put) => TxnOpReply::Put(self.put(writer, put, mark)),
                TxnOp::DeleteRange(delete) => TxnOpReply::DeleteRange(self.delete(writer, delete, mark)),
                TxnOp::Txn(inner) => TxnOpReply::Txn(self.txn(writer, inner, mark, audience)),
                TxnOp::Range(range) if listened => TxnOpReply::Range(writer.range(range)),
                TxnOp::Range(_) | TxnOp::Empty => continue,
            };
            if listened {
                responses.push(response);
            }
        }
        TxnReply { revision: 0, succeeded: true, responses }
    }
}
