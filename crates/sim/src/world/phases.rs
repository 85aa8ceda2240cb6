//! The two phases of a run: first nothing bad may happen whatever goes wrong, then something good must.
//!
//! Safety and liveness are tested apart, as TigerBeetle's simulator does. In the *safety phase* everything may
//! fail at any time, and nothing is asked but that no property breaks. Then a random *core*, just enough replicas
//! to decide, is healed, and the rest stays broken in one way or another: down, cut off, or half cut off.
//! Within [`LIVENESS_ELECTIONS_MAX`] election timeouts every replica of the core must answer a write and hold
//! everything that was ever decided.

use std::time::Duration;

use synod_core::{CommandId, Members, NodeId, Role, Time};

use super::{Calling, Counts, Event, Health, Loss, World};
use crate::client::{Ended, Record};
use crate::disk::Coverage;
use crate::family::{Disruption, Family, Finality};
use crate::faults::FaultKind;
use crate::machine::Audited;
use crate::oracle::Violation;
use crate::oracle::history::{Judge, Judged, LeaseTiming, judge};
use crate::oracle::ledger::Judging;
use crate::script::Order;
use crate::trace::{Happening, What};

/// A healed core must decide again within so many (longest) election timeouts.
pub const LIVENESS_ELECTIONS_MAX: u32 = 30;

/// What a run came to.
pub struct Outcome {
    /// The first property that broke, if one did.
    pub violation: Option<Violation>,
    /// The digest over everything that happened.
    pub hash: u64,
    /// How long the run took, in the world's time.
    pub simulated: Duration,
    /// The longest time that a healthy core takes to answer under the run's options: an election timeout, as a rule.
    pub election: Duration,
    /// How often things happened.
    pub counts: Counts,
    /// The disks' sites that were passed, and where the power was cut.
    pub coverage: Coverage,
    /// How the liveness phase went.
    pub recovery: Recovery,
    /// Operations that clients began.
    pub operations: u64,
    /// Operations that were answered.
    pub answered: u64,
    /// Commands that were decided.
    pub decided: u64,
    /// Terms that had a leader.
    pub leaders: u64,
    /// Whether the checker could judge the clients' history.
    pub judged: Option<Judged>,
    /// What happened, if it was recorded.
    pub happenings: Vec<Happening>,
    /// What clients did.
    pub records: Vec<Record>,
}

/// How the liveness phase went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recovery {
    /// It was not tried: a property broke before, or too few replicas are left by the faults' own rules.
    NotTried,
    /// The core decided again after so long.
    After(Duration),
}

impl<F: Family> World<F> {
    /// Runs both phases and judges what happened.
    pub fn run(mut self) -> Outcome {
        self.run_until(Time::ZERO + self.plan.safety);
        self.conclude()
    }

    /// The liveness phase, and the judgement.
    pub(super) fn conclude(mut self) -> Outcome {
        let recovery = if self.violation.is_none() { self.liveness() } else { Recovery::NotTried };
        let mut judged = None;
        // Where nothing is certain, no read is wrong: that all hold the same once everything is quiet has been seen to already.
        let judges = F::finality(&self.plan.options) != Finality::Probable;
        if self.violation.is_none() && judges {
            // A fast clock ends leases early by its share, which the world's own oracle allows for.
            let fast = self.plan.drift_ppm > 0 || self.plan.faults.has(FaultKind::Jump);
            let leases = if fast { LeaseTiming::NotJudged } else { LeaseTiming::Judged };
            let by = Judge { level: F::level(&self.plan.options), leases };
            match judge(F::NAME, &self.clients.records, &self.heard, by) {
                Ok(verdict) => judged = Some(verdict),
                Err(broken) => self.broken(broken),
            }
        }
        self.finish(recovery, judged)
    }

