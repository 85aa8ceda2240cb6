//! What a real etcd answered, request by request: replayed on the store alone.
//!
//! The four transcripts (3.4.23 and 3.5.1, two seeds each; `oracles/etcd/transcripts`, beside the checkout) hold requests and answers of
//! the JSON gateway. Here they are converted to operations, applied, and the store's answers are converted back. Headers
//! are compared by their revision alone, sorts by anything but the key with their ties in any order, and the time that a
//! lease has left not at all. Without the folder the test says so and passes.

mod gateway;

use std::fs;
use std::path::PathBuf;

use gateway::{Gateway, canonical};
use serde_json::Value;

fn folder() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracles/etcd/transcripts");
    root.is_dir().then_some(root)
}

fn replay(name: &str) {
    let Some(folder) = folder() else {
        println!("skipped: the folder shared/oracles/etcd/transcripts is not beside the checkout");
        return;
    };
    let text = fs::read_to_string(folder.join(name)).expect("a transcript");
    let mut gateway = Gateway::default();
    let (mut matched, mut total, mut hashes) = (0, 0, 0);
    for line in text.lines() {
        let step: Value = serde_json::from_str(line).expect("a line of JSON");
        if step["i"] == "hashkv" {
            let got = gateway.store.view().hash_kv(step["rev"].as_i64().unwrap()).expect("a hash");
            assert_eq!(
                u64::from(got.hash),
                step["hash"].as_u64().unwrap(),
                "{name}: hash at {}",
                step["rev"]
            );
            assert_eq!(got.compact_revision, step["compact_revision"].as_i64().unwrap());
            hashes += 1;
            continue;
        }
        let path = step["path"].as_str().expect("a path");
        if path == "/v3/watch" {
            let events = gateway.watch_all(step["start_revision"].as_i64().unwrap());
            let expected = step["events"].as_array().unwrap();
            for (i, (got, expected)) in events.iter().zip(expected).enumerate() {
                assert_eq!(got, expected, "{name}: event {i}");
            }
            assert_eq!(events.len(), expected.len(), "{name}: number of events");
        } else {
            let got = gateway.call(path, &step["req"]);
            let (got, expected) =
                (canonical(path, &step["req"], got), canonical(path, &step["req"], step["resp"].clone()));
            assert_eq!(got, expected, "{name}: step {} {path} {}", step["i"], step["req"]);
        }
        total += 1;
        matched += 1;
        // Removal from memory runs beside it all, and must make no difference.
        gateway.store.scrub(7);
        assert_eq!(gateway.store.digest(), gateway.store.digest_audited(), "{name}: step {}", step["i"]);
    }
    assert_eq!((matched, hashes), (total, 3));
    assert_eq!(total, 701, "700 requests and a watch");
}

/// The store answers a transcript of etcd 3.4.23 letter by letter, the consistency hashes included.
#[test]
fn etcd_3_4_23_seed_1() {
    replay("3.4.23-seed1.jsonl");
}

/// As above, with another seed.
#[test]
fn etcd_3_4_23_seed_2() {
    replay("3.4.23-seed2.jsonl");
}

/// As above, of etcd 3.5.1.
#[test]
fn etcd_3_5_1_seed_1() {
    replay("3.5.1-seed1.jsonl");
}

/// As above, of etcd 3.5.1 with another seed.
#[test]
fn etcd_3_5_1_seed_2() {
    replay("3.5.1-seed2.jsonl");
}
