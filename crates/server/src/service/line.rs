//! Standing in line: what the Lock and the Election service share.
//!
//! Whoever wants something puts a key `NAME/LEASE` under a lease, once; among the keys below `NAME/` the one that was created first
//! has it, and the others wait for the one just before them, so that a key that goes wakes one call and not all. These are the
//! recipes of etcd's own clients, with their keys, so that calls of the services and clients with recipes stand in the same line.
//!
//! The line is a replicated fact, so waiting needs nobody else: this member's own store tells when the key before is gone. What the
//! call owes is its key: when it ends without having its turn (the client went away, its deadline passed, the member stops), the
//! [`Ticket`] takes the key back.
//!
//! In one thing we differ from upstream: a call whose own key goes while it waits (its lease ended, somebody deleted it) is told so
//! at once, not when its turn would have come.

use std::sync::Arc;

use bytes::Bytes;
use synod_kv::op::{
    Compare, CompareResult, CompareTarget, Content, DeleteRange, Op, OpReply, Put, RangeRequest, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpReply,
};
use synod_kv::view::View;
use synod_kv::watch::{StreamId, WatchFlags, WatchOutput, WatchRequest};
use tokio::sync::oneshot;

use super::Service;
use super::backend::Backend;
use super::bell::Rope;
use super::metadata::Metadata;
use crate::contract::{Call, Level};
use crate::status::{self, Status};

/// The lease of a call that brings none, in seconds; nobody keeps it alive but whoever asks for that.
const LEASE_SECONDS: i64 = 60;

/// All keys that stand in the line of a name.
pub(super) struct Line {
    first: Bytes,
    end: Bytes,
}

impl Line {
    pub(super) fn of(name: &[u8]) -> Line {
        // `0` is the character behind `/`.
        Line { first: [name, b"/"].concat().into(), end: [name, b"0"].concat().into() }
    }

    /// The key of a lease, as Go prints it: a negative id has its sign.
    fn key(&self, lease: i64) -> Bytes {
        let sign = if lease < 0 { "-" } else { "" };
        [&self.first[..], format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
    }

    /// A read of one key of the line: the first or the last that was created.
    fn one(&self, order: SortOrder) -> RangeRequest {
        RangeRequest {
            key: self.first.clone(),
            range_end: self.end.clone(),
            limit: 1,
            sort_order: order,
            sort_target: SortTarget::Create,
            ..RangeRequest::default()
        }
    }

    /// A read of whoever is in front.
    pub(super) fn front(&self) -> RangeRequest {
        self.one(SortOrder::Ascend)
    }

    /// A watch for whoever comes while the line is empty.
    pub(super) fn arrivals(&self) -> WatchRequest {
        WatchRequest {
            key: self.first.clone(),
            range_end: self.end.clone(),
            flags: WatchFlags { no_delete: true, ..WatchFlags::default() },
            ..WatchRequest::default()
        }
    }

    /// The last key that was created before this revision.
    fn before(&self, view: &View, revision: i64) -> Option<Bytes> {
        let request = RangeRequest {
            max_create_revision: revision - 1,
            content: Content::KeysOnly,
            ..self.one(SortOrder::Descend)
        };
        let found = view.range(&request).ok()?;
        found.kvs.iter().next().map(|pair| Bytes::copy_from_slice(pair.key))
    }
}

/// A place in a line. Dropped before it is kept, it is given up.
pub(super) struct Ticket<B: Backend> {
    backend: Arc<B>,
    line: Line,
    pub(super) key: Bytes,
    pub(super) lease: i64,
    /// The revision that created the key: a number that grows from holder to holder.
    pub(super) revision: i64,
    /// What the key says, where it was there before.
    pub(super) found: Option<Bytes>,
    given_up: bool,
}

impl<B: Backend> Ticket<B> {
    /// The place stays, whatever becomes of the call.
    pub(super) fn keep(&mut self) {
        self.given_up = false;
    }

    /// Whether the key is still there, and still ours.
    fn is_there(&self, view: &View) -> bool {
        let request = RangeRequest { key: self.key.clone(), ..RangeRequest::default() };
        let found = view.range(&request).unwrap_or_default();
        found.kvs.iter().any(|pair| pair.create == self.revision)
    }
}

impl<B: Backend> Drop for Ticket<B> {
    fn drop(&mut self) {
        // Without a runtime the process ends, and the lease does what is to be done.
        let (true, Ok(runtime)) = (self.given_up, tokio::runtime::Handle::try_current()) else { return };
        let (backend, op) = (self.backend.clone(), delete_if(self.key.clone(), self.revision));
        runtime.spawn(async move {
            if let Err(failure) = backend.propose(op).await {
                tracing::debug!(?failure, "a place in a line is not given up before its lease ends");
            }
        });
    }
}

fn created_at(key: Bytes, revision: i64) -> Compare {
    let target = CompareTarget::Create(revision);
    Compare { key, range_end: Bytes::new(), result: CompareResult::Equal, target }
}

/// Deletes a key that was created at this revision, and no other.
pub(super) fn delete_if(key: Bytes, revision: i64) -> Op {
    let delete = DeleteRange { key: key.clone(), ..DeleteRange::default() };
    Op::Txn(Txn {
        compare: vec![created_at(key, revision)],
        success: vec![TxnOp::DeleteRange(delete)],
        failure: Vec::new(),
    })
}

/// Sets a key that was created at this revision, and no other.
pub(super) fn put_if(put: Put, revision: i64) -> Op {
    Op::Txn(Txn {
        compare: vec![created_at(put.key.clone(), revision)],
        success: vec![TxnOp::Put(put)],
        failure: Vec::new(),
    })
}

/// A stream at the hub for a call's own use; dropping it forgets its watches.
pub(super) struct Listening<'a, B: Backend> {
    service: &'a Service<B>,
    pub(super) stream: StreamId,
    rope: Rope,
}

