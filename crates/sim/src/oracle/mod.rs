//! What must never happen, whatever goes wrong; and what must happen again once enough is well.
//!
//! The oracles see everything, which no replica does: what clients submitted, what every machine applied and
//! where, who thought that it led, and what every log holds. What they judge by:
//!
//! | property | here |
//! |---|---|
//! | agreement | no two replicas apply different commands at one place: the *ledger* ([`Ledger`]) |
//! | validity, integrity | only what a client submitted, unchanged, at most once, and never what was refused |
//! | state-machine safety | the chain of digests is the same after the same number of commands, on every replica, also behind a snapshot |
//! | durability | the ledger outlives every crash: what was once applied anywhere is at that place for ever |
//! | promises are kept | what a replica told others still holds, after a crash and whenever it promises something else: [`Family::forgot`](crate::family::Family::forgot) |
//! | one leader per term, log matching, leader completeness | [`leaders`] (Raft, figure 3) |
//! | the consistency level promised | [`history`]: the clients' own records, judged by the checker |
//! | termination | the world's liveness phase |

pub mod history;
pub mod leaders;
pub mod ledger;

use synod_core::Time;

pub use leaders::Leaders;
pub use ledger::Ledger;

/// Something that must never happen, has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which property is broken.
    pub property: &'static str,
    /// What was seen.
    pub what: String,
    /// When.
    pub at: Time,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is violated at {:?}: {}", self.property, self.at, self.what)
    }
}
