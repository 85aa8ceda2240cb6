//! The snapshots that the log on the disk may stand on after a crash.
//!
//! A checkpoint is handed to the disk and takes its time. Until it is there, a crash leads back to the one before it, or to any that was
//! handed over in between, and so to that one's snapshot, not to the newest. A snapshot file is named after its position: whatever else
//! took one of these names would be what the log stands on, though the log tells of another state.

use std::collections::VecDeque;

use synod_core::Index;

/// The positions of those snapshots.
///
/// Invariant: the first is the one that the log is known to stand on, if any; the others are those of the checkpoints that are on
/// their way to the disk, in the order in which it gets them.
#[derive(Debug, Default)]
pub(crate) struct Bases {
    positions: VecDeque<Index>,
}

impl Bases {
    /// A log that stands on the snapshot at this position, or on none.
    pub(crate) fn new(found: Option<Index>) -> Bases {
        Bases { positions: found.into_iter().collect() }
    }

    /// A checkpoint above this snapshot was handed to the disk.
    pub(crate) fn begun(&mut self, at: Index) {
        if self.positions.back() != Some(&at) {
            self.positions.push_back(at);
        }
    }

    /// The disk has it: no crash leads back to what came before.
    pub(crate) fn finished(&mut self, at: Index) {
        while self.positions.len() > 1 && self.positions[0] != at {
            self.positions.pop_front();
        }
    }

    /// Whether the log may stand on a snapshot with this position.
    pub(crate) fn contains(&self, at: Index) -> bool {
        self.positions.contains(&at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is behind the newest checkpoint counts until the disk has that one, and not longer.
    #[test]
    fn a_base_counts_until_a_later_checkpoint_is_on_the_disk() {
        let mut bases = Bases::new(Some(Index(2)));
        bases.begun(Index(4));
        bases.begun(Index(4));
        bases.begun(Index(7));
        let held = |bases: &Bases| (1..9).filter(|at| bases.contains(Index(*at))).collect::<Vec<_>>();
        assert_eq!(held(&bases), [2, 4, 7]);
        bases.finished(Index(4));
        assert_eq!(held(&bases), [4, 7]);
        bases.finished(Index(4));
        assert_eq!(held(&bases), [4, 7]);
        bases.finished(Index(7));
        assert_eq!(held(&bases), [7]);
    }
}
