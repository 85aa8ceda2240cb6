//! Primary-backup, after Alsberg and Day, "A Principle for Resilient Sharing of Distributed Resources" (1976), as Budhiraja,
//! Marzullo, Schneider and Toueg, "The Primary-Backup Approach" (1993), define it; with views after Oki and Liskov,
//! "Viewstamped Replication" (1988), and their reconfiguration after Lin, Yang, Zhang and Zhou, "PacificA" (2008).
//!
//! One replica is the primary: clients' writes go to it, it puts them in order, and its backups do as it did. *Synchronous*:
//! a write is decided when every backup of the view has it on disk; so a backup that is down blocks all writes until a new
//! view leaves it out, and whoever of the view becomes primary next holds every decided write. *Asynchronous*: a write is
//! decided when the primary has it on disk; the backups follow in a window, and what is in the window when the primary fails
//! is lost.
//!
//! Where to read on:
//!
//! | file | what | paper |
//! |---|---|---|
//! | `message`, `wire` | views, messages and records, and their encoding | Oki-Liskov 3; PacificA 2.2 |
//! | `agreement` | how the next view is decided, durably, by a majority, without an outside service | Paxos, one instance for each view |
//! | `succession` | what the next view is: takeover, backups that come and go | Oki-Liskov 4; PacificA 2.2.2, 2.2.3 |
//! | `primary` | replication, decisions, leases | Alsberg-Day; PacificA 2.1, 2.2.1 |
//! | `following` | what a backup does, repair, and coming back after a loss | PacificA 2.2.2 (reconciliation) |
//! | `log`, `crate::flow` | the log in memory, and its way to disk and peers | |
//! | `reads` | linearizable reads | PacificA 2.3 |
//! | `compaction` | snapshots, and what memory keeps | |
//! | `recovery` | from records and a snapshot to a replica | Oki-Liskov 4.3 |
//! | `inspect` | what oracles and people may look at | |
//! | `mutants` | one rule left out at a time, for tests | |
//!
//! Why it is safe, in five rules that the mutants leave out one at a time:
//!
//! 1. *The view after view n is decided once*: by Paxos among the members of view n. It names the next members, so the
//!    chain of views is also the chain of configurations.
//! 2. *A view has one primary, in one life*: one that restarts, or steps down, leads again only in a later view. So an index
//!    and a view name one entry, and a log that holds it holds what its primary had before it.
//! 3. *Whoever is in a view holds everything decided before it*: a takeover takes its view out of the last one; a primary
//!    takes in whom it saw hold all it took over, and from then on decides nothing without the newcomer.
//! 4. *Synchronous fencing needs no clock*: a decision needs all of the view, and who has gone on to the next view
//!    confirms nothing in the last one. A read needs a majority that has promised nothing to anybody else.
//! 5. *Asynchronous fencing needs a lease*: a member that confirms a heartbeat helps nobody else for an election timeout;
//!    the primary decides only while a majority's confirmations are younger than that, less what clocks may drift apart.
//!
//! Choices that the papers leave open:
//!
//! - A view has at least a majority of copies, so that any minority may be lost. (Alsberg and Day: "two-host resiliency".)
//! - The five-node rule of thumb "f+1 replicas tolerate f failures" holds for the copies; deciding a new view takes a
//!   majority of the members, of whom some may be outside the view.
//! - A takeover whose promises lack the last asynchronous primary *may* have lost decided writes: the view says so, for ever
//!   after, and linearizable reads are refused until a person says otherwise (`after_loss`).
//! - Who applied what the new primary lacks (the old primary, usually) throws it away, by installing the primary's snapshot.
//!   That snapshot lies beyond all that it applied, if need be behind empty entries: so positions never go back.
//!
//! Left out: backups that answer clients' writes, chain and hierarchical backups, and any defence against peers that lie:
//! of what they say only the form is checked, so that nothing malformed panics.

mod agreement;
mod compaction;
mod following;
mod inspect;
mod log;
mod message;
mod mutants;
mod options;
mod primary;
mod reads;
mod recovery;
mod succession;
mod wire;

use std::sync::Arc;

use synod_core::{
    Batch, Config, Delivery, Index, Input, Lsn, NodeId, Output, Peer, Protocol, Recovered, Refusal, Rng,
    Role, Status, Time,
};

use crate::flow::{Disk, Flow};
use agreement::{Proposal, Register};
use compaction::Compaction;
use log::Log;
pub use message::{Accepted, Ballot, Body, Entry, Message, Position, Record, Replication, View, ViewNumber};
pub use mutants::Mutant;
pub use options::{AfterLoss, Options, OptionsError};
use primary::{Backed, Leading};
use reads::Reads;

