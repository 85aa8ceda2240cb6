//! Primary-backup with one rule removed: to see whether tests and simulations notice.
//!
//! Each mutant is a mistake that a real system shipped, or nearly did. The points where they act read
//! `self.has(Mutant::..)`; without the cargo feature `mutants` that is constantly false and costs nothing.

use super::{Options, PrimaryBackup};

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A rule that is left out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)+];

            /// What it leaves out, in a sentence.
            #[must_use]
            pub fn story(self) -> &'static str {
                match self {
                    $(Mutant::$name => concat!($($doc),+),)+
                }
            }

            /// The name by which the option `mutant` switches it on.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$name => $text,)+
                }
            }
        }
    };
}

mutants! {
    /// Answers before the backups have the write, in synchronous mode (A2, row 30).
    AckBeforeBackup = "ack-before-backup",
    /// A backup confirms entries before they are on its disk.
    AckBeforeDisk = "ack-before-disk",
    /// A primary counts its own entries before they are on its disk.
    CountsItselfEarly = "counts-itself-early",
    /// An asynchronous primary answers without a lease: the old one goes on after the takeover (A2, row 30).
    NoFencing = "no-fencing",
    /// A backup still confirms a primary of a view that is over: fencing by views is gone.
    AcksOldViews = "acks-old-views",
    /// Promises nothing durably: a crash forgets what was promised about the next view.
    PromiseBeforeDisk = "promise-before-disk",
    /// A view begins before its record is on the primary's disk.
    ViewBeforeDisk = "view-before-disk",
    /// Takes for primary whoever answers first, of the last view or not.
    PrimaryFromOutside = "primary-from-outside",
    /// Lets a replica into the view before it holds what was decided.
    JoinsEarly = "joins-early",
    /// A restarted primary goes on in its old view.
    LeadsAfterRestart = "leads-after-restart",
    /// Proposes its own view although another was accepted already.
    IgnoresAccepted = "ignores-accepted",
    /// Promises to another while the primary's lease may run.
    PromisesUnderLease = "promises-under-lease",
    /// Judges the lease by the clock of the last heartbeat (etcd 20418).
    LeaseByOldClock = "lease-by-old-clock",
    /// Serves reads before everything from earlier views is decided again.
    ReadTooEarly = "read-too-early",
    /// Serves reads without asking whether it is still primary.
    ReadUnfenced = "read-unfenced",
    /// Keeps what it applied although the new primary's history lacks it.
    KeepsLostWrites = "keeps-lost-writes",
    /// Does not mark a takeover that may have lost decided writes.
    HidesLoss = "hides-loss",
    /// Takes a forwarded batch as often as it comes.
    ForwardTwice = "forward-twice",
}

impl PrimaryBackup {
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
