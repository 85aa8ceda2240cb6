//! How a call fails: a gRPC code and a sentence.
//!
//! etcd's clients match on the sentence, letter by letter, so the sentences are interface (`etcd-api.md` section 10);
//! each stands here once. A code outside the list is never invented for a case that etcd knows.

use std::borrow::Cow;
use std::fmt;

use synod_kv::OpError;

use crate::service::backend::{Cause, Failure};

/// gRPC's status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// How many codes there are.
pub const CODES: usize = 17;

impl Code {
    /// All of them, in order.
    pub const ALL: [Code; CODES] = [
        Code::Ok,
        Code::Canceled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// The name, as metrics and Go's error texts spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Code::Ok => "OK",
            Code::Canceled => "Canceled",
            Code::Unknown => "Unknown",
            Code::InvalidArgument => "InvalidArgument",
            Code::DeadlineExceeded => "DeadlineExceeded",
            Code::NotFound => "NotFound",
            Code::AlreadyExists => "AlreadyExists",
            Code::PermissionDenied => "PermissionDenied",
            Code::ResourceExhausted => "ResourceExhausted",
            Code::FailedPrecondition => "FailedPrecondition",
            Code::Aborted => "Aborted",
            Code::OutOfRange => "OutOfRange",
            Code::Unimplemented => "Unimplemented",
            Code::Internal => "Internal",
            Code::Unavailable => "Unavailable",
            Code::DataLoss => "DataLoss",
            Code::Unauthenticated => "Unauthenticated",
        }
    }

    /// The HTTP status that the JSON gateway answers with.
    #[must_use]
    pub fn http(self) -> u16 {
        match self {
            Code::Ok => 200,
            Code::Canceled => 499,
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::AlreadyExists | Code::Aborted => 409,
            Code::ResourceExhausted => 429,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::DeadlineExceeded => 504,
            Code::Unknown | Code::Internal | Code::DataLoss => 500,
        }
    }
}

/// Why a call failed.
#[derive(Clone, PartialEq, Eq)]
pub struct Status {
    /// The code; never [`Code::Ok`].
    pub code: Code,
    /// The sentence.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A status of this code with this sentence.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Status {
        Status { code, message: message.into() }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

/// As Go's gRPC prints an error; etcd sends this text as the reason of a cancelled watch.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {} desc = {}", self.code.name(), self.message)
    }
}

macro_rules! statuses {
    ($($name:ident $code:ident $message:literal;)*) => {$(
        #[doc = concat!("`", $message, "`")]
        #[must_use]
        pub fn $name() -> Status {
            Status { code: Code::$code, message: Cow::Borrowed($message) }
        }
    )*};
}

statuses! {
    empty_key InvalidArgument "etcdserver: key is not provided";
    key_not_found InvalidArgument "etcdserver: key not found";
    value_provided InvalidArgument "etcdserver: value is provided";
    lease_provided InvalidArgument "etcdserver: lease is provided";
    too_many_ops InvalidArgument "etcdserver: too many operations in txn request";
    duplicate_key InvalidArgument "etcdserver: duplicate key given in txn request";
    invalid_client_api_version InvalidArgument "etcdserver: invalid client api version";
    invalid_sort InvalidArgument "etcdserver: invalid sort option";
    request_too_large InvalidArgument "etcdserver: request is too large";
    compacted OutOfRange "etcdserver: mvcc: required revision has been compacted";
    future_revision OutOfRange "etcdserver: mvcc: required revision is a future revision";
    no_space ResourceExhausted "etcdserver: mvcc: database space exceeded";
    too_many_requests ResourceExhausted "etcdserver: too many requests";
    lease_not_found NotFound "etcdserver: requested lease not found";
    lease_exists FailedPrecondition "etcdserver: lease already exists";
    lease_ttl_too_large OutOfRange "etcdserver: too large lease TTL";
    no_leader Unavailable "etcdserver: no leader";
    not_leader FailedPrecondition "etcdserver: not leader";
    leader_changed Unavailable "etcdserver: leader changed";
    stopped Unavailable "etcdserver: server stopped";
    timed_out Unavailable "etcdserver: request timed out";
    timed_out_leader_lost Unavailable "etcdserver: request timed out, possibly due to previous leader failure";
    timed_out_connection_lost Unavailable "etcdserver: request timed out, possibly due to connection lost";
    timed_out_applying Unavailable "etcdserver: request timed out, waiting for the applied index took too long";
    transfer_timed_out Unknown "etcdserver: request timed out, leader transfer took too long";
    corrupt DataLoss "etcdserver: corrupt cluster";
    learner FailedPrecondition "etcdserver: rpc not supported for learner";
    bad_transferee FailedPrecondition "etcdserver: bad leader transferee";
    deadline_exceeded DeadlineExceeded "context deadline exceeded";
    lock_lost Unknown "mutex: session is expired";
    not_elected Unknown "election: not leader";
    nobody_elected Unknown "election: no leader";
    leader_missing Unknown "\"leader\" field must be provided";
    not_begun Unavailable "synod: too much waits for clients that do not read, and for this one among them; the call was not begun";
    not_taken Unavailable "synod: too much waits for clients that do not read; this answer was dropped";
    answer_too_large ResourceExhausted "grpc: trying to send message larger than max (2147483647)";
    watch_canceled Canceled "etcdserver: watch canceled";
}

