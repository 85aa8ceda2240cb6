//! What an observer who sees everything may look at: for oracles, never for decisions.

use synod_core::Role;

use super::{Pbft, View};

impl Pbft {
    /// What this replica is, and in which view.
    #[must_use]
    pub fn standing(&self) -> (Role, View) {
        (if self.is_primary() { Role::Primary } else { Role::Backup }, self.view)
    }
}
