//! Checks that need no state, in the order that the API's description gives them (sections 2 and 4).
//!
//! The server runs them before it proposes or reads; the store relies on them for nothing but kinder errors: whatever
//! it finds in its log, it carries out or answers with an error.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use crate::error::OpError;
use crate::op::{
    DeleteRange, LEASE_TTL_MAX, Op, Put, RangeRequest, SortOrder, SortTarget, TXN_DEPTH_MAX, Txn, TxnOp,
};

/// Looks a sort order up by its number on the wire.
///
/// # Errors
/// [`OpError::InvalidSortOption`] for a number without meaning.
pub fn sort_order(number: i32) -> Result<SortOrder, OpError> {
    match number {
        0 => Ok(SortOrder::None),
        1 => Ok(SortOrder::Ascend),
        2 => Ok(SortOrder::Descend),
        _ => Err(OpError::InvalidSortOption),
    }
}

/// Looks a sort target up by its number on the wire.
///
/// # Errors
/// [`OpError::InvalidSortOption`] for a number without meaning.
pub fn sort_target(number: i32) -> Result<SortTarget, OpError> {
    match number {
        0 => Ok(SortTarget::Key),
        1 => Ok(SortTarget::Version),
        2 => Ok(SortTarget::Create),
        3 => Ok(SortTarget::Mod),
        4 => Ok(SortTarget::Value),
        _ => Err(OpError::InvalidSortOption),
    }
}

impl RangeRequest {
    /// Checks the request by itself.
    ///
    /// # Errors
    /// [`OpError::EmptyKey`]. Sort options were checked when they were looked up, which upstream does after the key.
    pub fn validate(&self) -> Result<(), OpError> {
        if self.key.is_empty() { Err(OpError::EmptyKey) } else { Ok(()) }
    }

    /// Whether any of the four bounds on revisions is set.
    #[must_use]
    pub fn filters_revisions(&self) -> bool {
        let bounds = [
            self.min_mod_revision,
            self.max_mod_revision,
            self.min_create_revision,
            self.max_create_revision,
        ];
        bounds.iter().any(|bound| *bound != 0)
    }

    /// Whether the results need another order than the store's own.
    #[must_use]
    pub fn sorts(&self) -> bool {
        self.sort_target != SortTarget::Key || self.sort_order == SortOrder::Descend
    }

    /// Checks what RangeStream cannot do.
    ///
    /// # Errors
    /// As [`RangeRequest::validate`], and for sorts and filters.
    pub fn validate_stream(&self) -> Result<(), OpError> {
        self.validate()?;
        if self.sorts() {
            return Err(OpError::StreamSort);
        }
        if self.filters_revisions() {
            return Err(OpError::StreamFilter);
        }
        Ok(())
    }
}

impl Put {
    /// Checks the request by itself.
    ///
    /// # Errors
    /// An empty key; a value or a lease that is given and to be ignored at once.
    pub fn validate(&self) -> Result<(), OpError> {
        if self.key.is_empty() {
            return Err(OpError::EmptyKey);
        }
        if self.flags.ignore_value && !self.value.is_empty() {
            return Err(OpError::ValueProvided);
        }
        if self.flags.ignore_lease && self.lease != 0 {
            return Err(OpError::LeaseProvided);
        }
        Ok(())
    }
}

impl DeleteRange {
    /// Checks the request by itself.
    ///
    /// # Errors
    /// An empty key.
    pub fn validate(&self) -> Result<(), OpError> {
        if self.key.is_empty() { Err(OpError::EmptyKey) } else { Ok(()) }
    }
}

impl Txn {
    /// Checks the request by itself; `ops_max` bounds compares and operations of the outermost level, and what it uses
    /// of them is missing on the levels below.
    ///
    /// # Errors
    /// Too many operations, first; then whatever is wrong with a compare or an operation, in order; then a key that one
    /// branch would change twice.
    pub fn validate(&self, ops_max: usize) -> Result<(), OpError> {
        self.validate_level(ops_max, 1)?;
        for branch in [&self.success, &self.failure] {
            // One operation by itself changes no key twice: what most transactions consist of.
            if branch.len() > 1 || matches!(branch.first(), Some(TxnOp::Txn(_))) {
                changed(branch)?;
            }
        }
        Ok(())
    }

    fn validate_level(&self, ops_max: usize, depth: usize) -> Result<(), OpError> {
        let ops = self.compare.len().max(self.success.len()).max(self.failure.len());
        if ops > ops_max || depth > TXN_DEPTH_MAX {
            return Err(OpError::TooManyOps);
        }
        if self.compare.iter().any(|compare| compare.key.is_empty()) {
            return Err(OpError::EmptyKey);
        }
        for op in self.success.iter().chain(&self.failure) {
            match op {
                TxnOp::Range(range) => range.validate()?,
                TxnOp::Put(put) => put.validate()?,
                TxnOp::DeleteRange(delete) => delete.validate()?,
                TxnOp::Txn(txn) => txn.validate_level(ops_max - ops, depth + 1)?,
                TxnOp::Empty => return Err(OpError::KeyNotFound),
            }
        }
        Ok(())
    }

