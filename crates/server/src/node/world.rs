//! The world outside a replica, as a server has it: peers behind sockets, a log behind a thread, clients who wait.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::RwLock;
use synod_core::{
    Audience, Command, CommandId, Index, Lsn, Machine, Members, NodeId, Protocol, ReadId, Refusal,
    SnapshotRef, Stamp, Wire,
};
use synod_kv::Store;
use synod_kv::op::Reply;
use synod_kv::snapshot::{FrozenStore as Frozen, State};
use synod_replica::{Packet, Piece, World};

use super::ask::Envelope;
use super::waiters::{Waiters, Who};
use crate::disk::DiskThreads;
use crate::protocol::Order;
use crate::service::ETCD_VERSION;
use crate::service::backend::{Failure, SharedStore};
use crate::transport::{Lane, Transport};

/// The store as a machine: the node writes through it, the services read beside it.
pub(crate) struct SharedMachine {
    pub(crate) store: SharedStore,
    /// A snapshot that is read on another thread, because it will be restored.
    ahead: Option<(Index, JoinHandle<io::Result<State>>)>,
}

impl SharedMachine {
    /// An empty store for this member that fits the protocol's order.
    pub(crate) fn new(order: Order, me: NodeId) -> SharedMachine {
        let store = match order {
            Order::Single => Store::new(),
            Order::Stamped => Store::convergent(me),
        };
        SharedMachine { store: Arc::new(RwLock::new(store)), ahead: None }
    }

    /// Begins to read a snapshot that is likely to be restored soon.
    pub(crate) fn read_ahead(&mut self, source: SnapshotRef) {
        let at = source.at;
        let reading = std::thread::Builder::new().name("read-ahead".to_owned());
        // Without a thread it is read when it is needed.
        self.ahead = reading.spawn(move || State::read(&source)).ok().map(|thread| (at, thread));
    }
}

impl Machine for SharedMachine {
    type Reply = Reply;
    type Frozen = Frozen;

    fn expect(&self, commands: &[Command]) {
        self.store.read().expect(commands);
    }

    fn apply(&mut self, at: Index, command: &Command, audience: Audience) -> Reply {
        self.store.write().apply(at, command, audience)
    }

    fn stamped(&mut self, stamp: &Stamp) {
        self.store.write().stamped(stamp);
    }

    fn apply_stamped(&mut self, at: Index, stamp: &Stamp, command: &Command, audience: Audience) -> Reply {
        self.store.write().apply_stamped(at, stamp, command, audience)
    }

    fn merge(&self, other: &SnapshotRef, at: Index) -> io::Result<Frozen> {
        self.store.read().merge(other, at)
    }

    fn freeze(&self) -> Frozen {
        self.store.read().freeze()
    }

    fn restore(&mut self, source: &SnapshotRef) -> io::Result<()> {
        let state = match self.ahead.take().filter(|(at, _)| *at == source.at) {
            Some((_, thread)) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => State::read(source),
        };
        self.store.write().become_state(state?)
    }

    fn taken_back(&mut self) {
        self.store.write().taken_back();
    }
}

/// Everything around one replica.
pub(crate) struct Outside<P: Protocol> {
    pub(crate) me: NodeId,
    pub(crate) transport: Transport,
    pub(crate) disk: DiskThreads<P::Record, Frozen>,
    pub(crate) waiters: Waiters,
    /// The configuration, when it has changed since the last turn.
    pub(crate) members: Option<Members>,
    /// Since when something that was sent at leisure may not have left yet.
    pub(crate) at_leisure: Option<Instant>,
    /// Why the last wish for another leader was not even begun.
    pub(crate) declined: Option<Refusal>,
}

impl<P: Protocol> Outside<P> {
    pub(crate) fn post(&self, to: NodeId, envelope: &Envelope<P::Message>) {
        self.transport.send(to, Lane::Talk, |out| envelope.encode(out));
    }
}

impl<P: Protocol> World<P, SharedMachine> for Outside<P> {
    fn persist(&mut self, records: &mut Vec<P::Record>, upto: Lsn) {
        self.disk.append(std::mem::take(records), upto);
    }

