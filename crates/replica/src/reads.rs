//! Linearizable reads: many waiting reads share one fence, and a fenced read waits until everything that
//! it must see has been applied.

use std::collections::BTreeMap;

use synod_core::{Index, ReadId};

/// Reads on their way from "asked" over "fenced" to "readable".
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Asked since the last flush; they will share the next fence.
    asked: Vec<ReadId>,
    /// The fences that the protocol has not answered yet, with the reads behind each.
    fences: BTreeMap<ReadId, Vec<ReadId>>,
    /// Fenced reads, by what must be applied first.
    fenced: BTreeMap<Index, Vec<ReadId>>,
    fences_made: u64,
}

impl Reads {
    pub(crate) fn ask(&mut self, read: ReadId) {
        self.asked.push(read);
    }

    /// The fence that all reads asked since the last one share; none when nobody asked.
    pub(crate) fn next_fence(&mut self) -> Option<ReadId> {
        if self.asked.is_empty() {
            return None;
        }
        self.fences_made += 1;
        let fence = ReadId(self.fences_made);
        self.fences.insert(fence, std::mem::take(&mut self.asked));
        Some(fence)
    }

    /// The protocol says what the fence's reads must see.
    pub(crate) fn fenced(&mut self, fence: ReadId, at: Index) {
        if let Some(reads) = self.fences.remove(&fence) {
            self.fenced.entry(at).or_default().extend(reads);
        }
    }

    /// The protocol refuses a fence: the reads behind it.
    pub(crate) fn refused(&mut self, fence: ReadId) -> Vec<ReadId> {
        self.fences.remove(&fence).unwrap_or_default()
    }

    /// All reads that wait for something to be applied: history has changed, and they will not see it.
    pub(crate) fn take_fenced(&mut self) -> Vec<ReadId> {
        std::mem::take(&mut self.fenced).into_values().flatten().collect()
    }

    /// The reads that may be served with everything up to `applied` in place.
    pub(crate) fn readable(&mut self, applied: Index) -> Vec<ReadId> {
        let mut readable = Vec::new();
        while let Some(entry) = self.fenced.first_entry() {
            if *entry.key() > applied {
                break;
            }
            readable.extend(entry.remove());
        }
        readable
    }
}
