//! Leader completeness, before it is too late.
//!
//! "If a log entry is committed in a given term, then that entry will be present in the logs of the leaders for all higher-numbered
//! terms" (Raft, figure 3). To wait until somebody leads without it takes luck: figure 8 needs three more elections after the mistake. But who
//! *could* be elected can be told at once, from the logs: any replica whose log is at least as new as those of a majority of its own
//! configuration. So right after elections and changes of the members, whenever the leader has decided something, no replica that lacks
//! it may find a majority behind itself.
//!
//! The power may fail at any moment, so a replica votes here by what of its log is durable; and whoever is down campaigns and votes with what
//! was durable at its end. On a disk there may be more: old entries that a log in memory has overwritten. They only make a voter more
//! particular, and no majority that can elect is without a voter that holds what was rightly decided; so the look misses things, and never sees
//! what is not there.

use std::collections::BTreeSet;

use synod_core::{Index, Members, NodeId, Role};

use super::World;
use crate::family::{Family, LogEntry};

/// So many looks follow an election or a change of the members: later decisions stand on these.
pub(super) const LOOKS_MAX: u32 = 6;

/// What a replica could campaign with, and vote by.
pub(crate) struct Standing {
    id: NodeId,
    log: Vec<LogEntry>,
    /// The end of what is durable of the log.
    durable: Index,
    members: Members,
    /// Whether it has come to nothing yet: to it, every log is new enough.
    is_new: bool,
}

impl Standing {
    /// Term and place of its last entry.
    fn last(&self) -> Option<(u64, u64)> {
        self.log.last().map(|entry| (entry.term, entry.at.0))
    }

    /// Term and place of the last entry that a power cut would leave it.
    fn last_durable(&self) -> Option<(u64, u64)> {
        let durable = self.log.iter().rev().find(|entry| entry.at <= self.durable);
        durable.map(|entry| (entry.term, entry.at.0))
    }

    fn lacks(&self, decided: &LogEntry) -> bool {
        // What lies before its first entry is in its snapshot.
        self.log.first().is_some_and(|first| {
            let place = decided.at.0.checked_sub(first.at.0);
            place.is_some_and(|place| self.log.get(place as usize) != Some(decided))
        })
    }

    /// Those of `voters` who would vote for it, if they are more than half.
    fn majority(&self, voters: &BTreeSet<NodeId>, standings: &[&Standing]) -> Option<usize> {
        let votes = standings.iter().filter(|voter| {
            let known = voter.id == self.id || voter.is_new || voter.last_durable().is_some();
            voters.contains(&voter.id) && known && voter.last_durable() <= self.last()
        });
        Some(votes.count()).filter(|votes| votes * 2 > voters.len())
    }
}

impl<F: Family> World<F> {
    /// If this replica leads and has decided more since the last look.
    pub(super) fn look_ahead(&mut self, leader: NodeId) {
        let (seen, left) = self.looked;
        let Some(running) = &self.nodes[leader.0 as usize - 1].running else { return };
        let decided = running.replica.applied();
        if !F::ELECTS_BY_LOG || left == 0 || running.role != Role::Leader || decided <= seen {
            return;
        }
        self.looked = (decided, left - 1);
        let sound = self.nodes.iter().filter(|node| !node.harmed && !self.plan.liars.contains(&node.id));
        let up: Vec<Standing> = sound.clone().filter_map(|node| self.standing(node.id)).collect();
        let standings: Vec<&Standing> =
            up.iter().chain(sound.filter_map(|node| node.left.as_ref())).collect();
        let own = standings.iter().find(|standing| standing.id == leader);
        let entry = own.and_then(|own| own.log.iter().rev().find(|entry| entry.at == decided).copied());
        let Some(entry) = entry else { return };
        for one in standings.iter().filter(|one| one.lacks(&entry) && one.members.is_voter(one.id)) {
            let Members { voters, outgoing, .. } = &one.members;
            let Some(votes) = one.majority(voters, &standings) else { continue };
            if outgoing.is_empty() || one.majority(outgoing, &standings).is_some() {
                let what = format!(
                    "{leader:?} has decided {decided:?} of term {}, and {:?} could be elected without it, by {votes} of {} voters",
                    entry.term,
                    one.id,
                    voters.len()
                );
                return self.broken(("leader completeness", what));
            }
        }
    }

    /// What a running replica could campaign with, and vote by.
    fn standing(&self, id: NodeId) -> Option<Standing> {
        let running = self.nodes[id.0 as usize - 1].running.as_ref()?;
        let protocol = running.replica.protocol();
        let mut log = Vec::new();
        F::log(protocol, &mut log);
        let members = running.replica.status().members;
        let durable = F::durable(protocol).map_or(Index::ZERO, |(durable, _)| durable);
        let is_new = log.is_empty() && running.replica.applied() == Index::ZERO;
        Some(Standing { id, log, durable, members, is_new })
    }

    /// A replica is about to be gone: what is left of it is what is durable.
    pub(super) fn leave_standing(&mut self, id: NodeId) {
        let Some(running) = &self.nodes[id.0 as usize - 1].running else { return };
        let durable = F::durable(running.replica.protocol());
        self.node(id).left = self.standing(id).zip(durable).map(|(mut standing, (durable, members))| {
            standing.log.retain(|entry| entry.at <= durable);
            Standing { members, ..standing }
        });
    }
}
