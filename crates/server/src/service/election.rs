//! The Election service: whoever is in front of a line leads, and says something while it does.

use bytes::Bytes;
use prost::Message;
use synod_api::etcdserverpb::WatchResponse;
use synod_api::mvccpb::KeyValue;
use synod_api::mvccpb::event::EventType;
use synod_api::v3electionpb as pb;
use synod_kv::op::{Op, OpReply, Put, PutFlags};
use synod_kv::view::View;
use synod_kv::watch::{WatchOutput, WatchRequest};

use super::backend::Backend;
use super::line::{self, Line};
use super::metadata::Metadata;
use super::payload::Payload;
use super::stream::{Inbox, Outbox};
use super::{Service, decode};
use crate::status::{self, Status};

impl<B: Backend> Service<B> {
    /// Answers when the candidate leads, which may take as long as the client likes.
    pub(super) async fn campaign(&self, metadata: &Metadata, body: Bytes) -> Result<Payload, Status> {
        self.check_size(&body)?;
        let request: pb::CampaignRequest = decode(body)?;
        let mut ticket = self.stand_in_line(&request.name, request.lease, request.value.clone()).await?;
        if ticket.found.as_ref().is_some_and(|said| *said != request.value) {
            self.say_as(&ticket.key, ticket.revision, ticket.lease, request.value).await?;
        }
        self.wait_in_line(&ticket, metadata, status::not_elected).await?;
        ticket.keep();
        let leader = pb::LeaderKey {
            name: request.name,
            key: ticket.key.clone(),
            rev: ticket.revision,
            lease: ticket.lease,
        };
        let header = Some(self.header_now().message());
        Ok(Payload::encode(&pb::CampaignResponse { header, leader: Some(leader) }))
    }

    /// Says something else, as long as the key is the one that was elected.
    pub(super) async fn proclaim(&self, body: Bytes) -> Result<Payload, Status> {
        self.check_size(&body)?;
        let request: pb::ProclaimRequest = decode(body)?;
        let leader = request.leader.ok_or_else(status::leader_missing)?;
        self.allow_line()?;
        let revision = self.say_as(&leader.key, leader.rev, leader.lease, request.value).await?;
        Ok(Payload::encode(&pb::ProclaimResponse { header: Some(self.header(revision).message()) }))
    }

    async fn say_as(&self, key: &Bytes, created: i64, lease: i64, value: Bytes) -> Result<i64, Status> {
        // Who does not name its lease keeps the one that the key has.
        let flags = PutFlags { ignore_lease: lease == 0, ..PutFlags::default() };
        let put = Put { key: key.clone(), value, lease, flags };
        put.validate()?;
        let (revision, reply) = self.propose(line::put_if(put, created)).await?;
        match reply {
            OpReply::Txn(txn) if txn.succeeded => Ok(revision),
            OpReply::Txn(_) => Err(status::not_elected()),
            other => Err(super::mismatched(&other)),
        }
    }

    /// Who leads at the moment.
    pub(super) async fn leader(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::LeaderRequest = decode(body)?;
        self.allow_line()?;
        self.fence().await?;
        let (leader, revision) = {
            let store = self.backend.store().read();
            store.check_readable()?;
            (in_front(store.view(), &Line::of(&request.name)), store.revision())
        };
        let kv = Some(leader.ok_or_else(status::nobody_elected)?);
        Ok(Payload::encode(&pb::LeaderResponse { header: Some(self.header(revision).message()), kv }))
    }

    /// Ends a leadership; one that has ended already is no error.
    pub(super) async fn resign(&self, body: Bytes) -> Result<Payload, Status> {
        self.check_size(&body)?;
        let request: pb::ResignRequest = decode(body)?;
        let leader = request.leader.ok_or_else(status::leader_missing)?;
        self.allow_line()?;
        let op: Op = line::delete_if(leader.key, leader.rev);
        op.validate(self.options.txn_ops_max)?;
        let (revision, _) = self.propose(op).await?;
        Ok(Payload::encode(&pb::ResignResponse { header: Some(self.header(revision).message()) }))
    }

    /// Tells who leads and what it says, again and again. A leader that comes and goes while the client does not read may be
    /// missed, as upstream; what one leader says is told in order.
    pub(super) async fn observe(&self, mut inbox: Inbox, outbox: Outbox) -> Result<(), Status> {
        let Some(body) = inbox.next().await? else { return Err(super::stream::no_request()) };
        let request: pb::LeaderRequest = decode(body)?;
        self.allow_line()?;
        self.fence().await?;
        let line = Line::of(&request.name);
        loop {
            let Seen { revision, kv, next } = self.seen_in_front(&line).await?;
            let watch = WatchRequest { start_revision: next, ..watch_of(kv.key.clone()) };
            self.tell(&outbox, revision, kv).await;
            let listening = self.listen();
            self.backend.store().write().hub().create(listening.stream, &watch);
            // Anything but events ends the watch: what it wanted is compacted, or was taken back. Then the store tells.
            'leads: while let WatchOutput::Events { revision, batches, .. } = listening.next().await {
                for batch in batches {
                    for event in decode::<WatchResponse>(batch.bytes.clone())?.events {
                        match (event.r#type(), event.kv) {
                            (EventType::Put, Some(kv)) => self.tell(&outbox, revision, kv).await,
                            _ => break 'leads,
                        }
                    }
                }
            }
        }
    }

    async fn tell(&self, outbox: &Outbox, revision: i64, kv: KeyValue) {
        let header = Some(self.header(revision).message());
        outbox.send(Payload::encode(&pb::LeaderResponse { header, kv: Some(kv) })).await;
    }

    /// Who is in front of a line; where nobody is, who comes first.
    async fn seen_in_front(&self, line: &Line) -> Result<Seen, Status> {
        loop {
            let listening = self.listen();
            {
                let mut store = self.backend.store().write();
                store.check_readable()?;
                let revision = store.revision();
                if let Some(kv) = in_front(store.view(), line) {
                    return Ok(Seen { revision, kv, next: revision + 1 });
                }
                store.hub().create(listening.stream, &line.arrivals());
            }
            let WatchOutput::Events { batches, .. } = listening.next().await else { continue };
            for batch in batches {
                let events = decode::<WatchResponse>(batch.bytes.clone())?.events;
                if let Some(kv) = events.into_iter().find_map(|event| event.kv) {
                    let revision = kv.mod_revision;
                    return Ok(Seen { revision, kv, next: revision + 1 });
                }
            }
        }
    }
}

/// A leader as it was seen.
struct Seen {
    /// For the header.
    revision: i64,
    kv: KeyValue,
    /// What it says from here on was not seen.
    next: i64,
}

fn watch_of(key: Bytes) -> WatchRequest {
    WatchRequest { key, ..WatchRequest::default() }
}

fn in_front(view: &View, line: &Line) -> Option<KeyValue> {
    let found = view.range(&line.front()).ok()?;
    let pair = found.kvs.encoded().next()?;
    KeyValue::decode(pair).ok()
}
