//! The JSON gateway's conversion, as far as the transcripts need it: requests to operations, replies to answers.

use std::time::Duration;

use serde_json::{Map, Value, json};
use synod_core::{Audience, NodeId, Time};
use synod_kv::op::{
    Compare, CompareResult, CompareTarget, Content, DeleteRange, DeleteReply, Op, OpReply, Put, PutFlags,
    PutReply, RangeReply, RangeRequest, TXN_OPS_MAX, Txn, TxnOp, TxnOpReply, TxnReply,
};
use synod_kv::record::KeyValue;
use synod_kv::validate::{sort_order, sort_target};
use synod_kv::watch::{WatchFlags, WatchOutput, WatchRequest};
use synod_kv::{OpError, Store};

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = u32::from(chunk[0]) << 16
            | u32::from(*chunk.get(1).unwrap_or(&0)) << 8
            | u32::from(*chunk.get(2).unwrap_or(&0));
        for i in 0..4 {
            text.push(if i <= chunk.len() {
                LETTERS[(word >> (18 - 6 * i)) as usize & 63] as char
            } else {
                '='
            });
        }
    }
    text
}

fn from_base64(text: &str) -> Vec<u8> {
    let (mut word, mut bits, mut bytes) = (0u32, 0, Vec::new());
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        word = word << 6 | LETTERS.iter().position(|it| *it == letter).expect("base64") as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    bytes
}

fn bytes(value: &Value, field: &str) -> bytes::Bytes {
    from_base64(value[field].as_str().unwrap_or_default()).into()
}

fn number(value: &Value, field: &str) -> i64 {
    match &value[field] {
        Value::String(text) => text.parse().expect("a number"),
        other => other.as_i64().unwrap_or(0),
    }
}

fn flag(value: &Value, field: &str) -> bool {
    value[field].as_bool().unwrap_or(false)
}

fn name<'a>(value: &'a Value, field: &str, names: &[&'a str]) -> i32 {
    match &value[field] {
        Value::String(text) => names.iter().position(|name| name == text).expect("a known name") as i32,
        other => other.as_i64().unwrap_or(0) as i32,
    }
}

fn list(value: &Value, field: &str) -> Vec<Value> {
    value[field].as_array().cloned().unwrap_or_default()
}

fn range_request(value: &Value) -> Result<RangeRequest, OpError> {
    let request = RangeRequest {
        key: bytes(value, "key"),
        range_end: bytes(value, "range_end"),
        limit: number(value, "limit"),
        revision: number(value, "revision"),
        sort_order: sort_order(name(value, "sort_order", &["NONE", "ASCEND", "DESCEND"]))?,
        sort_target: sort_target(name(value, "sort_target", &["KEY", "VERSION", "CREATE", "MOD", "VALUE"]))?,
        content: match (flag(value, "count_only"), flag(value, "keys_only")) {
            (true, _) => Content::CountOnly,
            (_, true) => Content::KeysOnly,
            _ => Content::Full,
        },
        min_mod_revision: number(value, "min_mod_revision"),
        max_mod_revision: number(value, "max_mod_revision"),
        min_create_revision: number(value, "min_create_revision"),
        max_create_revision: number(value, "max_create_revision"),
        serializable: flag(value, "serializable"),
    };
    Ok(request)
}

fn put_request(value: &Value) -> Put {
    let flags = PutFlags {
        prev_kv: flag(value, "prev_kv"),
        ignore_value: flag(value, "ignore_value"),
        ignore_lease: flag(value, "ignore_lease"),
    };
    Put { key: bytes(value, "key"), value: bytes(value, "value"), lease: number(value, "lease"), flags }
}

fn delete_request(value: &Value) -> DeleteRange {
    DeleteRange {
        key: bytes(value, "key"),
        range_end: bytes(value, "range_end"),
        prev_kv: flag(value, "prev_kv"),
    }
}