/// A primary-backup replica.
///
/// Invariants:
/// - what `register` and `proposal` say is about the view after `view`, and about no other;
/// - a primary leads in a view that it came to know in this life;
/// - `decided <= log.last().index`; nothing at or below `delivered` is ever truncated: a history that contradicts it is
///   only ever taken over as a whole, with its state;
/// - `verified` never exceeds the log's end: up to there the log is that of the primary of `view`;
/// - whatever `send` promises is in a record before it.
pub struct PrimaryBackup {
    id: NodeId,
    options: Options,
    rng: Rng,
    /// The latest moment seen.
    now: Time,

    /// The newest view known to be decided, and the record that says so.
    view: Arc<View>,
    view_lsn: Lsn,
    /// What this replica promised and accepted about the next one.
    register: Register,
    /// Its own attempt at it.
    proposal: Option<Proposal>,
    /// The greatest round heard of in attempts at it.
    seen_round: u64,
    part: Part,
    /// The primary, as far as it is known to be alive; itself when it leads.
    leader: Option<NodeId>,
    /// When the view's primary was heard of last, or this life began.
    heard: Option<Time>,
    election_due: Time,

    log: Log,
    disk: Disk,
    decided: Index,
    delivered: Index,
    /// Up to here, the log is known to be that of this view's primary.
    verified: Index,
    /// Whether the primary waits to hear how far it could replicate.
    owes_replicated: bool,
    /// Where this replica's applied history was seen to leave the primary's.
    strays_at: Option<Index>,
    /// Deliveries of this life that were thrown away, because a failover lost them.
    lost: u64,

    reads: Reads,
    compaction: Compaction,
    /// How often this replica was opened, this time included, and the record that says so.
    life: (u64, Lsn),
    /// Counts the proposals forwarded in this life.
    forwarded: u64,
}

/// What a replica is in its view, with what only that role needs.
enum Part {
    Backup,
    Primary(Leading),
}

impl Protocol for PrimaryBackup {
    type Message = Message;
    type Record = Record;
    type Options = Options;

    fn open(config: &Config<Options>, found: Recovered<Record>, now: Time, out: &mut Output<Self>) -> Self {
        PrimaryBackup::recover(config, found, now, out)
    }

    fn step(&mut self, now: Time, input: Input<Message>, out: &mut Output<Self>) {
        self.now = self.now.max(now);
        match input {
            Input::Message { from, message } => self.on_message(from, message, out),
            Input::Installed { from, message, snapshot } => self.on_installed(from, &message, snapshot, out),
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
        self.continue_handover(out);
        if matches!(self.part, Part::Primary(_)) {
            self.outgrow_strays(out);
            self.decide();
            self.fence_reads(out);
            self.replicate(out);
        } else {
            self.answer_replicate(out);
            self.forward_reads(out);
        }
        self.deliver(out);
        self.disk.wrote(out.written(), self.log.last().index, self.now);
    }

    fn deadline(&self) -> Option<Time> {
        let own = match &self.part {
            Part::Primary(leading) => Some(leading.heartbeat_due),
            Part::Backup if self.is_voter() => Some(self.election_due),
            Part::Backup => None,
        };
        let proposal = self.proposal.as_ref().map(Proposal::deadline);
        [own, proposal, self.reads_deadline()].into_iter().flatten().min()
    }

    fn checkpoint(&self, records: &mut Vec<Record>) {
        self.write_checkpoint(records);
    }

    fn status(&self) -> Status {
        let members = &self.view.members;
        let role = match &self.part {
            Part::Primary(_) => Role::Primary,
            Part::Backup if members.learners.contains(&self.id) => Role::Learner,
            Part::Backup => Role::Backup,
        };
        let peers = match &self.part {
            Part::Primary(leading) => {
                leading.peers.iter().map(|(id, peer)| self.peer_status(*id, peer)).collect()
            }
            Part::Backup => Vec::new(),
        };
        Status {
            role,
            leader: self.leader,
            term: self.view.number.0,
            decided: self.decided,
            last: self.log.last().index,
            members: (**members).clone(),
            peers,
        }
    }
}

impl PrimaryBackup {
    fn on_message(&mut self, from: NodeId, message: Message, out: &mut Output<Self>) {
        if from == self.id || from == NodeId(0) || !message.is_sound() {
            return;
        }
        match message {
            Message::Replicate { view, previous, entries, decided } => {
                self.on_replicate(from, view, previous, entries, decided, out);
            }
            Message::Heartbeat { view, decided, round, sent } => {
                self.on_heartbeat(from, view, decided, round, sent, out);
            }
            Message::Decided { view, decided } => self.on_decided(from, view, decided, out),
            Message::NewView { view } => self.on_new_view(view, out),
            Message::Prepare { view, ballot } => self.on_prepare(from, view, ballot, out),
            Message::Accept { view, ballot, next } => self.on_accept(from, view, ballot, next, out),
            Message::ReadIndex { view, life, number, index } => {
                self.on_read_index(from, view, life, number, index, out);
            }
            // It speaks of a snapshot, and came without one.
            Message::InstallSnapshot { .. } => {}
            // The rest are answers and wishes, which only members may have.
            _ if !self.view.members.contains(from) => {}
            Message::Promise { view, ballot, accepted, last } => {
                self.on_promise(from, view, ballot, accepted, last, out);
            }
            Message::Accepted { view, ballot } => self.on_accepted(from, view, ballot, out),
            Message::Outbid { view, promised } => self.on_outbid(view, promised),
            Message::Replicated { view, matched } => self.on_replicated(from, view, matched),
            Message::Rejected { view, probe, hint, delivered } => {
                self.on_rejected(from, view, probe, hint, delivered);
            }
            Message::Diverged { view, delivered } => self.on_diverged(from, view, delivered),
            Message::HeartbeatAck { view, round, sent, rival, received, durable } => {
                self.on_heartbeat_ack(from, view, round, sent, rival, (received, durable), out);
            }
            Message::NeedSnapshot { view, from: reach } => self.on_need_snapshot(from, view, reach, out),
            Message::Forward { view, life, number, batch } => {
                self.on_forward(from, view, (life, number), batch, out)
            }
            Message::RequestIndex { view, life, number } => self.on_request_index(from, view, life, number),
        }
    }

