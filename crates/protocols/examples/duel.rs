//! How long an adversary can keep two duelling proposers from choosing anything, and what random waits do to it.
//!
//! Fischer, Lynch and Paterson (1985): no deterministic algorithm decides in every legal schedule. For Paxos the schedule is known
//! (Paxos Made Simple, 2.4): two proposers, and each one's Accept comes right behind the other's next Prepare. The adversary
//! here does just that to n1 and n3 of three replicas, who reach one another through n2 alone. It delays only
//! Accepts, and none by more than its reach. Without jitter that is enough for ever. With jitter a proposer that was outbid
//! waits for a random time which doubles with each loss, and the adversary loses as soon as one wait is longer than its reach.
//!
//! `cargo run --release -p synod-protocols --example duel` prints the table of `docs/protocols/paxos.md`.

use std::time::Duration;

use bytes::Bytes;
use synod_core::{Command, Members, NodeId, Time};
use synod_protocols::paxos::{Ballot, Message, Options, Paxos};
use synod_replica::Packet;
use synod_sim::script::{Cluster, Flight};

/// From replica to replica.
const DELAY: Duration = Duration::from_millis(1);

/// A duel of so many ballots counts as endless.
const BALLOTS_MAX: usize = 10_000;

/// Trials for each row with jitter.
const TRIALS: u64 = 1000;

const REACHES_MS: [u64; 6] = [2, 5, 20, 80, 320, 640];

struct Duel {
    cluster: Cluster<Paxos>,
    /// What is under way, and when it arrives; an Accept counts the adversary's whole reach in.
    under_way: Vec<(Time, Flight<Paxos>)>,
    reach: Duration,
    ballots: usize,
}

fn message(flight: &Flight<Paxos>) -> Option<&Message> {
    match &flight.packet {
        Packet::Protocol(message) => Some(message),
        _ => None,
    }
}

impl Duel {
    fn new(reach: Duration, jitter: bool, seed: u64) -> Duel {
        // Only the duel moves time: nobody gossips, and no message is said again.
        let hour = Duration::from_secs(3600);
        let options = Options { jitter, retry: hour, patience: hour, gossip: hour, ..Options::default() };
        let members = Members::of([1, 2, 3].map(NodeId));
        let mut cluster = Cluster::new(options, members, seed, u64::MAX);
        [1, 2, 3].map(NodeId).iter().for_each(|id| cluster.start(*id));
        cluster.flights.clear();
        Duel { cluster, under_way: Vec::new(), reach, ballots: 0 }
    }

    fn submit(&mut self, id: u64) {
        let id = NodeId(id);
        let name = self.cluster.command_id(id).expect("the node is there");
        let command = Command { id: name, payload: Bytes::from_static(b"x") };
        self.cluster.with(id, |replica, _| replica.submit(command).expect("there is room"));
        self.gather();
    }

    /// Disks are as fast as thought; what was sent is on its way.
    fn gather(&mut self) {
        [1, 2, 3].map(NodeId).iter().for_each(|id| {
            self.cluster.sync(*id);
        });
        while let Some(flight) = self.cluster.flights.pop_front() {
            let meets = flight.from == NodeId(2) || flight.to == NodeId(2);
            if !meets {
                continue;
            }
            let Some(message) = message(&flight) else { continue };
            let held = if matches!(message, Message::Accept { .. }) { self.reach } else { Duration::ZERO };
            self.ballots += usize::from(matches!(message, Message::Prepare { .. }));
            self.under_way.push((self.cluster.now + DELAY + held, flight));
        }
    }

    /// The next thing happens; none when the duel is over.
    fn step(&mut self) {
        let arrival = self.under_way.iter().map(|(at, _)| *at).min();
        let deadlines = self.cluster.nodes.values().filter_map(|node| node.replica.as_ref()?.deadline());
        let wake_up = deadlines.min();
        let next = arrival.into_iter().chain(wake_up).min().expect("something is always due");
        self.cluster.now = self.cluster.now.max(next);
        if arrival == Some(next) {
            let place = self.under_way.iter().position(|(at, _)| *at == next).expect("it is under way");
            let (_, flight) = self.under_way.remove(place);
            self.arrive(flight);
        } else {
            for id in [1, 2, 3].map(NodeId) {
                self.cluster.with(id, |replica, now| replica.tick(now));
            }
        }
        self.gather();
    }

    fn arrive(&mut self, flight: Flight<Paxos>) {
        let outbid_by = match message(&flight) {
            Some(Message::Prepare { ballot, .. }) => Some(*ballot),
            _ => None,
        };
        self.cluster.deliver(flight);
        // The other's Accept has been outbid: the adversary lets it go, to be refused.
        let now = self.cluster.now;
        let loses = |flight: &Flight<Paxos>, by: Ballot| matches!(message(flight), Some(Message::Accept { ballot, .. }) if *ballot < by);
        for (at, flight) in &mut self.under_way {
            if outbid_by.is_some_and(|by| loses(flight, by)) {
                *at = now + DELAY;
            }
        }
    }

    fn is_decided(&self) -> bool {
        self.cluster
            .nodes
            .values()
            .any(|node| node.replica.as_ref().is_some_and(|replica| replica.status().decided.0 >= 1))
    }

    /// The ballots that were begun, and the time that passed, until slot 1 was decided; none when it never was.
    fn run(mut self) -> Option<(usize, Duration)> {
        self.submit(3);
        // n1 comes when n3 has its majority of promises, and its Accept is under way.
        while !self
            .under_way
            .iter()
            .any(|(_, flight)| matches!(message(flight), Some(Message::Accept { .. })))
        {
            self.step();
        }
        self.submit(1);
        while !self.is_decided() {
            if self.ballots > BALLOTS_MAX {
                return None;
            }
            self.step();
        }
        Some((self.ballots, self.cluster.now.since(Time::ZERO)))
    }
}

fn main() {
    println!(
        "| the adversary holds an Accept back for up to | without jitter | with jitter: ballots, median (worst) | time, median (worst) |"
    );
    println!("|---|---|---|---|");
    for reach_ms in REACHES_MS {
        let reach = Duration::from_millis(reach_ms);
        let plain = match Duel::new(reach, false, 1).run() {
            Some((ballots, _)) => format!("{ballots} ballots"),
            None => format!("nothing chosen in {BALLOTS_MAX} ballots"),
        };
        let jittered = match Duel::new(reach, true, 0).run() {
            // The first duel that does not end stands for all: the reach is longer than any wait.
            None => format!("nothing chosen in {BALLOTS_MAX} ballots | never"),
            Some(_) => {
                let runs = (0..TRIALS).filter_map(|seed| Duel::new(reach, true, seed).run());
                let (mut ballots, mut times): (Vec<usize>, Vec<Duration>) = runs.unzip();
                ballots.sort_unstable();
                times.sort_unstable();
                let (middle, last) = (ballots.len() / 2, ballots.len() - 1);
                let (median, worst) = (times[middle].as_millis(), times[last].as_millis());
                let endless = TRIALS as usize - ballots.len();
                let endless = if endless > 0 { format!(", {endless} endless") } else { String::new() };
                format!("{} ({}{endless}) | {median} ms ({worst} ms)", ballots[middle], ballots[last])
            }
        };
        println!("| {reach_ms} ms | {plain} | {jittered} |");
    }
}
