//! The recorded transcripts: 700 requests each, with the answers that real etcd gave, HashKV included.
//!
//! Needs `../shared/oracles`, `python3` and Debian's `etcd-client`; skips with a message where they are absent.

mod common;

use std::process::Command;

use common::Cluster;

/// Every recorded answer is ours as well.
#[test]
fn every_recorded_answer_is_ours() {
    let Some(oracles) = common::shared("oracles") else {
        eprintln!("skipped: ../shared/oracles is not there");
        return;
    };
    if !common::is_installed("python3", "--version") || !common::is_installed("etcdctl", "--help") {
        eprintln!("skipped: python3 or etcdctl is not installed");
        return;
    }
    let mut replayed = 0;
    for entry in std::fs::read_dir(oracles.join("etcd/transcripts")).expect("a folder").flatten() {
        let cluster = Cluster::start(1, &[]);
        let mut tool = Command::new("python3");
        tool.arg(oracles.join("tools/transcript_replay.py"))
            .arg(format!("http://127.0.0.1:{}", cluster.members[0].client))
            .arg(entry.path())
            .arg("--hashkv");
        let (status, said) = common::ended(&mut tool);
        assert!(status.success(), "{}: {said}", entry.path().display());
        println!("{}", said.trim());
        replayed += 1;
    }
    assert!(replayed > 0, "the folder holds transcripts");
}
