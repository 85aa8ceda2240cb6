//! Carrying out the faults of the plan, and mending what mends by itself.

use std::time::Duration;

use synod_core::{Change, NodeId, Time};

use super::node::Sends;
use super::{Event, Health, Joined, Loss, World};
use crate::disk::Damage;
use crate::family::Family;
use crate::faults::{Cue, Fault, FaultKind, Target, Until};
use crate::network::NODES_MAX;
use crate::partition::Shape;
use crate::trace::What;

/// What mends by itself; only if nobody mended everything meanwhile.
pub(super) struct Mending {
    epoch: u64,
    what: Mend,
}

/// From whom to whom.
pub(super) type Links = Vec<(NodeId, NodeId)>;

enum Mend {
    Links(Links),
    /// What this fault cut, if nobody has taken the lead since.
    Apart(usize),
    /// Cut now if it was mended, and the other way round, so many times more.
    Flap(Links, Phase, u32, Duration),
    Room(NodeId),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Cut,
    Mended,
}

/// So many machines take part in a run, replaced ones included, where nobody switches any off.
const MACHINES_MAX: usize = 40;

/// So many faults lie in wait for one cue at most; more strike by the clock.
const LURKING_MAX: usize = 3;

/// So many strike at one cue.
const STRIKES_MAX: usize = 2;

/// No cluster grows beyond this many voters.
const VOTERS_MAX: usize = 7;

impl<F: Family> World<F> {
    fn resolve(&self, target: Target) -> Option<NodeId> {
        let draw = match target {
            Target::Node(node) => return Some(node),
            Target::Leader(draw) => match self.leader() {
                Some(leader) => return Some(leader),
                None => draw,
            },
            Target::Any(draw) => draw,
        };
        let up: Vec<NodeId> =
            self.nodes.iter().filter(|node| node.running.is_some()).map(|node| node.id).collect();
        (!up.is_empty()).then(|| up[(draw % up.len() as u64) as usize])
    }

    fn later(&mut self, after: Duration, what: Mend) {
        let epoch = self.epoch;
        self.events.push(self.now + after, Event::Mend(Mending { epoch, what }));
    }

    /// The time of a fault has come: it strikes, or lies in wait for its cue.
    pub(super) fn fault_is_due(&mut self, number: usize) {
        let cue = self.plan.planned[number].cue;
        let waiting = self.lurking.iter().filter(|other| self.plan.planned[**other].cue == cue).count();
        if cue != Cue::Clock && waiting < LURKING_MAX {
            self.lurking.push(number);
        } else {
            self.carry_out(number, None);
        }
    }

    /// Something happened at a replica for which faults may be waiting.
    pub(super) fn cue(&mut self, cue: Cue, node: NodeId) {
        if cue == Cue::Lead {
            for (_, after, cuts) in std::mem::take(&mut self.fallen_apart) {
                self.later(after, Mend::Links(cuts));
            }
        }
        for _ in 0..STRIKES_MAX {
            let waits = |number: &usize| self.plan.planned[*number].cue == cue;
            let Some(place) = self.lurking.iter().position(waits) else { return };
            let number = self.lurking.remove(place);
            let at = self.now + self.plan.planned[number].after;
            self.events.push(at, Event::Strike { number, node });
        }
    }

