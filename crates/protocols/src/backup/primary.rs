//! The primary's work: it orders writes, replicates them, and decides (Alsberg and Day; PacificA 2.1, 2.2.1).
//!
//! Entries go out before they are on the primary's own disk: all disks work at once. Under synchronous replication a write
//! is decided when everybody in the view has it on disk, the primary too, and whoever was proposed for the next one.
//! Under asynchronous replication the primary's own disk decides, but only while its lease holds.
//!
//! A message that is lost is found by heartbeats: the answer to a heartbeat tells how far the backup has come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use synod_core::quorum;
use synod_core::{Index, Members, NodeId, Output, Time, empty_batch};

use super::message::{Ballot, Body, Entry, Message, Position, Record, Replication, ViewNumber};
use super::succession::Handover;
use super::{Mutant, Part, PrimaryBackup};
use crate::flow::{Flow, Progress};

/// So many empty entries are added at once, at most, for a member to be overtaken.
const FILLERS_MAX: usize = 1000;

/// A member that is further ahead than this, in a history that is gone, is not overtaken: it has to be replaced.
const AHEAD_MAX: u64 = 1 << 20;

/// What only a primary has.
pub(super) struct Leading {
    /// The first view of this uninterrupted primaryship.
    pub(super) reign: ViewNumber,
    /// The entry with which it began: before that is decided, not all that earlier views decided is known to be so.
    pub(super) begins_at: Index,
    /// All other members, learners too.
    pub(super) peers: BTreeMap<NodeId, Backed>,
    /// Outside the view, but proposed for the next: nothing is decided without them any more.
    pub(super) joining: BTreeSet<NodeId>,
    /// What had been decided at the heartbeat before.
    pub(super) decided_before: Index,
    pub(super) heartbeat_due: Time,
    /// The newest round of reads.
    pub(super) round: u64,
    /// Whether a member has promised something to somebody else, and confirms nothing before the next view.
    pub(super) contested: bool,
    /// The members that a person asked for.
    pub(super) change: Option<Arc<Members>>,
    pub(super) handover: Option<Handover>,
}

/// What a primary knows of one other member.
pub(super) struct Backed {
    pub(super) progress: Progress,
    /// When it had everything, or got further, last.
    moved: Time,
    /// It has applied what this primary's history lacks, and waits for a snapshot that reaches at least to here.
    strays: Option<Index>,
}

impl Leading {
    pub(super) fn new(reign: ViewNumber, now: Time) -> Leading {
        Leading {
            reign,
            begins_at: Index::ZERO,
            peers: BTreeMap::new(),
            joining: BTreeSet::new(),
            decided_before: Index::ZERO,
            heartbeat_due: now,
            round: 0,
            contested: false,
            change: None,
            handover: None,
        }
    }

    /// Another view of the same primary: what was asked for has happened, or is asked for anew.
    pub(super) fn go_on(&mut self) {
        self.joining.clear();
        (self.contested, self.change, self.handover) = (false, None, None);
        for peer in self.peers.values_mut() {
            // A lease and a round of reads are of one view.
            (peer.progress.confirmed, peer.progress.round) = (None, 0);
        }
    }
}

impl Backed {
    fn new(next: Index, now: Time) -> Backed {
        Backed { progress: Progress::new(next, now), moved: now, strays: None }
    }

    /// Whether nobody has to wait for it in vain.
    pub(super) fn is_lively(&self, now: Time, patience: Duration) -> bool {
        now.since(self.moved) < patience && now.since(self.progress.heard) < patience
    }

    /// It has applied up to `delivered` what this primary's history lacks.
    fn stray(&mut self, delivered: Index) {
        self.progress.matched = Index::ZERO;
        self.strays = Some(delivered.next());
        self.progress.probe(Index(1));
    }

