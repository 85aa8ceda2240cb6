//! Reading ranges: section 2 of the API's description, step by step.
//!
//! Two ways lead to the same answer. [`View::range`] gives it at once. A [`RangeCursor`] gives it in pieces from a frozen
//! view, so that a large answer needs memory for a piece only, while writes go on.
//!
//! Counting looks at leaves instead of keys wherever nothing in a leaf is newer than the revision asked for. Keys-only
//! replies keep the lease, as etcd does up to 3.7. Sorting is stable: ties stay in the order of keys.

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use crate::arena::{At, Record};
use crate::error::OpError;
use crate::index::Place;
use crate::op::{Content, RangeReply, RangeRequest, SortOrder, SortTarget};
use crate::record::{KeyValue, KvList, put_varint, varint_len};
use crate::view::View;

/// Neighbouring keys' records lie anywhere in memory: so many are touched one right after the other before they are
/// read, so that the processor waits for many of them at a time instead of one by one.
const AHEAD: usize = 32;

/// What a range says beside its pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeSummary {
    /// The store's revision when it was read.
    pub revision: i64,
    /// Whether the limit cut pairs off, after filtering.
    pub more: bool,
    /// How many keys the interval holds, before filters and limit.
    pub count: i64,
    /// How many pairs there are in the answer.
    pub pairs: usize,
}

impl View {
    /// Reads a range.
    ///
    /// # Errors
    /// When the revision cannot be read.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, OpError> {
        let revision = self.resolve(request.revision)?;
        Ok(self.range_reply(request, revision, self.revision))
    }

    /// Reads a range, appending its pairs to `out` as field 2 of a RangeResponse.
    ///
    /// # Errors
    /// When the revision cannot be read; nothing is appended then.
    pub fn range_into(&self, request: &RangeRequest, out: &mut BytesMut) -> Result<RangeSummary, OpError> {
        let revision = self.resolve(request.revision)?;
        Ok(self.range_as_of(request, revision, self.revision, usize::MAX, out).unwrap_or_default())
    }

    /// The same, unless there are more bytes than `bytes_max` and one pair: then `None`, and what was appended is of no use.
    ///
    /// # Errors
    /// When the revision cannot be read; nothing is appended then.
    pub fn range_within(
        &self,
        request: &RangeRequest,
        bytes_max: usize,
        out: &mut BytesMut,
    ) -> Result<Option<RangeSummary>, OpError> {
        let revision = self.resolve(request.revision)?;
        Ok(self.range_as_of(request, revision, self.revision, bytes_max, out))
    }

    /// About how many bytes the pairs of a range take, filters aside; 0 for a revision that cannot be read.
    #[must_use]
    pub fn range_bytes(&self, request: &RangeRequest) -> u64 {
        let Ok(revision) = self.resolve(request.revision) else { return 0 };
        if request.content == Content::CountOnly {
            return 0;
        }
        let (from, to) = self.span(&request.key, &request.range_end);
        let found = self.index.slots(from, to).filter_map(|(_, slot)| self.live_in(slot, revision));
        let limited = !request.sorts() && !request.filters_revisions();
        let limit = usize::try_from(request.limit).ok().filter(|limit| limited && *limit > 0);
        let pairs = found.take(limit.unwrap_or(usize::MAX));
        pairs.map(|at| pair_len(&self.arena.record(at), request.content) as u64).sum()
    }

    /// How many keys the range spans at most: what a server decides by whether to answer at once or with a cursor.
    #[must_use]
    pub fn breadth(&self, request: &RangeRequest) -> usize {
        if request.range_end.is_empty() {
            return 1;
        }
        let (from, to) = self.span(&request.key, &request.range_end);
        let all = self.index.breadth(from, to);
        match usize::try_from(request.limit) {
            Ok(limit @ 1..) if !request.sorts() && !request.filters_revisions() => all.min(limit),
            _ => all,
        }
    }

    /// Reads a range at a revision that is known to be readable; `now` is what the header says.
    pub(crate) fn range_reply(&self, request: &RangeRequest, revision: i64, now: i64) -> RangeReply {
        let mut out = BytesMut::new();
        let summary = self.range_as_of(request, revision, now, usize::MAX, &mut out).unwrap_or_default();
        let kvs = KvList::new(out, summary.pairs);
        RangeReply { revision: now, kvs, more: summary.more, count: summary.count }
    }

    fn range_as_of(
        &self,
        request: &RangeRequest,
        revision: i64,
        now: i64,
        bytes_max: usize,
        out: &mut BytesMut,
    ) -> Option<RangeSummary> {
        let mut summary = RangeSummary { revision: now, ..RangeSummary::default() };
        if request.range_end.is_empty() && request.content == Content::Full && !request.filters_revisions() {
            // One key: the way most reads go.
            if let Some(record) = self.live_at(&request.key, revision) {
                put_pair(out, &record, Content::Full);
                summary.pairs = 1;
                summary.count = 1;
            }
            return Some(summary);
        }
        let start = out.len();
        let (from, to) = self.span(&request.key, &request.range_end);
        let count = |view: &View| view.index.count(&view.arena, from, to, revision) as i64;
        if request.content == Content::CountOnly {
            summary.count = count(self);
            return Some(summary);
        }
        let limit = usize::try_from(request.limit).unwrap_or(0);
        if request.sorts() || request.filters_revisions() {
            let (mut chosen, all) = self.choose(request, from, to, revision);
            summary.count = all as i64;
            summary.more = limit > 0 && chosen.len() > limit;
            if summary.more {
                chosen.truncate(limit);
            }
            summary.pairs = chosen.len();
            for at in chosen {
                if out.len() - start > bytes_max {
                    return None;
                }
                put_pair(out, &self.arena.record(at), request.content);
            }
            return Some(summary);
        }
        let mut found = self.index.slots(from, to).filter_map(|(_, slot)| self.live_in(slot, revision));
        let mut ahead = SmallVec::<[At; AHEAD]>::new();
        let mut left = if limit > 0 { limit } else { usize::MAX };
        loop {
            ahead.clear();
            ahead.extend(found.by_ref().take(left.min(AHEAD)));
            self.arena.touch(ahead.iter().copied());
            for at in &ahead {
                if out.len() - start > bytes_max {
                    return None;
                }
                put_pair(out, &self.arena.record(*at), request.content);
            }
            summary.pairs += ahead.len();
            left -= ahead.len();
            if left == 0 || ahead.is_empty() {
                break;
            }
        }
        summary.more = left == 0 && found.next().is_some();
        summary.count = if summary.more { count(self) } else { summary.pairs as i64 };
        Some(summary)
    }

    /// What passes the filters, sorted; and how many there were before.
    fn choose(&self, request: &RangeRequest, from: Place, to: Place, revision: i64) -> (Vec<At>, usize) {
        let mut all = 0;
        let mut chosen = Vec::new();
        for (_, slot) in self.index.slots(from, to) {
            let Some(at) = self.live_in(slot, revision) else { continue };
            all += 1;
            if !request.filters_revisions() || passes(request, &self.arena.record(at).pair()) {
                chosen.push(at);
            }
        }
        let number: fn(&KeyValue<'_>) -> i64 = match request.sort_target {
            SortTarget::Key => {
                if request.sort_order == SortOrder::Descend {
                    chosen.reverse();
                }
                return (chosen, all);
            }
            SortTarget::Value => {
                let value = |at: &At| self.arena.record(*at).pair().value;
                match request.sort_order {
                    SortOrder::Descend => chosen.sort_by(|a, b| value(b).cmp(value(a))),
                    _ => chosen.sort_by(|a, b| value(a).cmp(value(b))),
                }
                return (chosen, all);
            }
            SortTarget::Version => |pair| pair.version,
            SortTarget::Create => |pair| pair.create,
            SortTarget::Mod => |pair| pair.modified,
        };
        match request.sort_order {
            SortOrder::Descend => {
                chosen.sort_by_cached_key(|at| Reverse(number(&self.arena.record(*at).pair())))
            }
            _ => chosen.sort_by_cached_key(|at| number(&self.arena.record(*at).pair())),
        }
        (chosen, all)
    }
}

