//! The backup's work: it does as the primary did, confirms what its disk holds, and makes its log the primary's.
//!
//! Repair (PacificA 2.2.2, "reconciliation") goes back to the last place where both logs hold an entry of the same view, and
//! replaces what follows. What was decided is never replaced under synchronous replication: every primary has it. After a
//! takeover that lost decided writes it may be: whoever applied them cannot take them back one by one, and becomes the
//! primary's state instead, by its snapshot.

use std::sync::Arc;

use synod_core::{Index, NodeId, Output, SnapshotRef, Time};

use super::message::{Body, Entry, Message, NUMBER_MAX, Position, Record, View, ViewNumber};
use super::{Mutant, PrimaryBackup};

/// So many entries of a message are taken although there is no room: a new view decides nothing before all of it is here, so one at a
/// time would keep everybody waiting for as many rounds.
const CROWDED_ENTRIES: u64 = 16;

impl PrimaryBackup {
    /// Whether the sender is the primary of the view that this replica knows; then it is alive.
    fn follow(&mut self, from: NodeId, view: ViewNumber, out: &mut Output<Self>) -> bool {
        if !self.is_of_this_view(from, view, out) || self.view.primary != Some(from) {
            return false;
        }
        self.leader = Some(from);
        self.heard = Some(self.now);
        self.wait_for_primary();
        true
    }

    pub(super) fn on_replicate(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        mut previous: Position,
        mut entries: Vec<Entry>,
        decided: Index,
        out: &mut Output<Self>,
    ) {
        if !is_well_formed(view, previous, &entries) {
            return;
        }
        if !self.follow(from, view, out) {
            if view < self.view.number && self.has(Mutant::AcksOldViews) {
                let matched = Index(previous.index.0 + entries.len() as u64);
                out.send(from, Message::Replicated { view, matched });
            }
            return;
        }
        if self.log.bytes() / 2 >= self.options.backlog_bytes_max {
            // The rest will come again, when there is room: but a few more must do, or nothing would ever be decided.
            let end = decided.max(Index(self.log.last().index.0 + CROWDED_ENTRIES));
            entries.truncate(usize::try_from(end.0.saturating_sub(previous.index.0)).unwrap_or(usize::MAX));
        }
        let (end, base) = (Index(previous.index.0 + entries.len() as u64), self.log.base());
        if previous.index < base.index {
            let skipped = usize::try_from(base.index.0 - previous.index.0).unwrap_or(usize::MAX);
            match entries.get(skipped - 1) {
                Some(entry) if entry.view == base.view => {
                    entries.drain(..skipped);
                    previous = base;
                }
                Some(_) => return self.stray(from, base.index, out),
                None if end <= self.verified => {
                    self.owes_replicated = true;
                    return self.decide_up_to(decided);
                }
                None => return self.reject(from, previous.index, base, out),
            }
        }
        if self.log.view_at(previous.index) != Some(previous.view) {
            let hint = self.log.last_of_view(previous.index, previous.view);
            return self.reject(from, previous.index, hint, out);
        }
        for (index, entry) in (previous.index.0 + 1..).map(Index).zip(entries) {
            match self.log.view_at(index) {
                Some(view) if view == entry.view => continue,
                Some(_) if index <= self.delivered && !self.has(Mutant::KeepsLostWrites) => {
                    return self.stray(from, index, out);
                }
                Some(_) => self.cut(index),
                None => {}
            }
            let at = self.append(entry, out);
            assert_eq!(at, index, "entries are appended without gaps");
        }
        // Never backwards: an old message may come late.
        self.verified = self.verified.max(end);
        self.owes_replicated = true;
        self.decide_up_to(decided);
    }

    /// What follows is not the primary's.
    fn cut(&mut self, from: Index) {
        self.log.truncate(from);
        self.disk.truncated(from);
        self.verified = self.verified.min(from.previous());
    }

    fn reject(&self, to: NodeId, probe: Index, hint: Position, out: &mut Output<Self>) {
        // That something is not here promises nothing.
        out.send_early(
            to,
            Message::Rejected { view: self.view.number, probe, hint, delivered: self.delivered },
        );
    }

    /// What this replica has applied at `index` is not what the primary has there.
    fn stray(&mut self, primary: NodeId, index: Index, out: &mut Output<Self>) {
        if self.may_stray() {
            self.strays_at = Some(self.strays_at.map_or(index, |known| known.min(index)));
            let (view, delivered) = (self.view.number, self.delivered);
            // A wish promises nothing.
            out.send_early(primary, Message::Diverged { view, delivered });
        }
        // Else: a primary that contradicts what is decided is none.
    }

