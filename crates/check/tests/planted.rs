//! Violations planted into histories of a hundred thousand operations are found, and explained with at most ten of them.

use synod_check::budget::Budget;
use synod_check::explain::shrink::READABLE_MAX;
use synod_check::history::{Clock, History};
use synod_check::verdict::{Evidence, Level, Verdict};
use synod_check::workload::{Plant, Store, Workload};
use synod_check::{causal, sequential};

const OPERATIONS: usize = if cfg!(debug_assertions) { 5_000 } else { 100_000 };

fn violated(history: &History) -> Vec<(Level, Evidence)> {
    let budget = Budget::default();
    let (sequential, _) = sequential::check(history, &budget);
    let mut out = Vec::new();
    let causal = causal::check(history, &budget).into_iter().map(|(level, verdict, _)| (level, verdict));
    for (level, verdict) in std::iter::once((Level::Sequential, sequential)).chain(causal) {
        match verdict {
            Verdict::Violated(evidence) => out.push((level, evidence)),
            Verdict::Holds(_) => {}
            Verdict::Unknown(reason) => panic!("{}: {reason:?}", level.name()),
        }
    }
    out
}

fn assert_found(plant: Plant, levels: &[Level]) {
    for seed in 1..3 {
        let history = Workload::new(Store::Linearizable, OPERATIONS, seed).with(plant).history();
        let found = violated(&history);
        for level in levels {
            assert!(
                found.iter().any(|(found, _)| found == level),
                "{plant:?}, seed {seed}: {}",
                level.name()
            );
        }
        for (level, evidence) in &found {
            let size = evidence.operations.len();
            assert!(evidence.sufficient, "{plant:?}, seed {seed}: {} shows itself", level.name());
            assert!(size <= READABLE_MAX, "{plant:?}, seed {seed}: {} needs {size}", level.name());
            // The piece is a violation by itself.
            let piece = history.restricted(&evidence.operations);
            assert!(violated(&piece).iter().any(|(again, _)| again == level), "{plant:?}: {}", level.name());
        }
    }
}

#[test]
fn a_stale_read_is_found() {
    assert_found(Plant::StaleRead, &[Level::Sequential, Level::Causal, Level::Pram, Level::MonotonicReads]);
}

#[test]
fn a_lost_update_is_found() {
    assert_found(Plant::LostUpdate, &[Level::Sequential]);
}

#[test]
fn a_split_brain_is_found() {
    assert_found(Plant::SplitBrain, &[Level::Sequential]);
}

#[test]
fn a_reordered_session_is_found() {
    assert_found(
        Plant::ReorderedSession,
        &[Level::Sequential, Level::Causal, Level::Pram, Level::MonotonicWrites],
    );
}

/// Each simulated store gives its level and not the next.
#[test]
fn stores_have_their_levels() {
    for (store, holds, fails) in [
        (Store::Linearizable, vec![Level::Sequential, Level::CausalConvergence, Level::CausalMemory], vec![]),
        (Store::Sequential, vec![Level::Sequential, Level::CausalConvergence, Level::CausalMemory], vec![]),
        (Store::Convergent, vec![Level::CausalConvergence], vec![Level::Sequential]),
        (Store::CausalMemory, vec![Level::CausalMemory], vec![Level::Sequential, Level::CausalConvergence]),
    ] {
        let mut history = Workload::new(store, OPERATIONS, 9).history();
        history.clock = Clock::PerProcess;
        let found = violated(&history);
        for level in holds {
            assert!(found.iter().all(|(found, _)| *found != level), "{store:?} is {}", level.name());
        }
        for level in fails {
            assert!(found.iter().any(|(found, _)| *found == level), "{store:?} is not {}", level.name());
        }
    }
}
