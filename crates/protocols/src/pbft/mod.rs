//! PBFT, after Castro and Liskov, "Practical Byzantine Fault Tolerance" (OSDI 1999), and their journal version of 2002
//! for what the first leaves to a technical report.
//!
//! Of n = 3f + 1 replicas, f may do anything at all. In each *view* one replica is the *primary*; it gives requests their
//! sequence numbers by a pre-prepare. A backup that accepts it says so by a prepare; whoever sees 2f + 1 agree knows
//! that no other request can get this number in this view, and says so by a commit; whoever sees 2f + 1
//! commits knows that the request keeps its number in every later view, and executes it. A primary that does not get
//! requests executed is replaced: replicas leave for the next view, and the new primary shows what 2f + 1 of them said.
//!
//! Where to read on, in the paper's order:
//!
//! | file | what | paper |
//! |---|---|---|
//! | `message`, `wire` | the messages and the records, and their encoding | 4.1 to 4.4 |
//! | `keys` | signatures, and what is signed | 3, 5.3 |
//! | `quorum` | how many must agree | 3 |
//! | `client`, `pool`, `dedup` | requests: made, kept until executed, executed once | 4.1 |
//! | `ordering`, `slot` | pre-prepare, prepare, commit | 4.2 |
//! | `execution` | from decisions to deliveries | 4.2 |
//! | `checkpoint` | checkpoints, watermarks, garbage collection | 4.3 |
//! | `snapshot` | states that are compared, and carried to others | 4.3, 5.1 (2002: 5.3) |
//! | `view_change`, `selection` | view change and new view | 4.4 (2002: 4.5) |
//! | `liveness` | timers | 4.5.2 |
//! | `catch_up` | what was lost is sent again; lagging replicas catch up | 5.2 |
//! | `recovery` | from records and a snapshot to a replica | |
//! | `inspect` | what oracles may look at | |
//! | `mutants` | one rule left out at a time, for tests | |
//!
//! Choices that the paper leaves open, or where this departs from it:
//!
//! - *Clients.* A replica stands in the client's place: it signs requests of its clients, sends them to the primary, and to
//!   all when that does not help. Its clients trust it. (`synod proxy` asks all replicas for those who trust none.)
//! - *The disk.* The paper's replicas do not come back with their memory. Here every promise (pre-prepare, prepare, commit, view
//!   change, checkpoint) leaves after its record is durable, so all may be killed at once, and a restart is no fault.
//! - *Batches.* A pre-prepare carries all requests that wait, not one, and several are under way at once.
//! - *MACs.* Every message has one, for its one receiver; the paper's authenticators, one MAC for each receiver, are not needed,
//!   because what is passed on is signed.
//! - *Decisions are facts.* A lagging replica believes f + 1 others that say the same of a sequence number: one of them
//!   is honest. A quorum of commits convinces in every view and phase.
//! - *A primary that wants to be replaced* is followed at once; it can do itself no other harm.
//! - *Reads* are ordered like requests, as fences without commands; the paper's read-only optimisation is left out.
//! - *Members* do not change: a new replica's key would have to be known to all, and the paper has no such thing.
//!
//! Left out: proactive recovery (2002), tentative execution, digest replies (a client here has one reply).

mod catch_up;
mod checkpoint;
mod client;
mod dedup;
mod execution;
mod inspect;
mod keys;
mod liveness;
mod message;
mod mutants;
mod options;
mod ordering;
mod pool;
mod quorum;
mod recovery;
mod selection;
mod slot;
mod snapshot;
mod view_change;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use synod_core::{
    Awaiting, Batch, Config, Index, Input, Lsn, Members, NodeId, Output, Protocol, Recovered, Refusal, Role,
    SnapshotPlaces, Status, Time,
};

use catch_up::CatchUp;
use client::Own;
pub use dedup::Executed;
pub use keys::{Digest, KeyError, Keys, Mac, Signature, Subject, digest};
pub use message::{
    Base, Certificate, Claim, Content, Message, NewView, Point, Progress, Proposal, Record, Request, Sealed,
    View, ViewChange,
};
pub use mutants::Mutant;
pub use options::{Options, OptionsError};
use pool::Pool;
use quorum::Quorums;
use slot::Slot;
use snapshot::Snapshots;

