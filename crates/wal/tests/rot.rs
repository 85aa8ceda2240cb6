//! Bytes change behind the log's back: every bit, every length, every sector. The outcome is everything that was
//! acknowledged, or an error that names the file; never less in silence, and never a panic.

mod support;

use support::{Member, open, row};
use synod_wal::{Fate, LogError, MemoryDisk, OnDamage};

/// A folder that has seen a checkpoint, three segments and a restart; and the n that it acknowledged.
fn folder(marked: Marked) -> (MemoryDisk, u64) {
    let disk = MemoryDisk::new();
    let mut member = Member::open(&disk).expect("an empty folder");
    member.append(12).and_then(|()| member.save(9)).and_then(|()| member.checkpoint(9)).expect("works");
    for count in [1, 3, 20, 6, 2] {
        member.append(count).and_then(|()| member.sync()).expect("works");
    }
    disk.kill();
    let mut member = Member::open(&disk).expect("it opens again");
    for count in [2, 3, 11] {
        member.append(count).and_then(|()| member.sync()).expect("works");
    }
    if marked == Marked::Yes {
        member.log.mark().expect("works");
    }
    disk.crash(|_| Fate::Lost);
    (disk, member.acknowledged)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Marked {
    Yes,
    No,
}

/// Opens a damaged copy and judges what comes of it: whether it was refused.
fn judge(disk: &MemoryDisk, acknowledged: u64, what: &str) -> bool {
    match open(disk) {
        Ok((_, found)) => {
            assert_eq!(row(&found), acknowledged, "{what}: something acknowledged was forgotten in silence");
            false
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("memory/"), "{what}: the error names no file: {message}");
            true
        }
    }
}

fn log_files(disk: &MemoryDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("log-")).collect()
}

