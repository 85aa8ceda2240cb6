//! Causal broadcast, the shipped log and the shipped store in the simulator: what it promises that no total order can.
//! (The sweeps of all protocols are in `sweeps.rs`.)

#[path = "../../cli/src/simulate/families/causal.rs"]
mod causal;

use std::time::Duration;

use causal::CausalFamily;
use synod_core::{NodeId, Vector};
use synod_sim::faults::FaultSet;
use synod_sim::swarm::{self, Wishes};
use synod_sim::trace::Recorder;
use synod_sim::world::World;

fn quiet_world(nodes: u64) -> World<CausalFamily> {
    let wishes = Wishes {
        nodes: Some(nodes),
        faults: FaultSet::NONE,
        safety: Duration::from_secs(600),
        options: vec![("gossip".to_owned(), "50ms".to_owned()), ("resend".to_owned(), "100ms".to_owned())],
        ..Wishes::default()
    };
    let mut plan = swarm::draw::<CausalFamily>(1, &wishes).expect("so many replicas are possible");
    plan.snapshot_every = 10;
    plan.options.retain_bytes_max = 2_000;
    let mut world = World::new(1, plan, Recorder::default());
    world.hush();
    world.run_for(Duration::from_secs(1));
    world
}

fn vector(world: &World<CausalFamily>, id: u64) -> Vector {
    world.vector(NodeId(id)).cloned().expect("the replica is up")
}

fn everything_parted(world: &mut World<CausalFamily>, nodes: u64) {
    for one in 1..=nodes {
        for other in one + 1..=nodes {
            world.part(NodeId(one), NodeId(other));
        }
    }
}

/// Five replicas, each alone: each applies what it is given within one write of its disk, for as long as the partition lasts. It lasts
/// so long that all of them forget what the others lack; when it heals, all have everything, by merging.
#[test]
fn each_alone_in_a_partition_takes_writes() {
    let mut world = quiet_world(5);
    everything_parted(&mut world, 5);
    for round in 1..=60 {
        for id in 1..=5 {
            world.submit(NodeId(id));
        }
        world.run_for(Duration::from_millis(50));
        for id in 1..=5 {
            assert_eq!(vector(&world, id), Vector::from_iter([(NodeId(id), round)]), "alone, n{id} goes on");
        }
    }
    assert_eq!(world.decided(), 300);
    world.mend_links();
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.violation(), None);
    let all = Vector::from_iter((1..=5).map(|id| (NodeId(id), 60)));
    // Where two had snapshots of different states at one position, one of them moved on by a cast that says nothing.
    let first = vector(&world, 1);
    assert!(first.dominates(&all), "n1 has everything: {first:?}");
    for id in 2..=5 {
        assert_eq!(vector(&world, id), first, "n{id} has what n1 has");
    }
    let contents: Vec<u64> = (1..=5).filter_map(|id| world.contents(NodeId(id))).collect();
    assert_eq!(contents, [contents[0]; 5], "all hold the same");
}

/// Two of three are gone for good: the third goes on, and nothing that it answered is lost when all power fails.
#[test]
fn one_left_of_three_goes_on() {
    let mut world = quiet_world(3);
    world.take_down(NodeId(2));
    world.take_down(NodeId(3));
    for _ in 0..10 {
        world.submit(NodeId(1));
        world.run_for(Duration::from_millis(50));
    }
    assert_eq!(vector(&world, 1), Vector::from_iter([(NodeId(1), 10)]));
    assert_eq!(world.violation(), None);
}
