//! Raft, after Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014), and
//! Ongaro's thesis (2014) for what the paper leaves open.
//!
//! A leader, elected for a term, takes all commands, puts them into its log, and copies its log to the
//! others; an entry of its own term that a majority holds on disk is committed, and all before it with it.
//! Whoever has a majority's votes holds every committed entry, because a voter refuses a candidate whose log
//! ends earlier than its own. So the leader never looks back: its log is right, and others' give way.
//!
//! Where to read on, in the paper's order:
//!
//! | file | what | paper |
//! |---|---|---|
//! | `message`, `wire` | the messages and the records, and their encoding | figure 2 |
//! | `election` | terms, votes, pre-vote, check-quorum | 5.2, 5.4.1; thesis 4.2.3, 6.2, 9.6 |
//! | `replication`, `crate::flow` | appends, commitment, repair of logs | 5.3, 5.4.2; thesis 10.2.1 |
//! | `log`, `crate::flow` | the log in memory, and what of it is durable | 5.3 |
//! | `reads` | linearizable reads without log entries | 8; thesis 6.4 |
//! | `membership` | configuration changes, learners | 6; thesis 4.3 |
//! | `transfer` | leadership transfer | thesis 3.10 |
//! | `compaction` | snapshots, and what memory keeps | 7 |
//! | `recovery` | from records and a snapshot to a replica | 5.5 |
//! | `inspect` | what oracles may look at | |
//! | `mutants` | one rule left out at a time, for tests | |
//!
//! Choices that the paper leaves open:
//!
//! - *The disk is a member of the quorum.* A leader sends its entries before they are on its own disk, and
//!   counts itself when they are (thesis 10.2.1). A leader whose disk is stuck steps down.
//! - *Proposals* of a follower travel to its leader once; a copy is recognised and dropped, a loss is left
//!   to the client's patience. With no leader known they are refused at once, which is certain.
//! - *Reads* of a follower ask the leader for an index until they get one, for two election timeouts.
//! - *Configuration changes* take effect when appended, and go back when truncated. A change of one voter is
//!   made directly, a larger one through a joint configuration, which the leader leaves by itself.
//! - *Requests* (votes, appends) are taken from anyone, because whoever has fallen behind may not know its
//!   own cluster (paper, section 6); *answers* count only from members.
//!
//! Left out: client sessions (section 8; the state machine's business, if it wants them), and any defence
//! against peers that lie: of what they say only the form is checked, so that nothing malformed panics.

mod compaction;
mod election;
mod inspect;
mod log;
mod membership;
mod message;
mod mutants;
mod options;
mod reads;
mod recovery;
mod replication;
mod transfer;
mod wire;

use std::collections::BTreeMap;

use synod_core::{
    Batch, Config, Delivery, Index, Input, Lsn, NodeId, Output, Peer, Protocol, Recovered, Refusal, Rng,
    Role, Status, Time,
};

use crate::flow::{Disk, Flow, Progress};
use compaction::Compaction;
use election::Tally;
use log::Log;
use message::NUMBER_MAX;
pub use message::{Body, Entry, Message, Position, Purpose, Record, Term};
pub use mutants::Mutant;
pub use options::{Options, OptionsError};
use reads::Reads;
use transfer::Transfer;

/// A Raft replica.
///
/// Invariants:
/// - `commit <= log.last().index`, and never decreases; nothing at or below it is ever truncated;
/// - `delivered <= commit`, but for a while after a restart: the state may know more than the log;
/// - `verified` never exceeds the log's end: up to there the log is that of the leader of `term`;
/// - whatever `send` promises is in a record before it.
pub struct Raft {
    id: NodeId,
    options: Options,
    rng: Rng,
    /// The latest moment seen.
    now: Time,

    term: Term,
    voted_for: Option<NodeId>,
    /// The record that holds `term` and `voted_for`.
    vote_lsn: Lsn,
    part: Part,
    /// Whom this replica follows in this term; itself when it leads.
    leader: Option<NodeId>,
    /// When a leader was heard of last, in whatever term.
    heard_leader: Option<Time>,
    election_due: Time,
    /// Until then election is sought in short intervals: see [`Options::eager_start`].
    eager_until: Time,

    log: Log,
    disk: Disk,
    commit: Index,
    delivered: Index,
    /// Up to here, the log is known to be that of the leader of this term.
    verified: Index,
    /// Whether the leader waits to hear how far it could append.
    owes_appended: bool,

    reads: Reads,
    compaction: Compaction,
    /// How often this replica was opened, this time included, and the record that says so.
    life: (u64, Lsn),
    /// Counts the proposals forwarded in this life.
    forwarded: u64,
}

/// What a replica is in its term, with what only that role needs.
enum Part {
    Follower,
    PreCandidate(Tally),
    Candidate(Tally),
    Leader(Leading),
}

