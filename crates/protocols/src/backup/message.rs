//! What primary and backups say to one another, and what they must not forget.
//!
//! The seed's picture has two messages: the primary replicates, a backup acknowledges. The rest exists because machines
//! fail: views and how they are agreed upon ([`Message::Prepare`] to [`Message::NewView`]), repair, snapshots, reads.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use synod_core::{Batch, Index, Members, NodeId, Time, quorum};

/// Counts the views; each has at most one primary, and that in one life only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ViewNumber(pub u64);

/// Numbers beyond this are malformed: so no sum overflows, whatever a peer says.
pub(super) const NUMBER_MAX: u64 = 1 << 60;

impl ViewNumber {
    /// The view after this one.
    pub(super) fn next(self) -> ViewNumber {
        ViewNumber(self.0 + 1)
    }
}

impl fmt::Debug for ViewNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// When a write is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Replication {
    /// When every member of the view has it on disk.
    #[default]
    Sync,
    /// When the primary has it on disk, and its lease holds. A failover may lose it.
    Async,
}

/// Who does what, until the next view: agreed upon by a majority of the members of the view before it.
///
/// Invariants, but for view 0, which has no primary: the primary and the backups are voters, and the primary is no backup.
/// Everybody in a view holds every write that was decided in the views before it.
#[derive(Clone, PartialEq, Eq)]
pub struct View {
    /// Its number.
    pub number: ViewNumber,
    /// Who orders the writes; nobody in view 0.
    pub primary: Option<NodeId>,
    /// Who must hold a write before it is decided (or, under asynchronous replication, should).
    pub backups: BTreeSet<NodeId>,
    /// Whose majority agrees upon the next view, and who listens.
    pub members: Arc<Members>,
    /// When a write of this view is decided.
    pub replication: Replication,
    /// The last view whose beginning may have lost decided writes; 0 when none has.
    pub loss: ViewNumber,
}

impl View {
    /// What there is before anything was agreed upon: all may become primary, because nothing was decided.
    pub(super) fn initial(members: &Members) -> View {
        View {
            number: ViewNumber(0),
            primary: None,
            backups: members.voters.clone(),
            members: Arc::new(members.clone()),
            replication: Replication::default(),
            loss: ViewNumber(0),
        }
    }

    /// Whether this node holds everything that was decided before this view, and must hold what is decided in it.
    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.primary == Some(node) || self.backups.contains(&node)
    }

    /// The primary and the backups.
    pub(super) fn all(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.primary.into_iter().chain(self.backups.iter().copied())
    }

    /// How many hold what is decided here.
    pub(super) fn copies(&self) -> usize {
        self.backups.len() + usize::from(self.primary.is_some())
    }

    /// How many copies the next view must have, under these members: a majority, so that whoever is lost, as long as a
    /// majority is left one of them holds everything. Fewer only where there were fewer before.
    pub(super) fn copies_min(&self, members: &Members) -> usize {
        quorum::majority(members.voters.len()).min(self.copies())
    }

    /// Whether the invariants hold, and the members are such as can agree: what comes from outside is checked with this.
    pub(super) fn is_sound(&self) -> bool {
        let members = &self.members;
        let voters = self.all().all(|node| members.voters.contains(&node));
        let primary = self.primary.is_some_and(|node| node != NodeId(0) && !self.backups.contains(&node));
        let plain = members.is_sound() && !members.is_joint() && !members.voters.contains(&NodeId(0));
        (primary || self.number == ViewNumber(0)) && voters && plain && self.loss <= self.number
    }
}

/// Short, because traces are full of them: `v2(n1; n2 n3)`.
impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}(", self.number)?;
        match self.primary {
            Some(primary) => write!(f, "{primary:?};")?,
            None => write!(f, "-;")?,
        }
        for backup in &self.backups {
            write!(f, " {backup:?}")?;
        }
        let outside: Vec<NodeId> =
            self.members.voters.iter().copied().filter(|it| !self.contains(*it)).collect();
        if !outside.is_empty() {
            write!(f, "; outside {outside:?}")?;
        }
        if !self.members.learners.is_empty() {
            write!(f, "; learners {:?}", self.members.learners)?;
        }
        if self.replication == Replication::Async {
            write!(f, "; async")?;
        }
        if self.loss > ViewNumber(0) {
            write!(f, "; loss in {:?}", self.loss)?;
        }
        write!(f, ")")
    }
}

