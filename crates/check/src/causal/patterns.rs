//! Bad patterns of weak causal consistency (CC) and causal convergence (CCv).
//!
//! POPL'17, tables 2 and 3, for differentiated histories. With `co = (po ∪ rf)+`:
//!
//! - *CyclicCO*: `co` has a cycle.
//! - *ThinAirRead*: a read of a value that nobody wrote.
//! - *WriteCOInitRead*: a write of `x` is `co`-before a read of `x`'s initial value.
//! - *WriteCORead*: `w1 co w2 co r` for two writes of `x` and a read `r` that saw `w1`.
//! - *CyclicCF* (CCv alone): `co ∪ cf` has a cycle, where `v cf w` when a read saw `w` although `v` is `co`-before it.
//!
//! A history is CC exactly when it has none of the first four and CCv when it has none of the five. As in AWDIT
//! (Møldrup and Pavlogiannis, 2025), only the last write of each session before a read matters, because program order
//! covers the earlier ones: `O(n k)` looks at clocks for n operations of k sessions, and at most as many `cf` edges.

use crate::causal::Analysis;
use crate::causal::clocks::Clocks;
use crate::causal::order::*;
use crate::causal::violation::{Found, Step};
use crate::reads_from::{Op, ReadsFrom, Source};
use crate::verdict::Why;

/// How many offending reads are compared to find the one that is shortest to explain.
const READS_COMPARED_MAX: usize = 64;

/// A read, and a write that it should have seen instead of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overwritten {
    /// The read.
    pub(crate) read: Op,
    /// The newer write.
    pub(crate) newer: Op,
}

/// The newest write of each session in the causal past of a read, if it is causally after what the read saw.
pub(crate) fn overwritten<'a>(
    reads_from: &'a ReadsFrom,
    key_writes: &'a KeyWrites,
    clocks: &'a Clocks,
    read: Op,
) -> impl Iterator<Item = Overwritten> + 'a {
    key_writes.groups(reads_from.key(read)).iter().filter_map(move |group| {
        let newer = newest_before(reads_from, key_writes, clocks, read, group)?;
        let overwrites = match reads_from.source(read) {
            Source::Initial => true,
            Source::Write(source) => newer != source && clocks.at_or_before(reads_from, source, newer),
            Source::Nothing | Source::ThinAir => false,
        };
        overwrites.then_some(Overwritten { read, newer })
    })
}

/// The newest write of a session to the read's key in the read's causal past, itself excluded.
fn newest_before(
    reads_from: &ReadsFrom,
    key_writes: &KeyWrites,
    clocks: &Clocks,
    read: Op,
    group: &Group,
) -> Option<Op> {
    let session = group.session as usize;
    let mut prefix = clocks.seen(reads_from, read, session);
    if session == reads_from.session_of(read) {
        prefix = prefix.min(reads_from.position(read));
    }
    // What the source had seen of that session cannot be after the source.
    if let Some(source) = reads_from.source_write(read)
        && prefix <= clocks.seen(reads_from, source, session)
        && session != reads_from.session_of(source)
    {
        return None;
    }
    key_writes.last_within(reads_from, group, prefix)
}

/// Looks for the patterns of weak causal consistency.
pub(crate) fn weak_causal(analysis: &Analysis) -> Option<Found> {
    let reads_from = analysis.reads_from;
    let (clocks, _) = match &analysis.causal {
        Ok(causal) => causal,
        Err(placed) => return Some(cyclic_causality(reads_from, placed)),
    };
    let offending = reads_from
        .ops()
        .filter(|&op| reads_from.reads(op))
        .flat_map(|read| overwritten(reads_from, &analysis.key_writes, clocks, read));
    offending
        .take(READS_COMPARED_MAX)
        .map(|found| write_co_read(analysis, clocks, found))
        .min_by_key(|found| found.operations.len())
}

/// The cycle of program order and reads-from.
pub(crate) fn cyclic_causality(reads_from: &ReadsFrom, placed: &[Op]) -> Found {
    let around = cycle(reads_from, &Extra::new(reads_from.len()), View::Everything, placed);
    let steps = (0..around.len()).map(|i| {
        let (before, after) = (around[i], around[(i + 1) % around.len()]);
        let why = if reads_from.source_write(after) == Some(before) { Why::ReadsFrom } else { Why::Session };
        Step { before, after, why }
    });
    Found::of(
        "CyclicCO: what was read goes round in a circle with what was written after it",
        steps.collect(),
    )
}

fn write_co_read(analysis: &Analysis, clocks: &Clocks, found: Overwritten) -> Found {
    let reads_from = analysis.reads_from;
    let Overwritten { read, newer } = found;
    let mut steps = Vec::new();
    match reads_from.source_write(read) {
        Some(source) => {
            let to_newer = shortest(reads_from, clocks, source, newer);
            steps.extend(to_newer);
            steps.extend(shortest(reads_from, clocks, newer, read));
            // Closing the circle: the read comes before the newer write, because it did not see it.
            steps.push(Step { before: read, after: newer, why: Why::Overwrites });
            let mut out =
                Found::of("WriteCORead: a newer write causally precedes a read of an older one", steps);
            out.add(&[source, newer, read]);
            out
        }
        None => {
            let first = first_write(analysis, clocks, read, newer);
            steps.extend(shortest(reads_from, clocks, first, read));
            steps.push(Step { before: read, after: first, why: Why::Overwrites });
            Found::of("WriteCOInitRead: a write causally precedes a read of the initial value", steps)
        }
    }
}

