//! The four session guarantees (Terry et al., PDIS 1994), told apart by which link of the chain broke.
//!
//! Terry et al. state them about servers' databases; a history only shows reads, so each is judged by the reads that no
//! server state could have given. Let `r` be a read of `x` by process p that saw `w` (perhaps the initial value), and let a
//! *newer* write be one that p must know to come after `w`. What p itself knows (`P`) is program order of all writes plus
//! p's own reads; what causality adds is `co = (po ∪ rf)+`.
//!
//! - *read your writes* fails when p's own last write of `x` before `r` is newer than `w` in `P`.
//! - *monotonic reads* fails when p had read a write of `x` before that is newer than `w` in `P`; or when p reads a value
//!   of `x` again after it had read another in between (no single order explains that).
//! - *monotonic writes* fails when another process's last write of `x` that p must have seen, because p saw a later
//!   write of that process, is newer than `w` in `P`, and p had not read it itself.
//! - *writes follow reads* fails when a newer write of `x` is in the causal past of `r`, but is in `P`'s past or newer in `P`
//!   only by way of what others had read before they wrote; or when causality is cyclic.
//!
//! So weak causality (CC) holds exactly when read-your-writes, monotonic writes, writes-follow-reads and the first half of
//! monotonic reads hold; pipelined memory (PRAM) implies the first three, and CM and CCv all four. As elsewhere
//! only each session's newest write in the past of a read is looked at: `O(n k log n)`.

use crate::causal::Analysis;
use crate::causal::patterns::{cyclic_causality, overwritten, shortest};
use crate::causal::violation::{Found, Step};
use crate::reads_from::{Op, ReadsFrom, Source};
use crate::verdict::Why;

/// What was found for each guarantee; `None` where it holds.
#[derive(Default)]
pub(super) struct Guarantees {
    pub(super) read_your_writes: Option<Found>,
    pub(super) monotonic_reads: Option<Found>,
    pub(super) monotonic_writes: Option<Found>,
    pub(super) writes_follow_reads: Option<Found>,
}

/// What one process has seen so far of each session, and when.
struct Eyes<'a> {
    reads_from: &'a ReadsFrom,
    session: usize,
    /// For each session: (own position, how long a prefix of it was seen from there on), ascending in both.
    seen: Vec<Vec<(u32, u32)>>,
}

impl Eyes<'_> {
    fn reset(&mut self, session: usize) {
        self.session = session;
        self.seen.iter_mut().for_each(Vec::clear);
    }

    /// How long a prefix of another session was seen; of the own one, what lies before the operation.
    fn prefix(&self, session: usize, read: Op) -> u32 {
        if session == self.session {
            self.reads_from.position(read)
        } else {
            self.seen[session].last().map_or(0, |&(_, prefix)| prefix)
        }
    }

    fn see(&mut self, at: Op, write: Op) {
        let session = self.reads_from.session_of(write);
        let prefix = self.reads_from.position(write) + 1;
        if session != self.session && self.seen[session].last().is_none_or(|&(_, known)| known < prefix) {
            self.seen[session].push((self.reads_from.position(at), prefix));
        }
    }

    /// The own operation whose read first showed this write or a later one of its session.
    fn first_sight(&self, write: Op) -> Option<Op> {
        let seen = &self.seen[self.reads_from.session_of(write)];
        let position = self.reads_from.position(write);
        let found = seen.get(seen.partition_point(|&(_, prefix)| prefix <= position))?;
        Some(self.reads_from.session(self.session).start + found.0)
    }

    /// The way from what was read to a newer write by what this process knows, if there is one.
    fn newer(&self, source: Source, newer: Op) -> Option<Vec<Step>> {
        let source = match source {
            Source::Initial => return Some(Vec::new()),
            Source::Write(source) => source,
            Source::Nothing | Source::ThinAir => return None,
        };
        let (of_source, of_newer) = (self.reads_from.session_of(source), self.reads_from.session_of(newer));
        if of_source == of_newer {
            return (source < newer).then(|| vec![Step { before: source, after: newer, why: Why::Session }]);
        }
        let sight = (of_newer == self.session).then(|| self.first_sight(source)).flatten()?;
        if sight > newer {
            return None;
        }
        let shown = self.reads_from.source_write(sight)?;
        let mut steps = Vec::new();
        if shown != source {
            steps.push(Step { before: source, after: shown, why: Why::Session });
        }
        steps.push(Step { before: shown, after: sight, why: Why::ReadsFrom });
        if sight != newer {
            steps.push(Step { before: sight, after: newer, why: Why::Session });
        }
        Some(steps)
    }
}

