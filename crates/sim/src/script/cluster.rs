//! The scripted world: replicas, their disks, and the messages between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use synod_core::{
    CommandId, Config, Frozen, Index, Lsn, Members, NodeId, Protocol, ReadId, Recovered, Refusal,
    SnapshotRef, Time,
};
use synod_replica::{CompactionPolicy, Limits, Packet, Piece, Replica, World};

use crate::tally::Tally;

/// What a protocol promises about the order of deliveries; agreement is judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Position `i` holds the same command everywhere.
    Total,
    /// Every replica delivers the same set, in orders that may differ.
    Causal,
}

/// A cluster in a scripted world.
pub struct Cluster<P: Protocol> {
    /// The replicas, up or down, by name.
    pub nodes: BTreeMap<NodeId, Node<P>>,
    /// What is under way, oldest first.
    pub flights: VecDeque<Flight<P>>,
    /// Links that lose everything: from, to.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// What the clock says, for everybody.
    pub now: Time,
    /// The protocol's options.
    pub options: P::Options,
    /// The configuration that every replica starts with.
    pub members: Members,
    /// Where the replicas' randomness comes from.
    pub seed: u64,
    /// Deliveries between two snapshots.
    pub snapshot_every: u64,
    /// What happened, a line each.
    pub effects: String,
}

/// One replica with its disk.
pub struct Node<P: Protocol> {
    /// The replica; none while it is down.
    pub replica: Option<Replica<P, Tally>>,
    /// What survives a crash, and what is still on its way there.
    pub disk: Disk<P>,
    /// Takes no input and sees no time pass.
    pub paused: bool,
    incarnation: u64,
    commands: u64,
    reads: u64,
}

/// A disk that finishes nothing before it is told to.
pub struct Disk<P: Protocol> {
    /// The durable records since the last checkpoint, its own first.
    pub records: Vec<P::Record>,
    snapshot: Option<SnapshotRef>,
    writes: VecDeque<DiskWrite<P>>,
    /// A peer's snapshot, as far as it has come.
    staging: BytesMut,
    /// Finishes nothing, whatever it is told.
    pub stuck: bool,
}

enum DiskWrite<P: Protocol> {
    Records(Vec<P::Record>, Lsn),
    Checkpoint(SnapshotRef, Vec<P::Record>, Lsn),
    Save(SnapshotRef),
    Stage(Piece),
}

/// A packet under way.
pub struct Flight<P: Protocol> {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// What is under way.
    pub packet: Packet<P::Message>,
}

impl<P: Protocol> Clone for Flight<P> {
    fn clone(&self) -> Self {
        Flight { from: self.from, to: self.to, packet: self.packet.clone() }
    }
}

impl<P: Protocol> Default for Disk<P> {
    fn default() -> Self {
        Disk {
            records: Vec::new(),
            snapshot: None,
            writes: VecDeque::new(),
            staging: BytesMut::new(),
            stuck: false,
        }
    }
}

impl<P: Protocol> Cluster<P> {
    /// An empty world; replicas come with [`Cluster::start`].
    pub fn new(options: P::Options, members: Members, seed: u64, snapshot_every: u64) -> Self {
        Cluster {
            nodes: BTreeMap::new(),
            flights: VecDeque::new(),
            cut: BTreeSet::new(),
            now: Time::ZERO,
            options,
            members,
            seed,
            snapshot_every,
            effects: String::new(),
        }
    }

    /// Starts a replica on its disk, a new one on an empty disk.
    pub fn start(&mut self, id: NodeId) {
        let node = self.nodes.entry(id).or_insert_with(|| Node {
            replica: None,
            disk: Disk::default(),
            paused: false,
            incarnation: 0,
            commands: 0,
            reads: 0,
        });
        node.incarnation += 1;
        // A replica that joins later belongs to nothing until the cluster says so.
        let members = if self.members.contains(id) { self.members.clone() } else { Members::default() };
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(id.0 * 1009 + node.incarnation);
        let config = Config { id, members, seed, options: self.options.clone() };
        let found = Recovered { records: node.disk.records.clone(), snapshot: node.disk.snapshot.clone() };
        let compaction =
            CompactionPolicy { deliveries_min: self.snapshot_every, bytes_min: 0, per_snapshot_byte: 0 };
        let limits = Limits { compaction, ..Limits::default() };
        let replica = Replica::open(&config, limits, found, Tally::default(), || self.now);
        node.replica = Some(replica.expect("a scripted disk gives back the snapshots that it was given"));
        self.flush(id);
    }

