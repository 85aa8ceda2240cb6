//! The proxy as the services see it: a replica whose store is elsewhere.
//!
//! What orders something goes to the members; what would be read from the store is answered by `service/by_vote` before it is asked for here.
//! The store of this process is empty and stays so.

use std::sync::Arc;

use parking_lot::RwLock;
use synod_core::{Change, NodeId, Role};
use synod_kv::Store;
use synod_kv::once::Wish;
use synod_kv::op::Op;
use tokio::sync::watch;

use super::Proxy;
use crate::contract::Contract;
use crate::metrics::{Kind, Page};
use crate::protocol::{Chosen, find};
use crate::service::backend::{
    Backend, Failure, Identity, Image, LeaseTime, MemberInfo, SharedStore, Standing, Waiter,
};
use crate::service::bell::Bell;
use crate::service::session::Place;

/// What a proxy says of everything that is one member's own affair.
const NOT_HERE: Failure =
    Failure::Unsupported("synod: the proxy does not give this: it is a member's own affair; ask the member");

/// The proxy instead of a node.
pub(super) struct Elsewhere {
    proxy: Arc<Proxy>,
    store: SharedStore,
    contract: Contract,
    bell: Arc<Bell>,
    keeper: watch::Sender<Option<NodeId>>,
    stop: watch::Receiver<bool>,
}

impl Elsewhere {
    pub(super) fn new(proxy: Arc<Proxy>, stop: watch::Receiver<bool>) -> Elsewhere {
        let kin = find("pbft").expect("it is in the family");
        Elsewhere {
            proxy,
            store: Arc::new(RwLock::new(Store::new())),
            contract: Contract::of(kin, &Chosen::defaults(&kin.row)),
            bell: Arc::default(),
            keeper: watch::Sender::new(Some(NodeId(0))),
            stop,
        }
    }
}

impl Backend for Elsewhere {
    fn store(&self) -> &SharedStore {
        &self.store
    }

    fn identity(&self) -> Identity {
        Identity { cluster: self.proxy.cluster(), member: NodeId(0) }
    }

    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn place(&self) -> Place {
        // Everything here is linearizable: no session has to wait for anything.
        Place::Index(0)
    }

    async fn reach(&self, _: Vec<Place>) -> Result<(), Failure> {
        Ok(())
    }

    fn standing(&self) -> Standing {
        let keeper = self.proxy.has_enough().then_some(NodeId(0));
        Standing {
            role: Role::Follower,
            leader: keeper,
            keeper,
            term: 0,
            decided: 0,
            applied: 0,
            disk_bytes: 0,
        }
    }

    fn submit(&self, op: Op, waiter: Waiter) {
        let proxy = self.proxy.clone();
        tokio::spawn(async move { waiter.tell(proxy.carry_out(&Wish::Op(op)).await) });
    }

    async fn fence(&self) -> Result<(), Failure> {
        self.proxy.read_revision().await.map(drop)
    }

    async fn compacted(&self, _: i64) -> Result<(), Failure> {
        Ok(())
    }

    async fn renew_lease(&self, id: i64) -> Result<Option<i64>, Failure> {
        self.proxy.seconds(id, true).await
    }

    async fn lease_time(&self, _: i64) -> Result<Option<LeaseTime>, Failure> {
        Err(NOT_HERE)
    }

    fn leases(&self) -> Vec<i64> {
        Vec::new()
    }

    async fn change_members(&self, _: Change) -> Result<(), Failure> {
        Err(NOT_HERE)
    }

    async fn move_leader(&self, _: NodeId) -> Result<(), Failure> {
        Err(NOT_HERE)
    }

    fn members(&self) -> Vec<MemberInfo> {
        Vec::new()
    }

    async fn defragment(&self) -> Result<(), Failure> {
        Err(NOT_HERE)
    }

    fn keeper(&self) -> watch::Receiver<Option<NodeId>> {
        self.keeper.subscribe()
    }

    async fn snapshot(&self) -> Result<Image, Failure> {
        Err(NOT_HERE)
    }

    fn nudge(&self) {}

    fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }

    fn proxy(&self) -> Option<&Arc<Proxy>> {
        Some(&self.proxy)
    }

    fn write_metrics(&self, page: &mut Page) {
        let (liars, members) = self.proxy.sizes();
        page.family("synod_proxy_members", Kind::Gauge, "Members whose keys this proxy holds.");
        page.sample("synod_proxy_members", &[], members as u64);
        page.family("synod_proxy_liars_max", Kind::Gauge, "So many of them may lie.");
        page.sample("synod_proxy_liars_max", &[], liars as u64);
    }
}
