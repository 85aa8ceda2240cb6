//! Basic Paxos, after Lamport, "Paxos Made Simple" (2001): leaderless, one instance of the algorithm for each slot of a log.
//!
//! Every replica is proposer, acceptor and learner. A proposer asks a majority of acceptors to promise a ballot (phase 1);
//! the promises tell what was accepted before, and it asks the majority to accept the value of the highest-numbered of those
//! proposals, or its own if there is none (phase 2). A value that a majority has accepted is chosen for ever,
//! because any later ballot's phase 1 meets an acceptor that accepted it, and takes it up.
//!
//! Where to read on, in the paper's order:
//!
//! | file | what | paper |
//! |---|---|---|
//! | `message`, `wire` | ballots, messages and records, and their encoding | 2.2, 2.5 |
//! | `acceptor` | Promise and Accepted | 2.2 (P1a), 2.5 |
//! | `proposer` | the two phases; duels, and what ends them | 2.2 (P2c), 2.3, 2.4 |
//! | `learner` | Chosen, catching up, delivery | 2.3 |
//! | `membership` | configurations as values, in force α slots later | 3 |
//! | `slots` | the instances in memory | 3 |
//! | `compaction` | snapshots, and what memory keeps | |
//! | `recovery` | from records and a snapshot to a replica | 2.5 |
//! | `inspect` | what oracles may look at | |
//! | `mutants` | one rule left out at a time, for tests | |
//!
//! Choices that the paper leaves open:
//!
//! - *Several slots at a time.* A proposer may have values in several slots of the window of [`ALPHA`] slots behind the
//!   last decided one, each in the first slot in which it has seen nobody else.
//! - *No value twice.* A value that was proposed in a slot stays there until the slot is decided (`proposer`).
//! - *Reads* are fenced by phase 1 of a slot that was begun after they came: that a majority has accepted nothing there proves
//!   that nothing was chosen, so all that was answered before lies in earlier slots. The slot is then filled,
//!   with a batch if one waits, else with a no-op.
//! - *The disk is a member of the quorum.* Requests go out while the own acceptor writes; it counts when its disk says so.
//!
//! Left out: the distinguished proposer and its single phase 1 for all later slots (that is `multipaxos`), and any
//! defence against peers that lie: of what they say only the form is checked, so that nothing malformed panics.

mod acceptor;
mod compaction;
mod inspect;
mod learner;
mod membership;
mod message;
mod mutants;
mod options;
mod proposer;
mod recovery;
mod slots;
mod wire;

use std::collections::BTreeMap;

use synod_core::{
    Batch, Config, Index, Input, Lsn, NodeId, Output, Peer, Protocol, ReadId, Recovered, Refusal, Rng, Role,
    Status, Time,
};

use acceptor::Votes;
use compaction::Compaction;
use learner::Learning;
pub use membership::ALPHA;
use membership::{PendingChange, Settings};
use message::NUMBER_MAX;
pub use message::{Ballot, Configurations, Message, Proposal, Record, Value};
pub use mutants::Mutant;
pub use options::{Options, OptionsError};
use proposer::{Attempt, Queue};
use slots::Slots;

/// A Paxos replica.
///
/// Invariants:
/// - `slots.base() <= decided`, every slot in between has a chosen value, and `decided` never decreases;
/// - `delivered <= decided`, but for a while after a restart: the state may know more than the slots;
/// - no attempt is in a slot whose value is known, and none lies beyond the window of `ALPHA` slots;
/// - whatever `send` promises is in a record before it.
pub struct Paxos {
    id: NodeId,
    options: Options,
    rng: Rng,
    /// The latest moment seen.
    now: Time,
    /// How often this replica was opened, this time included, and the record that says so.
    life: (u64, Lsn),
    durable: Lsn,
    /// The highest round that this replica has begun, for people.
    top_round: u64,

    slots: Slots,
    /// Up to here, all values are known.
    decided: Index,
    delivered: Index,
    /// Up to here at least, the acceptor does not remember what it promised.
    floor: Index,
    settings: Settings,

    votes: Votes,
    attempts: BTreeMap<Index, Attempt>,
    queue: Queue,
    change: Option<PendingChange>,

    learning: Learning,
    compaction: Compaction,
}

impl Protocol for Paxos {
    type Message = Message;
    type Record = Record;
    type Options = Options;

    fn open(config: &Config<Options>, found: Recovered<Record>, now: Time, out: &mut Output<Self>) -> Paxos {
        Paxos::recover(config, found, now, out)
    }

