//! What an observer who sees everything may look at: for oracles, never for decisions.

use synod_core::{Index, Role};

use super::{Ballot, Entry, Part, PrimaryBackup, View};

impl PrimaryBackup {
    /// What this replica is, and in which view. Of a learner it says backup, which costs no look at the members.
    #[must_use]
    pub fn standing(&self) -> (Role, u64) {
        let role = match &self.part {
            Part::Primary(_) => Role::Primary,
            Part::Backup => Role::Backup,
        };
        (role, self.view.number.0)
    }

    /// The newest view that this replica knows.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The entries in memory, with their places, in ascending order.
    pub fn entries(&self) -> impl Iterator<Item = (Index, &Entry)> {
        let (first, last) = (self.log.first(), self.log.last().index);
        (first.0..=last.0).map_while(|at| Some((Index(at), self.log.entry(Index(at))?)))
    }

    /// What this replica has promised and accepted about the view after the newest that it knows.
    #[must_use]
    pub fn register(&self) -> (Ballot, Option<Ballot>) {
        (self.register.promised, self.register.accepted.as_ref().map(|(ballot, _)| *ballot))
    }
}
