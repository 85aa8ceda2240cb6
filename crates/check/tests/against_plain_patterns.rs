//! On histories too long for brute force, the fast algorithms agree with the bad patterns computed plainly, as sets of pairs.

use synod_check::budget::Budget;
use synod_check::causal;
use synod_check::generate::Random;
use synod_check::reads_from::{ReadsFrom, Source};
use synod_check::sequential;
use synod_check::verdict::{Level, Verdict};
use synod_check::workload::{Plant, Store, Workload};

const HISTORIES: u64 = if cfg!(debug_assertions) { 60 } else { 1_500 };

/// For each operation, the set of operations before it; at most 128.
type Before = Vec<u128>;

fn close(before: &mut Before) {
    // Warshall: through each operation in turn.
    for through in 0..before.len() {
        let past = before[through];
        for set in before.iter_mut() {
            if *set & (1 << through) != 0 {
                *set |= past;
            }
        }
    }
}

fn cyclic(before: &Before) -> bool {
    before.iter().enumerate().any(|(op, set)| set & (1 << op) != 0)
}

fn program_order(h: &ReadsFrom) -> Before {
    h.ops().map(|op| (0..op).filter(|&a| h.session_of(a) == h.session_of(op)).map(|a| 1 << a).sum()).collect()
}

/// The happened-before order of one session (POPL'17, section 5.3), from some order on, within a set of operations.
fn happened_before_is_bad(h: &ReadsFrom, mut before: Before, within: u128, session: usize) -> bool {
    let inside = |op: u32| within & (1 << op) != 0;
    loop {
        close(&mut before);
        if (0..h.len()).any(|op| inside(op as u32) && before[op] & (1 << op) != 0) {
            return true;
        }
        let mut grown = false;
        for read in h.ops().filter(|&r| h.session_of(r) == session && h.reads(r)) {
            for write in h.ops().filter(|&w| inside(w) && w != read && h.writes(w) && h.key(w) == h.key(read))
            {
                if before[read as usize] & (1 << write) == 0 {
                    continue;
                }
                match h.source(read) {
                    Source::Initial => return true,
                    Source::Write(source)
                        if source != write && before[source as usize] & (1 << write) == 0 =>
                    {
                        before[source as usize] |= 1 << write;
                        grown = true;
                    }
                    _ => {}
                }
            }
        }
        if !grown {
            return false;
        }
    }
}

fn plainly_violates(h: &ReadsFrom, level: Level) -> bool {
    let mut causal = program_order(h);
    for read in h.ops() {
        if let Source::Write(write) = h.source(read) {
            causal[read as usize] |= 1 << write;
        }
    }
    close(&mut causal);
    if level == Level::Pram {
        return (0..h.sessions()).any(|session| {
            let mut before = program_order(h);
            for read in h.session(session) {
                if let Source::Write(write) = h.source(read) {
                    before[read as usize] |= 1 << write;
                }
            }
            happened_before_is_bad(h, before, u128::MAX, session)
        });
    }
    let is_before = |a: u32, b: u32| causal[b as usize] & (1 << a) != 0;
    let stale = |read: u32| {
        h.ops().any(|w| {
            h.writes(w)
                && w != read
                && h.key(w) == h.key(read)
                && is_before(w, read)
                && match h.source(read) {
                    Source::Initial => true,
                    Source::Write(source) => source != w && is_before(source, w),
                    _ => false,
                }
        })
    };
    if cyclic(&causal) || h.ops().any(|r| h.reads(r) && stale(r)) {
        return true;
    }
    match level {
        Level::CausalMemory => (0..h.sessions()).any(|session| {
            let last = h.session(session).end - 1;
            happened_before_is_bad(h, causal.clone(), causal[last as usize] | 1 << last, session)
        }),
        Level::CausalConvergence => {
            let mut order = causal.clone();
            for read in h.ops() {
                if let Source::Write(source) = h.source(read) {
                    for w in h
                        .ops()
                        .filter(|&w| h.writes(w) && w != source && w != read && h.key(w) == h.key(read))
                    {
                        if is_before(w, read) {
                            order[source as usize] |= 1 << w;
                        }
                    }
                }
            }
            close(&mut order);
            cyclic(&order)
        }
        _ => false,
    }
}

#[test]
fn the_fast_algorithms_find_what_the_plain_ones_find() {
    let mut violations = [0u64; 4];
    let levels = [Level::Causal, Level::CausalConvergence, Level::CausalMemory, Level::Pram];
    for seed in 0..HISTORIES {
        let mut random = Random::new(seed);
        let stores = [Store::Linearizable, Store::Sequential, Store::Convergent, Store::CausalMemory];
        let plants =
            [Plant::Nothing, Plant::StaleRead, Plant::SplitBrain, Plant::ReorderedSession, Plant::LostUpdate];
        let workload = Workload {
            processes: 2 + random.below(7),
            keys: 1 + random.below(6),
            operations: 20 + random.below(100),
            write_percent: 20 + random.below(60),
            store: stores[random.below(4)],
            plant: plants[random.below(5)],
            seed,
        };
        let history = workload.history();
        let reads_from = ReadsFrom::of(&history).expect("values are unique");
        for (count, level) in violations.iter_mut().zip(levels) {
            let plain = plainly_violates(&reads_from, level);
            let fast = causal::violates(&reads_from, level, &Budget::default());
            assert_eq!(fast, Ok(plain), "{}: {workload:?}", level.name());
            *count += u64::from(plain);
        }
    }
    assert!(violations.iter().all(|&count| count > HISTORIES / 50 && count < HISTORIES), "{violations:?}");
}

/// An order that is handed out explains every read, and agrees with every session.
#[test]
fn sequential_orders_replay() {
    for seed in 0..HISTORIES / 10 {
        let mut random = Random::new(seed);
        let workload = Workload {
            processes: 2 + random.below(30),
            keys: 1 + random.below(20),
            write_percent: 20 + random.below(60),
            ..Workload::new([Store::Linearizable, Store::Sequential][random.below(2)], 2_000, seed)
        };
        let mut history = workload.history();
        history.clock = synod_check::history::Clock::PerProcess;
        let (verdict, algorithm) = sequential::check(&history, &Budget::default());
        let Verdict::Holds(witness) = verdict else { panic!("{workload:?}: {verdict:?} by {algorithm}") };
        assert_eq!(witness.order.len(), history.operations.len());
        let mut state = vec![history.initial; history.keys.len()];
        let mut last = vec![None; history.processes.len()];
        for &i in &witness.order {
            let operation = &history.operations[i as usize];
            let last = &mut last[operation.process.0 as usize];
            assert!(last.is_none_or(|last| last < i), "session order: {workload:?}");
            *last = Some(i);
            let cell = &mut state[operation.key.0 as usize];
            if let Some(read) = operation.value_read() {
                assert_eq!(read, *cell, "{workload:?}");
            }
            *cell = operation.value_written().unwrap_or(*cell);
        }
    }
}
