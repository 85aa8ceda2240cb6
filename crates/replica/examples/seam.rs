//! What the seam costs, under Raft and under Multi-Paxos: three `Replica<_, Counter>` in one thread, with a perfect network and a disk that is
//! durable at once, so that only the protocol and the replica are measured.
//!
//! `cargo run --release -p synod-replica --example seam`

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark reads the clock")]

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use synod_core::{
    Audience, Command, CommandId, Config, Frozen, Index, Lsn, Machine, Members, NodeId, Protocol, ReadId,
    Recovered, Refusal, Role, SnapshotRef, Time,
};
use synod_protocols::multipaxos::MultiPaxos;
use synod_protocols::raft::Raft;
use synod_replica::{Limits, Packet, Piece, Replica, World};

/// Counts commands; its reply is the count.
struct Counter(u64);

impl Machine for Counter {
    type Reply = u64;
    type Frozen = FrozenCounter;

    fn apply(&mut self, _at: Index, _command: &Command, _audience: Audience) -> u64 {
        self.0 += 1;
        self.0
    }

    fn freeze(&self) -> FrozenCounter {
        FrozenCounter(self.0)
    }

    fn restore(&mut self, source: &SnapshotRef) -> io::Result<()> {
        let bytes = source.read(0, 8)?;
        self.0 = u64::from_le_bytes(bytes.as_ref().try_into().map_err(|_| io::ErrorKind::InvalidData)?);
        Ok(())
    }
}

#[derive(Clone)]
struct FrozenCounter(u64);

impl Frozen for FrozenCounter {
    fn write_to(self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.0.to_le_bytes())
    }
}

/// A perfect world: nothing is lost, everything is durable at once.
struct Perfect<P: Protocol> {
    sent: VecDeque<(NodeId, NodeId, Packet<P::Message>)>,
    me: NodeId,
    durable: Option<Lsn>,
    checkpoint: Option<Index>,
    saved: Option<SnapshotRef>,
    replies: u64,
    messages: u64,
}

impl<P: Protocol> World<P, Counter> for Perfect<P> {
    fn persist(&mut self, records: &mut Vec<P::Record>, upto: Lsn) {
        records.clear();
        self.durable = Some(upto);
    }
    fn checkpoint(&mut self, snapshot: &SnapshotRef, _records: Vec<P::Record>, upto: Lsn) {
        self.checkpoint = Some(snapshot.at);
        self.durable = Some(upto);
    }
    fn send(&mut self, to: NodeId, packet: Packet<P::Message>) {
        self.messages += 1;
        self.sent.push_back((self.me, to, packet));
    }
    fn reply(&mut self, _id: CommandId, _reply: u64) {
        self.replies += 1;
    }
    fn refuse(&mut self, id: CommandId, reason: Refusal) {
        unreachable!("{id:?} refused: {reason:?}");
    }
    fn readable(&mut self, _read: ReadId) {}
    fn unreadable(&mut self, _read: ReadId, _reason: Refusal) {}
    fn declined(&mut self, _reason: Refusal) {}
    fn members(&mut self, _at: Index, _members: &Members) {}
    fn save(&mut self, at: Index, frozen: FrozenCounter) {
        let mut bytes = Vec::new();
        frozen.write_to(&mut bytes).expect("memory takes every byte");
        self.saved = Some(SnapshotRef::in_memory(at, Bytes::from(bytes)));
    }
    fn stage(&mut self, _piece: Piece) {}
}

struct Cluster<P: Protocol> {
    replicas: Vec<Replica<P, Counter>>,
    world: Perfect<P>,
    now: Time,
}

