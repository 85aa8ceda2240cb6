//! Proof of work with one rule removed: to see whether tests and simulations notice.
//!
//! The points where they act read `options.has(Mutant::..)`; without the cargo feature `mutants` that is constantly false
//! and costs nothing.

use super::Options;

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
    /// The highest chain wins, not the one with the most work (Bitcoin before version 0.3.3).
    HeightWins = "height-wins",
    /// A block may be older than the median of the eleven before it.
    NoMedianTime = "no-median-time",
    /// A block may come from any future.
    NoTwoHours = "no-two-hours",
    /// Adjusting the difficulty overflows 256 bits and wraps.
    RetargetOverflow = "retarget-overflow",
    /// A block's bits may be anything, above the limit, too.
    AnyBits = "any-bits",
    /// A block's hash is not compared with its target.
    NoWork = "no-work",
    /// The merkle root is not compared with the body.
    NoMerkle = "no-merkle",
    /// A command may be mined twice on one chain.
    MinedTwice = "mined-twice",
    /// Blocks are delivered before they are on the own disk.
    DeliversBeforeDisk = "delivers-before-disk",
    /// After a reorganisation, deliveries go on without going back first.
    NoRewind = "no-rewind",
    /// Commands of blocks that lost are not put back among those that wait.
    ForgetsLosers = "forgets-losers",
    /// A block is delivered one confirmation early.
    OneTooFew = "one-too-few",
    /// A block whose parent is unknown is thrown away, and nobody is asked.
    NeverAsks = "never-asks",
    /// A snapshot is taken of what is not settled.
    SettlesEarly = "settles-early",
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
