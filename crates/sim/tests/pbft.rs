//! PBFT among liars that work together: as many as it bears, and one more.

#[path = "../../cli/src/simulate/families/pbft.rs"]
mod pbft;

use std::time::Duration;

use pbft::PbftFamily;
use synod_sim::faults::FaultSet;
use synod_sim::swarm::Wishes;
use synod_sim::sweep;
use synod_sim::trace::Recorder;

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
