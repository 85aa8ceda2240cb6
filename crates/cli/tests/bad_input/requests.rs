//! Keys, ranges and puts as nobody should send them (groups 1 to 3).

use serde_json::{Value, json};

use crate::bench::{
    Bench, EXHAUSTED, Expect, INVALID, NOT_FOUND, OUT_OF_RANGE, UNAVAILABLE, answer, refused,
};
use crate::common::{CallError, Cluster, PATIENCE, base64};
use crate::grpc;

const NO_KEY: &str = "etcdserver: key is not provided";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const TOO_LARGE: &str = "etcdserver: request is too large";

fn keys_of(answer: &Value) -> Vec<&str> {
    answer["kvs"].as_array().into_iter().flatten().filter_map(|kv| kv["key"].as_str()).collect()
}

/// Any bytes but none are a key; ranges that hold nothing answer nothing; 1.4 MB of key and ten thousand prefixes are carried.
#[test]
fn keys() {
    let mut bench = Bench::start(&[]);
    let one = || Expect::Passes(|answer| answer["count"] == "1");
    let key = |key: &[u8], end: &[u8]| json!({ "key": base64(key), "range_end": base64(end) });
    let put = |key: &[u8]| json!({ "key": base64(key), "value": base64("x") });
    let long = vec![b'k'; 1_400_000];
    bench.ask([
        ("no key", "kv/put", json!({ "value": base64("x") }), refused(INVALID, NO_KEY)),
        ("empty key", "kv/put", put(b""), refused(INVALID, NO_KEY)),
        ("empty key", "kv/range", key(b"", b""), refused(INVALID, NO_KEY)),
        ("empty key with an end", "kv/range", key(b"", b"z"), refused(INVALID, NO_KEY)),
        ("empty key", "kv/deleterange", key(b"", b"\0"), refused(INVALID, NO_KEY)),
        ("nothing at all", "kv/range", json!({}), refused(INVALID, NO_KEY)),
        ("NUL", "kv/put", put(b"\0"), answer(json!({}))),
        ("NUL is a key like others", "kv/range", key(b"\0", b""), one()),
        ("0xff", "kv/put", put(&[0xff; 64]), answer(json!({}))),
        ("0xff", "kv/range", key(&[0xff; 64], b""), one()),
        ("0xff to the end of all keys", "kv/range", key(&[0xff], b"\0"), one()),
        ("the end beyond 0xff", "kv/range", key(&[0xff], &[0xff; 65]), one()),
        ("not UTF-8", "kv/put", put(b"\xc3\x28\xed\xa0\x80"), answer(json!({}))),
        ("not UTF-8", "kv/range", key(b"\xc3\x28\xed\xa0\x80", b""), one()),
        ("1.4 MB", "kv/put", put(&long), answer(json!({}))),
        (
            "1.4 MB",
            "kv/range",
            key(&long, b""),
            Expect::Passes(|answer| keys_of(answer).iter().all(|key| key.len() > 1_400_000)),
        ),
        ("1.4 MB", "kv/deleterange", key(&long, b""), answer(json!({ "deleted": "1" }))),
        ("the end is the key", "kv/range", key(b"\0", b"\0a"), one()),
        ("the end is the key", "kv/range", key(b"a", b"a"), answer(json!({}))),
        ("the end is before the key", "kv/range", key(b"b", b"a"), answer(json!({}))),
        ("the end is before the key", "kv/deleterange", key(b"b", b"a"), answer(json!({}))),
        ("the end is the key", "kv/deleterange", key(b"a", b"a"), answer(json!({}))),
        (
            "everything",
            "kv/range",
            json!({ "key": base64(b"\0"), "range_end": base64(b"\0"), "count_only": true }),
            answer(json!({ "count": "3" })),
        ),
    ]);
    // A hundred prefixes a transaction.
    let wire = bench.grpc();
    let txns: Vec<Vec<u8>> = (0..100)
        .map(|hundred| {
            (0..100).fold(Vec::new(), |mut txn, i| {
                let key = format!("prefix-{hundred}-{i}/");
                let put = [grpc::bytes(1, key.as_bytes()), grpc::bytes(2, b"x")].concat();
                txn.extend(grpc::bytes(2, &grpc::bytes(2, &put)));
                txn
            })
        })
        .collect();
    for ended in wire.all("/etcdserverpb.KV/Txn", &txns) {
        assert_eq!(ended.code, 0, "{}", ended.message);
    }
    let count = json!({ "key": base64("prefix-"), "range_end": base64("prefix."), "count_only": true });
    bench.ask([("ten thousand prefixes", "kv/range", count, answer(json!({ "count": "10000" })))]);
    bench.is_sound("the keys");
}

