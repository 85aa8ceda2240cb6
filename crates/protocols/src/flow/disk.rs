//! What is known of one's own disk: how far the log is durable, and whether the disk still moves.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::{Index, Lsn, Time};

/// Follows the records of one replica to the disk.
///
/// Invariant: both halves of `waiting` ascend from front to back, and no index in it lies beyond the log.
#[derive(Debug)]
pub(crate) struct Disk {
    written: Lsn,
    durable: Lsn,
    /// With this record, the log is durable up to that index.
    waiting: VecDeque<(Lsn, Index)>,
    durable_index: Index,
    /// Since when the disk owes us something, and has not moved.
    behind_since: Option<Time>,
}

impl Disk {
    /// A disk that holds the log up to `index`: whatever was recovered is there.
    pub(crate) fn new(index: Index) -> Disk {
        Disk {
            written: Lsn::ZERO,
            durable: Lsn::ZERO,
            waiting: VecDeque::new(),
            durable_index: index,
            behind_since: None,
        }
    }

    /// The log is durable up to here.
    pub(crate) fn durable_index(&self) -> Index {
        self.durable_index
    }

    /// Whether the record `lsn` is durable.
    pub(crate) fn holds(&self, lsn: Lsn) -> bool {
        lsn <= self.durable
    }

    /// Records up to `written` are on their way, and hold the log up to `last`.
    pub(crate) fn wrote(&mut self, written: Lsn, last: Index, now: Time) {
        if written <= self.written {
            return;
        }
        self.written = written;
        self.behind_since.get_or_insert(now);
        let promised = self.waiting.back().map_or(self.durable_index, |(_, index)| *index);
        if last > promised {
            self.waiting.push_back((written, last));
        }
    }

    /// Records up to `lsn` are durable.
    pub(crate) fn synced(&mut self, lsn: Lsn, now: Time) {
        let lsn = lsn.min(self.written);
        if lsn <= self.durable {
            return;
        }
        self.durable = lsn;
        self.behind_since = (lsn < self.written).then_some(now);
        while let Some((_, index)) = self.waiting.pop_front_if(|(mark, _)| *mark <= lsn) {
            self.durable_index = self.durable_index.max(index);
        }
    }

    /// The log was cut before `from`. What is written there later is another entry: that an older one at the
    /// same index becomes durable says nothing about it (the ABA trap).
    pub(crate) fn truncated(&mut self, from: Index) {
        let end = from.previous();
        self.durable_index = self.durable_index.min(end);
        let mut cut = None;
        while let Some((mark, _)) = self.waiting.pop_back_if(|(_, index)| *index >= from) {
            cut = Some(mark);
        }
        // The records that go on counting are those before the cut: the first mark beyond it covers them.
        let promised = self.waiting.back().map_or(self.durable_index, |(_, index)| *index);
        if let Some(mark) = cut
            && end > promised
        {
            self.waiting.push_back((mark, end));
        }
    }

    /// The log was replaced by a snapshot: nothing of it is durable until the record that says so is.
    pub(crate) fn replaced(&mut self) {
        self.waiting.clear();
        self.durable_index = Index::ZERO;
    }

    /// Whether the disk has owed us something for `patience` without moving.
    pub(crate) fn is_stuck(&self, now: Time, patience: Duration) -> bool {
        self.behind_since.is_some_and(|since| now.since(since) >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index that was written, cut and written again counts only with its second writing.
    #[test]
    fn a_rewritten_index_waits_for_its_own_record() {
        let mut disk = Disk::new(Index(0));
        disk.wrote(Lsn(3), Index(3), Time(0));
        disk.truncated(Index(2));
        disk.wrote(Lsn(5), Index(3), Time(0));
        disk.synced(Lsn(3), Time(1));
        assert_eq!(disk.durable_index(), Index(1));
        disk.synced(Lsn(4), Time(1));
        assert_eq!(disk.durable_index(), Index(1));
        disk.synced(Lsn(5), Time(1));
        assert_eq!(disk.durable_index(), Index(3));
    }

    /// A disk is stuck when it owes something and does not move, and not when it is merely busy.
    #[test]
    fn a_busy_disk_is_not_a_stuck_one() {
        let patience = Duration::from_nanos(10);
        let mut disk = Disk::new(Index(0));
        assert!(!disk.is_stuck(Time(100), patience));
        disk.wrote(Lsn(2), Index(2), Time(100));
        disk.synced(Lsn(1), Time(108));
        assert!(!disk.is_stuck(Time(115), patience));
        assert!(disk.is_stuck(Time(118), patience));
        disk.synced(Lsn(2), Time(119));
        assert!(!disk.is_stuck(Time(200), patience));
    }
}
