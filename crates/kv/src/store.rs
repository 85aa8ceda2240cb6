//! The store: one machine of versions, leases, alarms, members' attributes and watchers.
//!
//! [`Store::apply_op`] is the only way in for changes. It asks [`Store::admit`] first, the one place where alarms and the
//! quota are looked at, in the log's order and by replicated state alone, then hands the operation to the part that
//! knows it, and at last shows the changes to the watchers. Reading goes through [`Store::view`] and its copies.
//!
//! What is replicated: versions, leases, alarms, members' attributes, the quota, the position applied last, which wishes
//! were carried out. What is not:
//! watchers, when leases end, and how far compacted versions have been removed from memory.
//!
//! Left out: users and roles (a later floor of work; their checks belong into `admit`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Weak};

use synod_core::{Audience, Command, Index, NodeId, Wire};

use crate::arena::{Accounts, mix};
use crate::convergent::Convergent;
use crate::error::OpError;
use crate::lease::Leases;
use crate::lessor::Lessor;
use crate::mutants::Mutant;
use crate::mvcc::{Change, Mvcc};
use crate::once::{Answered, Clients};
use crate::op::{
    Alarm, AlarmAction, AlarmKind, MemberAttributes, Op, OpReply, Put, RangeReply, RangeRequest, Reply, Txn,
    TxnReply,
};
use crate::scrub::Scrub;
use crate::snapshot::{State, bad};
use crate::txn::{self, Writer};
use crate::view::View;
use crate::watch::{Census, Hub};

/// The quota until [`Op::SetQuota`] says otherwise: etcd's 2 GiB.
pub const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;

/// What a lease counts for against the quota.
const LEASE_COST_BYTES: u64 = 64;

/// A key-value store.
#[derive(Debug)]
pub struct Store {
    pub(crate) mvcc: Mvcc,
    pub(crate) leases: Leases,
    pub(crate) alarms: BTreeSet<Alarm>,
    pub(crate) members: BTreeMap<u64, MemberAttributes>,
    pub(crate) quota: u64,
    pub(crate) applied: Index,
    pub(crate) scrub: Scrub,
    /// Which wishes of clients that trust no single replica were carried out.
    pub(crate) clients: Clients,
    /// What came of them, where somebody takes it.
    pub(crate) answers: Option<Vec<Answered>>,
    /// Of a store without a single order: who wrote what last.
    pub(crate) convergent: Option<Convergent>,
    lessor: Lessor,
    hub: Hub,
    /// The changes of the write in progress; kept for its memory.
    changes: Vec<Change>,
    /// The newest frozen view, while somebody holds it.
    frozen: Weak<View>,
}

impl Default for Store {
    fn default() -> Self {
        Store::new()
    }
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new() -> Store {
        Store {
            mvcc: Mvcc::new(),
            leases: Leases::default(),
            alarms: BTreeSet::new(),
            members: BTreeMap::new(),
            quota: QUOTA_BYTES_DEFAULT,
            applied: Index::ZERO,
            scrub: Scrub::default(),
            clients: Clients::default(),
            answers: None,
            convergent: None,
            lessor: Lessor::default(),
            hub: Hub::default(),
            changes: Vec::new(),
            frozen: Weak::new(),
        }
    }

    /// Carries out a command and notes its position.
    pub fn apply_command(&mut self, at: Index, command: &Command, audience: Audience) -> Reply {
        assert!(at >= self.applied, "positions ascend: {at:?} after {:?}", self.applied);
        self.applied = at;
        match Op::decode_all(command.payload.clone()) {
            Ok(op) => self.apply_op(&op, command.id.origin, audience),
            Err(_) => self.reply(Err(OpError::Malformed)),
        }
    }

