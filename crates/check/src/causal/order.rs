//! Orders over a [`ReadsFrom`]: the causal order, extra edges on top of it, topological orders and cycles.
//!
//! "The causal order is the transitive closure of program order and reads-from, `co = (po ∪ rf)+`" (POPL'17, section 5).
//! It is never stored as a relation, but as vector [`clocks`](super::clocks). The same serve the happened-before orders of causal
//! memory and the saturated order of sequential consistency, which are the causal order plus [`Extra`] edges.

use crate::budget::Budget;
use crate::causal::clocks::Clocks;
use crate::reads_from::{Op, ReadsFrom};
use crate::verdict::Exhausted;

/// An edge that some rule derived: `before` must come before `after`, because of the read `because`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The earlier operation.
    pub before: Op,
    /// The later operation.
    pub after: Op,
    /// The read that forces it.
    pub because: Op,
}

const END: u32 = u32::MAX;

/// Edges on top of program order and reads-from, as linked lists by both ends.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    edges: Vec<Derived>,
    out_head: Vec<u32>,
    out_next: Vec<u32>,
    in_head: Vec<u32>,
    in_next: Vec<u32>,
}

impl Extra {
    /// No edges, for so many operations.
    pub fn new(operations: usize) -> Extra {
        Extra { out_head: vec![END; operations], in_head: vec![END; operations], ..Extra::default() }
    }

    /// Adds an edge.
    pub fn push(&mut self, edge: Derived) {
        let number = self.edges.len() as u32;
        self.edges.push(edge);
        self.out_next.push(std::mem::replace(&mut self.out_head[edge.before as usize], number));
        self.in_next.push(std::mem::replace(&mut self.in_head[edge.after as usize], number));
    }

    /// All edges, oldest first.
    pub fn edges(&self) -> &[Derived] {
        &self.edges
    }

    /// Forgets all edges.
    pub fn clear(&mut self) {
        self.edges.clear();
        self.out_next.clear();
        self.in_next.clear();
        self.out_head.fill(END);
        self.in_head.fill(END);
    }

    /// The edges that leave an operation.
    pub fn after(&self, op: Op) -> impl Iterator<Item = &Derived> {
        chain(&self.edges, &self.out_next, self.out_head[op as usize])
    }

    /// The edges that leave an operation and are older than the edge with this number.
    pub fn after_until(&self, op: Op, number: usize) -> impl Iterator<Item = (usize, &Derived)> {
        let mut at = self.out_head[op as usize];
        std::iter::from_fn(move || {
            while at as usize >= number && at != END {
                at = self.out_next[at as usize];
            }
            let found = (at as usize, self.edges.get(at as usize)?);
            at = self.out_next[at as usize];
            Some(found)
        })
    }

    /// The edges that enter an operation.
    pub fn before(&self, op: Op) -> impl Iterator<Item = &Derived> {
        chain(&self.edges, &self.in_next, self.in_head[op as usize])
    }
}

fn chain<'a>(edges: &'a [Derived], next: &'a [u32], head: u32) -> impl Iterator<Item = &'a Derived> {
    let mut at = head;
    std::iter::from_fn(move || {
        let edge = edges.get(at as usize)?;
        at = next[at as usize];
        Some(edge)
    })
}

/// Which reads-from edges count, and which operations take part.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    /// All operations, all reads: the causal order.
    Everything,
    /// All writes and the reads of one session: pipelined memory looks through one process's eyes.
    Pipelined {
        /// The session.
        session: usize,
    },
    /// The causal past of one session's last operation, given as its clock.
    Past {
        /// The session.
        session: usize,
        /// How long a prefix of each session takes part.
        prefix: &'a [u32],
    },
}

impl View<'_> {
    /// Whether an operation takes part.
    pub fn contains(&self, reads_from: &ReadsFrom, op: Op) -> bool {
        match self {
            View::Everything | View::Pipelined { .. } => true,
            View::Past { prefix, .. } => prefix[reads_from.session_of(op)] > reads_from.position(op),
        }
    }

    /// The write that comes before this operation because it read it, where that edge counts.
    pub fn source(&self, reads_from: &ReadsFrom, op: Op) -> Option<Op> {
        match self {
            View::Pipelined { session } if reads_from.session_of(op) != *session => None,
            _ => reads_from.source_write(op),
        }
    }

    /// Whether the rules that reads impose are applied to this read.
    pub fn explains(&self, reads_from: &ReadsFrom, op: Op) -> bool {
        match self {
            View::Everything => true,
            View::Pipelined { session } | View::Past { session, .. } => reads_from.session_of(op) == *session,
        }
    }
}

