//! What the store costs by itself: time and memory, on one core, without log, network or disk.
//!
//! `cargo run --release -p synod-kv --example measure [-- KEYS]` prints one figure per line; `docs/adr/0003-store.md` keeps them.
//! Keys are 16 bytes, values 256, written in an order that is shuffled with respect to the keys' own.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an example that measures needs a clock and reads /proc"
)]

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use synod_core::{Audience, Command, CommandId, Frozen, Index, Machine, NodeId, Rng, SnapshotRef};
use synod_kv::Store;
use synod_kv::op::{Content, Op, Put, RangeRequest};
use synod_kv::range::RangeCursor;
use synod_kv::watch::{WatchFlags, WatchRequest};

const VALUE_BYTES: usize = 256;

fn key(number: u64) -> Bytes {
    format!("k{number:015}").into_bytes().into()
}

fn put(number: u64, rng: &mut Rng) -> Command {
    let value: Vec<u8> = (0..VALUE_BYTES).map(|_| rng.next_u64() as u8).collect();
    command(&Op::Put(Put { key: key(number), value: value.into(), ..Put::default() }))
}

fn command(op: &Op) -> Command {
    Command { id: CommandId { origin: NodeId(1), number: 0 }, payload: op.payload() }
}

/// The process's resident memory, in megabytes (10^6).
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes =
        line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
    kilobytes.unwrap_or(0.0) * 1024.0 / 1e6
}

/// What this process has used of the processor, in nanoseconds: on a machine with other work, a better measure than the clock.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

fn timed<R>(what: &str, count: usize, work: impl FnOnce() -> R) -> R {
    let (start, before) = (Instant::now(), processor());
    let result = work();
    let (span, used) = (start.elapsed(), processor() - before);
    let each = used / count as f64;
    let (wall, cpu) = (span.as_secs_f64() * 1e3, used / 1e6);
    println!("{what:52} {wall:8.1} ms, CPU {cpu:8.1} ms = {each:9.0} ns each {:10.0} /s", 1e9 / each);
    result
}

fn range(from: u64, to: u64) -> RangeRequest {
    RangeRequest { key: key(from), range_end: key(to), ..RangeRequest::default() }
}

