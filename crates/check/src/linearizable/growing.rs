//! Sets that only grow: reads of all members are ordered by inclusion, and an element belongs before the first that shows it.
//!
//! One block in the sense of [`super::blocks`]: adds and reads in turns. Declined, for the search: removals, an element
//! added twice, adds that answer whether the element was new.

use hashbrown::HashMap;

use super::blocks::Member;
use super::{Impossible, Placement};
use crate::history::{Call, History, Outcome, Reply, Value};

/// Places the operations of one set.
pub(super) fn place(history: &History, part: &[u32]) -> Placement {
    // Who added each element, and the rank of the first read that shows it.
    let mut added: HashMap<Value, (u32, Option<u32>), foldhash::fast::FixedState> = HashMap::default();
    let mut reads: Vec<(&[Value], u32)> = Vec::new();
    for &i in part {
        let operation = &history.operations[i as usize];
        match (&operation.call, &operation.outcome) {
            (_, Outcome::Failed) => {}
            (Call::Read, Outcome::Ok(Reply::Values(members))) => reads.push((members, i)),
            (Call::Read, _) => {}
            (Call::Add(_), Outcome::Ok(Reply::Flag(_))) => {
                return Placement::Declined("adds say whether the element was new");
            }
            (Call::Add(value), _) => {
                if added.insert(*value, (i, None)).is_some() {
                    return Placement::Declined("an element was added twice");
                }
            }
            _ => return Placement::Declined("not only adds and reads"),
        }
    }
    reads.sort_by_key(|(members, _)| members.len());
    let mut placed = Vec::with_capacity(part.len());
    let (mut shown, mut rank, mut last) = (0usize, 0u32, None);
    for &(members, read) in &reads {
        let fresh = rank + 1;
        let mut new = 0;
        for value in members {
            let Some((_, first)) = added.get_mut(value) else {
                let reason = format!("{} was read, but nobody added it", history.value(*value));
                return Placement::Impossible(Impossible { operations: vec![read], reason });
            };
            if first.is_none() {
                *first = Some(fresh);
                new += 1;
            }
        }
        if new > 0 {
            rank = fresh;
        }
        shown += new;
        if shown != members.len() {
            let operations = last.into_iter().chain([read]).collect();
            let reason =
                "two reads each show an element that the other does not, or one shows it twice".to_string();
            return Placement::Impossible(Impossible { operations, reason });
        }
        last = Some(read);
        placed.push(Member { operation: read, block: 0, position: 2 * rank + 1 });
    }
    for &(operation, first) in added.values() {
        match first {
            Some(rank) => placed.push(Member { operation, block: 0, position: 2 * rank }),
            None if history.operations[operation as usize].is_unknown() => {}
            None => placed.push(Member { operation, block: 0, position: 2 * rank + 2 }),
        }
    }
    Placement::Blocks { members: placed, blocks: 1 }
}
