//! The Maintenance service.

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use synod_api::etcdserverpb as pb;
use synod_core::{NodeId, Role};
use synod_kv::op::{Alarm, AlarmAction, AlarmKind, Op, OpReply};

use super::backend::{Backend, Failure, Image};
use super::payload::Payload;
use super::stream::{Inbox, Outbox, no_request};
use super::{Service, decode, elsewhere, mismatched};
use crate::contract::{Call, Level};
use crate::status::{Code, Status};

/// A snapshot travels in pieces of this size.
const SNAPSHOT_PIECE: usize = 32 * 1024;

/// etcdctl wants the size of a snapshot, without its hash, to be a multiple of this.
const SNAPSHOT_SECTOR: u64 = 512;

impl<B: Backend> Service<B> {
    pub(super) fn status(&self, body: Bytes) -> Result<Payload, Status> {
        let _: pb::StatusRequest = decode(body)?;
        let standing = self.backend.standing();
        let store = self.backend.store().read();
        let mut errors = Vec::new();
        if standing.keeper.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        for alarm in store.alarms() {
            let kind = alarm_type(alarm.kind).as_str_name();
            errors.push(format!("memberID:{} alarm:{kind}", alarm.member));
        }
        let minor = self.options.version.rsplit_once('.').map_or(self.options.version, |(minor, _)| minor);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Payload::encode(&pb::StatusResponse {
            header: Some(self.header(store.revision()).message()),
            version: self.options.version.to_owned(),
            db_size: bytes(store.size_held().max(store.size())),
            leader: standing.leader.map_or(0, |leader| leader.0),
            raft_index: standing.decided,
            raft_term: standing.term,
            raft_applied_index: standing.applied,
            errors,
            db_size_in_use: bytes(store.size()),
            is_learner: standing.role == Role::Learner,
            storage_version: format!("{minor}.0"),
            db_size_quota: bytes(store.quota()),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    pub(super) async fn alarm(&self, body: Bytes) -> Result<Payload, Status> {
        use pb::alarm_request::AlarmAction as Action;
        let request: pb::AlarmRequest = decode(body)?;
        let unknown =
            |what: &str| Status::new(Code::InvalidArgument, format!("etcdserver: unknown alarm {what}"));
        let action = Action::try_from(request.action).map_err(|_| unknown("action"))?;
        let kind = match pb::AlarmType::try_from(request.alarm).map_err(|_| unknown("type"))? {
            pb::AlarmType::None => None,
            pb::AlarmType::Nospace => Some(AlarmKind::NoSpace),
            pb::AlarmType::Corrupt => Some(AlarmKind::Corrupt),
        };
        let (revision, alarms) = match (action, kind) {
            (Action::Get, kind) => {
                self.fence_if_any().await?;
                let store = self.backend.store().read();
                let chosen = store.alarms().iter().filter(|alarm| kind.is_none_or(|kind| kind == alarm.kind));
                (store.revision(), chosen.copied().collect())
            }
            (Action::Activate | Action::Deactivate, None) => (self.header_now().revision, Vec::new()),
            (action, Some(kind)) => {
                let alarm = Alarm { member: request.member_id, kind };
                let action = match action {
                    Action::Activate => AlarmAction::Activate(alarm),
                    _ => AlarmAction::Deactivate(alarm),
                };
                match self.propose(Op::Alarm(action)).await? {
                    (revision, OpReply::Alarm(alarms)) => (revision, alarms),
                    (_, other) => return Err(mismatched(&other)),
                }
            }
        };
        let alarms = alarms.into_iter().map(|alarm: Alarm| pb::AlarmMember {
            member_id: alarm.member,
            alarm: alarm_type(alarm.kind) as i32,
        });
        let header = Some(self.header(revision).message());
        Ok(Payload::encode(&pb::AlarmResponse { header, alarms: alarms.collect() }))
    }

    pub(super) async fn defragment(&self, body: Bytes) -> Result<Payload, Status> {
        let _: pb::DefragmentRequest = decode(body)?;
        self.backend.defragment().await.map_err(Status::from)?;
        Ok(Payload::encode(&pb::DefragmentResponse { header: None }))
    }

    /// A number for the whole state; for tests, like etcd's, and like there not comparable between versions.
    pub(super) async fn hash(&self, body: Bytes) -> Result<Payload, Status> {
        let _: pb::HashRequest = decode(body)?;
        let store = self.backend.store().read();
        let digest = store.digest();
        let header = Some(self.header(store.revision()).message());
        Ok(Payload::encode(&pb::HashResponse { header, hash: (digest ^ (digest >> 32)) as u32 }))
    }

    pub(super) async fn hash_kv(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::HashKvRequest = decode(body)?;
        self.allow(Call::HashKv, Level::Linearizable)?;
        let view = self.backend.store().write().freeze_view();
        let header = self.header(view.revision());
        // The whole history may be looked at: elsewhere, so that nobody waits for it.
        let hash = elsewhere(move || view.hash_kv(request.revision)).await??;
        Ok(Payload::encode(&pb::HashKvResponse {
            header: Some(header.message()),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    }

    pub(super) async fn move_leader(&self, body: Bytes) -> Result<Payload, Status> {
        let request: pb::MoveLeaderRequest = decode(body)?;
        self.allow(Call::Transfer, Level::Linearizable)?;
        self.backend.move_leader(NodeId(request.target_id)).await.map_err(Status::from)?;
        Ok(Payload::encode(&pb::MoveLeaderResponse { header: None }))
    }

    /// Sends the image of the state in pieces, padded to whole sectors, and at last its hash.
    pub(super) async fn snapshot(&self, mut inbox: Inbox, outbox: Outbox) -> Result<(), Status> {
        let Some(body) = inbox.next().await? else { return Err(no_request()) };
        let _: pb::SnapshotRequest = decode(body)?;
        let Image { bytes, mut pieces } = self.backend.snapshot().await.map_err(Status::from)?;
        let minor = self.options.version.rsplit_once('.').map_or(self.options.version, |(minor, _)| minor);
        let version = format!("{minor}.0");
        let padded = bytes.next_multiple_of(SNAPSHOT_SECTOR);
        let mut hash = Sha256::new();
        let mut left = padded;
        let mut held = BytesMut::new();
        let mut received = 0;
        loop {
            let ended = match pieces.recv().await {
                Some(piece) => {
                    let piece = piece.map_err(|error| Status::from(Failure::Io(error.to_string())))?;
                    received += piece.len() as u64;
                    held.extend_from_slice(&piece);
                    false
                }
                None => {
                    if received != bytes {
                        let why = format!("synod: the snapshot ended after {received} of {bytes} bytes");
                        return Err(Status::new(Code::Internal, why));
                    }
                    held.resize(held.len() + (padded - bytes) as usize, 0);
                    true
                }
            };
            while held.len() >= SNAPSHOT_PIECE || (ended && !held.is_empty()) {
                let blob = held.split_to(held.len().min(SNAPSHOT_PIECE)).freeze();
                hash.update(&blob);
                left = left.saturating_sub(blob.len() as u64);
                // The hash is still to come.
                let remaining_bytes = left + 32;
                let reply =
                    pb::SnapshotResponse { header: None, remaining_bytes, blob, version: version.clone() };
                outbox.send(Payload::encode(&reply)).await;
            }
            if ended {
                let blob = Bytes::copy_from_slice(&hash.finalize());
                let reply = pb::SnapshotResponse { header: None, remaining_bytes: 0, blob, version };
                outbox.send(Payload::encode(&reply)).await;
                return Ok(());
            }
        }
    }
}

fn alarm_type(kind: AlarmKind) -> pb::AlarmType {
    match kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    }
}
