//! The corner cases of the API's description that a store decides (section 16), each as a story; and what limits do.
//! (tidy: long because the list is one list, and a story is found by its place in it.)

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use synod_core::{Audience, Command, CommandId, Frozen, Index, Machine, NodeId, SnapshotRef, Time};
use synod_kv::op::{
    Alarm, AlarmAction, AlarmKind, Compare, CompareResult, CompareTarget, Content, DeleteRange,
    MemberAttributes, Op, OpReply, Put, PutFlags, RangeRequest, Reply, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpReply,
};
use synod_kv::range::StreamPace;
use synod_kv::watch::{
    EventBatch, StreamId, WATCH_QUEUE_BYTES_MAX, WatchFlags, WatchOutput, WatchRefusal, WatchRequest,
};
use synod_kv::{OpError, Store};

fn put(key: &str, value: &str) -> Put {
    let own = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Put { key: own(key), value: own(value), ..Put::default() }
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..RangeRequest::default() }
}

fn all() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
}

fn apply(store: &mut Store, op: Op) -> Reply {
    store.apply_op(&op, NodeId(7), Audience::Client)
}

fn done(store: &mut Store, op: Op) -> i64 {
    let reply = apply(store, op);
    assert!(reply.result.is_ok(), "{:?}", reply.result);
    reply.revision
}

fn keys(store: &Store, request: &RangeRequest) -> Vec<String> {
    let reply = store.range(request).expect("a readable range");
    reply.kvs.iter().map(|pair| String::from_utf8_lossy(pair.key).into_owned()).collect()
}

fn value(store: &Store, key: &str) -> Option<(String, i64)> {
    let reply = store.range(&get(key)).expect("a readable key");
    reply.kvs.iter().next().map(|pair| (String::from_utf8_lossy(pair.value).into_owned(), pair.lease))
}

/// The first write of an empty store gets revision 2; what changes nothing gets no revision of its own.
#[test]
fn revisions_count_writes() {
    let mut store = Store::new();
    assert_eq!(store.revision(), 1);
    assert_eq!(done(&mut store, Op::Put(put("a", "1"))), 2);
    assert_eq!(
        done(&mut store, Op::DeleteRange(DeleteRange { key: "b".into(), ..DeleteRange::default() })),
        2
    );
    assert_eq!(done(&mut store, Op::Txn(Txn::default())), 2);
    assert_eq!(done(&mut store, Op::LeaseGrant { id: 1, ttl: 9 }), 2);
    assert_eq!(done(&mut store, Op::LeaseRevoke { id: 1 }), 2);
    assert_eq!(
        done(&mut store, Op::DeleteRange(DeleteRange { key: "a".into(), ..DeleteRange::default() })),
        3
    );
}

/// A limit cuts off after filtering and says so, while the count is of all keys in the range; a bare count sees neither.
#[test]
fn limits_counts_and_filters() {
    let mut store = Store::new();
    for key in ["a", "b", "c", "d"] {
        done(&mut store, Op::Put(put(key, "v")));
    }
    let reply = store.range(&RangeRequest { limit: 2, ..all() }).unwrap();
    assert_eq!((reply.kvs.len(), reply.more, reply.count), (2, true, 4));
    let reply = store.range(&RangeRequest { limit: 2, min_mod_revision: 4, ..all() }).unwrap();
    assert_eq!((reply.kvs.len(), reply.more, reply.count), (2, false, 4));
    let counted = RangeRequest { limit: 1, min_mod_revision: 5, content: Content::CountOnly, ..all() };
    let reply = store.range(&counted).unwrap();
    assert_eq!((reply.kvs.len(), reply.more, reply.count), (0, false, 4));
    assert_eq!(keys(&store, &RangeRequest { range_end: "b".into(), key: "c".into(), ..all() }), [""; 0]);
    assert_eq!(keys(&store, &RangeRequest { key: "c".into(), ..all() }), ["c", "d"]);
}

/// A target other than the key sorts ascending even if no order is asked for.
#[test]
fn a_sort_target_implies_an_order() {
    let mut store = Store::new();
    for key in ["b", "a", "b", "c", "b", "c"] {
        done(&mut store, Op::Put(put(key, "v")));
    }
    let by = |sort_target, sort_order| RangeRequest { sort_target, sort_order, ..all() };
    assert_eq!(keys(&store, &by(SortTarget::Version, SortOrder::None)), ["a", "c", "b"]);
    assert_eq!(keys(&store, &by(SortTarget::Create, SortOrder::Descend)), ["c", "a", "b"]);
    assert_eq!(keys(&store, &by(SortTarget::Key, SortOrder::Descend)), ["c", "b", "a"]);
    assert_eq!(keys(&store, &RangeRequest { limit: 1, ..by(SortTarget::Mod, SortOrder::Descend) }), ["c"]);
}