    /// A fault strikes; `cued` is where the cue came from.
    pub(super) fn carry_out(&mut self, number: usize, cued: Option<NodeId>) {
        if self.epoch > 0 {
            return; // The time for faults is over.
        }
        let planned = self.plan.planned[number];
        let (kind, now) = (planned.kind, self.now);
        let ids: Vec<NodeId> = match self.steward {
            None => self.nodes.iter().map(|node| node.id).collect(),
            // Over a long life most machines are history.
            Some(_) => {
                self.nodes.iter().filter(|node| node.health == Health::Fine).map(|node| node.id).collect()
            }
        };
        let count = ids.len() as u64;
        match planned.fault {
            Fault::Partition { shape, lasts, until, draw } => {
                let mut rng = synod_core::Rng::new(draw);
                let cuts = shape.cuts(&ids, self.leader(), &mut rng);
                if cuts.is_empty() {
                    return;
                }
                self.fault(None, kind, || format!("partition, {}: cut {cuts:?} for {lasts:?}", shape.name()));
                self.cut_all(shape, &cuts);
                match until {
                    _ if shape == Shape::Flapping => {
                        self.later(lasts / 8, Mend::Flap(cuts, Phase::Cut, 7, lasts / 8));
                    }
                    Until::Lead => {
                        self.fallen_apart.push((number, lasts / 8, cuts));
                        self.later(lasts, Mend::Apart(number));
                    }
                    Until::Clock => self.later(lasts, Mend::Links(cuts)),
                }
            }
            Fault::LeaveOut { lasts } => match (planned.cue, cued) {
                (Cue::Members, Some(_)) => self.leave_behind(number, &ids, lasts),
                (_, Some(asked)) => self.leave_out(asked, &ids, lasts),
                (_, None) => {}
            },
            Fault::Clog { draw, lasts } if count > 1 => {
                let from = ids[(draw % count) as usize];
                let to = ids[((draw % count + 1 + (draw >> 32) % (count - 1)) % count) as usize];
                self.fault(None, kind, || format!("{from:?} -> {to:?} is clogged for {lasts:?}"));
                self.network.clog(from, to, now + lasts);
            }
            Fault::Clog { .. } => {}
            Fault::Blackout { loss, down } => {
                self.fault(None, kind, || format!("all lose their power ({loss:?})"));
                for id in ids {
                    if self.node(id).running.is_some() {
                        self.crash(id, Some(loss), down);
                    }
                }
            }
            Fault::Members { draw } => {
                self.change_members(draw);
                if planned.cue != Cue::Lead && draw >> 63 == 0 {
                    // Every other operator asks the next leader at once, whatever became of it, and for something else.
                    let planned = &mut self.plan.planned[number];
                    planned.cue = Cue::Lead;
                    planned.fault = Fault::Members { draw: crate::machine::mix(1, draw) };
                    self.lurking.insert(0, number);
                }
            }
            Fault::Transfer { draw } => {
                let Some(leader) = self.leader().filter(|leader| self.paused(*leader).is_none()) else {
                    return;
                };
                let to = ids[(draw % count) as usize];
                if to != leader {
                    self.fault(Some(leader), kind, || format!("is asked to hand over to {to:?}"));
                    self.with(leader, |replica, now| replica.transfer_leadership(now, to));
                    self.asked(leader, kind);
                }
            }
            Fault::Kill { target, .. }
            | Fault::Power { target, .. }
            | Fault::CrashAtDisk { target, .. }
            | Fault::CrashAtSend { target, .. }
            | Fault::Pause { target, .. }
            | Fault::Jump { target, .. }
            | Fault::SlowDisk { target, .. }
            | Fault::StuckDisk { target, .. }
            | Fault::FullDisk { target, .. }
            | Fault::DiskError { target, .. }
            | Fault::Harm { target, .. } => {
                let costs_one = matches!(planned.fault, Fault::Harm { .. } | Fault::DiskError { .. });
                let target = match (target, cued) {
                    // Mostly it hits whoever gave the cue, and else somebody who has to do with it.
                    (Target::Leader(_), Some(node)) => Target::Node(node),
                    (Target::Any(draw), Some(node)) if draw >> 63 == 0 => Target::Node(node),
                    (target, _) => target,
                };
                let target = match (target, self.steward.is_some() && costs_one) {
                    (_, true) if !self.may_be_harmed() => return,
                    // Whoever has the name that was drawn may be gone for long.
                    (Target::Node(_), true) => Target::Any(number as u64),
                    (target, _) => target,
                };
                if let Some(id) = self.resolve(target) {
                    self.hit(id, kind, planned.fault);
                }
            }
        }
    }

