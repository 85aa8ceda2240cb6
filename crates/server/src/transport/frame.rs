//! How a stream of bytes is cut into frames, and how damage is noticed.
//!
//! ```text
//! length u32 · crc u32 · kind u8 · payload          little endian
//! ```
//!
//! The length counts kind and payload; the CRC-32C covers both. A frame that is too long, of an unknown
//! kind, or whose sum does not match ends the connection: nothing behind it can be trusted.

use bytes::{Buf, Bytes, BytesMut};

/// No frame is longer: a request of the largest size that the flags allow fits, with room for its wrapping.
pub const FRAME_BYTES_MAX: usize = 72 << 20;

/// Before a stranger has introduced himself, his frames must be short.
pub(super) const HELLO_BYTES_MAX: usize = 16 << 10;

const HEADER_BYTES: usize = 8;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The dialler introduces himself.
    Hello = 1,
    /// The acceptor takes him in.
    Welcome = 2,
    /// The acceptor does not; the payload says why, for people.
    Refused = 3,
    /// Something for the node.
    Data = 4,
    /// "Are you there?", with the sender's clock.
    Ping = 5,
    /// "I am", with the same bytes.
    Pong = 6,
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {length} bytes; at most {max} are allowed")]
    TooLong { length: usize, max: usize },
    #[error("an empty frame")]
    Empty,
    #[error("a frame whose checksum does not match: the bytes were damaged on the way")]
    Damaged,
    #[error("a frame of the unknown kind {0}")]
    UnknownKind(u8),
}

/// Appends one frame whose payload `write` appends.
pub(super) fn encode(out: &mut BytesMut, kind: Kind, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    out.extend_from_slice(&[kind as u8]);
    write(out);
    let body = start + HEADER_BYTES;
    let length = out.len() - body;
    let crc = crc32c::crc32c(&out[body..]);
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + 4..body].copy_from_slice(&crc.to_le_bytes());
}

/// Takes the first whole frame out of `buffer`, if one is there; otherwise makes room for it.
pub(super) fn decode(buffer: &mut BytesMut, max: usize) -> Result<Option<(Kind, Bytes)>, FrameError> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let field = |at: usize| u32::from_le_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]]);
    let (length, crc) = (field(0) as usize, field(4));
    if length > max {
        return Err(FrameError::TooLong { length, max });
    }
    if length == 0 {
        return Err(FrameError::Empty);
    }
    let whole = HEADER_BYTES + length;
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    let mut frame = buffer.split_to(whole).freeze();
    frame.advance(HEADER_BYTES);
    if crc32c::crc32c(&frame) != crc {
        return Err(FrameError::Damaged);
    }
    let kind = match frame.get_u8() {
        1 => Kind::Hello,
        2 => Kind::Welcome,
        3 => Kind::Refused,
        4 => Kind::Data,
        5 => Kind::Ping,
        6 => Kind::Pong,
        other => return Err(FrameError::UnknownKind(other)),
    };
    Ok(Some((kind, frame)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: Kind, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        encode(&mut out, kind, |out| out.extend_from_slice(payload));
        out
    }

    /// Frames come out as they went in, however the stream is cut; half a frame is no frame.
    #[test]
    fn frames_survive_any_cut() {
        let mut stream = framed(Kind::Data, b"one");
        stream.extend_from_slice(&framed(Kind::Ping, b""));
        stream.extend_from_slice(&framed(Kind::Data, &[7; 1000]));
        for cut in 0..stream.len() {
            let mut buffer = BytesMut::from(&stream[..cut]);
            let mut frames = Vec::new();
            while let Some(frame) = decode(&mut buffer, 4096).unwrap() {
                frames.push(frame);
            }
            buffer.extend_from_slice(&stream[cut..]);
            while let Some(frame) = decode(&mut buffer, 4096).unwrap() {
                frames.push(frame);
            }
            assert_eq!(frames.len(), 3, "cut at {cut}");
            assert_eq!(frames[0], (Kind::Data, Bytes::from_static(b"one")));
            assert_eq!(frames[2].1.len(), 1000);
        }
    }

    /// No flipped bit of a frame is accepted: it is an error, or the stream waits for bytes that never come.
    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = framed(Kind::Data, b"payload");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decode(&mut bad, 1 << 16), Ok(Some(_))), "bit {bit}");
        }
    }

    /// A length that lies is refused before anything is allocated for it.
    #[test]
    fn lengths_are_bounded() {
        let mut huge = BytesMut::from(&[0xff; 16][..]);
        assert!(matches!(decode(&mut huge, 1 << 20), Err(FrameError::TooLong { .. })));
        assert_eq!(decode(&mut BytesMut::from(&[0; 16][..]), 1 << 20), Err(FrameError::Empty));
    }
}
