//! What f + 1 different members say alike is true: one of them is honest.
//!
//! Two kinds of votes. A *poll* is one question with one answer. A *tally* is a watch: every honest member tells the same revisions with the
//! same events in the same order, from the same revision on. What is next is what f + 1 members have *next*: one of them is honest, so
//! nothing lies before it. Whoever had something else there has lied (or left something out), and is reported.
//!
//! A voter is a key, not a connection: however often a member speaks, it counts once. Nothing here knows a socket or a signature;
//! what comes in has been proven to be the voter's.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

/// A member, by its place among the keys.
pub type Voter = usize;

/// Who said something else than f + 1 others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lie {
    /// The member.
    pub voter: Voter,
    /// About what.
    pub about: String,
}

/// One question.
#[derive(Debug, Default)]
pub struct Poll {
    votes: BTreeMap<Voter, Bytes>,
    /// Members that could not have it ordered, and why.
    pub refused: BTreeMap<Voter, String>,
    decided: Option<Bytes>,
}

impl Poll {
    /// Counts a member's answer; gives the answer when it is decided by this.
    pub fn vote(&mut self, voter: Voter, answer: Bytes, weak: usize, lies: &mut Vec<Lie>) -> Option<Bytes> {
        let about = || "an answer".to_owned();
        if let Some(before) = self.votes.get(&voter) {
            if *before != answer {
                lies.push(Lie { voter, about: "two different answers to one question".to_owned() });
            }
            return None;
        }
        if let Some(decided) = &self.decided {
            if *decided != answer {
                lies.push(Lie { voter, about: about() });
            }
            self.votes.insert(voter, answer);
            return None;
        }
        self.votes.insert(voter, answer.clone());
        if self.votes.values().filter(|vote| **vote == answer).count() < weak {
            return None;
        }
        let others = self.votes.iter().filter(|(_, vote)| **vote != answer);
        lies.extend(others.map(|(voter, _)| Lie { voter: *voter, about: about() }));
        self.decided = Some(answer.clone());
        Some(answer)
    }

    /// Who answered, and how many of them at most said the same.
    #[must_use]
    pub fn standing(&self) -> (Vec<Voter>, usize) {
        let same = |answer: &Bytes| self.votes.values().filter(|vote| *vote == answer).count();
        (self.votes.keys().copied().collect(), self.votes.values().map(same).max().unwrap_or(0))
    }
}

/// What a watch comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All events of one revision.
    Events(i64, Bytes),
    /// The watch begins below what was compacted: the first revision that is there. It has ended.
    Compacted(i64),
}

/// Bytes that one member may be ahead of the others with one watch; beyond it the member is asked again from where the watch is.
pub const AHEAD_BYTES_MAX: usize = 32 << 20;

/// What one member has said of a watch and the others have not yet.
#[derive(Debug, Default)]
struct Said {
    /// Whether this connection's word has begun.
    begun: bool,
    ahead: VecDeque<(i64, Bytes)>,
    bytes: usize,
    upto: i64,
    compacted: Option<i64>,
}

/// One watch.
#[derive(Debug)]
pub struct Tally {
    weak: usize,
    /// The first revision that was not told on.
    pub next: i64,
    said: BTreeMap<Voter, Said>,
}

impl Tally {
    /// A watch from a revision on; `weak` members are believed.
    #[must_use]
    pub fn new(weak: usize, next: i64) -> Tally {
        Tally { weak, next, said: BTreeMap::new() }
    }

    /// A member's word begins, or begins anew: with what comes at [`Tally::next`].
    pub fn begin(&mut self, voter: Voter) {
        self.said.insert(voter, Said { begun: true, upto: self.next - 1, ..Said::default() });
    }

    /// A member's connection is lost: what it said before stands, but nothing follows until it begins anew.
    pub fn lost(&mut self, voter: Voter) {
        if let Some(said) = self.said.get_mut(&voter) {
            said.begun = false;
        }
    }

