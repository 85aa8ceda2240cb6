//! Members come and go while a cluster runs: added, promoted, moved, removed, wiped, replaced, and asked for what makes no sense.

mod common;

use std::fs;
use std::thread;

use common::{CallError, Cluster, base64, until};
use serde_json::{Value, json};
use synod_server::contract::{Call, Contract, Level};
use synod_server::protocol::{Chosen, FAMILY, Kin};

const QUICK: [&str; 3] = ["--log-level=warn", "--heartbeat-interval=20", "--election-timeout=200"];

/// Calls a method of the Cluster service, again while the cluster has no leader.
fn call(cluster: &Cluster, member: usize, method: &str, request: &Value) -> Result<Value, String> {
    let mut outcome = Err("not tried".to_owned());
    until("the cluster takes it", || {
        match cluster.members[member].client().call(&format!("/v3/cluster/member/{method}"), request) {
            Ok(reply) => outcome = Ok(reply),
            Err(CallError::Refused(why)) if why["code"] != 14 => {
                outcome = Err(why["message"].as_str().unwrap_or_default().to_owned());
            }
            Err(_) => return false,
        }
        true
    });
    outcome
}

fn url(cluster: &Cluster, member: usize) -> String {
    format!("http://127.0.0.1:{}", cluster.members[member].peer)
}

/// The list of the members, as one of them tells it.
fn list(cluster: &Cluster, member: usize) -> Vec<Value> {
    let reply = call(cluster, member, "list", &json!({ "linearizable": true })).expect("a list");
    reply["members"].as_array().cloned().unwrap_or_default()
}

fn id_of(cluster: &Cluster, asked: usize, member: usize) -> String {
    let at = url(cluster, member);
    let found = list(cluster, asked).into_iter().find(|it| it["peerURLs"][0] == at);
    found.expect("it is in the list")["ID"].as_str().expect("an id").to_owned()
}

fn put(cluster: &Cluster, member: usize, key: &str) {
    until("a write goes through", || cluster.members[member].client().put(key, "x").is_ok());
}

fn holds(cluster: &Cluster, member: usize, key: &str) {
    until("a member has caught up", || {
        let mut client = cluster.members[member].client();
        client.headers = vec![("synod-consistency".to_owned(), "eventual".to_owned())];
        client.read(key).is_ok_and(|value| value == Some(base64("x")))
    });
}

/// A learner joins, is promoted and votes; a founder is removed, ends with the reason, and is refused when it comes back; the cluster serves
/// all the while, and all know all afterwards, also after everybody was killed.
#[test]
fn a_member_is_replaced_while_the_cluster_serves() {
    let mut cluster = Cluster::start(3, &QUICK);
    put(&cluster, 0, "before");
    let new = cluster.lay_out_one_more(&QUICK);
    let (status, said) = cluster.members[new].run_to_the_end("--log-level=error");
    assert!(!status.success() && said.contains("add it first (etcdctl member add m3"), "{said}");

    let add = json!({ "peerURLs": [url(&cluster, new)], "isLearner": true });
    let added = call(&cluster, 1, "add", &add).expect("added");
    assert_eq!(added["members"].as_array().map(Vec::len), Some(4), "{added}");
    let learner = added["member"]["ID"].as_str().expect("an id").to_owned();
    cluster.members[new].start();
    holds(&cluster, new, "before");
    let mut refused = String::new();
    until("it is promoted", || match call(&cluster, 2, "promote", &json!({ "ID": learner })) {
        Ok(reply) => reply["members"].as_array().is_some_and(|all| all.len() == 4),
        Err(why) => {
            refused = why;
            assert!(refused.contains("in sync with leader"), "{refused}");
            false
        }
    });
    until("it serves as a voter", || cluster.members[new].is_healthy());
    put(&cluster, new, "as a voter");

    // The leader goes: the hardest case.
    until("there is a leader", || cluster.leader().is_some());
    let gone = cluster.leader().expect("a leader");
    let others: Vec<usize> = (0..4).filter(|member| *member != gone).collect();
    let id = id_of(&cluster, others[0], gone);
    // The answer may go with the leader that would have given it; asked again, the member is not found any more.
    match call(&cluster, others[0], "remove", &json!({ "ID": id })) {
        Ok(removed) => assert_eq!(removed["members"].as_array().map(Vec::len), Some(3), "{removed}"),
        Err(why) => assert!(why.contains("member not found"), "{why}"),
    }
    assert!(!cluster.members[gone].ended_by_itself().success());
    assert!(
        cluster.members[gone].log().contains("was removed from the cluster"),
        "{}",
        cluster.members[gone].log()
    );
    put(&cluster, others[1], "after");
    let (status, said) = cluster.members[gone].run_to_the_end("--log-level=error");
    assert!(!status.success() && said.contains("was removed from the cluster"), "{said}");

    for member in &others {
        cluster.members[*member].kill();
    }
    for member in &others {
        cluster.members[*member].start();
    }
    for member in &others {
        until("it serves again", || cluster.members[*member].is_healthy());
        for key in ["before", "as a voter", "after"] {
            holds(&cluster, *member, key);
        }
        assert_eq!(list(&cluster, *member).len(), 3);
    }
}

