//! What a proxy asks, and what a member answers.
//!
//! A signature covers the proxy's name, the connection's nonce, the place in the stream and all that is said there: nothing can be taken out of
//! its place, repeated, or shown to another proxy. The cluster's number and the subject come with every signature of these keys.

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use synod_core::wire::{Reader, put_bytes, put_u64};
use synod_core::{Wire, WireError};
use synod_kv::once::ClientId;
use synod_kv::watch::{WatchFlags, WatchRequest};

/// Things said at once, at most.
const LIST_MAX: u64 = 1 << 20;

/// What a proxy asks of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The first word: who asks, and a number that was never used.
    Hello {
        /// The proxy.
        client: ClientId,
        /// Of this connection alone.
        nonce: u64,
    },
    /// Have this ordered.
    Wish {
        /// Which.
        number: u64,
        /// A [`Wish`](synod_kv::once::Wish).
        wish: Bytes,
    },
    /// What came of these, as far as it is still known?
    Lacking(Vec<u64>),
    /// Start a lease's time anew.
    Renew {
        /// Which question.
        number: u64,
        /// Which lease.
        lease: i64,
    },
    /// How many seconds has a lease left?
    TimeLeft {
        /// Which question.
        number: u64,
        /// Which lease.
        lease: i64,
    },
    /// Tell of changes from a revision on.
    Watch(WatchRequest),
    /// No more of this watch.
    Unwatch(i64),
    /// How far have all watches come?
    Progress,
}

/// What a member says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// What came of a wish or a question: a [`Reply`](synod_kv::op::Reply), or a number of seconds plus one (0: there is no such lease).
    Answer {
        /// Which.
        number: u64,
        /// The same from all honest members.
        bytes: Bytes,
    },
    /// This member cannot have it ordered, or cannot tell any more what came of it.
    Refused {
        /// Which.
        number: u64,
        /// Why.
        why: String,
    },
    /// From now on the watch is heard here.
    Watching(i64),
    /// All events of one revision that a watch wants.
    Event {
        /// Which watch.
        watch: i64,
        /// When.
        revision: i64,
        /// As a WatchResponse holds them.
        bytes: Bytes,
    },
    /// The watch begins below what was compacted.
    Compacted {
        /// Which watch.
        watch: i64,
        /// The first revision that is there.
        revision: i64,
    },
    /// All watches that are heard here have been told everything up to this revision.
    Progress(i64),
}

/// Some items under a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// Who says so.
    pub name: String,
    /// The member's cluster.
    pub cluster: u64,
    /// How many were said before on this connection.
    pub place: u64,
    /// The items, encoded.
    pub items: Bytes,
    /// The member's signature of [`statement`].
    pub signature: [u8; 64],
}

/// What is signed: a SHA-256 of whom it is for, where in the stream it stands, and what it says.
#[must_use]
pub fn statement(client: ClientId, nonce: u64, place: u64, items: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"synod testimony");
    hash.update(client.0.to_le_bytes());
    hash.update(nonce.to_le_bytes());
    hash.update(place.to_le_bytes());
    hash.update(items);
    hash.finalize().into()
}

fn unknown(what: &'static str, value: u8) -> WireError {
    WireError::Invalid { what, value: value.into(), allowed: "a number with a meaning" }
}

fn signed(from: &mut Reader, what: &'static str) -> Result<i64, WireError> {
    from.u64(what).map(|number| number as i64)
}

fn text(from: &mut Reader, what: &'static str) -> Result<String, WireError> {
    // A text that is none says nothing that anybody would act upon.
    Ok(String::from_utf8_lossy(&from.bytes(what)?).into_owned())
}

impl Wire for Ask {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Ask::Hello { client, nonce } => {
                out.put_u8(0);
                put_u64(out, (client.0 >> 64) as u64);
                put_u64(out, client.0 as u64);
                put_u64(out, *nonce);
            }
            Ask::Wish { number, wish } => {
                out.put_u8(1);
                put_u64(out, *number);
                put_bytes(out, wish);
            }
            Ask::Lacking(numbers) => {
                out.put_u8(2);
                put_u64(out, numbers.len() as u64);
                numbers.iter().for_each(|number| put_u64(out, *number));
            }
            Ask::Renew { number, lease } | Ask::TimeLeft { number, lease } => {
                out.put_u8(if matches!(self, Ask::Renew { .. }) { 3 } else { 4 });
                put_u64(out, *number);
                put_u64(out, *lease as u64);
            }
            Ask::Watch(watch) => {
                out.put_u8(5);
                put_bytes(out, &watch.key);
                put_bytes(out, &watch.range_end);
                put_u64(out, watch.start_revision as u64);
                put_u64(out, watch.watch_id as u64);
                let WatchFlags { prev_kv, no_put, no_delete, .. } = watch.flags;
                out.put_u8(u8::from(prev_kv) | u8::from(no_put) << 1 | u8::from(no_delete) << 2);
            }
            Ask::Unwatch(watch) => {
                out.put_u8(6);
                put_u64(out, *watch as u64);
            }
            Ask::Progress => out.put_u8(7),
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("question")? {
            0 => {
                let high = from.u64("client")?;
                let client = ClientId(u128::from(high) << 64 | u128::from(from.u64("client")?));
                Ask::Hello { client, nonce: from.u64("nonce")? }
            }
            1 => Ask::Wish { number: from.u64("number")?, wish: from.bytes("wish")? },
            2 => {
                let count = from.count("numbers", LIST_MAX)?;
                Ask::Lacking((0..count).map(|_| from.u64("number")).collect::<Result<_, _>>()?)
            }
            3 => Ask::Renew { number: from.u64("number")?, lease: signed(from, "lease")? },
            4 => Ask::TimeLeft { number: from.u64("number")?, lease: signed(from, "lease")? },
            5 => {
                let (key, range_end) = (from.bytes("key")?, from.bytes("range end")?);
                let (start_revision, watch_id) = (signed(from, "revision")?, signed(from, "watch")?);
                let bits = from.u8("flags")?;
                let flags = WatchFlags {
                    prev_kv: bits & 1 != 0,
                    no_put: bits & 2 != 0,
                    no_delete: bits & 4 != 0,
                    ..WatchFlags::default()
                };
                Ask::Watch(WatchRequest { key, range_end, start_revision, watch_id, flags })
            }
            6 => Ask::Unwatch(signed(from, "watch")?),
            7 => Ask::Progress,
            other => return Err(unknown("question", other)),
        })
    }
}

