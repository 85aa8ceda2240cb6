//! What PBFT replicas say to one another, and what they must not forget.
//!
//! The messages are the paper's (4.2 to 4.4), with what it leaves to the implementer: `Status`, `Fetch` and `Decided`
//! bring back what was lost on the way, `Saved` and `InstallSnapshot` carry state. A sequence number is an [`Index`]:
//! what is decided at `n` is delivered at `n`, and nothing else is.

use std::fmt;
use std::sync::Arc;

use synod_core::{Batch, Index, NodeId, Wire};

use super::dedup::Executed;
use super::keys::{Digest, Keys, Mac, Signature, Subject, digest};

/// A configuration with one primary: the replica number `view mod n` (4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct View(pub u64);

/// Views, sequence numbers and request numbers beyond this are malformed: so no sum overflows, whatever a peer says.
pub(super) const NUMBER_MAX: u64 = 1 << 60;

impl View {
    /// The view after this one.
    pub(super) fn next(self) -> View {
        View(self.0 + 1)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// What the clients of one replica want ordered: the paper's REQUEST, with the replica in the client's place.
///
/// Invariant: `digest` is that of the content, and every command's origin is `origin` once [`Request::is_valid`] said so.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The replica that its clients wait at.
    pub origin: NodeId,
    /// The paper's timestamp: ascending at its origin, never used twice.
    pub number: u64,
    /// The only view in which a primary may give it a number: what its origin wants ordered while it is the primary itself.
    pub only_in: Option<View>,
    /// The commands; none for a fence.
    pub batch: Batch,
    /// The origin's.
    pub signature: Signature,
    digest: Digest,
}

impl Request {
    /// A request as its origin makes it.
    #[must_use]
    pub fn new(origin: NodeId, number: u64, batch: Batch, keys: &Keys) -> Request {
        Request::within(None, origin, number, batch, keys)
    }

    /// A request as its origin makes it, for one view alone if it says which.
    #[must_use]
    pub fn within(only_in: Option<View>, origin: NodeId, number: u64, batch: Batch, keys: &Keys) -> Request {
        let digest = content(only_in, origin, number, &batch);
        let signature = keys.sign(Subject::Request, digest);
        Request { origin, number, only_in, batch, signature, digest }
    }

    /// A request as it was received: nothing is proven yet.
    #[must_use]
    pub fn received(
        only_in: Option<View>,
        origin: NodeId,
        number: u64,
        batch: Batch,
        signature: Signature,
    ) -> Request {
        let digest = content(only_in, origin, number, &batch);
        Request { origin, number, only_in, batch, signature, digest }
    }

    /// Whether its origin made it, of its own clients' commands.
    #[must_use]
    pub fn is_valid(&self, keys: &Keys) -> bool {
        self.batch.iter().all(|command| command.id.origin == self.origin)
            && keys.verify(self.origin, Subject::Request, self.digest, &self.signature)
    }

    /// The request's name.
    #[must_use]
    pub fn name(&self) -> (NodeId, u64) {
        (self.origin, self.number)
    }
}

fn content(only_in: Option<View>, origin: NodeId, number: u64, batch: &Batch) -> Digest {
    let (origin, number, batch) = (origin.0.to_le_bytes(), number.to_le_bytes(), batch.to_bytes());
    match only_in {
        None => digest(&[&origin, &number, &batch]),
        Some(view) => digest(&[&origin, &number, &batch, &view.0.to_le_bytes()]),
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}{:?}", self.origin, self.number, self.batch)?;
        self.only_in.map_or(Ok(()), |view| write!(f, " in {view:?} alone"))
    }
}

/// What is ordered at one sequence number: requests, or nothing (the null request that fills a gap, 4.4).
///
/// The digest covers signatures, too: who holds something with this digest holds exactly this.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal {
    /// In the order in which they are executed.
    pub requests: Vec<Arc<Request>>,
    digest: Digest,
}

impl Proposal {
    /// These requests in this order.
    #[must_use]
    pub fn new(requests: Vec<Arc<Request>>) -> Proposal {
        let mut parts = vec![0u8; 0];
        for request in &requests {
            parts.extend_from_slice(&request.digest.0);
            parts.extend_from_slice(&request.signature.0);
        }
        Proposal { digest: digest(&[b"proposal", &parts]), requests }
    }

