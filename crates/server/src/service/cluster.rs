//! The Cluster service, as far as this release has it, and what of Auth has a truthful answer without users.

use bytes::Bytes;
use synod_api::etcdserverpb as pb;

use super::backend::Backend;
use super::payload::Payload;
use super::{Service, decode};
use crate::status::Status;

impl<B: Backend> Service<B> {
    pub(super) async fn member_list(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::MemberListRequest = decode(body)?;
        if request.linearizable {
            self.fence_if_any().await?;
        }
        let members = self.backend.members().into_iter().map(|member| pb::Member {
            id: member.id.0,
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            is_learner: member.is_learner,
        });
        // The headers of this service carry no revision.
        let header = Some(self.header(0).message());
        Ok(Payload::encode(&pb::MemberListResponse { header, members: members.collect() }))
    }

    pub(super) fn auth_status(&self, body: Bytes) -> Result<Payload, Status> {
        let _: pb::AuthStatusRequest = decode(body)?;
        let header = Some(self.header_now().message());
        Ok(Payload::encode(&pb::AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
    }
}