    /// Whether neither branch can write: such a transaction need not go through the log. A transaction in the
    /// transaction counts as a write, as upstream has it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, TxnOp::Range(_)))
    }

    /// Whether every read in it may be stale, so that not even a fence is needed.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        let mut ops = self.success.iter().chain(&self.failure);
        ops.all(|op| matches!(op, TxnOp::Range(range) if range.serializable))
    }
}

impl Op {
    /// Checks the request by itself; `txn_ops_max` as in [`Txn::validate`].
    ///
    /// # Errors
    /// As for the operations themselves.
    pub fn validate(&self, txn_ops_max: usize) -> Result<(), OpError> {
        match self {
            Op::Put(put) => put.validate(),
            Op::DeleteRange(delete) => delete.validate(),
            Op::Txn(txn) => txn.validate(txn_ops_max),
            Op::LeaseGrant { id: 0, .. } => Err(OpError::LeaseNotFound),
            Op::LeaseGrant { ttl, .. } if *ttl > LEASE_TTL_MAX => Err(OpError::LeaseTtlTooLarge),
            _ => Ok(()),
        }
    }
}

type Keys<'a> = HashSet<&'a [u8], FixedState>;

/// Disjoint half-open intervals of keys, in order: start to end.
#[derive(Default)]
struct Intervals<'a>(BTreeMap<&'a [u8], Option<&'a [u8]>>);

/// What a list of operations puts and deletes, those of transactions in it included.
#[derive(Default)]
struct Changed<'a> {
    puts: Keys<'a>,
    deletes: Intervals<'a>,
}

impl<'a> Intervals<'a> {
    /// Adds `[start, end)`; without an end, just the one key.
    ///
    /// The end is taken as it stands: upstream compares a range to the end of all keys (end = one zero byte) by bytes
    /// too, so that it covers nothing here. A put beside such a delete is let through, and real transcripts show it.
    fn insert(&mut self, start: &'a [u8], end: Option<&'a [u8]>) {
        let Some(end) = end else {
            if !self.contains(start) {
                self.0.insert(start, None);
            }
            return;
        };
        if end <= start {
            return;
        }
        let (mut low, mut high) = (start, end);
        // Swallows every interval that overlaps the new one.
        if let Some((&before, &Some(before_end))) = self.0.range(..=start).next_back()
            && before_end > start
        {
            low = before;
            high = high.max(before_end);
        }
        while let Some((&inside, &inside_end)) = self.0.range(low..high).next() {
            high = high.max(inside_end.unwrap_or(high));
            self.0.remove(inside);
        }
        self.0.insert(low, Some(high));
    }

    fn contains(&self, key: &[u8]) -> bool {
        match self.0.range(..=key).next_back() {
            Some((start, None)) => *start == key,
            Some((_, Some(end))) => *end > key,
            None => false,
        }
    }

    fn absorb(&mut self, other: Intervals<'a>) {
        for (start, end) in other.0 {
            self.insert(start, end);
        }
    }
}

