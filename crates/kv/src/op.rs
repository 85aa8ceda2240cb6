//! What can be asked of the store, and what it answers.
//!
//! An [`Op`] is a request that changes something: its [`Wire`](synod_core::Wire) encoding (in `op_wire`) is the payload of a
//! command. A [`RangeRequest`] reads, and never goes through the log. The fields are those of etcd's messages of the
//! same names (sections 2, 4 and 6 of the API's description); numbers that a client may send as negative stay signed.
//!
//! Checks that need no state are in [`crate::validate`]; the server calls them before it proposes anything.
//! Left out: authentication, which belongs to a later floor of work.

use bytes::Bytes;

use crate::error::OpError;
use crate::once::Once;
use crate::record::KvList;

/// A lease may live at most this many seconds.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// Transactions may be nested this deep; a deeper one is refused as having too many operations.
pub const TXN_DEPTH_MAX: usize = 128;

/// Compares and operations that one level of a transaction may have, unless the server is told otherwise.
pub const TXN_OPS_MAX: usize = 128;

/// The order of a range's results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// As the store finds them: ascending by key, or ascending by the target when that is not the key.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What a range's results are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key's bytes.
    #[default]
    Key,
    /// How often the key was put since it was created.
    Version,
    /// The revision that created the key.
    Create,
    /// The revision that changed it last.
    Mod,
    /// The value's bytes.
    Value,
}

/// What of a range a client wants back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Keys and values.
    #[default]
    Full,
    /// Keys with their revisions and lease, without values.
    KeysOnly,
    /// How many there are, and nothing else.
    CountOnly,
}

/// A read of one key or of an interval of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// The key, or the interval's first.
    pub key: Bytes,
    /// Empty: one key. One zero byte: no upper end. Otherwise the first key that is not meant any more.
    pub range_end: Bytes,
    /// At most so many results; zero or less: all.
    pub limit: i64,
    /// As of this revision; zero or less: now.
    pub revision: i64,
    /// The order of the results.
    pub sort_order: SortOrder,
    /// What decides that order.
    pub sort_target: SortTarget,
    /// What is wanted back.
    pub content: Content,
    /// Only keys changed at or after this revision; zero: no bound. Likewise the next three.
    pub min_mod_revision: i64,
    /// Only keys changed at or before this revision.
    pub max_mod_revision: i64,
    /// Only keys created at or after this revision.
    pub min_create_revision: i64,
    /// Only keys created at or before this revision.
    pub max_create_revision: i64,
    /// Whether a stale answer will do. The store does not look at it; whether a transaction must be fenced depends on it.
    pub serializable: bool,
}

/// What a put does with the key's present value and lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutFlags {
    /// Answer with the pair as it was before.
    pub prev_kv: bool,
    /// Keep the present value; the key must exist.
    pub ignore_value: bool,
    /// Keep the present lease; the key must exist.
    pub ignore_lease: bool,
}

/// Sets a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Which.
    pub key: Bytes,
    /// To what.
    pub value: Bytes,
    /// Under which lease; zero: none, and an earlier lease is detached.
    pub lease: i64,
    /// What else is wished.
    pub flags: PutFlags,
}

/// Deletes a key or an interval of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRange {
    /// The key, or the interval's first.
    pub key: Bytes,
    /// As in [`RangeRequest::range_end`].
    pub range_end: Bytes,
    /// Answer with the pairs as they were before.
    pub prev_kv: bool,
}

/// How the two sides of a compare must relate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompareResult {
    /// Stored = given.
    #[default]
    Equal,
    /// Stored > given.
    Greater,
    /// Stored < given.
    Less,
    /// Stored ≠ given.
    NotEqual,
    /// A relation that this version does not know: holds for every key that exists (proto3's open enums make it
    /// legal, and upstream lets it pass).
    Unknown,
}

/// What is compared, with the given side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The key's version; 0 where it does not exist.
    Version(i64),
    /// The revision that created it; 0 where it does not exist.
    Create(i64),
    /// The revision that changed it last; 0 where it does not exist.
    Mod(i64),
    /// Its value. A key that does not exist has none, and every compare of it fails.
    Value(Bytes),
    /// Its lease; 0 for none.
    Lease(i64),
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key, or the interval's first.
    pub key: Bytes,
    /// As in [`RangeRequest::range_end`]; every key of the interval must satisfy the compare.
    pub range_end: Bytes,
    /// The relation.
    pub result: CompareResult,
    /// What is compared with what.
    pub target: CompareTarget,
}

/// One step of a transaction's branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOp {
    /// A read; sees what the transaction wrote before it, unless it names a revision.
    Range(RangeRequest),
    /// A write.
    Put(Put),
    /// A deletion.
    DeleteRange(DeleteRange),
    /// A transaction in the transaction; its compares look at the state before the outermost one.
    Txn(Txn),
    /// A request without content: refused with "key not found", as upstream does.
    Empty,
}

/// If all compares hold, `success`, else `failure`; all at one revision, or nothing at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// What to do when all hold.
    pub success: Vec<TxnOp>,
    /// What to do otherwise.
    pub failure: Vec<TxnOp>,
}

