//! The words of etcd's store: requests, replies and watch events, as small as a million of them need.
//!
//! Keys and values are the history's interned numbers; a range is `[key, end)` as in etcd's API, with [`RangeEnd`]
//! spelling out its three shapes. Only what the model can judge is kept: no cluster ids, no terms, no raft indexes.
//! Source: etcd's `rpc.proto` and `kv.proto` (v3), and the operations that its robustness suite records.

use crate::history::{Key, Time, Value};

/// A request to the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Read keys.
    Range(Range),
    /// Write a key.
    Put(Put),
    /// Remove keys.
    Delete(DeleteRange),
    /// If all compares hold do `then`, else do `otherwise`; all at one revision.
    Txn(Txn),
    /// Make a lease. The id is the client's, or the one that the server answered.
    LeaseGrant {
        /// The lease.
        id: i64,
        /// Seconds to live; 0 where not recorded.
        ttl: i64,
    },
    /// End a lease: deletes its keys at one revision.
    LeaseRevoke {
        /// The lease.
        id: i64,
    },
    /// Keep a lease alive; does not touch the revision.
    LeaseKeepAlive {
        /// The lease.
        id: i64,
    },
    /// Forget revisions up to this one; reads below it are refused.
    Compact {
        /// The revision.
        revision: i64,
    },
    /// A request that neither reads keys nor changes anything (defragment, status): only its revision is judged.
    Other,
}

/// Where a range ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// One key.
    Single,
    /// Up to this key, exclusive. Compared as text.
    Until(Key),
    /// Everything from the key on.
    Open,
}

/// A read of keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// First key.
    pub key: Key,
    /// Where it ends.
    pub end: RangeEnd,
    /// The revision to read at; 0 is now.
    pub revision: i64,
    /// At most so many pairs; 0 is all.
    pub limit: i64,
    /// Answered from the member's own state, perhaps an old one.
    pub serializable: bool,
}

/// A write of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Put {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The lease it hangs on; 0 is none.
    pub lease: i64,
}

/// A removal of keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeleteRange {
    /// First key.
    pub key: Key,
    /// Where it ends.
    pub end: RangeEnd,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Txn {
    /// What must hold.
    pub compares: Box<[Compare]>,
    /// What is done if so.
    pub then: Box<[TxnOp]>,
    /// What is done if not.
    pub otherwise: Box<[TxnOp]>,
}

/// One comparison of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Compare {
    /// The key.
    pub key: Key,
    /// What of it, and against what.
    pub target: CompareTarget,
    /// How.
    pub result: CompareResult,
}

/// What is compared: of a key that is absent all numbers are 0, and a value comparison is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareTarget {
    /// How often it was written since it was created.
    Version(i64),
    /// The revision that created it.
    Create(i64),
    /// The revision that last wrote it.
    Mod(i64),
    /// Its value.
    Value(Value),
    /// Its lease.
    Lease(i64),
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareResult {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// The store's is greater.
    Greater,
    /// The store's is less.
    Less,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TxnOp {
    /// Read keys.
    Range(Range),
    /// Write a key.
    Put(Put),
    /// Remove keys.
    Delete(DeleteRange),
}

/// A key-value pair as the store answers it. Numbers that were not recorded are -1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The revision that created it, or -1.
    pub create: i64,
    /// The revision that last wrote it, or -1.
    pub modified: i64,
    /// How often it was written since, or -1.
    pub version: i64,
    /// Its lease, or -1.
    pub lease: i64,
}

/// A number that was not recorded.
pub const UNRECORDED: i64 = -1;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reply {
    /// The store's revision in the reply's header; 0 where not recorded.
    pub revision: i64,
    /// The rest.
    pub body: ReplyBody,
}

/// What a reply says beside its revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReplyBody {
    /// Nothing that can be judged.
    Nothing,
    /// A read's answer.
    Range(RangeReply),
    /// How many keys were removed.
    Deleted(i64),
    /// A transaction's branch, and the answer of each of its operations.
    Txn {
        /// Whether the compares held; `None` where not recorded.
        succeeded: Option<bool>,
        /// One for each operation of the branch; empty where not recorded.
        replies: Box<[TxnReply]>,
    },
    /// The store refused: "required revision has been compacted".
    Compacted,
    /// The store refused: "required revision is a future revision".
    FutureRevision,
    /// The store refused: the lease is not there (or, for a grant, is there already).
    LeaseRefused,
}

/// The answer of a read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RangeReply {
    /// The pairs, in key order.
    pub pairs: Box<[KeyValue]>,
    /// How many keys there are in the range whatever the limit; -1 where not recorded.
    pub count: i64,
}

/// The answer of one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TxnReply {
    /// A read's.
    Range(RangeReply),
    /// A put's.
    Put,
    /// A removal's: how many keys; -1 where not recorded.
    Deleted(i64),
}

/// One recorded watch stream of one client: what was asked, then the responses as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchStream {
    /// The client, as in the operations where it is known.
    pub client: i64,
    /// First key.
    pub key: Key,
    /// Where the range ends.
    pub end: RangeEnd,
    /// The revision to start at; 0 is "from now on".
    pub revision: i64,
    /// Whether progress notifications were asked for.
    pub progress: Progress,
    /// Whether events carry the pair before the change.
    pub previous: Previous,
    /// The responses.
    pub responses: Vec<WatchResponse>,
    /// The line of the input, from 1.
    pub line: u32,
}

/// Whether a watch asked for progress notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It did.
    Wanted,
    /// It did not.
    NotWanted,
}

/// Whether a watch asked for the pair before each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// It did.
    Wanted,
    /// It did not.
    NotWanted,
}

/// One response of a watch stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchResponse {
    /// The events, in order.
    pub events: Vec<WatchEvent>,
    /// The revision in the header; 0 where not recorded.
    pub revision: i64,
    /// Whether it is a progress notification: no events, but a promise that nothing up to `revision` is still to come.
    pub kind: ResponseKind,
    /// When it arrived.
    pub time: Time,
    /// An error that ended the stream, or empty.
    pub error: Box<str>,
}

/// What a watch response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// Events.
    Events,
    /// A progress notification.
    Progress,
}

/// One change that a watch reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The key.
    pub key: Key,
    /// What happened.
    pub change: Change,
    /// The revision.
    pub revision: i64,
    /// Whether the key was created by it, where recorded.
    pub created: Option<bool>,
    /// The value before, where it was asked for and recorded; `Some(None)`: recorded that there was none.
    pub previous: Option<Option<KeyValue>>,
}

/// A put or a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key now has this value.
    Put(Value),
    /// The key is gone.
    Delete,
}
