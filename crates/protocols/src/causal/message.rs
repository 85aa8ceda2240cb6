//! What causal replicas say to one another, and what they must not forget.
//!
//! The one message that matters is a *cast*: a batch with its vector timestamp (Birman, Schiper, Stephenson 1991, section
//! 5.1) and its clock. *Have* tells what a replica holds on disk: it acknowledges, it asks for what is missing, and
//! it promises that whatever this replica casts from now on is later than all that.

use std::fmt;
use std::sync::Arc;

use synod_core::{Batch, NodeId, Stamp, Vector};

use super::clock;
use super::membership::Membership;

/// A broadcast message.
#[derive(Clone, PartialEq, Eq)]
pub struct Cast {
    /// Who made it.
    pub origin: NodeId,
    /// Its place among its origin's casts, from 1.
    pub number: u64,
    /// The clock of its first command; each further command's is one more.
    pub clock: u64,
    /// What its origin had accepted from others when it made this: with `number` this is the vector timestamp.
    pub past: Vector,
    /// What it says.
    pub body: Body,
}

/// What a cast says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Commands.
    Batch(Batch),
    /// Who belongs to the cluster, as its origin knows it, with the change that it makes.
    Members(Membership),
}

impl Cast {
    /// The clock of its last command.
    #[must_use]
    pub fn last_clock(&self) -> u64 {
        match &self.body {
            Body::Batch(batch) => self.clock.saturating_add(batch.len().max(1) as u64 - 1),
            Body::Members(_) => self.clock,
        }
    }

    /// What the machine gets to know of it.
    pub(super) fn stamp(&self, floor: u64) -> Stamp {
        Stamp { origin: self.origin, number: self.number, clock: self.clock, floor }
    }
}

/// Short, because traces are full of them: `n1:2 at 10ms after [n2:1] [n1#1=x]`.
impl fmt::Debug for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{} at {} after {:?} ", self.origin, self.number, clock::show(self.clock), self.past)?;
        match &self.body {
            Body::Batch(batch) => write!(f, "{batch:?}"),
            Body::Members(members) => write!(f, "{members:?}"),
        }
    }
}

/// What causal replicas say.
#[derive(Clone, PartialEq, Eq)]
pub enum Message {
    /// Casts, one after the other.
    Cast {
        /// In an order in which they may be delivered.
        casts: Vec<Arc<Cast>>,
        /// What the sender wants to hear.
        then: Then,
    },
    /// What the sender holds.
    Have {
        /// Delivered, and on its disk.
        vector: Vector,
        /// The greatest clock in it: whatever the sender casts beyond `vector` is later.
        clock: u64,
        /// What the sender cannot say again, because only its state holds it.
        forgot: Vector,
        /// How many deliveries its newest snapshot holds.
        saved: u64,
    },
    /// Behind a snapshot: what it holds.
    State {
        /// Which deliveries.
        vector: Vector,
        /// The greatest clock among them.
        clock: u64,
        /// The members according to them.
        members: Membership,
    },
}

/// What the sender of casts wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing now: the next round of gossip will do.
    Nothing,
    /// What the receiver holds, once these are on its disk: there is more to come.
    Tell,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Cast { casts, then: Then::Nothing } => write!(f, "Cast {casts:?}"),
            Message::Cast { casts, then: Then::Tell } => write!(f, "Cast {casts:?} and tell"),
            Message::Have { vector, clock, forgot, .. } if forgot.is_empty() => {
                write!(f, "Have {vector:?} up to {}", clock::show(*clock))
            }
            Message::Have { vector, clock, forgot, saved } => {
                write!(f, "Have {vector:?} up to {}, forgot {forgot:?}, saved {saved}", clock::show(*clock))
            }
            Message::State { vector, clock, members } => {
                write!(f, "State {vector:?} up to {}, {members:?}", clock::show(*clock))
            }
        }
    }
}

/// What must survive a crash.
#[derive(Clone, PartialEq, Eq)]
pub enum Record {
    /// What comes before the casts that follow, in a checkpoint: they are kept for others, and those behind the snapshot
    /// are delivered again.
    Base {
        /// The deliveries before them.
        vector: Vector,
        /// The greatest clock in those.
        clock: u64,
        /// The members according to those.
        members: Membership,
    },
    /// The next cast in this replica's order of delivery.
    Cast(Arc<Cast>),
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Base { vector, clock, members } => {
                write!(f, "Base {vector:?} up to {}, {members:?}", clock::show(*clock))
            }
            Record::Cast(cast) => write!(f, "Cast {cast:?}"),
        }
    }
}
