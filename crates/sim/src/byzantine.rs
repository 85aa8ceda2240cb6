//! Replicas that lie.
//!
//! A liar runs the protocol honestly inside, and bends what it says: it equivocates (tells one peer this and another that), stays
//! mute, replays what it said before, says one peer's message to another, or says nothing wrong at all for a while, which is
//! the hardest to tolerate. Who speaks is proven by the transport, so a liar cannot speak in another's name; what a protocol signs
//! inside its messages is the protocol's own business, and [`Family::bend`](crate::family::Family::bend) knows how to forge it badly.

use synod_core::{NodeId, Rng};
use synod_replica::Packet;

use crate::family::Family;
use crate::world::World;

/// So many of a liar's messages are remembered for replays.
const MEMORY_MAX: usize = 64;

/// What a liar remembers.
pub struct Memory<M> {
    said: Vec<(NodeId, Packet<M>)>,
}

impl<M> Default for Memory<M> {
    fn default() -> Self {
        Memory { said: Vec::new() }
    }
}

impl<M: Clone> Memory<M> {
    /// What a liar says instead of `packet`.
    pub fn twist(
        &mut self,
        to: NodeId,
        packet: Packet<M>,
        rng: &mut Rng,
        bend: impl FnOnce(&M, NodeId, &mut Rng) -> Option<M>,
    ) -> Vec<(NodeId, Packet<M>)> {
        if self.said.len() < MEMORY_MAX {
            self.said.push((to, packet.clone()));
        } else {
            let place = rng.below(MEMORY_MAX as u64) as usize;
            self.said[place] = (to, packet.clone());
        }
        match rng.below(10) {
            0 => Vec::new(),
            1 => {
                // An old message again, and the true one.
                let (_, old) = self.said[rng.below(self.said.len() as u64) as usize].clone();
                vec![(to, old), (to, packet)]
            }
            2 => {
                // Somebody else's message.
                let (_, other) = self.said[rng.below(self.said.len() as u64) as usize].clone();
                vec![(to, other)]
            }
            3..7 => {
                let bent = match &packet {
                    Packet::Protocol(message) => bend(message, to, rng).map(Packet::Protocol),
                    _ => None,
                };
                vec![(to, bent.unwrap_or(packet))]
            }
            _ => vec![(to, packet)],
        }
    }
}

impl<F: Family> World<F> {
    /// Sends what a liar makes of a packet.
    pub(crate) fn send_lies(
        &mut self,
        from: NodeId,
        to: NodeId,
        packet: Packet<<F::Protocol as synod_core::Protocol>::Message>,
    ) {
        let memory = self.memories.entry(from).or_default();
        for (to, packet) in memory.twist(to, packet, &mut self.byzantine_rng, F::bend) {
            self.post(from, to, packet);
        }
    }
}
