//! What a method answers: an encoded message, whole or in pieces.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// What stands before each message on a gRPC stream: a flag (0: not compressed) and four bytes of length.
pub const PREFIX: usize = 5;

/// An encoded message with its gRPC prefix in front, so that framing copies nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed(Bytes);

impl Framed {
    /// Encodes a message.
    ///
    /// # Panics
    /// For a message of 4 GiB and more, which nothing here builds.
    pub fn encode(message: &impl Message) -> Framed {
        let length = message.encoded_len();
        let mut buffer = start(length);
        message.encode(&mut buffer).expect("the buffer grows as needed");
        Framed::finish(buffer)
    }

    /// Takes a buffer that [`start`] made and that now holds the whole message; writes the prefix.
    ///
    /// # Panics
    /// For a message of 4 GiB and more, which nothing here builds.
    #[must_use]
    pub fn finish(mut buffer: BytesMut) -> Framed {
        let length = u32::try_from(buffer.len() - PREFIX).expect("a reply stays below 4 GiB");
        buffer[0] = 0;
        buffer[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        Framed(buffer.freeze())
    }

    /// The message alone.
    #[must_use]
    pub fn message(&self) -> Bytes {
        self.0.slice(PREFIX..)
    }

    /// Prefix and message.
    #[must_use]
    pub fn framed(self) -> Bytes {
        self.0
    }
}

/// Prefix and message.
impl AsRef<[u8]> for Framed {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A buffer with room for a prefix and a message of about `length` bytes, to be appended to and given to [`Framed::finish`].
#[must_use]
pub fn start(length: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(PREFIX + length);
    buffer.put_bytes(0, PREFIX);
    buffer
}

/// Appends the prefix of a message of `length` bytes.
///
/// # Panics
/// For a length of 4 GiB and more.
pub fn put_prefix(buffer: &mut BytesMut, length: usize) {
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).expect("a reply stays below 4 GiB"));
}

/// The answer of a method.
pub enum Payload {
    /// All at once.
    Whole(Framed),
    /// Piece by piece, because it is large; nothing is copied together.
    Pieces(Pieces),
}

/// A large message in pieces.
pub struct Pieces {
    /// The length of the message, without prefix.
    pub length: usize,
    /// The pieces, which make up the message, without prefix.
    pub pieces: Box<dyn Iterator<Item = Bytes> + Send>,
}

impl Payload {
    /// Encodes a message.
    pub fn encode(message: &impl Message) -> Payload {
        Payload::Whole(Framed::encode(message))
    }

    /// The pieces that make up the message, with its prefix in front.
    pub fn framed(self) -> impl Iterator<Item = Bytes> {
        let (first, rest) = match self {
            Payload::Whole(framed) => (framed.framed(), None),
            Payload::Pieces(Pieces { length, pieces }) => {
                let mut prefix = BytesMut::new();
                put_prefix(&mut prefix, length);
                (prefix.freeze(), Some(pieces))
            }
        };
        std::iter::once(first).chain(rest.into_iter().flatten())
    }

    /// The length of the message, without prefix.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Payload::Whole(framed) => framed.0.len() - PREFIX,
            Payload::Pieces(pieces) => pieces.length,
        }
    }

    /// Whether the message has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message in one piece, without prefix.
    #[must_use]
    pub fn message(self) -> Bytes {
        match self {
            Payload::Whole(framed) => framed.message(),
            Payload::Pieces(pieces) => {
                let mut buffer = BytesMut::with_capacity(pieces.length);
                pieces.pieces.for_each(|piece| buffer.extend_from_slice(&piece));
                buffer.freeze()
            }
        }
    }
}
