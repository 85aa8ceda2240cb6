//! What a response carries: nothing, some bytes, one gRPC message, or a stream of them.
//!
//! A stream's handler lives inside the body and is polled by it. So there is no task to forget: the client takes, the
//! handler runs; the client stalls, the handler stalls; the client goes away, everything is dropped.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use synod_api::Method;
use tokio::sync::OwnedSemaphorePermit;

use crate::metrics::Tally;
use crate::service::backend::Backend;
use crate::service::payload::{Payload, Pieces, put_prefix};
use crate::service::stream::{Handler, Outbox};
use crate::service::{Service, session};
use crate::status::{Code, Status};

/// The body of every request, whatever it travels over.
pub trait Upload: HttpBody<Data = Bytes, Error: Send> + Send + Unpin + 'static {}

impl<T: HttpBody<Data = Bytes, Error: Send> + Send + Unpin + 'static> Upload for T {}

/// The body of every response.
pub struct Body {
    kind: Kind,
    /// What must live as long.
    _turn: Option<OwnedSemaphorePermit>,
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Body {
        Body { kind, _turn: None }
    }
}

enum Kind {
    Done,
    /// Plain bytes.
    Full(Bytes),
    /// The bytes of one message, then the trailers of success.
    Unary(Bytes),
    /// A message in pieces, its prefix first, then the trailers of success.
    Pieces(Option<Bytes>, Box<dyn Iterator<Item = Bytes> + Send>),
    /// Bytes in pieces, and no trailers.
    Plain(Box<dyn Iterator<Item = Bytes> + Send>),
    Trailers,
    Streaming(Box<Streaming>),
}

/// How messages of a stream are dressed.
pub trait Form: Send {
    /// One message.
    fn message(&mut self, payload: Payload, frames: &mut VecDeque<Frame<Bytes>>);
    /// The end, well or not.
    fn end(&mut self, result: &Result<(), Status>, frames: &mut VecDeque<Frame<Bytes>>);
}

/// A stream of messages, and whoever makes them.
struct Streaming {
    handler: Option<Handler>,
    outbox: Outbox,
    form: Box<dyn Form>,
    frames: VecDeque<Frame<Bytes>>,
    tally: Option<Tally>,
    is_endless: bool,
}

impl Body {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Body {
        Kind::Done.into()
    }

