//! Convergence: replicas that apply the same commands in different causal orders hold the same keys in the end, which are
//! those of a model that knows nothing but "the greatest mark wins"; through snapshots and merges, and with floors as high as they may be.

use std::collections::BTreeMap;

use bytes::Bytes;
use synod_core::{
    Audience, Command, CommandId, Frozen, Index, Machine, NodeId, Rng, SnapshotRef, Stamp, Vector, Wire,
};
use synod_kv::op::{DeleteRange, Op, OpReply, Put, RangeRequest, Txn, TxnOp};
use synod_kv::watch::{WatchOutput, WatchRequest};
use synod_kv::{OpError, Store};

/// A command as it is cast.
#[derive(Clone, Debug)]
struct Cast {
    stamp: Stamp,
    past: Vector,
    op: Op,
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number}"))
}

fn put(name: Bytes, value: u64) -> Op {
    Op::Put(Put { key: name, value: Bytes::from(value.to_string()), ..Put::default() })
}

fn draw(rng: &mut Rng, value: u64) -> Op {
    let chosen = rng.below(6);
    let range_end =
        [Bytes::from_static(b"\0"), key(chosen + 2), key(chosen + 1)][rng.below(3) as usize].clone();
    match rng.below(10) {
        0 => Op::DeleteRange(DeleteRange { key: key(chosen), ..DeleteRange::default() }),
        1 => Op::DeleteRange(DeleteRange { key: key(chosen), range_end, ..DeleteRange::default() }),
        2 => {
            let of = |number, value| match put(key(number), value) {
                Op::Put(put) => TxnOp::Put(put),
                _ => TxnOp::Empty,
            };
            let success = vec![of(chosen, value), of((chosen + 1) % 6, value + 1)];
            Op::Txn(Txn { success, ..Txn::default() })
        }
        _ => put(key(chosen), value),
    }
}

/// One replica of the test: a store, the clock that its next cast gets, and what it is known to have heard.
struct Peer {
    id: NodeId,
    store: Store,
    clock: u64,
    applied: u64,
}

impl Peer {
    fn new(id: u64) -> Peer {
        Peer { id: NodeId(id), store: Store::convergent(NodeId(id)), clock: 0, applied: 0 }
    }

    fn vector(&self) -> &Vector {
        self.store.vector().expect("it is convergent")
    }

    fn deliver(&mut self, cast: &Cast, floor: u64) {
        self.applied += 1;
        self.clock = self.clock.max(cast.stamp.clock);
        let stamp = Stamp { floor, ..cast.stamp };
        let before = self.store.revision();
        self.store.stamped(&stamp);
        let id = CommandId { origin: stamp.origin, number: stamp.number };
        let command = Command { id, payload: cast.op.to_bytes() };
        let reply = self.store.apply_stamped(Index(self.applied), &stamp, &command, Audience::Client);
        assert!(reply.result.is_ok(), "{:?}", reply.result);
        assert_eq!(self.store.revision(), before + 1, "every command counts one revision");
    }

    fn snapshot(&self) -> SnapshotRef {
        bytes_of(self.store.freeze(), self.applied)
    }
}

fn bytes_of(frozen: impl Frozen, at: u64) -> SnapshotRef {
    let mut bytes = Vec::new();
    frozen.write_to(&mut bytes).expect("memory takes it");
    SnapshotRef::in_memory(Index(at), bytes.into())
}

/// What must come out: for each key the write with the greatest mark.
fn model(casts: &[Cast]) -> BTreeMap<Bytes, Bytes> {
    let mut ordered: Vec<&Cast> = casts.iter().collect();
    ordered.sort_by_key(|cast| (cast.stamp.clock, cast.stamp.origin));
    let mut keys = BTreeMap::new();
    for cast in ordered {
        match &cast.op {
            Op::Put(put) => drop(keys.insert(put.key.clone(), put.value.clone())),
            Op::DeleteRange(delete) if delete.range_end.is_empty() => drop(keys.remove(&delete.key)),
            Op::DeleteRange(delete) => keys.retain(|key, _| {
                *key < delete.key || (delete.range_end != b"\0"[..] && *key >= delete.range_end)
            }),
            Op::Txn(txn) => {
                for op in &txn.success {
                    let TxnOp::Put(put) = op else { continue };
                    keys.insert(put.key.clone(), put.value.clone());
                }
            }
            _ => {}
        }
    }
    keys
}

