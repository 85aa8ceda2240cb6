//! How the messages and records become bytes: a tag, then the fields in order.
//!
//! Tags are never reused. Clocks beyond `CLOCK_MAX` are refused here, so that no sum of what a peer says can overflow; vectors
//! bound their own numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{Batch, NodeId, Vector, Wire, WireError};

use super::membership::Membership;
use super::message::{Body, Cast, Message, Record, Then};

/// No clock is beyond this: the year 3000, and two thousand years more.
pub(super) const CLOCK_MAX: u64 = 1 << 62;

/// No clock beyond this is accepted from another, so that there is room to go on behind it.
pub(super) const CLOCK_ACCEPTED_MAX: u64 = CLOCK_MAX / 2;

/// More members than this, past ones included, are malformed input.
const MEMBERS_MAX: u64 = 4096;

/// More casts than this in one message are malformed input.
const CASTS_MAX: u64 = 1 << 20;

fn put_tag(out: &mut BytesMut, tag: u8) {
    out.extend_from_slice(&[tag]);
}

fn clock(from: &mut Reader) -> Result<u64, WireError> {
    let value = from.u64("clock")?;
    if value > CLOCK_MAX {
        return Err(WireError::Invalid { what: "clock", value, allowed: "at most 2^62" });
    }
    Ok(value)
}

fn node(from: &mut Reader) -> Result<NodeId, WireError> {
    match from.u64("node")? {
        0 => Err(WireError::Invalid { what: "node", value: 0, allowed: "1 and above" }),
        id => Ok(NodeId(id)),
    }
}

fn number(from: &mut Reader) -> Result<u64, WireError> {
    let value = from.u64("number of a cast")?;
    if value == 0 || value > 1 << 48 {
        return Err(WireError::Invalid { what: "number of a cast", value, allowed: "1 to 2^48" });
    }
    Ok(value)
}

impl Wire for Membership {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.added.len() as u64);
        self.added.iter().for_each(|node| node.encode(out));
        put_u64(out, self.removed.len() as u64);
        for (node, (origin, number)) in &self.removed {
            node.encode(out);
            origin.encode(out);
            put_u64(out, *number);
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let (mut added, mut removed) = (BTreeSet::new(), BTreeMap::new());
        for _ in 0..from.count("members", MEMBERS_MAX)? {
            added.insert(node(from)?);
        }
        for _ in 0..from.count("removed members", MEMBERS_MAX)? {
            let who = node(from)?;
            if !added.contains(&who) {
                let allowed = "only who was added can have been removed";
                return Err(WireError::Invalid { what: "removed member", value: who.0, allowed });
            }
            removed.insert(who, (node(from)?, number(from)?));
        }
        Ok(Membership { added, removed })
    }
}

impl Wire for Cast {
    fn encode(&self, out: &mut BytesMut) {
        self.origin.encode(out);
        put_u64(out, self.number);
        put_u64(out, self.clock);
        self.past.encode(out);
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
        let (origin, number, clock) = (node(from)?, number(from)?, clock(from)?);
        let past = Vector::decode(from)?;
        if past.get(origin) > 0 {
            let (what, value) = ("past of a cast", origin.0);
            return Err(WireError::Invalid { what, value, allowed: "what its origin had of others" });
        }
        let body = match from.u8("body of a cast")? {
            0 => Body::Batch(Batch::decode(from)?),
            1 => Body::Members(Membership::decode(from)?),
            other => {
                let (what, value) = ("body of a cast", other.into());
                return Err(WireError::Invalid { what, value, allowed: "0 or 1" });
            }
        };
        Ok(Cast { origin, number, clock, past, body })
    }
}