    /// Plain bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        if bytes.is_empty() { Kind::Done.into() } else { Kind::Full(bytes).into() }
    }

    /// One gRPC message and the trailers of success.
    #[must_use]
    pub fn unary(payload: Payload) -> Body {
        let kind = match payload {
            Payload::Whole(framed) => Kind::Unary(framed.framed()),
            Payload::Pieces(Pieces { length, pieces }) => {
                let mut prefix = BytesMut::new();
                put_prefix(&mut prefix, length);
                Kind::Pieces(Some(prefix.freeze()), pieces)
            }
        };
        kind.into()
    }

    /// Bytes in pieces.
    #[must_use]
    pub fn pieces(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
        Kind::Plain(Box::new(pieces)).into()
    }

    /// The same body, which keeps a turn until it has been said.
    #[must_use]
    pub fn holding(self, turn: Option<OwnedSemaphorePermit>) -> Body {
        Body { kind: self.kind, _turn: turn }
    }

    /// What `handler` puts into `outbox`, dressed by `form`.
    #[must_use]
    pub fn streaming(
        method: Method,
        handler: Handler,
        outbox: Outbox,
        form: Box<dyn Form>,
        tally: Tally,
    ) -> Body {
        let frames = VecDeque::new();
        let is_endless = method.is_endless();
        let tally = Some(tally);
        let streaming = Streaming { handler: Some(handler), outbox, form, frames, tally, is_endless };
        Kind::Streaming(Box::new(streaming)).into()
    }

    /// The next frame of a body that waits for nobody.
    pub(crate) fn next_now(&mut self) -> Option<Frame<Bytes>> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(self).poll_frame(&mut context) {
            Poll::Ready(frame) => frame.map(|frame| frame.unwrap_or_else(|never| match never {})),
            Poll::Pending => None,
        }
    }

    /// Whether it ends only when somebody ends it.
    #[must_use]
    pub fn is_endless(&self) -> bool {
        matches!(&self.kind, Kind::Streaming(streaming) if streaming.is_endless)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match &mut self.kind {
            Kind::Streaming(streaming) => return streaming.poll(context).map(|frame| frame.map(Ok)),
            Kind::Done => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Done;
                Some(Frame::data(bytes))
            }
            Kind::Unary(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Trailers;
                Some(Frame::data(bytes))
            }
            Kind::Pieces(prefix, pieces) => match prefix.take().or_else(|| pieces.next()) {
                Some(piece) => Some(Frame::data(piece)),
                None => {
                    self.kind = Kind::Done;
                    Some(Frame::trailers(success()))
                }
            },
            Kind::Plain(pieces) => {
                let piece = pieces.next().map(Frame::data);
                if piece.is_none() {
                    self.kind = Kind::Done;
                }
                piece
            }
            Kind::Trailers => {
                self.kind = Kind::Done;
                Some(Frame::trailers(success()))
            }
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Done => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

impl Streaming {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Poll::Ready(Some(frame));
            }
            if let Some(payload) = self.outbox.take() {
                self.form.message(payload, &mut self.frames);
                continue;
            }
            let Some(handler) = &mut self.handler else { return Poll::Ready(None) };
            match handler.as_mut().poll(context) {
                // It may have said something before it stopped to wait.
                Poll::Pending if self.outbox.is_empty() => return Poll::Pending,
                Poll::Pending => {}
                Poll::Ready(result) => {
                    self.handler = None;
                    while let Some(payload) = self.outbox.take() {
                        self.form.message(payload, &mut self.frames);
                    }
                    self.form.end(&result, &mut self.frames);
                    if let Some(tally) = self.tally.take() {
                        tally.end(result.map_or_else(|status| status.code, |()| Code::Ok));
                    }
                }
            }
        }
    }
}

/// The trailers of a call that went well.
fn success() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

/// The trailers of a call that failed.
#[must_use]
pub fn failure(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(status.code as u16));
    let message = HeaderValue::from_bytes(&percent_encoded(&status.message));
    trailers.insert("grpc-message", message.expect("printable ASCII is a header's value"));
    trailers
}

/// gRPC's percent-encoding of a message: everything but printable ASCII, and the percent sign.
pub(crate) fn percent_encoded(message: &str) -> Cow<'_, [u8]> {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    if message.bytes().all(plain) {
        return Cow::Borrowed(message.as_bytes());
    }
    let mut out = Vec::with_capacity(message.len() * 2);
    for byte in message.bytes() {
        if plain(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    Cow::Owned(out)
}

/// Messages as gRPC has them.
#[derive(Default)]
pub struct GrpcForm {
    /// Gives the token that goes with the trailers.
    token: Option<Box<dyn Fn() -> HeaderValue + Send>>,
}

impl GrpcForm {
    /// The trailers are to carry a token.
    #[must_use]
    pub fn with_token<B: Backend>(service: Arc<Service<B>>) -> GrpcForm {
        GrpcForm { token: Some(Box::new(move || service.token())) }
    }
}

impl Form for GrpcForm {
    fn message(&mut self, payload: Payload, frames: &mut VecDeque<Frame<Bytes>>) {
        frames.extend(payload.framed().map(Frame::data));
    }

    fn end(&mut self, result: &Result<(), Status>, frames: &mut VecDeque<Frame<Bytes>>) {
        let mut trailers = match result {
            Ok(()) => success(),
            Err(status) => failure(status),
        };
        if let Some(token) = &self.token {
            trailers.insert(session::HEADER, token());
        }
        frames.push_back(Frame::trailers(trailers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with line breaks, percent signs or letters beyond ASCII survives the header.
    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(*percent_encoded("etcdserver: no leader"), *b"etcdserver: no leader");
        assert_eq!(*percent_encoded("100% ü\n"), *b"100%25 %C3%BC%0A");
    }
}
