//! One hard search on many threads.
//!
//! The [`search`](super::search) of most keys is over in a moment; what is not comes here with the stack it has, and
//! all threads go on from that. A job is a stack of open branches with the order that leads to them. Each thread takes a
//! job, searches it as it would alone, and as long as somebody waits for work gives away every other open branch.
//!
//! Threads share what was met before, in shards with a lock each, and the numbers of the states, of which each thread
//! keeps a copy so that it asks only for new ones. Steps and memory are counted over all threads and shards together.
//!
//! Why the verdict is the one of a search alone: a configuration is remembered by the one thread that then has it on its
//! stack, so it is branched from exactly once, by somebody. If a branch succeeds there is a linearization, whoever found
//! it. If nobody has a job and none is left, everything that can be reached has been branched from, and there is none.
//! What can be reached does not depend on the order of visits, so the completion that none gets past is the same one
//! too. What may differ from run to run: which linearization is found, which longest order is shown, and, where a
//! budget runs out, how far the search had come (so also whether it was decided just before).
//!
//! Lowe ("Testing for linearizability", 2017) and Horn and Kroening (FORTE 2015) search on one thread. The way of
//! sharing work is the plain one of parallel depth-first search (Rao and Kumar, 1987): split the stack.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::plan::Plan;
use super::search::{Advance, Configuration, Frame, Search, Searcher, remember};
use super::states::Interner;
use crate::budget::{Budget, STEPS_BETWEEN_LOOKS};
use crate::model::Model;
use crate::verdict::Limit;

/// So many that threads seldom meet at one.
const SHARDS: usize = 256;

/// Open branches, and the order that leads to the last of them.
struct Job<const W: usize> {
    stack: Vec<Frame<W>>,
    order: Vec<u32>,
}

/// Why the search is over.
enum End {
    /// A linearization.
    Found(Vec<u32>),
    /// This limit.
    Over(Limit),
    /// Nothing is left to search.
    NothingLeft,
}

struct Queue<const W: usize> {
    jobs: Vec<Job<W>>,
    /// Threads without a job.
    waiting: usize,
    end: Option<End>,
}

/// What the threads share.
pub(super) struct Common<M: Model, const W: usize> {
    /// Every state that anybody met.
    pub(super) states: Mutex<Interner<M>>,
    seen: Vec<Mutex<HashTable<Configuration<W>>>>,
    /// Bytes that `seen` holds.
    seen_memory: AtomicUsize,
    /// Bytes that the threads hold for themselves.
    own_memory: AtomicUsize,
    steps: AtomicU64,
    furthest: AtomicU32,
    queue: Mutex<Queue<W>>,
    /// A job or the end has come.
    news: Condvar,
    /// More threads wait than jobs lie in the queue.
    wanted: AtomicBool,
    /// There is an end.
    ended: AtomicBool,
    threads: usize,
}

/// The lock's content, also when a thread has panicked: the panic is passed on when the threads are joined.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Goes on with a search that has this stack, on all threads of the budget.
pub(super) fn go_on<M: Model, const W: usize>(
    alone: Searcher<'_, M, W>,
    stack: Vec<Frame<W>>,
    budget: &Budget<'_>,
) -> Search {
    let Searcher { model, entries, plan, states, seen, hasher, order, steps, furthest, longest, .. } = alone;
    let common = Common {
        states: Mutex::new(states.into_interner()),
        seen: (0..SHARDS).map(|_| Mutex::new(HashTable::new())).collect(),
        seen_memory: AtomicUsize::new(0),
        own_memory: AtomicUsize::new(0),
        steps: AtomicU64::new(steps),
        furthest: AtomicU32::new(furthest),
        queue: Mutex::new(Queue { jobs: vec![Job { stack, order }], waiting: 0, end: None }),
        news: Condvar::new(),
        wanted: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        threads: budget.threads,
    };
    for at in seen {
        common.remember(&at, &hasher);
    }
    let work = || common.work(Searcher::joining(model, entries, plan, &common), budget);
    let mut best = (furthest, longest);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..budget.threads).map(|_| scope.spawn(work)).collect();
        let mut come = vec![work()];
        for other in others {
            come.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        for (furthest, longest) in come {
            if furthest > best.0 {
                best = (furthest, longest);
            }
        }
    });
    let queue = common.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    match queue.end {
        Some(End::Found(order)) => Search::Linearization(order),
        Some(End::Over(limit)) => {
            Search::Exhausted { limit, passed: best.0 as usize, all: plan.returns.len() }
        }
        Some(End::NothingLeft) => {
            assert!(queue.jobs.is_empty(), "no branch is left out of a refutation");
            plan.none(best.0, best.1)
        }
        None => unreachable!("threads stop at an end only"),
    }
}

