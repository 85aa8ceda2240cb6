//! Giving back the memory of compacted versions, in small steps between other work.
//!
//! A compaction takes effect at once; here its versions are removed. First the index is swept, key by key: versions that
//! are gone leave their slot, and their bytes are counted as dead in their chunk. Then chunks of which half is dead are
//! replaced, in their place, by one chunk of what still lives in them. How far this has come is nobody's business but
//! this replica's: no answer depends on it.

use std::ops::Bound;

use crate::arena::{Arena, At, CHUNK_BYTES};
use crate::mvcc::Mvcc;
use crate::slot::Trimmed;

/// How many neighbouring chunks are replaced by one at a time, at most.
const RUN_MAX: usize = 8;

/// Where removal stands.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    phase: Phase,
    /// A compaction came while the index was being swept: sweep once more.
    again: bool,
    /// Dead bytes by chunk.
    dead: Vec<usize>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// Sweeping the index; everything up to this key is done.
    Sweep(Option<Box<[u8]>>),
    /// Replacing chunks, from this position of the history on.
    Replace(usize),
}

impl Scrub {
    /// A compaction was applied.
    pub(crate) fn begin(&mut self) {
        match self.phase {
            Phase::Sweep(_) => self.again = true,
            _ => self.phase = Phase::Sweep(None),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// One step: looks at `budget` keys, or replaces one run of chunks. True when more is to be done.
    pub(crate) fn step(&mut self, mvcc: &mut Mvcc, budget: usize) -> bool {
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Sweep(done) => {
                let done = done.take();
                self.phase = match self.sweep(mvcc, done, budget.max(1)) {
                    Some(reached) => Phase::Sweep(Some(reached)),
                    None if std::mem::take(&mut self.again) => Phase::Sweep(None),
                    None => Phase::Replace(0),
                };
            }
            Phase::Replace(position) => {
                let position = *position;
                self.phase = match self.replace(mvcc, position) {
                    Some(next) => Phase::Replace(next),
                    None => Phase::Idle,
                };
            }
        }
        !self.is_idle()
    }

    /// Sweeps keys above `done`; gives how far it came, unless it came to the end.
    fn sweep(&mut self, mvcc: &mut Mvcc, done: Option<Box<[u8]>>, budget: usize) -> Option<Box<[u8]>> {
        let view = &mut mvcc.view;
        let from = match &done {
            Some(key) => view.index.lower_bound(&view.arena, Bound::Excluded(key)),
            None => view.index.first(),
        };
        let mut last = None;
        let mut seen = 0;
        let mut work = Vec::new();
        for (place, slot) in view.index.slots(from, view.index.end()).take(budget) {
            seen += 1;
            last = Some(slot.head);
            if slot.older.is_some() || slot.head.is_tombstone() {
                work.push(place);
            }
        }
        let reached =
            (seen == budget).then(|| last.map(|at| Box::from(view.arena.record(at).key()))).flatten();
        // From the back, so that removing a slot does not move the places that are still to come.
        for place in work.into_iter().rev() {
            let slot = view.index.slot(place);
            if slot.doomed(&view.arena, view.compacted) == 0 {
                continue;
            }
            let (arena, dead, compacted) = (&view.arena, &mut self.dead, view.compacted);
            view.index.rework(place, |slot| slot.trim(arena, compacted, |at| bury(dead, arena, at)));
        }
        reached
    }

    /// Replaces the first run of mostly dead chunks at or after a position; gives where to go on.
    fn replace(&mut self, mvcc: &mut Mvcc, position: usize) -> Option<usize> {
        let arena = &mvcc.view.arena;
        for start in position..arena.sealed() {
            let (first, chunk) = arena.chunk_at(start);
            let mut live = self.live(first, chunk.len());
            if live > worth_moving(chunk.len()) && chunk.len() > CHUNK_BYTES / 8 {
                continue;
            }
            let mut end = start + 1;
            while end < arena.sealed() && end - start < RUN_MAX {
                let (next, chunk) = arena.chunk_at(end);
                let more = self.live(next, chunk.len());
                if more > worth_moving(chunk.len()) || live + more > CHUNK_BYTES {
                    break;
                }
                live += more;
                end += 1;
            }
            let nothing_dead = self.dead.get(first as usize).is_none_or(|dead| *dead == 0);
            if end == start + 1 && nothing_dead {
                continue;
            }
            self.move_run(mvcc, start, end);
            // The chunk that came into being may take its successors in, too: but only at the next compaction.
            return Some(start + 1);
        }
        None
    }

    fn live(&self, chunk: u32, bytes: usize) -> usize {
        bytes - self.dead.get(chunk as usize).copied().unwrap_or(0).min(bytes)
    }

    fn move_run(&mut self, mvcc: &mut Mvcc, start: usize, end: usize) {
        let run: Vec<_> = (start..end).map(|position| mvcc.view.arena.chunk_at(position)).collect();
        let view = &mut mvcc.view;
        view.arena.begin_move();
        for (id, chunk) in &run {
            let all_dead = self.live(*id, chunk.len()) == 0;
            for (at, record, raw) in Arena::records_of(*id, chunk) {
                if all_dead {
                    break;
                }
                let Ok(place) = view.index.find(&view.arena, record.key()) else { continue };
                let main = record.main();
                if !view.index.slot(place).holds(at, main) {
                    continue;
                }
                let moved = view.arena.move_record(&record, raw);
                view.index.rework(place, |slot| {
                    slot.relocate(at, moved, main);
                    Trimmed::Kept
                });
            }
            if let Some(dead) = self.dead.get_mut(*id as usize) {
                *dead = 0;
            }
        }
        view.arena.end_move(start..end);
    }
}

/// A chunk is replaced when no more than this lives in it: half. So memory is at most twice what is kept, usually far less,
/// and each record that goes costs the moving of at most one other, which is dearer than writing it was.
fn worth_moving(bytes: usize) -> usize {
    bytes / 2
}

fn bury(dead: &mut Vec<usize>, arena: &Arena, at: At) {
    let chunk = at.chunk() as usize;
    if dead.len() <= chunk {
        dead.resize(chunk + 1, 0);
    }
    dead[chunk] += arena.record(at).raw_len();
}
