//! Bringing lagging watchers forward out of the history.
//!
//! One pass takes the watchers that lag most, walks the history once from the first revision that any of them misses, and
//! queues for each what it wants of it. A pass ends after [`PASS_REVISIONS_MAX`] revisions, or when its budget of versions or
//! of bytes is used up, but always at the end of a revision. So the work of one call is bounded, and a watcher that lags by
//! a million revisions is brought forward in many passes, between which others are served.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::event::{Batcher, EventBatch};
use super::spans::GroupId;
use super::{Hub, State, WatchOutput, WatcherId};
use crate::arena::{At, Record};
use crate::mutants::Mutant;
use crate::view::View;

/// A pass walks at most so many revisions: what one response may hold of them.
const PASS_REVISIONS_MAX: usize = 1000;

/// A pass brings at most so many watchers forward.
const PASS_WATCHERS_MAX: usize = 1024;

/// A pass ends at the first revision after which it has encoded this much.
const PASS_BYTES_MAX: usize = 1 << 20;

/// Watchers of one group that miss the same: they share a batch.
struct Share {
    next: i64,
    batcher: Batcher,
    watchers: Vec<WatcherId>,
}

impl Hub {
    /// Brings lagging watchers forward, looking at about `budget` versions; true when some still lag.
    ///
    /// Always gets at least one revision further, however small the budget.
    pub(crate) fn catch_up(&mut self, view: &View, budget: usize) -> bool {
        let mut left = budget.max(1);
        while left > 0 && !self.lagging.is_empty() {
            left = left.saturating_sub(self.pass(view, left).max(1));
        }
        !self.lagging.is_empty()
    }

    /// One pass; gives how many versions it looked at.
    fn pass(&mut self, view: &View, budget: usize) -> usize {
        let Some(&(from, first)) = self.lagging.first() else { return 0 };
        if from < view.compacted {
            self.overtaken(first, view.compacted);
            return 1;
        }
        let mut shares: HashMap<GroupId, Vec<Share>, FixedState> = HashMap::default();
        let taken: Vec<(i64, WatcherId)> = self.lagging.iter().take(PASS_WATCHERS_MAX).copied().collect();
        for (next, id) in &taken {
            let of_group = shares.entry(self.watchers[*id].group).or_default();
            // Those that miss the same come one behind the other.
            match of_group.last_mut() {
                Some(share) if share.next == *next => share.watchers.push(*id),
                _ => of_group.push(Share { next: *next, batcher: Batcher::default(), watchers: vec![*id] }),
            }
        }
        let (looked, reached) = self.walk(view, from, budget, &mut shares);
        let mut shares: Vec<(GroupId, Vec<Share>)> = shares.into_iter().collect();
        shares.sort_unstable_by_key(|(group, _)| *group);
        for share in shares.into_iter().flat_map(|(_, of_group)| of_group) {
            if share.next > reached {
                continue;
            }
            let batch = (!share.batcher.is_empty()).then(|| share.batcher.finish(view.revision));
            for id in share.watchers {
                self.lagging.remove(&(share.next, id));
                let further = reached < view.revision;
                let next = match () {
                    () if further && Mutant::WatchTellsTwice.is_on() => reached.max(share.next + 1),
                    () if further && Mutant::WatchSkips.is_on() => reached + 2,
                    () => reached + 1,
                };
                self.bring_forward(view, id, batch.as_ref(), next);
            }
        }
        looked
    }

    /// Walks the history from a revision on and lets every share collect what it wants; gives how many versions it looked
    /// at and the last revision that it finished.
    fn walk(
        &self,
        view: &View,
        from: i64,
        budget: usize,
        shares: &mut HashMap<GroupId, Vec<Share>, FixedState>,
    ) -> (usize, i64) {
        let (mut looked, mut revisions, mut encoded, mut current) = (0, 0, 0, from - 1);
        for (at, record) in view.arena.history(from) {
            let main = record.main();
            if main != current {
                if revisions == PASS_REVISIONS_MAX
                    || (revisions > 0 && (looked >= budget || encoded >= PASS_BYTES_MAX))
                {
                    return (looked, current);
                }
                (current, revisions) = (main, revisions + 1);
            }
            if looked >= budget && Mutant::WatchTearsRevisions.is_on() {
                return (looked, current);
            }
            looked += 1;
            if !is_kept(view, at, &record) {
                continue;
            }
            self.spans.matching(record.key(), |group| {
                let Some(of_group) = shares.get_mut(&group) else { return };
                let key = &self.groups[&group].key;
                if !key.wants(record.tombstone) {
                    return;
                }
                for share in of_group.iter_mut().filter(|share| share.next <= main) {
                    let before = if key.prev_kv { view.before(&record) } else { None };
                    let length = share.batcher.len();
                    share.batcher.push(&record, before);
                    encoded += share.batcher.len() - length;
                }
            });
        }
        (looked, view.revision)
    }

    /// Queues what a watcher missed and puts it where it then belongs.
    fn bring_forward(&mut self, view: &View, id: WatcherId, batch: Option<&Arc<EventBatch>>, next: i64) {
        if let Some(batch) = batch
            && !self.offer(id, batch, next)
        {
            return self.park(id);
        }
        self.watchers.get_mut(id).expect("a known watcher").next = next;
        if next > view.revision {
            self.sync(id);
        } else {
            self.watchers.get_mut(id).expect("a known watcher").state = State::Lagging;
            self.lagging.insert((next, id));
        }
    }

    /// Cancels a watcher that misses what is compacted.
    fn overtaken(&mut self, id: WatcherId, compact_revision: i64) {
        let watcher = &self.watchers[id];
        let (stream, watch_id) = (watcher.stream, watcher.watch_id);
        self.streams.get_mut(stream).expect("a watcher's stream is open").watchers.remove(&watch_id);
        self.forget(id);
        self.say(stream, WatchOutput::Compacted { watch_id, compact_revision });
    }
}

/// Whether a version of the history is kept: at the compacted revision itself, memory may still hold versions that are
/// gone for everybody, and whether it does must make no difference.
fn is_kept(view: &View, at: At, record: &Record<'_>) -> bool {
    if record.tombstone && record.main() == view.compacted && Mutant::WatchLosesDeletion.is_on() {
        return false;
    }
    record.main() > view.compacted
        || view
            .index
            .get(&view.arena, record.key())
            .is_some_and(|slot| slot.version_at(&view.arena, view.compacted) == Some(at))
}
