//! Transactions as nobody should send them (group 4).

use serde_json::{Value, json};

use crate::bench::{
    Bench, Expect, INVALID, OUT_OF_RANGE, Row, answer, op_delete, op_put, op_range, op_txn, refused,
};
use crate::common::base64;
use crate::grpc;

const TXN: &str = "kv/txn";
const TOO_MANY: &str = "etcdserver: too many operations in txn request";
const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const NO_KEY: &str = "etcdserver: key is not provided";

fn branch(success: Vec<Value>) -> Value {
    json!({ "success": success })
}

fn puts(prefix: &str, count: usize) -> Vec<Value> {
    (0..count).map(|i| op_put(&format!("{prefix}{i}"))).collect()
}

/// A success with this many responses.
fn done() -> Expect {
    Expect::Passes(|answer| answer["succeeded"] == true && answer["responses"].is_array())
}

/// 128 operations pass and 129 do not, in each of the three lists and in what nesting leaves of them.
#[test]
fn sizes() {
    let mut bench = Bench::start(&[]);
    let compares = |count: usize| -> Vec<Value> {
        let compare = |i: usize| json!({ "key": base64(format!("c{i}")), "target": "VERSION", "version": 0 });
        (0..count).map(compare).collect()
    };
    let many = || refused(INVALID, TOO_MANY);
    bench.ask([
        ("128 puts", TXN, branch(puts("a", 128)), done()),
        ("129 puts", TXN, branch(puts("b", 129)), many()),
        ("129 reads", TXN, branch((0..129).map(|_| op_range("a0")).collect()), many()),
        (
            "129 in the branch not taken",
            TXN,
            json!({ "success": [op_put("x")], "failure": puts("f", 129) }),
            many(),
        ),
        (
            "128 in each list",
            TXN,
            json!({ "compare": compares(128), "success": puts("s", 128), "failure": puts("s", 128) }),
            done(),
        ),
        ("129 compares", TXN, json!({ "compare": compares(129), "success": [op_put("x")] }), many()),
        (
            "64 and then 64 in a nested one",
            TXN,
            branch([puts("o", 63), vec![op_txn(puts("i", 64), vec![])]].concat()),
            done(),
        ),
        (
            "64 and then 65 in a nested one",
            TXN,
            branch([puts("p", 63), vec![op_txn(puts("q", 65), vec![])]].concat()),
            many(),
        ),
    ]);
    let rows = ["b0", "x", "p0", "q0"];
    let nothing = rows.map(|key| -> Row {
        ("nothing of a refused one happened", "kv/range", json!({ "key": base64(key) }), answer(json!({})))
    });
    bench.ask(nothing);
    bench.is_sound("the sizes");
}

/// Whatever the depth from 1 to 1000, there is an answer: done while the budget of operations lasts, refused by name from there on.
#[test]
fn depths() {
    let mut bench = Bench::start(&[]);
    let nested =
        |depth: usize| (1..depth).fold(Vec::new(), |inner, _| grpc::bytes(2, &grpc::bytes(4, &inner)));
    let messages: Vec<Vec<u8>> = (1..=1000).map(nested).collect();
    let answers = bench.grpc().all("/etcdserverpb.KV/Txn", &messages);
    for (depth, ended) in (1..).zip(&answers) {
        match depth {
            ..=128 => assert_eq!((ended.code, ended.message.as_str()), (0, ""), "depth {depth}"),
            _ => assert_eq!((ended.code, ended.message.as_str()), (INVALID, TOO_MANY), "depth {depth}"),
        }
    }
    // Far deeper than anybody's stack; within the size limit.
    let deepest = bench.grpc().call("/etcdserverpb.KV/Txn", &[nested(100_000)]);
    assert_eq!((deepest.code, deepest.message.as_str()), (INVALID, TOO_MANY));
    bench.is_sound("the depths");
}

