//! What leaves: header blocks, data, and the connection's side of flow control.
//!
//! gRPC says the same few fields in every answer. They are put into the peer's table with the first answer; from then on the head
//! of an answer is two bytes and its end is one. A peer that wants a smaller table than everybody has gets literals.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use http::HeaderMap;
use synod_http2::frame::{self, PAYLOAD_MAX, WINDOW, WINDOW_MAX, flag, kind, put_head};
use synod_http2::hpack::{self, TABLE_SIZE, place, put_indexed, put_literal, put_remembered};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::stream::{Piece, Stream};
use crate::http::body::percent_encoded;
use crate::status::Status;

/// Bytes that may wait to be written before nothing more is read, or taken from bodies.
pub(super) const WAITING_MAX: usize = 256 * 1024;
/// The same, while clients that do not read hold much of the memory that there is for all.
const WAITING_TIGHT: usize = 16 * 1024;
/// A buffer larger than this is given back when the connection is idle.
const IDLE_CAPACITY: usize = 16 * 1024;

const CONTENT_TYPE: &[u8] = b"content-type";
const GRPC: &[u8] = b"application/grpc";
const GRPC_STATUS: &[u8] = b"grpc-status";
const GRPC_MESSAGE: &[u8] = b"grpc-message";

/// The outgoing half of a connection.
pub(super) struct Output {
    bytes: BytesMut,
    /// What we may still send, for all streams together.
    window: i64,
    /// The peer's largest frame.
    frame_max: usize,
    /// The window that the peer gives to a new stream.
    pub(super) stream_window: i64,
    table: Table,
    /// Streams that have something to send, in turn.
    turns: VecDeque<u32>,
    /// Bytes of all streams' answers that wait for their turn and their windows.
    pending: usize,
    /// What may wait to be written at present.
    waiting_max: usize,
}

/// What the peer's table holds of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    /// Nothing yet.
    Empty,
    /// `content-type`, as the newest entry.
    Head,
    /// `grpc-status` as the newest entry, `content-type` behind it.
    Both,
    /// Nothing, and it must be told so before the next field.
    ToBeEmptied,
    /// Nothing, for good.
    Unused,
}

/// How far a stream got in its turn.
pub(super) enum Turn {
    /// Everything that it had is written.
    Written,
    /// The end of its answer is written.
    Ended,
    /// There is more, for its next turn.
    More,
    /// It waits for its own window.
    Blocked,
    /// The connection's window, or the buffer, is used up.
    Full,
}

impl Output {
    pub(super) fn new() -> Output {
        Output {
            bytes: BytesMut::new(),
            window: WINDOW,
            frame_max: PAYLOAD_MAX,
            stream_window: WINDOW,
            table: Table::Empty,
            turns: VecDeque::new(),
            pending: 0,
            waiting_max: WAITING_MAX,
        }
    }

    /// Bytes held for a peer that does not take them.
    pub(super) fn held(&self) -> usize {
        self.bytes.len() + self.pending
    }

    /// Little memory is left for all, or there is enough again.
    pub(super) fn be_tight(&mut self, tight: bool) {
        self.waiting_max = if tight { WAITING_TIGHT } else { WAITING_MAX };
    }

    /// A piece of an answer waits from now on.
    pub(super) fn push(&mut self, stream: &mut Stream, piece: Piece) {
        if let Piece::Data { bytes, .. } = &piece {
            stream.pending_bytes += bytes.len();
            self.pending += bytes.len();
        }
        stream.pending.push_back(piece);
    }

    /// Nothing of a stream's waits any more.
    pub(super) fn forget(&mut self, stream: &Stream) {
        self.pending -= stream.pending_bytes;
    }

    /// Frames that are no stream's answer.
    pub(super) fn control(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Whether so much waits that nothing more should be taken on.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= self.waiting_max
    }

