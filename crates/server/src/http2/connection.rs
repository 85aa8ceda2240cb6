//! Frames in: what a peer says, and what it may not.
//!
//! A mistake within a stream ends the stream; a mistake about the connection ends the connection with GOAWAY and the reason in
//! words (RFC 9113, 5.4). Nothing that a peer sends is kept without a bound.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use foldhash::fast::FixedState;
use futures_util::future::{AbortHandle, AbortRegistration};
use hashbrown::HashMap;
use http::header;
use synod_http2::frame::{self, HEAD, Head, flag, kind, reason, setting};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::output::{Output, put_greeting};
use super::request::{Asked, Call, FIELDS_MAX, Heads, Reader};
use super::stream::{Held, Message, Piece, Request, Stream};
use super::upload::{Taken, Upload, UploadBody};
use super::windows::{CONNECTION_WINDOW, STREAM_WINDOW, give_back};
use crate::grpc::Deframer;
use crate::http::Scope;
use crate::service::intake::{Intake, Share};
use crate::service::lane::{Carried, Lane, OnLane};
use crate::service::payload::PREFIX;
use crate::status::{Code, Status};

/// A header block on its way, compressed.
const BLOCK_MAX: usize = FIELDS_MAX;
/// Calls that a client reset while they run. A client that merely cancels a lot stays far below; above, it is an attack.
const ORPHANS_MAX: usize = 4096;
/// Ticks of silence after which the peer is asked whether it lives, and after which it is given up.
const PING_TICKS: u32 = 6;
const SILENT_TICKS_MAX: u32 = 9;
/// Ticks in which a unary request must have arrived whole after its headers.
const COLLECT_TICKS_MAX: u32 = 6;
/// Ticks in which a header block must have arrived whole.
const BLOCK_TICKS_MAX: u32 = 3;
/// Frames that a header block may come in: in frames of the usual size it takes five.
const BLOCK_PARTS_MAX: u32 = 64;
/// Ticks in which a client must have taken something of an answer that waits for it, unless the answer is one without end.
const STALL_TICKS_MAX: u32 = 6;
/// What one read takes at most.
const READ_MAX: usize = 64 * 1024;

thread_local! {
    /// Where reads go: one for all connections of a thread, so that ten thousand idle ones hold nothing.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_MAX]);
}

/// Why a connection ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer broke the protocol.
    #[error("{1} (HTTP/2 error {0})")]
    Protocol(u32, &'static str),
}

/// What a complete request, or the beginning of one, asks to be done.
pub(super) enum Job {
    /// A unary call with its message.
    Call(u32, Call, Message),
    /// A request whose body comes piece by piece.
    Route(u32, Box<http::Request<UploadBody>>, AbortRegistration),
}

