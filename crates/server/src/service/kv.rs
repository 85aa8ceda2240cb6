//! The KV service.

use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};
use synod_api::{Method, etcdserverpb as pb};
use synod_core::Role;
use synod_kv::OpError;
use synod_kv::op::{DeleteRange, Op, OpReply, Put, RangeRequest, Txn, TxnOp};
use synod_kv::range::{RangeCursor, StreamPace};

use super::admission::Admitted;
use super::backend::{Backend, Waiter};
use super::intake::Share;
use super::lane::{OnLane, OpenCall, Settled};
use super::metadata::Metadata;
use super::payload::{Payload, Pieces};
use super::stream::{Inbox, Outbox};
use super::{Service, decode, elsewhere, mismatched};
use crate::contract::{Call, Level};
use crate::convert::{reply, request};
use crate::status::{self, Status};

/// A range that spans more keys than this is read from a frozen view, piece by piece, without holding the store.
const BREADTH_MAX: usize = 512;

/// So does one whose answer would have more bytes than this, as soon as that shows.
const NARROW_BYTES: usize = 1 << 20;

/// What reads inside a transaction, and the former pairs of a deletion, may take together: their answer is made in one piece.
const TOGETHER_BYTES_MAX: u64 = 256 << 20;

/// Fewer keys than this are not worth counting their bytes.
const UNCOUNTED: usize = 16;

/// A message's length must fit the clients' signed 32 bits.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// About so many bytes at a time are encoded of such a range.
const PIECE: usize = 64 * 1024;

fn read_of(revision: i64) -> Call {
    if revision > 0 { Call::ReadAt } else { Call::Read }
}

/// What a transaction asks of the protocol, nested ones included. Their depth was bounded when they were decoded.
#[derive(Default)]
struct Needs {
    compares: bool,
    leases: bool,
    /// The highest revision that is read at.
    revision: i64,
}

impl Needs {
    fn gather(&mut self, txn: &Txn) {
        self.compares |= !txn.compare.is_empty();
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                TxnOp::Range(range) => self.revision = self.revision.max(range.revision),
                TxnOp::Put(put) => self.leases |= put.lease != 0,
                TxnOp::Txn(inner) => self.gather(inner),
                TxnOp::DeleteRange(_) | TxnOp::Empty => {}
            }
        }
    }
}

/// The pairs that a deletion gives back, as a read.
fn former(delete: &DeleteRange) -> Option<RangeRequest> {
    let several = delete.prev_kv && !delete.range_end.is_empty();
    several.then(|| RangeRequest {
        key: delete.key.clone(),
        range_end: delete.range_end.clone(),
        ..RangeRequest::default()
    })
}

/// Whether an operation may give many pairs.
fn reads_several(op: &TxnOp) -> bool {
    match op {
        TxnOp::Range(range) => !range.range_end.is_empty(),
        TxnOp::DeleteRange(delete) => former(delete).is_some(),
        TxnOp::Txn(_) => true,
        TxnOp::Put(_) | TxnOp::Empty => false,
    }
}

/// What both branches of a transaction read: one of them is taken, so this is more than enough.
fn gather_reads(txn: &Txn, reads: &mut Vec<RangeRequest>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            TxnOp::Range(range) => reads.push(range.clone()),
            TxnOp::DeleteRange(delete) => reads.extend(former(delete)),
            TxnOp::Txn(inner) => gather_reads(inner, reads),
            TxnOp::Put(_) | TxnOp::Empty => {}
        }
    }
}

impl<B: Backend> Service<B> {
    pub(super) async fn range(
        &self,
        admitted: Option<Admitted<'_>>,
        metadata: &Metadata,
        body: Bytes,
    ) -> Result<Payload, Status> {
        let range = request::range(body)?;
        self.ready_to_read(metadata, range.serializable, read_of(range.revision)).await?;
        match self.read_narrow(&range)? {
            Some(payload) => Ok(payload),
            None => {
                // It is bounded otherwise, and a thousand such reads must not keep those of a single key out.
                drop(admitted);
                Box::pin(self.read_broad(range)).await
            }
        }
    }

    /// Answers at once, unless the range spans many keys.
    fn read_narrow(&self, range: &RangeRequest) -> Result<Option<Payload>, Status> {
        let store = self.backend.store().read();
        store.check_readable()?;
        let view = store.view();
        if view.breadth(range) > BREADTH_MAX {
            return Ok(None);
        }
        let mut reply = reply::RangeWriter::new(&self.header(view.revision()));
        let summary = view.range_within(range, NARROW_BYTES, reply.pairs())?;
        Ok(summary.map(|summary| Payload::Whole(reply.finish(&summary))))
    }

