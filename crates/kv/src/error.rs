//! Everything that the store can answer instead of doing what was asked.
//!
//! The words are etcd's own (section 10 of the API's description), because clients match them letter by
//! letter. Which gRPC code goes with each is the server's business.

/// Why a request was not carried out. The state is then unchanged, on every replica alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum OpError {
    /// A key is empty.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist; also an operation of a transaction without content.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// `ignore_value` together with a value.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// More compares or operations than allowed, counted with what the transactions around it used up.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// One branch of a transaction would change a key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// An order or a target of sorting that does not exist.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// The revision lies below what has been compacted.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision lies above the store's.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// The quota is used up: only what frees space is still done.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The lease does not exist (any more).
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A lease of this name exists already.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// A lease would live longer than [`LEASE_TTL_MAX`](crate::op::LEASE_TTL_MAX) seconds.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// The member does not exist.
    #[error("etcdserver: member not found")]
    MemberNotFound,
    /// The CORRUPT alarm is up: nothing may be built on this data.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// RangeStream with a sort other than ascending by key.
    #[error("RangeStream does not support custom sort orders")]
    StreamSort,
    /// RangeStream with a filter on revisions.
    #[error("RangeStream does not support revision filters")]
    StreamFilter,
    /// The command's payload is not an operation that this version understands.
    #[error("etcdserver: malformed command")]
    Malformed,
    /// A wish that was carried out before, or is so far behind its client's others that it never will be.
    #[error("synod: this request was carried out before, or is void")]
    AlreadyDone,
    /// The reads of a wish would give more than every replica is ready to keep.
    #[error("synod: the answer has more than 16 MiB: ask for less at a time")]
    AnswerTooLarge,
    /// The protocol promises no single order of writes, and this cannot be had without one: the sentence says why.
    #[error("{0}")]
    NeedsOneOrder(&'static str),
}
