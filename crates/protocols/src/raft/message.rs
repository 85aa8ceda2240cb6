//! What Raft replicas say to one another, and what they must not forget.
//!
//! The paper's two calls are split into a message each way, named after the verbs: RequestVote/Vote and
//! Append/Appended. An empty Append is a Heartbeat here, because it is answered at once, while Appended waits
//! for the disk. InstallSnapshot carries what the log needs to know; the state itself travels before it.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{Batch, Index, Members, NodeId, Time, Wire, WireError};

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

fn put_tag(out: &mut BytesMut, tag: u8) {
    out.extend_from_slice(&[tag]);
}

fn number(from: &mut Reader, what: &'static str) -> Result<u64, WireError> {
    let value = from.u64(what)?;
    if value > NUMBER_MAX {
        return Err(WireError::Invalid { what, value, allowed: "at most 2^60" });
    }
    Ok(value)
}

fn index(from: &mut Reader) -> Result<Index, WireError> {
    Ok(Index(number(from, "index")?))
}

impl Wire for Term {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.0);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Term(number(from, "term")?))
    }
}

impl Wire for Position {
    fn encode(&self, out: &mut BytesMut) {
        self.index.encode(out);
        self.term.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Position { index: index(from)?, term: Term::decode(from)? })
    }
}

impl Wire for Purpose {
    fn encode(&self, out: &mut BytesMut) {
        put_tag(out, *self as u8);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        match from.u8("purpose")? {
            0 => Ok(Purpose::Probe),
            1 => Ok(Purpose::Election),
            2 => Ok(Purpose::Transfer),
            other => Err(WireError::Invalid { what: "purpose", value: other.into(), allowed: "0 to 2" }),
        }
    }
}

