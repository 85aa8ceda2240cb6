//! How messages and records become bytes: a tag, then the fields in order.
//!
//! Tags are never reused. Rounds and slots beyond `NUMBER_MAX` are refused here, so that no sum of what a peer says can
//! overflow.

use std::sync::Arc;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{Batch, Index, NodeId, Time, Wire, WireError};

use super::message::{Ballot, Message, NUMBER_MAX, Purpose, Pvalue, Range, Record, Value};

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
    Ok(Index(number(from, "slot")?))
}

impl Wire for Ballot {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.round);
        self.leader.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Ballot { round: number(from, "round")?, leader: NodeId::decode(from)? })
    }
}

impl Wire for Value {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Value::Batch(batch) => {
                put_tag(out, 0);
                batch.encode(out);
            }
            Value::Members(members) => {
                put_tag(out, 1);
                members.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        match from.u8("value kind")? {
            0 => Ok(Value::Batch(Batch::decode(from)?)),
            1 => Ok(Value::Members(Arc::decode(from)?)),
            other => Err(WireError::Invalid { what: "value kind", value: other.into(), allowed: "0 or 1" }),
        }
    }
}

impl Wire for Pvalue {
    fn encode(&self, out: &mut BytesMut) {
        self.at.encode(out);
        self.ballot.encode(out);
        self.value.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Pvalue { at: index(from)?, ballot: Ballot::decode(from)?, value: Value::decode(from)? })
    }
}

impl Wire for Range {
    fn encode(&self, out: &mut BytesMut) {
        self.first.encode(out);
        self.last.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Range { first: index(from)?, last: index(from)? })
    }
}

impl Wire for Purpose {
    fn encode(&self, out: &mut BytesMut) {
        put_tag(out, *self as u8);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        match from.u8("purpose")? {
            0 => Ok(Purpose::Election),
            1 => Ok(Purpose::Transfer),
            other => Err(WireError::Invalid { what: "purpose", value: other.into(), allowed: "0 or 1" }),
        }
    }
}

impl Wire for Message {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Probe { ballot, from } => {
                put_tag(out, 1);
                ballot.encode(out);
                from.encode(out);
            }
            Message::Probed { ballot, granted, promised } => {
                put_tag(out, 2);
                ballot.encode(out);
                put_tag(out, u8::from(*granted));
                promised.encode(out);
            }
            Message::Prepare { ballot, from, purpose } => {
                put_tag(out, 3);
                ballot.encode(out);
                from.encode(out);
                purpose.encode(out);
            }
            Message::Promise { ballot, from, upto, accepted, decided } => {
                put_tag(out, 4);
                ballot.encode(out);
                from.encode(out);
                upto.encode(out);
                accepted.encode(out);
                decided.encode(out);
            }
            Message::Refused { asked, promised } => {
                put_tag(out, 5);
                asked.encode(out);
                promised.encode(out);
            }
            Message::Accept { ballot, first, values, decided } => {
                put_tag(out, 6);
                ballot.encode(out);
                first.encode(out);
                values.encode(out);
                decided.encode(out);
            }
            Message::Accepted { ballot, through, beyond } => {
                put_tag(out, 7);
                ballot.encode(out);
                through.encode(out);
                beyond.encode(out);
            }
            Message::Heartbeat { ballot, decided, round, sent } => {
                put_tag(out, 8);
                ballot.encode(out);
                decided.encode(out);
                put_u64(out, *round);
                put_u64(out, sent.0);
            }
            Message::HeartbeatAck { ballot, round, sent, received, durable, knows } => {
                put_tag(out, 9);
                ballot.encode(out);
                put_u64(out, *round);
                put_u64(out, sent.0);
                received.encode(out);
                durable.encode(out);
                knows.encode(out);
            }
            Message::Decided { ballot, upto } => {
                put_tag(out, 10);
                ballot.encode(out);
                upto.encode(out);
            }
            Message::Install { ballot, at, members } => {
                put_tag(out, 11);
                ballot.encode(out);
                at.encode(out);
                members.encode(out);
            }
            Message::NeedSnapshot { ballot, from } => {
                put_tag(out, 12);
                ballot.encode(out);
                from.encode(out);
            }
            Message::Forward { ballot, life, number, batch } => {
                put_tag(out, 13);
                ballot.encode(out);
                put_u64(out, *life);
                put_u64(out, *number);
                batch.encode(out);
            }
            Message::RequestIndex { life, number } => {
                put_tag(out, 14);
                put_u64(out, *life);
                put_u64(out, *number);
            }
            Message::ReadIndex { life, number, index } => {
                put_tag(out, 15);
                put_u64(out, *life);
                put_u64(out, *number);
                index.encode(out);
            }
            Message::Invite { ballot } => {
                put_tag(out, 16);
                ballot.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let tag = from.u8("message kind")?;
        if tag == 14 {
            return Ok(Message::RequestIndex { life: from.u64("life")?, number: from.u64("number")? });
        }
        if tag == 15 {
            let (life, number) = (from.u64("life")?, from.u64("number")?);
            return Ok(Message::ReadIndex { life, number, index: index(from)? });
        }
        if !(1..=16).contains(&tag) {
            return Err(WireError::Invalid { what: "message kind", value: tag.into(), allowed: "1 to 16" });
        }
        // All others begin with a ballot.
        let ballot = Ballot::decode(from)?;
        Ok(match tag {
            1 => Message::Probe { ballot, from: index(from)? },
            2 => {
                let granted = from.flag("granted")?;
                Message::Probed { ballot, granted, promised: Ballot::decode(from)? }
            }
            3 => Message::Prepare { ballot, from: index(from)?, purpose: Purpose::decode(from)? },
            4 => Message::Promise {
                ballot,
                from: index(from)?,
                upto: index(from)?,
                accepted: Vec::decode(from)?,
                decided: index(from)?,
            },
            5 => Message::Refused { asked: ballot, promised: Ballot::decode(from)? },
            6 => Message::Accept {
                ballot,
                first: index(from)?,
                values: Vec::decode(from)?,
                decided: index(from)?,
            },
            7 => Message::Accepted { ballot, through: index(from)?, beyond: Vec::decode(from)? },
            8 => Message::Heartbeat {
                ballot,
                decided: index(from)?,
                round: from.u64("round of reads")?,
                sent: Time(from.u64("time")?),
            },
            9 => Message::HeartbeatAck {
                ballot,
                round: from.u64("round of reads")?,
                sent: Time(from.u64("time")?),
                received: index(from)?,
                durable: index(from)?,
                knows: index(from)?,
            },
            10 => Message::Decided { ballot, upto: index(from)? },
            11 => Message::Install { ballot, at: index(from)?, members: Arc::decode(from)? },
            12 => Message::NeedSnapshot { ballot, from: index(from)? },
            13 => Message::Forward {
                ballot,
                life: from.u64("life")?,
                number: from.u64("number")?,
                batch: Batch::decode(from)?,
            },
            _ => Message::Invite { ballot },
        })
    }
}