/// A member's alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// The quota is used up.
    NoSpace,
    /// Its data differ from the others'.
    Corrupt,
}

/// An alarm that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Which member raised it.
    pub member: u64,
    /// What is wrong.
    pub kind: AlarmKind,
}

/// What to do with alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmAction {
    /// Raise one.
    Activate(Alarm),
    /// Take one down; one that is not up is no error.
    Deactivate(Alarm),
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberAttributes {
    /// Its name, for people.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
}

/// A request that goes through the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// See [`Put`].
    Put(Put),
    /// See [`DeleteRange`].
    DeleteRange(DeleteRange),
    /// See [`Txn`].
    Txn(Txn),
    /// Gives up the history below a revision.
    Compact {
        /// The lowest revision that can still be read.
        revision: i64,
    },
    /// Creates a lease.
    LeaseGrant {
        /// Its name, chosen by whoever proposes; never 0.
        id: i64,
        /// Its length in seconds, already raised to the minimum by whoever proposes.
        ttl: i64,
    },
    /// Ends a lease and deletes its keys.
    LeaseRevoke {
        /// Which.
        id: i64,
    },
    /// Notes how much of each lease's time is left, so that a new leader need not start it afresh.
    LeaseCheckpoint {
        /// Lease and remaining seconds; 0 forgets an earlier note. Unknown leases are skipped.
        remaining: Vec<(i64, i64)>,
    },
    /// Raises or takes down an alarm.
    Alarm(AlarmAction),
    /// Publishes a member's name and addresses.
    MemberPublish {
        /// Which member.
        node: u64,
        /// What it says of itself.
        attributes: MemberAttributes,
    },
    /// Forgets a removed member's attributes and alarms.
    MemberForget {
        /// Which member.
        node: u64,
    },
    /// Sets the quota that applying decides by. It is replicated, because members with different opinions of
    /// it would carry out different writes; the leader proposes its own setting when it differs.
    SetQuota {
        /// How many bytes; 0: no quota.
        bytes: u64,
    },
    /// A wish that is carried out once, however often it is ordered.
    Once(Box<Once>),
}

/// What a range gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeReply {
    /// The store's revision when it was read (in a transaction: with the transaction's own writes so far).
    pub revision: i64,
    /// The pairs, encoded as field 2 of a RangeResponse.
    pub kvs: KvList,
    /// Whether the limit cut pairs off, after filtering.
    pub more: bool,
    /// How many keys the interval holds, before filters and limit.
    pub count: i64,
}

/// What a put gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutReply {
    /// The revision of the write.
    pub revision: i64,
    /// The encoded pair as it was before, if asked for and there was one.
    pub prev_kv: Option<Bytes>,
}

/// What a deletion gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteReply {
    /// The revision of the deletion; the store's when nothing was deleted.
    pub revision: i64,
    /// How many keys are gone.
    pub deleted: i64,
    /// The pairs as they were before, if asked for, encoded as field 3 of a DeleteRangeResponse.
    pub prev_kvs: KvList,
}

/// What a transaction gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnReply {
    /// The revision of its writes; the store's when there were none.
    pub revision: i64,
    /// Whether the compares held.
    pub succeeded: bool,
    /// One answer for each operation of the branch that was taken.
    pub responses: Vec<TxnOpReply>,
}

/// What one step of a transaction gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOpReply {
    /// Of a read.
    Range(RangeReply),
    /// Of a write.
    Put(PutReply),
    /// Of a deletion.
    DeleteRange(DeleteReply),
    /// Of a transaction in the transaction (its header is empty upstream, whatever `revision` says).
    Txn(TxnReply),
}

/// What an [`Op`] gives when it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpReply {
    /// Nobody listens, so nothing was prepared.
    Silent,
    /// Of [`Op::Put`].
    Put(PutReply),
    /// Of [`Op::DeleteRange`].
    DeleteRange(DeleteReply),
    /// Of [`Op::Txn`].
    Txn(TxnReply),
    /// Of [`Op::Compact`].
    Compact,
    /// Of [`Op::LeaseGrant`].
    LeaseGrant {
        /// Its name.
        id: i64,
        /// Its length in seconds.
        ttl: i64,
    },
    /// Of [`Op::LeaseRevoke`].
    LeaseRevoke,
    /// Of [`Op::LeaseCheckpoint`].
    LeaseCheckpoint,
    /// Of [`Op::Alarm`]: the alarms that this request changed (upstream answers with just these).
    Alarm(Vec<Alarm>),
    /// Of [`Op::MemberPublish`], [`Op::MemberForget`] and [`Op::SetQuota`].
    Done,
    /// Of [`Wish::Lease`](crate::once::Wish::Lease): the seconds that it was granted, and its keys; nothing when it does not exist.
    Lease(Option<(i64, Vec<Bytes>)>),
    /// Of [`Wish::Leases`](crate::once::Wish::Leases): by ascending id.
    Leases(Vec<i64>),
}

/// The machine's reply to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The store's revision after the command, for the header.
    pub revision: i64,
    /// What came of it.
    pub result: Result<OpReply, OpError>,
}
