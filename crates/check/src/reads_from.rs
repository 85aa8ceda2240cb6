//! The compact input of the causal and sequential checkers: sessions of reads and writes, and which write each read saw.
//!
//! "A history is differentiated if each value is written at most once; then the reads-from relation is a function of
//! the history" (Bouajjani, Enea, Guerraoui, Hamza, POPL'17, section 5). That relation, `rf`, and the program order `po`
//! are all that the bad-pattern algorithms look at, so a [`ReadsFrom`] keeps just these, in a few flat arrays: the
//! operations of one process lie side by side, so an operation's position in its session is a subtraction, and "is a
//! before b" is one comparison in a vector clock.
//!
//! Nothing is guessed. Only a value that some read *returned* has to be unique, so two equal writes that nobody read do
//! no harm; but where a read has two candidates the history is [`Undecidable`] for these algorithms. A read of a value
//! that nobody wrote is kept as [`Source::ThinAir`], which violates every level.
//!
//! What becomes of the other outcomes: what failed did not happen; a read whose answer is unknown says nothing; a write
//! of unknown fate did not happen if nobody read it (that is one of its possible fates, and the least demanding one) and
//! did happen if somebody did. In the latter case it may have taken effect after later operations of its process, so it
//! then forms a session of its own. A compare-and-set that failed its comparison only says what the value was *not*;
//! it is left out and counted in [`ReadsFrom::left_out`], and a level that holds without it is then not proven.
//!
//! Left out: operations on several keys at once, and models other than registers and keys with put, get and delete.

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

use crate::history::{Call, History, ModelKind, Operation, Outcome, Reply, Value};

/// An operation of a [`ReadsFrom`]: `0..len()`, session by session, in program order.
pub type Op = u32;

/// The largest number of operations: three numbers at the top are taken.
pub const OPERATIONS_MAX: usize = u32::MAX as usize - 3;

const NO_READ: u32 = u32::MAX;
const INITIAL: u32 = u32::MAX - 1;
const THIN_AIR: u32 = u32::MAX - 2;

/// What the read part of an operation saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operation does not read.
    Nothing,
    /// The value that was there before any write.
    Initial,
    /// A value that nobody wrote, or that only a failed write did.
    ThinAir,
    /// The value of this write.
    Write(Op),
}

/// Why the reads-from relation of a history cannot be told. Positions are those of the history's operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecidable {
    /// A read returned a value that more than one write wrote.
    Ambiguous {
        /// The read.
        read: u32,
        /// A write that it may have seen; `None`: the initial value.
        one: Option<u32>,
        /// Another one.
        other: u32,
    },
    /// An operation that is no read, write, delete or compare-and-set of one key.
    NotRegister {
        /// The operation.
        operation: u32,
    },
    /// More operations than [`OPERATIONS_MAX`].
    TooLong,
}

impl Undecidable {
    /// One sentence for people.
    pub fn words(&self, history: &History) -> String {
        match self {
            Undecidable::Ambiguous { read, one, other } => {
                let read = &history.operations[*read as usize];
                let value =
                    read_value(read).map_or_else(|| "a value".into(), |v| history.value(v).to_string());
                let key = history.key(read.key);
                let first = match one {
                    None => "as its initial value".to_string(),
                    Some(write) => format!("by operation {}", history.operations[*write as usize].id),
                };
                format!(
                    "a read of {key} returned {value}, which was written {first} and by operation {}: not decidable by an algorithm that needs to know which write was read",
                    history.operations[*other as usize].id
                )
            }
            Undecidable::NotRegister { operation } => format!(
                "operation {} is not a read, write, delete or compare-and-set of one key",
                history.operations[*operation as usize].id
            ),
            Undecidable::TooLong => format!("more than {OPERATIONS_MAX} operations"),
        }
    }
}

/// Sessions of reads and writes with known reads-from. See the module's text.
///
/// Invariants: `starts` ascends and covers all operations; the source of every read is a write of the same key.
#[derive(Clone, Debug, Default)]
pub struct ReadsFrom {
    starts: Vec<u32>,
    process: Vec<u32>,
    key: Vec<u32>,
    source: Vec<u32>,
    writes: Vec<bool>,
    origin: Vec<u32>,
    key_count: usize,
    left_out: usize,
}