    fn checkpoint(&mut self, snapshot: &SnapshotRef, records: Vec<P::Record>, upto: Lsn) {
        self.disk.checkpoint(snapshot.at, records, upto);
    }

    fn send(&mut self, to: NodeId, packet: Packet<P::Message>) {
        // Chunks must not stand in front of heartbeats.
        let is_bulk = matches!(packet, Packet::Chunk(_));
        let envelope = Envelope::Packet(packet);
        if is_bulk {
            self.transport.send(to, Lane::Bulk, |out| envelope.encode(out));
        } else {
            self.transport.send_with_the_turn(to, |out| envelope.encode(out));
        }
    }

    /// The peers first: their disks have the longer way.
    fn dispatch(&mut self) {
        if !self.transport.dispatch() {
            self.at_leisure = None;
        }
        self.disk.begin();
    }

    fn send_at_leisure(&mut self, to: NodeId, packet: Packet<P::Message>) {
        self.at_leisure.get_or_insert_with(Instant::now);
        let envelope = Envelope::Packet(packet);
        self.transport.send_at_leisure(to, |out| envelope.encode(out));
    }

    fn send_when_durable(&mut self, to: NodeId, message: P::Message) -> Result<(), P::Message> {
        let envelope = Envelope::Packet(Packet::Protocol(message));
        if let Some(prepared) = self.transport.prepare(to, |out| envelope.encode(out)) {
            self.disk.then(move || prepared.send());
        }
        Ok(())
    }

    fn reply(&mut self, id: CommandId, reply: Reply) {
        self.waiters.reply(id.number, Ok(reply));
    }

    fn refuse(&mut self, id: CommandId, reason: Refusal) {
        match reason {
            // It was certainly not decided, so another try cannot do it twice.
            Refusal::NoLeader | Refusal::NotLeader { .. } | Refusal::LeaderChanged => {
                self.waiters.park(Who::Command(id.number));
            }
            final_word => self.waiters.reply(id.number, Err(Failure::from(final_word))),
        }
    }

    fn readable(&mut self, read: ReadId) {
        self.waiters.fenced(read, &Ok(()));
    }

    fn unreadable(&mut self, read: ReadId, reason: Refusal) {
        match reason {
            Refusal::NoLeader | Refusal::NotLeader { .. } | Refusal::LeaderChanged => {
                self.waiters.park(Who::Read(read.0));
            }
            final_word => self.waiters.fenced(read, &Err(Failure::from(final_word))),
        }
    }

    fn declined(&mut self, reason: Refusal) {
        self.declined = Some(reason);
    }

    fn note(&mut self, text: String) {
        tracing::warn!("{text}");
    }

    fn members(&mut self, _at: Index, members: &Members) {
        self.members = Some(members.clone());
    }

    fn save(&mut self, at: Index, frozen: Frozen) {
        self.disk.save(at, frozen);
    }

    fn stage(&mut self, piece: Piece) {
        self.disk.stage(piece);
    }
}

/// What comes in from peers goes to the inbox as it is; the node's turn decodes it.
pub(crate) struct Mouth {
    pub(crate) node: super::Node,
}

impl crate::transport::Inbound for Mouth {
    fn deliver(&self, from: NodeId, messages: &mut Vec<Bytes>) {
        let event = super::inbox::Event::Peer(from, std::mem::take(messages));
        // A node that has gone hears nothing any more.
        let _ = self.node.inbox().push(event);
    }

    fn version_json(&self) -> String {
        let minor = ETCD_VERSION.rsplit_once('.').map_or(ETCD_VERSION, |(minor, _)| minor);
        format!("{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{minor}.0\"}}")
    }

    fn cluster_json(&self) -> String {
        self.node.cluster_json()
    }

    fn told_removed(&self, by: NodeId) {
        // A node that has gone needs not be told.
        let _ = self.node.inbox().push(super::inbox::Event::ToldRemoved(by));
    }

    fn members_json(&self) -> String {
        self.node.members_json()
    }
}
