//! Snapshots: written, received, read in pieces, abandoned, rotten.

mod support;

use std::io::Write;

use support::{IDENTITY, open};
use synod_core::{Index, Rng};
use synod_wal::{CHUNK_BYTES, Fate, LogError, MemoryDisk, SNAPSHOT_BYTES_MAX, SnapshotFile, Snapshots};

fn snapshots(disk: &MemoryDisk) -> Snapshots {
    open(disk).expect("a folder").0.snapshots()
}

fn state(bytes: usize) -> Vec<u8> {
    let mut rng = Rng::new(bytes as u64);
    (0..bytes).map(|_| rng.next_u64() as u8).collect()
}

fn write(snapshots: &Snapshots, at: u64, state: &[u8]) -> SnapshotFile {
    let mut writer = snapshots.create(Index(at)).expect("there is room");
    for piece in state.chunks(10_007) {
        writer.write_all(piece).expect("there is room");
    }
    writer.finish().expect("there is room")
}

/// States of every length around the chunk's come back byte for byte, from any offset, after a power cut.
#[test]
fn a_state_comes_back_from_any_offset() {
    for bytes in [0, 1, 100, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 77] {
        let (disk, state) = (MemoryDisk::new(), state(bytes));
        let written = write(&snapshots(&disk), 5, &state);
        disk.crash(|_| Fate::Lost);
        let file = snapshots(&disk).open(Index(5)).expect("it was finished");
        assert_eq!((file.at(), file.bytes(), file.sum()), (Index(5), bytes as u64, crc32c::crc32c(&state)));
        assert_eq!(written.sum(), file.sum());
        file.verify().expect("nothing has rotted");
        let reference = file.to_ref();
        assert_eq!(reference.read(0, usize::MAX).expect("whole"), state);
        let mut rng = Rng::new(1);
        for _ in 0..200 {
            let from = rng.below(bytes as u64 + 1);
            let length = rng.below(bytes as u64 + 1 - from) as usize;
            let piece = reference.read(from, length).expect("inside");
            assert_eq!(piece, state[from as usize..from as usize + length]);
        }
        let mut beyond = vec![0; 2];
        assert!(reference.source.read_at(bytes as u64 - 1.min(bytes as u64), &mut beyond).is_err());
        assert!(reference.source.read_at(u64::MAX, &mut beyond).is_err());
    }
}

/// A peer's snapshot arrives in pieces, some twice, with an interruption; the sum over the whole is checked before it
/// gets its name.
#[test]
fn a_snapshot_is_received_in_pieces() {
    let (theirs, ours, state) = (MemoryDisk::new(), MemoryDisk::new(), state(700_000));
    let sent = write(&snapshots(&theirs), 9, &state);
    let mut incoming = snapshots(&ours).receive(Index(9), sent.bytes()).expect("there is room");
    for (i, piece) in state.chunks(65_536).enumerate() {
        let at = i * 65_536;
        incoming.append(at as u64, piece).expect("there is room");
        incoming.append(at as u64, &piece[..100]).expect("a repetition is skipped");
        incoming.append(at.saturating_sub(50) as u64, &state[at.saturating_sub(50)..at]).expect("skipped");
        assert_eq!(incoming.received(), (at + piece.len()) as u64);
        let gap = incoming.append(incoming.received() + 1, b"x").expect_err("a gap");
        assert!(matches!(gap, LogError::NotAsSent { .. }) && !gap.is_fatal(), "{gap}");
    }
    assert!(incoming.append(incoming.received(), b"x").is_err(), "more than announced");
    let file = incoming.finish(sent.sum()).expect("as it was sent");
    ours.crash(|_| Fate::Lost);
    assert_eq!(file.at(), Index(9));
    let file = snapshots(&ours).open(Index(9)).expect("it has its name");
    assert_eq!(file.to_ref().read(0, usize::MAX).expect("whole"), state);
}

/// Too little, a wrong sum, an absurd length, a sender that goes away: no snapshot, and no file left behind.
#[test]
fn an_incomplete_snapshot_leaves_nothing() {
    let disk = MemoryDisk::new();
    let snapshots = snapshots(&disk);
    let before = disk.names();
    let mut incoming = snapshots.receive(Index(4), 10).expect("there is room");
    incoming.append(0, b"12345").expect("there is room");
    assert!(incoming.finish(0).expect_err("half").to_string().contains("5 of 10 bytes"));
    let mut incoming = snapshots.receive(Index(4), 5).expect("there is room");
    incoming.append(0, b"12345").expect("there is room");
    assert!(incoming.finish(0).expect_err("wrong").to_string().contains("checksum"));
    assert!(matches!(snapshots.receive(Index(4), SNAPSHOT_BYTES_MAX + 1), Err(LogError::TooLarge { .. })));
    drop(snapshots.receive(Index(4), 5).expect("there is room"));
    let mut writer = snapshots.create(Index(4)).expect("there is room");
    writer.append(b"half a state").expect("there is room");
    drop(writer);
    assert_eq!(disk.names(), before);
    assert!(matches!(snapshots.open(Index(4)), Err(LogError::MissingSnapshot { .. })));
}

