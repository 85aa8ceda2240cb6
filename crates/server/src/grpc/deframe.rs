//! gRPC's framing, inbound: from the pieces that arrive to whole messages.
//!
//! A message is announced by five bytes: whether it is compressed, and its length. The announced length is judged before
//! anything of the message is kept.

use bytes::{Buf, Bytes, BytesMut};

use crate::service::payload::PREFIX;
use crate::status::{Code, Status};

/// Puts messages together; holds at most one message and its prefix.
pub(crate) struct Deframer {
    /// What has arrived and is not handed out yet: the newest piece as it came, and older pieces copied together.
    held: BytesMut,
    piece: Bytes,
    message_max: usize,
}

impl Deframer {
    /// Refuses messages longer than `message_max`.
    pub(crate) fn new(message_max: usize) -> Deframer {
        Deframer { held: BytesMut::new(), piece: Bytes::new(), message_max }
    }

    /// Takes a piece; [`Deframer::next`] must have returned `None` before.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.piece.is_empty() {
            self.piece = piece;
        } else {
            self.held.extend_from_slice(&self.piece);
            self.piece = piece;
        }
    }

    /// The next whole message.
    ///
    /// # Errors
    /// A message that is compressed or too long: the stream cannot be read on after it.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(prefix) = self.peek_prefix() else { return Ok(None) };
        match prefix[0] {
            0 => {}
            1 => {
                return Err(Status::new(
                    Code::Unimplemented,
                    "grpc: compressed messages are not supported by this server",
                ));
            }
            flag => {
                return Err(Status::new(
                    Code::Internal,
                    format!("grpc: message flag {flag} is neither 0 nor 1"),
                ));
            }
        }
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if length > self.message_max {
            let max = self.message_max;
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("grpc: received message larger than max ({length} vs. {max})"),
            ));
        }
        let whole = PREFIX + length;
        if self.held.is_empty() {
            // The usual case: the message lies in one piece, and is a slice of it.
            if self.piece.len() < whole {
                return Ok(None);
            }
            let mut message = self.piece.split_to(whole);
            message.advance(PREFIX);
            return Ok(Some(message));
        }
        if self.held.len() + self.piece.len() < whole {
            return Ok(None);
        }
        let missing = whole - self.held.len().min(whole);
        self.held.reserve(missing);
        self.held.extend_from_slice(&self.piece.split_to(missing));
        let mut message = std::mem::take(&mut self.held).freeze();
        message.advance(PREFIX);
        Ok(Some(message))
    }

    /// Bytes of a message that has begun and not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.held.len() + self.piece.len()
    }

    fn peek_prefix(&self) -> Option<[u8; PREFIX]> {
        let mut prefix = [0; PREFIX];
        let mut bytes = self.held.iter().chain(self.piece.iter());
        for place in &mut prefix {
            *place = *bytes.next()?;
        }
        Some(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut out = vec![0];
        out.extend_from_slice(&(message.len() as u32).to_be_bytes());
        out.extend_from_slice(message);
        out
    }

    /// However the bytes are cut, the same messages come out.
    #[test]
    fn every_cut_gives_the_same_messages() {
        let messages: [&[u8]; 4] = [b"one", b"", b"three33", b"x"];
        let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
        for size in 1..=stream.len() {
            let mut deframer = Deframer::new(100);
            let mut out = Vec::new();
            for piece in stream.chunks(size) {
                deframer.push(Bytes::copy_from_slice(piece));
                while let Some(message) = deframer.next().unwrap() {
                    out.push(message);
                }
            }
            assert_eq!(out, messages, "pieces of {size}");
            assert_eq!(deframer.unfinished(), 0);
        }
    }

    /// A message that is too long is refused by its prefix alone; so is a compressed one, and it is said why.
    #[test]
    fn bad_prefixes_are_refused_at_once() {
        let refusal = |prefix: [u8; 5]| {
            let mut deframer = Deframer::new(100);
            deframer.push(Bytes::copy_from_slice(&prefix));
            deframer.next().unwrap_err()
        };
        let long = refusal([0, 1, 0, 0, 0]);
        assert_eq!(long.code, Code::ResourceExhausted);
        assert_eq!(long.message, "grpc: received message larger than max (16777216 vs. 100)");
        let compressed = refusal([1, 0, 0, 0, 1]);
        assert_eq!(compressed.code, Code::Unimplemented);
        assert!(compressed.message.contains("compressed"));
        assert_eq!(refusal([7, 0, 0, 0, 0]).code, Code::Internal);
    }
}
