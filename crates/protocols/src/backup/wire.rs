//! How messages and records become bytes: a tag, then the fields in order.
//!
//! Tags are never reused. Numbers beyond `NUMBER_MAX` and views that break their invariants are refused here.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{Batch, Index, NodeId, Time, Wire, WireError};

use super::message::{
    Accepted, Ballot, Body, Entry, Message, NUMBER_MAX, Position, Record, Replication, View, ViewNumber,
};

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

impl Wire for ViewNumber {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.0);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(ViewNumber(number(from, "view number")?))
    }
}

impl Wire for Position {
    fn encode(&self, out: &mut BytesMut) {
        self.index.encode(out);
        self.view.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Position { index: index(from)?, view: ViewNumber::decode(from)? })
    }
}

impl Wire for Ballot {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.round);
        self.node.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Ballot { round: number(from, "ballot")?, node: NodeId::decode(from)? })
    }
}

impl Wire for View {
    fn encode(&self, out: &mut BytesMut) {
        self.number.encode(out);
        self.primary.encode(out);
        put_u64(out, self.backups.len() as u64);
        for backup in &self.backups {
            backup.encode(out);
        }
        self.members.encode(out);
        put_tag(out, u8::from(self.replication == Replication::Async));
        self.loss.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let view = View {
            number: ViewNumber::decode(from)?,
            primary: Option::decode(from)?,
            backups: Vec::<NodeId>::decode(from)?.into_iter().collect::<BTreeSet<_>>(),
            members: Arc::decode(from)?,
            replication: if from.flag("replication")? { Replication::Async } else { Replication::Sync },
            loss: ViewNumber::decode(from)?,
        };
        if !view.is_sound() {
            return Err(WireError::Invalid {
                what: "view",
                value: view.number.0,
                allowed: "a primary and backups among the voters",
            });
        }
        Ok(view)
    }
}