/// What a killed process left half-written is gone after the next start.
#[test]
fn leftovers_are_removed() {
    let disk = MemoryDisk::new();
    let snapshots = snapshots(&disk);
    let mut writer = snapshots.create(Index(4)).expect("there is room");
    writer.append(b"half a state").expect("there is room");
    std::mem::forget(writer);
    std::mem::forget(snapshots.receive(Index(8), 5).expect("there is room"));
    disk.kill();
    assert_eq!(disk.names().iter().filter(|name| name.ends_with(".tmp")).count(), 2);
    open(&disk).expect("a whole folder");
    assert!(disk.names().iter().all(|name| !name.ends_with(".tmp")), "{:?}", disk.names());
}

/// Any byte of a snapshot changed, any length cut off, chunks swapped: noticed when it is opened or when the
/// changed part is read, and never handed out.
#[test]
fn a_rotten_snapshot_is_never_handed_out() {
    let (disk, state) = (MemoryDisk::new(), state(2 * CHUNK_BYTES + 1000));
    write(&snapshots(&disk), 7, &state);
    let name = "snapshot-0000000000000007";
    let original = disk.contents(name).expect("it is there");
    let judge = |change: &dyn Fn(&mut Vec<u8>), what: &str| {
        let copy = disk.duplicate();
        copy.edit(name, |bytes| change(bytes));
        let verdict = snapshots(&copy).open(Index(7)).and_then(|file| {
            let read = file.to_ref().read(0, usize::MAX);
            assert_eq!(read.is_err(), file.verify().is_err(), "{what}");
            file.verify()
        });
        let error = verdict.expect_err(what).to_string();
        assert!(error.contains(name) && error.contains("offset"), "{what}: {error}");
    };
    let step = original.len() / 300;
    for at in (0..64).chain((64..original.len()).step_by(step)).chain(original.len() - 40..original.len()) {
        judge(&|bytes| bytes[at] ^= 0x10, &format!("byte {at}"));
    }
    for length in (0..200).chain((200..original.len()).step_by(step)) {
        judge(&|bytes| bytes.truncate(length), &format!("cut off at {length}"));
    }
    judge(
        &|bytes| {
            let (a, b) = bytes[64..].split_at_mut(CHUNK_BYTES + 4);
            a.swap_with_slice(&mut b[..CHUNK_BYTES + 4]);
        },
        "chunks swapped",
    );
    judge(&|bytes| bytes.extend_from_slice(&[0; 9]), "something appended");
}

/// A checkpoint that names a snapshot which is not there, or not whole, is refused, and the log goes on as it was.
#[test]
fn a_checkpoint_needs_its_snapshot() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).expect("a folder");
    log.append_bytes(b"one").and_then(|()| log.sync()).expect("there is room");
    let before = disk.names();
    let error = log.checkpoint(Index(9), &[1u64]).map(drop).expect_err("there is no snapshot 9");
    assert!(
        error.to_string().contains("snapshot-0000000000000009 is missing") && !error.is_fatal(),
        "{error}"
    );
    write(&log.snapshots(), 9, b"state");
    disk.edit("snapshot-0000000000000009", |bytes| bytes.truncate(70));
    assert!(log.checkpoint(Index(9), &[1u64]).is_err(), "it is not whole");
    disk.unlink("snapshot-0000000000000009");
    assert_eq!(disk.names(), before);
    log.append_bytes(b"two").and_then(|()| log.sync()).expect("nothing has happened to the log");
    drop(log);
    assert_eq!(open(&disk).expect("a whole folder").1.records, [&b"one"[..], b"two"]);
}

/// Another cluster's snapshot is refused.
#[test]
fn a_snapshot_belongs_to_one_cluster() {
    let (theirs, ours) = (MemoryDisk::new(), MemoryDisk::new());
    let other = synod_wal::Identity { cluster: 1, ..IDENTITY };
    let (log, _) =
        synod_wal::Log::open(std::sync::Arc::new(theirs.clone()), other, support::OPTIONS).expect("a folder");
    write(&log.snapshots(), 3, b"theirs");
    let bytes = theirs.contents("snapshot-0000000000000003").expect("it is there");
    let snapshots = snapshots(&ours);
    ours.edit("snapshot-0000000000000003", |file| *file = bytes);
    let error = snapshots.open(Index(3)).expect_err("not ours");
    assert!(error.to_string().contains("belongs to cluster 0000000000000001"), "{error}");
}