/// Whether a pair lies within the bounds on revisions; zero is no bound.
fn passes(request: &RangeRequest, pair: &KeyValue<'_>) -> bool {
    let below = |value: i64, max: i64| max == 0 || value <= max;
    let above = |value: i64, min: i64| min == 0 || value >= min;
    below(pair.modified, request.max_mod_revision)
        && above(pair.modified, request.min_mod_revision)
        && below(pair.create, request.max_create_revision)
        && above(pair.create, request.min_create_revision)
}

/// Appends a pair as an element of a RangeResponse.
fn put_pair(out: &mut BytesMut, record: &Record<'_>, content: Content) {
    if content == Content::Full {
        out.reserve(record.kv.len() + 6);
        out.put_u8(KvList::RANGE_KVS);
        put_varint(out, record.kv.len() as u64);
        out.put_slice(record.kv);
    } else {
        let bare = KeyValue { value: b"", ..record.pair() };
        out.put_u8(KvList::RANGE_KVS);
        put_varint(out, bare.encoded_len() as u64);
        bare.encode(out);
    }
}

fn pair_len(record: &Record<'_>, content: Content) -> usize {
    let length = match content {
        Content::Full => record.kv.len(),
        _ => KeyValue { value: b"", ..record.pair() }.encoded_len(),
    };
    1 + varint_len(length as u64) + length
}

