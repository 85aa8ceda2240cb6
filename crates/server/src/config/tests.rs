//! Settings from words: etcd's defaults, and a sentence for everything that is wrong.

use std::path::PathBuf;
use std::time::Duration;

use super::{AutoCompaction, Invocation, Settings, parse};

fn settings(words: &[&str]) -> Result<Settings, String> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    match parse(&words, std::iter::empty()) {
        Ok(Invocation::Run(values)) => {
            Settings::from_values(&values, "etcd").map_err(|wrong| wrong.to_string())
        }
        Ok(other) => Err(format!("{other:?}")),
        Err(wrong) => Err(wrong.to_string()),
    }
}

/// Without a word, a member is etcd's default: alone, on the usual ports, in default.etcd.
#[test]
fn defaults_are_etcds() {
    let it = settings(&[]).unwrap();
    assert_eq!(it.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(it.listen_clients[0].to_string(), "http://localhost:2379");
    assert_eq!(it.initial_cluster.members.len(), 1);
    assert_eq!(it.quota_bytes, Some(2 << 30));
    assert_eq!(it.auto_compaction, AutoCompaction::Off);
    let it = settings(&["--name=x", "--auto-compaction-retention=2"]).unwrap();
    assert_eq!(it.auto_compaction, AutoCompaction::Periodic(Duration::from_secs(7200)));
    assert!(it.initial_cluster.members.contains_key("x"));
}

/// Bad values (group 13 of the list of bad inputs) get one sentence that names flag and reason.
#[test]
fn bad_values_are_named() {
    let many: &[(&[&str], &str)] = &[
        (&["--quota-backend-bytes=x"], "whole number"),
        (&["--max-request-bytes=-1"], "from 1"),
        (&["--snapshot-count=0"], "from 1"),
        (&["--max-txn-ops=0"], "from 1"),
        (&["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://a:1"], "out of range"),
        (
            &["--listen-client-urls=http://127.0.0.1:65536", "--advertise-client-urls=http://a:1"],
            "out of range",
        ),
        (&["--listen-client-urls=http://::1:2379", "--advertise-client-urls=http://a:1"], "brackets"),
        (&["--listen-client-urls=http://127.0.0.1:2379"], "--advertise-client-urls is required"),
        (&["--listen-client-urls=http://a.example:2379", "--advertise-client-urls=http://a:1"], "not a name"),
        (&["--listen-peer-urls=http://localhost:2379"], "taken by --listen-client-urls"),
        (&["--listen-peer-urls=http://0.0.0.0:2379"], "taken by --listen-client-urls"),
        (&["--auto-compaction-retention=-1"], "from 0"),
        (&["--auto-compaction-retention=-1s"], "negative"),
        (&["--auto-compaction-mode=revision", "--auto-compaction-retention=-5"], "from 0"),
        (&["--auto-compaction-mode=sometimes"], "periodic or revision"),
        (&["--heartbeat-interval=300"], "5 times"),
        (&["--election-timeout=60000"], "to 50000"),
        (&["--heartbeat-interval=0"], "from 1"),
        (&["--initial-cluster=b=http://localhost:2380"], "couldn't find local name"),
        (&["--initial-cluster=default=http://h:1"], "must be the same"),
        (&["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"], "both"),
        (&["--initial-cluster-state=old"], "new or existing"),
        (&["--protocol=zab"], "allowed is raft"),
        (&["--log-level=loud"], "allowed is debug"),
        (&["--watch-progress-notify-interval=1ms"], "at least 100ms"),
        (&["--name="], "non-empty"),
        (&["--pre-vote=maybe"], "true or false"),
        (&["--max-snapshots=1"], "at least 2"),
    ];
    for (words, why) in many {
        let wrong = settings(words).unwrap_err();
        assert!(wrong.contains(why), "{words:?}: {wrong}");
    }
}
