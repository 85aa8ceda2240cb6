//! Timers (4.5.2): when to lose patience with a primary.
//!
//! A replica watches the oldest request that it knows of and that is not executed; each has `patience` from the moment at
//! which it became the oldest. So a primary that serves everybody but one is replaced, too. Patience doubles with every
//! view change that brings nothing, and is as it was when something is executed.
//!
//! A replica that f + 1 others are ahead of does not blame the primary while it gains ground: first it catches up. But no longer:
//! of those f + 1, f may lie, and what the one honest other has executed cannot be learned from it alone.

use synod_core::Output;

use super::{Pbft, Phase};

/// What a replica waits for, as long as it is this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// The request at this place of the pool.
    Request(u64),
    /// A sequence number that was given out, behind this many executed.
    Slot(u64),
    /// To catch up, from here.
    Behind(u64),
}

impl Pbft {
    /// Looks what there is to wait for.
    pub(super) fn watch_the_primary(&mut self) {
        if self.phase != Phase::Active {
            return;
        }
        let head = self.head.point.at;
        let open = self.slots.range(head.next()..).any(|(_, slot)| slot.accepted_in(self.view).is_some())
            || self.selection.range(head.next()..).next().is_some();
        let request = self.pool.oldest().map(Watched::Request);
        let watched = request.or_else(|| open.then_some(Watched::Slot(head.0)));
        let watched = watched.map(|it| if self.lags() { Watched::Behind(head.0) } else { it });
        if watched.is_none() {
            (self.catch_up.watched, self.view_due) = (None, None);
        } else if watched != self.catch_up.watched {
            self.catch_up.watched = watched;
            self.view_due = Some(self.now + self.patience);
        }
    }

    pub(super) fn on_timeout(&mut self, out: &mut Output<Self>) {
        if self.heartbeat_due <= self.now {
            self.heartbeat_due = self.now + self.options.heartbeat;
            self.heartbeat(out);
        }
        if self.view_due.is_some_and(|due| due <= self.now) {
            self.leave_for(self.view.next(), out);
        }
    }
}
