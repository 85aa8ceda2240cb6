//! Snapshots: letting go of casts, and catching up where they are gone.
//!
//! A snapshot holds a state after some deliveries, which a vector names. Another replica may take it over in one of two ways:
//!
//! - **As it is**, when the snapshot holds everything that this replica's log does not: then whatever the snapshot lacks is in the log,
//!   and is delivered once more on top of it. Nothing that was ever acknowledged is lost, and in the end nothing went back.
//! - **Merged**, when either side has forgotten what the other lacks, as after a partition in which both went on for long. The machine
//!   makes one state of two, saves it as a snapshot, and that one is then taken over as it is. Meanwhile this replica goes on.
//!
//! A snapshot file is named after its position. Two different states may have the same position, so a foreign one is taken over only when it lies
//! behind every own one.

use synod_core::{Index, NodeId, Output, SnapshotRef};

use super::log::Past;
use super::wire::CLOCK_ACCEPTED_MAX;
use super::{Causal, Message, Mutant, Record};

/// So many times the resending interval may a snapshot be on its way before another is sent.
const SNAPSHOT_PATIENCE: u32 = 20;

/// The snapshots of this replica.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// What the newest saved one holds.
    saved: Option<Past>,
    /// What the one holds that is being written.
    freezing: Option<Past>,
    /// What the one will hold that is being made of two.
    merging: Option<Past>,
}

impl Compaction {
    pub(super) fn new(saved: Option<Past>) -> Compaction {
        Compaction { saved, ..Compaction::default() }
    }

    /// The position of the newest saved snapshot.
    pub(super) fn saved_at(&self) -> Index {
        self.saved.as_ref().map_or(Index::ZERO, Past::at)
    }

    /// A foreign snapshot may be taken over only behind this position.
    fn newest_at(&self) -> Index {
        self.freezing.as_ref().map_or(Index::ZERO, Past::at).max(self.saved_at())
    }
}

impl Causal {
    /// A snapshot of the state after `at` is being written.
    pub(super) fn freezing(&mut self, at: Index) {
        let known = at >= self.log.base().at() && at <= self.delivered.at();
        self.compaction.freezing = known.then(|| self.log.past_at(at));
        // One is written at a time: if one was to be made of two, that came to nothing.
        self.compaction.merging = None;
    }

    /// A snapshot is saved: an own one, or one that was made of two.
    pub(super) fn snapshot_saved(&mut self, snapshot: SnapshotRef, out: &mut Output<Self>) {
        if let Some(merged) = self.compaction.merging.take_if(|past| past.at() == snapshot.at) {
            self.take_over(merged, snapshot, out);
        } else if let Some(frozen) = self.compaction.freezing.take_if(|past| past.at() == snapshot.at) {
            self.compaction.saved = Some(frozen);
        }
    }

    /// The records that stand for this replica above its newest snapshot, and for what others may still need.
    pub(super) fn write_checkpoint(&self, records: &mut Vec<Record>) {
        let Past { vector, clock, members } = self.log.base().clone();
        records.push(Record::Base { vector, clock, members });
        records.extend(self.log.entries().map(|entry| Record::Cast(entry.cast.clone())));
    }

    /// A peer lacks what is not kept any more.
    pub(super) fn offer_snapshot(&mut self, to: NodeId, out: &mut Output<Self>) {
        let (now, patience) = (self.now, self.options.resend * SNAPSHOT_PATIENCE);
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if peer.snapshot.as_ref().is_some_and(|(since, _)| now.since(*since) < patience) {
            return;
        }
        let fits = |saved: &&Past| {
            let holds_all = saved.vector.dominates(&peer.forgot) && saved.at().0 > peer.saved;
            // If not even the present state holds what the peer has forgotten, the peer has to merge.
            let must_merge = !self.delivered.vector.dominates(&peer.forgot);
            !peer.known.dominates(&saved.vector) && (holds_all || must_merge)
        };
        let Some(saved) = self.compaction.saved.as_ref().filter(fits) else {
            // A fresh one will hold what the peer has told meanwhile.
            return out.want_snapshot();
        };
        if saved.at().0 == peer.saved {
            // Two states at one position: one of the two moves on, by a cast that says nothing, and takes a snapshot there.
            if self.id < to && self.standing().is_ok() && saved.at() == self.log.last() {
                self.cast(super::Body::Batch(synod_core::empty_batch()), out);
            }
            return out.want_snapshot();
        }
        let Past { vector, clock, members } = saved.clone();
        peer.snapshot = Some((now, vector.clone()));
        out.send_snapshot(to, Message::State { vector, clock, members });
    }