/// Reading at the compacted revision works, below it and above the present it fails; compacting twice fails; an empty
/// store can be compacted at 0 once.
#[test]
fn compaction_has_an_edge() {
    let mut store = Store::new();
    assert_eq!(apply(&mut store, Op::Compact { revision: 0 }).result, Ok(OpReply::Compact));
    assert_eq!(apply(&mut store, Op::Compact { revision: 0 }).result, Err(OpError::Compacted));
    for text in ["1", "2", "3"] {
        done(&mut store, Op::Put(put("a", text)));
    }
    assert_eq!(apply(&mut store, Op::Compact { revision: 9 }).result, Err(OpError::FutureRevision));
    done(&mut store, Op::Compact { revision: 3 });
    let at = |revision| RangeRequest { revision, ..get("a") };
    assert_eq!(store.range(&at(3)).unwrap().kvs.iter().next().unwrap().value, b"2");
    assert_eq!(store.range(&at(2)), Err(OpError::Compacted));
    assert_eq!(store.range(&at(5)), Err(OpError::FutureRevision));
    assert_eq!(store.range(&at(i64::MAX)), Err(OpError::FutureRevision));
    assert_eq!(store.range(&at(-1)).unwrap().kvs.iter().next().unwrap().value, b"3");
}

/// A put without a lease takes the key off its lease, `ignore_lease` leaves it there, and another lease takes it over.
#[test]
fn a_key_has_one_lease() {
    let mut store = Store::new();
    done(&mut store, Op::LeaseGrant { id: 1, ttl: 9 });
    done(&mut store, Op::LeaseGrant { id: 2, ttl: 9 });
    let attached = |store: &Store, id| store.leases().get(id).unwrap().keys.len();
    done(&mut store, Op::Put(Put { lease: 1, ..put("a", "1") }));
    let keep = PutFlags { ignore_lease: true, ..PutFlags::default() };
    done(&mut store, Op::Put(Put { flags: keep, ..put("a", "2") }));
    assert_eq!((attached(&store, 1), value(&store, "a")), (1, Some(("2".into(), 1))));
    done(&mut store, Op::Put(Put { lease: 2, ..put("a", "3") }));
    assert_eq!((attached(&store, 1), attached(&store, 2)), (0, 1));
    done(&mut store, Op::Put(put("a", "4")));
    assert_eq!((attached(&store, 2), value(&store, "a")), (0, Some(("4".into(), 0))));
    assert_eq!(
        apply(&mut store, Op::Put(Put { lease: 3, ..put("a", "") })).result,
        Err(OpError::LeaseNotFound)
    );
    assert_eq!(
        apply(&mut store, Op::Put(Put { flags: keep, ..put("b", "") })).result,
        Err(OpError::KeyNotFound)
    );
}

/// Revoking a lease deletes its keys in order at one revision, and the lease can be granted anew.
#[test]
fn revoking_deletes_the_keys_at_once() {
    let mut store = Store::new();
    done(&mut store, Op::LeaseGrant { id: 5, ttl: 9 });
    for key in ["c", "a", "b"] {
        done(&mut store, Op::Put(Put { lease: 5, ..put(key, "") }));
    }
    let (stream, request) =
        (store.hub().open_stream(), WatchRequest { range_end: "\0".into(), ..WatchRequest::default() });
    store.hub().create(stream, &request);
    assert_eq!(apply(&mut store, Op::LeaseGrant { id: 5, ttl: 9 }).result, Err(OpError::LeaseExists));
    assert_eq!(done(&mut store, Op::LeaseRevoke { id: 5 }), 5);
    assert_eq!(apply(&mut store, Op::LeaseRevoke { id: 5 }).result, Err(OpError::LeaseNotFound));
    assert_eq!(keys(&store, &all()), [""; 0]);
    assert!(matches!(store.hub().poll(stream), Some(WatchOutput::Created { .. })));
    let Some(WatchOutput::Events { batches, revision: 5, .. }) = store.hub().poll(stream) else {
        panic!("events")
    };
    assert_eq!((batches.len(), batches[0].ends.len()), (1, 3));
    let at = |key: u8| batches[0].bytes.iter().position(|byte| *byte == key).unwrap();
    assert!(at(b'a') < at(b'b') && at(b'b') < at(b'c'), "in the order of keys");
    done(&mut store, Op::LeaseGrant { id: 5, ttl: 9 });
    for (id, ttl, error) in [(0, 9, OpError::LeaseNotFound), (6, 9_000_000_001, OpError::LeaseTtlTooLarge)] {
        assert_eq!(apply(&mut store, Op::LeaseGrant { id, ttl }).result, Err(error));
    }
}

