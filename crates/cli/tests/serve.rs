//! Members as people run them: started, used, stopped, started again, and started wrongly.

mod common;

use std::fs;
use std::process::Command;

use common::{Cluster, SYNOD, ended, until};

/// One member keeps what it acknowledged over an orderly stop and over a kill, and ends with status 0 when asked to.
#[test]
fn one_member_remembers() {
    let mut cluster = Cluster::start(1, &[]);
    let first = cluster.members[0].client().put("a", "1").expect("put");
    assert!(cluster.members[0].terminate().success(), "{}", cluster.members[0].log());
    assert!(cluster.members[0].log().contains("ready to serve client requests"));
    cluster.members[0].start();
    cluster.await_ready();
    let mut client = cluster.members[0].client();
    assert_eq!(client.read("a").expect("read"), Some(common::base64("1")));
    assert!(client.put("b", "2").expect("put") > first, "revisions go on");
    cluster.members[0].kill();
    cluster.members[0].start();
    cluster.await_ready();
    assert_eq!(cluster.members[0].client().read("b").expect("read"), Some(common::base64("2")));
}

/// Three members serve the same data at each of them, lose any one without a pause worth an error, and agree.
#[test]
fn three_members_serve_and_lose_one() {
    let mut cluster = Cluster::start(3, &["--heartbeat-interval=50", "--election-timeout=500"]);
    for i in 0..3 {
        cluster.members[i].client().put(&format!("from-{i}"), "x").expect("put");
    }
    for member in &cluster.members {
        assert!(member.client().read("from-0").expect("read").is_some());
    }
    let mut leader = None;
    until("a leader shows", || {
        leader = cluster.leader();
        leader.is_some()
    });
    let leader = leader.expect("it showed");
    assert!(cluster.members[leader].terminate().success());
    let rest: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    let mut client = cluster.members[rest[0]].client();
    client.timeout = common::PATIENCE;
    let revision = client.put("after", "y").expect("two of three go on");
    cluster.members[leader].start();
    cluster.await_ready();
    let hashes = cluster.hashes(revision);
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

/// A member that was away for longer than its peers remember gets a snapshot, and agrees with them afterwards.
#[test]
fn a_member_that_was_away_gets_a_snapshot() {
    let flags = [
        "--heartbeat-interval=50",
        "--election-timeout=500",
        "--snapshot-count=10",
        "--snapshot-bytes=1000000",
    ];
    let mut cluster = Cluster::start(3, &flags);
    cluster.members[0].client().put("before", "x").expect("put");
    cluster.members[2].kill();
    let mut client = cluster.members[0].client();
    client.timeout = common::PATIENCE;
    let value = "v".repeat(1_000_000);
    // Raft keeps 16 MiB for members that lag; this is twice as much.
    let mut revision = 0;
    for i in 0..36 {
        // If the one that left was the leader, a put on its way to it has no outcome, and is tried again.
        common::until("two of three go on", || match client.put(&format!("large-{}", i % 4), &value) {
            Ok(put) => {
                revision = put;
                true
            }
            Err(_) => false,
        });
    }
    cluster.members[2].start();
    cluster.await_ready();
    let hashes = cluster.hashes(revision);
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let log = cluster.members[2].log();
    assert!(log.contains("received a peer's snapshot"), "{log}");
    // What it was given is what it restarts from.
    cluster.members[2].kill();
    cluster.members[2].start();
    cluster.await_ready();
    assert_eq!(cluster.members[2].client().read("before").expect("read"), Some(common::base64("x")));
}

/// A restart needs no list of members; another list, another token, a folder in use and a lost log are refused by name.
#[test]
fn mixed_up_folders_are_refused() {
    let mut cluster = Cluster::start(1, &[]);
    let member = &cluster.members[0];
    let mut second = Command::new(SYNOD);
    second.arg("serve").arg(format!("--data-dir={}", member.data.display())).args(other_ports());
    let (status, said) = ended(&mut second);
    assert!(!status.success() && said.contains("in use by another process"), "{said}");
    cluster.members[0].client().put("a", "1").expect("put");
    assert!(cluster.members[0].terminate().success());

    let (status, said) = cluster.members[0].run_to_the_end("--initial-cluster-token=other");
    assert!(!status.success() && said.contains("belongs to member"), "{said}");

    let member = &cluster.members[0];
    for entry in fs::read_dir(&member.data).expect("a folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with("log-") {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
    let (status, said) = member.run_to_the_end("--log-level=info");
    assert!(!status.success() && said.contains("lost its log"), "{said}");
}

fn other_ports() -> Vec<String> {
    let ports = common::free_ports(2);
    vec![
        format!("--listen-client-urls=http://127.0.0.1:{}", ports[0]),
        format!("--advertise-client-urls=http://127.0.0.1:{}", ports[0]),
        format!("--listen-peer-urls=http://127.0.0.1:{}", ports[1]),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{}", ports[1]),
    ]
}

/// Members of different clusters refuse one another, both say so, and neither takes the other's words.
#[test]
fn strangers_are_refused_on_both_sides() {
    let mut cluster = Cluster::prepare(2, &["--heartbeat-interval=50", "--election-timeout=500"]);
    cluster.members[0].start();
    let member = &cluster.members[1];
    let mut wrong = Command::new(SYNOD);
    let log = cluster.folder.path().join("stranger.log");
    wrong
        .arg("serve")
        .arg(format!("--data-dir={}", cluster.folder.path().join("stranger").display()))
        .args(["--name=m1", "--initial-cluster-token=other"])
        .arg(format!("--listen-client-urls=http://127.0.0.1:{}", member.client))
        .arg(format!("--advertise-client-urls=http://127.0.0.1:{}", member.client))
        .arg(format!("--listen-peer-urls=http://127.0.0.1:{}", member.peer))
        .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{}", member.peer))
        .arg(format!(
            "--initial-cluster=m0=http://127.0.0.1:{},m1=http://127.0.0.1:{}",
            cluster.members[0].peer, member.peer
        ))
        .stderr(fs::File::create(&log).expect("a log"));
    let mut stranger = common::quiet(&mut wrong).spawn().expect("started");
    until("both sides have said it", || {
        let theirs = fs::read_to_string(&log).unwrap_or_default();
        // Each id follows from the token, so the dialled member is not the one that is there; either way it is a refusal.
        let refused =
            |text: &str| text.contains("refused a peer's connection") || text.contains("the peer refused");
        refused(&cluster.members[0].log()) && refused(&theirs)
    });
    assert!(!cluster.members[0].is_healthy(), "a majority of strangers is none");
    stranger.kill().expect("killed");
    stranger.wait().expect("gone");
}

/// Wrong flags end the program with one sentence that names the flag and says what is allowed (group 13 of the bad inputs).
#[test]
fn wrong_flags_get_one_clear_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "x").expect("written");
    let file_flag = format!("--data-dir={}", file.display());
    let ports = other_ports();
    let cases: &[(&[&str], &str)] = &[
        (&["--nmae=x"], "did you mean --name?"),
        (&["--frobnicate"], "flag provided but not defined"),
        (&["serve"], "not a valid flag"),
        (&["--quota-backend-bytes=x"], "whole number"),
        (&["--max-request-bytes=-1"], "--max-request-bytes=-1"),
        (&["--auto-compaction-retention=-1h"], "negative"),
        (
            &["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:1"],
            "from 1 to 65535",
        ),
        (&["--listen-peer-urls=http://127.0.0.1:65536"], "from 1 to 65535"),
        (&["--listen-peer-urls=http://[::1:2380"], "']' is missing"),
        (&["--listen-peer-urls=http://localhost:2379"], "taken by --listen-client-urls"),
        (&["--heartbeat-interval=1000"], "at least as 5 times"),
        (&["--initial-cluster=a=http://localhost:2380"], "couldn't find local name"),
        (
            &[&ports[0], &ports[1], &ports[2], &ports[3], "--initial-cluster-state=existing"],
            "names nobody to ask",
        ),
        (&["--cert-file=x.pem"], "TLS is not supported yet"),
        (&["--discovery=http://x"], "discovery is not supported yet"),
        (&["--config-file=x.yml"], "configuration file is not supported yet"),
        (&["--protocol=zab"], "allowed is raft"),
        (&["--force-new-cluster"], "not supported yet"),
        (&[&ports[0], &ports[1], &ports[2], &ports[3], &file_flag], "not a folder"),
    ];
    for (flags, why) in cases {
        let mut command = Command::new(SYNOD);
        command.arg("serve").args(*flags).current_dir(folder.path());
        let (status, said) = ended(&mut command);
        assert!(!status.success() && said.contains(why), "{flags:?}: {said}");
    }
    let mut command = Command::new(SYNOD);
    command.args(["serve", "--name=a"]);
    common::quiet(&mut command).env("ETCD_NAME", "b");
    let child = command.output().expect("it ends");
    assert!(String::from_utf8_lossy(&child.stderr).contains("conflicting environment variable ETCD_NAME"));
}

