//! The world: virtual time, machines, a network, clients, and everything that goes wrong.
//!
//! One event at a time is taken from the heap; it is given to the replica that it concerns, the replica is flushed,
//! and what it wants done becomes further events. Nothing else moves time. Every random choice comes from
//! generators that are forked from one seed, one for each part, so that leaving a fault out disturbs the
//! others as little as possible. The digest over all events ([`World::trace_hash`]) tells two runs apart.
//!
//! The replica, the log, the recovery and the store are the shipped ones; the machines around them are not.

mod events;
mod lab;
mod nemesis;
mod node;
mod outside;
mod phases;
mod services;
mod storage;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{Command, CommandId, Config, Lsn, Members, NodeId, Protocol, ReadId, Rng, Role, Time, Wire};
use synod_replica::{CompactionPolicy, Limits, Packet, Replica};

use crate::client::{Clients, Ended, Record, Waiting};
use crate::disk::{Coverage, Loss, SimDisk};
use crate::family::Family;
use crate::faults::FaultKind;
use crate::machine::{Applied, Ask, Audited, Way, digest, mix};
use crate::network::{Fate, Form, NODES_MAX, Network};
use crate::oracle::ledger::Broken;
use crate::oracle::{Leaders, Ledger, Violation};
use crate::script::{Order, show_packet};
use crate::swarm::Plan;
use crate::trace::{Recorder, What};
use crate::watcher::{Heard, Watcher};
use events::Events;
use node::{Clock, End, Health, Node, Running};
use outside::Effects;
pub use phases::{LIVENESS_ELECTIONS_MAX, Outcome, Recovery};
pub use storage::CLUSTER;
use storage::{Notice, Started, Storage};

/// A plan for a family's protocol.
pub type PlanOf<F> = Plan<<<F as Family>::Protocol as Protocol>::Options>;
type MessageOf<F> = <<F as Family>::Protocol as Protocol>::Message;

enum Event<F: Family> {
    Arrive { flight: u64, from: NodeId, to: NodeId, body: Body<MessageOf<F>> },
    Wake { node: NodeId, life: u64 },
    LogDone { node: NodeId, life: u64 },
    LogRetry { node: NodeId, life: u64 },
    SnapshotDone { node: NodeId, life: u64 },
    Mark { node: NodeId, life: u64 },
    Leases { node: NodeId, life: u64 },
    Watch { watcher: usize },
    Start { node: NodeId },
    Call { client: usize },
    GiveUp { client: usize, turn: u64 },
    Fault(usize),
    Mend(nemesis::Mending),
}

enum Body<M> {
    Value(Packet<M>),
    /// Encoded, with the CRC-32C that its frame carries.
    Frame(Bytes, u32),
}

/// How often things happened.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Faults carried out, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Events handled.
    pub events: u64,
    /// Packets sent.
    pub packets: u64,
    /// Frames that arrived damaged and were recognised by their checksum.
    pub frames_refused: u64,
    /// Crashes at sends, by the kind of message.
    pub send_crashes: BTreeMap<String, u64>,
    /// Starts of replicas, first ones included.
    pub starts: u64,
    /// Batches that a power cut tore, found by recovery.
    pub torn: u64,
    /// Replicas that stopped for damage, by a named error.
    pub stopped: u64,
    /// Snapshots installed from peers.
    pub installed: u64,
    /// Snapshots saved.
    pub saved: u64,
}

/// A simulated cluster.
pub struct World<F: Family> {
    plan: PlanOf<F>,
    now: Time,
    events: Events<Event<F>>,
    nodes: Vec<Node<F>>,
    network: Network,
    clients: Clients,
    watchers: Vec<Watcher>,
    heard: Vec<Heard>,
    /// What leases' holders were promised.
    lease_terms: BTreeMap<i64, services::LeaseTerm>,
    /// Revocations that a lessor asked for.
    expiries: BTreeMap<CommandId, i64>,
    ledger: Ledger,
    leaders: Leaders,
    rng: Rng,
    disk_rng: Rng,
    pub(crate) byzantine_rng: Rng,
    pub(crate) memories: BTreeMap<NodeId, crate::byzantine::Memory<MessageOf<F>>>,
    effects: Effects<F::Protocol>,
    trail: Vec<Applied>,
    recorder: Recorder,
    hash: u64,
    counts: Counts,
    coverage: Coverage,
    violation: Option<Violation>,
    /// Clients call only these; all when empty.
    reachable: Vec<NodeId>,
    calling: Calling,
    flights: u64,
    /// Who became leader last.
    elected: Option<(Time, NodeId, u64)>,
    /// Counts the times at which everything was mended: faults and mendings of before are void.
    epoch: u64,
    probes: BTreeMap<usize, NodeId>,
    probed: Vec<NodeId>,
}

