//! The contract: what each protocol gives, and in which words it refuses the rest.
//!
//! A protocol states what it lacks once, in its [`Offer`]. The services consult the offer before they act, so a guarantee that a
//! protocol cannot give is refused with the sentence that says why, and never silently weakened.

/// Whether something is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// It is, as etcd gives it.
    Yes,
    /// It is, with something to know about it.
    Noted(&'static str),
    /// It is refused with this sentence, which says what the protocol lacks: `causal broadcast has no single order to read up to`.
    No(&'static str),
}

/// What a protocol gives to clients. Rows say only what differs from [`Offer::EVERYTHING`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Writes: when they are answered, and what an answer is worth.
    pub writes: Cell,
    /// Reads that see every write acknowledged anywhere before them.
    pub linearizable: Cell,
    /// Reads in one order for all, that see the client's own writes.
    pub sequential: Cell,
    /// Reads that see whatever was seen before what they depend upon.
    pub causal: Cell,
    /// Transactions with comparisons: the comparison and the writes are one step, for all replicas.
    pub compares: Cell,
    /// Several writes in one transaction without comparisons.
    pub groups: Cell,
    /// Revisions: the same number means the same state everywhere. Reads at a revision, watches from one, compaction.
    pub revisions: Cell,
    /// Leases: keys that go when nobody renews them, never early.
    pub leases: Cell,
    /// Adding, removing and replacing members.
    pub reconfigure: Cell,
    /// Handing leadership over when asked to.
    pub transfer: Cell,
}

impl Offer {
    /// All that etcd gives.
    pub const EVERYTHING: Offer = Offer {
        writes: Cell::Yes,
        linearizable: Cell::Yes,
        sequential: Cell::Yes,
        causal: Cell::Yes,
        compares: Cell::Yes,
        groups: Cell::Yes,
        revisions: Cell::Yes,
        leases: Cell::Yes,
        reconfigure: Cell::Yes,
        transfer: Cell::Yes,
    };
}
