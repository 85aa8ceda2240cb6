//! Anti-entropy: whatever was lost on the way is said again, until everybody has it.
//!
//! Replicas tell one another what they hold (Have): in rounds while there is news, and seldom without. Whoever holds what
//! another lacks says it again: its own casts first; and those of others when they are overdue, because their origin may be gone, or may
//! not reach that replica. So whatever any two reach of a third one's casts spreads, and a cast is lost only with all
//! who had it. Casts go out in the sender's own order of delivery, in which the receiver can take them.
//!
//! A member that lacks what is not kept any more gets a snapshot (`compaction`).

use std::time::Duration;

use synod_core::{Index, NodeId, Output, Time, Vector};

use super::message::Then;
use super::{Causal, Message, Mutant};
use crate::causal::log::bytes_of;

/// So many rounds of gossip follow the last news, in case some are lost; then every tenth is held.
const ROUNDS_AFTER_NEWS: u32 = 3;

/// Without news only every so many rounds of gossip are held.
const QUIET_ROUNDS: u32 = 10;

/// After so many rounds of silence nothing is sent to a peer eagerly.
const SILENT_ROUNDS: u32 = 30;

/// What is known of another replica.
#[derive(Debug)]
pub(super) struct Peer {
    /// What it holds on its disk, at least.
    pub(super) known: Vector,
    /// What it cannot say again.
    pub(super) forgot: Vector,
    /// How many deliveries its newest snapshot holds.
    pub(super) saved: u64,
    /// It holds the log up to here.
    pub(super) cursor: Index,
    /// Its further casts are later than this.
    pub(super) floor: u64,
    /// The next floor, once so many of its own casts are delivered here.
    pub(super) promise: Option<(u64, u64)>,
    pub(super) heard: Option<Time>,
    /// Since when it is a peer.
    since: Time,
    /// It wants to be told what this replica holds.
    pub(super) tell: bool,
    /// It said what it holds, and may be helped.
    due: bool,
    /// What was said again: up to here, at this time.
    again: (Index, Time),
    /// Since when a snapshot is on its way to it, and what that holds.
    pub(super) snapshot: Option<(Time, Vector)>,
}

impl Peer {
    pub(super) fn new(now: Time) -> Peer {
        Peer {
            known: Vector::default(),
            forgot: Vector::default(),
            saved: 0,
            cursor: Index::ZERO,
            floor: 0,
            promise: None,
            heard: None,
            since: now,
            tell: false,
            due: false,
            again: (Index::ZERO, now),
            snapshot: None,
        }
    }

    /// Whether it was heard of lately, or is new.
    pub(super) fn is_awake(&self, now: Time, gossip: Duration) -> bool {
        now.since(self.heard.unwrap_or(self.since)) < gossip * SILENT_ROUNDS
    }

    /// The log was numbered anew, from this base on.
    pub(super) fn renumber(&mut self, base: Index, now: Time) {
        self.cursor = base;
        self.again = (base, now);
    }
}

impl Causal {
    /// A peer says what it holds.
    pub(super) fn on_have(&mut self, from: NodeId, vector: Vector, clock: u64, forgot: Vector, saved: u64) {
        let members = &self.delivered.members;
        let joining = members.is_empty();
        // A removed member is told that it is; of one that is not known yet the change will come.
        if !joining && !members.added.contains(&from) {
            return;
        }
        let (now, base) = (self.now, self.log.base().at());
        let peer = self.peers.entry(from).or_insert_with(|| Peer::new(now));
        peer.heard = Some(now);
        peer.known.join(&vector);
        peer.forgot.join(&forgot);
        peer.saved = peer.saved.max(saved);
        peer.due = true;
        // Who has joined nothing yet speaks only when it is spoken to.
        peer.tell |= joining;
        peer.cursor = peer.cursor.max(base);
        while let Some(entry) = self.log.get(peer.cursor.next())
            && peer.known.get(entry.cast.origin) >= entry.cast.number
        {
            peer.cursor = peer.cursor.next();
        }
        let known = &peer.known;
        peer.snapshot.take_if(|(_, holds)| known.dominates(holds));
        self.note_promise(from, &vector, clock);
    }