impl Wire for Entry {
    fn encode(&self, out: &mut BytesMut) {
        self.term.encode(out);
        match &self.body {
            Body::Batch(batch) => {
                put_tag(out, 0);
                batch.encode(out);
            }
            Body::Members(members) => {
                put_tag(out, 1);
                members.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let term = Term::decode(from)?;
        let body = match from.u8("entry kind")? {
            0 => Body::Batch(Batch::decode(from)?),
            1 => Body::Members(Arc::decode(from)?),
            other => {
                return Err(WireError::Invalid {
                    what: "entry kind",
                    value: other.into(),
                    allowed: "0 or 1",
                });
            }
        };
        Ok(Entry { term, body })
    }
}

impl Wire for Message {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::RequestVote { term, last, purpose } => {
                put_tag(out, 1);
                term.encode(out);
                last.encode(out);
                purpose.encode(out);
            }
            Message::Vote { term, purpose, granted } => {
                put_tag(out, 2);
                term.encode(out);
                purpose.encode(out);
                put_tag(out, u8::from(*granted));
            }
            Message::Append { term, previous, entries, commit } => {
                put_tag(out, 3);
                term.encode(out);
                previous.encode(out);
                entries.encode(out);
                commit.encode(out);
            }
            Message::Appended { term, matched } => {
                put_tag(out, 4);
                term.encode(out);
                matched.encode(out);
            }
            Message::Rejected { term, probe, hint } => {
                put_tag(out, 5);
                term.encode(out);
                probe.encode(out);
                hint.encode(out);
            }
            Message::Heartbeat { term, commit, round, sent } => {
                put_tag(out, 6);
                term.encode(out);
                commit.encode(out);
                put_u64(out, *round);
                put_u64(out, sent.0);
            }
            Message::HeartbeatAck { term, round, sent, received, durable } => {
                put_tag(out, 7);
                term.encode(out);
                put_u64(out, *round);
                put_u64(out, sent.0);
                received.encode(out);
                durable.encode(out);
            }
            Message::Committed { term, commit } => {
                put_tag(out, 8);
                term.encode(out);
                commit.encode(out);
            }
            Message::InstallSnapshot { term, last, members } => {
                put_tag(out, 9);
                term.encode(out);
                last.encode(out);
                members.encode(out);
            }
            Message::NeedSnapshot { term, from } => {
                put_tag(out, 10);
                term.encode(out);
                from.encode(out);
            }
            Message::Forward { term, life, number, batch } => {
                put_tag(out, 11);
                term.encode(out);
                put_u64(out, *life);
                put_u64(out, *number);
                batch.encode(out);
            }
            Message::RequestIndex { life, number } => {
                put_tag(out, 12);
                put_u64(out, *life);
                put_u64(out, *number);
            }
            Message::ReadIndex { life, number, index } => {
                put_tag(out, 13);
                put_u64(out, *life);
                put_u64(out, *number);
                index.encode(out);
            }
            Message::TimeoutNow { term } => {
                put_tag(out, 14);
                term.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("message kind")? {
            1 => Message::RequestVote {
                term: Term::decode(from)?,
                last: Position::decode(from)?,
                purpose: Purpose::decode(from)?,
            },
            2 => Message::Vote {
                term: Term::decode(from)?,
                purpose: Purpose::decode(from)?,
                granted: from.flag("granted")?,
            },
            3 => Message::Append {
                term: Term::decode(from)?,
                previous: Position::decode(from)?,
                entries: Vec::decode(from)?,
                commit: index(from)?,
            },
            4 => Message::Appended { term: Term::decode(from)?, matched: index(from)? },
            5 => Message::Rejected {
                term: Term::decode(from)?,
                probe: index(from)?,
                hint: Position::decode(from)?,
            },
            6 => Message::Heartbeat {
                term: Term::decode(from)?,
                commit: index(from)?,
                round: from.u64("round")?,
                sent: Time(from.u64("time")?),
            },
            7 => Message::HeartbeatAck {
                term: Term::decode(from)?,
                round: from.u64("round")?,
                sent: Time(from.u64("time")?),
                received: index(from)?,
                durable: index(from)?,
            },
            8 => Message::Committed { term: Term::decode(from)?, commit: index(from)? },
            9 => Message::InstallSnapshot {
                term: Term::decode(from)?,
                last: Position::decode(from)?,
                members: Arc::decode(from)?,
            },
            10 => Message::NeedSnapshot { term: Term::decode(from)?, from: index(from)? },
            11 => Message::Forward {
                term: Term::decode(from)?,
                life: from.u64("life")?,
                number: from.u64("number")?,
                batch: Batch::decode(from)?,
            },
            12 => Message::RequestIndex { life: from.u64("life")?, number: from.u64("number")? },
            13 => Message::ReadIndex {
                life: from.u64("life")?,
                number: from.u64("number")?,
                index: index(from)?,
            },
            14 => Message::TimeoutNow { term: Term::decode(from)? },
            other => {
                return Err(WireError::Invalid {
                    what: "message kind",
                    value: other.into(),
                    allowed: "1 to 14",
                });
            }
        })
    }
}

impl Wire for Record {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Record::Vote { term, voted_for } => {
                put_tag(out, 1);
                term.encode(out);
                voted_for.encode(out);
            }
            Record::Entry { at, entry } => {
                put_tag(out, 2);
                at.encode(out);
                entry.encode(out);
            }
            Record::SnapshotBase { last, members } => {
                put_tag(out, 3);
                last.encode(out);
                members.encode(out);
            }
            Record::Life(life) => {
                put_tag(out, 4);
                put_u64(out, *life);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("record kind")? {
            1 => Record::Vote { term: Term::decode(from)?, voted_for: Option::decode(from)? },
            2 => Record::Entry { at: index(from)?, entry: Entry::decode(from)? },
            3 => Record::SnapshotBase { last: Position::decode(from)?, members: Arc::decode(from)? },
            4 => Record::Life(from.u64("life")?),
            other => {
                return Err(WireError::Invalid {
                    what: "record kind",
                    value: other.into(),
                    allowed: "1 to 4",
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    /// Any bytes at all are decoded or refused, and what is decoded is encoded to something that decodes to
    /// the same.
    fn decodes_or_refuses<T: Wire + PartialEq + fmt::Debug>(bytes: &[u8]) {
        if let Ok(value) = T::decode_all(Bytes::copy_from_slice(bytes)) {
            assert_eq!(T::decode_all(value.to_bytes()), Ok(value));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..17, rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            decodes_or_refuses::<Message>(&bytes);
            decodes_or_refuses::<Record>(&bytes);
        }

        #[test]
        fn small_numbers_never_panic(kind in 0u8..17, rest in proptest::collection::vec(0u8..4, 0..60)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            decodes_or_refuses::<Message>(&bytes);
            decodes_or_refuses::<Record>(&bytes);
        }
    }

    /// A number that could overflow a sum is refused where it enters.
    #[test]
    fn numbers_out_of_bounds_are_refused() {
        let message = Message::TimeoutNow { term: Term(u64::MAX) };
        assert!(Message::decode_all(message.to_bytes()).is_err());
        let message = Message::Appended { term: Term(1), matched: Index(NUMBER_MAX + 1) };
        assert!(Message::decode_all(message.to_bytes()).is_err());
    }
}
