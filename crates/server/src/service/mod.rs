//! What each method means, on top of a replica.
//!
//! [`Service::unary`] is the one boundary under all transports: a method and the bytes of its request in, the bytes of its reply
//! out. [`Service::stream`] is the same for methods with many messages. A method that this release does not have is refused
//! by name: see [`is_supported`].

pub(crate) mod admission;
pub mod backend;
pub mod bell;
mod by_vote;
mod cluster;
mod election;
pub mod intake;
mod kv;
pub(crate) mod lane;
mod lease;
mod levels;
mod line;
mod lock;
mod maintenance;
pub mod metadata;
pub mod payload;
pub mod probe;
mod process;
mod reflection;
pub mod session;
pub mod stream;
mod testify;
pub(crate) mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use synod_api::Method;
use synod_core::Role;
use synod_kv::op::{Op, OpReply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::admission::{Admission, Admitted, READS_MAX};
use self::backend::Backend;
use self::intake::{BACKLOG_BYTES_MAX, INTAKE_BYTES_MAX, Intake};
pub use self::levels::{CONFIRMATIONS, says_confirmations};
use self::metadata::Metadata;
use self::payload::Payload;
use self::stream::{Handler, Inbox, Outbox};
use crate::convert::reply::Header;
use crate::metrics::{Metrics, Page};
use crate::status::{self, Code, Status};

/// What an operator chooses about the services.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a request that changes something, at most (`--max-request-bytes`).
    pub request_bytes_max: usize,
    /// Operations in a transaction, at most (`--max-txn-ops`).
    pub txn_ops_max: usize,
    /// How long the cluster may be without a leader; the shortest lease follows from it.
    pub election_timeout: Duration,
    /// Whether changes of the members that leave too few running ones are refused (`--strict-reconfig-check`).
    pub strict_reconfig: bool,
    /// Between two progress notices of an idle watch.
    pub progress_interval: Duration,
    /// Calls of the JSON gateway at once; further ones wait. etcd's gateway is one client of its own server, so that this is
    /// the number of streams on that client's connection.
    pub gateway_calls_max: u32,
    /// The version of etcd whose interface this is: clients decide by it what they may ask for.
    pub version: &'static str,
}

/// The interface that we speak; the newest release of etcd whose every client-visible behaviour is here.
pub const ETCD_VERSION: &str = "3.6.14";

impl Default for Options {
    fn default() -> Self {
        Options {
            request_bytes_max: 1_572_864,
            txn_ops_max: 128,
            election_timeout: Duration::from_secs(1),
            strict_reconfig: true,
            progress_interval: Duration::from_secs(600),
            gateway_calls_max: u32::MAX,
            version: ETCD_VERSION,
        }
    }
}

/// Ranges of many keys that are counted and sorted at a time.
const BROAD_MAX: usize = 2;

/// The services of one member.
pub struct Service<B> {
    backend: Arc<B>,
    options: Options,
    metrics: Arc<Metrics>,
    intake: Arc<Intake>,
    backlog: Arc<Intake>,
    /// How many reads are under way.
    reads: Admission,
    /// Who may prepare a range of many keys.
    broad: Semaphore,
    gateway: Arc<Semaphore>,
    freshness: levels::Freshness,
}

/// Whether this release has a method; the others answer UNIMPLEMENTED.
#[must_use]
pub fn is_supported(method: Method) -> bool {
    match method.service() {
        "etcdserverpb.Auth" => matches!(method, Method::AuthStatus | Method::Authenticate),
        _ => method != Method::Downgrade,
    }
}

fn unsupported(method: Method) -> Status {
    let (service, name) = (method.service(), method.name());
    Status::new(Code::Unimplemented, format!("synod: {service}/{name} is not supported by this release"))
}

/// Decodes a message that is not on the hot path.
fn decode<M: Message + Default>(body: Bytes) -> Result<M, Status> {
    M::decode(body)
        .map_err(|error| Status::new(Code::Internal, format!("grpc: error unmarshalling request: {error}")))
}

/// The store answered another question than was asked.
fn mismatched(reply: &OpReply) -> Status {
    Status::new(Code::Internal, format!("synod: unexpected reply {reply:?}"))
}