    fn matches(&mut self, matched: Index, first: Index, last: Index, now: Time) {
        if matched > self.progress.matched || matched == last {
            self.moved = now;
        }
        self.progress.matches(matched, first);
    }
}

impl PrimaryBackup {
    /// Puts an entry of the primary's own view at the end of its log.
    pub(super) fn append_own(&mut self, body: Body, out: &mut Output<Self>) -> Index {
        self.append(Entry { view: self.view.number, body }, out)
    }

    pub(super) fn append(&mut self, entry: Entry, out: &mut Output<Self>) -> Index {
        let at = self.log.append(entry.clone());
        out.record(Record::Entry { at, entry });
        at
    }

    /// Whether so much waits to be decided that a primary takes no more.
    pub(super) fn is_busy(&self) -> bool {
        self.log.bytes() >= self.options.backlog_bytes_max
    }

    /// Gets to know who there is to be served.
    pub(super) fn meet_members(&mut self) {
        let Part::Primary(leading) = &mut self.part else { return };
        let (members, id, now) = (&self.view.members, self.id, self.now);
        let next = self.log.last().index.next();
        leading.peers.retain(|node, _| members.contains(*node));
        for node in members.all().filter(|node| *node != id) {
            leading.peers.entry(node).or_insert_with(|| Backed::new(next, now));
        }
        leading.heartbeat_due = now;
    }

    /// Whether what belongs to this view may be said already: that it began must not be forgotten.
    fn may_speak(&self) -> bool {
        self.disk.holds(self.view_lsn) || self.has(Mutant::ViewBeforeDisk)
    }

    /// Sends every member what it lacks and may be sent.
    pub(super) fn replicate(&mut self, out: &mut Output<Self>) {
        let may_speak = self.may_speak();
        let Part::Primary(leading) = &mut self.part else { return };
        let view = self.view.number;
        let mut snapshots = Vec::new();
        for (&id, peer) in &mut leading.peers {
            let progress = &mut peer.progress;
            while progress.may_send(self.options.inflight_max) {
                if peer.strays.is_some() || progress.next < self.log.first() {
                    snapshots.push(id);
                    break;
                }
                let index = progress.next.previous();
                let made_in = self.log.view_at(index).expect("a peer is never sent more than there is");
                let entries = self.log.entries_from(progress.next, self.options.replicate_bytes_max);
                if entries.is_empty() && progress.flow == Flow::Replicate {
                    break;
                }
                progress.sent(Index(index.0 + entries.len() as u64), self.now);
                progress.told = self.decided;
                let previous = Position { index, view: made_in };
                // Early: the primary's own disk works at the same time, and is counted only when it is done.
                let message = Message::Replicate { view, previous, entries, decided: self.decided };
                if may_speak { out.send_early(id, message) } else { out.send(id, message) }
            }
            if progress.flow == Flow::Replicate && progress.told < self.decided {
                progress.told = self.decided;
                // What is decided stays so, or is lost with all that knew it; and the next entries say it as well.
                let message = Message::Decided { view, decided: self.decided };
                if may_speak { out.send_at_leisure(id, message) } else { out.send(id, message) }
            }
        }
        for id in snapshots {
            let Part::Primary(leading) = &mut self.part else { return };
            let Some(peer) = leading.peers.get_mut(&id) else { continue };
            let (base, now) = (self.log.base().index, self.now);
            let needed = peer.strays.map_or(base, |reach| reach.max(base));
            self.compaction.send(id, &mut peer.progress, view, needed, now, out);
            peer.strays.take_if(|_| matches!(peer.progress.flow, Flow::Snapshot { .. }));
        }
    }

