//! Leases, the part that only the leader's clock knows: when they end.
//!
//! Nothing here is replicated. A new leader gives every lease its full length again (or what a checkpoint says is left),
//! plus an extension for the time of the election; so a lease never ends early and may live longer. Time comes in by
//! argument; a lease that was granted since the last call starts to run at the next one.
//!
//! Once a lease's time is over here, it can not be renewed any more, whether its revocation has been decided or not:
//! otherwise a client could be told that it lives and lose its keys all the same.

use std::collections::BTreeSet;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use synod_core::Time;

use crate::lease::{Lease, Leases};
use crate::mutants::Mutant;
use crate::op::Op;

/// At most so many leases are let expire within one second when a new leader takes over: what piled up is spread out.
pub const EXPIRIES_PER_SECOND_MAX: usize = 750;

/// A revocation that was asked for and has not come through is asked for again after this.
pub const REVOKE_RETRY: Duration = Duration::from_secs(3);

/// How often the remaining time of a long lease is noted, and how long a lease must be for it.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

/// The shortest lease that is granted: one and a half election timeouts, in whole seconds.
#[must_use]
pub fn ttl_min(election_timeout: Duration) -> i64 {
    let millis = election_timeout.as_millis().saturating_mul(3).div_ceil(2);
    i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX).max(1)
}

/// What a renewal gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The seconds that the lease lives from now on.
    pub ttl: i64,
    /// To be proposed: the log still says that less is left.
    pub checkpoint: Option<Op>,
}

#[derive(Clone, Copy, Debug)]
struct Soft {
    ttl: i64,
    /// When it ends; `None` until it starts to run.
    end: Option<Time>,
    /// When its revocation is due to be asked for (again).
    due: Time,
    /// When its remaining time is due to be noted.
    checkpoint: Time,
    /// Whether the log holds a checkpoint of it.
    noted: bool,
}

/// The ends of all leases, while this replica leads.
#[derive(Debug, Default)]
pub struct Lessor {
    leading: bool,
    leases: HashMap<i64, Soft, FixedState>,
    /// By when their revocation is due.
    by_due: BTreeSet<(Time, i64)>,
    /// By when a checkpoint is due; only long leases.
    by_checkpoint: BTreeSet<(Time, i64)>,
    /// Granted since the last call that brought the time.
    fresh: Vec<i64>,
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

impl Lessor {
    /// Whether this replica decides when leases end.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// Starts to lead: every lease runs afresh, `extension` longer than it would.
    pub fn promote(&mut self, leases: &Leases, now: Time, extension: Duration) {
        self.demote();
        self.leading = true;
        let share = if Mutant::LeaseHalfOver.is_on() { 2 } else { 1 };
        let mut ends: Vec<(Time, i64)> =
            leases.iter().map(|(id, lease)| (now + seconds(left(lease)) / share + extension, id)).collect();
        ends.sort_unstable();
        // Whatever ends within the same second, beyond the most for a second, is put off by whole seconds.
        let mut window = Time::ZERO;
        let mut inside = 0;
        for (end, id) in ends {
            if end.since(window) >= Duration::from_secs(1) && end > window {
                window = end;
                inside = 0;
            }
            let end = end + Duration::from_secs((inside / EXPIRIES_PER_SECOND_MAX) as u64);
            inside += 1;
            let lease = leases.get(id).expect("the names come from the leases");
            self.leases.insert(id, soft(lease));
            self.start(id, end, now);
        }
    }

    /// Stops to lead: no lease ends here any more.
    pub fn demote(&mut self) {
        *self = Lessor::default();
    }

    /// A lease was granted; it starts to run when the time is known next.
    pub(crate) fn granted(&mut self, id: i64, lease: &Lease) {
        if self.leading {
            self.leases.insert(id, soft(lease));
            self.fresh.push(id);
        }
    }

    /// A lease is gone.
    pub(crate) fn revoked(&mut self, id: i64) {
        if let Some(soft) = self.leases.remove(&id) {
            self.by_due.remove(&(soft.due, id));
            self.by_checkpoint.remove(&(soft.checkpoint, id));
        }
    }

    /// The log noted what is left of a lease.
    pub(crate) fn noted(&mut self, id: i64, remaining: i64) {
        if let Some(soft) = self.leases.get_mut(&id) {
            soft.noted = remaining > 0;
        }
    }