    /// A member tells of a revision; false: it is too far ahead, and is to begin anew.
    pub fn event(
        &mut self,
        voter: Voter,
        revision: i64,
        bytes: Bytes,
        news: &mut Vec<News>,
        lies: &mut Vec<Lie>,
    ) -> bool {
        let next = self.next;
        let Some(said) = self.said.get_mut(&voter).filter(|said| said.begun) else { return true };
        let last = said.ahead.back().map_or(next - 1, |(last, _)| *last);
        if revision < next && said.ahead.is_empty() {
            // It began before the others' agreement went on; what it says was told on already.
            return true;
        }
        if revision <= last {
            lies.push(Lie { voter, about: format!("revision {revision} of a watch, out of order") });
            return true;
        }
        said.bytes += bytes.len();
        said.ahead.push_back((revision, bytes));
        if said.bytes > AHEAD_BYTES_MAX && said.ahead.len() > 1 {
            *said = Said::default();
            return false;
        }
        self.settle(news, lies);
        true
    }

    /// A member has told everything up to a revision.
    pub fn progress(&mut self, voter: Voter, revision: i64) {
        if let Some(said) = self.said.get_mut(&voter).filter(|said| said.begun) {
            said.upto = said.upto.max(revision);
        }
    }

    /// A member says that the watch begins too early.
    pub fn compacted(&mut self, voter: Voter, revision: i64) -> Option<News> {
        self.said.entry(voter).or_default().compacted = Some(revision);
        self.nth_highest(self.said.values().filter_map(|said| said.compacted))
            .filter(|revision| *revision > self.next)
            .map(News::Compacted)
    }

    /// Up to where f + 1 members have told everything, and all of that was told on.
    #[must_use]
    pub fn agreed(&self) -> i64 {
        let complete = |said: &Said| match said.ahead.front() {
            Some((first, _)) => said.upto.min(first - 1),
            None => said.upto.max(self.next - 1),
        };
        let known = self.said.values().filter(|said| said.begun || !said.ahead.is_empty());
        self.nth_highest(known.map(complete)).unwrap_or(0).max(self.next - 1)
    }

    /// The highest value that f + 1 members reach: one of them is honest.
    fn nth_highest(&self, values: impl Iterator<Item = i64>) -> Option<i64> {
        let mut values: Vec<i64> = values.collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.get(self.weak - 1).copied()
    }

