//! What a leader knows of one peer: what it has accepted, and how much is under way to it.

use std::collections::VecDeque;

use synod_core::{Index, Time};

use super::message::Range;

/// Ranges that are kept for one peer; of more, the last are forgotten, and sent again.
const RANGES_MAX: usize = 1024;

/// A set of slots as ranges that ascend and do not touch.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<Range>);

impl Ranges {
    pub(super) fn contains(&self, at: Index) -> bool {
        self.0.iter().any(|range| range.first <= at && at <= range.last)
    }

    /// The first slots from `from` to `last` that are not in the set: the first and last of them; an empty range when all are.
    fn missing(&self, from: Index, last: Index) -> (Index, Index) {
        let (mut first, mut end) = (from, last);
        for range in &self.0 {
            if range.first > first {
                end = end.min(range.first.previous());
                break;
            }
            first = first.max(range.last.next());
        }
        (first, end)
    }

    /// Adds slots, and joins what touches.
    pub(super) fn insert(&mut self, range: Range) {
        let Range { mut first, mut last } = range;
        self.0.retain(|other| {
            let apart = other.last.next() < first || last.next() < other.first;
            if !apart {
                first = first.min(other.first);
                last = last.max(other.last);
            }
            apart
        });
        let place = self.0.partition_point(|other| other.first < first);
        self.0.insert(place, Range { first, last });
        self.0.truncate(RANGES_MAX);
    }

    /// Everything up to `at` is no concern any more.
    pub(super) fn drop_through(&mut self, at: Index) {
        self.0.retain_mut(|range| {
            range.first = range.first.max(at.next());
            range.first <= range.last
        });
    }
}

/// What a leader knows of one peer, in its own ballot.
#[derive(Debug)]
pub(super) struct Progress {
    /// The peer has accepted on disk, in this ballot, or knows to be decided, everything up to here.
    pub(super) through: Index,
    /// And this, beyond a gap.
    pub(super) beyond: Ranges,
    /// The next slot to send; nothing is sent while it is not known what the peer needs.
    pub(super) next: Option<Index>,
    /// Since when a snapshot is on its way to it.
    pub(super) snapshot: Option<Time>,
    /// The last slot of each Accept under way.
    inflight: VecDeque<Index>,
    last_sent: Time,
    /// How far it was told what is decided.
    pub(super) told: Index,
    /// How far its disk knows what is decided.
    pub(super) knows: Index,
    /// When it was heard of last; the beginning of the ballot, before.
    pub(super) heard: Time,
    /// Whether it was heard of at all in this ballot.
    pub(super) is_awake: bool,
    /// The newest round of reads that it confirmed.
    pub(super) round: u64,
    /// When the newest heartbeat left that it answered.
    pub(super) confirmed: Option<Time>,
    /// The newest message that it forwarded, by its life and number.
    pub(super) forwarded: (u64, u64),
    /// Since when it is no member any more: it is still told so for a while.
    pub(super) leaving: Option<Time>,
}

impl Progress {
    /// A peer of which nothing is known yet.
    pub(super) fn new(now: Time) -> Progress {
        Progress {
            through: Index::ZERO,
            beyond: Ranges::default(),
            next: None,
            snapshot: None,
            inflight: VecDeque::new(),
            last_sent: now,
            told: Index::ZERO,
            knows: Index::ZERO,
            heard: now,
            is_awake: false,
            round: 0,
            confirmed: None,
            forwarded: (0, 0),
            leaving: None,
        }
    }

    /// Whether the peer has accepted `at` on disk.
    pub(super) fn has_accepted(&self, at: Index) -> bool {
        at <= self.through || self.beyond.contains(at)
    }

    /// The next slots from `from` to `last` that the peer has not accepted: the first and the last of them.
    pub(super) fn missing(&self, from: Index, last: Index) -> (Index, Index) {
        self.beyond.missing(from.max(self.through.next()), last)
    }

    /// Whether one more Accept may leave.
    pub(super) fn may_send(&self, inflight_max: usize) -> bool {
        self.inflight.len() < inflight_max
    }

    /// An Accept left whose last value is for `last`.
    pub(super) fn sent(&mut self, last: Index, now: Time) {
        self.inflight.push_back(last);
        self.last_sent = now;
        self.next = Some(last.next());
    }