    /// Gives memory back that an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > IDLE_CAPACITY {
            self.bytes = BytesMut::new();
        }
    }

    /// The peer takes so much more; false when it says more than it may.
    pub(super) fn widen(&mut self, increment: u32) -> bool {
        self.window += i64::from(increment);
        self.window <= WINDOW_MAX
    }

    pub(super) fn set_frame_max(&mut self, bytes: u32) {
        // Larger frames gain nothing, and keep others waiting.
        self.frame_max = (bytes as usize).min(4 * PAYLOAD_MAX);
    }

    /// The peer's table is to have at most so many bytes.
    pub(super) fn set_table(&mut self, bytes: u32) {
        if (bytes as usize) < TABLE_SIZE && self.table != Table::Unused {
            self.table = Table::ToBeEmptied;
        }
    }

    /// Gives a stream a turn, if it does not have one already.
    pub(super) fn queue(&mut self, id: u32, stream: &mut Stream) {
        if !std::mem::replace(&mut stream.is_queued, true) {
            self.turns.push_back(id);
        }
    }

    /// Whether some stream could be written of, now.
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty() && self.window > 0 && !self.is_full()
    }

    pub(super) fn next_turn(&mut self) -> Option<u32> {
        self.turns.pop_front()
    }

    pub(super) fn turn_again(&mut self, id: u32) {
        self.turns.push_back(id);
    }

    pub(super) fn turn_first(&mut self, id: u32) {
        self.turns.push_front(id);
    }

    /// Whether a message may leave at once, in one frame: it fits into all windows, and nothing of its stream waits before it.
    fn has_room(&self, stream: &Stream, message: &[u8]) -> bool {
        let length = message.len() as i64;
        message.len() <= self.frame_max
            && length <= self.window
            && length <= stream.send_window
            && stream.pending.is_empty()
            && !self.is_full()
    }

    /// Writes a whole successful unary answer, if it may leave at once; whether it did.
    pub(super) fn put_unary(&mut self, id: u32, stream: &Stream, message: &[u8]) -> bool {
        if !self.has_room(stream, message) {
            return false;
        }
        self.put_grpc_head(id);
        self.put_data(id, message, false);
        self.put_grpc_ok(id);
        true
    }

    /// Writes one message of many, if it may leave at once; whether it did.
    pub(super) fn put_message(&mut self, id: u32, stream: &mut Stream, message: &[u8]) -> bool {
        if !self.has_room(stream, message) {
            return false;
        }
        self.put_data(id, message, false);
        stream.send_window -= message.len() as i64;
        true
    }

    /// Writes a whole answer of a call that failed, where the stream has said nothing yet; whether it did.
    pub(super) fn put_failure(&mut self, id: u32, stream: &Stream, status: &Status) -> bool {
        if !stream.pending.is_empty() || self.is_full() {
            return false;
        }
        self.put_grpc_failure(id, status);
        true
    }

    /// Writes of a stream's pending pieces what it may: at most one frame of data.
    pub(super) fn take_turn(&mut self, id: u32, stream: &mut Stream) -> Turn {
        let mut had_data = false;
        loop {
            if self.is_full() {
                return Turn::Full;
            }
            let Some(piece) = stream.pending.front_mut() else { return Turn::Written };
            let ended = match piece {
                Piece::GrpcHead => {
                    self.put_grpc_head(id);
                    false
                }
                Piece::GrpcOk => {
                    self.put_grpc_ok(id);
                    true
                }
                Piece::Failure(status) => {
                    self.put_grpc_failure(id, status);
                    true
                }
                Piece::Fields { status, fields, is_last } => {
                    self.put_fields(id, *status, fields, *is_last);
                    *is_last
                }
                Piece::Data { bytes, is_last } => {
                    if had_data {
                        return Turn::More;
                    }
                    let whole = bytes.len();
                    let room = self.window.min(stream.send_window).max(0) as usize;
                    let now = whole.min(self.frame_max).min(room);
                    if now == 0 && whole > 0 {
                        return if stream.send_window <= 0 { Turn::Blocked } else { Turn::Full };
                    }
                    let part = bytes.split_to(now);
                    let ended = *is_last && bytes.is_empty();
                    self.put_data(id, &part, ended);
                    stream.send_window -= now as i64;
                    stream.pending_bytes -= now;
                    self.pending -= now;
                    had_data = true;
                    if now < whole {
                        return match () {
                            () if stream.send_window <= 0 => Turn::Blocked,
                            () if self.window <= 0 => Turn::Full,
                            () => Turn::More,
                        };
                    }
                    ended
                }
            };
            stream.pending.pop_front();
            if ended {
                return Turn::Ended;
            }
        }
    }

    fn put_data(&mut self, id: u32, payload: &[u8], is_last: bool) {
        let flags = if is_last { flag::END_STREAM } else { 0 };
        put_head(&mut self.bytes, payload.len(), kind::DATA, flags, id);
        self.bytes.put_slice(payload);
        self.window -= payload.len() as i64;
    }

    fn put_grpc_head(&mut self, id: u32) {
        self.put_block(id, 0, put_grpc_head);
    }

    /// `grpc-status: 0`, and the end.
    fn put_grpc_ok(&mut self, id: u32) {
        self.put_block(id, flag::END_STREAM, |table, out| match table {
            Table::Head => {
                put_remembered(out, GRPC_STATUS, b"0");
                Table::Both
            }
            Table::Both => {
                put_indexed(out, place::NEWEST);
                table
            }
            _ => {
                put_literal(out, GRPC_STATUS, b"0");
                table
            }
        });
    }

    /// The whole of a gRPC answer that failed: a head with the status in it.
    fn put_grpc_failure(&mut self, id: u32, status: &Status) {
        self.put_block(id, flag::END_STREAM, |table, out| {
            let table = put_grpc_head(table, out);
            put_literal(out, GRPC_STATUS, (status.code as u16).to_string().as_bytes());
            put_literal(out, GRPC_MESSAGE, &percent_encoded(&status.message));
            table
        });
    }

    fn put_fields(&mut self, id: u32, status: Option<u16>, fields: &HeaderMap, is_last: bool) {
        self.put_block(id, if is_last { flag::END_STREAM } else { 0 }, |table, out| {
            match status {
                Some(200) => put_indexed(out, place::OK),
                Some(other) => put_literal(out, b":status", other.to_string().as_bytes()),
                None => {}
            }
            for (name, value) in fields {
                put_literal(out, name.as_str().as_bytes(), value.as_bytes());
            }
            table
        });
    }

    /// Writes a block that `write` fills; it answers what the peer's table holds afterwards. Longer ones than a frame are
    /// continued.
    fn put_block(&mut self, id: u32, flags: u8, write: impl FnOnce(Table, &mut BytesMut) -> Table) {
        let start = self.bytes.len();
        put_head(&mut self.bytes, 0, kind::HEADERS, flags | flag::END_HEADERS, id);
        let block = self.bytes.len();
        if self.table == Table::ToBeEmptied {
            hpack::put_table_emptied(&mut self.bytes);
            self.table = Table::Unused;
        }
        self.table = write(self.table, &mut self.bytes);
        let length = self.bytes.len() - block;
        if length <= self.frame_max {
            self.bytes[start..start + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            return;
        }
        let whole = self.bytes.split_off(block);
        self.bytes.truncate(start);
        let mut parts = whole.chunks(self.frame_max).peekable();
        let (mut kind, mut flags) = (kind::HEADERS, flags);
        while let Some(part) = parts.next() {
            let end = if parts.peek().is_none() { flag::END_HEADERS } else { 0 };
            put_head(&mut self.bytes, part.len(), kind, flags | end, id);
            self.bytes.put_slice(part);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }

    /// Ready when everything is written.
    pub(super) fn poll_flush(
        &mut self,
        socket: &mut TcpStream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            match ready!(Pin::new(&mut *socket).poll_write(context, &self.bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.bytes.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// `:status: 200`, `content-type: application/grpc`; answers what the peer's table holds afterwards.
fn put_grpc_head(table: Table, out: &mut BytesMut) -> Table {
    put_indexed(out, place::OK);
    match table {
        Table::Empty => {
            put_remembered(out, CONTENT_TYPE, GRPC);
            return Table::Head;
        }
        Table::Head => put_indexed(out, place::NEWEST),
        Table::Both => put_indexed(out, place::NEWEST + 1),
        Table::Unused | Table::ToBeEmptied => put_literal(out, CONTENT_TYPE, GRPC),
    }
    table
}

/// Appends our own settings, and widens the connection's window to what it is to be.
pub(super) fn put_greeting(out: &mut BytesMut, settings: &[(u16, u32)], window: u32) {
    frame::put_settings(out, settings);
    frame::put_window_update(out, 0, window - WINDOW as u32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::stream::Request;
    use bytes::Bytes;
    use synod_http2::frame::Head;
    use synod_http2::hpack::Decoder;

    fn stream(window: i64) -> Stream {
        Stream::new(Request::Done { closed: true }, 0, window, 0)
    }

    /// The frames that were written, as a client reads them: kind, flags, payload, or fields.
    fn read(output: &mut Output, decoder: &mut Decoder) -> Vec<(u8, u8, String)> {
        let mut frames = Vec::new();
        while let Some(head) = Head::read(&output.bytes) {
            output.bytes.advance(frame::HEAD);
            let payload = output.bytes.split_to(head.length);
            let text = if head.kind == kind::HEADERS {
                let mut fields = Vec::new();
                decoder.decode(&payload, 1 << 16, &mut fields).unwrap();
                let text = |field: &hpack::Field| {
                    format!("{}={}", field.name.escape_ascii(), field.value.escape_ascii())
                };
                fields.iter().map(text).collect::<Vec<_>>().join(" ")
            } else {
                payload.escape_ascii().to_string()
            };
            frames.push((head.kind, head.flags, text));
        }
        frames
    }

    /// Answer after answer means the same, though it shrinks; also after the peer has done away with its table.
    #[test]
    fn answers_shrink_and_mean_the_same() {
        let (mut output, mut decoder) = (Output::new(), Decoder::default());
        let expected = vec![
            (kind::HEADERS, 4, ":status=200 content-type=application/grpc".to_owned()),
            (kind::DATA, 0, "hello".to_owned()),
            (kind::HEADERS, 5, "grpc-status=0".to_owned()),
        ];
        let mut sizes = Vec::new();
        for round in 0..5 {
            if round == 3 {
                output.set_table(0);
            }
            assert!(output.put_unary(1, &stream(WINDOW), b"hello"));
            sizes.push(output.bytes.len());
            assert_eq!(read(&mut output, &mut decoder), expected, "round {round}");
        }
        assert!(sizes[1] < sizes[0] && sizes[1] == sizes[2] && sizes[3] > sizes[2], "{sizes:?}");
    }

    /// A failure is one block, and leaves what the peer's table holds as it was; where something waits before it, it waits, too.
    #[test]
    fn failures_are_one_block() {
        let (mut output, mut decoder) = (Output::new(), Decoder::default());
        let status = Status::new(crate::status::Code::ResourceExhausted, "100% full");
        for round in 0..3 {
            assert!(output.put_failure(1, &stream(WINDOW), &status));
            let text = ":status=200 content-type=application/grpc grpc-status=8 grpc-message=100%25 full";
            assert_eq!(
                read(&mut output, &mut decoder),
                [(kind::HEADERS, 5, text.to_owned())],
                "round {round}"
            );
            assert!(output.put_unary(3, &stream(WINDOW), b"hello"));
            assert_eq!(read(&mut output, &mut decoder).len(), 3);
        }
        let mut waiting = stream(WINDOW);
        output.push(&mut waiting, Piece::GrpcHead);
        assert!(!output.put_failure(5, &waiting, &status));
    }

    /// Data goes no further than the stream's window, then than the connection's, and goes on where it stopped.
    #[test]
    fn windows_hold() {
        let (mut output, mut decoder) = (Output::new(), Decoder::default());
        let mut stream = stream(3);
        output.push(&mut stream, Piece::Data { bytes: Bytes::from_static(b"abcdef"), is_last: true });
        assert!(matches!(output.take_turn(1, &mut stream), Turn::Blocked));
        assert_eq!(read(&mut output, &mut decoder), [(kind::DATA, 0, "abc".to_owned())]);
        (stream.send_window, output.window) = (10, 0);
        assert!(matches!(output.take_turn(1, &mut stream), Turn::Full));
        assert!(output.widen(10));
        assert!(matches!(output.take_turn(1, &mut stream), Turn::Ended));
        assert_eq!(read(&mut output, &mut decoder), [(kind::DATA, 1, "def".to_owned())]);
        assert_eq!((output.held(), stream.pending_bytes), (0, 0));
        assert!(!output.widen(WINDOW_MAX as u32));
    }

    /// A message of many leaves at once if it fits into both windows and nothing waits before it, and takes its part of both.
    #[test]
    fn messages_that_fit_leave_at_once() {
        let (mut output, mut decoder) = (Output::new(), Decoder::default());
        let mut stream = stream(8);
        output.window = 11;
        assert!(output.put_message(1, &mut stream, b"abcdef"));
        assert_eq!(read(&mut output, &mut decoder), [(kind::DATA, 0, "abcdef".to_owned())]);
        assert_eq!((stream.send_window, output.window), (2, 5));
        assert!(!output.put_message(1, &mut stream, b"ghi"), "the stream's window");
        stream.send_window = 100;
        assert!(!output.put_message(1, &mut stream, b"ghijkl"), "the connection's window");
        output.push(&mut stream, Piece::Data { bytes: Bytes::from_static(b"gh"), is_last: false });
        assert!(!output.put_message(1, &mut stream, b"i"), "something waits before it");
        assert!(output.bytes.is_empty());
    }

    /// A block that no frame holds is continued.
    #[test]
    fn long_blocks_are_continued() {
        let mut output = Output::new();
        let mut fields = HeaderMap::new();
        fields.insert("x", "y".repeat(PAYLOAD_MAX + 10).parse().unwrap());
        output.put_fields(1, Some(404), &fields, true);
        let first = Head::read(&output.bytes).unwrap();
        assert_eq!((first.kind, first.flags, first.length), (kind::HEADERS, flag::END_STREAM, PAYLOAD_MAX));
        let second = Head::read(&output.bytes[frame::HEAD + PAYLOAD_MAX..]).unwrap();
        assert_eq!((second.kind, second.flags), (kind::CONTINUATION, flag::END_HEADERS));
    }
}