/// Where a cursor's pairs come from.
#[derive(Clone, Debug)]
enum Source {
    /// Straight from the index.
    Walk { next: Place, to: Place },
    /// Chosen and sorted beforehand; eight bytes each.
    Chosen { list: Arc<Vec<At>>, next: usize },
}

/// A range's answer in pieces, from a frozen view.
#[derive(Clone, Debug)]
pub struct RangeCursor {
    view: Arc<View>,
    source: Source,
    /// How many pairs are still to come.
    left: usize,
    /// The next of them, last first.
    ahead: SmallVec<[At; AHEAD]>,
    revision: i64,
    content: Content,
    summary: RangeSummary,
}

impl RangeCursor {
    /// Prepares a range; all but the pairs is known from then on.
    ///
    /// # Errors
    /// When the revision cannot be read.
    pub fn new(view: Arc<View>, request: &RangeRequest) -> Result<RangeCursor, OpError> {
        let revision = view.resolve(request.revision)?;
        let (from, to) = view.span(&request.key, &request.range_end);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let (source, found, count) = if request.content == Content::CountOnly {
            (Source::Walk { next: to, to }, 0, view.index.count(&view.arena, from, to, revision))
        } else if request.sorts() || request.filters_revisions() {
            let (list, count) = view.choose(request, from, to, revision);
            let found = list.len();
            (Source::Chosen { list: Arc::new(list), next: 0 }, found, count)
        } else {
            let count = view.index.count(&view.arena, from, to, revision);
            (Source::Walk { next: from, to }, count, count)
        };
        let left = found.min(limit);
        let summary =
            RangeSummary { revision: view.revision, more: found > limit, count: count as i64, pairs: left };
        let ahead = SmallVec::new();
        Ok(RangeCursor { view, source, left, ahead, revision, content: request.content, summary })
    }

    /// What the answer says beside its pairs.
    #[must_use]
    pub fn summary(&self) -> RangeSummary {
        self.summary
    }

    /// How many bytes the cursor itself holds: what was sorted is remembered.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.source {
            Source::Walk { .. } => 0,
            Source::Chosen { list, .. } => list.capacity() * size_of::<At>(),
        }
    }

    /// Whether all pairs have been given.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// How many bytes the pairs that are still to come take: a message says its length first.
    #[must_use]
    pub fn remaining_bytes(&self) -> u64 {
        let mut rest = self.clone();
        let mut bytes = 0;
        while let Some(at) = rest.next() {
            bytes += pair_len(&self.view.arena.record(at), self.content) as u64;
        }
        bytes
    }

    /// Appends further pairs to `out`, at most `pairs_max`, and none once at least `bytes_max` bytes were added.
    /// Gives how many it appended.
    pub fn read(&mut self, pairs_max: usize, bytes_max: usize, out: &mut BytesMut) -> usize {
        let start = out.len();
        let mut pairs = 0;
        while pairs < pairs_max && out.len() - start < bytes_max {
            let Some(at) = self.next() else { break };
            put_pair(out, &self.view.arena.record(at), self.content);
            pairs += 1;
        }
        pairs
    }

    fn next(&mut self) -> Option<At> {
        if self.left == 0 {
            return None;
        }
        if self.ahead.is_empty() {
            self.look_ahead();
        }
        self.left -= 1;
        self.ahead.pop()
    }

    /// Finds the next versions, and brings their memory near.
    fn look_ahead(&mut self) {
        let view = &self.view;
        let wanted = self.left.min(AHEAD);
        match &mut self.source {
            Source::Chosen { list, next } => {
                self.ahead.extend(list[*next..].iter().take(wanted).copied());
                *next += self.ahead.len();
            }
            Source::Walk { next, to } => {
                for (place, slot) in view.index.slots(*next, *to) {
                    *next = Place::after(place);
                    self.ahead.extend(view.live_in(slot, self.revision));
                    if self.ahead.len() == wanted {
                        break;
                    }
                }
            }
        }
        view.arena.touch(self.ahead.iter().copied());
        // They are taken from the back.
        self.ahead.reverse();
    }
}

/// How many pairs the messages of a RangeStream carry: ten at first, then twice as many while messages stay small, and
/// half as many when they grow large.
#[derive(Clone, Copy, Debug)]
pub struct StreamPace {
    pairs: usize,
    request_bytes_max: usize,
}

impl StreamPace {
    /// The pace for a server whose requests may have `request_bytes_max` bytes.
    #[must_use]
    pub fn new(request_bytes_max: usize) -> StreamPace {
        StreamPace { pairs: 10, request_bytes_max }
    }

    /// How many pairs the next message carries.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// Learns how many bytes a message took.
    pub fn sent(&mut self, bytes: usize) {
        if bytes < self.request_bytes_max / 2 {
            self.pairs = self.pairs.saturating_mul(2);
        } else if bytes > self.request_bytes_max.saturating_mul(2) {
            self.pairs = (self.pairs / 2).max(1);
        }
    }
}
