//! Raft, the shipped log and the shipped store in the simulator: recorded runs, and exhaustive damage. Sweeps: `sweeps.rs`.

#[path = "../../cli/src/simulate/families/mod.rs"]
#[allow(unused_macros, unused_imports, reason = "the table serves whoever includes it")]
mod families;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use families::RaftFamily;
use synod_core::NodeId;
use synod_sim::disk::{Call, Effect, SimDisk, Trap};
use synod_sim::faults::FaultSet;
use synod_sim::swarm::{self, WishError, Wishes};
use synod_sim::sweep;
use synod_sim::trace::{self, Filter, Recorder};
use synod_sim::world::{CLUSTER, World};
use synod_wal::{Identity, Log, LogError, LogOptions};

fn wishes(faults: &str, seconds: u64) -> Wishes {
    let faults = FaultSet::parse(faults).expect("the faults exist");
    Wishes { faults, safety: Duration::from_secs(seconds), ..Wishes::default() }
}

/// A recorded run as text has a line for each happening, and filters leave out the rest; ShiViz gets a clock for each.
#[test]
fn a_recorded_run_can_be_read() {
    let outcome = sweep::run::<RaftFamily>(3, &wishes("none", 3), Recorder::recording()).expect("it runs");
    let all = trace::text(&outcome.happenings, &Filter::default());
    assert_eq!(all.lines().count(), outcome.happenings.len());
    let filter = Filter { kinds: vec!["stands".to_owned()], ..Filter::default() };
    let roles = trace::text(&outcome.happenings, &filter);
    assert!(roles.lines().all(|line| line.contains(" is ")) && roles.contains("Leader"));
    let shiviz = trace::shiviz(&outcome.happenings, &Filter::default());
    assert!(shiviz.contains("n1 {\"n1\": 1}"));
}

/// Impossible wishes are refused with what is possible.
#[test]
fn impossible_wishes_are_refused() {
    let ten = Wishes { nodes: Some(10), ..Wishes::default() };
    let refused = swarm::draw::<RaftFamily>(1, &ten).expect_err("ten replicas are too many");
    assert_eq!(refused.to_string(), "raft cannot run on 10 replicas: 1 to 9 are possible");
    let odd = Wishes { options: vec![("colour".to_owned(), "red".to_owned())], ..Wishes::default() };
    assert!(matches!(swarm::draw::<RaftFamily>(1, &odd), Err(WishError::Option { .. })));
}

/// While one disk waited for the call at which it would fail for good, another one was wiped: two of three were gone, for the rest of a year.
#[test]
fn a_disk_that_is_to_fail_counts_as_lost_before_it_does() {
    let day = Duration::from_secs(86_400);
    let plan = swarm::long_life::<RaftFamily>(1, day, day).expect("raft lives long");
    let mut world = World::<RaftFamily>::new(1, plan, Recorder::default());
    world.employ();
    world.live_for(Duration::from_secs(600));
    assert!(world.may_be_harmed(), "nothing has happened yet");
    let disk = world.disk(NodeId(1)).clone();
    let trap = |effect| Trap { skip: 0, only: Some(Call::Settle), effect };
    disk.arm(trap(Effect::FailOnce));
    assert!(world.may_be_harmed(), "whoever fails once starts again");
    disk.arm(trap(Effect::FailForEver));
    assert!(!world.may_be_harmed(), "one disk waits to fail");
    assert_eq!(world.books().map(|books| books.spared), Some(1));
}

/// A snapshot that found no room is written when there is room again, although the memory is full of what it would let go of and so
/// nothing more is decided before: a replica that waited for more to gather would wait for ever.
#[test]
fn a_snapshot_that_found_no_room_is_tried_again() {
    let small = [("log_bytes_max", "100"), ("backlog_bytes_max", "300"), ("election_timeout", "150ms")];
    let options = small.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let wishes = Wishes { nodes: Some(1), options, ..wishes("none", 600) };
    let mut plan = swarm::draw::<RaftFamily>(5, &wishes).expect("one replica is possible");
    (plan.snapshot_every, plan.clients, plan.operations_max) = (4, 4, usize::MAX);
    let mut world = World::<RaftFamily>::new(5, plan, Recorder::default());
    world.run_for(Duration::from_secs(5));
    let disk = world.disk(NodeId(1)).clone();
    disk.set_capacity(disk.used());
    world.run_for(Duration::from_secs(20));
    disk.set_capacity(u64::MAX);
    let before = world.decided();
    world.run_for(Duration::from_secs(10));
    assert!(world.decided() > before + 20, "{} decided since", world.decided() - before);
}

