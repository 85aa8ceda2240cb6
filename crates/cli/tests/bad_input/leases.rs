//! Leases as nobody should use them (group 5).

use std::thread;

use serde_json::{Value, json};

use crate::bench::{Bench, Expect, NOT_FOUND, OUT_OF_RANGE, PRECONDITION, answer, refused};
use crate::common::{Client, PATIENCE, base64, number, until};
use crate::grpc::{self, read_number};

const NOT_THERE: &str = "etcdserver: requested lease not found";
const TOO_LONG: &str = "etcdserver: too large lease TTL";

fn grant(ttl: i64, id: i64) -> Value {
    json!({ "TTL": ttl, "ID": id })
}

/// Spans and ids at every edge of their range; leases that are not there.
#[test]
fn edges() {
    let mut bench = Bench::start(&[]);
    let id = |id: i64| json!({ "ID": id });
    let two_seconds = || Expect::Passes(|answer| answer["TTL"] == "2" && number(&answer["ID"]) > 0);
    bench.ask([
        ("no span at all", "lease/grant", json!({}), two_seconds()),
        ("span 0", "lease/grant", grant(0, 0), two_seconds()),
        ("span -1", "lease/grant", grant(-1, 0), two_seconds()),
        ("span i64::MIN", "lease/grant", grant(i64::MIN, 0), two_seconds()),
        (
            "the longest",
            "lease/grant",
            grant(9_000_000_000, 9),
            answer(json!({ "ID": "9", "TTL": "9000000000" })),
        ),
        ("a second longer", "lease/grant", grant(9_000_000_001, 10), refused(OUT_OF_RANGE, TOO_LONG)),
        ("span i64::MAX", "lease/grant", grant(i64::MAX, 10), refused(OUT_OF_RANGE, TOO_LONG)),
        ("a negative id", "lease/grant", grant(600, -5), answer(json!({ "ID": "-5", "TTL": "600" }))),
        (
            "the smallest id",
            "lease/grant",
            grant(600, i64::MIN),
            answer(json!({ "ID": i64::MIN.to_string(), "TTL": "600" })),
        ),
        (
            "the largest id",
            "lease/grant",
            grant(600, i64::MAX),
            answer(json!({ "ID": i64::MAX.to_string(), "TTL": "600" })),
        ),
        (
            "an id twice",
            "lease/grant",
            grant(600, -5),
            refused(PRECONDITION, "etcdserver: lease already exists"),
        ),
        ("too long, and an id twice", "lease/grant", grant(i64::MAX, -5), refused(OUT_OF_RANGE, TOO_LONG)),
        (
            "a key on a negative lease",
            "kv/put",
            json!({ "key": base64("k"), "lease": -5 }),
            answer(json!({})),
        ),
        ("revoked", "lease/revoke", id(-5), answer(json!({}))),
        ("its key is gone", "kv/range", json!({ "key": base64("k") }), answer(json!({}))),
        ("revoked twice", "lease/revoke", id(-5), refused(NOT_FOUND, NOT_THERE)),
        ("revoked without an id", "lease/revoke", json!({}), refused(NOT_FOUND, NOT_THERE)),
        (
            "renewed after it was revoked: no error, and no time",
            "lease/keepalive",
            id(-5),
            Expect::Passes(|line| line["result"]["ID"] == "-5" && line["result"]["TTL"].is_null()),
        ),
        (
            "renewed without an id",
            "lease/keepalive",
            json!({}),
            Expect::Passes(|line| line["result"]["header"].is_object() && line["result"]["TTL"].is_null()),
        ),
        (
            "what is left of a revoked one",
            "lease/timetolive",
            id(-5),
            answer(json!({ "ID": "-5", "TTL": "-1" })),
        ),
        (
            "what is left of the longest",
            "lease/timetolive",
            id(9),
            Expect::Passes(|answer| {
                number(&answer["TTL"]) > 8_999_999_000 && answer["grantedTTL"] == "9000000000"
            }),
        ),
        (
            "a put on a revoked one",
            "kv/put",
            json!({ "key": base64("k"), "lease": -5 }),
            refused(NOT_FOUND, NOT_THERE),
        ),
    ]);
    bench.is_sound("the edges of leases");
}

/// Thousands of leases, all due together, all end, and their keys with them; meanwhile others are served.
#[test]
fn thousands_end_together() {
    // A member ends at most 750 a second.
    const COUNT: i64 = 3000;
    let mut bench = Bench::start(&["--heartbeat-interval=20", "--election-timeout=200"]);
    let wire = bench.grpc();
    let grants: Vec<Vec<u8>> =
        (1..=COUNT).map(|id| [grpc::number(1, 1), grpc::number(2, id)].concat()).collect();
    for ended in wire.all("/etcdserverpb.Lease/LeaseGrant", &grants) {
        assert_eq!((ended.code, ended.message.as_str()), (0, ""));
    }
    // A key on each of those that are still there.
    let puts: Vec<Vec<u8>> = (1..=COUNT)
        .map(|id| [grpc::bytes(1, format!("leased-{id}").as_bytes()), grpc::number(3, id)].concat())
        .collect();
    let mut attached = 0;
    for ended in wire.all("/etcdserverpb.KV/Put", &puts) {
        attached += u32::from(ended.code == 0);
        assert!(
            ended.code == 0 || (ended.code, ended.message.as_str()) == (NOT_FOUND, NOT_THERE),
            "{ended:?}"
        );
    }
    assert!(attached > 0, "all leases ended before a single key was put");
    let mut round = 0;
    until("all leases have ended", || {
        round += 1;
        bench.put("served", round.to_string());
        bench.must("lease/leases", &json!({}))["leases"].is_null()
    });
    let leased = json!({ "key": base64("leased-"), "range_end": base64("leased."), "count_only": true });
    bench.ask([("no key is left", "kv/range", leased, answer(json!({})))]);
    bench.is_sound("the end of many leases");
}

/// A lease that is revoked while it is being renewed answers every renewal, in order: time, and after the end none, and never again some.
#[test]
fn revoked_while_renewed() {
    const RENEWALS: usize = 2000;
    let mut bench = Bench::start(&[]);
    bench.must("lease/grant", &grant(60, 7));
    let key = json!({ "key": base64("k"), "lease": 7 });
    bench.must("kv/put", &key);
    let wire = bench.grpc();
    let port = bench.cluster.members[0].client;
    let revoker = thread::spawn(move || {
        Client::at(port, PATIENCE).call("/v3/lease/revoke", &json!({ "ID": 7 })).expect("revoked once");
    });
    let renewals = vec![grpc::number(1, 7); RENEWALS];
    let ended = wire.call("/etcdserverpb.Lease/LeaseKeepAlive", &renewals);
    revoker.join().expect("revoked");
    assert_eq!((ended.code, ended.replies.len()), (0, RENEWALS), "{}", ended.message);
    let spans: Vec<i64> = ended.replies.iter().map(|reply| read_number(reply, 3)).collect();
    let end = spans.iter().position(|span| *span == 0).unwrap_or(RENEWALS);
    assert!(
        spans[..end].iter().all(|span| *span == 60) && spans[end..].iter().all(|span| *span == 0),
        "{spans:?}"
    );
    // One that comes after the revocation was acknowledged never gives time.
    let late = wire.call("/etcdserverpb.Lease/LeaseKeepAlive", &[grpc::number(1, 7)]);
    assert_eq!(read_number(&late.replies[0], 3), 0);
    bench.ask([("its key is gone", "kv/range", json!({ "key": base64("k") }), answer(json!({})))]);
    bench.is_sound("a lease revoked while renewed");
}
