//! A backend of one process without log or peers, and a front that serves it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use synod_core::{Audience, Change, NodeId, Role, Time};
use synod_kv::Store;
use synod_kv::op::Op;
use synod_server::contract::{Cell, Contract, Offer};
use synod_server::http::{Access, ConnectionLimits, Front, Scope, serve_listener};
use synod_server::metrics::{Detail, Metrics, Page};
use synod_server::service::backend::{
    Backend, Failure, Identity, Image, LeaseTime, MemberInfo, SharedStore, Standing, Waiter,
};
use synod_server::service::bell::Bell;
use synod_server::service::session::Place;
use synod_server::service::{Options, Service};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

pub(crate) struct Fake {
    store: SharedStore,
    bell: Arc<Bell>,
    begun: Instant,
    leader: watch::Sender<Option<NodeId>>,
    stopping: watch::Sender<bool>,
    pub(crate) learner: AtomicBool,
    /// The contract lacks much.
    pub(crate) modest: AtomicBool,
    /// Proposals and fences never end.
    pub(crate) stuck: AtomicBool,
    /// Who waits for those.
    never: Mutex<Vec<Waiter>>,
}

const ME: NodeId = NodeId(7);

impl Fake {
    fn new() -> Fake {
        let fake = Fake {
            store: Arc::new(RwLock::new(Store::new())),
            bell: Arc::default(),
            begun: Instant::now(),
            leader: watch::channel(Some(ME)).0,
            stopping: watch::channel(false).0,
            learner: AtomicBool::new(false),
            modest: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            never: Mutex::default(),
        };
        fake.store.write().promote_lessor(fake.now(), Duration::ZERO);
        fake
    }

    fn now(&self) -> Time {
        Time(self.begun.elapsed().as_nanos() as u64)
    }

    pub(crate) fn set_leader(&self, leader: Option<NodeId>) {
        self.leader.send_replace(leader);
    }

    fn tend_watchers(&self) {
        let ready = {
            let mut store = self.store.write();
            while store.catch_up(1000) {}
            store.hub().take_ready()
        };
        self.bell.ring(ready);
    }

    async fn unless_stuck(&self) {
        if self.stuck.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }
}

impl Backend for Fake {
    fn store(&self) -> &SharedStore {
        &self.store
    }

    fn identity(&self) -> Identity {
        Identity { cluster: 5, member: ME }
    }

    fn contract(&self) -> &Contract {
        const EVERYTHING: Contract = Contract { protocol: "raft", offer: Offer::EVERYTHING };
        const MODEST: Contract = Contract {
            protocol: "raft",
            offer: Offer {
                linearizable: Cell::No("there is no single order to read up to"),
                compares: Cell::No("there is no single order to compare in"),
                leases: Cell::No("nobody keeps the time for all"),
                confirmations: Some(3),
                ..Offer::EVERYTHING
            },
        };
        if self.modest.load(Ordering::Relaxed) { &MODEST } else { &EVERYTHING }
    }

    fn place(&self) -> Place {
        Place::Index(self.standing().applied)
    }

    async fn reach(&self, places: Vec<Place>) -> Result<(), Failure> {
        match places.iter().all(|place| matches!(place, Place::Index(index) if *index <= 9)) {
            true => Ok(()),
            false => Err(Failure::Behind),
        }
    }

    fn standing(&self) -> Standing {
        let role = if self.learner.load(Ordering::Relaxed) { Role::Learner } else { Role::Leader };
        Standing {
            role,
            leader: *self.leader.borrow(),
            keeper: *self.leader.borrow(),
            term: 3,
            decided: 9,
            applied: 9,
            disk_bytes: 4096,
        }
    }

    fn submit(&self, op: Op, waiter: Waiter) {
        if self.stuck.load(Ordering::Relaxed) {
            return self.never.lock().push(waiter);
        }
        let reply = {
            let now = self.now();
            let mut store = self.store.write();
            let reply = store.apply_op(&op, ME, Audience::Client);
            store.lessor().advance(now);
            reply
        };
        self.tend_watchers();
        waiter.tell(Ok(reply));
    }

    async fn fence(&self) -> Result<(), Failure> {
        self.unless_stuck().await;
        match *self.leader.borrow() {
            Some(_) => Ok(()),
            None => Err(Failure::NoLeader),
        }
    }

    async fn compacted(&self, _revision: i64) -> Result<(), Failure> {
        Ok(())
    }

    async fn renew_lease(&self, id: i64) -> Result<Option<i64>, Failure> {
        let now = self.now();
        Ok(self.store.write().lessor().renew(id, now).map(|renewed| renewed.ttl))
    }

    async fn lease_time(&self, id: i64) -> Result<Option<LeaseTime>, Failure> {
        let now = self.now();
        let mut store = self.store.write();
        let Some(granted) = store.leases().get(id).map(|lease| lease.ttl) else { return Ok(None) };
        Ok(store.lessor().remaining(id, now).map(|remaining| LeaseTime { remaining, granted }))
    }

    fn leases(&self) -> Vec<i64> {
        self.store.read().leases().iter().map(|(id, _)| id).collect()
    }

    async fn change_members(&self, _change: Change) -> Result<(), Failure> {
        Err(Failure::Unsupported("the fake is alone"))
    }

    async fn move_leader(&self, to: NodeId) -> Result<(), Failure> {
        if to == ME { Ok(()) } else { Err(Failure::BadTransferee) }
    }

    fn members(&self) -> Vec<MemberInfo> {
        vec![MemberInfo {
            id: ME,
            name: "one".to_owned(),
            peer_urls: vec!["http://localhost:2380".to_owned()],
            client_urls: vec!["http://localhost:2379".to_owned()],
            is_learner: false,
        }]
    }

    async fn defragment(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn keeper(&self) -> watch::Receiver<Option<NodeId>> {
        self.leader.subscribe()
    }

    fn snapshot(&self) -> impl Future<Output = Result<Image, Failure>> + Send {
        let (sender, pieces) = mpsc::channel(1);
        tokio::spawn(async move {
            for _ in 0..3 {
                let _ = sender.send(Ok(Bytes::from(vec![7; 33_333]))).await;
            }
        });
        std::future::ready(Ok(Image { bytes: 99_999, pieces }))
    }

    fn nudge(&self) {
        self.tend_watchers();
    }

    fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    fn write_metrics(&self, page: &mut Page) {
        page.gauge("etcd_server_has_leader", "Whether or not a leader exists.", 1);
    }
}

/// A front that serves a fake, on a port of its own.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) backend: Arc<Fake>,
    pub(crate) listening: tokio::task::JoinHandle<()>,
}

impl Served {
    pub(crate) async fn start() -> Served {
        Served::with(Options::default(), Access::new(vec!["*".to_owned()], vec!["*".to_owned()])).await
    }

    pub(crate) async fn with(options: Options, access: Access) -> Served {
        let limits = ConnectionLimits { drain: Duration::from_millis(500), ..ConnectionLimits::default() };
        Served::within(options, access, limits).await
    }

    pub(crate) async fn within(options: Options, access: Access, limits: ConnectionLimits) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend = Arc::new(Fake::new());
        let service = Service::new(backend.clone(), options, Arc::new(Metrics::new(Detail::Extensive)));
        let front = Arc::new(Front { service, access, limits, scope: Scope::Clients });
        let listening = tokio::spawn(serve_listener(front, listener, backend.stopping()));
        Served { address, backend, listening }
    }

    pub(crate) fn stop(&self) {
        self.backend.stopping.send_replace(true);
    }
}
