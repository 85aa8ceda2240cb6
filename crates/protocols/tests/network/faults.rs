//! What goes wrong: crashes, pauses, stuck disks, partitions, and people who change the configuration. And the end of it.

use std::time::Duration;

use synod_core::{Change, Index, NodeId, Role, Time};
use synod_protocols::raft::Raft;
use synod_replica::Replica;

use super::chain::Chain;
use super::{Event, Network, Write, saved};

impl Network {
    pub(super) fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.replica = None;
        node.life += 1;
        node.reads.clear();
        node.staging.clear();
        // Some of what was on its way to the disk got there.
        let kept = self.rng.below(node.writes.len() as u64 + 1);
        for write in std::mem::take(&mut node.writes).into_iter().take(kept as usize) {
            match write {
                Write::Records(records, _) => node.records.extend(records),
                Write::Checkpoint(snapshot, records, _) => {
                    node.records = records;
                    node.snapshot = Some(snapshot);
                }
                // The crash may come after the snapshot is in place, and before its checkpoint is.
                Write::Save(at, frozen) => node.snapshot = Some(saved(at, frozen)),
                Write::Stage(_) => {}
            }
        }
    }

    /// New leaders have a hard time.
    pub(super) fn try_leader(&mut self, id: NodeId) {
        let span = self.weather.delay_max * 4;
        if self.rng.chance(self.weather.curse) {
            let after = self.rng.span(Duration::ZERO, span);
            self.schedule(after, Event::Crash(id));
        }
        if self.rng.chance(self.weather.meddling) {
            let after = self.rng.span(Duration::ZERO, span);
            self.schedule(after, Event::Meddle);
        }
    }

    pub(super) fn fault(&mut self) {
        let id = self.any();
        let span = self.rng.span(Duration::ZERO, self.weather.options.election_timeout * 5);
        match self.rng.below(11) {
            0 | 1 => self.crash(id),
            // Leaders have the most to lose.
            10 => {
                let leader = self.leaders.last_key_value().map_or(id, |(_, leader)| *leader);
                self.crash(leader);
            }
            2..=4 => {
                let down: Vec<NodeId> =
                    self.nodes.iter().filter(|(_, node)| node.replica.is_none()).map(|(id, _)| *id).collect();
                for id in down {
                    self.start(id);
                }
            }
            5 => self.nodes.get_mut(&id).expect("a node").paused_until = self.now + span,
            6 => self.nodes.get_mut(&id).expect("a node").disk_stuck_until = self.now + span,
            7 => self.partition(),
            8 => self.hand_over(),
            _ => {
                let count = self.rng.between(1, 3);
                self.meddle(count);
            }
        }
    }

    /// Cuts links: any of them, one replica's (often the leader's), or those between two groups; or mends all.
    fn partition(&mut self) {
        self.blocked.clear();
        let shape = self.rng.below(4);
        let share = [0.2, 0.4][self.rng.below(2) as usize];
        let leader = self.leaders.last_key_value().map(|(_, leader)| *leader);
        let alone = leader.filter(|_| self.rng.chance(0.7)).unwrap_or(NodeId(1));
        let groups = self.rng.next_u64();
        let group = |node: u64| groups >> node & 1;
        for from in 1..=self.nodes.len() as u64 {
            for to in 1..=self.nodes.len() as u64 {
                let cut = match shape {
                    0 => self.rng.chance(share),
                    1 => NodeId(from) == alone || NodeId(to) == alone,
                    2 => group(from) != group(to),
                    _ => false,
                };
                if cut {
                    self.blocked.insert((NodeId(from), NodeId(to)));
                }
            }
        }
    }

    /// Asks whoever leads to let another lead.
    pub(super) fn hand_over(&mut self) {
        let to = self.any();
        self.on_leader(|replica, now| replica.transfer_leadership(now, to));
    }

    /// Asks whoever leads for another configuration.
    pub(super) fn meddle(&mut self, count: u64) {
        // Without these two, members that were removed disturb the rest for ever (Raft section 6).
        if !self.weather.options.pre_vote || !self.weather.options.check_quorum {
            return;
        }
        let changes: Vec<Change> = (0..count)
            .map(|_| {
                let node = self.any();
                match self.rng.below(4) {
                    0 => Change::AddLearner(node),
                    1 => Change::Remove(node),
                    _ => Change::AddVoter(node),
                }
            })
            .collect();
        self.on_leader(|replica, now| replica.reconfigure(now, changes.clone()));
    }

    fn on_leader(&mut self, mut ask: impl FnMut(&mut Replica<Raft, Chain>, Time)) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = &self.nodes[&id];
            let leads = node.replica.as_ref().is_some_and(|replica| replica.status().role == Role::Leader);
            if leads && node.paused_until <= self.now {
                self.with(id, &mut ask);
            }
        }
    }

    /// Ends all faults, and checks that the cluster then decides again and comes to agree.
    pub(crate) fn heal_and_converge(&mut self) {
        self.calm = true;
        self.weather.loss = 0.0;
        self.blocked.clear();
        for node in self.nodes.values_mut() {
            node.paused_until = Time::ZERO;
            node.disk_stuck_until = Time::ZERO;
        }
        let timeout = self.weather.options.election_timeout;
        self.run(timeout);
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&id].replica.is_none() {
                self.start(id);
            }
        }
        self.run(timeout * 30);
        let before = self.applied_max;
        self.run(timeout * 10);
        assert!(self.applied_max > before, "a healed cluster decides again\n{}", self.describe());
        // A transfer of a snapshot that lost a chunk takes its time: seconds, whatever the election timeout.
        for _ in 0..200 {
            if self.laggard(before).is_none() {
                return;
            }
            self.run(timeout);
        }
        let laggard = self.laggard(before);
        assert_eq!(laggard, None, "{laggard:?} never comes to agree\n{}", self.describe());
    }

    /// A member, by the word of the one that leads, that has not applied everything up to `upto`.
    fn laggard(&self, upto: Index) -> Option<NodeId> {
        let leads = self.nodes.values().filter_map(|node| node.replica.as_ref()).filter_map(|replica| {
            let status = replica.status();
            (status.role == Role::Leader).then_some(status)
        });
        let leader = leads.max_by_key(|status| status.term).expect("a healed cluster has a leader");
        let lags = |id: &NodeId| self.nodes[id].replica.as_ref().is_none_or(|it| it.applied() < upto);
        leader.members.all().find(lags)
    }
}
