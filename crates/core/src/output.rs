//! What a protocol wants done: one lane for each kind of effect, so that many inputs merge before anything
//! leaves, and draining a lane keeps its memory.

use crate::command::Batch;
use crate::machine::SnapshotRef;
use crate::members::Members;
use crate::protocol::Protocol;
use crate::stamp::Stamp;
use crate::types::{Index, Lsn, NodeId, ReadId};

/// The effects of one or more steps, in order within each lane.
pub struct Output<P: Protocol> {
    /// Facts to write to the log, in order; the last one is number [`Output::written`].
    pub records: Vec<P::Record>,
    /// Messages, each with the record that it must not overtake.
    pub messages: Vec<Outbound<P::Message>>,
    /// What has been decided, in delivery order.
    pub deliveries: Vec<Delivery>,
    /// Answers to reads and proposals of this replica.
    pub answers: Vec<Answer>,
    /// Set when a fresh snapshot is needed, for a peer that lags behind what is kept in memory.
    pub snapshot_wanted: bool,
    /// What a person should know: it goes into the log, and nothing depends on it.
    pub notes: Vec<String>,
    written: Lsn,
}

/// A message on its way out.
#[derive(Debug)]
pub struct Outbound<M> {
    /// The receiver; never the sender itself.
    pub to: NodeId,
    /// What is said.
    pub message: M,
    /// When it may leave.
    pub patience: Patience,
}

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Nothing: it promises nothing that the disk does not hold yet.
    Early,
    /// As [`Patience::Early`], and it may stay for a moment: until something else goes to the same peer, or the sender has
    /// nothing better to do.
    Leisure,
    /// Every record up to this one being durable.
    Durable(Lsn),
    /// The transfer of this replica's newest saved snapshot: the receiver's protocol gets the message only
    /// when it holds the whole snapshot, verified, and may then [`Output::restore`] it.
    Snapshot,
}

/// What has been decided.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The batch at position `at`; positions have no gaps.
    Batch {
        /// Its position in this replica's delivery sequence.
        at: Index,
        /// What is to be applied.
        batch: Batch,
    },
    /// The configuration now in force; `at` is its position in the delivery sequence.
    Members {
        /// Its position.
        at: Index,
        /// The configuration.
        members: Members,
    },
    /// The machine becomes this snapshot's state; the next delivery follows `snapshot.at`.
    Restore(SnapshotRef),
    /// The machine becomes this snapshot's state, which lies ahead, but in another history: some of what was delivered is
    /// taken back. Only a protocol that may lose decisions says this: asynchronous primary-backup, after a failover.
    Replace(SnapshotRef),
    /// Every delivery after `at` is taken back; the next one follows `at`. Only a protocol whose deliveries are probable
    /// and not certain says this ([`Protocol::settled`]): proof of work, after a reorganisation deeper than it waited.
    Rewind {
        /// The last delivery that stays.
        at: Index,
    },
    /// From now on the log begins behind this snapshot; the machine becomes its state with the [`Delivery::Restore`] that follows once
    /// that is on the disk. For protocols that show nothing which a crash could take back.
    Adopt(SnapshotRef),
    /// What a protocol without one order delivers: the stamp is what replicas decide alike by.
    Stamped {
        /// Its position in this replica's delivery sequence.
        at: Index,
        /// Whose it is, and when it was made.
        stamp: Stamp,
        /// What it is.
        body: Stamped,
    },
    /// The machine's state, as it is now, and this snapshot's are to be made one and saved as a snapshot at `at`; the machine
    /// itself stays what it is. When that is saved the protocol hears of it as of any other, and may restore it.
    Merge {
        /// The position that stands for all that either holds.
        at: Index,
        /// The other state, of another replica.
        snapshot: SnapshotRef,
    },
    /// A snapshot is taken of the state right here, unless one is being written already. No position of its own.
    Freeze {
        /// The delivery that came before.
        at: Index,
    },
}

/// What is delivered with a stamp.
#[derive(Clone, Debug)]
pub enum Stamped {
    /// Commands to be applied.
    Batch(Batch),
    /// The configuration now in force.
    Members(Members),
}

/// What a client of this replica gets to know, beside the replies that applying gives.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The read may be served once everything up to `at` has been applied.
    Read {
        /// Which read.
        read: ReadId,
        /// What it must have seen.
        at: Index,
    },
    /// The read cannot be fenced now.
    ReadRefused {
        /// Which read.
        read: ReadId,
        /// Why not.
        reason: Refusal,
    },
    /// The batch was certainly not decided, and never will be.
    Refused {
        /// Which batch.
        batch: Batch,
        /// Why not.
        reason: Refusal,
    },
    /// What became of the last [`Input::Reconfigure`](crate::Input::Reconfigure) or
    /// [`Input::Transfer`](crate::Input::Transfer): it was not even started.
    Declined {
        /// Why not.
        reason: Refusal,
    },
}

