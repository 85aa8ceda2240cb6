//! The search for a linearization, for any model: Wing and Gong's, as Lowe and Horn and Kroening improved it.
//!
//! A configuration is how many completions lie behind us, which of the open operations have been placed, and the
//! model's state. From it any open operation may be placed next that the model allows; when the operation whose
//! completion comes next has been placed, the completion is behind us. The history is linearizable exactly when all
//! completions can be put behind us (Wing and Gong, JPDC 1993). A configuration met before is not entered again
//! (Lowe, 2017): the open operations are a bit mask over reused slots rather than over the whole history, and states
//! are interned, so that one takes some twenty bytes and not a bit for each operation.
//!
//! Four rules cut branches that cannot matter; each keeps at least one linearization if there is any:
//! 1. an operation that only reads, and agrees with the state, is placed at once: moving it to the front changes nothing;
//! 2. operations of unknown outcome that ask the same are used in order of invocation: the earlier one can stand for the later;
//! 3. one of unknown outcome is not placed if the next operation leads to the same state without it;
//! 4. one of unknown outcome that only reads is never placed.
//!
//! And one looks ahead: a state that cannot come to agree with the next read to complete, unless by an operation that is
//! already spent, is a dead end ([`Model::can_lead_to`], [`Model::resets_to`]).
//!
//! A search that is not over after 200,000 steps goes on in `parallel.rs`, if there are threads for it.
//!
//! Complexity: exponential in the number of operations open at once, linear in the length for a fixed number.

use std::hash::BuildHasher;

use hashbrown::{HashMap, HashTable};

use crate::budget::{Budget, STEPS_BETWEEN_LOOKS};
use crate::history::Time;
use crate::model::Model;
use crate::verdict::Limit;

use super::parallel::{self, Common};
use super::plan::Plan;
use super::states::{NONE, States};

/// One operation, as the search sees it.
pub struct Entry<'a, M: Model> {
    /// What was asked.
    pub call: &'a M::Call,
    /// What was answered; `None` for an unknown outcome.
    pub reply: Option<&'a M::Reply>,
    /// When it was called.
    pub invoked: Time,
    /// When it was answered; [`NEVER`](crate::history::NEVER) for an unknown outcome, which need not take effect at all.
    pub completed: Time,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// An order of entries (indexes) that explains the history.
    Linearization(Vec<u32>),
    /// There is none. `stuck`: the completion that no order gets past; `open`: the entries open then, `stuck` included.
    None {
        /// The entry whose completion could not be passed.
        stuck: u32,
        /// The entries open at that moment.
        open: Vec<u32>,
        /// The longest order found before it.
        longest: Vec<u32>,
    },
    /// A budget ran out, with this many of all completions behind us at best.
    Exhausted {
        /// Which.
        limit: Limit,
        /// Completions passed at best.
        passed: usize,
        /// All completions.
        all: usize,
    },
}

/// At most so many operations open at once (512 of them of unknown outcome would be an odd history, and hopeless).
pub const OPEN_MAX: usize = 1024;

