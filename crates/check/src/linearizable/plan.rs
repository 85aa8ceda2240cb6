//! What the [`search`](super::search) needs to know of a history, worked out once.
//!
//! Completions in their order, who is open at each, a bit for each open operation (reused when it has completed, so that
//! a configuration is as wide as the most that are open at once), equal operations under one number, and for the look
//! ahead the next read from each completion on.

use std::hash::BuildHasher;

use hashbrown::{HashMap, HashTable};

use super::search::{Entry, OPEN_MAX, Search};
use super::states::NONE;
use crate::history::NEVER;
use crate::model::Model;

/// Everything about the history that the search needs and that does not change.
pub(super) struct Plan {
    /// Entries that complete, by completion.
    pub(super) returns: Vec<u32>,
    /// `open[starts[k]..starts[k + 1]]`: the entries open at completion k that complete at some time, soonest first.
    pub(super) starts: Vec<u32>,
    pub(super) open: Vec<u32>,
    /// For each entry the bit that stands for it while it is open.
    pub(super) slot: Vec<u16>,
    /// For each entry the number of its (call, reply).
    pub(super) class: Vec<u32>,
    pub(super) classes: usize,
    /// For each entry whether it only reads.
    pub(super) pure: Vec<bool>,
    /// The entries of unknown outcome by class, each with the first completion at which it is open.
    pub(super) optional: Vec<Vec<(u32, u32)>>,
    pub(super) slots: usize,
    /// For each completion the first one from there on that is an answered read.
    pub(super) next_read: Vec<u32>,
    /// For each entry its place among the completions, or `NONE`.
    pub(super) level: Vec<u32>,
    /// Entries that do more than read.
    pub(super) changes: Vec<u32>,
}

/// Above so many entries the look ahead would cost more than it saves: it may look at every change for every read.
const LOOK_AHEAD_ENTRIES_MAX: usize = 20_000;

impl Plan {
    pub(super) fn new<M: Model>(model: &M, entries: &[Entry<'_, M>]) -> Plan {
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

    /// How many branches leave a configuration of this level.
    pub(super) fn branches(&self, level: u32) -> usize {
        self.open_at(level).len() + self.optional.len()
    }

    /// No order was found, and none gets further than past `furthest` completions.
    pub(super) fn none(&self, furthest: u32, longest: Vec<u32>) -> Search {
        let mut open = self.open_at(furthest).to_vec();
        open.sort_unstable();
        Search::None { stuck: self.returns[furthest as usize], open, longest }
    }

    pub(super) fn open_at(&self, level: u32) -> &[u32] {
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