    /// Carries out one operation that the replica `origin` asked for.
    pub fn apply_op(&mut self, op: &Op, origin: NodeId, audience: Audience) -> Reply {
        if let Op::Once(once) = op {
            return self.apply_once(once, origin, audience);
        }
        // The log is not asked to be polite: what would break the store's own rules is refused here again.
        if let Err(error) = op.validate(usize::MAX).and_then(|()| self.admit(op, origin)) {
            return self.reply(Err(error));
        }
        let result = match op {
            Op::Put(put) => self.put(put, audience),
            Op::DeleteRange(delete) => {
                let reply = self.write(audience, |writer| writer.delete_range(delete));
                Ok(OpReply::DeleteRange(reply))
            }
            Op::Txn(txn) => self.txn(txn, audience),
            Op::Compact { revision } => self.compact(*revision),
            Op::LeaseGrant { id, ttl } => self.lease_grant(*id, *ttl),
            Op::LeaseRevoke { id } => self.lease_revoke(*id),
            Op::LeaseCheckpoint { remaining } => {
                for (id, seconds) in remaining {
                    if self.leases.checkpoint(*id, *seconds) {
                        self.lessor.noted(*id, *seconds);
                    }
                }
                Ok(OpReply::LeaseCheckpoint)
            }
            Op::Alarm(action) => Ok(OpReply::Alarm(self.alarm(*action))),
            Op::MemberPublish { node, attributes } => {
                self.members.insert(*node, attributes.clone());
                Ok(OpReply::Done)
            }
            Op::MemberForget { node } => {
                self.members.remove(node);
                self.alarms.retain(|alarm| alarm.member != *node);
                Ok(OpReply::Done)
            }
            Op::SetQuota { bytes } => {
                self.quota = *bytes;
                Ok(OpReply::Done)
            }
            Op::Once(_) => unreachable!("it was taken apart above"),
        };
        self.reply(match audience {
            Audience::Client => result,
            Audience::Nobody => result.map(|_| OpReply::Silent),
        })
    }

    pub(crate) fn reply(&self, result: Result<OpReply, OpError>) -> Reply {
        Reply { revision: self.revision(), result }
    }

    /// Whether an operation may be carried out at all: alarms first, then the quota. Going over the quota raises the
    /// alarm of the replica that was asked.
    fn admit(&mut self, op: &Op, origin: NodeId) -> Result<(), OpError> {
        self.check_alarms(op)?;
        if self.is_over_quota(op) {
            self.alarms.insert(Alarm { member: origin.0, kind: AlarmKind::NoSpace });
            return Err(OpError::NoSpace);
        }
        Ok(())
    }

    fn check_alarms(&self, op: &Op) -> Result<(), OpError> {
        if self.alarms.is_empty() {
            return Ok(());
        }
        let raised = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        let (touches_data, cost) = match op {
            Op::LeaseCheckpoint { .. } => (true, 0),
            Op::Put(_) | Op::DeleteRange(_) | Op::Txn(_) => (true, op.cost()),
            Op::Compact { .. } | Op::LeaseRevoke { .. } | Op::LeaseGrant { .. } => (true, op.cost()),
            Op::Alarm(_)
            | Op::MemberPublish { .. }
            | Op::MemberForget { .. }
            | Op::SetQuota { .. }
            | Op::Once(_) => (false, 0),
        };
        if touches_data && raised(AlarmKind::Corrupt) {
            return Err(OpError::Corrupt);
        }
        if cost > 0 && raised(AlarmKind::NoSpace) {
            return Err(OpError::NoSpace);
        }
        Ok(())
    }

    pub(crate) fn is_over_quota(&self, op: &Op) -> bool {
        let cost = op.cost();
        cost > 0 && self.quota > 0 && self.size().saturating_add(cost) >= self.quota
    }

    /// What the server asks before it proposes: an early refusal of what applying would refuse now. Applying decides anew.
    ///
    /// # Errors
    /// [`OpError::Corrupt`] or [`OpError::NoSpace`] while their alarms are up. A write that would exceed the quota is let
    /// through while no alarm is up, because the alarm is raised where it is applied. A convergent store decides it here, as
    /// nothing may be refused where it is applied; and refuses what needs one order ([`OpError::NeedsOneOrder`]).
    pub fn precheck(&self, op: &Op) -> Result<(), OpError> {
        if self.convergent.is_some() {
            op.needs_one_order()?;
            self.check_room(op)?;
        }
        self.check_alarms(op)
    }