/// A place in a log: a view has one primary in one life, so index and view tell what is there, and all before it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Which entry.
    pub index: Index,
    /// The view in which it was made.
    pub view: ViewNumber,
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.index, self.view)
    }
}

/// An entry of the log; its index is its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The view of the primary that made it.
    pub view: ViewNumber,
    /// What it holds.
    pub body: Body,
}

/// Short, because traces are full of them: `v2[n1#1=x]`.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Batch(batch) => write!(f, "{:?}{batch:?}", self.view),
            Body::Begin(members) => {
                write!(f, "{:?} begins with {:?}", self.view, members.all().collect::<Vec<_>>())
            }
        }
    }
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Commands.
    Batch(Batch),
    /// A view begins, with these members.
    Begin(Arc<Members>),
}

/// Orders the attempts to agree upon the next view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ballot {
    /// Counts attempts.
    pub round: u64,
    /// Whose attempt it is.
    pub node: NodeId,
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}.{:?}", self.round, self.node)
    }
}

/// A view that somebody accepted, and in which attempt.
pub type Accepted = (Ballot, Arc<View>);

/// What primary and backups say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The primary's entries after a position.
    Replicate {
        /// The primary's view.
        view: ViewNumber,
        /// What comes right before the entries.
        previous: Position,
        /// The entries, in order; none when only the position is in question.
        entries: Vec<Entry>,
        /// How far the primary knows writes to be decided.
        decided: Index,
    },
    /// The backup holds, on disk, what the primary holds, up to here.
    Replicated {
        /// The backup's view.
        view: ViewNumber,
        /// Up to here.
        matched: Index,
    },
    /// The backup holds something else at the position before the entries, or nothing.
    Rejected {
        /// The backup's view.
        view: ViewNumber,
        /// The position that was in question.
        probe: Index,
        /// The last place at which the backup could agree, as far as it can tell; beyond the probe when its log begins later.
        hint: Position,
        /// What it has applied.
        delivered: Index,
    },
    /// The backup has applied what the primary's history lacks: only the primary's state helps.
    Diverged {
        /// The backup's view.
        view: ViewNumber,
        /// What it has applied.
        delivered: Index,
    },
    /// The primary is alive.
    Heartbeat {
        /// The view, whole: so whoever missed its beginning learns of it.
        view: Arc<View>,
        /// How far the primary knows writes to be decided.
        decided: Index,
        /// The newest round of reads to be confirmed.
        round: u64,
        /// The primary's clock at sending; only the primary reads it.
        sent: Time,
    },
    /// The member was of this view when the heartbeat came.
    HeartbeatAck {
        /// The member's view.
        view: ViewNumber,
        /// As in the heartbeat.
        round: u64,
        /// As in the heartbeat.
        sent: Time,
        /// What it promised to somebody other than the primary; the ack then confirms nothing.
        rival: Option<Ballot>,
        /// Up to here, the member's log in memory is the primary's.
        received: Index,
        /// Up to here, the member's log on disk is the primary's.
        durable: Index,
    },
    /// The primary has decided up to here, and has nothing else to say.
    Decided {
        /// The primary's view.
        view: ViewNumber,
        /// Up to here.
        decided: Index,
    },
    /// Phase 1 of agreeing upon the view after `view`.
    Prepare {
        /// The last view that the proposer knows, whole.
        view: Arc<View>,
        /// The attempt.
        ballot: Ballot,
    },
    /// The answer: no earlier attempt will be accepted.
    Promise {
        /// The view that comes before the one in question.
        view: ViewNumber,
        /// As in the question.
        ballot: Ballot,
        /// What was accepted already.
        accepted: Option<Accepted>,
        /// Where the log ends; nothing when the state before it is lost, so that this member cannot lead.
        last: Option<Position>,
    },
    /// Phase 2.
    Accept {
        /// The view that comes before the one in question.
        view: ViewNumber,
        /// The attempt.
        ballot: Ballot,
        /// The view that is proposed.
        next: Arc<View>,
    },
    /// The answer: it is accepted.
    Accepted {
        /// The view that comes before the one in question.
        view: ViewNumber,
        /// The attempt.
        ballot: Ballot,
    },
    /// A later attempt was promised already.
    Outbid {
        /// The view that comes before the one in question.
        view: ViewNumber,
        /// That attempt.
        promised: Ballot,
    },
    /// This view was agreed upon.
    NewView {
        /// It.
        view: Arc<View>,
    },
    /// Follows a snapshot of the primary's state.
    InstallSnapshot {
        /// The primary's view.
        view: ViewNumber,
        /// The last entry that the snapshot covers.
        last: Position,
    },
    /// The state is older than what the log begins with: only a snapshot helps.
    NeedSnapshot {
        /// The backup's view.
        view: ViewNumber,
        /// The snapshot must reach at least to here.
        from: Index,
    },
    /// A backup's clients want this ordered.
    Forward {
        /// The backup's view: only its primary, in that very reign, may take it.
        view: ViewNumber,
        /// How often the backup was opened.
        life: u64,
        /// Counts the backup's messages of this kind within its life: a copy is recognised.
        number: u64,
        /// The commands.
        batch: Batch,
    },
    /// A backup's reads want a fence.
    RequestIndex {
        /// The backup's view.
        view: ViewNumber,
        /// How often the backup was opened.
        life: u64,
        /// Counts the backup's requests within its life.
        number: u64,
    },
    /// The answer: what the reads must have seen.
    ReadIndex {
        /// The primary's view.
        view: ViewNumber,
        /// As in the request.
        life: u64,
        /// As in the request.
        number: u64,
        /// Everything up to here.
        index: Index,
    },
}

