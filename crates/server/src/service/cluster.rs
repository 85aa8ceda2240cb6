//! The Cluster service, and what of Auth has a truthful answer without users.
//!
//! A member is added in two steps: first its addresses are published, through the log like any command, so that everybody can reach
//! it; then the configuration takes it in. It is removed in the opposite order. Upstream's guards stand in front: a change that
//! would leave too few running members is refused (`--strict-reconfig-check`).

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use synod_api::etcdserverpb as pb;
use synod_core::{Change, NodeId};
use synod_kv::op::{MemberAttributes, Op};

use super::backend::{Backend, MemberInfo};
use super::payload::Payload;
use super::{Service, decode};
use crate::config::Address;
use crate::config::cluster::added_member_id;
use crate::contract::{Call, Level};
use crate::status::{self, Code, Status};

/// `--max-learners`: more would only slow the leader down.
const LEARNERS_MAX: usize = 1;
/// As many as a cluster can be founded with.
const MEMBERS_MAX: usize = 31;
/// Addresses of one member.
const ADDRESSES_MAX: usize = 64;

fn shown(member: MemberInfo) -> pb::Member {
    pb::Member {
        id: member.id.0,
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        is_learner: member.is_learner,
    }
}

fn not_found() -> Status {
    Status::new(Code::NotFound, "etcdserver: member not found")
}

fn refused(sentence: &'static str) -> Status {
    Status::new(Code::FailedPrecondition, sentence)
}