/// Every revision, limit, order and filter that a number can say has etcd's answer.
#[test]
fn ranges() {
    let mut bench = Bench::start(&[]);
    let first = bench.put("k", "1");
    let compacted = bench.put("k", "2");
    let newest = bench.put("k", "3");
    bench.put("l", "1");
    let current = bench.put("m", "1");
    let compact = |revision: i64| json!({ "revision": revision });
    bench.must("kv/compaction", &compact(compacted));
    let at = |revision: i64| json!({ "key": base64("k"), "revision": revision });
    let all = |more: Value| {
        let mut range = json!({ "key": base64("k"), "range_end": base64("z") });
        let fields = more.as_object().expect("an object").clone();
        range.as_object_mut().expect("an object").extend(fields);
        range
    };
    let two = || Expect::Passes(|answer| answer["kvs"][0]["value"] == "Mg==");
    let three = || Expect::Passes(|answer| answer["kvs"][0]["value"] == "Mw==");
    let whole =
        || Expect::Passes(|answer| keys_of(answer) == ["aw==", "bA==", "bQ=="] && answer["more"].is_null());
    bench.ask([
        ("revision -1 is the newest", "kv/range", at(-1), three()),
        ("i64::MIN, too", "kv/range", at(i64::MIN), three()),
        ("revision 0 is the newest", "kv/range", at(0), three()),
        ("revision 1 is compacted", "kv/range", at(1), refused(OUT_OF_RANGE, COMPACTED)),
        ("one below what is compacted", "kv/range", at(first), refused(OUT_OF_RANGE, COMPACTED)),
        ("what is compacted can be read", "kv/range", at(compacted), two()),
        ("one above", "kv/range", at(newest), three()),
        ("the newest", "kv/range", at(current), three()),
        ("one more than the newest", "kv/range", at(current + 1), refused(OUT_OF_RANGE, FUTURE)),
        ("i64::MAX", "kv/range", at(i64::MAX), refused(OUT_OF_RANGE, FUTURE)),
        ("compacted twice", "kv/compaction", compact(compacted), refused(OUT_OF_RANGE, COMPACTED)),
        ("compaction at 0", "kv/compaction", compact(0), refused(OUT_OF_RANGE, COMPACTED)),
        ("compaction at -1", "kv/compaction", compact(-1), refused(OUT_OF_RANGE, COMPACTED)),
        ("compaction of the future", "kv/compaction", compact(current + 1), refused(OUT_OF_RANGE, FUTURE)),
        ("compaction at i64::MAX", "kv/compaction", compact(i64::MAX), refused(OUT_OF_RANGE, FUTURE)),
        ("limit -1 is none", "kv/range", all(json!({ "limit": -1 })), whole()),
        ("limit i64::MAX", "kv/range", all(json!({ "limit": i64::MAX })), whole()),
        ("limit i64::MIN", "kv/range", all(json!({ "limit": i64::MIN })), whole()),
        (
            "limit 1 of three",
            "kv/range",
            all(json!({ "limit": 1 })),
            Expect::Passes(|answer| {
                keys_of(answer) == ["aw=="] && answer["more"] == true && answer["count"] == "3"
            }),
        ),
        (
            "order 99",
            "kv/range",
            all(json!({ "sort_order": 99 })),
            refused(INVALID, "etcdserver: invalid sort option"),
        ),
        (
            "order -1",
            "kv/range",
            all(json!({ "sort_order": -1 })),
            refused(INVALID, "etcdserver: invalid sort option"),
        ),
        (
            "target 99",
            "kv/range",
            all(json!({ "sort_target": 99 })),
            refused(INVALID, "etcdserver: invalid sort option"),
        ),
        (
            "target -1",
            "kv/range",
            all(json!({ "sort_target": -1 })),
            refused(INVALID, "etcdserver: invalid sort option"),
        ),
        (
            "min above max",
            "kv/range",
            all(json!({ "min_mod_revision": current, "max_mod_revision": 1 })),
            answer(json!({ "count": "3" })),
        ),
        (
            "created after it was made",
            "kv/range",
            all(json!({ "min_create_revision": i64::MAX, "max_create_revision": i64::MIN })),
            answer(json!({ "count": "3" })),
        ),
        (
            "count alone, and keys alone, and a limit",
            "kv/range",
            all(json!({ "count_only": true, "keys_only": true, "limit": 1, "sort_target": "VALUE" })),
            answer(json!({ "count": "3" })),
        ),
        (
            "keys alone, sorted by what is not shown",
            "kv/range",
            all(json!({ "keys_only": true, "sort_target": "VALUE", "sort_order": "DESCEND", "limit": 1 })),
            Expect::Passes(|answer| keys_of(answer) == ["aw=="] && answer["kvs"][0]["value"].is_null()),
        ),
    ]);
    bench.is_sound("the ranges");
}

