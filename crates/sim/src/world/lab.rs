//! A world as a laboratory: for experiments that steer it by hand instead of drawing a plan.

use std::time::Duration;

use synod_core::{Command, CommandId, NodeId, Rng, Role, Time};

use super::{Calling, Event, Health, World};
use crate::disk::{Loss, SimDisk};
use crate::family::Family;
use crate::machine::digest;
use crate::oracle::Violation;
use crate::partition::Shape;

impl<F: Family> World<F> {
    /// The world's time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    /// The replica that leads, by its own account and in the newest term.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let leads = |role| matches!(role, Role::Leader | Role::Primary);
        let running = self.nodes.iter().filter_map(|node| Some((node.id, node.running.as_ref()?)));
        let leading = running.filter(|(_, running)| leads(running.role));
        leading.max_by_key(|(_, running)| running.term).map(|(id, _)| id)
    }

    /// One of the replicas that propose without being led, where there are such.
    #[must_use]
    pub fn proposer(&self, draw: u64) -> Option<NodeId> {
        let running = self.nodes.iter().filter_map(|node| Some((node.id, node.running.as_ref()?)));
        let proposers: Vec<NodeId> =
            running.filter(|(_, running)| running.role == Role::Proposer).map(|(id, _)| id).collect();
        (!proposers.is_empty()).then(|| proposers[(draw % proposers.len() as u64) as usize])
    }

    /// When somebody became leader last, and in which term.
    #[must_use]
    pub fn elected(&self) -> Option<(Time, NodeId, u64)> {
        self.elected
    }

    /// How many commands were decided.
    #[must_use]
    pub fn decided(&self) -> usize {
        self.ledger.len()
    }

    /// The property that broke, if one did.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// How many events were handled.
    #[must_use]
    pub fn events_handled(&self) -> u64 {
        self.counts.events
    }

    /// A core is healed and must decide, and everything is judged: the second half of [`World::run`].
    #[must_use]
    pub fn judge(self) -> super::Outcome {
        self.conclude()
    }

    /// Clients begin nothing any more.
    pub fn hush(&mut self) {
        self.calling = Calling::No;
    }

    /// A replica that was taken down starts again.
    pub fn bring_up(&mut self, id: NodeId) {
        self.node(id).held_down = false;
        self.events.push(self.now, Event::Start { node: id });
    }

    /// How many commands were acknowledged, and how many of them this replica's state lacks.
    #[must_use]
    pub fn acknowledged(&self, at: NodeId) -> (usize, usize) {
        let running = self.nodes[at.0 as usize - 1].running.as_ref();
        let seen = running.and_then(|running| running.replica.machine().seen.as_ref());
        let lacks = |id: &CommandId| seen.is_some_and(|seen| !seen.contains(id));
        (self.ledger.acknowledged().count(), self.ledger.acknowledged().filter(lacks).count())
    }

    /// Nothing goes between two replicas any more.
    pub fn part(&mut self, a: NodeId, b: NodeId) {
        self.network.cut(a, b);
        self.network.cut(b, a);
    }

    /// Nothing goes from one replica to another any more; the other direction is as it was.
    pub fn part_one_way(&mut self, from: NodeId, to: NodeId) {
        self.network.cut(from, to);
    }

    /// One reason less for which nothing goes from one replica to another.
    pub fn mend_one_way(&mut self, from: NodeId, to: NodeId) {
        self.network.mend(from, to);
    }

    /// The network falls apart in this shape, around whoever leads; which links are cut.
    pub fn fall_apart(&mut self, shape: Shape, draw: u64) -> Vec<(NodeId, NodeId)> {
        let ids: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        let cuts = shape.cuts(&ids, self.leader(), &mut Rng::new(draw));
        cuts.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        cuts
    }

    /// One bit of a file flips while its machine is switched off for a moment; the replica then starts again, if it can.
    pub fn rot(&mut self, id: NodeId, file: &str, bit: usize) {
        self.crash(id, Some(Loss::Nothing), self.plan.election / 10);
        let node = self.node(id);
        node.disk.flip(file, bit);
        node.harmed = true;
    }

    /// Whether a replica stopped for good, and why.
    #[must_use]
    pub fn stopped(&self, id: NodeId) -> Option<&str> {
        match &self.nodes[id.0 as usize - 1].health {
            Health::Fine => None,
            Health::Dead(error) => Some(error),
        }
    }

    /// Every link works.
    pub fn mend_links(&mut self) {
        self.network.mend_all();
    }

    /// A machine's disk.
    #[must_use]
    pub fn disk(&self, id: NodeId) -> &SimDisk {
        &self.nodes[id.0 as usize - 1].disk
    }

    /// What a replica has applied, where there is no single order.
    #[must_use]
    pub fn vector(&self, id: NodeId) -> Option<&synod_core::Vector> {
        self.vector_of(id)
    }

    /// A digest of what a replica's keys hold.
    #[must_use]
    pub fn contents(&self, id: NodeId) -> Option<u64> {
        Some(self.nodes[id.0 as usize - 1].running.as_ref()?.replica.machine().contents())
    }

    /// Behind how many commands a replica stands, while it runs.
    #[must_use]
    pub fn stands_behind(&self, id: NodeId) -> Option<u64> {
        Some(self.nodes[id.0 as usize - 1].running.as_ref()?.replica.machine().count)
    }

    /// A replica goes down and stays so.
    pub fn take_down(&mut self, id: NodeId) {
        self.crash(id, Some(Loss::Everything), Duration::ZERO);
        self.node(id).held_down = true;
    }

    /// Gives a replica a command that no client waits for.
    pub fn submit(&mut self, id: NodeId) {
        if self.node(id).running.is_none() {
            return;
        }
        self.node(id).commands += 1;
        let command = CommandId { origin: id, number: self.node(id).commands };
        let payload = self.clients.probe().payload();
        self.ledger.submit(command, digest(&payload));
        self.with(id, |replica, _| {
            // Busy is an answer, too: the experiment tries again.
            let _ = replica.submit(Command { id: command, payload });
        });
    }
}
