//! The hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva, Leone, 2014).
//!
//! Lamport's clock (1978) says of two writes which could have known of the other, and nothing of which was later by the
//! watch; a watch says that, and is wrong at times. The hybrid is a Lamport clock that is pulled along by the watch: it never
//! contradicts causality however wrong the watches are, and stays close to them when they are right. So "the last writer wins" means
//! what people think it means, as far as watches agree.
//!
//! One number of 64 bits: milliseconds since 1970, and below them a 16-bit counter for what happens within one
//! of them (the paper's section 6.2 packs it alike); a counter that overflows borrows from the milliseconds, which
//! is a Lamport clock's own way. Left out: the bound on how far ahead another replica's clock may be (section 5). A replica whose watch
//! is an hour fast pulls everybody's clock along and wins against concurrent writes for that hour; causality stays.

use std::time::Duration;

use synod_core::Time;

/// Bits for what happens within a millisecond.
const COUNTER_BITS: u32 = 16;

/// A replica's clock.
///
/// Invariant: `last` is at least the clock of everything that this replica has accepted, so whatever it makes next is later.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    last: u64,
    /// What the watch said at the replica's time zero.
    zero: Duration,
}

impl Clock {
    pub(super) fn new(zero: Duration) -> Clock {
        Clock { last: 0, zero }
    }

    /// Something with this clock was accepted.
    pub(super) fn observe(&mut self, clock: u64) {
        self.last = self.last.max(clock);
    }

    /// Takes `count` clocks, one after the other; gives the first.
    pub(super) fn take(&mut self, now: Time, count: usize) -> u64 {
        let watch = self.zero.saturating_add(Duration::from_nanos(now.0)).as_millis() as u64;
        let first = (self.last + 1).max(watch << COUNTER_BITS);
        self.last = first + (count.max(1) as u64 - 1);
        first
    }
}

/// `1500ms` or `1500ms+2`: for traces.
pub(super) fn show(clock: u64) -> String {
    let (watch, counter) = (clock >> COUNTER_BITS, clock & ((1 << COUNTER_BITS) - 1));
    if counter == 0 { format!("{watch}ms") } else { format!("{watch}ms+{counter}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    /// The clock follows the watch, is never before what it has seen, and never says the same twice (figure 6 of the paper).
    #[test]
    fn the_clock_follows_the_watch_and_what_it_saw() {
        let mut clock = Clock::new(Duration::from_millis(100));
        assert_eq!(show(clock.take(at(0), 1)), "100ms");
        assert_eq!(show(clock.take(at(0), 3)), "100ms+1");
        assert_eq!(show(clock.take(at(0), 1)), "100ms+4");
        clock.observe(500 << COUNTER_BITS);
        assert_eq!(show(clock.take(at(7), 1)), "500ms+1");
        assert_eq!(show(clock.take(at(600), 1)), "700ms");
    }
}
