//! Raft with one rule removed at a time: the storms must notice.
//!
//! `cargo test -p synod-protocols --release --features mutants --test raft_mutants -- --nocapture`; one mutant alone with
//! `RAFT_MUTANT=<name>` in the environment.
#![cfg(feature = "mutants")]

mod network;

use std::time::Duration;

use network::{Network, drawn};
use synod_protocols::raft::{Mutant, Options, Raft};
use synod_sim::script::{Order, replay};

/// Seeds tried before a mutant counts as not found.
const SEEDS_MAX: u64 = 2000;

/// What random storms hardly show, and the golden trace that shows it instead.
const IN_TRACES: &[(Mutant, &str)] = &[
    (Mutant::CommitOldTerm, include_str!("golden/raft/figure-8.trace")),
    (Mutant::ChangeTooEarly, include_str!("golden/raft/change-too-early.trace")),
    (Mutant::ReadAcrossTerms, include_str!("golden/raft/lease-read.trace")),
    (Mutant::LeaseSurvivesTransfer, include_str!("golden/raft/lease-transfer.trace")),
    (Mutant::CommitUnverified, include_str!("golden/raft/commit-unverified.trace")),
    (Mutant::SnapshotForgetsJoint, include_str!("golden/raft/joint-snapshot.trace")),
    (Mutant::NeverLooksBack, include_str!("golden/raft/lost-disk.trace")),
];

/// Whether something else happens in a trace when a rule is left out.
fn differs(mutant: Mutant, trace: &str) -> bool {
    let option = |count: char| format!("cluster {count} mutant={}", mutant.name());
    let bent = trace.replace("cluster 3", &option('3')).replace("cluster 5", &option('5'));
    match replay::<Raft>(&bent, Order::Total, Options::set) {
        Ok(text) => text != bent,
        Err(_) => true, // agreement was violated
    }
}

fn is_noticed(mutant: Mutant, seed: u64) -> bool {
    let outcome = std::panic::catch_unwind(|| {
        let mut weather = drawn(seed);
        let options = &mut weather.options;
        options.mutant = Some(mutant);
        match mutant {
            Mutant::LeaseByOldClock => {
                (options.lease_reads, options.check_quorum) = (true, true);
            }
            Mutant::SilentToOldTerms => (options.check_quorum, options.pre_vote) = (true, false),
            Mutant::ChangeTooEarly | Mutant::MembersWhenCommitted | Mutant::LeavesJointEarly => {
                (options.check_quorum, options.pre_vote) = (true, true);
            }
            _ => {}
        }
        // Rough weather: few entries in each append, and something new all the time.
        weather.options.append_bytes_max = 100;
        weather.nodes = weather.nodes.max(3);
        weather.fault_every = Duration::from_millis(20 + seed % 7 * 20);
        weather.curse = [0.0, 0.5, 0.8][seed as usize % 3];
        weather.meddling = [0.0, 1.0][seed as usize / 3 % 2];
        let mut network = Network::new(weather, seed);
        network.run(Duration::from_secs(6));
        if mutant == Mutant::SilentToOldTerms {
            network.heal_and_converge();
        }
    });
    outcome.is_err()
}

/// Every mutant is noticed: by its golden trace, or by some seed.
#[test]
fn storms_notice_mutants() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    let only = std::env::var("RAFT_MUTANT").ok();
    for mutant in Mutant::ALL.iter().filter(|it| only.as_ref().is_none_or(|only| only == it.name())) {
        if let Some((_, trace)) = IN_TRACES.iter().find(|(known, _)| known == mutant) {
            assert!(differs(*mutant, trace), "{} goes unnoticed in its trace", mutant.name());
            println!("{:24} found by its trace", mutant.name());
            continue;
        }
        if *mutant == Mutant::CountsOldWrites {
            println!("{:24} found by raft_disk", mutant.name());
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