/// Looks for a linearization of `entries`, which must be sorted by invocation.
pub fn search<M: Model>(model: &M, entries: &[Entry<'_, M>], budget: &Budget<'_>) -> Search {
    search_alone_for(STEPS_ALONE_MAX, model, entries, budget)
}

/// After so many steps on one thread the budget's other threads join in: less is over before they would have begun.
pub(super) const STEPS_ALONE_MAX: u64 = 200_000;

/// The search, on one thread for `alone` steps and on as many as the budget allows from then on.
pub(super) fn search_alone_for<M: Model>(
    alone: u64,
    model: &M,
    entries: &[Entry<'_, M>],
    budget: &Budget<'_>,
) -> Search {
    let plan = Plan::new(model, entries);
    match plan.slots {
        0..=64 => Searcher::<M, 1>::new(model, entries, &plan).run(alone, budget),
        65..=128 => Searcher::<M, 2>::new(model, entries, &plan).run(alone, budget),
        129..=256 => Searcher::<M, 4>::new(model, entries, &plan).run(alone, budget),
        257..=OPEN_MAX => Searcher::<M, 16>::new(model, entries, &plan).run(alone, budget),
        _ => Search::Exhausted { limit: Limit::Memory, passed: 0, all: plan.returns.len() },
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Configuration<const W: usize> {
    level: u32,
    state: u32,
    /// The state before the last operation, if its outcome is unknown (rule 3), else `NONE`.
    before: u32,
    placed: [u64; W],
}

impl<const W: usize> Configuration<W> {
    fn has(&self, slot: u16) -> bool {
        self.placed[slot as usize / 64] & (1 << (slot % 64)) != 0
    }

    fn set(&mut self, slot: u16) {
        self.placed[slot as usize / 64] |= 1 << (slot % 64);
    }

    fn clear(&mut self, slot: u16) {
        self.placed[slot as usize / 64] &= !(1 << (slot % 64));
    }
}

impl<const W: usize> Frame<W> {
    /// Whether it has branches that nobody has gone into.
    pub(super) fn is_open(&self, plan: &Plan) -> bool {
        (self.branch as usize) < plan.branches(self.at.level)
    }
}

/// A configuration that is being branched from.
pub(super) struct Frame<const W: usize> {
    at: Configuration<W>,
    /// The next branch: first the open entries, then the classes of unknown outcome.
    branch: u32,
    /// How long the order was when we came here.
    pub(super) order: u32,
}

/// One thread's search.
pub(super) struct Searcher<'a, M: Model, const W: usize> {
    pub(super) model: &'a M,
    pub(super) entries: &'a [Entry<'a, M>],
    pub(super) plan: &'a Plan,
    pub(super) states: States<'a, M>,
    /// What was met before, in a search alone.
    pub(super) seen: HashTable<Configuration<W>>,
    /// What all threads of a parallel search know.
    common: Option<&'a Common<M, W>>,
    pub(super) hasher: foldhash::fast::FixedState,
    /// For each read, once asked for: the changes that could make it come true from anywhere.
    resets: HashMap<u32, Vec<u32>, foldhash::fast::FixedState>,
    /// The entries placed on the way to the configuration in hand.
    pub(super) order: Vec<u32>,
    pub(super) steps: u64,
    /// Completions passed at best.
    pub(super) furthest: u32,
    /// The order that passed them first.
    pub(super) longest: Vec<u32>,
}

enum Settled {
    /// Every completion is behind us.
    Done,
    /// Branch from here.
    New,
    /// Met before.
    Seen,
}

/// What one more branch led to.
#[derive(PartialEq, Eq)]
pub(super) enum Advance {
    /// Every completion is behind us; the order is the searcher's.
    Done,
    /// Not yet.
    Open,
}

impl<'a, M: Model, const W: usize> Searcher<'a, M, W> {
    fn new(model: &'a M, entries: &'a [Entry<'a, M>], plan: &'a Plan) -> Self {
        Searcher {
            model,
            entries,
            plan,
            states: States::new(plan.classes, None),
            seen: HashTable::new(),
            common: None,
            hasher: foldhash::fast::FixedState::default(),
            resets: HashMap::default(),
            order: Vec::new(),
            steps: 0,
            furthest: 0,
            longest: Vec::new(),
        }
    }

    /// One of the threads of a parallel search.
    pub(super) fn joining(
        model: &'a M,
        entries: &'a [Entry<'a, M>],
        plan: &'a Plan,
        common: &'a Common<M, W>,
    ) -> Self {
        let states = States::new(plan.classes, Some(&common.states));
        Searcher { states, common: Some(common), ..Searcher::new(model, entries, plan) }
    }

    fn run(mut self, alone: u64, budget: &Budget<'_>) -> Search {
        let state = self.states.intern(self.model.initial());
        let mut first = Configuration { level: 0, state, before: NONE, placed: [0; W] };
        if let Settled::Done = self.settle(&mut first) {
            return Search::Linearization(self.order);
        }
        let mut stack = vec![Frame { at: first, branch: 0, order: self.order.len() as u32 }];
        let mut next_look = STEPS_BETWEEN_LOOKS;
        let alone = if budget.threads > 1 { alone } else { u64::MAX };
        while !stack.is_empty() {
            if self.steps >= next_look {
                next_look = self.steps + STEPS_BETWEEN_LOOKS;
                let memory = self.memory() + stack.capacity() * size_of::<Frame<W>>();
                if let Some(limit) = budget.over(self.steps, memory) {
                    return Search::Exhausted {
                        limit,
                        passed: self.furthest as usize,
                        all: self.plan.returns.len(),
                    };
                }
                budget.watcher.progress("search", u64::from(self.furthest), self.plan.returns.len() as u64);
            }
            if self.steps >= alone {
                return parallel::go_on(self, stack, budget);
            }
            if self.advance(&mut stack) == Advance::Done {
                return Search::Linearization(self.order);
            }
        }
        self.plan.none(self.furthest, self.longest)
    }

    /// Goes into the next branch of the last frame, which leaves the stack when it has none.
    #[inline]
    pub(super) fn advance(&mut self, stack: &mut Vec<Frame<W>>) -> Advance {
        let Some(frame) = stack.last_mut() else { return Advance::Open };
        self.order.truncate(frame.order as usize);
        let (at, branch) = (frame.at, frame.branch);
        frame.branch += 1;
        let Some(mut to) = self.branch(&at, branch) else {
            if branch as usize >= self.plan.branches(at.level) {
                stack.pop();
            }
            return Advance::Open;
        };
        match self.settle(&mut to) {
            Settled::Done => return Advance::Done,
            Settled::New => stack.push(Frame { at: to, branch: 0, order: self.order.len() as u32 }),
            Settled::Seen => {}
        }
        Advance::Open
    }

    /// The configuration after placing the entry that branch number `branch` stands for, if it may be placed.
    fn branch(&mut self, at: &Configuration<W>, branch: u32) -> Option<Configuration<W>> {
        let open = self.plan.open_at(at.level);
        let (entry, unknown) = match open.get(branch as usize) {
            Some(&entry) => (entry, false),
            None => {
                let class = self.plan.optional.get(branch as usize - open.len())?;
                let &(from, entry) =
                    class.iter().find(|&&(_, entry)| !at.has(self.plan.slot[entry as usize]))?;
                if from > at.level {
                    return None;
                }
                (entry, true)
            }
        };
        let slot = self.plan.slot[entry as usize];
        if at.has(slot) {
            return None;
        }
        self.steps += 1;
        let class = self.plan.class[entry as usize];
        let to = self.states.step(self.model, at.state, class, &self.entries[entry as usize]);
        if to == NONE || (unknown && to == at.state) {
            return None;
        }
        if at.before != NONE
            && self.states.step(self.model, at.before, class, &self.entries[entry as usize]) == to
        {
            return None;
        }
        let mut next = *at;
        next.set(slot);
        next.state = to;
        next.before = if unknown { at.state } else { NONE };
        self.order.push(entry);
        Some(next)
    }

    /// Puts behind us every completion that can be, places what only reads (rule 1), and looks whether we have been here.
    fn settle(&mut self, at: &mut Configuration<W>) -> Settled {
        loop {
            if at.level > self.furthest {
                self.furthest = at.level;
                self.longest.clone_from(&self.order);
            }
            let Some(&returning) = self.plan.returns.get(at.level as usize) else { return Settled::Done };
            let slot = self.plan.slot[returning as usize];
            if at.has(slot) {
                at.clear(slot);
                at.level += 1;
                continue;
            }
            let mut placed = false;
            for &entry in self.plan.open_at(at.level) {
                let slot = self.plan.slot[entry as usize];
                if !self.plan.pure[entry as usize] || at.has(slot) {
                    continue;
                }
                self.steps += 1;
                let class = self.plan.class[entry as usize];
                if self.states.step(self.model, at.state, class, &self.entries[entry as usize]) == at.state {
                    at.set(slot);
                    at.before = NONE;
                    self.order.push(entry);
                    placed = true;
                }
            }
            if !placed {
                break;
            }
        }
        if self.is_dead_end(at) {
            return Settled::Seen;
        }
        let new = match self.common {
            Some(common) => common.remember(at, &self.hasher),
            None => remember(&mut self.seen, at, self.hasher.hash_one(*at), &self.hasher),
        };
        if new { Settled::New } else { Settled::Seen }
    }

    /// Whether the next read to complete, of those not placed, cannot come true any more.
    fn is_dead_end(&mut self, at: &Configuration<W>) -> bool {
        let mut level = at.level;
        let read = loop {
            level = self.plan.next_read[level as usize];
            if level == NONE {
                return false;
            }
            let read = self.plan.returns[level as usize];
            if !self.is_placed(at, read) {
                break read;
            }
            level += 1;
        };
        let entry = &self.entries[read as usize];
        let Some(reply) = entry.reply else { return false };
        let model = self.model;
        if model.can_lead_to(self.states.get(at.state), entry.call, reply) {
            return false;
        }
        if !self.resets.contains_key(&read) {
            let helps = |&change: &u32| {
                let other = &self.entries[change as usize];
                other.invoked <= entry.completed && model.resets_to(other.call, entry.call, reply)
            };
            let resets = self.plan.changes.iter().copied().filter(helps).collect();
            self.resets.insert(read, resets);
        }
        self.resets[&read].iter().all(|&change| self.is_placed(at, change))
    }

    /// Whether an entry has been placed, wherever it completes.
    fn is_placed(&self, at: &Configuration<W>, entry: u32) -> bool {
        let level = self.plan.level[entry as usize];
        if level < at.level {
            return true;
        }
        // Its slot is its own from its invocation on; before that another may hold it.
        let now = self.plan.returns[at.level as usize];
        let invoked = self.entries[entry as usize].invoked <= self.entries[now as usize].completed;
        invoked && at.has(self.plan.slot[entry as usize])
    }

    pub(super) fn memory(&self) -> usize {
        self.seen.capacity() * (size_of::<Configuration<W>>() + 1)
            + self.states.memory()
            + self.order.capacity() * 8
    }
}

/// Remembers a configuration with this hash; true if it was not known.
pub(super) fn remember<const W: usize>(
    seen: &mut HashTable<Configuration<W>>,
    at: &Configuration<W>,
    hash: u64,
    hasher: &foldhash::fast::FixedState,
) -> bool {
    if seen.find(hash, |known| known == at).is_some() {
        return false;
    }
    seen.insert_unique(hash, *at, |known| hasher.hash_one(known));
    true
}
