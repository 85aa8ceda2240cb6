//! Data folders: whatever lies in a log's or a snapshot's place, a member starts with it or says why not.
//!
//! A folder that was opened can be used: a record that is appended to it is there when it is opened again.
//! Sums are no protection here: libFuzzer sees what a sum is compared with, and puts it right.

use std::sync::Arc;

use synod_core::{Index, NodeId};
use synod_wal::{Identity, Log, LogOptions, MemoryDisk, OnDamage};

/// Whose folder it is; the seeds are made for it.
pub const IDENTITY: Identity = Identity { cluster: 0xc1, node: NodeId(1) };

/// The file that [`log`] puts its bytes into.
pub const SEGMENT: &str = "log-0000000000000001";

/// The file that [`snapshot`] puts its bytes into.
pub const SNAPSHOT: &str = "snapshot-0000000000000003";

/// Small segments, so that a seed is small.
pub const OPTIONS: LogOptions =
    LogOptions { segment_bytes_first: 4096, segment_bytes_max: 8192, on_damage: OnDamage::Refuse };

/// A folder with a checkpoint upon a snapshot, and records after it.
#[must_use]
pub fn healthy_folder() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut log, _) = Log::open(Arc::new(disk.clone()), IDENTITY, OPTIONS).expect("an empty folder");
    log.append_bytes(b"before the checkpoint").expect("a short record");
    log.sync().expect("nothing fails in memory");
    let mut writer = log.snapshots().create(Index(3)).expect("room in memory");
    writer.append(b"the state after delivery 3").expect("room in memory");
    writer.finish().expect("nothing fails in memory");
    drop(log.checkpoint(Index(3), &[7u64, 8]).expect("nothing fails in memory"));
    for record in [&b"one"[..], b"", b"three, which is longer"] {
        log.append_bytes(record).expect("a short record");
        log.sync().expect("nothing fails in memory");
    }
    disk
}

/// The bytes are the first segment of a log.
pub fn log(bytes: &[u8]) {
    let disk = MemoryDisk::new();
    disk.edit(SEGMENT, |content| content.extend_from_slice(bytes));
    open(&disk);
}

/// The bytes are changes to a healthy folder: each four are a file, a place (two bytes) and what to put there.
pub fn log_edits(bytes: &[u8]) {
    let disk = healthy_folder();
    let names = disk.names();
    for edit in bytes.chunks_exact(4) {
        let name = &names[usize::from(edit[0]) % names.len()];
        let at = usize::from(u16::from_le_bytes([edit[1], edit[2]]));
        disk.edit(name, |content| {
            if let Some(byte) = content.get_mut(at) {
                *byte = edit[3];
            }
        });
    }
    open(&disk);
}

/// The bytes are the snapshot on which a healthy log rests.
pub fn snapshot(bytes: &[u8]) {
    let disk = healthy_folder();
    disk.edit(SNAPSHOT, |content| *content = bytes.to_vec());
    open(&disk);
}

fn open(disk: &MemoryDisk) {
    for on_damage in [OnDamage::Refuse, OnDamage::Report] {
        let disk = disk.duplicate();
        let options = LogOptions { on_damage, ..OPTIONS };
        let (mut log, found) = match Log::open(Arc::new(disk.clone()), IDENTITY, options) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        if let Some(snapshot) = &found.snapshot
            && snapshot.verify().is_ok()
        {
            let read = snapshot.to_ref().read(0, 1 << 20).expect("it was verified");
            assert_eq!(read.len() as u64, snapshot.bytes().min(1 << 20));
        }
        if found.damage.is_none() && log.append_bytes(b"one more").is_ok() && log.sync().is_ok() {
            drop(log);
            let (_, again) = Log::open(Arc::new(disk), IDENTITY, options).expect("it was open a moment ago");
            let (last, before) = again.records.split_last().expect("one more record");
            assert_eq!(last, &b"one more"[..]);
            assert_eq!(before, found.records);
        }
    }
}
