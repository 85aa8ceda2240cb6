//! The KV service.

use bytes::{Bytes, BytesMut};
use synod_api::etcdserverpb as pb;
use synod_core::Role;
use synod_kv::OpError;
use synod_kv::op::{Op, OpReply, RangeRequest, Txn, TxnOp};
use synod_kv::range::{RangeCursor, StreamPace};

use super::backend::Backend;
use super::metadata::Metadata;
use super::payload::{Payload, Pieces};
use super::stream::{Inbox, Outbox};
use super::{Service, decode, elsewhere, mismatched};
use crate::contract::{Call, Level};
use crate::convert::{reply, request};
use crate::status::{self, Status};

/// A range that spans more keys than this is read from a frozen view, piece by piece, without holding the store.
const BREADTH_MAX: usize = 512;

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

impl<B: Backend> Service<B> {
    pub(super) async fn range(&self, metadata: &Metadata, body: Bytes) -> Result<Payload, Status> {
        let range = request::range(body)?;
        self.ready_to_read(metadata, range.serializable, read_of(range.revision)).await?;
        match self.read_narrow(&range)? {
            Some(payload) => Ok(payload),
            None => Box::pin(self.read_broad(range)).await,
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
        let summary = view.range_into(range, reply.pairs())?;
        Ok(Some(Payload::Whole(reply.finish(&summary))))
    }

    /// Counts and sorts on another thread, so that nobody waits for it here; then gives the answer in pieces.
    async fn read_broad(&self, range: RangeRequest) -> Result<Payload, Status> {
        let view = self.backend.store().write().freeze_view();
        let header = self.header(view.revision());
        let preparing = move || {
            let cursor = RangeCursor::new(view, &range)?;
            let bytes = cursor.remaining_bytes() as usize;
            Ok::<_, OpError>((cursor, bytes))
        };
        let (mut cursor, bytes) = elsewhere(preparing).await??;
        let (head, tail) = reply::range_ends(&header, &cursor.summary());
        let length = head.len() + tail.len() + bytes;
        let pairs = std::iter::from_fn(move || {
            let mut piece = BytesMut::with_capacity(PIECE + PIECE / 4);
            cursor.read(usize::MAX, PIECE, &mut piece);
            (!piece.is_empty()).then(|| piece.freeze())
        });
        let pieces = std::iter::once(head).chain(pairs).chain(std::iter::once(tail));
        Ok(Payload::Pieces(Pieces { length, pieces: Box::new(pieces.filter(|piece| !piece.is_empty())) }))
    }

    pub(super) async fn put(&self, body: Bytes) -> Result<Payload, Status> {
        self.refuse_learner()?;
        self.check_size(&body)?;
        let put = request::put(body)?;
        self.allow(if put.lease == 0 { Call::Write } else { Call::WriteLeased }, Level::Linearizable)?;
        match self.propose(Op::Put(put)).await? {
            (_, OpReply::Put(reply)) => Ok(reply::put(&self.header(reply.revision), &reply)),
            (_, other) => Err(mismatched(&other)),
        }
    }

    pub(super) async fn delete_range(&self, body: Bytes) -> Result<Payload, Status> {
        self.refuse_learner()?;
        self.check_size(&body)?;
        let delete = request::delete_range(body)?;
        self.allow(Call::Write, Level::Linearizable)?;
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
            let mut needs = Needs::default();
            needs.gather(&txn);
            if needs.compares {
                self.allow(Call::Compare, Level::Linearizable)?;
            }
            self.ready_to_read(metadata, txn.is_serializable(), read_of(needs.revision)).await?;
            let reply = self.backend.store().read().read_txn(&txn)?;
            return Ok(reply::txn(&self.header(reply.revision), &reply));
        }
        size?;
        self.allow_txn(&txn)?;
        match self.propose(Op::Txn(txn)).await? {
            (_, OpReply::Txn(reply)) => Ok(reply::txn(&self.header(reply.revision), &reply)),
            (_, other) => Err(mismatched(&other)),
        }
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
