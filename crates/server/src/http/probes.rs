//! What load balancers and people with a browser ask: `/health`, `/livez`, `/readyz`, `/version`, `/metrics`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::body::Body;
use crate::metrics::Page;
use crate::service::Service;
use crate::service::backend::Backend;
use crate::service::probe::{Check, Freshness};

/// Answers the request, if it is for one of these pages.
pub(super) async fn serve<B: Backend, T>(
    service: &Arc<Service<B>>,
    request: &Request<T>,
) -> Option<Response<Body>> {
    let path = request.uri().path();
    let (page, rest) = match path.strip_prefix('/')?.split_once('/') {
        Some((page @ ("livez" | "readyz"), rest)) => (page, Some(rest)),
        Some(_) if path != "/debug/vars" => return None,
        _ => (&path[1..], None),
    };
    if !matches!(page, "health" | "livez" | "readyz" | "version" | "metrics" | "debug/vars") {
        return None;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return Some(response);
    }
    let query = request.uri().query().unwrap_or_default();
    Some(match page {
        "health" => health(service, query).await,
        "livez" => checks(service, "livez", &Check::LIVE, rest, query).await,
        "readyz" => checks(service, "readyz", &Check::READY, rest, query).await,
        "version" => {
            let version = service.options().version;
            let minor = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
            json(
                StatusCode::OK,
                serde_json::json!({
                    "etcdserver": version, "etcdcluster": format!("{minor}.0"), "storage": format!("{minor}.0"),
                    "synod": env!("CARGO_PKG_VERSION"),
                }),
            )
        }
        "metrics" => {
            let mut page = Page::default();
            service.write_metrics(&mut page);
            let mut response = text(StatusCode::OK, page.into_text());
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        _ => json(StatusCode::OK, service.variables()),
    })
}

/// The values of a query parameter.
fn values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// etcd's oldest page: the alarms, the leader, and a read.
async fn health<B: Backend>(service: &Arc<Service<B>>, query: &str) -> Response<Body> {
    let freshness = match values(query, "serializable").any(|value| value == "true") {
        true => Freshness::Local,
        false => Freshness::Linearizable,
    };
    let excluded: Vec<&str> = values(query, "exclude").collect();
    let verdict = service.health(freshness, &excluded).await;
    let (status, healthy, reason) = match verdict {
        Ok(()) => (StatusCode::OK, "true", String::new()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, "false", reason),
    };
    let metrics = service.metrics();
    let counter = if status.is_success() { &metrics.health_successes } else { &metrics.health_failures };
    counter.fetch_add(1, Relaxed);
    json(status, serde_json::json!({ "health": healthy, "reason": reason }))
}

/// The newer pages: a list of checks, each of which can be asked for alone or left out.
async fn checks<B: Backend>(
    service: &Arc<Service<B>>,
    page: &'static str,
    all: &[Check],
    only: Option<&str>,
    query: &str,
) -> Response<Body> {
    let excluded: Vec<&str> = values(query, "exclude").collect();
    let chosen: Vec<Check> = match only {
        None | Some("") => all.iter().copied().filter(|check| !excluded.contains(&check.name())).collect(),
        Some(name) => match all.iter().find(|check| check.name() == name) {
            Some(check) => vec![*check],
            None => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
        },
    };
    let mut lines = String::new();
    let mut failed = false;
    for check in chosen {
        let outcome = service.check(check).await;
        service.metrics().count_check(page, check.name(), outcome.is_ok());
        match outcome {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name())),
            Err(why) => {
                failed = true;
                lines.push_str(&format!("[-]{} failed: {why}\n", check.name()));
            }
        }
    }
    for name in &excluded {
        if !all.iter().any(|check| check.name() == *name) {
            lines.push_str(&format!("[!]{name} is unknown and was not excluded\n"));
        }
    }
    if failed {
        return text(StatusCode::SERVICE_UNAVAILABLE, lines);
    }
    let verbose = values(query, "verbose").next().is_some();
    text(StatusCode::OK, if verbose { lines + "ok\n" } else { "ok\n".to_owned() })
}

fn json(status: StatusCode, value: serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A plain text.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
