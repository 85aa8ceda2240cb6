//! Watches: what comes, in which order, and what does not come.

use bytes::Bytes;
use synod_api::Method;
use synod_api::etcdserverpb as pb;
use synod_api::etcdserverpb::watch_request::RequestUnion;

use crate::calls::put;
use crate::client::{Call, Grpc};
use crate::fake::Served;

pub(crate) fn create_with(change: impl FnOnce(&mut pb::WatchCreateRequest)) -> pb::WatchRequest {
    let mut create = pb::WatchCreateRequest::default();
    change(&mut create);
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

pub(crate) fn create(key: &str, end: &str) -> pb::WatchRequest {
    create_with(|create| {
        create.key = key.to_owned().into();
        create.range_end = end.to_owned().into();
    })
}

fn cancel(watch_id: i64) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })) }
}

fn progress() -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})) }
}

async fn next(call: &mut Call) -> pb::WatchResponse {
    call.read().await
}

/// Created comes first, events in order with what was before, filters hold, a cancelled watch is silent, an unknown one
/// is not worth an answer, and progress comes behind the events.
#[tokio::test]
async fn a_stream_of_watches() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let mut watch = grpc.open(Method::Watch.path(), &[]).await;
    watch.say(&progress());
    watch.say(&create_with(|create| {
        create.key = "a".into();
        create.range_end = "c".into();
        create.prev_kv = true;
    }));
    let created = next(&mut watch).await;
    assert_eq!((created.created, created.watch_id, created.header.unwrap().revision), (true, 0, 1));
    for (key, value) in [("a", "1"), ("x", "2"), ("a", "3")] {
        let _: pb::PutResponse = grpc.call(Method::Put, &put(key, value)).await.one();
    }
    let mut events = Vec::new();
    while events.len() < 2 {
        let response = next(&mut watch).await;
        assert_eq!(response.watch_id, 0);
        events.extend(response.events);
    }
    assert!(events[0].prev_kv.is_none());
    assert_eq!(events[1].prev_kv.as_ref().unwrap().value, "1");
    assert_eq!(events[1].kv.as_ref().unwrap().mod_revision, 4);

    watch.say(&create_with(|create| {
        create.key = "a".into();
        create.start_revision = 1;
        create.filters = vec![0];
        create.watch_id = 9;
    }));
    let created = next(&mut watch).await;
    assert_eq!((created.created, created.watch_id), (true, 9));
    let delete = pb::DeleteRangeRequest { key: "a".into(), ..Default::default() };
    let _: pb::DeleteRangeResponse = grpc.call(Method::DeleteRange, &delete).await.one();
    let mut of = std::collections::BTreeMap::new();
    while of.len() < 2 {
        let response = next(&mut watch).await;
        of.insert(response.watch_id, response.events);
    }
    assert_eq!(of[&9].len(), 1, "the puts were filtered");
    assert_eq!((of[&9][0].r#type, of[&9][0].kv.as_ref().unwrap().mod_revision), (1, 5));

    watch.say(&cancel(77));
    watch.say(&cancel(9));
    let canceled = next(&mut watch).await;
    assert_eq!((canceled.watch_id, canceled.canceled, canceled.created), (9, true, false));
    watch.say(&progress());
    let come = next(&mut watch).await;
    assert_eq!((come.watch_id, come.events.len(), come.header.unwrap().revision), (-1, 0, 5));
}

/// Watches that cannot be get etcd's answers: two messages for a compacted start, one for a bad range or a taken name.
#[tokio::test]
async fn refused_watches() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    for value in 0..4 {
        let _: pb::PutResponse = grpc.call(Method::Put, &put("a", &value.to_string())).await.one();
    }
    let _: pb::CompactionResponse =
        grpc.call(Method::Compact, &pb::CompactionRequest { revision: 4, physical: false }).await.one();
    let mut watch = grpc.open(Method::Watch.path(), &[]).await;
    watch.say(&create_with(|create| {
        create.key = "a".into();
        create.start_revision = 2;
    }));
    let (first, second) = (next(&mut watch).await, next(&mut watch).await);
    assert!(first.created && !first.canceled);
    assert!(!second.created && second.canceled);
    assert_eq!((second.compact_revision, second.header.unwrap().revision), (4, 0));
    watch.say(&create("b", "a"));
    let refused = next(&mut watch).await;
    assert_eq!((refused.created, refused.canceled, refused.watch_id), (true, true, -1));
    assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
    for _ in 0..2 {
        watch.say(&create_with(|create| {
            create.key = "a".into();
            create.watch_id = 3;
        }));
    }
    assert_eq!(next(&mut watch).await.watch_id, 3);
    let taken = next(&mut watch).await;
    assert_eq!(taken.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    watch.say(&create_with(|create| {
        create.key = "a".into();
        create.start_revision = -1;
    }));
    let negative = next(&mut watch).await;
    assert_eq!(negative.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
}

/// A large revision is cut into fragments for who asked for it, with nothing between them, and is whole for who did not.
#[tokio::test]
async fn fragments_stay_together() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let mut watch = grpc.open(Method::Watch.path(), &[]).await;
    for fragment in [true, false] {
        watch.say(&create_with(|create| {
            create.key = "a".into();
            create.range_end = Bytes::from_static(b"\0");
            create.prev_kv = true;
            create.fragment = fragment;
        }));
        assert!(next(&mut watch).await.created);
    }
    // With what was before, one transaction's events are larger than any request.
    for fill in ["x", "y"] {
        let value = fill.repeat(14_000);
        let puts = (0..100).map(|number| {
            let request = pb::request_op::Request::RequestPut(put(&format!("a{number}"), &value));
            pb::RequestOp { request: Some(request) }
        });
        let txn = pb::TxnRequest { success: puts.collect(), ..Default::default() };
        let _: pb::TxnResponse = grpc.call(Method::Txn, &txn).await.one();
    }
    let mut events = [0, 0];
    let mut fragments = 0;
    let mut inside = false;
    while events != [200, 200] {
        let response = next(&mut watch).await;
        assert!(!inside || response.watch_id == 0, "something came between two fragments");
        inside = response.fragment;
        fragments += usize::from(response.fragment);
        events[response.watch_id as usize] += response.events.len();
    }
    assert!(fragments > 0 && !inside);
}

/// A client that says no more still gets its events; one that goes away leaves nothing behind.
#[tokio::test]
async fn half_closed_and_gone() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let mut watch = grpc.open(Method::Watch.path(), &[]).await;
    watch.say(&create("a", ""));
    watch.send.send_data(Bytes::new(), true).unwrap();
    assert!(next(&mut watch).await.created);
    let _: pb::PutResponse = grpc.call(Method::Put, &put("a", "1")).await.one();
    assert_eq!(next(&mut watch).await.events.len(), 1);
    let census = || {
        use synod_server::service::backend::Backend;
        served.backend.store().write().hub().census()
    };
    assert_eq!((census().streams, census().watchers), (1, 1));
    drop(watch);
    crate::client::soon(async {
        while census().streams > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((census().watchers, census().queued_bytes), (0, 0));
}

/// An idle watch that wished for it is told how far it has come.
#[tokio::test]
async fn idle_watches_hear_of_progress() {
    let options = synod_server::service::Options {
        progress_interval: std::time::Duration::from_millis(20),
        ..synod_server::service::Options::default()
    };
    let served = Served::with(options, synod_server::http::Access::new(vec![], vec![])).await;
    let grpc = Grpc::connect(served.address).await;
    let mut watch = grpc.open(Method::Watch.path(), &[]).await;
    watch.say(&create_with(|create| {
        create.key = "a".into();
        create.progress_notify = true;
    }));
    assert!(next(&mut watch).await.created);
    let _: pb::PutResponse = grpc.call(Method::Put, &put("other", "1")).await.one();
    loop {
        let come = next(&mut watch).await;
        assert_eq!((come.watch_id, come.created, come.events.len()), (0, false, 0));
        if come.header.unwrap().revision == 2 {
            break;
        }
    }
}

/// Whoever stops reading is not sent more than fits; the other streams, and writes, do not notice.
#[tokio::test]
async fn a_watcher_that_never_reads_holds_up_nobody() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let mut lazy = grpc.open(Method::Watch.path(), &[]).await;
    lazy.say(&create("a", ""));
    assert!(next(&mut lazy).await.created);
    let other = Grpc::connect(served.address).await;
    let mut eager = other.open(Method::Watch.path(), &[]).await;
    eager.say(&create("a", ""));
    assert!(next(&mut eager).await.created);
    let value = "v".repeat(200_000);
    let mut heard = 0;
    for _ in 0..100 {
        let _: pb::PutResponse = other.call(Method::Put, &put("a", &value)).await.one();
        heard += next(&mut eager).await.events.len();
    }
    assert_eq!(heard, 100);
    {
        use synod_server::service::backend::Backend;
        let census = served.backend.store().write().hub().census();
        assert!(census.queued_bytes < 4 << 20, "{census:?}");
    }
    // When it reads at last, nothing is missing and nothing comes twice.
    let mut next_revision = 2;
    while next_revision < 102 {
        for event in next(&mut lazy).await.events {
            assert_eq!(event.kv.unwrap().mod_revision, next_revision);
            next_revision += 1;
        }
    }
}
