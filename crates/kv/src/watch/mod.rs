//! The watch hub: who watches what, how far each has come, and what is to be sent.
//!
//! A watcher is *synced* when everything up to the present has been queued for it; then each write is queued as it is
//! applied. Otherwise it *lags*, and [`Hub::catch_up`] brings it forward out of the history, some revisions at a time. A
//! watcher whose stream does not take what is queued starts to lag, and is parked until there is room: it costs its queue
//! (bounded by [`WATCH_QUEUE_BYTES_MAX`] and all queues together by [`WATCH_TOTAL_BYTES_MAX`]), and holds up nobody.
//!
//! Watchers with the same range, filters and wish for earlier pairs form a group. Events are encoded once for a group,
//! and its watchers share the bytes.
//!
//! The guarantees (section 16 of the API's description), and what keeps them here: *ordered, unique, reliable,
//! resumable*: `Watcher::next` is the first revision not queued yet, and only ever what begins there is queued; *atomic*:
//! batches hold whole revisions; *bookmarkable*: progress goes through the same queue, behind the events; *filter, prev_kv,
//! is-create*: decided where an event is encoded, from the versions themselves.
//!
//! The server's side: it opens a stream, asks for watchers, and polls the streams that [`Hub::take_ready`] names until they
//! have nothing more to say.

mod catch_up;
mod event;
mod spans;
mod stream;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slotmap::{SlotMap, new_key_type};

use event::Batcher;
pub use event::EventBatch;
pub use spans::prefix_end;
use spans::{GroupId, Span, Spans};
use stream::Stream;
pub use stream::{StreamId, TAKEN_BACK, WATCH_QUEUE_BYTES_MAX, WatchOutput, WatchRefusal};

use crate::mutants::Mutant;
use crate::mvcc::Change;
use crate::view::{COMPACTED_NEVER, REVISION_FIRST, View};

/// The bytes of events that wait on all streams together, each counted for itself although many share theirs. Beyond it,
/// only streams on which nothing waits get more; the others catch up later.
pub const WATCH_TOTAL_BYTES_MAX: usize = 256 << 20;

new_key_type! {
    struct WatcherId;
}

/// What a client wants to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRequest {
    /// The key, or the interval's first; empty means the first of all keys.
    pub key: Bytes,
    /// As in [`RangeRequest::range_end`](crate::op::RangeRequest::range_end).
    pub range_end: Bytes,
    /// The first revision of interest; 0: the next one.
    pub start_revision: i64,
    /// The watcher's name on its stream; 0: the hub chooses.
    pub watch_id: i64,
    /// What else is wished.
    pub flags: WatchFlags,
}

/// What a watcher wishes for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WatchFlags {
    /// Tell it now and then how far it has come.
    pub progress_notify: bool,
    /// With each event, what the key was before.
    pub prev_kv: bool,
    /// No events of puts.
    pub no_put: bool,
    /// No events of deletions.
    pub no_delete: bool,
    /// Responses may be cut into fragments.
    pub fragment: bool,
}

/// What decides the bytes of a group's events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GroupKey {
    span: Span,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
}

#[derive(Debug)]
struct Group {
    key: GroupKey,
    /// Those that hear of each write as it is applied.
    synced: Vec<WatcherId>,
    /// How many watchers there are, synced or not.
    watchers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At this position of its group's list.
    Synced(usize),
    /// In the hub's list of those that lag.
    Lagging,
    /// In its stream's list of those that wait for room.
    Parked,
}

#[derive(Debug)]
struct Watcher {
    stream: StreamId,
    watch_id: i64,
    group: GroupId,
    state: State,
    /// The first revision that has not been queued for it.
    next: i64,
    flags: WatchFlags,
    /// Whether it got anything since the last round of progress notifications.
    heard: bool,
}

/// All watchers.
#[derive(Debug)]
pub struct Hub {
    revision: i64,
    compacted: i64,
    /// Streams and watchers lie side by side in the order in which they came: who tells ten thousand of them of a write reads memory
    /// in that order.
    streams: SlotMap<StreamId, Stream>,
    watchers: SlotMap<WatcherId, Watcher>,
    groups: HashMap<GroupId, Group, FixedState>,
    groups_by_key: HashMap<GroupKey, GroupId, FixedState>,
    spans: Spans,
    /// Watchers to be brought forward, by the first revision that they miss.
    lagging: BTreeSet<(i64, WatcherId)>,
    /// Streams that have something to say and were not announced.
    ready: Vec<StreamId>,
    /// What waits on all streams.
    bytes: usize,
    next_group: GroupId,
    /// Which groups a write concerns: kept for its memory.
    concerned: Vec<(GroupId, usize)>,
    /// What may wait on one stream.
    queue_bytes_max: usize,
}

