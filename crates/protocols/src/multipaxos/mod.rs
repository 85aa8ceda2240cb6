//! Multi-Paxos, after Lamport, "Paxos Made Simple" (2001), section 3; van Renesse and Altinbuken, "Paxos Made Moderately
//! Complex" (2015), PMMC below; and Chandra, Griesemer and Redstone, "Paxos Made Live" (2007), for what practice adds.
//!
//! Every slot is an instance of Paxos: once a quorum has accepted a value in some ballot, the slot is decided, and no later
//! ballot can decide otherwise. Phase 1 does not depend on the value, so one Prepare is made for *all* slots that are not
//! decided yet, and whoever gets a quorum's promises leads: from then on each decision costs phase 2 alone, which is half the
//! messages and half the syncs of Basic Paxos. Accepts for many slots are under way at once and may arrive in any order; an
//! acceptor takes each, whether the slots before it are there or not. A new leader first proposes, in its own ballot, whatever
//! the promises found, and *no-ops* in the gaps between.
//!
//! Every replica is acceptor and learner, and one of them leads. Where to read on, in the papers' order:
//!
//! | file | what | paper |
//! |---|---|---|
//! | `message`, `wire` | the messages and the records, and their encoding | PMMC 2.2 |
//! | `slots`, `disk` | what an acceptor has accepted, and what of it is durable | PMMC 2.2 |
//! | `acceptor` | promises, and accepting | PMMC figure 4; Made Simple 2.2 |
//! | `scout` | phase 1 for all slots; who may lead | PMMC 2.2, figure 6b; Made Simple 3; Made Live 4.2 |
//! | `commander`, `progress` | phase 2 for each slot, and what is decided | PMMC 2.2, figure 6a |
//! | `learner` | what is decided is delivered, in slot order | PMMC 2.1 |
//! | `membership` | configurations as decided values | PMMC 2.1 and 4.4; Made Live 5.1 |
//! | `reads` | linearizable reads by a round or by lease | PMMC 4.5; Made Live 5.2 |
//! | `transfer` | leadership is handed over | |
//! | `compaction`, `recovery` | snapshots; from records to a replica | PMMC 4.2 to 4.4; Made Live 5.4 |
//! | `mutants` | one rule left out at a time, for tests | |
//!
//! Choices that the papers leave open:
//!
//! - *The disk is a member of the quorum.* A leader sends Accepts before its own disk has them, and counts itself when it has.
//! - *Who leads.* Acceptors refuse promises to others while they hear of their leader, for an election timeout; a replica
//!   probes whether it would be promised before it spends a ballot; a leader that reaches no quorum steps down. PMMC's back-off
//!   after a preemption is the random part of the election timeout.
//! - *A configuration is in force right behind its slot*, not a window of *alpha* slots later: the leader proposes nothing behind
//!   a configuration before it is decided, and then only with promises from a quorum of the new one. So no slot's configuration
//!   is ever unknown, and a change costs one round trip instead of alpha no-ops. `membership` says why this is sound.
//! - *Who lags behind still votes.* A replica that waits for a snapshot accepts what is new meanwhile.
//! - *Proposals* of a follower travel to its leader once; a copy is recognised and dropped, a loss is left to the client's
//!   patience. With no leader known they are refused at once, which is certain.
//! - *Requests* (Prepare, Accept) are taken from anyone whose ballot they carry, because whoever has fallen behind may not know
//!   its own cluster; *answers* count only from those who were asked.
//!
//! Left out: leases of replicas other than the leader, PMMC's colocation of roles on fewer machines, Made Live's epochs (a
//! client's business), and any defence against peers that lie: of what they say only the form is checked.

mod acceptor;
mod commander;
mod compaction;
mod disk;
mod inspect;
mod learner;
mod membership;
mod message;
mod mutants;
mod options;
mod progress;
mod reads;
mod recovery;
mod scout;
mod slots;
mod transfer;
mod wire;

use std::collections::VecDeque;

use synod_core::{
    Batch, Config, Index, Input, Lsn, NodeId, Output, Peer, Protocol, Recovered, Refusal, Rng, Role, Status,
    Time,
};

