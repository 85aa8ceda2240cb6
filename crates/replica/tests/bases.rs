//! Where replicas of different states give their snapshots the same names: no peer's takes the place of one that a restart may need.

use std::io;

use bytes::Bytes;
use synod_core::{
    Audience, Command, CommandId, Config, Frozen, Index, Lsn, Machine, Members, NodeId, Protocol, ReadId,
    Recovered, Refusal, SnapshotRef, Time, Vector,
};
use synod_protocols::causal::{Causal, Membership, Message, Options, Record};
use synod_replica::{Chunk, CompactionPolicy, Limits, Packet, Piece, Replica, World};

/// A state that says nothing: what it is called is what matters here.
#[derive(Clone)]
struct Nothing;

impl Machine for Nothing {
    type Reply = ();
    type Frozen = Nothing;

    fn apply(&mut self, _at: Index, _command: &Command, _audience: Audience) {}

    fn freeze(&self) -> Nothing {
        Nothing
    }

    fn restore(&mut self, _source: &SnapshotRef) -> io::Result<()> {
        Ok(())
    }
}

impl Frozen for Nothing {
    fn write_to(self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(b"-")
    }
}

/// What the replica asked for.
#[derive(Default)]
struct Asked {
    persisted: Option<Lsn>,
    checkpoint: Option<(Index, Lsn)>,
    save: Option<Index>,
    staged: Vec<Piece>,
    rejected: Vec<u64>,
}

impl World<Causal, Nothing> for Asked {
    fn persist(&mut self, records: &mut Vec<Record>, upto: Lsn) {
        records.clear();
        self.persisted = Some(upto);
    }
    fn checkpoint(&mut self, snapshot: &SnapshotRef, _records: Vec<Record>, upto: Lsn) {
        self.checkpoint = Some((snapshot.at, upto));
    }
    fn send(&mut self, _to: NodeId, packet: Packet<Message>) {
        if let Packet::Rejected { transfer } = packet {
            self.rejected.push(transfer);
        }
    }
    fn reply(&mut self, _id: CommandId, _reply: ()) {}
    fn refuse(&mut self, id: CommandId, reason: Refusal) {
        unreachable!("{id:?} refused: {reason:?}");
    }
    fn readable(&mut self, _read: ReadId) {}
    fn unreadable(&mut self, _read: ReadId, _reason: Refusal) {}
    fn declined(&mut self, _reason: Refusal) {}
    fn members(&mut self, _at: Index, _members: &Members) {}
    fn save(&mut self, at: Index, _frozen: Nothing) {
        self.save = Some(at);
    }
    fn stage(&mut self, piece: Piece) {
        self.staged.push(piece);
    }
}

const NOW: Time = Time(1_000_000);

/// A replica that saves a snapshot after every delivery.
fn opened() -> Replica<Causal, Nothing> {
    let members = Members::of([1, 2, 3].map(NodeId));
    let config = Config { id: NodeId(1), members, seed: 1, options: Options::default() };
    let compaction = CompactionPolicy { deliveries_min: 1, bytes_min: 0, per_snapshot_byte: 0 };
    let limits = Limits { compaction, ..Limits::default() };
    Replica::open(&config, limits, Recovered::default(), Nothing, || NOW).expect("nothing to restore")
}

/// What a flush asked for.
fn flushed(replica: &mut Replica<Causal, Nothing>) -> Asked {
    let mut asked = Asked::default();
    replica.flush(NOW, &mut asked).expect("every snapshot can be restored");
    asked
}

/// Delivers one more command, and saves a snapshot behind it; gives the checkpoint that the disk is to write.
fn saves_another(replica: &mut Replica<Causal, Nothing>, number: u64) -> (Index, Lsn) {
    let id = CommandId { origin: NodeId(1), number };
    replica.submit(Command { id, payload: Bytes::from_static(b"x") }).expect("there is room");
    let upto = flushed(replica).persisted.expect("a cast is recorded");
    replica.durable(NOW, upto);
    let at = flushed(replica).save.expect("a snapshot is due");
    assert_eq!(at, Index(number));
    replica.saved(NOW, SnapshotRef::in_memory(at, Bytes::from_static(b"-")));
    flushed(replica).checkpoint.expect("the log begins anew above it")
}

/// The whole snapshot of a peer that has delivered `at` casts of its own.
fn snapshot_of(peer: u64, at: u64, transfer: u64) -> (NodeId, Packet<<Causal as Protocol>::Message>) {
    let vector = Vector::from_iter([(NodeId(peer), at)]);
    let data = Bytes::from_static(b"+");
    let end =
        Some((crc32c::crc32c(&data), Message::State { vector, clock: 1, members: Membership::default() }));
    let chunk = Chunk { transfer, at: Index(at), total: 1, offset: 0, data, end };
    (NodeId(peer), Packet::Chunk(chunk))
}

/// Whether the replica lets the disk have the snapshot, or rejects it.
fn takes(replica: &mut Replica<Causal, Nothing>, (from, packet): (NodeId, Packet<Message>)) -> bool {
    let Packet::Chunk(Chunk { transfer, .. }) = packet else { unreachable!("it is a chunk") };
    replica.receive(NOW, from, packet);
    let asked = flushed(replica);
    let staged = asked.staged.iter().any(|piece| (piece.from, piece.transfer) == (from, transfer));
    assert_ne!(staged, asked.rejected.contains(&transfer), "it is taken, or its sender hears that it is not");
    staged
}

/// A newer snapshot is saved, and the checkpoint above it is still on its way to the disk: a crash now leads back to the one before. So a
/// peer's of that name is rejected, until the checkpoint is there.
#[test]
fn what_a_restart_would_build_upon_keeps_its_name() {
    let mut replica = opened();
    let (first, upto) = saves_another(&mut replica, 1);
    replica.checkpointed(NOW, first, upto);
    let (second, upto) = saves_another(&mut replica, 2);
    let (third, upto_third) = saves_another(&mut replica, 3);
    assert!(!takes(&mut replica, snapshot_of(2, 1, 10)), "the log stands on it");
    assert!(!takes(&mut replica, snapshot_of(2, 2, 11)), "the log may stand on it any moment");
    assert!(!takes(&mut replica, snapshot_of(2, 3, 12)), "it is the newest");
    replica.checkpointed(NOW, second, upto);
    assert!(!takes(&mut replica, snapshot_of(2, 2, 13)), "now the log stands on it");
    replica.checkpointed(NOW, third, upto_third);
    assert!(!takes(&mut replica, snapshot_of(2, 3, 14)), "and now on this");
    assert!(takes(&mut replica, snapshot_of(2, 2, 15)), "nothing leads back to this any more");
}

/// A peer's snapshot is taken over, and before that turn is over another peer's comes that has the same position.
#[test]
fn what_was_just_taken_over_keeps_its_name() {
    let mut replica = opened();
    assert!(takes(&mut replica, snapshot_of(2, 5, 20)));
    let snapshot = SnapshotRef::in_memory(Index(5), Bytes::from_static(b"+"));
    replica.installed(NOW, NodeId(2), 20, snapshot);
    assert!(!takes(&mut replica, snapshot_of(3, 5, 30)));
}
