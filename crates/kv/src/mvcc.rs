//! Writing versions, and keeping account of them.
//!
//! Two sums run along with every write: the size of all versions that are kept, which the quota is decided by, and a
//! digest of them. Both must be the same on every replica at every position, although each removes compacted versions
//! from memory in its own time. So what a later compaction will do away with is noted when it is written: a version
//! that is superseded at revision r is gone when r is compacted, a tombstone of revision r when r + 1 is. Compacting
//! subtracts the notes up to its revision at once; the memory follows (`scrub`).

use std::collections::VecDeque;

use crate::arena::{Accounts, Arena, At, Record, Rev};
use crate::record::KeyValue;
use crate::slot::Version;
use crate::view::View;

/// What becomes garbage when a revision is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doomed {
    revision: i64,
    bytes: u64,
    digest: u64,
}

/// One change of one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// The new version.
    pub(crate) at: At,
    /// The version that was alive before.
    pub(crate) before: Option<At>,
}

/// The versions, with their accounts.
#[derive(Debug)]
pub(crate) struct Mvcc {
    pub(crate) view: View,
    /// Bytes of the versions that are kept, by what compaction says, not by what memory holds.
    size: u64,
    /// Sum of the digests of those versions.
    digest: u64,
    /// By ascending revision.
    doomed: VecDeque<Doomed>,
}

/// What a write must know of the version that it supersedes; its record is taken apart once.
#[derive(Clone, Copy)]
struct Old {
    version: Version,
    tombstone: bool,
    /// Of a pair: when the key was created, and how often it was set since.
    create: i64,
    count: i64,
    accounts: Accounts,
}

impl Old {
    fn of(arena: &Arena, at: At) -> Old {
        let record = arena.record(at);
        let pair = if record.tombstone { KeyValue::default() } else { record.pair() };
        let main = if record.tombstone { record.main() } else { pair.modified };
        Old {
            version: Version { main, at },
            tombstone: record.tombstone,
            create: pair.create,
            count: pair.version,
            accounts: record.accounts_at(main),
        }
    }
}

impl Mvcc {
    pub(crate) fn new() -> Mvcc {
        Mvcc { view: View::empty(), size: 0, digest: 0, doomed: VecDeque::new() }
    }

    /// Takes over versions that were read back, whose accounts sum up to `sum`, and notes what of them is superseded.
    pub(crate) fn of(view: View, sum: Accounts) -> Mvcc {
        let mut doomed: Vec<(i64, Accounts)> = Vec::new();
        let of = |record: &Record<'_>| record.accounts_at(record.main());
        for (_, slot) in view.index.slots(view.index.first(), view.index.end()) {
            // Most keys have one version, and nothing to be noted: their records need not be touched.
            if slot.older.is_none() && !slot.head.is_tombstone() {
                continue;
            }
            let mut before: Option<Record<'_>> = None;
            for at in slot.versions() {
                let record = view.arena.record(at);
                if let Some(before) = before {
                    let end =
                        if before.tombstone { record.main().min(before.main() + 1) } else { record.main() };
                    doomed.push((end, of(&before)));
                }
                before = Some(record);
            }
            if let Some(head) = before.filter(|head| head.tombstone) {
                doomed.push((head.main() + 1, of(&head)));
            }
        }
        doomed.sort_unstable_by_key(|(revision, _)| *revision);
        let mut mvcc = Mvcc { view, size: sum.size, digest: sum.digest, doomed: VecDeque::new() };
        for (revision, accounts) in doomed {
            mvcc.note(revision, accounts);
        }
        mvcc
    }

    /// Size and digest of what is kept.
    pub(crate) fn accounts(&self) -> Accounts {
        Accounts { size: self.size, digest: self.digest }
    }

    /// Size and digest computed afresh from the versions themselves: what the running sums must equal.
    pub(crate) fn audit(&self) -> Accounts {
        let view = &self.view;
        let mut sum = Accounts::default();
        for (_, slot) in view.index.slots(view.index.first(), view.index.end()) {
            let doomed = slot.doomed(&view.arena, view.compacted);
            for at in slot.versions().skip(doomed) {
                let record = view.arena.record(at);
                let accounts = record.accounts_at(record.main());
                sum.size += accounts.size;
                sum.digest = sum.digest.wrapping_add(accounts.digest);
            }
        }
        sum
    }

