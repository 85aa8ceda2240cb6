//! Replicas that lie.
//!
//! A liar runs the protocol honestly inside, and bends what it says: it equivocates (tells one peer this and another that), stays
//! mute, replays what it said before, says one peer's message to another, or says nothing wrong at all for a while, which is
//! the hardest to tolerate. Who speaks is proven by the transport, so a liar cannot speak in another's name; what a protocol signs
//! inside its messages is the protocol's own business, and [`Family::bend`](crate::family::Family::bend) knows how to forge it badly.
//!
//! Liars work together: what one of them hears all of them know ([`Heard`]), so that each can tell everybody what that one
//! wants to hear.

use std::collections::{BTreeMap, VecDeque};

use synod_core::{Index, NodeId, Rng};
use synod_replica::{Chunk, Packet};

use crate::family::Family;
use crate::world::World;

/// So many of a liar's messages are remembered for replays.
const MEMORY_MAX: usize = 64;

/// What a liar remembers.
pub struct Memory<M> {
    said: Vec<(NodeId, Packet<M>)>,
}

/// So many of each replica's latest messages are known to the liars.
const HEARD_MAX: usize = 64;

/// What the liars heard, all of them together, of each other replica.
pub struct Heard<M> {
    by: BTreeMap<NodeId, VecDeque<M>>,
}

impl<M> Default for Heard<M> {
    fn default() -> Self {
        Heard { by: BTreeMap::new() }
    }
}

impl<M> Heard<M> {
    /// A liar hears this.
    pub fn hear(&mut self, from: NodeId, message: M) {
        let messages = self.by.entry(from).or_default();
        if messages.len() == HEARD_MAX {
            messages.pop_front();
        }
        messages.push_back(message);
    }

    /// What this replica said, the latest first.
    pub fn of(&self, node: NodeId) -> impl Iterator<Item = &M> {
        self.by.get(&node).into_iter().flat_map(|messages| messages.iter().rev())
    }

    /// What anybody said, the latest of each first.
    pub fn all(&self) -> impl Iterator<Item = &M> {
        self.by.values().flat_map(|messages| messages.iter().rev())
    }
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
        states: States,
        zeal: Zeal,
        bend: impl FnOnce(&M, &mut Rng) -> Option<M>,
    ) -> Vec<(NodeId, Packet<M>)> {
        if self.said.len() < MEMORY_MAX {
            self.said.push((to, packet.clone()));
        } else {
            let place = rng.below(MEMORY_MAX as u64) as usize;
            self.said[place] = (to, packet.clone());
        }
        let draw = rng.below(10);
        let draw = if zeal == Zeal::Insists { 3 } else { draw };
        match draw {
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
                    Packet::Protocol(message) => bend(message, rng).map(Packet::Protocol),
                    Packet::Chunk(chunk) if states == States::Bent => {
                        another_state(chunk, rng).map(Packet::Chunk)
                    }
                    _ => None,
                };
                vec![(to, bent.unwrap_or(packet))]
            }
            _ => vec![(to, packet)],
        }
    }
}

/// So many bytes of a state that is made up, where the liar has given none away yet that it could bend.
const STATE_BYTES: usize = 64;

impl<M: Clone> Memory<M> {
    /// A state that nobody asked for, with the sum that belongs to it and `message` behind it.
    fn false_state(&self, at: Index, message: M, rng: &mut Rng) -> Chunk<M> {
        let given = self.said.iter().rev().find_map(|(_, packet)| match packet {
            Packet::Chunk(chunk) if chunk.offset == 0 && chunk.end.is_some() => Some(chunk.data.to_vec()),
            _ => None,
        });
        let mut data = given.unwrap_or_else(|| vec![0; STATE_BYTES]);
        if !data.is_empty() {
            let place = rng.below(data.len() as u64) as usize;
            data[place] ^= 1 << rng.below(8);
        }
        // Beyond all names that a true transfer of its has.
        let transfer = rng.next_u64() | 1 << 63;
        let (total, end) = (data.len() as u64, Some((crc32c::crc32c(&data), message)));
        Chunk { transfer, at, total, offset: 0, data: data.into(), end }
    }
}

/// How much a liar means what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeal {
    /// It lies now and then.
    Usual,
    /// It lies to everybody and every time: this message belongs to a plot, which needs all of its parts.
    Insists,
}

/// What a liar does with a state that it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum States {
    /// It gives its own: whoever takes it over could not tell.
    True,
    /// It gives another, if it likes: the protocol claims to tell.
    Bent,
}

/// A snapshot that is nobody's state, with the sum that belongs to it; none when it comes in several pieces.
fn another_state<M: Clone>(chunk: &Chunk<M>, rng: &mut Rng) -> Option<Chunk<M>> {
    let (_, message) = chunk.end.as_ref().filter(|_| chunk.offset == 0 && !chunk.data.is_empty())?;
    let mut data = chunk.data.to_vec();
    let place = rng.below(data.len() as u64) as usize;
    data[place] ^= 1 << rng.below(8);
    let end = Some((crc32c::crc32c(&data), message.clone()));
    Some(Chunk { data: data.into(), end, ..chunk.clone() })
}

/// Who lies to whom, and what about.
pub struct Lie<'a, M> {
    /// The liar.
    pub from: NodeId,
    /// Whom it speaks to.
    pub to: NodeId,
    /// What it and its kind know.
    pub heard: &'a Heard<M>,
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
        let heard = &self.heard_by_liars;
        let (zeal, unasked) = match &packet {
            Packet::Protocol(message) => {
                let lie = Lie { from, to, heard };
                (F::zeal(message), F::unasked_state(message, lie, &mut self.byzantine_rng))
            }
            _ => (Zeal::Usual, None),
        };
        let bend = |message: &_, rng: &mut Rng| F::bend(message, Lie { from, to, heard }, rng);
        let rng = &mut self.byzantine_rng;
        let unasked = unasked.map(|(at, message)| memory.false_state(at, message, rng));
        let lies = memory.twist(to, packet, rng, F::STATES, zeal, bend);
        for (to, packet) in lies.into_iter().chain(unasked.map(|chunk| (to, Packet::Chunk(chunk)))) {
            self.post(from, to, packet);
        }
    }
}
