//! How members talk: framed, checked TCP connections, one in each direction and lane.
//!
//! Every member dials every other one and only *sends* on the connections that it dialled; what comes in on
//! accepted ones goes to the node. A message is encoded straight into the buffer of its link. What has gathered there in a
//! node's turn is written in one call by the node itself, as far as the connection takes it, and the rest by the link's
//! task; see [`link::Due`] for when. The transport may lose messages and says so in its
//! numbers: when a link is down, or its buffer is full, the message is dropped, because protocols repeat
//! themselves and late words are worth less than new ones. Snapshot chunks have connections of their own
//! (the bulk lane), opened when needed, so that they never stand in front of a heartbeat.
//!
//! Left out, because the network is trusted until TLS is there: encryption and proof of identity.

mod accept;
mod frame;
mod hello;
mod http;
mod link;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use synod_core::NodeId;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::config::Address;
use crate::metrics::Histogram;

pub use frame::FRAME_BYTES_MAX;
pub use hello::Lane;
use link::{Due, Link};

/// Establishing a connection, handshake included, takes no longer.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A connection on which nothing was heard for so long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How often a link asks whether the other side is there.
const PING_EVERY: Duration = Duration::from_secs(3);
/// A single write that takes longer means that the other side does not read.
const STALL_MAX: Duration = Duration::from_secs(10);

/// Who a transport is, and what it must not mix with.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This member.
    pub me: NodeId,
    /// Its cluster.
    pub cluster: u64,
    /// The replication protocol's name.
    pub protocol: &'static str,
    /// Where its peers reach it.
    pub addresses: Vec<Address>,
}

/// Where incoming messages go, and what the peer port's HTTP side tells.
pub trait Inbound: Send + Sync + 'static {
    /// Takes messages of a member, in order; leaves `messages` empty.
    fn deliver(&self, from: NodeId, messages: &mut Vec<Bytes>);
    /// The body of `GET /version`.
    fn version_json(&self) -> String;
    /// The body of `GET /members`.
    fn members_json(&self) -> String;
    /// The body of `GET /synod/cluster`.
    fn cluster_json(&self) -> String;
    /// A member refused this one because it was removed from the cluster.
    fn told_removed(&self, by: NodeId);
}

/// The numbers of one peer, counted since the transport started.
#[derive(Debug)]
pub struct PeerNumbers {
    /// Bytes written to it.
    pub sent_bytes: AtomicU64,
    /// Bytes read from it.
    pub received_bytes: AtomicU64,
    /// Messages that were dropped: the link was down or full.
    pub send_failures: AtomicU64,
    /// How long pings take there and back.
    pub round_trips: Histogram,
    /// Whether the link to it stands.
    pub connected: AtomicBool,
    /// Whether it has a connection to us.
    pub heard: AtomicBool,
}

impl Default for PeerNumbers {
    fn default() -> Self {
        PeerNumbers {
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            send_failures: AtomicU64::new(0),
            // etcd's bounds: 0.1 ms to 3 s.
            round_trips: Histogram::doubling(Duration::from_micros(100), 16),
            connected: AtomicBool::new(false),
            heard: AtomicBool::new(false),
        }
    }
}

/// A message that is ready to be sent.
pub struct Prepared {
    link: Arc<Link>,
    message: Bytes,
}

impl Prepared {
    /// Sends it at once, or drops it and counts that.
    pub fn send(self) {
        self.link.send(Due::WithTheTurn, |out| out.extend_from_slice(&self.message));
        self.link.dispatch();
    }
}

struct Peer {
    talk: Arc<Link>,
    bulk: Arc<Link>,
    numbers: Arc<PeerNumbers>,
    /// The links' tasks end when this is dropped.
    _tasks: JoinSet<()>,
}

struct Shared {
    identity: Identity,
    inbound: Arc<dyn Inbound>,
    peers: RwLock<BTreeMap<NodeId, Peer>>,
    /// Former members: they are told so when they dial.
    left: RwLock<BTreeSet<NodeId>>,
}

/// All connections of one member. Dropping it ends them.
pub struct Transport {
    shared: Arc<Shared>,
    accepting: JoinSet<()>,
}

