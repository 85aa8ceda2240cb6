//! Watch streams under test: random watchers, random polling, and the nine guarantees checked against the model.
//!
//! Ordered, unique, reliable, atomic: what a watcher gets is exactly the model's changes from its start on, in order, whole
//! revisions at a time. Filter, prev_kv, is-create: each event equals what the model says of the change. Bookmarkable:
//! after progress at R, nothing at or before R comes, and nothing before it is missing. Resumable: some watchers
//! are canceled and created again from where they were.

use std::collections::BTreeMap;

use bytes::Bytes;
use synod_core::Rng;
use synod_kv::Store;
use synod_kv::record::{KeyValue, take_varint};
use synod_kv::watch::{EventBatch, StreamId, WatchFlags, WatchOutput, WatchRefusal, WatchRequest};

use crate::model::{Change, Model, Pair, inside};

struct Watcher {
    request: WatchRequest,
    /// Where it began.
    from: i64,
    /// How many of the changes that it wants it has got.
    got: usize,
    /// The last revision that it got anything of.
    last: i64,
    created: bool,
}

struct Stream {
    id: StreamId,
    watchers: BTreeMap<i64, Watcher>,
    /// Creations that have not been answered yet, in order.
    asked: Vec<(WatchRequest, i64)>,
    /// How seldom it is polled.
    laziness: u64,
}

#[derive(Default)]
pub(crate) struct Watching {
    streams: Vec<Stream>,
}

fn request(rng: &mut Rng, model: &Model) -> WatchRequest {
    let keys = [&b""[..], b"a", b"ab", b"b", b"c/", b"c/1", b"\0"];
    let ends = [&b""[..], b"", b"\0", b"b", b"c", b"c0", b"d"];
    let pick = |list: &[&'static [u8]], rng: &mut Rng| {
        Bytes::from_static(list[rng.below(list.len() as u64) as usize])
    };
    let start_revision = match rng.below(8) {
        0..3 => 0,
        3 => -1,
        4 => model.revision + rng.below(4) as i64,
        _ => model.compacted.max(0) + rng.below(8) as i64 - 1,
    };
    let flags = WatchFlags {
        progress_notify: rng.chance(0.3),
        prev_kv: rng.chance(0.5),
        no_put: rng.chance(0.15),
        no_delete: rng.chance(0.15),
        fragment: rng.chance(0.3),
    };
    let watch_id = if rng.chance(0.2) { 1 + rng.below(5) as i64 } else { 0 };
    WatchRequest { key: pick(&keys, rng), range_end: pick(&ends, rng), start_revision, watch_id, flags }
}

impl Watcher {
    fn wants(&self, change: &Change) -> bool {
        let start: &[u8] = if self.request.key.is_empty() { b"\0" } else { &self.request.key };
        let filtered =
            if change.pair.is_some() { self.request.flags.no_put } else { self.request.flags.no_delete };
        change.main >= self.from && !filtered && inside(&change.key, start, &self.request.range_end)
    }

    fn wanted<'a>(&'a self, model: &'a Model) -> impl Iterator<Item = &'a Change> {
        model.changes.iter().filter(|change| self.wants(change))
    }

    /// The first revision of which something must still come.
    fn due(&self, model: &Model) -> Option<i64> {
        self.wanted(model)
            .skip(self.got)
            .find(|change| !may_be_skipped(model, change))
            .map(|change| change.main)
    }
}

/// A change that its own write superseded is gone once that revision is compacted; who had not got it yet does without.
fn may_be_skipped(model: &Model, change: &Change) -> bool {
    let supersedes = |it: &Change| it.main == change.main && it.key == change.key && it.sub > change.sub;
    change.main <= model.compacted && model.changes.iter().any(supersedes)
}

/// An event, taken apart: deletion or not, the pair, the earlier pair.
fn events(batch: &EventBatch) -> Vec<(bool, Pair, Option<Pair>)> {
    fn pair(bytes: &[u8]) -> Pair {
        crate::pair(KeyValue::parse(bytes).expect("a pair"))
    }
    fn field<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
        *bytes = &bytes[1..];
        let length = take_varint(bytes).expect("a length") as usize;
        let (taken, rest) = bytes.split_at(length);
        *bytes = rest;
        taken
    }
    let event = |span: std::ops::Range<usize>| {
        let mut encoded = &batch.bytes[span];
        let mut inner = field(&mut encoded);
        let deletion = inner.starts_with(&[0x08, 1]);
        if deletion {
            inner = &inner[2..];
        }
        let kv = pair(field(&mut inner));
        (deletion, kv, (!inner.is_empty()).then(|| pair(field(&mut inner))))
    };
    batch.spans().map(event).collect()
}