/// A lease ends by the leader's clock and through the log; the machine tells the lessor what it needs.
#[test]
fn leases_end_through_the_log() {
    let mut store = Store::new();
    let second = Duration::from_secs(1);
    done(&mut store, Op::LeaseGrant { id: 1, ttl: 10 });
    store.promote_lessor(Time::ZERO, second);
    done(&mut store, Op::LeaseGrant { id: 2, ttl: 5 });
    done(&mut store, Op::LeaseGrant { id: 3, ttl: 5 });
    done(&mut store, Op::LeaseRevoke { id: 3 });
    store.lessor().advance(Time::ZERO);
    assert_eq!(store.lessor().expired(Time::ZERO + second * 5, 10), [2]);
    done(&mut store, Op::LeaseRevoke { id: 2 });
    assert_eq!(store.lessor().renew(2, Time::ZERO + second * 5), None);
    assert_eq!(store.lessor().expired(Time::ZERO + second * 11, 10), [1]);
}

/// Compares look at the state before the whole transaction; a key that is not there equals zero, but its value equals and
/// differs from nothing; an interval without keys is judged like such a key.
#[test]
fn compares_of_what_is_not_there() {
    let mut store = Store::new();
    done(&mut store, Op::Put(put("a", "1")));
    let mut holds = |key: &'static str, range_end: &'static str, result, target| {
        let compare = Compare { key: key.into(), range_end: range_end.into(), result, target };
        let reply = apply(&mut store, Op::Txn(Txn { compare: vec![compare], ..Txn::default() }));
        let Ok(OpReply::Txn(reply)) = reply.result else { panic!("a transaction's reply") };
        reply.succeeded
    };
    use CompareResult::{Equal, NotEqual, Unknown};
    assert!(holds("x", "", Equal, CompareTarget::Create(0)));
    assert!(!holds("x", "", NotEqual, CompareTarget::Value("1".into())));
    assert!(!holds("x", "z", NotEqual, CompareTarget::Value("1".into())));
    assert!(holds("x", "z", Equal, CompareTarget::Version(0)));
    assert!(holds("a", "z", Equal, CompareTarget::Value("1".into())));
    assert!(holds("x", "", Unknown, CompareTarget::Lease(1)));
    assert!(!holds("a", "", Equal, CompareTarget::Mod(1)));
}

/// A transaction reads its own writes, at the revision that it is about to make; the parts say which revision they saw.
#[test]
fn a_transaction_reads_its_own_writes() {
    let mut store = Store::new();
    done(&mut store, Op::Put(put("a", "1")));
    let success = vec![TxnOp::Range(get("a")), TxnOp::Put(put("a", "2")), TxnOp::Range(get("a"))];
    let reply = apply(&mut store, Op::Txn(Txn { success, ..Txn::default() }));
    let Ok(OpReply::Txn(txn)) = reply.result else { panic!("a transaction's reply") };
    let seen = |op: &TxnOpReply| match op {
        TxnOpReply::Range(range) => (range.revision, range.kvs.iter().next().unwrap().value.to_vec()),
        other => panic!("{other:?} is no range"),
    };
    assert_eq!(txn.revision, 3);
    assert_eq!(seen(&txn.responses[0]), (2, b"1".to_vec()));
    assert_eq!(seen(&txn.responses[2]), (3, b"2".to_vec()));
}

/// A transaction of which any part fails writes nothing, whether or not anybody listens (etcd issue 18667: reads at a
/// compacted revision next to writes).
#[test]
fn a_failing_transaction_writes_nothing() {
    for audience in [Audience::Client, Audience::Nobody] {
        let mut store = Store::new();
        for text in ["1", "2", "3"] {
            done(&mut store, Op::Put(put("a", text)));
        }
        done(&mut store, Op::Compact { revision: 3 });
        let before = store.digest();
        let bad = [
            (TxnOp::Range(RangeRequest { revision: 2, ..get("a") }), OpError::Compacted),
            (TxnOp::Range(RangeRequest { revision: 5, ..get("a") }), OpError::FutureRevision),
            (TxnOp::Put(Put { lease: 9, ..put("b", "") }), OpError::LeaseNotFound),
            (TxnOp::Empty, OpError::KeyNotFound),
        ];
        for (op, error) in bad {
            let inner = Txn { success: vec![op], ..Txn::default() };
            let success = vec![TxnOp::Put(put("a", "4")), TxnOp::Txn(inner)];
            let reply = store.apply_op(&Op::Txn(Txn { success, ..Txn::default() }), NodeId(1), audience);
            assert_eq!(reply.result, Err(error));
            assert_eq!((store.digest(), reply.revision), (before, 4));
        }
    }
}

