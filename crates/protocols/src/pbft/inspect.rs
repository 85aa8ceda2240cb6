//! What an observer who sees everything may look at: for oracles, never for decisions.

use synod_core::{Index, Role};

use super::{Digest, Pbft, View};

impl Pbft {
    /// What this replica is, and in which view.
    #[must_use]
    pub fn standing(&self) -> (Role, View) {
        (if self.is_primary() { Role::Primary } else { Role::Backup }, self.view)
    }

    /// The last checkpoint that is stable: what lies before it is forgotten.
    #[must_use]
    pub fn stable(&self) -> Index {
        self.stable.point.at
    }

    /// At this place: the last view in which this replica accepted a proposal, and the last that prepared.
    #[must_use]
    pub fn agreed_at(&self, at: Index) -> (Option<View>, Option<(View, Digest)>) {
        let Some(slot) = self.slots.get(&at) else { return (None, None) };
        (slot.accepted().map(|(view, _)| view), slot.prepared)
    }
}
