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
    /// More than one voter would change without a joint configuration, and two majorities could miss each other.
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

    /// How many voters a change from `self` to `other` adds and removes; more than one needs a joint configuration.
    #[must_use]
    pub fn voters_changed(&self, other: &Members) -> usize {
        self.voters.symmetric_difference(&other.voters).count()
    }

    /// Whether the invariants of the type hold: what comes from outside is checked with this.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.learners.iter().all(|node| !self.is_voter(*node))
            && self
                .learners_next
                .iter()
                .all(|node| self.outgoing.contains(node) && !self.voters.contains(node))
            && (self.outgoing.is_empty() || !self.voters.is_empty())
    }

    /// The configuration after all of `changes` in order, when they change at most one voter (Ongaro's thesis, 4.1).
    ///
    /// Changes are idempotent, and a node may be named more than once: what counts is the outcome. Node zero
    /// does not exist and is passed over.
    ///
    /// # Errors
    /// [`ChangeError::AlreadyJoint`], [`ChangeError::NoVoters`], [`ChangeError::TooManyAtOnce`].
    pub fn simple(&self, changes: &[Change]) -> Result<Members, ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::AlreadyJoint);
        }
        let changed = self.changed(changes)?;
        if self.voters_changed(&changed) > 1 {
            return Err(ChangeError::TooManyAtOnce);
        }
        Ok(changed)
    }

    /// The joint configuration that leads to the outcome of `changes` (Raft section 6): until it is left,
    /// decisions need a majority of the old voters and one of the new.
    ///
    /// # Errors
    /// [`ChangeError::AlreadyJoint`], [`ChangeError::NoVoters`].
    pub fn enter_joint(&self, changes: &[Change]) -> Result<Members, ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::AlreadyJoint);
        }
        if self.voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        Members { outgoing: self.voters.clone(), ..self.clone() }.changed(changes)
    }

    /// The configuration after a joint one: the incoming voters alone, and the demoted ones as learners.
    ///
    /// # Errors
    /// [`ChangeError::NotJoint`].
    pub fn leave_joint(&self) -> Result<Members, ChangeError> {
        if !self.is_joint() {
            return Err(ChangeError::NotJoint);
        }
        let learners = self.learners.union(&self.learners_next).copied().collect();
        Ok(Members { voters: self.voters.clone(), learners, ..Members::default() })
    }

    /// Carries out the wishes on the incoming half.
    fn changed(&self, changes: &[Change]) -> Result<Members, ChangeError> {
        let mut after = self.clone();
        for change in changes {
            match *change {
                Change::AddVoter(NodeId(0)) | Change::AddLearner(NodeId(0)) | Change::Remove(NodeId(0)) => {}
                Change::AddVoter(node) => {
                    after.forget(node);
                    after.voters.insert(node);
                }
                Change::AddLearner(node) => {
                    after.forget(node);
                    // An outgoing voter still votes while the configuration is joint: it turns learner on leaving.
                    let learners = if after.outgoing.contains(&node) {
                        &mut after.learners_next
                    } else {
                        &mut after.learners
                    };
                    learners.insert(node);
                }
                Change::Remove(node) => after.forget(node),
            }
        }
        if after.voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        debug_assert!(after.is_sound(), "a change keeps the invariants: {after:?}");
        Ok(after)
    }

    /// Takes a node out of everything but the outgoing half.
    fn forget(&mut self, node: NodeId) {
        self.voters.remove(&node);
        self.learners.remove(&node);
        self.learners_next.remove(&node);
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
        let members = Members {
            voters: decode_set(from)?,
            outgoing: decode_set(from)?,
            learners: decode_set(from)?,
            learners_next: decode_set(from)?,
        };
        if !members.is_sound() {
            let value = members.all().count() as u64;
            return Err(WireError::Invalid {
                what: "members",
                value,
                allowed: "voters, learners and the outgoing half must not contradict one another",
            });
        }
        Ok(members)
    }
}
