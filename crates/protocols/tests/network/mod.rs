//! A small deterministic network for whole clusters of Raft replicas: virtual time, one seed, disks that lose
//! what they have not synced, messages that are lost, doubled, late and out of order.
//!
//! What it checks after every step: no two leaders in one term; every index holds the same everywhere (by a
//! chain of hashes, so that all before it is covered, too); no command is applied twice; every read sees
//! whatever was applied anywhere before it was asked.

mod chain;
mod faults;
mod weather;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Command, CommandId, Config, Frozen, Index, Lsn, Members, NodeId, ReadId, Recovered, Refusal, Rng, Role,
    SnapshotRef, Time, Wire,
};
use synod_protocols::raft::{Message, Raft, Record};
use synod_replica::{CompactionPolicy, Limits, Packet, Piece, Replica, World};

use chain::{Chain, FrozenChain};
pub(crate) use weather::{Weather, drawn};

enum Event {
    Wake {
        node: NodeId,
        life: u64,
    },
    Packet {
        from: NodeId,
        to: NodeId,
        packet: Packet<Message>,
    },
    /// The disk finishes its oldest write.
    Disk {
        node: NodeId,
        life: u64,
    },
    Client,
    /// A read that came while its node was paused.
    Read {
        node: NodeId,
        life: u64,
        read: ReadId,
    },
    Fault,
    /// The new leader's fate.
    Crash(NodeId),
    Restart(NodeId),
    Meddle,
}

enum Write {
    Records(Vec<Record>, Lsn),
    Checkpoint(SnapshotRef, Vec<Record>, Lsn),
    Save(Index, FrozenChain),
    Stage(Piece),
}

struct Node {
    replica: Option<Replica<Raft, Chain>>,
    life: u64,
    commands: u64,
    reads: BTreeMap<ReadId, Index>,
    read_numbers: u64,
    records: Vec<Record>,
    snapshot: Option<SnapshotRef>,
    writes: VecDeque<Write>,
    staging: Vec<u8>,
    /// The clock's distance from the true time.
    skew: Duration,
    paused_until: Time,
    disk_stuck_until: Time,
    woken_at: Option<Time>,
}

/// The cluster and its network.
pub(crate) struct Network {
    pub(crate) weather: Weather,
    pub(crate) now: Time,
    pub(crate) seed: u64,
    rng: Rng,
    nodes: BTreeMap<NodeId, Node>,
    members: Members,
    events: BinaryHeap<Reverse<(Time, u64)>>,
    payloads: BTreeMap<u64, Event>,
    sequence: u64,
    blocked: BTreeSet<(NodeId, NodeId)>,
    /// The hash after every index (and place within its batch), as first applied by anybody.
    truth: BTreeMap<(Index, u64), u64>,
    seen: BTreeMap<CommandId, Index>,
    leaders: BTreeMap<u64, NodeId>,
    applied_max: Index,
    pub(crate) replies: u64,
    pub(crate) reads_served: u64,
    pub(crate) restores: u64,
    pub(crate) changes: u64,
    calm: bool,
}

/// The outside of one replica, for one flush.
struct Outside<'a> {
    rng: &'a mut Rng,
    weather: &'a Weather,
    writes: &'a mut VecDeque<Write>,
    sent: Vec<(NodeId, Packet<Message>)>,
    readable: Vec<ReadId>,
    unreadable: Vec<ReadId>,
    replies: u64,
    changes: u64,
}

