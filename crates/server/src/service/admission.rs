//! How much may be under way: what is let in, and what is refused at once.
//!
//! A queue without an end is no service: at twice the rate that can be carried out, everybody would wait until everybody's time has
//! passed, and all work would be for nothing. So what is let in is half a second's worth of work, and where the queue has not been short for
//! a second, half of that (Nichols and Jacobson, Controlling Queue Delay, 2012: a queue is judged by its shortest, not its longest).
//! While nothing at all is answered (an election, a disk that is stuck) the last known pace holds, because waiting is what clients want then.
//!
//! Proposals and reads are counted apart: what delays the ones need not delay the others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::backend::Failure;

/// Proposals accepted and not answered yet, at most. Past it a client gets `Busy` at once.
pub(crate) const PROPOSALS_MAX: usize = 50_000;
/// Their payloads' bytes, at most.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 256 << 20;
/// Reads accepted and not answered yet, at most. They are cheaper, and there are more of them.
pub(crate) const READS_MAX: usize = 200_000;
/// Fewer than this are always let in.
const CROWD: usize = 1000;
/// A crowd that comes and goes (behind an election's end, a disk's pause) may be as large as what is answered in this time: who comes
/// later would wait longer, and is refused instead.
const BURST_MAX: Duration = Duration::from_millis(500);
/// A crowd that stays is too much load, and gets no better by waiting: it may be as large as what is answered in this time ...
const STANDING_MAX: Duration = Duration::from_millis(250);
/// ... and as this, because so many clients may each have one proposal under way, and refusing them would bring them back at once.
const STANDING_CROWD: usize = 10_000;
/// The pace, and whether a crowd stays, is told by the last [`WINDOWS`] of this length.
const WINDOW: Duration = Duration::from_millis(100);
const WINDOWS: usize = 10;
/// When nothing was answered for longer than this, the time says nothing about the pace.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How many answers are counted without looking at the clock.
const UNTIMED: usize = 64;

/// How many requests of one kind are on their way, and how large they are.
pub(crate) struct Admission {
    /// How many there may be in any case.
    most: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
    /// How many may be on their way.
    room: AtomicUsize,
    answered: AtomicUsize,
    /// Whether somebody was refused in this window.
    refused: AtomicBool,
    pace: Mutex<Pace>,
    /// Proposals that were refused or found no outcome.
    pub(crate) failed: AtomicU64,
}

/// How fast proposals are answered, and how many waited at the least.
struct Pace {
    /// When the window began that is not over.
    since: Instant,
    /// The answers up to then.
    answered: usize,
    /// The fewest that waited since then.
    fewest: usize,
    /// The newest last.
    windows: VecDeque<Window>,
    /// Whether there has been a crowd all the time, and somebody was refused for it since.
    stands: bool,
}

struct Window {
    took: Duration,
    answered: usize,
    fewest: usize,
    /// Whether somebody was refused.
    refused: bool,
}

impl Admission {
    /// Lets in so many at most, and fewer where they are answered slowly.
    pub(crate) fn new(most: usize) -> Admission {
        Admission {
            most,
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            room: AtomicUsize::new(most),
            answered: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
            pace: Mutex::new(Pace {
                since: Instant::now(),
                answered: 0,
                fewest: usize::MAX,
                windows: VecDeque::new(),
                stands: false,
            }),
            failed: AtomicU64::new(0),
        }
    }

