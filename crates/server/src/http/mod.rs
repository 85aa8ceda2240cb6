//! The client port: gRPC over HTTP/2, and everything that speaks plain HTTP, on one listener.

mod access;
pub mod body;
mod gateway;
mod json;
mod listener;
mod probes;
pub(crate) mod tried;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use synod_api::Method;

pub use self::access::Access;
use self::body::{Body, Upload};
pub use self::listener::{ConnectionLimits, serve_connection, serve_listener};
use crate::grpc;
use crate::service::Service;
use crate::service::backend::Backend;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Clients,
    /// Health, version and metrics alone (`--listen-metrics-urls`).
    Metrics,
}

/// The front of a member: all that a connection needs to be answered.
pub struct Front<B> {
    /// What the methods mean.
    pub service: Arc<Service<B>>,
    /// Who may talk HTTP.
    pub access: Access,
    /// What a connection may use.
    pub limits: ConnectionLimits,
    /// What is served.
    pub scope: Scope,
}

/// Answers one request.
pub(crate) async fn route<B: Backend>(front: &Front<B>, request: Request<impl Upload>) -> Response<Body> {
    if front.scope == Scope::Clients && grpc::is_grpc(&request) {
        if request.version() != Version::HTTP_2 {
            return probes::text(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2\n");
        }
        return grpc::serve(&front.service, request).await;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match front.access.answer(&request) {
        Some(answer) => answer,
        None => plain(front, request).await,
    };
    front.access.dress(origin, response.headers_mut());
    if let Some(date) = date(SystemTime::now()) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

/// The time as HTTP writes it. None for a clock that is out of its mind: hyper's own `Date` panics before 1970 and
/// from the year 10000 on, and is therefore off.
fn date(now: SystemTime) -> Option<HeaderValue> {
    const SECONDS_MAX: u64 = 253_402_300_799;
    let since = now.duration_since(UNIX_EPOCH).ok()?;
    if since.as_secs() > SECONDS_MAX {
        return None;
    }
    HeaderValue::from_str(&httpdate::fmt_http_date(now)).ok()
}

async fn plain<B: Backend>(front: &Front<B>, request: Request<impl Upload>) -> Response<Body> {
    if let Some(response) = probes::serve(&front.service, &request).await {
        return response;
    }
    if front.scope == Scope::Clients {
        let path = request.uri().path();
        let path = match path.strip_prefix("/v3beta/") {
            Some(rest) => Cow::Owned(format!("/v3/{rest}")),
            None => Cow::Borrowed(path),
        };
        if path.starts_with("/v3/") {
            let path = path.into_owned();
            return gateway::serve(&front.service, &path, request).await;
        }
        if Method::by_path(&path).is_some() {
            let why = "gRPC wants the content type application/grpc; JSON is served below /v3/\n";
            return probes::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
        }
    }
    probes::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Good clocks are told as HTTP wants it, bad ones not at all.
    #[test]
    fn dates_good_and_bad() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(784_111_777).expect("a date"), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(253_402_300_799).expect("the last"), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(at(253_402_300_800), None);
        assert_eq!(date(UNIX_EPOCH - Duration::from_secs(1)), None);
    }
}