/// Why a protocol does not do what was asked: a value, not a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No leader (primary, view) is known at the moment.
    NoLeader,
    /// Only the leader does this, and this replica is not it.
    NotLeader {
        /// Who is, as far as known.
        leader: Option<NodeId>,
    },
    /// The leader changed before an answer could be given.
    LeaderChanged,
    /// Too much is waiting already; nothing was queued.
    Busy,
    /// This replica is being stopped or was removed.
    Stopped,
    /// The protocol cannot give this guarantee at all; the sentence says what it lacks.
    Unsupported(&'static str),
    /// The request makes no sense in the present configuration.
    Invalid(String),
}

impl<P: Protocol> Default for Output<P> {
    fn default() -> Self {
        Output {
            records: Vec::new(),
            messages: Vec::new(),
            deliveries: Vec::new(),
            answers: Vec::new(),
            snapshot_wanted: false,
            notes: Vec::new(),
            written: Lsn::ZERO,
        }
    }
}

impl<P: Protocol> Output<P> {
    /// The number of the last record so far, in this incarnation.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.written
    }

    /// Writes a fact that must survive a crash.
    pub fn record(&mut self, record: P::Record) -> Lsn {
        self.records.push(record);
        self.written = self.written.next();
        self.written
    }

    /// Sends once every record so far is durable: what it promises cannot be forgotten.
    pub fn send(&mut self, to: NodeId, message: P::Message) {
        self.messages.push(Outbound { to, message, patience: Patience::Durable(self.written) });
    }

    /// Sends at once. The caller owes a comment that says why this promises nothing.
    pub fn send_early(&mut self, to: NodeId, message: P::Message) {
        self.messages.push(Outbound { to, message, patience: Patience::Early });
    }

    /// Sends when it is convenient what promises nothing and what nobody waits for: those who wait for something else come first.
    pub fn send_at_leisure(&mut self, to: NodeId, message: P::Message) {
        self.messages.push(Outbound { to, message, patience: Patience::Leisure });
    }

    /// Sends this replica's newest saved snapshot, and behind it the message.
    ///
    /// While a transfer to `to` is under way, further ones are dropped. A failed transfer comes back as
    /// [`Input::TransferFailed`](crate::Input::TransferFailed).
    pub fn send_snapshot(&mut self, to: NodeId, message: P::Message) {
        self.messages.push(Outbound { to, message, patience: Patience::Snapshot });
    }

    /// Delivers a decided batch.
    pub fn deliver(&mut self, at: Index, batch: Batch) {
        self.deliveries.push(Delivery::Batch { at, batch });
    }

    /// Delivers the configuration now in force.
    pub fn members(&mut self, at: Index, members: Members) {
        self.deliveries.push(Delivery::Members { at, members });
    }

    /// Makes the machine become this snapshot's state.
    pub fn restore(&mut self, snapshot: SnapshotRef) {
        self.deliveries.push(Delivery::Restore(snapshot));
    }

    /// Makes the machine become this snapshot's state, of another history: see [`Delivery::Replace`].
    pub fn replace(&mut self, snapshot: SnapshotRef) {
        self.deliveries.push(Delivery::Replace(snapshot));
    }

    /// Takes back every delivery after `at`, which must not lie below what is [settled](Protocol::settled).
    pub fn rewind(&mut self, at: Index) {
        self.deliveries.push(Delivery::Rewind { at });
    }

    /// Tells people something.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Lets the log begin behind this snapshot; [`Output::restore`] follows once that is durable.
    pub fn adopt(&mut self, snapshot: SnapshotRef) {
        self.deliveries.push(Delivery::Adopt(snapshot));
    }

    /// Delivers with a stamp.
    pub fn deliver_stamped(&mut self, at: Index, stamp: Stamp, body: Stamped) {
        self.deliveries.push(Delivery::Stamped { at, stamp, body });
    }

    /// Has the machine's state merged with another replica's, and saved as a snapshot at `at`.
    pub fn merge(&mut self, at: Index, snapshot: SnapshotRef) {
        self.deliveries.push(Delivery::Merge { at, snapshot });
    }

    /// Has a snapshot taken behind the delivery at `at`, which is the last so far.
    pub fn freeze(&mut self, at: Index) {
        self.deliveries.push(Delivery::Freeze { at });
    }

    /// Answers a read: it must have seen everything up to `at`.
    pub fn serve(&mut self, read: ReadId, at: Index) {
        self.answers.push(Answer::Read { read, at });
    }

    /// Refuses a read.
    pub fn refuse_read(&mut self, read: ReadId, reason: Refusal) {
        self.answers.push(Answer::ReadRefused { read, reason });
    }

    /// Refuses a batch that is certainly not decided and never will be.
    pub fn refuse(&mut self, batch: Batch, reason: Refusal) {
        self.answers.push(Answer::Refused { batch, reason });
    }

    /// Declines a reconfiguration or a transfer.
    pub fn decline(&mut self, reason: Refusal) {
        self.answers.push(Answer::Declined { reason });
    }

    /// Asks for a fresh snapshot: a peer lags behind what is still in memory.
    pub fn want_snapshot(&mut self) {
        self.snapshot_wanted = true;
    }
}