    /// A fault that hits one machine.
    fn hit(&mut self, id: NodeId, kind: FaultKind, fault: Fault) {
        let now = self.now;
        let is_up = self.node(id).running.is_some();
        if self.node(id).health != Health::Fine || !is_up && !matches!(fault, Fault::Harm { .. }) {
            return;
        }
        match fault {
            Fault::Kill { down, .. } => {
                self.fault(Some(id), kind, || "is killed".to_owned());
                self.crash(id, None, down);
            }
            Fault::Power { loss, down, .. } => {
                self.fault(Some(id), kind, || "loses its power".to_owned());
                self.crash(id, Some(loss), down);
            }
            Fault::CrashAtDisk { trap, loss, down, .. } => {
                self.fault(Some(id), kind, || format!("will lose its power at the disk: {trap:?}"));
                let node = self.node(id);
                node.end = super::End { loss, down };
                node.disk.arm(trap);
            }
            Fault::CrashAtSend { side, packets, skip, loss, down, .. } => {
                self.fault(Some(id), kind, || format!("will end at a packet: {packets:?} but {skip}"));
                let node = self.node(id);
                node.end.down = down;
                node.sends_left = Some(Sends { side, packets, skip, loss });
            }
            Fault::Pause { lasts, .. } => {
                self.fault(Some(id), kind, || format!("stands still for {lasts:?}"));
                self.node(id).paused_until = now + lasts;
            }
            Fault::Jump { by, .. } => {
                self.fault(Some(id), kind, || format!("its clock leaps ahead by {by:?}"));
                self.node(id).clock.leap(by);
                self.ask_for_wake_up(id);
            }
            Fault::SlowDisk { extra, lasts, .. } => {
                self.fault(Some(id), kind, || format!("its disk takes {extra:?} longer for {lasts:?}"));
                let node = self.node(id);
                (node.slow, node.slow_until) = (extra, now + lasts);
            }
            Fault::StuckDisk { lasts, .. } => {
                self.fault(Some(id), kind, || format!("its disk is stuck for {lasts:?}"));
                self.node(id).stuck_until = now + lasts;
            }
            Fault::FullDisk { lasts, .. } => {
                self.fault(Some(id), kind, || format!("its disk is full for {lasts:?}"));
                let node = self.node(id);
                node.disk.set_capacity(node.disk.used());
                self.later(lasts, Mend::Room(id));
            }
            Fault::DiskError { trap, down, .. } => {
                self.fault(Some(id), kind, || format!("its disk will fail: {trap:?}"));
                let node = self.node(id);
                node.failing = true;
                node.end.down = down;
                node.disk.arm(trap);
            }
            Fault::Harm { damage, down, .. } => self.harm(id, kind, damage, down),
            _ => {}
        }
    }

    /// The power fails, and the disk is not what it was when it comes back.
    fn harm(&mut self, id: NodeId, kind: FaultKind, damage: Damage, down: Duration) {
        let was_up = self.node(id).running.is_some();
        if was_up {
            self.crash(id, Some(Loss::Nothing), down);
        }
        let node = self.node(id);
        let Some(what) = node.disk.harm(damage) else { return };
        node.harmed = true;
        node.sectors_lost += usize::from(damage != Damage::Rot);
        self.fault(Some(id), kind, || what);
    }

    /// A leader was just asked for something, and is left out of what comes of it: whoever was asked to hand over does not hear that somebody
    /// has taken over, and of whoever was asked for other members nobody hears whom. A leader that is none any more does the most harm then.
    fn leave_out(&mut self, leader: NodeId, all: &[NodeId], lasts: Duration) {
        let others = || all.iter().filter(|id| **id != leader);
        let mut cuts: Links = others().map(|id| (*id, leader)).collect();
        let shape = match self.asked_for {
            Some(FaultKind::Transfer) => Shape::LeaderOneWay,
            _ => {
                cuts.extend(others().map(|id| (leader, *id)));
                Shape::OneAlone
            }
        };
        if !cuts.is_empty() {
            self.fault(Some(leader), FaultKind::Partition, || {
                format!("is left out for {lasts:?}: cut {cuts:?}")
            });
            self.cut_all(shape, &cuts);
            self.later(lasts, Mend::Links(cuts));
        }
    }

