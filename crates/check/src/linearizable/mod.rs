//! Linearizability: which algorithm fits a history, and what each says.
//!
//! "A history is linearizable if each operation appears to take effect at one moment between its invocation and its
//! completion" (Herlihy and Wing, TOPLAS 1990). The property is local: objects can be judged one by one (their theorem
//! 1), so registers, keys, sets, counters, queues and mutexes are judged key by key, in parallel. For each key the
//! cheapest algorithm that fits is taken, and named:
//! - `unique-values`, `append-order`, `growing-set`: near n log n, by [`blocks`], where answers say which write they saw;
//! - `revision-order` for etcd's store, near n log n, where replies carry revisions ([`revisions`]);
//! - `dependencies` for transactions over lists and registers, near n log n, where reads tell the order of writes;
//! - `wing-gong-lowe`: the [`search`], for everything else; a long one goes on over many threads (`parallel.rs`).

mod append;
pub mod blocks;
mod dependencies;
mod gaps;
mod growing;
mod parallel;
mod parts;
mod plan;
pub mod revisions;
pub mod search;
mod states;
mod unique;

use std::fmt;

use crate::budget::Budget;
use crate::history::{Clock, Datum, History, Key, ModelKind};
use crate::model::store::{Names, Origin, StoreModel};
use crate::model::{Bank, Counter, KeyValue, Model, Mutex, Queue, Register, Set, Transactions, bank_of};
use crate::verdict::{Edge, Evidence, Exhausted, Limit, Verdict, Why, Witness};
use blocks::{Conflict, Member};
use dependencies::Ordered;
use search::{Entry, Search};

/// What a pass over the answers of one key says about where its operations belong.
enum Placement {
    /// Every operation's block and position.
    Blocks { members: Vec<Member>, blocks: usize },
    /// Answers that contradict one another whatever the times.
    Impossible(Impossible),
    /// This algorithm does not fit, and why.
    Declined(&'static str),
}

/// Operations that contradict one another.
struct Impossible {
    operations: Vec<u32>,
    reason: String,
}

/// The verdict on one key (or on all keys at once, for models that span them).
pub struct PartVerdict {
    /// The key, where it is one.
    pub key: Option<Key>,
    /// How many operations.
    pub operations: usize,
    /// The verdict. Orders and evidence name positions in the whole history.
    pub verdict: Verdict,
    /// Which algorithm decided.
    pub algorithm: Algorithm,
}

/// An algorithm, and why it was not a cheaper one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Algorithm {
    /// Its name.
    pub name: &'static str,
    /// Why the cheaper one did not fit.
    pub because: Option<&'static str>,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.because {
            Some(because) => write!(f, "{} ({because})", self.name),
            None => f.write_str(self.name),
        }
    }
}

/// Whether the model's objects can be judged key by key.
pub fn is_local(model: ModelKind) -> bool {
    match model {
        ModelKind::Register
        | ModelKind::KeyValue
        | ModelKind::Set
        | ModelKind::Counter
        | ModelKind::Queue
        | ModelKind::Mutex => true,
        ModelKind::Etcd | ModelKind::ListAppend | ModelKind::TxnRegister | ModelKind::Bank => false,
    }
}

/// Whether the history is linearizable, and the names of the algorithms that decided.
pub fn check(history: &History, budget: &Budget<'_>) -> (Verdict, String) {
    let (verdict, algorithm, _) = check_parts(history, budget);
    (verdict, algorithm)
}

/// The same, with the verdict on each part, worst first.
pub fn check_parts(history: &History, budget: &Budget<'_>) -> (Verdict, String, Vec<PartVerdict>) {
    if history.clock == Clock::PerProcess {
        let progress = "the history records no real time, only the order inside each process".to_string();
        return (
            Verdict::Unknown(Exhausted { limit: Limit::NoSharedClock, progress }),
            "none".into(),
            Vec::new(),
        );
    }
    let mut parts = if is_local(history.model) {
        parts::check(history, budget)
    } else {
        let all: Vec<u32> = (0..history.operations.len() as u32).collect();
        let (verdict, algorithm) = check_part(history, &all, budget);
        vec![PartVerdict { key: None, operations: all.len(), verdict, algorithm }]
    };
    let algorithm = names(&parts);
    // Violations first, then what is unknown; a linearization of the whole exists because the property is local.
    parts.sort_by_key(|part| match part.verdict {
        Verdict::Violated(_) => 0,
        Verdict::Unknown(_) => 1,
        Verdict::Holds(_) => 2,
    });
    let verdict = match parts.first().map(|part| &part.verdict) {
        Some(Verdict::Holds(_)) | None => Verdict::Holds(parts::merge(history, &parts)),
        Some(worst) => worst.clone(),
    };
    (verdict, algorithm, parts)
}