impl Wire for Entry {
    fn encode(&self, out: &mut BytesMut) {
        self.view.encode(out);
        match &self.body {
            Body::Batch(batch) => {
                put_tag(out, 0);
                batch.encode(out);
            }
            Body::Begin(members) => {
                put_tag(out, 1);
                members.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let view = ViewNumber::decode(from)?;
        let body = match from.u8("entry kind")? {
            0 => Body::Batch(Batch::decode(from)?),
            1 => Body::Begin(Arc::decode(from)?),
            other => {
                return Err(WireError::Invalid {
                    what: "entry kind",
                    value: other.into(),
                    allowed: "0 or 1",
                });
            }
        };
        Ok(Entry { view, body })
    }
}

fn put_accepted(accepted: Option<&Accepted>, out: &mut BytesMut) {
    put_tag(out, u8::from(accepted.is_some()));
    if let Some((ballot, next)) = accepted {
        ballot.encode(out);
        next.encode(out);
    }
}

fn accepted(from: &mut Reader) -> Result<Option<Accepted>, WireError> {
    Ok(if from.flag("accepted")? { Some((Ballot::decode(from)?, Arc::decode(from)?)) } else { None })
}

impl Wire for Message {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Replicate { view, previous, entries, decided } => {
                put_tag(out, 1);
                view.encode(out);
                previous.encode(out);
                entries.encode(out);
                decided.encode(out);
            }
            Message::Replicated { view, matched } => {
                put_tag(out, 2);
                view.encode(out);
                matched.encode(out);
            }
            Message::Rejected { view, probe, hint, delivered } => {
                put_tag(out, 3);
                view.encode(out);
                probe.encode(out);
                hint.encode(out);
                delivered.encode(out);
            }
            Message::Diverged { view, delivered } => {
                put_tag(out, 4);
                view.encode(out);
                delivered.encode(out);
            }
            Message::Heartbeat { view, decided, round, sent } => {
                put_tag(out, 5);
                view.encode(out);
                decided.encode(out);
                put_u64(out, *round);
                put_u64(out, sent.0);
            }
            Message::HeartbeatAck { view, round, sent, rival, received, durable } => {
                put_tag(out, 6);
                view.encode(out);
                put_u64(out, *round);
                put_u64(out, sent.0);
                rival.encode(out);
                received.encode(out);
                durable.encode(out);
            }
            Message::Decided { view, decided } => {
                put_tag(out, 7);
                view.encode(out);
                decided.encode(out);
            }
            Message::Prepare { view, ballot } => {
                put_tag(out, 8);
                view.encode(out);
                ballot.encode(out);
            }
            Message::Promise { view, ballot, accepted, last } => {
                put_tag(out, 9);
                view.encode(out);
                ballot.encode(out);
                put_accepted(accepted.as_ref(), out);
                last.encode(out);
            }
            Message::Accept { view, ballot, next } => {
                put_tag(out, 10);
                view.encode(out);
                ballot.encode(out);
                next.encode(out);
            }
            Message::Accepted { view, ballot } => {
                put_tag(out, 11);
                view.encode(out);
                ballot.encode(out);
            }
            Message::Outbid { view, promised } => {
                put_tag(out, 12);
                view.encode(out);
                promised.encode(out);
            }
            Message::NewView { view } => {
                put_tag(out, 13);
                view.encode(out);
            }
            Message::InstallSnapshot { view, last } => {
                put_tag(out, 14);
                view.encode(out);
                last.encode(out);
            }
            Message::NeedSnapshot { view, from } => {
                put_tag(out, 15);
                view.encode(out);
                from.encode(out);
            }
            Message::Forward { view, life, number, batch } => {
                put_tag(out, 16);
                view.encode(out);
                put_u64(out, *life);
                put_u64(out, *number);
                batch.encode(out);
            }
            Message::RequestIndex { view, life, number } => {
                put_tag(out, 17);
                view.encode(out);
                put_u64(out, *life);
                put_u64(out, *number);
            }
            Message::ReadIndex { view, life, number, index } => {
                put_tag(out, 18);
                view.encode(out);
                put_u64(out, *life);
                put_u64(out, *number);
                index.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let tag = from.u8("message kind")?;
        // Two messages carry the whole view, and one nothing but it; the others begin with its number.
        match tag {
            5 => {
                return Ok(Message::Heartbeat {
                    view: Arc::decode(from)?,
                    decided: index(from)?,
                    round: from.u64("round")?,
                    sent: Time(from.u64("time")?),
                });
            }
            8 => return Ok(Message::Prepare { view: Arc::decode(from)?, ballot: Ballot::decode(from)? }),
            13 => return Ok(Message::NewView { view: Arc::decode(from)? }),
            1..=18 => {}
            other => {
                return Err(WireError::Invalid {
                    what: "message kind",
                    value: other.into(),
                    allowed: "1 to 18",
                });
            }
        }
        let view = ViewNumber::decode(from)?;
        Ok(match tag {
            1 => Message::Replicate {
                view,
                previous: Position::decode(from)?,
                entries: Vec::decode(from)?,
                decided: index(from)?,
            },
            2 => Message::Replicated { view, matched: index(from)? },
            3 => Message::Rejected {
                view,
                probe: index(from)?,
                hint: Position::decode(from)?,
                delivered: index(from)?,
            },
            4 => Message::Diverged { view, delivered: index(from)? },
            6 => Message::HeartbeatAck {
                view,
                round: from.u64("round")?,
                sent: Time(from.u64("time")?),
                rival: Option::decode(from)?,
                received: index(from)?,
                durable: index(from)?,
            },
            7 => Message::Decided { view, decided: index(from)? },
            9 => Message::Promise {
                view,
                ballot: Ballot::decode(from)?,
                accepted: accepted(from)?,
                last: Option::decode(from)?,
            },
            10 => Message::Accept { view, ballot: Ballot::decode(from)?, next: Arc::decode(from)? },
            11 => Message::Accepted { view, ballot: Ballot::decode(from)? },
            12 => Message::Outbid { view, promised: Ballot::decode(from)? },
            14 => Message::InstallSnapshot { view, last: Position::decode(from)? },
            15 => Message::NeedSnapshot { view, from: index(from)? },
            16 => Message::Forward {
                view,
                life: from.u64("life")?,
                number: from.u64("number")?,
                batch: Batch::decode(from)?,
            },
            17 => Message::RequestIndex { view, life: from.u64("life")?, number: from.u64("number")? },
            _ => Message::ReadIndex {
                view,
                life: from.u64("life")?,
                number: from.u64("number")?,
                index: index(from)?,
            },
        })
    }
}

impl Wire for Record {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Record::Life(life) => {
                put_tag(out, 1);
                put_u64(out, *life);
            }
            Record::View(view) => {
                put_tag(out, 2);
                view.encode(out);
            }
            Record::Promised(ballot) => {
                put_tag(out, 3);
                ballot.encode(out);
            }
            Record::Accepted { ballot, next } => {
                put_tag(out, 4);
                ballot.encode(out);
                next.encode(out);
            }
            Record::Base(last) => {
                put_tag(out, 5);
                last.encode(out);
            }
            Record::Entry { at, entry } => {
                put_tag(out, 6);
                at.encode(out);
                entry.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("record kind")? {
            1 => Record::Life(from.u64("life")?),
            2 => Record::View(Arc::decode(from)?),
            3 => Record::Promised(Ballot::decode(from)?),
            4 => Record::Accepted { ballot: Ballot::decode(from)?, next: Arc::decode(from)? },
            5 => Record::Base(Position::decode(from)?),
            6 => Record::Entry { at: index(from)?, entry: Entry::decode(from)? },
            other => {
                return Err(WireError::Invalid {
                    what: "record kind",
                    value: other.into(),
                    allowed: "1 to 6",
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
    use synod_core::Members;

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
        fn arbitrary_bytes_never_panic(kind in 0u8..21, rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            decodes_or_refuses::<Message>(&bytes);
            decodes_or_refuses::<Record>(&bytes);
        }

        #[test]
        fn small_numbers_never_panic(kind in 0u8..21, rest in proptest::collection::vec(0u8..4, 0..60)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            decodes_or_refuses::<Message>(&bytes);
            decodes_or_refuses::<Record>(&bytes);
        }
    }

    /// A view whose primary is no voter, or its own backup, or nobody, is refused where it enters.
    #[test]
    fn unsound_views_are_refused() {
        let sound = View {
            number: ViewNumber(1),
            primary: Some(NodeId(1)),
            backups: BTreeSet::from([NodeId(2)]),
            ..View::initial(&Members::of([NodeId(1), NodeId(2)]))
        };
        assert_eq!(View::decode_all(sound.to_bytes()), Ok(sound.clone()));
        for primary in [None, Some(NodeId(0)), Some(NodeId(2)), Some(NodeId(3))] {
            assert!(View::decode_all(View { primary, ..sound.clone() }.to_bytes()).is_err(), "{primary:?}");
        }
        let late = View { loss: ViewNumber(2), ..sound };
        assert!(View::decode_all(late.to_bytes()).is_err());
    }

    /// A number that could overflow a sum is refused where it enters.
    #[test]
    fn numbers_out_of_bounds_are_refused() {
        let message = Message::Replicated { view: ViewNumber(u64::MAX), matched: Index(1) };
        assert!(Message::decode_all(message.to_bytes()).is_err());
        let message = Message::Decided { view: ViewNumber(1), decided: Index(NUMBER_MAX + 1) };
        assert!(Message::decode_all(message.to_bytes()).is_err());
    }
}
