//! A cluster that lives for a long time, and the operator who looks after it.
//!
//! A seed's run lasts a minute, and what is broken stays so. A cluster that is to live for a year loses disks as real ones do, and
//! somebody replaces them: the steward looks in once a minute, asks the leader to put a new machine in a lost one's place, and
//! switches off what no longer belongs to the cluster. While a disk is lost, damaged, failing or about to fail no other one is hit, none is hit
//! while some voter is down, and nobody is removed meanwhile: two losses at once are more than three replicas promise to survive. Everything else may
//! happen together.
//!
//! Beside the oracles' verdicts the steward keeps the books: what was replaced, and the longest time without a decision.

use std::time::Duration;

use synod_core::{Change, NodeId, Time};

use super::node::Running;
use super::{Event, Health, Outcome, World};
use crate::disk::SimDisk;
use crate::family::Family;
use crate::trace::What;

/// How often the steward looks in.
const ROUND: Duration = Duration::from_secs(60);

/// Machines with damaged disks are replaced after this long, though they run.
const REPLACED_AFTER: Duration = Duration::from_secs(3600);

/// The books of a long life.
#[derive(Clone, Debug, Default)]
pub struct Steward {
    /// Machines put in the place of lost or damaged ones.
    pub replaced: u64,
    /// Machines switched off because the cluster had let them go.
    pub retired: u64,
    /// Damage that was left out, because the cluster was not whole at the time.
    pub spared: u64,
    /// The longest time without a decision, as rounds of a second see it.
    pub longest_pause: Duration,
    /// When each machine that is out of order was first seen so.
    since: Vec<(NodeId, Time)>,
    decided: usize,
    decided_at: Time,
}

impl<F: Family> World<F> {
    /// Somebody looks after the cluster from now on.
    pub fn employ(&mut self) {
        self.steward = Some(Steward { decided_at: self.now, ..Steward::default() });
        self.events.push(self.now + ROUND, Event::Steward);
    }

    /// The steward's books.
    #[must_use]
    pub fn books(&self) -> Option<&Steward> {
        self.steward.as_ref()
    }

    /// The rest of a life that was long enough: a core is healed and must decide, and everything is judged.
    #[must_use]
    pub fn retire(mut self) -> Outcome {
        self.steward = None;
        self.conclude()
    }

    /// Lets time pass and keeps the books of decisions, second by second.
    pub fn live_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end && self.violation.is_none() {
            self.run_until((self.now + Duration::from_secs(1)).min(end));
            let (now, decided) = (self.now, self.ledger.len());
            let Some(steward) = &mut self.steward else { continue };
            if decided > steward.decided {
                (steward.decided, steward.decided_at) = (decided, now);
            }
            steward.longest_pause = steward.longest_pause.max(now.since(steward.decided_at));
        }
    }

    /// The voters of the newest decided configuration that are no longer what they should be.
    fn out_of_order(&self) -> Vec<NodeId> {
        let lost = |id: &NodeId| {
            let node = &self.nodes[id.0 as usize - 1];
            node.health != Health::Fine || node.harmed || node.disk.is_failing()
        };
        self.voters().into_iter().filter(lost).collect()
    }

    /// Whether one more may be lost: there are three voters or more, and every one is up, sound and to stay so, and nearly as far as the others.
    /// A disk that waits for the call at which it fails for good counts as lost: who is lost beside it would be one too many.
    pub fn may_be_harmed(&mut self) -> bool {
        let decided = self.ledger.len() as u64;
        let is_whole = self.voters().len() >= 3
            && self.out_of_order().is_empty()
            && self.voters().iter().all(|id| {
                let node = &self.nodes[id.0 as usize - 1];
                let is_near = |running: &Running<F>| running.replica.machine().count + 100 > decided;
                !node.disk.is_to_fail() && node.running.as_ref().is_some_and(is_near)
            });
        if let Some(steward) = self.steward.as_mut().filter(|_| !is_whole) {
            steward.spared += 1;
        }
        is_whole
    }

    pub(super) fn look_in(&mut self) {
        let Some(mut steward) = self.steward.take() else { return };
        let now = self.now;
        self.events.push(now + ROUND, Event::Steward);
        self.switch_off_the_dismissed(&mut steward);
        self.switch_off_what_fails(&mut steward);
        let lost = self.out_of_order();
        steward.since.retain(|(id, _)| lost.contains(id));
        for id in lost {
            if !steward.since.iter().any(|(known, _)| *known == id) {
                steward.since.push((id, now));
            }
        }
        let due = steward.since.iter().find(|(id, since)| {
            let node = &self.nodes[id.0 as usize - 1];
            let is_useless = node.health != Health::Fine || node.disk.is_failing();
            is_useless || now.since(*since) >= REPLACED_AFTER
        });
        let leader = self.leader().filter(|leader| self.paused(*leader).is_none());
        if let (Some((lost, _)), Some(leader)) = (due.copied(), leader)
            && let Some(running) = &self.node(leader).running
            && !running.replica.status().members.is_joint()
        {
            let newcomer = self.candidate();
            let changes = vec![Change::Remove(lost), Change::AddVoter(newcomer)];
            self.recorder.note(now, Some(leader), || {
                What::Note(format!("the steward replaces {lost:?} by {newcomer:?}"))
            });
            steward.replaced += 1;
            self.with(leader, |replica, now| replica.reconfigure(now, changes));
        }
        self.steward = Some(steward);
    }

    /// A machine whose disk fails, and on which nobody counts, would start and stop for ever: it is switched off.
    fn switch_off_what_fails(&mut self, steward: &mut Steward) {
        let voters = self.voters();
        let fails = |node: &&super::Node<F>| node.health == Health::Fine && node.disk.is_failing();
        let failing: Vec<NodeId> = self.nodes.iter().filter(fails).map(|node| node.id).collect();
        for id in failing.into_iter().filter(|id| !voters.contains(id)) {
            steward.retired += 1;
            self.take_down(id);
            self.node(id).health = Health::Dead("its disk fails".to_owned());
        }
    }

    /// A machine that never belonged to the cluster.
    pub(super) fn spare(&self) -> Option<NodeId> {
        let known = |id: NodeId| self.ledger.has_known(id);
        self.nodes
            .iter()
            .find(|node| node.health == Health::Fine && node.joined && !node.harmed && !known(node.id))
            .map(|node| node.id)
    }

    /// What the cluster has let go is switched off, and its disk thrown away.
    fn switch_off_the_dismissed(&mut self, steward: &mut Steward) {
        let Some(members) = self.ledger.members().cloned() else { return };
        let gone: Vec<NodeId> = self
            .nodes
            .iter()
            .map(|node| node.id)
            .filter(|id| !members.all().any(|member| member == *id))
            .filter(|id| id.0 <= self.plan.nodes || self.ledger.has_known(*id))
            .filter(|id| self.nodes[id.0 as usize - 1].health == Health::Fine)
            .collect();
        for id in gone {
            steward.retired += 1;
            self.take_down(id);
            let node = self.node(id);
            node.health = Health::Dead("the cluster let it go".to_owned());
            self.coverage.add(&self.nodes[id.0 as usize - 1].disk.coverage());
            let seed = self.disk_rng.next_u64();
            self.node(id).disk = SimDisk::new(seed);
        }
    }
}
