//! Slots that snapshots cover (PMMC 4.2 to 4.4, *garbage collection*; Made Live 5.4), and what memory keeps.
//!
//! The state machine and its snapshots belong to the replica around this protocol. Here it is remembered which slot the
//! newest saved one ends with, and the configuration behind it; it is sent to peers that need what is not kept any more; and
//! the one that a leader sends takes the place of the slots that it covers. What was accepted in later slots stays: that is what
//! an acceptor must not forget.
//!
//! Values stay in memory after they were delivered, for peers that lag, up to `log_bytes_max`. While a
//! snapshot is being written, what follows it stays, because the next checkpoint needs it; while one is on
//! its way to a peer, what follows it stays up to four times as much.

use std::sync::Arc;

use synod_core::{Index, Members, NodeId, Output, SnapshotRef, Time};

use super::message::{Ballot, Message, Pvalue, Record};
use super::progress::Progress;
use super::{MultiPaxos, Mutant, Part};

/// What the slots need to know of a snapshot.
#[derive(Clone)]
pub(super) struct Covered {
    /// The last slot that it covers.
    pub(super) at: Index,
    /// The configuration behind that slot.
    pub(super) members: Arc<Members>,
}

/// The snapshots of this replica.
#[derive(Default)]
pub(super) struct Compaction {
    /// The newest that is saved ends here.
    newest: Index,
    /// What is known of that one; nothing while less is known to be decided.
    saved: Option<Covered>,
    /// The one that is being written.
    freezing: Option<Covered>,
    /// Set while a fresh one was asked for and has not come.
    wanted: bool,
    /// Set while the checkpoint that belongs to the newest has not been taken: it needs all that follows.
    checkpoint_due: bool,
}

impl Compaction {
    /// A replica whose newest snapshot ends at `newest`.
    pub(super) fn new(newest: Index) -> Compaction {
        Compaction { newest, ..Compaction::default() }
    }

    /// Sends the newest snapshot to a peer that needs what comes before `base`; asks for a newer one when it
    /// would not reach that far.
    pub(super) fn send(
        &mut self,
        to: NodeId,
        peer: &mut Progress,
        ballot: Ballot,
        base: Index,
        now: Time,
        out: &mut Output<MultiPaxos>,
    ) {
        // A snapshot is dear: none goes to a peer that does not answer.
        if !peer.is_awake {
            return;
        }
        match &self.saved {
            Some(Covered { at, members }) if *at >= base => {
                peer.snapshot = Some(now);
                let members = members.clone();
                out.send_snapshot(to, Message::Install { ballot, at: *at, members });
            }
            _ if !self.wanted => {
                self.wanted = true;
                out.want_snapshot();
            }
            _ => {}
        }
    }
}

impl MultiPaxos {
    /// A snapshot of the state after `at` is being written.
    pub(super) fn freezing(&mut self, at: Index) {
        if let Some(covered) = self.covered(at) {
            self.compaction.freezing = Some(covered);
        }
    }

    /// A snapshot of our own is saved.
    pub(super) fn snapshot_saved(&mut self, snapshot: &SnapshotRef) {
        self.compaction.wanted = false;
        let frozen = self.compaction.freezing.take_if(|frozen| frozen.at <= snapshot.at);
        if snapshot.at > self.compaction.newest {
            self.compaction.newest = snapshot.at;
            self.compaction.checkpoint_due = true;
            self.compaction.saved = frozen.filter(|frozen| frozen.at == snapshot.at);
            self.settle_snapshot();
        }
    }

    /// Finds out what the newest snapshot covers, once so much is known to be decided.
    pub(super) fn settle_snapshot(&mut self) {
        if self.compaction.saved.is_none() && self.compaction.newest > Index::ZERO {
            self.compaction.saved = self.covered(self.compaction.newest);
        }
    }

    fn covered(&self, at: Index) -> Option<Covered> {
        if at < self.slots.base() || at > self.decided {
            return None;
        }
        let known = if self.has(Mutant::SnapshotForgetsMembers) { self.slots.base() } else { at };
        Some(Covered { at, members: self.slots.members_at(known).clone() })
    }

    /// The transfer of a snapshot was given up.
    pub(super) fn snapshot_failed(&mut self, peer: NodeId) {
        if let Part::Leader(leading) = &mut self.part
            && let Some(peer) = leading.peers.get_mut(&peer)
            && peer.snapshot.is_some()
        {
            // Before another is sent, it has to show that it is there.
            peer.is_awake = false;
            peer.give_up_snapshot();
        }
    }

    /// A peer may have crashed right behind a transfer: a snapshot without effect is sent again. If the first
    /// is still on its way, the second is dropped.
    pub(super) fn resend_snapshots(&mut self) {
        let (now, patience) = (self.now, self.options.election_timeout * 4);
        // What was asked for and never came is asked for again.
        self.compaction.wanted = false;
        let Part::Leader(leading) = &mut self.part else { return };
        for peer in leading.peers.values_mut() {
            if peer.snapshot.is_some_and(|since| now.since(since) >= patience) {
                peer.give_up_snapshot();
            }
        }
    }