/// A connection's state; sockets and futures are the driver's.
pub(super) struct Connection {
    streams_max: usize,
    /// The longest message of a unary call.
    message_max: usize,
    intake: Arc<Intake>,
    reader: Reader,
    /// The beginning of a frame that has not arrived whole.
    rest: Vec<u8>,
    pub(super) output: Output,
    pub(super) streams: HashMap<u32, Stream, FixedState>,
    pub(super) taken: Taken,
    pub(super) jobs: Vec<Job>,
    /// The messages of those calls that came in one frame.
    messages: Vec<u8>,
    /// Where watch streams are rung for.
    pub(super) lane: Arc<Lane>,
    /// Watch streams that have something to say.
    pub(super) rung: VecDeque<Carried>,
    pub(super) last_stream: u32,
    /// A header block that is continued.
    block: Option<Block>,
    pub(super) receive_window: i64,
    pub(super) receive_owed: u32,
    pub(super) greeted: bool,
    retiring: bool,
    gone: bool,
    /// What is held for the peer of answers that it does not take.
    pub(super) backlog: Share,
    /// SETTINGS since the last tick.
    pub(super) settings: u32,
    broken: Option<(u32, &'static str)>,
    pub(super) ticks: u32,
    /// The tick at which the peer was heard of last.
    heard: u32,
}

struct Block {
    stream: u32,
    is_last: bool,
    parts: u32,
    bytes: Vec<u8>,
    since: u32,
}

/// Whether the peer keeps to the protocol; else the connection ends with these.
pub(super) type Checked = Result<(), (u32, &'static str)>;

impl Connection {
    /// A connection after its preface; `begun` is what was read behind that already.
    pub(super) fn new(
        streams_max: u32,
        message_max: usize,
        scope: Scope,
        heads: Heads,
        intake: Arc<Intake>,
        backlog: &Arc<Intake>,
        begun: &[u8],
    ) -> Connection {
        let mut output = Output::new();
        let mut settings = vec![
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, FIELDS_MAX as u32),
        ];
        if streams_max < u32::MAX {
            settings.push((setting::MAX_CONCURRENT_STREAMS, streams_max));
        }
        put_greeting(output.control(), &settings, CONNECTION_WINDOW);
        let mut connection = Connection {
            streams_max: streams_max as usize,
            message_max,
            intake,
            reader: Reader::new(scope, heads),
            rest: Vec::new(),
            output,
            streams: HashMap::default(),
            taken: Taken::default(),
            jobs: Vec::new(),
            messages: Vec::new(),
            lane: Arc::default(),
            rung: VecDeque::new(),
            last_stream: 0,
            block: None,
            receive_window: i64::from(CONNECTION_WINDOW),
            receive_owed: 0,
            greeted: false,
            retiring: false,
            gone: false,
            backlog: backlog.share(),
            settings: 0,
            broken: None,
            ticks: 0,
            heard: 0,
        };
        connection.take(begun);
        connection
    }

    /// Reads once, and takes what came; whether anything did.
    pub(super) fn poll_read(
        &mut self,
        socket: &mut TcpStream,
        context: &mut Context<'_>,
    ) -> io::Result<bool> {
        if self.gone || self.broken.is_some() || self.output.is_full() {
            return Ok(false);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(socket).poll_read(context, &mut buffer)? {
                Poll::Pending => return Ok(false),
                Poll::Ready(()) if buffer.filled().is_empty() => self.gone = true,
                Poll::Ready(()) => {
                    self.heard = self.ticks;
                    self.take(buffer.filled());
                }
            }
            Ok(true)
        })
    }

    pub(super) fn poll_flush(
        &mut self,
        socket: &mut TcpStream,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        self.output.poll_flush(socket, context).map_err(Fault::Io)
    }

    /// What is held for the peer.
    pub(super) fn held(&self) -> usize {
        self.rest.len() + self.output.held()
    }

    /// As if the peer had read everything that is written, where it reads.
    pub(super) fn drain_output(&mut self, reads: bool) {
        if reads {
            self.output.control().clear();
        }
    }

    /// Takes no further streams.
    pub(super) fn retire(&mut self) {
        if !std::mem::replace(&mut self.retiring, true) {
            frame::put_goaway(self.output.control(), self.last_stream, reason::NO_ERROR, "the server stops");
        }
    }

    /// Whether nothing more will happen but writing what waits.
    pub(super) fn is_finished(&self) -> bool {
        self.gone || self.broken.is_some() || (self.retiring && self.streams.is_empty())
    }

    pub(super) fn outcome(&self) -> Result<(), Fault> {
        self.broken.map_or(Ok(()), |(reason, why)| Err(Fault::Protocol(reason, why)))
    }

