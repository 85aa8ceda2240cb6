//! What members ask one another beside the protocol: the leader keeps the leases' time, and changes the configuration.
//!
//! Also the wrapping of everything that goes to a peer: one byte that tells protocol, question and answer apart.
//! A question that gets lost is not repeated here; its asker times out and its client asks again.

use std::time::Duration;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{Change, NodeId, Wire, WireError};
use synod_replica::Packet;

/// A question for the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Start this lease's time anew.
    Renew(i64),
    /// How much of this lease's time is left?
    TimeLeft(i64),
    /// Change the configuration by this.
    Change(Change),
}

/// The leader's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// There is no such lease.
    NoLease,
    /// It lives: what is left of it, and the seconds that it was granted.
    Lives { remaining: Duration, granted: i64 },
    /// The member asked is not the leader.
    NotLeader,
    /// The configuration is as wished.
    Changed,
    /// It was not changed, and will not be by this question.
    Declined(Decline),
}

/// Why the configuration is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decline {
    /// Another change, or an election, has not ended in time.
    Busy,
    /// It makes no sense in the present configuration: nobody would be left.
    Invalid,
    /// The protocol cannot change its configuration so.
    Unsupported,
    /// The learner lags too far behind.
    NotReady,
    /// The member is not in the configuration, or is no learner.
    NoLearner,
}

const DECLINES: [Decline; 5] =
    [Decline::Busy, Decline::Invalid, Decline::Unsupported, Decline::NotReady, Decline::NoLearner];

/// What goes to a peer.
#[derive(Debug)]
pub(crate) enum Envelope<M> {
    /// The replica speaks to its like.
    Packet(Packet<M>),
    /// A question, with a number for the answer.
    Ask(u64, Ask),
    /// The answer to the question of this number.
    Told(u64, Told),
}

impl Wire for Ask {
    fn encode(&self, out: &mut BytesMut) {
        let (tag, number) = match self {
            Ask::Renew(lease) => (0, *lease as u64),
            Ask::TimeLeft(lease) => (1, *lease as u64),
            Ask::Change(Change::AddLearner(node)) => (2, node.0),
            Ask::Change(Change::AddVoter(node)) => (3, node.0),
            Ask::Change(Change::Remove(node)) => (4, node.0),
        };
        out.extend_from_slice(&[tag]);
        put_u64(out, number);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let tag = from.u8("question")?;
        let number = from.u64("lease or member")?;
        let node = NodeId(number);
        match tag {
            0 => Ok(Ask::Renew(number as i64)),
            1 => Ok(Ask::TimeLeft(number as i64)),
            2 => Ok(Ask::Change(Change::AddLearner(node))),
            3 => Ok(Ask::Change(Change::AddVoter(node))),
            4 => Ok(Ask::Change(Change::Remove(node))),
            other => Err(WireError::Invalid { what: "question", value: other.into(), allowed: "0 to 4" }),
        }
    }
}

impl Wire for Told {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Told::NoLease => out.extend_from_slice(&[0]),
            Told::Lives { remaining, granted } => {
                out.extend_from_slice(&[1]);
                put_u64(out, u64::try_from(remaining.as_nanos()).unwrap_or(u64::MAX));
                put_u64(out, *granted as u64);
            }
            Told::NotLeader => out.extend_from_slice(&[2]),
            Told::Changed => out.extend_from_slice(&[3]),
            Told::Declined(why) => out.extend_from_slice(&[4, *why as u8]),
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        match from.u8("answer")? {
            0 => Ok(Told::NoLease),
            1 => {
                let remaining = Duration::from_nanos(from.u64("remaining time")?);
                Ok(Told::Lives { remaining, granted: from.u64("granted time")? as i64 })
            }
            2 => Ok(Told::NotLeader),
            3 => Ok(Told::Changed),
            4 => {
                let why = from.u8("reason")?;
                let known = DECLINES.get(usize::from(why)).copied().map(Told::Declined);
                known.ok_or(WireError::Invalid { what: "reason", value: why.into(), allowed: "0 to 4" })
            }
            other => Err(WireError::Invalid { what: "answer", value: other.into(), allowed: "0 to 4" }),
        }
    }
}

impl<M: Wire> Wire for Envelope<M> {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Envelope::Packet(packet) => {
                out.extend_from_slice(&[0]);
                packet.encode(out);
            }
            Envelope::Ask(number, ask) => {
                out.extend_from_slice(&[1]);
                put_u64(out, *number);
                ask.encode(out);
            }
            Envelope::Told(number, told) => {
                out.extend_from_slice(&[2]);
                put_u64(out, *number);
                told.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        match from.u8("envelope")? {
            0 => Ok(Envelope::Packet(Packet::decode(from)?)),
            1 => Ok(Envelope::Ask(from.u64("question's number")?, Ask::decode(from)?)),
            2 => Ok(Envelope::Told(from.u64("question's number")?, Told::decode(from)?)),
            other => Err(WireError::Invalid { what: "envelope", value: other.into(), allowed: "0 to 2" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// Questions and answers come back as they were said; cut short they are refused.
    #[test]
    fn questions_round_trip() {
        let lives = Told::Lives { remaining: Duration::from_millis(1500), granted: 60 };
        let said: [Envelope<Bytes>; 9] = [
            Envelope::Ask(5, Ask::Change(Change::AddLearner(NodeId(u64::MAX)))),
            Envelope::Ask(6, Ask::Change(Change::Remove(NodeId(7)))),
            Envelope::Told(7, Told::Changed),
            Envelope::Told(8, Told::Declined(Decline::NoLearner)),
            Envelope::Ask(1, Ask::Renew(-5)),
            Envelope::Ask(2, Ask::TimeLeft(i64::MAX)),
            Envelope::Told(3, Told::NoLease),
            Envelope::Told(4, lives),
            Envelope::Told(u64::MAX, Told::NotLeader),
        ];
        for envelope in said {
            let bytes = envelope.to_bytes();
            let back = Envelope::<Bytes>::decode_all(bytes.clone()).expect("decodes");
            assert_eq!(format!("{envelope:?}"), format!("{back:?}"));
            for cut in 0..bytes.len() {
                assert!(Envelope::<Bytes>::decode_all(bytes.slice(..cut)).is_err());
            }
        }
    }
}
