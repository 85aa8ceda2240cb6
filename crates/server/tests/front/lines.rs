//! Locks and elections as services: who is next, who is told, and what becomes of those who go.

use std::time::Duration;

use bytes::Bytes;
use synod_api::Method;
use synod_api::etcdserverpb as pb;
use synod_api::v3electionpb as election;
use synod_api::v3lockpb as lock;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Call, Grpc, PATIENCE, get, post};
use crate::fake::Served;

async fn lease(grpc: &Grpc, id: i64) -> i64 {
    let granted: pb::LeaseGrantResponse =
        grpc.call(Method::LeaseGrant, &pb::LeaseGrantRequest { ttl: 60, id }).await.one();
    granted.id
}

fn lock(lease: i64) -> lock::LockRequest {
    lock::LockRequest { name: "gate".into(), lease }
}

async fn keys(grpc: &Grpc, first: &'static str, end: &'static str) -> Vec<Bytes> {
    let range = pb::RangeRequest { key: first.into(), range_end: end.into(), ..Default::default() };
    let reply: pb::RangeResponse = grpc.call(Method::Range, &range).await.one();
    reply.kvs.into_iter().map(|pair| pair.key).collect()
}

/// Waits until so many keys stand in the line of `gate`.
async fn until_so_many(grpc: &Grpc, count: usize) {
    let begun = std::time::Instant::now();
    while keys(grpc, "gate/", "gate0").await.len() != count {
        assert!(begun.elapsed() < PATIENCE, "never {count} keys");
        tokio::task::yield_now().await;
    }
}

async fn open(grpc: &Grpc, method: Method, headers: &[(&str, &str)], message: &impl prost::Message) -> Call {
    let mut call = grpc.open(method.path(), headers).await;
    let framed = crate::client::framed(&message.encode_to_vec());
    call.send.send_data(framed, true).unwrap();
    call
}

/// One after the other, in the order in which they came; the key is etcd's.
#[tokio::test]
async fn a_lock_goes_from_hand_to_hand() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let ids = [lease(&grpc, 0x10).await, lease(&grpc, 0x2f).await, lease(&grpc, 0x1).await];
    let first: lock::LockResponse = grpc.call(Method::Lock, &lock(ids[0])).await.one();
    assert_eq!((&first.key[..], first.header.unwrap().revision), (&b"gate/10"[..], 2));
    let second = open(&grpc, Method::Lock, &[], &lock(ids[1])).await;
    until_so_many(&grpc, 2).await;
    let third = open(&grpc, Method::Lock, &[], &lock(ids[2])).await;
    until_so_many(&grpc, 3).await;
    // Asked again, a lease has the place that it has; and giving up that call gives up nothing.
    let again: lock::LockResponse = grpc.call(Method::Lock, &lock(ids[0])).await.one();
    assert_eq!(again.key, first.key);
    let unlock = |key: &Bytes| lock::UnlockRequest { key: key.clone() };
    let _: lock::UnlockResponse = grpc.call(Method::Unlock, &unlock(&first.key)).await.one();
    let second: lock::LockResponse = second.end().await.one();
    assert_eq!(&second.key[..], b"gate/2f");
    assert_eq!(keys(&grpc, "gate/", "gate0").await.len(), 2);
    let _: pb::LeaseRevokeResponse =
        grpc.call(Method::LeaseRevoke, &pb::LeaseRevokeRequest { id: ids[1] }).await.one();
    let third: lock::LockResponse = third.end().await.one();
    assert_eq!(&third.key[..], b"gate/1");
    // What is unlocked already is no error, and a name of its own is free.
    let _: lock::UnlockResponse = grpc.call(Method::Unlock, &unlock(&first.key)).await.one();
    let other = lock::LockRequest { name: "gate/1".into(), lease: 0 };
    let other: lock::LockResponse = grpc.call(Method::Lock, &other).await.one();
    assert!(other.key.starts_with(b"gate/1/"));
    assert_eq!(
        grpc.call(Method::Unlock, &unlock(&Bytes::new())).await.failed(),
        (3, "etcdserver: key is not provided")
    );
}

