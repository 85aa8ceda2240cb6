//! Saturation: from what the reads saw to every order between writes that follows.
//!
//! Two rules, for a read `r` of key `x` that saw the write `w`:
//!
//! - *earlier writes*: a write `v` of `x` that comes before `r` comes before `w` (or `r` would have seen `v`);
//! - *later writes*: a write `v` of `x` that comes after `w` comes after `r`.
//!
//! The first, over the causal past of one process's last operation and for that process's reads, is the happened-before
//! order `HB_o` of causal memory (POPL'17, section 5.3): the history is causal memory exactly when no such order
//! has a cycle, and no process sees a write to `x` before its own read of `x`'s initial value. Over all writes and one
//! process's reads it decides pipelined memory. Both, over everything, are the saturation that gradual
//! consistency checking (Zennou, Bouajjani, Enea, Erradi, CAV'19) does before any search for a sequential order: there a
//! cycle refutes, and the absence of one proves nothing yet. An initial value is a write before all others, so
//! "a write before a read of the initial value" is the same cycle with one node that need not be drawn.
//!
//! One pass visits the operations in a topological order, brings their clocks up to date and applies the first rule to reads
//! and the second to writes, each for a session's *last* earlier write of the key only, since program order
//! covers the rest. That is `O(n k log n)` for n operations of k sessions; passes repeat until one derives nothing. New
//! edges take effect on clocks at once, so that nearly all of them are found in the first pass, and an operation whose
//! clock has not changed since it was last looked at is passed over.

use crate::budget::{Budget, STEPS_BETWEEN_LOOKS};
use crate::causal::clocks::Clocks;
use crate::causal::order::*;
use crate::reads_from::{Op, ReadsFrom, Source};
use crate::verdict::Exhausted;

/// Which of the two rules are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// The first alone: complete for the reads of one session.
    EarlierWrites,
    /// Both.
    Both,
}

/// What the saturation worked with, and what it found.
pub struct Saturation<'a> {
    reads_from: &'a ReadsFrom,
    readers: &'a Readers,
    key_writes: &'a KeyWrites,
    /// The derived edges.
    pub extra: Extra,
    /// The clocks of the order so far; exact after [`Ending::Consistent`].
    pub clocks: Clocks,
    /// The order that the last pass visited the operations in.
    pub order: Vec<Op>,
    /// How many passes it took.
    pub passes: u32,
    /// Operations whose clock has changed since the rules were last applied to them.
    changed: Vec<bool>,
    /// For each key, the last read of its initial value in each session.
    initial_reads: Vec<Vec<Op>>,
    steps: u64,
}

/// How a saturation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No cycle: one pass derived nothing new.
    Consistent,
    /// A cycle, each operation before the next.
    Cycle(Vec<Op>),
    /// A read of the initial value after a write of its key.
    LateInitialRead {
        /// The read.
        read: Op,
        /// The write.
        write: Op,
    },
}

