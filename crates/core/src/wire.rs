//! How messages and records become bytes: little, bounded, checked.
//!
//! Numbers are LEB128 varints, byte strings carry their length. A decoder never trusts a length or a count
//! beyond the bytes that are really there, never allocates more than its input justifies, and slices
//! byte strings out of its input without copying them.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use crate::types::{Index, Lsn, NodeId, ReadId};

/// Something that crosses the network or reaches the disk.
pub trait Wire: Sized {
    /// Appends this value's encoding.
    fn encode(&self, out: &mut BytesMut);

    /// Reads one value.
    ///
    /// # Errors
    /// [`WireError`] names what was being read and what was wrong with it.
    fn decode(from: &mut Reader) -> Result<Self, WireError>;

    /// Reads a value that must fill all of `bytes`.
    ///
    /// # Errors
    /// As [`Wire::decode`], and when bytes are left over.
    fn decode_all(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }

    /// This value's encoding in a buffer of its own.
    fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_hint());
        self.encode(&mut out);
        out.freeze()
    }

    /// About how many bytes the encoding has, where that is simple to tell: for their room.
    fn size_hint(&self) -> usize {
        0
    }
}

/// Why bytes were not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The input ended inside `what`.
    #[error("{what}: the input ends early")]
    Short {
        /// What was being read.
        what: &'static str,
    },
    /// A value outside its allowed range.
    #[error("{what}: {value} is not allowed ({allowed})")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// The offending value.
        value: u64,
        /// What would have been allowed.
        allowed: &'static str,
    },
    /// Bytes after the end of the value.
    #[error("{extra} bytes too many after the end")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

/// Appends a varint of 1 to 10 bytes.
pub fn put_u64(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.extend_from_slice(&[value as u8 | 0x80]);
        value >>= 7;
    }
    out.extend_from_slice(&[value as u8]);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads values from the front of a buffer; byte strings come out as slices of it.
pub struct Reader {
    bytes: Bytes,
}

impl Reader {
    /// A reader of all of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Reader {
        Reader { bytes }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// One byte: a tag or a flag.
    ///
    /// # Errors
    /// When the input is at its end.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        if self.bytes.is_empty() {
            return Err(WireError::Short { what });
        }
        Ok(self.bytes.get_u8())
    }

    /// A varint; encodings longer than ten bytes or past 64 bits are refused.
    ///
    /// # Errors
    /// When the input ends early or the number does not fit.
    #[inline]
    pub fn u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        // Nearly all numbers are lengths and counts below 128.
        if let Some(&byte @ ..0x80) = self.bytes.first() {
            self.bytes.advance(1);
            return Ok(byte.into());
        }
        self.long_u64(what)
    }

    fn long_u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (i, &byte) in self.bytes.iter().enumerate().take(10) {
            if i == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.bytes.advance(i + 1);
                return Ok(value);
            }
        }
        if self.bytes.len() < 10 {
            return Err(WireError::Short { what });
        }
        Err(WireError::Invalid { what, value, allowed: "a varint of at most 64 bits" })
    }

    /// How many elements follow; no more than `max`, and no more than the bytes that are left could hold
    /// at one byte each.
    ///
    /// # Errors
    /// When there would be more.
    pub fn count(&mut self, what: &'static str, max: u64) -> Result<usize, WireError> {
        let count = self.u64(what)?;
        if count > max {
            return Err(WireError::Invalid {
                what,
                value: count,
                allowed: "no more elements than the limit",
            });
        }
        if count > self.bytes.len() as u64 {
            return Err(WireError::Short { what });
        }
        Ok(count as usize)
    }

    /// A byte string, sliced without a copy.
    ///
    /// # Errors
    /// When the input is shorter than the length says.
    pub fn bytes(&mut self, what: &'static str) -> Result<Bytes, WireError> {
        let length = self.u64(what)?;
        if length > self.bytes.len() as u64 {
            return Err(WireError::Short { what });
        }
        Ok(self.bytes.split_to(length as usize))
    }

    /// A boolean: exactly 0 or 1.
    ///
    /// # Errors
    /// For any other byte.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::Invalid { what, value: u64::from(other), allowed: "0 or 1" }),
        }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// When something is.
    pub fn finish(&self) -> Result<(), WireError> {
        match self.bytes.len() {
            0 => Ok(()),
            extra => Err(WireError::Trailing { extra }),
        }
    }
}

macro_rules! wire_as_u64 {
    ($($name:ident),*) => {$(
        impl Wire for $name {
            fn encode(&self, out: &mut BytesMut) {
                put_u64(out, self.0);
            }
            fn decode(from: &mut Reader) -> Result<Self, WireError> {
                Ok($name(from.u64(stringify!($name))?))
            }
        }
    )*};
}

wire_as_u64!(NodeId, Index, Lsn, ReadId);

impl Wire for u64 {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, *self);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        from.u64("number")
    }
}

impl Wire for Bytes {
    fn encode(&self, out: &mut BytesMut) {
        put_bytes(out, self);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        from.bytes("bytes")
    }
}

impl<T: Wire> Wire for Option<T> {
    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&[u8::from(self.is_some())]);
        if let Some(value) = self {
            value.encode(out);
        }
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(if from.flag("option")? { Some(T::decode(from)?) } else { None })
    }
}

/// More elements than this in one list is malformed input.
const LIST_MAX: u64 = 1 << 24;

impl<T: Wire> Wire for Vec<T> {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.len() as u64);
        for value in self {
            value.encode(out);
        }
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let count = from.count("list", LIST_MAX)?;
        // Grows with what is really read: a huge count in a short input allocates nothing.
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(T::decode(from)?);
        }
        Ok(values)
    }
}

impl<T: Wire> Wire for Arc<T> {
    fn encode(&self, out: &mut BytesMut) {
        (**self).encode(out);
    }
    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Arc::new(T::decode(from)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of every length come back as they were, and take the bytes that LEB128 says.
    #[test]
    fn varints_round_trip() {
        for shift in 0..64 {
            for value in [(1u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
                let bytes = value.to_bytes();
                assert!(bytes.len() <= 10);
                assert_eq!(u64::decode_all(bytes), Ok(value));
            }
        }
    }

    /// A length or a count that promises more than the input holds is refused before anything is allocated.
    #[test]
    fn lying_lengths_are_refused() {
        let mut out = BytesMut::new();
        put_u64(&mut out, u64::MAX);
        assert_eq!(Bytes::decode_all(out.clone().freeze()), Err(WireError::Short { what: "bytes" }));
        assert!(Vec::<u64>::decode_all(out.freeze()).is_err());
        assert!(u64::decode_all(Bytes::from_static(&[0xff; 11])).is_err());
        assert!(u64::decode_all(Bytes::from_static(&[0x80])).is_err());
        assert_eq!(u64::decode_all(Bytes::from_static(&[1, 2])), Err(WireError::Trailing { extra: 1 }));
    }
}