/// Judges all four guarantees.
pub(super) fn guarantees(analysis: &Analysis) -> Guarantees {
    let reads_from = analysis.reads_from;
    let mut out = Guarantees::default();
    if let Err(placed) = &analysis.causal {
        out.writes_follow_reads = Some(cyclic_causality(reads_from, placed));
    }
    let mut eyes = Eyes { reads_from, session: 0, seen: vec![Vec::new(); reads_from.sessions()] };
    let mut memory = Memory {
        read_at: vec![NEVER; reads_from.len()],
        last_read: vec![NEVER; reads_from.keys()],
        newest_read: vec![NEVER; analysis.key_writes.group_count()],
    };
    for session in 0..reads_from.sessions() {
        eyes.reset(session);
        for op in reads_from.session(session).filter(|&op| reads_from.reads(op)) {
            if let Some(source) = reads_from.source_write(op) {
                eyes.see(op, source);
            }
            own_writes(analysis, &eyes, op, &mut out);
            others_writes(analysis, &eyes, &memory, op, &mut out);
            own_reads(analysis, &eyes, &mut memory, op, &mut out);
            by_causality(analysis, &eyes, op, &mut out);
        }
    }
    out
}

const NEVER: Op = Op::MAX;

/// What the process under the glass has read itself. Entries of other sessions are told by their operations' session, so
/// that nothing has to be cleared.
struct Memory {
    /// For each write, the operation that last read it.
    read_at: Vec<Op>,
    /// For each key, the last operation that read it.
    last_read: Vec<Op>,
    /// For each session and key, the operation that read the newest write so far.
    newest_read: Vec<Op>,
}

impl Memory {
    /// An entry, if it is of this session.
    fn own(reads_from: &ReadsFrom, entry: Op, session: usize) -> Option<Op> {
        (entry != NEVER && reads_from.session_of(entry) == session).then_some(entry)
    }
}

fn own_writes(analysis: &Analysis, eyes: &Eyes, read: Op, out: &mut Guarantees) {
    let reads_from = analysis.reads_from;
    if out.read_your_writes.is_some() {
        return;
    }
    let groups = analysis.key_writes.groups(reads_from.key(read));
    let Ok(own) = groups.binary_search_by_key(&(eyes.session as u32), |group| group.session) else { return };
    let Some(newest) =
        analysis.key_writes.last_within(reads_from, &groups[own], eyes.prefix(eyes.session, read))
    else {
        return;
    };
    if let Some(mut steps) = eyes.newer(reads_from.source(read), newest) {
        steps.push(Step { before: newest, after: read, why: Why::Session });
        out.read_your_writes =
            Some(close(reads_from, steps, read, newest, "the process does not see its own write"));
    }
}

