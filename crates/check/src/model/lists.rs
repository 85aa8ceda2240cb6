//! Transactions over many keys: registers and lists that elements are appended to, as in Elle's rw-register and list-append.
//!
//! All accesses of one transaction take effect at once and in order, so linearizable here means strictly serializable.

use super::Model;
use crate::history::{Access, AccessKind, Call, Key, Reply, Value};

/// All keys together.
pub struct Transactions {
    /// What every register holds at first.
    pub initial: Value,
}

/// What one key holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// A register.
    Register(Value),
    /// A list.
    List(Box<[Value]>),
}

impl Transactions {
    fn access(&self, state: &mut Vec<(Key, Content)>, access: &Access) -> bool {
        let at = state.binary_search_by_key(&access.key, |(key, _)| *key);
        let content = at.ok().map(|at| &state[at].1);
        let next = match (&access.kind, content) {
            (AccessKind::Read(None) | AccessKind::ReadList(None), _) => return true,
            (AccessKind::Read(Some(read)), Some(Content::Register(value))) => return read == value,
            (AccessKind::Read(Some(read)), None) => return *read == self.initial || *read == Value::NIL,
            (AccessKind::ReadList(Some(read)), Some(Content::List(list))) => return read == list,
            (AccessKind::ReadList(Some(read)), None) => return read.is_empty(),
            (AccessKind::Write(value), _) => Content::Register(*value),
            (AccessKind::Append(value), Some(Content::List(list))) => {
                Content::List([&list[..], &[*value]].concat().into())
            }
            (AccessKind::Append(value), None) => Content::List(Box::new([*value])),
            // A key is either a register or a list.
            (AccessKind::Read(Some(_)), Some(Content::List(_)))
            | (AccessKind::ReadList(Some(_)) | AccessKind::Append(_), Some(Content::Register(_))) => {
                return false;
            }
        };
        match at {
            Ok(at) => state[at].1 = next,
            Err(at) => state.insert(at, (access.key, next)),
        }
        true
    }
}

impl Model for Transactions {
    type Call = Call;
    type Reply = Reply;
    /// Ascending by key; a key that nobody wrote is absent.
    type State = Vec<(Key, Content)>;

    fn initial(&self) -> Self::State {
        Vec::new()
    }

    fn step(&self, state: &Self::State, call: &Call, reply: Option<&Reply>) -> Option<Self::State> {
        let accesses = match (call, reply) {
            (_, Some(Reply::Txn(accesses))) => accesses,
            (Call::Txn(accesses), _) => accesses,
            _ => return None,
        };
        let mut after = state.clone();
        accesses.iter().all(|access| self.access(&mut after, access)).then_some(after)
    }

    fn reads_only(&self, call: &Call, _: Option<&Reply>) -> bool {
        match call {
            Call::Txn(accesses) => accesses
                .iter()
                .all(|access| matches!(access.kind, AccessKind::Read(_) | AccessKind::ReadList(_))),
            _ => false,
        }
    }
}