    /// A round of gossip may be due.
    pub(super) fn on_timeout(&mut self, out: &mut Output<Self>) {
        if self.now < self.gossip_due {
            return;
        }
        self.gossip_due = self.now + self.options.gossip;
        // Who has not confirmed what is overdue is told again, whether or not it asks.
        let (now, gossip) = (self.now, self.options.gossip);
        for peer in self.peers.values_mut() {
            peer.due |= peer.is_awake(now, gossip) && peer.heard.is_some();
        }
        let is_news = self.told != self.delivered;
        self.quiet_rounds = if is_news { 0 } else { self.quiet_rounds.saturating_add(1) };
        if self.quiet_rounds >= ROUNDS_AFTER_NEWS && !self.quiet_rounds.is_multiple_of(QUIET_ROUNDS) {
            return;
        }
        self.told = self.delivered.clone();
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        for id in peers {
            self.tell(id, out);
        }
    }

    /// Says what this replica holds.
    fn tell(&mut self, to: NodeId, out: &mut Output<Self>) {
        if self.adopting.is_some() {
            return; // What was taken over is not on the disk yet.
        }
        let mut vector = self.delivered.vector.clone();
        if self.has(Mutant::ConfirmsBeforeDisk) {
            vector = self.log.accepted().clone();
        }
        let forgot = self.log.base().vector.clone();
        let saved = self.compaction.saved_at().0;
        // Early: what is delivered is on the disk already, and nothing else is spoken of.
        out.send_early(to, Message::Have { vector, clock: self.delivered.clock, forgot, saved });
    }

    /// Peers come and go with the members.
    pub(super) fn follow_members(&mut self) {
        let (now, id) = (self.now, self.id);
        let Causal { peers, delivered, .. } = self;
        for member in delivered.members.iter().filter(|member| *member != id) {
            peers.entry(member).or_insert_with(|| Peer::new(now));
        }
        // Who was removed stays until it has heard of it.
        peers.retain(|member, peer| match delivered.members.removed.get(member) {
            Some((origin, number)) => peer.due || peer.tell || peer.known.get(*origin) < *number,
            None => true,
        });
    }

    /// Answers those who want to be told, and helps those who lack something.
    pub(super) fn answer_peers(&mut self, out: &mut Output<Self>) {
        let everything_delivered = self.delivered.at() == self.log.last();
        let waiting = self.peers.iter().filter(|(_, peer)| peer.tell || peer.due).map(|(id, _)| *id);
        for id in waiting.collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let tell = everything_delivered && std::mem::take(&mut peer.tell);
            if std::mem::take(&mut peer.due) {
                self.help(id, out);
            }
            if tell {
                self.tell(id, out);
            }
        }
    }

    /// Says to a peer what it lacks.
    fn help(&mut self, to: NodeId, out: &mut Output<Self>) {
        let (now, resend) = (self.now, self.options.resend);
        let Some(peer) = self.peers.get(&to) else { return };
        if peer.known.dominates(&self.delivered.vector) || self.has(Mutant::NeverSaysAgain) {
            return;
        }
        if !peer.known.dominates(&self.log.base().vector) {
            return self.offer_snapshot(to, out);
        }
        let (mut casts, mut bytes, mut reached) = (Vec::new(), 0, peer.cursor);
        let mut then = Then::Nothing;
        for (at, entry) in self.log.after(peer.cursor) {
            // Only what the disk holds.
            if at > self.delivered.at() {
                break;
            }
            let cast = &entry.cast;
            let fresh = now.since(entry.since) < resend;
            let said = at <= peer.again.0 && now.since(peer.again.1) < resend;
            let others = cast.origin != self.id && self.has(Mutant::NeverPassesOn);
            if peer.known.get(cast.origin) >= cast.number || fresh || said || others {
                continue;
            }
            if bytes >= self.options.cast_bytes_max {
                then = Then::Tell;
                break;
            }
            bytes += bytes_of(cast);
            casts.push(cast.clone());
            reached = at;
        }
        if casts.is_empty() {
            return;
        }
        // Early: these casts were delivered, so they are on the disk.
        out.send_early(to, Message::Cast { casts, then });
        if let Some(peer) = self.peers.get_mut(&to) {
            // What lies behind is said sooner than it had to be, if it was said before: better than to wait for each loss anew.
            peer.again = (reached, now);
        }
    }
}