/// Whoever goes while it waits leaves nothing behind: by reset, by its deadline, by hanging up over HTTP/1.
#[tokio::test]
async fn who_goes_gives_up_its_place() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let holder: lock::LockResponse = grpc.call(Method::Lock, &lock(0)).await.one();
    let reset = open(&grpc, Method::Lock, &[], &lock(lease(&grpc, 5).await)).await;
    until_so_many(&grpc, 2).await;
    drop(reset);
    until_so_many(&grpc, 1).await;
    let late = grpc.with(Method::Lock, &[("grpc-timeout", "50m")], &lock(lease(&grpc, 6).await)).await;
    assert_eq!(late.failed(), (4, "context deadline exceeded"));
    until_so_many(&grpc, 1).await;
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    let body = r#"{"name":"Z2F0ZQ=="}"#;
    let request =
        format!("POST /v3/lock/lock HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    plain.write_all(request.as_bytes()).await.unwrap();
    until_so_many(&grpc, 2).await;
    drop(plain);
    until_so_many(&grpc, 1).await;
    // A whole connection that goes takes its waiting calls along.
    let other = Grpc::connect(served.address).await;
    let call = open(
        &other,
        Method::Campaign,
        &[],
        &election::CampaignRequest { name: "gate".into(), ..Default::default() },
    )
    .await;
    until_so_many(&grpc, 2).await;
    drop((call, other));
    until_so_many(&grpc, 1).await;
    assert_eq!(keys(&grpc, "gate/", "gate0").await, [holder.key]);
    assert!(get(served.address, "/metrics").await.body.contains("etcd_debugging_mvcc_watcher_total 0\n"));
}

/// A lease that ends while its call waits ends the call; so does the end of the member.
#[tokio::test]
async fn waiting_ends_with_the_lease_and_with_the_member() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    assert_eq!(
        grpc.call(Method::Lock, &lock(404)).await.failed(),
        (5, "etcdserver: requested lease not found")
    );
    let _: lock::LockResponse = grpc.call(Method::Lock, &lock(0)).await.one();
    let campaign = |lease| election::CampaignRequest { name: "gate".into(), lease, value: "x".into() };
    let locking = open(&grpc, Method::Lock, &[], &lock(lease(&grpc, 7).await)).await;
    let running = open(&grpc, Method::Campaign, &[], &campaign(lease(&grpc, 8).await)).await;
    until_so_many(&grpc, 3).await;
    for id in [7, 8] {
        let _: pb::LeaseRevokeResponse =
            grpc.call(Method::LeaseRevoke, &pb::LeaseRevokeRequest { id }).await.one();
    }
    assert_eq!(locking.end().await.failed(), (2, "mutex: session is expired"));
    assert_eq!(running.end().await.failed(), (2, "election: not leader"));
    let leaderless = open(&grpc, Method::Lock, &[("hasleader", "true")], &lock(lease(&grpc, 9).await)).await;
    let waiting = open(&grpc, Method::Lock, &[], &lock(lease(&grpc, 10).await)).await;
    until_so_many(&grpc, 3).await;
    served.backend.set_leader(None);
    assert_eq!(leaderless.end().await.failed(), (14, "etcdserver: no leader"));
    served.stop();
    assert_eq!(waiting.end().await.failed(), (14, "etcdserver: server stopped"));
    tokio::time::timeout(Duration::from_secs(20), served.listening).await.expect("it stops").unwrap();
}