impl Wire for Item {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Item::Answer { number, bytes } => {
                out.put_u8(0);
                put_u64(out, *number);
                put_bytes(out, bytes);
            }
            Item::Refused { number, why } => {
                out.put_u8(1);
                put_u64(out, *number);
                put_bytes(out, why.as_bytes());
            }
            Item::Watching(watch) => {
                out.put_u8(2);
                put_u64(out, *watch as u64);
            }
            Item::Event { watch, revision, bytes } => {
                out.put_u8(3);
                put_u64(out, *watch as u64);
                put_u64(out, *revision as u64);
                put_bytes(out, bytes);
            }
            Item::Compacted { watch, revision } => {
                out.put_u8(4);
                put_u64(out, *watch as u64);
                put_u64(out, *revision as u64);
            }
            Item::Progress(revision) => {
                out.put_u8(5);
                put_u64(out, *revision as u64);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("item")? {
            0 => Item::Answer { number: from.u64("number")?, bytes: from.bytes("answer")? },
            1 => Item::Refused { number: from.u64("number")?, why: text(from, "reason")? },
            2 => Item::Watching(signed(from, "watch")?),
            3 => {
                let (watch, revision) = (signed(from, "watch")?, signed(from, "revision")?);
                Item::Event { watch, revision, bytes: from.bytes("events")? }
            }
            4 => Item::Compacted { watch: signed(from, "watch")?, revision: signed(from, "revision")? },
            5 => Item::Progress(signed(from, "revision")?),
            other => return Err(unknown("item", other)),
        })
    }
}

impl Wire for Testimony {
    fn encode(&self, out: &mut BytesMut) {
        put_bytes(out, self.name.as_bytes());
        put_u64(out, self.cluster);
        put_u64(out, self.place);
        put_bytes(out, &self.items);
        out.extend_from_slice(&self.signature);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let (name, cluster) = (text(from, "name")?, from.u64("cluster")?);
        let (place, items) = (from.u64("place")?, from.bytes("items")?);
        let mut signature = [0; 64];
        for byte in &mut signature {
            *byte = from.u8("signature")?;
        }
        Ok(Testimony { name, cluster, place, items, signature })
    }
}

/// Items as the bytes that are signed.
#[must_use]
pub fn encode_items(items: &[Item]) -> Bytes {
    let mut out = BytesMut::new();
    put_u64(&mut out, items.len() as u64);
    items.iter().for_each(|item| item.encode(&mut out));
    out.freeze()
}

/// The items of these bytes.
///
/// # Errors
/// When they are none.
pub fn decode_items(bytes: Bytes) -> Result<Vec<Item>, WireError> {
    let mut from = Reader::new(bytes);
    let mut items = Vec::new();
    for _ in 0..from.count("items", LIST_MAX)? {
        items.push(Item::decode(&mut from)?);
    }
    from.finish()?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that passes comes back as it was, and a flipped bit never panics.
    #[test]
    fn words_round_trip() {
        let watch = WatchRequest {
            key: "k".into(),
            start_revision: -1,
            watch_id: 9,
            flags: WatchFlags { no_put: true, ..WatchFlags::default() },
            ..WatchRequest::default()
        };
        let asks = [
            Ask::Hello { client: ClientId(u128::MAX - 7), nonce: 3 },
            Ask::Wish { number: 1, wish: "w".into() },
            Ask::Lacking(vec![1, u64::MAX]),
            Ask::Renew { number: 2, lease: -4 },
            Ask::TimeLeft { number: 2, lease: 4 },
            Ask::Watch(watch),
            Ask::Unwatch(9),
            Ask::Progress,
        ];
        for ask in asks {
            let bytes = ask.to_bytes();
            assert_eq!(Ask::decode_all(bytes.clone()), Ok(ask));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let _ = Ask::decode_all(flipped.into());
            }
        }
        let items = vec![
            Item::Answer { number: 1, bytes: "a".into() },
            Item::Refused { number: 2, why: "why".into() },
            Item::Watching(3),
            Item::Event { watch: 3, revision: 4, bytes: "e".into() },
            Item::Compacted { watch: 3, revision: 4 },
            Item::Progress(5),
        ];
        assert_eq!(decode_items(encode_items(&items)), Ok(items.clone()));
        let said = Testimony {
            name: "m1".into(),
            cluster: 5,
            place: 6,
            items: encode_items(&items),
            signature: [7; 64],
        };
        assert_eq!(Testimony::decode_all(said.to_bytes()), Ok(said));
    }
}
