//! One machine of a world: its replica while it runs, its disk, its clock.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::{NodeId, Role, Time};
use synod_replica::Replica;

use super::foresight::Standing;
use super::storage::{Kept, Storage};
use crate::disk::{Loss, SimDisk};
use crate::family::{Family, Promise};
use crate::faults::{Packets, Side};
use crate::machine::Audited;

/// A machine.
pub(crate) struct Node<F: Family> {
    pub(crate) id: NodeId,
    pub(crate) running: Option<Running<F>>,
    pub(crate) disk: SimDisk,
    /// Counts starts; events of earlier lives are ignored.
    pub(crate) life: u64,
    pub(crate) health: Health,
    pub(crate) clock: Clock,
    pub(crate) paused_until: Time,
    /// Whether the log was ever opened: an empty disk is wrong from then on.
    pub(crate) has_run: bool,
    /// Whether its disk was harmed for good: it may stop for that, and never come back.
    pub(crate) harmed: bool,
    /// How many whole sectors were: of several, one may have held a batch and the next what proves it.
    pub(crate) sectors_lost: usize,
    /// Whether its disk was made to fail: it may stop for that.
    pub(crate) failing: bool,
    /// Whether it joined later, and belongs to nothing before the cluster says so.
    pub(crate) joined: bool,
    /// What its log confirmed last: whatever happens, a restart finds that or says that it is damaged.
    pub(crate) kept: Kept,
    pub(crate) commands: u64,
    pub(crate) reads: u64,
    /// The process ends at one of the packets that it sends.
    pub(crate) sends_left: Option<Sends>,
    /// What follows if a trap springs.
    pub(crate) end: End,
    /// What it could campaign and vote with after its last life.
    pub(crate) left: Option<Standing>,
    pub(crate) slow: Duration,
    pub(crate) slow_until: Time,
    pub(crate) stuck_until: Time,
    /// Whether it is to stay down, whoever wants it to start.
    pub(crate) held_down: bool,
    /// The most that its machine has shown, where there is no single order.
    pub(crate) shown: synod_core::Vector,
    /// The last of what it told others and must never forget.
    pub(crate) promised: VecDeque<Promise>,
}

/// A replica at work.
pub(crate) struct Running<F: Family> {
    pub(crate) replica: Replica<F::Protocol, Audited>,
    pub(crate) storage: Storage<F::Protocol>,
    /// The wake-up that is asked for, if any.
    pub(crate) wake_at: Option<Time>,
    /// When the leases are looked at next, if it leads.
    pub(crate) leases_at: Option<Time>,
    pub(crate) role: Role,
    pub(crate) term: u64,
    /// Whether the log should be marked when it has been idle for a while.
    pub(crate) mark_due: bool,
    /// Whether the log found no room, and is to try again after a while.
    pub(crate) waits_for_room: bool,
}

/// At which packet a process ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sends {
    pub(crate) side: Side,
    pub(crate) packets: Packets,
    /// So many of them pass before.
    pub(crate) skip: u64,
    /// Whether its machine loses its power, too, and what that loses.
    pub(crate) loss: Option<Loss>,
}

/// How a life ends when a trap springs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) loss: Loss,
    pub(crate) down: Duration,
}

/// Whether a machine will be of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It runs, or will start again by itself.
    Fine,
    /// It stopped for good, with this error: an operator must replace it.
    Dead(String),
}

/// A machine's own clock: where it stood at a moment of the world's time, and how fast it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    world: Time,
    own: Time,
    /// Parts in a million that it is faster than the world.
    ppm: u32,
}

const MILLION: u128 = 1_000_000;

impl Clock {
    pub(crate) fn new(now: Time, own: Time, ppm: u32) -> Clock {
        Clock { world: now, own, ppm }
    }

    /// What it shows at a moment of the world's time.
    pub(crate) fn shows(&self, now: Time) -> Time {
        let passed = now.0 - self.world.0;
        if self.ppm == 0 {
            return Time(self.own.0 + passed);
        }
        Time(self.own.0 + (u128::from(passed) * (MILLION + u128::from(self.ppm)) / MILLION) as u64)
    }

    /// The first moment of the world's time at which it shows `own` or more.
    pub(crate) fn reaches(&self, own: Time) -> Time {
        let left = own.0.saturating_sub(self.own.0);
        if self.ppm == 0 {
            return Time(self.world.0 + left);
        }
        let left = (u128::from(left) * MILLION).div_ceil(MILLION + u128::from(self.ppm));
        Time(self.world.0.saturating_add(u64::try_from(left).unwrap_or(u64::MAX)))
    }

    /// It leaps ahead.
    pub(crate) fn leap(&mut self, by: Duration) {
        self.own = self.own + by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that runs fast reaches every moment just when it shows it.
    #[test]
    fn clocks_agree_with_themselves() {
        for ppm in [0, 1, 137, 200_000] {
            let clock = Clock::new(Time(1_000), Time(77), ppm);
            for own in [77, 78, 1_000, 999_983, 12_345_678_901] {
                let at = clock.reaches(Time(own));
                assert!(clock.shows(at) >= Time(own));
                assert!(at == Time(1_000) || clock.shows(Time(at.0 - 1)) < Time(own));
            }
        }
    }
}
