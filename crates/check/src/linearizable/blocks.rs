//! Linearizability in near n log n when every answer says where in the order of writes it belongs.
//!
//! "A read-write register with unique values is linearizable exactly when no two of its value clusters must each come
//! before the other" (Gibbons and Korach, SIAM J. Comput. 1997; the log-linear form for registers is arXiv 2410.04581).
//! Here a *block* is what must be contiguous in every linearization: a write with its reads; a chain of compare-and-sets;
//! a put with the appends and gets that grew from it. Inside a block the order is forced by *positions* (equal positions
//! are free among themselves). Between blocks, block A must come before B when some operation of A had completed before
//! some operation of B was invoked, that is when the earliest completion of A, `f(A)`, lies before the latest invocation
//! of B, `s(B)`. If these constraints have a cycle at all they have one of length two: take the block of the cycle with
//! the least `f`; it precedes the one before its predecessor, and so its predecessor, too. So it is enough to find two
//! blocks with `f(A) < s(B)` and `f(B) < s(A)`, which a sweep over sorted blocks does.

use crate::history::{NEVER, Operation, Time};

/// An operation in its block.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Position in the list of operations given.
    pub operation: u32,
    /// Its block, densely from 0. Block 0 is the initial value's and comes first.
    pub block: u32,
    /// Its place in the block: lower ones must come before.
    pub position: u32,
}

/// Why there is no linearization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// In one block: `earlier` belongs before `later`, but `later` had completed before `earlier` was invoked.
    Within {
        /// Belongs first.
        earlier: u32,
        /// Belongs after, but was over before.
        later: u32,
    },
    /// Two blocks that each must come before the other.
    Between {
        /// In the one block: the first to complete, and the last to be invoked. `None` where it is the initial value itself.
        one: (Option<u32>, u32),
        /// In the other block, the same.
        other: (u32, u32),
    },
}

#[derive(Clone, Copy)]
struct Zone {
    /// Earliest completion, and whose.
    f: Time,
    first: u32,
    /// Latest invocation, and whose.
    s: Time,
    last: u32,
    start: u32,
    end: u32,
}

/// Orders the members, or says which contradict one another.
///
/// `blocks` counts blocks; block 0 begins before everything. Members may come in any order.
pub fn order(
    operations: &[Operation],
    mut members: Vec<Member>,
    blocks: usize,
) -> Result<Vec<u32>, Conflict> {
    let at = |member: &Member| &operations[member.operation as usize];
    // By invocation inside equal positions: that agrees with real time among them.
    members
        .sort_unstable_by_key(|member| (member.block, member.position, at(member).invoked, member.operation));
    let mut zones: Vec<Zone> = Vec::with_capacity(blocks);
    let mut i = 0;
    while i < members.len() {
        let start = i;
        let block = members[i].block;
        let first = members[i].operation;
        let mut zone = Zone { f: NEVER, first, s: Time::MIN, last: first, start: start as u32, end: 0 };
        while i < members.len() && members[i].block == block {
            let operation = at(&members[i]);
            // `zone.last` was invoked last of all that belong before: it must not come after our completion.
            if operation.completed < zone.s && zone.s != Time::MIN {
                return Err(Conflict::Within { earlier: zone.last, later: members[i].operation });
            }
            if operation.completed < zone.f {
                (zone.f, zone.first) = (operation.completed, members[i].operation);
            }
            if operation.invoked > zone.s {
                (zone.s, zone.last) = (operation.invoked, members[i].operation);
            }
            i += 1;
        }
        zone.end = i as u32;
        if block == 0 {
            zone.f = Time::MIN;
        }
        zones.push(zone);
    }
    sweep(&mut zones)?;
    Ok(zones
        .iter()
        .flat_map(|zone| &members[zone.start as usize..zone.end as usize])
        .map(|m| m.operation)
        .collect())
}

/// Sorts the zones into an order that real time allows.
///
/// A zone with `f < s` is forward: it surely holds the object from f to s. One with `s <= f` is backward: it needs a
/// single moment between s and f. Two forward ones may not overlap, no backward one may lie inside a forward one.
fn sweep(zones: &mut [Zone]) -> Result<(), Conflict> {
    let forward = |zone: &Zone| zone.f < zone.s;
    // At equal keys the backward one goes first: its f is at least the key, so it would else have to follow strictly.
    zones.sort_unstable_by_key(|zone| (zone.f.min(zone.s), forward(zone)));
    let mut current: Option<Zone> = None;
    for zone in zones.iter() {
        if let Some(one) = current
            && one.f < zone.s
            && zone.f < one.s
        {
            let first = (one.f != Time::MIN).then_some(one.first);
            return Err(Conflict::Between { one: (first, one.last), other: (zone.first, zone.last) });
        }
        // The forward zone that reaches furthest is the one that others could lie inside.
        if forward(zone) && current.is_none_or(|one| zone.s > one.s) {
            current = Some(*zone);
        }
    }
    Ok(())
}