impl<M: Model, const W: usize> Common<M, W> {
    /// Remembers a configuration; true for the one thread that came first.
    pub(super) fn remember(&self, at: &Configuration<W>, hasher: &FixedState) -> bool {
        let hash = hasher.hash_one(*at);
        // Tables use the lowest and the highest bits.
        let mut shard = lock(&self.seen[(hash >> 40) as usize % SHARDS]);
        let before = shard.capacity();
        let new = remember(&mut shard, at, hash, hasher);
        let grown = shard.capacity() - before;
        if grown > 0 {
            self.seen_memory.fetch_add(grown * (size_of::<Configuration<W>>() + 1), Ordering::Relaxed);
        }
        new
    }

    /// One thread's work; returns how far it came, and by which order.
    fn work(&self, mut searcher: Searcher<'_, M, W>, budget: &Budget<'_>) -> (u32, Vec<u32>) {
        let _guard = Leaving(self);
        let (mut looked, mut held) = (0, 0);
        while let Some(Job { mut stack, order }) = self.take() {
            searcher.order = order;
            searcher.states.catch_up();
            while !stack.is_empty() {
                if self.ended.load(Ordering::Relaxed) {
                    return (searcher.furthest, searcher.longest);
                }
                if searcher.steps >= looked + STEPS_BETWEEN_LOOKS {
                    let memory = searcher.memory() + stack.capacity() * size_of::<Frame<W>>();
                    self.look(&searcher, searcher.steps - looked, held, memory, budget);
                    (looked, held) = (searcher.steps, memory);
                }
                if self.wanted.load(Ordering::Relaxed)
                    && let Some(job) = split(&mut stack, &searcher.order, searcher.plan)
                {
                    self.give(job);
                }
                if searcher.advance(&mut stack) == Advance::Done {
                    self.end(End::Found(std::mem::take(&mut searcher.order)));
                }
            }
        }
        (searcher.furthest, searcher.longest)
    }

    /// Adds up what all threads have spent, and ends the search if it is too much. `held` are the bytes this thread
    /// held at its last look, `holds` those it holds now.
    fn look(
        &self,
        searcher: &Searcher<'_, M, W>,
        steps: u64,
        held: usize,
        holds: usize,
        budget: &Budget<'_>,
    ) {
        let steps = self.steps.fetch_add(steps, Ordering::Relaxed) + steps;
        self.own_memory.fetch_add(holds, Ordering::Relaxed);
        self.own_memory.fetch_sub(held, Ordering::Relaxed);
        let memory = self.seen_memory.load(Ordering::Relaxed)
            + self.own_memory.load(Ordering::Relaxed)
            + lock(&self.states).memory();
        if let Some(limit) = budget.over(steps, memory) {
            self.end(End::Over(limit));
        }
        let furthest = self.furthest.fetch_max(searcher.furthest, Ordering::Relaxed).max(searcher.furthest);
        budget.watcher.progress("search", u64::from(furthest), searcher.plan.returns.len() as u64);
    }

    /// The next job; waits for one while others still search, and `None` when the search is over.
    fn take(&self) -> Option<Job<W>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.end.is_some() {
                return None;
            }
            if let Some(job) = queue.jobs.pop() {
                self.tell_wanted(&queue);
                return Some(job);
            }
            queue.waiting += 1;
            if queue.waiting == self.threads {
                drop(queue);
                self.end(End::NothingLeft);
                return None;
            }
            self.tell_wanted(&queue);
            queue = self.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.waiting -= 1;
        }
    }

    fn give(&self, job: Job<W>) {
        let mut queue = lock(&self.queue);
        queue.jobs.push(job);
        self.tell_wanted(&queue);
        self.news.notify_one();
    }

    fn tell_wanted(&self, queue: &Queue<W>) {
        self.wanted.store(queue.waiting > queue.jobs.len(), Ordering::Relaxed);
    }

    /// Ends the search for everybody. A linearization counts even when a limit was met at the same time.
    fn end(&self, end: End) {
        let mut queue = lock(&self.queue);
        if queue.end.is_none() || matches!(end, End::Found(_)) {
            queue.end = Some(end);
        }
        self.ended.store(true, Ordering::Relaxed);
        self.news.notify_all();
    }
}

/// Lets the others go when a model panics on this thread: they would wait for its jobs for ever.
struct Leaving<'a, M: Model, const W: usize>(&'a Common<M, W>);

impl<M: Model, const W: usize> Drop for Leaving<'_, M, W> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(End::Over(Limit::Cancelled));
        }
    }
}

/// Takes every other open branch off a stack, the first included: those near the root lead to most.
fn split<const W: usize>(stack: &mut Vec<Frame<W>>, order: &[u32], plan: &Plan) -> Option<Job<W>> {
    stack.retain(|frame| frame.is_open(plan));
    if stack.len() < 2 {
        return None;
    }
    let (mut given, mut kept) = (Vec::new(), Vec::new());
    for (i, frame) in stack.drain(..).enumerate() {
        if i % 2 == 0 { given.push(frame) } else { kept.push(frame) }
    }
    *stack = kept;
    let length = given.last().map_or(0, |frame| frame.order as usize);
    Some(Job { stack: given, order: order[..length].to_vec() })
}

#[cfg(test)]
#[path = "parallel_tests.rs"]
mod tests;
