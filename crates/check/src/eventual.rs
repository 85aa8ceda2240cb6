//! Eventual consistency, as far as a finite history can show it; and how old reads were: the seed's window time.
//!
//! "If no new updates are made to the object, eventually all accesses will return the last updated value" (Vogels, 2009).
//! No finite history can violate that, but one that has come to rest can speak against it. A read of a key is *at rest* when
//! every write of the key had completed before it was called. The store has converged when for each key the last reads
//! at rest of all processes returned the same. A write whose fate is unknown may still take effect, so a key with one is never at
//! rest. Where the times of different processes cannot be compared, the end of the history counts as the rest: then, and in
//! [`last_reads_agree`] always, it is each process's last read of each key that is compared.
//!
//! Linearizable histories converge; no other level promises it, because none but real time says when a write arrives.
//! A value that nobody wrote violates this level like every other.
//!
//! *Staleness* needs one clock and unique values. The value of a read was surely replaced at the first moment at which some
//! write of the key had completed that was called after the read's source had completed; the read's age is how long before its
//! call that was. It is a lower bound: the store's own order of concurrent writes is not known.

use std::collections::BTreeMap;

use crate::budget::Budget;
use crate::history::{Clock, History, NEVER, Operation, Time, Value};
use crate::reads_from::{Op, ReadsFrom, Source, Undecidable, read_value};
use crate::verdict::{Evidence, Exhausted, Limit, Staleness, Verdict};

const ALGORITHM: &str = "last reads at rest";

/// Judges convergence, and measures staleness where the history has one clock and says which write each read saw.
///
/// ```
/// use synod_check::{budget::Budget, eventual, generate::Script};
///
/// let history = Script::new()
///     .write("p", "x", 1).at(0, 10)
///     .read("q", "x", 0).at(15, 20)   // old, but not the last word
///     .read("q", "x", 1).at(25, 30)
///     .history();
/// let (verdict, _, staleness) = eventual::check(&history, &Budget::default());
/// assert_eq!(verdict.decided(), Some(true));
/// let staleness = staleness.unwrap();
/// assert_eq!((staleness.fresh, staleness.stale, staleness.oldest), (1, 1, 5));
/// ```
pub fn check(history: &History, _budget: &Budget) -> (Verdict, String, Option<Staleness>) {
    let reads_from = ReadsFrom::of(history);
    if let Err(Undecidable::NotRegister { .. } | Undecidable::TooLong) = &reads_from {
        let reason = reads_from.as_ref().err().map_or(String::new(), |reason| reason.words(history));
        let unknown = Verdict::Unknown(Exhausted { limit: Limit::Unsupported, progress: reason });
        return (unknown, ALGORITHM.to_string(), None);
    }
    // Which write a read saw does not matter for convergence, so repeated values do no harm here.
    let staleness = reads_from.as_ref().ok().and_then(|reads_from| staleness(history, reads_from));
    let thin_air =
        reads_from.as_ref().ok().and_then(|reads_from| Some(reads_from.origin(reads_from.thin_air()?)));
    let verdict = match thin_air {
        Some(read) => Verdict::Violated(Evidence {
            operations: vec![read],
            cycle: Vec::new(),
            reason: "a read returned a value that nobody wrote".to_string(),
            key: Some(history.operations[read as usize].key),
            sufficient: true,
        }),
        None => match disagreement(history, &rests(history)) {
            None => Verdict::holds(),
            Some([one, other]) => Verdict::Violated(Evidence {
                operations: vec![one.min(other), one.max(other)],
                cycle: Vec::new(),
                reason: "after all writes of the key had completed, two processes' last reads of it differ"
                    .to_string(),
                key: Some(history.operations[one as usize].key),
                sufficient: false,
            }),
        },
    };
    (verdict, ALGORITHM.to_string(), staleness)
}