/// Collects what `ops` change; a delete is looked at before all puts of its level, wherever it stands.
///
/// Deletes may overlap; the two branches of a transaction in the list exclude each other, so they may share puts.
fn changed(ops: &[TxnOp]) -> Result<Changed<'_>, OpError> {
    let mut all = Changed::default();
    for op in ops {
        if let TxnOp::DeleteRange(delete) = op {
            all.deletes.insert(&delete.key, (!delete.range_end.is_empty()).then_some(&delete.range_end[..]));
        }
    }
    for op in ops {
        let TxnOp::Txn(txn) = op else { continue };
        let (success, failure) = (changed(&txn.success)?, changed(&txn.failure)?);
        for branch in [&success, &failure] {
            let clashes = |key: &&[u8]| all.puts.contains(key) || all.deletes.contains(key);
            if branch.puts.iter().any(clashes) {
                return Err(OpError::DuplicateKey);
            }
        }
        for branch in [success, failure] {
            if all.puts.is_empty() {
                all.puts = branch.puts;
            } else {
                all.puts.extend(branch.puts);
            }
            all.deletes.absorb(branch.deletes);
        }
    }
    all.puts.reserve(ops.iter().filter(|op| matches!(op, TxnOp::Put(_))).count());
    for op in ops {
        let TxnOp::Put(put) = op else { continue };
        if all.deletes.contains(&put.key) || !all.puts.insert(&put.key) {
            return Err(OpError::DuplicateKey);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::op::{Compare, CompareResult, CompareTarget, PutFlags, TXN_OPS_MAX};

    fn put(key: &'static str) -> TxnOp {
        TxnOp::Put(Put { key: Bytes::from_static(key.as_bytes()), ..Put::default() })
    }

    fn delete(key: &'static str, end: &'static str) -> TxnOp {
        let (key, range_end) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()));
        TxnOp::DeleteRange(DeleteRange { key, range_end, prev_kv: false })
    }

    fn nested(success: Vec<TxnOp>, failure: Vec<TxnOp>) -> TxnOp {
        TxnOp::Txn(Txn { compare: vec![], success, failure })
    }

    fn check(success: Vec<TxnOp>) -> Result<(), OpError> {
        Txn { compare: vec![], success, failure: vec![] }.validate(TXN_OPS_MAX)
    }

    /// No branch may change a key twice, at whatever depth the two changes stand, while branches that exclude each other may.
    #[test]
    fn a_key_changes_once_per_branch() {
        let duplicate = Err(OpError::DuplicateKey);
        assert_eq!(check(vec![put("a"), put("b")]), Ok(()));
        assert_eq!(check(vec![put("a"), put("a")]), duplicate);
        assert_eq!(check(vec![put("b"), delete("a", "c")]), duplicate);
        assert_eq!(check(vec![put("c"), delete("a", "c")]), Ok(()));
        assert_eq!(check(vec![delete("a", "c"), delete("b", "d"), delete("b", "")]), Ok(()));
        assert_eq!(check(vec![put("d"), delete("a", "c"), delete("b", "e"), delete("0", "b")]), duplicate);
        assert_eq!(check(vec![put("a"), delete("a", "")]), duplicate);
        assert_eq!(check(vec![nested(vec![put("a")], vec![put("a")])]), Ok(()));
        assert_eq!(check(vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])]), duplicate);
        assert_eq!(check(vec![nested(vec![nested(vec![put("a")], vec![])], vec![]), put("a")]), duplicate);
        assert_eq!(check(vec![nested(vec![delete("a", "b")], vec![]), put("a")]), duplicate);
        assert_eq!(check(vec![nested(vec![put("a")], vec![]), delete("a", "")]), duplicate);
        // The end of all keys is compared as bytes here, as upstream does: it covers nothing.
        assert_eq!(check(vec![delete("\0", "\0"), put("a")]), Ok(()));
    }

    /// The budget of operations is what the levels above left over, and depth itself is bounded.
    #[test]
    fn the_budget_shrinks_with_depth() {
        let many = |count| (0..count).map(|_| delete("a", "")).collect::<Vec<_>>();
        assert_eq!(check(many(128)), Ok(()));
        assert_eq!(check(many(129)), Err(OpError::TooManyOps));
        assert_eq!(check(vec![nested(many(127), vec![])]), Ok(()));
        assert_eq!(check(vec![nested(many(128), vec![])]), Err(OpError::TooManyOps));
        let mut deep = nested(vec![], vec![]);
        for _ in 0..TXN_DEPTH_MAX {
            deep = nested(vec![deep], vec![]);
        }
        assert_eq!(
            Txn { success: vec![deep], ..Txn::default() }.validate(usize::MAX),
            Err(OpError::TooManyOps)
        );
    }

    /// Each operation in a transaction is checked as if it stood alone, and an empty one has upstream's odd error.
    #[test]
    fn operations_are_checked_one_by_one() {
        assert_eq!(check(vec![TxnOp::Empty]), Err(OpError::KeyNotFound));
        assert_eq!(check(vec![put("")]), Err(OpError::EmptyKey));
        let compare = Compare {
            key: Bytes::new(),
            range_end: Bytes::new(),
            result: CompareResult::Equal,
            target: CompareTarget::Version(0),
        };
        let txn = Txn { compare: vec![compare], success: vec![TxnOp::Empty], failure: vec![] };
        assert_eq!(txn.validate(TXN_OPS_MAX), Err(OpError::EmptyKey));
        let flags = PutFlags { ignore_value: true, ignore_lease: true, prev_kv: false };
        let both = Put { key: "a".into(), value: "v".into(), lease: 1, flags };
        assert_eq!(both.validate(), Err(OpError::ValueProvided));
        assert_eq!(Put { value: Bytes::new(), ..both }.validate(), Err(OpError::LeaseProvided));
        assert_eq!(sort_order(99), Err(OpError::InvalidSortOption));
        assert_eq!(sort_target(-1), Err(OpError::InvalidSortOption));
    }
}
