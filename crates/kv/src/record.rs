//! Pairs as the store keeps them: already encoded as protobuf's `mvccpb.KeyValue`.
//!
//! A reply is then a concatenation of ready bytes, a watch event wraps them, and the consistency hash of etcd is over
//! exactly them. Only this one message is encoded by hand: key 1, create_revision 2, mod_revision 3, version 4,
//! value 5, lease 6, in this order, zero and empty fields left out.

use bytes::{BufMut, Bytes, BytesMut};

const TAG_KEY: u8 = 0x0a;
const TAG_CREATE: u8 = 0x10;
const TAG_MOD: u8 = 0x18;
const TAG_VERSION: u8 = 0x20;
const TAG_VALUE: u8 = 0x2a;
const TAG_LEASE: u8 = 0x30;

/// A pair, taken apart; borrowed from its encoding or about to be encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision that created it.
    pub create: i64,
    /// The revision that changed it last.
    pub modified: i64,
    /// How often it was put since.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The lease that it is attached to; 0: none.
    pub lease: i64,
}

/// How many bytes `value` takes as a varint.
#[must_use]
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a varint.
pub fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Reads a varint from the front of `bytes`; `None` when it ends early or does not fit 64 bits.
#[inline]
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    // Most numbers here are small.
    if let [byte @ ..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Some(u64::from(*byte));
    }
    take_long_varint(bytes)
}

fn take_long_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Reads a length and as many bytes.
pub(crate) fn take_slice<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn number_len(value: i64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value as u64) }
}

fn put_number(out: &mut impl BufMut, tag: u8, value: i64) {
    if value != 0 {
        out.put_u8(tag);
        put_varint(out, value as u64);
    }
}

fn take_number(bytes: &mut &[u8], tag: u8) -> Option<i64> {
    if bytes.first() != Some(&tag) {
        return Some(0);
    }
    *bytes = &bytes[1..];
    take_varint(bytes).map(|value| value as i64)
}

impl<'a> KeyValue<'a> {
    /// How many bytes the encoding takes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let mut length = 1 + varint_len(self.key.len() as u64) + self.key.len();
        length += number_len(self.create) + number_len(self.modified) + number_len(self.version);
        if !self.value.is_empty() {
            length += 1 + varint_len(self.value.len() as u64) + self.value.len();
        }
        length + number_len(self.lease)
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(TAG_KEY);
        put_varint(out, self.key.len() as u64);
        out.put_slice(self.key);
        put_number(out, TAG_CREATE, self.create);
        put_number(out, TAG_MOD, self.modified);
        put_number(out, TAG_VERSION, self.version);
        if !self.value.is_empty() {
            out.put_u8(TAG_VALUE);
            put_varint(out, self.value.len() as u64);
            out.put_slice(self.value);
        }
        put_number(out, TAG_LEASE, self.lease);
    }

    /// Takes an encoding apart; `None` when it is not one that [`KeyValue::encode`] makes.
    #[must_use]
    pub fn parse(mut bytes: &'a [u8]) -> Option<KeyValue<'a>> {
        if bytes.first() != Some(&TAG_KEY) {
            return None;
        }
        bytes = &bytes[1..];
        let key = take_slice(&mut bytes)?;
        let create = take_number(&mut bytes, TAG_CREATE)?;
        let modified = take_number(&mut bytes, TAG_MOD)?;
        let version = take_number(&mut bytes, TAG_VERSION)?;
        let mut value: &[u8] = &[];
        if bytes.first() == Some(&TAG_VALUE) {
            bytes = &bytes[1..];
            value = take_slice(&mut bytes)?;
        }
        let lease = take_number(&mut bytes, TAG_LEASE)?;
        bytes.is_empty().then_some(KeyValue { key, create, modified, version, value, lease })
    }
}

/// Appends one pair as an element of a repeated field of messages, without its value if so wished.
pub(crate) fn put_element(out: &mut impl BufMut, tag: u8, encoded: &[u8]) {
    out.put_u8(tag);
    put_varint(out, encoded.len() as u64);
    out.put_slice(encoded);
}

/// Encoded pairs, each as an element of a repeated field: ready to be appended to a reply as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvList {
    bytes: Bytes,
    count: usize,
}

impl KvList {
    /// Field 2: the pairs of a RangeResponse.
    pub const RANGE_KVS: u8 = 0x12;
    /// Field 3: the earlier pairs of a DeleteRangeResponse.
    pub const DELETE_PREV_KVS: u8 = 0x1a;

    pub(crate) fn new(bytes: BytesMut, count: usize) -> KvList {
        KvList { bytes: bytes.freeze(), count }
    }

    /// A list that was told by somebody: it must hold so many elements with this field tag, and nothing else.
    pub(crate) fn checked(bytes: Bytes, count: usize, tag: u8) -> Option<KvList> {
        let mut rest: &[u8] = &bytes;
        for _ in 0..count {
            if rest.first() != Some(&tag) {
                return None;
            }
            rest = &rest[1..];
            KeyValue::parse(take_slice(&mut rest)?)?;
        }
        rest.is_empty().then_some(KvList { bytes, count })
    }

    /// The elements with their field tags, to be appended to a message.
    #[must_use]
    pub fn fields(&self) -> &Bytes {
        &self.bytes
    }

    /// How many pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded pairs, one by one.
    pub fn encoded(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.bytes;
        std::iter::from_fn(move || {
            rest = rest.get(1..)?;
            take_slice(&mut rest)
        })
    }

    /// The pairs, taken apart.
    pub fn iter(&self) -> impl Iterator<Item = KeyValue<'_>> {
        self.encoded().filter_map(KeyValue::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair comes back from its encoding as it was, whatever is zero or empty in it, and the length is foretold.
    #[test]
    fn pairs_round_trip() {
        let numbers = [0, 1, 127, 128, i64::MAX, -1];
        for (i, &create) in numbers.iter().enumerate() {
            let modified = numbers[(i + 1) % numbers.len()];
            let version = numbers[(i + 2) % numbers.len()];
            let lease = numbers[(i + 3) % numbers.len()];
            for value in [&b""[..], b"v", &[0xff; 300]] {
                let pair = KeyValue { key: b"k\0y", create, modified, version, value, lease };
                let mut out = Vec::new();
                pair.encode(&mut out);
                assert_eq!(out.len(), pair.encoded_len());
                assert_eq!(KeyValue::parse(&out), Some(pair));
                for end in 0..out.len() {
                    let _ = KeyValue::parse(&out[..end]);
                }
            }
        }
    }

    /// Bytes that are no pair are refused: another first field, a length past the end, fields out of order.
    #[test]
    fn foreign_bytes_are_refused() {
        for bytes in [
            &b""[..],
            b"\x12\x01a",
            b"\x0a\x05a",
            b"\x0a\x01a\x18\x01\x10\x01",
            b"\x0a\x01a\x10",
            b"\x0a\x01a\x7f",
        ] {
            assert_eq!(KeyValue::parse(bytes), None, "{bytes:x?}");
        }
    }
}