/// A PBFT replica.
///
/// Invariants:
/// - `head` never decreases; `decided` holds everything above the newest saved snapshot that is known to be decided;
/// - the machine is at `state`; execution goes on only while `state >= head`, and delivers what lies above `state`;
/// - slots lie in `stable < n <= stable + window`;
/// - whatever `send` promises is in a record before it.
pub struct Pbft {
    id: NodeId,
    options: Options,
    keys: Keys,
    members: Members,
    /// In the order in which they become primary.
    voters: Vec<NodeId>,
    quorums: Quorums,
    /// The latest moment seen.
    now: Time,
    /// How often this replica was opened, this time included, and the record that says so.
    life: (u64, Lsn),
    durable: Lsn,

    view: View,
    phase: Phase,
    /// What began the view; nothing for the first.
    new_view: Option<Arc<NewView>>,
    /// What the primary of this view must propose where earlier views may have decided.
    selection: BTreeMap<Index, Digest>,
    /// The newest of each replica.
    view_changes: BTreeMap<NodeId, Arc<ViewChange>>,

    slots: BTreeMap<Index, Slot>,
    /// The sequence number that this replica gives next, when it is the primary.
    next: Index,
    /// Commits of this replica that wait for its own disk.
    own_commits: Awaiting<(View, Index, Digest)>,
    /// The last stable checkpoint: the low watermark.
    stable: Arc<Certificate>,
    checkpoints: BTreeMap<Index, BTreeMap<NodeId, (Digest, Signature)>>,

    /// What is decided, executed or not, as far as it is kept.
    decided: BTreeMap<Index, Arc<Proposal>>,
    decided_bytes: usize,
    /// What was executed: up to where, behind which history, which requests.
    head: Base,
    /// Where the machine is.
    state: Index,
    snapshots: Snapshots,

    pool: Pool,
    own: Own,
    catch_up: CatchUp,

    /// When this replica loses its patience with the view.
    view_due: Option<Time>,
    /// How long that takes at the moment.
    patience: Duration,
    heartbeat_due: Time,
}

/// Whether the view has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has, and this replica takes part.
    Active,
    /// This replica has left for it, and waits for its beginning.
    Changing,
}

impl Protocol for Pbft {
    type Message = Sealed;
    type Record = Record;
    type Options = Options;

    const SNAPSHOTS: SnapshotPlaces = SnapshotPlaces::AsDelivered;
    const PEERS_ARE_HONEST: bool = false;

    fn open(config: &Config<Options>, found: Recovered<Record>, now: Time, out: &mut Output<Self>) -> Pbft {
        Pbft::recover(config, found, now, out)
    }

    fn step(&mut self, now: Time, input: Input<Sealed>, out: &mut Output<Self>) {
        self.now = self.now.max(now);
        if !self.is_member() {
            return refuse(input, out);
        }
        match input {
            Input::Message { from, message } => self.on_message(from, message, out),
            Input::Installed { from, message, snapshot } => self.on_installed(from, message, snapshot, out),
            Input::Propose(batch) => self.propose(batch, out),
            Input::Read(read) => self.own.read(read),
            Input::Reconfigure(_) => out.decline(Refusal::Unsupported(
                "pbft has no change of members: every replica must hold the key of every other from the start",
            )),
            Input::Transfer(to) => self.transfer(to, out),
            Input::Durable(lsn) => self.on_durable(lsn, out),
            Input::Freezing(at) => self.snapshots.freezing(at),
            Input::Snapshot(snapshot) => self.snapshot_saved(&snapshot, out),
            Input::TransferFailed(_) => {}
            Input::Timeout => self.on_timeout(out),
        }
    }

    fn propose_as_leader(&mut self, now: Time, batch: Batch, out: &mut Output<Self>) {
        self.now = self.now.max(now);
        self.propose_as_primary(batch, out);
    }

    fn flush(&mut self, now: Time, out: &mut Output<Self>) {
        self.now = self.now.max(now);
        if !self.is_member() {
            return;
        }
        self.make_requests(out);
        self.execute_decided(out);
        self.propose_pooled(out);
        // A cluster of one has decided meanwhile.
        self.execute_decided(out);
        self.trim_memory();
        self.watch_the_primary();
    }

    fn deadline(&self) -> Option<Time> {
        let due = self.view_due.map_or(self.heartbeat_due, |due| due.min(self.heartbeat_due));
        self.is_member().then_some(due)
    }

    fn checkpoint(&self, records: &mut Vec<Record>) {
        self.write_checkpoint(records);
    }

    fn status(&self) -> Status {
        let is_primary = self.is_primary();
        let last = self.slots.keys().next_back().copied().unwrap_or_default();
        Status {
            role: if is_primary { Role::Primary } else { Role::Backup },
            leader: self.known_primary(),
            term: self.view.0,
            decided: self.head.point.at,
            last: last.max(self.head.point.at),
            members: self.members.clone(),
            peers: self.catch_up.peers(self.now),
        }
    }
}

