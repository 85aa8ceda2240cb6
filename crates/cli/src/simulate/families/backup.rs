//! Primary-backup, as the simulator sees it: synchronous and asynchronous in one family, because a seed draws which.

use std::time::Duration;

use synod_check::verdict::Level;
use synod_core::{Index, Rng, Role};
use synod_protocols::backup::{
    AfterLoss, Ballot, Body, Message, Mutant, Options, PrimaryBackup, Replication, ViewNumber,
};
use synod_sim::family::{Clocks, Family, Finality, LogEntry, Promise};
use synod_sim::machine::mix;
use synod_sim::script::Order;

/// Primary-backup with whatever options a seed draws.
pub(crate) struct BackupFamily;

impl Family for BackupFamily {
    type Protocol = PrimaryBackup;
    const NAME: &'static str = "primary-backup";
    const ORDER: Order = Order::Total;
    const LEVEL: Level = Level::Linearizable;

    /// Of the view after each view: what was promised and accepted about it. Of a view: that it has begun, once its primary speaks in it.
    fn promise(message: &Message, _: &PrimaryBackup) -> Option<Promise> {
        let (view, ballot, accepts) = match message {
            Message::Replicate { view, .. } => {
                return Some(Promise { place: None, term: view.0, holds: None });
            }
            Message::Heartbeat { view, .. } => {
                return Some(Promise { place: None, term: view.number.0, holds: None });
            }
            Message::Prepare { view, ballot } => (view.number, *ballot, false),
            Message::Promise { view, ballot, .. } => (*view, *ballot, false),
            Message::Accepted { view, ballot } => (*view, *ballot, true),
            _ => return None,
        };
        let (place, term) = (Index(view.0), number(ballot));
        Some(Promise { place: Some(place), term, holds: accepts.then_some((place, term)) })
    }

    fn forgot(promised: &Promise, protocol: &PrimaryBackup) -> Option<String> {
        let now = protocol.view().number.0;
        let known = promised.place.map_or(promised.term, |view| view.0);
        if now < known {
            return Some(format!("it took part in view {known}, and knows of view {now} only"));
        }
        let view = promised.place.filter(|view| view.0 == now)?;
        let (ballot, accepted) = protocol.register();
        if number(ballot) < promised.term {
            let term = promised.term;
            return Some(format!(
                "it has promised ballot {term} about the view after {view:?}, and stands at {ballot:?}"
            ));
        }
        let (_, by) = promised.holds?;
        let what =
            || format!("it has accepted ballot {by} about the view after {view:?}, and holds {accepted:?}");
        accepted.is_none_or(|accepted| number(accepted) < by).then(what)
    }

    fn level(options: &Options) -> Level {
        match options.replication {
            Replication::Sync => Level::Linearizable,
            // What a failover loses was seen, and is seen no more.
            Replication::Async => Level::Eventual,
        }
    }

    fn finality(options: &Options) -> Finality {
        match options.replication {
            Replication::Sync => Finality::Certain,
            Replication::Async => Finality::Revocable,
        }
    }

    fn options(rng: &mut Rng) -> Options {
        let election = Duration::from_millis([150, 150, 300, 300, 500, 1000, 2000][rng.below(7) as usize]);
        let heartbeat = election / [3, 5, 10, 10][rng.below(4) as usize];
        let mut options = Options::timed(heartbeat, election);
        // The narrower, the more often two would lead at once.
        options.election_jitter = election / [1, 1, 2, 4][rng.below(4) as usize];
        options.backup_timeout = heartbeat * rng.between(2, 12) as u32;
        options.lease_reads = rng.chance(0.5);
        if rng.chance(0.4) {
            options.replication = Replication::Async;
        }
        if rng.chance(0.5) {
            options.after_loss = AfterLoss::Serve;
        }
        if rng.chance(0.3) {
            // Little of everything: windows and messages at their limits.
            options.replicate_bytes_max = rng.between(1, 2_000) as usize;
            options.inflight_max = rng.between(1, 4) as usize;
        }
        if rng.chance(0.6) {
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

    fn admits_loss(protocol: &PrimaryBackup) -> bool {
        protocol.view().loss > ViewNumber(0)
    }

    fn standing(protocol: &PrimaryBackup) -> (Role, u64) {
        protocol.standing()
    }

    fn log(protocol: &PrimaryBackup, entries: &mut Vec<LogEntry>) {
        if protocol.view().replication == Replication::Async || protocol.view().loss > ViewNumber(0) {
            return; // Whose log is complete, and for how long, is not promised.
        }
        entries.extend(protocol.entries().map(|(at, entry)| {
            let mut digest = entry.view.0;
            match &entry.body {
                Body::Batch(batch) => {
                    for command in batch.iter() {
                        digest = mix(mix(digest, command.id.origin.0), command.id.number);
                    }
                }
                Body::Begin(members) => {
                    digest = members.all().fold(mix(digest, 1), |digest, node| mix(digest, node.0));
                }
            }
            LogEntry { at, term: entry.view.0, digest }
        }));
    }

    fn clocks(options: &Options) -> Clocks {
        if !options.lease_reads && options.replication == Replication::Sync {
            return Clocks::Free;
        }
        // The lease is shorter than the timeout by `clock_drift_max`: clocks may differ by that share.
        let share = options.clock_drift_max.as_secs_f64() / options.election_timeout.as_secs_f64();
        Clocks::Bounded((share * 900_000.0) as u32)
    }
}

/// A ballot as one number, in the order of ballots: simulated replicas are few.
fn number(ballot: Ballot) -> u64 {
    ballot.round << 16 | ballot.node.0
}
