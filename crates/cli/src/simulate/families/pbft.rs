//! PBFT, as the simulator sees it.

use std::time::Duration;

use synod_check::verdict::Level;
use synod_core::{Rng, Role};
use synod_protocols::pbft::{Options, Pbft};
use synod_sim::family::Family;
use synod_sim::script::Order;

/// PBFT with whatever options a seed draws.
pub(crate) struct PbftFamily;

impl Family for PbftFamily {
    type Protocol = Pbft;
    const NAME: &'static str = "pbft";
    const ORDER: Order = Order::Total;
    const LEVEL: Level = Level::Linearizable;

    fn nodes() -> std::ops::RangeInclusive<u64> {
        4..=10
    }

    fn losses_max(nodes: usize) -> usize {
        // What a quorum leaves: f, and one more where n is not 3f + 1.
        let liars = Self::liars_max(nodes);
        nodes - ((nodes + liars) / 2 + 1)
    }

    fn liars_max(nodes: usize) -> usize {
        nodes.saturating_sub(1) / 3
    }

    fn options(rng: &mut Rng) -> Options {
        let view_timeout = Duration::from_millis([300, 500, 1000, 1000, 2000][rng.below(5) as usize]);
        let mut options = Options {
            view_timeout,
            heartbeat: view_timeout / [4, 8, 10, 20][rng.below(4) as usize],
            checkpoint_every: rng.between(1, 40),
            ..Options::default()
        };
        options.window = options.checkpoint_every * rng.between(2, 6);
        options.inflight_max = rng.between(1, 16);
        options.requests_max = rng.between(1, 16) as usize;
        options.snapshot_every = [3, 10, 30, 100, 1000][rng.below(5) as usize];
        options.snapshot_bytes = 0;
        if rng.chance(0.4) {
            // Little of everything: memory and messages at their limits.
            options.proposal_bytes_max = rng.between(1, 2_000) as usize;
            options.log_bytes_max = rng.between(100, 20_000) as usize;
        }
        options
    }

    fn set(options: &mut Options, name: &str, value: &str) -> bool {
        options.set(name, value)
    }

    fn election_timeout(options: &Options) -> Duration {
        // A request goes to all after a quarter of the time, or with the next heartbeat.
        options.view_timeout + options.view_timeout / 4 + options.heartbeat
    }

    fn standing(protocol: &Pbft) -> (Role, u64) {
        let (role, view) = protocol.standing();
        (role, view.0)
    }
}

