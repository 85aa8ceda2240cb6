//! Causal broadcast as a replicated store: every replica takes writes, also alone in a partition.
//!
//! The broadcast is that of Birman, Schiper and Stephenson ("Lightweight causal and atomic group multicast", 1991, section 5.1):
//! each cast carries a vector timestamp, and waits at its receiver until everything that it could depend on is there. Lamport's
//! "happened before" (1978) is what is kept, and nothing more: casts that do not know of one another are delivered in
//! whatever order they come, which differs from replica to replica.
//!
//! That alone is causal memory (Ahamad et al. 1995), and not what people want of a store: two replicas that saw two
//! concurrent puts in different orders would differ until somebody puts again. So every cast carries a hybrid logical
//! clock, too ([`clock`]), and the machine lets the last writer win by it (COPS calls this causal+; Lloyd et al. 2011).
//! In the terms of Bouajjani et al. (POPL'17) the store gives causal convergence, CCv, and with it CC.
//!
//! | part | file |
//! |---|---|
//! | casting, waiting for dependencies, delivering | `broadcast` |
//! | saying again what was lost (Have) | `entropy` |
//! | what can still come: how memory is bounded | `stability` |
//! | snapshots, catching up by one, merging two | `compaction` |
//! | who belongs to it | `membership` |
//! | the kept casts; what the disk held | `log`, `recovery` |
//!
//! **Positions.** [`Index`] is how many casts a replica has delivered: the sum of its vector. Equal vectors have equal positions,
//! whatever the order was.
//!
//! **Durability.** A cast is delivered, sent, and answered when the own disk holds it, one's own and others' alike. So a replica that
//! restarts has everything that it ever showed to anybody, and its clock and its numbers go on behind all that it ever gave out. What one
//! replica alone holds is gone with its disk: that is the price of answering without the others.
//!
//! What is left out: groups of several members of which each message goes to some (section 5.2 ff.), and sending only the
//! nearest dependencies (COPS): a vector has as many entries as there are members.

mod broadcast;
mod clock;
mod compaction;
mod entropy;
mod log;
mod membership;
mod message;
mod mutants;
mod options;
mod recovery;
mod stability;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use synod_core::{
    Batch, Config, Index, Input, Lsn, NodeId, Output, Peer as PeerStatus, Protocol, ReadId, Recovered,
    Refusal, Role, SnapshotRef, Status, Time,
};

use broadcast::Waiting;
use clock::Clock;
use compaction::Compaction;
use entropy::Peer;
use log::{Log, Past};
pub use membership::Membership;
pub use message::{Body, Cast, Message, Record, Then};
pub use mutants::Mutant;
pub use options::{Options, OptionsError};

/// A causal replica.
///
/// Invariants: `delivered` is the past of a prefix of the log, and every cast in it is on the disk; whatever is cast has a later clock
/// than everything accepted before it.
#[derive(Debug)]
pub struct Causal {
    id: NodeId,
    options: Options,
    now: Time,
    clock: Clock,
    log: Log,
    /// What was given to the machine.
    delivered: Past,
    durable: Lsn,
    /// Own batches that wait for a cast to become durable, to be cast together.
    proposed: Vec<Batch>,
    waiting: Waiting,
    peers: BTreeMap<NodeId, Peer>,
    gossip_due: Time,
    /// Rounds of gossip without news.
    quiet_rounds: u32,
    /// What the last round told.
    told: Past,
    compaction: Compaction,
    /// What was sent eagerly: own casts up to this position.
    sent: Index,
    /// A snapshot that was taken over and that the machine is to become, once the record of this number is durable: until then nothing is
    /// delivered and nothing is told, as a crash would take it back.
    adopting: Option<(SnapshotRef, Lsn)>,
    /// Behind a snapshot that was taken over, what it lacks is delivered once more: up to this position the floor stays below this clock,
    /// whatever was delivered before.
    again: Option<(Index, u64)>,
}

impl Protocol for Causal {
    type Message = Message;
    type Record = Record;
    type Options = Options;
    const HAS_ONE_ORDER: bool = false;

