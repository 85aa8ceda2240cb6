//! Many seeds, one after another: run each, catch what panics, add up the figures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use synod_core::Time;

use crate::family::Family;
use crate::oracle::Violation;
use crate::planted::Planted;
use crate::report::{Failure, Report};
use crate::swarm::{self, WishError, Wishes};
use crate::trace::Recorder;
use crate::world::{Counts, Outcome, Recovery, World};

/// Runs one seed.
///
/// A panic anywhere inside (an assertion of a protocol, an overflow) is a violation like any other.
///
/// # Errors
/// When the wishes cannot be met.
pub fn run<F: Family>(seed: u64, wishes: &Wishes, recorder: Recorder) -> Result<Outcome, WishError> {
    let plan = swarm::draw::<F>(seed, wishes)?;
    let safety = plan.safety;
    let _planted = Planted::new(plan.defect);
    let result = catch_unwind(AssertUnwindSafe(|| World::<F>::new(seed, plan, recorder).run()));
    Ok(result.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = what.unwrap_or_else(|| "a panic without a message".to_owned());
        Outcome {
            violation: Some(Violation { property: "no panic", what, at: Time::ZERO + safety }),
            hash: 0,
            simulated: Duration::ZERO,
            election: Duration::ZERO,
            counts: Counts::default(),
            coverage: crate::disk::Coverage::default(),
            recovery: Recovery::NotTried,
            operations: 0,
            answered: 0,
            decided: 0,
            leaders: 0,
            judged: None,
            happenings: Vec::new(),
            records: Vec::new(),
        }
    }))
}

/// Whether a campaign goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoOn {
    /// It does.
    Yes,
    /// Somebody wants to stop, or the time is over.
    No,
}

/// Runs many seeds and adds them up; a failing one is shrunk to the fewest faults.
///
/// `watch` is told of every seed, and says whether to go on.
///
/// # Errors
/// When the wishes cannot be met.
pub fn campaign<F: Family>(
    seeds: impl Iterator<Item = u64>,
    wishes: &Wishes,
    mut watch: impl FnMut(u64, &Outcome) -> GoOn,
) -> Result<Report, WishError> {
    let mut report = Report::new(F::NAME, wishes);
    for seed in seeds {
        let outcome = run::<F>(seed, wishes, Recorder::default())?;
        let go_on = watch(seed, &outcome);
        let failure = match &outcome.violation {
            Some(violation) => Some(Failure::of::<F>(seed, wishes, violation)?),
            None => None,
        };
        report.add(seed, &outcome, failure);
        if go_on == GoOn::No {
            break;
        }
    }
    Ok(report)
}