/// Whether clients begin new operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calling {
    Yes,
    No,
    /// Only writes, one by one, to see who answers.
    Probing,
}

impl<F: Family> World<F> {
    /// A world in which nothing has happened yet.
    #[must_use]
    pub fn new(seed: u64, plan: PlanOf<F>, recorder: Recorder) -> World<F> {
        let mut rng = Rng::new(seed);
        let network = Network::new(plan.rates, rng.fork());
        let clients = Clients::new(plan.clients, plan.keys, rng.fork());
        let mut world = World {
            now: Time::ZERO,
            events: Events::new(),
            nodes: Vec::new(),
            network,
            clients,
            watchers: Vec::new(),
            heard: Vec::new(),
            lease_terms: BTreeMap::new(),
            expiries: BTreeMap::new(),
            ledger: Ledger::default(),
            leaders: Leaders::default(),
            disk_rng: rng.fork(),
            byzantine_rng: rng.fork(),
            memories: BTreeMap::new(),
            rng,
            effects: Effects::default(),
            trail: Vec::new(),
            recorder,
            hash: seed,
            counts: Counts::default(),
            coverage: Coverage::default(),
            violation: None,
            reachable: Vec::new(),
            calling: Calling::Yes,
            flights: 0,
            elected: None,
            epoch: 0,
            probes: BTreeMap::new(),
            probed: Vec::new(),
            plan,
        };
        for id in 1..=world.plan.nodes {
            world.add_machine(NodeId(id), Joined::AtFirst);
            world.events.push(Time(world.rng.below(1_000_000)), Event::Start { node: NodeId(id) });
        }
        for client in 0..world.plan.clients {
            let at = Time::ZERO + world.clients.think(world.plan.think);
            world.events.push(at, Event::Call { client });
        }
        if F::ORDER == Order::Total {
            for watcher in 0..world.plan.watchers {
                world.watchers.push(Watcher { connection: None, next: 0 });
                world.events.push(Time(2_000_000), Event::Watch { watcher });
            }
        }
        for (number, planned) in world.plan.planned.iter().enumerate() {
            world.events.push(planned.at, Event::Fault(number));
        }
        world
    }