/// A put that needs the earlier value of a key that its own transaction deletes fails beforehand: upstream panics here.
#[test]
fn a_deleted_value_cannot_be_kept() {
    let mut store = Store::new();
    done(&mut store, Op::Put(put("b", "1")));
    let everything = DeleteRange { key: "a".into(), range_end: "\0".into(), prev_kv: false };
    let flags = PutFlags { ignore_value: true, ..PutFlags::default() };
    let success = vec![TxnOp::DeleteRange(everything), TxnOp::Put(Put { flags, ..put("b", "") })];
    let reply = apply(&mut store, Op::Txn(Txn { success, ..Txn::default() }));
    assert_eq!((reply.result, value(&store, "b")), (Err(OpError::KeyNotFound), Some(("1".into(), 0))));
}

/// The quota is decided where commands are applied: the write that would exceed it raises the alarm of the member that took
/// it; then only what frees space goes on, until the alarm is taken down.
#[test]
fn the_quota_raises_an_alarm() {
    let mut store = Store::new();
    done(&mut store, Op::SetQuota { bytes: 3000 });
    done(&mut store, Op::Put(put("a", &"x".repeat(2000))));
    let big = || Op::Put(put("b", &"x".repeat(900)));
    assert_eq!(apply(&mut store, big()).result, Err(OpError::NoSpace));
    let alarm = Alarm { member: 7, kind: AlarmKind::NoSpace };
    assert!(store.alarms().iter().eq([&alarm]));
    let only_reads = Txn { success: vec![TxnOp::Range(get("a"))], ..Txn::default() };
    for op in [Op::Put(put("c", "")), Op::LeaseGrant { id: 1, ttl: 1 }] {
        assert_eq!(store.precheck(&op), Err(OpError::NoSpace));
        assert_eq!(apply(&mut store, op).result, Err(OpError::NoSpace));
    }
    done(&mut store, Op::Txn(only_reads));
    done(&mut store, Op::DeleteRange(DeleteRange { key: "a".into(), ..DeleteRange::default() }));
    let revision = store.revision();
    done(&mut store, Op::Compact { revision });
    assert_eq!(apply(&mut store, big()).result, Err(OpError::NoSpace), "the alarm stays up by itself");
    let reply = apply(&mut store, Op::Alarm(AlarmAction::Deactivate(alarm)));
    assert_eq!(reply.result, Ok(OpReply::Alarm(vec![alarm])));
    done(&mut store, big());
}

/// While data are known to be corrupt, nothing is read or written; alarms can still be taken down.
#[test]
fn corruption_stops_everything() {
    let mut store = Store::new();
    let alarm = Alarm { member: 2, kind: AlarmKind::Corrupt };
    done(&mut store, Op::Alarm(AlarmAction::Activate(alarm)));
    assert_eq!(apply(&mut store, Op::Put(put("a", ""))).result, Err(OpError::Corrupt));
    assert_eq!(apply(&mut store, Op::LeaseRevoke { id: 1 }).result, Err(OpError::Corrupt));
    assert_eq!(store.range(&all()), Err(OpError::Corrupt));
    done(&mut store, Op::MemberForget { node: 2 });
    done(&mut store, Op::Put(put("a", "")));
}

/// A command that is no operation, and operations that break the rules for requests, are answered with an error and leave
/// the state as it was, but for the position.
#[test]
fn bad_commands_are_harmless() {
    let mut store = Store::new();
    let mut at = Index::ZERO;
    let mut give = |payload: Bytes| {
        at = at.next();
        let command = Command { id: CommandId { origin: NodeId(1), number: 1 }, payload };
        let reply = store.apply(at, &command, Audience::Client);
        assert_eq!((store.revision(), store.applied()), (1, at));
        reply.result
    };
    assert_eq!(give(Bytes::new()), Err(OpError::Malformed));
    assert_eq!(give(Bytes::from_static(&[99, 1, 2])), Err(OpError::Malformed));
    assert_eq!(give(Op::Put(put("", "v")).payload()), Err(OpError::EmptyKey));
    assert_eq!(give(Op::DeleteRange(DeleteRange::default()).payload()), Err(OpError::EmptyKey));
    let twice = Txn { success: vec![TxnOp::Put(put("a", "1")), TxnOp::Put(put("a", "2"))], ..Txn::default() };
    assert_eq!(give(Op::Txn(twice).payload()), Err(OpError::DuplicateKey));
}

