//! gRPC over HTTP/2: from a request to the service and back.
//!
//! One framing of our own serves every method. The unary path is `(method, bytes) -> bytes` with a prefix of five bytes in front
//! of both, so that a leaner transport could take its place without touching anything else.

mod deframe;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use synod_api::{Method, Shape};

pub(crate) use self::deframe::Deframer;
use crate::http::body::{self, Body, GrpcForm, Upload};
use crate::service::backend::Backend;
use crate::service::intake::Share;
use crate::service::lane::OnLane;
use crate::service::metadata::Metadata;
use crate::service::session;
use crate::service::stream::{Handler, Inbox, Outbox, Source, no_request, poll_once};
use crate::service::{CONFIRMATIONS, Service};
use crate::status::{self, Code, Status};

/// A message may be larger than the largest request by this much, to be refused by name instead of by the transport.
pub(crate) const OVERHEAD: usize = 512 * 1024;

/// A unary request must have arrived whole this long after its headers.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a request says that it is gRPC.
#[must_use]
pub fn is_grpc<T>(request: &Request<T>) -> bool {
    let content = request.headers().get(header::CONTENT_TYPE);
    content.is_some_and(|content| match content.as_bytes().strip_prefix(b"application/grpc") {
        // `application/grpc-web` is something else.
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    })
}

/// Answers one call.
pub async fn serve<B: Backend>(
    service: &Arc<Service<B>>,
    mut request: Request<impl Upload>,
) -> Response<Body> {
    let Some(method) = Method::by_path(request.uri().path()) else {
        return refuse(&unknown(request.uri().path()));
    };
    if request.method() != http::Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    if let Some(encoding) = request.headers().get("grpc-encoding")
        && encoding != "identity"
    {
        let name = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
        let why = format!("grpc: Decompressor is not installed for grpc-encoding \"{name}\"");
        return refuse(&Status::new(Code::Unimplemented, why));
    }
    let metadata = match Metadata::read(request.headers()) {
        Ok(metadata) => metadata,
        Err(status) => {
            service.metrics().start(method, None).end(status.code);
            return refuse(&status);
        }
    };
    let tally = service.metrics().start(method, metadata.client_version());
    let message_max = service.options().request_bytes_max + OVERHEAD;
    let lane = request.extensions_mut().remove::<OnLane>();
    let frames = Frames {
        body: request.into_body(),
        deframer: Deframer::new(message_max),
        share: service.intake().share(),
    };
    match method.shape() {
        Shape::Unary => {
            let answer = match metadata.timeout {
                None => unary(service, method, &metadata, frames).await,
                Some(timeout) => {
                    match tokio::time::timeout(timeout, unary(service, method, &metadata, frames)).await {
                        Ok(answer) => answer,
                        Err(_) => Err(status::deadline_exceeded()),
                    }
                }
            };
            match answer {
                Ok(body) => {
                    tally.end(Code::Ok);
                    let mut response = respond(body);
                    if metadata.wants_token {
                        response.headers_mut().insert(session::HEADER, service.token());
                    }
                    if let Some(confirmations) = service.confirmations(method) {
                        response.headers_mut().insert(CONFIRMATIONS, confirmations);
                    }
                    response
                }
                Err(status) => {
                    tally.end(status.code);
                    refuse(&status)
                }
            }
        }
        Shape::ServerStream | Shape::BidiStream => {
            let outbox = Outbox::beside(lane);
            let timeout = metadata.timeout;
            let form = match metadata.wants_token {
                // A stream's token is that of its end: it comes with the trailers.
                true => GrpcForm::with_token(service.clone()),
                false => GrpcForm::default(),
            };
            let handler = service.stream(method, metadata, Inbox::new(frames), outbox.clone());
            let handler: Handler = match timeout {
                None => handler,
                Some(timeout) => Box::pin(async move {
                    let ended = tokio::time::timeout(timeout, handler).await;
                    ended.unwrap_or_else(|_| Err(status::deadline_exceeded()))
                }),
            };
            respond(Body::streaming(method, handler, outbox, Box::new(form), tally))
        }
    }
}

async fn unary<B: Backend>(
    service: &Arc<Service<B>>,
    method: Method,
    metadata: &Metadata,
    mut frames: Frames<impl Upload>,
) -> Result<Body, Status> {
    let message = frames.only().await?;
    let metrics = service.metrics();
    metrics.received_bytes.fetch_add(message.len() as u64, Relaxed);
    let payload = service.unary(method, metadata, message).await?;
    metrics.sent_bytes.fetch_add(payload.len() as u64, Relaxed);
    Ok(Body::unary(payload))
}

fn unknown(path: &str) -> Status {
    let mut parts = path.trim_start_matches('/').rsplitn(2, '/');
    let method = parts.next().unwrap_or_default();
    let service = parts.next().unwrap_or_default();
    let known = Method::ALL.iter().any(|known| known.service() == service);
    let why = match known {
        true => format!("unknown method {method} for service {service}"),
        false => format!("unknown service {service}"),
    };
    Status::new(Code::Unimplemented, why)
}

/// A request that ends too early.
pub(crate) fn cut_message() -> Status {
    Status::new(Code::Internal, "grpc: the stream ended inside a message")
}

/// A unary call that says more than it should.
pub(crate) fn several_messages() -> Status {
    Status::new(Code::Internal, "grpc: more than one message in a unary call")
}

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

fn respond(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

/// A failure before any message: status and headers in one frame.
fn refuse(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = body::failure(status);
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

fn plain(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// The messages of a request's body.
struct Frames<T> {
    body: T,
    deframer: Deframer,
    share: Share,
}

impl<T: Upload> Frames<T> {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.deframer.next()? {
                return Ok(Some(message));
            }
            self.share.set(self.deframer.unfinished())?;
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.deframer.push(data);
                    }
                }
                Some(Err(_)) => return Err(Status::new(Code::Canceled, "context canceled")),
                None if self.deframer.unfinished() > 0 => {
                    return Err(cut_message());
                }
                None => return Ok(None),
            }
        }
    }

    /// The one message of a unary call. Reads to the end of the body, so that the stream is closed in order.
    async fn only(&mut self) -> Result<Bytes, Status> {
        let reading = async {
            let first = self.next().await?;
            let message = first.ok_or_else(no_request)?;
            match self.next().await? {
                None => Ok(message),
                Some(_) => Err(several_messages()),
            }
        };
        // The timer is made only when the body is not there yet.
        let mut reading = std::pin::pin!(reading);
        if let Some(done) = poll_once(reading.as_mut()).await {
            return done;
        }
        match tokio::time::timeout(BODY_TIMEOUT, reading).await {
            Ok(done) => done,
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "grpc: the request did not arrive in time")),
        }
    }
}

impl<T: Upload> Source for Frames<T> {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Status>> + Send + '_>> {
        Box::pin(Frames::next(self))
    }
}