    /// Some time has passed.
    pub(super) fn tick(&mut self) -> Result<(), Fault> {
        self.ticks += 1;
        let silent = self.ticks - self.heard;
        if silent >= SILENT_TICKS_MAX {
            return Err(Fault::Io(io::ErrorKind::TimedOut.into()));
        }
        if silent == PING_TICKS {
            frame::put_ping(self.output.control(), *b"alive???", 0);
        }
        self.output.shrink();
        self.rest.shrink_to_fit();
        self.settings = 0;
        if self.block.as_ref().is_some_and(|block| self.ticks - block.since >= BLOCK_TICKS_MAX) {
            self.fail((reason::ENHANCE_YOUR_CALM, "a header block took too long"));
        }
        let late = |stream: &Stream| self.ticks - stream.since >= COLLECT_TICKS_MAX;
        let late = self
            .streams
            .iter()
            .filter(|(_, stream)| matches!(stream.request, Request::Collecting(..)) && late(stream));
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.refuse(id, Status::new(Code::DeadlineExceeded, "grpc: the request did not arrive in time"));
        }
        // An answer that nobody takes holds memory, and what it is read from.
        let stalled = |stream: &Stream| {
            !stream.is_endless && !stream.pending.is_empty() && self.ticks - stream.moved >= STALL_TICKS_MAX
        };
        let stalled = self.streams.iter().filter(|(_, stream)| stalled(stream)).map(|(id, _)| *id);
        for id in stalled.collect::<Vec<_>>() {
            self.reset(id, reason::ENHANCE_YOUR_CALM);
        }
        Ok(())
    }

    /// Ends the connection when too many calls run whose streams are gone.
    pub(super) fn bound_orphans(&mut self, running: usize) {
        if running > self.streams.len() + ORPHANS_MAX {
            self.fail((reason::ENHANCE_YOUR_CALM, "too many calls were reset while they ran"));
        }
    }

    /// Takes bytes: whole frames at once, the beginning of another for later.
    pub(super) fn take(&mut self, arrived: &[u8]) {
        if self.rest.is_empty() {
            let used = self.take_frames(arrived);
            self.rest.extend_from_slice(&arrived[used..]);
        } else {
            let mut held = std::mem::take(&mut self.rest);
            held.extend_from_slice(arrived);
            let used = self.take_frames(&held);
            held.drain(..used);
            if held.capacity() > 2 * READ_MAX || held.is_empty() {
                held.shrink_to_fit();
            }
            self.rest = held;
        }
    }

    /// The messages that the jobs name, before others come.
    pub(super) fn take_messages(&mut self) -> Bytes {
        std::mem::take(&mut self.messages).into()
    }

    /// How many bytes were whole frames.
    fn take_frames(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while self.broken.is_none()
            && let Some(head) = Head::read(&bytes[used..])
        {
            if head.length > frame::PAYLOAD_MAX {
                self.fail((reason::FRAME_SIZE_ERROR, "a frame is longer than 16,384 bytes"));
                break;
            }
            let Some(payload) = bytes.get(used + HEAD..used + HEAD + head.length) else { break };
            used += HEAD + head.length;
            if let Err(wrong) = self.on_frame_in(head, payload) {
                self.fail(wrong);
            }
        }
        used
    }

    fn fail(&mut self, wrong: (u32, &'static str)) {
        if self.broken.is_none() {
            frame::put_goaway(self.output.control(), self.last_stream, wrong.0, wrong.1);
            self.broken = Some(wrong);
        }
    }

    fn on_frame_in(&mut self, head: Head, payload: &[u8]) -> Checked {
        if let Some(block) = &self.block
            && (head.kind != kind::CONTINUATION || head.stream != block.stream)
        {
            return Err((reason::PROTOCOL_ERROR, "a header block was interrupted"));
        }
        if !self.greeted && head.kind != kind::SETTINGS {
            return Err((reason::PROTOCOL_ERROR, "the first frame must be SETTINGS"));
        }
        match head.kind {
            kind::DATA => self.on_data(head, payload),
            kind::HEADERS => self.on_headers(head, payload),
            kind::CONTINUATION => self.on_continuation(head, payload),
            kind::RST_STREAM => self.on_reset(head),
            kind::SETTINGS => self.on_settings(head, payload),
            kind::PING => self.on_ping(head, payload),
            kind::WINDOW_UPDATE => self.on_window_update(head, payload),
            // The client will begin no more streams; those that there are go on.
            kind::GOAWAY => Ok(()),
            kind::PUSH_PROMISE => Err((reason::PROTOCOL_ERROR, "clients do not push")),
            // Priorities are deprecated, unknown kinds are to be passed over (RFC 9113, 5.3.2 and 5.5).
            _ => Ok(()),
        }
    }

    fn on_headers(&mut self, head: Head, payload: &[u8]) -> Checked {
        if head.stream.is_multiple_of(2) {
            return Err((reason::PROTOCOL_ERROR, "a client's streams have odd numbers"));
        }
        let mut block = frame::unpadded(head, payload)
            .ok_or((reason::PROTOCOL_ERROR, "there is more padding than payload"))?;
        if head.has(flag::PRIORITY) {
            block = block.get(5..).ok_or((reason::FRAME_SIZE_ERROR, "HEADERS is too short"))?;
        }
        let is_last = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.on_block(head.stream, is_last, block);
        }
        let (stream, since) = (head.stream, self.ticks);
        self.block = Some(Block { stream, is_last, parts: 1, bytes: block.to_vec(), since });
        Ok(())
    }

    fn on_continuation(&mut self, head: Head, payload: &[u8]) -> Checked {
        let Some(mut block) = self.block.take() else {
            return Err((reason::PROTOCOL_ERROR, "there is nothing to be continued"));
        };
        if block.bytes.len() + payload.len() > BLOCK_MAX {
            return Err((reason::ENHANCE_YOUR_CALM, "a header block is longer than 65,536 bytes"));
        }
        block.parts += 1;
        if block.parts > BLOCK_PARTS_MAX {
            return Err((reason::ENHANCE_YOUR_CALM, "a header block comes in too many frames"));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(flag::END_HEADERS) {
            return self.on_block(block.stream, block.is_last, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    fn on_block(&mut self, id: u32, is_last: bool, block: &[u8]) -> Checked {
        let wrong = |error: synod_http2::hpack::HpackError| {
            tracing::debug!(%error, "a header block cannot be read");
            (reason::COMPRESSION_ERROR, "a header block cannot be read")
        };
        if id <= self.last_stream {
            self.reader.trailers(block).map_err(wrong)?;
            return match self.streams.contains_key(&id) {
                true if is_last => self.on_end(id),
                true => {
                    self.reset(id, reason::PROTOCOL_ERROR);
                    Ok(())
                }
                false => Ok(()),
            };
        }
        self.last_stream = id;
        let asked = self.reader.request(block).map_err(wrong)?;
        if self.retiring || self.streams.len() >= self.streams_max {
            frame::put_reset(self.output.control(), id, reason::REFUSED_STREAM);
            return Ok(());
        }
        match asked {
            Asked::Malformed => frame::put_reset(self.output.control(), id, reason::PROTOCOL_ERROR),
            Asked::TooLarge => {
                self.open(id, Request::Done { closed: is_last });
                self.push(id, Piece::Fields { status: Some(431), fields: Box::default(), is_last: true });
            }
            Asked::Call(call) => {
                self.open(id, Request::Collecting(call, None));
                if is_last {
                    return self.on_end(id);
                }
            }
            Asked::Plain(request) => {
                let announced = request.headers().get(header::CONTENT_LENGTH);
                let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
                let (upload, body) = Upload::new(id, announced, &self.taken, self.intake.share());
                if is_last {
                    upload.end();
                }
                self.open(id, Request::Uploading(upload));
                let (abort, registration) = AbortHandle::new_pair();
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.abort = Some(abort);
                }
                let mut request = Box::new(request.map(|()| body));
                request.extensions_mut().insert(OnLane { lane: self.lane.clone(), call: id });
                self.jobs.push(Job::Route(id, request, registration));
            }
        }
        Ok(())
    }

    fn open(&mut self, id: u32, request: Request) {
        let stream = Stream::new(request, i64::from(STREAM_WINDOW), self.output.stream_window, self.ticks);
        self.streams.insert(id, stream);
    }

    fn on_data(&mut self, head: Head, payload: &[u8]) -> Checked {
        let id = head.stream;
        if id == 0 || id > self.last_stream {
            return Err((reason::PROTOCOL_ERROR, "DATA on a stream that has not begun"));
        }
        // Padding counts, too (6.9.1).
        let length = head.length as u32;
        self.receive_window -= i64::from(length);
        if self.receive_window < 0 {
            return Err((reason::FLOW_CONTROL_ERROR, "more DATA than the connection's window"));
        }
        let data = frame::unpadded(head, payload)
            .ok_or((reason::PROTOCOL_ERROR, "there is more padding than payload"))?;
        let Some(stream) = self.streams.get_mut(&id) else {
            // What was under way when the stream ended.
            self.receive_owed += length;
            return Ok(());
        };
        stream.receive_window -= i64::from(length);
        if stream.receive_window < 0 {
            self.receive_owed += length;
            self.reset(id, reason::FLOW_CONTROL_ERROR);
            return Ok(());
        }
        let is_last = head.has(flag::END_STREAM);
        match &mut stream.request {
            Request::Collecting(call, None) if is_last && is_one_message(data) => {
                // The usual case: the whole request in one frame.
                let from = self.messages.len();
                self.messages.extend_from_slice(&data[PREFIX..]);
                self.jobs.push(Job::Call(id, call.clone(), Message::Among(from..self.messages.len())));
                stream.request = Request::Done { closed: true };
                self.receive_owed += length;
                return Ok(());
            }
            Request::Collecting(_, held) => {
                self.receive_owed += length;
                stream.receive_owed += length;
                let held = held.get_or_insert_with(|| {
                    let deframer = Deframer::new(self.message_max);
                    Box::new(Held { deframer, share: self.intake.share(), message: None })
                });
                if let Err(status) = held.push(data) {
                    stream.request = Request::Done { closed: is_last };
                    self.answer(id, Err(status));
                    return Ok(());
                }
                give_back(&mut self.output, id, stream);
            }
            Request::Uploading(upload) => {
                if !upload.push(data) {
                    self.receive_owed += length;
                    self.reset(id, reason::ENHANCE_YOUR_CALM);
                    return Ok(());
                }
                let padding = length - data.len() as u32;
                self.receive_owed += padding;
                stream.receive_owed += padding;
            }
            Request::Done { closed } => {
                self.receive_owed += length;
                if std::mem::replace(closed, *closed || is_last) {
                    self.reset(id, reason::STREAM_CLOSED);
                    return Ok(());
                }
            }
        }
        if is_last { self.on_end(id) } else { Ok(()) }
    }

    /// The client has said everything on a stream.
    fn on_end(&mut self, id: u32) -> Checked {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if let Request::Uploading(upload) = &stream.request {
            upload.end();
            return Ok(());
        }
        match std::mem::replace(&mut stream.request, Request::Done { closed: true }) {
            Request::Collecting(call, held) => {
                let message = match held {
                    Some(held) => held.finish(),
                    None => Err(crate::service::stream::no_request()),
                };
                match message {
                    Ok(message) => self.jobs.push(Job::Call(id, call, Message::Apart(message))),
                    Err(status) => self.answer(id, Err(status)),
                }
            }
            // Trailers after an answer that came early.
            Request::Done { .. } | Request::Uploading(_) => {}
        }
        Ok(())
    }

    fn on_reset(&mut self, head: Head) -> Checked {
        if head.length != 4 {
            return Err((reason::FRAME_SIZE_ERROR, "RST_STREAM has four bytes"));
        }
        if head.stream == 0 || head.stream > self.last_stream {
            return Err((reason::PROTOCOL_ERROR, "RST_STREAM on a stream that has not begun"));
        }
        self.forget(head.stream);
        Ok(())
    }

    fn on_ping(&mut self, head: Head, payload: &[u8]) -> Checked {
        let payload: [u8; 8] =
            payload.try_into().map_err(|_| (reason::FRAME_SIZE_ERROR, "PING has eight bytes"))?;
        if !head.has(flag::ACK) {
            frame::put_ping(self.output.control(), payload, flag::ACK);
        }
        Ok(())
    }

    /// Ends a stream from our side.
    pub(super) fn reset(&mut self, id: u32, why: u32) {
        frame::put_reset(self.output.control(), id, why);
        self.forget(id);
    }

    fn forget(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.output.forget(&stream);
        if let Some(abort) = stream.abort {
            abort.abort();
        }
        if let Request::Uploading(upload) = stream.request {
            upload.fail();
        }
    }
}

/// Whether a frame's data is exactly one message that is not compressed.
fn is_one_message(data: &[u8]) -> bool {
    let Some([flag, length @ ..]) = data.first_chunk::<PREFIX>() else { return false };
    *flag == 0 && u32::from_be_bytes(*length) as usize == data.len() - PREFIX
}
