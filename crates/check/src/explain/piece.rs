//! The smallest piece of a register history that is still not linearizable.
//!
//! [`shrink`](super::shrink) works on sessions whose reads say what they saw. Linearizability is also decided where they do not (a
//! value written twice), by search, which by itself can only say how far it got. Here too a piece that violates proves that the
//! whole does, if cutting keeps what reads need: a read may always go; a write may go when nobody who stays can have read it, because
//! then an order of the whole, without it, is an order of the rest; and a comparison that failed says what the value was not, so
//! while one stays all writes of its key do. A read cannot have read a write after whose completion another one was called
//! that had completed before the read was. Other models' operations depend on one another in other ways, and are left alone.

use hashbrown::{HashMap, HashSet};

use crate::budget::Budget;
use crate::history::{Call, History, ModelKind, Operation, Outcome, Reply, Time, Value};
use crate::linearizable;
use crate::verdict::{Edge, Evidence, Level, Why};

/// Search steps for each trial; a piece that needs more is not tried further.
const STEPS_MAX: u64 = 200_000;

/// Histories with more operations are not cut down: a trial is a whole check.
pub const OPERATIONS_MAX: usize = 20_000;

/// How many operations all the trial checks together may look at.
const WORK_MAX: usize = 4_000_000;

/// The evidence against linearizability cut down to a piece that shows it by itself; `None` where it already is, or cannot be.
///
/// This costs some hundred checks of ever shorter histories, so it is done for those who want to read the answer.
pub fn narrowed(history: &History, level: Level, evidence: &Evidence) -> Option<Evidence> {
    if level != Level::Linearizable || evidence.sufficient {
        return None;
    }
    // Registers are judged key by key, and so is the piece.
    let part: Vec<u32> = match evidence.key {
        Some(key) => (0..history.operations.len() as u32)
            .filter(|&i| history.operations[i as usize].key == key)
            .collect(),
        None => (0..history.operations.len() as u32).collect(),
    };
    let budget = Budget { steps_max: STEPS_MAX, ..Budget::default() };
    let mut violates = |history: &History| linearizable::check(history, &budget).0.decided() == Some(false);
    // The search stopped at some operation: what was called after it had completed is most likely not needed.
    let completions = evidence.operations.iter().filter_map(|&i| history.operations.get(i as usize));
    let end = completions.filter(|operation| operation.is_ok()).map(|operation| operation.completed).max();
    let piece = smallest(&history.restricted(&part), end.unwrap_or(Time::MAX), &mut violates)?;
    let operations: Vec<u32> = piece.iter().map(|&i| part[i as usize]).collect();
    let cycle = stale_read(history, &operations).unwrap_or_default();
    Some(Evidence { operations, cycle, sufficient: true, ..evidence.clone() })
}

/// The commonest contradiction, where the piece is one: all writes that a read could have seen were overwritten before it was called.
fn stale_read(history: &History, operations: &[u32]) -> Option<Vec<Edge>> {
    let of = |i: u32| &history.operations[i as usize];
    let written = |i: u32| of(i).value_written();
    operations.iter().find_map(|&read| {
        let value = needs(of(read))?;
        let sources: Vec<u32> =
            operations.iter().copied().filter(|&i| i != read && written(i) == Some(value)).collect();
        let last = sources.iter().copied().max_by_key(|&source| of(source).completed)?;
        let newer = |&&i: &&u32| {
            of(i).is_ok()
                && written(i).is_some_and(|other| other != value)
                && of(last).precedes(of(i))
                && of(i).precedes(of(read))
        };
        let newer = *operations.iter().find(newer)?;
        let edge = |before, after, why| Edge { before, after, why };
        Some(vec![
            edge(last, newer, Why::RealTime),
            edge(newer, read, Why::RealTime),
            edge(read, newer, Why::Overwrites),
        ])
    })
}