impl<P: Protocol> Cluster<P> {
    fn new() -> Self {
        let members = Members::of((1..=3).map(NodeId));
        let open = |id: u64| {
            let config =
                Config { id: NodeId(id), members: members.clone(), seed: id, options: P::Options::default() };
            Replica::open(&config, Limits::default(), Recovered::default(), Counter(0), || Time::ZERO)
        };
        let replicas = (1..=3).map(|id| open(id).expect("nothing to restore")).collect();
        let world = Perfect {
            sent: VecDeque::new(),
            me: NodeId(1),
            durable: None,
            checkpoint: None,
            saved: None,
            replies: 0,
            messages: 0,
        };
        Cluster { replicas, world, now: Time::ZERO }
    }

    fn flush(&mut self, nth: usize) {
        let replica = &mut self.replicas[nth];
        self.world.me = replica.id();
        loop {
            replica.flush(self.now, &mut self.world).expect("nothing to restore");
            match (self.world.durable.take(), self.world.saved.take()) {
                (None, None) => break,
                (durable, saved) => {
                    match (durable, self.world.checkpoint.take()) {
                        (Some(upto), Some(at)) => replica.checkpointed(self.now, at, upto),
                        (Some(upto), None) => replica.durable(self.now, upto),
                        (None, _) => {}
                    }
                    if let Some(snapshot) = saved {
                        replica.saved(self.now, snapshot);
                    }
                }
            }
        }
    }

    /// Delivers until nothing is under way; each receiver takes all that waits for it, then flushes once.
    fn settle(&mut self) {
        while !self.world.sent.is_empty() {
            let mut touched = [false; 3];
            for (from, to, packet) in std::mem::take(&mut self.world.sent) {
                let nth = to.0 as usize - 1;
                self.replicas[nth].receive(self.now, from, packet);
                touched[nth] = true;
            }
            for nth in (0..3).filter(|nth| touched[*nth]) {
                self.flush(nth);
            }
        }
    }

    fn elect(&mut self) -> usize {
        loop {
            if let Some(leader) =
                self.replicas.iter().position(|replica| replica.status().role == Role::Leader)
            {
                self.settle();
                return leader;
            }
            self.now = self.now + Duration::from_millis(10);
            for nth in 0..3 {
                self.replicas[nth].tick(self.now);
                self.flush(nth);
            }
            self.settle();
        }
    }
}

fn main() {
    measure::<Raft>("Raft");
    measure::<MultiPaxos>("MultiPaxos");
}

fn measure<P: Protocol>(name: &str) {
    println!("three Replica<{name}, Counter> in one thread, 16-byte payloads");
    println!("{:>6} {:>14} {:>12} {:>18}", "batch", "commands/s", "ns/command", "messages/command");
    for batch in [1usize, 16, 256] {
        let mut cluster = Cluster::<P>::new();
        let leader = cluster.elect();
        let payload = Bytes::from_static(&[7; 16]);
        let (mut number, before) = (0, cluster.world.messages);
        let commands = 200_000 * batch as u64;
        let started = Instant::now();
        while number < commands && started.elapsed() < Duration::from_secs(10) {
            // Three batches under way at a time, as a pipelining leader has.
            for _ in 0..3 * batch {
                number += 1;
                let id = CommandId { origin: cluster.replicas[leader].id(), number };
                cluster.replicas[leader]
                    .submit(Command { id, payload: payload.clone() })
                    .expect("within the limit");
                if number % batch as u64 == 0 {
                    cluster.flush(leader);
                }
            }
            cluster.settle();
            cluster.now = cluster.now + Duration::from_micros(100);
            for nth in 0..3 {
                cluster.replicas[nth].tick(cluster.now);
                cluster.flush(nth);
            }
        }
        cluster.settle();
        let seconds = started.elapsed().as_secs_f64();
        assert_eq!(cluster.world.replies, number, "every command is answered once");
        assert!(cluster.replicas.iter().all(|replica| replica.machine().0 >= number - 3 * batch as u64));
        let rate = number as f64 / seconds;
        let messages = (cluster.world.messages - before) as f64 / number as f64;
        println!("{batch:>6} {rate:>14.0} {:>12.0} {messages:>18.3}", 1e9 / rate);
    }
}