fn names(parts: &[PartVerdict]) -> String {
    let mut names: Vec<Algorithm> = parts.iter().map(|part| part.algorithm).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return "none needed".into();
    }
    names.iter().map(Algorithm::to_string).collect::<Vec<_>>().join(" + ")
}

/// The verdict on the operations `part` of one key, or on all operations for models that span keys.
pub fn check_part(history: &History, part: &[u32], budget: &Budget<'_>) -> (Verdict, Algorithm) {
    let named = |name| Algorithm { name, because: None };
    let (placement, algorithm) = match history.model {
        ModelKind::Register => (unique::place(history, part), "unique-values"),
        ModelKind::KeyValue => (append::place(history, part), "append-order"),
        ModelKind::Set => (growing::place(history, part), "growing-set"),
        ModelKind::Etcd => {
            if let Some(verdict) = revisions::check(history, part, revisions::Binds::RealTime, budget) {
                return (verdict, named("revision-order"));
            }
            (Placement::Declined("replies carry no revisions"), "revision-order")
        }
        ModelKind::ListAppend | ModelKind::TxnRegister => match dependencies::order(history, part) {
            Ordered::Order(order) => return (Verdict::Holds(Witness { order }), named("dependencies")),
            Ordered::Cycle(evidence) => return (Verdict::Violated(evidence), named("dependencies")),
            Ordered::Other(placement) => (placement, "dependencies"),
        },
        _ => (Placement::Declined("no shortcut for this model"), "none"),
    };
    match placement {
        Placement::Blocks { members, blocks } => {
            let verdict = match blocks::order(&history.operations, members, blocks) {
                Ok(order) => Verdict::Holds(Witness { order }),
                Err(conflict) => Verdict::Violated(explain(history, part, &conflict)),
            };
            (verdict, named(algorithm))
        }
        Placement::Impossible(impossible) => {
            let mut operations = impossible.operations;
            add_writers(history, part, &mut operations);
            let evidence = Evidence {
                operations,
                reason: impossible.reason,
                key: key_of(history, part),
                sufficient: false,
                cycle: Vec::new(),
            };
            (Verdict::Violated(evidence), named(algorithm))
        }
        Placement::Declined(why) => {
            let algorithm = Algorithm { name: "wing-gong-lowe", because: Some(why) };
            (search_part(history, part, budget), algorithm)
        }
    }
}

/// The verdict of the search alone, whatever else would fit; what the other algorithms are compared with.
pub fn search_part(history: &History, part: &[u32], budget: &Budget<'_>) -> Verdict {
    match history.model {
        ModelKind::Register => run(history, part, &Register { initial: history.initial }, budget),
        ModelKind::KeyValue => run(history, part, &KeyValue { history }, budget),
        ModelKind::Set => run(history, part, &Set, budget),
        ModelKind::Counter => {
            let initial = match history.value(history.initial) {
                Datum::Int(number) => *number,
                _ => 0,
            };
            run(history, part, &Counter { initial }, budget)
        }
        ModelKind::Queue => run(history, part, &Queue, budget),
        ModelKind::Mutex => run(history, part, &Mutex, budget),
        ModelKind::ListAppend | ModelKind::TxnRegister => {
            run(history, part, &Transactions { initial: history.initial }, budget)
        }
        ModelKind::Bank => match bank_of(history) {
            Ok(bank) => run::<Bank>(history, part, &bank, budget),
            Err(evidence) => Verdict::Violated(evidence),
        },
        ModelKind::Etcd => {
            let names = Names::new(history);
            run(history, part, &StoreModel { names: &names, origin: Origin::Fresh }, budget)
        }
    }
}