// Exhaustive damage to one replica's log.

/// What a log holds, or why it cannot be opened.
fn open(disk: &SimDisk) -> Result<Vec<bytes::Bytes>, LogError> {
    let identity = Identity { cluster: CLUSTER, node: NodeId(1) };
    let options =
        LogOptions { segment_bytes_first: 16 << 10, segment_bytes_max: 64 << 10, ..LogOptions::default() };
    Log::open(Arc::new(disk.clone()), identity, options).map(|(_, recovery)| recovery.records)
}

/// The log of one of three replicas that has run for a while: quiet at the end, if so wished, or in the middle of a write.
fn log_of_n1(end: End) -> SimDisk {
    let mut world = cluster_with_a_log();
    if end == End::Written {
        // In the middle of a write: some file has bytes that are written and not synced.
        loop {
            world.run_for(Duration::from_micros(50));
            let disk = world.disk(NodeId(1));
            if disk.files().iter().any(|(name, _)| disk.unsynced(name) > 0) {
                return disk.copy(1);
            }
        }
    }
    world.hush();
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.violation(), None);
    world.disk(NodeId(1)).copy(1)
}

/// Three replicas, the first with a log of 64 KiB.
fn cluster_with_a_log() -> World<RaftFamily> {
    let wishes = Wishes { nodes: Some(3), ..wishes("none", 600) };
    let mut plan = swarm::draw::<RaftFamily>(5, &wishes).expect("three replicas are possible");
    plan.snapshot_every = u64::MAX;
    plan.operations_max = usize::MAX;
    plan.clients = 6;
    plan.think = Duration::from_millis(10);
    let mut world = World::<RaftFamily>::new(5, plan, Recorder::default());
    while world.disk(NodeId(1)).written() < 64 << 10 {
        world.run_for(Duration::from_millis(100));
    }
    world
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Quiet,
    Written,
}

/// Flips every `step`-th bit of the first 64 KiB of the log, one at a time: nothing that was acknowledged may be missing
/// from what is recovered, or the log must refuse to open, by name.
fn flip_bits(step: usize) -> (usize, usize) {
    let disk = log_of_n1(End::Quiet);
    let whole = open(&disk.copy(2)).expect("the log is whole");
    let (mut refused, mut harmless, mut place) = (0, 0, 0);
    for (name, length) in disk.files() {
        for bit in (0..length * 8).step_by(step) {
            place += step;
            if place > (64 << 10) * 8 {
                return (refused, harmless);
            }
            let copy = disk.copy(3);
            copy.flip(&name, bit);
            match open(&copy) {
                Err(_) => refused += 1,
                Ok(records) => {
                    assert_eq!(
                        records, whole,
                        "bit {bit} of {name}: records are missing, and nobody says so"
                    );
                    harmless += 1;
                }
            }
        }
    }
    (refused, harmless)
}

/// A sample of all single-bit flips of a 64 KiB log: each is harmless or refused by name.
#[test]
fn flipped_bits_are_noticed() {
    let (refused, _) = flip_bits(1009);
    // Each sync fills a block of 4 KiB, and a simulated one holds few records: most bits are zeros in between.
    assert!(refused > 10, "only {refused} flips were noticed");
}

/// All 524,288 single-bit flips of a 64 KiB log.
#[test]
#[ignore = "takes minutes: cargo test --release -p synod-sim --test raft -- --ignored every_flipped_bit"]
fn every_flipped_bit_is_noticed() {
    let (refused, harmless) = flip_bits(1);
    println!("{refused} flips refused by name, {harmless} harmless");
    assert!(refused + harmless >= (64 << 10) * 8);
}

/// The bits of the first 64 KiB of the log of a cluster's first replica, every `step`-th, each with the file that it is in.
fn bits_of_the_log(step: usize) -> Vec<(String, usize)> {
    let files = cluster_with_a_log().disk(NodeId(1)).files();
    let bits =
        files.into_iter().flat_map(|(name, length)| (0..length * 8).map(move |bit| (name.clone(), bit)));
    bits.take((64 << 10) * 8).step_by(step).collect()
}

