//! Raft with one rule removed: to see whether tests and simulations notice.
//!
//! Each mutant is a mistake that a real system shipped, or nearly did. The points where they act read
//! `self.has(Mutant::..)`; without the cargo feature `mutants` that is constantly false and costs nothing.

use super::{Options, Raft};

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
    /// Commits entries of earlier terms by counting replicas (figure 8).
    CommitOldTerm = "commit-old-term",
    /// Changes the configuration before an entry of the leader's term is committed (raft-dev, 2015).
    ChangeTooEarly = "change-too-early",
    /// Counts votes and replicas by the committed configuration, while others go by the newest in the log.
    MembersWhenCommitted = "members-when-committed",
    /// Gives a vote before it is on disk.
    VoteBeforeDisk = "vote-before-disk",
    /// Confirms entries before they are on disk.
    AckBeforeDisk = "ack-before-disk",
    /// A leader counts its own entries before they are on its disk.
    CountsItselfEarly = "counts-itself-early",
    /// A leader does not wait for news of its own disk, although its own copy completes a quorum.
    ForgetsItsDisk = "forgets-its-disk",
    /// Serves reads before an entry of the leader's term is committed (etcd-raft 3189a66).
    ReadTooEarly = "read-too-early",
    /// Answers an old term's heartbeat with its round, and lets answers from a later term confirm a round of reads (etcd 21378).
    ReadAcrossTerms = "read-across-terms",
    /// Judges the lease by the clock of the last heartbeat (etcd 20418).
    LeaseByOldClock = "lease-by-old-clock",
    /// Keeps the lease after another replica was told to seek election.
    LeaseSurvivesTransfer = "lease-survives-transfer",
    /// Does not tell a leader of an earlier term that its term is over: pre-vote and check-quorum lock up.
    SilentToOldTerms = "silent-to-old-terms",
    /// A leader takes for there what it has sent, whatever the peer says: one that comes back with less never catches up (etcd 10166).
    NeverLooksBack = "never-looks-back",
    /// A follower commits what it has not compared with the leader's log.
    CommitUnverified = "commit-unverified",
    /// Gives votes without comparing logs (5.4.1).
    VoteIgnoresLog = "vote-ignores-log",
    /// Leaves a joint configuration before it is committed.
    LeavesJointEarly = "leaves-joint-early",
    /// A snapshot taken within a change keeps the outgoing half of the joint configuration alone (etcd-raft bd3c759).
    SnapshotForgetsJoint = "snapshot-forgets-joint",
    /// Deliveries skip an entry when many are due (etcd-raft 8ecce32).
    DeliverySkips = "delivery-skips",
    /// An index counts as durable because an earlier entry at it was (the ABA trap).
    CountsOldWrites = "counts-old-writes",
    /// Takes a forwarded batch as often as it comes.
    ForwardTwice = "forward-twice",
}

impl Raft {
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