    /// A peer whose state is older than its slots, because its own snapshot is lost.
    pub(super) fn on_need_snapshot(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        reach: Index,
        out: &mut Output<Self>,
    ) {
        let now = self.now;
        if self.heard_in(from, ballot).is_none() {
            return;
        }
        if let Part::Leader(leading) = &mut self.part
            && let Some(peer) = leading.peers.get_mut(&from)
            && peer.snapshot.is_none()
            && reach <= self.decided
        {
            self.compaction.send(from, peer, ballot, reach, now, out);
        }
    }

    /// A snapshot is here, whole and verified. What it covers is decided, whoever sent it.
    pub(super) fn on_installed(
        &mut self,
        from: NodeId,
        message: Message,
        snapshot: SnapshotRef,
        out: &mut Output<Self>,
    ) {
        if from == self.id || from == NodeId(0) || !message.is_bounded() {
            return;
        }
        let Message::Install { ballot, at, members } = message else { return };
        if snapshot.at != at || ballot.leader != from {
            return;
        }
        let follows = self.follow(from, ballot, out);
        if !follows && !matches!(self.part, Part::Follower) {
            return; // It comes from the past of one who leads, or tries to.
        }
        self.owes_accepted = follows;
        let needed = if self.lacks_snapshot() { self.slots.base() } else { self.decided.next() };
        if at < needed {
            return; // It is all here.
        }
        self.slots.rebase(at, members.clone());
        let lsn = out.record(Record::Base { at, members: members.clone() });
        self.recording.push_back((lsn, at));
        self.decided = self.decided.max(at);
        self.recorded = self.recorded.max(at);
        self.extend_prefix();
        self.compaction.freezing.take_if(|frozen| frozen.at <= at);
        // After a restart the state may be ahead of the slots: then only they needed it.
        if at > self.delivered {
            self.delivered = at;
            self.compaction.newest = at;
            self.compaction.checkpoint_due = true;
            self.compaction.saved = Some(Covered { at, members });
            out.restore(snapshot);
        }
        self.learn(out);
    }

    /// Whether the state is older than what the slots begin with.
    pub(super) fn lacks_snapshot(&self) -> bool {
        self.delivered < self.slots.base()
    }

    /// Drops from memory what was delivered and is not needed any more.
    pub(super) fn trim_memory(&mut self) {
        // The checkpoint is taken right after the flush that follows the snapshot's being saved.
        let checkpoint_due = std::mem::take(&mut self.compaction.checkpoint_due);
        let budget = self.options.log_bytes_max;
        if self.slots.bytes() <= budget {
            return;
        }
        let mut limit = self.delivered.min(self.decided);
        if checkpoint_due {
            limit = limit.min(self.compaction.newest);
        }
        if let Some(frozen) = &self.compaction.freezing {
            limit = limit.min(frozen.at);
        }
        let awaited = self.is_awaited().then_some(self.compaction.newest);
        let mut end = self.slots.surplus(budget, limit);
        if let Some(awaited) = awaited {
            let far = self.slots.surplus(budget.saturating_mul(4), limit);
            end = end.min(awaited.max(far));
        }
        if end > self.slots.base() {
            self.slots.drop_through(end);
        }
    }

    /// Whether a peer is about to go on from a snapshot.
    fn is_awaited(&self) -> bool {
        let Part::Leader(leading) = &self.part else { return false };
        leading.peers.values().any(|peer| peer.snapshot.is_some())
    }

    /// The fewest records that rebuild this replica above its saved snapshot.
    pub(super) fn write_checkpoint(&self, records: &mut Vec<Record>) {
        let base = self.slots.base();
        assert!(
            base <= self.compaction.newest,
            "a checkpoint belongs to a snapshot that was saved just now: what follows {:?} was dropped up to {base:?}",
            self.compaction.newest
        );
        records.push(Record::Life(self.life.0));
        records.push(Record::Promised(self.promised));
        // While it is not known yet what the snapshot's end means, the base serves: more records, the same replica.
        let Covered { at, members } = self
            .compaction
            .saved
            .clone()
            .unwrap_or_else(|| Covered { at: base, members: self.slots.members_at(base).clone() });
        if at > Index::ZERO {
            records.push(Record::Base { at, members });
        }
        let forgets = self.has(Mutant::CheckpointForgets);
        for pvalue in self.slots.above(at).filter(|pvalue| !forgets || pvalue.at <= self.decided) {
            let Pvalue { at, ballot, value } = pvalue;
            records.push(Record::Accepted(Pvalue { at, ballot, value }));
        }
        if self.decided > at {
            records.push(Record::Decided(self.decided));
        }
    }
}