/// What only a leader has.
struct Leading {
    /// All other members, learners too.
    peers: BTreeMap<NodeId, Progress>,
    /// The first entry of its own term: nothing is known to be committed in this term before this is.
    term_start: Index,
    heartbeat_due: Time,
    /// The newest round of reads.
    round: u64,
    transfer: Option<Transfer>,
    /// Set once another replica was told to seek election: it may win while the lease still runs.
    lease_is_void: bool,
}

impl Protocol for Raft {
    type Message = Message;
    type Record = Record;
    type Options = Options;

    fn open(config: &Config<Options>, found: Recovered<Record>, now: Time, out: &mut Output<Self>) -> Raft {
        Raft::recover(config, found, now, out)
    }

    fn step(&mut self, now: Time, input: Input<Message>, out: &mut Output<Self>) {
        self.now = self.now.max(now);
        match input {
            Input::Message { from, message } => self.on_message(from, message, out),
            Input::Installed { from, message, snapshot } => self.on_installed(from, message, snapshot, out),
            Input::Propose(batch) => self.propose(batch, out),
            Input::Read(read) => self.read(read, out),
            Input::Reconfigure(changes) => self.reconfigure(&changes, out),
            Input::Transfer(to) => self.transfer(to, out),
            Input::Durable(lsn) => self.on_durable(lsn, out),
            Input::Freezing(at) => self.freezing(at),
            Input::Snapshot(snapshot) => self.snapshot_saved(&snapshot),
            Input::TransferFailed(peer) => self.snapshot_failed(peer),
            Input::Timeout => self.on_timeout(out),
        }
    }

    fn flush(&mut self, now: Time, out: &mut Output<Self>) {
        self.now = self.now.max(now);
        // What was delivered by earlier flushes may leave the memory; a snapshot begins with no less than that.
        self.trim_memory();
        if matches!(self.part, Part::Leader(_)) {
            self.commit_what_a_quorum_holds();
            self.continue_change(out);
            self.fence_reads(out);
            self.replicate(out);
            self.continue_transfer(out);
            self.leave_if_removed(out);
        } else {
            self.answer_append(out);
            self.forward_reads(out);
        }
        self.deliver(out);
        self.disk.wrote(out.written(), self.log.last().index, self.now);
    }

    fn deadline(&self) -> Option<Time> {
        let own = match &self.part {
            Part::Leader(leading) => Some(leading.heartbeat_due),
            _ if self.may_ever_campaign() => Some(self.election_due),
            _ => None,
        };
        [own, self.reads_deadline()].into_iter().flatten().min()
    }

    fn checkpoint(&self, records: &mut Vec<Record>) {
        self.write_checkpoint(records);
    }

    fn awaits_disk(&self) -> bool {
        match &self.part {
            Part::Leader(_) if self.has(Mutant::ForgetsItsDisk) => false,
            // An invitation to lead is repeated with whatever comes.
            Part::Leader(Leading { transfer: Some(_), .. }) => true,
            Part::Leader(_) => {
                self.reached(self.log.last().index).is_some_and(|reached| reached > self.commit)
            }
            // Its own vote counts when it is durable.
            Part::Candidate(_) | Part::PreCandidate(_) => true,
            Part::Follower => false,
        }
    }

    fn status(&self) -> Status {
        let members = (**self.log.members()).clone();
        let role = match &self.part {
            Part::Leader(_) => Role::Leader,
            Part::Candidate(_) => Role::Candidate,
            Part::PreCandidate(_) => Role::PreCandidate,
            Part::Follower if members.learners.contains(&self.id) => Role::Learner,
            Part::Follower => Role::Follower,
        };
        let peers = match &self.part {
            Part::Leader(leading) => {
                leading.peers.iter().map(|(id, peer)| self.peer_status(*id, peer)).collect()
            }
            _ => Vec::new(),
        };
        Status {
            role,
            leader: self.leader,
            term: self.term.0,
            decided: self.commit,
            last: self.log.last().index,
            members,
            peers,
        }
    }
}