/// Two writes of one key in one branch are refused however they are dressed; in branches that exclude each other they are not.
#[test]
fn duplicates() {
    let mut bench = Bench::start(&[]);
    let duplicate = || refused(INVALID, DUPLICATE);
    bench.ask([
        ("two puts", TXN, branch(vec![op_put("a"), op_put("a")]), duplicate()),
        ("in the branch not taken", TXN, json!({ "failure": [op_put("a"), op_put("a")] }), duplicate()),
        ("a put and its delete", TXN, branch(vec![op_put("a"), op_delete("a", "")]), duplicate()),
        ("a delete and then its put", TXN, branch(vec![op_delete("a", ""), op_put("a")]), duplicate()),
        ("a put in a deleted range", TXN, branch(vec![op_delete("a", "c"), op_put("b")]), duplicate()),
        (
            "a put deeper",
            TXN,
            branch(vec![op_put("a"), op_txn(vec![op_txn(vec![], vec![op_put("a")])], vec![])]),
            duplicate(),
        ),
        (
            "a put deeper in a range deleted above",
            TXN,
            branch(vec![op_delete("a", "c"), op_txn(vec![], vec![op_put("b")])]),
            duplicate(),
        ),
        (
            "a put above in a range deleted deeper",
            TXN,
            branch(vec![op_put("b"), op_txn(vec![op_delete("a", "c")], vec![])]),
            duplicate(),
        ),
        (
            "two nested ones side by side",
            TXN,
            branch(vec![op_txn(vec![op_put("a")], vec![]), op_txn(vec![], vec![op_put("a")])]),
            duplicate(),
        ),
        (
            "nothing happened so far",
            "kv/range",
            json!({ "key": base64("a"), "range_end": base64("c") }),
            answer(json!({})),
        ),
        ("in both branches", TXN, json!({ "success": [op_put("a")], "failure": [op_put("a")] }), done()),
        (
            "in both branches of a nested one",
            TXN,
            branch(vec![op_txn(vec![op_put("b")], vec![op_put("b")])]),
            done(),
        ),
        // etcd's check takes an end of NUL for a key, not for the end of all keys; so both are done, one after the other.
        ("everything deleted, and then a put", TXN, branch(vec![op_delete("\0", "\0"), op_put("b")]), done()),
        (
            "it is there",
            "kv/range",
            json!({ "key": base64("b"), "count_only": true }),
            answer(json!({ "count": "1" })),
        ),
        ("a put, and then everything deleted", TXN, branch(vec![op_put("b"), op_delete("\0", "\0")]), done()),
        ("it is gone", "kv/range", json!({ "key": base64("b"), "count_only": true }), answer(json!({}))),
        ("two deletes", TXN, branch(vec![op_delete("a", "c"), op_delete("b", "d")]), done()),
        ("a range that ends where the put is", TXN, branch(vec![op_delete("a", "b"), op_put("b")]), done()),
        ("a range whose end is before its key", TXN, branch(vec![op_delete("c", "a"), op_put("b")]), done()),
    ]);
    bench.is_sound("the duplicates");
}