/// A member that its cluster cannot reach answers serializable reads, and refuses the rest in time.
#[test]
fn alone_in_a_cluster_of_two() {
    let mut cluster = Cluster::start(2, &["--heartbeat-interval=20", "--election-timeout=200"]);
    let mut client = cluster.members[0].client();
    client.timeout = PATIENCE;
    client.put("k", "1").expect("both are there");
    client.read("k").expect("read");
    cluster.members[1].kill();
    let local = json!({ "key": base64("k"), "serializable": true });
    assert_eq!(client.call("/v3/kv/range", &local).expect("local")["kvs"][0]["value"], base64("1"));
    // Which of the sentences it is depends on when the member noticed; they share a code, so that a client tries elsewhere.
    for (path, request) in [
        ("/v3/kv/range", json!({ "key": base64("k") })),
        ("/v3/kv/put", json!({ "key": base64("k"), "value": base64("2") })),
    ] {
        match client.call(path, &request) {
            Err(CallError::Refused(refusal)) => {
                let sentence = refusal["message"].as_str().unwrap_or_default();
                let known =
                    ["etcdserver: request timed out", "etcdserver: no leader", "etcdserver: leader changed"];
                assert!(
                    refusal["code"] == UNAVAILABLE && known.iter().any(|known| sentence.starts_with(known)),
                    "{path}: {refusal}"
                );
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    assert_eq!(client.call("/v3/kv/range", &local).expect("local")["kvs"][0]["value"], base64("1"));
    cluster.members[1].start();
    cluster.await_ready();
    // The refused put was never promised, and may have happened all the same.
    let value = client.read("k").expect("a majority").expect("a value");
    assert!(value == base64("1") || value == base64("2"), "{value}");
    for member in &cluster.members {
        assert!(!member.log().contains("panicked"), "{}", member.log());
    }
}

/// Flags that contradict the request, leases that are not there, and values around both size limits.
#[test]
fn puts() {
    let mut bench = Bench::start(&[]);
    bench.put("k", "kept");
    let no_lease = || refused(NOT_FOUND, "etcdserver: requested lease not found");
    let with = |key: &str, more: Value| {
        let mut put = json!({ "key": base64(key) });
        put.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        put
    };
    let x = base64("x");
    bench.ask([
        (
            "ignore_value with a value",
            "kv/put",
            with("k", json!({ "ignore_value": true, "value": x })),
            refused(INVALID, "etcdserver: value is provided"),
        ),
        (
            "ignore_lease with a lease",
            "kv/put",
            with("k", json!({ "ignore_lease": true, "lease": 7, "value": x })),
            refused(INVALID, "etcdserver: lease is provided"),
        ),
        (
            "ignore_value of a missing key",
            "kv/put",
            with("missing", json!({ "ignore_value": true })),
            refused(INVALID, "etcdserver: key not found"),
        ),
        (
            "ignore_lease of a missing key",
            "kv/put",
            with("missing", json!({ "ignore_lease": true, "value": x })),
            refused(INVALID, "etcdserver: key not found"),
        ),
        ("lease 424242", "kv/put", with("k", json!({ "lease": 424_242, "value": x })), no_lease()),
        ("lease -1", "kv/put", with("k", json!({ "lease": -1, "value": x })), no_lease()),
        ("lease i64::MIN", "kv/put", with("k", json!({ "lease": i64::MIN, "value": x })), no_lease()),
        (
            "nothing of it changed the key",
            "kv/range",
            with("k", json!({})),
            Expect::Passes(|answer| answer["kvs"][0]["version"] == "1"),
        ),
        (
            "both flags keep both",
            "kv/put",
            with("k", json!({ "ignore_value": true, "ignore_lease": true })),
            answer(json!({})),
        ),
        (
            "the value is what it was",
            "kv/range",
            with("k", json!({})),
            Expect::Passes(|answer| {
                answer["kvs"][0]["value"] == "a2VwdA==" && answer["kvs"][0]["version"] == "2"
            }),
        ),
    ]);

    // By the size of the whole request, for this is what both limits are about.
    const REQUEST: usize = 1_572_864;
    const MESSAGE: usize = REQUEST + 512 * 1024;
    let wire = bench.grpc();
    let request_of = |size: usize| {
        let key = grpc::bytes(1, b"big");
        // Values of nearly this length have the same number of bytes in front of them.
        let around = key.len() + grpc::bytes(2, &vec![0; size - 10]).len() - (size - 10);
        let request = [key, grpc::bytes(2, &vec![b'v'; size - around])].concat();
        assert_eq!(request.len(), size);
        request
    };
    let value_of = |size: usize| [grpc::bytes(1, b"big"), grpc::bytes(2, &vec![b'v'; size])].concat();
    for (what, request, code, sentence) in [
        ("a request of 1.5 MiB - 1", request_of(REQUEST - 1), 0, ""),
        ("a request of 1.5 MiB", request_of(REQUEST), 0, ""),
        ("a request of 1.5 MiB + 1", request_of(REQUEST + 1), INVALID, TOO_LARGE),
        ("a value of 1.5 MiB - 1", value_of(REQUEST - 1), INVALID, TOO_LARGE),
        ("a value of 1.5 MiB", value_of(REQUEST), INVALID, TOO_LARGE),
        ("a value of 1.5 MiB + 1", value_of(REQUEST + 1), INVALID, TOO_LARGE),
        ("a message of 2 MiB", request_of(MESSAGE), INVALID, TOO_LARGE),
        (
            "a message of 2 MiB + 1",
            request_of(MESSAGE + 1),
            EXHAUSTED,
            "grpc: received message larger than max (2097153 vs. 2097152)",
        ),
    ] {
        let ended = wire.call("/etcdserverpb.KV/Put", &[request]);
        assert_eq!((ended.code, ended.message.as_str()), (code, sentence), "{what}");
    }
    bench.ask([
        (
            "over JSON, too",
            "kv/put",
            json!({ "key": base64("big"), "value": base64(vec![b'v'; REQUEST]) }),
            refused(INVALID, TOO_LARGE),
        ),
        (
            "what was accepted is there",
            "kv/range",
            json!({ "key": base64("big") }),
            Expect::Passes(|answer| answer["kvs"][0]["version"] == "2"),
        ),
    ]);
    bench.is_sound("the puts");
}