    /// Tells the primary how far its entries have come, once for all of them.
    pub(super) fn answer_replicate(&mut self, out: &mut Output<Self>) {
        if !std::mem::take(&mut self.owes_replicated) {
            return;
        }
        if let Some(primary) = self.view.primary.filter(|primary| *primary != self.id) {
            let replicated = Message::Replicated { view: self.view.number, matched: self.verified };
            if self.has(Mutant::AckBeforeDisk) {
                return out.send_early(primary, replicated);
            }
            // Waits for the disk: the primary will count on it.
            out.send(primary, replicated);
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: NodeId,
        view: Arc<View>,
        decided: Index,
        round: u64,
        sent: Time,
        out: &mut Output<Self>,
    ) {
        let number = view.number;
        if view.primary == Some(from) {
            self.learn(view, out);
        }
        if !self.follow(from, number, out) {
            return;
        }
        self.decide_up_to(decided);
        if self.lacks_snapshot() {
            let reach = Message::NeedSnapshot { view: number, from: self.log.base().index };
            // A wish promises nothing.
            out.send_early(from, reach);
        }
        // What is on disk in this view counts as an answer to the entries, should that have been lost.
        let durable = match self.disk.holds(self.view_lsn) {
            true => self.verified.min(self.disk.durable_index()),
            false => Index::ZERO,
        };
        let (received, promised) = (self.verified, self.register.promised);
        let rival = (promised.round > 0 && promised.node != from).then_some(promised);
        // Early: it says what was true when the heartbeat came, and what this replica promises from now on it would not
        // have promised within its lease, which it keeps across a crash by waiting.
        out.send_early(from, Message::HeartbeatAck { view: number, round, sent, rival, received, durable });
    }

    pub(super) fn on_decided(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        decided: Index,
        out: &mut Output<Self>,
    ) {
        if self.follow(from, view, out) {
            self.decide_up_to(decided);
        }
    }

    /// The primary has decided up to `decided`; this replica has what it knows to be the same log.
    fn decide_up_to(&mut self, decided: Index) {
        debug_assert!(self.verified <= self.log.last().index, "what is not here cannot be verified");
        self.decided = self.decided.max(decided.min(self.verified));
    }

    /// The primary's snapshot is here, whole and verified.
    pub(super) fn on_installed(
        &mut self,
        from: NodeId,
        message: &Message,
        snapshot: SnapshotRef,
        out: &mut Output<Self>,
    ) {
        let Message::InstallSnapshot { view, last } = *message else { return };
        let sound = snapshot.at == last.index && last.view <= view && last.index.0 <= NUMBER_MAX;
        if !sound || !self.follow(from, view, out) {
            return;
        }
        self.owes_replicated = true;
        let agrees = self.log.view_at(last.index) == Some(last.view);
        // Its history is not known to be the primary's: whatever the primary sends is, and so it may go back.
        let strays = self.may_stray() && self.verified < self.delivered;
        if strays {
            if last.index <= self.delivered {
                return; // Positions never go back.
            }
        } else {
            let needed = if self.lacks_snapshot() { self.log.base().index } else { self.decided.next() };
            if last.index < needed || last.index <= self.decided && !agrees {
                return; // The log has it all, or knows better.
            }
        }
        if !agrees {
            self.disk.replaced();
        }
        self.log.rebase(last);
        out.record(Record::Base(last));
        if strays {
            let common = self.strays_at.take().map_or(self.delivered, Index::previous);
            let lost = self.delivered.0.saturating_sub(common.0);
            if lost > 0 {
                self.lost += lost;
                out.note(format!(
                    "a failover lost {lost} decided entries that were applied here, {common:?} and before stay: the state is \
                     the primary's of {view:?} from now on"
                ));
            }
            (self.decided, self.verified) = (last.index, last.index);
        } else {
            self.decided = self.decided.max(last.index);
            self.verified = self.verified.min(self.log.last().index).max(self.decided);
        }
        // After a restart the state may be ahead of the log: then only the log needed it.
        if last.index > self.delivered {
            self.delivered = last.index;
            self.snapshot_installed(last);
            if strays { out.replace(snapshot) } else { out.restore(snapshot) }
        }
    }
}

/// Whether this can be what a primary sent: its views ascend, and no number is out of bounds.
fn is_well_formed(view: ViewNumber, previous: Position, entries: &[Entry]) -> bool {
    let mut last = previous.view;
    let ascending = entries.iter().all(|entry| {
        let fits = entry.view >= last && entry.view <= view;
        last = entry.view;
        fits
    });
    let sound = entries.iter().all(|entry| match &entry.body {
        Body::Begin(members) => members.is_sound() && !members.voters.is_empty(),
        Body::Batch(_) => true,
    });
    let bounded = previous.index.0 <= NUMBER_MAX && entries.len() as u64 <= NUMBER_MAX;
    ascending && sound && bounded && previous.view <= view
}
