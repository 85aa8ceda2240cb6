//! How Raft's messages and records become bytes: a tag, then the fields in order.
//!
//! Tags are never reused. Terms and indices beyond `NUMBER_MAX` are refused here, so that no sum of what a peer says
//! can overflow.

use std::sync::Arc;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{Batch, Index, Time, Wire, WireError};

use super::message::{Body, Entry, Message, NUMBER_MAX, Position, Purpose, Record, Term};

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
    use std::fmt;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

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