    fn settle(&mut self, news: &mut Vec<News>, lies: &mut Vec<Lie>) {
        loop {
            let heads = || self.said.values().filter_map(|said| said.ahead.front());
            let agreed = heads().find(|head| heads().filter(|other| other == head).count() >= self.weak);
            let Some((revision, bytes)) = agreed.cloned() else { return };
            for (voter, said) in &mut self.said {
                // A word that ended with its connection may have ended just before.
                let mut lied = said.begun && said.ahead.front().is_some_and(|(first, _)| *first > revision);
                while let Some((first, told)) = said.ahead.pop_front_if(|(first, _)| *first <= revision) {
                    said.bytes -= told.len();
                    lied |= first != revision || told != bytes;
                }
                if lied {
                    lies.push(Lie { voter: *voter, about: format!("revision {revision} of a watch") });
                }
            }
            self.next = revision + 1;
            news.push(News::Events(revision, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    /// An answer counts when f + 1 different members gave it; one member counts once, and whoever differs is named, early or late.
    #[test]
    fn f_plus_one_alike() {
        let (mut poll, mut lies) = (Poll::default(), Vec::new());
        assert_eq!(poll.vote(0, bytes("lie"), 2, &mut lies), None);
        assert_eq!(poll.vote(1, bytes("true"), 2, &mut lies), None);
        assert_eq!(poll.vote(1, bytes("true"), 2, &mut lies), None, "the same member again");
        assert_eq!(poll.standing(), (vec![0, 1], 1));
        assert_eq!(lies, []);
        assert_eq!(poll.vote(2, bytes("true"), 2, &mut lies), Some(bytes("true")));
        assert_eq!(lies.iter().map(|lie| lie.voter).collect::<Vec<_>>(), [0]);
        lies.clear();
        assert_eq!(poll.vote(3, bytes("late"), 2, &mut lies), None);
        assert_eq!(poll.vote(2, bytes("other"), 2, &mut lies), None);
        assert_eq!(lies.iter().map(|lie| lie.voter).collect::<Vec<_>>(), [3, 2]);
    }

    fn tell(tally: &mut Tally, voter: Voter, events: &[(i64, &'static str)]) -> (Vec<News>, Vec<Lie>) {
        let (mut news, mut lies) = (Vec::new(), Vec::new());
        for (revision, text) in events {
            assert!(tally.event(voter, *revision, bytes(text), &mut news, &mut lies));
        }
        (news, lies)
    }

    /// Events are told on in order and once, whatever one of four members makes up, changes or leaves out.
    #[test]
    fn a_watch_survives_a_liar() {
        let mut tally = Tally::new(2, 5);
        (0..4).for_each(|voter| tally.begin(voter));
        let invented = [(5, "invented"), (6, "six"), (8, "changed"), (9, "nine")];
        assert_eq!(tell(&mut tally, 0, &invented), (vec![], vec![]));
        let truth = [(6, "six"), (8, "eight"), (9, "nine")];
        assert_eq!(tell(&mut tally, 1, &truth), (vec![], vec![]), "one may be the liar");
        let (news, lies) = tell(&mut tally, 2, &truth);
        let told: Vec<News> =
            truth.iter().map(|(revision, text)| News::Events(*revision, bytes(text))).collect();
        assert_eq!(news, told);
        assert!(!lies.is_empty() && lies.iter().all(|lie| lie.voter == 0), "{lies:?}");
        assert_eq!(tell(&mut tally, 3, &truth), (vec![], vec![]), "late, and honest");
        assert_eq!(tally.next, 10);
    }

    /// Progress is what f + 1 members have told and was told on; a liar's alone moves nothing, a pending event holds it back.
    #[test]
    fn progress_is_never_ahead() {
        let mut tally = Tally::new(2, 5);
        (0..4).for_each(|voter| tally.begin(voter));
        tally.progress(0, 1000);
        assert_eq!(tally.agreed(), 4);
        assert_eq!(tell(&mut tally, 1, &[(7, "seven")]).0, []);
        tally.progress(1, 9);
        assert_eq!(tally.agreed(), 6, "the liar and one with an event at 7");
        assert_eq!(tell(&mut tally, 2, &[(7, "seven")]).0.len(), 1);
        tally.progress(2, 8);
        assert_eq!(tally.agreed(), 9);
    }

    /// A member that was away begins anew where the others are, and is no liar for what it missed.
    #[test]
    fn a_member_comes_back() {
        let mut tally = Tally::new(2, 5);
        (0..3).for_each(|voter| tally.begin(voter));
        tell(&mut tally, 0, &[(5, "a")]);
        tally.lost(0);
        assert_eq!(tell(&mut tally, 1, &[(5, "a"), (6, "b")]).0.len(), 1, "its word stands");
        assert_eq!(tell(&mut tally, 0, &[(6, "forged")]), (vec![], vec![]), "but nothing follows");
        tally.begin(0);
        assert_eq!(tell(&mut tally, 0, &[(6, "b")]), (vec![News::Events(6, bytes("b"))], vec![]));
    }

    /// A compaction ends a watch when f + 1 members say so.
    #[test]
    fn compaction_needs_agreement() {
        let mut tally = Tally::new(2, 5);
        assert_eq!(tally.compacted(0, 1000), None);
        assert_eq!(tally.compacted(0, 1000), None);
        assert_eq!(tally.compacted(2, 9), Some(News::Compacted(9)));
    }
}
