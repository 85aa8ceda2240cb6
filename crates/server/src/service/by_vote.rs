//! What each method means at a proxy: see `proxy`.
//!
//! Whatever changes something means the same as at a member, because proposing is what differs. Whatever a member would read from its store is here
//! a wish that is ordered like a write, and so linearizable, whatever weaker level was asked for. What is one member's own affair is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_api::etcdserverpb::watch_request::RequestUnion;
use synod_api::{Method, Shape, etcdserverpb as pb};
use synod_kv::once::Wish;
use synod_kv::op::{Op, OpReply, RangeRequest, Txn, TxnOp, TxnOpReply};
use synod_kv::range::RangeSummary;
use synod_kv::watch::{WatchOutput, WatchRequest};

use super::backend::Backend;
use super::metadata::Metadata;
use super::payload::Payload;
use super::stream::{Inbox, Outbox};
use super::watch::watch_request;
use super::{Service, decode, mismatched};
use crate::convert::reply::{self, Watched};
use crate::convert::request;
use crate::proxy::vote::News;
use crate::proxy::{Proxy, ProxyWatch};
use crate::status::{self, Code, Status};

/// Between two questions how far watches have come, while a client waits for the answer.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What a proxy does not give.
fn refused(method: Method) -> Status {
    let sentence = format!(
        "synod: the proxy does not give {}/{}: it is one member's own affair, or needs a store, and the proxy has none; ask a member",
        method.service(),
        method.name()
    );
    Status::new(Code::FailedPrecondition, sentence)
}

/// A client's watch, its wish for progress with it.
struct Mine {
    watch: ProxyWatch,
    notify: bool,
}

impl<B: Backend> Service<B> {
    pub(super) async fn by_vote(
        &self,
        proxy: &Arc<Proxy>,
        method: Method,
        metadata: &Metadata,
        body: Bytes,
    ) -> Result<Payload, Status> {
        match method {
            Method::Range => self.range_by_vote(body).await,
            Method::Txn => self.txn_by_vote(metadata, body).await,
            Method::Put => self.put(body).await,
            Method::DeleteRange => self.delete_range(body).await,
            Method::Compact => self.compact(body).await,
            Method::LeaseGrant => self.lease_grant(body).await,
            Method::LeaseRevoke => self.lease_revoke(body).await,
            Method::LeaseTimeToLive => self.lease_time_by_vote(proxy, body).await,
            Method::LeaseLeases => {
                let _: pb::LeaseLeasesRequest = decode(body)?;
                let reply = proxy.carry_out(&Wish::Leases).await.map_err(Status::from)?;
                let OpReply::Leases(ids) = reply.result? else { return Err(status::timed_out()) };
                let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
                let header = Some(self.header(reply.revision).message());
                Ok(Payload::encode(&pb::LeaseLeasesResponse { header, leases }))
            }
            Method::Status => {
                let _: pb::StatusRequest = decode(body)?;
                let revision = proxy.read_revision().await.map_err(Status::from)?;
                Ok(Payload::encode(&pb::StatusResponse {
                    header: Some(self.header(revision).message()),
                    version: self.options.version.to_owned(),
                    ..pb::StatusResponse::default()
                }))
            }
            Method::AuthStatus => self.auth_status(body),
            Method::HealthCheck => self.health_check(body),
            Method::Authenticate => {
                Err(Status::new(Code::FailedPrecondition, "etcdserver: authentication is not enabled"))
            }
            _ if !super::is_supported(method) => Err(super::unsupported(method)),
            _ => Err(refused(method)),
        }
    }

    async fn range_by_vote(&self, body: Bytes) -> Result<Payload, Status> {
        let range: RangeRequest = request::range(body)?;
        range.validate()?;
        let txn = Txn { success: vec![TxnOp::Range(range)], ..Txn::default() };
        let (_, reply) = self.propose(Op::Txn(txn)).await?;
        let OpReply::Txn(mut txn) = reply else { return Err(mismatched(&reply)) };
        let Some(TxnOpReply::Range(range)) = txn.responses.pop() else {
            return Err(mismatched(&OpReply::Txn(txn)));
        };
        let mut writer = reply::RangeWriter::new(&self.header(range.revision));
        writer.pairs().extend_from_slice(range.kvs.fields());
        let summary = RangeSummary {
            revision: range.revision,
            more: range.more,
            count: range.count,
            pairs: range.kvs.len(),
        };
        Ok(Payload::Whole(writer.finish(&summary)))
    }

