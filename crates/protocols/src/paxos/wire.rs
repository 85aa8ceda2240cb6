//! How Paxos' messages and records become bytes: a tag, then the fields in order.
//!
//! Tags are never reused. Rounds and slots beyond `NUMBER_MAX` are refused here, so that no sum of what a peer says can overflow.

use std::sync::Arc;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{Batch, Index, Members, NodeId, Wire, WireError};

use super::message::{Ballot, Configurations, Message, NUMBER_MAX, Proposal, Record, Value};

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

fn slot(from: &mut Reader) -> Result<Index, WireError> {
    Ok(Index(number(from, "slot")?))
}

/// More configurations than this are never under way: one may be decided in each slot of a window.
const CONFIGURATIONS_MAX: u64 = 256;

fn put_configurations(out: &mut BytesMut, configurations: &Configurations) {
    put_u64(out, configurations.len() as u64);
    for (at, members) in configurations {
        at.encode(out);
        members.encode(out);
    }
}

fn configurations(from: &mut Reader) -> Result<Configurations, WireError> {
    let count = from.count("configurations", CONFIGURATIONS_MAX)?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push((slot(from)?, Arc::<Members>::decode(from)?));
    }
    Ok(list)
}

impl Wire for Ballot {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.round);
        self.node.encode(out);
        put_u64(out, self.life);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let round = number(from, "round")?;
        let node = NodeId::decode(from)?;
        Ok(Ballot { round, node, life: number(from, "life")? })
    }
}

impl Wire for Value {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Value::Batch(batch) => {
                put_tag(out, 0);
                batch.encode(out);
            }
            Value::Members { after, members } => {
                put_tag(out, 1);
                after.encode(out);
                members.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        match from.u8("value kind")? {
            0 => Ok(Value::Batch(Batch::decode(from)?)),
            1 => Ok(Value::Members { after: slot(from)?, members: Arc::decode(from)? }),
            other => Err(WireError::Invalid { what: "value kind", value: other.into(), allowed: "0 or 1" }),
        }
    }
}

impl Wire for Proposal {
    fn encode(&self, out: &mut BytesMut) {
        self.ballot.encode(out);
        self.value.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Proposal { ballot: Ballot::decode(from)?, value: Value::decode(from)? })
    }
}

impl Wire for Message {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Prepare { slot, ballot } => {
                put_tag(out, 1);
                slot.encode(out);
                ballot.encode(out);
            }
            Message::Promise { slot, ballot, accepted } => {
                put_tag(out, 2);
                slot.encode(out);
                ballot.encode(out);
                accepted.encode(out);
            }
            Message::Accept { slot, ballot, value } => {
                put_tag(out, 3);
                slot.encode(out);
                ballot.encode(out);
                value.encode(out);
            }
            Message::Accepted { slot, ballot } => {
                put_tag(out, 4);
                slot.encode(out);
                ballot.encode(out);
            }
            Message::Refused { slot, ballot, promised } => {
                put_tag(out, 5);
                slot.encode(out);
                ballot.encode(out);
                promised.encode(out);
            }
            Message::Chosen { slot, ballot } => {
                put_tag(out, 6);
                slot.encode(out);
                ballot.encode(out);
            }
            Message::Have { decided } => {
                put_tag(out, 7);
                decided.encode(out);
            }
            Message::Learn { after } => {
                put_tag(out, 8);
                after.encode(out);
            }
            Message::Known { first, values, decided } => {
                put_tag(out, 9);
                first.encode(out);
                values.encode(out);
                decided.encode(out);
            }
            Message::InstallSnapshot { at, configurations } => {
                put_tag(out, 10);
                at.encode(out);
                put_configurations(out, configurations);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("message kind")? {
            1 => Message::Prepare { slot: slot(from)?, ballot: Ballot::decode(from)? },
            2 => Message::Promise {
                slot: slot(from)?,
                ballot: Ballot::decode(from)?,
                accepted: Option::decode(from)?,
            },
            3 => Message::Accept {
                slot: slot(from)?,
                ballot: Ballot::decode(from)?,
                value: Value::decode(from)?,
            },
            4 => Message::Accepted { slot: slot(from)?, ballot: Ballot::decode(from)? },
            5 => Message::Refused {
                slot: slot(from)?,
                ballot: Ballot::decode(from)?,
                promised: Ballot::decode(from)?,
            },
            6 => Message::Chosen { slot: slot(from)?, ballot: Ballot::decode(from)? },
            7 => Message::Have { decided: slot(from)? },
            8 => Message::Learn { after: slot(from)? },
            9 => Message::Known { first: slot(from)?, values: Vec::decode(from)?, decided: slot(from)? },
            10 => Message::InstallSnapshot { at: slot(from)?, configurations: configurations(from)? },
            other => {
                return Err(WireError::Invalid {
                    what: "message kind",
                    value: other.into(),
                    allowed: "1 to 10",
                });
            }
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
            Record::Promised { slot, ballot } => {
                put_tag(out, 2);
                slot.encode(out);
                ballot.encode(out);
            }
            Record::Accepted { slot, ballot, value } => {
                put_tag(out, 3);
                slot.encode(out);
                ballot.encode(out);
                value.encode(out);
            }
            Record::Chosen { slot } => {
                put_tag(out, 4);
                slot.encode(out);
            }
            Record::Learned { slot, value } => {
                put_tag(out, 5);
                slot.encode(out);
                value.encode(out);
            }
            Record::Base { at, floor, configurations } => {
                put_tag(out, 6);
                at.encode(out);
                floor.encode(out);
                put_configurations(out, configurations);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("record kind")? {
            1 => Record::Life(number(from, "life")?),
            2 => Record::Promised { slot: slot(from)?, ballot: Ballot::decode(from)? },
            3 => Record::Accepted {
                slot: slot(from)?,
                ballot: Ballot::decode(from)?,
                value: Value::decode(from)?,
            },
            4 => Record::Chosen { slot: slot(from)? },
            5 => Record::Learned { slot: slot(from)?, value: Value::decode(from)? },
            6 => Record::Base { at: slot(from)?, floor: slot(from)?, configurations: configurations(from)? },
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

    use super::*;

    /// Any bytes at all are decoded or refused, and what is decoded is encoded to something that decodes to the same.
    fn decodes_or_refuses<T: Wire + PartialEq + fmt::Debug>(bytes: &[u8]) {
        if let Ok(value) = T::decode_all(Bytes::copy_from_slice(bytes)) {
            assert_eq!(T::decode_all(value.to_bytes()), Ok(value));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..12, rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            decodes_or_refuses::<Message>(&bytes);
            decodes_or_refuses::<Record>(&bytes);
        }

        #[test]
        fn small_numbers_never_panic(kind in 0u8..12, rest in proptest::collection::vec(0u8..4, 0..60)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            decodes_or_refuses::<Message>(&bytes);
            decodes_or_refuses::<Record>(&bytes);
        }
    }

    /// A number that could overflow a sum is refused where it enters.
    #[test]
    fn numbers_out_of_bounds_are_refused() {
        let message = Message::Have { decided: Index(NUMBER_MAX + 1) };
        assert!(Message::decode_all(message.to_bytes()).is_err());
        let ballot = Ballot { round: u64::MAX, node: NodeId(1), life: 1 };
        let message = Message::Prepare { slot: Index(1), ballot };
        assert!(Message::decode_all(message.to_bytes()).is_err());
    }
}
