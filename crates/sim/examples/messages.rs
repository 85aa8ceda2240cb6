//! What a decision costs: messages, bytes and syncs, counted in a world in which nothing goes wrong and no time passes.
//!
//! `just messages`. Every protocol of the simulator's table is given the same commands: one after the other, each decided before
//! the next is submitted; and sixteen at once, each in a batch of its own. Nothing is drawn from a clock, so the same program
//! gives the same figures.

#[path = "../../cli/src/simulate/families/mod.rs"]
#[allow(unused_macros, unused_imports, reason = "the table serves whoever includes it")]
mod families;

use std::time::Duration;

use bytes::Bytes;
use synod_core::{Command, Members, NodeId, Protocol, Time, Wire};
use synod_sim::family::Family;
use synod_sim::script::Cluster;

/// Commands in each measurement.
const COMMANDS: u64 = 160;
/// The bytes of each.
const PAYLOAD: usize = 256;
/// How long a cluster may take to get ready.
const READY: Duration = Duration::from_secs(30);
/// Rounds of syncing and delivering that one group of commands may take.
const ROUNDS_MAX: u32 = 64;

#[derive(Default)]
struct Cost {
    messages: u64,
    bytes: u64,
    syncs: u64,
}

struct Measured<P: Protocol> {
    cluster: Cluster<P>,
    cost: Cost,
}

impl<P: Protocol> Measured<P> {
    /// A cluster that has come to rest after its first election, if it has such a thing.
    fn new(nodes: u64) -> Self {
        let members = Members::of((1..=nodes).map(NodeId));
        let cluster = Cluster::new(P::Options::default(), members, 7, u64::MAX);
        let mut measured = Measured { cluster, cost: Cost::default() };
        (1..=nodes).for_each(|id| measured.cluster.start(NodeId(id)));
        measured.settle();
        while measured.cluster.now < Time::ZERO + READY && measured.leader().is_none() {
            measured.pass();
        }
        // The followers come to know their leader.
        (0..20).for_each(|_| measured.pass());
        measured
    }

    /// Lets time pass to the next deadline, for all.
    fn pass(&mut self) {
        let replicas = self.cluster.nodes.values().filter_map(|node| node.replica.as_ref());
        let Some(next) = replicas.filter_map(|replica| replica.deadline()).min() else { return };
        self.cluster.now = next.max(self.cluster.now + Duration::from_micros(1));
        for id in self.ids() {
            self.cluster.with(id, |replica, now| replica.tick(now));
        }
        self.settle();
    }

    fn ids(&self) -> Vec<NodeId> {
        self.cluster.nodes.keys().copied().collect()
    }

    fn leader(&self) -> Option<NodeId> {
        let mut replicas = self.cluster.nodes.values().filter_map(|node| node.replica.as_ref());
        replicas.find(|replica| replica.status().leader == Some(replica.id())).map(|replica| replica.id())
    }

    /// Syncs all and delivers all, over and over, and counts.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for id in self.ids() {
                if self.cluster.sync(id) {
                    self.cost.syncs += 1;
                    moved = true;
                }
            }
            for flight in std::mem::take(&mut self.cluster.flights) {
                self.cost.messages += 1;
                self.cost.bytes += flight.packet.to_bytes().len() as u64;
                self.cluster.deliver(flight);
                moved = true;
            }
            if !moved {
                break;
            }
        }
        self.cluster.effects.clear();
    }

    /// Submits commands at one replica, so many at once, and counts what they cost in all; nothing when they are not decided
    /// without time passing.
    fn submit(&mut self, at: NodeId, at_once: u64) -> Option<Cost> {
        let before = self.applied(at);
        self.cost = Cost::default();
        for _ in 0..COMMANDS / at_once {
            for _ in 0..at_once {
                let id = self.cluster.command_id(at)?;
                let command = Command { id, payload: Bytes::from(vec![b'x'; PAYLOAD]) };
                self.cluster.with(at, |replica, _| replica.submit(command).expect("there is room"));
            }
            self.settle();
        }
        let all = self.applied(at) == before + COMMANDS;
        all.then(|| std::mem::take(&mut self.cost))
    }

    fn applied(&self, at: NodeId) -> u64 {
        let replica = self.cluster.nodes[&at].replica.as_ref();
        replica.map_or(0, |replica| replica.machine().applied.len() as u64)
    }
}

fn row<F: Family>(nodes: u64) {
    if !F::nodes().contains(&nodes) {
        return;
    }
    let mut measured = Measured::<F::Protocol>::new(nodes);
    let at = measured.leader().unwrap_or(NodeId(1));
    let shown = |cost: Option<Cost>| match cost {
        Some(cost) => {
            let each = |count: u64| count as f64 / COMMANDS as f64;
            format!("{:.2} | {:.0} | {:.2}", each(cost.messages), each(cost.bytes), each(cost.syncs))
        }
        None => "needs time to pass | |".to_owned(),
    };
    let one = shown(measured.submit(at, 1));
    let many = shown(measured.submit(at, 16));
    println!("| {} | {nodes} | {one} | {many} |", F::NAME);
}

macro_rules! rows {
    ($($name:ident: $family:ident,)*) => {
        /// Every protocol, with so many replicas.
        fn rows(nodes: u64) {
            $( row::<families::$family>(nodes); )*
        }
    };
}

families::each_family!(rows);

fn main() {
    println!("| protocol | replicas | messages | bytes | syncs | messages, 16 at once | bytes | syncs |");
    println!("|---|---|---|---|---|---|---|---|");
    for nodes in [3, 4, 5, 7, 9] {
        rows(nodes);
    }
}