fn open(store: &mut Store, request: WatchRequest) -> StreamId {
    let stream = store.hub().open_stream();
    store.hub().create(stream, &request);
    stream
}

fn heard(store: &mut Store, stream: StreamId) -> Vec<WatchOutput> {
    while store.catch_up(100) {}
    std::iter::from_fn(|| store.hub().poll(stream)).collect()
}

fn count_events(outputs: &[WatchOutput]) -> usize {
    let count = |output: &WatchOutput| match output {
        WatchOutput::Events { batches, .. } => batches.iter().map(|batch| batch.ends.len()).sum(),
        _ => 0,
    };
    outputs.iter().map(count).sum()
}

/// Names count up from 0 and skip those given; a name in use and an empty range are refused; an unknown name is canceled in silence.
#[test]
fn watchers_have_names() {
    let mut store = Store::new();
    let stream = store.hub().open_stream();
    let key = || WatchRequest { key: "a".into(), ..WatchRequest::default() };
    store.hub().create(stream, &key());
    store.hub().create(stream, &WatchRequest { watch_id: 1, ..key() });
    store.hub().create(stream, &key());
    store.hub().create(stream, &WatchRequest { watch_id: 1, ..key() });
    store.hub().create(stream, &WatchRequest { range_end: "a".into(), ..key() });
    store.hub().create(stream, &WatchRequest { start_revision: -3, ..key() });
    store.hub().cancel(stream, 77);
    store.hub().cancel(stream, 0);
    let created = |watch_id| WatchOutput::Created { watch_id, revision: 1 };
    let refused = |reason| WatchOutput::Refused { revision: 1, reason };
    let expected = [
        created(0),
        created(1),
        created(2),
        refused(WatchRefusal::DuplicateId),
        refused(WatchRefusal::EmptyRange),
        refused(WatchRefusal::NegativeRevision),
        WatchOutput::Canceled { watch_id: 0, revision: 1 },
    ];
    assert_eq!(heard(&mut store, stream), expected);
}

/// After a rewind every watcher is told so and is gone, whatever state it was in, and a new one hears what comes then.
#[test]
fn a_rewind_ends_all_watches() {
    let mut store = Store::new();
    done(&mut store, Op::Put(put("a", "1")));
    let before = store.freeze();
    done(&mut store, Op::Put(put("a", "2")));
    let stream = store.hub().open_stream();
    let from = |start_revision| WatchRequest { key: "a".into(), start_revision, ..WatchRequest::default() };
    store.hub().create(stream, &from(0));
    store.hub().create(stream, &from(2));
    store.hub().create(stream, &from(99));
    heard(&mut store, stream);
    store.rewind(Index(1), before).expect("the store's own state can be read back");
    store.taken_back();
    assert_eq!(store.revision(), 2, "the revision goes back");
    let gone = |watch_id| WatchOutput::TakenBack { watch_id, revision: 2 };
    assert_eq!(heard(&mut store, stream), [gone(0), gone(1), gone(2)]);
    assert_eq!(store.watch_census().watchers, 0);
    store.hub().create(stream, &from(3));
    done(&mut store, Op::Put(put("a", "other")));
    let said = heard(&mut store, stream);
    assert!(
        matches!(&said[..], [WatchOutput::Created { .. }, WatchOutput::Events { revision: 3, .. }]),
        "{said:?}"
    );
}

