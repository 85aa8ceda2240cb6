//! The power fails, or a call fails, at every single step; and then takes what it may.

mod support;

use std::io;

use support::{Numbered, live, open, row};
use synod_core::Rng;
use synod_wal::{Fate, Fault, MemoryDisk, OperationKind, Unsynced};

/// What the power takes of the unsynced changes.
#[derive(Clone, Copy, Debug)]
enum Taking {
    Everything,
    Nothing,
    /// Names, but no bytes.
    Names,
    /// Bytes, but no names.
    Bytes,
    /// Each write is cut off somewhere.
    Tears,
    /// Any set of sectors and names.
    Some,
}

const TAKINGS: [Taking; 6] =
    [Taking::Everything, Taking::Nothing, Taking::Names, Taking::Bytes, Taking::Tears, Taking::Some];

fn crash(disk: &MemoryDisk, taking: Taking, rng: &mut Rng) {
    disk.heal();
    disk.crash(|change| {
        let is_name = matches!(change, Unsynced::Link { .. } | Unsynced::Unlink { .. });
        let keep_or_lose = |keep| if keep { Fate::Kept } else { Fate::Lost };
        match (taking, change) {
            (Taking::Everything, _) => Fate::Lost,
            (Taking::Nothing, _) => Fate::Kept,
            (Taking::Names, _) => keep_or_lose(!is_name),
            (Taking::Bytes, _) => keep_or_lose(is_name),
            (Taking::Tears, Unsynced::Write { bytes, .. }) => {
                Fate::cut_off(rng.below(bytes.len() as u64 + 1) as usize)
            }
            (Taking::Some, Unsynced::Write { bytes, offset, .. }) => {
                Fate::Torn(some_sectors(*offset, bytes.len(), rng))
            }
            _ => keep_or_lose(rng.chance(0.5)),
        }
    });
}

/// Any set of the sectors that a write touches.
fn some_sectors(offset: u64, length: usize, rng: &mut Rng) -> Vec<std::ops::Range<usize>> {
    let mut parts = Vec::new();
    let mut from = 0;
    while from < length {
        let to = (from + 512 - (offset as usize + from) % 512).min(length);
        if rng.chance(0.5) {
            parts.push(from..to);
        }
        from = to;
    }
    parts
}

/// From operation `from` on nothing works any more; a write that is under way gets half through.
fn stop_at(disk: &MemoryDisk, from: u64) {
    disk.on_operation(move |operation| {
        let dead = || io::Error::other("the power is gone");
        match operation.number {
            n if n < from => Fault::None,
            n if n == from && operation.kind == OperationKind::Write => {
                Fault::FailAfter(operation.length as usize / 2, dead())
            }
            _ => Fault::Fail(dead()),
        }
    });
}

fn operations_of_a_life() -> u64 {
    let disk = MemoryDisk::new();
    live(&disk, &mut 0, &mut 0).expect("nothing is wrong");
    disk.operations()
}

/// Whatever step the power fails at, and whatever it takes: the folder opens again, everything acknowledged is
/// there, and nothing that was never appended. The same once more when it fails again while opening.
#[test]
fn a_crash_at_every_operation_loses_nothing_acknowledged() {
    let operations = operations_of_a_life();
    assert!(operations > 80, "the story must be long enough to be worth it: {operations}");
    for step in 0..=operations {
        for (i, taking) in TAKINGS.into_iter().enumerate() {
            let rng = &mut Rng::new(step * 100 + i as u64);
            let disk = MemoryDisk::new();
            let (mut acknowledged, mut appended) = (0, 0);
            stop_at(&disk, step);
            let stopped = live(&disk, &mut acknowledged, &mut appended);
            assert_eq!(stopped.is_err(), step < operations);
            crash(&disk, taking, rng);
            // Opening writes, too: the power fails there up to three times.
            for _ in 0..3 {
                stop_at(&disk, disk.operations() + rng.below(30));
                let _ = open(&disk);
                crash(&disk, taking, rng);
            }
            let (_, found) = open(&disk).unwrap_or_else(|error| panic!("step {step}, {taking:?}: {error}"));
            let row = row(&found);
            assert!(
                (acknowledged..=appended).contains(&row),
                "step {step}, {taking:?}: {row} recovered, {acknowledged} acknowledged, {appended} appended"
            );
        }
    }
}

/// A process that is killed (the power stays on) finds everything that it had written, and goes on.
#[test]
fn a_kill_at_every_operation_and_a_life_after_it() {
    for step in 0..=operations_of_a_life() {
        let disk = MemoryDisk::new();
        let (mut acknowledged, mut appended) = (0, 0);
        stop_at(&disk, step);
        let _ = live(&disk, &mut acknowledged, &mut appended);
        disk.kill();
        disk.heal();
        let before = acknowledged;
        live(&disk, &mut acknowledged, &mut appended).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert!(acknowledged > before);
        disk.crash(|_| Fate::Lost);
        let (_, found) = open(&disk).expect("the second life left a whole folder");
        assert!(row(&found) >= acknowledged, "step {step}");
    }
}