impl Watching {
    pub(crate) fn step(&mut self, store: &mut Store, model: &Model, rng: &mut Rng, context: &str) {
        if self.streams.len() < 6 && rng.chance(0.2) {
            let laziness = [1, 1, 3, 30][rng.below(4) as usize];
            let id = store.hub().open_stream();
            self.streams.push(Stream { id, watchers: BTreeMap::new(), asked: Vec::new(), laziness });
        }
        for stream in &mut self.streams {
            if rng.chance(0.15) {
                let request = request(rng, model);
                store.hub().create(stream.id, &request);
                stream.asked.push((request, model.revision));
            }
            if rng.chance(0.1) {
                store.hub().progress(stream.id);
            }
        }
        if rng.chance(0.05) {
            store.hub().notify_progress();
        }
        if rng.chance(0.7) {
            store.catch_up(1 + rng.below(40) as usize);
        }
        let ready = store.hub().take_ready();
        assert!(ready.iter().all(|id| self.streams.iter().any(|stream| stream.id == *id)), "{context}");
        for stream in &mut self.streams {
            if rng.below(stream.laziness) == 0 {
                stream.drain(store, model, context);
            }
            if rng.chance(0.03)
                && let Some(id) = stream.watchers.keys().next().copied()
            {
                stream.resume(store, id, model, context);
            }
        }
        if rng.chance(0.02) && !self.streams.is_empty() {
            let gone = self.streams.swap_remove(0);
            store.hub().close_stream(gone.id);
            assert_eq!(store.hub().poll(gone.id), None);
        }
    }

    /// Everything that is due must come now.
    pub(crate) fn finish(mut self, store: &mut Store, model: &Model, context: &str) {
        for _ in 0..100_000 {
            let more = store.catch_up(1000);
            let mut heard = false;
            for stream in &mut self.streams {
                while let Some(output) = store.hub().poll(stream.id) {
                    stream.hear(output, model, context);
                    heard = true;
                }
            }
            if !more && !heard && !store.hub().is_lagging() {
                break;
            }
        }
        let census = store.hub().census();
        assert_eq!((census.slow_watchers, census.queued_bytes), (0, 0), "{context}");
        for stream in &mut self.streams {
            assert!(stream.asked.is_empty(), "{context}: a request without an answer");
            for (id, watcher) in &stream.watchers {
                assert_eq!(
                    watcher.got,
                    watcher.wanted(model).count(),
                    "{context}: watcher {id} of {:?}",
                    stream.id
                );
            }
            let current = stream.watchers.values().all(|watcher| watcher.from <= model.revision + 1);
            store.hub().progress(stream.id);
            let output = store.hub().poll(stream.id);
            match current && !stream.watchers.is_empty() {
                true => {
                    assert_eq!(output, Some(WatchOutput::Progress { watch_id: -1, revision: model.revision }))
                }
                false => {
                    assert_eq!(output, None, "{context}: progress for a stream that has not come so far")
                }
            }
            store.hub().close_stream(stream.id);
        }
        assert_eq!(store.hub().census(), synod_kv::watch::Census::default(), "{context}");
    }
}

