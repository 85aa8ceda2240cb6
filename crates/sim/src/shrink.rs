//! From a failing seed to the fewest faults with which it still fails.
//!
//! First whole kinds of faults are left out, then single faults of the plan (by halves, then by quarters, and so on: delta
//! debugging, Zeller 2002), then what comes behind the failure. A smaller plan counts only if the *same* property
//! breaks. Every number of a plan is drawn whether it is used or not, so that leaving one fault out leaves the others as they were.

use std::time::Duration;

use synod_core::Time;

use crate::family::Family;
use crate::oracle::Violation;
use crate::swarm::{self, WishError, Wishes};
use crate::sweep;
use crate::trace::Recorder;

/// No more runs than this are spent on one seed.
pub const RUNS_MAX: u32 = 150;

/// A smaller plan that fails alike.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What to ask for.
    pub wishes: Wishes,
    /// What breaks then.
    pub violation: Violation,
    /// How many single faults are left.
    pub faults: usize,
    /// How many there were.
    pub faults_before: usize,
}

/// Shrinks a seed that violates `violation` under `wishes`.
///
/// # Errors
/// When the wishes cannot be met.
pub fn shrink<F: Family>(seed: u64, wishes: &Wishes, violation: &Violation) -> Result<Shrunk, WishError> {
    let plan = swarm::draw::<F>(seed, wishes)?;
    let mut best = Shrunk {
        wishes: Wishes { nodes: Some(plan.nodes), faults: plan.faults, ..wishes.clone() },
        violation: violation.clone(),
        faults: plan.planned.len(),
        faults_before: plan.planned.len(),
    };
    let mut runs = 0;
    // What the seed drew is asked for by name: a mood that drew less must still draw this.
    if !attempt::<F>(seed, &mut best, &mut runs, |_| {})? {
        best.wishes = wishes.clone();
    }
    if violation.at < Time::ZERO + best.wishes.safety && violation.at > Time::ZERO {
        let seconds = violation.at.since(Time::ZERO).as_secs() + 1;
        attempt::<F>(seed, &mut best, &mut runs, |wishes| wishes.safety = Duration::from_secs(seconds))?;
    }
    for kind in best.wishes.faults.kinds().collect::<Vec<_>>() {
        attempt::<F>(seed, &mut best, &mut runs, |wishes| wishes.faults = wishes.faults.without(kind))?;
    }
    let mut kept: Vec<usize> = (0..swarm::draw::<F>(seed, &best.wishes)?.planned.len()).collect();
    let mut chunk = kept.len().div_ceil(2);
    while chunk > 0 && runs < RUNS_MAX {
        let mut at = 0;
        while at < kept.len() && runs < RUNS_MAX {
            let fewer: Vec<usize> = kept
                .iter()
                .enumerate()
                .filter(|(i, _)| *i < at || *i >= at + chunk)
                .map(|(_, n)| *n)
                .collect();
            let tried = fewer.clone();
            if attempt::<F>(seed, &mut best, &mut runs, |wishes| wishes.keep = Some(tried))? {
                kept = fewer;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    best.faults = kept.len();
    Ok(best)
}

/// Whether the same property breaks under changed wishes; if so they become the best.
fn attempt<F: Family>(
    seed: u64,
    best: &mut Shrunk,
    runs: &mut u32,
    change: impl FnOnce(&mut Wishes),
) -> Result<bool, WishError> {
    if *runs >= RUNS_MAX {
        return Ok(false);
    }
    *runs += 1;
    let mut wishes = best.wishes.clone();
    change(&mut wishes);
    let outcome = sweep::run::<F>(seed, &wishes, Recorder::default())?;
    match outcome.violation {
        Some(violation) if violation.property == best.violation.property => {
            best.violation = violation;
            best.wishes = wishes;
            Ok(true)
        }
        _ => Ok(false),
    }
}