    /// Clients of this replica want a batch ordered.
    fn propose(&mut self, batch: Batch, out: &mut Output<Self>) {
        match (&self.part, self.leader) {
            (Part::Primary(leading), _) if leading.handover.is_some() => out.refuse(batch, Refusal::NoLeader),
            (Part::Primary(_), _) if self.is_busy() => out.refuse(batch, Refusal::Busy),
            (Part::Primary(_), _) => {
                self.append_own(Body::Batch(batch), out);
            }
            (Part::Backup, Some(primary)) => {
                self.forwarded += 1;
                let (life, _) = self.life;
                let view = self.view.number;
                let message = Message::Forward { view, life, number: self.forwarded, batch };
                self.send_in_this_life(primary, message, out);
            }
            (Part::Backup, None) => out.refuse(batch, Refusal::NoLeader),
        }
    }

    /// A backup's clients want a batch ordered.
    fn on_forward(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        name: (u64, u64),
        batch: Batch,
        out: &mut Output<Self>,
    ) {
        let (busy, forgetful) = (self.is_busy(), self.has(Mutant::ForwardTwice));
        let current = self.view.number;
        let Part::Primary(leading) = &mut self.part else { return };
        // Meant for another reign: what became of it there is unknown, so it must not be taken twice.
        if view < leading.reign || view > current || leading.handover.is_some() || busy {
            return;
        }
        let Some(peer) = leading.peers.get_mut(&from) else { return };
        // A copy, or overtaken by a later one: a message lost, as far as the backup can tell.
        if name <= peer.progress.forwarded && !forgetful {
            return;
        }
        peer.progress.forwarded = name;
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
        self.count_own(out);
    }

    fn on_timeout(&mut self, out: &mut Output<Self>) {
        match self.part {
            Part::Primary(_) => self.primary_timeout(out),
            Part::Backup if self.now >= self.election_due => self.election_timeout(out),
            Part::Backup => {}
        }
        self.proposal_timeout(out);
        self.reads_timeout(out);
    }

    /// Delivers what has been decided since the last flush.
    fn deliver(&mut self, out: &mut Output<Self>) {
        if self.delivered < self.decided {
            self.settle_snapshot();
        }
        while self.delivered < self.decided {
            let at = self.delivered.next();
            // The machine is older than the log: a snapshot must come first.
            let Some(entry) = self.log.entry(at) else { break };
            out.deliveries.push(match &entry.body {
                Body::Batch(batch) => Delivery::Batch { at, batch: batch.clone() },
                Body::Begin(members) => Delivery::Members { at, members: (**members).clone() },
            });
            self.delivered = at;
        }
    }

    fn is_voter(&self) -> bool {
        self.view.members.voters.contains(&self.id)
    }

    fn peer_status(&self, id: NodeId, peer: &Backed) -> Peer {
        let progress = &peer.progress;
        Peer {
            id,
            matched: progress.matched,
            silent: progress.is_awake.then(|| self.now.since(progress.heard)),
            snapshotting: matches!(progress.flow, Flow::Snapshot { .. }),
        }
    }
}