    /// Lets a replica act on its inputs, if it is up; an input given to one that is down or paused is lost.
    pub fn with(&mut self, id: NodeId, input: impl FnOnce(&mut Replica<P, Tally>, Time)) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.paused) else { return };
        let Some(replica) = &mut node.replica else { return };
        input(replica, now);
        self.flush(id);
    }

    fn flush(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(replica) = &mut node.replica else { return };
        loop {
            let mut world = ScriptWorld {
                id,
                disk: &mut node.disk,
                flights: &mut self.flights,
                effects: &mut self.effects,
            };
            replica.flush(self.now, &mut world).expect("a scripted snapshot can be restored");
            if replica.deadline() != Some(Time::ZERO) {
                break;
            }
        }
    }

    /// A new name for a command of this node; never used again, also after a crash.
    pub fn command_id(&mut self, id: NodeId) -> Option<CommandId> {
        let node = self.nodes.get_mut(&id)?;
        node.commands += 1;
        Some(CommandId { origin: id, number: node.commands })
    }

    /// A new name for a read of this node.
    pub fn read_id(&mut self, id: NodeId) -> Option<ReadId> {
        let node = self.nodes.get_mut(&id)?;
        node.reads += 1;
        Some(ReadId(node.reads))
    }

    /// The disk finishes everything written so far; whether there was anything.
    pub fn sync(&mut self, id: NodeId) -> bool {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.replica.is_some() && !node.paused) else {
            return false;
        };
        if node.disk.stuck || node.disk.writes.is_empty() {
            return false;
        }
        let Some(replica) = &mut node.replica else { return false };
        let (mut durable, mut checkpoint) = (None, None);
        for write in std::mem::take(&mut node.disk.writes) {
            match write {
                DiskWrite::Records(records, upto) => {
                    node.disk.records.extend(records);
                    durable = Some(upto);
                }
                DiskWrite::Checkpoint(snapshot, records, upto) => {
                    checkpoint = Some(snapshot.at);
                    node.disk.records = records;
                    node.disk.snapshot = Some(snapshot);
                    durable = Some(upto);
                }
                DiskWrite::Save(snapshot) => {
                    let _ = writeln!(self.effects, "{id:?} saved {snapshot:?}");
                    replica.saved(now, snapshot);
                }
                DiskWrite::Stage(piece) => stage(&mut node.disk.staging, piece, replica, now),
            }
        }
        if let Some(upto) = durable {
            let _ = writeln!(self.effects, "{id:?} synced up to {upto:?}");
            match checkpoint {
                Some(at) => replica.checkpointed(now, at, upto),
                None => replica.durable(now, upto),
            }
        }
        self.flush(id);
        true
    }

    /// Delivers one packet, unless the link is cut or the receiver is down (then it is lost); a paused
    /// receiver's packet is put back.
    pub fn deliver(&mut self, flight: Flight<P>) {
        let Flight { from, to, packet } = flight;
        let is_up = |node: &Node<P>| node.replica.is_some();
        if self.cut.contains(&(from, to)) || !self.nodes.get(&to).is_some_and(is_up) {
            let _ = writeln!(self.effects, "{from:?} -> {to:?} lost {}", show(&packet));
            return;
        }
        let _ = writeln!(self.effects, "{from:?} => {to:?} {}", show(&packet));
        self.with(to, |replica, now| replica.receive(now, from, packet));
    }

    /// Loses memory, and whatever the disk had not finished.
    pub fn crash(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.replica = None;
            node.disk.writes.clear();
            node.disk.staging.clear();
        }
    }

    /// The first two replicas that disagree, with what they disagree about.
    pub fn disagreement(&self, order: Order) -> Option<String> {
        let mut by_index: BTreeMap<(Index, usize), (NodeId, CommandId, Bytes)> = BTreeMap::new();
        if order == Order::Causal {
            return None;
        }
        for (id, node) in &self.nodes {
            let Some(replica) = &node.replica else { continue };
            let mut previous = Index::ZERO;
            let mut nth = 0;
            for (at, command, payload) in &replica.machine().applied {
                nth = if *at == previous { nth + 1 } else { 0 };
                previous = *at;
                let said = by_index.entry((*at, nth)).or_insert_with(|| (*id, *command, payload.clone()));
                if (said.1, &said.2) != (*command, payload) {
                    return Some(format!(
                        "{:?} applied {:?} at {at:?} where {id:?} applied {command:?}",
                        said.0, said.1
                    ));
                }
            }
        }
        None
    }
}