impl ReadsFrom {
    /// The reads-from relation of a register or key-value history.
    ///
    /// ```
    /// use synod_check::reads_from::{ReadsFrom, Source};
    /// use synod_check::generate::Script;
    ///
    /// let history = Script::new().write("p", "x", 1).read("q", "x", 1).read("q", "y", 0).history();
    /// let reads_from = ReadsFrom::of(&history).unwrap();
    /// assert_eq!(reads_from.source(1), Source::Write(0));
    /// assert_eq!(reads_from.source(2), Source::Initial);
    /// ```
    pub fn of(history: &History) -> Result<ReadsFrom, Undecidable> {
        if history.operations.len() > OPERATIONS_MAX {
            return Err(Undecidable::TooLong);
        }
        let supported = matches!(history.model, ModelKind::Register | ModelKind::KeyValue);
        let candidates = Candidates::of(history);
        let mut sessions = Sessions::of(history, supported)?;
        sessions.drop_unread_unknowns(history, &candidates);
        sessions.lay_out(history, &candidates)
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.process.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.process.is_empty()
    }

    /// How many sessions there are: one a process, and one for each read write of unknown fate that was not its process's last.
    pub fn sessions(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.key_count
    }

    /// The operations of a session.
    pub fn session(&self, session: usize) -> std::ops::Range<Op> {
        self.starts[session]..self.starts[session + 1]
    }

    /// The session of an operation.
    pub fn session_of(&self, op: Op) -> usize {
        self.process[op as usize] as usize
    }

    /// How many operations of its session come before this one.
    pub fn position(&self, op: Op) -> u32 {
        op - self.starts[self.process[op as usize] as usize]
    }

    /// The operation before this one in its session.
    pub fn previous(&self, op: Op) -> Option<Op> {
        (self.position(op) > 0).then(|| op - 1)
    }

    /// The operation after this one in its session.
    pub fn next(&self, op: Op) -> Option<Op> {
        let next = op + 1;
        ((next as usize) < self.len() && self.process[next as usize] == self.process[op as usize])
            .then_some(next)
    }

    /// The key of an operation.
    pub fn key(&self, op: Op) -> u32 {
        self.key[op as usize]
    }

    /// What an operation's read part saw.
    pub fn source(&self, op: Op) -> Source {
        match self.source[op as usize] {
            NO_READ => Source::Nothing,
            INITIAL => Source::Initial,
            THIN_AIR => Source::ThinAir,
            write => Source::Write(write),
        }
    }

    /// The write that an operation's read part saw, if it was a write.
    pub fn source_write(&self, op: Op) -> Option<Op> {
        let source = self.source[op as usize];
        (source < THIN_AIR).then_some(source)
    }

    /// Whether an operation reads (a compare-and-set both reads and writes).
    pub fn reads(&self, op: Op) -> bool {
        self.source[op as usize] != NO_READ
    }

    /// Whether an operation writes.
    pub fn writes(&self, op: Op) -> bool {
        self.writes[op as usize]
    }

    /// The operation's position in the history that this was made of.
    pub fn origin(&self, op: Op) -> u32 {
        self.origin[op as usize]
    }

    /// The first read of a value that nobody wrote.
    pub fn thin_air(&self) -> Option<Op> {
        self.source.iter().position(|&s| s == THIN_AIR).map(|op| op as Op)
    }

    /// How many operations had to be left out although they say something (failed comparisons).
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// All operations.
    pub fn ops(&self) -> std::ops::Range<Op> {
        0..self.len() as Op
    }