/// Too few members would be there to decide.
#[must_use]
pub fn not_enough_started() -> Status {
    Status::new(
        Code::FailedPrecondition,
        "etcdserver: re-configuration failed due to not enough started members",
    )
}

/// Somebody who has a vote already was to get one.
#[must_use]
pub fn no_learner() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: can only promote a learner member")
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        match failure {
            Failure::NoLeader => no_leader(),
            Failure::NotLeader => not_leader(),
            Failure::LeaderChanged => leader_changed(),
            Failure::Busy => too_many_requests(),
            Failure::Stopped => stopped(),
            Failure::TimedOut(Cause::Plain) => timed_out(),
            Failure::TimedOut(Cause::LeaderLost) => timed_out_leader_lost(),
            Failure::TimedOut(Cause::ConnectionLost) => timed_out_connection_lost(),
            Failure::TimedOut(Cause::Applying) => timed_out_applying(),
            Failure::BadTransferee => bad_transferee(),
            Failure::TransferTimedOut => transfer_timed_out(),
            Failure::NotEnoughStarted => not_enough_started(),
            Failure::LearnerNotReady => Status::new(
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            Failure::NoLearner => no_learner(),
            Failure::TooLarge => request_too_large(),
            Failure::Unsupported(what) => Status::new(Code::FailedPrecondition, what),
            Failure::Behind => Status::new(
                Code::Unavailable,
                "synod: this replica has not come as far as the session in time; ask another one, or again later",
            ),
            Failure::BadPlace(why) => {
                let sentence = format!("synod: synod-session is not a token of this service: {why}");
                Status::new(Code::InvalidArgument, sentence)
            }
            Failure::NoAgreement(sentence) => Status::new(Code::Unavailable, sentence),
            Failure::Io(what) => Status::new(Code::Internal, what),
        }
    }
}

impl From<OpError> for Status {
    fn from(error: OpError) -> Status {
        match error {
            OpError::EmptyKey => empty_key(),
            OpError::KeyNotFound => key_not_found(),
            OpError::ValueProvided => value_provided(),
            OpError::LeaseProvided => lease_provided(),
            OpError::TooManyOps => too_many_ops(),
            OpError::DuplicateKey => duplicate_key(),
            OpError::InvalidSortOption => invalid_sort(),
            OpError::Compacted => compacted(),
            OpError::FutureRevision => future_revision(),
            OpError::NoSpace => no_space(),
            OpError::LeaseNotFound => lease_not_found(),
            OpError::LeaseExists => lease_exists(),
            OpError::LeaseTtlTooLarge => lease_ttl_too_large(),
            OpError::MemberNotFound => Status::new(Code::NotFound, "etcdserver: member not found"),
            OpError::Corrupt => corrupt(),
            OpError::StreamSort => {
                Status::new(Code::Unimplemented, "RangeStream does not support custom sort orders")
            }
            OpError::StreamFilter => {
                Status::new(Code::Unimplemented, "RangeStream does not support revision filters")
            }
            OpError::AlreadyDone => {
                Status::new(Code::Unavailable, "synod: this request was carried out before, or is void")
            }
            OpError::AnswerTooLarge => Status::new(
                Code::ResourceExhausted,
                "synod: the answer has more than 16 MiB: ask for less at a time",
            ),
            OpError::NeedsOneOrder(sentence) => Status::new(Code::FailedPrecondition, sentence),
            OpError::Malformed => Status::new(Code::Internal, "etcdserver: malformed command"),
        }
    }
}