/// Campaign, proclaim, observe, resign: every word of a leader is told, then those of the next.
#[tokio::test]
async fn an_election() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let name = || election::LeaderRequest { name: "gate".into() };
    assert_eq!(grpc.call(Method::Leader, &name()).await.failed(), (2, "election: no leader"));
    let mut observing = open(&grpc, Method::Observe, &[], &name()).await;
    let campaign = |lease, value: &'static str| election::CampaignRequest {
        name: "gate".into(),
        lease,
        value: value.into(),
    };
    let (one, two) = (lease(&grpc, 0xa).await, lease(&grpc, 0xb).await);
    let elected: election::CampaignResponse = grpc.call(Method::Campaign, &campaign(one, "one")).await.one();
    let first = elected.leader.unwrap();
    assert_eq!((&first.key[..], first.lease, &first.name[..]), (&b"gate/a"[..], one, &b"gate"[..]));
    let seen: election::LeaderResponse = observing.read().await;
    let seen = seen.kv.unwrap();
    assert_eq!((&seen.value[..], seen.create_revision, seen.lease), (&b"one"[..], first.rev, one));
    let proclaim = |leader: &election::LeaderKey, value: &'static str| election::ProclaimRequest {
        leader: Some(leader.clone()),
        value: value.into(),
    };
    for word in ["again", "and again"] {
        let _: election::ProclaimResponse = grpc.call(Method::Proclaim, &proclaim(&first, word)).await.one();
    }
    for word in ["again", "and again"] {
        let seen: election::LeaderResponse = observing.read().await;
        let kv = seen.kv.unwrap();
        assert_eq!((&kv.value[..], kv.lease), (word.as_bytes(), one));
    }
    let next = open(&grpc, Method::Campaign, &[], &campaign(two, "two")).await;
    until_so_many(&grpc, 2).await;
    // The lease that leads already says another word, and leads on.
    let _: election::CampaignResponse = grpc.call(Method::Campaign, &campaign(one, "last")).await.one();
    let seen: election::LeaderResponse = observing.read().await;
    assert_eq!(&seen.kv.unwrap().value[..], b"last");
    let resign = election::ResignRequest { leader: Some(first.clone()) };
    let _: election::ResignResponse = grpc.call(Method::Resign, &resign).await.one();
    let second: election::CampaignResponse = next.end().await.one();
    assert_eq!(&second.leader.unwrap().key[..], b"gate/b");
    let seen: election::LeaderResponse = observing.read().await;
    assert_eq!(&seen.kv.unwrap().value[..], b"two");
    let leader: election::LeaderResponse = grpc.call(Method::Leader, &name()).await.one();
    assert_eq!(&leader.kv.unwrap().value[..], b"two");
    assert_eq!(
        grpc.call(Method::Proclaim, &proclaim(&first, "late")).await.failed(),
        (2, "election: not leader")
    );
    let _: election::ResignResponse = grpc.call(Method::Resign, &resign).await.one();
    let missing = (2, "\"leader\" field must be provided");
    assert_eq!(grpc.call(Method::Proclaim, &election::ProclaimRequest::default()).await.failed(), missing);
    assert_eq!(grpc.call(Method::Resign, &election::ResignRequest::default()).await.failed(), missing);
    served.stop();
    assert_eq!(observing.end().await.failed(), (14, "etcdserver: server stopped"));
}

/// The gateway has the same calls at etcd's paths, and a protocol that cannot compare refuses them all.
#[tokio::test]
async fn over_json_and_refused() {
    let served = Served::start().await;
    let locked = post(served.address, "/v3/lock/lock", r#"{"name":"Z2F0ZQ=="}"#).await.json();
    let key = locked["key"].as_str().expect("a key").to_owned();
    assert!(locked["header"]["revision"].is_string());
    let unlocked = post(served.address, "/v3/lock/unlock", &format!(r#"{{"key":"{key}"}}"#)).await;
    assert_eq!(unlocked.status, 200);
    let elected =
        post(served.address, "/v3/election/campaign", r#"{"name":"YQ==","value":"djE="}"#).await.json();
    let leader = elected["leader"].clone();
    assert!(leader["rev"].is_string() && leader["lease"].is_string(), "{elected}");
    let proclaim = serde_json::json!({ "leader": leader, "value": "djI=" }).to_string();
    assert_eq!(post(served.address, "/v3/election/proclaim", &proclaim).await.status, 200);
    let shown = post(served.address, "/v3/election/leader", r#"{"name":"YQ=="}"#).await.json();
    assert_eq!(shown["kv"]["value"], "djI=");
    let resign = serde_json::json!({ "leader": leader }).to_string();
    assert_eq!(post(served.address, "/v3/election/resign", &resign).await.status, 200);
    let nobody = post(served.address, "/v3/election/leader", r#"{"name":"YQ=="}"#).await;
    assert_eq!((nobody.status, nobody.json()["code"].as_i64()), (500, Some(2)));
    served.backend.modest.store(true, std::sync::atomic::Ordering::Relaxed);
    let grpc = Grpc::connect(served.address).await;
    let sentence = "synod: protocol raft does not give comparisons in transactions: there is no single order to compare in";
    for method in [Method::Lock, Method::Unlock, Method::Campaign, Method::Leader, Method::Observe] {
        assert_eq!(grpc.call(method, &lock(0)).await.failed(), (9, sentence), "{method:?}");
    }
}
