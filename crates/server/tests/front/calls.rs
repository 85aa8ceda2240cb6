//! What each method says over gRPC.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use synod_api::etcdserverpb as pb;
use synod_api::{Method, Shape, health, reflection};
use synod_server::http::Access;
use synod_server::service::{Options, is_supported};

use crate::client::{Grpc, soon};
use crate::fake::Served;

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), ..Default::default() }
}

/// A put gives the first revision after the empty store's, reads see it, and headers say who answered.
#[tokio::test]
async fn puts_and_reads() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let reply: pb::PutResponse = grpc.call(Method::Put, &put("a", "1")).await.one();
    let header = reply.header.unwrap();
    assert_eq!((header.cluster_id, header.member_id, header.revision, header.raft_term), (5, 7, 2, 3));
    let with_prev = pb::PutRequest { prev_kv: true, ..put("a", "2") };
    let reply: pb::PutResponse = grpc.call(Method::Put, &with_prev).await.one();
    assert_eq!(reply.prev_kv.unwrap().value, "1");
    let reply: pb::RangeResponse = grpc.call(Method::Range, &range("a", "")).await.one();
    assert_eq!((reply.count, reply.more, reply.header.unwrap().revision), (1, false, 3));
    let pair = &reply.kvs[0];
    assert_eq!(
        (pair.create_revision, pair.mod_revision, pair.version, &pair.value[..]),
        (2, 3, 2, &b"2"[..])
    );
    let delete = pb::DeleteRangeRequest { key: "a".into(), prev_kv: true, ..Default::default() };
    let reply: pb::DeleteRangeResponse = grpc.call(Method::DeleteRange, &delete).await.one();
    assert_eq!((reply.deleted, reply.prev_kvs.len(), reply.header.unwrap().revision), (1, 1, 4));
    let compact = pb::CompactionRequest { revision: 3, physical: true };
    let _: pb::CompactionResponse = grpc.call(Method::Compact, &compact).await.one();
    let old = pb::RangeRequest { revision: 2, ..range("a", "") };
    let compacted = (11, "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(grpc.call(Method::Range, &old).await.failed(), compacted);
}

/// A range of many keys is the same message whether it was made at once, in pieces, or by RangeStream.
#[tokio::test]
async fn large_ranges_are_whole() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let value = "v".repeat(300);
    for number in 0..2000 {
        let _: pb::PutResponse = grpc.call(Method::Put, &put(&format!("k{number:05}"), &value)).await.one();
    }
    for (limit, keys_only) in [(0, false), (500, false), (600, false), (0, true), (1999, false)] {
        let all = pb::RangeRequest { limit, keys_only, ..range("\0", "\0") };
        let reply: pb::RangeResponse = soon(grpc.call(Method::Range, &all)).await.one();
        let expected = if limit == 0 { 2000 } else { limit as usize };
        assert_eq!((reply.kvs.len(), reply.count, reply.more), (expected, 2000, limit > 0));
        assert!(reply.kvs.is_sorted_by(|a, b| a.key < b.key));
        assert!(reply.kvs.iter().all(|pair| pair.value.is_empty() == keys_only));

        let pieces = grpc.call(Method::RangeStream, &all).await;
        assert_eq!(pieces.code, Some(0));
        assert!(pieces.messages.len() > 3);
        let mut merged = pb::RangeStreamResponse::default();
        for (place, piece) in pieces.messages.iter().enumerate() {
            let last = place + 1 == pieces.messages.len();
            let part = pb::RangeStreamResponse::decode(piece.clone()).unwrap().range_response.unwrap();
            assert_eq!(part.header.is_some(), last, "header in message {place}");
            merged.merge(piece.clone()).unwrap();
        }
        assert_eq!(merged.range_response.unwrap(), reply);
    }
    let sorted = pb::RangeRequest { sort_target: 3, ..range("\0", "\0") };
    let refused = (12, "RangeStream does not support custom sort orders");
    assert_eq!(grpc.call(Method::RangeStream, &sorted).await.failed(), refused);
}