/// Flips bits of one replica's log, each in a cluster of its own that goes on under load: the replica comes back whole, or stops
/// with a named error; nothing acknowledged is lost, and the rest decides on.
fn flip_in_clusters(bits: &[(String, usize)]) -> (usize, usize) {
    let (mut stopped, mut back) = (0, 0);
    for (name, bit) in bits {
        let mut world = cluster_with_a_log();
        world.rot(NodeId(1), name, *bit);
        world.run_for(Duration::from_secs(4));
        match world.stopped(NodeId(1)) {
            Some(error) => {
                assert!(error.contains(name), "the error names the file: {error}");
                stopped += 1;
            }
            None => back += 1,
        }
        let outcome = world.judge();
        assert_eq!(outcome.violation, None, "bit {bit} of {name}");
    }
    (stopped, back)
}

/// A sample of flipped bits in living clusters.
#[test]
fn a_flipped_bit_costs_a_cluster_nothing() {
    let (stopped, back) = flip_in_clusters(&bits_of_the_log(16_001));
    assert!(stopped > 0 && back > 0, "{stopped} stopped, {back} came back");
}

/// Five hundred and twenty flipped bits in living clusters.
#[test]
#[ignore = "takes a minute: cargo test --release -p synod-sim --test raft -- --ignored many_flipped_bits"]
fn many_flipped_bits_cost_a_cluster_nothing() {
    let (stopped, back) = flip_in_clusters(&bits_of_the_log(1009));
    println!(
        "{stopped} replicas stopped with a named error, {back} came back whole; nothing acknowledged was lost"
    );
}

/// Every bit. What becomes of a cluster depends on what its replica reads after the flip: so each of the 524,288 is read, and of
/// all that read alike (the same records, or the same error but for its numbers) the first and the last are tried in a cluster.
#[test]
#[ignore = "takes minutes: cargo test --release -p synod-sim --test raft -- --ignored every_bit_costs"]
fn every_bit_costs_a_cluster_nothing() {
    let disk = cluster_with_a_log().disk(NodeId(1)).copy(1);
    let bits = bits_of_the_log(1);
    let mut alike: BTreeMap<String, Vec<&(String, usize)>> = BTreeMap::new();
    for place in &bits {
        let copy = disk.copy(3);
        copy.flip(&place.0, place.1);
        let outcome = match open(&copy) {
            Ok(records) => format!("{} records, {:08x}", records.len(), crc32c::crc32c(&records.concat())),
            Err(error) => error.to_string().replace(|letter: char| letter.is_ascii_digit(), ""),
        };
        alike.entry(format!("{}: {outcome}", place.0)).or_default().push(place);
    }
    let mut tried: Vec<(String, usize)> = Vec::new();
    for (outcome, places) in &alike {
        println!("{:7} bits: {outcome}", places.len());
        tried.extend([places.first(), places.last()].into_iter().flatten().map(|place| (*place).clone()));
    }
    tried.dedup();
    let (stopped, back) = flip_in_clusters(&tried);
    println!(
        "{} bits read in {} ways; of those tried, {stopped} stopped and {back} came back",
        bits.len(),
        alike.len()
    );
    assert!(bits.len() == (64 << 10) * 8 && stopped > 0 && back > 0);
}

/// The power fails within the last write, at every byte of it: whatever was acknowledged before is there.
#[test]
fn a_write_torn_at_every_byte_loses_nothing_acknowledged() {
    let disk = log_of_n1(End::Written);
    let (name, _) =
        disk.files().into_iter().rfind(|(name, _)| disk.unsynced(name) > 0).expect("something is unsynced");
    let total = disk.unsynced(&name);
    let before = disk.copy(2);
    before.tear(&name, 0);
    let acknowledged = open(&before).expect("without the last write the log is whole");
    let mut whole = 0;
    for keep in 0..=total {
        let copy = disk.copy(3);
        copy.tear(&name, keep);
        let records =
            open(&copy).unwrap_or_else(|error| panic!("torn after {keep} of {total} bytes: {error}"));
        assert!(records.starts_with(&acknowledged), "torn after {keep} of {total} bytes");
        whole += usize::from(records.len() > acknowledged.len());
    }
    assert!(whole >= 1, "the whole write is recovered as a whole");
}
