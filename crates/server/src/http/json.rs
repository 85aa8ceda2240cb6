//! Between JSON and protobuf bytes, by the messages' descriptions.
//!
//! The conventions are those of etcd's gateway: fields as the `.proto` files spell them, 64-bit numbers as strings, bytes in
//! standard base64 (the URL-safe alphabet is read too), zero and empty fields left out, enums by name, unknown fields
//! ignored, and so are names of enums that do not exist, both as etcd's gateway does it. A value may be nested as deeply as
//! serde_json allows (128 levels).

use bytes::{Buf, Bytes, BytesMut};
use prost_reflect::prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};

use crate::status::{Code, Status};

/// Encodes what a JSON text says; an empty text is an empty message.
///
/// # Errors
/// InvalidArgument, with the reason and the place.
pub(super) fn to_protobuf(text: &[u8], descriptor: MessageDescriptor) -> Result<Bytes, Status> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::new());
    }
    let refuse = |error: serde_json::Error| Status::new(Code::InvalidArgument, error.to_string());
    let mut parser = serde_json::Deserializer::from_slice(text);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message =
        DynamicMessage::deserialize_with_options(descriptor, &mut parser, &options).map_err(refuse)?;
    parser.end().map_err(refuse)?;
    Ok(message.encode_to_vec().into())
}

/// Writes an encoded message as JSON.
pub(super) fn from_protobuf(message: Bytes, descriptor: MessageDescriptor, out: &mut Vec<u8>) {
    let message = DynamicMessage::decode(descriptor, message)
        .expect("what the service encoded, its own description decodes");
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
    let mut writer = serde_json::Serializer::new(out);
    message.serialize_with_options(&mut writer, &options).expect("writing into memory does not fail");
}

/// Joins the JSON of one message's pieces: their members one behind the other, and the elements of a list that goes on from piece
/// to piece in one list.
#[derive(Default)]
pub(super) struct Joiner {
    begun: bool,
    /// The list that the last piece ended with, as `"name":[`, still open.
    list: Vec<u8>,
}

impl Joiner {
    /// Adds an object of one piece: either some members, or one list.
    pub(super) fn add(&mut self, object: &[u8], out: &mut Vec<u8>) {
        let Some(members) = object.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")) else {
            return;
        };
        if members.is_empty() {
            return;
        }
        let list = members.windows(2).position(|pair| pair == b":[").map(|at| &members[..at + 2]);
        let list = list.filter(|name| name.iter().filter(|byte| **byte == b'"').count() == 2);
        match list {
            Some(name) if self.list == name => {
                out.push(b',');
                out.extend_from_slice(&members[name.len()..members.len() - 1]);
            }
            Some(name) => {
                self.begin(out);
                out.extend_from_slice(&members[..members.len() - 1]);
                self.list = name.to_vec();
            }
            None => {
                self.begin(out);
                out.extend_from_slice(members);
            }
        }
    }

    /// Ends the object.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            out.push(b'{');
        }
        self.close_list(out);
        out.push(b'}');
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        self.close_list(out);
        out.push(if std::mem::replace(&mut self.begun, true) { b',' } else { b'{' });
    }

    fn close_list(&mut self, out: &mut Vec<u8>) {
        if !self.list.is_empty() {
            self.list.clear();
            out.push(b']');
        }
    }
}

