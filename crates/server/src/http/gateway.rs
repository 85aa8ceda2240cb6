//! The JSON gateway: `POST /v3/...` with a JSON object, answered with one, or with a line for each message of a stream.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use prost_reflect::MessageDescriptor;
use synod_api::{Method, Shape};

use super::body::{Body, Form, Upload};
use super::json::{self, Objects};
use crate::service::backend::Backend;
use crate::service::intake::Share;
use crate::service::metadata::Metadata;
use crate::service::payload::{Payload, Pieces};
use crate::service::session;
use crate::service::stream::{Handler, Inbox, Outbox, Source};
use crate::service::{CONFIRMATIONS, Service};
use crate::status::{self, Code, Status};

/// A request must have arrived whole this long after its headers.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers a request below `/v3/`.
pub(super) async fn serve<B: Backend>(
    service: &Arc<Service<B>>,
    path: &str,
    request: Request<impl Upload>,
) -> Response<Body> {
    let Some(method) = Method::by_rest(path) else {
        return refuse(&Status::new(Code::NotFound, "Not Found"));
    };
    if request.method() != http::Method::POST {
        return refuse(&Status::new(Code::Unimplemented, "Method Not Allowed"));
    }
    let metadata = match Metadata::read(request.headers()) {
        Ok(metadata) => metadata,
        Err(status) => return refuse(&status),
    };
    let turn = service.gateway_turn().await;
    // Base64 makes four bytes of three, and names and numbers take room too.
    let body_max = (service.options().request_bytes_max + 512 * 1024) * 2;
    let tally = service.metrics().start(method, metadata.client_version());
    match method.shape() {
        Shape::Unary => {
            let answer = unary(service, method, &metadata, request.into_body(), body_max).await;
            tally.end(answer.as_ref().map_or_else(|status| status.code, |_| Code::Ok));
            match answer {
                Ok(body) => {
                    let mut response = respond(StatusCode::OK, body.holding(turn));
                    response.headers_mut().insert(session::HEADER, service.token());
                    if let Some(confirmations) = service.confirmations(method) {
                        response.headers_mut().insert(CONFIRMATIONS, confirmations);
                    }
                    response
                }
                Err(status) => refuse(&status),
            }
        }
        Shape::ServerStream | Shape::BidiStream => {
            let source = JsonSource {
                body: request.into_body(),
                objects: Objects::new(body_max),
                share: service.intake().share(),
                descriptor: method.input(),
            };
            let outbox = Outbox::default();
            let timeout = metadata.timeout;
            let handler = service.stream(method, metadata, Inbox::new(source), outbox.clone());
            let mut handler: Handler = match timeout {
                None => handler,
                Some(timeout) => Box::pin(async move {
                    let ended = tokio::time::timeout(timeout, handler).await;
                    ended.unwrap_or_else(|_| Err(status::deadline_exceeded()))
                }),
            };
            // A stream that fails before its first message is an ordinary failure, with an HTTP status of its own.
            if let Some(Err(status)) = first_word(&mut handler, &outbox).await {
                tally.end(status.code);
                return refuse(&status);
            }
            let form = Box::new(JsonForm { descriptor: method.output() });
            respond(StatusCode::OK, Body::streaming(method, handler, outbox, form, tally).holding(turn))
        }
    }
}

async fn unary<B: Backend>(
    service: &Arc<Service<B>>,
    method: Method,
    metadata: &Metadata,
    body: impl Upload,
    body_max: usize,
) -> Result<Body, Status> {
    let calling = async {
        let text = tokio::time::timeout(BODY_TIMEOUT, read(body, body_max, service.intake().share())).await;
        let text =
            text.map_err(|_| Status::new(Code::DeadlineExceeded, "the request did not arrive in time"))??;
        let message = json::to_protobuf(&text, method.input())?;
        service.unary(method, metadata, message).await
    };
    let payload = match metadata.timeout {
        None => calling.await?,
        Some(timeout) => {
            tokio::time::timeout(timeout, calling).await.map_err(|_| status::deadline_exceeded())??
        }
    };
    Ok(match payload {
        Payload::Whole(framed) => {
            let mut json = Vec::new();
            json::from_protobuf(framed.message(), method.output(), &mut json);
            Body::full(json)
        }
        Payload::Pieces(pieces) => Body::pieces(in_pieces(pieces, method.output())),
    })
}

