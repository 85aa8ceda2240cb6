//! The handshake: who dials whom, in which cluster, with which protocol and version.
//!
//! The dialler sends the preamble and a `Hello`; the acceptor answers `Welcome` or `Refused` with the reason,
//! and both log it. The preamble's first byte is no letter, so that HTTP on the same port is told apart.

use bytes::{Bytes, BytesMut};
use synod_core::wire::{Reader, put_bytes, put_u64};
use synod_core::{NodeId, Wire, WireError};

/// The first bytes of every peer connection.
pub(super) const PREAMBLE: [u8; 8] = *b"\x93SYNOD\r\n";

/// The version of everything that peers say to one another. Both sides must have the same.
pub(super) const WIRE_VERSION: u64 = 1;

/// More addresses than this are malformed.
const ADDRESSES_MAX: u64 = 64;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// What the protocol says: small and urgent.
    Talk,
    /// Snapshot chunks: large, and never in the way of the talk.
    Bulk,
}

/// The dialler's introduction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u64,
    pub(super) protocol: Bytes,
    pub(super) cluster: u64,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) lane: Lane,
    /// Where the dialler's own peers reach it: for people who look for a wrong address.
    pub(super) addresses: Vec<Bytes>,
}

impl Wire for Hello {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.version);
        put_bytes(out, &self.protocol);
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.from.0.to_le_bytes());
        out.extend_from_slice(&self.to.0.to_le_bytes());
        out.extend_from_slice(&[self.lane as u8]);
        put_u64(out, self.addresses.len() as u64);
        for address in &self.addresses {
            put_bytes(out, address);
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let version = from.u64("wire version")?;
        let protocol = from.bytes("protocol name")?;
        let cluster = fixed_u64(from, "cluster id")?;
        let sender = NodeId(fixed_u64(from, "dialler")?);
        let to = NodeId(fixed_u64(from, "dialled")?);
        let lane = match from.u8("lane")? {
            0 => Lane::Talk,
            1 => Lane::Bulk,
            other => return Err(WireError::Invalid { what: "lane", value: other.into(), allowed: "0 or 1" }),
        };
        let count = from.count("addresses", ADDRESSES_MAX)?;
        let mut addresses = Vec::new();
        for _ in 0..count {
            addresses.push(from.bytes("address")?);
        }
        Ok(Hello { version, protocol, cluster, from: sender, to, lane, addresses })
    }
}

fn fixed_u64(from: &mut Reader, what: &'static str) -> Result<u64, WireError> {
    let mut bytes = [0; 8];
    for byte in &mut bytes {
        *byte = from.u8(what)?;
    }
    Ok(u64::from_le_bytes(bytes))
}

/// What a former member is told; it recognizes the sentence.
pub(super) fn removed(member: NodeId) -> String {
    format!("member {member} was removed from this cluster")
}

impl Hello {
    /// Why the acceptor `me` of `cluster` does not take this dialler in; nothing when it does.
    pub(super) fn objection(
        &self,
        me: NodeId,
        cluster: u64,
        protocol: &str,
        is_member: impl FnOnce(NodeId) -> bool,
        has_left: impl FnOnce(NodeId) -> bool,
    ) -> Option<String> {
        let theirs = String::from_utf8_lossy(&self.protocol);
        if self.version != WIRE_VERSION {
            Some(format!("peer wire version {} met version {WIRE_VERSION}", self.version))
        } else if self.cluster != cluster {
            Some(format!("cluster ID mismatch: {:x} met {cluster:x}", self.cluster))
        } else if theirs != protocol {
            Some(format!("protocol mismatch: {theirs:?} met {protocol:?}"))
        } else if self.to != me {
            Some(format!("member {} was dialled, but this is member {me}: check the peer URLs", self.to))
        } else if self.from == me {
            Some(format!("member {me} dialled itself: check the peer URLs"))
        } else if has_left(self.from) {
            Some(removed(self.from))
        } else if !is_member(self.from) {
            Some(format!("member {} does not belong to this cluster", self.from))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version: WIRE_VERSION,
            protocol: Bytes::from_static(b"raft"),
            cluster: 7,
            from: NodeId(1),
            to: NodeId(2),
            lane: Lane::Bulk,
            addresses: vec![Bytes::from_static(b"http://h:1")],
        }
    }

    /// A greeting comes back as it was said; cut short anywhere it is refused.
    #[test]
    fn greetings_round_trip() {
        let bytes = hello().to_bytes();
        assert_eq!(Hello::decode_all(bytes.clone()), Ok(hello()));
        for cut in 0..bytes.len() {
            assert!(Hello::decode_all(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    /// Each kind of stranger is told what is wrong with him.
    #[test]
    fn strangers_are_refused_with_the_reason() {
        let says =
            |hello: Hello| hello.objection(NodeId(2), 7, "raft", |id| id == NodeId(1), |id| id == NodeId(5));
        assert_eq!(says(hello()), None);
        let cases = [
            (Hello { version: 9, ..hello() }, "version"),
            (Hello { cluster: 8, ..hello() }, "cluster ID mismatch"),
            (Hello { protocol: Bytes::from_static(b"pbft"), ..hello() }, "protocol mismatch"),
            (Hello { to: NodeId(3), ..hello() }, "was dialled"),
            (Hello { from: NodeId(2), ..hello() }, "itself"),
            (Hello { from: NodeId(4), ..hello() }, "does not belong"),
            (Hello { from: NodeId(5), ..hello() }, "was removed"),
        ];
        for (hello, why) in cases {
            assert!(says(hello).is_some_and(|said| said.contains(why)), "{why}");
        }
    }
}