/// Writes a piece of a peer's snapshot, and says how far it has come.
fn stage<P: Protocol>(staging: &mut BytesMut, piece: Piece, replica: &mut Replica<P, Tally>, now: Time) {
    let Piece { from, transfer, at, offset, data, sum, .. } = piece;
    if offset == 0 {
        staging.clear();
    }
    staging.extend_from_slice(&data);
    match sum {
        None => replica.staged(from, transfer, offset + data.len() as u64),
        Some(sum) if crc32c::crc32c(staging) == sum => {
            let snapshot = SnapshotRef::in_memory(at, staging.split().freeze());
            replica.installed(now, from, transfer, snapshot);
        }
        Some(_) => replica.stage_failed(from, transfer),
    }
}

/// One line for a packet, without the bytes of snapshots.
pub(crate) fn show<M: std::fmt::Debug>(packet: &Packet<M>) -> String {
    match packet {
        Packet::Protocol(message) => format!("{message:?}"),
        Packet::Chunk(chunk) => {
            let end = if chunk.end.is_some() { ", the last" } else { "" };
            format!(
                "Chunk {{ of {:?}, bytes {}..{}/{}{end} }}",
                chunk.at,
                chunk.offset,
                chunk.offset + chunk.data.len() as u64,
                chunk.total
            )
        }
        Packet::Held { upto, .. } => format!("Held {{ upto: {upto} }}"),
        Packet::Arrived { .. } => "Arrived".to_owned(),
        Packet::Rejected { .. } => "Rejected".to_owned(),
    }
}

/// The world of one replica for one flush.
struct ScriptWorld<'a, P: Protocol> {
    id: NodeId,
    disk: &'a mut Disk<P>,
    flights: &'a mut VecDeque<Flight<P>>,
    effects: &'a mut String,
}

impl<P: Protocol> ScriptWorld<'_, P> {
    fn says(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.effects, "{:?} {what}", self.id);
    }
}

impl<P: Protocol> World<P, Tally> for ScriptWorld<'_, P> {
    fn persist(&mut self, records: &mut Vec<P::Record>, upto: Lsn) {
        for record in &*records {
            self.says(format_args!("records {record:?}"));
        }
        self.disk.writes.push_back(DiskWrite::Records(std::mem::take(records), upto));
    }

    fn checkpoint(&mut self, snapshot: &SnapshotRef, records: Vec<P::Record>, upto: Lsn) {
        self.says(format_args!("checkpoints at {:?} with {} records", snapshot.at, records.len()));
        self.disk.writes.push_back(DiskWrite::Checkpoint(snapshot.clone(), records, upto));
    }

    fn send(&mut self, to: NodeId, packet: Packet<P::Message>) {
        self.flights.push_back(Flight { from: self.id, to, packet });
    }

    fn reply(&mut self, id: CommandId, reply: u64) {
        self.says(format_args!("replies to {id:?}: {reply}"));
    }

    fn refuse(&mut self, id: CommandId, reason: Refusal) {
        self.says(format_args!("refuses {id:?}: {reason:?}"));
    }

    fn readable(&mut self, read: ReadId) {
        self.says(format_args!("serves read {read}"));
    }

    fn unreadable(&mut self, read: ReadId, reason: Refusal) {
        self.says(format_args!("refuses read {read}: {reason:?}"));
    }

    fn declined(&mut self, reason: Refusal) {
        self.says(format_args!("declines: {reason:?}"));
    }

    fn note(&mut self, text: String) {
        self.says(format_args!("notes: {text}"));
    }

    fn members(&mut self, at: Index, members: &Members) {
        self.says(format_args!("members at {at:?}: {}", show_members(members)));
    }

    fn save(&mut self, at: Index, frozen: Tally) {
        let mut bytes = Vec::new();
        frozen.write_to(&mut bytes).expect("memory takes every byte");
        self.says(format_args!("freezes at {at:?}"));
        self.disk.writes.push_back(DiskWrite::Save(SnapshotRef::in_memory(at, Bytes::from(bytes))));
    }

    fn stage(&mut self, piece: Piece) {
        self.disk.writes.push_back(DiskWrite::Stage(piece));
    }
}

/// `voters 1 2 3, outgoing 1 2, learners 4`, leaving out what is empty.
pub(super) fn show_members(members: &Members) -> String {
    let sets = [
        ("voters", &members.voters),
        ("outgoing", &members.outgoing),
        ("learners", &members.learners),
        ("learners next", &members.learners_next),
    ];
    let shown = sets.iter().filter(|(_, set)| !set.is_empty()).map(|(name, set)| {
        let nodes: Vec<String> = set.iter().map(ToString::to_string).collect();
        format!("{name} {}", nodes.join(" "))
    });
    shown.collect::<Vec<_>>().join(", ")
}
