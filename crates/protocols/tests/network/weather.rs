//! What may go wrong in a network, and how often: drawn from a seed.

use std::time::Duration;

use synod_core::Rng;
use synod_protocols::raft::Options;

/// What may go wrong, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) nodes: u64,
    pub(crate) loss: f64,
    pub(crate) doubling: f64,
    pub(crate) delay_max: Duration,
    pub(crate) sync_max: Duration,
    /// The mean time between two faults; none when zero.
    pub(crate) fault_every: Duration,
    /// Deliveries between snapshots.
    pub(crate) snapshot_every: u64,
    /// The chance that a new leader crashes within a few message delays.
    pub(crate) curse: f64,
    /// The chance that a new leader is asked for another configuration or to hand over within a few message delays.
    pub(crate) meddling: f64,
    pub(crate) options: Options,
}

/// A weather drawn from the seed.
pub(crate) fn drawn(seed: u64) -> Weather {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let pick = |rng: &mut Rng, choices: &[f64]| choices[rng.below(choices.len() as u64) as usize];
    let heartbeat = Duration::from_millis(20);
    let mut options = Options::timed(heartbeat, Duration::from_millis(rng.between(100, 300)));
    options.pre_vote = rng.chance(0.7);
    options.check_quorum = options.pre_vote || rng.chance(0.7);
    options.lease_reads = options.check_quorum && rng.chance(0.3);
    options.append_bytes_max = [100, 1000, 100_000][rng.below(3) as usize];
    options.inflight_max = [1, 2, 8, 64][rng.below(4) as usize];
    options.log_bytes_max = [500, 5_000, 100_000][rng.below(3) as usize];
    options.backlog_bytes_max = options.log_bytes_max * 20;
    Weather {
        nodes: rng.between(1, 5),
        loss: pick(&mut rng, &[0.0, 0.0, 0.05, 0.2, 0.3]),
        doubling: pick(&mut rng, &[0.0, 0.1, 0.5]),
        delay_max: Duration::from_millis(rng.between(1, 30)),
        sync_max: Duration::from_millis(rng.between(0, 20)),
        fault_every: Duration::from_millis(rng.between(50, 1000)),
        curse: pick(&mut rng, &[0.0, 0.0, 0.3]),
        meddling: pick(&mut rng, &[0.0, 0.0, 0.5]),
        snapshot_every: [5, 20, 200, 1_000_000][rng.below(4) as usize],
        options,
    }
}