/// A transaction answers with every kind of response, nested ones included, headers as etcd fills them.
#[tokio::test]
async fn transactions() {
    use pb::request_op::Request;
    use pb::response_op::Response;
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let op = |request| pb::RequestOp { request: Some(request) };
    let compare = pb::Compare {
        target: 1,
        key: "a".into(),
        target_union: Some(pb::compare::TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let nested =
        pb::TxnRequest { success: vec![op(Request::RequestPut(put("c", "3")))], ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![
            op(Request::RequestPut(put("a", "1"))),
            op(Request::RequestRange(range("a", ""))),
            op(Request::RequestDeleteRange(pb::DeleteRangeRequest { key: "z".into(), ..Default::default() })),
            op(Request::RequestTxn(nested)),
        ],
        failure: vec![],
    };
    let reply: pb::TxnResponse = grpc.call(Method::Txn, &txn).await.one();
    assert!(reply.succeeded);
    assert_eq!(reply.header.unwrap().revision, 2);
    let responses: Vec<_> = reply.responses.into_iter().map(|op| op.response.unwrap()).collect();
    let only_revision = |revision| Some(pb::ResponseHeader { revision, ..Default::default() });
    match &responses[..] {
        [
            Response::ResponsePut(put),
            Response::ResponseRange(range),
            Response::ResponseDeleteRange(delete),
            Response::ResponseTxn(txn),
        ] => {
            assert_eq!(put.header, only_revision(2));
            assert_eq!((range.kvs.len(), range.kvs[0].mod_revision, range.header), (1, 2, only_revision(2)));
            assert_eq!((delete.deleted, delete.header.is_some()), (0, true));
            assert_eq!((txn.succeeded, txn.responses.len(), txn.header), (true, 1, only_revision(0)));
        }
        other => panic!("{other:?}"),
    }
    let read_only =
        pb::TxnRequest { success: vec![op(Request::RequestRange(range("a", "")))], ..Default::default() };
    let reply: pb::TxnResponse = grpc.call(Method::Txn, &read_only).await.one();
    assert_eq!((reply.header.unwrap().revision, reply.responses.len()), (2, 1));
    let empty_op = pb::TxnRequest { success: vec![pb::RequestOp { request: None }], ..Default::default() };
    assert_eq!(grpc.call(Method::Txn, &empty_op).await.failed(), (3, "etcdserver: key not found"));
}

/// However deep transactions are nested, there is an answer: carried out up to the limit, refused by name beyond it.
#[tokio::test]
async fn nesting_has_a_limit() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let nested = |depth: usize| {
        let mut message = Vec::new();
        for _ in 1..depth {
            // TxnRequest.success (2) of RequestOp.request_txn (4).
            let mut op = vec![0x22];
            prost::encoding::encode_varint(message.len() as u64, &mut op);
            op.extend_from_slice(&message);
            message = vec![0x12];
            prost::encoding::encode_varint(op.len() as u64, &mut message);
            message.extend_from_slice(&op);
        }
        crate::client::framed(&message)
    };
    for depth in [1, 2, 50, 100, 128] {
        let ended = grpc.raw(Method::Txn.path(), &[], nested(depth)).await;
        assert_eq!(ended.code, Some(0), "depth {depth}: {}", ended.message);
    }
    for depth in [130, 1000, 10_000] {
        let ended = grpc.raw(Method::Txn.path(), &[], nested(depth)).await;
        assert_eq!(ended.failed(), (3, "etcdserver: too many operations in txn request"), "depth {depth}");
    }
}

/// Each bad request gets etcd's own error.
#[tokio::test]
async fn errors_are_etcds() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let refused = async |method, message: &dyn Fn() -> Bytes| {
        let ended = grpc.raw(Method::path(method), &[], crate::client::framed(&message())).await;
        let (code, text) = ended.failed();
        (code, text.to_owned())
    };
    let encoded = |message: &dyn Fn() -> Vec<u8>| Bytes::from(message());
    let range_of = |r: pb::RangeRequest| move || encoded(&|| r.encode_to_vec());
    let put_of = |p: pb::PutRequest| move || encoded(&|| p.encode_to_vec());
    let cases = [
        (refused(Method::Range, &range_of(range("", ""))).await, (3, "etcdserver: key is not provided")),
        (
            refused(Method::Range, &range_of(pb::RangeRequest { sort_order: 99, ..range("a", "") })).await,
            (3, "etcdserver: invalid sort option"),
        ),
        (
            refused(Method::Range, &range_of(pb::RangeRequest { revision: 99, ..range("a", "") })).await,
            (11, "etcdserver: mvcc: required revision is a future revision"),
        ),
        (refused(Method::Put, &put_of(put("", "x"))).await, (3, "etcdserver: key is not provided")),
        (
            refused(Method::Put, &put_of(pb::PutRequest { ignore_value: true, ..put("a", "x") })).await,
            (3, "etcdserver: value is provided"),
        ),
        (
            refused(Method::Put, &put_of(pb::PutRequest { ignore_lease: true, lease: 1, ..put("a", "x") }))
                .await,
            (3, "etcdserver: lease is provided"),
        ),
        (
            refused(Method::Put, &put_of(pb::PutRequest { ignore_value: true, ..put("missing", "") })).await,
            (3, "etcdserver: key not found"),
        ),
        (
            refused(Method::Put, &put_of(pb::PutRequest { lease: 424_242, ..put("a", "x") })).await,
            (5, "etcdserver: requested lease not found"),
        ),
    ];
    for ((code, text), expected) in cases {
        assert_eq!((code, &text[..]), expected);
    }
    let put_bytes = async |bytes: usize| grpc.call(Method::Put, &put("k", &"v".repeat(bytes))).await;
    assert_eq!(put_bytes(1_572_864 - 64).await.code, Some(0));
    assert_eq!(put_bytes(1_572_864).await.failed(), (3, "etcdserver: request is too large"));
    assert_eq!(put_bytes(1_572_864 + 600_000).await.failed().0, 8);
}