    /// Counts a read in until it is dropped, or says no.
    pub(crate) fn admit(&self) -> Result<Admitted<'_>, Failure> {
        self.enter(0).map(|()| Admitted(self))
    }

    /// Counts a proposal in, or says no.
    pub(crate) fn enter(&self, bytes: usize) -> Result<(), Failure> {
        if self.turns_away() {
            return Err(Failure::Busy);
        }
        // A single proposal larger than the room is let in when it is alone: it is bounded on its own.
        if self.pending() > 0 && self.bytes.load(Ordering::Relaxed) + bytes > PROPOSAL_BYTES_MAX {
            self.note_refusal();
            return Err(Failure::Busy);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Whether there is no room for a proposal of any size; where so, it counts as refused.
    pub(crate) fn turns_away(&self) -> bool {
        let is_full = self.pending() >= self.room.load(Ordering::Relaxed);
        if is_full {
            self.note_refusal();
        }
        is_full
    }

    fn note_refusal(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Counts a proposal out.
    pub(crate) fn leave(&self, bytes: usize) {
        let count = self.count.fetch_sub(1, Ordering::Relaxed) - 1;
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let answered = self.answered.fetch_add(1, Ordering::Relaxed) + 1;
        if answered.is_multiple_of(UNTIMED) {
            self.look(Instant::now(), answered, count);
        }
    }

    /// Looks how fast it goes, and makes room for as much as that allows.
    fn look(&self, now: Instant, answered: usize, count: usize) {
        let mut pace = self.pace.lock();
        pace.fewest = pace.fewest.min(count);
        let took = now.saturating_duration_since(pace.since);
        if took < WINDOW {
            return;
        }
        let window = Window {
            took,
            answered: answered - pace.answered,
            fewest: pace.fewest,
            refused: self.refused.swap(false, Ordering::Relaxed),
        };
        (pace.since, pace.answered, pace.fewest) = (now, answered, usize::MAX);
        if count < CROWD && took > PAUSE_MAX {
            // There is little to do, and what was before is long ago.
            pace.windows.clear();
            pace.stands = false;
            self.room.store(self.most, Ordering::Relaxed);
        } else if took <= PAUSE_MAX {
            if pace.windows.len() == WINDOWS {
                pace.windows.pop_front();
            }
            pace.windows.push_back(window);
            self.room.store(pace.room(self.most), Ordering::Relaxed);
        }
        // Otherwise nothing was answered for longer than anybody should wait: that is no pace, and no crowd that work could have made
        // shorter.
    }

    /// How many are on their way.
    pub(crate) fn pending(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// Something that was let in; it is counted out when it is dropped.
pub(crate) struct Admitted<'a>(&'a Admission);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.leave(0);
    }
}

impl Pace {
    /// How many may be on their way.
    fn room(&mut self, most: usize) -> usize {
        let answered: usize = self.windows.iter().map(|window| window.answered).sum();
        let took: Duration = self.windows.iter().map(|window| window.took).sum();
        let within = |span: Duration| (answered as f64 * span.as_secs_f64() / took.as_secs_f64()) as usize;
        let burst = within(BURST_MAX).max(CROWD);
        let standing = within(STANDING_MAX).max(STANDING_CROWD);
        let is_full = self.windows.len() == WINDOWS;
        if is_full && self.windows.iter().all(|window| window.fewest > standing) {
            self.stands = true;
        } else if self.windows.iter().all(|window| !window.refused) {
            self.stands = false;
        }
        let room = if self.windows.back().is_some_and(|window| window.fewest < CROWD) {
            // All work was done a moment ago, or nearly, so the pace says nothing about what could be done.
            most
        } else if self.stands {
            burst.min(standing)
        } else {
            burst
        };
        room.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Past the bound a proposal is refused at once, and there is room again when one has been answered.
    #[test]
    fn admission_is_bounded() {
        let admission = Admission::new(PROPOSALS_MAX);
        for _ in 0..PROPOSALS_MAX {
            assert_eq!(admission.enter(0), Ok(()));
        }
        assert_eq!(admission.enter(0), Err(Failure::Busy));
        admission.leave(0);
        assert_eq!(admission.enter(0), Ok(()));

        let admission = Admission::new(PROPOSALS_MAX);
        assert_eq!(admission.enter(PROPOSAL_BYTES_MAX * 2), Ok(()), "alone, any size may go");
        assert_eq!(admission.enter(1), Err(Failure::Busy));
        admission.leave(PROPOSAL_BYTES_MAX * 2);
        assert_eq!(admission.enter(1), Ok(()));
    }

    fn room(admission: &Admission) -> usize {
        admission.room.load(Ordering::Relaxed)
    }

    /// A crowd may be as large as half a second's work; where nothing is answered, and where there is no crowd, nobody is refused.
    #[test]
    fn admission_follows_the_pace() {
        let admission = Admission::new(PROPOSALS_MAX);
        let begun = admission.pace.lock().since;
        let at = |millis| begun + Duration::from_millis(millis);
        admission.look(at(100), 2000, 5000);
        assert_eq!(room(&admission), 10_000);
        admission.look(at(150), 2001, 5000);
        assert_eq!(room(&admission), 10_000, "too soon to tell");
        admission.look(at(200), 2010, 5000);
        assert_eq!(room(&admission), 5025, "one slow moment is not the pace");
        for moment in 3..=11 {
            admission.look(at(moment * 100), 2010 + moment as usize, 5000);
        }
        assert_eq!(room(&admission), CROWD, "it has become slow");
        admission.look(at(9000), 2030, 5000);
        assert_eq!(room(&admission), CROWD, "an election tells nothing about the pace");
        admission.look(at(9100), 4031, CROWD - 1);
        assert_eq!(room(&admission), PROPOSALS_MAX);
        for moment in 92..=102 {
            admission.look(at(moment * 100), 4031 + moment as usize, 5000);
        }
        assert_eq!(room(&admission), CROWD);
        admission.look(at(20_000), 4200, 3);
        assert_eq!(room(&admission), PROPOSALS_MAX, "with little to do there is room for a burst again");
    }

    /// A crowd that stays is made shorter, until nobody has been refused for a second; one that comes and goes is not.
    #[test]
    fn a_crowd_that_stays_is_made_shorter() {
        let admission = Admission::new(PROPOSALS_MAX);
        let begun = admission.pace.lock().since;
        let mut answered = 0;
        let mut windows = 0;
        let mut pass = |count: usize| {
            (answered, windows) = (answered + 5000, windows + 1);
            admission.look(begun + Duration::from_millis(windows * 100), answered, count);
            room(&admission)
        };
        for moment in 0..30 {
            assert_eq!(pass(if moment % 9 == 8 { 5000 } else { 20_000 }), 25_000, "it comes and goes");
        }
        (0..WINDOWS).for_each(|_| _ = pass(20_000));
        assert_eq!(pass(20_000), 12_500, "it stays");
        admission.refused.store(true, Ordering::Relaxed);
        for _ in 0..WINDOWS {
            assert_eq!(pass(12_000), 12_500, "somebody was refused less than a second ago");
        }
        assert_eq!(pass(12_000), 25_000, "nobody was");
    }
}
