//! Basic Paxos, as the simulator sees it.

use std::time::Duration;

use synod_check::verdict::Level;
use synod_core::{NodeId, Rng, Role};
use synod_protocols::paxos::{Ballot, Message, Mutant, Options, Paxos};
use synod_sim::family::{Family, Promise};
use synod_sim::script::Order;

/// Paxos with whatever options a seed draws.
pub(crate) struct PaxosFamily;

impl Family for PaxosFamily {
    type Protocol = Paxos;
    const NAME: &'static str = "paxos";
    const ORDER: Order = Order::Total;
    const LEVEL: Level = Level::Linearizable;

    /// Of each slot: what the acceptor must remember (2.5), and the ballot that a proposer has begun.
    fn promise(message: &Message, _: &Paxos) -> Option<Promise> {
        let (slot, ballot, accepts) = match message {
            Message::Prepare { slot, ballot } | Message::Promise { slot, ballot, .. } => {
                (*slot, *ballot, false)
            }
            Message::Accepted { slot, ballot } => (*slot, *ballot, true),
            _ => return None,
        };
        let term = number(ballot);
        Some(Promise { place: Some(slot), term, holds: accepts.then_some((slot, term)) })
    }

    fn forgot(promised: &Promise, protocol: &Paxos) -> Option<String> {
        let (slot, begun) = (promised.place?, ballot(promised.term));
        if protocol.may_begin_again(slot, begun) {
            return Some(format!("it has begun {begun:?} in {slot:?}, and may begin it once more"));
        }
        let (now, accepted) = protocol.acceptor_at(slot)?;
        if now < begun && !protocol.is(begun.node) {
            return Some(format!("it has promised {begun:?} in {slot:?}, and stands at {now:?}"));
        }
        let (_, by) = promised.holds?;
        let what = || format!("it has accepted {begun:?} in {slot:?}, and holds there {accepted:?}");
        accepted.is_none_or(|accepted| number(accepted) < by).then(what)
    }

    fn options(rng: &mut Rng) -> Options {
        let mut options =
            Options::timed(Duration::from_millis([20, 50, 100, 100, 200][rng.below(5) as usize]));
        options.patience = options.retry * rng.between(1, 4) as u32;
        options.backoff_min = options.retry / rng.between(2, 40) as u32;
        options.inflight_max = rng.between(1, 8) as usize;
        if rng.chance(0.3) {
            // Little of everything: messages at their limits.
            options.batch_bytes_max = rng.between(1, 500) as usize;
            options.learn_bytes_max = rng.between(1, 2_000) as usize;
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
        // Nobody is elected; this is how long a slot may stay open before somebody else takes it up, with room for a
        // second try; twice, because of several who outbid one another one may lose for long.
        options.patience * 10
    }

    fn standing(protocol: &Paxos) -> (Role, u64) {
        protocol.standing()
    }
}

/// A ballot as one number, in the order of ballots: simulated rounds, replicas and lives are few.
fn number(ballot: Ballot) -> u64 {
    ballot.round << 32 | ballot.node.0 << 16 | ballot.life
}

fn ballot(number: u64) -> Ballot {
    Ballot { round: number >> 32, node: NodeId(number >> 16 & 0xffff), life: number & 0xffff }
}
