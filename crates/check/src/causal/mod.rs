//! Causal consistency in its three meanings, pipelined memory and the session guarantees, by bad patterns.
//!
//! "On verifying causal consistency" (Bouajjani, Enea, Guerraoui, Hamza, POPL'17) shows that checking one history is
//! NP-complete in general and polynomial when every value is written once, because then a history violates a level
//! exactly when it contains one of a few patterns. The complexities here are those of "AWDIT: an optimal weak database
//! isolation tester" (Møldrup and Pavlogiannis, 2025): vector clocks instead of relations.
//!
//! - [`clocks`] vector clocks; [`order`] the causal order, extra edges, cycles
//! - `patterns` weak causal consistency (CC) and causal convergence (CCv)
//! - [`saturate`] happened-before orders; `memory` causal memory (CM) and pipelined memory (PRAM) by them
//! - `session` the four session guarantees
//! - `unfold` from derived edges back to operations
//!
//! Real time plays no part: these levels know sessions and values only.

pub mod clocks;
pub mod order;
pub mod saturate;

mod memory;
mod patterns;
mod session;
mod unfold;
mod violation;

use std::cell::OnceCell;

use crate::budget::Budget;
use crate::explain::shrink;
use crate::history::History;
use crate::reads_from::ReadsFrom;
use crate::verdict::{Evidence, Exhausted, Level, Limit, Verdict};

use order::{CausalOrder, KeyWrites, Readers};
pub(crate) use patterns::{convergence, weak_causal};
use saturate::Saturation;
use session::Guarantees;
pub(crate) use unfold::unfold;
pub(crate) use violation::{Found, Step};

/// The levels that this module judges, strong to weak.
pub const LEVELS: [Level; 8] = [
    Level::CausalConvergence,
    Level::CausalMemory,
    Level::Causal,
    Level::Pram,
    Level::ReadYourWrites,
    Level::MonotonicReads,
    Level::MonotonicWrites,
    Level::WritesFollowReads,
];

/// What all levels need, computed once.
pub(crate) struct Analysis<'a> {
    pub(crate) reads_from: &'a ReadsFrom,
    pub(crate) readers: Readers,
    pub(crate) key_writes: KeyWrites,
    /// The causal order.
    pub(crate) causal: CausalOrder,
    guarantees: OnceCell<Guarantees>,
}

impl<'a> Analysis<'a> {
    pub(crate) fn of(reads_from: &'a ReadsFrom, budget: &Budget) -> Result<Analysis<'a>, Exhausted> {
        let readers = Readers::of(reads_from);
        let key_writes = KeyWrites::of(reads_from);
        let causal = order::causal_clocks(reads_from, &readers, budget)?;
        Ok(Analysis { reads_from, readers, key_writes, causal, guarantees: OnceCell::new() })
    }

    pub(crate) fn saturation(&self, budget: &Budget) -> Result<Saturation<'_>, Exhausted> {
        Saturation::new(self.reads_from, &self.readers, &self.key_writes, budget)
    }

    fn guarantees(&self) -> &Guarantees {
        self.guarantees.get_or_init(|| session::guarantees(self))
    }

    /// The pattern that violates a level, if there is one.
    pub(crate) fn find(&self, level: Level, budget: &Budget) -> Result<Option<Found>, Exhausted> {
        if let Some(read) = self.reads_from.thin_air() {
            return Ok(Some(Found::single("ThinAirRead: a read returned a value that nobody wrote", read)));
        }
        Ok(match level {
            Level::Causal => weak_causal(self),
            Level::CausalConvergence => weak_causal(self).or_else(|| convergence(self)),
            Level::CausalMemory => match weak_causal(self) {
                Some(found) => Some(found),
                None => memory::causal_memory(self, budget)?,
            },
            Level::Pram => memory::pipelined(self, budget)?,
            Level::ReadYourWrites => self.guarantees().read_your_writes.clone(),
            Level::MonotonicReads => self.guarantees().monotonic_reads.clone(),
            Level::MonotonicWrites => self.guarantees().monotonic_writes.clone(),
            Level::WritesFollowReads => self.guarantees().writes_follow_reads.clone(),
            Level::Linearizable | Level::Sequential | Level::Eventual => None,
        })
    }
}

