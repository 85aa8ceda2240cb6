//! The four levels on real members: what a session sees at a replica that was away, and what nobody promises it.

mod common;

use std::time::Duration;

use common::{CallError, Client, Cluster, PATIENCE, base64, until};
use serde_json::json;

/// A client of a member, with headers.
fn client(cluster: &Cluster, member: usize, headers: &[(&str, &str)]) -> Client {
    let mut client = Client::at(cluster.members[member].client, PATIENCE);
    client.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    client
}

/// The code and the sentence of a refusal.
fn refused<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> (i64, String) {
    match outcome {
        Err(CallError::Refused(reply)) => (
            reply["code"].as_i64().unwrap_or_default(),
            reply["message"].as_str().unwrap_or_default().to_owned(),
        ),
        other => panic!("{other:?}"),
    }
}

/// A session reads its own writes, and what it has read before, at a replica that slept meanwhile; without a token that replica may show
/// the past; cut off from the others it answers only what it can be sure of, and says so.
#[test]
fn a_session_is_followed_by_whichever_replica_it_asks() {
    let cluster =
        Cluster::start(3, &["--log-level=warn", "--heartbeat-interval=20", "--election-timeout=200"]);
    let leader = cluster.leader().expect("a leader");
    let sleeper = (leader + 1) % 3;
    let third = 3 - leader - sleeper;

    let mut tokens = Vec::new();
    for round in 0..20 {
        cluster.members[sleeper].signal("STOP");
        let mut writer = client(&cluster, leader, &[]);
        writer.put("k", &format!("v{round}")).expect("a majority is there");
        let token = writer.token.clone().expect("every reply over JSON carries a token");
        cluster.members[sleeper].signal("CONT");
        for level in ["sequential", "causal", "eventual"] {
            let mut reader =
                client(&cluster, sleeper, &[("synod-consistency", level), ("synod-session", &token)]);
            assert_eq!(
                reader.read("k").expect("it comes so far"),
                Some(base64(format!("v{round}"))),
                "{level}"
            );
        }
        tokens.push(token);
    }
    // All that was met, at once.
    let all = tokens.join(",");
    let mut reader = client(&cluster, third, &[("synod-session", &all), ("synod-consistency", "causal")]);
    assert_eq!(reader.read("k").expect("it has all"), Some(base64("v19")));
    let bounded = [("synod-max-staleness", "2s")];
    assert_eq!(client(&cluster, sleeper, &bounded).read("k").expect("fresh"), Some(base64("v19")));

    // Alone: the others hang.
    let mut writer = client(&cluster, leader, &[]);
    cluster.members[sleeper].signal("STOP");
    writer.put("k", "unseen").expect("a majority is there");
    let unseen = writer.token.clone().expect("a token");
    for other in [leader, third] {
        cluster.members[other].signal("STOP");
    }
    cluster.members[sleeper].signal("CONT");
    // What the sockets held when it went to sleep it may still get; what the others never sent it cannot.
    assert!(
        client(&cluster, sleeper, &[("synod-consistency", "eventual")]).read("k").expect("local").is_some()
    );
    let (code, why) = refused(client(&cluster, sleeper, &[("synod-max-staleness", "1ms")]).read("k"));
    assert!(code == 14 && why.contains("may lag more than 1ms behind"), "{why}");
    let ahead = client(
        &cluster,
        sleeper,
        &[("synod-session", &unseen), ("synod-consistency", "sequential"), ("grpc-timeout", "500m")],
    )
    .read("k");
    match ahead {
        // The write had reached it before it slept.
        Ok(value) => assert_eq!(value, Some(base64("unseen"))),
        outcome => assert_eq!(refused(outcome).0, 4),
    }
    for other in [leader, third] {
        cluster.members[other].signal("CONT");
    }
    until("all is well again", || {
        client(&cluster, sleeper, &[]).read("k").is_ok_and(|value| value == Some(base64("unseen")))
    });
}

/// Tokens of another cluster, levels that are none and spans that are none are refused by name, and leave the connection as it was.
#[test]
fn nonsense_is_refused_by_name() {
    let cluster = Cluster::start(1, &["--log-level=warn"]);
    let other = Cluster::start(1, &["--log-level=warn"]);
    let mut foreign = Client::at(other.members[0].client, Duration::from_secs(30));
    foreign.put("a", "b").expect("it serves");
    let foreign = foreign.token.expect("a token");
    let cut = &foreign[..foreign.len() - 2];
    for (header, value, why) in [
        ("synod-session", foreign.as_str(), "token of cluster"),
        ("synod-session", cut, "checksum does not match"),
        ("synod-session", "-", "not hexadecimal"),
        ("synod-consistency", "strong", "must be linearizable, sequential, causal or eventual"),
        ("synod-max-staleness", "soon", "must be a span"),
        ("Grpc-Metadata-synod-max-staleness", "-1s", "must be a span"),
    ] {
        let mut client = client(&cluster, 0, &[(header, value)]);
        let (code, said) = refused(client.put("a", "c"));
        assert!(code == 3 && said.contains(why), "{header}: {value}: {said}");
        client.headers.clear();
        let reply =
            client.call("/v3/kv/range", &json!({ "key": base64("a") })).expect("the connection lives on");
        assert_eq!(reply["count"].as_str(), None, "nothing was written: {reply}");
    }
}
