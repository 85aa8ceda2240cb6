//! What the services need from the replica that runs beside them.
//!
//! The services know requests, replies and errors; the node knows the protocol, the disk and the peers. This trait
//! is all that passes between them. It has two implementors: the node, and a fake of one process for the tests of the
//! services (which is why it is a trait).
//!
//! What the node owes beyond the signatures:
//!
//! - Every future resolves: within the proposal timeout (5 s + 2 election timeouts) it answers [`Failure::TimedOut`] with the cause
//!   that it knows. The services add a timer of their own only where a client states a deadline.
//! - A dropped future costs nothing: the node forgets the waiter, not necessarily the command.
//! - [`Failure::Busy`] comes at once, past the bound of queued proposals.
//! - After applying, and outside the store's lock, it rings the bell ([`Backend::bell`]) for the watch streams that the store's
//!   hub names.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use synod_core::{Change, NodeId, Refusal, Role};
use synod_kv::Store;
use synod_kv::op::{Op, Reply};
use tokio::sync::{oneshot, watch};

use super::bell::Bell;
use super::lane::OpenCall;
use super::session::Place;
use crate::contract::Contract;
use crate::metrics::Page;
use crate::proxy::Proxy;
use crate::witness::voice::Voice;

/// The store, shared between the node that writes and the services that read.
///
/// Readers hold the lock for as long as it takes to look up or to freeze a view, never across an await.
pub type SharedStore = Arc<RwLock<Store>>;

/// The replica as the services see it.
pub trait Backend: Send + Sync + 'static {
    /// The store as far as it is applied here.
    fn store(&self) -> &SharedStore;

    /// Who this member is; never changes.
    fn identity(&self) -> Identity;

    /// What the protocol gives; never changes.
    fn contract(&self) -> &Contract;

    /// How far this replica has come, for session tokens. At least as far as whatever has been read from the store before the call.
    fn place(&self) -> Place;

    /// Returns when this replica has come as far as all of these; [`Failure::Behind`] when that takes too long.
    fn reach(&self, places: Vec<Place>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Where this member stands; cheap enough to be asked for every reply's header.
    fn standing(&self) -> Standing;

    /// Orders a command, applies it here, and gives whoever waits what applying gave.
    fn submit(&self, op: Op, waiter: Waiter);

    /// The same for one that waits for nothing else.
    fn propose(&self, op: Op) -> impl Future<Output = Outcome> + Send {
        let (sender, answered) = oneshot::channel();
        self.submit(op, Waiter::Future(sender));
        async move { answered.await.unwrap_or(Err(Failure::Stopped)) }
    }

    /// Whether a command would be refused at once, whatever it is, because too many are under way; where so, it counts as refused.
    fn turns_away(&self) -> bool {
        false
    }

    /// Returns when the store shows everything that was acknowledged anywhere before the call. Many waiting
    /// fences share one round.
    fn fence(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Returns when what a compaction at `revision` gave up is really gone from this member's memory.
    fn compacted(&self, revision: i64) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Restarts a lease's time, at the leader (a follower forwards). Answers the granted seconds; `None`: there is no such lease.
    fn renew_lease(&self, id: i64) -> impl Future<Output = Result<Option<i64>, Failure>> + Send;

    /// How a lease stands, by the leader's clock (a follower asks); `None`: there is no such lease.
    fn lease_time(&self, id: i64) -> impl Future<Output = Result<Option<LeaseTime>, Failure>> + Send;

    /// All leases known here, the first to expire first (by id where this member does not keep the time).
    fn leases(&self) -> Vec<i64>;

    /// Changes the configuration, and returns when this member or its leader has seen that in force.
    fn change_members(&self, change: Change) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Hands leadership to `to`, and returns when it is done. [`Failure::NotLeader`] anywhere but at the leader,
    /// [`Failure::BadTransferee`] for a target that cannot lead.
    fn move_leader(&self, to: NodeId) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The members, by ascending id.
    fn members(&self) -> Vec<MemberInfo>;

    /// Gives room back to the system where the store can; returns when it is done.
    fn defragment(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Who keeps house, as it changes; see [`Standing::keeper`].
    fn keeper(&self) -> watch::Receiver<Option<NodeId>>;

    /// Opens a consistent image of the state, to be read piece by piece while applying goes on.
    fn snapshot(&self) -> impl Future<Output = Result<Image, Failure>> + Send;

    /// Something in the store waits for the node although nothing was proposed: watchers that lag behind are to be brought
    /// forward, and the bell to be rung. Cheap, and harmless when there is nothing to do.
    fn nudge(&self);

    /// Wakes watch streams.
    fn bell(&self) -> &Arc<Bell>;

    /// Becomes true when the member shuts down: streams end then.
    fn stopping(&self) -> watch::Receiver<bool>;

    /// How this member testifies to proxies, where the protocol has keys.
    fn voice(&self) -> Option<&Arc<Voice>> {
        None
    }

    /// Who answers in place of the store: this process is no member, and answers what several of them say alike.
    fn proxy(&self) -> Option<&Arc<Proxy>> {
        None
    }

    /// Figures for the metrics page that only the node knows: protocol, disk, peers.
    fn write_metrics(&self, page: &mut Page);
}

/// What became of a command.
pub type Outcome = Result<Reply, Failure>;

/// Who waits for a command's outcome.
pub enum Waiter {
    /// A future, which may be gone by then.
    Future(oneshot::Sender<Outcome>),
    /// A connection, among many others.
    Connection(OpenCall),
}

impl Waiter {
    /// Tells the outcome. Whoever went away does not want to know.
    pub fn tell(self, outcome: Outcome) {
        match self {
            Waiter::Future(sender) => _ = sender.send(outcome),
            Waiter::Connection(call) => call.settle(outcome),
        }
    }

    /// Whether nobody is there any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Waiter::Future(sender) => sender.is_closed(),
            Waiter::Connection(call) => call.is_gone(),
        }
    }
}

