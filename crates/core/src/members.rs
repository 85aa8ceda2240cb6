//! Who belongs to the cluster, and how that changes.
//!
//! A configuration is either simple (one set of voters) or joint (Raft section 6: decisions need a majority
//! of the incoming *and* of the outgoing voters). Learners receive everything and count for nothing.

use std::collections::BTreeSet;

use bytes::BytesMut;

use crate::types::NodeId;
use crate::wire::{Reader, Wire, WireError};

/// A configuration of the cluster.
///
/// Invariants: no node is voter and learner at once; `learners_next` is a subset of `outgoing` (voters that
/// become learners when the joint configuration is left); a simple configuration has both sets empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those whose votes count; the incoming half while joint.
    pub voters: BTreeSet<NodeId>,
    /// The outgoing half of a joint configuration; empty otherwise.
    pub outgoing: BTreeSet<NodeId>,
    /// Those who only listen.
    pub learners: BTreeSet<NodeId>,
    /// Outgoing voters that will be learners once the joint configuration is left.
    pub learners_next: BTreeSet<NodeId>,
}

/// One wish in a change of configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Let a node listen, without a vote.
    AddLearner(NodeId),
    /// Give a node a vote; a learner is promoted.
    AddVoter(NodeId),
    /// Take a node out, voter or learner.
    Remove(NodeId),
}

/// Why a change of configuration is impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// A change is under way and must finish first.
    #[error("the configuration is already joint: the change under way must finish first")]
    AlreadyJoint,
    /// There is no joint configuration to leave.
    #[error("the configuration is not joint: there is nothing to leave")]
    NotJoint,
    /// Nobody would be left to vote.
    #[error("no voter would be left")]
    NoVoters,
    /// More than one voter would change without a joint configuration.
    #[error("more than one voter would change: this needs a joint configuration")]
    TooManyAtOnce,
}

impl Members {
    /// A simple configuration of these voters.
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> Members {
        Members { voters: voters.into_iter().collect(), ..Members::default() }
    }

    /// Whether two majorities are needed.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether this node's vote counts, in either half.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether this node belongs to the cluster at all.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// Everybody, each once, in ascending order.
    pub fn all(&self) -> impl Iterator<Item = NodeId> + '_ {
        let everybody: BTreeSet<NodeId> =
            self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect();
        everybody.into_iter()
    }
}

fn encode_set(set: &BTreeSet<NodeId>, out: &mut BytesMut) {
    crate::wire::put_u64(out, set.len() as u64);
    for node in set {
        node.encode(out);
    }
}

fn decode_set(from: &mut Reader) -> Result<BTreeSet<NodeId>, WireError> {
    Ok(Vec::<NodeId>::decode(from)?.into_iter().collect())
}

impl Wire for Members {
    fn encode(&self, out: &mut BytesMut) {
        for set in [&self.voters, &self.outgoing, &self.learners, &self.learners_next] {
            encode_set(set, out);
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Members {
            voters: decode_set(from)?,
            outgoing: decode_set(from)?,
            learners: decode_set(from)?,
            learners_next: decode_set(from)?,
        })
    }
}