/// A large answer as JSON, without ever being whole: each of its pieces is a message of its own, with some of the fields, and
/// repeated fields in one run. So is the JSON of each, but for the braces.
fn in_pieces(pieces: Pieces, descriptor: MessageDescriptor) -> impl Iterator<Item = Bytes> + Send {
    let mut pieces = pieces.pieces;
    let mut joiner = json::Joiner::default();
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut out = Vec::new();
        match pieces.next() {
            Some(piece) => {
                let mut json = Vec::new();
                json::from_protobuf(piece, descriptor.clone(), &mut json);
                joiner.add(&json, &mut out);
            }
            None => {
                ended = true;
                joiner.end(&mut out);
            }
        }
        Some(out.into())
    })
}

/// The whole body, unless it is too long.
async fn read(mut body: impl Upload, body_max: usize, mut share: Share) -> Result<Vec<u8>, Status> {
    let announced = http_body::Body::size_hint(&body).lower();
    if announced > body_max as u64 {
        return Err(json::too_large(usize::try_from(announced).unwrap_or(usize::MAX), body_max));
    }
    // What is announced is believed when it arrives.
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Status::new(Code::Canceled, "the client went away"))?;
        if let Ok(data) = frame.into_data() {
            if text.len() + data.len() > body_max {
                return Err(json::too_large(text.len() + data.len(), body_max));
            }
            text.extend_from_slice(&data);
            share.set(text.len())?;
        }
    }
    Ok(text)
}

/// Lets the handler run until it has said something, or has ended.
async fn first_word(handler: &mut Handler, outbox: &Outbox) -> Option<Result<(), Status>> {
    let word = std::future::poll_fn(|context| match handler.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if outbox.is_empty() => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    })
    .await;
    match word {
        // What was said before the failure is still to be told, and then the failure.
        Some(result) if !outbox.is_empty() || result.is_ok() => {
            *handler = Box::pin(std::future::ready(result));
            None
        }
        other => other,
    }
}

pub(super) fn refuse(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(code, Body::full(json::failure(status)))
}

fn respond(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// One line of JSON for each message.
struct JsonForm {
    descriptor: MessageDescriptor,
}

impl Form for JsonForm {
    fn message(&mut self, payload: Payload, frames: &mut VecDeque<Frame<Bytes>>) {
        let mut line = b"{\"result\":".to_vec();
        json::from_protobuf(payload.message(), self.descriptor.clone(), &mut line);
        line.extend_from_slice(b"}\n");
        frames.push_back(Frame::data(line.into()));
    }

    fn end(&mut self, result: &Result<(), Status>, frames: &mut VecDeque<Frame<Bytes>>) {
        if let Err(status) = result {
            frames.push_back(Frame::data(json::stream_failure(status).into()));
        }
    }
}

/// The JSON objects of a request's body.
struct JsonSource<T> {
    body: T,
    objects: Objects,
    share: Share,
    descriptor: MessageDescriptor,
}

impl<T: Upload> JsonSource<T> {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(object) = self.objects.next()? {
                return json::to_protobuf(&object, self.descriptor.clone()).map(Some);
            }
            self.share.set(self.objects.unfinished())?;
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.objects.push(&data);
                    }
                }
                Some(Err(_)) => return Err(Status::new(Code::Canceled, "the client went away")),
                None if self.objects.unfinished() > 0 => {
                    return Err(Status::new(Code::InvalidArgument, "the body ended inside an object"));
                }
                None => return Ok(None),
            }
        }
    }
}

impl<T: Upload> Source for JsonSource<T> {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Status>> + Send + '_>> {
        Box::pin(JsonSource::next(self))
    }
}