    /// Refuses reads while the data are known to be corrupt.
    ///
    /// # Errors
    /// [`OpError::Corrupt`].
    pub fn check_readable(&self) -> Result<(), OpError> {
        match self.alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
            true => Err(OpError::Corrupt),
            false => Ok(()),
        }
    }

    /// Runs one write; if it changed anything, it gets the next revision and the watchers hear of it.
    fn write<R>(&mut self, audience: Audience, work: impl FnOnce(&mut Writer<'_>) -> R) -> R {
        let mut changes = std::mem::take(&mut self.changes);
        let reply = work(&mut Writer::new(&mut self.mvcc, &mut self.leases, &mut changes, audience));
        if !changes.is_empty() {
            self.mvcc.view.revision += 1;
            self.hub.publish(&self.mvcc.view, &changes);
            changes.clear();
        }
        self.changes = changes;
        reply
    }

    /// Runs the write of a delivered command: it gets the next revision whether or not it changed anything.
    pub(crate) fn write_stamped<R>(
        &mut self,
        audience: Audience,
        work: impl FnOnce(&mut Writer<'_>, &mut Convergent) -> R,
    ) -> R {
        let mut changes = std::mem::take(&mut self.changes);
        let convergent = self.convergent.as_mut().expect("only a convergent store takes stamps");
        let reply =
            work(&mut Writer::new(&mut self.mvcc, &mut self.leases, &mut changes, audience), convergent);
        self.mvcc.view.revision += 1;
        self.hub.publish(&self.mvcc.view, &changes);
        changes.clear();
        self.changes = changes;
        reply
    }

    fn put(&mut self, put: &Put, audience: Audience) -> Result<OpReply, OpError> {
        txn::check_put(&self.mvcc.view, &self.leases, put)?;
        Ok(OpReply::Put(self.write(audience, |writer| writer.put(put))))
    }

    fn txn(&mut self, txn: &Txn, audience: Audience) -> Result<OpReply, OpError> {
        let path = txn::decide(&self.mvcc.view, txn);
        if audience == Audience::Client || !Mutant::ChecksForClients.is_on() {
            txn::check(&self.mvcc.view, &self.leases, txn, &path)?;
        }
        Ok(OpReply::Txn(self.write(audience, |writer| writer.txn(txn, &path))))
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<OpReply, OpError> {
        let view = &self.mvcc.view;
        if revision <= view.compacted {
            return Err(OpError::Compacted);
        }
        if revision > view.revision {
            return Err(OpError::FutureRevision);
        }
        self.mvcc.compact(revision);
        self.scrub.begin();
        self.hub.compacted(revision);
        Ok(OpReply::Compact)
    }

    fn lease_grant(&mut self, id: i64, ttl: i64) -> Result<OpReply, OpError> {
        self.leases.grant(id, ttl)?;
        if let Some(lease) = self.leases.get(id) {
            self.lessor.granted(id, lease);
        }
        Ok(OpReply::LeaseGrant { id, ttl })
    }

    fn lease_revoke(&mut self, id: i64) -> Result<OpReply, OpError> {
        let lease = self.leases.revoke(id).ok_or(OpError::LeaseNotFound)?;
        self.lessor.revoked(id);
        let kept = if Mutant::LeaseLeavesKeys.is_on() { lease.keys.len() } else { 0 };
        self.write(Audience::Nobody, |writer| {
            lease.keys.iter().skip(kept).for_each(|key| writer.delete(key))
        });
        Ok(OpReply::LeaseRevoke)
    }

    fn alarm(&mut self, action: AlarmAction) -> Vec<Alarm> {
        let (changed, alarm) = match action {
            AlarmAction::Activate(alarm) => (self.alarms.insert(alarm), alarm),
            AlarmAction::Deactivate(alarm) => (self.alarms.remove(&alarm), alarm),
        };
        if changed { vec![alarm] } else { Vec::new() }
    }

    /// The position of the last command applied.
    #[must_use]
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The main revision of the last write.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.mvcc.view.revision
    }

    /// The lowest revision that can be read, or [`COMPACTED_NEVER`](crate::view::COMPACTED_NEVER).
    #[must_use]
    pub fn compacted(&self) -> i64 {
        self.mvcc.view.compacted
    }

    /// Reads a range, as of now or of an earlier revision.
    ///
    /// # Errors
    /// When the revision cannot be read, or the data are known to be corrupt.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, OpError> {
        self.check_readable()?;
        self.mvcc.view.range(request)
    }

    /// Runs a transaction that only reads.
    ///
    /// # Errors
    /// As [`Store::range`]; [`OpError::Malformed`] when it could write.
    pub fn read_txn(&self, txn: &Txn) -> Result<TxnReply, OpError> {
        self.check_readable()?;
        txn::read(&self.mvcc.view, txn)
    }

    /// What can be read now, in place.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.mvcc.view
    }

    /// A copy of what can be read now, to be read elsewhere while writes go on. Copies of one moment are shared.
    pub fn freeze_view(&mut self) -> Arc<View> {
        let now = (self.revision(), self.compacted());
        match self.frozen.upgrade().filter(|view| (view.revision, view.compacted) == now) {
            Some(view) => view,
            None => {
                let view = Arc::new(self.mvcc.view.clone());
                self.frozen = Arc::downgrade(&view);
                view
            }
        }
    }

    /// The leases that exist.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// When leases end, as far as this replica decides it.
    pub fn lessor(&mut self) -> &mut Lessor {
        &mut self.lessor
    }

    /// Makes this replica the one that decides when leases end; see [`Lessor::promote`].
    pub fn promote_lessor(&mut self, now: synod_core::Time, extension: std::time::Duration) {
        self.lessor.promote(&self.leases, now, extension);
    }

    /// The watchers.
    pub fn hub(&mut self) -> &mut Hub {
        &mut self.hub
    }

    /// How many watchers there are, and what waits for them.
    #[must_use]
    pub fn watch_census(&self) -> Census {
        self.hub.census()
    }

    /// Lets watchers that lag behind catch up, looking at `budget` versions at most; true when more is to be done.
    pub fn catch_up(&mut self, budget: usize) -> bool {
        self.hub.catch_up(&self.mvcc.view, budget)
    }

    /// Removes compacted versions from memory: one step that looks at `budget` keys, or moves about a megabyte at most.
    /// True when more is to be done. No answer depends on it.
    pub fn scrub(&mut self, budget: usize) -> bool {
        self.scrub.step(&mut self.mvcc, budget)
    }

    /// Whether compacted versions are still to be removed from memory.
    #[must_use]
    pub fn is_scrubbing(&self) -> bool {
        !self.scrub.is_idle()
    }

    /// The alarms that are up.
    #[must_use]
    pub fn alarms(&self) -> &BTreeSet<Alarm> {
        &self.alarms
    }

    /// What members said of themselves, by node id.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<u64, MemberAttributes> {
        &self.members
    }

    /// The quota in force; 0: none.
    #[must_use]
    pub fn quota(&self) -> u64 {
        self.quota
    }

    /// Bytes of all versions that are not compacted, with a flat sum for each: the same on all replicas, and what the
    /// quota is compared with.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.mvcc.accounts().size + self.convergent.as_ref().map_or(0, Convergent::bytes)
    }

    /// Bytes of records that this replica holds in memory, those included that are compacted and not removed yet.
    #[must_use]
    pub fn size_held(&self) -> u64 {
        self.mvcc.view.arena.bytes_held() as u64
    }

    /// How many keys this replica holds, deleted ones included whose tombstone is still kept.
    #[must_use]
    pub fn keys_held(&self) -> usize {
        self.mvcc.view.index.len()
    }

    /// A number that stands for the whole replicated state: equal states have equal numbers, on every machine. Cheap
    /// enough to be compared after every command.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest_with(self.mvcc.accounts())
    }

    /// The same number, computed afresh from the versions themselves: what [`Store::digest`] must be. Looks at everything.
    #[must_use]
    pub fn digest_audited(&self) -> u64 {
        self.digest_with(self.mvcc.audit())
    }

    fn digest_with(&self, accounts: Accounts) -> u64 {
        let mut sum = mix(self.revision() as u64);
        let mut add = |part: u64| sum = mix(sum ^ part);
        add(self.compacted() as u64);
        add(self.applied.0);
        add(accounts.size);
        add(accounts.digest);
        add(self.leases.digest());
        add(self.leases.len() as u64);
        add(self.quota);
        for alarm in &self.alarms {
            add(alarm.member);
            add(alarm.kind as u64);
        }
        for (node, attributes) in &self.members {
            add(*node);
            add(crc32c::crc32c(&attributes.to_bytes()).into());
        }
        if !self.clients.is_empty() {
            add(self.clients.digest());
        }
        sum
    }

    /// Replaces the replicated state; watchers go on where they were, out of the new history.
    ///
    /// # Errors
    /// When one of the two has a single order and the other has none; nothing has changed then.
    pub fn become_state(&mut self, state: State) -> io::Result<()> {
        if state.convergent.is_some() != self.convergent.is_some() {
            return Err(bad(
                "a store with a single order cannot become one without, nor the other way round",
            ));
        }
        self.mvcc = state.mvcc;
        let before = std::mem::replace(&mut self.leases, state.leases);
        if Mutant::RestoreKeepsLeases.is_on() {
            for (id, lease) in before.iter() {
                if self.leases.get(id).is_none() {
                    self.leases.insert(id, lease.clone());
                }
            }
        }
        self.alarms = state.alarms;
        self.members = state.members;
        if state
            .convergent
            .as_ref()
            .is_none_or(|theirs| self.convergent.as_ref().is_some_and(|own| own.node == theirs.node))
        {
            // Without a single order the quota is the replica's own business.
            self.quota = state.quota;
        }
        self.applied = state.applied;
        self.clients = state.clients;
        self.scrub = Scrub::default();
        self.frozen = Weak::new();
        // Whoever led did not need a snapshot of another replica; and if it did, it is promoted again.
        self.lessor.demote();
        match state.convergent {
            None => self.hub.history_replaced(&self.mvcc.view),
            Some(theirs) => self.take_over(theirs),
        }
        Ok(())
    }

    /// Takes over what a snapshot knew beside the keys. Its history is the own one only when the replica starts from its own
    /// snapshot; otherwise the own one has ended, and nobody can be brought forward out of the other.
    fn take_over(&mut self, mut theirs: Convergent) {
        let own = self.convergent.take().expect("the caller compared the kinds");
        let goes_on = theirs.node == own.node && own.vector.is_empty();
        theirs.node = own.node;
        self.convergent = Some(theirs);
        if !goes_on && self.revision() > self.compacted() {
            self.mvcc.compact(self.mvcc.view.revision);
            self.scrub.begin();
        }
        if goes_on {
            self.hub.history_replaced(&self.mvcc.view);
        } else {
            self.hub.history_ended(&self.mvcc.view);
        }
    }
}

impl Op {
    /// What this may add to the store at most, for the quota; 0 for what adds nothing or frees space.
    #[must_use]
    pub fn cost(&self) -> u64 {
        match self {
            Op::Put(put) => put.cost(),
            Op::Txn(txn) => txn.cost(),
            Op::LeaseGrant { .. } => LEASE_COST_BYTES,
            _ => 0,
        }
    }
}
