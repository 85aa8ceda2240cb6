//! A key's versions: what a place of the index holds.

use std::sync::Arc;

use crate::arena::{Arena, At};

/// An older version: its main revision, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) main: i64,
    pub(crate) at: At,
}

/// A key's versions.
///
/// Invariant: `older` ascends, lies before `head`, and is never empty when present.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The newest.
    pub(crate) head: At,
    /// The others that are still kept.
    pub(crate) older: Option<Arc<Vec<Version>>>,
}

/// What a trim did to a slot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Trimmed {
    /// Nothing.
    #[default]
    Kept,
    /// Some versions are gone.
    Thinned,
    /// All versions are gone, and the slot must go, too.
    Emptied,
}

impl Slot {
    pub(crate) fn one(head: At) -> Slot {
        Slot { head, older: None }
    }

    /// All versions, oldest first.
    pub(crate) fn versions(&self) -> impl Iterator<Item = At> + '_ {
        self.older.iter().flat_map(|older| older.iter().map(|version| version.at)).chain([self.head])
    }

    /// The newest version at or before a main revision.
    pub(crate) fn version_at(&self, arena: &Arena, main: i64) -> Option<At> {
        if arena.main(self.head) <= main {
            return Some(self.head);
        }
        let older = self.older.as_ref()?;
        let after = older.partition_point(|version| version.main <= main);
        older[..after].last().map(|version| version.at)
    }

    /// The newest version at or before a main revision, if the key exists then.
    pub(crate) fn live_at(&self, arena: &Arena, main: i64) -> Option<At> {
        self.version_at(arena, main).filter(|at| !at.is_tombstone())
    }

    /// How many of the versions (oldest first) a compaction at `compacted` does away with: all before the newest at or
    /// before it, and that one too if it is a tombstone, unless it stands exactly there.
    pub(crate) fn doomed(&self, arena: &Arena, compacted: i64) -> usize {
        if self.older.is_none() && !self.head.is_tombstone() {
            return 0;
        }
        let mut doomed = 0;
        let mut last = None;
        for (i, at) in self.versions().enumerate() {
            let main = arena.main(at);
            if main > compacted {
                break;
            }
            doomed = i;
            last = Some((at, main));
        }
        match last {
            Some((at, main)) if at.is_tombstone() && main < compacted => doomed + 1,
            _ => doomed,
        }
    }

    /// Whether a version, of this main revision, is one of the key's.
    pub(crate) fn holds(&self, at: At, main: i64) -> bool {
        self.head == at || self.position(at, main).is_some()
    }

    /// The place of an older version.
    fn position(&self, at: At, main: i64) -> Option<usize> {
        let older = self.older.as_ref()?;
        let from = older.partition_point(|version| version.main < main);
        older[from..]
            .iter()
            .take_while(|version| version.main == main)
            .position(|it| it.at == at)
            .map(|i| from + i)
    }

    /// A version has been moved in memory.
    pub(crate) fn relocate(&mut self, from: At, to: At, main: i64) {
        if self.head == from {
            self.head = to;
        } else if let Some(position) = self.position(from, main)
            && let Some(older) = &mut self.older
        {
            Arc::make_mut(older)[position].at = to;
        }
    }

    /// Drops what a compaction does away with, telling `gone` of each version.
    pub(crate) fn trim(&mut self, arena: &Arena, compacted: i64, mut gone: impl FnMut(At)) -> Trimmed {
        let doomed = self.doomed(arena, compacted);
        if doomed == 0 {
            return Trimmed::Kept;
        }
        self.versions().take(doomed).for_each(&mut gone);
        let Some(older) = &mut self.older else { return Trimmed::Emptied };
        match doomed {
            all if all > older.len() => return Trimmed::Emptied,
            all if all == older.len() => self.older = None,
            some => {
                let older = Arc::make_mut(older);
                older.drain(..some);
                older.shrink_to_fit();
            }
        }
        Trimmed::Thinned
    }
}
