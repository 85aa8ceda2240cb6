//! Is this member well? For load balancers over HTTP, and for gRPC's own health check.

use bytes::Bytes;
use synod_api::health::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use synod_core::Role;
use synod_kv::op::AlarmKind;

use super::backend::{Backend, Failure};
use super::payload::Payload;
use super::stream::{Inbox, Outbox, no_request};
use super::{Service, decode};
use crate::status::{Code, Status};

/// How far a health check goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Only this member is looked at.
    Local,
    /// The cluster must answer.
    Linearizable,
}

/// One thing that `/livez` or `/readyz` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// No CORRUPT alarm is up.
    DataCorruption,
    /// A read of this member.
    SerializableRead,
    /// A read through the cluster.
    LinearizableRead,
    /// This member has a vote.
    NonLearner,
}

impl Check {
    /// What `/livez` looks at: whether a restart would help.
    pub const LIVE: [Check; 1] = [Check::SerializableRead];
    /// What `/readyz` looks at: whether traffic should come here.
    pub const READY: [Check; 4] =
        [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

    /// The name, in paths and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }
}

impl<B: Backend> Service<B> {
    /// Makes one check.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::DataCorruption => {
                let store = self.backend.store().read();
                match store.alarms().iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
                    true => Err("alarm activated: CORRUPT".to_owned()),
                    false => Ok(()),
                }
            }
            // Upstream reads a key that need not exist; that the store can be locked and read says the same.
            Check::SerializableRead => {
                self.backend.store().read().check_readable().map_err(|error| error.to_string())
            }
            Check::LinearizableRead => self.readable().await.map_err(|status| status.message.into_owned()),
            Check::NonLearner => match self.backend.standing().role {
                Role::Learner => Err("not supported for learner".to_owned()),
                _ => Ok(()),
            },
        }
    }

    /// etcd's `/health`: no alarm but the excluded ones, a leader, and a read.
    ///
    /// # Errors
    /// The reason, in etcd's words.
    pub async fn health(&self, freshness: Freshness, excluded: &[&str]) -> Result<(), String> {
        let alarm = {
            let store = self.backend.store().read();
            let names = store.alarms().iter().map(|alarm| match alarm.kind {
                AlarmKind::NoSpace => "NOSPACE",
                AlarmKind::Corrupt => "CORRUPT",
            });
            names.into_iter().find(|name| !excluded.contains(name))
        };
        if let Some(name) = alarm {
            return Err(format!("ALARM {name}"));
        }
        if self.backend.standing().keeper.is_none() {
            return Err("RAFT NO LEADER".to_owned());
        }
        match freshness {
            Freshness::Local => Ok(()),
            Freshness::Linearizable => {
                self.readable().await.map_err(|status| format!("RANGE ERROR:{}", status.message))
            }
        }
    }

    /// The freshest read that the protocol has works.
    async fn readable(&self) -> Result<(), Status> {
        match self.backend.fence().await {
            Err(Failure::Unsupported(_)) => Ok(self.backend.store().read().check_readable()?),
            outcome => Ok(outcome?),
        }
    }

    pub(super) fn health_check(&self, body: Bytes) -> Result<Payload, Status> {
        let request: HealthCheckRequest = decode(body)?;
        if !request.service.is_empty() {
            return Err(Status::new(Code::NotFound, "unknown service"));
        }
        Ok(serving(ServingStatus::Serving))
    }

    /// Tells the status, and then nothing, because nothing changes until the stream ends with the member.
    pub(super) async fn health_watch(&self, mut inbox: Inbox, outbox: Outbox) -> Result<(), Status> {
        let Some(body) = inbox.next().await? else { return Err(no_request()) };
        let request: HealthCheckRequest = decode(body)?;
        let status =
            if request.service.is_empty() { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        outbox.send(serving(status)).await;
        std::future::pending().await
    }
}

fn serving(status: ServingStatus) -> Payload {
    Payload::encode(&HealthCheckResponse { status: status as i32 })
}