impl Transport {
    /// A transport without peers. Must be called on the runtime that is to carry it.
    #[must_use]
    pub fn start(identity: Identity, listeners: Vec<TcpListener>, inbound: Arc<dyn Inbound>) -> Transport {
        let shared =
            Arc::new(Shared { identity, inbound, peers: RwLock::default(), left: RwLock::default() });
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept::run(listener, shared.clone()));
        }
        Transport { shared, accepting }
    }

    /// Makes these the peers; links to all others end, new ones begin.
    pub fn set_peers(&self, wanted: &BTreeMap<NodeId, Vec<Address>>) {
        let me = self.shared.identity.me;
        let mut peers = self.shared.peers.write();
        peers.retain(|id, peer| wanted.get(id).is_some_and(|addresses| *addresses == peer.talk.addresses));
        for (&id, addresses) in wanted {
            if id == me || peers.contains_key(&id) {
                continue;
            }
            let numbers = Arc::new(PeerNumbers::default());
            let link = |lane| Arc::new(Link::new(id, lane, addresses.clone(), numbers.clone()));
            let (talk, bulk) = (link(Lane::Talk), link(Lane::Bulk));
            let mut tasks = JoinSet::new();
            tasks.spawn(link::run(talk.clone(), self.shared.identity.clone(), self.shared.inbound.clone()));
            tasks.spawn(link::run(bulk.clone(), self.shared.identity.clone(), self.shared.inbound.clone()));
            peers.insert(id, Peer { talk, bulk, numbers, _tasks: tasks });
        }
    }

    /// Tells who was a member once.
    pub fn set_left(&self, left: &BTreeSet<NodeId>) {
        if *self.shared.left.read() != *left {
            self.shared.left.write().clone_from(left);
        }
    }

    /// Sends what `write` appends, or drops it and counts that.
    pub fn send(&self, to: NodeId, lane: Lane, write: impl FnOnce(&mut BytesMut)) {
        let peers = self.shared.peers.read();
        if let Some(peer) = peers.get(&to) {
            match lane {
                Lane::Talk => peer.talk.send(Due::Now, write),
                Lane::Bulk => peer.bulk.send(Due::Now, write),
            }
        }
    }

    /// As [`Transport::send`] on the talk lane, with [`Transport::dispatch`].
    pub fn send_with_the_turn(&self, to: NodeId, write: impl FnOnce(&mut BytesMut)) {
        if let Some(peer) = self.shared.peers.read().get(&to) {
            peer.talk.send(Due::WithTheTurn, write);
        }
    }

    /// As [`Transport::send`] on the talk lane, with the next message to the same peer or with [`Transport::hurry`].
    pub fn send_at_leisure(&self, to: NodeId, write: impl FnOnce(&mut BytesMut)) {
        if let Some(peer) = self.shared.peers.read().get(&to) {
            peer.talk.send(Due::AtLeisure, write);
        }
    }

    /// A message on the talk lane that is to be sent later, from any thread.
    pub fn prepare(&self, to: NodeId, write: impl FnOnce(&mut BytesMut)) -> Option<Prepared> {
        let link = self.shared.peers.read().get(&to)?.talk.clone();
        let mut message = BytesMut::new();
        write(&mut message);
        Some(Prepared { link, message: message.freeze() })
    }

    /// Writes what was sent with the turn, as far as the connections take it before this returns. Whether something stays
    /// that was sent at leisure.
    pub fn dispatch(&self) -> bool {
        let peers = self.shared.peers.read();
        // All of them, which `any` would not ask.
        peers.values().filter(|peer| peer.talk.dispatch()).count() > 0
    }

    /// Has what was sent at leisure written soon: after whatever else waits for this thread.
    pub fn hurry(&self) {
        self.shared.peers.read().values().for_each(|peer| peer.talk.hurry());
    }

    /// The numbers of every peer.
    #[must_use]
    pub fn numbers(&self) -> Vec<(NodeId, Arc<PeerNumbers>)> {
        self.shared.peers.read().iter().map(|(id, peer)| (*id, peer.numbers.clone())).collect()
    }

    /// How many peers this member has a connection to.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.shared
            .peers
            .read()
            .values()
            .filter(|peer| peer.numbers.connected.load(Ordering::Relaxed))
            .count()
    }

    /// The peer with the smallest name that this member has a connection to, among those that `counts`.
    #[must_use]
    pub fn first_connected(&self, counts: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let peers = self.shared.peers.read();
        let stands = |peer: &Peer| peer.numbers.connected.load(Ordering::Relaxed);
        peers.iter().find(|(id, peer)| counts(**id) && stands(peer)).map(|(id, _)| *id)
    }

    /// Stops accepting; what is connected stays until the transport is dropped.
    pub fn stop_accepting(&mut self) {
        self.accepting.abort_all();
    }
}

#[cfg(test)]
mod tests;