use commander::Leading;
use compaction::Compaction;
use disk::Disk;
pub use message::{Ballot, Message, Purpose, Pvalue, Range, Record, Value};
pub use mutants::Mutant;
pub use options::{Options, OptionsError};
use progress::Progress;
use reads::Reads;
use scout::{Phase1, Tally};
use slots::Slots;

/// A Multi-Paxos replica.
///
/// Invariants:
/// - nothing below `promised` is ever promised or accepted again;
/// - every slot up to `decided` holds the decided value, and never changes; `decided` never decreases;
/// - everything up to `prefix` is accepted in the ballot `promised`, or decided;
/// - `delivered <= decided`, but for a while after a restart: the state may know more than the slots;
/// - whatever `send` promises is in a record before it.
pub struct MultiPaxos {
    id: NodeId,
    options: Options,
    rng: Rng,
    /// The latest moment seen.
    now: Time,

    promised: Ballot,
    /// The record that holds `promised`.
    promised_lsn: Lsn,
    /// The highest round that anybody spoke of.
    round_seen: u64,
    part: Part,
    /// Who leads in `promised`, once it was heard of; itself when it leads.
    leader: Option<NodeId>,
    /// When a leader was heard of last, in whatever ballot.
    heard_leader: Option<Time>,
    election_due: Time,

    slots: Slots,
    disk: Disk,
    decided: Index,
    delivered: Index,
    prefix: Index,
    /// How far the leader of `promised` says that slots are decided.
    told: Index,
    /// Whether the leader waits to hear what was accepted.
    owes_accepted: bool,
    /// How far a record says what is decided.
    recorded: Index,
    /// Such records on their way to the disk.
    recording: VecDeque<(Lsn, Index)>,
    /// How far the disk knows what is decided.
    knows: Index,

    reads: Reads,
    compaction: Compaction,
    /// How often this replica was opened, this time included, and the record that says so.
    life: (u64, Lsn),
    /// Counts the proposals forwarded in this life.
    forwarded: u64,
}

/// What a replica is beside acceptor and learner, with what only that role needs.
enum Part {
    Follower,
    /// Asks whether it would be promised a ballot.
    Probing(Tally),
    /// Phase 1.
    Scout(Phase1),
    /// Phase 2.
    Leader(Box<Leading>),
}

impl Protocol for MultiPaxos {
    type Message = Message;
    type Record = Record;
    type Options = Options;

    fn open(config: &Config<Options>, found: Recovered<Record>, now: Time, out: &mut Output<Self>) -> Self {
        MultiPaxos::recover(config, found, now, out)
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
            self.decide_what_a_quorum_accepted(out);
            self.propose_what_waits(out);
            self.settle_change();
            self.fence_reads(out);
            self.replicate(out);
            self.continue_transfer(out);
            self.leave_if_removed(out);
        } else {
            self.answer_accept(out);
            self.forward_reads(out);
        }
        self.deliver(out);
        self.record_decided(out);
        self.disk.wrote(out.written(), self.prefix, self.now);
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

    fn status(&self) -> Status {
        let members = (**self.slots.members()).clone();
        let role = match &self.part {
            Part::Leader(_) => Role::Leader,
            Part::Scout(_) => Role::Candidate,
            Part::Probing(_) => Role::PreCandidate,
            Part::Follower if members.learners.contains(&self.id) => Role::Learner,
            Part::Follower => Role::Follower,
        };
        let peers = match &self.part {
            Part::Leader(leading) => {
                let members = leading.peers.iter().filter(|(id, _)| members.contains(**id));
                members.map(|(id, peer)| self.peer_status(*id, peer)).collect()
            }
            _ => Vec::new(),
        };
        Status {
            role,
            leader: self.leader,
            term: self.promised.round,
            decided: self.decided,
            last: self.slots.last().max(self.decided),
            members,
            peers,
        }
    }
}