/// Whether a history violates one of [`LEVELS`]. For tests and for shrinking: no evidence is prepared.
///
/// ```
/// use synod_check::{budget::Budget, causal, generate::Script, reads_from::ReadsFrom, verdict::Level};
///
/// // Two processes that see two concurrent writes in different orders: causal memory, but not convergent.
/// let history = Script::new()
///     .write("p", "x", 1).read("p", "x", 2)
///     .write("q", "x", 2).read("q", "x", 1)
///     .history();
/// let reads_from = ReadsFrom::of(&history).unwrap();
/// let budget = Budget::default();
/// assert_eq!(causal::violates(&reads_from, Level::CausalMemory, &budget), Ok(false));
/// assert_eq!(causal::violates(&reads_from, Level::CausalConvergence, &budget), Ok(true));
/// ```
pub fn violates(reads_from: &ReadsFrom, level: Level, budget: &Budget) -> Result<bool, Exhausted> {
    Ok(Analysis::of(reads_from, budget)?.find(level, budget)?.is_some())
}

/// Judges CCv, CM, CC, PRAM and the four session guarantees, in this order; each with the algorithm's name.
///
/// ```
/// use synod_check::{budget::Budget, causal, generate::Script, verdict::Level};
///
/// let history = Script::new().write("p", "x", 1).read("p", "x", 0).history();
/// let verdicts = causal::check(&history, &Budget::default());
/// let (level, verdict, _) = &verdicts[4];
/// assert_eq!(*level, Level::ReadYourWrites);
/// assert_eq!(verdict.decided(), Some(false));
/// ```
pub fn check(history: &History, budget: &Budget) -> Vec<(Level, Verdict, String)> {
    let reads_from = match ReadsFrom::of(history) {
        Ok(reads_from) => reads_from,
        Err(reason) => {
            let limit = match reason {
                crate::reads_from::Undecidable::Ambiguous { .. } => Limit::AmbiguousReads,
                _ => Limit::Unsupported,
            };
            let unknown = || Verdict::Unknown(Exhausted { limit, progress: reason.words(history) });
            return LEVELS.iter().map(|&level| (level, unknown(), algorithm(level).to_string())).collect();
        }
    };
    let analysis = match Analysis::of(&reads_from, budget) {
        Ok(analysis) => analysis,
        Err(exhausted) => {
            let unknown = || Verdict::Unknown(exhausted.clone());
            return LEVELS.iter().map(|&level| (level, unknown(), algorithm(level).to_string())).collect();
        }
    };
    let mut out: Vec<(Level, Verdict, String)> = Vec::new();
    for level in LEVELS {
        budget.watcher.progress(level.name(), out.len() as u64, LEVELS.len() as u64);
        let verdict = match analysis.find(level, budget) {
            Err(exhausted) => Verdict::Unknown(exhausted),
            Ok(Some(found)) => Verdict::Violated(evidence(&reads_from, history, level, found, budget)),
            Ok(None) => holds(&reads_from),
        };
        out.push((level, verdict, algorithm(level).to_string()));
    }
    out
}

/// "Holds", unless operations that could not be expressed were left out.
pub(crate) fn holds(reads_from: &ReadsFrom) -> Verdict {
    match reads_from.left_out() {
        0 => Verdict::holds(),
        count => Verdict::Unknown(Exhausted {
            limit: Limit::AmbiguousReads,
            progress: format!(
                "it holds without the {count} compare-and-sets that failed their comparison, which do not say what they read"
            ),
        }),
    }
}

fn algorithm(level: Level) -> &'static str {
    match level {
        Level::CausalConvergence => "bad patterns: acyclic causality and conflict",
        Level::CausalMemory | Level::Pram => "bad patterns: happened-before saturation for each process",
        Level::Causal => "bad patterns: causality by vector clocks",
        _ => "session patterns by vector clocks",
    }
}

/// The evidence for a pattern, cut down to the fewest operations that still show a violation.
fn evidence(
    reads_from: &ReadsFrom,
    history: &History,
    level: Level,
    found: Found,
    budget: &Budget,
) -> Evidence {
    let mut find = |part: &ReadsFrom| {
        Analysis::of(part, budget).ok().and_then(|analysis| analysis.find(level, budget).ok().flatten())
    };
    shrink::evidence(reads_from, history, found, &mut find)
}
