//! A replication protocol as a state machine: inputs in, effects out.

use std::fmt;
use std::time::Duration;

use crate::command::Batch;
use crate::machine::SnapshotRef;
use crate::members::{Change, Members};
use crate::output::Output;
use crate::types::{Index, Lsn, NodeId, ReadId, Time};
use crate::wire::Wire;

/// A replication protocol: no clock, no socket, no disk, no thread.
///
/// The caller owes: inputs one at a time; [`Protocol::flush`] after a group of them, before the lanes are
/// drained; [`Input::Timeout`] at [`Protocol::deadline`] (late is safe, early is harmless); records written
/// in order. Nothing else: messages may be lost, doubled, reordered and late, and the replica may stop
/// between any two effects.
pub trait Protocol: Sized {
    /// What replicas say to one another.
    type Message: Clone + fmt::Debug + Wire + Send + 'static;
    /// A fact that must survive a crash; replaying all of them rebuilds the replica.
    type Record: Clone + fmt::Debug + Wire + Send + 'static;
    /// What a person may choose.
    type Options: Clone + fmt::Debug + Default;

    /// Where snapshots of the state are taken.
    const SNAPSHOTS: SnapshotPlaces = SnapshotPlaces::WhenDue;

    /// Whether position `i` of the delivery sequence is the same everywhere. Where it is not, two snapshots may have the same
    /// position and hold different states, and one must not take the other's place on a disk.
    const HAS_ONE_ORDER: bool = true;

    /// Whether a peer's snapshot is what it says before the protocol has looked at it. Where it may be a lie, it must not take the
    /// place of an own one on a disk, either, although both have one position: what was taken for a lie would be what the log stands on.
    const PEERS_ARE_HONEST: bool = true;

    /// A replica as its disk describes it; a new one when nothing was found.
    fn open(
        config: &Config<Self::Options>,
        found: Recovered<Self::Record>,
        now: Time,
        out: &mut Output<Self>,
    ) -> Self;

    /// Takes one input.
    fn step(&mut self, now: Time, input: Input<Self::Message>, out: &mut Output<Self>);

    /// This replica leads, and wants this ordered only while it does: the end of a lease, whose time it alone keeps. Ordered under
    /// another leader, who has promised the lease's holder more time meanwhile, it would break that promise; so a protocol that
    /// orders what one leader left behind under the next one must let this fall.
    fn propose_as_leader(&mut self, now: Time, batch: Batch, out: &mut Output<Self>) {
        self.step(now, Input::Propose(batch), out);
    }

    /// Says once what follows from all inputs since the last flush: pipelining and batching happen here.
    fn flush(&mut self, _now: Time, _out: &mut Output<Self>) {}

    /// When [`Input::Timeout`] is due.
    fn deadline(&self) -> Option<Time>;

    /// Appends the fewest records that rebuild this replica above its last saved snapshot. Replaying these,
    /// then every later record, must give the same replica as the whole log would.
    fn checkpoint(&self, records: &mut Vec<Self::Record>);

    /// How far deliveries are certain. None, the usual case: each is a fact as soon as it is made. Otherwise those after
    /// this one may be [taken back](Output::rewind); snapshots hold only what is settled, and after
    /// [`Input::Freezing`] what is settled never falls below its index again.
    fn settled(&self) -> Option<Index> {
        None
    }

    /// Whether anything but messages waits for this replica's own disk. While nothing does, news of the disk may wait for
    /// whatever comes next: nothing would come of them.
    fn awaits_disk(&self) -> bool {
        true
    }

    /// For people and traces, never for decisions.
    fn status(&self) -> Status;
}

/// Where snapshots of the state are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPlaces {
    /// Wherever the replica's own policy finds one due.
    WhenDue,
    /// Where the protocol delivers [`Delivery::Freeze`](crate::Delivery::Freeze), and nowhere else: so all replicas take
    /// theirs at the same places, and can compare them.
    AsDelivered,
}

/// What can happen to a replica.
#[derive(Clone, Debug)]
pub enum Input<M> {
    /// A peer said something; `from` is proven by the transport.
    Message {
        /// The speaker.
        from: NodeId,
        /// What was said.
        message: M,
    },
    /// A message that came behind a whole, verified snapshot ([`Patience::Snapshot`](crate::Patience)). The protocol either
    /// restores the snapshot, or ignores it and it is thrown away.
    Installed {
        /// The sender of the snapshot.
        from: NodeId,
        /// What was said.
        message: M,
        /// The snapshot, saved on this replica's disk.
        snapshot: SnapshotRef,
    },
    /// Clients of this replica want this ordered.
    Propose(Batch),
    /// All reads waiting at this replica want one fence.
    Read(ReadId),
    /// Change the configuration by all of these at once.
    Reconfigure(Vec<Change>),
    /// Hand leadership to this member, if the protocol has such a thing.
    Transfer(NodeId),
    /// Every record up to this one is on disk.
    Durable(Lsn),
    /// A snapshot at this index is being written: what follows it must be kept until it is saved.
    Freezing(Index),
    /// Our own snapshot is saved: forget what it covers.
    Snapshot(SnapshotRef),
    /// The transfer of a snapshot to this peer was given up.
    TransferFailed(NodeId),
    /// The deadline has passed.
    Timeout,
}

/// What a replica is told about itself when it opens.
#[derive(Clone, Debug)]
pub struct Config<O> {
    /// This replica's name.
    pub id: NodeId,
    /// The configuration to start with, when the disk holds none.
    pub members: Members,
    /// Where this replica's randomness starts; two replicas should not share it.
    pub seed: u64,
    /// The protocol's own choices.
    pub options: O,
}

/// What the disk held.
#[derive(Clone, Debug)]
pub struct Recovered<R> {
    /// Every record since the last checkpoint, the checkpoint's own records first.
    pub records: Vec<R>,
    /// The newest saved snapshot; the machine has been restored from it already.
    pub snapshot: Option<SnapshotRef>,
}

impl<R> Default for Recovered<R> {
    fn default() -> Self {
        Recovered { records: Vec::new(), snapshot: None }
    }
}

/// How a replica sees itself and its peers: shown to people, never decided upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is at the moment.
    pub role: Role,
    /// Whom it follows; itself when it leads.
    pub leader: Option<NodeId>,
    /// Its term, ballot or view.
    pub term: u64,
    /// The last position that it knows to be decided.
    pub decided: Index,
    /// The last position that it has a value for.
    pub last: Index,
    /// The configuration that it acts upon.
    pub members: Members,
    /// What a leader knows of the others.
    pub peers: Vec<Peer>,
}

/// What a leader knows of one other replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which one.
    pub id: NodeId,
    /// The last position that it is known to hold durably.
    pub matched: Index,
    /// How long ago it was heard of last, if ever in this term.
    pub silent: Option<Duration>,
    /// Whether a snapshot is on its way to it.
    pub snapshotting: bool,
}

/// What a replica can be, over all protocols; the names are the papers' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Raft and Multi-Paxos: orders commands.
    Leader,
    /// Raft and Multi-Paxos: follows a leader.
    Follower,
    /// Raft: asks for votes.
    Candidate,
    /// Raft: asks whether votes would be given.
    PreCandidate,
    /// Receives everything, has no vote.
    Learner,
    /// Basic Paxos: every replica is proposer, acceptor and learner.
    Proposer,
    /// PBFT and primary-backup.
    Primary,
    /// PBFT and primary-backup.
    Backup,
    /// Proof of work.
    Miner,
    /// Causal broadcast: all are equal.
    Equal,
}