impl Stream {
    fn hear(&mut self, output: WatchOutput, model: &Model, context: &str) {
        match output {
            WatchOutput::Created { watch_id, revision } => {
                let (request, now) = self.asked.remove(0);
                assert_eq!(revision, now, "{context}");
                assert!(request.watch_id == 0 || request.watch_id == watch_id, "{context}");
                let from = if request.start_revision == 0 { now + 1 } else { request.start_revision };
                let watcher = Watcher { request, from, got: 0, last: 0, created: true };
                assert!(
                    self.watchers.insert(watch_id, watcher).is_none(),
                    "{context}: a name is free when it is given"
                );
            }
            WatchOutput::Refused { reason, .. } => {
                let (request, _) = self.asked.remove(0);
                let justified = match reason {
                    WatchRefusal::NegativeRevision => request.start_revision < 0,
                    WatchRefusal::EmptyRange => {
                        request.range_end <= request.key && request.range_end != b"\0"[..]
                    }
                    WatchRefusal::DuplicateId => request.watch_id != 0,
                };
                assert!(justified, "{context}: {reason:?} {request:?}");
            }
            WatchOutput::Events { watch_id, revision, batches, fragment } => {
                let watcher =
                    self.watchers.get_mut(&watch_id).expect("events come between creation and cancellation");
                assert!(watcher.created && fragment == watcher.request.flags.fragment);
                for batch in batches {
                    Self::check(watcher, &batch, model, context);
                }
                assert!(
                    revision >= watcher.last && revision <= model.revision,
                    "{context}: header {revision}"
                );
            }
            WatchOutput::Canceled { watch_id, .. } | WatchOutput::TakenBack { watch_id, .. } => {
                assert!(self.watchers.remove(&watch_id).is_some(), "{context}");
            }
            WatchOutput::Compacted { watch_id, compact_revision } => {
                let watcher = self.watchers.remove(&watch_id).expect("created first");
                assert!(
                    compact_revision <= model.compacted && watcher.from.max(watcher.last) <= compact_revision,
                    "{context}"
                );
            }
            WatchOutput::Progress { watch_id, revision } => {
                assert!(revision <= model.revision);
                for (id, watcher) in &mut self.watchers {
                    if watch_id == -1 || watch_id == *id {
                        let due = watcher.wanted(model).filter(|change| change.main <= revision).count();
                        assert_eq!(
                            watcher.got, due,
                            "{context}: progress at {revision} overtook watcher {id}"
                        );
                    }
                }
            }
        }
    }

    fn check(watcher: &mut Watcher, batch: &EventBatch, model: &Model, context: &str) {
        let mut consumed = 0;
        let mut last = 0;
        let mut wanted = watcher.wanted(model).skip(watcher.got);
        for (deletion, kv, before) in events(batch) {
            let change = loop {
                let change =
                    wanted.next().unwrap_or_else(|| panic!("{context}: {kv:?} is an event too many"));
                consumed += 1;
                let expected = match &change.pair {
                    Some(pair) => pair.clone(),
                    None => Pair { key: change.key.clone(), modified: change.main, ..Pair::default() },
                };
                if (deletion, &kv) == (change.pair.is_none(), &expected) {
                    break change;
                }
                assert!(may_be_skipped(model, change), "{context}: {kv:?} instead of {change:?}");
            };
            let create = change.pair.as_ref().is_some_and(|pair| pair.version == 1);
            match watcher.request.flags.prev_kv && !create {
                // What was before may have been compacted when the event was made.
                true => assert!(
                    before == change.before || (before.is_none() && change.main - 1 < model.compacted),
                    "{context}: {before:?} before {change:?}"
                ),
                false => assert_eq!(before, None, "{context}"),
            }
            last = change.main;
        }
        drop(wanted);
        assert!(consumed > 0, "{context}: a batch is not empty");
        assert!(last > watcher.last, "{context}: revision {last} after {}", watcher.last);
        watcher.got += consumed;
        watcher.last = last;
        assert_ne!(watcher.due(model), Some(last), "{context}: revision {last} is split");
    }

    /// Cancels a watcher and lets another go on from where it was.
    fn resume(&mut self, store: &mut Store, id: i64, model: &Model, context: &str) {
        self.drain(store, model, context);
        let Some(watcher) = self.watchers.get(&id) else { return };
        let start_revision = if watcher.last > 0 { watcher.last + 1 } else { watcher.from };
        let again = WatchRequest { start_revision, watch_id: 0, ..watcher.request.clone() };
        store.hub().cancel(self.id, id);
        store.hub().cancel(self.id, 424_242);
        self.drain(store, model, context);
        assert!(!self.watchers.contains_key(&id), "{context}: canceled");
        store.hub().create(self.id, &again);
        self.asked.push((again, model.revision));
    }

    fn drain(&mut self, store: &mut Store, model: &Model, context: &str) {
        while let Some(output) = store.hub().poll(self.id) {
            self.hear(output, model, context);
        }
    }
}
