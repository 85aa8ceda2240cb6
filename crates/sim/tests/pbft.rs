//! PBFT, the shipped log and the shipped store in the simulator.

#[path = "../../cli/src/simulate/families/pbft.rs"]
mod pbft;

use std::time::Duration;

use pbft::PbftFamily;
use synod_sim::faults::FaultSet;
use synod_sim::swarm::Wishes;
use synod_sim::sweep::{self, GoOn};

fn sweep(faults: &str, seeds: std::ops::Range<u64>, seconds: u64) {
    let faults = FaultSet::parse(faults).expect("the faults exist");
    let wishes = Wishes { faults, safety: Duration::from_secs(seconds), ..Wishes::default() };
    let report = sweep::campaign::<PbftFamily>(seeds, &wishes, |_, _| GoOn::Yes);
    let report = report.expect("four replicas and more are possible");
    assert!(report.failures.is_empty(), "{}", report.table());
}

/// A hundred seeds of everything that can go wrong, up to f liars among it: no property breaks, and every healed
/// core decides again.
#[test]
fn a_hundred_seeds_of_everything() {
    sweep("all", 0..100, 12);
}
