//! Which groups of watchers a key concerns.
//!
//! Most watchers name one key or a prefix, so these are hashed: a key asks for itself, and for its prefix of each length
//! that anybody watches. Watchers without an upper end are kept by where they begin, and a key asks for all that begin at or
//! before it, every one of which matches. What is left, intervals of other shapes, is looked through one by one as far as
//! they begin at or before the key.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::view::NO_END;

/// What a watcher watches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Span {
    Key(Bytes),
    Prefix(Bytes),
    From(Bytes),
    Range(Bytes, Bytes),
}

/// A group of watchers.
pub(super) type GroupId = u32;

type Ids = SmallVec<[GroupId; 2]>;

/// The groups by what they watch.
#[derive(Debug, Default)]
pub(super) struct Spans {
    keys: HashMap<Bytes, Ids, FixedState>,
    prefixes: HashMap<Bytes, Ids, FixedState>,
    /// How many prefixes of each length there are.
    lengths: BTreeMap<usize, usize>,
    froms: BTreeMap<Bytes, Ids>,
    ranges: BTreeMap<(Bytes, Bytes), Ids>,
}

impl Span {
    /// What a request's key and range end mean; `None` for an empty range.
    pub(super) fn of(key: &Bytes, range_end: &Bytes) -> Option<Span> {
        // A copy of its own: the request's bytes are a slice of a large buffer.
        let own = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let key = if key.is_empty() { own(NO_END) } else { own(key) };
        if range_end.is_empty() {
            return Some(Span::Key(key));
        }
        if range_end == NO_END {
            return Some(Span::From(key));
        }
        if *range_end <= key {
            return None;
        }
        Some(if prefix_end(&key).as_deref() == Some(range_end) {
            Span::Prefix(key)
        } else {
            Span::Range(key, own(range_end))
        })
    }
}

/// The first key above all that begin with `prefix`; `None` when there is no such key.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte < 0xff)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

impl Spans {
    pub(super) fn insert(&mut self, span: &Span, id: GroupId) {
        let ids = match span {
            Span::Key(key) => self.keys.entry(key.clone()).or_default(),
            Span::Prefix(prefix) => {
                let ids = self.prefixes.entry(prefix.clone()).or_default();
                if ids.is_empty() {
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                }
                ids
            }
            Span::From(key) => self.froms.entry(key.clone()).or_default(),
            Span::Range(key, end) => self.ranges.entry((key.clone(), end.clone())).or_default(),
        };
        ids.push(id);
    }

    pub(super) fn remove(&mut self, span: &Span, id: GroupId) {
        let ids = match span {
            Span::Key(key) => self.keys.get_mut(key),
            Span::Prefix(prefix) => self.prefixes.get_mut(prefix),
            Span::From(key) => self.froms.get_mut(key),
            Span::Range(key, end) => self.ranges.get_mut(&(key.clone(), end.clone())),
        };
        let ids = ids.expect("what is removed was inserted");
        ids.retain(|other| *other != id);
        if !ids.is_empty() {
            return;
        }
        match span {
            Span::Key(key) => drop(self.keys.remove(key)),
            Span::From(key) => drop(self.froms.remove(key)),
            Span::Range(key, end) => drop(self.ranges.remove(&(key.clone(), end.clone()))),
            Span::Prefix(prefix) => {
                self.prefixes.remove(prefix);
                let count = self.lengths.get_mut(&prefix.len()).expect("every length is counted");
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&prefix.len());
                }
            }
        }
    }

    /// Calls `found` for each group that `key` concerns.
    pub(super) fn matching(&self, key: &[u8], mut found: impl FnMut(GroupId)) {
        if !self.keys.is_empty()
            && let Some(ids) = self.keys.get(key)
        {
            ids.iter().copied().for_each(&mut found);
        }
        for length in self.lengths.range(..=key.len()).map(|(length, _)| *length) {
            if let Some(ids) = self.prefixes.get(&key[..length]) {
                ids.iter().copied().for_each(&mut found);
            }
        }
        let until = (Bound::Unbounded, Bound::Included(key));
        for (_, ids) in self.froms.range::<[u8], _>(until) {
            ids.iter().copied().for_each(&mut found);
        }
        for ((start, end), ids) in &self.ranges {
            if **start > *key {
                break;
            }
            if *key < **end {
                ids.iter().copied().for_each(&mut found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For every key and every pair of bounds over a small alphabet, a key is found by exactly the spans that hold it.
    #[test]
    fn spans_agree_with_their_definition() {
        let letters = [&b""[..], b"\0", b"a", b"ab", b"abc", b"b", b"a\xff", b"\xff", b"\xff\xff", b"c"];
        let mut spans = Spans::default();
        let mut all = Vec::new();
        for key in letters {
            for end in letters {
                let Some(span) = Span::of(&Bytes::from_static(key), &Bytes::from_static(end)) else {
                    continue;
                };
                spans.insert(&span, all.len() as GroupId);
                all.push((span, if key.is_empty() { b"\0" } else { key }, end));
            }
        }
        for round in 0..2 {
            for key in letters.iter().filter(|key| !key.is_empty()) {
                let mut found = Vec::new();
                spans.matching(key, |id| found.push(id));
                found.sort_unstable();
                let holds = |(id, (_, start, end)): (usize, &(Span, &[u8], &[u8]))| {
                    let inside = match *end {
                        b"" => key == start,
                        b"\0" => key >= start,
                        end => key >= start && **key < *end,
                    };
                    (inside && (round == 0 || id % 2 == 0)).then_some(id as GroupId)
                };
                let expected: Vec<GroupId> = all.iter().enumerate().filter_map(holds).collect();
                assert_eq!(found, expected, "key {key:?}");
            }
            for (id, (span, _, _)) in all.iter().enumerate().filter(|(id, _)| round == 0 && id % 2 == 1) {
                spans.remove(span, id as GroupId);
            }
        }
    }

    /// The end of a prefix carries over bytes that cannot be raised, and a prefix of such bytes alone has none.
    #[test]
    fn prefixes_end() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