/// Writes and discards.
struct Sink(Vec<u8>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn main() {
    let keys: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let count = keys as usize;
    let mut rng = Rng::new(1);
    let mut order: Vec<u64> = (0..keys).collect();
    for i in (1..count).rev() {
        order.swap(i, rng.below(i as u64 + 1) as usize);
    }
    let mut store = Store::new();
    let mut at = Index::ZERO;
    let mut apply = |store: &mut Store, command: &Command, audience| {
        at = at.next();
        store.apply(at, command, audience)
    };
    let before = resident();
    println!("{keys} keys of 16 + {VALUE_BYTES} bytes; resident before: {before:.0} MB");
    timed("making the commands of the next line (each)", count, || {
        order.iter().for_each(|number| drop(std::hint::black_box(put(*number, &mut rng))));
    });
    timed("put, new keys in any order, with making them (each)", count, || {
        for number in &order {
            apply(&mut store, &put(*number, &mut rng), Audience::Nobody);
        }
    });
    let after = resident();
    println!(
        "resident: {after:.0} MB, of it the store {:.0} MB = {:.0} bytes for each key",
        after - before,
        (after - before) * 1e6 / keys as f64
    );

    let mut out = BytesMut::new();
    let reads = 1_000_000;
    timed("point reads, any key", reads, || {
        for _ in 0..reads {
            out.clear();
            let request = RangeRequest { key: key(rng.below(keys)), ..RangeRequest::default() };
            let summary = store.view().range_into(&request, &mut out).expect("the present can be read");
            assert_eq!(summary.count, 1);
        }
    });
    let large = keys.min(100_000);
    out = BytesMut::with_capacity(40 << 20);
    timed("range of 100,000 keys, in one piece (each key)", large as usize, || {
        store.view().range_into(&range(0, large), &mut out).expect("the present can be read")
    });
    drop(out);
    let view = timed("freezing a view", 1, || store.freeze_view());
    let mut rss_max: f64 = 0.0;
    timed("range of 100,000 keys, by a cursor (each key)", large as usize, || {
        let mut cursor = RangeCursor::new(view.clone(), &range(0, large)).expect("the present can be read");
        let mut piece = BytesMut::with_capacity(70 << 10);
        while !cursor.is_done() {
            piece.clear();
            cursor.read(usize::MAX, 64 << 10, &mut piece);
        }
        rss_max = resident();
    });
    println!("  resident with the cursor: {:+.1} MB", rss_max - after);
    drop(view);
    let counting = RangeRequest { content: Content::CountOnly, ..range(0, keys) };
    timed("counting all keys (each count)", 100, || {
        for _ in 0..100 {
            assert_eq!(store.view().range(&counting).expect("readable").count, keys as i64);
        }
    });
    timed("page of 500 of all keys, with its count (each page)", 100, || {
        for _ in 0..100 {
            let page = RangeRequest { limit: 500, ..range(0, keys) };
            assert!(store.view().range(&page).expect("readable").more);
        }
    });
    timed("consistency hash of everything (each version)", count, || {
        store.view().hash_kv(0).expect("readable")
    });

    let frozen = timed("freezing for a snapshot", 1, || store.freeze());
    let mut sink = Sink(Vec::with_capacity(count * 300 + (1 << 20)));
    timed("writing the snapshot (each key)", count, || {
        frozen.write_to(&mut sink).expect("memory takes it all")
    });
    println!("  {:.0} MB", sink.0.len() as f64 / 1e6);
    let snapshot = SnapshotRef::in_memory(Index(keys), sink.0.into());
    let mut other = Store::new();
    timed("reading the snapshot back (each key)", count, || other.restore(&snapshot).expect("it is sound"));
    assert_eq!(other.digest(), store.digest());
    drop(other);
    drop(snapshot);

    let updates = count / 2;
    timed("put, existing keys (each)", updates, || {
        for _ in 0..updates {
            let number = rng.below(keys);
            apply(
                &mut store,
                &command(&Op::Put(Put {
                    key: key(number),
                    value: vec![1; VALUE_BYTES].into(),
                    ..Put::default()
                })),
                Audience::Nobody,
            );
        }
    });
    println!("  resident: {:.0} MB, {} versions", resident(), store.revision());
    let one = store.hub().open_stream();
    let start_revision = store.revision() - updates as i64 + 1;
    store.hub().create(one, &WatchRequest { start_revision, key: key(7), ..WatchRequest::default() });
    let mut calls = 0;
    timed("a watcher of one key catches up (each version passed)", updates, || {
        while store.catch_up(1000) {
            calls += 1;
            while store.hub().poll(one).is_some() {}
        }
    });
    println!("  in {calls} calls");
    store.hub().close_stream(one);
    let compact = command(&Op::Compact { revision: store.revision() });
    timed("compaction, as applied", 1, || apply(&mut store, &compact, Audience::Nobody));
    let (mut steps, mut longest) = (0, std::time::Duration::ZERO);
    timed("removal from memory, all steps", 1, || {
        let mut more = true;
        while more {
            let start = Instant::now();
            more = store.scrub(1000);
            longest = longest.max(start.elapsed());
            steps += 1;
        }
    });
    println!(
        "  {steps} steps, longest {:.2} ms; resident: {:.0} MB",
        longest.as_secs_f64() * 1e3,
        resident()
    );

    let watchers = 10_000;
    let streams: Vec<_> = (0..watchers).map(|_| store.hub().open_stream()).collect();
    let request = WatchRequest {
        key: "k".into(),
        range_end: "l".into(),
        flags: WatchFlags::default(),
        ..WatchRequest::default()
    };
    streams.iter().for_each(|stream| store.hub().create(*stream, &request));
    let drain = |store: &mut Store| {
        let mut messages = 0;
        for stream in store.hub().take_ready() {
            while let Some(output) = store.hub().poll(stream) {
                drop(output);
                messages += 1;
            }
        }
        messages
    };
    drain(&mut store);
    let writes = 100;
    timed("put with 10,000 watchers on 10,000 streams (each)", writes, || {
        for i in 0..writes {
            apply(&mut store, &put(i as u64, &mut rng), Audience::Nobody);
            assert_eq!(drain(&mut store), watchers);
        }
    });
    streams.iter().for_each(|stream| store.hub().close_stream(*stream));
    let view: Arc<_> = store.freeze_view();
    println!(
        "in the end: revision {}, {} keys, digest {:016x}",
        view.revision(),
        store.keys_held(),
        store.digest()
    );
}
