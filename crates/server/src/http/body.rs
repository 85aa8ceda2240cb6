//! What a response carries: nothing, some bytes, one gRPC message, or a stream of them.
//!
//! A stream's handler lives inside the body and is polled by it. So there is no task to forget: the client takes, the
//! handler runs; the client stalls, the handler stalls; the client goes away, everything is dropped.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};

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
pub struct Body(Kind);

enum Kind {
    Done,
    /// Plain bytes.
    Full(Bytes),
    /// The bytes of one message, then the trailers of success.
    Unary(Bytes),
    /// A message in pieces, its prefix first, then the trailers of success.
    Pieces(Option<Bytes>, Box<dyn Iterator<Item = Bytes> + Send>),
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
}

impl Body {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Body {
        Body(Kind::Done)
    }

    /// Plain bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        Body(if bytes.is_empty() { Kind::Done } else { Kind::Full(bytes) })
    }

    /// One gRPC message and the trailers of success.
    #[must_use]
    pub fn unary(payload: Payload) -> Body {
        Body(match payload {
            Payload::Whole(framed) => Kind::Unary(framed.framed()),
            Payload::Pieces(Pieces { length, pieces }) => {
                let mut prefix = BytesMut::new();
                put_prefix(&mut prefix, length);
                Kind::Pieces(Some(prefix.freeze()), pieces)
            }
        })
    }

    /// What `handler` puts into `outbox`, dressed by `form`.
    #[must_use]
    pub fn streaming(handler: Handler, outbox: Outbox, form: Box<dyn Form>, tally: Tally) -> Body {
        let frames = VecDeque::new();
        Body(Kind::Streaming(Box::new(Streaming {
            handler: Some(handler),
            outbox,
            form,
            frames,
            tally: Some(tally),
        })))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match &mut self.0 {
            Kind::Streaming(streaming) => return streaming.poll(context).map(|frame| frame.map(Ok)),
            Kind::Done => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Done;
                Some(Frame::data(bytes))
            }
            Kind::Unary(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Trailers;
                Some(Frame::data(bytes))
            }
            Kind::Pieces(prefix, pieces) => match prefix.take().or_else(|| pieces.next()) {
                Some(piece) => Some(Frame::data(piece)),
                None => {
                    self.0 = Kind::Done;
                    Some(Frame::trailers(success()))
                }
            },
            Kind::Trailers => {
                self.0 = Kind::Done;
                Some(Frame::trailers(success()))
            }
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
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
    trailers.insert("grpc-message", percent_encoded(&status.message));
    trailers
}

/// gRPC's percent-encoding of a message: everything but printable ASCII, and the percent sign.
fn percent_encoded(message: &str) -> HeaderValue {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    if message.bytes().all(plain) {
        return HeaderValue::from_str(message).unwrap_or_else(|_| HeaderValue::from_static(""));
    }
    let mut out = String::with_capacity(message.len() * 2);
    for byte in message.bytes() {
        if plain(byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    HeaderValue::from_str(&out).unwrap_or_else(|_| HeaderValue::from_static(""))
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
        assert_eq!(percent_encoded("etcdserver: no leader"), "etcdserver: no leader");
        assert_eq!(percent_encoded("100% ü\n"), "100%25 %C3%BC%0A");
    }
}