/// The positions of a smallest violating piece, ascending; `None` where the model is another, the history too long, or the
/// whole does not violate. `end` is a moment by which the violation has most likely happened: the search begins with what was
/// called until then, if that violates.
///
/// ```
/// use synod_check::{brute, explain::piece, generate::Script, history::History, verdict::Level};
///
/// let history = Script::new()
///     .write("p", "x", 1).at(0, 1)
///     .write("p", "x", 2).at(2, 3)
///     .read("q", "x", 2).at(4, 5)
///     .read("q", "x", 1).at(6, 7)
///     .history();
/// let mut violates = |part: &History| brute::holds(part, Level::Linearizable) == Some(false);
/// // That q read 2 in between is not needed.
/// assert_eq!(piece::smallest(&history, 8, &mut violates), Some(vec![0, 1, 3]));
/// ```
pub fn smallest(
    history: &History,
    end: Time,
    violates: &mut dyn FnMut(&History) -> bool,
) -> Option<Vec<u32>> {
    let registers = matches!(history.model, ModelKind::Register | ModelKind::KeyValue)
        && history.operations.iter().all(|operation| {
            matches!(operation.call, Call::Read | Call::Write(_) | Call::Cas { .. } | Call::Delete)
        });
    if !registers || history.operations.len() > OPERATIONS_MAX || !violates(history) {
        return None;
    }
    let mut work = 0;
    let mut trial = |keep: &[u32]| {
        work += keep.len() + 8;
        work <= WORK_MAX && violates(&history.restricted(keep))
    };
    let all: Vec<u32> = (0..history.operations.len() as u32).collect();
    let until_end = |i: &&u32| {
        let operation = &history.operations[**i as usize];
        operation.is_ok() && operation.invoked <= end
    };
    let mut keep = with_needed_writes(history, &all, all.iter().filter(until_end).copied().collect());
    if !trial(&keep) {
        keep = all;
    }
    loop {
        let before = keep.len();
        let mut chunk = keep.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < keep.len() {
                let end = (at + chunk).min(keep.len());
                let rest: Vec<u32> = keep[..at].iter().chain(&keep[end..]).copied().collect();
                let rest = with_needed_writes(history, &keep, rest);
                if rest.len() < keep.len() && trial(&rest) {
                    keep = rest;
                } else {
                    at = end;
                }
            }
            if chunk == 1 {
                break;
            }
            chunk = chunk.div_ceil(2);
        }
        if keep.len() == before {
            return Some(keep);
        }
    }
}

/// The wanted operations, and those writes among the present ones that they cannot do without.
fn with_needed_writes(history: &History, present: &[u32], wanted: Vec<u32>) -> Vec<u32> {
    let of = |i: u32| &history.operations[i as usize];
    let barriers = Barriers::of(present.iter().map(|&i| of(i)));
    let mut writers: HashMap<(u32, Value), Vec<u32>, foldhash::fast::FixedState> = HashMap::default();
    let mut of_key: HashMap<u32, Vec<u32>, foldhash::fast::FixedState> = HashMap::default();
    for &i in present {
        if let Some(written) = of(i).value_written() {
            writers.entry((of(i).key.0, written)).or_default().push(i);
            of_key.entry(of(i).key.0).or_default().push(i);
        }
    }
    let mut keep: HashSet<u32, foldhash::fast::FixedState> = wanted.iter().copied().collect();
    let mut pending = wanted;
    while let Some(i) = pending.pop() {
        let operation = of(i);
        let compared = matches!(operation.outcome, Outcome::Ok(Reply::Flag(false)));
        let needed: Vec<u32> = match needs(operation) {
            _ if compared => of_key.get(&operation.key.0).cloned().unwrap_or_default(),
            None => Vec::new(),
            Some(value) => {
                let barrier = barriers.before(operation);
                let known = writers.get(&(operation.key.0, value)).map_or(&[][..], Vec::as_slice);
                let readable = |&&write: &&u32| {
                    of(write).completed >= barrier && of(write).invoked <= operation.completed
                };
                let readable: Vec<u32> = known.iter().filter(readable).copied().collect();
                // Where all were overwritten the last of them stays, to show that.
                let earlier = |write: &u32| of(*write).invoked <= operation.completed;
                let last = known.iter().copied().filter(earlier).max_by_key(|&write| of(write).completed);
                if readable.is_empty() { last.into_iter().collect() } else { readable }
            }
        };
        pending.extend(needed.into_iter().filter(|&write| keep.insert(write)));
    }
    let mut keep: Vec<u32> = keep.into_iter().collect();
    keep.sort_unstable();
    keep
}

/// The moments before which a write must not have completed to be read.
struct Barriers {
    /// For each key: the completions of writes that surely happened, ascending, with the latest call among them so far.
    by_key: HashMap<u32, Vec<(Time, Time)>, foldhash::fast::FixedState>,
}

impl Barriers {
    fn of<'a>(operations: impl Iterator<Item = &'a Operation>) -> Barriers {
        let mut by_key: HashMap<u32, Vec<(Time, Time)>, foldhash::fast::FixedState> = HashMap::default();
        for write in operations.filter(|operation| operation.is_ok() && operation.value_written().is_some()) {
            by_key.entry(write.key.0).or_default().push((write.completed, write.invoked));
        }
        for writes in by_key.values_mut() {
            writes.sort_unstable();
            let mut latest = Time::MIN;
            for (_, invoked) in writes {
                latest = latest.max(*invoked);
                *invoked = latest;
            }
        }
        Barriers { by_key }
    }

    /// The latest call of a write that had completed before this operation was called: what completed before that was overwritten.
    fn before(&self, operation: &Operation) -> Time {
        let Some(writes) = self.by_key.get(&operation.key.0) else { return Time::MIN };
        let count = writes.partition_point(|&(completed, _)| completed < operation.invoked);
        count.checked_sub(1).map_or(Time::MIN, |i| writes[i].1)
    }
}

/// The value that an operation saw, or would have to see.
fn needs(operation: &Operation) -> Option<Value> {
    match &operation.call {
        Call::Read => operation.value_read(),
        Call::Cas { expected, .. } if operation.value_written().is_some() => Some(*expected),
        _ => None,
    }
}