impl Wire for Record {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Record::Promised(ballot) => {
                put_tag(out, 1);
                ballot.encode(out);
            }
            Record::Accepted(pvalue) => {
                put_tag(out, 2);
                pvalue.encode(out);
            }
            Record::Decided(upto) => {
                put_tag(out, 3);
                upto.encode(out);
            }
            Record::Base { at, members } => {
                put_tag(out, 4);
                at.encode(out);
                members.encode(out);
            }
            Record::Life(life) => {
                put_tag(out, 5);
                put_u64(out, *life);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("record kind")? {
            1 => Record::Promised(Ballot::decode(from)?),
            2 => Record::Accepted(Pvalue::decode(from)?),
            3 => Record::Decided(index(from)?),
            4 => Record::Base { at: index(from)?, members: Arc::decode(from)? },
            5 => Record::Life(from.u64("life")?),
            other => {
                return Err(WireError::Invalid {
                    what: "record kind",
                    value: other.into(),
                    allowed: "1 to 5",
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

    /// Any bytes at all are decoded or refused, and what is decoded is encoded to something that decodes to the same.
    fn decodes_or_refuses<T: Wire + PartialEq + fmt::Debug>(bytes: &[u8]) {
        if let Ok(value) = T::decode_all(Bytes::copy_from_slice(bytes)) {
            assert_eq!(T::decode_all(value.to_bytes()), Ok(value));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..19, rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            decodes_or_refuses::<Message>(&bytes);
            decodes_or_refuses::<Record>(&bytes);
        }

        #[test]
        fn small_numbers_never_panic(kind in 0u8..19, rest in proptest::collection::vec(0u8..4, 0..60)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            decodes_or_refuses::<Message>(&bytes);
            decodes_or_refuses::<Record>(&bytes);
        }
    }

    /// A number that could overflow a sum is refused where it enters.
    #[test]
    fn numbers_out_of_bounds_are_refused() {
        let message = Message::Invite { ballot: Ballot { round: u64::MAX, leader: NodeId(1) } };
        assert!(Message::decode_all(message.to_bytes()).is_err());
        let message = Message::Decided { ballot: Ballot::default(), upto: Index(NUMBER_MAX + 1) };
        assert!(Message::decode_all(message.to_bytes()).is_err());
    }
}
