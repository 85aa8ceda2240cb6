//! Enough keys, of enough shapes, that leaves split, thin out and go, and chunks are moved: compared with ordered maps.

use std::collections::BTreeMap;

use bytes::Bytes;
use synod_core::{Audience, Frozen, Index, Machine, NodeId, Rng, SnapshotRef};
use synod_kv::Store;
use synod_kv::op::{Content, DeleteRange, Op, Put, RangeRequest};

type Keys = BTreeMap<Vec<u8>, i64>;

/// Keys that share beginnings, are beginnings of one another, and hold the bytes at both ends.
fn key(rng: &mut Rng) -> Vec<u8> {
    match rng.below(5) {
        0 => format!("/registry/pods/{:03}/{:05}", rng.below(20), rng.below(3000)).into_bytes(),
        1 => format!("k{:08}", rng.below(6000)).into_bytes(),
        2 => (0..1 + rng.below(12)).map(|_| [0, b'a', 0xff][rng.below(3) as usize]).collect(),
        3 => vec![b'/'; 1 + rng.below(40) as usize],
        _ => rng.below(5000).to_be_bytes()[5..].iter().chain(b"x").copied().collect(),
    }
}

fn apply(store: &mut Store, op: &Op) {
    let reply = store.apply_op(op, NodeId(1), Audience::Nobody);
    assert!(reply.result.is_ok(), "{:?}", reply.result);
}

fn range(rng: &mut Rng, revision: i64) -> RangeRequest {
    let range_end = if rng.chance(0.2) { vec![0] } else { key(rng) };
    let limit = if rng.chance(0.5) { rng.below(900) as i64 } else { 0 };
    let content = if rng.chance(0.3) { Content::CountOnly } else { Content::Full };
    let (key, range_end) = (key(rng).into(), range_end.into());
    RangeRequest { key, range_end, limit, revision, content, ..RangeRequest::default() }
}

fn check(store: &Store, keys: &Keys, request: &RangeRequest) {
    let reply = store.range(request).expect("a readable range");
    let end = &request.range_end;
    let inside = |key: &[u8]| key >= &request.key[..] && (*end == b"\0"[..] || key < &end[..]);
    let expected: Vec<(&[u8], i64)> =
        keys.iter().filter(|(key, _)| inside(key)).map(|(key, revision)| (&key[..], *revision)).collect();
    assert_eq!(reply.count, expected.len() as i64, "{request:?}");
    let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
    let shown = if request.content == Content::CountOnly { 0 } else { expected.len().min(limit) };
    assert_eq!(reply.more, request.content == Content::Full && expected.len() > limit);
    let got: Vec<(&[u8], i64)> = reply.kvs.iter().map(|pair| (pair.key, pair.modified)).collect();
    assert_eq!(got, expected[..shown]);
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut store = Store::new();
    let mut keys = Keys::new();
    let mut past: Vec<(i64, Keys)> = Vec::new();
    for step in 1..=12_000 {
        let dying = (step / 3000) % 2 == 1;
        let key = key(&mut rng);
        if rng.chance(if dying { 0.8 } else { 0.1 }) {
            // In the dying seasons whole stretches go, so that leaves empty out.
            let range_end: Bytes =
                if rng.chance(0.02) { Bytes::from([&key[..], b"\xff"].concat()) } else { Bytes::new() };
            match range_end.is_empty() {
                true => drop(keys.remove(&key)),
                false => keys.retain(|it, _| !(*it >= key && it[..] < range_end[..])),
            }
            apply(
                &mut store,
                &Op::DeleteRange(DeleteRange { key: key.clone().into(), range_end, prev_kv: false }),
            );
        } else {
            let value = vec![b'v'; rng.below(60) as usize].into();
            apply(&mut store, &Op::Put(Put { key: key.clone().into(), value, ..Put::default() }));
            keys.insert(key.clone(), store.revision());
        }
        for it in [key.clone(), self::key(&mut rng)] {
            let one = RangeRequest { key: it.clone().into(), ..RangeRequest::default() };
            let found =
                store.range(&one).expect("a readable key").kvs.iter().next().map(|pair| pair.modified);
            assert_eq!(found, keys.get(&it).copied(), "{it:?}");
        }
        if rng.chance(0.002) {
            past.push((store.revision(), keys.clone()));
        }
        if rng.chance(0.002) && store.revision() > 10 {
            let revision = (store.revision() - rng.below(1500) as i64).max(store.compacted() + 1);
            apply(&mut store, &Op::Compact { revision });
            past.retain(|(at, _)| *at >= revision);
        }
        store.scrub(1 + rng.below(50) as usize);
        if step % 250 == 0 {
            check(&store, &keys, &range(&mut rng, 0));
            check(
                &store,
                &keys,
                &RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() },
            );
            for (revision, keys) in &past {
                check(&store, keys, &range(&mut rng, *revision));
            }
            assert_eq!(store.digest(), store.digest_audited());
        }
        if step % 4000 == 0 {
            let mut bytes = Vec::new();
            store.freeze().write_to(&mut bytes).expect("memory takes it all");
            let digest = store.digest();
            store.restore(&SnapshotRef::in_memory(Index(1), bytes.into())).expect("a sound snapshot");
            assert_eq!(store.digest(), digest);
        }
    }
    let revision = store.revision();
    apply(
        &mut store,
        &Op::DeleteRange(DeleteRange { key: "\0".into(), range_end: "\0".into(), prev_kv: false }),
    );
    apply(&mut store, &Op::Put(Put { key: "last".into(), ..Put::default() }));
    let compacted = store.revision();
    apply(&mut store, &Op::Compact { revision: compacted });
    while store.scrub(100) {}
    assert!(store.revision() > revision && store.keys_held() == 1, "{} keys are held", store.keys_held());
    assert!(store.size_held() < 300_000, "{} bytes are held", store.size_held());
}

/// Ranges, counts, old revisions, snapshots and removal agree with ordered maps over thousands of keys of awkward shapes.
#[test]
fn thousands_of_keys_agree_with_ordered_maps() {
    for seed in 0..8 {
        run(seed);
    }
}

/// A key that falls between the two halves of a leaf that is being split is put where the next search looks for it.
#[test]
fn a_key_between_the_halves_is_found() {
    for between in ["k0510za", "k0511", "k0512", "k0512a", "k0512y"] {
        let mut store = Store::new();
        // 512 keys fill a leaf; written from the last to the first, so that it is split in the middle.
        let names = (0..512).rev().map(|i| format!("k{:04}z", 2 * i)).chain([between.to_string()]);
        let names: Vec<String> = names.collect();
        for name in &names {
            apply(&mut store, &Op::Put(Put { key: name.clone().into(), ..Put::default() }));
        }
        for name in &names {
            let one = RangeRequest { key: name.clone().into(), ..RangeRequest::default() };
            assert_eq!(store.range(&one).expect("a readable key").count, 1, "{name} after {between}");
        }
    }
}