    /// Ends the run.
    fn finish(mut self, recovery: Recovery, judged: Option<Judged>) -> Outcome {
        for node in &self.nodes {
            self.coverage.add(&node.disk.coverage());
        }
        let answered =
            self.clients.records.iter().filter(|record| matches!(record.ended, Ended::Said(_))).count()
                as u64;
        Outcome {
            violation: self.violation,
            hash: self.hash,
            simulated: self.now.since(Time::ZERO),
            election: self.plan.answer,
            counts: self.counts,
            coverage: self.coverage,
            recovery,
            operations: self.clients.records.len() as u64,
            answered,
            decided: self.ledger.len() as u64,
            leaders: self.leaders.count() as u64,
            judged,
            happenings: self.recorder.into_happenings(),
            records: self.clients.records,
        }
    }

    fn liveness(&mut self) -> Recovery {
        self.calling = Calling::No;
        let Some(core) = self.choose_core() else { return Recovery::NotTried };
        self.mend_everything();
        self.network.rates = self.plan.calm;
        let began = self.now;
        self.recorder.note(began, None, || What::Fault(format!("the core {core:?} is healed")));
        for id in &core {
            self.events.push(began + self.plan.election / 50, Event::Start { node: *id });
        }
        self.break_the_rest(&core);

        self.calling = Calling::Probing;
        self.plan.think = self.plan.answer / 10;
        self.plan.patience = self.plan.answer;
        let voters = self.voters();
        for id in core.iter().filter(|id| voters.contains(id)) {
            let client = self.clients.hire(*id);
            self.probes.insert(client, *id);
            self.events.push(began + self.plan.election / 10, Event::Call { client });
        }
        let end = began + self.plan.answer * LIVENESS_ELECTIONS_MAX;
        while self.now < end && self.violation.is_none() {
            self.run_until((self.now + self.plan.answer / 8).min(end));
            if self.is_recovered(&core) {
                let took = self.now.since(began);
                self.calling = Calling::No;
                self.run_until(self.now + self.plan.answer * 3);
                self.compare(&core);
                return Recovery::After(took);
            }
        }
        if self.violation.is_none() {
            let silent: Vec<NodeId> =
                self.probes.values().copied().filter(|id| !self.probed.contains(id)).collect();
            let behind: Vec<NodeId> =
                core.iter().copied().filter(|id| !self.holds_everything(*id, &core)).collect();
            self.broken((
                "termination",
                format!(
                    "{LIVENESS_ELECTIONS_MAX} election timeouts after the core {core:?} was healed, {silent:?} answer no \
                     write and {behind:?} lack something decided"
                ),
            ));
        }
        Recovery::NotTried
    }

    pub(super) fn voters(&self) -> Vec<NodeId> {
        match self.ledger.members().or(self.primary_members().as_ref()) {
            Some(members) => members.all().filter(|id| members.is_voter(*id)).collect(),
            None => (1..=self.plan.nodes).map(NodeId).collect(),
        }
    }

    /// Where positions say nothing, the members are those that the newest primary goes by, if there is such a thing.
    fn primary_members(&self) -> Option<Members> {
        if self.ledger.judging() != Judging::Sets {
            return None;
        }
        let running = self.nodes.iter().filter_map(|node| node.running.as_ref());
        let primaries = running.filter(|running| running.role == Role::Primary);
        primaries.max_by_key(|running| running.term).map(|running| running.replica.status().members)
    }

    /// Whether a machine may be asked to be of use: neither it nor its disk is lost.
    fn is_sound(&self, node: &super::Node<F>) -> bool {
        node.health == Health::Fine && !node.harmed
    }

    /// Enough replicas to decide, drawn from those that are not lost.
    fn choose_core(&mut self) -> Option<Vec<NodeId>> {
        let mut healthy: Vec<NodeId> =
            self.nodes.iter().filter(|node| self.is_sound(node)).map(|node| node.id).collect();
        let liars = self.plan.liars.clone();
        healthy.retain(|id| !liars.contains(id));
        if self.plan.faults.has(FaultKind::Members) {
            // Who is needed depends on changes under way: everybody is well again.
            return Some(healthy);
        }
        let nodes = self.plan.nodes as usize;
        let needed = nodes - F::losses_max(nodes);
        if healthy.len() < needed {
            return None;
        }
        let size = needed + self.rng.below((healthy.len() - needed) as u64 + 1) as usize;
        for i in (1..healthy.len()).rev() {
            healthy.swap(i, self.rng.below(i as u64 + 1) as usize);
        }
        healthy.truncate(size);
        healthy.sort_unstable();
        Some(healthy)
    }