fn run<M>(history: &History, part: &[u32], model: &M, budget: &Budget<'_>) -> Verdict
where
    M: Model<Call = crate::history::Call, Reply = crate::history::Reply>,
{
    let kept: Vec<u32> = part
        .iter()
        .copied()
        .filter(|&i| history.operations[i as usize].outcome != crate::history::Outcome::Failed)
        .collect();
    let entries: Vec<Entry<'_, M>> = kept
        .iter()
        .map(|&i| {
            let operation = &history.operations[i as usize];
            let (invoked, completed) = (operation.invoked, operation.completed);
            Entry { call: &operation.call, reply: operation.reply(), invoked, completed }
        })
        .collect();
    let back = |order: Vec<u32>| order.into_iter().map(|i| kept[i as usize]).collect::<Vec<u32>>();
    match search::search(model, &entries, budget) {
        Search::Linearization(order) => Verdict::Holds(Witness { order: back(order) }),
        Search::None { stuck, open, longest: _ } => {
            let stuck = &history.operations[kept[stuck as usize] as usize];
            let reason = format!(
                "no order of the operations explains the one of line {} (id {})",
                stuck.line, stuck.id
            );
            Verdict::Violated(Evidence {
                operations: back(open),
                reason,
                key: key_of(history, part),
                ..Evidence::default()
            })
        }
        Search::Exhausted { limit, passed, all } => {
            let place =
                key_of(history, part).map(|key| format!(" of key {}", history.key(key))).unwrap_or_default();
            let progress = format!("passed {passed} of {all} completions{place}");
            Verdict::Unknown(Exhausted { limit, progress })
        }
    }
}

fn key_of(history: &History, part: &[u32]) -> Option<Key> {
    if !is_local(history.model) {
        return None;
    }
    part.first().map(|&i| history.operations[i as usize].key)
}

/// Adds the writers of what the named operations read, without which they would not be understood.
fn add_writers(history: &History, part: &[u32], operations: &mut Vec<u32>) {
    if history.model == ModelKind::Register {
        let mut wanted: Vec<_> = operations
            .iter()
            .filter_map(|&i| match &history.operations[i as usize].call {
                crate::history::Call::Cas { expected, .. } => Some(*expected),
                _ => history.operations[i as usize].value_read(),
            })
            .collect();
        for &i in part {
            if wanted.is_empty() {
                break;
            }
            if let Some(value) = history.operations[i as usize].value_written()
                && let Some(at) = wanted.iter().position(|&wanted| wanted == value)
            {
                wanted.swap_remove(at);
                operations.push(i);
            }
        }
    }
    operations.sort_unstable();
    operations.dedup();
}

/// A conflict of blocks as evidence.
fn explain(history: &History, part: &[u32], conflict: &Conflict) -> Evidence {
    let edge = |before: u32, after: u32, why: Why| Edge { before, after, why };
    let (mut operations, cycle, reason) = match *conflict {
        Conflict::Within { earlier, later } => (
            vec![earlier, later],
            vec![edge(earlier, later, Why::WriteOrder), edge(later, earlier, Why::RealTime)],
            "an operation had completed before one was invoked that its answer puts before it".to_string(),
        ),
        Conflict::Between { one: (None, stale), other: (first, _) } => (
            vec![stale, first],
            vec![edge(stale, first, Why::Overwrites), edge(first, stale, Why::RealTime)],
            "the initial value was seen after a write had replaced it".to_string(),
        ),
        Conflict::Between { one: (Some(first), last), other: (other_first, other_last) } => (
            vec![first, last, other_first, other_last],
            vec![
                edge(first, other_last, Why::RealTime),
                edge(other_last, other_first, Why::WriteOrder),
                edge(other_first, last, Why::RealTime),
                edge(last, first, Why::WriteOrder),
            ],
            "two values each must have been replaced by the other: both were seen after the other's time had begun".to_string(),
        ),
    };
    add_writers(history, part, &mut operations);
    let sufficient = operations.iter().all(|&i| {
        history.model == ModelKind::Register
            && !matches!(history.operations[i as usize].call, crate::history::Call::Cas { .. })
    });
    Evidence { operations, cycle, reason, key: key_of(history, part), sufficient }
}
