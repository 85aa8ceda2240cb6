//! Raft in networks that have fallen apart, in each of the eight shapes, with three, five and seven replicas.

#[path = "../../cli/src/simulate/families/mod.rs"]
#[allow(unused_macros, unused_imports, reason = "the table serves whoever includes it")]
mod families;

use std::time::Duration;

use families::RaftFamily;
use synod_core::{NodeId, Time};
use synod_sim::faults::FaultSet;
use synod_sim::partition::Shape;
use synod_sim::swarm::{self, Wishes};
use synod_sim::trace::Recorder;
use synod_sim::world::World;

/// A shape that leaves a majority whose members all reach one another must let them decide within this.
const ELECTIONS_MAX: u32 = 10;

/// Whether some majority is left whose members all reach one another, both ways.
fn leaves_a_quorum(nodes: u64, cuts: &[(NodeId, NodeId)]) -> bool {
    let reach =
        |a: u64, b: u64| !cuts.contains(&(NodeId(a), NodeId(b))) && !cuts.contains(&(NodeId(b), NodeId(a)));
    (0u64..1 << nodes).any(|set| {
        let members: Vec<u64> = (0..nodes).filter(|bit| set >> bit & 1 == 1).map(|bit| bit + 1).collect();
        members.len() as u64 > nodes / 2
            && members.iter().all(|a| members.iter().all(|b| a == b || reach(*a, *b)))
    })
}

/// How long after the network fell apart something new is decided, in election timeouts; none: not within thirty.
fn recovery(shape: Shape, nodes: u64, seed: u64) -> (bool, Option<f64>) {
    let options = [("election_timeout", "1s"), ("election_jitter", "1s"), ("heartbeat", "100ms")];
    let options = options.iter().chain(&[("pre_vote", "on"), ("check_quorum", "on"), ("lease_reads", "off")]);
    let options = options.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let wishes = Wishes { nodes: Some(nodes), faults: FaultSet::NONE, options, ..Wishes::default() };
    let mut plan = swarm::draw::<RaftFamily>(seed, &wishes).expect("these are possible");
    let election = plan.election;
    (plan.clients, plan.watchers) = (0, 0);
    let mut world = World::<RaftFamily>::new(seed, plan, Recorder::default());
    world.run_for(Duration::from_secs(10));
    let cuts = world.fall_apart(shape, seed);
    let quorum = leaves_a_quorum(nodes, &cuts);
    // What was under way may still be decided by what is cut off; what counts is what comes behind it.
    world.run_for(Duration::from_millis(500));
    let (began, before) = (world.now(), world.decided());
    while world.now() < began + election * 30 {
        (1..=nodes).for_each(|id| world.submit(NodeId(id)));
        world.run_for(Duration::from_millis(50));
        if world.decided() > before {
            let took = world.now().since(began) + Duration::from_millis(500);
            return (quorum, Some(took.as_secs_f64() / election.as_secs_f64()));
        }
    }
    assert_eq!(world.violation(), None);
    assert!(world.now() > Time::ZERO);
    (quorum, None)
}

/// Every shape, every size: what leaves a connected majority decides again within ten election timeouts.
#[test]
fn every_shape_that_leaves_a_quorum_recovers() {
    println!("{:<20}{:>6}{:>10}{:>10}{:>10}", "shape", "nodes", "quorum", "worst", "stuck");
    for shape in Shape::ALL {
        for nodes in [3, 5, 7] {
            let (mut worst, mut stuck, mut quorums) = (0.0f64, 0, 0);
            for seed in 1..=20 {
                let (quorum, took) = recovery(shape, nodes, seed);
                quorums += u64::from(quorum);
                match took {
                    Some(took) => worst = worst.max(took),
                    None => stuck += 1,
                }
                if quorum {
                    let took = took.unwrap_or(f64::INFINITY);
                    assert!(
                        took <= f64::from(ELECTIONS_MAX),
                        "{} of {nodes}, seed {seed}: {took:.1} election timeouts",
                        shape.name()
                    );
                }
            }
            println!("{:<20}{nodes:>6}{quorums:>7}/20{worst:>10.2}{stuck:>7}/20", shape.name());
        }
    }
}