impl Raft {
    fn on_message(&mut self, from: NodeId, message: Message, out: &mut Output<Self>) {
        if from == self.id || from == NodeId(0) || message.term().is_some_and(|term| term.0 > NUMBER_MAX) {
            return;
        }
        match message {
            Message::RequestVote { term, last, purpose } => {
                self.on_request_vote(from, term, last, purpose, out);
            }
            Message::Append { term, previous, entries, commit } => {
                self.on_append(from, term, previous, entries, commit, out);
            }
            Message::Heartbeat { term, commit, round, sent } => {
                self.on_heartbeat(from, term, commit, round, sent, out);
            }
            Message::Committed { term, commit } => self.on_committed(from, term, commit, out),
            Message::TimeoutNow { term } => self.on_timeout_now(from, term, out),
            Message::ReadIndex { life, number, index } => self.on_read_index(life, number, index, out),
            // It speaks of a snapshot, and came without one.
            Message::InstallSnapshot { .. } => {}
            // The rest are answers and wishes, which only members may have.
            _ if !self.log.members().contains(from) => {}
            Message::Vote { term, purpose, granted } => self.on_vote(from, term, purpose, granted, out),
            Message::Appended { term, matched } => self.on_appended(from, term, matched, out),
            Message::Rejected { term, probe, hint } => self.on_rejected(from, term, probe, hint, out),
            Message::HeartbeatAck { term, round, sent, received, durable } => {
                self.on_heartbeat_ack(from, term, round, sent, received, durable, out);
            }
            Message::NeedSnapshot { term, from: index } => self.on_need_snapshot(from, term, index, out),
            Message::Forward { term, life, number, batch } => {
                self.on_forward(from, term, life, number, batch, out);
            }
            Message::RequestIndex { life, number } => self.on_request_index(from, life, number),
        }
    }

    /// Clients of this replica want a batch ordered.
    fn propose(&mut self, batch: Batch, out: &mut Output<Self>) {
        match (&self.part, self.leader) {
            (Part::Leader(leading), _) if leading.transfer.is_some() => out.refuse(batch, Refusal::NoLeader),
            (Part::Leader(_), _) if self.is_busy() => out.refuse(batch, Refusal::Busy),
            (Part::Leader(_), _) => {
                self.append_own(Body::Batch(batch), out);
            }
            (_, Some(leader)) => {
                self.forwarded += 1;
                let (life, _) = self.life;
                let message = Message::Forward { term: self.term, life, number: self.forwarded, batch };
                self.send_in_this_life(leader, message, out);
            }
            (_, None) => out.refuse(batch, Refusal::NoLeader),
        }
    }

    /// A follower's clients want a batch ordered.
    fn on_forward(
        &mut self,
        from: NodeId,
        term: Term,
        life: u64,
        number: u64,
        batch: Batch,
        out: &mut Output<Self>,
    ) {
        let (busy, forgetful) = (self.is_busy(), self.has(Mutant::ForwardTwice));
        let Part::Leader(leading) = &mut self.part else { return };
        // Meant for another term's leader: what became of it there is unknown, so it must not be taken twice.
        if term != self.term || leading.transfer.is_some() || busy {
            return;
        }
        let Some(peer) = leading.peers.get_mut(&from) else { return };
        // A copy, or overtaken by a later one: a message lost, as far as the follower can tell.
        if (life, number) <= peer.forwarded && !forgetful {
            return;
        }
        peer.forwarded = (life, number);
        self.append_own(Body::Batch(batch), out);
    }

    /// Sends what is numbered within this life, so that no earlier life's number can be meant.
    fn send_in_this_life(&self, to: NodeId, message: Message, out: &mut Output<Self>) {
        if self.disk.holds(self.life.1) {
            // A wish promises nothing, and a crash cannot bring this life's number back.
            out.send_early(to, message);
        } else {
            out.send(to, message);
        }
    }

    fn on_durable(&mut self, lsn: Lsn, out: &mut Output<Self>) {
        self.disk.synced(lsn, self.now);
        self.count_own_vote(out);
    }

    fn on_timeout(&mut self, out: &mut Output<Self>) {
        match self.part {
            Part::Leader(_) => self.leader_timeout(out),
            _ if self.now >= self.election_due => self.election_timeout(out),
            _ => {}
        }
        self.reads_timeout(out);
    }

    /// Delivers what has been committed since the last flush.
    fn deliver(&mut self, out: &mut Output<Self>) {
        if self.delivered < self.commit {
            self.settle_snapshot();
        }
        if self.has(Mutant::DeliverySkips) && self.commit.0 > self.delivered.0 + 3 {
            self.delivered = self.delivered.next();
        }
        while self.delivered < self.commit {
            let at = self.delivered.next();
            // The machine is older than the log: a snapshot must come first.
            let Some(entry) = self.log.entry(at) else { break };
            out.deliveries.push(match &entry.body {
                Body::Batch(batch) => Delivery::Batch { at, batch: batch.clone() },
                Body::Members(members) => Delivery::Members { at, members: (**members).clone() },
            });
            self.delivered = at;
        }
    }

    fn peer_status(&self, id: NodeId, peer: &Progress) -> Peer {
        Peer {
            id,
            matched: peer.matched,
            silent: peer.is_awake.then(|| self.now.since(peer.heard)),
            snapshotting: matches!(peer.flow, Flow::Snapshot { .. }),
        }
    }
}
