//! Who belongs to the cluster, where nobody decides it for all.
//!
//! Two replicas may change the membership at the same time. So it is a set that only grows in both of its halves (a two-phase set;
//! Shapiro et al. 2011): those who were ever added, and those who were ever removed. Changes travel as casts,
//! each with the whole set as its origin knows it, and are joined where they are delivered. Ids are never used again, so who was removed
//! stays so.
//!
//! Joining is catching up: the new member gets every cast, or a snapshot, and takes part once it has delivered the change that
//! names it. A removed member's casts stay, and so does its entry in every vector. What it said to nobody before it was removed is lost:
//! whoever delivers the removal takes no more casts *from* it, and only passes on what others have of it. Left out: the corner
//! in which a member is added and another removed at the same time by two replicas, and the new one hears the removed one first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use synod_core::{Change, Members, NodeId, Refusal};

/// The name of a cast: its origin and its number.
pub(super) type CastName = (NodeId, u64);

/// Everybody who was ever added or removed.
///
/// Invariant: whoever was removed was added.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Membership {
    pub(super) added: BTreeSet<NodeId>,
    /// Who was removed, and by which cast (the first by name, if there were several).
    pub(super) removed: BTreeMap<NodeId, (NodeId, u64)>,
}

impl Membership {
    /// The founders.
    pub(super) fn of(members: &Members) -> Membership {
        Membership { added: members.all().collect(), removed: BTreeMap::new() }
    }

    /// Whether a node takes part.
    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.added.contains(&node) && !self.removed.contains_key(&node)
    }

    /// Those who take part, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.added.iter().copied().filter(|node| !self.removed.contains_key(node))
    }

    /// Nobody was ever added: this replica has not joined.
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty()
    }

    pub(super) fn join(&mut self, other: &Membership) {
        self.added.extend(&other.added);
        for (node, cast) in &other.removed {
            let known = self.removed.entry(*node).or_insert(*cast);
            *known = (*known).min(*cast);
        }
    }

    /// The set after all of `changes`, which the cast `name` makes.
    pub(super) fn changed(&self, changes: &[Change], name: CastName) -> Result<Membership, Refusal> {
        let mut after = self.clone();
        for change in changes {
            match *change {
                Change::AddLearner(_) => {
                    return Err(Refusal::Unsupported(
                        "causal broadcast has no learners: all members are equal, and a new one catches up by itself",
                    ));
                }
                Change::AddVoter(node) if after.removed.contains_key(&node) => {
                    return Err(Refusal::Invalid(format!(
                        "{node:?} was removed: a new member needs a new id"
                    )));
                }
                Change::AddVoter(NodeId(0)) | Change::Remove(NodeId(0)) => {}
                Change::AddVoter(node) => drop(after.added.insert(node)),
                Change::Remove(node) if after.contains(node) => drop(after.removed.insert(node, name)),
                Change::Remove(_) => {}
            }
        }
        if after.iter().next().is_none() {
            return Err(Refusal::Invalid("no member would be left".to_owned()));
        }
        Ok(after)
    }

    /// As everybody else knows configurations.
    pub(super) fn members(&self) -> Members {
        Members::of(self.iter())
    }
}

/// `members 1 2 4, removed 3`
impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("members")?;
        self.iter().try_for_each(|node| write!(f, " {node}"))?;
        if !self.removed.is_empty() {
            f.write_str(", removed")?;
        }
        self.removed.keys().try_for_each(|node| write!(f, " {node}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes made at the same time at two replicas come to the same, in whatever order they are joined.
    #[test]
    fn concurrent_changes_join() {
        let founders = Membership::of(&Members::of([1, 2, 3].map(NodeId)));
        let added = founders.changed(&[Change::AddVoter(NodeId(4))], (NodeId(1), 1)).expect("it is new");
        let removed = founders.changed(&[Change::Remove(NodeId(3))], (NodeId(2), 1)).expect("two stay");
        let mut one = added.clone();
        one.join(&removed);
        let mut other = removed;
        other.join(&added);
        assert_eq!(one, other);
        assert_eq!(format!("{one:?}"), "members 1 2 4, removed 3");
        assert!(one.changed(&[Change::AddVoter(NodeId(3))], (NodeId(1), 2)).is_err());
    }
}
