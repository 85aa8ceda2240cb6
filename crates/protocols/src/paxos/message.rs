//! What Paxos replicas say to one another, and what they must not forget.
//!
//! Prepare/Promise and Accept/Accepted are the paper's two phases (2.2), Refused is the hint of its section 2.3 that lets a
//! proposer abandon a lost ballot early, Chosen informs the learners (2.3). Have, Learn and Known bring those up to date
//! that missed something; InstallSnapshot does the same for those that missed more than is kept.

use std::fmt;
use std::sync::Arc;

use synod_core::{Batch, Index, Members, NodeId, batch_bytes};

/// A proposal number: totally ordered, and never used by two proposers or by one proposer for two values of a slot.
///
/// The paper has every proposer draw from a set of its own, and remember in stable storage the highest number that it
/// ever used (2.5). Here the node's name makes the sets disjoint, and its *life*, counted and recorded at every start,
/// stands for the memory: what an earlier life used is not used again, whatever was forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot {
    /// Compared first: a proposer outbids another by a higher round.
    pub round: u64,
    /// Whose ballot it is.
    pub node: NodeId,
    /// How often that replica had been opened.
    pub life: u64,
}

impl Ballot {
    /// Below every ballot: nothing was promised.
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId(0), life: 0 };
}

/// Short, because traces are full of them: `b2n1` is round 2 of n1; a life other than the first stands behind.
impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}{:?}", self.round, self.node)?;
        if self.life > 1 { write!(f, "'{}", self.life) } else { Ok(()) }
    }
}

/// Rounds, lives and slots beyond this are malformed: so no sum overflows, whatever a peer says.
pub(super) const NUMBER_MAX: u64 = 1 << 60;

/// What a configuration costs in memory, roughly.
const MEMBERS_BYTES: usize = 256;

/// What a slot can hold.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Commands; none where a slot had to be filled.
    Batch(Batch),
    /// The configuration of the slots from [`ALPHA`](super::ALPHA) further on. Void unless the newest configuration decided
    /// before is still the one at `after`: two changes made side by side do not undo one another.
    Members {
        /// Where the configuration was decided from which this one was derived; 0 for the one at the start.
        after: Index,
        /// The configuration.
        members: Arc<Members>,
    },
}

impl Value {
    /// Whether these, proposed in one slot, are the same. Batches are known by their first command, whose name is used
    /// once; empty ones are all alike.
    pub(super) fn is(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Batch(one), Value::Batch(other)) => {
                one.len() == other.len()
                    && one.first().map(|command| command.id) == other.first().map(|command| command.id)
            }
            _ => self == other,
        }
    }

    /// What it weighs in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Value::Batch(batch) => batch_bytes(batch),
            Value::Members { .. } => MEMBERS_BYTES,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Batch(batch) => write!(f, "{batch:?}"),
            Value::Members { after, members } => write!(f, "after {after:?} {members:?}"),
        }
    }
}

/// A value with the ballot in which it was proposed: what an acceptor accepts (the paper's `acceptedProposal` and
/// `acceptedValue`).
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The ballot.
    pub ballot: Ballot,
    /// The value.
    pub value: Value,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}={:?}", self.ballot, self.value)
    }
}

/// Configurations in the order in which they were decided, each with its slot (0 for the one at the start): the first is
/// in force where the list begins to matter, the others are to come.
pub type Configurations = Vec<(Index, Arc<Members>)>;

/// What Paxos replicas say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Phase 1a: will you accept nothing below this ballot any more, and what have you accepted so far?
    Prepare {
        /// The instance.
        slot: Index,
        /// The proposal number.
        ballot: Ballot,
    },
    /// Phase 1b: I promise.
    Promise {
        /// As in Prepare.
        slot: Index,
        /// As in Prepare.
        ballot: Ballot,
        /// The highest-numbered proposal accepted here.
        accepted: Option<Proposal>,
    },
    /// Phase 2a.
    Accept {
        /// The instance.
        slot: Index,
        /// The proposal number.
        ballot: Ballot,
        /// The value proposed.
        value: Value,
    },
    /// Phase 2b: accepted, and on disk.
    Accepted {
        /// As in Accept.
        slot: Index,
        /// As in Accept.
        ballot: Ballot,
    },
    /// Neither promised nor accepted: a higher ballot was promised here.
    Refused {
        /// The instance.
        slot: Index,
        /// The ballot that was refused.
        ballot: Ballot,
        /// The one that was promised.
        promised: Ballot,
    },
    /// A majority has accepted this ballot's value. Whoever accepted it, or a later one (which has the same value, by P2),
    /// has learned it.
    Chosen {
        /// The instance.
        slot: Index,
        /// The ballot.
        ballot: Ballot,
    },
    /// Everything up to here is decided, as far as the sender knows; said now and then.
    Have {
        /// Up to here.
        decided: Index,
    },
    /// Which values were chosen after this slot?
    Learn {
        /// The last slot that is known.
        after: Index,
    },
    /// These were chosen.
    Known {
        /// The first value's slot; the others follow without gaps.
        first: Index,
        /// The values.
        values: Vec<Value>,
        /// Up to here the sender could go on.
        decided: Index,
    },
    /// Follows a snapshot of the state.
    InstallSnapshot {
        /// The last slot that the snapshot covers.
        at: Index,
        /// The configurations from there on.
        configurations: Configurations,
    },
}

impl Message {
    /// The largest number in it that anybody reckons with.
    pub(super) fn largest(&self) -> u64 {
        match self {
            Message::Prepare { slot, ballot }
            | Message::Accepted { slot, ballot }
            | Message::Chosen { slot, ballot }
            | Message::Accept { slot, ballot, .. } => slot.0.max(ballot.round).max(ballot.life),
            Message::Promise { slot, ballot, accepted } => {
                let accepted = accepted.as_ref().map_or(0, |accepted| accepted.ballot.round);
                slot.0.max(ballot.round).max(accepted)
            }
            Message::Refused { slot, ballot, promised } => slot.0.max(ballot.round).max(promised.round),
            Message::Have { decided } => decided.0,
            Message::Learn { after } => after.0,
            Message::Known { first, decided, .. } => first.0.max(decided.0),
            Message::InstallSnapshot { at, .. } => at.0,
        }
    }
}

/// What a Paxos replica must not forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The replica was opened for the so-manieth time.
    Life(u64),
    /// The acceptor answers no lower ballot in this slot any more (`minProposal`).
    Promised {
        /// The instance.
        slot: Index,
        /// The ballot.
        ballot: Ballot,
    },
    /// The acceptor accepted this.
    Accepted {
        /// The instance.
        slot: Index,
        /// The ballot, which is promised with it.
        ballot: Ballot,
        /// The value.
        value: Value,
    },
    /// What was accepted here last is what was chosen. Nobody waits for this to be durable: it saves asking again.
    Chosen {
        /// The instance.
        slot: Index,
    },
    /// This was chosen, and learned from another replica.
    Learned {
        /// The instance.
        slot: Index,
        /// The value.
        value: Value,
    },
    /// Slots up to `at` are covered by a snapshot.
    Base {
        /// The last slot covered.
        at: Index,
        /// Up to here, this acceptor has forgotten what it promised, and never speaks again. At least `at`, and more only
        /// after a snapshot was lost.
        floor: Index,
        /// The configurations as of `floor`.
        configurations: Configurations,
    },
}
