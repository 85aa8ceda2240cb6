//! etcd's consistency hash over keys and values, bit for bit.
//!
//! CRC-32C over the word `key`, then over each version up to a revision, in the order of revisions: its revision as
//! upstream's storage names it (eight bytes main, an underscore, eight bytes sub, and `t` for a tombstone), then its pair.
//! At and below the compacted revision, only those versions count that are still their key's present one at the revision
//! asked for (upstream's `Keep`; the transcripts show it); if no key is present then, upstream has nothing to go by and
//! hashes all that compaction kept. Whether memory still holds what a compaction did away with makes no difference.

use crate::arena::Record;
use crate::error::OpError;
use crate::view::View;

/// A hash, and what it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// The compacted revision that it takes into account.
    pub compact_revision: i64,
    /// The last revision that it covers.
    pub hash_revision: i64,
}

impl View {
    /// Hashes all versions up to a revision; zero and below mean the present. Looks at everything: for a large store, ask a
    /// frozen view, elsewhere.
    ///
    /// # Errors
    /// When the revision lies above the present, or below what is kept.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, OpError> {
        let until = self.resolve(revision)?;
        let mut hash = crc32c::crc32c(b"key");
        let none_present = self.index.count(&self.arena, self.index.first(), self.index.end(), until) == 0;
        for (at, record) in self.arena.history(0) {
            let main = record.main();
            if main > until {
                break;
            }
            if main <= self.compacted {
                let Some(slot) = self.index.get(&self.arena, record.key()) else { continue };
                let at_revision = if none_present { self.compacted } else { until };
                if slot.live_at(&self.arena, at_revision) != Some(at) {
                    continue;
                }
            }
            hash = crc32c::crc32c_append(hash, revision_key(&record).as_ref());
            hash = crc32c::crc32c_append(hash, record.kv);
        }
        Ok(HashKv { hash, compact_revision: self.compacted, hash_revision: until })
    }
}

fn revision_key(record: &Record<'_>) -> impl AsRef<[u8]> + use<> {
    let rev = record.rev();
    let mut key = smallvec::SmallVec::<[u8; 18]>::new();
    key.extend_from_slice(&rev.main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&u64::from(rev.sub).to_be_bytes());
    if record.tombstone {
        key.push(b't');
    }
    key
}
