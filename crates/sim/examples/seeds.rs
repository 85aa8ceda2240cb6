//! Runs seeds without the rest of the `synod` command, which takes longer to build: for work on protocols and the simulator.
//!
//! `seeds PROTOCOL FROM COUNT [FAULTS [SECONDS [KEEP [record]]]]`, where KEEP is `-` or the numbers that a shrunk failure prints.

#[path = "../../cli/src/simulate/families/mod.rs"]
mod families;

use std::collections::BTreeMap;
use std::time::Duration;

use synod_sim::family::Family;
use synod_sim::faults::FaultSet;
use synod_sim::swarm::Wishes;
use synod_sim::trace::{Filter, Recorder, text};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize, otherwise: &str| words.get(at).map_or_else(|| otherwise.to_owned(), Clone::clone);
    let number = |at: usize, otherwise: &str| word(at, otherwise).parse::<u64>().expect("a number");
    let (protocol, from, count) = (word(0, "raft"), number(1, "1"), number(2, "100"));
    let keep = word(5, "-");
    let keep = keep.split(',').map(|word| word.parse().ok()).collect::<Option<Vec<usize>>>();
    let wishes = Wishes {
        faults: FaultSet::parse(&word(3, "all")).expect("the faults exist"),
        safety: Duration::from_secs(number(4, "40")),
        keep,
        ..Wishes::default()
    };
    let record = word(6, "") == "record";
    macro_rules! run {
        ($($name:ident: $family:ident,)*) => {
            $(if families::$family::NAME == protocol {
                return run::<families::$family>(from, count, &wishes, record);
            })*
        };
    }
    families::each_family!(run);
    panic!("there is no protocol {protocol}");
}

fn run<F: Family>(from: u64, count: u64, wishes: &Wishes, record: bool) {
    let (mut simulated, mut decided, mut events) = (0.0, 0, 0);
    let mut broken: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    std::panic::set_hook(Box::new(|_| {}));
    for seed in from..from + count {
        let recorder = if record { Recorder::recording() } else { Recorder::default() };
        let outcome = synod_sim::sweep::run::<F>(seed, wishes, recorder).expect("the wishes can be met");
        simulated += outcome.simulated.as_secs_f64();
        decided += outcome.decided;
        events += outcome.counts.events;
        if record {
            print!("{}", text(&outcome.happenings, &Filter::default()));
        }
        if let Some(violation) = outcome.violation {
            println!("seed {seed}: {violation}");
            broken.entry(violation.property).or_default().push(seed);
        }
    }
    println!(
        "{count} seeds, {simulated:.0} s simulated, {decided} decided, {events} events; broken: {broken:?}"
    );
}
