//! What replicas say to one another, and what they must not forget.
//!
//! The paper's four messages keep their names as verbs: 1a is Prepare, 1b Promise, 2a Accept, 2b Accepted. An Accept
//! carries the values of slots that follow one another, and a Promise whatever was accepted from a slot on, so that one of
//! each speaks for many instances at once (Paxos Made Simple, section 3). The rest is what practice adds: Probe asks
//! before a ballot is spent, Heartbeat keeps leader and lease alive, Decided tells what is chosen.

use std::fmt;
use std::sync::Arc;

use synod_core::{Batch, Index, Members, NodeId, Time};

/// Rounds and slots beyond this are malformed: so no sum overflows, whatever a peer says.
pub(super) const NUMBER_MAX: u64 = 1 << 60;

/// What a Promise covers that leaves nothing out: all slots.
pub(super) const ALL_SLOTS: Index = Index(NUMBER_MAX);

/// A ballot: totally ordered, and each belongs to one replica, which alone may lead in it (PMMC 2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot {
    /// Compared first.
    pub round: u64,
    /// Whose ballot it is.
    pub leader: NodeId,
}

impl Ballot {
    /// Above all that can be led: marks what is known to be chosen, while it waits to be taken over.
    pub(super) const CHOSEN: Ballot = Ballot { round: u64::MAX, leader: NodeId(u64::MAX) };
}

/// Short, because traces are full of them: `b3.n1`.
impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}.{:?}", self.round, self.leader)
    }
}

/// What a slot can hold.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Commands; none in a no-op.
    Batch(Batch),
    /// The configuration for all slots after this one.
    Members(Arc<Members>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Batch(batch) => write!(f, "{batch:?}"),
            Value::Members(members) => write!(f, "{members:?}"),
        }
    }
}

/// A value that was accepted in a slot, and by which ballot: what PMMC calls a *pvalue*.
#[derive(Clone, PartialEq, Eq)]
pub struct Pvalue {
    /// The slot.
    pub at: Index,
    /// The ballot in which it was accepted.
    pub ballot: Ballot,
    /// What was accepted.
    pub value: Value,
}

/// `@4 b1.n1 [n1#1=x]`.
impl fmt::Debug for Pvalue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.at, self.ballot, self.value)
    }
}

/// Slots that follow one another, both ends included.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: Index,
    /// The last.
    pub last: Index,
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", self.first, self.last)
    }
}

/// Why a promise is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To lead.
    Election,
    /// To lead because the leader wants it: the leader being alive is no reason to refuse.
    Transfer,
}

/// What replicas say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Would you promise this ballot? Binds nobody.
    Probe {
        /// The ballot that would be led in.
        ballot: Ballot,
        /// The first slot that the asker does not know to be decided.
        from: Index,
    },
    /// The answer.
    Probed {
        /// As in the probe.
        ballot: Ballot,
        /// Yes or no.
        granted: bool,
        /// What the answerer has promised already.
        promised: Ballot,
    },
    /// Phase 1a, for all slots from `from` on.
    Prepare {
        /// The ballot to lead in.
        ballot: Ballot,
        /// The first slot that the proposer does not know to be decided, or the first that an answer left out.
        from: Index,
        /// Why.
        purpose: Purpose,
    },
    /// Phase 1b: nothing below this ballot will be accepted any more, and this is what was.
    Promise {
        /// As in the Prepare.
        ballot: Ballot,
        /// As in the Prepare.
        from: Index,
        /// The last slot that this answer speaks of; what comes after it must be asked for.
        upto: Index,
        /// Everything accepted in those slots.
        accepted: Vec<Pvalue>,
        /// Up to here, what was accepted is decided.
        decided: Index,
    },
    /// A Prepare, an Accept or a Heartbeat comes too late, or too early.
    Refused {
        /// The ballot of what is refused.
        asked: Ballot,
        /// What the acceptor has promised.
        promised: Ballot,
    },
    /// Phase 2a, for slots that follow one another.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The slot of the first value.
        first: Index,
        /// The values.
        values: Vec<Value>,
        /// Up to here, all slots are decided.
        decided: Index,
    },
    /// Phase 2b: on disk.
    Accepted {
        /// The leader's ballot.
        ballot: Ballot,
        /// All slots up to here are accepted in this ballot, or known to be decided.
        through: Index,
        /// And these, beyond a gap.
        beyond: Vec<Range>,
    },
    /// The leader is alive.
    Heartbeat {
        /// Its ballot.
        ballot: Ballot,
        /// Up to here, all slots are decided.
        decided: Index,
        /// The newest round of reads to be confirmed.
        round: u64,
        /// The leader's clock at sending; only the leader reads it.
        sent: Time,
    },
    /// The acceptor had promised no higher ballot when the heartbeat came.
    HeartbeatAck {
        /// As in the heartbeat.
        ballot: Ballot,
        /// As in the heartbeat.
        round: u64,
        /// As in the heartbeat.
        sent: Time,
        /// Accepted in this ballot, or known to be decided, up to here: in memory.
        received: Index,
        /// The same on disk.
        durable: Index,
        /// Known to be decided up to here, and the disk knows it too.
        knows: Index,
    },
    /// All slots up to here are decided, and the leader has nothing else to say.
    Decided {
        /// The leader's ballot.
        ballot: Ballot,
        /// Up to here.
        upto: Index,
    },
    /// Follows a snapshot of the state.
    Install {
        /// The leader's ballot.
        ballot: Ballot,
        /// The last slot that the snapshot covers.
        at: Index,
        /// The configuration after that slot.
        members: Arc<Members>,
    },
    /// The state is older than the first slot that is kept: only a snapshot helps.
    NeedSnapshot {
        /// The leader's ballot.
        ballot: Ballot,
        /// The snapshot must reach at least to here.
        from: Index,
    },
    /// A follower's clients want this ordered.
    Forward {
        /// The ballot of the leader that is meant; no other may take it.
        ballot: Ballot,
        /// How often the follower was opened.
        life: u64,
        /// Counts the follower's messages of this kind within its life: a copy is recognised.
        number: u64,
        /// The commands.
        batch: Batch,
    },
    /// A follower's reads want a fence.
    RequestIndex {
        /// How often the follower was opened.
        life: u64,
        /// Counts the follower's requests within its life.
        number: u64,
    },
    /// The answer: what the reads must have seen.
    ReadIndex {
        /// As in the request.
        life: u64,
        /// As in the request.
        number: u64,
        /// Everything up to here.
        index: Index,
    },
    /// The leader wants the receiver to lead.
    Invite {
        /// The leader's ballot.
        ballot: Ballot,
    },
}