    /// Those outside the core stay broken, each in its own way.
    fn break_the_rest(&mut self, core: &[NodeId]) {
        let rest: Vec<NodeId> =
            self.nodes.iter().map(|node| node.id).filter(|id| !core.contains(id)).collect();
        for id in rest {
            if self.plan.liars.contains(&id) {
                continue; // Liars go on lying.
            }
            // The last way is for more than three: of three, one that leads and reaches one other has a majority, and
            // rightly goes on to lead, out of the third one's reach (the chain of the Omni-Paxos paper).
            let ways = match F::disruption(&self.plan.options) {
                Disruption::Harmful => 2,
                Disruption::Harmless if self.plan.nodes > 3 => 5,
                Disruption::Harmless => 4,
            };
            let way = self.rng.below(ways);
            let everybody: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
            let cut = |network: &mut crate::network::Network, inward: Way, outward: Way| {
                for other in everybody.iter().filter(|other| **other != id) {
                    if outward == Way::Cut {
                        network.cut(id, *other);
                    }
                    if inward == Way::Cut {
                        network.cut(*other, id);
                    }
                }
            };
            let what = match way {
                0 => {
                    self.crash(id, Some(Loss::Everything), Duration::ZERO);
                    self.node(id).held_down = true;
                    "stays down"
                }
                1 => {
                    cut(&mut self.network, Way::Cut, Way::Cut);
                    "stays cut off"
                }
                2 => {
                    cut(&mut self.network, Way::Cut, Way::Open);
                    "is heard, but hears nothing"
                }
                3 => {
                    cut(&mut self.network, Way::Open, Way::Cut);
                    "hears, but is not heard"
                }
                _ => {
                    let partner = core[self.rng.below(core.len() as u64) as usize];
                    cut(&mut self.network, Way::Cut, Way::Cut);
                    self.network.mend(id, partner);
                    self.network.mend(partner, id);
                    "reaches one of the core alone"
                }
            };
            self.recorder.note(self.now, Some(id), || What::Fault(what.to_owned()));
        }
    }

    /// Of what clients were told is done: what this core must hold in the end. Without a single order a replica answers when its own disk
    /// has a write, so a write may be gone with the replica that took it; and so with a miner that is never heard of again.
    fn promised(&self, core: &[NodeId]) -> impl Iterator<Item = CommandId> {
        let acknowledged = self.ledger.acknowledged();
        let by_core = F::ORDER != Order::Total || F::finality(&self.plan.options) == Finality::Probable;
        acknowledged.filter(move |id| !by_core || core.contains(&id.origin))
    }

    fn holds_everything(&self, id: NodeId, core: &[NodeId]) -> bool {
        let Some(running) = &self.nodes[id.0 as usize - 1].running else { return false };
        let machine = running.replica.machine();
        match (&machine.seen, F::finality(&self.plan.options)) {
            (None, _) => machine.count as usize >= self.ledger.len(),
            (Some(seen), Finality::Certain) => self.promised(core).all(|id| seen.contains(&id)),
            (Some(_), Finality::Revocable | Finality::Probable) => true,
        }
    }

    fn is_recovered(&self, core: &[NodeId]) -> bool {
        let voters = self.voters();
        self.probes.values().all(|id| self.probed.contains(id) || !voters.contains(id))
            && core.iter().filter(|id| voters.contains(id)).all(|id| self.holds_everything(*id, core))
    }

