//! From an order of each key's writes to one order of everything.
//!
//! A history is sequentially consistent exactly when the writes of each key can be put in an order `ww` such that program
//! order, reads-from, `ww`, and from each read to the next write of its key, have no cycle together; any topological
//! order of that graph is then the order that Lamport asks for. Once `ww` is proposed this takes linear time, so it
//! is tried with orders that are likely to be right (that of the saturated graph, that of the clock) before any search.

use crate::causal::order::{Derived, Extra, Readers, View, topological};
use crate::reads_from::{Op, ReadsFrom, Source};

/// The order of everything in which the writes of each key come in order of rank, if there is one.
pub(crate) fn by_rank(reads_from: &ReadsFrom, readers: &Readers, rank: &[u64]) -> Option<Vec<Op>> {
    let mut writes: Vec<Op> = reads_from.ops().filter(|&op| reads_from.writes(op)).collect();
    writes.sort_by_key(|&op| (reads_from.key(op), rank[op as usize], op));
    let mut first: Vec<Option<Op>> = vec![None; reads_from.keys()];
    let mut extra = Extra::new(reads_from.len());
    let mut later: Vec<Option<Op>> = vec![None; reads_from.len()];
    for (i, &write) in writes.iter().enumerate() {
        let key = reads_from.key(write);
        first[key as usize].get_or_insert(write);
        if let Some(&next) = writes.get(i + 1)
            && reads_from.key(next) == key
        {
            later[write as usize] = Some(next);
            extra.push(Derived { before: write, after: next, because: next });
        }
    }
    for read in reads_from.ops() {
        let next = match reads_from.source(read) {
            Source::Nothing => continue,
            Source::ThinAir => return None,
            Source::Initial => first[reads_from.key(read) as usize],
            Source::Write(source) => later[source as usize],
        };
        if let Some(next) = next.filter(|&next| next != read) {
            extra.push(Derived { before: read, after: next, because: read });
        }
    }
    let mut order = Vec::with_capacity(reads_from.len());
    topological(reads_from, readers, &extra, View::Everything, &mut order)?;
    Some(order)
}