    /// Tells the time: leases granted meanwhile start to run now.
    pub fn advance(&mut self, now: Time) {
        for id in std::mem::take(&mut self.fresh) {
            // Revoked or renewed in between, it needs no start any more.
            if let Some(soft) = self.leases.get(&id)
                && soft.end.is_none()
            {
                self.start(id, now + seconds(soft.ttl), now);
            }
        }
    }

    fn start(&mut self, id: i64, end: Time, now: Time) {
        let Some(soft) = self.leases.get_mut(&id) else { return };
        if soft.end.is_some() {
            self.by_due.remove(&(soft.due, id));
            self.by_checkpoint.remove(&(soft.checkpoint, id));
        }
        soft.end = Some(end);
        soft.due = end;
        self.by_due.insert((end, id));
        if seconds(soft.ttl) > CHECKPOINT_INTERVAL {
            soft.checkpoint = now + CHECKPOINT_INTERVAL;
            self.by_checkpoint.insert((soft.checkpoint, id));
        }
    }

    /// Renews a lease to its full length; `None` when it does not exist, its time is over, or this replica does not lead.
    pub fn renew(&mut self, id: i64, now: Time) -> Option<Renewed> {
        self.advance(now);
        let soft = *self.leases.get(&id)?;
        if soft.end.is_none_or(|end| end <= now) && !Mutant::LeaseRenewsWhenOver.is_on() {
            return None;
        }
        self.start(id, now + seconds(soft.ttl), now);
        let checkpoint = soft.noted.then(|| Op::LeaseCheckpoint { remaining: vec![(id, 0)] });
        Some(Renewed { ttl: soft.ttl, checkpoint })
    }

    /// How much of a lease's time is left, zero when it is over; `None` when this replica does not know.
    #[must_use]
    pub fn remaining(&self, id: i64, now: Time) -> Option<Duration> {
        let soft = self.leases.get(&id)?;
        Some(match soft.end {
            Some(end) => end.since(now),
            None => seconds(soft.ttl),
        })
    }

