//! Block headers in Bitcoin's form: 80 bytes, hashed twice with SHA-256.
//!
//! Section 4 of the paper: the proof of work is a nonce that gives the header's hash enough zero bits. The form is the one
//! that Bitcoin's blocks have had since 2009, so its own headers are read and judged by this very code.

use std::fmt;

use bytes::BytesMut;
use sha2::{Digest, Sha256};
use synod_core::wire::Reader;
use synod_core::{Wire, WireError};

use super::work::{BadBits, U256, target_of};

/// The length of a header: no byte more or less.
pub const HEADER_BYTES: usize = 80;

/// A double SHA-256; Bitcoin shows it with the last byte first.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

/// SHA-256 of SHA-256.
#[must_use]
pub fn double_sha(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(Sha256::digest(bytes)).into())
}

/// What is hashed and passed on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which rules the block follows.
    pub version: i32,
    /// The block before.
    pub previous: Hash,
    /// Stands for everything in the block (section 7).
    pub merkle: Hash,
    /// When it was made: seconds since 1970.
    pub time: u32,
    /// The target, in compact form.
    pub bits: u32,
    /// What was searched for.
    pub nonce: u32,
}

/// Why a header proves no work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWork {
    /// Its bits are no target.
    #[error("bits: {0}")]
    Bits(#[from] BadBits),
    /// The target is easier than what is allowed at all.
    #[error("bits: the target is above the limit")]
    AboveLimit,
    /// The hash is above the target.
    #[error("the hash is above the target")]
    TooLittle,
}

impl Header {
    /// The 80 bytes.
    #[must_use]
    pub fn to_array(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.version.to_le_bytes());
        bytes[4..36].copy_from_slice(&self.previous.0);
        bytes[36..68].copy_from_slice(&self.merkle.0);
        for (place, number) in [(68, self.time), (72, self.bits), (76, self.nonce)] {
            bytes[place..place + 4].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// From 80 bytes; every value is possible here, and judged elsewhere.
    #[must_use]
    pub fn from_array(bytes: &[u8; HEADER_BYTES]) -> Header {
        let hash = |from: usize| Hash(bytes[from..from + 32].try_into().expect("32 bytes"));
        let number = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().expect("4 bytes"));
        Header {
            version: number(0).cast_signed(),
            previous: hash(4),
            merkle: hash(36),
            time: number(68),
            bits: number(72),
            nonce: number(76),
        }
    }

    /// The block's name.
    #[must_use]
    pub fn hash(&self) -> Hash {
        double_sha(&self.to_array())
    }

    /// Whether the hash is as small as the bits say, and the bits within the limit (`CheckProofOfWork`).
    ///
    /// # Errors
    /// [`BadWork`] says what is wrong.
    pub fn check_work(&self, limit: U256) -> Result<(), BadWork> {
        let target = target_of(self.bits)?;
        if target > limit {
            return Err(BadWork::AboveLimit);
        }
        if U256::from_le_bytes(self.hash().0) > target { Err(BadWork::TooLittle) } else { Ok(()) }
    }
}

/// Tries nonces for one header. The first 64 of the 80 bytes stay as they are, so they are hashed once.
pub(super) struct Search {
    begun: Sha256,
    tail: [u8; 16],
    target: U256,
}

impl Search {
    pub(super) fn new(header: &Header, target: U256) -> Search {
        let bytes = header.to_array();
        let mut begun = Sha256::new();
        begun.update(&bytes[..64]);
        Search { begun, tail: bytes[64..].try_into().expect("16 bytes"), target }
    }

    /// Whether this nonce will do.
    pub(super) fn tries(&mut self, nonce: u32) -> bool {
        self.tail[12..].copy_from_slice(&nonce.to_le_bytes());
        let mut sha = self.begun.clone();
        sha.update(self.tail);
        let hash: [u8; 32] = Sha256::digest(sha.finalize()).into();
        U256::from_le_bytes(hash) <= self.target
    }
}

/// So many bytes as they are.
pub(super) fn array<const N: usize>(from: &mut Reader, what: &'static str) -> Result<[u8; N], WireError> {
    if from.remaining() < N {
        return Err(WireError::Short { what });
    }
    let mut bytes = [0; N];
    for byte in &mut bytes {
        *byte = from.u8(what)?;
    }
    Ok(bytes)
}

impl Wire for Hash {
    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.0);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Hash(array(from, "hash")?))
    }
}

impl Wire for Header {
    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.to_array());
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(Header::from_array(&array(from, "block header")?))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Short, for traces: the lowest two bytes, which no difficulty makes zero.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}", self.0[1], self.0[0])
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} after {:?}, t={}, bits={:08x}", self.hash(), self.previous, self.time, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// The 80 bytes come back as they were; one byte less or more is no header.
    #[test]
    fn a_header_has_80_bytes() {
        let header = Header {
            version: -2,
            previous: Hash([3; 32]),
            merkle: Hash([9; 32]),
            time: 7,
            bits: 8,
            nonce: 9,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(Header::decode_all(bytes.clone()), Ok(header));
        assert_eq!(Header::decode_all(bytes.slice(..79)), Err(WireError::Short { what: "block header" }));
        let longer: Bytes = [&bytes[..], &[0]].concat().into();
        assert_eq!(Header::decode_all(longer), Err(WireError::Trailing { extra: 1 }));
    }

    /// The search finds what the check accepts, and nothing else.
    #[test]
    fn the_search_agrees_with_the_check() {
        let limit = U256::MAX.shr(1);
        let mut header =
            Header { version: 1, previous: Hash([1; 32]), merkle: Hash([2; 32]), time: 3, bits: 0, nonce: 0 };
        header.bits = super::super::work::bits_of(super::super::work::target_for(50));
        let mut search = Search::new(&header, target_of(header.bits).expect("a target"));
        let mut found = 0;
        for nonce in 0..2000 {
            header.nonce = nonce;
            assert_eq!(search.tries(nonce), header.check_work(limit).is_ok(), "nonce {nonce}");
            found += u32::from(search.tries(nonce));
        }
        assert!((15..80).contains(&found), "{found} of 2000 when every fiftieth was expected");
    }
}
