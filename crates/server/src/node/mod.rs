//! The node: a replica with its world, as one task on the member's thread.
//!
//! [`Node`] is what the services hold: it puts questions into the inbox and waits for answers. `turn` is the
//! task that takes them out. `world` is what the replica sees of the outside; `waiters` are the clients in
//! between; `ask` is what members ask one another beside the protocol; `folder` knows whose data folder it is; `chores`
//! are the slow tasks beside the turn.

pub(crate) mod ask;
pub(crate) mod changing;
pub(crate) mod chores;
pub(crate) mod folder;
mod image;
pub(crate) mod inbox;
pub(crate) mod joining;
mod leading;
mod numbers;
pub(crate) mod reaching;
pub(crate) mod turn;
pub(crate) mod waiters;
pub(crate) mod world;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use synod_core::{Change, Members, NodeId, Role, Wire};
use synod_kv::op::Op;
use synod_replica::RestoreFailed;
use tokio::sync::{oneshot, watch};

use self::ask::{Ask, Decline, Told};
use self::inbox::{Answer, Event, Inbox};
use crate::contract::Contract;
use crate::disk::DiskNumbers;
use crate::metrics::Page;
use crate::service::admission::{Admission, PROPOSALS_MAX};
use crate::service::backend::{
    Backend, Cause, Failure, Identity, Image, LeaseTime, MemberInfo, SharedStore, Standing, Waiter,
};
use crate::service::bell::Bell;
use crate::service::session::Place;
use crate::transport::PeerNumbers;
use crate::witness::voice::Voice;

pub use folder::FolderError;

/// Why a member ended, other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The data folder cannot be used.
    #[error("{0}")]
    Folder(#[from] FolderError),
    /// The log cannot be opened.
    #[error("{0}")]
    Log(#[from] synod_wal::LogError),
    /// The log cannot go on.
    #[error("the log has failed: {0}")]
    Disk(String),
    /// A record of the log means nothing to this version.
    #[error(
        "record {number} of the log does not decode: {error}; it was written by another version or is damaged"
    )]
    Record {
        /// Which record, counted from the last checkpoint.
        number: usize,
        /// What is wrong with it.
        error: synod_core::WireError,
    },
    /// The folder remembers its member, but its log is gone.
    #[error(
        "{0} has lost its log: a member without its memory must not vote; remove it from the cluster and add it anew with an empty folder"
    )]
    LostLog(String),
    /// The cluster goes on without it.
    #[error(
        "this member was removed from the cluster: its data is of no use any more; to come back it must be added anew, with an empty data folder"
    )]
    Removed,
    /// The cluster that is to be joined cannot be asked, or does not know this member.
    #[error("{0}")]
    Join(String),
    /// A snapshot cannot become the state.
    #[error("{0}")]
    Restore(RestoreFailed),
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The system gives no thread, timer or socket.
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    /// The options do not fit together.
    #[error("{0}")]
    Options(String),
    /// Something in the member failed that should not; the log tells more.
    #[error("the member has failed: {0}")]
    Panicked(String),
}

/// What the node's task and the services share.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) clock: turn::Clock,
    pub(crate) contract: Contract,
    pub(crate) store: SharedStore,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) standing: Mutex<Standing>,
    pub(crate) members: RwLock<Members>,
    /// The members that the cluster was founded with: for what they have not said of themselves yet.
    pub(crate) founders: Vec<MemberInfo>,
    pub(crate) keeper: watch::Sender<Option<NodeId>>,
    pub(crate) stopping: watch::Sender<bool>,
    /// What has been removed from memory: everything that compactions up to this revision gave up.
    pub(crate) scrubbed: watch::Sender<i64>,
    pub(crate) bell: Arc<Bell>,
    /// Set once, where the protocol has keys.
    pub(crate) voice: OnceLock<Arc<Voice>>,
    pub(crate) disk: Arc<DiskNumbers>,
    pub(crate) peers: RwLock<Vec<(NodeId, Arc<PeerNumbers>)>>,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) leases_expired: AtomicU64,
    pub(crate) slow_applies: AtomicU64,
}

/// A payload larger than this is refused before it is proposed: it would not fit into a peer's frame.
const PAYLOAD_BYTES_MAX: usize = crate::transport::FRAME_BYTES_MAX - (1 << 20);

/// The services' hold on the node; cheap to clone.
#[derive(Clone)]
pub(crate) struct Node(pub(crate) Arc<Shared>);