/// The addresses of a request, checked and sorted.
fn addresses(urls: &[String]) -> Result<Vec<Address>, Status> {
    let bad = |why: &str| {
        let sentence = format!("etcdserver: given member URLs are invalid ({why})");
        Status::new(Code::InvalidArgument, sentence)
    };
    if urls.is_empty() || urls.len() > ADDRESSES_MAX {
        return Err(bad(&format!("there are {} of them; allowed are 1 to {ADDRESSES_MAX}", urls.len())));
    }
    let parsed: Result<Vec<_>, _> = urls.iter().map(|url| Address::parse("peer-urls", url)).collect();
    let mut addresses = parsed.map_err(|wrong| bad(&wrong.to_string()))?;
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// Nobody but `but` may be reached there already.
fn check_free(members: &[MemberInfo], addresses: &[Address], but: Option<NodeId>) -> Result<(), Status> {
    let taken = |member: &MemberInfo| {
        Some(member.id) != but && addresses.iter().any(|url| member.peer_urls.contains(&url.to_string()))
    };
    if members.iter().any(taken) { Err(refused("etcdserver: Peer URLs already exists")) } else { Ok(()) }
}

/// Whether a member has run at least once, as far as it has been published.
fn has_started(member: &MemberInfo) -> bool {
    !member.client_urls.is_empty()
}

impl<B: Backend> Service<B> {
    pub(super) async fn member_list(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::MemberListRequest = decode(body)?;
        if request.linearizable {
            self.fence_if_any().await?;
        }
        // The headers of this service carry no revision.
        let header = Some(self.header(0).message());
        Ok(Payload::encode(&pb::MemberListResponse { header, members: self.members() }))
    }

    fn members(&self) -> Vec<pb::Member> {
        self.backend.members().into_iter().map(shown).collect()
    }

    /// The members as they are now, after everything that was acknowledged.
    async fn members_now(&self) -> Result<Vec<MemberInfo>, Status> {
        self.fence_if_any().await?;
        Ok(self.backend.members())
    }

    pub(super) async fn member_add(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::MemberAddRequest = decode(body)?;
        self.allow(Call::Reconfigure, Level::Linearizable)?;
        let addresses = addresses(&request.peer_urls)?;
        let members = self.members_now().await?;
        check_free(&members, &addresses, None)?;
        if members.len() >= MEMBERS_MAX {
            let sentence = format!("synod: a cluster has at most {MEMBERS_MAX} members");
            return Err(Status::new(Code::FailedPrecondition, sentence));
        }
        if request.is_learner {
            if members.iter().filter(|member| member.is_learner).count() >= LEARNERS_MAX {
                return Err(refused("etcdserver: too many learner members in cluster"));
            }
        } else {
            let voters: Vec<_> = members.iter().filter(|member| !member.is_learner).collect();
            let started = voters.iter().filter(|member| has_started(member)).count();
            // The new one does not run yet, and counts from the moment it is in.
            // A protocol may count it before the change is decided: of two, one that never ran would keep the other from deciding.
            if voters.len() == 1 {
                return Err(refused(
                    "synod: add the second member as a learner (--learner), start it, and promote it: with two voters nothing is decided without both",
                ));
            }
            if self.options.strict_reconfig && started < voters.len().div_ceil(2) + 1 {
                return Err(status::not_enough_started());
            }
        }
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let id = added_member_id(&addresses, self.backend.identity().cluster, nanos);
        let peer_urls: Vec<String> = addresses.iter().map(Address::to_string).collect();
        let attributes = MemberAttributes { peer_urls: peer_urls.clone(), ..MemberAttributes::default() };
        self.propose(Op::MemberPublish { node: id.0, attributes }).await?;
        let change = if request.is_learner { Change::AddLearner(id) } else { Change::AddVoter(id) };
        if let Err(failure) = self.backend.change_members(change).await {
            // Whether or not this comes through, nobody listens to somebody who is not in the configuration.
            let forgotten = self.propose(Op::MemberForget { node: id.0 }).await;
            tracing::warn!(member = %id, ?failure, ?forgotten, "a member was not added");
            return Err(failure.into());
        }
        self.fence_if_any().await?;
        let member = pb::Member { id: id.0, peer_urls, is_learner: request.is_learner, ..Default::default() };
        let header = Some(self.header(0).message());
        Ok(Payload::encode(&pb::MemberAddResponse { header, member: Some(member), members: self.members() }))
    }

    pub(super) async fn member_remove(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::MemberRemoveRequest = decode(body)?;
        self.allow(Call::Reconfigure, Level::Linearizable)?;
        let members = self.members_now().await?;
        let gone = members.iter().find(|member| member.id.0 == request.id).ok_or_else(not_found)?;
        if self.options.strict_reconfig && !gone.is_learner {
            let left: Vec<_> =
                members.iter().filter(|member| !member.is_learner && member.id != gone.id).collect();
            let started = left.iter().filter(|member| has_started(member)).count();
            if started < left.len() / 2 + 1 {
                return Err(status::not_enough_started());
            }
        }
        self.backend.change_members(Change::Remove(gone.id)).await?;
        self.propose(Op::MemberForget { node: request.id }).await?;
        let header = Some(self.header(0).message());
        Ok(Payload::encode(&pb::MemberRemoveResponse { header, members: self.members() }))
    }

    pub(super) async fn member_update(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::MemberUpdateRequest = decode(body)?;
        self.allow(Call::Reconfigure, Level::Linearizable)?;
        let addresses = addresses(&request.peer_urls)?;
        let members = self.members_now().await?;
        let member = members.iter().find(|member| member.id.0 == request.id).ok_or_else(not_found)?;
        check_free(&members, &addresses, Some(member.id))?;
        let attributes = MemberAttributes {
            name: member.name.clone(),
            client_urls: member.client_urls.clone(),
            peer_urls: addresses.iter().map(Address::to_string).collect(),
        };
        self.propose(Op::MemberPublish { node: request.id, attributes }).await?;
        let header = Some(self.header(0).message());
        Ok(Payload::encode(&pb::MemberUpdateResponse { header, members: self.members() }))
    }

    pub(super) async fn member_promote(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::MemberPromoteRequest = decode(body)?;
        self.allow(Call::Reconfigure, Level::Linearizable)?;
        let members = self.members_now().await?;
        let member = members.iter().find(|member| member.id.0 == request.id).ok_or_else(not_found)?;
        if !member.is_learner {
            return Err(status::no_learner());
        }
        self.backend.change_members(Change::AddVoter(member.id)).await?;
        self.fence_if_any().await?;
        let header = Some(self.header(0).message());
        Ok(Payload::encode(&pb::MemberPromoteResponse { header, members: self.members() }))
    }

    pub(super) fn auth_status(&self, body: Bytes) -> Result<Payload, Status> {
        let _: pb::AuthStatusRequest = decode(body)?;
        let header = Some(self.header_now().message());
        Ok(Payload::encode(&pb::AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
    }
}