    /// The history cut down to some operations, ascending. What violates a level after cutting violated it before, as
    /// long as every read keeps the write that it saw; so reads whose write is cut are dropped, with all that follows from that.
    ///
    /// Operation `i` of the result is the `i`-th kept one; its origin still points into the history.
    pub fn restricted(&self, keep: &[Op]) -> ReadsFrom {
        let kept = self.closed(keep);
        let number: HashMap<u32, u32, foldhash::fast::FixedState> =
            kept.iter().enumerate().map(|(i, &op)| (op, i as u32)).collect();
        let mut part = ReadsFrom { key_count: self.key_count, starts: vec![0], ..ReadsFrom::default() };
        let mut last_session = None;
        for &op in &kept {
            let session = self.process[op as usize];
            if last_session.is_some_and(|last| last != session) {
                part.starts.push(part.process.len() as u32);
            }
            last_session = Some(session);
            part.process.push(part.starts.len() as u32 - 1);
            part.key.push(self.key[op as usize]);
            let source = self.source[op as usize];
            part.source.push(if source < THIN_AIR { number[&source] } else { source });
            part.writes.push(self.writes[op as usize]);
            part.origin.push(self.origin[op as usize]);
        }
        part.starts.push(part.process.len() as u32);
        part
    }
}

impl ReadsFrom {
    /// The operations among these, ascending, that can stand without the others: a read goes when the write that it saw does.
    pub fn closed(&self, keep: &[Op]) -> Vec<Op> {
        let mut kept: Vec<Op> = keep.to_vec();
        let mut there: HashSet<u32, foldhash::fast::FixedState> = kept.iter().copied().collect();
        loop {
            let before = kept.len();
            kept.retain(|&op| {
                let stands = self.source_write(op).is_none_or(|write| there.contains(&write));
                if !stands {
                    there.remove(&op);
                }
                stands
            });
            if kept.len() == before {
                return kept;
            }
        }
    }

