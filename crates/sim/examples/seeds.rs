//! Runs seeds from the command line, without the rest of the `synod` command: for work on the simulator itself.

#[path = "../../cli/src/simulate/families/mod.rs"]
#[allow(unused_macros, unused_imports, reason = "the table serves whoever includes it")]
mod families;

use std::collections::BTreeMap;
use synod_sim::faults::FaultSet;
use synod_sim::swarm::Wishes;
use synod_sim::trace::{Filter, Recorder, text};

fn main() {
    let mut args = std::env::args().skip(1);
    let from: u64 = args.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let count: u64 = args.next().and_then(|word| word.parse().ok()).unwrap_or(100);
    let faults = FaultSet::parse(&args.next().unwrap_or_else(|| "all".to_owned())).unwrap();
    let nodes = args.next().and_then(|word| word.parse().ok());
    let record = args.next().is_some_and(|word| word == "record");
    match std::env::var("SYNOD_PROTOCOL").as_deref() {
        Ok("multipaxos") => run::<families::MultiPaxosFamily>(from, count, faults, nodes, record),
        _ => run::<families::RaftFamily>(from, count, faults, nodes, record),
    }
}

fn run<F: synod_sim::family::Family>(
    from: u64,
    count: u64,
    faults: FaultSet,
    nodes: Option<u64>,
    record: bool,
) {
    let wishes = Wishes { faults, nodes, ..Wishes::default() };
    let (mut simulated, mut failed) = (0.0, 0);
    let mut by: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let (mut decided, mut answered, mut operations, mut events) = (0, 0, 0, 0);
    let mut recoveries = Vec::new();
    std::panic::set_hook(Box::new(|_| {}));
    for seed in from..from + count {
        let recorder = if record { Recorder::recording() } else { Recorder::default() };
        let outcome = synod_sim::sweep::run::<F>(seed, &wishes, recorder).unwrap();
        simulated += outcome.simulated.as_secs_f64();
        decided += outcome.decided;
        answered += outcome.answered;
        operations += outcome.operations;
        events += outcome.counts.events;
        if record {
            print!("{}", text(&outcome.happenings, &Filter::default()));
        }
        recoveries.push((format!("{:?}", outcome.recovery), seed));
        if let Some(violation) = outcome.violation {
            failed += 1;
            by.entry(violation.property.to_owned()).or_default().push(seed);
            if failed < 12 {
                println!("seed {seed}: {violation}");
            }
        }
    }
    for (property, seeds) in by {
        println!("{property}: {} {:?}", seeds.len(), &seeds[..seeds.len().min(12)]);
    }
    println!(
        "{count} seeds, {failed} failed, {simulated:.0} s simulated, {decided} decided, {answered} of {operations} answered, {events} events"
    );
}
