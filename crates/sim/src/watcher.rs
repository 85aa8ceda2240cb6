//! Watchers: clients that hear of every change, lose their connection, and go on where they were.
//!
//! A watcher watches all keys through one replica's hub, from the revision behind the last one that it heard of. When its
//! replica goes down, it tries another. Each connection is one recorded stream; the checker judges all of them.

use bytes::Bytes;
use synod_check::builder::Builder;
use synod_check::etcd::{
    Change, KeyValue, Previous, Progress, RangeEnd, ResponseKind, WatchEvent, WatchResponse, WatchStream,
};
use synod_check::history::{Datum, Key, Value};
use synod_core::{NodeId, Time};
use synod_kv::record::take_varint;
use synod_kv::watch::{EventBatch, StreamId, WatchFlags, WatchOutput, WatchRequest};

use crate::machine::{Audited, Pair, key_number};

/// One watcher.
#[derive(Clone, Debug)]
pub struct Watcher {
    /// Its connection, if it has one: the replica, the life of it, the stream there, and the record.
    pub connection: Option<(NodeId, u64, StreamId, usize)>,
    /// The first revision that it has not heard of; 0 before it heard of any.
    pub next: i64,
}

/// What one connection heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Which watcher.
    pub watcher: usize,
    /// Where it began.
    pub from: i64,
    /// What came, in order.
    pub said: Vec<Saying>,
}

/// One response.
#[derive(Clone, Debug)]
pub struct Saying {
    /// When.
    pub at: Time,
    /// The header's revision.
    pub revision: i64,
    /// The events; none for a progress notification.
    pub events: Vec<Event>,
    /// Why the stream ended, if it did.
    pub error: &'static str,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    key: u64,
    revision: i64,
    /// What the key holds now; none when it is gone.
    now: Option<Pair>,
    before: Option<Pair>,
}

/// So little waits for a watcher that slow ones meet the limit.
const QUEUE_BYTES_MAX: usize = 600;

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ongoing {
    /// It does.
    Yes,
    /// The history that it wants is gone: it must begin anew.
    Ended,
}

impl Watcher {
    /// Every other watcher is slow: it takes what waits for it only now and then.
    #[must_use]
    pub fn is_slow(number: usize) -> bool {
        number % 2 == 1
    }

    /// Connects to a replica; gives back the new record.
    pub fn connect(
        &mut self,
        number: usize,
        node: NodeId,
        life: u64,
        machine: &mut Audited,
        record: usize,
    ) -> Heard {
        let hub = machine.store.hub();
        hub.limit_queues(QUEUE_BYTES_MAX);
        let stream = hub.open_stream();
        let flags = WatchFlags { prev_kv: true, ..WatchFlags::default() };
        let request = WatchRequest {
            range_end: Bytes::from_static(&[0]),
            start_revision: self.next,
            flags,
            ..WatchRequest::default()
        };
        hub.create(stream, &request);
        self.connection = Some((node, life, stream, record));
        Heard { watcher: number, from: self.next, said: Vec::new() }
    }

    /// Takes what waits for it.
    pub fn poll(&mut self, at: Time, machine: &mut Audited, heard: &mut Heard) -> Ongoing {
        let Some((_, _, stream, _)) = self.connection else { return Ongoing::Ended };
        while let Some(output) = machine.store.hub().poll(stream) {
            let mut saying = Saying { at, revision: 0, events: Vec::new(), error: "" };
            match output {
                WatchOutput::Created { revision, .. } => {
                    if self.next == 0 {
                        // "From now on": what comes is behind this revision.
                        self.next = revision + 1;
                        heard.from = self.next;
                    }
                    continue;
                }
                WatchOutput::Events { revision, batches, .. } => {
                    saying.revision = revision;
                    saying.events = batches.iter().flat_map(|batch| parse(batch)).collect();
                    let last = saying.events.iter().map(|event| event.revision).max();
                    self.next = self.next.max(last.map_or(0, |last| last + 1));
                }
                WatchOutput::Progress { revision, .. } => {
                    saying.revision = revision;
                    self.next = self.next.max(revision + 1);
                }
                WatchOutput::Compacted { compact_revision, .. } => {
                    self.next = compact_revision;
                    saying.error = "compacted";
                    heard.said.push(saying);
                    return Ongoing::Ended;
                }
                WatchOutput::Refused { .. }
                | WatchOutput::Canceled { .. }
                | WatchOutput::TakenBack { .. } => return Ongoing::Ended,
            }
            heard.said.push(saying);
        }
        Ongoing::Yes
    }
}

/// The events of a batch, each as field 11 of a WatchResponse: type 1, kv 2, prev_kv 3.
fn parse(batch: &EventBatch) -> Vec<Event> {
    let event = |span: std::ops::Range<usize>| {
        let mut bytes = &batch.bytes[span];
        take_varint(&mut bytes)?; // The tag of field 11.
        take_varint(&mut bytes)?; // Its length.
        let (mut is_delete, mut key, mut revision, mut now, mut before) = (false, 0, 0, None, None);
        while !bytes.is_empty() {
            let tag = take_varint(&mut bytes)?;
            if tag == 0x08 {
                is_delete = take_varint(&mut bytes)? == 1;
                continue;
            }
            let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
            let (field, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            let pair = synod_kv::record::KeyValue::parse(field)?;
            if tag == 0x12 {
                (key, revision) = (key_number(pair.key)?, pair.modified);
                now = Pair::parse(field).map(|(_, pair)| pair);
            } else {
                before = Pair::parse(field).map(|(_, pair)| pair);
            }
        }
        Some(Event { key, revision, now: now.filter(|_| !is_delete), before })
    };
    let events: Vec<Event> = batch.spans().filter_map(event).collect();
    assert_eq!(events.len(), batch.ends.len(), "every event of the hub can be read");
    events
}

impl Heard {
    /// As the checker wants it.
    #[must_use]
    pub fn stream(&self, builder: &mut Builder) -> WatchStream {
        let first: Key = builder.key(Datum::text(""));
        let responses = self.said.iter().map(|saying| {
            let mut value = |value: u64| -> Value { builder.value(Datum::Int(value as i64)) };
            let told: Vec<(Event, Option<Value>, Option<Value>)> = saying
                .events
                .iter()
                .map(|event| {
                    (
                        *event,
                        event.now.map(|pair| value(pair.value)),
                        event.before.map(|pair| value(pair.value)),
                    )
                })
                .collect();
            let events = told.into_iter().map(|(event, now, before)| {
                let key: Key = builder.key(Datum::text(format!("k{}", event.key)));
                WatchEvent {
                    key,
                    change: now.map_or(Change::Delete, Change::Put),
                    revision: event.revision,
                    created: event.now.map(|pair| pair.create == pair.modified),
                    previous: Some(event.before.zip(before).map(|(pair, value)| KeyValue {
                        key,
                        value,
                        create: pair.create,
                        modified: pair.modified,
                        version: pair.version,
                        lease: pair.lease,
                    })),
                }
            });
            let events: Vec<WatchEvent> = events.collect();
            let kind = if events.is_empty() { ResponseKind::Progress } else { ResponseKind::Events };
            WatchResponse {
                events,
                revision: saying.revision,
                kind,
                time: saying.at.0 as i64,
                error: saying.error.into(),
            }
        });
        let responses: Vec<WatchResponse> = responses.collect();
        WatchStream {
            client: self.watcher as i64,
            key: first,
            end: RangeEnd::Open,
            revision: self.from,
            progress: Progress::Wanted,
            previous: Previous::Wanted,
            responses,
            line: 0,
        }
    }
}
