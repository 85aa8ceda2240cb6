//! One member of a cluster, from its settings to its end.
//!
//! Starting: take the data folder, open the log, listen, rebuild the replica, talk to peers and clients, publish
//! oneself. Ending in good order: hand leadership over, end the streams, let requests in flight finish within a
//! bound, sync the log. Whatever fails on the way ends this member with one clear error, and no other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use synod_core::{Config, Members, Protocol, Recovered, Time, Wire};
use synod_kv::op::MemberAttributes;
use synod_replica::{CompactionPolicy, Limits, Replica};
use synod_wal::{Identity, Log, LogOptions, RealDisk, Recovery, SnapshotFile};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::config::{Address, MetricsDetail, Settings};
use crate::contract::Contract;
use crate::disk::DiskThreads;
use crate::http::{Access, ConnectionLimits, Front, Scope};
use crate::metrics::{Detail, Metrics};
use crate::node::changing::Roster;
use crate::node::folder::Membership;
use crate::node::turn::{Past, Turn};
use crate::node::waiters::Waiters;
use crate::node::world::{Mouth, Outside, SharedMachine};
use crate::node::{MemberError, Node, chores, joining};
use crate::protocol::{Served, Told};
use crate::service::backend::{self, Backend, MemberInfo};
use crate::service::{self, Service};
use crate::transport::{self, Transport};
use crate::witness::voice::Voice;

/// How long requests in flight may take once the member was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A running member.
pub struct Member {
    stopper: Stopper,
    ready: Option<oneshot::Receiver<()>>,
    ended: oneshot::Receiver<Result<(), MemberError>>,
}

/// Tells a member to stop; cheap to clone.
#[derive(Clone)]
pub struct Stopper(Arc<watch::Sender<bool>>);

impl Stopper {
    /// Begins the end, in good order. Further calls change nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Member {
    /// Starts a member on a thread of its own. Whatever is wrong comes out of [`Member::ended`].
    #[must_use]
    pub fn start(settings: Settings) -> Member {
        let (ready_sender, ready) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let (stop, stopped) = watch::channel(false);
        let name = format!("member-{}", settings.name);
        let work = move || {
            let run = std::panic::AssertUnwindSafe(|| run(&settings, ready_sender, stopped));
            let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                Err(MemberError::Panicked("a bug; please report what the log says".to_owned()))
            });
            // Nobody may be left to hear it.
            let _ = ended_sender.send(outcome);
        };
        if let Err(error) = std::thread::Builder::new().name(name).spawn(work) {
            tracing::error!(%error, "no thread for a member");
        }
        Member { stopper: Stopper(Arc::new(stop)), ready: Some(ready), ended }
    }

    /// What tells this member to stop.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Fires when the member serves clients; once.
    pub fn take_ready(&mut self) -> Option<oneshot::Receiver<()>> {
        self.ready.take()
    }

    /// Waits for the member's end.
    ///
    /// # Errors
    /// Why it ended without being told to, or could not start.
    pub async fn ended(&mut self) -> Result<(), MemberError> {
        let lost = || MemberError::Panicked("its thread is gone".to_owned());
        (&mut self.ended).await.unwrap_or_else(|_| Err(lost()))
    }
}

fn run(
    settings: &Settings,
    ready: oneshot::Sender<()>,
    stopped: watch::Receiver<bool>,
) -> Result<(), MemberError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MemberError::Start)?;
    let outcome = runtime.block_on((settings.protocol.serve)(settings, ready, stopped));
    // What is left are tasks that nobody waits for.
    runtime.shutdown_background();
    outcome
}

/// What the data folder gave.
struct Opened {
    membership: Membership,
    log: Log,
    recovery: Recovery,
}

/// `ahead` is shown the snapshot before the log's records are read.
fn open(
    settings: &Settings,
    membership: Membership,
    ahead: impl FnOnce(&SnapshotFile),
) -> Result<Opened, MemberError> {
    let disk = RealDisk::open(&settings.data_dir)?;
    for warning in disk.warnings() {
        tracing::warn!("{warning}");
    }
    let identity = Identity { cluster: membership.cluster, node: membership.member };
    let (log, recovery) = Log::open_ahead(Arc::new(disk), identity, LogOptions::default(), ahead)?;
    for warning in &recovery.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(torn) = &recovery.torn {
        tracing::info!(
            file = torn.file,
            offset = torn.offset,
            "dropped a write that the last stop cut off; it was never acknowledged"
        );
    }
    if recovery.fresh && membership.was_known {
        return Err(MemberError::LostLog(settings.data_dir.display().to_string()));
    }
    membership.save(&settings.data_dir)?;
    Ok(Opened { membership, log, recovery })
}

/// The protocol's options; `now` is the replica's time at this moment.
fn options_of<P: Served>(
    settings: &Settings,
    membership: &Membership,
    founders: &Members,
    now: Time,
) -> Result<P::Options, MemberError> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let told = Told {
        settings,
        flags: &settings.protocol_flags,
        cluster: membership.cluster,
        me: membership.member,
        founders,
        folder: &settings.data_dir,
        zero: since_1970.saturating_sub(Duration::from_nanos(now.0)),
    };
    P::options(&told).map_err(|wrong| MemberError::Options(wrong.to_string()))
}

