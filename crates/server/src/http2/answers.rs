//! Answers out: what calls come to, turned into pieces that wait for their turn and their windows.
//!
//! An answer that fits into all windows leaves at once and is never held. What has to wait is counted, for all connections together
//! (`service::intake`): when a great deal waits for clients that do not read, bodies are asked for one piece at a time, and past
//! the bound an answer is dropped, which its client is told.

use bytes::Bytes;
use futures_util::future::{AbortHandle, AbortRegistration};
use http::Response;
use http_body::{Body as HttpBody, Frame};
use synod_http2::frame::reason;

use super::connection::Connection;
use super::output::Turn;
use super::stream::{Piece, Request};
use crate::http::body::Body;
use crate::service::lane::Carried;
use crate::service::payload::Payload;
use crate::status::{self, Status};

/// A body is asked for more while less than this waits to be sent of it.
const BODY_WAITING_MAX: usize = 64 * 1024;

/// While little memory is left, a client for whom more than this waits is answered nothing that takes more.
const HOARD_BYTES: usize = 1 << 20;

impl Connection {
    /// Answers a call before all of its request is here.
    pub(super) fn refuse(&mut self, id: u32, status: Status) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.request = Request::Done { closed: false };
        }
        self.answer(id, Err(status));
    }

    /// Whether so much waits for this client, and so little memory is left for all, that another answer would be made to be thrown away.
    pub(super) fn is_hoarding(&self) -> bool {
        self.backlog.is_tight() && self.output.held() > HOARD_BYTES
    }

    /// The answer to a call on the short way.
    pub(super) fn answer(&mut self, id: u32, answer: Result<Payload, Status>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match answer {
            Ok(Payload::Whole(framed)) => {
                let bytes = framed.framed();
                if self.output.put_unary(id, stream, &bytes) {
                    self.streams.remove(&id);
                    return;
                }
                if self.backlog.set(self.output.held() + bytes.len()).is_err() {
                    return self.answer(id, Err(status::not_taken()));
                }
                self.output.push(stream, Piece::GrpcHead);
                self.output.push(stream, Piece::Data { bytes, is_last: false });
                self.output.push(stream, Piece::GrpcOk);
            }
            Ok(pieces) => {
                self.output.push(stream, Piece::GrpcHead);
                stream.body = Some(Body::unary(pieces));
            }
            Err(status) => {
                if stream.is_closed_by_peer() && self.output.put_failure(id, stream, &status) {
                    self.streams.remove(&id);
                    return;
                }
                self.output.push(stream, Piece::Failure(Box::new(status)));
            }
        }
        stream.moved = self.ticks;
        self.output.queue(id, stream);
    }

    /// The head of an answer on the long way.
    pub(super) fn respond(&mut self, id: u32, response: Response<Body>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (head, body) = response.into_parts();
        let is_last = body.is_end_stream();
        let status = Some(head.status.as_u16());
        self.output.push(stream, Piece::Fields { status, fields: Box::new(head.headers), is_last });
        stream.moved = self.ticks;
        stream.is_endless = body.is_endless();
        stream.body = (!is_last).then_some(body);
        self.output.queue(id, stream);
    }

    /// More of an answer's body; none is its end.
    pub(super) fn on_frame(&mut self, id: u32, body: Body, frame: Option<Frame<Bytes>>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let is_last = frame.is_none() || body.is_end_stream();
        if stream.pending.is_empty() {
            stream.moved = self.ticks;
        }
        match frame.map(Frame::into_data) {
            None => self.output.push(stream, Piece::Data { bytes: Bytes::new(), is_last }),
            Some(Ok(bytes)) => {
                let held = self.backlog.set(self.output.held() + bytes.len());
                // What has no end is asked for little at a time, and so bounded by the number of streams.
                if held.is_err() && !stream.is_endless && bytes.len() > BODY_WAITING_MAX {
                    return self.reset(id, reason::ENHANCE_YOUR_CALM);
                }
                self.output.push(stream, Piece::Data { bytes, is_last });
            }
            Some(Err(frame)) => {
                let fields = frame.into_trailers().unwrap_or_default();
                let plain =
                    fields.len() == 1 && fields.get("grpc-status").is_some_and(|status| status == "0");
                let piece = match plain {
                    true => Piece::GrpcOk,
                    false => Piece::Fields { status: None, fields: Box::new(fields), is_last: true },
                };
                self.output.push(stream, piece);
            }
        }
        stream.body = (!is_last).then_some(body);
        self.output.queue(id, stream);
    }

    /// Whether there is something to be written that has room.
    pub(super) fn has_turns(&self) -> bool {
        self.output.has_turns()
    }

    /// The next watch stream that has something to say, and room for it.
    pub(super) fn next_rung(&mut self) -> Option<Carried> {
        while !self.output.is_full() {
            let (watched, id) = self.rung.pop_front()?;
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.pending.is_empty() {
                return Some((watched, id));
            }
            stream.held_up = Some(watched);
        }
        None
    }

    /// One message of a stream of them; whether some of it waits for its turn.
    pub(super) fn put_message(&mut self, id: u32, payload: Payload) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        if let Payload::Whole(framed) = &payload
            && self.output.put_message(id, stream, framed.as_ref())
        {
            stream.moved = self.ticks;
            return false;
        }
        for bytes in payload.framed() {
            self.output.push(stream, Piece::Data { bytes, is_last: false });
        }
        self.output.queue(id, stream);
        true
    }

    pub(super) fn push(&mut self, id: u32, piece: Piece) {
        if let Some(stream) = self.streams.get_mut(&id) {
            self.output.push(stream, piece);
            self.output.queue(id, stream);
        }
    }

    /// Writes what may be written, stream by stream; gives the bodies that there is room to ask for more.
    pub(super) fn pump(&mut self) -> Vec<(u32, Body, AbortRegistration)> {
        let mut wanted = Vec::new();
        // What grows beyond the bound here is bounded otherwise: by the number of streams and by what one may hold.
        let _ = self.backlog.set(self.output.held());
        let tight = self.backlog.is_tight();
        self.output.be_tight(tight);
        let enough = if tight { 1 } else { BODY_WAITING_MAX };
        while !self.output.is_full()
            && let Some(id) = self.output.next_turn()
        {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let before = stream.pending_bytes;
            let turn = self.output.take_turn(id, stream);
            if stream.pending_bytes < before {
                stream.moved = self.ticks;
            }
            match turn {
                Turn::More => self.output.turn_again(id),
                Turn::Full => {
                    self.output.turn_first(id);
                    break;
                }
                Turn::Written | Turn::Blocked => stream.is_queued = false,
                Turn::Ended if stream.is_closed_by_peer() => {
                    self.output.forget(stream);
                    self.streams.remove(&id);
                    continue;
                }
                Turn::Ended => {
                    // The rest of the request is not wanted, and that is no error (8.1).
                    self.reset(id, reason::NO_ERROR);
                    continue;
                }
            }
            if stream.pending.is_empty()
                && let Some(watched) = stream.held_up.take()
            {
                self.rung.push_back((watched, id));
            }
            if stream.pending_bytes < enough
                && let Some(body) = stream.body.take()
            {
                let (abort, registration) = AbortHandle::new_pair();
                stream.abort = Some(abort);
                wanted.push((id, body, registration));
            }
        }
        wanted
    }
}
