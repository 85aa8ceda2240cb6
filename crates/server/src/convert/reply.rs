//! Replies: from the store's own types straight to protobuf bytes.
//!
//! The store keeps pairs encoded already, so a reply is a header, ready bytes and a few numbers; lengths are
//! computed first where messages are nested, and everything is written once.

use bytes::{BufMut, Bytes, BytesMut};
use synod_kv::op::{DeleteReply, PutReply, RangeReply, TxnOpReply, TxnReply};
use synod_kv::range::RangeSummary;
use synod_kv::record::{put_varint, varint_len};

use crate::service::payload::{Framed, Payload, Pieces, start};

/// The header of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// The cluster's id.
    pub(crate) cluster: u64,
    /// The member that answers.
    pub(crate) member: u64,
    /// The revision; see each method.
    pub(crate) revision: i64,
    /// The member's term.
    pub(crate) term: u64,
}

impl Header {
    /// The header inside a transaction: a revision and nothing else.
    fn inner(revision: i64) -> Header {
        Header { revision, ..Header::default() }
    }

    /// As a generated message.
    #[must_use]
    pub(crate) fn message(self) -> synod_api::etcdserverpb::ResponseHeader {
        synod_api::etcdserverpb::ResponseHeader {
            cluster_id: self.cluster,
            member_id: self.member,
            revision: self.revision,
            raft_term: self.term,
        }
    }

    fn body_len(&self) -> usize {
        number_len(self.cluster)
            + number_len(self.member)
            + number_len(self.revision as u64)
            + number_len(self.term)
    }

    /// The header as field 1 of a reply.
    fn len(&self) -> usize {
        nested_len(self.body_len())
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(0x0a);
        put_varint(out, self.body_len() as u64);
        put_number(out, 0x08, self.cluster);
        put_number(out, 0x10, self.member);
        put_number(out, 0x18, self.revision as u64);
        put_number(out, 0x20, self.term);
    }
}

/// A number of a field below 16; left out when it is 0.
fn number_len(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + varint_len(number) }
}

fn put_number(out: &mut BytesMut, tag: u8, number: u64) {
    if number != 0 {
        out.put_u8(tag);
        put_varint(out, number);
    }
}

/// A message or byte string of a field below 16, however long.
fn nested_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

