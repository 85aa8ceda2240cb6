//! What a failure costs under primary-backup, measured: how long writes wait, and what is lost.
//!
//! The seed says of synchronous replication that "any backup that fails makes the whole system unavailable", and of asynchronous
//! replication that writes in the replication window are lost. Both are true until the view changes: here is for how long, and how
//! many. Three replicas, a write every millisecond at the primary; one replica, or every link of the primary, fails for good at a random
//! moment between two heartbeats. Links take 1 ms one way, disks 0.1 to 0.4 ms. The world is simulated, the code is what ships.
//!
//! `cargo run --release -p synod-sim --example failover` writes the table of `docs/protocols/primary-backup.md`.

#[path = "../../cli/src/simulate/families/backup.rs"]
mod backup;

use std::time::Duration;

use synod_core::{NodeId, Rng, Time};
use synod_sim::faults::FaultSet;
use synod_sim::swarm::{self, Wishes};
use synod_sim::trace::Recorder;
use synod_sim::world::World;

use backup::BackupFamily;

/// The heartbeat and election timeout of all rows: what `synod serve` has unless it is told otherwise.
const HEARTBEAT: Duration = Duration::from_millis(100);
const ELECTION: Duration = Duration::from_secs(1);

/// No trial waits longer than this.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Who fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// A backup loses its power.
    Backup,
    /// The primary does: what it sent before still arrives.
    Primary,
    /// The primary goes on, and so do its clients, but no other member hears it.
    CutOff,
}

struct Row {
    replication: &'static str,
    victim: Victim,
    backup_timeout_ms: u64,
}

/// What one trial came to, in milliseconds; and how many acknowledged writes it lost.
struct Trial {
    /// The longest time without a decision.
    blocked: f64,
    /// From the failure to the next view.
    view: f64,
    /// From the next view to the next decision.
    after: f64,
    lost: usize,
}

/// Trials for each row.
const TRIALS: u64 = 100;