/// What a replica must not forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Nothing below this ballot may be accepted any more.
    Promised(Ballot),
    /// A value was accepted; its ballot is promised with it.
    Accepted(Pvalue),
    /// What is accepted up to here is decided.
    Decided(Index),
    /// All slots up to here are covered by a snapshot.
    Base {
        /// Up to here.
        at: Index,
        /// The configuration after that slot.
        members: Arc<Members>,
    },
    /// The replica was opened for the so-manieth time.
    Life(u64),
}

impl Message {
    /// The ballot that the message is about, where it is the sender's own as a proposer or leader.
    pub(super) fn led(&self) -> Option<Ballot> {
        match self {
            Message::Probe { ballot, .. }
            | Message::Prepare { ballot, .. }
            | Message::Accept { ballot, .. }
            | Message::Heartbeat { ballot, .. }
            | Message::Decided { ballot, .. }
            | Message::Install { ballot, .. }
            | Message::Invite { ballot } => Some(*ballot),
            _ => None,
        }
    }

    /// Every number that sums are made of, for the check that none is out of bounds.
    pub(super) fn is_bounded(&self) -> bool {
        let ballot = |ballot: &Ballot| ballot.round <= NUMBER_MAX;
        let index = |index: &Index| index.0 <= NUMBER_MAX;
        match self {
            Message::Probe { ballot: b, from } | Message::Prepare { ballot: b, from, .. } => {
                ballot(b) && index(from)
            }
            Message::Probed { ballot: b, promised, .. } => ballot(b) && ballot(promised),
            Message::Promise { ballot: b, from, upto, accepted, decided } => {
                let fits = |it: &Pvalue| it.at >= *from && it.at <= *upto && ballot(&it.ballot);
                let ascend = accepted.windows(2).all(|pair| pair[0].at < pair[1].at);
                ballot(b)
                    && index(from)
                    && index(upto)
                    && index(decided)
                    && ascend
                    && accepted.iter().all(|it| fits(it) && it.value.is_sound())
            }
            Message::Refused { asked, promised } => ballot(asked) && ballot(promised),
            Message::Accept { ballot: b, first, values, decided } => {
                ballot(b)
                    && index(first)
                    && first.0 > 0
                    && index(decided)
                    && values.len() as u64 <= NUMBER_MAX - first.0
                    && values.iter().all(Value::is_sound)
            }
            Message::Accepted { ballot: b, through, beyond } => {
                let sound = |range: &Range| range.first <= range.last && index(&range.last);
                ballot(b) && index(through) && beyond.iter().all(sound)
            }
            Message::Heartbeat { ballot: b, decided, .. } => ballot(b) && index(decided),
            Message::HeartbeatAck { ballot: b, received, durable, knows, .. } => {
                ballot(b) && index(received) && index(durable) && index(knows)
            }
            Message::Decided { ballot: b, upto } => ballot(b) && index(upto),
            Message::Install { ballot: b, at, members } => {
                ballot(b) && index(at) && members.is_sound() && !members.voters.is_empty()
            }
            Message::NeedSnapshot { ballot: b, from } => ballot(b) && index(from),
            Message::Forward { ballot: b, .. } | Message::Invite { ballot: b } => ballot(b),
            Message::ReadIndex { index: at, .. } => index(at),
            Message::RequestIndex { .. } => true,
        }
    }
}

impl Value {
    /// Whether a correct replica could have proposed it.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Value::Batch(_) => true,
            Value::Members(members) => members.is_sound() && !members.voters.is_empty(),
        }
    }
}
