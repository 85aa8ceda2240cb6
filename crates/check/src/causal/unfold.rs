//! From a cycle of derived edges back to the operations that force it.
//!
//! A derived edge `v -> w` holds because of a read of `w` that has `v` in its past. That past may itself lean on older
//! derived edges, and so on down to program order and reads-from. Unfolding finds for each edge a way that is short in
//! operations and uses older edges only, which existed when the edge was derived, so that it ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::{HashMap, HashSet};

use crate::causal::order::*;
use crate::causal::saturate::{Ending, Saturation};
use crate::causal::violation::{Found, Step};
use crate::reads_from::{Op, ReadsFrom};
use crate::verdict::Why;

/// How many operations all the searches together may visit; beyond that the pattern is reported without its justification,
/// and whoever shrinks it starts from the whole history.
const VISITS_MAX: usize = 8_000_000;

struct Unfold<'a> {
    reads_from: &'a ReadsFrom,
    readers: &'a Readers,
    extra: &'a Extra,
    view: View<'a>,
    visits: usize,
    pending: Vec<usize>,
    known: HashSet<usize, foldhash::fast::FixedState>,
}

/// The pattern that a saturation ended with, with everything that it rests on.
pub(crate) fn unfold(
    saturation: &Saturation,
    readers: &Readers,
    reads_from: &ReadsFrom,
    view: View,
    ending: &Ending,
    names: [&'static str; 2],
) -> Option<Found> {
    let mut unfold = Unfold {
        reads_from,
        readers,
        extra: &saturation.extra,
        view,
        visits: 0,
        pending: Vec::new(),
        known: HashSet::default(),
    };
    let all = saturation.extra.edges().len();
    let mut found = match ending {
        Ending::Consistent => return None,
        Ending::Cycle(around) => {
            let mut steps = Vec::new();
            for i in 0..around.len() {
                steps.extend(unfold.direct(around[i], around[(i + 1) % around.len()]));
            }
            Found::of(names[0], steps)
        }
        Ending::LateInitialRead { read, write } => {
            let mut steps = unfold.way(*write, *read, all).unwrap_or_default();
            steps.push(Step { before: *read, after: *write, why: Why::Overwrites });
            let mut found = Found::of(names[1], steps);
            found.add(&[*read, *write]);
            found
        }
    };
    while let Some(number) = unfold.pending.pop() {
        let edge = saturation.extra.edges()[number];
        found.add(&[edge.before, edge.after, edge.because]);
        if edge.before == edge.because {
            // The second rule: the later write comes after the read's source.
            if let Some(source) = reads_from.source_write(edge.because) {
                found.justify(unfold.way(source, edge.after, number).unwrap_or_default());
            }
        } else {
            found.justify(unfold.way(edge.before, edge.because, number).unwrap_or_default());
            found.justify(vec![Step { before: edge.after, after: edge.because, why: Why::ReadsFrom }]);
        }
    }
    Some(found)
}

impl Unfold<'_> {
    fn use_edge(&mut self, number: usize) {
        if self.known.insert(number) {
            self.pending.push(number);
        }
    }

    /// The step between neighbours of a cycle.
    fn direct(&mut self, before: Op, after: Op) -> Vec<Step> {
        let same_session = self.reads_from.session_of(before) == self.reads_from.session_of(after);
        let why = if self.view.source(self.reads_from, after) == Some(before) {
            Why::ReadsFrom
        } else if same_session && before < after {
            Why::Session
        } else {
            let edge =
                self.extra.after_until(before, usize::MAX).filter(|(_, edge)| edge.after == after).last();
            let Some((number, edge)) = edge else { return Vec::new() };
            let overwrites = edge.before == edge.because;
            self.use_edge(number);
            if overwrites { Why::Overwrites } else { Why::WriteOrder }
        };
        vec![Step { before, after, why }]
    }

    /// A way from one operation to another over edges older than `number`, with few changes of session and few derived edges.
    fn way(&mut self, from: Op, to: Op, number: usize) -> Option<Vec<Step>> {
        const CROSSING: u32 = 2;
        const DERIVED: u32 = 5;
        let mut best: HashMap<Op, (u32, Op, usize), foldhash::fast::FixedState> = HashMap::default();
        let mut queue = BinaryHeap::new();
        let none = usize::MAX;
        best.insert(from, (0, from, none));
        queue.push(Reverse((0, from)));
        while let Some(Reverse((cost, op))) = queue.pop() {
            if op == to {
                break;
            }
            if best[&op].0 < cost {
                continue;
            }
            self.visits += 1;
            if self.visits > VISITS_MAX {
                return None;
            }
            let mut reach = |after: Op, cost: u32, edge: usize| {
                if self.view.contains(self.reads_from, after)
                    && best.get(&after).is_none_or(|&(known, ..)| cost < known)
                {
                    best.insert(after, (cost, op, edge));
                    queue.push(Reverse((cost, after)));
                }
            };
            if let Some(next) = self.reads_from.next(op) {
                reach(next, cost, none);
            }
            for &reader in self.readers.of_write(op) {
                if self.view.source(self.reads_from, reader).is_some() {
                    reach(reader, cost + CROSSING, none);
                }
            }
            for (edge_number, edge) in self.extra.after_until(op, number) {
                reach(edge.after, cost + DERIVED, edge_number);
            }
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut at = to;
        while at != from {
            let &(_, before, edge) = best.get(&at)?;
            let why = if edge != none {
                self.use_edge(edge);
                let derived = self.extra.edges()[edge];
                if derived.before == derived.because { Why::Overwrites } else { Why::WriteOrder }
            } else if self.reads_from.next(before) == Some(at) {
                Why::Session
            } else {
                Why::ReadsFrom
            };
            match steps.last_mut() {
                // Runs within a session are one step.
                Some(last) if why == Why::Session && last.why == Why::Session => last.before = before,
                _ => steps.push(Step { before, after: at, why }),
            }
            at = before;
        }
        steps.reverse();
        Some(steps)
    }
}