/// Leases are granted at least for the minimum, found, renewed in order, and end; unknown ones are no errors where
/// etcd has none.
#[tokio::test]
async fn leases() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let granted: pb::LeaseGrantResponse =
        grpc.call(Method::LeaseGrant, &pb::LeaseGrantRequest { ttl: 1, id: 0 }).await.one();
    assert!(granted.id > 0);
    assert_eq!(granted.ttl, 2);
    let twice = grpc.call(Method::LeaseGrant, &pb::LeaseGrantRequest { ttl: 5, id: granted.id }).await;
    assert_eq!(twice.failed(), (9, "etcdserver: lease already exists"));
    let long = grpc.call(Method::LeaseGrant, &pb::LeaseGrantRequest { ttl: 9_000_000_001, id: 0 }).await;
    assert_eq!(long.failed(), (11, "etcdserver: too large lease TTL"));
    let _: pb::PutResponse =
        grpc.call(Method::Put, &pb::PutRequest { lease: granted.id, ..put("k", "v") }).await.one();
    let ask = |id| pb::LeaseTimeToLiveRequest { id, keys: true };
    let time: pb::LeaseTimeToLiveResponse = grpc.call(Method::LeaseTimeToLive, &ask(granted.id)).await.one();
    assert_eq!((time.granted_ttl, &time.keys[..]), (2, &[Bytes::from("k")][..]));
    let time: pb::LeaseTimeToLiveResponse = grpc.call(Method::LeaseTimeToLive, &ask(999)).await.one();
    assert_eq!((time.id, time.ttl, time.granted_ttl), (999, -1, 0));
    let leases: pb::LeaseLeasesResponse =
        grpc.call(Method::LeaseLeases, &pb::LeaseLeasesRequest {}).await.one();
    assert_eq!(leases.leases, [pb::LeaseStatus { id: granted.id }]);

    let mut alive = grpc.open(Method::LeaseKeepAlive.path(), &[]).await;
    for id in [granted.id, 999, granted.id] {
        alive.say(&pb::LeaseKeepAliveRequest { id });
        let reply: pb::LeaseKeepAliveResponse = alive.read().await;
        assert_eq!((reply.id, reply.ttl), (id, if id == granted.id { 2 } else { 0 }));
    }
    alive.send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(alive.end().await.code, Some(0));
    let revoke = pb::LeaseRevokeRequest { id: granted.id };
    let _: pb::LeaseRevokeResponse = grpc.call(Method::LeaseRevoke, &revoke).await.one();
    let gone = grpc.call(Method::LeaseRevoke, &revoke).await;
    assert_eq!(gone.failed(), (5, "etcdserver: requested lease not found"));
    let reply: pb::RangeResponse = grpc.call(Method::Range, &range("k", "")).await.one();
    assert_eq!(reply.count, 0);
}

