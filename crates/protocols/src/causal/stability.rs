//! What can still come: how memory is bounded.
//!
//! *Have* says two things about its sender: which casts it holds on its disk, and, because a cast's clock is later than everything that its
//! origin had accepted, a clock which all its further casts exceed. The least of these over all members is the *floor*:
//! whatever is still to be delivered here is later. The machine needs no memory of who wrote what at or below it.
//!
//! The promise holds for what was told: a sender's floor counts only once everything of its own that it had cast by then is delivered
//! here. A crash does not break it, as only what is on the disk was told. A member that was just added promises nothing, but it
//! has delivered the change that added it before it casts, and so begins behind that one's clock. A removed member counts until no
//! cast of it can come any more: until all others have delivered its removal, and everything of it that any of them has is here.

use std::sync::Arc;

use synod_core::{NodeId, Vector};

use super::message::Cast;
use super::{Causal, Mutant};

impl Causal {
    /// Every cast that is still to be delivered here has a greater clock.
    pub(super) fn floor(&self) -> u64 {
        let skips_silent = self.has(Mutant::FloorIgnoresTheSilent);
        let others = self.delivered.members.added.iter().filter(|id| **id != self.id);
        let others = others.filter(|id| !self.is_closed(**id)).filter_map(|id| match self.peers.get(id) {
            Some(peer) if skips_silent && peer.floor == 0 => None,
            Some(peer) => Some(peer.floor),
            None if skips_silent => None,
            None => Some(0),
        });
        let again = self
            .again
            .filter(|(upto, _)| self.delivered.at() < *upto && !self.has(Mutant::FloorForgetsWhatComesAgain));
        let again = again.map_or(u64::MAX, |(_, below)| below);
        others.min().unwrap_or(u64::MAX).min(self.delivered.clock).min(again)
    }

    /// Whether a member was removed and nothing of it can come any more.
    fn is_closed(&self, member: NodeId) -> bool {
        let members = &self.delivered.members;
        let Some((origin, number)) = members.removed.get(&member) else { return false };
        let mut others = members.iter().filter(|id| *id != self.id);
        others.all(|id| {
            self.peers.get(&id).is_some_and(|peer| {
                peer.known.get(*origin) >= *number
                    && self.delivered.vector.get(member) >= peer.known.get(member)
            })
        })
    }

    /// A member told what it holds, and that it goes on behind this clock.
    pub(super) fn note_promise(&mut self, from: NodeId, told: &Vector, clock: u64) {
        let own = told.get(from);
        let delivered = self.delivered.vector.get(from);
        if let Some(peer) = self.peers.get_mut(&from) {
            if delivered >= own {
                peer.floor = peer.floor.max(clock);
            } else if peer.promise.is_none() {
                // Until the casts that it speaks of are here, another promise does not take its place: it might never be met.
                peer.promise = Some((own, clock));
            }
        }
    }

    /// A cast was delivered: its origin goes on behind it.
    pub(super) fn note_delivered(&mut self, cast: &Arc<Cast>) {
        let delivered = self.delivered.vector.get(cast.origin);
        if let Some(peer) = self.peers.get_mut(&cast.origin) {
            peer.floor = peer.floor.max(cast.last_clock());
            if let Some((_, clock)) = peer.promise.take_if(|(own, _)| delivered >= *own) {
                peer.floor = peer.floor.max(clock);
            }
        }
    }

    /// Lets those casts go that all members have, or that are too many to be kept; never one that a restart would need.
    pub(super) fn forget_what_all_have(&mut self) {
        let saved = self.compaction.saved_at();
        let everybody = self.delivered.members.iter().filter(|id| *id != self.id);
        let peers: Vec<_> = everybody.map(|id| self.peers.get(&id)).collect();
        let stable = peers.iter().map(|peer| peer.map_or(self.log.base().at(), |peer| peer.cursor)).min();
        let stable = stable.unwrap_or(saved);
        loop {
            let first = self.log.base().at().next();
            let too_many = self.log.bytes() > self.options.retain_bytes_max;
            if first > saved || first > self.log.last() || !(first <= stable || too_many) {
                return;
            }
            self.log.forget_first();
        }
    }
}