    /// The digest over everything that happened: equal for equal seeds, on every machine.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.hash
    }

    fn add_machine(&mut self, id: NodeId, joined: Joined) {
        assert_eq!(id.0, self.nodes.len() as u64 + 1, "machines are numbered without gaps");
        let ppm = match self.plan.drift_ppm {
            0 => 0,
            most => self.rng.below(u64::from(most) + 1) as u32,
        };
        let origin = Time(self.rng.below(1 << 40));
        self.nodes.push(Node {
            id,
            running: None,
            disk: SimDisk::new(self.disk_rng.next_u64()),
            life: 0,
            health: Health::Fine,
            clock: Clock::new(self.now, origin, ppm),
            paused_until: Time::ZERO,
            has_run: false,
            harmed: false,
            failing: false,
            joined: joined == Joined::Later,
            commands: 0,
            reads: 0,
            sends_left: None,
            end: End { loss: Loss::Everything, down: self.plan.election },
            slow: Duration::ZERO,
            slow_until: Time::ZERO,
            stuck_until: Time::ZERO,
            held_down: false,
        });
    }

    fn node(&mut self, id: NodeId) -> &mut Node<F> {
        &mut self.nodes[id.0 as usize - 1]
    }

    fn fault(&mut self, node: Option<NodeId>, kind: FaultKind, text: impl FnOnce() -> String) {
        *self.counts.faults.entry(kind).or_default() += 1;
        self.recorder.note(self.now, node, || What::Fault(text()));
    }

    fn broken(&mut self, broken: Broken) {
        let (property, what) = broken;
        if self.violation.is_none() {
            self.recorder.note(self.now, None, || What::Fault(format!("{property} is violated: {what}")));
            self.violation = Some(Violation { property, what, at: self.now });
        }
    }

    fn stir(&mut self, number: u64) {
        self.hash = mix(self.hash, number);
    }

    /// Lets everything happen that is due before `end`, unless a property breaks.
    fn run_until(&mut self, end: Time) {
        while self.violation.is_none() {
            let Some((at, event)) = self.events.pop(end) else { break };
            debug_assert!(at >= self.now, "time does not run backwards");
            self.now = at.max(self.now);
            self.counts.events += 1;
            self.stir(at.0);
            self.happen(event);
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event<F>) {
        match event {
            Event::Arrive { flight, from, to, body } => self.arrive(flight, from, to, body),
            Event::Wake { node, life } => self.wake(node, life),
            Event::LogDone { node, life } => self.disk_done(node, life, Worker::Log),
            Event::SnapshotDone { node, life } => self.disk_done(node, life, Worker::Snapshot),
            Event::LogRetry { node, life } if self.node(node).life == life => self.start_workers(node),
            Event::LogRetry { .. } => {}
            Event::Mark { node, life } => self.mark(node, life),
            Event::Leases { node, life } => self.leases(node, life),
            Event::Watch { watcher } => self.watch(watcher),
            Event::Start { node } => self.start(node),
            Event::Call { client } => self.call(client),
            Event::GiveUp { client, turn } => self.give_up(client, turn),
            Event::Fault(number) => self.carry_out(number),
            Event::Mend(mending) => self.mend(mending),
        }
    }

    // Lives.

    fn start(&mut self, id: NodeId) {
        let (now, seed) = (self.now, self.rng.next_u64());
        let members = if self.node(id).joined {
            Members::default()
        } else {
            Members::of((1..=self.plan.nodes).map(NodeId))
        };
        let config = Config { id, members, seed, options: self.plan.options.clone() };
        let limits = Limits {
            applies_max: self.plan.applies_max,
            compaction: CompactionPolicy {
                deliveries_min: self.plan.snapshot_every,
                bytes_min: 0,
                snapshot_divisor: u64::MAX,
            },
            ..Limits::default()
        };
        let node = self.node(id);
        if node.running.is_some() || node.held_down || node.health != Health::Fine {
            return;
        }
        node.life += 1;
        let found = match Storage::<F::Protocol>::open(&node.disk, id, SEGMENT_BYTES) {
            Ok(found) => found,
            Err(synod_wal::LogError::NoSpace { .. }) => {
                let again = now + self.plan.election / 4;
                return self.events.push(again, Event::Start { node: id });
            }
            Err(error) => return self.disk_failed(id, &error),
        };
        if found.fresh && node.has_run {
            // What the server does when its folder is empty although the cluster knows the member.
            return self.stop(id, "the disk is empty, but this member has run before: it must be added anew");
        }
        if node.disk.died_at().is_some() {
            return self.disk_failed_with(id, "the power is off");
        }
        node.has_run = true;
        // A monotonic clock means something only within one life.
        let now_own = node.clock.shows(now);
        let records = found.recovered.records.len();
        let from = found.recovered.snapshot.as_ref().map(|snapshot| snapshot.at);
        let replica = match Replica::open(&config, limits, found.recovered, Audited::default(), now_own) {
            Ok(replica) => replica,
            Err(error) if node.disk.died_at().is_some() => {
                return self.disk_failed_with(id, &error.to_string());
            }
            Err(error) => return self.stop(id, &error.to_string()),
        };
        let (role, term) = F::standing(replica.protocol());
        node.running =
            Some(Running {
            replica,
            storage: found.storage,
            wake_at: None,
            leases_at: None,
            role,
            term,
            mark_due: false,
        });
        self.counts.starts += 1;
        self.counts.torn += u64::from(found.torn);
        self.recorder.note(now, Some(id), || {
            let torn = if found.torn { ", a torn batch dropped" } else { "" };
            What::Note(match from {
                Some(at) => format!("starts from a snapshot at {at:?} and {records} records{torn}"),
                None => format!("starts from {records} records{torn}"),
            })
        });
        if let Some(running) = &self.nodes[id.0 as usize - 1].running {
            let stands = self.ledger.stands(id, running.replica.machine());
            if let Err(broken) = stands {
                self.broken(broken);
            }
        }
        self.flush(id);
    }

    /// The disk said no. If a trap cut the power it is a crash; else the process stops, which only a disk that
    /// was harmed or made to fail excuses.
    fn disk_failed(&mut self, id: NodeId, error: &synod_wal::LogError) {
        self.disk_failed_with(id, &error.to_string());
    }

    fn disk_failed_with(&mut self, id: NodeId, error: &str) {
        let node = self.node(id);
        if let Some(site) = node.disk.died_at() {
            let End { loss, down } = node.end;
            self.recorder.note(self.now, Some(id), || What::Fault(format!("loses its power {site}")));
            self.crash(id, Some(loss), down);
            return;
        }
        if node.failing {
            let down = node.end.down;
            self.counts.stopped += 1;
            self.recorder.note(self.now, Some(id), || What::Fault(format!("stops: {error}")));
            self.crash(id, Some(Loss::Everything), down);
            return;
        }
        self.stop(id, error);
    }

    /// The replica stops for good, with a named error.
    fn stop(&mut self, id: NodeId, error: &str) {
        let harmed = self.node(id).harmed;
        self.counts.stopped += 1;
        self.recorder.note(self.now, Some(id), || What::Fault(format!("stops for good: {error}")));
        self.crash(id, Some(Loss::Nothing), Duration::ZERO);
        self.node(id).health = Health::Dead(error.to_owned());
        if !harmed {
            self.broken(("no stop without a cause", format!("{id:?} stops: {error}")));
        }
    }

    /// The process ends (`loss`: and the machine loses its power); it starts again after `down`.
    fn crash(&mut self, id: NodeId, loss: Option<Loss>, down: Duration) {
        let now = self.now;
        let node = self.node(id);
        let was_up = node.running.take().is_some();
        node.life += 1;
        node.sends_left = None;
        node.paused_until = Time::ZERO;
        match loss {
            Some(loss) => node.disk.power_cut(loss),
            None => node.disk.process_ended(),
        }
        if was_up {
            self.recorder.note(now, Some(id), || {
                What::Fault(match loss {
                    Some(loss) => format!("goes down; of what was not synced is lost: {loss:?}"),
                    None => "goes down; its machine stays up".to_owned(),
                })
            });
        }
        for client in 0..self.clients.clients.len() {
            if self.clients.clients[client].node == id && self.clients.clients[client].open.is_some() {
                self.ended(client, Ended::Unknown);
            }
        }
        if down > Duration::ZERO {
            self.events.push(now + down, Event::Start { node: id });
        }
    }

    // Inputs.

    /// Lets a running replica take an input, then flushes it.
    fn with(&mut self, id: NodeId, input: impl FnOnce(&mut Replica<F::Protocol, Audited>, Time)) {
        let now = self.now;
        let node = self.node(id);
        let own = node.clock.shows(now);
        let Some(running) = &mut node.running else { return };
        input(&mut running.replica, own);
        self.flush(id);
    }

    /// The moment until which a machine takes no input, if it stands still.
    fn paused(&mut self, id: NodeId) -> Option<Time> {
        let now = self.now;
        let node = self.node(id);
        (node.running.is_some() && node.paused_until > now).then_some(node.paused_until)
    }

    fn arrive(&mut self, flight: u64, from: NodeId, to: NodeId, body: Body<MessageOf<F>>) {
        if let Some(until) = self.paused(to) {
            return self.events.push(until, Event::Arrive { flight, from, to, body });
        }
        let why = if self.network.is_cut(from, to) {
            Some("the link is cut")
        } else if self.node(to).running.is_none() {
            Some("nobody is there")
        } else {
            None
        };
        if let Some(why) = why {
            self.recorder.note(self.now, Some(from), || What::Lost { flight, from, to, why });
            return;
        }
        let packet = match body {
            Body::Value(packet) => packet,
            Body::Frame(bytes, sum) if crc32c::crc32c(&bytes) != sum => {
                self.counts.frames_refused += 1;
                let why = "the checksum is wrong";
                self.recorder.note(self.now, Some(from), || What::Lost { flight, from, to, why });
                return;
            }
            Body::Frame(bytes, _) => match Packet::decode_all(bytes) {
                Ok(packet) => packet,
                Err(error) => {
                    return self
                        .broken(("messages survive encoding", format!("{from:?} to {to:?}: {error}")));
                }
            },
        };
        self.stir(from.0 << 32 | to.0);
        if self.recorder.is_on() {
            let text = show_packet(&packet);
            self.recorder.note(self.now, Some(to), || What::Arrived { flight, from, text });
        }
        self.with(to, |replica, now| replica.receive(now, from, packet));
    }

    fn wake(&mut self, id: NodeId, life: u64) {
        if let Some(until) = self.paused(id) {
            return self.events.push(until, Event::Wake { node: id, life });
        }
        let now = self.now;
        let node = self.node(id);
        let own = node.clock.shows(now);
        let Some(running) = node.running.as_mut().filter(|_| node.life == life) else { return };
        if running.wake_at.is_some_and(|at| at > now) {
            return; // Another wake-up took this one's place.
        }
        running.wake_at = None;
        if running.replica.deadline().is_some_and(|deadline| deadline <= own) {
            running.replica.tick(own);
            self.flush(id);
        } else {
            self.ask_for_wake_up(id);
        }
    }

    fn ask_for_wake_up(&mut self, id: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[id.0 as usize - 1];
        let Some(running) = &mut node.running else { return };
        let Some(deadline) = running.replica.deadline() else { return };
        // Time must move, or a deadline that stays in the past would hold it for ever.
        let at = node.clock.reaches(deadline).max(Time(now.0 + 1_000));
        if running.wake_at.is_none_or(|asked| at < asked) {
            running.wake_at = Some(at);
            self.events.push(at, Event::Wake { node: id, life: node.life });
        }
    }

    // Effects.

    fn flush(&mut self, id: NodeId) {
        let now = self.now;
        loop {
            let node = &mut self.nodes[id.0 as usize - 1];
            let own = node.clock.shows(now);
            let Some(running) = &mut node.running else { return };
            if let Err(error) = running.replica.flush(own, &mut self.effects) {
                let error = error.to_string();
                self.effects = Effects::default();
                return if self.node(id).disk.died_at().is_some() || self.node(id).failing {
                    self.disk_failed_with(id, &error)
                } else {
                    self.stop(id, &error)
                };
            }
            let again = running.replica.deadline() == Some(Time::ZERO);
            self.observe(id);
            self.serve_the_store(id);
            self.let_out(id);
            if !again || self.violation.is_some() {
                break;
            }
        }
        self.start_workers(id);
        self.ask_for_wake_up(id);
    }

    /// Shows the oracles what the replica has become.
    fn observe(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.0 as usize - 1];
        let Some(running) = &mut node.running else { return };
        std::mem::swap(&mut self.trail, &mut running.replica.machine_mut().trail);
        let (role, term) = F::standing(running.replica.protocol());
        let changed = (role, term) != (running.role, running.term);
        (running.role, running.term) = (role, term);
        let is_liar = self.plan.liars.contains(&id);
        let mut trail = std::mem::take(&mut self.trail);
        for applied in &trail {
            self.hash = mix(self.hash, applied.chain);
            if self.recorder.is_on() {
                let (at, text) = (applied.at.0, format!("{:?}", applied.id));
                self.recorder.note(self.now, Some(id), || What::Applied { at, text });
            }
            if !is_liar && let Err(broken) = self.ledger.apply(id, applied, F::ORDER) {
                self.broken(broken);
                break;
            }
            self.lease_ended(applied.id);
        }
        trail.clear();
        self.trail = trail;
        if is_liar {
            return;
        }
        if F::ORDER == Order::Total
            && let Some(running) = &self.nodes[id.0 as usize - 1].running
            && let Err(broken) = self.ledger.stands(id, running.replica.machine())
        {
            self.broken(broken);
        }
        if changed {
            self.stir(term << 8 | role as u64);
            self.recorder.note(self.now, Some(id), || What::Stands { role: format!("{role:?}"), term });
            if matches!(role, Role::Leader | Role::Primary) {
                self.elected = Some((self.now, id, term));
                self.examine_leader(id, term);
            }
        }
    }

    /// Somebody leads from now on: election safety, log matching, leader completeness.
    fn examine_leader(&mut self, id: NodeId, term: u64) {
        if let Err(broken) = self.leaders.leads(id, term) {
            return self.broken(broken);
        }
        let mut logs = Vec::new();
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            let mut log = Vec::new();
            F::log(running.replica.protocol(), &mut log);
            logs.push((node.id, log, running.replica.applied()));
        }
        let mut result = Ok(());
        for (node, log, applied) in &logs {
            result = result.and_then(|()| self.leaders.note_committed(*node, log, *applied));
        }
        if let Some((_, own, _)) = logs.iter().find(|(node, ..)| *node == id) {
            result = result.and_then(|()| self.leaders.complete(id, term, own));
            for (node, log, _) in &logs {
                result = result.and_then(|()| crate::oracle::leaders::logs_match((id, own), (*node, log)));
            }
        }
        if let Err(broken) = result {
            self.broken(broken);
        }
    }

    /// Carries out what the replica wants done.
    fn let_out(&mut self, id: NodeId) {
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(running) = &mut self.node(id).running {
            running.storage.log_jobs.extend(effects.log.drain(..));
            running.storage.snapshot_jobs.extend(effects.snapshots.drain(..));
        }
        for (at, members) in effects.members.drain(..) {
            self.stir(at.0);
            self.recorder.note(self.now, Some(id), || What::Note(format!("members at {at:?}: {members:?}")));
            if F::ORDER == Order::Total
                && let Err(broken) = self.ledger.configure(id, at, &members)
            {
                self.broken(broken);
            }
        }
        for (id, said) in effects.replies.drain(..) {
            if let Some(client) = self.clients.waiting(Waiting::Command(id)) {
                self.ended(client, Ended::Said(said));
            }
        }
        for (command, reason) in effects.refusals.drain(..) {
            if let Err(broken) = self.ledger.refuse(command) {
                self.broken(broken);
            }
            self.recorder
                .note(self.now, Some(id), || What::Client(format!("refuses {command:?}: {reason:?}")));
            if let Some(client) = self.clients.waiting(Waiting::Command(command)) {
                self.ended(client, Ended::Refused);
            }
        }
        for read in effects.readable.drain(..) {
            self.serve(id, read);
        }
        for (read, reason) in effects.unreadable.drain(..) {
            self.recorder.note(self.now, Some(id), || What::Client(format!("refuses {read:?}: {reason:?}")));
            if let Some(client) = self.clients.waiting(Waiting::Read(id, read)) {
                self.ended(client, Ended::Refused);
            }
        }
        for reason in effects.declined.drain(..) {
            self.recorder.note(self.now, Some(id), || What::Note(format!("declines: {reason:?}")));
        }
        let mut ended = false;
        for (to, packet) in effects.packets.drain(..) {
            if !ended && self.ends_at_this_send(id, &packet) {
                ended = true;
            }
            if !ended {
                self.send(id, to, packet);
            }
        }
        self.effects = effects;
        if ended {
            let End { loss: _, down } = self.node(id).end;
            self.crash(id, None, down);
        }
    }

    fn ends_at_this_send(&mut self, id: NodeId, packet: &Packet<MessageOf<F>>) -> bool {
        let Some(left) = &mut self.node(id).sends_left else { return false };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        let shown = show_packet(packet);
        let kind = shown.split([' ', '{', '(']).next().unwrap_or_default().to_owned();
        self.recorder.note(self.now, Some(id), || What::Fault(format!("ends before it sends {kind}")));
        *self.counts.send_crashes.entry(kind).or_default() += 1;
        true
    }

    fn send(&mut self, from: NodeId, to: NodeId, packet: Packet<MessageOf<F>>) {
        if self.plan.liars.contains(&from) {
            return self.send_lies(from, to, packet);
        }
        self.post(from, to, packet);
    }

    pub(crate) fn post(&mut self, from: NodeId, to: NodeId, packet: Packet<MessageOf<F>>) {
        self.flights += 1;
        self.counts.packets += 1;
        let flight = self.flights;
        if self.recorder.is_on() {
            let text = show_packet(&packet);
            self.recorder.note(self.now, Some(from), || What::Sent { flight, to, text });
        }
        if to.0 == 0 || to.0 as usize > self.nodes.len() || to.0 as usize >= NODES_MAX {
            return; // Nobody has this name (any more, or yet).
        }
        match self.network.fate(self.now, from, to) {
            Fate::Lost => {
                let why = "on the way";
                self.recorder.note(self.now, Some(from), || What::Lost { flight, from, to, why });
            }
            Fate::Arrives { at, again, form } => {
                if let Some(again) = again {
                    let body = Body::Value(packet.clone());
                    self.events.push(again, Event::Arrive { flight, from, to, body });
                }
                let body = match form {
                    Form::Value => Body::Value(packet),
                    Form::Encoded | Form::Corrupt => self.frame(&packet, form),
                };
                self.events.push(at, Event::Arrive { flight, from, to, body });
            }
        }
    }

    fn frame(&mut self, packet: &Packet<MessageOf<F>>, form: Form) -> Body<MessageOf<F>> {
        let bytes = packet.to_bytes();
        let sum = crc32c::crc32c(&bytes);
        self.stir(u64::from(sum));
        if form != Form::Corrupt || bytes.is_empty() {
            return Body::Frame(bytes, sum);
        }
        *self.counts.faults.entry(FaultKind::Corrupt).or_default() += 1;
        let mut damaged = bytes.to_vec();
        // Damaged bytes must not bring the decoder down, even where no checksum stands before it.
        for _ in 0..=self.network.draw(3) {
            let bit = self.network.draw(damaged.len() as u64 * 8) as usize;
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        let damaged = Bytes::from(damaged);
        let _ = Packet::<MessageOf<F>>::decode_all(damaged.clone());
        Body::Frame(damaged, sum)
    }

    // Disks.

    fn start_workers(&mut self, id: NodeId) {
        let (disk_min, disk_max) = self.plan.disk;
        let now = self.now;
        let latency = self.disk_rng.span(disk_min, disk_max);
        let node = &mut self.nodes[id.0 as usize - 1];
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        let slow = if node.slow_until > now { node.slow } else { Duration::ZERO };
        let done = (now + latency + slow).max(node.stuck_until);
        if running.storage.start_snapshot() == Started::Busy {
            self.events.push(done + latency, Event::SnapshotDone { node: id, life });
        }
        if !running.storage.has_log_work() {
            return;
        }
        match running.storage.start_log() {
            Ok(Started::Idle) => {}
            Ok(Started::Busy) => {
                running.mark_due = true;
                self.events.push(done, Event::LogDone { node: id, life });
            }
            Ok(Started::NoRoom) => {
                self.events.push(now + self.plan.election / 10, Event::LogRetry { node: id, life });
            }
            Err(error) => self.disk_failed(id, &error),
        }
    }

    fn disk_done(&mut self, id: NodeId, life: u64, worker: Worker) {
        let now = self.now;
        let paused = self.paused(id);
        let node = &mut self.nodes[id.0 as usize - 1];
        let Some(running) = node.running.as_mut().filter(|_| node.life == life) else { return };
        let later = paused.or((node.stuck_until > now).then_some(node.stuck_until));
        if let Some(until) = later {
            let event = match worker {
                Worker::Log => Event::LogDone { node: id, life },
                Worker::Snapshot => Event::SnapshotDone { node: id, life },
            };
            return self.events.push(until, event);
        }
        let mut notices = Vec::new();
        let result = match worker {
            Worker::Log => running.storage.finish_log(&mut notices),
            Worker::Snapshot => running.storage.finish_snapshot(&mut notices),
        };
        if let Err(error) = result {
            return self.disk_failed(id, &error);
        }
        if node.disk.died_at().is_some() {
            return self.disk_failed_with(id, "the power is off");
        }
        let own = node.clock.shows(now);
        for notice in notices {
            match notice {
                Notice::Durable(upto) => {
                    self.hash = mix(self.hash, upto.0);
                    let Lsn(number) = upto;
                    self.recorder.note(now, Some(id), || What::Synced(number));
                    running.replica.durable(own, upto);
                }
                Notice::Saved(snapshot) => {
                    self.counts.saved += 1;
                    self.recorder.note(now, Some(id), || What::Note(format!("saved {snapshot:?}")));
                    running.replica.saved(own, snapshot);
                }
                Notice::SaveFailed => running.replica.save_failed(),
                Notice::Staged { from, transfer, upto } => running.replica.staged(from, transfer, upto),
                Notice::Installed { from, transfer, snapshot } => {
                    self.counts.installed += 1;
                    self.recorder.note(now, Some(id), || What::Note(format!("received {snapshot:?}")));
                    running.replica.installed(own, from, transfer, snapshot);
                }
                Notice::StageFailed { from, transfer } => running.replica.stage_failed(from, transfer),
            }
        }
        if running.mark_due && running.storage.is_idle() {
            running.mark_due = false;
            self.events.push(now + MARK_AFTER, Event::Mark { node: id, life });
        }
        self.flush(id);
    }

    /// The log was idle for a moment, if nothing came meanwhile.
    fn mark(&mut self, id: NodeId, life: u64) {
        let node = self.node(id);
        let Some(running) = node.running.as_mut().filter(|_| node.life == life) else { return };
        if !running.storage.is_idle() {
            return;
        }
        if let Err(error) = running.storage.mark() {
            self.disk_failed(id, &error);
        }
    }

    // Clients.

    fn call(&mut self, client: usize) {
        let candidates: Vec<NodeId> = match self.calling {
            Calling::No => return,
            Calling::Probing => match self.probes.get(&client) {
                Some(node) if !self.probed.contains(node) => vec![*node],
                _ => return,
            },
            Calling::Yes if self.clients.records.len() >= self.plan.operations_max => return,
            Calling::Yes if self.reachable.is_empty() => self.nodes.iter().map(|node| node.id).collect(),
            Calling::Yes => self.reachable.clone(),
        };
        if self.clients.clients[client].open.is_some() {
            return;
        }
        let (node, ask) = match self.calling {
            Calling::Probing => {
                self.clients.clients[client].node = candidates[0];
                (candidates[0], self.clients.probe())
            }
            _ => self.clients.choose(client, &candidates),
        };
        if self.node(node).running.is_none()
            || self.paused(node).is_some() && self.calling == Calling::Probing
        {
            // Connection refused: the client tries somebody else after a while.
            self.clients.clients[client].node = NodeId(0);
            let at = self.now + self.clients.think(self.plan.think);
            return self.events.push(at, Event::Call { client });
        }
        self.ask(client, node, ask);
    }

    fn ask(&mut self, client: usize, id: NodeId, ask: Ask) {
        let now = self.now;
        let node = self.node(id);
        let waiting = match ask.way() {
            Way::Fence => {
                node.reads += 1;
                Waiting::Read(id, ReadId(node.reads))
            }
            Way::Log => {
                node.commands += 1;
                Waiting::Command(CommandId { origin: id, number: node.commands })
            }
        };
        let turn = self.clients.begin(client, now, id, ask, waiting);
        self.recorder
            .note(now, Some(id), || What::Client(format!("client {client} asks {ask:?} ({waiting:?})")));
        let give_up = Event::GiveUp { client, turn };
        self.events.push(now + self.plan.patience, give_up);
        match waiting {
            Waiting::Read(_, read) if F::READS == crate::family::Reads::Fenced => {
                self.with(id, |replica, _| replica.read(read));
            }
            Waiting::Read(_, read) => self.serve(id, read),
            Waiting::Command(id) => {
                let payload = ask.payload();
                self.ledger.submit(id, digest(&payload));
                let mut taken = Ok(());
                self.with(id.origin, |replica, _| taken = replica.submit(Command { id, payload }));
                if taken.is_err() {
                    if let Err(broken) = self.ledger.refuse(id) {
                        self.broken(broken);
                    }
                    self.ended(client, Ended::Refused);
                }
            }
        }
    }

    /// A read may be answered from the machine as it is.
    fn serve(&mut self, id: NodeId, read: ReadId) {
        let Some(client) = self.clients.waiting(Waiting::Read(id, read)) else { return };
        let Some((place, _)) = self.clients.clients[client].open else { return };
        let Some(running) = &self.nodes[id.0 as usize - 1].running else { return };
        let ended = match self.clients.records[place].ask {
            Ask::Get { key } => Ended::Said(running.replica.machine().get(key)),
            Ask::KeepAlive { id: lease } => self.renew(id, lease),
            _ => return,
        };
        self.ended(client, ended);
    }

    fn ended(&mut self, client: usize, ended: Ended) {
        if let Some(record) = self.clients.end(client, self.now, ended) {
            self.after(client, record);
        }
    }

    /// An operation is over: what it says is judged, and the client goes on.
    fn after(&mut self, client: usize, record: Record) {
        self.recorder.note(self.now, Some(record.node), || {
            What::Client(format!("client {client} hears {:?} to {:?}", record.ended, record.ask))
        });
        if let Ended::Said(said) = record.ended {
            self.stir(said.revision as u64);
            let is_liar = self.plan.liars.contains(&record.node);
            if !is_liar && F::ORDER == Order::Total && said.revision < record.floor {
                self.broken((
                    "monotonic revisions",
                    format!(
                        "client {client} is answered revision {} by {:?}, when {} was answered before it asked",
                        said.revision, record.node, record.floor
                    ),
                ));
            }
            self.lease_promised(&record);
            if self.calling == Calling::Probing && self.probes.get(&client) == Some(&record.node) {
                self.probed.push(record.node);
            }
        }
        let at = self.now + self.clients.think(self.plan.think);
        self.events.push(at, Event::Call { client });
    }

    fn give_up(&mut self, client: usize, turn: u64) {
        let chosen = &self.clients.clients[client];
        if chosen.turn == turn && chosen.open.is_some() {
            self.ended(client, Ended::Unknown);
        }
    }
}

/// How a machine came to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    AtFirst,
    Later,
}

#[derive(Clone, Copy)]
enum Worker {
    Log,
    Snapshot,
}

/// Small, so that logs go on in new segments often.
const SEGMENT_BYTES: u64 = 16 << 10;

/// After so much idleness the log proves that its last batch was durable.
const MARK_AFTER: Duration = Duration::from_millis(20);