/// Maintenance, cluster, health and reflection answer with what is true.
#[tokio::test]
async fn the_other_services() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let status: pb::StatusResponse = grpc.call(Method::Status, &pb::StatusRequest {}).await.one();
    assert_eq!((status.leader, status.raft_term, &status.errors[..]), (7, 3, &[][..]));
    let raise = pb::AlarmRequest { action: 1, member_id: 7, alarm: 1 };
    let raised: pb::AlarmResponse = grpc.call(Method::Alarm, &raise).await.one();
    assert_eq!(raised.alarms, [pb::AlarmMember { member_id: 7, alarm: 1 }]);
    let status: pb::StatusResponse = grpc.call(Method::Status, &pb::StatusRequest {}).await.one();
    assert_eq!(status.errors, ["memberID:7 alarm:NOSPACE"]);
    let full = grpc.call(Method::Put, &put("a", "b")).await;
    assert_eq!(full.failed(), (8, "etcdserver: mvcc: database space exceeded"));
    let shown: pb::AlarmResponse = grpc.call(Method::Alarm, &pb::AlarmRequest::default()).await.one();
    assert_eq!(shown.alarms, raised.alarms);
    let disarm = pb::AlarmRequest { action: 2, ..raise };
    let _: pb::AlarmResponse = grpc.call(Method::Alarm, &disarm).await.one();
    let _: pb::PutResponse = grpc.call(Method::Put, &put("a", "b")).await.one();

    let hash = async |revision| grpc.call(Method::HashKv, &pb::HashKvRequest { revision }).await;
    let now: pb::HashKvResponse = hash(0).await.one();
    assert_eq!((now.hash_revision, now.compact_revision), (2, -1));
    assert_ne!(now.hash, 0);
    assert_eq!(hash(99).await.failed().0, 11);
    let members: pb::MemberListResponse =
        grpc.call(Method::MemberList, &pb::MemberListRequest { linearizable: true }).await.one();
    assert_eq!((members.members[0].id, members.header.unwrap().revision), (7, 0));
    let elsewhere = grpc.call(Method::MoveLeader, &pb::MoveLeaderRequest { target_id: 1 }).await;
    assert_eq!(elsewhere.failed(), (9, "etcdserver: bad leader transferee"));
    let moved: pb::MoveLeaderResponse =
        grpc.call(Method::MoveLeader, &pb::MoveLeaderRequest { target_id: 7 }).await.one();
    assert_eq!(moved.header, None);
    let _: pb::DefragmentResponse = grpc.call(Method::Defragment, &pb::DefragmentRequest {}).await.one();

    let health: health::HealthCheckResponse =
        grpc.call(Method::HealthCheck, &health::HealthCheckRequest::default()).await.one();
    assert_eq!(health.status, 1);
    let nobody = health::HealthCheckRequest { service: "nobody".to_owned() };
    assert_eq!(grpc.call(Method::HealthCheck, &nobody).await.failed().0, 5);

    use reflection::server_reflection_request::MessageRequest;
    use reflection::server_reflection_response::MessageResponse;
    let mut reflected =
        grpc.open("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &[]).await;
    let mut ask = async |message_request| {
        let host = String::new();
        reflected.say(&reflection::ServerReflectionRequest { host, message_request: Some(message_request) });
        let reply: reflection::ServerReflectionResponse = reflected.read().await;
        reply.message_response.unwrap()
    };
    match ask(MessageRequest::ListServices(String::new())).await {
        MessageResponse::ListServicesResponse(list) => {
            assert!(list.service.iter().any(|service| service.name == "etcdserverpb.KV"));
        }
        other => panic!("{other:?}"),
    }
    match ask(MessageRequest::FileContainingSymbol("etcdserverpb.KV.Put".to_owned())).await {
        MessageResponse::FileDescriptorResponse(files) => assert_eq!(files.file_descriptor_proto.len(), 3),
        other => panic!("{other:?}"),
    }
}

/// A snapshot's bytes are whole sectors, its last message is the hash of all others, and it counts down to zero.
#[tokio::test]
async fn snapshots() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let ended = grpc.call(Method::Snapshot, &pb::SnapshotRequest {}).await;
    assert_eq!(ended.code, Some(0));
    let messages: Vec<_> =
        ended.messages.into_iter().map(|message| pb::SnapshotResponse::decode(message).unwrap()).collect();
    let (last, others) = messages.split_last().unwrap();
    let bytes: Vec<u8> = others.iter().flat_map(|message| message.blob.to_vec()).collect();
    assert_eq!(bytes.len() % 512, 0);
    assert_eq!(bytes[..99_999], vec![7; 99_999]);
    assert!(bytes[99_999..].iter().all(|byte| *byte == 0));
    assert_eq!(last.blob, &Sha256::digest(&bytes)[..]);
    assert_eq!(last.remaining_bytes, 0);
    assert!(others.is_sorted_by(|a, b| a.remaining_bytes > b.remaining_bytes));
    assert!(others.iter().all(|message| message.blob.len() <= 32 * 1024));
}

