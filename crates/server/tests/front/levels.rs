//! Levels, session tokens and the contract at the client's port.

use std::sync::atomic::Ordering;

use serde_json::json;
use synod_api::{Method, etcdserverpb as pb};

use crate::client::{Grpc, post, send};
use crate::fake::Served;

fn put() -> pb::PutRequest {
    pb::PutRequest { key: "a".into(), value: "b".into(), ..Default::default() }
}

fn range() -> pb::RangeRequest {
    pb::RangeRequest { key: "a".into(), ..Default::default() }
}

/// A stock client gets no token; whoever asks gets one with every reply, streams with their trailers, and may send several back.
#[tokio::test]
async fn tokens_come_with_replies_to_those_who_ask() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    assert_eq!(grpc.call(Method::Put, &put()).await.token, None);
    let first = grpc.with(Method::Put, &[("synod-session", "")], &put()).await.token.expect("a token");
    let session = [("synod-consistency", "sequential"), ("synod-session", first.as_str())];
    let read = grpc.with(Method::Range, &session, &range()).await;
    assert_eq!(read.code, Some(0), "{}", read.message);
    let both = [first.as_str(), read.token.as_deref().expect("a token")].join(", ");
    let session = [("synod-session", both.as_str()), ("synod-consistency", "causal")];
    let stream = grpc.with(Method::RangeStream, &session, &range()).await;
    assert!(stream.code == Some(0) && stream.token.is_some(), "{}", stream.message);
    let json = post(served.address, "/v3/kv/range", r#"{"key":"YQ=="}"#).await;
    assert!(json.head.contains("\r\nsynod-session: "), "{}", json.head);
}

/// What is no token, or one of another cluster or protocol, is refused as an argument; one of the future as something to wait for.
#[tokio::test]
async fn foreign_tokens_are_refused_with_the_reason() {
    use synod_server::service::session::{Place, Token};
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let token = |protocol: &'static str, cluster, index| {
        let protocol = protocol.as_bytes().into();
        let token = Token { protocol, cluster, place: Place::Index(index), revision: 1 };
        token.header().to_str().expect("text").to_owned()
    };
    for (text, code, why) in [
        ("nonsense".to_owned(), 3, "not hexadecimal"),
        ("00".to_owned(), 3, "too short"),
        (token("raft", 5, 9)[1..].to_owned(), 3, "not hexadecimal"),
        (token("causal", 5, 9), 3, "a token of protocol causal, and this is protocol raft"),
        (token("raft", 6, 9), 3, "a token of cluster 6, and this is cluster 5"),
        (token("raft", 5, 10), 14, "has not come as far"),
    ] {
        for method in [Method::Range, Method::Put, Method::RangeStream] {
            let headers = [("synod-session", text.as_str())];
            let ended = match method {
                Method::Put => grpc.with(method, &headers, &put()).await,
                _ => grpc.with(method, &headers, &range()).await,
            };
            let (was, message) = ended.failed();
            assert!(was == code && message.contains(why), "{method:?} {text}: {was} {message}");
        }
        let request = format!(
            "POST /v3/kv/range HTTP/1.1\r\nhost: a\r\nconnection: close\r\nsynod-session: {text}\r\ncontent-length: 14\r\n\r\n{{\"key\":\"YQ==\"}}"
        );
        let plain = send(served.address, request).await;
        assert!(plain.json()["message"].as_str().is_some_and(|said| said.contains(why)), "{plain:?}");
    }
}

/// What the contract lacks is refused before anything is done, over gRPC and JSON; what needs none of it works.
#[tokio::test]
async fn the_contract_is_asked_first() {
    let served = Served::start().await;
    served.backend.modest.store(true, Ordering::Relaxed);
    let grpc = Grpc::connect(served.address).await;
    let lacks = async |method, message: &pb::RangeRequest| grpc.call(method, message).await;
    let refused =
        "synod: protocol raft does not give linearizable reads: there is no single order to read up to";
    assert_eq!(lacks(Method::Range, &range()).await.failed(), (9, refused));
    assert_eq!(lacks(Method::RangeStream, &range()).await.failed(), (9, refused));
    let local = pb::RangeRequest { serializable: true, ..range() };
    assert_eq!(grpc.call(Method::Range, &local).await.code, Some(0));
    assert_eq!(grpc.call(Method::Put, &put()).await.code, Some(0));
    let bounded = grpc.with(Method::Range, &[("synod-max-staleness", "1s")], &local).await;
    assert_eq!(bounded.failed().0, 9);
    let grant = grpc.call(Method::LeaseGrant, &pb::LeaseGrantRequest { ttl: 5, id: 1 }).await;
    assert!(grant.failed().0 == 9 && grant.message.contains("nobody keeps the time"), "{}", grant.message);
    let leased = grpc.call(Method::Put, &pb::PutRequest { lease: 1, ..put() }).await;
    assert_eq!(leased.failed().0, 9);
    let compare = pb::Compare { key: "a".into(), ..Default::default() };
    let inner = pb::TxnRequest { compare: vec![compare], ..Default::default() };
    let nested = pb::RequestOp { request: Some(pb::request_op::Request::RequestTxn(inner.clone())) };
    let outer = pb::TxnRequest { success: vec![nested], ..Default::default() };
    for txn in [inner, outer] {
        let ended = grpc.call(Method::Txn, &txn).await;
        assert!(ended.failed().0 == 9 && ended.message.contains("compare in"), "{}", ended.message);
    }
    let json = post(served.address, "/v3/kv/range", r#"{"key":"YQ=="}"#).await;
    assert_eq!((json.status, json.json()["code"].clone()), (400, json!(9)));
}

/// Where an answer is not final, answers to writes say how many confirmations they have, over gRPC and JSON, again and again on one
/// connection; answers to reads do not, and where an answer is final nothing is said at all.
#[tokio::test]
async fn answers_to_writes_say_their_confirmations() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    assert_eq!(grpc.call(Method::Put, &put()).await.confirmations, None);
    served.backend.modest.store(true, Ordering::Relaxed);
    let grpc = Grpc::connect(served.address).await;
    for _ in 0..3 {
        let ended = grpc.call(Method::Put, &put()).await;
        assert_eq!((ended.code, ended.confirmations.as_deref()), (Some(0), Some("3")));
    }
    let delete = pb::DeleteRangeRequest { key: "a".into(), ..Default::default() };
    assert_eq!(grpc.call(Method::DeleteRange, &delete).await.confirmations.as_deref(), Some("3"));
    let local = pb::RangeRequest { serializable: true, ..range() };
    let read = grpc.call(Method::Range, &local).await;
    assert_eq!((read.code, read.confirmations), (Some(0), None));
    let json = post(served.address, "/v3/kv/put", r#"{"key":"YQ=="}"#).await;
    assert!(json.head.contains("\r\nsynod-confirmations: 3"), "{}", json.head);
}
