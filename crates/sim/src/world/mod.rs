//! The world: virtual time, machines, a network, clients, and everything that goes wrong.
//!
//! One event at a time is taken from the heap; it is given to the replica that it concerns, the replica is flushed,
//! and what it wants done becomes further events. Nothing else moves time. Every random choice comes from
//! generators that are forked from one seed, one for each part, so that leaving a fault out disturbs the
//! others as little as possible. The digest over all events ([`World::trace_hash`]) tells two runs apart.
//!
//! The replica, the log, the recovery and the store are the shipped ones; the machines around them are not.
//!
//! (tidy: long because the world is one value, and its parts stand in files of their own already.)

mod callers;
mod disks;
mod effects;
mod events;
mod foresight;
mod lab;
mod nemesis;
mod node;
mod outside;
mod phases;
mod services;
mod steward;
mod storage;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use synod_core::{CommandId, Config, Index, Members, NodeId, Protocol, Rng, Time, Vector, Wire};
use synod_replica::{CompactionPolicy, Limits, Packet, Replica};

use crate::client::{Clients, Ended, Roaming, Vocabulary};
use crate::disk::{Coverage, Loss, SimDisk};
use crate::family::{Family, Finality, Sessions};
use crate::faults::FaultKind;
use crate::machine::{Applied, Audited, mix};
use crate::network::Network;
use crate::oracle::ledger::{Broken, Judging};
use crate::oracle::{Leaders, Ledger, Violation};
use crate::script::{Order, show_packet};
use crate::swarm::Plan;
use crate::trace::{Recorder, What};
use crate::watcher::{Heard, Watcher};
use events::Events;
use node::{Clock, End, Health, Node, Running};
use outside::Effects;
pub use phases::{LIVENESS_ELECTIONS_MAX, Outcome, Recovery};
pub use steward::Steward;
pub use storage::CLUSTER;
use storage::{Kept, Storage};

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
    Reaches { node: NodeId, life: u64, client: usize, request: callers::Request },
    Fault(usize),
    Strike { number: usize, node: NodeId },
    Steward,
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
    /// Partitions, by shape and number of replicas at the start.
    pub partitions: BTreeMap<(&'static str, u64), u64>,
    /// Events handled.
    pub events: u64,
    /// Packets sent.
    pub packets: u64,
    /// Frames that arrived damaged and were recognised by their checksum.
    pub frames_refused: u64,
    /// Crashes at sends: before or after, and the kind of message.
    pub send_crashes: BTreeMap<(&'static str, String), u64>,
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
    /// Commands that were acknowledged and are gone in the end: only where a protocol may take back what it decided.
    pub revoked: u64,
    /// Replicas of the core that say in the end that they cannot follow the others.
    pub estranged: u64,
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
    pub(crate) heard_by_liars: crate::byzantine::Heard<MessageOf<F>>,
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
    /// Who led before.
    deposed: Option<NodeId>,
    /// Who comes by whenever somebody takes the lead.
    passers: callers::Passers,
    /// Up to where the last look ahead saw things decided, and how many more are due.
    looked: (Index, u32),
    /// Counts the times at which everything was mended: faults and mendings of before are void.
    epoch: u64,
    probes: BTreeMap<usize, NodeId>,
    probed: Vec<NodeId>,
    /// Who looks after the cluster, if anybody does.
    steward: Option<Steward>,
    /// What an operator asked a leader for last.
    asked_for: Option<FaultKind>,
    /// Faults of the plan that wait for their cue.
    lurking: Vec<usize>,
    /// Partitions that are over so long after somebody takes the lead: by their fault, and what they cut.
    fallen_apart: Vec<(usize, Duration, nemesis::Links)>,
    /// How many packets of each kind were sent.
    kinds_sent: effects::Kinds,
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
        let judging = match (F::ORDER, F::finality(&plan.options)) {
            (Order::Total, Finality::Certain) => Judging::Places,
            _ => Judging::Sets,
        };
        let mut clients = Clients::new(plan.clients, plan.keys, rng.fork());
        clients.taste = plan.taste;
        if judging == Judging::Sets {
            clients.vocabulary = Vocabulary::Registers;
        }
        if F::ORDER == Order::Causal {
            clients.vocabulary = Vocabulary::Causal;
            if F::sessions(&plan.options) == Sessions::Forgotten {
                clients.roaming = Roaming::AsSomebodyElse;
            }
        }
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
            ledger: Ledger::new(judging),
            leaders: Leaders::default(),
            disk_rng: rng.fork(),
            byzantine_rng: rng.fork(),
            memories: BTreeMap::new(),
            heard_by_liars: crate::byzantine::Heard::default(),
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
            deposed: None,
            passers: callers::Passers::default(),
            looked: (Index::ZERO, 0),
            epoch: 0,
            probes: BTreeMap::new(),
            probed: Vec::new(),
            steward: None,
            asked_for: None,
            lurking: Vec::new(),
            fallen_apart: Vec::new(),
            kinds_sent: effects::Kinds::default(),
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
        if judging == Judging::Places && world.plan.passers {
            world.passers = callers::Passers::hired(&mut world.clients);
        }
        if judging == Judging::Places {
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
        let origin = Time(self.rng.below(F::CLOCKS_APART.as_nanos() as u64));
        self.nodes.push(Node {
            id,
            running: None,
            disk: SimDisk::new(self.disk_rng.next_u64()),
            life: 0,
            health: Health::Fine,
            clock: Clock::new(self.now, origin, ppm),
            paused_until: Time::ZERO,
            has_run: false,
            kept: Kept::default(),
            harmed: false,
            sectors_lost: 0,
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
            left: None,
            shown: Vector::default(),
            promised: VecDeque::new(),
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
            Event::LogRetry { node, life } => self.try_for_room(node, life),
            Event::Mark { node, life } => self.mark(node, life),
            Event::Leases { node, life } => self.leases(node, life),
            Event::Watch { watcher } => self.watch(watcher),
            Event::Start { node } => self.start(node),
            Event::Call { client } => self.call(client),
            Event::GiveUp { client, turn } => self.give_up(client, turn),
            Event::Reaches { node, life, client, request } => self.reach(node, life, client, &request),
            Event::Fault(number) => self.fault_is_due(number),
            Event::Strike { number, node } => self.carry_out(number, Some(node)),
            Event::Steward => self.look_in(),
            Event::Mend(mending) => self.mend(mending),
        }
    }

    // Lives.

    fn start(&mut self, id: NodeId) {
        let (now, seed, judging) = (self.now, self.rng.next_u64(), self.ledger.judging());
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
                per_snapshot_byte: 0,
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
        let (kept, found_kept) = (node.kept, found.storage.kept());
        if kept.snapshot == found_kept.snapshot && found_kept.records < kept.records {
            let (fewer, confirmed) = (found_kept.records, kept.records);
            // A sector may hold several small batches, the last ones; a bit lies in one.
            let undecidable = match node.sectors_lost {
                0 if node.harmed => kept.last,
                0 => 0,
                1 => kept.unmarked,
                _ => confirmed,
            };
            if confirmed - fewer <= undecidable {
                // Damage to the very last batch looks like a write that was under way, and nothing that one disk holds can tell them
                // apart. Nobody could know that this replica must not go on; the world does, and takes it for lost.
                return self
                    .stop(id, "the last batch is damaged, and looks like a write that had not finished");
            }
            return self.broken((
                "durability",
                format!("{id:?} finds {fewer} records where its log had confirmed {confirmed}, and does not say so"),
            ));
        }
        node.kept = found_kept;
        // A monotonic clock means something only within one life.
        let now_own = node.clock.shows(now);
        let records = found.recovered.records.len();
        let from = found.recovered.snapshot.as_ref().map(|snapshot| snapshot.at);
        let machine = match judging {
            Judging::Places => Audited::default(),
            Judging::Sets if F::ORDER == Order::Causal => Audited::convergent(id),
            Judging::Sets => Audited::with_memory(),
        };
        let replica = match Replica::open(&config, limits, found.recovered, machine, || now_own) {
            Ok(replica) => replica,
            Err(error) if node.disk.died_at().is_some() => {
                return self.disk_failed_with(id, &error.to_string());
            }
            Err(error) => return self.stop(id, &error.to_string()),
        };
        let forgot = node.promised.iter().find_map(|promised| F::forgot(promised, replica.protocol()));
        if let Some(what) = forgot.filter(|_| !node.harmed) {
            return self.broken(("durability", format!("{id:?} has forgotten what it told others: {what}")));
        }
        let (role, term) = F::standing(replica.protocol());
        node.left = None;
        node.running = Some(Running {
            replica,
            storage: found.storage,
            wake_at: None,
            leases_at: None,
            role,
            term,
            mark_due: false,
            waits_for_room: false,
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
        self.judge_standing(id);
        self.flush(id);
        self.compare_with_before(id);
    }

    /// Where no position tells it: a replica that is back holds whatever it ever showed to anybody.
    fn compare_with_before(&mut self, id: NodeId) {
        let node = &self.nodes[id.0 as usize - 1];
        let Some(vector) = self.vector_of(id).filter(|_| !node.harmed) else { return };
        if !vector.dominates(&node.shown) {
            let what = format!("{id:?} is back with {vector:?}, and had shown {:?}", node.shown);
            self.broken(("durability", what));
        }
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
            let mut down = node.end.down;
            if self.steward.is_some() {
                // Whoever starts a process that stops again and again leaves it alone for a while.
                down = down.max(Duration::from_secs(60));
            }
            self.counts.stopped += 1;
            self.recorder.note(self.now, Some(id), || What::Fault(format!("stops: {error}")));
            self.crash(id, Some(Loss::Everything), down);
            let node = self.node(id);
            node.failing = node.disk.is_failing();
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
        self.examine_committed(id);
        self.leave_standing(id);
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
            self.clients.forgotten_by(id);
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
            let turn = turn_after_pause(until, Waits::Packets);
            return self.events.push(turn, Event::Arrive { flight, from, to, body });
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
        if let Packet::Protocol(message) = &packet
            && self.plan.liars.contains(&to)
        {
            self.heard_by_liars.hear(from, message.clone());
        }
        self.with(to, |replica, now| replica.receive(now, from, packet));
    }

    fn wake(&mut self, id: NodeId, life: u64) {
        if let Some(until) = self.paused(id) {
            return self.events.push(turn_after_pause(until, Waits::Timer), Event::Wake { node: id, life });
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
}

/// How a machine came to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    AtFirst,
    Later,
}

/// What waits at a machine that stands still.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    Timer,
    Packets,
    Clients,
    Disk,
}

/// When what waited gets its turn: in any order of the kinds, and within one kind in the order in which it came. A process that
/// goes on after a pause finds everything ready at once, and which it looks at first is chance.
fn turn_after_pause(until: Time, waits: Waits) -> Time {
    let shift = [0, 2, 4, 6][waits as usize];
    Time(until.0 + ((mix(1, until.0) >> shift) & 3) * 1_000)
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