    /// Counts and sorts on another thread, so that nobody waits for it here; then gives the answer in pieces.
    async fn read_broad(&self, range: RangeRequest) -> Result<Payload, Status> {
        // A few at a time: sorting takes memory and processors.
        let turn = self.broad.acquire().await;
        let view = self.backend.store().write().freeze_view();
        let header = self.header(view.revision());
        let preparing = move || {
            let cursor = RangeCursor::new(view, &range)?;
            let bytes = cursor.remaining_bytes() as usize;
            Ok::<_, OpError>((cursor, bytes))
        };
        let (mut cursor, bytes) = elsewhere(preparing).await??;
        drop(turn);
        let mut share = self.backlog.share();
        share.set(cursor.held_bytes())?;
        let (head, tail) = reply::range_ends(&header, &cursor.summary());
        let length = head.len() + tail.len() + bytes;
        if length > ANSWER_BYTES_MAX {
            return Err(status::answer_too_large());
        }
        let pairs = std::iter::from_fn(move || {
            // What the cursor remembers is counted for as long as it does.
            let _ = &share;
            let mut piece = BytesMut::with_capacity(PIECE + PIECE / 4);
            cursor.read(usize::MAX, PIECE, &mut piece);
            (!piece.is_empty()).then(|| piece.freeze())
        });
        let pieces = std::iter::once(head).chain(pairs).chain(std::iter::once(tail));
        Ok(Payload::Pieces(Pieces { length, pieces: Box::new(pieces.filter(|piece| !piece.is_empty())) }))
    }

    /// Makes room for what these reads will give in one piece; more than there may be is refused before anything happens.
    async fn make_room(&self, reads: &[&RangeRequest]) -> Result<Share, Status> {
        let mut share = self.backlog.share();
        let counting = {
            let store = self.backend.store().read();
            let view = store.view();
            match reads.iter().map(|range| view.breadth(range)).sum::<usize>() {
                ..UNCOUNTED => return Ok(share),
                UNCOUNTED..BREADTH_MAX => Ok(reads.iter().map(|range| view.range_bytes(range)).sum()),
                _ => Err(reads.iter().map(|range| (*range).clone()).collect::<Vec<_>>()),
            }
        };
        let bytes: u64 = match counting {
            Ok(bytes) => bytes,
            Err(reads) => {
                let _turn = self.broad.acquire().await;
                let view = self.backend.store().write().freeze_view();
                elsewhere(move || reads.iter().map(|range| view.range_bytes(range)).sum()).await?
            }
        };
        if bytes > TOGETHER_BYTES_MAX {
            return Err(status::answer_too_large());
        }
        share.set(bytes as usize)?;
        Ok(share)
    }

    pub(super) async fn put(&self, body: Bytes) -> Result<Payload, Status> {
        let put = self.check_put(body)?;
        let (_, reply) = self.propose(Op::Put(put)).await?;
        self.put_answer(&reply)
    }

    fn check_put(&self, body: Bytes) -> Result<Put, Status> {
        self.refuse_learner()?;
        self.check_size(&body)?;
        let put = request::put(body)?;
        self.allow(if put.lease == 0 { Call::Write } else { Call::WriteLeased }, Level::Linearizable)?;
        Ok(put)
    }

    fn put_answer(&self, reply: &OpReply) -> Result<Payload, Status> {
        match reply {
            OpReply::Put(reply) => Ok(reply::put(&self.header(reply.revision), reply)),
            other => Err(mismatched(other)),
        }
    }

    /// Whether a call goes past futures: [`Service::begin_put`] and [`Service::end_put`] instead of [`Service::unary`]. Nearly all puts do;
    /// who waits besides for a time of its own, a session, or several members' votes does not.
    pub(crate) fn is_short(&self, method: Method, metadata: &Metadata) -> bool {
        method == Method::Put
            && metadata.timeout.is_none()
            && metadata.session.is_empty()
            && self.backend.proxy().is_none()
    }

    /// Begins a put whose outcome comes by the lane.
    ///
    /// # Errors
    /// Why it cannot begin.
    pub(crate) fn begin_put(&self, metadata: &Metadata, body: Bytes, place: OnLane) -> Result<(), Status> {
        let tally = self.metrics.start(Method::Put, metadata.client_version());
        self.metrics.received_bytes.fetch_add(body.len() as u64, Relaxed);
        let checked = match () {
            () if metadata.leader_required && self.backend.standing().keeper.is_none() => {
                Err(status::no_leader())
            }
            // Under too much load most calls end here, and the less each costs, the more is left for the others.
            () if self.backend.turns_away() => Err(status::too_many_requests()),
            () => self.check_put(body),
        };
        match checked {
            Ok(put) => {
                self.backend.submit(Op::Put(put), Waiter::Connection(OpenCall::new(place, tally)));
                Ok(())
            }
            Err(status) => {
                tally.end(status.code);
                Err(status)
            }
        }
    }

    /// What a put came to, for its client.
    pub(crate) fn end_put(&self, settled: Settled) -> (u32, Result<Payload, Status>) {
        let answer = match settled.outcome {
            Ok(reply) => reply.result.map_err(Status::from).and_then(|reply| self.put_answer(&reply)),
            Err(failure) => {
                self.metrics.proposals_failed.fetch_add(1, Relaxed);
                Err(failure.into())
            }
        };
        settled.tally.end_with(&answer);
        (settled.call, answer)
    }

