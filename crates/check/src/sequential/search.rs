//! The search for a sequential order, after saturation has said everything that it can: execution that learns.
//!
//! The search executes the sessions against one memory. What is forced is done at once: a read of the value that is there, a
//! write that nobody reads, a compare-and-set that is the last to need the value there. None of these takes a possibility away from
//! the others, so only the writes that somebody reads are choices, and they may only go over a value that nobody needs
//! any more. Choices are made in the order of the saturated graph, so that a history that agrees with it is executed without
//! ever turning back.
//!
//! Where nothing can go on, each session waits for another, and some of them wait round in a circle. A wait is either
//! forced, or it is there because a write `v` went first and its readers are not through, which keeps `w` from the same key.
//! So the circle says that some choices "v before w" cannot all stand: a *no-good*, true of the history whatever else was
//! chosen. It is learnt; the execution is taken back to before the latest of those choices; and from then on a write is
//! not chosen where it would complete a no-good, but waits for its `w`, for the reasons that the no-good's other choices
//! are. A circle without any choice in it shows that there is no order at all. This is conflict-driven clause learning, as in the
//! solvers that CAV'19 hands the rest to, with the waiting graph as the explanation of conflicts. It always ends: what
//! is learnt was not known before, and there are finitely many.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::budget::{Budget, STEPS_BETWEEN_LOOKS};
use crate::causal::order::{Extra, Readers};
use crate::reads_from::{Op, ReadsFrom, Source};
use crate::verdict::Exhausted;

/// How a search ended.
pub(crate) enum Ending {
    /// An order of everything.
    Order(Vec<Op>),
    /// There is none.
    Impossible,
}

/// No write yet, or not executed.
const NONE: u32 = u32::MAX;

/// "`first` went before `second`": two writes of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Pair {
    first: Op,
    second: Op,
}

/// One session waits for another, because of these choices.
#[derive(Clone, Debug)]
struct Wait {
    to: usize,
    because: Vec<Pair>,
}

/// The machine that executes the sessions.
struct Search<'a> {
    reads_from: &'a ReadsFrom,
    readers: &'a Readers,
    extra: &'a Extra,
    rank: &'a [u64],
    /// The next operation of each session.
    at: Vec<Op>,
    /// What each key holds.
    current: Vec<u32>,
    /// How many reads of each write, and of each key's initial value, are still to come.
    unread: Vec<u32>,
    unread_initial: Vec<u32>,
    /// The reads of initial values, by key.
    initial_readers: HashMap<u32, Vec<Op>, foldhash::fast::FixedState>,
    /// How many derived predecessors of each operation are still to come.
    missing: Vec<u32>,
    /// Everything executed, with what its key held before; and each operation's place in it.
    trail: Vec<(Op, u32)>,
    place: Vec<u32>,
    /// What was learnt, and where to find it: by each pair's first write.
    no_goods: Vec<Vec<Pair>>,
    no_goods_of: HashMap<Op, Vec<u32>, foldhash::fast::FixedState>,
    learnt_pairs: usize,
    /// Sessions that may be able to go on.
    awake: Vec<u32>,
    is_awake: Vec<bool>,
}

/// Searches for an order that respects the derived edges.
pub(crate) fn search(
    reads_from: &ReadsFrom,
    readers: &Readers,
    extra: &Extra,
    rank: &[u64],
    budget: &Budget,
) -> Result<Ending, Exhausted> {
    let mut search = Search::new(reads_from, readers, extra, rank);
    let (mut steps, mut looked, mut best) = (0u64, 0, 0);
    search.wake_all();
    loop {
        let before = search.trail.len();
        search.run_forced();
        steps += (search.trail.len() - before) as u64 + 1;
        best = best.max(search.trail.len());
        if steps - looked >= STEPS_BETWEEN_LOOKS {
            looked = steps;
            budget.watcher.progress("sequential search", best as u64, reads_from.len() as u64);
            let memory = search.learnt_pairs * 3 * size_of::<Pair>();
            if let Some(limit) = budget.over(steps, memory) {
                let progress = format!(
                    "the search placed at most {best} of {} operations and met {} contradictions",
                    reads_from.len(),
                    search.no_goods.len()
                );
                return Err(Exhausted { limit, progress });
            }
        }
        if search.trail.len() == reads_from.len() {
            return Ok(Ending::Order(search.trail.iter().map(|&(op, _)| op).collect()));
        }
        if let Some(next) = search.choice() {
            search.execute(next);
        } else {
            let contradiction = search.contradiction();
            // Back to before the latest of the choices that cannot all stand.
            let Some(latest) = contradiction.iter().map(|pair| search.place[pair.first as usize]).max()
            else {
                return Ok(Ending::Impossible);
            };
            steps += search.trail.len() as u64 - u64::from(latest);
            search.learn(contradiction);
            search.undo(latest as usize);
        }
    }
}