    /// The peer has accepted on disk everything up to `through`, and `beyond`.
    pub(super) fn accepted(&mut self, through: Index, beyond: &[Range]) {
        self.through = self.through.max(through);
        beyond.iter().for_each(|range| self.beyond.insert(*range));
        self.beyond.drop_through(self.through);
        let (through, beyond) = (self.through, &self.beyond);
        self.inflight.retain(|last| *last > through && !beyond.contains(*last));
        self.next = self.next.map(|next| next.max(through.next()));
    }

    /// The snapshot on its way to the peer is given up: what the peer lacks must be sent again, in whatever form.
    pub(super) fn give_up_snapshot(&mut self) {
        if self.snapshot.take().is_some() {
            self.next = Some(self.through.next());
        }
    }

    /// The peer answered a heartbeat that left at `sent`, when it held everything up to `received` in memory.
    ///
    /// An Accept that left before the heartbeat and has not come by now is lost, or was overtaken: either way sending it
    /// again costs one message. What the peer has accepted beyond the gap is not sent again.
    pub(super) fn heartbeat_answered(&mut self, sent: Time, received: Index) {
        let Some(next) = self.next else {
            self.next = Some(received.next());
            return;
        };
        self.inflight.retain(|last| *last > received);
        // After a snapshot that was given up the next may lie before what was sent: that is awaited all the same.
        let awaited = self.inflight.iter().copied().fold(next.previous(), Index::max);
        if received < awaited && sent > self.last_sent {
            self.inflight.clear();
            // What it knew to be decided counted as accepted, and a crash may have made it forget that much.
            self.through = self.through.min(received);
            self.next = Some(received.next());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> Range {
        Range { first: Index(first), last: Index(last) }
    }

    /// Ranges that touch or overlap become one, and what lies behind the gap stays.
    #[test]
    fn ranges_join() {
        let mut ranges = Ranges::default();
        for (first, last) in [(5, 6), (9, 9), (7, 7), (1, 2), (6, 8)] {
            ranges.insert(range(first, last));
        }
        assert_eq!(ranges.0, [range(1, 2), range(5, 9)]);
        assert_eq!(ranges.missing(Index(1), Index(20)), (Index(3), Index(4)));
        assert_eq!(ranges.missing(Index(6), Index(20)), (Index(10), Index(20)));
        assert!(ranges.contains(Index(8)) && !ranges.contains(Index(4)));
        ranges.drop_through(Index(6));
        assert_eq!(ranges.0, [range(7, 9)]);
    }

    /// A snapshot was given up while Accepts were under way that are lost: they do not fill the window for ever. (Seed 4081 of the simulator.)
    #[test]
    fn what_was_sent_before_a_snapshot_does_not_stay_in_the_window() {
        let mut peer = Progress::new(Time(0));
        peer.heartbeat_answered(Time(0), Index(3));
        peer.sent(Index(4), Time(1));
        peer.snapshot = Some(Time(1));
        peer.give_up_snapshot();
        peer.next = Some(Index(4));
        assert!(!peer.may_send(1));
        peer.heartbeat_answered(Time(2), Index(3));
        assert!(peer.may_send(1) && peer.next == Some(Index(4)));
    }

    /// What is lost is sent again once a later heartbeat is answered without it; what came beyond the gap is not.
    #[test]
    fn a_gap_is_sent_again() {
        let mut peer = Progress::new(Time(0));
        peer.heartbeat_answered(Time(0), Index(3));
        assert_eq!(peer.next, Some(Index(4)));
        for last in 4..=6 {
            peer.sent(Index(last), Time(1));
        }
        peer.accepted(Index(4), &[range(6, 6)]);
        assert!(peer.has_accepted(Index(6)) && !peer.has_accepted(Index(5)));
        peer.heartbeat_answered(Time(1), Index(4));
        assert_eq!(peer.next, Some(Index(7)));
        peer.heartbeat_answered(Time(2), Index(4));
        assert_eq!(peer.next, Some(Index(5)));
    }

    /// A peer that a crash made forget what it knew to be decided gets it again.
    #[test]
    fn a_forgetful_peer_is_told_again() {
        let mut peer = Progress::new(Time(0));
        (peer.through, peer.next) = (Index(9), Some(Index(10)));
        peer.sent(Index(10), Time(1));
        peer.accepted(Index(10), &[]);
        peer.heartbeat_answered(Time(2), Index(6));
        assert_eq!((peer.next, peer.has_accepted(Index(7))), (Some(Index(7)), false));
    }
}
