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
//! Complexity: exponential in the number of operations open at once, linear in the length for a fixed number.

use std::hash::{BuildHasher, Hash};

use hashbrown::{HashMap, HashTable};

use crate::budget::{Budget, STEPS_BETWEEN_LOOKS};
use crate::history::{NEVER, Time};
use crate::model::Model;
use crate::verdict::Limit;

/// One operation, as the search sees it.
pub struct Entry<'a, M: Model> {
    /// What was asked.
    pub call: &'a M::Call,
    /// What was answered; `None` for an unknown outcome.
    pub reply: Option<&'a M::Reply>,
    /// When it was called.
    pub invoked: Time,
    /// When it was answered; [`NEVER`] for an unknown outcome, which need not take effect at all.
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
    let plan = Plan::new(model, entries);
    match plan.slots {
        0..=64 => Searcher::<M, 1>::new(model, entries, &plan).run(budget),
        65..=128 => Searcher::<M, 2>::new(model, entries, &plan).run(budget),
        129..=256 => Searcher::<M, 4>::new(model, entries, &plan).run(budget),
        257..=OPEN_MAX => Searcher::<M, 16>::new(model, entries, &plan).run(budget),
        _ => Search::Exhausted { limit: Limit::Memory, passed: 0, all: plan.returns.len() },
    }
}

/// Everything about the history that the search needs and that does not change.
struct Plan {
    /// Entries that complete, by completion.
    returns: Vec<u32>,
    /// `open[starts[k]..starts[k + 1]]`: the entries open at completion k that complete at some time, soonest first.
    starts: Vec<u32>,
    open: Vec<u32>,
    /// For each entry the bit that stands for it while it is open.
    slot: Vec<u16>,
    /// For each entry the number of its (call, reply).
    class: Vec<u32>,
    classes: usize,
    /// For each entry whether it only reads.
    pure: Vec<bool>,
    /// The entries of unknown outcome by class, each with the first completion at which it is open.
    optional: Vec<Vec<(u32, u32)>>,
    slots: usize,
    /// For each completion the first one from there on that is an answered read.
    next_read: Vec<u32>,
    /// For each entry its place among the completions, or `NONE`.
    level: Vec<u32>,
    /// Entries that do more than read.
    changes: Vec<u32>,
}

/// Above so many entries the look ahead would cost more than it saves: it may look at every change for every read.
const LOOK_AHEAD_ENTRIES_MAX: usize = 20_000;