    pub(super) async fn delete_range(&self, body: Bytes) -> Result<Payload, Status> {
        self.refuse_learner()?;
        self.check_size(&body)?;
        let delete = request::delete_range(body)?;
        self.allow(Call::Write, Level::Linearizable)?;
        let _share = match former(&delete) {
            Some(read) => Some(Box::pin(self.make_room(&[&read])).await?),
            None => None,
        };
        match self.propose(Op::DeleteRange(delete)).await? {
            (_, OpReply::DeleteRange(reply)) => Ok(reply::delete_range(&self.header(reply.revision), &reply)),
            (_, other) => Err(mismatched(&other)),
        }
    }

    pub(super) async fn txn(&self, metadata: &Metadata, body: Bytes) -> Result<Payload, Status> {
        self.refuse_learner()?;
        let size = self.check_size(&body);
        let txn = request::txn(body, self.options.txn_ops_max)?;
        if txn.is_read_only() {
            let _admitted = self.reads.admit()?;
            let mut needs = Needs::default();
            needs.gather(&txn);
            if needs.compares {
                self.allow(Call::Compare, Level::Linearizable)?;
            }
            self.ready_to_read(metadata, txn.is_serializable(), read_of(needs.revision)).await?;
            let share = self.room_for(&txn).await?;
            let reply = match share.as_ref().map_or(0, Share::bytes) {
                ..NARROW_BYTES => self.backend.store().read().read_txn(&txn)?,
                _ => {
                    let view = {
                        let mut store = self.backend.store().write();
                        store.check_readable()?;
                        store.freeze_view()
                    };
                    elsewhere(move || view.read_txn(&txn)).await??
                }
            };
            return Ok(reply::txn(&self.header(reply.revision), &reply));
        }
        size?;
        self.allow_txn(&txn)?;
        let _share = self.room_for(&txn).await?;
        match self.propose(Op::Txn(txn)).await? {
            (_, OpReply::Txn(reply)) => Ok(reply::txn(&self.header(reply.revision), &reply)),
            (_, other) => Err(mismatched(&other)),
        }
    }

    /// Makes room for what a transaction reads.
    async fn room_for(&self, txn: &Txn) -> Result<Option<Share>, Status> {
        if !txn.success.iter().chain(&txn.failure).any(reads_several) {
            return Ok(None);
        }
        let mut reads = Vec::new();
        gather_reads(txn, &mut reads);
        Box::pin(self.make_room(&reads.iter().collect::<Vec<_>>())).await.map(Some)
    }

    /// Whether the protocol gives all that a writing transaction needs.
    fn allow_txn(&self, txn: &Txn) -> Result<(), Status> {
        let mut needs = Needs::default();
        needs.gather(txn);
        let level = Level::Linearizable;
        self.allow(if needs.compares { Call::Compare } else { Call::Group }, level)?;
        if needs.leases {
            self.allow(Call::WriteLeased, level)?;
        }
        if needs.revision > 0 { self.allow(Call::ReadAt, Level::Eventual) } else { Ok(()) }
    }

    pub(super) async fn compact(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::CompactionRequest = decode(body)?;
        self.allow(Call::Compact, Level::Linearizable)?;
        let (revision, _) = self.propose(Op::Compact { revision: request.revision }).await?;
        if request.physical {
            self.backend.compacted(request.revision).await?;
        }
        Ok(Payload::encode(&pb::CompactionResponse { header: Some(self.header(revision).message()) }))
    }

    pub(super) async fn range_stream(
        &self,
        metadata: &Metadata,
        mut inbox: Inbox,
        outbox: Outbox,
    ) -> Result<(), Status> {
        let Some(body) = inbox.next().await? else { return Err(super::stream::no_request()) };
        let range = request::range(body)?;
        range.validate_stream()?;
        if self.backend.standing().role == Role::Learner && !range.serializable {
            return Err(status::learner());
        }
        self.ready_to_read(metadata, range.serializable, read_of(range.revision)).await?;
        let view = {
            let mut store = self.backend.store().write();
            store.check_readable()?;
            store.freeze_view()
        };
        let header = self.header(view.revision());
        let mut cursor = elsewhere(move || RangeCursor::new(view, &range)).await??;
        let mut pace = StreamPace::new(self.options.request_bytes_max);
        loop {
            let mut pairs = BytesMut::new();
            cursor.read(pace.pairs(), usize::MAX, &mut pairs);
            pace.sent(pairs.len());
            let summary = cursor.is_done().then(|| cursor.summary());
            let done = summary.is_some();
            outbox.send(reply::range_chunk(&header, pairs, summary.as_ref())).await;
            if done {
                return Ok(());
            }
        }
    }
}