fn compare(value: &Value) -> Compare {
    let result = match name(value, "result", &["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]) {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        _ => CompareResult::Unknown,
    };
    let target = match name(value, "target", &["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]) {
        0 => CompareTarget::Version(number(value, "version")),
        1 => CompareTarget::Create(number(value, "create_revision")),
        2 => CompareTarget::Mod(number(value, "mod_revision")),
        3 => CompareTarget::Value(bytes(value, "value")),
        _ => CompareTarget::Lease(number(value, "lease")),
    };
    Compare { key: bytes(value, "key"), range_end: bytes(value, "range_end"), result, target }
}

fn txn_request(value: &Value) -> Result<Txn, OpError> {
    let branch = |field| {
        let op = |op: &Value| {
            Ok(if op["request_range"].is_object() {
                TxnOp::Range(range_request(&op["request_range"])?)
            } else if op["request_put"].is_object() {
                TxnOp::Put(put_request(&op["request_put"]))
            } else if op["request_delete_range"].is_object() {
                TxnOp::DeleteRange(delete_request(&op["request_delete_range"]))
            } else if op["request_txn"].is_object() {
                TxnOp::Txn(txn_request(&op["request_txn"])?)
            } else {
                TxnOp::Empty
            })
        };
        list(value, field).iter().map(op).collect::<Result<Vec<_>, OpError>>()
    };
    Ok(Txn {
        compare: list(value, "compare").iter().map(compare).collect(),
        success: branch("success")?,
        failure: branch("failure")?,
    })
}

/// An object of what is not zero, empty or false.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let present = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty() && text != "0",
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    let fields = fields.into_iter().filter(|(_, value)| present(value));
    Value::Object(fields.map(|(name, value)| (name.to_string(), value)).collect::<Map<_, _>>())
}

fn pair(pair: KeyValue<'_>) -> Value {
    object([
        ("key", to_base64(pair.key).into()),
        ("create_revision", pair.create.to_string().into()),
        ("mod_revision", pair.modified.to_string().into()),
        ("version", pair.version.to_string().into()),
        ("value", to_base64(pair.value).into()),
        ("lease", pair.lease.to_string().into()),
    ])
}

fn header(revision: i64) -> Value {
    object([("revision", revision.to_string().into())])
}

fn full_header(revision: i64) -> Value {
    json!({"cluster_id": "*", "member_id": "*", "raft_term": "*", "revision": revision.to_string()})
}

fn range_answer(reply: &RangeReply, header: Value) -> Value {
    object([
        ("header", header),
        ("kvs", reply.kvs.iter().map(pair).collect()),
        ("more", reply.more.into()),
        ("count", reply.count.to_string().into()),
    ])
}

fn put_answer(reply: &PutReply, header: Value) -> Value {
    let prev = reply.prev_kv.as_ref().map_or(Value::Null, |kv| pair(KeyValue::parse(kv).expect("a pair")));
    object([("header", header), ("prev_kv", prev)])
}

fn delete_answer(reply: &DeleteReply, header: Value) -> Value {
    object([
        ("header", header),
        ("deleted", reply.deleted.to_string().into()),
        ("prev_kvs", reply.prev_kvs.iter().map(pair).collect()),
    ])
}

fn txn_answer(reply: &TxnReply, outer: Value) -> Value {
    let response = |op: &TxnOpReply| match op {
        TxnOpReply::Range(range) => json!({"response_range": range_answer(range, header(range.revision))}),
        TxnOpReply::Put(put) => json!({"response_put": put_answer(put, header(put.revision))}),
        TxnOpReply::DeleteRange(delete) => {
            json!({"response_delete_range": delete_answer(delete, header(delete.revision))})
        }
        TxnOpReply::Txn(txn) => json!({"response_txn": txn_answer(txn, json!({}))}),
    };
    object([
        ("header", outer),
        ("succeeded", reply.succeeded.into()),
        ("responses", reply.responses.iter().map(response).collect()),
    ])
}

fn error_answer(error: OpError) -> Value {
    json!({"error": error.to_string()})
}

/// A store behind the conversion.
#[derive(Default)]
pub(crate) struct Gateway {
    pub(crate) store: Store,
    promoted: bool,
}

impl Gateway {
    pub(crate) fn call(&mut self, path: &str, request: &Value) -> Value {
        if !self.promoted {
            self.store.promote_lessor(Time::ZERO, Duration::ZERO);
            self.promoted = true;
        }
        self.answer(path, request).unwrap_or_else(error_answer)
    }

    fn answer(&mut self, path: &str, request: &Value) -> Result<Value, OpError> {
        let op = match path {
            "/v3/kv/range" => {
                let range = range_request(request)?;
                range.validate()?;
                return Ok(range_answer(&self.store.range(&range)?, full_header(self.store.revision())));
            }
            "/v3/lease/timetolive" => return Ok(self.time_to_live(request)),
            "/v3/lease/leases" => {
                let leases =
                    self.store.leases().iter().map(|(id, _)| json!({"ID": id.to_string()})).collect();
                return Ok(object([("header", full_header(self.store.revision())), ("leases", leases)]));
            }
            "/v3/kv/put" => Op::Put(put_request(request)),
            "/v3/kv/deleterange" => Op::DeleteRange(delete_request(request)),
            "/v3/kv/txn" => {
                let txn = txn_request(request)?;
                if txn.is_read_only() {
                    txn.validate(TXN_OPS_MAX)?;
                    let reply = self.store.read_txn(&txn)?;
                    return Ok(txn_answer(&reply, full_header(reply.revision)));
                }
                Op::Txn(txn)
            }
            "/v3/kv/compaction" => Op::Compact { revision: number(request, "revision") },
            "/v3/lease/grant" => {
                Op::LeaseGrant { id: number(request, "ID"), ttl: number(request, "TTL").max(2) }
            }
            "/v3/lease/revoke" => Op::LeaseRevoke { id: number(request, "ID") },
            other => panic!("the transcripts have a request to {other} that this test does not know"),
        };
        op.validate(TXN_OPS_MAX)?;
        let reply = self.store.apply_op(&op, NodeId(1), Audience::Client);
        let header = full_header(reply.revision);
        Ok(match reply.result? {
            OpReply::Put(put) => put_answer(&put, header),
            OpReply::DeleteRange(delete) => delete_answer(&delete, header),
            OpReply::Txn(txn) => txn_answer(&txn, header),
            OpReply::LeaseGrant { id, ttl } => {
                object([("header", header), ("ID", id.to_string().into()), ("TTL", ttl.to_string().into())])
            }
            _ => object([("header", header)]),
        })
    }

    fn time_to_live(&mut self, request: &Value) -> Value {
        let id = number(request, "ID");
        let header = full_header(self.store.revision());
        let Some(lease) = self.store.leases().get(id) else {
            return object([("header", header), ("ID", id.to_string().into()), ("TTL", "-1".into())]);
        };
        let keys = match flag(request, "keys") {
            true => lease.keys.iter().map(|key| Value::from(to_base64(key))).collect(),
            false => Value::Null,
        };
        object([
            ("header", header),
            ("ID", id.to_string().into()),
            ("TTL", "*".into()),
            ("grantedTTL", lease.ttl.to_string().into()),
            ("keys", keys),
        ])
    }

    /// All events from a revision on, with what was before each.
    pub(crate) fn watch_all(&mut self, start_revision: i64) -> Vec<Value> {
        let all = || bytes::Bytes::from_static(b"\0");
        let flags = WatchFlags { prev_kv: true, ..WatchFlags::default() };
        let request = WatchRequest { key: all(), range_end: all(), start_revision, watch_id: 0, flags };
        let hub = self.store.hub();
        let stream = hub.open_stream();
        hub.create(stream, &request);
        while self.store.catch_up(10) {}
        let mut events = Vec::new();
        while let Some(output) = self.store.hub().poll(stream) {
            let WatchOutput::Events { batches, .. } = output else { continue };
            for batch in batches {
                events.extend(batch.spans().map(|span| event(&batch.bytes[span])));
            }
        }
        self.store.hub().close_stream(stream);
        events
    }
}

/// Takes an encoded event apart: its tag and length, then type, pair and earlier pair.
fn event(mut encoded: &[u8]) -> Value {
    fn take<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
        *bytes = &bytes[1..];
        let length = synod_kv::record::take_varint(bytes).expect("a length") as usize;
        let (taken, rest) = bytes.split_at(length);
        *bytes = rest;
        taken
    }
    assert_eq!(encoded[0], 0x5a, "field 11");
    let mut inner = take(&mut encoded);
    assert!(encoded.is_empty(), "one event at a time");
    let mut fields = [("type", Value::Null), ("kv", Value::Null), ("prev_kv", Value::Null)];
    while let Some(tag) = inner.first() {
        match tag {
            0x08 => {
                assert_eq!(inner[1], 1);
                fields[0].1 = "DELETE".into();
                inner = &inner[2..];
            }
            0x12 => fields[1].1 = pair(KeyValue::parse(take(&mut inner)).expect("a pair")),
            0x1a => fields[2].1 = pair(KeyValue::parse(take(&mut inner)).expect("a pair")),
            other => panic!("field {other:#x} in an event"),
        }
    }
    object(fields)
}