impl MultiPaxos {
    fn on_message(&mut self, from: NodeId, message: Message, out: &mut Output<Self>) {
        let foreign = message.led().is_some_and(|ballot| ballot.leader != from);
        if from == self.id || from == NodeId(0) || foreign || !message.is_bounded() {
            return;
        }
        match message {
            Message::Probe { ballot, from: slot } => self.on_probe(from, ballot, slot, out),
            Message::Probed { ballot, granted, promised } => {
                self.on_probed(from, ballot, granted, promised, out);
            }
            Message::Prepare { ballot, from: slot, purpose } => {
                self.on_prepare(from, ballot, slot, purpose, out);
            }
            Message::Promise { ballot, from: slot, upto, accepted, decided } => {
                self.on_promise(from, ballot, scout::Part { from: slot, upto, accepted, decided }, out);
            }
            Message::Refused { asked, promised } => self.on_refused(from, asked, promised, out),
            Message::Accept { ballot, first, values, decided } => {
                self.on_accept(from, ballot, first, values, decided, out);
            }
            Message::Accepted { ballot, through, beyond } => {
                self.on_accepted(from, ballot, through, &beyond);
            }
            Message::Heartbeat { ballot, decided, round, sent } => {
                self.on_heartbeat(from, ballot, decided, round, sent, out);
            }
            Message::HeartbeatAck { ballot, round, sent, received, durable, knows } => {
                let held = commander::Held { received, durable, knows };
                self.on_heartbeat_ack(from, ballot, round, sent, held, out);
            }
            Message::Decided { ballot, upto } => self.on_decided(from, ballot, upto, out),
            // It speaks of a snapshot, and came without one.
            Message::Install { .. } => {}
            Message::NeedSnapshot { ballot, from: slot } => self.on_need_snapshot(from, ballot, slot, out),
            Message::Forward { ballot, life, number, batch } => {
                self.on_forward(from, ballot, life, number, batch);
            }
            Message::RequestIndex { life, number } => self.on_request_index(from, life, number),
            Message::ReadIndex { life, number, index } => self.on_read_index(life, number, index, out),
            Message::Invite { ballot } => self.on_invite(from, ballot, out),
        }
    }

    /// Clients of this replica want a batch ordered.
    fn propose(&mut self, batch: Batch, out: &mut Output<Self>) {
        let busy = self.is_busy();
        match (&mut self.part, self.leader) {
            (Part::Leader(leading), _) if leading.transfer.is_some() => out.refuse(batch, Refusal::NoLeader),
            (Part::Leader(_), _) if busy => out.refuse(batch, Refusal::Busy),
            (Part::Leader(leading), _) => leading.queue(Value::Batch(batch)),
            (_, Some(leader)) => {
                self.forwarded += 1;
                let (life, _) = self.life;
                let message = Message::Forward { ballot: self.promised, life, number: self.forwarded, batch };
                self.send_in_this_life(leader, message, out);
            }
            (_, None) => out.refuse(batch, Refusal::NoLeader),
        }
    }

    /// A follower's clients want a batch ordered.
    fn on_forward(&mut self, from: NodeId, ballot: Ballot, life: u64, number: u64, batch: Batch) {
        let (busy, forgetful) = (self.is_busy(), self.has(Mutant::ForwardTwice));
        let Part::Leader(leading) = &mut self.part else { return };
        // Meant for another ballot's leader: what became of it there is unknown, so it must not be taken twice.
        if ballot != self.promised || leading.transfer.is_some() || busy {
            return;
        }
        let Some(peer) = leading.peers.get_mut(&from) else { return };
        // A copy, or overtaken by a later one: a message lost, as far as the follower can tell.
        if (life, number) <= peer.forwarded && !forgetful {
            return;
        }
        peer.forwarded = (life, number);
        leading.queue(Value::Batch(batch));
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
        while let Some((_, upto)) = self.recording.pop_front_if(|(mark, _)| *mark <= lsn) {
            self.knows = self.knows.max(upto);
        }
        // One's own promise counts like any other: once it is on disk.
        self.count_promises(out);
    }

    fn on_timeout(&mut self, out: &mut Output<Self>) {
        match self.part {
            Part::Leader(_) => self.leader_timeout(out),
            _ if self.now >= self.election_due => self.election_timeout(out),
            _ => {}
        }
        self.reads_timeout(out);
    }

    fn peer_status(&self, id: NodeId, peer: &Progress) -> Peer {
        Peer {
            id,
            matched: peer.through,
            silent: peer.is_awake.then(|| self.now.since(peer.heard)),
            snapshotting: peer.snapshot.is_some(),
        }
    }
}
