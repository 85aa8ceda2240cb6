//! Vector clocks: who knows what of whom.
//!
//! Each operation gets a vector that says, for every session, how long a prefix of it lies in the operation's past (Mattern and
//! Fidge, 1988). "Is a before b" is then one look, whatever order the clocks were made of. What is left out: the
//! order in which to join them, which is [`order`](super::order)'s and [`saturate`](super::saturate)'s part.

use crate::budget::Budget;
use crate::reads_from::{Op, ReadsFrom};
use crate::verdict::{Exhausted, Limit};

/// For each operation, how long a prefix of each session is in its past (itself included).
///
/// Most operations learn nothing that the one before them in their session did not know, but for their own place. So
/// operations share rows: only one that something from another session was joined into has a row of its own, and the own
/// session's entry is never looked up in a row, because it is known.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    width: usize,
    /// The row of each operation; row 0 is all zeros.
    row: Vec<u32>,
    /// Rows, in chunks so that adding one never moves the others.
    chunks: Vec<Box<[u32]>>,
    rows: usize,
    /// For each row, the operation that may write into it: the one that it was made for, until another shares it.
    owner: Vec<u32>,
    scratch: Vec<u32>,
}

/// How many rows are allocated together.
const CHUNK_ROWS: usize = 1024;

/// The owner of a row that several operations share.
const NOBODY: u32 = u32::MAX;

impl Clocks {
    /// Empty pasts, if the budget's memory suffices for what they may grow to.
    pub fn zero(reads_from: &ReadsFrom, budget: &Budget) -> Result<Clocks, Exhausted> {
        let width = reads_from.sessions();
        let own_rows = reads_from.ops().filter(|&op| crosses(reads_from, op)).count();
        let bytes = own_rows.saturating_mul(width).saturating_mul(4);
        if bytes > budget.memory_max {
            let progress = format!(
                "vector clocks of {} operations and {width} sessions need {} MiB",
                reads_from.len(),
                bytes >> 20
            );
            return Err(Exhausted { limit: Limit::Memory, progress });
        }
        let mut clocks = Clocks {
            width,
            row: vec![0; reads_from.len()],
            chunks: Vec::new(),
            rows: 0,
            owner: Vec::new(),
            scratch: vec![0; width],
        };
        clocks.add_row(0, NOBODY);
        Ok(clocks)
    }

    /// How long a prefix of a session is in the past of an operation.
    pub fn seen(&self, reads_from: &ReadsFrom, op: Op, session: usize) -> u32 {
        if reads_from.session_of(op) == session {
            reads_from.position(op) + 1
        } else {
            self.row_of(op)[session]
        }
    }

    /// The whole clock of an operation.
    pub fn all(&self, reads_from: &ReadsFrom, op: Op) -> Vec<u32> {
        let mut clock = self.row_of(op).to_vec();
        clock[reads_from.session_of(op)] = reads_from.position(op) + 1;
        clock
    }

    /// Whether `a` is in the past of `b`, or is `b`.
    pub fn at_or_before(&self, reads_from: &ReadsFrom, a: Op, b: Op) -> bool {
        let session = reads_from.session_of(a);
        if session == reads_from.session_of(b) {
            a <= b
        } else {
            self.row_of(b)[session] > reads_from.position(a)
        }
    }

    /// Adds the past of `a` to that of `b`; whether that was news.
    pub fn join(&mut self, reads_from: &ReadsFrom, a: Op, b: Op) -> bool {
        let session = reads_from.session_of(a);
        if session == reads_from.session_of(b) {
            return a < b && self.join_rows(reads_from, a, b);
        }
        let place = reads_from.position(a) + 1;
        let mut news = self.join_rows(reads_from, a, b);
        if self.row_of(b)[session] < place {
            self.own_row(b)[session] = place;
            news = true;
        }
        news
    }

    /// Starts an operation from what the one before it in its session knows; whether that was news.
    pub fn follow(&mut self, reads_from: &ReadsFrom, op: Op) -> bool {
        let Some(previous) = reads_from.previous(op) else { return false };
        if self.row[previous as usize] == self.row[op as usize] {
            return false;
        }
        let own = reads_from.session_of(op);
        let (before, known) = (self.row_of(previous), self.row_of(op));
        let (mut news, mut all) = (false, true);
        for (session, (before, known)) in before.iter().zip(known).enumerate() {
            news |= before > known && session != own;
            all &= before >= known || session == own;
        }
        if all {
            // Nothing of its own: from now on they share, and neither may write for both.
            let row = self.row[previous as usize];
            self.row[op as usize] = row;
            self.owner[row as usize] = NOBODY;
            return news;
        }
        self.join_rows(reads_from, previous, op)
    }

    /// How much memory the rows take.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK_ROWS * self.width * 4
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.row.fill(0);
        self.rows = 1;
        self.owner.truncate(1);
    }

    fn row_of(&self, op: Op) -> &[u32] {
        let row = self.row[op as usize] as usize;
        &self.chunks[row / CHUNK_ROWS][row % CHUNK_ROWS * self.width..][..self.width]
    }

    fn row_mut(&mut self, op: Op) -> &mut [u32] {
        let row = self.row[op as usize] as usize;
        &mut self.chunks[row / CHUNK_ROWS][row % CHUNK_ROWS * self.width..][..self.width]
    }

    /// The operation's row, to write into: copied first where others share it, who must not learn by accident.
    fn own_row(&mut self, op: Op) -> &mut [u32] {
        let row = self.row[op as usize];
        if self.owner[row as usize] != op {
            self.row[op as usize] = self.add_row(row as usize, op);
        }
        self.row_mut(op)
    }

    fn add_row(&mut self, copied: usize, owner: u32) -> u32 {
        let number = self.rows;
        self.rows += 1;
        self.owner.truncate(number);
        self.owner.push(owner);
        if number / CHUNK_ROWS == self.chunks.len() {
            self.chunks.push(vec![0; CHUNK_ROWS * self.width].into_boxed_slice());
        }
        let place = |row: usize| (row / CHUNK_ROWS, row % CHUNK_ROWS * self.width);
        let ((chunk, at), (to_chunk, to)) = (place(copied), place(number));
        self.scratch.copy_from_slice(&self.chunks[chunk][at..at + self.width]);
        self.chunks[to_chunk][to..to + self.width].copy_from_slice(&self.scratch);
        number as u32
    }

    fn join_rows(&mut self, reads_from: &ReadsFrom, a: Op, b: Op) -> bool {
        let (from, into) = (self.row[a as usize], self.row[b as usize]);
        if from == into || from == 0 {
            return false;
        }
        let own = reads_from.session_of(b);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.copy_from_slice(self.row_of(a));
        // The own session's entry is known without a row, and would only look like news.
        scratch[own] = 0;
        let news = scratch.iter().zip(self.row_of(b)).any(|(from, into)| from > into);
        self.scratch = scratch;
        if news {
            // Getting an own row uses the scratch space, so what is joined is copied there again.
            self.own_row(b);
            let mut scratch = std::mem::take(&mut self.scratch);
            scratch.copy_from_slice(self.row_of(a));
            scratch[own] = 0;
            for (into, from) in self.row_mut(b).iter_mut().zip(&scratch) {
                *into = (*into).max(*from);
            }
            self.scratch = scratch;
        }
        news
    }
}

/// Whether an operation reads what another session wrote.
fn crosses(reads_from: &ReadsFrom, op: Op) -> bool {
    reads_from.source_write(op).is_some_and(|write| reads_from.session_of(write) != reads_from.session_of(op))
}
