//! Sessions without state: what a client has seen, as a token that it carries from replica to replica (design section 6).
//!
//! A token says how far the replica was that answered: protocol, cluster, position in that protocol's own terms, the store's
//! revision for people who decode it. A replica that gets one answers when it has come so far itself: so the client reads its own
//! writes, and never goes back, whichever replica it asks. A client that has met several tokens sends all of them; the answer's token
//! stands for them all. Nothing is kept here, and a token never grows old: after a restart its position is still one of the log.

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use synod_core::wire::{Reader, put_bytes, put_u64};
use synod_core::{Vector, Wire, WireError};

use crate::status::{Code, Status};

/// The header, and the key of gRPC metadata, in both directions.
pub const HEADER: &str = "synod-session";

/// A longer token, in characters, is none of ours: a vector clock of hundreds of replicas is shorter.
const TOKEN_MAX: usize = 16 << 10;
/// So many tokens are taken with one call; a client merges by asking once with all it has.
pub const TOKENS_MAX: usize = 32;
const VERSION: u8 = 1;

/// How far a replica has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Everything up to this position of the one order that all replicas share.
    Index(u64),
    /// So much of every origin, where positions differ from replica to replica.
    Vector(Vector),
}

/// What a client carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The protocol that the place is one of.
    pub protocol: Bytes,
    /// The cluster.
    pub cluster: u64,
    /// How far the replica was.
    pub place: Place,
    /// The store's revision there.
    pub revision: i64,
}

impl Wire for Token {
    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&[VERSION]);
        put_bytes(out, &self.protocol);
        out.extend_from_slice(&self.cluster.to_le_bytes());
        put_u64(out, self.revision as u64);
        match &self.place {
            Place::Index(index) => {
                out.extend_from_slice(&[0]);
                put_u64(out, *index);
            }
            Place::Vector(vector) => {
                out.extend_from_slice(&[1]);
                vector.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let version = from.u8("token version")?;
        if version != VERSION {
            return Err(WireError::Invalid { what: "token version", value: version.into(), allowed: "1" });
        }
        let protocol = from.bytes("protocol")?;
        let mut cluster = [0; 8];
        for byte in &mut cluster {
            *byte = from.u8("cluster")?;
        }
        let revision = from.u64("revision")? as i64;
        let place = match from.u8("place")? {
            0 => Place::Index(from.u64("index")?),
            1 => Place::Vector(Vector::decode(from)?),
            other => {
                return Err(WireError::Invalid { what: "place", value: other.into(), allowed: "0 or 1" });
            }
        };
        Ok(Token { protocol, cluster: u64::from_le_bytes(cluster), place, revision })
    }
}

impl Token {
    /// As it travels: hexadecimal, with a checksum, so that what was cut or mistyped is told from what is not here yet.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bytes = BytesMut::from(&self.to_bytes()[..]);
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let mut text = BytesMut::with_capacity(bytes.len() * 2);
        for byte in bytes {
            text.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        let mut value = HeaderValue::from_maybe_shared(text.freeze())
            .unwrap_or_else(|_| unreachable!("hexadecimal digits are legal in headers"));
        // It differs from reply to reply: remembering it would only push out what comes again.
        value.set_sensitive(true);
        value
    }

    /// Reads one token.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, with what is wrong.
    fn parse(text: &[u8]) -> Result<Token, Status> {
        let malformed = |why: &str| {
            let sentence = format!("synod: synod-session is not a token of this service: {why}");
            Status::new(Code::InvalidArgument, sentence)
        };
        if text.len() > TOKEN_MAX {
            return Err(malformed(&format!("it has {} characters, more than {TOKEN_MAX}", text.len())));
        }
        let digit = |digit: u8| char::from(digit).to_digit(16).filter(|_| !digit.is_ascii_uppercase());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.chunks(2).map(byte).collect();
        let bytes = bytes.ok_or_else(|| malformed("it is not hexadecimal"))?;
        let Some((body, sum)) = bytes.split_last_chunk::<4>() else {
            return Err(malformed("it is too short"));
        };
        if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
            return Err(malformed("its checksum does not match; was it cut or changed?"));
        }
        Token::decode_all(Bytes::copy_from_slice(body)).map_err(|error| malformed(&error.to_string()))
    }
}

/// Reads the tokens of one header, separated by commas. An empty header holds none, and asks for one.
///
/// # Errors
/// INVALID_ARGUMENT, with what is wrong.
pub(super) fn read(value: &[u8], tokens: &mut Vec<Token>) -> Result<(), Status> {
    for text in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|text| !text.is_empty()) {
        if tokens.len() == TOKENS_MAX {
            let sentence = format!("synod: more than {TOKENS_MAX} tokens in synod-session");
            return Err(Status::new(Code::InvalidArgument, sentence));
        }
        tokens.push(Token::parse(text)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_core::NodeId;

    fn token(place: Place) -> Token {
        Token { protocol: Bytes::from_static(b"raft"), cluster: 7 << 50, place, revision: 41 }
    }

    /// Tokens come back as they were given, several in one header too.
    #[test]
    fn tokens_round_trip() {
        let vector = [(NodeId(3), 4), (NodeId(5), 600)];
        let (one, other) = (token(Place::Index(900)), token(Place::Vector(vector.into_iter().collect())));
        let both = [one.header().as_bytes(), b" , ", other.header().as_bytes()].concat();
        let mut read_back = Vec::new();
        read(&both, &mut read_back).expect("good tokens");
        assert_eq!(read_back, [one, other]);
        let mut none = Vec::new();
        read(b" ", &mut none).expect("an empty header asks for a token");
        assert!(none.is_empty());
    }

    /// Every cut and every changed character is noticed, and refused as an argument.
    #[test]
    fn damage_is_refused() {
        let header = token(Place::Index(900)).header();
        let good = header.as_bytes();
        for at in 0..good.len() {
            let mut changed = good.to_vec();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            for text in [&good[..at], &changed] {
                if !text.is_empty() {
                    let wrong = read(text, &mut Vec::new()).expect_err("damaged");
                    assert_eq!(wrong.code, Code::InvalidArgument, "at {at}");
                }
            }
        }
        for nonsense in ["x", "zz", "ABCD", "00", "0011223344556677"] {
            assert!(read(nonsense.as_bytes(), &mut Vec::new()).is_err(), "{nonsense}");
        }
        let many = vec![header.to_str().expect("text"); TOKENS_MAX + 1].join(",");
        assert!(read(many.as_bytes(), &mut Vec::new()).expect_err("too many").message.contains("more than"));
    }
}