/// Every method is either carried out or refused by its name: there is no third way.
#[tokio::test]
async fn no_method_is_forgotten() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    for &method in Method::ALL {
        let mut call = grpc.open(method.path(), &[]).await;
        call.send.send_data(crate::client::framed(b""), true).unwrap();
        // Watches and health watches go on for ever, and who wants what another call has waits: that they began is enough.
        if is_supported(method) && (method.shape() != Shape::Unary || method.waits_for_others()) {
            continue;
        }
        let ended = call.end().await;
        let named = ended.message.contains(&format!("{}/{}", method.service(), method.name()));
        let refused =
            ended.code == Some(12) && named && ended.message.contains("not supported by this release");
        assert_eq!(refused, !is_supported(method), "{method:?}: {ended:?}");
    }
    let unknown = grpc.raw("/etcdserverpb.KV/Nope", &[], Bytes::new()).await;
    assert_eq!(unknown.failed(), (12, "unknown method Nope for service etcdserverpb.KV"));
    assert_eq!(
        grpc.raw("/no.Service/Nope", &[], Bytes::new()).await.failed(),
        (12, "unknown service no.Service")
    );
}

/// Without a leader: calls that insist on one fail at once, local reads still work, others say why they fail.
#[tokio::test]
async fn without_a_leader() {
    let options = Options { election_timeout: std::time::Duration::from_millis(10), ..Options::default() };
    let served = Served::with(options, Access::new(vec![], vec![])).await;
    let grpc = Grpc::connect(served.address).await;
    let insisting = [("hasleader", "true")];
    let mut watch = grpc.open(Method::Watch.path(), &insisting).await;
    watch.say(&crate::watching::create("a", ""));
    let created: pb::WatchResponse = watch.read().await;
    assert!(created.created);
    served.backend.set_leader(None);
    let no_leader = (14, "etcdserver: no leader");
    assert_eq!(grpc.with(Method::Put, &insisting, &put("a", "b")).await.failed(), no_leader);
    assert_eq!(grpc.call(Method::Range, &range("a", "")).await.failed(), no_leader);
    let local = pb::RangeRequest { serializable: true, ..range("a", "") };
    assert_eq!(grpc.call(Method::Range, &local).await.code, Some(0));
    let eventual = [("synod-consistency", "eventual")];
    assert_eq!(grpc.with(Method::Range, &eventual, &range("a", "")).await.code, Some(0));
    let linearizable = [("synod-consistency", "linearizable")];
    assert_eq!(grpc.with(Method::Range, &linearizable, &local).await.failed(), no_leader);
    let causal = [("synod-consistency", "causal")];
    assert_eq!(grpc.with(Method::Range, &causal, &local).await.code, Some(0));
    // How far it lags nobody can tell now.
    let bounded = [("synod-max-staleness", "20ms")];
    let ended = grpc.with(Method::Range, &bounded, &local).await;
    let (code, why) = ended.failed();
    assert!(code == 14 && why.contains("may lag more than 20ms"), "{why}");
    // The open stream insisted, too: it ends when nobody leads for three election timeouts.
    assert_eq!(watch.end().await.failed(), no_leader);
}

/// A learner answers what it can know alone, and refuses the rest.
#[tokio::test]
async fn a_learner_is_modest() {
    let served = Served::start().await;
    served.backend.learner.store(true, Ordering::Relaxed);
    let grpc = Grpc::connect(served.address).await;
    let refused = (9, "etcdserver: rpc not supported for learner");
    assert_eq!(grpc.call(Method::Put, &put("a", "b")).await.failed(), refused);
    assert_eq!(grpc.call(Method::Range, &range("a", "")).await.failed(), refused);
    assert_eq!(grpc.call(Method::Watch, &crate::watching::create("a", "")).await.failed(), refused);
    assert_eq!(grpc.call(Method::LeaseGrant, &pb::LeaseGrantRequest::default()).await.failed(), refused);
    let local = pb::RangeRequest { serializable: true, ..range("a", "") };
    assert_eq!(grpc.call(Method::Range, &local).await.code, Some(0));
    let status: pb::StatusResponse = grpc.call(Method::Status, &pb::StatusRequest {}).await.one();
    assert!(status.is_learner);
    assert_eq!(grpc.call(Method::Snapshot, &pb::SnapshotRequest {}).await.code, Some(0));
}

/// A deadline ends a call that would hang, and a stream.
#[tokio::test]
async fn deadlines_are_honoured() {
    let served = Served::start().await;
    served.backend.stuck.store(true, Ordering::Relaxed);
    let grpc = Grpc::connect(served.address).await;
    let soon = [("grpc-timeout", "20m")];
    let exceeded = (4, "context deadline exceeded");
    assert_eq!(grpc.with(Method::Put, &soon, &put("a", "b")).await.failed(), exceeded);
    let mut watch = grpc.open(Method::Watch.path(), &soon).await;
    watch.say(&crate::watching::create("a", ""));
    assert_eq!(watch.end().await.failed(), exceeded);
    let nonsense = grpc.with(Method::Put, &[("grpc-timeout", "soon")], &put("a", "b")).await;
    assert_eq!(nonsense.failed().0, 3);
}
