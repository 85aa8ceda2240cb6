//! Random operations on two replicas of the store and on a naive model, step by step; every answer, every digest, every
//! hash, every snapshot and every watch stream must agree.
//!
//! A failure names its seed: `SEED=n cargo test -p synod-kv --test against_model` runs that one alone.

mod model;
mod watching;

use bytes::{Bytes, BytesMut};
use model::{Answer, Model, Pair};
use synod_core::{Audience, Command, CommandId, Frozen, Index, Machine, NodeId, Rng, SnapshotRef};
use synod_kv::op::{
    Compare, CompareResult, CompareTarget, Content, DeleteRange, Op, OpReply, Put, PutFlags, RangeReply,
    RangeRequest, SortOrder, SortTarget, TXN_OPS_MAX, Txn, TxnOp, TxnOpReply, TxnReply,
};
use synod_kv::range::RangeCursor;
use synod_kv::record::KeyValue;
use synod_kv::{OpError, Store};
use watching::Watching;

const KEYS: [&[u8]; 9] = [b"\0", b"a", b"ab", b"abc", b"b", b"b\xff", b"c/1", b"c/2", b"\xff"];
const ENDS: [&[u8]; 7] = [b"", b"\0", b"b", b"c", b"c0", b"d", b"ab"];

struct Draw {
    rng: Rng,
    /// How large values may be.
    value_max: u64,
}

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn key(&mut self) -> Bytes {
        Bytes::from_static(KEYS[self.below(KEYS.len() as u64) as usize])
    }

    fn end(&mut self) -> Bytes {
        if self.one_in(2) {
            return Bytes::new();
        }
        Bytes::from_static(ENDS[self.below(ENDS.len() as u64) as usize])
    }

    /// A revision around what is there: often the present, sometimes compacted, sometimes in the future.
    fn revision(&mut self, model: &Model) -> i64 {
        match self.below(6) {
            0 | 1 => 0,
            2 => model.compacted + self.below(3) as i64 - 1,
            3 => model.revision + self.below(3) as i64 - 1,
            _ => self.below(model.revision as u64 + 1) as i64,
        }
    }

    fn put(&mut self) -> Put {
        let flags =
            PutFlags { prev_kv: self.one_in(3), ignore_value: self.one_in(8), ignore_lease: self.one_in(8) };
        let length = self.below(self.value_max + 1) as usize;
        let value = if flags.ignore_value { vec![] } else { vec![b'0' + self.below(4) as u8; length] };
        let lease = if flags.ignore_lease || !self.one_in(3) { 0 } else { 1 + self.below(4) as i64 };
        Put { key: self.key(), value: value.into(), lease, flags }
    }

    fn delete(&mut self) -> DeleteRange {
        DeleteRange { key: self.key(), range_end: self.end(), prev_kv: self.one_in(3) }
    }

    fn range(&mut self, model: &Model) -> RangeRequest {
        let mut bound =
            |often| if self.one_in(often) { self.below(model.revision as u64 + 2) as i64 } else { 0 };
        let bounds = [bound(8), bound(8), bound(8), bound(8)];
        RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: if self.one_in(3) { self.below(4) as i64 - 1 } else { 0 },
            revision: self.revision(model),
            sort_order: [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][self.below(3) as usize],
            sort_target: [
                SortTarget::Key,
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::Create,
                SortTarget::Mod,
                SortTarget::Value,
            ][self.below(6) as usize],
            content: [Content::Full, Content::Full, Content::KeysOnly, Content::CountOnly]
                [self.below(4) as usize],
            min_mod_revision: bounds[0],
            max_mod_revision: bounds[1],
            min_create_revision: bounds[2],
            max_create_revision: bounds[3],
            serializable: false,
        }
    }

    fn compare(&mut self, model: &Model) -> Compare {
        let number =
            if self.one_in(2) { self.below(3) as i64 } else { self.below(model.revision as u64 + 1) as i64 };
        let target = match self.below(5) {
            0 => CompareTarget::Version(number),
            1 => CompareTarget::Create(number),
            2 => CompareTarget::Mod(number),
            3 => CompareTarget::Lease(number),
            _ => CompareTarget::Value(vec![b'1'; self.below(2) as usize].into()),
        };
        let result = match self.below(9) {
            0 | 1 => CompareResult::Equal,
            2 | 3 => CompareResult::NotEqual,
            4 | 5 => CompareResult::Greater,
            6 | 7 => CompareResult::Less,
            _ => CompareResult::Unknown,
        };
        Compare { key: self.key(), range_end: self.end(), result, target }
    }

    fn txn(&mut self, model: &Model, depth: u32) -> Txn {
        let mut branch = |model: &Model| {
            let count = self.below(4);
            let mut op = || match self.below(8) {
                0 | 1 => TxnOp::Range(self.range(model)),
                2 | 3 => TxnOp::DeleteRange(self.delete()),
                4 if depth < 3 => TxnOp::Txn(self.txn(model, depth + 1)),
                _ => TxnOp::Put(self.put()),
            };
            (0..count).map(|_| op()).collect::<Vec<_>>()
        };
        let (success, failure) = (branch(model), branch(model));
        let compare = (0..self.below(3)).map(|_| self.compare(model)).collect();
        Txn { compare, success, failure }
    }

    fn op(&mut self, model: &Model) -> Op {
        match self.below(40) {
            0..16 => Op::Put(self.put()),
            16..22 => Op::DeleteRange(self.delete()),
            22..33 => Op::Txn(self.txn(model, 1)),
            33..35 => Op::LeaseGrant { id: 1 + self.below(4) as i64, ttl: 10 },
            35..37 => Op::LeaseRevoke { id: 1 + self.below(4) as i64 },
            37 => Op::Compact { revision: model.revision - self.below(3) as i64 },
            38 => Op::Compact { revision: self.revision(model) },
            _ => Op::LeaseCheckpoint { remaining: vec![(1 + self.below(6) as i64, self.below(10) as i64)] },
        }
    }
}