/// The reads of each write, as one flat array.
#[derive(Clone, Debug, Default)]
pub struct Readers {
    starts: Vec<u32>,
    readers: Vec<Op>,
}

impl Readers {
    /// Who read what.
    pub fn of(reads_from: &ReadsFrom) -> Readers {
        let mut starts = vec![0u32; reads_from.len() + 1];
        for write in reads_from.ops().filter_map(|op| reads_from.source_write(op)) {
            starts[write as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut fill = starts.clone();
        let mut readers = vec![0; *starts.last().unwrap_or(&0) as usize];
        for op in reads_from.ops() {
            if let Some(write) = reads_from.source_write(op) {
                readers[fill[write as usize] as usize] = op;
                fill[write as usize] += 1;
            }
        }
        Readers { starts, readers }
    }

    /// The reads of a write, ascending.
    pub fn of_write(&self, write: Op) -> &[Op] {
        &self.readers[self.starts[write as usize] as usize..self.starts[write as usize + 1] as usize]
    }
}

/// Every operation of the view after its predecessors, or `None` where they go round in a circle (then `order` holds
/// those that could be placed). Kahn's algorithm; operations whose turn comes at once are taken session by session in turn.
pub fn topological(
    reads_from: &ReadsFrom,
    readers: &Readers,
    extra: &Extra,
    view: View,
    order: &mut Vec<Op>,
) -> Option<()> {
    order.clear();
    let mut missing = vec![0u32; reads_from.len()];
    let mut taking_part = 0;
    for op in reads_from.ops().filter(|&op| view.contains(reads_from, op)) {
        taking_part += 1;
        let before = u32::from(reads_from.position(op) > 0)
            + u32::from(view.source(reads_from, op).is_some())
            + extra.before(op).count() as u32;
        missing[op as usize] = before;
        if before == 0 {
            order.push(op);
        }
    }
    let mut at = 0;
    while at < order.len() {
        let op = order[at];
        at += 1;
        let mut release = |after: Op| {
            if view.contains(reads_from, after) {
                missing[after as usize] -= 1;
                if missing[after as usize] == 0 {
                    order.push(after);
                }
            }
        };
        if let Some(next) = reads_from.next(op) {
            release(next);
        }
        for &reader in readers.of_write(op) {
            if view.source(reads_from, reader).is_some() {
                release(reader);
            }
        }
        for edge in extra.after(op) {
            release(edge.after);
        }
    }
    (order.len() == taking_part).then_some(())
}

/// The causal order's clocks with an order of all operations that agrees with them; or, where causality is cyclic, the
/// operations that could be placed.
pub type CausalOrder = Result<(Clocks, Vec<Op>), Vec<Op>>;

/// Computes the causal order.
pub fn causal_clocks(
    reads_from: &ReadsFrom,
    readers: &Readers,
    budget: &Budget,
) -> Result<CausalOrder, Exhausted> {
    let mut clocks = Clocks::zero(reads_from, budget)?;
    let mut order = Vec::with_capacity(reads_from.len());
    let none = Extra::new(reads_from.len());
    if topological(reads_from, readers, &none, View::Everything, &mut order).is_none() {
        return Ok(Err(order));
    }
    for &op in &order {
        advance(reads_from, &none, View::Everything, &mut clocks, op);
    }
    Ok(Ok((clocks, order)))
}

/// Brings an operation's clock up to its predecessors'; whether that changed it.
pub fn advance(reads_from: &ReadsFrom, extra: &Extra, view: View, clocks: &mut Clocks, op: Op) -> bool {
    let mut news = clocks.follow(reads_from, op);
    if let Some(write) = view.source(reads_from, op) {
        news |= clocks.join(reads_from, write, op);
    }
    for edge in extra.before(op) {
        news |= clocks.join(reads_from, edge.before, op);
    }
    news
}

/// A cycle among the operations that [`topological`] could not place, each before the next and the last before the first;
/// runs within one session are cut down to their two ends.
pub fn cycle(reads_from: &ReadsFrom, extra: &Extra, view: View, placed: &[Op]) -> Vec<Op> {
    let mut is_placed = vec![false; reads_from.len()];
    for &op in placed {
        is_placed[op as usize] = true;
    }
    let stuck = |op: &Op| view.contains(reads_from, *op) && !is_placed[*op as usize];
    let Some(start) = reads_from.ops().find(stuck) else { return Vec::new() };
    // Walking backwards through stuck operations must come round, because each has a stuck predecessor.
    let mut seen_at = vec![END; reads_from.len()];
    let mut path = vec![start];
    seen_at[start as usize] = 0;
    loop {
        let op = *path.last().expect("the path starts with one operation");
        let before = view
            .source(reads_from, op)
            .filter(&stuck)
            .or_else(|| extra.before(op).map(|edge| edge.before).find(&stuck))
            .or_else(|| reads_from.previous(op).filter(&stuck))
            .expect("what could not be placed waits for something that could not be placed");
        if seen_at[before as usize] != END {
            path.drain(..seen_at[before as usize] as usize);
            break;
        }
        seen_at[before as usize] = path.len() as u32;
        path.push(before);
    }
    path.reverse();
    let len = path.len();
    let inside_run = |i: usize| {
        let (a, b, c) = (path[(i + len - 1) % len], path[i], path[(i + 1) % len]);
        let same = |x: Op, y: Op| reads_from.next(x) == Some(y);
        len > 2 && same(a, b) && same(b, c)
    };
    (0..len).filter(|&i| !inside_run(i)).map(|i| path[i]).collect()
}

/// The writes of each key, session by session, in flat arrays.
#[derive(Clone, Debug, Default)]
pub struct KeyWrites {
    writes: Vec<Op>,
    groups: Vec<Group>,
    starts: Vec<u32>,
}

/// The writes of one session to one key.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The session.
    pub session: u32,
    from: u32,
    to: u32,
}

impl KeyWrites {
    /// Who writes what.
    pub fn of(reads_from: &ReadsFrom) -> KeyWrites {
        let mut writes: Vec<Op> = reads_from.ops().filter(|&op| reads_from.writes(op)).collect();
        // Operations are numbered session by session, so this groups by session too, in program order.
        writes.sort_by_key(|&op| (reads_from.key(op), op));
        let mut out = KeyWrites { starts: vec![0; reads_from.keys() + 1], ..KeyWrites::default() };
        let mut last = None;
        for (i, &op) in writes.iter().enumerate() {
            let place = (reads_from.key(op), reads_from.session_of(op) as u32);
            if last != Some(place) {
                out.groups.push(Group { session: place.1, from: i as u32, to: i as u32 });
                out.starts[place.0 as usize + 1] = out.groups.len() as u32;
                last = Some(place);
            }
            out.groups.last_mut().expect("a group was just opened").to += 1;
        }
        for i in 1..out.starts.len() {
            out.starts[i] = out.starts[i].max(out.starts[i - 1]);
        }
        out.writes = writes;
        out
    }