/// Whether each process's last read of each key, whenever it was, returned the same as the others'.
///
/// ```
/// use synod_check::{eventual, generate::Script};
///
/// let history = Script::new().write("p", "x", 1).read("q", "x", 0).read("r", "x", 1).history();
/// assert!(!eventual::last_reads_agree(&history));
/// ```
pub fn last_reads_agree(history: &History) -> bool {
    disagreement(history, &vec![Time::MIN; history.keys.len()]).is_none()
}

/// From when on each key is at rest: reads called after this moment count.
fn rests(history: &History) -> Vec<Time> {
    let mut rests = vec![Time::MIN; history.keys.len()];
    if history.clock == Clock::Shared {
        for operation in history.operations.iter().filter(|operation| operation.value_written().is_some()) {
            let rest = &mut rests[operation.key.0 as usize];
            *rest = (*rest).max(operation.completed);
        }
    }
    rests
}

/// Two processes' last reads of a key after its rest that differ.
fn disagreement(history: &History, rests: &[Time]) -> Option<[u32; 2]> {
    // (key, process) -> the last read; later operations of a process overwrite earlier ones.
    let mut last: BTreeMap<(u32, u32), (u32, Value)> = BTreeMap::new();
    for (i, operation) in history.operations.iter().enumerate() {
        let Some(value) = answered(operation) else { continue };
        if operation.invoked > rests[operation.key.0 as usize] {
            last.insert((operation.key.0, operation.process.0), (i as u32, value));
        }
    }
    let reads: Vec<_> = last.into_iter().collect();
    reads.windows(2).find_map(|pair| {
        let [((key, _), (one, value)), ((next_key, _), (other, next_value))] = pair else { return None };
        (key == next_key && value != next_value).then_some([*one, *other])
    })
}

/// What an operation surely read.
fn answered(operation: &Operation) -> Option<Value> {
    if operation.is_ok() { read_value(operation) } else { None }
}

/// How old each read's value was.
fn staleness(history: &History, reads_from: &ReadsFrom) -> Option<Staleness> {
    if history.clock != Clock::Shared {
        return None;
    }
    let of = |op: Op| &history.operations[reads_from.origin(op) as usize];
    let mut writes: Vec<Op> = reads_from.ops().filter(|&op| reads_from.writes(op)).collect();
    writes.sort_by_key(|&op| (reads_from.key(op), of(op).invoked));
    // By key and call, the first completion of any write that was called no earlier.
    let mut replaced_at: Vec<Time> = writes.iter().map(|&op| of(op).completed).collect();
    for i in (1..writes.len()).rev() {
        if reads_from.key(writes[i]) == reads_from.key(writes[i - 1]) {
            replaced_at[i - 1] = replaced_at[i - 1].min(replaced_at[i]);
        }
    }
    let mut out = Staleness::default();
    let mut buckets: BTreeMap<i64, u64> = BTreeMap::new();
    for read in reads_from.ops() {
        let written = match reads_from.source(read) {
            Source::Nothing | Source::ThinAir => continue,
            Source::Initial => Time::MIN,
            Source::Write(write) => of(write).completed,
        };
        let place = (reads_from.key(read), written);
        let next = writes.partition_point(|&op| (reads_from.key(op), of(op).invoked) <= place);
        let same_key = writes.get(next).is_some_and(|&op| reads_from.key(op) == reads_from.key(read));
        let replaced = if same_key { replaced_at[next] } else { NEVER };
        let age = of(read).invoked.saturating_sub(replaced);
        if replaced == NEVER || age <= 0 {
            out.fresh += 1;
        } else {
            out.stale += 1;
            out.oldest = out.oldest.max(age);
            *buckets.entry(bound(age)).or_default() += 1;
        }
    }
    out.histogram = buckets.into_iter().collect();
    Some(out)
}

/// The smallest power of two that is not below an age.
fn bound(age: i64) -> i64 {
    age.cast_unsigned()
        .checked_next_power_of_two()
        .and_then(|bound| i64::try_from(bound).ok())
        .unwrap_or(i64::MAX)
}