fn contents(store: &Store) -> BTreeMap<Bytes, Bytes> {
    (0..10)
        .filter_map(|number| {
            let reply = store.range(&RangeRequest { key: key(number), ..RangeRequest::default() });
            let reply = reply.expect("the present can be read");
            let value = reply.kvs.encoded().next().and_then(synod_kv::record::KeyValue::parse)?;
            Some((key(number), Bytes::copy_from_slice(value.value)))
        })
        .collect()
}

/// The highest floor that is true: below the clock of whatever this peer has not applied, and of whatever may be cast yet.
fn floor(peers: &[Peer], number: usize, casts: &[Cast]) -> u64 {
    let missing =
        casts.iter().filter(|cast| cast.stamp.number > peers[number].vector().get(cast.stamp.origin));
    let missing = missing.map(|cast| cast.stamp.clock - 1).min().unwrap_or(u64::MAX);
    peers.iter().map(|peer| peer.clock).min().unwrap_or(0).min(missing)
}

fn next_for(peer: &Peer, casts: &[Cast], rng: &mut Rng) -> Option<Cast> {
    let ready: Vec<&Cast> = casts
        .iter()
        .filter(|cast| cast.stamp.number == peer.vector().get(cast.stamp.origin) + 1)
        .filter(|cast| peer.vector().dominates(&cast.past))
        .collect();
    (!ready.is_empty()).then(|| ready[rng.below(ready.len() as u64) as usize].clone())
}

/// A random history of casts, deliveries, restarts from snapshots, takings-over and merges.
fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut peers: Vec<Peer> = (1..=3).map(Peer::new).collect();
    let mut casts: Vec<Cast> = Vec::new();
    for step in 0..120u64 {
        let number = rng.below(3) as usize;
        match rng.below(20) {
            0..8 => {
                let peer = &mut peers[number];
                peer.clock += 1 + rng.below(2);
                let past = peer.vector().without(peer.id);
                let stamp = Stamp {
                    origin: peer.id,
                    number: peer.vector().get(peer.id) + 1,
                    clock: peer.clock,
                    floor: 0,
                };
                let cast = Cast { stamp, past, op: draw(&mut rng, step * 2) };
                casts.push(cast.clone());
                // Its own clock was raised for this cast: the floor is that of before.
                peers[number].deliver(&cast, 0);
            }
            8..18 => {
                if let Some(cast) = next_for(&peers[number], &casts, &mut rng) {
                    let floor = floor(&peers, number, &casts);
                    peers[number].deliver(&cast, floor.min(cast.stamp.clock - 1));
                }
            }
            18 => {
                let snapshot = peers[number].snapshot();
                let mut fresh = Store::convergent(peers[number].id);
                fresh.restore(&snapshot).expect("its own snapshot");
                assert_eq!(fresh.digest_audited(), peers[number].store.digest());
                peers[number].store = fresh;
            }
            _ => {
                let other = (number + 1) % 3;
                let theirs = peers[other].snapshot();
                let mut both = peers[number].vector().clone();
                both.join(peers[other].vector());
                let at = both.total();
                let merged = peers[number].store.merge(&theirs, Index(at)).expect("both are sound");
                let merged = bytes_of(merged, at);
                peers[number].store.restore(&merged).expect("it was just written");
                peers[number].applied = at;
                let clock = peers[other].clock;
                peers[number].clock = peers[number].clock.max(clock);
                assert_eq!(peers[number].vector(), &both);
                assert_eq!(peers[number].store.revision(), 1 + at as i64);
            }
        }
    }
    for number in 0..3 {
        while let Some(cast) = next_for(&peers[number], &casts, &mut rng) {
            let floor = floor(&peers, number, &casts);
            peers[number].deliver(&cast, floor.min(cast.stamp.clock - 1));
        }
    }
    let expected = model(&casts);
    for peer in &peers {
        assert_eq!(peer.vector().total(), casts.len() as u64, "seed {seed}");
        assert_eq!(contents(&peer.store), expected, "seed {seed}, {:?}", peer.id);
        assert_eq!(peer.store.contents_digest(), peers[0].store.contents_digest(), "seed {seed}");
        assert_eq!(peer.store.revision(), peers[0].store.revision(), "seed {seed}");
    }
}