    /// The members have just changed: whoever leads and who came last are parted from the others, who may not know of it yet, until somebody
    /// has taken the lead. Each side may find a quorum, by its own members.
    fn leave_behind(&mut self, number: usize, all: &[NodeId], lasts: Duration) {
        let (Some(leader), Some(newest)) = (self.leader(), all.last().copied()) else { return };
        let ahead = |id: &NodeId| *id == leader || *id == newest;
        let pairs = all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to)));
        let cuts: Links = pairs.filter(|(from, to)| ahead(from) != ahead(to)).collect();
        if !cuts.is_empty() {
            let text = || format!("the others are left behind for {lasts:?}: cut {cuts:?}");
            self.fault(Some(leader), FaultKind::Partition, text);
            self.cut_all(Shape::Halves, &cuts);
            self.fallen_apart.push((number, lasts / 8, cuts));
            self.later(lasts, Mend::Apart(number));
        }
    }

    /// These links are cut from now on.
    fn cut_all(&mut self, shape: Shape, cuts: &Links) {
        *self.counts.partitions.entry((shape.name(), self.plan.nodes)).or_default() += 1;
        cuts.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        self.cue(Cue::Apart, self.leader().unwrap_or(cuts[0].0));
    }

    /// An operator has asked a leader for something.
    fn asked(&mut self, leader: NodeId, kind: FaultKind) {
        self.asked_for = Some(kind);
        self.cue(Cue::Asked, leader);
    }

    fn change_members(&mut self, draw: u64) {
        let asked = self.leader().or_else(|| self.proposer(draw >> 16));
        let Some(leader) = asked.filter(|leader| self.paused(*leader).is_none()) else { return };
        let Some(running) = &self.node(leader).running else { return };
        let members = running.replica.status().members;
        let voters: Vec<NodeId> = members.voters.iter().copied().collect();
        let learners: Vec<NodeId> = members.learners.iter().copied().collect();
        if members.is_joint() || voters.is_empty() {
            return;
        }
        let pick = |from: &[NodeId]| from[(draw >> 8) as usize % from.len()];
        let (is_kept, fewest, voters_max) = match self.steward {
            Some(_) => (!self.may_be_harmed(), 3, 4),
            None => (false, 2, VOTERS_MAX),
        };
        if is_kept {
            return; // Whoever is lost must be replaced first.
        }
        let most = if self.steward.is_some() { NODES_MAX } else { MACHINES_MAX };
        let can_grow = self.nodes.len() + 2 < most || self.spare().is_some();
        let changes = match draw % 8 {
            0 | 1 if !learners.is_empty() => vec![Change::AddVoter(pick(&learners))],
            0 | 1 if can_grow && voters.len() < voters_max => vec![Change::AddLearner(self.candidate())],
            2 if can_grow && voters.len() < voters_max => vec![Change::AddVoter(self.candidate())],
            3..6 if can_grow && voters.len() > 1 => {
                vec![Change::Remove(pick(&voters)), Change::AddVoter(self.candidate())]
            }
            6 if !learners.is_empty() => vec![Change::Remove(pick(&learners))],
            _ if voters.len() > fewest => vec![Change::Remove(pick(&voters))],
            _ => return,
        };
        self.fault(Some(leader), FaultKind::Members, || format!("is asked for {changes:?}"));
        self.with(leader, |replica, now| replica.reconfigure(now, changes));
        self.asked(leader, FaultKind::Members);
    }

    /// Who may join: a machine that an earlier, declined request called for, or a new one.
    pub(super) fn candidate(&mut self) -> NodeId {
        self.spare().unwrap_or_else(|| self.newcomer())
    }

    /// A new machine, with an empty disk and a name that was never used.
    pub(super) fn newcomer(&mut self) -> NodeId {
        let id = NodeId(self.nodes.len() as u64 + 1);
        self.add_machine(id, Joined::Later);
        self.events.push(self.now, Event::Start { node: id });
        id
    }

    pub(super) fn mend(&mut self, mending: Mending) {
        if mending.epoch != self.epoch {
            return;
        }
        match mending.what {
            Mend::Links(links) => {
                links.iter().for_each(|(from, to)| self.network.mend(*from, *to));
                self.recorder.note(self.now, None, || What::Fault(format!("mended {links:?}")));
            }
            Mend::Apart(number) => {
                if let Some(place) = self.fallen_apart.iter().position(|(other, ..)| *other == number) {
                    let (_, _, cuts) = self.fallen_apart.remove(place);
                    self.later(Duration::ZERO, Mend::Links(cuts));
                }
            }
            Mend::Flap(links, phase, left, every) => {
                let next = match phase {
                    Phase::Cut => {
                        links.iter().for_each(|(from, to)| self.network.mend(*from, *to));
                        Phase::Mended
                    }
                    Phase::Mended => {
                        links.iter().for_each(|(from, to)| self.network.cut(*from, *to));
                        Phase::Cut
                    }
                };
                self.recorder.note(self.now, None, || What::Fault("the links flap".to_owned()));
                match (next, left) {
                    (_, 1..) => self.later(every, Mend::Flap(links, next, left - 1, every)),
                    (Phase::Cut, 0) => self.later(every, Mend::Links(links)),
                    (Phase::Mended, 0) => {}
                }
            }
            Mend::Room(id) => {
                self.node(id).disk.set_capacity(u64::MAX);
                self.recorder.note(self.now, Some(id), || What::Fault("its disk has room again".to_owned()));
            }
        }
    }

    /// Everything that can be mended is, for everybody; what is dead stays so. Pending mendings are void.
    pub(super) fn mend_everything(&mut self) {
        self.epoch += 1;
        self.network.mend_all();
        self.fallen_apart.clear();
        let now = self.now;
        for node in &mut self.nodes {
            node.disk.disarm();
            node.disk.set_capacity(u64::MAX);
            node.slow_until = Time::ZERO;
            node.stuck_until = now;
            node.paused_until = now;
            node.sends_left = None;
            node.failing = false;
        }
    }
}