/// A watch from below what is kept is created and then canceled with the compacted revision; one from exactly there is
/// given the deletion at that revision, whether or not memory has been cleaned up.
#[test]
fn watching_from_the_compacted_revision() {
    for clean in [false, true] {
        let mut store = Store::new();
        done(&mut store, Op::Put(put("a", "1")));
        done(&mut store, Op::Put(put("b", "1")));
        done(&mut store, Op::DeleteRange(DeleteRange { key: "a".into(), ..DeleteRange::default() }));
        done(&mut store, Op::Compact { revision: 4 });
        while clean && store.scrub(1) {}
        let flags = WatchFlags { prev_kv: true, ..WatchFlags::default() };
        let from = |start_revision| WatchRequest {
            range_end: "\0".into(),
            start_revision,
            flags,
            ..WatchRequest::default()
        };
        let late = open(&mut store, from(3));
        let compacted = WatchOutput::Compacted { watch_id: 0, compact_revision: 4 };
        assert_eq!(heard(&mut store, late), [WatchOutput::Created { watch_id: 0, revision: 4 }, compacted]);
        let exact = open(&mut store, from(4));
        let outputs = heard(&mut store, exact);
        assert_eq!(count_events(&outputs), 1);
        let Some(WatchOutput::Events { batches, .. }) = outputs.last() else { panic!("events") };
        assert!(!batches[0].bytes.contains(&b'1'), "what was before is compacted, in memory or not");
    }
}

/// A watch that begins in the future waits in silence; no progress is told of a stream that has one.
#[test]
fn watching_from_the_future() {
    let mut store = Store::new();
    let stream =
        open(&mut store, WatchRequest { key: "a".into(), start_revision: 4, ..WatchRequest::default() });
    assert_eq!(heard(&mut store, stream).len(), 1);
    done(&mut store, Op::Put(put("a", "2")));
    store.hub().progress(stream);
    assert_eq!(heard(&mut store, stream), []);
    done(&mut store, Op::Put(put("a", "3")));
    store.hub().progress(stream);
    assert_eq!(heard(&mut store, stream), [WatchOutput::Progress { watch_id: -1, revision: 3 }]);
    done(&mut store, Op::Put(put("a", "4")));
    assert_eq!(count_events(&heard(&mut store, stream)), 1);
}

/// Ten thousand watchers of one prefix share the bytes of each event.
#[test]
fn watchers_of_one_prefix_share_bytes() {
    let mut store = Store::new();
    let request = || WatchRequest { key: "k".into(), range_end: "l".into(), ..WatchRequest::default() };
    let streams: Vec<StreamId> = (0..10_000).map(|_| open(&mut store, request())).collect();
    done(&mut store, Op::Put(put("k1", "v")));
    assert_eq!(store.hub().take_ready().len(), 10_000);
    let mut shared: Option<std::sync::Arc<EventBatch>> = None;
    for stream in streams {
        let outputs = heard(&mut store, stream);
        let Some(WatchOutput::Events { batches, .. }) = outputs.last() else { panic!("events") };
        let first = shared.get_or_insert_with(|| batches[0].clone());
        assert!(std::sync::Arc::ptr_eq(first, &batches[0]));
    }
    assert_eq!(store.hub().take_ready(), []);
}

/// A stream that is never read costs its bound and not more, holds up no other watcher, and gets everything once it is read.
#[test]
fn a_slow_watcher_costs_its_bound() {
    let mut store = Store::new();
    let request = || WatchRequest { range_end: "\0".into(), ..WatchRequest::default() };
    let (slow, quick) = (open(&mut store, request()), open(&mut store, request()));
    let writes = 200;
    for i in 0..writes {
        done(&mut store, Op::Put(put(&format!("k{i}"), &"x".repeat(50_000))));
        let outputs = heard(&mut store, quick);
        assert_eq!(count_events(&outputs), 1, "at once, whatever the other does");
        assert!(store.hub().census().queued_bytes <= WATCH_QUEUE_BYTES_MAX);
    }
    assert_eq!(store.hub().census().slow_watchers, 1);
    let mut got = 0;
    while got < writes {
        let outputs = heard(&mut store, slow);
        assert!(count_events(&outputs) > 0);
        got += count_events(&outputs);
    }
    assert_eq!((got, store.hub().census().slow_watchers), (writes, 0));
}

/// A slow watcher that a compaction overtakes is canceled with the compacted revision, after what was queued for it.
#[test]
fn a_slow_watcher_can_be_overtaken() {
    let mut store = Store::new();
    let stream = open(&mut store, WatchRequest { key: "a".into(), ..WatchRequest::default() });
    for _ in 0..60 {
        done(&mut store, Op::Put(put("a", &"x".repeat(50_000))));
    }
    done(&mut store, Op::Compact { revision: 60 });
    let outputs = heard(&mut store, stream);
    let outputs: Vec<_> = outputs.into_iter().chain(heard(&mut store, stream)).collect();
    assert_eq!(outputs.last(), Some(&WatchOutput::Compacted { watch_id: 0, compact_revision: 60 }));
    assert!((10..59).contains(&count_events(&outputs)));
}