/// Fifteen hundred random histories end with the keys of the model, on every replica.
#[test]
fn replicas_converge_to_the_last_writer() {
    (0..1500).for_each(run);
}

fn stamp(origin: u64, number: u64, clock: u64, floor: u64) -> Stamp {
    Stamp { origin: NodeId(origin), number, clock, floor }
}

fn deliver(store: &mut Store, stamp: Stamp, op: &Op) -> Result<OpReply, OpError> {
    let at = Index(store.applied().0 + 1);
    let command =
        Command { id: CommandId { origin: stamp.origin, number: stamp.number }, payload: op.to_bytes() };
    store.stamped(&stamp);
    store.apply_stamped(at, &stamp, &command, Audience::Client).result
}

/// A put that is older than a deletion, and comes later, brings nothing back: neither the key nor any other of a deleted range.
#[test]
fn what_was_deleted_stays_deleted() {
    let mut store = Store::convergent(NodeId(1));
    let range = DeleteRange { key: key(0), range_end: key(5), ..DeleteRange::default() };
    deliver(&mut store, stamp(1, 1, 10, 0), &Op::DeleteRange(range)).expect("it is possible");
    deliver(&mut store, stamp(2, 1, 5, 0), &put(key(3), 1)).expect("it is delivered");
    deliver(&mut store, stamp(2, 2, 6, 0), &put(key(7), 2)).expect("it is delivered");
    assert_eq!(contents(&store).keys().cloned().collect::<Vec<_>>(), [key(7)]);
    assert_eq!(store.revision(), 4, "what loses counts, too");
}

/// Equal clocks are decided by the origin, whichever comes first.
#[test]
fn equal_clocks_are_decided_by_the_origin() {
    let (low, high) = ((stamp(1, 1, 7, 0), put(key(0), 1)), (stamp(2, 1, 7, 0), put(key(0), 2)));
    for order in [[&low, &high], [&high, &low]] {
        let mut store = Store::convergent(NodeId(1));
        for (stamp, op) in order {
            deliver(&mut store, *stamp, op).expect("it is delivered");
        }
        assert_eq!(contents(&store)[&key(0)], "2");
    }
}

/// Marks go when the floor passes them, tombstones and ranges as well: memory is bounded by what is still under way.
#[test]
fn marks_go_below_the_floor() {
    let mut store = Store::convergent(NodeId(1));
    for number in 0..100 {
        deliver(&mut store, stamp(1, number + 1, number + 1, 0), &put(key(number), 1))
            .expect("it is delivered");
    }
    let range = DeleteRange { key: key(0), range_end: key(9), ..DeleteRange::default() };
    deliver(&mut store, stamp(1, 101, 101, 0), &Op::DeleteRange(range)).expect("it is delivered");
    assert_eq!(store.marks_held(), 101);
    let before = store.size();
    deliver(&mut store, stamp(2, 1, 200, 101), &put(key(0), 3)).expect("it is delivered");
    assert_eq!(store.marks_held(), 1);
    assert!(store.size() < before, "what marks cost counts against the quota, and no longer");
}