    fn open(config: &Config<Options>, found: Recovered<Record>, now: Time, _: &mut Output<Self>) -> Causal {
        Causal::recover(config, found, now)
    }

    fn step(&mut self, now: Time, input: Input<Message>, out: &mut Output<Self>) {
        self.now = self.now.max(now);
        match input {
            Input::Message { from, message } => self.on_message(from, message, out),
            Input::Installed { from, message, snapshot } => self.on_state(from, message, snapshot, out),
            Input::Propose(batch) => self.propose(batch, out),
            Input::Read(read) => refuse_read(read, out),
            Input::Reconfigure(changes) => self.reconfigure(&changes, out),
            Input::Transfer(_) => {
                out.decline(Refusal::Unsupported("causal broadcast has no leader: all members are equal"));
            }
            Input::Durable(lsn) => self.durable = self.durable.max(lsn),
            Input::Freezing(at) => self.freezing(at),
            Input::Snapshot(snapshot) => self.snapshot_saved(snapshot, out),
            Input::TransferFailed(peer) => self.snapshot_failed(peer),
            Input::Timeout => self.on_timeout(out),
        }
    }

    fn flush(&mut self, now: Time, out: &mut Output<Self>) {
        self.now = self.now.max(now);
        self.cast_proposed(out);
        self.deliver(out);
        self.follow_members();
        self.forget_what_all_have();
        self.send_new_casts(out);
        self.answer_peers(out);
    }

    fn deadline(&self) -> Option<Time> {
        // Who has not joined speaks when it is spoken to.
        (!self.peers.is_empty()).then_some(self.gossip_due)
    }

    fn checkpoint(&self, records: &mut Vec<Record>) {
        self.write_checkpoint(records);
    }

    fn status(&self) -> Status {
        let peers = self.peers.iter().map(|(id, peer)| PeerStatus {
            id: *id,
            matched: Index(peer.known.total()),
            silent: peer.heard.map(|heard| self.now.since(heard)),
            snapshotting: peer.snapshot.is_some(),
        });
        Status {
            role: Role::Equal,
            leader: None,
            term: 0,
            decided: self.delivered.at(),
            last: self.log.last(),
            members: self.delivered.members.members(),
            peers: peers.collect(),
        }
    }
}

impl Causal {
    /// What this replica has delivered.
    #[must_use]
    pub fn vector(&self) -> &synod_core::Vector {
        &self.delivered.vector
    }

    /// Whether this replica takes part, or why not.
    fn standing(&self) -> Result<(), Refusal> {
        if self.delivered.members.contains(self.id) {
            Ok(())
        } else if self.delivered.members.removed.contains_key(&self.id) {
            Err(Refusal::Stopped)
        } else {
            Err(Refusal::Invalid("this replica has not been added to the cluster yet".to_owned()))
        }
    }

    fn on_message(&mut self, from: NodeId, message: Message, out: &mut Output<Self>) {
        if from == self.id || from == NodeId(0) {
            return;
        }
        match message {
            Message::Cast { casts, then } => self.on_cast(from, casts, then, out),
            Message::Have { vector, clock, forgot, saved } => {
                self.on_have(from, vector, clock, forgot, saved)
            }
            // It comes behind a snapshot, or it means nothing.
            Message::State { .. } => {}
        }
    }
}

/// A linearizable or sequential read would have to see whatever was written before it anywhere.
fn refuse_read(read: ReadId, out: &mut Output<Causal>) {
    let reason = "causal broadcast has no single order of writes that a read could be up to date with: ask for a causal or an eventual read";
    out.refuse_read(read, Refusal::Unsupported(reason));
}

/// Batches one after the other as one.
fn joined(batches: &mut Vec<Batch>) -> Option<Batch> {
    match batches.len() {
        0 | 1 => batches.pop(),
        _ => Some(Arc::from(batches.drain(..).flat_map(|batch| batch.to_vec()).collect::<Vec<_>>())),
    }
}
