//! The Lease service. What a lease is, the store knows; how much of it is left, the leader knows.

use std::hash::BuildHasher;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use synod_api::etcdserverpb as pb;
use synod_kv::lessor::ttl_min;
use synod_kv::op::{Op, OpReply};

use super::backend::Backend;
use super::payload::Payload;
use super::stream::{Inbox, Outbox};
use super::{Service, decode};
use crate::contract::{Call, Level};
use crate::status::{self, Status};

/// A random id that is taken already is replaced by another one so many times: with 63 random bits, once is rare.
const ID_TRIES_MAX: usize = 4;

impl<B: Backend> Service<B> {
    pub(super) async fn lease_grant(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::LeaseGrantRequest = decode(body)?;
        self.allow(Call::Lease, Level::Linearizable)?;
        let (revision, id, ttl) = self.grant(request.id, request.ttl).await?;
        let header = Some(self.header(revision).message());
        Ok(Payload::encode(&pb::LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    /// Grants a lease, of this id or, for 0, of one that nobody has: the revision, the id, and the seconds that were granted.
    pub(super) async fn grant(&self, id: i64, ttl: i64) -> Result<(i64, i64, i64), Status> {
        let ttl = ttl.max(ttl_min(self.options.election_timeout));
        let mut tries = 0;
        let (revision, reply) = loop {
            let op = Op::LeaseGrant { id: if id == 0 { random_id() } else { id }, ttl };
            op.validate(self.options.txn_ops_max)?;
            tries += 1;
            match self.propose(op).await {
                Err(taken) if id == 0 && taken == status::lease_exists() && tries < ID_TRIES_MAX => {}
                outcome => break outcome?,
            }
        };
        let OpReply::LeaseGrant { id, ttl } = reply else { return Err(super::mismatched(&reply)) };
        Ok((revision, id, ttl))
    }

    pub(super) async fn lease_revoke(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::LeaseRevokeRequest = decode(body)?;
        self.allow(Call::Lease, Level::Linearizable)?;
        let (revision, _) = self.propose(Op::LeaseRevoke { id: request.id }).await?;
        Ok(Payload::encode(&pb::LeaseRevokeResponse { header: Some(self.header(revision).message()) }))
    }

    pub(super) async fn lease_time_to_live(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::LeaseTimeToLiveRequest = decode(body)?;
        self.allow(Call::Lease, Level::Linearizable)?;
        if request.keys {
            // What a client attached anywhere before must be among the keys.
            self.fence_if_any().await?;
        }
        let time = self.backend.lease_time(request.id).await.map_err(Status::from)?;
        let mut reply = pb::LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() };
        if let Some(time) = time {
            reply.ttl = i64::try_from(time.remaining.as_secs()).unwrap_or(i64::MAX);
            reply.granted_ttl = time.granted;
        }
        let store = self.backend.store().read();
        if let (true, Some(_), Some(lease)) = (request.keys, time, store.leases().get(request.id)) {
            reply.keys = lease.keys.iter().map(|key| Bytes::copy_from_slice(key)).collect();
        }
        reply.header = Some(self.header(store.revision()).message());
        Ok(Payload::encode(&reply))
    }

    pub(super) fn lease_leases(&self, body: Bytes) -> Result<Payload, Status> {
        let _: pb::LeaseLeasesRequest = decode(body)?;
        self.allow(Call::Lease, Level::Linearizable)?;
        let leases = self.backend.leases().into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Payload::encode(&pb::LeaseLeasesResponse { header: Some(self.header_now().message()), leases }))
    }

    /// One reply for each request, in order; a lease that does not exist is answered with no time left.
    pub(super) async fn lease_keep_alive(&self, mut inbox: Inbox, outbox: Outbox) -> Result<(), Status> {
        while let Some(body) = inbox.next().await? {
            let request: pb::LeaseKeepAliveRequest = decode(body)?;
            self.allow(Call::Lease, Level::Linearizable)?;
            // The revision is taken before: a reader at that revision then surely finds the lease's keys.
            let header = Some(self.header_now().message());
            let ttl = self.backend.renew_lease(request.id).await.map_err(Status::from)?.unwrap_or(0);
            if ttl > 0 {
                self.metrics.leases_renewed.fetch_add(1, Relaxed);
            }
            outbox.send(Payload::encode(&pb::LeaseKeepAliveResponse { header, id: request.id, ttl })).await;
        }
        Ok(())
    }
}

/// A positive id that nobody has, as far as chance goes.
fn random_id() -> i64 {
    // The hasher's seed differs for each process and each hasher; the time sets apart what it does not.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let hash = std::hash::RandomState::new().hash_one(now);
    ((hash >> 1) as i64).max(1)
}