    /// The transfer of a snapshot was given up: the peer gets another when it speaks again.
    pub(super) fn snapshot_failed(&mut self, peer: NodeId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.snapshot = None;
        }
    }

    /// Another replica's state is here, whole and verified.
    pub(super) fn on_state(
        &mut self,
        from: NodeId,
        message: Message,
        snapshot: SnapshotRef,
        out: &mut Output<Self>,
    ) {
        let Message::State { vector, clock, members } = message else { return };
        let past = Past { vector, clock, members };
        let known = &self.delivered.members;
        let welcome = known.is_empty() || known.contains(from);
        let sound = past.at() == snapshot.at && clock <= CLOCK_ACCEPTED_MAX;
        if self.adopting.is_some() || !welcome || !sound || self.log.accepted().dominates(&past.vector) {
            return;
        }
        if self.compaction.merging.is_some() {
            // One at a time. Should that one have failed, the next snapshot shows it.
            return out.want_snapshot();
        }
        let holds_base = past.vector.dominates(&self.log.base().vector);
        if holds_base || self.has(Mutant::OverwritesInsteadOfMerging) {
            if past.at() > self.compaction.newest_at() {
                self.take_over(past, snapshot, out);
            }
            return;
        }
        let mut both = self.delivered.clone();
        both.vector.join(&past.vector);
        both.clock = both.clock.max(past.clock);
        both.members.join(&past.members);
        out.merge(both.at(), snapshot);
        self.compaction.merging = Some(both);
    }

    /// Becomes a snapshot's state, and goes on with whatever the snapshot lacks.
    fn take_over(&mut self, past: Past, snapshot: SnapshotRef, out: &mut Output<Self>) {
        // The checkpoint takes this record's place; what it is worth is its number, by which the disk tells that the checkpoint is there.
        let lsn = out.record(Record::Base {
            vector: past.vector.clone(),
            clock: past.clock,
            members: past.members.clone(),
        });
        out.adopt(snapshot.clone());
        self.adopting = Some((snapshot, lsn));
        self.clock.observe(past.clock);
        self.log.rebase(past.clone());
        if self.has(Mutant::SnapshotForgetsOwn) {
            self.log = super::Log::new(past.clone());
        }
        self.delivered = past.clone();
        let oldest = self.log.entries().map(|entry| entry.cast.clock).min();
        self.again = oldest.map(|clock| (self.log.last(), clock.saturating_sub(1)));
        self.compaction = Compaction::new(Some(past));
        self.sent = self.log.last();
        let (base, now) = (self.log.base().at(), self.now);
        for (id, peer) in &mut self.peers {
            peer.renumber(base, now);
            let delivered = self.delivered.vector.get(*id);
            if let Some((_, clock)) = peer.promise.take_if(|(own, _)| delivered >= *own) {
                peer.floor = peer.floor.max(clock);
            }
        }
        self.accept_waiting(out);
    }
}

/// The state behind what the disk held: its vector is the log's at the snapshot's position.
pub(super) fn saved(log: &super::Log, snapshot: Option<&SnapshotRef>) -> Option<Past> {
    snapshot.map(|snapshot| log.past_at(snapshot.at))
}
