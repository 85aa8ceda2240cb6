//! Proof of work on real processes: what only this protocol does. (What it shares with the family is in `family.rs`.)

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use common::{Client, Cluster, PATIENCE, base64, number, until};
use serde_json::json;
use synod_server::contract::Level;

/// Blocks as quick as they may be.
const QUICK: [&str; 4] = ["--log-level=warn", "--protocol=pow", "--block-spacing=250ms", "--confirmations=2"];

fn client(cluster: &Cluster, member: usize) -> Client {
    let mut client = Client::at(cluster.members[member].client, PATIENCE);
    client.headers = vec![("synod-consistency".to_owned(), Level::Eventual.name().to_owned())];
    client
}

/// The height of a member's best block, and the store's revision there.
fn standing(cluster: &Cluster, member: usize) -> (i64, i64) {
    let mut standing = (0, 0);
    until("a member says where it stands", || {
        match cluster.members[member].client().call("/v3/maintenance/status", &json!({})) {
            Ok(status) => {
                standing = (number(&status["raftIndex"]), number(&status["header"]["revision"]));
                true
            }
            Err(_) => false,
        }
    });
    standing
}

/// Two members mine apart, each believing that the other is down. When they meet, the one with less work goes back: its revision
/// does, its watch is canceled with the reason, and what its clients were answered is mined again. The answers said after how many
/// confirmations they were given.
#[test]
fn a_reorganisation_is_told() {
    let mut cluster = Cluster::start(2, &QUICK);
    cluster.members[1].kill();
    let mut first = client(&cluster, 0);
    for key in ["a", "b", "c"] {
        first.put(key, "alone").expect("acknowledged");
        assert_eq!(first.confirmations.as_deref(), Some("2"), "the answer says after how many");
    }
    assert_eq!(first.read("c").expect("read"), Some(base64("alone")));
    assert_eq!(first.confirmations, None, "a read's answer says nothing of the kind");
    let (height, revision) = standing(&cluster, 0);
    cluster.members[0].kill();
    // The other one, alone as well, finds more than twice what the first had found: what is behind is more work, whatever the
    // difficulty has come to.
    cluster.members[1].start();
    cluster.await_ready();
    until("the other chain is longer", || standing(&cluster, 1).0 > height + 25);
    let (_, other_revision) = standing(&cluster, 1);
    assert!(other_revision < revision, "nothing was written there");
    cluster.members[1].kill();

    cluster.members[0].start();
    until("the first shows its own chain", || standing(&cluster, 0).1 >= revision);
    let stream = TcpStream::connect(("127.0.0.1", cluster.members[0].client)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut watch = BufReader::new(stream);
    let body = json!({ "create_request": { "key": base64("a") } }).to_string();
    let request = format!(
        "POST /v3/watch HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    watch.get_mut().write_all(request.as_bytes()).expect("asked");
    let mut next_with = |what: &str| loop {
        let mut line = String::new();
        assert!(watch.read_line(&mut line).expect("a line in time") > 0, "the watch ended before {what}");
        if line.contains(what) {
            return line;
        }
    };
    next_with("\"created\":true");
    cluster.members[1].start();
    let canceled = next_with("\"canceled\":true");
    assert!(canceled.contains("took back what was applied"), "{canceled}");
    until("the first is told of it in its log", || {
        cluster.members[0].log().contains("a reorganisation takes back")
    });
    // What was answered was put back among what waits, and is mined again.
    for member in 0..2 {
        for key in ["a", "b", "c"] {
            until("the commands of the losing branch are mined again", || {
                client(&cluster, member).read(key).is_ok_and(|found| found == Some(base64("alone")))
            });
        }
    }
}

/// A member that has lost its disk starts with its old flags and an empty folder, and catches up by itself; its clients are answered.
#[test]
fn a_lost_disk_is_replaced_by_an_empty_one() {
    let mut cluster = Cluster::start(3, &QUICK);
    client(&cluster, 2).put("before", "1").expect("acknowledged");
    cluster.members[2].kill();
    fs::remove_dir_all(&cluster.members[2].data).expect("removed");
    cluster.members[2].start();
    cluster.await_ready();
    until("it has caught up", || {
        client(&cluster, 2).read("before").is_ok_and(|found| found == Some(base64("1")))
    });
    client(&cluster, 2).put("after", "2").expect("acknowledged");
    until("the others hear of it", || {
        client(&cluster, 0).read("after").is_ok_and(|found| found == Some(base64("2")))
    });
}

/// Flags out of range are refused with what is allowed; a chain keeps its spacing, and says so when it is started with another; a
/// member that mines nothing follows.
#[test]
fn flags_are_refused_by_name() {
    let mut cluster = Cluster::prepare(1, &["--log-level=warn", "--protocol=pow"]);
    for (flag, why) in [
        ("--confirmations=0", "allowed is a whole number from 1 to 100"),
        ("--confirmations=1.5", "allowed is a whole number from 1 to 100"),
        ("--block-spacing=10ms", "allowed is a span from 250ms to 1h"),
        ("--block-spacing=soon", "this is not a span"),
        ("--mining-hashes=9999999", "allowed is a whole number from 0 to 8192"),
    ] {
        let (status, said) = cluster.members[0].run_to_the_end(flag);
        assert!(!status.success() && said.contains(flag) && said.contains(why), "{flag}: {said}");
    }
    cluster.members[0].start_with("--block-spacing=250ms");
    until("it serves", || client(&cluster, 0).put("a", "1").is_ok());
    cluster.members[0].kill();
    let (status, said) = cluster.members[0].run_to_the_end("--block-spacing=300ms");
    assert!(!status.success() && said.contains("--block-spacing must be what it was at the start"), "{said}");
    cluster.members[0].start_with("--mining-hashes=0");
    until("it shows what it had", || {
        client(&cluster, 0).read("a").is_ok_and(|found| found == Some(base64("1")))
    });
}