fn pair(pair: KeyValue<'_>) -> Pair {
    Pair {
        key: pair.key.to_vec(),
        create: pair.create,
        modified: pair.modified,
        version: pair.version,
        value: pair.value.to_vec(),
        lease: pair.lease,
    }
}

fn range_answer(reply: &RangeReply) -> Answer {
    let pairs: Vec<Pair> = reply.kvs.iter().map(pair).collect();
    assert_eq!(pairs.len(), reply.kvs.len());
    Answer::Range { revision: reply.revision, pairs, more: reply.more, count: reply.count }
}

fn txn_answer(reply: &TxnReply) -> Answer {
    let answer = |op: &TxnOpReply| match op {
        TxnOpReply::Range(range) => range_answer(range),
        TxnOpReply::Put(put) => Answer::Put {
            revision: put.revision,
            before: put.prev_kv.as_ref().map(|kv| pair(KeyValue::parse(kv).unwrap())),
        },
        TxnOpReply::DeleteRange(delete) => Answer::Delete {
            revision: delete.revision,
            deleted: delete.deleted,
            before: delete.prev_kvs.iter().map(pair).collect(),
        },
        TxnOpReply::Txn(txn) => txn_answer(txn),
    };
    Answer::Txn { succeeded: reply.succeeded, answers: reply.responses.iter().map(answer).collect() }
}

fn answer(result: Result<OpReply, OpError>) -> Result<Answer, OpError> {
    result.map(|reply| match reply {
        OpReply::Put(put) => {
            match txn_answer(&TxnReply { responses: vec![TxnOpReply::Put(put)], ..TxnReply::default() }) {
                Answer::Txn { mut answers, .. } => answers.remove(0),
                other => other,
            }
        }
        OpReply::DeleteRange(delete) => Answer::Delete {
            revision: delete.revision,
            deleted: delete.deleted,
            before: delete.prev_kvs.iter().map(pair).collect(),
        },
        OpReply::Txn(txn) => txn_answer(&txn),
        _ => Answer::Done,
    })
}

/// The same range three ways: at once, by a cursor in pieces, and from the model.
fn check_range(store: &mut Store, model: &Model, request: &RangeRequest, draw: &mut Draw) {
    let got = store.range(request);
    let expected =
        model.resolve(request.revision).map(|revision| model.range(request, revision, model.revision));
    assert_eq!(got.as_ref().map(range_answer).map_err(|error| *error), expected, "{request:?}");
    let cursor = RangeCursor::new(store.freeze_view(), request);
    match (got, cursor) {
        (Ok(whole), Ok(mut cursor)) => {
            let summary = cursor.summary();
            assert_eq!(
                (summary.count, summary.more, summary.pairs),
                (whole.count, whole.more, whole.kvs.len())
            );
            assert_eq!(cursor.remaining_bytes(), whole.kvs.fields().len() as u64);
            let mut out = BytesMut::new();
            while !cursor.is_done() {
                assert!(cursor.read(1 + draw.below(3) as usize, 1 + draw.below(100) as usize, &mut out) > 0);
            }
            assert_eq!(out, whole.kvs.fields());
            let spans = store.view().breadth(request);
            assert!(spans >= whole.kvs.len(), "{spans} is an upper bound");
        }
        (got, cursor) => assert_eq!(got.err(), cursor.err()),
    }
}

