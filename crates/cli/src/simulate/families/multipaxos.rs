//! Multi-Paxos, as the simulator sees it.

use std::time::Duration;

use synod_check::verdict::Level;
use synod_core::{Index, Rng, Role};
use synod_protocols::multipaxos::{Ballot, Message, MultiPaxos, Mutant, Options};
use synod_sim::family::{Clocks, Family, Promise};
use synod_sim::script::Order;

/// Multi-Paxos with whatever options a seed draws.
pub(crate) struct MultiPaxosFamily;

impl Family for MultiPaxosFamily {
    type Protocol = MultiPaxos;
    const NAME: &'static str = "multipaxos";
    const ORDER: Order = Order::Total;
    const LEVEL: Level = Level::Linearizable;

    /// An acceptor's ballot and values, and the ballot that a proposer has begun (PMMC, figures 4 and 6).
    fn promise(message: &Message, sender: &MultiPaxos) -> Option<Promise> {
        let (ballot, through) = match message {
            Message::Prepare { ballot, .. } | Message::Promise { ballot, .. } => (*ballot, Index::ZERO),
            Message::Accepted { ballot, through, .. } => (*ballot, *through),
            // It does not wait for the disk: only what it says of that is a promise.
            Message::HeartbeatAck { ballot, durable, .. } if *durable > sender.decided() => {
                (*ballot, *durable)
            }
            _ => return None,
        };
        // What is decided counts as accepted, by whichever ballot.
        let holds = (through > sender.decided()).then(|| (through, number(ballot)));
        Some(Promise { place: None, term: number(ballot), holds })
    }

    fn forgot(promised: &Promise, protocol: &MultiPaxos) -> Option<String> {
        let (_, now) = Self::standing(protocol);
        if now < promised.term {
            return Some(format!("it has promised ballot {}, and is in ballot {now}", promised.term));
        }
        let (at, ballot) = promised.holds.filter(|(at, _)| *at > protocol.base())?;
        let held = protocol.accepted_at(at);
        let what = || format!("it has accepted {at:?} in ballot {ballot}, and holds there {held:?}");
        held.is_none_or(|held| number(held) < ballot).then(what)
    }

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
        (role, number(ballot))
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

/// A ballot is a round and whose it is: two replicas may lead in one round, one after the other.
fn number(ballot: Ballot) -> u64 {
    ballot.round.saturating_mul(BALLOTS_PER_ROUND).saturating_add(ballot.leader.0)
}