fn others_writes(analysis: &Analysis, eyes: &Eyes, memory: &Memory, read: Op, out: &mut Guarantees) {
    let reads_from = analysis.reads_from;
    if out.monotonic_writes.is_some() {
        return;
    }
    for group in analysis.key_writes.groups(reads_from.key(read)) {
        let session = group.session as usize;
        if session == eyes.session {
            continue;
        }
        let prefix = eyes.prefix(session, read);
        let Some(newest) = analysis.key_writes.last_within(reads_from, group, prefix) else { continue };
        if Memory::own(reads_from, memory.read_at[newest as usize], eyes.session).is_some() {
            continue;
        }
        if let Some(mut steps) = eyes.newer(reads_from.source(read), newest)
            && reads_from.source_write(read) != Some(newest)
            && let Some(sight) = eyes.first_sight(newest)
        {
            let shown = reads_from.source_write(sight).expect("a sight is a read of a write");
            steps.push(Step { before: newest, after: shown, why: Why::Session });
            steps.push(Step { before: shown, after: sight, why: Why::ReadsFrom });
            steps.push(Step { before: sight, after: read, why: Why::Session });
            let words = "the process sees a later write of another process, but not the earlier one";
            out.monotonic_writes = Some(close(reads_from, steps, read, newest, words));
            return;
        }
    }
}

fn own_reads(analysis: &Analysis, eyes: &Eyes, memory: &mut Memory, read: Op, out: &mut Guarantees) {
    let reads_from = analysis.reads_from;
    let key = reads_from.key(read) as usize;
    let source = reads_from.source_write(read);
    let own = |entry: Op| Memory::own(reads_from, entry, eyes.session);
    if out.monotonic_reads.is_none() {
        for group in analysis.key_writes.group_numbers(key as u32) {
            let Some(earlier) = own(memory.newest_read[group]) else { continue };
            let newest = reads_from.source_write(earlier).expect("kept for reads of writes");
            if Some(newest) == source {
                continue;
            }
            if let Some(mut steps) = eyes.newer(reads_from.source(read), newest) {
                steps.push(Step { before: newest, after: earlier, why: Why::ReadsFrom });
                steps.push(Step { before: earlier, after: read, why: Why::Session });
                let words = "the process sees an older value after a newer one";
                out.monotonic_reads = Some(close(reads_from, steps, read, newest, words));
                break;
            }
        }
        if out.monotonic_reads.is_none()
            && let Some(source) = source
            && let Some(first) = own(memory.read_at[source as usize])
            && let Some(between) = own(memory.last_read[key])
            && reads_from.source_write(between) != Some(source)
        {
            let steps = vec![
                Step { before: first, after: between, why: Why::Session },
                Step { before: between, after: read, why: Why::Session },
            ];
            let mut found =
                Found::of("the process reads a value again after it had read another in between", steps);
            found.add(&[source]);
            out.monotonic_reads = Some(found);
        }
    }
    if let Some(source) = source {
        memory.read_at[source as usize] = read;
        let group = analysis.key_writes.group_of(reads_from, source);
        let newest = own(memory.newest_read[group]).and_then(|earlier| reads_from.source_write(earlier));
        if newest.is_none_or(|newest| newest < source) {
            memory.newest_read[group] = read;
        }
    }
    memory.last_read[key] = read;
}

fn by_causality(analysis: &Analysis, eyes: &Eyes, read: Op, out: &mut Guarantees) {
    let reads_from = analysis.reads_from;
    let Ok((clocks, _)) = &analysis.causal else { return };
    if out.writes_follow_reads.is_some() {
        return;
    }
    for found in overwritten(reads_from, &analysis.key_writes, clocks, read) {
        let newer = found.newer;
        let known = reads_from.position(newer) < eyes.prefix(reads_from.session_of(newer), read);
        if known && eyes.newer(reads_from.source(read), newer).is_some() {
            continue;
        }
        let mut steps = match reads_from.source_write(read) {
            Some(source) => shortest(reads_from, clocks, source, newer),
            None => Vec::new(),
        };
        steps.extend(shortest(reads_from, clocks, newer, read));
        let words = "a write is seen, but not the one that its writer had read before";
        out.writes_follow_reads = Some(close(reads_from, steps, read, newer, words));
        return;
    }
}

fn close(reads_from: &ReadsFrom, mut steps: Vec<Step>, read: Op, newer: Op, words: &'static str) -> Found {
    steps.push(Step { before: read, after: newer, why: Why::Overwrites });
    let mut found = Found::of(words, steps);
    if let Some(source) = reads_from.source_write(read) {
        found.add(&[source]);
    }
    found
}