fn snapshot_of(store: &Store) -> Bytes {
    let mut bytes = Vec::new();
    store.freeze().write_to(&mut bytes).expect("memory takes it all");
    bytes.into()
}

fn run(seed: u64, steps: u64, value_max: u64) {
    let mut draw = Draw { rng: Rng::new(seed), value_max };
    let mut model = Model::new();
    let (mut store, mut twin) = (Store::new(), Store::new());
    let mut watching = Watching::default();
    let mut at = Index::ZERO;
    for step in 0..steps {
        let context = || format!("SEED={seed} step {step}");
        let op = draw.op(&model);
        at = at.next();
        let command = Command { id: CommandId { origin: NodeId(1), number: step }, payload: op.payload() };
        let reply = store.apply(at, &command, Audience::Client);
        twin.apply(at, &command, Audience::Nobody);
        if op.validate(TXN_OPS_MAX).is_ok() && !matches!(op, Op::LeaseCheckpoint { .. }) {
            let expected = model.apply(&op);
            assert_eq!(answer(reply.result), expected, "{} {op:?}", context());
        } else {
            assert_eq!(reply.result.is_ok(), op.validate(TXN_OPS_MAX).is_ok(), "{} {op:?}", context());
        }
        assert_eq!(reply.revision, model.revision, "{} {op:?}", context());
        assert_eq!((store.revision(), store.compacted()), (model.revision, model.compacted));
        // One replica removes compacted versions eagerly, the other now and then: nobody may see it.
        while draw.one_in(2) && store.scrub(1 + draw.below(3) as usize) {}
        if draw.one_in(50) {
            while twin.scrub(100) {}
        }
        assert_eq!(store.digest(), store.digest_audited(), "{} {op:?}", context());
        assert_eq!(store.digest(), twin.digest(), "{} {op:?}", context());
        check_range(&mut store, &model, &draw.range(&model), &mut draw);
        let revision = draw.revision(&model);
        let hash = store.view().hash_kv(revision);
        assert_eq!(hash, twin.view().hash_kv(revision), "{}", context());
        let expected = model.resolve(revision).map(|until| model.hash_kv(until));
        assert_eq!(hash.map(|hash| hash.hash), expected, "{} hash at {revision}", context());
        if draw.one_in(20) {
            let bytes = snapshot_of(&store);
            assert_eq!(bytes, snapshot_of(&twin), "{}: snapshots are canonical", context());
            let digest = twin.digest();
            twin = Store::new();
            twin.restore(&SnapshotRef::in_memory(at, bytes.clone())).expect("a sound snapshot");
            assert_eq!(twin.digest(), digest, "{}", context());
            assert_eq!(snapshot_of(&twin), bytes, "{}: read back and written again", context());
            if draw.one_in(4) {
                // Watchers outlive a snapshot that their replica is given.
                store.restore(&SnapshotRef::in_memory(at, bytes)).expect("a sound snapshot");
            }
        }
        for (id, lease) in store.leases().iter() {
            let attached: Vec<_> =
                model.at(model.revision).into_values().filter(|pair| pair.lease == id).collect();
            let keys: Vec<&[u8]> = lease.keys.iter().map(|key| &**key).collect();
            assert_eq!(keys, attached.iter().map(|pair| &pair.key[..]).collect::<Vec<_>>(), "{}", context());
        }
        watching.step(&mut store, &model, &mut draw.rng, &context());
    }
    watching.finish(&mut store, &model, &format!("SEED={seed} at the end"));
}

fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => default,
    }
}

/// Whatever is asked of it, the store answers as the model does, two replicas stay equal to the last bit, and every watch
/// stream keeps its nine guarantees.
#[test]
fn the_store_agrees_with_the_model() {
    for seed in seeds(0..150) {
        run(seed, 120, 6);
    }
}

/// As above, many more times.
#[test]
#[ignore = "minutes: cargo test --release -p synod-kv --test against_model -- --ignored"]
fn the_store_agrees_with_the_model_at_length() {
    for seed in seeds(10_000..14_000) {
        run(seed, 150, 6);
    }
    for seed in seeds(20_000..20_200) {
        run(seed, 150, 400_000);
    }
}

/// The same with values so large that watch queues overflow all the time and watchers have to catch up from history.
#[test]
fn slow_watchers_miss_nothing() {
    for seed in seeds(1000..1012) {
        run(seed, 100, 400_000);
    }
}
