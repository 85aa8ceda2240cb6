//! Key by key, on several threads, and the linearizations of the keys merged into one of the whole.
//!
//! While the threads go through the keys, each key has one thread and its share of the memory. Those that this does not
//! decide wait until the others are done; then each has all threads and all memory to itself ([`super::parallel`]).

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::search::STEPS_ALONE_MAX;
use super::{PartVerdict, check_part};
use crate::budget::Budget;
use crate::history::{History, Key};
use crate::verdict::{Exhausted, Limit, Verdict, Witness};

/// Below so many operations a thread costs more than it saves.
const OPERATIONS_PER_THREAD_MIN: usize = 4096;

/// The verdict on each key, in key order.
pub(super) fn check(history: &History, budget: &Budget<'_>) -> Vec<PartVerdict> {
    let keys = history.by_key();
    let busy = keys.iter().filter(|part| !part.is_empty()).count();
    let threads = budget.threads.min(busy).min(history.operations.len() / OPERATIONS_PER_THREAD_MIN).max(1);
    let share = match threads {
        1 => *budget,
        _ => Budget {
            memory_max: budget.memory_max / threads,
            steps_max: budget.steps_max.min(STEPS_ALONE_MAX),
            threads: 1,
            ..*budget
        },
    };
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, PartVerdict)>> = Mutex::new(Vec::with_capacity(busy));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = keys.get(at) else { break };
            if part.is_empty() {
                continue;
            }
            let (verdict, algorithm) = check_part(history, part, &share);
            budget.watcher.progress("keys", at as u64 + 1, keys.len() as u64);
            let key = Some(Key(at as u32));
            let verdict = PartVerdict { key, operations: part.len(), verdict, algorithm };
            found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, verdict));
        }
    };
    if threads == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_by_key(|(at, _)| *at);
    if threads > 1 {
        for (at, part) in &mut found {
            if let Verdict::Unknown(Exhausted { limit: Limit::Steps | Limit::Memory, .. }) = part.verdict {
                (part.verdict, part.algorithm) = check_part(history, &keys[*at], budget);
            }
        }
    }
    found.into_iter().map(|(_, verdict)| verdict).collect()
}

/// One linearization of the whole from one of each key (Herlihy and Wing's theorem 1, made constructive).
///
/// Each operation gets the earliest moment that its key's order allows: the latest invocation of it and those before it.
/// That moment lies inside every operation's interval, so sorting by it respects real time and every key's order.
pub(super) fn merge(history: &History, parts: &[PartVerdict]) -> Witness {
    let orders: Vec<&[u32]> = parts
        .iter()
        .filter_map(|part| match &part.verdict {
            Verdict::Holds(witness) => Some(&witness.order[..]),
            _ => None,
        })
        .collect();
    if let [order] = orders[..] {
        return Witness { order: order.to_vec() };
    }
    let mut moments: Vec<(i64, u32)> = Vec::with_capacity(orders.iter().map(|order| order.len()).sum());
    for order in orders {
        let mut moment = i64::MIN;
        for &i in order {
            moment = moment.max(history.operations[i as usize].invoked);
            moments.push((moment, i));
        }
    }
    // Stable: operations of one key at one moment keep their order.
    moments.sort_by_key(|(moment, _)| *moment);
    Witness { order: moments.into_iter().map(|(_, i)| i).collect() }
}