/// Watchers hear of winning writes alone, in the order of this replica; and when another replica's history takes the own one's
/// place, they are told that it is compacted, however far they had come.
#[test]
fn watchers_hear_what_wins_and_when_history_ends() {
    let mut store = Store::convergent(NodeId(1));
    let stream = store.hub().open_stream();
    store
        .hub()
        .create(stream, &WatchRequest { range_end: Bytes::from_static(b"\0"), ..WatchRequest::default() });
    let mut revisions = Vec::new();
    for (stamp, value) in [(stamp(1, 1, 10, 0), 1), (stamp(2, 1, 5, 0), 2), (stamp(2, 2, 11, 0), 3)] {
        deliver(&mut store, stamp, &put(key(0), value)).expect("it is delivered");
        while let Some(output) = store.hub().poll(stream) {
            if let WatchOutput::Events { revision, batches, .. } = output {
                revisions.push((revision, batches.iter().map(|batch| batch.ends.len()).sum::<usize>()));
            }
        }
    }
    assert_eq!(revisions, [(2, 1), (4, 1)]);

    let mut other = Store::convergent(NodeId(2));
    for (stamp, op) in [
        (stamp(2, 1, 5, 0), put(key(0), 2)),
        (stamp(2, 2, 11, 0), put(key(0), 3)),
        (stamp(1, 1, 10, 0), put(key(0), 1)),
        (stamp(2, 3, 12, 0), put(key(1), 4)),
    ] {
        deliver(&mut other, stamp, &op).expect("it is delivered");
    }
    store.restore(&bytes_of(other.freeze(), 4)).expect("it is sound");
    assert_eq!((store.revision(), store.compacted()), (5, 5));
    store.catch_up(100);
    let told: Vec<WatchOutput> = std::iter::from_fn(|| store.hub().poll(stream)).collect();
    assert!(matches!(told[..], [WatchOutput::Compacted { compact_revision: 5, .. }]), "{told:?}");
}

/// What needs one order is refused with a sentence, before it is cast and again where it would be applied.
#[test]
fn what_needs_one_order_is_refused() {
    let mut store = Store::convergent(NodeId(1));
    let leased = Op::Put(Put { key: key(0), lease: 7, ..Put::default() });
    for (number, op) in [leased, Op::LeaseGrant { id: 1, ttl: 5 }].into_iter().enumerate() {
        assert!(matches!(store.precheck(&op), Err(OpError::NeedsOneOrder(_))));
        let number = number as u64 + 1;
        assert!(matches!(
            deliver(&mut store, stamp(1, number, number, 0), &op),
            Err(OpError::NeedsOneOrder(_))
        ));
    }
    assert_eq!(store.precheck(&put(key(0), 1)), Ok(()));
}

/// A damaged snapshot of a convergent store is refused, whichever byte it is; and neither kind of store becomes the other.
#[test]
fn damaged_snapshots_are_refused() {
    let mut store = Store::convergent(NodeId(1));
    deliver(&mut store, stamp(1, 1, 10, 0), &put(key(0), 1)).expect("it is delivered");
    let range = DeleteRange { key: key(0), range_end: key(9), ..DeleteRange::default() };
    deliver(&mut store, stamp(2, 1, 12, 0), &Op::DeleteRange(range)).expect("it is delivered");
    let snapshot = store.snapshot_bytes();
    for place in 0..snapshot.len() {
        let mut bent = snapshot.to_vec();
        bent[place] ^= 0x41;
        let bent = SnapshotRef::in_memory(Index(2), bent.into());
        assert!(Store::convergent(NodeId(1)).restore(&bent).is_err(), "byte {place}");
        assert!(store.merge(&bent, Index(9)).is_err(), "byte {place}");
    }
    assert!(Store::new().restore(&SnapshotRef::in_memory(Index(2), snapshot)).is_err());
    let plain = bytes_of(Store::new().freeze(), 0);
    assert!(store.restore(&plain).is_err());
}

