//! Multi-Paxos with one rule removed: to see whether tests and simulations notice.
//!
//! Each mutant is a mistake that a real system shipped, or nearly did. The points where they act read
//! `self.has(Mutant::..)`; without the cargo feature `mutants` that is constantly false and costs nothing.

use super::{MultiPaxos, Options};

macro_rules! mutants {
    ($(#[doc = $doc:literal] $name:ident = $text:literal,)+) => {
        /// A rule that is left out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $(#[doc = $doc] $name,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)+];

            /// The name by which the option `mutant` switches it on.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$name => $text,)+
                }
            }

            /// One line about it.
            #[must_use]
            pub fn story(self) -> &'static str {
                match self {
                    $(Mutant::$name => $doc,)+
                }
            }
        }
    };
}

mutants! {
    /// Of several values found for a slot, takes over the one that came first, whatever its ballot.
    TakesAnyBallot = "takes-any-ballot",
    /// Fills a gap with the next command that was found, instead of a no-op.
    FillsGapWithCommand = "fills-gap-with-command",
    /// A new leader begins behind what it found, and leaves that to chance.
    LeavesGaps = "leaves-gaps",
    /// An acceptor takes values of ballots below its promise.
    AcceptsBelowPromise = "accepts-below-promise",
    /// An acceptor does not know its promise any more after a restart.
    ForgetsPromise = "forgets-promise",
    /// Promises before the promise is on disk.
    PromiseBeforeDisk = "promise-before-disk",
    /// Asks for promises before its own ballot is on disk, and may use the ballot twice.
    BallotBeforeDisk = "ballot-before-disk",
    /// Confirms values before they are on disk.
    AckBeforeDisk = "ack-before-disk",
    /// A leader counts its own values before they are on its disk.
    CountsItselfEarly = "counts-itself-early",
    /// Slots count as accepted on disk because an earlier ballot's values were (the ABA trap).
    CountsOldWrites = "counts-old-writes",
    /// An acceptor confirms everything up to the last value that it has, gaps included.
    AcksOverGaps = "acks-over-gaps",
    /// A learner takes what it accepted in an earlier ballot for what the leader says is decided.
    LearnsOldBallot = "learns-old-ballot",
    /// Promises tell only what comes behind the last slot accepted without a gap.
    PromiseLeavesOut = "promise-leaves-out",
    /// Leads in a new configuration without promises of a quorum of it.
    LeadsUnprepared = "leads-unprepared",
    /// Goes on behind a configuration that is not decided yet, by the old one.
    NoBarrier = "no-barrier",
    /// Counts by the configuration that it knew when it began to lead.
    CountsOldMembers = "counts-old-members",
    /// A snapshot comes with the configuration that it began with.
    SnapshotForgetsMembers = "snapshot-forgets-members",
    /// A checkpoint leaves out what is accepted and not decided.
    CheckpointForgets = "checkpoint-forgets",
    /// Serves reads before everything that was found is decided (etcd-raft 3189a66).
    ReadTooEarly = "read-too-early",
    /// Lets answers to another ballot confirm a round of reads (etcd 21378).
    ReadAcrossBallots = "read-across-ballots",
    /// Judges the lease by the clock of the last heartbeat (etcd 20418).
    LeaseByOldClock = "lease-by-old-clock",
    /// Keeps the lease after another replica was invited to lead.
    LeaseSurvivesTransfer = "lease-survives-transfer",
    /// Acceptors promise to others although their leader may count on a lease.
    PromisesDespiteLease = "promises-despite-lease",
    /// Does not tell a leader of an earlier ballot that its ballot is over.
    SilentToOldBallots = "silent-to-old-ballots",
    /// Deliveries skip a slot when many are due (etcd-raft 8ecce32).
    DeliverySkips = "delivery-skips",
    /// Takes a forwarded batch as often as it comes.
    ForwardTwice = "forward-twice",
}

impl MultiPaxos {
    /// Whether this replica is that mutant.
    #[inline]
    pub(super) fn has(&self, mutant: Mutant) -> bool {
        self.options.has(mutant)
    }
}

impl Options {
    #[cfg(feature = "mutants")]
    pub(super) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    #[cfg(not(feature = "mutants"))]
    #[inline]
    pub(super) fn has(&self, _: Mutant) -> bool {
        false
    }
}
