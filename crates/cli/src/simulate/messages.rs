//! `synod simulate messages`: what a decision costs, counted in a world in which nothing goes wrong and no time passes.
//!
//! Every protocol of the simulator's table is given the same commands: one after the other, each decided before
//! the next is submitted; and sixteen at once, each in a batch of its own. Nothing is drawn from a clock, so the same program
//! gives the same figures.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{Command, Members, NodeId, Protocol, Time, Wire};
use synod_sim::family::Family;
use synod_sim::script::Cluster;

use super::families;

/// Commands in each measurement.
const COMMANDS: u64 = 160;
/// The bytes of each.
const PAYLOAD: usize = 256;
/// How long a cluster may take to get ready.
const READY: Duration = Duration::from_secs(30);
/// Rounds of syncing and delivering that one group of commands may take.
const ROUNDS_MAX: u32 = 64;

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    messages: u64,
    bytes: u64,
    syncs: u64,
}

/// What a decision cost on average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerDecision {
    pub(crate) messages: f64,
    pub(crate) bytes: f64,
    pub(crate) syncs: f64,
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

/// What a decision costs, one after the other and sixteen at once; nothing where time must pass for it.
type Counted = [Option<PerDecision>; 2];

fn count<F: Family>(nodes: u64) -> Option<Counted> {
    if !F::nodes().contains(&nodes) {
        return None;
    }
    let mut measured = Measured::<F::Protocol>::new(nodes);
    let at = measured.leader().unwrap_or(NodeId(1));
    let each = |count: u64| count as f64 / COMMANDS as f64;
    Some([1, 16].map(|at_once| {
        let cost = measured.submit(at, at_once)?;
        Some(PerDecision { messages: each(cost.messages), bytes: each(cost.bytes), syncs: each(cost.syncs) })
    }))
}

macro_rules! counters {
    ($($name:ident: $family:ident,)*) => {
        /// Every protocol, and how it is counted.
        fn counters() -> Vec<(&'static str, fn(u64) -> Option<Counted>)> {
            vec![$( (families::$family::NAME, count::<families::$family>), )*]
        }
    };
}

families::each_family!(counters);

/// What a decision costs with so many replicas, one after the other.
pub(crate) fn one_at_a_time(protocol: &str, nodes: u64) -> Option<PerDecision> {
    let (_, count) = counters().into_iter().find(|(name, _)| *name == protocol)?;
    count(nodes)?[0]
}

/// Prints the table.
pub(super) fn run() -> anyhow::Result<ExitCode> {
    println!("| protocol | replicas | messages | bytes | syncs | messages, 16 at once | bytes | syncs |");
    println!("|---|---|---|---|---|---|---|---|");
    for nodes in [3, 4, 5, 7, 9, 10] {
        for (name, count) in counters() {
            let Some(counted) = count(nodes) else { continue };
            let shown = counted.map(|cost| match cost {
                Some(cost) => format!("{:.2} | {:.0} | {:.2}", cost.messages, cost.bytes, cost.syncs),
                None => "needs time to pass | |".to_owned(),
            });
            println!("| {name} | {nodes} | {} | {} |", shown[0], shown[1]);
        }
    }
    Ok(ExitCode::SUCCESS)
}
