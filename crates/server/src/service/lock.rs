//! The Lock service: whoever is in front of a line holds the lock of its name.

use bytes::Bytes;
use synod_api::v3lockpb as pb;
use synod_kv::op::{DeleteRange, Op};

use super::backend::Backend;
use super::metadata::Metadata;
use super::payload::Payload;
use super::{Service, decode};
use crate::status::{self, Status};

impl<B: Backend> Service<B> {
    /// Answers when the lock is held, which may take as long as the client likes.
    pub(super) async fn lock(&self, metadata: &Metadata, body: Bytes) -> Result<Payload, Status> {
        self.check_size(&body)?;
        let request: pb::LockRequest = decode(body)?;
        let mut ticket = self.stand_in_line(&request.name, request.lease, Bytes::new()).await?;
        self.wait_in_line(&ticket, metadata, status::lock_lost).await?;
        ticket.keep();
        let header = Some(self.header_now().message());
        Ok(Payload::encode(&pb::LockResponse { header, key: ticket.key.clone() }))
    }

    /// Deletes the key; one that is not there any more is no error.
    pub(super) async fn unlock(&self, body: Bytes) -> Result<Payload, Status> {
        self.check_size(&body)?;
        let request: pb::UnlockRequest = decode(body)?;
        self.allow_line()?;
        let delete = DeleteRange { key: request.key, ..DeleteRange::default() };
        delete.validate()?;
        let (revision, _) = self.propose(Op::DeleteRange(delete)).await?;
        Ok(Payload::encode(&pb::UnlockResponse { header: Some(self.header(revision).message()) }))
    }
}