    /// The null request.
    #[must_use]
    pub fn null() -> Proposal {
        Proposal::new(Vec::new())
    }

    /// Its name wherever only that is said.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Roughly what it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.requests.iter().map(|request| synod_core::batch_bytes(&request.batch) + 160).sum::<usize>() + 64
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.digest, self.requests)
    }
}

/// What a proof of a checkpoint proves: everything up to `at` was executed, and the history has this digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Point {
    /// The last sequence number executed.
    pub at: Index,
    /// The digest over all proposals up to there, which decides the state.
    pub history: Digest,
}

impl Point {
    /// What is signed.
    #[must_use]
    pub fn digest(self) -> Digest {
        digest(&[&self.at.0.to_le_bytes(), &self.history.0])
    }

    /// The history after one more proposal.
    pub(super) fn after(self, proposal: Digest) -> Point {
        Point { at: self.at.next(), history: digest(&[&self.history.0, &proposal.0]) }
    }
}

/// A proof that everything up to `point` is executed by enough (4.3): the signatures of a quorum.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Certificate {
    /// What it proves.
    pub point: Point,
    /// Each by another replica; none are needed for the beginning of time.
    pub signatures: Vec<(NodeId, Signature)>,
}

/// That a request prepared at this replica, or pre-prepared (the sets P and Q of the view change).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// At which sequence number.
    pub at: Index,
    /// In which view, at the latest.
    pub view: View,
    /// Which proposal.
    pub digest: Digest,
}

/// A replica leaves its view, and says what it knows (4.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewChange {
    /// The view to go to.
    pub view: View,
    /// Who says so.
    pub replica: NodeId,
    /// The last stable checkpoint (the paper's C).
    pub stable: Certificate,
    /// What prepared above it, one claim for a sequence number, ascending (P).
    pub prepared: Vec<Claim>,
    /// What pre-prepared above it, ascending (Q).
    pub pre_prepared: Vec<Claim>,
    /// The replica's.
    pub signature: Signature,
}

impl ViewChange {
    /// What is signed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut bytes = bytes::BytesMut::new();
        self.encode_content(&mut bytes);
        digest(&[&bytes])
    }
}

/// The primary of a view begins it (4.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewView {
    /// Which view.
    pub view: View,
    /// The view changes that justify it (V).
    pub view_changes: Vec<Arc<ViewChange>>,
    /// What must be proposed anew in this view, from the last stable checkpoint on (O).
    pub selection: Vec<Digest>,
    /// The primary's.
    pub signature: Signature,
}

impl NewView {
    /// What is signed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut bytes = self.view.0.to_le_bytes().to_vec();
        for view_change in &self.view_changes {
            bytes.extend_from_slice(&view_change.digest().0);
            bytes.extend_from_slice(&view_change.signature.0);
        }
        bytes.extend_from_slice(&(self.selection.len() as u64).to_le_bytes());
        for selected in &self.selection {
            bytes.extend_from_slice(&selected.0);
        }
        digest(&[&bytes])
    }
}

/// What a snapshot's state is made of beside the machine: what this protocol executes by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Base {
    /// Where, and behind which history.
    pub point: Point,
    /// Which requests were executed.
    pub executed: Executed,
}

impl Base {
    /// What a replica attests that saved this state, with the machine's part under this sum.
    pub(super) fn attested(&self, sum: Digest) -> Digest {
        digest(&[&self.point.digest().0, &digest(&[&self.executed.to_bytes()]).0, &sum.0])
    }
}

/// A message on its way from one replica to another, with the proof of who says it to whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What is said.
    pub message: Message,
    /// Under the secret of the two.
    pub mac: Mac,
}

impl Sealed {
    /// A message from the owner of these keys.
    #[must_use]
    pub fn new(message: Message, to: NodeId, keys: &Keys) -> Sealed {
        let mac = keys.mac(to, message.digest());
        Sealed { message, mac }
    }

    /// Whether `from` says this to the owner of these keys.
    #[must_use]
    pub fn is_from(&self, from: NodeId, keys: &Keys) -> bool {
        keys.checks(from, self.message.digest(), self.mac)
    }
}

