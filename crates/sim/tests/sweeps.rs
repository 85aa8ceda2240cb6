//! The sweeps of every protocol: the same stories for each row of the command line's table.
//!
//! A protocol that is added to `crates/cli/src/simulate/families` is swept here without a further word.

#[path = "../../cli/src/simulate/families/mod.rs"]
mod families;

use std::time::Duration;

use synod_sim::family::Family;
use synod_sim::faults::FaultSet;
use synod_sim::swarm::Wishes;
use synod_sim::sweep::{self, GoOn};
use synod_sim::trace::Recorder;

fn wishes(faults: &str, seconds: u64) -> Wishes {
    let faults = FaultSet::parse(faults).expect("the faults exist");
    Wishes { faults, safety: Duration::from_secs(seconds), ..Wishes::default() }
}

fn sweep<F: Family>(faults: &str, seeds: std::ops::Range<u64>, seconds: u64) {
    let report = sweep::campaign::<F>(seeds, &wishes(faults, seconds), |_, _| GoOn::Yes);
    let report = report.expect("every protocol runs on the usual numbers of replicas");
    assert!(report.failures.is_empty(), "{}", report.table());
}

/// Runs a few seeds twice, once recorded, and compares their hashes with the committed ones.
fn happens_alike<F: Family>() {
    let wishes = wishes("all", 10);
    let mut hashes = String::new();
    for seed in [1, 7, 23, 42] {
        let once = sweep::run::<F>(seed, &wishes, Recorder::default()).expect("it runs");
        let again = sweep::run::<F>(seed, &wishes, Recorder::recording()).expect("it runs");
        assert_eq!(once.hash, again.hash, "seed {seed}");
        assert!(!again.happenings.is_empty());
        hashes += &format!("{seed}: {:016x}\n", once.hash);
    }
    // When the protocol, the log, the store or the simulator change what they do, these change: look why, then write them
    // anew with SYNOD_UPDATE=1.
    let path = format!("{}/tests/hashes/{}.txt", env!("CARGO_MANIFEST_DIR"), F::NAME);
    if std::env::var_os("SYNOD_UPDATE").is_some() {
        #[allow(
            clippy::disallowed_methods,
            reason = "a test's own file, and only when somebody asks for it"
        )]
        std::fs::write(&path, &hashes).expect("the folder of hashes can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(hashes, committed, "{path}");
}

macro_rules! stories {
    ($($name:ident: $family:ident,)*) => { $(
        mod $name {
            use super::families::$family;

            /// Two hundred seeds of everything that can go wrong: no property breaks, and every healed core decides again.
            #[test]
            fn two_hundred_seeds_of_everything() {
                super::sweep::<$family>("all", 0..200, 15);
            }

            /// All machines lose their power at once, again and again, with every kind of loss: nothing acknowledged is lost.
            #[test]
            fn unsynced_data_lost_everywhere_at_once() {
                super::sweep::<$family>("blackout,power,crash-point", 1000..1040, 15);
            }

            /// The same seed happens alike, whether recorded or not, and whatever ran before; and so on every machine.
            #[test]
            fn the_same_seed_happens_alike() {
                super::happens_alike::<$family>();
            }
        }
    )* };
}

families::each_family!(stories);

/// Seeds of campaigns of ten thousand that once broke something, each for its own reason.
#[test]
fn what_broke_once_stays_whole() {
    let wishes = wishes("all", 40);
    macro_rules! seeds {
        ($($family:ident: $($seed:literal)*,)*) => { $($({
            let outcome = sweep::run::<families::$family>($seed, &wishes, Recorder::default()).expect("it runs");
            assert!(outcome.violation.is_none(), "{} {}: {:?}", families::$family::NAME, $seed, outcome.violation);
        })*)* };
    }
    seeds! {
        // The floor passed what a taken-over snapshot lacks; an own snapshot took an adopted one's place; a peer's took that of one that the log stood on.
        CausalFamily: 1135 1778 5648 4618,
        // One that nobody hears outbid the others; a primary that reaches nobody followed itself; a crowded backup caught up step by step.
        BackupFamily: 6685 7926 3733,
        // Choices that memory had let go of were not written down.
        PaxosFamily: 3921,
        // A mark that was never written; a misdirected one; an answer to an old term's round; a snapshot of before its maker
        // joined, that names no members; a snapshot begun once more.
        RaftFamily: 7827 4881 1724 2475,
        PowFamily: 655,
        // A liar's snapshot took an own one's place on the disk; answers brought forth questions until memory was full.
        // What an old primary had asked for ended a lease that its successor, or it itself after it took over a state, had renewed.
        // A liar that had been the first to know of a decision was judged when it started anew.
        PbftFamily: 478 3516 1682 475 837 871 1114 1858 8091,
    }
}