impl World<Raft, Chain> for Outside<'_> {
    fn persist(&mut self, records: &mut Vec<Record>, upto: Lsn) {
        // Through the codec, as on a real disk.
        let decoded =
            records.drain(..).map(|record| Record::decode_all(record.to_bytes()).expect("a record"));
        self.writes.push_back(Write::Records(decoded.collect(), upto));
    }

    fn checkpoint(&mut self, snapshot: &SnapshotRef, records: Vec<Record>, upto: Lsn) {
        self.writes.push_back(Write::Checkpoint(snapshot.clone(), records, upto));
    }

    fn send(&mut self, to: NodeId, packet: Packet<Message>) {
        if self.rng.chance(self.weather.loss) {
            return;
        }
        let packet = match packet {
            Packet::Protocol(message) => {
                let copy = Message::decode_all(message.to_bytes()).expect("a message");
                assert_eq!(copy, message, "the codec loses nothing");
                Packet::Protocol(copy)
            }
            other => other,
        };
        if self.rng.chance(self.weather.doubling) {
            self.sent.push((to, packet.clone()));
        }
        self.sent.push((to, packet));
    }

    fn reply(&mut self, _id: CommandId, _reply: ()) {
        self.replies += 1;
    }

    fn refuse(&mut self, _id: CommandId, _reason: Refusal) {}

    fn readable(&mut self, read: ReadId) {
        self.readable.push(read);
    }

    fn unreadable(&mut self, read: ReadId, _reason: Refusal) {
        self.unreadable.push(read);
    }

    fn declined(&mut self, _reason: Refusal) {}

    fn members(&mut self, _at: Index, _members: &Members) {
        self.changes += 1;
    }

    fn save(&mut self, at: Index, frozen: FrozenChain) {
        self.writes.push_back(Write::Save(at, frozen));
    }

    fn stage(&mut self, piece: Piece) {
        self.writes.push_back(Write::Stage(piece));
    }
}

impl Network {
    pub(crate) fn new(weather: Weather, seed: u64) -> Network {
        let mut network = Network {
            now: Time(1),
            seed,
            rng: Rng::new(seed),
            nodes: BTreeMap::new(),
            members: Members::of((1..=weather.nodes).map(NodeId)),
            events: BinaryHeap::new(),
            payloads: BTreeMap::new(),
            sequence: 0,
            blocked: BTreeSet::new(),
            truth: BTreeMap::new(),
            seen: BTreeMap::new(),
            leaders: BTreeMap::new(),
            applied_max: Index::ZERO,
            replies: 0,
            reads_served: 0,
            restores: 0,
            changes: 0,
            calm: false,
            weather,
        };
        // Two more than the cluster begins with: they join later, if at all.
        for id in 1..=network.weather.nodes + 2 {
            let skew = network.rng.span(Duration::ZERO, Duration::from_secs(1000));
            network.nodes.insert(
                NodeId(id),
                Node {
                    replica: None,
                    life: 0,
                    commands: 0,
                    reads: BTreeMap::new(),
                    read_numbers: 0,
                    records: Vec::new(),
                    snapshot: None,
                    writes: VecDeque::new(),
                    staging: Vec::new(),
                    skew,
                    paused_until: Time::ZERO,
                    disk_stuck_until: Time::ZERO,
                    woken_at: None,
                },
            );
            network.start(NodeId(id));
        }
        network.schedule(Duration::ZERO, Event::Client);
        if !network.weather.fault_every.is_zero() {
            network.schedule(Duration::ZERO, Event::Fault);
        }
        network
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.payloads.insert(self.sequence, event);
        self.events.push(Reverse((self.now + after, self.sequence)));
    }

