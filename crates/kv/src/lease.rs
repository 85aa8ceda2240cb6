//! Leases, the part that every replica agrees on: which exist, for how long they were granted, what hangs on them.
//!
//! When a lease ends is no part of this: only the leader's clock says that (`lessor`), and it says so through the log.
//! A key's record names its lease, so the keys of each lease are rebuilt from the records when a snapshot is read back.

use std::collections::{BTreeMap, BTreeSet};

use crate::arena::mix;
use crate::error::OpError;
use crate::op::LEASE_TTL_MAX;

/// A lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Its length in seconds, as granted.
    pub ttl: i64,
    /// The seconds that were left at the last checkpoint; 0: none was noted since it was renewed.
    pub remaining: i64,
    /// The keys that go with it, in order.
    pub keys: BTreeSet<Box<[u8]>>,
}

/// All leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    leases: BTreeMap<i64, Lease>,
    /// Sum over all leases; the keys are in the digest of the records.
    digest: u64,
}

fn digest_of(id: i64, lease: &Lease) -> u64 {
    mix(mix(mix(id as u64).wrapping_add(lease.ttl as u64)).wrapping_add(lease.remaining as u64))
}

impl Leases {
    /// A lease by its name.
    #[must_use]
    pub fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// All leases, by ascending name.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// A number that differs when the leases differ.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Creates a lease.
    ///
    /// # Errors
    /// The name 0, a length above the maximum, a name that is taken: in this order.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Result<(), OpError> {
        if id == 0 {
            return Err(OpError::LeaseNotFound);
        }
        if ttl > LEASE_TTL_MAX {
            return Err(OpError::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(OpError::LeaseExists);
        }
        self.insert(id, Lease { ttl, ..Lease::default() });
        Ok(())
    }

    /// Puts a lease back that was written to a snapshot.
    pub(crate) fn insert(&mut self, id: i64, lease: Lease) {
        self.digest = self.digest.wrapping_add(digest_of(id, &lease));
        let before = self.leases.insert(id, lease);
        assert!(before.is_none(), "the caller checked that the name is free");
    }

    /// Ends a lease; its keys are the caller's to delete.
    pub(crate) fn revoke(&mut self, id: i64) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.digest = self.digest.wrapping_sub(digest_of(id, &lease));
        Some(lease)
    }

    /// Notes what is left of a lease; false when there is no such lease.
    pub(crate) fn checkpoint(&mut self, id: i64, remaining: i64) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else { return false };
        self.digest = self.digest.wrapping_sub(digest_of(id, lease));
        lease.remaining = remaining.clamp(0, lease.ttl.max(0));
        self.digest = self.digest.wrapping_add(digest_of(id, lease));
        true
    }

    /// Moves a key from one lease to another; 0 is none.
    pub(crate) fn attach(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(lease) = self.leases.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&to) {
            lease.keys.insert(key.into());
        }
    }
}