/// Hides what may differ: who answered, the rest of a lease's time, the order of ties and of sets.
pub(crate) fn canonical(path: &str, request: &Value, mut answer: Value) -> Value {
    if let Some(message) = answer.get("error").or_else(|| answer.get("message")) {
        return json!({"error": message});
    }
    if path.ends_with("/range") {
        canonical_range(request, &mut answer);
    }
    if path.ends_with("/txn") {
        canonical_txn(request, &mut answer);
    }
    if path.ends_with("/timetolive") && answer["TTL"] != "-1" {
        answer["TTL"] = "*".into();
    }
    for set in ["keys", "leases"] {
        if let Some(list) = answer.get_mut(set).and_then(Value::as_array_mut) {
            list.sort_by_key(Value::to_string);
        }
    }
    answer
}

fn canonical_range(request: &Value, answer: &mut Value) {
    let field = match request["sort_target"].as_str() {
        Some("VERSION") => "version",
        Some("CREATE") => "create_revision",
        Some("MOD") => "mod_revision",
        Some("VALUE") => "value",
        _ => return,
    };
    let Some(kvs) = answer.get_mut("kvs") else { return };
    if !request["limit"].is_null() {
        *kvs = kvs.as_array().map_or(0, Vec::len).into();
        return;
    }
    for ties in kvs.as_array_mut().expect("a list").chunk_by_mut(|a, b| a[field] == b[field]) {
        ties.sort_by_key(|kv| kv["key"].to_string());
    }
}

fn canonical_txn(request: &Value, answer: &mut Value) {
    let branch = if answer["succeeded"] == true { "success" } else { "failure" };
    let ops = list(request, branch);
    let Some(responses) = answer.get_mut("responses").and_then(Value::as_array_mut) else { return };
    for (op, response) in ops.iter().zip(responses) {
        if let Some(range) = response.get_mut("response_range") {
            canonical_range(&op["request_range"], range);
        }
        if let Some(txn) = response.get_mut("response_txn") {
            canonical_txn(&op["request_txn"], txn);
        }
    }
}
