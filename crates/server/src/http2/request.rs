//! From header fields to what is asked.
//!
//! A client says the same block again and again: once its table has settled, every request is a handful of indices. Such blocks are
//! kept with what they mean, so that the next one costs a comparison of some ten bytes.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header};
use synod_api::{Method, Shape};
use synod_http2::hpack::{Decoder, Field, HpackError};

use crate::grpc;
use crate::http::Scope;
use crate::service::metadata::Metadata;
use crate::service::says_confirmations;

/// The fields of one request, by their size in a list. A request with more gets status 431.
pub(super) const FIELDS_MAX: usize = 64 * 1024;

/// Blocks that are kept with their meaning, for each connection.
const KNOWN_MAX: usize = 8;
/// Longer blocks than this are not kept: those that matter are a handful of indices.
const KNOWN_BYTES_MAX: usize = 1024;

/// A unary gRPC call.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) metadata: Metadata,
}

/// What a header block asks for.
pub(super) enum Asked {
    /// The short way.
    Call(Call),
    /// Everything else.
    Plain(Box<Request<()>>),
    /// More fields than anybody needs.
    TooLarge,
    /// No request (RFC 9113, 8.1.1).
    Malformed,
}

/// Whether all answers that go well have the same head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heads {
    /// They have.
    Alike,
    /// Answers to writes say how many confirmations they have.
    Various,
}

/// Reads header blocks; one for each connection.
pub(super) struct Reader {
    decoder: Decoder,
    scope: Scope,
    heads: Heads,
    known: Vec<(Box<[u8]>, Call)>,
    fields: Vec<Field>,
}

impl Reader {
    pub(super) fn new(scope: Scope, heads: Heads) -> Reader {
        Reader { decoder: Decoder::default(), scope, heads, known: Vec::new(), fields: Vec::new() }
    }

    /// The block of a request.
    pub(super) fn request(&mut self, block: &[u8]) -> Result<Asked, HpackError> {
        if let Some((_, call)) = self.known.iter().find(|(known, _)| **known == *block) {
            return Ok(Asked::Call(call.clone()));
        }
        let decoded = self.decode(block)?;
        if decoded.cut {
            self.fields = Vec::new();
            return Ok(Asked::TooLarge);
        }
        let assembled = assemble(&self.fields);
        self.fields.clear();
        let Some(request) = assembled else { return Ok(Asked::Malformed) };
        let Some(call) = self.call(&request) else { return Ok(Asked::Plain(Box::new(request))) };
        if decoded.repeatable && block.len() <= KNOWN_BYTES_MAX {
            if self.known.len() == KNOWN_MAX {
                self.known.remove(0);
            }
            self.known.push((block.into(), call.clone()));
        }
        Ok(Asked::Call(call))
    }

    /// The block of trailers: nothing in it matters, but the table must stay in step.
    pub(super) fn trailers(&mut self, block: &[u8]) -> Result<(), HpackError> {
        self.decode(block).map(|_| ())
    }

    fn decode(&mut self, block: &[u8]) -> Result<synod_http2::hpack::Decoded, HpackError> {
        self.fields.clear();
        let decoded = self.decoder.decode(block, FIELDS_MAX, &mut self.fields)?;
        if !decoded.repeatable {
            // The table has changed: other blocks may mean something else from now on.
            self.known.clear();
        }
        Ok(decoded)
    }

    /// The request as a call on the short way; whatever is unusual about it goes the long way and is answered there.
    fn call(&self, request: &Request<()>) -> Option<Call> {
        if self.scope != Scope::Clients || request.method() != http::Method::POST || !grpc::is_grpc(request) {
            return None;
        }
        let method = Method::by_path(request.uri().path())?;
        let identity = request.headers().get("grpc-encoding").is_none_or(|encoding| encoding == "identity");
        let metadata = Metadata::read(request.headers()).ok()?;
        // Whoever wants a token gets it in the head of the answer, which on the short way is always the same.
        let plain = !metadata.wants_token && (self.heads == Heads::Alike || !says_confirmations(method));
        // Who may wait for ever must be told when the client goes, and the short way does not tell.
        let short = identity && plain && method.shape() == Shape::Unary && !method.waits_for_others();
        short.then_some(Call { method, metadata })
    }
}