/// Whatever the protocol, a dead member is removed and another takes its place, knows everything and takes writes, unless the contract
/// refuses all changes of the members (what takes their place under proof of work: `pow.rs`).
#[test]
fn a_dead_member_is_replaced_in_every_family() {
    let changing = |kin: &&Kin| {
        let contract = Contract::of(kin, &Chosen::defaults(&kin.row));
        // Raft's is the story above.
        contract.check(Call::Reconfigure, Level::Linearizable).is_ok() && kin.row.name != "raft"
    };
    let names: Vec<&str> = FAMILY.iter().filter(changing).map(|kin| kin.row.name).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    thread::scope(|scope| {
        names.into_iter().for_each(|name| _ = scope.spawn(move || replace_the_dead(name)));
    });
}

fn replace_the_dead(protocol: &str) {
    let chosen = format!("--protocol={protocol}");
    let mut flags = QUICK.to_vec();
    flags.push(&chosen);
    let everybody = |cluster: &Cluster| {
        let reply = call(cluster, 0, "list", &json!({ "linearizable": false })).expect("a list");
        reply["members"].as_array().cloned().unwrap_or_default()
    };
    let mut cluster = Cluster::start(3, &flags);
    put(&cluster, 0, "before");
    let (dead, at) = (2, url(&cluster, 2));
    cluster.members[dead].kill();
    let lost = everybody(&cluster).into_iter().find(|member| member["peerURLs"][0] == at);
    let id = lost.expect("it is in the list")["ID"].as_str().expect("an id").to_owned();
    until("it is removed", || match call(&cluster, 0, "remove", &json!({ "ID": id })) {
        Ok(_) => true,
        // Where there is no election to wait for, the others may not have met yet.
        Err(why) if why.contains("not enough started members") => false,
        // The answer went with a leader.
        Err(why) => {
            assert!(why.contains("member not found"), "{protocol}: {why}");
            true
        }
    });
    put(&cluster, 1, "between");
    let new = cluster.lay_out_one_more(&flags);
    let add = json!({ "peerURLs": [url(&cluster, new)] });
    call(&cluster, 0, "add", &add).unwrap_or_else(|why| panic!("{protocol}: {why}"));
    cluster.members[new].start();
    for key in ["before", "between"] {
        holds(&cluster, new, key);
    }
    put(&cluster, new, "after");
    for member in [0, 1] {
        holds(&cluster, member, "after");
    }
    assert_eq!(everybody(&cluster).len(), 3, "{protocol}");
}

/// A member that lost its folder must not vote again under its old name; removed and added anew it is welcome.
#[test]
fn a_wiped_member_does_not_vote() {
    let mut cluster = Cluster::start(3, &QUICK);
    put(&cluster, 0, "before");
    let lost = 2;
    cluster.members[lost].kill();
    fs::remove_dir_all(&cluster.members[lost].data).expect("wiped");
    let (status, said) = cluster.members[lost].run_to_the_end("--log-level=error");
    assert!(!status.success() && said.contains("must not vote again under its old name"), "{said}");
    let id = id_of(&cluster, 0, lost);
    call(&cluster, 0, "remove", &json!({ "ID": id })).expect("removed");
    let (status, said) = cluster.members[lost].run_to_the_end("--log-level=error");
    assert!(!status.success() && said.contains("was removed from the cluster"), "{said}");
    let new = cluster.lay_out_one_more(&QUICK);
    call(&cluster, 1, "add", &json!({ "peerURLs": [url(&cluster, new)] })).expect("added");
    cluster.members[new].start();
    until("it serves", || cluster.members[new].is_healthy());
    holds(&cluster, new, "before");
    // It votes: without it there would be no majority now.
    cluster.members[1].kill();
    put(&cluster, 0, "with it");
}