/// Traces show what is said.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl Message {
    /// What a MAC is made of.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&[&self.to_bytes()])
    }
}

/// What PBFT replicas say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A replica's clients want something ordered.
    Request(Arc<Request>),
    /// The primary gives a proposal its sequence number.
    PrePrepare {
        /// In this view.
        view: View,
        /// At this sequence number.
        at: Index,
        /// What.
        proposal: Arc<Proposal>,
    },
    /// A backup agrees.
    Prepare {
        /// In this view.
        view: View,
        /// To this sequence number.
        at: Index,
        /// For this proposal.
        digest: Digest,
    },
    /// A replica has seen a quorum agree.
    Commit {
        /// In this view.
        view: View,
        /// To this sequence number.
        at: Index,
        /// For this proposal.
        digest: Digest,
    },
    /// A replica has executed everything up to here.
    Checkpoint {
        /// Up to here.
        point: Point,
        /// The sender's.
        signature: Signature,
    },
    /// A checkpoint that is stable, with its proof.
    Stable(Arc<Certificate>),
    /// A replica has saved its state here.
    Saved {
        /// Behind this delivery.
        at: Index,
        /// What `Base::attested` says of it.
        state: Digest,
        /// The sender's.
        signature: Signature,
    },
    /// A replica leaves its view.
    ViewChange(Arc<ViewChange>),
    /// A primary begins its view.
    NewView(Arc<NewView>),
    /// How far a replica is. What it lacks is sent again.
    Status(Progress),
    /// A replica lags: what was decided from here on?
    Fetch {
        /// The first sequence number that it lacks.
        from: Index,
        /// Whether the proposals are wanted, or only their names.
        content: Content,
    },
    /// The answer: facts, each to be believed when enough say the same.
    Decided {
        /// The first sequence number.
        from: Index,
        /// The proposals' names.
        digests: Vec<Digest>,
        /// The proposals, as many as fit.
        proposals: Vec<Arc<Proposal>>,
    },
    /// A replica is to order, or to agree to, what it does not hold.
    FetchProposal {
        /// At this sequence number.
        at: Index,
        /// The proposal with this name.
        digest: Digest,
    },
    /// The answer.
    Fetched {
        /// At this sequence number.
        at: Index,
        /// What was asked for.
        proposal: Arc<Proposal>,
    },
    /// What belongs to the snapshot that came before this message.
    InstallSnapshot {
        /// The protocol's part of the state.
        base: Arc<Base>,
        /// The machine's part: its SHA-256.
        sum: Digest,
        /// Signatures of enough replicas that saved the same.
        proof: Vec<(NodeId, Signature)>,
    },
}

/// What an answer to `Fetch` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Names alone.
    Digests,
    /// Names and proposals, or a snapshot when they are not kept any more.
    Proposals,
    /// A snapshot, whatever is kept.
    Snapshot,
}

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Its view.
    pub view: View,
    /// The last sequence number that it executed.
    pub executed: Index,
    /// Its last stable checkpoint.
    pub stable: Index,
    /// The last snapshot of its own for which it holds a proof.
    pub proven: Index,
}

/// A fact that must survive a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// How often this replica was opened. Written first in every life.
    Life(u64),
    /// It left for this view, and takes no part in any earlier one.
    View(View),
    /// The view that it left for has begun.
    NewView(Arc<NewView>),
    /// It accepted this proposal, and agreed to it.
    PrePrepare {
        /// In this view.
        view: View,
        /// At this sequence number.
        at: Index,
        /// What.
        proposal: Arc<Proposal>,
    },
    /// It saw a quorum agree.
    Prepared {
        /// In this view.
        view: View,
        /// At this sequence number.
        at: Index,
        /// To this proposal.
        digest: Digest,
    },
    /// A proposal that it holds is decided.
    Decided {
        /// At this sequence number.
        at: Index,
        /// Which.
        digest: Digest,
    },
    /// Something is decided that it learned from others.
    Learned {
        /// At this sequence number.
        at: Index,
        /// What.
        proposal: Arc<Proposal>,
    },
    /// A checkpoint is stable.
    Stable(Arc<Certificate>),
    /// What follows stands on a snapshot.
    Base(Arc<Base>),
}
