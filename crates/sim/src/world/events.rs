//! The heap of what is to come: ordered by time, and at one moment by who asked first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use synod_core::Time;

/// Events by time. The payloads lie aside, so that sifting moves three words.
pub(crate) struct Events<E> {
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    asked: u64,
}

impl<E> Events<E> {
    pub(crate) fn new() -> Events<E> {
        Events { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), asked: 0 }
    }

    /// Lets `event` happen at `at`.
    pub(crate) fn push(&mut self, at: Time, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 events wait at once")
            }
        };
        self.asked += 1;
        self.heap.push(Reverse((at, self.asked, slot)));
    }

    /// The next event that happens before `end`.
    pub(crate) fn pop(&mut self, end: Time) -> Option<(Time, E)> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at >= end {
            return None;
        }
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        self.slots[slot as usize].take().map(|event| (at, event))
    }
}
