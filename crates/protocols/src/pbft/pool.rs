//! Requests that this replica knows of and that are not executed yet, in the order in which they came (4.2, 4.5.2).
//!
//! The primary takes from here what it proposes. Every replica measures by the oldest of them whether the primary does
//! its work: while that one is not executed, the view's time runs out, so no request can be starved for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use synod_core::NodeId;

use super::dedup::Executed;
use super::message::{Request, View};

/// Requests of one origin that are kept; beyond it they are ignored until some are executed. An honest replica has fewer.
const PER_ORIGIN_MAX: usize = 256;

/// A request's name: its origin and number.
type Name = (NodeId, u64);

#[derive(Debug)]
struct Pooled {
    request: Arc<Request>,
    place: u64,
    /// Whether it has its sequence number in this view.
    proposed: bool,
}

/// The requests.
///
/// Invariant: `order` holds the place of each request, and nothing else.
#[derive(Debug, Default)]
pub(super) struct Pool {
    requests: BTreeMap<Name, Pooled>,
    order: BTreeMap<u64, Name>,
    places: u64,
}

impl Pool {
    /// Keeps a request that waits for its execution; whether it is there now.
    pub(super) fn add(&mut self, request: &Arc<Request>, executed: &Executed) -> bool {
        let name = request.name();
        if executed.holds(name) {
            return false;
        }
        if self.requests.contains_key(&name) {
            return true;
        }
        let (low, high) = ((name.0, 0), (name.0, u64::MAX));
        if self.requests.range(low..=high).count() >= PER_ORIGIN_MAX {
            return false;
        }
        self.places += 1;
        self.order.insert(self.places, name);
        let pooled = Pooled { request: request.clone(), place: self.places, proposed: false };
        self.requests.insert(name, pooled);
        true
    }

    /// A request has its sequence number in this view.
    pub(super) fn add_proposed(&mut self, request: &Arc<Request>, executed: &Executed) {
        if self.add(request, executed)
            && let Some(pooled) = self.requests.get_mut(&request.name())
        {
            pooled.proposed = true;
        }
    }

    pub(super) fn holds(&self, name: Name) -> bool {
        self.requests.contains_key(&name)
    }

    /// Takes the oldest that have no number yet, up to so many bytes; one may be larger and then goes alone.
    pub(super) fn take(&mut self, bytes_max: usize) -> Vec<Arc<Request>> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for name in self.order.values() {
            let Some(pooled) = self.requests.get_mut(name).filter(|pooled| !pooled.proposed) else {
                continue;
            };
            let length = synod_core::batch_bytes(&pooled.request.batch);
            if !taken.is_empty() && bytes + length > bytes_max {
                break;
            }
            bytes += length;
            pooled.proposed = true;
            taken.push(pooled.request.clone());
        }
        taken
    }

    /// A request was executed.
    pub(super) fn remove(&mut self, name: Name) {
        if let Some(pooled) = self.requests.remove(&name) {
            self.order.remove(&pooled.place);
        }
    }

    /// Forgets what was executed, or never will be.
    pub(super) fn forget_executed(&mut self, executed: &Executed) {
        self.requests.retain(|name, pooled| {
            let keep = !executed.holds(*name);
            if !keep {
                self.order.remove(&pooled.place);
            }
            keep
        });
    }

    /// Requests for one view alone.
    pub(super) fn bound(&self) -> usize {
        self.requests.values().filter(|pooled| pooled.request.only_in.is_some()).count()
    }

    /// A view begins: nothing has its number in it yet, and what was meant for another one is void.
    pub(super) fn begin_view(&mut self, view: View) {
        self.requests.retain(|_, pooled| {
            let keep = pooled.request.only_in.is_none_or(|only| only == view);
            if !keep {
                self.order.remove(&pooled.place);
            }
            keep
        });
        for pooled in self.requests.values_mut() {
            pooled.proposed = false;
        }
    }

    /// The place of the oldest, which no other request ever has.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.order.keys().next().copied()
    }
}
