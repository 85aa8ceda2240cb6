//! PBFT among liars that work together: as many as it bears, and one more.

#[path = "../../cli/src/simulate/families/pbft.rs"]
mod pbft;

use std::time::Duration;

use pbft::PbftFamily;
use synod_core::NodeId;
use synod_sim::faults::FaultSet;
use synod_sim::swarm::{self, Wishes};
use synod_sim::sweep;
use synod_sim::trace::Recorder;
use synod_sim::world::World;

fn wishes(liars: usize) -> Wishes {
    Wishes {
        nodes: Some(4),
        faults: FaultSet::NONE,
        safety: Duration::from_secs(15),
        liars: Some(liars),
        ..Wishes::default()
    }
}

/// With one liar of four nothing breaks; with two some seed shows it, so the test can see what it looks for.
#[test]
fn one_liar_more_than_it_bears_is_noticed() {
    for seed in 1..=25 {
        let outcome = sweep::run::<PbftFamily>(seed, &wishes(1), Recorder::default()).expect("it runs");
        assert_eq!(
            outcome.violation, None,
            "synod simulate --protocol pbft --nodes 4 --faults none --liars 1 --seed {seed}"
        );
    }
    let broken = (1..=100).find_map(|seed| {
        let outcome = sweep::run::<PbftFamily>(seed, &wishes(2), Recorder::default()).expect("it runs");
        outcome.violation.map(|violation| (seed, violation))
    });
    let (seed, violation) = broken.expect("two liars of four break something");
    println!("seed {seed}: {violation}");
}

/// A liar may be the first to know of a decision, and start anew from its snapshot behind it before any of the others has heard enough.
/// That breaks nothing: the ledger holds what those have applied who tell the truth, and once they are back they decide the same.
#[test]
fn a_liar_that_is_the_first_to_know_breaks_nothing() {
    let mut first_to_know = 0;
    for seed in 1..=6 {
        let mut wishes = wishes(1);
        wishes.options = vec![("snapshot_every".to_owned(), "1".to_owned())];
        let plan = swarm::draw::<PbftFamily>(seed, &wishes).expect("four members are enough");
        let liar = plan.liars[0];
        let others: Vec<NodeId> = (1..=4).map(NodeId).filter(|id| *id != liar).collect();
        let mut world = World::<PbftFamily>::new(seed, plan, Recorder::default());
        let is_ahead = |world: &World<PbftFamily>| {
            world.stands_behind(liar).is_some_and(|known| known > world.decided() as u64)
        };
        let found = (0..20_000).any(|_| {
            world.run_for(Duration::from_micros(100));
            is_ahead(&world)
        });
        if !found {
            continue;
        }
        others.iter().for_each(|id| world.take_down(*id));
        // Long enough for a snapshot and the checkpoint above it.
        world.run_for(Duration::from_millis(200));
        world.take_down(liar);
        world.bring_up(liar);
        world.run_for(Duration::from_millis(1));
        let known = world.stands_behind(liar).expect("its disk is whole");
        first_to_know += u32::from(is_ahead(&world));
        assert_eq!(world.violation(), None, "seed {seed}");
        others.iter().for_each(|id| world.bring_up(*id));
        world.run_for(Duration::from_secs(10));
        assert_eq!(world.violation(), None, "seed {seed}");
        assert!(world.decided() as u64 >= known, "seed {seed}: what {liar:?} knew is decided");
    }
    assert!(first_to_know > 0, "no liar stood on what nobody else knew");
}
