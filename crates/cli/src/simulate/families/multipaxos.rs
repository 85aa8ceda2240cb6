//! Multi-Paxos, as the simulator sees it.

use std::time::Duration;

use synod_check::verdict::Level;
use synod_core::{Rng, Role};
use synod_protocols::multipaxos::{MultiPaxos, Mutant, Options};
use synod_sim::family::{Clocks, Family};
use synod_sim::script::Order;

/// Multi-Paxos with whatever options a seed draws.
pub(crate) struct MultiPaxosFamily;

impl Family for MultiPaxosFamily {
    type Protocol = MultiPaxos;
    const NAME: &'static str = "multipaxos";
    const ORDER: Order = Order::Total;
    const LEVEL: Level = Level::Linearizable;

    fn options(rng: &mut Rng) -> Options {
        let election = Duration::from_millis([150, 300, 500, 1000, 1000, 2000][rng.below(6) as usize]);
        let heartbeat = election / [3, 5, 10, 10][rng.below(4) as usize];
        let mut options = Options::timed(heartbeat, election);
        options.lease_reads = rng.chance(0.3);
        if rng.chance(0.3) {
            // Little of everything: windows, memory and messages at their limits.
            options.accept_bytes_max = rng.between(1, 2_000) as usize;
            options.inflight_max = rng.between(1, 4) as usize;
            options.window_max = rng.between(1, 8);
            options.log_bytes_max = rng.between(100, 20_000) as usize;
            options.backlog_bytes_max = options.log_bytes_max * rng.between(2, 10) as usize;
        }
        // The narrower, the more often two campaign at a time.
        options.election_jitter = election / [1, 1, 2, 4][rng.below(4) as usize];
        if rng.chance(0.4) {
            // Whoever was away for a moment needs a snapshot.
            options.log_bytes_max = 100 << rng.below(8);
            options.backlog_bytes_max = options.log_bytes_max * rng.between(2, 10) as usize;
        }
        options
    }

    fn set(options: &mut Options, name: &str, value: &str) -> bool {
        options.set(name, value)
    }

    fn mutants() -> Vec<(&'static str, &'static str)> {
        Mutant::ALL.iter().map(|mutant| (mutant.name(), mutant.story().trim())).collect()
    }

    fn election_timeout(options: &Options) -> Duration {
        options.election_timeout + options.election_jitter
    }

    fn standing(protocol: &MultiPaxos) -> (Role, u64) {
        let (role, ballot) = protocol.standing();
        // A ballot is a round and whose it is: two replicas may lead in one round, one after the other.
        (role, ballot.round.saturating_mul(BALLOTS_PER_ROUND).saturating_add(ballot.leader.0))
    }

    fn clocks(options: &Options) -> Clocks {
        if !options.lease_reads {
            return Clocks::Free;
        }
        // The lease is shorter than the timeout by `clock_drift_max`: clocks may differ by that share.
        let share = options.clock_drift_max.as_secs_f64() / options.election_timeout.as_secs_f64();
        Clocks::Bounded((share * 900_000.0) as u32)
    }
}

/// More than there are replicas in a simulated world.
const BALLOTS_PER_ROUND: u64 = 1000;
