//! Paxos with one rule removed: to see whether tests and simulations notice.
//!
//! The points where mutants act read `self.has(Mutant::..)`; without the cargo feature `mutants` that is constantly false
//! and costs nothing.

use super::{Options, Paxos};

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
    /// An acceptor promises before the promise is on disk.
    PromiseBeforeDisk = "promise-before-disk",
    /// An acceptor accepts before the proposal is on disk.
    AckBeforeDisk = "ack-before-disk",
    /// A proposer counts its own acceptor before its records are on disk.
    CountsItselfEarly = "counts-itself-early",
    /// An acceptor does not remember what it promised (P1a).
    ForgetsPromise = "forgets-promise",
    /// Accepting a ballot does not promise it: a lower one is accepted afterwards.
    AcceptPromisesNothing = "accept-promises-nothing",
    /// A promise does not tell what was accepted.
    PromiseHidesAccepted = "promise-hides-accepted",
    /// Of the proposals that were promised to it, a proposer takes up the lowest-numbered one (P2c).
    PicksLowestBallot = "picks-lowest-ballot",
    /// A proposer proposes its own value whatever was accepted before.
    IgnoresAccepted = "ignores-accepted",
    /// One acceptor less than a majority chooses.
    MinorityChooses = "minority-chooses",
    /// One acceptor less than a majority promises.
    MinorityPromises = "minority-promises",
    /// Lives are not counted: a ballot of before the crash is used again.
    ReusesBallots = "reuses-ballots",
    /// Answers to an earlier ballot count for the present one.
    CountsOldAnswers = "counts-old-answers",
    /// A learner takes what it accepted itself for chosen, though it was another ballot's.
    LearnsOlder = "learns-older",
    /// A proposal that was outbid goes on to the next slot before its own is decided.
    GoesOnEarly = "goes-on-early",
    /// Reads are served without a fence.
    ReadWithoutFence = "read-without-fence",
    /// A read takes for its fence a slot that was begun before the read.
    ReadJoinsLate = "read-joins-late",
    /// A read takes for its fence a slot in which a value had been accepted already.
    ReadIgnoresAccepted = "read-ignores-accepted",
    /// A configuration is in force as soon as it is decided, whatever slots are open.
    ConfigurationAtOnce = "configuration-at-once",
    /// A snapshot carries the newest configuration as if it were in force.
    SnapshotForgetsPending = "snapshot-forgets-pending",
    /// An acceptor answers for slots that it has compacted, as if nothing had happened there.
    AnswersForCompacted = "answers-for-compacted",
    /// Deliveries skip a slot when many are due (etcd-raft 8ecce32).
    DeliverySkips = "delivery-skips",
}

impl Paxos {
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
