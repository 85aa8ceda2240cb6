//! Causal broadcast, as the simulator sees it.

use std::time::Duration;

use synod_check::verdict::Level;
use synod_core::Rng;
use synod_protocols::causal::{Causal, Mutant, Options};
use synod_sim::family::{Family, Reads, Sessions};
use synod_sim::script::Order;

/// Causal broadcast with whatever options a seed draws.
pub(crate) struct CausalFamily;

impl Family for CausalFamily {
    type Protocol = Causal;
    const NAME: &'static str = "causal";
    const ORDER: Order = Order::Causal;
    const LEVEL: Level = Level::CausalConvergence;
    const READS: Reads = Reads::Local;

    /// Each goes on alone.
    fn losses_max(nodes: usize) -> usize {
        nodes.saturating_sub(1)
    }

    fn sessions(options: &Options) -> Sessions {
        if options.ignores_tokens() { Sessions::Ignored } else { Sessions::Carried }
    }

    fn options(rng: &mut Rng) -> Options {
        let gossip = Duration::from_millis([10, 20, 50, 100, 100, 200][rng.below(6) as usize]);
        let mut options = Options::timed(gossip);
        options.resend = gossip * [1, 2, 3, 5][rng.below(4) as usize];
        options.inflight_max = rng.between(1, 4) as usize;
        if rng.chance(0.4) {
            // Little of everything: memory and messages at their limits.
            options.cast_bytes_max = rng.between(1, 2_000) as usize;
            options.retain_bytes_max = rng.between(100, 8_000) as usize;
            options.waiting_bytes_max = rng.between(1, 4_000) as usize;
            options.backlog_bytes_max = rng.between(500, 20_000) as usize;
        }
        options
    }

    fn set(options: &mut Options, name: &str, value: &str) -> bool {
        options.set(name, value)
    }

    fn mutants() -> Vec<(&'static str, &'static str)> {
        Mutant::ALL.iter().map(|mutant| (mutant.name(), mutant.story().trim())).collect()
    }

    /// Nobody is elected: this is how long what was lost may take to be said again.
    fn election_timeout(options: &Options) -> Duration {
        options.resend * 10
    }
}