/// What a replica must not forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The replica was opened for the so-manieth time.
    Life(u64),
    /// This view was agreed upon. What was promised and accepted about it is forgotten.
    View(Arc<View>),
    /// About the next view: no earlier attempt will be accepted.
    Promised(Ballot),
    /// About the next view: this was accepted.
    Accepted {
        /// In this attempt.
        ballot: Ballot,
        /// This.
        next: Arc<View>,
    },
    /// The log begins after a snapshot. What it held after that position stays only if it agreed with it.
    Base(Position),
    /// An entry, which replaces whatever was at its index and after it.
    Entry {
        /// Its index.
        at: Index,
        /// What is there.
        entry: Entry,
    },
}

impl Message {
    /// Whether the views in it keep their invariants and no number is out of bounds: what comes in memory, past the
    /// decoder, is held to the same.
    pub(super) fn is_sound(&self) -> bool {
        let number = match self {
            Message::Heartbeat { view, .. } | Message::Prepare { view, .. } | Message::NewView { view } => {
                return view.is_sound() && view.number.0 <= NUMBER_MAX;
            }
            Message::Promise { view, accepted, .. } => {
                let sound = accepted.as_ref().is_none_or(|(_, next)| next.is_sound());
                return sound && view.0 <= NUMBER_MAX;
            }
            Message::Accept { view, ballot, next } => {
                return next.is_sound() && view.0 <= NUMBER_MAX && ballot.round <= NUMBER_MAX;
            }
            Message::Replicate { view, .. }
            | Message::Replicated { view, .. }
            | Message::Rejected { view, .. }
            | Message::Diverged { view, .. }
            | Message::HeartbeatAck { view, .. }
            | Message::Decided { view, .. }
            | Message::Accepted { view, .. }
            | Message::Outbid { view, .. }
            | Message::InstallSnapshot { view, .. }
            | Message::NeedSnapshot { view, .. }
            | Message::Forward { view, .. }
            | Message::RequestIndex { view, .. }
            | Message::ReadIndex { view, .. } => view,
        };
        number.0 <= NUMBER_MAX
    }
}