    /// Decides what may be decided.
    pub(super) fn decide(&mut self) {
        let Part::Primary(leading) = &self.part else { return };
        let early = self.has(Mutant::CountsItselfEarly);
        let own = if early { self.log.last().index } else { self.disk.durable_index() };
        let held = |node: NodeId| leading.peers.get(&node).map_or(Index::ZERO, |peer| peer.progress.matched);
        let reached = match self.view.replication {
            Replication::Sync if self.has(Mutant::AckBeforeBackup) => own,
            Replication::Sync => {
                let others = self.view.backups.iter().chain(&leading.joining);
                others.map(|node| held(*node)).min().map_or(own, |others| others.min(own))
            }
            // The old primary must never answer once another has taken over.
            Replication::Async if self.has_lease() || self.has(Mutant::NoFencing) => own,
            Replication::Async => return,
        };
        if reached > self.decided {
            assert!(reached <= self.log.last().index, "nobody holds more than the primary");
            self.decided = reached;
        }
    }

    /// Whether nobody else can be primary at this moment, if clocks keep their bound.
    pub(super) fn has_lease(&self) -> bool {
        let Part::Primary(leading) = &self.part else { return false };
        let confirmed = |node| match leading.peers.get(&node) {
            Some(peer) => peer.progress.confirmed,
            None => Some(self.now),
        };
        let quorum = quorum::majority_reached(&self.view.members.voters, confirmed).flatten();
        let by_old_clock = self.has(Mutant::LeaseByOldClock);
        let now = if by_old_clock { leading.heartbeat_due - self.options.heartbeat } else { self.now };
        quorum.is_some_and(|confirmed| now.since(confirmed) < self.options.lease())
    }

    /// A primary's heartbeat is due: time to look around.
    pub(super) fn primary_timeout(&mut self, out: &mut Output<Self>) {
        let Part::Primary(leading) = &mut self.part else { return };
        if self.now < leading.heartbeat_due {
            return;
        }
        leading.heartbeat_due = self.now + self.options.heartbeat;
        let last = self.log.last().index;
        for peer in leading.peers.values_mut().filter(|peer| peer.progress.matched == last) {
            peer.moved = self.now;
        }
        if !self.majority_is_near() || self.disk.is_stuck(self.now, self.options.disk_stuck_after) {
            return self.resign();
        }
        self.resend_snapshots();
        self.improve_view(out);
        if let Part::Primary(leading) = &mut self.part {
            leading.decided_before = self.decided;
        }
        self.send_heartbeats(out);
    }

    /// Whether a majority of the voters was heard of lately.
    fn majority_is_near(&self) -> bool {
        let Part::Primary(leading) = &self.part else { return false };
        let heard = |node| leading.peers.get(&node).map_or(self.now, |peer| peer.progress.heard);
        let heard = quorum::majority_reached(&self.view.members.voters, heard);
        heard.is_some_and(|heard| self.now.since(heard) < self.options.election_timeout)
    }

    pub(super) fn send_heartbeats(&mut self, out: &mut Output<Self>) {
        let may_speak = self.may_speak();
        let Part::Primary(leading) = &mut self.part else { return };
        for (&id, peer) in &mut leading.peers {
            peer.progress.told = self.decided;
            let (view, decided, round, sent) = (self.view.clone(), self.decided, leading.round, self.now);
            let heartbeat = Message::Heartbeat { view, decided, round, sent };
            // Early, once that the view began is on disk: the rest is no promise.
            if may_speak { out.send_early(id, heartbeat) } else { out.send(id, heartbeat) }
        }
    }

    /// The member that speaks, if this replica leads in the view that the message speaks of, or has led since.
    pub(super) fn heard_in(&mut self, from: NodeId, view: ViewNumber) -> Option<&mut Backed> {
        let current = self.view.number;
        let Part::Primary(leading) = &mut self.part else { return None };
        let reign = leading.reign;
        let peer = leading.peers.get_mut(&from).filter(|_| (reign..=current).contains(&view))?;
        peer.progress.heard = self.now;
        peer.progress.is_awake = true;
        Some(peer)
    }