    /// These operations and the writes that they read, and what those read, ascending.
    pub fn with_sources(&self, ops: &[Op]) -> Vec<Op> {
        let mut all: Vec<Op> = ops.to_vec();
        let mut there: HashSet<u32, foldhash::fast::FixedState> = all.iter().copied().collect();
        let mut at = 0;
        while at < all.len() {
            if let Some(write) = self.source_write(all[at])
                && there.insert(write)
            {
                all.push(write);
            }
            at += 1;
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The value that an operation is known to have read: a read's answer, what a compare-and-set that succeeded expected.
pub(crate) fn read_value(operation: &Operation) -> Option<Value> {
    match (&operation.call, &operation.outcome) {
        (Call::Read, Outcome::Ok(Reply::Value(value))) => Some(*value),
        (Call::Cas { .. }, Outcome::Ok(Reply::Flag(false)) | Outcome::Failed) => None,
        // Of unknown fate: it is asked only when the write was read, so the comparison did hold.
        (Call::Cas { expected, .. }, _) => Some(*expected),
        _ => None,
    }
}

/// The writes that may have produced a value of a key: the first two suffice to see that it is not unique.
struct Candidates {
    initial: Value,
    writes: HashMap<(u32, u32), (u32, Option<u32>), foldhash::fast::FixedState>,
}

impl Candidates {
    fn of(history: &History) -> Candidates {
        let mut writes: HashMap<(u32, u32), (u32, Option<u32>), foldhash::fast::FixedState> =
            HashMap::default();
        for (i, operation) in history.operations.iter().enumerate() {
            let Some(value) = operation.value_written() else { continue };
            match writes.entry((operation.key.0, value.0)) {
                Entry::Occupied(mut known) => _ = known.get_mut().1.get_or_insert(i as u32),
                Entry::Vacant(new) => _ = new.insert((i as u32, None)),
            }
        }
        Candidates { initial: history.initial, writes }
    }

    /// The only write or initial value that the read at this position can have seen.
    fn source(&self, history: &History, read: u32, value: Value) -> Result<Source, Undecidable> {
        let key = history.operations[read as usize].key.0;
        let initial = value == self.initial;
        match self.writes.get(&(key, value.0)) {
            None if initial => Ok(Source::Initial),
            None => Ok(Source::ThinAir),
            Some(&(write, _)) if initial => Err(Undecidable::Ambiguous { read, one: None, other: write }),
            Some(&(write, Some(other))) => Err(Undecidable::Ambiguous { read, one: Some(write), other }),
            Some(&(write, None)) => Ok(Source::Write(write)),
        }
    }
}

/// The history's operations sorted into sessions, as positions.
struct Sessions {
    sessions: Vec<Vec<u32>>,
    left_out: usize,
}

impl Sessions {
    fn of(history: &History, supported: bool) -> Result<Sessions, Undecidable> {
        let mut sessions: Vec<Vec<u32>> = vec![Vec::new(); history.processes.len()];
        let mut left_out = 0;
        for (i, operation) in history.operations.iter().enumerate() {
            let register = supported
                && match (&operation.call, &operation.outcome) {
                    (Call::Read, Outcome::Ok(reply)) => matches!(reply, Reply::Value(_)),
                    (Call::Read | Call::Write(_) | Call::Cas { .. } | Call::Delete, _) => true,
                    _ => false,
                };
            if !register {
                return Err(Undecidable::NotRegister { operation: i as u32 });
            }
            match (&operation.call, &operation.outcome) {
                (_, Outcome::Failed) | (Call::Read, Outcome::Unknown) => {}
                (Call::Cas { .. }, Outcome::Ok(Reply::Flag(false))) => left_out += 1,
                _ => sessions[operation.process.0 as usize].push(i as u32),
            }
        }
        Ok(Sessions { sessions, left_out })
    }

    /// Writes of unknown fate: gone unless read; read ones that others of their process follow get a session each.
    fn drop_unread_unknowns(&mut self, history: &History, candidates: &Candidates) {
        let mut unknown: HashMap<u32, bool, foldhash::fast::FixedState> = HashMap::default();
        for (i, operation) in history.operations.iter().enumerate() {
            if operation.is_unknown() && operation.value_written().is_some() {
                unknown.insert(i as u32, false);
            }
        }
        if unknown.is_empty() {
            return;
        }
        // A compare-and-set of unknown fate that was read reads itself, so what was read is found from the sure ones on.
        let mut pending: Vec<u32> = (0..history.operations.len() as u32)
            .filter(|&i| history.operations[i as usize].is_ok())
            .collect();
        while let Some(i) = pending.pop() {
            let operation = &history.operations[i as usize];
            let Some(value) = read_value(operation) else { continue };
            let Some(&(first, second)) = candidates.writes.get(&(operation.key.0, value.0)) else { continue };
            for write in [Some(first), second].into_iter().flatten() {
                if let Some(seen) = unknown.get_mut(&write)
                    && !*seen
                {
                    *seen = true;
                    pending.push(write);
                }
            }
        }
        let mut detached = Vec::new();
        for session in &mut self.sessions {
            session.retain(|i| unknown.get(i) != Some(&false));
            let last = session.last().copied();
            session.retain(|i| {
                let stays = !unknown.contains_key(i) || Some(*i) == last;
                if !stays {
                    detached.push(vec![*i]);
                }
                stays
            });
        }
        self.sessions.extend(detached);
    }

    fn lay_out(self, history: &History, candidates: &Candidates) -> Result<ReadsFrom, Undecidable> {
        let mut out = ReadsFrom {
            key_count: history.keys.len(),
            left_out: self.left_out,
            starts: vec![0],
            ..ReadsFrom::default()
        };
        let mut number = vec![NO_READ; history.operations.len()];
        for session in self.sessions.iter().filter(|session| !session.is_empty()) {
            let process = out.starts.len() as u32 - 1;
            for &i in session {
                number[i as usize] = out.origin.len() as u32;
                out.origin.push(i);
                out.process.push(process);
                out.key.push(history.operations[i as usize].key.0);
                out.writes.push(history.operations[i as usize].value_written().is_some());
            }
            out.starts.push(out.origin.len() as u32);
        }
        for &i in &out.origin {
            out.source.push(match read_value(&history.operations[i as usize]) {
                None => NO_READ,
                Some(value) => match candidates.source(history, i, value)? {
                    Source::Initial => INITIAL,
                    Source::Write(write) => {
                        assert!(number[write as usize] != NO_READ, "a write that was read is kept");
                        number[write as usize]
                    }
                    Source::Nothing | Source::ThinAir => THIN_AIR,
                },
            });
        }
        Ok(out)
    }
}