/// Puts a request together; none for fields that are none (8.2, 8.3).
fn assemble(fields: &[Field]) -> Option<Request<()>> {
    let (mut method, mut scheme, mut path, mut authority) = (None, None, None, None);
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        if field.name.first() == Some(&b':') {
            let place = match &field.name[..] {
                b":method" => &mut method,
                b":scheme" => &mut scheme,
                b":path" => &mut path,
                b":authority" => &mut authority,
                _ => return None,
            };
            // Once each, and before all others.
            if !headers.is_empty() || place.replace(field.value.clone()).is_some() {
                return None;
            }
            continue;
        }
        if field.name.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let name = HeaderName::from_bytes(&field.name).ok()?;
        if name == header::CONNECTION || name == header::TRANSFER_ENCODING || name == header::UPGRADE {
            return None;
        }
        headers.append(name, HeaderValue::from_maybe_shared(field.value.clone()).ok()?);
    }
    let mut uri = Uri::default().into_parts();
    uri.path_and_query = Some(PathAndQuery::from_maybe_shared(path?).ok()?);
    scheme?;
    if let Some(authority) = authority {
        // Old clients send their endpoint as it was typed, `http://` and all: then it is a host's name for those who ask,
        // and no part of the address.
        if let Ok(parsed) = Authority::from_maybe_shared(authority.clone()) {
            uri.authority = Some(parsed);
            uri.scheme = Some(Scheme::HTTP);
        } else if !headers.contains_key(header::HOST) {
            headers.insert(header::HOST, HeaderValue::from_maybe_shared(authority).ok()?);
        }
    }
    let mut request = Request::new(());
    *request.method_mut() = http::Method::from_bytes(&method?).ok()?;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use synod_http2::hpack::{put_literal, put_remembered};

    fn block(fields: &[(&str, &str)]) -> BytesMut {
        let mut out = BytesMut::new();
        fields.iter().for_each(|(name, value)| put_literal(&mut out, name.as_bytes(), value.as_bytes()));
        out
    }

    const PUT: [(&str, &str); 6] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Put"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];

    fn what(asked: Result<Asked, HpackError>) -> &'static str {
        match asked {
            Ok(Asked::Call(_)) => "call",
            Ok(Asked::Plain(_)) => "plain",
            Ok(Asked::TooLarge) => "too large",
            Ok(Asked::Malformed) => "malformed",
            Err(_) => "error",
        }
    }

    /// Unary gRPC goes the short way, everything that differs in the least the long one, and what is no request is malformed.
    #[test]
    fn ways() {
        let mut reader = Reader::new(Scope::Clients, Heads::Alike);
        let mut read = |fields: &[(&str, &str)]| what(reader.request(&block(fields)));
        assert_eq!(read(&PUT), "call");
        assert_eq!(read(&PUT[..5]), "call");
        let with = |at: usize, field: (&'static str, &'static str)| {
            let mut fields = PUT;
            fields[at] = field;
            fields
        };
        assert_eq!(read(&with(2, (":path", "/etcdserverpb.Watch/Watch"))), "plain");
        assert_eq!(read(&with(2, (":path", "/v3lockpb.Lock/Lock"))), "plain");
        assert_eq!(read(&with(2, (":path", "/v3lockpb.Lock/Unlock"))), "call");
        assert_eq!(read(&with(2, (":path", "/health"))), "plain");
        assert_eq!(read(&with(4, ("content-type", "application/json"))), "plain");
        assert_eq!(read(&with(5, ("grpc-encoding", "gzip"))), "plain");
        assert_eq!(read(&with(5, ("grpc-timeout", "soon"))), "plain");
        assert_eq!(read(&with(5, ("synod-session", ""))), "plain");
        assert_eq!(read(&with(3, (":authority", "http://a:1"))), "call");
        assert_eq!(read(&with(5, ("TE", "trailers"))), "malformed");
        assert_eq!(read(&with(5, ("connection", "close"))), "malformed");
        assert_eq!(read(&with(5, (":path", "/"))), "malformed");
        assert_eq!(read(&with(3, (":path", "/"))), "malformed");
        assert_eq!(read(&with(3, (":strange", "x"))), "malformed");
        assert_eq!(read(&PUT[1..]), "malformed");
        let long = "x".repeat(FIELDS_MAX);
        assert_eq!(read(&[&PUT[..], &[("x", &long)]].concat()), "too large");
    }

    /// A block is known by its bytes only as long as the table stays as it was.
    #[test]
    fn known_blocks_are_forgotten_with_the_table() {
        let mut reader = Reader::new(Scope::Clients, Heads::Alike);
        let mut first = BytesMut::new();
        PUT.iter().for_each(|(name, value)| put_remembered(&mut first, name.as_bytes(), value.as_bytes()));
        assert_eq!(what(reader.request(&first)), "call");
        let again = [0xc3, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];
        assert_eq!(what(reader.request(&again)), "call");
        assert_eq!(reader.known.len(), 1);
        assert_eq!(what(reader.request(&again)), "call");
        let mut other = BytesMut::new();
        put_remembered(&mut other, b"x", b"y");
        reader.trailers(&other).unwrap();
        assert!(reader.known.is_empty());
        assert_eq!(what(reader.request(&again)), "malformed");
    }

    /// A listener for metrics alone has no calls.
    #[test]
    fn metrics_alone() {
        assert_eq!(what(Reader::new(Scope::Metrics, Heads::Alike).request(&block(&PUT))), "plain");
    }
}
