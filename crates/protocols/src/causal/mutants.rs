//! Causal broadcast with one rule removed: to see whether tests and simulations notice.
//!
//! The points where they act read `self.has(Mutant::..)`; without the cargo feature `mutants` that is constantly false
//! and costs nothing.

use super::{Causal, Options};

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

            /// The name by which the option `mutant` switches it on.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$name => $text,)+
                }
            }

            /// A line or two about it.
            #[must_use]
            pub fn story(self) -> &'static str {
                match self {
                    $(Mutant::$name => concat!($($doc,)+),)+
                }
            }
        }
    };
}

mutants! {
    /// Delivers a cast before what it depends on, in the order of its origin alone (causal order becomes FIFO).
    IgnoresDependencies = "ignores-dependencies",
    /// Names as dependencies only what the last own cast did not: what was read from others since a restart is forgotten.
    ForgetsWhatItRead = "forgets-what-it-read",
    /// Its clock does not move when it accepts what is later: its next write may lose against what it had read.
    ClockIgnoresOthers = "clock-ignores-others",
    /// After a restart the clock begins anew, although later ones were given out.
    ClockNotDurable = "clock-not-durable",
    /// Each replica takes whatever came to it last for the last write.
    LastToArriveWins = "last-to-arrive-wins",
    /// Answers its clients before its own disk has the write.
    AnswersBeforeDisk = "answers-before-disk",
    /// Casts before its own disk has the cast: after a crash another one gets its number.
    CastsBeforeDisk = "casts-before-disk",
    /// Confirms what its disk does not hold yet.
    ConfirmsBeforeDisk = "confirms-before-disk",
    /// Says nothing twice: what was lost on the way stays lost.
    NeverSaysAgain = "never-says-again",
    /// Passes on nothing but its own casts, whoever is gone.
    NeverPassesOn = "never-passes-on",
    /// What a snapshot lacks is forgotten when it is taken over.
    SnapshotForgetsOwn = "snapshot-forgets-own",
    /// Two states are not merged: the other's simply takes the place of the own.
    OverwritesInsteadOfMerging = "overwrites-instead-of-merging",
    /// A session's token is not looked at: another replica answers whatever it knows.
    IgnoresTokens = "ignores-tokens",
    /// Takes the floor from those who spoke, and does not wait for those who are silent.
    FloorIgnoresTheSilent = "floor-ignores-the-silent",
    /// Takes the floor as it was before a snapshot was taken over, though what the snapshot lacks is delivered once more.
    FloorForgetsWhatComesAgain = "floor-forgets-what-comes-again",
}

impl Causal {
    /// Whether this replica is that mutant.
    #[inline]
    pub(super) fn has(&self, mutant: Mutant) -> bool {
        self.options.has(mutant)
    }
}

impl Options {
    /// Whether whoever serves clients is to pass over their sessions' tokens: the mutant that lives outside of the protocol.
    #[must_use]
    pub fn ignores_tokens(&self) -> bool {
        self.has(Mutant::IgnoresTokens)
    }

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