impl Wire for Message {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Cast { casts, then } => {
                put_tag(out, 1);
                put_tag(out, *then as u8);
                put_u64(out, casts.len() as u64);
                casts.iter().for_each(|cast| cast.encode(out));
            }
            Message::Have { vector, clock, forgot, saved } => {
                put_tag(out, 2);
                vector.encode(out);
                put_u64(out, *clock);
                forgot.encode(out);
                put_u64(out, *saved);
            }
            Message::State { vector, clock, members } => {
                put_tag(out, 3);
                vector.encode(out);
                put_u64(out, *clock);
                members.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("message kind")? {
            1 => {
                let then = match from.u8("wish")? {
                    0 => Then::Nothing,
                    1 => Then::Tell,
                    other => {
                        let value = other.into();
                        return Err(WireError::Invalid { what: "wish", value, allowed: "0 or 1" });
                    }
                };
                let mut casts = Vec::new();
                for _ in 0..from.count("casts", CASTS_MAX)? {
                    casts.push(Arc::<Cast>::decode(from)?);
                }
                Message::Cast { casts, then }
            }
            2 => Message::Have {
                vector: Vector::decode(from)?,
                clock: clock(from)?,
                forgot: Vector::decode(from)?,
                saved: from.u64("deliveries in a snapshot")?,
            },
            3 => Message::State {
                vector: Vector::decode(from)?,
                clock: clock(from)?,
                members: Membership::decode(from)?,
            },
            other => {
                let (what, value) = ("message kind", other.into());
                return Err(WireError::Invalid { what, value, allowed: "1 to 3" });
            }
        })
    }
}

impl Wire for Record {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Record::Base { vector, clock, members } => {
                put_tag(out, 1);
                vector.encode(out);
                put_u64(out, *clock);
                members.encode(out);
            }
            Record::Cast(cast) => {
                put_tag(out, 2);
                cast.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("record kind")? {
            1 => Record::Base {
                vector: Vector::decode(from)?,
                clock: clock(from)?,
                members: Membership::decode(from)?,
            },
            2 => Record::Cast(Arc::decode(from)?),
            other => {
                let (what, value) = ("record kind", other.into());
                return Err(WireError::Invalid { what, value, allowed: "1 or 2" });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Membership {
        Membership { added: [1, 2, 3].map(NodeId).into(), removed: [(NodeId(3), (NodeId(1), 7))].into() }
    }

    fn messages() -> Vec<Message> {
        let vector: Vector = [(NodeId(1), 4), (NodeId(300), 1 << 40)].into_iter().collect();
        let cast = |body| {
            let past = vector.without(NodeId(1));
            Arc::new(Cast { origin: NodeId(1), number: 5, clock: 77, past, body })
        };
        let casts = vec![cast(Body::Batch(synod_core::empty_batch())), cast(Body::Members(members()))];
        let forgot = Vector::default();
        vec![
            Message::Cast { casts, then: Then::Tell },
            Message::Have { vector: vector.clone(), clock: CLOCK_MAX, forgot, saved: 9 },
            Message::State { vector, clock: 1, members: members() },
        ]
    }

    /// Every message and record comes back from its bytes as it was.
    #[test]
    fn round_trips() {
        for message in messages() {
            assert_eq!(Message::decode_all(message.to_bytes()), Ok(message.clone()));
            if let Message::Cast { casts, .. } = message {
                let record = Record::Cast(casts[0].clone());
                assert_eq!(Record::decode_all(record.to_bytes()), Ok(record));
            }
        }
        let record = Record::Base { vector: Vector::default(), clock: 3, members: members() };
        assert_eq!(Record::decode_all(record.to_bytes()), Ok(record));
    }

    /// No prefix of a message is one, and no flipped byte brings the decoder down.
    #[test]
    fn damaged_bytes_are_refused_or_mean_something_else() {
        for message in messages() {
            let bytes = message.to_bytes();
            for length in 0..bytes.len() {
                assert!(Message::decode_all(bytes.slice(..length)).is_err());
            }
            for place in 0..bytes.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut bent = bytes.to_vec();
                    bent[place] ^= flip;
                    let _ = Message::decode_all(bent.into());
                }
            }
        }
    }
}