impl Node {
    pub(crate) fn new(
        identity: Identity,
        contract: Contract,
        store: SharedStore,
        members: Members,
        founders: Vec<MemberInfo>,
    ) -> Node {
        let standing = Standing {
            role: Role::Follower,
            leader: None,
            keeper: None,
            term: 0,
            decided: 0,
            applied: 0,
            disk_bytes: 0,
        };
        Node(Arc::new(Shared {
            identity,
            clock: turn::Clock::start(),
            contract,
            store,
            inbox: Arc::default(),
            admission: Arc::new(Admission::new(PROPOSALS_MAX)),
            standing: Mutex::new(standing),
            members: RwLock::new(members),
            founders,
            keeper: watch::Sender::new(None),
            stopping: watch::Sender::new(false),
            scrubbed: watch::Sender::new(0),
            bell: Arc::default(),
            voice: OnceLock::new(),
            disk: Arc::default(),
            peers: RwLock::default(),
            leader_changes: AtomicU64::new(0),
            leases_expired: AtomicU64::new(0),
            slow_applies: AtomicU64::new(0),
        }))
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.0.inbox
    }

    /// Puts a question into the inbox and waits for the answer.
    async fn ask_node<T>(&self, event: impl FnOnce(Answer<T>) -> Event) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        if self.0.inbox.push(event(answer)).is_err() {
            return Err(Failure::Stopped);
        }
        answered.await.unwrap_or(Err(Failure::Stopped))
    }

    async fn ask_leader(&self, ask: Ask) -> Result<Option<(Duration, i64)>, Failure> {
        match self.ask_node(|answer| Event::Ask(ask, answer)).await? {
            Told::Lives { remaining, granted } => Ok(Some((remaining, granted))),
            Told::NoLease => Ok(None),
            Told::NotLeader => Err(Failure::NotLeader),
            // Answers to other questions.
            Told::Changed | Told::Declined(_) => Ok(None),
        }
    }

    /// Gives leadership away, if this member leads and somebody else can.
    pub(crate) async fn hand_over(&self) -> Result<(), Failure> {
        self.ask_node(Event::HandOver).await
    }

    /// Ends the node's task, after what is in the inbox already.
    pub(crate) fn stop(&self) {
        // A closed inbox belongs to a node that has ended.
        let _ = self.0.inbox.push(Event::Stop);
    }

    /// The body of `GET /synod/cluster` on the peer port: what a member that wants to join must know.
    pub(crate) fn cluster_json(&self) -> String {
        let members = self.members();
        let store = self.0.store.read();
        let described = |member: &MemberInfo| {
            // Only a member that has run once has published where its clients reach it.
            let started = store.members().get(&member.id.0).is_some_and(|said| !said.client_urls.is_empty());
            serde_json::json!({
                "id": format!("{:x}", member.id.0),
                "name": member.name,
                "peerURLs": member.peer_urls,
                "started": started,
            })
        };
        let founders: Vec<_> = self.0.founders.iter().map(described).collect();
        let members: Vec<_> = members.iter().map(described).collect();
        let page = serde_json::json!({
            "cluster": format!("{:x}", self.0.identity.cluster),
            "protocol": self.0.contract.protocol,
            "founders": founders,
            "members": members,
        });
        page.to_string() + "\n"
    }

    /// The body of `GET /members` on the peer port.
    pub(crate) fn members_json(&self) -> String {
        let members: Vec<_> = self
            .members()
            .into_iter()
            .map(|member| {
                serde_json::json!({
                    "id": member.id.0,
                    "peerURLs": member.peer_urls,
                    "name": member.name,
                    "clientURLs": member.client_urls,
                })
            })
            .collect();
        serde_json::Value::from(members).to_string() + "\n"
    }
}

impl Backend for Node {
    fn store(&self) -> &SharedStore {
        &self.0.store
    }

    fn identity(&self) -> Identity {
        self.0.identity
    }

    fn contract(&self) -> &Contract {
        &self.0.contract
    }

    fn place(&self) -> Place {
        match self.0.store.read().vector() {
            Some(vector) => Place::Vector(vector.clone()),
            None => Place::Index(self.0.standing.lock().applied),
        }
    }

    async fn reach(&self, places: Vec<Place>) -> Result<(), Failure> {
        self.ask_node(|answer| Event::Reach(places, answer)).await
    }

    fn standing(&self) -> Standing {
        *self.0.standing.lock()
    }

    fn submit(&self, op: Op, waiter: Waiter) {
        let payload = op.to_bytes();
        if payload.len() > PAYLOAD_BYTES_MAX {
            return waiter.tell(Err(Failure::TooLarge));
        }
        if let Err(failure) = self.0.admission.enter(payload.len()) {
            return waiter.tell(Err(failure));
        }
        let bytes = payload.len();
        if let Err(Event::Propose { waiter, .. }) = self.0.inbox.push(Event::Propose { payload, waiter }) {
            self.0.admission.leave(bytes);
            waiter.tell(Err(Failure::Stopped));
        }
    }

    fn turns_away(&self) -> bool {
        self.0.admission.turns_away()
    }