fn limits_of(settings: &Settings) -> Limits {
    let compaction = CompactionPolicy {
        // The flag counts commands, the policy batches: as many as hold so many commands under full load.
        deliveries_min: settings.snapshot_count.div_ceil(Limits::default().batch_commands_max as u64),
        bytes_min: settings.snapshot_bytes,
        ..CompactionPolicy::default()
    };
    Limits { compaction, ..Limits::default() }
}

/// Runs a member with one protocol, to its end.
pub(crate) async fn serve<P: Served>(
    settings: &Settings,
    ready: oneshot::Sender<()>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), MemberError> {
    let clients = listen_all(settings, "listen-client-urls", &settings.listen_clients)?;
    let peers = listen_all(settings, "listen-peer-urls", &settings.listen_peers)?;
    let metrics = listen_all(settings, "listen-metrics-urls", &settings.listen_metrics)?;
    let membership = joining::find(settings).await?;
    let mut machine = SharedMachine::new(P::ORDER, membership.member);
    // The disk reads the log while a thread makes a store of the snapshot.
    let ahead = |snapshot: &SnapshotFile| machine.read_ahead(snapshot.to_ref());
    let Opened { membership, log, recovery } = open(settings, membership, ahead)?;
    tracing::info!(
        name = settings.name,
        member_id = %membership.member,
        cluster_id = format!("{:x}", membership.cluster),
        data_dir = %settings.data_dir.display(),
        protocol = membership.protocol,
        records = recovery.records.len(),
        snapshot = recovery.snapshot.as_ref().map_or(0, |snapshot| snapshot.at().0),
        "starting a member"
    );

    let founders = Members::of(membership.founders.iter().map(|(id, _, _)| *id));
    let infos = membership.founders.iter().map(|(id, name, urls)| MemberInfo {
        id: *id,
        name: name.clone(),
        peer_urls: urls.iter().map(Address::to_string).collect(),
        client_urls: Vec::new(),
        is_learner: false,
    });
    let contract = Contract::of(settings.protocol, &settings.protocol_flags);
    let identity = backend::Identity { cluster: membership.cluster, member: membership.member };
    let node = Node::new(identity, contract, machine.store.clone(), founders.clone(), infos.collect());
    let options = options_of::<P>(settings, &membership, &founders, node.0.clock.now())?;
    if let Some(signing) = P::signing(&options) {
        let voice = Voice::new(settings.name.clone(), membership.cluster, signing);
        assert!(node.0.voice.set(Arc::new(voice)).is_ok(), "a member has one voice");
        machine.store.write().keep_answers();
    }
    let founding = founders.clone();
    let config = Config { id: membership.member, members: founders, seed: membership.first_number, options };
    let found = recovered::<P>(recovery)?;
    let checked = P::check_found(&config.options, &found.records);
    checked.map_err(|wrong| MemberError::Options(format!("{}: {wrong}", settings.data_dir.display())))?;
    let replica = Replica::<P, _>::open(&config, limits_of(settings), found, machine, || node.0.clock.now())
        .map_err(MemberError::Restore)?;

    let transport = start_transport(settings, &membership, &node, peers);
    let disk = DiskThreads::start(
        &settings.name,
        &settings.data_dir,
        log,
        node.inbox().clone(),
        node.0.disk.clone(),
    )
    .map_err(MemberError::Start)?;
    let patience = P::patience(&settings.protocol_flags) + settings.election_timeout * 2;
    let turn = Turn {
        replica,
        outside: Outside {
            me: membership.member,
            transport,
            disk,
            waiters: Waiters::new(patience, node.0.admission.clone()),
            members: None,
            at_leisure: None,
            declined: None,
        },
        shared: node.0.clone(),
        clock: node.0.clock,
        next_number: membership.first_number,
        election_timeout: settings.election_timeout,
        warning_apply: settings.warning_apply,
        reaching: Vec::new(),
        roster: Roster::new(membership.addresses(), founding.contains(membership.member)),
        moving: None,
        past: Past::default(),
        folder: membership,
    };
    let mut turning = tokio::spawn(turn.run());
    let mut serving = serve_clients(settings, &node, clients, metrics);
    let _chores = start_chores(settings, &node, ready);

    let told = async { drop(stopped.wait_for(|stop| *stop).await) };
    tokio::select! {
        outcome = &mut turning => return flatten(outcome),
        () = told => {}
    }
    let hand_over = tokio::time::timeout(settings.election_timeout * 2, node.hand_over());
    if !matches!(hand_over.await, Ok(Ok(()))) {
        tracing::warn!("leadership could not be handed over before the stop");
    }
    node.0.stopping.send_replace(true);
    let drained = tokio::time::timeout(DRAIN_MAX + Duration::from_secs(1), async {
        while serving.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!("some requests in flight did not finish in time");
    }
    node.stop();
    let outcome = flatten(turning.await);
    tracing::info!(name = settings.name, "the member has ended in good order");
    outcome
}

fn flatten(outcome: Result<Result<(), MemberError>, tokio::task::JoinError>) -> Result<(), MemberError> {
    outcome.unwrap_or_else(|error| Err(MemberError::Panicked(error.to_string())))
}

/// The records of the log, decoded, above their snapshot.
fn recovered<P: Protocol>(recovery: Recovery) -> Result<Recovered<P::Record>, MemberError> {
    let mut records = Vec::with_capacity(recovery.records.len());
    for (number, bytes) in recovery.records.into_iter().enumerate() {
        let record = P::Record::decode_all(bytes).map_err(|error| MemberError::Record { number, error })?;
        records.push(record);
    }
    Ok(Recovered { records, snapshot: recovery.snapshot.map(|snapshot| snapshot.to_ref()) })
}

fn start_transport(
    settings: &Settings,
    membership: &Membership,
    node: &Node,
    listeners: Vec<TcpListener>,
) -> Transport {
    let addresses = membership.addresses();
    let identity = transport::Identity {
        me: membership.member,
        cluster: membership.cluster,
        protocol: settings.protocol.row.name,
        addresses: addresses.get(&membership.member).cloned().unwrap_or_default(),
    };
    let transport = Transport::start(identity, listeners, Arc::new(Mouth { node: node.clone() }));
    transport.set_peers(&addresses);
    *node.0.peers.write() = transport.numbers();
    tracing::debug!(name = settings.name, peers = addresses.len() - 1, "dialling the peers");
    transport
}

fn serve_clients(
    settings: &Settings,
    node: &Node,
    clients: Vec<TcpListener>,
    metrics: Vec<TcpListener>,
) -> JoinSet<()> {
    let options = service::Options {
        request_bytes_max: settings.request_bytes_max,
        txn_ops_max: settings.txn_ops_max,
        election_timeout: settings.election_timeout,
        progress_interval: settings.watch_progress_interval,
        strict_reconfig: settings.strict_reconfig,
        gateway_calls_max: settings.streams_max,
        ..service::Options::default()
    };
    let detail = match settings.metrics {
        MetricsDetail::Basic => Detail::Basic,
        MetricsDetail::Extensive => Detail::Extensive,
    };
    let service = Service::new(Arc::new(node.clone()), options, Arc::new(Metrics::new(detail)));
    let limits = ConnectionLimits {
        streams_max: settings.streams_max,
        drain: DRAIN_MAX,
        ..ConnectionLimits::default()
    };
    let mut serving = JoinSet::new();
    for (listeners, scope) in [(clients, Scope::Clients), (metrics, Scope::Metrics)] {
        let access = Access::new(settings.host_whitelist.clone(), settings.cors.clone());
        let front = Arc::new(Front { service: service.clone(), access, limits, scope });
        for listener in listeners {
            serving.spawn(crate::http::serve_listener(front.clone(), listener, node.stopping()));
        }
    }
    serving
}

/// The tasks beside the turn; they end when the set is dropped.
fn start_chores(settings: &Settings, node: &Node, ready: oneshot::Sender<()>) -> JoinSet<()> {
    let texts = |addresses: &[Address]| addresses.iter().map(Address::to_string).collect::<Vec<_>>();
    let attributes = MemberAttributes {
        name: settings.name.clone(),
        client_urls: texts(&settings.advertise_clients),
        peer_urls: texts(settings.initial_cluster.members.get(&settings.name).map_or(&[], Vec::as_slice)),
    };
    let mut chores = JoinSet::new();
    let (publisher, addresses) = (node.clone(), texts(&settings.listen_clients).join(","));
    let name = settings.name.clone();
    chores.spawn(async move {
        if chores::publish(&publisher, attributes).await {
            // Scripts and tests that start an etcd wait for these words.
            tracing::info!(name, "published this member to the cluster");
            tracing::info!(version = crate::ETCD_VERSION, "enabled capabilities for version");
            tracing::info!(address = addresses, "ready to serve client requests");
            // Nobody may wait for it.
            let _ = ready.send(());
        }
    });
    chores.spawn(chores::keep_quota(node.clone(), settings.quota_bytes.unwrap_or(0)));
    chores.spawn(chores::compact(node.clone(), settings.auto_compaction));
    chores
}

fn listen_all(
    settings: &Settings,
    flag: &str,
    addresses: &[Address],
) -> Result<Vec<TcpListener>, MemberError> {
    let fail = |address: &Address| {
        let address = format!("{address} (--{flag})");
        move |source| MemberError::Listen { address, source }
    };
    let mut listeners = Vec::new();
    for address in addresses {
        let socket = address.to_bind(flag).map_err(|wrong| MemberError::Options(wrong.to_string()))?;
        listeners.push(listen(socket, settings.reuse_port).map_err(fail(address))?);
    }
    Ok(listeners)
}

pub(crate) fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