/// Group 7 of the bad inputs: each is refused with upstream's words, and changes nothing.
#[test]
fn changes_that_make_no_sense_are_refused() {
    let cluster = Cluster::start(3, &QUICK);
    let (own, free) = (url(&cluster, 0), format!("http://127.0.0.1:{}", common::free_ports(1)[0]));
    let ids: Vec<String> = (0..3).map(|member| id_of(&cluster, 0, member)).collect();
    let before = list(&cluster, 0);
    let invalid = "etcdserver: given member URLs are invalid";
    let cases = [
        ("add", json!({ "peerURLs": [own] }), "Peer URLs already exists"),
        ("add", json!({ "peerURLs": [] }), invalid),
        ("add", json!({ "peerURLs": ["nonsense"] }), invalid),
        ("add", json!({ "peerURLs": ["unix:///tmp/x"] }), "unix sockets are not supported yet"),
        ("add", json!({ "peerURLs": ["https://127.0.0.1:1"] }), "TLS is not supported yet"),
        ("add", json!({ "peerURLs": ["http://127.0.0.1:0"] }), invalid),
        ("add", json!({ "peerURLs": vec!["http://127.0.0.1:9"; 65] }), invalid),
        ("remove", json!({ "ID": "12345" }), "member not found"),
        ("remove", json!({ "ID": "0" }), "member not found"),
        ("promote", json!({ "ID": ids[1] }), "can only promote a learner member"),
        ("promote", json!({ "ID": "12345" }), "member not found"),
        ("update", json!({ "ID": ids[1], "peerURLs": [own] }), "Peer URLs already exists"),
        ("update", json!({ "ID": "12345", "peerURLs": [free] }), "member not found"),
        ("update", json!({ "ID": ids[1], "peerURLs": ["http://"] }), invalid),
    ];
    for (method, request, why) in cases {
        for member in 0..3 {
            let said = call(&cluster, member, method, &request).expect_err(method);
            assert!(said.contains(why), "{method} {request}: {said}");
        }
    }
    assert_eq!(list(&cluster, 1), before);
    // One learner at a time; and nobody can be taken out of a cluster that would then have too few running voters.
    let learner = call(&cluster, 0, "add", &json!({ "peerURLs": [free], "isLearner": true })).expect("one");
    let second = json!({ "peerURLs": ["http://127.0.0.1:9"], "isLearner": true });
    assert!(call(&cluster, 1, "add", &second).expect_err("two").contains("too many learner members"));
    let id = learner["member"]["ID"].clone();
    assert!(call(&cluster, 2, "promote", &json!({ "ID": id })).expect_err("never ran").contains("in sync"));
    call(&cluster, 1, "remove", &json!({ "ID": id })).expect("a learner goes");
    assert_eq!(list(&cluster, 2), before);
}

/// A cluster of one grows to two and shrinks to one; the last one stays; a member that moves is found at its new address.
#[test]
fn from_one_to_two_and_back() {
    let mut cluster = Cluster::start(1, &QUICK);
    let only = id_of(&cluster, 0, 0);
    let last = call(&cluster, 0, "remove", &json!({ "ID": only })).expect_err("the last one");
    assert!(last.contains("not enough started members"), "{last}");
    put(&cluster, 0, "before");
    let new = cluster.lay_out_one_more(&QUICK);
    let voter = call(&cluster, 0, "add", &json!({ "peerURLs": [url(&cluster, new)] })).expect_err("at once");
    assert!(voter.contains("as a learner"), "{voter}");
    put(&cluster, 0, "untouched");
    let learner = json!({ "peerURLs": [url(&cluster, new)], "isLearner": true });
    let added = call(&cluster, 0, "add", &learner).expect("added");
    cluster.members[new].start();
    holds(&cluster, new, "untouched");
    let promote = json!({ "ID": added["member"]["ID"] });
    until("it is promoted", || call(&cluster, 0, "promote", &promote).is_ok());
    until("both serve", || (0..2).all(|member| cluster.members[member].is_healthy()));
    holds(&cluster, new, "before");
    let id = id_of(&cluster, 0, new);
    let moved = json!({ "ID": id, "peerURLs": [url(&cluster, new), "http://127.0.0.1:9"] });
    let reply = call(&cluster, 0, "update", &moved).expect("it is told");
    assert!(reply.to_string().contains("http://127.0.0.1:9"), "{reply}");
    put(&cluster, new, "moved");
    // Asked of the one that stays: who is removed may end before it has answered.
    call(&cluster, 0, "remove", &json!({ "ID": id })).expect("removed");
    assert!(!cluster.members[new].ended_by_itself().success());
    put(&cluster, 0, "alone again");
}
