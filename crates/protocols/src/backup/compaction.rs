//! Log compaction: snapshots, and what memory keeps.
//!
//! The state machine and its snapshots belong to the replica around this protocol. What is remembered here of the newest
//! saved one is which entry it ends with; it is sent to members that need what is not kept any more, or whose own state
//! belongs to a history that a failover lost.
//!
//! Entries stay in memory after they were delivered, for backups that lag, up to `log_bytes_max`. While a snapshot is being
//! written, what follows it stays, because the next checkpoint needs it; while one is on its way to a member, what follows
//! it stays up to four times as much.

use synod_core::{Index, NodeId, Output, SnapshotRef, Time};

use super::message::{Message, Position, Record, ViewNumber};
use super::{Part, PrimaryBackup};
use crate::flow::{Flow, Progress};

/// The snapshots of this replica.
#[derive(Default)]
pub(super) struct Compaction {
    /// The newest that is saved ends here.
    newest: Index,
    /// The entry there; nothing while the log has not come as far.
    saved: Option<Position>,
    /// The one that is being written.
    freezing: Option<Position>,
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

    /// Sends the newest snapshot to a member that needs what comes before `base`; asks for a newer one when it
    /// would not reach that far.
    pub(super) fn send(
        &mut self,
        to: NodeId,
        peer: &mut Progress,
        view: ViewNumber,
        base: Index,
        now: Time,
        out: &mut Output<PrimaryBackup>,
    ) {
        // A snapshot is dear: none goes to a member that does not answer.
        if !peer.is_awake {
            return;
        }
        match &self.saved {
            Some(last) if last.index >= base => {
                peer.snapshot(now);
                out.send_snapshot(to, Message::InstallSnapshot { view, last: *last });
            }
            _ if !self.wanted => {
                self.wanted = true;
                out.want_snapshot();
            }
            _ => {}
        }
    }
}

impl PrimaryBackup {
    /// A snapshot of the state after `at` is being written.
    pub(super) fn freezing(&mut self, at: Index) {
        if let Some(covered) = self.covered(at) {
            self.compaction.freezing = Some(covered);
        }
    }

    /// A snapshot of our own is saved.
    pub(super) fn snapshot_saved(&mut self, snapshot: &SnapshotRef) {
        self.compaction.wanted = false;
        let frozen = self.compaction.freezing.take_if(|frozen| frozen.index <= snapshot.at);
        if snapshot.at > self.compaction.newest {
            self.compaction.newest = snapshot.at;
            self.compaction.checkpoint_due = true;
            self.compaction.saved = frozen.filter(|frozen| frozen.index == snapshot.at);
            self.settle_snapshot();
        }
    }

    /// A primary's snapshot has become this replica's state.
    pub(super) fn snapshot_installed(&mut self, last: Position) {
        self.compaction.newest = last.index;
        self.compaction.checkpoint_due = true;
        self.compaction.saved = Some(last);
        // What was being written is older, or of a history that is gone.
        self.compaction.freezing = None;
    }

    /// Finds out what the newest snapshot covers, once the log has come as far.
    pub(super) fn settle_snapshot(&mut self) {
        if self.compaction.saved.is_none() && self.compaction.newest > Index::ZERO {
            self.compaction.saved = self.covered(self.compaction.newest);
        }
    }

    fn covered(&self, at: Index) -> Option<Position> {
        let view = self.log.view_at(at).filter(|_| at <= self.decided)?;
        Some(Position { index: at, view })
    }

    /// The transfer of a snapshot was given up.
    pub(super) fn snapshot_failed(&mut self, peer: NodeId) {
        if let Part::Primary(leading) = &mut self.part
            && let Some(peer) = leading.peers.get_mut(&peer)
            && matches!(peer.progress.flow, Flow::Snapshot { .. })
        {
            // Before another is sent, it has to show that it is there.
            peer.progress.is_awake = false;
            let next = peer.progress.matched.next();
            peer.progress.probe(next);
        }
    }

    /// A member may have crashed right behind a transfer: a snapshot without effect is sent again. If the first
    /// is still on its way, the second is dropped.
    pub(super) fn resend_snapshots(&mut self) {
        let (now, patience) = (self.now, self.options.election_timeout * 4);
        // What was asked for and never came is asked for again.
        self.compaction.wanted = false;
        let Part::Primary(leading) = &mut self.part else { return };
        for peer in leading.peers.values_mut() {
            if let Flow::Snapshot { since } = peer.progress.flow
                && now.since(since) >= patience
            {
                let next = peer.progress.matched.next();
                peer.progress.probe(next);
            }
        }
    }

    /// A member whose state is older than its log, because its own snapshot is lost.
    pub(super) fn on_need_snapshot(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        reach: Index,
        out: &mut Output<Self>,
    ) {
        let (current, now) = (self.view.number, self.now);
        if self.heard_in(from, view).is_none() {
            return;
        }
        if let Part::Primary(leading) = &mut self.part
            && let Some(peer) = leading.peers.get_mut(&from)
            && !matches!(peer.progress.flow, Flow::Snapshot { .. })
            && reach <= self.decided
        {
            self.compaction.send(from, &mut peer.progress, current, reach, now, out);
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
        let mut limit = self.delivered.min(self.decided);
        if checkpoint_due {
            limit = limit.min(self.compaction.newest);
        }
        if let Some(frozen) = &self.compaction.freezing {
            limit = limit.min(frozen.index);
        }
        let awaited = self.is_awaited().then_some(self.compaction.newest);
        let mut end = self.log.surplus(budget, limit);
        if let Some(awaited) = awaited {
            let far = self.log.surplus(budget.saturating_mul(4), limit);
            end = end.min(awaited.max(far));
        }
        self.log.drop_through(end);
    }

    /// Whether a member is about to go on from a snapshot.
    fn is_awaited(&self) -> bool {
        let Part::Primary(leading) = &self.part else { return false };
        leading.peers.values().any(|peer| matches!(peer.progress.flow, Flow::Snapshot { .. }))
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
        if self.view.number > ViewNumber(0) {
            records.push(Record::View(self.view.clone()));
        }
        if let Some((ballot, next)) = &self.register.accepted {
            records.push(Record::Accepted { ballot: *ballot, next: next.clone() });
        }
        if self.register.promised.round > 0 {
            records.push(Record::Promised(self.register.promised));
        }
        // While the log does not know the snapshot's end yet, its own base serves: more records, the same replica.
        let last = self.compaction.saved.unwrap_or(base);
        if last.index > Index::ZERO {
            records.push(Record::Base(last));
        }
        let mut at = last.index;
        while let Some(entry) = self.log.entry(at.next()) {
            at = at.next();
            records.push(Record::Entry { at, entry: entry.clone() });
        }
    }
}
