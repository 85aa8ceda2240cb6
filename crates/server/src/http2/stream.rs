//! One stream: its request on the way in, its answer on the way out.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::AbortHandle;
use http::HeaderMap;
use synod_kv::watch::StreamId;

use super::request::Call;
use super::upload::Upload;
use crate::grpc::{self, Deframer};
use crate::http::body::Body;
use crate::service::intake::Share;
use crate::service::stream::no_request;
use crate::status::Status;

/// A stream from its HEADERS on until both sides have said everything.
pub(super) struct Stream {
    pub(super) request: Request,
    /// What the peer may still send before it is given more.
    pub(super) receive_window: i64,
    /// What was taken from `receive_window` and not given back yet.
    pub(super) receive_owed: u32,
    /// What we may still send.
    pub(super) send_window: i64,
    /// What is to be sent, in order.
    pub(super) pending: VecDeque<Piece>,
    /// The bytes of data in `pending`.
    pub(super) pending_bytes: usize,
    /// The rest of the answer, while there is no room for more of it.
    pub(super) body: Option<Body>,
    /// Ends what works on the answer on the long way.
    pub(super) abort: Option<AbortHandle>,
    /// Whether it stands in the list of those that have something to send.
    pub(super) is_queued: bool,
    /// The watch stream that has more to say as soon as what is pending was sent.
    pub(super) held_up: Option<StreamId>,
    /// The tick at which it began.
    pub(super) since: u32,
    /// The tick at which its client last took something of the answer.
    pub(super) moved: u32,
    /// Whether its answer ends only when somebody ends it: then its client may take its time.
    pub(super) is_endless: bool,
}

/// The request's side.
pub(super) enum Request {
    /// A unary call of which nothing, or not everything, has arrived.
    Collecting(Call, Option<Box<Held>>),
    /// Somebody reads it piece by piece.
    Uploading(Arc<Upload>),
    /// Everything has arrived, or what still comes matters no more.
    Done {
        /// Whether the peer has closed its side.
        closed: bool,
    },
}

/// The message of a unary call.
pub(super) enum Message {
    /// A part of what [`Connection::take_messages`](super::connection::Connection::take_messages) gives: nearly all calls come in one frame, many with one read.
    Among(Range<usize>),
    /// It came in several frames.
    Apart(Bytes),
}

impl Message {
    /// The message, which holds all the others in memory, too: for whoever is done with it at once.
    pub(super) fn within(self, messages: &Bytes) -> Bytes {
        match self {
            Message::Among(place) => messages.slice(place),
            Message::Apart(message) => message,
        }
    }

    /// The message alone.
    pub(super) fn apart(self, messages: &Bytes) -> Bytes {
        match self {
            Message::Among(place) => Bytes::copy_from_slice(&messages[place]),
            Message::Apart(message) => message,
        }
    }
}

/// A unary call's message that came in more than one piece.
pub(super) struct Held {
    pub(super) deframer: Deframer,
    pub(super) share: Share,
    /// The message, once it is whole, while the end of the stream is awaited.
    pub(super) message: Option<Bytes>,
}

impl Held {
    /// Takes another piece.
    ///
    /// # Errors
    /// What is wrong with the message, or that there is no room for it: the call is refused at once.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), Status> {
        self.deframer.push(Bytes::copy_from_slice(data));
        while let Some(message) = self.deframer.next()? {
            if self.message.replace(message).is_some() {
                return Err(grpc::several_messages());
            }
        }
        self.share.set(self.deframer.unfinished() + self.message.as_ref().map_or(0, Bytes::len))
    }

    /// The message, now that the client has said everything.
    pub(super) fn finish(self) -> Result<Bytes, Status> {
        match self.message {
            _ if self.deframer.unfinished() > 0 => Err(grpc::cut_message()),
            Some(message) => Ok(message),
            None => Err(no_request()),
        }
    }
}

/// A part of an answer.
pub(super) enum Piece {
    /// The head of a gRPC answer that goes well so far.
    GrpcHead,
    /// The end of a gRPC answer that went well.
    GrpcOk,
    /// The whole of a gRPC answer that failed.
    Failure(Box<Status>),
    /// Some other head or trailers; the status is only in a head.
    Fields { status: Option<u16>, fields: Box<HeaderMap>, is_last: bool },
    /// Data.
    Data { bytes: Bytes, is_last: bool },
}

impl Stream {
    pub(super) fn new(request: Request, receive_window: i64, send_window: i64, since: u32) -> Stream {
        Stream {
            request,
            receive_window,
            receive_owed: 0,
            send_window,
            pending: VecDeque::new(),
            pending_bytes: 0,
            body: None,
            abort: None,
            is_queued: false,
            held_up: None,
            since,
            moved: since,
            is_endless: false,
        }
    }

    /// Whether the peer will send nothing more on it.
    pub(super) fn is_closed_by_peer(&self) -> bool {
        match &self.request {
            Request::Collecting(..) => false,
            Request::Uploading(upload) => upload.has_ended(),
            Request::Done { closed } => *closed,
        }
    }
}
