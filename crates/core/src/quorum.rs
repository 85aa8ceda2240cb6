//! The arithmetic of majorities: what has been reached, and how a vote stands.
//!
//! Both questions have a simple form (one set of voters) and a joint one (Raft section 6: a majority of each
//! half). An empty set of voters agrees to everything: so a joint configuration with an empty outgoing half
//! is the simple one, and needs no case of its own.

use std::collections::BTreeSet;

use crate::members::Members;
use crate::types::NodeId;

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// No majority is possible any more.
    Lost,
    /// It depends on those who have not spoken.
    Pending,
    /// A majority said yes.
    Won,
}

/// How many of `voters` make a majority; an empty set needs nobody.
#[must_use]
pub fn majority(voters: usize) -> usize {
    if voters == 0 { 0 } else { voters / 2 + 1 }
}

/// Sets of voters up to this size are sorted without touching the heap.
const VOTERS_ON_STACK_MAX: usize = 9;

/// The greatest value that a majority of `voters` has reached; `None` when there are no voters, who have
/// reached everything.
///
/// The value is an index for commitment, a moment for leases and contact.
#[must_use]
pub fn majority_reached<T>(voters: &BTreeSet<NodeId>, value: impl Fn(NodeId) -> T) -> Option<T>
where
    T: Ord + Copy + Default,
{
    let count = voters.len();
    let mut stack = [T::default(); VOTERS_ON_STACK_MAX];
    let mut heap = Vec::new();
    let values = if count <= VOTERS_ON_STACK_MAX {
        &mut stack[..count]
    } else {
        heap.resize(count, T::default());
        &mut heap[..]
    };
    for (slot, voter) in values.iter_mut().zip(voters) {
        *slot = value(*voter);
    }
    values.sort_unstable();
    // In ascending order, the value at this place and all behind it make exactly a majority.
    count.checked_sub(majority(count)).and_then(|place| values.get(place).copied())
}

/// The greatest value that a quorum of `members` has reached: the lesser of what both halves have.
#[must_use]
pub fn joint_reached<T>(members: &Members, value: impl Fn(NodeId) -> T) -> Option<T>
where
    T: Ord + Copy + Default,
{
    let incoming = majority_reached(&members.voters, &value);
    match (incoming, majority_reached(&members.outgoing, &value)) {
        (Some(incoming), Some(outgoing)) => Some(incoming.min(outgoing)),
        (one, other) => one.or(other),
    }
}

/// How a vote among `voters` stands; `vote` says what each has answered, if anything.
#[must_use]
pub fn majority_vote(voters: &BTreeSet<NodeId>, vote: impl Fn(NodeId) -> Option<bool>) -> Outcome {
    let needed = majority(voters.len());
    let yes = voters.iter().filter(|voter| vote(**voter) == Some(true)).count();
    let silent = voters.iter().filter(|voter| vote(**voter).is_none()).count();
    if yes >= needed {
        Outcome::Won
    } else if yes + silent >= needed {
        Outcome::Pending
    } else {
        Outcome::Lost
    }
}

/// How a vote among `members` stands: won when both halves are, lost when either is.
#[must_use]
pub fn joint_vote(members: &Members, vote: impl Fn(NodeId) -> Option<bool>) -> Outcome {
    majority_vote(&members.voters, &vote).min(majority_vote(&members.outgoing, &vote))
}