    /// With everything quiet, all of the core are in the same state. A lease may end at just this moment: replicas
    /// that stand behind different numbers of commands get a little more time.
    fn compare(&mut self, core: &[NodeId]) {
        if self.ledger.judging() == Judging::Sets {
            return self.compare_sets(core);
        }
        for _ in 0..QUIET_TRIES_MAX {
            let states = self.states(core);
            let Some((first, count, state)) = states.first().copied() else { return };
            if states.iter().all(|(_, other, _)| *other == count) {
                if let Some((other, ..)) = states.iter().find(|(_, _, other)| *other != state) {
                    self.broken((
                        "convergence",
                        format!("{first:?} and {other:?} are in different states in the end"),
                    ));
                }
                return;
            }
            self.run_until(self.now + self.plan.answer / 2);
        }
    }

    /// With everything quiet, all of the core contain the same commands and hold the same values; and what clients were told is
    /// done is among them, unless the protocol may take it back: then it is counted.
    fn compare_sets(&mut self, core: &[NodeId]) {
        let mut differ = None;
        for tried in 1..=QUIET_TRIES_MAX {
            // Looked at anew each time: just now there may have been no primary.
            let voters = self.voters();
            let has_primary = self.primary_members().is_some();
            let counts = |id: &NodeId| !has_primary || voters.contains(id);
            let (core, estranged) = self.split(core);
            let machines: Vec<_> = core
                .iter()
                .filter(|id| counts(id))
                .filter_map(|id| Some((*id, self.nodes[id.0 as usize - 1].running.as_ref()?)))
                .map(|(id, running)| (id, running.replica.machine()))
                .collect();
            let Some((first, one)) = machines.first().copied() else { return };
            let same = |other: &Audited| other.seen == one.seen && other.contents() == one.contents();
            differ = machines.iter().find(|(_, other)| !same(other)).map(|(other, _)| (first, *other));
            if differ.is_none() {
                let lost: Vec<CommandId> = match &one.seen {
                    Some(seen) => self.promised(&core).filter(|id| !seen.contains(id)).collect(),
                    None => Vec::new(),
                };
                let finality = F::finality(&self.plan.options);
                if finality == Finality::Probable && !lost.is_empty() && tried < QUIET_TRIES_MAX {
                    // It is being done again.
                    self.run_until(self.now + self.plan.answer / 2);
                    continue;
                }
                self.counts.revoked += lost.len() as u64;
                self.counts.estranged += estranged;
                let admits = |node: &super::Node<F>| {
                    node.running.as_ref().is_some_and(|running| F::admits_loss(running.replica.protocol()))
                };
                let admitted = match finality {
                    Finality::Certain => false,
                    Finality::Revocable => self.nodes.iter().any(admits),
                    Finality::Probable => lost.iter().all(|id| admits(&self.nodes[id.origin.0 as usize - 1])),
                };
                if !lost.is_empty() && !admitted {
                    let lost = lost.len();
                    self.broken((
                        "durability",
                        format!("{first:?} lacks {lost} acknowledged commands in the end"),
                    ));
                }
                return;
            }
            self.run_until(self.now + self.plan.answer / 2);
        }
        if let Some((one, other)) = differ {
            self.broken(("convergence", format!("{one:?} and {other:?} hold different things in the end")));
        }
    }

    /// Who of the core goes along, and how many say that they cannot.
    fn split(&self, core: &[NodeId]) -> (Vec<NodeId>, u64) {
        let estranged = |id: &NodeId| {
            let running = self.nodes[id.0 as usize - 1].running.as_ref();
            running.is_some_and(|running| F::is_estranged(running.replica.protocol()))
        };
        let (apart, along): (Vec<NodeId>, Vec<NodeId>) = core.iter().copied().partition(estranged);
        (along, apart.len() as u64)
    }

    /// Of each voter of the core: who, behind how many commands, in which state.
    fn states(&self, core: &[NodeId]) -> Vec<(NodeId, u64, u64)> {
        let voters = self.voters();
        let chosen = core.iter().filter(|id| voters.contains(id));
        let running = chosen.filter_map(|id| Some((*id, self.nodes[id.0 as usize - 1].running.as_ref()?)));
        running
            .map(|(id, running)| {
                let machine = running.replica.machine();
                (id, machine.count, machine.state())
            })
            .collect()
    }
}

/// How often the end waits for replicas that are a command behind.
const QUIET_TRIES_MAX: u32 = 12;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Cut,
}