impl<B: Backend> Service<B> {
    /// The services on top of `backend`. To be called inside a runtime: idle watches are told of progress by a task
    /// that lives as long as the service.
    pub fn new(backend: Arc<B>, options: Options, metrics: Arc<Metrics>) -> Arc<Service<B>> {
        let gateway_calls = (options.gateway_calls_max as usize).min(Semaphore::MAX_PERMITS);
        let service = Arc::new(Service {
            backend,
            gateway: Arc::new(Semaphore::new(gateway_calls)),
            options,
            metrics,
            intake: Arc::new(Intake::new(INTAKE_BYTES_MAX)),
            backlog: Arc::new(Intake::new(BACKLOG_BYTES_MAX)),
            reads: Admission::new(READS_MAX),
            broad: Semaphore::new(BROAD_MAX),
            freshness: levels::Freshness::new(),
        });
        service.notify_progress(service.options.progress_interval);
        service
    }

    /// What the operator chose.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What is held of unfinished requests.
    #[must_use]
    pub fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// A call's turn at the gateway, once there is one; dropping it ends the turn.
    pub(crate) async fn gateway_turn(&self) -> Option<OwnedSemaphorePermit> {
        self.gateway.clone().acquire_owned().await.ok()
    }

    /// What is held of answers that their clients do not take.
    #[must_use]
    pub fn backlog(&self) -> &Arc<Intake> {
        &self.backlog
    }

    /// The replica.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Carries out a call with one request and one reply.
    ///
    /// # Errors
    /// The status that the client gets.
    pub async fn unary(&self, method: Method, metadata: &Metadata, body: Bytes) -> Result<Payload, Status> {
        let admitted = self.admit(method)?;
        self.carry_out(admitted, method, metadata, body).await
    }