    /// One group for each session that writes the key.
    pub fn groups(&self, key: u32) -> &[Group] {
        &self.groups[self.starts[key as usize] as usize..self.starts[key as usize + 1] as usize]
    }

    /// How many groups there are over all keys.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// The numbers of a key's groups.
    pub fn group_numbers(&self, key: u32) -> std::ops::Range<usize> {
        self.starts[key as usize] as usize..self.starts[key as usize + 1] as usize
    }

    /// The number of the group that a write belongs to.
    pub fn group_of(&self, reads_from: &ReadsFrom, write: Op) -> usize {
        let key = reads_from.key(write);
        let session = reads_from.session_of(write) as u32;
        let within = self.groups(key).partition_point(|group| group.session < session);
        self.starts[key as usize] as usize + within
    }

    /// The writes of a group, in program order.
    pub fn of_group(&self, group: &Group) -> &[Op] {
        &self.writes[group.from as usize..group.to as usize]
    }

    /// The last write of a group within a prefix of its session.
    pub fn last_within(&self, reads_from: &ReadsFrom, group: &Group, prefix: u32) -> Option<Op> {
        let writes = self.of_group(group);
        let end = reads_from.session(group.session as usize).start + prefix;
        let count = writes.partition_point(|&write| write < end);
        count.checked_sub(1).map(|i| writes[i])
    }
}