impl<'a> Search<'a> {
    fn new(reads_from: &'a ReadsFrom, readers: &'a Readers, extra: &'a Extra, rank: &'a [u64]) -> Search<'a> {
        let mut unread = vec![0; reads_from.len()];
        let mut unread_initial = vec![0; reads_from.keys()];
        let mut initial_readers: HashMap<u32, Vec<Op>, foldhash::fast::FixedState> = HashMap::default();
        for op in reads_from.ops() {
            match reads_from.source(op) {
                Source::Write(write) => unread[write as usize] += 1,
                Source::Initial => {
                    unread_initial[reads_from.key(op) as usize] += 1;
                    initial_readers.entry(reads_from.key(op)).or_default().push(op);
                }
                Source::Nothing | Source::ThinAir => {}
            }
        }
        Search {
            reads_from,
            readers,
            extra,
            rank,
            at: (0..reads_from.sessions()).map(|session| reads_from.session(session).start).collect(),
            current: vec![NONE; reads_from.keys()],
            unread,
            unread_initial,
            initial_readers,
            missing: reads_from.ops().map(|op| extra.before(op).count() as u32).collect(),
            trail: Vec::with_capacity(reads_from.len()),
            place: vec![NONE; reads_from.len()],
            no_goods: Vec::new(),
            no_goods_of: HashMap::default(),
            learnt_pairs: 0,
            awake: Vec::new(),
            is_awake: vec![false; reads_from.sessions()],
        }
    }

    fn wake_all(&mut self) {
        for session in 0..self.at.len() {
            self.wake(session);
        }
    }

    fn wake(&mut self, session: usize) {
        if !self.is_awake[session] {
            self.is_awake[session] = true;
            self.awake.push(session as u32);
        }
    }

    fn front(&self, session: usize) -> Option<Op> {
        let op = self.at[session];
        (op < self.reads_from.session(session).end).then_some(op)
    }

    fn unread_of_current(&self, key: u32) -> u32 {
        match self.current[key as usize] {
            NONE => self.unread_initial[key as usize],
            write => self.unread[write as usize],
        }
    }

    fn holds_source(&self, op: Op) -> bool {
        let current = self.current[self.reads_from.key(op) as usize];
        match self.reads_from.source(op) {
            Source::Nothing => true,
            Source::Initial => current == NONE,
            Source::ThinAir => false,
            Source::Write(write) => current == write,
        }
    }

    fn possible(&self, op: Op) -> bool {
        let own = u32::from(self.reads_from.reads(op));
        self.missing[op as usize] == 0
            && self.holds_source(op)
            && (!self.reads_from.writes(op) || self.unread_of_current(self.reads_from.key(op)) == own)
    }

    /// Whether doing this at once takes nothing away from the others.
    fn forced(&self, op: Op) -> bool {
        self.reads_from.reads(op) || self.unread[op as usize] == 0
    }

    fn run_forced(&mut self) {
        while let Some(session) = self.awake.pop() {
            self.is_awake[session as usize] = false;
            while let Some(op) = self.front(session as usize)
                && self.forced(op)
                && self.possible(op)
            {
                self.execute(op);
            }
        }
    }

    /// The write to go next: the first in rank of those that can.
    fn choice(&self) -> Option<Op> {
        let fronts = (0..self.at.len()).filter_map(|session| self.front(session));
        fronts
            .filter(|&op| self.possible(op) && self.forbidden(op).is_none())
            .min_by_key(|&op| self.rank[op as usize])
    }

    fn stands(&self, pair: Pair) -> bool {
        // A write that was not executed has the largest place.
        self.place[pair.first as usize] < self.place[pair.second as usize]
    }

    /// The no-good that this write would complete if it went now, and the write that it must wait for instead.
    fn forbidden(&self, write: Op) -> Option<(&[Pair], Op)> {
        let known = self.no_goods_of.get(&write)?;
        known.iter().find_map(|&number| {
            let no_good = &self.no_goods[number as usize];
            let own = no_good
                .iter()
                .find(|pair| pair.first == write && self.place[pair.second as usize] == NONE)?;
            let others_stand = no_good.iter().all(|pair| pair.first == write || self.stands(*pair));
            others_stand.then_some((no_good.as_slice(), own.second))
        })
    }

    fn learn(&mut self, no_good: Vec<Pair>) {
        let number = self.no_goods.len() as u32;
        self.learnt_pairs += no_good.len();
        for pair in &no_good {
            let known = self.no_goods_of.entry(pair.first).or_default();
            if known.last() != Some(&number) {
                known.push(number);
            }
        }
        self.no_goods.push(no_good);
    }

    fn execute(&mut self, op: Op) {
        let session = self.reads_from.session_of(op);
        let key = self.reads_from.key(op);
        self.place[op as usize] = self.trail.len() as u32;
        self.trail.push((op, self.current[key as usize]));
        self.at[session] = op + 1;
        self.wake(session);
        match self.reads_from.source(op) {
            Source::Write(write) => self.unread[write as usize] -= 1,
            Source::Initial => self.unread_initial[key as usize] -= 1,
            Source::Nothing | Source::ThinAir => {}
        }
        if self.reads_from.writes(op) {
            self.current[key as usize] = op;
            for &reader in self.readers.of_write(op) {
                self.wake_owner(reader);
            }
        }
        // A value that nobody needs any more may be overwritten, by whoever waits for that.
        if self.unread_of_current(key) <= 1 {
            self.wake_all();
        }
        for edge in self.extra.after(op) {
            self.missing[edge.after as usize] -= 1;
            if self.missing[edge.after as usize] == 0 {
                self.wake_owner(edge.after);
            }
        }
    }

    fn wake_owner(&mut self, op: Op) {
        let session = self.reads_from.session_of(op);
        if self.at[session] == op {
            self.wake(session);
        }
    }

    fn undo(&mut self, trail: usize) {
        while self.trail.len() > trail {
            let (op, held) = self.trail.pop().expect("longer than what it is cut to");
            let key = self.reads_from.key(op);
            self.place[op as usize] = NONE;
            if self.reads_from.writes(op) {
                self.current[key as usize] = held;
            }
            match self.reads_from.source(op) {
                Source::Write(write) => self.unread[write as usize] += 1,
                Source::Initial => self.unread_initial[key as usize] += 1,
                Source::Nothing | Source::ThinAir => {}
            }
            self.at[self.reads_from.session_of(op)] = op;
            for edge in self.extra.after(op) {
                self.missing[edge.after as usize] += 1;
            }
        }
        self.wake_all();
    }

    /// The choices of a waiting circle with few of them. Every session that is not finished waits, so there is a circle.
    fn contradiction(&self) -> Vec<Pair> {
        let waits: Vec<Vec<Wait>> = (0..self.at.len()).map(|session| self.waits(session)).collect();
        let mut best: Option<Vec<Pair>> = None;
        for start in 0..waits.len() {
            if let Some(circle) = circle_through(&waits, start)
                && best.as_ref().is_none_or(|best| circle.len() < best.len())
            {
                best = Some(circle);
            }
        }
        best.expect("every session that is not finished waits for one that is not finished")
    }

    /// What the next operation of a session waits for.
    fn waits(&self, session: usize) -> Vec<Wait> {
        let Some(op) = self.front(session) else { return Vec::new() };
        let mut waits: Vec<Wait> = Vec::new();
        let mut wait = |to: Op, because: Vec<Pair>| {
            if self.place[to as usize] == NONE && to != op {
                waits.push(Wait { to: self.reads_from.session_of(to), because });
            }
        };
        for edge in self.extra.before(op) {
            wait(edge.before, Vec::new());
        }
        if let Some(source) = self.reads_from.source_write(op) {
            wait(source, Vec::new());
        }
        if self.reads_from.writes(op) && self.holds_source(op) {
            let key = self.reads_from.key(op);
            let readers = match self.current[key as usize] {
                NONE => self.initial_readers.get(&key).map_or(&[][..], Vec::as_slice),
                write => self.readers.of_write(write),
            };
            for &reader in readers {
                wait(reader, self.went_first(op));
            }
        }
        if let Some((no_good, instead)) = self.forbidden(op) {
            wait(instead, no_good.iter().filter(|pair| pair.first != op).copied().collect());
        }
        waits
    }

    /// The choice that put what a key holds before this write, if it was one.
    fn went_first(&self, op: Op) -> Vec<Pair> {
        if self.reads_from.reads(op) {
            // It reads what is there, so the other readers have to go before it anyway.
            return Vec::new();
        }
        let mut first = self.current[self.reads_from.key(op) as usize];
        // A compare-and-set follows what it read at once: the choice was about the plain write at the root.
        while first != NONE && self.reads_from.reads(first) {
            first = self.reads_from.source_write(first).unwrap_or(NONE);
        }
        if first == NONE { Vec::new() } else { vec![Pair { first, second: op }] }
    }
}

