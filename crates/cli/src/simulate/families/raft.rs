//! Raft, as the simulator sees it.

use std::time::Duration;

use synod_check::verdict::Level;
use synod_core::{Index, Members, Rng, Role};
use synod_protocols::raft::{Body, Message, Mutant, Options, Purpose, Raft};
use synod_sim::family::{Clocks, Disruption, Family, LogEntry, Promise};
use synod_sim::machine::mix;
use synod_sim::script::Order;

/// Raft with whatever options a seed draws.
pub(crate) struct RaftFamily;

impl Family for RaftFamily {
    type Protocol = Raft;
    const NAME: &'static str = "raft";
    const ORDER: Order = Order::Total;
    const LEVEL: Level = Level::Linearizable;
    const ELECTS_BY_LOG: bool = true;

    /// "Persistent state on all servers, updated on stable storage before responding to RPCs" (figure 2).
    fn promise(message: &Message, sender: &Raft) -> Option<Promise> {
        let (term, holds) = match message {
            Message::Vote { term, granted: true, purpose } if *purpose != Purpose::Probe => (*term, None),
            // With nothing matched it tells an old leader of a new term, and promises nothing.
            Message::Appended { term, matched } if *matched > Index::ZERO => (*term, Some(*matched)),
            Message::HeartbeatAck { term, durable, .. } if *durable > Index::ZERO => (*term, Some(*durable)),
            _ => return None,
        };
        let (_, now) = sender.standing();
        // In a later term its log may rightly be another one by now.
        let held = holds.filter(|_| now == term).and_then(|at| Some((at, sender.term_at(at)?.0)));
        Some(Promise { place: None, term: term.0, holds: held })
    }

    fn forgot(promised: &Promise, protocol: &Raft) -> Option<String> {
        let (_, now) = protocol.standing();
        if now.0 < promised.term {
            return Some(format!("it took part in term {}, and is back in term {}", promised.term, now.0));
        }
        let (at, made_in) = promised.holds.filter(|_| now.0 == promised.term)?;
        let back = protocol.term_at(at).map(|term| term.0);
        let lies_in_snapshot = back.is_none() && at < protocol.first();
        let what = || {
            format!(
                "in term {} it held an entry of term {made_in} at {at:?}, and is back with {back:?} there",
                promised.term
            )
        };
        (back != Some(made_in) && !lies_in_snapshot).then(what)
    }

    fn durable(protocol: &Raft) -> Option<(Index, Members)> {
        let durable = protocol.durable();
        (durable.next() >= protocol.first()).then(|| (durable, protocol.members_at(durable).clone()))
    }

    fn options(rng: &mut Rng) -> Options {
        let election = Duration::from_millis([150, 150, 300, 300, 500, 1000, 2000][rng.below(7) as usize]);
        let heartbeat = election / [3, 5, 10, 10][rng.below(4) as usize];
        let mut options = Options::timed(heartbeat, election);
        // The narrower, the more often two campaign in one term.
        options.election_jitter = election / [1, 1, 2, 4][rng.below(4) as usize];
        options.pre_vote = rng.chance(0.75);
        options.check_quorum = rng.chance(0.6);
        options.lease_reads = options.check_quorum && rng.chance(0.5);
        if rng.chance(0.3) {
            // Little of everything: windows and messages at their limits.
            let bytes_max = 16 << rng.below(8);
            options.append_bytes_max = rng.between(1, bytes_max) as usize;
            options.inflight_max = rng.between(1, 4) as usize;
            if options.append_bytes_max < 100 {
                // One entry in each: whoever joins late must still catch up in time.
                options.inflight_max *= 4;
            }
        }
        if rng.chance(0.6) {
            // Whoever was away for a moment needs a snapshot.
            options.log_bytes_max = 100 << rng.below(8);
            options.backlog_bytes_max = options.log_bytes_max * rng.between(2, 10) as usize;
        }
        options.eager_start = rng.chance(0.5);
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

    fn disruption(options: &Options) -> Disruption {
        // Without both, a replica that hears nothing campaigns for ever and is heard, and a leader that is not
        // obeyed stays: Ongaro's thesis, 9.6; the Cloudflare incident of 2020.
        if options.pre_vote && options.check_quorum { Disruption::Harmless } else { Disruption::Harmful }
    }

    fn standing(protocol: &Raft) -> (Role, u64) {
        let (role, term) = protocol.standing();
        (role, term.0)
    }

    fn log(protocol: &Raft, entries: &mut Vec<LogEntry>) {
        entries.extend(protocol.entries().map(|(at, entry)| {
            let mut digest = entry.term.0;
            match &entry.body {
                Body::Batch(batch) => {
                    for command in batch.iter() {
                        digest = mix(mix(digest, command.id.origin.0), command.id.number);
                    }
                }
                Body::Members(members) => {
                    digest = members.all().fold(mix(digest, 1), |digest, node| mix(digest, node.0));
                }
            }
            LogEntry { at, term: entry.term.0, digest }
        }));
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
