//! The four levels at work: what a call waits for before it looks at the store.
//!
//! Linearizable: a fence. Sequential and causal: as far as the client's tokens, which is all that a session needs. Eventual: nothing,
//! or, with `synod-max-staleness`, the knowledge that this replica was up to date not longer ago than that; a fence gives that
//! knowledge, and one fence is enough for all reads within the bound. The contract is asked first.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::HeaderValue;
use synod_api::Method;

use super::Service;
use super::backend::{Backend, Failure};
use super::metadata::Metadata;
use super::session::{Place, Token};
use crate::contract::{Call, Level};
use crate::status::{Code, Status};

/// With the answer to a write: how many confirmations it had, where that is all that can be said of it.
pub const CONFIRMATIONS: &str = "synod-confirmations";

/// Whether the answer to this method says after how many confirmations it was given, where there are any.
#[must_use]
pub fn says_confirmations(method: Method) -> bool {
    matches!(method, Method::Put | Method::DeleteRange | Method::Txn | Method::Compact)
}

/// When this replica was known to be up to date last.
pub(super) struct Freshness {
    begun: Instant,
    /// Nanoseconds after `begun`; 0: never.
    known_at: AtomicU64,
}

impl Freshness {
    pub(super) fn new() -> Freshness {
        Freshness { begun: Instant::now(), known_at: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl<B: Backend> Service<B> {
    /// Whether the protocol gives this at all.
    pub(super) fn allow(&self, call: Call, level: Level) -> Result<(), Status> {
        self.backend.contract().check(call, level)
    }

    /// Waits for what a read must see. `serializable` is what the request itself says.
    pub(super) async fn ready_to_read(
        &self,
        metadata: &Metadata,
        serializable: bool,
        call: Call,
    ) -> Result<(), Status> {
        let level = metadata.level(serializable);
        self.allow(call, level)?;
        if level == Level::Linearizable {
            self.refuse_learner()?;
            return self.fence().await;
        }
        match metadata.staleness_max {
            None => Ok(()),
            Some(bound) => Box::pin(self.bound_staleness(bound)).await,
        }
    }

    /// Waits for a fence, where the protocol has such a thing: what has none shows what is here.
    pub(super) async fn fence_if_any(&self) -> Result<(), Status> {
        if self.backend.contract().has_fences() { self.fence().await } else { Ok(()) }
    }

    /// Returns when this replica is known to lag no more than `bound` behind.
    async fn bound_staleness(&self, bound: Duration) -> Result<(), Status> {
        self.allow(Call::ReadBounded, Level::Eventual)?;
        let (started, known_at) = (self.freshness.now(), self.freshness.known_at.load(Relaxed));
        if known_at > 0 && Duration::from_nanos(started - known_at.min(started)) <= bound {
            return Ok(());
        }
        // What was acknowledged before the fence was asked for is here when it stands.
        let patience = bound + self.options.election_timeout;
        match tokio::time::timeout(patience, self.backend.fence()).await {
            Ok(Ok(())) => {
                self.freshness.known_at.fetch_max(started, Relaxed);
                Ok(())
            }
            Ok(Err(failure @ (Failure::Stopped | Failure::Unsupported(_)))) => Err(failure.into()),
            Ok(Err(_)) | Err(_) => Err(Status::new(
                Code::Unavailable,
                format!(
                    "synod: this replica may lag more than {bound:?} behind: the others do not answer it"
                ),
            )),
        }
    }

    /// Waits until this replica has come as far as the client's tokens say.
    pub(super) async fn follow(&self, tokens: &[Token]) -> Result<(), Status> {
        let (contract, identity) = (self.backend.contract(), self.backend.identity());
        let applied = self.backend.standing().applied;
        let single = matches!(self.backend.place(), Place::Index(_));
        let mut places = Vec::new();
        for token in tokens {
            let foreign = |what: &str, theirs: String, ours: String| {
                let sentence =
                    format!("synod: synod-session is a token of {what} {theirs}, and this is {what} {ours}");
                Status::new(Code::InvalidArgument, sentence)
            };
            if token.protocol != contract.protocol.as_bytes() {
                let theirs = String::from_utf8_lossy(&token.protocol).into_owned();
                return Err(foreign("protocol", theirs, contract.protocol.to_owned()));
            }
            if token.cluster != identity.cluster {
                let (theirs, ours) = (format!("{:x}", token.cluster), format!("{:x}", identity.cluster));
                return Err(foreign("cluster", theirs, ours));
            }
            match &token.place {
                Place::Index(index) if single && *index <= applied => {}
                place => places.push(place.clone()),
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        self.backend.reach(places).await.map_err(Status::from)
    }

    /// What the answer to this method says of its confirmations.
    pub fn confirmations(&self, method: Method) -> Option<HeaderValue> {
        let confirmations =
            self.backend.contract().offer.confirmations.filter(|_| says_confirmations(method))?;
        Some(HeaderValue::from(confirmations))
    }

    /// Whether answers say any.
    pub fn says_confirmations(&self) -> bool {
        self.backend.contract().offer.confirmations.is_some()
    }

    /// The token of an answer that was made before this call.
    pub fn token(&self) -> HeaderValue {
        let place = self.backend.place();
        let token = Token {
            protocol: self.backend.contract().protocol.as_bytes().into(),
            cluster: self.backend.identity().cluster,
            place,
            revision: self.backend.store().read().revision(),
        };
        token.header()
    }
}