/// The choices of a circle through one session, found breadth first by their number.
fn circle_through(waits: &[Vec<Wait>], start: usize) -> Option<Vec<Pair>> {
    let mut cost = vec![usize::MAX; waits.len()];
    let mut came: Vec<Option<(usize, usize)>> = vec![None; waits.len()];
    let mut queue = VecDeque::from([(0, start)]);
    let mut closing: Option<(usize, usize, usize)> = None;
    while let Some((so_far, session)) = queue.pop_front() {
        if session != start && cost[session] < so_far {
            continue;
        }
        for (number, wait) in waits[session].iter().enumerate() {
            let total = so_far + wait.because.len();
            if wait.to == start {
                if closing.is_none_or(|(known, ..)| total < known) {
                    closing = Some((total, session, number));
                }
            } else if total < cost[wait.to] {
                cost[wait.to] = total;
                came[wait.to] = Some((session, number));
                if wait.because.is_empty() {
                    queue.push_front((total, wait.to))
                } else {
                    queue.push_back((total, wait.to))
                }
            }
        }
    }
    let (_, mut session, mut number) = closing?;
    let mut pairs = Vec::new();
    loop {
        pairs.extend(&waits[session][number].because);
        if session == start {
            break;
        }
        (session, number) = came[session].expect("every session on the way was come to");
    }
    pairs.sort_unstable();
    pairs.dedup();
    Some(pairs)
}
