//! A first-in-first-out queue: enqueue, dequeue (nil from an empty one), and a drain as one read that empties it.

use super::Model;
use crate::history::{Call, Reply, Value};

/// One queue, empty at first.
pub struct Queue;

impl Model for Queue {
    type Call = Call;
    type Reply = Reply;
    type State = Box<[Value]>;

    fn initial(&self) -> Box<[Value]> {
        Box::default()
    }

    fn step(&self, state: &Box<[Value]>, call: &Call, reply: Option<&Reply>) -> Option<Box<[Value]>> {
        match (call, reply) {
            (Call::Enqueue(value), _) => Some([&state[..], &[*value]].concat().into()),
            (Call::Dequeue, Some(Reply::Value(taken))) => match state.split_first() {
                Some((head, rest)) if head == taken => Some(rest.into()),
                None if *taken == Value::NIL => Some(Box::default()),
                _ => None,
            },
            (Call::Dequeue, Some(Reply::Values(taken))) => (**taken == **state).then(Box::default),
            (Call::Dequeue, _) => {
                Some(state.split_first().map_or_else(Box::default, |(_, rest)| rest.into()))
            }
            _ => None,
        }
    }
}
