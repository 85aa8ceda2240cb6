//! The answer: levels, verdicts with their evidence, and the report over all of them.
//!
//! "Unknown" is an honest third verdict: it names the budget that ran out and how far the search got. A violation always
//! carries [`Evidence`]: the few operations that suffice to see it, and the cycle among them where there is one. What is
//! left out: words and pictures for people (`explain` and `html`).

use std::time::Duration;

use crate::history::{Key, Warning};

/// A consistency level. From strong to weak; see [`Level::implies`] for what follows from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// One order that every process agrees on and that respects real time (Herlihy and Wing 1990).
    Linearizable,
    /// One order that respects each process's own (Lamport 1979).
    Sequential,
    /// Causal convergence: causal consistency, and all processes arbitrate concurrent writes alike (CCv).
    CausalConvergence,
    /// Causal memory: each process can explain everything it read by one order of its own (CM).
    CausalMemory,
    /// Weak causal consistency: each read is explained by what causally precedes it (CC).
    Causal,
    /// Pipelined memory: each process sees every other process's writes in that one's order.
    Pram,
    /// A process sees its own writes.
    ReadYourWrites,
    /// A process never sees an older state after a newer one.
    MonotonicReads,
    /// The writes of a process take effect everywhere in its order.
    MonotonicWrites,
    /// A write that followed a read is ordered after the write that was read.
    WritesFollowReads,
    /// After quiescence all replicas answer alike.
    Eventual,
}

impl Level {
    /// All levels from strong to weak.
    pub const ALL: [Level; 11] = [
        Level::Linearizable,
        Level::Sequential,
        Level::CausalConvergence,
        Level::CausalMemory,
        Level::Causal,
        Level::Pram,
        Level::ReadYourWrites,
        Level::MonotonicReads,
        Level::MonotonicWrites,
        Level::WritesFollowReads,
        Level::Eventual,
    ];

    /// The name in `--json` and `--require`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Linearizable => "linearizable",
            Level::Sequential => "sequential",
            Level::CausalConvergence => "ccv",
            Level::CausalMemory => "cm",
            Level::Causal => "cc",
            Level::Pram => "pram",
            Level::ReadYourWrites => "read_your_writes",
            Level::MonotonicReads => "monotonic_reads",
            Level::MonotonicWrites => "monotonic_writes",
            Level::WritesFollowReads => "writes_follow_reads",
            Level::Eventual => "eventual",
        }
    }

    /// The level of that name (dashes and underscores alike; "causal" is "cc").
    pub fn by_name(name: &str) -> Option<Level> {
        let name = name.to_ascii_lowercase().replace('-', "_");
        match name.as_str() {
            "causal" | "causal_cc" => Some(Level::Causal),
            "causal_cm" => Some(Level::CausalMemory),
            "causal_ccv" => Some(Level::CausalConvergence),
            _ => Level::ALL.into_iter().find(|level| level.name() == name),
        }
    }

    /// In words, for the table.
    pub fn title(self) -> &'static str {
        match self {
            Level::Linearizable => "linearizable",
            Level::Sequential => "sequentially consistent",
            Level::CausalConvergence => "causally convergent (CCv)",
            Level::CausalMemory => "causal memory (CM)",
            Level::Causal => "weakly causal (CC)",
            Level::Pram => "pipelined (PRAM)",
            Level::ReadYourWrites => "read your writes",
            Level::MonotonicReads => "monotonic reads",
            Level::MonotonicWrites => "monotonic writes",
            Level::WritesFollowReads => "writes follow reads",
            Level::Eventual => "eventually consistent",
        }
    }

    /// Whether every history of this level is also one of `weaker` (Bouajjani et al. 2017, figure 1; Brzezinski et al. 2004).
    /// Eventual is implied by none but linearizable: the others say nothing about when writes arrive.
    pub fn implies(self, weaker: Level) -> bool {
        use Level::*;
        self == weaker
            || match self {
                Linearizable => true,
                Sequential => weaker != Linearizable && weaker != Eventual,
                CausalMemory => {
                    matches!(weaker, Causal | Pram) || Causal.implies(weaker) || Pram.implies(weaker)
                }
                CausalConvergence => matches!(weaker, Causal | MonotonicReads) || Causal.implies(weaker),
                // Not monotonic reads: each read may have an order of concurrent writes of its own.
                Causal => {
                    matches!(weaker, ReadYourWrites | MonotonicWrites | WritesFollowReads)
                }
                Pram => matches!(weaker, ReadYourWrites | MonotonicReads | MonotonicWrites),
                ReadYourWrites | MonotonicReads | MonotonicWrites | WritesFollowReads | Eventual => false,
            }
    }
}

/// Whether one level holds.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It does; with an order that shows it, where the algorithm builds one.
    Holds(Witness),
    /// It does not, and this is why.
    Violated(Evidence),
    /// The budget ran out, or the level cannot be judged for this history.
    Unknown(Exhausted),
}

impl Verdict {
    /// Holds, without an order to show.
    pub fn holds() -> Verdict {
        Verdict::Holds(Witness::default())
    }

    /// `Some(true)`, `Some(false)` or, when unknown, `None`.
    pub fn decided(&self) -> Option<bool> {
        match self {
            Verdict::Holds(_) => Some(true),
            Verdict::Violated(_) => Some(false),
            Verdict::Unknown(_) => None,
        }
    }
}