fn put_nested(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    out.put_u8(tag);
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// RangeResponse, written around pairs that the store appends itself.
pub(crate) struct RangeWriter {
    out: BytesMut,
}

impl RangeWriter {
    /// Begins with the header.
    #[must_use]
    pub(crate) fn new(header: &Header) -> RangeWriter {
        let mut out = start(header.len() + 256);
        header.write(&mut out);
        RangeWriter { out }
    }

    /// Where the pairs go, as field 2.
    pub(crate) fn pairs(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Ends with what the range says beside its pairs.
    #[must_use]
    pub(crate) fn finish(mut self, summary: &RangeSummary) -> Framed {
        write_range_tail(summary.more, summary.count, &mut self.out);
        Framed::finish(self.out)
    }
}

/// What comes before and after the pairs of a RangeResponse.
#[must_use]
pub(crate) fn range_ends(header: &Header, summary: &RangeSummary) -> (Bytes, Bytes) {
    let mut head = BytesMut::with_capacity(header.len());
    header.write(&mut head);
    let mut tail = BytesMut::with_capacity(16);
    write_range_tail(summary.more, summary.count, &mut tail);
    (head.freeze(), tail.freeze())
}

/// RangeStreamResponse: some pairs; in the last one also the rest.
#[must_use]
pub(crate) fn range_chunk(header: &Header, pairs: BytesMut, last: Option<&RangeSummary>) -> Payload {
    let (head, tail) = last.map(|summary| range_ends(header, summary)).unwrap_or_default();
    let length = head.len() + pairs.len() + tail.len();
    let mut out = start(nested_len(length));
    out.put_u8(0x0a);
    put_varint(&mut out, length as u64);
    for part in [&head[..], &pairs[..], &tail[..]] {
        out.put_slice(part);
    }
    Payload::Whole(Framed::finish(out))
}

fn range_len(header: &Header, reply: &RangeReply) -> usize {
    header.len()
        + reply.kvs.fields().len()
        + number_len(u64::from(reply.more))
        + number_len(reply.count as u64)
}

fn write_range(header: &Header, reply: &RangeReply, out: &mut BytesMut) {
    header.write(out);
    out.put_slice(reply.kvs.fields());
    write_range_tail(reply.more, reply.count, out);
}

fn write_range_tail(more: bool, count: i64, out: &mut BytesMut) {
    put_number(out, 0x18, u64::from(more));
    put_number(out, 0x20, count as u64);
}

/// PutResponse.
#[must_use]
pub(crate) fn put(header: &Header, reply: &PutReply) -> Payload {
    let mut out = start(put_len(header, reply));
    write_put(header, reply, &mut out);
    Payload::Whole(Framed::finish(out))
}

fn put_len(header: &Header, reply: &PutReply) -> usize {
    header.len() + reply.prev_kv.as_ref().map_or(0, |pair| nested_len(pair.len()))
}

fn write_put(header: &Header, reply: &PutReply, out: &mut BytesMut) {
    header.write(out);
    if let Some(pair) = &reply.prev_kv {
        put_nested(out, 0x12, pair);
    }
}

/// DeleteRangeResponse.
#[must_use]
pub(crate) fn delete_range(header: &Header, reply: &DeleteReply) -> Payload {
    let mut out = start(delete_len(header, reply));
    write_delete(header, reply, &mut out);
    Payload::Whole(Framed::finish(out))
}

fn delete_len(header: &Header, reply: &DeleteReply) -> usize {
    header.len() + number_len(reply.deleted as u64) + reply.prev_kvs.fields().len()
}

fn write_delete(header: &Header, reply: &DeleteReply, out: &mut BytesMut) {
    header.write(out);
    put_number(out, 0x10, reply.deleted as u64);
    out.put_slice(reply.prev_kvs.fields());
}

/// TxnResponse.
#[must_use]
pub(crate) fn txn(header: &Header, reply: &TxnReply) -> Payload {
    let mut out = start(txn_len(header, reply));
    write_txn(header, reply, &mut out);
    Payload::Whole(Framed::finish(out))
}

fn txn_len(header: &Header, reply: &TxnReply) -> usize {
    let responses = reply.responses.iter().map(|response| nested_len(nested_len(response_len(response))));
    header.len() + number_len(u64::from(reply.succeeded)) + responses.sum::<usize>()
}

fn response_len(response: &TxnOpReply) -> usize {
    match response {
        TxnOpReply::Range(range) => range_len(&Header::inner(range.revision), range),
        TxnOpReply::Put(put) => put_len(&Header::inner(put.revision), put),
        TxnOpReply::DeleteRange(delete) => delete_len(&Header::inner(delete.revision), delete),
        // The header of a transaction in a transaction is there, and empty.
        TxnOpReply::Txn(txn) => txn_len(&Header::default(), txn),
    }
}

fn write_txn(header: &Header, reply: &TxnReply, out: &mut BytesMut) {
    header.write(out);
    put_number(out, 0x10, u64::from(reply.succeeded));
    for response in &reply.responses {
        let length = response_len(response);
        out.put_u8(0x1a);
        put_varint(out, nested_len(length) as u64);
        let tag = match response {
            TxnOpReply::Range(_) => 0x0a,
            TxnOpReply::Put(_) => 0x12,
            TxnOpReply::DeleteRange(_) => 0x1a,
            TxnOpReply::Txn(_) => 0x22,
        };
        out.put_u8(tag);
        put_varint(out, length as u64);
        match response {
            TxnOpReply::Range(range) => write_range(&Header::inner(range.revision), range, out),
            TxnOpReply::Put(put) => write_put(&Header::inner(put.revision), put, out),
            TxnOpReply::DeleteRange(delete) => write_delete(&Header::inner(delete.revision), delete, out),
            TxnOpReply::Txn(txn) => write_txn(&Header::default(), txn, out),
        }
    }
}

/// What a WatchResponse says beside header and events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    /// Which watch; -1 for none or for the whole stream.
    pub(crate) watch_id: i64,
    /// It was created just now.
    pub(crate) created: bool,
    /// It is no more.
    pub(crate) canceled: bool,
    /// It is no more because what it wants is compacted up to here.
    pub(crate) compact_revision: i64,
    /// Why it is no more.
    pub(crate) reason: String,
    /// More of the same response follows.
    pub(crate) fragment: bool,
}

/// Events of more bytes than this are handed on as they are instead of being copied into the response.
const EVENTS_COPIED_MAX: usize = 8 * 1024;

/// WatchResponse; `events` are encoded as its field 11 already.
#[must_use]
pub(crate) fn watch(header: &Header, watched: &Watched, events: Vec<Bytes>) -> Payload {
    let reason = &watched.reason;
    let mut head_len = header.len() + number_len(watched.watch_id as u64);
    head_len +=
        [watched.created, watched.canceled, watched.fragment].into_iter().filter(|flag| *flag).count() * 2;
    head_len += number_len(watched.compact_revision as u64);
    head_len += if reason.is_empty() { 0 } else { nested_len(reason.len()) };
    let events_len: usize = events.iter().map(Bytes::len).sum();
    let copied = events_len <= EVENTS_COPIED_MAX;
    let mut out = if copied { start(head_len + events_len) } else { BytesMut::with_capacity(head_len) };
    header.write(&mut out);
    put_number(&mut out, 0x10, watched.watch_id as u64);
    put_number(&mut out, 0x18, u64::from(watched.created));
    put_number(&mut out, 0x20, u64::from(watched.canceled));
    put_number(&mut out, 0x28, watched.compact_revision as u64);
    if !reason.is_empty() {
        put_nested(&mut out, 0x32, reason.as_bytes());
    }
    put_number(&mut out, 0x38, u64::from(watched.fragment));
    if copied {
        events.iter().for_each(|piece| out.put_slice(piece));
        return Payload::Whole(Framed::finish(out));
    }
    let pieces = std::iter::once(out.freeze()).chain(events);
    Payload::Pieces(Pieces { length: head_len + events_len, pieces: Box::new(pieces) })
}