fn main() -> Result<(), String> {
    println!(
        "| replication | fails | backup timeout | blocked, median (worst) | view, median | after, median | lost, median (worst) |"
    );
    println!("|---|---|---|---|---|---|---|");
    let row = |replication, victim, backup_timeout_ms| Row { replication, victim, backup_timeout_ms };
    for row in [
        row("sync", Victim::Backup, 300),
        row("sync", Victim::Backup, 1000),
        row("sync", Victim::Backup, 3000),
        row("sync", Victim::Primary, 1000),
        row("async", Victim::Backup, 1000),
        row("async", Victim::Primary, 1000),
        row("sync", Victim::CutOff, 1000),
        row("async", Victim::CutOff, 1000),
    ] {
        let all: Vec<Trial> = (1..=TRIALS).map(|seed| trial(seed, &row)).collect::<Result<_, _>>()?;
        let sorted = |of: fn(&Trial) -> f64| {
            let mut values: Vec<f64> = all.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let median = |values: &[f64]| values.get(values.len() / 2).copied().unwrap_or_default();
        let worst = |values: &[f64]| values.last().copied().unwrap_or_default();
        let (blocked, lost) = (sorted(|trial| trial.blocked), sorted(|trial| trial.lost as f64));
        let (view, after) = (sorted(|trial| trial.view), sorted(|trial| trial.after));
        println!(
            "| {} | {} | {} ms | {:.0} ms ({:.0} ms) | {:.0} ms | {:.0} ms | {} ({}) |",
            row.replication,
            match row.victim {
                Victim::Backup => "a backup",
                Victim::Primary => "the primary",
                Victim::CutOff => "the primary's links",
            },
            row.backup_timeout_ms,
            median(&blocked),
            worst(&blocked),
            median(&view),
            median(&after),
            median(&lost),
            worst(&lost),
        );
    }
    Ok(())
}

fn trial(seed: u64, row: &Row) -> Result<Trial, String> {
    let set = [
        ("replication", row.replication.to_owned()),
        ("heartbeat", format!("{}ms", HEARTBEAT.as_millis())),
        ("election_timeout", format!("{}ms", ELECTION.as_millis())),
        ("election_jitter", format!("{}ms", ELECTION.as_millis())),
        ("backup_timeout", format!("{}ms", row.backup_timeout_ms)),
        ("clock_drift_max", "100ms".to_owned()),
        ("lease_reads", "off".to_owned()),
        ("replicate_bytes_max", "524288".to_owned()),
        ("inflight_max", "64".to_owned()),
        ("log_bytes_max", "16777216".to_owned()),
        ("backlog_bytes_max", "268435456".to_owned()),
    ];
    let options = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let wishes = Wishes { nodes: Some(3), faults: FaultSet::NONE, options, ..Wishes::default() };
    let mut plan = swarm::draw::<BackupFamily>(seed, &wishes).map_err(|error| error.to_string())?;
    plan.rates = synod_sim::network::Rates::calm(Duration::from_millis(1), Duration::from_micros(100));
    plan.disk = (Duration::from_micros(100), Duration::from_micros(400));
    (plan.clients, plan.watchers, plan.applies_max, plan.snapshot_every) = (0, 0, 8192, 1_000_000);
    let mut rng = Rng::new(seed ^ 0xfa11);
    let mut world = World::<BackupFamily>::new(seed, plan, Recorder::default());
    // All three are in the view before anything fails.
    world.run_for(ELECTION * 4);
    let mut writes = Writes { last: world.now(), decided: world.decided(), longest: Duration::ZERO };
    let steady = Duration::from_millis(500) + rng.span(Duration::ZERO, HEARTBEAT);
    writes.go_on(&mut world, steady);
    let Some(primary) = world.leader() else { return Err(format!("seed {seed}: nobody is primary")) };
    let backup = (1..=3).map(NodeId).find(|id| *id != primary).unwrap_or(primary);
    let victim = if row.victim == Victim::Backup { backup } else { primary };
    let (_, _, term) = world.elected().unwrap_or((Time::ZERO, primary, 0));
    writes.longest = Duration::ZERO;
    match row.victim {
        Victim::Backup | Victim::Primary => world.take_down(victim),
        Victim::CutOff => {
            (1..=3).map(NodeId).filter(|id| *id != primary).for_each(|id| world.part(primary, id))
        }
    }
    let failed = world.now();
    let end = failed + WAIT_MAX;
    let begins = |world: &World<BackupFamily>| {
        world.elected().filter(|(at, _, newer)| *newer > term && *at > failed).map(|(at, ..)| at)
    };
    while begins(&world).is_none() && world.now() < end {
        writes.go_on(&mut world, Duration::from_millis(1));
    }
    let view = begins(&world).unwrap_or(end);
    let before = world.decided();
    while world.decided() == before && world.now() < end {
        writes.go_on(&mut world, Duration::from_millis(1));
    }
    let resumed = world.now();
    writes.go_on(&mut world, Duration::from_millis(500));
    if let Some(violation) = world.violation() {
        return Err(format!("seed {seed}: {violation}"));
    }
    let leader = world.leader().unwrap_or(primary);
    let (_, lost) = world.acknowledged(leader);
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    Ok(Trial {
        blocked: ms(writes.longest),
        view: ms(view.since(failed)),
        after: ms(resumed.since(view)),
        lost,
    })
}

/// A write every millisecond, and how long it has been since something was decided.
struct Writes {
    last: Time,
    decided: usize,
    longest: Duration,
}

impl Writes {
    fn go_on(&mut self, world: &mut World<BackupFamily>, span: Duration) {
        let end = world.now() + span;
        while world.now() < end {
            if let Some(primary) = world.leader() {
                world.submit(primary);
            }
            world.run_for(Duration::from_millis(1));
            if world.decided() > self.decided {
                self.longest = self.longest.max(world.now().since(self.last));
                (self.last, self.decided) = (world.now(), world.decided());
            }
        }
    }
}
