//! What is known of one's own disk: which records it holds, how far the slots are accepted on it, and whether it still moves.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::{Index, Lsn, Time};

/// Follows the records of one replica to the disk.
///
/// Invariant: both halves of `waiting` ascend from front to back, and what waits was accepted in the present ballot.
#[derive(Debug)]
pub(super) struct Disk {
    written: Lsn,
    durable: Lsn,
    /// With this record, all slots up to that one are accepted on disk.
    waiting: VecDeque<(Lsn, Index)>,
    through: Index,
    /// Since when the disk owes us something, and has not moved.
    behind_since: Option<Time>,
}

impl Disk {
    /// A disk that owes nothing.
    pub(super) fn new(through: Index) -> Disk {
        Disk { written: Lsn::ZERO, durable: Lsn::ZERO, waiting: VecDeque::new(), through, behind_since: None }
    }

    /// All slots up to here are accepted on disk in the present ballot, or are known to be decided.
    pub(super) fn through(&self) -> Index {
        self.through
    }

    /// Whether the record `lsn` is durable.
    pub(super) fn holds(&self, lsn: Lsn) -> bool {
        lsn <= self.durable
    }

    /// A new ballot begins: what earlier ones have accepted says nothing about it, even when it becomes durable only now (the
    /// ABA trap). All up to `decided` counts in every ballot.
    pub(super) fn begin_ballot(&mut self, decided: Index) {
        self.waiting.clear();
        self.through = decided;
    }

    /// Records up to `written` are on their way, and with them everything up to `prefix` is accepted.
    pub(super) fn wrote(&mut self, written: Lsn, prefix: Index, now: Time) {
        if written > self.written {
            self.written = written;
            self.behind_since.get_or_insert(now);
        }
        let promised = self.waiting.back().map_or(self.through, |(_, slot)| *slot);
        if prefix > promised {
            self.waiting.push_back((self.written, prefix));
            self.settle();
        }
    }

    /// Records up to `lsn` are durable.
    pub(super) fn synced(&mut self, lsn: Lsn, now: Time) {
        let lsn = lsn.min(self.written);
        if lsn <= self.durable {
            return;
        }
        self.durable = lsn;
        self.behind_since = (lsn < self.written).then_some(now);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((_, slot)) = self.waiting.pop_front_if(|(mark, _)| *mark <= self.durable) {
            self.through = self.through.max(slot);
        }
    }

    /// Whether the disk has owed us something for `patience` without moving.
    pub(super) fn is_stuck(&self, now: Time, patience: Duration) -> bool {
        self.behind_since.is_some_and(|since| now.since(since) >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot that was accepted in an earlier ballot counts in a new one only with its new record.
    #[test]
    fn a_new_ballot_waits_for_its_own_records() {
        let mut disk = Disk::new(Index(0));
        disk.wrote(Lsn(3), Index(3), Time(0));
        disk.begin_ballot(Index(1));
        disk.wrote(Lsn(5), Index(3), Time(0));
        disk.synced(Lsn(3), Time(1));
        assert_eq!(disk.through(), Index(1));
        disk.synced(Lsn(5), Time(1));
        assert_eq!(disk.through(), Index(3));
    }

    /// What was accepted out of order counts as soon as the gap before it is closed by something durable.
    #[test]
    fn a_gap_that_closes_needs_no_record_of_its_own() {
        let mut disk = Disk::new(Index(0));
        disk.wrote(Lsn(2), Index(0), Time(0));
        disk.synced(Lsn(2), Time(1));
        disk.wrote(Lsn(2), Index(2), Time(2));
        assert_eq!(disk.through(), Index(2));
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