/// A watcher that was told everything, and that nothing concerned for long, is not overtaken by a compaction of that time
/// when its stream is full at the first event that does concern it.
#[test]
fn a_quiet_watcher_is_not_overtaken() {
    let mut store = Store::new();
    let stream = open(&mut store, WatchRequest { key: "big".into(), ..WatchRequest::default() });
    store.hub().create(stream, &WatchRequest { key: "a".into(), ..WatchRequest::default() });
    for _ in 0..50 {
        done(&mut store, Op::Put(put("b", "")));
    }
    let revision = store.revision();
    done(&mut store, Op::Compact { revision });
    for _ in 0..30 {
        done(&mut store, Op::Put(put("big", &"x".repeat(50_000))));
    }
    done(&mut store, Op::Put(put("a", &"x".repeat(50_000))));
    assert_eq!(store.hub().census().slow_watchers, 2);
    let outputs: Vec<_> = (0..9).flat_map(|_| heard(&mut store, stream)).collect();
    assert_eq!(count_events(&outputs), 31);
    assert!(!outputs.iter().any(|output| matches!(output, WatchOutput::Compacted { .. })));
}

/// Progress notifications go to watchers that asked, heard nothing since the last round, and have come to the present.
#[test]
fn progress_is_told_to_the_quiet() {
    let mut store = Store::new();
    let flags = WatchFlags { progress_notify: true, ..WatchFlags::default() };
    let stream = open(&mut store, WatchRequest { key: "a".into(), flags, ..WatchRequest::default() });
    store.hub().notify_progress();
    assert_eq!(heard(&mut store, stream).len(), 1, "it has just been created");
    done(&mut store, Op::Put(put("b", "")));
    store.hub().notify_progress();
    assert_eq!(heard(&mut store, stream), [WatchOutput::Progress { watch_id: 0, revision: 2 }]);
    done(&mut store, Op::Put(put("a", "")));
    store.hub().notify_progress();
    assert_eq!(count_events(&heard(&mut store, stream)), 1, "and no progress besides");
}

/// A large message is cut between events, never within one, and nothing is lost.
#[test]
fn fragments_hold_whole_events() {
    let mut store = Store::new();
    let stream = open(&mut store, WatchRequest { range_end: "\0".into(), ..WatchRequest::default() });
    let success = (0..10).map(|i| TxnOp::Put(put(&format!("k{i}"), &"x".repeat(300 + i)))).collect();
    done(&mut store, Op::Txn(Txn { success, ..Txn::default() }));
    let outputs = heard(&mut store, stream);
    let Some(WatchOutput::Events { batches, .. }) = outputs.last() else { panic!("events") };
    let pieces = EventBatch::fragments(batches, 1000);
    assert!(pieces.len() >= 4 && pieces.iter().all(|piece| piece.len() <= 1000));
    assert_eq!(pieces.concat(), batches[0].bytes);
    assert_eq!(EventBatch::fragments(batches, 1).len(), 10, "an event is never cut");
}

/// The pace of a RangeStream: ten pairs, then more while messages are small, fewer when they are large.
#[test]
fn a_range_stream_finds_its_pace() {
    let mut pace = StreamPace::new(1000);
    assert_eq!(pace.pairs(), 10);
    pace.sent(400);
    assert_eq!(pace.pairs(), 20);
    pace.sent(1500);
    assert_eq!(pace.pairs(), 20);
    pace.sent(2001);
    assert_eq!(pace.pairs(), 10);
    let request = RangeRequest { sort_target: SortTarget::Mod, ..all() };
    assert_eq!(request.validate_stream(), Err(OpError::StreamSort));
    let request = RangeRequest { min_mod_revision: 1, sort_order: SortOrder::Ascend, ..all() };
    assert_eq!(request.validate_stream(), Err(OpError::StreamFilter));
}

/// A small store with something of everything in it.
fn of_everything() -> Store {
    let mut store = Store::new();
    done(&mut store, Op::LeaseGrant { id: 3, ttl: 100 });
    done(&mut store, Op::LeaseCheckpoint { remaining: vec![(3, 40)] });
    for text in ["1", "22", "333"] {
        done(&mut store, Op::Put(Put { lease: 3, ..put("a", text) }));
        done(&mut store, Op::Put(put("b", text)));
    }
    done(&mut store, Op::DeleteRange(DeleteRange { key: "b".into(), ..DeleteRange::default() }));
    done(&mut store, Op::Compact { revision: 4 });
    done(&mut store, Op::Alarm(AlarmAction::Activate(Alarm { member: 300, kind: AlarmKind::NoSpace })));
    let attributes =
        MemberAttributes { name: "m".into(), client_urls: vec!["http://c".into()], peer_urls: vec![] };
    done(&mut store, Op::MemberPublish { node: 4, attributes });
    store
}

