//! PBFT with one rule removed: to see whether tests and simulations notice.
//!
//! The points where they act read `self.has(Mutant::..)`; without the cargo feature `mutants` that is constantly false and
//! costs nothing.

use super::{Options, Pbft};

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
    /// A request is prepared with one agreement fewer than a quorum, the pre-prepare included.
    PreparedByFewer = "prepared-by-fewer",
    /// A view change says nothing of what prepared.
    DropsPrepared = "drops-prepared",
    /// A second pre-prepare at the same place in the same view takes the first one's place, and so do second prepares and commits.
    EquivocationUnchecked = "equivocation-unchecked",
    /// Prepares and commits of earlier views count in later ones.
    CountsOldViews = "counts-old-views",
    /// Believes what f replicas say, where one of f + 1 must be honest.
    BelievesFew = "believes-few",
    /// Commits with one fewer than a quorum.
    CommitsByFewer = "commits-by-fewer",
    /// Does not check who made a request.
    UnsignedRequests = "unsigned-requests",
    /// Counts signatures, not signers.
    RepeatedSigner = "repeated-signer",
    /// Believes a primary's choice for its new view.
    NewViewUnchecked = "new-view-unchecked",
    /// A new primary takes what anybody claims to have prepared, without the f + 1 that must have seen it (A2).
    ClaimsUnchecked = "claims-unchecked",
    /// Agrees before its disk holds what it agreed to.
    PrepareBeforeDisk = "prepare-before-disk",
    /// Commits, and counts itself, before its disk holds what prepared.
    CommitBeforeDisk = "commit-before-disk",
    /// Executes a request as often as it is ordered.
    ExecutesTwice = "executes-twice",
    /// Takes part in a view that it has left.
    StaysInOldView = "stays-in-old-view",
    /// Takes any snapshot that comes, proven or not.
    UnprovenSnapshot = "unproven-snapshot",
}

impl Pbft {
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
