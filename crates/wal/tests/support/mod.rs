//! A member in miniature, for tests: its state is the numbers 1, 2, 3 … n, each written as one record; a snapshot
//! at n holds them all as bytes. So what a folder must give back is easily told: an unbroken row.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use synod_core::wire::Reader;
use synod_core::{Index, NodeId, Wire, WireError};
use synod_wal::{Disk, Identity, Log, LogError, LogOptions, MemoryDisk, OnDamage, Recovery};

pub(crate) const IDENTITY: Identity = Identity { cluster: 0x5ead, node: NodeId(3) };

/// Small segments, so that a short story passes through several.
pub(crate) const OPTIONS: LogOptions =
    LogOptions { segment_bytes_first: 4096, segment_bytes_max: 8192, on_damage: OnDamage::Refuse };

/// Record `n`: the number, then filling whose length and bytes depend on it. Every fifth is filled with zeros.
#[derive(Clone, Debug)]
pub(crate) struct Numbered(pub u64);

impl Wire for Numbered {
    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.0.to_le_bytes());
        let filling = if self.0.is_multiple_of(5) { 0 } else { self.0 as u8 | 1 };
        let length = if self.0.is_multiple_of(15) { 1500 } else { (self.0 * 37 % 200) as usize };
        out.resize(out.len() + length, filling);
    }

    fn decode(_: &mut Reader) -> Result<Self, WireError> {
        unreachable!("tests compare encodings")
    }
}

pub(crate) fn number(record: &Bytes) -> u64 {
    let n = u64::from_le_bytes(record[..8].try_into().expect("a numbered record"));
    assert_eq!(*record, Numbered(n).to_bytes(), "record {n} came back changed");
    n
}

pub(crate) fn open(disk: &MemoryDisk) -> Result<(Log, Recovery), LogError> {
    Log::open(Arc::new(disk.clone()), IDENTITY, OPTIONS)
}

/// The n up to which a recovered folder holds everything; panics when the row is broken.
pub(crate) fn row(found: &Recovery) -> u64 {
    let mut n = 0;
    if let Some(snapshot) = &found.snapshot {
        let bytes = snapshot.to_ref().read(0, usize::MAX).expect("a whole snapshot");
        n = snapshot.at().0;
        assert_eq!(bytes, snapshot_state(n), "snapshot {n} came back changed");
    }
    for record in &found.records {
        let next = number(record);
        assert_eq!(next, n + 1, "the row is broken");
        n = next;
    }
    n
}

pub(crate) fn snapshot_state(n: u64) -> Bytes {
    (1..=n).flat_map(u64::to_le_bytes).collect::<Vec<u8>>().into()
}

/// A log and what was promised with it.
pub(crate) struct Member {
    pub(crate) log: Log,
    /// Appended.
    pub(crate) last: u64,
    /// Known to be durable.
    pub(crate) acknowledged: u64,
    /// What the newest checkpoint rests on.
    pub(crate) base: u64,
}

impl Member {
    pub(crate) fn open(disk: &dyn DiskSource) -> Result<Member, LogError> {
        let (log, found) = Log::open(disk.shared(), IDENTITY, OPTIONS)?;
        let last = row(&found);
        Ok(Member { log, last, acknowledged: last, base: 0 })
    }

    pub(crate) fn append(&mut self, count: u64) -> Result<(), LogError> {
        for _ in 0..count {
            self.log.append(&Numbered(self.last + 1))?;
            self.last += 1;
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), LogError> {
        self.log.sync()?;
        self.acknowledged = self.last;
        Ok(())
    }

    pub(crate) fn save(&mut self, at: u64) -> Result<(), LogError> {
        let mut writer = self.log.snapshots().create(Index(at))?;
        writer.append(&snapshot_state(at))?;
        writer.finish().map(|_| ())
    }

    pub(crate) fn checkpoint(&mut self, at: u64) -> Result<(), LogError> {
        let records: Vec<Numbered> = (at + 1..=self.last).map(Numbered).collect();
        self.log.checkpoint(Index(at), &records)?.remove()?;
        (self.acknowledged, self.base) = (self.last, at);
        Ok(())
    }
}

pub(crate) trait DiskSource {
    fn shared(&self) -> Arc<dyn Disk>;
}

impl DiskSource for MemoryDisk {
    fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }
}

/// A life with everything in it: batches of all sizes, several segments, two snapshots in quick succession, a
/// checkpoint, a mark, an unplanned stop and a restart. Stops at the first error.
pub(crate) fn live(disk: &MemoryDisk, acknowledged: &mut u64, appended: &mut u64) -> Result<(), LogError> {
    let mut member = Member::open(disk)?;
    let result = live_on(&mut member);
    *acknowledged = (*acknowledged).max(member.acknowledged);
    *appended = (*appended).max(member.last);
    result
}

fn live_on(member: &mut Member) -> Result<(), LogError> {
    for count in [1, 3, 1, 20, 2] {
        member.append(count)?;
        member.sync()?;
    }
    let (first, second) = (member.last - 10, member.last - 4);
    member.save(first)?;
    member.append(2)?;
    member.save(second)?;
    member.checkpoint(first)?;
    member.append(1)?;
    member.checkpoint(second)?;
    for count in [2, 25, 1] {
        member.append(count)?;
        member.log.write()?;
        member.append(1)?;
        // A batch is in flight: this one must wait for it.
        member.log.write()?;
        member.sync()?;
    }
    member.log.mark()?;
    member.append(3)?;
    member.sync()?;
    member.append(1)
}
