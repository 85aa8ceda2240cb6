//! How fast simulated time runs: a busy Raft cluster of three on one core, and what a swarm's seeds cost.
//!
//! `just bench-sim` runs it. Busy means: five clients without a pause worth speaking of, a heartbeat of 100 ms, snapshots,
//! a watcher, two leases a minute; once in calm weather, once with all faults. One thread; seconds are
//! those that it spent on a processor.

#[path = "../../cli/src/simulate/families/mod.rs"]
#[allow(unused_macros, unused_imports, reason = "the table serves whoever includes it")]
mod families;

use std::time::Duration;

use families::RaftFamily;
use synod_sim::faults::FaultSet;
use synod_sim::swarm::{self, Wishes};
use synod_sim::sweep;
use synod_sim::trace::Recorder;
use synod_sim::world::World;

fn main() {
    let span =
        Duration::from_secs(std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(2_000));
    println!(
        "{:<36}{:>9}{:>12}{:>12}{:>16}",
        "one core", "sim s/s", "events/s", "commands/s", "commands/sim s"
    );
    for (name, think) in [("busy, think 40..400 ms", 400), ("very busy, think 10..100 ms", 100)] {
        let wishes = Wishes {
            nodes: Some(3),
            faults: FaultSet::NONE,
            options: [("election_timeout", "1s"), ("election_jitter", "1s"), ("heartbeat", "100ms")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..Wishes::default()
        };
        let mut plan = swarm::draw::<RaftFamily>(1, &wishes).expect("three replicas are possible");
        (plan.clients, plan.watchers, plan.keys) = (5, 1, 6);
        plan.think = Duration::from_millis(think);
        plan.operations_max = usize::MAX;
        plan.snapshot_every = 2_000;
        let began = Clock::start();
        let mut world = World::<RaftFamily>::new(1, plan, Recorder::default());
        world.run_for(span);
        let wall = began.seconds();
        assert_eq!(world.violation(), None);
        show(name, span.as_secs_f64(), wall, world.events_handled(), world.decided() as u64);
    }
    let wishes = Wishes { nodes: Some(3), ..Wishes::default() };
    let began = Clock::start();
    let (mut simulated, mut events, mut decided) = (0.0, 0, 0);
    for seed in 0..span.as_secs() / 40 {
        let outcome = sweep::run::<RaftFamily>(seed, &wishes, Recorder::default()).expect("it runs");
        assert_eq!(outcome.violation, None);
        simulated += outcome.simulated.as_secs_f64();
        events += outcome.counts.events;
        decided += outcome.decided;
    }
    show("a swarm's seeds, all faults, judged", simulated, began.seconds(), events, decided);
}

/// What this thread has used of a processor: on a machine that others use, too, the wall's clock says little.
struct Clock(u64);

impl Clock {
    fn start() -> Clock {
        Clock(Clock::used())
    }

    /// Nanoseconds on a processor, from Linux's own accounting.
    fn used() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this measures on Linux");
        let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
        first.expect("schedstat begins with a number")
    }

    fn seconds(&self) -> f64 {
        (Clock::used() - self.0) as f64 / 1e9
    }
}

fn show(name: &str, simulated: f64, wall: f64, events: u64, decided: u64) {
    let per = |count: u64| count as f64 / wall;
    println!(
        "{name:<36}{:>9.0}{:>12.0}{:>12.0}{:>16.1}",
        simulated / wall,
        per(events),
        per(decided),
        decided as f64 / simulated
    );
}
