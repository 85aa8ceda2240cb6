//! What Raft replicas say to one another, and what they must not forget.
//!
//! The paper's two calls are split into a message each way, named after the verbs: RequestVote/Vote and
//! Append/Appended. An empty Append is a Heartbeat here, because it is answered at once, while Appended waits
//! for the disk. InstallSnapshot carries what the log needs to know; the state itself travels before it.

use std::fmt;
use std::sync::Arc;

use synod_core::{Batch, Index, Members, NodeId, Time};

/// A period with at most one leader (Raft 5.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

/// Terms and indices beyond this are malformed: so no sum overflows, whatever a peer says.
pub(super) const NUMBER_MAX: u64 = 1 << 60;

impl Term {
    /// The term after this one.
    pub(super) fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

/// A place in a log: what is there, by the Log Matching property, is decided by index and term alone.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Which entry.
    pub index: Index,
    /// The term in which it was made.
    pub term: Term,
}

impl Position {
    /// Whether a log that ends here is at least as up-to-date as one that ends at `other` (Raft 5.4.1).
    pub(super) fn is_up_to_date_with(self, other: Position) -> bool {
        (self.term, self.index) >= (other.term, other.index)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.index, self.term)
    }
}

/// An entry of the log; its index is its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: Term,
    /// What it holds.
    pub body: Body,
}

/// Short, because traces are full of them: `t2[n1#1=x]`.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Batch(batch) => write!(f, "{:?}{batch:?}", self.term),
            Body::Members(members) => write!(f, "{:?} {members:?}", self.term),
        }
    }
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Commands; none in the entry with which a leader begins its term.
    Batch(Batch),
    /// The configuration from this entry on.
    Members(Arc<Members>),
}

/// Why a vote is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To learn whether an election could be won; binds nobody.
    Probe,
    /// To be elected.
    Election,
    /// To be elected because the leader wants it: the leader being alive is no reason to refuse.
    Transfer,
}

/// What Raft replicas say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A candidate asks for a vote.
    RequestVote {
        /// The term to lead in; for a probe, the one that would be begun.
        term: Term,
        /// Where the candidate's log ends.
        last: Position,
        /// Why.
        purpose: Purpose,
    },
    /// The answer.
    Vote {
        /// The voter's term; of a granted probe, the term asked about.
        term: Term,
        /// What was asked.
        purpose: Purpose,
        /// Yes or no.
        granted: bool,
    },
    /// The leader's entries after a position.
    Append {
        /// The leader's term.
        term: Term,
        /// What comes right before the entries.
        previous: Position,
        /// The entries, in order; none when only the position is in question.
        entries: Vec<Entry>,
        /// How far the leader has committed.
        commit: Index,
    },
    /// The follower holds, on disk, what the leader holds, up to here.
    Appended {
        /// The follower's term.
        term: Term,
        /// Up to here.
        matched: Index,
    },
    /// The follower holds something else at the position before the entries, or nothing.
    Rejected {
        /// The follower's term.
        term: Term,
        /// The position that was in question.
        probe: Index,
        /// The last place at which the follower could agree, as far as it can tell.
        hint: Position,
    },
    /// The leader is alive.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// How far the leader has committed.
        commit: Index,
        /// The newest round of reads to be confirmed.
        round: u64,
        /// The leader's clock at sending; only the leader reads it.
        sent: Time,
    },
    /// The follower was of this term when the heartbeat came.
    HeartbeatAck {
        /// The follower's term.
        term: Term,
        /// As in the heartbeat.
        round: u64,
        /// As in the heartbeat.
        sent: Time,
        /// Up to here, the follower's log in memory is the leader's.
        received: Index,
        /// Up to here, the follower's log on disk is the leader's.
        durable: Index,
    },
    /// The leader has committed up to here, and has nothing else to say.
    Committed {
        /// The leader's term.
        term: Term,
        /// Up to here.
        commit: Index,
    },
    /// Follows a snapshot of the state.
    InstallSnapshot {
        /// The leader's term.
        term: Term,
        /// The last entry that the snapshot covers.
        last: Position,
        /// The configuration at that entry.
        members: Arc<Members>,
    },
    /// The follower's state is older than what its log begins with: only a snapshot helps.
    NeedSnapshot {
        /// The follower's term.
        term: Term,
        /// The snapshot must reach at least to here.
        from: Index,
    },
    /// A follower's clients want this ordered.
    Forward {
        /// The term of the leader that is meant; no other may accept it.
        term: Term,
        /// How often the follower was opened.
        life: u64,
        /// Counts the follower's messages of this kind within its life: a copy is recognised.
        number: u64,
        /// The commands.
        batch: Batch,
    },
    /// A follower's reads want a fence.
    RequestIndex {
        /// How often the follower was opened.
        life: u64,
        /// Counts the follower's requests within its life.
        number: u64,
    },
    /// The answer: what the reads must have seen.
    ReadIndex {
        /// As in the request.
        life: u64,
        /// As in the request.
        number: u64,
        /// Everything up to here.
        index: Index,
    },
    /// The leader wants the receiver to be elected at once.
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
}

/// What a Raft replica must not forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The current term, and whom this replica voted for in it.
    Vote {
        /// The current term.
        term: Term,
        /// Its candidate.
        voted_for: Option<NodeId>,
    },
    /// An entry, which replaces whatever was at its index and after it.
    Entry {
        /// Its index.
        at: Index,
        /// What is there.
        entry: Entry,
    },
    /// The log begins after a snapshot. What it held after that position stays only if it agreed with it.
    SnapshotBase {
        /// The last entry that the snapshot covers.
        last: Position,
        /// The configuration at that entry.
        members: Arc<Members>,
    },
    /// The replica was opened for the so-manieth time.
    Life(u64),
}

impl Message {
    /// The sender's term, where the message speaks of it.
    pub(super) fn term(&self) -> Option<Term> {
        match self {
            Message::RequestVote { term, .. }
            | Message::Vote { term, .. }
            | Message::Append { term, .. }
            | Message::Appended { term, .. }
            | Message::Rejected { term, .. }
            | Message::Heartbeat { term, .. }
            | Message::HeartbeatAck { term, .. }
            | Message::Committed { term, .. }
            | Message::InstallSnapshot { term, .. }
            | Message::NeedSnapshot { term, .. }
            | Message::Forward { term, .. }
            | Message::TimeoutNow { term } => Some(*term),
            Message::RequestIndex { .. } | Message::ReadIndex { .. } => None,
        }
    }
}