/// Operations and compares that say nothing, or nonsense, get etcd's words, wherever they stand.
#[test]
fn contents() {
    let mut bench = Bench::start(&[]);
    bench.put("k", "v");
    let compare =
        |compare: Value| json!({ "compare": [compare], "success": [op_put("s")], "failure": [op_put("f")] });
    let no_key = || refused(INVALID, NO_KEY);
    let holds = || Expect::Passes(|answer| answer["succeeded"] == true);
    let fails = || Expect::Passes(|answer| answer["succeeded"].is_null() && answer["responses"].is_array());
    let nil = || refused(INVALID, "etcdserver: key not found");
    bench.ask([
        ("nothing at all", TXN, json!({}), answer(json!({ "succeeded": true }))),
        ("an operation without content", TXN, branch(vec![json!({})]), nil()),
        ("behind a put", TXN, branch(vec![op_put("n"), json!({})]), nil()),
        ("in a nested one", TXN, branch(vec![op_txn(vec![json!({})], vec![])]), nil()),
        ("a put without a key", TXN, branch(vec![json!({ "request_put": {} })]), no_key()),
        ("a read without a key", TXN, json!({ "failure": [{ "request_range": {} }] }), no_key()),
        ("a delete without a key", TXN, branch(vec![json!({ "request_delete_range": {} })]), no_key()),
        ("a compare without a key", TXN, compare(json!({})), no_key()),
        ("a compare with an end and no key", TXN, compare(json!({ "range_end": base64("z") })), no_key()),
        (
            "a read with order 99",
            TXN,
            branch(vec![json!({ "request_range": { "key": base64("k"), "sort_order": 99 } })]),
            refused(INVALID, "etcdserver: invalid sort option"),
        ),
        (
            "a put of a value that it is to ignore",
            TXN,
            branch(vec![op_put("n"), json!({ "request_put": { "key": base64("k"), "value": "eA==", "ignore_value": true } })]),
            refused(INVALID, "etcdserver: value is provided"),
        ),
        (
            "a put with an unknown lease beside one without",
            TXN,
            branch(vec![op_put("n"), json!({ "request_put": { "key": base64("k"), "lease": 424_242 } })]),
            refused(5, "etcdserver: requested lease not found"),
        ),
        (
            "ignore_value of a missing key beside a put",
            TXN,
            branch(vec![op_put("n"), json!({ "request_put": { "key": base64("missing"), "ignore_value": true } })]),
            nil(),
        ),
        ("nothing happened so far", "kv/range", json!({ "key": base64("n") }), answer(json!({}))),
        (
            "a range of which all were made",
            TXN,
            compare(json!({ "key": base64("k"), "range_end": base64("l"), "target": "CREATE", "result": "GREATER", "create_revision": 0 })),
            holds(),
        ),
        (
            "a range in which nothing is, compared with zero",
            TXN,
            compare(json!({ "key": base64("y"), "range_end": base64("z"), "target": "VERSION", "version": 0 })),
            holds(),
        ),
        (
            "a range in which nothing is, compared by value",
            TXN,
            compare(json!({ "key": base64("y"), "range_end": base64("z"), "target": "VALUE", "result": "NOT_EQUAL", "value": "eA==" })),
            fails(),
        ),
        ("an end before the key", TXN, compare(json!({ "key": base64("z"), "range_end": base64("a"), "target": "MOD", "mod_revision": 0 })), holds()),
        ("result 99 is true", TXN, compare(json!({ "key": base64("k"), "result": 99, "version": 7 })), holds()),
    ]);
    bench.is_sound("the contents");
}

/// A transaction that reads a compacted or a future revision beside its writes fails as a whole: none of them happens.
#[test]
fn reads_of_lost_revisions_take_the_writes_with_them() {
    let mut bench = Bench::start(&[]);
    let first = bench.put("k", "1");
    let current = bench.put("k", "2");
    bench.must("kv/compaction", &json!({ "revision": current }));
    let read = |revision: i64| json!({ "request_range": { "key": base64("k"), "revision": revision } });
    let compacted = || refused(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted");
    let future = || refused(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision");
    bench.ask([
        ("compacted, behind the write", TXN, branch(vec![op_put("w"), read(first)]), compacted()),
        ("compacted, before it", TXN, branch(vec![read(first), op_put("w")]), compacted()),
        (
            "compacted, and the write deeper",
            TXN,
            branch(vec![read(first), op_txn(vec![op_put("w")], vec![])]),
            compacted(),
        ),
        (
            "compacted, deeper than the write",
            TXN,
            branch(vec![op_put("w"), op_txn(vec![read(first)], vec![])]),
            compacted(),
        ),
        ("compacted, and no write", TXN, branch(vec![read(first)]), compacted()),
        // The write would make this revision; it is not there when the transaction begins.
        ("of the future", TXN, branch(vec![op_put("w"), read(current + 1)]), future()),
        ("of the far future", TXN, branch(vec![op_put("w"), read(i64::MAX)]), future()),
        ("none of the writes happened", "kv/range", json!({ "key": base64("w") }), answer(json!({}))),
        (
            "in the branch that is not taken it does not matter",
            TXN,
            json!({ "success": [op_put("w")], "failure": [read(first), op_put("w")] }),
            done(),
        ),
        ("what is compacted to can be read", TXN, branch(vec![read(current), op_put("v")]), done()),
    ]);
    bench.is_sound("the lost revisions");
}