    /// Lets `span` pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(Reverse((at, sequence))) = self.events.peek().copied() {
            if at > end {
                break;
            }
            self.events.pop();
            self.now = at;
            let event = self.payloads.remove(&sequence).expect("every event has a payload");
            self.happen(event);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { node, life } => {
                if self.postponed(node, Event::Wake { node, life }) {
                    return;
                }
                if let Some(it) = self.nodes.get_mut(&node).filter(|it| it.life == life) {
                    it.woken_at = None;
                    self.with(node, Replica::tick);
                }
            }
            Event::Packet { from, to, packet } => {
                if self.blocked.contains(&(from, to)) {
                    return;
                }
                if self.nodes[&to].paused_until > self.now {
                    self.postponed(to, Event::Packet { from, to, packet });
                    return;
                }
                self.with(to, |replica, now| replica.receive(now, from, packet));
            }
            Event::Disk { node, life } => self.disk(node, life),
            Event::Client => {
                self.client();
                let pause = self.rng.span(Duration::from_millis(1), Duration::from_millis(30));
                self.schedule(pause, Event::Client);
            }
            Event::Read { node, life, read } => {
                if !self.postponed(node, Event::Read { node, life, read }) && self.nodes[&node].life == life {
                    self.with(node, |replica, _| replica.read(read));
                }
            }
            Event::Crash(node) => {
                if !self.calm {
                    self.crash(node);
                    let after = self.rng.span(Duration::ZERO, self.weather.options.election_timeout);
                    self.schedule(after, Event::Restart(node));
                }
            }
            Event::Restart(node) => {
                if self.nodes[&node].replica.is_none() {
                    self.start(node);
                }
            }
            Event::Meddle => {
                if self.calm {
                    return;
                }
                if self.rng.chance(0.5) {
                    self.meddle(1);
                } else {
                    self.hand_over();
                }
            }
            Event::Fault => {
                if !self.calm {
                    self.fault();
                    let mean = self.weather.fault_every;
                    let pause = self.rng.span(Duration::ZERO, mean * 2);
                    self.schedule(pause, Event::Fault);
                }
            }
        }
    }

    /// Puts an event off until its node goes on.
    fn postponed(&mut self, node: NodeId, event: Event) -> bool {
        let until = self.nodes[&node].paused_until;
        if until <= self.now {
            return false;
        }
        // What gathered meanwhile is found in any order.
        let after = until.since(self.now) + self.rng.span(Duration::ZERO, Duration::from_micros(100));
        self.schedule(after, event);
        true
    }

    fn start(&mut self, id: NodeId) {
        let members = if self.members.contains(id) { self.members.clone() } else { Members::default() };
        let node = self.nodes.get_mut(&id).expect("a node");
        node.life += 1;
        node.woken_at = None;
        let seed = self.rng.next_u64();
        let config = Config { id, members, seed, options: self.weather.options.clone() };
        let found = Recovered { records: node.records.clone(), snapshot: node.snapshot.clone() };
        let compaction = CompactionPolicy {
            deliveries_min: self.weather.snapshot_every,
            bytes_min: 0,
            per_snapshot_byte: 0,
        };
        let limits = Limits { compaction, ..Limits::default() };
        let replica = Replica::open(&config, limits, found, Chain::default(), || self.now + node.skew);
        node.replica = Some(replica.expect("the snapshot is as it was written"));
        self.with(id, |_, _| {});
    }

    fn disk(&mut self, id: NodeId, life: u64) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.life != life || node.writes.is_empty() {
            return;
        }
        let stuck = node.disk_stuck_until.max(node.paused_until);
        if stuck > self.now {
            let after = stuck.since(self.now);
            return self.schedule(after, Event::Disk { node: id, life });
        }
        let write = node.writes.pop_front().expect("a write");
        if !node.writes.is_empty() {
            let after = self.rng.span(Duration::ZERO, self.weather.sync_max);
            self.schedule(after, Event::Disk { node: id, life });
        }
        let node = self.nodes.get_mut(&id).expect("a node");
        match write {
            Write::Records(records, upto) => {
                node.records.extend(records);
                self.with(id, |replica, now| replica.durable(now, upto));
            }
            Write::Checkpoint(snapshot, records, upto) => {
                let at = snapshot.at;
                node.records = records;
                node.snapshot = Some(snapshot);
                self.with(id, |replica, now| replica.checkpointed(now, at, upto));
            }
            Write::Save(at, frozen) => self.with(id, |replica, now| replica.saved(now, saved(at, frozen))),
            Write::Stage(piece) => {
                if piece.offset == 0 {
                    node.staging.clear();
                }
                node.staging.extend_from_slice(&piece.data);
                let (from, transfer) = (piece.from, piece.transfer);
                if piece.sum.is_some() {
                    let bytes = Bytes::from(std::mem::take(&mut node.staging));
                    let snapshot = SnapshotRef::in_memory(piece.at, bytes);
                    // A crash may come before the protocol has said that it wants it.
                    if self.rng.chance(0.1) {
                        self.crash(id);
                        let node = self.nodes.get_mut(&id).expect("a node");
                        if node.snapshot.as_ref().is_none_or(|older| older.at < snapshot.at) {
                            node.snapshot = Some(snapshot);
                        }
                        return self.start(id);
                    }
                    self.restores += 1;
                    self.with(id, |replica, now| replica.installed(now, from, transfer, snapshot));
                } else {
                    let upto = piece.offset + piece.data.len() as u64;
                    self.with(id, |replica, _| replica.staged(from, transfer, upto));
                }
            }
        }
    }

    /// Gives a replica an input, lets it act, and checks what it did.
    fn with(&mut self, id: NodeId, input: impl FnOnce(&mut Replica<Raft, Chain>, Time)) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let Some(replica) = &mut node.replica else { return };
        let local = self.now + node.skew;
        input(replica, local);
        let idle = node.writes.is_empty();
        let mut outside = Outside {
            rng: &mut self.rng,
            weather: &self.weather,
            writes: &mut node.writes,
            sent: Vec::new(),
            readable: Vec::new(),
            unreadable: Vec::new(),
            replies: 0,
            changes: 0,
        };
        loop {
            replica.flush(local, &mut outside).expect("snapshots can be restored");
            if replica.deadline() != Some(Time::ZERO) {
                break;
            }
        }
        let Outside { sent, readable, unreadable, replies, changes, .. } = outside;
        self.replies += replies;
        self.changes += changes;
        for (at, command, hash) in std::mem::take(&mut replica.machine_mut().fresh) {
            let known = *self.truth.entry((at, command.number ^ (command.origin.0 << 48))).or_insert(hash);
            assert_eq!(known, hash, "{id:?} applied something else at {at:?} than others did");
            let first = *self.seen.entry(command).or_insert(at);
            assert_eq!(first, at, "{command:?} was applied twice");
        }
        self.applied_max = self.applied_max.max(replica.applied());
        let mut leads = false;
        let status = replica.status();
        if status.role == Role::Leader {
            let fresh = !self.leaders.contains_key(&status.term);
            let leader = *self.leaders.entry(status.term).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {}", status.term);
            leads = fresh;
        }
        for read in readable {
            let seen = node.reads.remove(&read).expect("a read is served once");
            self.reads_served += 1;
            assert!(
                replica.applied() >= seen,
                "{id:?} served a stale read: {:?} before {seen:?}",
                replica.applied()
            );
        }
        for read in unreadable {
            node.reads.remove(&read);
        }
        let wake =
            replica.deadline().map(|deadline| Time(deadline.0.saturating_sub(node.skew.as_nanos() as u64)));
        let life = node.life;
        let writing = idle && !node.writes.is_empty();
        if let Some(wake) = wake
            && node.woken_at.is_none_or(|planned| wake < planned)
        {
            node.woken_at = Some(wake);
            let after = wake.since(self.now);
            self.schedule(after, Event::Wake { node: id, life });
        }
        if writing {
            let after = self.rng.span(Duration::ZERO, self.weather.sync_max);
            self.schedule(after, Event::Disk { node: id, life });
        }
        if leads {
            self.try_leader(id);
        }
        for (to, packet) in sent {
            // Mostly quick, sometimes very late.
            let late = if self.rng.chance(0.02) { 20 } else { 1 };
            let after = self.rng.span(Duration::ZERO, self.weather.delay_max * late);
            self.schedule(after, Event::Packet { from: id, to, packet });
        }
    }

    fn any(&mut self) -> NodeId {
        NodeId(self.rng.between(1, self.nodes.len() as u64))
    }

    fn client(&mut self) {
        let id = self.any();
        let applied_max = self.applied_max;
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.replica.is_none() {
            return;
        }
        if node.paused_until > self.now {
            node.read_numbers += 1;
            let read = ReadId(node.read_numbers);
            node.reads.insert(read, applied_max);
            let life = node.life;
            self.postponed(id, Event::Read { node: id, life, read });
            return;
        }
        if self.rng.chance(0.5) {
            let count = self.rng.between(1, 3);
            let mut commands = Vec::new();
            for _ in 0..count {
                node.commands += 1;
                let id = CommandId { origin: id, number: node.commands };
                commands.push(Command { id, payload: Bytes::from(vec![7; self.rng.below(40) as usize]) });
            }
            self.with(id, |replica, _| {
                for command in commands {
                    replica.submit(command).expect("there is room");
                }
            });
        } else {
            node.read_numbers += 1;
            let read = ReadId(node.read_numbers);
            node.reads.insert(read, applied_max);
            self.with(id, |replica, _| replica.read(read));
        }
    }

    /// One line for each replica.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("seed {}, at {:?}\n", self.seed, self.now);
        for (id, node) in &self.nodes {
            match &node.replica {
                Some(replica) => {
                    text += &format!("{id:?} applied {:?} {:?}\n", replica.applied(), replica.status())
                }
                None => text += &format!("{id:?} is down\n"),
            }
        }
        text
    }
}

fn saved(at: Index, frozen: FrozenChain) -> SnapshotRef {
    let mut bytes = Vec::new();
    frozen.write_to(&mut bytes).expect("memory takes every byte");
    SnapshotRef::in_memory(at, Bytes::from(bytes))
}
