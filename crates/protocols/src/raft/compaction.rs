//! Log compaction (Raft section 7): snapshots, and what memory keeps.
//!
//! The state machine and its snapshots belong to the replica around this protocol. Raft remembers of the
//! newest saved one which entry it ends with and the configuration there; sends it to peers that need what is
//! not kept any more; and begins its log after the one that its leader sends.
//!
//! Entries stay in memory after they were delivered, for peers that lag, up to `log_bytes_max`. While a
//! snapshot is being written, what follows it stays, because the next checkpoint needs it; while one is on
//! its way to a peer, what follows it stays up to four times as much.

use std::sync::Arc;

use synod_core::{Index, Members, NodeId, Output, SnapshotRef};

use super::message::{Position, Term};
use super::{Message, Mutant, Part, Raft, Record, Time};
use crate::flow::{Flow, Progress};

/// What the log needs to know of a snapshot.
#[derive(Clone)]
pub(super) struct Covered {
    /// The last entry that it covers.
    pub(super) last: Position,
    /// The configuration at that entry.
    pub(super) members: Arc<Members>,
}

/// The snapshots of this replica.
#[derive(Default)]
pub(super) struct Compaction {
    /// The newest that is saved ends here.
    newest: Index,
    /// What the log knows of that one; nothing while the log has not come as far.
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
        term: Term,
        base: Index,
        now: Time,
        out: &mut Output<Raft>,
    ) {
        // A snapshot is dear: none goes to a peer that does not answer.
        if !peer.is_awake {
            return;
        }
        match &self.saved {
            // Whoever joined does not know the configuration before the one that it came with; a snapshot from that time names none,
            // and nobody could start from it.
            Some(Covered { last, members }) if last.index >= base && !members.voters.is_empty() => {
                peer.snapshot(now);
                out.send_snapshot(
                    to,
                    Message::InstallSnapshot { term, last: *last, members: members.clone() },
                );
            }
            _ if !self.wanted => {
                self.wanted = true;
                out.want_snapshot();
            }
            _ => {}
        }
    }
}

impl Raft {
    /// A snapshot of the state after `at` is being written.
    pub(super) fn freezing(&mut self, at: Index) {
        if let Some(covered) = self.covered(at) {
            self.compaction.freezing = Some(covered);
        }
    }

    /// A snapshot of our own is saved.
    pub(super) fn snapshot_saved(&mut self, snapshot: &SnapshotRef) {
        self.compaction.wanted = false;
        let frozen = self.compaction.freezing.take_if(|frozen| frozen.last.index <= snapshot.at);
        if snapshot.at > self.compaction.newest {
            self.compaction.newest = snapshot.at;
            self.compaction.checkpoint_due = true;
            self.compaction.saved = frozen.filter(|frozen| frozen.last.index == snapshot.at);
            self.settle_snapshot();
        }
    }

    /// Finds out what the newest snapshot covers, once the log has come as far.
    pub(super) fn settle_snapshot(&mut self) {
        if self.compaction.saved.is_none() && self.compaction.newest > Index::ZERO {
            self.compaction.saved = self.covered(self.compaction.newest);
        }
    }

    fn covered(&self, at: Index) -> Option<Covered> {
        let term = self.log.term_at(at).filter(|_| at <= self.commit)?;
        let mut members = self.log.members_at(at).clone();
        if self.has(Mutant::SnapshotForgetsJoint) && members.is_joint() {
            let (outgoing, learners_next) = Default::default();
            let voters = members.outgoing.clone();
            members = Arc::new(Members { voters, outgoing, learners_next, ..(*members).clone() });
        }
        Some(Covered { last: Position { index: at, term }, members })
    }

    /// The transfer of a snapshot was given up.
    pub(super) fn snapshot_failed(&mut self, peer: NodeId) {
        if let Part::Leader(leading) = &mut self.part
            && let Some(peer) = leading.peers.get_mut(&peer)
            && matches!(peer.flow, Flow::Snapshot { .. })
        {
            // Before another is sent, it has to show that it is there.
            peer.is_awake = false;
            peer.probe(peer.matched.next());
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
            if let Flow::Snapshot { since } = peer.flow
                && now.since(since) >= patience
            {
                peer.probe(peer.matched.next());
            }
        }
    }

