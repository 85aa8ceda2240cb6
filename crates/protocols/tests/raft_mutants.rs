//! Raft with one rule removed at a time: the storms must notice.
//!
//! `cargo test -p synod-protocols --release --features mutants --test raft_mutants -- --nocapture`
#![cfg(feature = "mutants")]

mod network;

use std::time::Duration;

use network::{Network, drawn};
use synod_protocols::raft::Mutant;

/// Seeds tried before a mutant counts as not found.
const SEEDS_MAX: u64 = 2000;

/// What the storms cannot show, and what shows it instead.
const ELSEWHERE: &[(Mutant, &str)] = &[
    (Mutant::NeverLooksBack, "disks are not replaced in storms: golden trace lost-disk"),
    (Mutant::CountsOldWrites, "golden trace stale-write, unit test of disk"),
];

fn is_noticed(mutant: Mutant, seed: u64) -> bool {
    let outcome = std::panic::catch_unwind(|| {
        let mut weather = drawn(seed);
        let options = &mut weather.options;
        options.mutant = Some(mutant);
        match mutant {
            Mutant::LeaseByOldClock | Mutant::LeaseSurvivesTransfer => {
                (options.lease_reads, options.check_quorum) = (true, true);
            }
            Mutant::SilentToOldTerms => (options.check_quorum, options.pre_vote) = (true, false),
            Mutant::ChangeTooEarly
            | Mutant::MembersWhenCommitted
            | Mutant::LeavesJointEarly
            | Mutant::SnapshotForgetsJoint => {
                (options.check_quorum, options.pre_vote) = (true, true);
            }
            _ => {}
        }
        weather.nodes = weather.nodes.max(3);
        let mut network = Network::new(weather, seed);
        network.run(Duration::from_secs(6));
        network.heal_and_converge();
    });
    outcome.is_err()
}

/// Every mutant is noticed by some seed, but for those that are noticed elsewhere.
#[test]
fn storms_notice_mutants() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        if let Some((_, place)) = ELSEWHERE.iter().find(|(known, _)| known == mutant) {
            println!("{:24} {place}", mutant.name());
            continue;
        }
        match (0..SEEDS_MAX).find(|seed| is_noticed(*mutant, *seed)) {
            Some(seed) => println!("{:24} found at seed {seed}", mutant.name()),
            None => {
                println!("{:24} not found in {SEEDS_MAX} seeds", mutant.name());
                missed.push(mutant.name());
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
