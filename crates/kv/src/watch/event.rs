//! Events as watchers get them: encoded once, shared by all that want the same.

use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::arena::Record;
use crate::record::{KeyValue, put_varint, varint_len};

/// Field 11 of a WatchResponse: an event.
const TAG_EVENTS: u8 = 0x5a;
const TAG_TYPE: u8 = 0x08;
const TAG_KV: u8 = 0x12;
const TAG_PREV_KV: u8 = 0x1a;
const TYPE_DELETE: u8 = 1;

/// The events of one revision or of several, whole revisions only, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct EventBatch {
    /// What the header of a response with these says.
    pub revision: i64,
    /// The events, each with its tag as field 11 of a WatchResponse.
    pub bytes: Bytes,
    /// Where each event ends in `bytes`.
    pub ends: Vec<u32>,
}

impl EventBatch {
    /// The events of several batches, cut into pieces of at most `bytes_max` bytes where that is possible: a piece holds
    /// at least one event. What a watcher that asked for fragments gets when a response grows too large.
    #[must_use]
    pub fn fragments(batches: &[Arc<EventBatch>], bytes_max: usize) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let mut piece = BytesMut::new();
        for batch in batches {
            for event in batch.spans() {
                if !piece.is_empty() && piece.len() + event.len() > bytes_max {
                    pieces.push(piece.split().freeze());
                }
                piece.extend_from_slice(&batch.bytes[event]);
            }
        }
        if !piece.is_empty() {
            pieces.push(piece.freeze());
        }
        pieces
    }

    /// Where each event lies in `bytes`.
    pub fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|end| *end as usize));
        starts.zip(&self.ends).map(|(start, end)| start..*end as usize)
    }
}

/// A batch in the making.
#[derive(Debug, Default)]
pub(super) struct Batcher {
    bytes: BytesMut,
    ends: Vec<u32>,
}

impl Batcher {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the event that a record tells of, with what was before it.
    pub(super) fn push(&mut self, record: &Record<'_>, before: Option<Record<'_>>) {
        // A tombstone keeps its key alone; its event says when, too.
        let gone = record.tombstone.then(|| KeyValue {
            key: record.key(),
            modified: record.main(),
            ..KeyValue::default()
        });
        let kv_len = gone.map_or(record.kv.len(), |pair| pair.encoded_len());
        let field = |length: usize| 1 + varint_len(length as u64) + length;
        let mut length = field(kv_len) + before.map_or(0, |before| field(before.kv.len()));
        length += if record.tombstone { 2 } else { 0 };
        let out = &mut self.bytes;
        out.reserve(length + 11);
        out.put_u8(TAG_EVENTS);
        put_varint(out, length as u64);
        if record.tombstone {
            out.put_slice(&[TAG_TYPE, TYPE_DELETE]);
        }
        out.put_u8(TAG_KV);
        put_varint(out, kv_len as u64);
        match gone {
            Some(pair) => pair.encode(out),
            None => out.put_slice(record.kv),
        }
        if let Some(before) = before {
            out.put_u8(TAG_PREV_KV);
            put_varint(out, before.kv.len() as u64);
            out.put_slice(before.kv);
        }
        self.ends.push(u32::try_from(out.len()).expect("a batch of less than 4 GiB"));
    }

    pub(super) fn finish(self, revision: i64) -> Arc<EventBatch> {
        Arc::new(EventBatch { revision, bytes: self.bytes.freeze(), ends: self.ends })
    }
}