impl<'a> Saturation<'a> {
    /// Nothing derived yet.
    pub fn new(
        reads_from: &'a ReadsFrom,
        readers: &'a Readers,
        key_writes: &'a KeyWrites,
        budget: &Budget,
    ) -> Result<Saturation<'a>, Exhausted> {
        let mut initial_reads: Vec<Vec<Op>> = vec![Vec::new(); reads_from.keys()];
        for read in reads_from.ops().filter(|&op| reads_from.source(op) == Source::Initial) {
            let known = &mut initial_reads[reads_from.key(read) as usize];
            match known.last_mut() {
                Some(last) if reads_from.session_of(*last) == reads_from.session_of(read) => *last = read,
                _ => known.push(read),
            }
        }
        Ok(Saturation {
            changed: vec![true; reads_from.len()],
            initial_reads,
            reads_from,
            readers,
            key_writes,
            extra: Extra::new(reads_from.len()),
            clocks: Clocks::zero(reads_from, budget)?,
            order: Vec::with_capacity(reads_from.len()),
            passes: 0,
            steps: 0,
        })
    }

    /// Saturates the order of a view from scratch.
    pub fn run(&mut self, view: View, rules: Rules, budget: &Budget) -> Result<Ending, Exhausted> {
        self.extra.clear();
        self.clocks.clear();
        self.changed.fill(true);
        self.passes = 0;
        loop {
            let edges = self.extra.edges().len();
            let mut order = std::mem::take(&mut self.order);
            let acyclic = topological(self.reads_from, self.readers, &self.extra, view, &mut order);
            self.order = order;
            if acyclic.is_none() {
                return Ok(Ending::Cycle(cycle(self.reads_from, &self.extra, view, &self.order)));
            }
            self.passes += 1;
            if let Some(ending) = self.pass(view, rules, budget)? {
                return Ok(ending);
            }
            if self.extra.edges().len() == edges {
                return Ok(Ending::Consistent);
            }
        }
    }

    fn pass(&mut self, view: View, rules: Rules, budget: &Budget) -> Result<Option<Ending>, Exhausted> {
        for i in 0..self.order.len() {
            let op = self.order[i];
            self.steps += 1;
            if self.steps.is_multiple_of(STEPS_BETWEEN_LOOKS) {
                self.look(budget)?;
            }
            let news = advance(self.reads_from, &self.extra, view, &mut self.clocks, op);
            if !std::mem::replace(&mut self.changed[op as usize], false) && !news {
                continue;
            }
            if self.reads_from.reads(op)
                && view.explains(self.reads_from, op)
                && let Some(ending) = self.earlier_writes(view, op)
            {
                return Ok(Some(ending));
            }
            if rules == Rules::Both && self.reads_from.writes(op) {
                self.later_write(op);
            }
        }
        Ok(None)
    }

    fn look(&self, budget: &Budget) -> Result<(), Exhausted> {
        match budget.over(self.steps, self.clocks.bytes()) {
            None => Ok(()),
            Some(limit) => {
                let progress = format!(
                    "saturation was in pass {} over {} operations with {} derived edges",
                    self.passes,
                    self.order.len(),
                    self.extra.edges().len()
                );
                Err(Exhausted { limit, progress })
            }
        }
    }

    fn earlier_writes(&mut self, view: View, read: Op) -> Option<Ending> {
        let source = self.reads_from.source_write(read);
        for group in self.key_writes.groups(self.reads_from.key(read)) {
            let session = group.session as usize;
            let mut prefix = self.clocks.seen(self.reads_from, read, session);
            if session == self.reads_from.session_of(read) {
                prefix = prefix.min(self.reads_from.position(read));
            }
            match (self.reads_from.source(read), source) {
                (Source::Initial, _) => {
                    if let Some(write) = self.key_writes.last_within(self.reads_from, group, prefix) {
                        let write = self.first_before(view, group, prefix).unwrap_or(write);
                        return Some(Ending::LateInitialRead { read, write });
                    }
                }
                (_, Some(source)) => {
                    // What the source has seen of that session is before the source already.
                    if prefix <= self.clocks.seen(self.reads_from, source, session) {
                        continue;
                    }
                    let last = self.key_writes.last_within(self.reads_from, group, prefix);
                    if let Some(last) = last
                        && last != source
                        && !self.clocks.at_or_before(self.reads_from, last, source)
                    {
                        self.extra.push(Derived { before: last, after: source, because: read });
                        self.changed[source as usize] |= self.clocks.join(self.reads_from, last, source);
                    }
                }
                (_, None) => {}
            }
        }
        None
    }

    /// The first write of a group in the prefix: the shortest way to show that there is one.
    fn first_before(&self, view: View, group: &Group, prefix: u32) -> Option<Op> {
        let first = *self.key_writes.of_group(group).first()?;
        (view.contains(self.reads_from, first) && self.reads_from.position(first) < prefix).then_some(first)
    }

    /// The second rule, from the later write's side: who read the last write of a session before it comes before it, too.
    /// Reads of earlier writes of that session come before its last one by the same rule.
    fn later_write(&mut self, write: Op) {
        let key = self.reads_from.key(write);
        for group in self.key_writes.groups(key) {
            let session = group.session as usize;
            let own = session == self.reads_from.session_of(write);
            let prefix = if own {
                self.reads_from.position(write)
            } else {
                self.clocks.seen(self.reads_from, write, session)
            };
            let Some(last) = self.key_writes.last_within(self.reads_from, group, prefix) else { continue };
            for i in 0..self.readers.of_write(last).len() {
                let read = self.readers.of_write(last)[i];
                self.put_before(read, write);
            }
        }
        for i in 0..self.initial_reads[key as usize].len() {
            self.put_before(self.initial_reads[key as usize][i], write);
        }
    }

    fn put_before(&mut self, read: Op, write: Op) {
        if read != write && !self.clocks.at_or_before(self.reads_from, read, write) {
            self.extra.push(Derived { before: read, after: write, because: read });
            self.changed[write as usize] |= self.clocks.join(self.reads_from, read, write);
        }
    }
}