impl Default for Hub {
    fn default() -> Self {
        Hub {
            revision: REVISION_FIRST,
            compacted: COMPACTED_NEVER,
            streams: SlotMap::default(),
            watchers: SlotMap::default(),
            groups: HashMap::default(),
            groups_by_key: HashMap::default(),
            spans: Spans::default(),
            lagging: BTreeSet::new(),
            ready: Vec::new(),
            bytes: 0,
            next_group: 0,
            concerned: Vec::new(),
            queue_bytes_max: WATCH_QUEUE_BYTES_MAX,
        }
    }
}

impl GroupKey {
    fn wants(&self, tombstone: bool) -> bool {
        if tombstone { !self.no_delete } else { !self.no_put }
    }
}

impl Hub {
    /// Opens a stream.
    pub fn open_stream(&mut self) -> StreamId {
        self.streams.insert(Stream::default())
    }

    /// Closes a stream and forgets its watchers; what waits on it is not sent any more.
    pub fn close_stream(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.remove(stream) else { return };
        self.bytes -= closed.bytes;
        for (_, watcher) in closed.watchers {
            self.forget(watcher);
        }
    }

    /// Creates a watcher; what came of it is queued on the stream.
    pub fn create(&mut self, stream: StreamId, request: &WatchRequest) {
        let Some(it) = self.streams.get_mut(stream) else { return };
        let revision = self.revision;
        let span = match Span::of(&request.key, &request.range_end) {
            _ if request.start_revision < 0 => Err(WatchRefusal::NegativeRevision),
            None => Err(WatchRefusal::EmptyRange),
            Some(_) if request.watch_id != 0 && it.watchers.contains_key(&request.watch_id) => {
                Err(WatchRefusal::DuplicateId)
            }
            Some(span) => Ok(span),
        };
        let span = match span {
            Ok(span) => span,
            Err(reason) => return self.say(stream, WatchOutput::Refused { revision, reason }),
        };
        let watch_id = match request.watch_id {
            0 => {
                while it.watchers.contains_key(&it.next_id) {
                    it.next_id += 1;
                }
                it.next_id += 1;
                it.next_id - 1
            }
            given => given,
        };
        self.say(stream, WatchOutput::Created { watch_id, revision });
        if request.start_revision != 0 && request.start_revision < self.compacted {
            let compact_revision = self.compacted;
            return self.say(stream, WatchOutput::Compacted { watch_id, compact_revision });
        }
        self.enlist(stream, watch_id, span, request);
    }

    /// Gives a watcher its place in a group and among the synced or the lagging.
    fn enlist(&mut self, stream: StreamId, watch_id: i64, span: Span, request: &WatchRequest) {
        let WatchFlags { prev_kv, no_put, no_delete, .. } = request.flags;
        let key = GroupKey { span, prev_kv, no_put, no_delete };
        let group = match self.groups_by_key.get(&key) {
            Some(group) => *group,
            None => {
                self.next_group += 1;
                self.spans.insert(&key.span, self.next_group);
                self.groups_by_key.insert(key.clone(), self.next_group);
                self.groups.insert(self.next_group, Group { key, synced: Vec::new(), watchers: 0 });
                self.next_group
            }
        };
        let next = if request.start_revision == 0 { self.revision + 1 } else { request.start_revision };
        let watcher = Watcher {
            stream,
            watch_id,
            group,
            state: State::Lagging,
            next,
            flags: request.flags,
            heard: true,
        };
        let id = self.watchers.insert(watcher);
        self.groups.get_mut(&group).expect("it was just looked up").watchers += 1;
        self.streams.get_mut(stream).expect("the caller has it").watchers.insert(watch_id, id);
        if next > self.revision {
            self.sync(id);
        } else {
            self.lagging.insert((next, id));
        }
    }

