//! The last write before the power fails, cut off at every byte and in every pattern of sectors.

mod support;

use support::{Member, open, row};
use synod_core::Rng;
use synod_wal::{Fate, MemoryDisk, Unsynced};

/// Appends `first`, syncs, then writes `count` more without a sync; the power takes what `fate` says of these.
fn torn(first: u64, count: u64, mut fate: impl FnMut(u64, &[u8]) -> Fate) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut member = Member::open(&disk).expect("an empty folder");
    member.append(first).and_then(|()| member.sync()).expect("works");
    member.append(count).and_then(|()| member.log.write()).expect("works");
    disk.crash(|change| match change {
        Unsynced::Write { offset, bytes, .. } => fate(*offset, bytes),
        _ => Fate::Kept,
    });
    disk
}

/// Opens a torn folder: everything synced is there, the torn batch is there as a whole or not at all, and
/// the log goes on from there and opens once more.
fn check(disk: &MemoryDisk, first: u64, count: u64, whole: bool) {
    let (_, found) = open(disk).expect("a torn write is no damage");
    assert_eq!(row(&found), if whole { first + count } else { first });
    let mut member = Member::open(disk).expect("it opens a second time");
    member.append(3).and_then(|()| member.sync()).expect("it goes on");
    disk.crash(|_| Fate::Lost);
    let (_, found) = open(disk).expect("the torn batch stays dropped");
    assert_eq!(row(&found), member.last);
}

/// A write of one record, and one of several with a long run of zeros inside, cut off after every byte: dropped, or
/// whole when nothing is missing.
#[test]
fn a_write_cut_off_at_every_byte() {
    for (first, count) in [(1, 1), (13, 4), (6, 1)] {
        let mut length = 0;
        torn(first, count, |_, bytes| {
            length = bytes.len();
            Fate::Kept
        });
        for cut in 0..=length {
            let disk = torn(first, count, |_, _| Fate::cut_off(cut));
            check(&disk, first, count, cut == length);
        }
    }
}

/// Any set of a write's sectors may be missing, the first one with its header, too.
#[test]
fn a_write_with_any_sectors_missing() {
    for seed in 0..2000 {
        let mut rng = Rng::new(seed);
        let (first, count) = (rng.between(1, 20), rng.between(1, 9));
        let mut whole = true;
        let disk = torn(first, count, |offset, bytes| {
            let mut parts = Vec::new();
            let mut from = 0;
            while from < bytes.len() {
                let to = (from + 512 - (offset as usize + from) % 512).min(bytes.len());
                if rng.chance(0.7) {
                    parts.push(from..to);
                } else if bytes[from..to].iter().any(|byte| *byte != 0) {
                    whole = false;
                }
                from = to;
            }
            Fate::Torn(parts)
        });
        check(&disk, first, count, whole);
    }
}

/// A record that contains a copy of a batch (somebody stores a log in the store, or means harm): when the write of
/// that record is torn, what is inside it is not taken for a batch of the log.
#[test]
fn a_batch_inside_a_record_is_not_one() {
    let twin = MemoryDisk::new();
    let mut member = Member::open(&twin).expect("an empty folder");
    member.append(1).and_then(|()| member.sync()).expect("works");
    member.append(1).and_then(|()| member.sync()).expect("works");
    // As it would be valid: the same cluster, member, segment and sequence.
    let segment = twin.contents("log-0000000000000001").expect("there is a log");
    let disk = MemoryDisk::new();
    let mut member = Member::open(&disk).expect("an empty folder");
    member.append(1).and_then(|()| member.sync()).expect("works");
    let mut record = vec![1; 900];
    record.extend_from_slice(&segment);
    member.log.append_bytes(&record[..2000]).and_then(|()| member.log.write()).expect("works");
    // The first sectors are lost, the copy is not.
    disk.crash(|change| match change {
        Unsynced::Write { bytes, .. } => Fate::Torn(std::iter::once(600..bytes.len()).collect()),
        _ => Fate::Kept,
    });
    let (_, found) = open(&disk).expect("a torn write is no damage");
    assert_eq!(row(&found), 1);
    assert!(found.torn.is_some());
}