/// A failure as the gateway tells it: etcd 3.4 and 3.5 call the text `error`, later ones `message`. The order is that of the older ones.
pub(super) fn failure(status: &Status) -> Vec<u8> {
    let text = serde_json::Value::from(status.message.as_ref());
    format!(r#"{{"error":{text},"message":{text},"code":{}}}"#, status.code as u8).into_bytes()
}

/// A failure in the middle of a stream; the names of old and new gateways side by side.
pub(super) fn stream_failure(status: &Status) -> Vec<u8> {
    let http = http::StatusCode::from_u16(status.code.http()).ok();
    let line = serde_json::json!({ "error": {
        "grpc_code": status.code as u8,
        "http_code": status.code.http(),
        "http_status": http.and_then(|code| code.canonical_reason()).unwrap_or_default(),
        "code": status.code as u8,
        "message": status.message,
    }});
    let mut line = line.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Cuts a body into the JSON objects that it consists of, as it arrives. Looks at each byte once.
pub(super) struct Objects {
    held: BytesMut,
    /// How much of `held` has been looked at.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    object_max: usize,
}

impl Objects {
    /// Refuses objects longer than `object_max`.
    pub(super) fn new(object_max: usize) -> Objects {
        Objects { held: BytesMut::new(), seen: 0, depth: 0, in_string: false, escaped: false, object_max }
    }

    /// Takes what arrived.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
    }

    /// The next whole object.
    ///
    /// # Errors
    /// Something that is not an object, or is too long.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while let Some(&byte) = self.held.get(self.seen) {
            self.seen += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'{' | b'[' if self.depth > 0 || byte == b'{' => self.depth += 1,
                _ if self.depth == 0 && byte.is_ascii_whitespace() => {
                    self.held.advance(self.seen);
                    self.seen = 0;
                }
                _ if self.depth == 0 => {
                    return Err(Status::new(Code::InvalidArgument, "expected a JSON object"));
                }
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        let object = self.held.split_to(self.seen).freeze();
                        self.seen = 0;
                        return self.bounded(object.len()).map(|()| Some(object));
                    }
                }
                b'"' => self.in_string = true,
                _ => {}
            }
        }
        self.bounded(self.held.len()).map(|()| None)
    }

    /// Bytes of an object that has begun and not ended.
    pub(super) fn unfinished(&self) -> usize {
        self.held.len()
    }

    fn bounded(&self, length: usize) -> Result<(), Status> {
        if length > self.object_max { Err(too_large(length, self.object_max)) } else { Ok(()) }
    }
}