impl<B: Backend> Drop for Listening<'_, B> {
    fn drop(&mut self) {
        self.service.backend.store().write().hub().close_stream(self.stream);
    }
}

impl<B: Backend> Listening<'_, B> {
    /// The next that a watch has to say, beside that it is there.
    pub(super) async fn next(&self) -> WatchOutput {
        loop {
            let (output, lagging) = {
                let mut store = self.service.backend.store().write();
                let output = store.hub().poll(self.stream);
                (output, store.hub().is_lagging())
            };
            if lagging {
                self.service.backend.nudge();
            }
            match output {
                Some(WatchOutput::Created { .. } | WatchOutput::Progress { .. }) => {}
                Some(output) => return output,
                None => self.rope.rung().await,
            }
        }
    }
}

impl<B: Backend> Service<B> {
    /// Whether the protocol gives what a line needs.
    pub(super) fn allow_line(&self) -> Result<(), Status> {
        self.allow(Call::Line, Level::Linearizable)
    }

    /// Opens a stream at the hub.
    pub(super) fn listen(&self) -> Listening<'_, B> {
        let stream = self.backend.store().write().hub().open_stream();
        Listening { service: self, stream, rope: self.backend.bell().hang(stream) }
    }

    /// Takes a place in the line of a name. A lease stands in a line once: asked again, it has the place that it has.
    pub(super) async fn stand_in_line(
        &self,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Ticket<B>, Status> {
        self.allow_line()?;
        let lease = if lease == 0 { self.grant(0, LEASE_SECONDS).await?.1 } else { lease };
        let line = Line::of(name);
        let key = line.key(lease);
        let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let put = Put { key: key.clone(), value, lease, ..Put::default() };
        let op = Op::Txn(Txn {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![TxnOp::Put(put)],
            failure: vec![TxnOp::Range(get)],
        });
        // A task of its own: when the client goes before the answer is there, somebody must still give up what it got.
        let (sender, receiver) = oneshot::channel();
        let backend = self.backend.clone();
        tokio::spawn(async move {
            let outcome = backend.propose(op).await.map_err(Status::from);
            let outcome = outcome.and_then(|reply| Ok((reply.revision, reply.result?)));
            let ticket = outcome.and_then(|(revision, reply)| {
                let OpReply::Txn(txn) = reply else { return Err(super::mismatched(&reply)) };
                let mut ticket =
                    Ticket { backend, line, key, lease, revision, found: None, given_up: txn.succeeded };
                if let Some(TxnOpReply::Range(range)) = txn.responses.first()
                    && let Some(pair) = range.kvs.iter().next()
                {
                    ticket.revision = pair.create;
                    ticket.found = Some(Bytes::copy_from_slice(pair.value));
                    // Who holds already goes on holding, whatever becomes of this call.
                    let store = ticket.backend.store().read();
                    ticket.given_up = ticket.line.before(store.view(), pair.create).is_some();
                }
                Ok(ticket)
            });
            // Nobody there any more: then the ticket is dropped, and that gives it up.
            let _ = sender.send(ticket);
        });
        receiver.await.unwrap_or_else(|_| Err(status::stopped()))
    }

    /// Returns when everybody before has gone; fails with `lost` when the place itself is gone.
    pub(super) async fn wait_in_line(
        &self,
        ticket: &Ticket<B>,
        metadata: &Metadata,
        lost: fn() -> Status,
    ) -> Result<(), Status> {
        let mut stopping = self.backend.stopping();
        let waiting = async {
            while self.wait_for_one(ticket, lost).await? {}
            // This member may be behind: what it takes for its own may be gone.
            self.fence().await?;
            if ticket.is_there(self.backend.store().read().view()) { Ok(()) } else { Err(lost()) }
        };
        tokio::select! {
            outcome = waiting => outcome,
            () = self.leader_lost(), if metadata.leader_required => Err(status::no_leader()),
            _ = stopping.wait_for(|stop| *stop) => Err(status::stopped()),
        }
    }

    /// Waits for the key just before, if there is one, or for the loss of the own; whether to look again.
    async fn wait_for_one(&self, ticket: &Ticket<B>, lost: fn() -> Status) -> Result<bool, Status> {
        let listening = self.listen();
        {
            // What is read and what is watched for meet without a gap, because nothing is applied in between.
            let mut store = self.backend.store().write();
            store.check_readable()?;
            if !ticket.is_there(store.view()) {
                return Err(lost());
            }
            let Some(before) = ticket.line.before(store.view(), ticket.revision) else { return Ok(false) };
            let flags = WatchFlags { no_put: true, ..WatchFlags::default() };
            for key in [before, ticket.key.clone()] {
                store.hub().create(listening.stream, &WatchRequest { key, flags, ..WatchRequest::default() });
            }
        }
        // Whatever it is, the store tells what is true now.
        listening.next().await;
        Ok(true)
    }
}