    /// Cancels a watcher. An unknown name gets no answer, as upstream.
    pub fn cancel(&mut self, stream: StreamId, watch_id: i64) {
        let removed = self.streams.get_mut(stream).and_then(|it| it.watchers.remove(&watch_id));
        if let Some(watcher) = removed {
            self.forget(watcher);
            self.say(stream, WatchOutput::Canceled { watch_id, revision: self.revision });
        }
    }

    /// Some of what was applied has been taken back: every watcher is told so and is gone, because revisions that it was
    /// told of may come again with other events.
    pub(crate) fn taken_back(&mut self) {
        let mut watchers: Vec<(WatcherId, StreamId, i64)> =
            self.watchers.iter().map(|(id, it)| (id, it.stream, it.watch_id)).collect();
        watchers.sort_unstable();
        for (id, stream, watch_id) in watchers {
            if let Some(it) = self.streams.get_mut(stream) {
                it.watchers.remove(&watch_id);
            }
            self.forget(id);
            self.say(stream, WatchOutput::TakenBack { watch_id, revision: self.revision });
        }
    }

    /// Answers a request for progress: one message for the stream if all its watchers have come to the present, behind
    /// what is queued for them; otherwise, or when it has none, nothing at all.
    pub fn progress(&mut self, stream: StreamId) {
        let Some(it) = self.streams.get(stream) else { return };
        let current =
            it.watchers.values().all(|id| self.is_current(*id)) || Mutant::WatchProgressAhead.is_on();
        if !it.watchers.is_empty() && current {
            self.say(stream, WatchOutput::Progress { watch_id: -1, revision: self.revision });
        }
    }

    /// One round of progress notifications: to every watcher that asked for them, has come to the present, and heard
    /// nothing since the last round. The server calls this at its interval.
    pub fn notify_progress(&mut self) {
        let mut quiet: Vec<(WatcherId, StreamId, i64)> = Vec::new();
        for (id, watcher) in &mut self.watchers {
            let heard = std::mem::take(&mut watcher.heard);
            let current = matches!(watcher.state, State::Synced(_)) && watcher.next <= self.revision + 1;
            if watcher.flags.progress_notify && current && !heard {
                quiet.push((id, watcher.stream, watcher.watch_id));
            }
        }
        quiet.sort_unstable();
        for (_, stream, watch_id) in quiet {
            self.say(stream, WatchOutput::Progress { watch_id, revision: self.revision });
        }
    }

    /// Whether a watcher has been queued everything up to the present; one that begins in the future has not.
    fn is_current(&self, id: WatcherId) -> bool {
        let watcher = &self.watchers[id];
        matches!(watcher.state, State::Synced(_)) && watcher.next <= self.revision + 1
    }

    /// The next message of a stream.
    pub fn poll(&mut self, stream: StreamId) -> Option<WatchOutput> {
        let it = self.streams.get_mut(stream)?;
        let before = it.bytes;
        let output = it.pop();
        self.bytes -= before - it.bytes;
        if it.bytes < self.queue_bytes_max / 2 && !it.parked.is_empty() {
            for id in std::mem::take(&mut it.parked) {
                let watcher = self.watchers.get_mut(id).expect("a watcher leaves this list when it goes");
                watcher.state = State::Lagging;
                self.lagging.insert((watcher.next, id));
            }
        }
        output
    }

    /// Whether a stream has something to say.
    #[must_use]
    pub fn has_more(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some_and(|it| !it.is_empty())
    }

    /// Whether [`Hub::take_ready`] may name a stream.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Lets less wait on one stream than [`WATCH_QUEUE_BYTES_MAX`]: for memory that is scarce, and for simulations in which
    /// clients are to be slow.
    pub fn limit_queues(&mut self, bytes_max: usize) {
        self.queue_bytes_max = bytes_max.min(WATCH_QUEUE_BYTES_MAX);
    }

