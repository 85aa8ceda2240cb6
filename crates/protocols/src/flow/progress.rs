//! What a leader knows of one peer, and how many appends may be under way to it.

use std::collections::VecDeque;

use synod_core::{Index, Time};

/// How entries go to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Where the logs agree is not known: one append at a time, until one is answered.
    Probe,
    /// The logs agree: appends follow one another without waiting for answers.
    Replicate,
    /// The peer needs what is not kept any more: a snapshot is on its way, since then.
    Snapshot {
        /// When the transfer was asked for last.
        since: Time,
    },
}

/// What a leader knows of one peer, in its own term.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The peer holds the leader's log durably up to here.
    pub(crate) matched: Index,
    /// The next entry to send.
    pub(crate) next: Index,
    pub(crate) flow: Flow,
    /// The last entry of each append under way, in ascending order.
    inflight: VecDeque<Index>,
    /// When the last append left.
    last_sent: Time,
    /// The greatest commit index that the peer was told.
    pub(crate) told: Index,
    /// When the peer was heard of last; the beginning of the term, before.
    pub(crate) heard: Time,
    /// Whether it was heard of at all in this term.
    pub(crate) is_awake: bool,
    /// The newest round of reads that it confirmed.
    pub(crate) round: u64,
    /// When the newest heartbeat left that it answered.
    pub(crate) confirmed: Option<Time>,
    /// The newest message that it forwarded, by its life and number.
    pub(crate) forwarded: (u64, u64),
}

impl Progress {
    /// A peer of which nothing is known yet: it is asked whether it holds what comes before `next`.
    pub(crate) fn new(next: Index, now: Time) -> Progress {
        Progress {
            matched: Index::ZERO,
            next,
            flow: Flow::Probe,
            inflight: VecDeque::new(),
            last_sent: now,
            told: Index::ZERO,
            heard: now,
            is_awake: false,
            round: 0,
            confirmed: None,
            forwarded: (0, 0),
        }
    }

    /// Whether one more append may leave.
    pub(crate) fn may_send(&self, inflight_max: usize) -> bool {
        match self.flow {
            Flow::Probe => self.inflight.is_empty(),
            Flow::Replicate => self.inflight.len() < inflight_max,
            Flow::Snapshot { .. } => false,
        }
    }

    /// An append left whose last entry is `last`; an empty one's is what it asks about.
    pub(crate) fn sent(&mut self, last: Index, now: Time) {
        self.inflight.push_back(last);
        self.last_sent = now;
        if self.flow == Flow::Replicate {
            self.next = last.next();
        }
    }

    /// The peer holds the log durably up to `matched`. `first` is the first entry that the leader still keeps.
    pub(crate) fn matches(&mut self, matched: Index, first: Index) {
        self.matched = self.matched.max(matched);
        while self.inflight.pop_front_if(|last| *last <= matched).is_some() {}
        match self.flow {
            Flow::Probe if self.matched >= self.next.previous() => self.replicate_after(self.matched),
            // It has not answered yet whether it holds what is asked about: one that was just restarted confirms what it knows
            // to be committed, and holds more.
            Flow::Probe => {}
            Flow::Replicate => self.next = self.next.max(self.matched.next()),
            // Whatever the snapshot covers: once the rest can come from the log, it does.
            Flow::Snapshot { .. } if self.matched.next() >= first => self.replicate_after(self.matched),
            Flow::Snapshot { .. } => {}
        }
    }

    /// Goes back to asking where the logs agree, beginning with what comes before `next`.
    pub(crate) fn probe(&mut self, next: Index) {
        self.flow = Flow::Probe;
        self.next = next.max(Index(1));
        self.inflight.clear();
    }

    /// A snapshot goes to the peer.
    pub(crate) fn snapshot(&mut self, now: Time) {
        self.flow = Flow::Snapshot { since: now };
        self.inflight.clear();
    }

    /// The peer answered a heartbeat that left at `sent`; its log in memory is the leader's up to `received`.
    ///
    /// An append that left before the heartbeat and has not come by now is lost, or was overtaken: either
    /// way asking again costs one message.
    pub(crate) fn heartbeat_answered(&mut self, sent: Time, received: Index) {
        let awaited = match self.flow {
            Flow::Probe => self.inflight.back().copied().unwrap_or(self.next.previous()),
            Flow::Replicate => self.next.previous(),
            Flow::Snapshot { .. } => return,
        };
        while self.inflight.pop_front_if(|last| *last <= received).is_some() {}
        if received >= awaited {
            // The entries are there and wait for the disk alone.
            if self.flow == Flow::Probe {
                self.replicate_after(received);
            }
        } else if sent > self.last_sent {
            match self.flow {
                Flow::Probe => self.inflight.clear(),
                // A peer that was restarted knows nothing of the leader's log, but holds what it once
                // confirmed: one question restores the agreement.
                _ => self.probe(received.max(self.matched).next()),
            }
        }
    }

    fn replicate_after(&mut self, index: Index) {
        self.flow = Flow::Replicate;
        // What was confirmed once is not sent again: no answer would take it out of the window.
        self.next = index.max(self.matched).next();
        self.inflight.clear();
    }
}