/// Of the writes of one session that a read of the initial value should have seen, the one with the shortest way to the read.
fn first_write(analysis: &Analysis, clocks: &Clocks, read: Op, newest: Op) -> Op {
    let reads_from = analysis.reads_from;
    let session = reads_from.session_of(newest);
    let writes = analysis
        .key_writes
        .groups(reads_from.key(read))
        .iter()
        .filter(|group| group.session as usize == session)
        .flat_map(|group| analysis.key_writes.of_group(group));
    writes
        .copied()
        .take_while(|&write| write <= newest)
        .take(READS_COMPARED_MAX)
        .min_by_key(|&write| shortest(reads_from, clocks, write, read).len())
        .unwrap_or(newest)
}

/// A way from `a` to `b` in the causal order. Backwards from `b`: the earliest operation of its session that has `a` in
/// its past got it from the write that it read, and so on; each round crosses to another session once.
pub(crate) fn shortest(reads_from: &ReadsFrom, clocks: &Clocks, a: Op, b: Op) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = b;
    while at != a {
        let session = reads_from.session(reads_from.session_of(at));
        let in_past = |op: Op| clocks.at_or_before(reads_from, a, op);
        let first = {
            let (mut low, mut high) = (session.start, at);
            while low < high {
                let middle = low + (high - low) / 2;
                if in_past(middle) { high = middle } else { low = middle + 1 }
            }
            low
        };
        if reads_from.session_of(a) == reads_from.session_of(at) {
            steps.push(Step { before: a, after: at, why: Why::Session });
            break;
        }
        if first != at {
            steps.push(Step { before: first, after: at, why: Why::Session });
        }
        let Some(source) = reads_from.source_write(first).filter(|_| in_past(first)) else { break };
        steps.push(Step { before: source, after: first, why: Why::ReadsFrom });
        at = source;
    }
    steps.reverse();
    steps
}

/// Looks for a cycle of causality and conflict, the fifth pattern; the first four must be absent.
pub(crate) fn convergence(analysis: &Analysis) -> Option<Found> {
    let reads_from = analysis.reads_from;
    let Ok((clocks, _)) = &analysis.causal else { return None };
    let mut conflict = Extra::new(reads_from.len());
    for read in reads_from.ops() {
        let Some(source) = reads_from.source_write(read) else { continue };
        for group in analysis.key_writes.groups(reads_from.key(read)) {
            if let Some(newest) = newest_before(reads_from, &analysis.key_writes, clocks, read, group)
                && newest != source
                && !clocks.at_or_before(reads_from, newest, source)
            {
                conflict.push(Derived { before: newest, after: source, because: read });
            }
        }
    }
    let mut order = Vec::with_capacity(reads_from.len());
    if topological(reads_from, &analysis.readers, &conflict, View::Everything, &mut order).is_some() {
        return None;
    }
    let around = short_cycle(analysis, clocks, &conflict, &order)
        .unwrap_or_else(|| cycle(reads_from, &conflict, View::Everything, &order));
    let mut justification = Vec::new();
    let mut steps = Vec::new();
    for i in 0..around.len() {
        let (before, after) = (around[i], around[(i + 1) % around.len()]);
        if let Some(edge) = conflict.after(before).find(|edge| edge.after == after) {
            steps.push(Step { before, after, why: Why::WriteOrder });
            justification.extend(shortest(reads_from, clocks, before, edge.because));
            justification.push(Step { before: after, after: edge.because, why: Why::ReadsFrom });
        } else {
            steps.extend(shortest(reads_from, clocks, before, after));
        }
    }
    let mut out = Found::of("CyclicCF: the reads force two orders of the same writes", steps);
    out.justify(justification);
    Some(out)
}

/// Two or three conflict edges joined by causality into a circle, if a short search finds them.
fn short_cycle(analysis: &Analysis, clocks: &Clocks, conflict: &Extra, placed: &[Op]) -> Option<Vec<Op>> {
    const EDGES_COMPARED_MAX: usize = 4096;
    let reads_from = analysis.reads_from;
    let mut is_placed = vec![false; reads_from.len()];
    placed.iter().for_each(|&op| is_placed[op as usize] = true);
    let stuck: Vec<&Derived> = conflict
        .edges()
        .iter()
        .filter(|edge| !is_placed[edge.before as usize] && !is_placed[edge.after as usize])
        .take(EDGES_COMPARED_MAX)
        .collect();
    let before = |a: Op, b: Op| clocks.at_or_before(reads_from, a, b);
    for one in &stuck {
        for other in &stuck {
            if before(one.after, other.before) && before(other.after, one.before) {
                let mut around = vec![one.before, one.after, other.before, other.after];
                around.dedup();
                if around.len() > 1 && around.first() == around.last() {
                    around.pop();
                }
                return Some(around);
            }
        }
    }
    None
}
