//! When a snapshot is due.
//!
//! A snapshot costs as much as the whole state; the log that it replaces costs disk and restart time. Both
//! the number of entries and their bytes since the last snapshot must reach their minimum, and the bytes
//! must also reach a multiple of the last snapshot's size, so that snapshots never write more than a constant
//! factor of what clients wrote.

use synod_core::Index;

/// When a snapshot is due; all three conditions must hold.
#[derive(Clone, Copy, Debug)]
pub struct CompactionPolicy {
    /// At least this many deliveries since the last snapshot (etcd's `--snapshot-count`).
    pub deliveries_min: u64,
    /// At least this many bytes of batches since the last snapshot.
    pub bytes_min: u64,
    /// At least so many times the last snapshot's size: the less is written down again and again, the more is to be read after a
    /// restart.
    pub per_snapshot_byte: u64,
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        CompactionPolicy { deliveries_min: 10_000, bytes_min: 16 << 20, per_snapshot_byte: 2 }
    }
}

/// What has gathered since the last snapshot.
#[derive(Debug)]
pub(crate) struct Growth {
    policy: CompactionPolicy,
    since: Index,
    bytes: u64,
    snapshot_bytes: u64,
}

impl Growth {
    pub(crate) fn new(policy: CompactionPolicy) -> Growth {
        Growth { policy, since: Index::ZERO, bytes: 0, snapshot_bytes: 0 }
    }

    /// A batch of this size was applied.
    pub(crate) fn applied(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// A snapshot at `at` is being taken, or was installed: what follows counts anew.
    pub(crate) fn restart(&mut self, at: Index) {
        self.since = at;
        self.bytes = 0;
    }

    /// A snapshot of this size was saved or installed.
    pub(crate) fn measured(&mut self, snapshot_bytes: u64) {
        self.snapshot_bytes = snapshot_bytes;
    }

    /// Whether the state at `applied` deserves a snapshot.
    pub(crate) fn is_due(&self, applied: Index) -> bool {
        let policy = self.policy;
        applied.0.saturating_sub(self.since.0) >= policy.deliveries_min.max(1)
            && self.bytes >= policy.bytes_min
            && self.bytes >= self.snapshot_bytes.saturating_mul(policy.per_snapshot_byte)
    }
}