    pub(super) fn on_replicated(&mut self, from: NodeId, view: ViewNumber, matched: Index) {
        let (first, last, now) = (self.log.first(), self.log.last().index, self.now);
        // What it confirmed in an earlier view of this reign it still holds: it has followed nobody else since.
        if let Some(peer) = self.heard_in(from, view)
            && matched <= last
        {
            peer.matches(matched, first, last, now);
        }
    }

    pub(super) fn on_rejected(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        probe: Index,
        hint: Position,
        delivered: Index,
    ) {
        let may_stray = self.may_stray();
        let Some(peer) = self.heard_in(from, view) else { return };
        let progress = &peer.progress;
        let stale = match progress.flow {
            Flow::Probe => probe != progress.next.previous(),
            Flow::Replicate => probe >= progress.next,
            Flow::Snapshot { .. } => true,
        };
        if stale {
            return;
        }
        let here = self.log.view_at(hint.index);
        let (base, last) = (self.log.base().index, self.log.last().index);
        let agreed = self.log.last_of_view(hint.index, hint.view).index.min(hint.index).min(probe.previous());
        let Part::Primary(leading) = &mut self.part else { return };
        let Some(peer) = leading.peers.get_mut(&from) else { return };
        if hint.index > probe {
            // Its log begins behind what it was asked about: either there the two agree, or nowhere.
            if here == Some(hint.view) {
                peer.progress.probe(hint.index.next());
            } else if may_stray && (hint.index >= base || hint.index > last) {
                peer.stray(delivered);
            } else {
                peer.progress.probe(Index(1));
            }
            return;
        }
        // A member that lost its disk holds less than it once confirmed, and counts for less.
        peer.progress.matched = peer.progress.matched.min(agreed);
        peer.progress.probe(agreed.next());
    }

    /// A member has applied what this history lacks: it gets this history's state.
    pub(super) fn on_diverged(&mut self, from: NodeId, view: ViewNumber, delivered: Index) {
        if view != self.view.number || !self.may_stray() {
            return;
        }
        if let Some(peer) = self.heard_in(from, view)
            && !matches!(peer.progress.flow, Flow::Snapshot { .. })
        {
            peer.stray(delivered);
        }
    }

    /// Lets the log grow beyond what a member applied of a history that is gone: so a snapshot can take it there, and its
    /// positions need not go back.
    pub(super) fn outgrow_strays(&mut self, out: &mut Output<Self>) {
        let Part::Primary(leading) = &self.part else { return };
        let last = self.log.last().index;
        let in_reach = |reach: &Index| reach.0 <= last.0 + AHEAD_MAX;
        let strays = leading.peers.values().filter_map(|peer| peer.strays);
        let Some(reach) = strays.filter(in_reach).max() else { return };
        for _ in 0..FILLERS_MAX {
            if self.log.last().index >= reach || self.is_busy() {
                break;
            }
            self.append_own(Body::Batch(empty_batch()), out);
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn on_heartbeat_ack(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        round: u64,
        sent: Time,
        rival: Option<Ballot>,
        (received, durable): (Index, Index),
        out: &mut Output<Self>,
    ) {
        let (first, last, now) = (self.log.first(), self.log.last().index, self.now);
        let is_current = view == self.view.number;
        let Some(peer) = self.heard_in(from, view) else { return };
        if durable > peer.progress.matched && durable <= last {
            peer.matches(durable, first, last, now);
        }
        peer.progress.heartbeat_answered(sent, received.min(last));
        if !is_current {
            return;
        }
        match rival {
            None => {
                peer.progress.round = peer.progress.round.max(round);
                peer.progress.confirmed = peer.progress.confirmed.max(Some(sent.min(now)));
            }
            Some(ballot) => {
                // It will confirm nothing before the next view: so there has to be one.
                self.seen_round = self.seen_round.max(ballot.round);
                if let Part::Primary(leading) = &mut self.part {
                    leading.contested = true;
                }
            }
        }
        self.confirm_reads(out);
    }
}