impl Plan {
    fn new<M: Model>(model: &M, entries: &[Entry<'_, M>]) -> Plan {
        debug_assert!(entries.is_sorted_by_key(|entry| entry.invoked), "entries come sorted by invocation");
        let (class, classes) = classes(entries);
        let pure: Vec<bool> = entries.iter().map(|entry| model.reads_only(entry.call, entry.reply)).collect();
        let mut returns: Vec<u32> =
            (0..entries.len() as u32).filter(|&i| entries[i as usize].completed != NEVER).collect();
        returns.sort_by_key(|&i| entries[i as usize].completed);

        let mut plan = Plan {
            starts: Vec::with_capacity(returns.len() + 1),
            open: Vec::new(),
            slot: vec![0; entries.len()],
            class,
            classes,
            pure,
            optional: Vec::new(),
            slots: 0,
            returns: Vec::new(),
            next_read: vec![NONE; returns.len() + 1],
            level: vec![NONE; entries.len()],
            changes: Vec::new(),
        };
        for (level, &entry) in returns.iter().enumerate() {
            plan.level[entry as usize] = level as u32;
        }
        if entries.len() <= LOOK_AHEAD_ENTRIES_MAX {
            for (level, &entry) in returns.iter().enumerate().rev() {
                let read = plan.pure[entry as usize] && entries[entry as usize].reply.is_some();
                plan.next_read[level] = if read { level as u32 } else { plan.next_read[level + 1] };
            }
            plan.changes = (0..entries.len() as u32).filter(|&i| !plan.pure[i as usize]).collect();
        }
        let mut free: Vec<u16> = Vec::new();
        let mut now_open: Vec<u32> = Vec::new();
        let mut optional: HashMap<u32, Vec<(u32, u32)>, foldhash::fast::FixedState> = HashMap::default();
        let mut next = 0;
        for (level, &returning) in returns.iter().enumerate() {
            let completed = entries[returning as usize].completed;
            while next < entries.len() && entries[next].invoked <= completed {
                let unknown = entries[next].completed == NEVER;
                if !(unknown && plan.pure[next]) {
                    let slot = free.pop().unwrap_or_else(|| {
                        plan.slots += 1;
                        (plan.slots - 1).min(u16::MAX as usize) as u16
                    });
                    plan.slot[next] = slot;
                    if unknown {
                        optional.entry(plan.class[next]).or_default().push((level as u32, next as u32));
                    } else {
                        now_open.push(next as u32);
                    }
                }
                next += 1;
            }
            now_open.sort_by_key(|&i| entries[i as usize].completed);
            plan.starts.push(plan.open.len() as u32);
            plan.open.extend_from_slice(&now_open);
            let at = now_open.iter().position(|&i| i == returning).expect("what completes is open");
            now_open.remove(at);
            free.push(plan.slot[returning as usize]);
            if plan.slots > OPEN_MAX {
                break;
            }
        }
        plan.starts.push(plan.open.len() as u32);
        plan.returns = returns;
        plan.optional = optional.into_values().collect();
        plan.optional.sort();
        plan
    }

    fn open_at(&self, level: u32) -> &[u32] {
        &self.open[self.starts[level as usize] as usize..self.starts[level as usize + 1] as usize]
    }
}

/// Numbers entries by what they ask and were answered: equal ones behave alike in every state.
fn classes<M: Model>(entries: &[Entry<'_, M>]) -> (Vec<u32>, usize) {
    let hasher = foldhash::fast::FixedState::default();
    let hash = |entry: &Entry<'_, M>| hasher.hash_one((entry.call, entry.reply));
    let mut table: HashTable<(u32, u32)> = HashTable::with_capacity(entries.len().min(1024));
    let mut count = 0;
    let class = entries
        .iter()
        .enumerate()
        .map(|(i, entry)| {
            let same = |&(other, _): &(u32, u32)| {
                let other = &entries[other as usize];
                other.call == entry.call && other.reply == entry.reply
            };
            let hashed = hash(entry);
            if let Some(&(_, class)) = table.find(hashed, same) {
                return class;
            }
            table.insert_unique(hashed, (i as u32, count), |&(other, _)| hash(&entries[other as usize]));
            count += 1;
            count - 1
        })
        .collect();
    (class, count as usize)
}

/// No state: the call is impossible there; or, as `before`, that the last operation placed has a known outcome.
const NONE: u32 = u32::MAX;
/// Not computed yet.
const UNSEEN: u32 = u32::MAX - 1;

/// The states met, and where each class of calls leads from each.
struct States<M: Model> {
    states: Vec<M::State>,
    index: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
    /// Dense rows of `width` when there are few classes, else pairs.
    dense: Vec<u32>,
    sparse: HashMap<(u32, u32), u32, foldhash::fast::FixedState>,
    width: usize,
}

/// With so few classes, a state's transitions are a row of an array.
const DENSE_CLASSES_MAX: usize = 512;

impl<M: Model> States<M> {
    fn new(classes: usize) -> States<M> {
        States {
            states: Vec::new(),
            index: HashTable::new(),
            hasher: foldhash::fast::FixedState::default(),
            dense: Vec::new(),
            sparse: HashMap::default(),
            width: if classes <= DENSE_CLASSES_MAX { classes } else { 0 },
        }
    }

    fn intern(&mut self, state: M::State) -> u32 {
        let hash = self.hasher.hash_one(&state);
        let states = &self.states;
        if let Some(&found) = self.index.find(hash, |&i| states[i as usize] == state) {
            return found;
        }
        let id = self.states.len() as u32;
        self.states.push(state);
        let (states, hasher) = (&self.states, &self.hasher);
        self.index.insert_unique(hash, id, |&i| hasher.hash_one(&states[i as usize]));
        self.dense.resize(self.states.len() * self.width, UNSEEN);
        id
    }

    fn step(&mut self, model: &M, from: u32, class: u32, entry: &Entry<'_, M>) -> u32 {
        let cell = from as usize * self.width + class as usize;
        let known = match self.width {
            0 => self.sparse.get(&(from, class)).copied().unwrap_or(UNSEEN),
            _ => self.dense[cell],
        };
        if known != UNSEEN {
            return known;
        }
        let to = match model.step(&self.states[from as usize], entry.call, entry.reply) {
            Some(state) => self.intern(state),
            None => NONE,
        };
        match self.width {
            0 => {
                self.sparse.insert((from, class), to);
            }
            _ => self.dense[cell] = to,
        }
        to
    }

    fn memory(&self) -> usize {
        self.states.len() * (size_of::<M::State>() + 8) + self.dense.len() * 4 + self.sparse.capacity() * 14
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Configuration<const W: usize> {
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

/// A configuration that is being branched from.
struct Frame<const W: usize> {
    at: Configuration<W>,
    /// The next branch: first the open entries, then the classes of unknown outcome.
    branch: u32,
    /// How long the order was when we came here.
    order: u32,
}

struct Searcher<'a, M: Model, const W: usize> {
    model: &'a M,
    entries: &'a [Entry<'a, M>],
    plan: &'a Plan,
    states: States<M>,
    seen: HashTable<Configuration<W>>,
    hasher: foldhash::fast::FixedState,
    /// For each read, once asked for: the changes that could make it come true from anywhere.
    resets: HashMap<u32, Vec<u32>, foldhash::fast::FixedState>,
    order: Vec<u32>,
    steps: u64,
    furthest: u32,
    longest: Vec<u32>,
}

enum Settled {
    /// Every completion is behind us.
    Done,
    /// Branch from here.
    New,
    /// Met before.
    Seen,
}

impl<'a, M: Model, const W: usize> Searcher<'a, M, W> {
    fn new(model: &'a M, entries: &'a [Entry<'a, M>], plan: &'a Plan) -> Self {
        Searcher {
            model,
            entries,
            plan,
            states: States::new(plan.classes),
            seen: HashTable::new(),
            hasher: foldhash::fast::FixedState::default(),
            resets: HashMap::default(),
            order: Vec::with_capacity(plan.returns.len()),
            steps: 0,
            furthest: 0,
            longest: Vec::new(),
        }
    }

    fn run(mut self, budget: &Budget<'_>) -> Search {
        let state = self.states.intern(self.model.initial());
        let mut first = Configuration { level: 0, state, before: NONE, placed: [0; W] };
        if let Settled::Done = self.settle(&mut first) {
            return Search::Linearization(self.order);
        }
        let mut stack = vec![Frame { at: first, branch: 0, order: self.order.len() as u32 }];
        let mut next_look = STEPS_BETWEEN_LOOKS;
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
            let Some(frame) = stack.last_mut() else { break };
            self.order.truncate(frame.order as usize);
            let (at, branch) = (frame.at, frame.branch);
            frame.branch += 1;
            let Some(mut to) = self.branch(&at, branch) else {
                if branch as usize >= self.plan.open_at(at.level).len() + self.plan.optional.len() {
                    stack.pop();
                }
                continue;
            };
            match self.settle(&mut to) {
                Settled::Done => return Search::Linearization(self.order),
                Settled::New => stack.push(Frame { at: to, branch: 0, order: self.order.len() as u32 }),
                Settled::Seen => {}
            }
        }
        let stuck = self.plan.returns[self.furthest as usize];
        let mut open = self.plan.open_at(self.furthest).to_vec();
        open.sort_unstable();
        Search::None { stuck, open, longest: self.longest }
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
        let hash = self.hasher.hash_one(*at);
        if self.seen.find(hash, |known| known == at).is_some() {
            return Settled::Seen;
        }
        let hasher = &self.hasher;
        self.seen.insert_unique(hash, *at, |known| hasher.hash_one(known));
        Settled::New
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
        if model.can_lead_to(&self.states.states[at.state as usize], entry.call, reply) {
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

    fn memory(&self) -> usize {
        self.seen.capacity() * (size_of::<Configuration<W>>() + 1)
            + self.states.memory()
            + self.order.capacity() * 8
    }
}