    fn step(&mut self, now: Time, input: Input<Message>, out: &mut Output<Self>) {
        self.now = self.now.max(now);
        match input {
            Input::Message { from, message } => self.on_message(from, message, out),
            Input::Installed { message, snapshot, .. } => self.on_installed(message, snapshot, out),
            Input::Propose(batch) => self.propose(batch, out),
            Input::Read(read) => self.read(read, out),
            Input::Reconfigure(changes) => self.reconfigure(changes, out),
            Input::Transfer(_) => out.decline(Refusal::Unsupported(
                "paxos has no leader: every member proposes, and there is no leadership to hand over",
            )),
            Input::Durable(lsn) => {
                self.durable = self.durable.max(lsn.min(out.written()));
                self.count_own_votes(out);
            }
            Input::Freezing(at) => self.freezing(at),
            Input::Snapshot(snapshot) => self.snapshot_saved(&snapshot),
            // It asks again if it still needs one. And what is due is done in every flush.
            Input::TransferFailed(_) | Input::Timeout => {}
        }
    }

    fn flush(&mut self, now: Time, out: &mut Output<Self>) {
        self.now = self.now.max(now);
        // What was delivered by earlier flushes may leave the memory; a snapshot begins with no less than that.
        self.trim_memory();
        if self.has(Mutant::CountsItselfEarly) {
            self.count_own_votes(out);
        }
        self.continue_attempts(out);
        self.let_time_pass(out);
        if self.takes_part() {
            self.begin_what_waits(out);
        } else {
            self.refuse_what_waits(out);
        }
        self.settle_snapshot();
        self.deliver(out);
        if !out.records.is_empty() {
            self.record_choices(out);
        }
    }

    fn deadline(&self) -> Option<Time> {
        let learning = self.learning_deadline();
        Some(self.attempts_deadline().map_or(learning, |attempts| attempts.min(learning)))
    }

    fn checkpoint(&self, records: &mut Vec<Record>) {
        self.write_checkpoint(records);
    }

    fn status(&self) -> Status {
        let members = (*self.settings.newest().1).clone();
        let heard = |id: NodeId| self.learning.heard(id);
        let peers = members.all().filter(|id| *id != self.id).map(|id| Peer {
            id,
            matched: heard(id).map_or(Index::ZERO, |heard| heard.decided),
            silent: heard(id).map(|heard| self.now.since(heard.at)),
            snapshotting: false,
        });
        Status {
            role: if members.learners.contains(&self.id) { Role::Learner } else { Role::Proposer },
            leader: None,
            term: self.top_round,
            decided: self.decided,
            last: self.slots.last().max(self.decided),
            peers: peers.collect(),
            members,
        }
    }
}

impl Paxos {
    fn on_message(&mut self, from: NodeId, message: Message, out: &mut Output<Self>) {
        if from == self.id || from == NodeId(0) || message.largest() > NUMBER_MAX {
            return;
        }
        match message {
            Message::Prepare { slot, ballot } => self.on_prepare(from, slot, ballot, out),
            Message::Promise { slot, ballot, accepted } => self.on_promise(from, slot, ballot, accepted, out),
            Message::Accept { slot, ballot, value } => self.on_accept(from, slot, ballot, value, out),
            Message::Accepted { slot, ballot } => self.on_accepted(from, slot, ballot, out),
            Message::Refused { slot, ballot, promised } => self.on_refused(slot, ballot, promised),
            Message::Chosen { slot, ballot } => self.on_chosen(from, slot, ballot, out),
            Message::Have { decided } => self.on_have(from, decided, out),
            Message::Learn { after } => self.on_learn(from, after, out),
            Message::Known { first, values, decided } => self.on_known(from, first, values, decided, out),
            // It speaks of a snapshot, and came without one.
            Message::InstallSnapshot { .. } => {}
        }
    }

    /// Clients of this replica want a batch ordered.
    fn propose(&mut self, batch: Batch, out: &mut Output<Self>) {
        if !self.takes_part() {
            out.refuse(batch, self.outsider());
        } else if self.queue.bytes() >= self.options.backlog_bytes_max {
            out.refuse(batch, Refusal::Busy);
        } else {
            self.queue.push(batch);
        }
    }

    /// Clients of this replica want to read.
    fn read(&mut self, read: ReadId, out: &mut Output<Self>) {
        if !self.takes_part() {
            out.refuse_read(read, self.outsider());
        } else if self.has(Mutant::ReadWithoutFence) {
            out.serve(read, self.delivered);
        } else {
            self.queue.reads.push((read, self.now));
        }
    }

    /// Why a replica that does not take part does nothing: it was removed, or does not know its cluster yet.
    fn outsider(&self) -> Refusal {
        if self.settings.newest().1.voters.is_empty() { Refusal::NoLeader } else { Refusal::Stopped }
    }

    /// This replica does not take part any more: what was never proposed certainly never will be.
    fn refuse_what_waits(&mut self, out: &mut Output<Self>) {
        let reason = self.outsider();
        for batch in self.queue.drain() {
            out.refuse(batch, reason.clone());
        }
        for (read, _) in std::mem::take(&mut self.queue.reads) {
            out.refuse_read(read, reason.clone());
        }
        if self.change.take().is_some() {
            out.decline(reason);
        }
    }

    fn everybody_else(&self) -> Vec<NodeId> {
        let mut all = self.settings.everybody();
        all.retain(|node| *node != self.id);
        all
    }
}
