//! Frames: nine bytes that say what follows, and what follows (RFC 9113, section 4.1 and 6).

use bytes::{BufMut, BytesMut};

/// What a client says first (3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The length of a frame's head.
pub const HEAD: usize = 9;
/// The largest frame that may be sent to somebody who has not said that he takes larger ones (6.5.2).
pub const PAYLOAD_MAX: usize = 16_384;
/// The window that a stream, or a connection, begins with (6.9.2).
pub const WINDOW: i64 = 65_535;
/// No window is ever larger (6.9.1).
pub const WINDOW_MAX: i64 = (1 << 31) - 1;

macro_rules! numbers {
    ($(#[$doc:meta] $module:ident: $type:ty { $($name:ident = $value:literal,)* })*) => {$(
        #[$doc]
        #[allow(missing_docs)]
        pub mod $module {
            $(pub const $name: $type = $value;)*
        }
    )*};
}

numbers! {
    /// What a frame is.
    kind: u8 {
        DATA = 0, HEADERS = 1, PRIORITY = 2, RST_STREAM = 3, SETTINGS = 4, PUSH_PROMISE = 5, PING = 6, GOAWAY = 7,
        WINDOW_UPDATE = 8, CONTINUATION = 9,
    }
    /// What else is said of a frame; a bit means what its kind makes of it.
    flag: u8 { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, PRIORITY = 0x20, }
    /// Why a stream or a connection ends (section 7).
    reason: u32 {
        NO_ERROR = 0, PROTOCOL_ERROR = 1, INTERNAL_ERROR = 2, FLOW_CONTROL_ERROR = 3, STREAM_CLOSED = 5, FRAME_SIZE_ERROR = 6,
        REFUSED_STREAM = 7, CANCEL = 8, COMPRESSION_ERROR = 9, ENHANCE_YOUR_CALM = 11,
    }
    /// What a side says of itself (6.5.2).
    setting: u16 {
        HEADER_TABLE_SIZE = 1, ENABLE_PUSH = 2, MAX_CONCURRENT_STREAMS = 3, INITIAL_WINDOW_SIZE = 4, MAX_FRAME_SIZE = 5,
        MAX_HEADER_LIST_SIZE = 6,
    }
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many bytes follow.
    pub length: usize,
    /// What it is ([`kind`]).
    pub kind: u8,
    /// What else is said of it ([`flag`]).
    pub flags: u8,
    /// Which stream it belongs to; 0: the connection.
    pub stream: u32,
}

impl Head {
    /// Reads a head; none when there are not nine bytes.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Head> {
        let bytes: &[u8; HEAD] = bytes.first_chunk()?;
        Some(Head {
            length: u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize,
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) & 0x7fff_ffff,
        })
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a head.
///
/// # Panics
/// For a payload of 16 MiB and more, which no frame can have.
pub fn put_head(out: &mut BytesMut, length: usize, kind: u8, flags: u8, stream: u32) {
    assert!(length < 1 << 24, "a frame's payload is shorter than 16 MiB");
    out.put_u64(
        (length as u64) << 40 | u64::from(kind) << 32 | u64::from(flags) << 24 | u64::from(stream >> 8),
    );
    out.put_u8(stream as u8);
}

/// Appends SETTINGS.
pub fn put_settings(out: &mut BytesMut, settings: &[(u16, u32)]) {
    put_head(out, settings.len() * 6, kind::SETTINGS, 0, 0);
    for (name, value) in settings {
        out.put_u16(*name);
        out.put_u32(*value);
    }
}

/// Appends the acknowledgement of SETTINGS.
pub fn put_settings_ack(out: &mut BytesMut) {
    put_head(out, 0, kind::SETTINGS, flag::ACK, 0);
}

/// Appends a PING, or its answer.
pub fn put_ping(out: &mut BytesMut, payload: [u8; 8], flags: u8) {
    put_head(out, 8, kind::PING, flags, 0);
    out.put_slice(&payload);
}

/// Appends a WINDOW_UPDATE; `stream` 0 is the connection.
pub fn put_window_update(out: &mut BytesMut, stream: u32, increment: u32) {
    put_head(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.put_u32(increment);
}

/// Appends a RST_STREAM.
pub fn put_reset(out: &mut BytesMut, stream: u32, reason: u32) {
    put_head(out, 4, kind::RST_STREAM, 0, stream);
    out.put_u32(reason);
}

/// Appends a GOAWAY with a word to whoever debugs the other side.
pub fn put_goaway(out: &mut BytesMut, last_stream: u32, reason: u32, word: &str) {
    put_head(out, 8 + word.len(), kind::GOAWAY, 0, 0);
    out.put_u32(last_stream);
    out.put_u32(reason);
    out.put_slice(word.as_bytes());
}

/// The payload without its padding (6.1); none when there is more padding than payload.
#[must_use]
pub fn unpadded(head: Head, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(flag::PADDED) {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

/// The settings of a SETTINGS frame; unknown ones too.
pub fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> + '_ {
    payload.chunks_exact(6).map(|entry| {
        (
            u16::from_be_bytes([entry[0], entry[1]]),
            u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head is read as it was written, whatever is in it; the reserved bit is ignored.
    #[test]
    fn heads_survive() {
        let mut out = BytesMut::new();
        put_head(&mut out, 0x01_02_03, kind::DATA, flag::END_STREAM, 0x7abb_ccdd);
        let head = Head::read(&out).unwrap();
        assert_eq!(head, Head { length: 0x01_02_03, kind: kind::DATA, flags: 1, stream: 0x7abb_ccdd });
        out[5] |= 0x80;
        assert_eq!(Head::read(&out), Some(head));
        assert_eq!(Head::read(&out[..8]), None);
    }

    /// Padding goes, and padding that is longer than the frame is refused.
    #[test]
    fn padding() {
        let head = Head { length: 0, kind: kind::DATA, flags: flag::PADDED, stream: 1 };
        assert_eq!(unpadded(head, &[2, 7, 8, 0, 0]), Some(&[7, 8][..]));
        assert_eq!(unpadded(head, &[4, 7, 8, 0, 0]), Some(&[][..]));
        assert_eq!(unpadded(head, &[5, 7, 8, 0, 0]), None);
        assert_eq!(unpadded(head, &[]), None);
    }
}