fn snapshot_of(store: &Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.freeze().write_to(&mut bytes).expect("memory takes it all");
    bytes
}

/// A frozen state is that of its moment, however the store goes on; reading it back gives the very same state.
#[test]
fn a_snapshot_is_one_moment() {
    let mut store = of_everything();
    let (frozen, digest, bytes) = (store.freeze(), store.digest(), snapshot_of(&store));
    done(&mut store, Op::Alarm(AlarmAction::Deactivate(Alarm { member: 300, kind: AlarmKind::NoSpace })));
    done(&mut store, Op::Put(put("a", "later")));
    while store.scrub(1) {}
    let mut late = Vec::new();
    frozen.write_to(&mut late).unwrap();
    assert_eq!(late, bytes);
    store.restore(&SnapshotRef::in_memory(Index(9), bytes.into())).unwrap();
    assert_eq!((store.digest(), store.digest_audited()), (digest, digest));
    assert_eq!(store.leases().get(3).unwrap().keys.len(), 1);
    assert_eq!(
        (store.leases().get(3).unwrap().remaining, store.members().len(), store.alarms().len()),
        (40, 1, 1)
    );
}

/// A snapshot cut at any length, or with any bit flipped, or with anything after it, is refused and never panics.
#[test]
fn damaged_snapshots_are_refused() {
    let bytes = snapshot_of(&of_everything());
    let refused =
        |bytes: Vec<u8>| Store::new().restore(&SnapshotRef::in_memory(Index(1), bytes.into())).is_err();
    for end in 0..bytes.len() {
        assert!(refused(bytes[..end].to_vec()), "cut at {end} of {}", bytes.len());
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(refused(flipped), "bit {bit} flipped");
    }
    assert!(refused([&bytes[..], b"x"].concat()));
}

/// Even with its checksum made right again, a damaged snapshot is refused or gives a sound store: nothing in it is trusted.
#[test]
fn forged_snapshots_are_harmless() {
    let bytes = snapshot_of(&of_everything());
    let body = bytes.len() - 4;
    for byte in 0..body {
        for change in [1u8, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut forged = bytes.clone();
            forged[byte] ^= change;
            let crc = crc32c::crc32c(&forged[..body]).to_le_bytes();
            forged[body..].copy_from_slice(&crc);
            let mut store = Store::new();
            if store.restore(&SnapshotRef::in_memory(Index(1), forged.into())).is_ok() {
                assert_eq!(store.digest(), store.digest_audited());
                let _ = store.view().hash_kv(0);
                apply(&mut store, Op::Put(put("a", "1")));
                apply(&mut store, Op::LeaseRevoke { id: 3 });
                while store.scrub(10) {}
            }
        }
    }
}

/// Memory of compacted versions comes back although what lives on is scattered among them, and every read stays as it was.
#[test]
fn compacted_versions_leave_memory() {
    let mut store = Store::new();
    let value = "v".repeat(500);
    for round in 0..6 {
        for i in 0..2000 {
            // Every fourth key lives on from the first round, amid versions that go.
            if round == 0 || i % 4 != 0 {
                done(&mut store, Op::Put(put(&format!("k{i:04}"), &value)));
            }
        }
    }
    let before = store.size_held();
    let revision = store.revision();
    done(&mut store, Op::Compact { revision });
    let hash = store.view().hash_kv(0).unwrap();
    let listed = store.range(&all()).unwrap();
    let mut steps = 0;
    while store.scrub(100) {
        steps += 1;
        if steps % 7 == 0 {
            assert_eq!(store.range(&all()).unwrap(), listed);
        }
    }
    assert!(!store.is_scrubbing() && steps > 20);
    assert_eq!(store.view().hash_kv(0).unwrap(), hash);
    assert_eq!(store.range(&all()).unwrap(), listed);
    let (held, kept) = (store.size_held(), store.size());
    assert!(held < before / 2 && held < kept * 2, "{before} bytes before, {held} after, {kept} kept");
    let mut out = BytesMut::new();
    assert_eq!(store.view().range_into(&RangeRequest { limit: 3, ..all() }, &mut out).unwrap().count, 2000);
}
