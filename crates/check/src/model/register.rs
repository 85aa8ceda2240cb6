//! A register: read, write, compare-and-set, delete (which writes nil).
//!
//! A failed comparison that was *answered* (`Flag(false)`) says that the value was another one; a failed operation is
//! not in the history at all. A read that was answered without a value says nothing.

use super::Model;
use crate::history::{Call, Reply, Value};

/// One register with this initial value.
pub struct Register {
    /// The value before anything happened.
    pub initial: Value,
}

impl Model for Register {
    type Call = Call;
    type Reply = Reply;
    type State = Value;

    fn initial(&self) -> Value {
        self.initial
    }

    fn step(&self, state: &Value, call: &Call, reply: Option<&Reply>) -> Option<Value> {
        match (call, reply) {
            (Call::Read, Some(Reply::Value(read))) => (read == state).then_some(*state),
            (Call::Read, _) => Some(*state),
            (Call::Write(value), _) => Some(*value),
            (Call::Delete, _) => Some(Value::NIL),
            (Call::Cas { expected, new }, reply) => match (expected == state, reply) {
                (true, Some(Reply::Flag(false))) => None,
                (true, _) => Some(*new),
                (false, None | Some(Reply::Flag(false))) => Some(*state),
                (false, Some(_)) => None,
            },
            _ => None,
        }
    }

    fn can_lead_to(&self, state: &Value, _: &Call, reply: &Reply) -> bool {
        !matches!(reply, Reply::Value(read) if read != state)
    }

    fn resets_to(&self, call: &Call, _: &Call, reply: &Reply) -> bool {
        match (call, reply) {
            (Call::Write(value) | Call::Cas { new: value, .. }, Reply::Value(read)) => value == read,
            (Call::Delete, Reply::Value(read)) => *read == Value::NIL,
            (Call::Read, _) => false,
            _ => true,
        }
    }

    fn reads_only(&self, call: &Call, reply: Option<&Reply>) -> bool {
        matches!((call, reply), (Call::Read, _) | (Call::Cas { .. }, Some(Reply::Flag(false))))
    }
}
