//! Who may talk HTTP to this member: the names it answers to, and the pages that browsers may call it from.
//!
//! A browser can be tricked into calling a server on its user's own network (CVE-2018-1098, CVE-2018-1099); the list of host
//! names is what stands against that.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};

use super::body::Body;

/// The two lists.
#[derive(Clone, Debug)]
pub struct Access {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Access {
    /// Host names to answer to, and origins that browsers may call from; `*` means all.
    #[must_use]
    pub fn new(hosts: Vec<String>, origins: Vec<String>) -> Access {
        Access { hosts, origins }
    }

    /// An answer, if the request goes no further: a wrong host, or a browser's preliminary question.
    pub(super) fn answer<T>(&self, request: &Request<T>) -> Option<Response<Body>> {
        if !is_listed(&self.hosts, host(request)) {
            let mut response =
                Response::new(Body::full("rejected: the host is not on the list of --host-whitelist\n"));
            *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
            return Some(response);
        }
        if request.method() == http::Method::OPTIONS {
            return Some(Response::new(Body::empty()));
        }
        None
    }

    /// What browsers want to be told, if the page may call.
    pub(super) fn dress(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        let allowed = match &origin {
            Some(origin) if is_listed(&self.origins, origin.to_str().unwrap_or_default()) => origin.clone(),
            // Whoever does not say where it comes from is told only when that does not matter.
            None if self.origins.iter().any(|origin| origin == "*") => HeaderValue::from_static("*"),
            _ => return,
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let names = HeaderValue::from_static("accept, content-type, authorization");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
}

fn is_listed(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|entry| entry == "*" || entry.eq_ignore_ascii_case(name))
}

/// The host that the client thinks it talks to, without its port.
fn host<T>(request: &Request<T>) -> &str {
    let named = request.uri().authority().map(http::uri::Authority::as_str);
    let text = named
        .or_else(|| request.headers().get(header::HOST).and_then(|host| host.to_str().ok()))
        .unwrap_or_default();
    match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => text.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(access: &Access, host: &str) -> bool {
        access.answer(&Request::builder().header("host", host).body(()).unwrap()).is_some()
    }

    /// Only listed hosts are answered, whatever their port and case; a star lets all pass.
    #[test]
    fn hosts_are_checked() {
        let access = Access::new(vec!["etcd.example".into(), "::1".into()], vec!["*".into()]);
        assert!(!rejected(&access, "etcd.example:2379"));
        assert!(!rejected(&access, "ETCD.example"));
        assert!(!rejected(&access, "[::1]:2379"));
        assert!(rejected(&access, "evil.example"));
        assert!(rejected(&access, "etcd.example.evil.example"));
        assert!(rejected(&access, ""));
        assert!(!rejected(&Access::new(vec!["*".into()], vec![]), "evil.example"));
    }

    /// A page from elsewhere gets no permission unless it is listed.
    #[test]
    fn origins_are_checked() {
        let access = Access::new(vec!["*".into()], vec!["https://good.example".into()]);
        let told = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            access.dress(origin.map(HeaderValue::from_static), &mut headers);
            headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
        };
        assert_eq!(told(Some("https://good.example")).unwrap(), "https://good.example");
        assert_eq!(told(Some("https://evil.example")), None);
        assert_eq!(told(None), None);
    }
}
