//! Whole clusters of Raft replicas in bad weather, thousands of seeds: safety at every step, then progress
//! once the weather clears.
//!
//! A failing seed is replayed with `RAFT_SEED=<seed> cargo test -p synod-protocols --release --test raft_storms`.

mod network;

use std::time::Duration;

use network::{Network, drawn};

fn storm(seed: u64) -> Network {
    let mut network = Network::new(drawn(seed), seed);
    network.run(Duration::from_secs(6));
    network.heal_and_converge();
    network
}

fn sweep(seeds: std::ops::Range<u64>) {
    let seeds = match std::env::var("RAFT_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("RAFT_SEED is a number");
            seed..seed + 1
        }
        Err(_) => seeds,
    };
    let (mut replies, mut reads, mut restores, mut changes) = (0, 0, 0, 0);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| storm(seed));
        let Ok(network) = outcome else { panic!("replay with RAFT_SEED={seed}: {:?}", drawn(seed)) };
        replies += network.replies;
        reads += network.reads_served;
        restores += network.restores;
        changes += network.changes;
    }
    println!("{replies} replies, {reads} reads, {restores} restores, {changes} changes of configuration");
    assert!(replies > 0 && reads > 0, "the storm let something through");
}

/// Safety holds in any weather, and every healed cluster decides again: 300 seeds of it.
#[test]
fn storms() {
    sweep(0..300);
}

/// The same over many more seeds.
#[test]
#[ignore = "minutes: cargo test -p synod-protocols --release --test raft_storms -- --ignored"]
fn many_storms() {
    sweep(1_000..11_000);
}