    /// A peer whose state is older than its log, because its own snapshot is lost.
    pub(super) fn on_need_snapshot(
        &mut self,
        from: NodeId,
        term: Term,
        reach: Index,
        out: &mut Output<Self>,
    ) {
        let (own_term, now) = (self.term, self.now);
        if self.heard_in(from, term, out).is_none() {
            return;
        }
        if let Part::Leader(leading) = &mut self.part
            && let Some(peer) = leading.peers.get_mut(&from)
            && !matches!(peer.flow, Flow::Snapshot { .. })
            && reach <= self.commit
        {
            self.compaction.send(from, peer, own_term, reach, now, out);
        }
    }

    /// The leader's snapshot is here, whole and verified.
    pub(super) fn on_installed(
        &mut self,
        from: NodeId,
        message: Message,
        snapshot: SnapshotRef,
        out: &mut Output<Self>,
    ) {
        let Message::InstallSnapshot { term, last, members } = message else { return };
        let sound = snapshot.at == last.index && last.term <= term && members.is_sound();
        if !sound || members.voters.is_empty() || !self.follow(from, term, out) {
            return;
        }
        self.owes_appended = true;
        let needed = if self.lacks_snapshot() { self.log.base().index } else { self.commit.next() };
        let contradicts = last.index <= self.commit && self.log.term_at(last.index) != Some(last.term);
        if last.index < needed || contradicts {
            return; // The log has it all, or knows better.
        }
        if self.log.term_at(last.index) != Some(last.term) {
            self.disk.replaced();
        }
        self.log.rebase(last, members.clone());
        out.record(Record::SnapshotBase { last, members: members.clone() });
        self.commit = self.commit.max(last.index);
        self.verified = self.verified.min(self.log.last().index).max(self.commit);
        self.compaction.freezing.take_if(|frozen| frozen.last.index <= last.index);
        // After a restart the state may be ahead of the log: then only the log needed it.
        if last.index > self.delivered {
            self.delivered = last.index;
            self.compaction.newest = last.index;
            self.compaction.checkpoint_due = true;
            self.compaction.saved = Some(Covered { last, members });
            out.restore(snapshot);
        }
    }

    /// Whether the state is older than what the log begins with.
    pub(super) fn lacks_snapshot(&self) -> bool {
        self.delivered < self.log.base().index
    }

    /// Drops from memory what was delivered and is not needed any more.
    pub(super) fn trim_memory(&mut self) {
        // The checkpoint is taken right after the flush that follows the snapshot's being saved.
        let checkpoint_due = std::mem::take(&mut self.compaction.checkpoint_due);
        let budget = self.options.log_bytes_max;
        if self.log.bytes() <= budget {
            return;
        }
        let mut limit = self.delivered.min(self.commit);
        if checkpoint_due {
            limit = limit.min(self.compaction.newest);
        }
        if let Some(frozen) = &self.compaction.freezing {
            limit = limit.min(frozen.last.index);
        }
        let awaited = self.is_awaited().then_some(self.compaction.newest);
        let mut end = self.log.surplus(budget, limit);
        if let Some(awaited) = awaited {
            let far = self.log.surplus(budget.saturating_mul(4), limit);
            end = end.min(awaited.max(far));
        }
        self.log.drop_through(end);
    }

    /// Whether a peer is about to go on from a snapshot.
    fn is_awaited(&self) -> bool {
        let Part::Leader(leading) = &self.part else { return false };
        leading.peers.values().any(|peer| matches!(peer.flow, Flow::Snapshot { .. }))
    }

    /// The fewest records that rebuild this replica above its saved snapshot.
    pub(super) fn write_checkpoint(&self, records: &mut Vec<Record>) {
        let base = self.log.base();
        assert!(
            base.index <= self.compaction.newest,
            "a checkpoint belongs to a snapshot that was saved just now: what follows {:?} was dropped up to {base:?}",
            self.compaction.newest
        );
        records.push(Record::Life(self.life.0));
        records.push(Record::Vote { term: self.term, voted_for: self.voted_for });
        // While the log does not know the snapshot's end yet, its own base serves: more records, the same replica.
        let Covered { last, members } = self
            .compaction
            .saved
            .clone()
            .unwrap_or_else(|| Covered { last: base, members: self.log.members_at(base.index).clone() });
        if last.index > Index::ZERO {
            records.push(Record::SnapshotBase { last, members });
        }
        let mut at = last.index;
        while let Some(entry) = self.log.entry(at.next()) {
            at = at.next();
            records.push(Record::Entry { at, entry: entry.clone() });
        }
    }
}
