//! The smallest piece of a history that still violates a level.
//!
//! Cutting operations out of a history keeps every level that it satisfies, as long as a read goes when the write that it
//! saw goes: the order that explained the whole explains the rest. So a piece that violates a level proves that
//! the whole does, and a piece can be cut down freely while it still violates. What is cut first is everything
//! outside the pattern that the algorithm found; then pieces of halving size, until no single operation can go
//! (delta debugging: Zeller and Hildebrandt, 2002).

use crate::causal::Found;
use crate::causal::order::{Extra, Readers, View, topological};
use crate::history::{History, Key};
use crate::reads_from::{Op, ReadsFrom};
use crate::verdict::{Edge, Evidence};

/// How many operations all the trial checks together may look at.
const WORK_MAX: usize = 40_000_000;

/// A counter-example with more operations than this is worth a second attempt from another start.
pub const READABLE_MAX: usize = 10;

/// The smallest piece that could be found: no single operation of it can go.
///
/// `seed` is where to start, ascending; the whole history is used where the seed does not violate.
/// ```
/// use synod_check::{budget::Budget, causal, explain::shrink, generate::Script, reads_from::ReadsFrom, verdict::Level};
///
/// let history = Script::new()
///     .write("p", "x", 1).write("p", "x", 2).write("p", "y", 1)
///     .read("q", "x", 2).read("q", "y", 1).read("q", "x", 1)
///     .history();
/// let reads_from = ReadsFrom::of(&history).unwrap();
/// let budget = Budget::default();
/// let all: Vec<u32> = reads_from.ops().collect();
/// let mut violates = |part: &ReadsFrom| causal::violates(part, Level::Causal, &budget) == Ok(true);
/// // y plays no part in it.
/// assert_eq!(shrink::smallest(&reads_from, &all, &mut violates), vec![0, 1, 3, 5]);
/// ```
pub fn smallest(
    reads_from: &ReadsFrom,
    seed: &[Op],
    violates: &mut dyn FnMut(&ReadsFrom) -> bool,
) -> Vec<Op> {
    let mut work = 0;
    let mut trial = |ops: &[Op]| {
        work += ops.len() + 8;
        work <= WORK_MAX && violates(&reads_from.restricted(ops))
    };
    let start = reads_from.with_sources(seed);
    let mut best =
        if trial(&start) { start } else { window(reads_from, reads_from.ops().collect(), &mut trial) };
    cut(reads_from, &mut best, &mut trial);
    if best.len() > READABLE_MAX && best.len() < reads_from.len() {
        let mut other = window(reads_from, reads_from.ops().collect(), &mut trial);
        cut(reads_from, &mut other, &mut trial);
        if other.len() < best.len() {
            best = other;
        }
    }
    best
}

/// Removes chunks of halving size as long as the rest violates.
fn cut(reads_from: &ReadsFrom, ops: &mut Vec<Op>, trial: &mut dyn FnMut(&[Op]) -> bool) {
    let mut chunk = ops.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut removed = false;
        while at < ops.len() {
            let end = (at + chunk).min(ops.len());
            let rest: Vec<Op> = ops[..at].iter().chain(&ops[end..]).copied().collect();
            let rest = reads_from.closed(&rest);
            if trial(&rest) {
                *ops = rest;
                removed = true;
            } else {
                at = end;
            }
        }
        if chunk == 1 {
            if !removed {
                return;
            }
        } else {
            chunk = chunk.div_ceil(2);
        }
    }
}

/// The shortest violating prefix of a topological order, without as many of its first operations as can go.
fn window(reads_from: &ReadsFrom, all: Vec<Op>, trial: &mut dyn FnMut(&[Op]) -> bool) -> Vec<Op> {
    let mut order = Vec::new();
    let readers = Readers::of(reads_from);
    let none = Extra::new(reads_from.len());
    if topological(reads_from, &readers, &none, View::Everything, &mut order).is_none() {
        return all;
    }
    let sorted = |ops: &[Op]| {
        let mut ops = ops.to_vec();
        ops.sort_unstable();
        reads_from.closed(&ops)
    };
    // Violating is monotone: more operations never repair anything.
    let (mut good, mut bad) = (0, order.len());
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if trial(&sorted(&order[..middle])) { bad = middle } else { good = middle }
    }
    let end = bad;
    let (mut bad, mut good) = (0, end);
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if trial(&sorted(&order[middle..end])) { bad = middle } else { good = middle }
    }
    sorted(&order[bad..end])
}

/// Evidence for a pattern: the smallest piece, and the pattern as it shows in that piece.
pub(crate) fn evidence(
    reads_from: &ReadsFrom,
    history: &History,
    found: Found,
    find: &mut dyn FnMut(&ReadsFrom) -> Option<Found>,
) -> Evidence {
    let kept = smallest(reads_from, &found.operations, &mut |part| find(part).is_some());
    let part = reads_from.restricted(&kept);
    let (part, found, sufficient) = match find(&part) {
        Some(found) => (part, found, true),
        None => (reads_from.clone(), found, false),
    };
    let origin = |op: Op| part.origin(op);
    let mut operations: Vec<u32> = if sufficient {
        part.ops().map(origin).collect()
    } else {
        found.operations.iter().map(|&op| origin(op)).collect()
    };
    operations.sort_unstable();
    let edge = |step: &crate::causal::Step| Edge {
        before: origin(step.before),
        after: origin(step.after),
        why: step.why,
    };
    let mut cycle: Vec<Edge> = found.steps.iter().map(edge).collect();
    for step in found.justification.iter().map(edge) {
        if !cycle.contains(&step) {
            cycle.push(step);
        }
    }
    let first_key = operations.first().map(|&op| history.operations[op as usize].key);
    let one_key = |key: &Key| operations.iter().all(|&op| history.operations[op as usize].key == *key);
    Evidence {
        key: first_key.filter(one_key),
        operations,
        cycle,
        reason: found.pattern.to_string(),
        sufficient,
    }
}