    /// Sets a key. `pair` has the key, value and lease; the rest follows from what is there.
    pub(crate) fn put(&mut self, rev: Rev, mut pair: KeyValue<'_>) -> Change {
        let View { arena, index, .. } = &mut self.view;
        let place = index.find(arena, pair.key);
        let old = place.ok().map(|place| Old::of(arena, index.slot(place).head));
        let before = old.filter(|old| !old.tombstone).map(|old| old.version.at);
        (pair.create, pair.version) = match old {
            Some(old) if !old.tombstone => (old.create, old.count + 1),
            _ => (rev.main, 1),
        };
        pair.modified = rev.main;
        let (at, accounts) = arena.append(rev, false, &pair);
        index.push(arena, place, pair.key, rev.main, at, old.map(|old| old.version));
        self.settle(old, rev.main, false, accounts);
        Change { at, before }
    }

    /// Deletes a key; `None` when it does not exist.
    pub(crate) fn delete(&mut self, rev: Rev, key: &[u8]) -> Option<Change> {
        let View { arena, index, .. } = &mut self.view;
        let place = index.find(arena, key).ok()?;
        let old = Old::of(arena, index.slot(place).head);
        if old.tombstone {
            return None;
        }
        let (at, accounts) = arena.append(rev, true, &KeyValue { key, ..KeyValue::default() });
        index.push(arena, Ok(place), key, rev.main, at, Some(old.version));
        self.settle(Some(old), rev.main, true, accounts);
        Some(Change { at, before: Some(old.version.at) })
    }

    /// Accounts for a new version, of the write at `main`, and for what it supersedes.
    fn settle(&mut self, old: Option<Old>, main: i64, tombstone: bool, accounts: Accounts) {
        self.size += accounts.size;
        self.digest = self.digest.wrapping_add(accounts.digest);
        if let Some(old) = old {
            let noted = old.tombstone.then(|| old.version.main + 1);
            match noted {
                None => self.note(main, old.accounts),
                // A tombstone was noted when it was written, unless its own write supersedes it: then it goes earlier.
                Some(end) if end > main => {
                    self.unnote(end, old.accounts);
                    self.note(main, old.accounts);
                }
                Some(_) => {}
            }
        }
        if tombstone {
            self.note(main + 1, accounts);
        }
    }

    fn note(&mut self, revision: i64, accounts: Accounts) {
        // Notes come for the present revision and the next: never more than two steps from the back.
        let mut place = self.doomed.len();
        while place > 0 && self.doomed[place - 1].revision > revision {
            place -= 1;
        }
        if place > 0 && self.doomed[place - 1].revision == revision {
            let note = &mut self.doomed[place - 1];
            note.bytes += accounts.size;
            note.digest = note.digest.wrapping_add(accounts.digest);
        } else {
            self.doomed.insert(place, Doomed { revision, bytes: accounts.size, digest: accounts.digest });
        }
    }

    fn unnote(&mut self, revision: i64, accounts: Accounts) {
        let note = self.doomed.iter_mut().rev().find(|note| note.revision == revision);
        let note = note.expect("a tombstone's end was noted when it was written");
        note.bytes -= accounts.size;
        note.digest = note.digest.wrapping_sub(accounts.digest);
    }

    /// Gives up what a compaction does away with: the accounts follow at once, the memory later.
    pub(crate) fn compact(&mut self, revision: i64) {
        assert!(revision > self.view.compacted && revision <= self.view.revision, "checked by the caller");
        self.view.compacted = revision;
        while let Some(note) = self.doomed.front().filter(|note| note.revision <= revision) {
            self.size -= note.bytes;
            self.digest = self.digest.wrapping_sub(note.digest);
            self.doomed.pop_front();
        }
    }
}