    /// Leases whose time is over, at most `count_max` of them, earliest first: their revocation is to be proposed. Each is
    /// named again after [`REVOKE_RETRY`] if it is still there.
    pub fn expired(&mut self, now: Time, count_max: usize) -> Vec<i64> {
        self.advance(now);
        let due: Vec<(Time, i64)> =
            self.by_due.iter().take_while(|(due, _)| *due <= now).take(count_max).copied().collect();
        for entry in &due {
            self.by_due.remove(entry);
            let soft = self.leases.get_mut(&entry.1).expect("what is due exists");
            soft.due = now + REVOKE_RETRY;
            self.by_due.insert((soft.due, entry.1));
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// What is left of long leases, to be proposed as a checkpoint; at most `count_max` of them.
    pub fn checkpoint(&mut self, now: Time, count_max: usize) -> Option<Op> {
        self.advance(now);
        let due: Vec<(Time, i64)> =
            self.by_checkpoint.iter().take_while(|(due, _)| *due <= now).take(count_max).copied().collect();
        let mut remaining = Vec::new();
        for entry in &due {
            self.by_checkpoint.remove(entry);
            let soft = self.leases.get_mut(&entry.1).expect("what is due exists");
            soft.checkpoint = now + CHECKPOINT_INTERVAL;
            self.by_checkpoint.insert((soft.checkpoint, entry.1));
            // Rounded up, so that a lease never ends early by a checkpoint.
            let left = soft.end.map_or(soft.ttl, |end| end.since(now).as_millis().div_ceil(1000) as i64);
            if left > 0 {
                remaining.push((entry.1, left));
            }
        }
        (!remaining.is_empty()).then_some(Op::LeaseCheckpoint { remaining })
    }

    /// When something is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let due = self.by_due.first().map(|(due, _)| *due);
        let checkpoint = self.by_checkpoint.first().map(|(due, _)| *due);
        due.into_iter().chain(checkpoint).min()
    }
}

fn soft(lease: &Lease) -> Soft {
    Soft { ttl: lease.ttl, end: None, due: Time::ZERO, checkpoint: Time::ZERO, noted: lease.remaining > 0 }
}

/// The seconds that a new leader gives a lease.
fn left(lease: &Lease) -> i64 {
    if lease.remaining > 0 { lease.remaining } else { lease.ttl }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn leases(lengths: &[(i64, i64)]) -> Leases {
        let mut leases = Leases::default();
        for (id, ttl) in lengths {
            leases.grant(*id, *ttl).unwrap();
        }
        leases
    }

    /// A lease ends when its time is over, not before; renewing starts it afresh; once over, it can not be renewed.
    #[test]
    fn leases_end_in_time_and_never_early() {
        let mut lessor = Lessor::default();
        let leases = leases(&[(1, 10), (2, 20)]);
        let start = Time::ZERO + SECOND * 100;
        lessor.promote(&leases, start, SECOND);
        assert_eq!(lessor.deadline(), Some(start + SECOND * 11));
        assert_eq!(lessor.expired(start + SECOND * 10, 9), []);
        assert_eq!(lessor.renew(1, start + SECOND * 10).map(|renewed| renewed.ttl), Some(10));
        assert_eq!(lessor.expired(start + SECOND * 19, 9), []);
        assert_eq!(lessor.remaining(1, start + SECOND * 19), Some(SECOND));
        assert_eq!(lessor.expired(start + SECOND * 20, 9), [1]);
        assert_eq!(lessor.renew(1, start + SECOND * 20), None, "its revocation is under way");
        assert_eq!(lessor.expired(start + SECOND * 22, 9), [2], "lease 1 is not named again at once");
        assert_eq!(lessor.expired(start + SECOND * 23, 9), [1], "but it is when the revocation got lost");
        lessor.revoked(1);
        lessor.demote();
        assert_eq!(lessor.renew(2, start), None, "who does not lead renews nothing");
    }

    /// A lease granted between two looks at the clock runs from the later one.
    #[test]
    fn a_fresh_lease_runs_from_the_next_look_at_the_clock() {
        let mut lessor = Lessor::default();
        lessor.promote(&Leases::default(), Time::ZERO, SECOND);
        lessor.granted(7, &Lease { ttl: 5, ..Lease::default() });
        assert_eq!(lessor.remaining(7, Time::ZERO), Some(SECOND * 5));
        lessor.advance(Time::ZERO + SECOND * 3);
        assert_eq!(lessor.expired(Time::ZERO + SECOND * 7, 9), []);
        assert_eq!(lessor.expired(Time::ZERO + SECOND * 8, 9), [7]);
    }

    /// Thousands of leases that would end together after a change of leader are spread over seconds, none early.
    #[test]
    fn piled_up_ends_are_spread() {
        let lengths: Vec<(i64, i64)> = (1..=3000).map(|id| (id, 5)).collect();
        let mut lessor = Lessor::default();
        lessor.promote(&leases(&lengths), Time::ZERO, Duration::ZERO);
        assert_eq!(lessor.expired(Time::ZERO + SECOND * 4, usize::MAX).len(), 0);
        for second in 5..9 {
            assert_eq!(
                lessor.expired(Time::ZERO + SECOND * second, usize::MAX).len(),
                EXPIRIES_PER_SECOND_MAX
            );
            let named: Vec<i64> =
                lessor.leases.iter().filter(|(_, it)| it.due > it.end.unwrap()).map(|(id, _)| *id).collect();
            named.into_iter().for_each(|id| lessor.revoked(id));
        }
    }

    /// A checkpoint carries over what is left of a long lease, and a renewal takes it back.
    #[test]
    fn checkpoints_outlive_a_leader() {
        let mut leases = leases(&[(1, 3600), (2, 100)]);
        let mut lessor = Lessor::default();
        lessor.promote(&leases, Time::ZERO, Duration::ZERO);
        assert_eq!(lessor.checkpoint(Time::ZERO + SECOND * 299, 9), None);
        let op = lessor.checkpoint(Time::ZERO + SECOND * 300, 9);
        assert_eq!(op, Some(Op::LeaseCheckpoint { remaining: vec![(1, 3300)] }));
        assert!(leases.checkpoint(1, 3300) && !leases.checkpoint(3, 1));
        let mut next = Lessor::default();
        next.promote(&leases, Time::ZERO, SECOND);
        assert_eq!(next.remaining(1, Time::ZERO), Some(SECOND * 3301));
        let renewed = next.renew(1, Time::ZERO).unwrap();
        assert_eq!(renewed.ttl, 3600);
        assert_eq!(renewed.checkpoint, Some(Op::LeaseCheckpoint { remaining: vec![(1, 0)] }));
    }

    /// The shortest lease is one and a half election timeouts, rounded up to seconds.
    #[test]
    fn the_shortest_lease() {
        assert_eq!(ttl_min(Duration::from_millis(1000)), 2);
        assert_eq!(ttl_min(Duration::from_millis(100)), 1);
        assert_eq!(ttl_min(Duration::from_millis(5000)), 8);
    }
}
