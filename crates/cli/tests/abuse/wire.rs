//! HTTP/2 by hand, without any of the manners of a client: frames as they are, and what comes back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use synod_http2::frame::{HEAD, Head, PREFACE, flag, kind, put_head, put_ping, put_settings};
use synod_http2::hpack::put_literal;

use crate::common::PATIENCE;

/// A connection that has said hello.
pub(crate) struct Wire {
    pub(crate) socket: TcpStream,
}

/// A frame that came.
pub(crate) struct Came {
    pub(crate) head: Head,
    pub(crate) payload: Vec<u8>,
}

impl Wire {
    pub(crate) fn connect(port: u16, settings: &[(u16, u32)]) -> Wire {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        let mut hello = BytesMut::from(&PREFACE[..]);
        put_settings(&mut hello, settings);
        socket.write_all(&hello).expect("a hello");
        Wire { socket }
    }

    /// Sends bytes; whether the peer took them all. One that does not read, or has closed, is no error here.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// The next frame; none at the end.
    pub(crate) fn next(&mut self) -> Option<Came> {
        let mut head = [0; HEAD];
        self.socket.read_exact(&mut head).ok()?;
        let head = Head::read(&head)?;
        let mut payload = vec![0; head.length];
        self.socket.read_exact(&mut payload).ok()?;
        if let (kind::PING, false, Ok(asked)) = (head.kind, head.has(flag::ACK), payload.clone().try_into()) {
            // Who reads shows that it lives.
            let mut out = BytesMut::new();
            put_ping(&mut out, asked, flag::ACK);
            self.send(&out);
        }
        Some(Came { head, payload })
    }

    /// Reads until the connection is told to go: the reason's number, and its words.
    pub(crate) fn goaway(&mut self) -> (u32, String) {
        while let Some(Came { head, payload }) = self.next() {
            if head.kind == kind::GOAWAY {
                let reason = u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]);
                return (reason, String::from_utf8_lossy(&payload[8..]).into_owned());
            }
        }
        panic!("the connection ended without a word");
    }

    /// Reads and forgets whatever comes, on another thread, until the end.
    pub(crate) fn swallow(&self) -> std::thread::JoinHandle<()> {
        let mut socket = self.socket.try_clone().expect("a second handle");
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while matches!(socket.read(&mut buffer), Ok(1..)) {}
        })
    }
}

/// The fields of a gRPC call, as a header block.
pub(crate) fn call_block(path: &str) -> BytesMut {
    let mut block = BytesMut::new();
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().for_each(|(name, value)| put_literal(&mut block, name.as_bytes(), value.as_bytes()));
    block
}

/// Appends HEADERS that begin a call.
pub(crate) fn put_call(out: &mut BytesMut, stream: u32, path: &str) {
    let block = call_block(path);
    put_head(out, block.len(), kind::HEADERS, flag::END_HEADERS, stream);
    out.put_slice(&block);
}

/// Appends DATA with one message.
pub(crate) fn put_message(out: &mut BytesMut, stream: u32, message: &[u8], flags: u8) {
    put_head(out, message.len() + 5, kind::DATA, flags, stream);
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
}

/// A protobuf field of bytes.
pub(crate) fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(value);
    out
}