/// Under the name `etcd` the program takes etcd's command line and says etcd's words.
#[test]
fn under_the_name_etcd_it_is_etcd() {
    let folder = tempfile::tempdir().expect("a folder");
    let etcd = folder.path().join("etcd");
    std::os::unix::fs::symlink(SYNOD, &etcd).expect("a link");
    let (status, said) = ended(Command::new(&etcd).arg("--version"));
    assert!(status.success() && said.starts_with("etcd Version: 3."), "{said}");
    let (status, said) = ended(Command::new(&etcd).arg("--help"));
    assert!(status.success() && said.contains("--listen-client-urls"), "{said}");
    let (status, said) = ended(Command::new(&etcd).arg("grpc-proxy"));
    assert!(!status.success() && said.contains("not supported"), "{said}");
}

/// A port that is taken is named, and the data folder stays untouched.
#[test]
fn a_taken_port_is_named() {
    let mut cluster = Cluster::prepare(1, &[]);
    let taken = std::net::TcpListener::bind(("127.0.0.1", cluster.members[0].client)).expect("bound");
    let (status, said) = cluster.members[0].run_to_the_end("--log-level=info");
    assert!(
        !status.success() && said.contains("cannot listen at") && said.contains("--listen-client-urls"),
        "{said}"
    );
    assert!(!cluster.members[0].data.exists());
    drop(taken);
    cluster.members[0].start();
    cluster.await_ready();
}