/// A body or an object is too long.
pub(super) fn too_large(length: usize, max: usize) -> Status {
    Status::new(
        Code::ResourceExhausted,
        format!("grpc: received message larger than max ({length} vs. {max})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The objects of an answer's pieces become one: members side by side, and a list that goes on in one list.
    #[test]
    fn pieces_are_joined() {
        let joined = |pieces: &[&str]| {
            let (mut joiner, mut out) = (Joiner::default(), Vec::new());
            pieces.iter().for_each(|piece| joiner.add(piece.as_bytes(), &mut out));
            joiner.end(&mut out);
            String::from_utf8(out).unwrap()
        };
        let pieces = [
            r#"{"header":{"revision":"2"}}"#,
            r#"{"kvs":[{"key":"YQ=="}]}"#,
            r#"{"kvs":[{"key":"Yg=="},{"key":"Yw=="}]}"#,
            r#"{"more":true,"count":"9"}"#,
            "{}",
        ];
        let whole = r#"{"header":{"revision":"2"},"kvs":[{"key":"YQ=="},{"key":"Yg=="},{"key":"Yw=="}],"more":true,"count":"9"}"#;
        assert_eq!(joined(&pieces), whole);
        assert_eq!(joined(&pieces[1..3]), r#"{"kvs":[{"key":"YQ=="},{"key":"Yg=="},{"key":"Yw=="}]}"#);
        assert_eq!(joined(&[]), "{}");
    }
    use synod_api::Method;
    use synod_api::etcdserverpb as pb;
    use synod_api::mvccpb::KeyValue;

    fn read(method: Method, text: &str) -> Result<Bytes, Status> {
        to_protobuf(text.as_bytes(), method.input())
    }

    /// Requests are read as etcd's gateway reads them: numbers as strings or numbers, enums by name or number, both
    /// spellings of a field, both alphabets of base64, and what is unknown is passed over.
    #[test]
    fn requests_in_every_spelling() {
        let expected = pb::RangeRequest {
            key: Bytes::from_static(&[0xfb, 0xff]),
            range_end: Bytes::from_static(b"b"),
            limit: 7,
            sort_order: 2,
            sort_target: 3,
            ..Default::default()
        };
        for text in [
            r#"{"key":"+/8=","range_end":"Yg==","limit":"7","sort_order":"DESCEND","sort_target":"MOD"}"#,
            r#"{"key":"-_8","rangeEnd":"Yg","limit":7,"sortOrder":2,"sort_target":3,"nobody":{"knows":[1]}}"#,
            r#" {"key":"-_8=","range_end":"Yg==","limit":7.0,"sort_order":"DESCEND","sort_target":3} "#,
        ] {
            let bytes = read(Method::Range, text).unwrap();
            assert_eq!(pb::RangeRequest::decode(bytes).unwrap(), expected, "{text}");
        }
        assert!(read(Method::Range, "").unwrap().is_empty());
    }

    /// Input that means nothing is refused as such, never with a panic and never half understood.
    #[test]
    fn nonsense_is_refused() {
        let deep = format!("{{\"nobody\":{}", "[".repeat(1_000_000));
        let deep_txn = "{\"success\":[{\"request_txn\":".repeat(100_000);
        for text in [
            "{\"key\":\"%%%\"}",
            "{\"key\":5}",
            "{\"limit\":1.5}",
            "{\"limit\":\"x\"}",
            "{\"limit\":\"9223372036854775808\"}",
            "{\"limit\":1e40}",
            "[]",
            "{}{}",
            "{\"key\":",
            "\u{feff}{}",
            "nul",
            &deep,
            &deep_txn,
        ] {
            let refusal = read(Method::Range, text).map(|_| ()).and_then(|()| read(Method::Txn, text));
            assert_eq!(refusal.unwrap_err().code, Code::InvalidArgument, "{:.40}", text);
        }
    }

    /// Replies are written as etcd's gateway writes them.
    #[test]
    fn replies_as_etcd_writes_them() {
        let pair = KeyValue {
            key: "k".into(),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            value: Bytes::from_static(&[0xfb, 0xff]),
            lease: 0,
        };
        let header = pb::ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 3, raft_term: 2 };
        let reply = pb::RangeResponse { header: Some(header), kvs: vec![pair], more: false, count: 1 };
        let mut out = Vec::new();
        from_protobuf(reply.encode_to_vec().into(), Method::Range.output(), &mut out);
        let expected = concat!(
            r#"{"header":{"cluster_id":"18446744073709551615","member_id":"1","revision":"3","raft_term":"2"},"#,
            r#""kvs":[{"key":"aw==","create_revision":"2","mod_revision":"3","version":"2","value":"+/8="}],"count":"1"}"#
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);

        let member =
            pb::Member { id: 5, peer_urls: vec!["u".into()], is_learner: true, ..Default::default() };
        let reply = pb::MemberListResponse { header: None, members: vec![member] };
        let mut out = Vec::new();
        from_protobuf(reply.encode_to_vec().into(), Method::MemberList.output(), &mut out);
        assert_eq!(out, br#"{"members":[{"ID":"5","peerURLs":["u"],"isLearner":true}]}"#);

        let alarm = pb::AlarmMember { member_id: 5, alarm: 1 };
        let reply = pb::AlarmResponse { header: None, alarms: vec![alarm] };
        let mut out = Vec::new();
        from_protobuf(reply.encode_to_vec().into(), Method::Alarm.output(), &mut out);
        assert_eq!(out, br#"{"alarms":[{"memberID":"5","alarm":"NOSPACE"}]}"#);
    }

    /// However a body is cut into pieces, the same objects come out; strings may hold braces.
    #[test]
    fn bodies_are_cut_into_objects() {
        let body = br#" {"a":"}\"{"} {"b":[{"c":1},[]]}{}"#;
        for size in 1..=body.len() {
            let mut objects = Objects::new(100);
            let mut out = Vec::new();
            for piece in body.chunks(size) {
                objects.push(piece);
                while let Some(object) = objects.next().unwrap() {
                    out.push(object);
                }
            }
            assert_eq!(out, [&br#"{"a":"}\"{"}"#[..], br#"{"b":[{"c":1},[]]}"#, b"{}"], "pieces of {size}");
            assert_eq!(objects.unfinished(), 0);
        }
    }

    /// A body that is no sequence of objects, or whose object never ends, is refused.
    #[test]
    fn bodies_without_end_are_refused() {
        let mut objects = Objects::new(10);
        objects.push(b"  ]");
        assert_eq!(objects.next().unwrap_err().code, Code::InvalidArgument);
        let mut objects = Objects::new(10);
        objects.push(b"{\"aaaaaaaaaaaaaaaa");
        assert_eq!(objects.next().unwrap_err().code, Code::ResourceExhausted);
    }
}