/// A process is killed at every step; a second one opens the folder, and the power fails at every step of that,
/// or just after its first batch. What the second one found and told is as durable as what it wrote itself.
#[test]
fn a_kill_and_then_a_power_cut() {
    for step in 0..=operations_of_a_life() {
        let killed = || {
            let disk = MemoryDisk::new();
            let (mut acknowledged, mut appended) = (0, 0);
            stop_at(&disk, step);
            let _ = live(&disk, &mut acknowledged, &mut appended);
            disk.kill();
            (disk, acknowledged)
        };
        for second_step in 0.. {
            let (disk, acknowledged) = killed();
            let end = disk.operations() + second_step;
            stop_at(&disk, end);
            let opened = open(&disk);
            disk.heal();
            let done = opened.is_ok();
            let mut promised = acknowledged;
            if let Ok((mut log, found)) = opened {
                promised = row(&found);
                if second_step % 2 == 0 {
                    log.append(&Numbered(promised + 1)).and_then(|()| log.sync()).expect("nothing is wrong");
                    promised += 1;
                }
            }
            disk.crash(|_| Fate::Lost);
            let (_, found) = open(&disk).unwrap_or_else(|error| panic!("{step}, {second_step}: {error}"));
            assert!(row(&found) >= promised, "{step}, {second_step}: {} of {promised}", row(&found));
            // Twice, once with a batch and once without.
            if done && second_step % 2 == 1 {
                break;
            }
        }
    }
}

/// One failed operation, then everything works again: the log has ended all the same (a sync that succeeds
/// after one that failed proves nothing), says so with the same words each time, and what was acknowledged is there
/// after the power failed, too.
#[test]
fn one_error_ends_the_log_for_good() {
    let mut ended = 0;
    for step in 0..operations_of_a_life() {
        let disk = MemoryDisk::new();
        disk.on_operation(move |operation| {
            if operation.number == step { Fault::Fail(io::Error::other("once")) } else { Fault::None }
        });
        let Ok(mut member) = support::Member::open(&disk) else { continue };
        let mut failed = None;
        for _ in 0..60 {
            let result = member.append(2).and_then(|()| member.sync());
            match (&failed, result) {
                (None, Err(error)) => failed = Some(error.to_string()),
                (None, Ok(())) => {}
                (Some(first), again) => {
                    assert_eq!(again.expect_err("a log that has ended").to_string(), *first);
                }
            }
        }
        let Some(first) = failed else { continue };
        ended += 1;
        for again in [member.log.mark(), member.checkpoint(0), member.log.write(), member.log.sync_written()]
        {
            assert_eq!(again.expect_err("a log that has ended").to_string(), first);
        }
        disk.crash(|_| Fate::Lost);
        let (_, found) = open(&disk).expect("it opens");
        assert!(row(&found) >= member.acknowledged, "step {step}");
    }
    assert!(ended > 50, "most steps are the log's own: {ended}");
}

/// A full disk stops a new segment, a checkpoint and a snapshot, and harms none of what is there: when there is
/// room again the same calls work, with nothing lost between.
#[test]
fn a_full_disk_is_waited_out() {
    for kind in [OperationKind::Create, OperationKind::Preallocate, OperationKind::Write] {
        let disk = MemoryDisk::new();
        let mut member = support::Member::open(&disk).expect("an empty folder");
        member.append(5).and_then(|()| member.sync()).expect("there is room");
        member.save(3).expect("there is room");
        disk.on_operation(move |operation| {
            let new_file = operation.name.ends_with(".tmp");
            if new_file && operation.kind == kind {
                Fault::Fail(io::ErrorKind::StorageFull.into())
            } else {
                Fault::None
            }
        });
        if kind != OperationKind::Preallocate {
            assert!(!member.save(4).expect_err("no room").is_fatal());
        }
        assert!(!member.checkpoint(3).expect_err("no room").is_fatal());
        let mut refused = 0;
        for _ in 0..20 {
            member.append(4).expect("memory is not full");
            if let Err(error) = member.sync() {
                assert!(error.to_string().contains("no room"), "{error}");
                refused += 1;
            }
        }
        assert!(refused > 0, "the segment must have run full");
        disk.heal();
        member.sync().expect("there is room again");
        member.save(4).and_then(|()| member.checkpoint(4)).expect("there is room again");
        member.append(1).and_then(|()| member.sync()).expect("there is room again");
        disk.crash(|_| Fate::Lost);
        let (_, found) = open(&disk).expect("a whole folder");
        assert_eq!(row(&found), 86);
    }
}
