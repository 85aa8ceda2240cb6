//! Paxos with one rule removed at a time: its golden traces must notice.
//!
//! `cargo test -p synod-protocols --release --features mutants --test paxos_mutants`. The simulator hunts all of them in random
//! worlds (`synod simulate mutants --protocol paxos`); a trace shows each at once.
#![cfg(feature = "mutants")]

use synod_protocols::paxos::{Mutant, Options, Paxos};
use synod_sim::script::{Order, replay};

/// The trace in which something else happens when the rule is left out.
const IN_TRACES: &[(Mutant, &str)] = &[
    (Mutant::PromiseBeforeDisk, include_str!("golden/paxos/unsynced-promise.trace")),
    (Mutant::AckBeforeDisk, include_str!("golden/paxos/two-phases.trace")),
    (Mutant::CountsItselfEarly, include_str!("golden/paxos/two-phases.trace")),
    (Mutant::ForgetsPromise, include_str!("golden/paxos/promise-kept.trace")),
    (Mutant::AcceptPromisesNothing, include_str!("golden/paxos/accept-promises.trace")),
    (Mutant::PromiseHidesAccepted, include_str!("golden/paxos/adopted.trace")),
    (Mutant::PicksLowestBallot, include_str!("golden/paxos/highest-ballot.trace")),
    (Mutant::IgnoresAccepted, include_str!("golden/paxos/adopted.trace")),
    (Mutant::MinorityChooses, include_str!("golden/paxos/two-phases.trace")),
    (Mutant::MinorityPromises, include_str!("golden/paxos/two-phases.trace")),
    (Mutant::ReusesBallots, include_str!("golden/paxos/ballots-of-a-life.trace")),
    (Mutant::CountsOldAnswers, include_str!("golden/paxos/ballots-of-a-life.trace")),
    (Mutant::GoesOnEarly, include_str!("golden/paxos/never-twice.trace")),
    (Mutant::ReadWithoutFence, include_str!("golden/paxos/read-must-wait.trace")),
    (Mutant::ReadJoinsLate, include_str!("golden/paxos/read.trace")),
    (Mutant::AnswersForCompacted, include_str!("golden/paxos/compacted.trace")),
    (Mutant::DeliverySkips, include_str!("golden/paxos/grow.trace")),
];

/// What no trace shows: left to the simulator's hunt.
const IN_SWEEPS: &[Mutant] = &[
    Mutant::LearnsOlder,
    Mutant::ReadIgnoresAccepted,
    Mutant::ConfigurationAtOnce,
    Mutant::SnapshotForgetsPending,
];

/// Whether something else happens in a trace when a rule is left out.
fn differs(mutant: Mutant, trace: &str) -> bool {
    let bent: Vec<String> = trace
        .lines()
        .map(|line| match line.strip_prefix("cluster ") {
            Some(rest) => format!("cluster {rest} mutant={}", mutant.name()),
            None => line.to_owned(),
        })
        .collect();
    let bent = bent.join("\n") + "\n";
    // A panic is noticed, too.
    let result = std::panic::catch_unwind(|| replay::<Paxos>(&bent, Order::Total, Options::set));
    !matches!(result, Ok(Ok(text)) if text == bent)
}

/// Every mutant has its trace, and is noticed there.
#[test]
fn traces_notice_mutants() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for mutant in Mutant::ALL.iter().filter(|mutant| !IN_SWEEPS.contains(mutant)) {
        let known = IN_TRACES.iter().find(|(known, _)| known == mutant);
        if !known.is_some_and(|(_, trace)| differs(*mutant, trace)) {
            missed.push(mutant.name());
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