    /// Counts a call in until what comes of it is dropped, or refuses it because too many are under way. Puts and transactions are
    /// counted where they are proposed.
    pub(crate) fn admit(&self, method: Method) -> Result<Option<Admitted<'_>>, Status> {
        match method {
            Method::Range => Ok(Some(self.reads.admit()?)),
            _ => Ok(None),
        }
    }

    /// [`Service::unary`] for a call that was let in.
    pub(crate) async fn carry_out(
        &self,
        admitted: Option<Admitted<'_>>,
        method: Method,
        metadata: &Metadata,
        body: Bytes,
    ) -> Result<Payload, Status> {
        if metadata.leader_required && self.backend.standing().keeper.is_none() {
            return Err(status::no_leader());
        }
        if !metadata.session.is_empty() {
            Box::pin(self.follow(&metadata.session)).await?;
        }
        if let Some(proxy) = self.backend.proxy() {
            return Box::pin(self.by_vote(proxy, method, metadata, body)).await;
        }
        match method {
            // Under too much load most calls end here, and the less each costs, the more is left for the others.
            Method::Put | Method::DeleteRange if self.backend.turns_away() => {
                Err(status::too_many_requests())
            }
            Method::Range => self.range(admitted, metadata, body).await,
            Method::Put => self.put(body).await,
            Method::Txn => self.txn(metadata, body).await,
            Method::DeleteRange => self.delete_range(body).await,
            // The rest is boxed, so that the future of the frequent calls stays small.
            _ => Box::pin(self.seldom(method, metadata, body)).await,
        }
    }

    async fn seldom(&self, method: Method, metadata: &Metadata, body: Bytes) -> Result<Payload, Status> {
        if !is_supported(method) {
            return Err(unsupported(method));
        }
        if !matches!(method, Method::Status | Method::HealthCheck) {
            self.refuse_learner()?;
        }
        match method {
            Method::Compact => self.compact(body).await,
            Method::LeaseGrant => self.lease_grant(body).await,
            Method::LeaseRevoke => self.lease_revoke(body).await,
            Method::LeaseTimeToLive => self.lease_time_to_live(body).await,
            Method::LeaseLeases => self.lease_leases(body),
            Method::Status => self.status(body),
            Method::Alarm => self.alarm(body).await,
            Method::Defragment => self.defragment(body).await,
            Method::Hash => self.hash(body).await,
            Method::HashKv => self.hash_kv(body).await,
            Method::MoveLeader => self.move_leader(body).await,
            Method::MemberList => self.member_list(body).await,
            Method::MemberAdd => self.member_add(body).await,
            Method::MemberRemove => self.member_remove(body).await,
            Method::MemberUpdate => self.member_update(body).await,
            Method::MemberPromote => self.member_promote(body).await,
            Method::AuthStatus => self.auth_status(body),
            Method::Authenticate => {
                Err(Status::new(Code::FailedPrecondition, "etcdserver: authentication is not enabled"))
            }
            Method::Lock => self.lock(metadata, body).await,
            Method::Unlock => self.unlock(body).await,
            Method::Campaign => self.campaign(metadata, body).await,
            Method::Proclaim => self.proclaim(body).await,
            Method::Leader => self.leader(body).await,
            Method::Resign => self.resign(body).await,
            Method::HealthCheck => self.health_check(body),
            // Streams do not come here, and what else there is was refused above.
            _ => Err(unsupported(method)),
        }
    }

    /// Carries out a call with many messages. Nothing happens before the handler is polled.
    pub fn stream(
        self: &Arc<Self>,
        method: Method,
        metadata: Metadata,
        inbox: Inbox,
        outbox: Outbox,
    ) -> Handler {
        let service = self.clone();
        let leader_required = metadata.leader_required;
        let session = metadata.session.clone();
        let proxied = self.backend.proxy().cloned();
        let handler: Handler = match method {
            _ if let Some(proxy) = proxied => {
                Box::pin(async move { service.stream_by_vote(&proxy, method, inbox, outbox).await })
            }
            Method::Watch => Box::pin(async move { service.watch(inbox, outbox).await }),
            Method::LeaseKeepAlive => Box::pin(async move { service.lease_keep_alive(inbox, outbox).await }),
            Method::RangeStream => {
                Box::pin(async move { service.range_stream(&metadata, inbox, outbox).await })
            }
            Method::Snapshot => Box::pin(async move { service.snapshot(inbox, outbox).await }),
            Method::Testify => Box::pin(async move { service.testify(inbox, outbox).await }),
            Method::Observe => Box::pin(async move { service.observe(inbox, outbox).await }),
            Method::HealthWatch => Box::pin(async move { service.health_watch(inbox, outbox).await }),
            Method::Reflection => Box::pin(reflection::serve(inbox, outbox)),
            _ => Box::pin(std::future::ready(Err(unsupported(method)))),
        };
        let service = self.clone();
        Box::pin(async move {
            if leader_required && service.backend.standing().keeper.is_none() {
                return Err(status::no_leader());
            }
            if !matches!(method, Method::Snapshot | Method::HealthWatch | Method::Reflection) {
                service.refuse_learner()?;
            }
            if !session.is_empty() {
                service.follow(&session).await?;
            }
            let mut stopping = service.backend.stopping();
            tokio::select! {
                result = handler => result,
                () = service.leader_lost(), if leader_required => Err(status::no_leader()),
                _ = stopping.wait_for(|stop| *stop) => Err(status::stopped()),
            }
        })
    }

    /// Returns when there has been no leader for three election timeouts in a row.
    async fn leader_lost(&self) {
        let mut keeper = self.backend.keeper();
        loop {
            if keeper.wait_for(Option::is_none).await.is_err() {
                return;
            }
            let patience = self.options.election_timeout * 3;
            let found = tokio::time::timeout(patience, keeper.wait_for(Option::is_some)).await;
            if !matches!(found, Ok(Ok(_))) {
                return;
            }
        }
    }

    fn refuse_learner(&self) -> Result<(), Status> {
        if self.backend.standing().role == Role::Learner { Err(status::learner()) } else { Ok(()) }
    }

    /// A header with this revision.
    fn header(&self, revision: i64) -> Header {
        let identity = self.backend.identity();
        let term = self.backend.standing().term;
        Header { cluster: identity.cluster, member: identity.member.0, revision, term }
    }

    /// A header with the store's revision.
    fn header_now(&self) -> Header {
        let revision = self.backend.store().read().revision();
        self.header(revision)
    }

    /// Orders an operation; gives the store's revision after it, and what came of it.
    async fn propose(&self, op: Op) -> Result<(i64, OpReply), Status> {
        let pending = Pending::new(&self.metrics.proposals_pending);
        let outcome = self.backend.propose(op).await;
        drop(pending);
        match outcome {
            Ok(reply) => Ok((reply.revision, reply.result?)),
            Err(failure) => {
                self.metrics.proposals_failed.fetch_add(1, Relaxed);
                Err(failure.into())
            }
        }
    }

    /// Waits until the store shows everything that was acknowledged before.
    async fn fence(&self) -> Result<(), Status> {
        self.backend.fence().await.map_err(|failure| {
            self.metrics.fences_failed.fetch_add(1, Relaxed);
            failure.into()
        })
    }

    /// Refuses requests that would not fit into the log.
    fn check_size(&self, body: &Bytes) -> Result<(), Status> {
        if body.len() > self.options.request_bytes_max { Err(status::request_too_large()) } else { Ok(()) }
    }

    /// Writes all figures of this member.
    pub fn write_metrics(&self, page: &mut Page) {
        self.metrics.write(page);
        let version = [("server_version", self.options.version)];
        page.family("etcd_server_version", crate::metrics::Kind::Gauge, "Which version is running.");
        page.sample("etcd_server_version", &version, 1);
        let cluster = self.options.version.rsplit_once('.').map_or(self.options.version, |(minor, _)| minor);
        let cluster = format!("{cluster}.0");
        page.family("etcd_cluster_version", crate::metrics::Kind::Gauge, "Which version is running.");
        page.sample("etcd_cluster_version", &[("cluster_version", &cluster)], 1);
        let identity = self.backend.identity();
        let id = format!("{:x}", identity.member.0);
        page.family(
            "etcd_server_id",
            crate::metrics::Kind::Gauge,
            "Server or member ID in hexadecimal format.",
        );
        page.sample("etcd_server_id", &[("server_id", &id)], 1);
        self.write_store_metrics(page);
        self.backend.write_metrics(page);
        process::write_metrics(page);
    }

    fn write_store_metrics(&self, page: &mut Page) {
        let mut store = self.backend.store().write();
        let census = store.hub().census();
        page.gauge(
            "etcd_server_quota_backend_bytes",
            "Current backend storage quota size in bytes.",
            store.quota(),
        );
        page.gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes that are logically in use.",
            store.size(),
        );
        page.gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Bytes that are allocated.",
            store.size_held().max(store.size()),
        );
        page.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", store.keys_held());
        page.gauge(
            "etcd_debugging_mvcc_current_revision",
            "The current revision of store.",
            store.revision(),
        );
        page.gauge(
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction.",
            store.compacted(),
        );
        drop(store);
        page.gauge(
            "etcd_debugging_mvcc_watch_stream_total",
            "Total number of watch streams.",
            census.streams,
        );
        page.gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", census.watchers);
        page.gauge(
            "etcd_debugging_mvcc_slow_watcher_total",
            "Total number of unsynced slow watchers.",
            census.slow_watchers,
        );
        page.gauge(
            "synod_watch_queued_bytes",
            "Bytes of events that wait for watchers.",
            census.queued_bytes,
        );
    }

    /// What `/debug/vars` shows.
    #[must_use]
    pub fn variables(&self) -> serde_json::Value {
        let standing = self.backend.standing();
        let command: Vec<String> = std::env::args().collect();
        serde_json::json!({
            "cmdline": command,
            "raft.status": {
                "id": format!("{:x}", self.backend.identity().member.0),
                "term": standing.term,
                "lead": standing.leader.map(|leader| format!("{:x}", leader.0)),
                "raftState": format!("{:?}", standing.role),
                "commit": standing.decided,
                "applied": standing.applied,
            },
            "file_descriptor_limit": process::open_files_max(),
        })
    }
}

/// Does something that takes long on another thread.
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Status::new(Code::Internal, format!("synod: a long read failed: {error}")))
}

/// Counts something while it lasts.
struct Pending<'a>(&'a AtomicU64);

impl<'a> Pending<'a> {
    fn new(gauge: &'a AtomicU64) -> Pending<'a> {
        gauge.fetch_add(1, Relaxed);
        Pending(gauge)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