    /// The streams that have something to say and were not named since they last had nothing.
    pub fn take_ready(&mut self) -> Vec<StreamId> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.retain(|stream| match self.streams.get_mut(*stream) {
            Some(it) => {
                it.announced = false;
                !it.is_empty()
            }
            None => false,
        });
        ready
    }

    /// Whether [`Hub::catch_up`] has anything to do.
    #[must_use]
    pub fn is_lagging(&self) -> bool {
        !self.lagging.is_empty()
    }

    /// How many streams are open, how many watchers there are, how many of them lag behind, and the bytes that wait.
    #[must_use]
    pub fn census(&self) -> Census {
        let parked: usize = self.streams.values().map(|stream| stream.parked.len()).sum();
        Census {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            slow_watchers: self.lagging.len() + parked,
            queued_bytes: self.bytes,
        }
    }

    fn say(&mut self, stream: StreamId, output: WatchOutput) {
        if let Some(it) = self.streams.get_mut(stream) {
            it.push(output);
            announce(&mut self.ready, stream, it);
        }
    }

    /// Queues events for a watcher if there is room; it has then been told everything before `next`.
    fn offer(&mut self, id: WatcherId, batch: &Arc<EventBatch>, next: i64) -> bool {
        let watcher = self.watchers.get_mut(id).expect("a known watcher");
        let stream = self.streams.get_mut(watcher.stream).expect("a watcher's stream is open");
        let cost = Stream::cost(batch);
        let fits = stream.bytes + cost <= self.queue_bytes_max && self.bytes + cost <= WATCH_TOTAL_BYTES_MAX;
        if stream.bytes > 0 && !fits {
            return false;
        }
        watcher.next = next;
        watcher.heard = true;
        stream.push_events(watcher.watch_id, watcher.flags.fragment, batch.clone());
        announce(&mut self.ready, watcher.stream, stream);
        self.bytes += cost;
        true
    }

    /// From now on the watcher hears of each write as it is applied.
    fn sync(&mut self, id: WatcherId) {
        let watcher = self.watchers.get_mut(id).expect("a known watcher");
        let group = self.groups.get_mut(&watcher.group).expect("a watcher's group exists");
        watcher.state = State::Synced(group.synced.len());
        group.synced.push(id);
    }

    /// Takes a synced watcher out of its group's list.
    fn unsync(&mut self, id: WatcherId) {
        let watcher = &self.watchers[id];
        let State::Synced(position) = watcher.state else { return };
        let group = self.groups.get_mut(&watcher.group).expect("a watcher's group exists");
        group.synced.swap_remove(position);
        if let Some(moved) = group.synced.get(position) {
            self.watchers.get_mut(*moved).expect("a known watcher").state = State::Synced(position);
        }
    }

    /// Lets a watcher wait until its stream has room.
    fn park(&mut self, id: WatcherId) {
        let watcher = self.watchers.get_mut(id).expect("a known watcher");
        watcher.state = State::Parked;
        self.streams.get_mut(watcher.stream).expect("a watcher's stream is open").parked.push(id);
    }

    /// Removes a watcher from everything but its stream's list of names.
    fn forget(&mut self, id: WatcherId) {
        self.unsync(id);
        let Some(watcher) = self.watchers.remove(id) else { return };
        match watcher.state {
            State::Synced(_) => {}
            State::Lagging => drop(self.lagging.remove(&(watcher.next, id))),
            State::Parked => {
                if let Some(stream) = self.streams.get_mut(watcher.stream) {
                    stream.parked.retain(|other| *other != id);
                }
            }
        }
        let group = self.groups.get_mut(&watcher.group).expect("a watcher's group exists");
        group.watchers -= 1;
        if group.watchers == 0 {
            let group = self.groups.remove(&watcher.group).expect("it was just looked up");
            self.spans.remove(&group.key.span, watcher.group);
            self.groups_by_key.remove(&group.key);
        }
    }

    /// A write was applied: queues its events for those that are synced. `view` is the state after it.
    pub(crate) fn publish(&mut self, view: &View, changes: &[Change]) {
        self.revision = view.revision;
        if self.groups.is_empty() {
            return;
        }
        let mut concerned = std::mem::take(&mut self.concerned);
        for (position, change) in changes.iter().enumerate() {
            let key = view.arena.record(change.at).key();
            self.spans.matching(key, |group| concerned.push((group, position)));
        }
        // By group, and within a group in the order of the changes.
        concerned.sort_unstable();
        for of_group in concerned.chunk_by(|a, b| a.0 == b.0) {
            let group = &self.groups[&of_group[0].0];
            if group.synced.is_empty() {
                continue;
            }
            let mut batcher = Batcher::default();
            for (_, position) in of_group {
                let change = &changes[*position];
                if !group.key.wants(change.at.is_tombstone()) {
                    continue;
                }
                let record = view.arena.record(change.at);
                let before = change.before.filter(|_| group.key.prev_kv).map(|at| view.arena.record(at));
                batcher.push(
                    &record,
                    match before {
                        // What was before is what was before the whole write, not a change in the same one.
                        Some(before) if before.main() == view.revision => view.before(&record),
                        before => before,
                    },
                );
            }
            if !batcher.is_empty() {
                self.fan_out(of_group[0].0, &batcher.finish(view.revision));
            }
        }
        concerned.clear();
        self.concerned = concerned;
    }

    fn fan_out(&mut self, group: GroupId, batch: &Arc<EventBatch>) {
        // The list is set aside meanwhile: ten thousand watchers are looked up once each, and nothing else.
        let synced =
            self.groups.get_mut(&group).map(|group| std::mem::take(&mut group.synced)).unwrap_or_default();
        let mut slow = Vec::new();
        for id in &synced {
            let begins_later = self.watchers[*id].next > batch.revision && !Mutant::WatchHearsThePast.is_on();
            if !begins_later && !self.offer(*id, batch, batch.revision + 1) {
                slow.push(*id);
            }
        }
        self.groups.get_mut(&group).expect("it is still there").synced = synced;
        for id in slow {
            // It lags from here on; another takes its position in the list.
            self.unsync(id);
            let missed = i64::from(Mutant::WatchLosesWhenFull.is_on());
            self.watchers.get_mut(id).expect("a known watcher").next = batch.revision + missed;
            self.park(id);
        }
    }

    /// A compaction was applied; watchers that it overtook are told when they are brought forward.
    pub(crate) fn compacted(&mut self, revision: i64) {
        self.compacted = revision;
    }

    /// The store became another state, of another history, that begins with `view.revision`: whoever was told anything of the old one,
    /// or waits for any of it, learns that what it would hear next is compacted. Revisions of the future are still to come.
    pub(crate) fn history_ended(&mut self, view: &View) {
        self.revision = view.revision;
        self.compacted = view.compacted;
        let cut: Vec<WatcherId> =
            self.watchers.iter().filter(|(_, it)| it.next <= view.revision).map(|(id, _)| id).collect();
        for id in cut {
            let watcher = self.watchers.get_mut(id).expect("a known watcher");
            // Revision 0 is below whatever a history begins with.
            let (state, next) = (watcher.state, std::mem::replace(&mut watcher.next, 0));
            match state {
                State::Synced(_) => {
                    self.unsync(id);
                    self.watchers.get_mut(id).expect("a known watcher").state = State::Lagging;
                    self.lagging.insert((0, id));
                }
                State::Lagging => {
                    self.lagging.remove(&(next, id));
                    self.lagging.insert((0, id));
                }
                // It is brought forward when its stream has room.
                State::Parked => {}
            }
        }
    }

    /// The store became another state, of the same history: everybody goes on from where they were.
    pub(crate) fn history_replaced(&mut self, view: &View) {
        // Who was synced has been told everything up to the present as it was.
        let present = self.revision;
        for watcher in self.watchers.values_mut().filter(|watcher| matches!(watcher.state, State::Synced(_)))
        {
            watcher.next = watcher.next.max(present + 1);
        }
        self.revision = view.revision;
        self.compacted = view.compacted;
        let behind = |(id, watcher): (WatcherId, &Watcher)| {
            (matches!(watcher.state, State::Synced(_)) && watcher.next <= view.revision).then_some(id)
        };
        let mut behind: Vec<WatcherId> = self.watchers.iter().filter_map(behind).collect();
        if Mutant::WatchForgetsRestore.is_on() {
            behind.clear();
        }
        behind.sort_unstable();
        for id in behind {
            self.unsync(id);
            let watcher = self.watchers.get_mut(id).expect("a known watcher");
            watcher.state = State::Lagging;
            self.lagging.insert((watcher.next, id));
        }
    }
}

fn announce(ready: &mut Vec<StreamId>, id: StreamId, stream: &mut Stream) {
    if !stream.announced {
        stream.announced = true;
        ready.push(id);
    }
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Streams that are open.
    pub streams: usize,
    /// Watchers on them.
    pub watchers: usize,
    /// Watchers that have not come to the present.
    pub slow_watchers: usize,
    /// Bytes of events that wait, each stream counted for itself.
    pub queued_bytes: usize,
}
