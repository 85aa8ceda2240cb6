//! Compaction of slots: snapshots, and what memory keeps.
//!
//! The state machine and its snapshots belong to the replica around this protocol. Paxos remembers of the newest saved one
//! in which slot it ends, and the configurations from there on; sends it to replicas that need what is not kept any
//! more; and begins its slots after one that it is sent.
//!
//! Values stay in memory after they were delivered, for replicas that lag, up to `log_bytes_max`. While a snapshot is being
//! written, what follows it stays, because the next checkpoint needs it; while one is on its way to a replica, what
//! follows it stays up to four times as much.
//!
//! An acceptor that has dropped a slot remembers nothing of it, and so never promises or accepts anything there again. That
//! is sound because it dropped only what was decided.

use synod_core::{Index, NodeId, Output, SnapshotRef, Time};

use super::membership::Settings;
use super::message::{Configurations, Message, NUMBER_MAX, Record};
use super::{Mutant, Paxos};

/// What needs to be known of a snapshot.
#[derive(Clone)]
pub(super) struct Covered {
    /// The last slot that it covers.
    at: Index,
    /// The configurations from there on.
    configurations: Configurations,
}

/// The snapshots of this replica.
#[derive(Default)]
pub(super) struct Compaction {
    /// The newest that is saved ends here.
    newest: Index,
    /// What is known of that one; nothing while this replica has not learned as much.
    saved: Option<Covered>,
    /// The one that is being written.
    freezing: Option<Covered>,
    /// A fresh one was asked for then, and has not come.
    wanted: Option<Time>,
    /// Set while the checkpoint that belongs to the newest has not been taken: it needs all that follows.
    checkpoint_due: bool,
    /// A replica was sent one: until then, what follows it stays.
    awaited_until: Time,
}

impl Compaction {
    /// A replica whose newest snapshot ends at `newest`.
    pub(super) fn new(newest: Index) -> Compaction {
        Compaction { newest, ..Compaction::default() }
    }

    /// Where the newest saved snapshot ends.
    pub(super) fn newest(&self) -> Index {
        self.newest
    }
}

impl Paxos {
    /// A snapshot of the state after `at` is being written.
    pub(super) fn freezing(&mut self, at: Index) {
        if let Some(covered) = self.covered(at) {
            self.compaction.freezing = Some(covered);
        }
    }

    /// A snapshot of our own is saved.
    pub(super) fn snapshot_saved(&mut self, snapshot: &SnapshotRef) {
        self.compaction.wanted = None;
        let frozen = self.compaction.freezing.take_if(|frozen| frozen.at <= snapshot.at);
        if snapshot.at > self.compaction.newest {
            self.compaction.newest = snapshot.at;
            self.compaction.checkpoint_due = true;
            self.compaction.saved = frozen.filter(|frozen| frozen.at == snapshot.at);
            self.settle_snapshot();
        }
    }

    /// Finds out what the newest snapshot covers, once as much is known.
    pub(super) fn settle_snapshot(&mut self) {
        if self.compaction.saved.is_none() && self.compaction.newest > Index::ZERO {
            self.compaction.saved = self.covered(self.compaction.newest);
        }
    }

    fn covered(&self, at: Index) -> Option<Covered> {
        let mut configurations = self.settings.as_of(at).filter(|_| at <= self.decided)?;
        if self.has(Mutant::SnapshotForgetsPending) {
            configurations.drain(..configurations.len() - 1);
        }
        Some(Covered { at, configurations })
    }

    /// Sends the newest snapshot to a replica that needs what is not kept; asks for a newer one when it would not reach
    /// that far.
    pub(super) fn send_snapshot(&mut self, to: NodeId, out: &mut Output<Self>) {
        let (now, patience) = (self.now, self.options.patience * 10);
        match &self.compaction.saved {
            Some(Covered { at, configurations }) if *at >= self.slots.base() => {
                self.compaction.awaited_until = now + patience;
                // While a transfer to it is under way, a second one is dropped.
                out.send_snapshot(
                    to,
                    Message::InstallSnapshot { at: *at, configurations: configurations.clone() },
                );
            }
            _ if self.compaction.wanted.is_none_or(|since| now.since(since) >= patience) => {
                self.compaction.wanted = Some(now);
                out.want_snapshot();
            }
            _ => {}
        }
    }

    /// Another replica's snapshot is here, whole and verified.
    pub(super) fn on_installed(&mut self, message: Message, snapshot: SnapshotRef, out: &mut Output<Self>) {
        let Message::InstallSnapshot { at, configurations } = message else { return };
        let Some(settings) = Settings::restored(at, &configurations) else { return };
        if snapshot.at != at
            || at.0 > NUMBER_MAX
            || at <= self.decided
            || configurations[0].1.voters.is_empty()
        {
            return;
        }
        // What became of our own proposals in the slots that it covers is not known: they must not go elsewhere.
        self.give_up_through(at);
        self.slots.drop_through(at);
        if at >= self.settings.start() {
            self.settings = settings;
        }
        self.decided = at;
        self.advance();
        out.record(self.base_record(at));
        self.compaction.freezing.take_if(|frozen| frozen.at <= at);
        // After a restart the state may be ahead of what was known of the slots: then only they needed it.
        if at > self.delivered {
            self.delivered = at;
            self.compaction.newest = at;
            self.compaction.checkpoint_due = true;
            self.compaction.saved = None;
            self.settle_snapshot();
            out.restore(snapshot);
        }
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
        let mut end = self.slots.surplus(budget, limit);
        if self.now < self.compaction.awaited_until {
            let far = self.slots.surplus(budget.saturating_mul(4), limit);
            end = end.min(self.compaction.newest.max(far));
        }
        self.slots.drop_through(end);
        self.settings.drop_through(self.slots.base());
    }

    /// Slots up to `at` are covered by a snapshot.
    fn base_record(&self, at: Index) -> Record {
        let start = self.settings.start();
        let floor = at.max(self.floor()).max(start);
        let known = self.settings.as_of(floor.min(self.decided.max(start)));
        let configurations = known.expect("what is decided is known from the start of the list on");
        Record::Base { at, floor, configurations }
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
        // While it is not known what the snapshot covers, our own base serves: more records, the same replica.
        let at = self.compaction.saved.as_ref().map_or(base, |saved| saved.at);
        records.push(self.base_record(at));
        for (slot, held) in self.slots.after(at) {
            if let Some(value) = &held.chosen {
                records.push(Record::Learned { slot, value: value.clone() });
                continue;
            }
            if let Some(accepted) = &held.accepted {
                let (ballot, value) = (accepted.ballot, accepted.value.clone());
                records.push(Record::Accepted { slot, ballot, value });
            }
            if held.accepted.as_ref().is_none_or(|accepted| accepted.ballot < held.promised) {
                records.push(Record::Promised { slot, ballot: held.promised });
            }
        }
    }
}