/// What shows that a level holds.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    /// Positions in [`History::operations`](crate::history::History::operations) in an order that satisfies the level;
    /// empty where there is no single order, or it was not kept. Failed operations and unknown ones that need not have happened are absent.
    pub order: Vec<u32>,
}

/// What shows that a level does not hold.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Positions in the history of operations that suffice to see the violation, ascending. Small where the algorithm can say; at worst a window.
    pub operations: Vec<u32>,
    /// The cycle or contradiction as steps: each says why one operation must come before the other.
    pub cycle: Vec<Edge>,
    /// One sentence that names the pattern ("two writes each lie wholly before the other's read").
    pub reason: String,
    /// The key it happened on, where it is one.
    pub key: Option<Key>,
    /// Whether these operations alone, cut out of the history, still violate the level.
    pub sufficient: bool,
}

/// "`before` must come before `after`, because `why`."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Position in the history.
    pub before: u32,
    /// Position in the history.
    pub after: u32,
    /// What orders them.
    pub why: Why,
}

/// Why one operation must come before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The first had completed before the second was invoked.
    RealTime,
    /// The same process called them in this order.
    Session,
    /// The second read what the first wrote.
    ReadsFrom,
    /// The first read the initial value, or a value that the second overwrote.
    Overwrites,
    /// The second's write is later in the order of writes that the reads force.
    WriteOrder,
    /// The store's own revision numbers say so.
    Revision,
    /// It follows from the other steps.
    Causality,
}

/// Why a verdict is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Which budget ran out, or what is missing.
    pub limit: Limit,
    /// How far it got, in one sentence ("placed 4,211 of 10,000 operations of key x").
    pub progress: String,
}

/// A budget, or another reason not to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The number of search steps.
    Steps,
    /// The memory for remembered states.
    Memory,
    /// The time.
    Time,
    /// The person stopped it.
    Cancelled,
    /// The history has no shared clock, so real time is not known.
    NoSharedClock,
    /// The level's checker needs reads to say which write they saw (unique values), and this history's do not.
    AmbiguousReads,
    /// The model has no checker for this level.
    Unsupported,
}

impl Limit {
    /// A name for machines and people.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Steps => "steps",
            Limit::Memory => "memory",
            Limit::Time => "time",
            Limit::Cancelled => "cancelled",
            Limit::NoSharedClock => "no-shared-clock",
            Limit::AmbiguousReads => "ambiguous-reads",
            Limit::Unsupported => "unsupported",
        }
    }
}

/// The verdict on one level, with who found it.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which level.
    pub level: Level,
    /// Whether it holds.
    pub verdict: Verdict,
    /// The algorithm that decided, by name; "implied by sequential" and the like where it follows.
    pub algorithm: String,
    /// How long it took; zero without a clock in the [`Budget`](crate::budget::Budget).
    pub elapsed: Duration,
}

/// The levels of one key.
#[derive(Clone, Debug)]
pub struct KeyReport {
    /// The key.
    pub key: Key,
    /// How many operations it has.
    pub operations: usize,
    /// A finding for each level that was judged on this key alone.
    pub findings: Vec<Finding>,
}

impl KeyReport {
    /// The strongest level that holds for this key.
    pub fn strongest(&self) -> Option<Level> {
        strongest(&self.findings)
    }
}

/// Everything found out about one history.
#[derive(Clone, Debug)]
pub struct Report {
    /// The history's name.
    pub name: String,
    /// The format it was in.
    pub format: &'static str,
    /// The model's name.
    pub model: &'static str,
    /// How many operations.
    pub operations: usize,
    /// One finding a level, strong to weak.
    pub findings: Vec<Finding>,
    /// The same for each key, where keys can be judged alone and there is more than one; the worst first, at most
    /// [`KEYS_LISTED_MAX`] of them.
    pub keys: Vec<KeyReport>,
    /// The watch and lease guarantees, where streams were recorded.
    pub watch: Vec<crate::watch::WatchFinding>,
    /// How old reads were, where that can be said.
    pub staleness: Option<Staleness>,
    /// What was odd about the input.
    pub warnings: Vec<Warning>,
    /// The whole time; zero without a clock.
    pub elapsed: Duration,
}

/// How many keys a report lists; the rest are judged, but only the worst are listed.
pub const KEYS_LISTED_MAX: usize = 100;

/// How old the values were that reads returned: the replication window time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staleness {
    /// Reads whose value was current at some moment of the read.
    pub fresh: u64,
    /// Reads whose value had been overwritten before they began.
    pub stale: u64,
    /// `(upper bound in ticks, reads)`: how long before the read's invocation its value had been overwritten; bounds grow by doubling.
    pub histogram: Vec<(i64, u64)>,
    /// The largest age in ticks.
    pub oldest: i64,
}

impl Report {
    /// The finding on a level.
    pub fn finding(&self, level: Level) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.level == level)
    }

    /// The strongest level that holds.
    pub fn strongest(&self) -> Option<Level> {
        strongest(&self.findings)
    }

    /// Every level that holds and that no other holding level implies.
    pub fn maximal(&self) -> Vec<Level> {
        let holding: Vec<Level> = holding(&self.findings).collect();
        holding
            .iter()
            .copied()
            .filter(|&l| !holding.iter().any(|&other| other != l && other.implies(l)))
            .collect()
    }
}

fn holding(findings: &[Finding]) -> impl Iterator<Item = Level> + '_ {
    findings.iter().filter(|finding| finding.verdict.decided() == Some(true)).map(|finding| finding.level)
}

fn strongest(findings: &[Finding]) -> Option<Level> {
    holding(findings).min()
}
