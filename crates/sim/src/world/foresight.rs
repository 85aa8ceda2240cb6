//! Leader completeness, before it is too late.
//!
//! "If a log entry is committed in a given term, then that entry will be present in the logs of the leaders for all higher-numbered
//! terms" (Raft, figure 3). To wait until somebody leads without it takes luck: figure 8 needs three more elections after the mistake. But who
//! *could* be elected can be told at once, from the logs: any replica whose log is at least as new as those of a majority of its own
//! configuration. So right after elections and changes of the members, whenever the leader has decided something, no replica that lacks
//! it may find a majority behind itself. Replicas that are down vote for nobody here, so the look misses things; it never sees what is not there.

use synod_core::{Members, NodeId, Role};

use super::World;
use crate::family::{Family, LogEntry};

/// So many looks follow an election or a change of the members: later decisions stand on these.
pub(super) const LOOKS_MAX: u32 = 6;

/// What a replica could campaign with, and vote by.
struct Standing {
    id: NodeId,
    log: Vec<LogEntry>,
    members: Members,
}

impl Standing {
    /// Term and place of its last entry.
    fn last(&self) -> Option<(u64, u64)> {
        self.log.last().map(|entry| (entry.term, entry.at.0))
    }

    fn lacks(&self, decided: &LogEntry) -> bool {
        // What lies before its first entry is in its snapshot.
        self.log.first().is_some_and(|first| {
            let place = decided.at.0.checked_sub(first.at.0);
            place.is_some_and(|place| self.log.get(place as usize) != Some(decided))
        })
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
        let mut standings = Vec::new();
        for node in self.nodes.iter().filter(|node| !node.harmed && !self.plan.liars.contains(&node.id)) {
            let Some(running) = &node.running else { continue };
            let mut log = Vec::new();
            F::log(running.replica.protocol(), &mut log);
            let members = running.replica.status().members;
            standings.push(Standing { id: node.id, log, members });
        }
        let own = standings.iter().find(|standing| standing.id == leader);
        let entry = own.and_then(|own| own.log.iter().rev().find(|entry| entry.at == decided).copied());
        let Some(entry) = entry else { return };
        for one in standings.iter().filter(|one| one.lacks(&entry) && one.members.is_voter(one.id)) {
            if one.members.is_joint() {
                continue; // It needs two majorities: left out.
            }
            let behind = |voter: &&Standing| one.members.is_voter(voter.id) && voter.last() <= one.last();
            let votes = standings.iter().filter(|voter| !voter.log.is_empty()).filter(behind).count();
            let voters = one.members.voters.len();
            if votes * 2 > voters {
                let what = format!(
                    "{leader:?} has decided {decided:?} of term {}, and {:?} could be elected without it, by {votes} of {voters} voters",
                    entry.term, one.id
                );
                return self.broken(("leader completeness", what));
            }
        }
    }
}
