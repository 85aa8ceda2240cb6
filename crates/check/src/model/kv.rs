//! A key of a key-value store whose values are texts: get, put, append. Absent is the empty text, as in Porcupine's model.

use super::{Model, is_read};
use crate::history::{Call, Datum, History, Reply, Value};

/// One key. The texts are the history's.
pub struct KeyValue<'a> {
    /// Where values are spelt out.
    pub history: &'a History,
}

impl KeyValue<'_> {
    fn text(&self, value: Value) -> String {
        match self.history.value(value) {
            Datum::Nil => String::new(),
            other => other.to_string(),
        }
    }

    fn begins_with(&self, value: Value, start: &str) -> bool {
        match self.history.value(value) {
            Datum::Nil => start.is_empty(),
            Datum::Text(text) => text.starts_with(start),
            other => other.to_string().starts_with(start),
        }
    }

    fn is(&self, value: Value, state: &str) -> bool {
        match self.history.value(value) {
            Datum::Nil => state.is_empty(),
            Datum::Text(text) => **text == *state,
            other => other.to_string() == state,
        }
    }
}

impl Model for KeyValue<'_> {
    type Call = Call;
    type Reply = Reply;
    type State = Box<str>;

    fn initial(&self) -> Box<str> {
        self.text(self.history.initial).into()
    }

    fn step(&self, state: &Box<str>, call: &Call, reply: Option<&Reply>) -> Option<Box<str>> {
        match (call, reply) {
            (Call::Read, Some(Reply::Value(read))) => self.is(*read, state).then(|| state.clone()),
            (Call::Read, _) => Some(state.clone()),
            (Call::Write(value), _) => Some(self.text(*value).into()),
            (Call::Append(value), _) => Some((state.to_string() + &self.text(*value)).into()),
            (Call::Delete, _) => Some("".into()),
            (Call::Cas { expected, new }, reply) => match (self.is(*expected, state), reply) {
                (true, Some(Reply::Flag(false))) => None,
                (true, _) => Some(self.text(*new).into()),
                (false, None | Some(Reply::Flag(false))) => Some(state.clone()),
                (false, Some(_)) => None,
            },
            _ => None,
        }
    }

    fn can_lead_to(&self, state: &Box<str>, _: &Call, reply: &Reply) -> bool {
        match reply {
            // What is there can only grow, unless something replaces it.
            Reply::Value(read) => self.begins_with(*read, state),
            _ => true,
        }
    }

    fn resets_to(&self, call: &Call, _: &Call, reply: &Reply) -> bool {
        match (call, reply) {
            (Call::Write(value) | Call::Cas { new: value, .. }, Reply::Value(read)) => {
                self.begins_with(*read, &self.text(*value))
            }
            (Call::Read | Call::Append(_), _) => false,
            _ => true,
        }
    }

    fn reads_only(&self, call: &Call, reply: Option<&Reply>) -> bool {
        is_read(call, reply)
    }
}