/// Who a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: u64,
    /// The member's id.
    pub member: NodeId,
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its role.
    pub role: Role,
    /// Whom it follows; itself when it leads.
    pub leader: Option<NodeId>,
    /// Who keeps house: the leader, where the protocol has one; otherwise the first member that is there. `None` while nothing
    /// can be ordered, as far as is known.
    pub keeper: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// The last position known to be decided.
    pub decided: u64,
    /// The last position applied.
    pub applied: u64,
    /// Bytes that the data takes on disk, allocated.
    pub disk_bytes: u64,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its id.
    pub id: NodeId,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// A lease's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// What is left.
    pub remaining: Duration,
    /// What was granted, in seconds.
    pub granted: i64,
}

/// A consistent image of the state. It is written on a thread of its own, so that a slow reader stalls nobody; the writer
/// waits when the reader does not keep up.
pub struct Image {
    /// How many bytes there will be.
    pub bytes: u64,
    /// The bytes in order, in pieces of any size; an error ends them.
    pub pieces: tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>,
}

/// Why the node could not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No leader is known.
    NoLeader,
    /// Only the leader does this.
    NotLeader,
    /// The leader changed before the outcome was known.
    LeaderChanged,
    /// Too many proposals wait already; this one was not queued.
    Busy,
    /// This member stops, or was removed.
    Stopped,
    /// No outcome in time: the command may be applied yet.
    TimedOut(Cause),
    /// The target cannot take over leadership.
    BadTransferee,
    /// Leadership was not taken over in time.
    TransferTimedOut,
    /// Too few voters would be left, or too few of them run.
    NotEnoughStarted,
    /// The learner lags too far behind to be promoted.
    LearnerNotReady,
    /// Only a learner can be promoted.
    NoLearner,
    /// The command is larger than the log takes.
    TooLarge,
    /// The protocol cannot give this at all; the sentence says what it lacks.
    Unsupported(&'static str),
    /// This replica has not come as far as the client's session in time.
    Behind,
    /// The session's place is none of this protocol's.
    BadPlace(String),
    /// Too few members said the same in time; the sentence tells who said what.
    NoAgreement(String),
    /// The disk or the image failed.
    Io(String),
}

/// What probably kept a proposal or a fence from its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing in particular.
    Plain,
    /// A leader was lost while it waited.
    LeaderLost,
    /// There was no connection to a quorum all the while.
    ConnectionLost,
    /// It was decided, but not applied in time.
    Applying,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        match refusal {
            Refusal::NoLeader => Failure::NoLeader,
            Refusal::NotLeader { .. } => Failure::NotLeader,
            Refusal::LeaderChanged => Failure::LeaderChanged,
            Refusal::Busy => Failure::Busy,
            Refusal::Stopped => Failure::Stopped,
            Refusal::Unsupported(what) => Failure::Unsupported(what),
            Refusal::Invalid(_) => Failure::BadTransferee,
        }
    }
}