/// Flips every `step`-th bit of every log file, one at a time.
fn flip_bits(disk: &MemoryDisk, acknowledged: u64, step: usize) -> (usize, usize) {
    let (mut flips, mut refused) = (0, 0);
    for name in log_files(disk) {
        let original = disk.contents(&name).expect("listed");
        for bit in (0..original.len() * 8).step_by(step) {
            let copy = disk.duplicate();
            copy.edit(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            flips += 1;
            refused += usize::from(judge(&copy, acknowledged, &format!("{name} bit {bit}")));
        }
    }
    (flips, refused)
}

/// A flipped bit anywhere in the log, be it in the last batch, is refused by name or does not matter.
#[test]
fn a_flipped_bit_is_never_taken_for_a_torn_write() {
    for marked in [Marked::Yes, Marked::No] {
        let (disk, acknowledged) = folder(marked);
        let (flips, refused) = flip_bits(&disk, acknowledged, 7);
        assert!(refused > 0 && refused < flips, "{refused} of {flips} refused");
    }
}

/// The same for every single bit of a 64 KiB log.
#[test]
#[ignore = "half a minute: cargo test --release -p synod-wal --test rot -- --ignored"]
fn every_bit_of_a_64_kib_log() {
    let disk = MemoryDisk::new();
    let mut member = Member::open(&disk).expect("an empty folder");
    while log_files(&disk).len() < 10 {
        member.append(7).and_then(|()| member.sync()).expect("works");
    }
    disk.crash(|_| Fate::Lost);
    let bytes: usize = log_files(&disk).iter().map(|name| disk.contents(name).expect("listed").len()).sum();
    assert!(bytes >= 64 << 10, "{bytes} bytes");
    let (flips, refused) = flip_bits(&disk, member.acknowledged, 1);
    println!("{flips} flips, {refused} refused by name, the others without effect");
}

/// Each file cut off at every length: the last segment knows how long it was made, the others have successors.
#[test]
fn a_file_cut_off_anywhere_is_noticed() {
    let (disk, acknowledged) = folder(Marked::No);
    for name in disk.names() {
        let original = disk.contents(&name).expect("listed");
        for length in 0..original.len() {
            let copy = disk.duplicate();
            copy.edit(&name, |bytes| bytes.truncate(length));
            judge(&copy, acknowledged, &format!("{name} cut off at {length}"));
        }
    }
}

/// Any file gone: a named error, for the log's last segment, too.
#[test]
fn a_missing_file_is_named() {
    let (disk, acknowledged) = folder(Marked::No);
    assert!(log_files(&disk).len() >= 3);
    for name in disk.names() {
        let copy = disk.duplicate();
        copy.unlink(&name);
        assert!(judge(&copy, acknowledged, &name), "{name} is needed");
    }
}

/// Whole sectors that turn into zeros after the disk confirmed them: in the last batch that looks like a torn
/// write, unless a mark stands behind it; everywhere else it is noticed either way.
#[test]
fn a_mark_tells_lost_sectors_from_torn_ones() {
    let (disk, acknowledged) = folder(Marked::Yes);
    for name in log_files(&disk) {
        let original = disk.contents(&name).expect("listed");
        for sector in (0..original.len()).step_by(512) {
            let copy = disk.duplicate();
            copy.edit(&name, |bytes| {
                let end = (sector + 512).min(bytes.len());
                bytes[sector..end].fill(0);
            });
            judge(&copy, acknowledged, &format!("{name} sector at {sector}"));
        }
    }
    let (disk, acknowledged) = folder(Marked::No);
    let last = log_files(&disk).pop().expect("there is a log");
    let mut forgotten = 0;
    for sector in (0..disk.contents(&last).expect("listed").len()).step_by(512) {
        let copy = disk.duplicate();
        copy.edit(&last, |bytes| {
            let end = (sector + 512).min(bytes.len());
            bytes[sector..end].fill(0);
        });
        if let Ok((_, found)) = open(&copy) {
            assert!(row(&found) + 11 >= acknowledged, "only the very last batch may be taken for torn");
            forgotten += usize::from(row(&found) < acknowledged);
        }
    }
    assert!(forgotten > 0, "this is the ambiguity that the mark is for");
}

/// One write that went to the wrong place: a sector is missing, and another, perhaps the mark, is overwritten. Wherever both are in the
/// last file, no acknowledged record is forgotten without a word.
#[test]
fn a_misdirected_write_is_not_taken_for_a_torn_one() {
    let (disk, acknowledged) = folder(Marked::Yes);
    let name = log_files(&disk).pop().expect("there is a log");
    let original = disk.contents(&name).expect("listed");
    let used = original.iter().rposition(|byte| *byte != 0).expect("not empty") / 512;
    for sector in 0..=used {
        for other in (0..=used).filter(|other| *other != sector) {
            let copy = disk.duplicate();
            copy.edit(&name, |bytes| {
                bytes.copy_within(sector * 512..sector * 512 + 512, other * 512);
                bytes[sector * 512..sector * 512 + 512].fill(0);
            });
            judge(&copy, acknowledged, &format!("sector {sector} written at {other}"));
        }
    }
}

/// A whole write that the disk confirmed and lost, with later ones behind it: damage, with the place.
#[test]
fn a_lost_write_in_the_middle_is_damage() {
    let disk = MemoryDisk::new();
    let mut member = Member::open(&disk).expect("an empty folder");
    member.append(2).and_then(|()| member.sync()).expect("works");
    let name = log_files(&disk).pop().expect("there is a log");
    let before = disk.contents(&name).expect("listed");
    member.append(2).and_then(|()| member.sync()).expect("works");
    let after = disk.contents(&name).expect("listed");
    member.append(2).and_then(|()| member.sync()).expect("works");
    let lost = (0..before.len()).find(|at| before[*at] != after[*at]).expect("the second write");
    let end = (0..before.len()).rfind(|at| before[*at] != after[*at]).expect("the second write");
    disk.edit(&name, |bytes| bytes[lost..=end].fill(0));
    let Err(LogError::Damaged(damage)) = open(&disk) else { panic!("damage") };
    assert_eq!((damage.offset, damage.from_sequence, damage.to_sequence), (lost as u64, 3, Some(5)));
}

/// A whole batch that turns up where another belongs (a misdirected write, a stale read, a copied file): another
/// offset, another segment, another member, another cluster. It is not taken for what belongs there.
#[test]
fn a_batch_is_valid_in_its_own_place_alone() {
    let first_batch = |identity: synod_wal::Identity, first: u64| {
        let disk = MemoryDisk::new();
        let (mut log, _) =
            synod_wal::Log::open(std::sync::Arc::new(disk.clone()), identity, support::OPTIONS)
                .expect("works");
        for n in first..first + 3 {
            log.append(&support::Numbered(n)).and_then(|()| log.sync()).expect("works");
        }
        disk
    };
    let ours = first_batch(support::IDENTITY, 1);
    let name = log_files(&ours).pop().expect("there is a log");
    let original = ours.contents(&name).expect("listed");
    // The batches lie one behind the other, each with this at the end of its header.
    let starts: Vec<usize> =
        (0..original.len()).filter(|at| original[*at..].starts_with(b"BTCH")).map(|at| at - 36).collect();
    assert_eq!(starts.len(), 3);
    let other_cluster = synod_wal::Identity { cluster: 1, ..support::IDENTITY };
    let other_node = synod_wal::Identity { node: synod_core::NodeId(1), ..support::IDENTITY };
    for theirs in [first_batch(other_cluster, 1), first_batch(other_node, 1)] {
        let theirs = theirs.contents(&log_files(&theirs).pop().expect("there is a log")).expect("listed");
        let copy = ours.duplicate();
        // Everything behind the header: the same records at the same offsets, but somebody else's.
        copy.edit(&name, |bytes| bytes[128..].copy_from_slice(&theirs[128..]));
        assert!(judge(&copy, 3, "another member's batches"));
    }
    // The log's own last batch once more behind itself, with what would be the right sequence for a mark.
    let copy = ours.duplicate();
    copy.edit(&name, |bytes| bytes.copy_within(starts[2]..starts[2] + 300, starts[1]));
    assert!(judge(&copy, 3, "the third batch in the second's place"));
    // Segment 1's batches in segment 2, which begins where the log was reopened.
    let disk = MemoryDisk::new();
    drop(Member::open(&disk).map(|mut member| member.append(3).and_then(|()| member.sync())));
    disk.kill();
    let mut member = Member::open(&disk).expect("works");
    member.append(3).and_then(|()| member.sync()).expect("works");
    let [one, two] = [0, 1].map(|i| disk.contents(&log_files(&disk)[i]).expect("listed"));
    disk.edit(&log_files(&disk)[1], |bytes| bytes[128..one.len()].copy_from_slice(&one[128..]));
    assert!(two.len() > one.len() && judge(&disk, 6, "the first segment's batch in the second"));
}

/// With `Report` a damaged log opens, tells what it has before and behind the damage, takes no record, and is
/// whole again after a checkpoint.
#[test]
fn damage_is_reported_and_repaired_by_a_checkpoint() {
    let (disk, acknowledged) = folder(Marked::No);
    let name = log_files(&disk)[1].clone();
    disk.edit(&name, |bytes| bytes[300] ^= 4);
    let options = synod_wal::LogOptions { on_damage: OnDamage::Report, ..support::OPTIONS };
    let (mut log, found) =
        synod_wal::Log::open(std::sync::Arc::new(disk.clone()), support::IDENTITY, options)
            .expect("it reports");
    let damage = found.damage.clone().expect("there is damage");
    assert!(damage.file.ends_with(&name), "{damage}");
    let before = row(&found);
    let behind: Vec<u64> = found.after_damage.iter().map(support::number).collect();
    assert!(before < acknowledged && behind.last() == Some(&acknowledged), "{before} {behind:?}");
    let lost = damage.to_sequence.expect("it goes on") - damage.from_sequence;
    assert_eq!(
        before + lost + behind.len() as u64,
        acknowledged,
        "each record is before, behind, or counted as lost"
    );
    assert!(matches!(log.append(&support::Numbered(1)), Err(LogError::Damaged(_))));
    let records: Vec<support::Numbered> = (10..=acknowledged).map(support::Numbered).collect();
    drop(log.checkpoint(synod_core::Index(9), &records).expect("what the peers gave back"));
    log.append(&support::Numbered(acknowledged + 1)).and_then(|()| log.sync()).expect("it goes on");
    disk.crash(|_| Fate::Lost);
    assert_eq!(row(&open(&disk).expect("whole again").1), acknowledged + 1);
}