    async fn txn_by_vote(&self, metadata: &Metadata, body: Bytes) -> Result<Payload, Status> {
        let txn = request::txn(body.clone(), self.options.txn_ops_max)?;
        if !txn.is_read_only() {
            return self.txn(metadata, body).await;
        }
        self.check_size(&body)?;
        match self.propose(Op::Txn(txn)).await? {
            (_, OpReply::Txn(reply)) => Ok(reply::txn(&self.header(reply.revision), &reply)),
            (_, other) => Err(mismatched(&other)),
        }
    }

    async fn lease_time_by_vote(&self, proxy: &Arc<Proxy>, body: Bytes) -> Result<Payload, Status> {
        let request: pb::LeaseTimeToLiveRequest = decode(body)?;
        let reply = proxy.carry_out(&Wish::Lease(request.id)).await.map_err(Status::from)?;
        let OpReply::Lease(lease) = reply.result? else { return Err(status::timed_out()) };
        let header = Some(self.header(reply.revision).message());
        let mut response =
            pb::LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..Default::default() };
        if let Some((granted, keys)) = lease
            && let Some(left) = proxy.seconds(request.id, false).await.map_err(Status::from)?
        {
            (response.ttl, response.granted_ttl) = (left, granted);
            if request.keys {
                response.keys = keys;
            }
        }
        Ok(Payload::encode(&response))
    }

    pub(super) async fn stream_by_vote(
        &self,
        proxy: &Arc<Proxy>,
        method: Method,
        mut inbox: Inbox,
        outbox: Outbox,
    ) -> Result<(), Status> {
        debug_assert!(method.shape() != Shape::Unary);
        match method {
            Method::Watch => self.watch_by_vote(proxy, inbox, outbox).await,
            Method::LeaseKeepAlive => {
                while let Some(body) = inbox.next().await? {
                    let request: pb::LeaseKeepAliveRequest = decode(body)?;
                    let header = Some(self.header(proxy.revision()).message());
                    let ttl = proxy.seconds(request.id, true).await.map_err(Status::from)?.unwrap_or(0);
                    let response = pb::LeaseKeepAliveResponse { header, id: request.id, ttl };
                    outbox.send(Payload::encode(&response)).await;
                }
                Ok(())
            }
            Method::HealthWatch => self.health_watch(inbox, outbox).await,
            Method::Reflection => super::reflection::serve(inbox, outbox).await,
            _ => Err(refused(method)),
        }
    }

    /// One stream, many watches. Names, duplicates and ranges are looked after by a hub in which nothing ever happens.
    async fn watch_by_vote(
        &self,
        proxy: &Arc<Proxy>,
        mut inbox: Inbox,
        outbox: Outbox,
    ) -> Result<(), Status> {
        let listening = self.listen();
        let mut mine: BTreeMap<i64, Mine> = BTreeMap::new();
        let (sender, mut news) = Proxy::news();
        let mut asking = true;
        // A client that waits for progress, up to which revision; and whether all or each of its watches are to be named.
        let mut wanted: Option<(i64, bool)> = None;
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        let mut notices = tokio::time::interval(self.options.progress_interval);
        notices.reset();
        let say = |revision: i64, watched: Watched, events: Vec<Bytes>| {
            outbox.send(reply::watch(&self.header(revision), &watched, events))
        };
        loop {
            tokio::select! {
                biased;
                Some(told) = news.recv() => {
                    let watched = Watched { watch_id: told.local, ..Watched::default() };
                    match told.news {
                        News::Events(revision, bytes) if mine.contains_key(&told.local) => {
                            say(revision, watched, vec![bytes]).await;
                        }
                        News::Compacted(compact_revision) if mine.remove(&told.local).is_some() => {
                            self.forget(listening.stream, told.local);
                            say(0, Watched { canceled: true, compact_revision, ..watched }, Vec::new()).await;
                        }
                        News::Events(..) | News::Compacted(_) => {}
                    }
                }
                asked = inbox.next(), if asking => match asked? {
                    None => asking = false,
                    Some(body) => {
                        let request: pb::WatchRequest = decode(body)?;
                        match request.request_union {
                            Some(RequestUnion::CreateRequest(create)) => {
                                let create = watch_request(create);
                                let revision = proxy.read_revision().await.map_err(Status::from)?;
                                match self.name(listening.stream, &create) {
                                    Ok(local) => {
                                        say(revision, Watched { watch_id: local, created: true, ..Watched::default() }, Vec::new()).await;
                                        let start_revision = match create.start_revision {
                                            0 => revision + 1,
                                            given => given,
                                        };
                                        let notify = create.flags.progress_notify;
                                        let request = WatchRequest { start_revision, ..create };
                                        let watch = proxy.watch(local, request, sender.clone()).map_err(Status::from)?;
                                        mine.insert(local, Mine { watch, notify });
                                    }
                                    Err(reason) => {
                                        let refused = Watched { watch_id: -1, created: true, canceled: true, reason, ..Watched::default() };
                                        say(revision, refused, Vec::new()).await;
                                    }
                                }
                            }
                            Some(RequestUnion::CancelRequest(cancel)) if mine.remove(&cancel.watch_id).is_some() => {
                                self.forget(listening.stream, cancel.watch_id);
                                let canceled = Watched { watch_id: cancel.watch_id, canceled: true, ..Watched::default() };
                                say(proxy.revision(), canceled, Vec::new()).await;
                            }
                            Some(RequestUnion::ProgressRequest(_)) if !mine.is_empty() => {
                                let revision = proxy.read_revision().await.map_err(Status::from)?;
                                wanted = Some((revision, false));
                                proxy.ask_progress();
                            }
                            _ => {}
                        }
                    }
                },
                _ = ticks.tick(), if wanted.is_some() => {
                    let Some((revision, each)) = wanted else { continue };
                    if mine.values().any(|it| it.watch.agreed() < revision) {
                        proxy.ask_progress();
                        continue;
                    }
                    wanted = None;
                    // What was agreed upon is in the channel, and goes first.
                    while let Ok(told) = news.try_recv() {
                        if let News::Events(revision, bytes) = told.news && mine.contains_key(&told.local) {
                            say(revision, Watched { watch_id: told.local, ..Watched::default() }, vec![bytes]).await;
                        }
                    }
                    let named: Vec<i64> = match each {
                        true => mine.iter().filter(|(_, it)| it.notify).map(|(local, _)| *local).collect(),
                        false => vec![-1],
                    };
                    for watch_id in named {
                        say(revision, Watched { watch_id, ..Watched::default() }, Vec::new()).await;
                    }
                }
                _ = notices.tick(), if wanted.is_none() && mine.values().any(|it| it.notify) => {
                    let revision = proxy.read_revision().await.map_err(Status::from)?;
                    wanted = Some((revision, true));
                    proxy.ask_progress();
                }
            }
        }
    }

    /// A name for a watch on this stream, or why it cannot be.
    fn name(&self, stream: synod_kv::watch::StreamId, request: &WatchRequest) -> Result<i64, String> {
        // In the future nothing happens: the hub's own watch stays silent.
        let start_revision = if request.start_revision < 0 { -1 } else { i64::MAX };
        let mut store = self.backend.store().write();
        store.hub().create(stream, &WatchRequest { start_revision, ..request.clone() });
        loop {
            match store.hub().poll(stream) {
                Some(WatchOutput::Created { watch_id, .. }) => return Ok(watch_id),
                Some(WatchOutput::Refused { reason, .. }) => return Err(reason.to_string()),
                Some(_) => {}
                None => return Err("etcdserver: watch canceled".to_owned()),
            }
        }
    }

    fn forget(&self, stream: synod_kv::watch::StreamId, watch: i64) {
        let mut store = self.backend.store().write();
        store.hub().cancel(stream, watch);
        while store.hub().poll(stream).is_some() {}
    }
}