impl Pbft {
    /// Whether a message is what another replica said to this one.
    fn believes(&self, from: NodeId, sealed: &Sealed) -> bool {
        // The configuration does not change: nobody else has anything to say.
        from != self.id && self.voters.contains(&from) && sealed.is_from(from, &self.keys)
    }

    fn on_message(&mut self, from: NodeId, sealed: Sealed, out: &mut Output<Self>) {
        if !self.believes(from, &sealed) {
            return;
        }
        match sealed.message {
            Message::Request(request) => self.on_request(from, request, out),
            Message::PrePrepare { view, at, proposal } => self.on_pre_prepare(from, view, at, proposal, out),
            Message::Prepare { view, at, digest } => self.on_prepare(from, view, at, digest, out),
            Message::Commit { view, at, digest } => self.on_commit(from, view, at, digest, out),
            Message::Checkpoint { point, signature } => self.on_checkpoint(from, point, signature, out),
            Message::Stable(certificate) => self.on_stable(certificate, out),
            Message::Saved { at, state, signature } => self.on_saved(from, at, state, signature),
            Message::ViewChange(view_change) => self.on_view_change(from, view_change, out),
            Message::NewView(new_view) => self.on_new_view(new_view, out),
            Message::Status(progress) => self.on_status(from, progress, out),
            Message::Fetch { from: first, content } => self.on_fetch(from, first, content, out),
            Message::Decided { from: first, digests, proposals } => {
                self.on_decided(from, first, digests, proposals, out);
            }
            Message::FetchProposal { at, digest } => self.on_fetch_proposal(from, at, digest, out),
            Message::Fetched { at, proposal } => self.on_fetched(at, proposal, out),
            // It speaks of a snapshot, and came without one.
            Message::InstallSnapshot { .. } => {}
        }
    }

    fn on_durable(&mut self, lsn: Lsn, out: &mut Output<Self>) {
        self.durable = self.durable.max(lsn);
        self.count_own_commits(out);
    }

    /// Whether this replica belongs to the cluster. One that was started without being named there has no say.
    fn is_member(&self) -> bool {
        self.voters.contains(&self.id)
    }

    /// The primary, if its view has begun.
    fn known_primary(&self) -> Option<NodeId> {
        (self.phase == Phase::Active && self.is_member()).then(|| self.primary_of(self.view))
    }

    fn primary_of(&self, view: View) -> NodeId {
        self.voters[(view.0 % self.voters.len() as u64) as usize]
    }

    /// Whether this replica is the primary of a view that has begun.
    fn is_primary(&self) -> bool {
        self.known_primary() == Some(self.id)
    }

    /// So many, one of whom is honest.
    fn weak(&self) -> usize {
        if self.has(Mutant::BelievesFew) { self.quorums.f.max(1) } else { self.quorums.weak() }
    }

    /// Tells another replica, once every record so far is durable.
    fn say(&self, to: NodeId, message: Message, out: &mut Output<Self>) {
        out.send(to, Sealed::new(message, to, &self.keys));
    }

    /// Tells another replica at once. The caller owes a comment that says why this promises nothing.
    fn say_early(&self, to: NodeId, message: Message, out: &mut Output<Self>) {
        out.send_early(to, Sealed::new(message, to, &self.keys));
    }

    /// Tells all others, once every record so far is durable.
    fn multicast(&self, message: &Message, out: &mut Output<Self>) {
        let digest = message.digest();
        for peer in self.voters.iter().filter(|peer| **peer != self.id) {
            out.send(*peer, Sealed { message: message.clone(), mac: self.keys.mac(*peer, digest) });
        }
    }

    /// Tells all others at once. The caller owes a comment that says why this promises nothing.
    fn multicast_early(&self, message: &Message, out: &mut Output<Self>) {
        let digest = message.digest();
        for peer in self.voters.iter().filter(|peer| **peer != self.id) {
            out.send_early(*peer, Sealed { message: message.clone(), mac: self.keys.mac(*peer, digest) });
        }
    }
}

/// What a replica answers that belongs to nothing.
fn refuse(input: Input<Sealed>, out: &mut Output<Pbft>) {
    match input {
        Input::Propose(batch) => out.refuse(batch, Refusal::NoLeader),
        Input::Read(read) => out.refuse_read(read, Refusal::NoLeader),
        Input::Reconfigure(_) | Input::Transfer(_) => out.decline(Refusal::NoLeader),
        _ => {}
    }
}