    async fn fence(&self) -> Result<(), Failure> {
        self.ask_node(Event::Fence).await
    }

    async fn compacted(&self, revision: i64) -> Result<(), Failure> {
        let mut scrubbed = self.0.scrubbed.subscribe();
        let mut stopping = self.0.stopping.subscribe();
        tokio::select! {
            done = scrubbed.wait_for(|done| *done >= revision) => done.map(|_| ()).map_err(|_| Failure::Stopped),
            _ = stopping.wait_for(|stop| *stop) => Err(Failure::Stopped),
        }
    }

    async fn renew_lease(&self, id: i64) -> Result<Option<i64>, Failure> {
        // A leader that has lost its lead without knowing it would renew what its successor lets end. Whoever takes over after this
        // fence gives the lease its full time from then on, so what the client is told holds.
        if self.0.contract.has_fences() {
            match self.fence().await {
                // Where fences are refused for good (asynchronous replication after a loss) the leader leads by its clock.
                Ok(()) | Err(Failure::Unsupported(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(self.ask_leader(Ask::Renew(id)).await?.map(|(_, granted)| granted))
    }

    async fn lease_time(&self, id: i64) -> Result<Option<LeaseTime>, Failure> {
        let told = self.ask_leader(Ask::TimeLeft(id)).await?;
        Ok(told.map(|(remaining, granted)| LeaseTime { remaining, granted }))
    }

    fn leases(&self) -> Vec<i64> {
        let now = self.0.clock.now();
        let mut store = self.0.store.write();
        let ids: Vec<i64> = store.leases().iter().map(|(id, _)| id).collect();
        let mut timed: Vec<_> = ids.into_iter().map(|id| (store.lessor().remaining(id, now), id)).collect();
        timed.sort_unstable();
        timed.into_iter().map(|(_, id)| id).collect()
    }

    async fn change_members(&self, change: Change) -> Result<(), Failure> {
        match self.ask_node(|answer| Event::Ask(Ask::Change(change), answer)).await? {
            Told::Changed => Ok(()),
            Told::Declined(Decline::Busy) => Err(Failure::TimedOut(Cause::Plain)),
            Told::Declined(Decline::Invalid) => Err(Failure::NotEnoughStarted),
            Told::Declined(Decline::NotReady) => Err(Failure::LearnerNotReady),
            Told::Declined(Decline::NoLearner) => Err(Failure::NoLearner),
            Told::Declined(Decline::Unsupported) => {
                Err(Failure::Unsupported("synod: the protocol does not change its members so"))
            }
            Told::NotLeader | Told::NoLease | Told::Lives { .. } => Err(Failure::NotLeader),
        }
    }

    async fn move_leader(&self, to: NodeId) -> Result<(), Failure> {
        self.ask_node(|answer| Event::MoveLeader(to, answer)).await
    }

    fn members(&self) -> Vec<MemberInfo> {
        let members = self.0.members.read();
        let store = self.0.store.read();
        let founder = |id| self.0.founders.iter().find(|founder| founder.id == id);
        let info = |id: NodeId| {
            let said = store.members().get(&id.0);
            let known = founder(id).cloned();
            MemberInfo {
                id,
                name: said
                    .map(|said| said.name.clone())
                    .or(known.as_ref().map(|it| it.name.clone()))
                    .unwrap_or_default(),
                peer_urls: said
                    .map(|said| said.peer_urls.clone())
                    .or(known.map(|it| it.peer_urls))
                    .unwrap_or_default(),
                client_urls: said.map(|said| said.client_urls.clone()).unwrap_or_default(),
                is_learner: members.learners.contains(&id),
            }
        };
        members.all().map(info).collect()
    }

    async fn defragment(&self) -> Result<(), Failure> {
        // Memory is given back piece by piece after each compaction; what is left is to wait until that is done.
        let compacted = self.0.store.read().compacted();
        if compacted > 0 { self.compacted(compacted).await } else { Ok(()) }
    }

    fn keeper(&self) -> watch::Receiver<Option<NodeId>> {
        self.0.keeper.subscribe()
    }

    async fn snapshot(&self) -> Result<Image, Failure> {
        self.ask_node(Event::Image).await
    }

    fn nudge(&self) {
        // A node that has gone has nobody to serve.
        let _ = self.0.inbox.push(Event::Nudge);
    }

    fn bell(&self) -> &Arc<Bell> {
        &self.0.bell
    }

    fn stopping(&self) -> watch::Receiver<bool> {
        self.0.stopping.subscribe()
    }

    fn voice(&self) -> Option<&Arc<Voice>> {
        self.0.voice.get()
    }

    fn write_metrics(&self, page: &mut Page) {
        numbers::write(&self.0, page);
    }
}
