//! Pipelined memory (PRAM) and causal memory (CM): one order of its own for each process.
//!
//! "A history is causal memory if for each operation `o` there is an order of the writes in its causal past, and of the
//! operations before it in its session, that explains what those returned" (POPL'17, definition 3.3). Bad patterns, beside
//! those of weak causality: *CyclicHB* and *WriteHBInitRead*, on the happened-before order that [`saturate`](super::saturate)
//! computes. That order only grows along a session, so only the last operation of each session has to be looked at.
//!
//! Pipelined memory (Lipton and Sandberg, 1988) forgets what others read: "each process sees every other process's
//! writes in that one's order". The same saturation decides it, with only the process's own reads as reads-from edges.
//!
//! Cost: one saturation a session, `O(n k² log n)` in all for n operations of k sessions.

use crate::budget::Budget;
use crate::causal::Analysis;
use crate::causal::clocks::Clocks;
use crate::causal::order::*;
use crate::causal::saturate::{Ending, Rules, Saturation};
use crate::causal::unfold::unfold;
use crate::causal::violation::Found;
use crate::reads_from::{Op, ReadsFrom};
use crate::verdict::Exhausted;

/// Looks for the patterns of causal memory beyond those of weak causality, which must be absent.
pub(crate) fn causal_memory(analysis: &Analysis, budget: &Budget) -> Result<Option<Found>, Exhausted> {
    let reads_from = analysis.reads_from;
    let Ok((clocks, _)) = &analysis.causal else { return Ok(None) };
    let names = [
        "CyclicHB: no order of its own explains what this process read",
        "WriteHBInitRead: this process must have seen a write before it read the initial value",
    ];
    let mut saturation: Option<Saturation> = None;
    for session in 0..reads_from.sessions() {
        if !needs_order(analysis, clocks, session) {
            continue; // An empty session among them: it has no last operation.
        }
        let last = reads_from.session(session).end - 1;
        let saturation = match &mut saturation {
            Some(saturation) => saturation,
            none => none.insert(analysis.saturation(budget)?),
        };
        let prefix = clocks.all(reads_from, last);
        let view = View::Past { session, prefix: &prefix };
        let ending = saturation.run(view, Rules::EarlierWrites, budget)?;
        if ending != Ending::Consistent {
            return Ok(unfold(saturation, &analysis.readers, reads_from, view, &ending, names));
        }
    }
    Ok(None)
}

/// Whether some read of the session has an earlier write of its key in its past that is concurrent to what it saw.
/// If none has, the causal order explains the session as it stands, given that weak causality holds.
fn needs_order(analysis: &Analysis, clocks: &Clocks, session: usize) -> bool {
    let reads_from = analysis.reads_from;
    reads_from.session(session).any(|read| {
        reads_from.source_write(read).is_some_and(|source| {
            analysis.key_writes.groups(reads_from.key(read)).iter().any(|group| {
                let writer = group.session as usize;
                let mut prefix = clocks.seen(reads_from, read, writer);
                if writer == session {
                    prefix = prefix.min(reads_from.position(read));
                }
                prefix > clocks.seen(reads_from, source, writer)
                    && analysis.key_writes.last_within(reads_from, group, prefix).is_some_and(|write| {
                        write != source && !clocks.at_or_before(reads_from, write, source)
                    })
            })
        })
    })
}

/// Looks for the patterns of pipelined memory.
pub(crate) fn pipelined(analysis: &Analysis, budget: &Budget) -> Result<Option<Found>, Exhausted> {
    let reads_from = analysis.reads_from;
    let names = [
        "CyclicHB: this process saw the writes of another out of their order",
        "WriteHBInitRead: this process saw a later write of another, and then not an earlier one",
    ];
    let mut saturation: Option<Saturation> = None;
    let mut seen = vec![0u32; reads_from.sessions()];
    for session in 0..reads_from.sessions() {
        if looks_pipelined(analysis, session, &mut seen) {
            continue;
        }
        let saturation = match &mut saturation {
            Some(saturation) => saturation,
            none => none.insert(analysis.saturation(budget)?),
        };
        let view = View::Pipelined { session };
        let ending = saturation.run(view, Rules::EarlierWrites, budget)?;
        if ending != Ending::Consistent {
            return Ok(unfold(saturation, &analysis.readers, reads_from, view, &ending, names));
        }
    }
    Ok(None)
}

/// Whether program order and the session's own reads explain it as they stand: no read has an earlier write of its key in
/// its past but the one that it saw and those before it.
fn looks_pipelined(analysis: &Analysis, session: usize, seen: &mut [u32]) -> bool {
    let reads_from = analysis.reads_from;
    seen.fill(0);
    reads_from.session(session).all(|op| {
        let source = reads_from.source_write(op);
        if let Some(source) = source {
            let writer = reads_from.session_of(source);
            if writer == session && source >= op {
                return false;
            }
            seen[writer] = seen[writer].max(reads_from.position(source) + 1);
        }
        seen[session] = reads_from.position(op);
        let explained = !reads_from.reads(op) || explained(reads_from, analysis, op, source, seen);
        seen[session] += 1;
        explained
    })
}

fn explained(
    reads_from: &ReadsFrom,
    analysis: &Analysis,
    read: Op,
    source: Option<Op>,
    seen: &[u32],
) -> bool {
    analysis.key_writes.groups(reads_from.key(read)).iter().all(|group| {
        let newest = analysis.key_writes.last_within(reads_from, group, seen[group.session as usize]);
        newest.is_none_or(|newest| source.is_some_and(|source| newest == source))
    })
}