trait SnapshotBytes {
    fn snapshot_bytes(&self) -> Bytes;
}

impl SnapshotBytes for Store {
    fn snapshot_bytes(&self) -> Bytes {
        let mut bytes = Vec::new();
        self.freeze().write_to(&mut bytes).expect("memory takes it");
        bytes.into()
    }
}

/// One step of a program: what is written, or which key is read.
#[derive(Clone, Copy)]
enum Step {
    Write(u64, u64),
    Read(u64),
}

/// Runs programs, each at a replica of its own, with deliveries in between as chance has it; gives what each read (0: nothing).
fn run_programs(programs: &[&[Step]], seed: u64) -> Vec<Vec<u64>> {
    let mut rng = Rng::new(seed);
    let mut peers: Vec<Peer> = (1..=programs.len() as u64).map(Peer::new).collect();
    // Watches differ.
    peers.iter_mut().for_each(|peer| peer.clock = rng.below(6));
    let (mut next, mut casts) = (vec![0; programs.len()], Vec::<Cast>::new());
    let mut seen = vec![Vec::new(); programs.len()];
    while (0..programs.len()).any(|number| next[number] < programs[number].len()) {
        let number = rng.below(programs.len() as u64) as usize;
        if rng.chance(0.5) {
            if let Some(cast) = next_for(&peers[number], &casts, &mut rng) {
                peers[number].deliver(&cast, 0);
            }
            continue;
        }
        let Some(step) = programs[number].get(next[number]) else { continue };
        next[number] += 1;
        let peer = &mut peers[number];
        match *step {
            Step::Read(of) => {
                let value = contents(&peer.store).get(&key(of)).cloned().unwrap_or_default();
                seen[number]
                    .push(std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or(0));
            }
            Step::Write(of, value) => {
                peer.clock += 1;
                let (origin, past) = (peer.id, peer.vector().without(peer.id));
                let stamp =
                    Stamp { origin, number: peer.vector().get(origin) + 1, clock: peer.clock, floor: 0 };
                let cast = Cast { stamp, past, op: put(key(of), value) };
                peers[number].deliver(&cast, 0);
                casts.push(cast);
            }
        }
    }
    seen
}

/// Figure 3 of Bouajjani et al. (POPL'17): the store is CCv, so what is not (a, c and e) never comes of those programs, however they
/// are scheduled and whatever the watches say; what is (b and d, though b is no causal memory and neither is sequential) can come.
#[test]
fn the_figures_of_popl17() {
    use Step::{Read, Write};
    let (x, y, z) = (0, 1, 2);
    type Figure<'a> = (char, &'a [&'a [Step]], Vec<Vec<u64>>, bool);
    let figures: [Figure<'_>; 5] = [
        ('a', &[&[Write(x, 1), Read(x)], &[Write(x, 2), Read(x)]], vec![vec![2], vec![1]], false),
        (
            'b',
            &[&[Write(z, 1), Write(x, 1), Write(y, 1)], &[Write(x, 2), Read(z), Read(y), Read(x)]],
            vec![vec![], vec![0, 1, 2]],
            true,
        ),
        ('c', &[&[Write(x, 1)], &[Write(x, 2), Read(x), Read(x)]], vec![vec![], vec![1, 2]], false),
        (
            'd',
            &[&[Write(x, 1), Read(y), Write(y, 1), Read(x)], &[Write(x, 2), Read(y), Write(y, 2), Read(x)]],
            vec![vec![0, 1], vec![0, 2]],
            true,
        ),
        (
            'e',
            &[&[Write(x, 1), Write(y, 1)], &[Read(y), Write(x, 2)], &[Read(x), Read(x)]],
            vec![vec![], vec![1], vec![2, 1]],
            false,
        ),
    ];
    for (name, programs, outcome, possible) in figures {
        let came = (0..4000).any(|seed| run_programs(programs, seed) == outcome);
        assert_eq!(came, possible, "figure {name}");
    }
}
